"""Cancelled calls, one case at a time: nothing is lost, and nobody is overtaken.

`test_channels_explored` goes through all of them; here stands what was wrong once, or is easily got wrong.
"""

import asyncio
import random

import pytest

from yamanote.channels import ChannelFull, channel, channel_unbounded
from yamanote.runtime import yield_now


async def test_one_receiver_sees_each_sender_in_order_although_it_is_cancelled_again_and_again():
    for seed in range(200):
        chance = random.Random(seed)
        tx, rx = channel(chance.choice([1, 2, 5]))
        received = []

        async def send(name, tx=tx):
            for number in range(10):
                await tx.send((name, number))

        async def receive(rx=rx, received=received):
            while True:
                received.append(await rx.recv())

        senders = [asyncio.create_task(send(name)) for name in range(3)]
        while len(received) < 30:
            receiver = asyncio.create_task(receive())
            for _ in range(chance.randrange(4)):
                await yield_now()
            receiver.cancel()
            await asyncio.wait([receiver])
        for name in range(3):
            assert [number for sender, number in received if sender == name] == list(range(10)), f"seed {seed}"
        await asyncio.gather(*senders)
        tx.close()
        rx.close()


async def test_an_item_handed_to_a_cancelled_receiver_goes_to_the_next_in_the_same_turn():
    tx, rx = channel_unbounded()
    with tx, rx:
        first, second = asyncio.create_task(rx.recv()), asyncio.create_task(rx.recv())
        await yield_now()
        tx.send_nowait("a")
        first.cancel()
        assert await second == "a"
        assert first.cancelled()


async def test_a_receiver_that_was_cancelled_before_gets_nothing():
    """It has not run since, but it waits no longer: the item goes straight to the next."""
    tx, rx = channel_unbounded()
    with tx, rx:
        first, second = asyncio.create_task(rx.recv()), asyncio.create_task(rx.recv())
        await yield_now()
        first.cancel()
        tx.send_nowait("a")
        await yield_now()
        assert second.done()
        assert await second == "a"


async def test_a_buffer_that_was_overfilled_by_a_returned_item_takes_no_more_until_it_has_shrunk():
    tx, rx = channel(1)
    with tx, rx:
        waiting = asyncio.create_task(rx.recv())
        await yield_now()
        tx.send_nowait("a")  # handed over: its room is free again
        tx.send_nowait("b")
        waiting.cancel()
        await asyncio.wait([waiting])
        assert len(rx) == 2
        with pytest.raises(ChannelFull):
            tx.send_nowait("c")
        assert rx.recv_nowait() == "a"
        with pytest.raises(ChannelFull):
            tx.send_nowait("c")
        assert rx.recv_nowait() == "b"
        tx.send_nowait("c")
        with pytest.raises(ChannelFull):
            tx.send_nowait("d")


async def test_an_item_that_comes_back_after_the_end_is_still_received():
    tx, rx = channel(1)
    waiting = asyncio.create_task(rx.recv())
    await yield_now()
    tx.send_nowait("a")
    tx.close()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert [item async for item in rx] == ["a"]
    rx.close()


async def test_who_stands_behind_a_cancelled_reservation_is_served():
    tx, rx = channel(2)
    with tx, rx:
        tx.send_nowait(1)
        big = asyncio.create_task(tx.reserve_many(2))
        await yield_now()
        small = asyncio.create_task(tx.send(2))
        await yield_now()
        big.cancel()
        await asyncio.wait([big])
        await asyncio.wait_for(small, 5)
        assert await rx.recv_many(2) == [1, 2]


async def test_a_timeout_loses_nothing():
    """A busy turn after which the timer and the item are both due."""
    tx, rx = channel_unbounded()
    with tx, rx:
        loop = asyncio.get_running_loop()

        async def receive():
            async with asyncio.timeout(0.001):
                return await rx.recv()

        waiting = asyncio.create_task(receive())
        await yield_now()
        loop.call_later(0.001, tx.send_nowait, "a")
        while loop.time() and not waiting.done():
            await asyncio.sleep(0.002)
        outcome = await asyncio.gather(waiting, return_exceptions=True)
        if isinstance(outcome[0], TimeoutError):
            assert await rx.recv() == "a"
        else:
            assert outcome == ["a"]


async def test_a_coroutine_that_is_thrown_away_gives_back_what_it_was_handed():
    tx, rx = channel_unbounded()
    with tx, rx:
        coroutine = rx.recv()
        coroutine.send(None)
        tx.send_nowait("a")
        coroutine.close()
        assert rx.recv_nowait() == "a"


def test_a_closed_loop_takes_nothing_with_it():
    tx, rx = channel_unbounded()
    loop = asyncio.new_event_loop()

    async def park():
        task = loop.create_task(rx.recv())
        await yield_now()
        return task

    task = loop.run_until_complete(park())
    loop.close()
    tx.send_nowait("a")
    assert rx.recv_nowait() == "a"
    task._log_destroy_pending = False
    tx.close()
    rx.close()
    del task


async def test_coroutines_thrown_away_inside_the_critical_section_of_their_channel_do_not_dead_lock():
    """The garbage collector runs anywhere: also while this very thread is half-way through matching."""
    tx, rx = channel(1)
    other, never = channel(1)

    async def use():
        with tx.clone():
            await never.recv()

    with tx, rx, other, never:
        tx.send_nowait("a")
        sending, using = tx.send("b"), use()
        sending.send(None)
        using.send(None)
        with tx._core.section:
            sending.close()
            using.close()
        assert tx.statistics().waiting_senders == 0
        assert tx.statistics().senders == 1
        assert rx.recv_nowait() == "a"
        receiving = rx.recv()
        receiving.send(None)
        with tx._core.section:
            tx.send_nowait("c")
            receiving.close()
        assert rx.recv_nowait() == "c"
