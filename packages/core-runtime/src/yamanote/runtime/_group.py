"""Task group: tasks that end before the block that started them does.

Invariant: no child outlives the block. The first failure, `cancel`, or a cancellation of the host from outside cancels
every child that has not ended, once, and the body; every error is raised in one ExceptionGroup; a cancellation from
outside goes on. `task.cancelling()` of the host is what it was.

The body runs in a `CancelScope`, which is closed first of all when the body ends. So whatever cancels the host while it
waits for its children comes from outside, and there is nothing to tell apart.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, _get_running_loop
from collections import deque
from collections.abc import Awaitable, Coroutine
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any, Literal, TypeVar, final

from yamanote.runtime._awaited_by import add_awaiter, discard_awaiter
from yamanote.runtime._join import JoinHandle
from yamanote.runtime._scope import CancelScope
from yamanote.runtime._task import as_coroutine, make_task, request_cancel, tasks_of

__all__ = ["TaskGroup", "scope"]

T = TypeVar("T")
_State = Literal["new", "open", "abandoned", "ended"]


@final
class TaskGroup:
    """Runs tasks together: ``async with TaskGroup() as group: group.spawn(work())``.

    The block ends when its body and all its children have ended, or, with an ExceptionGroup of all their errors, as
    soon as one of them has failed and the others, which are cancelled then, have ended. A child that is cancelled is
    no failure. KeyboardInterrupt and SystemExit are raised as they are.

    With a `limit`, at most so many children run at once; the others start in the order in which they were spawned.
    They have no task before that, so a long queue is cheap.

    **Cancel safety:** when the host is cancelled, so are the children; its CancelledError goes on when they have ended.

    **Threads:** `cancel` may be called from any thread; everything else belongs to the loop of the block.

    Raises ValueError for a `limit` below 1.

    >>> from yamanote.runtime import TaskGroup, run
    >>> async def double(number):
    ...     return number * 2
    >>> async def example():
    ...     async with TaskGroup(limit=10) as group:
    ...         handles = [group.spawn(double(number)) for number in range(3)]
    ...     return [await handle for handle in handles]
    >>> run(example())
    [0, 2, 4]
    """

    __slots__ = (
        "__weakref__",
        "_aborting",
        "_active",
        "_body",
        "_children",
        "_errors",
        "_fatal",
        "_host",
        "_idle",
        "_limit",
        "_loop",
        "_name",
        "_queue",
        "_state",
    )

    def __init__(self, *, limit: int | None = None, name: str | None = None) -> None:
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
            raise TypeError(f"limit must be a whole number, or None for no limit, not {limit!r}")
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1, or None for no limit, not {limit!r}")
        self._limit = limit
        self._name = name
        self._state: _State = "new"
        self._aborting = False
        self._body = CancelScope()
        self._host: asyncio.Task[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._active = 0  # children that have started and not ended; one that is just starting eagerly too
        # In the order in which they were started, which is the order in which they are cancelled. With their handles,
        # if those are older than the tasks.
        self._children: dict[asyncio.Task[Any], _Queued[Any] | None] = {}
        self._queue: deque[_Queued[Any]] = deque()
        self._errors: list[BaseException] = []
        self._fatal: BaseException | None = None
        self._idle: asyncio.Future[None] | None = None

    async def __aenter__(self) -> TaskGroup:
        if self._state != "new":
            raise RuntimeError(f"{self!r} can be entered only once")
        self._body.__enter__()
        self._host = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._state = "open"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        swallowed = self._body.__exit__(kind, error, traceback)
        outside: CancelledError | None = None
        if error is not None and not swallowed:
            if isinstance(error, CancelledError):
                outside = error
                self._abort(None)
            elif isinstance(error, GeneratorExit):
                self._abandon()
                return False
            else:
                self._failed(error)
        assert self._loop is not None
        while self._active:
            self._idle = self._loop.create_future()
            try:
                await self._idle
            except CancelledError as cancelled:
                outside = outside or cancelled
                self._abort(None)
            except GeneratorExit:
                self._abandon()
                raise
        self._state = "ended"
        try:
            if self._fatal is not None:
                if self._fatal is error:
                    return False
                raise self._fatal
            if self._errors:
                if outside is not None and self._host is not None:
                    self._body._raise_again(self._host)
                label = "unhandled errors in a TaskGroup" + (f" ({self._name})" if self._name is not None else "")
                raise BaseExceptionGroup(label, self._errors) from None
            if outside is not None:
                if outside is error:
                    return False
                raise outside
            return swallowed
        finally:
            # Errors refer to this frame, and it to them.
            del error, outside, traceback
            self._errors = []
            self._fatal = self._host = self._idle = None

    def spawn(
        self, coro: Awaitable[T], /, *, name: str | None = None, context: Context | None = None, eager: bool = False
    ) -> JoinHandle[T]:
        """Start a child, and return its handle at once; above the limit it waits for its turn, first in, first out.

        `eager` is that of `yamanote.runtime.spawn`, for a child that need not wait. In a group that is being cancelled
        the child is cancelled before its first instruction.

        Awaiting the handle of a failed child raises its error, which fails the group all the same.

        Raises RuntimeError when the group has not been entered, or has ended, or belongs to another loop.
        """
        coroutine = self._admit(coro, "spawn")
        if self._limit is not None and self._active >= self._limit:
            return self._enqueue(coroutine, name, context)
        return JoinHandle(self._start(coroutine, name, context, eager))

    def try_spawn(
        self, coro: Awaitable[T], /, *, name: str | None = None, context: Context | None = None, eager: bool = False
    ) -> JoinHandle[T] | None:
        """Like `spawn`, but return None, and close the coroutine, when the limit is reached."""
        coroutine = self._admit(coro, "try_spawn")
        if self._limit is not None and self._active >= self._limit:
            coroutine.close()
            return None
        return JoinHandle(self._start(coroutine, name, context, eager))

    def cancel(self, reason: str | None = None) -> None:
        """End the group early: cancel its children and its body. This raises nothing out of the block.

        The block still waits until they have ended, and raises what they raise in their clean-up. May be called
        before the block is entered, again, and after it has ended.

        **Threads:** may be called from any thread.
        """
        loop = self._loop
        if loop is None:
            self._aborting = True
            self._body.cancel(reason)
        elif _get_running_loop() is loop:
            self._abort(reason)
        else:
            try:
                loop.call_soon_threadsafe(self._abort, reason)
            except RuntimeError:  # the loop is closed
                pass

    def _admit(self, coro: Awaitable[T], method: str) -> Coroutine[Any, Any, T]:
        coroutine = as_coroutine(coro, method)
        if self._state == "open" and _get_running_loop() is self._loop:
            return coroutine
        coroutine.close()
        if self._state == "open":
            raise RuntimeError(f"{self!r} belongs to another event loop")
        raise RuntimeError(f"{self!r} takes no children: it is not open")

    def _start(
        self,
        coroutine: Coroutine[Any, Any, T],
        name: str | None,
        context: Context | None,
        eager: bool,
        queued: _Queued[T] | None = None,
    ) -> asyncio.Task[T]:
        assert self._loop is not None
        self._active += 1
        try:
            task = make_task(coroutine, self._loop, name, context, eager and not self._aborting)
        except BaseException:
            self._active -= 1
            raise
        if task.done():
            self._finished(task)
        else:
            self._children[task] = queued
            if add_awaiter is not None:
                add_awaiter(task, self._host)
            task.add_done_callback(self._finished)
            if self._aborting:
                task.cancel()
        return task

    def _enqueue(self, coroutine: Coroutine[Any, Any, T], name: str | None, context: Context | None) -> JoinHandle[T]:
        assert self._loop is not None
        # It starts in a callback, whose context is another.
        handle = _Queued(self._loop.create_future(), coroutine, name, copy_context() if context is None else context)
        if self._aborting:
            handle.abort()
        else:
            self._queue.append(handle)
        return handle

    def _finished(self, task: asyncio.Task[Any]) -> None:
        queued = self._children.pop(task, None)
        if queued is not None:
            queued.ended(task)  # before the block, which may go on from here
        if discard_awaiter is not None:
            discard_awaiter(task, self._host)
        self._active -= 1
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                self._failed(error)
        while self._queue and not self._aborting and (self._limit is None or self._active < self._limit):
            queued = self._queue.popleft()
            if not queued.is_finished():
                queued.task = self._start(queued.coroutine, queued.label, queued.context, False, queued)
        if not self._active and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _failed(self, error: BaseException) -> None:
        if self._state == "abandoned":
            assert self._loop is not None
            self._loop.call_exception_handler(
                {"message": f"a child of {self!r}, whose host is gone, failed", "exception": error}
            )
            return
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            self._fatal = self._fatal or error
        elif not any(error is known for known in self._errors):  # the body may raise what it got from a child
            self._errors.append(error)
        self._abort(None)

    def _abort(self, reason: str | None) -> None:
        if self._aborting:
            return
        self._aborting = True
        assert self._loop is not None
        # The body first: where it waits for a child it is to hear of its own end, not of the child's.
        self._body.cancel(reason)
        while self._queue:
            self._queue.popleft().abort(reason)
        for child in list(self._children):
            request_cancel(child, reason)

    def _abandon(self) -> None:
        """The host is being thrown away, and then nothing can be awaited: tell the children, and let them end."""
        assert self._loop is not None
        self._state = "abandoned"
        tasks = tasks_of(self._loop)
        for child in self._children:
            tasks.add(child)
            child.add_done_callback(tasks.discard)
        self._abort(None)

    def __repr__(self) -> str:
        label = "" if self._name is None else f" {self._name!r}"
        state = "cancelled" if self._aborting and self._state == "open" else self._state
        waiting = f" queued={len(self._queue)}" if self._queue else ""
        return f"<TaskGroup{label} {state} running={self._active}{waiting}>"


def scope(*, name: str | None = None) -> TaskGroup:
    """A block whose children end with it: ``async with scope() as s: s.spawn(work()); s.cancel()``.

    The name under which users of TonIO look for `TaskGroup`. The error of a child is never lost: it ends the block.

    >>> import asyncio
    >>> from yamanote.runtime import run, scope
    >>> async def example():
    ...     async with scope() as s:
    ...         handle = s.spawn(asyncio.sleep(3600))
    ...         s.cancel()
    ...     return handle.is_finished()
    >>> run(example())
    True
    """
    return TaskGroup(name=name)


@final
class _Queued(JoinHandle[T]):
    """The handle of a child that waits for its turn."""

    __slots__ = ("context", "coroutine", "label", "task")

    def __init__(
        self, future: asyncio.Future[T], coroutine: Coroutine[Any, Any, T], label: str | None, context: Context
    ) -> None:
        super().__init__(future)
        self.coroutine = coroutine
        self.label = label
        self.context = context
        self.task: asyncio.Task[T] | None = None

    @property
    def name(self) -> str:
        if self.task is not None:
            return self.task.get_name()
        return self.label if self.label is not None else "a queued task"

    def abort(self, reason: str | None = None) -> None:
        loop = self._future.get_loop()
        if _get_running_loop() is loop:
            self._abort(reason)
        else:
            try:
                loop.call_soon_threadsafe(self._abort, reason)
            except RuntimeError:  # the loop is closed
                pass

    def _includes(self, task: asyncio.Task[Any] | None) -> bool:
        return task is not None and self.task is task

    def _abort(self, reason: str | None) -> None:
        if self.task is not None:
            request_cancel(self.task, reason)
        elif self._future.cancel(reason):
            self.coroutine.close()

    def ended(self, task: asyncio.Task[T]) -> None:
        future = self._future
        if task.cancelled():
            try:
                task.result()
            except CancelledError as cancelled:
                future.cancel(*cancelled.args)
        elif (error := task.exception()) is not None:
            future.set_exception(error)
            future.exception()  # the group reports it
        else:
            future.set_result(task.result())
