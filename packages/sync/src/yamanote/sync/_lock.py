"""Lock: one permit, with the manners of `asyncio.Lock`.

Invariant: there is never more than one permit, also when threads release at once what one of them had. A release that
comes while it is free is an error.
"""

from __future__ import annotations

from types import TracebackType
from typing import final

from yamanote.sync._permits import Permits
from yamanote.sync._pool import PermitPool

__all__ = ["Lock"]


@final
class Lock(Permits):
    """Mutual exclusion for tasks (`async with lock`) and for plain threads (`with lock`), in one queue.

    Not reentrant, and not bound to a task: it may be released elsewhere than where it was acquired. `NestableLock` is
    both.

    >>> async def main():
    ...     lock = Lock()
    ...     async with lock:
    ...         return lock.locked()
    >>> run(main())
    True
    """

    __slots__ = ("_bereft",)

    def __init__(self) -> None:
        # Of two threads that release at once, both may find it locked: the second token falls away.
        super().__init__(PermitPool(1, most=1))
        # One entry for each `Condition.wait` that was thrown away while others had the lock, until its block ends.
        self._bereft: list[None] = []

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
            pool = self._pool
            pool.section.run(pool.serve_locked)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc_type is GeneratorExit and self._bereft:
            self._bereft.pop()
            return
        if self._tokens:
            raise RuntimeError("release() of a lock that nobody has")
        self._give(None)
        if self._waiters:
            pool = self._pool
            pool.section.run(pool.serve_locked)

    def __repr__(self) -> str:
        return f"<Lock {'locked' if self.locked() else 'unlocked'}, {self._pool.parked} waiting at {id(self):#x}>"
