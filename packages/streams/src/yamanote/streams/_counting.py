"""Stages that count: `enumerate`, `take`, `skip` and `chunks`."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from yamanote.streams._stages import Enough, Finish, Put, Stage

__all__ = ["Chunks", "Enumerate", "Skip", "Take"]


class Enumerate(Stage):
    """Each item with its number."""

    __slots__ = ("_next",)

    def __init__(self, start: int) -> None:
        self._next = start
        self._label = f"enumerate({start or ''})"

    def attach(self, items: Iterator[Any]) -> Iterator[Any]:
        for numbered in builtins.enumerate(items, self._next):
            self._next = numbered[0] + 1
            yield numbered

    def link(self, put: Put, finish: Finish) -> tuple[Put, Finish]:
        def put_numbered(item: Any) -> None:
            number = self._next
            self._next = number + 1
            put((number, item))

        return put_numbered, finish


class Take(Stage):
    """The first `count` items."""

    __slots__ = ("_left",)

    def __init__(self, count: int) -> None:
        self._left = count
        self._label = f"take({count})"

    @property
    def full(self) -> bool:
        return not self._left

    def attach(self, items: Iterator[Any]) -> Iterator[Any]:
        if self._left:
            for item in items:
                self._left -= 1
                yield item
                if not self._left:
                    return

    def link(self, put: Put, finish: Finish) -> tuple[Put, Finish]:
        def put_first(item: Any) -> None:
            self._left -= 1
            put(item)
            if not self._left:
                finish()
                raise Enough

        return put_first, finish


class Skip(Stage):
    """The items behind the first `count`."""

    __slots__ = ("_left",)

    def __init__(self, count: int) -> None:
        self._left = count
        self._label = f"skip({count})"

    def attach(self, items: Iterator[Any]) -> Iterator[Any]:
        return self._skip(items) if self._left else items

    def _skip(self, items: Iterator[Any]) -> Iterator[Any]:
        for _ in islice(items, self._left):
            self._left -= 1
        yield from items

    def link(self, put: Put, finish: Finish) -> tuple[Put, Finish]:
        if not self._left:
            return put, finish

        def put_later(item: Any) -> None:
            if self._left:
                self._left -= 1
            else:
                put(item)

        return put_later, finish


class Chunks(Stage):
    """Lists of `count` items; the last one may be shorter."""

    __slots__ = ("_count", "_partial")

    def __init__(self, count: int) -> None:
        self._count = count
        self._partial: list[Any] = []
        self._label = f"chunks({count})"

    def attach(self, items: Iterator[Any]) -> Iterator[Any]:
        partial = self._partial
        while True:
            partial.extend(islice(items, self._count - len(partial)))
            if len(partial) < self._count:
                return
            yield self._take()

    def attach_last(self, items: Iterator[Any]) -> Iterator[Any]:
        yield from self.attach(items)
        if self._partial:
            yield self._take()

    def link(self, put: Put, finish: Finish) -> tuple[Put, Finish]:
        count = self._count
        partial = self._partial
        append = partial.append

        def put_together(item: Any) -> None:
            append(item)
            if len(partial) == count:
                put(self._take())

        def put_rest() -> None:
            if partial:
                put(self._take())
            finish()

        return put_together, put_rest

    def portions(self, put: Put, most: int) -> Iterable[tuple[Put, int]]:
        if self._count < 16:  # a portion costs more than the calls that it saves
            yield put, most
            return
        partial = self._partial
        while most > 0:
            room = min(self._count - len(partial), most)
            yield partial.append, room
            if len(partial) == self._count:
                put(partial.pop())
            most -= room

    def _take(self) -> list[Any]:
        chunk = self._partial.copy()
        self._partial.clear()
        return chunk
