"""Feeder: one task that pulls a source on behalf of an operator which waits for other things as well.

Invariant: the task pulls while its operator wants more, and at most finishes the pull that it is in; what that gives
goes to the operator, whoever has been cancelled in the meantime. Once it has been asked to stop it pulls no more, even
if the source took no notice. All pulls of a source, and its closing, are made by the same task, so time limits and
scopes inside an async generator stay within one task. It is cancelled once, by who closes first: those who come while
the source is being closed only wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import Any

from yamanote.runtime import JoinError, cancel_and_wait, shield_wait, start_task
from yamanote.streams._pipeline import Pipeline

__all__ = ["Feeder"]


class Feeder:
    """Pulls `source`, gives each item to `accept`, which says whether it wants another, and at last calls `ended`."""

    __slots__ = ("_accept", "_ended", "_over", "_source", "_stopped", "_task", "_wanted")

    def __init__(
        self,
        source: Pipeline[Any],
        accept: Callable[[Any], bool],
        ended: Callable[[BaseException | None], object],
    ) -> None:
        self._source = source
        self._accept = accept
        self._ended = ended
        self._wanted: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        self._over = False

    def start(self, context: Context | None = None) -> None:
        """Run, in a task."""
        self._task = start_task(self.run(), context=context)
        self._task.add_done_callback(self._check)

    async def stop(self) -> None:
        """Cancel the task, unless that has been done, and wait until it has ended."""
        task = self._task
        assert task is not None
        if task is asyncio.current_task():
            raise RuntimeError(f"{self._source} cannot close what it is the source of")
        if not self._stopped:
            self._stopped = True
            await cancel_and_wait(task)
        else:
            with suppress(JoinError):  # cancelled: by us
                await shield_wait(task)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call `function` where the task runs. For finalizers: any thread, never raises."""
        if self._task is not None:
            with suppress(RuntimeError):  # the loop is closed, and the task with it
                self._task.get_loop().call_soon_threadsafe(function)

    def abandon(self) -> None:
        """Cancel the task. For finalizers."""
        if self._task is not None and not self._stopped:
            self._stopped = True
            self.call_soon(self._task.cancel)

    def want(self) -> None:
        """Go on, if the last item was enough."""
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)

    def _check(self, task: asyncio.Task[None]) -> None:
        if not self._over:  # it was cancelled before its first step, or has raised what is for the loop
            self._ended(asyncio.CancelledError() if task.cancelled() else task.exception())

    async def run(self) -> None:
        """For one task: `start` makes it, or the owner, who cancels it to close."""
        failure: BaseException | None = None
        task: Any = asyncio.current_task()
        try:
            while True:
                try:
                    item = await self._source.pull()
                except StopAsyncIteration:
                    break
                wants_more = self._accept(item)
                del item  # it may be big, and the next one be long in coming
                if task.cancelling():
                    raise asyncio.CancelledError
                if not wants_more:
                    self._wanted = asyncio.get_running_loop().create_future()
                    await self._wanted
        except (GeneratorExit, KeyboardInterrupt, SystemExit):  # this is thrown away, or the loop is to see it
            raise
        except BaseException as error:  # CancelledError too: if it was not our owner, the stream was cut short
            failure = error
        try:
            await self._source.close()
        except Exception as error:
            if failure is None:
                failure = error
            elif failure is not error:
                asyncio.get_running_loop().call_exception_handler(
                    {"message": f"closing {self._source} failed", "exception": error}
                )
        finally:
            self._over = True
            self._ended(failure)
        try:
            if isinstance(failure, asyncio.CancelledError):
                raise failure
        finally:
            del failure  # its traceback refers to this frame
