"""Every order of the steps, and every cancellation, of a sender and a receiver of bytes; and wrong ones caught."""

import asyncio
import gc

import pytest

from yamanote.channels import ChannelClosed, HandleClosed, IncompleteRead, spsc_buffer
from yamanote.channels._bytes_handover import BytesHandover, Reading
from yamanote.testing import Counterexample, explore, explore_cancellations


class World:
    """One buffer of four bytes, and the account of what its tasks did."""

    def __init__(self):
        self.tx, self.rx = spsc_buffer(4)
        self.offered = b""
        self.received = b""
        self.rx_closed = False

    async def send_sizes(self, *sizes):
        for size in sizes:
            before = self.tx.sent
            data = bytes(range(before, before + size))
            try:
                await self.tx.send(data)
            except asyncio.CancelledError:
                accepted = self.tx.sent - before
                assert accepted in (0, size) or size > 4, "a part of what fits was sent"
                raise
            except ChannelClosed as closed:
                assert closed.refused == (data[self.tx.sent - before :],)
                return
            assert self.tx.sent == before + size

    async def send_small(self):
        await self.send_sizes(3, 2, 1, 4)

    async def send_large(self):
        await self.send_sizes(11, 1)

    async def receive(self):
        while True:
            try:
                self.received += await self.rx.recv(3)
            except ChannelClosed:
                return

    async def receive_exactly(self):
        while True:
            try:
                self.received += await self.rx.recv_exactly(5)
            except IncompleteRead as incomplete:
                self.received += incomplete.partial
            except ChannelClosed:
                return

    async def receive_some(self):
        try:
            self.received += await self.rx.recv_exactly(6)
        except IncompleteRead as incomplete:
            self.received += incomplete.partial
        except HandleClosed:
            raise
        except ChannelClosed:
            pass

    async def watch(self):
        await self.tx.closed()

    async def close_sender(self):
        await asyncio.sleep(0)
        self.tx.close()

    def judge(self):
        left = b""
        try:
            while True:
                left += self.rx.recv_nowait()
        except ChannelClosed:
            pass
        assert self.received + left == bytes(range(self.tx.sent)), "bytes were lost, came twice, or in another order"
        core = self.tx._core
        assert core.sender is core.receiver is None, "somebody is left over"
        assert not core.watchers
        assert core.ended


def cast(sender, receiver, *others, drop=False):
    async def scenario():
        world = World()
        tasks = [asyncio.create_task(getattr(world, role)(), name=role) for role in (sender, receiver, *others)]
        tasks[0].add_done_callback(lambda _: world.tx.close())
        if drop:
            tasks[1].add_done_callback(lambda _: world.rx.close())
        else:
            await asyncio.wait([tasks[1]])
            await world.receive()  # what a cancelled receiver has left
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()
        if drop:
            assert bytes(range(len(world.received))) == world.received
        else:
            world.judge()
        world.rx.close()

    return scenario


CASTS = {
    "small": cast("send_small", "receive"),
    "small, exactly": cast("send_small", "receive_exactly", "watch"),
    "large": cast("send_large", "receive"),
    "large, exactly": cast("send_large", "receive_exactly"),
    "the sender is closed": cast("send_large", "receive_exactly", "close_sender"),
    "the receiver leaves": cast("send_large", "receive_some", "watch", drop=True),
}

each_cast = pytest.mark.parametrize("name", CASTS)


@each_cast
def test_every_accepted_byte_arrives_in_order_in_any_order_of_the_steps(name):
    explore(CASTS[name], runs=60)


@each_cast
def test_every_accepted_byte_arrives_in_order_whoever_is_cancelled_whenever(name):
    explore_cancellations(CASTS[name], runs=100)


@each_cast
def test_every_accepted_byte_arrives_in_order_when_every_other_operation_lets_others_run_first(name, monkeypatch):
    monkeypatch.setattr("yamanote.channels._bytes.BUDGET", 1)
    explore(CASTS[name], runs=40)
    explore_cancellations(CASTS[name], runs=60)


def keeps_what_it_gathered(operation, waiter):
    core = operation._core
    if core.receiver is waiter:
        core.receiver = None
        core.receiving.append(None)


def puts_back_at_the_end(core, parts):
    if data := b"".join(parts):
        core.chunks.append(data)
        core.credits.append(-len(data))


def forgets_the_credit(core, most):
    data = take(core, most)
    if core.credits:
        core.credits.pop()
    return data


def ends_the_receiver_only(core):
    core.ended = True
    if core.sender is not None:
        core.receiver = None


def wakes_no_sender(core):
    return False


def sends_a_part_after_the_cancellation(core):
    waiter = core.sender
    rest = waiter.operation.rest
    if (room := core.window - core.sent) > 0:
        core.put(rest[:room])
    return serve_sender(core)


take = BytesHandover.take
serve_sender = BytesHandover._serve_sender

TEETH = [
    (Reading, "_give_up", keeps_what_it_gathered, explore_cancellations, "small, exactly"),
    (BytesHandover, "put_back", puts_back_at_the_end, explore_cancellations, "large, exactly"),
    (BytesHandover, "take", forgets_the_credit, explore, "large, exactly"),
    (BytesHandover, "_serve_sender", wakes_no_sender, explore, "small"),
    (BytesHandover, "_serve_sender", sends_a_part_after_the_cancellation, explore, "small"),
    (BytesHandover, "_shut", ends_the_receiver_only, explore, "the receiver leaves"),
]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(("kind", "method", "wrong", "explorer", "name"), TEETH)
def test_a_wrong_buffer_is_caught(kind, method, wrong, explorer, name, monkeypatch):
    monkeypatch.setattr(kind, method, wrong)
    with pytest.raises(Counterexample):
        explorer(CASTS[name], runs=300)
    gc.collect()
