"""Streams and sinks in any order of their steps, and cancelled at each of their awaits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from yamanote import streams
from yamanote.channels import channel
from yamanote.runtime import yield_now
from yamanote.sinks import SenderSink, Sink, SinkClosed
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
    """Pulls a stream to its end."""

    def __init__(self, stream: Stream[Any]) -> None:
        self.stream = stream
        self.seen: list[Any] = []
        self.cut = 0
        """How often it failed because a task within it was cancelled."""

    async def __call__(self) -> None:
        while True:
            try:
                self.seen.append(await anext(self.stream))
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


class Store(Sink[int]):
    """Accepts one item at a time, slowly."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.items: list[int] = []
        self.fails_at = fails_at
        self.busy = False
        self.closed = 0

    async def feed(self, item: int) -> None:
        assert not self.busy and not self.closed
        self.busy = True
        try:
            await sleep(item % 2)
            if item == self.fails_at:
                raise OSError(f"{item} was too much")
            self.items.append(item)
        finally:
            self.busy = False

    async def flush(self) -> None:
        await yield_now()

    async def close(self) -> None:
        try:
            await yield_now()
        finally:
            self.closed += 1


async def stores(make: Callable[[Store], Sink[int]], late: bool) -> None:
    """What was accepted has arrived, in order, after a flush, and after closing; or a call said why not."""
    store = Store()
    sink = make(store)
    accepted: list[int] = []
    reported: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))

    async def feed(start: int) -> None:
        try:
            for number in range(start, start + 3):
                await sink.feed(number)
                accepted.append(number)
        except SinkClosed:
            pass
        except RuntimeError as error:
            reported.append(error)

    async def flush() -> None:
        await sleep(1)
        before = accepted.copy()
        try:
            await sink.flush()
        except SinkClosed:
            pass
        except RuntimeError as error:
            reported.append(error)
        else:
            assert {*before} <= {*store.items}

    async def close() -> None:
        if late:
            await ended(feeding)
        await sleep(1)
        await close_here()

    async def close_here() -> None:
        try:
            await sink.close()
        except RuntimeError as error:
            reported.append(error)

    feeding = [asyncio.create_task(feed(start)) for start in (0, 10)]
    await ended([*feeding, asyncio.create_task(flush()), asyncio.create_task(close())])
    await close_here()
    assert store.closed
    assert store.items == accepted[: len(store.items)]
    assert reported or store.items == accepted


async def fans_out(fails_at: int | None) -> None:
    """Every sink gets the same items in the same order, those that were accepted among them, whatever the others do."""
    good, other = Store(), Store(fails_at)
    sink = other.fanout(good)
    accepted: list[int] = []
    errors: set[BaseException] = set()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.add(context["exception"]))

    async def feed(start: int) -> None:
        try:
            for number in range(start, start + 2):
                await sink.feed(number)
                accepted.append(number)
        except OSError as error:
            errors.add(error)

    async def close() -> None:
        try:
            await sink.close()
        except (OSError, RuntimeError) as error:
            errors.add(error)

    await ended([asyncio.create_task(feed(start)) for start in (0, 10)])
    await ended([asyncio.create_task(close())])
    await close()
    failures = {error for error in errors if isinstance(error, OSError)}
    place = good.items.index(fails_at) if fails_at in good.items else len(good.items)
    assert len(failures) <= 1
    if errors == failures:  # else a task that closes was cancelled, which was told
        assert {*accepted} <= {*good.items}
        assert other.items == good.items[:place]
        assert good.items[place:] == [fails_at] * len(failures)
        assert good.closed and other.closed


async def sends() -> None:
    """What `feed` has accepted is received, once and in order; what it has not accepted was not sent."""
    sender, receiver = channel[int](1)
    sink = SenderSink(sender)
    accepted: list[int] = []
    seen: list[int] = []

    async def feed(start: int) -> None:
        for number in range(start, start + 3):
            await sink.feed(number)
            accepted.append(number)

    async def receive() -> None:
        async for number in receiver:
            seen.append(number)

    feeding = [asyncio.create_task(feed(start)) for start in (0, 10)]
    for task in feeding:
        task.add_done_callback(lambda _: all(task.done() for task in feeding) and sender.close())
    await ended([asyncio.create_task(receive())])
    await receive()
    await ended(feeding)
    await sink.close()
    receiver.close()
    assert seen == accepted


async def forwards() -> None:
    """However it ends, the source is closed then, and the sink is being closed; what it accepted arrives, in order."""
    work, store = Works(), Store()

    async def double(number: int) -> int:
        await yield_now()
        return 2 * number

    async def forward() -> None:
        try:
            await work.source(4, waits=True).forward(sink)
        finally:
            assert not work.open
        assert store.items == [0, 2, 4, 6] and store.closed

    sink = store.buffer(1).with_map(double)
    forwarding = asyncio.create_task(forward())
    with suppress(RuntimeError):  # the task of the buffer was cancelled
        await ended([forwarding])
    with suppress(RuntimeError):
        await sink.close()
    assert store.closed
    assert store.items == [0, 2, 4, 6][: len(store.items)]


scenarios: dict[str, Scenario] = {
    "buffered": partial(runs_calls, 2, True, False),
    "buffered, a feeder": partial(runs_calls, 2, True, True),
    "buffered_unordered": partial(runs_calls, 3, False, False),
    "buffered_unordered, a feeder": partial(runs_calls, 2, False, True),
    "chunks_timeout": partial(gathers_chunks, 2),
    "one by one": calls_one_by_one,
    **{f"left early: {name}": partial(leaves, name) for name in left},
    "buffer": partial(stores, lambda store: store.buffer(1), True),
    "buffer, closed early": partial(stores, lambda store: store.buffer(2), False),
    "two buffers": partial(stores, lambda store: store.buffer(1).buffer(1), True),
    "fanout": partial(fans_out, None),
    "fanout, an error": partial(fans_out, 1),
    "sender": sends,
    "forward": forwards,
}


@pytest.mark.parametrize("name", scenarios)
def test_in_any_order(name: str) -> None:
    explore(scenarios[name], runs=30)


@pytest.mark.parametrize("name", scenarios)
def test_cancelled_anywhere(name: str) -> None:
    explore_cancellations(scenarios[name], runs=60)
