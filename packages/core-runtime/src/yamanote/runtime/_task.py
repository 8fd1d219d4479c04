"""Tasks: starting them, and keeping them alive.

Invariant: a coroutine that is started has a task of its own before its first instruction; the task lives until it ends,
whether somebody refers to it or not.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from asyncio import Task, _get_running_loop
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from types import CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from yamanote.runtime import _site
from yamanote.runtime._eager_start import start_now

if TYPE_CHECKING:  # its module needs this one
    from yamanote.runtime._workers import Worker

__all__ = ["make_task", "request_again", "start_task"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

CAN_START_EAGERLY = sys.version_info >= (3, 12)


def start_task(
    awaitable: Awaitable[T], *, name: str | None = None, context: Context | None = None, eager: bool = False
) -> asyncio.Task[T]:
    """Start a task on the running loop. It lives until it ends, whether somebody refers to it or not.

    With `eager` it runs at once up to its first wait, before this returns. For whoever builds combinators: `spawn` is
    the friendlier face.

    Raises TypeError for what cannot be awaited, RuntimeError where no loop runs.
    """
    return start(awaitable, name, context, eager, "start_task")


def start(
    awaitable: Awaitable[T], name: str | None, context: Context | None, eager: bool, caller: str
) -> asyncio.Task[T]:
    """`start_task` for `caller`, whom its errors name."""
    coroutine = awaitable if type(awaitable) is CoroutineType else as_coroutine(awaitable, caller)
    loop = _get_running_loop()
    if loop is None:
        coroutine.close()
        raise no_loop(caller)
    task = make_task(coroutine, loop, name, context, eager)
    if not task.done():
        tasks = tasks_of(loop)
        tasks.add(task)
        task.add_done_callback(tasks.discard, context=tasks.context)
    return task


def start_anywhere(
    awaitable: Awaitable[T], name: str | None, context: Context | None, eager: bool, caller: str
) -> asyncio.Future[T]:
    """`start`, or, in a runtime with several workers, what stands for the task that one of them will make.

    Who gives it a context may give the same to another one, and two threads cannot be in it: then it stays here.
    """
    worker = worker_of(_get_running_loop())
    if worker is None or worker.ending or eager or context is not None:
        return start(awaitable, name, context, eager, caller)
    return place(worker, as_coroutine(awaitable, caller), name, None)


def place(
    worker: Worker, coroutine: Coroutine[Any, Any, T], name: str | None, context: Context | None
) -> asyncio.Future[T]:
    """Have `coroutine`, which is spawned where `worker` is, started by whichever is free; or where its future is.

    A future can be awaited on its own loop only.
    """
    if getattr(coroutine, "cr_code", None) is not _await.__code__:
        return worker.place(coroutine, name, context)
    awaitable = inspect.getcoroutinelocals(coroutine)["awaitable"]
    if not asyncio.isfuture(awaitable):
        return worker.place(coroutine, name, context)
    home = worker_of(awaitable.get_loop())
    if home is None or home.workers is not worker.workers:
        home = worker  # where it fails as it does with one worker
    return worker.place_on(home, coroutine, name, context)


def worker_of(loop: asyncio.AbstractEventLoop | None) -> Worker | None:
    """Who starts what is spawned on `loop`, in a runtime with several workers."""
    return getattr(loop, "_yamanote_worker", None)


def make_task(
    coroutine: Coroutine[Any, Any, T],
    loop: asyncio.AbstractEventLoop,
    name: str | None = None,
    context: Context | None = None,
    eager: bool = False,
) -> asyncio.Task[T]:
    """A bare task on `loop`, which must be running here: for who keeps a reference to it until it has ended.

    `start_task` needs no such care. With `eager` it runs at once up to its first wait. Never through a task factory:
    each Python version, and uvloop, has other ideas of its arguments.
    """
    try:
        loop._yamanote_spawned += 1  # type: ignore[attr-defined]
    except AttributeError:
        loop._yamanote_spawned = 1  # type: ignore[attr-defined]
    if eager and CAN_START_EAGERLY:
        task = Task(coroutine, loop=loop, name=name, context=context, eager_start=True)  # type: ignore[call-arg,unused-ignore]
    elif eager:
        task = start_now(coroutine, loop, name, context)
    else:
        task = Task(coroutine, loop=loop, name=name, context=context)
    if _site.recording:
        _site.remember_site(task)
    return task


def count_spawned(loop: asyncio.AbstractEventLoop, count: int) -> None:
    """So many tasks have been made on `loop`, which runs here, and not by `make_task`."""
    loop._yamanote_spawned = spawned_on(loop) + count  # type: ignore[attr-defined]


def spawned_on(loop: asyncio.AbstractEventLoop) -> int:
    """How many tasks `make_task` has made on `loop` so far."""
    return getattr(loop, "_yamanote_spawned", 0)


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
    elif isinstance(awaitable, GeneratorType):
        advice = "; for functions that yield what they wait for there is yamanote.runtime.generators"
    raise TypeError(f"{caller}() needs a coroutine or another awaitable, not {awaitable!r}{advice}")


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable


class Tasks(set[object]):
    """What keeps the unfinished tasks of a loop alive, which itself refers to its tasks only weakly."""

    __slots__ = ("context",)

    def __init__(self) -> None:
        super().__init__()
        # For `discard`, which looks at no variable: it would get a copy of the caller's context for each task. And not
        # one for all loops: two threads cannot be in the same context.
        self.context = Context()


def tasks_of(loop: asyncio.AbstractEventLoop) -> Tasks:
    """The `Tasks` of `loop`: an attribute of it, so one thread only touches them, and they go when the loop goes."""
    try:
        return loop._yamanote_tasks  # type: ignore[attr-defined,no-any-return]
    except AttributeError:
        tasks = Tasks()
        loop._yamanote_tasks = tasks  # type: ignore[attr-defined]
        return tasks


def request_cancel(
    future: asyncio.Future[Any], reason: str | None, loop: asyncio.AbstractEventLoop | None = None
) -> None:
    """Ask for cancellation, from any thread. Without its `loop`, free-threaded Python waits for the step of a task."""
    loop = loop or future.get_loop()
    if _get_running_loop() is loop and future is asyncio.current_task():
        # A running task gets it at its next await. If it ends before, it keeps its value.
        loop.call_soon(_cancel_now, future, reason)
    else:
        on_loop(loop, _cancel_now, future, reason)


def _cancel_now(future: asyncio.Future[Any], reason: str | None) -> None:
    # To cancel one that has failed meanwhile would do nothing but keep asyncio from reporting its error.
    if not future.done():
        future.cancel(reason)


def request_again(task: asyncio.Task[Any], requests: int) -> None:
    """Cancel the running `task` once more, at its next await: an error has taken the place of its CancelledError.

    For blocks that raise an error instead. Nothing happens if whoever asked has taken that back by then, as a timeout
    around the block does: `task.cancelling()` has to be more than these `requests`, which there were before the block.
    They stay as many.

    **Threads:** for the thread of the task.
    """
    # In a callback, as on 3.11 and 3.12 nothing takes back what has been asked of a running task.
    task.get_loop().call_soon(_request_again_now, task, requests)


def _request_again_now(task: asyncio.Task[Any], requests: int) -> None:
    if task.cancelling() > requests and not task.done():  # see `_cancel_now`
        task.uncancel()
        task.cancel()


def fail(future: asyncio.Future[Any], error: BaseException) -> None:
    """Have `future` end with the `error` of a task that it stands for."""
    future.set_exception(error)
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        future.exception()  # it has come out of the loop of the task, and is not reported once more


def on_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[*Ts], object], *args: *Ts) -> None:
    """Call it in the thread of `loop`: now, if that is this one. On a closed loop nothing will ever run again."""
    if _get_running_loop() is loop:
        callback(*args)
        return
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:  # closed
        pass
