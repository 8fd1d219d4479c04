"""Permits: room for items that has been reserved, and the calls that wait for room.

Invariant: room that was reserved is used or given back exactly once: by `send`, by `release`, by the end of a `with`
block, or at worst by the finalizer of the permit. Until then it keeps a closing channel from ending.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar, final

from yamanote.channels._errors import ChannelClosed
from yamanote.runtime import Waiter

if TYPE_CHECKING:
    from yamanote.channels._sender import Sender

__all__ = ["Permit", "Reservation", "Sending", "WaitingForRoom"]

T = TypeVar("T")


@final
class Permit(Generic[T]):
    """Room for one item. Use it once: `send` or `release`; leaving a `with` block releases what was not used.

    Any thread may use it, though not two at once.
    """

    __slots__ = ("_sender",)

    def __init__(self, sender: Sender[T]) -> None:
        self._sender: Sender[T] | None = sender
        permits = sender._core.permits
        if permits is not None:
            permits.append(None)

    def send(self, item: T) -> None:
        """Send `item` into the reserved room. Never waits.

        Works on a channel that was closed meanwhile, as long as somebody can receive; otherwise raises ChannelClosed,
        with the item in `refused`. Raises RuntimeError when the permit was used before.
        """
        sender = self._sender
        if sender is None:
            raise RuntimeError("this permit was used before")
        self._sender = None
        sender._items.append(item)
        _count_out(sender)
        try:
            if sender._receivers:
                sender._core.offer(item)
        finally:
            if sender._counts_permits:
                sender._core.give_back(1)

    def release(self) -> None:
        """Give the room back, unless it was used. Never waits; call it again and again."""
        sender, self._sender = self._sender, None
        if sender is not None:
            _count_out(sender)
            sender._core.give_back(1)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a permit can neither be copied nor pickled: it is room for one item, once")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def __leak__(self) -> str | None:
        """Whether it was not used, for `yamanote.testing.no_leaks`."""
        return None if getattr(self, "_sender", None) is None else f"{self!r} was neither sent with nor released"

    def __del__(self) -> None:
        sender = self._sender
        if sender is not None:
            message = f"{self!r} was dropped, neither sent with nor released"
            self._sender = None
            _count_out(sender)
            sender._core.section.run(partial(sender._core.give_back_locked, 1))
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        return "<Permit, used>" if self._sender is None else f"<Permit for one item of {self._sender!r}>"


def _count_out(sender: Sender[Any]) -> None:
    """One permit is out no longer. Before its room is given back, and after its item is there."""
    permits = sender._core.permits
    if permits is not None:
        permits.pop()


class WaitingForRoom(ABC, Generic[T]):
    """A call of a sender that waits for room: what its waiter stands in the queue for."""

    __slots__ = ("sender",)

    need = 1

    def __init__(self, sender: Sender[T]) -> None:
        self.sender = sender

    def register(self, waiter: Waiter[Any], /) -> None:
        """Park `waiter` behind all that wait for room already. See `yamanote.runtime.Selectable`."""
        sender = self.sender
        if sender._closed:
            if waiter.claim():
                waiter.fail(self.refuse())
            return
        sender._core.enlist(waiter, self)
        if sender._closed:  # by another thread, which may have looked too early
            sender._core.section.do(sender._end_calls)

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        """Forget `waiter`; room that it was given goes to the next."""
        self.sender._core.delist(waiter)

    @abstractmethod
    def grant(self) -> Any: ...

    @abstractmethod
    def revoke(self, granted: Any) -> int: ...

    def refuse(self) -> ChannelClosed:
        return self.sender._refusal()


@final
class Sending(WaitingForRoom[T]):
    """Sends one item as soon as there is room. What is committed is None."""

    __slots__ = ("item",)

    def __init__(self, sender: Sender[T], item: T) -> None:
        self.sender = sender
        self.item = item

    def grant(self) -> None:
        self.sender._items.append(self.item)

    def revoke(self, granted: None) -> int:
        return 0  # the item was accepted, and its room is taken

    def refuse(self) -> ChannelClosed:
        return self.sender._refusal(self.item)


@final
class Reservation(WaitingForRoom[T]):
    """Takes permits for some items as soon as there is room for all of them. What is committed are the permits."""

    __slots__ = ("need",)

    def __init__(self, sender: Sender[T], need: int) -> None:
        self.sender = sender
        self.need = need

    def grant(self) -> list[Permit[T]]:
        return [Permit(self.sender) for _ in range(self.need)]

    def revoke(self, granted: list[Permit[T]]) -> int:
        for permit in granted:
            permit._sender = None
            _count_out(self.sender)
        return len(granted)
