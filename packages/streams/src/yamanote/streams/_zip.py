"""Zip: one item of each source at a time.

Invariant: the sources are pulled one after the other, in their order, and all once before the first is pulled again.
What has been pulled of a round is kept until the round is complete, so a pull that is cancelled loses nothing.
"""

from __future__ import annotations

from typing import Any

from yamanote.streams._pipeline import Pipeline
from yamanote.streams._sequential import Sequential

__all__ = ["Zip"]


class Zip(Sequential[tuple[Any, ...]]):
    """Tuples, until the first source ends; with `strict`, all have to end together."""

    __slots__ = ("_ended", "_round", "_strict")

    def __init__(self, *sources: Pipeline[Any], strict: bool) -> None:
        super().__init__(*sources)
        self._strict = strict
        self._round: list[Any] = []
        """What has been pulled of it."""
        self._ended = 0
        """How many sources have ended, in the round in which the others have to end as well."""

    async def _next(self) -> tuple[Any, ...]:
        items = self._round
        while (number := len(items) + self._ended) < len(self._sources):
            try:
                item = await self._sources[number].pull()
            except StopAsyncIteration:
                if not self._strict or self._over:  # it has been closed meanwhile
                    raise
                if items:
                    raise ValueError(f"others[{number - 1}] is shorter than what comes before it") from None
                self._ended += 1
            else:
                if self._ended:
                    raise ValueError(f"others[{number - 1}] is longer than what comes before it")
                items.append(item)
        if self._ended:
            raise StopAsyncIteration
        self._round = []
        return tuple(items)

    async def _close(self) -> None:
        self._round = []
        await super()._close()

    def __str__(self) -> str:
        first, *others = map(str, self._sources)
        return f"{first}.zip({', '.join(others)}{', strict=True' if self._strict else ''})"
