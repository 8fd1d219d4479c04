"""Joining: run several things at once and collect all their values, in order.

Four names for four answers to an error: `join` lets the others finish, `gather` stops them, and both raise everything
that went wrong; `try_join` stops them and raises that one error as it is; `gather_safe` lets them finish, and returns
it where the value would be.

All return lists. Of two to five arguments the annotations say tuple, as asyncio's do, so that each place has its type.
"""

from __future__ import annotations

from asyncio import Task
from collections.abc import Awaitable, Iterable
from typing import Any, TypeVar, overload

from yamanote.futures._ownership import error_of, failed, given, require_limit, result_of
from yamanote.futures._together import run_together

__all__ = ["gather", "gather_safe", "group_of_errors", "join", "try_join"]

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")


@overload
async def join(_1: Awaitable[T1], _2: Awaitable[T2], /) -> tuple[T1, T2]: ...
@overload
async def join(_1: Awaitable[T1], _2: Awaitable[T2], _3: Awaitable[T3], /) -> tuple[T1, T2, T3]: ...
@overload
async def join(
    _1: Awaitable[T1], _2: Awaitable[T2], _3: Awaitable[T3], _4: Awaitable[T4], /
) -> tuple[T1, T2, T3, T4]: ...
@overload
async def join(
    _1: Awaitable[T1], _2: Awaitable[T2], _3: Awaitable[T3], _4: Awaitable[T4], _5: Awaitable[T5], /
) -> tuple[T1, T2, T3, T4, T5]: ...
@overload
async def join(*awaitables: Awaitable[T]) -> list[T]: ...
@overload
async def join(awaitables: Iterable[Awaitable[T]], /) -> list[T]: ...
async def join(*awaitables: Any) -> Any:
    """Run all at once, wait until every one has ended, and return their values in the order of the arguments.

    Takes awaitables, or one iterable of them. A failure stops nobody. When some fail, all their errors are raised
    together, in the order of the arguments, after the last has ended.

    Futures, tasks and join handles that are passed in are not ours: they go on when this call is cancelled.

    Raises ExceptionGroup, also for a single error, with a JoinError for each that was cancelled by somebody else;
    TypeError for what cannot be awaited, ValueError for a coroutine that is given twice. **Cancel safety**: a cancelled
    call cancels all that it runs, and waits for them.

    >>> from yamanote.futures import join
    >>> from yamanote.runtime import run
    >>> async def double(number):
    ...     return number * 2
    >>> run(join(double(1), double(2)))
    [2, 4]
    """
    tasks, _ = await run_together(given(awaitables), until=None)
    return _values(tasks, None)


@overload
async def try_join(_1: Awaitable[T1], _2: Awaitable[T2], /) -> tuple[T1, T2]: ...
@overload
async def try_join(_1: Awaitable[T1], _2: Awaitable[T2], _3: Awaitable[T3], /) -> tuple[T1, T2, T3]: ...
@overload
async def try_join(
    _1: Awaitable[T1], _2: Awaitable[T2], _3: Awaitable[T3], _4: Awaitable[T4], /
) -> tuple[T1, T2, T3, T4]: ...
@overload
async def try_join(
    _1: Awaitable[T1], _2: Awaitable[T2], _3: Awaitable[T3], _4: Awaitable[T4], _5: Awaitable[T5], /
) -> tuple[T1, T2, T3, T4, T5]: ...
@overload
async def try_join(*awaitables: Awaitable[T]) -> list[T]: ...
@overload
async def try_join(awaitables: Iterable[Awaitable[T]], /) -> list[T]: ...
async def try_join(*awaitables: Any) -> Any:
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
    tasks, failure = await run_together(given(awaitables), until=failed)
    try:
        return [task.result() for task in tasks] if failure is None else result_of(failure)
    finally:
        del tasks, failure  # the error refers to this frame, and they to the error


