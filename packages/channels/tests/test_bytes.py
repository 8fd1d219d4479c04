"""Bytes, from one sender to one receiver."""

import array
import asyncio
import gc
import random
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yamanote.channels import ChannelClosed, ChannelEmpty, ChannelFull, HandleClosed, IncompleteRead, spsc_buffer
from yamanote.channels._bytes_handover import Sending
from yamanote.runtime import Waiter, run, yield_now
from yamanote.testing import LeakError, no_leaks

CAUSE = ConnectionResetError("the other side is gone")


@pytest.fixture
def ends():
    tx, rx = spsc_buffer(8)
    with tx, rx:
        yield tx, rx


async def test_bytes_arrive_in_order_whatever_the_sizes_of_the_calls(ends):
    tx, rx = ends
    await tx.send(b"ab")
    await tx.send(b"cdef")
    assert len(rx) == len(tx) == 6
    assert await rx.recv(3) == b"abc"
    assert await rx.recv(1) == b"d"
    assert await rx.recv() == b"ef"
    assert tx.sent == 6


async def test_a_block_that_is_neither_split_nor_joined_is_not_copied(ends):
    tx, rx = ends
    block = bytes(8)
    await tx.send(block)
    assert await rx.recv(8) is block


def test_the_capacity_is_what_was_asked_for():
    for capacity in (1, 3, 5):
        tx, rx = spsc_buffer(capacity)
        with tx, rx:
            assert tx.send_nowait(bytes(10)) == capacity == tx.capacity
            with pytest.raises(ChannelFull) as caught:
                tx.send_nowait(b"x")
            assert caught.value.refused == (b"x",)


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_capacity_that_holds_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="capacity"):
        spsc_buffer(wrong)
    with pytest.raises(TypeError, match="capacity"):
        spsc_buffer(1.5)


async def test_a_sender_waits_for_room_and_the_receiver_lets_it_in(ends):
    tx, rx = ends
    await tx.send(bytes(6))
    waiting = asyncio.ensure_future(tx.send(b"abc"))
    await yield_now()
    assert await rx.recv(1) == b"\0"  # now it fits, and is in at once
    assert len(rx) == 8
    await waiting


async def test_data_beyond_the_capacity_goes_in_pieces(ends):
    tx, rx = ends
    data = bytes(range(100))
    waiting = asyncio.ensure_future(tx.send(data))
    await yield_now()
    assert len(rx) == 8
    received = b""
    while len(received) < 100:
        received += await rx.recv(7)
    assert received == data
    await waiting


async def test_a_cancelled_send_of_what_fits_the_buffer_has_sent_all_or_nothing(ends):
    tx, rx = ends
    await tx.send(bytes(6))
    waiting = asyncio.ensure_future(tx.send(b"abc"))
    await yield_now()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert tx.sent == 6
    await rx.recv()
    assert len(rx) == 0
    await tx.send(b"next")
    assert await rx.recv() == b"next"


async def test_after_a_cancelled_send_in_pieces_the_count_tells_how_far_it_came(ends):
    tx, rx = ends
    data = bytes(range(30))
    waiting = asyncio.ensure_future(tx.send(data))
    await yield_now()
    received = await rx.recv(3)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert tx.sent == 11
    received += await rx.recv()
    assert received == data[: tx.sent]


async def test_a_send_wakes_a_receiver_that_waits_also_without_waiting_itself(ends):
    tx, rx = ends
    waiting = asyncio.ensure_future(rx.recv())
    await yield_now()
    assert tx.send_nowait(b"ab") == 2
    assert await waiting == b"ab"


async def test_what_was_handed_out_does_not_change_whatever_is_sent_next(ends):
    tx, rx = ends
    source = bytearray(b"first")
    await tx.send(source)
    source[:] = b"secon"
    first = await rx.recv()
    await tx.send(b"second")
    await rx.recv()
    assert first == b"first"
    assert type(first) is bytes
    await tx.send(memoryview(b"abcdef")[1:3])
    assert await rx.recv(1) == b"b"
    await tx.send(array.array("H", [0x4141]))
    assert await rx.recv() == b"cAA"


async def test_receiving_exactly_waits_for_all_also_beyond_the_capacity(ends):
    tx, rx = ends
    waiting = asyncio.ensure_future(rx.recv_exactly(20))
    await tx.send(bytes(range(15)))
    await yield_now()
    assert not waiting.done()
    await tx.send(bytes(range(15, 25)))
    assert await waiting == bytes(range(20))
    assert await rx.recv() == bytes(range(20, 25))
    assert await rx.recv_exactly(0) == b""


