"""Streams in any order of their steps, and cancelled at each of their awaits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from functools import partial
from typing import Any

import pytest

from yamanote import streams
from yamanote.channels import channel
from yamanote.runtime import yield_now
from yamanote.streams import Stream
from yamanote.testing import explore, explore_cancellations
from yamanote.time import sleep, time

Scenario = Callable[[], Coroutine[Any, Any, None]]


async def ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Wait until `tasks` have ended; raise what went wrong in them."""
    tasks = list(tasks)
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


def is_cancelled() -> bool:
    """Whether the running task was cancelled itself, and not a task within a stream or sink."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling() > 0


class Works:
    """Sources and calls that take their time, also to clean up, and what has become of them."""

    def __init__(self) -> None:
        self.pulled = 0
        self.open = 0
        self.running: set[int] = set()
        self.most = 0
        self.finished: list[int] = []
        self.came: dict[int, float] = {}
        self.room: Callable[[], int] = lambda: 1
        """For how many more items there is room."""

    def source(self, count: int, *, waits: bool) -> Stream[int]:
        return streams.iter(self._later(count) if waits else self._now(count))

    async def _later(self, count: int) -> AsyncIterator[int]:
        self.open += 1
        try:
            for number in range(count):
                await sleep(number % 3)
                assert self.room() > 0
                self.pulled += 1
                self.came[number] = time()
                yield number
        finally:
            try:
                await yield_now()
            finally:
                self.open -= 1

    def _now(self, count: int) -> Iterator[int]:
        self.open += 1
        try:
            for number in range(count):
                assert self.room() > 0
                self.pulled += 1
                yield number
        finally:
            self.open -= 1

    async def call(self, number: int) -> int:
        self.running.add(number)
        self.most = max(self.most, len(self.running))
        try:
            await sleep(1 + number % 2)
            self.finished.append(number)
            return number
        except asyncio.CancelledError:
            await yield_now()
            raise
        finally:
            self.running.discard(number)


class Pull:
    """Pulls a stream to its end, and rests after each item."""

    def __init__(self, stream: Stream[Any], *, rest: float | None = None) -> None:
        self.stream = stream
        self.rest = rest
        self.seen: list[Any] = []
        self.cut = 0
        """How often it failed because a task within it was cancelled."""

    async def __call__(self) -> None:
        while True:
            try:
                self.seen.append(await anext(self.stream))
                if self.rest is not None:
                    await sleep(self.rest)
            except StopAsyncIteration:
                return
            except asyncio.CancelledError:
                if is_cancelled():
                    raise
                self.cut += 1

    async def in_a_task_and_then_here(self) -> None:
        async with self.stream:
            await ended([asyncio.create_task(self())])
            await self()
        assert self.cut <= 1


async def runs_calls(limit: int, ordered: bool, waits: bool) -> None:
    """At most `limit` calls run or wait to be given, each result comes once, in order; no pull loses any."""
    work = Works()
    numbers = work.source(5, waits=waits).map(work.call)
    pull = Pull(numbers.buffered(limit) if ordered else numbers.buffered_unordered(limit))
    work.room = lambda: limit - work.pulled + len(pull.seen)
    await pull.in_a_task_and_then_here()
    assert not work.running and not work.open
    expected = sorted(pull.seen) if ordered else work.finished
    assert pull.seen == expected[: len(pull.seen)]
    assert pull.cut or sorted(pull.seen) == [0, 1, 2, 3, 4]


async def runs_ahead(limit: int) -> None:
    """At most `limit` items wait while the consumer is busy, and each is given once, in order."""
    work = Works()
    pull = Pull(work.source(5, waits=True).prefetch(limit), rest=30)
    work.room = lambda: limit - work.pulled + len(pull.seen)
    await pull.in_a_task_and_then_here()
    assert not work.open
    assert pull.seen == [0, 1, 2, 3, 4][: len(pull.seen)]
    assert pull.cut or len(pull.seen) == 5


async def zips() -> None:
    """Each source is asked once per round, and no pull that is cancelled loses what has come of one."""
    works = [Works() for _ in range(3)]
    sources = [work.source(4, waits=number < 2) for number, work in enumerate(works)]
    pull = Pull(streams.zip_concurrently(*sources))
    for work in works:
        work.room = lambda work=work: 1 - work.pulled + len(pull.seen)  # type: ignore[misc]
    await pull.in_a_task_and_then_here()
    assert not any(work.open for work in works)
    assert pull.seen == [(number,) * 3 for number in range(len(pull.seen))]
    assert pull.cut or len(pull.seen) == 4


async def calls_for_each(waits: bool) -> None:
    """At most two calls run at a time; when it is over, however, none runs, and the source is closed."""
    work = Works()
    work.room = lambda: 2 - len(work.running)

    async def call_all() -> None:
        try:
            await work.source(5, waits=waits).for_each(work.call, concurrency=2)
        finally:
            assert not work.running and not work.open
        assert sorted(work.finished) == [0, 1, 2, 3, 4]

    await ended([asyncio.create_task(call_all())])
    assert work.most <= 2


async def gathers_chunks(count: int) -> None:
    """Each item comes once, in order, in a chunk that is not empty, not too long and not late."""
    work = Works()

    def check(chunk: list[int]) -> list[int]:
        assert 1 <= len(chunk) <= count
        assert time() - work.came[chunk[0]] <= 1
        return chunk

    pull = Pull(work.source(5, waits=True).chunks_timeout(count, 1).map(check))
    await pull.in_a_task_and_then_here()
    assert not work.open
    items = [item for chunk in pull.seen for item in chunk]
    assert items == [0, 1, 2, 3, 4][: len(items)]
    assert pull.cut or len(items) == 5


async def calls_one_by_one() -> None:
    """A pull that is cancelled, in the source, in a call or behind it, loses nothing that the source did not lose."""
    work = Works()
    sender, receiver = channel[int](1)

    async def send() -> None:
        for number in range(5):
            await sender.send(number)
            sent.append(number)

    async def is_wanted(number: int) -> bool:
        return await work.call(number) != 3

    sent: list[int] = []
    pull = Pull(streams.iter(receiver).map(work.call).filter(is_wanted).enumerate().chunks(2))
    sending = asyncio.create_task(send())
    sending.add_done_callback(lambda _: sender.close())
    await pull.in_a_task_and_then_here()
    await ended([sending])
    assert receiver.is_closed
    items = [item for chunk in pull.seen for item in chunk]
    assert [number for number, _ in items] == list(range(len(items)))
    # A `send` that was cancelled after the hand-over has sent its item.
    wanted = [number for number in (*sent, len(sent)) if number != 3]
    assert [item for _, item in items] in (wanted, [number for number in sent if number != 3])


Leave = Callable[[Works], Stream[Any]]
left: dict[str, Leave] = {
    "buffered": lambda work: work.source(9, waits=False).map(work.call).buffered(3),
    "buffered, a feeder": lambda work: work.source(9, waits=True).map(work.call).buffered(3),
    "buffered_unordered": lambda work: work.source(9, waits=False).map(work.call).buffered_unordered(3),
    "buffered_unordered, a feeder": lambda work: work.source(9, waits=True).map(work.call).buffered_unordered(3),
    "prefetch": lambda work: work.source(9, waits=True).prefetch(2),
    "zip_concurrently": lambda work: streams.zip_concurrently(
        work.source(9, waits=True), work.source(9, waits=False), work.source(8, waits=True)
    ),
    "chunks_timeout": lambda work: work.source(9, waits=True).chunks_timeout(2, 1),
    "two buffers": lambda work: work.source(9, waits=True).map(work.call).buffered(2).map(work.call).buffered(2),
}


async def leaves(name: str) -> None:
    """Who leaves early, in whatever way, leaves nothing behind that runs, and a source that is closed."""
    work = Works()

    async def consume() -> None:
        try:
            async with left[name](work) as stream:
                async for _ in stream:
                    if work.pulled > 3:
                        break
        finally:
            assert not work.running
            assert not work.open

    async def take() -> None:
        try:
            await left[name](work).take(1).collect()
        finally:
            assert not work.running
            assert not work.open

    for leave in (consume, take):
        task = asyncio.create_task(leave())
        await asyncio.wait([task])
        if task.cancelled():
            continue
        task.result()


scenarios: dict[str, Scenario] = {
    "buffered": partial(runs_calls, 2, True, False),
    "buffered, a feeder": partial(runs_calls, 2, True, True),
    "buffered_unordered": partial(runs_calls, 3, False, False),
    "buffered_unordered, a feeder": partial(runs_calls, 2, False, True),
    "prefetch": partial(runs_ahead, 1),
    "prefetch, more": partial(runs_ahead, 3),
    "zip_concurrently": zips,
    "for_each": partial(calls_for_each, False),
    "for_each, a feeder": partial(calls_for_each, True),
    "chunks_timeout": partial(gathers_chunks, 2),
    "one by one": calls_one_by_one,
    **{f"left early: {name}": partial(leaves, name) for name in left},
}


@pytest.mark.parametrize("name", scenarios)
def test_in_any_order(name: str) -> None:
    explore(scenarios[name], runs=30)


@pytest.mark.parametrize("name", scenarios)
def test_cancelled_anywhere(name: str) -> None:
    explore_cancellations(scenarios[name], runs=60)
