"""Merged: what several sources give, as it comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from yamanote.streams._branch import Branch, branch_of
from yamanote.streams._junction import Junction
from yamanote.streams._pipeline import Pipeline

__all__ = ["Keyed", "Merged", "Selected"]

T_co = TypeVar("T_co", covariant=True)


class Merged(Junction[T_co]):
    """The items of all sources. `written` is the name of the operator, and what has been written before it."""

    __slots__ = ("_written", "waits")

    def __init__(self, sources: Sequence[Pipeline[Any]], written: str) -> None:
        super().__init__(map(branch_of, sources))
        self._written = written
        self.waits = any(source.waits for source in sources)

    def __str__(self) -> str:
        return self._written


class Keyed(Junction[T_co]):
    """The items with the keys of their sources."""

    __slots__ = ()

    def _is_given(self, branch: Branch) -> bool:
        branch.item = branch.key, branch.item
        return super()._is_given(branch)

    async def _leave(self, branch: Branch) -> None:
        error = branch.failure
        if error is not None:
            note = f"raised by the source {branch.key!r} of a {self._kind}"
            notes = error.__dict__.setdefault("__notes__", [])  # past its own attributes, which may be frozen
            if note not in notes:
                notes.append(note)
        await super()._leave(branch)

    _kind = "select"


class Selected(Keyed[T_co]):
    """The items of all sources, with their names."""

    __slots__ = ("_written", "waits")

    def __init__(self, sources: Mapping[str, Pipeline[Any]]) -> None:
        super().__init__(branch_of(source, name) for name, source in sources.items())
        self._written = f"select({', '.join(f'{name}={source}' for name, source in sources.items())})"
        self.waits = any(source.waits for source in sources.values())

    def __str__(self) -> str:
        return self._written
