"""One item for many sinks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from yamanote.sinks import Sink, SinkClosed


class Part(Sink[Any]):
    """Accepts an item after some loop turns; what was cancelled has not been accepted. Fails when it is told to."""

    def __init__(self, turns: int = 0, fails_at: Any = None) -> None:
        self.turns = turns
        self.fails_at = fails_at
        self.items: list[Any] = []
        self.busy = 0
        self.most = 0
        self.closed = 0

    async def wait(self, step: Any) -> None:
        self.busy += 1
        self.most = max(self.most, self.busy)
        try:
            for _ in range(self.turns):
                await asyncio.sleep(0)
            if step == self.fails_at:
                raise KeyError(step)
        finally:
            self.busy -= 1

    async def feed(self, item: Any) -> None:
        await self.wait(item)
        self.items.append(item)

    async def flush(self) -> None:
        await self.wait("flush")

    async def close(self) -> None:
        self.closed += 1
        await self.wait("close")


class Gate(Sink[Any]):
    """Takes nothing before its gate is open."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.gate = asyncio.Event()

    async def feed(self, item: Any) -> None:
        await self.gate.wait()
        self.got.append(item)

    async def flush(self) -> None: ...

    async def close(self) -> None: ...


async def turn(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


async def test_every_sink_gets_every_item_in_order() -> None:
    parts = [Part(0), Part(3), Part(1)]
    async with parts[0].fanout(*parts[1:]) as sink:
        await sink.send_all(range(5))
        assert [part.items for part in parts] == [[0, 1, 2, 3, 4]] * 3
    assert [part.closed for part in parts] == [1, 1, 1]
    assert not others()


async def test_the_others_get_the_item_when_one_fails_and_then_the_fanout_is_dead() -> None:
    parts = [Part(0), Part(1, fails_at=1), Part(0)]
    sink = parts[0].fanout(*parts[1:])
    await sink.feed(0)
    await sink.feed(1)  # accepted: it is being delivered
    with pytest.raises(KeyError):
        await sink.feed(2)
    assert [part.items for part in parts] == [[0, 1], [0], [0, 1]]
    for _ in range(2):
        with pytest.raises(KeyError):
            await sink.feed(2)
        with pytest.raises(KeyError):
            await sink.flush()
    assert [part.items for part in parts] == [[0, 1], [0], [0, 1]]
    for _ in range(2):
        with pytest.raises(KeyError):
            await sink.close()
    assert [part.closed for part in parts] == [1, 1, 1]
    assert not others()


@pytest.mark.parametrize("step", ["flush", "close"])
async def test_all_are_flushed_and_closed_when_one_fails(step: str) -> None:
    parts = [Part(2, fails_at=step), Part(5), Part(0)]
    sink = parts[0].fanout(*parts[1:])
    await sink.feed(0)
    with pytest.raises(KeyError, match=step):
        await (sink.flush() if step == "flush" else sink.close())
    assert [part.busy for part in parts] == [0, 0, 0]
    with pytest.raises(KeyError, match=step):
        await sink.close()
    assert [part.closed for part in parts] == [1, 1, 1]


async def test_a_second_error_goes_to_the_handler_of_the_loop() -> None:
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))
    sink = Part(fails_at=1).fanout(Part(fails_at=1))
    with pytest.raises(KeyError):
        await sink.feed(1)
    assert [type(error) for error in reported] == [KeyError]
    with pytest.raises(KeyError):
        await sink.close()


async def test_a_closed_fanout_accepts_nothing() -> None:
    sink = Part().fanout(Part())
    await sink.close()
    await sink.close()
    with pytest.raises(SinkClosed, match="fanout"):
        await sink.feed(1)
    with pytest.raises(SinkClosed):
        await sink.flush()


@pytest.mark.parametrize("turns", range(8))
async def test_every_sink_gets_what_was_accepted_once_whenever_a_feed_is_cancelled(turns: int) -> None:
    parts = [Part(1), Part(2), Part(1)]
    accepted = []
    async with parts[0].fanout(parts[1]).with_map(int).fanout(parts[2]) as sink:
        for number in range(3):
            feed = asyncio.create_task(sink.feed(number))
            await turn(turns)
            feed.cancel()
            await asyncio.wait([feed])
            if not feed.cancelled():
                accepted.append(number)
    assert parts[0].items == parts[1].items == parts[2].items == accepted
    assert bool(accepted) == bool(turns)


async def test_a_sink_that_fails_at_once_is_told_of_at_once() -> None:
    sink = Part(fails_at=1).fanout(Part())
    with pytest.raises(KeyError):
        await sink.feed(1)
    with pytest.raises(KeyError):
        await sink.close()


