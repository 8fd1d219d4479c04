"""Timeout: an end to waiting.

Invariant: the time of an item runs from when somebody first waits for it, and goes on if that pull is cancelled. An
item that has come is given, however late. When the time is over, so is the stream: its source has been closed by then.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, TypeVar

from yamanote.streams._fed import Fed
from yamanote.streams._pipeline import Pipeline

__all__ = ["Timeout"]

T_co = TypeVar("T_co", covariant=True)


class Timeout(Fed[T_co]):
    """Each item, unless it takes longer than `seconds` to come."""

    __slots__ = ("_deadline", "_expired", "_item", "_seconds")

    def __init__(self, source: Pipeline[Any], seconds: float) -> None:
        super().__init__(source)
        self._seconds = seconds
        self._item: list[Any] = []
        self._deadline: float | None = None
        """None if nobody has waited for the next item yet."""
        self._expired = False

    def _accept(self, item: Any) -> bool:
        self._item.append(item)
        self._wake()
        return False

    def _is_due(self) -> bool:
        return bool(self._item)

    def _take(self) -> T_co:
        self._deadline = None
        self._expired = False
        return self._item.pop()  # type: ignore[no-any-return]

    def _forget(self) -> None:
        self._item.clear()

    async def _wait(self) -> None:
        if self._expired:
            await self._end(TimeoutError(f"no item came within {self._seconds} seconds"))
            return
        loop = asyncio.get_running_loop()
        if self._deadline is None:
            self._deadline = loop.time() + self._seconds
        timer = None if self._deadline == math.inf else loop.call_at(self._deadline, self._expire)
        try:
            await super()._wait()
        finally:
            if timer is not None:
                timer.cancel()

    def _expire(self) -> None:
        self._expired = True
        self._wake()

    def __str__(self) -> str:
        return f"{self._sources[0]}.timeout({self._seconds})"
