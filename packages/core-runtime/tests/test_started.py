from __future__ import annotations

import asyncio
import gc
import inspect
from typing import Any

import pytest

from yamanote.runtime import CancelScope, JoinError, Started, TaskGroup, spawn, start_task, yield_now


async def serve(started: Started[int], port: int) -> None:
    await yield_now()
    started(port)
    await asyncio.sleep(3600)


async def test_start_returns_what_the_child_is_ready_with_and_the_child_goes_on() -> None:
    async with TaskGroup() as group:
        assert await group.start(serve, 8080, name="server") == 8080
        assert [task.get_name() for task in group._children] == ["server"]
        group.cancel()


async def test_a_child_can_be_ready_without_a_value_and_end_at_once() -> None:
    async def child(started: Started[None]) -> None:
        started()

    async with TaskGroup() as group:
        assert await group.start(child) is None


async def test_an_error_before_the_child_is_ready_is_raised_by_start_and_fails_nothing_else() -> None:
    error = LookupError()

    async def child(started: Started[None]) -> None:
        raise error

    for on_error in ("cancel", "collect", "report"):
        async with TaskGroup(on_error=on_error) as group:  # type: ignore[arg-type]
            sibling = group.spawn(asyncio.sleep(0, "sibling"))
            with pytest.raises(LookupError) as caught:
                await group.start(child)
            assert caught.value is error
        assert await sibling == "sibling"


async def test_an_error_after_the_child_was_ready_is_one_of_the_group() -> None:
    async def child(started: Started[str]) -> None:
        started("ready")
        raise LookupError

    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup() as group:
            assert await group.start(child) == "ready"
            await asyncio.sleep(3600)
    assert [type(error) for error in caught.value.exceptions] == [LookupError]


async def test_a_child_that_ends_without_being_ready_is_an_error() -> None:
    async def child(started: Started[None]) -> None:
        await yield_now()

    async with TaskGroup() as group:
        with pytest.raises(RuntimeError, match="without having called started"):
            await group.start(child)


async def test_a_child_that_is_cancelled_before_it_is_ready_is_a_join_error() -> None:
    async def child(started: Started[None]) -> None:
        group.cancel("closing time")
        await asyncio.sleep(3600)

    async def starts() -> None:
        await opened.wait()
        with pytest.raises(JoinError, match="server was cancelled: closing time"):
            await group.start(child, name="server")

    opened = asyncio.Event()
    outside = start_task(starts())
    async with TaskGroup() as group:
        opened.set()
        await asyncio.sleep(3600)
    await outside


async def test_started_can_be_called_only_once() -> None:
    async def child(started: Started[int]) -> None:
        started(1)
        with pytest.raises(RuntimeError, match="only once"):
            started(2)

    async with TaskGroup() as group:
        assert await group.start(child) == 1


async def test_cancelling_the_start_cancels_that_child_only_and_waits_for_it() -> None:
    log: list[str] = []

    async def child(started: Started[None]) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await yield_now()
            started()  # nobody waits any more
            log.append("cleaned up")

    async with TaskGroup() as group:
        sibling = group.spawn(asyncio.sleep(3600))
        with CancelScope() as scope:
            asyncio.get_running_loop().call_soon(scope.cancel)
            await group.start(child)
        assert scope.cancelled_caught and log == ["cleaned up"] and not sibling.is_finished()
        group.cancel()


async def test_a_child_that_became_ready_when_its_start_was_cancelled_does_not_go_on() -> None:
    async def child(started: Started[None]) -> None:
        started()
        scope.cancel()
        await asyncio.sleep(3600)

    async with TaskGroup() as group:
        with CancelScope() as scope:
            await group.start(child)
        if scope.cancelled_caught:
            assert not group._children
        else:
            group.cancel()


async def test_the_error_of_a_child_whose_start_was_cancelled_is_one_of_the_group() -> None:
    async def child(started: Started[None]) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise LookupError

    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup() as group:
            with CancelScope() as scope:
                asyncio.get_running_loop().call_later(0.001, scope.cancel)
                await group.start(child)
    assert [type(error) for error in caught.value.exceptions] == [LookupError]


async def test_a_start_above_the_limit_waits_for_its_turn() -> None:
    async with TaskGroup(limit=1) as group:
        first = group.spawn(asyncio.sleep(0, "first"))
        starting = spawn(group.start(serve, 1))
        await first
        assert await starting == 1
        group.cancel()


async def test_a_start_that_is_thrown_away_cancels_its_child() -> None:
    async with TaskGroup() as group:
        coroutine = group.start(serve, 1)
        coroutine.send(None)
        (child,) = group._children
        coroutine.close()
        await asyncio.wait([child])
        assert child.cancelled()


async def test_start_refuses_what_is_no_function_and_a_group_that_is_not_open() -> None:
    group = TaskGroup()
    with pytest.raises(TypeError, match="async function"):
        await group.start(3)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="not open"):
        await group.start(serve, 1)


async def test_an_error_on_its_way_to_a_start_that_is_cancelled_is_reported_by_the_loop_once() -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    error = LookupError()

    async def fails(started: Started[None]) -> None:
        await failing.wait()
        raise error

    failing = asyncio.Event()
    async with TaskGroup() as group:
        starting = start_task(group.start(fails))
        await yield_now()
        await yield_now()
        (child,) = group._children
        failing.set()
        while not child.done():
            await yield_now()
        starting.cancel()
        await asyncio.wait([starting])
    assert starting.cancelled()
    del starting, child
    gc.collect()
    assert [report["exception"] for report in reports] == [error]


async def test_nothing_is_reported_when_the_child_and_its_start_are_cancelled_at_once() -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    async with TaskGroup() as group:
        starting = start_task(group.start(serve, 1))
        await yield_now()
        await yield_now()
        (child,) = group._children
        child.cancel()
        while not child.done():
            await yield_now()
        asyncio.get_running_loop().call_soon(starting.cancel)
        await asyncio.wait([starting])
    assert starting.cancelled()
    del starting, child
    gc.collect()
    assert reports == []


async def test_a_failed_start_leaves_no_reference_cycle() -> None:
    async def child(started: Started[None]) -> None:
        raise LookupError

    async def attempt(group: TaskGroup) -> None:
        try:
            await group.start(child)
        except LookupError:
            pass

    async with TaskGroup() as group:
        await attempt(group)
        await yield_now()
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(3):
                await attempt(group)
                await yield_now()
            gc.collect()
            garbage: list[Any] = [each for each in gc.garbage if isinstance(each, (Started, LookupError))]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
    assert garbage == []


async def test_a_coroutine_in_place_of_a_function_is_refused_and_closed() -> None:
    coroutine = asyncio.sleep(0)
    async with TaskGroup() as group:
        with pytest.raises(TypeError, match="needs an async function"):
            await group.start(coroutine)  # type: ignore[arg-type]
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
