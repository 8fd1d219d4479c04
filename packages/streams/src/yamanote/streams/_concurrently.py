"""The concurrent operators as functions: over any iterables, not only streams."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import Any, TypeAlias, TypeVar, overload

from yamanote.streams._arguments import require_count, require_function
from yamanote.streams._handle import require_sources, take_over
from yamanote.streams._stream import Stream, stream_of
from yamanote.streams._zip_concurrently import ZipConcurrently

__all__ = ["buffer_aiter", "map_concurrently", "zip_concurrently"]

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
U = TypeVar("U")

Source: TypeAlias = AsyncIterable[T] | Iterable[T]


def map_concurrently(
    function: Callable[[T], Awaitable[U]], source: Source[T], *, concurrency: int, ordered: bool = True
) -> Stream[U]:
    """What `function` gives for each item of `source`, up to `concurrency` calls at a time.

    The same as ``iter(source).map(function, concurrency=concurrency, ordered=ordered)``: see `Stream.buffered` for
    order, errors and cancel safety.

    >>> from yamanote import streams
    >>> from yamanote.runtime import run
    >>> async def double(number):
    ...     return number * 2
    >>> run(streams.map_concurrently(double, [1, 2, 3], concurrency=2).collect())
    [2, 4, 6]
    """
    require_function("function", function)
    require_count("concurrency", concurrency)
    return Stream(source).map(function, concurrency=concurrency, ordered=ordered)


def buffer_aiter(source: Source[T], size: int | None) -> Stream[T]:
    """The items of `source`, of which up to `size` are pulled ahead, any number if that is None.

    The same as ``iter(source).prefetch(size)``: see `Stream.prefetch`.
    """
    if size is not None:
        require_count("size", size)
    return Stream(source).prefetch(size)


@overload
def zip_concurrently(first: Source[T1], /) -> Stream[tuple[T1]]: ...
@overload
def zip_concurrently(first: Source[T1], second: Source[T2], /) -> Stream[tuple[T1, T2]]: ...
@overload
def zip_concurrently(first: Source[T1], second: Source[T2], third: Source[T3], /) -> Stream[tuple[T1, T2, T3]]: ...
@overload
def zip_concurrently(
    first: Source[T1], second: Source[T2], third: Source[T3], fourth: Source[T4], /
) -> Stream[tuple[T1, T2, T3, T4]]: ...
@overload
def zip_concurrently(*sources: Source[T]) -> Stream[tuple[T, ...]]: ...
def zip_concurrently(*sources: Source[Any]) -> Stream[tuple[Any, ...]]:
    """Tuples of one item of each source, which are awaited together in each round.

    A round takes as long as the slowest source, where `Stream.zip` takes as long as all of them. No source is asked for
    the next item before the consumer asks for the next tuple. The first source that ends or fails ends the stream: what
    the others had given in that round is dropped, and all are closed. Without sources it is empty.

    Raises TypeError for what cannot be iterated over. **Cancel safety**: nothing is lost; what has come of a round
    stays.

    >>> from yamanote import streams
    >>> from yamanote.runtime import run
    >>> run(streams.zip_concurrently("abc", range(2)).collect())
    [('a', 0), ('b', 1)]
    """
    require_sources(**{f"sources[{number}]": source for number, source in enumerate(sources)})
    return stream_of(ZipConcurrently(*map(take_over, sources)), *sources)
