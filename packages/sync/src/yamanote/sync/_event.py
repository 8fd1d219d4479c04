"""Event: a flag to wait for.

Invariant: who waits when the flag is set is woken, also when it is cleared before they run. `set` and `clear` say
whether it was they who changed it: of two that do the same at once, one did.
"""

from __future__ import annotations

from typing import Any, Literal, final

from yamanote.runtime import BUDGET, Waiter, park, refuse_loop_thread, yield_now
from yamanote.sync._cell import VersionedCell, WaitStatistics

__all__ = ["Event"]


@final
class Event:
    """A flag that is set and cleared, and that tasks and threads wait for.

    `set` wakes everybody who waits, first in, first out, also when the flag is cleared before they run. All calls may
    come from any task of any loop and from any thread. To select over it: `select(stopped=event)`.

    >>> async def main():
    ...     event = Event()
    ...     event.set()
    ...     return await event.wait()
    >>> run(main())
    True
    """

    __slots__ = ("__weakref__", "_cell", "_left")

    def __init__(self) -> None:
        self._cell = VersionedCell(False)
        self._left = BUDGET

    def is_set(self) -> bool:
        """Whether the flag is set."""
        return self._cell.value

    def set(self) -> bool:
        """Set the flag; tell whether that changed it."""
        return self._cell.change(True)

    def clear(self) -> bool:
        """Clear the flag; tell whether that changed it."""
        return self._cell.change(False)

    async def wait(self) -> Literal[True]:
        """Wait until the flag is set; return at once if it is. Always True, as with `asyncio.Event`.

        **Cancel safety:** nothing to lose.
        """
        if (left := self._left) and self._cell.state[0]:
            self._left = left - 1  # not `-= 1`: other threads count here, too, and it must not fall below 0
            return True
        self._left = BUDGET
        if self._cell.value:
            await yield_now()
        else:
            await park(self)
        return True

    def blocking_wait(self, timeout: float | None = None) -> bool:
        """`wait`, for plain threads: blocks for at most `timeout` seconds, and tells whether the flag was set.

        Raises RuntimeError in a thread that runs an event loop.
        """
        refuse_loop_thread(timeout)
        return self._cell.value or self._cell.when(is_true).blocking_wait(timeout)

    def statistics(self) -> WaitStatistics:
        """Look at it, for logs and debuggers."""
        return self._cell.statistics()

    def register(self, waiter: Waiter[Any]) -> None:
        """Park `waiter` until the flag is set. See `yamanote.runtime.Selectable`."""
        self._cell._register(waiter, is_true)

    def withdraw(self, waiter: Waiter[Any]) -> None:
        """Forget `waiter`."""
        self._cell._withdraw(waiter)

    def __repr__(self) -> str:
        return f"<Event {'set' if self.is_set() else 'unset'}, {self._cell.parked} waiting at {id(self):#x}>"


def is_true(cell: VersionedCell[bool]) -> bool:
    """The predicate of who waits for a flag to be set."""
    return cell.state[0]
