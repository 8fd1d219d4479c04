"""A sleep that can be moved, and the one timer behind it."""

import asyncio
import datetime
import gc
import math
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from yamanote.runtime import BUDGET, TaskWaiter, park, park_thread, run, spawn, yield_now
from yamanote.time import DelayQueue, Instant, Sleep, VirtualClock, interval_at, sleep, time, timeout


def virtual(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def on_a_virtual_clock() -> None:
        run(test(), loop_factory=VirtualClock().loop_factory)

    on_a_virtual_clock.__name__ = test.__name__
    return on_a_virtual_clock


def live_timers() -> list[asyncio.TimerHandle]:
    loop: Any = asyncio.get_running_loop()
    return [timer for timer in loop._scheduled if not timer.cancelled()]


def count_timers() -> list[float]:
    """The moments of all timers that are made from now on."""
    loop = asyncio.get_running_loop()
    moments: list[float] = []
    call_at = loop.call_at

    def counted(when: float, *arguments: Any, **keywords: Any) -> asyncio.TimerHandle:
        moments.append(when)
        return call_at(when, *arguments, **keywords)

    loop.call_at = counted  # type: ignore[method-assign]
    return moments


async def woken_at(sleeping: Sleep) -> float:
    await sleeping
    return time()


# ------------------------------------------------------------------------------------------- when it elapses


@virtual
async def test_all_who_wait_are_woken_at_its_moment_first_in_first_out() -> None:
    nap, woken = Sleep(5), []

    async def wait(number: int) -> None:
        await nap
        woken.append((number, time()))

    tasks = [asyncio.create_task(wait(number)) for number in range(3)]
    await asyncio.wait(tasks)
    assert woken == [(0, 5), (1, 5), (2, 5)]


@virtual
async def test_the_seconds_count_from_when_it_is_made() -> None:
    nap = Sleep(5)
    assert nap.deadline == 5
    await sleep(3)
    assert not nap.is_elapsed()
    assert await woken_at(nap) == 5
    assert nap.is_elapsed()


@pytest.mark.parametrize(
    "ask",
    [
        lambda nap: nap.deadline,
        lambda nap: nap.is_elapsed(),
        lambda nap: nap.register(TaskWaiter()),
        lambda nap: asyncio.ensure_future(nap),
        lambda nap: nap.reset(),
    ],
    ids=["deadline", "is_elapsed", "register", "await", "reset"],
)
def test_made_where_no_loop_runs_the_seconds_count_from_when_a_loop_first_asks(ask: Callable[[Sleep], object]) -> None:
    async def main() -> None:
        await sleep(2)
        asked = ask(nap)
        await sleep(3)
        assert await woken_at(nap) == 12
        del asked

    nap = Sleep(10)
    assert repr(nap) == "<Sleep of 10 s, not begun, 0 waiting>"
    with pytest.raises(RuntimeError, match="no running event loop"):
        _ = nap.deadline
    run(main(), loop_factory=VirtualClock().loop_factory)


@virtual
async def test_once_elapsed_it_lets_everybody_pass_without_a_turn_within_the_budget() -> None:
    nap = Sleep(1)
    await nap
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        asyncio.get_running_loop().call_soon(turn)

    asyncio.get_running_loop().call_soon(turn)
    for _ in range(BUDGET):
        await nap
    assert turns == 0
    await nap
    assert turns == 1


@virtual
async def test_until_is_a_moment() -> None:
    nap = Sleep.until(Instant(7))
    assert nap.deadline == 7
    assert await woken_at(nap) == 7
    assert Sleep.until(time()).is_elapsed()
    assert not Sleep.until(time() + 1).is_elapsed()


@virtual
async def test_nothing_or_less_has_elapsed_at_once() -> None:
    for seconds in (0, -1, -math.inf, False):
        nap = Sleep(seconds)
        assert nap.is_elapsed()
        assert await woken_at(nap) == 0


@virtual
async def test_for_ever_arms_no_timer() -> None:
    timers = count_timers()
    nap = Sleep(math.inf)
    task = spawn(nap)
    await yield_now()
    assert not nap.is_elapsed()
    assert timers == []
    nap.reset_at(3)
    await task
    assert time() == 3


@virtual
async def test_a_billion_seconds_are_slept_in_one_piece() -> None:
    assert await woken_at(Sleep(10**9)) == 1e9


# ------------------------------------------------------------------------------------------- moving it


@virtual
async def test_who_waits_goes_on_waiting_for_the_new_moment() -> None:
    nap = Sleep(5)
    tasks = [asyncio.create_task(woken_at(nap)) for _ in range(2)]
    await sleep(3)
    nap.reset_after(10)
    assert nap.deadline == 13
    assert await asyncio.gather(*tasks) == [13, 13]


@virtual
async def test_reset_begins_again_with_the_seconds_it_was_made_with() -> None:
    nap = Sleep(5)
    task = asyncio.create_task(woken_at(nap))
    for _ in range(3):
        await sleep(4)
        nap.reset_after(1)
        nap.reset()
    assert await task == 17


@virtual
async def test_an_earlier_moment_wakes_earlier() -> None:
    nap = Sleep(100)
    task = asyncio.create_task(woken_at(nap))
    await sleep(1)
    nap.reset_after(2)
    assert await task == 3


@virtual
async def test_a_moment_that_has_passed_wakes_all_who_wait() -> None:
    nap = Sleep(100)
    tasks = [asyncio.create_task(woken_at(nap)) for _ in range(3)]
    await sleep(1)
    nap.reset_at(1)
    assert await asyncio.gather(*tasks) == [1, 1, 1]


@virtual
async def test_what_has_elapsed_can_be_slept_again() -> None:
    nap = Sleep(5)
    moments = []
    for _ in range(3):
        moments.append(await woken_at(nap))
        nap.reset()
        assert not nap.is_elapsed()
    assert moments == [5, 10, 15]


@virtual
async def test_stopped_it_never_elapses_until_it_is_reset() -> None:
    nap = Sleep(5)
    task = asyncio.create_task(woken_at(nap))
    await sleep(1)
    nap.stop()
    assert nap.deadline == math.inf
    await sleep(100)
    assert not task.done()
    assert not nap.is_elapsed()
    nap.reset()
    assert await task == 106


@virtual
async def test_what_has_elapsed_can_be_stopped() -> None:
    nap = Sleep(0)
    await nap
    nap.stop()
    assert not nap.is_elapsed()
    with pytest.raises(TimeoutError):
        await timeout(10, nap)


@virtual
async def test_moved_in_the_turn_of_its_timer_it_wakes_nobody_who_has_not_been_woken() -> None:
    loop = asyncio.get_running_loop()
    before, after = Sleep(50), Sleep(50)
    loop.call_at(5, before.reset_after, 5)  # in front of its timer
    before.reset_at(5)
    after.reset_at(5)
    tasks = [asyncio.create_task(woken_at(nap)) for nap in (before, after)]
    await yield_now()
    loop.call_at(5, after.reset_after, 5)  # behind it
    assert await tasks[0] == 10
    assert await tasks[1] == 5
    assert not after.is_elapsed() or time() >= 10


@virtual
async def test_a_newcomer_does_not_pass_those_who_are_about_to_be_woken() -> None:
    nap, woken = Sleep(5), []

    async def wait(name: str) -> None:
        await nap
        woken.append(name)

    first = asyncio.create_task(wait("first"))
    await sleep(1)
    loop: Any = asyncio.get_running_loop()
    late = loop.time() + 10
    loop.time = lambda: late  # the loop was blocked: the moment has passed, and the timer has not fired
    await wait("newcomer")
    await first
    assert woken == ["first", "newcomer"]


# ------------------------------------------------------------------------------------------- its timer


@virtual
async def test_waits_that_begin_and_end_all_the_time_cost_one_timer() -> None:
    timers = count_timers()
    idle = Sleep(30)
    for _ in range(1000):
        waiter: TaskWaiter[None] = TaskWaiter()
        idle.register(waiter)
        await yield_now()
        waiter.claim()
        idle.withdraw(waiter)
        idle.reset_after(30)
    assert timers == [30]
    assert "0 waiting" in repr(idle)


@virtual
async def test_what_is_put_off_all_the_time_costs_a_timer_only_when_the_last_one_has_fired() -> None:
    timers = count_timers()
    idle = Sleep(30)
    task = asyncio.create_task(woken_at(idle))
    await yield_now()
    for _ in range(300):
        await sleep(0.5)
        idle.reset()
    assert await task == 180
    # Half a second has passed since the last reset when one fires and looks.
    assert len(timers) == 300 + len([30, 59.5, 89, 118.5, 148, 177.5, 180])


@virtual
async def test_an_earlier_timer_takes_the_place_of_the_later_one() -> None:
    nap = Sleep(1000)
    task = asyncio.create_task(woken_at(nap))
    await yield_now()
    for seconds in range(900, 0, -1):
        nap.reset_after(seconds)
        assert [timer.when() for timer in live_timers()] == [seconds]
    loop: Any = asyncio.get_running_loop()
    await sleep(0.5)
    assert len(loop._scheduled) < 200  # the loop throws out cancelled ones when they are the most
    assert await task == 1


@virtual
async def test_a_timer_that_fires_for_nobody_does_nothing_and_is_not_renewed() -> None:
    timers = count_timers()
    nap = Sleep(5)
    task = spawn(nap)
    await yield_now()
    task.abort()
    nap.reset_after(50)
    await sleep(10)
    assert live_timers() == []
    assert timers == [5, 10]  # the second is that of the sleep above
    assert await woken_at(nap) == 50


@virtual
async def test_one_that_is_dropped_takes_its_timer_with_it() -> None:
    for _ in range(5000):
        waiter: TaskWaiter[None] = TaskWaiter()
        nap = Sleep(3600)
        nap.register(waiter)
        waiter.claim()
        nap.withdraw(waiter)
    del nap
    assert live_timers() == []
    await sleep(1)
    loop: Any = asyncio.get_running_loop()
    assert loop._scheduled == []


@virtual
async def test_its_timer_does_not_keep_it_alive() -> None:
    nap = Sleep(3600)
    task = spawn(nap)
    await yield_now()
    task.abort()
    await asyncio.wait([asyncio.ensure_future(sleep(0))])
    del task
    gone = weakref.ref(nap)
    del nap
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    "wait",
    [
        lambda: Sleep(5),
        lambda: interval_at(5, 5).tick(),
        lambda: filled_queue().recv(),
        lambda: park(Sleep(5)),
    ],
    ids=["sleep", "interval", "delay queue", "parked"],
)
def test_who_waits_is_kept_alive_by_the_timer_and_keeps_what_he_waits_for(wait: Callable[[], Awaitable[Any]]) -> None:
    async def main() -> None:
        woken = []

        async def rest() -> None:
            await wait()
            woken.append(time())

        asyncio.create_task(rest())  # noqa: RUF006
        await yield_now()
        gc.collect()
        await sleep(10)
        assert woken == [5]

    run(main(), loop_factory=VirtualClock().loop_factory)


