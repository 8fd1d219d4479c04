"""Several workers: the children of one group run on all of them."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from contextlib import suppress
from typing import Any

import pytest

from yamanote.runtime import (
    CancellationToken,
    JoinError,
    JoinHandle,
    PersistentTaskGroup,
    Started,
    TaskGroup,
    metrics,
    run,
    spawn,
    yield_now,
)

PATIENCE = 20.0
"""Seconds after which a test gives up."""


async def thread_of(turns: int = 0) -> int:
    for _ in range(turns):
        await asyncio.sleep(0)
    return threading.get_ident()


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
