"""Joining: `join`, `try_join`, `gather`, `gather_safe`."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from yamanote.futures import gather, gather_safe, join, try_join
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


def others() -> set[asyncio.Task[Any]]:
    current = asyncio.current_task()
    return {task for task in asyncio.all_tasks() if task is not current}


async def gather_list(*awaitables: Any) -> Any:
    return await gather(list(awaitables))


async def gather_limited(*awaitables: Any) -> Any:
    return await gather(*awaitables, limit=2)


Joining = Callable[..., Coroutine[Any, Any, Any]]


async def join_list(*awaitables: Any) -> Any:
    return await join(list(awaitables))


async def gather_on(*awaitables: Any) -> Any:
    return await gather(*awaitables, sensitive=False)


ALL = pytest.mark.parametrize(
    "joining", [join, join_list, try_join, gather, gather_list, gather_limited, gather_on, gather_safe]
)
RAISING = pytest.mark.parametrize(
    "joining", [join, join_list, try_join, gather, gather_list, gather_limited, gather_on]
)
FAIL_FAST = pytest.mark.parametrize("joining", [try_join, gather, gather_list, gather_limited])


@ALL
async def test_values_come_in_the_order_of_the_arguments(joining: Joining) -> None:
    assert await joining(turns(3, "a"), turns(0, "b"), turns(1, "c")) == ["a", "b", "c"]
    assert others() == set()


@ALL
async def test_nothing_gives_an_empty_list(joining: Joining) -> None:
    assert await joining() == []


@ALL
async def test_every_value_is_a_value(joining: Joining) -> None:
    values = [None, 0, "", ValueError("a value"), asyncio.CancelledError("a value")]
    assert await joining(*(turns(1, value) for value in values)) == values
    assert await joining(*(turns(0, value) for value in values)) == values


@ALL
async def test_they_run_at_the_same_time(joining: Joining) -> None:
    gate = asyncio.Event()

    async def open_gate() -> None:
        gate.set()

    assert await joining(gate.wait(), open_gate()) == [True, None]


@ALL
async def test_ready_work_takes_no_turn(joining: Joining) -> None:
    noted: list[str] = []
    asyncio.get_running_loop().call_soon(lambda: noted.append("a turn"))
    await joining(turns(0), turns(0), turns(0))
    assert noted == []


@ALL
async def test_a_loop_of_calls_that_are_ready_lets_the_others_run(joining: Joining) -> None:
    calls = 0
    noted: list[int] = []
    asyncio.get_running_loop().call_soon(lambda: noted.append(calls))
    for _ in range(BUDGET * 2):
        await joining(turns(0), turns(0))
        calls += 1
    assert 0 < noted[0] <= BUDGET


@ALL
async def test_a_call_that_is_cancelled_before_anything_began_closes_its_coroutines(joining: Joining) -> None:
    async def call() -> None:
        for _ in range(BUDGET * 2):
            await joining(turns(0), turns(0))

    task = asyncio.create_task(call())
    asyncio.get_running_loop().call_soon(task.cancel)
    await asyncio.wait([task])
    assert task.cancelled()


@ALL
async def test_a_lot_of_ready_work_lets_the_others_run(joining: Joining) -> None:
    done = 0
    noted: list[int] = []

    async def work() -> None:
        nonlocal done
        done += 1

    asyncio.get_running_loop().call_soon(lambda: noted.append(done))
    await joining(*(work() for _ in range(BUDGET * 3)))
    assert done == BUDGET * 3
    assert noted[0] <= BUDGET


@FAIL_FAST
async def test_the_first_error_cancels_the_others_and_waits_for_them(joining: Joining) -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await never()
        finally:
            await turns(3)
            ended.append("work")

    with pytest.raises((OSError, ExceptionGroup)):
        await joining(work(), fail(2, OSError("no answer")))
    assert ended == ["work"]
    assert others() == set()


async def test_try_join_raises_the_first_error_as_it_is_and_the_others_are_reported() -> None:
    async def fail_late() -> None:
        try:
            await never()
        finally:
            raise KeyError("in the clean-up")

    errors: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    error = OSError("no answer")
    with pytest.raises(OSError) as caught:
        await try_join(fail_late(), fail(2, error))
    await yield_now()
    gc.collect()
    loop.set_exception_handler(None)
    assert caught.value is error
    assert [type(error) for error in errors] == [KeyError]


@pytest.mark.parametrize("joining", [gather, gather_list, gather_limited])
async def test_gather_raises_all_errors_in_the_order_of_the_arguments(joining: Joining) -> None:
    late = KeyError("in the clean-up")

    async def fail_late() -> None:
        try:
            await never()
        finally:
            await turns(2)
            raise late

    first = OSError("no answer")
    errors: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    with pytest.raises(ExceptionGroup) as caught:
        await joining(fail_late(), fail(2, first), never())
    gc.collect()
    loop.set_exception_handler(None)
    assert caught.value.exceptions == (late, first)
    assert errors == []


@pytest.mark.parametrize("joining", [join, join_list, gather_on])
async def test_join_lets_the_others_finish_and_raises_all_errors(joining: Joining) -> None:
    finished: list[str] = []

    async def work() -> None:
        await turns(5)
        finished.append("work")

    one, two = OSError("one"), KeyError("two")
    with pytest.raises(ExceptionGroup) as caught:
        await joining(fail(3, one), work(), fail(0, two))
    assert caught.value.exceptions == (one, two)
    assert "2 of 3" in str(caught.value)
    assert finished == ["work"]


async def test_a_single_error_of_join_and_gather_comes_in_a_group_too() -> None:
    for joining in (join, gather):
        with pytest.raises(ExceptionGroup) as caught:
            await joining(fail(1, OSError("no answer")), turns(3))
        assert len(caught.value.exceptions) == 1


@RAISING
async def test_somebody_elses_cancellation_is_an_error_and_cancels_nobody(joining: Joining) -> None:
    async def cancel_itself() -> None:
        raise asyncio.CancelledError

    task = asyncio.create_task(never(), name="victim")
    asyncio.get_running_loop().call_soon(task.cancel)
    for victim in (task, cancel_itself()):
        with pytest.raises((JoinError, ExceptionGroup)) as caught:
            await joining(victim, turns(3))
        error = caught.value.exceptions[0] if isinstance(caught.value, ExceptionGroup) else caught.value
        assert isinstance(error, JoinError)


@ALL
@pytest.mark.parametrize("turn", range(1, 10))
async def test_when_it_is_cancelled_everything_has_ended(joining: Joining, turn: int) -> None:
    running: set[str] = set()

    async def work(name: str) -> None:
        running.add(name)
        try:
            await turns(2)
            await never()
        finally:
            await turns(3)
            running.remove(name)

    task = asyncio.create_task(joining(work("a"), turns(1), work("b")))
    await turns(turn)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert running == set()
    assert others() == set()


@pytest.mark.parametrize("turn", range(1, 12))
async def test_a_failure_and_a_cancellation_at_once_leave_nothing_behind(turn: int) -> None:
    async def work() -> None:
        try:
            await never()
        finally:
            await turns(3)

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)  # an error that nobody is left to be told of
    for joining in (try_join, gather):
        task = asyncio.create_task(joining(work(), fail(2, OSError("no answer")), work()))
        await turns(turn)
        was_done = task.done()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or task.exception() is not None
        assert task.cancelled() != was_done
        assert others() == set()
    gc.collect()
    loop.set_exception_handler(None)


@ALL
async def test_futures_and_handles_are_joined_but_not_cancelled(joining: Joining) -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, "future")
    assert await joining(future, spawn(turns(2, "handle")), future) == ["future", "handle", "future"]

    open_future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(joining(open_future, turns(1)))
    await turns(3)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert not open_future.done()


async def test_gather_runs_no_more_than_the_limit() -> None:
    running = highest = 0

    async def work(number: int) -> int:
        nonlocal running, highest
        running += 1
        highest = max(highest, running)
        await turns(3 + number % 4)
        running -= 1
        return number

    for limit in (1, 3, 5, 10, 1000):
        highest = 0
        assert await gather((work(number) for number in range(1000)), limit=limit) == list(range(1000))
        assert highest <= limit
        if limit <= 10:
            assert highest == limit


async def test_gather_makes_no_more_than_it_can_run_and_none_after_an_error() -> None:
    made: list[int] = []

    def work() -> Iterator[Coroutine[Any, Any, Any]]:
        number = 0
        while True:
            made.append(number)
            yield fail(1, OSError("enough")) if number == 20 else turns(2)
            number += 1

    with pytest.raises(ExceptionGroup):
        await gather(work(), limit=5)
    assert len(made) <= 25
    assert others() == set()


async def test_coroutines_that_exist_but_never_begin_are_closed() -> None:
    with pytest.raises(ExceptionGroup):
        await gather([fail(0, OSError("first")), *(turns(0) for _ in range(5))], limit=1)
    with pytest.raises(ExceptionGroup):
        await gather(fail(0, OSError("first")), *(turns(0) for _ in range(5)), limit=1)


async def test_an_error_of_the_iterable_ends_everything() -> None:
    def broken() -> Iterator[Coroutine[Any, Any, Any]]:
        yield never()
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        await gather(broken())
    assert others() == set()


@pytest.mark.parametrize("limit", [0, -1, 1.5, "2", True])
async def test_a_limit_that_is_no_count_is_refused_by_name(limit: Any) -> None:
    refusal = ValueError if type(limit) is int else TypeError
    with pytest.raises(refusal, match="limit"):
        await gather([turns(0)], limit=limit)
    with pytest.raises(refusal, match="limit"):
        await gather(turns(0), limit=limit)


@ALL
async def test_nonsense_is_refused(joining: Joining) -> None:
    with pytest.raises(TypeError):
        await joining(never(), 1, never())
    with pytest.raises(TypeError, match="a function: call it"):
        await joining(never)
    with pytest.raises(TypeError, match="a class: make one"):
        await joining(asyncio.Event)
    assert others() == set()


async def test_gather_safe_returns_values_and_errors_in_order_and_reports_nothing() -> None:
    reported: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    victim = asyncio.create_task(never())
    loop.call_soon(victim.cancel)
    one, two, returned = OSError("one"), KeyError("two"), ValueError("a value")
    results = await gather_safe(fail(3, one), turns(2, "a"), fail(0, two), turns(5, returned), victim, limit=3)
    cancelled = results.pop()
    assert results == [one, "a", two, returned]
    assert isinstance(cancelled, JoinError)
    del results
    gc.collect()
    loop.set_exception_handler(None)
    assert reported == []


async def test_with_a_limit_of_one_they_run_one_after_the_other() -> None:
    events: list[str] = []

    async def work(name: str) -> str:
        events.append(f"{name} begins")
        await turns(2)
        events.append(f"{name} ends")
        return name

    assert await gather(map(work, "abc"), limit=1) == ["a", "b", "c"]
    assert events == [f"{name} {what}" for name in "abc" for what in ("begins", "ends")]


async def test_with_a_limit_and_not_sensitive_all_are_begun_and_all_errors_raised() -> None:
    begun: list[int] = []

    async def work(number: int) -> None:
        begun.append(number)
        await fail(number % 3, OSError(number))

    with pytest.raises(ExceptionGroup, match="10 of 10") as caught:
        await gather(map(work, range(10)), limit=2, sensitive=False)
    assert begun == list(range(10))
    assert [error.args[0] for error in caught.value.exceptions] == begun


@RAISING
async def test_an_error_is_free_as_soon_as_it_is_handled(joining: Joining) -> None:
    class Failure(Exception):
        pass

    async def work() -> None:
        await turns(2)
        raise Failure

    gc.collect()
    gc.disable()
    try:
        try:
            await joining(work(), turns(1))
        except Failure as error:
            freed = weakref.ref(error)
        except ExceptionGroup as group:
            freed = weakref.ref(group.exceptions[0])
        await yield_now()  # the loop refers to the last that ended until the caller waits, as for `await task`
        assert freed() is None
    finally:
        gc.enable()


async def test_an_error_of_a_call_that_was_cancelled_meanwhile_is_reported() -> None:
    errors: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    error = OSError("no answer")

    async def work() -> None:
        try:
            await never()
        finally:
            await turns(3)

    for joining in (try_join, gather, join):
        task = asyncio.create_task(joining(fail(1, error), work()))
        await turns(4)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        gc.collect()
        assert errors == [error]
        errors.clear()
    loop.set_exception_handler(None)
