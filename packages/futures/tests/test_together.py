"""What all combinators have in common: the cost, and that nothing is left behind."""

import asyncio
import gc
import sys
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

import pytest

from yamanote.futures import amass, as_completed_safe, gather, gather_safe, join, race, race_ok, try_join
from yamanote.runtime import yield_now


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
