"""Async functions, called for one item after another.

Invariant: the item is kept until its call has ended, so a pull that is cancelled loses nothing: the next one calls the
function again, with the same item.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from yamanote.streams._arguments import name_of
from yamanote.streams._operator import Operator
from yamanote.streams._pipeline import Pipeline
from yamanote.streams._stages import Map

__all__ = ["FilterCalls", "MapCalls"]

T_co = TypeVar("T_co", covariant=True)


class _Calls(Operator[T_co]):
    __slots__ = ("_function", "_held", "_source")

    def __init__(self, source: Pipeline[Any], function: Callable[[Any], Awaitable[Any]]) -> None:
        super().__init__(source)
        self._source = source
        self._function = function
        self._held: list[Any] = []

    async def _call(self) -> tuple[Any, Any]:
        """The next item, and what the function said to it."""
        if not self._over:
            if not self._held:
                self._held.append(await self._source.pull())
            try:
                answer = await self._function(self._held[0])
            except Exception as error:
                await self._end(error)
            else:
                if not self._over:
                    return self._held.pop(), answer
        self.raise_end()

    async def _close(self) -> None:
        self._held.clear()
        await super()._close()


class MapCalls(_Calls[T_co]):
    """The result of the call, for each item."""

    __slots__ = ()

    async def pull(self) -> T_co:
        return (await self._call())[1]  # type: ignore[no-any-return]

    def uncalled(self) -> Pipeline[Any]:
        """The calls themselves, not awaited. Nobody uses this pipeline any more."""
        if self._held:
            raise RuntimeError("an item waits for its call to be repeated: buffer before the first item is asked for")
        return self._source.then(Map(self._function))

    def __str__(self) -> str:
        return f"{self._source}.map({name_of(self._function)})"


class FilterCalls(_Calls[T_co]):
    """The items whose call gives something true."""

    __slots__ = ()

    async def pull(self) -> T_co:
        while True:
            item, wanted = await self._call()
            if wanted:
                return item  # type: ignore[no-any-return]

    def __str__(self) -> str:
        return f"{self._source}.filter({name_of(self._function)})"
