from __future__ import annotations

import asyncio
import gc
import threading
from asyncio import CancelledError
from typing import Any

import pytest

from yamanote.runtime import (
    JoinHandle,
    cancel_and_wait,
    cancel_task,
    describe,
    move_on_after,
    run,
    spawn,
    start_task,
    yield_now,
)


def requests() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def end_when(release: asyncio.Event) -> None:
    """Go on after a cancellation until `release`, and end as if there had been none."""
    try:
        await asyncio.sleep(3600)
    except CancelledError:
        await release.wait()


async def test_a_target_that_somebody_else_cancelled_does_not_make_the_caller_raise() -> None:
    target = start_task(asyncio.sleep(3600))
    await yield_now()
    target.cancel("third party")
    await cancel_and_wait(target)
    assert target.cancelled() and requests() == 0


async def test_a_target_that_swallows_its_cancellation_does_not_swallow_that_of_the_caller() -> None:
    release = asyncio.Event()
    target = start_task(end_when(release))
    await yield_now()
    caller = start_task(cancel_and_wait(target))
    await yield_now()
    caller.cancel("of the caller")
    await yield_now()
    assert not caller.done()
    release.set()
    with pytest.raises(CancelledError, match="of the caller"):
        await caller
    assert not target.cancelled() and target.result() is None and caller.cancelling() == 1


async def test_a_request_that_the_caller_absorbed_before_does_not_count() -> None:
    async def absorb_and_cancel() -> int:
        with pytest.raises(CancelledError):
            await asyncio.sleep(3600)
        await cancel_and_wait(start_task(asyncio.sleep(3600)))
        return requests()

    caller = start_task(absorb_and_cancel())
    await yield_now()
    caller.cancel()
    assert await caller == 1


async def test_a_scope_around_the_call_ends_it_when_the_targets_have_ended() -> None:
    release = asyncio.Event()
    target = start_task(end_when(release))
    await yield_now()
    asyncio.get_running_loop().call_later(0.002, release.set)
    with move_on_after(0) as scope:
        await cancel_and_wait(target)
    assert scope.cancelled_caught and target.done() and requests() == 0


async def test_an_error_of_the_clean_up_stays_with_the_target_and_is_reported_once_if_nobody_asks() -> None:
    reports: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context["exception"]))

    async def break_down() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise LookupError

    asked, unasked = start_task(break_down()), start_task(break_down())
    await yield_now()
    await cancel_and_wait(asked, unasked)
    with pytest.raises(LookupError):
        asked.result()
    del asked, unasked
    gc.collect()
    assert [type(error) for error in reports] == [LookupError]


async def test_many_targets_need_no_task_of_their_own() -> None:
    release = asyncio.Event()
    targets = [start_task(end_when(release)) for _ in range(50)]
    await yield_now()
    before = len(asyncio.all_tasks())
    caller = start_task(cancel_and_wait(*targets))
    await yield_now()
    assert len(asyncio.all_tasks()) == before + 1
    release.set()
    await caller
    assert all(target.done() for target in targets)


async def test_targets_that_have_ended_take_no_turn() -> None:
    task, handle, future = start_task(yield_now()), spawn(yield_now()), asyncio.get_running_loop().create_future()
    future.set_exception(LookupError())
    future.exception()
    await asyncio.wait([task, handle._future])
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    await cancel_and_wait(task, handle, future)
    assert turns == []


async def test_it_reaches_bare_tasks_of_other_loops() -> None:
    started: list[asyncio.Task[None]] = []
    ready = threading.Event()

    async def other_loop() -> None:
        started.append(start_task(asyncio.sleep(3600)))
        ready.set()
        await asyncio.wait(started)

    thread = threading.Thread(target=run, args=(other_loop(),))
    thread.start()
    ready.wait()
    await cancel_and_wait(*started, reason="from another loop")
    assert started[0].cancelled()
    thread.join()


async def test_it_is_known_by_another_name() -> None:
    handle: JoinHandle[None] = spawn(asyncio.sleep(3600))
    assert await cancel_task(handle, reason="stop") is None  # type: ignore[func-returns-value]
    assert handle.is_finished()


async def test_a_dump_says_for_whose_end_it_waits() -> None:
    release = asyncio.Event()
    target = start_task(end_when(release), name="the target")
    await yield_now()
    caller = start_task(cancel_and_wait(target))
    await yield_now()
    text = describe(caller)
    assert "waits for <end of <Task" in text and "name='the target'" in text
    release.set()
    await caller


async def test_what_is_no_task_is_refused_before_anything_is_cancelled() -> None:
    handle = spawn(asyncio.sleep(0))
    with pytest.raises(TypeError, match="needs tasks, futures or JoinHandles"):
        await cancel_and_wait(handle, [handle])  # type: ignore[arg-type]
    await handle
