"""Chunks by size or age, on the loop's clock."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from yamanote import streams
from yamanote.channels import channel
from yamanote.time import VirtualClock


@pytest.fixture
async def clock() -> AsyncIterator[VirtualClock]:
    with VirtualClock(autojump=False).patch_loop() as clock:
        yield clock


async def turn(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


async def test_a_full_chunk_comes_at_once(clock: VirtualClock) -> None:
    assert await streams.iter(range(7)).chunks_timeout(3, 1).collect() == [[0, 1, 2], [3, 4, 5], [6]]
    assert await streams.iter([]).chunks_timeout(3, 1).collect() == []
    assert not others()


async def test_the_time_starts_with_the_first_item(clock: VirtualClock) -> None:
    sender, receiver = channel(10)
    async with sender, streams.iter(receiver).chunks_timeout(10, 2) as stream:
        pull = asyncio.create_task(anext(stream))
        await clock.advance(100)
        assert not pull.done()
        sender.send_nowait("a")
        await clock.advance(0)
        await clock.advance(1)
        sender.send_nowait("b")
        await clock.advance(0.9)
        assert not pull.done()
        await clock.advance(0.2)
        assert await pull == ["a", "b"]
        pull = asyncio.create_task(anext(stream))
        sender.send_nowait("c")
        await clock.advance(1.9)
        assert not pull.done()
        await clock.advance(2)
        assert await pull == ["c"]


async def test_nothing_is_lost_when_the_time_is_over_while_the_source_is_pulled(clock: VirtualClock) -> None:
    gate = asyncio.Event()
    cancelled = []

    async def source() -> AsyncIterator[str]:
        yield "a"
        try:
            await gate.wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        yield "b"
        yield "c"

    async with streams.iter(source()).chunks_timeout(10, 1) as stream:
        pull = asyncio.create_task(anext(stream))
        await clock.advance(0)
        await clock.advance(2)
        assert await pull == ["a"]
        gate.set()
        assert await anext(stream) == ["b", "c"]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert not cancelled


async def test_the_source_rests_while_nobody_waits_for_a_chunk(clock: VirtualClock) -> None:
    pulled = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            pulled.append(number)
            yield number

    async with streams.iter(numbers()).chunks_timeout(3, 1) as stream:
        await turn(5)
        assert pulled == []
        assert await anext(stream) == [0, 1, 2]
        await turn(10)
        assert pulled == [0, 1, 2]


async def test_the_source_gives_one_item_more_at_most_when_the_time_is_over(clock: VirtualClock) -> None:
    sender, receiver = channel(10)
    async with sender, streams.iter(receiver).chunks_timeout(10, 1) as stream:
        pull = asyncio.create_task(anext(stream))
        sender.send_nowait(0)
        await clock.advance(0)
        await clock.advance(2)
        assert await pull == [0]
        for number in range(1, 5):
            sender.send_nowait(number)
        await turn(10)
        assert len(receiver) == 3
        await clock.advance(2)
        assert await anext(stream) == [1]


async def test_a_chunk_that_grew_old_while_nobody_waited_comes_at_once(clock: VirtualClock) -> None:
    sender, receiver = channel(10)
    async with sender, streams.iter(receiver).chunks_timeout(3, 1) as stream:
        pull = asyncio.create_task(anext(stream))
        sender.send_nowait(0)
        await clock.advance(0)
        await clock.advance(2)
        assert await pull == [0]
        sender.send_nowait(1)  # for the pull of the source that is still in progress
        await clock.advance(0)
        await clock.advance(2)
        assert await anext(stream) == [1]
        pull = asyncio.create_task(anext(stream))
        sender.send_nowait(2)
        await clock.advance(0)
        await clock.advance(2)
        assert await pull == [2]
        sender.send_nowait(3)
        await clock.advance(0)
        pull = asyncio.create_task(anext(stream))  # this one is young
        await clock.advance(0.9)
        assert not pull.done()
        await clock.advance(0.2)
        assert await pull == [3]


async def test_the_age_of_a_chunk_does_not_carry_over_to_the_next(clock: VirtualClock) -> None:
    sender, receiver = channel(10)
    async with sender, streams.iter(receiver).chunks_timeout(2, 1) as stream:
        sender.send_nowait(0)
        pull = asyncio.create_task(anext(stream))
        await clock.advance(0)
        await clock.advance(0.9)
        sender.send_nowait(1)
        assert await pull == [0, 1]
        pull = asyncio.create_task(anext(stream))
        sender.send_nowait(2)
        await clock.advance(0)
        await clock.advance(0.9)
        assert not pull.done()
        await clock.advance(0.2)
        assert await pull == [2]


@pytest.mark.parametrize("turns", range(10))
async def test_a_cancelled_pull_keeps_what_was_gathered(clock: VirtualClock, turns: int) -> None:
    async def source() -> AsyncIterator[int]:
        for number in range(7):
            await asyncio.sleep(0)
            yield number

    async with streams.iter(source()).chunks_timeout(3, 1) as stream:
        chunks = []
        while True:
            pull = asyncio.create_task(anext(stream, None))
            await turn(turns)
            pull.cancel()
            try:
                chunk = await pull
            except asyncio.CancelledError:
                chunk = await anext(stream, None)
            if chunk is None:
                break
            chunks.append(chunk)
    assert chunks == [[0, 1, 2], [3, 4, 5], [6]]
    assert not others()


async def test_what_came_before_an_error_comes_first(clock: VirtualClock) -> None:
    async def source() -> AsyncIterator[int]:
        yield 0
        await asyncio.sleep(0)
        raise KeyError("source")

    stream = streams.iter(source()).chunks_timeout(3, 1)
    assert await anext(stream) == [0]
    with pytest.raises(KeyError, match="source"):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert not others()


async def test_a_second_task_that_pulls_at_the_same_time_is_refused() -> None:
    sender, receiver = channel(10)
    async with sender, streams.iter(receiver).chunks_timeout(1, 1) as stream:
        pull = asyncio.create_task(anext(stream))
        await turn(3)
        with pytest.raises(RuntimeError, match="another task"):
            await anext(stream)
        sender.send_nowait(0)
        assert await pull == [0]


async def test_closing_stops_the_clock_and_the_task() -> None:
    sender, receiver = channel(10)
    sender.send_nowait(0)
    async with sender:
        stream = streams.iter(receiver).chunks_timeout(2, 1000)
        pull = asyncio.create_task(anext(stream))
        await turn(5)
        pull.cancel()
        await stream.aclose()
        assert receiver.is_closed
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    with pytest.raises(asyncio.CancelledError):
        await pull
    assert not others()


async def test_a_closed_stream_is_not_kept_alive_by_its_clock() -> None:
    class Numbers:
        async def __aiter__(self) -> AsyncIterator[int]:
            yield 0
            await asyncio.Event().wait()

    source = Numbers()
    alive = weakref.ref(source)
    async with streams.iter(source).chunks_timeout(2, 1000) as stream:
        pull = asyncio.create_task(anext(stream))
        await turn(5)
        pull.cancel()
        await asyncio.wait([pull])
    del source, stream, pull
    await turn(2)
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize(
    ("seconds", "error"),
    [(0, ValueError), (-1, ValueError), (float("nan"), ValueError), (True, TypeError), ("1", TypeError)],
)
def test_wrong_times_are_refused_at_the_call(seconds: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="seconds"):
        streams.iter([1]).chunks_timeout(1, seconds)


@pytest.mark.parametrize("wait", ["chunks_timeout", "buffered", "map"])
async def test_who_pulls_while_the_stream_is_closed_sees_the_end(wait: str) -> None:
    async def slow(item: int) -> int:
        await asyncio.sleep(0.01)
        return item

    async def numbers() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(0.01)
        yield 2

    source = streams.iter(numbers() if wait == "chunks_timeout" else [1, 2])
    stream: Any = {
        "chunks_timeout": lambda: source.chunks_timeout(5, 60),
        "buffered": lambda: source.map(slow).buffered(2),
        "map": lambda: source.map(slow),
    }[wait]()

    async def pull() -> list[Any]:
        return [item async for item in stream]

    pulling = asyncio.create_task(pull())
    for _ in range(5):
        await asyncio.sleep(0)
    await stream.aclose()
    assert await asyncio.wait_for(pulling, 5) == []


async def test_an_error_of_the_source_when_it_is_closed_early_is_reported() -> None:
    reports: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(str(context["exception"])))

    async def numbers() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await asyncio.sleep(0)
        finally:
            raise OSError("cannot be closed")

    async with streams.iter(numbers()).chunks_timeout(2, 60) as stream:
        assert await anext(stream) == [1, 1]
    assert reports == ["cannot be closed"]
