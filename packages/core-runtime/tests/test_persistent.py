from __future__ import annotations

import asyncio
import gc
import threading
import tracemalloc
import weakref
from typing import Any

import pytest

from yamanote.runtime import CancelScope, JoinError, PersistentTaskGroup, TaskGroup, run, spawn, yield_now


async def value_of(value: Any) -> Any:
    await yield_now()
    return value


async def failing(error: BaseException) -> None:
    await yield_now()
    raise error


async def clean_up(log: list[str]) -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        await yield_now()
        log.append("cleaned up")


async def test_children_run_without_a_block_and_end_with_shutdown() -> None:
    log: list[str] = []
    group = PersistentTaskGroup()
    assert await group.spawn(value_of(1)) == 1
    assert await group.create_task(value_of(2), name="two") == 2
    handle = group.spawn(clean_up(log))
    await yield_now()
    await group.shutdown("closing time")
    assert log == ["cleaned up"]
    with pytest.raises(JoinError, match="closing time"):
        await handle
    await group.shutdown()


async def test_it_can_be_made_where_no_loop_runs_and_used_by_one_loop_after_the_other() -> None:
    group = await asyncio.to_thread(PersistentTaskGroup)

    async def use() -> int:
        return int(await group.spawn(value_of(1)))

    for _ in range(2):
        assert await asyncio.to_thread(run, use()) == 1
    assert await use() == 1


async def test_any_task_of_its_loop_may_spawn() -> None:
    group = PersistentTaskGroup()

    async def spawns() -> Any:
        return await group.spawn(value_of(1))

    assert await spawn(spawns(), spawns()) == [1, 1]
    assert await group.spawn(spawns()) == 1


async def test_siblings_survive_and_each_error_goes_to_the_handler_at_once() -> None:
    errors: list[Exception] = []
    error = LookupError()
    group = PersistentTaskGroup(on_error=errors.append)
    group.spawn(failing(error))
    sibling = group.spawn(value_of(1))
    for _ in range(4):
        await yield_now()
    assert errors == [error] and await sibling == 1
    with pytest.raises(LookupError):
        await group.spawn(failing(LookupError()))
    await group.shutdown()
    assert errors == [error]  # the other one had been awaited


async def test_without_a_handler_no_error_is_silent() -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    error = LookupError()
    group = PersistentTaskGroup(name="handlers")
    group.spawn(failing(error))
    await yield_now()
    await yield_now()
    await group.shutdown()
    assert [report["exception"] for report in reports] == [error]
    assert "handlers" in reports[0]["message"]


def test_keyboard_interrupt_of_a_child_ends_the_program_and_is_not_reported_as_well() -> None:
    reports: list[dict[str, Any]] = []

    async def example() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
        group = PersistentTaskGroup()
        group.spawn(failing(KeyboardInterrupt()))
        await asyncio.sleep(3600)

    with pytest.raises(KeyboardInterrupt):
        run(example())
    assert reports == []


async def test_what_is_no_exception_is_reported_by_the_loop_and_not_to_the_handler() -> None:
    class Fatal(BaseException):
        pass

    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    errors: list[Exception] = []
    group = PersistentTaskGroup(on_error=errors.append)
    group.spawn(failing(Fatal()))
    for _ in range(3):
        await yield_now()
    await group.shutdown()
    assert errors == [] and [type(report["exception"]) for report in reports] == [Fatal]


async def test_an_error_in_clean_up_has_been_reported_when_shutdown_returns() -> None:
    errors: list[Exception] = []

    async def child() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise LookupError

    group = PersistentTaskGroup(on_error=errors.append)
    group.spawn(child())
    await yield_now()
    await group.shutdown()
    assert len(errors) == 1


async def test_leaving_the_block_shuts_it_down_and_lets_the_error_of_the_body_through() -> None:
    log: list[str] = []
    error = TimeoutError("mine")
    with pytest.raises(TimeoutError) as caught:
        async with PersistentTaskGroup() as group:
            group.spawn(clean_up(log))
            await yield_now()
            raise error
    assert caught.value is error and log == ["cleaned up"]
    with pytest.raises(RuntimeError, match="shut down"):
        group.spawn(value_of(1))


async def test_a_block_that_is_cancelled_at_its_end_still_waits_for_the_children() -> None:
    log: list[str] = []
    with CancelScope() as scope:
        async with PersistentTaskGroup() as group:
            group.spawn(clean_up(log))
            await yield_now()
            scope.cancel()
    assert log == ["cleaned up"]
    assert not scope.cancelled_caught or not group._children


