"""The loop of a runtime's calls where it is none of the workers, as on free-threaded Python."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar, copy_context
from time import perf_counter

import pytest

from yamanote.runtime import (
    EventLoop,
    Handle,
    JoinError,
    Runtime,
    _runtime,
    handle_signal,
    metrics,
    run,
    signals,
    spawn,
    yield_now,
)

PATIENCE = 20.0
"""Seconds after which a test gives up."""

HAS_GIL: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
on_unix = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="there are no such signals on this platform")


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """On every Python, home is none of the workers."""
    monkeypatch.setattr(_runtime, "has_gil", lambda: False)


async def thread_of() -> str:
    return threading.current_thread().name


async def current_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_every_worker_has_a_thread_of_its_own_and_main_runs_on_the_first() -> None:
    async def program() -> list[str]:
        return [await thread_of(), *[await spawn(thread_of(), on=number) for number in range(3)]]

    names = [f"yamanote-worker-{number}" for number in range(3)]
    assert run(program(), workers=3) == ["yamanote-worker-0", *names]


def test_one_worker_is_home_itself() -> None:
    assert run(thread_of()) == threading.current_thread().name


@pytest.mark.parametrize("debug", [False, True])
def test_the_loop_factory_makes_the_workers_and_debug_is_for_all(debug: bool) -> None:
    made: list[EventLoop] = []

    def make() -> EventLoop:
        made.append(EventLoop())
        return made[-1]

    with Runtime(workers=2, loop_factory=make, debug=debug) as runtime:
        assert runtime.run_until_complete(current_loop()) is made[0]
        assert [each.get_debug() for each in (*made, runtime._loop)] == [debug] * 3
        assert len(made) == 2
    assert all(each.is_closed() for each in (*made, runtime._loop))


def test_what_main_sets_in_its_context_lives_on_between_the_calls() -> None:
    variable = ContextVar("variable", default="unset")

    async def set_to(value: str) -> None:
        variable.set(value)

    async def value() -> str:
        return variable.get()

    variable.set("of the caller")
    with Runtime(workers=2) as runtime:
        assert runtime.run_until_complete(value()) == "of the caller"
        runtime.run_until_complete(set_to("changed"))
        assert runtime.run_until_complete(value()) == runtime.run_until_complete(runtime.spawn(value())) == "changed"
    assert variable.get() == "of the caller"


def test_between_the_calls_all_workers_run() -> None:
    async def tell(ended: threading.Event) -> None:
        await yield_now()
        ended.set()

    with Runtime(workers=2) as runtime:
        first = runtime.run_until_complete(current_loop())
        for number in range(2):
            ended = threading.Event()

            async def leave(number: int = number, ended: threading.Event = ended) -> None:
                spawn(tell(ended), on=number)

            runtime.run_until_complete(leave())
            assert ended.wait(PATIENCE)
        assert runtime.handle.block_on(current_loop()) is first
        assert runtime.spawn(current_loop(), context=copy_context()).result(PATIENCE) is first


def test_what_is_brought_before_the_first_call_is_started_by_it_or_ended_by_shutdown() -> None:
    begun: list[str] = []

    async def begin() -> None:
        begun.append("begun")
        await asyncio.sleep(3600)

    with Runtime(workers=2) as runtime:
        early = runtime.spawn(thread_of())
        assert runtime.run_until_complete(early).startswith("yamanote-worker")

    with Runtime(workers=2) as runtime:
        never = runtime.spawn(begin())
    with pytest.raises(JoinError):
        never.result(PATIENCE)
    assert len(begun) <= 1


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # and nobody can close it any more
def test_what_was_brought_to_a_runtime_that_is_dropped_before_its_first_call_has_ended() -> None:
    runtime = Runtime(workers=2)
    never = runtime.spawn(thread_of())
    with pytest.warns(ResourceWarning, match="dropped"):
        del runtime
        gc.collect()
    with pytest.raises(JoinError):
        never.result(PATIENCE)
    del never
    gc.collect()


@pytest.mark.parametrize("error", [LookupError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("turns", [0, 1])
def test_what_main_raises_is_raised_and_nothing_else(
    error: type[BaseException], turns: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def program() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        raise error("mine")

    with Runtime(workers=2) as runtime:
        for _ in range(2):
            with pytest.raises(error, match="mine"):
                runtime.run_until_complete(program())
        assert runtime.run_until_complete(thread_of()) == "yamanote-worker-0"
    assert not caplog.messages


def test_main_cleans_up_when_another_task_ends_the_program() -> None:
    clean: list[str] = []

    async def end() -> None:
        raise SystemExit(3)

    async def program() -> None:
        spawn(end(), on=1)
        try:
            await asyncio.sleep(3600)
        finally:
            for _ in range(3):
                await asyncio.sleep(0)
            clean.append("up")

    with pytest.raises(SystemExit) as caught:
        run(program(), workers=2)
    assert caught.value.code == 3
    assert clean == ["up"]


@on_unix
@pytest.mark.parametrize("number", [0, 1])
def test_a_worker_listens_as_soon_as_it_has_said_so_and_no_longer(number: int) -> None:
    """Home does nothing but wait; so the signal is taken, and given back, at once."""

    async def listen() -> list[signal.Signals]:
        before = signal.getsignal(signal.SIGUSR1)
        with signals(signal.SIGUSR1) as arrived:
            assert signal.getsignal(signal.SIGUSR1) != before
            os.kill(os.getpid(), signal.SIGUSR1)
            first = await anext(arrived)
        assert signal.getsignal(signal.SIGUSR1) == before
        with handle_signal(signal.SIGUSR1) as scope:
            os.kill(os.getpid(), signal.SIGUSR1)
            await asyncio.sleep(3600)
        assert signal.getsignal(signal.SIGUSR1) == before
        assert scope.signal is not None
        return [first, scope.signal]

    async def program() -> list[signal.Signals]:
        return await spawn(listen(), on=number)

    assert run(program(), workers=2) == [signal.SIGUSR1] * 2


@on_unix
@pytest.mark.parametrize("number", [0, 1])
def test_a_library_adds_its_handler_to_the_loop_of_any_worker(number: int) -> None:
    async def program() -> None:
        await spawn(handle(), on=number)

    async def handle() -> None:
        before = signal.getsignal(signal.SIGUSR1)
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()

        def arrive(*arguments: object) -> None:
            assert asyncio.get_running_loop() is loop
            assert arguments == (1, 2)
            arrived.set()

        loop.add_signal_handler(signal.SIGUSR1, arrive, 1, 2)
        os.kill(os.getpid(), signal.SIGUSR1)
        await arrived.wait()
        with pytest.raises(ValueError, match="1000"):
            loop.add_signal_handler(1000, arrive)
        with pytest.raises(TypeError, match="coroutines"):
            loop.add_signal_handler(signal.SIGUSR1, thread_of)
        assert loop.remove_signal_handler(signal.SIGUSR1)
        assert not loop.remove_signal_handler(signal.SIGUSR1)
        assert signal.getsignal(signal.SIGUSR1) == before

    run(program(), workers=2)


@on_unix
def test_a_handler_that_is_left_is_removed_with_the_runtime() -> None:
    before = signal.getsignal(signal.SIGUSR1)

    async def program() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)

    run(program(), workers=2)
    assert signal.getsignal(signal.SIGUSR1) == before


@on_unix
def test_ctrl_c_cancels_main_and_a_second_one_leaves_a_main_that_computes_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    released = threading.Event()

    async def wait() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(3600)

    with pytest.raises(KeyboardInterrupt):
        run(wait(), workers=2)
    assert not caplog.messages

    async def compute() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        while runtime._interrupts._received is None:
            pass
        os.kill(os.getpid(), signal.SIGINT)
        while not released.is_set():
            pass

    try:
        with pytest.raises(KeyboardInterrupt), Runtime(workers=2) as runtime:
            runtime.run_until_complete(compute())
        assert any("worker 0 (yamanote-worker-0) is stuck" in text for text in caplog.messages)
        with pytest.raises(RuntimeError, match="shut down"):
            runtime.handle.spawn(thread_of())
    finally:
        released.set()


@on_unix
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_between_short_calls_is_not_lost_and_spoils_none(workers: int) -> None:
    """It ends the call in which it comes, or is raised between two of them."""
    ready = threading.Semaphore(0)

    def send() -> None:
        for _ in range(30):
            ready.acquire()
            for _ in range(random.randrange(3000)):
                pass
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    sender = threading.Thread(target=send)
    sender.start()
    with Runtime(workers=workers) as runtime:
        for _ in range(30):
            deadline = perf_counter() + PATIENCE
            with pytest.raises(KeyboardInterrupt):
                ready.release()
                while perf_counter() < deadline:
                    runtime.run_until_complete(yield_now())
            for _ in range(3):
                runtime.run_until_complete(yield_now())
    sender.join()


def test_what_computes_for_ever_keeps_nobody_from_ending(caplog: pytest.LogCaptureFixture) -> None:
    """On free-threaded Python to ask a task anything waits for the end of its step, which may never come."""
    computes, release = threading.Event(), threading.Event()

    async def compute() -> None:
        computes.set()
        while not release.is_set():
            pass

    async def program() -> str:
        spawn(compute(), on=1)
        while not computes.is_set():
            await asyncio.sleep(0)
        assert metrics().tasks >= 1
        return "ended"

    try:
        assert run(program(), workers=2, shutdown_timeout=0.05) == "ended"
        assert any("worker 1 (yamanote-worker-1) is stuck" in text for text in caplog.messages)
    finally:
        release.set()


def test_to_abort_many_waits_for_no_step_of_theirs() -> None:
    computes, aborted = threading.Event(), threading.Event()

    async def compute() -> None:
        await asyncio.sleep(0)
        computes.set()
        end = perf_counter() + PATIENCE
        while not aborted.is_set():
            assert perf_counter() < end
        await asyncio.sleep(3600)

    async def alone() -> None:
        handle = spawn(compute(), asyncio.sleep(3600))
        assert computes.wait(PATIENCE)  # so others start them
        handle.abort()
        aborted.set()
        with pytest.raises(JoinError):
            await handle

    async def program() -> None:
        handle = spawn(alone(), on=1)
        await handle

    run(program(), workers=3)


def test_a_thread_that_cannot_be_started_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "yamanote-worker-1":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)  # a limit of the system is one for all processes of a user
    coroutine = thread_of()
    with pytest.raises(RuntimeError, match="can't start"):
        run(coroutine, workers=3)
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


def test_a_task_that_needs_a_second_cancellation_gets_it_on_every_worker(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[int] = []

    async def stubborn(number: int) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(number)

    async def program() -> None:
        for number in range(2):
            spawn(stubborn(number), on=number)
            await spawn(yield_now(), on=number)

    run(program(), workers=2, shutdown_timeout=0)
    assert sorted(ended) == [0, 1]
    assert not any("left behind" in text for text in caplog.messages)


def test_a_runtime_is_shut_down_in_another_thread_than_that_of_its_calls() -> None:
    """Python 3.14 keeps the tasks of a thread where only that sees all of them."""
    called, over = threading.Event(), threading.Event()
    ended: list[str] = []

    async def child() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("child")

    async def program() -> None:
        spawn(child())
        await yield_now()

    def call(runtime: Runtime) -> None:
        runtime.run_until_complete(program())
        called.set()
        over.wait(PATIENCE)

    for workers in (1, 2):
        called.clear()
        runtime = Runtime(workers=workers)
        thread = threading.Thread(target=call, args=(runtime,))
        thread.start()
        assert called.wait(PATIENCE)
        runtime.shutdown()
        over.set()
        thread.join()
    assert ended == ["child"] * 2


def test_who_waits_for_what_a_stuck_worker_was_brought_is_told() -> None:
    entered, release = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    async def compute() -> None:
        handle = Handle.current()
        bringer.append(threading.Thread(target=bring, args=(handle,)))
        bringer[0].start()
        entered.wait(PATIENCE)
        soon = asyncio.get_running_loop().call_soon
        soon(soon, soon, release.wait, PATIENCE)  # when the end of main has been told

    def bring(handle: Handle) -> None:
        brought = handle.spawn(asyncio.sleep(3600), context=copy_context())
        entered.set()
        try:
            brought.result(PATIENCE)
        except JoinError as error:
            errors.append(error)

    bringer: list[threading.Thread] = []
    try:
        run(compute(), workers=2, shutdown_timeout=0.05)
        bringer[0].join(PATIENCE)
        assert [type(error) for error in errors] == [JoinError]
    finally:
        release.set()


def test_the_calls_may_be_made_in_any_thread() -> None:
    names: list[str] = []
    with Runtime(workers=2) as runtime:
        names.append(runtime.run_until_complete(thread_of()))
        thread = threading.Thread(target=lambda: names.append(runtime.run_until_complete(thread_of())))
        thread.start()
        thread.join(PATIENCE)
    assert names == ["yamanote-worker-0"] * 2


# ---------------------------------------------------------------- what it is for


def fibonacci(number: int) -> int:
    return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)


def seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def in_two_threads() -> None:
    threads = [threading.Thread(target=fibonacci, args=(22,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_one_thread() -> None:
    for _ in range(2):
        thread = threading.Thread(target=fibonacci, args=(22,))
        thread.start()
        thread.join()


@pytest.mark.skipif(HAS_GIL, reason="only one thread computes at a time")
def test_two_workers_compute_as_much_faster_than_one_as_two_threads_do() -> None:
    """In rounds, each beside bare threads, because the machine may have other things to do."""

    async def compute() -> None:
        fibonacci(22)

    async def program() -> float:
        await spawn(yield_now(), on=1)
        start = perf_counter()
        on_first = spawn(compute(), on=0)
        on_second = spawn(compute(), on=1)
        await on_first
        await on_second
        return perf_counter() - start

    for _ in range(20):
        if seconds(in_two_threads) > 0.7 * seconds(in_one_thread):
            continue  # there is no second core for anybody
        if run(program(), workers=2) < 0.75 * seconds(in_one_thread):
            return
    if min(seconds(in_two_threads) for _ in range(5)) > 0.7 * min(seconds(in_one_thread) for _ in range(5)):
        pytest.skip("two threads are not faster than one here")
    raise AssertionError("two workers are not faster than one")
