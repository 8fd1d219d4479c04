"""Several workers: who starts what is spawned, in which context, and what a runtime with workers is made of."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from yamanote.runtime import (
    EventLoop,
    Handle,
    JoinMap,
    JoinSet,
    Runtime,
    TaskGroup,
    TaskTracker,
    dump,
    main,
    map,
    metrics,
    record_spawn_sites,
    run,
    spawn,
    spawn_blocking,
    yield_now,
)
from yamanote.runtime._placed import Placed
from yamanote.runtime._queued import QueuedHandle

PATIENCE = 20.0
"""Seconds after which a test gives up."""


async def thread_of(turns: int = 0) -> int:
    for _ in range(turns):
        await asyncio.sleep(0)
    return threading.get_ident()


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


def test_one_worker_starts_what_it_has_in_order(blocked: Any) -> None:
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


def test_a_worker_that_sleeps_is_woken_though_another_is_busy(blocked: Any) -> None:
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


# ---------------------------------------------------------------- what a runtime with workers is made of


def test_nonsense_for_workers_is_refused() -> None:
    for error, nonsense in ((ValueError, 0), (ValueError, -1), (TypeError, True), (TypeError, "2"), (TypeError, 2.0)):
        coroutine = thread_of()
        with pytest.raises(error, match="workers must be"):
            run(coroutine, workers=nonsense)  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="cannot reuse"):
            coroutine.send(None)
        with pytest.raises(error, match="workers must be"):
            Runtime(workers=nonsense)  # type: ignore[arg-type]


def test_main_takes_workers() -> None:
    @main(workers=2)
    async def program() -> str:
        return await spawn(name(), on=1)

    async def name() -> str:
        return threading.current_thread().name

    assert program() == "yamanote-worker-1"


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


def test_dump_and_metrics_are_of_all_workers(blocked: Any) -> None:
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
