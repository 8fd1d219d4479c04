"""Runtime: an event loop with a beginning and an end, which stands still between calls.

Invariant: the loop runs only inside `run_until_complete` and `shutdown`; in between, tasks stay where they are. Once it
is shut down nothing that it started is left: every task has ended, the asynchronous generators and the loop are
closed; or the log says what would not end within the budget.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import warnings
from asyncio import AbstractEventLoop, _get_running_loop
from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack
from contextvars import Context, copy_context
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from yamanote.runtime._clock import Clock
from yamanote.runtime._handle import Handle, forked, shut_down_before
from yamanote.runtime._interrupt import Interrupts, as_signals, is_main_thread
from yamanote.runtime._join import JoinHandle
from yamanote.runtime._loop import EventLoop, has_gil
from yamanote.runtime._placed import Placed
from yamanote.runtime._shutdown import abandon, shut_down
from yamanote.runtime._signals import stop_listening
from yamanote.runtime._task import as_coroutine, make_task
from yamanote.runtime._workers import GRACE, Workers

__all__ = ["Runtime"]

T = TypeVar("T")


class Runtime:
    """An event loop, by hand: ``with Runtime() as runtime: runtime.run_until_complete(main())``, as often as needed.

    Tasks live on between the calls, while the loop stands still, and so do the context variables that a call has set.
    At the end of the block `shutdown` ends them. The options are those of `run`, which is the friendlier face.

    With several `workers`, the first runs in the calls; the others have threads of their own from the first call on,
    and go on between the calls: then they start what is spawned. On free-threaded Python the first is one of them. A
    runtime that is dropped without `shutdown` emits a ResourceWarning, and its threads end.

    In the block, a stop signal raises SystemExit where no call is running, as Ctrl-C raises KeyboardInterrupt.

    **Threads:** it may be made in one thread and run in another; it runs one call at a time. `handle` is for all other
    threads.

    >>> async def double(number):
    ...     return number * 2
    >>> with Runtime() as runtime:
    ...     handle = runtime.spawn(double(1))
    ...     runtime.run_until_complete(double(2)), runtime.run_until_complete(handle)
    (4, 2)
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_context",
        "_interrupts",
        "_loop",
        "_process",
        "_shutdown_timeout",
        "_workers",
        "handle",
    )

    handle: Handle
    """The way in from other threads."""

    def __init__(
        self,
        *,
        workers: int = 1,
        loop_factory: Callable[[], AbstractEventLoop] | None = None,
        debug: bool | None = None,
        clock: Clock | None = None,
        stop_signals: Iterable[int] = (),
        shutdown_timeout: float = 10.0,
    ) -> None:
        if loop_factory is not None and not callable(loop_factory):
            raise TypeError(f"loop_factory must be a function that makes an event loop, or None, not {loop_factory!r}")
        if clock is not None and not isinstance(clock, Clock):
            raise TypeError(f"clock must be a Clock, or None, not {clock!r}")
        _require_workers(workers)
        if workers > 1 and clock is not None:
            raise ValueError("clock moves the time of one loop, so it goes with workers=1 only")
        signums = as_signals(stop_signals, "stop_signals")
        if signums and not is_main_thread():
            raise ValueError("stop_signals arrive in the main thread only, and this is another one")
        self._process = os.getpid()
        self._shutdown_timeout = _require_seconds("shutdown_timeout", shutdown_timeout)
        make_loop = loop_factory or (new_event_loop if clock is None else EventLoop)
        self._clock = ExitStack()
        self._workers: Workers | None = None
        loops: list[AbstractEventLoop] = []
        try:
            while len(loops) < workers:
                loops.append(_require_new(make_loop(), loops))
            home = loops[0]
            if workers > 1:
                if not has_gil():
                    loops.append(home := new_event_loop())
                self._workers = Workers(loops[:workers], home)
            if debug is not None:
                for each in loops:
                    each.set_debug(debug)
            if clock is not None:
                self._clock.enter_context(clock.patch_loop(home))
        except BaseException:
            for each in loops:
                each.close()
            raise
        self._loop = home
        self._context = copy_context()
        self._interrupts = Interrupts(home, signums)
        self.handle, *_ = map(Handle, loops)  # one each: what is brought between the calls may go to any

    def run_until_complete(self, main: Awaitable[T], /) -> T:
        """Run `main` in a task until that has ended, and everything else meanwhile; return its value.

        Raises what `main` raises; KeyboardInterrupt after Ctrl-C, and SystemExit after a stop signal, when `main` ended
        with the cancellation. Raises RuntimeError, and closes the coroutine, where a loop is running, and for a runtime
        that is running, or has been shut down, or belongs to the process that this one was forked from.
        """
        coroutine = as_coroutine(main, "run_until_complete")
        loop = self._loop
        task: asyncio.Task[T] | Placed[T] | None = None
        try:
            self._require_standing("run_until_complete")
            if loop.is_closed():
                raise shut_down_before()
            with self._interrupts.cancelling() as cancelling:
                if self._workers is None:
                    task = make_task(coroutine, loop, context=self._context)
                else:
                    task = self._workers.make_main(coroutine, self._context)
                cancelling(task)
                try:
                    return loop.run_until_complete(task)
                except BaseException:
                    if not task.done():  # it is another task that has ended the loop: this one has to clean up
                        if not task.cancelling():
                            task.cancel()
                        self._run_until_done(task)
                    raise
                finally:
                    if self._interrupts.at_once:
                        self._close(None)
        finally:
            if task is None:
                coroutine.close()

    def spawn(self, coro: Awaitable[T], /, *, name: str | None = None, context: Context | None = None) -> JoinHandle[T]:
        """Start a task that runs whenever the loop does, and return its handle at once.

        By default it runs in a copy of the context of the calls. Raises what `Handle.spawn` raises.
        """
        if context is None:
            return self._context.copy().run(partial(self.handle.spawn, coro, name=name))
        return self.handle.spawn(coro, name=name, context=context)

    def shutdown(self, timeout: float | None = None) -> None:
        """End everything, in at most `timeout` seconds, by default those of `shutdown_timeout`. Later calls do nothing.

        Tasks are cancelled and awaited, asynchronous generators closed, blocking calls waited for. The logger
        ``yamanote`` names what was left, and what would not end in time, which is left behind. Ctrl-C ends this at
        once.

        Raises ValueError and TypeError for a `timeout` that is no number of seconds, RuntimeError where a loop is
        running, and in the place of the tasks KeyboardInterrupt and SystemExit when one raises it.
        """
        budget = self._shutdown_timeout if timeout is None else _require_seconds("timeout", timeout)
        loop = self._loop
        if loop.is_closed():
            return
        if os.getpid() != self._process:
            # To close it would unregister what the other process has registered. So it must not be collected either.
            _of_other_processes.append(loop if self._workers is None else self._workers)
            return
        self._require_standing("shutdown")
        ending = make_task(self._end(budget), loop)
        with self._interrupts, self._interrupts.ending():
            try:
                interruption = self._run_until_done(ending)
                if ending.done():
                    ending.result()
                if interruption is not None:
                    raise interruption
            finally:
                self._close(ending)

    async def _end(self, timeout: float) -> None:
        deadline = self._loop.time() + timeout
        # At the same time as this loop: they may need each other.
        others = [] if self._workers is None else self._workers.end(timeout)
        await shut_down(timeout, self._clock.close)
        if others:
            # They, too, cancel again, and close, what has not ended within the budget.
            await asyncio.wait(others, timeout=max(0.0, deadline - self._loop.time()) + GRACE)

    def __enter__(self) -> Self:
        if self._loop.is_closed():
            raise shut_down_before()
        self._interrupts.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.shutdown()
        finally:
            self._interrupts.__exit__()

    def __del__(self) -> None:
        workers: Workers | None = getattr(self, "_workers", None)
        if workers is None or self._loop.is_closed():
            return  # of one loop, asyncio tells
        if os.getpid() != self._process:
            _of_other_processes.append(workers)
            return
        warnings.warn(f"{self!r} was dropped: use `with`, or shut it down", ResourceWarning, stacklevel=2, source=self)
        workers.stop()  # and do not join them: this may be one of their threads
        abandon(self._loop, None)
        self._loop.close()

    def _run_until_done(self, task: asyncio.Future[Any]) -> BaseException | None:
        """Run the loop until `task` has ended, also when another one stops it, or breaks out of it; tell with what."""
        loop = self._loop
        task.add_done_callback(lambda _: loop.stop())
        interruption: BaseException | None = None
        while not task.done() and not self._interrupts.at_once:
            try:
                loop.run_forever()
            except (KeyboardInterrupt, SystemExit) as error:
                interruption = interruption or error
        return interruption

    def _close(self, ending: asyncio.Task[None] | None) -> None:
        loop = self._loop
        if self._workers is not None:
            self._workers.stop()
            self._workers.join()
        self._clock.close()
        abandon(loop, ending)
        stop_listening(loop)
        self._interrupts.let_loop_go()
        if self._interrupts.at_once:
            # What it would say of tasks that end nowhere has been said.
            loop.set_exception_handler(lambda *_: None)
        loop.close()

    def _require_standing(self, caller: str) -> None:
        if os.getpid() != self._process:
            raise forked()
        if _get_running_loop() is not None:
            raise RuntimeError(
                f"{caller}() runs an event loop, but one is running in this thread: await the coroutine, or `spawn` it"
            )
        if self._loop.is_running():
            raise RuntimeError("this runtime is running in another thread: use its `handle`")

    def __repr__(self) -> str:
        if self._loop.is_closed():
            state = "shut down"
        else:
            state = "running" if self._loop.is_running() else "standing still"
        return f"<Runtime {state}>"


_of_other_processes: list[AbstractEventLoop | Workers] = []


def new_event_loop() -> AbstractEventLoop:
    """The loop of a runtime whose maker did not choose one."""
    # On Windows only the proactor loop has subprocesses and pipes, and ours is made of the selector loop.
    return asyncio.new_event_loop() if sys.platform == "win32" else EventLoop()


def _require_new(loop: AbstractEventLoop, others: list[AbstractEventLoop]) -> AbstractEventLoop:
    if not isinstance(loop, AbstractEventLoop):
        raise TypeError(f"loop_factory must return an event loop, not {loop!r}")
    if loop in others or loop.is_closed():
        raise ValueError(f"loop_factory must return a new event loop each time, not {loop!r} again")
    return loop


def _require_workers(workers: int) -> None:
    if isinstance(workers, bool) or not isinstance(workers, int):
        raise TypeError(f"workers must be a whole number, not {workers!r}")
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")


def _require_seconds(argument: str, seconds: float) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{argument} must be a number of seconds, not {seconds!r}")
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{argument} must be a number of seconds, not {seconds!r}")
    return seconds
