"""Tasks: starting them, keeping them alive, and waiting for them.

Invariant: a coroutine that is started has a task of its own before its first instruction; the task lives until it ends,
whether somebody keeps its handle or not; and how it ended reaches whoever awaits the handle, else the exception
handler of its loop, once. Cancelling who waits never touches what is waited for.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from asyncio import CancelledError, _get_running_loop
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from contextvars import Context
from functools import partial
from itertools import count, repeat
from types import CoroutineType
from typing import Any, Generic, TypeVar, overload

from yamanote.runtime._awaited_by import add_awaiter, discard_awaiter
from yamanote.runtime._waiter import Waiter, park, park_thread

__all__ = ["JoinError", "JoinHandle", "cancel_and_wait", "make_task", "spawn", "start_task"]

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T_co = TypeVar("T_co", covariant=True)

_CAN_START_EAGERLY = sys.version_info >= (3, 12)


class JoinError(Exception):
    """What was awaited through a handle has been cancelled, so there is no value.

    Not a CancelledError: whoever awaits the handle has not been cancelled.
    """

    name: str
    """Of the task that was cancelled."""
    reason: str | None
    """What its cancellation said."""

    def __init__(self, name: str, reason: str | None = None) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name} was cancelled" + (f": {self.reason}" if self.reason is not None else "")


def start_task(
    awaitable: Awaitable[T], *, name: str | None = None, context: Context | None = None, eager: bool = False
) -> asyncio.Task[T]:
    """Start a task on the running loop. It lives until it ends, whether somebody refers to it or not.

    With `eager` it runs at once up to its first wait, before this returns (on Python 3.11 it starts on the next turn
    all the same). For whoever builds combinators: `spawn` is the friendlier face.

    Raises TypeError for what cannot be awaited, RuntimeError where no loop runs.
    """
    return _start(awaitable, name, context, eager, "start_task")


def _start(
    awaitable: Awaitable[T], name: str | None, context: Context | None, eager: bool, caller: str
) -> asyncio.Task[T]:
    coroutine = as_coroutine(awaitable, caller)
    loop = _get_running_loop()
    if loop is None:
        coroutine.close()
        raise no_loop(caller)
    task = make_task(coroutine, loop, name, context, eager)
    if not task.done():
        tasks = tasks_of(loop)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    return task


def make_task(
    coroutine: Coroutine[Any, Any, T],
    loop: asyncio.AbstractEventLoop,
    name: str | None = None,
    context: Context | None = None,
    eager: bool = False,
) -> asyncio.Task[T]:
    """A bare task on `loop`, which must be running here: for who keeps a reference to it until it has ended.

    `start_task` needs no such care. With `eager` it runs at once up to its first wait (on Python 3.11 it starts on the
    next turn all the same). Never through a task factory: each Python version, and uvloop, has other ideas of its
    arguments.
    """
    if eager and _CAN_START_EAGERLY:
        return asyncio.Task(coroutine, loop=loop, name=name, context=context, eager_start=True)  # type: ignore[call-arg,unused-ignore]
    return asyncio.Task(coroutine, loop=loop, name=name, context=context)


def no_loop(caller: str) -> RuntimeError:
    """The error for `caller`, who needs a running loop and has none."""
    return RuntimeError(f"{caller}() needs a running event loop in this thread: call it inside `run(...)`")


def as_coroutine(awaitable: Awaitable[T], caller: str) -> Coroutine[Any, Any, T]:
    """The coroutine of `awaitable`, for `caller`, who gets a TypeError with advice for anything else."""
    if type(awaitable) is CoroutineType or isinstance(awaitable, Coroutine):
        return awaitable
    if inspect.isawaitable(awaitable):
        return _await(awaitable)
    advice = ""
    if callable(awaitable):
        label = getattr(awaitable, "__name__", "function")
        advice = f"; call it: {caller}({label}())"
    raise TypeError(f"{caller}() needs a coroutine or another awaitable, not {awaitable!r}{advice}")


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable


def tasks_of(loop: asyncio.AbstractEventLoop) -> set[object]:
    """What keeps unfinished tasks on `loop` alive, which itself refers to its tasks only weakly.

    The set is an attribute of the loop: it is touched by one thread only, and it goes when the loop goes.
    """
    tasks: set[object] | None = getattr(loop, "_yamanote_tasks", None)
    if tasks is None:
        tasks = set()
        loop._yamanote_tasks = tasks  # type: ignore[attr-defined]
    return tasks


class JoinHandle(Generic[T_co]):
    """A spawned task, for whoever wants its result, or wants it to stop.

    Await it for the value, or the error, of the task: as often as needed, from any task of any loop. `result` is the
    blocking form, for threads. An error that nobody ever asks for is reported once, by the exception handler of the
    loop. Handles may be dropped: the task goes on.

    Awaiting raises `JoinError` when the task was cancelled.

    **Cancel safety:** cancelling who awaits leaves the task alone; `abort` cancels the task.

    **Threads:** every method may be called from any thread.
    """

    __slots__ = ("__weakref__", "_delivery", "_future", "_reason")

    _future: asyncio.Future[T_co]
    _delivery: _Delivery | None

    def __init__(self, future: asyncio.Future[T_co]) -> None:
        self._future = future
        self._delivery = None
        self._reason: str | None = None

    def __await__(self) -> Generator[Any, None, T_co]:
        future = self._future
        if not future.done():
            if future.get_loop() is not _get_running_loop():
                return (yield from park(self).__await__())
            task = asyncio.current_task()
            if self._includes(task):
                raise RuntimeError("a task cannot wait for its own end")
            join = _Join(future)
            if add_awaiter is not None:
                add_awaiter(future, task)
            try:
                yield join
            finally:
                if discard_awaiter is not None:
                    discard_awaiter(future, task)
                del join, task  # a cancellation refers to this frame, and they to the cancellation
        try:
            return self._take()
        finally:
            # An error refers to this frame, and through what it knows would refer to itself.
            del self, future

    def result(self, timeout: float | None = None) -> T_co:
        """Block the calling thread until the task has ended; return its value.

        Raises what the task raised, JoinError when it was cancelled, TimeoutError after `timeout` seconds, and
        RuntimeError in a thread that runs an event loop, unless the task has ended already.
        """
        if not self._future.done():
            return park_thread(self, timeout)
        try:
            return self._take()
        finally:
            del self

    def abort(self, reason: str | None = None) -> None:
        """Ask the task to stop: CancelledError is raised where it waits. Does not wait until it has.

        Nothing happens when it has ended already; its value and its error stay what they were.
        """
        future = self._future
        if not future.done():
            cancel_task(future, reason)

    def is_finished(self) -> bool:
        """Whether the task has ended; its clean-up too."""
        return self._future.done()

    @property
    def id(self) -> int:
        """A number that no other handle has as long as this one lives."""
        return id(self._future)

    @property
    def name(self) -> str:
        """The name of the task."""
        future = self._future
        return future.get_name() if isinstance(future, asyncio.Task) else f"{type(self).__name__}-{id(future)}"

    def register(self, waiter: Waiter[Any], /) -> None:
        waiter.operation = callback = partial(self._settle, waiter)
        if not when_done(self._future, callback) and waiter.claim():
            waiter.fail(JoinError(self.name, "its event loop has been closed"))

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        if waiter.settled:
            if waiter.error is not None and self._delivery is not None:
                self._delivery.count -= 1
        else:
            _not_when_done(self._future, waiter)

    def _settle(self, waiter: Waiter[Any], future: asyncio.Future[Any]) -> None:
        waiter.operation = None  # it refers to the waiter
        if not waiter.claim():
            return
        if future.cancelled():
            waiter.fail(self._join_error())
        elif (error := future.exception()) is not None:
            self._delivered()
            waiter.fail(error)
        else:
            waiter.settle(future.result())

    def _take(self) -> T_co:
        future = self._future
        try:
            if future.cancelled():
                raise self._join_error()
            return future.result()
        except BaseException:
            if not future.cancelled():
                self._delivered()
            raise
        finally:
            del self, future

    def _includes(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether this is the handle of `task`."""
        return self._future is task

    def _delivered(self) -> None:
        if self._delivery is None:
            self._delivery = _Delivery(self._future)
        self._delivery.count += 1

    def _join_error(self) -> JoinError:
        if self._reason is None:
            try:
                self._future.result()
            except CancelledError as error:  # only the first one says why
                self._reason = error.args[0] if error.args else None
        return JoinError(self.name, self._reason)

    def __repr__(self) -> str:
        future = self._future
        if not future.done():
            state = "running"
        elif future.cancelled():
            state = "cancelled"
        else:
            state = "finished"
        return f"<{type(self).__name__} {self.name!r} {state}>"


