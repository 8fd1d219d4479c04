"""The operators that work on one item after another."""

from __future__ import annotations

import reprlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar, overload

from yamanote.streams._arguments import is_async, name_of, require_count, require_function
from yamanote.streams._calls import called, deciding
from yamanote.streams._counting import Chunks, Enumerate, Skip, Take
from yamanote.streams._handle import Handle
from yamanote.streams._memory import accumulating, changing, inspecting, skipping
from yamanote.streams._stages import Filter, FilterMap, FunctionStage, Map, TakeWhile

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
        return self._deciding(Map, function, f"map({name_of(function)})", mapped=is_async(function))

    def then(self, function: Callable[[T_co], Awaitable[U]]) -> Stream[U]:
        """What `function` returns for each item, awaited before the next item is pulled.

        For an async function it is the same as `map`, but for a buffer behind it, which finds results here. It awaits
        what a plain function returns as well: a future, say. **Cancel safety**: as with `map`.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> async def double(number):
        ...     return number * 2
        >>> run(streams.iter([1, 2]).then(lambda number: double(number + 1)).collect())
        [4, 6]
        """
        require_function("function", function)
        return self._moved_into(called(self._owned, Map, function, f"then({name_of(function)})"))

    def filter(self, predicate: Callable[[T_co], object]) -> Stream[T_co]:
        """The items for which `predicate` gives something true.

        **Cancel safety**: an item whose (async) predicate was cancelled is kept, and asked about again.
        """
        require_function("predicate", predicate)
        return self._deciding(Filter, predicate, f"filter({name_of(predicate)})")

    @overload
    def filter_map(self, function: Callable[[T_co], Coroutine[Any, Any, U | None]]) -> Stream[U]: ...
    @overload
    def filter_map(self, function: Callable[[T_co], U | None]) -> Stream[U]: ...
    def filter_map(self, function: Callable[[T_co], Any]) -> Stream[Any]:
        """`function` of each item, unless that is None: None cannot be an item here, while 0 and "" can.

        **Cancel safety**: as with `map`.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> run(streams.iter(["a", "b", "c"]).filter_map({"a": 0, "c": 2}.get).collect())
        [0, 2]
        """
        require_function("function", function)
        return self._deciding(FilterMap, function, f"filter_map({name_of(function)})")

    def enumerate(self, start: int = 0) -> Stream[tuple[int, T_co]]:
        """Each item with its number, counted from `start`."""
        if isinstance(start, bool) or not isinstance(start, int):
            raise TypeError(f"start must be a whole number, not {start!r}")
        return self._with(Enumerate(start))

    @overload
    def scan(self, initial: U, function: Callable[[U, T_co], Coroutine[Any, Any, U]]) -> Stream[U]: ...
    @overload
    def scan(self, initial: U, function: Callable[[U, T_co], U]) -> Stream[U]: ...
    def scan(self, initial: U, function: Callable[[U, T_co], Any]) -> Stream[U]:
        """Each new state: what `function` makes of the state before, which is `initial` at first, and the item.

        The arguments have the order of `fold`, which gives the last state only. **Cancel safety**: the state changes
        when an (async) call has ended; one that was cancelled is made again, with the same state and the same item.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> run(streams.iter([1, 2, 3]).scan(10, lambda total, number: total + number).collect())
        [11, 13, 16]
        """
        require_function("function", function)
        written = f"scan({reprlib.repr(initial)}, {name_of(function)})"
        return self._deciding(Map, accumulating(initial, function), written)

    def inspect(self, function: Callable[[T_co], object]) -> Stream[T_co]:
        """The same items; `function` has seen each before it is given. What it returns is of no interest.

        **Cancel safety**: `function` sees an item again if its (async) call was cancelled.
        """
        require_function("function", function)
        return self._deciding(Map, inspecting(function), f"inspect({name_of(function)})")

    def take(self, count: int) -> Stream[T_co]:
        """The first `count` items; nothing behind them is pulled, and the source is closed. 0 gives an empty stream.

        Raises TypeError or ValueError unless `count` is a whole number, at least 0.
        """
        require_count("count", count, least=0)
        return self._with(Take(count))

    def take_while(self, predicate: Callable[[T_co], object]) -> Stream[T_co]:
        """The items before the first for which `predicate` gives something false: there the stream ends.

        That item is pulled, and gone; nothing behind it is pulled, and the source is closed.

        **Cancel safety**: as with `filter`.
        """
        require_function("predicate", predicate)
        return self._deciding(TakeWhile, predicate, f"take_while({name_of(predicate)})")

    def skip(self, count: int) -> Stream[T_co]:
        """The items behind the first `count`.

        Raises TypeError or ValueError unless `count` is a whole number, at least 0. **Cancel safety**: what has been
        skipped is not counted again.
        """
        require_count("count", count, least=0)
        return self._with(Skip(count))

    def skip_while(self, predicate: Callable[[T_co], object]) -> Stream[T_co]:
        """The items from the first on for which `predicate` gives something false. It is not asked again after that.

        **Cancel safety**: as with `filter`.
        """
        require_function("predicate", predicate)
        return self._deciding(Filter, skipping(predicate), f"skip_while({name_of(predicate)})")

    def chunks(self, count: int) -> Stream[list[T_co]]:
        """Lists of `count` items, the last one with what is left.

        An error takes the place of the chunk in which it happened. Raises TypeError or ValueError unless `count` is a
        whole number, at least 1. **Cancel safety**: what has been gathered is kept.
        """
        require_count("count", count)
        return self._with(Chunks(count))

    def dedup(self, key: Callable[[T_co], object] | None = None) -> Stream[T_co]:
        """The first of each row of equal items, or of items with an equal `key`.

        Only neighbours are compared, with ``==``: the key before, then the new one; what that raises is raised in the
        place of the item. **Cancel safety**: as with `filter`.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> run(streams.iter("aAabBa").dedup(key=str.lower).collect())
        ['a', 'b', 'a']
        """
        if key is not None:
            require_function("key", key)
        return self._deciding(Filter, changing(key), f"dedup({'' if key is None else name_of(key)})")

    def _deciding(
        self, stage: type[FunctionStage], function: Callable[..., Any], written: str, *, mapped: bool = False
    ) -> Stream[Any]:
        return self._moved_into(deciding(self._owned, stage, function, written), mapped=mapped)
