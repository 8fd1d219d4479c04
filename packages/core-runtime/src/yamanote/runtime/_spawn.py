"""Spawning: one coroutine, or several, each in a task of its own, behind a handle."""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop
from collections.abc import Awaitable, Coroutine
from contextvars import Context
from itertools import count, repeat
from typing import Any, TypeVar, overload

from yamanote.runtime import _site
from yamanote.runtime._join import JoinHandle
from yamanote.runtime._task import as_coroutine, make_task, no_loop, request_cancel, start, tasks_of

__all__ = ["spawn"]

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")


@overload
def spawn(  # pyright: ignore[reportOverlappingOverload]  # `spawn(*coros)` is the last one, for any length
    coro: Awaitable[T], /, *, name: str | None = None, context: Context | None = None, eager: bool = False
) -> JoinHandle[T]: ...
@overload
def spawn(
    coro1: Awaitable[T1],
    coro2: Awaitable[T2],
    /,
    *,
    name: str | None = None,
    context: Context | None = None,
    eager: bool = False,
) -> JoinHandle[list[T1 | T2]]: ...
@overload
def spawn(
    coro1: Awaitable[T1],
    coro2: Awaitable[T2],
    coro3: Awaitable[T3],
    /,
    *,
    name: str | None = None,
    context: Context | None = None,
    eager: bool = False,
) -> JoinHandle[list[T1 | T2 | T3]]: ...
@overload
def spawn(
    *coros: Awaitable[T], name: str | None = None, context: Context | None = None, eager: bool = False
) -> JoinHandle[list[T]]: ...
def spawn(
    *coros: Awaitable[Any], name: str | None = None, context: Context | None = None, eager: bool = False
) -> JoinHandle[Any]:
    """Start one coroutine, or several, each in a task of its own, and return a handle at once.

    They start on the next turn of the running loop, in order; with `eager` they run at once up to their first wait.
    Nobody needs to keep the handle. Several tasks of one `name` are numbered.

    Awaiting the handle gives the value; for several the list of the values, in order, when all have ended. When some
    failed, it raises the error of the first in the order of the arguments; the others are reported by the loop's
    exception handler.

    Raises TypeError for what cannot be awaited, RuntimeError where no loop runs.

    >>> from yamanote.runtime import run, spawn
    >>> async def double(number):
    ...     return number * 2
    >>> async def example():
    ...     return await spawn(double(1), double(2))
    >>> run(example())
    [2, 4]
    """
    if len(coros) == 1:
        return JoinHandle(start(coros[0], name, context, eager, "spawn"))
    coroutines = []
    try:
        for coro in coros:
            coroutines.append(as_coroutine(coro, "spawn"))
        loop = _get_running_loop()
        if loop is None:
            raise no_loop("spawn")
    except BaseException:
        for coro in coros:
            if isinstance(coro, Coroutine):
                coro.close()
        raise
    names = repeat(None) if name is None else (f"{name}-{number}" for number in count())
    tasks = [make_task(coro, loop, label, context, eager) for coro, label in zip(coroutines, names, strict=False)]
    return _JoinAll(tasks, loop)


class _JoinAll(JoinHandle[list[Any]]):
    """The handle of several tasks: done when the last is done."""

    __slots__ = ("_left", "_tasks")

    def __init__(self, tasks: list[asyncio.Task[Any]], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop.create_future())
        if _site.recording:
            _site.remember_site(self._future)
        self._tasks = tasks
        self._left = 1
        for task in tasks:
            if not task.done():
                self._left += 1
                task.add_done_callback(self._one_ended)
        tasks_of(loop).add(self)
        self._one_ended()

    def abort(self, reason: str | None = None) -> None:
        for task in self._tasks:
            if not task.done():
                request_cancel(task, reason)

    @property
    def name(self) -> str:
        return ", ".join(task.get_name() for task in self._tasks)

    def _includes(self, task: asyncio.Task[Any] | None) -> bool:
        return task in self._tasks

    def _one_ended(self, _: object = None) -> None:
        self._left -= 1
        if self._left:
            return
        tasks_of(self._future.get_loop()).discard(self)
        values = []
        for task in self._tasks:
            # Those behind the first that failed are not asked for their errors: asyncio reports them.
            if task.cancelled():
                self._future.set_exception(JoinHandle(task)._join_error())
                return
            if (error := task.exception()) is not None:
                self._future.set_exception(error)
                return
            values.append(task.result())
        self._future.set_result(values)
