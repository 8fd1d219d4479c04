"""Immediate: an iterable and stages, driven by the interpreter's own iterators.

Invariant: the stages are attached to a part of the source at a time, which is never longer than the budget of a pull or
the batch of a terminal, and the next part begins where the last one has ended. Nothing is taken ahead: what has come
out at the other end is all that has been asked of the source.
"""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, TypeVar

from yamanote.runtime import BUDGET, yield_now
from yamanote.streams._arguments import name_of
from yamanote.streams._pipeline import Pace, Pipeline, explained
from yamanote.streams._stages import Stage, add_stage, as_written, attach_all, attach_all_last

__all__ = ["Immediate"]

T_co = TypeVar("T_co", covariant=True)


class _Exhausted(Iterator[Any]):
    """Behind a source, tells that the source has ended."""

    __slots__ = ("reached",)

    def __init__(self) -> None:
        self.reached = False

    def __next__(self) -> Any:
        self.reached = True
        raise StopIteration


class Immediate(Pipeline[T_co]):
    """An iterable and stages: never waits, so the interpreter's own iterators drive it.

    The stages are attached to a part of the source at a time: between two parts the loop gets its turn, however few
    items come out at the other end.
    """

    __slots__ = ("_exhausted", "_iterator", "_label", "_over", "_part", "_source", "_stages", "_started", "_turn_due")

    waits = False

    def __init__(self, iterable: Iterable[Any]) -> None:
        self._iterator = builtins.iter(iterable)
        self._label = name_of(iterable)
        self._exhausted = _Exhausted()
        self._source = chain(self._iterator, self._exhausted)
        self._stages: list[Stage] = []
        self._part: Iterator[Any] = builtins.iter(())
        self._error = None
        self._started = False
        self._turn_due = False
        self._over = False

    async def pull(self) -> T_co:
        while True:
            try:
                for item in self._part:
                    return item  # type: ignore[no-any-return]
            except StopAsyncIteration as end:
                self._stop()
                raise explained(end) from end
            except BaseException:
                self._stop()
                raise
            if self._over:
                raise StopAsyncIteration
            if self._turn_due and not self._ended:
                self._turn_due = False
                await yield_now()
            self._next_part(BUDGET)

    async def drain(self, put: Callable[[T_co], object]) -> None:
        def put_all(items: Iterable[T_co]) -> None:
            for item in items:
                put(item)

        await self._drain(put_all)

    async def collect(self) -> list[T_co]:
        items: list[T_co] = []
        await self._drain(items.extend, gather=True)
        return items

    async def _drain(self, put_all: Callable[[Iterable[T_co]], object], *, gather: bool = False) -> None:
        pace = Pace()
        while True:
            try:
                put_all(self._part)
                if self._over:
                    return
                if self._turn_due and not self._ended:
                    await pace.rest()
                self._next_part(pace.size, gather=gather)
            except (StopIteration, StopAsyncIteration) as end:
                self._stop()
                raise explained(end) from end
            except Exception:
                self._stop()
                raise

    @property
    def _ended(self) -> bool:
        return self._exhausted.reached or any(stage.full for stage in self._stages)

    def _next_part(self, size: int, *, gather: bool = False) -> None:
        """Attach the stages to what comes next; once, at the end, to nothing."""
        self._started = self._turn_due = True
        if self._ended:
            self._stop()
            self._part = attach_all_last(self._stages)
            return
        self._part = attach_all(self._stages, islice(self._source, size), gather=gather)

    def _stop(self) -> None:
        self._over = True
        self._part = builtins.iter(())
        self._source = chain()
        iterator, self._iterator = self._iterator, self._source  # it may hold all the items
        if inspect.isgenerator(iterator):
            iterator.close()

    async def _close(self) -> None:
        self._stop()

    @property
    def leftover(self) -> str | None:
        return None  # an iterator that nobody refers to any more is finished by the interpreter

    def then(self, stage: Stage) -> Pipeline[Any]:
        if self._started:
            self._stages.append(stage)
            self._part = stage.attach_last(self._part) if self._over else stage.attach(self._part)
        else:
            add_stage(self._stages, stage)
        return self

    def __str__(self) -> str:
        return as_written(self._label, *self._stages)
