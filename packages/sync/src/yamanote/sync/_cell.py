"""Versioned cell: a value, how often it was changed, and who waits for what to become true of it.

Invariant: each waiter is settled by the first change after which its predicate holds, with the value of that very
change; a waiter whose predicate holds already is settled at once. A later change takes nothing back.

Events, latches, buttons and watch channels are this cell with different predicates.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar, final

from yamanote.runtime import CriticalSection, Waiter

__all__ = ["VersionedCell", "When"]

T = TypeVar("T")


@final
class VersionedCell(Generic[T]):
    """A value that tasks and threads can wait on. An engine: build primitives on it."""

    __slots__ = ("_section", "_waiters", "value", "version")

    value: T
    """The current value. Read it from any thread; change it with `set`."""
    version: int
    """How often `set` was called."""

    def __init__(self, value: T) -> None:
        self.value = value
        self.version = 0
        self._waiters: deque[Waiter[T]] = deque()
        self._section = CriticalSection()

    @property
    def parked(self) -> int:
        """How many parties wait."""
        return len(self._waiters)

    def set(self, value: T) -> T:
        """Change the value, and wake everybody whose predicate holds now, oldest first. Any thread may call it.

        Returns the value that was replaced (or `value`, for a finalizer that began inside of another `set`: its change
        comes after that one).
        """
        replaced: list[T] = []  # and let go of here, outside of the lock: its destructor is foreign code
        self._section.do(partial(self._change, value, replaced))
        return replaced[0] if replaced else value

    def set_if(self, version: int, value: T) -> bool:
        """`set`, unless the value was changed since it had this `version`; tell whether it worked.

        For changes that depend on the value: read it and the version, compute without any lock, try, and begin again
        when somebody was faster.
        """
        replaced: list[T] = []
        self._section.do(partial(self._change_if, version, value, replaced))
        return bool(replaced)

    def _change_if(self, version: int, value: T, replaced: list[T]) -> None:
        if self.version == version:
            self._change(value, replaced)

    def _change(self, value: T, replaced: list[T]) -> None:
        replaced.append(self.value)
        self.value = value
        self.version += 1
        self._wake_locked()

    def when(self, predicate: Callable[[VersionedCell[T]], bool]) -> When[T]:
        """What to `park` on until `predicate(cell)` is true; it gives the value.

        The predicate must be quick and must not raise: it runs under the lock of the cell, at each change.
        """
        return When(self, predicate)

    def _wake_locked(self) -> None:
        # The copy is made even of nothing: it is what orders the change before, or behind, an append in `_register`.
        for waiter in self._waiters.copy():
            if waiter.operation(self):
                try:
                    self._waiters.remove(waiter)
                except ValueError:
                    continue  # by a finalizer, meanwhile
                waiter.hand(self.value)

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
    """Waits until something becomes true of a cell. Made by `VersionedCell.when`."""

    __slots__ = ("_cell", "_predicate")

    def __init__(self, cell: VersionedCell[T], predicate: Callable[[VersionedCell[T]], bool]) -> None:
        self._cell = cell
        self._predicate = predicate

    def register(self, waiter: Waiter[Any]) -> None:
        """Park `waiter` until the predicate holds. See `yamanote.runtime.Selectable`."""
        self._cell._register(waiter, self._predicate)

    def withdraw(self, waiter: Waiter[Any]) -> None:
        """Forget `waiter`."""
        self._cell._withdraw(waiter)
