"""Streams out of several sources: `merge` and `select`."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import TypeVar

from yamanote.streams._handle import require_sources, take_over
from yamanote.streams._merged import Merged, Selected
from yamanote.streams._stream import Stream, stream_of

__all__ = ["merge", "select"]

T = TypeVar("T")


def merge(*sources: AsyncIterable[T] | Iterable[T]) -> Stream[T]:
    """The items of all `sources`, plain or async, as they come; see `Stream.merge`. Without sources, an empty stream.

    >>> from yamanote import streams
    >>> from yamanote.runtime import run
    >>> run(streams.merge("abc", "xy").collect())
    ['a', 'x', 'b', 'y', 'c']
    """
    require_sources(**{f"sources[{index}]": source for index, source in enumerate(sources)})
    pipelines = [take_over(source) for source in sources]
    return stream_of(Merged(pipelines, f"merge({', '.join(map(str, pipelines))})"), *sources)


def select(**sources: AsyncIterable[T] | Iterable[T]) -> Stream[tuple[str, T]]:
    """The items of all `sources`, plain or async, as they come, each with the name of its source: ``(name, item)``.

    Order, fairness, the end, errors and cancel safety are those of `Stream.merge`. A note on an error tells the name of
    its source. For sources that come and go there is `StreamMap`.

    >>> from yamanote import streams
    >>> from yamanote.runtime import run
    >>> async def main():
    ...     async with streams.select(number=[1, 2], letter="a") as events:
    ...         async for event in events:
    ...             match event:
    ...                 case "number", number:
    ...                     print(number + 1)
    ...                 case "letter", letter:
    ...                     print(letter.upper())
    >>> run(main())
    2
    A
    3
    """
    require_sources(**sources)
    pipelines = {name: take_over(source) for name, source in sources.items()}
    return stream_of(Selected(pipelines), *sources.values())
