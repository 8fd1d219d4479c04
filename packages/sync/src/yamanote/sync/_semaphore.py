"""Semaphore and lock: a permit pool with the manners of `asyncio.Semaphore` and `asyncio.Lock`.

Invariant: first in, first out by hand-over. A permit that comes back goes to the party that has waited longest, and
belongs to it from that moment on; whoever comes later queues behind, even when a permit is free for a moment.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, final

from yamanote.runtime import BUDGET, Waiter, park, park_thread, refuse_loop_thread, yield_now
from yamanote.sync._errors import SemaphoreClosed
from yamanote.sync._pool import PermitPool

__all__ = ["Acquire", "Lock", "LockStatistics", "Semaphore"]


@dataclass(frozen=True, slots=True)
class LockStatistics:
    """A look at a lock or a semaphore; exact only while no other thread uses it."""

    free: int
    """Permits that are free."""
    waiting: int
    """Parties that wait."""


class _Permits:
    """What lock and semaphore have in common: acquire one permit, release it, from tasks and from threads."""

    __slots__ = ("__weakref__", "_give", "_left", "_pool", "_take", "_tokens", "_waiters")

    need = 1  # as a `Want` it asks for one permit

    def __init__(self, permits: int) -> None:
        self._pool = pool = PermitPool(permits)
        self._waiters = pool.waiters
        self._tokens = pool.tokens
        # Bound once: looking these up is a good part of what an uncontended lock costs.
        self._take = pool.tokens.pop
        self._give = pool.tokens.append
        self._left = BUDGET  # how many ready acquisitions in a row until the next yield

    async def acquire(self) -> Literal[True]:
        """Take one permit, waiting for it if none is free. Always True, as in asyncio.

        First in, first out. Cancel safe: a permit that had been handed to a cancelled call goes to the next in the
        queue. Raises SemaphoreClosed on a closed semaphore. Tasks of any loop may call it.
        """
        if (left := self._left) and not self._waiters:
            try:
                self._take()
            except IndexError:
                pass  # none is free
            else:
                self._left = left - 1
                return True
        if not left and self._tokens and not self._waiters:
            self._left = BUDGET
            await yield_now()
            return await self.acquire()
        self._left = BUDGET
        await park(self)
        return True

    def try_acquire(self) -> bool:
        """Take one permit if one is free and nobody waits for it; tell whether it worked. Any thread may call it."""
        return self._pool.try_take(1)

    def blocking_acquire(self, timeout: float | None = None) -> None:
        """`acquire`, for plain threads: blocks for at most `timeout` seconds, then raises TimeoutError.

        Raises RuntimeError in a thread that runs an event loop.
        """
        refuse_loop_thread(timeout)
        if not self._pool.try_take(1):
            park_thread(self, timeout)

    def release(self) -> None:
        """Give one permit back; the party that has waited longest gets it. Never waits; any thread may call it."""
        self._give(None)
        if self._waiters:
            self._pool.serve()

    def statistics(self) -> LockStatistics:
        """Look at it, for logs and debuggers."""
        return LockStatistics(free=self._pool.free, waiting=self._pool.parked)

    def __leak__(self) -> str | None:
        """What was not given back, for `yamanote.testing.no_leaks`."""
        pool: PermitPool | None = getattr(self, "_pool", None)  # without one, it was refused in the making
        if pool is None or pool.closed or (missing := pool.total - pool.free) <= 0:
            return None
        return f"{self!r}: not given back, {missing} of {pool.total}"

    def __call__(self) -> Self:
        """Itself, for who likes to write `async with lock():`."""
        return self

    async def __aenter__(self) -> None:
        # `acquire` once more: a call would be a good part of what an uncontended lock costs.
        if (left := self._left) and not self._waiters:
            try:
                self._take()
            except IndexError:
                pass
            else:
                self._left = left - 1
                return
        if left:
            self._left = BUDGET
            await park(self)
        else:
            await self.acquire()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # `release` once more, for the same reason.
        self._give(None)
        if self._waiters:
            self._pool.serve()

    def __enter__(self) -> None:
        """For plain threads; in a task, write `async with`."""
        self.blocking_acquire()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    # ---------------------------------------------------------------- as something to wait for (Selectable, Want)

    def register(self, waiter: Waiter[Any]) -> None:
        """Park `waiter` until it has a permit. See `yamanote.runtime.Selectable`."""
        self._pool.enlist(waiter, self)

    def withdraw(self, waiter: Waiter[Any]) -> None:
        """Forget `waiter`; a permit that it was handed goes to the next."""
        self._pool.delist(waiter)

    def grant(self) -> None:
        """Nothing comes with the permit."""

    def revoke(self, granted: None) -> int:
        return 1

    def refuse(self) -> SemaphoreClosed:
        return SemaphoreClosed(f"{self!r} is closed")


@final
class Lock(_Permits):
    """Mutual exclusion for tasks (`async with lock`) and for plain threads (`with lock`), in one queue.

    Not reentrant, and not bound to a task: it may be released elsewhere than where it was acquired.

    >>> async def main():
    ...     lock = Lock()
    ...     async with lock:
    ...         return lock.locked()
    >>> run(main())
    True
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(1)

    def locked(self) -> bool:
        """Whether somebody has it."""
        return not self._tokens

    def release(self) -> None:
        """Give it up; the party that has waited longest gets it. Never waits; any thread may call it.

        Raises RuntimeError when nobody has it.
        """
        if self._tokens:
            raise RuntimeError("release() of a lock that nobody has")
        self._give(None)
        if self._waiters:
            self._pool.serve()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._tokens:
            raise RuntimeError("release() of a lock that nobody has")
        self._give(None)
        if self._waiters:
            self._pool.serve()

    def __repr__(self) -> str:
        return f"<Lock {'locked' if self.locked() else 'unlocked'}, {self._pool.parked} waiting at {id(self):#x}>"


