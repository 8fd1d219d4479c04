"""Whose task is it: what we start is ours to cancel, what is handed to us running is not.

A coroutine, or anything else that only begins when it is awaited, becomes a task of ours. A future, a task or a join
handle that is passed in belongs to whoever made it: it is observed, and goes on when we lose interest.
"""

from __future__ import annotations

import asyncio
from asyncio import Task, _get_running_loop
from collections import Counter
from collections.abc import Awaitable, Collection, Coroutine, Iterable
from inspect import CORO_CREATED, getcoroutinestate, isawaitable, isgenerator
from types import CoroutineType
from typing import Any, TypeVar

from yamanote.runtime import JoinError, JoinHandle, make_task, park

__all__ = [
    "advice_about",
    "checked",
    "close_rest",
    "close_unstarted",
    "error_of",
    "failed",
    "given",
    "require_awaitables",
    "require_limit",
    "result_of",
    "start_owned",
]

T = TypeVar("T")


def start_owned(awaitable: Awaitable[T], name: str | None, eager: bool) -> Task[T]:
    """Start a task of ours. Its caller keeps a reference to it until it has ended.

    One that observes somebody else's task has the name of that, if it is given none.

    Raises TypeError for what cannot be awaited, RuntimeError where no loop runs.
    """
    if type(awaitable) is CoroutineType:
        coroutine: Coroutine[Any, Any, T] = awaitable
    else:
        coroutine = _as_coroutine(awaitable)
        if name is None and isinstance(awaitable, (JoinHandle, Task)):
            name = awaitable.get_name() if isinstance(awaitable, Task) else awaitable.name
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
    raise TypeError(f"neither a coroutine nor another awaitable{advice_about(awaitable)}: {awaitable!r}")


def advice_about(stranger: object) -> str:
    """What an error may add about something that cannot be awaited as it is."""
    if isinstance(stranger, type):
        return f" (a class: make one, `{stranger.__name__}(...)`)"
    if isgenerator(stranger):
        return " (a generator: `coroutine` of yamanote.runtime.generators makes one of it)"
    return " (a function: call it)" if callable(stranger) else ""


async def _observe(handle: JoinHandle[T]) -> T:
    # Not `await handle`: some handles take it for a sign that nobody wants the result when their last awaiter goes.
    return await park(handle)


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable


def result_of(task: asyncio.Future[T]) -> T:
    """The value or the error of a finished task; JoinError if it was cancelled, since its awaiter was not."""
    try:
        return JoinHandle(task).result() if task.cancelled() else task.result()
    finally:
        del task  # an error refers to this frame, and the task to the error


def failed(task: asyncio.Future[Any]) -> bool:
    """Whether a finished task has no value."""
    # Not `exception()`: that counts as taken, but whoever asks here may be cancelled before it takes the error.
    return task.cancelled() or task._exception is not None


def error_of(task: asyncio.Future[Any]) -> BaseException:
    """The error of a task that has `failed`, which counts as delivered from now on; JoinError if it was cancelled."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        return error
    try:
        result_of(task)
    except JoinError as cancelled:
        return cancelled
    raise RuntimeError(f"{task!r} has not failed")


def given(awaitables: tuple[Any, ...]) -> Iterable[Awaitable[Any]]:
    """What a combinator was called with: awaitables, or one iterable of them.

    Raises TypeError or ValueError, and closes all, if it can be told now that something in there cannot be run.
    """
    if len(awaitables) == 1 and isinstance(awaitables[0], Iterable) and not isawaitable(awaitables[0]):
        return checked(awaitables[0])
    require_awaitables(awaitables)
    return awaitables


def checked(awaitables: Iterable[Awaitable[Any]]) -> Iterable[Awaitable[Any]]:
    """`awaitables`, refused now if they are all there, as by `require_awaitables`; else each when it comes."""
    if isinstance(awaitables, Collection):
        require_awaitables(awaitables)
        return awaitables
    return map(_not_begun, awaitables)


def _not_begun(awaitable: Awaitable[T]) -> Awaitable[T]:
    if type(awaitable) is CoroutineType and getcoroutinestate(awaitable) != CORO_CREATED:
        raise ValueError(f"the same coroutine is given twice, or has begun elsewhere: {awaitable!r}")
    return awaitable


def require_limit(limit: int | None, awaitables: Iterable[Any]) -> None:
    """Refuse a limit that is no count: TypeError, ValueError. Closes `awaitables`, none of which has begun."""
    if limit is None:
        return
    if isinstance(limit, bool) or not isinstance(limit, int):
        close_rest(awaitables, awaitables)
        raise TypeError(f"limit must be a whole number, or None for no limit, not {limit!r}")
    if limit < 1:
        close_rest(awaitables, awaitables)
        raise ValueError(f"limit must be at least 1, or None for no limit, not {limit!r}")


def close_rest(awaitables: Iterable[Any], unstarted: Iterable[Any]) -> None:
    """Close what has not begun, if it exists already; what a generator has yet to make is left unmade."""
    if type(awaitables) is tuple or isinstance(awaitables, Collection):
        close_unstarted(unstarted)


def close_unstarted(awaitables: Iterable[Any]) -> None:
    """Close coroutines that will never run, so that no warning says that they were never awaited."""
    for awaitable in awaitables:
        if type(awaitable) is CoroutineType or isinstance(awaitable, Coroutine):
            awaitable.close()


def require_awaitables(awaitables: Collection[Any]) -> None:
    """Refuse all if one of them cannot be run, before any has begun. Raises TypeError, ValueError."""
    for awaitable in awaitables:
        if type(awaitable) is not CoroutineType and not isawaitable(awaitable):
            close_unstarted(awaitables)
            raise TypeError(f"neither a coroutine nor another awaitable{advice_about(awaitable)}: {awaitable!r}")
    if len(set(map(id, awaitables))) < len(awaitables):
        # A future may well be waited for twice. Of a coroutine two tasks would each run a part.
        for coroutine, times in Counter(one for one in awaitables if isinstance(one, Coroutine)).items():
            if times > 1:
                close_unstarted(awaitables)
                raise ValueError(f"the same coroutine is given twice: {coroutine!r}")
