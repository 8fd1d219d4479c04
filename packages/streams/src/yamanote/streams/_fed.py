"""Fed: an operator that waits for its source and for other things as well, so that a task pulls the source.

Invariant: there is one feeder, begun by the first pull; it pulls while the operator wants more. A pull here only
looks, waits and then takes, so one that is cancelled loses nothing: what the source has given meanwhile is there for
the next one. A failure of the source comes behind all that it gave before. Closing throws away what nobody has taken.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Any, TypeVar

from yamanote.runtime import cancel_and_wait, start_task
from yamanote.streams._feeder import Feeder
from yamanote.streams._operator import Operator
from yamanote.streams._pipeline import Pipeline

__all__ = ["Fed"]

T_co = TypeVar("T_co", covariant=True)


class Fed(Operator[T_co]):
    """Gives what is due; until then it waits, and its feeder pulls the source."""

    __slots__ = ("_exhausted", "_feeder", "_task", "_waiting")

    def __init__(self, source: Pipeline[Any]) -> None:
        super().__init__(source)
        self._feeder = Feeder(source, self._accept, self._exhaust)
        self._task: asyncio.Task[None] | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._exhausted = False
        """Whether the source has ended, with `_error` or without."""

    @abstractmethod
    def _is_due(self) -> bool:
        """Whether there is something to give."""

    def _is_drained(self) -> bool:
        """Whether nothing will be due any more. Asked when nothing is due now."""
        return self._exhausted

    @abstractmethod
    def _take(self) -> T_co:
        """Take what is due."""

    @abstractmethod
    def _accept(self, item: Any) -> bool:
        """Take `item` from the feeder, and say whether it shall pull the next one now."""

    def _has_room(self) -> bool:
        """Whether the source is to be pulled while somebody waits here, for it or for something else."""
        return True

    @property
    def _wanted(self) -> bool:
        """Whether somebody waits here. Who does not was cancelled, or is at work: the source may rest meanwhile."""
        return self._waiting is not None and not self._waiting.done()

    async def pull(self) -> T_co:
        while not self._over:
            if self._is_due():
                return self._take()
            if self._is_drained():
                break
            await self._wait()
        self.raise_end()

    async def _wait(self) -> None:
        """Have the source pulled, and wait until `_wake` is called."""
        if self._waiting is not None:
            raise RuntimeError(f"{self} is being pulled by another task already")
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            if self._task is None:
                self._task = start_task(self._feeder.run())
                self._task.add_done_callback(self._stop)
            elif self._has_room():
                self._feeder.want()
            await self._waiting
        finally:
            self._waiting = None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

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
        self._over = self._exhausted = True
        self._wake()
        try:
            if self._task is not None:
                await cancel_and_wait(self._task)
        finally:
            await super()._close()

    @property
    def leftover(self) -> str | None:
        if self._task is not None and not self._task.done():
            return "1 task"
        return None if self._exhausted else super().leftover

    def abandon(self) -> None:
        task = self._task
        if task is not None:
            try:
                task.get_loop().call_soon_threadsafe(task.cancel)
            except RuntimeError:  # the loop is closed, and the task with it
                pass
        super().abandon()
