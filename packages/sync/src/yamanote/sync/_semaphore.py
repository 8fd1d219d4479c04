"""Semaphore: a number of permits, with the manners of `asyncio.Semaphore`; several at once, too.

Invariant: the queue is first in, first out including weights. Who wants many permits is not overtaken by those behind
that want few. A bounded semaphore never has more permits than it began with.
"""

from __future__ import annotations

from collections.abc import Generator
from itertools import repeat
from types import TracebackType
from typing import Any, Literal, final

from yamanote.runtime import BUDGET, Waiter, park, yield_now
from yamanote.sync._acquirable import Acquirable
from yamanote.sync._errors import SemaphoreClosed
from yamanote.sync._permits import Permits
from yamanote.sync._pool import PermitPool

__all__ = ["Acquire", "BoundedSemaphore", "Semaphore"]


class Semaphore(Permits):
    """A number of permits, for tasks (`async with semaphore`) and for plain threads (`with semaphore`), in one queue.

    The queue is first in, first out *including weights*: a party that wants many permits is not overtaken by those
    behind it that want few. More permits than it began with can be given back: that adds permits.

    Raises ValueError when `permits` is negative.

    >>> async def main():
    ...     semaphore = Semaphore(3)
    ...     async with semaphore, semaphore.acquire_many(2):
    ...         return semaphore.tokens()
    >>> run(main())
    0
    """

    __slots__ = ()

    def __init__(self, permits: int) -> None:
        if isinstance(permits, bool) or not isinstance(permits, int):
            raise TypeError(f"permits must be a whole number, not {permits!r}")
        if permits < 0:
            raise ValueError(f"permits must not be negative, but is {permits}")
        super().__init__(PermitPool(permits))

    def tokens(self) -> int:
        """How many permits are free."""
        return self._pool.free

    def locked(self) -> bool:
        """Whether `acquire` would wait."""
        return bool(self._waiters) or not self._pool.free

    def acquire_many(self, count: int) -> Acquire:
        """Take `count` permits, all at once.

        Await it, or enter it: `async with semaphore.acquire_many(3):`. As `acquire` otherwise. Raises ValueError
        when `count` is less than 1.
        """
        require_count(count)
        return Acquire(self, count)

    def try_acquire(self, count: int = 1) -> bool:
        """Take `count` permits if they are free and nobody waits; tell whether it worked. Any thread may call it."""
        require_count(count)
        return self._pool.try_take(count)

    def release(self, count: int = 1) -> None:
        """Give `count` permits back; those who have waited longest get them. Never waits; any thread may call it."""
        require_count(count)
        self._pool.give_back(count)

    def close(self) -> None:
        """Give out no more permits: who waits and who comes gets SemaphoreClosed. Releasing goes on working."""
        self._pool.section.do(self._pool.close)

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._pool.closed

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else f"{self.tokens()} free"
        return f"<{type(self).__name__} {state}, {self._pool.parked} waiting at {id(self):#x}>"


@final
class BoundedSemaphore(Semaphore):
    """A semaphore to which no more can be given back than was taken: that would be a mistake, and raises ValueError.

    >>> semaphore = BoundedSemaphore(2)
    >>> with semaphore.or_raise():
    ...     semaphore.tokens()
    1
    >>> semaphore.release()
    Traceback (most recent call last):
    ...
    ValueError: release() of 1 more than the 2 there are, 2 of which are free
    """

    __slots__ = ()

    def acquire_many(self, count: int) -> Acquire:
        """Take `count` permits, all at once.

        As with any semaphore, but raises ValueError as well when `count` is more than there are: it would never end.
        """
        if (wanted := super().acquire_many(count)).need > self._pool.total:
            raise ValueError(f"count must be at most the number of permits ({self._pool.total}), not {count}")
        return wanted

    def release(self, count: int = 1) -> None:
        """Give `count` permits back; those who have waited longest get them. Never waits; any thread may call it.

        Raises ValueError, and gives nothing back, when that were more than were taken.
        """
        require_count(count)
        pool = self._pool
        # Inside, permits can become fewer meanwhile (somebody takes one on the ordinary path), but not more.
        with pool.section:
            if pool.free + count > pool.total:
                raise ValueError(
                    f"release() of {count} more than the {pool.total} there are, {pool.free} of which are free"
                )
            pool.tokens.extend(repeat(None, count))
            pool.section.run(pool.serve_locked)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


@final
class Acquire(Acquirable):
    """Several permits at once: await it, enter it, or select over it. Made by `Semaphore.acquire_many`."""

    __slots__ = ("_semaphore", "need")

    need: int
    """How many permits."""
    grant = None

    def __init__(self, semaphore: Semaphore, need: int) -> None:
        self._semaphore = semaphore
        self.need = need

    def __await__(self) -> Generator[Any, None, Literal[True]]:
        return self.acquire().__await__()

    async def acquire(self) -> Literal[True]:
        """Take the permits, as `Semaphore.acquire` takes one."""
        semaphore = self._semaphore
        if not (left := semaphore._left):
            semaphore._left = left = BUDGET
            if not semaphore.locked():
                await yield_now()
        if self.try_acquire():
            semaphore._left = left - 1  # see `Acquirable.acquire`
        else:
            semaphore._left = BUDGET
            await park(self)
        return True

    def try_acquire(self) -> bool:
        """Take the permits if they are free and nobody waits; tell whether it worked. Any thread may call it."""
        return self._semaphore._pool.try_take(self.need)

    def _unavailable(self) -> Exception:
        return self._semaphore.refuse() if self._semaphore.is_closed else super()._unavailable()

    def release(self) -> None:
        """Give the permits back. Never waits; any thread may call it."""
        self._semaphore.release(self.need)

    def locked(self) -> bool:
        """Whether `acquire` would wait."""
        return bool(self._semaphore._waiters) or self._semaphore._pool.free < self.need

    def __repr__(self) -> str:
        return f"<Acquire {self.need} of {self._semaphore!r}>"

    def register(self, waiter: Waiter[Any]) -> None:
        """Park `waiter` until it has its permits. See `yamanote.runtime.Selectable`."""
        self._semaphore._pool.enlist(waiter, self)

    def withdraw(self, waiter: Waiter[Any]) -> None:
        """Forget `waiter`; permits that it was handed go to the next."""
        self._semaphore._pool.delist(waiter)

    def revoke(self, granted: None) -> int:
        return self.need

    def refuse(self) -> SemaphoreClosed:
        return self._semaphore.refuse()


def require_count(count: int) -> None:
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"count must be a whole number, not {count!r}")
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
