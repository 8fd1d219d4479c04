"""Thread loops: an event loop of its own for an awaitable, in a thread of its own.

Invariant: whoever waits for a thread loop goes on only when the awaitable, its loop and its thread have ended, whatever
happens meanwhile. Each request to cancel it is passed on once, to be thrown where the awaitable waits.

The threads are daemons: the end of the program cancels those that nobody has cancelled, and waits for them, but not for
ever, and not for those that somebody has waited for in vain.
"""

from __future__ import annotations

import asyncio
import atexit
import inspect
import logging
import sys
from asyncio import CancelledError
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from threading import Thread, current_thread
from traceback import format_stack
from typing import Any, Generic, TypeVar

from yamanote.runtime import JoinError, JoinHandle, Outcome, cancel_and_wait, run, start_task, yield_now
from yamanote.sync import Event

__all__ = [
    "LoopThread",
    "call_target",
    "discard",
    "label_of",
    "launch_in_thread_loop",
    "require_target",
    "run_in_thread_loop",
]

T = TypeVar("T")

_EXIT_SECONDS = 10.0

_logger = logging.getLogger("yamanote")


def run_in_thread_loop(
    target: Awaitable[T] | Callable[[], Awaitable[T]], /, *, name: str | None = None
) -> Coroutine[Any, Any, T]:
    """Run `target` on a new event loop in a new thread, and return what it returns.

    `target` is a coroutine, another awaitable that belongs to no loop yet, or a function of no arguments which returns
    one: it is called in the new thread. It sees the context variables of the caller; what it sets stays there. `name`
    is the name of the thread. Tasks that are left over when `target` ends are cancelled and awaited.

    Raises what `target` raises, and JoinError when `target` was cancelled from within. TypeError for what is neither an
    awaitable nor callable, ValueError for what belongs to a loop already: both at the call.

    **Cancel safety:** a cancellation is passed on to `target` and raised when that has ended, its `finally` blocks too.
    A value which it returns in spite of that is lost; an error is raised instead of the cancellation.

    **Threads:** call it wherever an event loop runs. What `target` uses must not be bound to the caller's loop.

    >>> import threading
    >>> from yamanote.runtime import run
    >>> from yamanote.threads import run_in_thread_loop
    >>> async def where() -> str:
    ...     return threading.current_thread().name
    >>> async def main() -> str:
    ...     return await run_in_thread_loop(where(), name="aside")
    >>> run(main())
    'aside'
    """
    require_target(target)
    return _run_in_thread_loop(target, name)


async def _run_in_thread_loop(target: Awaitable[T] | Callable[[], Awaitable[T]], name: str | None) -> T:
    thread = LoopThread(target, name)
    thread.start()
    try:
        return await thread.join()
    except CancelledError:
        if thread.cancel_requested:
            raise
    # Nobody has cancelled the caller, who must not look as if somebody had.
    raise JoinError(label_of(target))


def launch_in_thread_loop(
    target: Awaitable[T] | Callable[[], Awaitable[T]], /, *, name: str | None = None
) -> Coroutine[Any, Any, JoinHandle[T]]:
    """Start `target` on a new event loop in a new thread; return its handle when it has made its first step there.

    It takes what `run_in_thread_loop` takes, and the handle is as that of `yamanote.runtime.spawn`: await it for what
    the target returns or raises, from any loop or thread; `abort` it; or drop it. The handle is finished when the
    thread has ended. A target that is still running when the caller's runtime ends is cancelled and awaited with the
    tasks of that.

    Raises what `run_in_thread_loop` raises at the call. What the target raises, be it in its first step, is the
    handle's.

    **Cancel safety:** when it is cancelled while the target starts, that is cancelled too, and has ended when the
    cancellation is raised.

    >>> from yamanote.threads import launch_in_thread_loop
    >>> async def answer() -> int:
    ...     return 42
    >>> async def main() -> int:
    ...     handle = await launch_in_thread_loop(answer())
    ...     return await handle
    >>> run(main())
    42
    """
    require_target(target)
    return _launch_in_thread_loop(target, name)


async def _launch_in_thread_loop(target: Awaitable[T] | Callable[[], Awaitable[T]], name: str | None) -> JoinHandle[T]:
    thread = LoopThread(target, name)
    thread.start()
    # A task of the caller's loop stands for the thread, so it is seen, cancelled and awaited as all others are.
    handle = JoinHandle(start_task(thread.join(), name=thread.name, eager=True))
    try:
        await thread.begun.wait()
    except CancelledError:
        await cancel_and_wait(handle)
        raise
    except GeneratorExit:  # thrown away, and cannot wait any more
        handle.abort()
        raise
    return handle


