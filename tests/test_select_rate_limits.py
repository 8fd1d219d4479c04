"""Rate limiters as branches of a select."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from yamanote.channels import channel
from yamanote.futures import select
from yamanote.runtime import run
from yamanote.time import RateLimiter, VirtualClock, interval_at, sleep, time


def virtual(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def in_no_time() -> None:
        run(test(), loop_factory=VirtualClock().loop_factory)

    in_no_time.__name__ = test.__name__
    return in_no_time


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
