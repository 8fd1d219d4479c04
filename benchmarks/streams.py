"""Streams against generators and tasks written by hand, and against the other stream libraries.

What is written by hand is what one would write without a library: an async generator for each stage; for results in
order a window of tasks, of which the oldest is awaited; for results as they come, workers that put them into a queue.
Every library collects in its own way, and what it has collected is checked when the clock has stopped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from harness import Version, Workload, check, main
from peers import installed, load

from yamanote import streams

aiodrive = load("aiodrive")
aioitertools = load("aioitertools")
aioitertools_asyncio = load("aioitertools.asyncio")
aioitertools_more = load("aioitertools.more_itertools")
aiometer = load("aiometer")
aiostream = load("aiostream")
asyncstdlib = load("asyncstdlib")
kioto = load("kioto.streams")
streamable = load("streamable")

T = TypeVar("T")

Work = Callable[[int], Awaitable[int]]


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


def triple(number: int) -> int:
    return number * 3


def is_even(number: int) -> bool:
    return number % 2 == 0


def is_odd(number: int) -> bool:
    return number % 2 == 1


def successor(number: int) -> int:
    return number + 1


async def no_operation(number: int) -> int:
    return number


async def yielding(count: int) -> AsyncIterator[int]:
    for number in range(count):
        await asyncio.sleep(0)
        yield number


async def one_turn(number: int) -> int:
    await asyncio.sleep(0)
    return number


# ---------------------------------------------------------------------------------------------------- written by hand


async def each(items: Iterable[T]) -> AsyncIterator[T]:
    for item in items:
        yield item


async def mapped(function: Callable[[int], int], items: AsyncIterator[int]) -> AsyncIterator[int]:
    async for item in items:
        yield function(item)


async def filtered(predicate: Callable[[int], bool], items: AsyncIterator[int]) -> AsyncIterator[int]:
    async for item in items:
        if predicate(item):
            yield item


async def chunked(items: AsyncIterator[int], count: int) -> AsyncIterator[list[int]]:
    chunk: list[int] = []
    async for item in items:
        chunk.append(item)
        if len(chunk) == count:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


async def in_order(calls: Iterable[Any], limit: int) -> AsyncIterator[int]:
    window: deque[asyncio.Task[int]] = deque()
    for call in calls:
        window.append(asyncio.create_task(call))
        if len(window) == limit:
            yield await window.popleft()
    while window:
        yield await window.popleft()


async def as_they_come(calls: Iterable[Awaitable[int]], limit: int) -> AsyncIterator[int]:
    results: asyncio.Queue[int | None] = asyncio.Queue(limit)
    remaining = iter(calls)

    async def work() -> None:
        for call in remaining:
            await results.put(await call)

    async def supervise() -> None:
        await asyncio.gather(*[work() for _ in range(limit)])
        await results.put(None)

    supervising = asyncio.create_task(supervise())
    while (result := await results.get()) is not None:
        yield result
    await supervising


async def merged(sources: list[AsyncIterator[int]]) -> AsyncIterator[int]:
    items: asyncio.Queue[int | None] = asyncio.Queue(len(sources))

    async def move(source: AsyncIterator[int]) -> None:
        async for item in source:
            await items.put(item)

    async def supervise() -> None:
        await asyncio.gather(*map(move, sources))
        await items.put(None)

    supervising = asyncio.create_task(supervise())
    while (item := await items.get()) is not None:
        yield item
    await supervising


class ByHand:
    """asyncio and nothing else."""

    @staticmethod
    async def merge(sources: list[AsyncIterator[int]]) -> list[int]:
        return [item async for item in merged(sources)]

    @staticmethod
    async def map_filter(source: list[int] | AsyncIterator[int]) -> list[int]:
        items = each(source) if isinstance(source, list) else source
        return [item async for item in filtered(is_even, mapped(triple, items))]

    @staticmethod
    async def ten_maps(source: AsyncIterator[int]) -> list[int]:
        for _ in range(10):
            source = mapped(successor, source)
        return [item async for item in source]

    @staticmethod
    async def chunks(source: AsyncIterator[int]) -> list[list[int]]:
        return [chunk async for chunk in chunked(source, 100)]

    @staticmethod
    async def buffered(source: range, work: Work, limit: int) -> list[int]:
        return [result async for result in in_order(map(work, source), limit)]

    @staticmethod
    async def unordered(source: range, work: Work, limit: int) -> list[int]:
        return [result async for result in as_they_come(map(work, source), limit)]


# -------------------------------------------------------------------------------------------------------- by libraries


class Yamanote:
    @staticmethod
    async def merge(sources: list[AsyncIterator[int]]) -> list[int]:
        return [item async for item in streams.merge(*sources)]

    @staticmethod
    async def map_filter(source: list[int] | AsyncIterator[int]) -> list[int]:
        return await streams.iter(source).map(triple).filter(is_even).collect()

    @staticmethod
    async def ten_maps(source: AsyncIterator[int]) -> list[int]:
        items = streams.iter(source)
        for _ in range(10):
            items = items.map(successor)
        return await items.collect()

    @staticmethod
    async def chunks(source: AsyncIterator[int]) -> list[list[int]]:
        return await streams.iter(source).chunks(100).collect()

    @staticmethod
    async def buffered(source: range, work: Work, limit: int) -> list[int]:
        return await streams.iter(source).map(work, concurrency=limit).collect()

    @staticmethod
    async def unordered(source: range, work: Work, limit: int) -> list[int]:
        return await streams.iter(source).map(work, concurrency=limit, ordered=False).collect()


class Aiodrive:
    @staticmethod
    async def buffered(source: range, work: Work, limit: int) -> Any:
        return await aiodrive.collect(aiodrive.map(work, source, max_concurrent_count=limit, ordered=True))

    @staticmethod
    async def unordered(source: range, work: Work, limit: int) -> Any:
        return await aiodrive.collect(aiodrive.map(work, source, max_concurrent_count=limit, ordered=False))


class Aioitertools:
    @staticmethod
    async def merge(sources: list[AsyncIterator[int]]) -> Any:
        return [item async for item in aioitertools_asyncio.as_generated(sources)]

    @staticmethod
    async def map_filter(source: Any) -> Any:
        return await aioitertools.list(aioitertools.filterfalse(is_odd, aioitertools.map(triple, source)))

    @staticmethod
    async def ten_maps(source: Any) -> Any:
        for _ in range(10):
            source = aioitertools.map(successor, source)
        return await aioitertools.list(source)

    @staticmethod
    async def chunks(source: Any) -> Any:
        return await aioitertools.list(aioitertools_more.chunked(source, 100))

    @staticmethod
    async def unordered(source: range, work: Work, limit: int) -> Any:
        return await aioitertools_asyncio.gather(*map(work, source), limit=limit)


class Aiometer:
    @staticmethod
    async def unordered(source: range, work: Work, limit: int) -> Any:
        async with aiometer.amap(work, source, max_at_once=limit) as results:
            return [result async for result in results]


class Aiostream:
    @staticmethod
    async def merge(sources: list[AsyncIterator[int]]) -> Any:
        return await aiostream.stream.list(aiostream.stream.merge(*sources))

    @staticmethod
    async def map_filter(source: Any) -> Any:
        return await (
            aiostream.stream.iterate(source)
            | aiostream.pipe.map(triple)
            | aiostream.pipe.filter(is_even)
            | aiostream.pipe.list()
        )

    @staticmethod
    async def ten_maps(source: Any) -> Any:
        items = aiostream.stream.iterate(source)
        for _ in range(10):
            items = items | aiostream.pipe.map(successor)
        return await (items | aiostream.pipe.list())

    @staticmethod
    async def chunks(source: Any) -> Any:
        return await (aiostream.stream.iterate(source) | aiostream.pipe.chunks(100) | aiostream.pipe.list())

    @staticmethod
    async def buffered(source: range, work: Work, limit: int) -> Any:
        return await (
            aiostream.stream.iterate(source)
            | aiostream.pipe.map(work, ordered=True, task_limit=limit)
            | aiostream.pipe.list()
        )

    @staticmethod
    async def unordered(source: range, work: Work, limit: int) -> Any:
        return await (
            aiostream.stream.iterate(source)
            | aiostream.pipe.map(work, ordered=False, task_limit=limit)
            | aiostream.pipe.list()
        )


class Asyncstdlib:
    @staticmethod
    async def map_filter(source: Any) -> Any:
        return await asyncstdlib.list(asyncstdlib.filter(is_even, asyncstdlib.map(triple, source)))

    @staticmethod
    async def ten_maps(source: Any) -> Any:
        for _ in range(10):
            source = asyncstdlib.map(successor, source)
        return await asyncstdlib.list(source)

    @staticmethod
    async def chunks(source: Any) -> Any:
        return await asyncstdlib.list(asyncstdlib.batched(source, 100))


class Kioto:
    @staticmethod
    async def merge(sources: list[AsyncIterator[int]]) -> Any:
        named = {f"source_{number}": kioto.Stream.from_generator(source) for number, source in enumerate(sources)}
        return [item async for _, item in kioto.select(**named)]

    @staticmethod
    async def map_filter(source: Any) -> Any:
        items = kioto.iter(source) if isinstance(source, list) else kioto.Stream.from_generator(source)
        return await items.map(triple).filter(is_even).collect()

    @staticmethod
    async def ten_maps(source: Any) -> Any:
        items = kioto.Stream.from_generator(source)
        for _ in range(10):
            items = items.map(successor)
        return await items.collect()

    @staticmethod
    async def chunks(source: Any) -> Any:
        return await kioto.Stream.from_generator(source).chunks(100).collect()

    @staticmethod
    async def buffered(source: range, work: Work, limit: int) -> Any:
        return await kioto.iter(source).map(work).buffered(limit).collect()

    @staticmethod
    async def unordered(source: range, work: Work, limit: int) -> Any:
        return await kioto.iter(source).map(work).buffered_unordered(limit).collect()


class Streamable:
    @staticmethod
    async def map_filter(source: Any) -> Any:
        return [item async for item in streamable.stream(source).map(triple).filter(is_even)]

    @staticmethod
    async def ten_maps(source: Any) -> Any:
        items = streamable.stream(source)
        for _ in range(10):
            items = items.map(successor)
        return [item async for item in items]

    @staticmethod
    async def chunks(source: Any) -> Any:
        return [chunk async for chunk in streamable.stream(source).group(100)]

    @staticmethod
    async def buffered(source: range, work: Work, limit: int) -> Any:
        return [result async for result in streamable.stream(source).map(work, concurrency=limit)]

    @staticmethod
    async def unordered(source: range, work: Work, limit: int) -> Any:
        return [result async for result in streamable.stream(source).map(work, concurrency=limit, as_completed=True)]


LIBRARIES: dict[str, type] = {
    "asyncio": ByHand,
    "yamanote": Yamanote,
    "aiodrive": Aiodrive,
    "aioitertools": Aioitertools,
    "aiometer": Aiometer,
    "aiostream": Aiostream,
    "asyncstdlib": Asyncstdlib,
    "kioto": Kioto,
    "streamable": Streamable,
}


ALSO = {
    "map_filter": "Kotlin: flow, Numbers",
    "merge": "Tokio: stream merge",
    "chunks": "futures-rs: chunks",
    "buffered": "futures-rs: buffered",
    "unordered": "futures-rs: buffer_unordered",
}


# ---------------------------------------------------------------------------------------------------------- the rows


async def collected(
    collect: Callable[[Any], Awaitable[list[Any]]], source: Callable[[], Any], expected: list[Any], ordered: bool
) -> Callable[[], None]:
    """One run of a version. What it gives back is the check."""
    results = await collect(source())

    def look() -> None:
        found = [list(result) if isinstance(result, tuple) else result for result in results]  # a chunk may be either
        check(len(found) == len(expected), f"{len(expected)} results were due, and {len(found)} came")
        check((found if ordered else sorted(found)) == expected, "the results are wrong, or in a wrong order")

    return look


def workloads(scale: float = 1.0) -> list[Workload]:
    def row(
        name: str, bar: float, operator: str, source: Callable[[], Any], expected: list[Any], **arguments: Any
    ) -> Workload:
        versions: dict[str, Version] = {
            library: partial(
                collected,
                partial(getattr(adapter, operator), **arguments),
                source,
                expected,
                operator not in ("merge", "unordered"),
            )
            for library, adapter in installed(LIBRARIES).items()
            if hasattr(adapter, operator)
        }
        return Workload(name, 1, versions, bar, ALSO.get(operator, ""))  # an operation is a run: the name has the count

    def calls(operator: str, bar: float, work: Work, limit: int) -> Workload:
        kind = "no-op" if work is no_operation else "sleep(0)"
        name = f"{'buffer_' * (operator == 'unordered')}{operator}({limit}) of {kind} coroutines, 10k"
        return row(name, bar, operator, partial(range, small), list(range(small)), work=work, limit=limit)

    def merge(kind: str, bar: float, source: Callable[[int], AsyncIterator[int]]) -> Workload:
        every = sorted([*range(few)] * 10)
        return row(f"merge of 10 {kind}, 1k each", bar, "merge", lambda: [source(few) for _ in range(10)], every)

    few = max(20, int(1_000 * scale))
    large, small = max(200, int(100_000 * scale)), max(200, int(10_000 * scale))
    items = list(range(large))
    generator = partial(numbers, large)
    tripled = [item * 3 for item in items if item % 2 == 0]
    chunks = [items[first : first + 100] for first in range(0, large, 100)]
    ten_more = [item + 10 for item in range(small)]
    return [
        row("map+filter, 100k from a list", 0.25, "map_filter", lambda: items, tripled),
        row("map+filter, 100k from an async generator", 0.90, "map_filter", generator, tripled),
        row("10 maps in a row, 10k from an async generator", 0.55, "ten_maps", partial(numbers, small), ten_more),
        row("chunks of 100, 100k from an async generator", 1.05, "chunks", generator, chunks),
        calls("buffered", 0.55, no_operation, 10),
        calls("buffered", 0.95, one_turn, 10),
        calls("buffered", 0.95, one_turn, 1000),
        calls("unordered", 0.40, no_operation, 10),
        calls("unordered", 1.00, one_turn, 10),
        calls("unordered", 0.80, one_turn, 1000),
        merge("async generators", 0.25, numbers),
        merge("sources that yield to the loop", 0.90, yielding),
    ]


if __name__ == "__main__":
    main("streams", workloads())
