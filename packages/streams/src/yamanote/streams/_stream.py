"""Stream: the handle of a pipeline, with all operators."""

from __future__ import annotations

from typing import Any, TypeVar, cast, overload

from yamanote.streams._arguments import require_count
from yamanote.streams._buffered import Ordered, Unordered
from yamanote.streams._bytes import Bytes
from yamanote.streams._calls import Called
from yamanote.streams._concurrent import Concurrent
from yamanote.streams._elementwise import ElementWise
from yamanote.streams._handle import Handle
from yamanote.streams._joining import Joining
from yamanote.streams._merging import Merging
from yamanote.streams._peekable import Peekable
from yamanote.streams._pipeline import Pipeline
from yamanote.streams._recovering import Recovering
from yamanote.streams._sharing import Sharing
from yamanote.streams._terminals import NOT_GIVEN, Terminals
from yamanote.streams._timed import Timed

__all__ = ["MappedStream", "PeekableStream", "Stream", "stream_of"]

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")


class Stream(
    ElementWise[T_co],
    Joining[T_co],
    Concurrent[T_co],
    Merging[T_co],
    Timed[T_co],
    Bytes[T_co],
    Recovering[T_co],
    Sharing[T_co],
    Terminals[T_co],
):
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

    __slots__ = ()

    def _moved_into(self, pipeline: Pipeline[Any], *others: object, mapped: bool = False) -> Stream[Any]:
        kind = MappedStream if mapped else PeekableStream if isinstance(pipeline, Peekable) else Stream
        return stream_of(pipeline, self, *others, kind=kind)


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
        return pipeline.uncalled() if isinstance(pipeline, Called) else pipeline


class PeekableStream(Stream[T_co]):
    """A stream whose next item can be looked at: `Stream.peekable` gives it."""

    __slots__ = ()

    @overload
    async def peek(self) -> T_co: ...
    @overload
    async def peek(self, default: U) -> T_co | U: ...
    async def peek(self, default: Any = NOT_GIVEN) -> Any:
        """What `anext` would give, without taking it: the next pull gives the same item.

        At the end it returns `default`, or raises StopAsyncIteration, as `anext` does. An error of the source is raised
        here; then the stream is at its end. **Cancel safety**: as pulling; what has been looked at is never lost.
        """
        try:
            return await self._peekable.peek()
        except StopAsyncIteration:
            if default is NOT_GIVEN:
                raise
            return default

    @property
    def _peekable(self) -> Peekable[T_co]:
        return cast("Peekable[T_co]", self._owned)


def stream_of(pipeline: Pipeline[Any], *sources: object, kind: type[Stream[Any]] = Stream) -> Stream[Any]:
    """A stream of `pipeline`, which owns what was taken over from `sources`: those that are streams now refer to it."""
    stream: Stream[Any] = object.__new__(kind)
    stream._pipeline = pipeline
    stream._again = None
    stream._begun = False
    for source in sources:
        if isinstance(source, Handle):
            source._give_to(stream)
    return stream
