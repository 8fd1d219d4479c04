"""Zip concurrently: one item of each of several sources at a time, all awaited together.

Invariant: each source is asked for one item per round, and for the next one only after that round has been given. What
has come of a round stays until it is complete, so a pull that is cancelled loses nothing. The first source that ends or
fails ends the stream, at once: without it the round cannot be completed.

Each source that may wait has a feeder. The others are pulled by whoever pulls here, and first: if one of them has
ended, the rest is not asked in vain.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, TypeVar

from yamanote.runtime import BUDGET, cancel_and_wait, shield_wait, start_task, yield_now
from yamanote.streams._feeder import Feeder
from yamanote.streams._operator import Operator
from yamanote.streams._pipeline import Pipeline

__all__ = ["ZipConcurrently"]

T_co = TypeVar("T_co", covariant=True)


class ZipConcurrently(Operator[T_co]):
    """A tuple of each round."""

    __slots__ = ("_exhausted", "_feeders", "_left", "_loop", "_round", "_tasks", "_waiting")

    def __init__(self, *sources: Pipeline[Any]) -> None:
        super().__init__(*sources)
        self._round: dict[int, Any] = {}
        """What has come of this round, by the number of its source."""
        self._feeders = {
            number: Feeder(source, partial(self._accept, number), self._exhaust)
            for number, source in enumerate(sources)
            if source.waits
        }
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._exhausted = not sources
        """Whether a source has ended, with `_error` or without."""
        self._left = BUDGET

    async def pull(self) -> T_co:
        if not self._left:
            self._left = BUDGET
            await yield_now()
        self._left -= 1
        if self._waiting is not None:
            raise RuntimeError(f"{self} is being pulled by another task already")
        if not self._exhausted:
            await self._pull_those_that_never_wait()
        if not self._exhausted:
            self._ask_those_that_wait()
        while not self._exhausted and len(self._round) < len(self._sources):
            await self._wait()
        if self._exhausted:
            if not self._over:
                await self._end(self._error)
            self.raise_end()
        items = tuple([self._round[number] for number in range(len(self._sources))])
        self._round.clear()
        return items  # type: ignore[return-value]

    async def _pull_those_that_never_wait(self) -> None:
        for number, source in enumerate(self._sources):
            if not source.waits and number not in self._round and not self._exhausted:
                try:
                    self._round[number] = await source.pull()
                except StopAsyncIteration:
                    self._exhaust(None)
                except Exception as error:
                    self._exhaust(error)

    def _ask_those_that_wait(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            for feeder in self._feeders.values():
                task = start_task(feeder.run())
                task.add_done_callback(self._stop)
                self._tasks.append(task)
        else:
            for number, feeder in self._feeders.items():
                if number not in self._round:
                    feeder.want()

    async def _wait(self) -> None:
        """Wait until the round is complete, or never will be."""
        assert self._loop is not None
        self._waiting = self._loop.create_future()
        self._left = BUDGET
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _accept(self, number: int, item: Any) -> bool:
        self._round[number] = item
        if len(self._round) == len(self._sources):
            self._wake()
        return False

    def _exhaust(self, failure: BaseException | None) -> None:
        if not self._exhausted:
            self._exhausted = True
            self._error = failure
            self._wake()
        elif isinstance(failure, Exception):
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"a source of {self} failed, which had ended before", "exception": failure}
            )

    def _stop(self, task: asyncio.Task[None]) -> None:
        if not self._exhausted:  # it was cancelled before its first step, and could not say so
            self._exhaust(asyncio.CancelledError())

    async def _close(self) -> None:
        stopped, self._over, self._exhausted = self._over, True, True
        self._wake()
        try:
            if stopped and self._tasks:  # to cancel them again would cut their clean-up short
                await shield_wait(asyncio.gather(*self._tasks, return_exceptions=True))
            else:
                await cancel_and_wait(*self._tasks)
        finally:
            self._round.clear()
            await super()._close()

    @property
    def leftover(self) -> str | None:
        running = sum(not task.done() for task in self._tasks)
        if running:
            return f"{running} task{'s' * (running > 1)}"
        return None if self._over else super().leftover

    def abandon(self) -> None:
        if self._loop is not None:
            try:
                for task in self._tasks:
                    self._loop.call_soon_threadsafe(task.cancel)
            except RuntimeError:  # the loop is closed, and its tasks with it
                pass
        super().abandon()

    def __str__(self) -> str:
        return f"zip_concurrently({', '.join(map(str, self._sources))})"