def filled_queue() -> DelayQueue[str]:
    queue: DelayQueue[str] = DelayQueue()
    queue.insert("item", 5)
    return queue


@virtual
async def test_dropped_in_another_thread_its_timer_is_cancelled_on_the_loop() -> None:
    cancelled_in = []
    nap = [Sleep(3600)]
    waiter: TaskWaiter[None] = TaskWaiter()
    nap[0].register(waiter)
    waiter.claim()
    nap[0].withdraw(waiter)
    (timer,) = live_timers()
    cancel = timer.cancel
    nap[0]._timer = type("Watched", (), {"cancel": lambda _: (cancelled_in.append(threading.get_ident()), cancel())})()
    thread = threading.Thread(target=nap.clear)
    thread.start()
    await asyncio.to_thread(thread.join)
    await yield_now()
    assert cancelled_in == [threading.get_ident()]
    assert live_timers() == []


# ------------------------------------------------------------------------------------------- giving up


@virtual
async def test_a_cancelled_wait_changes_nothing_for_the_others() -> None:
    nap = Sleep(5)
    tasks = [asyncio.create_task(woken_at(nap)) for _ in range(3)]
    await sleep(1)
    tasks[0].cancel()
    tasks[2].cancel()
    assert await tasks[1] == 5
    assert tasks[0].cancelled() and tasks[2].cancelled()
    assert "0 waiting" in repr(nap)


