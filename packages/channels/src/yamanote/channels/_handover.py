"""Handover: the engine of the channels. Items that wait for receivers, or receivers that wait for items.

Invariant: once a call has returned, items and live parked receivers are never both there, nor are free room and live
parked senders. Each is served oldest first, and nobody takes what somebody else was already waiting for.

A channel is a permit pool with a buffer behind it: its permits are the room for items, its parked parties are the
senders. The ordinary path takes no lock here either. A sender takes a token, appends its item, *then* looks for
parked receivers; a receiver parks, *then* looks again for items. So of two that race at least one sees both sides,
and that one takes the lock and matches them. A receiver that makes room moves the items of parked senders into the
buffer itself and goes on, so that one loop turn moves a whole buffer.

That "at least one sees both" needs more than atomic operations: on a free-threaded build, to look whether a deque is
empty is a plain read, which the processor may do before the append in front of it is visible. So of the two the rare
one looks under the lock that every deque has (`is_empty`). If its look comes before the append of the other, then its
own append does all the more, and the other sees that; if not, it sees the append itself.

Two marks let the ordinary path notice rare states without a check of their own: a closed pool always has "parked"
parties, so that every sender, and every receiver that makes room, comes to `serve`; and `receivers` begins with
`ENDED` once the end has been announced, so that a sender that was under way all the while comes back for its item
(`offer`). A sender looks for the first mark when it has its token: from then on the end waits for it.
"""

from __future__ import annotations

from bisect import bisect
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import count, repeat
from typing import Any, Generic, TypeVar

from yamanote.channels._errors import ChannelClosed
from yamanote.runtime import Waiter
from yamanote.sync import PermitPool

__all__ = ["ENDED", "Handover", "discard", "is_empty"]

T = TypeVar("T")


