"""Once cell: a value that is made when it is first wanted, once.

Invariant: one party at a time makes the value. When it fails or is cancelled, the party that has waited longest makes
it instead; when it succeeds, everybody gets that value, and nobody makes one ever again.

The turn to make it is the one permit of a semaphore, and the value closes that semaphore: who waits for the turn is
told at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable, iscoroutine
from typing import Any, Generic, TypeVar, final

from yamanote.runtime import refuse_loop_thread
from yamanote.sync._cell import WaitStatistics
from yamanote.sync._errors import SemaphoreClosed, WouldBlock
from yamanote.sync._semaphore import Semaphore
from yamanote.sync._set_once import AlreadySet

__all__ = ["OnceCell"]

T = TypeVar("T")


@final
class OnceCell(Generic[T]):
    """A value that whoever wants it first makes, and that all others get.

    Where somebody else sets the value, and others only wait for it, use `SetOnce`. All calls may come from any task of
    any loop and from any thread.

    >>> async def connect():
    ...     return "connection"
    >>> async def main():
    ...     cell = OnceCell[str]()
    ...     return await asyncio.gather(cell.get_or_init(connect), cell.get_or_init(connect))
    >>> run(main())
    ['connection', 'connection']
    """

    __slots__ = ("__weakref__", "_turn", "_value")

    def __init__(self) -> None:
        self._value: list[T] = []  # one, at most: `None` is a value, too
        self._turn = Semaphore(1)

    async def get_or_init(self, factory: Callable[[], Awaitable[T] | T]) -> T:
        """Return the value; while there is none, make it with `factory`, or wait for who makes it already.

        `factory` is called without arguments, in the calling task. What it returns is the value, and is awaited first
        if it can be. (So a value that can be awaited comes from an async function that returns it.)
        Others wait meanwhile, first in, first out, and do not call theirs unless this one fails.

        Raises what `factory` raises; the value is still to be made then, and the next in the queue does it. A factory
        that asks this very cell waits for itself, for ever.

        **Cancel safety:** who is cancelled while it waits loses nothing. Who is cancelled while it makes the value
        cancels its factory, and the next in the queue makes it.
        """
        # Without a budget: this is no wait any more but a look, as at an attribute.
        if self._value:
            return self._value[0]
        _require_callable(factory)
        try:
            await self._turn.acquire()
        except SemaphoreClosed:
            return self._value[0]
        try:
            made: Any = factory()
            value: T = await made if isawaitable(made) else made
        except BaseException:
            self._turn.release()
            raise
        self._put(value)
        return value

    def blocking_get_or_init(self, factory: Callable[[], T], timeout: float | None = None) -> T:
        """`get_or_init`, for plain threads: waits for at most `timeout` seconds for who makes it already.

        Raises TimeoutError when that time is over, TypeError when `factory` returns something to be awaited, and
        RuntimeError in a thread that runs an event loop.
        """
        refuse_loop_thread(timeout)
        if self._value:
            return self._value[0]
        _require_callable(factory)
        try:
            self._turn.blocking_acquire(timeout)
        except SemaphoreClosed:
            return self._value[0]
        try:
            value = factory()
            if isawaitable(value):
                if iscoroutine(value):
                    value.close()
                raise TypeError(f"factory must return a value, not {value!r}: in a thread nothing can be awaited")
        except BaseException:
            self._turn.release()
            raise
        self._put(value)
        return value

    def set(self, value: T) -> None:
        """Set the value, and give it to everybody who waits. Never waits.

        Raises AlreadySet when there is a value already, and WouldBlock while somebody is about to make it.
        """
        if not self._turn.try_acquire():
            if self._value:
                raise AlreadySet(f"{self!r} has a value already")
            raise WouldBlock(f"the value of {self!r} is being made")
        self._put(value)

    def _put(self, value: T) -> None:
        self._value.append(value)  # before the close, which sends others to look at it
        self._turn.close()

    def get(self) -> T:
        """Return the value. Raises LookupError while there is none, like `ContextVar.get`."""
        if not self._value:
            raise LookupError(f"{self!r} has no value yet")
        return self._value[0]

    def is_set(self) -> bool:
        """Whether it has a value."""
        return bool(self._value)

    def statistics(self) -> WaitStatistics:
        """Look at it, for logs and debuggers."""
        return WaitStatistics(waiting=self._turn.statistics().waiting)

    def __repr__(self) -> str:
        turn = self._turn.statistics()
        state = "set" if self._value else "unset" if turn.free else "being made"
        return f"<OnceCell {state}, {turn.waiting} waiting at {id(self):#x}>"


def _require_callable(factory: object) -> None:
    if not callable(factory):
        if iscoroutine(factory):
            factory.close()
        raise TypeError(f"factory must be a function that makes the value, not {factory!r}")
