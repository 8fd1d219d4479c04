"""Calls that are repeated when they fail."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from yamanote.runtime import run
from yamanote.sinks import Sink, SinkClosed, drain
from yamanote.time import Schedule, VirtualClock, sleep, time, timeout


class Shaky(Sink[int]):
    """Each call fails as often as it is told to."""

    def __init__(self, **failures: int) -> None:
        self.failures = failures
        self.events: list[Any] = []

    async def call(self, name: str, event: Any) -> None:
        await asyncio.sleep(0)
        if self.failures.get(name, 0) > 0:
            self.failures[name] -= 1
            raise OSError(name)
        self.events.append(event)

    async def feed(self, item: int) -> None:
        await self.call("feed", item)

    async def flush(self) -> None:
        await self.call("flush", "flush")

    async def close(self) -> None:
        await self.call("close", "close")


def test_each_call_is_repeated_after_the_delays() -> None:
    async def main() -> None:
        shaky = Shaky(feed=2, flush=1, close=1)
        start = time()
        async with shaky.retry(Schedule(1, 2, 4), on=OSError) as sink:
            await sink.feed(0)
            assert time() == start + 3
            await sink.flush()
            assert time() == start + 4
        assert time() == start + 5
        assert shaky.events == [0, "flush", "close"]

    run(main(), clock=VirtualClock())


def test_the_last_error_is_raised_and_the_next_item_may_be_fed() -> None:
    async def main() -> None:
        shaky = Shaky(feed=2)
        async with shaky.retry(Schedule(1)) as sink:
            with pytest.raises(OSError, match="feed"):
                await sink.feed(0)
            await sink.feed(1)
        assert shaky.events == [1, "close"]

    run(main(), clock=VirtualClock())


def test_other_errors_are_raised_at_once_and_the_error_of_closing_each_time() -> None:
    async def main() -> None:
        shaky = Shaky(feed=1, close=1)
        sink = shaky.retry(Schedule(1), on=(KeyError, ValueError))
        start = time()
        with pytest.raises(OSError, match="feed"):
            await sink.feed(0)
        for _ in range(2):
            with pytest.raises(OSError, match="close"):
                await sink.close()
        assert time() == start

    run(main(), clock=VirtualClock())


def test_nothing_overtakes_an_item_that_has_to_be_tried_again() -> None:
    async def main() -> None:
        shaky = Shaky(feed=1)
        async with shaky.retry(Schedule.fixed(1)) as sink:
            await asyncio.gather(*(sink.feed(number) for number in range(4)))
        assert shaky.events == [0, 1, 2, 3, "close"]

    run(main(), clock=VirtualClock())


def test_a_feed_that_is_cancelled_between_two_attempts_makes_no_other() -> None:
    async def main() -> None:
        shaky = Shaky(feed=1)
        async with shaky.retry(Schedule.fixed(10)) as sink:
            with pytest.raises(TimeoutError):
                async with timeout(5):
                    await sink.feed(0)
            await sleep(20)
            assert shaky.events == []
            await sink.feed(1)
        assert shaky.events == [1, "close"]

    run(main(), clock=VirtualClock())


def test_closing_waits_for_the_call_that_is_being_repeated() -> None:
    async def main() -> None:
        shaky = Shaky(feed=1)
        sink = shaky.retry(Schedule.fixed(10))
        feeds = [asyncio.create_task(sink.feed(number)) for number in (0, 1)]
        await sleep(1)
        await sink.close()
        assert shaky.events == [0, "close"]
        results = await asyncio.gather(*feeds, return_exceptions=True)
        assert results[0] is None and isinstance(results[1], SinkClosed)

    run(main(), clock=VirtualClock())


def test_a_buffer_over_it_gets_through_a_bad_time() -> None:
    async def main() -> None:
        shaky = Shaky(feed=3)
        async with shaky.retry(Schedule.exponential(1)).buffer(10) as sink:
            for number in range(5):
                await sink.feed(number)
        assert shaky.events == [0, 1, 2, 3, 4, "close"]

    run(main(), clock=VirtualClock())


@pytest.mark.parametrize(("schedule", "on", "name"), [(3, Exception, "schedule"), (Schedule(1), BaseException, "on")])
async def test_nonsense_is_refused(schedule: Any, on: Any, name: str) -> None:
    sink = drain()
    with pytest.raises(TypeError, match=name):
        sink.retry(schedule, on=on)
    await sink.send(1)
