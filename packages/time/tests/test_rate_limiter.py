"""Rate limiters: when permits are due, who gets them, and what the cancelled leave."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from yamanote.runtime import BUDGET, TaskWaiter, park, park_thread, run, yield_now
from yamanote.time import RateLimiter, VirtualClock, sleep, time, timeout


def virtual(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """The test on a loop whose virtual time begins at 0."""

    def in_no_time() -> None:
        run(test(), loop_factory=VirtualClock().loop_factory)

    in_no_time.__name__ = test.__name__
    return in_no_time


async def times(limiter: RateLimiter, count: int, need: int = 1) -> list[float]:
    """When each of `count` calls in a row is let through."""
    taken = []
    for _ in range(count):
        await limiter.acquire_many(need)
        taken.append(time())
    return taken


def armed_timers() -> int:
    loop: Any = asyncio.get_running_loop()
    return sum(not timer.cancelled() for timer in loop._scheduled)


# ------------------------------------------------------------------ when


@virtual
async def test_permits_come_evenly_and_the_first_at_once() -> None:
    assert await times(RateLimiter(2), 5) == [0, 0.5, 1, 1.5, 2]


@virtual
async def test_the_rate_is_per_so_many_seconds() -> None:
    assert await times(RateLimiter(3, 60), 4) == [0, 20, 40, 60]
    await sleep(1000)
    assert await times(RateLimiter(0.5), 3) == [1060, 1062, 1064]


@virtual
async def test_a_burst_comes_at_once_and_then_the_rate() -> None:
    assert await times(RateLimiter(1, burst=3), 6) == [0, 0, 0, 1, 2, 3]


@virtual
async def test_a_quiet_time_is_made_up_for_up_to_the_burst() -> None:
    limiter = RateLimiter(1, burst=3)
    await times(limiter, 3)
    await sleep(2)
    assert await times(limiter, 3) == [2, 2, 3]
    await sleep(1000)
    assert await times(limiter, 4) == [1003, 1003, 1003, 1004]


@virtual
async def test_nothing_drifts_in_a_million_permits() -> None:
    limiter = RateLimiter(10, burst=1000)
    for _ in range(1000):
        await limiter.acquire_many(1000)
    assert time() == 999 * 1000 / 10
    await limiter.acquire()
    assert time() == 999 * 1000 / 10 + 0.1


@virtual
async def test_weights_count() -> None:
    limiter = RateLimiter(1, burst=4)
    assert await times(limiter, 3, need=3) == [0, 2, 5]
    await limiter.acquire()
    assert time() == 6


@virtual
async def test_in_any_time_there_are_no_more_than_burst_and_rate_allow() -> None:
    async def take(pause: float) -> None:
        for _ in range(20):
            await limiter.acquire_many(need := 1 + len(taken) % 3)
            taken.extend([time()] * need)
            await sleep(pause)

    limiter, taken = RateLimiter(2, burst=3), list[float]()
    await asyncio.gather(*map(take, (0, 0.3, 1, 7)))
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            assert last - first + 1 <= 3 + 2 * (taken[last] - taken[first]) + 1e-9


def test_a_limiter_of_the_past_is_full_on_a_new_clock() -> None:
    limiter = RateLimiter(1, 1000)
    for _ in range(2):
        assert run(times(limiter, 2), loop_factory=VirtualClock().loop_factory) == [0, 1000]


# ------------------------------------------------------------------ a loop that wakes up late


class LateLoop(asyncio.SelectorEventLoop):
    """A loop whose time passes when the test says so, or to the next timer, and a bit more."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.late = 0.0
        self._selector: Any
        select = self._selector.select

        def pass_time(timeout: float | None = None) -> Any:
            if timeout:
                self.now += timeout + self.late
            return select(0)

        self._selector.select = pass_time

    def time(self) -> float:
        return self.now


