"""Condition: wait, without the lock, until somebody who has the lock says that something has changed.

Invariant: a party stands in the queue before it lets the lock go, so no notification can come between; a notification
goes to whoever has waited longest, and on to the next when that party's call does not return; and however a wait ends,
the lock is held again.

A notified party is not put into the queue of the lock by who notifies it, which would cost a loop turn for each party
of a `notify_all`, but asks for the lock when it runs. Those who are notified together do so in their order.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import iscoroutinefunction
from time import monotonic
from types import TracebackType
from typing import Literal, TypeVar, final

from yamanote.runtime import TaskWaiter, ThreadWaiter, Waiter, refuse_loop_thread
from yamanote.sync._acquirable import Held, LockStatistics
from yamanote.sync._lock import Lock
from yamanote.sync._pool import discard

__all__ = ["Condition", "ConditionStatistics"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ConditionStatistics:
    """A look at a condition; exact only while no other thread uses it."""

    waiting: int
    """Parties that wait for a notification."""
    lock: LockStatistics
    """Its lock."""


@final
class Condition:
    """A lock, and a place to wait for a notification: `asyncio.Condition` and `threading.Condition` in one.

    Enter it with `async with` in tasks, with `with` in plain threads; inside, wait and notify. Several conditions may
    share a `lock`. Notifications arrive first in, first out.

    Not `Selectable`: a wait ends with the lock, so it is two waits. In a `select`, use an `Event` or a `Notify`.

    >>> async def main():
    ...     basket, filled = [], Condition()
    ...     async def fill():
    ...         async with filled:
    ...             basket.append("apple")
    ...             filled.notify()
    ...     async with filled, asyncio.TaskGroup() as tasks:
    ...         tasks.create_task(fill())
    ...         await filled.wait_for(lambda: basket)
    ...         return basket.pop()
    >>> run(main())
    'apple'
    """

    __slots__ = ("__weakref__", "_lock", "_waiters")

    def __init__(self, lock: Lock | None = None) -> None:
        if lock is None:
            lock = Lock()
        elif not isinstance(lock, Lock):
            raise TypeError(f"lock must be a yamanote.sync.Lock, not {lock!r}")
        self._lock = lock
        self._waiters: deque[Waiter[None]] = deque()

    async def wait(self) -> Literal[True]:
        """Let the lock go, wait for a notification, take the lock again. Always True, as in asyncio.

        Takes one notification. What it stands for may be over by then: look again, or use `wait_for`.

        **Cancel safety:** a notification that a cancelled call had been given goes to the next. The lock is held again
        before the cancellation is raised.

        Raises RuntimeError when nobody has the lock.
        """
        lock = self._lock
        waiter: TaskWaiter[None] = TaskWaiter()
        self._let_go(waiter)
        interruption: BaseException | None = None
        half_way = False
        try:
            await waiter.future
        except BaseException as error:
            interruption = error
            discard(self._waiters, waiter)
        else:
            # What `acquire` does, without its budget: it might give way, and those notified together keep their order.
            if not lock._waiters:
                try:
                    lock._take()
                    return True
                except IndexError:
                    pass
        while not isinstance(interruption, GeneratorExit):
            try:
                await lock.acquire()
                break
            except (CancelledError, GeneratorExit) as error:
                if interruption is None or isinstance(error, GeneratorExit):
                    interruption = error
        else:
            # The coroutine is thrown away, and can wait no more. When others have the lock, its block must leave it be.
            if not lock.try_acquire():
                lock._bereft.append(None)
                half_way = not waiter.claim()
        if interruption is None:
            return True
        # Looked at with the lock: so has whoever notifies, and no notification is half-way.
        if waiter.settled or half_way:
            self._notify(1)
        try:
            raise interruption
        finally:
            del interruption

    async def wait_for(self, predicate: Callable[[], T]) -> T:
        """Wait until `predicate()` is true, and return what it gave. It is called with the lock held.

        Does not wait when it is true already. As `wait` otherwise. Raises TypeError for an async function: its
        coroutine would always count as true.
        """
        _require_plain(predicate)
        while not (result := predicate()):
            await self.wait()
        return result

    def blocking_wait(self, timeout: float | None = None) -> bool:
        """`wait`, for plain threads: for a notification within `timeout` seconds; tells whether there was one.

        The lock is taken again in any case, however long that takes. Raises RuntimeError when nobody has the lock,
        and in a thread that runs an event loop.
        """
        refuse_loop_thread(timeout)
        lock = self._lock
        waiter: ThreadWaiter[None] = ThreadWaiter()
        self._let_go(waiter)
        interruption: BaseException | None = None  # KeyboardInterrupt, or what else a signal handler raises
        try:
            waiter.sleep(timeout)
        except BaseException as error:
            interruption = error
        notified = not waiter.claim()
        if not notified:
            discard(self._waiters, waiter)
        while True:
            try:
                lock.blocking_acquire()
                break
            except BaseException as error:
                interruption = interruption or error
        if interruption is None:
            return notified
        if notified:
            self._notify(1)
        try:
            raise interruption
        finally:
            del interruption

    def blocking_wait_for(self, predicate: Callable[[], T], timeout: float | None = None) -> T:
        """`wait_for`, for plain threads: for at most `timeout` seconds; returns what `predicate()` gave last.

        Raises as `blocking_wait` does, and TypeError as `wait_for`.
        """
        refuse_loop_thread(timeout)
        _require_plain(predicate)
        end = None if timeout is None else monotonic() + timeout  # a thread that may block has no loop to ask
        while not (result := predicate()):
            left = None if end is None else end - monotonic()
            if left is not None and left <= 0:
                break
            self.blocking_wait(left)
        return result

    def notify(self, n: int = 1) -> None:
        """Wake `n` parties, those who have waited longest; they go on when they get the lock. Never waits.

        Raises RuntimeError when nobody has the lock, and ValueError when `n` is negative.
        """
        if not isinstance(n, int):
            raise TypeError(f"n must be a whole number, not {n!r}")
        if n < 0:
            raise ValueError(f"n must not be negative, but is {n}")
        if not self._lock.locked():
            raise RuntimeError("notify() of a condition whose lock nobody has")
        self._notify(n)

    def notify_all(self) -> None:
        """Wake everybody who waits. As `notify` otherwise."""
        self.notify(len(self._waiters))

    def _notify(self, n: int) -> None:
        waiters = self._waiters
        while n:
            try:
                waiter = waiters.popleft()
            except IndexError:
                return
            if waiter.hand(None):
                n -= 1

    def _let_go(self, waiter: Waiter[None]) -> None:
        self._waiters.append(waiter)  # first: whoever gets the lock now may notify at once
        try:
            self._lock.release()
        except RuntimeError:
            discard(self._waiters, waiter)
            raise RuntimeError("wait() of a condition whose lock nobody has") from None

    # ---------------------------------------------------------------- as its lock

    async def acquire(self) -> Literal[True]:
        """Take the lock. See `Lock.acquire`."""
        return await self._lock.acquire()

    def try_acquire(self) -> bool:
        """Take the lock if it is free. See `Lock.try_acquire`."""
        return self._lock.try_acquire()

    def blocking_acquire(self, timeout: float | None = None) -> None:
        """Take the lock, in a plain thread. See `Lock.blocking_acquire`."""
        self._lock.blocking_acquire(timeout)

    def or_raise(self) -> Held[Lock]:
        """Take the lock now, or raise WouldBlock. See `Lock.or_raise`."""
        return self._lock.or_raise()

    def release(self) -> None:
        """Give the lock up. See `Lock.release`."""
        self._lock.release()

    def locked(self) -> bool:
        """Whether somebody has the lock."""
        return self._lock.locked()

    def __aenter__(self) -> Awaitable[None]:
        return self._lock.__aenter__()

    def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> Awaitable[None]:
        return self._lock.__aexit__(exc_type, exc, traceback)

    def __enter__(self) -> None:
        """For plain threads; in a task, write `async with`."""
        self._lock.blocking_acquire()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()

    def statistics(self) -> ConditionStatistics:
        """Look at it, for logs and debuggers."""
        return ConditionStatistics(len(self._waiters), self._lock.statistics())

    def __repr__(self) -> str:
        state = "locked" if self.locked() else "unlocked"
        return f"<Condition {state}, {len(self._waiters)} waiting at {id(self):#x}>"


def _require_plain(predicate: Callable[..., object]) -> None:
    if not callable(predicate) or iscoroutinefunction(predicate):
        raise TypeError(f"predicate must be a plain function, not {predicate!r}")
