"""Streams of one source for several subscribers, against positions in a list."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from yamanote import streams
from yamanote.channels import Lagged
from yamanote.runtime import yield_now
from yamanote.streams import Stream

from .test_every_operator import Source, virtually

END = "the end"
LENGTH = 6

Command = Literal["subscribe", "leave", "pull", "pull on", "cancel"]


@dataclass(eq=False)
class Subscriber:
    """A stream and its model."""

    stream: Stream[int]
    position: int
    pull: asyncio.Task[int] | None = None
    over: bool = False


class Sharing:
    """What a shared stream is to do: everybody moves along the items; `given` of them have been pulled.

    Where the slowest is waited for, the source may be pulled ahead; then `given` is what has been, within bounds.
    """

    def __init__(self, capacity: int, replay: int, overflow: str) -> None:
        self.capacity = capacity
        self.replay = replay
        self.overflow = overflow
        self.subscribers: list[Subscriber] = []
        self.given = 0
        self.ended = False
        self.asked = False

    def subscribe(self, stream: Stream[int]) -> None:
        self.subscribers.append(Subscriber(stream, max(self.given - self.replay, 0)))

    def ahead(self) -> int:
        return self.given - min((s.position for s in self.present()), default=self.given)

    def pulled(self, given: int, ended: bool) -> None:
        """So many items have been pulled, as a look at the source says."""
        self.asked |= any(subscriber.pull is not None for subscriber in self.subscribers)
        if given > self.given or ended > self.ended:
            assert self.asked, "nobody has asked"
            self.given = given
            self.ended = ended
            for subscriber in self.present():
                if subscriber.pull is not None:  # will move on by one
                    subscriber.position += 1
            assert self.ahead() <= self.capacity, "too far ahead of the slowest"
            for subscriber in self.present():
                if subscriber.pull is not None:
                    subscriber.position -= 1

    def present(self) -> list[Subscriber]:
        return [subscriber for subscriber in self.subscribers if not subscriber.over]

    def answers(self) -> dict[Subscriber, Any]:
        """What those are told who ask, and can be told something."""
        told: dict[Subscriber, Any] = {}
        while asking := [s for s in self.subscribers if s.pull is not None and s not in told]:
            for subscriber in asking:
                answer = self.answer(subscriber)
                if answer is not None:
                    told[subscriber] = answer
            if not any(subscriber in told for subscriber in asking):
                if self.overflow == "suspend":
                    assert self.ahead() >= self.capacity, "there is room"
                    break
                if self.given == LENGTH:
                    self.ended = True
                else:
                    self.given += 1
        return told

    def answer(self, subscriber: Subscriber) -> Any:
        missed = self.given - self.capacity - subscriber.position
        if subscriber.over:
            return END
        if self.overflow != "suspend" and missed > 0:
            if self.overflow == "lag":
                subscriber.over = True
                return ("lagged", missed)
            subscriber.position += missed
        if subscriber.position < self.given:
            subscriber.position += 1
            return subscriber.position - 1
        if self.ended:
            subscriber.over = True
            return END
        return None


async def settle() -> None:
    for _ in range(20):
        await yield_now()


async def outcome(pull: asyncio.Task[int]) -> Any:
    try:
        return await pull
    except StopAsyncIteration:
        return END
    except Lagged as lagged:
        return ("lagged", lagged.missed)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    capacity=st.integers(1, 3),
    replay=st.integers(0, 3),
    overflow=st.sampled_from(["suspend", "lag", "drop_oldest"]),
    first=st.integers(0, 3),
    fixed=st.booleans(),
    commands=st.lists(
        st.tuples(st.sampled_from(["subscribe", "leave", "pull", "pull", "pull on", "cancel"]), st.integers(0, 3)),
        min_size=10,
        max_size=30,
    ),
)
def test_everybody_gets_what_a_list_would_give(
    capacity: int, replay: int, overflow: Any, first: int, fixed: bool, commands: list[tuple[Command, int]]
) -> None:
    async def main() -> None:
        source = Source(list(range(LENGTH)), pace=0)
        if fixed:
            model = Sharing(capacity, 0, "suspend")
            for stream in streams.iter(source).broadcast(first + 1, capacity):
                model.subscribe(stream)
        else:
            model = Sharing(capacity, min(replay, capacity), overflow)
            shared = streams.iter(source).share(capacity, replay=model.replay, overflow=overflow)
            for _ in range(first):
                model.subscribe(shared.subscribe())
        left = False
        for command, which in commands:
            if command == "subscribe":
                if not fixed and not left:
                    model.subscribe(shared.subscribe())
                continue
            if not model.subscribers:
                continue
            subscriber = model.subscribers[which % len(model.subscribers)]
            asked = [subscriber]
            match command:
                case "leave":
                    if subscriber.pull is None:
                        await subscriber.stream.aclose()
                        subscriber.over = True
                case "pull" | "pull on":
                    if subscriber.pull is None:
                        subscriber.pull = asyncio.ensure_future(anext(subscriber.stream))
                    if command == "pull on":
                        asked = [s for s in model.subscribers if s.pull is None]
                        for other in asked:
                            other.pull = asyncio.ensure_future(anext(other.stream))
                case "cancel":
                    if subscriber.pull is not None:
                        subscriber.pull.cancel()
                        await asyncio.wait([subscriber.pull])
                        assert subscriber.pull.cancelled()
                        subscriber.pull = None
            await settle()
            left = not model.present() and not model.ended
            if model.overflow == "suspend":
                model.pulled(LENGTH - len(source.items), bool(source.closed) and not left)
            for answered, answer in model.answers().items():
                assert answered.pull is not None and answered.pull.done()
                assert await outcome(answered.pull) == answer
                answered.pull = None
            assert not any(s.pull is not None and s.pull.done() for s in model.subscribers)
            assert LENGTH - len(source.items) == model.given
            left = not model.present() and not model.ended
            assert source.closed == (left or model.ended)
        for subscriber in model.subscribers:
            if subscriber.pull is not None:
                subscriber.pull.cancel()
                await asyncio.wait([subscriber.pull])
            await subscriber.stream.aclose()
        if not fixed:
            await shared.aclose()
        assert source.closed == 1

    virtually(main)