@final
class Semaphore(_Permits):
    """A number of permits, for tasks (`async with semaphore`) and for plain threads (`with semaphore`), in one queue.

    The queue is first in, first out *including weights*: a party that wants many permits is not overtaken by those
    behind it that want few.

    Raises ValueError when `permits` is negative.

    >>> async def main():
    ...     semaphore = Semaphore(3)
    ...     async with semaphore, semaphore.acquire_many(2):
    ...         return semaphore.value
    >>> run(main())
    0
    """

    __slots__ = ()

    def __init__(self, permits: int) -> None:
        if isinstance(permits, bool) or not isinstance(permits, int):
            raise TypeError(f"permits must be a whole number, not {permits!r}")
        if permits < 0:
            raise ValueError(f"permits must not be negative, but is {permits}")
        super().__init__(permits)

    @property
    def value(self) -> int:
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
        _require_count(count)
        return Acquire(self, count)

    def try_acquire(self, count: int = 1) -> bool:
        """Take `count` permits if they are free and nobody waits; tell whether it worked. Any thread may call it."""
        _require_count(count)
        return self._pool.try_take(count)

    def release(self, count: int = 1) -> None:
        """Give `count` permits back; those who have waited longest get them. Never waits; any thread may call it."""
        _require_count(count)
        self._pool.give_back(count)

    def close(self) -> None:
        """Give out no more permits: who waits and who comes gets SemaphoreClosed. Releasing goes on working."""
        self._pool.section.do(self._pool.close)

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._pool.closed

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else f"{self.value} free"
        return f"<Semaphore {state}, {self._pool.parked} waiting at {id(self):#x}>"


@final
class Acquire:
    """Several permits at once: await it, enter it, or select over it. Made by `Semaphore.acquire_many`."""

    __slots__ = ("_semaphore", "need")

    need: int
    """How many permits."""

    def __init__(self, semaphore: Semaphore, need: int) -> None:
        self._semaphore = semaphore
        self.need = need

    def __await__(self) -> Generator[Any, None, None]:
        return self._acquire().__await__()

    async def _acquire(self) -> None:
        semaphore = self._semaphore
        if not semaphore._left:
            semaphore._left = BUDGET
            if not semaphore.locked():
                await yield_now()
        if semaphore.try_acquire(self.need):
            semaphore._left -= 1
        else:
            semaphore._left = BUDGET
            await park(self)

    async def __aenter__(self) -> None:
        await self._acquire()

    async def __aexit__(self, *exc_info: object) -> None:
        self._semaphore.release(self.need)

    def __enter__(self) -> None:
        """For plain threads; in a task, write `async with`."""
        refuse_loop_thread()
        if not self._semaphore.try_acquire(self.need):
            park_thread(self)

    def __exit__(self, *exc_info: object) -> None:
        self._semaphore.release(self.need)

    def register(self, waiter: Waiter[Any]) -> None:
        """Park `waiter` until it has its permits. See `yamanote.runtime.Selectable`."""
        self._semaphore._pool.enlist(waiter, self)

    def withdraw(self, waiter: Waiter[Any]) -> None:
        """Forget `waiter`; permits that it was handed go to the next."""
        self._semaphore._pool.delist(waiter)

    def grant(self) -> None:
        """Nothing comes with the permits."""

    def revoke(self, granted: None) -> int:
        return self.need

    def refuse(self) -> SemaphoreClosed:
        return self._semaphore.refuse()


def _require_count(count: int) -> None:
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"count must be a whole number, not {count!r}")
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
