"""Ticker: a schedule of instants, each for one of those who wait for the next tick.

Invariant: tick n is due at origin + n * period, computed from the schedule and never from when the last one was taken,
so that nothing drifts; a tick counts as taken when it is handed to a party, and a party that gives up hands it back.

A tick that is handed over late moves the schedule as `MissedTickBehavior` says; only that and the resets move it.
"""

from __future__ import annotations

import enum
from bisect import insort
from typing import TypeAlias

from yamanote.runtime import Waiter
from yamanote.time._timetable import Timetable

__all__ = ["MissedTickBehavior", "Ticker"]

LATE = 0.005
"""A tick handed over later than this many seconds is a missed one. Tokio's figure: no loop wakes up to the microsecond,
and without a tolerance `MissedTickBehavior.DELAY` would drift with each of its wake-ups."""

_COUNTABLE = 2.0**53
"""Above this, floats do not hold all whole numbers."""

_Schedule: TypeAlias = tuple[float | None, int]
_Tick: TypeAlias = tuple[float, int, _Schedule, _Schedule]
"""When it was due, the epoch, and the origin and the count before and after it was taken."""


class MissedTickBehavior(enum.Enum):
    """What an interval does with the ticks that fell due while nobody took them.

    It applies when a tick is taken more than five milliseconds after it was due.
    """

    BURST = "burst"
    """Hand them over one after the other, at once, until the schedule has caught up."""
    DELAY = "delay"
    """Hand over one, then go on one period after it was taken: the schedule moves."""
    SKIP = "skip"
    """Hand over one, then go on at the next instant of the original schedule that is still to come."""


class Ticker(Timetable[float]):
    """The engine of everything periodic. `start` is the first instant; None means when a tick is first asked for."""

    __slots__ = ("_count", "_epoch", "_missed", "_origin", "_period", "_returned")

    def __init__(self, start: float | None, period: float, missed: MissedTickBehavior) -> None:
        super().__init__()
        self._origin = start
        self._period = period
        self._missed = missed
        self._count = 0  # of the next tick, from the origin
        self._epoch = 0  # a tick handed over before a reset does not come back after it
        self._returned: list[float] = []

    def _restart(self, start: float, count: int = 0) -> None:
        """Begin a new schedule: the next tick is due at `start` + `count` * period."""
        self._require_loop()
        self._origin = start
        self._count = count
        self._epoch += 1
        self._returned.clear()
        self._changed()

    def _take(self, now: float) -> float | None:
        """Take the tick that is due at `now` and return its scheduled instant; None when none is due."""
        if self._returned:
            return self._returned.pop(0)
        origin = self._origin
        if origin is None:
            origin = self._origin = now
        due = origin + self._count * self._period
        if due > now:
            return None
        if now <= due + LATE or self._missed is MissedTickBehavior.BURST:
            self._count += 1
        elif self._missed is MissedTickBehavior.DELAY:
            self._origin = now
            self._count = 1
        else:
            # Rounding may put the quotient on either side of a whole number: begin at or below it, then look.
            count = int(min((now - origin) / self._period, _COUNTABLE))
            for self._count in range(count, count + 3):
                if origin + self._count * self._period > now:
                    break
            else:  # floats cannot tell the instants of this schedule from each other any more
                self._origin = now
                self._count = 1
        return due

    def _next_due(self, now: float) -> float:
        if self._returned:
            return self._returned[0]
        if self._origin is None:
            self._origin = now
        return self._origin + self._count * self._period

    def _take_due(self, now: float) -> _Tick | None:
        before = (self._origin, self._count)
        due = self._take(now)
        return None if due is None else (due, self._epoch, before, (self._origin, self._count))

    def _hand_over(self, waiter: Waiter[float], taken: _Tick) -> None:
        waiter.settle(taken[0])

    def _give_back(self, taken: _Tick) -> None:
        due, epoch, before, after = taken
        if epoch != self._epoch:  # that schedule is over
            return
        if (self._origin, self._count) == after != before:
            self._origin, self._count = before
        else:  # later ticks have been taken since, or this one had come back before
            insort(self._returned, due)
