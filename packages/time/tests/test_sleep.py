"""Sleeping on the loop's clock."""

import asyncio
import math
from collections.abc import Coroutine
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from yamanote.runtime import run, yield_now
from yamanote.time import VirtualClock, instant, sleep, sleep_until, time


def jump(coroutine: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualClock().loop_factory) as runner:
        runner.run(coroutine)


def test_sleepers_wake_in_the_order_of_their_time_however_long_it_is() -> None:
    async def main() -> None:
        woken: list[float] = []

        async def sleeper(seconds: float) -> None:
            await sleep(seconds)
            assert time() == pytest.approx(seconds)
            woken.append(seconds)

        async with asyncio.TaskGroup() as group:
            for seconds in (86400, 0.5, 3600, 2):
                group.create_task(sleeper(seconds))
        assert woken == [0.5, 2, 3600, 86400]

    jump(main())


def test_sleep_until_waits_for_the_moment_and_no_longer() -> None:
    async def main() -> None:
        start = instant()
        await sleep_until(start + 7)
        assert start.elapsed() == pytest.approx(7)
        await sleep_until(start + 7)
        assert start.elapsed() == pytest.approx(7)

    jump(main())


@pytest.mark.parametrize("seconds", [0, 0.0, -1, -math.inf, False])
async def test_sleeping_for_nothing_lets_the_others_run_exactly_once(seconds: float) -> None:
    seen: list[str] = []
    asyncio.get_running_loop().call_soon(seen.append, "other")
    await sleep(seconds)
    assert seen == ["other"]

    turns = count_turns()
    await sleep(seconds)
    assert turns() == 1


async def test_sleeping_until_the_past_takes_one_turn() -> None:
    turns = count_turns()
    await sleep_until(time() - 1)
    assert turns() == 1


@pytest.mark.parametrize("nonsense", [math.nan, "1", None, 1j, 10**400, Fraction(1, 2), Decimal(1)])
async def test_nonsense_is_refused_by_name(nonsense: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^seconds must be a number of seconds"):
        await sleep(nonsense)
    with pytest.raises((TypeError, ValueError), match=r"^when must be a number of seconds"):
        await sleep_until(nonsense)


async def test_a_timedelta_is_refused_with_advice() -> None:
    with pytest.raises(TypeError, match=r"seconds must be .* not timedelta: call its total_seconds"):
        await sleep(timedelta(seconds=1))  # type: ignore[arg-type]


class Exact(float):
    """Like NumPy's `float64`: a float by another name."""


@pytest.mark.parametrize("seconds", [10**9, 1e9, 10**9 + 1, Exact(7.5), True, 1e300])
def test_any_int_and_any_float_will_do_however_many_seconds_they_are(seconds: float) -> None:
    async def main() -> None:
        await sleep(seconds)
        assert time() == seconds
        await sleep_until(2 * seconds)
        assert time() == 2 * seconds

    jump(main())


@pytest.mark.parametrize("forever", [math.inf, 1e9])
async def test_a_cancelled_sleep_leaves_no_timer(forever: float) -> None:
    loop = asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []
    call_at = loop.call_at

    def recording_call_at(*arguments: Any, **keywords: Any) -> asyncio.TimerHandle:
        timers.append(call_at(*arguments, **keywords))
        return timers[-1]

    loop.call_at = recording_call_at  # type: ignore[method-assign]
    for sleeping in (sleep(forever), sleep_until(time() + forever)):
        task = asyncio.create_task(sleeping)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(timers) == 2
    assert all(timer.cancelled() for timer in timers)


@pytest.mark.parametrize("sleeping", [lambda: sleep(1), lambda: sleep_until(1)], ids=["sleep", "sleep_until"])
def test_a_sleep_cancelled_in_the_turn_of_its_timer_raises_nothing_else(sleeping: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        errors: list[object] = []
        loop.set_exception_handler(lambda _, context: errors.append(context))
        loop.call_at(1, lambda: tasks[0].cancel())  # in front of its timer
        tasks = [asyncio.create_task(sleeping()) for _ in range(2)]
        await asyncio.sleep(0)
        loop.call_at(1, tasks[1].cancel)  # and behind it
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        assert errors == []

    jump(main())


def test_sleepers_whose_time_has_come_before_the_loop_looks_are_woken() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        sleepers = [asyncio.create_task(sleep(1e-6 * (number % 100 + 1))) for number in range(10_000)]
        await asyncio.sleep(0)
        before = loop.time()
        while loop.time() < before + 0.001:  # all of them are due when the loop works out how long it may wait
            pass
        await asyncio.wait(sleepers)

    asyncio.run(main())


@pytest.mark.parametrize("busy", [yield_now, lambda: sleep(0), lambda: sleep_until(0)], ids=["yield", "0", "past"])
async def test_tasks_that_always_run_starve_no_sleeper(busy: Any) -> None:
    sleeper = asyncio.create_task(sleep(0.001))

    async def run() -> None:
        while not sleeper.done():
            await busy()

    await asyncio.gather(run(), run())


async def test_sleeps_that_are_cancelled_do_not_pile_up() -> None:
    loop: Any = asyncio.get_running_loop()
    most = 0
    for _ in range(5000):
        task = asyncio.create_task(sleep(3600))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        most = max(most, len(loop._scheduled))
    assert most < 250


def test_sleepers_that_a_run_leaves_behind_do_not_wake_in_the_next_one() -> None:
    async def rest() -> None:
        try:
            await sleep(1)
        finally:
            ended.append(asyncio.current_task().cancelling())  # type: ignore[union-attr]

    async def main() -> None:
        tasks.append(asyncio.create_task(rest()))
        await asyncio.sleep(0)

    ended: list[int] = []
    tasks: list[asyncio.Task[None]] = []
    run(main(), clock=VirtualClock())
    assert ended == [1]
    run(sleep(10), clock=VirtualClock())
    assert tasks[0].cancelled()


def count_turns() -> Any:
    """A function that tells how many loop turns have passed since."""
    loop = asyncio.get_running_loop()
    turns = 0
    stopped = False

    def turn() -> None:
        nonlocal turns
        if not stopped:
            turns += 1
            loop.call_soon(turn)

    def stop() -> int:
        nonlocal stopped
        stopped = True
        return turns

    loop.call_soon(turn)
    return stop
