"""Permits: what lock and semaphore have in common, with the ordinary path of a permit pool written out.

Invariant: first in, first out by hand-over. A permit that comes back goes to the party that has waited longest, and
belongs to it from that moment on; whoever comes later queues behind, even when a permit is free for a moment.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Literal

from yamanote.runtime import BUDGET, Waiter, park, yield_now
from yamanote.sync._acquirable import Acquirable, LockStatistics
from yamanote.sync._errors import SemaphoreClosed
from yamanote.sync._pool import PermitPool

__all__ = ["Permits"]


class Permits(Acquirable):
    """A permit pool that is acquired one permit at a time."""

    __slots__ = ("_give", "_pool", "_take", "_tokens", "_waiters")

    # As a `Want` it asks for one permit, with which nothing comes.
    need = 1
    grant = None

    def __init__(self, pool: PermitPool) -> None:
        super().__init__()
        self._pool = pool
        self._waiters = pool.waiters
        self._tokens = pool.tokens
        # Bound once: looking these up is a good part of what an uncontended lock costs.
        self._take = pool.tokens.pop
        self._give = pool.tokens.append

    async def acquire(self) -> Literal[True]:
        """Take one permit, waiting for it if none is free. Always True, as in asyncio.

        First in, first out. Tasks of any loop may call it. Raises SemaphoreClosed on a closed semaphore.

        **Cancel safety:** a permit that had been handed to a cancelled call goes to the next in the queue.
        """
        if (left := self._left) and not self._waiters:
            try:
                self._take()
            except IndexError:
                pass  # none is free
            else:
                self._left = left - 1
                return True
        self._left = BUDGET
        if not left and self._tokens and not self._waiters:
            await yield_now()
        await park(self)
        return True

    def try_acquire(self) -> bool:
        """Take one permit if one is free and nobody waits for it; tell whether it worked. Any thread may call it."""
        return self._pool.try_take(1)

    def _unavailable(self) -> Exception:
        return self.refuse() if self._pool.closed else super()._unavailable()

    def release(self) -> None:
        """Give one permit back; the party that has waited longest gets it. Never waits; any thread may call it."""
        self._give(None)
        if self._waiters:
            pool = self._pool
            pool.section.run(pool.serve_locked)

    def statistics(self) -> LockStatistics:
        """Look at it, for logs and debuggers."""
        return LockStatistics(free=self._pool.free, waiting=self._pool.parked)

    def __leak__(self) -> str | None:
        """What was not given back, for `yamanote.testing.no_leaks`."""
        pool: PermitPool | None = getattr(self, "_pool", None)  # without one, it was refused in the making
        if pool is None or pool.closed or (missing := pool.total - pool.free) <= 0:
            return None
        return f"{self!r}: not given back, {missing} of {pool.total}"

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
            pool = self._pool
            pool.section.run(pool.serve_locked)

    def register(self, waiter: Waiter[Any]) -> None:
        """Park `waiter` until it has a permit. See `yamanote.runtime.Selectable`."""
        self._pool.enlist(waiter, self)

    def withdraw(self, waiter: Waiter[Any]) -> None:
        """Forget `waiter`; a permit that it was handed goes to the next."""
        self._pool.delist(waiter)

    def revoke(self, granted: None) -> int:
        return 1

    def refuse(self) -> SemaphoreClosed:
        # Without a look at the state: it would count the queue again for each party in it.
        return SemaphoreClosed(f"this {type(self).__name__} is closed")
