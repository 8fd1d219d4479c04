"""As completed: what was begun together, one by one, first finished first.

Invariant: at most `limit` run or wait to be taken; the iterable is asked for another only when there is room, and only
by whoever takes. A step that is cancelled has taken nothing. What has begun has ended when the iteration has, or when
it was closed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from asyncio import Task
from collections.abc import Awaitable, Callable, Iterable, Iterator
from inspect import isawaitable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, final

from yamanote.futures._completion import CompletionQueue, cancel_dropped
from yamanote.futures._ownership import checked, close_rest, close_unstarted, require_limit
from yamanote.runtime import JoinHandle, cooperative

__all__ = ["Completions", "as_completed_safe"]

T = TypeVar("T")


class Completions(ABC, Generic[T]):
    """An iteration over what has finished: made by `amass`, which gives values, and `as_completed_safe`: handles.

    It owns the tasks. ``async with`` cancels and awaits at its end those that still run, which is needed only when the
    loop may be left early. One that is just dropped does cancel them, with a ResourceWarning.

    Nothing begins before the first step. Several tasks may iterate it together: each item goes to one of them.

    **Threads:** it belongs to one loop.
    """

    __slots__ = ("__weakref__", "_awaitables", "_begun", "_limit", "_queue", "_unstarted")

    def __init__(
        self, awaitables: Iterable[Awaitable[Any]], limit: int | None, until: Callable[[Task[Any]], bool] | None
    ) -> None:
        self._queue: CompletionQueue[None, Any] = CompletionQueue(until=until)
        if not isinstance(awaitables, Iterable) or isawaitable(awaitables):
            close_unstarted([awaitables])
            raise TypeError(f"awaitables must be an iterable of them, not {awaitables!r}")
        self._awaitables = checked(awaitables)
        require_limit(limit, awaitables)
        self._unstarted: Iterator[Awaitable[Any]] | None = iter(self._awaitables)
        self._limit = limit
        self._begun = 0

    def __aiter__(self) -> Self:
        return self

    @abstractmethod
    async def __anext__(self) -> T: ...

    async def aclose(self) -> None:
        """Cancel what runs, wait until it has ended, and begin nothing more. Closing again does nothing.

        Raises only RuntimeError, in one of its own tasks. An error that nobody took is reported by the loop's exception
        handler. **Cancel safety**: a cancelled call still waits for the tasks, then raises its own cancellation.
        """
        self._begin_no_more()
        await self._queue.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._begin_no_more()
        await self._queue.__aexit__(kind, error, traceback)

    async def _next_task(self) -> Task[Any] | None:
        """The next that has finished, when all have begun for which there is room; None when none is left."""
        queue = self._queue
        while True:
            while self._unstarted is not None and (self._limit is None or len(queue) < self._limit):
                if queue.decisive is not None:
                    self._begin_no_more()
                    break
                try:
                    task = queue.add(next(self._unstarted), None, eager=True)
                except StopIteration:
                    self._unstarted = None
                    break
                except BaseException:  # of the iterable, or about what it gave
                    await self.aclose()
                    raise
                self._begun += 1
                if task.done():
                    await cooperative()
            try:
                return (await queue.pop())[1]
            except LookupError:
                if self._unstarted is None:  # else others took the last ones, and there is room again
                    return None

    def _begin_no_more(self) -> None:
        if self._unstarted is not None:
            close_rest(self._awaitables, self._unstarted)
            self._unstarted = None

    def __del__(self) -> None:
        cancel_dropped(self, self._queue)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._queue!r}>"


def as_completed_safe(awaitables: Iterable[Awaitable[T]], /, *, limit: int | None = None) -> Completions[JoinHandle[T]]:
    """Run many things, at most `limit` at a time, and iterate over those that have ended, first finished first.

    Gives handles: awaiting one takes no time, and returns the value or raises the error; JoinError for one that was
    cancelled by somebody else. A failure ends nothing else, and one that nobody asks for is reported by the loop's
    exception handler. The handle of a task or handle that was passed in has its name.

    The iterable is consumed as there is room: with a limit, those that wait to be taken count, too. Leave no loop early
    without ``async with``.

    Raises ValueError for a limit below 1 or a coroutine that is given twice, TypeError for what cannot be awaited.
    Iterating raises what the iterable raises, when all that has begun has ended. **Cancel safety**: a cancelled step
    takes nothing.

    >>> from yamanote.futures import as_completed_safe
    >>> from yamanote.runtime import run
    >>> async def invert(number):
    ...     return 1 / number
    >>> async def main():
    ...     async with as_completed_safe(map(invert, [2, 0, 1])) as results:
    ...         async for result in results:
    ...             try:
    ...                 print(await result)
    ...             except ZeroDivisionError:
    ...                 print("not that one")
    >>> run(main())
    0.5
    not that one
    1.0
    """
    return _Handles(awaitables, limit, until=None)


@final
class _Handles(Completions[JoinHandle[T]]):
    __slots__ = ()

    async def __anext__(self) -> JoinHandle[T]:
        task = await self._next_task()
        if task is None:
            raise StopAsyncIteration
        return JoinHandle(task)
