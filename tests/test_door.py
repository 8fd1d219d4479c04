"""The one door upwards: channel ends become streams and sinks, and are owned by them from then on."""

import pytest

from yamanote import sinks, streams
from yamanote.channels import ChannelClosed, HandleClosed, broadcast, channel, channel_unbounded, watch

each_kind = pytest.mark.parametrize(
    "make",
    [lambda: channel(3), lambda: channel(3, overflow="drop_oldest"), channel_unbounded, lambda: broadcast(3),
     lambda: watch(0)],
    ids=["channel", "overflow", "unbounded", "broadcast", "watch"],
)  # fmt: skip


@each_kind
async def test_both_ends_of_every_kind_move_and_the_handles_refuse_afterwards(make):
    tx, rx = make()
    async with rx.into_stream() as stream, tx.into_sink() as sink:
        assert isinstance(stream, streams.Stream)
        assert isinstance(sink, sinks.SenderSink)
        for handle in (tx, rx):
            assert handle.is_closed
            with pytest.raises(HandleClosed):
                handle.clone()
        for call in (tx.into_sink, rx.into_stream):
            with pytest.raises(HandleClosed):
                call()
        await sink.send("a")
        await sink.close()
        assert await stream.collect() == ["a"]


async def test_a_receiver_becomes_a_stream_that_ends_with_the_channel():
    tx, rx = channel(3)
    stream = rx.into_stream().map(lambda number: number * 2)
    with tx:
        await tx.send_many([1, 2, 3])
    assert await stream.collect() == [2, 4, 6]


async def test_closing_the_stream_closes_the_receiver():
    tx, rx = channel(3)
    async with rx.into_stream() as stream:
        await tx.send("a")
        assert await anext(stream) == "a"
    assert rx.is_closed
    with pytest.raises(ChannelClosed):
        await tx.send("b")
    tx.close()


async def test_a_sender_becomes_a_sink_and_closing_the_sink_ends_the_channel():
    tx, rx = channel(3)
    async with tx.into_sink() as sink:
        await sink.send("a")
        await sink.feed("b")
    with pytest.raises(HandleClosed):
        await tx.send("c")
    assert [item async for item in rx] == ["a", "b"]
    rx.close()


async def test_a_stream_is_forwarded_into_a_channel():
    tx, rx = channel(100)
    source, stream = channel(100)
    with source:
        await source.send_many(range(5))
    await stream.into_stream().forward(tx.into_sink())
    assert [item async for item in rx] == list(range(5))
    rx.close()
