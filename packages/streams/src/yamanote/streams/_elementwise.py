"""The operators that work on one item after another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar, overload

from yamanote.streams._arguments import is_async, require_count, require_function
from yamanote.streams._calls import FilterCalls, MapCalls
from yamanote.streams._handle import Handle
from yamanote.streams._stages import Chunks, Enumerate, Filter, Map, Take

if TYPE_CHECKING:
    from yamanote.streams._stream import MappedStream, Stream

__all__ = ["ElementWise"]

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")


class ElementWise(Handle[T_co]):
    """One item after another."""

    __slots__ = ()

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
            return self._moved_into(MapCalls(self._owned, function), mapped=True)
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
