"""The makers of channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from yamanote.channels._arguments import require_count, require_plain
from yamanote.channels._handover import Handover
from yamanote.channels._overflow import POLICIES
from yamanote.channels._receiver import Receiver
from yamanote.channels._rendezvous import RendezvousHandover, RendezvousReceiver, RendezvousSender
from yamanote.channels._sender import Sender
from yamanote.channels._unbounded import UnboundedHandover, UnboundedSender

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # checkers know it without an installation

    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["channel", "channel_unbounded"]


class channel(tuple[Sender[T], Receiver[T]]):  # a class, so that the type of the items can be given: channel[int](10)
    """A first-in, first-out channel that holds at most `capacity` items; each item goes to one receiver.

    Both ends can be cloned, and used by any task of any loop and by any thread.

    `capacity` 0 makes a rendezvous: `send` completes when a receiver has taken the item. `overflow` says what a send
    does for which there is no room: it waits ("suspend"), it drops the oldest item of the channel or its own
    ("drop_oldest", "drop_newest"), or it raises ChannelFull ("error").

    `undelivered` is called with each item that was accepted and that nobody can receive any more, because all
    receivers have been closed, or because it was dropped; outside of any lock, one call at a time, in the thread that
    did that or in one that is calling it already.

    For checkers, `channel[int](10)` gives the type of the items. Raises ValueError when `capacity` is negative, or
    when `overflow` is no policy, or one that drops while there is no capacity; TypeError when it is no whole number,
    or when `undelivered` is no plain function.

    >>> async def main():
    ...     tx, rx = channel(2)
    ...     with tx, rx:
    ...         await tx.send("hello")
    ...         return await rx.recv()
    >>> run(main())
    'hello'
    """

    def __new__(  # type: ignore[misc]  # it makes a pair of ends, not an instance
        cls,
        capacity: int,
        *,
        overflow: Literal["suspend", "drop_oldest", "drop_newest", "error"] = "suspend",
        undelivered: Callable[[T], object] | None = None,
    ) -> tuple[Sender[T], Receiver[T]]:
        """Make the two ends."""
        require_count("capacity", capacity, least=0)
        if undelivered is not None:
            require_plain("undelivered", undelivered)
        if overflow not in POLICIES:
            raise ValueError(f"overflow must be one of {', '.join(map(repr, POLICIES))}, not {overflow!r}")
        if capacity:
            core: Handover[T] = Handover(capacity, undelivered)
            return POLICIES[overflow](core), Receiver(core)
        if overflow != "suspend":
            raise ValueError(f"overflow={overflow!r} needs a capacity: a rendezvous holds nothing that could overflow")
        core = RendezvousHandover(undelivered)
        return RendezvousSender(core), RendezvousReceiver(core)


class channel_unbounded(tuple[UnboundedSender[T], Receiver[T]]):
    """Like `channel`, but it holds any number of items, and sending never waits.

    >>> tx, rx = channel_unbounded()
    >>> with tx, rx:
    ...     tx.send_nowait(1)
    ...     rx.recv_nowait()
    1
    """

    def __new__(  # type: ignore[misc]  # it makes a pair of ends, not an instance
        cls, *, undelivered: Callable[[T], object] | None = None
    ) -> tuple[UnboundedSender[T], Receiver[T]]:
        """Make the two ends."""
        if undelivered is not None:
            require_plain("undelivered", undelivered)
        core: UnboundedHandover[T] = UnboundedHandover(undelivered)
        return UnboundedSender(core), Receiver(core)
