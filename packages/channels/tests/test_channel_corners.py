"""Corners where two rare things meet. Each was a bug once, or is one in a variant that was tried."""

import asyncio
import copy
import gc
import pickle
import signal
import weakref
from collections import deque
from functools import partial
from itertools import permutations

import pytest

from yamanote.channels import ChannelClosed, ChannelEmpty, ChannelFull, HandleClosed, channel, channel_unbounded
from yamanote.runtime import BUDGET, Waiter, yield_now


async def settled() -> None:
    for _ in range(10):
        await yield_now()


async def test_closing_a_handle_serves_who_stands_behind_its_big_reservation():
    tx, rx = channel(2)
    other = tx.clone()
    with rx, other:
        await other.send(1)
        big = asyncio.create_task(tx.reserve_many(2))
        await settled()
        small = asyncio.create_task(other.send(2))
        await settled()
        assert not small.done()
        tx.close()
        with pytest.raises(HandleClosed):
            await big
        await asyncio.wait_for(small, 5)


async def test_a_task_that_is_cancelled_in_the_middle_of_a_hand_over_costs_nothing():
    """Ctrl-C cancels the main task from a signal handler: between any two bytecodes."""
    tx, rx = channel(1)
    with tx, rx:
        receiving = asyncio.create_task(rx.recv())
        await settled()
        (waiter,) = tx._core.receivers
        real = waiter.future

        class CancelledInBetween:
            def set_result(self, result):
                receiving.cancel()
                real.set_result(result)

            def __getattr__(self, name):
                return getattr(real, name)

        waiter._future = CancelledInBetween()
        tx.send_nowait("a")
        with pytest.raises(asyncio.CancelledError):
            await receiving
        assert tx._core.free == 0
        assert rx.recv_nowait() == "a"
        tx.send_nowait("b")
        with pytest.raises(ChannelFull):
            tx.send_nowait("c")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
def test_a_signal_that_cancels_the_receiver_at_any_moment_leaves_the_room_complete():
    async def main():
        tx, rx = channel(1)
        victim = None

        def strike(*_):
            if victim is not None:
                victim.cancel()

        before = signal.signal(signal.SIGALRM, strike)
        try:
            with tx, rx:
                for round_ in range(400):
                    victim = asyncio.create_task(rx.recv())
                    await yield_now()
                    signal.setitimer(signal.ITIMER_REAL, 0.00001 + (round_ % 20) * 0.000003)
                    for _ in range(6):
                        try:
                            tx.send_nowait(round_)
                        except ChannelFull:
                            pass
                        if len(rx):
                            rx.recv_nowait()
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    victim.cancel()
                    await asyncio.wait([victim])
                    while len(rx):
                        rx.recv_nowait()
                    assert tx._core.free == 1
                    assert not tx._core.waiters
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    asyncio.run(main())


class Interrupted(deque):
    """A deque with which something happens in between, as it may with several threads."""

    def __init__(self, items, name, between):
        super().__init__(items)
        self._name = name
        self._between = between

    def _call(self, name, *args):
        between, self._between = self._between, self._between if name != self._name else None
        if name == self._name and between is not None:
            between()
        return getattr(deque, name)(self, *args)

    def copy(self):
        return deque(self)

    def popleft(self):
        return self._call("popleft")

    def pop(self):
        return self._call("pop")

    def append(self, item):
        return self._call("append", item)

    def appendleft(self, item):
        return self._call("appendleft", item)


def test_the_last_receiver_closes_while_another_thread_still_receives():
    undelivered = []
    tx, rx = channel(3, undelivered=undelivered.append)
    for item in "abc":
        tx.send_nowait(item)
    core = tx._core
    taken = []
    core.items = Interrupted(core.items, "popleft", lambda: taken.append(deque.popleft(core.items)))
    rx.close()
    assert taken + undelivered == ["a", "b", "c"]
    assert tx.is_closed
    tx.close()


def test_an_unbounded_send_that_is_under_way_when_the_end_is_announced_is_received():
    """It looked for parked receivers too early to see the mark: the end is taken back."""
    tx, rx = channel_unbounded()
    core = tx._core
    core.receivers = rx._receivers = Interrupted(core.receivers, "appendleft", lambda: core.items.append("late"))
    tx.close()
    assert rx.recv_nowait() == "late"
    with pytest.raises(ChannelClosed):
        rx.recv_nowait()
    rx.close()


