"""The receiving end of a channel."""

from __future__ import annotations

from asyncio import _get_running_loop
from collections.abc import Callable
from itertools import repeat, starmap
from typing import TYPE_CHECKING, Self, TypeVar

from yamanote.channels._arguments import require_count
from yamanote.channels._door import stream_of
from yamanote.channels._errors import ChannelEmpty
from yamanote.channels._handle import SHUT, Handle
from yamanote.channels._handover import Handover, discard, is_empty
from yamanote.channels._receiving import Receiving
from yamanote.runtime import BUDGET, Waiter, park, park_thread, refuse_loop_thread, yield_now

if TYPE_CHECKING:
    from yamanote.streams import Stream

__all__ = ["Receiver"]

T = TypeVar("T")


class Receiver(Handle[T], Receiving[T]):
    """The receiving end of a channel: `recv`, `async for`, `for` in a thread. Clonable; each item goes to one receiver.

    Close it (`close`, `with`, `async with`) when you want nothing more: with the last receiver the channel is closed,
    and what it still holds goes to the undelivered hook. A receiver that is merely dropped is closed with a
    ResourceWarning.
    """

    __slots__ = ("_items", "_receivers", "_senders", "_tokens")

    _name = "Receiver"

    def __init__(self, core: Handover[T]) -> None:
        super().__init__(core)
        self._items = core.items
        self._tokens = core.tokens
        self._senders = core.waiters
        self._receivers = core.receivers
        with core.section:
            core.receiver_handles += 1

    async def recv(self) -> T:
        """Receive the oldest item, waiting for one if there is none.

        Raises ChannelClosed when the channel is closed and empty. Receivers that wait are served first in, first out.
        Cancel safe: an item that had been handed to a cancelled call is the oldest one again. When it was the last one,
        others may have been told the end meanwhile; then it waits for the next receive, or for the undelivered hook.
        """
        # To look at `_items` is for speed: an exception costs more than many looks.
        if (left := self._left) and self._items and not self._receivers:
            try:
                item = self._items.popleft()
            except IndexError:
                pass  # another thread was faster
            else:
                self._left = left - 1
                self._tokens.append(None)
                if self._senders:
                    self._core.serve()
                return item
        if not left and self._items and not self._receivers:
            self._left = BUDGET
            await yield_now()
            return await self.recv()
        self._left = BUDGET
        return await park(self)

    def recv_nowait(self) -> T:
        """Receive the oldest item now.

        Raises ChannelEmpty when there is none (or others wait for it already), and ChannelClosed when the
        channel is closed and empty. Any thread may call it; while another one is half-way through a call, the channel
        may seem empty, and not closed yet, a moment longer.
        """
        if not self._receivers:
            try:
                item = self._items.popleft()
            except IndexError:
                pass
            else:
                self._tokens.append(None)
                if self._senders:
                    self._core.serve()
                return item
        if self._closed or self._core.closed:
            self._core.serve()  # the end may be due
            if self._closed or self._core.ended:
                raise self._refusal()
        raise ChannelEmpty("nothing to receive now")

    async def recv_many(self, limit: int) -> list[T]:
        """Receive up to `limit` items at once: as many as are there, waiting only for the first.

        Raises ChannelClosed when the channel is closed and empty, and ValueError when `limit` is less than 1. Order
        and cancel safety as `recv`.
        """
        require_count("limit", limit)
        batch: list[T] = []
        if left := self._left:
            self._left = left - 1
            self._take_many(batch, limit)
        if not batch:
            batch.append(await self.recv())
            self._take_many(batch, limit)
        return batch

    def blocking_recv_many(self, limit: int, timeout: float | None = None) -> list[T]:
        """`recv_many`, for plain threads: blocks for at most `timeout` seconds, until there is a first item.

        Raises TimeoutError when nothing came all the while, ChannelClosed and ValueError as `recv_many` does, and
        RuntimeError in a thread that runs an event loop.
        """
        require_count("limit", limit)
        batch = [self.blocking_recv(timeout)]
        self._take_many(batch, limit)
        return batch

    def _take_many(self, batch: list[T], limit: int) -> None:
        """Fill `batch` up with what is there and nobody else waits for."""
        while (wanted := min(limit - len(batch), len(self._items))) and not self._receivers:
            before = len(batch)
            try:
                batch.extend(starmap(self._items.popleft, repeat((), wanted)))
            except IndexError:
                pass  # another thread took the rest; what came before is in the batch
            self._tokens.extend(repeat(None, len(batch) - before))
            if not self._senders:
                return
            self._core.serve()  # and take what those bring who had waited for room

    def blocking_recv(self, timeout: float | None = None) -> T:
        """`recv`, for plain threads: blocks for at most `timeout` seconds.

        Raises TimeoutError when nothing came all the while, ChannelClosed as `recv` does, and RuntimeError in a thread
        that runs an event loop.
        """
        # Most items are there already: as `recv_nowait`, without the calls.
        if timeout is None and not self._receivers and _get_running_loop() is None:
            try:
                item = self._items.popleft()
            except IndexError:
                pass
            else:
                self._tokens.append(None)
                if self._senders:
                    self._core.serve()
                return item
        refuse_loop_thread(timeout)
        try:
            return self.recv_nowait()
        except ChannelEmpty:
            pass
        return park_thread(self, timeout)

    async def __anext__(self) -> T:
        if (left := self._left) and self._items and not self._receivers:  # as `recv`, without the call
            try:
                item = self._items.popleft()
            except IndexError:
                pass
            else:
                self._left = left - 1
                self._tokens.append(None)
                if self._senders:
                    self._core.serve()
                return item
        return await super().__anext__()

    def register(self, waiter: Waiter[T]) -> None:
        """Park `waiter` until there is an item for it. See `yamanote.runtime.Selectable`."""
        core = self._core
        if self._closed:
            if waiter.claim():
                waiter.fail(self._refusal())
            return
        if self._items and not self._receivers and not core.returned:  # as `recv`: nobody else waits for what is there
            try:
                item = self._items.popleft()
            except IndexError:
                pass
            else:
                waiter.operation = number = core.number()
                if not waiter.hand(item):  # it has something else by now
                    core.give_back_item(number, item)
                    return
                self._tokens.append(None)
                if self._senders:
                    core.serve()
                return
        waiter.operation = self
        core.receivers.append(waiter)
        if self._closed:  # by another thread, which may have looked too early
            core.section.do(self._end_calls)
        elif not is_empty(self._items) or self._senders:
            core.serve()

    def withdraw(self, waiter: Waiter[T]) -> None:
        """Forget `waiter`; an item that it was handed is the oldest one again."""
        self._core.give_up_item(waiter)

    def clone(self) -> Self:
        """Another receiver of the same channel, to be closed on its own. Raises HandleClosed if this one is closed."""
        if self._closed:
            raise self._refusal()
        return type(self)(self._core)

    def close(self) -> None:
        """Close this handle; with the last one, the channel.

        Calls that are parked on it get HandleClosed. Never waits; any thread may call it, again and again.
        """
        self._core.section.do(self._close)

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._receivers = SHUT
            self._end_calls()
            self._core.drop_receiver()

    def _end_calls(self) -> None:
        """Fail the calls that are parked on this handle, which is closed."""
        core = self._core
        for waiter in core.receivers.copy():
            if getattr(waiter, "operation", None) is self and waiter.claim():
                discard(core.receivers, waiter)
                waiter.fail(self._refusal())

    def _forgotten(self) -> Callable[[], None]:
        return self._core.drop_receiver

    def into_stream(self) -> Stream[T]:
        """A stream in place of this receiver, which is closed: what was its part in the channel is the stream's now.

        Raises HandleClosed when it was closed before. Needs the distribution `yamanote-streams`.
        """
        return stream_of(self._moved)
