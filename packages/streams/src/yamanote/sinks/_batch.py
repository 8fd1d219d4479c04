"""Batch: many items, one list.

Invariant: what was accepted is in the list that is being gathered or in the one that is under way, in order, and
neither is longer than `count`. A list is on its way as soon as it is due and the one before has arrived. It is due
when it is full, when its first item has waited long enough, and when somebody flushes or closes.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import Any, TypeVar

from yamanote.runtime import cooperative
from yamanote.sinks._relay import Relay
from yamanote.sinks._sink import Sink
from yamanote.streams._arguments import require_count, require_seconds

__all__ = ["Batch"]

T_contra = TypeVar("T_contra", contravariant=True)


class Batch(Relay[T_contra]):
    """Feeds lists of up to `count` items to `sink`; none waits longer than `seconds` for the others."""

    __slots__ = ("_count", "_due", "_items", "_seconds", "_sink", "_timer")

    def __init__(self, sink: Sink[list[Any]], count: int, seconds: float | None) -> None:
        require_count("count", count)
        if seconds is not None:
            require_seconds("seconds", seconds)
        super().__init__(sink)
        self._sink = sink
        self._count = count
        self._seconds = seconds
        self._items: list[T_contra] = []
        self._due = False
        self._timer: asyncio.TimerHandle | None = None

    async def feed(self, item: T_contra) -> None:
        async with self._turn:
            await cooperative()
            self._check()
            while len(self._items) >= self._count:  # the one before is under way
                await self._arrived()
            self._items.append(item)
            if len(self._items) >= self._count:
                self._push()
                self._raise_error()
            elif self._timer is None and self._seconds is not None:
                # Weakly: one that is dropped need not live until then to notice.
                self._timer = asyncio.get_running_loop().call_later(self._seconds, _expire, weakref.ref(self))

    def _push(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due = bool(self._items)
        self._go_on()

    def _go_on(self, delivered: object = None) -> None:
        if self._due and self._error is None and not self._is_delivering:
            items, self._items, self._due = self._items, [], False
            self._deliver(self._sink.feed, items)
            if self._delivery is not None:
                self._delivery.add_done_callback(self._go_on)

    def __repr__(self) -> str:
        limits = f"{self._count}" if self._seconds is None else f"{self._count}, {self._seconds}"
        return f"<batch({limits}) of {self._sink!r}, {self._state()}>"


def _expire(batch: weakref.ref[Any]) -> None:
    alive = batch()
    if alive is not None:
        alive._push()