async def test_a_late_item_is_received_when_the_end_is_taken_back():
    tx, rx = channel_unbounded()
    first, second = asyncio.create_task(rx.recv()), asyncio.create_task(rx.recv())
    await settled()
    tx.send_nowait("a")
    tx.close()  # the end is announced: "a" seems to be received
    tx._core.late.append("late")  # of a sender in another thread, on its way to fetch it
    first.cancel()
    await asyncio.wait([first, second])
    assert [rx.recv_nowait(), rx.recv_nowait()] == ["a", "late"]
    rx.close()


async def test_an_item_that_comes_back_when_all_receivers_are_closed_goes_to_the_hook():
    undelivered = []
    tx, rx = channel(1, undelivered=undelivered.append)
    receiving = asyncio.create_task(rx.recv())
    await settled()
    tx.send_nowait("a")
    rx.close()
    receiving.cancel()
    await asyncio.wait([receiving])
    assert undelivered == ["a"]
    tx.close()


async def test_a_call_that_parks_while_another_thread_closes_its_handle_is_ended():
    """The other thread looked for parked calls just before this one was there."""
    tx, rx = channel(1)
    core = tx._core
    with tx.clone(), rx.clone() as other:
        core.receivers = Interrupted(core.receivers, "append", rx.close)
        with pytest.raises(HandleClosed):
            await asyncio.wait_for(rx.recv(), 5)
        await tx.send(1)
        core.waiters = tx._senders = Interrupted(core.waiters, "append", tx.close)
        with pytest.raises(HandleClosed) as caught:
            await asyncio.wait_for(tx.send(2), 5)
        assert caught.value.refused == (2,)
        assert other.recv_nowait() == 1


async def test_items_that_come_back_from_several_receivers_come_back_in_their_order():
    """Also when one that came back has gone to the next receiver in the meantime, and comes back again."""
    for order in permutations(range(5)):
        tx, rx = channel_unbounded()
        with tx, rx:
            receiving = [rx.recv() for _ in range(5)]
            for coroutine in receiving:
                coroutine.send(None)
            for item in "abc":
                tx.send_nowait(item)
            for index in order:
                receiving[index].close()
            assert [rx.recv_nowait() for _ in "abc"] == ["a", "b", "c"], order


async def test_an_item_comes_back_before_later_ones_although_earlier_ones_are_gone():
    tx, rx = channel_unbounded()
    with tx, rx:
        receiving = [rx.recv() for _ in range(2)]
        for coroutine in receiving:
            coroutine.send(None)
        for item in "abc":
            tx.send_nowait(item)
        receiving[0].close()
        assert rx.recv_nowait() == "a"
        receiving[1].close()
        assert [rx.recv_nowait(), rx.recv_nowait()] == ["b", "c"]


async def test_an_equal_item_at_the_front_is_not_taken_for_the_one_that_came_back_before():
    tx, rx = channel_unbounded()
    with tx, rx:
        first = rx.recv()
        first.send(None)
        tx.send_nowait(1)
        first.close()
        assert rx.recv_nowait() == 1
        second = rx.recv()
        second.send(None)
        tx.send_nowait(2)
        tx.send_nowait(1)
        second.close()
        assert [rx.recv_nowait(), rx.recv_nowait()] == [2, 1]


async def test_a_channel_does_not_keep_an_item_that_came_back_and_was_received():
    class Item:
        pass

    tx, rx = channel_unbounded()
    with tx, rx:
        receiving = rx.recv()
        receiving.send(None)
        tx.send_nowait(Item())
        receiving.close()
        del receiving
        alive = weakref.ref(rx.recv_nowait())
        gc.collect()
        assert alive() is None


async def test_a_dead_want_of_a_closed_loop_holds_nobody_up():
    tx, rx = channel(3)
    loop = asyncio.new_event_loop()

    async def park():
        task = loop.create_task(tx.reserve_many(3))
        await yield_now()
        return task

    with tx, rx:
        tx.send_nowait(1)
        task = await asyncio.to_thread(loop.run_until_complete, park())
        loop.close()
        await asyncio.wait_for(tx.send(2), 5)
        task._log_destroy_pending = False
        del task
        gc.collect()


