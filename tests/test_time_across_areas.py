"""Programs in which time, channels and selects meet: a client, a watchdog, a cache, a reset under a select."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from yamanote.channels import channel
from yamanote.futures import select
from yamanote.runtime import TaskGroup, run, spawn
from yamanote.time import DelayQueue, RateLimiter, Schedule, VirtualClock, interval, retry, sleep, time, timeout


def virtual(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def in_no_time() -> None:
        run(test(), loop_factory=VirtualClock().loop_factory)

    in_no_time.__name__ = test.__name__
    return in_no_time


@virtual
async def test_a_client_keeps_to_its_rate_while_it_retries_what_is_busy_or_slow() -> None:
    limiter = RateLimiter(10, burst=2)
    asked: list[float] = []
    trouble = {3: [0.05, 0.05], 5: [3600.0]}

    @retry(Schedule.exponential(0.25).retries(4), on=(ConnectionError, TimeoutError))
    async def get(number: int) -> int:
        await limiter.acquire()
        asked.append(time())
        async with timeout(1):
            if trouble.get(number):
                await sleep(trouble[number].pop())
                raise ConnectionError("busy")
        return number

    async with TaskGroup() as group:
        answers = [group.spawn(get(number)) for number in range(8)]
    assert [await answer for answer in answers] == list(range(8))
    assert len(asked) == 8 + 3
    for first in range(len(asked)):
        for last in range(first, len(asked)):
            assert last - first + 1 <= 2 + 10 * (asked[last] - asked[first]) + 1e-9


@virtual
async def test_a_watchdog_that_each_beat_resets_fires_a_period_after_the_last() -> None:
    sender, beats = channel[float](1)

    async def beat() -> None:
        for pause in (0, 3, 4, 12):
            await sleep(pause)
            await sender.send(time())

    heart = spawn(beat())
    watchdog = interval(5)
    watchdog.reset()
    seen = []
    with sender, beats:
        for _ in range(6):
            match await select(beat=beats, missed=watchdog):
                case "beat", when:
                    watchdog.reset()
                    seen.append(("beat", when))
                case missed:
                    seen.append(missed)
        await heart
    assert seen == [("beat", 0), ("beat", 3), ("beat", 7), ("missed", 12), ("missed", 17), ("beat", 19)]


@virtual
async def test_a_reset_by_another_task_moves_the_tick_for_which_a_select_waits() -> None:
    sender, empty = channel[str](1)
    ticks = interval(10)
    assert await ticks.tick() == 0

    async def selected() -> list[Any]:
        with sender, empty:
            return [await select(items=empty, tick=ticks) for _ in range(2)]

    waiting = asyncio.create_task(selected())
    await sleep(4)
    ticks.reset()  # to 14
    await sleep(9)
    ticks.reset_at(30)
    await sleep(14)
    ticks.reset_after(1)  # 28
    assert await waiting == [("tick", 28), ("tick", 38)]
    assert time() == 38


@virtual
async def test_a_cache_whose_entries_expire_unless_they_are_used() -> None:
    values: dict[str, int] = {}
    due: DelayQueue[str] = DelayQueue()

    async def expire() -> None:
        async for key in due:
            del values[key]

    def use(key: str) -> None:
        if key in due:
            due.reset(key, 10)
        else:
            due.insert(key, 10, key=key)
        values[key] = values.get(key, 0) + 1

    expiring = spawn(expire())
    use("a")
    use("b")
    await sleep(6)
    use("a")
    await sleep(6)
    assert values == {"a": 2}
    use("b")
    await sleep(6)
    assert values == {"b": 1}
    due.close()
    await expiring
    assert values == {} and time() == 22
