"""What a broadcast channel promises, one promise after the other."""

import asyncio
import gc
import weakref

import pytest

from yamanote.channels import (
    BroadcastReceiver,
    BroadcastSender,
    BroadcastStatistics,
    ChannelClosed,
    ChannelEmpty,
    ChannelFull,
    HandleClosed,
    Lagged,
    broadcast,
)
from yamanote.runtime import BUDGET, TaskWaiter, park, yield_now
from yamanote.testing import LeakError, no_leaks, step


def received(rx):
    """What can be had now; a gap as its size, negative."""
    items = []
    while True:
        try:
            items.append(rx.recv_nowait())
        except Lagged as lagged:
            items.append(-lagged.missed)
        except (ChannelEmpty, ChannelClosed):
            return items


each_policy = pytest.mark.parametrize("overflow", ["lag", "suspend", "drop_oldest", "drop_newest", "error"])
keeping = pytest.mark.parametrize("overflow", ["suspend", "drop_newest", "error"])
dropping = pytest.mark.parametrize("overflow", ["lag", "drop_oldest"])


# -------------------------------------------------------------------- everybody gets everything


@each_policy
async def test_every_receiver_gets_every_item_in_the_one_order_of_the_channel(overflow):
    tx, rx = broadcast(10, overflow=overflow)
    with tx, tx.clone() as other_tx, rx, tx.subscribe() as other:
        for number in range(5):
            assert await tx.send(number) == 2
            assert other_tx.send_nowait(-number) == 2
        expected = [0, 0, 1, -1, 2, -2, 3, -3, 4, -4]
        assert [await rx.recv() for _ in range(10)] == expected
        assert [await other.recv() for _ in range(10)] == expected


@each_policy
def test_a_receiver_gets_what_is_sent_after_it_has_subscribed(overflow):
    tx, rx = broadcast(10, overflow=overflow)
    with tx, rx:
        tx.send_nowait("early")
        with tx.subscribe() as subscribed, rx.resubscribe() as resubscribed:
            tx.send_nowait("late")
            assert received(rx) == ["early", "late"]
            assert received(subscribed) == received(resubscribed) == ["late"]


async def test_a_parked_receiver_is_handed_the_item():
    tx, rx = broadcast(1)
    with tx, rx, tx.subscribe() as other:
        waiting = [asyncio.create_task(end.recv()) for end in (rx, other)]
        await yield_now()
        assert tx.statistics().waiting_receivers == 2
        assert tx.send_nowait("a") == 2
        assert await asyncio.gather(*waiting) == ["a", "a"]
        assert tx.statistics().waiting_receivers == 0


@pytest.mark.parametrize("item", [None, 0, "", False, ValueError("a value"), StopIteration(), asyncio.CancelledError()])
async def test_any_object_is_an_ordinary_item(item):
    tx, rx = broadcast(2)
    with tx, rx:
        waiting = asyncio.create_task(rx.recv())
        await yield_now()
        tx.send_nowait(item)
        tx.send_nowait(item)
        assert await waiting is item
        assert rx.recv_nowait() is item


async def test_tasks_that_share_a_receiver_share_its_items_first_come_first_served():
    tx, rx = broadcast(10)
    with tx, rx:
        waiting = [asyncio.create_task(rx.recv()) for _ in range(3)]
        await yield_now()
        for number in range(4):
            tx.send_nowait(number)
        assert await asyncio.gather(*waiting) == [0, 1, 2]
        assert received(rx) == [3]


async def test_a_newcomer_does_not_overtake_a_call_that_waits_on_the_same_receiver():
    tx, rx = broadcast(10)
    with tx, rx:
        waiting = asyncio.create_task(rx.recv())
        await yield_now()
        with pytest.raises(ChannelEmpty):
            rx.recv_nowait()
        tx.send_nowait("a")
        tx.send_nowait("b")
        assert rx.recv_nowait() == "b"
        assert await waiting == "a"


