"""Cancelling: to ask somebody else to end, and to wait until they have.

Invariant: whoever waits for the end of others waits until it has come, however often it is cancelled itself meanwhile,
and raises that afterwards. How the others ended stays with them.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Iterable
from functools import partial
from typing import Any

from yamanote.runtime._join import JoinHandle, not_when_done, when_done
from yamanote.runtime._task import request_cancel
from yamanote.runtime._waiter import Waiter, park

__all__ = ["cancel_and_wait", "cancel_task"]


async def cancel_and_wait(*tasks: asyncio.Future[Any] | JoinHandle[Any], reason: str | None = None) -> None:
    """Cancel all `tasks` and wait until they have ended. Returns None however they end.

    What they raise while they are being cancelled stays with them: it can still be asked for, and is reported if
    nobody does.

    **Cancel safety:** when the caller is cancelled meanwhile, it still waits for them, and raises that at the end.

    Raises RuntimeError, before anything is cancelled, when the calling task is among them, and TypeError for anything
    that is no task, future or handle.

    >>> from yamanote.runtime import cancel_and_wait, run, start_task
    >>> async def example():
    ...     task = start_task(asyncio.sleep(3600))
    ...     await cancel_and_wait(task, reason="closing time")
    ...     return task.cancelled()
    >>> run(example())
    True
    """
    for task in tasks:
        if not isinstance(task, (asyncio.Future, JoinHandle)):
            raise TypeError(f"cancel_and_wait() needs tasks, futures or JoinHandles, not {task!r}")
    futures = [task._future if isinstance(task, JoinHandle) else task for task in tasks]
    current = asyncio.current_task()
    if current in futures or any(isinstance(task, JoinHandle) and task._includes(current) for task in tasks):
        raise RuntimeError("a task cannot cancel itself and wait for its own end")
    for task in tasks:
        if isinstance(task, JoinHandle):
            task.abort(reason)
        else:
            request_cancel(task, reason)
    await wait_for_end(futures)


cancel_task = cancel_and_wait
"""The same, for those who know it by this name."""


async def wait_for_end(futures: Iterable[asyncio.Future[Any]]) -> None:
    """Wait until all `futures` are done, however they end, and however often the caller is cancelled meanwhile."""
    cancelled: CancelledError | None = None
    for future in futures:
        while not future.done():
            try:
                await park(_End(future))
                break  # done; or its loop is closed, and it will never get any further
            except CancelledError as error:
                cancelled = cancelled or error
    if cancelled is not None:
        try:
            raise cancelled
        finally:
            del cancelled


class _End:
    """The end of `future`, for whoever does not want to know how it ended."""

    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self._future = future

    def register(self, waiter: Waiter[Any], /) -> None:
        waiter.operation = callback = partial(self._settle, waiter)
        if not when_done(self._future, callback):
            self._settle(waiter, self._future)  # it will never get any further

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        not_when_done(self._future, waiter)

    def _settle(self, waiter: Waiter[Any], _: asyncio.Future[Any]) -> None:
        waiter.operation = None  # it refers to the waiter
        if waiter.claim():
            waiter.settle(None)

    def __repr__(self) -> str:
        return f"<end of {self._future!r}>"
