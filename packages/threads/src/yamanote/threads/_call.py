"""A call from a thread into a loop, which blocks the thread until it has ended.

Invariant: the thread that waits is woken exactly once, with what the call ended with: its value, its error, its
cancellation, or the news that the loop has been closed. Whatever the call runs on the loop has ended when the thread
goes on, unless it is the loop that has ended.
"""

from __future__ import annotations

import asyncio
import inspect
from asyncio import CancelledError
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from yamanote.runtime import JoinError, Outcome, ThreadWaiter, cancel_and_wait, start_task

__all__ = ["LoopCall"]

T = TypeVar("T")

_LOOK_AGAIN = 1.0
"""Seconds after which a waiting thread looks whether the loop has been closed, which nothing tells it."""


class LoopCall(Generic[T]):
    """`function(*args, **kwargs)`, to be called on `loop`, and its result awaited there if it is awaitable."""

    __slots__ = ("_args", "_cancelled", "_function", "_kwargs", "_loop", "_task", "_waiter")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        self._loop = loop
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._waiter: ThreadWaiter[T] = ThreadWaiter()
        self._cancelled = False
        self._task: asyncio.Task[T] | None = None

    def wait(self) -> T:
        """Make the call, block until it has ended, and return or raise what it ended with. For the thread, once."""
        waiter = self._waiter
        try:
            # The variables of the calling thread go along: the loop copies its context here.
            self._loop.call_soon_threadsafe(self._start)
        except RuntimeError:
            raise self._closed() from None
        try:
            while not waiter.sleep(_LOOK_AGAIN):
                if self._loop.is_closed() and waiter.claim():
                    raise self._closed()
        except BaseException:  # KeyboardInterrupt
            waiter.claim()
            try:
                self._loop.call_soon_threadsafe(self._give_up)
            except RuntimeError:
                pass
            raise
        return waiter.result()

    async def cancel_and_wait(self) -> None:
        """Cancel what runs on the loop, and wait for its end; if nothing runs yet, nothing will. For the loop."""
        self._cancelled = True
        if self._task is not None:
            await cancel_and_wait(self._task)

    def _give_up(self) -> None:
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()

    def _start(self) -> None:
        if self._cancelled:
            self._end(Outcome.failed(CancelledError("the task that awaits this thread has been cancelled")))
            return
        try:
            result = self._function(*self._args, **self._kwargs)
            if not inspect.isawaitable(result):
                self._end(Outcome.ok(result))
                return
            self._task = start_task(result, name=self._label(), eager=True)
        except BaseException as error:
            self._end(Outcome.failed(error))
            # What is meant for the whole program goes on to it, as it does from a task.
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            return
        if self._task.done():
            self._finish(self._task)
        else:
            self._task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[T]) -> None:
        self._end(Outcome.of(task))

    def _end(self, outcome: Outcome[T]) -> None:
        waiter = self._waiter
        if not waiter.claim():
            return
        error = outcome.error
        if error is None:
            waiter.settle(outcome.unwrap())
        elif isinstance(error, CancelledError) and not self._cancelled:
            # The thread was not asked to stop, and must not look as if it had been.
            waiter.fail(JoinError(self._label()))
        else:
            waiter.fail(error)

    def _label(self) -> str:
        return getattr(self._function, "__qualname__", None) or repr(self._function)

    def _closed(self) -> RuntimeError:
        return RuntimeError("the event loop has been closed: nothing can be called on it any more")