async def test_a_child_and_a_grandchild_that_shut_the_group_down_do_not_wait_for_themselves() -> None:
    log: list[str] = []

    async def child() -> None:
        await group.shutdown()
        log.append("asked")
        await asyncio.sleep(3600)

    async def parent() -> None:
        async with TaskGroup() as inside:
            inside.spawn(grandchild())

    async def grandchild() -> None:
        await group.shutdown()
        log.append("never")

    group = PersistentTaskGroup()
    group.spawn(clean_up(log))
    group.spawn(child())
    await yield_now()
    await group.shutdown()
    assert log == ["asked", "cleaned up"]
    group = PersistentTaskGroup()
    handle = group.spawn(parent())
    with pytest.raises(JoinError):
        await handle
    assert "never" not in log


async def test_a_shutdown_that_is_cancelled_returns_and_another_waits_for_the_end() -> None:
    log: list[str] = []
    group = PersistentTaskGroup()
    group.spawn(clean_up(log))
    await yield_now()
    with CancelScope(asyncio.get_running_loop().time()) as scope:
        await group.shutdown()
    assert scope.cancelled_caught
    await asyncio.gather(group.shutdown(), group.shutdown())
    assert log == ["cleaned up"]


async def test_children_live_until_they_end_when_nobody_refers_to_the_group() -> None:
    futures: list[weakref.ref[asyncio.Future[None]]] = []

    async def child() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        futures.append(weakref.ref(future))
        await future
        log.append("ended")

    log: list[str] = []
    PersistentTaskGroup().spawn(child())
    await yield_now()
    gc.collect()
    future = futures[0]()
    assert future is not None
    future.set_result(None)
    del future
    await yield_now()
    assert log == ["ended"]


async def test_a_group_without_children_is_kept_by_nobody() -> None:
    group = PersistentTaskGroup()
    await group.spawn(value_of(1))
    await yield_now()
    reference = weakref.ref(group)
    del group
    gc.collect()
    assert reference() is None


async def test_with_a_limit_children_take_turns() -> None:
    group = PersistentTaskGroup(limit=1)
    first, second = group.spawn(value_of(1)), group.spawn(value_of(2))
    assert group.try_spawn(value_of(3)) is None
    assert repr(group) == "<PersistentTaskGroup open running=1 queued=1>"
    assert await second == 2 and first.is_finished()
    await group.shutdown()
    assert repr(group) == "<PersistentTaskGroup closed running=0>"


async def test_children_and_a_shutdown_from_elsewhere_are_refused() -> None:
    group = PersistentTaskGroup()
    group.spawn(asyncio.sleep(3600))
    errors: list[RuntimeError] = []

    def elsewhere() -> None:
        async def tries() -> None:
            for attempt in (lambda: group.spawn(value_of(1)), lambda: group.shutdown()):
                try:
                    result = attempt()
                    if asyncio.iscoroutine(result):
                        await result
                except RuntimeError as error:
                    errors.append(error)

        try:
            group.spawn(value_of(1))
        except RuntimeError as error:
            errors.append(error)
        run(tries())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert ["running event loop" in str(error) for error in errors] == [True, False, False]
    assert all("another event loop" in str(error) for error in errors[1:])
    await group.shutdown()
    with pytest.raises(ValueError, match="on_error"):
        PersistentTaskGroup(on_error="collect")  # type: ignore[arg-type]


async def test_memory_stays_flat_over_twenty_thousand_children() -> None:
    async def child(number: int) -> bytes:
        if number % 5 == 0:
            raise LookupError
        return bytes(1000)

    group = PersistentTaskGroup(on_error=lambda error: None)
    sizes: list[int] = []
    tracemalloc.start()
    try:
        for _ in range(2):
            for _ in range(100):
                for number in range(100):
                    group.spawn(child(number))
                while group._active:
                    await yield_now()
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    await group.shutdown()
    assert sizes[1] - sizes[0] < 10_000  # less than a byte per child


async def test_a_child_may_use_its_group_as_a_block() -> None:
    group = PersistentTaskGroup()

    async def child() -> None:
        async with group:
            pass

    handle = group.spawn(child())
    await asyncio.wait_for(group.shutdown(), 10)
    assert handle.is_finished()
    group = PersistentTaskGroup()
    handle = group.spawn(child())
    await asyncio.wait_for(handle, 10)  # it ends before it is cancelled
