"""Oneshot channels and buffers of bytes as streams, as sinks, and in a select."""

import asyncio

import pytest

from yamanote.channels import ChannelClosed, HandleClosed, channel, oneshot_channel, spsc_buffer
from yamanote.futures import select


async def test_a_oneshot_receiver_becomes_a_stream_of_at_most_one_item():
    tx, rx = oneshot_channel()
    stream = rx.into_stream().map(lambda number: number * 2)
    tx.send(21)
    assert await stream.collect() == [42]
    with pytest.raises(HandleClosed):
        rx.recv_nowait()

    tx, rx = oneshot_channel()
    tx.close()
    assert await rx.into_stream().collect() == []


async def test_a_oneshot_stream_raises_what_its_sender_was_closed_with():
    cause = LookupError("no such answer")
    tx, rx = oneshot_channel()
    tx.close(cause)
    with pytest.raises(ChannelClosed) as caught:
        await rx.into_stream().collect()
    assert caught.value.__cause__ is cause


async def test_closing_a_oneshot_stream_tells_the_sender():
    tx, rx = oneshot_channel()
    async with rx.into_stream():
        pass
    assert tx.is_closed
    with pytest.raises(ChannelClosed):
        tx.send(1)


async def test_a_oneshot_sender_becomes_a_sink_for_one_item():
    tx, rx = oneshot_channel()
    async with tx.into_sink() as sink:
        await sink.send(1)
        with pytest.raises(ChannelClosed):
            await sink.send(2)
    assert await rx == 1
    with pytest.raises(HandleClosed):
        tx.send(3)


async def test_a_oneshot_sink_that_got_nothing_ends_the_channel():
    tx, rx = oneshot_channel()
    async with tx.into_sink():
        pass
    with pytest.raises(ChannelClosed):
        await rx


async def test_bytes_go_through_a_stream_and_a_sink_without_loss():
    tx, rx = spsc_buffer(16)
    stream, sink = rx.into_stream(), tx.into_sink()
    blocks = [bytes([index]) * (index % 7 + 1) for index in range(50)]
    received, _ = await asyncio.gather(stream.collect(), sink_all(sink, blocks))
    assert b"".join(received) == b"".join(blocks)
    with pytest.raises(HandleClosed):
        await tx.send(b"x")
    with pytest.raises(HandleClosed):
        await rx.recv()


async def sink_all(sink, blocks):
    async with sink:
        for block in blocks:
            await sink.send(block)


async def test_chunks_that_a_stream_has_given_do_not_change():
    tx, rx = spsc_buffer(16)
    with tx:
        async with rx.into_stream() as stream:
            await tx.send(bytearray(b"first"))
            first = await anext(stream)
            await tx.send(b"second")
            second = await anext(stream)
    assert (first, second) == (b"first", b"second")


async def test_a_select_takes_from_the_branch_that_is_ready_and_leaves_the_others_alone():
    oneshot_tx, oneshot_rx = oneshot_channel()
    bytes_tx, bytes_rx = spsc_buffer(16)
    item_tx, item_rx = channel(1)
    with bytes_tx, bytes_rx, item_tx, item_rx:

        async def next_one():
            return await select(value=oneshot_rx, data=bytes_rx, item=item_rx)

        waiting = asyncio.ensure_future(next_one())
        await asyncio.sleep(0)
        await bytes_tx.send(b"ab")
        assert await waiting == ("data", b"ab")
        waiting = asyncio.ensure_future(next_one())
        await asyncio.sleep(0)
        oneshot_tx.send(1)
        await bytes_tx.send(b"cd")
        assert await waiting == ("value", 1)
        assert await bytes_rx.recv() == b"cd"


@pytest.mark.parametrize("kind", ["oneshot", "bytes"])
async def test_what_a_cancelled_select_was_handed_is_there_for_the_next(kind):
    oneshot_tx, oneshot_rx = oneshot_channel()
    bytes_tx, bytes_rx = spsc_buffer(16)
    with oneshot_tx, oneshot_rx, bytes_tx, bytes_rx:
        waiting = asyncio.ensure_future(wait_for_either(oneshot_rx, bytes_rx))
        await asyncio.sleep(0)
        if kind == "oneshot":
            oneshot_tx.send(1)
        else:
            bytes_tx.send_nowait(b"ab")
        waiting.cancel()  # in the very turn
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        if kind == "oneshot":
            assert oneshot_rx.recv_nowait() == 1
        else:
            assert bytes_rx.recv_nowait() == b"ab"


async def wait_for_either(oneshot_rx, bytes_rx):
    await select(value=oneshot_rx, data=bytes_rx)
