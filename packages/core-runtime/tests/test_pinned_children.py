"""Children that run on a certain worker: `on` of the groups."""

from __future__ import annotations

import asyncio
import sys
import threading
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from yamanote.runtime import (
    JoinError,
    JoinHandle,
    PersistentTaskGroup,
    Started,
    TaskGroup,
    generators,
    run,
    scope,
    spawn,
    yield_now,
)

HAS_GIL: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
NAMES = ("MainThread" if HAS_GIL else "yamanote-worker-0", "yamanote-worker-1", "yamanote-worker-2")


async def where() -> str:
    before = threading.current_thread().name
    await yield_now()
    assert threading.current_thread().name == before
    return before


def test_a_pinned_child_runs_on_that_worker() -> None:
    async def program() -> None:
        async with TaskGroup() as group, scope() as s, PersistentTaskGroup() as persistent:
            for spawning in (group.spawn, group.try_spawn, s.spawn, persistent.spawn):
                handles = [spawning(where(), on=number) for number in (0, 1, 2) * 5]
                assert [await handle for handle in handles if handle is not None] == list(NAMES) * 5

    run(program(), workers=3)


def test_a_pinned_child_that_waits_for_its_turn_runs_on_that_worker() -> None:
    async def program() -> None:
        async with TaskGroup(limit=1) as group:
            handles = [group.spawn(where(), on=number) for number in (2, 1, 0) * 3]
            assert group.try_spawn(where(), on=1) is None
        assert [await handle for handle in handles] == [*reversed(NAMES)] * 3

    run(program(), workers=3)


def test_no_more_pinned_children_run_at_once_than_the_limit_lets() -> None:
    running: list[int] = []
    most = 0

    async def child(number: int) -> None:
        nonlocal most
        running.append(number)
        most = max(most, len(running))
        await asyncio.sleep(0)
        running.remove(number)

    async def program() -> None:
        async with TaskGroup(limit=2) as group:
            for number in range(30):
                group.spawn(child(number), on=number % 3)

    run(program(), workers=3)
    assert most <= 2 and not running


def test_tasks_on_other_workers_pin_children_too() -> None:
    async def program() -> None:
        async with TaskGroup() as group, PersistentTaskGroup(limit=1) as persistent:

            async def bring() -> list[str]:
                names = []
                for each in (group, persistent):
                    handles = [each.spawn(where(), on=number, eager=not number) for number in range(3)]
                    names += [await handle for handle in handles]
                return names

            for number in range(3):
                assert await spawn(bring(), on=number) == [*NAMES] * 2

    run(program(), workers=3)


def test_a_pinned_child_sees_a_copy_of_the_context_or_the_one_that_it_is_given() -> None:
    variable = ContextVar("variable", default="unset")

    async def child() -> tuple[str, str]:
        seen = variable.get()
        variable.set("changed")
        return seen, await where()

    async def program() -> None:
        variable.set("here")
        for limit in (None, 1):
            given = copy_context()
            given.run(variable.set, "given")
            async with TaskGroup(limit=limit) as group:
                group.spawn(yield_now())
                copied = group.spawn(child(), on=1)
                inside = group.spawn(child(), on=2, context=given)
                unpinned = group.spawn(where(), context=copy_context())
            assert await copied == ("here", NAMES[1]) and variable.get() == "here"
            assert await inside == ("given", NAMES[2]) and given[variable] == "changed"
            assert await unpinned == NAMES[0]

    run(program(), workers=3)


def test_a_child_that_is_started_is_pinned() -> None:
    async def serve(started: Started[str], port: int) -> None:
        started(f"{threading.current_thread().name}:{port}")
        await asyncio.sleep(3600)

    async def fail(started: Started[str]) -> None:
        raise LookupError(await where())

    async def program() -> None:
        async with TaskGroup() as group:
            for number, name in enumerate(NAMES):
                assert await group.start(serve, 80, on=number) == f"{name}:80"
                with pytest.raises(LookupError, match=name):
                    await group.start(fail, on=number)
            with pytest.raises(ValueError, match="on must be"):
                await group.start(serve, 80, on=3)
            group.cancel()

    run(program(), workers=3)


def test_a_start_that_is_cancelled_waits_for_the_pinned_child() -> None:
    log: list[str] = []

    async def hang(started: Started[None]) -> None:
        log.append("began")
        try:
            await asyncio.sleep(3600)
        finally:
            await yield_now()
            log.append(threading.current_thread().name)

    async def program() -> None:
        async with TaskGroup() as group:
            starting = spawn(group.start(hang, on=1), on=0)
            while not log:
                await yield_now()
            starting.abort()
            with suppress(JoinError):
                await starting
            assert log == ["began", NAMES[1]]

    run(program(), workers=2)


