"""Queued handle: a child of a group that waits for its turn.

Invariant: its coroutine is started once, or closed; it stands in the queue until then. It has a task only from its
turn on; the handle was there before, and ends as the task does.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections import OrderedDict
from collections.abc import Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar, final

from yamanote.runtime._join import JoinHandle
from yamanote.runtime._task import on_loop, request_cancel

__all__ = ["QueuedHandle"]

T = TypeVar("T")


@final
class QueuedHandle(JoinHandle[T]):
    """The handle of a child that waits for its turn, or had to."""

    __slots__ = ("context", "coroutine", "label", "on", "queue", "task")

    def __init__(
        self,
        future: asyncio.Future[T],
        queue: OrderedDict[QueuedHandle[Any], None],
        coroutine: Coroutine[Any, Any, T],
        label: str | None,
        context: Context,
        on: int | None,
    ) -> None:
        super().__init__(future)
        self.queue = queue
        self.coroutine = coroutine
        self.label = label
        self.context = context
        self.on = on  # the worker that starts it, in a runtime with several; None is whichever is free
        self.task: asyncio.Future[T] | None = None

    def __await__(self) -> Generator[Any, None, T]:
        try:
            if self.task is None and self._future.cancelled():
                yield  # it ended within a call: whoever asked for the end of the group is to hear of his own before
            return (yield from super().__await__())
        finally:
            del self  # an error refers to this frame

    @property
    def name(self) -> str:
        if self.task is not None:
            return JoinHandle(self.task).name
        return self.label if self.label is not None else "a queued task"

    def abort(self, reason: str | None = None) -> None:
        on_loop(self._future.get_loop(), self._abort, reason)

    def _includes(self, task: asyncio.Task[Any] | None) -> bool:
        return task is not None and task.get_coro() is self.coroutine  # in its first step, too

    def _abort(self, reason: str | None) -> None:
        if self.task is not None:
            request_cancel(self.task, reason)
        elif self in self.queue:
            del self.queue[self]
            self._future.cancel(reason)
            self.coroutine.close()
        elif not self._future.done():  # in its first step: at its next await, like any task that runs
            self._future.get_loop().call_soon(self._abort, reason)

    def ended(self, task: asyncio.Future[T]) -> None:
        future = self._future
        if task.cancelled():
            try:
                task.result()
            except CancelledError as cancelled:
                future.cancel(*cancelled.args)
        elif (error := task.exception()) is not None:
            self.failed(error)
        else:
            future.set_result(task.result())

    def failed(self, error: BaseException) -> None:
        self._future.set_exception(error)
        self._future.exception()  # the group sees to it
