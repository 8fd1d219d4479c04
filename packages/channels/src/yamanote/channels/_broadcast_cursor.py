"""Cursor: where one receiver stands in the log of a broadcast channel, and who may move it.

Invariant: a cursor is moved only by whoever has its *turn*, a token which the atomic `list.pop` takes and `list.append`
puts back. The critical section of the log keeps the turn of a cursor about which there is anything unusual (parked
calls, items that came back, a lag to be told, a sender that waits for it, closed), and so the ordinary path has no
checks for those. Who finds the turn taken sets `wanted`, *then* tries once more; who puts it back, *then* looks at
`wanted`: so of two that race at least one sees the other.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Generic, TypeVar

from yamanote.channels._errors import Lagged
from yamanote.runtime import Waiter

__all__ = ["Cursor", "Entry", "Place"]

T = TypeVar("T")

Entry = tuple[int, Lagged | None, Any]
"""What a cursor has been moved over: its number, and that items were missed, or an item."""


class Place(Generic[T]):
    """A place in the log: the one at the end has no `next` and no `item` yet."""

    __slots__ = ("item", "next", "number")

    item: T

    def __init__(self, number: int) -> None:
        self.number: int = number
        self.next: Place[T] | None = None


class Cursor(Generic[T]):
    """Where one receiver stands. Whoever has the turn moves it."""

    __slots__ = ("closed", "heir", "missed", "parked", "place", "returned", "seized", "turn", "wanted", "watched")

    place: Place[T]
    """What it receives next. May be looked at without the turn: then it is a place where it stood a moment ago."""
    turn: list[None]
    """One element for who may move it."""
    wanted: bool
    """Whether somebody wanted the turn while it was taken."""
    seized: bool
    """Whether the section keeps the turn."""
    parked: deque[Waiter[T]]
    """Who waits for an item, oldest first."""
    returned: list[Entry]
    """What came back, oldest first, with its number: an item, or that some were missed."""
    missed: int
    """How many items were dropped right before `place`, and not told yet."""
    watched: bool
    """Whether a sender waits until it moves."""
    closed: bool
    heir: Cursor[T] | None
    """Who goes on in its place, once it is closed: what was handed over, and then comes back, is the heir's."""

    def __init__(self, place: Place[T]) -> None:
        self.place = place
        self.turn = [None]
        self.wanted = False
        self.seized = False
        self.parked = deque()
        self.returned = []
        self.missed = 0
        self.watched = False
        self.closed = False
        self.heir = None

    def copy(self) -> Cursor[T]:
        """Another cursor at the same place."""
        twin = Cursor(self.place)
        twin.returned = self.returned.copy()
        twin.missed = self.missed
        if twin.returned or twin.missed:
            twin.seize()
        return twin

    def seize(self) -> bool:
        """Take the turn and keep it; False while somebody on the ordinary path has it, who will see `wanted`."""
        if not self.seized:
            self.wanted = True
            try:
                self.turn.pop()
            except IndexError:
                return False
            self.wanted = False
            self.seized = True
        return True

    def release(self) -> None:
        """Put the turn back, unless there is something unusual."""
        if self.seized and not (self.parked or self.returned or self.missed or self.watched or self.closed):
            self.seized = False
            self.turn.append(None)
