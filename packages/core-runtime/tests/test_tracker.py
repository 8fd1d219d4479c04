from __future__ import annotations

import asyncio
import gc
import threading
import tracemalloc
import weakref
from typing import Any

import pytest

from yamanote.runtime import CancelScope, JoinHandle, TaskTracker, park, run, spawn, start_task, yield_now


async def after(turns: int, value: Any = None) -> Any:
    for _ in range(turns):
        await yield_now()
    if isinstance(value, Exception):
        raise value
    return value


async def test_the_wait_ends_when_the_tracker_is_closed_and_empty() -> None:
    tracker = TaskTracker()
    handle = tracker.spawn(after(5, "value"), name="task")
    waiting = spawn(tracker.wait())
    await handle
    await yield_now()
    assert not waiting.is_finished() and len(tracker) == 0 and not tracker.is_closed()
    tracker.close()
    await waiting
    again = tracker.spawn(after(5))  # closing forbids nothing
    await tracker.wait()
    assert again.is_finished() and handle.name == "task" and await handle == "value"


async def test_an_empty_tracker_that_is_closed_need_not_be_waited_for() -> None:
    tracker = TaskTracker()
    tracker.close()
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    await tracker.wait()
    assert turns == []
    tracker.reopen()
    waiting = spawn(tracker.wait())
    await yield_now()
    await yield_now()
    assert not waiting.is_finished()
    tracker.close()
    await waiting


async def test_who_waits_is_woken_by_a_moment_that_has_passed_before_it_runs() -> None:
    tracker = TaskTracker()
    token = tracker.token()
    waiting = [spawn(tracker.wait()) for _ in range(2)]
    await yield_now()
    tracker.close()
    token.release()
    tracker.reopen()
    with tracker.token():
        await asyncio.gather(*waiting)


async def test_however_a_task_ends_it_counts_no_more_and_its_error_is_not_taken() -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    error = LookupError()
    tracker = TaskTracker()
    tracker.spawn(after(1, error))
    tracker.spawn(asyncio.sleep(3600)).abort()
    tracker.spawn(after(1, "value"))
    tracker.close()
    await tracker.wait()
    gc.collect()
    assert [report["exception"] for report in reports] == [error]


async def test_tasks_futures_and_handles_of_any_loop_can_be_tracked() -> None:
    tracker = TaskTracker()
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    assert tracker.track(future) is future
    handle = spawn(after(2, 1))
    assert tracker.track(handle) is handle
    tracker.track(start_task(after(2)))
    tracker.track(tracker.spawn(after(0)))  # twice is twice

    async def elsewhere() -> None:
        tracker.track(future)
        await tracker.spawn(after(3))
        asyncio.get_running_loop().call_later(0.001, tracker.close)
        entered.set()
        await spawn(asyncio.sleep(0.002))

    entered = threading.Event()
    thread = threading.Thread(target=run, args=(elsewhere(),))
    thread.start()
    await asyncio.to_thread(entered.wait)
    await handle
    future.set_result(1)
    await tracker.wait()
    assert len(tracker) == 0 and tracker.is_closed()
    await asyncio.to_thread(thread.join)


async def test_what_has_ended_before_it_is_tracked_does_not_count() -> None:
    tracker = TaskTracker()
    handle = spawn(after(0))
    await handle
    tracker.track(handle)
    assert len(tracker) == 0
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    loop.close()
    tracker.track(future)  # it will never get any further
    assert len(tracker) == 0
    with pytest.raises(TypeError, match="start it first"):
        tracker.track(3)  # type: ignore[type-var]


async def test_a_token_counts_until_it_is_released_once() -> None:
    tracker = TaskTracker()
    first, second = tracker.token(), tracker.token()
    with first:
        assert len(tracker) == 2
    first.release()
    assert len(tracker) == 1
    second.release()
    assert len(tracker) == 0 and repr(tracker) == "<TaskTracker open running=0>"


async def test_a_token_that_is_dropped_counts_no_more_and_warns() -> None:
    tracker = TaskTracker()
    with pytest.warns(ResourceWarning, match="dropped"):
        tracker.token()
        gc.collect()
    assert len(tracker) == 0


async def test_a_wait_that_is_cancelled_leaves_nothing_behind() -> None:
    tracker = TaskTracker()
    with tracker.token():
        with CancelScope(asyncio.get_running_loop().time()) as scope:
            await tracker.wait()
        assert scope.cancelled_caught and not tracker._waiters
        waiting: JoinHandle[None] = spawn(park(tracker))
        await yield_now()
    tracker.close()
    assert await waiting is None


def test_a_thread_can_wait() -> None:
    tracker = TaskTracker()
    token = tracker.token()
    tracker.close()
    assert not tracker.blocking_wait(0)
    thread = threading.Thread(target=token.release)
    thread.start()
    assert tracker.blocking_wait(60)
    thread.join()
    assert tracker.blocking_wait()


async def test_a_loop_is_not_blocked() -> None:
    with pytest.raises(RuntimeError, match="would block"):
        TaskTracker().blocking_wait()


async def test_results_are_not_kept() -> None:
    class Result:
        pass

    async def task() -> Result:
        result = Result()
        references.append(weakref.ref(result))
        return result

    references: list[weakref.ref[Result]] = []
    tracker = TaskTracker()
    tracker.spawn(task())
    tracker.close()
    await tracker.wait()
    await yield_now()
    gc.collect()
    assert references[0]() is None


async def test_memory_stays_flat_over_many_tasks() -> None:
    tracker = TaskTracker()
    tracker.close()
    sizes: list[int] = []
    tracemalloc.start()
    try:
        for _ in range(2):
            for _ in range(50):
                for _ in range(100):
                    tracker.spawn(after(1, bytes(1000)))
                await tracker.wait()
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[1] - sizes[0] < 10_000  # of 5 000 tasks


def test_a_coroutine_is_refused_where_no_loop_runs() -> None:
    tracker = TaskTracker()
    with pytest.raises(RuntimeError, match="running event loop"):
        tracker.spawn(after(0))
    assert len(tracker) == 0


async def test_a_task_that_starts_eagerly_is_counted_from_its_first_instruction_on() -> None:
    tracker = TaskTracker()
    ended: list[bool] = []

    async def watch() -> None:
        await tracker.wait()
        ended.append(handle.is_finished())

    async def work() -> None:
        tracker.close()
        await asyncio.sleep(0.001)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    handle = tracker.spawn(work(), eager=True)
    await watching
    assert ended == [True] and len(tracker) == 0
