"""`run_in_thread_loop`: an awaitable on an event loop of its own, in a thread of its own.

Invariant: whoever awaits it goes on only when the awaitable, its loop and its thread have ended, whatever happens
meanwhile. Each cancellation of the awaiting task is passed on once, to be thrown where the awaitable waits.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from asyncio import CancelledError
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from typing import Any, Generic, TypeVar, cast

from yamanote.runtime import JoinError, Outcome, run, yield_now

__all__ = ["run_in_thread_loop"]

T = TypeVar("T")


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
    label = getattr(target, "__qualname__", None) or type(target).__qualname__
    if inspect.isawaitable(target):
        if asyncio.isfuture(target):
            raise ValueError(f"target belongs to an event loop already: {target!r}; pass the coroutine instead")
        if inspect.iscoroutine(target) and inspect.getcoroutinestate(target) != inspect.CORO_CREATED:
            raise ValueError(f"target has been awaited already: {target!r}")
    elif not callable(target):
        raise TypeError(f"target must be an awaitable or a function that returns one, not {target!r}")
    return _run_in_thread_loop(target, label, name)


async def _run_in_thread_loop(target: Awaitable[T] | Callable[[], Awaitable[T]], label: str, name: str | None) -> T:
    return await _LoopThread(target, label, name).join()


class _LoopThread(Generic[T]):
    """The thread, seen from the loop that started it, which calls `join`, and from within, which is all the rest."""

    def __init__(self, target: Awaitable[T] | Callable[[], Awaitable[T]], label: str, name: str | None) -> None:
        self._target = target
        self._label = label
        self._home = asyncio.get_running_loop()
        self._changed: asyncio.Future[None] | None = None
        self._outcome: Outcome[T] | None = None
        self._requests: deque[Any] = deque()
        self._task: asyncio.Task[T] | None = None
        # On free-threaded builds a thread inherits a context, on the others it gets an empty one: neither is a copy.
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), name=name or f"loop of {label}")

    async def join(self) -> T:
        try:
            self._thread.start()
        except RuntimeError:  # the system has no more threads
            self._discard()
            raise
        cancelled: CancelledError | None = None
        while self._outcome is None:
            self._changed = self._home.create_future()
            try:
                await self._changed
            except CancelledError as error:
                cancelled = error
                self._cancel(error.args[0] if error.args else None)
        # It has nothing left to do: this is a matter of microseconds.
        self._thread.join()
        outcome = self._outcome
        try:
            if outcome.error is not None and not outcome.cancelled:
                raise outcome.error
            if cancelled is not None:
                raise cancelled
            if outcome.cancelled:
                raise JoinError(self._label)
            return outcome.unwrap()
        finally:
            del cancelled, outcome  # no reference cycle with the traceback

    def _cancel(self, reason: Any) -> None:
        self._requests.append(reason)
        task = self._task
        if task is not None:
            try:
                task.get_loop().call_soon_threadsafe(self._pass_on, task)
            except RuntimeError:  # that loop is closed already: the end is on its way here
                pass

    def _pass_on(self, task: asyncio.Task[T]) -> None:
        while self._requests:
            task.cancel(self._requests.popleft())

    def _run(self) -> None:
        outcome: Outcome[T]
        try:
            outcome = Outcome.ok(run(self._main()))
        except BaseException as error:
            outcome = Outcome.failed(error)
        self._discard()
        try:
            self._home.call_soon_threadsafe(self._end, outcome)
        except RuntimeError:  # the loop is closed, with the task that waited there
            pass

    async def _main(self) -> T:
        task = cast("asyncio.Task[T]", asyncio.current_task())
        # Published, then looked: `_cancel` appends, then looks whether there is a task. One of the two sees the other.
        self._task = task
        if self._requests:
            self._pass_on(task)
            await yield_now()
        target = self._target
        return await (target if inspect.isawaitable(target) else target())

    def _discard(self) -> None:
        if inspect.iscoroutine(self._target):
            self._target.close()  # if it has never started; otherwise it has ended, and this does nothing

    def _end(self, outcome: Outcome[T]) -> None:
        self._outcome = outcome
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
