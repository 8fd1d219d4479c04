"""Cycle: the same items again and again, from memory."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from typing import Any, TypeVar

from yamanote.runtime import BUDGET, yield_now
from yamanote.streams._pipeline import Pipeline
from yamanote.streams._sequential import Sequential

__all__ = ["Cycle"]

T_co = TypeVar("T_co", covariant=True)


class Cycle(Sequential[T_co]):
    """Keeps what the source gives, and gives it once more when that has ended, without an end."""

    __slots__ = ("_again", "_exhausted", "_items", "_left")

    def __init__(self, source: Pipeline[Any]) -> None:
        super().__init__(source)
        self._items: list[Any] = []
        self._exhausted = False
        self._again: Iterator[Any] = builtins.iter(())
        """What is left of this round."""
        self._left = BUDGET

    async def _next(self) -> T_co:
        if not self._exhausted:
            try:
                item = await self._sources[0].pull()
            except StopAsyncIteration:
                if not self._items:
                    raise
                self._exhausted = True
            else:
                self._items.append(item)
                return item  # type: ignore[no-any-return]
        if not self._left:
            self._left = BUDGET
            await yield_now()
        self._left -= 1
        for item in self._again:
            return item  # type: ignore[no-any-return]
        self._again = builtins.iter(self._items)
        return next(self._again)  # type: ignore[no-any-return]

    def __str__(self) -> str:
        return f"{self._sources[0]}.cycle()"
