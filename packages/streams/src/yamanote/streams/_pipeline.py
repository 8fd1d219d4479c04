"""Pipelines: what drives a stream, from its source through a run of stages.

Invariant: an item is taken from the source only when somebody asks for a result, and the next one only after the stages
are done with it. State changes after the await, so a pull that is cancelled can be repeated and loses nothing that the
source did not lose. A pipeline is over with its end or with its first error, which is raised once; it has closed what
it owns by then, and each later pull is the end again. One task pulls at a time; where one waits, a second is refused,
and one that closes asks it to leave.

Ready is synchronous, with a budget: `pull` lets the loop turn once per `BUDGET` items of the source, `drain` once per
batch of the source, which starts there, grows while batches are short, and shrinks while they are long.
"""

from __future__ import annotations

import asyncio
import builtins
import inspect
from abc import ABC, abstractmethod
from asyncio import current_task
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine
from itertools import repeat
from typing import Any, Generic, NoReturn, TypeVar

from yamanote.runtime import BUDGET, yield_now
from yamanote.streams._arguments import name_of
from yamanote.streams._stages import Enough, Finish, Put, Stage, add_stage, as_written, one_portion
from yamanote.streams._visit import Visit

__all__ = ["Awaited", "Pace", "Pipeline", "explained"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Pipeline(ABC, Generic[T_co]):
    """What a `Stream` is the handle of. Whoever holds one closes it."""

    __slots__ = ("_error",)

    waits = True
    """Whether a pull may wait for something other than its turn."""

    _error: BaseException | None
    """What ended this, until it has been raised."""

    def raise_end(self) -> NoReturn:
        """Raise the error that ended this, once, and then the end."""
        error, self._error = self._error, None
        if error is None:
            raise StopAsyncIteration
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame

    @abstractmethod
    async def pull(self) -> T_co:
        """The next item; StopAsyncIteration at the end, and for ever after."""

    @abstractmethod
    async def _close(self) -> None:
        """Be over, and wait until everything that is owned has stopped. May be called again."""

    async def close(self) -> None:
        """Stop, and wait until everything that is owned has stopped. May be called again."""
        self._error = None
        await self._close()

    async def _end(self, error: BaseException | None = None) -> None:
        """Be over, with `error` to be raised next. It waits in its place: closing may be cancelled."""
        self._error = None if error is None else explained(error)
        try:
            await self._close()
        except Exception as further:
            if self._error is None:
                self._error = further
            else:
                asyncio.get_running_loop().call_exception_handler(
                    {"message": f"closing {self} failed as well", "exception": further}
                )

    @property
    @abstractmethod
    def leftover(self) -> str | None:
        """What would be left behind if this were dropped now."""

    def abandon(self) -> None:
        """Ask what is left behind to stop, without waiting. For finalizers: any thread, never raises."""

    def puller(self) -> Callable[[], Coroutine[Any, Any, T_co]]:
        """`pull`, or something cheaper for an owner who alone pulls this, and closes it at its end or first error."""
        return self.pull

    async def drain(self, put: Callable[[T_co], object]) -> None:
        """Put every item that is still to come."""
        while True:
            try:
                item = await self.pull()
            except StopAsyncIteration:
                return
            put(item)

    async def collect(self) -> list[T_co]:
        """Every item that is still to come."""
        items: list[T_co] = []
        await self.drain(items.append)
        return items

    def then(self, stage: Stage) -> Pipeline[Any]:
        """This pipeline with one more stage. Nobody uses this one any more."""
        return Awaited(self, stage)


class Pace:
    """How many items a drain takes before the loop gets its turn: 128 at first, and 1 to 1024 by the time they take."""

    __slots__ = ("_loop", "_since", "size")

    def __init__(self) -> None:
        self.size = BUDGET
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()

    async def rest(self) -> None:
        if self._loop.time() - self._since > 0.001:  # a millisecond; a turn costs a few microseconds
            self.size = max(1, min(BUDGET, self.size // 2))
        elif self.size < 8 * BUDGET:
            self.size *= 2
        await yield_now()
        self._since = self._loop.time()


class Awaited(Pipeline[T_co]):
    """Something to await for each item, and stages: an item is put through the stages, the results wait in a queue."""

    __slots__ = (
        "_close_source",
        "_closed",
        "_finish",
        "_left",
        "_over",
        "_pull_source",
        "_put",
        "_ready",
        "_source",
        "_stages",
        "_started",
        "_visit",
    )

    def __init__(self, source: Pipeline[Any] | AsyncIterable[Any], *stages: Stage) -> None:
        self._source = source
        self._pull_source: Callable[[], Awaitable[Any]]
        self._close_source: Callable[[], object] | None
        if isinstance(source, Pipeline):
            self._pull_source = source.pull
            self._close_source = source.close
        else:
            iterator = builtins.aiter(source)
            self._pull_source = iterator.__anext__
            self._close_source = getattr(iterator, "aclose", None) or getattr(iterator, "close", None)
        self._stages = list(stages)
        self._ready: deque[Any] = deque()
        self._put: Put = self._ready.append
        self._finish: Finish = _nothing
        self._left = BUDGET
        self._visit = Visit()
        self._started = False
        self._over = False
        self._closed = False
        self._error = None

    async def pull(self) -> T_co:
        ready = self._ready
        if ready:
            return ready.popleft()  # type: ignore[no-any-return]
        visit = self._visit
        if visit.task is not None:
            if self._over:  # that one closes
                await self._end_again()
            visit.refuse(self)
        visit.task = task = current_task()  # `begin` and `end`, without the calls
        if task is not None:
            visit.cancelling = task.cancelling()
        try:
            if not self._started:
                await self._start()
            while not ready:
                if self._over:
                    await self._end_again()
                if not self._left:
                    self._left = BUDGET
                    await yield_now()
                self._left -= 1
                try:
                    item = await self._pull_source()
                except StopAsyncIteration:
                    if not self._over:  # it has been closed meanwhile, and nobody wants what the stages have left
                        await self._finish_and_end()
                except Exception as error:
                    await self._end(error)
                else:
                    if self._over:
                        continue
                    try:
                        self._put(item)
                    except Enough:
                        await self._end()
                    except (Exception, asyncio.CancelledError) as error:  # nobody has cancelled us: nothing was awaited
                        await self._end(error)
            return ready.popleft()  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            if not visit.take_back():
                raise
        finally:
            if visit.left is None:
                visit.task = None
            else:
                visit.end()
        await self._end_again()

    async def _end_again(self) -> NoReturn:
        """Raise the end, or the error that has ended this, when the source is closed."""
        if not self._closed:  # a pull was cancelled meanwhile, or somebody closes it just now
            await self._end(self._error)
        self.raise_end()

    async def drain(self, put: Callable[[T_co], object]) -> None:
        visit = self._visit
        visit.begin(self)
        try:
            if not self._started:
                await self._start()
            ready = self._ready
            while ready:
                put(ready.popleft())
            if not self._over:
                await self._drain(put)
            elif self._error is not None:
                self.raise_end()
        except StopAsyncIteration as end:
            raise explained(end) from end
        except asyncio.CancelledError:
            if not visit.take_back():
                raise
        finally:
            self._over = True
            visit.end()

    async def _drain(self, put: Put) -> None:
        move = self._generate if inspect.isasyncgen(self._source) else self._fetch
        portions = self._stages[0].portions if self._stages else one_portion
        put, finish = self._link(put)
        pace = Pace()
        try:
            while True:
                for keep, count in portions(put, pace.size):
                    if not await move(keep, count):
                        finish()
                        return
                await pace.rest()
        except Enough:
            return

    async def _fetch(self, put: Put, count: int) -> bool:
        """Put up to `count` items of the source. Whether it has not ended."""
        pull = self._pull_source
        for _ in repeat(None, count):
            try:
                item = await pull()
            except StopAsyncIteration:
                return False
            put(item)
        return True

    async def _generate(self, put: Put, count: int) -> bool:
        """The same for an async generator, which the interpreter resumes without a call of ours: a fifth less time."""
        async for item in self._source:  # type: ignore[union-attr]  # not a pipeline
            put(item)
            count -= 1
            if not count:
                return True
        return False

    def puller(self) -> Callable[[], Coroutine[Any, Any, T_co]]:
        if self._started or self._stages or not inspect.isasyncgen(self._source):
            return self.pull
        self._started = True
        pull: Callable[[], Coroutine[Any, Any, Any]] = self._source.__anext__
        return pull

    async def _start(self) -> None:
        self._started = True
        self._put, self._finish = self._link(self._ready.append)
        if any(stage.full for stage in self._stages):
            await self._finish_and_end()

    def _link(self, put: Put) -> tuple[Put, Finish]:
        finish: Finish = _nothing
        for stage in reversed(self._stages):
            put, finish = stage.link(put, finish)
        return put, finish

    async def _finish_and_end(self) -> None:
        failure: BaseException | None = None
        try:
            self._finish()
        except Enough:
            pass
        except Exception as error:
            failure = error
        await self._end(failure)

    async def _close(self) -> None:
        self._over = self._started = True
        visit = self._visit
        await visit.wait_for_others()
        if self._closed or self._close_source is None:
            self._closed = True
            return
        pulls = visit.task is not None
        if not pulls:
            visit.begin(self)
        visit.closes = True
        try:
            closing = self._close_source()
            if inspect.isawaitable(closing):
                await closing
        except Exception:
            self._closed = True  # once is enough for what cannot be closed
            raise
        finally:
            visit.closes = False
            if not pulls:
                visit.end()
        self._closed = True

    async def close(self) -> None:
        self._ready.clear()
        await super().close()

    @property
    def leftover(self) -> str | None:
        if self._closed:
            return None
        if isinstance(self._source, Pipeline):
            return self._source.leftover
        if self._started and inspect.isasyncgen(self._source) and self._source.ag_frame is not None:
            return f"{name_of(self._source)}() not closed"
        return None

    def abandon(self) -> None:
        if isinstance(self._source, Pipeline):
            self._source.abandon()

    def then(self, stage: Stage) -> Pipeline[Any]:
        if self._started:
            return Awaited(self, stage)
        add_stage(self._stages, stage)
        return self

    def __str__(self) -> str:
        source = self._source if isinstance(self._source, Pipeline) else name_of(self._source)
        return as_written(source, *self._stages)


def _nothing() -> None:
    """The end behind the last stage."""


def explained(error: BaseException) -> BaseException:
    """What to raise for `error` in the name of a function: an end that it raised must not end the stream."""
    if isinstance(error, StopIteration | StopAsyncIteration):
        failure = RuntimeError(f"a function of the stream raised {type(error).__name__}")
        failure.__cause__ = error
        return failure
    return error
