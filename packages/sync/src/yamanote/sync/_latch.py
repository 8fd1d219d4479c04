"""Latch: a flag to wait for, in both directions.

Invariant: each wait is settled by the first change after which it is met, with the state that this change made; the
next change takes nothing back. So a latch that is set and unset at once wakes who waits for it to be set, who waits for
it to be unset, and who waits for its next change, each once.
"""

from __future__ import annotations

from typing import final

from yamanote.sync._cell import VersionedCell, WaitStatistics, When
from yamanote.sync._event import is_true

__all__ = ["Latch"]


@final
class Latch:
    """A flag like `Event` whose other edge can be waited for as well.

    `wait_set`, `wait_unset` and `wait` return what to wait for: await it, give it to `select`, or block a thread with
    its `blocking_wait`. Cancelling any of these loses nothing. All calls may come from any task of any loop and from
    any thread. A latch that counts down is `TaskTracker` (`yamanote.runtime`), or a `Barrier`.

    >>> async def main():
    ...     busy = Latch()
    ...     changed = busy.wait()
    ...     busy.set()
    ...     return await changed, await busy.wait_set()
    >>> run(main())
    (True, True)
    """

    __slots__ = ("__weakref__", "_cell")

    def __init__(self) -> None:
        self._cell = VersionedCell(False)

    def is_set(self) -> bool:
        """Whether the latch is set."""
        return self._cell.value

    def set(self) -> bool:
        """Set the latch; tell whether that changed it."""
        return self._cell.change(True)

    def unset(self) -> bool:
        """Unset the latch; tell whether that changed it."""
        return self._cell.change(False)

    def toggle(self, value: bool) -> bool:
        """`set` if `value` is true, `unset` if it is false; tell whether that changed it."""
        return self._cell.change(bool(value))

    def wait_set(self) -> When[bool]:
        """What to wait for until the latch is set; it gives True."""
        return self._cell.when(is_true)

    def wait_unset(self) -> When[bool]:
        """What to wait for until the latch is not set; it gives False."""
        return self._cell.when(_is_false)

    def wait(self) -> When[bool]:
        """What to wait for until the latch changes, from this call on; it gives the state that it has then.

        For each change one call: what it returned stays true once it is.
        """
        return self._cell.when_changed(self._cell.version)

    def statistics(self) -> WaitStatistics:
        """Look at it, for logs and debuggers."""
        return self._cell.statistics()

    def __repr__(self) -> str:
        return f"<Latch {'set' if self.is_set() else 'unset'}, {self._cell.parked} waiting at {id(self):#x}>"


def _is_false(cell: VersionedCell[bool]) -> bool:
    return not cell.state[0]
