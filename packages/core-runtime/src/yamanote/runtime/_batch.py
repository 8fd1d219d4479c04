"""Batch: several coroutines that were spawned together, in a runtime with several workers, behind one handle.

Invariant: each coroutine belongs to one `Part`, which is in one backlog, or with the worker that has taken it from
there, and starts its coroutines in order. An abort reaches each task that runs once, also one that is just being
started; what has not been started by then is closed by the worker that comes to it. The last to end, wherever that is,
tells the loop that the batch was spawned on, and there the handle is done.

No coroutine has a future, or a place in a backlog, of its own: one that ends in its first step leaves nothing but its
value. What all workers share is touched once for a stretch of them, not for each.
"""

from __future__ import annotations

import asyncio
from _thread import allocate_lock
from asyncio import Task
from collections.abc import Coroutine
from contextvars import copy_context
from functools import partial
from typing import Any, final

from yamanote.runtime import _site
from yamanote.runtime._eager_start import start_now
from yamanote.runtime._join import JoinError, JoinHandle
from yamanote.runtime._task import CAN_START_EAGERLY, count_spawned, fail, on_loop, request_cancel, tasks_of, worker_of

__all__ = ["Batch", "Part"]

_STRETCH = 64
"""Coroutines that a worker begins in one go, while others may take what is behind them."""
_LONG = 0.0001
"""Seconds. After a stretch that took longer the next is one coroutine, and then they double again: a worker that
computes keeps nothing to itself that another one could begin.
"""


