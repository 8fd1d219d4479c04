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

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from operator import is_not
from typing import Any, ClassVar, TypeAlias

from yamanote.streams._arguments import name_of

__all__ = [
    "Enough",
    "Filter",
    "FilterMap",
    "FunctionStage",
    "Map",
    "Stage",
    "TakeWhile",
    "add_stage",
    "as_written",
    "attach_all",
    "attach_all_last",
    "one_portion",
]

Put: TypeAlias = Callable[[Any], object]
Finish: TypeAlias = Callable[[], object]


class Enough(Exception):
    """Raised by a linked stage when it wants nothing more and has told those behind it."""


class Stage(ABC):
    """One operator that never waits."""

    __slots__ = ("_label",)

    _label: str
    """The operator as it was written, for the `repr` of a stream. Nothing, if the stage before is the operator."""

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

    def portions(self, put: Put, most: int) -> Iterable[tuple[Put, int]]:
        """How to put about `most` items, where `put` is what `link` has made: functions, and how many items for each.

        For a stage that can say in advance that it will only keep some.
        """
        return one_portion(put, most)

    def __str__(self) -> str:
        return self._label


class FunctionStage(Stage):
    """One that calls a function with each item."""

    __slots__ = ("_function",)

    gives_items: ClassVar[bool]
    """Whether its results are the items, on which the function only decides."""

    def __init__(self, function: Callable[[Any], Any], *, label: str) -> None:
        self._function = function
        self._label = label


class Map(FunctionStage):
    """`function` of each item; only those results, then, for which `predicate` is true, if there is one."""

    __slots__ = ("_predicate",)

    gives_items = False

    def __init__(
        self,
        function: Callable[[Any], Any],
        predicate: Callable[[Any], object] | None = None,
        *,
        label: str | None = None,
    ) -> None:
        super().__init__(function, label=f"map({name_of(function)})" if label is None else label)
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
            return Map(self._function, following._function, label=as_written(self, following))
        return None


class FilterMap(Map):
    """`function` of each item, but for those results that are None."""

    __slots__ = ()

    def __init__(self, function: Callable[[Any], Any], *, label: str) -> None:
        super().__init__(function, _is_something, label=label)


_is_something = functools.partial(is_not, None)


class Filter(FunctionStage):
    """The items for which the function is true."""

    __slots__ = ()

    gives_items = True

    def attach(self, items: Iterator[Any]) -> Iterator[Any]:
        predicate = self._function
        return (item for item in items if predicate(item))

    def link(self, put: Put, finish: Finish) -> tuple[Put, Finish]:
        predicate = self._function

        def put_some(item: Any) -> None:
            if predicate(item):
                put(item)

        return put_some, finish


class TakeWhile(FunctionStage):
    """The items before the first one for which the function is not true."""

    __slots__ = ("_full",)

    gives_items = True

    def __init__(self, function: Callable[[Any], Any], *, label: str) -> None:
        super().__init__(function, label=label)
        self._full = False

    @property
    def full(self) -> bool:
        return self._full

    def attach(self, items: Iterator[Any]) -> Iterator[Any]:
        predicate = self._function
        if not self._full:
            for item in items:
                if not predicate(item):
                    self._full = True
                    return
                yield item

    def link(self, put: Put, finish: Finish) -> tuple[Put, Finish]:
        predicate = self._function

        def put_first(item: Any) -> None:
            if predicate(item):
                put(item)
            else:
                self._full = True
                finish()
                raise Enough

        return put_first, finish


def as_written(*parts: object) -> str:
    """A source and operators, in one row."""
    return ".".join(filter(None, map(str, parts)))


def one_portion(put: Put, most: int) -> Iterable[tuple[Put, int]]:
    """The `portions` of who cannot say anything in advance."""
    return ((put, most),)


def add_stage(stages: list[Stage], stage: Stage) -> None:
    """Put `stage` behind the others, or make it one with the last of them."""
    merged = stages[-1].merged(stage) if stages else None
    if merged is None:
        stages.append(stage)
    else:
        stages[-1] = merged


def attach_all(stages: list[Stage], items: Iterator[Any], *, gather: bool) -> Iterator[Any]:
    """The results of all stages for `items`, which are a part of all items.

    To gather is to run them at once, for a terminal that wants everything and in case of an error nothing.
    """
    for stage in stages[:-1]:
        items = stage.attach(items)
    for stage in stages[-1:]:
        items = iter(stage.gather(items)) if gather else stage.attach(items)
    return items


def attach_all_last(stages: list[Stage]) -> Iterator[Any]:
    """The results of all stages when nothing comes any more."""
    items: Iterator[Any] = iter(())
    for stage in stages:
        items = stage.attach_last(items)
    return items