class _End:
    """The end of `future`, for whoever does not want to know how it ended."""

    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self._future = future

    def register(self, waiter: Waiter[Any], /) -> None:
        waiter.operation = callback = partial(self._settle, waiter)
        if not when_done(self._future, callback):
            self._settle(waiter, self._future)  # it will never get any further

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        _not_when_done(self._future, waiter)

    def _settle(self, waiter: Waiter[Any], _: asyncio.Future[Any]) -> None:
        waiter.operation = None  # it refers to the waiter
        if waiter.claim():
            waiter.settle(None)


Callback = Callable[[asyncio.Future[Any]], object]


def when_done(future: asyncio.Future[Any], callback: Callback) -> bool:
    """Call `callback` as soon as `future` is done, now if it is; from another thread perhaps twice.

    False when its loop was closed before that.
    """
    if not future.done():
        loop = future.get_loop()
        if _get_running_loop() is loop:
            future.add_done_callback(callback)
            return True
        try:
            # If it is done by the time that this runs, the callback comes a turn later.
            loop.call_soon_threadsafe(future.add_done_callback, callback)
            closed = False
        except RuntimeError:
            closed = True
        # Look again: it may have been done since, and then its loop may have ended without coming to that.
        if not future.done():
            return not closed
    callback(future)
    return True