@virtual
async def test_a_wait_cancelled_in_the_turn_of_its_timer_leaves_it_elapsed() -> None:
    nap = Sleep(5)
    task = asyncio.create_task(woken_at(nap))
    await yield_now()
    asyncio.get_running_loop().call_at(5, task.cancel)
    await asyncio.wait([task])
    assert task.cancelled()
    assert nap.is_elapsed()
    await nap


@virtual
async def test_a_party_that_another_branch_has_claimed_is_left_alone() -> None:
    fast, slow = Sleep(5), Sleep(10)
    party: TaskWaiter[Any] = TaskWaiter()
    twin = party.branch()
    fast.register(party)
    slow.register(twin)
    await party.future
    assert party.settled and party.value is None
    slow.withdraw(twin)
    assert not twin.settled
    assert await woken_at(slow) == 10


# ------------------------------------------------------------------------------------------- loops and threads


async def test_another_loop_is_refused_while_tasks_wait_and_welcome_after_them() -> None:
    nap = Sleep(3600)
    task = spawn(nap)
    await yield_now()

    def elsewhere() -> list[str]:
        async def main() -> list[str]:
            refused = []
            for call in (nap.reset, nap.stop, lambda: nap.reset_after(1), lambda: nap.reset_at(1), lambda: nap):
                try:
                    if (found := call()) is nap:
                        await found
                except RuntimeError as error:
                    refused.append(str(error))
            return refused

        return asyncio.run(main())

    async def wait_there() -> bool:
        nap.reset_at(time())
        await nap
        return nap.is_elapsed()

    refused = await asyncio.to_thread(elsewhere)
    assert len(refused) == 5
    assert all("another event loop" in why for why in refused)
    task.abort()
    await asyncio.wait([asyncio.ensure_future(sleep(0))])
    nap.stop()
    assert len(live_timers()) == 1  # of this loop, and left by its tasks
    assert await asyncio.to_thread(asyncio.run, wait_there())


