"""Stages: what a stream does to one item after another without waiting.

Invariant: a stage has two forms over one state, and both do the same to every item, in the same order, one at a time.
`attach` wraps an iterator, for sources that never wait; nothing is taken from it before somebody asks. `link` makes the
function that an item is put into, for sources that are awaited. The state is in the stage, so a run of stages may be
attached anew, and linked anew, between any two items.

Measured when this was designed: a generator expression costs what `map` and `filter` of the interpreter cost (its calls
are not made from C), and it turns a StopIteration that a function raises into a RuntimeError, where those would end the
stream. A generator that holds both, map then filter, saves a frame per item.
"""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeAlias

from yamanote.streams._arguments import name_of

__all__ = ["Chunks", "Enough", "Enumerate", "Filter", "Map", "Stage", "Take"]

Put: TypeAlias = Callable[[Any], object]
Finish: TypeAlias = Callable[[], object]


class Enough(Exception):
    """Raised by a linked stage when it wants nothing more and has told those behind it."""


class Stage(ABC):
    """One operator that never waits."""

    __slots__ = ()

    @property
    def full(self) -> bool:
        """Whether it wants nothing more."""
        return False

    @abstractmethod
    def attach(self, items: Iterator[Any]) -> Iterator[Any]:
        """The results for `items`, which are a part of all items; what is left over waits for the next part."""

    def attach_last(self, items: Iterator[Any]) -> Iterator[Any]:
        """The results for `items`, after which nothing comes any more."""
        return self.attach(items)

    def gather(self, items: Iterator[Any]) -> list[Any]:
        """What `attach` would give, at once."""
        return list(self.attach(items))

    @abstractmethod
    def link(self, put: Put, finish: Finish) -> tuple[Put, Finish]:
        """What to call for each item, and once at the end; results go to `put`, the end to `finish`."""

    def merged(self, following: Stage) -> Stage | None:
        """One stage that does what this one and `following` do, if there is a cheaper one."""
        return None


class Map(Stage):
    """`function` of each item; only those results, then, for which `predicate` is true, if there is one."""

    __slots__ = ("_function", "_predicate")

    def __init__(self, function: Callable[[Any], Any], predicate: Callable[[Any], object] | None = None) -> None:
        self._function = function
        self._predicate = predicate

    def attach(self, items: Iterator[Any]) -> Iterator[Any]:
        function = self._function
        predicate = self._predicate
        if predicate is None:
            return (function(item) for item in items)
        return (result for item in items if predicate(result := function(item)))

    def gather(self, items: Iterator[Any]) -> list[Any]:
        function = self._function
        predicate = self._predicate
        if predicate is None:
            return [function(item) for item in items]
        return [result for item in items if predicate(result := function(item))]

    def link(self, put: Put, finish: Finish) -> tuple[Put, Finish]:
        function = self._function
        if self._predicate is None:
            return (lambda item: put(function(item))), finish
        predicate = self._predicate

        def put_some(item: Any) -> None:
            result = function(item)
            if predicate(result):
                put(result)

        return put_some, finish

    def merged(self, following: Stage) -> Stage | None:
        if self._predicate is None and isinstance(following, Filter):
            return Map(self._function, following.predicate)
        return None

    def __str__(self) -> str:
        behind = "" if self._predicate is None else f".{Filter(self._predicate)}"
        return f"map({name_of(self._function)}){behind}"


class Filter(Stage):
    """The items for which `predicate` is true."""

    __slots__ = ("predicate",)

    def __init__(self, predicate: Callable[[Any], object]) -> None:
        self.predicate = predicate

    def attach(self, items: Iterator[Any]) -> Iterator[Any]:
        predicate = self.predicate
        return (item for item in items if predicate(item))

    def link(self, put: Put, finish: Finish) -> tuple[Put, Finish]:
        predicate = self.predicate

        def put_some(item: Any) -> None:
            if predicate(item):
                put(item)

        return put_some, finish

    def __str__(self) -> str:
        return f"filter({name_of(self.predicate)})"


class Enumerate(Stage):
    """Each item with its number."""

    __slots__ = ("_next", "_start")

    def __init__(self, start: int) -> None:
        self._start = self._next = start

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

    def __str__(self) -> str:
        return f"enumerate({self._start or ''})"


class Take(Stage):
    """The first `count` items."""

    __slots__ = ("_count", "_left")

    def __init__(self, count: int) -> None:
        self._count = self._left = count

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

    def __str__(self) -> str:
        return f"take({self._count})"


class Chunks(Stage):
    """Lists of `count` items; the last one may be shorter."""

    __slots__ = ("_count", "_partial")

    def __init__(self, count: int) -> None:
        self._count = count
        self._partial: list[Any] = []

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

    def _take(self) -> list[Any]:
        chunk = self._partial.copy()
        self._partial.clear()
        return chunk

    def __str__(self) -> str:
        return f"chunks({self._count})"
