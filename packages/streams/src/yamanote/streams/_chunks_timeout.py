"""Chunks by size or age.

Invariant: a chunk is handed over when it is full, when its first item has been there for `seconds`, or when the source
has ended; it is never empty. The clock never interrupts a pull of the source: a feeder makes it, and the item that it
gives begins the next chunk.
"""

from __future__ import annotations

import asyncio
from typing import Any

from yamanote.streams._fed import Fed
from yamanote.streams._pipeline import Pipeline

__all__ = ["ChunksTimeout"]


class ChunksTimeout(Fed[list[Any]]):
    """Lists of up to `count` items, none of which waits longer than `seconds` for the others."""

    __slots__ = ("_count", "_expired", "_partial", "_seconds", "_timer")

    def __init__(self, source: Pipeline[Any], count: int, seconds: float) -> None:
        super().__init__(source)
        self._count = count
        self._seconds = seconds
        self._partial: list[Any] = []
        self._expired = False
        self._timer: asyncio.TimerHandle | None = None

    def _is_due(self) -> bool:
        partial = self._partial
        return bool(partial) and (self._expired or self._exhausted or len(partial) >= self._count)

    def _take(self) -> list[Any]:
        chunk, self._partial = self._partial, []
        self._expired = False
        self._stop_timer()
        return chunk

    def _accept(self, item: Any) -> bool:
        self._partial.append(item)
        if len(self._partial) == 1:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._seconds, self._expire)
        if len(self._partial) >= self._count:
            self._wake()
            return False
        return self._wanted

    def _expire(self) -> None:
        self._timer = None
        self._expired = True
        self._wake()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _close(self) -> None:
        self._stop_timer()
        try:
            await super()._close()
        finally:
            self._partial = []

    def __str__(self) -> str:
        return f"{self._sources[0]}.chunks_timeout({self._count}, {self._seconds})"