async def test_a_clone_begins_where_its_receiver_stands():
    tx, rx = broadcast(3)
    with tx, rx:
        for number in range(20):
            tx.send_nowait(number)
        with rx.clone() as clone:
            assert received(clone) == [-17, 17, 18, 19]
        assert received(rx) == [-17, 17, 18, 19]


async def test_a_clone_also_gets_what_came_back_to_its_receiver():
    tx, rx = broadcast(3)
    with tx, rx:
        cancelled = step(rx.recv())
        assert cancelled.poll() is None
        tx.send_nowait("a")
        cancelled.close()
        with rx.clone() as clone:
            assert received(clone) == ["a"]
            tx.send_nowait("b")
            assert received(clone) == ["b"]
        assert received(rx) == ["a", "b"]


async def test_recv_many_takes_what_is_there_and_waits_only_for_the_first():
    tx, rx = broadcast(10)
    with tx, rx:
        for number in range(5):
            tx.send_nowait(number)
        assert await rx.recv_many(3) == [0, 1, 2]
        assert await rx.recv_many(100) == [3, 4]
        waiting = asyncio.create_task(rx.recv_many(3))
        await yield_now()
        for number in range(5):
            tx.send_nowait(number)
        assert await waiting == [0, 1, 2]
        assert len(rx) == 2
        with pytest.raises(ValueError, match="limit"):
            await rx.recv_many(0)


async def test_a_batch_ends_before_items_that_were_missed():
    tx, rx = broadcast(2)
    with tx, rx:
        tx.send_nowait(0)
        tx.send_nowait(1)
        assert await rx.recv_many(9) == [0, 1]
        for number in range(2, 7):
            tx.send_nowait(number)
        with pytest.raises(Lagged):
            await rx.recv_many(9)
        assert await rx.recv_many(9) == [5, 6]


# -------------------------------------------------------------------- slow receivers


def test_a_slow_receiver_learns_once_how_many_items_it_missed_and_then_gets_the_oldest_that_is_kept():
    tx, rx = broadcast(3)
    with tx, rx, tx.subscribe() as quick:
        for number in range(10):
            tx.send_nowait(number)
            assert quick.recv_nowait() == number
        with pytest.raises(Lagged, match="7 items") as caught:
            rx.recv_nowait()
        assert caught.value.missed == 7
        assert received(rx) == [7, 8, 9]
        for number in range(10, 15):
            tx.send_nowait(number)
        assert received(rx) == [-2, 12, 13, 14]
        assert received(quick) == [-2, 12, 13, 14]


@pytest.mark.parametrize("capacity", [1, 2, 3, 7, 64, 100])
def test_the_capacity_is_exactly_as_asked_and_every_lag_is_counted_exactly(capacity):
    for sent in range(5 * capacity):
        tx, rx = broadcast(capacity)
        with tx, rx:
            for number in range(sent):
                tx.send_nowait(number)
            assert len(rx) == len(tx) == min(sent, capacity)
            missed = max(sent - capacity, 0)
            assert received(rx) == [-missed][: missed > 0] + list(range(missed, sent))


def test_a_lag_that_was_not_told_yet_grows():
    tx, rx = broadcast(2)
    with tx, rx:
        total = 0
        for sent in (1, 2, 5, 1, 9, 1):
            for _ in range(sent):
                tx.send_nowait(total)
                total += 1
        assert received(rx) == [-(total - 2), total - 2, total - 1]


def test_drop_oldest_drops_without_a_word():
    tx, rx = broadcast(3, overflow="drop_oldest")
    with tx, rx:
        for number in range(20):
            tx.send_nowait(number)
        assert len(rx) == 3
        assert received(rx) == [17, 18, 19]


