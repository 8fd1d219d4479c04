"""Functions that decide on one item at a time: a plain one makes a stage, an async one is called by a pipeline.

Invariant: the item is kept until its call has ended, so a pull that is cancelled loses nothing: the next one calls the
function again, with the same item. Then the pair of the item and the answer goes through the stage that a plain
function would have made, so both forms of an operator are the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from operator import itemgetter
from typing import Any, TypeVar

from yamanote.streams._arguments import is_async
from yamanote.streams._operator import Operator
from yamanote.streams._pipeline import Awaited, Pipeline, explained
from yamanote.streams._stages import FunctionStage, Map, Stage

__all__ = ["Called", "called", "deciding"]

T_co = TypeVar("T_co", covariant=True)

_item_of = itemgetter(0)
_answer_of = itemgetter(1)


def deciding(
    source: Pipeline[Any], stage: type[FunctionStage], function: Callable[[Any], Any], label: str
) -> Pipeline[Any]:
    """`source` with one stage more, of a function that is plain or async. Nobody uses `source` any more."""
    if is_async(function):
        return called(source, stage, function, label)
    return source.then(stage(function, label=label))


def called(
    source: Pipeline[Any], stage: type[FunctionStage], function: Callable[[Any], Awaitable[Any]], label: str
) -> Called[Any]:
    """The same, for a function whose answers are to be awaited."""
    if not is_async(function):
        function = _awaitable(function, label)
    stages: list[Stage] = [stage(_answer_of, label=label)]
    if stage.gives_items:
        stages.append(Map(_item_of, label=""))
    return Called(_Calls(source, function), *stages)


def _awaitable(function: Callable[[Any], Awaitable[Any]], label: str) -> Callable[[Any], Awaitable[Any]]:
    """The same function, which says so if what it returns cannot be awaited."""

    def call(item: Any) -> Awaitable[Any]:
        answer = function(item)
        if isawaitable(answer):
            return answer
        raise TypeError(f"{label} needs a function whose results can be awaited, not {answer!r}: use `map`")

    return call


class _Calls(Operator[tuple[Any, Any]]):
    """Each item, with what the function answered."""

    __slots__ = ("function", "held", "source")

    def __init__(self, source: Pipeline[Any], function: Callable[[Any], Awaitable[Any]]) -> None:
        super().__init__(source)
        self.source = source
        self.function = function
        self.held: list[Any] = []

    async def pull(self) -> tuple[Any, Any]:
        held = self.held
        if not held:
            held.append(await self.source.pull())
        item = held[0]
        try:
            answer = await self.function(item)
        except StopAsyncIteration as end:
            raise explained(end) from end
        held.clear()
        return item, answer

    async def _close(self) -> None:
        self.held.clear()
        await super()._close()

    def __str__(self) -> str:
        return str(self.source)


class Called(Awaited[T_co]):
    """The calls of an async function, one after the other, and what becomes of their answers."""

    __slots__ = ("_calls",)

    def __init__(self, calls: _Calls, *stages: Stage) -> None:
        super().__init__(calls, *stages)
        self._calls = calls

    def uncalled(self) -> Pipeline[Any]:
        """The calls themselves, not awaited. Nobody uses this pipeline any more."""
        if self._calls.held:
            raise RuntimeError("an item waits for its call to be repeated: buffer before the first item is asked for")
        return self._calls.source.then(Map(self._calls.function))
