"""Fan-out: one item, many sinks.

Invariant: all sinks are fed the same items in the same order, whatever happens to one of them.
"""

from __future__ import annotations

from typing import Any, TypeVar

from yamanote.sinks._relay import Relay
from yamanote.sinks._sink import Sink

__all__ = ["Fanout"]

T_contra = TypeVar("T_contra", contravariant=True)


class Fanout(Relay[T_contra]):
    """Feeds each item to all `sinks`, one sink after the other; flushes and closes all at once."""

    __slots__ = ()

    def __init__(self, *sinks: Sink[Any]) -> None:
        for sink in sinks:
            if not isinstance(sink, Sink):
                raise TypeError(f"fanout() needs sinks, not {sink!r}")
        super().__init__(*sinks)

    async def feed(self, item: T_contra) -> None:
        async with self._turn:
            await self._arrived()
            self._deliver(self._feed_all, item)
            self._raise_error()

    async def _feed_all(self, item: T_contra) -> None:
        for sink in self._sinks:
            try:
                await sink.feed(item)
            except Exception as error:
                self._fail(error)

    def __repr__(self) -> str:
        return f"<fanout of {', '.join(map(repr, self._sinks))}, {self._state()}>"
