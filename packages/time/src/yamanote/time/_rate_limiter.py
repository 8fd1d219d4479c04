"""RateLimiter: so many permits per so much time, for a burst of them at once, first come, first served.

Invariant: in any t seconds at most burst + rate * t permits are handed out, and none of those due is lost: a party that
gives up hands its permits back. Whoever is at the front of the queue is served first, however much it wants. A timer is
armed only while somebody is parked: one, on the loop of whoever is at the front. A plain thread there is its own timer.

The bucket is two numbers: when it was last full, and how many permits have been taken since. It is full again at
origin + taken * per / rate: computed, not added up, so that nothing drifts.
"""

from __future__ import annotations

from _thread import TIMEOUT_MAX
from asyncio import AbstractEventLoop, TimerHandle, _get_running_loop, get_running_loop
from collections import deque
from collections.abc import Generator
from functools import partial
from math import inf
from queue import Empty
from sys import float_info
from time import monotonic
from typing import Any, final

from yamanote.runtime import BUDGET, CriticalSection, ThreadWaiter, Waiter, park, refuse_loop_thread, yield_now
from yamanote.time._ticker import LATE

__all__ = ["RateLimiter"]

_ANOTHER_CLOCK = 1.0
"""Seconds. Loops on one clock may differ by a little, when they read it once per turn. On a clock that is further
behind than a bucket can be empty the past does not count: that of a new loop, in a test, with a global limiter."""


