"""Intervals against arithmetic: what a schedule gives, whoever asks for it, and however late."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from yamanote.time import MissedTickBehavior, interval, interval_at

whole_seconds = st.sampled_from([0.0, 1.0, 2.0, 5.0, 10.0, 33.0])
behaviors = st.sampled_from(MissedTickBehavior)


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
    """A call of `tick`, and what it has to return; None while it has to wait."""

    call: asyncio.Task[float]
    due: float | None = None


class Intervals(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = StandingLoop()
        self.parties: list[Party] = []
        self.parked: deque[Party] = deque()

    def teardown(self) -> None:
        for party in self.parties:
            party.call.cancel()
        self.loop.settle()
        self.loop.close()

    @initialize(start=st.none() | st.integers(60, 140).map(float), period=st.sampled_from([1, 3, 10]), missed=behaviors)
    def begin(self, start: float | None, period: int, missed: MissedTickBehavior) -> None:
        self.period = float(period)
        self.missed = missed
        self.due = start
        self.ticks = interval(period, missed) if start is None else interval_at(start, period, missed)

    def take(self) -> float | None:
        """The model: the tick that is due, if one is; and when the next one will be."""
        now = self.loop.now
        due = self.due = now if self.due is None else self.due
        if due > now:
            return None
        if due == now or self.missed is MissedTickBehavior.BURST:
            self.due += self.period
        elif self.missed is MissedTickBehavior.DELAY:
            self.due = now + self.period
        else:
            self.due += self.period * ((now - due) // self.period + 1)
        return due

    def serve(self) -> None:
        while self.parked and (due := self.take()) is not None:
            self.parked.popleft().due = due
        self.loop.settle()

    @rule(seconds=whole_seconds)
    def ask(self, seconds: float) -> None:
        self.pass_time(seconds)
        party = Party(self.loop.create_task(self.ticks.tick()))
        self.parties.append(party)
        self.parked.append(party)
        self.serve()

    def pass_time(self, seconds: float) -> None:
        self.loop.now += seconds
        self.serve()

    @precondition(lambda self: len(self.parked) > 1)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        party = data.draw(st.sampled_from(list(self.parked)))
        self.parked.remove(party)
        self.parties.remove(party)
        party.call.cancel()
        self.serve()
        assert party.call.cancelled()

    @precondition(lambda self: len(self.parties) % 4 == 0)
    @rule(missed=behaviors)
    def behave(self, missed: MissedTickBehavior) -> None:
        self.ticks.missed = self.missed = missed

    @precondition(lambda self: len(self.parties) % 4 == 0)  # most schedules are to live for some ticks
    @rule(how=st.sampled_from(["reset", "now", "after", "at"]), seconds=whole_seconds)
    def reset(self, how: str, seconds: float) -> None:
        async def call() -> None:  # a reset asks the running loop for the time
            if how == "reset":
                self.ticks.reset()
            elif how == "now":
                self.ticks.reset_immediately()
            elif how == "after":
                self.ticks.reset_after(seconds)
            else:
                self.ticks.reset_at(100 + seconds)

        self.loop.run_until_complete(call())
        now = self.loop.now
        self.due = {"reset": now + self.period, "now": now, "after": now + seconds, "at": 100 + seconds}[how]
        self.serve()

    @invariant()
    def everybody_has_what_is_due(self) -> None:
        for party in self.parties:
            assert party.call.done() is (party.due is not None)
            assert party.due is None or party.call.result() == party.due


TestIntervals = Intervals.TestCase
TestIntervals.settings = settings(max_examples=30, stateful_step_count=25, deadline=None, derandomize=True)
