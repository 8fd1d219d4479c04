"""Several workers: values, errors and cancellations come and go between them."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from typing import Any

import pytest

from yamanote.runtime import (
    CancellationToken,
    JoinError,
    JoinHandle,
    TaskGroup,
    TaskWaiter,
    metrics,
    move_on_after,
    run,
    spawn,
    spawn_blocking,
    yield_now,
)

PATIENCE = 20.0
"""Seconds after which a test gives up."""


# ---------------------------------------------------------------- ends


def test_a_value_and_an_error_come_back_from_anywhere() -> None:
    async def fail(number: int) -> None:
        raise LookupError(number)

    async def program() -> None:
        for number in range(3):
            with pytest.raises(LookupError) as caught:
                await spawn(fail(number), on=number)
            assert caught.value.args == (number,)
            assert [entry.name for entry in caught.traceback][-1] == "fail"

    run(program(), workers=3)


def test_a_handle_is_joined_on_every_worker_and_from_a_thread() -> None:
    async def program() -> None:
        go = asyncio.Event()
        handle = spawn(go.wait(), on=0)

        async def join() -> bool:
            return await handle

        joined = [spawn(join(), on=number) for number in range(3)]
        by_thread = spawn_blocking(handle.result, PATIENCE)
        await asyncio.sleep(0.001)
        go.set()
        assert [await each for each in (*joined, by_thread)] == [True] * 4

    run(program(), workers=3)


def test_a_task_cannot_wait_for_its_own_end_wherever_it_is() -> None:
    async def program() -> None:
        handles: list[JoinHandle[Any]] = []
        known = threading.Event()

        async def wait_for_oneself() -> None:
            known.wait(PATIENCE)
            for _ in range(2):
                with pytest.raises(RuntimeError, match="its own end"):
                    await handles[0]
                await asyncio.sleep(0)

        for number in (1, 0):
            known.clear()
            handles[:] = [spawn(wait_for_oneself(), on=number)]
            known.set()
            await handles[0]

    run(program(), workers=2)


def test_an_error_that_nobody_asks_for_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise LookupError("of nobody's interest")

    async def program() -> None:
        spawn(fail(), on=1)
        handles = [spawn(fail()) for _ in range(3)]
        for handle in handles:
            with pytest.raises(LookupError):
                await handle
        await spawn(yield_now(), on=1)
        handles.clear()

    with caplog.at_level(logging.ERROR):
        run(program(), workers=2)
        gc.collect()
    reports = [record for record in caplog.records if record.exc_info and record.exc_info[0] is LookupError]
    assert len(reports) == 1


def test_an_error_that_comes_in_the_moment_in_which_who_waits_gives_up_is_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Who waits on another loop is claimed, cancelled, and only then handed the error."""

    async def fail(go: asyncio.Event) -> None:
        await go.wait()
        raise LookupError("of nobody's interest")

    class Hasty(TaskWaiter[None]):
        def claim(self) -> bool:
            claimed = super().claim()
            if claimed:
                handle.withdraw(self)
            return claimed

    async def program() -> None:
        nonlocal handle
        go = asyncio.Event()
        handle = spawn(fail(go), on=0)
        handle.register(Hasty())
        go.set()
        while not handle.is_finished():
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        del handle

    handle: JoinHandle[None]
    run(program(), workers=2)
    gc.collect()
    assert sum("never retrieved" in text for text in caplog.messages) == 1


# ---------------------------------------------------------------- cancellation


