"""Completion queue: tasks that run, and those that have finished, first finished first.

Invariant: every task that was added runs, or waits in the queue once, or has been handed over once; a party that gives
up puts what it was handed back to the front, in the order of completion. A completion costs one operation, whatever
the number of tasks. Finished tasks and parties that wait for one are never both there once a call has returned.

The queue owns its tasks: closing it cancels and awaits those that run. It never looks at a result: whoever takes a
finished task does, and the error of one that nobody takes is reported by the exception handler of its loop.
"""

from __future__ import annotations

import asyncio
import warnings
from _thread import RLock
from bisect import bisect
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Generic, TypeVar, final
from weakref import WeakKeyDictionary

from yamanote.futures._ownership import close_unstarted, start_owned
from yamanote.runtime import BUDGET, Selectable, Waiter, park, yield_now

__all__ = ["CompletionQueue", "cancel_dropped"]

K = TypeVar("K")
T = TypeVar("T")


@final
class CompletionQueue(Generic[K, T]):
    """Runs awaitables and gives them back as they finish, each with the key under which it was added.

    For people who build combinators; `task_set`, `amass`, `as_completed_safe` and `select` are made of it. A queue is
    `Selectable`: a branch of a `select` on it stays parked while the queue is empty, and is handed ``(key, task)``.

    With `until`, the first finished task for which it is true is the `decisive` one: the others are cancelled at once,
    not when somebody gets to run. It is asked once for each, in the order in which they finish, until then. An error
    that it raises is reported by the exception handler of the loop, and decides nothing.

    **Threads:** tasks are added on the loop that runs them; the queue may be waited for from any loop and thread.

    >>> from yamanote.futures import CompletionQueue
    >>> from yamanote.runtime import run
    >>> async def double(number):
    ...     return number * 2
    >>> async def main():
    ...     async with CompletionQueue() as queue:
    ...         queue.add(double(1), key="one")
    ...         queue.add(double(2), key="two")
    ...         return [(key, task.result()) async for key, task in queue]
    >>> run(main())
    [('one', 2), ('two', 4)]
    """

    __slots__ = (
        "__weakref__",
        "_budget",
        "_closed",
        "_enders",
        "_finished",
        "_handed",
        "_mutex",
        "_returned",
        "_running",
        "_starting",
        "_waiters",
        "_until",
        "decisive",
    )

    decisive: asyncio.Task[T] | None
    """The finished task for which `until` was true, even if it has been taken since; None in a closed queue."""

    def __init__(self, *, until: Callable[[asyncio.Task[T]], bool] | None = None) -> None:
        if until is not None and not callable(until):
            raise TypeError(f"until must be a function, or None, not {until!r}")
        self._running: dict[asyncio.Task[T], K] = {}
        self._finished: deque[tuple[K, asyncio.Task[T]]] = deque()
        self._waiters: deque[Waiter[Any]] = deque()
        """Who wait for a finished task."""
        self._enders: deque[Waiter[Any]] = deque()
        """Who wait until no task runs."""
        # Reentrant, because a coroutine that the garbage collector throws away withdraws, wherever its thread is then.
        self._mutex = RLock()
        self._handed = 0
        self._returned: WeakKeyDictionary[asyncio.Task[T], int] | None = None
        """The tasks that came back from a party, each with its number among those that were handed over."""
        self._budget = BUDGET
        self._closed = False
        self._starting: Awaitable[T] | None = None  # what is in its first step, and has not been added yet
        self._until = until
        self.decisive = None

    def add(self, awaitable: Awaitable[T], key: K, *, name: str | None = None, eager: bool = False) -> asyncio.Task[T]:
        """Start `awaitable` as a task and watch it. Keys need not be unique.

        With `eager` it runs at once up to its first wait; otherwise it starts on the next turn. A future, task or join
        handle is only watched: it stays the business of whoever made it.

        Raises TypeError for what cannot be awaited, RuntimeError after `aclose`, when there is a `decisive` task, and
        where no loop runs.
        """
        if self._closed or self.decisive is not None:
            close_unstarted([awaitable])
            raise RuntimeError(f"this queue has been {'closed' if self._closed else 'decided'}")
        outer, self._starting = self._starting, awaitable
        try:
            task = start_owned(awaitable, name, eager)
        finally:
            self._starting = outer
        if task.done():
            if self._closed:
                return task
            self._finished.append((key, task))
            if self._until is not None:
                self._judge(task)
            if self._waiters:
                self._match()
        else:
            self._running[task] = key
            task.add_done_callback(self._finish)
            if self._closed or self.decisive is not None:  # since its first step, and nobody else has asked it
                task.cancel()
        return task

    def pop_nowait(self) -> tuple[K, asyncio.Task[T]] | None:
        """Take the task that finished first, with its key; None when none has finished."""
        try:
            return self._finished.popleft()
        except IndexError:
            return None

    async def pop(self) -> tuple[K, asyncio.Task[T]]:
        """Wait for the next task to finish and take it, with its key.

        Takes no loop turn when one has finished already, up to the cooperative budget. Parties are served first in,
        first out. Raises LookupError when the queue is empty, or becomes so while others take the rest, and when it is
        closed. **Cancel safety**: a cancelled call takes nothing.
        """
        if self._budget == 0:
            self._budget = BUDGET
            await yield_now()
        try:
            entry = self._finished.popleft()
        except IndexError:
            self._budget = BUDGET
        else:
            self._budget -= 1
            return entry
        return await park(self.until_empty())

    def until_empty(self) -> Selectable[tuple[K, asyncio.Task[T]]]:
        """What to select over for the wait of `pop`, which ends with LookupError when no task is left."""
        return _Wait(self, _UNTIL_EMPTY)

    async def wait(self) -> None:
        """Wait until no task runs any more. Those that have finished stay, to be taken.

        Raises RuntimeError in one of its own tasks. **Cancel safety**: the tasks go on.
        """
        self._refuse_own_tasks("wait for")
        while self._running:
            await park(_Wait(self, _UNTIL_ENDED))

    def cancel_all(self) -> None:
        """Ask every task that runs to stop. They finish, and are handed over, like any other. Does not wait."""
        for task in list(self._running):
            task.cancel()

    async def aclose(self) -> None:
        """Cancel all tasks that run, wait until they have ended, and drop what nobody has taken.

        Whoever is parked gets LookupError. Closing again does nothing. Raises RuntimeError in one of its own tasks.
        **Cancel safety**: a cancelled call still waits for the tasks, then raises its own cancellation.
        """
        self._refuse_own_tasks("close")
        self._shut()
        cancelled: asyncio.CancelledError | None = None
        while self._running:
            try:
                await park(_Wait(self, _UNTIL_ENDED))
            except asyncio.CancelledError as error:
                cancelled = error  # it comes second: first the tasks must end
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                del cancelled  # a frame that refers to an error that refers to the frame

    def _refuse_own_tasks(self, purpose: str) -> None:
        task = asyncio.current_task()
        if task in self._running or (self._starting is not None and task and task.get_coro() is self._starting):
            raise RuntimeError(f"a task cannot {purpose} the queue that runs it")

    def _shut(self) -> None:
        if not self._closed:
            self._closed = True
            self._until = None
            self._finished.clear()
            if self.decisive is None:
                self.cancel_all()
            else:  # they have been asked, and may be cleaning up
                self.decisive = None
            if self._waiters:
                self._match()

    async def __aenter__(self) -> CompletionQueue[K, T]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is GeneratorExit:  # the coroutine is being thrown away, and cannot wait any more
            self._shut()
        else:
            await self.aclose()

    def __aiter__(self) -> CompletionQueue[K, T]:
        """What `pop` gives, until the queue is empty. Tasks may be added meanwhile."""
        return self

    async def __anext__(self) -> tuple[K, asyncio.Task[T]]:
        try:
            return await self.pop()
        except LookupError:
            raise StopAsyncIteration from None

    def __len__(self) -> int:
        """How many tasks run or wait to be taken."""
        return len(self._running) + len(self._finished)

    def register(self, waiter: Waiter[Any], /) -> None:
        self._register(waiter, _FOR_EVER)

    def _register(self, waiter: Waiter[Any], how_long: str) -> None:
        waiter.operation = how_long
        (self._enders if how_long is _UNTIL_ENDED else self._waiters).append(waiter)
        # A task that finishes now sees the waiter; one that has finished before is seen here.
        if self._finished or not self._running or self._closed:
            self._match()

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        with self._mutex:
            if not waiter.settled:
                self._forget(waiter)
            elif waiter.error is None and waiter.value is not None and not self._closed:
                self._put_back(waiter.value, waiter.operation)
                self._match()

    def _put_back(self, entry: tuple[K, asyncio.Task[T]], number: int) -> None:
        if self._returned is None:
            self._returned = WeakKeyDictionary()
        numbers = self._returned
        # Those in front came back, too, and are in order. In a copy, because other threads take some meanwhile.
        place = bisect(self._finished.copy(), number, key=lambda other: numbers.get(other[1], number + 1))
        self._finished.insert(place, entry)
        numbers[entry[1]] = number

    def _finish(self, task: asyncio.Task[T]) -> None:
        # In one of the two at any moment: another thread may ask whether anything is left.
        if not self._closed:
            self._finished.append((self._running[task], task))
        del self._running[task]
        if self._until is not None:
            self._judge(task)
        if self._waiters or self._enders:
            self._match()

    def _judge(self, task: asyncio.Task[T]) -> None:
        try:
            if self._until is None or not self._until(task):
                return
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # also the CancelledError of a task whose result it asks for
            message = "`until` of a CompletionQueue has failed"
            task.get_loop().call_exception_handler({"message": message, "exception": error, "task": task})
            return
        self._until = None
        self.decisive = task
        self.cancel_all()

    def _match(self) -> None:
        """Hand finished tasks to who wait for one, and end the waits that have no future."""
        with self._mutex:
            waiters, finished = self._waiters, self._finished
            while waiters:
                try:
                    entry = finished.popleft()
                except IndexError:
                    break
                self._handed += 1
                number = self._handed if self._returned is None else self._returned.get(entry[1], self._handed)
                while waiters:
                    waiter = waiters.popleft()
                    waiter.operation = number  # in case that it gives the entry back
                    if waiter.hand(entry):
                        break
                else:
                    finished.appendleft(entry)
            if self._closed or not (self._running or finished):
                self._end_waits()
            while self._enders and not self._running:
                self._enders.popleft().hand(None)

    def _end_waits(self) -> None:
        for waiter in self._waiters.copy():  # in one operation: other threads park meanwhile
            if self._closed or waiter.operation is _UNTIL_EMPTY:
                self._forget(waiter)
                if waiter.claim():
                    waiter.fail(LookupError("the queue has been closed" if self._closed else "no tasks are left"))

    def _forget(self, waiter: Waiter[Any]) -> None:
        for waiters in (self._waiters, self._enders):
            try:
                waiters.remove(waiter)
            except ValueError:  # not there; or skipped as dead, or withdrawn by a finalizer that began just now
                pass

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        return f"<CompletionQueue {len(self._running)} running, {len(self._finished)} finished{state}>"


