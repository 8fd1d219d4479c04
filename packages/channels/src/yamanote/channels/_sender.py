"""The sending end of a channel."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import TYPE_CHECKING, Generic, Self, TypeVar, final

from yamanote.channels._arguments import require_count, require_error
from yamanote.channels._door import sink_of
from yamanote.channels._errors import ChannelClosed, ChannelFull
from yamanote.channels._handle import SHUT, Handle
from yamanote.channels._handover import Handover, discard
from yamanote.channels._permit import Permit, Reservation, Sending, WaitingForRoom
from yamanote.runtime import BUDGET, Selectable, park, park_thread, refuse_loop_thread, yield_now

if TYPE_CHECKING:
    from yamanote.sinks import Sink

__all__ = ["SendOnly", "Sender", "WeakSender"]

T = TypeVar("T")


class Sender(Handle[T]):
    """The sending end of a channel. Made by `channel`; clonable; usable by tasks of any loop and by threads.

    Close it (`close`, `with`, `async with`) when you have nothing more to send: receivers see the end once every
    sender is closed and the channel is empty. A sender that is merely dropped is closed with a ResourceWarning.
    """

    __slots__ = ("_items", "_receivers", "_senders", "_tokens")

    _name = "Sender"

    _counts_permits = False
    """Whether a permit that is used must be told to the channel, because no token stays with its item."""

    def __init__(self, core: Handover[T]) -> None:
        super().__init__(core)
        self._items = core.items
        self._tokens = core.tokens
        self._senders = core.waiters
        self._receivers = core.receivers
        with core.section:
            core.sender_handles += 1

    async def send(self, item: T) -> None:
        """Send `item`, waiting for room if there is none.

        Raises ChannelClosed, with the item in `refused`, when nobody can receive it any more. Senders that wait are
        served first in, first out. Cancel safe: nothing is lost but the place in the queue. When the cancellation
        arrives in the very turn in which room had been made, the item may have been accepted already; where you must
        know, `reserve` first.
        """
        # To look at `_tokens` is for speed: an exception costs more than many looks.
        if (left := self._left) and self._tokens:
            try:
                self._tokens.pop()
            except IndexError:
                pass  # another thread was faster
            else:
                if not self._senders:
                    self._left = left - 1
                    self._items.append(item)
                    if self._receivers:
                        self._core.offer(item)
                    return
                self._core.give_back(1)
        if not left and not self._senders:
            self._left = BUDGET
            await yield_now()
            return await self.send(item)
        self._left = BUDGET
        await park(Sending(self, item))

    def send_nowait(self, item: T) -> None:
        """Send `item` now.

        Raises ChannelFull when there is no room (or others wait for it already) and ChannelClosed when nobody can
        receive it any more, both with the item in `refused`. Any thread may call it; while another one is half-way
        through a call, the channel may seem full a moment early.
        """
        if not self._try_send(item):
            raise self._refusal(item) if self.is_closed else ChannelFull("there is no room now", item)

    def _try_send(self, item: T) -> bool:
        """Send `item` if there is room that nobody else waits for."""
        try:
            self._tokens.pop()
        except IndexError:
            if self._senders or not self._core.try_take(1):
                return False
        else:
            if self._senders:
                self._core.give_back(1)
                return False
        self._items.append(item)
        if self._receivers:
            self._core.offer(item)
        return True

    def sending(self, item: T) -> Selectable[None]:
        """`send`, as a branch of a `select`: sends `item` if this branch is the one that is taken.

        It is for one `select`, since what was sent is not to be sent again. Cancel safety and order as `send`.
        """
        return Sending(self, item)

    async def send_many(self, items: Iterable[T]) -> None:
        """Send all of `items`, in order, waiting for room as often as need be. Items of others may come between.

        Raises what `send` raises, with all the items that were not accepted in `refused`; of an iterator, only with
        the first of them, since it has not been asked for the others. When the call is cancelled, what came before is
        sent: pass an iterator to know where it stopped.
        """
        iterator = iter(items)
        try:
            for item in iterator:
                if (left := self._left) and self._try_send(item):
                    self._left = left - 1
                else:
                    await self.send(item)
        except (ChannelClosed, ChannelFull) as error:
            if iterator is not items and isinstance(items, Collection):
                error.refused += tuple(iterator)
            raise

    def blocking_send(self, item: T, timeout: float | None = None) -> None:
        """`send`, for plain threads: blocks for at most `timeout` seconds.

        Raises TimeoutError when there was no room all the while, ChannelClosed as `send` does, and RuntimeError in a
        thread that runs an event loop.
        """
        refuse_loop_thread(timeout)
        if not self._try_send(item):
            park_thread(Sending(self, item), timeout)

    async def reserve(self) -> Permit[T]:
        """Wait for room for one item, and keep it: the cancel-safe way to send.

        Raises ChannelClosed. First in, first out with all other senders. A permit that is out keeps a closing channel
        from ending, so use it (`permit.send`) or give it back (`permit.release`, or `with`).

        >>> async def main():
        ...     tx, rx = channel(1)
        ...     with tx, rx:
        ...         with await tx.reserve() as permit:
        ...             permit.send("now it cannot fail")
        ...         return await rx.recv()
        >>> run(main())
        'now it cannot fail'
        """
        if (left := self._left) and self._tokens:
            try:
                self._tokens.pop()
            except IndexError:
                pass  # another thread was faster
            else:
                if not self._senders:
                    self._left = left - 1
                    return Permit(self)
                self._core.give_back(1)
        return (await self.reserve_many(1))[0]

    async def reserve_many(self, count: int) -> list[Permit[T]]:
        """`reserve`, for `count` items at once: all the permits or none, in one place of the queue.

        Raises ValueError when `count` is less than 1 or more than the capacity.
        """
        if left := self._left:
            self._left = left - 1
        else:
            self._left = BUDGET
            await yield_now()
        self._check_reservation(count)
        if self._core.try_take(count):
            return [Permit(self) for _ in range(count)]
        self._left = BUDGET
        return await park(Reservation(self, count))

    def reserve_nowait(self, count: int = 1) -> list[Permit[T]]:
        """Permits for `count` items, now. Raises ChannelFull, ChannelClosed or ValueError."""
        self._check_reservation(count)
        if self._core.try_take(count):
            return [Permit(self) for _ in range(count)]
        raise self._refusal() if self.is_closed else ChannelFull(f"no room for {count} of {self.capacity} places")

    def blocking_reserve(self, timeout: float | None = None) -> Permit[T]:
        """`reserve`, for plain threads: blocks for at most `timeout` seconds.

        Raises TimeoutError when there was no room all the while, ChannelClosed, and RuntimeError in a thread that runs
        an event loop.
        """
        refuse_loop_thread(timeout)
        self._check_reservation(1)
        return Permit(self) if self._core.try_take(1) else park_thread(Reservation(self, 1), timeout)[0]

    def reserving(self, count: int = 1) -> Selectable[list[Permit[T]]]:
        """`reserve_many`, as a branch of a `select`; it gives the permits.

        Raises ValueError when `count` is less than 1 or more than the capacity.
        """
        self._check_reservation(count)
        return Reservation(self, count)

    def _check_reservation(self, count: int) -> None:
        require_count("count", count)
        if self._core.capacity is not None and count > self._core.capacity:
            raise ValueError(f"count must be at most the capacity ({self._core.capacity}), not {count}")
        if self._closed:  # the pool, which belongs to all handles, would not notice
            raise self._refusal()

    def clone(self) -> Self:
        """Another sender of the same channel, to be closed on its own. Raises HandleClosed when this one is closed."""
        if self._closed:
            raise self._refusal()
        return type(self)(self._core)

    def downgrade(self) -> WeakSender[T]:
        """A handle that can make senders, but does not keep the channel open itself."""
        return WeakSender(self._core, type(self))

    def close(self, cause: BaseException | None = None) -> None:
        """Close this handle; with the last one, the channel.

        Calls that are parked on it get HandleClosed, with their items. `cause` is what receivers will be told at the
        end; the first cause of a channel counts. Never waits; any thread may call it, again and again.
        """
        require_error(cause)
        self._core.section.do(partial(self._close, cause))

    def _close(self, cause: BaseException | None) -> None:
        if not self._closed:
            self._closed = True
            self._senders = SHUT
            self._core.drop_sender(cause)
            self._end_calls()

    def _end_calls(self) -> None:
        """Fail the calls that are parked on this handle, which is closed, and serve who stands behind them."""
        core = self._core
        for waiter in core.waiters.copy():
            want = getattr(waiter, "operation", None)
            if isinstance(want, WaitingForRoom) and want.sender is self and waiter.claim():
                discard(core.waiters, waiter)
                waiter.fail(want.refuse())
        core.serve_locked()

    def _forgotten(self) -> Callable[[], None]:
        return self._core.drop_sender

    def into_sink(self) -> Sink[T]:
        """A sink in place of this sender, which is closed: what was its part in the channel is the sink's now.

        Raises HandleClosed when it was closed before. Needs the distribution `yamanote-streams`.
        """
        return sink_of(self._for_sink)

    def _for_sink(self) -> Sender[T] | SendOnly[T]:
        """What takes the place of this sender: a sink reserves room, wherever it can."""
        return self._moved()


@final
class SendOnly(Generic[T]):
    """A sender of a kind for which reserving room makes no sense, or would get round its policy."""

    __slots__ = ("_sender", "close")

    def __init__(self, sender: Sender[T]) -> None:
        self._sender = sender
        self.close = sender.close

    async def send(self, item: T, /) -> None:
        await self._sender.send(item)

    def __repr__(self) -> str:
        return repr(self._sender)


@final
class WeakSender(Generic[T]):
    """Makes senders of a channel without keeping it open."""

    __slots__ = ("_core", "_kind")

    def __init__(self, core: Handover[T], kind: type[Sender[T]]) -> None:
        self._core = core
        self._kind = kind

    def upgrade(self) -> Sender[T] | None:
        """A sender, or None when the channel is closed."""
        with self._core.section:  # so that it cannot close before the sender has counted itself
            return None if self._core.closed else self._kind(self._core)

    def __repr__(self) -> str:
        return f"<WeakSender of a channel that is {'closed' if self._core.closed else 'open'} at {id(self._core):#x}>"
