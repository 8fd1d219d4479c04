"""Notify: wake one party, or all of them, without a value.

Invariant: at most one permit is stored, and only while nobody waits. A notification of one party belongs to it from
that moment on; when it was cancelled, the next gets it, or else it is stored. A notification of all is for who had
asked by then, and is never stored.

This is a permit pool that holds one permit at most. Who asks for a notification notes how often all were notified up
to then; whoever finds that count grown was meant.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any, final

from yamanote.runtime import Waiter, cooperative, park, park_thread
from yamanote.sync._cell import WaitStatistics
from yamanote.sync._pool import PermitPool, discard

__all__ = ["Notified", "Notify"]


@final
class Notify:
    """Lets tasks and threads tell each other that there is something to do.

    `notify_one` wakes the party that has waited longest. When nobody waits, it stores one permit, and the next party
    goes on at once; more than one is never stored, so who is woken looks for *all* that there is to do. All calls may
    come from any task of any loop and from any thread.

    >>> async def main():
    ...     notify = Notify()
    ...     notify.notify_one()
    ...     await notify.notified()
    >>> run(main())
    """

    __slots__ = ("__weakref__", "_calls", "_pool")

    def __init__(self) -> None:
        self._pool = PermitPool(0)
        self._calls = 0  # how often all were notified

    def notified(self) -> Notified:
        """What to wait for: await it, select over it, or block a thread on it.

        `notify_waiters` counts it from now on, `notify_one` and `notify_last` from when it is awaited.
        """
        return Notified(self)

    def notify_one(self) -> None:
        """Wake the party that has waited longest; when nobody waits, store a permit. Never waits."""
        self._pool.section.run(self._notify_one)

    def notify_last(self) -> None:
        """Wake the party that came last; when nobody waits, store a permit. Never waits."""
        self._pool.section.do(self._notify_last)

    def notify_waiters(self) -> None:
        """Wake everybody who waits, and every `notified()` that was made before this call. Stores nothing."""
        self._pool.section.do(self._notify_waiters)

    def _notify_one(self) -> None:
        waiters = self._pool.waiters
        while waiters:
            if waiters.popleft().hand(None):
                return
        self._store()

    def _notify_last(self) -> None:
        waiters = self._pool.waiters
        while waiters:
            waiter = waiters.pop()
            waiter.operation = _Handed(self._notify_last)
            if waiter.hand(None):
                return
        self._store()

    def _store(self) -> None:
        pool = self._pool
        if not pool.tokens:
            pool.tokens.append(None)
        if pool.waiters:  # parked just now, in another thread: perhaps it has looked already
            pool.serve_locked()

    def _notify_waiters(self) -> None:
        self._calls += 1
        # The count, *then* the queue: who parks meanwhile looks at the count after that.
        for waiter in self._pool.waiters.copy():
            waiter.operation._tell(waiter)

    def statistics(self) -> WaitStatistics:
        """Look at it, for logs and debuggers."""
        return WaitStatistics(waiting=self._pool.parked)

    def __repr__(self) -> str:
        state = "a permit" if self._pool.tokens else "no permit"
        return f"<Notify {state}, {self._pool.parked} waiting at {id(self):#x}>"


@final
class Notified:
    """A notification to wait for. Made by `Notify.notified`.

    Cancel safe: a notification that a cancelled wait had been handed goes to the next party, or is stored. When it has
    come, this can be waited for again, and then waits for what comes after it.
    """

    __slots__ = ("_calls", "_notify")

    need = 1  # as a `Want` it asks for the one permit

    def __init__(self, notify: Notify) -> None:
        self._notify = notify
        self._calls = notify._calls  # whenever all are notified, the two differ until this has been told

    def __await__(self) -> Generator[Any, None, None]:
        notify = self._notify
        if notify._pool.tokens or self._calls != notify._calls:
            return self._wait_with_budget().__await__()
        return park(self).__await__()

    async def _wait_with_budget(self) -> None:
        await cooperative()
        await park(self)

    def blocking_wait(self, timeout: float | None = None) -> bool:
        """Block this thread, for at most `timeout` seconds; tell whether there was a notification.

        Raises RuntimeError in a thread that runs an event loop.
        """
        try:
            park_thread(self, timeout)
        except TimeoutError:
            return False
        return True

    def register(self, waiter: Waiter[Any]) -> None:
        """Park `waiter` until there is a notification for it. See `yamanote.runtime.Selectable`."""
        notify = self._notify
        if self._calls == notify._calls:
            notify._pool.enlist(waiter, self)
        # Parked, *then* looked: see `Notify._notify_waiters`.
        if self._calls != notify._calls:
            notify._pool.section.do(partial(self._tell, waiter))

    def withdraw(self, waiter: Waiter[Any]) -> None:
        """Forget `waiter`; a notification that it was handed goes to the next."""
        self._notify._pool.delist(waiter)

    def _tell(self, waiter: Waiter[Any]) -> None:
        """Hand `waiter` a notification of all. Under the lock."""
        discard(self._notify._pool.waiters, waiter)
        waiter.operation = _Handed(self._untell)
        if waiter.hand(None):
            self._calls = self._notify._calls

    def _untell(self) -> None:
        self._calls -= 1

    # ---------------------------------------------------------------- as a want of the permit pool

    grant = None  # nothing comes with it

    def revoke(self, granted: None) -> int:
        return 0 if self._notify._pool.tokens else 1

    def refuse(self) -> BaseException:
        raise RuntimeError("the pool of a Notify is never closed")


@final
class _Handed:
    """A notification that was no permit, and how it is given back."""

    __slots__ = ("_give_back",)

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back = give_back

    def revoke(self, granted: None) -> int:
        self._give_back()
        return 0