def test_cancel_and_a_deadline_reach_pinned_children_and_those_that_have_not_begun_never_do() -> None:
    log: list[str] = []

    async def child() -> None:
        log.append("began")
        try:
            await asyncio.sleep(3600)
        finally:
            log.append(threading.current_thread().name)

    async def program() -> None:
        clock = asyncio.get_running_loop()
        for limit, deadline in ((None, None), (1, None), (None, 0.02), (1, 0.02)):
            log.clear()
            async with TaskGroup(limit=limit, deadline=deadline and clock.time() + deadline) as group:
                running = group.spawn(child(), on=1)
                while not log:
                    await yield_now()
                others = [group.spawn(child(), on=number) for number in (0, 1, 2)] if limit else []
                if deadline is None:
                    group.cancel()
                    others.append(group.spawn(child(), on=1))
            assert group.cancelled_caught and running.is_cancelled()
            assert all(other.is_cancelled() for other in others)
            assert log == ["began", NAMES[1]]

    run(program(), workers=3)


def test_no_child_begins_in_a_group_that_is_being_cancelled_wherever_it_would_run() -> None:
    began: list[str] = []

    async def child() -> None:
        began.append(threading.current_thread().name)

    async def program() -> None:
        for number in range(100):
            async with TaskGroup() as group:
                group.cancel()
                for on in (None, number % 3, 1, 2):
                    group.spawn(child(), on=on)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        run(program(), workers=3)
    finally:
        sys.setswitchinterval(interval)
    assert not began


def test_the_error_of_a_pinned_child_ends_the_group() -> None:
    async def fail() -> None:
        raise LookupError(await where())

    async def program() -> None:
        assert (host := asyncio.current_task()) is not None
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup() as group:
                sibling = group.spawn(asyncio.sleep(3600), on=2)
                group.spawn(fail(), on=1)
                await asyncio.sleep(3600)
        assert [str(error) for error in caught.value.exceptions] == [NAMES[1]]
        assert sibling.is_cancelled() and host.cancelling() == 0

    run(program(), workers=3)


def test_a_worker_that_there_is_not_is_refused_and_the_coroutine_closed() -> None:
    async def refused(error: type[Exception], match: str, group: Any, **options: Any) -> None:
        for spawning in (group.spawn, group.try_spawn):
            coroutine = where()
            with pytest.raises(error, match=match):
                spawning(coroutine, **options)
            with pytest.raises(RuntimeError, match="cannot reuse"):
                await coroutine

    async def program(count: int) -> None:
        for limit in (None, 1):
            async with TaskGroup(limit=limit) as group:
                for number in (count, -1):
                    await refused(ValueError, f"on must be .* from 0 to {count - 1}, not {number}", group, on=number)
                for nonsense in ("1", True, 1.0):
                    await refused(TypeError, "on must be", group, on=nonsense)
                if count > 1:
                    await refused(ValueError, "eager", group, on=1, eager=True)

                    async def elsewhere() -> None:
                        coroutine = where()
                        with pytest.raises(ValueError, match="on must be"):
                            group.spawn(coroutine, on=count)
                        with pytest.raises(RuntimeError, match="cannot reuse"):
                            await coroutine

                    await spawn(elsewhere(), on=1)
                assert await group.spawn(where(), on=0) == threading.current_thread().name
                assert await group.spawn(where(), on=0, eager=True) == threading.current_thread().name
            await refused(RuntimeError, "not open", group, on=0)

    run(program(1))
    asyncio.run(program(1))
    run(program(3), workers=3)


def test_an_eager_child_on_the_own_worker_runs_before_spawn_returns() -> None:
    async def program() -> None:
        log: list[str] = []

        async def child() -> None:
            log.append("began")

        async with TaskGroup() as group:
            group.spawn(child(), on=0, eager=True)
            assert log == ["began"]

    run(program())
    run(program(), workers=2)


def test_a_pinned_child_that_comes_when_the_runtime_ends_never_begins() -> None:
    handles: list[JoinHandle[None]] = []
    late: list[str] = []

    async def begin() -> None:
        late.append("began")

    async def clean_up(group: PersistentTaskGroup) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            handles.append(group.spawn(begin(), on=1))
            with suppress(JoinError):
                await handles[0]

    async def program() -> None:
        group = PersistentTaskGroup()
        spawn(clean_up(group), on=0)
        await asyncio.sleep(0.001)

    run(program(), workers=2)
    assert handles[0].is_cancelled() and not late


def test_the_scope_of_generators_pins_too() -> None:
    def child() -> Any:
        yield
        return threading.current_thread().name

    def program() -> Any:
        with generators.scope() as s:
            handles = [s.spawn(child(), on=number) for number in range(3)]
        yield s()
        names = []
        for handle in handles:
            names.append((yield handle))
        return tuple(names)

    assert generators.run(program(), workers=3) == NAMES
