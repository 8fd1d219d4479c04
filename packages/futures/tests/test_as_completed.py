"""Ends as they come: `as_completed_safe`. What it has in common with `amass` is tested there."""

import asyncio
import gc
from typing import Any

import pytest

from yamanote.futures import as_completed_safe
from yamanote.runtime import JoinError, spawn, yield_now


async def turns(count: int, value: Any = None) -> Any:
    for _ in range(count):
        await yield_now()
    return value


async def never() -> None:
    await asyncio.get_running_loop().create_future()


async def fail(count: int, error: BaseException) -> None:
    await turns(count)
    raise error


async def test_the_first_that_ends_is_given_first_however_it_ends() -> None:
    error = OSError("no answer")
    seen: list[Any] = []
    async for result in as_completed_safe([turns(3, "slow"), fail(2, error), turns(1, "fast")]):
        assert result.is_finished()
        try:
            seen.append(await result)
        except OSError as caught:
            seen.append(caught)
    assert seen == ["fast", error, "slow"]


@pytest.mark.parametrize("value", [None, 0, "", ValueError("a value"), asyncio.CancelledError("a value")])
async def test_a_returned_exception_is_a_value(value: Any) -> None:
    async for result in as_completed_safe([turns(1, value)]):
        assert await result == value


async def test_a_failure_stops_nobody_and_the_iteration_ends() -> None:
    count = 0
    async for result in as_completed_safe((fail(number % 3, OSError(number)) for number in range(10)), limit=2):
        count += 1
        with pytest.raises(OSError):
            await result
    assert count == 10


async def test_an_error_that_somebody_took_is_not_reported_and_one_that_nobody_took_is_once() -> None:
    errors: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    ignored = OSError("ignored")
    async for result in as_completed_safe([fail(2, KeyError("taken")), fail(1, ignored)]):
        if "taken" in repr(result._future.exception()):
            with pytest.raises(KeyError):
                await result
    del result
    assert [result.name async for result in as_completed_safe([fail(1, ignored)])]
    gc.collect()
    loop.set_exception_handler(None)
    assert errors == [ignored]


async def test_a_task_that_somebody_cancelled_has_a_join_error() -> None:
    victim = asyncio.create_task(never(), name="victim")
    asyncio.get_running_loop().call_soon(victim.cancel)
    async for result in as_completed_safe([victim]):
        with pytest.raises(JoinError, match="victim"):
            await result


async def test_the_handle_of_what_was_passed_in_has_its_name() -> None:
    task = asyncio.create_task(turns(1), name="task")
    handle = spawn(turns(2), name="handle")
    names = [result.name async for result in as_completed_safe([handle, task])]
    assert names == ["task", "handle"]


async def test_leaving_the_block_early_cancels_and_awaits() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await never()
        finally:
            await turns(3)
            ended.append("work")

    async with as_completed_safe([work(), turns(0, "first")]) as results:
        async for result in results:
            assert await result == "first"
            break
    assert ended == ["work"]


async def test_it_shows_what_it_runs() -> None:
    async with as_completed_safe([turns(0), never()]) as results:
        await anext(results)
        assert "1 running" in repr(results)
