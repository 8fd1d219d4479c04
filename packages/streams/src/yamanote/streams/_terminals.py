"""The terminals: what consumes a stream to its end, and closes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from yamanote.streams._arguments import is_async, require_function
from yamanote.streams._handle import Handle
from yamanote.streams._pipeline import explained

if TYPE_CHECKING:
    from yamanote.sinks import Sink

__all__ = ["Terminals"]

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")


class Terminals(Handle[T_co]):
    """To the end."""

    __slots__ = ()

    async def collect(self) -> list[T_co]:
        """All items, in a list. The loop gets its turn now and then, even if nothing ever waits.

        **Cancel safety**: none; what has been collected is gone, and the stream is closed.
        """
        async with self:
            return await self._pipeline.collect()

    async def for_each(self, function: Callable[[T_co], object]) -> None:
        """Call `function` with each item; await it before the next one is pulled, if it is async.

        **Cancel safety**: an item whose call was cancelled is gone, and the stream is closed.
        """
        require_function("function", function)
        async with self:
            if not is_async(function):
                await self._pipeline.drain(function)
                return
            async for item in self:
                try:
                    await function(item)  # type: ignore[misc]
                except StopAsyncIteration as error:
                    raise explained(error) from error

    async def forward(self, sink: Sink[T_co]) -> None:
        """Feed every item to `sink`, then flush and close it.

        The sink is closed in any case, so what it has accepted is written even if the stream fails or this call is
        cancelled. `Sink.send_all` leaves it open. Raises what the stream or the sink raises.

        **Cancel safety**: an item that the sink has not accepted is gone, and the stream is closed.
        """
        async with self, sink:
            async for item in self:
                await sink.feed(item)
