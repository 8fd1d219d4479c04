"""Debounce and sample: the newest item, and nothing of those before it.

Invariant: an item is given at its moment, unless a newer one came before that; one that comes at that very moment is
too late to take its place. The source is pulled all the time, once it has begun. At most two items are held: the
newest, and the one before it whose moment had come. So who is slow misses what is old, and never the last one.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, TypeVar

from yamanote.streams._clocked import Clocked
from yamanote.streams._pipeline import Pipeline

__all__ = ["Debounce", "Sample"]

T_co = TypeVar("T_co", covariant=True)

_COUNTABLE = 2.0**53
"""Above this, floats do not hold all whole numbers."""


class _Newest(Clocked[T_co]):
    __slots__ = ("_newest", "_newest_due", "_ripe", "_seconds")

    def __init__(self, source: Pipeline[Any], seconds: float) -> None:
        super().__init__(source)
        self._seconds = seconds
        self._newest: list[Any] = []
        self._newest_due = math.inf
        self._ripe: list[Any] = []
        """What was the newest when its moment came."""

    @abstractmethod
    def _due_after(self, now: float) -> float:
        """The moment of an item that comes now."""

    def _hold(self, item: Any, now: float) -> None:
        self._ripen(now)
        self._newest = [item]
        self._newest_due = self._due_after(now)

    def _ripen(self, now: float) -> None:
        if self._newest and self._newest_due <= now:
            self._ripe, self._newest = self._newest, []

    def _moment(self, now: float) -> float | None:
        self._ripen(now)
        if self._ripe:
            return now
        if not self._newest:
            return None
        return now if self._exhausted else self._newest_due

    def _take(self) -> T_co:
        return (self._ripe or self._newest).pop()  # type: ignore[no-any-return]

    def _forget(self) -> None:
        self._newest.clear()
        self._ripe.clear()


class Debounce(_Newest[T_co]):
    """An item when there has been none for `seconds` after it."""

    __slots__ = ()

    def _due_after(self, now: float) -> float:
        return now + self._seconds

    def __str__(self) -> str:
        return f"{self._sources[0]}.debounce({self._seconds})"


class Sample(_Newest[T_co]):
    """The newest item of each period, at its end. Tick n is at origin + n * period: nothing drifts."""

    __slots__ = ("_origin",)

    def __init__(self, source: Pipeline[Any], seconds: float) -> None:
        super().__init__(source, seconds)
        self._origin: float | None = None

    async def pull(self) -> T_co:
        if self._origin is None:
            self._origin = self._now()
        return await super().pull()

    def _due_after(self, now: float) -> float:
        origin = self._origin
        assert origin is not None
        count = int(min((now - origin) / self._seconds, _COUNTABLE))
        for tick in (count + 1, count + 2):  # the quotient may have been rounded down
            if (due := origin + tick * self._seconds) > now:
                return due
        return now + self._seconds  # floats cannot tell the ticks from each other any more

    def __str__(self) -> str:
        return f"{self._sources[0]}.sample({self._seconds})"
