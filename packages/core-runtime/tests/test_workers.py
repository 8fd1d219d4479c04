from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import pytest

from yamanote.runtime import (
    CancellationToken,
    EventLoop,
    Handle,
    JoinError,
    JoinHandle,
    JoinMap,
    JoinSet,
    PersistentTaskGroup,
    Runtime,
    Started,
    TaskGroup,
    TaskTracker,
    TaskWaiter,
    dump,
    handle_signal,
    main,
    map,
    metrics,
    move_on_after,
    record_spawn_sites,
    run,
    signals,
    spawn,
    spawn_blocking,
    wait_for_signal,
    yield_now,
)
from yamanote.runtime._placed import Placed
from yamanote.runtime._queued import QueuedHandle

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
on_unix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals between processes")

PATIENCE = 20.0
"""Seconds after which a test gives up."""


async def thread_of(turns: int = 0) -> int:
    for _ in range(turns):
        await asyncio.sleep(0)
    return threading.get_ident()


@contextmanager
def blocked() -> Iterator[Callable[[], Any]]:
    """A function that blocks until the end of the block."""
    release = threading.Event()
    try:
        yield lambda: release.wait(PATIENCE)
    finally:
        release.set()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("yamanote-worker"):
            thread.join(PATIENCE)
            assert not thread.is_alive()


# ---------------------------------------------------------------- who starts what


def test_two_that_compute_are_started_by_two_workers_at_once() -> None:
    both = threading.Barrier(2)

    async def meet() -> int:
        both.wait(PATIENCE)
        return threading.get_ident()

    async def program() -> None:
        first, second = await spawn(meet(), meet())
        assert first != second
        async with TaskGroup() as group:
            handles = [group.spawn(meet()), group.spawn(meet())]
        assert await handles[0] != await handles[1]
        first, second = await map(lambda _: meet(), range(2))
        assert first != second
        jobs: JoinSet[int] = JoinSet()
        jobs.spawn(meet()), jobs.spawn(meet())
        first, second = await jobs.join_all()
        assert first != second
        by_name: JoinMap[str, int] = JoinMap()
        by_name.spawn("a", meet()), by_name.spawn("b", meet())
        assert len(set((await by_name.join_all()).values())) == 2
        tracker = TaskTracker()
        tracker.spawn(meet()), tracker.spawn(meet())
        tracker.close()
        await tracker.wait()

    run(program(), workers=2)


def test_who_begins_one_of_many_wakes_the_next() -> None:
    """Who spawns them wakes one, and then computes itself: all the others have to hear of it all the same."""
    all_of_them = threading.Barrier(4)

    async def meet() -> int:
        all_of_them.wait(PATIENCE)
        return threading.get_ident()

    async def program() -> None:
        for number in range(4):
            await spawn(yield_now(), on=number)
        assert len(set(await spawn(*[meet() for _ in range(4)]))) == 4
        handles = [spawn(meet()) for _ in range(4)]
        assert len({await handle for handle in handles}) == 4

    run(program(), workers=4)


def test_children_that_had_to_wait_for_the_limit_are_placed_too() -> None:
    async def program() -> None:
        async with TaskGroup(limit=2) as group:
            handles = [group.spawn(thread_of()) for _ in range(10)]
        waited = [handle for handle in handles if isinstance(handle, QueuedHandle)]
        assert len(waited) == 8
        assert all(isinstance(handle.task, Placed) for handle in waited)

    run(program(), workers=2)


def test_what_has_started_stays_where_it_is() -> None:
    async def stay() -> bool:
        thread = threading.get_ident()
        for _ in range(20):
            await asyncio.sleep(0)
            if threading.get_ident() != thread:
                return False
        return asyncio.current_task().get_loop() is asyncio.get_running_loop()  # type: ignore[union-attr]

    async def program() -> list[bool]:
        return await spawn(*[stay() for _ in range(100)])

    assert all(run(program(), workers=4))


def test_one_worker_starts_what_it_has_in_order() -> None:
    order: list[int] = []

    async def append(number: int) -> None:
        order.append(number)

    async def program() -> None:
        with blocked() as block:
            started = threading.Event()

            async def busy() -> None:
                started.set()
                block()

            spawn(busy(), on=1)
            started.wait(PATIENCE)
            await spawn(*[append(number) for number in range(500)])

    run(program(), workers=2)
    assert order == list(range(500))


def test_every_coroutine_has_a_task_of_its_own_before_its_first_instruction() -> None:
    async def task_and_name() -> tuple[asyncio.Task[Any] | None, str]:
        task = asyncio.current_task()
        assert task is not None
        async with asyncio.timeout(PATIENCE):
            await asyncio.sleep(0)
        return task, task.get_name()

    async def program() -> None:
        tasks = await spawn(*[task_and_name() for _ in range(50)], name="each")
        assert len({id(task) for task, _ in tasks}) == 50
        assert {name for _, name in tasks} == {f"each-{number}" for number in range(50)}

    run(program(), workers=3)


