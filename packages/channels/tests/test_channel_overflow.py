"""What a send does for which there is no room, by the policy of the channel."""

import asyncio
import sys
import threading

import pytest

from yamanote.channels import ChannelClosed, ChannelFull, HandleClosed, channel
from yamanote.runtime import BUDGET, park

from .test_channel import count_turns, settled

DROPPING = {"drop_oldest": (["c", "d"], ["a", "b"]), "drop_newest": (["a", "b"], ["c", "d"])}


@pytest.mark.parametrize("policy", DROPPING)
async def test_what_is_dropped_goes_to_the_hook_and_is_counted(policy):
    kept, dropped = DROPPING[policy]
    undelivered = []
    tx, rx = channel(2, overflow=policy, undelivered=undelivered.append)
    with tx, rx:
        await tx.send("a")
        tx.send_nowait("b")
        await tx.send("c")
        await park(tx.sending("d"))
        assert undelivered == dropped
        assert tx.statistics().dropped == 2
        assert len(rx) == 2
        assert await rx.recv_many(9) == kept


async def test_an_error_drops_nothing():
    tx, rx = channel(1, overflow="error")
    with tx, rx:
        await tx.send("a")
        for send in (tx.send("b"), tx.send_many(["b"]), park(tx.sending("b"))):
            with pytest.raises(ChannelFull) as caught:
                await send
            assert caught.value.refused == ("b",)
        assert tx.statistics().dropped == 0
        assert await rx.recv() == "a"


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "error"])
async def test_such_a_send_never_waits_but_yields_once_in_a_while(policy):
    tx, rx = channel(1, overflow=policy)

    async def work():
        for number in range(BUDGET + 1):
            try:
                await tx.send(number)
            except ChannelFull:
                pass

    with tx, rx:
        assert await count_turns(work()) == 1


@pytest.mark.parametrize("policy", DROPPING)
async def test_room_that_is_reserved_is_not_used_for_others(policy):
    dropped = []
    tx, rx = channel(1, overflow=policy, undelivered=dropped.append)
    with tx, rx, await tx.reserve() as permit:
        tx.send_nowait("a")
        assert dropped == ["a"]
        permit.send("b")
        assert await rx.recv() == "b"


@pytest.mark.parametrize("end", ["send", "release", "drop"])
async def test_room_that_was_reserved_once_is_room_for_the_newest(end):
    dropped = []
    tx, rx = channel(1, overflow="drop_oldest", undelivered=dropped.append)
    with tx, rx:
        permit = await tx.reserve()
        if end == "send":
            permit.send("old")
        elif end == "release":
            permit.release()
        else:
            with pytest.warns(ResourceWarning):
                del permit
        tx.send_nowait("new")
        assert await rx.recv() == "new"
        assert dropped == (["old"] if end == "send" else [])


def test_the_newest_takes_the_room_of_an_item_that_another_thread_is_receiving():
    dropped = []
    tx, rx = channel(1, overflow="drop_oldest", undelivered=dropped.append)
    tx.send_nowait("old")
    half_done, go_on, received = threading.Event(), threading.Event(), []

    def stop_half_way(frame, event, argument):
        if frame.f_code is not type(rx).recv_nowait.__code__:
            return None
        if event == "line" and "item" in frame.f_locals and not half_done.is_set():
            half_done.set()
            go_on.wait(10)
        return stop_half_way

    def receive():
        sys.settrace(stop_half_way)
        received.append(rx.recv_nowait())
        sys.settrace(None)

    with tx, rx:
        thread = threading.Thread(target=receive)
        thread.start()
        assert half_done.wait(10)
        tx.send_nowait("new")
        go_on.set()
        thread.join()
        assert received == ["old"]
        assert dropped == []
        tx.send_nowait("newer")  # there is room for one still, and for one only
        assert dropped == ["new"]
        assert rx.recv_nowait() == "newer"
        with tx.reserve_nowait()[0], pytest.raises(ChannelFull):
            tx.reserve_nowait()


async def test_a_drop_does_not_take_the_room_that_a_reservation_waits_for():
    dropped = []
    tx, rx = channel(2, overflow="drop_oldest", undelivered=dropped.append)
    with tx, rx:
        tx.send_nowait("a")
        reserving = asyncio.create_task(tx.reserve_many(2))
        await settled()
        tx.send_nowait("b")  # one place is free, and somebody waits for it
        assert dropped == ["a"]
        assert await rx.recv() == "b"
        for permit in await reserving:
            permit.release()


@pytest.mark.parametrize("policy", [*DROPPING, "error"])
async def test_a_closed_channel_refuses_and_drops_nothing(policy):
    dropped = []
    tx, rx = channel(1, overflow=policy, undelivered=dropped.append)
    with rx:
        tx.send_nowait("a")
        other = tx.clone()
        other.close()
        with pytest.raises(HandleClosed):
            other.send_nowait("b")
        tx.shutdown()
        for send in (tx.send("b"), park(tx.sending("b"))):
            with pytest.raises(ChannelClosed) as caught:
                await send
            assert caught.value.refused == ("b",)
        tx.close()
        assert dropped == []


async def test_a_hook_may_send_again():
    tx, rx = channel(1, overflow="drop_oldest", undelivered=lambda item: item != "b" and tx.send_nowait("b"))
    with tx, rx:
        tx.send_nowait("a")
        tx.send_nowait("c")  # drops a, whose hook sends b, which drops c, whose hook sends b again
        assert await rx.recv() == "b"


def test_nothing_is_lost_among_threads_that_drop():
    dropped, received, count = [], [], 2000
    tx, rx = channel(3, overflow="drop_oldest", undelivered=dropped.append)

    def send(mine, start):
        with mine:
            for item in range(start, start + count):
                mine.blocking_send(item)

    def receive(mine):
        with mine:
            received.extend(mine)

    threads = [
        threading.Thread(target=send, args=(tx.clone(), 0)),
        threading.Thread(target=send, args=(tx.clone(), count)),
        threading.Thread(target=receive, args=(rx.clone(),)),
    ]
    tx.close()
    rx.close()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(received + dropped) == list(range(2 * count))


@pytest.mark.parametrize("nonsense", ["drop", None, 1])
def test_a_policy_that_is_none_is_refused(nonsense):
    with pytest.raises(ValueError, match="overflow"):
        channel(1, overflow=nonsense)


def test_a_rendezvous_has_nothing_that_could_overflow():
    with pytest.raises(ValueError, match="overflow"):
        channel(0, overflow="drop_oldest")


def test_clones_have_the_same_policy():
    tx, rx = channel(1, overflow="drop_newest")
    with tx, rx, tx.clone() as other, tx.downgrade().upgrade() as another:
        for sender in (tx, other, another):
            sender.send_nowait(1)
        assert tx.statistics().dropped == 2
