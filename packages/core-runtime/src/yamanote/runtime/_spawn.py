"""Spawning: one coroutine, or several, each in a task of its own, behind a handle."""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop
from collections.abc import Awaitable, Coroutine
from contextvars import Context
from itertools import count, repeat
from operator import is_not
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from yamanote.runtime import _site
from yamanote.runtime._batch import Batch
from yamanote.runtime._join import JoinHandle
from yamanote.runtime._task import (
    as_coroutine,
    fail,
    make_task,
    no_loop,
    place,
    request_cancel,
    start,
    start_anywhere,
    tasks_of,
    worker_of,
)

if TYPE_CHECKING:
    from yamanote.runtime._workers import Worker

__all__ = ["require_worker", "spawn"]

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")


@overload
def spawn(  # pyright: ignore[reportOverlappingOverload]  # `spawn(*coros)` is the last one, for any length
    coro: Awaitable[T],
    /,
    *,
    name: str | None = None,
    context: Context | None = None,
    eager: bool = False,
    on: int | None = None,
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
    on: int | None = None,
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
    on: int | None = None,
) -> JoinHandle[list[T1 | T2 | T3]]: ...
@overload
def spawn(
    *coros: Awaitable[T],
    name: str | None = None,
    context: Context | None = None,
    eager: bool = False,
    on: int | None = None,
) -> JoinHandle[list[T]]: ...
def spawn(
    *coros: Awaitable[Any],
    name: str | None = None,
    context: Context | None = None,
    eager: bool = False,
    on: int | None = None,
) -> JoinHandle[Any]:
    """Start one coroutine, or several, each in a task of its own, and return a handle at once.

    They start on the next turn of the running loop, in order; with `eager` they run at once up to their first wait.
    Nobody needs to keep the handle. Several tasks of one `name` are numbered.

    Awaiting the handle gives the value; for several the list of the values, in order, when all have ended. When some
    failed, it raises the error of the first in the order of the arguments; the others are reported by the loop's
    exception handler.

    In a runtime with several workers a task starts on whichever is free, in this order where it is one, and stays
    there. `on` pins it to one, by its number: 0 is that of the runtime's own thread. An eager one starts here, and so
    does one with a `context`, which no two threads can be in.

    Raises TypeError for what cannot be awaited, RuntimeError where no loop runs, ValueError for a worker that there is
    not, for `eager` on another one, and with several workers for the same coroutine twice.

    >>> from yamanote.runtime import run, spawn
    >>> async def double(number):
    ...     return number * 2
    >>> async def example():
    ...     return await spawn(double(1), double(2))
    >>> run(example())
    [2, 4]
    """
    if len(coros) == 1 and on is None:
        return JoinHandle(start_anywhere(coros[0], name, context, eager, "spawn"))
    try:
        coroutines = [coro if type(coro) is CoroutineType else as_coroutine(coro, "spawn") for coro in coros]
        loop = _get_running_loop()
        if loop is None:
            raise no_loop("spawn")
        own = worker_of(loop)
        if own is not None and len(set(map(id, coroutines))) < len(coroutines):
            raise ValueError("spawn() needs each coroutine once: two workers cannot run the same one")
        worker = None if on is None else require_worker(on, loop, eager)
    except BaseException:
        for coro in coros:
            if isinstance(coro, Coroutine):
                coro.close()
        raise
    labels = repeat(name) if name is None or len(coros) == 1 else (f"{name}-{number}" for number in count())
    named = zip(coroutines, labels, strict=False)
    tasks: list[asyncio.Future[Any]]
    if own is not None and worker is not None and worker is not own:
        tasks = [own.place_on(worker, coroutine, label, context) for coroutine, label in named]
    elif on is not None:
        tasks = [start(coroutine, label, context, eager, "spawn") for coroutine, label in named]
    elif own is None or own.ending or eager or context is not None or not coroutines:
        tasks = [make_task(coroutine, loop, label, context, eager) for coroutine, label in named]
    elif any(map(is_not, coroutines, coros)):  # there may be futures, which stay on their loops
        tasks = [place(own, coroutine, label, None) for coroutine, label in named]
    else:
        batch = Batch(coroutines, loop, name)
        own.place_all(batch.all())
        return batch
    return _JoinAll(tasks, loop) if len(coros) != 1 else JoinHandle(tasks[0])


def require_worker(on: int, loop: asyncio.AbstractEventLoop, eager: bool) -> Worker | None:
    """The worker of that number; None where the loop is all there is."""
    if isinstance(on, bool) or not isinstance(on, int):
        raise TypeError(f"on must be the number of a worker, or None, not {on!r}")
    own = worker_of(loop)
    count = 1 if own is None else len(own.workers.all)
    if not 0 <= on < count:
        raise ValueError(f"on must be the number of a worker, from 0 to {count - 1}, not {on}")
    worker = None if own is None else own.workers.all[on]
    if eager and worker is not own:
        raise ValueError("on must be the own worker, or None, for an eager task: it starts here")
    return worker


class _JoinAll(JoinHandle[list[Any]]):
    """The handle of several tasks: done when the last is done."""

    __slots__ = ("_left", "_tasks")

    def __init__(self, tasks: list[asyncio.Future[Any]], loop: asyncio.AbstractEventLoop) -> None:
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
        return ", ".join(JoinHandle(task).name for task in self._tasks)

    def _includes(self, task: asyncio.Task[Any] | None) -> bool:
        return any(JoinHandle(each)._includes(task) for each in self._tasks)

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
                self._future.exception()  # a cancellation is no error: who does not ask is not told
                return
            if (error := task.exception()) is not None:
                fail(self._future, error)
                return
            values.append(task.result())
        self._future.set_result(values)
