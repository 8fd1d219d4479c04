"""What a channel of capacity 0 promises: an item passes from hand to hand."""

import asyncio

import pytest

from yamanote.channels import ChannelClosed, ChannelEmpty, ChannelFull, HandleClosed, channel
from yamanote.runtime import BUDGET, TaskWaiter, park

from .test_channel import count_turns, settled


@pytest.fixture
def ends():
    tx, rx = channel(0)
    with tx, rx:
        yield tx, rx


async def test_a_send_completes_only_when_a_receiver_has_taken_the_item(ends):
    tx, rx = ends
    sending = asyncio.create_task(tx.send(None))
    await settled()
    assert not sending.done()
    assert len(rx) == 0
    assert await rx.recv() is None
    await sending


async def test_who_meets_somebody_takes_no_loop_turn(ends):
    tx, rx = ends
    sending = asyncio.create_task(tx.send("a"))
    await settled()
    assert await count_turns(rx.recv()) == 0
    await sending
    receiving = asyncio.create_task(rx.recv())
    await settled()
    assert await count_turns(tx.send("b")) == 0
    assert await receiving == "b"


async def test_calls_that_do_not_wait_need_somebody_who_does(ends):
    tx, rx = ends
    with pytest.raises(ChannelFull) as caught:
        tx.send_nowait("a")
    assert caught.value.refused == ("a",)
    with pytest.raises(ChannelEmpty):
        rx.recv_nowait()
    receiving = asyncio.create_task(rx.recv())
    await settled()
    tx.send_nowait("b")
    with pytest.raises(ChannelFull):  # the only one who waited has something
        tx.send_nowait("c")
    assert await receiving == "b"
    sending = asyncio.create_task(tx.send("d"))
    await settled()
    assert rx.recv_nowait() == "d"
    await sending


async def test_a_receiver_that_was_cancelled_takes_nothing(ends):
    tx, rx = ends
    receiving = asyncio.create_task(rx.recv())
    await settled()
    receiving.cancel()  # it has not run since
    with pytest.raises(ChannelFull):
        tx.send_nowait("a")
    assert len(rx) == 0
    await asyncio.wait([receiving])


async def test_an_item_of_a_cancelled_receiver_is_the_next_receivers(ends):
    tx, rx = ends
    receiving = asyncio.create_task(rx.recv())
    await settled()
    tx.send_nowait("a")
    receiving.cancel()  # in the turn in which it was handed the item
    sending = asyncio.create_task(tx.send("b"))
    await asyncio.wait([receiving])
    assert [await rx.recv(), await rx.recv()] == ["a", "b"]
    await sending


async def test_a_cancelled_send_was_not_taken(ends):
    tx, rx = ends
    sending = asyncio.create_task(tx.send("a"))
    await settled()
    sending.cancel()
    await asyncio.wait([sending])
    with pytest.raises(ChannelEmpty):
        rx.recv_nowait()


async def test_both_sides_are_served_first_in_first_out(ends):
    tx, rx = ends
    sending = [asyncio.create_task(tx.send(number)) for number in range(3)]
    await settled()
    assert await rx.recv_many(2) == [0, 1]
    assert await anext(rx) == 2
    await asyncio.gather(*sending)
    receiving = [asyncio.create_task(rx.recv()) for _ in range(3)]
    await settled()
    await tx.send_many("abc")
    assert await asyncio.gather(*receiving) == ["a", "b", "c"]


async def test_there_is_no_room_to_reserve(ends):
    tx, _ = ends
    for reserve in (tx.reserve_nowait, tx.reserving):
        with pytest.raises(ValueError, match="capacity 0"):
            reserve()
    with pytest.raises(ValueError, match="capacity 0"):
        await tx.reserve()


async def test_closing_ends_both_sides():
    tx, rx = channel(0)
    sending = asyncio.create_task(tx.send("a"))
    await settled()
    tx.shutdown()
    with pytest.raises(ChannelClosed) as caught:
        await sending
    assert caught.value.refused == ("a",)
    with pytest.raises(ChannelClosed):
        await rx.recv()
    assert [item async for item in rx] == []
    with pytest.raises(ChannelClosed):
        rx.recv_nowait()
    with pytest.raises(ChannelClosed):
        tx.send_nowait("b")
    tx.close()
    rx.close()
    with pytest.raises(HandleClosed):
        tx.send_nowait("c")
    with pytest.raises(HandleClosed):
        rx.recv_nowait()


async def test_an_item_that_came_back_goes_to_the_hook_when_nobody_can_receive_it():
    undelivered = []
    tx, rx = channel(0, undelivered=undelivered.append)
    with tx:
        receiving = asyncio.create_task(rx.recv())
        await settled()
        tx.send_nowait("a")
        receiving.cancel()
        await asyncio.wait([receiving])
        rx.close()
        assert undelivered == ["a"]


@pytest.mark.parametrize("side", ["sender", "receiver"])
async def test_who_always_meets_somebody_yields_once_in_a_while(ends, side):
    tx, rx = ends
    count = 2 * BUDGET
    receiver, sender = rx.recv, lambda: tx.send(None)
    mine, others = (sender, receiver) if side == "sender" else (receiver, sender)
    waiting = [asyncio.create_task(others()) for _ in range(count)]
    await settled()

    async def work():
        for _ in range(count):
            await mine()

    assert 1 <= await count_turns(work()) <= 3
    await asyncio.gather(*waiting)


async def test_a_select_waits_for_either_side(ends):
    tx, rx = ends
    sending = asyncio.create_task(park(tx.sending("a")))
    receiving = asyncio.create_task(park(rx))
    assert await receiving == "a"
    await sending
    receiving = asyncio.create_task(park(rx))
    await settled()
    await park(tx.sending("b"))
    assert await receiving == "b"
    assert tx.statistics().waiting_senders == tx.statistics().waiting_receivers == 0


@pytest.mark.parametrize("own_end_first", [True, False])
async def test_who_waits_on_both_sides_never_meets_itself(ends, own_end_first):
    tx, rx = ends
    party = TaskWaiter()
    sides = [rx, tx.sending("mine")]
    for side, waiter in zip(sides if own_end_first else sides[::-1], (party, party.branch()), strict=True):
        side.register(waiter)
    assert party.is_waiting()
    assert len(rx) == 0
    assert tx.statistics().waiting_senders == tx.statistics().waiting_receivers == 1
    receiving = asyncio.create_task(rx.recv())
    assert await receiving == "mine"
    assert not party.is_waiting()


async def test_who_waits_on_both_sides_is_in_nobodys_way(ends):
    tx, rx = ends
    party = TaskWaiter()
    tx.sending("mine").register(party)
    receiving = party.branch()
    rx.register(receiving)
    tx.send_nowait("another's")
    assert receiving.result() == "another's"
    assert len(rx) == 0
    with pytest.raises(ChannelEmpty):
        rx.recv_nowait()


def test_its_ends_are_of_their_kind_and_show_it():
    tx, rx = channel(0)
    with tx, rx, tx.clone() as other, rx.clone() as another:
        assert type(other) is type(tx)
        assert type(another) is type(rx)
        assert tx.capacity == 0
        assert "0 of 0" in repr(tx)
