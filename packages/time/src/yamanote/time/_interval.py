"""Interval: ticks at a fixed period, one after the other, for whoever asks for the next."""

from __future__ import annotations

from asyncio import get_running_loop
from typing import final

from yamanote.runtime import BUDGET, park, yield_now
from yamanote.time._clock import require_finite
from yamanote.time._ticker import MissedTickBehavior, Ticker

__all__ = ["Interval", "interval", "interval_at", "repeat_periodically", "require_behavior", "require_period"]


def interval(period: float, missed: MissedTickBehavior = MissedTickBehavior.BURST) -> Interval:
    """Ticks every `period` seconds; the first one completes at once, whenever it is asked for.

    `missed` says what happens to ticks that nobody took in time. Needs no running loop. Raises ValueError for a period
    of less than a nanosecond, and TypeError for what is no number of seconds.

    >>> from yamanote.runtime import run
    >>> async def main():
    ...     ticks = interval(0.001)
    ...     first, second = await ticks.tick(), await ticks.tick()
    ...     return round(second - first, 6)
    >>> run(main())
    0.001
    """
    return Interval(None, period, missed)


def interval_at(start: float, period: float, missed: MissedTickBehavior = MissedTickBehavior.BURST) -> Interval:
    """Like `interval`, with the first tick at `start` on the loop's clock; in the past, that is a missed tick."""
    require_finite("start", start)
    return Interval(start, period, missed)


def repeat_periodically(min_interval: float) -> Interval:
    """Repeat a block at most once in so many seconds: ``async for _ in repeat_periodically(60): ...``.

    It begins at once. A block that has taken less waits for the rest; after one that has taken longer the next begins
    at once, and the time counts from there: `interval` with `MissedTickBehavior.DELAY`. Nothing is caught up.

    Raises ValueError for less than a nanosecond, and TypeError for what is no number of seconds.

    >>> from yamanote.runtime import run
    >>> async def main():
    ...     rounds = 0
    ...     async for _ in repeat_periodically(0.001):
    ...         rounds += 1
    ...         if rounds == 3:
    ...             return rounds
    >>> run(main())
    3
    """
    require_period("min_interval", min_interval)
    return Interval(None, min_interval, MissedTickBehavior.DELAY)


@final
class Interval(Ticker):
    """A series of instants, one period apart. Made by `interval`, `interval_at` and `repeat_periodically`.

    `async for` gives what `tick` returns, without end. A `select` takes an interval as a branch: its value is the
    scheduled instant, and a tick that another branch has beaten is not lost.

    Several tasks may wait for one interval: each tick goes to one of them, first in, first out. An interval belongs to
    the loop of those who wait for it; it cannot be waited for from a plain thread.
    """

    __slots__ = ("_budget",)

    def __init__(self, start: float | None, period: float, missed: MissedTickBehavior) -> None:
        require_period("period", period)
        require_behavior(missed)
        super().__init__(start, period, missed)
        self._budget = BUDGET

    @property
    def period(self) -> float:
        """Seconds from one tick to the next."""
        return self._period

    @property
    def missed(self) -> MissedTickBehavior:
        """What becomes of ticks that nobody took in time. It can be changed on the way."""
        return self._missed

    @missed.setter
    def missed(self, missed: MissedTickBehavior) -> None:
        require_behavior(missed)
        self._missed = missed

    async def tick(self) -> float:
        """Wait for the next tick and return the instant for which it was scheduled.

        A tick that is due already completes without a loop turn, up to the cooperative budget. Raises RuntimeError
        while tasks of another loop wait for this interval. **Cancel safety**: a cancelled call takes no tick.
        """
        if self._budget == 0:
            self._budget = BUDGET
            await yield_now()
        if not self._waiters:  # a newcomer overtakes nobody
            due = self._take(get_running_loop().time())
            if due is not None:
                self._budget -= 1
                return due
        self._budget = BUDGET
        return await park(self)

    __anext__ = tick

    def __aiter__(self) -> Interval:
        return self

    def reset(self) -> None:
        """Tick next one period from now. Like all resets it begins a new schedule, for those who wait already too.

        Ticks that were missed before are forgotten. Raises RuntimeError while tasks of another loop wait.
        """
        self._restart(get_running_loop().time(), 1)

    def reset_immediately(self) -> None:
        """Tick next now."""
        self._restart(get_running_loop().time())

    def reset_after(self, seconds: float) -> None:
        """Tick next after so many seconds."""
        require_finite("seconds", seconds)
        self._restart(get_running_loop().time() + seconds)

    def reset_at(self, when: float) -> None:
        """Tick next when the loop's clock shows `when`; in the past, that is a missed tick."""
        require_finite("when", when)
        self._restart(when)

    def __repr__(self) -> str:
        return f"<Interval of {self._period!r} s, {self._missed.value}, {len(self._waiters)} waiting>"


def require_period(name: str, seconds: float) -> None:
    """Refuse what is no length of time between two ticks: raises TypeError and ValueError with the argument's name."""
    require_finite(name, seconds)
    if seconds < 1e-9:  # no clock is finer, and a schedule could not tell one of its instants from the next
        raise ValueError(f"{name} must be at least a nanosecond, not {seconds!r}")


def require_behavior(missed: MissedTickBehavior) -> None:
    """Refuse what says nothing about missed ticks: raises TypeError."""
    if not isinstance(missed, MissedTickBehavior):
        raise TypeError(f"missed must be a MissedTickBehavior, not {type(missed).__name__}")
