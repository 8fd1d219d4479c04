"""Channels that never make a sender wait: what happens to the item for which there is no room.

Invariant: an item that makes room for another one goes to the undelivered hook, and is counted. It is the oldest or
the newest one, never one in between, and there are never more items than the capacity;
save when two threads send in the same moment, until the next receive.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, TypeVar, final

from yamanote.channels._errors import ChannelFull
from yamanote.channels._handover import Handover
from yamanote.channels._sender import Sender, SendOnly
from yamanote.runtime import BUDGET, Selectable, Waiter, yield_now

__all__ = ["POLICIES", "OverflowSender"]

T = TypeVar("T")


class OverflowSender(Sender[T]):
    """The sending end of a channel with an overflow policy: `send` never waits for room."""

    __slots__ = ()

    async def send(self, item: T) -> None:
        """Send `item`; when there is no room, the policy says what is dropped. Raises ChannelClosed, with the item.

        With ``overflow="error"`` nothing is dropped: raises ChannelFull, with the item. Never waits, but yields to
        other tasks once in a while. Cancel safe: cancelled is not sent.
        """
        if left := self._left:
            self._left = left - 1
        else:
            self._left = BUDGET
            await yield_now()
        self.send_nowait(item)

    def _try_send(self, item: T) -> bool:
        if super()._try_send(item):
            return True
        core = self._core
        with core.section:
            if self.is_closed:
                return False
            if core.waiters or not core.take(1):
                self._overflow(item)
            else:
                self._items.append(item)
            core.serve_locked()  # who found nothing between two items
        return True

    @abstractmethod
    def _overflow(self, item: T) -> None:
        """There is no room for `item`. Under the lock."""

    def _for_sink(self) -> SendOnly[T]:
        return SendOnly(self._moved())

    def sending(self, item: T) -> Selectable[None]:
        return _SendingNow(self, item)


@final
class _DropOldest(OverflowSender[T]):
    __slots__ = ("_permits",)

    def __init__(self, core: Handover[T]) -> None:
        super().__init__(core)
        if core.permits is None:
            core.permits = []
        self._permits = core.permits

    def _overflow(self, item: T) -> None:
        core = self._core
        try:
            oldest = core.items.popleft()
        except IndexError:
            if core.free + len(self._permits) < core.total:
                # Another thread has received an item, and is about to give its room back.
                self._items.append(item)
                core.forget(1)
                return
            oldest = item  # all the room is reserved
        else:
            self._items.append(item)
        core.drop(oldest)


@final
class _DropNewest(OverflowSender[T]):
    __slots__ = ()

    def _overflow(self, item: T) -> None:
        self._core.drop(item)


@final
class _Refuse(OverflowSender[T]):
    __slots__ = ()

    def _overflow(self, item: T) -> None:
        raise ChannelFull("there is no room now", item)


POLICIES: dict[str, type[Sender[Any]]] = {
    "suspend": Sender,
    "drop_oldest": _DropOldest,
    "drop_newest": _DropNewest,
    "error": _Refuse,
}


@final
class _SendingNow(Selectable[None]):
    """Sends one item as soon as it is registered, since there is nothing to wait for."""

    __slots__ = ("_item", "_sender")

    def __init__(self, sender: Sender[T], item: T) -> None:
        self._sender = sender
        self._item = item

    def register(self, waiter: Waiter[Any], /) -> None:
        if waiter.claim():
            try:
                self._sender.send_nowait(self._item)
            except Exception as error:
                waiter.fail(error)
            else:
                waiter.settle(None)

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        """What was sent is not taken back."""
