"""One value, from one sender to one receiver."""

import asyncio
import gc
import sys
import threading
import warnings
import weakref

import pytest

from yamanote.channels import ChannelClosed, ChannelEmpty, HandleClosed, oneshot_channel
from yamanote.runtime import yield_now
from yamanote.testing import LeakError, no_leaks

CAUSE = LookupError("no such answer")


async def test_a_value_that_is_there_is_received_without_a_turn_of_the_loop():
    turns = []
    asyncio.get_running_loop().call_soon(turns.append, "turn")
    for value in (1, None, 0, "", ValueError("as a value"), (1,), [[]]):
        tx, rx = oneshot_channel()
        tx.send(value)
        assert await rx is value
    assert turns == []


async def test_who_waits_gets_the_value_when_it_is_sent():
    tx, rx = oneshot_channel()
    waiting = asyncio.ensure_future(rx.recv())
    await yield_now()
    tx.send("answer")
    assert await waiting == "answer"


def test_a_channel_is_made_and_used_without_a_loop():
    tx, rx = oneshot_channel()
    with pytest.raises(ChannelEmpty):
        rx.recv_nowait()
    assert not tx.is_closed
    assert not rx.is_closed
    tx.send(1)
    assert tx.is_closed
    assert not rx.is_closed  # there is something to receive
    assert rx.recv_nowait() == 1
    assert rx.is_closed


async def test_of_two_sends_in_one_turn_the_second_is_refused():
    tx, rx = oneshot_channel()
    waiting = asyncio.ensure_future(rx.recv())
    await yield_now()
    tx.send("first")
    with pytest.raises(HandleClosed) as caught:
        tx.send("second")
    assert caught.value.refused == ("second",)
    assert await waiting == "first"


async def test_a_receiver_survives_a_timeout_and_a_cancellation():
    tx, rx = oneshot_channel()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await rx
    waiting = asyncio.ensure_future(rx.recv())
    await yield_now()
    tx.send("late")
    waiting.cancel()  # in the very turn
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert not rx.is_closed
    assert await rx == "late"


async def test_of_several_calls_that_wait_the_first_gets_the_value_and_the_others_the_end():
    tx, rx = oneshot_channel()
    waiting = [asyncio.ensure_future(rx.recv()) for _ in range(3)]
    await yield_now()
    tx.send(1)
    first, *others = await asyncio.gather(*waiting, return_exceptions=True)
    assert first == 1
    assert [type(other) for other in others] == [HandleClosed, HandleClosed]


async def test_what_a_cancelled_call_was_handed_is_for_the_next_call():
    tx, rx = oneshot_channel()
    first = asyncio.ensure_future(rx.recv())
    await yield_now()
    tx.send(1)
    first.cancel()
    second = asyncio.ensure_future(rx.recv())  # begins after `first` has given it back
    assert await second == 1


async def test_a_value_is_received_once():
    tx, rx = oneshot_channel()
    tx.send(1)
    assert await rx == 1
    with pytest.raises(HandleClosed, match="received before"):
        await rx
    with pytest.raises(HandleClosed, match="received before"):
        rx.recv_nowait()


@pytest.mark.parametrize("parked", [True, False])
@pytest.mark.parametrize("cause", [None, CAUSE])
async def test_a_receiver_sees_that_the_sender_leaves_without_a_value(parked, cause):
    tx, rx = oneshot_channel()
    if parked:
        waiting = asyncio.ensure_future(rx.recv())
        await yield_now()
    tx.close(cause)
    tx.close(ValueError("too late"))
    if not parked:
        waiting = asyncio.ensure_future(rx.recv())
    with pytest.raises(ChannelClosed) as caught:
        await waiting
    assert type(caught.value) is ChannelClosed
    assert caught.value.__cause__ is cause
    assert rx.is_closed
    with pytest.raises(ChannelClosed):
        rx.recv_nowait()
    with pytest.raises(HandleClosed):
        tx.send(1)


