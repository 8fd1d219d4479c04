"""Chunks by size or age.

Invariant: a chunk is handed over when it is full, when its first item has been there for `seconds`, or when the source
has ended; it is never empty. The clock never interrupts a pull of the source: a feeder makes it, and the item that it
gives begins the next chunk.
"""

from __future__ import annotations

import math
from typing import Any

from yamanote.streams._clocked import Clocked
from yamanote.streams._pipeline import Pipeline

__all__ = ["ChunksTimeout"]


class ChunksTimeout(Clocked[list[Any]]):
    """Lists of up to `count` items, none of which waits longer than `seconds` for the others."""

    __slots__ = ("_age_limit", "_count", "_partial", "_seconds")

    def __init__(self, source: Pipeline[Any], count: int, seconds: float) -> None:
        super().__init__(source)
        self._count = count
        self._seconds = seconds
        self._partial: list[Any] = []
        self._age_limit = math.inf

    def _hold(self, item: Any, now: float) -> None:
        if not self._partial:
            self._age_limit = now + self._seconds
        self._partial.append(item)

    def _has_room(self) -> bool:
        return self._wanted and len(self._partial) < self._count

    def _moment(self, now: float) -> float | None:
        if not self._partial:
            return None
        return now if self._exhausted or len(self._partial) >= self._count else self._age_limit

    def _take(self) -> list[Any]:
        chunk, self._partial = self._partial, []
        return chunk

    def _forget(self) -> None:
        self._partial = []

    def __str__(self) -> str:
        return f"{self._sources[0]}.chunks_timeout({self._count}, {self._seconds})"
