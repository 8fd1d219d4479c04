"""The maker of broadcast channels, and what both their ends have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from yamanote.channels._arguments import require_count
from yamanote.channels._broadcast_cursor import Cursor
from yamanote.channels._broadcast_log import BroadcastLog, Overflow
from yamanote.channels._broadcast_receiver import BroadcastReceiver
from yamanote.channels._broadcast_sender import BroadcastSender

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # checkers know it without an installation

    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["broadcast"]


class broadcast(tuple[BroadcastSender[T], BroadcastReceiver[T]]):  # a class, so that broadcast[int](10) works
    """A channel whose every receiver gets every item that is sent after it has subscribed, in one order for all.

    A receiver can be `capacity` items behind. `overflow` says what happens when an item is sent and the slowest
    receiver has no room for it:

    - ``"lag"``: that receiver loses its oldest item, and is told how many it missed (`Lagged`); nobody waits for it;
    - ``"drop_oldest"``: the same, but it is not told;
    - ``"suspend"``: `send` waits until the slowest receiver has made room;
    - ``"drop_newest"``: the new item is dropped, for all;
    - ``"error"``: `send` raises ChannelFull.

    The latest `replay` items are kept for those who subscribe later: these get them first. For checkers,
    `broadcast[int](10)` gives the type of the items.

    Raises ValueError when `capacity` is not positive, `replay` is negative or more than the capacity, or `overflow` is
    none of these; TypeError when one of the numbers is no whole number.

    >>> async def main():
    ...     tx, rx = broadcast(10)
    ...     with tx, rx, tx.subscribe() as other:
    ...         await tx.send("to everybody")
    ...         return await rx.recv(), await other.recv()
    >>> run(main())
    ('to everybody', 'to everybody')
    """

    def __new__(  # type: ignore[misc]  # it makes a pair of ends, not an instance
        cls, capacity: int, *, replay: int = 0, overflow: Overflow = "lag"
    ) -> tuple[BroadcastSender[T], BroadcastReceiver[T]]:
        """Make a sender and the first receiver."""
        require_count("capacity", capacity)
        require_count("replay", replay, least=0)
        if replay > capacity:
            raise ValueError(f"replay must be at most the capacity ({capacity}), not {replay}")
        if overflow not in get_args(Overflow):
            raise ValueError(f"overflow must be one of {', '.join(map(repr, get_args(Overflow)))}, not {overflow!r}")
        log: BroadcastLog[T] = BroadcastLog(capacity, replay, overflow)
        return BroadcastSender(log), BroadcastReceiver(log, Cursor(log.end))
