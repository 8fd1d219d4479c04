"""A sink sends as its channel does: from hand to hand, or by the policy for what overflows."""

import asyncio

import pytest

from yamanote.channels import (
    ChannelClosed,
    HandleClosed,
    broadcast,
    channel,
    channel_unbounded,
    oneshot_channel,
    spsc_buffer,
    watch,
)
from yamanote.sinks import SenderSink, SinkClosed

kinds = {
    "channel": lambda: channel(4),
    "overflow": lambda: channel(4, overflow="drop_oldest"),
    "unbounded": channel_unbounded,
    "broadcast": lambda: broadcast(4),
    "broadcast, suspend": lambda: broadcast(4, overflow="suspend"),
    "watch": lambda: watch(b""),
    "oneshot": oneshot_channel,
    "bytes": lambda: spsc_buffer(10),
}
each_kind = pytest.mark.parametrize("kind", kinds)


@each_kind
async def test_the_sending_end_of_every_channel_becomes_a_sink_that_closes_it(kind):
    tx, rx = kinds[kind]()
    with rx:
        async with tx.into_sink() as sink:
            assert isinstance(sink, SenderSink)
            assert tx.is_closed or kind == "oneshot"
            await sink.send(b"a")
        for _ in range(2):
            with pytest.raises(SinkClosed):
                await sink.feed(b"b")
            with pytest.raises(SinkClosed):
                await sink.flush()
            await sink.close()
        if kind == "oneshot":
            assert await rx == b"a"
        elif kind == "watch":
            assert rx.borrow() == b"a"
        else:
            assert await rx.recv() == b"a"
            with pytest.raises(ChannelClosed):
                await rx.recv()


@each_kind
async def test_a_sink_says_when_nobody_receives_any_more(kind):
    tx, rx = kinds[kind]()
    async with tx.into_sink() as sink:
        rx.close()
        for _ in range(2):
            with pytest.raises(ChannelClosed):
                await sink.feed(b"a")


async def test_a_sink_for_one_item_refuses_the_second():
    tx, rx = oneshot_channel()
    async with tx.into_sink() as sink:
        await sink.send(1)
        with pytest.raises(HandleClosed):
            await sink.feed(2)
    assert await rx == 1


async def test_a_feed_that_waits_for_room_when_its_sink_is_closed_was_refused():
    tx, rx = channel(1)
    with rx:
        sink = tx.into_sink()
        await sink.feed(1)
        feed = asyncio.create_task(sink.feed(2))
        await asyncio.sleep(0)
        await sink.close()
        with pytest.raises(SinkClosed):
            await feed
        assert [item async for item in rx] == [1]


async def test_a_sink_of_a_channel_that_drops_never_waits():
    tx, rx = channel(1, overflow="drop_oldest")
    with rx:
        async with tx.into_sink() as sink:
            for number in range(3):
                await sink.send(number)
        assert [item async for item in rx] == [2]


async def test_a_sink_of_a_rendezvous_waits_until_its_item_was_taken():
    tx, rx = channel(0)
    with rx:
        async with tx.into_sink() as sink:
            sending = asyncio.create_task(sink.send("a"))
            await asyncio.sleep(0)
            assert not sending.done()
            assert await rx.recv() == "a"
            await sending
        assert [item async for item in rx] == []
