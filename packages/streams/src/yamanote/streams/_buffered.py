"""Buffered: items that are awaitables, awaited several at a time.

Invariant: at most `limit` of them run or wait to be delivered; the source is asked for another only when there is
room. Each runs as a task of its own from its first instruction on, and is owned here until it has ended. A pull only
looks, waits and then takes, so one that is cancelled loses nothing.

A source that never waits is pulled by whoever pulls here; any other by a feeder. That a task has ended is noted in its
last step: a done-callback would cost a handle for each, and come a turn of the loop later.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from inspect import isawaitable
from types import CoroutineType
from typing import Any, ClassVar, TypeVar

from yamanote.runtime import BUDGET, JoinHandle, cancel_and_wait, make_task, park, shield_wait, start_task, yield_now
from yamanote.streams._feeder import Feeder
from yamanote.streams._operator import Operator, begun_elsewhere
from yamanote.streams._pipeline import Pipeline

__all__ = ["Ordered", "Unordered"]

T_co = TypeVar("T_co", covariant=True)


class _Buffered(Operator[T_co]):
    in_order: ClassVar[bool]
    """Whether the results come in the order of the source, and not as they are ready."""

    __slots__ = (
        "_exhausted",
        "_failure",
        "_feeder",
        "_feeding",
        "_left",
        "_limit",
        "_loop",
        "_occupied",
        "_results",
        "_running",
        "_source",
        "_waiting",
    )

    def __init__(self, source: Pipeline[Any], limit: int) -> None:
        super().__init__(source)
        self._source = source
        self._limit = limit
        self._feeder = Feeder(source, self._accept, self._exhaust)
        self._feeding: asyncio.Task[None] | None = None
        self._loop: Any = None
        """Where this is being consumed; None before the first pull."""
        self._left = BUDGET
        self._waiting: asyncio.Future[None] | None = None
        self._results: deque[asyncio.Task[Any]] = deque()
        """In the order of delivery: all that have been started, or all that have ended."""
        self._running: dict[asyncio.Task[Any], None] = {}  # no set: they are cancelled in a certain order
        self._occupied = 0
        """How many items run or wait to be delivered."""
        self._exhausted = False
        self._failure: BaseException | None = None
        """Of the source: its place is behind all that it gave before."""

    async def pull(self) -> T_co:
        task = await self._next()
        try:
            return task.result()  # type: ignore[no-any-return]
        except BaseException as error:  # CancelledError too, if it is the task that was cancelled
            del task  # the error refers to this frame
            await self._end(error)
        self.raise_end()

    async def drain(self, put: Callable[[T_co], object]) -> None:
        while True:
            try:
                task: asyncio.Task[Any] | None = await self._next()
            except StopAsyncIteration:
                return
            while task is not None:
                try:
                    result = task.result()
                except BaseException as error:
                    del task
                    await self._end(error)
                    self.raise_end()
                put(result)
                task = self._take() if self._left > 0 else None

    async def _next(self) -> asyncio.Task[Any]:
        """Wait for the next task to deliver, and take it."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None:
                raise begun_elsewhere(self)
            self._loop = loop
        while not self._over:
            if self._left <= 0:
                self._left = BUDGET
                await yield_now()
                continue  # it may have been closed
            if self._occupied < self._limit and not self._exhausted:
                if self._source.waits:
                    self._feed()
                else:
                    try:
                        while self._occupied < self._limit:
                            self._start(await self._source.pull())
                    except StopAsyncIteration:
                        self._exhaust(None)
                    except Exception as error:
                        self._exhaust(error)
            task = self._take()
            if task is not None:
                return task
            if self._occupied or not self._exhausted:
                await self._wait()
            else:
                failure, self._failure = self._failure, None
                await self._end(failure)
                break
        self.raise_end()

    def _feed(self) -> None:
        if self._feeding is None:
            self._feeding = start_task(self._feeder.run(), eager=True)
            self._feeding.add_done_callback(self._stop_feeding)
        else:
            self._feeder.want()

    def _take(self) -> asyncio.Task[Any] | None:
        """The task that is to be delivered next, if it has ended."""
        results = self._results
        if results and results[0].done():
            self._occupied -= 1
            self._left -= 1
            return results.popleft()
        return None

    async def _wait(self) -> None:
        """Wait until `_take` may have something, or nothing will come any more."""
        if self._waiting is not None:
            raise RuntimeError(f"{self} is being pulled by another task already")
        self._waiting = asyncio.get_running_loop().create_future()
        self._left = BUDGET
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _accept(self, item: Any) -> bool:
        if self._over:  # the source did not heed that its feeder is cancelled
            if isinstance(item, Coroutine):
                item.close()
            return False
        self._start(item)
        return self._occupied < self._limit

    def _exhaust(self, failure: BaseException | None) -> None:
        self._exhausted = True
        self._failure = failure
        if self._over:
            self._report_failure()
        self._wake()

    def _stop_feeding(self, feeding: asyncio.Task[None]) -> None:
        if not self._exhausted:  # it was cancelled before its first step, and could not say so
            self._exhaust(asyncio.CancelledError())

    def _report_failure(self) -> None:
        """Tell the loop of a failure of the source that nobody pulls for any more."""
        failure, self._failure = self._failure, None
        if isinstance(failure, Exception):
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"the source of {self} failed, which ended before", "exception": failure}
            )

    def _start(self, item: Any) -> None:
        """Start `item`, which occupies a place from now on, and may have ended already."""
        coroutine = self._await(item if type(item) is CoroutineType else self._observed(item))
        self._occupied += 1  # now: what it does at once may be to pull here
        task = make_task(coroutine, self._loop, eager=True)
        if self.in_order:
            self._results.append(task)
            if self._waiting is not None and self._results[0].done():
                self._wake()
        if not task.done() and task not in self._running:  # it has yet to begin, and may be cancelled before
            self._running[task] = None
            task.add_done_callback(partial(self._forget, item))

    async def _await(self, awaitable: Awaitable[Any]) -> Any:
        task: Any = asyncio.current_task()
        self._running[task] = None
        try:
            return await awaitable
        finally:
            self._leave(task)

    def _leave(self, task: asyncio.Task[Any]) -> None:
        """`task` ends with this step."""
        del self._running[task]
        results = self._results
        if not self.in_order:
            results.append(task)
        if self._waiting is not None and results and results[0] is task:
            self._wake()

    def _forget(self, item: Any, task: asyncio.Task[Any]) -> None:
        if task in self._running:  # it was cancelled before it began
            self._leave(task)
            if isinstance(item, Coroutine):
                item.close()

    def _observed(self, item: Any) -> Awaitable[Any]:
        """What to await for `item`. A future or a task belongs to somebody else: it goes on if nobody waits here."""
        if asyncio.isfuture(item):
            item = JoinHandle(item)
        if isinstance(item, JoinHandle):
            return park(item)
        if isawaitable(item):
            return item
        raise TypeError(f"{self} needs items that can be awaited, not {item!r}")

    async def _close(self) -> None:
        tasks: list[asyncio.Task[Any]] = [*self._running]
        if self._feeding is not None:
            tasks.append(self._feeding)
        if asyncio.current_task() in tasks:
            raise RuntimeError(f"a task of {self} cannot close it")
        stopped, self._over = self._over, True
        try:
            if stopped and tasks:  # to cancel them again would cut their clean-up short
                await shield_wait(asyncio.gather(*tasks, return_exceptions=True))
            else:
                await cancel_and_wait(*tasks)
        finally:
            self._results.clear()
            self._report_failure()
            await super()._close()

    @property
    def leftover(self) -> str | None:
        count = len(self._running) + (self._feeding is not None and not self._feeding.done())
        if count:
            return f"{count} task{'s' * (count > 1)}"
        return None if self._over else super().leftover

    def abandon(self) -> None:
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._cancel)
            except RuntimeError:  # the loop is closed, and its tasks with it
                pass
        super().abandon()

    def _cancel(self) -> None:
        self._over = True
        if self._feeding is not None:
            self._feeding.cancel()
        for task in [*self._running]:
            task.cancel()


class Ordered(_Buffered[T_co]):
    """Results in the order of the source."""

    __slots__ = ()
    in_order = True

    def __str__(self) -> str:
        return f"{self._source}.buffered({self._limit})"


class Unordered(_Buffered[T_co]):
    """Results as they come."""

    __slots__ = ()
    in_order = False

    def __str__(self) -> str:
        return f"{self._source}.buffered_unordered({self._limit})"
