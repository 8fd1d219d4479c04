"""With map: a function before a sink."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from yamanote.sinks._sink import Sink
from yamanote.streams._arguments import is_async, name_of, refuse_coroutine, require_function

__all__ = ["WithMap"]

T_contra = TypeVar("T_contra", contravariant=True)


class WithMap(Sink[T_contra]):
    """Feeds `function` of each item to `sink`."""

    __slots__ = ("_function", "_is_async", "_sink")

    def __init__(self, sink: Sink[Any], function: Callable[[T_contra], Any]) -> None:
        require_function("function", function)
        self._sink = sink
        self._function = function
        self._is_async = is_async(function)

    async def feed(self, item: T_contra) -> None:
        result = self._function(item)
        if self._is_async:
            result = await result
        else:
            refuse_coroutine(self._function, result)
        await self._sink.feed(result)

    async def flush(self) -> None:
        await self._sink.flush()

    async def close(self) -> None:
        await self._sink.close()

    async def _give_up(self) -> None:
        await self._sink._give_up()

    def __repr__(self) -> str:
        return f"<with_map({name_of(self._function)}) of {self._sink!r}>"
