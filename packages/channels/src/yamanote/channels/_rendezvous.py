"""The channel of capacity 0, a rendezvous: an item passes from hand to hand.

Invariant: an item is taken from its sender only while a receiver waits that has not been given up, and is handed over
in the same moment. There is a buffer all the same: for what comes back when that receiver is cancelled before it goes
on. Its sender may have gone on already, so the item is the next receiver's, before all others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, final

from yamanote.channels._errors import ChannelClosed, ChannelEmpty
from yamanote.channels._handover import Handover, discard, is_empty
from yamanote.channels._permit import Sending
from yamanote.channels._receiver import Receiver
from yamanote.channels._sender import Sender, SendOnly
from yamanote.runtime import BUDGET, Waiter, park, yield_now
from yamanote.sync import Want

__all__ = ["RendezvousHandover", "RendezvousReceiver", "RendezvousSender"]

T = TypeVar("T")


@final
class RendezvousHandover(Handover[T]):
    """The state of one rendezvous: there is room for an item while somebody waits for it."""

    __slots__ = ()

    def __init__(self, undelivered: Callable[[T], object] | None) -> None:
        super().__init__(0, undelivered)
        self.tokens = deque(maxlen=0)  # room is not counted: it comes and goes with the receivers

    def _serve_senders(self) -> bool:
        if self.closed:
            return super()._serve_senders()  # which refuses them
        waiters, place = self.waiters, 0
        while place < len(waiters) and self._is_awaited():
            waiter = waiters[place]
            if not self._is_awaited_by_others(waiter):
                place += 1
                continue
            del waiters[place]
            if waiter.claim():
                waiter.settle(waiter.operation.grant())
                return True
        return False

    def _is_awaited_by_others(self, waiter: Waiter[Any]) -> bool:
        """Whether an item of `waiter` would go to another party: a select over both sides must not serve itself."""
        if self.receivers[0]._claim is not waiter._claim:
            return True
        return any(other._claim is not waiter._claim and other.is_waiting() for other in self.receivers.copy())

    def _is_awaited(self) -> bool:
        """Whether an item would be handed over at once."""
        receivers = self.receivers
        while receivers and not self.items:
            if receivers[0].is_waiting():
                return True
            receivers.popleft()
        return False

    def enlist(self, waiter: Waiter[Any], want: Want) -> None:
        super().enlist(waiter, want)
        if not is_empty(self.receivers):
            self.serve()

    def forget(self, count: int) -> None: ...


@final
class RendezvousSender(Sender[T]):
    """The sending end of a rendezvous: `send` completes when a receiver has taken the item."""

    __slots__ = ()

    async def send(self, item: T) -> None:
        """Send `item`, waiting until a receiver takes it.

        Raises ChannelClosed, with the item in `refused`, when nobody can receive it any more. Senders that wait are
        served first in, first out. Cancel safe: a cancelled call was not sent, unless the cancellation arrives in the
        very turn in which a receiver has taken the item.
        """
        if left := self._left:
            self._left = left - 1
        else:
            self._left = BUDGET
            await yield_now()
        if not self._try_send(item):
            self._left = BUDGET
            await park(Sending(self, item))

    def _try_send(self, item: T) -> bool:
        core = self._core
        waiter: Waiter[None] = Waiter([None])
        with core.section:
            if self._closed:
                raise self._refusal(item)
            waiter.operation = Sending(self, item)
            core.waiters.append(waiter)
            core.serve_locked()
            if waiter.claim():
                discard(core.waiters, waiter)
                return False
        waiter.result()
        return True

    def _for_sink(self) -> SendOnly[T]:
        return SendOnly(self._moved())

    def _check_reservation(self, count: int) -> None:
        raise ValueError("a channel of capacity 0 has no room to reserve: `send` waits until the item is taken")


@final
class RendezvousReceiver(Receiver[T]):
    """The receiving end of a rendezvous."""

    __slots__ = ()

    async def recv(self) -> T:
        """Receive the item of the sender that has waited longest, waiting for one if there is none.

        Raises ChannelClosed when the channel is closed. Receivers that wait are served first in, first out. Cancel
        safe: an item that had been handed to a cancelled call is the next receiver's.
        """
        if left := self._left:
            self._left = left - 1
        else:
            self._left = BUDGET
            await yield_now()
        try:
            return self.recv_nowait()
        except ChannelEmpty:
            pass
        self._left = BUDGET
        return await park(self)

    def recv_nowait(self) -> T:
        """Receive the item of the sender that has waited longest. Raises ChannelEmpty when nobody waits."""
        core = self._core
        waiter: Waiter[T] = Waiter([None])
        with core.section:
            if self._closed:
                raise self._refusal()
            waiter.operation = self
            core.receivers.append(waiter)
            core.serve_locked()
            if waiter.claim():
                discard(core.receivers, waiter)
                raise ChannelEmpty("nobody waits with an item now")
        return waiter.result()

    def _take_many(self, batch: list[T], limit: int) -> None:
        try:
            while len(batch) < limit:
                batch.append(self.recv_nowait())
        except (ChannelEmpty, ChannelClosed):
            pass
