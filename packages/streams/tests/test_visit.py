"""Closing a pipeline that another task pulls, without a task of its own in between; and its turns of the loop."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest

from yamanote import streams
from yamanote.runtime import CancelScope, run, yield_now
from yamanote.streams import Stream
from yamanote.streams._pipeline import Pace
from yamanote.testing import explore_cancellations
from yamanote.time import VirtualClock, sleep


class Source:
    """Waits for ever behind its items, and takes its time to close. May go on when it is cancelled."""

    def __init__(self, *items: Any, heeds: bool = True, failure: Exception | None = None) -> None:
        self.items = [*items]
        self.heeds = heeds
        self.failure = failure
        self.closed = 0
        self.closing = 0

    def __aiter__(self) -> Source:
        return self

    async def __anext__(self) -> Any:
        assert not self.closing
        if self.items:
            return self.items.pop(0)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self.heeds:
                raise
        return "too late"

    async def aclose(self) -> None:
        assert not self.closing, "closed by two at once"
        self.closing += 1
        try:
            for _ in range(3):
                await yield_now()
        finally:
            self.closing -= 1
        self.closed += 1
        if self.failure is not None:
            raise self.failure


async def parked(stream: Stream[Any]) -> asyncio.Task[list[Any]]:
    async def consume() -> list[Any]:
        return [item async for item in stream]

    task = asyncio.create_task(consume())
    for _ in range(3):
        await yield_now()
    return task


async def test_what_the_stages_have_gathered_is_dropped_with_the_pull_that_is_told_the_end() -> None:
    for stream in (streams.iter(Source(1)).chunks(2), streams.iter(Source(1)).prefetch(1).chunks(2)):
        pull = await parked(stream)
        await stream.aclose()
        assert await pull == []


async def test_a_strict_zip_that_is_closed_has_not_found_a_difference() -> None:
    stream = streams.iter([1, 2]).zip(Source("a"), strict=True)
    pull = await parked(stream)
    await stream.aclose()
    assert await pull == [(1, "a")]


async def test_closing_a_chain_pulls_nothing_of_its_other_sources() -> None:
    other = Source("of the other")
    for first in (streams.iter(Source(1)), streams.iter(Source(1)).prefetch(1)):
        stream = first.chain(other)
        pull = await parked(stream)
        await stream.aclose()
        assert await pull == [1]
        assert other.items
        other = Source("of the other")


async def test_closing_takes_the_end_of_take_until_for_no_error() -> None:
    stream = streams.iter(Source(1)).take_until(sleep(1000))
    pull = await parked(stream)
    await stream.aclose()
    assert await pull == [1]


async def test_a_source_that_goes_on_when_it_is_asked_is_waited_for_and_what_it_gives_is_dropped() -> None:
    source = Source(1, heeds=False)
    stream = streams.iter(source)
    pull = await parked(stream)
    await stream.aclose()
    assert source.closed == 1
    assert await pull == [1]
    assert not pull.cancelling()


async def test_a_source_that_ends_when_it_is_asked_leaves_nothing_of_what_was_gathered() -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    stream = streams.iter(numbers()).chunks(2)
    pull = await parked(stream)
    await stream.aclose()
    assert await pull == []


async def test_a_task_that_cancels_itself_when_it_is_asked_is_cancelled_once() -> None:
    async def numbers() -> AsyncIterator[int]:
        try:
            await asyncio.Event().wait()
        finally:
            asyncio.current_task().cancel()  # type: ignore[union-attr]
        yield 1

    async def consume() -> int:
        cancelled = 0
        for step in (anext(stream), yield_now(), yield_now()):
            try:
                await step
            except asyncio.CancelledError:
                cancelled += 1
            except StopAsyncIteration:
                pass
        return cancelled

    stream = streams.iter(numbers())
    task = asyncio.create_task(consume())
    await yield_now()
    await stream.aclose()
    assert await task == 1


@pytest.mark.parametrize("first", ["cancel", "close"])
async def test_somebody_elses_cancellation_in_the_same_turn_goes_on(first: str) -> None:
    source = Source()
    stream = streams.iter(source)
    pull = await parked(stream)
    if first == "cancel":
        pull.cancel()
    closer = asyncio.ensure_future(stream.aclose())
    if first == "close":
        await yield_now()
        pull.cancel()
    await closer
    await asyncio.wait([pull])
    assert pull.cancelled()
    assert source.closed == 1


async def test_a_task_that_has_swallowed_a_cancellation_before_is_told_the_end() -> None:
    stream = streams.iter(Source())

    async def consume() -> list[Any]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return [item async for item in stream]
        raise AssertionError

    task = asyncio.create_task(consume())
    await yield_now()
    task.cancel()
    await yield_now()
    await yield_now()
    await stream.aclose()
    assert await task == []
    assert task.cancelling() == 1


async def test_a_scope_around_the_pull_is_not_told() -> None:
    stream = streams.iter(Source())

    async def consume() -> bool:
        with CancelScope(shield=True) as scope:
            async for _ in stream:
                pass
        return scope.cancelled_caught

    task = asyncio.create_task(consume())
    await yield_now()
    await stream.aclose()
    assert not await task


async def test_many_close_at_once_and_all_wait() -> None:
    source = Source(1)
    stream = streams.iter(source)
    pull = await parked(stream)
    closers = [asyncio.create_task(stream.aclose()) for _ in range(3)]
    await asyncio.wait(closers, return_when=asyncio.FIRST_COMPLETED)
    assert source.closed == 1
    await asyncio.gather(*closers)
    assert await pull == [1]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_pull_that_comes_while_somebody_closes_waits_and_is_told_the_end() -> None:
    source = Source(1)
    stream = streams.iter(source)
    await anext(stream)
    closer = asyncio.create_task(stream.aclose())
    await yield_now()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert source.closed == 1
    await closer


async def test_a_closing_that_fails_is_told_once() -> None:
    source = Source(1, failure=OSError("closing"))
    stream = streams.iter(source)
    pull = await parked(stream)
    results = await asyncio.gather(stream.aclose(), pull, return_exceptions=True)
    assert results.count(source.failure) == 1
    await stream.aclose()
    assert source.closed == 1


@pytest.mark.parametrize("waits", [False, True])
async def test_a_function_may_close_its_own_stream(waits: bool) -> None:
    async def close(item: Any) -> Any:
        await stream.aclose()
        return item

    stream = streams.iter(Source(1, 2) if waits else [1, 2]).then(close)
    assert [item async for item in stream] == []


async def test_who_pulls_may_wait_for_who_closes() -> None:
    async def wait_for_closing(item: Any) -> None:
        await asyncio.create_task(stream.aclose())

    stream = streams.iter([1, 2]).then(wait_for_closing)
    pull = await parked(stream)
    await asyncio.wait([pull], timeout=10)
    assert pull.done()


async def test_an_inner_stream_can_be_closed_by_who_made_it() -> None:
    inner = streams.iter(Source(1))
    stream = streams.iter([inner, [2]]).flatten()
    pull = await parked(stream)
    await inner.aclose()
    assert await pull == [1, 2]


async def test_a_stream_that_is_closed_keeps_nothing_of_its_source() -> None:
    class Item:
        pass

    items = [Item()]
    item = weakref.ref(items[0])
    stream = streams.iter(items).map(str)
    await anext(stream)
    await stream.aclose()
    del items
    gc.collect()
    assert item() is None


async def test_the_loop_turns_between_many_results_of_one_item() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"line\n" * 2000

    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    assert len([line async for line in streams.iter(pieces()).lines()]) == 2000
    counting.cancel()
    await asyncio.wait([counting])
    assert turns >= 10


async def test_a_terminal_gives_way_more_often_the_longer_its_items_take(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    pace = Pace()
    sizes = []
    for seconds in [0.04] * 9 + [0.0] * 11:
        now += seconds
        await pace.rest()
        sizes.append(pace.size)
    assert sizes == [64, 32, 16, 8, 4, 2, 1, 1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024]


async def closed_while_pulled() -> None:
    """However this, the consumer or the closer is cancelled."""
    source = Source(1)
    stream = streams.iter(source).chunks(2)
    pull = await parked(stream)
    closers = [asyncio.create_task(stream.aclose()) for _ in range(2)]
    await asyncio.wait([pull, *closers])
    assert source.closed == 1 or any(closer.cancelled() for closer in closers) or pull.cancelled()
    await stream.aclose()
    assert source.closed == 1
    assert pull.cancelled() or (pull.result() == [] and not pull.cancelling())


def test_a_cancellation_at_any_moment_leaves_the_source_closed_once() -> None:
    explore_cancellations(closed_while_pulled)


def test_a_pull_on_a_loop_that_is_closed_does_not_hang_who_closes() -> None:
    async def leave() -> None:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.stop)
        await anext(stream)

    stream = streams.iter(Source())
    loop = asyncio.new_event_loop()
    left = loop.create_task(leave())
    loop.run_forever()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        run(stream.aclose(), clock=VirtualClock())
    left._log_destroy_pending = False  # type: ignore[attr-defined]
