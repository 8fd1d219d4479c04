"""Watched: the engine of watch channels. The newest value, and who waits for the next one.

Invariant: a parked receiver has seen the newest value, and a sender is open; whoever is handed a value has seen it from
that moment on, unless it is withdrawn. So no receiver misses the last value, and none is given an older one after a
newer one.

A versioned cell would only wake: a receiver that is one branch of a select must also be told of the end, and has a mark
to take back. Who parks appends itself, *then* looks again; who stores a value goes through all who are parked *then*.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, final

from yamanote.channels._end import End
from yamanote.channels._errors import ChannelClosed, HandleClosed
from yamanote.runtime import CriticalSection, Waiter, park

__all__ = ["State", "WatchEnd", "Watched", "Watching"]

T = TypeVar("T")


class State(NamedTuple, Generic[T]):
    """A value and its version, in one object: whoever looks sees both of the same change."""

    value: T
    version: int
    """How many values there were before it."""


class Watching(Protocol):
    """Who is parked, and for what; its waiter carries it as `operation`."""

    def _is_due(self) -> bool:
        """Whether there is something to tell."""
        ...

    def _tell(self, waiter: Waiter[Any]) -> None:
        """Tell `waiter`, unless it waits no longer. Called under the lock."""
        ...


class Watched(Generic[T]):
    """The state of one watch channel, shared by all its handles. What changes it is called under the lock."""

    __slots__ = ("cause", "receivers", "section", "senders", "state", "waiters")

    cause: BaseException | None
    """What the channel was closed with."""
    receivers: int
    """Open receiving handles."""
    section: CriticalSection
    senders: int
    """Open sending handles. Once there is none there will never be one again."""
    state: State[T]
    waiters: deque[Waiter[Any]]
    """Parked parties, oldest first."""

    def __init__(self, value: T) -> None:
        self.cause = None
        self.receivers = 1
        self.section = CriticalSection()
        self.senders = 1
        self.state = State(value, 0)
        self.waiters = deque()

    @property
    def closed(self) -> bool:
        """Whether nothing can pass through; without receivers, until somebody subscribes."""
        return not self.senders or not self.receivers

    def store(self, value: T) -> None:
        """The newest value, from now on."""
        self.state = State(value, self.state.version + 1)
        self.serve()

    def add_sender(self) -> None:
        if self.senders:
            self.senders += 1

    def add_receiver(self) -> None:
        self.receivers += 1

    def drop_sender(self, cause: BaseException | None = None) -> None:
        if self.cause is None:
            self.cause = cause
        self.senders -= 1
        if not self.senders:
            self.serve()

    def drop_receiver(self) -> None:
        self.receivers -= 1
        if not self.receivers:
            self.serve()

    def serve(self, only: Watching | None = None) -> None:
        """Tell everybody who is due, oldest first; or look only at the calls of one end."""
        # The copy is made even of nothing: it is what orders the change before, or behind, an append in `park`.
        for waiter in self.waiters.copy():
            operation = waiter.operation
            if (only is None or operation is only) and operation._is_due():
                self.forget(waiter)
                operation._tell(waiter)

    def park(self, waiter: Waiter[Any], operation: Watching) -> None:
        """Queue `waiter`, last. Without the lock."""
        waiter.operation = operation
        self.waiters.append(waiter)
        if operation._is_due():
            self.section.do(self.serve)

    def forget(self, waiter: Waiter[Any]) -> None:
        """Take `waiter` out of the queue, if it is still there."""
        try:
            self.waiters.remove(waiter)
        except ValueError:
            pass  # by a finalizer, meanwhile


class WatchEnd(End, Generic[T]):
    """What both ends have in common."""

    __slots__ = ("_core",)

    def __init__(self, core: Watched[T]) -> None:
        super().__init__()
        self._core = core

    @property
    def receiver_count(self) -> int:
        """How many receivers are open."""
        return self._core.receivers

    @property
    def sender_count(self) -> int:
        """How many senders are open."""
        return self._core.senders

    @property
    def is_closed(self) -> bool:
        """Whether this end was closed, or no sender is left, or (until somebody subscribes) no receiver."""
        return self._closed or self._core.closed

    async def closed(self) -> None:
        """Wait until no sender is left, or no receiver. Then whoever makes the values may stop.

        Cancel safe. Tasks of any loop may call it.
        """
        if not self._core.closed:
            await park(_Closing(self._core))

    def borrow(self) -> T:
        """The newest value; a receiver has not seen it by that. Raises HandleClosed when this end was closed.

        Never waits; any thread may call it. The value is still there when all senders are closed. It belongs to
        everybody: do not change it, send another one.
        """
        self._require_open()
        return self._core.state.value

    def same_channel(self, other: WatchEnd[Any]) -> bool:
        """Whether `other` is an end, of either kind, of this very channel."""
        return isinstance(other, WatchEnd) and self._core is other._core

    def _require_open(self, *refused: Any) -> None:
        if self._closed:
            raise self._refusal(*refused)

    def _refusal(self, *refused: Any) -> ChannelClosed:
        if self._closed:
            return HandleClosed(f"this {type(self).__name__} was closed", *refused)
        error = ChannelClosed("the channel is closed", *refused)
        error.__cause__ = self._core.cause
        return error

    def _condition(self) -> str:
        core = self._core
        if self._closed:
            return "closed"
        return "of a closed channel" if not core.senders else "without receivers" if not core.receivers else "open"


@final
class _Closing:
    """Waits until a channel has no sender, or no receiver, any more."""

    __slots__ = ("_core",)

    def __init__(self, core: Watched[Any]) -> None:
        self._core = core

    def register(self, waiter: Waiter[None]) -> None:
        self._core.park(waiter, self)

    def withdraw(self, waiter: Waiter[None]) -> None:
        self._core.section.do(partial(self._core.forget, waiter))

    def _is_due(self) -> bool:
        return self._core.closed

    def _tell(self, waiter: Waiter[Any]) -> None:
        waiter.hand(None)