@final
class Part:
    """Coroutines of a batch, one behind the other. Only who has taken it from a backlog touches it."""

    __slots__ = ("_batch", "count", "first")

    first: int
    """The index of the first one."""
    count: int

    def __init__(self, batch: Batch, first: int, count: int) -> None:
        self._batch = batch
        self.first = first
        self.count = count

    @property
    def stretch(self) -> int:
        """How many of them to begin in one go; at least as many are left to be taken meanwhile."""
        return max(1, min(self._batch.stretch, self.count // 2))

    def split(self, count: int) -> Part | None:
        """Keep the first `count`, and return the others, if there are any."""
        others = self.count - count
        if others <= 0:
            return None
        self.count = count
        return Part(self._batch, self.first + count, others)

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start them on `loop`, which runs here. The first step of each is made at once."""
        self._batch.begin(self, loop)

    def give_up(self, reason: str | None) -> None:
        """Close them. From any thread."""
        self._batch.give_up(self, reason)


@final
class Batch(JoinHandle[list[Any]]):
    """Of `coroutines`, which have been spawned on `home`. Workers start it in parts, of which `all` is the first."""

    __slots__ = (
        "_aborted",
        "_context",
        "_coroutines",
        "_errors",
        "_label",
        "_left",
        "_mutex",
        "_running",
        "_values",
        "stretch",
    )

    stretch: int
    """How many to begin in one go: a guess, which any worker may change."""

    def __init__(
        self, coroutines: list[Coroutine[Any, Any, Any]], home: asyncio.AbstractEventLoop, label: str | None
    ) -> None:
        super().__init__(home.create_future())
        if _site.recording:
            _site.remember_site(self._future)
        self.stretch = 1
        self._label = label
        self._context = copy_context()
        self._coroutines = coroutines
        self._running: dict[int, tuple[asyncio.Task[Any], asyncio.AbstractEventLoop]] = {}
        self._values: list[Any] = [None] * len(coroutines)
        self._errors: dict[int, BaseException | asyncio.Task[Any]] = {}  # or the task, which keeps its error
        self._left = len(coroutines)
        self._aborted: list[str | None] = []  # the reason of the first abort
        self._mutex = allocate_lock()  # for `_left`, and for `_running` and `_aborted` together
        tasks_of(home).add(self)

    def all(self) -> Part:
        """All of them, for a backlog."""
        return Part(self, 0, len(self._coroutines))

    def begin(self, part: Part, loop: asyncio.AbstractEventLoop) -> None:
        """Start those of `part` on `loop`, which runs here."""
        first, aborted, context = part.first, self._aborted, self._context
        values: list[Any] = []
        running = 0
        label = None
        site = getattr(self._future, "_yamanote_site", None)
        before = loop.time()
        try:
            for index, coroutine in enumerate(self._coroutines[first : first + part.count], first):
                value = None
                if aborted:
                    self._close(index, coroutine)
                else:
                    if self._label is not None:
                        label = self._name_of(index)
                    if CAN_START_EAGERLY:  # as `make_task` does it, which takes a fifth of the time of all this
                        task = Task(coroutine, loop=loop, name=label, context=context.copy(), eager_start=True)  # type: ignore[call-arg,unused-ignore]
                    else:
                        task = start_now(coroutine, loop, label, context.copy())
                    if site is not None:  # not where it was started
                        task._yamanote_site = site  # type: ignore[attr-defined]
                    if not task.done():
                        running += 1
                        self._runs(index, task)
                    elif task._exception is None and not task.cancelled():
                        value = task.result()
                    else:
                        self._errors[index] = task
                values.append(value)
        except BaseException as error:  # out of a first step, and on its way out of the loop
            values.append(None)
            self._errors[first + len(values) - 1] = error
            rest, worker = part.split(len(values)), worker_of(loop)
            if rest is not None and worker is not None:
                worker.backlog.appendleft(rest)
            raise
        finally:
            count_spawned(loop, len(values))
            self._values[first : first + len(values)] = values
            self._have_ended(len(values) - running)
        if loop.time() - before > _LONG:
            self.stretch = 1
        elif self.stretch < _STRETCH:
            self.stretch *= 2

    def give_up(self, part: Part, reason: str | None) -> None:
        """Close those of `part`. From any thread."""
        first = part.first
        for index, coroutine in enumerate(self._coroutines[first : first + part.count], first):
            self._close(index, coroutine, reason)
        self._have_ended(part.count)

    def abort(self, reason: str | None = None) -> None:
        with self._mutex:
            self._aborted.append(reason)
            running = list(self._running.values())
        for task, loop in running:
            request_cancel(task, reason, loop)

    @property
    def name(self) -> str:
        count = len(self._values)
        return f"{count} tasks" if self._label is None else ", ".join(map(self._name_of, range(count)))

    def _name_of(self, index: int) -> str:
        return "a task that has not started" if self._label is None else f"{self._label}-{index}"

    def _includes(self, task: asyncio.Task[Any] | None) -> bool:
        return task is not None and task.get_coro() in self._coroutines

    def _close(self, index: int, coroutine: Coroutine[Any, Any, Any], reason: str | None = None) -> None:
        coroutine.close()
        self._errors[index] = JoinError(self._name_of(index), self._aborted[0] if self._aborted else reason)

    def _runs(self, index: int, task: asyncio.Task[Any]) -> None:
        loop = task.get_loop()
        with self._mutex:
            self._running[index] = task, loop
            aborted = bool(self._aborted)
        if aborted:
            request_cancel(task, self._aborted[0])
        tasks = tasks_of(loop)
        tasks.add(task)
        task.add_done_callback(partial(self._task_ended, index), context=tasks.context)

    def _task_ended(self, index: int, task: asyncio.Task[Any]) -> None:
        if self._has_value(index, task):
            self._values[index] = task.result()
        tasks_of(task.get_loop()).discard(task)
        with self._mutex:
            del self._running[index]
        self._have_ended(1)

    def _has_value(self, index: int, task: asyncio.Task[Any]) -> bool:
        # Its error is not asked for before it is known to be the first one: asyncio reports the others.
        if task._exception is None and not task.cancelled():
            return True
        self._errors[index] = task
        return False

    def _have_ended(self, count: int) -> None:
        if not count:
            return
        with self._mutex:
            self._left -= count
            left = self._left
        if not left:
            on_loop(self._future.get_loop(), self._finish)

    def _finish(self) -> None:
        future = self._future
        tasks_of(future.get_loop()).discard(self)
        self._coroutines = []
        if not self._errors:
            future.set_result(self._values)
            return
        error = self._errors[min(self._errors)]
        self._errors.clear()
        if isinstance(error, asyncio.Task) and error.cancelled():
            error = JoinHandle(error)._join_error()
        if isinstance(error, BaseException):
            fail(future, error)
            if isinstance(error, JoinError):  # a cancellation is no error: who does not ask is not told
                future.exception()
        else:
            failure = error.exception()
            assert failure is not None
            fail(future, failure)
