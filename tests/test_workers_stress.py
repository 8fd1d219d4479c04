"""The primitives of every area, used by tasks that are spread over several workers.

Each scenario checks conservation (nothing is lost, nothing comes twice) and liveness (it ends), with a cancellation
here and there. `YAMANOTE_STRESS` multiplies the rounds.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import pytest

from yamanote.channels import (
    BroadcastReceiver,
    ChannelClosed,
    OneshotSender,
    Receiver,
    Sender,
    broadcast,
    channel,
    oneshot_channel,
    watch,
)
from yamanote.futures import race, select
from yamanote.runtime import JoinError, JoinSet, TaskGroup, TaskTracker, map, run, spawn, yield_now
from yamanote.sync import Barrier, Condition, Event, Lock, Notify, RwLock, Semaphore
from yamanote.time import sleep, timeout

FACTOR = int(os.environ.get("YAMANOTE_STRESS", "1"))
PATIENCE = 60.0 * FACTOR
"""Seconds after which a scenario is stuck."""

Scenario = Callable[[random.Random], Awaitable[None]]


@pytest.fixture(autouse=True)
def threads_take_turns_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


async def items_are_conserved(chance: random.Random) -> None:
    """Several producers and consumers; some of both are cancelled while they wait."""
    tx, rx = channel[tuple[int, int]](3)
    accepted: list[tuple[int, int]] = []
    received: list[tuple[int, int]] = []

    async def produce(number: int, own: Sender[tuple[int, int]]) -> None:
        with own:
            for item in range(60):
                with suppress(TimeoutError):
                    async with timeout(chance.choice((PATIENCE, PATIENCE, 0.0))):
                        with await own.reserve() as permit:
                            permit.send((number, item))
                        accepted.append((number, item))

    async def consume(own: Receiver[tuple[int, int]]) -> None:
        with own, suppress(ChannelClosed):
            while True:
                with suppress(TimeoutError):
                    async with timeout(chance.choice((PATIENCE, PATIENCE, 0.0))):
                        received.append(await own.recv())
                await yield_now()

    async with TaskGroup() as group:
        with tx, rx:
            for number in range(4):
                group.spawn(produce(number, tx.clone()))
                group.spawn(consume(rx.clone()))
    assert Counter(accepted) == Counter(received)


async def one_holds_the_lock(chance: random.Random) -> None:
    lock, rwlock, semaphore = Lock(), RwLock(), Semaphore(2)
    count = inside = readers = 0
    permits: list[int] = []

    async def contend() -> None:
        nonlocal count, inside, readers
        for _ in range(15):
            async with lock:
                inside += 1
                assert inside == 1
                await yield_now()
                inside -= 1
                count += 1
            async with rwlock.write():
                assert readers == 0
                readers = -1
                await yield_now()
                readers = 0
            async with rwlock.read():
                assert readers >= 0
            async with semaphore:
                permits.append(1)
                assert len(permits) <= 2
                await yield_now()
                permits.pop()

    async def give_up() -> None:
        for _ in range(15):
            try:
                async with timeout(0.0), lock:
                    await yield_now()
            except TimeoutError:
                pass
            await yield_now()

    await spawn(*[contend() for _ in range(6)], *[give_up() for _ in range(3)])
    assert count == 6 * 15
    assert not lock.locked()


async def everybody_is_notified(chance: random.Random) -> None:
    notify, event, barrier, condition = Notify(), Event(), Barrier(5), Condition()
    woken: list[int] = []
    basket: list[int] = []

    async def wait(number: int) -> None:
        await notify.notified()
        notify.notify_one()  # the next one
        woken.append(number)
        await event.wait()

    async def meet() -> None:
        for _ in range(10):
            await barrier.wait()

    async def take() -> int:
        async with condition:
            await condition.wait_for(lambda: basket)
            return basket.pop()

    async def fill() -> None:
        for number in range(20):
            async with condition:
                basket.append(number)
                condition.notify()

    waiting = spawn(*[wait(number) for number in range(20)])
    notify.notify_one()
    await spawn(*[meet() for _ in range(5)])
    taken = spawn(*[take() for _ in range(20)])
    await spawn(fill())
    assert sorted(await taken) == list(range(20))
    while len(woken) < 20:
        await yield_now()
    event.set()
    await waiting
    assert sorted(woken) == list(range(20))


async def all_kinds_of_channels_deliver(chance: random.Random) -> None:
    tx, rx = broadcast[int](1000)
    state, seen = watch(0)

    async def hear(receiver: BroadcastReceiver[int]) -> list[int]:
        with receiver:
            return [await receiver.recv() for _ in range(50)]

    async def answer(reply: OneshotSender[int], number: int) -> None:
        await yield_now()
        reply.send(number)

    async def ask(number: int) -> int:
        reply, answered = oneshot_channel[int]()
        spawn(answer(reply, number))
        return await answered

    async def see() -> int:
        with seen.clone() as own:
            return await own.wait_for(lambda value: value == 50)

    with tx, rx, state, seen:
        hearing = [spawn(hear(tx.subscribe())) for _ in range(4)]
        seeing = spawn(*[see() for _ in range(4)])
        for number in range(50):
            await tx.send(number)
            state.send(number + 1)
        for handle in hearing:
            assert await handle == list(range(50))
        await seeing
        assert await map(ask, range(50)) == list(range(50))


async def joined_once_and_never_lost(chance: random.Random) -> None:
    async def work(number: int) -> int:
        for _ in range(number % 3):
            await yield_now()
        return number

    jobs: JoinSet[int] = JoinSet()
    tracker = TaskTracker()
    for number in range(100):
        jobs.spawn(work(number))
        tracker.spawn(work(number))
    assert sorted([await done async for done in jobs]) == list(range(100))
    tracker.close()
    await tracker.wait()
    handles = [spawn(sleep(3600) if number % 2 else work(number)) for number in range(100)]
    for handle in handles[1::2]:
        handle.abort()
    for number, handle in enumerate(handles):
        try:
            assert await handle == number
        except JoinError:
            assert number % 2


async def groups_end(chance: random.Random) -> None:
    ended: list[int] = []

    async def child(group: TaskGroup, depth: int) -> None:
        try:
            if depth:
                group.spawn(child(group, depth - 1))
                group.spawn(child(group, depth - 1))
            else:
                await sleep(chance.choice((0.0, 0.0001, 3600)))
        finally:
            ended.append(depth)

    for limit in (None, 5):
        async with TaskGroup(limit=limit) as group:
            for _ in range(3):
                group.spawn(child(group, 3))
            await sleep(0.002)
            group.cancel()
        assert "running=0" in repr(group)


async def one_of_several_wins(chance: random.Random) -> None:
    tx, rx = channel[int](1)
    taken: list[int] = []

    async def choose(own: Receiver[int]) -> None:
        with own, suppress(ChannelClosed):
            while True:
                match await select(item=own, late=sleep(chance.choice((0.0, 0.001)))):
                    case "item", item:
                        taken.append(item)

    async def work(number: int) -> int:
        await yield_now()
        return number

    async with TaskGroup() as group:
        with tx, rx:
            for _ in range(4):
                group.spawn(choose(rx.clone()))
            for number in range(100):
                await tx.send(number)
    assert sorted(taken) == list(range(100))
    assert await map(lambda number: race(sleep(3600), work(number)), range(50)) == list(range(50))


SCENARIOS: list[Scenario] = [
    items_are_conserved,
    one_holds_the_lock,
    everybody_is_notified,
    all_kinds_of_channels_deliver,
    joined_once_and_never_lost,
    groups_end,
    one_of_several_wins,
]


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_across_workers(scenario: Scenario, workers: int) -> None:
    async def program() -> None:
        for seed in range(5 * FACTOR):
            async with asyncio.timeout(PATIENCE):
                await scenario(random.Random(seed))

    run(program(), workers=workers)
