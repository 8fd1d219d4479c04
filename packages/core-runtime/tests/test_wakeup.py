"""Wake-up: no signal waits until something else wakes the loop that listens for it."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from yamanote.runtime import EventLoop, SignalListener, handle_signal, run, signals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals of one's own")

if sys.platform != "win32":
    from signal import SIGUSR1, SIGUSR2


def named() -> int:
    """What the interpreter writes to when a signal arrives, -1 for nothing."""
    descriptor = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(descriptor)
    return descriptor


@pytest.fixture(autouse=True)
def nothing_is_named_afterwards() -> Iterator[None]:
    assert named() == -1
    yield
    assert signal.set_wakeup_fd(-1) == -1


PROGRAM = """
import asyncio, os, signal
from yamanote.runtime import EventLoop, run, signals

async def main():
    with signals(signal.SIGUSR1) as arrived:
        os.write(1, b".")
        async for _ in arrived:
            os.write(1, b".")
"""


@pytest.mark.parametrize("runner", ["asyncio.run(main())", "run(main(), loop_factory=asyncio.SelectorEventLoop)"])
def test_a_loop_that_is_always_about_to_fall_asleep_notices_each_of_thousands(runner: str) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM + runner], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            for number in range(3000):
                ready, _, _ = select.select([process.stdout], [], [], 10)
                assert ready, f"signal {number} was not noticed"
                assert os.read(process.stdout.fileno(), 1) == b"."
                process.send_signal(SIGUSR1)
        finally:
            process.kill()


@pytest.mark.parametrize("runner", [asyncio.run, run])
def test_a_loop_that_sleeps_notices_what_arrives_in_another_thread(
    runner: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    noticed = threading.Semaphore(0)

    def send() -> bool:
        for _ in range(1000):
            signal.pthread_kill(threading.get_ident(), SIGUSR1)  # where it interrupts no sleep of the loop
            if not noticed.acquire(timeout=10):
                return False
        return True

    async def listen(arrived: SignalListener) -> None:
        async for _ in arrived:
            noticed.release()

    async def main() -> None:
        with signals(SIGUSR1) as arrived:
            listening = asyncio.ensure_future(listen(arrived))
            assert await asyncio.to_thread(send)
        await listening

    runner(main())


@pytest.mark.parametrize("runner", [asyncio.run, run])
def test_signals_wake_the_loop_as_long_as_anybody_listens(runner: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def main() -> None:
        before = named()
        with signals(SIGUSR1):
            during = named()
            assert during != -1
            with signals(SIGUSR1), handle_signal(SIGUSR2):
                assert named() == during
            assert named() == during
        assert named() == before

    runner(main())


def test_what_somebody_else_has_named_is_kept() -> None:
    async def main() -> None:
        with signals(SIGUSR1) as arrived:
            assert named() == writer.fileno()
            asyncio.get_running_loop().call_soon(signal.raise_signal, SIGUSR1)
            assert await anext(arrived) is SIGUSR1
        assert named() == writer.fileno()

    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno())
        try:
            asyncio.run(main())
            assert reader.recv(100) == bytes([SIGUSR1])
        finally:
            signal.set_wakeup_fd(-1)


@pytest.mark.parametrize("first", [True, False])
def test_when_the_loop_lets_its_last_handler_go_who_listens_is_still_woken(first: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with ExitStack() as stack:
            if first:
                stack.enter_context(signals(SIGUSR1))
            loop.add_signal_handler(SIGUSR2, print)
            if not first:
                stack.enter_context(signals(SIGUSR1))
            assert loop.remove_signal_handler(SIGUSR2)
            assert named() != -1
            assert not loop.remove_signal_handler(SIGUSR2)
        assert named() == -1

    with asyncio.Runner(loop_factory=EventLoop) as runner:  # not `run`, which has signals wake its loop anyway
        runner.run(main())


def test_the_handlers_of_the_loop_are_woken_when_nobody_listens_any_more() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()
        with signals(SIGUSR1):
            loop.add_signal_handler(SIGUSR2, arrived.set)
        assert named() != -1
        os.kill(os.getpid(), SIGUSR2)
        await arrived.wait()
        loop.remove_signal_handler(SIGUSR2)

    asyncio.run(main())


def test_a_listener_that_outlives_its_loop_writes_to_no_stranger() -> None:
    log: list[int] = []
    listeners: list[SignalListener] = []
    opened: list[socket.socket] = []

    async def main() -> None:
        listeners.append(signals(SIGUSR1))

    before = signal.signal(SIGUSR1, lambda signum, _: log.append(signum))
    try:
        asyncio.run(main())
        for _ in range(10):  # they get the numbers of the pipe of the loop
            opened += socket.socketpair()
        signal.raise_signal(SIGUSR1)
        assert log == [SIGUSR1] and named() == -1
        for each in opened:
            each.setblocking(False)
            with pytest.raises(BlockingIOError):
                each.recv(1)
        listeners.pop().close()
    finally:
        signal.signal(SIGUSR1, before)
        for each in opened:
            each.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the descriptors are counted as Linux shows them")
def test_no_descriptor_is_left_over() -> None:
    async def main() -> None:
        before = os.listdir("/proc/self/fd")
        for _ in range(3):
            with signals(SIGUSR1), signals(SIGUSR1, SIGUSR2):
                pass
        assert len(os.listdir("/proc/self/fd")) == len(before)

    before = os.listdir("/proc/self/fd")
    asyncio.run(main())
    run(main())
    assert len(os.listdir("/proc/self/fd")) == len(before)