async def test_a_sender_sees_that_the_receiver_leaves():
    tx, rx = oneshot_channel()
    watching = asyncio.ensure_future(tx.closed())
    await yield_now()
    assert not watching.done()
    rx.close()
    rx.close()
    await watching
    await tx.closed()
    assert tx.is_closed
    with pytest.raises(ChannelClosed) as caught:
        tx.send("unwanted")
    assert type(caught.value) is ChannelClosed
    assert caught.value.refused == ("unwanted",)


async def test_who_watches_learns_that_the_value_was_sent():
    tx, rx = oneshot_channel()
    watching = asyncio.ensure_future(tx.closed())
    given_up = asyncio.ensure_future(tx.closed())
    await yield_now()
    given_up.cancel()
    tx.send(1)
    await watching
    assert await rx == 1


async def test_calls_that_wait_end_when_their_receiver_is_closed():
    tx, rx = oneshot_channel()
    waiting = asyncio.ensure_future(rx.recv())
    await yield_now()
    rx.close()
    with pytest.raises(HandleClosed, match="was closed"):
        await waiting
    with pytest.raises(HandleClosed):
        rx.recv_nowait()
    tx.close()


def test_a_value_that_was_sent_before_the_receiver_was_closed_can_still_be_received():
    tx, rx = oneshot_channel()
    tx.send(1)
    rx.close()
    assert rx.is_closed
    assert rx.recv_nowait() == 1
    with pytest.raises(HandleClosed):
        rx.recv_nowait()


def test_a_value_that_was_not_received_goes_to_the_hook():
    undelivered = []
    tx, rx = oneshot_channel(undelivered=undelivered.append)
    tx.send(1)
    rx.close()
    assert undelivered == [1]
    with pytest.raises(HandleClosed):
        rx.recv_nowait()


async def test_a_value_that_comes_back_to_a_closed_receiver_goes_to_the_hook():
    undelivered = []
    tx, rx = oneshot_channel(undelivered=undelivered.append)
    waiting = asyncio.ensure_future(rx.recv())
    await yield_now()
    tx.send(1)
    rx.close()
    assert undelivered == []
    waiting.cancel()
    await asyncio.wait([waiting])
    assert undelivered == [1]


def test_a_value_that_was_received_does_not_go_to_the_hook():
    undelivered = []
    tx, rx = oneshot_channel(undelivered=undelivered.append)
    tx.send(1)
    assert rx.recv_nowait() == 1
    rx.close()
    assert undelivered == []


async def test_an_iteration_gives_the_value_and_ends():
    tx, rx = oneshot_channel()
    tx.send(1)
    assert [value async for value in rx] == [1]
    assert [value async for value in rx] == []
    tx, rx = oneshot_channel()
    tx.close()
    assert [value async for value in rx] == []
    tx, rx = oneshot_channel()
    tx.close(CAUSE)
    with pytest.raises(ChannelClosed):
        [value async for value in rx]
    rx.close()
    with pytest.raises(HandleClosed):
        [value async for value in rx]


def test_a_cause_that_is_no_exception_is_refused():
    tx, rx = oneshot_channel()
    with pytest.raises(TypeError, match="cause"):
        tx.close("why")
    assert not tx.is_closed
    tx.close()
    rx.close()


# ---------------------------------------------------------------- ends that were forgotten


def test_a_forgotten_sender_ends_the_channel_and_the_warning_names_its_line():
    tx, rx = oneshot_channel()
    line = sys._getframe().f_lineno - 1
    with pytest.warns(ResourceWarning, match=rf"OneshotSender open .*test_oneshot.py:{line} in test_a_forgotten"):
        del tx
        gc.collect()
    with pytest.raises(ChannelClosed):
        rx.recv_nowait()


@pytest.mark.parametrize("sent", [True, False])
def test_a_forgotten_receiver_ends_the_channel_and_what_it_held_goes_to_the_hook(sent):
    undelivered = []
    tx, rx = oneshot_channel(undelivered=undelivered.append)
    if sent:
        tx.send(1)
    with pytest.warns(ResourceWarning, match="OneshotReceiver"):
        del rx
        gc.collect()
    assert undelivered == [1] * sent
    assert tx.is_closed


