"""Room before a busy sink."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from yamanote.sinks import Sink, SinkClosed


class Busy(Sink[Any]):
    """Lets an item in when it is told to; keeps a list of all that happens."""

    def __init__(self, *, is_open: bool = True, fails_at: Any = None) -> None:
        self.gate = asyncio.Event()
        if is_open:
            self.gate.set()
        self.fails_at = fails_at
        self.events: list[Any] = []

    async def step(self, what: Any) -> None:
        await self.gate.wait()
        await asyncio.sleep(0)
        if what == self.fails_at:
            raise KeyError(what)
        self.events.append(what)

    async def feed(self, item: Any) -> None:
        await self.step(item)

    async def flush(self) -> None:
        await self.step("flush")

    async def close(self) -> None:
        await self.step("close")


async def turn(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


async def test_it_accepts_while_the_sink_is_busy_up_to_its_capacity() -> None:
    busy = Busy(is_open=False)
    sink = busy.buffer(2)
    assert not others()  # nothing runs before the first item
    for number in range(3):  # one is in the hands of the task
        await sink.feed(number)
        await turn(3)
    feed = asyncio.create_task(sink.feed(3))
    await turn(5)
    assert not feed.done()
    busy.gate.set()
    await feed
    await sink.close()
    assert busy.events == [0, 1, 2, 3, "close"]
    assert not others()


async def test_flush_waits_until_everything_accepted_is_flushed() -> None:
    busy = Busy(is_open=False)
    async with busy.buffer(5) as sink:
        await sink.feed(0)
        await sink.feed(1)
        flush = asyncio.create_task(sink.flush())
        await turn(5)
        assert not flush.done()
        busy.gate.set()
        await flush
        assert busy.events == [0, 1, "flush"]


async def test_flush_and_close_before_the_first_item_start_nothing() -> None:
    busy = Busy()
    sink = busy.buffer(5)
    await sink.flush()
    assert not others()
    await sink.close()
    assert busy.events == ["close"]
    assert not others()


async def test_close_drains_and_then_refuses() -> None:
    busy = Busy()
    sink = busy.buffer(10)
    for number in range(10):
        await sink.feed(number)
    await sink.close()
    await sink.close()
    assert busy.events == [*range(10), "close"]
    with pytest.raises(SinkClosed, match="buffer"):
        await sink.feed(11)
    with pytest.raises(SinkClosed):
        await sink.flush()


async def test_a_feed_that_waits_when_it_is_closed_has_not_accepted_the_item() -> None:
    busy = Busy(is_open=False)
    sink = busy.buffer(1)
    await sink.feed(0)
    await turn(3)
    await sink.feed(1)
    feed = asyncio.create_task(sink.feed(2))
    await turn(3)
    close = asyncio.create_task(sink.close())
    with pytest.raises(SinkClosed):
        await feed
    busy.gate.set()
    await close
    assert busy.events == [0, 1, "close"]


@pytest.mark.parametrize("fails_at", [1, "flush", "close"])
async def test_an_error_is_raised_by_each_later_call(fails_at: Any) -> None:
    busy = Busy(fails_at=fails_at)
    sink = busy.buffer(1)
    with pytest.raises(KeyError, match=str(fails_at)):
        for number in range(5):
            await sink.feed(number)
            await sink.flush()
        await sink.close()
    for _ in range(2):
        with pytest.raises(KeyError):
            await sink.feed(6)
        with pytest.raises(KeyError):
            await sink.flush()
        with pytest.raises(KeyError):
            await sink.close()
    assert not others()
    if fails_at != "close":
        assert busy.events[-1] == "close"  # what the sink holds is let go of


async def test_an_error_wakes_everybody_who_waits() -> None:
    busy = Busy(is_open=False, fails_at=0)
    sink = busy.buffer(1)
    await sink.feed(0)
    await turn(3)
    await sink.feed(1)
    waiting = [asyncio.create_task(call) for call in (sink.feed(1), sink.flush(), sink.feed(3), sink.close())]
    await turn(1)
    waiting += [asyncio.create_task(sink.close())]
    await turn(5)
    busy.gate.set()
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, KeyError | SinkClosed)
    assert not others()


async def test_a_flush_that_waits_behind_an_error_is_told() -> None:
    busy = Busy(is_open=False, fails_at=0)
    sink = busy.buffer(5)
    await sink.feed(0)
    flush = asyncio.create_task(sink.flush())
    await turn(5)
    busy.gate.set()
    with pytest.raises(KeyError):
        await flush
    with pytest.raises(KeyError):
        await sink.close()


async def test_an_error_in_async_with_is_raised_as_it_is() -> None:
    with pytest.raises(KeyError, match="1"):
        async with Busy(fails_at=1).buffer(2) as sink:
            for number in range(10):
                await sink.feed(number)


@pytest.mark.parametrize("turns", range(12))
async def test_a_cancelled_feed_or_flush_loses_nothing_that_was_accepted(turns: int) -> None:
    busy = Busy()
    accepted = []
    async with busy.buffer(1) as sink:
        for number in range(6):
            feed = asyncio.create_task(sink.feed(number))
            await turn(turns % 4)
            feed.cancel()
            await asyncio.wait([feed])
            if not feed.cancelled():
                accepted.append(number)
            flush = asyncio.create_task(sink.flush())
            await turn(turns)
            flush.cancel()
            await asyncio.wait([flush])
    assert [event for event in busy.events if isinstance(event, int)] == accepted
    assert busy.events[-1] == "close"
    assert not others()


@pytest.mark.parametrize("turns", range(10))
async def test_a_cancelled_close_loses_nothing_and_can_be_repeated(turns: int) -> None:
    busy = Busy()
    sink = busy.buffer(5)
    for number in range(4):
        await sink.feed(number)
    close = asyncio.create_task(sink.close())
    await turn(turns)
    close.cancel()
    await asyncio.wait([close])
    await sink.close()
    assert busy.events == [0, 1, 2, 3, "close"]
    assert not others()


async def test_who_waits_for_room_is_served_in_order() -> None:
    busy = Busy(is_open=False)
    async with busy.buffer(1) as sink:
        feeds = [asyncio.create_task(sink.feed(number)) for number in range(6)]
        await turn(5)
        busy.gate.set()
        await asyncio.gather(*feeds)
    assert busy.events == [0, 1, 2, 3, 4, 5, "close"]


async def test_a_dropped_buffer_warns_and_drains() -> None:
    busy = Busy()
    sink: Sink[Any] | None = busy.buffer(5)
    assert sink is not None
    await sink.feed(0)
    await sink.feed(1)
    with pytest.warns(ResourceWarning, match="buffer"):
        sink = None
        gc.collect()
    await turn(10)
    assert busy.events == [0, 1, "close"]
    assert not others()


@pytest.mark.parametrize("in_a_cycle", [False, True])
async def test_what_goes_wrong_behind_a_dropped_buffer_is_told_to_the_loop_once(in_a_cycle: bool) -> None:
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))
    busy = Busy(is_open=False, fails_at=0)
    with pytest.warns(ResourceWarning, match="buffer"):
        sink: Sink[Any] | None = busy.buffer(5)
        assert sink is not None
        await sink.feed(0)
        cycle = [sink]
        if in_a_cycle:
            cycle.append(cycle)  # type: ignore[arg-type]
        sink = None
        del cycle
        gc.collect()
    busy.gate.set()
    await turn(10)
    assert [type(error) for error in reported] == [KeyError]
    assert busy.events == ["close"]


async def test_marks_of_cancelled_flushes_are_no_items() -> None:
    busy = Busy(is_open=False)
    async with busy.buffer(5) as sink:
        await sink.feed(0)
        flush = asyncio.create_task(sink.flush())
        await turn(3)
        flush.cancel()
        await asyncio.wait([flush])
        busy.gate.set()
    assert busy.events == [0, "flush", "close"]


@pytest.mark.parametrize("turns", [0, 3])
async def test_a_task_that_somebody_cancels_is_reported_and_its_sink_is_closed(turns: int) -> None:
    busy = Busy(is_open=False)
    sink = busy.buffer(1)
    await sink.feed(0)
    await turn(turns)  # with none of them, the task has not begun
    for task in others():
        task.cancel()
    await turn(3)
    busy.gate.set()
    for refused in (sink.feed(1), sink.flush(), sink.close()):
        with pytest.raises(RuntimeError, match="cancelled"):
            await refused
    assert busy.events == ["close"]


@pytest.mark.parametrize(("capacity", "error"), [(0, ValueError), (True, TypeError), (1.5, TypeError)])
def test_wrong_capacities_are_refused(capacity: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="capacity"):
        Busy().buffer(capacity)
