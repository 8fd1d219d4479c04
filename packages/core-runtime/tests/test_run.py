from __future__ import annotations

import asyncio
import gc
import inspect
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from yamanote.runtime import Runtime, main, run, spawn, spawn_blocking, yield_now
from yamanote.time import VirtualClock

on_unix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals between processes")


async def value_of(value: Any) -> Any:
    await yield_now()
    return value


def test_it_returns_what_main_returns_again_and_again() -> None:
    for value in (1, None, ValueError("a value")):
        assert run(value_of(value)) is value


@pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit])
def test_it_raises_what_main_raises(error: type[BaseException]) -> None:
    async def fail() -> None:
        raise error

    with pytest.raises(error):
        run(fail())


def test_it_takes_any_awaitable() -> None:
    class Ready:
        def __await__(self) -> Any:
            yield from asyncio.sleep(0).__await__()
            return 4

    assert run(Ready()) == 4


def test_nonsense_is_refused_with_advice() -> None:
    async def work() -> None: ...

    with pytest.raises(TypeError, match=r"call it: run\(work\(\)\)"):
        run(work)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not 3"):
        run(3)  # type: ignore[arg-type]


def test_nested_use_is_refused_with_advice() -> None:
    async def outer() -> None:
        with pytest.raises(RuntimeError, match="await the coroutine, or `spawn` it"):
            run(value_of(1))

    run(outer())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"loop_factory": 3}, TypeError, "loop_factory"),
        ({"clock": object()}, TypeError, "clock"),
        ({"stop_signals": signal.SIGTERM}, TypeError, "stop_signals must be several"),
        ({"stop_signals": ["SIGTERM"]}, TypeError, "stop_signals"),
        ({"stop_signals": [True]}, TypeError, "stop_signals"),
        ({"stop_signals": [12345]}, ValueError, "stop_signals.*12345"),
        ({"shutdown_timeout": "1"}, TypeError, "shutdown_timeout"),
        ({"shutdown_timeout": -1}, ValueError, "shutdown_timeout"),
        ({"shutdown_timeout": math.nan}, ValueError, "shutdown_timeout"),
        ({"shutdown_timeout": math.inf}, ValueError, "shutdown_timeout"),
    ],
)
def test_nonsense_options_are_refused_by_their_names(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    coroutine = value_of(1)
    with pytest.raises(error, match=message):
        run(coroutine, **options)
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


@on_unix
def test_a_signal_that_nobody_can_catch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stop_signals.*SIGKILL cannot"):
        run(value_of(1), stop_signals=[signal.SIGKILL])


def test_it_runs_in_any_thread() -> None:
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(run(value_of(1))))
    thread.start()
    thread.join()
    assert results == [1]


def test_the_loop_is_made_by_the_factory_and_closed_at_the_end() -> None:
    made: list[asyncio.AbstractEventLoop] = []

    def factory() -> asyncio.AbstractEventLoop:
        made.append(asyncio.SelectorEventLoop())
        return made[-1]

    async def which() -> Any:
        return asyncio.get_running_loop(), asyncio.get_running_loop().get_debug()

    assert run(which(), loop_factory=factory, debug=True) == (made[0], True)
    assert made[0].is_closed()


def test_a_factory_that_fails_leaves_no_coroutine_behind() -> None:
    def factory() -> asyncio.AbstractEventLoop:
        raise LookupError

    with pytest.raises(LookupError):
        run(value_of(1), loop_factory=factory)


