"""Races: the first to finish wins, or the first to succeed."""

from __future__ import annotations

from asyncio import Task
from collections.abc import Awaitable, Iterable
from typing import Any, TypeVar, overload

from yamanote.futures._gather import group_of_errors
from yamanote.futures._ownership import error_of, failed, given, result_of
from yamanote.futures._together import run_together

__all__ = ["race", "race_ok"]

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")


@overload
async def race(_1: Awaitable[T1], _2: Awaitable[T2], /) -> T1 | T2: ...
@overload
async def race(_1: Awaitable[T1], _2: Awaitable[T2], _3: Awaitable[T3], /) -> T1 | T2 | T3: ...
@overload
async def race(_1: Awaitable[T1], _2: Awaitable[T2], _3: Awaitable[T3], _4: Awaitable[T4], /) -> T1 | T2 | T3 | T4: ...
@overload
async def race(
    _1: Awaitable[T1], _2: Awaitable[T2], _3: Awaitable[T3], _4: Awaitable[T4], _5: Awaitable[T5], /
) -> T1 | T2 | T3 | T4 | T5: ...
@overload
async def race(*awaitables: Awaitable[T]) -> T: ...
@overload
async def race(awaitables: Iterable[Awaitable[T]], /) -> T: ...
async def race(*awaitables: Any) -> Any:
    """Run all at once; return the value, or raise the error, of the one that finishes first.

    Takes awaitables, or one iterable of them. The losers are cancelled and have ended when this returns; their errors
    are reported by the loop's exception handler. Those that have not begun by then never do. A tie is decided by the
    order of completion, and the value of the second is dropped: to take from one of several channels, `select` on them;
    it also tells who has won. Futures, tasks and join handles that are passed in are not ours: they go on when they
    lose.

    Raises JoinError when the winner was cancelled by somebody else, ValueError for nothing to run or a coroutine that
    is given twice, TypeError for what cannot be awaited. **Cancel safety**: a cancelled call cancels all that it runs,
    and waits for them.

    >>> from yamanote.futures import race
    >>> from yamanote.runtime import run
    >>> from yamanote.time import sleep
    >>> async def after(seconds, value):
    ...     await sleep(seconds)
    ...     return value
    >>> run(race(after(60, "slow"), after(0, "fast")))
    'fast'
    """
    tasks, winner = await run_together(given(awaitables), until=Task.done)
    if winner is None:
        raise ValueError("a race needs somebody to run")
    try:
        return result_of(winner)
    finally:
        del tasks, winner  # the error refers to this frame, and they to the error


@overload
async def race_ok(_1: Awaitable[T1], _2: Awaitable[T2], /) -> T1 | T2: ...
@overload
async def race_ok(_1: Awaitable[T1], _2: Awaitable[T2], _3: Awaitable[T3], /) -> T1 | T2 | T3: ...
@overload
async def race_ok(
    _1: Awaitable[T1], _2: Awaitable[T2], _3: Awaitable[T3], _4: Awaitable[T4], /
) -> T1 | T2 | T3 | T4: ...
@overload
async def race_ok(
    _1: Awaitable[T1], _2: Awaitable[T2], _3: Awaitable[T3], _4: Awaitable[T4], _5: Awaitable[T5], /
) -> T1 | T2 | T3 | T4 | T5: ...
@overload
async def race_ok(*awaitables: Awaitable[T]) -> T: ...
@overload
async def race_ok(awaitables: Iterable[Awaitable[T]], /) -> T: ...
async def race_ok(*awaitables: Any) -> Any:
    """Like `race`, but the first to *succeed* wins: a failure only drops out.

    The errors of those that drop out are forgotten when somebody wins. When all fail, their errors are raised together,
    in the order of the arguments, as ExceptionGroup, also for a single one, with a JoinError for each that was
    cancelled by somebody else.

    >>> from yamanote.futures import race_ok
    >>> from yamanote.runtime import run
    >>> async def ask(server):
    ...     if server == "down":
    ...         raise OSError("no answer")
    ...     return f"answer of {server}"
    >>> run(race_ok(ask("down"), ask("up")))
    'answer of up'
    """
    dropped_out: list[Task[Any]] = []

    def succeeds(task: Task[Any]) -> bool:
        if failed(task):
            dropped_out.append(task)
        return not failed(task)

    try:
        tasks, winner = await run_together(given(awaitables), until=succeeds)
    except BaseException:
        dropped_out.clear()  # this error refers to this frame, and what nobody takes is to be reported now
        raise
    if winner is not None:
        for task in dropped_out:
            error_of(task)  # counts as taken, so that nobody reports it
        return winner.result()
    if not tasks:
        raise ValueError("a race needs somebody to run")
    raise group_of_errors([error_of(task) for task in tasks], len(tasks))