class LoopThread(Generic[T]):
    """A thread that runs `target` on a loop of its own. `start` it and wait for its end, in the same thread, once."""

    begun: Event
    """Set when `target` has made its first step, or when it says so itself, if it `announces` that; or has ended."""
    cancel_requested: bool
    name: str

    def __init__(
        self, target: Awaitable[T] | Callable[[], Awaitable[T]], name: str | None, *, announces: bool = False
    ) -> None:
        self.begun = Event()
        self.cancel_requested = False
        self.name = name or f"loop of {label_of(target)}"
        self._target = target
        self._announces = announces
        self._ended = Event()
        self._outcome: Outcome[T] | None = None
        self._requests: deque[Any] = deque()
        self._task: asyncio.Task[Any] | None = None

    def start(self) -> None:
        """Raises RuntimeError when the system has no more threads; then `target` is closed."""
        # On free-threaded builds a thread inherits a context, on the others it gets an empty one: neither is a copy.
        self.thread = Thread(target=copy_context().run, args=(self._run,), name=self.name, daemon=True)
        _running.add(self)
        try:
            self.thread.start()
        except BaseException:
            _running.discard(self)
            discard(self._target)
            raise

    def cancel(self, reason: object = None) -> None:
        """Cancel `target`, from any thread; once more at each call."""
        self.cancel_requested = True
        self._requests.append(reason)
        task = self._task
        if task is not None:  # else it has not begun, or has ended
            try:
                task.get_loop().call_soon_threadsafe(self._pass_on, task)
            except RuntimeError:  # that loop is closed already: it has ended
                pass

    async def join(self) -> T:
        """Wait for the end, and return or raise what `target` did, its cancellation too."""
        cancelled = await self.end()
        outcome = self.take_outcome()
        try:
            if cancelled is not None and (outcome.error is None or outcome.cancelled):
                raise cancelled
            return outcome.unwrap()
        finally:
            del cancelled, outcome  # no reference cycle with the traceback

    async def end(self) -> CancelledError | None:
        """Wait for the end. Pass on each cancellation that comes meanwhile, and return the last one."""
        cancelled: CancelledError | None = None
        while not self._ended.is_set():
            try:
                await self._ended.wait()
            except CancelledError as error:
                cancelled = error
                self.cancel(*error.args[:1])
            except GeneratorExit:  # thrown away, and cannot wait any more: the end of the program does
                self.cancel()
                self.cancel_requested = False
                raise
        self.thread.join()  # it has nothing left to do: a matter of microseconds
        try:
            return cancelled
        finally:
            del cancelled

    def blocking_end(self, ask: Callable[[], object]) -> BaseException | None:
        """`end`, for plain threads: a KeyboardInterrupt counts as a cancellation. The second one is not waited for.

        `ask` makes the thread come to its end. It is called in here, where it can be interrupted as well, and again.
        """
        interruption: BaseException | None = None
        try:
            while not self._ended.is_set():
                try:
                    ask()
                    self._ended.blocking_wait()
                except BaseException as error:
                    if interruption is not None:
                        raise
                    interruption = error
                    self.cancel("whoever waits for it was interrupted")
            self.thread.join()
            return interruption
        finally:
            del interruption

    def take_outcome(self) -> Outcome[T]:
        """How `target` has ended. Can be asked for once: an error refers to frames that refer to this thread."""
        outcome, self._outcome = self._outcome, None
        assert outcome is not None
        return outcome

    # ---------------------------------------------------------------- in the thread

    def _run(self) -> None:
        try:
            self._outcome = run(self._main())
        except BaseException as error:
            self._outcome = Outcome.failed(error)
        self._task = None
        discard(self._target)
        self.begun.set()
        _running.discard(self)
        self._ended.set()

    async def _main(self) -> Outcome[T]:
        task = asyncio.current_task()
        assert task is not None
        # Published, then looked: `cancel` appends, then looks whether there is a task. One of the two sees the other.
        self._task = task
        try:
            if self._requests:
                self._pass_on(task)
                await yield_now()
            if not self._announces:
                task.get_loop().call_soon(self.begun.set)  # after this step
            del task  # it will refer to the outcome, and through that to this frame
            target = self._target
            return Outcome.ok(await (target if inspect.isawaitable(target) else call_target(target)))
        except BaseException as error:
            # Raised, it would refer to the frames of the runtime, which refer to the task, and that to the error. And
            # a KeyboardInterrupt of another task has ended the loop by now: nobody would ask this one for it again.
            return Outcome.failed(error)

    def _pass_on(self, task: asyncio.Task[Any]) -> None:
        while self._requests:
            task.cancel(self._requests.popleft())


def require_target(target: object) -> None:
    """Refuse what cannot be run on another loop."""
    if inspect.isawaitable(target):
        if asyncio.isfuture(target):
            raise ValueError(f"target belongs to an event loop already: {target!r}; pass the coroutine instead")
        if inspect.iscoroutine(target) and inspect.getcoroutinestate(target) != inspect.CORO_CREATED:
            raise ValueError(f"target has been awaited already: {target!r}")
    elif not callable(target):
        raise TypeError(f"target must be an awaitable or a function that returns one, not {target!r}")


async def call_target(function: Callable[[], Awaitable[T]]) -> T:
    """Call a function that was given in place of an awaitable."""
    awaitable = function()
    if not inspect.isawaitable(awaitable):
        raise TypeError(f"{label_of(function)}() must return an awaitable, not {awaitable!r}")
    return await awaitable


def label_of(target: object) -> str:
    """What names `target` where the caller did not."""
    return getattr(target, "__qualname__", None) or type(target).__qualname__


def discard(target: object) -> None:
    """Close `target` if it is a coroutine that has never started."""
    if inspect.iscoroutine(target) and inspect.getcoroutinestate(target) == inspect.CORO_CREATED:
        target.close()


_running: set[LoopThread[Any]] = set()


def _end_all() -> None:
    """At the end of the program, when its other threads have ended."""
    running = [loop for loop in _running.copy() if loop.thread.is_alive() and loop.thread is not current_thread()]
    forgotten = [loop for loop in running if not loop.cancel_requested]
    for loop in forgotten:
        _logger.warning("the program ended before the thread %r, whose loop is cancelled", loop.name)
        loop.cancel("the program ends")
    for loop in forgotten:
        loop.thread.join(_EXIT_SECONDS)
    for loop in running:
        frame = sys._current_frames().get(loop.thread.ident or 0)
        if frame is not None:
            lines = "".join(format_stack(frame))
            _logger.warning("the thread %r has not ended, and is left behind:\n%s", loop.name, lines)


atexit.register(_end_all)
