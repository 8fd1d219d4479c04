"""What both ends of a channel have in common: thin handles on a `Handover`.

Invariant: a handle that is closed takes part in nothing any more. Closing it swaps the queues that its ordinary path
looks at for ones that send every call to the slow path, which refuses; the ordinary path itself has no check for it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Generic, Self, TypeVar, final

from yamanote.channels._arguments import require_error
from yamanote.channels._end import End
from yamanote.channels._errors import ChannelClosed, HandleClosed
from yamanote.channels._handover import Handover, discard
from yamanote.runtime import BUDGET, Waiter, park

__all__ = ["SHUT", "ChannelStatistics", "Handle"]

T = TypeVar("T")

SHUT: Any = (None,)
"""Instead of a queue of parked parties: never empty, so that the ordinary path is never taken."""


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """A look at a channel; exact only while no other thread uses it."""

    buffered: int
    """Items that were accepted and not received yet."""
    capacity: int | None
    """How many items it may hold; None for any number."""
    senders: int
    """Open sending handles."""
    receivers: int
    """Open receiving handles."""
    waiting_senders: int
    """Parked `send` and `reserve` calls."""
    waiting_receivers: int
    """Parked `recv` calls."""
    dropped: int
    """Items that the overflow policy has given to the undelivered hook."""


class Handle(End, Generic[T]):
    """What both ends have in common."""

    __slots__ = ("_core", "_left")

    _name: ClassVar[str]
    """What users call it, whatever class it is of."""

    def __init__(self, core: Handover[T]) -> None:
        super().__init__()
        self._core = core
        self._left = BUDGET  # how many ready operations in a row until the next yield

    @property
    def capacity(self) -> int | None:
        """How many items the channel may hold; None for any number."""
        return self._core.capacity

    @property
    def is_closed(self) -> bool:
        """Whether the channel accepts nothing more, or this handle was closed."""
        return self._closed or self._core.closed

    def __len__(self) -> int:
        """How many items were accepted and not received yet."""
        return len(self._core.items)

    def __bool__(self) -> bool:
        return True  # an empty channel is still a channel

    def same_channel(self, other: Handle[Any]) -> bool:
        """Whether `other` is a handle, of either end, of this very channel."""
        return isinstance(other, Handle) and self._core is other._core

    def statistics(self) -> ChannelStatistics:
        """Look at the channel, for logs and debuggers."""
        core = self._core
        return ChannelStatistics(
            buffered=len(core.items),
            capacity=core.capacity,
            senders=core.sender_handles,
            receivers=core.receiver_handles,
            waiting_senders=core.parked,
            waiting_receivers=core.parked_receivers,
            dropped=core.dropped,
        )

    async def closed(self) -> None:
        """Wait until the channel accepts nothing more.

        That is when its last receiver or its last sender has been closed, or after `shutdown`: then a producer
        may stop early. Cancel safe. Any thread's loop may wait.
        """
        if not self._core.closed:
            await park(_Closing(self._core))

    def shutdown(self, cause: BaseException | None = None) -> None:
        """Close the channel for all its handles: nothing more is accepted, and what is there is still received.

        Parked senders get ChannelClosed with their items; permits that are out may still be used. When the
        channel has run dry, receivers get ChannelClosed, raised from `cause` if there is one. The first
        cause counts. May be called from any thread, again and again. Raises TypeError for a cause that is no
        exception.
        """
        require_error(cause)
        core = self._core
        core.section.do(partial(core.shut, cause))

    @abstractmethod
    def clone(self) -> Self:
        """Another handle of the same end, to be closed on its own. Raises HandleClosed when this one is closed."""

    def _moved(self) -> Self:
        """Another handle in place of this one, which is closed: for what owns it from now on."""
        moved = self.clone()
        self.close()
        return moved

    def _drop(self) -> None:
        self._core.section.run(self._forgotten())

    @abstractmethod
    def _forgotten(self) -> Callable[[], None]:
        """What the channel does without this handle."""

    def __repr__(self) -> str:
        core = self._core
        state = "closed" if self._closed else "of a closed channel" if core.closed else "open"
        room = "unbounded" if core.capacity is None else f"of {core.capacity}"
        return f"<{self._name} {state}, {len(core.items)} {room} at {id(core):#x}>"

    def _refusal(self, *refused: Any) -> ChannelClosed:
        if self._closed:
            return HandleClosed(f"this {self._name} was closed", *refused)
        return self._core.refusal(*refused)


@final
class _Closing:
    """Waits until a channel is closed."""

    __slots__ = ("_core",)

    def __init__(self, core: Handover[Any]) -> None:
        self._core = core

    def register(self, waiter: Waiter[None]) -> None:
        with self._core.section:
            if not self._core.closed:
                self._core.watchers.append(waiter)
            elif waiter.claim():
                waiter.settle(None)

    def withdraw(self, waiter: Waiter[None]) -> None:
        self._core.section.do(partial(discard, self._core.watchers, waiter))
