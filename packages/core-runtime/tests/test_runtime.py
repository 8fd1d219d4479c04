from __future__ import annotations

import asyncio
import gc
import inspect
import os
import signal
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from yamanote.runtime import (
    Handle,
    JoinError,
    JoinHandle,
    Runtime,
    ThreadWaiter,
    _shutdown,
    dump,
    record_spawn_sites,
    run,
    spawn,
    spawn_blocking,
    yield_now,
)
from yamanote.time import VirtualClock

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")

colour: ContextVar[str] = ContextVar("colour", default="none")


async def value_of(value: Any) -> Any:
    await yield_now()
    return value


@contextmanager
def in_thread(function: Callable[[], object]) -> Iterator[None]:
    """`function` runs in a thread during the block; what it raises is raised at the end."""
    errors: list[BaseException] = []

    def call() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield
    finally:
        thread.join(10)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


# ---------------------------------------------------------------- calls


def test_it_makes_one_call_after_the_other_on_one_loop() -> None:
    async def which() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    with Runtime() as runtime:
        assert runtime.run_until_complete(which()) is runtime.run_until_complete(which())


def test_tasks_live_on_between_the_calls_and_stand_still() -> None:
    log: list[int] = []

    async def count() -> str:
        for number in range(3):
            log.append(number)
            await yield_now()
        return "counted"

    with Runtime() as runtime:
        handle = runtime.spawn(count(), name="counter")
        assert log == [] and not handle.is_finished()
        runtime.run_until_complete(yield_now())
        assert 0 < len(log) < 3
        assert handle.name == "counter"
        assert runtime.run_until_complete(handle) == "counted"
        assert handle.result() == "counted"


def test_calls_and_tasks_share_the_context_that_calls_leave() -> None:
    async def paint(value: str) -> None:
        colour.set(value)

    async def look() -> str:
        return colour.get()

    with Runtime() as runtime:
        runtime.run_until_complete(paint("red"))
        assert colour.get() == "none"
        assert runtime.run_until_complete(look()) == "red"
        assert runtime.run_until_complete(runtime.spawn(look())) == "red"
        runtime.run_until_complete(runtime.spawn(paint("green")))
        assert runtime.run_until_complete(look()) == "red"


def test_a_call_that_fails_leaves_the_runtime_usable() -> None:
    async def fail() -> None:
        raise LookupError

    with Runtime() as runtime:
        with pytest.raises(LookupError):
            runtime.run_until_complete(fail())
        assert runtime.run_until_complete(value_of(1)) == 1


def test_ctrl_c_ends_one_call_and_not_the_runtime() -> None:
    async def interrupted() -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(3600)

    with Runtime() as runtime:
        handle = runtime.spawn(value_of(2))
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                runtime.run_until_complete(interrupted())
        assert runtime.run_until_complete(value_of(1)) == 1
        assert runtime.run_until_complete(handle) == 2