async def test_a_cancelled_receive_gives_back_what_it_had_gathered(ends):
    tx, rx = ends
    waiting = asyncio.ensure_future(rx.recv_exactly(20))
    await tx.send(b"abcdefgh")
    await tx.send(b"ijkl")
    await yield_now()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert len(rx) == 12
    await tx.send(b"")  # that needs no room, though there is less than none
    with pytest.raises(ChannelFull):
        tx.send_nowait(b"m")
    assert await rx.recv() == b"abcdefghijkl"
    assert tx.send_nowait(bytes(10)) == 8


@pytest.mark.parametrize("exactly", [True, False])
async def test_what_was_handed_to_a_cancelled_call_is_received_next(ends, exactly):
    tx, rx = ends
    waiting = asyncio.ensure_future(rx.recv_exactly(4) if exactly else rx.recv(4))
    await yield_now()
    await tx.send(b"abcdef")
    waiting.cancel()  # in the very turn
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert await rx.recv() == b"abcdef"


async def test_a_rest_that_a_cancelled_call_was_told_of_is_received_next(ends):
    tx, rx = ends
    waiting = asyncio.ensure_future(rx.recv_exactly(4))
    await yield_now()
    await tx.send(b"ab")
    tx.close()
    waiting.cancel()  # in the very turn
    await asyncio.wait([waiting])
    assert await rx.recv() == b"ab"
    with pytest.raises(ChannelClosed):
        await rx.recv()


@pytest.mark.parametrize("parked", [True, False])
async def test_what_is_left_is_handed_out_before_the_end_is_told(ends, parked):
    tx, rx = ends
    if parked:
        waiting = asyncio.ensure_future(rx.recv_exactly(5))
        await yield_now()
    await tx.send(b"tail")
    tx.close(CAUSE)
    assert parked or not rx.is_closed
    if not parked:
        waiting = asyncio.ensure_future(rx.recv_exactly(5))
    with pytest.raises(IncompleteRead) as caught:
        await waiting
    assert (caught.value.partial, caught.value.expected) == (b"tail", 5)
    assert caught.value.__cause__ is CAUSE
    assert rx.is_closed
    for receive in (rx.recv(), rx.recv_exactly(5)):
        with pytest.raises(ChannelClosed) as caught:
            await receive
        assert type(caught.value) is ChannelClosed
        assert caught.value.__cause__ is CAUSE
    with pytest.raises(ChannelClosed):
        rx.recv_nowait()


async def test_a_receiver_fills_the_buffer_that_it_is_given(ends):
    tx, rx = ends
    await tx.send(b"abcdef")
    buffer = bytearray(4)
    assert await rx.recv_into(buffer) == 4
    assert buffer == b"abcd"
    assert await rx.recv_into(memoryview(buffer)[1:]) == 2
    assert buffer == b"aefd"
    with pytest.raises(TypeError, match="writable"):
        await rx.recv_into(b"ab")
    with pytest.raises(ValueError, match="empty"):
        await rx.recv_into(bytearray())


async def test_nonsense_is_refused_at_the_call(ends):
    tx, rx = ends
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="limit"):
            await rx.recv(wrong)
        with pytest.raises(ValueError, match="limit"):
            rx.recv_nowait(wrong)
    with pytest.raises(ValueError, match="count"):
        await rx.recv_exactly(-1)
    for wrong in (True, "1", 1.5):
        with pytest.raises(TypeError, match="limit"):
            await rx.recv(wrong)
        with pytest.raises(TypeError, match="count"):
            await rx.recv_exactly(wrong)
    for wrong in ("text", 5, None):
        with pytest.raises(TypeError):
            await tx.send(wrong)
    with pytest.raises(TypeError, match="cause"):
        tx.close("why")
    with pytest.raises(ChannelEmpty):
        rx.recv_nowait()


async def test_sending_nothing_sends_nothing(ends):
    tx, rx = ends
    await tx.send(b"")
    assert tx.send_nowait(b"") == 0
    await tx.send(bytes(8))
    await tx.send(b"")
    assert tx.send_nowait(b"") == 0
    assert await rx.recv() == bytes(8)
    rx.close()
    with pytest.raises(ChannelClosed):
        await tx.send(b"")