_FOR_EVER = "for ever"
"""A branch of a select: tasks may be added later."""
_UNTIL_EMPTY = "until empty"
"""`pop`, which ends with the last task."""
_UNTIL_ENDED = "until ended"
"""`wait` and `aclose`, which take nothing."""


class _Wait:
    """One of the queue's own waits."""

    __slots__ = ("_how_long", "_queue")

    def __init__(self, queue: CompletionQueue[Any, Any], how_long: str) -> None:
        self._queue = queue
        self._how_long = how_long

    def register(self, waiter: Waiter[Any], /) -> None:
        self._queue._register(waiter, self._how_long)

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        self._queue.withdraw(waiter)


def cancel_dropped(owner: object, queue: CompletionQueue[Any, Any]) -> None:
    """For finalizers: `owner` of this queue was dropped. Cancel what runs, and warn that nobody has closed it."""
    running = list(queue._running)
    if running and not queue._closed:
        message = f"{owner!r} was dropped with tasks that run: use `async with`"
        try:
            # The garbage collector may run this in any thread.
            running[0].get_loop().call_soon_threadsafe(queue.cancel_all)
        except RuntimeError:  # the loop has been closed: nothing runs any more
            pass
        warnings.warn(message, ResourceWarning, stacklevel=3, source=owner)  # last: it may be told to raise