@overload
async def gather(
    _1: Awaitable[T1], _2: Awaitable[T2], /, *, limit: int | None = None, sensitive: bool = True
) -> tuple[T1, T2]: ...
@overload
async def gather(
    _1: Awaitable[T1], _2: Awaitable[T2], _3: Awaitable[T3], /, *, limit: int | None = None, sensitive: bool = True
) -> tuple[T1, T2, T3]: ...
@overload
async def gather(
    _1: Awaitable[T1],
    _2: Awaitable[T2],
    _3: Awaitable[T3],
    _4: Awaitable[T4],
    /,
    *,
    limit: int | None = None,
    sensitive: bool = True,
) -> tuple[T1, T2, T3, T4]: ...
@overload
async def gather(
    _1: Awaitable[T1],
    _2: Awaitable[T2],
    _3: Awaitable[T3],
    _4: Awaitable[T4],
    _5: Awaitable[T5],
    /,
    *,
    limit: int | None = None,
    sensitive: bool = True,
) -> tuple[T1, T2, T3, T4, T5]: ...
@overload
async def gather(*awaitables: Awaitable[T], limit: int | None = None, sensitive: bool = True) -> list[T]: ...
@overload
async def gather(
    awaitables: Iterable[Awaitable[T]], /, *, limit: int | None = None, sensitive: bool = True
) -> list[T]: ...
async def gather(*awaitables: Any, limit: int | None = None, sensitive: bool = True) -> Any:
    """Run many things, at most `limit` at a time, and return their values in order.

    Takes awaitables, or one iterable of them, which is consumed as places become free; with a limit of 1 they run one
    after the other. The first error cancels those that run, and nothing more is begun; all errors that they have raised
    by their end come together. With ``sensitive=False`` a failure stops nobody, as in `join`.

    Futures, tasks and join handles that are passed in are not ours: they go on after a failure.

    Raises ExceptionGroup, also for a single error, with a JoinError for one that was cancelled by somebody else;
    ValueError for a limit below 1 or a coroutine that is given twice, TypeError for what cannot be awaited. **Cancel
    safety**: a cancelled call cancels all that it runs, and waits for them.

    >>> from yamanote.futures import gather
    >>> from yamanote.runtime import run
    >>> async def double(number):
    ...     return number * 2
    >>> run(gather((double(number) for number in range(5)), limit=2))
    [0, 2, 4, 6, 8]
    """
    source = given(awaitables)
    require_limit(limit, source)
    tasks, failure = await run_together(source, failed if sensitive else None, limit)
    return _values(tasks, failure)


@overload
async def gather_safe(
    _1: Awaitable[T1], _2: Awaitable[T2], /, *, limit: int | None = None
) -> tuple[T1 | BaseException, T2 | BaseException]: ...
@overload
async def gather_safe(
    _1: Awaitable[T1], _2: Awaitable[T2], _3: Awaitable[T3], /, *, limit: int | None = None
) -> tuple[T1 | BaseException, T2 | BaseException, T3 | BaseException]: ...
@overload
async def gather_safe(
    _1: Awaitable[T1], _2: Awaitable[T2], _3: Awaitable[T3], _4: Awaitable[T4], /, *, limit: int | None = None
) -> tuple[T1 | BaseException, T2 | BaseException, T3 | BaseException, T4 | BaseException]: ...
@overload
async def gather_safe(
    _1: Awaitable[T1],
    _2: Awaitable[T2],
    _3: Awaitable[T3],
    _4: Awaitable[T4],
    _5: Awaitable[T5],
    /,
    *,
    limit: int | None = None,
) -> tuple[T1 | BaseException, T2 | BaseException, T3 | BaseException, T4 | BaseException, T5 | BaseException]: ...
@overload
async def gather_safe(*awaitables: Awaitable[T], limit: int | None = None) -> list[T | BaseException]: ...
@overload
async def gather_safe(
    awaitables: Iterable[Awaitable[T]], /, *, limit: int | None = None
) -> list[T | BaseException]: ...
async def gather_safe(*awaitables: Any, limit: int | None = None) -> Any:
    """Run many things, at most `limit` at a time, and return how each has ended, in order: its value or its error.

    Takes awaitables, or one iterable of them, which is consumed as places become free. A failure stops nobody, and is
    told to nobody else. Whoever was cancelled by somebody else has a JoinError here.

    An exception that was *returned* looks like one that was raised. Where that matters, use `as_completed_safe`.

    Raises ValueError for a limit below 1 or a coroutine that is given twice, TypeError for what cannot be awaited.
    **Cancel safety**: a cancelled call cancels all that it runs, and waits for them.

    >>> from yamanote.futures import gather_safe
    >>> from yamanote.runtime import run
    >>> async def invert(number):
    ...     return 1 / number
    >>> run(gather_safe(invert(number) for number in [2, 0]))
    [0.5, ZeroDivisionError('division by zero')]
    """
    source = given(awaitables)
    require_limit(limit, source)
    tasks, _ = await run_together(source, None, limit)
    return [error_of(task) if failed(task) else task.result() for task in tasks]


def _values(tasks: list[Task[T]], failure: Task[T] | None) -> list[T]:
    """The values of `tasks`, or all their errors. Those that were cancelled after the `failure` only obeyed us."""
    errors = [
        error_of(task)
        for task in tasks
        if failed(task) and (failure is None or task is failure or not task.cancelled())
    ]
    if errors:
        raise group_of_errors(errors, len(tasks))
    return [task.result() for task in tasks]


def group_of_errors(errors: list[BaseException], number: int) -> BaseExceptionGroup[BaseException]:
    """What to raise when so many of a `number` have failed: an ExceptionGroup, if all of them are exceptions."""
    return BaseExceptionGroup(f"{len(errors)} of {number} failed", errors)
