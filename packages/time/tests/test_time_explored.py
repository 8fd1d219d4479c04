"""Everything of this area in any order of its steps, and cancelled at each of its awaits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

import pytest

from yamanote.runtime import CancelScope
from yamanote.testing import explore, explore_cancellations
from yamanote.time import MissedTickBehavior, interval_at, sleep, sleep_until, time, timeout, timeout_at

Scenario = Callable[[], Coroutine[Any, Any, None]]


async def ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Wait until `tasks` have ended; raise what went wrong in them."""
    tasks = list(tasks)
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


def armed_timers() -> int:
    loop: Any = asyncio.get_running_loop()
    return sum(not timer.cancelled() for timer in loop._scheduled)


def pending_requests() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def sleeps() -> None:
    """Sleepers wake up at their time, and leave no timer behind."""

    async def rest(until: float) -> None:
        await sleep(until)
        assert time() == until
        await sleep_until(until)  # is over: a turn
        await sleep_until(until + 1)
        assert time() == until + 1

    async def disturb(sleeper: asyncio.Task[None]) -> None:
        await sleep(2)
        sleeper.cancel()

    sleepers = [asyncio.create_task(rest(until)) for until in (1, 2, 2)]
    await ended([*sleepers, asyncio.create_task(disturb(sleepers[1]))])
    assert not armed_timers()


async def limits(form: str, seconds: float, clean_up: float, cancelled_at: float = 20) -> None:
    """Work that takes 2 seconds has ended, in one way, when its time limit has: done, timed out or cancelled.

    A request from outside is never taken for the limit's own.
    """

    async def work() -> str:
        try:
            await sleep(2)
            how.append("done")
            return "done"
        except asyncio.CancelledError:
            try:
                await sleep(clean_up)
            finally:
                how.append("cancelled")
            raise

    async def limited() -> str:
        if form == "call":
            return await timeout(seconds, work())
        if form == "call until":
            return await timeout_at(time() + seconds, work())
        async with timeout(seconds) as scope:
            if form == "moved":
                scope.deadline = time() + seconds
            return await work()

    async def call() -> None:
        before = armed_timers()
        try:
            assert await limited() == "done"
        except TimeoutError:
            assert seconds <= 2 and how == ["cancelled"]
        except asyncio.CancelledError:
            assert pending_requests()
            raise
        else:
            assert seconds >= 2 and how == ["done"]
        assert not pending_requests()
        assert armed_timers() <= before
        await sleep(10)  # nothing comes late

    def cancel() -> None:
        if task.cancel():
            asked.append(time())

    how: list[str] = []
    asked: list[float] = []
    task = asyncio.create_task(call())
    timer = asyncio.get_running_loop().call_at(cancelled_at, cancel)
    await ended([task])
    timer.cancel()
    assert task.cancelled() or not asked
    assert len(how) <= 1
    assert not armed_timers()


async def nests(outer: float, inner: float, at: float) -> None:
    """Of two limits and a scope that is cancelled by hand, each answers for its own request, also in one moment."""

    async def call() -> None:
        ends: list[str] = []
        try:
            async with timeout(outer) as around:
                try:
                    with CancelScope() as scope:
                        asyncio.get_running_loop().call_later(at, scope.cancel)
                        async with timeout(inner):
                            await sleep(4)
                except TimeoutError:
                    ends.append("inner")
                    assert around.cancel_called or not pending_requests()
                await sleep(0.5)
                ends.append("half a second")
        except TimeoutError:
            ends.append("outer")
        except asyncio.CancelledError:
            assert pending_requests()
            raise
        assert not pending_requests()
        assert around.cancelled_caught is ("outer" in ends)
        assert ("outer" in ends) is not ("half a second" in ends)
        assert "inner" not in ends or inner <= min(outer, at)
        if outer != (half_way := min(inner, at) + 0.5):
            assert ("outer" in ends) is (outer < half_way)
        await sleep(10)

    await ended([asyncio.create_task(call())])


async def ticks(missed: MissedTickBehavior, parties: int, busy: float = 0) -> None:
    """Every tick of the schedule goes to one party, also when those who got it first have been cancelled."""
    series = interval_at(1, 1, missed)
    taken: list[float] = []

    async def take() -> None:
        while len(taken) < 5:
            taken.append(await series.tick())
            await sleep(busy)

    await ended([asyncio.create_task(take()) for _ in range(parties)])
    assert not armed_timers()  # nobody waits
    await take()
    assert "0 waiting" in repr(series)
    assert not armed_timers()
    assert (taken if parties == 1 else sorted(taken)) == [1 + number for number in range(len(taken))]


async def begins_anew(parties: int, start: float) -> None:
    """After a reset ticks come by the new schedule only, to those who wait already too."""
    series = interval_at(2, 2)
    taken: list[float] = []
    resets: list[float] = []

    async def take() -> None:
        while len(taken) < 4:
            taken.append(await series.tick())
            assert taken[-1] <= time()

    async def reset() -> None:
        await sleep(4)
        series.reset_at(start)
        resets.append(start)

    await ended([*(asyncio.create_task(take()) for _ in range(parties)), asyncio.create_task(reset())])
    await take()
    before = [when for when in sorted(taken) if when % 2 == 0]
    after = [when for when in sorted(taken) if when % 2]
    assert before in ([], [2], [2, 4]) if resets else before == [2, 4, 6, 8, 10][: len(before)]
    assert after == [start + 2 * number for number in range(len(after))] and bool(after) is bool(resets)
    assert "0 waiting" in repr(series)
    assert not armed_timers()


scenarios: dict[str, Scenario] = {
    "sleep": sleeps,
    "timeout, call": partial(limits, "call", 2, 1),
    "timeout, call, too short": partial(limits, "call until", 1, 1),
    "timeout, block": partial(limits, "block", 2, 0),
    "timeout, block, too short": partial(limits, "block", 1, 0),
    "timeout, moved": partial(limits, "moved", 2, 0),
    "timeout, call, cancelled at the end": partial(limits, "call", 2, 1, 2),
    "timeout, block, cancelled at the end": partial(limits, "block", 1, 1, 1),
    "timeout, call, cancelled behind it": partial(limits, "call", 1, 1, 1.5),
    "nested timeouts, at once": partial(nests, 1, 1, 1),
    "nested timeouts, inner first": partial(nests, 2, 1, 2),
    "nested timeouts, by hand": partial(nests, 1, 2, 0.5),
    **{f"interval, {missed.value}": partial(ticks, missed, 1) for missed in MissedTickBehavior},
    "interval, two parties": partial(ticks, MissedTickBehavior.BURST, 2),
    "interval, a busy party": partial(ticks, MissedTickBehavior.BURST, 1, 1.5),
    "interval, reset": partial(begins_anew, 1, 5),
    "interval, reset, two parties": partial(begins_anew, 2, 5),
    "interval, reset to the past, two parties": partial(begins_anew, 2, 1),
}


@pytest.mark.parametrize("name", scenarios)
def test_in_any_order(name: str) -> None:
    explore(scenarios[name], runs=40)


@pytest.mark.parametrize("name", scenarios)
def test_cancelled_anywhere(name: str) -> None:
    explore_cancellations(scenarios[name], runs=60)
