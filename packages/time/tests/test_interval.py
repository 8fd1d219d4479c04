"""Intervals on a loop: parking, cancellation, order, resets."""

import asyncio
import gc
import math
import selectors
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from yamanote.runtime import BUDGET, TaskWaiter, Waiter, park, park_thread, run, yield_now
from yamanote.time import (
    Interval,
    MissedTickBehavior,
    VirtualClock,
    interval,
    interval_at,
    repeat_periodically,
    sleep,
    time,
)

BURST, DELAY, SKIP = MissedTickBehavior.BURST, MissedTickBehavior.DELAY, MissedTickBehavior.SKIP


class StandingSelector(selectors.DefaultSelector):  # type: ignore[valid-type,misc]
    loop: "StandingLoop"

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everything waits for ever"
        self.loop.now += timeout
        return super().select(0)


class StandingLoop(asyncio.SelectorEventLoop):
    """A loop on which time passes only when nothing else is left to do, or when the test says so."""

    def __init__(self) -> None:
        selector = StandingSelector()
        selector.loop = self
        self.now = 0.0
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def pass_time(seconds: float) -> None:
    """As a computation does that blocks the loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, StandingLoop)
    loop.now += seconds


def virtual(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        with asyncio.Runner(loop_factory=StandingLoop) as runner:
            runner.run(test())

    run.__name__ = test.__name__
    return run


@virtual
async def test_the_first_tick_is_at_once_and_the_others_a_period_apart() -> None:
    await sleep(3)
    ticks = interval(10)
    assert [await ticks.tick() for _ in range(3)] == [3, 13, 23]
    assert time() == 23


@virtual
async def test_tick_returns_the_scheduled_instant_not_the_present() -> None:
    ticks = interval(10)
    await ticks.tick()
    pass_time(13)
    assert await ticks.tick() == 10
    assert time() == 13


@virtual
async def test_an_interval_made_long_before_its_first_tick_has_missed_nothing() -> None:
    ticks = interval(10)
    pass_time(1000)
    assert await ticks.tick() == 1000
    assert await ticks.tick() == 1010


def test_an_interval_can_be_made_where_no_loop_runs() -> None:
    ticks = interval(10)
    later = interval_at(50, 10)

    @virtual
    async def main() -> None:
        await sleep(20)
        assert await ticks.tick() == 20
        assert await later.tick() == 50

    main()


@virtual
async def test_ticks_are_iterated_without_end() -> None:
    seen = []
    async for tick in interval_at(5, 2):
        seen.append(tick)
        if len(seen) == 3:
            break
    assert seen == [5, 7, 9]


@pytest.mark.parametrize(
    ("missed", "expected"), [(BURST, [0, 10, 20, 30, 40]), (DELAY, [0, 10, 45, 55, 65]), (SKIP, [0, 10, 40, 50, 60])]
)
def test_missed_ticks(missed: MissedTickBehavior, expected: list[float]) -> None:
    @virtual
    async def main() -> None:
        ticks = interval(10, missed)
        seen = [await ticks.tick()]
        pass_time(35)
        seen += [await ticks.tick() for _ in range(4)]
        assert seen == expected

    main()


@pytest.mark.parametrize(
    ("missed", "late", "expected"),
    [
        # (the instant that a tick is for, when it is taken): the second one late, those after it as soon as possible
        (BURST, 25, [(10, 35), (20, 35), (30, 35), (40, 40)]),
        (DELAY, 25, [(10, 35), (45, 45), (55, 55), (65, 65)]),
        (SKIP, 25, [(10, 35), (40, 40), (50, 50), (60, 60)]),
        (BURST, 20, [(10, 30), (20, 30), (30, 30), (40, 40)]),
        (DELAY, 20, [(10, 30), (40, 40), (50, 50), (60, 60)]),
        (SKIP, 20, [(10, 30), (40, 40), (50, 50), (60, 60)]),
        (BURST, 0.25, [(10, 10.25), (20, 20), (30, 30), (40, 40)]),
        (DELAY, 0.25, [(10, 10.25), (20.25, 20.25), (30.25, 30.25), (40.25, 40.25)]),
        (SKIP, 0.25, [(10, 10.25), (20, 20), (30, 30), (40, 40)]),
        *((missed, 1 / 256, [(10, 10 + 1 / 256), (20, 20), (30, 30), (40, 40)]) for missed in MissedTickBehavior),
    ],
)
def test_what_becomes_of_ticks_after_one_that_is_taken_late(
    missed: MissedTickBehavior, late: float, expected: list[tuple[float, float]]
) -> None:
    async def main() -> None:
        ticks = interval(10, missed)
        assert await ticks.tick() == 0
        await sleep(10 + late)
        assert [(await ticks.tick(), time()) for _ in expected] == expected

    run(main(), loop_factory=VirtualClock().loop_factory)


@virtual
async def test_the_behavior_can_be_changed_on_the_way() -> None:
    ticks = interval(10)
    await ticks.tick()
    ticks.missed = SKIP
    pass_time(35)
    assert [await ticks.tick() for _ in range(2)] == [10, 40]


@virtual
async def test_nothing_drifts() -> None:
    # The body of the loop takes time, and each wake-up is late by a bit.
    ticks = interval_at(0, 0.1)
    for number in range(1000):
        assert await ticks.tick() == number * 0.1
        pass_time(0.03)


@pytest.mark.parametrize(
    ("reset", "expected"),
    [
        (lambda ticks: ticks.reset(), [14, 24]),
        (lambda ticks: ticks.reset_immediately(), [4, 14]),
        (lambda ticks: ticks.reset_after(3), [7, 17]),
        (lambda ticks: ticks.reset_at(6), [6, 16]),
        (lambda ticks: ticks.reset_at(-8), [-8, 2, 12]),
    ],
)
@pytest.mark.parametrize("parked", [False, True])
def test_resets_begin_a_new_schedule(reset: Callable[[Interval], None], expected: list[float], parked: bool) -> None:
    @virtual
    async def main() -> None:
        ticks = interval(10)
        await ticks.tick()
        if parked:
            waiting = asyncio.create_task(ticks.tick())
            await sleep(4)
            reset(ticks)
            seen = [await waiting]
            assert time() == max(4, expected[0])
        else:
            pass_time(4)
            reset(ticks)
            seen = [await ticks.tick()]
        seen += [await ticks.tick() for _ in expected[1:]]
        assert seen == expected

    main()


@pytest.mark.parametrize("missed", list(MissedTickBehavior))
def test_resets_forget_the_ticks_that_were_missed(missed: MissedTickBehavior) -> None:
    @virtual
    async def main() -> None:
        ticks = interval(10, missed)
        await ticks.tick()
        pass_time(35)
        ticks.reset()
        assert [await ticks.tick() for _ in range(3)] == [45, 55, 65]
        pass_time(35)
        ticks.reset_immediately()
        assert [await ticks.tick() for _ in range(3)] == [100, 110, 120]
        pass_time(35)
        ticks.reset_after(2)
        assert [await ticks.tick() for _ in range(3)] == [157, 167, 177]

    main()


@pytest.mark.parametrize(
    ("missed", "expected"), [(BURST, [12, 22, 32, 42, 52]), (DELAY, [12, 45, 55]), (SKIP, [12, 42, 52])]
)
def test_a_reset_to_the_past_is_missed_ticks(missed: MissedTickBehavior, expected: list[float]) -> None:
    @virtual
    async def main() -> None:
        ticks = interval(10, missed)
        await ticks.tick()
        pass_time(35)
        ticks.reset_at(12)
        assert [await ticks.tick() for _ in expected] == expected

    main()


@virtual
async def test_a_block_repeated_periodically_begins_at_once_and_catches_nothing_up() -> None:
    took = [2.0, 2.0, 25.0, 2.0, 0.0]
    begun = []
    async for _ in repeat_periodically(10):
        begun.append(time())
        if not took:
            break
        await sleep(took.pop(0))
    assert begun == [0, 10, 20, 45, 55, 65]


@virtual
async def test_a_block_repeated_periodically_does_not_drift() -> None:
    begun = []
    async for _ in repeat_periodically(0.1):
        begun.append(time())
        pass_time(0.03)
        if len(begun) == 1000:
            break
    assert begun == [number * 0.1 for number in range(1000)]


@virtual
async def test_a_cancelled_wait_takes_no_tick() -> None:
    ticks = interval(10)
    await ticks.tick()
    task = asyncio.create_task(ticks.tick())
    await sleep(4)
    task.cancel()
    await asyncio.wait([task])
    assert await ticks.tick() == 10


@virtual
async def test_a_tick_handed_to_who_is_cancelled_before_it_runs_is_not_lost() -> None:
    ticks = interval(10)
    await ticks.tick()
    task = asyncio.create_task(ticks.tick())
    await yield_now()
    # In the turn of the timer, after the callback of the ticker: the tick is handed over, its taker has not run.
    asyncio.get_running_loop().call_at(10, task.cancel)
    await asyncio.wait([task])
    assert task.cancelled()
    assert time() == 10
    assert await ticks.tick() == 10


@pytest.mark.parametrize("missed", list(MissedTickBehavior))
def test_a_tick_that_came_back_has_moved_no_schedule(missed: MissedTickBehavior) -> None:
    def schedule(disturbed: bool) -> list[float]:
        seen = []

        @virtual
        async def main() -> None:
            ticks = interval(10, missed)
            await ticks.tick()
            pass_time(24)
            if disturbed:
                waiter: TaskWaiter[Any] = TaskWaiter()
                ticks.register(waiter)
                assert waiter.settled
                assert waiter.value == 10
                ticks.withdraw(waiter)
            pass_time(2)
            seen.extend([await ticks.tick() for _ in range(5)])

        main()
        return seen

    assert schedule(disturbed=True) == schedule(disturbed=False)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_ticks_that_come_back_are_taken_in_order_however_often(order: tuple[int, ...]) -> None:
    @virtual
    async def main() -> None:
        ticks = interval(10)
        await ticks.tick()
        pass_time(35)
        for _ in range(2):
            waiters: list[Waiter[Any]] = [TaskWaiter() for _ in order]
            for waiter in waiters:
                ticks.register(waiter)
            assert [waiter.value for waiter in waiters] == [10, 20, 30]
            for number in order:
                ticks.withdraw(waiters[number])
        assert [await ticks.tick() for _ in range(4)] == [10, 20, 30, 40]

    main()


@virtual
async def test_a_timer_that_is_called_early_gives_its_tick_all_the_same() -> None:
    loop = asyncio.get_running_loop()
    loop._clock_resolution = 0.5  # type: ignore[attr-defined]
    ticks = interval_at(10, 10)
    waiting = asyncio.create_task(ticks.tick())
    await yield_now()
    pass_time(9.7)
    loop.call_soon(int)  # so that the loop does not wait for the timer
    assert await waiting == 10
    assert time() == 9.7


@virtual
async def test_a_tick_that_came_back_goes_to_the_one_who_waits() -> None:
    ticks = interval(10)
    await ticks.tick()
    first, second = (asyncio.create_task(ticks.tick()) for _ in range(2))
    await yield_now()
    asyncio.get_running_loop().call_at(10, first.cancel)
    await asyncio.wait([first, second])
    assert first.cancelled()
    assert second.result() == 10
    assert time() == 10


@virtual
async def test_a_tick_of_before_a_reset_does_not_come_back() -> None:
    ticks = interval(10)
    await ticks.tick()
    pass_time(10)
    waiter: TaskWaiter[Any] = TaskWaiter()
    ticks.register(waiter)
    assert waiter.value == 10
    ticks.reset()
    ticks.withdraw(waiter)
    assert await ticks.tick() == 20


@virtual
async def test_ticks_that_came_back_before_a_reset_are_forgotten_with_it() -> None:
    ticks = interval(10)
    await ticks.tick()
    pass_time(35)
    waiters: list[Waiter[Any]] = [TaskWaiter() for _ in range(3)]
    for waiter in waiters:
        ticks.register(waiter)
    for waiter in waiters:
        ticks.withdraw(waiter)
    ticks.reset()
    assert await ticks.tick() == 45


@virtual
async def test_waiting_tasks_are_served_first_in_first_out_one_tick_each() -> None:
    ticks = interval_at(10, 10)
    served: list[tuple[str, float]] = []

    async def wait(name: str) -> None:
        served.append((name, await ticks.tick()))

    async with asyncio.TaskGroup() as group:
        for name in "abc":
            group.create_task(wait(name))
    assert served == [("a", 10), ("b", 20), ("c", 30)]


@virtual
async def test_a_newcomer_does_not_overtake_who_waits() -> None:
    ticks = interval_at(10, 10)
    parked = asyncio.create_task(ticks.tick())
    await yield_now()
    pass_time(12)  # due, but the timer has not been called yet
    newcomer = asyncio.create_task(ticks.tick())
    assert await parked == 10
    assert await newcomer == 20


@virtual
async def test_a_burst_yields_after_the_budget_and_a_cancellation_there_takes_no_tick() -> None:
    ticks = interval_at(0, 1)
    pass_time(10 * BUDGET)
    others: list[int] = []
    seen: list[float] = []

    async def burst() -> None:
        for _ in range(BUDGET + 1):
            seen.append(await ticks.tick())

    task = asyncio.create_task(burst())
    asyncio.get_running_loop().call_soon(lambda: others.append(len(seen)))
    await yield_now()
    assert others == [BUDGET]
    task.cancel()
    await asyncio.wait([task])
    assert seen == list(range(BUDGET))
    assert await ticks.tick() == BUDGET


@virtual
async def test_one_timer_while_somebody_waits_and_none_otherwise() -> None:
    ticks = interval(10)
    await ticks.tick()
    tasks = [asyncio.create_task(ticks.tick()) for _ in range(3)]
    await yield_now()
    assert len(live_timers()) == 1
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert live_timers() == []
    assert "0 waiting" in repr(ticks)


def live_timers() -> list[Any]:
    gc.collect()
    loop = asyncio.get_running_loop()
    return [timer for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]


@virtual
async def test_a_waiter_that_another_branch_has_claimed_loses_no_tick() -> None:
    fast, slow = interval_at(5, 5), interval_at(5, 100)
    party: TaskWaiter[Any] = TaskWaiter()
    branch = party.branch()
    fast.register(party)
    slow.register(branch)
    await party.future
    assert party.settled
    assert not branch.settled
    slow.withdraw(branch)
    assert await slow.tick() == 5


async def test_a_loop_is_refused_while_another_ones_tasks_wait_and_welcome_after_them() -> None:
    ticks = interval(60)
    await ticks.tick()
    waiting = asyncio.create_task(ticks.tick())
    await yield_now()

    def elsewhere() -> str:
        try:
            asyncio.run(park(ticks))
        except RuntimeError as error:
            return str(error)
        return "accepted"

    async def reset() -> int:
        refused = 0
        for call in (ticks.reset, ticks.reset_immediately, lambda: ticks.reset_after(1), lambda: ticks.reset_at(1)):
            try:
                call()
            except RuntimeError as error:
                refused += "another event loop" in str(error)
        return refused

    assert "another event loop" in await asyncio.to_thread(elsewhere)
    assert await asyncio.to_thread(asyncio.run, reset()) == 4
    waiting.cancel()
    await asyncio.wait([waiting])
    ticks.reset_immediately()
    assert await asyncio.to_thread(elsewhere) == "accepted"


def test_what_waited_on_a_loop_that_was_closed_is_in_nobodys_way() -> None:
    ticks = interval(60)
    loop = asyncio.new_event_loop()

    async def leave_behind() -> None:
        await ticks.tick()
        task = loop.create_task(ticks.tick())
        left.append(task)
        await yield_now()

    left: list[asyncio.Task[float]] = []
    loop.run_until_complete(leave_behind())
    loop.close()

    async def main() -> float:
        ticks.reset_immediately()
        return await park(ticks)

    asyncio.run(main())
    left[0]._log_destroy_pending = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("missed", MissedTickBehavior)
@pytest.mark.parametrize("parked", [False, True], ids=["asked for", "waited for"])
def test_a_reset_into_the_remotest_past_is_missed_ticks(missed: MissedTickBehavior, parked: bool) -> None:
    @virtual
    async def main() -> None:
        ticks = interval(10, missed)
        await ticks.tick()
        waiter: TaskWaiter[Any] = TaskWaiter()
        if parked:
            ticks.register(waiter)
        ticks.reset_at(-1e300)
        assert (waiter.value if parked else await ticks.tick()) == -1e300
        if missed is not MissedTickBehavior.BURST:
            assert await ticks.tick() == time() == 10

    main()


@virtual
async def test_a_reset_in_the_middle_of_a_hand_over_loses_nobody() -> None:
    class Disturbed(TaskWaiter[Any]):
        """While it is being served, a finalizer begins a new schedule."""

        def claim(self) -> bool:
            if not self.settled:
                ticks.reset_after(7)
            return super().claim()

    ticks = interval(10)
    first, second = Disturbed(), TaskWaiter[Any]()
    ticks.register(first)
    ticks.register(second)
    assert first.value == 0
    await second.future
    assert second.value == time() == 7
    ticks.withdraw(first)  # that schedule is over
    assert await ticks.tick() == time() == 17


def test_a_plain_thread_cannot_wait_for_an_interval() -> None:
    errors: list[str] = []

    def wait() -> None:
        try:
            park_thread(interval(1))
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    assert errors == ["no event loop runs here, and this Interval can be waited for on one only"]


@pytest.mark.parametrize("period", [0, -1, 1e-10, math.nan, math.inf, "1", None])
def test_a_period_that_is_no_positive_number_is_refused_by_name(period: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="period"):
        interval(period)
    with pytest.raises((TypeError, ValueError), match="period"):
        interval_at(0, period)


@pytest.mark.parametrize("start", [math.nan, math.inf, -math.inf, "now", None])
def test_a_start_that_is_no_moment_is_refused_by_name(start: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="start"):
        interval_at(start, 1)


def test_other_nonsense_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="missed"):
        interval(1, "burst")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="missed"):
        interval(1).missed = "burst"  # type: ignore[assignment]
    for nonsense in (0, -1, math.nan, math.inf, None):
        with pytest.raises((TypeError, ValueError), match="min_interval"):
            repeat_periodically(nonsense)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seconds"):
        interval(1).reset_after(math.nan)
    with pytest.raises(ValueError, match="when"):
        interval(1).reset_at(math.inf)
    with pytest.raises(RuntimeError):
        interval(1).reset()


def test_the_period_is_known() -> None:
    assert interval(2.5).period == 2.5
