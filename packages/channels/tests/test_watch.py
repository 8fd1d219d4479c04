"""What watch channels promise."""

import asyncio
import copy
import gc
import pickle
import threading
import weakref
from functools import partial

import pytest

from yamanote.channels import (
    ChannelClosed,
    HandleClosed,
    WatchReceiver,
    WatchSender,
    channel,
    oneshot_channel,
    spsc_buffer,
    watch,
)
from yamanote.runtime import BUDGET, TaskWaiter, Waiter, park
from yamanote.testing import LeakError, no_leaks, step


@pytest.fixture
def ends():
    tx, rx = watch(0)
    with tx, rx:
        yield tx, rx


class Unequal:
    """Something whose comparison says nothing."""

    def __eq__(self, other):
        return self

    def __bool__(self):
        raise ValueError("neither true nor false")

    __hash__ = None


# ------------------------------------------------------------------ sending


def test_it_is_made_and_used_without_a_loop():
    tx, rx = watch("a")
    with tx, rx:
        tx.send("b")
        assert rx.has_changed()
        assert tx.borrow() == rx.borrow() == "b"
        assert rx.borrow_and_update() == "b"
        assert not rx.has_changed()


def test_the_initial_value_counts_as_seen(ends):
    _, rx = ends
    assert rx.borrow() == 0
    assert not rx.has_changed()


@pytest.mark.parametrize("value", [None, 0, "", ValueError("a value"), StopAsyncIteration(), ()])
async def test_any_object_is_a_value(value):
    tx, rx = watch(object())
    with rx:
        with tx:
            tx.send(value)
            await rx.changed()
            assert rx.borrow() is value
        assert [item async for item in rx] == [value]


def test_a_value_that_equals_the_last_one_is_a_change(ends):
    tx, rx = ends
    tx.send(0)
    assert rx.has_changed()


def test_send_without_receivers_is_refused_and_stores_nothing():
    tx, rx = watch(1)
    rx.close()
    with pytest.raises(ChannelClosed, match="no receiver") as caught:
        tx.send(2)
    assert caught.value.refused == (2,)
    assert not isinstance(caught.value, HandleClosed)
    assert tx.borrow() == 1
    tx.close()


def test_send_replace_gives_the_old_value_also_without_receivers():
    tx, rx = watch(1)
    assert tx.send_replace(2) == 1
    rx.close()
    assert tx.send_replace(3) == 2
    assert tx.borrow() == 3
    tx.close()


def test_subscribing_opens_the_channel_again():
    tx, rx = watch(1)
    rx.close()
    assert tx.is_closed
    tx.send_replace(2)
    with tx, tx.subscribe() as late:
        assert not tx.is_closed
        assert not late.has_changed()
        assert late.borrow() == 2
        tx.send(3)
        assert late.has_changed()


def test_send_modify_makes_the_new_value_of_the_old_one(ends):
    tx, rx = ends
    tx.send_modify(lambda count: count + 1)
    assert rx.has_changed()
    assert rx.borrow_and_update() == 1
    tx.send_modify(lambda count: count)
    assert rx.has_changed()


def test_send_if_modified_tells_nobody_of_a_value_that_is_or_equals_the_old_one(ends):
    tx, rx = ends
    assert not tx.send_if_modified(lambda count: count)
    assert not tx.send_if_modified(float)
    assert type(rx.borrow()) is int
    assert not rx.has_changed()
    assert tx.send_if_modified(lambda count: count + 1)
    assert rx.has_changed()


def test_an_object_that_cannot_be_compared_is_unmodified_when_it_is_the_same_and_else_the_callers_error():
    tx, rx = watch(Unequal())
    with tx, rx:
        assert not tx.send_if_modified(lambda value: value)
        with pytest.raises(ValueError, match="neither true nor false"):
            tx.send_if_modified(lambda value: Unequal())
        assert not rx.has_changed()


