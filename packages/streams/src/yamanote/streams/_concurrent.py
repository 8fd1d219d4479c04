"""The operators that have several things under way at a time."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

from yamanote.streams._arguments import require_count
from yamanote.streams._buffered import Ordered, Unordered
from yamanote.streams._handle import Handle
from yamanote.streams._prefetch import Prefetch

if TYPE_CHECKING:
    from yamanote.streams._stream import Stream

__all__ = ["Concurrent"]

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")


class Concurrent(Handle[T_co]):
    """Several at a time."""

    __slots__ = ()

    def buffered(self: Handle[Awaitable[U]], limit: int) -> Stream[U]:
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

    def buffered_unordered(self: Handle[Awaitable[U]], limit: int) -> Stream[U]:
        """Like `buffered`, with the results in the order in which they are ready."""
        require_count("limit", limit)
        return self._moved_into(Unordered(self._owned, limit))

    def prefetch(self, limit: int | None) -> Stream[T_co]:
        """The same items, of which up to `limit` are pulled ahead, while the consumer is busy with others.

        From the first pull on, a task pulls the source whenever fewer than `limit` wait here; with None there is no
        limit, which is for sources that end. An error of the source comes behind the items before it. Raises TypeError
        or ValueError unless `limit` is None or a whole number, at least 1.

        **Cancel safety**: nothing is lost; the task goes on.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> run(streams.iter("abc").prefetch(2).collect())
        ['a', 'b', 'c']
        """
        if limit is not None:
            require_count("limit", limit)
        return self._moved_into(Prefetch(self._owned, limit))