async def test_ends_that_have_done_their_work_are_dropped_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tx, rx = oneshot_channel()
        tx.send(1)
        del tx
        assert await rx == 1
        del rx
        tx, rx = oneshot_channel()
        waiting = asyncio.ensure_future(rx.recv())
        await yield_now()
        tx.send(1)
        await waiting
        del tx, rx, waiting
        tx, rx = oneshot_channel()
        tx.close()
        del tx, rx
        tx, rx = oneshot_channel()
        rx.close()
        del tx, rx
        gc.collect()


def test_an_end_that_somebody_still_depends_on_is_a_leak():
    with pytest.raises(LeakError) as caught, no_leaks():
        tx, rx = oneshot_channel()
    assert len(caught.value.leaks) == 2
    with pytest.raises(LeakError, match="OneshotReceiver with a value"), no_leaks():
        other_tx, other_rx = oneshot_channel()
        other_tx.send(1)
    other_rx.close()
    rx.close()
    with no_leaks():
        other_tx, other_rx = oneshot_channel()
        other_tx.send(1)
        assert other_rx.recv_nowait() == 1
    assert repr(tx).startswith("<OneshotSender closed")


def test_blocks_close_the_ends():
    tx, rx = oneshot_channel()
    with tx, rx:
        pass
    assert tx.is_closed
    assert rx.is_closed


async def test_what_has_been_received_is_not_kept_alive():
    class Thing:
        pass

    alive = []
    for parked in (True, False):
        tx, rx = oneshot_channel()
        waiting = asyncio.ensure_future(rx.recv()) if parked else None
        await yield_now()
        thing = Thing()
        alive.append(weakref.ref(thing))
        tx.send(thing)
        del thing
        await (waiting or rx)
        del waiting
    await yield_now()
    assert [reference() for reference in alive] == [None, None]


# ---------------------------------------------------------------- threads


def test_a_thread_waits_for_a_value_from_another_thread():
    tx, rx = oneshot_channel()
    received = []
    thread = threading.Thread(target=lambda: received.append(rx.blocking_recv()))
    thread.start()
    tx.send(1)
    thread.join()
    assert received == [1]


def test_a_blocking_call_can_be_repeated_after_its_timeout():
    tx, rx = oneshot_channel()
    with pytest.raises(TimeoutError):
        rx.blocking_recv(timeout=0)
    tx.send(1)
    assert rx.blocking_recv(timeout=0) == 1


async def test_a_blocking_call_is_refused_on_a_loops_thread():
    tx, rx = oneshot_channel()
    with pytest.raises(RuntimeError, match="event loop"):
        rx.blocking_recv()
    tx.close()
    rx.close()


def test_of_everybody_who_sends_and_closes_at_once_exactly_one_decides():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for round_ in range(150):
            undelivered, accepted, received, refused = [], [], [], []
            tx, rx = oneshot_channel(undelivered=undelivered.append)
            start = threading.Barrier(4)

            def send(value, tx=tx, accepted=accepted, refused=refused, start=start):
                start.wait()
                try:
                    tx.send(value)
                    accepted.append(value)
                except ChannelClosed as closed:
                    refused.extend(closed.refused)

            def receive(rx=rx, received=received, start=start):
                start.wait()
                try:
                    received.append(asyncio.run(rx.recv()) if len(received) % 2 else rx.blocking_recv())
                except ChannelClosed:
                    pass

            def leave(rx=rx, tx=tx, round_=round_, start=start):
                start.wait()
                (rx if round_ % 3 else tx).close()

            threads = [
                threading.Thread(target=send, args=(1,)),
                threading.Thread(target=send, args=(2,)),
                threading.Thread(target=receive),
                threading.Thread(target=leave),
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            rx.close()
            assert len(accepted) <= 1
            assert sorted(received + undelivered) == accepted
            assert sorted(accepted + refused) == [1, 2]
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("wrong", [5, asyncio.sleep])
def test_a_hook_that_cannot_be_called_is_refused(wrong):
    with pytest.raises(TypeError, match="undelivered must be"):
        oneshot_channel(undelivered=wrong)
