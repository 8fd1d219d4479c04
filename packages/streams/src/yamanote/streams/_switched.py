"""Switched: what the call for the latest item gives.

Invariant: at most one call is under way, that for the latest item. A newer item cancels it, and the next call begins
when that has ended. What it had given by then, and nobody had taken, is dropped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from yamanote.streams._arguments import is_async, name_of
from yamanote.streams._branch import Branch, branch_of
from yamanote.streams._flattened import pipeline_of
from yamanote.streams._junction import Junction
from yamanote.streams._pipeline import Awaited, Pipeline

__all__ = ["Switched"]

T_co = TypeVar("T_co", covariant=True)


class Switched(Junction[T_co]):
    """The result of the latest call of an async function, or the items of the latest stream that a plain one made."""

    __slots__ = ("_call", "_current", "_latest", "_outer", "_written")

    def __init__(self, source: Pipeline[Any], function: Callable[[Any], Any]) -> None:
        super().__init__()
        self._written = f"{source}.switch({name_of(function)})"
        self._outer = branch_of(source)
        self._call: Callable[[Any], Pipeline[Any]]
        if is_async(function):
            self._call = lambda item: Awaited(_result(function, item))
        else:
            self._call = lambda item: pipeline_of(function(item))
        self._latest: list[Any] = []
        """The item for which there is no call yet."""
        self._current: Branch | None = None
        self._add(self._outer)

    def _is_given(self, branch: Branch) -> bool:
        if branch is not self._outer:
            return super()._is_given(branch)
        self._latest = [branch.item]
        branch.item = None
        if self._current is not None:
            self._silence(self._current)
        if branch.rests and not branch.ahead:
            self._turns.appendleft(branch)  # of the items that are there, only the latest gets a call
        return False

    async def _leave(self, branch: Branch) -> None:
        if branch is self._current:
            self._current = None
        await super()._leave(branch)

    async def _pause(self) -> None:
        if not self._latest:
            await super()._pause()
        elif self._current is not None:
            await self._current.close()
            if self._current is not None:
                self._branches.pop(self._current, None)
                self._current = None
        else:
            try:
                pipeline = self._call(self._latest.pop())
            except Exception as error:
                await self._end(error)
            else:
                self._current = branch_of(pipeline)
                self._add(self._current)

    def __str__(self) -> str:
        return self._written


async def _result(function: Callable[[Any], Awaitable[Any]], item: Any) -> AsyncIterator[Any]:
    yield await function(item)
