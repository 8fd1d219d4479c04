"""What both ends of a broadcast channel have in common: thin handles on a `BroadcastLog`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from yamanote.channels._broadcast_log import BroadcastLog
from yamanote.channels._end import End

__all__ = ["BroadcastHandle", "BroadcastStatistics"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BroadcastStatistics:
    """A look at a broadcast channel; exact only while no other thread uses it."""

    accepted: int
    """Items that were sent since the channel was made."""
    dropped: int
    """Items that were dropped for all, with ``overflow="drop_newest"``."""
    buffered: int
    """Items that the slowest receiver has yet to receive."""
    capacity: int
    """How many items a receiver can be behind."""
    senders: int
    """Open sending handles."""
    receivers: int
    """Open receiving handles."""
    waiting_senders: int
    """Parked `send` calls."""
    waiting_receivers: int
    """Parked `recv` calls."""


class BroadcastHandle(End, Generic[T]):
    """What both ends have in common."""

    __slots__ = ("_log",)

    def __init__(self, log: BroadcastLog[T]) -> None:
        super().__init__()
        self._log = log

    @property
    def capacity(self) -> int:
        """How many items a receiver can be behind."""
        return self._log.capacity

    @property
    def receiver_count(self) -> int:
        """How many receivers are open."""
        return len(self._log.cursors)

    def same_channel(self, other: BroadcastHandle[Any]) -> bool:
        """Whether `other` is a handle, of either end, of this very channel."""
        return isinstance(other, BroadcastHandle) and self._log is other._log

    def statistics(self) -> BroadcastStatistics:
        """Look at the channel, for logs and debuggers."""
        log = self._log
        cursors = list(log.cursors)
        return BroadcastStatistics(
            accepted=log.end.number,
            dropped=log.dropped,
            buffered=log.buffered,
            capacity=log.capacity,
            senders=log.sender_handles,
            receivers=len(cursors),
            waiting_senders=len(log.senders),
            waiting_receivers=sum(len(cursor.parked) for cursor in cursors),
        )

    def __bool__(self) -> bool:
        return True  # an empty channel is still a channel
