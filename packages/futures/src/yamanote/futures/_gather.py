"""Joining: run several things at once and collect all their values, in order.

Three names for three answers to the first error: `join` lets the others finish, `gather` stops them and raises
everything that went wrong, `try_join` stops them and raises that one error as it is.
"""

from __future__ import annotations

from asyncio import Task
from collections.abc import Awaitable, Collection, Iterable, Iterator
from inspect import isawaitable
from typing import Any, Literal, TypeVar, overload

from yamanote.futures._completion import CompletionQueue
from yamanote.futures._ownership import close_unstarted, require_awaitables, result_of
from yamanote.runtime import BUDGET, yield_now

__all__ = ["gather", "join", "try_join"]

T = TypeVar("T")


async def join(*awaitables: Awaitable[T]) -> list[T]:
    """Run all at once, wait until every one has ended, and return their values in the order of the arguments.

    A failure stops nobody. When some fail, all their errors are raised together, in the order of the arguments, after
    the last has ended.

    Futures, tasks and join handles that are passed in are not ours: they go on when this call is cancelled.

    Raises ExceptionGroup, also for a single error, with a JoinError for each that was cancelled by somebody else;
    TypeError for what cannot be awaited. **Cancel safety**: a cancelled call cancels all that it runs, and waits for
    them.

    >>> from yamanote.futures import join
    >>> from yamanote.runtime import run
    >>> async def double(number):
    ...     return number * 2
    >>> run(join(double(1), double(2)))
    [2, 4]
    """
    require_awaitables(awaitables)
    return await _collect(awaitables, None, "finish")


async def try_join(*awaitables: Awaitable[T]) -> list[T]:
    """Like `join`, but the first error cancels the others, waits for them, and is raised as it is, in no group.

    Errors that the others raise meanwhile are reported by the loop's exception handler. Use `gather` to get them all.

    >>> from yamanote.futures import try_join
    >>> from yamanote.runtime import run
    >>> from yamanote.time import sleep
    >>> async def fail():
    ...     raise OSError("no answer")
    >>> run(try_join(sleep(60), fail()))
    Traceback (most recent call last):
    OSError: no answer
    """
    require_awaitables(awaitables)
    return await _collect(awaitables, None, "raise")


@overload
async def gather(awaitables: Iterable[Awaitable[T]], /, *, limit: int | None = None) -> list[T]: ...
@overload
async def gather(*awaitables: Awaitable[T], limit: int | None = None) -> list[T]: ...
async def gather(*awaitables: Any, limit: int | None = None) -> list[Any]:
    """Run many things, at most `limit` at a time, and return their values in order.

    Takes awaitables, or one iterable of them, which is consumed as places become free. The first error cancels those
    that run, and nothing more is begun; all errors that they have raised by their end come together.

    Futures, tasks and join handles that are passed in are not ours: they go on after a failure.

    Raises ExceptionGroup, also for a single error, with a JoinError for one that was cancelled by somebody else;
    ValueError for a limit below 1; TypeError for what cannot be awaited. **Cancel safety**: a cancelled call cancels
    all that it runs, and waits for them.

    >>> from yamanote.futures import gather
    >>> from yamanote.runtime import run
    >>> async def double(number):
    ...     return number * 2
    >>> run(gather((double(number) for number in range(5)), limit=2))
    [0, 2, 4, 6, 8]
    """
    source: Iterable[Awaitable[Any]] = awaitables
    if len(awaitables) == 1 and not isawaitable(awaitables[0]) and isinstance(awaitables[0], Iterable):
        source = awaitables[0]
    else:
        require_awaitables(awaitables)
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        _close_rest(source, iter(source))
        raise ValueError(f"limit must be a whole number above 0, not {limit!r}")
    return await _collect(source, limit, "stop")


async def _collect(
    source: Iterable[Awaitable[T]], limit: int | None, on_error: Literal["finish", "stop", "raise"]
) -> list[T]:
    awaitables = iter(source)
    queue: CompletionQueue[int, T] = CompletionQueue()
    values: dict[int, T] = {}
    errors: dict[int, BaseException] = {}
    started = 0
    stopping = False

    def take(entry: tuple[int, Task[T]]) -> None:
        nonlocal stopping
        index, task = entry
        try:
            values[index] = result_of(task)
        except BaseException as error:
            if on_error == "raise":
                raise
            if stopping and task.cancelled():  # by us
                return
            errors[index] = error
            if on_error == "stop" and not stopping:
                stopping = True
                queue.cancel_all()

    try:
        for awaitable in awaitables:
            task = queue.add(awaitable, started, eager=True)
            started += 1
            if task.done():  # it may have failed: look before the next one begins
                take(queue.pop_nowait() or await queue.pop())
                if started % BUDGET == 0:
                    await yield_now()
            while limit is not None and len(queue) >= limit and not stopping:
                take(await queue.pop())
            if stopping:
                break
        while queue:
            take(queue.pop_nowait() or await queue.pop())
    except BaseException as error:
        await queue.__aexit__(type(error), error, None)
        raise
    finally:
        _close_rest(source, awaitables)
    if errors:
        failures = [errors[index] for index in sorted(errors)]
        raise BaseExceptionGroup(f"{len(failures)} of {started} failed", failures)
    return [values[index] for index in range(started)]


def _close_rest(source: object, awaitables: Iterator[Any]) -> None:
    """Close what has not begun, if it exists already; what a generator has yet to make is left unmade."""
    if isinstance(source, Collection):
        close_unstarted(awaitables)