def _not_when_done(future: asyncio.Future[Any], waiter: Waiter[Any]) -> None:
    """Take back the callback that `waiter` has for its operation."""
    callback, waiter.operation = waiter.operation, None  # it refers to the waiter
    if future.done():
        return
    loop = future.get_loop()
    if _get_running_loop() is loop:
        future.remove_done_callback(callback)
        return
    try:
        loop.call_soon_threadsafe(future.remove_done_callback, callback)
    except RuntimeError:  # closed: no callback will come
        pass


class _Join:
    """What a task yields to wait for `future`: like the future itself, but cancelling it only ends the waiting.

    That is one loop turn less than a future of the waiter's own. And the waiter is woken without the outcome, so an
    error counts as delivered only when it takes it, not when a cancellation comes first.
    """

    __slots__ = ("_asyncio_future_blocking", "_cancelled", "_context", "_future", "_wake_up")

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self._future = future
        self._cancelled: CancelledError | None = None
        self._asyncio_future_blocking = True  # "this was yielded to be waited for": the protocol of asyncio's futures

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._future.get_loop()

    def add_done_callback(self, wake_up: Callable[[_Join], object], *, context: Context) -> None:
        self._wake_up = wake_up
        self._context = context
        self._future.add_done_callback(self._done, context=context)

    def cancel(self, msg: str | None = None) -> bool:
        if not self._future.remove_done_callback(self._done):
            return False  # done, and about to wake the task, which sees to it itself
        self._cancelled = CancelledError() if msg is None else CancelledError(msg)
        self._future.get_loop().call_soon(self._wake_up, self, context=self._context)
        return True

    def result(self) -> None:
        if self._cancelled is None:
            return
        try:
            raise self._cancelled
        finally:
            del self  # the error refers to this frame, and what it waited with to the error and to the task

    def _done(self, _: asyncio.Future[Any]) -> None:
        self._wake_up(self)


class _Delivery:
    """To how many the error of a task has been delivered. When it was given back by all, it is reported."""

    __slots__ = ("_future", "count")

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self._future = future
        self.count = 0

    def __del__(self) -> None:
        if not self.count:
            self._future.get_loop().call_exception_handler(
                {
                    "message": "Task exception was never retrieved",
                    "exception": self._future.exception(),
                    "future": self._future,
                }
            )


class _JoinAll(JoinHandle[list[Any]]):
    """The handle of several tasks: done when the last is done."""

    __slots__ = ("_left", "_tasks")

    def __init__(self, tasks: list[asyncio.Task[Any]], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop.create_future())
        self._tasks = tasks
        self._left = 1
        for task in tasks:
            if not task.done():
                self._left += 1
                task.add_done_callback(self._one_ended)
        tasks_of(loop).add(self)
        self._one_ended()

    def abort(self, reason: str | None = None) -> None:
        for task in self._tasks:
            if not task.done():
                cancel_task(task, reason)

    @property
    def name(self) -> str:
        return ", ".join(task.get_name() for task in self._tasks)

    def _includes(self, task: asyncio.Task[Any] | None) -> bool:
        return task in self._tasks

    def _one_ended(self, _: object = None) -> None:
        self._left -= 1
        if self._left:
            return
        tasks_of(self._future.get_loop()).discard(self)
        values = []
        for task in self._tasks:
            # Those behind the first that failed are not asked for their errors: asyncio reports them.
            if task.cancelled():
                self._future.set_exception(JoinHandle(task)._join_error())
                return
            if (error := task.exception()) is not None:
                self._future.set_exception(error)
                return
            values.append(task.result())
        self._future.set_result(values)


