"""Whose task is it: what we start is ours to cancel, what is handed to us running is not.

A coroutine, or anything else that only begins when it is awaited, becomes a task of ours. A future, a task or a join
handle that is passed in belongs to whoever made it: it is observed, and goes on when we lose interest.
"""

from __future__ import annotations

import asyncio
from asyncio import Task, _get_running_loop
from collections.abc import Awaitable, Coroutine, Iterable
from inspect import isawaitable
from types import CoroutineType
from typing import Any, TypeVar

from yamanote.runtime import JoinHandle, make_task, park

__all__ = ["close_unstarted", "require_awaitables", "result_of", "start_owned"]

T = TypeVar("T")


def start_owned(awaitable: Awaitable[T], name: str | None, eager: bool) -> Task[T]:
    """Start a task of ours. Its caller keeps a reference to it until it has ended.

    Raises TypeError for what cannot be awaited, RuntimeError where no loop runs.
    """
    coroutine = awaitable if type(awaitable) is CoroutineType else _as_coroutine(awaitable)
    loop = _get_running_loop()
    if loop is None:
        coroutine.close()
        raise RuntimeError("no event loop is running in this thread: start tasks inside `run(...)`")
    return make_task(coroutine, loop, name, eager=eager)


def _as_coroutine(awaitable: Awaitable[T]) -> Coroutine[Any, Any, T]:
    if asyncio.isfuture(awaitable):
        # Awaiting a future passes a cancellation on to it; awaiting its handle does not.
        return _observe(JoinHandle(awaitable))
    if isinstance(awaitable, JoinHandle):
        return _observe(awaitable)
    if isinstance(awaitable, Coroutine):
        return awaitable
    if isawaitable(awaitable):
        return _await(awaitable)
    raise TypeError(f"neither a coroutine nor another awaitable: {awaitable!r}")


async def _observe(handle: JoinHandle[T]) -> T:
    # Not `await handle`: some handles take it for a sign that nobody wants the result when their last awaiter goes.
    return await park(handle)


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable


def result_of(task: asyncio.Future[T]) -> T:
    """The value or the error of a finished task; JoinError if it was cancelled, since its awaiter was not."""
    return JoinHandle(task).result() if task.cancelled() else task.result()


def close_unstarted(awaitables: Iterable[Any]) -> None:
    """Close coroutines that will never run, so that no warning says that they were never awaited."""
    for awaitable in awaitables:
        if isinstance(awaitable, Coroutine):
            awaitable.close()


def require_awaitables(awaitables: Iterable[Any]) -> None:
    """Refuse all if one of them cannot be awaited, before any has begun. Raises TypeError."""
    for awaitable in awaitables:
        if type(awaitable) is not CoroutineType and not isawaitable(awaitable):
            close_unstarted(awaitables)
            raise TypeError(f"neither a coroutine nor another awaitable: {awaitable!r}")
