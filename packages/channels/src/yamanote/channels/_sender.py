"""The sending end of a channel."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, final

from yamanote.channels._errors import ChannelClosed, ChannelFull
from yamanote.channels._handle import SHUT, Handle, require_count, require_error
from yamanote.channels._handover import Handover, discard
from yamanote.runtime import BUDGET, Waiter, park, park_thread, refuse_loop_thread, yield_now

if TYPE_CHECKING:
    from yamanote.sinks import Sink

__all__ = ["Permit", "Sender", "UnboundedSender", "WeakSender"]

T = TypeVar("T")


class Sender(Handle[T]):
    """The sending end of a channel. Made by `channel`; clonable; usable by tasks of any loop and by threads.

    Close it (`close`, `with`, `async with`) when you have nothing more to send: receivers see the end once every
    sender is closed and the channel is empty. A sender that is merely dropped is closed with a ResourceWarning.
    """

    __slots__ = ("_append", "_receivers", "_senders", "_take")

    def __init__(self, core: Handover[T]) -> None:
        super().__init__(core)
        self._senders = core.waiters
        self._receivers = core.receivers
        # Bound once: looking these up is a good part of what a send costs.
        self._append = core.items.append
        self._take = core.tokens.pop
        with core.section:
            core.sender_handles += 1

    async def send(self, item: T) -> None:
        """Send `item`, waiting for room if there is none.

        Raises ChannelClosed, with the item in `refused`, when nobody can receive it any more. Senders that wait are
        served first in, first out. Cancel safe: nothing is lost but the place in the queue. When the cancellation
        arrives in the very turn in which room had been made, the item may have been accepted already; where you must
        know, `reserve` first.
        """
        if (left := self._left) and not self._senders:
            try:
                self._take()
            except IndexError:
                pass  # full
            else:
                self._left = left - 1
                self._append(item)
                if self._receivers:
                    self._core.fetch_late(item)
                return
        if not left and not self._senders:
            self._left = BUDGET
            await yield_now()
            return await self.send(item)
        self._left = BUDGET
        await park(_Send(self, item))

    def send_nowait(self, item: T) -> None:
        """Send `item` now.

        Raises ChannelFull when there is no room (or others wait for it already) and ChannelClosed when nobody can
        receive it any more, both with the item in `refused`. Any thread may call it; while another one is half-way
        through a call, the channel may seem full a moment early.
        """
        if not self._senders:
            try:
                self._take()
            except IndexError:
                if not self._core.try_take(1):
                    raise ChannelFull(f"all {self.capacity} places are taken", item) from None
            self._append(item)
            if self._receivers:
                self._core.fetch_late(item)
        elif self.is_closed:
            raise self._refusal(item)
        else:
            raise ChannelFull("others wait for room already", item)

    async def send_many(self, items: Iterable[T]) -> None:
        """Send all of `items`, in order, waiting for room as often as need be. Items of others may come between.

        Raises ChannelClosed, with the first item that was not accepted in `refused`. Then, and when the call is
        cancelled, what comes behind it has not been looked at: pass an iterator to know where it stopped.
        """
        for item in items:
            await self.send(item)

    def blocking_send(self, item: T, timeout: float | None = None) -> None:
        """`send`, for plain threads: blocks for at most `timeout` seconds.

        Raises TimeoutError when there was no room all the while, ChannelClosed as `send` does, and RuntimeError in a
        thread that runs an event loop.
        """
        refuse_loop_thread(timeout)
        full = False
        try:
            self.send_nowait(item)
        except ChannelFull:
            full = True
        if full:  # not in the `except`: a TimeoutError has nothing to do with it
            park_thread(_Send(self, item), timeout)

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
        if (left := self._left) and not self._senders:
            try:
                self._take()
            except IndexError:
                pass  # full
            else:
                self._left = left - 1
                return Permit(self)
        return (await self.reserve_many(1))[0]

    async def reserve_many(self, count: int) -> list[Permit[T]]:
        """`reserve`, for `count` items at once: all the permits or none, in one place of the queue.

        Raises ValueError when `count` is less than 1 or more than the capacity.
        """
        if not self._left:
            self._left = BUDGET
            await yield_now()
        self._check_reservation(count)
        if self._core.try_take(count):
            self._left -= 1
            return [Permit(self) for _ in range(count)]
        self._left = BUDGET
        return await park(_Reserve(self, count))

    def reserve_nowait(self, count: int = 1) -> list[Permit[T]]:
        """Permits for `count` items, now. Raises ChannelFull, ChannelClosed or ValueError."""
        self._check_reservation(count)
        if self._core.try_take(count):
            return [Permit(self) for _ in range(count)]
        if self.is_closed:
            raise self._refusal()
        raise ChannelFull(f"no room for {count} of {self.capacity} places")

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
            if isinstance(want, _Want) and want.sender is self and waiter.claim():
                discard(core.waiters, waiter)
                waiter.fail(want.refuse())
        core.serve_locked()

    def _forgotten(self) -> Callable[[], None]:
        return self._core.drop_sender

    def into_sink(self) -> Sink[T]:
        """This sender as a sink, which owns it from now on. Needs the distribution `yamanote-streams`."""
        try:
            from yamanote.sinks import SenderSink
        except ImportError as error:
            raise ImportError("into_sink() needs the distribution yamanote-streams") from error
        return SenderSink(self)


@final
class UnboundedSender(Sender[T]):
    """The sending end of an unbounded channel: `send` never waits for room."""

    __slots__ = ()

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
        self._append(item)
        if self._receivers:
            self._core.fetch_late(item)

    def send_nowait(self, item: T) -> None:
        """Send `item` now. Raises ChannelClosed, with the item in `refused`. Any thread may call it."""
        if self._senders:
            raise self._refusal(item)
        self._append(item)
        if self._receivers:
            self._core.fetch_late(item)


@final
class Permit(Generic[T]):
    """Room for one item. Use it once: `send` or `release`; leaving a `with` block releases what was not used."""

    __slots__ = ("_sender",)

    def __init__(self, sender: Sender[T]) -> None:
        self._sender: Sender[T] | None = sender

    def send(self, item: T) -> None:
        """Send `item` into the reserved room. Never waits; any thread may call it.

        Works on a channel that was closed meanwhile, as long as somebody can receive; otherwise raises ChannelClosed,
        with the item in `refused`. Raises RuntimeError when the permit was used before.
        """
        sender = self._use()
        sender._append(item)
        try:
            if sender._receivers:
                sender._core.fetch_late(item)
        finally:
            sender._core.permit_used()

    def release(self) -> None:
        """Give the room back, unless it was used. Never waits; any thread may call it, again and again."""
        if self._sender is not None:
            self._use()._core.give_back(1)

    def _use(self) -> Sender[T]:
        sender = self._sender
        if sender is None:
            raise RuntimeError("this permit was used before")
        self._sender = None
        return sender

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def __leak__(self) -> str | None:
        """Whether it was not used, for `yamanote.testing.no_leaks`."""
        return None if getattr(self, "_sender", None) is None else f"{self!r} was neither sent with nor released"

    def __del__(self) -> None:
        if self._sender is not None:
            message = f"{self!r} was dropped, neither sent with nor released"
            core = self._use()._core
            core.section.run(partial(core.give_back_locked, 1))
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        return "<Permit, used>" if self._sender is None else f"<Permit for one item of {self._sender!r}>"


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


class _Want(ABC, Generic[T]):
    """A call of a sender that waits for room."""

    __slots__ = ("sender",)

    need = 1

    def __init__(self, sender: Sender[T]) -> None:
        self.sender = sender

    def register(self, waiter: Waiter[Any]) -> None:
        sender = self.sender
        if sender._closed:
            if waiter.claim():
                waiter.fail(self.refuse())
            return
        sender._core.enlist(waiter, self)
        if sender._closed:  # by another thread, which may have looked too early
            sender._core.section.do(sender._end_calls)

    def withdraw(self, waiter: Waiter[Any]) -> None:
        self.sender._core.delist(waiter)

    @abstractmethod
    def grant(self) -> Any: ...

    @abstractmethod
    def revoke(self, granted: Any) -> int: ...

    def refuse(self) -> ChannelClosed:
        return self.sender._refusal()


@final
class _Send(_Want[T]):
    __slots__ = ("item",)

    def __init__(self, sender: Sender[T], item: T) -> None:
        self.sender = sender
        self.item = item

    def grant(self) -> None:
        self.sender._append(self.item)

    def revoke(self, granted: None) -> int:
        return 0  # the item was accepted, and its room is taken

    def refuse(self) -> ChannelClosed:
        return self.sender._refusal(self.item)


@final
class _Reserve(_Want[T]):
    __slots__ = ("need",)

    def __init__(self, sender: Sender[T], need: int) -> None:
        super().__init__(sender)
        self.need = need

    def grant(self) -> list[Permit[T]]:
        return [Permit(self.sender) for _ in range(self.need)]

    def revoke(self, granted: list[Permit[T]]) -> int:
        for permit in granted:
            permit._use()
        return len(granted)