async def test_a_cancelled_feed_has_not_accepted_its_item_and_the_one_before_is_delivered() -> None:
    gate, other = Gate(), Gate()
    other.gate.set()
    async with other.fanout(gate) as sink:
        await sink.feed(0)  # accepted, and on its way
        feed = asyncio.create_task(sink.feed(1))
        await turn(2)
        feed.cancel()
        await asyncio.wait([feed])
        assert feed.cancelled()
        gate.gate.set()
        await sink.flush()
        assert gate.got == other.got == [0]


@pytest.mark.parametrize("turns", range(8))
async def test_a_cancelled_flush_can_be_repeated(turns: int) -> None:
    parts = [Part(1), Part(3)]
    async with parts[0].fanout(parts[1]) as sink:
        await sink.send(0)
        flush = asyncio.create_task(sink.flush())
        await turn(turns)
        flush.cancel()
        await asyncio.wait([flush])
        assert [part.busy for part in parts] == [0, 0]
        await sink.flush()
    assert parts[0].items == parts[1].items == [0]


@pytest.mark.parametrize("turns", range(1, 8))
async def test_closing_goes_on_when_it_is_cancelled(turns: int) -> None:
    parts = [Part(2), Part(4)]
    sink = parts[0].fanout(parts[1])
    feed = asyncio.create_task(sink.feed(0))
    await turn(3)
    feed.cancel()
    await asyncio.wait([feed])
    close = asyncio.create_task(sink.close())
    await turn(turns)
    close.cancel()
    await asyncio.wait([close])
    await sink.close()
    assert [part.items for part in parts] == [[0], [0]]
    assert [part.closed for part in parts] == [1, 1]
    assert not others()


async def test_several_tasks_may_feed() -> None:
    parts = [Part(1), Part(2), Part(0)]
    async with parts[0].fanout(*parts[1:]) as sink:
        await asyncio.gather(*(sink.feed(number) for number in range(10)))
    assert parts[0].items == parts[1].items == parts[2].items == list(range(10))
    assert [part.most for part in parts] == [1, 1, 1]


async def test_what_is_no_sink_is_refused() -> None:
    with pytest.raises(TypeError, match="sinks"):
        Part().fanout([])  # type: ignore[arg-type]


@pytest.mark.parametrize("turns", range(6))
async def test_a_buffer_behind_a_fan_out_gets_an_item_once_whenever_feeding_it_is_cancelled(turns: int) -> None:
    gate, other = Gate(), Gate()
    other.gate.set()
    sink = other.fanout(gate.buffer(1))
    for number in range(3):
        await sink.feed(number)
        await turn(5)
    feeding = asyncio.create_task(sink.feed(3))
    await turn(5)
    gate.gate.set()
    await turn(turns)
    feeding.cancel()
    await asyncio.wait([feeding])
    await sink.feed(4)
    await sink.close()
    assert gate.got == other.got == ([0, 1, 2, 4] if feeding.cancelled() else [0, 1, 2, 3, 4])


async def test_a_nested_fan_out_gives_an_item_once_to_each_although_feeding_is_cancelled() -> None:
    first, second, third = Gate(), Gate(), Gate()
    first.gate.set()
    second.gate.set()
    sink = first.fanout(second.fanout(third).with_map(int))
    await sink.feed(0)
    await sink.feed(1)
    feeding = asyncio.create_task(sink.feed(2))
    await turn(5)
    feeding.cancel()
    await asyncio.wait([feeding])
    third.gate.set()
    await sink.feed(3)
    await sink.close()
    assert first.got == second.got == third.got == [0, 1, 3]


async def test_a_flush_beside_a_close_is_finished_first() -> None:
    parts = [Part(3), Part(1)]
    sink = parts[0].fanout(parts[1])
    await sink.feed(0)
    flush = asyncio.create_task(sink.flush())
    await turn(1)
    await sink.close()
    await flush
    assert [part.most for part in parts] == [1, 1]


async def test_a_flush_that_waits_for_its_turn_when_the_sink_is_closed_ends_with_the_close() -> None:
    gate, slow = Gate(), Part(5)
    sink = gate.fanout(slow)
    await sink.feed(0)
    feed = asyncio.create_task(sink.feed(1))
    await turn(1)
    flush = asyncio.create_task(sink.flush())
    await turn(1)
    close = asyncio.create_task(sink.close())
    await turn(1)
    gate.gate.set()
    await flush
    assert gate.got == slow.items == [0]
    assert slow.closed and not slow.busy
    await close
    with pytest.raises(SinkClosed):
        await feed


async def test_who_feeds_first_is_served_first() -> None:
    gate = Gate()
    async with gate.fanout() as sink:
        await sink.feed(0)
        feeds = [asyncio.create_task(sink.feed(number)) for number in (1, 2, 3)]
        await turn(3)
        gate.gate.set()
        await turn(1)
        feeds.append(asyncio.create_task(sink.feed(4)))
        await asyncio.gather(*feeds)
    assert gate.got == [0, 1, 2, 3, 4]