@overload
def spawn(  # pyright: ignore[reportOverlappingOverload]  # `spawn(*coros)` is the last one, for any length
    coro: Awaitable[T], /, *, name: str | None = None, context: Context | None = None, eager: bool = False
) -> JoinHandle[T]: ...
@overload
def spawn(
    coro1: Awaitable[T1],
    coro2: Awaitable[T2],
    /,
    *,
    name: str | None = None,
    context: Context | None = None,
    eager: bool = False,
) -> JoinHandle[list[T1 | T2]]: ...
@overload
def spawn(
    coro1: Awaitable[T1],
    coro2: Awaitable[T2],
    coro3: Awaitable[T3],
    /,
    *,
    name: str | None = None,
    context: Context | None = None,
    eager: bool = False,
) -> JoinHandle[list[T1 | T2 | T3]]: ...
@overload
def spawn(
    *coros: Awaitable[T], name: str | None = None, context: Context | None = None, eager: bool = False
) -> JoinHandle[list[T]]: ...
def spawn(
    *coros: Awaitable[Any], name: str | None = None, context: Context | None = None, eager: bool = False
) -> JoinHandle[Any]:
    """Start one coroutine, or several, each in a task of its own, and return a handle at once.

    They start on the next turn of the running loop, in order; with `eager` they run at once up to their first wait
    (on Python 3.11 they start on the next turn all the same). Nobody needs to keep the handle. Several tasks of one
    `name` are numbered.

    Awaiting the handle gives the value; for several the list of the values, in order, when all have ended. When some
    failed, it raises the error of the first in the order of the arguments; the others are reported by the loop's
    exception handler.

    Raises TypeError for what cannot be awaited, RuntimeError where no loop runs.

    >>> from yamanote.runtime import run, spawn
    >>> async def double(number):
    ...     return number * 2
    >>> async def example():
    ...     return await spawn(double(1), double(2))
    >>> run(example())
    [2, 4]
    """
    if len(coros) == 1:
        return JoinHandle(_start(coros[0], name, context, eager, "spawn"))
    coroutines = []
    try:
        for coro in coros:
            coroutines.append(as_coroutine(coro, "spawn"))
        loop = _get_running_loop()
        if loop is None:
            raise no_loop("spawn")
    except BaseException:
        for coro in coros:
            if isinstance(coro, Coroutine):
                coro.close()
        raise
    names = repeat(None) if name is None else (f"{name}-{number}" for number in count())
    tasks = [make_task(coro, loop, label, context, eager) for coro, label in zip(coroutines, names, strict=False)]
    return _JoinAll(tasks, loop)


def cancel_task(future: asyncio.Future[Any], reason: str | None) -> None:
    """Ask for cancellation, from any thread."""
    loop = future.get_loop()
    if _get_running_loop() is not loop:
        try:
            loop.call_soon_threadsafe(future.cancel, reason)
        except RuntimeError:  # the loop is closed: it will never run again
            pass
    elif future is asyncio.current_task():
        # A running task gets it at its next await. If it ends before, it keeps its value.
        loop.call_soon(future.cancel, reason)
    else:
        future.cancel(reason)


async def cancel_and_wait(*tasks: asyncio.Future[Any] | JoinHandle[Any], reason: str | None = None) -> None:
    """Cancel all `tasks` and wait until they have ended. Returns None however they end.

    What they raise while they are being cancelled stays with them: it can still be asked for, and is reported if
    nobody does.

    **Cancel safety:** when the caller is cancelled meanwhile, it still waits for them, and raises that at the end.

    Raises RuntimeError, before anything is cancelled, when the calling task is among them.
    """
    futures = [task._future if isinstance(task, JoinHandle) else task for task in tasks]
    current = asyncio.current_task()
    if current in futures or any(isinstance(task, JoinHandle) and task._includes(current) for task in tasks):
        raise RuntimeError("a task cannot cancel itself and wait for its own end")
    for task in tasks:
        if isinstance(task, JoinHandle):
            task.abort(reason)
        else:
            cancel_task(task, reason)
    await wait_for_end(futures)


async def wait_for_end(futures: Iterable[asyncio.Future[Any]]) -> None:
    """Wait until all `futures` are done, however they end, and however often the caller is cancelled meanwhile."""
    cancelled: CancelledError | None = None
    for future in futures:
        while not future.done():
            try:
                await park(_End(future))
                break  # done; or its loop is closed, and it will never get any further
            except CancelledError as error:
                cancelled = cancelled or error
    if cancelled is not None:
        try:
            raise cancelled
        finally:
            del cancelled