@final
class RateLimiter:
    """At most `rate` permits in `per` seconds, and up to `burst` at once after a time in which fewer were taken.

    A permit is taken and never given back: nothing is held, so there is nothing to release. With a burst of 1 permits
    come evenly; with more, a quiet time is made up for. In any t seconds there are at most burst + t * rate / per
    permits. (On a loop that wakes up late, permits that somebody waits for are made up for up to five milliseconds,
    or no limiter could keep a high rate.)

    The queue is first in, first out *including weights*: a party that wants many permits is not overtaken by those
    behind it that want few. A `select` takes a limiter as a branch, for one permit, and also `acquire_many(count)`.

    **Threads:** for tasks of any event loop, several at a time if they share one clock, as those of a runtime do; and
    for plain threads, which go by `time.monotonic`, the clock of every loop that has none of its own. All wait in one
    queue. Needs no running loop to be made.

    Raises ValueError for a rate or a time that is not positive and finite, or a burst below 1; TypeError for what is no
    number.

    >>> async def main():
    ...     limiter = RateLimiter(1000, burst=2)
    ...     start = time()
    ...     for _ in range(4):
    ...         await limiter.acquire()
    ...     return time() - start >= 0.0019
    >>> run(main())
    True
    """

    __slots__ = (
        "_budget",
        "_burst",
        "_origin",
        "_per",
        "_rate",
        "_section",
        "_taken",
        "_timer",
        "_timer_loop",
        "_waiters",
    )

    def __init__(self, rate: float, per: float = 1.0, *, burst: int = 1) -> None:
        _require_positive("rate", rate)
        _require_positive("per", per)
        _require_count("burst", burst)
        _require_positive("burst", burst)
        self._rate = rate
        self._per = per
        self._burst = burst
        self._origin = -inf
        self._taken = 0
        self._waiters: deque[Waiter[Any]] = deque()
        self._section = CriticalSection()
        self._timer: TimerHandle | None = None
        self._timer_loop: AbstractEventLoop | None = None
        self._budget = BUDGET

    async def acquire(self) -> None:
        """Take a permit; wait until one is due.

        One that is due completes without a loop turn, up to the cooperative budget. First in, first out. **Cancel
        safety**: a cancelled call takes no permit.
        """
        await self._acquire(1)

    def blocking_acquire(self, timeout: float | None = None) -> None:
        """`acquire`, for plain threads: blocks for at most `timeout` seconds, then raises TimeoutError.

        Raises RuntimeError in a thread that runs an event loop.
        """
        self._blocking_acquire(1, timeout)

    def acquire_many(self, count: int) -> Acquire:
        """Take `count` permits, all at once: await it, select over it, or call its `blocking_acquire` in a thread.

        As `acquire` otherwise. Raises ValueError when `count` is less than 1, or more than the burst, which would never
        be due.
        """
        return Acquire(self, self._require_possible(count))

    def try_acquire(self, count: int = 1) -> bool:
        """Take `count` permits if they are due and nobody waits; tell whether it worked.

        Any thread may call it. Raises ValueError as `acquire_many` does.
        """
        return self._try_acquire(self._require_possible(count), _get_running_loop())

    def register(self, waiter: Waiter[Any], /) -> None:
        """Queue for one permit. See `yamanote.runtime.Selectable`. Raises RuntimeError where no event loop runs."""
        self._register(waiter, 1)

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        """Forget `waiter`; permits that it was handed go to the next."""
        self._section.do(partial(self._delist, waiter))

    def __repr__(self) -> str:
        return (
            f"<RateLimiter {self._rate!r} in {self._per!r} s, burst of {self._burst}, "
            f"{len(self._waiters)} waiting at {id(self):#x}>"
        )

    async def _acquire(self, need: int) -> None:
        if not (left := self._budget):
            self._budget = left = BUDGET
            await yield_now()
        if self._try_acquire(need, get_running_loop()):
            self._budget = left - 1  # not one less than it is now: other loops count as well, and it would miss zero
            return
        self._budget = BUDGET
        await park(Acquire(self, need))

    def _blocking_acquire(self, need: int, timeout: float | None) -> None:
        refuse_loop_thread(timeout)
        if self._try_acquire(need, None):
            return
        end = inf if timeout is None else monotonic() + timeout
        sleeper = _Sleeper(need)
        try:
            self._section.do(partial(self._enlist, sleeper))
            while not sleeper.settled:
                if monotonic() >= end:
                    raise TimeoutError(f"no permit within {timeout} seconds")
                sleeper.sleep_until(end)
                self._section.do(self._serve)
        except BaseException:  # KeyboardInterrupt, too
            self.withdraw(sleeper)
            raise

    def _try_acquire(self, need: int, loop: AbstractEventLoop | None) -> bool:
        with self._section:
            if self._waiters:  # those who are still there are before us
                self._serve()
            if self._waiters:
                return False
            now = _now(loop)
            self._refill(now)
            if self._due(need) > now:
                return False
            self._taken += need
            return True

    def _register(self, waiter: Waiter[Any], need: int) -> None:
        waiter.operation = place = _Place(need)
        place.loop = _get_running_loop()
        if place.loop is None:
            raise RuntimeError("no event loop runs here: in a plain thread a RateLimiter has blocking_acquire()")
        self._section.run(partial(self._enlist, waiter))

    # ------------------------------------------------------------------ in the section

    def _full(self) -> float:
        """When the bucket is full again."""
        return self._origin + self._taken * self._per / self._rate

    def _due(self, need: int) -> float:
        """When `need` permits are due for who comes first."""
        return self._origin + (self._taken + need - self._burst) * self._per / self._rate

    def _refill(self, now: float) -> None:
        if not 0 < self._full() - now <= self._burst * self._per / self._rate + _ANOTHER_CLOCK:
            self._origin = now
            self._taken = 0

    def _enlist(self, waiter: Waiter[Any]) -> None:
        if not self._waiters:
            self._refill(_now(waiter.operation.loop))
        self._waiters.append(waiter)
        self._serve()

    def _delist(self, waiter: Waiter[Any]) -> None:
        place: _Place = waiter.operation
        if waiter.settled:
            # Once the bucket has been full again it holds no more, with these permits or without.
            if place.origin == self._origin:
                self._taken = max(0, self._taken - place.need)
        else:
            try:
                self._waiters.remove(waiter)
            except ValueError:
                pass  # skipped as dead
        self._serve()

    def _serve(self) -> None:
        """Hand out what is due, and see to it that this is called again when more is."""
        waiters = self._waiters
        while waiters:
            waiter = waiters[0]
            place: _Place = waiter.operation
            now = _now(place.loop)
            if not 0 <= now - self._full() <= LATE:  # what is due just now goes on by the schedule, though a bit late
                self._refill(now)
            due = self._due(place.need)
            if not waiter.is_waiting():
                waiters.popleft()
            elif due > now:
                if isinstance(waiter, _Sleeper):
                    waiter.look_at(due)
                    break
                if place.loop is not None and self._wake_at(due, place.loop):
                    return
            else:
                waiters.popleft()
                if waiter.claim():
                    self._taken += place.need
                    place.origin = self._origin
                    waiter.settle(None)
        self._disarm()

    def _wake_at(self, due: float, loop: AbstractEventLoop) -> bool:
        """False when `loop` has been closed."""
        if self._timer is not None and self._timer_loop is loop and self._timer.when() <= due:
            return True  # early enough: it looks again
        self._disarm()
        if _get_running_loop() is loop:
            self._timer = loop.call_at(due, self._look, loop)
            self._timer_loop = loop
            return True
        try:
            loop.call_soon_threadsafe(self._look)
        except RuntimeError:
            return False
        return True

    def _disarm(self) -> None:
        # That of another loop cannot be cancelled from here, and fires in vain.
        if self._timer is not None and _get_running_loop() is self._timer_loop:
            self._timer.cancel()
        self._timer = self._timer_loop = None

    def _look(self, fired: AbstractEventLoop | None = None) -> None:
        """On a loop: its timer has fired, or another loop has found that it is the turn of a party of this one."""
        self._section.run(partial(self._look_again, fired))

    def _look_again(self, fired: AbstractEventLoop | None) -> None:
        if fired is not None and fired is self._timer_loop:
            self._timer = self._timer_loop = None
        self._serve()

    def _require_possible(self, count: int) -> int:
        _require_count("count", count)
        if count > self._burst:
            raise ValueError(f"count must be at most the burst ({self._burst}), not {count}")
        return count


