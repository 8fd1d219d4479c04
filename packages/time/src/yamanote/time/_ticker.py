"""Ticker: a schedule of instants, one timer at most, and the parties that wait for the next tick.

Invariant: tick n is due at origin + n * period, computed from the schedule and never from when the last one was taken,
so that nothing drifts; a tick counts as taken when it is handed to a party, first come, first served, and a party that
gives up hands it back. A timer is armed exactly while somebody is parked.

A tick that is handed over late moves the schedule as `MissedTickBehavior` says; only that and the resets move it.
"""

from __future__ import annotations

import enum
from asyncio import AbstractEventLoop, TimerHandle, get_running_loop
from bisect import insort
from collections import deque
from typing import Any

from yamanote.runtime import Waiter

__all__ = ["MissedTickBehavior", "Ticker"]

LATE = 0.005
"""A tick handed over later than this many seconds is a missed one. Tokio's figure: no loop wakes up to the microsecond,
and without a tolerance `MissedTickBehavior.DELAY` would drift with each of its wake-ups."""


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


class Ticker:
    """The engine of everything periodic. It runs on one loop at a time: the one whose tasks wait for it.

    `start` is the first instant; None means the moment when a tick is first asked for.
    """

    __slots__ = ("_count", "_epoch", "_loop", "_origin", "_period", "_returned", "_timer", "_waiters", "missed")

    missed: MissedTickBehavior

    def __init__(self, start: float | None, period: float, missed: MissedTickBehavior) -> None:
        self._origin = start
        self._period = period
        self._count = 0  # of the next tick, from the origin
        self._epoch = 0  # a tick handed over before a reset does not come back after it
        self._returned: list[float] = []
        self._waiters: deque[Waiter[float]] = deque()
        self._loop: AbstractEventLoop | None = None
        self._timer: TimerHandle | None = None
        self.missed = missed

    def restart(self, start: float, count: int = 0) -> None:
        """Begin a new schedule: the next tick is due at `start` + `count` * period."""
        self._origin = start
        self._count = count
        self._epoch += 1
        self._returned.clear()
        if self._waiters:
            self._arm()

    def take(self, now: float) -> float | None:
        """Take the tick that is due at `now` and return its scheduled instant; None when none is due."""
        if self._returned:
            return self._returned.pop(0)
        origin = self._origin
        if origin is None:
            origin = self._origin = now
        due = origin + self._count * self._period
        if due > now:
            return None
        if now - due <= LATE or self.missed is MissedTickBehavior.BURST:
            self._count += 1
        elif self.missed is MissedTickBehavior.DELAY:
            self._origin = now
            self._count = 1
        else:
            # Rounding may put the quotient on either side of a whole number: begin at or below it, then look.
            self._count = int((now - origin) / self._period)
            while origin + self._count * self._period <= now:
                self._count += 1
        return due

    def register(self, waiter: Waiter[Any], /) -> None:
        """Queue for the next tick. Raises RuntimeError outside of an event loop, or while another loop's tasks wait."""
        loop = get_running_loop()
        if loop is not self._loop:
            if self._waiters and not self._is_abandoned():
                raise RuntimeError("tasks of another event loop are waiting for this interval")
            self._loop = loop
        self._waiters.append(waiter)
        if len(self._waiters) == 1:
            self._serve(loop.time())

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        if waiter.settled:
            self._give_back(waiter)
        elif waiter in self._waiters:  # not skipped as dead in the meantime
            self._waiters.remove(waiter)
            if not self._waiters:
                self._disarm()

    def _serve(self, now: float) -> None:
        """Hand what is due at `now` to those who wait, then arm the timer for the others."""
        waiters = self._waiters
        while waiters and (self._returned or self._due(now) <= now):
            waiter = waiters.popleft()
            if not waiter.claim():
                continue
            before = (self._origin, self._count)
            due = self.take(now)
            waiter.operation = (self._epoch, before, (self._origin, self._count))
            if due is not None:
                waiter.settle(due)
        if waiters:
            self._arm()
        else:
            self._disarm()

    def _give_back(self, waiter: Waiter[float]) -> None:
        epoch, before, after = waiter.operation
        if epoch != self._epoch:  # that schedule is over
            return
        if (self._origin, self._count) == after != before:
            self._origin, self._count = before
        else:  # later ticks have been taken since, or this one had come back before
            insort(self._returned, waiter.value)
        if self._waiters and self._loop is not None:
            self._serve(self._loop.time())

    def _due(self, now: float) -> float:
        if self._origin is None:
            self._origin = now
        return self._origin + self._count * self._period

    def _is_abandoned(self) -> bool:
        """Whether the loop of those who wait has been closed: then they are forgotten, for they will never run."""
        if self._loop is not None and not self._loop.is_closed():
            return False
        self._waiters.clear()
        self._timer = None
        return True

    def _arm(self) -> None:
        self._disarm()
        if self._loop is not None and not self._is_abandoned():
            due = self._due(self._loop.time())
            self._timer = self._loop.call_at(due, self._fire, due)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self, due: float) -> None:
        self._timer = None
        if self._loop is not None:
            # A loop may call a timer early by the resolution of its clock; the tick is due all the same.
            self._serve(max(self._loop.time(), due))
