"""Flattened: the items of streams that are items themselves, one stream after the other, or several side by side."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

from yamanote.runtime import BUDGET, yield_now
from yamanote.streams._branch import Branch, branch_of
from yamanote.streams._handle import require_sources, take_over
from yamanote.streams._junction import Junction
from yamanote.streams._operator import Operator
from yamanote.streams._pipeline import Pipeline
from yamanote.streams._stages import Map

__all__ = ["Flattened", "FlattenedSideBySide", "pipeline_of"]

T_co = TypeVar("T_co", covariant=True)


def pipeline_of(item: Any) -> Pipeline[Any]:
    """The pipeline of an item, which belongs to the caller. Raises TypeError for what cannot be iterated over."""
    if inspect.iscoroutine(item):
        item.close()
        raise TypeError(f"an item must be something to iterate over, not a coroutine: {item!r}")
    require_sources(item=item)
    return take_over(item)


class Flattened(Operator[T_co]):
    """One inner stream after the other: each is closed before the next one is asked for."""

    __slots__ = ("_inner", "_left", "_outer", "_written")

    def __init__(self, source: Pipeline[Any], written: str) -> None:
        self._outer: Pipeline[Pipeline[T_co]] = source.then(Map(pipeline_of))
        super().__init__(self._outer)
        self._inner: Pipeline[T_co] | None = None
        self._left = BUDGET
        self._written = written

    async def pull(self) -> T_co:
        while not self._over:
            if not self._left:
                self._left = BUDGET
                await yield_now()
            self._left -= 1
            try:
                if self._inner is None:
                    self._inner = await self._outer.pull()
                    self._sources = (self._inner, self._outer)
                return await self._inner.pull()
            except StopAsyncIteration:
                if self._inner is None:
                    await self._end()
                self._inner = None
                self._sources = (self._outer,)
            except Exception as error:
                await self._end(error)
        self.raise_end()

    def __str__(self) -> str:
        return self._written


class FlattenedSideBySide(Junction[T_co]):
    """Up to `limit` inner streams at a time. The outer one is pulled only when there is room for another."""

    __slots__ = ("_has_given", "_limit", "_outer", "_written")

    def __init__(self, source: Pipeline[Any], limit: int, written: str) -> None:
        super().__init__()
        self._limit = limit
        self._written = written
        self._outer = branch_of(source.then(Map(pipeline_of)))
        self._has_given = False
        """Whether the outer stream waits for room."""
        self._add(self._outer)
        self._outer.land = self._land_outer

    def _land_outer(self, branch: Branch, item: Any) -> bool:
        self._land(branch, item)
        return False

    def _is_given(self, branch: Branch) -> bool:
        if branch is not self._outer:
            return super()._is_given(branch)
        self._add(branch_of(branch.item))
        branch.item = None
        self._has_given = True
        self._ask_for_more()
        return False

    async def _leave(self, branch: Branch) -> None:
        self._ask_for_more()
        await super()._leave(branch)

    async def _close(self) -> None:
        not_begun = [item for branch, item in self._landed if branch is self._outer and item is not None]
        self._branches.update(dict.fromkeys(map(branch_of, not_begun)))
        await super()._close()

    def _ask_for_more(self) -> None:
        if self._has_given and len(self._branches) <= self._limit:  # the outer one is among them
            self._has_given = False
            self._turns.append(self._outer)

    def __str__(self) -> str:
        return self._written
