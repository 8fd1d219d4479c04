"""Broadcast log: every item once, in one order, and one cursor for each receiver.

Invariant: the log is a chain in which each place refers to the next one, and it is held from behind only: by the
cursors, and by the start of the replay window. So an item lives exactly as long as somebody has yet to pass it. A
cursor passes each item once, in order: it is received, or counted as missed; what a cancelled call was handed comes
back and is the cursor's oldest item again.

Writers (who sends, subscribes, parks, closes) go one at a time, in the critical section, once per item for all
receivers. Receiving takes no lock: a cursor is moved by whoever has its turn.

A receiver that is to lose its oldest items is not touched: it compares its place with `oldest` whenever it moves. And
a sender that waits for room watches one cursor, the last of the slowest ones: before that has moved there is no room.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any, Generic, Literal, TypeVar

from yamanote.channels._broadcast_cursor import Cursor, Entry, Place
from yamanote.channels._errors import ChannelClosed, ChannelFull, HandleClosed, Lagged
from yamanote.channels._handover import discard
from yamanote.runtime import CriticalSection, Waiter

__all__ = ["BroadcastLog", "Overflow"]

T = TypeVar("T")

Overflow = Literal["lag", "suspend", "drop_oldest", "drop_newest", "error"]


class BroadcastLog(Generic[T]):
    """The state of one broadcast channel. What ends in `locked` is called in the section."""

    __slots__ = (
        "_due",
        "_limit",
        "_watched",
        "_window",
        "capacity",
        "cause",
        "cursors",
        "drops",
        "dropped",
        "end",
        "oldest",
        "overflow",
        "replay",
        "section",
        "sender_handles",
        "senders",
        "waiting",
        "watchers",
    )

    end: Place[T]
    """The place of the next item. Its number is how many were accepted."""
    oldest: int
    """The number of the oldest item that a receiver may still be given."""
    cursors: dict[Cursor[T], None]
    """Those of all open receivers."""
    waiting: dict[Cursor[T], None]
    """Those with parked calls, which have received everything, oldest first."""
    senders: deque[Waiter[int]]
    """Parked senders, oldest first."""
    watchers: deque[Waiter[None]]
    """Who waits until nobody can receive any more."""
    sender_handles: int
    cause: BaseException | None
    """What the channel was closed with."""
    dropped: int
    """How many items of senders were dropped for all."""

    def __init__(self, capacity: int, replay: int, overflow: Overflow) -> None:
        self.capacity: int = capacity
        self.replay: int = replay
        self.overflow = overflow
        self.drops: bool = overflow in ("lag", "drop_oldest")
        self.end = Place(0)
        self._window = self.end if replay else None  # the oldest item that is kept for late subscribers
        self.oldest = 0
        self._due = 2 * capacity  # when to look for cursors that keep what nobody will be given any more
        self._limit = capacity  # the number that there is no room for; at least, when it was looked at last
        self._watched: Cursor[T] | None = None  # the one that has to move before a parked sender gets room
        self.cursors = {}
        self.waiting = {}
        self.senders = deque()
        self.watchers = deque()
        self.sender_handles = 0
        self.cause = None
        self.dropped = 0
        self.section: CriticalSection = CriticalSection()

    @property
    def closed(self) -> bool:
        """Whether nothing more will come."""
        return not self.sender_handles

    @property
    def deserted(self) -> bool:
        """Whether nobody can receive what would be sent now."""
        return not self.cursors and not self.replay

    @property
    def window(self) -> Place[T]:
        """Where a new receiver begins."""
        return self.end if self._window is None else self._window

    @property
    def buffered(self) -> int:
        """How many items the slowest receiver has yet to receive."""
        return self.end.number - max(self.floor(), self.oldest)

    def floor(self) -> int:
        """Where the slowest receiver stands."""
        return min([cursor.place.number for cursor in list(self.cursors)], default=self.end.number)

    # ---------------------------------------------------------------- sending

    def post_locked(self, item: T) -> int | None:
        """Append `item`; return how many will receive it. None when a sender has to wait for room."""
        if not self.cursors and not self.replay:
            raise self.desertion(item)
        if not self.drops and (self.senders or self.end.number >= self._limit):
            self._limit = self.floor() + self.capacity
            if self.senders or self.end.number >= self._limit:
                return self._overflow_locked(item)
        return self._append_locked(item)

    def _overflow_locked(self, item: T) -> int | None:
        if self.overflow == "suspend":
            return None
        if self.overflow == "error":
            raise self.fullness(item)
        self.dropped += 1
        return 0

    def fullness(self, item: T) -> ChannelFull:
        return ChannelFull(f"the slowest receiver is {self.capacity} items behind", item)

    def _append_locked(self, item: T) -> int:
        place = self.end
        place.item = item
        end: Place[T] = Place(place.number + 1)
        self.end = end
        place.next = end  # last: whoever sees the next place may take the item
        if self._window is not None and end.number - self._window.number > self.replay:
            self._let_go_locked(self._window)
            self._window = self._window.next
        if self.drops and end.number > self.capacity:
            self.oldest = end.number - self.capacity
            if end.number >= self._due:
                self._shorten_locked()
        if self.waiting:
            for cursor in list(self.waiting):
                self.serve_locked(cursor)
        return len(self.cursors)

    def enlist_locked(self, waiter: Waiter[int]) -> None:
        """Park a sender; its waiter carries what it wants to send, and through which handle."""
        self.senders.append(waiter)
        self.admit_locked()

    def delist_locked(self, waiter: Waiter[int]) -> None:
        """Forget a parked sender."""
        discard(self.senders, waiter)
        self.admit_locked()

    def admit_locked(self, moved: Cursor[T] | None = None) -> None:
        """Let parked senders in for whom there is room; for who has parked one, or moved a cursor or closed it."""
        if self._watched is not moved and self._watched is not None:
            return  # one of the slowest is where it was: there is no more room than before
        self._unwatch_locked()
        senders = self.senders
        while senders:
            if self.deserted:
                self._fail_locked(senders, lambda waiter: self.desertion(waiter.operation.item))
            elif self.end.number < (floor := self.floor()) + self.capacity:
                waiter = senders.popleft()
                if waiter.claim():
                    waiter.settle(self._append_locked(waiter.operation.item))
            else:
                # The last of the slowest: those who wait longest run first, so this one comes when the others have.
                slowest = (cursor for cursor in reversed(self.cursors) if cursor.place.number <= floor)
                watched = next(slowest, None)
                if watched is None:
                    continue  # they have moved meanwhile, in other threads
                self._watched = watched
                watched.watched = True
                if not watched.seize() or watched.place.number <= floor:
                    return  # it comes back here when it has moved, or in a moment, when its turn is put back
                self._unwatch_locked()

    def _unwatch_locked(self) -> None:
        if (watched := self._watched) is not None:
            self._watched = None
            watched.watched = False
            watched.release()

    def desertion(self, *refused: Any) -> ChannelClosed:
        return ChannelClosed("nobody receives any more", *refused)

    # ---------------------------------------------------------------- receiving

    def receive(self, cursor: Cursor[T]) -> Entry | None:
        """Take the next item or lag of `cursor`, if nobody is in the way."""
        section = self.section
        if not section.try_enter():
            return None
        try:
            if cursor.parked or cursor.closed or not cursor.seize():
                return None
            entry = self.take_locked(cursor)
            cursor.release()
            self.admit_locked(cursor)
            return entry
        finally:
            section.leave()

    def attend(self, cursor: Cursor[T]) -> None:
        """For who puts a turn back that is wanted."""
        self.section.do(partial(self._attend_locked, cursor))

    def _attend_locked(self, cursor: Cursor[T]) -> None:
        if cursor.closed:
            self._empty_locked(cursor)
        else:
            self.serve_locked(cursor)
        self.admit_locked(cursor)

    def enqueue_locked(self, cursor: Cursor[T], waiter: Waiter[T]) -> None:
        """Park a call on `cursor`, and serve it if that can be done."""
        cursor.parked.append(waiter)
        self.serve_locked(cursor)
        self.admit_locked(cursor)

    def serve_locked(self, cursor: Cursor[T]) -> None:
        """Hand to the parked calls of `cursor` what there is."""
        parked = cursor.parked
        if not cursor.seize():
            return
        while parked:
            entry = self.take_locked(cursor)
            if entry is None:
                break
            number, error, item = entry
            while parked:
                waiter = parked.popleft()
                if waiter.claim():
                    waiter.operation = number
                    if error is None:
                        waiter.settle(item)
                    else:
                        waiter.fail(error)
                    break
            else:
                cursor.returned.insert(0, entry)
        if parked and self.closed:
            self._fail_locked(parked, lambda waiter: self.refusal())
        if parked:
            self.waiting[cursor] = None
        else:
            self.waiting.pop(cursor, None)
            cursor.release()

    def take_locked(self, cursor: Cursor[T]) -> Entry | None:
        """Move `cursor`, which is seized, over the next item or gap, and return it with its number."""
        if cursor.returned:
            return cursor.returned.pop(0)
        if cursor.place.number < self.oldest:
            self._skip_locked(cursor, self._kept_from(cursor.place))
        place = cursor.place
        if cursor.missed:
            missed, cursor.missed = cursor.missed, 0
            return place.number - missed, Lagged(missed), None
        if place.next is None:
            return None
        cursor.place = place.next
        return place.number, None, place.item

    def take_back_locked(self, cursor: Cursor[T], waiter: Waiter[T]) -> None:
        """A call was withdrawn: what it was handed is the oldest item of its cursor again."""
        while cursor.heir is not None:
            cursor = cursor.heir
        if not waiter.settled:
            discard(cursor.parked, waiter)
        elif not cursor.closed and (waiter.error is None or isinstance(waiter.error, Lagged)):
            item = waiter.value if waiter.error is None else None
            insort(cursor.returned, (waiter.operation, waiter.error, item), key=itemgetter(0))
        if not cursor.closed:
            self.serve_locked(cursor)

    def refusal(self) -> ChannelClosed:
        error = ChannelClosed("the channel is closed")
        error.__cause__ = self.cause
        return error

    # ---------------------------------------------------------------- what is dropped

    def _kept_from(self, place: Place[T]) -> Place[T]:
        """The oldest place behind `place` that is kept."""
        while place.number < self.oldest and place.next is not None:
            place = place.next
        return place

    def _skip_locked(self, cursor: Cursor[T], place: Place[T]) -> None:
        """Move `cursor` to a later place, over items that were dropped."""
        if self.overflow == "lag":
            cursor.missed += place.number - cursor.place.number
        self._let_go_locked(cursor.place)
        cursor.place = place

    def _shorten_locked(self) -> None:
        """Let go of what slow receivers will not be given any more.

        They notice their lag themselves. This is done once in a while, so that it costs nothing to speak of, and so
        that nobody holds more than twice the capacity.
        """
        kept: Place[T] | None = None
        for cursor in self.cursors:
            if cursor.place.number < self.oldest and cursor.seize():
                kept = kept or self._kept_from(cursor.place)
                self._skip_locked(cursor, kept)
                cursor.release()
        self._due = self.floor() + 2 * self.capacity

    def _let_go_locked(self, *places: object) -> None:
        """Forget something, with the items in it, outside of the section: their destructors are foreign code."""
        self.section.afterwards.append(list(places).clear)

    # ---------------------------------------------------------------- coming and going

    def join_locked(self, cursor: Cursor[T]) -> None:
        """There is one more receiver."""
        self.cursors[cursor] = None
        self._limit = min(self._limit, cursor.place.number + self.capacity)
        self._due = min(self._due, cursor.place.number + 2 * self.capacity)

    def leave_locked(self, cursor: Cursor[T]) -> None:
        """A receiver is gone: it keeps nothing, and nobody waits for it."""
        if cursor.closed:
            return
        cursor.closed = True
        self.cursors.pop(cursor, None)
        self.waiting.pop(cursor, None)
        self._fail_locked(cursor.parked, lambda waiter: HandleClosed("this BroadcastReceiver was closed"))
        self._empty_locked(cursor)
        self.admit_locked(cursor)
        if self.deserted:
            self.dismiss_locked(lambda watcher: True)

    def _empty_locked(self, cursor: Cursor[T]) -> None:
        """Let a closed cursor hold nothing."""
        if cursor.seize():  # else it is attended to as soon as its turn is put back
            self._let_go_locked(cursor.place, *cursor.returned)
            cursor.returned.clear()
            cursor.place = Place(cursor.place.number)

    def dismiss_locked(self, concerns: Callable[[Waiter[None]], bool]) -> None:
        """Wake those who wait until nobody can receive any more, if this concerns them."""
        for watcher in self.watchers.copy():
            if concerns(watcher):
                self.watchers.remove(watcher)
                watcher.hand(None)

    def drop_sender_locked(self, cause: BaseException | None = None) -> None:
        """A sending handle is gone; with the last one, nothing more will come."""
        self.sender_handles -= 1
        if self.cause is None:
            self.cause = cause
        if self.closed:
            for cursor in list(self.waiting):
                self.serve_locked(cursor)

    def refuse_sends_of_locked(self, sender: object) -> None:
        """A sending handle was closed: fail the calls that are parked on it."""
        for waiter in self.senders.copy():
            send = waiter.operation
            if send.sender is sender and waiter.claim():
                self.senders.remove(waiter)
                waiter.fail(HandleClosed("this BroadcastSender was closed", send.item))
        self.admit_locked()

    @staticmethod
    def _fail_locked(parked: deque[Waiter[Any]], error: Callable[[Waiter[Any]], BaseException]) -> None:
        while parked:
            waiter = parked.popleft()
            if waiter.claim():
                waiter.fail(error(waiter))
