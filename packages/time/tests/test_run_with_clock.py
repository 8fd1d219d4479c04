"""`run` and `Runtime` on a virtual clock."""

from __future__ import annotations

import asyncio
import signal

import pytest

from yamanote.runtime import Runtime, main, run, spawn, yield_now
from yamanote.time import DeadlockError, VirtualClock, sleep

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