@final
class Acquire:
    """Several permits at once: await it, or select over it. Made by `RateLimiter.acquire_many`."""

    __slots__ = ("_limiter", "_need")

    def __init__(self, limiter: RateLimiter, need: int) -> None:
        self._limiter = limiter
        self._need = need

    def __await__(self) -> Generator[Any, None, None]:
        return self._limiter._acquire(self._need).__await__()

    def blocking_acquire(self, timeout: float | None = None) -> None:
        """Take the permits in a plain thread, as `RateLimiter.blocking_acquire` takes one."""
        self._limiter._blocking_acquire(self._need, timeout)

    def register(self, waiter: Waiter[Any], /) -> None:
        """Queue for the permits. See `yamanote.runtime.Selectable`."""
        self._limiter._register(waiter, self._need)

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        """Forget `waiter`; permits that it was handed go to the next."""
        self._limiter.withdraw(waiter)

    def __repr__(self) -> str:
        return f"<Acquire {self._need} of {self._limiter!r}>"


class _Place:
    """What one parked party wants, whose loop can wake it, and which full bucket it was served from."""

    __slots__ = ("loop", "need", "origin")

    loop: AbstractEventLoop | None
    """None for a plain thread."""

    def __init__(self, need: int) -> None:
        self.loop = None
        self.need = need
        self.origin = inf


class _Sleeper(ThreadWaiter[None]):
    """A plain thread that is parked. Whoever serves tells it when to look again, once it is at the front."""

    __slots__ = ("_due",)

    def __init__(self, need: int) -> None:
        super().__init__()
        self.operation = _Place(need)
        self._due = inf

    def look_at(self, due: float) -> None:
        if due != self._due:
            self._due = due
            self._wake()

    def sleep_until(self, end: float) -> None:
        """Until it is to look again, or `end`, or it has been served; or less."""
        if self._due == inf:  # behind others: so it is parked in the eyes of a clock, which need not wait for it
            self.sleep(end - monotonic())
        else:
            try:
                self._sleep.get(timeout=min(max(0.0, min(self._due, end) - monotonic()), TIMEOUT_MAX))
            except Empty:
                pass

    def _wake(self) -> None:
        if self._sleep.empty():  # else it has rung, and nobody has looked since
            super()._wake()


def _now(loop: AbstractEventLoop | None) -> float:
    return monotonic() if loop is None else loop.time()


def _require_positive(name: str, number: float) -> None:
    if not isinstance(number, (int, float)):
        raise TypeError(f"{name} must be a number, not {type(number).__name__}")
    if not 0 < number <= float_info.max:  # nan neither, nor an int that is no float
        raise ValueError(f"{name} must be positive and finite, not {number!r}")


def _require_count(name: str, count: int) -> None:
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{name} must be a whole number, not {count!r}")
    if count < 1:
        raise ValueError(f"{name} must be at least 1, not {count}")
