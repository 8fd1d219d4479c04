"""Streams of several operators against lists, and the buffer of a sink against a queue."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from itertools import accumulate, dropwhile, groupby, takewhile
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from yamanote import streams
from yamanote.channels import channel
from yamanote.sinks import Sink, SinkClosed
from yamanote.streams import Stream


async def turn(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


# Streams

Operator = tuple[Callable[[Stream[Any]], Stream[Any]], Callable[[list[Any]], list[Any]]]
"""What is applied to a stream, and what that does to a list."""


async def tag(item: Any) -> Any:
    await turn(len(str(item)) % 2)
    return ("tagged", item)


def is_wanted_now(item: Any) -> bool:
    return len(str(item)) % 3 > 0


async def is_wanted(item: Any) -> bool:
    await turn(1)
    return is_wanted_now(item)


async def join(text: str, item: Any) -> str:
    await turn(1)
    return text + str(item)


def in_chunks(items: list[Any], count: int) -> list[Any]:
    return [items[start : start + count] for start in range(0, len(items), count)]


counts = st.integers(1, 4)
operators: st.SearchStrategy[Operator] = st.one_of(
    st.just((lambda s: s.map(tag), lambda items: [("tagged", item) for item in items])),
    st.just((lambda s: s.map(str), lambda items: [*map(str, items)])),
    st.just((lambda s: s.enumerate(), lambda items: [*enumerate(items)])),
    st.just((lambda s: s.filter(is_wanted), lambda items: [*filter(is_wanted_now, items)])),
    counts.map(lambda n: (lambda s: s.take(n), lambda items: items[:n])),
    counts.map(lambda n: (lambda s: s.skip(n), lambda items: items[n:])),
    st.just((lambda s: s.scan("", join), lambda items: [*accumulate(map(str, items))])),
    st.just((lambda s: s.take_while(is_wanted), lambda items: [*takewhile(is_wanted_now, items)])),
    st.just((lambda s: s.skip_while(is_wanted), lambda items: [*dropwhile(is_wanted_now, items)])),
    st.just((lambda s: s.dedup(is_wanted), lambda items: [next(row) for _, row in groupby(items, is_wanted_now)])),
    counts.map(lambda n: (lambda s: s.chunks(n), lambda items: in_chunks(items, n))),
    counts.map(lambda n: (lambda s: s.chunks_timeout(n, 1000), lambda items: in_chunks(items, n))),
    counts.map(lambda n: (lambda s: s.map(tag).buffered(n), lambda items: [("tagged", item) for item in items])),
    st.just((lambda s: s.map(tag).buffered_unordered(1), lambda items: [("tagged", item) for item in items])),
)
sources = st.sampled_from(["a list", "a generator", "an async generator", "a channel"])


def source_of(kind: str, items: list[int]) -> Stream[int]:
    async def generate() -> AsyncIterator[int]:
        for item in items:
            yield item

    if kind == "a channel":
        sender, receiver = channel[int](len(items) + 1)
        with sender:
            for item in items:
                sender.send_nowait(item)
        return streams.iter(receiver)
    if kind == "an async generator":
        return streams.iter(generate())
    return streams.iter(items if kind == "a list" else (item for item in items))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    kind=sources,
    length=st.integers(0, 9),
    chain=st.lists(operators, max_size=4),
    patience=st.lists(st.integers(0, 6), max_size=6),
)
def test_a_stream_gives_what_a_list_gives_however_often_its_pulls_are_cancelled(
    kind: str, length: int, chain: list[Operator], patience: list[int]
) -> None:
    async def main() -> list[Any]:
        stream = source_of(kind, [*range(length)])
        for apply, _ in chain:
            stream = apply(stream)
        seen: list[Any] = []

        async def pull() -> None:
            async for item in stream:
                seen.append(item)

        async with stream:
            for turns in patience:
                pulling = asyncio.create_task(pull())
                await turn(turns)
                pulling.cancel()
                await asyncio.wait([pulling])
            await pull()
        assert len(asyncio.all_tasks()) == 1
        return seen

    expected: list[Any] = [*range(length)]
    for _, apply in chain:
        expected = apply(expected)
    assert asyncio.run(main()) == expected


# The buffer of a sink


class Gate(Sink[int]):
    """Accepts as many items as it is told to."""

    def __init__(self) -> None:
        self.items: list[int] = []
        self.places = asyncio.Semaphore(0)
        self.closed = 0

    def open(self, places: int) -> None:
        for _ in range(places):
            self.places.release()

    async def feed(self, item: int) -> None:
        await self.places.acquire()
        self.items.append(item)

    async def flush(self) -> None:
        pass

    async def close(self) -> None:
        self.closed += 1


@dataclass(eq=False)
class Call:
    """A call of the buffer, and how it has to end; None while it has to wait."""

    task: asyncio.Task[Any]
    item: int | None = None
    """None for a flush."""
    end: str | None = None


class Buffers(RuleBasedStateMachine):
    @initialize(capacity=st.integers(1, 3))
    def begin(self, capacity: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.capacity = capacity
        self.gate = Gate()
        self.sink = self.gate.buffer(capacity)
        self.numbers = 0
        self.places = 0
        self.hand: Call | None = None
        self.queue: deque[Call] = deque()
        self.parked: deque[Call] = deque()
        self.calls: list[Call] = []
        self.arrived: list[int] = []
        self.closing: list[asyncio.Task[None]] = []
        self.late: list[Call] = []
        """Flushes that had not found room when the sink was closed: they end with that."""

    def teardown(self) -> None:
        self.gate.open(1000)
        self.loop.run_until_complete(self.sink.close())
        for call in self.calls:
            call.task.cancel()
        self.settle()
        self.loop.close()

    def settle(self) -> None:
        self.loop.run_until_complete(turn(20))

    def serve(self) -> None:
        """The model: one item in the hand, as many as there is room for behind it, and in order all the others."""
        while True:
            if self.hand is not None and self.hand.item is None:
                self.hand.end = self.hand.end or "flushed"
                self.hand = None
            elif self.hand is not None and self.hand.item is not None and self.places:
                self.places -= 1
                self.arrived.append(self.hand.item)
                self.hand = None
            elif self.hand is None and self.queue:
                self.hand = self.queue.popleft()
            elif self.parked and len(self.queue) < self.capacity:
                call = self.parked.popleft()
                if call.item is not None:
                    call.end = "accepted"
                self.queue.append(call)
            else:
                break
        if self.closing and self.hand is None:
            for call in self.late:
                call.end = "flushed"
        self.settle()

    async def call(self, item: int | None) -> str:
        try:
            if item is None:
                await self.sink.flush()
                return "flushed"
            await self.sink.feed(item)
            return "accepted"
        except SinkClosed:
            return "closed"

    @rule(is_flush=st.booleans())
    def feed_or_flush(self, is_flush: bool) -> None:
        self.numbers += 1
        item = None if is_flush else self.numbers
        call = Call(self.loop.create_task(self.call(item)), item)
        self.calls.append(call)
        if self.closing:
            call.end = "closed"
        elif is_flush and self.numbers_fed == 0:
            call.end = "flushed"  # nothing has been accepted
        else:
            self.parked.append(call)
        self.serve()

    @property
    def numbers_fed(self) -> int:
        return sum(call.item is not None for call in self.calls)

    @rule(places=st.integers(1, 3))
    def make_room(self, places: int) -> None:
        self.places += places
        self.gate.open(places)
        self.serve()

    @precondition(lambda self: any(call.end is None for call in self.calls))
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from([call for call in self.calls if call.end is None]))
        call.task.cancel()
        self.calls.remove(call)
        if call in self.parked:
            self.parked.remove(call)
        self.serve()

    @rule(is_time=st.integers(0, 7).map(lambda number: number == 7))
    def close(self, is_time: bool) -> None:
        if is_time:
            self.closing.append(self.loop.create_task(self.sink.close()))
            for call in self.parked:
                if call.item is None:
                    self.late.append(call)
                else:
                    call.end = "closed"
            self.parked.clear()
            self.serve()

    @invariant()
    def the_buffer_is_what_the_model_is(self) -> None:
        assert self.gate.items == self.arrived
        for call in self.calls:
            assert call.task.done() is (call.end is not None)
            assert call.end is None or call.task.result() == call.end
        over = bool(self.closing) and self.hand is None
        assert all(closing.done() is over for closing in self.closing)
        assert bool(self.gate.closed) is over


TestBuffers = Buffers.TestCase
TestBuffers.settings = settings(max_examples=30, stateful_step_count=25, deadline=None, derandomize=True)
