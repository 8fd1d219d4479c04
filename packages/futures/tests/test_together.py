"""What all combinators have in common: the cost, and that nothing is left behind."""

import asyncio
import gc
import sys
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextvars import ContextVar
from itertools import product
from typing import Any

import pytest

from yamanote.futures import amass, as_completed_safe, gather, gather_safe, join, race, race_ok, try_join
from yamanote.runtime import blocked_tasks, runnable_tasks, yield_now


async def turns(count: int, value: Any = None) -> Any:
    for _ in range(count):
        await yield_now()
    return value


async def drain_amass(awaitables: Iterable[Awaitable[Any]], limit: int | None = None) -> list[Any]:
    async with amass(awaitables, limit=limit) as values:
        return [value async for value in values]


async def drain_completed(awaitables: Iterable[Awaitable[Any]], limit: int | None = None) -> list[Any]:
    async with as_completed_safe(awaitables, limit=limit) as ends:
        return [await end async for end in ends]


async def drain_amass_limited(awaitables: Iterable[Awaitable[Any]]) -> list[Any]:
    return await drain_amass(awaitables, limit=10)


async def gather_limited(awaitables: Iterable[Awaitable[Any]]) -> list[Any]:
    return await gather(awaitables, limit=10)


Combinator = Callable[[Iterable[Awaitable[Any]]], Coroutine[Any, Any, Any]]
COLLECTING: list[Combinator] = [
    join,
    try_join,
    gather,
    gather_safe,
    gather_limited,
    drain_amass,
    drain_amass_limited,
    drain_completed,
]
collecting = pytest.mark.parametrize("combine", COLLECTING)
every = pytest.mark.parametrize("combine", [*COLLECTING, race, race_ok])


def calls(combine: Combinator, number: int) -> int:
    total = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal total
        total += event in ("call", "c_call")

    async def main() -> None:
        sys.setprofile(profile)
        try:
            await combine(turns(1 + count % 3) for count in range(number))
        finally:
            sys.setprofile(None)

    asyncio.run(main())
    return total


@every
def test_ten_times_the_tasks_are_ten_times_the_work(combine: Combinator) -> None:
    assert calls(combine, 2_000) < 11 * calls(combine, 200)


@every
async def test_the_caller_is_as_little_cancelled_as_before(combine: Combinator) -> None:
    task = asyncio.current_task()
    assert task is not None
    await combine([turns(1), turns(2)])
    assert task.cancelling() == 0
    try:
        async with asyncio.timeout(0):
            await combine([turns(10_000), turns(10_000)])
    except TimeoutError:
        pass
    assert task.cancelling() == 0
    assert asyncio.all_tasks() == {task}


@collecting
async def test_a_value_is_free_when_nobody_needs_it(combine: Combinator) -> None:
    class Value:
        pass

    async def make() -> Value:
        await yield_now()
        value = Value()
        freed.append(weakref.ref(value))
        return value

    freed: list[weakref.ref[Value]] = []
    gc.collect()
    gc.disable()
    try:
        assert len(await combine(make() for _ in range(3))) == 3
        assert sum(value() is not None for value in freed) <= 1
        await yield_now()  # the loop refers to the last that ended until the caller waits, as for `await task`
        assert [value() for value in freed] == [None] * 3
    finally:
        gc.enable()


async def test_a_value_that_was_taken_is_not_kept() -> None:
    class Value:
        pass

    async def make() -> Value:
        await yield_now()
        value = Value()
        made.append(weakref.ref(value))
        return value

    made: list[weakref.ref[Value]] = []
    async with amass((make() for _ in range(100)), limit=5) as values:
        async for _ in values:
            assert sum(value() is not None for value in made) <= 6


@every
async def test_timeouts_and_groups_work_inside(combine: Combinator) -> None:
    async def work() -> str:
        try:
            async with asyncio.timeout(0):
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            pass
        async with asyncio.TaskGroup() as group:
            task = group.create_task(turns(2, "value"))
        return task.result()

    assert await combine([work()]) in ("value", ["value"])


