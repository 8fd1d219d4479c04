"""Values as they come: `amass`."""

import asyncio
import gc
import sys
import warnings
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from yamanote.futures import amass
from yamanote.runtime import BUDGET, JoinError, spawn, yield_now


async def turns(count: int, value: Any = None) -> Any:
    for _ in range(count):
        await yield_now()
    return value


async def never() -> None:
    await asyncio.get_running_loop().create_future()


async def fail(count: int, error: BaseException) -> None:
    await turns(count)
    raise error


@pytest.fixture(autouse=True)
def nothing_is_left_over() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
        gc.collect()


def others() -> set[asyncio.Task[Any]]:
    current = asyncio.current_task()
    return {task for task in asyncio.all_tasks() if task is not current}


async def test_the_first_that_finishes_is_given_first() -> None:
    values = amass([turns(3, "slow"), turns(1, "fast"), turns(2, "middle")])
    assert [value async for value in values] == ["fast", "middle", "slow"]
    assert others() == set()


async def test_a_tie_is_decided_by_the_order_of_completion() -> None:
    assert [value async for value in amass(turns(3, number) for number in range(20))] == list(range(20))


async def test_nothing_gives_nothing() -> None:
    assert [value async for value in amass([])] == []


@pytest.mark.parametrize("count", [0, 2])
async def test_every_value_is_a_value(count: int) -> None:
    given = [None, 0, "", ValueError("a value"), asyncio.CancelledError("a value")]
    assert [value async for value in amass(turns(count, value) for value in given)] == given


def test_it_is_made_where_no_loop_runs_and_begins_with_the_first_step() -> None:
    began: list[int] = []

    async def begin(number: int) -> int:
        began.append(number)
        return number

    values = amass(map(begin, range(3)))

    async def main() -> list[int]:
        return [value async for value in values]

    assert began == []
    assert asyncio.run(main()) == [0, 1, 2]


async def test_all_begin_before_the_first_value_is_given() -> None:
    began: list[int] = []

    async def begin(number: int) -> int:
        began.append(number)
        return number

    async with amass(map(begin, range(3))) as values:
        assert await anext(values) == 0
        assert began == [0, 1, 2]


async def test_no_more_than_the_limit_run_or_wait_to_be_taken() -> None:
    running = highest = made = 0

    async def work(number: int) -> int:
        nonlocal running, highest
        running += 1
        highest = max(highest, running)
        await turns(number % 4)
        running -= 1
        return number

    def works() -> Iterator[Coroutine[Any, Any, int]]:
        nonlocal made
        for number in range(40):
            made += 1
            yield work(number)

    taken = []
    async for value in amass(works(), limit=3):
        taken.append(value)
        assert made <= len(taken) + 3
        await turns(number := value % 7)
        assert made <= len(taken) + 3, number
    assert highest == 3
    assert sorted(taken) == list(range(40))


async def test_an_endless_iterable_can_be_left() -> None:
    def endless() -> Iterator[Coroutine[Any, Any, int]]:
        number = 0
        while True:
            yield turns(number % 3, number)
            number += 1

    taken = []
    async with amass(endless(), limit=2) as values:
        async for value in values:
            taken.append(value)
            if len(taken) == 10:
                break
    assert len(taken) == 10
    assert others() == set()


@pytest.mark.parametrize("limit", [None, 3])
async def test_the_first_error_ends_it_after_what_came_before_and_with_all_errors(limit: int | None) -> None:
    late, first = KeyError("in the clean-up"), OSError("no answer")
    ended: list[str] = []

    async def fail_late() -> None:
        try:
            await never()
        finally:
            await turns(2)
            ended.append("late")
            raise late

    async def ignore_it() -> str:
        try:
            await never()
        except asyncio.CancelledError:
            return "too late"
        raise AssertionError

    taken = []
    values = amass([turns(1, "before"), fail(3, first), fail_late(), ignore_it(), never()], limit=limit)
    with pytest.raises(ExceptionGroup) as caught:
        async for value in values:
            taken.append(value)
            await turns(9 if limit is None else 0)
    assert taken == ["before"]
    assert caught.value.exceptions == ((first, late) if limit is None else (first, late)[: len(ended) + 1])
    assert others() == set()
    assert [value async for value in values] == []


