"""The operators that join several sources to one stream, one source at a time."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from yamanote.runtime import Selectable
from yamanote.streams._arguments import require_count
from yamanote.streams._chain import Chain
from yamanote.streams._cycle import Cycle
from yamanote.streams._handle import Handle
from yamanote.streams._peekable import Peekable
from yamanote.streams._ready_chunks import ReadyChunks, ReadyChunksNow
from yamanote.streams._take_until import TakeUntil, close_unstarted, require_stop
from yamanote.streams._zip import Zip

if TYPE_CHECKING:
    from yamanote.streams._stream import PeekableStream, Stream

__all__ = ["Joining"]

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")
V = TypeVar("V")
W = TypeVar("W")


class Joining(Handle[T_co]):
    """Several sources, one at a time."""

    __slots__ = ()

    def chain(self, *others: AsyncIterable[U] | Iterable[U]) -> Stream[T_co | U]:
        """The items of this stream, then those of each of `others`, in this order.

        A source is closed when it has ended, before the next one is asked. The first error ends all. Raises TypeError
        for what cannot be iterated over, ValueError for the same stream twice. **Cancel safety**: nothing is lost.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> run(streams.iter("ab").chain([1, 2]).collect())
        ['a', 'b', 1, 2]
        """
        return self._moved_into(Chain(*self._owned_with(*others)), *others)

    @overload
    def zip(self, other: AsyncIterable[U] | Iterable[U], /, *, strict: bool = False) -> Stream[tuple[T_co, U]]: ...
    @overload
    def zip(
        self, other: AsyncIterable[U] | Iterable[U], another: AsyncIterable[V] | Iterable[V], /, *, strict: bool = False
    ) -> Stream[tuple[T_co, U, V]]: ...
    @overload
    def zip(
        self,
        other: AsyncIterable[U] | Iterable[U],
        another: AsyncIterable[V] | Iterable[V],
        third: AsyncIterable[W] | Iterable[W],
        /,
        *,
        strict: bool = False,
    ) -> Stream[tuple[T_co, U, V, W]]: ...
    @overload
    def zip(
        self: Handle[U], *others: AsyncIterable[U] | Iterable[U], strict: bool = False
    ) -> Stream[tuple[U, ...]]: ...
    def zip(self, *others: AsyncIterable[Any] | Iterable[Any], strict: bool = False) -> Stream[Any]:
        """Tuples of one item of this stream and one of each of `others`, until the first of them ends.

        The sources are asked one after the other, in this order; `zip_concurrently` asks all at once. When one ends,
        those before it have given an item that belongs to no tuple: it is dropped, as by the `zip` of Python, and all
        are closed. With `strict`, a source that ends before the others is a ValueError.

        Raises TypeError for what cannot be iterated over, ValueError for the same stream twice; when pulled by two
        tasks at a time, RuntimeError. **Cancel safety**: what has been pulled is kept for the next pull.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> run(streams.iter("abc").zip([1, 2, 3], strict=True).collect())
        [('a', 1), ('b', 2), ('c', 3)]
        """
        return self._moved_into(Zip(*self._owned_with(*others), strict=strict), *others)

    def cycle(self) -> Stream[T_co]:
        """The same items again and again, without an end; an empty stream ends.

        The items are kept, and the source is asked for them once. **Cancel safety**: nothing is lost.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> run(streams.iter("abc").cycle().take(7).collect())
        ['a', 'b', 'c', 'a', 'b', 'c', 'a']
        """
        return self._moved_into(Cycle(self._owned))

    def peekable(self) -> PeekableStream[T_co]:
        """The same items; ``await stream.peek()`` looks at the next one and leaves it there.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> async def main():
        ...     async with streams.iter([1, 2]).peekable() as numbers:
        ...         return [await numbers.peek(), await anext(numbers), await anext(numbers), await numbers.peek(None)]
        >>> run(main())
        [1, 1, 2, None]
        """
        return cast("PeekableStream[T_co]", self._moved_into(Peekable(self._owned)))

    def take_until(self, stop: Selectable[object] | Awaitable[object]) -> Stream[T_co]:
        """The items that come before `stop` is ready: a token, a receiver, a future, a coroutine, what `select` takes.

        The stream ends, and the source is closed, as soon as `stop` is ready, also when it waits for an item just then:
        that pull of the source is cancelled. An item that has come before is given first, and what `stop` gives is
        dropped. An error of `stop` is raised at this place, JoinError if it is a task that was cancelled.

        Nobody waits for `stop` before the first item is asked for, and between two items. A coroutine runs from the
        first item on, as a task that belongs to the stream: it is cancelled when the stream ends. Futures, tasks and
        handles are left alone.

        Raises TypeError for what cannot be waited for, ValueError for a coroutine that has begun. **Cancel safety**:
        nothing is lost, neither of the source nor of `stop`.

        >>> from yamanote import streams
        >>> from yamanote.runtime import CancellationToken, run
        >>> async def main():
        ...     stop, seen = CancellationToken(), []
        ...     async for number in streams.repeat(7).take_until(stop):
        ...         seen.append(number)
        ...         if len(seen) == 3:
        ...             stop.cancel()
        ...     return seen
        >>> run(main())
        [7, 7, 7]
        """
        require_stop(stop)
        try:
            source = self._owned
        except RuntimeError:
            close_unstarted(stop)
            raise
        return self._moved_into(TakeUntil(source, stop))

    def ready_chunks(self, limit: int) -> Stream[list[T_co]]:
        """Lists of what is there already, up to `limit` items; waits only for the first item of each.

        A source that may wait is pulled by a task of the stream's own, `limit` items ahead at most; what it gave before
        it ends or fails comes first. A list, or a generator, is always ready.

        Raises TypeError or ValueError unless `limit` is a whole number, at least 1; when pulled by two tasks at a time,
        RuntimeError. **Cancel safety**: what has been gathered is kept, and no pull of the source is cancelled.

        >>> from yamanote.channels import channel
        >>> from yamanote.runtime import run
        >>> async def main():
        ...     tx, rx = channel(10)
        ...     with tx:
        ...         await tx.send_many(range(6))
        ...     return await rx.into_stream().ready_chunks(4).collect()
        >>> run(main())
        [[0, 1, 2, 3], [4, 5]]
        """
        require_count("limit", limit)
        source = self._owned
        return self._moved_into((ReadyChunks if source.waits else ReadyChunksNow)(source, limit))