@every
async def test_nonsense_in_a_list_is_refused_before_anything_begins(combine: Combinator) -> None:
    async def begin() -> None:
        pytest.fail("began")

    with pytest.raises(TypeError, match="awaitable"):
        await combine([begin(), 1, begin()])  # type: ignore[list-item]


@every
async def test_a_coroutine_that_is_given_twice_is_refused_and_closed(combine: Combinator) -> None:
    async def begin() -> None:
        pytest.fail("began")

    twice, other = begin(), begin()
    with pytest.raises(ValueError, match="twice"):
        await combine([other, twice, twice])


@pytest.mark.parametrize(("combine", "length"), [*product(COLLECTING, [0, 3]), (race, 3), (race_ok, 3)])
async def test_a_coroutine_that_an_iterator_gives_twice_is_refused_when_it_comes(
    combine: Combinator, length: int
) -> None:
    ended = 0

    async def work() -> None:
        nonlocal ended
        try:
            await turns(length)
        finally:
            ended += 1

    def work_twice() -> Iterator[Awaitable[None]]:
        coroutine = work()
        yield coroutine
        yield coroutine

    with pytest.raises(ValueError, match="twice"):
        await combine(work_twice())
    assert ended == 1


@collecting
async def test_a_future_that_is_given_twice_gives_its_value_twice(combine: Combinator) -> None:
    task = asyncio.ensure_future(turns(2, "value"))
    assert await combine([task, task]) == ["value", "value"]


@pytest.mark.parametrize("combine", [join, try_join, gather, gather_safe, race, race_ok])
async def test_the_caller_goes_on_in_the_turn_in_which_it_hears_of_the_last_end(combine: Combinator) -> None:
    turn = 0

    def count() -> None:
        nonlocal turn
        turn += 1
        loop.call_soon(count)

    loop = asyncio.get_running_loop()
    loop.call_soon(count)
    await combine([turns(3)])
    assert turn == 4  # the callback of a task comes in the turn after its last step


async def test_however_often_a_caller_is_cancelled_it_waits_for_all_and_is_cancelled_then() -> None:
    ended = []

    async def work(number: int) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await turns(6)
            ended.append(number)

    task = asyncio.create_task(join(work(1), work(2)))
    for _ in range(3):
        await turns(2)
        task.cancel()
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [1, 2]
    assert task.cancelling() == 6


async def test_a_timeout_around_a_wait_in_the_end_of_a_cancelled_call_is_no_cancellation_of_the_caller() -> None:
    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await turns(6)

    async def call() -> str:
        try:
            async with asyncio.timeout(0):
                await join(work())
        except TimeoutError:
            return "too late"
        return "in time"

    task = asyncio.create_task(call())
    assert await task == "too late"
    assert task.cancelling() == 0


async def test_a_call_that_is_thrown_away_cancels_without_waiting() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append("work")

    call = join(work(), work())
    call.send(None)
    call.close()
    assert ended == []
    await turns(2)
    assert ended == ["work", "work"]
    await turns(2)


async def test_who_waits_for_others_is_blocked_until_they_have_ended_or_it_is_cancelled() -> None:
    go_on = asyncio.Event()
    task = asyncio.create_task(join(go_on.wait()), name="join")
    await turns(2)
    assert task in blocked_tasks()
    task.cancel()
    assert task in runnable_tasks()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_iterable_is_read_by_the_caller_in_its_own_task_and_context() -> None:
    variable: ContextVar[int] = ContextVar("variable")

    def awaitables() -> Iterator[Coroutine[Any, Any, int]]:
        for number in range(5):
            variable.set(number)
            readers.append(asyncio.current_task())
            yield read()

    async def read() -> int:
        await turns(2)
        return variable.get()

    readers: list[asyncio.Task[Any] | None] = []
    assert await gather(awaitables(), limit=2) == [0, 1, 2, 3, 4]
    assert set(readers) == {asyncio.current_task()}
    await yield_now()
    assert variable.get() == 4
