"""Stream: the handle of a pipeline, with the operators."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar, overload

from yamanote.streams._arguments import is_async, name_of, require_count, require_function, require_seconds
from yamanote.streams._buffered import Ordered, Unordered
from yamanote.streams._calls import FilterCalls, MapCalls
from yamanote.streams._chunks_timeout import ChunksTimeout
from yamanote.streams._pipeline import Awaited, Immediate, Pipeline, explained
from yamanote.streams._stages import Chunks, Enumerate, Filter, Map, Stage, Take

if TYPE_CHECKING:
    from yamanote.sinks import Sink

__all__ = ["Stream", "async_stream", "iter"]

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")


class Stream(Generic[T_co]):
    """Items that arrive one after another, and what is to be done with them.

    Make one with `iter` or `async_stream`; consume it with ``async for`` or with a terminal such as `collect`. Nothing
    is pulled from the source before it is asked for. A stream can be consumed once, by one task at a time.

    **Functions** may be plain or async everywhere; which of the two is decided when the operator is applied, by how the
    function was defined.

    **Ownership:** a stream owns its source, and an operator takes over the stream that it is applied to, which refuses
    to be used afterwards. What is owned is closed as soon as the stream ends or fails, when a terminal is left in any
    way, and by `aclose` and ``async with``: use the latter if you may leave an ``async for`` early. A stream that is
    merely dropped, with tasks that run or an async generator that has begun, cancels them and emits a ResourceWarning.

    **Errors** of the source or of a function are raised at their place, once; after that the stream is at its end.

    **Cancel safety:** pulling an item may be cancelled and repeated. Nothing is lost as long as the source loses
    nothing: an async generator that is cancelled while it waits is finished.

    >>> from yamanote import streams
    >>> from yamanote.runtime import run
    >>> async def main():
    ...     return await streams.iter(range(10)).map(lambda n: n * n).filter(lambda n: n % 2).collect()
    >>> run(main())
    [1, 9, 25, 49, 81]
    """

    __slots__ = ("__weakref__", "_pipeline")

    _pipeline: Pipeline[T_co]

    @overload
    def __init__(self, source: AsyncIterable[T_co]) -> None: ...
    @overload
    def __init__(self, source: Iterable[T_co]) -> None: ...
    def __init__(self, source: AsyncIterable[T_co] | Iterable[T_co]) -> None:
        """A stream of what `source` gives; the same as `iter`."""
        if isinstance(source, Stream):
            self._pipeline = source._owned
            source._pipeline = _Moved(self)
        elif isinstance(source, AsyncIterable):
            self._pipeline = Awaited(source)
        elif isinstance(source, Iterable) or hasattr(source, "__getitem__"):
            self._pipeline = Immediate(source)
        else:
            raise TypeError(f"source must be something to iterate over, plain or async, not {source!r}")

    # Element-wise operators

    @overload
    def map(self, function: Callable[[T_co], Awaitable[U]], *, concurrency: int, ordered: bool = True) -> Stream[U]: ...
    @overload
    def map(self, function: Callable[[T_co], Coroutine[Any, Any, U]]) -> MappedStream[U]: ...
    @overload
    def map(self, function: Callable[[T_co], U]) -> Stream[U]: ...
    def map(
        self, function: Callable[[T_co], Any], *, concurrency: int | None = None, ordered: bool = True
    ) -> Stream[Any]:
        """`function` of each item.

        An async function is awaited for one item after the other; with `concurrency`, or with `buffered` or
        `buffered_unordered` right behind, for up to so many at a time. A plain function is called, and what it returns
        is the item, even if that can be awaited.

        Raises TypeError and ValueError for a wrong `concurrency`. **Cancel safety**: an item whose call was cancelled
        is kept, and the call made again.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> async def double(number):
        ...     return number * 2
        >>> run(streams.iter([1, 2, 3]).map(double, concurrency=2).collect())
        [2, 4, 6]
        """
        require_function("function", function)
        if concurrency is not None:
            require_count("concurrency", concurrency)
            calls = self._with(Map(function))
            return calls.buffered(concurrency) if ordered else calls.buffered_unordered(concurrency)
        if is_async(function):
            return self._moved_into(MapCalls(self._owned, function), MappedStream)
        return self._with(Map(function))

    def filter(self, predicate: Callable[[T_co], object]) -> Stream[T_co]:
        """The items for which `predicate` gives something true.

        **Cancel safety**: an item whose (async) predicate was cancelled is kept, and asked about again.
        """
        require_function("predicate", predicate)
        if is_async(predicate):
            return self._moved_into(FilterCalls(self._owned, predicate))  # type: ignore[arg-type]
        return self._with(Filter(predicate))

    def enumerate(self, start: int = 0) -> Stream[tuple[int, T_co]]:
        """Each item with its number, counted from `start`."""
        if isinstance(start, bool) or not isinstance(start, int):
            raise TypeError(f"start must be a whole number, not {start!r}")
        return self._with(Enumerate(start))

    def take(self, count: int) -> Stream[T_co]:
        """The first `count` items; nothing behind them is pulled, and the source is closed. 0 gives an empty stream.

        Raises TypeError or ValueError unless `count` is a whole number, at least 0.
        """
        require_count("count", count, least=0)
        return self._with(Take(count))

    def chunks(self, count: int) -> Stream[list[T_co]]:
        """Lists of `count` items, the last one with what is left.

        An error takes the place of the chunk in which it happened. Raises TypeError or ValueError unless `count` is a
        whole number, at least 1. **Cancel safety**: what has been gathered is kept.
        """
        require_count("count", count)
        return self._with(Chunks(count))

    def chunks_timeout(self, count: int, seconds: float) -> Stream[list[T_co]]:
        """Lists of up to `count` items; one that is not full is given `seconds` after its first item came.

        Never an empty list. What is left comes when the source ends or fails, before the error. Time is the running
        loop's. The source is pulled by a task of the stream's own, while somebody waits for a chunk, and never
        cancelled by the clock.

        Raises TypeError or ValueError unless `count` is a whole number, at least 1, and `seconds` a number above 0.
        **Cancel safety**: what has been gathered is kept.
        """
        require_count("count", count)
        require_seconds("seconds", seconds)
        return self._moved_into(ChunksTimeout(self._owned, count, seconds))

    # Concurrent operators

    def buffered(self: Stream[Awaitable[U]], limit: int) -> Stream[U]:
        """Await the items, up to `limit` at a time, and give their results in the order of the source.

        Each runs as a task of its own. The source is pulled only when fewer than `limit` run or wait to be given, so a
        slow consumer slows it down. Right behind a `map` with an async function, `limit` calls of it run at a time.

        The first error in that order cancels the others, waits for them, and is raised; an error of the source comes
        behind the results of all items before it. An item that cannot be awaited is such an error, a TypeError. Raises
        TypeError or ValueError unless `limit` is a whole number, at least 1.

        **Cancel safety**: the tasks go on, and the next pull has what they gave.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> async def fetch(url):
        ...     return url.upper()
        >>> async def main():
        ...     async with streams.iter(["a", "b", "c"]).map(fetch).buffered(10) as pages:
        ...         return [page async for page in pages]
        >>> run(main())
        ['A', 'B', 'C']
        """
        require_count("limit", limit)
        return self._moved_into(Ordered(self._owned, limit))

    def buffered_unordered(self: Stream[Awaitable[U]], limit: int) -> Stream[U]:
        """Like `buffered`, with the results in the order in which they are ready."""
        require_count("limit", limit)
        return self._moved_into(Unordered(self._owned, limit))

    # Terminals

    async def collect(self) -> list[T_co]:
        """All items, in a list. The loop gets its turn now and then, even if nothing ever waits.

        **Cancel safety**: none; what has been collected is gone, and the stream is closed.
        """
        async with self:
            return await self._pipeline.collect()

    async def for_each(self, function: Callable[[T_co], object]) -> None:
        """Call `function` with each item; await it before the next one is pulled, if it is async.

        **Cancel safety**: an item whose call was cancelled is gone, and the stream is closed.
        """
        require_function("function", function)
        async with self:
            if not is_async(function):
                await self._pipeline.drain(function)
                return
            async for item in self:
                try:
                    await function(item)  # type: ignore[misc]
                except StopAsyncIteration as error:
                    raise explained(error) from error

    async def forward(self, sink: Sink[T_co]) -> None:
        """Feed every item to `sink`, then flush and close it.

        The sink is closed in any case, so what it has accepted is written even if the stream fails or this call is
        cancelled. `Sink.send_all` leaves it open. Raises what the stream or the sink raises.

        **Cancel safety**: an item that the sink has not accepted is gone, and the stream is closed.
        """
        async with self, sink:
            async for item in self:
                await sink.feed(item)

    # Iterating and closing

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, T_co]:
        return self._pipeline.pull()

    async def aclose(self) -> None:
        """Close the source, cancel what runs, and wait until that is done. Closing again does nothing.

        Never raises the cancellations that it asked for. **Cancel safety**: tasks are waited for all the same.
        """
        await self._pipeline.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is GeneratorExit:  # the coroutine is being thrown away, and cannot wait any more
            self._pipeline.abandon()
        else:
            await self._pipeline.close()

    def __del__(self) -> None:
        pipeline = getattr(self, "_pipeline", None)  # none if the source was refused
        if pipeline is None:
            return
        leftover = pipeline.leftover
        if leftover is not None:
            pipeline.abandon()
            warnings.warn(
                f"{self!r} was dropped with {leftover}: use `async with`, or aclose()",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def __repr__(self) -> str:
        return f"<{Stream.__name__} {self._pipeline}>"

    @property
    def _owned(self) -> Pipeline[T_co]:
        """The pipeline, for an operator that takes it over."""
        if isinstance(self._pipeline, _Moved):
            self._pipeline.refuse()
        return self._pipeline

    def _with(self, stage: Stage) -> Stream[Any]:
        return self._moved_into(self._owned.then(stage))

    def _moved_into(self, pipeline: Pipeline[Any], kind: type[Stream[Any]] | None = None) -> Stream[Any]:
        stream: Stream[Any] = object.__new__(kind or Stream)
        stream._pipeline = pipeline
        self._pipeline = _Moved(stream)
        return stream


class MappedStream(Stream[T_co]):
    """What an async function gives: awaited one after the other, unless a buffer is right behind."""

    __slots__ = ()

    def buffered(self, limit: int) -> Stream[T_co]:  # type: ignore[override]
        """Run up to `limit` calls at a time, with the results in the order of the source; else as `Stream.buffered`."""
        require_count("limit", limit)
        return self._moved_into(Ordered(self._uncalled(), limit))

    def buffered_unordered(self, limit: int) -> Stream[T_co]:  # type: ignore[override]
        """Like `buffered`, with the results in the order in which they are ready."""
        require_count("limit", limit)
        return self._moved_into(Unordered(self._uncalled(), limit))

    def _uncalled(self) -> Pipeline[Any]:
        pipeline = self._owned
        return pipeline.uncalled() if isinstance(pipeline, MapCalls) else pipeline


class _Moved(Pipeline[Any]):
    """In place of a pipeline that another stream has taken over."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Stream[Any]) -> None:
        self._stream = stream

    def refuse(self) -> None:
        raise RuntimeError(f"this stream has been taken over by {self._stream!r}: use that one")

    async def pull(self) -> Any:
        self.refuse()

    async def _close(self) -> None:
        # Whoever closes the stream that he began with means all that has become of it.
        await self._stream.aclose()

    @property
    def leftover(self) -> str | None:
        return None

    def __str__(self) -> str:
        return str(self._stream._pipeline)


