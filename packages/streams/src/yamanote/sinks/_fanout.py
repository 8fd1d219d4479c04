"""Fan-out: one item, many sinks.

Invariant: all sinks are fed the same items in the same order. Who has not got the item of a call that was cancelled
gets it before anything else happens.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from yamanote.futures import CompletionQueue
from yamanote.sinks._sink import Guarded, Sink

__all__ = ["Fanout"]

T_contra = TypeVar("T_contra", contravariant=True)


class Fanout(Guarded[T_contra]):
    """Feeds each item to all `sinks`, one sink after the other; flushes and closes all at once."""

    __slots__ = ("_item", "_missing", "_sinks", "_turn")

    def __init__(self, *sinks: Sink[Any]) -> None:
        super().__init__()
        for sink in sinks:
            if not isinstance(sink, Sink):
                raise TypeError(f"fanout() needs sinks, not {sink!r}")
        self._sinks: tuple[Sink[Any], ...] = tuple(
            one for sink in sinks for one in (sink._sinks if isinstance(sink, Fanout) else (sink,))
        )
        self._item: Any = None
        self._missing: deque[Sink[Any]] = deque()
        """Who is still to get the item."""
        self._turn = asyncio.Lock()

    async def feed(self, item: T_contra) -> None:
        async with self._turn:
            self._check()
            if self._missing:
                await self._deliver()
                self._check()
            self._item = item
            self._missing.extend(self._sinks)
            await self._deliver()
            if self._error is not None:
                raise self._error

    async def _deliver(self) -> None:
        missing = self._missing
        while missing:
            try:
                await missing[0].feed(self._item)
            except Exception as error:
                self._fail(error)
            missing.popleft()
        self._item = None

    async def flush(self) -> None:
        async with self._turn:
            self._check()
            await self._deliver()
        await self._on_all(lambda sink: sink.flush())
        if self._error is not None:
            raise self._error

    async def _finish(self) -> None:
        async with self._turn:
            await self._deliver()
        await self._on_all(lambda sink: sink.close())

    async def _on_all(self, call: Callable[[Sink[Any]], Coroutine[Any, Any, None]]) -> None:
        async with CompletionQueue[None, None]() as queue:
            for sink in self._sinks:
                queue.add(call(sink), key=None)
            async for _, task in queue:
                try:
                    task.result()
                except (Exception, asyncio.CancelledError) as error:
                    self._fail(error)

    def fanout(self, *others: Sink[Any]) -> Sink[Any]:
        # One flat fan-out: the sinks of a nested one would get an item twice if feeding it was cancelled and repeated.
        return Fanout(*self._sinks, *others)

    def __repr__(self) -> str:
        return f"<fanout of {', '.join(map(repr, self._sinks))}, {self._state()}>"
