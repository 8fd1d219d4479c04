"""Sleeping on the loop's clock."""

import asyncio
import math
from collections.abc import Coroutine
from typing import Any

import pytest

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


@pytest.mark.parametrize("nonsense", [math.nan, "1", None, 1j])
async def test_nonsense_is_refused_by_name(nonsense: object) -> None:
    with pytest.raises((TypeError, ValueError), match="seconds"):
        await sleep(nonsense)  # type: ignore[arg-type]


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


@pytest.mark.parametrize("sleeping", [lambda: sleep(1), lambda: sleep_until(time() + 1)])
@pytest.mark.parametrize("offset", [-1e-10, 0])
def test_a_sleep_cancelled_in_the_turn_of_its_timer_raises_nothing_else(sleeping: Any, offset: float) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        errors: list[object] = []
        loop.set_exception_handler(lambda _, context: errors.append(context))
        task = asyncio.create_task(sleeping())
        await asyncio.sleep(0)
        loop.call_at(1 + offset, task.cancel)
        await asyncio.wait([task])
        assert task.cancelled()
        assert errors == []

    jump(main())


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
