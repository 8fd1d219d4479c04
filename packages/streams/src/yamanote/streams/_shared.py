"""Shared: one source for several subscribers, through a broadcast channel.

Invariant: there is one feeder, begun by the first pull of any subscriber; it pulls when a subscriber has taken
everything there is. If nobody may miss anything, it goes on until the slowest is `capacity` items behind; else it
pulls one item at a time. When the last subscriber has left, the source is closed. The end, or the failure of the
source, is told to every subscriber behind all items.
"""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from types import TracebackType
from typing import Any, Literal, NoReturn, TypeAlias, TypeVar, final

from yamanote.channels import BroadcastReceiver, ChannelClosed, Lagged, broadcast
from yamanote.streams._feeder import Feeder
from yamanote.streams._operator import Operator, close_all
from yamanote.streams._pipeline import Pipeline

__all__ = ["Hub", "Overflow", "Subscription"]

T_co = TypeVar("T_co", covariant=True)

Overflow: TypeAlias = Literal["suspend", "lag", "drop_oldest"]


@final
class Hub(Operator[Any]):
    """Owns the source, and is subscribed to."""

    __slots__ = (
        "_context",
        "_ended",
        "_failure",
        "_feeder",
        "_kept",
        "_limit",
        "_pulling",
        "_sender",
        "_text",
        "_traceback",
        "starved",
    )

    def __init__(self, source: Pipeline[Any], text: str, capacity: int, replay: int, overflow: Overflow) -> None:
        super().__init__(source)
        self._text = text
        self._limit = capacity if overflow == "suspend" else None
        # One more: for the item that is under way while somebody comes who begins with a whole replay.
        room = capacity if self._limit is None else capacity + 1
        self._sender, first = broadcast[Any](room, replay=replay, overflow=overflow)
        first.close()
        self._context = copy_context()  # not that of the first subscriber, who may have a deadline
        self._feeder: Feeder | None = None  # only while it is at work: both refer to each other
        self._pulling = False
        self.starved: bool = False
        """Whether somebody has asked for an item for which there was no room."""
        self._ended = False
        self._kept: list[Any] = []
        """The replay for those who come after the end."""
        self._failure: BaseException | None = None
        self._traceback: TracebackType | None = None

    def subscribe(self) -> Subscription[Any]:
        if self._over:
            raise RuntimeError(f"{self!r} is closed: its last subscriber has left, or it was closed itself")
        return Subscription(self, self._subscribe_late() if self._ended else self._sender.subscribe())

    def _subscribe_late(self) -> BroadcastReceiver[Any]:
        sender, receiver = broadcast[Any](len(self._kept) or 1)
        with sender:
            for item in self._kept:
                sender.send_nowait(item)
        return receiver

    def demand(self) -> None:
        """A subscriber is about to wait."""
        if self._over or self._ended or self._pulling:
            return
        self.starved = self._is_full
        if self.starved:
            return
        self._pulling = True
        if self._feeder is None:
            self._feeder = Feeder(self._sources[0], self._accept, self._exhaust)
            self._feeder.start(self._context)
        else:
            self._feeder.want()

    def attend(self, behind: int) -> None:
        """A subscriber has moved on, which was so far `behind`: if that was the slowest, there is room."""
        if self._limit is not None and behind >= self._limit:
            self.demand()

    @property
    def failure(self) -> BaseException | None:
        """Why the source has ended, for one more subscriber: where the others have raised it is no part of that."""
        return None if self._failure is None else self._failure.with_traceback(self._traceback)

    @property
    def _is_full(self) -> bool:
        return self._limit is not None and len(self._sender) >= self._limit

    @property
    def is_deserted(self) -> bool:
        """Whether nobody is subscribed, though something might still come."""
        return not self._ended and not self._sender.receiver_count

    @property
    def has_others(self) -> bool:
        """Whether the source goes on when one subscriber leaves."""
        return self._sender.receiver_count > 1

    async def leave(self) -> None:
        """A subscriber has left, at the end or before."""
        if self._ended:
            await close_all(*self._sources)  # which the feeder has done, unless it was cancelled before its first step
        elif self.is_deserted:
            await self.close()
        elif self.starved:
            self.demand()

    def lose(self) -> None:
        """`leave`, for finalizers."""
        if self.is_deserted:
            self.abandon()
        elif self.starved and self._feeder is not None:
            self._feeder.call_soon(self.demand)

    def _accept(self, item: Any) -> bool:
        if self._sender.is_closed:  # everybody has left while it came
            return False
        self._sender.send_nowait(item)
        self._pulling = self._limit is not None and not self._is_full
        return self._pulling

    def _exhaust(self, failure: BaseException | None) -> None:
        self._feeder = None
        if not self._over:
            self._ended = True
            self._failure = failure
            self._traceback = None if failure is None else failure.__traceback__
            with self._sender, self._sender.subscribe() as late:
                self._kept = [late.recv_nowait() for _ in range(len(late))]
        elif not isinstance(failure, asyncio.CancelledError | None):  # nobody pulls any more
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"closing {self} failed", "exception": failure}
            )

    async def pull(self) -> NoReturn:
        raise RuntimeError(f"{self!r} is to be subscribed to")

    async def _close(self) -> None:
        self._over = True
        self._sender.close()
        try:
            if self._feeder is not None:
                await self._feeder.stop()
        finally:
            await super()._close()

    @property
    def leftover(self) -> str | None:
        if self._over or self._ended:
            return None
        return super().leftover if self._feeder is None else "1 task"

    def abandon(self) -> None:
        self._over = True
        self._sender.close()
        if self._feeder is not None:
            self._feeder.abandon()
        super().abandon()

    def __del__(self) -> None:
        self._sender.close()

    def __str__(self) -> str:
        return f"{self._sources[0]}.{self._text}"

    def __repr__(self) -> str:
        return f"<{self}>"


@final
class Subscription(Operator[T_co]):
    """What one subscriber gets. The source is the hub's."""

    __slots__ = ("_hub", "_receiver", "_waiting")

    def __init__(self, hub: Hub, receiver: BroadcastReceiver[T_co]) -> None:
        super().__init__()
        self._hub = hub
        self._receiver = receiver
        self._waiting = False

    async def pull(self) -> T_co:
        if self._waiting:
            raise RuntimeError(f"{self} is being pulled by another task already")
        if not self._over:
            if not len(self._receiver):
                self._hub.demand()
            self._waiting = True
            try:
                item = await self._receiver.recv()
            except ChannelClosed:
                if not self._over:
                    await self._end(self._hub.failure)
            except Lagged as error:
                await self._end(error)
            else:
                if self._hub.starved:
                    self._hub.attend(len(self._receiver) + 1)
                return item
            finally:
                self._waiting = False
        await self._finish()

    async def _close(self) -> None:
        self._over = True
        self._receiver.close()
        await self._hub.leave()

    @property
    def leftover(self) -> str | None:
        if self._over or self._hub.leftover is None:
            return None
        return "a subscription" if self._hub.has_others else self._hub.leftover

    def abandon(self) -> None:
        self._over = True
        self._receiver.close()
        self._hub.lose()

    def __del__(self) -> None:
        self._receiver.close()

    def __str__(self) -> str:
        return str(self._hub)
