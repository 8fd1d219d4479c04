"""The sending end of a broadcast channel."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, final

from yamanote.channels._arguments import require_error
from yamanote.channels._broadcast_cursor import Cursor
from yamanote.channels._broadcast_handle import BroadcastHandle
from yamanote.channels._broadcast_log import BroadcastLog
from yamanote.channels._broadcast_receiver import BroadcastReceiver
from yamanote.channels._door import sink_of
from yamanote.channels._errors import ChannelError, HandleClosed
from yamanote.channels._handover import discard
from yamanote.runtime import BUDGET, Outcome, Selectable, Waiter, park, park_thread, refuse_loop_thread, yield_now

if TYPE_CHECKING:
    from yamanote.sinks import Sink

__all__ = ["BroadcastSender"]

T = TypeVar("T")


@final
class BroadcastSender(BroadcastHandle[T]):
    """The sending end of a broadcast channel. Made by `broadcast`; clonable; for tasks of any loop and for threads.

    Close it (`close`, `with`, `async with`) when you have nothing more to send: receivers see the end once every
    sender is closed and they have received what was sent. A sender that is merely dropped is closed with a
    ResourceWarning.

    **No receivers:** an item that nobody can receive is refused with ChannelClosed, until somebody subscribes again.
    With a replay window it is accepted, since whoever subscribes next may receive it.
    """

    __slots__ = ("_left",)

    def __init__(self, log: BroadcastLog[T]) -> None:
        super().__init__(log)
        self._left = BUDGET  # how many ready operations in a row until the next yield
        with log.section:
            log.sender_handles += 1

    async def send(self, item: T) -> int:
        """Send `item` to all receivers; return how many there are (0 when it was dropped).

        Waits only with ``overflow="suspend"``, until the slowest receiver has room. Raises ChannelClosed when nobody
        can receive the item, and ChannelFull with ``overflow="error"``, both with the item in `refused`. Senders that
        wait are served first in, first out.

        **Cancel safety:** cancelled is not sent, except when the cancellation arrives in the very turn in which room
        had been made: then the item may have been accepted already.
        """
        if left := self._left:
            self._left = left - 1
        else:
            self._left = BUDGET - 1
            await yield_now()
        receivers = self._post(item)
        if receivers is not None:
            return receivers
        self._left = BUDGET
        return await park(self.sending(item))

    def send_nowait(self, item: T) -> int:
        """Send `item` to all receivers now; return how many there are (0 when it was dropped).

        Raises ChannelClosed when nobody can receive it, and, with ``overflow="error"`` or ``"suspend"``, ChannelFull
        when the slowest receiver has no room, both with the item in `refused`. Any thread may call it.
        """
        receivers = self._post(item)
        if receivers is None:
            raise self._log.fullness(item)
        return receivers

    def blocking_send(self, item: T, timeout: float | None = None) -> int:
        """`send`, for plain threads: blocks for at most `timeout` seconds.

        Raises TimeoutError when there was no room all the while, ChannelClosed and ChannelFull as `send` does, and
        RuntimeError in a thread that runs an event loop.
        """
        refuse_loop_thread(timeout)
        receivers = self._post(item)
        return park_thread(self.sending(item), timeout) if receivers is None else receivers

    def sending(self, item: T) -> Selectable[int]:
        """`send`, as something to wait for in a select. With ``overflow="suspend"`` it waits for room."""
        return _Send(self, item)

    def _post(self, item: T) -> int | None:
        """Append the item, and return how many will receive it; None when it has to wait for room."""
        section = self._log.section
        if section.try_enter():
            try:
                if self._closed:
                    raise self._refusal(item)
                return self._log.post_locked(item)
            finally:
                section.leave()
        outcomes: list[Outcome[int | None]] = []
        section.do(partial(self._post_late, item, outcomes))
        # None: this is a finalizer, begun while its own thread is inside. The item comes after what is done there.
        return outcomes[0].unwrap() if outcomes else self.receiver_count

    def _post_late(self, item: T, outcomes: list[Outcome[int | None]]) -> None:
        try:
            outcomes.append(Outcome.ok(self._post_locked(item)))
        except ChannelError as error:
            outcomes.append(Outcome.failed(error))

    def _post_locked(self, item: T) -> int | None:
        if self._closed:
            raise self._refusal(item)
        return self._log.post_locked(item)

    def subscribe(self) -> BroadcastReceiver[T]:
        """One more receiver, for all items that are sent from now on, and first for the replay window.

        Raises HandleClosed if this handle is closed.
        """
        with self._log.section:
            if self._closed:
                raise self._refusal()
            return BroadcastReceiver(self._log, Cursor(self._log.window))

    def clone(self) -> BroadcastSender[T]:
        """Another sender of the same channel, to be closed on its own. Raises HandleClosed when this one is closed."""
        if self._closed:
            raise self._refusal()
        return BroadcastSender(self._log)

    @property
    def is_closed(self) -> bool:
        """Whether a send would be refused: this handle was closed, or nobody can receive."""
        return self._closed or self._log.deserted

    async def closed(self) -> None:
        """Wait until a send would be refused: the last receiver has been closed, or this handle.

        With a replay window there is always somebody to come. Cancel safe. Any thread's loop may wait.
        """
        if not self.is_closed:
            await park(_Desertion(self))

    def close(self, cause: BaseException | None = None) -> None:
        """Close this handle; with the last one, the channel.

        Calls that are parked on it get HandleClosed, with their items. `cause` is what receivers will be told at the
        end; the first cause of a channel counts. Never waits; any thread may call it, again and again.
        """
        require_error(cause)
        self._log.section.do(partial(self._close, cause))

    def _close(self, cause: BaseException | None) -> None:
        if not self._closed:
            self._closed = True
            self._log.drop_sender_locked(cause)
            self._log.refuse_sends_of_locked(self)
            self._log.dismiss_locked(lambda watcher: watcher.operation is self)

    def _drop(self) -> None:
        self._log.section.run(self._log.drop_sender_locked)

    def __len__(self) -> int:
        """How many items the slowest receiver has yet to receive."""
        return self._log.buffered

    def _refusal(self, *refused: Any) -> HandleClosed:
        return HandleClosed("this BroadcastSender was closed", *refused)

    def __repr__(self) -> str:
        log = self._log
        state = "closed" if self._closed else "open"
        return f"<BroadcastSender {state}, {len(self)} of {log.capacity} for {self.receiver_count} at {id(log):#x}>"

    def into_sink(self) -> Sink[T]:
        """This sender as a sink, which owns it from now on: this handle is closed by that.

        Raises HandleClosed, and ImportError without the distribution `yamanote-streams`.
        """
        return sink_of(self._moved)

    def _moved(self) -> BroadcastSender[T]:
        owned = self.clone()
        self.close()
        return owned


@final
class _Send(Generic[T]):
    """A `send` that may wait for room."""

    __slots__ = ("item", "sender")

    def __init__(self, sender: BroadcastSender[T], item: T) -> None:
        self.sender = sender
        self.item = item

    def register(self, waiter: Waiter[Any]) -> None:
        self.sender._log.section.do(partial(self._register, waiter))

    def _register(self, waiter: Waiter[Any]) -> None:
        log = self.sender._log
        try:
            if log.overflow == "suspend" and not self.sender._closed:
                waiter.operation = self
                log.enlist_locked(waiter)
            elif waiter.claim():
                waiter.settle(self.sender._post_locked(self.item))
        except ChannelError as error:
            waiter.fail(error)

    def withdraw(self, waiter: Waiter[Any]) -> None:
        """What was sent remains sent."""
        self.sender._log.section.do(partial(self.sender._log.delist_locked, waiter))


@final
class _Desertion:
    """Waits until nobody can receive any more."""

    __slots__ = ("_sender",)

    def __init__(self, sender: BroadcastSender[Any]) -> None:
        self._sender = sender

    def register(self, waiter: Waiter[None]) -> None:
        self._sender._log.section.do(partial(self._register, waiter))

    def _register(self, waiter: Waiter[None]) -> None:
        waiter.operation = self._sender
        if not self._sender.is_closed:
            self._sender._log.watchers.append(waiter)
        elif waiter.claim():
            waiter.settle(None)

    def withdraw(self, waiter: Waiter[None]) -> None:
        self._sender._log.section.do(partial(discard, self._sender._log.watchers, waiter))
