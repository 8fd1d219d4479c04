"""Nestable lock: a lock that its owner may take again.

Invariant: the owner is a task, or a thread that runs no event loop, and nobody but the owner changes who owns it and
how deep; what a task starts is somebody else. It is free again when the owner has released it as often as acquired.
"""

from __future__ import annotations

from asyncio import _get_running_loop, current_task
from threading import current_thread
from typing import Any, final

from yamanote.runtime import Waiter
from yamanote.sync._acquirable import Acquirable, LockStatistics
from yamanote.sync._pool import PermitPool

__all__ = ["NestableLock"]


@final
class NestableLock(Acquirable):
    """A lock that its owner may enter again: `async with lock` in tasks, `with lock` in threads, in one queue.

    The owner is the task, or the thread where no event loop runs. Child tasks do not inherit it, nor do threads that a
    task waits for: they wait like everybody else, for ever if their parent waits for them.

    On the thread of an event loop, outside of any task, there is nobody who could own it: RuntimeError.

    >>> async def main():
    ...     lock = NestableLock()
    ...     async with lock, lock:
    ...         return lock.locked()
    >>> run(main())
    True
    """

    __slots__ = ("_depth", "_owner", "_pool")

    def __init__(self) -> None:
        super().__init__()
        self._pool = PermitPool(1)
        self._owner: object = None
        self._depth = 0

    def try_acquire(self) -> bool:
        """Take it if it is free, and nobody waits for it, or it is yours already; tell whether it worked."""
        me = _party()
        # Read without a lock: nobody else can make it mine, nor take it from me.
        if self._owner is me:
            self._depth += 1
            return True
        if not self._pool.try_take(1):
            return False
        self._own(me)
        return True

    def release(self) -> None:
        """Leave it once; with the last time, the party that has waited longest gets it. Never waits.

        Raises RuntimeError when it is not yours.
        """
        if self._owner is not _party():
            raise RuntimeError("release() of a nestable lock by somebody who does not have it")
        self._depth -= 1
        if not self._depth:
            self._owner = None
            self._pool.give_back(1)

    def locked(self) -> bool:
        """Whether somebody has it."""
        return not self._pool.tokens

    def _ready(self) -> bool:
        return not self.locked() or self._owner is _party()

    def statistics(self) -> LockStatistics:
        """Look at it, for logs and debuggers."""
        return LockStatistics(free=self._pool.free, waiting=self._pool.parked)

    def __leak__(self) -> str | None:
        """Whether it was not given back, for `yamanote.testing.no_leaks`."""
        return f"{self!r}: not given back" if self.locked() else None

    def register(self, waiter: Waiter[Any]) -> None:
        """Park `waiter` until it is the caller's. See `yamanote.runtime.Selectable`."""
        me = _party()
        if self._owner is not me:
            self._pool.enlist(waiter, _Turn(self, me))
        elif waiter.hand(None):
            self._depth += 1

    def withdraw(self, waiter: Waiter[Any]) -> None:
        """Forget `waiter`; the turn that it was handed goes to the next."""
        if isinstance(getattr(waiter, "operation", None), _Turn):
            self._pool.delist(waiter)
        elif waiter.settled:  # at once: it was the caller's already
            self.release()

    def _own(self, owner: object) -> None:
        self._owner = owner
        self._depth = 1

    def __repr__(self) -> str:
        state = f"locked {self._depth} deep" if self.locked() else "unlocked"
        return f"<NestableLock {state}, {self._pool.parked} waiting at {id(self):#x}>"


def _party() -> object:
    """Who calls."""
    if _get_running_loop() is None:
        return current_thread()
    if (task := current_task()) is None:
        raise RuntimeError("a nestable lock belongs to a task, and this is none")
    return task


@final
class _Turn:
    """What a party waits for: to be the owner."""

    __slots__ = ("_lock", "_owner")

    need = 1

    def __init__(self, lock: NestableLock, owner: object) -> None:
        self._lock = lock
        self._owner = owner

    def grant(self) -> None:
        self._lock._own(self._owner)

    def revoke(self, granted: None) -> int:
        self._lock._owner = None
        return 1

    def refuse(self) -> RuntimeError:
        return RuntimeError(f"{self._lock!r} cannot be closed")