@pytest.mark.parametrize("late", [0.004, 0.0005])
def test_wake_ups_that_are_a_bit_late_do_not_lower_the_rate(late: float) -> None:
    async def main() -> None:
        loop.late = late
        limiter = RateLimiter(1000)
        await asyncio.gather(*(limiter.acquire() for _ in range(2001)))
        assert 2 <= time() <= 2 + 2 * late

    loop = LateLoop()
    run(main(), loop_factory=lambda: loop)


def test_what_falls_due_while_the_loop_is_blocked_does_not_come_in_a_burst() -> None:
    async def main() -> None:
        limiter = RateLimiter(1, burst=2)
        tasks = [asyncio.create_task(times(limiter, 1)) for _ in range(6)]
        await yield_now()
        loop.now += 10
        assert [taken for task in tasks for taken in await task] == [0, 0, 10, 10, 11, 12]

    loop = LateLoop()
    run(main(), loop_factory=lambda: loop)


def test_a_quiet_time_adds_nothing_to_the_burst() -> None:
    async def main() -> None:
        limiter = RateLimiter(1000)
        for _ in range(10):
            assert limiter.try_acquire()
            assert not limiter.try_acquire()
            loop.now += 0.003  # less than what counts as late
            first, second = TaskWaiter[None](), TaskWaiter[None]()
            limiter.register(first)
            limiter.register(second)
            assert first.settled and not second.settled
            limiter.withdraw(second)
            loop.now += 0.003

    loop = LateLoop()
    run(main(), loop_factory=lambda: loop)


# ------------------------------------------------------------------ who


@virtual
async def test_first_in_first_out_including_weights() -> None:
    async def take(name: str, need: int) -> None:
        await limiter.acquire_many(need)
        order.append((name, time()))

    limiter, order = RateLimiter(1, burst=5), list[tuple[str, float]]()
    wants = {"a": 5, "b": 4, "c": 1, "d": 5, "e": 1}
    await asyncio.gather(*(take(*want) for want in wants.items()))
    assert order == [("a", 0), ("b", 4), ("c", 5), ("d", 10), ("e", 11)]


@virtual
async def test_a_newcomer_takes_nothing_while_somebody_waits() -> None:
    limiter = RateLimiter(1, burst=2)
    assert limiter.try_acquire()
    waiting = asyncio.create_task(times(limiter, 1, need=2))
    await yield_now()
    assert not limiter.try_acquire()  # though one permit is there
    await sleep(0.5)
    newcomer = asyncio.create_task(times(limiter, 1))
    assert await waiting == [1]
    assert await newcomer == [2]


@virtual
async def test_try_acquire_takes_what_is_due_and_never_waits() -> None:
    limiter = RateLimiter(1, burst=3)
    assert limiter.try_acquire(2)
    assert not limiter.try_acquire(2)
    assert limiter.try_acquire()
    await sleep(1)
    assert limiter.try_acquire()
    assert not limiter.try_acquire()


@virtual
async def test_what_is_due_completes_at_once_within_the_budget() -> None:
    async def other() -> None:
        turns.append(taken)

    turns: list[int] = []
    limiter = RateLimiter(1, burst=10 * BUDGET)
    task = asyncio.create_task(other())
    for taken in range(2 * BUDGET):  # noqa: B007
        await limiter.acquire()
    assert turns == [BUDGET]
    await task


# ------------------------------------------------------------------ who gives up


@virtual
async def test_those_behind_one_that_gives_up_move_on() -> None:
    limiter = RateLimiter(1, burst=5)
    await limiter.acquire_many(5)
    first, second, third = (asyncio.create_task(times(limiter, 1, need)) for need in (5, 1, 2))
    await sleep(2.5)
    first.cancel()
    assert await second == [2.5]
    assert await third == [3]


