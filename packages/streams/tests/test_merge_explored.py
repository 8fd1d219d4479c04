"""Several sources at a time, in any order of their steps, and cancelled at each of their awaits; and wrong variants."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial
from typing import Any

import pytest

from yamanote import streams
from yamanote.runtime import yield_now
from yamanote.streams import Stream, StreamMap
from yamanote.streams._branch import Branch, TaskBranch
from yamanote.streams._flattened import FlattenedSideBySide
from yamanote.streams._junction import Junction
from yamanote.streams._stream_map import _Removed
from yamanote.streams._switched import Switched
from yamanote.testing import Counterexample, explore, explore_cancellations, replay
from yamanote.time import sleep

from .test_streams_explored import Pull, ended

Scenario = Callable[[], Coroutine[Any, Any, None]]


class Queue:
    """A source that loses nothing when a pull is cancelled, and how many of its kind are open."""

    open = 0

    def __init__(self, *items: Any, pauses: int = 1) -> None:
        self.items = [*items]
        self.pauses = pauses
        self.closed = 0
        Queue.open += 1

    def __aiter__(self) -> Queue:
        return self

    async def __anext__(self) -> Any:
        assert not self.closed
        for _ in range(len(self.items) % 2 + self.pauses):
            await yield_now()
        if not self.items:
            raise StopAsyncIteration
        return self.items.pop(0)

    async def aclose(self) -> None:
        try:
            await yield_now()
        finally:
            Queue.open -= not self.closed
            self.closed += 1


async def generated(*items: int) -> AsyncIterator[int]:
    for item in items:
        await yield_now()
        yield item


def ordered(seen: list[Any], *expected: list[Any], cut: int) -> None:
    """Each source in its order; everything, unless a task within was cancelled."""
    for items in expected:
        mine = [item for item in seen if item in items]
        assert mine == items[: len(mine)]
        assert cut or mine == items


async def merges(pauses: int) -> None:
    """Each item comes once, in the order of its source, and no pull that is cancelled loses any."""
    Queue.open = 0
    pull = Pull(streams.merge(Queue(0, 1, 2, pauses=pauses), Queue(10, 11, pauses=1), [20, 21], generated(30, 31)))
    await pull.in_a_task_and_then_here()
    assert not Queue.open
    ordered(pull.seen, [0, 1, 2], [10, 11], [20, 21], [30, 31], cut=pull.cut)


async def flattens() -> None:
    """The same, with at most two inner streams at a time."""
    Queue.open = 0

    def inner(number: int) -> Queue:
        assert Queue.open - outer_open() < 2
        return Queue(number * 10, number * 10 + 1)

    def outer_open() -> int:
        return not outer.closed

    outer = Queue(1, 2, 3, 4)
    pull = Pull(streams.iter(outer).flat_map(inner, concurrency=2))
    await pull.in_a_task_and_then_here()
    assert not Queue.open
    ordered(pull.seen, *([number * 10, number * 10 + 1] for number in (1, 2, 3, 4)), cut=4)
    assert pull.cut or len(pull.seen) == 8


async def switches() -> None:
    """One call at a time; results in the order of their items; the last item has one."""
    Queue.open = 0
    running: set[int] = set()

    async def call(number: int) -> int:
        assert not running
        running.add(number)
        try:
            await yield_now()
            await sleep(number % 2)
            return number
        finally:
            try:
                await yield_now()
            finally:
                running.discard(number)

    pull = Pull(streams.iter(Queue(1, 2, 3, 4)).switch(call))
    await pull.in_a_task_and_then_here()
    assert not running and not Queue.open
    assert pull.seen == sorted({*pull.seen})
    assert pull.cut or pull.seen[-1] == 4


async def comes_and_goes() -> None:
    """A source that is removed loses nothing, one that is replaced is closed, one that is inserted is heard."""
    Queue.open = 0
    rooms: StreamMap[str, int] = StreamMap()
    rooms.insert("a", Queue(0, 1, 2, 3))
    rooms.insert("b", Queue(10, 11))
    seen: list[int] = []
    cut = 0

    async def consume() -> None:
        nonlocal cut
        while True:
            try:
                async for _, item in rooms:
                    seen.append(item)
                return
            except asyncio.CancelledError:
                task = asyncio.current_task()
                assert task is not None
                if task.cancelling():
                    raise
                cut += 1

    async def change() -> None:
        nonlocal stream
        await yield_now()
        rooms.insert("c", Queue(20, 21))
        rooms.insert("b", Queue(30, 31))
        await yield_now()
        await yield_now()
        stream = rooms.remove("a")

    stream: Stream[int] | None = None
    async with rooms:
        consuming = asyncio.create_task(consume())
        changing = asyncio.create_task(change())
        await ended([consuming, changing])
        await consume()
        if stream is not None:
            rest = Pull(stream)
            await rest.in_a_task_and_then_here()
            seen += rest.seen
            cut += rest.cut
    assert not Queue.open
    for items in ([0, 1, 2, 3], [20, 21], [30, 31]):
        mine = [item for item in seen if item in items]
        assert mine == items[: len(mine)]
        assert cut or changing.cancelled() or mine == items


async def slow(number: int) -> AsyncIterator[int]:
    await yield_now()
    yield number
    await sleep(1)
    yield number


left: dict[str, Callable[[], Stream[Any]]] = {
    "merge": lambda: streams.merge(Queue(*range(9)), Queue(*range(9)), [1, 2]),
    "flat_map": lambda: streams.iter(Queue(*range(9))).flat_map(lambda n: Queue(n, n), concurrency=2),
    "flatten": lambda: streams.iter(Queue(*range(9))).flat_map(lambda n: Queue(n, n)),
    "switch": lambda: streams.iter(Queue(*range(2))).switch(slow),
}


async def leaves(name: str) -> None:
    """Who leaves early, in whatever way, leaves nothing behind that runs, and sources that are closed."""
    Queue.open = 0

    async def consume() -> None:
        stream = left[name]()
        try:
            async with stream:
                async for _ in stream:
                    break
        finally:
            assert not Queue.open
            assert len(asyncio.all_tasks()) == 2

    task = asyncio.create_task(consume())
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


scenarios: dict[str, Scenario] = {
    "merge": partial(merges, 1),
    "merge, sometimes ready": partial(merges, 0),
    "flat_map": flattens,
    "switch": switches,
    "stream map": comes_and_goes,
    **{f"left early: {name}": partial(leaves, name) for name in left},
}


@pytest.mark.parametrize("name", scenarios)
def test_in_any_order(name: str) -> None:
    explore(scenarios[name], runs=30)


@pytest.mark.parametrize("name", scenarios)
def test_cancelled_anywhere(name: str) -> None:
    explore_cancellations(scenarios[name], runs=60)


def land_without_a_wake_up(junction: Junction[Any], branch: Branch, item: Any) -> bool:
    junction._landed.append((branch, item))
    return False


def land_one_on_top_of_the_other(branch: TaskBranch, item: Any) -> bool:
    branch.ahead = 1
    branch.land(branch, item)
    branch.rests = False
    return True


def land_in_front(junction: Junction[Any], branch: Branch, item: Any) -> bool:
    junction._landed.appendleft((branch, item))
    junction._wake()
    return True


async def begin_again(branch: TaskBranch) -> Any:
    branch._rest = branch._loop.create_future()
    await branch._rest
    branch._begun = None
    branch.rests = False
    return await branch._source.pull()


async def leave_the_tasks_running(junction: Junction[Any]) -> None:
    junction._over = True
    for branch in junction._branches:
        branch.stop()


async def forget_the_source(branch: TaskBranch) -> None:
    branch.stop()


def ask_for_more_at_once(flattened: FlattenedSideBySide[Any]) -> None:
    if flattened._has_given:
        flattened._has_given = False
        flattened._turns.append(flattened._outer)


async def begin_before_the_last_one_has_ended(switched: Switched[Any]) -> None:
    current, switched._current = switched._current, None
    if current is not None and switched._latest:
        current.stop()
        switched._forget(current)
    await pause(switched)
    if current is not None and switched._current is None:
        switched._current = current


pause = Switched._pause


def go_on_without_what_has_landed(removed: _Removed, branch: Branch, former: Junction[Any]) -> None:
    removed._branches[branch] = None
    former._forget(branch)
    del former._branches[branch]
    branch.ahead = 0
    branch.land = removed._land
    removed._turns.append(branch)


teeth: dict[str, tuple[type, str, Callable[..., Any], str]] = {
    "nobody is woken": (Junction, "_land", land_without_a_wake_up, "merge"),
    "items get lost on the pile": (TaskBranch, "_accept", land_one_on_top_of_the_other, "merge"),
    "the last item comes first": (Junction, "_land", land_in_front, "merge, sometimes ready"),
    "a pull is begun anew": (TaskBranch, "_rest_and_go_on", begin_again, "merge"),
    "close does not wait for the tasks": (Junction, "_close", leave_the_tasks_running, "left early: merge"),
    "a source stays open": (TaskBranch, "_close", forget_the_source, "left early: switch"),
    "one stream too many": (FlattenedSideBySide, "_ask_for_more", ask_for_more_at_once, "flat_map"),
    "two calls at a time": (Switched, "_pause", begin_before_the_last_one_has_ended, "switch"),
    "an item stays behind": (_Removed, "_take_over", go_on_without_what_has_landed, "stream map"),
}


@pytest.fixture
def break_it(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Puts a wrong variant in place, and tells in which scenario that shows."""

    def break_it(tooth: str) -> str:
        owner, method, wrong, name = teeth[tooth]
        monkeypatch.setattr(owner, method, wrong)
        return name

    yield break_it
    gc.collect()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # what a broken scenario leaves behind
@pytest.mark.parametrize("tooth", teeth)
def test_a_wrong_variant_is_found(tooth: str, break_it: Callable[[str], str]) -> None:
    name = break_it(tooth)
    with pytest.raises(Counterexample) as found:
        explore(scenarios[name], runs=30)
        explore_cancellations(scenarios[name])
    with pytest.raises(Counterexample):
        replay(scenarios[name], found.value.token)
