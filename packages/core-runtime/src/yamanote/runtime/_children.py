"""Children: the tasks of a group, those that wait for their turns, and what becomes of their errors.

Invariant: at most `limit` children are active, and those that wait start in the order in which they were spawned. A
child is active until it has ended *and* its error has been dealt with. Once the group aborts, nothing starts any more,
and every child that runs has been cancelled, once. An error that is reported reaches one party: whoever awaits the
handle when the child fails; else the handler of the group; else the exception handler of the loop.
"""

from __future__ import annotations

import asyncio
import inspect
from abc import ABC, abstractmethod
from asyncio import CancelledError, _get_running_loop
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, TypeVarTuple, Unpack

from yamanote.runtime import _site
from yamanote.runtime._awaited_by import add_awaiter, discard_awaiter
from yamanote.runtime._cancel import cancel_and_wait
from yamanote.runtime._join import JoinHandle
from yamanote.runtime._queued import QueuedHandle
from yamanote.runtime._spawn import require_worker
from yamanote.runtime._started import Started
from yamanote.runtime._task import as_coroutine, make_task, place, request_cancel, worker_of

if TYPE_CHECKING:
    from yamanote.runtime._workers import Worker

__all__ = ["Children", "ErrorHandler", "was_taken"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

ErrorHandler = Callable[[Exception], object]
"""What gets the errors of a group that reports them; it may be an async function."""


class Children(ABC):
    """What all groups have in common. A group of its own kind says whom it admits, and how it ends."""

    __slots__ = (
        "__weakref__",
        "_aborting",
        "_active",
        "_children",
        "_cut_short",
        "_host",
        "_idle",
        "_limit",
        "_loop",
        "_name",
        "_on_error",
        "_queue",
        "_reason",
    )

    _policies: ClassVar[tuple[str, ...]] = ("report",)

    def __init__(self, on_error: str | ErrorHandler, limit: int | None, name: str | None) -> None:
        if not callable(on_error) and on_error not in self._policies:
            raise ValueError(f"on_error must be a function or one of {self._policies}, not {on_error!r}")
        if limit is not None:
            if isinstance(limit, bool) or not isinstance(limit, int):
                raise TypeError(f"limit must be a whole number, or None for no limit, not {limit!r}")
            if limit < 1:
                raise ValueError(f"limit must be at least 1, or None for no limit, not {limit!r}")
        self._on_error = on_error
        self._limit = limit
        self._name = name
        self._aborting = False
        self._reason: str | None = None  # for the abortion
        self._cut_short = False  # whether the abortion has ended anything
        self._loop: asyncio.AbstractEventLoop | None = None
        self._host: asyncio.Task[Any] | None = None  # who waits for the children, if that is one task
        self._active = 0
        # In the order in which they were started, which is the order in which they are cancelled.
        self._children: dict[asyncio.Future[Any], JoinHandle[Any]] = {}
        self._queue: OrderedDict[QueuedHandle[Any], None] = OrderedDict()  # none that has been aborted
        self._idle: asyncio.Future[None] | None = None

    def spawn(
        self,
        coro: Awaitable[T],
        /,
        *,
        name: str | None = None,
        context: Context | None = None,
        eager: bool = False,
        on: int | None = None,
    ) -> JoinHandle[T]:
        """Start a child, and return its handle at once; above the limit it waits for its turn, first in, first out.

        `eager` and `on` are those of `yamanote.runtime.spawn`; only a child that need not wait starts eagerly. In a
        group that is being cancelled the child is cancelled before its first instruction.

        In a runtime with several workers, tasks on all of them may spawn. From another worker than the group's own this
        goes through the loop of the group, and then nothing starts eagerly; a group that ends meanwhile tells so
        through the handle.

        Awaiting the handle of a failed child raises its error.

        Raises TypeError for what cannot be awaited, RuntimeError when the group takes no children, or belongs to
        another loop, ValueError for a worker that there is not, and for `eager` on another one than the group's own.
        """
        loop = _get_running_loop()
        if loop is not self._loop and self._is_abroad(loop):
            coroutine = as_coroutine(coro, "spawn")
            if on is not None:
                self._require_worker(on, eager, coroutine)
            return self._send(coroutine, name, context, on)
        coroutine = self._admit(coro, "spawn", loop)
        if on is not None:
            self._require_worker(on, eager, coroutine)
        if self._limit is not None and self._active >= self._limit:
            return self._enqueue(self._queued(coroutine, name, context, on))
        return self._start(coroutine, name, context, eager, on)

    def try_spawn(
        self,
        coro: Awaitable[T],
        /,
        *,
        name: str | None = None,
        context: Context | None = None,
        eager: bool = False,
        on: int | None = None,
    ) -> JoinHandle[T] | None:
        """Like `spawn`, but return None, and close the coroutine, when the limit is reached.

        Only on the group's own loop.
        """
        coroutine = self._admit(coro, "try_spawn", _get_running_loop())
        if on is not None:
            self._require_worker(on, eager, coroutine)
        if self._limit is not None and self._active >= self._limit:
            coroutine.close()
            return None
        return self._start(coroutine, name, context, eager, on)

    async def start(
        self,
        function: Callable[[Started[T], Unpack[Ts]], Awaitable[object]],
        /,
        *args: *Ts,
        name: str | None = None,
        on: int | None = None,
    ) -> T:
        """Start ``function(started, *args)`` as a child, and wait until it calls ``started(value)``; return the value.

        The child goes on in the group. What it raises before it is ready is raised here, and does not fail the group.
        Above the limit it waits for its turn first.

        Raises RuntimeError when the child ends without having called it, JoinError when it is cancelled before, and
        what `spawn` raises.

        **Cancel safety:** when the call is cancelled, so is this child, even if it has just become ready; the
        cancellation goes on when it has ended.

        >>> from yamanote.runtime import Started, TaskGroup, run
        >>> async def serve(started: Started[int], port: int) -> None:
        ...     started(port)
        ...     await asyncio.sleep(3600)
        >>> async def example():
        ...     async with TaskGroup() as group:
        ...         port = await group.start(serve, 8080)
        ...         group.cancel()
        ...     return port
        >>> run(example())
        8080
        """
        if not callable(function):
            if inspect.iscoroutine(function):
                function.close()
            raise TypeError(f"start() needs an async function, to which it gives `started`, not {function!r}")
        started: Started[T] = Started()
        handle = self.spawn(started.follow(function, args), name=name, on=on)
        try:
            return await started.wait_for(handle)
        except CancelledError:
            await cancel_and_wait(handle)
            raise
        except GeneratorExit:  # thrown away, and cannot wait any more
            handle.abort()
            raise

    @abstractmethod
    def _admit(self, coro: Awaitable[T], method: str, loop: asyncio.AbstractEventLoop | None) -> Coroutine[Any, Any, T]:
        """The coroutine of `coro`, if the group takes children now, and from `loop`, which is running here."""

    def _start(
        self,
        coroutine: Coroutine[Any, Any, T],
        name: str | None,
        context: Context | None,
        eager: bool,
        on: int | None,
        queued: QueuedHandle[T] | None = None,
    ) -> JoinHandle[T]:
        assert self._loop is not None
        worker: Worker | None = getattr(self._loop, "_yamanote_worker", None)  # `worker_of`, without a call
        task: asyncio.Future[T]
        self._active += 1  # from its first instruction, which it may run in here
        try:
            if (
                worker is None
                or self._aborting  # it is not to begin: elsewhere it might, before it is cancelled
                or on == worker.number
                or (on is None and (worker.ending or (queued is None and (eager or context is not None))))
            ):
                task = make_task(coroutine, self._loop, name, context, eager and not self._aborting)
            elif on is None:
                task = place(worker, coroutine, name, context)
            else:
                task = worker.place_on(worker.workers.all[on], coroutine, name, context)
        except BaseException as error:  # what stops the loop, in a first step
            if queued is None:
                self._active -= 1
            else:
                queued.failed(error)
                self._failed_with(error, queued)
                self._leave()
            raise
        handle: JoinHandle[T]
        if queued is not None:
            handle = queued
            queued.task = task
        else:
            handle = JoinHandle(task)
            if eager and task.done():
                self._finished(task, handle)
                return handle
        self._children[task] = handle
        if add_awaiter is not None and self._host is not None:
            add_awaiter(task, self._host)
        task.add_done_callback(self._finished)
        if self._aborting:
            task.cancel(self._reason)
        return handle

    def _require_worker(self, on: int, eager: bool, coroutine: Coroutine[Any, Any, Any]) -> None:
        assert self._loop is not None
        try:
            require_worker(on, self._loop, eager)
        except BaseException:
            coroutine.close()
            raise

    def _queued(
        self, coroutine: Coroutine[Any, Any, T], name: str | None, context: Context | None, on: int | None
    ) -> QueuedHandle[T]:
        if context is None:  # it starts in a callback, whose context is another
            context = copy_context()
        elif on is None and (worker := worker_of(self._loop)) is not None:
            on = worker.number
        handle = QueuedHandle(asyncio.Future(loop=self._loop), self._queue, coroutine, name, context, on)
        if _site.recording:
            _site.remember_site(handle._future)
        return handle

    def _enqueue(self, handle: QueuedHandle[T]) -> QueuedHandle[T]:
        self._queue[handle] = None
        if self._aborting:
            handle.abort(self._reason)
        return handle

    # ---------------------------------------------------------------- from other workers of the runtime

    @abstractmethod
    def _is_abroad(self, loop: asyncio.AbstractEventLoop | None) -> bool:
        """Whether a child that is spawned on `loop` has to be sent to the group's own."""

    def _is_colleague(self, loop: asyncio.AbstractEventLoop | None) -> bool:
        """Whether `loop` is that of another worker of the group's runtime."""
        ours, other = worker_of(self._loop), worker_of(loop)
        return ours is not None and other is not None and ours.workers is other.workers

    def _send(
        self, coroutine: Coroutine[Any, Any, T], name: str | None, context: Context | None, on: int | None
    ) -> JoinHandle[T]:
        assert self._loop is not None
        handle = self._queued(coroutine, name, context, on)
        try:
            # Its own end goes the same way, so a child that sends another keeps the group open for it.
            self._loop.call_soon_threadsafe(self._arrived, handle)
        except RuntimeError:  # closed
            coroutine.close()
            raise
        return handle

    def _arrived(self, handle: QueuedHandle[Any]) -> None:
        try:
            _ = self._admit(handle.coroutine, "spawn", self._loop)
        except RuntimeError as refusal:
            if not handle._future.done():
                handle._future.set_exception(refusal)
            return
        if self._limit is not None and self._active >= self._limit:
            self._enqueue(handle)
        elif not handle._future.done():
            self._start(handle.coroutine, handle.label, handle.context, False, handle.on, handle)

    def _finished(self, task: asyncio.Future[T], handle: JoinHandle[T] | None = None) -> None:
        if handle is None:  # else it has ended where it was started
            handle = self._children.pop(task)
            if type(handle) is QueuedHandle:
                handle.ended(task)  # before the group, which may go on from here
            if discard_awaiter is not None and self._host is not None:
                discard_awaiter(task, self._host)
        if task.cancelled():
            self._cut_short = self._cut_short or self._aborting
        else:
            error = task.exception()
            if error is not None and self._failed_with(error, handle):
                return
        self._leave()

    def _leave(self) -> None:
        """A child is over and done with."""
        self._active -= 1
        if self._queue and not self._aborting:
            queued, _ = self._queue.popitem(last=False)
            # At once: nobody else runs now, and a turn of the loop costs more than most children do.
            self._start(queued.coroutine, queued.label, queued.context, True, queued.on, queued)
        elif not self._active and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _abort(self, reason: str | None) -> None:
        if self._aborting:
            return
        self._aborting = True
        self._reason = reason
        for queued in list(self._queue):
            self._cut_short = True
            queued.abort(reason)
        for child in list(self._children):
            request_cancel(child, reason)

    # ---------------------------------------------------------------- errors that are reported

    def _failed_with(self, error: BaseException, handle: JoinHandle[Any]) -> bool:
        """A child has failed. Tell whether it stays active, until `_leave`."""
        assert self._loop is not None
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            return False  # it has come out of the loop itself
        if not isinstance(error, Exception):
            handle._delivered()
            self._tell_loop(f"{handle.name!r}, a child of {self!r}, failed", error)
            return False
        # Whoever awaits the handle was put into the loop's queue when the child ended: they come before this.
        self._loop.call_soon(self._report, error, handle)
        return True

    def _report(self, error: Exception, handle: JoinHandle[Any]) -> None:
        if not was_taken(handle):
            handle._delivered()
            if not callable(self._on_error):
                self._tell_loop(f"{handle.name!r}, a child of {self!r}, failed", error)
            elif self._call_handler(self._on_error, error):
                return
        self._leave()

    def _call_handler(self, handler: ErrorHandler, error: Exception) -> bool:
        """Tell whether it goes on, as a task, in the place of the child that failed."""
        assert self._loop is not None
        try:
            result = handler(error)
        except (KeyboardInterrupt, SystemExit):
            self._leave()
            raise
        except BaseException as failure:
            self._tell_loop(f"the error handler of {self!r} failed", failure, error)
            return False
        if not inspect.isawaitable(result):
            return False
        task = make_task(as_coroutine(result, "on_error"), self._loop)
        self._children[task] = JoinHandle(task)
        task.add_done_callback(partial(self._handled, error))
        if self._aborting:
            task.cancel(self._reason)
        return True

    def _handled(self, error: Exception, task: asyncio.Task[Any]) -> None:
        del self._children[task]
        if task.cancelled():
            self._tell_loop(f"a child of {self!r} failed, and the handler of its error was cancelled", error)
        elif (failure := task.exception()) is not None:
            self._tell_loop(f"the error handler of {self!r} failed", failure, error)
        self._leave()

    def _tell_loop(self, message: str, error: BaseException, context: Exception | None = None) -> None:
        assert self._loop is not None
        if error.__context__ is None and error is not context:
            error.__context__ = context
        self._loop.call_exception_handler({"message": message, "exception": error})

    def __repr__(self) -> str:
        label = "" if self._name is None else f" {self._name!r}"
        waiting = f" queued={len(self._queue)}" if self._queue else ""
        return f"<{type(self).__name__}{label} {self._describe()} running={self._active}{waiting}>"

    @abstractmethod
    def _describe(self) -> str:
        """Its state, in a word."""


def was_taken(handle: JoinHandle[Any]) -> bool:
    """Whether somebody has got the error of a task through its handle."""
    return handle._delivery is not None and handle._delivery.count > 0