@overload
def iter(source: AsyncIterable[T]) -> Stream[T]: ...
@overload
def iter(source: Iterable[T]) -> Stream[T]: ...
def iter(source: AsyncIterable[T] | Iterable[T]) -> Stream[T]:
    """A stream of what `source` gives: any iterable, or any async iterable (preferred if it is both).

    The stream owns the iterator from now on: a generator is closed with it, and so is an async iterator that has an
    `aclose` or `close` method (an async generator, a stream, a receiver).

    Raises TypeError for what cannot be iterated over.

    >>> from yamanote import streams
    >>> from yamanote.runtime import run
    >>> run(streams.iter("abc").enumerate().collect())
    [(0, 'a'), (1, 'b'), (2, 'c')]
    """
    return Stream(source)


@overload
def async_stream(function: Callable[P, AsyncIterable[T]]) -> Callable[P, Stream[T]]: ...
@overload
def async_stream(function: Callable[P, Iterable[T]]) -> Callable[P, Stream[T]]: ...
def async_stream(function: Callable[P, AsyncIterable[T] | Iterable[T]]) -> Callable[P, Stream[T]]:
    """Make a generator function, async or plain, return a `Stream`.

    Nothing of the function runs before the first item is asked for. Raises TypeError for an ``async def`` without
    ``yield``.

    >>> from yamanote import streams
    >>> from yamanote.runtime import run
    >>> @streams.async_stream
    ... async def countdown(start):
    ...     while start:
    ...         yield start
    ...         start -= 1
    >>> run(countdown(3).collect())
    [3, 2, 1]
    """
    require_function("function", function)
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"{name_of(function)} gives a coroutine, not items: it needs a `yield`")

    @functools.wraps(function)
    def stream(*args: P.args, **kwargs: P.kwargs) -> Stream[T]:
        return Stream(function(*args, **kwargs))

    return stream
