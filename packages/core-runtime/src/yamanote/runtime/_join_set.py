"""Join set: tasks that are joined in the order in which they end.

Invariant: every task that was spawned runs, or waits to be joined once, or has been joined once; who is cancelled while
joining puts back to the front what it was handed. Tasks that have ended and parties that wait are never both there once
a call has returned. An end costs one operation, whatever the number of tasks.

What is handed over is the handle of a task that has ended, so an error that nobody looks at is not lost: the exception
handler of the loop gets it.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, final

from yamanote.runtime._budget import BUDGET, yield_now
from yamanote.runtime._cancel import wait_for_end
from yamanote.runtime._critical import CriticalSection
from yamanote.runtime._join import JoinHandle
from yamanote.runtime._task import request_cancel, start_anywhere
from yamanote.runtime._waiter import Waiter, park

__all__ = ["JoinQueue", "JoinSet"]

T = TypeVar("T")
E = TypeVar("E")
R = TypeVar("R")


class JoinQueue(Generic[E]):
    """What `JoinSet` and `JoinMap` have in common; they say what an entry is. Entries are never None."""

    __slots__ = ("__weakref__", "_budget", "_disowned", "_ended", "_running", "_section", "_waiters")

    def __init__(self) -> None:
        self._running: dict[asyncio.Future[Any], E] = {}
        self._disowned: set[asyncio.Future[Any]] = set()  # cancelled, and of no interest to anybody
        self._ended: deque[E] = deque()
        self._waiters: deque[Waiter[Any]] = deque()
        # A coroutine that is thrown away withdraws, wherever its thread is then.
        self._section = CriticalSection()
        self._budget = BUDGET

    async def join_next(self) -> E | None:
        """Wait for the next task to end, and take it; None when there is none left.

        Takes no loop turn when one has ended already, up to the cooperative budget. Callers are served first in, first
        out.

        **Cancel safety:** a cancelled call takes nothing. In a `select`, use the set itself as a branch: it gives the
        same, but waits while it is empty.
        """
        if not self._budget:
            self._budget = BUDGET
            await yield_now()
        entry = self.try_join_next()
        if entry is not None:
            self._budget -= 1
            return entry
        self._budget = BUDGET
        return await park(_JoinNext(self))

    def try_join_next(self) -> E | None:
        """Take the task that has ended first; None when none has."""
        try:
            entry = self._ended.popleft()
        except IndexError:
            return None
        self._taken(entry)
        return entry

    def abort_all(self, reason: str | None = None) -> None:
        """Ask every task that runs to stop. They end, and are joined, like any other. Does not wait."""
        for task in list(self._running):
            request_cancel(task, reason)

    async def shutdown(self) -> None:
        """Cancel all tasks, wait until they have ended, and drop what nobody has joined. The set can be used again.

        Called by one of its tasks it does not wait, because that would be for its own end.

        **Cancel safety:** a cancelled call still waits for the tasks, then raises its own cancellation.
        """
        cancelled: CancelledError | None = None
        # In rounds, for the clean-up of one may spawn another.
        while tasks := [task for task in (*self._running, *self._disowned) if not task.done()]:
            self.abort_all()
            current = asyncio.current_task()
            if any(JoinHandle(task)._includes(current) for task in tasks):
                return
            try:
                await wait_for_end(tasks)
            except CancelledError as error:
                cancelled = cancelled or error
        self.detach_all()
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                del cancelled

    def detach_all(self) -> None:
        """Forget all tasks. Those that run go on, as if by `spawn`."""
        with self._section:
            self._running.clear()
            self._disowned.clear()
            while self.try_join_next() is not None:
                pass
            self._match()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is GeneratorExit:  # thrown away, it cannot wait
            self.abort_all()
        else:
            await self.shutdown()

    def __aiter__(self) -> Self:
        """What `join_next` gives, until no task is left. Tasks may be spawned meanwhile."""
        return self

    async def __anext__(self) -> E:
        entry = await self.join_next()
        if entry is None:
            raise StopAsyncIteration
        return entry

    def __len__(self) -> int:
        """How many tasks have not been joined."""
        return len(self._running) + len(self._ended)

    def register(self, waiter: Waiter[Any], /) -> None:
        self._register(waiter, until_empty=False)

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        self._section.run(partial(self._withdraw, waiter))

    def _register(self, waiter: Waiter[Any], until_empty: bool) -> None:
        waiter.operation = until_empty
        with self._section:
            self._waiters.append(waiter)
            self._match()

    def _withdraw(self, waiter: Waiter[Any]) -> None:
        if not waiter.settled:
            try:
                self._waiters.remove(waiter)
            except ValueError:  # skipped as dead in the meantime
                pass
        elif waiter.value is not None and self._given_back(waiter.value):
            self._ended.appendleft(waiter.value)
            self._match()

    async def _join_all(self, join: Callable[[E], Awaitable[R]]) -> list[R]:
        results = []
        try:
            async for entry in self:
                results.append(await join(entry))
        except GeneratorExit:  # thrown away, it cannot wait
            self.abort_all()
            raise
        except BaseException:
            await self.shutdown()
            raise
        return results

    def _add(self, task: asyncio.Future[Any], entry: E) -> None:
        if task.done():
            self._has_ended(entry)
        else:
            self._running[task] = entry
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Future[Any]) -> None:
        entry = self._running.pop(task, None)
        if entry is None:
            self._disowned.discard(task)
        else:
            self._has_ended(entry)

    def _has_ended(self, entry: E) -> None:
        self._ended.append(entry)
        if self._waiters:
            with self._section:
                self._match()

    def _match(self) -> None:
        """Hand what has ended to who waits, and end the waits that have no future. Only inside the section."""
        waiters, ended = self._waiters, self._ended
        while waiters and ended:
            entry = ended.popleft()
            if waiters.popleft().hand(entry):
                self._taken(entry)
            else:
                ended.appendleft(entry)
        if waiters and not self._running:
            for waiter in [waiter for waiter in waiters if waiter.operation]:
                waiters.remove(waiter)
                waiter.hand(None)

    def _taken(self, entry: E) -> None:
        """`entry` is about to be joined."""

    def _given_back(self, entry: E) -> bool:
        """`entry` was not joined after all. Tell whether it still can be."""
        return True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} running={len(self._running)} ended={len(self._ended)}>"


@final
class JoinSet(JoinQueue[JoinHandle[T]], Generic[T]):
    """Tasks that are joined one by one, whichever ends first: ``async for done in jobs: print(await done)``.

    `join_next` and iterating give the *handle* of a task that has ended, the one that `spawn` returned. Awaiting it
    takes no time: it returns the value, raises the error, or raises JoinError when the task was cancelled. Results stay
    until they are joined; then they are freed with the handle. An error that nobody has asked for goes to the exception
    handler of the loop.

    An ``async with`` block cancels and awaits at its end the tasks that still run.

    **Threads:** a set belongs to one loop. It may be waited for as a branch of a `select`.

    >>> from yamanote.runtime import JoinSet, run
    >>> async def double(number):
    ...     return number * 2
    >>> async def example():
    ...     async with JoinSet() as jobs:
    ...         for number in range(3):
    ...             jobs.spawn(double(number))
    ...         return [await done async for done in jobs]
    >>> run(example())
    [0, 2, 4]
    """

    __slots__ = ()

    def spawn(
        self, coro: Awaitable[T], /, *, name: str | None = None, context: Context | None = None, eager: bool = False
    ) -> JoinHandle[T]:
        """Start a task in the set, as `yamanote.runtime.spawn` does, and return its handle."""
        task = start_anywhere(coro, name, context, eager, "spawn")
        handle = JoinHandle(task)
        self._add(task, handle)
        return handle

    async def join_all(self) -> list[T]:
        """Wait for all tasks; return their values, in the order in which they ended.

        The first error is raised when the others, which are cancelled, have ended.

        **Cancel safety:** the same; the cancellation goes on when all have ended.
        """
        return await self._join_all(lambda done: done)


class _JoinNext:
    """The wait of `join_next`, which ends with the last task."""

    __slots__ = ("_queue",)

    def __init__(self, queue: JoinQueue[Any]) -> None:
        self._queue = queue

    def register(self, waiter: Waiter[Any], /) -> None:
        self._queue._register(waiter, until_empty=True)

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        self._queue.withdraw(waiter)

    def __repr__(self) -> str:
        return repr(self._queue)