def test_between_the_calls_a_stop_signal_is_an_exit() -> None:
    async def left() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            log.append("cleaned up")

    log: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="143"):
        with Runtime(stop_signals=[signal.SIGTERM]) as runtime:
            runtime.spawn(left())
            runtime.run_until_complete(yield_now())
            signal.raise_signal(signal.SIGTERM)
    assert log == ["cleaned up"]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("signum", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_after_a_call_that_a_signal_has_ended_signals_are_exceptions_again(
    signum: signal.Signals, error: type[BaseException]
) -> None:
    async def interrupted() -> None:
        signal.raise_signal(signum)
        await asyncio.sleep(3600)

    with Runtime(stop_signals={signal.SIGTERM}) as runtime:
        with pytest.raises(error):
            runtime.run_until_complete(interrupted())
        for _ in range(2):
            with pytest.raises(error):
                signal.raise_signal(signum)
        assert runtime.run_until_complete(value_of(1)) == 1


def test_the_second_ctrl_c_ends_the_runtime_too() -> None:
    async def hangs() -> None:
        signal.raise_signal(signal.SIGINT)
        try:
            await asyncio.sleep(3600)
        finally:
            asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
            await asyncio.sleep(3600)

    with Runtime() as runtime:
        with pytest.raises(KeyboardInterrupt):
            runtime.run_until_complete(hangs())
        with pytest.raises(RuntimeError, match="has been shut down"):
            runtime.run_until_complete(value_of(1))


def test_what_is_refused_is_closed() -> None:
    async def nested() -> None:
        coroutine = value_of(1)
        with pytest.raises(RuntimeError, match="await the coroutine, or `spawn` it"):
            runtime.run_until_complete(coroutine)
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
        with pytest.raises(RuntimeError, match="one is running in this thread"):
            runtime.shutdown()

    with Runtime() as runtime:
        runtime.run_until_complete(nested())
        with pytest.raises(TypeError, match=r"call it: run_until_complete\(nested\(\)\)"):
            runtime.run_until_complete(nested)  # type: ignore[arg-type]
        run(nested())
    coroutines = [value_of(1) for _ in range(3)]
    for refuse, coroutine in zip(
        (runtime.run_until_complete, runtime.spawn, runtime.handle.spawn), coroutines, strict=True
    ):
        with pytest.raises(RuntimeError, match="has been shut down"):
            refuse(coroutine)
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
    with pytest.raises(RuntimeError, match="has been shut down"):
        runtime.__enter__()


def test_a_runtime_that_runs_in_another_thread_is_refused_with_advice() -> None:
    entered = threading.Event()

    async def wait() -> None:
        entered.set()
        await leave.wait()

    leave = asyncio.Event()
    with Runtime() as runtime:
        with in_thread(lambda: runtime.run_until_complete(wait())):
            entered.wait(10)
            for call in (lambda: runtime.run_until_complete(value_of(1)), runtime.shutdown):
                with pytest.raises(RuntimeError, match="use its `handle`"):
                    call()

            async def release() -> None:
                leave.set()

            runtime.handle.spawn(release())


# ---------------------------------------------------------------- the end


def test_the_end_of_the_block_ends_everything_and_shutdown_may_be_repeated(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []

    async def left() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await yield_now()
            log.append("cleaned up")

    with Runtime() as runtime:
        runtime.run_until_complete(yield_now())
        handle = runtime.spawn(left(), name="left")
        runtime.run_until_complete(yield_now())
        runtime.run_until_complete(yield_now())
        runtime.shutdown()
        assert log == ["cleaned up"] and "left" in caplog.text
        runtime.shutdown()
    runtime.shutdown(1)
    with pytest.raises(JoinError):
        handle.result()
    assert repr(runtime) == "<Runtime shut down>"


def test_shutdown_takes_a_budget_of_its_own() -> None:
    async def never_ends() -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue

    clock = VirtualClock()
    with Runtime(clock=clock) as runtime:
        for timeout in (-1, float("nan")):
            with pytest.raises(ValueError, match="timeout"):
                runtime.shutdown(timeout)
        runtime.spawn(never_ends())
        runtime.run_until_complete(yield_now())
        runtime.run_until_complete(yield_now())
        runtime.shutdown(3)
        assert clock.virtual_time() == 3


def test_a_task_that_was_spawned_and_never_ran_is_told_of_the_end() -> None:
    with Runtime() as runtime:
        handle = runtime.spawn(value_of(1))
    with pytest.raises(JoinError, match=r"shut down|cancelled"):
        handle.result()


def test_a_runtime_that_is_dropped_is_not_kept_by_its_handles_and_says_that_nobody_closed_it() -> None:
    runtime = Runtime()
    handle, gone = runtime.handle, weakref.ref(runtime)
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        del runtime
        gc.collect()
    assert gone() is None
    with pytest.raises(RuntimeError, match="has been shut down"):
        handle.spawn(value_of(1))
    assert repr(handle) == "<Handle of a runtime that is shut down>"


# ---------------------------------------------------------------- handles


def test_a_thread_spawns_and_waits_for_the_value() -> None:
    async def which(value: int) -> tuple[int, int, str, str]:
        task = asyncio.current_task()
        assert task is not None
        await yield_now()
        return value, threading.get_ident(), task.get_name(), colour.get()

    def work() -> None:
        colour.set("red")
        handle = runtime_handle.spawn(which(1), name="named")
        assert handle.result(10) == (1, home, "named", "red")
        assert handle.is_finished() and handle.name == "named"

    async def main() -> None:
        nonlocal runtime_handle
        runtime_handle = Handle.current()
        await spawn_blocking(work)

    home = threading.get_ident()
    runtime_handle: Handle
    run(main())


def test_what_threads_bring_starts_in_their_order() -> None:
    log: list[int] = []

    async def note(number: int) -> None:
        log.append(number)

    with Runtime() as runtime:
        with in_thread(lambda: [runtime.handle.spawn(note(number)) for number in range(10)]):
            pass
        runtime.run_until_complete(yield_now())
    assert log == list(range(10))


def test_errors_and_cancellations_come_back_to_the_thread() -> None:
    async def fail() -> None:
        raise LookupError("in the task")

    async def cancel() -> None:
        raise asyncio.CancelledError("by itself")

    def work(handle: Handle) -> None:
        for call in (handle.spawn(fail()).result, lambda: handle.block_on(fail())):
            with pytest.raises(LookupError, match="in the task"):
                call()
        with pytest.raises(JoinError, match="by itself"):
            handle.block_on(cancel())

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        await spawn_blocking(work, Handle.current())

    reported: list[dict[str, Any]] = []
    run(main())
    gc.collect()
    assert reported == []


def test_an_error_that_nobody_asks_for_is_reported_once() -> None:
    async def fail() -> None:
        raise LookupError

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        for _ in range(5):
            await yield_now()

    reported: list[dict[str, Any]] = []
    with Runtime() as runtime:
        with in_thread(lambda: runtime.handle.spawn(fail())):
            pass
        runtime.run_until_complete(main())
        gc.collect()
    assert [type(context["exception"]) for context in reported] == [LookupError]


def test_a_thread_aborts_what_it_has_spawned_started_or_not() -> None:
    def work(handle: Handle) -> None:
        for _ in range(20):
            spawned = handle.spawn(asyncio.sleep(3600))
            spawned.abort("enough")
            with pytest.raises(JoinError, match="enough"):
                spawned.result(10)

    async def main() -> None:
        await spawn_blocking(work, Handle.current())

    run(main())


def test_block_on_is_refused_where_it_would_stop_the_loop_and_closes_the_coroutine() -> None:
    async def main() -> None:
        coroutine = value_of(1)
        with pytest.raises(RuntimeError, match="would block the event loop"):
            Handle.current().block_on(coroutine)
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED

    run(main())


def test_ctrl_c_in_block_on_cancels_the_task_and_waits_for_its_clean_up(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    async def work() -> None:
        try:
            started.set()
            await asyncio.sleep(3600)
        finally:
            await yield_now()
            log.append("cleaned up")

    async def wait() -> None:
        await leave.wait()

    async def release() -> None:
        leave.set()

    def interrupted(waiter: ThreadWaiter[Any], timeout: float | None = None) -> bool:
        # A real signal may come a moment before the thread sleeps, and be noticed when that wakes up.
        monkeypatch.undo()
        assert started.wait(10)
        raise KeyboardInterrupt

    started, leave = threading.Event(), asyncio.Event()
    with Runtime() as runtime:
        with in_thread(lambda: runtime.run_until_complete(wait())):
            monkeypatch.setattr(ThreadWaiter, "sleep", interrupted)
            with pytest.raises(KeyboardInterrupt):
                runtime.handle.block_on(work())
            assert log == ["cleaned up"]
            runtime.handle.spawn(release())


def test_ctrl_c_belongs_to_the_main_thread_when_the_runtime_runs_in_another() -> None:
    async def wait() -> str:
        await leave.wait()
        return "not cancelled"

    async def release() -> None:
        leave.set()

    def work() -> None:
        entered.set()
        log.append(runtime.run_until_complete(wait()))

    entered, leave = threading.Event(), asyncio.Event()
    log: list[str] = []
    with Runtime() as runtime:
        with in_thread(work):
            entered.wait(10)
            runtime.handle.block_on(yield_now())  # it runs
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            runtime.handle.spawn(release())
    assert log == ["not cancelled"]


def test_blocking_calls_for_a_runtime_come_from_any_thread() -> None:
    def work(handle: Handle) -> None:
        call = handle.spawn_blocking(int, "12", base=3)
        assert call.result(10) == 5
        with pytest.raises(ValueError):
            handle.spawn_blocking(int, "x").result(10)
        with pytest.raises(TypeError, match="function must be callable, not 3"):
            handle.spawn_blocking(3)  # type: ignore[arg-type]

    async def main() -> None:
        await spawn_blocking(work, Handle.current())
        assert await Handle.current().spawn_blocking(colour.get) == "none"

    run(main())


def test_a_handle_tells_what_its_runtime_is_doing() -> None:
    with Runtime() as runtime:
        runtime.spawn(value_of(1))
        runtime.run_until_complete(value_of(2))
        assert (runtime.handle.metrics().spawned, repr(runtime)) == (2, "<Runtime standing still>")
        assert repr(runtime.handle) == "<Handle of a runtime that is standing still>"
    with pytest.raises(RuntimeError, match="has been shut down"):
        runtime.handle.metrics()


def test_where_a_thread_has_spawned_is_known_of_the_handle_and_of_the_task() -> None:
    def work(handle: Handle) -> None:
        brought = handle.spawn(asyncio.sleep(3600))
        handle.block_on(value_of(1))
        assert "in test_where_a_thread_has_spawned" in str(brought.spawned_at)
        sites.append(str(brought.spawned_at))

    async def main() -> None:
        await spawn_blocking(work, Handle.current())
        assert sites[0] in dump()

    sites: list[str] = []
    record_spawn_sites()
    try:
        run(main())
    finally:
        record_spawn_sites(False)


def test_in_the_loop_itself_a_handle_spawns_like_spawn() -> None:
    async def main() -> None:
        handle = Handle.current().spawn(value_of(1))
        assert type(handle) is type(spawn(value_of(2)))
        assert await handle == 1

    run(main())


def test_there_is_no_current_handle_without_a_loop() -> None:
    with pytest.raises(RuntimeError, match="needs a running event loop"):
        Handle.current()


@pytest.mark.parametrize("_", range(20))
def test_threads_that_bring_work_while_the_runtime_ends_all_hear_what_became_of_it(_: int) -> None:
    outcomes: list[str] = []

    def bring(handle: Handle) -> None:
        while True:
            coroutine = value_of(1)
            try:
                brought: JoinHandle[int] = handle.spawn(coroutine)
            except RuntimeError:
                assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
                outcomes.append("refused")
                return
            try:
                assert brought.result(10) == 1
            except JoinError:
                outcomes.append("told")

    with Runtime() as runtime:
        threads = [threading.Thread(target=bring, args=(runtime.handle,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        runtime.run_until_complete(asyncio.sleep(0.001))
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert outcomes.count("refused") == 3


def test_a_thread_that_waits_for_what_is_left_behind_is_told() -> None:
    async def never_ends() -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue

    def work(handle: Handle) -> None:
        with pytest.raises(JoinError, match="left behind"):
            handle.block_on(never_ends())

    with Runtime(shutdown_timeout=0.01) as runtime:
        with in_thread(lambda: work(runtime.handle)):
            runtime.run_until_complete(asyncio.sleep(0.01))
            runtime.shutdown()


def test_a_thread_that_waits_is_told_when_ctrl_c_ends_the_runtime_at_once() -> None:
    errors: list[str] = []
    brought = threading.Event()

    def work(handle: Handle, coroutine: Coroutine[Any, Any, Any]) -> None:
        joined = handle.spawn(coroutine)
        brought.set()
        try:
            joined.result(30)
        except JoinError as error:
            errors.append(str(error))

    async def never() -> None:
        started.append(None)
        await asyncio.get_running_loop().create_future()

    async def interrupted() -> None:
        handle = Handle.current()
        threads.append(threading.Thread(target=work, args=(handle, never())))
        threads[0].start()
        while not started:
            await asyncio.sleep(0)
        brought.wait(30)
        brought.clear()
        coroutines.append(never())  # which does not start any more
        threads.append(threading.Thread(target=work, args=(handle, coroutines[0])))
        threads[1].start()
        brought.wait(30)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    threads: list[threading.Thread] = []
    coroutines: list[Coroutine[Any, Any, None]] = []
    started: list[None] = []
    with pytest.raises(KeyboardInterrupt):
        run(interrupted())
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    for coroutine in coroutines:
        coroutine.close()
    assert len(started) == 1
    assert len(errors) == 2
    assert all("shut down" in error for error in errors)


def test_callbacks_of_callbacks_of_the_last_that_ends_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    # So a thread that begins to wait in this moment is told: its callback is added by a callback.
    monkeypatch.setattr(_shutdown, "give_up_brought", lambda loop: loop.call_soon(loop.call_soon, log.append, "told"))
    log: list[str] = []
    run(value_of(1))
    assert log == ["told"]


# ---------------------------------------------------------------- fork


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_child_process_finds_the_runtime_dead_and_the_parent_goes_on() -> None:
    program = """
import asyncio, os, sys
from yamanote.runtime import Handle, Runtime, run

async def value():
    await asyncio.sleep(0)
    return 42

def refused(call, *args):
    try:
        call(*args)
    except RuntimeError as error:
        assert "forked" in str(error), error
    else:
        raise AssertionError("not refused")

async def main():
    handle = Handle.current()
    child = os.fork()
    if not child:
        refused(handle.spawn, value())
        refused(handle.block_on, value())
        refused(runtime.spawn, value())
        refused(runtime.run_until_complete, value())
        assert run(value()) == 42
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

with Runtime() as runtime:
    assert runtime.run_until_complete(main()) == 0
    assert runtime.run_until_complete(value()) == 42
    child = os.fork()
    if not child:
        runtime.shutdown()
if child:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert (result.returncode, result.stderr) == (0, "")


# ---------------------------------------------------------------- other loops


def test_a_handle_works_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> int:
        handle = Handle.current()
        return await spawn_blocking(lambda: handle.block_on(value_of(3)))

    assert run(main(), loop_factory=uvloop.new_event_loop) == 3


# ---------------------------------------------------------------- several workers


async def name_of_thread() -> str:
    return threading.current_thread().name


def test_between_the_calls_the_other_workers_start_what_is_brought() -> None:
    async def pinned() -> object:
        return asyncio.get_running_loop()

    with Runtime(workers=2) as runtime:
        home = runtime.run_until_complete(pinned())
        assert runtime.spawn(name_of_thread()).result(20).startswith("yamanote-worker")
        assert runtime.handle.block_on(name_of_thread()).startswith("yamanote-worker")
        assert runtime.handle.spawn_blocking(int, "12").result(20) == 12
        given = runtime.spawn(pinned(), context=copy_context())  # it is for the loop that it is brought to
        assert runtime.run_until_complete(given) is home


async def wait_for_ever(waits: threading.Event) -> None:
    waits.set()
    await asyncio.sleep(3600)


def test_a_runtime_of_several_workers_that_is_dropped_says_so_and_its_threads_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def leave_one() -> None:
        spawn(asyncio.sleep(3600), on=1, name="left")
        await spawn(name_of_thread(), on=1)

    runtime = Runtime(workers=2)
    runtime.run_until_complete(leave_one())
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "yamanote-worker-1"]
    waits = threading.Event()
    waiting = runtime.spawn(wait_for_ever(waits))
    assert waits.wait(20)
    handle = runtime.handle
    with pytest.warns(ResourceWarning, match="<Runtime standing still> was dropped"):
        del runtime
        gc.collect()
    thread.join(20)
    assert not thread.is_alive()
    assert "'left'" in caplog.text
    with pytest.raises(JoinError):
        waiting.result(20)
    with pytest.raises(RuntimeError, match="shut down"):
        handle.block_on(asyncio.sleep(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runtime = Runtime(workers=2)
        runtime.shutdown()
        del runtime
        gc.collect()