def test_drop_newest_drops_the_item_for_all_and_says_so():
    tx, rx = broadcast(2, overflow="drop_newest")
    with tx, rx, tx.subscribe() as slow:
        assert [tx.send_nowait(0), tx.send_nowait(1)] == [2, 2]
        assert received(rx) == [0, 1]
        assert tx.send_nowait(2) == 0
        assert tx.statistics().dropped == 1
        assert slow.recv_nowait() == 0
        assert tx.send_nowait(3) == 2
        assert received(rx) == [3]
        assert received(slow) == [1, 3]


async def test_error_refuses_the_item_when_the_slowest_receiver_has_no_room():
    tx, rx = broadcast(2, overflow="error")
    with tx, rx, tx.subscribe() as slow:
        await tx.send(0)
        await tx.send(1)
        received(rx)
        for send in (lambda: tx.send(2), lambda: park(tx.sending(2))):
            with pytest.raises(ChannelFull, match="2 items behind") as caught:
                await send()
            assert caught.value.refused == (2,)
        slow.close()
        assert await tx.send(3) == 1
        assert received(rx) == [3]


async def test_suspend_waits_for_the_slowest_receiver_and_nothing_is_missed():
    tx, rx = broadcast(2, overflow="suspend")
    with tx, rx, tx.subscribe() as slow:
        for number in range(2):
            await tx.send(number)
        with pytest.raises(ChannelFull) as caught:
            tx.send_nowait(2)
        assert caught.value.refused == (2,)
        sending = asyncio.create_task(tx.send(2))
        await yield_now()
        assert received(rx) == [0, 1]
        await yield_now()
        assert not sending.done()
        assert slow.recv_nowait() == 0
        assert received(rx) == [2]
        assert await sending == 2
        assert received(slow) == [1, 2]


async def test_suspended_senders_are_served_first_in_first_out():
    tx, rx = broadcast(1, overflow="suspend")
    with tx, tx.clone() as other, rx:
        await tx.send(0)
        sending = [asyncio.create_task(end.send(number)) for number, end in enumerate([tx, other, tx, other], 1)]
        await yield_now()
        assert tx.statistics().waiting_senders == 4
        with pytest.raises(ChannelFull):
            tx.send_nowait("in between")
        assert [await rx.recv() for _ in range(5)] == [0, 1, 2, 3, 4]
        assert await asyncio.gather(*sending) == [1, 1, 1, 1]


async def test_a_slow_receiver_that_is_closed_makes_room():
    tx, rx = broadcast(1, overflow="suspend")
    with tx, rx, tx.subscribe() as slow:
        await tx.send(0)
        rx.recv_nowait()
        sending = asyncio.create_task(tx.send(1))
        await yield_now()
        assert not sending.done()
        slow.close()
        assert await sending == 1
        assert received(rx) == [1]


async def test_a_sender_that_gave_up_leaves_its_place_to_the_next():
    tx, rx = broadcast(1, overflow="suspend")
    with tx, rx:
        await tx.send(0)
        first, second = step(tx.send(1)), step(tx.send(2))
        assert first.poll() is second.poll() is None
        first.close()
        assert received(rx) == [0, 2]
        assert second.poll().unwrap() == 1
        assert received(rx) == []


@keeping
async def test_a_clone_of_the_slowest_receiver_is_waited_for_as_well(overflow):
    tx, rx = broadcast(2, overflow=overflow)
    with tx, rx:
        await tx.send(0)
        await tx.send(1)
        with rx.clone() as clone:
            received(rx)
            assert len(tx) == 2
            if overflow == "suspend":
                with pytest.raises(ChannelFull):
                    tx.send_nowait(2)
            assert clone.recv_nowait() == 0
            assert tx.send_nowait(3) == 2
            assert received(clone) == [1, 3]
            assert received(rx) == [3]


# -------------------------------------------------------------------- replay


