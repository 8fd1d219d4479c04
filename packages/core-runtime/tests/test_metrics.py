"""Metrics: figures of a loop and of the blocking pool."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import FrozenInstanceError

import pytest

from yamanote.runtime import (
    BlockingPool,
    EventLoop,
    TaskGroup,
    _blocking,
    make_task,
    metrics,
    spawn,
    spawn_blocking,
    start_task,
)


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[BlockingPool]:
    pool = BlockingPool(2)
    monkeypatch.setattr(_blocking, "shared_pool", pool)
    yield pool
    assert pool.shutdown() == []


async def nothing() -> None:
    pass


async def test_it_counts_every_task_that_is_spawned_by_whatever_way() -> None:
    before = metrics()
    await spawn(nothing())
    await spawn(nothing(), nothing(), eager=True)
    await start_task(nothing())
    await make_task(nothing(), asyncio.get_running_loop())
    async with TaskGroup() as group:
        group.spawn(nothing())
        group.spawn(nothing(), eager=True)
    await asyncio.create_task(nothing())  # not ours
    assert (metrics() - before).spawned == 7


async def test_it_counts_the_tasks_that_have_not_ended() -> None:
    before = metrics().tasks
    handles = [spawn(asyncio.sleep(60)) for _ in range(3)]
    theirs = asyncio.create_task(asyncio.sleep(60))
    assert metrics().tasks == before + 4
    for handle in handles:
        handle.abort()
    theirs.cancel()
    await asyncio.wait([theirs])
    assert metrics().tasks == before


async def test_it_has_the_figures_of_the_pool(pool: BlockingPool) -> None:
    before = metrics()
    inside, gate = threading.Barrier(2), threading.Event()
    call = spawn_blocking(lambda: (inside.wait(60), gate.wait(60)))
    await asyncio.to_thread(inside.wait, 60)
    busy = metrics()
    assert busy.pool.busy == 1 and (busy - before).pool.completed == 0
    gate.set()
    await call
    after = metrics() - busy
    assert after.pool.completed == 1 and after.pool.busy == 0
    assert (metrics() - metrics()).pool.completed == 0


def test_on_our_loop_it_has_the_figures_of_the_loop() -> None:
    async def main() -> None:
        before = metrics()
        for _ in range(10):
            await asyncio.sleep(0.001)
        timer = asyncio.get_running_loop().call_later(3600, print)
        later = metrics()
        timer.cancel()
        assert before.loop is not None and later.loop is not None
        assert later.loop.timers == 1
        between = (later - before).loop
        assert between is not None
        assert 10 <= between.turns == later.loop.turns - before.loop.turns
        assert between.timers == later.loop.timers and between.ready == later.loop.ready
        assert all(getattr(between, name) >= 0 for name in ("turns", "polls", "steps", "busy", "slow"))

    with asyncio.Runner(loop_factory=EventLoop) as runner:
        runner.run(main())


def test_it_fails_on_no_other_loop() -> None:
    class Foreign(asyncio.SelectorEventLoop):
        def statistics(self) -> None:
            raise AssertionError("that is something else")

    async def main() -> None:
        before = metrics()
        assert before.loop is None
        assert (metrics() - before).loop is None

    with asyncio.Runner(loop_factory=Foreign) as runner:
        runner.run(main())


def test_it_works_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")

    async def main() -> None:
        await spawn(nothing())
        assert metrics().spawned == 1 and metrics().loop is None

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def test_another_thread_may_look() -> None:
    loop = asyncio.get_running_loop()
    theirs = await asyncio.to_thread(metrics, loop)
    assert theirs.tasks == metrics().tasks and theirs.spawned == metrics().spawned


def test_without_a_loop_it_is_refused_and_a_closed_one_is_empty() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        metrics()
    loop = asyncio.new_event_loop()
    loop.close()
    assert metrics(loop).tasks == metrics(loop).spawned == 0


async def test_it_cannot_be_changed_and_is_compared_by_its_figures() -> None:
    figures = metrics()
    with pytest.raises(FrozenInstanceError):
        figures.tasks = 3  # type: ignore[misc]
    assert figures - figures == figures - figures
    with pytest.raises(TypeError):
        figures - 1  # type: ignore[operator]
