"""The one door upwards: channel ends become streams and sinks, and are owned by them from then on."""

import pytest

from yamanote.channels import ChannelClosed, HandleClosed, channel


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
