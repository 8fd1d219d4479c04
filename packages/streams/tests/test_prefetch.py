"""A source that runs ahead: how far, in which order, with which errors, and how it stops."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest

from yamanote import streams
from yamanote.runtime import run
from yamanote.time import VirtualClock, sleep, time


class Source:
    """Counts up, and takes `seconds` for each item."""

    def __init__(self, count: int, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.pulled = 0
        self.open = False
        self.count = count
        self.seconds = seconds
        self.error = error

    async def __aiter__(self) -> AsyncIterator[int]:
        self.open = True
        try:
            for number in range(self.count):
                await sleep(self.seconds)
                self.pulled += 1
                yield number
            if self.error is not None:
                raise self.error
        finally:
            await sleep(0)
            self.open = False


@pytest.mark.parametrize("limit", [1, 3, None])
@pytest.mark.parametrize("length", [0, 1, 10, 1000])
async def test_the_items_are_the_same_in_the_same_order(limit: int | None, length: int) -> None:
    assert await streams.iter(range(length)).prefetch(limit).collect() == list(range(length))
    assert await streams.iter(Source(length)).prefetch(limit).collect() == list(range(length))
    assert await streams.buffer_aiter(Source(length), size=limit).collect() == list(range(length))
    assert [item async for item in streams.buffer_aiter(range(length), limit)] == list(range(length))


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_up_to_limit_items_wait_while_the_consumer_is_busy(limit: int) -> None:
    async def main() -> None:
        source = Source(20, seconds=0.01)
        async with streams.iter(source).prefetch(limit) as stream:
            await sleep(1)
            assert source.pulled == 0
            for taken in range(1, 20 - limit):
                await anext(stream)
                assert source.pulled <= taken - 1 + limit + (taken == 1)
                await sleep(1)
                assert source.pulled == taken + limit

    run(main(), clock=VirtualClock())


def test_without_a_limit_everything_comes_ahead() -> None:
    async def main() -> None:
        source = Source(500)
        async with streams.iter(source).prefetch(None) as stream:
            assert await anext(stream) == 0
            await sleep(1)
            assert source.pulled == 500 and not source.open

    run(main(), clock=VirtualClock())


def test_the_source_works_while_the_consumer_does() -> None:
    async def main() -> None:
        began = time()
        async for _ in streams.iter(Source(10, seconds=1)).prefetch(1):
            await sleep(1)
        assert time() - began == pytest.approx(11)

    run(main(), clock=VirtualClock())


async def test_items_come_before_an_error_that_is_raised_once() -> None:
    error = KeyError("source")
    stream = streams.iter(Source(3, error=error)).prefetch(10)
    assert await anext(stream) == 0
    for _ in range(20):
        await asyncio.sleep(0)
    assert [await anext(stream), await anext(stream)] == [1, 2]
    with pytest.raises(KeyError) as raised:
        await anext(stream)
    assert raised.value is error
    for _ in range(2):
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


@pytest.mark.parametrize("turns", range(6))
async def test_closing_stops_the_source_and_drops_what_is_ahead(turns: int) -> None:
    source = Source(100)
    stream = streams.iter(source).prefetch(3)
    pull = asyncio.create_task(anext(stream, None))
    for _ in range(turns):
        await asyncio.sleep(0)
    await stream.aclose()
    await asyncio.wait([pull])
    assert not source.open
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_item_that_was_given_is_kept_by_nobody() -> None:
    class Item:
        pass

    async def items() -> AsyncIterator[Item]:
        yield Item()
        await asyncio.Event().wait()

    async with streams.iter(items()).prefetch(1) as stream:
        item = weakref.ref(await anext(stream))
        await asyncio.sleep(0)
        assert item() is None


async def test_an_error_that_is_no_exception_is_raised_like_any_other() -> None:
    class Interrupt(BaseException):
        """Like KeyboardInterrupt, which would end the loop."""

    async def failing() -> AsyncIterator[int]:
        yield 1
        raise Interrupt

    stream = streams.iter(failing()).prefetch(1)
    assert await anext(stream) == 1
    with pytest.raises(Interrupt):
        await anext(stream)
    assert await anext(stream, None) is None


async def test_what_is_ahead_is_gone_when_it_is_closed() -> None:
    class Page:
        pass

    pages = [Page(), Page(), Page()]
    ahead = weakref.ref(pages[2])
    stream = streams.iter(pages.pop(0) for _ in range(3)).prefetch(3)
    await anext(stream)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not pages and ahead() is not None
    await stream.aclose()
    gc.collect()
    assert ahead() is None
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_what_is_ahead_lets_the_loop_turn() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with streams.iter(range(3000)).prefetch(None) as stream:
        await anext(stream)
        for _ in range(50):
            await asyncio.sleep(0)
        counter = asyncio.create_task(count())
        async for _ in stream:
            pass
        counter.cancel()
    assert turns >= 3000 // 128 - 1


async def test_nonsense_is_refused_and_the_stream_stays_usable() -> None:
    stream = streams.iter([1])
    wrong: Any
    for wrong, kind in ((0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError), ("2", TypeError)):
        with pytest.raises(kind, match="limit"):
            stream.prefetch(wrong)
        with pytest.raises(kind, match="size"):
            streams.buffer_aiter(stream, size=wrong)
    assert repr(stream.prefetch(2)) == "<Stream list.prefetch(2)>"
    assert await stream.aclose() is None
