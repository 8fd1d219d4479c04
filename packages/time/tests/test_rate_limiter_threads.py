"""One limiter for the loops of two threads: whatever comes between, no permit comes twice and nobody sleeps on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from yamanote.runtime import TaskWaiter
from yamanote.testing import Counterexample, explore_preemptions
from yamanote.time import RateLimiter

Operation = Callable[[], object]


class StandingLoop(asyncio.SelectorEventLoop):
    """Its time is what the test says."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def call(self, operation: Callable[[], object]) -> None:
        """As one of its callbacks, but right now."""
        asyncio._set_running_loop(self)
        try:
            operation()
        finally:
            asyncio._set_running_loop(None)


class Race:
    """Two loops, a limiter with permits that are due, and one party of each loop that comes to wait."""

    def __init__(self, due: int) -> None:
        self.due = due
        self.loops = [StandingLoop(), StandingLoop()]
        self.limiter = RateLimiter(1, burst=2)
        self.parties: list[TaskWaiter[None]] = []
        self.loops[0].call(partial(self.limiter.try_acquire, 2 - due))
        for loop in self.loops:
            loop.call(lambda: self.parties.append(TaskWaiter()))

    def come(self, number: int) -> None:
        self.loops[number].call(partial(self.limiter.register, self.parties[number]))

    def check(self) -> None:
        try:
            assert sum(party.settled for party in self.parties) == self.due, "not what is due"
            for now in (1.0, 2.0):
                for loop in self.loops * 2:  # the one may have left a call for the other
                    loop.now = now
                    loop.run_until_complete(asyncio.sleep(0))
                    loop.run_until_complete(asyncio.sleep(0))
            assert all(party.settled for party in self.parties), "somebody sleeps on"
        finally:
            for loop in self.loops:
                loop.close()


def both_come(due: int) -> tuple[Operation, Operation, Operation]:
    race = Race(due)
    return partial(race.come, 0), partial(race.come, 1), race.check


@pytest.mark.parametrize("due", [0, 1])
def test_one_preemption_anywhere(due: int) -> None:
    explore_preemptions(partial(both_come, due), within="yamanote.time._rate_limiter")


def comes_and_is_claimed_elsewhere() -> tuple[Operation, Operation, Operation]:
    race = Race(1)
    other_branch = race.parties[0].branch()
    claimed: list[bool] = []

    def check() -> None:
        for loop in race.loops:
            loop.close()
        assert race.parties[0].settled is not claimed[0]
        assert race.limiter._taken == 1 + race.parties[0].settled

    claim = partial(race.loops[0].call, lambda: claimed.append(other_branch.claim()))
    return partial(race.come, 0), claim, check


def test_who_is_claimed_elsewhere_takes_no_permit() -> None:
    explore_preemptions(comes_and_is_claimed_elsewhere, within="yamanote.time._rate_limiter")


class ClosingLoop(StandingLoop):
    """A loop that is closed at the very moment when another thread has something for it."""

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> asyncio.Handle:
        self.close()
        return super().call_soon_threadsafe(*args, **kwargs)


def test_a_loop_that_is_closed_when_it_is_its_turn_is_passed_over() -> None:
    loop, closing = StandingLoop(), ClosingLoop()
    limiter = RateLimiter(1)
    parties: list[TaskWaiter[None]] = []

    def come() -> None:
        parties.append(TaskWaiter())
        limiter.register(parties[-1])

    loop.call(limiter.try_acquire)
    loop.call(come)
    closing.call(come)
    loop.call(come)
    parties[0].claim()
    loop.call(partial(limiter.withdraw, parties[0]))
    assert closing.is_closed()
    loop.now = 1.0
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert not parties[1].settled and parties[2].settled


def test_a_loop_that_is_not_told_of_its_turn_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    wake_at = RateLimiter._wake_at

    def on_this_loop_only(limiter: RateLimiter, due: float, loop: asyncio.AbstractEventLoop) -> bool:
        return asyncio._get_running_loop() is not loop or wake_at(limiter, due, loop)

    monkeypatch.setattr(RateLimiter, "_wake_at", on_this_loop_only)
    with pytest.raises(Counterexample) as found:
        explore_preemptions(partial(both_come, 0), within="yamanote.time._rate_limiter")
    assert "sleeps on" in str(found.value.__cause__)
