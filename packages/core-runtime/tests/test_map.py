from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from yamanote.runtime import JoinError, map, run, start_task, yield_now


async def double(number: int) -> int:
    for _ in range(5 - number):
        await yield_now()
    return number * 2


async def test_results_come_in_the_order_of_the_items() -> None:
    assert await map(double, range(5)) == [0, 2, 4, 6, 8]
    assert await map(double, iter([4, 3]), limit=1) == [8, 6]
    assert await map(double, []) == []


async def test_all_calls_run_at_once_or_as_many_as_the_limit_and_begin_in_order() -> None:
    running = most = 0
    begun: list[int] = []

    async def call(number: int) -> None:
        nonlocal running, most
        begun.append(number)
        running += 1
        most = max(most, running)
        await yield_now()
        running -= 1

    await map(call, range(6))
    assert most == 6
    most = 0
    await map(call, range(6), limit=2)
    assert most == 2 and begun == [*range(6)] * 2


async def test_each_call_has_a_task_of_its_own() -> None:
    async def task_of(_: int) -> Any:
        return asyncio.current_task()

    tasks = await map(task_of, range(3), limit=1)
    assert len({*tasks, asyncio.current_task()}) == 4


async def test_the_first_error_is_raised_as_it_is_when_the_others_have_ended() -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    first, second = LookupError(), ArithmeticError()
    log: list[int] = []

    async def call(number: int) -> None:
        log.append(number)
        if number == 1:
            raise first
        try:
            await asyncio.sleep(3600)
        finally:
            await yield_now()
            raise second

    with pytest.raises(LookupError) as caught:
        await map(call, range(4), limit=2)
    assert caught.value is first and log == [0, 1]
    assert first.__context__ is None and first.__cause__ is None
    assert [report["exception"] for report in reports] == [second]
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


async def test_an_error_leaves_no_reference_cycle() -> None:
    async def call(number: int) -> None:
        raise LookupError

    async def attempt() -> None:
        try:
            await map(call, range(2))
        except LookupError:
            pass

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    await attempt()
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        await attempt()
        gc.collect()
        garbage = [each for each in gc.garbage if isinstance(each, LookupError)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert garbage == []


async def test_an_error_of_the_items_is_raised_as_it_is_and_ends_the_calls() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise LookupError

    with pytest.raises(LookupError):
        await map(double, items())


async def test_a_function_that_is_not_async_fails_its_call() -> None:
    with pytest.raises(TypeError):
        await map(str, [1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="async function"):
        await map(3, [1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="limit"):
        await map(double, [1], limit=0)


async def test_a_cancellation_goes_on_when_all_calls_have_ended() -> None:
    log: list[int] = []

    async def call(number: int) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await yield_now()
            log.append(number)

    task = start_task(map(call, range(2)))
    await yield_now()
    await yield_now()
    task.cancel("from outside")
    with pytest.raises(asyncio.CancelledError, match="from outside"):
        await task
    assert log == [0, 1]


async def test_a_call_that_cancels_itself_has_no_result() -> None:
    async def call(number: int) -> None:
        raise asyncio.CancelledError("mine")

    with pytest.raises(JoinError, match="mine"):
        await map(call, [1])


def test_it_works_under_an_eager_task_factory() -> None:
    async def example() -> list[int]:
        if sys.version_info >= (3, 12):
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        return await asyncio.create_task(map(double, range(3), limit=2))

    assert run(example()) == [0, 2, 4]
