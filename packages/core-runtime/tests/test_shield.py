from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from asyncio import CancelledError
from typing import Any

import pytest

from yamanote.runtime import (
    CancelScope,
    JoinError,
    JoinHandle,
    move_on_after,
    run,
    shield,
    shield_wait,
    spawn,
    start_task,
    yield_now,
)


async def value_of(value: str) -> str:
    await yield_now()
    return value


async def fail() -> None:
    await yield_now()
    raise LookupError


class Gate:
    """Work that goes on when it is told to, and says how it ended."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.end = "running"

    async def work(self) -> str:
        self.end = "cancelled"
        await self.open.wait()
        self.end = "done"
        return "value"


async def caller_of(gate: Gate, waiting: Any) -> asyncio.Task[Any]:
    caller = start_task(waiting(gate.work()))
    await yield_now()
    await yield_now()
    return caller


async def shielded(aw: Any) -> Any:
    return await shield(aw)


# shield


async def test_what_is_shielded_gives_its_value_or_its_error() -> None:
    assert await shield(value_of("value")) == "value"
    with pytest.raises(LookupError):
        await shield(fail())


async def test_the_cancellation_of_who_waits_does_not_reach_what_is_shielded() -> None:
    gate = Gate()
    caller = await caller_of(gate, shielded)
    caller.cancel("only the caller")
    with pytest.raises(CancelledError, match="only the caller"):
        await caller
    gc.collect()  # nobody refers to the work any more
    gate.open.set()
    await yield_now()
    await yield_now()
    assert gate.end == "done"


async def test_the_value_can_be_had_after_a_cancellation() -> None:
    gate = Gate()
    saved = shield(gate.work())
    with move_on_after(0) as scope:
        await saved
    assert scope.cancelled_caught
    gate.open.set()
    assert await saved == "value"
    assert await saved == "value"


async def test_a_task_of_the_callers_is_taken_as_it_is_and_kept_alive() -> None:
    done: list[weakref.ref[Any]] = []

    async def hang() -> None:
        future = asyncio.get_running_loop().create_future()
        done.append(weakref.ref(future))
        await future

    task = asyncio.Task(hang())
    handle = shield(task)
    await yield_now()
    task.add_done_callback(lambda _: done.clear())
    gone = weakref.ref(task)
    del handle, task
    gc.collect()
    alive = gone()
    assert alive is not None
    alive.cancel()
    await asyncio.wait([alive])
    assert done == []


async def test_a_future_and_a_handle_are_taken_as_they_are() -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    waiting = shield(future)
    caller = start_task(shielded(future))
    await yield_now()
    caller.cancel()
    await asyncio.wait([caller])
    future.set_result("value")
    assert await waiting == "value"
    handle = spawn(value_of("handle"))
    assert shield(handle) is handle
    assert await handle == "handle"


async def test_what_is_cancelled_itself_is_no_cancellation_of_who_waits() -> None:
    handle: JoinHandle[None] = shield(asyncio.sleep(3600))
    handle.abort("by hand")
    with pytest.raises(JoinError, match="by hand"):
        await handle


async def test_an_error_that_nobody_asks_for_is_reported_once() -> None:
    reports: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context["exception"]))
    may_fail = asyncio.Event()

    async def fail() -> None:
        await may_fail.wait()
        raise LookupError

    with move_on_after(0) as scope:
        await shield(fail())
    assert scope.cancelled_caught
    may_fail.set()
    for _ in range(5):
        await asyncio.sleep(0)
    gc.collect()
    assert [type(error) for error in reports] == [LookupError]


async def fail_later() -> None:
    await asyncio.sleep(0.001)
    raise LookupError


async def test_standard_timeouts_and_groups_inside_work() -> None:
    async def work() -> str:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(3600)
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                await asyncio.sleep(3600)
        return "done"

    assert await shield(work()) == "done"
    assert await shield_wait(work()) == "done"


def test_nonsense_is_refused_at_the_call() -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="shield"):
            shield(3)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="shield"):
            await shield_wait(3)  # type: ignore[arg-type]

    run(main())
    with pytest.raises(RuntimeError, match="shield"):
        shield(value_of("never"))  # is closed, so there is no warning


# shield_wait


async def test_waiting_to_the_end_gives_the_value_or_the_error() -> None:
    assert await shield_wait(value_of("value")) == "value"
    with pytest.raises(LookupError):
        await shield_wait(fail())
    task = start_task(asyncio.sleep(3600))
    task.cancel("by hand")
    with pytest.raises(JoinError, match="by hand"):
        await shield_wait(task)


async def test_a_caller_that_is_cancelled_again_and_again_waits_to_the_end_and_then_raises_the_first() -> None:
    gate = Gate()
    caller = await caller_of(gate, shield_wait)
    for message in ("first", "second", "third"):
        caller.cancel(message)
        await yield_now()
        assert not caller.done() and gate.end == "cancelled"
    gate.open.set()
    with pytest.raises(CancelledError, match="first"):
        await caller
    assert gate.end == "done" and caller.cancelling() == 3


async def test_with_a_handle_the_value_can_be_had_in_spite_of_a_cancellation() -> None:
    gate = Gate()
    handle = spawn(gate.work())
    asyncio.get_running_loop().call_later(0.002, gate.open.set)
    with move_on_after(0) as scope:
        await shield_wait(handle)
    assert scope.cancelled_caught and handle.is_finished()
    assert await handle == "value"


async def test_scopes_around_it_are_balanced_whichever_of_them_cancels() -> None:
    task = asyncio.current_task()
    assert task is not None
    gate = Gate()
    asyncio.get_running_loop().call_later(0.003, gate.open.set)
    with CancelScope() as outer:
        with CancelScope() as inner:
            asyncio.get_running_loop().call_soon(inner.cancel)
            asyncio.get_running_loop().call_later(0.001, outer.cancel)
            await shield_wait(gate.work())
    assert gate.end == "done" and outer.cancelled_caught and task.cancelling() == 0
    await yield_now()


async def test_an_error_next_to_a_cancellation_is_reported_once() -> None:
    reports: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context["exception"]))
    with move_on_after(0) as scope:
        await shield_wait(fail_later())
    assert scope.cancelled_caught
    gc.collect()
    assert [type(error) for error in reports] == [LookupError]


async def test_what_has_ended_takes_no_turn() -> None:
    handle = spawn(value_of("value"))
    await handle
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    assert await shield_wait(handle) == "value"
    assert turns == []


async def test_a_task_cannot_wait_for_its_own_end() -> None:
    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(RuntimeError, match="its own end"):
        await shield_wait(task)


async def test_a_task_of_another_loop_is_waited_for() -> None:
    handles: list[JoinHandle[str]] = []
    ready, go_on = threading.Event(), threading.Event()

    async def other_loop() -> None:
        release = asyncio.Event()
        loop = asyncio.get_running_loop()
        threading.Thread(target=lambda: (go_on.wait(), loop.call_soon_threadsafe(release.set))).start()

        async def work() -> str:
            await release.wait()
            return "from there"

        handles.append(spawn(work()))
        ready.set()
        await handles[0]

    thread = threading.Thread(target=run, args=(other_loop(),))
    thread.start()
    ready.wait()
    caller = start_task(shield_wait(handles[0]))
    await yield_now()
    caller.cancel()
    await yield_now()
    assert not caller.done()
    go_on.set()
    with pytest.raises(CancelledError):
        await caller
    assert await handles[0] == "from there"
    thread.join()


async def test_a_loop_that_was_closed_before_the_end_is_told() -> None:
    loop = asyncio.new_event_loop()
    task = loop.create_task(asyncio.sleep(3600))
    await asyncio.to_thread(loop.run_until_complete, asyncio.sleep(0))
    loop.close()
    with pytest.raises(JoinError, match="closed"):
        await shield_wait(task)
