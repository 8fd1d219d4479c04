"""Pipelines: what drives a stream, from its source through a run of stages.

Invariant: an item is taken from the source only when somebody asks for a result, and the next one only after the stages
are done with it. State changes after the await, so a pull that is cancelled can be repeated and loses nothing that the
source did not lose. A pipeline is over with its end or with its first error, which is raised once; it has closed what
it owns by then, and each later pull is the end again.

Ready is synchronous, with a budget: `pull` lets the loop turn once per `BUDGET` items of the source, `drain` once per
batch, which starts there and grows while batches are short.
"""

from __future__ import annotations

import asyncio
import builtins
import inspect
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, Generic, NoReturn, TypeVar

from yamanote.runtime import BUDGET, yield_now
from yamanote.streams._arguments import name_of
from yamanote.streams._stages import Enough, Finish, Put, Stage

__all__ = ["Awaited", "Immediate", "Pipeline", "explained"]

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


class _Pace:
    """How many items a drain takes before the loop gets its turn: 128, and up to 1024 while that takes no time."""

    __slots__ = ("_loop", "_since", "size")

    def __init__(self) -> None:
        self.size = BUDGET
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()

    async def rest(self) -> None:
        if self._loop.time() - self._since > 0.001:  # a millisecond; a turn costs a few microseconds
            self.size = BUDGET
        elif self.size < 8 * BUDGET:
            self.size *= 2
        await yield_now()
        self._since = self._loop.time()


class _Exhausted(Iterator[Any]):
    """Behind a source, tells that the source has ended."""

    __slots__ = ("reached",)

    def __init__(self) -> None:
        self.reached = False

    def __next__(self) -> Any:
        self.reached = True
        raise StopIteration


class Immediate(Pipeline[T_co]):
    """An iterable and stages: never waits, so the interpreter's own iterators drive it.

    The stages are attached to a part of the source at a time: between two parts the loop gets its turn, however few
    items come out at the other end.
    """

    __slots__ = ("_exhausted", "_iterator", "_label", "_over", "_part", "_source", "_stages", "_started", "_turn_due")

    waits = False

    def __init__(self, iterable: Iterable[Any]) -> None:
        self._iterator = builtins.iter(iterable)
        self._label = name_of(iterable)
        self._exhausted = _Exhausted()
        self._source = chain(self._iterator, self._exhausted)
        self._stages: list[Stage] = []
        self._part: Iterator[Any] = builtins.iter(())
        self._error = None
        self._started = False
        self._turn_due = False
        self._over = False

    async def pull(self) -> T_co:
        while True:
            try:
                for item in self._part:
                    return item  # type: ignore[no-any-return]
            except StopAsyncIteration as end:
                self._stop()
                raise explained(end) from end
            except BaseException:
                self._stop()
                raise
            if self._over:
                raise StopAsyncIteration
            if self._turn_due and not self._ended:
                self._turn_due = False
                await yield_now()
            self._next_part(BUDGET)

    async def drain(self, put: Callable[[T_co], object]) -> None:
        def put_all(items: Iterable[T_co]) -> None:
            for item in items:
                put(item)

        await self._drain(put_all)

    async def collect(self) -> list[T_co]:
        items: list[T_co] = []
        await self._drain(items.extend, gather=True)
        return items

    async def _drain(self, put_all: Callable[[Iterable[T_co]], object], *, gather: bool = False) -> None:
        pace = _Pace()
        while True:
            try:
                put_all(self._part)
                if self._over:
                    return
                if self._turn_due and not self._ended:
                    await pace.rest()
                self._next_part(pace.size, gather=gather)
            except (StopIteration, StopAsyncIteration) as end:
                self._stop()
                raise explained(end) from end
            except Exception:
                self._stop()
                raise

    @property
    def _ended(self) -> bool:
        return self._exhausted.reached or any(stage.full for stage in self._stages)

    def _next_part(self, size: int, *, gather: bool = False) -> None:
        """Attach the stages to what comes next; once, at the end, to nothing.

        To gather is to run them at once, for a terminal that wants everything and in case of an error nothing.
        """
        self._started = self._turn_due = True
        items: Iterator[Any]
        if self._ended:
            self._stop()
            items = builtins.iter(())
            for stage in self._stages:
                items = stage.attach_last(items)
            self._part = items
            return
        items = islice(self._source, size)
        for stage in self._stages[:-1]:
            items = stage.attach(items)
        for stage in self._stages[-1:]:
            items = builtins.iter(stage.gather(items)) if gather else stage.attach(items)
        self._part = items

    def _stop(self) -> None:
        self._over = True
        self._part = builtins.iter(())
        self._source = chain()
        if inspect.isgenerator(self._iterator):
            self._iterator.close()

    async def _close(self) -> None:
        self._stop()

    @property
    def leftover(self) -> str | None:
        return None  # an iterator that nobody refers to any more is finished by the interpreter

    def then(self, stage: Stage) -> Pipeline[Any]:
        if self._started:
            self._stages.append(stage)
            self._part = stage.attach_last(self._part) if self._over else stage.attach(self._part)
        else:
            _append(self._stages, stage)
        return self

    def __str__(self) -> str:
        return ".".join([self._label, *map(str, self._stages)])


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
        self._started = False
        self._over = False
        self._closed = False
        self._error = None

    async def pull(self) -> T_co:
        ready = self._ready
        if not self._started:
            await self._start()
        while not ready:
            if self._over:
                self.raise_end()
            if not self._left:
                self._left = BUDGET
                await yield_now()
            self._left -= 1
            try:
                item = await self._pull_source()
            except StopAsyncIteration:
                await self._finish_and_end()
            except Exception as error:
                await self._end(error)
            else:
                try:
                    self._put(item)
                except Enough:
                    await self._end()
                except Exception as error:
                    await self._end(error)
        return ready.popleft()  # type: ignore[no-any-return]

    async def drain(self, put: Callable[[T_co], object]) -> None:
        if not self._started:
            await self._start()
        ready = self._ready
        while ready:
            put(ready.popleft())
        if self._over:
            if self._error is not None:
                self.raise_end()
            return
        pull = self._pull_source
        feed, finish = self._link(put)
        pace = _Pace()
        try:
            while True:
                for _ in range(pace.size):
                    try:
                        item = await pull()
                    except StopAsyncIteration:
                        finish()
                        return
                    feed(item)
                await pace.rest()
        except Enough:
            return
        except StopAsyncIteration as end:
            raise explained(end) from end
        finally:
            self._over = True

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
        if not self._closed and self._close_source is not None:
            try:
                closing = self._close_source()
                if inspect.isawaitable(closing):
                    await closing
            except Exception:
                self._closed = True  # once is enough for what cannot be closed
                raise
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
        _append(self._stages, stage)
        return self

    def __str__(self) -> str:
        source = str(self._source) if isinstance(self._source, Pipeline) else name_of(self._source)
        return ".".join([source, *map(str, self._stages)])


def _append(stages: list[Stage], stage: Stage) -> None:
    merged = stages[-1].merged(stage) if stages else None
    if merged is None:
        stages.append(stage)
    else:
        stages[-1] = merged


def _nothing() -> None:
    """The end behind the last stage."""


def explained(error: BaseException) -> BaseException:
    """What to raise for `error` in the name of a function: an end that it raised must not end the stream."""
    if isinstance(error, StopIteration | StopAsyncIteration):
        failure = RuntimeError(f"a function of the stream raised {type(error).__name__}")
        failure.__cause__ = error
        return failure
    return error
