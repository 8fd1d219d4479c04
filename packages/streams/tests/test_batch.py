"""Many items, one list."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from yamanote.runtime import run
from yamanote.sinks import Sink, drain, from_function
from yamanote.time import VirtualClock, sleep, time


class Slow(Sink[list[int]]):
    """Takes a second for each list, and fails when it is told to."""

    def __init__(self, seconds: float = 1, fails_at: int | None = None) -> None:
        self.seconds = seconds
        self.fails_at = fails_at
        self.events: list[Any] = []
        self.busy = False

    async def feed(self, item: list[int]) -> None:
        assert not self.busy
        self.busy = True
        try:
            if self.seconds:
                await sleep(self.seconds)
            if self.fails_at in item:
                raise KeyError(self.fails_at)
            self.events.append(item)
        finally:
            self.busy = False

    async def flush(self) -> None:
        self.events.append("flush")

    async def close(self) -> None:
        self.events.append("close")


async def test_a_batch_goes_down_when_it_is_full_and_the_rest_with_flush_and_close() -> None:
    slow = Slow(0)
    async with slow.batch(2) as sink:
        for number in range(3):
            await sink.feed(number)
        assert slow.events == [[0, 1]]
        await sink.flush()
        assert slow.events == [[0, 1], [2], "flush"]
        await sink.flush()
        await sink.feed(3)
    assert slow.events == [[0, 1], [2], "flush", "flush", [3], "close"]


def test_no_item_waits_longer_than_it_may() -> None:
    async def main() -> None:
        slow = Slow(0)
        async with slow.batch(3, 10) as sink:
            await sink.feed(0)
            await sleep(6)
            await sink.feed(1)
            await sleep(3.9)
            assert slow.events == []
            await sleep(0.2)
            assert slow.events == [[0, 1]]
            await sleep(100)
            assert slow.events == [[0, 1]]  # never an empty one
            await sink.feed(2)
            await sleep(5)
            for number in (3, 4, 5):
                await sink.feed(number)
            assert slow.events == [[0, 1], [2, 3, 4]]
            await sleep(6)
            assert slow.events == [[0, 1], [2, 3, 4]]  # the time of 5 began with itself
            await sleep(5)
            assert slow.events == [[0, 1], [2, 3, 4], [5]]
        assert slow.events[-1] == "close"

    run(main(), clock=VirtualClock())


def test_one_batch_is_under_way_while_the_next_is_gathered_and_then_feed_waits() -> None:
    async def main() -> None:
        slow = Slow(1)
        start = time()
        async with slow.batch(2) as sink:
            for number in range(4):
                await sink.feed(number)
            assert time() == start  # [0, 1] is under way, [2, 3] is there
            await sink.feed(4)
            assert time() == start + 1
            assert slow.events == [[0, 1]]
        assert slow.events == [[0, 1], [2, 3], [4], "close"]
        assert time() == start + 3

    run(main(), clock=VirtualClock())


def test_a_batch_that_expires_while_another_is_under_way_follows_it() -> None:
    async def main() -> None:
        slow = Slow(10)
        async with slow.batch(2, 1) as sink:
            for number in range(3):
                await sink.feed(number)
            await sleep(10.5)
            assert slow.events == [[0, 1]] and slow.busy
            await sink.feed(3)  # begins the next one
        assert slow.events == [[0, 1], [2], [3], "close"]

    run(main(), clock=VirtualClock())


@pytest.mark.parametrize("call", ["feed", "flush", "close"])
def test_an_error_of_a_batch_that_expired_is_raised_by_the_next_call_and_by_close(call: str) -> None:
    async def main() -> None:
        slow = Slow(0, fails_at=1)
        sink = slow.batch(5, 1)
        await sink.feed(1)
        await sleep(2)
        with pytest.raises(KeyError):
            await (sink.feed(2) if call == "feed" else sink.flush() if call == "flush" else sink.close())
        for _ in range(2):
            with pytest.raises(KeyError):
                await sink.close()
        assert slow.events == ["close"]

    run(main(), clock=VirtualClock())


def test_who_waits_for_room_is_told_of_the_error() -> None:
    async def main() -> None:
        sink = Slow(1, fails_at=0).batch(1)
        await sink.feed(0)
        await sink.feed(1)
        with pytest.raises(KeyError):
            await sink.feed(2)
        with pytest.raises(KeyError):
            await sink.close()

    run(main(), clock=VirtualClock())


def test_a_dropped_batch_warns_and_still_arrives() -> None:
    async def main() -> None:
        slow = Slow(1)
        sink: Sink[int] | None = slow.batch(5)
        assert sink is not None
        await sink.feed(0)
        with pytest.warns(ResourceWarning, match=r"batch\(5\) of .* was dropped"):
            sink = None
            gc.collect()
        await sleep(2)
        assert slow.events == [[0], "close"]

    run(main(), clock=VirtualClock())


def test_what_goes_wrong_behind_a_dropped_one_is_told_to_the_loop_once() -> None:
    async def main() -> None:
        reported: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))
        sink: Sink[int] | None = Slow(1, fails_at=0).batch(5)
        assert sink is not None
        await sink.feed(0)
        with pytest.warns(ResourceWarning):
            sink = None
            gc.collect()
        await sleep(2)
        assert [type(error) for error in reported] == [KeyError]

    run(main(), clock=VirtualClock())


async def test_others_run_while_it_gathers() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    async with drain().batch(10_000) as sink:
        for number in range(2000):
            await sink.feed(number)
    task.cancel()
    assert turns > 5


async def test_lists_of_lists() -> None:
    got: list[Any] = []
    async with from_function(got.append).batch(2).batch(2) as sink:
        await sink.send_all(range(5))
    assert got == [[[0, 1], [2, 3]], [[4]]]


@pytest.mark.parametrize(
    ("count", "seconds", "name"),
    [(0, None, "count"), (True, None, "count"), (1.5, None, "count"), (1, 0, "seconds"), (1, "1", "seconds")],
)
async def test_nonsense_is_refused(count: Any, seconds: Any, name: str) -> None:
    sink = drain()
    with pytest.raises((TypeError, ValueError), match=name):
        sink.batch(count, seconds)
    await sink.send(1)