@each_policy
def test_a_late_receiver_gets_the_replay_window_first(overflow):
    tx, rx = broadcast(5, replay=2, overflow=overflow)
    with tx, rx:
        with tx.subscribe() as late:
            assert received(late) == []
        tx.send_nowait(0)
        with tx.subscribe() as late:
            assert received(late) == [0]
        for number in range(1, 4):
            tx.send_nowait(number)
        with tx.subscribe() as late, rx.resubscribe() as unaware:
            assert len(late) == 2
            tx.send_nowait(4)
            assert received(late) == [2, 3, 4]
            assert received(unaware) == [4]


@each_policy
async def test_without_receivers_the_replay_window_is_kept_and_nobody_waits(overflow):
    tx, rx = broadcast(3, replay=2, overflow=overflow)
    with tx:
        rx.close()
        for number in range(20):
            assert await tx.send(number) == 0
        assert not tx.is_closed
        with tx.subscribe() as late:
            assert received(late) == [18, 19]


@each_policy
def test_without_receivers_and_replay_an_item_is_refused(overflow):
    tx, rx = broadcast(3, overflow=overflow)
    with tx:
        rx.close()
        assert tx.is_closed
        with pytest.raises(ChannelClosed, match="nobody receives") as caught:
            tx.send_nowait("a")
        assert caught.value.refused == ("a",)
        assert not isinstance(caught.value, HandleClosed)
        with tx.subscribe() as late:
            assert not tx.is_closed
            assert tx.send_nowait("b") == 1
            assert received(late) == ["b"]


async def test_a_late_receiver_is_waited_for_from_its_replay_window_on():
    tx, rx = broadcast(2, replay=2, overflow="suspend")
    with tx, rx:
        for number in range(3):
            await tx.send(number)
            await rx.recv()
        with tx.subscribe() as late:
            sending = asyncio.create_task(tx.send(4))
            await yield_now()
            assert not sending.done()
            assert received(late) == [1, 2, 4]
            assert await sending == 2


# -------------------------------------------------------------------- memory


class Item:
    """Something that can be watched going."""


@each_policy
def test_an_item_is_let_go_when_the_last_receiver_has_passed_it_and_not_before(overflow):
    tx, rx = broadcast(100, overflow=overflow)
    with tx, rx, tx.subscribe() as slow:
        alive = weakref.WeakSet()
        for _ in range(20):
            alive.add(item := Item())
            tx.send_nowait(item)
        del item
        for _ in range(20):
            rx.recv_nowait()
        gc.collect()
        assert len(alive) == 20
        for left in reversed(range(20)):
            slow.recv_nowait()
            assert len(alive) == left


def test_the_replay_window_keeps_its_items_and_no_others():
    tx, rx = broadcast(100, replay=3)
    with tx, rx:
        alive = weakref.WeakSet()
        for sent in range(1, 10):
            alive.add(item := Item())
            tx.send_nowait(item)
            del item
            rx.recv_nowait()
            assert len(alive) == min(sent, 3)


@dropping
def test_a_receiver_that_never_receives_holds_no_more_than_twice_the_capacity(overflow):
    tx, rx = broadcast(10, overflow=overflow)
    with tx, rx, tx.subscribe() as quick:
        alive = weakref.WeakSet()
        most = 0
        for _ in range(500):
            alive.add(item := Item())
            tx.send_nowait(item)
            del item
            quick.recv_nowait()
            most = max(most, len(alive))
        gc.collect()
        assert most <= 20
        assert len(rx) == 10


def test_closing_a_receiver_lets_go_of_what_it_has_not_received():
    tx, rx = broadcast(100_000)
    with tx:
        alive = weakref.WeakSet()
        for _ in range(100_000):
            tx.send_nowait([])  # a long chain must not be too long for the interpreter
        alive.add(item := Item())
        tx.send_nowait(item)
        del item
        rx.close()
        gc.collect()
        assert not alive
        assert len(rx) == 0


