"""One broadcast channel, used at once by tasks of several loops and by plain threads."""

import asyncio
import random
from collections import Counter

import pytest

from yamanote.channels import (
    ChannelClosed,
    ChannelEmpty,
    HandleClosed,
    Lagged,
    broadcast,
)
from yamanote.runtime import yield_now

from .test_broadcast_preempted import Log
from .test_channels_threads import Crew
from .test_channels_threads import _switch_threads_as_often_as_possible as _switch_threads_as_often_as_possible


def send_blocking(mine, name, numbers):
    with mine:
        for number in range(numbers):
            mine.blocking_send((name, number))


async def send(mine, name, numbers):
    async with mine:
        for number in range(numbers):
            await mine.send((name, number))


def receive_blocking(mine, seen):
    with mine:
        while True:
            try:
                seen.append(mine.blocking_recv())
            except Lagged as lagged:
                seen += [None] * lagged.missed
            except ChannelClosed:
                return


async def receive(mine, seen):
    async with mine:
        while True:
            try:
                seen.append(await mine.recv())
            except Lagged as lagged:
                seen += [None] * lagged.missed
            except ChannelClosed:
                return


async def receive_many(mine, seen):
    async with mine:
        while True:
            try:
                seen += await mine.recv_many(5)
            except Lagged as lagged:
                seen += [None] * lagged.missed
            except ChannelClosed:
                return


@pytest.mark.parametrize("capacity", [1, 3, 100])
@pytest.mark.parametrize("overflow", ["suspend", "lag"])
def test_every_receiver_sees_the_one_order_of_the_channel_apart_from_what_it_was_told_it_missed(overflow, capacity):
    tx, rx = broadcast(capacity, overflow=overflow)
    log = Log(tx)
    seen = [[] for _ in range(4)]
    crew = Crew()
    crew.thread(send_blocking, tx.clone(), "thread", 150)
    crew.loop(send, tx.clone(), "loop", 150)
    for work, book in zip((receive_blocking, receive_blocking), seen, strict=False):
        crew.thread(work, rx.clone(), book)
    for work, book in zip((receive, receive_many), seen[2:], strict=True):
        crew.loop(work, rx.clone(), book)
    tx.close()
    rx.close()
    crew.run()
    items = log.items()
    for name in ("thread", "loop"):
        assert [item for item in items if item[0] == name] == [(name, number) for number in range(150)]
    for book in seen:
        assert len(book) == 300
        assert all(got in (item, None) for got, item in zip(book, items, strict=True))
        if overflow == "suspend":
            assert book == items


@pytest.mark.parametrize("capacity", [1, 3, 100])
@pytest.mark.parametrize("overflow", ["suspend", "lag"])
def test_those_who_share_a_receiver_get_each_item_once(overflow, capacity):
    tx, rx = broadcast(capacity, overflow=overflow)
    seen = [[] for _ in range(4)]
    crew = Crew()

    def take_blocking(book):
        while True:
            try:
                book.append(rx.blocking_recv())
            except Lagged as lagged:
                book += [None] * lagged.missed
            except ChannelClosed:
                return

    async def take(book):
        while True:
            try:
                book.append(await rx.recv())
            except Lagged as lagged:
                book += [None] * lagged.missed
            except ChannelClosed:
                return

    crew.thread(take_blocking, seen[0])
    crew.thread(take_blocking, seen[1])
    crew.loop(take, seen[2])
    crew.loop(take, seen[3])
    crew.thread(send_blocking, tx.clone(), "thread", 150)
    crew.loop(send, tx.clone(), "loop", 150)
    tx.close()
    crew.run()
    rx.close()
    arrived = Counter(item for book in seen for item in book)
    missed = arrived.pop(None, 0)
    assert max(arrived.values()) == 1
    assert len(arrived) + missed == 300
    for book in seen:
        for name in ("thread", "loop"):
            numbers = [item[1] for item in book if item is not None and item[0] == name]
            assert numbers == sorted(numbers)


