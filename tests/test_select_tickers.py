"""Delay queues, timers and intervals as branches of a select."""

import asyncio
from typing import Any

import pytest

from yamanote.channels import channel
from yamanote.futures import select
from yamanote.runtime import run
from yamanote.testing import explore, explore_cancellations
from yamanote.time import (
    DelayQueue,
    DelayQueueClosed,
    TimerDelayPolicy,
    VirtualClock,
    create_timer,
    interval,
    sleep,
    time,
)


def test_items_that_fall_due_and_ticks_come_in_the_order_of_time() -> None:
    async def main() -> None:
        queue: DelayQueue[str] = DelayQueue()
        queue.insert("b", 25)
        queue.insert("a", 5)
        ticks = interval(10)
        seen = [await select(item=queue, tick=ticks) for _ in range(6)]
        assert seen == [("tick", 0), ("item", "a"), ("tick", 10), ("tick", 20), ("item", "b"), ("tick", 30)]

    run(main(), loop_factory=VirtualClock().loop_factory)


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


def test_the_end_of_a_queue_and_of_a_timer_are_branches_too() -> None:
    async def main() -> None:
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

    run(main(), loop_factory=VirtualClock().loop_factory)
