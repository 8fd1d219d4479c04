"""Together: run several things until all have ended, or until one of them has decided the matter.

Invariant: what has begun has ended when `run_together` returns or raises, whatever happens. After the decision nothing
begins, and the others are cancelled, once, in the very turn in which it fell; the caller goes on in the turn in which
the last has ended. `join`, `gather` and `race` differ only in what decides, and in what they make of the ends.

One task waits, on the loop of the others: so this is less than a completion queue, which serves many from everywhere.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, CancelledError, Task, get_running_loop
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextvars import Context
from types import CoroutineType, coroutine
from typing import Any, Generic, TypeVar

from yamanote.futures._ownership import close_rest, start_owned
from yamanote.runtime import BUDGET, cooperative, make_task, yield_now

__all__ = ["run_together"]

T = TypeVar("T")


async def run_together(
    awaitables: Iterable[Awaitable[T]], until: Callable[[Task[Any]], bool] | None, limit: int | None = None
) -> tuple[list[Task[T]], Task[T] | None]:
    """Run `awaitables`, at most `limit` at a time, until all have ended, or `until` is true of one that has.

    Returns the tasks of those that have begun, in order, and the one that was decisive. What `awaitables` raises is
    raised when all have ended.
    """
    together: _Together[T] = _Together(until)
    tasks = together.tasks
    unstarted = iter(awaitables)
    try:
        # A loop around calls that are ready at once gives way, too.
        await cooperative()
        for awaitable in unstarted:
            together.start(awaitable)
            if len(tasks) % BUDGET == 0:
                await yield_now()
            if limit is not None and together.running >= limit:
                await together.until_running(limit - 1)
            if together.decisive is not None:
                break
        if together.running:
            await together.until_running(0)
    except BaseException as error:
        together.give_up()
        if not isinstance(error, GeneratorExit):  # the coroutine is being thrown away, and cannot wait any more
            await together.ended()
        # This error refers to this frame, and what nobody takes is to be reported now.
        tasks.clear()
        together.decisive = None
        raise
    finally:
        together.tasks = []  # this runs in the callback of the last end, which refers to it
        close_rest(awaitables, unstarted)
    return tasks, together.decisive


class _Together(Generic[T]):
    """The tasks; and what their owner yields to wait for them, in the place of a future.

    An end is the callback of a task, and steps the owner from there. A future between them would take one more turn.
    """

    __slots__ = (
        "_asyncio_future_blocking",
        "_cancelled",
        "_context",
        "_enough",
        "_loop",
        "_until",
        "_wake_up",
        "decisive",
        "running",
        "tasks",
    )

    def __init__(self, until: Callable[[Task[Any]], bool] | None) -> None:
        self.tasks: list[Task[T]] = []
        self.running = 0
        self._loop = get_running_loop()
        self.decisive: Task[T] | None = None
        self._until = until
        self._wake_up: Callable[[_Together[T]], object] | None = None
        self._cancelled: CancelledError | None = None

    def start(self, awaitable: Awaitable[T]) -> None:
        if type(awaitable) is CoroutineType:
            task: Task[T] = make_task(awaitable, self._loop, eager=True)
        else:
            task = start_owned(awaitable, None, True)
        self.tasks.append(task)
        if not task.done():
            self.running += 1
            task.add_done_callback(self._one_ended)
        elif self._until is not None and self._until(task):
            self._decide(task)

    def give_up(self) -> None:
        """Cancel all that run, unless the decision has."""
        self._until = None
        if self.decisive is None:
            self._cancel_all()

    async def ended(self) -> None:
        """Wait until all have ended, however often the caller is cancelled meanwhile, and raise that then."""
        cancelled: CancelledError | None = None
        while self.running:
            try:
                await self.until_running(0)
            except CancelledError as error:
                cancelled = error
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                del cancelled  # a frame that refers to an error that refers to the frame

    @coroutine
    def until_running(self, number: int) -> Generator[Any, None, None]:
        """Wait until no more than this `number` run; now it is more."""
        self._enough = number
        self._asyncio_future_blocking = True  # "this was yielded to be waited for": the protocol of asyncio's futures
        try:
            yield self
        finally:
            self._wake_up = None

    def _one_ended(self, task: Task[T]) -> None:
        self.running -= 1
        if self._until is not None and self._until(task):
            self._decide(task)
        if self._wake_up is not None and self.running <= self._enough:
            self._context.run(self._wake_up, self)

    def _decide(self, task: Task[T]) -> None:
        self._until = None
        self.decisive = task
        if self.running:
            self._cancel_all()

    def _cancel_all(self) -> None:
        for task in self.tasks:
            if not task.done():
                task.cancel()

    # ---------------------------------------------------------------- what its owner, a task, asks of what it yields

    def get_loop(self) -> AbstractEventLoop:
        return self._loop

    def add_done_callback(self, wake_up: Callable[[_Together[T]], object], *, context: Context) -> None:
        self._wake_up = wake_up
        self._context = context

    def cancel(self, msg: str | None = None) -> bool:
        wake_up, self._wake_up = self._wake_up, None
        if wake_up is None:
            return False  # it has been cancelled, and has not gone on yet
        self._cancelled = CancelledError() if msg is None else CancelledError(msg)
        self._loop.call_soon(wake_up, self, context=self._context)
        return True

    def done(self) -> bool:
        return self._wake_up is None

    def result(self) -> None:
        if self._cancelled is None:
            return
        cancelled, self._cancelled = self._cancelled, None
        try:
            raise cancelled
        finally:
            del self, cancelled  # the error refers to this frame
