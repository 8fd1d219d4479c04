"""Concurrent calls for each item: `for_each` and `map_concurrently`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from yamanote import streams
from yamanote.runtime import run
from yamanote.time import VirtualClock, sleep, time


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_so_many_calls_run_at_a_time(waits: bool, concurrency: int) -> None:
    running: set[int] = set()
    most = 0
    done = []

    async def work(number: int) -> None:
        nonlocal most
        running.add(number)
        most = max(most, len(running))
        await sleep(1)
        running.remove(number)
        done.append(number)

    async def main() -> None:
        began = time()
        await streams.iter(numbers(12) if waits else range(12)).for_each(work, concurrency=concurrency)
        assert time() - began == -(-12 // concurrency)

    run(main(), clock=VirtualClock())
    assert sorted(done) == list(range(12))
    assert most == min(12, concurrency)


def test_the_first_error_cancels_the_others_and_waits_for_them() -> None:
    async def main() -> None:
        ended = []

        async def work(number: int) -> None:
            try:
                await sleep(1 if number == 1 else 100)
                raise KeyError(number)
            finally:
                await sleep(1)
                ended.append(number)

        with pytest.raises(KeyError, match="1"):
            await streams.iter(numbers(9)).for_each(work, concurrency=3)
        assert sorted(ended) == [0, 1, 2]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main(), clock=VirtualClock())


def test_who_is_cancelled_has_cancelled_the_calls() -> None:
    async def main() -> None:
        cancelled = []

        async def work(number: int) -> None:
            try:
                await sleep(100)
            except asyncio.CancelledError:
                await sleep(1)
                cancelled.append(number)
                raise

        task = asyncio.create_task(streams.iter(numbers(9)).for_each(work, concurrency=3))
        await sleep(1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() and sorted(cancelled) == [0, 1, 2]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main(), clock=VirtualClock())


@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration])
@pytest.mark.parametrize("is_async", [False, True])
async def test_an_end_that_a_call_raises_is_an_error(error: type[Exception], is_async: bool) -> None:
    def work(number: int) -> Any:
        raise error

    async def later(number: int) -> None:
        work(number)

    with pytest.raises(RuntimeError):
        await streams.iter([1, 2]).for_each(later if is_async else work, concurrency=2)
    with pytest.raises(RuntimeError):
        await streams.iter([1, 2]).prefetch(2).for_each(later if is_async else work)
    with pytest.raises(RuntimeError):
        await streams.iter([0, 0]).map(asyncio.sleep).buffered(2).for_each(later if is_async else work)


async def test_calls_of_plain_functions_that_return_awaitables_are_awaited() -> None:
    done = []

    async def work(number: int) -> None:
        await asyncio.sleep(0)
        done.append(number)

    await streams.iter(range(3)).for_each(lambda number: work(number), concurrency=2)
    assert done == [0, 1, 2]
    with pytest.raises(TypeError, match="awaited"):
        await streams.iter([1]).for_each(lambda number: number, concurrency=2)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, True, "2"])
async def test_nonsense_is_refused_and_the_stream_stays_usable(concurrency: Any) -> None:
    async def work(number: int) -> int:
        return number

    stream = streams.iter([1])
    with pytest.raises((TypeError, ValueError), match="concurrency"):
        await stream.for_each(work, concurrency=concurrency)
    with pytest.raises((TypeError, ValueError), match="concurrency"):
        streams.map_concurrently(work, stream, concurrency=concurrency)
    with pytest.raises(TypeError, match="function"):
        streams.map_concurrently(3, stream, concurrency=2)  # type: ignore[arg-type]
    assert await stream.collect() == [1]


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("concurrency", [1, 3, 100])
def test_map_concurrently_gives_all_results_in_order_or_as_they_come(waits: bool, concurrency: int) -> None:
    async def work(number: int) -> int:
        await sleep(5 - number % 5)
        return number

    async def main() -> None:
        for ordered in (True, False):
            source: Any = numbers(20) if waits else range(20)
            got = await streams.map_concurrently(work, source, concurrency=concurrency, ordered=ordered).collect()
            assert (got if ordered else sorted(got)) == list(range(20))
            if not ordered and concurrency > 1:
                assert got != list(range(20))

    run(main(), clock=VirtualClock())


@pytest.mark.parametrize("operator", ["buffered", "a fed buffered", "zip_concurrently", "prefetch", "merge"])
async def test_who_closes_once_more_meanwhile_only_waits(operator: str) -> None:
    ended: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            await asyncio.Event().wait()
            yield 1
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            ended.append("cleaned up")

    async def first(number: int) -> int:
        return await anext(aiter(numbers()))

    stream: streams.Stream[Any] = {
        "buffered": lambda: streams.iter([1]).map(first).buffered(1),
        "a fed buffered": lambda: streams.iter(numbers()).map(first).buffered(1),
        "zip_concurrently": lambda: streams.zip_concurrently(numbers()),
        "prefetch": lambda: streams.iter(numbers()).prefetch(1),
        "merge": lambda: streams.merge(numbers()),
    }[operator]()
    pull = asyncio.create_task(anext(stream, None))
    for _ in range(3):
        await asyncio.sleep(0)
    closing = asyncio.create_task(stream.aclose())
    for _ in range(2):
        await asyncio.sleep(0)
    await stream.aclose()
    assert ended == ["cleaned up"]
    await closing
    assert await pull is None
