"""Map: one async call per item, together, and the results in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from yamanote.runtime._group import TaskGroup
from yamanote.runtime._join import JoinHandle

__all__ = ["map"]

T = TypeVar("T")
U = TypeVar("U")


async def map(function: Callable[[T], Awaitable[U]], items: Iterable[T], /, limit: int | None = None) -> list[U]:
    """Await ``function(item)`` for each item, all at once; return the results in the order of the items.

    Each call has a task of its own; with a `limit` at most so many run at once, and start in the order of the items.
    All items are taken from `items` at the beginning: an endless iterator is a case for streams.

    The first error is raised, as it is, when the others, which are cancelled, have ended; those that have not begun
    never do. Errors that come after the first go to the exception handler of the loop.

    **Cancel safety:** the same; the cancellation goes on when all calls have ended.

    Raises ValueError for a `limit` below 1. JoinError when a call cancels itself, for there is no result.

    >>> from yamanote.runtime import map, run
    >>> async def double(number):
    ...     return number * 2
    >>> run(map(double, [1, 2, 3], limit=2))
    [2, 4, 6]
    """
    if not callable(function):
        raise TypeError(f"map() needs an async function, not {function!r}")

    async def call(item: T) -> U:
        return await function(item)

    handles: list[JoinHandle[U]] = []
    errors: list[BaseException] = []
    try:
        async with TaskGroup(limit=limit) as group:
            for item in items:
                handles.append(group.spawn(call(item)))
    except BaseExceptionGroup as group_of_errors:
        errors += group_of_errors.exceptions
    if errors:
        loop = asyncio.get_running_loop()
        for error in errors[1:]:
            loop.call_exception_handler({"message": "a call of map() failed", "exception": error})
        try:
            raise errors[0]
        finally:
            # The error refers to this frame, and so must nothing here to the error.
            errors.clear()
            handles.clear()
    return [await handle for handle in handles]
