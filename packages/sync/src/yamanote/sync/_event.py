"""Event: a flag to wait for."""

from __future__ import annotations

from typing import Any, Literal, final

from yamanote.runtime import BUDGET, Waiter, park, park_thread, refuse_loop_thread, yield_now
from yamanote.sync._cell import VersionedCell

__all__ = ["Event"]


@final
class Event:
    """A flag that is set and cleared, and that tasks and threads wait for.

    `set` wakes everybody who waits, first in, first out, also when the flag is cleared before they run. All calls may
    come from any task of any loop and from any thread.

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
        return self._change(True)

    def clear(self) -> bool:
        """Clear the flag; tell whether that changed it."""
        return self._change(False)

    def _change(self, value: bool) -> bool:
        return self._cell.value is not value and self._cell.set(value) is not value

    async def wait(self) -> Literal[True]:
        """Wait until the flag is set; return at once if it is. Always True, as with `asyncio.Event`. Cancel safe."""
        if not self._cell.value:
            self._left = BUDGET
            await park(self)
        elif left := self._left:
            self._left = left - 1
        else:
            self._left = BUDGET
            await yield_now()
        return True

    def blocking_wait(self, timeout: float | None = None) -> bool:
        """`wait`, for plain threads: blocks for at most `timeout` seconds, and tells whether the flag was set.

        Raises RuntimeError in a thread that runs an event loop.
        """
        refuse_loop_thread(timeout)
        if not self._cell.value:
            try:
                park_thread(self, timeout)
            except TimeoutError:
                return False
        return True

    def register(self, waiter: Waiter[Any]) -> None:
        """Park `waiter` until the flag is set. See `yamanote.runtime.Selectable`."""
        self._cell._register(waiter, _is_set)

    def withdraw(self, waiter: Waiter[Any]) -> None:
        """Forget `waiter`."""
        self._cell._withdraw(waiter)

    def __repr__(self) -> str:
        return f"<Event {'set' if self.is_set() else 'unset'}, {self._cell.parked} waiting at {id(self):#x}>"


def _is_set(cell: VersionedCell[bool]) -> bool:
    return cell.value