def test_a_worker_that_sleeps_is_woken_though_another_is_busy() -> None:
    """Of those that have nothing to start, some may be computing: the one that sleeps has to come."""

    entered, both = threading.Barrier(3), threading.Barrier(2)

    async def busy(block: Callable[[], Any]) -> None:
        entered.wait(PATIENCE)
        block()

    async def meet() -> None:
        both.wait(PATIENCE)

    async def program() -> None:
        for number in (1, 2, 3):
            with blocked() as block:
                others = [spawn(busy(block), on=other) for other in (1, 2, 3) if other != number]
                entered.wait(PATIENCE)
                await spawn(meet(), meet())
            for other in others:
                await other

    run(program(), workers=4)


def test_a_task_lives_until_it_ends_though_nobody_refers_to_it() -> None:
    thrown_away: list[int] = []
    begun: list[int] = []

    async def wait() -> None:
        try:
            begun.append(1)
            await asyncio.get_running_loop().create_future()
        except GeneratorExit:
            thrown_away.append(1)
            raise

    async def program() -> None:
        spawn(wait(), on=1)
        spawn(wait(), wait())
        while len(begun) < 3:
            await asyncio.sleep(0)
        await spawn(yield_now(), on=1)
        gc.collect()
        assert not thrown_away

    run(program(), workers=2)


def test_eager_starts_here_and_at_once() -> None:
    async def program() -> None:
        here = threading.get_ident()
        handles = [spawn(thread_of(), eager=True) for _ in range(20)]
        assert all(handle.is_finished() for handle in handles)
        assert {await handle for handle in handles} == {here}
        async with TaskGroup() as group:
            assert group.spawn(thread_of(), eager=True).is_finished()

    run(program(), workers=3)


def test_what_asyncio_starts_stays_on_the_loop_that_starts_it() -> None:
    async def program() -> None:
        async def here(number: int) -> None:
            own = threading.get_ident()
            assert await asyncio.create_task(thread_of(1)) == own
            assert set(await asyncio.gather(thread_of(1), thread_of(1))) == {own}
            async with asyncio.TaskGroup() as group:
                task = group.create_task(thread_of(1))
            assert task.result() == own
            assert await asyncio.to_thread(threading.get_ident) != own

        for number in range(3):
            await spawn(here(number), on=number)

    run(program(), workers=3)