@virtual
async def test_a_permit_handed_to_a_cancelled_task_goes_to_the_next() -> None:
    limiter = RateLimiter(1)
    await limiter.acquire()
    first, second = (asyncio.create_task(times(limiter, 1)) for _ in range(2))
    await yield_now()
    asyncio.get_running_loop().call_at(1, first.cancel)  # behind the timer that hands it the permit
    assert await second == [1]
    assert first.cancelled()


@virtual
async def test_a_permit_that_comes_back_late_does_not_overflow_the_bucket() -> None:
    limiter = RateLimiter(1, burst=2)
    waiter: TaskWaiter[None] = TaskWaiter()
    limiter.register(waiter)
    assert waiter.settled
    await sleep(100)  # the bucket is full
    assert limiter.try_acquire(2)
    limiter.withdraw(waiter)
    assert not limiter.try_acquire()


@virtual
async def test_a_time_limit_takes_no_permit() -> None:
    limiter = RateLimiter(1)
    await limiter.acquire()
    with pytest.raises(TimeoutError):
        await timeout(0.5, limiter.acquire())
    with pytest.raises(TimeoutError):
        await timeout(0.4, limiter.acquire_many(1))
    await limiter.acquire()
    assert time() == 1


@virtual
async def test_no_timer_is_left_when_nobody_waits() -> None:
    limiter = RateLimiter(1)
    await limiter.acquire()
    tasks = [asyncio.create_task(limiter.acquire()) for _ in range(3)]
    await yield_now()
    assert armed_timers() == 1
    loop: Any = asyncio.get_running_loop()
    assert len(loop._scheduled) == 1  # nor has any other been there
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert armed_timers() == 0
    await limiter.acquire()
    assert armed_timers() == 0


@virtual
async def test_one_party_can_wait_for_two_limiters_and_takes_from_one() -> None:
    slow, fast = RateLimiter(1, 10), RateLimiter(1)
    await slow.acquire()
    await fast.acquire()
    waiter: TaskWaiter[None] = TaskWaiter()
    branches = [(slow, waiter), (fast.acquire_many(1), waiter.branch())]
    for limiter, branch in branches:
        limiter.register(branch)
    await waiter.future
    for limiter, branch in branches:
        if not branch.settled:
            limiter.withdraw(branch)
    assert time() == 1
    await slow.acquire()
    assert time() == 10


