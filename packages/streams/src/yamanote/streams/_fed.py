"""Fed: an operator that waits for its source and for other things as well, so that a task pulls the source.

Invariant: there is one feeder, begun by the first pull; it pulls while the operator wants more. A pull here only
looks, waits and then takes, so one that is cancelled loses nothing: what the source has given meanwhile is there for
the next one. A failure of the source comes behind all that it gave before. Closing throws away what nobody has taken.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Any, TypeVar

from yamanote.streams._feeder import Feeder
from yamanote.streams._operator import Operator
from yamanote.streams._pipeline import Pipeline

__all__ = ["Fed"]

T_co = TypeVar("T_co", covariant=True)


class Fed(Operator[T_co]):
    """Gives what is due; until then it waits, and its feeder pulls the source."""

    __slots__ = ("_exhausted", "_feeder", "_waiting")

    def __init__(self, source: Pipeline[Any]) -> None:
        super().__init__(source)
        self._feeder: Feeder | None = None  # only while it is at work: both refer to each other
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

    @abstractmethod
    def _forget(self) -> None:
        """Hold nothing any more."""

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
        await self._finish()

    async def _wait(self) -> None:
        """Have the source pulled, and wait until `_wake` is called."""
        if self._waiting is not None:
            raise RuntimeError(f"{self} is being pulled by another task already")
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            if self._feeder is None and not self._exhausted:
                self._feeder = Feeder(self._sources[0], self._accept, self._exhaust)
                self._feeder.start()
            elif self._has_room():
                self._want()
            await self._waiting
        finally:
            self._waiting = None

    def _want(self) -> None:
        """Have the source pulled, if it rests."""
        if self._feeder is not None:
            self._feeder.want()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _exhaust(self, failure: BaseException | None) -> None:
        self._feeder = None
        if not self._exhausted:  # else it has been closed
            self._exhausted = True
            self._error = failure
        elif not isinstance(failure, asyncio.CancelledError | None):  # nobody pulls any more
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"closing {self} failed", "exception": failure}
            )
        self._wake()

    async def _close(self) -> None:
        self._over = self._exhausted = True
        self._wake()
        try:
            if self._feeder is not None:
                await self._feeder.stop()
        finally:
            self._forget()
            await super()._close()

    @property
    def leftover(self) -> str | None:
        if self._feeder is not None:
            return "1 task"
        return None if self._exhausted else super().leftover

    def abandon(self) -> None:
        if self._feeder is not None:
            self._feeder.abandon()
        super().abandon()