def test_destructors_of_items_run_outside_of_the_lock():
    tx, rx = broadcast(1, overflow="drop_oldest", replay=1)
    seen = []

    class Nosy:
        def __del__(self):
            entered = tx._log.section.try_enter()
            if entered:
                tx._log.section.leave()
            seen.append(entered)

    with tx, rx:
        for _ in range(5):
            tx.send_nowait(Nosy())
        rx.recv_nowait()
        for _ in range(5):
            tx.send_nowait(Nosy())
        rx.close()
    gc.collect()
    assert seen
    assert all(seen)


def test_a_finalizer_that_sends_comes_after_what_is_being_sent():
    tx, rx = broadcast(10)
    with tx, rx:
        with tx._log.section:
            assert tx.send_nowait("later") == 1
            assert len(rx) == 0
        assert received(rx) == ["later"]


# -------------------------------------------------------------------- cancelling


async def test_what_a_cancelled_call_had_been_handed_is_the_next_item_again():
    tx, rx = broadcast(10)
    with tx, rx:
        calls = [step(rx.recv()) for _ in range(3)]
        for call in calls:
            assert call.poll() is None
        for item in "abcd":
            tx.send_nowait(item)
        calls[1].close()
        calls[0].close()
        assert len(rx) == 3
        assert received(rx) == ["a", "b", "d"]
        assert calls[2].poll().unwrap() == "c"


async def test_an_item_that_comes_right_behind_a_cancellation_is_kept():
    tx, rx = broadcast(10)
    with tx, rx:
        waiting = asyncio.create_task(rx.recv())
        await yield_now()
        waiting.cancel()
        tx.send_nowait("a")
        assert received(rx) == ["a"]
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        tx.send_nowait("b")
        assert received(rx) == ["b"]


async def test_what_a_cancelled_call_had_been_handed_goes_to_the_next_that_waits():
    tx, rx = broadcast(10)
    with tx, rx:
        first, second = step(rx.recv()), step(rx.recv())
        assert first.poll() is second.poll() is None
        tx.send_nowait("a")
        first.close()
        assert second.poll().unwrap() == "a"


async def test_a_lag_that_a_cancelled_call_was_told_is_told_again():
    tx, rx = broadcast(1)
    with tx, rx:
        tx.send_nowait(0)
        tx.send_nowait(1)
        waiter = TaskWaiter()
        rx.register(waiter)
        assert isinstance(waiter.error, Lagged)
        rx.withdraw(waiter)
        assert len(rx) == 1
        assert received(rx) == [-1, 1]


async def test_cancelled_calls_leave_nobody_parked():
    tx, rx = broadcast(1, overflow="suspend")
    with tx, rx:
        for _ in range(3):
            call = step(rx.recv())
            call.poll()
            call.close()
        await tx.send(0)
        for _ in range(3):
            call = step(tx.send(1))
            call.poll()
            call.close()
        statistics = tx.statistics()
        assert statistics.waiting_receivers == statistics.waiting_senders == 0
        assert not tx._log.waiting
        assert received(rx) == [0]


# -------------------------------------------------------------------- fairness


async def test_calls_that_are_ready_yield_once_in_a_while():
    tx, rx = broadcast(1000)
    turns = 0

    async def count_turns():
        nonlocal turns
        while True:
            turns += 1
            await yield_now()

    counting = asyncio.create_task(count_turns())
    with tx, rx:
        for number in range(3 * BUDGET + 1):
            await tx.send(number)
        assert turns == 3
        for _ in range(3 * BUDGET + 1):
            await rx.recv()
        assert turns == 6
    counting.cancel()


# -------------------------------------------------------------------- closing


