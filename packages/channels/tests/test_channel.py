"""What a channel promises to one loop: order, room, closing, errors, handles."""

import asyncio
import gc
import pickle
import warnings

import pytest

from yamanote.channels import (
    ChannelClosed,
    ChannelEmpty,
    ChannelFull,
    HandleClosed,
    IncompleteRead,
    Lagged,
    channel,
    channel_unbounded,
)
from yamanote.runtime import BUDGET, CriticalSection, yield_now

MAKERS = [
    pytest.param(lambda **options: channel(1, **options), id="capacity 1"),
    pytest.param(lambda **options: channel(3, **options), id="capacity 3"),
    pytest.param(lambda **options: channel(5000, **options), id="capacity 5000"),
    pytest.param(lambda **options: channel_unbounded(**options), id="unbounded"),
]
each_kind = pytest.mark.parametrize("make", MAKERS)


async def settled() -> None:
    """Let every task run until it waits for somebody else."""
    for _ in range(20):
        await yield_now()


async def count_turns(work) -> int:
    """How many loop turns `work` takes."""
    turns = 0
    done = False
    loop = asyncio.get_running_loop()

    def tick() -> None:
        nonlocal turns
        if not done:
            turns += 1
            loop.call_soon(tick)

    loop.call_soon(tick)
    await work
    done = True
    return turns


@each_kind
async def test_items_arrive_in_order_whatever_they_are(make):
    items = [None, 0, "", False, ValueError("an item"), StopAsyncIteration(), [], 1.5] * 5
    tx, rx = make()

    async def produce():
        with tx:
            for item in items:
                await tx.send(item)

    producer = asyncio.create_task(produce())
    received = [item async for item in rx]
    await producer
    rx.close()

    assert all(left is right for left, right in zip(items, received, strict=True))


@pytest.mark.parametrize(
    ("capacity", "error"),
    [(-1, ValueError), (1.5, TypeError), (True, TypeError), ("1", TypeError), (None, TypeError)],
)
def test_a_capacity_that_makes_no_sense_is_refused_at_the_call(capacity, error):
    with pytest.raises(error, match="capacity"):
        channel(capacity)


def test_a_channel_needs_no_running_loop():
    tx, rx = channel[str](2)
    with tx, rx:
        tx.send_nowait("a")
        assert rx.recv_nowait() == "a"


async def test_send_nowait_tells_full_and_brings_the_item_back():
    tx, rx = channel(1)
    with tx, rx:
        tx.send_nowait("a")
        with pytest.raises(ChannelFull) as caught:
            tx.send_nowait("b")
        assert caught.value.refused == ("b",)
        assert rx.recv_nowait() == "a"
        with pytest.raises(ChannelEmpty):
            rx.recv_nowait()
        tx.send_nowait("c")
        assert await rx.recv() == "c"


