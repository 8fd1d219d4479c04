"""The contract of sinks, and the small ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from yamanote import streams
from yamanote.channels import ChannelClosed, channel
from yamanote.sinks import SenderSink, Sink, SinkClosed, drain


class Log(Sink[Any]):
    """Writes down what is done to it."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    async def feed(self, item: Any) -> None:
        self.calls.append(item)

    async def flush(self) -> None:
        self.calls.append("flush")

    async def close(self) -> None:
        self.calls.append("close")


async def test_send_feeds_and_flushes() -> None:
    sink = Log()
    await sink.send(1)
    assert sink.calls == [1, "flush"]


async def test_async_with_closes_also_after_an_error() -> None:
    sink = Log()
    with pytest.raises(KeyError):
        async with sink as entered:
            assert entered is sink
            raise KeyError
    assert sink.calls == ["close"]


@pytest.mark.parametrize("is_async", [False, True])
async def test_send_all_flushes_at_the_end_and_leaves_the_sink_open(is_async: bool) -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    sink = Log()
    await sink.send_all(numbers() if is_async else [1, 2])
    assert sink.calls == [1, 2, "flush"]
    await sink.send_all(streams.iter([3]).map(lambda n: n + 1))
    assert sink.calls == [1, 2, "flush", 4, "flush"]


async def test_send_all_closes_the_source_when_the_sink_fails() -> None:
    closed = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    def fail(item: int) -> None:
        raise KeyError(item)

    with pytest.raises(KeyError):
        await Log().with_map(fail).send_all(numbers())
    assert closed == [True]


async def test_with_map_takes_plain_and_async_functions() -> None:
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return number * 2

    sink = Log()
    async with sink.with_map(double).with_map(int) as mapped:
        await mapped.feed("1")
        await mapped.flush()
    assert sink.calls == [2, "flush", "close"]
    with pytest.raises(TypeError, match="function"):
        sink.with_map(None)  # type: ignore[call-overload]


async def test_an_error_of_the_function_refuses_the_item_and_nothing_else() -> None:
    sink = Log()
    mapped = sink.with_map(int)
    with pytest.raises(ValueError):
        await mapped.feed("x")
    await mapped.send("1")
    assert sink.calls == [1, "flush"]


async def test_a_drain_accepts_everything_until_it_is_closed() -> None:
    sink = drain()
    for item in (None, 0, ValueError()):
        await sink.send(item)
    await sink.close()
    await sink.close()
    with pytest.raises(SinkClosed, match="drain"):
        await sink.feed(1)
    with pytest.raises(SinkClosed):
        await sink.flush()


async def test_others_run_although_a_drain_never_waits() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    sink = drain()
    for number in range(1000):
        await sink.feed(number)
    task.cancel()
    assert turns > 2


async def test_a_sender_sink_owns_the_sender() -> None:
    sender, receiver = channel(10)
    with receiver:
        async with sender.into_sink() as sink:
            assert isinstance(sink, SenderSink)
            await sink.send(1)
            await sink.feed(2)
        assert [item async for item in receiver] == [1, 2]
        with pytest.raises(SinkClosed):
            await sink.feed(3)
        with pytest.raises(SinkClosed):
            await sink.flush()
        await sink.close()


async def test_a_sender_sink_says_when_nobody_receives() -> None:
    sender, receiver = channel(10)
    receiver.close()
    async with SenderSink(sender) as sink:
        with pytest.raises(ChannelClosed):
            await sink.feed(1)


async def test_a_cancelled_feed_of_a_sender_sink_has_not_accepted_the_item() -> None:
    sender, receiver = channel(1)
    async with receiver, SenderSink(sender) as sink:
        await sink.feed(1)
        feed = asyncio.create_task(sink.feed(2))
        await asyncio.sleep(0)
        feed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await feed
        assert await receiver.recv() == 1
        await sink.feed(3)
        assert await receiver.recv() == 3


async def test_an_item_whose_feed_was_cancelled_was_not_sent() -> None:
    """Also when room was made for it in that very turn."""
    sender, receiver = channel(1)
    async with receiver, SenderSink(sender) as sink:
        await sink.feed(0)
        feeding = asyncio.create_task(sink.feed(1))
        for _ in range(5):
            await asyncio.sleep(0)
        assert receiver.recv_nowait() == 0
        feeding.cancel()
        await asyncio.wait([feeding])
        assert feeding.cancelled()
        assert len(receiver) == 0
        await sink.feed(2)
        assert receiver.recv_nowait() == 2


async def test_a_sink_of_a_sender_brings_back_what_is_refused() -> None:
    sender, receiver = channel(1)
    async with SenderSink(sender) as sink:
        receiver.close()
        with pytest.raises(ChannelClosed) as caught:
            await sink.feed("a")
        assert caught.value.refused == ("a",)


async def test_a_sink_takes_any_sender_and_one_whose_send_is_plain_lets_others_run_once_in_a_while() -> None:
    class Waits:
        def __init__(self) -> None:
            self.sent: list[object] = []

        async def send(self, item: object) -> None:
            await asyncio.sleep(0)
            self.sent.append(item)

        def close(self) -> None:
            self.sent.append("close")

    class Plain(Waits):
        def send(self, item: object) -> None:  # type: ignore[override]
            self.sent.append(item)

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    class ClosesLater(Waits):
        async def close(self) -> None:  # type: ignore[override]
            await asyncio.sleep(0)
            self.sent.append("close")

    for sender in (Waits(), Plain(), ClosesLater()):
        turns = 0
        task = asyncio.create_task(other())
        async with SenderSink(sender) as sink:
            await sink.send_all(range(1000))
        task.cancel()
        assert sender.sent == [*range(1000), "close"]
        assert turns > 2


@pytest.mark.parametrize("wrong", [5, "sender", asyncio.Queue], ids=["number", "text", "class"])
def test_what_is_no_sender_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="sender"):
        SenderSink(wrong)


@pytest.mark.parametrize("wrong", [print, 3, [], Sink, None], ids=["function", "number", "list", "class", "none"])
async def test_forward_refuses_what_is_no_sink_and_leaves_the_stream_as_it_was(wrong: Any) -> None:
    numbers = streams.iter([1, 2])
    with pytest.raises(TypeError, match="sink must be a Sink"):
        await numbers.forward(wrong)
    assert await numbers.collect() == [1, 2]
