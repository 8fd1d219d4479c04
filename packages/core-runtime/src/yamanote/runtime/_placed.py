"""Placed: a future that stands for a task on whichever loop comes to start it.

Invariant: its coroutine is claimed once: by the worker that starts it, or by the cancellation that closes it. A
cancellation that comes while it is being started, or later, reaches the task, once. It belongs to the loop that it was
spawned on, and is done there; so whatever waits for tasks can wait for it.

Who starts it keeps the task *and then* looks for a cancellation; who cancels leaves that *and then* looks for the task.
Between them, one passes it on, and whoever takes it out of the list is the one.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, _get_running_loop
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar, final

from yamanote.runtime import _site
from yamanote.runtime._task import fail, make_task, on_loop, tasks_of

__all__ = ["Placed"]

T = TypeVar("T")


@final
class Placed(asyncio.Future[T]):
    """Of `coroutine`, which has been spawned on `home`."""

    __slots__ = ("_claim", "_context", "_coroutine", "_name", "_requests", "_task", "_where", "_yamanote_site", "heard")

    count = stretch = 1
    """One coroutine, which a worker begins in one go."""
    _task: asyncio.Task[T] | None
    _where: asyncio.AbstractEventLoop
    """Its loop. On free-threaded Python, to ask the task itself waits for the end of the step that it takes."""
    heard: bool
    """Whether a cancellation came to the task before its end."""

    def __init__(
        self, coroutine: Coroutine[Any, Any, T], home: asyncio.AbstractEventLoop, name: str | None, context: Context
    ) -> None:
        super().__init__(loop=home)
        self._coroutine = coroutine
        self._name = name
        self._context: Context | None = context
        self._task = None
        self.heard = False
        self._claim: list[None] = [None]  # whoever takes it out starts the coroutine, or closes it
        self._requests: list[Any] | None = None  # messages of cancellations, for the task when it is known
        if _site.recording:
            _site.remember_site(self)

    def split(self, count: int) -> None:
        """Nothing is left of one."""

    def begin(self, loop: asyncio.AbstractEventLoop, eager: bool = True) -> None:
        """Start it on `loop`, which runs here, unless it was cancelled; if `eager`, with its first step at once."""
        try:
            self._claim.pop()
        except IndexError:
            return
        context, self._context = self._context, None
        self._where = loop
        try:
            task = make_task(self._coroutine, loop, self._name, context, eager)
        except BaseException as error:  # out of its first step, and on its way out of the loop
            on_loop(self.get_loop(), fail, self, error)
            raise
        if (site := getattr(self, "_yamanote_site", None)) is not None:  # not where it was started
            task._yamanote_site = site  # type: ignore[attr-defined]
        self._name = task.get_name()
        self._task = task
        if task.done():
            self._ended(task)
            return
        if self._requests is not None:
            self._pass_on_cancellation(task, self._requests)
        tasks = tasks_of(loop)
        tasks.add(task)
        task.add_done_callback(tasks.discard, context=tasks.context)
        task.add_done_callback(self._ended, context=tasks.context)

    def cancel(self, msg: Any | None = None) -> bool:
        """On its own loop."""
        if self.done():
            return False
        try:
            self._claim.pop()
        except IndexError:
            if self._requests is None:
                self._requests = []
            self._requests.append(msg)
            if self._task is not None:  # else whoever starts it looks next
                self._pass_on_cancellation(self._task, self._requests)
            return True
        self._coroutine.close()
        return super().cancel(msg)

    def cancelling(self) -> int:
        """Whether it has been cancelled, as a task tells."""
        return int(self._requests is not None)

    def give_up(self, reason: str | None) -> None:
        """Cancel it from any thread, if it has not been started."""
        try:
            self._claim.pop()
        except IndexError:
            return
        self._coroutine.close()
        on_loop(self.get_loop(), super().cancel, reason)

    def get_name(self) -> str:
        """The name of the task."""
        return self._name or "a task that has not started"

    def __repr__(self) -> str:
        """That of the task, for who is told of an error; one that runs in another thread cannot be looked at."""
        if self._task is not None and self.done():
            return repr(self._task)
        return f"{super().__repr__()[:-1]} name={self.get_name()!r}>"

    def is_of(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether it stands for `task`; known in its first step, too."""
        return task is not None and task.get_coro() is self._coroutine

    def _pass_on_cancellation(self, task: asyncio.Task[T], requests: list[Any]) -> None:
        try:
            message = requests.pop()
        except IndexError:
            return
        requests.clear()  # those that came at the same time are one
        if _get_running_loop() is self._where and task is asyncio.current_task():
            self._where.call_soon(self._cancel_task, task, message)  # see `request_cancel`
        else:
            on_loop(self._where, self._cancel_task, task, message)

    def _cancel_task(self, task: asyncio.Task[T], message: Any | None) -> None:
        if not task.done():
            self.heard = True
            task.cancel(message)

    def _ended(self, task: asyncio.Task[T]) -> None:
        home, here = self.get_loop(), task.get_loop()
        if home is here:
            self._finish(task)
            return
        error = None if task.cancelled() else task.exception()  # from here on it is the future's
        try:
            home.call_soon_threadsafe(self._finish, task)
        except RuntimeError:  # closed: nobody waits there any more
            if error is not None:
                here.call_exception_handler(
                    {"message": "a task failed, and the loop that it was spawned on is closed", "exception": error}
                )

    def _finish(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            try:
                task.result()
            except CancelledError as cancelled:
                super().cancel(*cancelled.args[:1])
        elif (error := task.exception()) is not None:
            fail(self, error)
        else:
            self.set_result(task.result())


Placed.__name__ = "Task"  # what asyncio reports an error of, that nobody has asked for
