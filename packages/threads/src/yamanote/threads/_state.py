"""`ThreadsafeState`: a value that threads and tasks share, and wait on.

Invariant: whoever waits for a predicate is offered every change since they began to wait, in order, and gets the first
value for which it holds, be it gone by then. No function of a user's is called under a lock.

The cell calls predicates under its lock, so it is given one that only notes what there is to offer. Who made the change
offers it when it is out of the lock, one thread at a time; who comes meanwhile leaves that to the one who is at it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from inspect import iscoroutinefunction
from threading import get_ident
from typing import Any, Generic, TypeVar, final

from yamanote.runtime import CriticalSection, Waiter, cooperative, park, park_thread
from yamanote.sync import VersionedCell, WaitStatistics, When

__all__ = ["ThreadsafeState", "Until"]

T = TypeVar("T")


@final
class ThreadsafeState(Generic[T]):
    """A value that any thread may change, and that any task or thread may wait on.

    Every `set_value` is a change, also to a value that equals the last one: nobody's ``__eq__`` is called, and a list
    that was extended in place is news. All calls may come from any task of any loop and from any thread.

    For checkers, `ThreadsafeState[int | None](None)` gives the type of the values.

    >>> async def main():
    ...     progress = ThreadsafeState(0)
    ...     done = asyncio.create_task(asyncio.to_thread(progress.blocking_wait_until, lambda percent: percent == 100))
    ...     progress.set_value(50)
    ...     progress.update_value(lambda percent: percent * 2)
    ...     return await done
    >>> run(main())
    100
    """

    __slots__ = ("__weakref__", "_cell", "_changed_by", "_offers", "_section")

    def __init__(self, value: T) -> None:
        self._cell = VersionedCell(value)
        self._changed_by: int | None = None
        """The thread that made the last change, as far as is known."""
        self._offers: deque[Callable[[], None]] = deque()
        self._section = CriticalSection()

    @property
    def value(self) -> T:
        """The current value."""
        return self._cell.value

    def set_value(self, value: T) -> None:
        """Replace the value, and wake whoever waited for that, first in, first out. Never waits."""
        self._changed_by = get_ident()
        self._cell.set(value)
        self._deliver()

    def update_value(self, function: Callable[[T], T], /) -> T:
        """Replace the value by what `function` makes of it, and return that: no change of others is lost.

        The function is called without any lock, and once more for each time that somebody else was faster: it should do
        nothing but compute. When it raises, nothing has changed. Never waits.

        Raises RuntimeError when `function` changes this very state: what it returns would be out of date each time.
        That change stays. TypeError for an async function.
        """
        _require_plain("function", function)
        this_thread = get_ident()
        while True:
            self._changed_by = None
            current, version = self._cell.state
            value = function(current)
            if self._cell.set_if(version, value):
                break
            if self._changed_by == this_thread:
                raise RuntimeError(
                    "the function that update_value() calls has changed the same state: let it return the new value"
                )
        self._changed_by = this_thread
        self._deliver()
        return value

    def wait_until(self, predicate: Callable[[T], object], /) -> Until[T]:
        """What to wait for until `predicate(value)` is true; it gives that value. Await it, or give it to `select`.

        No change is missed from the moment on when it is awaited: a value for which the predicate held is given even if
        it was replaced at once. So look at `value` again if you need the one of now.

        The predicate is called without any lock, in the thread that makes the change: it should be quick, and look at
        nothing but the value. What it raises is raised where it is waited for. TypeError for an async function.

        **Cancel safety:** a value is seen, not taken.
        """
        _require_plain("predicate", predicate)
        return Until(self, predicate)

    def blocking_wait_until(self, predicate: Callable[[T], object], /, timeout: float | None = None) -> T:
        """`wait_until`, for plain threads: blocks for at most `timeout` seconds, then raises TimeoutError.

        Raises RuntimeError in a thread that runs an event loop.
        """
        return park_thread(self.wait_until(predicate), timeout)

    def wait(self) -> When[T]:
        """What to wait for until the value changes, from this call on; it gives the value of that change.

        Await it, give it to `select`, or block a thread with its `blocking_wait`. It stays true once it is: for each
        change one call. **Cancel safety:** a value is seen, not taken.
        """
        return self._cell.when_changed(self._cell.version)

    def statistics(self) -> WaitStatistics:
        """Look at it, for logs and debuggers."""
        return self._cell.statistics()

    def __repr__(self) -> str:
        return f"<ThreadsafeState {self.value!r}, {self._cell.parked} waiting at {id(self):#x}>"

    def _deliver(self) -> None:
        """Make the offers that have been noted, outside of every lock; or leave them to the thread that is at it."""
        if self._offers:
            self._section.do(self._take_offers)

    def _take_offers(self) -> None:
        while self._offers:
            self._section.afterwards.append(self._offers.popleft())


@final
class Until(Generic[T]):
    """Waits until a predicate holds of a state: `ThreadsafeState.wait_until` makes it.

    >>> async def main():
    ...     lamp = ThreadsafeState("red")
    ...     green = lamp.wait_until(lambda colour: colour == "green")
    ...     lamp.set_value("green")
    ...     return await green
    >>> run(main())
    'green'
    """

    __slots__ = ("_predicate", "_state")

    def __init__(self, state: ThreadsafeState[T], predicate: Callable[[T], object]) -> None:
        self._state = state
        self._predicate = predicate

    def __await__(self) -> Generator[Any, None, T]:
        return self._wait().__await__()

    async def _wait(self) -> T:
        value = self._state.value
        if self._predicate(value):
            await cooperative()
            return value
        return await park(self)

    def register(self, waiter: Waiter[Any]) -> None:
        """Park `waiter` until the predicate holds. See `yamanote.runtime.Selectable`."""
        state = self._state
        state._cell.when(partial(self._note, waiter)).register(waiter)
        state._deliver()

    def withdraw(self, waiter: Waiter[Any]) -> None:
        """Forget `waiter`."""
        state = self._state
        state._cell.when(bool).withdraw(waiter)
        state._deliver()  # a finalizer may have made a change in between

    def _note(self, waiter: Waiter[Any], cell: VersionedCell[T]) -> bool:
        self._state._offers.append(partial(self._offer, waiter, cell.value))
        return False  # the cell never settles it

    def _offer(self, waiter: Waiter[Any], value: T) -> None:
        if not waiter.is_waiting():
            self.withdraw(waiter)  # nobody else does, if its loop was closed
            return
        try:
            holds = bool(self._predicate(value))
        except BaseException as error:
            if waiter.claim():
                self.withdraw(waiter)
                waiter.fail(error)
            if not isinstance(error, Exception):  # Ctrl-C is meant for this thread
                raise
            return
        if holds and waiter.claim():
            self.withdraw(waiter)
            waiter.settle(value)


def _require_plain(name: str, function: Callable[..., object]) -> None:
    if not callable(function) or iscoroutinefunction(function):
        raise TypeError(f"{name} must be a plain function, not {function!r}")
