"""Peekable: looking at the next item before it is taken.

Invariant: what has been looked at is what the next pull gives, in the order in which the source gave it.
"""

from __future__ import annotations

from collections import deque
from typing import Any, TypeVar

from yamanote.streams._pipeline import Pipeline
from yamanote.streams._sequential import Sequential

__all__ = ["Peekable"]

T_co = TypeVar("T_co", covariant=True)


class Peekable(Sequential[T_co]):
    """Keeps what has been looked at."""

    __slots__ = ("_seen",)

    def __init__(self, source: Pipeline[Any]) -> None:
        super().__init__(source)
        self._seen: deque[Any] = deque()

    async def pull(self) -> T_co:
        if self._seen:
            return self._seen.popleft()  # type: ignore[no-any-return]
        return await super().pull()

    async def peek(self) -> T_co:
        """What the next pull will give."""
        if not self._seen:
            self._seen.append(await super().pull())
        return self._seen[0]  # type: ignore[no-any-return]

    async def _next(self) -> T_co:
        return await self._sources[0].pull()  # type: ignore[no-any-return]

    async def close(self) -> None:
        self._seen.clear()
        await super().close()

    def __str__(self) -> str:
        return f"{self._sources[0]}.peekable()"
