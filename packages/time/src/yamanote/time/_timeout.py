"""Timeouts: a `CancelScope` whose deadline is an error.

The call form looks before it leaps: it runs the work up to its first wait, in the caller's own task, and arms a timer
only if the work does wait. So work that can finish at once never times out and costs next to nothing.
"""

from __future__ import annotations

import inspect
import types
from asyncio import get_running_loop
from collections.abc import Awaitable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from types import CoroutineType, TracebackType
from typing import Any, TypeVar, final, overload

from yamanote.runtime import CancelScope
from yamanote.time._clock import require_seconds

__all__ = ["timeout", "timeout_at"]

T = TypeVar("T")

DEADLINE_PASSED = "deadline passed"
"""What `CancelScope.reason` says when the scope was cancelled by its deadline."""


@overload
def timeout(seconds: float | None) -> AbstractAsyncContextManager[CancelScope]: ...
@overload
def timeout(seconds: float | None, awaitable: Awaitable[T]) -> Coroutine[Any, Any, T]: ...
def timeout(seconds: float | None, awaitable: Awaitable[T] | None = None) -> Any:
    """Give a block, or an awaitable, so many seconds; None means for ever.

    ``async with timeout(5) as scope:`` cancels the block when they are over and raises TimeoutError. `scope.deadline`
    can be moved meanwhile; `scope.cancel()` leaves the block without an error.

    ``await timeout(5, work())`` returns what the work returns. It runs in the calling task. Work that finishes without
    waiting never times out, not even with 0 seconds.

    When the time is over the work is cancelled, and the call returns when its clean-up has ended. Work that finishes
    although it was cancelled has not timed out. A cancellation from outside is never turned into a TimeoutError.

    Raises TimeoutError; ValueError for nan; TypeError for what cannot be awaited. **Cancel safety**: that of the work.

    >>> from yamanote.runtime import run
    >>> from yamanote.time import sleep, timeout
    >>> async def answer():
    ...     return 42
    >>> async def main():
    ...     print(await timeout(1, answer()))
    ...     try:
    ...         async with timeout(0.001):
    ...             await sleep(10)
    ...     except TimeoutError as error:
    ...         print(error)
    >>> run(main())
    42
    not finished within 0.001 seconds
    """
    return _limit("seconds", seconds, False, awaitable)


@overload
def timeout_at(when: float | None) -> AbstractAsyncContextManager[CancelScope]: ...
@overload
def timeout_at(when: float | None, awaitable: Awaitable[T]) -> Coroutine[Any, Any, T]: ...
def timeout_at(when: float | None, awaitable: Awaitable[T] | None = None) -> Any:
    """Like `timeout`, with the moment on the loop's clock when the time is over.

    >>> from yamanote.runtime import run
    >>> from yamanote.time import instant, sleep, timeout_at
    >>> async def main():
    ...     return await timeout_at(instant() + 1, sleep(0))
    >>> run(main())
    """
    return _limit("when", when, True, awaitable)


def _limit(name: str, limit: float | None, absolute: bool, awaitable: Awaitable[Any] | None) -> Any:
    try:
        if limit is not None:
            require_seconds(name, limit)
        if awaitable is None:
            return _Timeout(limit, absolute)
        if type(awaitable) is not CoroutineType and not inspect.isawaitable(awaitable):
            raise TypeError(f"awaitable must be a coroutine or another awaitable, not {type(awaitable).__name__}")
    except BaseException:
        if isinstance(awaitable, Coroutine):
            awaitable.close()  # it will never run: no warning that it was never awaited
        raise
    return _within(limit, absolute, awaitable)


@final
class _Timeout:
    """The context form."""

    __slots__ = ("_absolute", "_limit", "_scope")

    def __init__(self, limit: float | None, absolute: bool) -> None:
        self._limit = limit
        self._absolute = absolute
        self._scope = CancelScope()

    async def __aenter__(self) -> CancelScope:
        scope = self._scope
        if self._limit is not None:
            scope.deadline = self._limit if self._absolute else get_running_loop().time() + self._limit
        return scope.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not self._scope.__exit__(kind, error, traceback):
            return False
        if self._scope.reason == DEADLINE_PASSED:
            raise _timed_out(self._limit, self._absolute) from error
        return True  # cancelled by hand

    def __repr__(self) -> str:
        return f"<timeout {self._limit!r} {self._scope!r}>"


async def _within(limit: float | None, absolute: bool, awaitable: Awaitable[T]) -> T:
    """The call form."""
    deadline = limit if absolute or limit is None else get_running_loop().time() + limit
    steps = awaitable if type(awaitable) is CoroutineType else _await(awaitable)
    scope = CancelScope()  # around the first step too: scopes in there must find it outside of them
    scope.__enter__()
    try:
        try:
            waiting = steps.send(None)
        except StopIteration as finished:
            scope.__exit__(None, None, None)
            return finished.value  # type: ignore[no-any-return]
        scope.deadline = deadline
        value: T = await _resume(waiting, steps)
    except BaseException as error:
        if scope.__exit__(type(error), error, error.__traceback__):
            raise _timed_out(limit, absolute) from error
        raise
    scope.__exit__(None, None, None)
    return value


@types.coroutine
def _resume(waiting: Any, steps: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """``yield from steps``, for steps that have been begun: `waiting` is what they yielded first."""
    while True:
        try:
            yield waiting
        except GeneratorExit:
            steps.close()
            raise
        except BaseException as error:
            # The work may handle the error, and wait for something else to clean up.
            try:
                waiting = steps.throw(error)
            except StopIteration as finished:
                return finished.value  # type: ignore[no-any-return]
        else:
            return (yield from steps)  # type: ignore[no-any-return]


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _timed_out(limit: float | None, absolute: bool) -> TimeoutError:
    return TimeoutError(f"not finished by {limit!r}" if absolute else f"not finished within {limit!r} seconds")
