"""One limiter for loops of several threads, and for plain threads: no permit comes twice and nobody sleeps on."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from yamanote.runtime import BUDGET, TaskWaiter, run, spawn_blocking
from yamanote.testing import Counterexample, explore_preemptions
from yamanote.time import RateLimiter, VirtualClock
from yamanote.time import _rate_limiter as rate_limiter

Operation = Callable[[], object]


class StandingLoop(asyncio.SelectorEventLoop):
    """Its time is what the test says."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def call(self, operation: Callable[[], object]) -> None:
        """As one of its callbacks, but right now."""
        asyncio._set_running_loop(self)
        try:
            operation()
        finally:
            asyncio._set_running_loop(None)


class Race:
    """Two loops, a limiter with permits that are due, and one party of each loop that comes to wait."""

    def __init__(self, due: int) -> None:
        self.due = due
        self.loops = [StandingLoop(), StandingLoop()]
        self.limiter = RateLimiter(1, burst=2)
        self.parties: list[TaskWaiter[None]] = []
        self.loops[0].call(partial(self.limiter.try_acquire, 2 - due))
        for loop in self.loops:
            loop.call(lambda: self.parties.append(TaskWaiter()))

    def come(self, number: int) -> None:
        self.loops[number].call(partial(self.limiter.register, self.parties[number]))

    def check(self) -> None:
        try:
            assert sum(party.settled for party in self.parties) == self.due, "not what is due"
            for now in (1.0, 2.0):
                for loop in self.loops * 2:  # the one may have left a call for the other
                    loop.now = now
                    loop.run_until_complete(asyncio.sleep(0))
                    loop.run_until_complete(asyncio.sleep(0))
            assert all(party.settled for party in self.parties), "somebody sleeps on"
        finally:
            for loop in self.loops:
                loop.close()


def both_come(due: int) -> tuple[Operation, Operation, Operation]:
    race = Race(due)
    return partial(race.come, 0), partial(race.come, 1), race.check


@pytest.mark.parametrize("due", [0, 1])
def test_one_preemption_anywhere(due: int) -> None:
    explore_preemptions(partial(both_come, due), within="yamanote.time._rate_limiter")


def comes_and_is_claimed_elsewhere() -> tuple[Operation, Operation, Operation]:
    race = Race(1)
    other_branch = race.parties[0].branch()
    claimed: list[bool] = []

    def check() -> None:
        for loop in race.loops:
            loop.close()
        assert race.parties[0].settled is not claimed[0]
        assert race.limiter._taken == 1 + race.parties[0].settled

    claim = partial(race.loops[0].call, lambda: claimed.append(other_branch.claim()))
    return partial(race.come, 0), claim, check


def test_who_is_claimed_elsewhere_takes_no_permit() -> None:
    explore_preemptions(comes_and_is_claimed_elsewhere, within="yamanote.time._rate_limiter")


class ClosingLoop(StandingLoop):
    """A loop that is closed at the very moment when another thread has something for it."""

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> asyncio.Handle:
        self.close()
        return super().call_soon_threadsafe(*args, **kwargs)


def test_a_loop_that_is_closed_when_it_is_its_turn_is_passed_over() -> None:
    loop, closing = StandingLoop(), ClosingLoop()
    limiter = RateLimiter(1)
    parties: list[TaskWaiter[None]] = []

    def come() -> None:
        parties.append(TaskWaiter())
        limiter.register(parties[-1])

    loop.call(limiter.try_acquire)
    loop.call(come)
    closing.call(come)
    loop.call(come)
    parties[0].claim()
    loop.call(partial(limiter.withdraw, parties[0]))
    assert closing.is_closed()
    loop.now = 1.0
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert not parties[1].settled and parties[2].settled


def test_a_loop_that_is_not_told_of_its_turn_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    wake_at = RateLimiter._wake_at

    def on_this_loop_only(limiter: RateLimiter, due: float, loop: asyncio.AbstractEventLoop) -> bool:
        return asyncio._get_running_loop() is not loop or wake_at(limiter, due, loop)

    monkeypatch.setattr(RateLimiter, "_wake_at", on_this_loop_only)
    with pytest.raises(Counterexample) as found:
        explore_preemptions(partial(both_come, 0), within="yamanote.time._rate_limiter")
    assert "sleeps on" in str(found.value.__cause__)


def test_a_race_for_the_last_of_the_budget_does_not_use_it_up_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RateLimiter, "_try_acquire", lambda limiter, need, loop: True)

    def operations() -> tuple[Operation, Operation, Operation]:
        limiter = RateLimiter(1)
        limiter._budget = 1
        loops = [StandingLoop(), StandingLoop()]

        def take() -> None:
            for _ in limiter.acquire().__await__():
                pass

        def check() -> None:
            for loop in loops:
                loop.close()
            assert 0 <= limiter._budget <= BUDGET

        return partial(loops[0].call, take), partial(loops[1].call, take), check

    explore_preemptions(operations, within="yamanote.time._rate_limiter")