@pytest.mark.parametrize("overflow", ["suspend", "lag"])
def test_whoever_comes_and_goes_sees_everything_in_between(overflow):
    tx, rx = broadcast(3, replay=2, overflow=overflow)
    log = Log(tx)
    slices = []
    crew = Crew()

    def come_and_go(mine, seed):
        chance = random.Random(seed)
        with mine:
            for _ in range(15):
                with mine.subscribe() as guest:
                    with mine._log.section:  # it may have lagged already, and have been moved
                        start = guest._cursor.place.number - guest._cursor.missed
                    book = []
                    for _ in range(chance.randrange(6)):
                        try:
                            book.append(guest.blocking_recv(timeout=0.001))
                        except Lagged as lagged:
                            book += [None] * lagged.missed
                        except TimeoutError:
                            break
                    slices.append((start, book))

    crew.thread(come_and_go, tx.clone(), 1)
    crew.thread(come_and_go, tx.clone(), 2)
    crew.thread(send_blocking, tx.clone(), "thread", 200)
    crew.loop(send, tx.clone(), "loop", 200)
    seen = []
    crew.loop(receive, rx.clone(), seen)
    tx.close()
    rx.close()
    crew.run()
    items = log.items()
    assert len(seen) == len(items) == 400
    for start, book in slices:
        assert all(got in (item, None) for got, item in zip(book, items[start:], strict=False))
        assert overflow == "lag" or None not in book


@pytest.mark.parametrize("overflow", ["suspend", "lag"])
def test_cancelling_those_who_share_a_receiver_in_full_swing_loses_nothing(overflow):
    tx, rx = broadcast(3, overflow=overflow)
    seen = []
    crew = Crew()

    async def take(seed):
        chance = random.Random(seed)

        async def forever():
            while True:
                try:
                    seen.append(await rx.recv())
                except Lagged as lagged:
                    seen.extend([None] * lagged.missed)

        while True:
            task = asyncio.create_task(forever())
            for _ in range(chance.randrange(5)):
                await yield_now()
            task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(outcome, ChannelClosed):
                return

    crew.thread(send_blocking, tx.clone(), "thread", 150)
    crew.loop(take, 1)
    crew.loop(take, 2)
    tx.close()
    crew.run()
    while True:  # what came back after the other had seen the end
        try:
            seen.append(rx.recv_nowait())
        except Lagged as lagged:
            seen.extend([None] * lagged.missed)
        except (ChannelClosed, ChannelEmpty):
            break
    rx.close()
    arrived = Counter(seen)
    missed = arrived.pop(None, 0)
    assert max(arrived.values()) == 1
    assert len(arrived) + missed == 150


def test_blocking_calls_time_out_and_leave_nothing_behind():
    tx, rx = broadcast(1, overflow="suspend")
    with tx, rx:
        with pytest.raises(TimeoutError):
            rx.blocking_recv(timeout=0.001)
        assert tx.blocking_send("a", timeout=5) == 1
        with pytest.raises(TimeoutError):
            tx.blocking_send("b", timeout=0.001)
        assert rx.blocking_recv(timeout=0) == "a"
        statistics = tx.statistics()
        assert statistics.waiting_senders == statistics.waiting_receivers == 0
        assert not tx._log.waiting


async def test_blocking_calls_are_refused_where_they_would_stop_a_loop():
    tx, rx = broadcast(1)
    with tx, rx:
        for call in (lambda: tx.blocking_send(1), rx.blocking_recv, lambda: next(iter(rx))):
            with pytest.raises(RuntimeError, match="event loop"):
                call()


def test_a_for_loop_in_a_thread_ends_with_the_channel_and_raises_its_cause():
    tx, rx = broadcast(5)
    with rx, rx.clone() as other:
        tx.send_nowait(1)
        tx.close()
        assert list(rx) == [1]
        with pytest.raises(HandleClosed):
            other.close()
            list(other)
    tx, rx = broadcast(5)
    with rx:
        tx.close(LookupError())
        with pytest.raises(ChannelClosed):
            list(rx)