async def test_ready_operations_take_no_loop_turn():
    tx, rx = channel(BUDGET)
    with tx, rx:

        async def work():
            for number in range(BUDGET // 2):
                await tx.send(number)
            for _ in range(BUDGET // 2):
                await rx.recv()

        assert await count_turns(work()) == 0


@each_kind
async def test_ready_operations_take_no_lock(make, monkeypatch):
    tx, rx = make()

    def refuse(*_):
        raise AssertionError("the ordinary path took the lock")

    with tx, rx:
        with monkeypatch.context() as patch:
            for method in ("try_enter", "run", "do", "__enter__"):
                patch.setattr(CriticalSection, method, refuse)
            for number in range(20):
                await tx.send(number)
                assert await rx.recv() == number
                tx.send_nowait(number)
                assert rx.recv_nowait() == number
                tx.send_nowait(number)
                assert await rx.recv_many(5) == [number]
        with pytest.raises(AssertionError, match="lock"), monkeypatch.context() as patch:
            patch.setattr(CriticalSection, "try_enter", refuse)
            patch.setattr(CriticalSection, "run", refuse)
            tx._core.serve()


@each_kind
async def test_ready_operations_yield_once_in_a_while(make):
    tx, rx = make()
    with tx, rx:

        async def work():
            for number in range(10 * BUDGET):
                await tx.send(number)
                await rx.recv()

        assert 9 <= await count_turns(work()) <= 40


@each_kind
async def test_a_channel_ends_although_its_receiver_had_used_up_its_budget(make):
    tx, rx = make()

    async def produce():
        with tx:
            for number in range(3 * BUDGET):
                await tx.send(number)

    producer = asyncio.create_task(produce())
    assert [item async for item in rx] == list(range(3 * BUDGET))
    await producer
    rx.close()


async def test_a_receiver_with_a_full_buffer_does_not_starve_others():
    tx, rx = channel_unbounded()
    with tx, rx:
        for number in range(10 * BUDGET):
            tx.send_nowait(number)

        async def drain():
            for _ in range(10 * BUDGET):
                await rx.recv()

        assert await count_turns(drain()) >= 8


async def test_waiting_receivers_are_served_first_in_first_out():
    tx, rx = channel_unbounded()
    with tx, rx:
        order = []

        async def receive(name):
            order.append((name, await rx.recv()))

        tasks = [asyncio.create_task(receive(name)) for name in range(5)]
        await settled()
        for number in range(5):
            tx.send_nowait(number)
        await asyncio.gather(*tasks)
        assert order == [(number, number) for number in range(5)]


async def test_waiting_senders_are_served_first_in_first_out():
    tx, rx = channel(1)
    with tx, rx:
        tasks = [asyncio.create_task(tx.send(number)) for number in range(6)]
        await settled()
        assert [await rx.recv() for _ in range(6)] == list(range(6))
        await asyncio.gather(*tasks)


async def test_a_newcomer_does_not_overtake_a_parked_receiver():
    tx, rx = channel_unbounded()
    with tx, rx:
        parked = asyncio.create_task(rx.recv())
        await settled()
        tx.send_nowait("a")
        with pytest.raises(ChannelEmpty):
            rx.recv_nowait()
        tx.send_nowait("b")
        assert await rx.recv() == "b"
        assert await parked == "a"


async def test_a_newcomer_does_not_overtake_a_parked_sender():
    tx, rx = channel(1)
    with tx, rx:
        tx.send_nowait("a")
        parked = asyncio.create_task(tx.send("b"))
        await settled()
        assert rx.recv_nowait() == "a"
        with pytest.raises(ChannelFull):
            tx.send_nowait("c")
        assert rx.recv_nowait() == "b"
        await parked


async def test_one_turn_moves_a_whole_buffer():
    """The receiver moves the items of parked senders into the buffer itself, and goes on."""
    tx, rx = channel(1)
    with tx, rx:

        async def produce():
            for number in range(300):
                await tx.send(number)

        async def work():
            producer = asyncio.create_task(produce())
            for _ in range(300):
                await rx.recv()
            await producer

        assert await count_turns(work()) <= 300 * 0.67 + 10


# ------------------------------------------------------------------ closing


@each_kind
async def test_receivers_drain_and_then_see_the_end(make):
    tx, rx = make()
    await tx.send(1)
    tx.close()
    assert rx.is_closed
    assert await rx.recv() == 1
    for _ in range(2):
        with pytest.raises(ChannelClosed):
            await rx.recv()
        with pytest.raises(ChannelClosed):
            rx.recv_nowait()
    assert [item async for item in rx] == []
    rx.close()


@each_kind
async def test_a_parked_receiver_sees_the_end(make):
    tx, rx = make()
    tasks = [asyncio.create_task(rx.recv()) for _ in range(3)]
    await settled()
    tx.close()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ChannelClosed] * 3
    assert len({id(outcome) for outcome in outcomes}) == 3
    rx.close()


@each_kind
async def test_senders_are_refused_with_their_item_once_nobody_receives(make):
    tx, rx = make()
    rx.close()
    for _ in range(2):
        with pytest.raises(ChannelClosed) as caught:
            await tx.send("a")
        assert caught.value.refused == ("a",)
        with pytest.raises(ChannelClosed) as caught:
            tx.send_nowait("b")
        assert caught.value.refused == ("b",)
    tx.close()


async def test_parked_senders_get_their_items_back_when_the_channel_closes():
    tx, rx = channel(1)
    tx.send_nowait(0)
    tasks = [asyncio.create_task(tx.send(number)) for number in (1, 2, 3)]
    await settled()
    rx.close()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [outcome.refused for outcome in outcomes] == [(1,), (2,), (3,)]
    tx.close()


async def test_the_channel_closes_with_its_last_sender():
    tx, rx = channel(4)
    others = [tx.clone() for _ in range(3)]
    tx.close()
    for other in others:
        assert not rx.is_closed
        await other.send("x")
        other.close()
    assert rx.is_closed
    assert [item async for item in rx] == ["x"] * 3
    rx.close()


async def test_the_channel_closes_with_its_last_receiver():
    tx, rx = channel(4)
    other = rx.clone()
    rx.close()
    await tx.send("x")
    assert await other.recv() == "x"
    other.close()
    with pytest.raises(ChannelClosed):
        await tx.send("y")
    tx.close()


@each_kind
async def test_a_closed_handle_refuses_while_its_clones_go_on(make):
    tx, rx = make()
    tx2, rx2 = tx.clone(), rx.clone()
    tx.close()
    rx.close()
    with pytest.raises(HandleClosed) as caught:
        await tx.send("a")
    assert caught.value.refused == ("a",)
    with pytest.raises(HandleClosed):
        tx.send_nowait("a")
    with pytest.raises(HandleClosed):
        await tx.reserve()
    with pytest.raises(HandleClosed):
        tx.reserve_nowait()
    with pytest.raises(HandleClosed):
        await rx.recv()
    with pytest.raises(HandleClosed):
        rx.recv_nowait()
    with pytest.raises(HandleClosed):
        async for _ in rx:
            pass
    with pytest.raises(HandleClosed):
        tx.clone()
    with pytest.raises(HandleClosed):
        rx.clone()
    await tx2.send("b")
    assert await rx2.recv() == "b"
    tx2.close()
    rx2.close()


async def test_calls_parked_on_a_handle_end_when_it_is_closed():
    tx, rx = channel(1)
    tx2, rx2 = tx.clone(), rx.clone()
    receiving = asyncio.create_task(rx.recv())
    await settled()
    rx.close()
    with pytest.raises(HandleClosed):
        await receiving

    await tx.send(1)
    sending = asyncio.create_task(tx.send(2))
    other = asyncio.create_task(tx2.send(3))
    await settled()
    tx.close()
    with pytest.raises(HandleClosed) as caught:
        await sending
    assert caught.value.refused == (2,)
    assert [await rx2.recv(), await rx2.recv()] == [1, 3]
    await other
    tx2.close()
    rx2.close()


@each_kind
async def test_closing_twice_is_closing_once(make):
    tx, rx = make()
    other = tx.clone()
    tx.close()
    tx.close()
    assert not rx.is_closed
    other.close()
    rx.close()
    rx.close()


@each_kind
async def test_shutdown_accepts_nothing_more_and_lets_receivers_drain(make):
    tx, rx = make()
    await tx.send(1)
    rx.shutdown()
    rx.shutdown()
    with pytest.raises(ChannelClosed) as caught:
        await tx.send(2)
    assert caught.value.refused == (2,)
    assert [item async for item in rx] == [1]
    tx.close()
    rx.close()


@each_kind
async def test_a_cause_reaches_whoever_comes_after_the_last_item(make):
    tx, rx = make()
    await tx.send(1)
    cause = OSError("the source is gone")
    tx.close(cause)
    received = []
    with pytest.raises(ChannelClosed) as caught:
        async for item in rx:
            received.append(item)
    assert received == [1]
    assert caught.value.__cause__ is cause
    rx.close()


async def test_the_first_cause_counts():
    tx, rx = channel(1)
    other = tx.clone()
    tx.close(first := OSError("first"))
    other.close(OSError("second"))
    with pytest.raises(ChannelClosed) as caught:
        await rx.recv()
    assert caught.value.__cause__ is first
    rx.close()


async def test_closed_lets_a_producer_stop_early():
    tx, rx = channel(1)
    watching = [asyncio.create_task(tx.closed()), asyncio.create_task(rx.closed())]
    await settled()
    assert not any(task.done() for task in watching)
    rx.close()
    await asyncio.gather(*watching)
    await tx.closed()
    tx.close()


async def test_a_cancelled_wait_for_closed_leaves_nothing_behind():
    tx, rx = channel(1)
    watching = asyncio.create_task(tx.closed())
    await settled()
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert not tx._core.watchers
    tx.close()
    rx.close()


# ------------------------------------------------------------------ what nobody receives


@each_kind
async def test_the_hook_gets_what_nobody_can_receive_any_more(make):
    lost = []
    tx, rx = make(undelivered=lost.append)
    other = rx.clone()
    await tx.send("a")
    rx.close()
    assert lost == []
    other.close()
    assert lost == ["a"]
    tx.close()


async def test_a_failing_hook_hurts_nobody(capsys):
    def hook(item):
        raise RuntimeError(f"no use for {item}")

    tx, rx = channel(2, undelivered=hook)
    tx.send_nowait("a")
    tx.send_nowait("b")
    rx.close()
    assert "no use for a" in (printed := capsys.readouterr().err)
    assert "no use for b" in printed
    tx.close()


async def test_a_hook_may_use_the_channel():
    """It runs outside of every lock."""
    seen = []

    def hook(item):
        with pytest.raises(ChannelClosed):
            tx.send_nowait(item)
        seen.append(tx.statistics().buffered)

    tx, rx = channel(1, undelivered=hook)
    tx.send_nowait("a")
    rx.close()
    assert seen == [0]
    tx.close()


# ------------------------------------------------------------------ permits


async def test_a_permit_is_room_that_nobody_else_can_take():
    tx, rx = channel(1)
    with tx, rx:
        permit = await tx.reserve()
        with pytest.raises(ChannelFull):
            tx.send_nowait("x")
        permit.send("y")
        with pytest.raises(RuntimeError, match="used"):
            permit.send("z")
        assert await rx.recv() == "y"


@each_kind
async def test_a_released_permit_gives_its_room_back(make):
    tx, rx = make()
    with tx, rx:
        with await tx.reserve():
            pass
        permit = (await tx.reserve_many(1))[0]
        permit.release()
        permit.release()
        await tx.send("a")
        assert await rx.recv() == "a"


async def test_permits_and_sends_stand_in_one_queue():
    tx, rx = channel(2)
    with tx, rx:
        tx.send_nowait(1)
        tx.send_nowait(2)
        both = asyncio.create_task(tx.reserve_many(2))
        await settled()
        small = asyncio.create_task(tx.send(3))
        await settled()
        assert rx.recv_nowait() == 1
        await settled()
        assert not both.done()
        assert not small.done()
        assert rx.recv_nowait() == 2
        for permit in await both:
            permit.send("permit")
        assert [await rx.recv() for _ in range(3)] == ["permit", "permit", 3]
        await small


@each_kind
async def test_a_permit_keeps_a_closing_channel_from_ending(make):
    tx, rx = make()
    permit = await tx.reserve()
    tx.close()
    receiving = asyncio.create_task(rx.recv())
    await settled()
    assert not receiving.done()
    permit.send("late")
    assert await receiving == "late"
    with pytest.raises(ChannelClosed):
        await rx.recv()
    rx.close()


@each_kind
async def test_releasing_the_last_permit_ends_a_closed_channel(make):
    tx, rx = make()
    permit = await tx.reserve()
    tx.close()
    receiving = asyncio.create_task(rx.recv())
    await settled()
    permit.release()
    with pytest.raises(ChannelClosed):
        await receiving
    rx.close()


@each_kind
async def test_a_permit_is_refused_with_its_item_once_nobody_receives(make):
    tx, rx = make()
    permit = await tx.reserve()
    rx.close()
    with pytest.raises(ChannelClosed) as caught:
        permit.send("late")
    assert caught.value.refused == ("late",)
    tx.close()


@pytest.mark.parametrize("count", [0, -1, 4])
async def test_a_number_of_permits_that_makes_no_sense_is_refused(count):
    tx, rx = channel(3)
    with tx, rx:
        with pytest.raises(ValueError, match="count"):
            await tx.reserve_many(count)
        with pytest.raises(ValueError, match="count"):
            tx.reserve_nowait(count)


# ------------------------------------------------------------------ many at once


@each_kind
async def test_recv_many_takes_what_is_there_and_waits_only_for_the_first(make):
    tx, rx = make()
    with tx, rx:
        waiting = asyncio.create_task(rx.recv_many(10))
        await settled()
        assert not waiting.done()
        await tx.send("a")
        assert await waiting == ["a"]


async def test_recv_many_keeps_order_and_limit():
    tx, rx = channel(10)
    with rx:
        await tx.send_many(range(10))
        assert await rx.recv_many(4) == [0, 1, 2, 3]
        assert await rx.recv_many(1) == [4]
        assert await rx.recv_many(100) == [5, 6, 7, 8, 9]
        tx.close()
        with pytest.raises(ChannelClosed):
            await rx.recv_many(2)


async def test_recv_many_makes_room_for_parked_senders():
    tx, rx = channel(3)
    with tx, rx:
        sending = asyncio.create_task(tx.send_many(range(10)))
        received = []
        while len(received) < 10:
            received += await rx.recv_many(3)
        assert received == list(range(10))
        await sending


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_limit_that_makes_no_sense_is_refused(limit):
    tx, rx = channel(1)
    with tx, rx, pytest.raises(ValueError, match="limit"):
        await rx.recv_many(limit)


async def test_send_many_stops_at_the_first_item_that_is_refused():
    tx, rx = channel(2)
    items = iter(range(6))
    sending = asyncio.create_task(tx.send_many(items))
    await settled()
    rx.close()
    with pytest.raises(ChannelClosed) as caught:
        await sending
    assert caught.value.refused == (2,)
    assert list(items) == [3, 4, 5]
    tx.close()


# ------------------------------------------------------------------ handles


def test_statistics_tell_what_is_going_on():
    tx, rx = channel(3)
    with tx, rx, tx.clone(), rx.clone():
        tx.send_nowait("a")
        look = rx.statistics()
        assert (look.buffered, look.capacity, look.senders, look.receivers) == (1, 3, 2, 2)
        assert (look.waiting_senders, look.waiting_receivers) == (0, 0)
        assert len(tx) == len(rx) == 1
        assert tx.capacity == rx.capacity == 3
    assert rx.statistics().waiting_senders == rx.statistics().waiting_receivers == 0


async def test_statistics_count_who_waits():
    tx, rx = channel(1)
    with tx, rx:
        receiving = asyncio.create_task(rx.recv())
        await settled()
        assert rx.statistics().waiting_receivers == 1
        await tx.send(0)
        await receiving
        await tx.send(1)
        sending = asyncio.create_task(tx.send(2))
        await settled()
        assert rx.statistics().waiting_senders == 1
        assert await rx.recv_many(2) == [1, 2]
        await sending


def test_same_channel_knows_its_own():
    tx, rx = channel(1)
    tx2, rx2 = channel(1)
    with tx, rx, tx2, rx2, tx.clone() as clone:
        assert tx.same_channel(rx)
        assert clone.same_channel(tx)
        assert not tx.same_channel(tx2)


async def test_a_weak_sender_does_not_keep_the_channel_open():
    tx, rx = channel(2)
    weak = tx.downgrade()
    strong = weak.upgrade()
    tx.close()
    assert not rx.is_closed
    await strong.send("a")
    strong.close()
    assert rx.is_closed
    assert weak.upgrade() is None
    assert [item async for item in rx] == ["a"]
    rx.close()


@each_kind
async def test_a_dropped_handle_is_closed_and_warned_about_with_the_line_where_it_was_made(make):
    tx, rx = make()
    with pytest.warns(ResourceWarning, match=r"Sender.* made at .*test_channel\.py:\d+ in "):
        del tx
        gc.collect()
    with pytest.raises(ChannelClosed):
        await rx.recv()
    rx.close()

    tx, rx = make()
    with pytest.warns(ResourceWarning, match="Receiver"):
        del rx
        gc.collect()
    with pytest.raises(ChannelClosed):
        await tx.send("x")
    tx.close()


async def test_a_dropped_permit_gives_its_room_back_and_is_warned_about():
    tx, rx = channel(1)
    with tx, rx:
        permit = await tx.reserve()
        with pytest.warns(ResourceWarning, match="Permit"):
            del permit
            gc.collect()
        tx.send_nowait("a")
        assert rx.recv_nowait() == "a"


def test_a_handle_dropped_while_its_channel_is_locked_does_not_dead_lock():
    """A finalizer runs anywhere, also inside the critical section of its own channel."""
    tx, rx = channel(1)
    clone = tx.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with tx._core.section:
            del clone
            gc.collect()
            assert rx.statistics().senders == 2
        assert rx.statistics().senders == 1
    tx.close()
    rx.close()


def test_handles_show_their_state():
    tx, rx = channel(2)
    tx.send_nowait(1)
    assert "Sender open, 1 of 2" in repr(tx)
    tx.close()
    assert "Sender closed" in repr(tx)
    assert "Receiver of a closed channel, 1 of 2" in repr(rx)
    rx.close()
    tx, rx = channel_unbounded()
    assert "0 unbounded" in repr(rx)
    tx.close()
    rx.close()


def test_handles_are_true_even_when_the_channel_is_empty():
    tx, rx = channel(1)
    with tx, rx:
        assert tx
        assert rx


@pytest.mark.parametrize(
    "error",
    [ChannelClosed("closed", "an item"), Lagged(3), IncompleteRead(b"ab", 4)],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_was_pickled_says_and_holds_what_it_did(error):
    twin = pickle.loads(pickle.dumps(error))
    assert (type(twin), str(twin), vars(twin)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "error", "suspend"])
@pytest.mark.parametrize("capacity", [0, 1])
def test_an_end_says_what_users_call_it(capacity, overflow):
    tx, rx = channel(capacity, overflow=overflow if capacity else "suspend")
    with tx, rx:
        assert repr(tx).startswith("<Sender open") and repr(rx).startswith("<Receiver open")
        assert not tx.same_channel("another thing")
    with pytest.raises(HandleClosed, match="this Sender was closed"):
        tx.send_nowait("late")
