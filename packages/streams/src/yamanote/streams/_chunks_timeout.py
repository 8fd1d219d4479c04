"""Chunks by size or age.

Invariant: a chunk is handed over when it is full, when its first item has been there for `seconds`, or when the source
has ended; it is never empty. The clock never interrupts a pull of the source: a feeder makes it, and the item that it
gives begins the next chunk.
"""

from __future__ import annotations

import asyncio
from typing import Any

from yamanote.runtime import cancel_and_wait, start_task
from yamanote.streams._feeder import Feeder
from yamanote.streams._pipeline import Pipeline

__all__ = ["ChunksTimeout"]


class ChunksTimeout(Pipeline[list[Any]]):
    """Lists of up to `count` items, none of which waits longer than `seconds` for the others."""

    __slots__ = (
        "_count",
        "_exhausted",
        "_expired",
        "_feeder",
        "_partial",
        "_seconds",
        "_source",
        "_task",
        "_timer",
        "_waiting",
    )

    def __init__(self, source: Pipeline[Any], count: int, seconds: float) -> None:
        self._source = source
        self._count = count
        self._seconds = seconds
        self._partial: list[Any] = []
        self._expired = False
        self._timer: asyncio.TimerHandle | None = None
        self._feeder = Feeder(source, self._accept, self._exhaust)
        self._task: asyncio.Task[None] | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._exhausted = False
        self._error = None

    async def pull(self) -> list[Any]:
        while not self._is_due():
            if self._exhausted:
                self.raise_end()
            await self._wait()
        chunk, self._partial = self._partial, []
        self._expired = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return chunk

    def _is_due(self) -> bool:
        partial = self._partial
        return bool(partial) and (self._expired or self._exhausted or len(partial) >= self._count)

    async def _wait(self) -> None:
        if self._waiting is not None:
            raise RuntimeError(f"{self} is being pulled by another task already")
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            if self._task is None:
                self._task = start_task(self._feeder.run())
                self._task.add_done_callback(self._stop)
            else:
                self._feeder.want()
            await self._waiting
        finally:
            self._waiting = None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _accept(self, item: Any) -> bool:
        self._partial.append(item)
        if len(self._partial) == 1:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._seconds, self._expire)
        if len(self._partial) >= self._count:
            self._wake()
            return False
        # Who does not wait any more has been cancelled, or has a chunk to work on: the source rests meanwhile.
        return self._waiting is not None and not self._waiting.done()

    def _expire(self) -> None:
        self._timer = None
        self._expired = True
        self._wake()

    def _exhaust(self, failure: BaseException | None) -> None:
        if not self._exhausted:  # else it has been closed
            self._exhausted = True
            self._error = failure
        elif isinstance(failure, Exception):  # nobody pulls any more
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"closing {self} failed", "exception": failure}
            )
        self._wake()

    def _stop(self, task: asyncio.Task[None]) -> None:
        if not self._exhausted:  # it was cancelled before its first step, and could not say so
            self._exhaust(asyncio.CancelledError())

    async def _close(self) -> None:
        self._exhausted = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            if self._task is not None:
                await cancel_and_wait(self._task)
        finally:
            self._partial = []
            self._exhausted = True
            self._error = None
            await self._source.close()

    @property
    def leftover(self) -> str | None:
        if self._task is not None and not self._task.done():
            return "1 task"
        return None if self._exhausted else self._source.leftover

    def abandon(self) -> None:
        task = self._task
        if task is not None:
            try:
                task.get_loop().call_soon_threadsafe(task.cancel)
            except RuntimeError:  # the loop is closed, and the task with it
                pass
        self._source.abandon()

    def __str__(self) -> str:
        return f"{self._source}.chunks_timeout({self._count}, {self._seconds})"
