"""Timers in any order of their steps, cancelled at each of their awaits, and broken on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from yamanote.testing import Counterexample, explore, explore_cancellations, replay
from yamanote.time import Timer, TimerDelayPolicy, _timer, create_timer, sleep, time

Scenario = Callable[..., Coroutine[Any, Any, None]]


def armed_timers() -> int:
    loop: Any = asyncio.get_running_loop()
    return sum(not timer.cancelled() for timer in loop._scheduled)


async def owns_its_calls(policy: TimerDelayPolicy, takes: float, *, disturbed: bool) -> None:
    """Calls begin on the schedule, as their policy says, and have ended when the block has, however that ends."""
    begun: list[float] = []
    running: list[float] = []

    async def call(interval: float) -> None:
        now = time()
        assert now in (0, 1, 2, 3) and now not in begun
        assert not running or policy is not TimerDelayPolicy.SKIP
        begun.append(now)
        running.append(now)
        try:
            await sleep(takes)
        except asyncio.CancelledError:
            await sleep(0.25)
            raise
        finally:
            running.remove(now)

    try:
        async with create_timer(call, 1, policy) as timer:
            await sleep(3.5)
    finally:
        assert not running
        assert timer.is_finished()
    assert not armed_timers()
    if not disturbed:
        assert begun == ([0, 2] if policy is TimerDelayPolicy.SKIP and takes > 1 else [0, 1, 2, 3])
    await sleep(3)
    assert not running  # nobody comes late
    assert len(asyncio.all_tasks()) == 1 or disturbed


async def ends_in_silence(policy: TimerDelayPolicy, *, disturbed: bool) -> None:
    """Who awaits a timer that was stopped gets None, and is cancelled only when somebody has cancelled them."""

    async def call(interval: float) -> None:
        await sleep(1.5)

    async def wait() -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            assert await timer is None
            assert timer.is_finished()
        except asyncio.CancelledError:
            assert task.cancelling()
            raise

    timer = create_timer(call, 1, policy)
    parties = [asyncio.create_task(wait()) for _ in range(2)]
    try:
        await sleep(2)
    finally:
        timer.cancel()
        await asyncio.wait(parties)
    assert not any(not party.cancelled() and party.exception() for party in parties)
    assert disturbed or not any(party.cancelled() for party in parties)


async def goes_on(policy: TimerDelayPolicy, *, disturbed: bool) -> None:
    """What becomes of its calls is nothing to the timer, except that it reports the errors, once."""
    begun: list[float] = []
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))

    async def call(interval: float) -> None:
        begun.append(time())
        if len(begun) in (1, 3):
            raise errors[len(reported)]
        try:
            await sleep(1.25)
        except asyncio.CancelledError:  # and does not obey
            await sleep(0.25)

    errors = [OSError(), OSError(), OSError()]
    async with create_timer(call, 1, policy):
        await sleep(4.5)
        assert reported == errors[: len(reported)]
        if not disturbed:
            assert begun == ([0, 1, 3, 4] if policy is TimerDelayPolicy.SKIP else [0, 1, 2, 3, 4])
            assert len(reported) == 2


scenarios: dict[str, Scenario] = {
    **{
        f"calls of {takes} s, {policy.value}": partial(owns_its_calls, policy, takes)
        for policy in TimerDelayPolicy
        for takes in (0.5, 1.5)
    },
    "awaited": partial(ends_in_silence, TimerDelayPolicy.DEFAULT),
    **{f"failing, {policy.value}": partial(goes_on, policy) for policy in TimerDelayPolicy},
}


@pytest.mark.parametrize("name", scenarios)
def test_in_any_order(name: str) -> None:
    explore(partial(scenarios[name], disturbed=False), runs=30)


@pytest.mark.parametrize("name", scenarios)
def test_cancelled_anywhere(name: str) -> None:
    explore_cancellations(partial(scenarios[name], disturbed=True), runs=50)


def end_with_the_first_error(timer: Timer, call: asyncio.Task[None]) -> None:
    del timer._calls[call]
    if not call.cancelled() and call.exception():
        timer.abort()


def drop_errors(timer: Timer, call: asyncio.Task[None]) -> None:
    del timer._calls[call]
    if not call.cancelled():
        call.exception()


def report_what_was_cancelled(timer: Timer, call: asyncio.Task[None]) -> None:
    del timer._calls[call]
    error = asyncio.CancelledError() if call.cancelled() else call.exception()
    if error is not None:
        call.get_loop().call_exception_handler({"message": "failed", "exception": error})


async def do_not_wait(*calls: asyncio.Task[None]) -> None:
    for call in calls:
        call.cancel()


async def leave_them_alone(*calls: asyncio.Task[None]) -> None:
    pass


class Hasty(Exception):
    """What nobody raises: a cancellation goes on."""


teeth: dict[str, tuple[object, str, object, str]] = {
    "a failing call ends the timer": (Timer, "_ended", end_with_the_first_error, "failing, default"),
    "errors are dropped": (Timer, "_ended", drop_errors, "failing, default"),
    "a cancelled call is an error": (Timer, "_ended", report_what_was_cancelled, "calls of 1.5 s, default"),
    "the end of the calls is not waited for": (_timer, "cancel_and_wait", do_not_wait, "calls of 1.5 s, default"),
    "the calls go on": (_timer, "cancel_and_wait", leave_them_alone, "calls of 1.5 s, cancel"),
    "a stopped timer was cancelled": (_timer, "CancelledError", Hasty, "awaited"),
}


@pytest.mark.parametrize("tooth", teeth)
def test_a_wrong_variant_is_caught(tooth: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, wrong, scenario = teeth[tooth]
    monkeypatch.setattr(owner, name, wrong)
    broken = partial(scenarios[scenario], disturbed=False)
    with pytest.raises(Counterexample) as found:
        explore(broken)
    with pytest.raises(Counterexample):
        replay(broken, found.value.token)
