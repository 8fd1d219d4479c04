from __future__ import annotations

import asyncio
import gc
import sys
from asyncio import CancelledError
from contextvars import Context, ContextVar
from typing import Any

import pytest

from yamanote.runtime import CancelScope, GuaranteedTask, cancel_and_wait, move_on_after, start_task, yield_now


class Work:
    """Waits, and keeps what happened."""

    def __init__(self) -> None:
        self.log: list[Any] = []

    async def run(self) -> str:
        task = asyncio.current_task()
        assert task is not None
        self.log.append(("begun", task.cancelling()))
        try:
            await asyncio.sleep(0.001)
        except CancelledError as error:
            self.log.append((*error.args, task.cancelling()))
            await yield_now()  # is not cancelled again
            self.log.append("cleaned up")
            raise
        return "value"


async def test_it_runs_like_any_other_task() -> None:
    work = Work()
    task = GuaranteedTask(work.run(), name="a name")
    assert isinstance(task, asyncio.Task) and task.get_name() == "a name" and "Work.run" in repr(task)
    assert work.log == []  # it starts on the next turn
    assert await task == "value"
    assert work.log == [("begun", 0)]


async def test_cancelled_before_its_first_step_it_begins_and_is_cancelled_at_its_first_wait() -> None:
    work = Work()
    task = GuaranteedTask(work.run())
    task.cancel("early")
    with pytest.raises(CancelledError):
        await task
    assert work.log == [("begun", 1), ("early", 1), "cleaned up"]
    assert task.cancelled() and task.cancelling() == 1


async def test_several_requests_before_the_first_step_are_delivered_together() -> None:
    work = Work()
    task = GuaranteedTask(work.run())
    task.cancel("first")
    task.cancel("second")
    await asyncio.wait([task])
    assert work.log == [("begun", 2), ("second", 2), "cleaned up"]


async def test_what_need_not_wait_ends_with_its_value() -> None:
    async def at_once() -> str:
        return "value"

    task = GuaranteedTask(at_once())
    task.cancel()
    assert await task == "value"


async def test_a_bare_yield_is_a_wait() -> None:
    log: list[str] = []

    async def work() -> None:
        log.append("begun")
        await yield_now()
        log.append("never")

    task = GuaranteedTask(work())
    task.cancel()
    await asyncio.wait([task])
    assert log == ["begun"] and task.cancelled()


async def test_what_it_awaits_first_is_cancelled_with_it() -> None:
    async def work() -> None:
        await inner

    inner = start_task(asyncio.sleep(3600))
    task = GuaranteedTask(work())
    task.cancel()
    await asyncio.wait([task, inner])
    assert inner.cancelled()


async def test_scopes_and_standard_timeouts_inside_keep_their_counts() -> None:
    counts: list[int] = []

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            with CancelScope():
                async with asyncio.timeout(3600), asyncio.TaskGroup():
                    await asyncio.sleep(3600)
        finally:
            counts.append(task.cancelling())
            with move_on_after(0) as scope:
                await asyncio.sleep(3600)
            assert scope.cancelled_caught
            counts.append(task.cancelling())

    task = GuaranteedTask(work())
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() and counts == [1, 1]


async def test_a_request_that_is_taken_back_in_the_first_step_is_not_delivered() -> None:
    async def work() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
        await yield_now()
        return "value"

    task = GuaranteedTask(work())
    task.cancel()
    assert await task == "value" and task.cancelling() == 0


async def test_an_error_of_the_first_step_is_its_own() -> None:
    async def work() -> None:
        raise LookupError

    task = GuaranteedTask(work())
    task.cancel()
    with pytest.raises(LookupError) as caught:
        await task
    assert caught.value.__context__ is None


async def test_nobody_needs_to_refer_to_it() -> None:
    log: list[str] = []

    async def work() -> None:
        await asyncio.get_running_loop().run_in_executor(None, gc.collect)
        log.append("done")

    GuaranteedTask(work())
    while not log:
        await asyncio.sleep(0.001)


async def test_it_takes_any_awaitable_and_a_context() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="outside")
    context = Context()
    context.run(variable.set, "inside")

    async def look() -> str:
        return variable.get()

    assert await GuaranteedTask(look(), context=context) == "inside"
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = GuaranteedTask(future)
    task.cancel()
    await cancel_and_wait(task)
    assert future.cancelled()


def test_nonsense_is_refused_and_a_refused_coroutine_is_closed() -> None:
    with pytest.raises(TypeError, match="GuaranteedTask"):
        GuaranteedTask(3)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="GuaranteedTask"):
        GuaranteedTask(asyncio.sleep(0))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python has eager tasks from 3.12 on")
async def test_it_keeps_its_promise_under_an_eager_task_factory() -> None:
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    work = Work()
    task = GuaranteedTask(work.run())
    assert work.log == []
    task.cancel("early")
    await asyncio.wait([task])
    assert work.log == [("begun", 1), ("early", 1), "cleaned up"]
