"""Throttle and delay: every item, in its order, and none before its moment.

Invariant: `Throttle` holds one item at most, and gives it `seconds` after it gave the one before. `Delay` holds `limit`
at most, and gives each `seconds` after it came; the end, or the error that ended the source, comes as late.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, TypeVar

from yamanote.streams._clocked import Clocked
from yamanote.streams._pipeline import Pipeline

__all__ = ["Delay", "Throttle"]

T_co = TypeVar("T_co", covariant=True)


class Throttle(Clocked[T_co]):
    """Each item, at least `seconds` after the one before it."""

    __slots__ = ("_earliest", "_item", "_seconds")

    def __init__(self, source: Pipeline[Any], seconds: float) -> None:
        super().__init__(source)
        self._seconds = seconds
        self._item: list[Any] = []
        self._earliest = -math.inf

    def _hold(self, item: Any, now: float) -> None:
        self._item.append(item)

    def _has_room(self) -> bool:
        return not self._item

    def _moment(self, now: float) -> float | None:
        return self._earliest if self._item else None

    def _take(self) -> T_co:
        self._earliest = self._now() + self._seconds
        return self._item.pop()  # type: ignore[no-any-return]

    def _forget(self) -> None:
        self._item.clear()

    def __str__(self) -> str:
        return f"{self._sources[0]}.throttle({self._seconds})"


class Delay(Clocked[T_co]):
    """Each item `seconds` after it came, and the end as well."""

    __slots__ = ("_end_due", "_items", "_limit", "_seconds")

    def __init__(self, source: Pipeline[Any], seconds: float, limit: int) -> None:
        super().__init__(source)
        self._seconds = seconds
        self._limit = limit
        self._items: deque[tuple[float, Any]] = deque()
        self._end_due = math.inf

    def _hold(self, item: Any, now: float) -> None:
        self._items.append((now + self._seconds, item))

    def _has_room(self) -> bool:
        return len(self._items) < self._limit

    def _exhaust(self, failure: BaseException | None) -> None:
        self._end_due = self._now() + self._seconds
        super()._exhaust(failure)

    def _moment(self, now: float) -> float | None:
        return self._items[0][0] if self._items else self._end_due

    def _is_due(self) -> bool:
        return bool(self._items) and super()._is_due()

    def _is_drained(self) -> bool:
        return not self._items and self._end_due <= self._now()

    def _take(self) -> T_co:
        self._want()  # there is room again
        return self._items.popleft()[1]  # type: ignore[no-any-return]

    def _forget(self) -> None:
        self._items.clear()

    def __str__(self) -> str:
        return f"{self._sources[0]}.delay({self._seconds}, limit={self._limit})"
