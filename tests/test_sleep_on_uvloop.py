"""Sleeping on uvloop, whose timers count in whole milliseconds."""

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any

import pytest

from yamanote.runtime import spawn, yield_now
from yamanote.time import Sleep, interval, sleep, sleep_until, time

uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")


def run_on_uvloop(coroutine: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(coroutine)


def test_who_was_woken_finds_that_it_has_elapsed() -> None:
    async def main() -> None:
        for part in range(20):
            nap = Sleep(0.0005 + part / 7000)
            await nap
            assert nap.is_elapsed()
            nap.reset()
            assert not nap.is_elapsed()

    run_on_uvloop(main())


def test_sleepers_wake_in_the_order_of_their_time_and_no_more_than_a_millisecond_early() -> None:
    async def main() -> None:
        woken: list[int] = []

        async def rest(number: int) -> None:
            start = time()
            await (sleep(number / 500) if number % 2 else sleep_until(start + number / 500))
            assert time() - start > number / 500 - 0.001
            woken.append(number)

        await asyncio.gather(*(rest(number) for number in (5, 1, 4, 2, 3)))
        assert woken == [1, 2, 3, 4, 5]

    run_on_uvloop(main())


def test_a_sleep_is_moved_to_earlier_and_to_later() -> None:
    async def main() -> None:
        nap = Sleep(3600)
        task = spawn(nap)
        await yield_now()
        nap.reset_after(0.002)
        nap.reset_after(0.004)
        start = time()
        await task
        assert time() - start > 0.003

    run_on_uvloop(main())


def test_one_that_is_dropped_in_another_thread_does_no_harm() -> None:
    async def main() -> None:
        naps = [Sleep(3600) for _ in range(10)]
        waiting = [asyncio.ensure_future(nap) for nap in naps]
        await yield_now()
        for wait in waiting:
            wait.cancel()
        await asyncio.wait(waiting)
        waiting.clear()
        del wait
        await asyncio.to_thread(lambda: (naps.clear(), gc.collect()))
        await sleep(0.002)

    run_on_uvloop(main())


def test_ticks_do_not_drift() -> None:
    async def main() -> None:
        ticks = interval(0.0015)
        first = await ticks.tick()
        assert [round(await ticks.tick() - first, 9) for _ in range(4)] == [0.0015, 0.003, 0.0045, 0.006]

    run_on_uvloop(main())
