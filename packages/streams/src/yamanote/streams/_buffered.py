"""Buffered: items that are awaitables, awaited several at a time.

Invariant: at most `limit` of them run or wait to be delivered; the source is asked for another only when there is
room. Each runs as a task of its own in a `CompletionQueue`, which owns it. A pull only looks, waits and
then takes, so one that is cancelled loses nothing.

A source that never waits is pulled by whoever pulls here; any other by a feeder, which is one more task in the queue.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from typing import Any, TypeVar

from yamanote.futures import CompletionQueue
from yamanote.runtime import BUDGET, yield_now
from yamanote.streams._feeder import Feeder
from yamanote.streams._pipeline import Pipeline

__all__ = ["Ordered", "Unordered"]

T_co = TypeVar("T_co", covariant=True)


class _Buffered(Pipeline[T_co]):
    __slots__ = (
        "_exhausted",
        "_failure",
        "_feeder",
        "_left",
        "_limit",
        "_loop",
        "_occupied",
        "_over",
        "_queue",
        "_source",
        "_waiting",
    )

    def __init__(self, source: Pipeline[Any], limit: int) -> None:
        self._source = source
        self._limit = limit
        self._queue: CompletionQueue[bool, Any] = CompletionQueue()
        """The key tells an item from the feeder, whose end is only a wake-up."""
        self._feeder: Feeder | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._left = BUDGET
        self._waiting = False
        self._occupied = 0
        """How many items run or wait to be delivered."""
        self._exhausted = False
        self._failure: BaseException | None = None
        """Of the source: its place is behind all that it gave before."""
        self._over = False
        self._error = None

    async def pull(self) -> T_co:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        while not self._over:
            if not self._left:
                self._left = BUDGET
                await yield_now()
            self._left -= 1
            if self._source.waits:
                self._feed()
            elif not self._exhausted and self._occupied < self._limit:
                try:
                    while self._occupied < self._limit:
                        self._start(await self._source.pull())
                except StopAsyncIteration:
                    self._exhaust(None)
                except Exception as error:
                    self._exhaust(error)
            task = self._take()
            if task is not None:
                self._occupied -= 1
                try:
                    return task.result()  # type: ignore[no-any-return]
                except BaseException as error:  # CancelledError too, if it is the task that was cancelled
                    await self._end(error)
            elif self._occupied or not self._exhausted:
                await self._wait()
            else:
                await self._end(self._failure)
        self.raise_end()

    @abstractmethod
    def _start(self, item: Any) -> None:
        """Start `item`, which occupies a place from now on."""

    @abstractmethod
    def _take(self) -> asyncio.Task[Any] | None:
        """The task that is to be delivered next, if it has ended."""

    def _note(self, entry: tuple[bool, asyncio.Task[Any]]) -> None:
        """Somebody waited for this completion."""

    async def _wait(self) -> None:
        """Wait until `_take` may have something."""
        if self._waiting:
            raise RuntimeError(f"{self} is being pulled by another task already")
        self._waiting = True
        try:
            self._note(await self._queue.pop())
        except LookupError:
            if not self._exhausted:  # and nothing runs: the feeder was cancelled before its first step
                self._exhaust(asyncio.CancelledError())
            elif not self._over:
                raise
        finally:
            self._waiting = False

    def _feed(self) -> None:
        if self._feeder is None:
            self._feeder = Feeder(self._source, self._accept, self._exhaust)
            self._queue.add(self._feeder.run(), key=False, eager=True)
        elif self._occupied < self._limit:
            self._feeder.want()

    def _accept(self, item: Any) -> bool:
        self._start(item)
        return self._occupied < self._limit

    def _exhaust(self, failure: BaseException | None) -> None:
        self._exhausted = True
        if self._over and isinstance(failure, Exception):  # nobody pulls any more
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"closing {self} failed", "exception": failure}
            )
        self._failure = failure

    def _run(self, item: Any) -> asyncio.Task[Any]:
        try:
            task = self._queue.add(item, key=True, eager=True)
        except TypeError:
            raise TypeError(f"{self} needs items that can be awaited, not {item!r}") from None
        self._occupied += 1
        return task

    async def _close(self) -> None:
        self._over = True
        try:
            await self._queue.aclose()
        finally:
            await self._source.close()

    @property
    def leftover(self) -> str | None:
        if self._over:
            return None
        if self._queue:
            return f"{len(self._queue)} tasks"
        return self._source.leftover

    def abandon(self) -> None:
        loop = self._loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._queue.cancel_all)
            except RuntimeError:  # the loop is closed, and its tasks with it
                pass
        self._source.abandon()


class Ordered(_Buffered[T_co]):
    """Results in the order of the source."""

    __slots__ = ("_window",)

    def __init__(self, source: Pipeline[Any], limit: int) -> None:
        super().__init__(source, limit)
        self._window: deque[asyncio.Task[Any]] = deque()

    def _start(self, item: Any) -> None:
        self._window.append(self._run(item))

    def _take(self) -> asyncio.Task[Any] | None:
        if self._window and self._window[0].done():
            # Completions are only wake-ups here: one is dropped for each result, so they cannot pile up.
            self._queue.pop_nowait()
            return self._window.popleft()
        return None

    def __str__(self) -> str:
        return f"{self._source}.buffered({self._limit})"


class Unordered(_Buffered[T_co]):
    """Results as they come."""

    __slots__ = ("_noted",)

    def __init__(self, source: Pipeline[Any], limit: int) -> None:
        super().__init__(source, limit)
        self._noted: tuple[bool, asyncio.Task[Any]] | None = None

    def _start(self, item: Any) -> None:
        self._run(item)

    def _take(self) -> asyncio.Task[Any] | None:
        entry, self._noted = self._noted or self._queue.pop_nowait(), None
        while entry is not None:
            is_item, task = entry
            if is_item:
                return task
            entry = self._queue.pop_nowait()
        return None

    def _note(self, entry: tuple[bool, asyncio.Task[Any]]) -> None:
        self._noted = entry

    def __str__(self) -> str:
        return f"{self._source}.buffered_unordered({self._limit})"
