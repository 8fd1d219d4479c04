"""The channel without a capacity: there is always room, so that only permits are counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, final

from yamanote.channels._handover import Handover
from yamanote.channels._permit import Reservation
from yamanote.channels._sender import Sender
from yamanote.runtime import BUDGET, Waiter, yield_now
from yamanote.sync import Want

__all__ = ["UnboundedHandover", "UnboundedSender"]

T = TypeVar("T")


@final
class UnboundedHandover(Handover[T]):
    """The state of one unbounded channel."""

    __slots__ = ("_permits",)

    def __init__(self, undelivered: Callable[[T], object] | None) -> None:
        super().__init__(0, undelivered)
        self.tokens = deque(maxlen=0)  # receivers bring back tokens that nobody took
        self._permits = 0

    @property
    def capacity(self) -> None:
        return None

    def under_way(self) -> bool:
        return self._permits > 0

    def take(self, count: int) -> bool:
        self._permits += count
        return True

    def give_back(self, count: int) -> None:
        self.section.do(partial(self.give_back_locked, count))

    def give_back_locked(self, count: int) -> None:
        self._permits -= count
        self.serve_locked()

    def enlist(self, waiter: Waiter[Any], want: Want) -> None:
        # Never behind others: to find somebody in the queue means that the channel is closed.
        waiter.operation = want
        with self.section:
            if not waiter.claim():
                return
            if self.closed:
                waiter.fail(want.refuse())
            else:
                if isinstance(want, Reservation):
                    self.take(want.need)
                waiter.settle(want.grant and want.grant())
                self.serve_locked()

    def forget(self, count: int) -> None: ...


@final
class UnboundedSender(Sender[T]):
    """The sending end of an unbounded channel: `send` never waits for room."""

    __slots__ = ()

    _name = "UnboundedSender"

    _counts_permits = True

    async def send(self, item: T) -> None:
        """Send `item`. Raises ChannelClosed, with the item in `refused`, when nobody can receive it any more.

        Never waits, but yields to other tasks once in a while. Cancel safe: cancelled is not sent.
        """
        if left := self._left:
            self._left = left - 1
        else:
            self._left = BUDGET
            await yield_now()
        if self._senders:
            raise self._refusal(item)
        self._items.append(item)
        if self._receivers:
            self._core.offer(item)

    def send_nowait(self, item: T) -> None:
        """Send `item` now. Raises ChannelClosed, with the item in `refused`. Any thread may call it."""
        if self._senders:
            raise self._refusal(item)
        self._items.append(item)
        if self._receivers:
            self._core.offer(item)

    def _try_send(self, item: T) -> bool:
        self.send_nowait(item)
        return True
