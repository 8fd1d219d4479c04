"""Ready chunks: what is there already, in lists.

Invariant: a chunk has at least one item, and ends where the source has nothing more at that moment. No clock is asked,
and no pull of the source is cancelled. What was gathered comes before the end, or the error, that ended the source.
"""

from __future__ import annotations

from typing import Any

from yamanote.streams._fed import Fed
from yamanote.streams._operator import Operator
from yamanote.streams._pipeline import Pipeline

__all__ = ["ReadyChunks", "ReadyChunksNow"]


class ReadyChunks(Fed[list[Any]]):
    """Of a source that may wait: what the feeder has been given."""

    __slots__ = ("_limit", "_ready")

    def __init__(self, source: Pipeline[Any], limit: int) -> None:
        super().__init__(source)
        self._limit = limit
        self._ready: list[Any] = []

    def _is_due(self) -> bool:
        return bool(self._ready)

    def _take(self) -> list[Any]:
        chunk, self._ready = self._ready, []
        return chunk

    def _accept(self, item: Any) -> bool:
        self._ready.append(item)
        self._wake()  # the puller comes a turn later: until then the source is pulled as long as it has something
        return len(self._ready) < self._limit

    def _forget(self) -> None:
        self._ready = []

    def __str__(self) -> str:
        return f"{self._sources[0]}.ready_chunks({self._limit})"


class ReadyChunksNow(Operator[list[Any]]):
    """Of a source that never waits: everything is there already."""

    __slots__ = ("_limit", "_ready")

    waits = False

    def __init__(self, source: Pipeline[Any], limit: int) -> None:
        super().__init__(source)
        self._limit = limit
        self._ready: list[Any] = []

    async def pull(self) -> list[Any]:
        source = self._sources[0]
        while len(self._ready) < self._limit and not self._over:
            try:
                self._ready.append(await source.pull())
            except StopAsyncIteration:
                await self._end()
            except Exception as error:
                await self._end(error)
        if not self._ready:
            await self._finish()
        chunk, self._ready = self._ready, []
        return chunk

    async def close(self) -> None:
        self._ready = []
        await super().close()

    def __str__(self) -> str:
        return f"{self._sources[0]}.ready_chunks({self._limit})"
