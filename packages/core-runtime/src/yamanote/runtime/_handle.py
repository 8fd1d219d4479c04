"""Handle: the way into a runtime from other threads.

Invariant: a coroutine that is brought becomes a task of the runtime, or the call raises and closes it, or its handle
says that the runtime was shut down first: nobody waits for ever for what will never run.

There is no lock. Who brings something schedules its start *and then* looks whether the runtime is ending; the runtime
says that it is ending *and then* runs what has been scheduled. Whoever claims the coroutine first has it.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from asyncio import CancelledError, _get_running_loop
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import Any, ParamSpec, TypeVar, final

from yamanote.runtime import _site
from yamanote.runtime._blocking import spawn_blocking
from yamanote.runtime._call import require_function
from yamanote.runtime._join import JoinError, JoinHandle
from yamanote.runtime._metrics import RuntimeMetrics, metrics
from yamanote.runtime._spawn import spawn
from yamanote.runtime._task import as_coroutine, fail, no_loop, request_cancel, start_anywhere, worker_of
from yamanote.runtime._waiter import Waiter, refuse_loop_thread

__all__ = ["Handle", "give_up_brought", "refuse_from_now_on"]

T = TypeVar("T")
P = ParamSpec("P")


@final
class Handle:
    """A runtime, seen from any thread: `Runtime.handle`, or `Handle.current` inside of it.

    It does not keep the runtime alive. Every method raises RuntimeError when that has been shut down, or belongs to
    the process that this one was forked from; a coroutine that it refuses is closed.

    **Threads:** every method but `current` may be called from any thread. The loop must be running, or come to run, in
    the thread of the runtime: while it stands still, what is brought waits; but of several workers, one that runs
    starts what has no `context`.

    >>> async def main():
    ...     handle = Handle.current()
    ...     def work():  # in a thread
    ...         return handle.block_on(asyncio.sleep(0, "slept"))
    ...     return await spawn_blocking(work)
    >>> run(main())
    'slept'
    """

    __slots__ = ("__weakref__", "_loop", "_process")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        _brought_to(loop)  # not by several threads at once
        self._process = os.getpid()

    @classmethod
    def current(cls) -> Handle:
        """The handle of the running loop. Raises RuntimeError where none runs."""
        loop = _get_running_loop()
        if loop is None:
            raise no_loop("Handle.current")
        return cls(loop)

    def spawn(self, coro: Awaitable[T], /, *, name: str | None = None, context: Context | None = None) -> JoinHandle[T]:
        """Start a task, and return its handle at once: the `spawn` of other threads.

        They start in the order in which they are brought. By default it runs in a copy of the caller's context.

        Raises TypeError for what cannot be awaited.
        """
        coroutine = as_coroutine(coro, "spawn")
        try:
            loop = self._running_loop()
        except BaseException:
            coroutine.close()
            raise
        if _get_running_loop() is loop:
            return spawn(coroutine, name=name, context=context)
        # A task that is given its context stays on this loop, so it is for nobody else.
        brought: _Brought[T] = _Brought(_running_one(loop) if context is None else loop)
        brought.bring(coroutine, name, context)
        return brought

    def block_on(self, awaitable: Awaitable[T], /) -> T:
        """Run `awaitable` in a task, and block the calling thread until that has ended; return its value.

        Raises what it raises, `JoinError` when it was cancelled, and RuntimeError in a thread that runs an event loop.
        On KeyboardInterrupt the task is cancelled and waited for; a second one is not waited for.
        """
        coroutine = as_coroutine(awaitable, "block_on")
        try:
            refuse_loop_thread()
            loop = self._running_loop()
        except BaseException:
            coroutine.close()
            raise
        # Before anything can start: KeyboardInterrupt may come at any moment.
        brought: _Brought[T] = _Brought(_running_one(loop))
        try:
            brought.bring(coroutine, None, None)
            return brought.result()
        except BaseException:
            if not brought.take_back(coroutine) and not brought.is_finished():
                brought.abort("whoever waits for it was interrupted")
                with suppress(Exception):  # it is raised where it has been interrupted
                    brought.result()
            raise
        finally:
            del brought  # an error refers to this frame, and this to the error

    def spawn_blocking(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> JoinHandle[T]:
        """Call `function` in a thread of the blocking pool, for the runtime: it waits for the call when it ends.

        Raises TypeError for what cannot be called.
        """
        require_function(function)

        async def call() -> T:
            return await spawn_blocking(function, *args, **kwargs)

        return self.spawn(call(), name=getattr(function, "__qualname__", None))

    def metrics(self) -> RuntimeMetrics:
        """What the runtime is doing, in numbers."""
        return metrics(self._running_loop())

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if os.getpid() != self._process:
            raise forked()
        loop = self._loop()
        if loop is None or loop.is_closed() or _is_ending(loop):
            raise shut_down_before()
        return loop

    def __repr__(self) -> str:
        loop = self._loop()
        if loop is None or loop.is_closed() or _is_ending(loop):
            state = "shut down"
        else:
            state = "running" if loop.is_running() else "standing still"
        return f"<Handle of a runtime that is {state}>"


def forked() -> RuntimeError:
    return RuntimeError("this runtime belongs to the process that this one was forked from: use run() or a new Runtime")


def shut_down_before() -> RuntimeError:
    return RuntimeError("this runtime has been shut down")


def refuse_from_now_on(loop: asyncio.AbstractEventLoop) -> None:
    """The runtime of `loop` is ending."""
    loop._yamanote_ending = True  # type: ignore[attr-defined]


def _is_ending(loop: asyncio.AbstractEventLoop) -> bool:
    return getattr(loop, "_yamanote_ending", False)


def _running_one(loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    """`loop`, or while that stands still one of another worker of its runtime, which goes on between the calls."""
    worker = worker_of(loop)
    if worker is None or loop.is_running():
        return loop
    # A thread may only just have been started: what is brought waits for it.
    return next((other.loop for other in worker.workers.all if other.thread is not None), loop)


def give_up_brought(loop: asyncio.AbstractEventLoop) -> None:
    """Tell those who wait for tasks that would not end. On `loop`."""
    for brought in _brought_to(loop).copy():
        brought.give_up()


def _brought_to(loop: asyncio.AbstractEventLoop) -> set[_Brought[Any]]:
    brought: set[_Brought[Any]] | None = getattr(loop, "_yamanote_brought", None)
    if brought is None:
        brought = loop._yamanote_brought = set()  # type: ignore[attr-defined]
    return brought


class _Brought(JoinHandle[T]):
    """The handle of a task that is made when the loop comes to it."""

    __slots__ = ("_claim", "_parked", "_task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop.create_future())
        if _site.recording:
            _site.remember_site(self._future)
        self._task: asyncio.Future[T] | None = None
        self._claim: list[None] = [None]
        self._parked: set[Waiter[Any]] = set()

    def bring(self, coroutine: Coroutine[Any, Any, T], name: str | None, context: Context | None) -> None:
        loop = self._future.get_loop()
        try:
            _brought_to(loop).add(self)
            # In a copy of the caller's context, which the task copies in its turn.
            loop.call_soon_threadsafe(self._start, coroutine, name, context)
            refused = _is_ending(loop)
        except RuntimeError:  # closed
            refused = True
        if refused and self.take_back(coroutine):
            raise shut_down_before()

    def take_back(self, coroutine: Coroutine[Any, Any, T]) -> bool:
        """Close the coroutine, unless it has been started, or closed: then False."""
        try:
            self._claim.pop()
        except IndexError:
            return False
        coroutine.close()
        _brought_to(self._future.get_loop()).discard(self)
        return True

    def abort(self, reason: str | None = None) -> None:
        try:
            self._future.get_loop().call_soon_threadsafe(self._abort, reason)  # behind its start
        except RuntimeError:  # closed
            pass

    def give_up(self) -> None:
        reason = "it would not end, and was left behind when the runtime was shut down"
        self._future.cancel(reason)
        # Not through the loop, which may never run again. Who comes later finds the future cancelled.
        for waiter in self._parked.copy():
            if waiter.claim():
                waiter.fail(JoinError(self.name, reason))

    def register(self, waiter: Waiter[Any], /) -> None:
        if not self._future.done():
            self._parked.add(waiter)
        super().register(waiter)

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        self._parked.discard(waiter)
        super().withdraw(waiter)

    @property
    def name(self) -> str:
        return "a task that has not started" if self._task is None else JoinHandle(self._task).name

    def _includes(self, task: asyncio.Task[Any] | None) -> bool:
        return self._task is not None and JoinHandle(self._task)._includes(task)

    def _start(self, coroutine: Coroutine[Any, Any, T], name: str | None, context: Context | None) -> None:
        loop = self._future.get_loop()
        if _is_ending(loop):
            if self.take_back(coroutine):
                self._future.cancel("the runtime was shut down before")
            return
        try:
            self._claim.pop()
        except IndexError:  # it has been taken back
            return
        self._task = task = start_anywhere(coroutine, name, context, False, "spawn")
        if (site := getattr(self._future, "_yamanote_site", None)) is not None:  # not this callback
            task._yamanote_site = site  # type: ignore[attr-defined]
        task.add_done_callback(self._ended)

    def _abort(self, reason: str | None) -> None:
        if self._task is not None:
            request_cancel(self._task, reason)

    def _ended(self, task: asyncio.Future[T]) -> None:
        _brought_to(task.get_loop()).discard(self)
        self._parked.clear()  # an error may refer to who waited, and that to this handle
        future = self._future
        if future.done():  # given up
            return
        if task.cancelled():
            try:
                task.result()
            except CancelledError as cancelled:
                future.cancel(*cancelled.args[:1])
        elif (error := task.exception()) is not None:
            fail(future, error)
        else:
            future.set_result(task.result())
