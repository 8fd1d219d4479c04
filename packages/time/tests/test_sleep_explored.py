"""Resettable sleeps in any order of their steps, cancelled at each of their awaits, and broken on purpose."""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Callable, Coroutine, Iterable, Iterator
from functools import partial
from typing import Any

import pytest

from yamanote.runtime import TaskWaiter, Waiter, park
from yamanote.testing import Counterexample, explore, explore_cancellations, replay
from yamanote.time import Sleep, sleep, time
from yamanote.time._timetable import Timetable

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


def dropped(scenario: Scenario) -> Scenario:
    """`scenario`, which leaves no timer behind when it has dropped its sleeps."""

    async def leaves_nothing() -> None:
        await scenario()
        assert not armed_timers()

    return leaves_nothing


async def moves(moment: float, parties: int, steps: list[tuple[float, float]]) -> None:
    """All who wait are woken in one moment, the last one that was set before it came.

    `steps` are when it is moved, and to when; some of them may never be made.
    """
    nap = Sleep.until(moment)
    valid = moment
    woken: list[float] = []

    async def wait() -> None:
        await nap
        woken.append(time())
        assert time() == valid or (time(), valid) in steps  # moved in the turn in which it had woken us
        assert nap.is_elapsed() or valid > time()

    async def move() -> None:
        nonlocal valid
        for at, to in steps:
            await sleep(at - time())
            if to == math.inf:
                nap.stop()
            else:
                nap.reset_at(to)
            valid = to

    def rescue() -> None:  # those who wait for ever, because who was to move it on was cancelled
        nonlocal valid
        if valid == math.inf:
            valid = time()
            nap.reset_at(valid)

    timer = asyncio.get_running_loop().call_at(20, rescue)
    waiting = [asyncio.create_task(wait()) for _ in range(parties)]
    await ended([*waiting, asyncio.create_task(move())])
    timer.cancel()
    assert len(set(woken)) <= 1
    assert len(woken) == sum(not task.cancelled() for task in waiting)
    assert "0 waiting" in repr(nap)


async def rounds(messages: int) -> None:
    """In a loop that waits for one of two things, it elapses when the other has not come for so long."""
    idle = Sleep(2)
    box: asyncio.Queue[int] = asyncio.Queue()
    received: list[int] = []
    last = time()

    async def send() -> None:
        for number in range(messages):
            await sleep(1)
            box.put_nowait(number)

    async def receive() -> None:
        nonlocal last
        while True:
            party: TaskWaiter[Any] = TaskWaiter()
            arrival = asyncio.ensure_future(box.get())
            arrival.add_done_callback(lambda _, party=party: party.future.done() or party.future.set_result(None))
            try:
                idle.register(party)
                await party.future
            finally:
                party.claim()
                idle.withdraw(party)
                arrival.cancel()
            if party.settled:
                assert time() == last + 2
                return
            received.append(arrival.result())
            last = time()
            idle.reset()

    await ended([asyncio.create_task(send()), asyncio.create_task(receive())])
    assert "0 waiting" in repr(idle)


async def again_and_again() -> None:
    """What has elapsed lets pass who comes, until it is reset."""
    nap = Sleep(1)
    passed: list[float] = []

    async def watch() -> None:
        while time() < 4:
            await nap
            passed.append(time())
            await sleep(0.5)

    async def reset() -> None:
        await sleep(2.25)
        nap.reset()
        resets.append(time())

    resets: list[float] = []
    await ended([*(asyncio.create_task(watch()) for _ in range(2)), asyncio.create_task(reset())])
    assert all(when >= 1 for when in passed)
    if resets:
        assert not any(2.25 < when < 3.25 for when in passed)
    await park(nap)


scenarios: dict[str, Scenario] = {
    "never moved": partial(moves, 2, 2, []),
    "later": partial(moves, 2, 2, [(1, 4)]),
    "later and later": partial(moves, 2, 2, [(1, 4), (3, 6), (5, 7)]),
    "earlier": partial(moves, 5, 2, [(1, 3)]),
    "to the past": partial(moves, 5, 2, [(3, 3)]),
    "in its very turn": partial(moves, 2, 2, [(2, 5)]),
    "later, then earlier": partial(moves, 2, 2, [(1, 9), (3, 5)]),
    "stopped, then begun again": partial(moves, 2, 2, [(1, math.inf), (3, 5)]),
    "rounds": partial(rounds, 3),
    "again and again": again_and_again,
}


@pytest.mark.parametrize("name", scenarios)
def test_in_any_order(name: str) -> None:
    explore(dropped(scenarios[name]), runs=40)


@pytest.mark.parametrize("name", scenarios)
def test_cancelled_anywhere(name: str) -> None:
    explore_cancellations(dropped(scenarios[name]), runs=60)


# ------------------------------------------------------------------------------------------- broken on purpose

begin_anew = Sleep._move


def keep_the_old_timer(nap: Sleep, when: float) -> None:
    nap._deadline = when


def move_to_earlier_only(nap: Sleep, when: float) -> None:
    begin_anew(nap, min(when, nap.deadline))


def stay_elapsed(nap: Sleep, when: float) -> None:
    elapsed = nap.is_elapsed()
    begin_anew(nap, when)
    if elapsed:
        nap._told = when


def wake_one(nap: Sleep, waiter: Waiter[None], taken: Any) -> None:
    waiter.settle(None)
    nap._deadline = math.inf


def wake_whenever_the_timer_fires(table: Timetable[Any], now: float) -> None:
    while table._waiters:
        waiter = table._waiters.popleft()
        if waiter.claim():
            waiter.settle(None)


def arm_once(nap: Sleep, due: float) -> None:
    if nap._timer is None and not nap._waiters[0].settled:
        nap._timer = asyncio.get_running_loop().call_at(due, nap._serve, due)
        nap._armed_for = -math.inf


def leave_the_timer(nap: Sleep) -> None:
    pass


teeth: dict[str, tuple[type, str, Callable[..., Any], str]] = {
    "an earlier moment is missed": (Sleep, "_move", keep_the_old_timer, "earlier"),
    "a later moment changes nothing": (Sleep, "_move", move_to_earlier_only, "later"),
    "once elapsed, it always is": (Sleep, "_move", stay_elapsed, "again and again"),
    "only the first is woken": (Sleep, "_hand_over", wake_one, "never moved"),
    "a timer is obeyed, though it was put off": (Timetable, "_serve", wake_whenever_the_timer_fires, "later"),
    "a timer that was too early is the last": (Sleep, "_arm", arm_once, "later"),
    "one that is dropped leaves its timer": (Sleep, "__del__", leave_the_timer, "rounds"),
}


@pytest.mark.parametrize("tooth", teeth)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_wrong_variant_is_caught(tooth: str, monkeypatch: pytest.MonkeyPatch, collected: None) -> None:
    owner, method, wrong, name = teeth[tooth]
    monkeypatch.setattr(owner, method, wrong)
    with pytest.raises(Counterexample) as found:
        explore_cancellations(dropped(scenarios[name]))
    with pytest.raises(Counterexample):
        replay(dropped(scenarios[name]), found.value.token)


@pytest.fixture
def collected() -> Iterator[None]:
    """What a broken scenario leaves behind goes before the next test."""
    yield
    gc.collect()