@pytest.mark.parametrize("nonsense", [1.5, "2", True, None, float("nan")])
async def test_a_count_that_is_no_whole_number_is_refused_before_it_is_queued(nonsense):
    tx, rx = channel(2)
    with tx, rx:
        for call in (tx.reserve_many, rx.recv_many):
            with pytest.raises(TypeError, match="whole number"):
                await call(nonsense)
        with pytest.raises(TypeError, match="whole number"):
            tx.reserve_nowait(nonsense)


@pytest.mark.parametrize("make", [partial(channel, 1), partial(channel, 0), channel_unbounded])
def test_a_hook_that_cannot_be_called_is_refused_at_once(make):
    with pytest.raises(TypeError, match="undelivered"):
        make(undelivered=5)


def test_a_permit_is_not_copied():
    tx, rx = channel(1)
    with tx, rx, tx.reserve_nowait()[0] as permit:
        for clone in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="permit"):
                clone(permit)


@pytest.mark.parametrize("nonsense", ["oops", ValueError])
def test_a_cause_that_cannot_be_raised_is_refused(nonsense):
    tx, rx = channel(2)
    with tx, rx:
        for call in (tx.shutdown, rx.shutdown, tx.close):
            with pytest.raises(TypeError, match="cause"):
                call(nonsense)
        assert not tx.is_closed


@pytest.mark.parametrize(("nonsense", "error"), [(float("nan"), ValueError), ("1", TypeError)])
def test_a_timeout_that_is_none_is_refused_even_if_nothing_waits(nonsense, error):
    tx, rx = channel(2)
    with tx, rx:
        with pytest.raises(error, match="timeout"):
            tx.blocking_send(1, timeout=nonsense)
        tx.send_nowait(1)
        with pytest.raises(error, match="timeout"):
            rx.blocking_recv(timeout=nonsense)
        assert rx.blocking_recv(timeout=float("inf")) == 1


async def test_a_hook_that_uses_its_channel_again_and_again_does_not_nest():
    undelivered = []

    def hook(item):
        undelivered.append(item)
        rx.shutdown()

    tx, rx = channel_unbounded(undelivered=hook)
    for item in range(3000):
        tx.send_nowait(item)
    rx.close()
    assert undelivered == list(range(3000))
    tx.close()


async def test_sending_into_a_huge_channel_lets_others_run():
    tx, rx = channel(10**6)
    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await yield_now()

    task = asyncio.create_task(others())
    with tx, rx:
        for number in range(10 * BUDGET):
            await tx.send(number)
        for _ in range(5 * BUDGET):
            (await tx.reserve()).release()
    task.cancel()
    assert 12 <= turns <= 20


async def test_errors_hold_on_to_nothing():
    """An error refers to the frames that it passed, and those to what they knew: none of it back to the error."""

    class Item:
        pass

    gc.collect()
    gc.disable()
    try:
        tx, rx = channel(1)
        item = Item()
        alive = weakref.ref(item)
        rx.close()
        try:
            await tx.send(item)
        except ChannelClosed:
            pass
        tx.close()
        tx, rx = channel(1)
        tx.close()
        errors = []
        for _ in range(2):
            try:
                await rx.recv()
            except ChannelClosed as error:
                errors.append(weakref.ref(error))
        rx.close()
        del item
        assert alive() is None
        assert [error() for error in errors] == [None, None]
    finally:
        gc.enable()


async def test_an_error_of_nowait_is_not_the_context_of_what_comes_later():
    tx, rx = channel(1)
    with tx, rx:
        tx.send_nowait(1)
        reserving = asyncio.create_task(tx.reserve())
        await settled()
        reserving.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await reserving
        assert caught.value.__context__ is None or not isinstance(caught.value.__context__, ChannelFull)

    def block():
        with pytest.raises(TimeoutError) as caught:
            tx2.blocking_send(2, timeout=0.001)
        assert caught.value.__context__ is None

    tx2, rx2 = channel(1)
    with tx2, rx2:
        tx2.send_nowait(1)
        await asyncio.to_thread(block)


