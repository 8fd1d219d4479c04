"""Chain: one source after another.

Invariant: a source is over, and has been closed, before anything of the next one is pulled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from yamanote.runtime import yield_now
from yamanote.streams._pipeline import Pipeline
from yamanote.streams._sequential import Sequential

__all__ = ["Chain"]

T_co = TypeVar("T_co", covariant=True)


class Chain(Sequential[T_co]):
    """The items of each source in turn."""

    __slots__ = ("_rest",)

    def __init__(self, *sources: Pipeline[Any]) -> None:
        super().__init__(*sources)
        self._rest = deque(sources)
        """Those that have not ended."""

    async def _next(self) -> T_co:
        while self._rest and not self._over:
            try:
                return await self._rest[0].pull()  # type: ignore[no-any-return]
            except StopAsyncIteration:
                await self._go_on()
        raise StopAsyncIteration

    async def drain(self, put: Callable[[T_co], object]) -> None:
        while self._rest and not self._over:
            await self._rest[0].drain(put)
            await self._go_on()

    async def _go_on(self) -> None:
        await self._rest[0].close()
        self._rest.popleft()
        if self._rest:
            await yield_now()  # each source has a budget of its own, and there may be many short ones

    def __str__(self) -> str:
        first, *others = map(str, self._sources)
        return f"{first}.chain({', '.join(others)})"
