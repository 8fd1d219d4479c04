"""The receiving end of a broadcast channel."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar, final

from yamanote.channels._arguments import require_count
from yamanote.channels._broadcast_cursor import Cursor
from yamanote.channels._broadcast_handle import BroadcastHandle
from yamanote.channels._broadcast_log import BroadcastLog
from yamanote.channels._door import stream_of
from yamanote.channels._errors import ChannelClosed, ChannelEmpty, HandleClosed
from yamanote.channels._receiving import Receiving, is_plain_end
from yamanote.runtime import BUDGET, Waiter, park, park_thread, refuse_loop_thread, yield_now

if TYPE_CHECKING:
    from yamanote.streams import Stream

__all__ = ["BroadcastReceiver"]

T = TypeVar("T")


@final
class BroadcastReceiver(BroadcastHandle[T], Receiving[T]):
    """The receiving end of a broadcast channel: `recv`, `async for`, `for` in a thread. Gets every item.

    Tasks and threads that use one and the same receiver share its items, first come, first served; for each to get all
    of them, give each a receiver of its own (`subscribe`, `resubscribe`, `clone`).

    Close it (`close`, `with`, `async with`) when you want nothing more: it then holds up nobody. A receiver that is
    merely dropped is closed with a ResourceWarning.
    """

    __slots__ = ("_cursor", "_give", "_pause", "_take")

    def __init__(self, log: BroadcastLog[T], cursor: Cursor[T]) -> None:
        super().__init__(log)
        self._cursor = cursor
        self._pause = cursor.place.number + BUDGET  # the number of the item before which it yields
        # Bound once: looking these up is a good part of what a receive costs.
        self._take = cursor.turn.pop
        self._give = cursor.turn.append
        log.section.do(partial(log.join_locked, cursor))

    async def recv(self) -> T:
        """Receive the next item, waiting for one if there is none.

        Raises Lagged, once, when items were dropped for this receiver; the next call then gets the oldest one that is
        kept. Raises ChannelClosed when the channel is closed and everything was received.

        **Cancel safety:** nothing is lost; what had been handed to a cancelled call is the next item again.
        """
        try:
            self._take()
        except IndexError:
            pass  # somebody waits already, or there is something to be told
        else:
            cursor = self._cursor
            place = cursor.place
            following = place.next
            if following is not None and self._log.oldest <= place.number < self._pause:
                cursor.place = following
                self._give(None)
                if cursor.wanted:
                    self._log.attend(cursor)
                return place.item
            self._give(None)
            if cursor.wanted:
                self._log.attend(cursor)
        return await self._receive()

    async def _receive(self) -> T:
        """`recv`, when there is more to it than taking what is there."""
        cursor = self._cursor
        if cursor.place.next is None:
            self._pause = cursor.place.number + BUDGET
        else:
            if cursor.place.number >= self._pause:
                self._pause = cursor.place.number + BUDGET
                await yield_now()
            entry = self._log.receive(cursor)
            if entry is not None:
                item: T
                _, error, item = entry
                if error is not None:
                    raise error
                return item
        return await park(self)

    def recv_nowait(self) -> T:
        """Receive the next item now.

        Raises ChannelEmpty when there is none (or others wait for it already), Lagged and ChannelClosed as `recv` does.
        Any thread may call it; while another one is half-way through a call on this very receiver, it may seem to be
        empty.
        """
        batch = self._take_ready(1)
        if batch:
            return batch[0]
        waiter: Waiter[T] = Waiter([None])
        self.register(waiter)
        if waiter.claim():
            self.withdraw(waiter)
            raise ChannelEmpty("nothing to receive now")
        return waiter.result()

    async def recv_many(self, limit: int) -> list[T]:
        """Receive up to `limit` items at once: as many as are there, waiting only for the first.

        A batch ends before items that were missed; the next call raises Lagged. Raises what `recv` raises, and
        ValueError when `limit` is less than 1. Cancel safety as `recv`.
        """
        require_count("limit", limit)
        first = await self.recv()
        return [first, *self._take_ready(limit - 1)]

    def _take_ready(self, limit: int) -> list[T]:
        """Up to `limit` items that can be had without further ado."""
        cursor = self._cursor
        items: list[T] = []
        try:
            self._take()
        except IndexError:
            return []
        place, oldest = cursor.place, self._log.oldest
        while len(items) < limit and (following := place.next) is not None and place.number >= oldest:
            items.append(place.item)
            place = following
        cursor.place = place
        self._give(None)
        if cursor.wanted:
            self._log.attend(cursor)
        return items

    def blocking_recv(self, timeout: float | None = None) -> T:
        """`recv`, for plain threads: blocks for at most `timeout` seconds.

        Raises TimeoutError when nothing came all the while, what `recv` raises, and RuntimeError in a thread that runs
        an event loop.
        """
        refuse_loop_thread(timeout)
        try:
            return self.recv_nowait()
        except ChannelEmpty:
            pass
        return park_thread(self, timeout)

    def __aiter__(self) -> Self:
        """Receive until the channel is closed. At the end of one that was closed with a cause, raises ChannelClosed.

        Raises Lagged where items were missed; iterating again goes on behind the gap.
        """
        return self

    async def __anext__(self) -> T:
        # As in `recv`, once more: that is a coroutine less for each item.
        try:
            self._take()
        except IndexError:
            pass
        else:
            cursor = self._cursor
            place = cursor.place
            following = place.next
            if following is not None and self._log.oldest <= place.number < self._pause:
                cursor.place = following
                self._give(None)
                if cursor.wanted:
                    self._log.attend(cursor)
                return place.item
            self._give(None)
            if cursor.wanted:
                self._log.attend(cursor)
        try:
            return await self._receive()
        except ChannelClosed as closed:
            if not is_plain_end(closed):
                raise
            raise StopAsyncIteration from None

    def register(self, waiter: Waiter[T]) -> None:
        """Park `waiter` until there is an item for it. See `yamanote.runtime.Selectable`."""
        section = self._log.section
        if section.try_enter():
            try:
                self._register(waiter)
            finally:
                section.leave()
        else:
            section.do(partial(self._register, waiter))

    def _register(self, waiter: Waiter[T]) -> None:
        if not self._closed:
            self._log.enqueue_locked(self._cursor, waiter)
        elif waiter.claim():
            waiter.fail(self._refusal())

    def withdraw(self, waiter: Waiter[T]) -> None:
        """Forget `waiter`; what it was handed is the next item again."""
        self._log.section.do(partial(self._log.take_back_locked, self._cursor, waiter))

    def resubscribe(self) -> BroadcastReceiver[T]:
        """One more receiver, for all items that are sent from now on. Raises HandleClosed if this one is closed."""
        with self._log.section:
            if self._closed:
                raise self._refusal()
            return BroadcastReceiver(self._log, Cursor(self._log.end))

    def clone(self) -> BroadcastReceiver[T]:
        """One more receiver, for all that this one has yet to receive. Raises HandleClosed if this one is closed."""
        with self._log.section:
            if self._closed:
                raise self._refusal()
            return BroadcastReceiver(self._log, self._cursor.copy())

    @property
    def is_closed(self) -> bool:
        """Whether nothing more will be sent, or this handle was closed."""
        return self._closed or self._log.closed

    def close(self) -> None:
        """Close this handle, and let go of what it has not received.

        Calls that are parked on it get HandleClosed. Never waits; any thread may call it, again and again.
        """
        self._log.section.do(self._close)

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._log.leave_locked(self._cursor)

    def _drop(self) -> None:
        self._log.section.run(partial(self._log.leave_locked, self._cursor))

    def __len__(self) -> int:
        """How many items it has yet to receive, not counting those that it has missed."""
        log, cursor = self._log, self._cursor
        if self._closed:
            return 0
        returned = sum(error is None for _, error, _ in cursor.returned.copy())
        return log.end.number - max(cursor.place.number, log.oldest) + returned

    def _refusal(self) -> HandleClosed:
        return HandleClosed("this BroadcastReceiver was closed")

    def __repr__(self) -> str:
        log = self._log
        state = "closed" if self._closed else "of a closed channel" if log.closed else "open"
        return f"<BroadcastReceiver {state}, {len(self)} of {log.capacity} at {id(log):#x}>"

    def into_stream(self) -> Stream[T]:
        """This receiver as a stream, which owns it from now on: this handle is closed by that.

        Lagged ends the stream, like every error. Raises HandleClosed, and ImportError without the distribution
        `yamanote-streams`.
        """
        return stream_of(self._moved)

    def _moved(self) -> BroadcastReceiver[T]:
        with self._log.section:  # nobody receives what the other one is to receive
            owned = self.clone()
            self._cursor.heir = owned._cursor
            self.close()
        return owned
