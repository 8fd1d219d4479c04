"""Receiving until the end: `async for` and `for` over the receiving end of a channel."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Generic, Self, TypeVar

from yamanote.channels._errors import ChannelClosed, HandleClosed

__all__ = ["Receiving", "is_plain_end"]

T_co = TypeVar("T_co", covariant=True)


class Receiving(Generic[T_co]):
    """What is received one by one."""

    __slots__ = ()

    @abstractmethod
    async def recv(self) -> T_co: ...

    @abstractmethod
    def blocking_recv(self) -> T_co: ...

    def __aiter__(self) -> Self:
        """Receive until the channel is closed and empty.

        Raises what `recv` raises; at the end of a channel that was closed with a cause, ChannelClosed.
        """
        return self

    async def __anext__(self) -> T_co:
        try:
            return await self.recv()
        except ChannelClosed as closed:
            if not is_plain_end(closed):
                raise
            raise StopAsyncIteration from None

    def __iter__(self) -> Iterator[T_co]:
        """`async for`, for plain threads: blocks for each item."""
        while True:
            try:
                item = self.blocking_recv()
            except ChannelClosed as closed:
                if not is_plain_end(closed):
                    raise
                return
            yield item


def is_plain_end(closed: ChannelClosed) -> bool:
    """Whether `closed` ends a loop without an error: it is not this very end that was closed, and there is no cause."""
    return closed.__cause__ is None and not isinstance(closed, HandleClosed)
