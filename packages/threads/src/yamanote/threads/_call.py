"""A call from a thread into a loop, which blocks the thread until it has ended.

Invariant: the thread that waits is woken exactly once, with what the call ended with: its value, its error, its
cancellation, or the news that the loop has been closed. Whatever the call runs on the loop has ended when the thread
goes on, unless the loop is closed or the thread was interrupted; then it is cancelled, and its error reported.
"""

from __future__ import annotations

import asyncio
import inspect
from asyncio import CancelledError
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from yamanote.runtime import JoinError, ThreadWaiter, start_task

__all__ = ["LoopCall"]

T = TypeVar("T")

_LOOK_AGAIN = 1.0
"""Seconds after which a waiting thread looks whether the loop has been closed, which nothing tells it."""


class LoopCall(Generic[T]):
    """`function(*args, **kwargs)`, to be called on `loop`, and its result awaited there if it is awaitable."""

    __slots__ = ("_args", "_cancelled", "_function", "_kwargs", "_loop", "_waiter", "task")

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
        self.task: asyncio.Task[T] | None = None
        """What is awaited on the loop, if anything has to be."""

    def wait(self) -> T:
        """Make the call, block until it has ended, and return or raise what it ended with. For the thread, once."""
        waiter = self._waiter
        try:
            try:
                # The variables of the calling thread go along: the loop copies its context here.
                self._loop.call_soon_threadsafe(self._start)
            except RuntimeError:
                raise self._closed() from None
            while not waiter.sleep(_LOOK_AGAIN):
                if self._loop.is_closed() and waiter.claim():
                    raise self._closed()
        except BaseException:  # KeyboardInterrupt, also as soon as the loop has been woken
            waiter.claim()
            try:
                self._loop.call_soon_threadsafe(self.cancel)
            except RuntimeError:
                pass
            raise
        try:
            return waiter.result()
        finally:
            # An error refers to frames that know of this call, and so must nothing here to the error.
            waiter.error = self.task = None

    def cancel(self) -> None:
        """Cancel what runs on the loop; if nothing runs yet, nothing will. In the thread of the loop."""
        if not self._cancelled:
            self._cancelled = True
            if self.task is not None:
                self.task.cancel()

    def _start(self) -> None:
        if self._cancelled:
            self._fail(CancelledError("nobody awaits this call any more"))
            return
        try:
            result = self._function(*self._args, **self._kwargs)
            if not inspect.isawaitable(result):
                self._waiter.hand(result)
                return
            self.task = task = start_task(result, name=self._label(), eager=True)
        except BaseException as error:
            self._fail(error)
            # What is meant for the whole program goes on to it, as it does from a task.
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            return
        if task.done():
            self._finish(task)
            return
        task.add_done_callback(self._finish)
        if self._cancelled:  # by its own first step
            task.cancel()

    def _finish(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self._fail(CancelledError())
        elif (error := task.exception()) is not None:
            self._fail(error)
        else:
            self._waiter.hand(task.result())

    def _fail(self, error: BaseException) -> None:
        if not self._waiter.claim():
            if isinstance(error, Exception):
                self._loop.call_exception_handler(
                    {"message": "a call from a thread failed when the thread had been interrupted", "exception": error}
                )
            return
        if isinstance(error, CancelledError) and not self._cancelled:
            # The thread was not asked to stop, and must not look as if it had been.
            error = JoinError(self._label())
        self._waiter.fail(error)

    def _label(self) -> str:
        return getattr(self._function, "__qualname__", None) or type(self._function).__qualname__

    def _closed(self) -> RuntimeError:
        return RuntimeError("the event loop has been closed: nothing can be called on it any more")
