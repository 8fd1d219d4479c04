"""What the sending end offers beside `send`: many at once, reservations, branches of a select, blocking forms."""

import asyncio
import threading

import pytest

from yamanote.channels import ChannelClosed, ChannelFull, HandleClosed, channel, channel_unbounded, unbounded
from yamanote.runtime import BUDGET, park

from .test_channel import count_turns, each_kind, settled


async def test_send_many_brings_back_all_that_was_not_accepted():
    tx, rx = channel(2)
    sending = asyncio.create_task(tx.send_many(["a", "b", "c", "d"]))
    await settled()
    rx.close()
    with pytest.raises(ChannelClosed) as caught:
        await sending
    assert caught.value.refused == ("c", "d")
    with pytest.raises(ChannelClosed) as caught:
        await tx.send_many({"e": 1, "f": 2})
    assert caught.value.refused == ("e", "f")
    tx.close()


async def test_send_many_brings_back_all_for_which_there_was_no_room():
    tx, rx = channel(1, overflow="error")
    with tx, rx:
        with pytest.raises(ChannelFull) as caught:
            await tx.send_many([1, 2, 3])
        assert caught.value.refused == (2, 3)
        assert await rx.recv_many(9) == [1]


async def test_send_many_asks_an_iterator_for_nothing_that_it_cannot_send():
    tx, rx = channel(1)
    items = iter("abc")
    sending = asyncio.create_task(tx.send_many(items))
    await settled()
    with tx:
        rx.close()
        with pytest.raises(ChannelClosed) as caught:
            await sending
        assert caught.value.refused == ("b",)
        assert list(items) == ["c"]


@each_kind
async def test_send_many_yields_once_in_a_while(make):
    tx, rx = make()
    with tx, rx:
        receiving = asyncio.create_task(rx.recv_many(10 * BUDGET))
        turns = await count_turns(tx.send_many(range(min(tx.capacity or 4 * BUDGET, 4 * BUDGET))))
        assert turns >= ((tx.capacity or 4 * BUDGET) >= 4 * BUDGET) * 3
        await receiving


@each_kind
async def test_a_branch_sends_only_when_it_is_taken(make):
    tx, rx = make()
    with tx, rx:
        sending = tx.sending("a")
        assert len(rx) == 0
        assert await park(sending) is None
        tx.close()
        assert [item async for item in rx] == ["a"]


async def test_a_branch_that_waits_for_room_keeps_its_place_in_the_queue():
    tx, rx = channel(1)
    with tx, rx:
        tx.send_nowait("a")
        first = asyncio.create_task(park(tx.sending("b")))
        await settled()
        second = asyncio.create_task(tx.send("c"))
        await settled()
        assert await rx.recv_many(3) == ["a", "b", "c"]
        await asyncio.gather(first, second)


@each_kind
async def test_a_branch_of_a_closed_sender_is_refused_with_its_item(make):
    tx, rx = make()
    tx.close()
    rx.close()
    with pytest.raises(HandleClosed) as caught:
        await park(tx.sending("a"))
    assert caught.value.refused == ("a",)
    with pytest.raises(HandleClosed):
        tx.reserving()


@each_kind
async def test_a_branch_reserves(make):
    tx, rx = make()
    with tx, rx:
        (permit,) = await park(tx.reserving())
        assert len(rx) == 0
        permit.send("a")
        assert await rx.recv() == "a"


async def test_a_branch_that_was_cancelled_has_reserved_nothing():
    tx, rx = channel(2)
    with tx, rx:
        reserving = asyncio.create_task(park(tx.reserving(2)))
        with tx.reserve_nowait()[0]:
            await settled()
        reserving.cancel()  # in the turn in which it was given both
        await asyncio.wait([reserving])
        for permit in tx.reserve_nowait(2):
            permit.release()


async def test_an_unbounded_channel_that_is_closed_gives_no_permit():
    tx, rx = unbounded()
    with rx, tx:
        tx.shutdown()
        with pytest.raises(ChannelClosed):
            await park(tx.reserving())
        with pytest.raises(ChannelClosed):
            await park(tx.sending("a"))


def test_blocking_forms_wait_in_a_thread():
    tx, rx = channel(1)
    with tx, rx:
        with tx.blocking_reserve(timeout=5) as permit:
            with pytest.raises(TimeoutError):
                tx.blocking_reserve(timeout=0.001)
            with pytest.raises(TimeoutError):
                rx.blocking_recv_many(2, timeout=0.001)
            permit.send("a")
        thread = threading.Thread(target=tx.blocking_send, args=("b",))
        thread.start()
        received = rx.blocking_recv_many(2, timeout=5)
        received += [] if len(received) == 2 else rx.blocking_recv_many(1, timeout=5)
        thread.join()
        assert received == ["a", "b"]
        assert tx._core.parked == tx._core.parked_receivers == 0


async def test_blocking_forms_are_refused_where_they_would_stop_a_loop():
    tx, rx = channel(1)
    with tx, rx:
        for call in (tx.blocking_reserve, lambda: rx.blocking_recv_many(1)):
            with pytest.raises(RuntimeError, match="event loop"):
                call()


@pytest.mark.parametrize("nonsense", [0, 1.5])
def test_a_limit_that_makes_no_sense_is_refused_before_anything_is_received(nonsense):
    tx, rx = channel(1)
    with tx, rx:
        tx.send_nowait("a")
        with pytest.raises((ValueError, TypeError), match="limit"):
            rx.blocking_recv_many(nonsense, timeout=0)
        assert rx.recv_nowait() == "a"


async def test_who_was_cancelled_again_and_again_leaves_nobody_behind_and_hurts_nobody():
    tx, rx = channel(1)
    with tx, rx:
        for _ in range(50):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await rx.recv()
        assert rx.statistics().waiting_receivers == 0
        tx.send_nowait("a")
        for _ in range(50):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await tx.send("b")
        assert tx.statistics().waiting_senders == 0
        assert await rx.recv() == "a"
        assert len(rx) == 0


@pytest.mark.parametrize("capacity", [0, 1, None])
async def test_a_send_in_the_turn_in_which_the_deadline_falls_due_is_not_lost(capacity):
    tx, rx = channel_unbounded() if capacity is None else channel(capacity)
    loop = asyncio.get_running_loop()
    received, sent = [], 0

    def send(number):
        nonlocal sent
        try:
            tx.send_nowait(number)
        except ChannelFull:
            return
        sent += 1

    with tx, rx:
        for number in range(100):
            deadline = loop.time() + 0.0001
            loop.call_at(deadline, send, number)
            try:
                async with asyncio.timeout_at(deadline):
                    received.append(await rx.recv())
            except TimeoutError:
                pass
        await settled()
        while len(rx):
            received.append(rx.recv_nowait())
        assert sent == len(received)
        assert received == sorted(received)


def test_both_names_of_the_unbounded_channel_are_one():
    assert unbounded is channel_unbounded


def test_a_weak_sender_shows_whether_there_is_anything_to_upgrade_to():
    tx, rx = channel(1)
    weak = tx.downgrade()
    assert "open" in repr(weak)
    tx.close()
    rx.close()
    assert "closed" in repr(weak)
