"""Select over what comes with time, on a clock that need not wait: delay queues, intervals, timers, rate limiters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from yamanote.channels import channel
from yamanote.futures import select
from yamanote.runtime import run
from yamanote.testing import explore, explore_cancellations
from yamanote.time import (
    DelayQueue,
    DelayQueueClosed,
    RateLimiter,
    TimerDelayPolicy,
    VirtualClock,
    create_timer,
    interval,
    interval_at,
    sleep,
    time,
)


def virtual(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def in_no_time() -> None:
        run(test(), loop_factory=VirtualClock().loop_factory)

    in_no_time.__name__ = test.__name__
    return in_no_time


@virtual
async def test_items_that_fall_due_and_ticks_come_in_the_order_of_time() -> None:
    queue: DelayQueue[str] = DelayQueue()
    queue.insert("b", 25)
    queue.insert("a", 5)
    ticks = interval(10)
    seen = [await select(item=queue, tick=ticks) for _ in range(6)]
    assert seen == [("tick", 0), ("item", "a"), ("tick", 10), ("tick", 20), ("item", "b"), ("tick", 30)]


@virtual
async def test_the_end_of_a_queue_and_of_a_timer_are_branches_too() -> None:
    async def call(seconds: float) -> None:
        pass

    timer = create_timer(call, 1, TimerDelayPolicy.SKIP)
    queue: DelayQueue[int] = DelayQueue()
    loop = asyncio.get_running_loop()
    loop.call_later(5, timer.cancel)
    loop.call_later(6, queue.close)
    assert await select(end=timer, item=queue) == ("end", None)
    assert time() == 5
    with pytest.raises(DelayQueueClosed):
        await select(item=queue)
    assert time() == 6


@virtual
async def test_a_limiter_that_loses_keeps_its_permit() -> None:
    limiter = RateLimiter(1, 10, burst=2)
    tx, rx = channel(1)
    with tx, rx:
        tx.send_nowait("item")
        assert await select(item=rx, go=limiter.acquire_many(2), biased=True) == ("item", "item")
    assert limiter.try_acquire(2)


@virtual
async def test_a_limiter_that_wins_gives_one_permit_for_each_round() -> None:
    limiter, ticks = RateLimiter(1, 10, burst=2), interval_at(1, 12)
    rounds = []
    for _ in range(5):
        match await select(go=limiter, tick=ticks):
            case name, _:
                rounds.append((name, time()))
    assert rounds == [("go", 0), ("go", 0), ("tick", 1), ("go", 10), ("tick", 13)]


@virtual
async def test_one_that_gave_up_its_turn_for_another_branch_passes_it_on() -> None:
    limiter = RateLimiter(1, 10)
    await limiter.acquire()
    first = asyncio.create_task(select(go=limiter, early=sleep(1)))
    second = asyncio.create_task(limiter.acquire())
    assert (await first)[0] == "early"
    await second
    assert time() == 10


@virtual
async def test_a_time_out_takes_no_permit() -> None:
    limiter = RateLimiter(1, 10)
    await limiter.acquire()
    try:
        await select(go=limiter, timeout=9)
    except TimeoutError:
        pass
    assert time() == 9
    await select(go=limiter)
    assert time() == 10


async def no_item_is_lost_to_a_branch_that_loses() -> None:
    queue: DelayQueue[int] = DelayQueue()
    tx, rx = channel(4)
    came: list[Any] = []

    async def receive() -> None:
        while len(came) < 6:
            came.append((await select(item=queue, message=rx))[1])

    async def send() -> None:
        for number in (3, 4, 5):
            tx.send_nowait(number)
            await sleep(1)

    with tx, rx:
        for number in range(3):
            queue.insert(number, number)
        task = asyncio.create_task(receive())
        sender = asyncio.create_task(send())
        await asyncio.wait([sender])
        await sleep(3)
        task.cancel()
        await asyncio.wait([task])
        left = [await queue.recv() for _ in range(len(queue))] + [rx.recv_nowait() for _ in range(len(rx))]
        assert sorted(came + left)[:3] == [0, 1, 2]
        assert len(set(came + left)) == len(came + left)
        assert sender.cancelled() or len(came + left) == 6


def test_no_item_is_lost_to_a_branch_that_loses() -> None:
    explore(no_item_is_lost_to_a_branch_that_loses, runs=50)
    explore_cancellations(no_item_is_lost_to_a_branch_that_loses, runs=100)