class _Ended(Waiter[Any]):
    """Stands in the queue of receivers without waiting: nobody can claim it."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__([])


ENDED = _Ended()


class Handover(PermitPool, Generic[T]):
    """The state of one channel, shared by all its handles.

    Free tokens, buffered items, permits and sends under way always add up to the capacity: that is how the end of a
    closed channel is known.
    """

    __slots__ = (
        "cause",
        "dropped",
        "ended",
        "items",
        "late",
        "number",
        "permits",
        "receiver_handles",
        "receivers",
        "returned",
        "sender_handles",
        "undelivered",
        "watchers",
    )

    items: deque[T]
    """The buffer."""
    receivers: deque[Waiter[T]]
    """Parked receivers, oldest first."""
    watchers: list[Waiter[None]]
    """Who waits until the channel is closed."""
    sender_handles: int
    receiver_handles: int
    ended: bool
    """Whether receivers are told that nothing more will come."""
    cause: BaseException | None
    """What the channel was closed with."""
    number: Callable[[], int]
    """The next number for an item that is handed to a waiter: the older, the lower. Any thread may ask."""
    returned: list[tuple[int, int]]
    """Those of them that came back and may still be at the front, oldest first: number and identity."""
    dropped: int
    """How many items had to make room for others, or found none."""
    late: list[T]
    """Items that came after the end, for their senders to fetch."""
    undelivered: Callable[[T], object] | None
    permits: list[None] | None
    """One entry for each permit that is out; None where nobody asks."""

    def __init__(self, capacity: int, undelivered: Callable[[T], object] | None) -> None:
        super().__init__(capacity)
        self.items = deque()
        self.receivers = deque()
        self.watchers = []
        self.sender_handles = 0
        self.receiver_handles = 0
        self.ended = False
        self.cause = None
        self.dropped = 0
        self.number = count(1).__next__
        self.returned = []
        self.late = []
        self.undelivered = undelivered
        self.permits = None

    @property
    def capacity(self) -> int | None:
        return self.total

    @property
    def parked_receivers(self) -> int:
        """How many parties wait for items."""
        return sum(waiter is not ENDED for waiter in self.receivers.copy())

    def under_way(self) -> bool:
        """Whether somebody holds room: a permit, or a call that another thread has half done."""
        is_empty(self.tokens)  # for its order: who gives room back, or takes it, looks then whether this was closed
        return self.free != self.total

    # ---------------------------------------------------------------- matching

    def serve_locked(self) -> bool:
        """Match what can be matched, on both sides."""
        items, receivers = self.items, self.receivers
        served = False
        while True:
            while items and receivers and not self.ended:
                try:
                    item = items.popleft()
                except IndexError:  # another thread was faster
                    break
                # Who is handed it stays in the queue meanwhile: a newcomer that found nobody there would get in front.
                while not (waiter := receivers[0]).hand(item):
                    if len(receivers) == 1:
                        items.appendleft(item)
                        receivers.popleft()
                        break
                    receivers.popleft()
                else:
                    receivers.popleft()
                    waiter.operation = self._number_of(item) if self.returned else self.number()
                    self.tokens.append(None)
                    served = True
            if not self.waiters:
                return served
            if self._serve_senders():
                served = True
                if receivers:
                    continue
            if not self.closed or not self._conclude():
                return served

    _serve_senders = PermitPool.serve_locked

    def give_up_item(self, waiter: Waiter[T]) -> None:
        """Withdraw a receiver. An item that it was handed is the oldest one again, and the next receiver's."""
        self.section.do(partial(self._take_back, waiter))

    def _take_back(self, waiter: Waiter[T]) -> None:
        if not waiter.settled:
            discard(self.receivers, waiter)
            return
        if waiter.error is not None:
            return
        self._restore(waiter.operation, waiter.value)

    def give_back_item(self, number: int, item: T) -> None:
        """Make `item`, which was taken out as `number` and given to nobody, the oldest one again.

        Its room has not been given back: all the while, nobody could be told the end.
        """
        self.section.do(partial(self._restore_with_room, number, item))

    def _restore_with_room(self, number: int, item: T) -> None:
        self.tokens.append(None)
        self._restore(number, item)

    def _restore(self, number: int, item: T) -> None:
        if not self.receiver_handles:
            self._deliver_nowhere([item])
            return
        # Its room was given away when it was handed over. If that is taken, the buffer holds one too many for a while.
        self.forget(1)
        self._put_back(number, item)
        if self.ended:  # it was announced because this item had seemed to be received
            self._retract_end()
        self.serve_locked()

    def _put_back(self, number: int, item: T) -> None:
        """Put `item`, the one that was handed over as `number`, before all that have never been handed over.

        Several may come back, in any order. Those that are still at the front stand there by their numbers.
        """
        returned = self.returned
        try:
            while returned and id(self.items[0]) != returned[0][1]:
                del returned[0]  # it has been received since
        except IndexError:  # all have; another thread may take the last one just now
            returned.clear()
        place = bisect([earlier for earlier, _ in returned], number)
        returned.insert(place, (number, id(item)))
        self.items.insert(place, item)

    def _number_of(self, item: T) -> int:
        """The number of `item`, which was handed over just now, and was at the front until then.

        One that had come back before keeps its number: it is older than what was handed over meanwhile and may come
        back as well.
        """
        while self.returned:
            number, identity = self.returned.pop(0)
            if identity == id(item):
                return number
        return self.number()

    def offer(self, item: T) -> None:
        """For a sender that finds somebody in `receivers` behind its item: wake them, or learn of the end.

        Raises ChannelClosed, with the item, when nobody will receive it. An item that is not there any more was
        received, or given to the hook.
        """
        self.section.run(self.serve_locked)
        if self.ended:
            self._fetch_late(item)

    def _fetch_late(self, item: T) -> None:
        with self.section:
            if not self.ended:
                return
            # Nobody receives past the end: what is in `items` now belongs to senders who will all come here.
            self._empty_into(self.late)
            for index, late in enumerate(self.late):
                if late is item:
                    del self.late[index]
                    self.tokens.append(None)
                    raise self.refusal(item)

    # ---------------------------------------------------------------- the end

    def refusal(self, *refused: Any) -> ChannelClosed:
        error = ChannelClosed("the channel is closed", *refused)
        error.__cause__ = self.cause
        return error

    def shut(self, cause: BaseException | None = None) -> None:
        """Accept nothing more; what is there is still received. Under the lock."""
        if self.cause is None:
            self.cause = cause
        if not self.closed:
            self.close()
            for watcher in self.watchers:
                if watcher.claim():
                    watcher.settle(None)
            self.watchers.clear()
        self.serve_locked()

    def drop_sender(self, cause: BaseException | None = None) -> None:
        """A sending handle is gone. Under the lock."""
        self.sender_handles -= 1
        if self.cause is None:
            self.cause = cause
        if not self.sender_handles:
            self.shut()

    def drop_receiver(self) -> None:
        """A receiving handle is gone; with the last one, nobody can receive what is left. Under the lock."""
        self.receiver_handles -= 1
        if not self.receiver_handles:
            if not self.ended:
                self._announce_end()
            left: list[T] = []
            self._empty_into(left)
            self.tokens.extend(repeat(None, len(left)))
            self.shut()
            if left:
                self._deliver_nowhere(left)

    def _conclude(self) -> bool:
        """The channel is closed: announce the end when nothing more can come. True if something came after all."""
        # A receiver takes its item and then gives the room back: it has either done both, or comes here itself.
        if not self.ended and is_empty(self.items) and not self.under_way():
            self._announce_end()
            if not is_empty(self.items):  # an unbounded send was under way, and had perhaps looked for parked receivers
                self._retract_end()
                return True
        if self.ended:
            # The mark stays in place meanwhile: a sender that is under way must not find the queue empty.
            for receiver in self.receivers.copy():
                if receiver is not ENDED:
                    discard(self.receivers, receiver)
                    if receiver.claim():
                        receiver.fail(self.refusal())
        return False

    def _announce_end(self) -> None:
        self.ended = True
        self.receivers.appendleft(ENDED)

    def _retract_end(self) -> None:
        self.ended = False
        self.items.extend(self.late)
        self.late.clear()
        discard(self.receivers, ENDED)

    def _empty_into(self, items: list[T]) -> None:
        """Take out what is in the buffer. A receive that is under way may still take some of it."""
        while True:
            try:
                items.append(self.items.popleft())
            except IndexError:
                return

    def drop(self, item: T) -> None:
        """`item` has made room for another one, or has found none. Under the lock."""
        self.dropped += 1
        self._deliver_nowhere([item])

    def _deliver_nowhere(self, items: list[T]) -> None:
        """Nobody can receive `items` any more: tell the hook, or at least let go of them outside of the lock."""
        if self.undelivered is None:
            self.section.afterwards.append(items.clear)
        else:
            self.section.afterwards.extend(partial(self.undelivered, item) for item in items)


def is_empty(queue: deque[Any]) -> bool:
    """Whether there is nothing in `queue`, for who has just changed something else: see the top of this file."""
    queue.rotate(0)  # under the lock of the deque, and nothing else
    return not queue


def discard(queue: deque[Any] | list[Any], entry: object) -> None:
    """Take `entry` out of `queue`, if it is still there."""
    try:
        queue.remove(entry)
    except ValueError:
        pass
