"""Set once: a value that one party sets, and that everybody can wait for.

Invariant: the value is set at most once, and whoever has seen it never sees another.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Generic, TypeVar, cast, final

from yamanote.runtime import Waiter, cooperative, park, park_thread
from yamanote.sync._cell import VersionedCell, WaitStatistics

__all__ = ["AlreadySet", "SetOnce"]

T = TypeVar("T")


class AlreadySet(Exception):
    """It has a value already, and keeps it."""


@final
class SetOnce(Generic[T]):
    """A value that is set once, by whoever has it, and that tasks and threads wait for.

    Where those who want the value should make it themselves, use `OnceCell`. All calls may come from any task of any
    loop and from any thread. To select over it: `select(address=once)`.

    >>> async def main():
    ...     address = SetOnce[str]()
    ...     address.set("localhost")
    ...     return await address.wait()
    >>> run(main())
    'localhost'
    """

    __slots__ = ("__weakref__", "_cell")

    def __init__(self) -> None:
        self._cell = VersionedCell[Any](None)

    def is_set(self) -> bool:
        """Whether it has a value."""
        return bool(self._cell.version)

    def set(self, value: T) -> None:
        """Set the value, and wake everybody who waits for it, first in, first out. Never waits.

        Raises AlreadySet when there is a value already: of two that set it at once, one succeeds.
        """
        cell = self._cell
        try:
            is_first = cell.set_if(0, value)
        except RuntimeError:  # in a finalizer or a signal handler that began inside of another call: after that one
            is_first = not cell.version
            cell._section.afterwards.append(partial(cell.set_if, 0, value))
        if not is_first:
            raise AlreadySet(f"{self!r} has a value already")

    def get(self) -> T:
        """Return the value. Raises LookupError while there is none, like `ContextVar.get`."""
        value, is_set = self._cell.state
        if not is_set:
            raise LookupError(f"{self!r} has no value yet")
        return cast("T", value)

    async def wait(self) -> T:
        """Wait for the value and return it; return at once if it is there.

        **Cancel safety:** nothing to lose.
        """
        if self._cell.version:
            await cooperative()
        return await park(self)

    def blocking_wait(self, timeout: float | None = None) -> T:
        """`wait`, for plain threads: blocks for at most `timeout` seconds, then raises TimeoutError.

        Raises RuntimeError in a thread that runs an event loop.
        """
        return park_thread(self, timeout)

    def statistics(self) -> WaitStatistics:
        """Look at it, for logs and debuggers."""
        return self._cell.statistics()

    def register(self, waiter: Waiter[Any]) -> None:
        """Park `waiter` until there is a value. See `yamanote.runtime.Selectable`."""
        self._cell._register(waiter, _is_set)

    def withdraw(self, waiter: Waiter[Any]) -> None:
        """Forget `waiter`."""
        self._cell._withdraw(waiter)

    def __repr__(self) -> str:
        return f"<SetOnce {'set' if self.is_set() else 'unset'}, {self._cell.parked} waiting at {id(self):#x}>"


def _is_set(cell: VersionedCell[Any]) -> bool:
    return cell.state[1] > 0