async def test_a_timer_left_on_another_loop_is_taken_from_there() -> None:
    nap = Sleep(3600)
    task = spawn(nap)
    await yield_now()
    task.abort()
    await sleep(0)

    async def wait_there() -> None:
        waiting = asyncio.ensure_future(nap)
        await yield_now()
        assert len(live_timers()) == 1
        waiting.cancel()

    await asyncio.to_thread(asyncio.run, wait_there())
    await yield_now()
    assert live_timers() == []


@virtual
async def test_a_timer_that_fires_while_it_goes_to_another_loop_touches_nothing_there() -> None:
    nap = Sleep.until(5)
    other = asyncio.new_event_loop()

    async def register() -> None:
        nap.reset_after(3600)
        nap.register(TaskWaiter())

    def leave() -> None:  # in the turn of its timer
        thread = threading.Thread(target=other.run_until_complete, args=(register(),))
        thread.start()
        thread.join()

    asyncio.get_running_loop().call_at(5, leave)
    waiter: TaskWaiter[None] = TaskWaiter()
    nap.register(waiter)
    waiter.claim()
    nap.withdraw(waiter)
    await sleep(10)
    timers: list[asyncio.TimerHandle] = other._scheduled  # type: ignore[attr-defined]
    assert len(timers) == 1
    assert not timers[0].cancelled()
    other.close()


def test_a_loop_that_was_closed_is_forgotten_with_those_who_waited_there() -> None:
    nap = Sleep(10)
    loop = VirtualClock().loop_factory()
    loop.run_until_complete(timeout(20, nap))
    nap.stop()
    parked = loop.create_task(woken_at(nap))
    loop.run_until_complete(sleep(1))
    loop.close()
    del parked

    async def main() -> None:
        nap.reset()
        assert await woken_at(nap) == 10

    run(main(), loop_factory=VirtualClock().loop_factory)


def test_one_sleep_serves_one_run_after_the_other() -> None:
    nap = Sleep(10)

    async def main() -> None:
        nap.reset()
        with pytest.raises(TimeoutError):
            await timeout(1, nap)  # its timer stays behind
        assert await woken_at(nap) == 10

    for _ in range(3):
        run(main(), loop_factory=VirtualClock().loop_factory)


def test_threads_cannot_wait_for_it() -> None:
    with pytest.raises(RuntimeError, match="no event loop runs here, and this Sleep"):
        park_thread(Sleep(1), 5)


class HastyLoop(asyncio.SelectorEventLoop):
    """Calls timers early, as loops do that count in whole milliseconds; enough so to make up for its sleep."""

    def call_at(self, when: float, callback: Any, *arguments: Any, context: Any = None) -> asyncio.TimerHandle:
        return super().call_at(when - 0.005, callback, *arguments, context=context)


def test_who_was_woken_early_by_the_loop_finds_it_elapsed() -> None:
    async def main() -> None:
        timers = count_timers()
        nap = Sleep(0.01)
        await nap
        assert nap.is_elapsed()
        waiter: TaskWaiter[None] = TaskWaiter()
        nap.register(waiter)
        assert waiter.settled
        await nap
        assert len(timers) == 1
        nap.reset()
        assert not nap.is_elapsed()

    with asyncio.Runner(loop_factory=HastyLoop) as runner:
        runner.run(main())


# ------------------------------------------------------------------------------------------- nonsense


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Sleep, "seconds"),
        (Sleep.until, "when"),
        (lambda nonsense: Sleep(1).reset_after(nonsense), "seconds"),
        (lambda nonsense: Sleep(1).reset_at(nonsense), "when"),
    ],
    ids=["made", "until", "reset_after", "reset_at"],
)
async def test_nonsense_is_refused_by_name(call: Callable[[Any], object], name: str) -> None:
    for nonsense in (math.nan, "1", None, 1j, 10**400, datetime.timedelta(seconds=1)):
        with pytest.raises((TypeError, ValueError), match=f"^{name} must be a number of seconds"):
            call(nonsense)


def test_one_that_was_refused_is_dropped_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    with pytest.raises(ValueError, match="seconds"):
        Sleep(math.nan)
    gc.collect()
    assert unraisable == []


async def test_a_moment_has_no_seconds_to_begin_again() -> None:
    with pytest.raises(RuntimeError, match="reset_after"):
        Sleep.until(time() + 5).reset()


@virtual
async def test_it_shows_what_it_is() -> None:
    nap = Sleep(5)
    assert repr(nap) == "<Sleep until 5.0, 0 waiting>"
    task = spawn(nap)
    await yield_now()
    assert repr(nap) == "<Sleep until 5.0, 1 waiting>"
    await task
    assert repr(nap) == "<Sleep elapsed, 0 waiting>"
