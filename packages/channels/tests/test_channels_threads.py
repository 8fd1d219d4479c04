"""One channel, used at once by tasks of several loops and by plain threads."""

import asyncio
import random
import sys
import threading
from functools import partial

import pytest

from yamanote.channels import ChannelClosed, ChannelEmpty, ChannelFull, channel, channel_unbounded
from yamanote.runtime import yield_now

from .test_channels_preempted import Bench


@pytest.fixture(autouse=True)
def _switch_threads_as_often_as_possible():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Crew:
    """Threads that start together, and whose errors reach the test."""

    def __init__(self) -> None:
        self.works = []
        self.errors = []

    def thread(self, work, *args) -> None:
        self.works.append(lambda: work(*args))

    def loop(self, work, *args) -> None:
        self.works.append(lambda: asyncio.run(work(*args)))

    def run(self) -> None:
        start = threading.Barrier(len(self.works))

        def body(work) -> None:
            try:
                start.wait()
                work()
            except BaseException as error:
                self.errors.append(error)

        threads = [threading.Thread(target=body, args=(work,)) for work in self.works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.errors:
            raise ExceptionGroup("in the crew", self.errors)


each_kind = pytest.mark.parametrize("capacity", [0, 1, 3, 100, None], ids="capacity {}".format)


def make(capacity, **hook):
    return channel_unbounded(**hook) if capacity is None else channel(capacity, **hook)


@each_kind
@pytest.mark.parametrize("senders", ["threads", "loops", "both"])
@pytest.mark.parametrize("receivers", ["threads", "loops", "both"])
def test_every_item_arrives_once_and_in_the_order_of_its_sender(capacity, senders, receivers):
    tx, rx = make(capacity)
    count = 150
    received = {}
    crew = Crew()

    def send_blocking(name, mine):
        with mine:
            for number in range(count):
                mine.blocking_send((name, number))

    async def send(name, mine):
        async with mine:
            for number in range(count):
                await mine.send((name, number))

    def receive_blocking(name, mine):
        with mine:
            received[name] = list(mine)

    async def receive(name, mine):
        async with mine:
            received[name] = [item async for item in mine]

    sides = {"threads": ("thread", "thread"), "loops": ("loop", "loop"), "both": ("thread", "loop")}
    for name, kind in enumerate(sides[senders]):
        getattr(crew, kind)(send_blocking if kind == "thread" else send, name, tx.clone())
    for name, kind in enumerate(sides[receivers]):
        getattr(crew, kind)(receive_blocking if kind == "thread" else receive, name, rx.clone())
    tx.close()
    rx.close()
    crew.run()

    assert sorted(item for items in received.values() for item in items) == sorted(
        (name, number) for name in range(2) for number in range(count)
    )
    for items in received.values():
        for name in range(2):
            numbers = [number for sender, number in items if sender == name]
            assert numbers == sorted(numbers)


@each_kind
def test_what_was_accepted_is_received_or_undelivered_whenever_the_receivers_close(capacity):
    for seed in range(25):
        chance = random.Random(seed)
        undelivered, accepted, refused, received = [], [], [], []
        tx, rx = make(capacity, undelivered=undelivered.append)
        crew = Crew()

        def send_blocking(mine, start, accepted=accepted, refused=refused):
            with mine:
                for item in range(start, start + 60):
                    try:
                        mine.blocking_send(item)
                    except ChannelClosed as closed:
                        refused += closed.refused
                        return
                    accepted.append(item)

        async def send(mine, start, accepted=accepted, refused=refused):
            async with mine:
                for item in range(start, start + 60):
                    try:
                        await mine.send(item)
                    except ChannelClosed as closed:
                        refused += closed.refused
                        return
                    accepted.append(item)

        def receive_some(mine, count, received=received):
            with mine:
                for item in mine:
                    received.append(item)
                    if not (count := count - 1):
                        return

        crew.thread(send_blocking, tx.clone(), 0)
        crew.loop(send, tx.clone(), 1000)
        crew.thread(receive_some, rx.clone(), chance.randrange(1, 60))
        crew.thread(receive_some, rx.clone(), chance.randrange(1, 60))
        tx.close()
        rx.close()
        crew.run()

        assert sorted(accepted) == sorted(received + undelivered), f"seed {seed}"
        assert not set(refused) & set(accepted)
        assert tx._core.parked == tx._core.parked_receivers == 0


@each_kind
def test_a_shutdown_in_full_swing_loses_nothing_that_was_accepted(capacity):
    for _ in range(25):
        accepted, received, undelivered = [], [], []
        tx, rx = make(capacity, undelivered=undelivered.append)
        crew = Crew()

        def send(mine, start, accepted=accepted):
            with mine:
                for item in range(start, start + 50):
                    try:
                        mine.blocking_send(item)
                    except ChannelClosed:
                        return
                    accepted.append(item)

        def shut(mine, received=received):
            with mine:
                for item in mine:
                    received.append(item)
                    if len(received) == 20:
                        mine.shutdown()

        crew.thread(send, tx.clone(), 0)
        crew.thread(send, tx.clone(), 1000)
        crew.thread(shut, rx.clone())
        tx.close()
        rx.close()
        crew.run()
        # A send that was under way all the while may come after the end; then the hook has it.
        assert sorted(accepted) == sorted(received + undelivered)


@each_kind
def test_cancelling_receivers_in_full_swing_loses_nothing(capacity):
    tx, rx = make(capacity)
    received, count = [], 150
    crew = Crew()

    def send(mine):
        with mine:
            for item in range(count):
                mine.blocking_send(item)

    async def receive(mine, seed):
        chance = random.Random(seed)

        async def forever():
            while True:
                received.append(await mine.recv())

        async with mine:
            while True:
                task = asyncio.create_task(forever())
                for _ in range(chance.randrange(5)):
                    await yield_now()
                task.cancel()
                (outcome,) = await asyncio.gather(task, return_exceptions=True)
                if isinstance(outcome, ChannelClosed):
                    return

    crew.thread(send, tx.clone())
    crew.loop(receive, rx.clone(), 1)
    crew.loop(receive, rx.clone(), 2)
    tx.close()
    crew.run()
    while True:  # what came back after the other receiver had seen the end
        try:
            received.append(rx.recv_nowait())
        except (ChannelClosed, ChannelEmpty):
            break
    rx.close()
    assert sorted(received) == list(range(count))


@pytest.mark.parametrize("capacity", [1, 3, 100, None], ids="capacity {}".format)  # at 0, two calls happen as one
def test_what_threads_and_loops_see_at_once_could_have_happened_one_after_the_other(capacity):
    def work(bench, seed, *, closes):
        chance = random.Random(seed)
        for _ in range(8):
            chance.choice([bench.send_nowait, bench.blocking_send, bench.recv_nowait, bench.blocking_recv])()
        if closes:
            bench.close_sender()

    async def send(bench):
        for _ in range(4):
            item = next(bench.items)
            with bench.history.calling("send", item):
                try:
                    await bench.tx.send(item)
                except ChannelClosed:
                    raise ChannelClosed("it or its handle") from None

    async def receive(bench):
        end = False
        while not end:
            with bench.history.calling("recv") as call:
                call.result = await bench.rx.recv()
            end = call.result is ChannelClosed

    for seed in range(15):
        bench = Bench(capacity, "empty", crowded=True)
        crew = Crew()
        crew.thread(partial(work, closes=False), bench, seed)
        crew.thread(partial(work, closes=True), bench, -seed)
        crew.loop(send, bench)
        crew.loop(receive, bench)
        crew.run()
        bench.check()


async def test_what_a_cancelled_call_gives_back_is_there_before_the_call_has_ended():
    """Also while another thread is busy matching: otherwise the next call could get the item behind."""
    tx, rx = channel_unbounded()
    inside, go_on = threading.Event(), threading.Event()

    def stay():
        with tx._core.section:
            inside.set()
            go_on.wait()

    with tx, rx:
        receiving = rx.recv()
        receiving.send(None)
        tx.send_nowait("a")
        tx.send_nowait("b")
        thread = threading.Thread(target=stay)
        thread.start()
        inside.wait()
        threading.Timer(0.01, go_on.set).start()
        receiving.close()
        assert [rx.recv_nowait(), rx.recv_nowait()] == ["a", "b"]
        thread.join()


def test_the_capacity_holds_exactly_among_threads():
    tx, rx = channel(5)
    most, accepted, full = [], [], []
    crew = Crew()

    def send(mine):
        with mine:
            for item in range(2000):
                try:
                    mine.send_nowait(item)
                except ChannelFull:
                    full.append(item)
                else:
                    accepted.append(item)
                most.append(len(mine))

    def receive(mine):
        with mine:
            for _ in mine:
                most.append(len(mine))

    for _ in range(3):
        crew.thread(send, tx.clone())
    crew.thread(receive, rx.clone())
    tx.close()
    rx.close()
    crew.run()
    assert max(most) <= 5
    assert len(accepted) + len(full) == 6000


def test_blocking_calls_time_out_and_leave_nothing_behind():
    tx, rx = channel(1)
    with tx, rx:
        with pytest.raises(TimeoutError):
            rx.blocking_recv(timeout=0.001)
        tx.blocking_send("a", timeout=5)
        with pytest.raises(TimeoutError):
            tx.blocking_send("b", timeout=0.001)
        assert rx.blocking_recv(timeout=0) == "a"
        assert tx._core.parked == tx._core.parked_receivers == 0


async def test_blocking_calls_are_refused_where_they_would_stop_a_loop():
    tx, rx = channel(1)
    with tx, rx:
        for call in (lambda: tx.blocking_send(1), rx.blocking_recv, lambda: next(iter(rx))):
            with pytest.raises(RuntimeError, match="event loop"):
                call()


def test_a_thread_that_waits_is_woken_by_closing():
    tx, rx = channel(1)
    crew = Crew()
    outcomes = []

    def receive():
        with pytest.raises(ChannelClosed):
            rx.blocking_recv()
        outcomes.append("end")

    def close():
        while not rx.statistics().waiting_receivers:
            pass
        tx.close()

    crew.thread(receive)
    crew.thread(close)
    crew.run()
    rx.close()
    assert outcomes == ["end"]