# ------------------------------------------------------------------ plain threads


class Clock:
    """What plain threads go by. It stands still until the test says that time passes, and who is parked looks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(rate_limiter, "monotonic", lambda: self.now)

    def start(self, limiter: RateLimiter, call: Callable[[], object]) -> threading.Thread:
        """Make the call in a thread, until it waits; its thread ends when it returns, or fails."""
        before = len(limiter._waiters)
        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        while len(limiter._waiters) == before:
            time.sleep(0)
        return thread


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


HOUR = 3600


def test_a_plain_thread_waits_until_its_permit_is_due() -> None:
    limiter = RateLimiter(100)
    start = time.monotonic()
    limiter.blocking_acquire()
    limiter.blocking_acquire(timeout=60)
    limiter.acquire_many(1).blocking_acquire()
    assert time.monotonic() - start >= 0.02


def test_threads_and_tasks_are_served_in_one_queue_including_weights(clock: Clock) -> None:
    limiter = RateLimiter(1, HOUR, burst=2)
    loop = StandingLoop()
    assert limiter.try_acquire(2)
    first = clock.start(limiter, limiter.acquire_many(2).blocking_acquire)
    parties: list[TaskWaiter[None]] = []

    def come() -> None:
        parties.append(TaskWaiter())
        limiter.register(parties[0])

    loop.call(come)
    last = clock.start(limiter, limiter.blocking_acquire)
    assert not limiter.try_acquire()

    def pass_time(hours: float) -> None:
        loop.now = clock.now = hours * HOUR
        assert not limiter.try_acquire()  # and whoever is due is served
        for _ in range(2):
            loop.run_until_complete(asyncio.sleep(0))

    pass_time(1.9)
    assert "3 waiting" in repr(limiter)
    pass_time(2)
    first.join(10)
    assert not first.is_alive() and "2 waiting" in repr(limiter) and not parties[0].settled
    pass_time(3)
    assert parties[0].settled and "1 waiting" in repr(limiter)
    pass_time(4)
    last.join(10)
    assert not last.is_alive() and "0 waiting" in repr(limiter)
    loop.close()


def test_a_thread_at_the_front_wakes_up_by_itself_and_serves_the_loop_behind_it() -> None:
    limiter = RateLimiter(50)
    limiter.blocking_acquire()

    async def main() -> None:
        thread = asyncio.create_task(asyncio.to_thread(limiter.blocking_acquire))
        while "1 waiting" not in repr(limiter):
            await asyncio.sleep(0)
        await limiter.acquire()
        await thread

    run(main())


def test_a_thread_that_waits_behind_a_loop_is_told_when_it_is_at_the_front() -> None:
    limiter = RateLimiter(50)
    limiter.blocking_acquire()

    async def main() -> None:
        first = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(0)
        await asyncio.to_thread(limiter.blocking_acquire)
        assert first.done()

    run(main())


def test_a_virtual_clock_does_not_wait_for_a_thread_that_waits_behind_a_task() -> None:
    # Longer than the real time has run: or that might be one which the virtual clock comes to, and be taken for it.
    longer = HOUR + 10 * time.monotonic()
    limiter = RateLimiter(1, longer)

    async def main() -> None:
        await limiter.acquire()
        first = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(0)
        thread = asyncio.create_task(asyncio.to_thread(limiter.blocking_acquire))
        await first
        assert asyncio.get_running_loop().time() == longer
        await thread  # there it is real time, in which the limiter has not been used yet

    run(main(), clock=VirtualClock())


def test_a_thread_whose_time_is_over_takes_nothing_and_those_behind_it_move_on() -> None:
    limiter = RateLimiter(1, HOUR, burst=2)
    limiter.blocking_acquire()
    with pytest.raises(TimeoutError, match=r"within 0 seconds"):
        limiter.acquire_many(2).blocking_acquire(timeout=0)
    with pytest.raises(TimeoutError):
        limiter.acquire_many(2).blocking_acquire(timeout=-1)

    async def main() -> None:
        impatient = asyncio.create_task(asyncio.to_thread(limiter.acquire_many(2).blocking_acquire, 0.01))
        while "1 waiting" not in repr(limiter):
            await asyncio.sleep(0)
        await limiter.acquire()  # would wait an hour for the two permits of the thread
        with pytest.raises(TimeoutError):
            await impatient

    run(main())
    assert "0 waiting" in repr(limiter) and not limiter.try_acquire()


def test_an_interrupted_thread_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(sleeper: Any, end: float) -> None:
        if when == "when it has been served":
            limiter._taken = 0
            limiter._section.do(limiter._serve)
            assert sleeper.settled
        raise KeyboardInterrupt

    monkeypatch.setattr(rate_limiter._Sleeper, "sleep_until", interrupted)
    for when in ("while it waits", "when it has been served"):
        limiter = RateLimiter(1, HOUR)
        limiter.blocking_acquire()
        with pytest.raises(KeyboardInterrupt):
            limiter.blocking_acquire()
        assert "0 waiting" in repr(limiter)
        assert limiter._taken == (when == "while it waits")


def test_a_thread_whose_permit_comes_earlier_is_told(clock: Clock) -> None:
    limiter = RateLimiter(1, HOUR, burst=3)
    loop = StandingLoop()
    parties: list[TaskWaiter[None]] = []

    def come() -> None:
        parties.append(TaskWaiter())
        limiter.try_acquire(2)
        limiter.register(parties[0])

    loop.call(come)
    assert parties[0].settled
    thread = clock.start(limiter, limiter.acquire_many(2).blocking_acquire)
    sleeper: Any = limiter._waiters[0]
    assert sleeper._due == 2 * HOUR
    limiter.withdraw(parties[0])  # it was cancelled before it could look
    assert sleeper._due == HOUR
    clock.now = HOUR
    limiter._look()
    thread.join(10)
    assert not thread.is_alive()
    loop.close()


def test_a_thread_that_is_told_more_than_once_before_it_looks_sleeps_again_after_looking_once(clock: Clock) -> None:
    sleeper = rate_limiter._Sleeper(1)
    sleeper.look_at(2 * HOUR)
    sleeper.look_at(HOUR)
    assert sleeper.claim()
    sleeper.settle(None)
    sleeper.sleep_until(HOUR)  # not at all
    assert sleeper._sleep.empty()


def test_no_loop_has_a_timer_for_a_thread_at_the_front(clock: Clock) -> None:
    limiter = RateLimiter(1, HOUR)
    loop = StandingLoop()
    parties: list[TaskWaiter[None]] = []

    def come() -> None:
        limiter.try_acquire()
        parties.append(TaskWaiter())
        limiter.register(parties[0])

    loop.call(come)
    timers: Any = loop._scheduled  # type: ignore[attr-defined]
    assert not timers[0].cancelled()
    thread = clock.start(limiter, limiter.blocking_acquire)
    loop.call(partial(limiter.withdraw, parties[0]))
    assert all(timer.cancelled() for timer in timers)
    clock.now = HOUR
    limiter._look()
    thread.join(10)
    assert not thread.is_alive()
    loop.close()


def test_a_thread_that_gives_up_while_it_is_served_leaves_its_permit(clock: Clock) -> None:
    def operations() -> tuple[Operation, Operation, Operation]:
        clock.now = 0.0
        limiter = RateLimiter(1, HOUR)
        assert limiter.try_acquire()
        sleeper = rate_limiter._Sleeper(1)
        limiter._enlist(sleeper)
        clock.now = HOUR

        def check() -> None:
            assert "0 waiting" in repr(limiter)
            assert limiter.try_acquire()

        return partial(limiter.withdraw, sleeper), limiter._look, check

    explore_preemptions(operations, within="yamanote.time._rate_limiter")


def test_threads_and_loops_share_one_limiter() -> None:
    limiter = RateLimiter(2000)
    everybody = threading.Barrier(5)

    def in_a_thread() -> int:
        everybody.wait(10)
        for _ in range(10):
            limiter.blocking_acquire(60)
        return 10

    def in_a_loop() -> int:
        async def take() -> int:
            everybody.wait(10)
            for _ in range(10):
                await limiter.acquire()
            return 10

        return run(take(), loop_factory=asyncio.SelectorEventLoop)

    async def main() -> list[int]:
        calls = [in_a_thread] * 3 + [in_a_loop] * 2
        return await asyncio.gather(*(asyncio.to_thread(call) for call in calls))

    start = time.monotonic()
    assert sum(run(main())) == 50
    assert time.monotonic() - start >= 49 / 2000 - 0.005  # as far as late wake-ups may be made up for
    assert "0 waiting" in repr(limiter)


async def test_a_thread_that_runs_a_loop_is_refused_and_so_is_a_time_limit_that_is_none() -> None:
    limiter = RateLimiter(1)
    with pytest.raises(RuntimeError, match="block the event loop"):
        limiter.blocking_acquire()
    for timeout in (float("nan"), "1"):
        with pytest.raises((TypeError, ValueError), match="timeout"):
            await asyncio.to_thread(limiter.blocking_acquire, timeout)  # type: ignore[arg-type]
    assert limiter.try_acquire()


def test_a_thread_that_waits_for_its_permit_holds_a_virtual_clock() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        limiter = RateLimiter(100)
        limiter.try_acquire()
        before = loop.time()
        await spawn_blocking(limiter.blocking_acquire, 60)
        assert loop.time() == before

    run(main(), clock=VirtualClock())
