"""`run` and `Runtime` on a virtual clock."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from yamanote.runtime import EventLoop, Runtime, main, move_on_after, run, spawn, yield_now
from yamanote.time import (
    DeadlockError,
    DelayQueue,
    RateLimiter,
    Schedule,
    VirtualClock,
    create_timer,
    instant,
    interval,
    repeat_periodically,
    retry,
    sleep,
    sleep_until,
    time,
    timeout,
    timeout_at,
)

YEAR = 365 * 24 * 3600.0


def test_a_program_runs_on_the_clock_that_it_is_given() -> None:
    clock = VirtualClock()
    run(sleep(YEAR), clock=clock)
    assert clock.virtual_time() == YEAR


def test_main_takes_a_clock_too_and_each_call_goes_on_from_where_the_last_has_ended() -> None:
    clock = VirtualClock()

    @main(clock=clock)
    async def program() -> None:
        await sleep(YEAR)

    for _ in range(2):
        program()
        assert clock.virtual_time() == YEAR


def test_the_clean_up_of_what_is_left_over_is_on_the_clock() -> None:
    clock = VirtualClock()

    async def left() -> None:
        try:
            await sleep(YEAR)
        finally:
            await sleep(5)

    async def program() -> None:
        spawn(left())
        await sleep(1)

    run(program(), clock=clock)
    assert clock.virtual_time() == 6


def test_a_runtime_keeps_its_clock_between_the_calls() -> None:
    clock = VirtualClock()
    with Runtime(clock=clock) as runtime:
        runtime.run_until_complete(sleep(1))
        runtime.run_until_complete(sleep(2))
        assert clock.virtual_time() == 3


def test_a_dead_lock_ends_the_program_whose_finally_blocks_run() -> None:
    log: list[str] = []

    async def waits_for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await yield_now()
            log.append("cleaned up")

    with pytest.raises(DeadlockError, match="waits_for_ever"):
        run(waits_for_ever(), clock=VirtualClock())
    assert log == ["cleaned up"]


def test_ctrl_c_ends_a_program_on_a_virtual_clock() -> None:
    async def program() -> None:
        asyncio.get_running_loop().call_later(YEAR, signal.raise_signal, signal.SIGINT)
        await sleep(2 * YEAR)

    clock = VirtualClock()
    with pytest.raises(KeyboardInterrupt):
        run(program(), clock=clock)
    assert clock.virtual_time() == YEAR


def test_a_clock_that_cannot_serve_the_loop_says_so_and_nothing_is_left_open() -> None:
    clock = VirtualClock()

    async def program() -> None: ...

    async def occupied() -> None:
        with clock.patch_loop():
            await asyncio.to_thread(refused)

    def refused() -> None:
        with pytest.raises(RuntimeError, match="on a loop already"):
            run(program(), clock=clock)

    run(occupied())


def test_a_program_on_a_clock_runs_on_the_loop_of_all_programs_and_its_time_begins_at_zero() -> None:
    async def program() -> float:
        loop = asyncio.get_running_loop()
        assert type(loop) is EventLoop
        assert loop.time() == 0
        await sleep(0.1)
        return loop.time()

    assert run(program(), clock=VirtualClock()) == 0.1


def test_a_program_on_a_clock_may_choose_another_loop() -> None:
    async def program() -> float:
        assert type(asyncio.get_running_loop()) is asyncio.SelectorEventLoop
        await sleep(YEAR)
        return asyncio.get_running_loop().time()

    assert run(program(), clock=VirtualClock(), loop_factory=asyncio.SelectorEventLoop) == YEAR


def test_a_loop_that_cannot_have_a_clock_is_refused_with_advice_and_closed() -> None:
    loop = asyncio.BaseEventLoop()

    async def program() -> None: ...

    with pytest.raises(TypeError, match=r"asyncio.base_events.BaseEventLoop is none: take the loop that run\("):
        run(program(), clock=VirtualClock(), loop_factory=lambda: loop)
    assert loop.is_closed()


def test_uvloop_is_refused_with_advice() -> None:
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")

    async def program() -> None: ...

    with pytest.raises(TypeError, match=r"uvloop\.Loop is none: take the loop that run\("):
        run(program(), clock=VirtualClock(), loop_factory=uvloop.new_event_loop)


def test_a_program_on_a_clock_can_be_debugged() -> None:
    async def program() -> list[int]:
        fired: list[int] = []
        for number in range(20):
            asyncio.get_running_loop().call_later(HOUR, fired.append, number)
        async with asyncio.timeout(YEAR):
            await sleep(2 * HOUR)
        return fired

    clock = VirtualClock()
    assert run(program(), clock=clock, debug=True) == list(range(20))
    assert clock.virtual_time() == 2 * HOUR


# ---------------------------------------------------------------------- everything that takes time, takes an hour

HOUR = 3600.0


async def never() -> None:
    await asyncio.Event().wait()


async def asyncio_sleep() -> None:
    await asyncio.sleep(HOUR)


async def asyncio_timeout() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(HOUR):
            await never()


async def asyncio_wait_for() -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(never(), HOUR)


async def asyncio_wait() -> None:
    _, waiting = await asyncio.wait([asyncio.ensure_future(never())], timeout=HOUR)
    waiting.pop().cancel()


async def asyncio_as_completed() -> None:
    for first in asyncio.as_completed([asyncio.sleep(HOUR), asyncio.sleep(HOUR / 2)]):
        await first


async def the_loop() -> None:
    called = asyncio.Event()
    asyncio.get_running_loop().call_later(HOUR, called.set)
    await called.wait()


async def moments() -> None:
    start = instant()
    await sleep_until(start + HOUR)
    assert start.elapsed() == HOUR


async def time_limits() -> None:
    with pytest.raises(TimeoutError):
        await timeout_at(time() + HOUR / 2, never())
    with pytest.raises(TimeoutError):
        async with timeout(HOUR / 2):
            await never()


async def scopes() -> None:
    with move_on_after(HOUR) as scope:
        await never()
    assert scope.cancelled_caught


async def intervals() -> None:
    ticks = interval(HOUR / 2)
    for _ in range(3):
        await ticks.tick()


async def periods() -> None:
    async for _ in repeat_periodically(HOUR / 4):
        if time() >= HOUR:
            break


async def timers() -> None:
    beats: list[float] = []

    async def beat(period: float) -> None:
        beats.append(time())

    async with create_timer(beat, HOUR / 2):
        await sleep(HOUR)
    assert beats[:2] == [0, HOUR / 2]


async def delay_queues() -> None:
    queue = DelayQueue[str]()
    queue.insert("late", HOUR)
    queue.insert("soon", 1)
    assert [await queue.recv(), await queue.recv()] == ["soon", "late"]


async def rate_limits() -> None:
    limiter = RateLimiter(1, HOUR / 2)
    for _ in range(3):
        await limiter.acquire()


async def retries() -> None:
    calls: list[float] = []

    @retry(Schedule.fixed(HOUR / 4).retries(4))
    async def fails() -> None:
        calls.append(time())
        raise OSError

    with pytest.raises(OSError):
        await fails()
    assert len(calls) == 5


WAITS = [
    asyncio_sleep,
    asyncio_timeout,
    asyncio_wait_for,
    asyncio_wait,
    asyncio_as_completed,
    the_loop,
    moments,
    time_limits,
    scopes,
    intervals,
    periods,
    timers,
    delay_queues,
    rate_limits,
    retries,
]


@pytest.mark.parametrize("loop_factory", [EventLoop, asyncio.SelectorEventLoop], ids=["ours", "asyncio's"])
@pytest.mark.parametrize("wait", WAITS, ids=lambda wait: wait.__name__)
def test_whatever_waits_for_an_hour_waits_for_an_hour_of_the_clock(
    wait: Callable[[], Coroutine[Any, Any, None]], loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def program() -> float:
        await wait()
        return time()

    clock = VirtualClock()
    assert run(program(), clock=clock, loop_factory=loop_factory) == HOUR
