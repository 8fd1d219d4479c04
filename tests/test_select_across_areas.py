"""Select over channels, signals and notifications: whole loops, both ends, cancellations at any turn, threads."""

import asyncio
import random
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from yamanote.channels import ChannelClosed, channel, channel_unbounded
from yamanote.futures import failed_branch, select, task_set
from yamanote.runtime import CancellationToken, signals, yield_now
from yamanote.sync import Event, Notify
from yamanote.testing import explore, explore_cancellations
from yamanote.time import timeout


async def turns(count: int) -> None:
    for _ in range(count):
        await yield_now()


Make = Callable[[int | None], tuple[Any, Any]]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes channels, unbounded without a capacity, and closes them in the end."""
    handles: list[Any] = []

    def make(capacity: int | None) -> tuple[Any, Any]:
        ends = channel_unbounded() if capacity is None else channel(capacity)
        handles.extend(ends)
        return ends

    yield make
    for handle in handles:
        handle.close()


@pytest.fixture
def impatient_threads() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


async def test_a_loop_over_two_channels_takes_everything_in_order_until_both_are_closed(make: Make) -> None:
    open_channels: dict[str, Any] = {}
    seen: dict[str, list[int]] = {"one": [], "two": []}
    async with task_set() as tasks:
        for name in seen:
            sender, open_channels[name] = make(3)

            async def send(sender: Any = sender) -> None:
                async with sender:
                    for number in range(50):
                        await sender.send(number)

            tasks.spawn(name, send())
        while open_channels:
            try:
                name, number = await select(open_channels)
                seen[name].append(number)
            except ChannelClosed as error:
                (name,) = failed_branch(error)
                del open_channels[name]
    assert seen == {"one": list(range(50)), "two": list(range(50))}


@pytest.mark.parametrize("capacity", [1, 2, None])
@pytest.mark.parametrize("sent_at", range(4))
@pytest.mark.parametrize("cancelled_at", range(9))
async def test_a_select_cancelled_at_any_turn_loses_no_item(
    make: Make, capacity: int | None, sent_at: int, cancelled_at: int
) -> None:
    (one_tx, one_rx), (two_tx, two_rx) = make(capacity), make(capacity)
    seen: list[int] = []

    async def take() -> None:
        for _ in range(3):
            seen.append((await select(one=one_rx, two=two_rx))[1])

    async def send() -> None:
        await turns(sent_at)
        for number in range(3):
            await one_tx.send(number)
            await two_tx.send(10 + number)

    sending, taking = asyncio.create_task(send()), asyncio.create_task(take())
    await turns(cancelled_at)
    taking.cancel()
    await asyncio.wait([taking])
    async with timeout(30):
        while len(seen) < 6:
            seen.append((await select(one=one_rx, two=two_rx))[1])
        await sending
    assert [item for item in seen if item < 10] == [0, 1, 2]
    assert [item for item in seen if item >= 10] == [10, 11, 12]


async def test_a_stop_token_ends_a_busy_loop_when_it_comes_first(make: Make) -> None:
    sender, receiver = make(None)
    token = CancellationToken()
    for number in range(1000):
        sender.send_nowait(number)
    taken = 0
    while True:
        match await select(stop=token, item=receiver, biased=True):
            case "item", number:
                taken += 1
                if number == 100:
                    token.cancel()
            case "stop", _:
                break
    assert taken == 101
    assert await receiver.recv() == 101


async def test_of_a_send_a_receive_and_a_reservation_the_one_that_can_go_on_is_taken() -> None:
    (jobs, work), (results, done) = channel[int](1), channel[int](1)
    with jobs, work, results, done:
        jobs.send_nowait(1)
        name, permits = await select(sent=jobs.sending(2), received=done, room=results.reserving(), biased=True)
        assert name == "room"
        for permit in permits:
            permit.send(3)
        assert await select(sent=jobs.sending(2), received=done) == ("received", 3)
        assert await work.recv_many(9) == [1]
        assert await select(sent=jobs.sending(4), received=done) == ("sent", None)
        assert await work.recv_many(9) == [4]


async def test_a_send_that_loses_was_not_sent_and_serves_who_stands_behind_it() -> None:
    (tx, rx), (stop, stopped) = channel[int](1), channel[str](1)
    with tx, rx, stop, stopped:
        tx.send_nowait(1)
        selecting = asyncio.create_task(select(sent=tx.sending(2), stopped=stopped))
        await asyncio.sleep(0)
        sending = asyncio.create_task(tx.send(3))
        await asyncio.sleep(0)
        stop.send_nowait("now")
        assert await selecting == ("stopped", "now")
        assert await rx.recv_many(9) == [1, 3]
        await sending


async def test_a_select_meets_the_other_side_of_a_rendezvous() -> None:
    tx, rx = channel[str](0)
    with tx, rx:
        sending = asyncio.create_task(tx.send("a"))
        await asyncio.sleep(0)
        assert await select(rx=rx, timeout=0) == ("rx", "a")
        await sending
        with pytest.raises(TimeoutError):
            await select(tx=tx.sending("b"), timeout=0)
        receiving = asyncio.create_task(rx.recv())
        await asyncio.sleep(0)
        assert await select(tx=tx.sending("c"), timeout=0) == ("tx", None)
        assert await receiving == "c"


async def test_two_selects_meet() -> None:
    tx, rx = channel[str](0)
    with tx, rx:
        selecting = asyncio.create_task(select(rx=rx, timeout=5))
        assert await select(tx=tx.sending("a"), timeout=5) == ("tx", None)
        assert await selecting == ("rx", "a")


def test_senders_in_threads_lose_nothing(make: Make, impatient_threads: None) -> None:
    count = 1500
    seen: dict[str, list[int]] = {"one": [], "two": []}

    async def take(receivers: dict[str, Any]) -> None:
        while sum(map(len, seen.values())) < 2 * count:
            name, value = await select(receivers)
            seen[name].append(value)

    async def main() -> None:
        (one_tx, one_rx), (two_tx, two_rx) = make(4), make(None)
        receivers = {"one": one_rx, "two": two_rx}

        def send(sender: Any) -> None:
            for number in range(count):
                sender.blocking_send(number)

        threads = [threading.Thread(target=send, args=[sender]) for sender in (one_tx, two_tx)]
        for thread in threads:
            thread.start()
        source = random.Random(5)
        task = asyncio.create_task(take(receivers))
        while not task.done():
            await turns(source.randrange(30))
            task.cancel()
            await asyncio.wait([task])
            if task.cancelled():
                task = asyncio.create_task(take(receivers))
        await task
        for thread in threads:
            thread.join()

    asyncio.run(main())
    assert seen == {"one": list(range(count)), "two": list(range(count))}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither of these signals")
async def test_signals_can_be_selected() -> None:
    with signals(signal.SIGUSR1) as one, signals(signal.SIGUSR2) as two:
        signal.raise_signal(signal.SIGUSR2)
        assert await select(one=one, two=two) == ("two", signal.SIGUSR2)
        asyncio.get_running_loop().call_later(0.001, signal.raise_signal, signal.SIGUSR1)
        assert await select(one=one, two=two) == ("one", signal.SIGUSR1)


async def work_that_is_announced_is_done_by_somebody() -> None:
    notify, stop = Notify(), Event()
    work = 0
    waiting = 0

    async def wait(branch: Callable[[], Awaitable[object]]) -> None:
        nonlocal waiting
        waiting += 1
        try:
            await branch()
        finally:
            waiting -= 1

    async def selects() -> None:
        nonlocal work
        while not stop.is_set():
            work = 0
            await wait(lambda: select(stop=stop, notified=notify.notified()))

    async def works() -> None:
        nonlocal work
        while not stop.is_set():
            work = 0
            await wait(notify.notified)

    async def announces() -> None:
        nonlocal work
        for _ in range(2):
            work += 1
            notify.notify_one()
            await asyncio.sleep(0)

    async def stops() -> None:
        await asyncio.sleep(0)
        stop.set()

    parts = [asyncio.create_task(part()) for part in (selects, works, announces, stops)]
    await asyncio.sleep(10)
    assert stop.is_set() or not (work and waiting), "there is work, and somebody waits for it"
    stop.set()
    notify.notify_waiters()
    for part in parts:
        part.cancel()
    await asyncio.wait(parts)
    assert notify.statistics().waiting == 0


def test_no_order_of_the_steps_loses_a_notification_in_a_select() -> None:
    explore(work_that_is_announced_is_done_by_somebody, runs=60)


def test_no_cancellation_loses_a_notification_in_a_select() -> None:
    explore_cancellations(work_that_is_announced_is_done_by_somebody, runs=80)