@pytest.mark.parametrize("method", ["send_modify", "send_if_modified"])
def test_a_function_that_raises_changes_nothing(ends, method):
    tx, rx = ends
    with pytest.raises(ZeroDivisionError):
        getattr(tx, method)(lambda count: 1 // count)
    assert not rx.has_changed()
    assert tx.borrow() == 0


@pytest.mark.parametrize("method", ["send_modify", "send_if_modified"])
def test_a_function_that_was_overtaken_is_called_again_and_nothing_is_lost(ends, method):
    tx, rx = ends
    seen = []

    def add_ten(count):
        seen.append(count)
        if count == 0:
            tx.send(1)  # somebody else, in between
        return count + 10

    getattr(tx, method)(add_ten)
    assert seen == [0, 1]
    assert rx.borrow() == 11


def test_a_function_may_use_the_channel_itself(ends):
    tx, rx = ends
    tx.send_modify(lambda count: count + tx.receiver_count + rx.borrow())
    assert rx.borrow() == 1


@pytest.mark.parametrize("function", [None, 3, asyncio.sleep])
def test_what_is_no_plain_function_is_refused(ends, function):
    tx, rx = ends
    for call in (tx.send_modify, tx.send_if_modified, rx.blocking_wait_for):
        with pytest.raises(TypeError, match=r"^(function|predicate) must be a"):
            call(function)


async def test_a_predicate_that_is_no_plain_function_is_refused(ends):
    _, rx = ends
    with pytest.raises(TypeError, match=r"^predicate must be a plain function"):
        await rx.wait_for(asyncio.sleep)


def test_a_replaced_value_is_let_go_of_outside_of_the_lock():
    class Value:
        def __init__(self, tx=None):
            self.tx = tx

        def __del__(self):
            if self.tx is not None:
                locked.append(self.tx._core.section._depth)

    locked = []
    tx, rx = watch(None)
    with tx, rx:
        tx.send(Value(tx))
        tx.send(Value())
        gc.collect()
        assert locked == [0]


def test_values_that_nobody_has_seen_are_not_kept():
    class Value:
        pass

    tx, rx = watch(None)
    with tx, rx:
        tx.send(value := Value())
        dead = weakref.ref(value)
        tx.send(None)
        del value
        gc.collect()
        assert dead() is None


# ------------------------------------------------------------------ receiving


async def test_changed_returns_at_once_for_a_value_that_was_not_seen_and_marks_it(ends):
    tx, rx = ends
    tx.send(1)
    step(rx.changed()).assert_ready()
    assert not rx.has_changed()


async def test_changed_waits_for_the_next_value_when_all_are_seen(ends):
    tx, rx = ends
    waiting = step(rx.changed())
    waiting.assert_pending()
    tx.send(1)
    assert waiting.is_woken
    waiting.assert_ready()
    assert not rx.has_changed()
    assert rx.borrow() == 1


async def test_values_in_between_are_skipped_and_what_came_while_it_was_woken_is_seen_with_the_rest(ends):
    tx, rx = ends
    waiting = step(rx.changed())
    waiting.assert_pending()
    for value in (1, 2, 3):
        tx.send(value)
    waiting.assert_ready()
    assert rx.borrow() == 3
    assert not rx.has_changed()


async def test_a_cancelled_changed_has_marked_nothing_also_when_it_had_been_woken(ends):
    tx, rx = ends
    task = asyncio.create_task(rx.changed())
    await asyncio.sleep(0)
    tx.send(1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert rx.has_changed()
    step(rx.changed()).assert_ready()


async def test_borrow_marks_nothing_and_the_marks_can_be_set_by_hand(ends):
    tx, rx = ends
    tx.send(1)
    rx.borrow()
    assert rx.has_changed()
    rx.mark_unchanged()
    assert not rx.has_changed()
    rx.mark_changed()
    assert rx.has_changed()
    step(rx.changed()).assert_ready()


async def test_mark_changed_wakes_who_waits_on_that_receiver(ends):
    _, rx = ends
    waiting = step(rx.changed())
    waiting.assert_pending()
    rx.mark_changed()
    waiting.assert_ready()


async def test_each_receiver_has_its_own_mark_and_a_clone_begins_with_that_of_the_original(ends):
    tx, rx = ends
    tx.send(1)
    with rx.clone() as clone, tx.subscribe() as late:
        assert clone.has_changed()
        assert not late.has_changed()
        clone.borrow_and_update()
        assert rx.has_changed()
        with clone.clone() as again:
            assert not again.has_changed()


async def test_one_send_wakes_all_receivers_in_the_order_in_which_they_came(ends):
    tx, rx = ends
    order = []

    async def wait(name, mine):
        with mine:
            await mine.changed()
            order.append(name)

    tasks = [asyncio.create_task(wait(name, rx.clone())) for name in range(5)]
    await asyncio.sleep(0)
    tx.send(1)
    await asyncio.wait(tasks)
    assert order == [0, 1, 2, 3, 4]


async def test_of_those_who_share_a_receiver_one_gets_each_value_and_the_next_one_if_it_is_cancelled(ends):
    tx, rx = ends
    first, second = asyncio.create_task(rx.changed()), asyncio.create_task(rx.changed())
    await asyncio.sleep(0)
    tx.send(1)
    first.cancel()
    await second
    assert first.cancelled()
    assert not rx.has_changed()


async def test_wait_for_looks_at_the_newest_value_first_seen_or_not(ends):
    tx, rx = ends
    assert step(rx.wait_for(lambda value: value == 0)).assert_ready() == 0
    waiting = step(rx.wait_for(lambda value: value > 1))
    for value in (1, 2):
        waiting.assert_pending()
        tx.send(value)
    assert waiting.assert_ready() == 2
    assert not rx.has_changed()


async def test_an_error_of_the_predicate_is_the_callers_and_the_receiver_goes_on(ends):
    tx, rx = ends
    waiting = step(rx.wait_for(lambda value: value and 1 // (value - 1)))
    waiting.assert_pending()
    tx.send(1)
    with pytest.raises(ZeroDivisionError):
        waiting.poll().unwrap()
    tx.send(2)
    await rx.changed()


async def test_the_predicate_runs_without_the_lock_and_may_send(ends):
    tx, rx = ends

    def until_three(value):
        if value < 3:
            tx.send(value + 1)
        return value == 3

    assert await rx.wait_for(until_three) == 3


async def test_a_receiver_that_always_has_something_lets_others_run_once_in_a_while(ends):
    _, rx = ends
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    for _ in range(3 * BUDGET):
        rx.mark_changed()
        await rx.changed()
    task.cancel()
    assert 2 <= turns <= 5


# ------------------------------------------------------------------ closing


async def test_the_last_value_is_seen_before_the_end():
    tx, rx = watch(0)
    with rx:
        tx.send(1)
        tx.close()
        assert rx.has_changed()
        await rx.changed()
        assert not rx.has_changed()
        with pytest.raises(ChannelClosed) as caught:
            await rx.changed()
        assert type(caught.value) is ChannelClosed
        assert rx.borrow() == 1


async def test_closing_the_last_sender_wakes_everybody_who_waits():
    tx, mine = watch(0)
    with mine, mine.clone() as other, tx.clone() as second:
        tasks = [asyncio.create_task(mine.changed()), asyncio.create_task(other.wait_for(bool))]
        await asyncio.sleep(0)
        tx.close()
        await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)
        second.close()
        for task in tasks:
            with pytest.raises(ChannelClosed):
                await task


async def test_the_end_has_the_cause_that_came_first():
    tx, rx = watch(0)
    first = LookupError("no more")
    with rx:
        other = tx.clone()
        tx.close(first)
        other.close(KeyError("later"))
        for _ in range(2):
            with pytest.raises(ChannelClosed) as caught:
                await rx.changed()
            assert caught.value.__cause__ is first


def test_a_cause_must_be_an_exception(ends):
    with pytest.raises(TypeError, match="cause"):
        ends[0].close("because")


async def test_closing_a_receiver_ends_its_own_calls_and_no_others(ends):
    tx, rx = ends
    other = rx.clone()
    mine, theirs = step(rx.changed()), step(other.changed())
    mine.assert_pending()
    theirs.assert_pending()
    rx.close()
    with pytest.raises(HandleClosed):
        mine.poll().unwrap()
    assert not theirs.is_woken
    tx.send(1)
    theirs.assert_ready()
    other.close()


async def test_an_end_that_was_closed_refuses_everything():
    tx, rx = watch(0)
    clone_tx, clone_rx = tx.clone(), rx.clone()
    for end in (tx, rx):
        end.close()
        end.close()
        assert end.is_closed
    for call in (
        tx.clone, tx.subscribe, tx.borrow, rx.clone, rx.borrow, rx.borrow_and_update, rx.has_changed,
        partial(tx.send_modify, int), partial(tx.send_if_modified, int),
    ):  # fmt: skip
        with pytest.raises(HandleClosed):
            call()
    for send in (tx.send, tx.send_replace):
        with pytest.raises(HandleClosed) as caught:
            send("x")
        assert caught.value.refused == ("x",)
    for wait in (rx.changed, partial(rx.wait_for, bool), rx.__anext__):
        with pytest.raises(HandleClosed):
            await wait()
    assert not clone_tx.is_closed
    assert not clone_rx.is_closed
    assert clone_tx.borrow() == 0
    assert (clone_tx.sender_count, clone_tx.receiver_count) == (1, 1)
    clone_tx.close()
    clone_rx.close()


@pytest.mark.parametrize("which", ["senders", "receivers"])
async def test_closed_returns_when_one_side_has_gone(which):
    tx, rx = watch(0)
    waiting = [step(tx.closed()), step(rx.closed())]
    for each in waiting:
        each.assert_pending()
    tx.send(1)
    assert not any(each.is_woken for each in waiting)
    (tx if which == "senders" else rx).close()
    for each in waiting:
        each.assert_ready()
    step(tx.closed()).assert_ready()
    tx.close()
    rx.close()


async def test_a_closed_that_was_cancelled_is_forgotten(ends):
    tx, _ = ends
    task = asyncio.create_task(tx.closed())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert not tx._core.waiters


def test_a_dropped_end_closes_and_says_where():
    tx, rx = watch(0)
    with (
        tx,
        pytest.warns(ResourceWarning, match=r"<WatchReceiver open, .*made at .*test_watch.py:\d+ in test_a_dropped"),
    ):
        del rx
        gc.collect()
    assert tx.receiver_count == 0
    tx, rx = watch(0)
    with rx, pytest.warns(ResourceWarning, match=r"<WatchSender open, .*test_watch.py"):
        del tx
        gc.collect()
    assert rx.is_closed


async def test_a_dropped_sender_wakes_who_waits():
    tx, rx = watch(0)
    with rx:
        waiting = step(rx.changed())
        waiting.assert_pending()
        with pytest.warns(ResourceWarning):
            del tx
            gc.collect()
        with pytest.raises(ChannelClosed):
            waiting.poll().unwrap()


async def test_each_end_that_is_open_is_a_leak():
    with pytest.raises(LeakError) as caught, no_leaks():
        tx, rx = watch(0)
    tx.close()
    rx.close()
    assert len(caught.value.leaks) == 2


def test_a_repr_shows_the_state():
    tx, rx = watch(0)
    with tx.clone() as other:
        assert "WatchSender open, version 0, 1 receiving" in repr(tx)
        tx.send(1)
        assert "WatchReceiver open, version 1 not seen" in repr(rx)
        rx.borrow_and_update()
        assert "WatchReceiver open, version 1 seen" in repr(rx)
        rx.close()
        assert "WatchReceiver closed" in repr(rx)
        assert "WatchSender without receivers" in repr(tx)
        tx.close()
        assert "WatchSender closed" in repr(tx)
        with other.subscribe() as late:
            other.close()
            assert "WatchReceiver of a closed channel" in repr(late)


def test_ends_of_one_channel_know_each_other(ends):
    tx, rx = ends
    other, its = watch(0)
    with other, its, tx.clone() as clone:
        assert tx.same_channel(rx)
        assert rx.same_channel(clone)
        assert not tx.same_channel(other)
        assert isinstance(tx, WatchSender)
        assert isinstance(rx, WatchReceiver)


# ------------------------------------------------------------------ iterating


async def test_iterating_gives_the_newest_value_then_each_change_none_twice_and_ends_with_the_last_sender():
    tx, rx = watch(0)
    got = []

    async def watching():
        async with rx:
            async for value in rx:
                got.append(value)

    tx.send(1)
    task = asyncio.create_task(watching())
    tx.send(2)  # between the making and the first step
    await asyncio.sleep(0)
    assert got == [2]
    for value in (3, 4):
        tx.send(value)
    await asyncio.sleep(0)
    tx.send(5)
    tx.close()
    await task
    assert got == [2, 4, 5]


async def test_iterating_over_a_channel_that_was_closed_with_a_cause_ends_with_it():
    tx, rx = watch(0)
    tx.close(LookupError("no more"))
    got = []
    with rx:
        with pytest.raises(ChannelClosed) as caught:
            async for value in rx:
                got.append(value)
        assert isinstance(caught.value.__cause__, LookupError)
    assert got == [0]


# ------------------------------------------------------------------ as one of several things to wait for


async def test_as_a_selectable_it_gives_the_newest_value_and_has_seen_it(ends):
    tx, rx = ends
    tx.send(1)
    assert await park(rx) == 1
    assert not rx.has_changed()
    waiting = step(park(rx))
    waiting.assert_pending()
    tx.send(2)
    tx.send(3)
    assert waiting.assert_ready() == 2
    assert rx.borrow_and_update() == 3


async def test_a_party_that_was_served_elsewhere_leaves_the_value_unseen(ends):
    tx, rx = ends
    party = TaskWaiter()
    branch = party.branch()
    rx.register(branch)
    assert party.hand("from elsewhere")
    tx.send(1)
    assert not branch.settled
    rx.withdraw(branch)
    assert rx.has_changed()


async def test_a_value_that_was_handed_out_and_comes_back_has_not_been_seen_unless_a_newer_one_was():
    tx, rx = watch(0)
    with tx, rx:
        for newer in (False, True):
            waiter = Waiter([None])
            rx.mark_unchanged()
            rx.register(waiter)
            tx.send("handed out")
            if newer:
                tx.send("newer")
                rx.borrow_and_update()
            assert waiter.settled
            rx.withdraw(waiter)
            assert rx.has_changed() is not newer


def test_whoever_is_woken_finds_the_value_marked_already(ends):
    """In another thread it goes on at once, and may see a newer one before whoever woke it has returned."""

    class Prompt(Waiter):
        def _wake(self):
            marked.append(not rx.has_changed())

    tx, rx = ends
    marked = []
    rx.register(Prompt([None]))
    tx.send(1)
    assert marked == [True]


async def test_as_a_selectable_it_raises_the_end():
    tx, rx = watch(0)
    with rx:
        waiting = step(park(rx))
        waiting.assert_pending()
        tx.close(LookupError("no more"))
        with pytest.raises(ChannelClosed) as caught:
            waiting.poll().unwrap()
        assert isinstance(caught.value.__cause__, LookupError)


# ------------------------------------------------------------------ threads


def test_a_thread_waits_for_a_change_for_so_long(ends):
    tx, rx = ends
    with pytest.raises(TimeoutError):
        rx.blocking_changed(timeout=0)
    with pytest.raises(TimeoutError, match="no such value within 0 seconds"):
        rx.blocking_wait_for(lambda value: value > 0, timeout=0)
    thread = threading.Thread(target=tx.send, args=(1,))
    thread.start()
    rx.blocking_changed()
    thread.join()
    assert rx.borrow() == 1
    tx.send(2)
    rx.blocking_changed(timeout=0)
    assert not rx.has_changed()
    assert rx.blocking_wait_for(lambda value: value == 2, timeout=0) == 2


def test_a_thread_waits_for_a_value_that_suits_and_iterates_to_the_end():
    tx, rx = watch(0)
    other = rx.clone()

    def send():
        with tx:
            for value in range(1, 50):
                tx.send(value)

    thread = threading.Thread(target=send)
    thread.start()
    with rx, other:
        assert rx.blocking_wait_for(lambda value: value >= 40, timeout=60) >= 40
        values = list(other)
        with pytest.raises(ChannelClosed):
            rx.blocking_wait_for(lambda value: value > 100)
    thread.join()
    assert values == sorted(set(values))
    assert values[-1] == 49


def test_iterating_in_a_thread_ends_with_the_cause():
    tx, rx = watch(0)
    tx.close(LookupError("no more"))
    with rx:
        values = iter(rx)
        assert next(values) == 0
        with pytest.raises(ChannelClosed):
            next(values)
    with pytest.raises(HandleClosed):
        next(iter(rx))


async def test_a_thread_that_runs_a_loop_is_refused_also_when_it_would_not_have_to_wait(ends):
    tx, rx = ends
    tx.send(1)
    for call in (rx.blocking_changed, partial(rx.blocking_wait_for, bool), iter(rx).__next__):
        with pytest.raises(RuntimeError, match="event loop"):
            call()
    assert rx.has_changed()


@pytest.mark.parametrize(("timeout", "error"), [("1", TypeError), (float("nan"), ValueError)])
def test_a_timeout_that_is_none_is_refused(ends, timeout, error):
    tx, rx = ends
    tx.send(1)
    for call in (rx.blocking_changed, partial(rx.blocking_wait_for, bool)):
        with pytest.raises(error, match="timeout"):
            call(timeout=timeout)


# ------------------------------------------------------------------ finalizers


def test_what_a_finalizer_sends_in_the_middle_of_another_call_comes_after_that_one(ends):
    tx, rx = ends
    section = tx._core.section

    def interrupted():
        assert tx.send_replace(10) == 10
        tx.send_modify(lambda value: value + 1)
        tx.send(20)
        assert tx.send_if_modified(lambda value: value + 2)
        assert rx.borrow() == 0
        tx._core.store(1)

    section.do(interrupted)
    assert rx.borrow() == 23


def test_a_change_that_a_finalizer_computes_in_the_middle_of_another_call_is_made_once(ends):
    tx, rx = ends
    tx._core.section.do(lambda: tx.send_modify(lambda value: value + 1))
    assert rx.borrow() == 1


def test_a_timeout_counts_also_while_there_is_always_another_value(ends):
    tx, rx = ends
    tx.send(1)
    looked = []

    def predicate(value):
        looked.append(value)
        tx.send(value + 1)
        return len(looked) > 1  # what would be seen after the time is over

    with pytest.raises(TimeoutError, match="no such value within 0 seconds"):
        rx.blocking_wait_for(predicate, timeout=0)
    assert looked == [1]


@pytest.mark.parametrize("make", [partial(channel, 1), partial(watch, 0), oneshot_channel, partial(spsc_buffer, 1)])
def test_an_end_cannot_be_copied_past_its_channel(make):
    for end in make():
        with end:
            for copied in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match="neither copied nor pickled"):
                    copied(end)