async def test_a_second_call_on_an_end_is_refused_and_disturbs_nothing(ends):
    tx, rx = ends
    receiving = asyncio.ensure_future(rx.recv_exactly(2))
    await yield_now()
    for call in (rx.recv(), rx.recv_exactly(1)):
        with pytest.raises(RuntimeError, match="one call at a time"):
            await call
    with pytest.raises(RuntimeError, match="one call at a time"):
        rx.recv_nowait()
    await tx.send(b"ab")
    assert await receiving == b"ab"
    await tx.send(bytes(8))
    sending = asyncio.ensure_future(tx.send(b"c"))
    await yield_now()
    with pytest.raises(RuntimeError, match="one call at a time"):
        await tx.send(b"d")
    with pytest.raises(RuntimeError, match="one call at a time"):
        tx.send_nowait(b"d")
    assert await rx.recv_exactly(9) == bytes(8) + b"c"
    await sending


async def test_closing_the_receiver_refuses_what_waits_for_room_and_what_comes(ends):
    tx, rx = ends
    watching = asyncio.ensure_future(tx.closed())
    waiting = asyncio.ensure_future(tx.send(bytes(range(10))))
    await yield_now()
    rx.close()
    rx.close()
    with pytest.raises(ChannelClosed) as caught:
        await waiting
    assert type(caught.value) is ChannelClosed
    assert caught.value.refused == (b"\x08\x09",)
    await watching
    await tx.closed()
    with pytest.raises(ChannelClosed) as caught:
        await tx.send(b"x")
    assert caught.value.refused == (b"x",)
    assert tx.is_closed
    with pytest.raises(HandleClosed):
        await rx.recv()
    with pytest.raises(HandleClosed):
        [chunk async for chunk in rx]


async def test_closing_the_sender_ends_its_own_call_and_keeps_what_was_accepted(ends):
    tx, rx = ends
    waiting = asyncio.ensure_future(tx.send(bytes(range(10))))
    await yield_now()
    tx.close()
    tx.close()
    with pytest.raises(HandleClosed) as caught:
        await waiting
    assert caught.value.refused == (b"\x08\x09",)
    with pytest.raises(HandleClosed):
        await tx.send(b"x")
    assert [chunk async for chunk in rx] == [bytes(range(8))]


async def test_closing_the_receiver_ends_its_own_call(ends):
    tx, rx = ends
    waiting = asyncio.ensure_future(rx.recv_exactly(3))
    await tx.send(b"ab")
    await yield_now()
    rx.close()
    with pytest.raises(HandleClosed):
        await waiting


async def test_an_iteration_ends_with_the_sender_and_raises_when_it_had_a_cause(ends):
    tx, rx = ends
    await tx.send(b"ab")
    tx.close(CAUSE)
    received = []
    with pytest.raises(ChannelClosed) as caught:
        async for chunk in rx:
            received.append(chunk)
    assert received == [b"ab"]
    assert caught.value.__cause__ is CAUSE


@pytest.mark.parametrize("kind", ["BytesSender", "BytesReceiver"])
async def test_a_forgotten_end_closes_the_buffer_and_the_warning_names_its_line(kind):
    tx, rx = spsc_buffer(8)
    line = sys._getframe().f_lineno - 1
    with pytest.warns(ResourceWarning, match=rf"<{kind} open, 0 of 8 bytes .*test_bytes.py:{line} in "):
        if kind == "BytesSender":
            del tx
        else:
            del rx
        gc.collect()
    if kind == "BytesSender":
        with pytest.raises(ChannelClosed):
            await rx.recv()
        rx.close()
    else:
        with pytest.raises(ChannelClosed):
            await tx.send(b"x")
        tx.close()


def test_each_end_that_is_open_is_a_leak():
    with pytest.raises(LeakError, match="BytesSender of a closed buffer, 0 of 8"), no_leaks():
        tx, rx = spsc_buffer(8)
        rx.close()
    tx.close()
    assert repr(tx).startswith("<BytesSender closed")


async def test_a_busy_pair_lets_others_run():
    tx, rx = spsc_buffer(1000)
    turns = []

    async def bystander():
        while True:
            turns.append(1)
            await yield_now()

    with tx, rx:
        task = asyncio.ensure_future(bystander())
        for _ in range(300):
            await tx.send(b"x")
        for _ in range(300):
            await rx.recv(1)
        task.cancel()
    assert len(turns) >= 4