async def test_receivers_get_what_was_sent_and_then_the_end():
    tx, rx = broadcast(10)
    clone = tx.clone()
    with rx, tx.subscribe() as waiting:
        parked = asyncio.create_task(waiting.recv())
        await yield_now()
        tx.send_nowait(1)
        tx.close()
        clone.send_nowait(2)
        clone.close()
        assert rx.is_closed
        assert [item async for item in rx] == [1, 2]
        assert await parked == 1
        assert await waiting.recv() == 2
        for _ in range(2):
            with pytest.raises(ChannelClosed):
                await rx.recv()
            with pytest.raises(ChannelClosed):
                rx.recv_nowait()
        with rx.resubscribe() as late:
            assert [item async for item in late] == []


async def test_parked_receivers_are_told_the_end_with_its_cause():
    tx, rx = broadcast(10)
    cause = LookupError("gone")
    with rx, tx.subscribe() as other:
        parked = [asyncio.create_task(end.recv()) for end in (rx, rx, other)]
        await yield_now()
        tx.close(cause)
        for outcome in await asyncio.gather(*parked, return_exceptions=True):
            assert isinstance(outcome, ChannelClosed)
            assert outcome.__cause__ is cause
        with pytest.raises(ChannelClosed):
            async for _ in rx:
                pass
        with pytest.raises(TypeError, match="cause"):
            tx.close("no exception")


async def test_a_closed_handle_refuses_and_its_parked_calls_end():
    tx, rx = broadcast(1, overflow="suspend")
    other = tx.clone()
    with other, tx.subscribe() as slow:
        await tx.send(0)
        sending, queued = asyncio.create_task(tx.send(1)), asyncio.create_task(other.send(2))
        await yield_now()
        tx.close()
        with pytest.raises(HandleClosed) as caught:
            await sending
        assert caught.value.refused == (1,)
        for refused in (lambda: tx.send_nowait("a"), tx.clone, tx.subscribe):
            with pytest.raises(HandleClosed):
                refused()
        assert received(rx) == [0]
        receiving = asyncio.create_task(rx.recv())
        await yield_now()
        rx.close()
        with pytest.raises(HandleClosed):
            await receiving
        for refused in (rx.recv_nowait, rx.clone, rx.resubscribe):
            with pytest.raises(HandleClosed):
                refused()
        with pytest.raises(HandleClosed):
            async for _ in rx:
                pass
        assert received(slow) == [0, 2]
        assert await queued == 1
        tx.close()
        rx.close()


async def test_when_the_last_receiver_is_closed_parked_senders_get_their_items_back():
    tx, rx = broadcast(1, overflow="suspend")
    with tx:
        await tx.send(0)
        sending = asyncio.create_task(tx.send(1))
        await yield_now()
        rx.close()
        with pytest.raises(ChannelClosed, match="nobody receives") as caught:
            await sending
        assert caught.value.refused == (1,)


async def test_closed_waits_until_the_last_receiver_is_gone():
    tx, rx = broadcast(1)
    other = tx.subscribe()
    with tx:
        watching, cancelled = asyncio.create_task(tx.closed()), step(tx.closed())
        await yield_now()
        assert cancelled.poll() is None
        cancelled.close()
        rx.close()
        await yield_now()
        assert not watching.done()
        other.close()
        await watching
        await tx.closed()
        assert not tx._log.watchers


async def test_closing_the_handle_ends_its_closed_calls_and_no_others():
    tx, rx = broadcast(1)
    with rx, tx.clone() as other:
        mine, others = asyncio.create_task(tx.closed()), asyncio.create_task(other.closed())
        await yield_now()
        tx.close()
        await mine
        assert not others.done()
        rx.close()
        await others


async def test_an_end_closes_with_its_block():
    tx, rx = broadcast(1)
    async with tx:
        async with rx:
            assert not rx.is_closed
        assert tx.is_closed
    assert repr(tx).startswith("<BroadcastSender closed")


