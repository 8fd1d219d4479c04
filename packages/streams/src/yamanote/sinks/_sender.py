"""Sinks at the ends: a channel of any kind, and nowhere.

Invariant of the first: an item is in the channel, or its `feed` has raised.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from yamanote.channels import ChannelClosed
from yamanote.runtime import cooperative
from yamanote.sinks._sink import Sink, SinkClosed
from yamanote.streams._arguments import is_async

__all__ = ["SenderSink", "drain"]

T_contra = TypeVar("T_contra", contravariant=True)


class _Sender(Protocol[T_contra]):
    """The sending end of a channel of any kind. If it has `reserve`, a cancelled `send` may have sent all the same."""

    def send(self, item: T_contra, /) -> object: ...

    def close(self) -> object: ...


class SenderSink(Sink[T_contra]):
    """A sink that sends each item through `sender`, which it owns: closing the sink closes the sender.

    The sender may belong to a channel of any kind: whatever has `send` and `close`, plain or async. An item has arrived
    when it is in the channel, so flushing does nothing. `feed` raises ChannelClosed, with the item in `refused`, when
    nobody receives any more. **Cancel safety**: an item whose `feed` was cancelled was not sent. That of bytes, and of
    a broadcast channel that suspends, is as with their own `send`, and may have been.

    >>> from yamanote.channels import channel
    >>> from yamanote.runtime import run
    >>> from yamanote.sinks import SenderSink
    >>> async def main():
    ...     sender, receiver = channel(10)
    ...     async with SenderSink(sender) as sink:
    ...         await sink.send("hello")
    ...     with receiver:
    ...         return [item async for item in receiver]
    >>> run(main())
    ['hello']
    """

    __slots__ = ("_closed", "_closes_async", "_reserve", "_sender", "_waits")

    def __init__(self, sender: _Sender[T_contra]) -> None:
        for name in ("send", "close"):
            if not callable(getattr(sender, name, None)):
                raise TypeError(f"sender must have {name}(), not be {sender!r}")
        self._sender = sender
        self._reserve = getattr(sender, "reserve", None)
        self._waits = is_async(sender.send)
        self._closes_async = is_async(sender.close)
        self._closed = False

    async def feed(self, item: T_contra) -> None:
        if self._closed:
            raise SinkClosed(f"{self!r} has been closed")
        try:
            if self._reserve is not None:
                # Not `send`: that one, when it is cancelled, may have sent the item all the same.
                (await self._reserve()).send(item)
            elif self._waits:
                await self._sender.send(item)  # type: ignore[misc]
            else:
                await cooperative()
                self._sender.send(item)
        except ChannelClosed as closed:
            if self._closed:  # while this waited
                raise SinkClosed(f"{self!r} has been closed") from closed
            closed.refused = closed.refused or (item,)
            raise

    async def flush(self) -> None:
        if self._closed:
            raise SinkClosed(f"{self!r} has been closed")

    async def close(self) -> None:
        self._closed = True
        result: Any = self._sender.close()
        if self._closes_async:
            await result

    def __repr__(self) -> str:
        return f"<SenderSink of {self._sender!r}>"


class _Drain(Sink[Any]):
    __slots__ = ("_closed",)

    def __init__(self) -> None:
        self._closed = False

    async def feed(self, item: Any) -> None:
        await cooperative()
        if self._closed:
            raise SinkClosed(f"{self!r} has been closed")

    async def flush(self) -> None:
        if self._closed:
            raise SinkClosed(f"{self!r} has been closed")

    async def close(self) -> None:
        self._closed = True

    def __repr__(self) -> str:
        return "<drain>"


def drain() -> Sink[Any]:
    """A sink that accepts everything, at once, and forgets it."""
    return _Drain()