def test_tasks_that_are_left_over_are_cancelled_awaited_and_named(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []

    async def background() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            for _ in range(5):
                await yield_now()  # it is cancelled once: a second time would end this
            log.append("cleaned up")

    async def forgetful() -> str:
        spawn(background(), name="forgotten")
        aborted = spawn(background(), name="aborted")
        await yield_now()
        aborted.abort()
        await yield_now()
        await yield_now()
        return "value"

    assert run(forgetful()) == "value"
    assert log == ["cleaned up"] * 2
    assert "1 of its tasks" in caplog.text and "forgotten" in caplog.text and "aborted" not in caplog.text


def test_nothing_is_reported_when_nothing_is_left(caplog: pytest.LogCaptureFixture) -> None:
    async def tidy() -> None:
        await spawn(value_of(1))

    run(tidy())
    assert caplog.text == ""


def test_asynchronous_generators_are_closed() -> None:
    log: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await yield_now()
            log.append("closed")

    kept = numbers()

    async def example() -> None:
        await anext(kept)

    run(example())
    assert log == ["closed"]


def test_ctrl_c_cancels_main_whose_finally_blocks_run() -> None:
    log: list[str] = []

    async def background() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            log.append("background")

    async def example() -> None:
        handle = spawn(background())
        try:
            await yield_now()
            signal.raise_signal(signal.SIGINT)
            await handle
        finally:
            await yield_now()
            log.append("main")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(example())
    assert log == ["main", "background"]
    assert signal.getsignal(signal.SIGINT) is before
    assert run(value_of(1)) == 1


def test_an_interrupt_that_a_task_raises_ends_everything(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []

    async def fatal() -> None:
        raise SystemExit(3)

    async def example() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # asyncio reports it as well, at collection
        spawn(fatal())
        try:
            await asyncio.sleep(3600)
        finally:
            log.append("main")

    with pytest.raises(SystemExit):
        run(example())
    assert log == ["main"]
    assert "of its tasks" not in caplog.text  # nobody has forgotten `main`


def test_main_cleans_up_for_as_long_as_it_takes_when_another_task_ends_everything() -> None:
    clock = VirtualClock()
    log: list[str] = []

    async def fatal() -> None:
        raise SystemExit(3)

    async def example() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        spawn(fatal())
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(60)
            log.append("main")

    with pytest.raises(SystemExit):
        run(example(), clock=clock, shutdown_timeout=1)
    assert log == ["main"] and clock.virtual_time() == 60


# @main


def test_main_makes_a_plain_function_that_takes_arguments_and_returns_the_result() -> None:
    @main
    async def add(a: int, *, b: int = 1) -> int:
        """Adds."""
        return a + b

    assert add(1) == 2 and add(1, b=2) == 3
    assert add.__name__ == "add" and add.__doc__ == "Adds."
    assert not inspect.iscoroutinefunction(add)


def test_main_passes_its_options_on() -> None:
    @main(debug=True, loop_factory=asyncio.SelectorEventLoop)
    async def in_debug_mode() -> bool:
        loop = asyncio.get_running_loop()
        return loop.get_debug() and isinstance(loop, asyncio.SelectorEventLoop)

    assert in_debug_mode()


def test_main_refuses_what_is_no_async_function() -> None:
    with pytest.raises(TypeError, match="needs an async function"):

        @main  # type: ignore[arg-type]
        def plain() -> None: ...


def test_main_refuses_options_that_run_does_not_have_where_it_is_used() -> None:
    with pytest.raises(TypeError, match="workers_"):
        main(workers_=3)  # type: ignore[call-overload]


# What is left over


def test_a_task_that_swallowed_its_cancellation_does_not_keep_the_program(caplog: pytest.LogCaptureFixture) -> None:
    ended = []

    async def swallows_one() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(True)

    async def example() -> None:
        handle = spawn(swallows_one(), name="stubborn")
        await yield_now()
        handle.abort()
        await yield_now()

    run(example(), clock=VirtualClock())
    assert ended == [True]
    assert "cancelled again (1): stubborn" in caplog.text and "left behind" not in caplog.text


def test_a_warning_names_a_few_tasks_not_all(caplog: pytest.LogCaptureFixture) -> None:
    async def example() -> None:
        for number in range(40):
            spawn(asyncio.sleep(3600), name=f"task-{number:02}")

    run(example())
    assert "before 40 of its tasks" in caplog.text
    assert "task-09, ..." in caplog.text
    assert "task-10" not in caplog.text


def test_tasks_that_clean_up_start_are_ended_as_well() -> None:
    log: list[str] = []

    async def follow(depth: int) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            log.append(f"ended {depth}")
            if depth:
                spawn(follow(depth - 1))

    async def example() -> None:
        spawn(follow(2))
        await yield_now()

    run(example())
    assert log[0] == "ended 2"
    assert len(log) == 1 or log == ["ended 2", "ended 1", "ended 0"]  # who is cancelled before its first step never ran


def test_a_left_over_task_that_stops_the_loop_does_not_stop_the_clean_up() -> None:
    log: list[str] = []

    async def stops() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            asyncio.get_running_loop().stop()
            await yield_now()
            log.append("ended")

    async def example() -> str:
        spawn(stops())
        await yield_now()
        return "value"

    assert run(example()) == "value"
    assert log == ["ended"]


def test_an_interrupt_that_a_left_over_task_raises_comes_out_when_the_others_have_ended() -> None:
    log: list[str] = []

    async def raises() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise SystemExit(3)

    async def slow() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(1)
            log.append("ended")

    async def example() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        spawn(raises())
        spawn(slow())
        await yield_now()

    with pytest.raises(SystemExit, match="3"):
        run(example(), clock=VirtualClock())
    assert log == ["ended"]


# The budget of the shutdown


async def never_ends() -> None:
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


def test_what_will_not_end_is_left_behind_when_the_budget_is_over_and_the_log_says_where_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = VirtualClock()

    async def example() -> str:
        spawn(never_ends(), name="endless")
        await yield_now()
        return "value"

    assert run(example(), clock=clock, shutdown_timeout=7) == "value"
    assert clock.virtual_time() == 7
    assert "cancelled again (1): endless" in caplog.text
    assert "left behind (1):\n'endless' sleeps until " in caplog.text
    assert "in never_ends" in caplog.text
    del clock  # it knows the loop, and that the tasks
    gc.collect()
    assert "destroyed" not in caplog.text


def test_a_clean_up_that_takes_less_than_the_budget_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    clock = VirtualClock()
    log: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(6)
            log.append("cleaned up")

    async def example() -> None:
        spawn(slow())
        await yield_now()

    run(example(), clock=clock, shutdown_timeout=7)
    assert log == ["cleaned up"] and clock.virtual_time() == 6
    assert "again" not in caplog.text


def test_the_budget_holds_for_asynchronous_generators_too(caplog: pytest.LogCaptureFixture) -> None:
    clock = VirtualClock()

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await never_ends()

    kept = numbers()

    async def example() -> None:
        await anext(kept)

    run(example(), clock=clock, shutdown_timeout=7)
    assert clock.virtual_time() == 7
    assert "left behind" in caplog.text and ".numbers\n" in caplog.text


@contextmanager
def stuck_call() -> Iterator[Callable[[], None]]:
    """A function that is stuck till the end of the block."""
    released, entered, left = threading.Event(), threading.Event(), threading.Event()

    def stuck() -> None:
        entered.set()
        released.wait()
        left.set()

    try:
        yield stuck
    finally:
        assert entered.is_set() and not left.is_set()
        released.set()
        assert left.wait(10)


@pytest.mark.parametrize("clock", [None, VirtualClock()], ids=["real", "virtual"])
def test_a_thread_that_is_stuck_is_named_and_left(clock: VirtualClock | None, caplog: pytest.LogCaptureFixture) -> None:
    async def example() -> str:
        spawn_blocking(stuck)
        return "value"

    with stuck_call() as stuck:
        assert run(example(), clock=clock, shutdown_timeout=0.01) == "value"
        assert "blocking calls" in caplog.text


@pytest.mark.parametrize("clock", [None, VirtualClock()], ids=["real", "virtual"])
def test_a_thread_of_the_default_executor_that_is_stuck_is_named_and_left(
    clock: VirtualClock | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def example() -> str:
        asyncio.get_running_loop().run_in_executor(None, stuck)
        return "value"

    with stuck_call() as stuck:
        assert run(example(), clock=clock, shutdown_timeout=0.01) == "value"
        assert "default executor, which go on in their threads: asyncio_0" in caplog.text
        gc.collect()  # would wait for the thread, if it dropped who waits for it
        assert "left behind" not in caplog.text


def test_calls_in_threads_that_end_are_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []

    async def example() -> None:
        asyncio.get_running_loop().run_in_executor(None, log.append, "executor")
        spawn_blocking(log.append, "pool")

    run(example())
    assert sorted(log) == ["executor", "pool"] and caplog.text == ""


# Signals


def test_who_handles_ctrl_c_himself_goes_on_doing_so() -> None:
    log: list[str] = []

    async def example() -> str:
        signal.raise_signal(signal.SIGINT)
        await yield_now()
        return "value"

    before = signal.signal(signal.SIGINT, lambda *_: log.append("his own"))
    try:
        assert run(example()) == "value"
    finally:
        signal.signal(signal.SIGINT, before)
    assert log == ["his own"]


def test_ctrl_c_that_main_does_not_let_through_is_its_own_business() -> None:
    async def example() -> str:
        signal.raise_signal(signal.SIGINT)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "served until now"
        return "never"

    assert run(example()) == "served until now"


def test_ctrl_c_in_a_step_that_waits_for_nothing_any_more_is_not_lost() -> None:
    async def example() -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(example())


async def hangs_in_its_clean_up() -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
        await asyncio.sleep(3600)


async def computes_in_its_clean_up() -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        signal.raise_signal(signal.SIGINT)
        while True:
            pass


async def catches_everything() -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException:
            pass
        await asyncio.sleep(3600)


clean_ups = pytest.mark.parametrize(
    "clean_up", [hangs_in_its_clean_up, computes_in_its_clean_up, catches_everything], ids=lambda f: f.__name__
)


@clean_ups
def test_the_second_ctrl_c_ends_at_once_while_main_cleans_up(clean_up: Any, caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []

    async def beside() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            log.append("cancelled")

    async def example() -> None:
        spawn(beside(), name="beside")
        await yield_now()
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
        await clean_up()

    with pytest.raises(KeyboardInterrupt):
        run(example())
    assert log == []  # nothing was awaited any more
    assert "left behind" in caplog.text and "'beside' sleeps until" in caplog.text
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    gc.collect()
    assert "never retrieved" not in caplog.text and "destroyed" not in caplog.text


@clean_ups
@pytest.mark.parametrize("first", [True, False], ids=["interrupted", "ended"])
def test_ctrl_c_ends_at_once_while_what_is_left_is_awaited(
    clean_up: Any, first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def example() -> None:
        spawn(clean_up(), name="left")
        await yield_now()
        if first:
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(3600)

    with pytest.raises(KeyboardInterrupt):
        run(example())
    assert "left behind" in caplog.text or clean_up is computes_in_its_clean_up
    assert "shut_down" not in caplog.text  # the tasks of the program, not ours
    assert run(value_of(1)) == 1


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_cancels_main_and_becomes_the_exit_status(signum: signal.Signals) -> None:
    log: list[str] = []

    async def example() -> None:
        try:
            asyncio.get_running_loop().call_soon(signal.raise_signal, signum)
            await asyncio.sleep(3600)
        finally:
            await yield_now()
            log.append("cleaned up")

    before = signal.getsignal(signum)
    with pytest.raises(SystemExit) as exit:
        run(example(), stop_signals={signum})
    assert exit.value.code == 128 + signum
    assert log == ["cleaned up"]
    assert signal.getsignal(signum) is before


def test_further_stop_signals_change_nothing_but_ctrl_c_does() -> None:
    log: list[str] = []

    async def example(last: signal.Signals) -> None:
        loop = asyncio.get_running_loop()
        try:
            signal.raise_signal(signal.SIGTERM)
            await yield_now()
        finally:
            loop.call_soon(signal.raise_signal, signal.SIGTERM)
            await asyncio.sleep(0.001)
            loop.call_soon(signal.raise_signal, last)
            await asyncio.sleep(0.001)
            log.append("cleaned up")

    with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
        run(example(signal.SIGTERM), stop_signals=[signal.SIGTERM])
    assert log == ["cleaned up"]
    with pytest.raises(KeyboardInterrupt):
        run(example(signal.SIGINT), stop_signals=[signal.SIGTERM])
    assert log == ["cleaned up"]


def test_a_stop_signal_while_the_rest_is_awaited_changes_nothing() -> None:
    log: list[str] = []

    async def left() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            signal.raise_signal(signal.SIGTERM)
            await yield_now()
            log.append("cleaned up")

    async def example() -> str:
        spawn(left())
        await yield_now()
        return "value"

    assert run(example(), stop_signals=[signal.SIGTERM]) == "value"
    assert log == ["cleaned up"]


def test_stop_signals_outside_of_the_main_thread_are_refused() -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            run(value_of(1), stop_signals=[signal.SIGTERM])
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "stop_signals" in str(errors[0])


@on_unix
def test_signals_wake_the_loop_through_its_pipe_as_long_as_it_is_open() -> None:
    async def main() -> int:
        descriptor = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(descriptor)
        return descriptor

    with Runtime() as runtime:
        assert runtime.run_until_complete(main()) != -1
        runtime.shutdown()
        assert signal.set_wakeup_fd(-1) == -1
    assert run(main()) != -1
    assert signal.set_wakeup_fd(-1) == -1


PROGRAM = """
import asyncio, signal, sys, threading
from yamanote.runtime import run, spawn

async def left():
    try:
        await asyncio.sleep(3600)
    finally:
        print("left", flush=True)
        if "hang" in sys.argv:
            asyncio.get_running_loop().call_soon(lambda: print("hanging", flush=True))
            await asyncio.sleep(3600)

async def main():
    spawn(left())
    try:
        await asyncio.sleep(0)
        print("ready", flush=True)
        await asyncio.sleep(3600)
    finally:
        print("main", flush=True)

run(main(), stop_signals=[signal.SIGTERM])
"""


@contextmanager
def program(*args: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PROGRAM, *args]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def read(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@on_unix
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])
def test_a_program_that_sleeps_is_woken_by_a_signal_and_cleans_up(signum: signal.Signals, status: int) -> None:
    with program() as process:
        assert read(process) == "ready"
        process.send_signal(signum)
        assert (read(process), read(process)) == ("main", "left")
        assert process.wait(10) == status


@on_unix
def test_a_program_that_hangs_at_its_end_is_ended_by_the_second_ctrl_c() -> None:
    with program("hang") as process:
        assert read(process) == "ready"
        process.send_signal(signal.SIGINT)
        assert (read(process), read(process), read(process)) == ("main", "left", "hanging")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == -signal.SIGINT
        assert process.stderr is not None
        errors = process.stderr.read()
        assert "left behind" in errors and "destroyed" not in errors and "never retrieved" not in errors


# Other loops, and other tasks


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio has no eager tasks before 3.12")
def test_it_runs_where_tasks_are_eager() -> None:
    log: list[str] = []

    async def left(name: str) -> None:
        log.append(name)
        try:
            await asyncio.sleep(3600)
        finally:
            await yield_now()
            log.append(f"{name} ended")

    async def example() -> int:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
        kept = asyncio.create_task(left("eager"))
        spawn(left("spawned"))
        await yield_now()
        assert not kept.done()
        return len(log)

    assert run(example()) == 2
    assert sorted(log[2:]) == ["eager ended", "spawned ended"]


def test_it_runs_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")
    log: list[str] = []

    async def left() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            log.append("left")

    async def example() -> None:
        assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
        spawn(left())
        assert await spawn_blocking(int, "3") == 3
        asyncio.get_running_loop().call_later(0.001, os.kill, os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(3600)
        finally:
            log.append("main")

    with pytest.raises(KeyboardInterrupt):
        run(example(), loop_factory=uvloop.new_event_loop)
    assert log == ["main", "left"]
    assert run(value_of(1), loop_factory=uvloop.new_event_loop) == 1


@clean_ups
def test_the_second_ctrl_c_ends_at_once_on_uvloop(clean_up: Any) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def example() -> None:
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
        await clean_up()

    with pytest.raises(KeyboardInterrupt):
        run(example(), loop_factory=uvloop.new_event_loop)


# Its thread that waits for the others says so, in vain, to a loop that is closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_is_stuck_is_left_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")
    threads = set(threading.enumerate())

    async def example() -> str:
        asyncio.get_running_loop().run_in_executor(None, stuck)
        return "value"

    with stuck_call() as stuck:
        assert run(example(), loop_factory=uvloop.new_event_loop, shutdown_timeout=0.01) == "value"
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)
