"""The operators for streams with several consumers."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, get_args

from yamanote.streams._arguments import require_count
from yamanote.streams._handle import Handle
from yamanote.streams._shared import Hub, Overflow
from yamanote.streams._shared_stream import SharedStream

if TYPE_CHECKING:
    from yamanote.streams._stream import Stream

__all__ = ["Sharing"]

T_co = TypeVar("T_co", covariant=True)


class Sharing(Handle[T_co]):
    """For several consumers."""

    __slots__ = ()

    def share(self, capacity: int, *, replay: int = 0, overflow: Overflow = "suspend") -> SharedStream[T_co]:
        """One source for subscribers that come and go: each ``async for`` over the result is a stream of its own.

        A subscriber gets what comes after it has subscribed, and first the latest `replay` items. The source is pulled
        by a task, from when the first of them asks for an item, each time that one of them has taken all there is; it
        is closed when the last of them has left. Its end, or its error, comes to each of them, once, behind all items.

        A subscriber can be `capacity` items behind. Then, with `overflow`

        - ``"suspend"``: the others wait for it; nobody misses anything, and so many items are pulled ahead;
        - ``"lag"``: it loses its oldest items, and `Lagged` is its next item and its end;
        - ``"drop_oldest"``: it loses its oldest items, without a word.

        Raises ValueError or TypeError unless `capacity` is a whole number, at least 1, `replay` one of at most that,
        and `overflow` one of these. **Cancel safety**: nothing is lost.

        >>> from yamanote import streams
        >>> from yamanote.runtime import TaskGroup, run
        >>> async def main():
        ...     async with streams.iter(range(5)).share(10) as numbers, TaskGroup() as group:
        ...         total = group.spawn(numbers.subscribe().fold(0, lambda total, number: total + number))
        ...         texts = group.spawn(numbers.subscribe().map(str).collect())
        ...     return await total, await texts
        >>> run(main())
        (10, ['0', '1', '2', '3', '4'])
        """
        require_count("capacity", capacity)
        require_count("replay", replay, least=0)
        if replay > capacity:
            raise ValueError(f"replay must be at most the capacity ({capacity}), not {replay}")
        if overflow not in get_args(Overflow):
            raise ValueError(f"overflow must be one of {', '.join(map(repr, get_args(Overflow)))}, not {overflow!r}")
        text = f"share({capacity}{f', replay={replay}' if replay else ''}"
        text += f", overflow={overflow!r})" if overflow != "suspend" else ")"
        return self._shared_by(Hub(self._owned, text, capacity, replay, overflow))

    def broadcast(self, count: int, capacity: int) -> tuple[Stream[T_co], ...]:
        """`count` streams, each of which gives every item.

        The source is pulled by a task, up to `capacity` items ahead of the slowest, for whom the others wait; so
        consume them at the same time. A stream that is closed holds up nobody. The source is begun when the first of
        them asks for an item, and closed when all of them are. Its end, or its error, comes to each of them, once.

        Raises TypeError or ValueError unless both are whole numbers, at least 1. **Cancel safety**: nothing is lost.

        >>> from yamanote import streams
        >>> from yamanote.futures import join
        >>> from yamanote.runtime import run
        >>> async def main():
        ...     numbers, others = streams.iter(range(4)).broadcast(2, 10)
        ...     return await join(numbers.collect(), others.chunks(2).collect())
        >>> run(main())
        [[0, 1, 2, 3], [[0, 1], [2, 3]]]
        """
        require_count("count", count)
        require_count("capacity", capacity)
        shared = self._shared_by(Hub(self._owned, f"broadcast({count}, {capacity})", capacity, 0, "suspend"))
        return tuple(shared.subscribe() for _ in range(count))

    def _shared_by(self, hub: Hub) -> SharedStream[T_co]:
        self._give_to(hub)
        return SharedStream(hub)