# ---------------------------------------------------------------- a model


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.sampled_from(["send", "recv", "exactly"]), st.integers(0, 15)), max_size=40),
)
def test_it_does_what_a_string_of_bytes_would(capacity, steps):
    async def main():
        tx, rx = spsc_buffer(capacity)
        content, total = b"", 0
        with tx, rx:
            for kind, size in steps:
                if kind == "send":
                    data = bytes((total + index) % 251 for index in range(size))
                    room = capacity - len(content)
                    try:
                        accepted = tx.send_nowait(data)
                    except ChannelFull:
                        accepted = 0
                        assert data
                        assert not room
                    assert accepted == min(size, room)
                    content += data[:accepted]
                    total += accepted
                elif kind == "recv" and size:
                    try:
                        data = rx.recv_nowait(size)
                    except ChannelEmpty:
                        data = b""
                    assert data == content[:size]
                    content = content[size:]
                elif size <= len(content):
                    assert await rx.recv_exactly(size) == content[:size]
                    content = content[size:]
                assert len(rx) == len(content)
                assert tx.sent == total

    run(main())


# ---------------------------------------------------------------- threads


def test_blocking_calls_wait_in_threads_and_time_out():
    tx, rx = spsc_buffer(4)
    with pytest.raises(TimeoutError):
        rx.blocking_recv(timeout=0)
    with pytest.raises(TimeoutError):
        rx.blocking_recv_exactly(2, timeout=0)
    assert rx.blocking_recv_exactly(0) == b""
    tx.blocking_send(b"abcd", timeout=0)
    with pytest.raises(TimeoutError):
        tx.blocking_send(b"e", timeout=0)
    assert rx.blocking_recv(3) == b"abc"
    tx.blocking_send(b"e")
    assert rx.blocking_recv_exactly(2) == b"de"
    tx.close()
    rx.close()


async def test_blocking_calls_are_refused_on_a_loops_thread(ends):
    tx, rx = ends
    for call in (lambda: tx.blocking_send(b""), rx.blocking_recv, lambda: rx.blocking_recv_exactly(0)):
        with pytest.raises(RuntimeError, match="event loop"):
            call()


@pytest.mark.parametrize("sender", ["thread", "loop"])
@pytest.mark.parametrize("receiver", ["thread", "loop"])
@pytest.mark.parametrize("capacity", [1, 7, 64])
def test_every_byte_arrives_in_order_between_threads_and_loops(sender, receiver, capacity):
    tx, rx = spsc_buffer(capacity)
    chance = random.Random(capacity)
    data = chance.randbytes(3000)
    sizes = [chance.randrange(1, 100) for _ in range(3000)]
    received, errors = [], []

    def pieces():
        start = 0
        for size in sizes:
            yield data[start : start + size]
            start += size
            if start >= len(data):
                return

    def send_blocking():
        with tx:
            for piece in pieces():
                tx.blocking_send(piece)

    async def send():
        async with tx:
            for piece in pieces():
                await tx.send(piece)

    def receive_blocking():
        with rx:
            received.extend(rx)

    async def receive():
        async with rx:
            async for chunk in rx:
                received.append(chunk)

    def body(work):
        try:
            result = work()
            if result is not None:
                asyncio.run(result)
        except BaseException as error:
            errors.append(error)

    works = [send_blocking if sender == "thread" else send, receive_blocking if receiver == "thread" else receive]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=body, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not errors
    assert b"".join(received) == data


def test_what_was_accepted_before_a_close_from_another_thread_is_received():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(60):
            tx, rx = spsc_buffer(16)
            received = []

            def send(tx=tx):
                try:
                    while True:
                        tx.blocking_send(b"abc")
                except HandleClosed:
                    pass

            def receive(rx=rx, received=received):
                received.extend(rx)

            threads = [threading.Thread(target=send), threading.Thread(target=receive)]
            for thread in threads:
                thread.start()
            tx.close()
            for thread in threads:
                thread.join()
            assert len(b"".join(received)) == tx.sent
            rx.close()
    finally:
        sys.setswitchinterval(before)


def test_a_call_that_found_no_room_is_served_though_another_has_counted_the_room_that_was_made_since(ends):
    tx, rx = ends
    tx.send_nowait(b"12345678")
    with pytest.raises(ChannelFull):
        tx.send_nowait(b"ab")
    # In another thread, before the call parks:
    rx.recv_nowait()
    tx.send_nowait(b"")
    waiter = Waiter([None])
    Sending(tx._core, b"ab").register(waiter)
    assert waiter.settled
    assert rx.recv_nowait() == b"ab"
