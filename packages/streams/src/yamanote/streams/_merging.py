"""The operators that have several sources under way at a time."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from yamanote.streams._arguments import name_of, require_count, require_function
from yamanote.streams._calls import deciding
from yamanote.streams._flattened import Flattened, FlattenedSideBySide
from yamanote.streams._handle import Handle
from yamanote.streams._merged import Merged
from yamanote.streams._stages import Map
from yamanote.streams._switched import Switched

if TYPE_CHECKING:
    from yamanote.streams._pipeline import Pipeline
    from yamanote.streams._stream import Stream

__all__ = ["Merging"]

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")


class Merging(Handle[T_co]):
    """Several sources at a time."""

    __slots__ = ()

    def merge(self, *others: AsyncIterable[U] | Iterable[U]) -> Stream[T_co | U]:
        """The items of this stream and of `others`, as they come.

        The sources take turns, so one that is always ready starves nobody; the order within each is kept. What is ready
        is pulled when it is asked for. A source that has to be waited for is pulled by a task of its own, which may be
        up to two items ahead: those are lost when the stream is closed early.

        Ends when all have ended. The first error comes behind the items of its source; the others are cancelled and
        awaited, and it is raised. Raises TypeError for what cannot be iterated over, ValueError for the same stream
        twice; when pulled by two tasks at a time, RuntimeError.

        **Cancel safety**: the pulls that are under way go on, and the next pull has what they gave.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> run(streams.iter([1, 2, 3]).merge("ab").collect())
        [1, 'a', 2, 'b', 3]
        """
        sources = self._owned_with(*others)
        first, *rest = map(str, sources)
        return self._moved_into(Merged(sources, f"{first}.merge({', '.join(rest)})"), *others)

    @overload
    def flatten(self: Handle[AsyncIterable[U]], concurrency: int | None = None) -> Stream[U]: ...
    @overload
    def flatten(self: Handle[Iterable[U]], concurrency: int | None = None) -> Stream[U]: ...
    @overload
    def flatten(self: Handle[AsyncIterable[U] | Iterable[U]], concurrency: int | None = None) -> Stream[U]: ...
    def flatten(self: Handle[Any], concurrency: int | None = None) -> Stream[Any]:
        """The items of the items, which are streams or anything else to iterate over, plain or async.

        One after the other: each is closed, when it has ended, before the next one is pulled. With `concurrency`, up to
        so many at a time, merged as by `merge`; the outer stream is pulled only when there is room for another.

        An item that is nothing to iterate over is a TypeError at its place. The first error closes everything, and is
        raised. Raises TypeError or ValueError for a wrong `concurrency`. **Cancel safety**: nothing is lost.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> run(streams.iter([[1, 2], [], [3]]).flatten().collect())
        [1, 2, 3]
        """
        if concurrency is not None:
            require_count("concurrency", concurrency)
        source = self._owned
        written = f"{source}.flatten({concurrency or ''})"
        return self._moved_into(_flattened(source, concurrency, written))

    @overload
    def flat_map(
        self,
        function: Callable[[T_co], Coroutine[Any, Any, AsyncIterable[U]]],
        *,
        concurrency: int | None = None,
    ) -> Stream[U]: ...
    @overload
    def flat_map(
        self, function: Callable[[T_co], Coroutine[Any, Any, Iterable[U]]], *, concurrency: int | None = None
    ) -> Stream[U]: ...
    @overload
    def flat_map(
        self, function: Callable[[T_co], AsyncIterable[U]], *, concurrency: int | None = None
    ) -> Stream[U]: ...
    @overload
    def flat_map(self, function: Callable[[T_co], Iterable[U]], *, concurrency: int | None = None) -> Stream[U]: ...
    def flat_map(self, function: Callable[[T_co], Any], *, concurrency: int | None = None) -> Stream[Any]:
        """The items of what `function` gives for each item; else as `flatten`.

        `function` may be a generator function, plain or async, or any function, plain or async, that returns something
        to iterate over. It is called when its turn comes, not before.

        **Cancel safety**: nothing is lost; an item whose call was cancelled is kept, and the call made again.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> run(streams.iter(["to be", "or not"]).flat_map(str.split).collect())
        ['to', 'be', 'or', 'not']
        """
        require_function("function", function)
        if concurrency is not None:
            require_count("concurrency", concurrency)
        source = self._owned
        limit = "" if concurrency is None else f", concurrency={concurrency}"
        written = f"{source}.flat_map({name_of(function)}{limit})"
        inner = deciding(source, Map, function, "")
        return self._moved_into(_flattened(inner, concurrency, written))

    @overload
    def switch(self, function: Callable[[T_co], AsyncIterable[U]]) -> Stream[U]: ...
    @overload
    def switch(self, function: Callable[[T_co], Coroutine[Any, Any, U]]) -> Stream[U]: ...
    @overload
    def switch(self, function: Callable[[T_co], Iterable[U]]) -> Stream[U]: ...
    def switch(self, function: Callable[[T_co], Awaitable[Any] | AsyncIterable[Any] | Iterable[Any]]) -> Stream[Any]:
        """What an async `function` returns for the latest item: a newer one cancels the call, and starts another.

        A function that is not async returns something to iterate over, such as an async generator, whose items are
        given until there is a newer item.

        At most one call is under way: the next one begins when the cancelled one has ended. Of several items that are
        there at once only the latest gets a call. What a call gave that nobody had taken is dropped with it. The last
        call goes on after the end of the source.

        An error of the source, or of a call that was not cancelled, closes everything and is raised; one of a call that
        was cancelled goes to the exception handler of the loop. **Cancel safety**: the call goes on, and the next pull
        has what it gave.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> async def search(words):
        ...     return f"results for {words}"
        >>> run(streams.iter(["s", "st", "stream"]).switch(search).collect())
        ['results for stream']
        """
        require_function("function", function)
        return self._moved_into(Switched(self._owned, function))


def _flattened(source: Pipeline[Any], concurrency: int | None, written: str) -> Pipeline[Any]:
    if concurrency is None:
        return Flattened(source, written)
    return FlattenedSideBySide(source, concurrency, written)
