"""Versioned cell: a value, how often it was changed, and who waits for what to become true of it.

Invariant: each waiter is settled by the first change after which its predicate holds, with the value of that very
change; a waiter whose predicate holds already is settled at once. A later change takes nothing back. A value and its
version are published in one store: whoever reads `state` sees both of the same change.

Events, latches, buttons and what is set once are this cell with different predicates. A watch channel is not: its
receivers are also told of the end, and have a mark to take back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar, final

from yamanote.runtime import CriticalSection, Waiter, cooperative, park, park_thread

__all__ = ["VersionedCell", "WaitStatistics", "When"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WaitStatistics:
    """A look at something to wait for; exact only while no other thread uses it."""

    waiting: int
    """Parties that wait."""


@final
class VersionedCell(Generic[T]):
    """A value that tasks and threads can wait on. An engine: build primitives on it."""

    __slots__ = ("_section", "_waiters", "state")

    state: tuple[T, int]
    """The current value and its version, which begins at 0 and grows by one with each change. Read it from any thread;
    change it with `set`."""

    def __init__(self, value: T) -> None:
        self.state = (value, 0)
        self._waiters: deque[Waiter[T]] = deque()
        self._section = CriticalSection()

    @property
    def value(self) -> T:
        """The current value."""
        return self.state[0]

    @property
    def version(self) -> int:
        """How often the value was changed."""
        return self.state[1]

    @property
    def parked(self) -> int:
        """How many parties wait."""
        return len(self._waiters)

    def statistics(self) -> WaitStatistics:
        """Look at it, for logs and debuggers."""
        return WaitStatistics(waiting=self.parked)

    def set(self, value: T) -> T:
        """Change the value, and wake everybody whose predicate holds now, oldest first. Any thread may call it.

        Returns the value that was replaced (or `value`, for a finalizer that began inside of another `set`: its change
        comes after that one).
        """
        replaced: list[T] = []  # and let go of here, outside of the lock: its destructor is foreign code
        self._section.do(partial(self._change, value, replaced))
        return replaced[0] if replaced else value

    def change(self, value: T) -> bool:
        """`set`, unless `value` is the current value already; tell whether it changed.

        (False, too, for a finalizer that began inside of another change: its own comes after that one.)
        """
        if self.state[0] is value:
            return False
        replaced: list[T] = []
        self._section.do(partial(self._change_unless, value, replaced))
        return bool(replaced)

    def _change_unless(self, value: T, replaced: list[T]) -> None:
        if self.state[0] is not value:
            self._change(value, replaced)

    def set_if(self, version: int, value: T) -> bool:
        """`set`, unless the value was changed since it had this `version`; tell whether it worked.

        For changes that depend on the value: read the `state`, compute without any lock, try, and begin again when
        somebody was faster. Raises RuntimeError in a finalizer or a signal handler that began inside of another change
        of this cell: nothing can be tried there.
        """
        replaced: list[T] = []
        untried: list[None] = [None]
        self._section.do(partial(self._change_if, version, value, replaced, untried))
        try:
            untried.pop()  # and nobody will try it later
        except IndexError:
            return bool(replaced)
        raise RuntimeError("set_if() was called inside of another change of the same cell")

    def _change_if(self, version: int, value: T, replaced: list[T], untried: list[None]) -> None:
        try:
            untried.pop()
        except IndexError:
            return
        if self.state[1] == version:
            self._change(value, replaced)

    def _change(self, value: T, replaced: list[T]) -> None:
        before, version = self.state
        replaced.append(before)
        self.state = (value, version + 1)
        self._wake_locked()

    def when(self, predicate: Callable[[VersionedCell[T]], bool]) -> When[T]:
        """What to wait for until `predicate(cell)` is true; it gives the value.

        The predicate looks at the `state` and at nothing else, is quick, and does not raise: it runs under the lock of
        the cell, at each change, and once for all waiters that bring the same one.
        """
        return When(self, predicate)

    def when_changed(self, since: int) -> When[T]:
        """What to wait for until the version is another than `since`; it gives the value."""
        return When(self, lambda cell: cell.state[1] != since)

    def _wake_locked(self) -> None:
        waiters = self._waiters
        value = self.state[0]
        asked: object = None
        holds = False
        # The copy is made even of nothing: it is what orders the change before, or behind, an append in `_register`.
        for waiter in waiters.copy():
            predicate = waiter.operation
            if predicate is not asked:
                asked = predicate
                holds = predicate(self)
            if holds:
                waiters.remove(waiter)
                waiter.hand(value)

    def _register(self, waiter: Waiter[T], predicate: Callable[[VersionedCell[T]], bool]) -> None:
        # Parked, *then* looked: a change in another thread sees the waiter, or this sees the change.
        waiter.operation = predicate
        self._waiters.append(waiter)
        if predicate(self):
            self._section.do(self._wake_locked)

    def _withdraw(self, waiter: Waiter[T]) -> None:
        self._section.do(partial(self._forget, waiter))

    def _forget(self, waiter: Waiter[T]) -> None:
        try:
            self._waiters.remove(waiter)
        except ValueError:
            pass  # it was woken: there is nothing to give back, a value can be seen by many


@final
class When(Generic[T]):
    """Waits until something becomes true of a cell. Await it, select over it, or block a thread on it.

    Made by `VersionedCell.when`. Cancel safe: a value is seen, not taken.
    """

    __slots__ = ("_cell", "_predicate")

    def __init__(self, cell: VersionedCell[T], predicate: Callable[[VersionedCell[T]], bool]) -> None:
        self._cell = cell
        self._predicate = predicate

    def __await__(self) -> Generator[Any, None, T]:
        return self._wait().__await__()

    async def _wait(self) -> T:
        if self._predicate(self._cell):
            await cooperative()
        return await park(self)

    def blocking_wait(self, timeout: float | None = None) -> bool:
        """Block this thread, for at most `timeout` seconds; tell whether it became true.

        Raises RuntimeError in a thread that runs an event loop.
        """
        try:
            park_thread(self, timeout)
        except TimeoutError:
            return False
        return True

    def register(self, waiter: Waiter[Any]) -> None:
        """Park `waiter` until the predicate holds. See `yamanote.runtime.Selectable`."""
        self._cell._register(waiter, self._predicate)

    def withdraw(self, waiter: Waiter[Any]) -> None:
        """Forget `waiter`."""
        self._cell._withdraw(waiter)
