"""The ends of a broadcast channel as a stream and as a sink, and in a select."""

import asyncio

import pytest

from yamanote import streams
from yamanote.channels import HandleClosed, Lagged, broadcast
from yamanote.futures import select
from yamanote.runtime import cancel_and_wait


async def test_a_receiver_becomes_a_stream_which_owns_it():
    tx, rx = broadcast(10)
    for number in range(4):
        await tx.send(number)
    await rx.recv()
    stream = rx.into_stream()
    assert tx.receiver_count == 1
    with pytest.raises(HandleClosed):
        rx.recv_nowait()
    tx.close()
    assert await stream.map(lambda number: number * 10).collect() == [10, 20, 30]
    assert tx.receiver_count == 0


async def test_a_lag_is_raised_in_the_stream_at_its_place_and_ends_it():
    tx, rx = broadcast(2)
    with tx:
        await tx.send(0)
        stream = rx.into_stream()
        assert await anext(stream) == 0
        for number in range(1, 6):
            await tx.send(number)
        with pytest.raises(Lagged) as caught:
            await anext(stream)
        assert caught.value.missed == 3
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert tx.receiver_count == 0


async def test_a_stream_of_a_channel_that_drops_the_oldest_goes_on_behind_the_gap():
    tx, rx = broadcast(2, overflow="drop_oldest")
    stream = rx.into_stream()
    for number in range(6):
        await tx.send(number)
    tx.close()
    assert await stream.collect() == [4, 5]


async def test_a_sender_becomes_a_sink_which_owns_it():
    tx, rx = broadcast(10)
    with rx, rx.clone() as other:
        sink = tx.into_sink()
        with pytest.raises(HandleClosed):
            tx.send_nowait(1)
        await streams.iter(range(3)).forward(sink)
        await sink.close()
        assert [item async for item in rx] == [item async for item in other] == [0, 1, 2]


async def test_a_select_takes_an_item_of_one_receiver_and_nothing_of_the_others():
    tx, rx = broadcast(10)
    with tx, rx, rx.clone() as other:
        tx.send_nowait("a")
        await select(first=rx, second=other)
        assert len(rx) + len(other) == 1


async def test_an_item_that_a_cancelled_call_had_been_handed_is_the_first_of_the_stream():
    tx, rx = broadcast(4)
    call = asyncio.create_task(rx.recv())
    await asyncio.sleep(0)
    tx.send_nowait(1)  # handed to the call, which has not run since

    stream = rx.into_stream()
    await cancel_and_wait(call)
    tx.send_nowait(2)
    tx.close()

    assert await stream.collect() == [1, 2]
