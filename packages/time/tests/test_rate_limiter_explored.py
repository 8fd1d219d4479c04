"""Rate limiters in any order of their steps, cancelled at each await; and wrong ones, which that must catch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yamanote.runtime import Waiter, run
from yamanote.testing import Counterexample, explore, explore_cancellations, replay
from yamanote.time import RateLimiter, VirtualClock, sleep, time, timeout

Scenario = Callable[[], Coroutine[Any, Any, None]]


@dataclass
class Party:
    """One call that wanted permits, in the order of arrival: when it came, when it ended, and whether it has them."""

    need: int
    came: float
    ended: float = inf
    served: bool = False


def check(parties: Iterable[Party], burst: int) -> float:
    """Each was served as soon as those before it had ended and its permits were due; return when the bucket is full."""
    full = ready = 0.0
    for party in parties:
        full = max(full, party.came)
        if party.served:
            due = full + party.need - burst
            assert party.ended == max(party.came, ready, due)
            full += party.need
        assert party.ended < inf
        ready = max(ready, party.ended)
    return full


async def shares(burst: int, needs: list[int], *, patience: float = inf, cancelled_at: float = inf) -> None:
    """Everybody gets permits in turn, none too early and none too late, whoever gives up."""
    limiter = RateLimiter(1, burst=burst)
    parties: list[Party] = []

    async def take(need: int) -> None:
        for _ in range(2):
            party = Party(need, time())
            parties.append(party)
            try:
                await timeout(patience, limiter.acquire_many(need))
                party.served = True
            except TimeoutError:
                pass
            finally:
                party.ended = time()

    tasks = [asyncio.create_task(take(need)) for need in needs]
    if cancelled_at < inf:
        asyncio.get_running_loop().call_at(cancelled_at, tasks[0].cancel)
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()
    full = check(parties, burst)
    loop: Any = asyncio.get_running_loop()
    assert all(timer.cancelled() or timer.when() == cancelled_at for timer in loop._scheduled)
    assert "0 waiting" in repr(limiter)
    now = time()
    await limiter.acquire_many(burst)
    assert time() == max(now, full)


async def tries() -> None:
    """Who does not wait gets what is due when nobody waits, and nothing else."""
    limiter = RateLimiter(1, burst=2)
    parties: list[Party] = []

    async def wait(need: int) -> None:
        party = Party(need, time())
        parties.append(party)
        try:
            await limiter.acquire_many(need)
            party.served = True
        finally:
            party.ended = time()

    async def grab() -> None:
        for _ in range(4):
            party = Party(1, time())
            if limiter.try_acquire():
                party.served = True
                party.ended = party.came
                parties.append(party)
            await sleep(0.5)

    tasks = [asyncio.create_task(wait(2)), asyncio.create_task(grab()), asyncio.create_task(wait(1))]
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()
    full, now = check(parties, 2), time()
    await limiter.acquire_many(2)
    assert time() == max(now, full)


scenarios: dict[str, Scenario] = {
    "evenly": partial(shares, 1, [1, 1, 1]),
    "weights": partial(shares, 3, [3, 1, 2]),
    "impatient": partial(shares, 2, [2, 1, 2], patience=1.5),
    "cancelled when it is due": partial(shares, 2, [2, 1, 1], cancelled_at=2),
    "cancelled in front": partial(shares, 5, [5, 1, 2], cancelled_at=2.5),
    "tries": tries,
}


@pytest.mark.parametrize("name", scenarios)
def test_in_any_order(name: str) -> None:
    explore(scenarios[name], runs=60)


@pytest.mark.parametrize("name", scenarios)
def test_cancelled_anywhere(name: str) -> None:
    explore_cancellations(scenarios[name], runs=80)


quarters = st.integers(0, 40).map(lambda number: number / 4)


@given(st.integers(1, 4), st.lists(st.tuples(quarters, st.integers(1, 4), quarters | st.just(inf)), max_size=8))
def test_whoever_comes_when_for_how_much_and_for_how_long(burst: int, calls: list[tuple[float, int, float]]) -> None:
    async def main() -> None:
        limiter = RateLimiter(1, burst=burst)
        parties: list[Party] = []

        async def take(when: float, need: int, patience: float) -> None:
            await sleep(when)
            party = Party(min(need, burst), time())
            parties.append(party)
            try:
                await timeout(patience, limiter.acquire_many(party.need))
                party.served = True
            except TimeoutError:
                pass
            party.ended = time()

        await asyncio.gather(*(take(*call) for call in calls))
        full, now = check(parties, burst), time()
        await limiter.acquire_many(burst)
        assert time() == max(now, full)

    run(main(), loop_factory=VirtualClock().loop_factory)


# ------------------------------------------------------------------ teeth

delist = RateLimiter._delist


def keep_the_permits(limiter: RateLimiter, waiter: Waiter[Any]) -> None:
    if not waiter.settled:
        delist(limiter, waiter)


def give_back_twice(limiter: RateLimiter, waiter: Waiter[Any]) -> None:
    delist(limiter, waiter)
    if waiter.settled:
        delist(limiter, waiter)


def leave_the_others_waiting(limiter: RateLimiter, waiter: Waiter[Any]) -> None:
    if waiter.settled:
        limiter._taken -= waiter.operation.need
    elif waiter in limiter._waiters:
        limiter._waiters.remove(waiter)


def last_in_first_out(limiter: RateLimiter, waiter: Waiter[Any]) -> None:
    if not limiter._waiters:
        limiter._refill(waiter.operation.loop.time())
    limiter._waiters.appendleft(waiter)
    limiter._serve()


def overtake(limiter: RateLimiter, need: int, loop: asyncio.AbstractEventLoop) -> bool:
    limiter._refill(loop.time())
    if limiter._due(need) > loop.time():
        return False
    limiter._taken += need
    return True


def keep_the_timer(limiter: RateLimiter, due: float, loop: asyncio.AbstractEventLoop) -> bool:
    if limiter._timer is None:
        limiter._timer, limiter._timer_loop = loop.call_at(due, limiter._look, loop), loop
    return True


def forget_to_disarm(limiter: RateLimiter) -> None:
    limiter._timer = limiter._timer_loop = None


teeth: dict[str, tuple[str, Callable[..., Any], str]] = {
    "a cancelled party keeps its permits": ("_delist", keep_the_permits, "cancelled when it is due"),
    "permits come back twice": ("_delist", give_back_twice, "cancelled when it is due"),
    "nobody moves on when the first gives up": ("_delist", leave_the_others_waiting, "cancelled in front"),
    "last in, first out": ("_enlist", last_in_first_out, "evenly"),
    "newcomers overtake": ("_try_acquire", overtake, "tries"),
    "the timer is never moved": ("_wake_at", keep_the_timer, "cancelled in front"),
    "a timer runs for nobody": ("_disarm", forget_to_disarm, "impatient"),
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # what a broken scenario leaves behind
@pytest.mark.parametrize("tooth", teeth)
def test_a_wrong_one_is_caught(tooth: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, wrong, name = teeth[tooth]
    monkeypatch.setattr(RateLimiter, method, wrong)
    with pytest.raises(Counterexample) as found:
        explore_cancellations(scenarios[name])
    with pytest.raises(Counterexample):
        replay(scenarios[name], found.value.token)
