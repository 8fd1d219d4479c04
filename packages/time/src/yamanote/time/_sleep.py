"""Sleeping: one timer on the loop's clock.

A call of `sleep` leaves nothing behind. A `Sleep` keeps its timer from one wait to the next, and never has two: it is
only ever replaced by an earlier one, and what it finds too early when it fires, it arms itself for again.
"""

from __future__ import annotations

import math
from asyncio import Future, _get_running_loop, get_running_loop
from collections.abc import Generator
from typing import Any, Literal, final

from yamanote.runtime import BUDGET, Waiter, park, yield_now
from yamanote.time._clock import require_seconds
from yamanote.time._timetable import Timetable

__all__ = ["Sleep", "sleep", "sleep_until"]


async def sleep(seconds: float) -> None:
    """Wait for so many seconds. Zero or less lets the other tasks run once; `math.inf` waits until it is cancelled.

    Raises ValueError for nan. Cancel safe.

    >>> from yamanote.runtime import run
    >>> run(sleep(0))
    """
    if seconds == 0:
        await yield_now()
        return
    require_seconds("seconds", seconds)
    loop = get_running_loop()
    if seconds > 0:
        future: Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _wake, future)
        try:
            await future
        finally:
            timer.cancel()
    else:
        await yield_now()


async def sleep_until(when: float) -> None:
    """Wait until the loop's clock shows `when`. If it does already, let the other tasks run once.

    Raises ValueError for nan. Cancel safe.

    >>> from yamanote.runtime import run
    >>> async def main():
    ...     await sleep_until(instant() + 0.001)
    >>> run(main())
    """
    require_seconds("when", when)
    loop = get_running_loop()
    if when <= loop.time():
        await yield_now()
        return
    future: Future[None] = loop.create_future()
    timer = loop.call_at(when, _wake, future)
    try:
        await future
    finally:
        timer.cancel()


def _wake(future: Future[None]) -> None:
    # The sleeper may have been cancelled in the very turn in which its timer fell due.
    if not future.done():
        future.set_result(None)


@final
class Sleep(Timetable[None]):
    """A sleep that can be moved, by whoever has it, while others wait for it: an idle timeout, a watchdog.

    ``await idle`` returns when its moment has come, at once if that has passed; as often as one likes, for as many
    tasks as wait. A `select` takes it as a branch, whose value is None. `reset`, `reset_after` and `reset_at` move the
    moment, `stop` lets it never come; who waits goes on waiting, for the new one. Who has been woken stays awake.

    The seconds count from when it is made or, where no loop runs, from when a loop first asks for it. Zero or less
    has elapsed at once, `math.inf` never does. Raises ValueError for nan.

    A loop that selects it again and again costs one timer, not one each round; to move it to later costs none. That
    timer stays until it fires, which does nothing when nobody waits, or until the sleep is dropped.

    It belongs to the loop of those who wait, and raises RuntimeError for others meanwhile. **Cancel safety**: a
    cancelled wait changes nothing.

    >>> from yamanote.runtime import run, spawn
    >>> async def main():
    ...     start, idle = time(), Sleep(30)
    ...     watchdog = spawn(idle)
    ...     for _ in range(3):
    ...         await sleep(20)
    ...         idle.reset()
    ...     await watchdog
    ...     return time() - start
    >>> run(main(), clock=VirtualClock())
    90.0
    """

    __slots__ = ("_budget", "_deadline", "_seconds", "_told")

    def __init__(self, seconds: float) -> None:
        require_seconds("seconds", seconds)
        super().__init__()
        loop = _get_running_loop()
        self._seconds: float | None = seconds
        self._deadline = None if loop is None else loop.time() + seconds
        # The moment of which somebody has been told that it has come: some loops call their timers a little early.
        self._told = math.nan
        self._budget = BUDGET

    @classmethod
    def until(cls, when: float) -> Sleep:
        """A sleep until the loop's clock shows `when`."""
        require_seconds("when", when)
        made = cls(math.inf)
        made._seconds = None
        made._deadline = when
        return made

    @property
    def deadline(self) -> float:
        """When it elapses, or has elapsed, on the loop's clock; `math.inf` for never."""
        if self._deadline is None:
            assert self._seconds is not None
            self._deadline = get_running_loop().time() + self._seconds
        return self._deadline

    def is_elapsed(self) -> bool:
        """Whether its moment has come."""
        return self._told == self.deadline or self.deadline <= get_running_loop().time()

    def reset(self) -> None:
        """Elapse as many seconds from now as it was made with. Raises RuntimeError if it was made by `Sleep.until`."""
        if self._seconds is None:
            raise RuntimeError("a Sleep.until() was not given any seconds: use reset_after() or reset_at()")
        loop = get_running_loop()
        when = loop.time() + self._seconds
        if when >= self._armed_for and loop is self._loop:
            self._deadline = when  # as `_move` does it, without the calls: a connection does this with each message
        else:
            self._move(when)

    def reset_after(self, seconds: float) -> None:
        """Elapse so many seconds from now."""
        require_seconds("seconds", seconds)
        self._move(get_running_loop().time() + seconds)

    def reset_at(self, when: float) -> None:
        """Elapse when the loop's clock shows `when`; if it does already, all who wait are woken."""
        require_seconds("when", when)
        self._move(when)

    def stop(self) -> None:
        """Never elapse, unless it is reset."""
        if self._loop is not _get_running_loop():
            self._require_loop()
        self._deadline = math.inf

    def __await__(self) -> Generator[Any, None, None]:
        return self._wait().__await__()

    async def _wait(self) -> None:
        if self._budget == 0:
            self._budget = BUDGET
            await yield_now()
        if not self._waiters and self.is_elapsed():  # a newcomer overtakes nobody
            self._budget -= 1
            return
        self._budget = BUDGET
        await park(self)

    def _move(self, when: float) -> None:
        self._require_loop()
        self._deadline = when
        self._told = math.nan  # another loop may count from zero again, and come to the same number
        if when < self._armed_for:  # else its timer looks again when it fires
            self._changed()

    def _next_due(self, now: float) -> float:
        due = self.deadline
        return -math.inf if due == self._told else due

    def _take_due(self, now: float) -> Literal[True] | None:
        if self._next_due(now) > now:
            return None
        self._told = self.deadline
        return True

    def _hand_over(self, waiter: Waiter[None], taken: Literal[True]) -> None:
        waiter.settle(None)

    def _give_back(self, taken: Literal[True]) -> None:
        pass  # it has elapsed for everybody

    def _rest(self) -> None:
        pass  # the timer is left for the next round of a loop that selects this again, and looks then

    def __del__(self) -> None:
        if hasattr(self, "_timer"):  # not refused when it was made
            self._disarm()

    def __repr__(self) -> str:
        if self._deadline is None:
            state = f"of {self._seconds!r} s, not begun"
        elif self._deadline == self._told:
            state = "elapsed"
        else:
            state = f"until {self._deadline!r}"
        return f"<Sleep {state}, {len(self._waiters)} waiting>"