@pytest.mark.parametrize("number", [0, 1])
def test_timers_and_sockets_of_a_worker_go_on_beside_one_that_computes(number: int) -> None:
    """Also where one thread runs at a time."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    async def alive() -> str:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for _ in range(3):
            await asyncio.sleep(0.001)
        assert loop.time() > begun
        async with await asyncio.start_server(serve, "127.0.0.1") as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            for _ in range(3):
                writer.write(b"hello\n")
                assert await reader.readline() == b"hello\n"
            writer.close()
            await writer.wait_closed()
        return threading.current_thread().name

    async def program() -> None:
        over = threading.Event()
        computing = threading.Event()

        async def compute() -> bool:
            computing.set()
            end = time.monotonic() + PATIENCE
            while not over.is_set() and time.monotonic() < end:
                sum(range(100))
            return over.is_set()

        async def live() -> None:
            assert computing.wait(PATIENCE)
            try:
                await alive()
            finally:
                over.set()

        handle = spawn(live(), on=1 - number)
        assert await spawn(compute(), on=number)
        await handle

    run(program(), workers=2)


# ---------------------------------------------------------------- pinning


def test_on_pins_to_a_worker() -> None:
    async def where(number: int) -> tuple[str, ...]:
        """From a task on that worker, too."""
        there = [await spawn(thread_name(), on=other) for other in range(3)]
        return threading.current_thread().name, *there

    async def thread_name() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    async def program() -> None:
        own = threading.current_thread().name
        names = (own, "yamanote-worker-1", "yamanote-worker-2")
        for number in range(3):
            assert await spawn(where(number), on=number) == (names[number], *names)
            assert await spawn(thread_name(), thread_name(), on=number) == [names[number]] * 2

    run(program(), workers=3)


def test_a_worker_that_there_is_not_is_refused_and_the_coroutine_closed() -> None:
    async def program(count: int) -> None:
        for number in (count, -1):
            coroutine = thread_of()
            with pytest.raises(ValueError, match=f"on must be .* from 0 to {count - 1}, not {number}"):
                spawn(coroutine, on=number)
            with pytest.raises(RuntimeError, match="cannot reuse"):
                await coroutine
        for nonsense in ("1", True, 1.0):
            with pytest.raises(TypeError, match="on must be"):
                spawn(thread_of(), on=nonsense)  # type: ignore[call-overload]
        assert await spawn(thread_of(), on=0) == threading.get_ident()
        assert await spawn(thread_of(), on=0, eager=True) == threading.get_ident()
        if count > 1:
            with pytest.raises(ValueError, match="eager"):
                spawn(thread_of(), on=1, eager=True)

    run(program(1))
    asyncio.run(program(1))
    run(program(3), workers=3)


def test_nonsense_for_workers_is_refused() -> None:
    for error, nonsense in ((ValueError, 0), (ValueError, -1), (TypeError, True), (TypeError, "2"), (TypeError, 2.0)):
        coroutine = thread_of()
        with pytest.raises(error, match="workers must be"):
            run(coroutine, workers=nonsense)  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="cannot reuse"):
            coroutine.send(None)
        with pytest.raises(error, match="workers must be"):
            Runtime(workers=nonsense)  # type: ignore[arg-type]


# ---------------------------------------------------------------- context


def test_each_runs_in_a_copy_of_the_context_of_who_has_spawned_it() -> None:
    variable = contextvars.ContextVar("variable", default=-1)

    async def look() -> int:
        value = variable.get()
        variable.set(1000)
        await asyncio.sleep(0)
        return value

    async def program() -> None:
        handles = []
        for number in range(50):
            variable.set(number)
            handles.append(spawn(look()))
        assert [await handle for handle in handles] == list(range(50))
        assert variable.get() == 49
        async with TaskGroup(limit=1) as group:
            handles = []
            for number in range(5):
                variable.set(number)
                handles.append(group.spawn(look()))
        assert [await handle for handle in handles] == list(range(5))

    run(program(), workers=3)


def test_tasks_of_one_context_stay_on_one_worker() -> None:
    """Two threads cannot be in the same context."""

    async def program() -> None:
        context = contextvars.copy_context()
        here = threading.get_ident()
        assert set(await spawn(*[thread_of(3) for _ in range(50)], context=context)) == {here}
        assert {await spawn(thread_of(3), context=context) for _ in range(10)} == {here}
        async with TaskGroup(limit=2) as group:
            handles = [group.spawn(thread_of(3), context=context) for _ in range(20)]
        assert {await handle for handle in handles} == {here}
        assert not any(isinstance(handle.task, Placed) for handle in handles if isinstance(handle, QueuedHandle))
        handle = spawn(thread_of(), context=context)
        assert isinstance(handle._future, asyncio.Task)
        async with TaskGroup() as group:
            assert isinstance(group.spawn(thread_of(), context=context)._future, asyncio.Task)

    run(program(), workers=3)


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


def test_abort_ends_a_task_before_its_start_and_in_the_middle_from_any_worker() -> None:
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


# ---------------------------------------------------------------- groups


def test_tasks_on_all_workers_spawn_into_one_group() -> None:
    async def program() -> None:
        seen: list[int] = []

        async def child(group: TaskGroup, depth: int) -> int:
            seen.append(depth)
            if depth:
                left, right = group.spawn(child(group, depth - 1)), group.spawn(child(group, depth - 1))
                if depth == 1:
                    assert (await left, await right) == (0, 0)
            return depth

        for limit in (None, 4):
            seen.clear()
            async with TaskGroup(limit=limit if limit is None else 64) as group:
                for number in range(3):
                    spawn_into(group, child(group, 4), number)
            assert sorted(seen) == sorted([4, *[3] * 2, *[2] * 4, *[1] * 8, *[0] * 16] * 3)

    def spawn_into(group: TaskGroup, coroutine: Any, number: int) -> None:
        async def there() -> None:
            group.spawn(coroutine)

        group.spawn(bridge(there(), number))

    async def bridge(coroutine: Any, number: int) -> None:
        await spawn(coroutine, on=number)

    run(program(), workers=3)


def test_what_comes_to_a_group_from_another_worker_keeps_the_limit_and_the_order() -> None:
    async def program() -> None:
        order: list[int] = []
        running: list[int] = []

        async def child(number: int) -> None:
            running.append(number)
            assert len(running) <= 2
            order.append(number)
            await asyncio.sleep(0)
            running.remove(number)

        async with TaskGroup(limit=1) as group:

            async def bring() -> None:
                for number in range(20):
                    group.spawn(child(number))

            await spawn(bring(), on=1)
        assert order == list(range(20))

    run(program(), workers=2)


def test_a_child_that_another_worker_brings_runs_in_a_copy_of_its_context() -> None:
    variable = contextvars.ContextVar("variable", default="of nobody")

    async def look() -> str:
        value = variable.get()
        variable.set("of the child")
        return value

    async def program() -> None:
        async with TaskGroup(limit=1) as group:

            async def bring() -> list[str]:
                variable.set("of who brings it")
                handles = [group.spawn(look()) for _ in range(3)]
                variable.set("of later")
                return [await handle for handle in handles]

            assert await spawn(bring(), on=1) == ["of who brings it"] * 3

    run(program(), workers=2)


def test_to_try_is_for_tasks_on_the_loop_of_the_group() -> None:
    async def program() -> None:
        coroutine = thread_of()
        async with TaskGroup() as group:

            async def bring() -> None:
                group.try_spawn(coroutine)

            with pytest.raises(RuntimeError, match="another event loop"):
                await spawn(bring(), on=1)
        with pytest.raises(RuntimeError, match="cannot reuse"):
            await coroutine

    run(program(), workers=2)


def test_a_group_that_has_ended_refuses_what_comes_from_another_worker() -> None:
    async def program() -> None:
        async with TaskGroup() as group:
            pass
        coroutine = thread_of()

        async def bring() -> None:
            group.spawn(coroutine)

        with pytest.raises(RuntimeError, match="it is not open"):
            await spawn(bring(), on=1)
        with pytest.raises(RuntimeError, match="cannot reuse"):
            await coroutine
        # While it ends.
        sent = threading.Event()

        async def bring_late() -> JoinHandle[int]:
            try:
                return group.spawn(coroutine)
            finally:
                sent.set()

        coroutine = thread_of()
        async with TaskGroup() as group:
            late = spawn(bring_late(), on=1)
            sent.wait(PATIENCE)
        with pytest.raises(RuntimeError, match="it is not open"):
            await (await late)
        with pytest.raises(RuntimeError, match="cannot reuse"):
            await coroutine

    run(program(), workers=2)


def test_the_error_of_a_child_cancels_the_others_wherever_they_are() -> None:
    async def program() -> None:
        ended: list[str] = []

        async def wait() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append(threading.current_thread().name)

        async def fail() -> None:
            while not group_is_full():
                await asyncio.sleep(0)
            raise LookupError

        def group_is_full() -> bool:
            return len(waiting) == 20

        waiting: list[JoinHandle[None]] = []
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup() as group:
                waiting += [group.spawn(wait()) for _ in range(20)]
                group.spawn(fail())
        assert caught.group_contains(LookupError) if hasattr(caught, "group_contains") else True
        assert all(handle.is_cancelled() for handle in waiting)

    run(program(), workers=3)


def test_cancel_from_a_child_and_a_deadline_end_the_group_on_all_workers() -> None:
    async def program() -> None:
        async with TaskGroup() as group:

            async def end() -> None:
                await asyncio.sleep(0)
                group.cancel("enough")
                await asyncio.sleep(3600)

            handles = [group.spawn(asyncio.sleep(3600)) for _ in range(10)]
            handles += [group.spawn(end()) for _ in range(3)]
        assert group.cancelled_caught
        assert all(handle.is_cancelled() for handle in handles)
        async with TaskGroup(deadline=asyncio.get_running_loop().time() + 0.01) as group:
            handles = [group.spawn(asyncio.sleep(3600)) for _ in range(10)]
        assert all(handle.is_cancelled() for handle in handles)

    run(program(), workers=3)


def test_a_child_says_that_it_has_started_from_wherever_it_is() -> None:
    async def serve(started: Started[int], number: int) -> None:
        await asyncio.sleep(0)
        started(number)
        await asyncio.sleep(3600)

    async def fail(started: Started[int]) -> None:
        await asyncio.sleep(0)
        raise LookupError("before it was ready")

    async def stop(started: Started[int]) -> None:
        await asyncio.sleep(0)

    hanging: list[int] = []

    async def hang(started: Started[int]) -> None:
        hanging.append(1)
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            hanging.pop()

    async def program() -> None:
        async with TaskGroup() as group:
            starts = [group.start(serve, number) for number in range(30)]
            assert await asyncio.gather(*starts) == list(range(30))
            for _ in range(10):
                with pytest.raises(LookupError):
                    await group.start(fail)
                with pytest.raises(RuntimeError, match="without having called"):
                    await group.start(stop)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(group.start(hang), 0.001)
                assert not hanging
            group.cancel()

    run(program(), workers=3)


def test_a_persistent_group_is_used_and_shut_down_on_all_workers() -> None:
    async def program() -> None:
        for closer in range(3):
            group = PersistentTaskGroup()

            async def use(group: PersistentTaskGroup = group) -> list[int]:
                handles = [group.spawn(thread_of(1)) for _ in range(10)]
                hanging = [group.spawn(asyncio.sleep(3600)) for _ in range(10)]
                values = [await handle for handle in handles]
                assert not any(handle.is_finished() for handle in hanging)
                return values

            async def close(group: PersistentTaskGroup = group) -> None:
                await group.shutdown("closing time")
                assert "running=0" in repr(group)

            await spawn(*[use() for _ in range(10)])
            await spawn(close(), on=closer)
            with pytest.raises(RuntimeError, match="shut down"):
                group.spawn(thread_of())

    run(program(), workers=3)


def test_a_persistent_group_changes_on_its_own_loop_only() -> None:
    """Between two awaits there nothing happens to it, whoever calls `shutdown` elsewhere."""

    async def program() -> None:
        group = PersistentTaskGroup()
        called = threading.Event()
        group.spawn(asyncio.sleep(3600))

        async def close() -> None:
            closing = asyncio.create_task(group.shutdown("closing time"))
            await yield_now()
            called.set()
            await closing
            assert late.is_finished()

        closer = spawn(close(), on=1)
        called.wait(PATIENCE)
        late = group.spawn(asyncio.sleep(3600))
        await closer
        assert late.is_cancelled()

    run(program(), workers=2)


def test_a_shutdown_of_a_persistent_group_that_is_cancelled_is_called_again() -> None:
    async def program() -> None:
        release = CancellationToken()
        ended: list[int] = []

        async def linger(number: int) -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                await release.cancelled()
                ended.append(number)

        async def close() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await group.shutdown()
            assert not ended
            release.cancel()
            await group.shutdown()
            assert sorted(ended) == list(range(6))

        group = PersistentTaskGroup()
        handles = [group.spawn(linger(number)) for number in range(6)]
        while metrics().tasks < 7:
            await asyncio.sleep(0)
        await spawn(close(), on=1)
        assert all(handle.is_cancelled() for handle in handles)

    run(program(), workers=3)


def test_a_child_on_another_worker_can_shut_its_persistent_group_down() -> None:
    async def program() -> None:
        group = PersistentTaskGroup()

        async def child() -> None:
            await group.shutdown()

        handle = group.spawn(child())
        with suppress(JoinError):  # it is cancelled, too
            await handle
        await group.shutdown()

    run(program(), workers=2)


# ---------------------------------------------------------------- shutdown


def test_work_that_is_pending_on_every_worker_is_ended_in_order(caplog: pytest.LogCaptureFixture) -> None:
    cleaned: list[int] = []
    never_started: list[Any] = []

    async def work(number: int) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            # It can still start something, here.
            here = threading.get_ident()
            assert await spawn(thread_of(1)) == here
            assert await spawn(thread_of(), thread_of(1)) == [here] * 2
            assert await map(lambda _: thread_of(1), range(3), limit=2) == [here] * 3
            jobs: JoinSet[int] = JoinSet()
            jobs.spawn(thread_of(1))
            assert await jobs.join_all() == [here]
            with pytest.raises(JoinError, match="shut down"):
                await spawn(thread_of(), on=(number + 1) % 3)
            cleaned.append(number)

    async def program() -> None:
        for number in range(3):
            for _ in range(5):
                spawn(work(number), on=number)
        await asyncio.sleep(0)
        for number in range(3):
            await spawn(yield_now(), on=number)
        never_started.extend(work(100) for _ in range(100))
        for coroutine in never_started:
            spawn(coroutine)

    with caplog.at_level(logging.WARNING, "yamanote"), warnings.catch_warnings():
        warnings.simplefilter("error")
        run(program(), workers=3)
        gc.collect()
    assert {number: cleaned.count(number) for number in range(3)} == dict.fromkeys(range(3), 5)
    for coroutine in never_started:
        assert coroutine.cr_frame is None


def test_asynchronous_generators_of_every_worker_are_closed() -> None:
    closed: list[int] = []
    kept: list[AsyncIterator[int]] = []

    async def numbers(number: int) -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append(number)

    async def begin(number: int) -> None:
        kept.append(numbers(number))
        await anext(kept[-1])

    async def program() -> None:
        for number in range(3):
            await spawn(begin(number), on=number)

    run(program(), workers=3)
    assert sorted(closed) == [0, 1, 2]


def test_tasks_of_two_workers_that_need_each_other_in_their_clean_up_end() -> None:
    ended: list[int] = []

    async def program() -> None:
        released: dict[int, Any] = {}

        async def work(number: int) -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                released[number] = True
                while len(released) < 3:
                    await asyncio.sleep(0)
                ended.append(number)

        for number in range(3):
            spawn(work(number), on=number)
        for number in range(3):
            await spawn(yield_now(), on=number)

    run(program(), workers=3, shutdown_timeout=PATIENCE)
    assert sorted(ended) == [0, 1, 2]


def test_a_worker_that_is_stuck_is_named_with_where_it_is_and_left(caplog: pytest.LogCaptureFixture) -> None:
    with blocked() as block:
        entered = threading.Event()

        async def stuck_in_here() -> None:
            entered.set()
            block()

        async def program() -> str:
            spawn(stuck_in_here(), on=1)
            entered.wait(PATIENCE)
            return "done"

        with caplog.at_level(logging.WARNING, "yamanote"):
            assert run(program(), workers=3, shutdown_timeout=0.01) == "done"
        (record,) = [record for record in caplog.records if "stuck, and left behind" in record.getMessage()]
        assert "worker 1" in record.getMessage()
        assert "in test_a_worker_that_is_stuck" in record.getMessage()
        assert "stuck_in_here" in record.getMessage()


def test_a_task_that_does_not_end_is_named_wherever_it_is(caplog: pytest.LogCaptureFixture) -> None:
    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass

    async def program() -> None:
        spawn(stubborn(), on=1, name="the stubborn one")
        await spawn(yield_now(), on=1)

    with caplog.at_level(logging.WARNING, "yamanote"):
        run(program(), workers=2, shutdown_timeout=0.02)
    assert any("left behind" in text and "the stubborn one" in text for text in caplog.messages)


def test_it_runs_again_and_again_and_in_another_thread() -> None:
    async def program() -> int:
        return len(await spawn(*[thread_of(1) for _ in range(20)]))

    for _ in range(5):
        assert run(program(), workers=3) == 20
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(run(program(), workers=2))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert results == [20, 20]


def test_main_takes_workers() -> None:
    @main(workers=2)
    async def program() -> str:
        return await spawn(name(), on=1)

    async def name() -> str:
        return threading.current_thread().name

    assert program() == "yamanote-worker-1"


def test_by_hand_the_other_workers_go_on_between_the_calls() -> None:
    with Runtime(workers=2) as runtime:
        ended = threading.Event()

        async def finish() -> None:
            await asyncio.sleep(0.001)
            ended.set()

        async def begin() -> JoinHandle[None]:
            return spawn(finish(), on=1)

        handle = runtime.run_until_complete(begin())
        assert ended.wait(PATIENCE)
        runtime.run_until_complete(handle)
        assert runtime.run_until_complete(runtime.spawn(thread_of())) is not None
    runtime.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        runtime.handle.spawn(thread_of())


def test_a_runtime_that_never_ran_is_shut_down() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Runtime(workers=3).shutdown()
        gc.collect()


def test_a_clock_takes_one_worker() -> None:
    from yamanote.time import VirtualClock

    with pytest.raises(ValueError, match="clock"):
        Runtime(workers=2, clock=VirtualClock())


def test_a_loop_that_cannot_be_made_leaves_none_open() -> None:
    made: list[EventLoop] = []

    def make() -> EventLoop:
        if len(made) == 2:
            raise LookupError
        made.append(EventLoop())
        return made[-1]

    with pytest.raises(LookupError):
        Runtime(workers=3, loop_factory=make)
    assert all(loop.is_closed() for loop in made)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_factory_that_makes_no_new_loop_is_refused(workers: int) -> None:
    one, closed = EventLoop(), EventLoop()
    closed.close()
    for loop, error in (None, TypeError), (closed, ValueError), (one, ValueError if workers > 1 else None):
        coroutine = thread_of()
        with nullcontext() if error is None else pytest.raises(error, match="loop_factory"):
            run(coroutine, workers=workers, loop_factory=lambda loop=loop: loop)  # type: ignore[misc]
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
    assert one.is_closed()


# ---------------------------------------------------------------- interruptions


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.parametrize("number", [0, 1])
def test_what_ends_a_program_does_so_from_any_worker(
    error: type[BaseException], turns: int, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    cancelled: list[bool] = []

    async def interrupt() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        raise error

    async def program() -> None:
        handle = spawn(interrupt(), on=number)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        finally:
            assert await spawn(thread_of(), on=number)  # the worker goes on
            while not handle.is_finished():
                await asyncio.sleep(0)

    with caplog.at_level(logging.ERROR), pytest.raises(error):
        run(program(), workers=2)
    gc.collect()
    assert cancelled == [True]
    assert len(caplog.records) <= 1  # asyncio's own, of a task that failed in its first step


@pytest.mark.parametrize("workers", [1, 2])
def test_what_ends_a_program_is_reported_by_no_handle_that_stands_for_its_task(
    workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def interrupt() -> None:
        await asyncio.sleep(0)
        raise SystemExit(3)

    async def from_thread() -> None:
        threading.Thread(target=Handle.current().spawn, args=(interrupt(),)).start()
        await asyncio.sleep(3600)

    async def several() -> None:
        spawn(interrupt(), asyncio.sleep(0))
        await asyncio.sleep(3600)

    with caplog.at_level(logging.ERROR):
        for program in from_thread, several:
            with pytest.raises(SystemExit):
                run(program(), workers=workers)
    gc.collect()
    assert [record.message.partition("\n")[0] for record in caplog.records if "Future" in record.message] == []


def test_what_ends_a_program_comes_out_of_a_group() -> None:
    async def interrupt() -> None:
        await asyncio.sleep(0)
        raise SystemExit(3)

    async def program() -> None:
        async with TaskGroup() as group:
            for _ in range(5):
                group.spawn(asyncio.sleep(3600))
            group.spawn(interrupt())

    with pytest.raises(SystemExit) as caught:
        run(program(), workers=2)
    assert caught.value.code == 3


@on_unix
def test_ctrl_c_cancels_main_whatever_the_workers_do() -> None:
    async def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(3600)

    cancelled: list[bool] = []

    async def program() -> None:
        spawn(interrupt(), on=1)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    with pytest.raises(KeyboardInterrupt):
        run(program(), workers=2)
    assert cancelled == [True]


@on_unix
def test_ctrl_c_cancels_main_while_another_worker_computes() -> None:
    cancelled = threading.Event()

    async def compute() -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        end = time.monotonic() + PATIENCE
        while not cancelled.is_set() and time.monotonic() < end:
            sum(range(100))
        return cancelled.is_set()

    async def program() -> None:
        handle = spawn(compute(), on=1)
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()
            assert await handle

    with pytest.raises(KeyboardInterrupt):
        run(program(), workers=2)


@on_unix
def test_the_second_ctrl_c_ends_at_once_also_beside_a_stuck_worker(caplog: pytest.LogCaptureFixture) -> None:
    with blocked() as block:
        entered = threading.Event()

        async def stuck() -> None:
            entered.set()
            block()

        async def program() -> None:
            spawn(stuck(), on=1)
            entered.wait(PATIENCE)
            signal.raise_signal(signal.SIGINT)
            try:
                await asyncio.sleep(3600)
            finally:
                signal.raise_signal(signal.SIGINT)

        begun = time.perf_counter()
        with pytest.raises(KeyboardInterrupt):
            run(program(), workers=2, shutdown_timeout=PATIENCE)
        assert time.perf_counter() - begun < PATIENCE / 2  # not the budget
        assert any("worker 1" in text for text in caplog.messages)


@on_unix
def test_a_task_on_a_worker_waits_for_a_signal() -> None:
    async def wait() -> signal.Signals:
        return await wait_for_signal(signal.SIGUSR1)

    async def listen(ready: threading.Event) -> list[signal.Signals]:
        with signals(signal.SIGUSR1, signal.SIGUSR2) as arrived:
            ready.set()
            return [await anext(arrived), await anext(arrived)]

    async def program() -> None:
        before = signal.getsignal(signal.SIGUSR1)
        for number in (1, 0):
            handle = spawn(wait(), on=number)
            while signal.getsignal(signal.SIGUSR1) == before:
                await asyncio.sleep(0)
            signal.raise_signal(signal.SIGUSR1)
            assert await handle is signal.SIGUSR1
            while signal.getsignal(signal.SIGUSR1) != before:
                await asyncio.sleep(0)
        ready = threading.Event()
        both = spawn(listen(ready), on=1)
        while signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL:
            await asyncio.sleep(0)
        signal.raise_signal(signal.SIGUSR2)
        await asyncio.sleep(0)
        signal.raise_signal(signal.SIGUSR1)
        assert await both == [signal.SIGUSR2, signal.SIGUSR1]

    run(program(), workers=2)


@on_unix
def test_a_signal_cancels_a_block_on_a_worker() -> None:
    async def block(number: int) -> signal.Signals | None:
        with handle_signal(signal.SIGUSR1) as scope:
            await asyncio.sleep(3600)
        return scope.signal

    async def program() -> None:
        before = signal.getsignal(signal.SIGUSR1)
        handle = spawn(block(1), on=1)
        while signal.getsignal(signal.SIGUSR1) == before:
            await asyncio.sleep(0)
        signal.raise_signal(signal.SIGUSR1)
        assert await handle is signal.SIGUSR1

    run(program(), workers=2)


def test_outside_of_the_main_thread_no_worker_listens_to_signals() -> None:
    errors: list[BaseException] = []

    async def listen() -> None:
        signals(signal.SIGTERM)

    async def program() -> None:
        await spawn(listen(), on=1)

    def in_a_thread() -> None:
        try:
            run(program(), workers=2)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join(PATIENCE)
    assert [type(error) for error in errors] == [RuntimeError]


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_in_a_forked_child_the_runtime_is_dead_and_says_so() -> None:
    read, write = os.pipe()

    async def program() -> None:
        await spawn(thread_of(), on=1)
        handle = Handle.current()
        child = os.fork()
        if not child:
            try:
                handle.spawn(thread_of())
            except RuntimeError as error:
                os.write(write, str(error).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)

    run(program(), workers=2)
    os.close(write)
    assert b"forked" in os.read(read, 1000)
    os.close(read)


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_can_leave_the_runtime_of_its_parent_and_run_its_own() -> None:
    read, write = os.pipe()
    with Runtime(workers=2) as runtime:
        runtime.run_until_complete(thread_of())
        child = os.fork()
        if not child:
            try:
                with pytest.raises(RuntimeError, match="forked"):
                    runtime.run_until_complete(thread_of())
                with pytest.raises(RuntimeError, match="forked"):
                    runtime.spawn(thread_of())
                runtime.shutdown()
                assert run(on_another_worker(), workers=2) == "yamanote-worker-1"
                os.write(write, b"as promised")
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert runtime.run_until_complete(on_another_worker()) == "yamanote-worker-1"
    os.close(write)
    assert os.read(read, 1000) == b"as promised"
    os.close(read)


async def on_another_worker() -> str:
    async def name() -> str:
        return threading.current_thread().name

    return await spawn(name(), on=1)


# ---------------------------------------------------------------- from threads, and looking


def test_threads_bring_work_to_all_workers() -> None:
    both = threading.Barrier(2)

    async def meet() -> int:
        both.wait(PATIENCE)
        return threading.get_ident()

    async def program() -> None:
        handle = Handle.current()

        def bring() -> int:
            handles = [handle.spawn(meet()) for _ in range(2)]
            brought.set()
            assert handle.block_on(thread_of())
            return len({each.result(PATIENCE) for each in handles})

        brought = threading.Event()
        count = spawn_blocking(bring)
        brought.wait(PATIENCE)  # until then this keeps the first worker from starting one
        assert await count == 2

    run(program(), workers=2)


def test_dump_and_metrics_are_of_all_workers() -> None:
    async def program() -> None:
        before = metrics()
        for number in range(3):
            spawn(asyncio.sleep(3600), name=f"sleeper {number}", on=number)
            await spawn(yield_now(), on=number)
        with blocked() as block:
            entered = threading.Event()

            async def busy() -> None:
                entered.set()
                block()

            spawn(busy(), on=2)
            entered.wait(PATIENCE)
            spawn(yield_now(), on=2)
            assert "1 spawned here or for here, and not started yet" in dump() or sys.version_info >= (3, 13)
        text = dump()
        for number in range(3):
            assert f"worker {number}: " in text
            assert f"'sleeper {number}' sleeps" in text
        after = metrics()
        assert after.tasks >= 4
        assert (after - before).spawned >= 6
        assert after.loop is not None and after.loop.timers >= 3

    run(program(), workers=3)


def test_a_spawn_site_is_that_of_who_has_spawned() -> None:
    record_spawn_sites()
    try:

        async def program() -> None:
            handles = [spawn(asyncio.sleep(3600)), spawn(asyncio.sleep(3600), on=1)]
            batch = spawn(asyncio.sleep(3600), asyncio.sleep(3600))
            for handle in (*handles, batch):
                assert "program" in (handle.spawned_at or "")
            # Also where the tasks are, when they have started.
            while sum("spawned at" in line and "program" in line for line in dump().splitlines()) < 4:
                await asyncio.sleep(0)

        run(program(), workers=2)
    finally:
        record_spawn_sites(False)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("make", [EventLoop, asyncio.SelectorEventLoop, "uvloop"])
def test_it_works_on_every_loop_and_in_debug_mode(make: Any, debug: bool) -> None:
    if make == "uvloop":
        make = pytest.importorskip("uvloop").new_event_loop

    async def program() -> None:
        assert len(set(await spawn(*[thread_of(3) for _ in range(200)]))) >= 1
        async with TaskGroup(limit=5) as group:
            handles = [group.spawn(thread_of(2)) for _ in range(50)]
            for number in range(3):
                assert await spawn(thread_of(), on=number)
        assert all(handle.is_finished() for handle in handles)
        spawn(asyncio.sleep(3600), asyncio.sleep(3600)).abort()

    run(program(), workers=3, loop_factory=make, debug=debug)
