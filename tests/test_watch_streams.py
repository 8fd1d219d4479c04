"""Watch channels among the other areas: as streams and sinks, and as branches of a select."""

import asyncio
import threading

import pytest

from yamanote import streams
from yamanote.channels import ChannelClosed, HandleClosed, channel, watch
from yamanote.futures import select
from yamanote.sinks import SenderSink, SinkClosed


async def test_a_stream_of_a_watch_gives_the_newest_value_then_each_change_and_none_twice():
    tx, rx = watch(0)
    stream = rx.into_stream()
    tx.send(1)  # between the making and the first step
    async with stream:
        assert await anext(stream) == 1
        tx.send(2)
        tx.send(3)
        assert await anext(stream) == 3
        tx.close()
        assert [value async for value in stream] == []


async def test_a_stream_owns_its_receiver_and_the_handle_refuses_afterwards():
    tx, rx = watch(0)
    waiting = asyncio.create_task(rx.changed())
    await asyncio.sleep(0)
    async with rx.into_stream() as stream:
        assert tx.receiver_count == 1
        assert rx.is_closed
        with pytest.raises(HandleClosed):
            await waiting
        with pytest.raises(HandleClosed):
            rx.borrow()
        tx.send(1)
        assert await anext(stream) == 1
    assert tx.receiver_count == 0
    tx.close()


async def test_a_pull_that_is_cancelled_has_missed_nothing():
    tx, rx = watch(0)
    with tx:
        async with rx.into_stream().map(lambda value: value * 10) as stream:
            assert await anext(stream) == 0
            pull = asyncio.create_task(anext(stream))
            await asyncio.sleep(0)
            tx.send(1)
            pull.cancel()
            await asyncio.wait([pull])
            assert pull.cancelled()
            assert await anext(stream) == 10


async def test_a_stream_of_a_channel_that_was_closed_with_a_cause_ends_with_it():
    tx, rx = watch(0)
    tx.close(LookupError("no more"))
    async with rx.into_stream() as stream:
        assert await anext(stream) == 0
        with pytest.raises(ChannelClosed) as caught:
            await anext(stream)
        assert isinstance(caught.value.__cause__, LookupError)


async def test_a_sender_becomes_a_sink_which_owns_it():
    tx, rx = watch(0)
    with rx:
        async with tx.into_sink() as sink:
            assert isinstance(sink, SenderSink)
            with pytest.raises(HandleClosed):
                tx.send(1)
            await sink.send(2)
            assert rx.borrow_and_update() == 2
        assert rx.is_closed
        with pytest.raises(SinkClosed):
            await sink.feed(3)


async def test_a_stream_ends_in_a_watch_and_its_last_value_is_seen():
    tx, rx = watch(0)
    with rx:
        await streams.iter(range(1, 4)).forward(tx.into_sink())
        await rx.changed()
        assert rx.borrow() == 3
        with pytest.raises(ChannelClosed):
            await rx.changed()


async def test_a_sink_brings_back_what_nobody_receives():
    tx, rx = watch(0)
    rx.close()
    async with tx.into_sink() as sink:
        with pytest.raises(ChannelClosed) as caught:
            await sink.feed("a")
    assert caught.value.refused == ("a",)


async def test_a_sink_over_a_sender_that_never_waits_lets_others_run_once_in_a_while():
    tx, rx = watch(0)
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    async with rx, tx.into_sink() as sink:
        for value in range(1000):
            await sink.feed(value)
    task.cancel()
    assert turns > 2


async def test_select_gives_the_newest_value_and_only_the_branch_that_wins_has_seen_one():
    tx, rx = watch(0)
    jobs, queue = channel(1)
    with tx, rx, jobs, queue:
        tx.send(1)
        jobs.send_nowait("job")
        assert await select(config=rx, job=queue, biased=True) == ("config", 1)
        assert len(queue) == 1
        tx.send(2)
        assert await select(job=queue, config=rx, biased=True) == ("job", "job")
        assert rx.has_changed()
        assert await select(job=queue, config=rx) == ("config", 2)
        selecting = asyncio.create_task(select(job=queue, config=rx))
        await asyncio.sleep(0)
        tx.send(3)
        selecting.cancel()
        await asyncio.wait([selecting])
        assert selecting.cancelled()
        assert await select(config=rx) == ("config", 3)


async def test_select_raises_the_end_of_a_watch():
    tx, rx = watch(0)
    with rx:
        tx.close()
        with pytest.raises(ChannelClosed):
            await select(config=rx)


async def test_a_thread_sends_and_a_stream_in_a_loop_sees_the_last_value():
    tx, rx = watch(0)

    def count():
        with tx:
            for value in range(1, 100):
                tx.send(value)

    thread = threading.Thread(target=count)
    thread.start()
    values = await rx.into_stream().collect()
    thread.join()
    assert values == sorted(set(values))
    assert values[-1] == 99