async def test_those_that_have_not_begun_after_an_error_never_do() -> None:
    async def begin() -> None:
        pytest.fail("began")

    with pytest.raises(ExceptionGroup, match="1 of 1 failed"):
        await anext(amass([fail(0, OSError()), begin(), begin()], limit=1))
    with pytest.raises(ExceptionGroup, match="1 of 1 failed"):
        await anext(amass([fail(0, OSError()), begin(), begin()]))


async def test_when_it_is_not_sensitive_the_errors_come_after_all_values() -> None:
    one, two = OSError("one"), KeyError("two")
    taken = []
    values = amass([fail(2, one), turns(3, "a"), fail(0, two), turns(5, "b")], limit=2, sensitive=False)
    with pytest.raises(ExceptionGroup, match="2 of 4 failed") as caught:
        async for value in values:
            taken.append(value)
    assert taken == ["a", "b"]
    assert sorted(map(str, caught.value.exceptions)) == sorted(map(str, (one, two)))


@pytest.mark.parametrize("sensitive", [True, False])
async def test_somebody_elses_cancellation_is_an_error_and_cancels_nobody(sensitive: bool) -> None:
    async def cancel_itself() -> None:
        await yield_now()
        raise asyncio.CancelledError

    with pytest.raises(ExceptionGroup) as caught:
        await anext(amass([cancel_itself()], sensitive=sensitive))
    assert isinstance(caught.value.exceptions[0], JoinError)
    current = asyncio.current_task()
    assert current is not None and not current.cancelling()


async def test_closing_early_cancels_and_awaits_and_raises_nothing() -> None:
    ended: list[int] = []

    async def work(number: int) -> None:
        try:
            await never()
        finally:
            await turns(number)
            ended.append(number)

    values = amass([work(1), turns(0, "first"), work(3), *(turns(0) for _ in range(3))], limit=3)
    assert await anext(values) == "first"
    await values.aclose()
    assert ended == [1, 3]
    assert others() == set()
    await values.aclose()
    assert [value async for value in values] == []


async def test_an_error_that_nobody_took_before_it_was_closed_is_reported() -> None:
    errors: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    error = OSError("no answer")
    async with amass([turns(0), fail(1, error)]) as values:
        await anext(values)
        await turns(3)
    gc.collect()
    loop.set_exception_handler(None)
    assert errors == [error]


@pytest.mark.parametrize("turn", range(12))
async def test_a_cancelled_step_takes_nothing(turn: int) -> None:
    taken: list[int] = []

    async def take() -> None:
        async for value in values:
            taken.append(value)

    async with amass((turns(2 + number, number) for number in range(4)), limit=2) as values:
        task = asyncio.create_task(take())
        await turns(turn)
        task.cancel()
        await asyncio.wait([task])
        await take()
    assert sorted(taken) == [0, 1, 2, 3]


async def test_several_may_take_and_nobody_is_told_of_the_end_before_it_has_come() -> None:
    taken: list[int] = []

    async def take() -> None:
        async for value in values:
            taken.append(value)
            await yield_now()

    values = amass((turns(3, number) for number in range(20)), limit=1)
    takers = [asyncio.create_task(take()) for _ in range(3)]
    await asyncio.wait(takers)
    assert sorted(taken) == list(range(20))
    assert all(task.exception() is None for task in takers)