def test_abort_ends_a_task_before_its_start_and_in_the_middle_from_any_worker(blocked: Any) -> None:
    async def program() -> None:
        begun: list[int] = []

        async def work() -> None:
            begun.append(1)
            await asyncio.sleep(3600)

        async def abort(handle: JoinHandle[Any]) -> None:
            handle.abort("enough")

        # In the middle.
        for number in range(3):
            for other in range(3):
                handle = spawn(work(), on=number)
                while not begun:
                    await asyncio.sleep(0)
                await spawn(abort(handle), on=other)
                with pytest.raises(JoinError) as caught:
                    await handle
                assert caught.value.reason == "enough"
                begun.clear()
        # Before the start.
        with blocked() as block:
            entered = threading.Event()

            async def busy() -> None:
                entered.set()
                block()

            spawn(busy(), on=1)
            entered.wait(PATIENCE)
            handle = spawn(work(), on=1)
            handle.abort("never mind")
            with pytest.raises(JoinError, match="never mind"):
                await handle
        await spawn(yield_now(), on=1)
        assert not begun

    run(program(), workers=3)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_abort_that_comes_too_late_does_not_hide_the_error(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    known = threading.Event()
    handles: list[JoinHandle[None]] = []

    async def fail() -> None:
        known.wait(PATIENCE)
        handles.pop().abort()  # at its next await, and there is none
        raise LookupError

    async def program() -> None:
        for number in range(workers):
            known.clear()
            handles.append(spawn(fail(), on=number))
            known.set()
            while metrics().tasks > 1:
                await asyncio.sleep(0)
        for number in range(workers):
            await spawn(yield_now(), on=number)
        gc.collect()

    run(program(), workers=workers)
    gc.collect()
    assert sum("never retrieved" in text for text in caplog.messages) == workers


def test_a_host_that_is_cancelled_and_fails_has_its_error_reported(caplog: pytest.LogCaptureFixture) -> None:
    """The error takes the place of the cancellation, which is asked for once more, at an await that never comes."""

    async def fail_in_clean_up() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise LookupError

    async def host() -> None:
        async with TaskGroup() as group:
            group.spawn(fail_in_clean_up(), eager=True)

    async def program() -> None:
        task = asyncio.create_task(host())
        await asyncio.sleep(0)
        task.cancel()
        while not task.done():
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task
        gc.collect()

    run(program(), workers=2)
    gc.collect()
    assert sum("never retrieved" in text for text in caplog.messages) == 1


def test_a_running_task_that_aborts_itself_and_ends_keeps_its_value() -> None:
    async def program() -> None:
        handles: list[JoinHandle[str]] = []
        known = threading.Event()

        async def work() -> str:
            known.wait(PATIENCE)
            handles[0].abort()
            return "done"

        for number in (1, 0):
            known.clear()
            handles[:] = [spawn(work(), on=number)]
            known.set()
            assert await handles[0] == "done"

    run(program(), workers=2)


def test_a_token_ends_what_runs_under_it_on_all_workers() -> None:
    async def program() -> None:
        for number in range(3):
            token = CancellationToken()
            running: list[int] = []
            ended: list[int] = []

            async def under_a_child(token: CancellationToken = token, running: list[int] = running) -> None:
                with token.child_token().scope() as block:
                    running.append(1)
                    await asyncio.sleep(3600)
                assert block.cancelled_caught
                task = asyncio.current_task()
                assert task is not None and not task.cancelling()

            async def cancel(token: CancellationToken = token) -> None:
                token.cancel()

            async def wait(token: CancellationToken = token, ended: list[int] = ended) -> None:
                await token.cancelled()
                ended.append(1)

            handles = [spawn(under_a_child(), on=each) for each in range(3)]
            waiting = [spawn(wait(), on=each) for each in range(3)]
            while len(running) < 3:
                await asyncio.sleep(0)
            await spawn(cancel(), on=number)
            for handle in (*handles, *waiting):
                await handle
            assert len(ended) == 3

    run(program(), workers=3)


def test_a_deadline_ends_a_block_on_any_worker_and_leaves_the_task_as_it_was() -> None:
    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        for _ in range(3):
            with move_on_after(0.001) as block:
                await asyncio.sleep(3600)
            assert block.cancelled_caught
            assert not task.cancelling()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await asyncio.sleep(3600)
        await asyncio.sleep(0)

    async def program() -> None:
        await spawn(*[work() for _ in range(6)])
        for number in range(3):
            await spawn(work(), on=number)

    run(program(), workers=3)


def test_cancelling_who_joins_leaves_the_task_alone() -> None:
    async def program() -> None:
        go = threading.Event()

        async def work() -> str:
            while not go.is_set():
                await asyncio.sleep(0)
            return "done"

        handle = spawn(work(), on=1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(handle, 0.001)
        go.set()
        assert await handle == "done"

    run(program(), workers=2)
