"""Task set: named tasks, taken one by one with `select` as they finish."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Iterator, Mapping
from types import TracebackType
from typing import Any, Generic, TypeVar, final

from yamanote.futures._completion import CompletionQueue, cancel_dropped
from yamanote.futures._failed_branch import mark_branch
from yamanote.futures._ownership import close_unstarted, require_awaitables, result_of
from yamanote.runtime import Selectable, Waiter

__all__ = ["TaskSet", "task_set"]

T = TypeVar("T")


def task_set(tasks: Mapping[str, Awaitable[T]] | None = None, /, **named: Awaitable[T]) -> TaskSet[T]:
    """Start coroutines as tasks, each under a name, to be taken with `select` as they finish.

    In order, they run at once up to their first wait. Names that are no identifiers go into a mapping.

    Raises TypeError for what cannot be awaited, ValueError for a name or a coroutine that is given twice, RuntimeError
    where no event loop runs; then none of them has been started.

    >>> from yamanote.futures import select, task_set
    >>> from yamanote.runtime import run
    >>> async def double(number):
    ...     return number * 2
    >>> async def main():
    ...     async with task_set(one=double(1), two=double(2)) as tasks:
    ...         while tasks:
    ...             match await select(tasks):
    ...                 case "one", value:
    ...                     print("one gave", value)
    ...                     tasks.spawn("three", double(value))
    ...                 case name, value:
    ...                     print(name, "gave", value)
    >>> run(main())
    one gave 2
    two gave 4
    three gave 4
    """
    given = {} if tasks is None else tasks
    if not isinstance(given, Mapping):
        close_unstarted([*(given if isinstance(given, Collection) else [given]), *named.values()])
        raise TypeError(f"a task needs a name: task_set(name=...), or a mapping, not {given!r}")
    awaitables = {**given, **named}
    try:
        if len(awaitables) < len(given) + len(named):
            raise ValueError(f"named twice: {', '.join(repr(name) for name in given if name in named)}")
        require_awaitables(awaitables.values())
    except BaseException:
        close_unstarted([*given.values(), *named.values()])
        raise
    result: TaskSet[T] = TaskSet()
    unstarted = iter(awaitables.items())
    try:
        for name, awaitable in unstarted:
            result.spawn(name, awaitable)
    except BaseException:  # there is no loop; or the first step of one has stopped the program
        close_unstarted(awaitable for _, awaitable in unstarted)
        raise
    return result


@final
class TaskSet(Generic[T]):
    """Named tasks that run, or have finished and wait to be taken. Made by `task_set`.

    ``await select(tasks)`` takes the one that finished first; as a branch among others, a set gives its pair as the
    value. ``async for name, value in tasks`` takes all, also those that are spawned meanwhile.

    A set owns its tasks: ``async with`` cancels and awaits at its end those that still run. A set that is just dropped
    does cancel them, with a ResourceWarning.

    A future or task that is passed in is only observed: it stays the business of whoever made it.
    """

    __slots__ = ("_queue", "_tasks")

    def __init__(self) -> None:
        self._queue: CompletionQueue[str, T] = CompletionQueue()
        # Whom `cancel` asks: nobody while the task is in its first step, nor when it has ended with that.
        self._tasks: dict[str, asyncio.Task[T] | None] = {}

    def spawn(self, name: str, awaitable: Awaitable[T]) -> None:
        """Start `awaitable` under `name`; also while others select from the set. It runs at once up to its first wait.

        Raises ValueError when a task of this name has not been taken yet, TypeError for a name that is none and for
        what cannot be awaited, RuntimeError after `aclose`.
        """
        try:
            if self._queue._closed:
                raise RuntimeError("this task set has been closed")
            if name in self._tasks:
                raise ValueError(f"there is a task named {name!r} already")
        except TypeError:  # it cannot be hashed
            close_unstarted([awaitable])
            raise TypeError(f"name must be a string, not {name!r}") from None
        except (RuntimeError, ValueError):
            close_unstarted([awaitable])
            raise
        self._tasks[name] = None
        try:
            task = self._queue.add(awaitable, name, name=name, eager=True)
        except BaseException:
            del self._tasks[name]
            raise
        if not task.done():  # else somebody in another thread may have taken it already
            self._tasks[name] = task

    update = spawn
    """Kioto's name for it."""

    def cancel(self, name: str) -> None:
        """Ask the task `name` to stop. When it has, `select` raises its JoinError. Raises KeyError for no such task."""
        task = self._tasks[name]
        if task is not None:
            task.cancel()

    def cancel_all(self) -> None:
        """Ask every task that still runs to stop. Does not wait; see `aclose`."""
        self._queue.cancel_all()

    async def aclose(self) -> None:
        """Cancel every task that still runs, wait until they have ended, and drop what has not been taken.

        An error that nobody took is reported by the loop's exception handler. Raises RuntimeError in a task of the set.
        **Cancel safety**: a cancelled call still waits for the tasks, then raises its own cancellation.
        """
        await self._queue.aclose()
        self._tasks.clear()

    async def __aenter__(self) -> TaskSet[T]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._queue.__aexit__(kind, error, traceback)
        self._tasks.clear()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tasks that have not been taken, in the order in which they were started."""
        return tuple(self._tasks)

    def __len__(self) -> int:
        """How many tasks have not been taken."""
        return len(self._queue)

    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __aiter__(self) -> TaskSet[T]:
        """Pairs of name and value, first finished first, until no task is left.

        The error of a task is raised once, and `failed_branch` knows its name; the others stay, so one can iterate
        again. Takes no loop turn for those that have finished, up to the cooperative budget.

        **Cancel safety**: a cancelled call takes nothing.
        """
        return self

    async def __anext__(self) -> tuple[str, T]:
        try:
            name, task = self._taken(await self._queue.pop())
        except LookupError:
            raise StopAsyncIteration from None
        try:
            return name, result_of(task)
        except BaseException as error:
            mark_branch(error, (name,))
            raise
        finally:
            del task

    def register(self, waiter: Waiter[Any], /) -> None:
        self._queue.register(waiter)

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        self._queue.withdraw(waiter)

    def _until_empty(self) -> Selectable[tuple[str, asyncio.Task[T]]]:
        """The set, for a wait that ends with LookupError when no task is left."""
        return self._queue.until_empty()

    def _pop_nowait(self) -> tuple[str, asyncio.Task[T]] | None:
        entry = self._queue.pop_nowait()
        return None if entry is None else self._taken(entry)

    def _taken(self, entry: tuple[str, asyncio.Task[T]]) -> tuple[str, asyncio.Task[T]]:
        """`entry` has been taken out of the queue: its name is free. (It is gone when the set was closed meanwhile.)"""
        self._tasks.pop(entry[0], None)
        return entry

    def __del__(self) -> None:
        cancel_dropped(self, self._queue)

    def __repr__(self) -> str:
        return f"<TaskSet {', '.join(self._tasks) or 'empty'}>"