async def test_a_send_to_a_closed_channel_is_refused_at_once_while_room_is_owed() -> None:
    tx, rx = channel(1)
    with tx, rx:
        receiving = asyncio.create_task(rx.recv())
        await asyncio.sleep(0)
        tx.send_nowait("first")
        tx.send_nowait("second")
        receiving.cancel()  # "first" comes back, and finds its room taken
        await asyncio.wait([receiving])
        tx.shutdown()

        late = asyncio.create_task(tx.send("late"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        assert late.done()
        assert isinstance(late.exception(), ChannelClosed)
        assert ["first", "second"] == [item async for item in rx]


class Looked(deque):
    """Tells when somebody has looked at it under its own lock."""

    looks = 0

    def rotate(self, n=1):
        self.looks += 1
        super().rotate(n)


async def test_who_has_just_parked_or_closed_looks_for_the_rest_under_the_lock_of_the_deque() -> None:
    """On a free-threaded build a plain look may be done before what comes in front of it is visible to others."""
    tx, rx = channel(1)
    core = tx._core
    core.items = rx._items = tx._items = Looked()
    core.tokens = rx._tokens = tx._tokens = Looked(core.tokens)
    with tx, rx:
        receiving = asyncio.create_task(rx.recv())
        await settled()
        assert core.items.looks == 1
        tx.send_nowait("a")
        await receiving
        before = core.items.looks, core.tokens.looks
        tx.shutdown()
        assert core.items.looks >= before[0] + 2  # whether the end is due, and whether it was right to announce it
        assert core.tokens.looks >= before[1] + 1


async def test_a_sender_that_comes_for_its_item_when_the_end_was_taken_back_leaves_everything_there() -> None:
    """Between its look at the end and this, an item came back that others had seemed to have received."""
    tx, rx = channel_unbounded()
    with tx, rx:
        tx.send_nowait("somebody else's")
        tx.send_nowait("mine")
        tx._core._fetch_late("mine")
        assert await rx.recv_many(9) == ["somebody else's", "mine"]


async def test_nobody_gets_the_item_behind_one_that_is_just_being_handed_over() -> None:
    """Neither while it is offered to a receiver that turns out to be gone."""
    tx, rx = channel_unbounded()
    core = tx._core

    class Gone(Waiter):
        def hand(self, item):
            with pytest.raises(ChannelEmpty):  # another thread
                rx.recv_nowait()
            return False

    with tx, rx:
        core.items.extend("ab")
        core.receivers.extend([Gone([]), Gone([])])
        core.serve()
        assert await rx.recv_many(9) == ["a", "b"]
        assert rx.statistics().waiting_receivers == 0


class Outrun(Waiter):
    """A party of a select that is claimed through another branch just as a receiver has an item for it."""

    def __init__(self, meanwhile=lambda: None):
        super().__init__([None])
        self.meanwhile = meanwhile

    def hand(self, item):
        assert self.claim()
        self.meanwhile()
        return super().hand(item)


@pytest.mark.parametrize("make", [partial(channel, 2), channel_unbounded], ids=["bounded", "unbounded"])
async def test_an_item_for_a_branch_that_has_just_lost_is_the_oldest_again(make):
    tx, rx = make()
    with tx, rx:
        tx.send_nowait("a")
        tx.send_nowait("b")
        sending = asyncio.create_task(tx.send("c"))
        await settled()
        party = Outrun()
        rx.register(party)
        rx.withdraw(party)
        await settled()
        assert sending.done() is (tx.capacity is None)
        assert [await rx.recv() for _ in range(3)] == ["a", "b", "c"]
        await sending
        assert tx.capacity is None or tx._core.free == 2


async def test_an_item_for_a_branch_that_has_just_lost_goes_to_who_has_parked_meanwhile():
    tx, rx = channel(1)
    with tx, rx:
        tx.send_nowait("a")
        second = Waiter([None])
        rx.register(Outrun(lambda: rx.register(second)))
        assert second.result() == "a"
        tx.send_nowait("b")


async def test_while_an_item_comes_back_from_a_branch_that_has_just_lost_nobody_is_told_the_end():
    tx, rx = channel(1)
    with rx, rx.clone() as other:
        tx.send_nowait("a")
        tx.close()
        second = Waiter([None])

        def receive():
            with pytest.raises(ChannelEmpty):
                other.recv_nowait()
            other.register(second)

        rx.register(Outrun(receive))
        assert second.result() == "a"
        with pytest.raises(ChannelClosed):
            rx.recv_nowait()


async def test_an_item_for_a_branch_that_has_just_lost_goes_to_the_hook_when_nobody_else_receives():
    undelivered = []
    tx, rx = channel(1, undelivered=undelivered.append)
    with tx:
        tx.send_nowait("a")
        rx.register(Outrun(rx.close))
        assert undelivered == ["a"]
        assert tx._core.free == tx.capacity