def test_an_end_that_was_dropped_closes_with_a_warning_that_says_where_it_was_made():
    tx, rx = broadcast(1)
    with rx:
        with pytest.warns(ResourceWarning, match=r"BroadcastSender.*test_broadcast.py.*never closed"):
            del tx
            gc.collect()
        with pytest.raises(ChannelClosed):
            rx.recv_nowait()
    tx, rx = broadcast(1)
    with tx:
        with pytest.warns(ResourceWarning, match=r"BroadcastReceiver.*test_broadcast.py.*never closed"):
            del rx
            gc.collect()
        assert tx.receiver_count == 0
        assert tx.is_closed


async def test_each_end_that_is_open_is_a_leak():
    with pytest.raises(LeakError) as caught, no_leaks():
        tx, rx = broadcast(2)
    tx.close()
    rx.close()
    assert len(caught.value.leaks) == 2
    with no_leaks():
        tx, rx = broadcast(2, replay=1)
        with tx, rx:
            tx.send_nowait(1)


# -------------------------------------------------------------------- iterating, selecting, looking


async def test_an_async_for_raises_lagged_at_its_place_and_the_next_one_goes_on_behind_the_gap():
    tx, rx = broadcast(2)
    with rx:
        seen = []
        tx.send_nowait(0)
        with pytest.raises(Lagged):
            async for item in rx:
                seen.append(item)
                for number in range(1, 5):
                    tx.send_nowait(number)
        tx.close()
        seen += [item async for item in rx]
        assert seen == [0, 3, 4]


async def test_a_receiver_and_a_send_can_be_waited_for_like_everything_else():
    tx, rx = broadcast(1, overflow="suspend")
    with tx, rx:
        waiting = asyncio.create_task(park(rx))
        await yield_now()
        assert await park(tx.sending("a")) == 1
        assert await waiting == "a"
        await tx.send("b")
        sending = asyncio.create_task(park(tx.sending("c")))
        await yield_now()
        assert not sending.done()
        assert received(rx) == ["b", "c"]
        assert await sending == 1
        tx.close()
        with pytest.raises(HandleClosed) as caught:
            await park(tx.sending("d"))
        assert caught.value.refused == ("d",)


def test_statistics_and_reprs_show_the_state():
    tx, rx = broadcast(3)
    with tx, rx, tx.subscribe() as other:
        for number in range(2):
            tx.send_nowait(number)
        other.recv_nowait()
        assert tx.statistics() == rx.statistics() == BroadcastStatistics(2, 0, 2, 3, 1, 2, 0, 0)
        assert (len(tx), len(rx), len(other)) == (2, 2, 1)
        assert (tx.capacity, tx.receiver_count) == (3, 2)
        assert bool(tx) is bool(rx) is True
        assert tx.same_channel(other)
        stranger, its_receiver = broadcast(1)
        with stranger, its_receiver:
            assert not tx.same_channel(stranger)
        assert repr(tx).startswith("<BroadcastSender open, 2 of 3 for 2 at 0x")
        assert repr(other).startswith("<BroadcastReceiver open, 1 of 3 at 0x")
    assert repr(other).startswith("<BroadcastReceiver closed")


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"capacity": 0}, ValueError, "capacity"),
        ({"capacity": 1.5}, TypeError, "capacity"),
        ({"capacity": True}, TypeError, "capacity"),
        ({"capacity": 1, "replay": -1}, ValueError, "replay"),
        ({"capacity": 1, "replay": 2}, ValueError, "replay"),
        ({"capacity": 1, "replay": 0.5}, TypeError, "replay"),
        ({"capacity": 1, "replay": 0.0}, TypeError, "replay"),
        ({"capacity": 1, "overflow": "explode"}, ValueError, "overflow"),
    ],
)
def test_nonsense_is_refused_with_the_name_of_the_argument(arguments, error, name):
    with pytest.raises(error, match=name):
        broadcast(**arguments)


def test_nothing_needs_a_running_loop():
    tx, rx = broadcast(1)
    assert isinstance(tx, BroadcastSender)
    assert isinstance(rx, BroadcastReceiver)
    with tx, rx:
        tx.send_nowait(1)
        assert next(iter(rx)) == 1
