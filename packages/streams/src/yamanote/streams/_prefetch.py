"""Prefetch: a source that runs ahead of whoever consumes it.

Invariant: up to `limit` items wait here, in the order of the source; it is pulled, by a feeder, while there are fewer.
They are all given before its end or its failure.
"""

from __future__ import annotations

from collections import deque
from typing import Any, TypeVar

from yamanote.runtime import BUDGET, yield_now
from yamanote.streams._fed import Fed
from yamanote.streams._pipeline import Pipeline

__all__ = ["Prefetch"]

T_co = TypeVar("T_co", covariant=True)


class Prefetch(Fed[T_co]):
    """Without a limit if that is None."""

    __slots__ = ("_ahead", "_left", "_limit")

    def __init__(self, source: Pipeline[Any], limit: int | None) -> None:
        super().__init__(source)
        self._limit = limit
        self._ahead: deque[Any] = deque()
        self._left = BUDGET

    async def pull(self) -> T_co:
        if not self._left:
            self._left = BUDGET
            await yield_now()
        item = await super().pull()
        self._left -= 1
        return item

    def _is_due(self) -> bool:
        return bool(self._ahead)

    def _take(self) -> T_co:
        self._want()
        return self._ahead.popleft()  # type: ignore[no-any-return]

    def _accept(self, item: Any) -> bool:
        self._ahead.append(item)
        self._wake()
        return self._limit is None or len(self._ahead) < self._limit

    def _forget(self) -> None:
        self._ahead.clear()

    def __str__(self) -> str:
        return f"{self._sources[0]}.prefetch({self._limit})"
