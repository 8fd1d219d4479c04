"""Timeouts: a `CancelScope` whose deadline is an error, or half of a pair.

Work runs in the calling task, inside of the scope from its first instruction on. Deadlines come up only between the
steps of a task, and leave one that has only given way its next step, so work that can finish at once never times out.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Coroutine
from contextlib import AbstractAsyncContextManager
from types import CoroutineType, GeneratorType, TracebackType
from typing import Any, Literal, NoReturn, TypeVar, final, overload

from yamanote.runtime import CancelScope, finish_within, move_on_after
from yamanote.time._clock import require_seconds

__all__ = ["timeout", "timeout_at"]

T = TypeVar("T")

_MISSING: Any = object()


@overload
def timeout(seconds: float | None) -> AbstractAsyncContextManager[CancelScope]: ...
@overload
def timeout(seconds: float | None, awaitable: Awaitable[T]) -> Coroutine[Any, Any, T]: ...
@overload
def timeout(
    awaitable: Awaitable[T], seconds: float | None, /
) -> Coroutine[Any, Any, tuple[T, Literal[True]] | tuple[None, Literal[False]]]: ...
def timeout(seconds: Any, awaitable: Any = _MISSING) -> Any:
    """Give a block, or an awaitable, so many seconds; None means for ever.

    ``async with timeout(5) as scope:`` cancels the block when they are over and raises TimeoutError. `scope.deadline`
    can be moved meanwhile; `scope.cancel()` leaves the block without an error.

    ``await timeout(5, work())`` returns what the work returns. It runs in the calling task. Work that finishes without
    waiting never times out, not even with 0 seconds, also when it gives way to others once on its way.

    ``value, ok = await timeout(work(), 5)`` is TonIO's form: ``(None, False)`` when the time was over, and never a
    TimeoutError of its own. `asyncio.wait_for` has its arguments in this order too, but raises, and returns no pair.

    When the time is over the work is cancelled, and the call returns when its clean-up has ended. Work that finishes
    although it was cancelled has not timed out. A cancellation from outside is never turned into anything else, and
    errors of the work, a TimeoutError among them, come through.

    Raises TimeoutError; ValueError for nan; TypeError for what cannot be awaited. **Cancel safety**: that of the work.

    >>> from yamanote.runtime import run
    >>> from yamanote.time import sleep, timeout
    >>> async def answer():
    ...     return 42
    >>> async def main():
    ...     print(await timeout(1, answer()))
    ...     print(await timeout(sleep(10), 0.001))
    ...     try:
    ...         async with timeout(0.001):
    ...             await sleep(10)
    ...     except TimeoutError as error:
    ...         print(error)
    >>> run(main())
    42
    (None, False)
    not finished within 0.001 seconds
    """
    if type(awaitable) is CoroutineType and isinstance(seconds, (int, float)) and 0 <= seconds < 1e9:
        return finish_within(seconds, awaitable)  # what `_limit` comes to
    return _limit("seconds", seconds, False, awaitable)


@overload
def timeout_at(when: float | None) -> AbstractAsyncContextManager[CancelScope]: ...
@overload
def timeout_at(when: float | None, awaitable: Awaitable[T]) -> Coroutine[Any, Any, T]: ...
@overload
def timeout_at(
    awaitable: Awaitable[T], when: float | None, /
) -> Coroutine[Any, Any, tuple[T, Literal[True]] | tuple[None, Literal[False]]]: ...
def timeout_at(when: Any, awaitable: Any = _MISSING) -> Any:
    """Like `timeout`, with the moment on the loop's clock when the time is over.

    >>> from yamanote.runtime import run
    >>> from yamanote.time import instant, sleep, timeout_at
    >>> async def main():
    ...     return await timeout_at(instant() + 1, sleep(0))
    >>> run(main())
    """
    return _limit("when", when, True, awaitable)


def _limit(name: str, limit: Any, absolute: bool, awaitable: Any) -> Any:
    in_pairs = isinstance(limit, (Awaitable, GeneratorType))
    if in_pairs:
        limit, awaitable = awaitable, limit
    try:
        if limit is _MISSING:
            raise TypeError(f"{name} is missing: how long may it take?")
        if limit is not None:
            require_seconds(name, limit)
        if awaitable is _MISSING:
            return _Timeout(limit, absolute)
        if not inspect.isawaitable(awaitable):
            kind = type(awaitable).__name__
            if isinstance(awaitable, GeneratorType):
                kind += ": `coroutine` of yamanote.runtime.generators makes one of it"
            raise TypeError(f"awaitable must be a coroutine or another awaitable, not {kind}")
    except BaseException:
        for refused in (limit, awaitable):
            if isinstance(refused, Coroutine):
                refused.close()  # it will never run: no warning that it was never awaited
        raise
    if in_pairs:
        return _pair(CancelScope(limit) if absolute else move_on_after(limit), awaitable)
    return _finish_by(limit, awaitable) if absolute else finish_within(limit, awaitable)


@final
class _Timeout:
    """The context form."""

    __slots__ = ("_absolute", "_limit", "_scope")

    def __init__(self, limit: float | None, absolute: bool) -> None:
        self._limit = limit
        self._absolute = absolute
        self._scope = CancelScope(limit) if absolute else move_on_after(limit)

    async def __aenter__(self) -> CancelScope:
        return self._scope.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not self._scope.__exit__(kind, error, traceback):
            return False
        if not self._scope.expired:
            return True  # cancelled by hand
        limit = f"by {self._limit!r}" if self._absolute else f"within {self._limit!r} seconds"
        raise TimeoutError(f"not finished {limit}") from error

    def __await__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} has nothing to wait for: use `async with`, or add an awaitable, as in timeout(1, work())"
        )

    def __repr__(self) -> str:
        return f"<timeout {self._limit!r} {self._scope!r}>"


async def _finish_by(when: float | None, awaitable: Awaitable[T]) -> T:
    async with _Timeout(when, True):
        return await awaitable
    raise AssertionError("nobody else can cancel this block by hand")


async def _pair(scope: CancelScope, awaitable: Awaitable[T]) -> tuple[T, Literal[True]] | tuple[None, Literal[False]]:
    with scope:
        return await awaitable, True
    return None, False


# What Python says when somebody forgets to await them.
_finish_by.__name__ = _finish_by.__qualname__ = "timeout_at"
_pair.__name__ = _pair.__qualname__ = "timeout"
