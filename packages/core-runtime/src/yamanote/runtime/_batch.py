"""Batch: several coroutines that were spawned together, in a runtime with several workers, behind one handle.

Invariant: each coroutine is claimed once, by the worker that starts it or by who aborts it, which closes it; an abort
reaches each task that runs once, also one that is just being started. The last to end, wherever that is, tells the loop
that the batch was spawned on, and there the handle is done.

No coroutine has a future of its own: one that ends in its first step leaves nothing but its value.
"""

from __future__ import annotations

import asyncio
from _thread import allocate_lock
from collections.abc import Coroutine
from contextvars import copy_context
from functools import partial
from typing import Any, final

from yamanote.runtime import _site
from yamanote.runtime._join import JoinError, JoinHandle
from yamanote.runtime._task import make_task, on_loop, request_cancel, tasks_of

__all__ = ["Batch"]


@final
class Batch(JoinHandle[list[Any]]):
    """Of `coroutines`, which have been spawned on `home`. A worker starts them by their indices."""

    __slots__ = (
        "_aborted",
        "_context",
        "_coroutines",
        "_ended",
        "_errors",
        "_label",
        "_mutex",
        "_running",
        "_values",
        "_waiting",
    )

    def __init__(
        self, coroutines: list[Coroutine[Any, Any, Any]], home: asyncio.AbstractEventLoop, label: str | None
    ) -> None:
        super().__init__(home.create_future())
        if _site.recording:
            _site.remember_site(self._future)
        self._label = label
        self._context = copy_context()
        self._coroutines = coroutines
        self._waiting = dict(enumerate(coroutines))  # whoever pops one starts it, or closes it
        self._running: dict[int, asyncio.Task[Any]] = {}
        self._values: list[Any] = [None] * len(coroutines)
        self._errors: dict[int, BaseException | asyncio.Task[Any]] = {}  # or the task, which keeps its error
        self._ended: list[None] = []  # an element for each: `append` and `len` are atomic, to count is not
        self._aborted: list[str | None] = []  # the reason of the first abort
        self._mutex = allocate_lock()  # for `_running` and `_aborted` together
        tasks_of(home).add(self)

    def begin(self, loop: asyncio.AbstractEventLoop, index: int) -> None:
        """Start one on `loop`, which runs here, unless it has been given up. Its first step is made at once."""
        coroutine = self._waiting.pop(index, None)
        if coroutine is None:
            return
        label = None if self._label is None else self._name_of(index)
        try:
            task = make_task(coroutine, loop, label, self._context.copy(), eager=True)
        except BaseException as error:  # out of its first step, and on its way out of the loop
            self._errors[index] = error
            self._one_ended()
            raise
        if (site := getattr(self._future, "_yamanote_site", None)) is not None:  # not where it was started
            task._yamanote_site = site  # type: ignore[attr-defined]
        if task.done():
            self._keep(index, task)
            return
        tasks = tasks_of(loop)
        tasks.add(task)
        with self._mutex:
            self._running[index] = task
            aborted = bool(self._aborted)
        if aborted:
            request_cancel(task, self._aborted[0])
        task.add_done_callback(tasks.discard, context=tasks.context)
        task.add_done_callback(partial(self._task_ended, index), context=tasks.context)

    def give_up(self, index: int, reason: str | None) -> None:
        """Close one that has not been started. From any thread."""
        coroutine = self._waiting.pop(index, None)
        if coroutine is not None:
            coroutine.close()
            self._errors[index] = JoinError(self._name_of(index), reason)
            self._one_ended()

    def abort(self, reason: str | None = None) -> None:
        with self._mutex:
            self._aborted.append(reason)
            running = list(self._running.values())
        for index in list(self._waiting):
            self.give_up(index, reason)
        for task in running:
            request_cancel(task, reason)

    @property
    def name(self) -> str:
        count = len(self._values)
        return f"{count} tasks" if self._label is None else ", ".join(map(self._name_of, range(count)))

    def _name_of(self, index: int) -> str:
        return "a task that has not started" if self._label is None else f"{self._label}-{index}"

    def _includes(self, task: asyncio.Task[Any] | None) -> bool:
        return task is not None and any(task.get_coro() is coroutine for coroutine in self._coroutines)

    def _task_ended(self, index: int, task: asyncio.Task[Any]) -> None:
        with self._mutex:
            del self._running[index]
        self._keep(index, task)

    def _keep(self, index: int, task: asyncio.Task[Any]) -> None:
        # Its error is not asked for before it is known to be the first one: asyncio reports the others.
        if task.cancelled() or task._exception is not None:
            self._errors[index] = task
        else:
            self._values[index] = task.result()
        self._one_ended()

    def _one_ended(self) -> None:
        self._ended.append(None)
        if len(self._ended) == len(self._values):
            on_loop(self._future.get_loop(), self._finish)

    def _finish(self) -> None:
        future = self._future
        tasks_of(future.get_loop()).discard(self)
        if future.done():  # two of the last have seen that all have ended
            return
        self._coroutines = []
        if not self._errors:
            future.set_result(self._values)
            return
        error = self._errors[min(self._errors)]
        self._errors.clear()
        if isinstance(error, BaseException):
            future.set_exception(error)
            if not isinstance(error, Exception):
                future.exception()  # it comes out of the loop as well, and is not reported once more
        elif error.cancelled():
            future.set_exception(JoinHandle(error)._join_error())
        else:
            failure = error.exception()
            assert failure is not None
            future.set_exception(failure)
