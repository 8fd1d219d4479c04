"""Acquirable: the manners that all locks and semaphores share, whatever it is that they hand out.

A kind of lock says how it is taken now (`try_acquire`), how one parks for it (`register`, `withdraw`) and how it is
given back (`release`). All the forms for tasks and for threads follow from that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Literal, Protocol, Self, TypeVar, final

from yamanote.runtime import BUDGET, Waiter, park, park_thread, refuse_loop_thread, yield_now
from yamanote.sync._errors import WouldBlock

__all__ = ["Acquirable", "Acquiring", "Held", "LockStatistics"]


@dataclass(frozen=True, slots=True)
class LockStatistics:
    """A look at a lock or a semaphore; exact only while no other thread uses it."""

    free: int
    """Permits that are free."""
    waiting: int
    """Parties that wait."""


class Acquirable(ABC):
    """What can be acquired and released, by tasks of any loop and by plain threads."""

    __slots__ = ("__weakref__", "_left")

    def __init__(self) -> None:
        self._left = BUDGET  # how many ready acquisitions in a row until the next yield

    async def acquire(self) -> Literal[True]:
        """Take it, waiting for it if need be. Always True, as in asyncio.

        First in, first out. Tasks of any loop may call it. Releasing is up to you: prefer `async with`.

        **Cancel safety:** what had been handed to a cancelled call goes to the next in the queue.
        """
        if not (left := self._left):
            self._left = left = BUDGET
            if self._ready():  # who has to wait in any case is to queue at once
                await yield_now()
        if self.try_acquire():
            self._left = left - 1  # not one less than it is now: other loops count as well, and it would miss zero
        else:
            self._left = BUDGET
            await park(self)
        return True

    @abstractmethod
    def try_acquire(self) -> bool:
        """Take it if it is to be had now and nobody waits for it; tell whether it worked. Any thread may call it."""

    def blocking_acquire(self, timeout: float | None = None) -> None:
        """`acquire`, for plain threads: blocks for at most `timeout` seconds, then raises TimeoutError.

        Raises RuntimeError in a thread that runs an event loop.
        """
        refuse_loop_thread(timeout)
        if not self.try_acquire():
            park_thread(self, timeout)

    def or_raise(self) -> Held[Self]:
        """Take it now, and return what to enter (`with lock.or_raise():`); raise WouldBlock if it is not to be had.

        It never waits, so that `with` is right in tasks, too.
        """
        if not self.try_acquire():
            raise self._unavailable()
        return Held(self)

    def _unavailable(self) -> Exception:
        return WouldBlock(f"{self!r} is not to be had now")

    @abstractmethod
    def release(self) -> None:
        """Give it back; the party that has waited longest gets it. Never waits; any thread may call it."""

    @abstractmethod
    def locked(self) -> bool:
        """Whether `acquire` would wait."""

    def _ready(self) -> bool:
        return not self.locked()

    @abstractmethod
    def register(self, waiter: Waiter[Any]) -> None:
        """Park `waiter` until it has what it wants. See `yamanote.runtime.Selectable`."""

    @abstractmethod
    def withdraw(self, waiter: Waiter[Any]) -> None:
        """Forget `waiter`; what it was handed goes to the next."""

    def __call__(self) -> Acquiring[Self]:
        """What takes it, awaited or entered: `with (yield lock()):` in a generator, `async with lock():` for tasks."""
        return Acquiring(self)

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def __enter__(self) -> None:
        """For plain threads; in a task, write `async with`."""
        self.blocking_acquire()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


A = TypeVar("A", bound=Acquirable)


@final
class Acquiring(Generic[A]):
    """A lock that is to be taken. Made by calling it.

    Awaiting it takes the lock, as `acquire` does, and gives what to enter: ``with await lock():``, and
    ``with (yield lock()):`` in a generator that is run as a coroutine. Otherwise it is the lock itself: for
    ``async with lock():`` in tasks, ``with lock():`` in plain threads, and as a branch of a `select`.

    **Cancel safety:** that of `acquire`.

    >>> async def main():
    ...     lock = Lock()
    ...     with await lock():
    ...         return lock.locked()
    >>> run(main())
    True
    """

    __slots__ = ("_thing",)

    def __init__(self, thing: A) -> None:
        self._thing = thing

    def __await__(self) -> Generator[Any, None, Held[A]]:
        yield from self._thing.acquire().__await__()
        return Held(self._thing)

    async def __aenter__(self) -> None:
        await self._thing.__aenter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._thing.__aexit__(exc_type, exc, traceback)

    def __enter__(self) -> None:
        """For plain threads; in a task, write `async with`, and in a generator `with (yield lock()):`."""
        self._thing.__enter__()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thing.__exit__(exc_type, exc, traceback)

    def register(self, waiter: Waiter[Any]) -> None:
        """Park `waiter` until it has the lock. See `yamanote.runtime.Selectable`."""
        self._thing.register(waiter)

    def withdraw(self, waiter: Waiter[Any]) -> None:
        """Forget `waiter`; what it was handed goes to the next."""
        self._thing.withdraw(waiter)

    def __repr__(self) -> str:
        return f"<Acquiring {self._thing!r}>"


class Releasable(Protocol):
    def release(self) -> None: ...


R = TypeVar("R", bound=Releasable)


@final
class Held(Generic[R]):
    """Something that is yours already: the end of the block gives it back.

    Made by `or_raise()`, and by awaiting a lock that is called; enter it once.
    """

    __slots__ = ("_thing",)

    def __init__(self, thing: R) -> None:
        self._thing = thing

    def __enter__(self) -> R:
        return self._thing

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thing.release()

    async def __aenter__(self) -> R:
        return self._thing

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thing.release()

    def __repr__(self) -> str:
        return f"<Held {self._thing!r}>"