async def test_an_error_of_the_iterable_ends_everything() -> None:
    def broken() -> Iterator[Coroutine[Any, Any, Any]]:
        yield turns(0, "first")
        yield never()
        raise KeyError("broken")

    values = amass(broken())
    with pytest.raises(KeyError, match="broken"):
        await anext(values)
    assert others() == set()
    with pytest.raises(TypeError):
        await anext(amass(iter([never(), 1])))  # type: ignore[list-item]
    assert others() == set()


async def test_futures_tasks_and_handles_go_on_after_a_failure() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    handle = spawn(turns(6, "handle"))
    with pytest.raises(ExceptionGroup):
        await anext(amass([future, handle, fail(1, OSError())]))
    assert not future.done()
    assert await handle == "handle"


async def test_a_lot_of_ready_work_lets_the_others_run() -> None:
    done = 0
    noted: list[int] = []

    async def work() -> None:
        nonlocal done
        done += 1

    asyncio.get_running_loop().call_soon(lambda: noted.append(done))
    async for _ in amass(work() for _ in range(BUDGET * 3)):
        pass
    assert done == BUDGET * 3
    assert noted[0] <= BUDGET


async def test_one_that_is_dropped_cancels_its_tasks_and_warns() -> None:
    values = amass([turns(0), never()])
    await anext(values)
    (task,) = others()
    with pytest.warns(ResourceWarning, match="async with"):
        del values
        gc.collect()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_one_that_is_dropped_cancels_its_tasks_where_warnings_are_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # where the warning ends up
    values = amass([turns(0), never()])
    await anext(values)
    (task,) = others()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        del values
        gc.collect()
    await asyncio.wait([task], timeout=10)
    assert task.cancelled()


async def test_a_block_that_is_thrown_away_cancels_without_waiting() -> None:
    async def body() -> None:
        async with amass([turns(0), never()]) as values:
            await anext(values)
            await yield_now()

    coroutine = body()
    coroutine.send(None)
    (task,) = others()
    coroutine.close()
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize("limit", [0, -1, 1.5, "2", True])
async def test_a_limit_that_is_no_count_is_refused_by_name(limit: Any) -> None:
    refusal = ValueError if type(limit) is int else TypeError
    with pytest.raises(refusal, match="limit"):
        amass([turns(0)], limit=limit)


async def test_nonsense_is_refused_at_the_call() -> None:
    for nonsense in (1, turns(0), asyncio.get_running_loop().create_future()):
        with pytest.raises(TypeError, match="awaitables"):
            amass(nonsense)  # type: ignore[call-overload, arg-type, unused-ignore]
    with pytest.raises(TypeError):
        amass([turns(0), 1, turns(0)])  # type: ignore[list-item]


async def test_an_error_in_the_clean_up_of_what_was_closed_is_reported_and_not_raised() -> None:
    errors: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))

    async def work() -> None:
        try:
            await never()
        finally:
            raise OSError("in the clean-up")

    async with amass([turns(0), work()]) as values:
        await anext(values)
    gc.collect()
    loop.set_exception_handler(None)
    assert [str(error) for error in errors] == ["in the clean-up"]


async def test_leaving_the_block_early_closes_what_has_not_begun() -> None:
    async with amass([turns(0, "first"), *(turns(0) for _ in range(3))], limit=1) as values:
        assert await anext(values) == "first"
    assert [value async for value in values] == []


@pytest.mark.parametrize("sensitive", [True, False])
async def test_an_error_that_waits_to_be_raised_when_it_is_closed_is_reported(sensitive: bool) -> None:
    async def stubborn() -> None:
        try:
            await never()
        finally:
            await turns(20)

    errors: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    error = OSError("no answer")

    async def consume() -> None:
        async with amass([fail(1, error), stubborn()], sensitive=sensitive) as values:
            async for _ in values:
                pytest.fail("a value")

    task = asyncio.create_task(consume())
    await turns(6)  # the error has been taken, and its iteration waits for the other
    task.cancel()
    await asyncio.wait([task])
    del task
    await turns(1)
    gc.collect()
    loop.set_exception_handler(None)
    assert errors == [error]
