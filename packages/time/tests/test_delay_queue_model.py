"""Delay queues against a plain list: what comes, when, and to whom."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from yamanote.time import DelayQueue, DelayQueueClosed

seconds = st.sampled_from([-1.0, 0.0, 1.0, 1.0, 2.0, 5.0, 60.0])


class StandingLoop(asyncio.SelectorEventLoop):
    """Time passes when the test says so."""

    now = 100.0

    def time(self) -> float:
        return self.now

    def settle(self) -> None:
        async def turn() -> None:
            for _ in range(5):
                await asyncio.sleep(0)

        self.run_until_complete(turn())


@dataclass
class Party:
    """A call of `recv`, and what it has to return; the end is -1."""

    call: asyncio.Task[int]
    gets: list[int] = field(default_factory=list)


class DelayQueues(RuleBasedStateMachine):
    keys: Bundle[int] = Bundle("keys")

    def __init__(self) -> None:
        super().__init__()
        self.loop = StandingLoop()
        self.queue: DelayQueue[int] = DelayQueue()
        self.items: list[tuple[float, int, int]] = []
        """Deadline, the how manyeth setting of one, and the item, which is its own key."""
        self.turns = 0
        self.inserted = 0
        self.closed = False
        self.parties: list[Party] = []
        self.parked: deque[Party] = deque()

    def teardown(self) -> None:
        for party in self.parties:
            party.call.cancel()
        self.loop.settle()
        self.loop.close()

    def serve(self) -> None:
        self.items.sort()
        while self.parked:
            if self.items and self.items[0][0] <= self.loop.now:
                self.parked.popleft().gets.append(self.items.pop(0)[2])
            elif self.closed and not self.items:
                self.parked.popleft().gets.append(-1)
            else:
                break
        self.loop.settle()

    def set_deadline(self, item: int, delay: float) -> None:
        self.items = [each for each in self.items if each[2] != item]
        self.turns += 1
        self.items.append((self.loop.now + delay, self.turns, item))
        self.serve()

    @rule(target=keys, delay=seconds)
    def insert(self, delay: float) -> int:
        item = self.inserted
        self.inserted += 1

        async def call() -> None:
            try:
                assert self.queue.insert(item, delay, key=item) == item
            except DelayQueueClosed:
                assert self.closed
            else:
                assert not self.closed

        self.loop.run_until_complete(call())
        if not self.closed:
            self.set_deadline(item, delay)
        return item

    @rule(key=keys, delay=seconds)
    def reset(self, key: int, delay: float) -> None:
        async def call() -> bool:
            try:
                self.queue.reset(key, delay)
            except KeyError:
                return False
            return True

        assert self.loop.run_until_complete(call()) is self.has(key)
        if self.has(key):
            self.set_deadline(key, delay)

    @rule(key=consumes(keys))
    def remove(self, key: int) -> None:
        async def call() -> bool:
            try:
                return self.queue.remove(key) == key
            except KeyError:
                return False

        assert self.loop.run_until_complete(call()) is self.has(key)
        self.items = [each for each in self.items if each[2] != key]
        self.serve()

    @rule()
    def receive(self) -> None:
        party = Party(self.loop.create_task(self.queue.recv()))
        self.parties.append(party)
        self.parked.append(party)
        self.serve()

    @precondition(lambda self: self.parked)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        party = data.draw(st.sampled_from(list(self.parked)))
        self.parked.remove(party)
        self.parties.remove(party)
        party.call.cancel()
        self.loop.settle()
        assert party.call.cancelled()

    @rule(delay=seconds.filter(lambda delay: delay > 0))
    def pass_time(self, delay: float) -> None:
        self.loop.now += delay
        self.serve()

    @precondition(lambda self: self.inserted > 6)
    @rule()
    def close(self) -> None:
        async def call() -> None:
            self.queue.close()

        self.loop.run_until_complete(call())
        self.closed = True
        self.serve()

    def has(self, item: int) -> bool:
        return any(each[2] == item for each in self.items)

    @invariant()
    def everybody_has_what_is_due(self) -> None:
        for party in self.parties:
            assert party.call.done() is bool(party.gets)
            if party.gets == [-1]:
                assert isinstance(party.call.exception(), DelayQueueClosed)
            elif party.gets:
                assert [party.call.result()] == party.gets

    @invariant()
    def the_queue_holds_the_others(self) -> None:
        assert len(self.queue) == len(self.items)
        assert all(item in self.queue for _, _, item in self.items)
        first = self.queue.peek()
        if not self.items:
            assert first is None
        else:
            deadline, _, item = min(self.items)
            assert first == (item, item, deadline)


TestDelayQueues = DelayQueues.TestCase
TestDelayQueues.settings = settings(max_examples=30, stateful_step_count=30, deadline=None, derandomize=True)