def test_a_dead_party_does_not_block_those_behind_it(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        limiter = RateLimiter(1, burst=2)
        await limiter.acquire()
        dead: TaskWaiter[None] = TaskWaiter()
        limiter.acquire_many(2).register(dead)
        assert not limiter.try_acquire()
        assert dead.claim()  # by another branch
        assert limiter.try_acquire()
        limiter.withdraw(dead)
        await limiter.acquire()
        assert time() == 1

    run(main(), loop_factory=VirtualClock().loop_factory)
    assert capsys.readouterr().err == ""


# ------------------------------------------------------------------ loops


def test_a_party_whose_loop_was_closed_is_passed_over() -> None:
    limiter = RateLimiter(1, 1000)

    async def leave_one_waiting() -> None:
        await limiter.acquire()
        waiter: TaskWaiter[None] = TaskWaiter()
        limiter.register(waiter)  # and is never withdrawn

    loop = VirtualClock().loop_factory()
    loop.run_until_complete(leave_one_waiting())
    loop.close()
    assert run(times(limiter, 2), loop_factory=VirtualClock().loop_factory) == [1000, 2000]


def test_no_loop_is_needed_to_make_one() -> None:
    assert "10 in 60 s, burst of 3, 0 waiting" in repr(RateLimiter(10, 60, burst=3))
    assert "2 of <RateLimiter" in repr(RateLimiter(10, burst=3).acquire_many(2))


def test_a_plain_thread_is_refused_as_a_party_that_has_no_timer(capsys: pytest.CaptureFixture[str]) -> None:
    limiter = RateLimiter(1)
    for selectable in (limiter, limiter.acquire_many(1)):
        with pytest.raises(RuntimeError, match="blocking_acquire"):
            park_thread(selectable)
    assert "0 waiting" in repr(limiter)
    assert limiter.try_acquire()
    assert capsys.readouterr().err == ""


async def test_loops_of_several_threads_share_one_limiter() -> None:
    """Each waits for its turn in the one queue, whichever loop the party before it belongs to."""
    limiter = RateLimiter(2000)
    everybody = threading.Barrier(3)

    async def take() -> list[float]:
        everybody.wait(10)
        return [moment for party in await asyncio.gather(*(times(limiter, 5) for _ in range(4))) for moment in party]

    def in_a_loop_of_its_own() -> list[float]:
        return run(take(), loop_factory=asyncio.SelectorEventLoop)

    start = time()
    parties = await asyncio.gather(*(asyncio.to_thread(in_a_loop_of_its_own) for _ in range(3)))
    taken = [moment for party in parties for moment in party]
    assert len(taken) == 60
    assert max(taken) - start >= 59 / 2000 - 0.005  # as far as late wake-ups may be made up for
    assert "0 waiting" in repr(limiter)


async def test_a_cancelled_party_of_one_loop_passes_its_turn_to_another_loop() -> None:
    limiter = RateLimiter(1, 3600, burst=2)
    await limiter.acquire()
    first = asyncio.create_task(park(limiter.acquire_many(2)))
    await yield_now()

    def other_loop() -> None:
        run(limiter.acquire(), loop_factory=asyncio.SelectorEventLoop)  # would wait an hour for the party before it

    second = asyncio.create_task(asyncio.to_thread(other_loop))
    while "2 waiting" not in repr(limiter):
        await yield_now()
    first.cancel()
    await second
    assert first.cancelled()


# ------------------------------------------------------------------ nonsense


@pytest.mark.parametrize("nonsense", [0, -1, math.nan, math.inf])
def test_a_rate_and_its_time_must_be_positive_and_finite(nonsense: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        RateLimiter(nonsense)
    with pytest.raises(ValueError, match="per"):
        RateLimiter(1, nonsense)


@pytest.mark.parametrize("nonsense", ["1", None, [1]])
def test_what_is_no_number_is_refused_by_its_name(nonsense: Any) -> None:
    with pytest.raises(TypeError, match="rate"):
        RateLimiter(nonsense)
    with pytest.raises(TypeError, match="per"):
        RateLimiter(1, nonsense)
    with pytest.raises(TypeError, match="burst"):
        RateLimiter(1, burst=nonsense)


@pytest.mark.parametrize("nonsense", [0, -1])
def test_a_burst_and_a_count_are_at_least_one(nonsense: int) -> None:
    with pytest.raises(ValueError, match="burst"):
        RateLimiter(1, burst=nonsense)
    with pytest.raises(ValueError, match="count"):
        RateLimiter(1).acquire_many(nonsense)
    with pytest.raises(ValueError, match="count"):
        RateLimiter(1).try_acquire(nonsense)


@pytest.mark.parametrize("nonsense", [1.5, True, "1"])
def test_counts_are_whole_numbers(nonsense: Any) -> None:
    with pytest.raises(TypeError, match="count"):
        RateLimiter(1, burst=5).acquire_many(nonsense)


@pytest.mark.parametrize("name", ["rate", "per", "burst"])
def test_what_no_float_can_hold_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be positive and finite"):
        RateLimiter(**{"rate": 1, name: 10**400})


def test_more_than_the_burst_would_never_be_due() -> None:
    with pytest.raises(ValueError, match="at most the burst"):
        RateLimiter(100, burst=5).acquire_many(6)
    with pytest.raises(ValueError, match="at most the burst"):
        RateLimiter(100, burst=5).try_acquire(6)


@virtual
async def test_it_can_be_parked_on() -> None:
    limiter = RateLimiter(1, burst=2)
    await park(limiter)
    await park(limiter.acquire_many(2))
    assert time() == 1
