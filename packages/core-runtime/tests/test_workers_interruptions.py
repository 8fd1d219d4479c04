"""Several workers: what ends a program from any of them, signals, and forks."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
import time
from typing import Any

import pytest

from yamanote.runtime import Handle, Runtime, TaskGroup, handle_signal, run, signals, spawn, wait_for_signal

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
on_unix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals between processes")

PATIENCE = 20.0
"""Seconds after which a test gives up."""


async def thread_of(turns: int = 0) -> int:
    for _ in range(turns):
        await asyncio.sleep(0)
    return threading.get_ident()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.parametrize("number", [0, 1])
def test_what_ends_a_program_does_so_from_any_worker(
    error: type[BaseException], turns: int, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    cancelled: list[bool] = []

    async def interrupt() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        raise error

    async def program() -> None:
        handle = spawn(interrupt(), on=number)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        finally:
            assert await spawn(thread_of(), on=number)  # the worker goes on
            while not handle.is_finished():
                await asyncio.sleep(0)

    with caplog.at_level(logging.ERROR), pytest.raises(error):
        run(program(), workers=2)
    gc.collect()
    assert cancelled == [True]
    assert len(caplog.records) <= 1  # asyncio's own, of a task that failed in its first step


@pytest.mark.parametrize("workers", [1, 2])
def test_what_ends_a_program_is_reported_by_no_handle_that_stands_for_its_task(
    workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def interrupt() -> None:
        await asyncio.sleep(0)
        raise SystemExit(3)

    async def from_thread() -> None:
        threading.Thread(target=Handle.current().spawn, args=(interrupt(),)).start()
        await asyncio.sleep(3600)

    async def several() -> None:
        spawn(interrupt(), asyncio.sleep(0))
        await asyncio.sleep(3600)

    with caplog.at_level(logging.ERROR):
        for program in from_thread, several:
            with pytest.raises(SystemExit):
                run(program(), workers=workers)
    gc.collect()
    assert [record.message.partition("\n")[0] for record in caplog.records if "Future" in record.message] == []


def test_what_ends_a_program_comes_out_of_a_group() -> None:
    async def interrupt() -> None:
        await asyncio.sleep(0)
        raise SystemExit(3)

    async def program() -> None:
        async with TaskGroup() as group:
            for _ in range(5):
                group.spawn(asyncio.sleep(3600))
            group.spawn(interrupt())

    with pytest.raises(SystemExit) as caught:
        run(program(), workers=2)
    assert caught.value.code == 3


@on_unix
def test_ctrl_c_cancels_main_whatever_the_workers_do() -> None:
    async def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(3600)

    cancelled: list[bool] = []

    async def program() -> None:
        spawn(interrupt(), on=1)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    with pytest.raises(KeyboardInterrupt):
        run(program(), workers=2)
    assert cancelled == [True]


@on_unix
def test_ctrl_c_cancels_main_while_another_worker_computes() -> None:
    cancelled = threading.Event()

    async def compute() -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        end = time.monotonic() + PATIENCE
        while not cancelled.is_set() and time.monotonic() < end:
            sum(range(100))
        return cancelled.is_set()

    async def program() -> None:
        handle = spawn(compute(), on=1)
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()
            assert await handle

    with pytest.raises(KeyboardInterrupt):
        run(program(), workers=2)


@on_unix
def test_the_second_ctrl_c_ends_at_once_also_beside_a_stuck_worker(
    blocked: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with blocked() as block:
        entered = threading.Event()

        async def stuck() -> None:
            entered.set()
            block()

        async def program() -> None:
            spawn(stuck(), on=1)
            entered.wait(PATIENCE)
            signal.raise_signal(signal.SIGINT)
            try:
                await asyncio.sleep(3600)
            finally:
                signal.raise_signal(signal.SIGINT)

        begun = time.perf_counter()
        with pytest.raises(KeyboardInterrupt):
            run(program(), workers=2, shutdown_timeout=PATIENCE)
        assert time.perf_counter() - begun < PATIENCE / 2  # not the budget
        assert any("worker 1" in text for text in caplog.messages)


@on_unix
def test_a_task_on_a_worker_waits_for_a_signal() -> None:
    async def wait() -> signal.Signals:
        return await wait_for_signal(signal.SIGUSR1)

    order: list[signal.Signals] = []

    async def listen() -> None:
        with signals(signal.SIGUSR1, signal.SIGUSR2) as arrived:
            while len(order) < 2:
                order.append(await anext(arrived))

    async def program() -> None:
        before = signal.getsignal(signal.SIGUSR1)
        for number in (1, 0):
            handle = spawn(wait(), on=number)
            while signal.getsignal(signal.SIGUSR1) == before:
                await asyncio.sleep(0)
            signal.raise_signal(signal.SIGUSR1)
            assert await handle is signal.SIGUSR1
            while signal.getsignal(signal.SIGUSR1) != before:
                await asyncio.sleep(0)
        both = spawn(listen(), on=1)
        while signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL:
            await asyncio.sleep(0)
        signal.raise_signal(signal.SIGUSR2)
        while not order:  # of two that wait, the main thread handles the lower number first
            await asyncio.sleep(0)
        signal.raise_signal(signal.SIGUSR1)
        await both
        assert order == [signal.SIGUSR2, signal.SIGUSR1]

    run(program(), workers=2)


@on_unix
def test_a_signal_cancels_a_block_on_a_worker() -> None:
    async def block(number: int) -> signal.Signals | None:
        with handle_signal(signal.SIGUSR1) as scope:
            await asyncio.sleep(3600)
        return scope.signal

    async def program() -> None:
        before = signal.getsignal(signal.SIGUSR1)
        handle = spawn(block(1), on=1)
        while signal.getsignal(signal.SIGUSR1) == before:
            await asyncio.sleep(0)
        signal.raise_signal(signal.SIGUSR1)
        assert await handle is signal.SIGUSR1

    run(program(), workers=2)


def test_outside_of_the_main_thread_no_worker_listens_to_signals() -> None:
    errors: list[BaseException] = []

    async def listen() -> None:
        signals(signal.SIGTERM)

    async def program() -> None:
        await spawn(listen(), on=1)

    def in_a_thread() -> None:
        try:
            run(program(), workers=2)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join(PATIENCE)
    assert [type(error) for error in errors] == [RuntimeError]


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_in_a_forked_child_the_runtime_is_dead_and_says_so() -> None:
    read, write = os.pipe()

    async def program() -> None:
        await spawn(thread_of(), on=1)
        handle = Handle.current()
        child = os.fork()
        if not child:
            try:
                handle.spawn(thread_of())
            except RuntimeError as error:
                os.write(write, str(error).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)

    run(program(), workers=2)
    os.close(write)
    assert b"forked" in os.read(read, 1000)
    os.close(read)


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_can_leave_the_runtime_of_its_parent_and_run_its_own() -> None:
    read, write = os.pipe()
    with Runtime(workers=2) as runtime:
        runtime.run_until_complete(thread_of())
        child = os.fork()
        if not child:
            try:
                with pytest.raises(RuntimeError, match="forked"):
                    runtime.run_until_complete(thread_of())
                with pytest.raises(RuntimeError, match="forked"):
                    runtime.spawn(thread_of())
                runtime.shutdown()
                assert run(on_another_worker(), workers=2) == "yamanote-worker-1"
                os.write(write, b"as promised")
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert runtime.run_until_complete(on_another_worker()) == "yamanote-worker-1"
    os.close(write)
    assert os.read(read, 1000) == b"as promised"
    os.close(read)


async def on_another_worker() -> str:
    async def name() -> str:
        return threading.current_thread().name

    return await spawn(name(), on=1)
