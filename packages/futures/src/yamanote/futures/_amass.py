"""Amass: values, first finished first."""

from __future__ import annotations

from asyncio import Task
from collections.abc import Awaitable, Iterable
from typing import TypeVar, final

from yamanote.futures._as_completed import Completions
from yamanote.futures._gather import group_of_errors
from yamanote.futures._ownership import error_of, failed

__all__ = ["amass"]

T = TypeVar("T")


def amass(awaitables: Iterable[Awaitable[T]], /, *, limit: int | None = None, sensitive: bool = True) -> Completions[T]:
    """Run many things, at most `limit` at a time, and iterate over their values, first finished first.

    The first error ends the iteration: values that came before it are given, the others are cancelled, nothing more is
    begun, and all errors that they have raised by their end come together. With ``sensitive=False`` a failure stops
    nobody; the errors come when all values have been given.

    The iterable is consumed as there is room: with a limit, values that wait to be taken count, too. Leave no loop
    early without ``async with``. Futures, tasks and join handles that are passed in are not ours: they go on after a
    failure.

    Raises ValueError for a limit below 1 or a coroutine that is given twice, TypeError for what cannot be awaited.
    Iterating raises ExceptionGroup, also for a single error, with a JoinError for one that was cancelled by somebody
    else, and whatever the iterable raises; when it does, all that has begun has ended. **Cancel safety**: a cancelled
    step takes nothing.

    >>> from yamanote.futures import amass
    >>> from yamanote.runtime import run
    >>> from yamanote.time import sleep
    >>> async def after(seconds, value):
    ...     await sleep(seconds)
    ...     return value
    >>> async def main():
    ...     async with amass([after(0.001, "slow"), after(0, "fast")]) as values:
    ...         async for value in values:
    ...             print(value)
    >>> run(main())
    fast
    slow
    """
    return _Values(awaitables, limit, sensitive)


@final
class _Values(Completions[T]):
    __slots__ = ("_failed", "_sensitive")

    def __init__(self, awaitables: Iterable[Awaitable[T]], limit: int | None, sensitive: bool) -> None:
        super().__init__(awaitables, limit, until=failed if sensitive else None)
        self._sensitive = sensitive
        # Those that were taken, until their errors are raised. If that never happens, asyncio reports them.
        self._failed: list[Task[T]] = []

    async def __anext__(self) -> T:
        while (task := await self._next_task()) is not None:
            stopping = self._sensitive and self._failed
            if failed(task):
                if not (stopping and task.cancelled()):  # else it has only obeyed us
                    self._failed.append(task)
            elif not stopping:
                value: T = task.result()
                return value
        errors = [error_of(task) for task in self._failed]
        self._failed.clear()
        if errors:
            raise group_of_errors(errors, self._begun)
        raise StopAsyncIteration
