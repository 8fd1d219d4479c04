"""With flat map: a function before a sink, which makes many items of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from yamanote.runtime import cooperative
from yamanote.sinks._relay import Relay
from yamanote.sinks._sink import Sink
from yamanote.streams import Stream
from yamanote.streams._arguments import is_async, name_of, refuse_coroutine, require_function

__all__ = ["WithFlatMap"]

T_contra = TypeVar("T_contra", contravariant=True)


class WithFlatMap(Relay[T_contra]):
    """Feeds everything in `function` of each item to `sink`."""

    __slots__ = ("_function", "_is_async", "_sink")

    def __init__(self, sink: Sink[Any], function: Callable[[T_contra], Any]) -> None:
        require_function("function", function)
        super().__init__(sink)
        self._sink = sink
        self._function = function
        self._is_async = is_async(function)

    async def feed(self, item: T_contra) -> None:
        async with self._turn:
            await self._arrived()
            result = self._function(item)
            if self._is_async:
                result = await result
            else:
                refuse_coroutine(self._function, result)
            if type(result) in (list, tuple):  # nothing to own: a stream for each would cost several times the work
                self._deliver(self._feed_all, result)
            else:
                self._deliver(self._feed_each, Stream(result))
            self._raise_error()

    async def _feed_all(self, items: Sequence[Any]) -> None:
        for item in items:
            await cooperative()
            await self._sink.feed(item)

    async def _feed_each(self, items: Stream[Any]) -> None:
        async with items:
            async for item in items:
                await self._sink.feed(item)

    def __repr__(self) -> str:
        return f"<with_flat_map({name_of(self._function)}) of {self._sink!r}, {self._state()}>"
