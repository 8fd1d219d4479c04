from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from yamanote.runtime import (
    BlockingPool,
    Handle,
    JoinError,
    JoinHandle,
    TaskGroup,
    _blocking,
    cancel_and_wait,
    current_token,
    is_thread_parked,
    map_blocking,
    run,
    run_errand,
    spawn_blocking,
    start_task,
    yield_now,
)
from yamanote.runtime._call import Call, inbox_of


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[BlockingPool]:
    """The pool that all share, with two threads and nothing to do with the other tests."""
    pool = BlockingPool(2)
    monkeypatch.setattr(_blocking, "shared_pool", pool)
    yield pool
    assert pool.shutdown() == []


async def settle(handle: JoinHandle[Any]) -> None:
    while not handle.is_finished():
        await asyncio.sleep(0.001)


# one call


async def nothing() -> None: ...


@pytest.mark.parametrize(
    "take",
    [
        spawn_blocking,
        lambda given: map_blocking(given, [1]),
        lambda given: BlockingPool(1).spawn(given),
        lambda given: BlockingPool(1).map(given, [1]),
        lambda given: Handle.current().spawn_blocking(given),
    ],
    ids=["spawn_blocking", "map_blocking", "pool.spawn", "pool.map", "Handle.spawn_blocking"],
)
async def test_a_coroutine_instead_of_a_function_is_closed_and_refused_with_advice(take: Any) -> None:
    coroutine = nothing()
    with pytest.raises(TypeError, match="give the function and its arguments"):
        await take(coroutine)
    with pytest.raises(RuntimeError, match="already awaited"):
        coroutine.send(None)


async def test_a_call_is_made_in_a_thread_of_the_pool_and_gives_its_result() -> None:
    def work(*args: int, **kwargs: int) -> Any:
        return args, kwargs, threading.current_thread()

    args, kwargs, thread = await spawn_blocking(work, 1, 2, three=3)
    assert args == (1, 2) and kwargs == {"three": 3}
    assert thread is not threading.current_thread()
    assert thread.name.startswith("yamanote-blocking-") and thread.daemon


async def test_it_starts_at_once_and_calls_run_at_the_same_time() -> None:
    barrier = threading.Barrier(3)
    handles = [spawn_blocking(barrier.wait, 60) for _ in range(2)]
    barrier.wait(60)  # none of them is awaited
    assert sorted([await handle for handle in handles] + [3])[-1] == 3


async def test_results_that_look_like_nothing_or_like_errors_are_results() -> None:
    for value in (None, 0, "", ValueError("a value")):
        handle = spawn_blocking(lambda value=value: value)
        assert await handle is value
        assert await handle is value


@pytest.mark.parametrize("error", [LookupError("x"), SystemExit(3), KeyboardInterrupt()])
async def test_errors_go_through(error: BaseException) -> None:
    def fail() -> None:
        raise error

    async def ask() -> None:
        with pytest.raises(type(error)) as caught:
            await spawn_blocking(fail)
        assert caught.value is error

    await ask()
    handle = spawn_blocking(fail)
    await settle(handle)
    with pytest.raises(type(error)):
        handle.result()


async def test_errors_that_a_future_cannot_carry() -> None:
    def stop() -> None:
        raise StopIteration(3)

    def cancel() -> None:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="StopIteration"):
        await spawn_blocking(stop)
    with pytest.raises(JoinError):
        await spawn_blocking(cancel)


async def test_the_call_sees_a_copy_of_the_context_of_the_caller() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")

    def work() -> str:
        before = variable.get()
        variable.set("from the thread")
        return before

    variable.set("inside")
    assert await spawn_blocking(work) == "inside"
    assert await spawn_blocking(work) == "inside"
    assert await map_blocking(lambda _: work(), range(3), limit=1) == ["inside"] * 3
    assert variable.get() == "inside"

    def bare() -> str:
        return contextvars.Context().run(variable.get)

    assert await spawn_blocking(bare) == "outside"


async def test_a_handle_has_the_name_of_its_function() -> None:
    handle = spawn_blocking(len, "abc")
    assert handle.name == "len"
    assert await handle == 3


async def test_a_handle_that_is_kept_keeps_no_arguments() -> None:
    class Argument:
        pass

    argument = Argument()
    gone = weakref.ref(argument)
    handle = spawn_blocking(bool, argument)
    assert await handle is True
    del argument
    assert gone() is None


async def test_nonsense_is_refused() -> None:
    with pytest.raises(TypeError, match="not 3"):
        spawn_blocking(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not 3"):
        await map_blocking(3, [])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="limit"):
        await map_blocking(len, [], limit=0)
    with pytest.raises(RuntimeError, match="spawn_blocking"):
        current_token()


def test_without_a_loop_the_error_gives_advice() -> None:
    with pytest.raises(RuntimeError, match=r"spawn_blocking.*run"):
        spawn_blocking(len, "")


async def test_an_error_that_nobody_asks_for_is_reported_once(two_threads: BlockingPool) -> None:
    # Without the GIL, what the thread has made is freed when the thread is woken, or ends.
    two_threads._idle_seconds = 0.001
    contexts: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))

    def fail() -> None:
        raise LookupError("lost")

    handle = spawn_blocking(fail)
    await settle(handle)
    assert contexts == []
    gc.disable()
    try:
        del handle
        while not contexts:  # there is no cycle
            await asyncio.sleep(0.001)
        assert [type(context["exception"]) for context in contexts] == [LookupError]
    finally:
        gc.enable()


# many


async def test_calls_beyond_the_threads_wait_their_turn_first_in_first_out(two_threads: BlockingPool) -> None:
    gate = threading.Event()
    order: list[int] = []
    held = [spawn_blocking(gate.wait, 60) for _ in range(2)]
    rest = [spawn_blocking(order.append, number) for number in range(20)]
    await asyncio.sleep(0)
    assert order == []
    gate.set()
    for handle in held + rest:
        await handle
    assert len(two_threads._threads) <= 2
    assert sorted(order) == list(range(20)) and order[0] in (0, 1)


async def test_idle_threads_end_and_new_calls_start_new_ones(two_threads: BlockingPool) -> None:
    two_threads._idle_seconds = 0.001
    for _ in range(5):
        thread = await spawn_blocking(threading.current_thread)
        thread.join(60)
        assert not thread.is_alive()
    assert not two_threads._threads


async def test_threads_are_used_again(two_threads: BlockingPool) -> None:
    first = await spawn_blocking(threading.current_thread)
    while not two_threads._idle:
        await asyncio.sleep(0.001)
    assert await spawn_blocking(threading.current_thread) is first


def test_many_loops_share_the_pool_and_every_call_is_made_once() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    made: list[int] = []

    async def many(base: int) -> None:
        handles = [spawn_blocking(made.append, base + number) for number in range(200)]
        for handle in handles:
            await handle

    try:
        threads = [threading.Thread(target=run, args=(many(base),)) for base in (0, 1000, 2000)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert sorted(made) == [base + number for base in (0, 1000, 2000) for number in range(200)]


async def test_the_pool_survives_its_loops() -> None:
    assert await spawn_blocking(lambda: [run(_len(number * "x")) for number in range(3)]) == [0, 1, 2]


async def _len(text: str) -> int:
    return await spawn_blocking(len, text)


# cancelling


async def test_a_cancelled_awaiter_drops_a_call_that_has_not_started(two_threads: BlockingPool) -> None:
    gate = threading.Event()
    log: list[str] = []
    held = [spawn_blocking(gate.wait, 60) for _ in range(2)]
    handle = spawn_blocking(log.append, "made")
    task = start_task(_wait(handle))
    await yield_now()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    for other in held:
        await other
    assert await spawn_blocking(len, "abc") == 3
    assert log == []
    with pytest.raises(JoinError):
        await handle


async def _wait(handle: JoinHandle[Any]) -> Any:
    return await handle


async def test_a_cancelled_awaiter_tells_a_running_call_through_its_token() -> None:
    running = threading.Event()

    def work() -> str:
        token = current_token()
        running.set()
        assert token.blocking_wait(60)
        return f"stopped: {token.reason}"

    handle = spawn_blocking(work)
    task = start_task(_wait(handle))
    await yield_now()
    while not running.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await handle == "stopped: nobody awaits it any more"


async def test_the_token_is_cancelled_even_when_the_call_asks_for_it_late() -> None:
    started, go_on = threading.Event(), threading.Event()

    def work() -> bool:
        started.set()
        go_on.wait(60)
        return current_token().is_cancelled()

    handle = spawn_blocking(work)
    while not started.is_set():
        await asyncio.sleep(0.001)
    handle.abort()
    assert not handle.is_finished()
    go_on.set()
    assert await handle is True


async def test_a_call_that_others_still_await_goes_on(two_threads: BlockingPool) -> None:
    gate = threading.Event()
    held = [spawn_blocking(gate.wait, 60) for _ in range(2)]
    handle = spawn_blocking(len, "abc")
    first, second = start_task(_wait(handle)), start_task(_wait(handle))
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(handle.result()))
    thread.start()
    while len(handle._awaiting) < 3:  # type: ignore[attr-defined]
        await asyncio.sleep(0.001)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set()
    assert await second == 3
    for other in held:
        await other
    while thread.is_alive():
        await asyncio.sleep(0.001)
    assert results == [3]


async def test_of_two_that_stop_awaiting_at_once_on_two_loops_one_aborts_the_call(two_threads: BlockingPool) -> None:
    gate = threading.Event()
    held = [spawn_blocking(gate.wait, 60) for _ in range(2)]
    handle = spawn_blocking(len, "abc")
    first, second = handle.__await__(), handle.__await__()

    class Awaiting(list[None]):
        def pop(self, *_: Any) -> None:
            if second in unfinished:
                unfinished.remove(second)
                with pytest.raises(asyncio.CancelledError):
                    second.throw(asyncio.CancelledError())
            super().pop()

    handle._awaiting = Awaiting()  # type: ignore[attr-defined]
    unfinished = {first, second}
    for awaiting in (first, second):
        next(awaiting)
    with pytest.raises(asyncio.CancelledError):
        first.throw(asyncio.CancelledError())
    assert handle.is_cancelled()
    gate.set()
    for other in held:
        await other


async def test_abort_from_a_thread(two_threads: BlockingPool) -> None:
    gate = threading.Event()
    held = [spawn_blocking(gate.wait, 60) for _ in range(2)]
    handle = spawn_blocking(len, "abc")
    thread = threading.Thread(target=handle.abort, args=("not needed",))
    thread.start()
    with pytest.raises(JoinError, match="len was cancelled: not needed"):
        await handle
    thread.join()
    gate.set()
    for other in held:
        await other


def test_run_waits_for_calls_that_nobody_awaits() -> None:
    log: list[str] = []
    go_on = threading.Event()

    def work() -> None:
        go_on.wait(60)
        log.append("made")

    async def forgetful() -> None:
        spawn_blocking(work)
        asyncio.get_running_loop().call_later(0.01, go_on.set)

    run(forgetful())
    assert log == ["made"]


def test_the_end_of_a_loop_does_not_wait_for_ever_and_names_and_aborts_the_calls_that_it_leaves_behind(
    two_threads: BlockingPool, caplog: pytest.LogCaptureFixture
) -> None:
    gate, began, told = threading.Event(), threading.Barrier(3), threading.Event()

    def stubborn() -> None:
        began.wait(60)
        gate.wait(60)
        if current_token().is_cancelled():
            told.set()

    async def forgetful() -> None:
        for function in (stubborn, stubborn, never):
            spawn_blocking(function)
        began.wait(60)
        await _blocking.finish_blocking(0.001)

    def never() -> None:
        raise AssertionError("it was dropped")

    asyncio.run(forgetful())
    where = "test_the_end_of_a_loop_does_not_wait_for_ever_and_names_and_aborts_the_calls_that_it_leaves_behind"
    assert "left behind (3): " in caplog.text
    for number in (1, 2):
        assert f"{where}.<locals>.stubborn() in yamanote-blocking-{number}" in caplog.text
    assert f"{where}.<locals>.never(), which no thread has begun" in caplog.text
    gate.set()
    assert told.wait(60)


async def test_the_end_of_a_loop_does_not_wait_for_calls_that_were_dropped(
    two_threads: BlockingPool, caplog: pytest.LogCaptureFixture
) -> None:
    gate = threading.Event()
    held = [spawn_blocking(gate.wait, 60) for _ in range(2)]
    spawn_blocking(len, "abc").abort()
    gate.set()
    for handle in held:
        await handle
    await _blocking.finish_blocking(0)
    assert caplog.text == ""


async def test_after_cancel_and_wait_one_can_tell_whether_the_call_was_made(two_threads: BlockingPool) -> None:
    gate = threading.Event()
    held = [spawn_blocking(gate.wait, 60) for _ in range(2)]
    dropped = spawn_blocking(len, "abc")
    await cancel_and_wait(dropped)
    assert dropped.is_cancelled() and not held[0].is_cancelled()
    gate.set()
    await cancel_and_wait(*held)
    assert not held[0].is_cancelled() and await held[0] is True


async def test_a_call_may_be_made_for_a_loop_by_another_thread(two_threads: BlockingPool) -> None:
    loop = asyncio.get_running_loop()
    handles: list[JoinHandle[int]] = []
    for _ in range(100):
        ask = threading.Thread(target=lambda: handles.append(two_threads._submit(loop, len, ("abc",), {})))
        ask.start()
        ask.join()
        assert await handles.pop() == 3
    assert not inbox_of(loop).unfinished  # who waits for the end of the loop waits for none of them


async def test_a_call_is_busy_until_its_result_has_arrived_whatever_its_thread_does_next() -> None:
    pool = BlockingPool(1)
    loop = asyncio.get_running_loop()
    threads: list[int] = []

    def made() -> None:
        threads.append(threading.get_ident())

    def parks() -> None:
        current_token().blocking_wait(60)

    first, second = pool.spawn(made), pool.spawn(parks)
    while not (threads and is_thread_parked(threads[0])):  # without a turn of the loop
        pass
    assert _blocking.busy_calls(loop) == [made.__qualname__]
    await first
    assert _blocking.busy_calls(loop) == []
    second.abort()
    await second
    await asyncio.to_thread(pool.shutdown)


# the races between who brings a call and a thread that is about to rest


class Brings:
    """Brings a call at the worst moment, as somebody does who finds no thread that rests, and none to start."""

    def __init__(self, call: Any, pool: Any) -> None:
        self.call = call
        self.pool = pool

    def bring(self) -> None:
        if self.call is not None:
            self.pool._calls.append(self.call)
            self.call = None


async def test_a_call_that_comes_just_before_a_thread_rests_is_made(two_threads: BlockingPool) -> None:
    class Idle(list[Any]):
        def append(self, thread: Any) -> None:
            brings.bring()
            super().append(thread)

    pool = two_threads
    pool._idle_seconds = 3600
    pool._idle = Idle()
    made = threading.Event()
    call = Call(made.set, (), {}, inbox_of(asyncio.get_running_loop()))
    call.inbox.unfinished.add(call)
    brings = Brings(call, pool)
    await spawn_blocking(len, "")
    assert await asyncio.to_thread(made.wait, 10)
    await call.future


async def test_a_call_that_comes_just_before_a_thread_ends_is_made(two_threads: BlockingPool) -> None:
    class Changing:
        def __enter__(self) -> None:
            if pool._threads:
                brings.bring()
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    pool = two_threads
    pool._idle_seconds = 0.001
    lock, pool._changing = pool._changing, Changing()  # type: ignore[assignment]
    made = threading.Event()
    call = Call(made.set, (), {}, inbox_of(asyncio.get_running_loop()))
    call.inbox.unfinished.add(call)
    brings = Brings(call, pool)
    await spawn_blocking(len, "")
    assert await asyncio.to_thread(made.wait, 10)
    await call.future


# map_blocking


async def test_map_gives_the_results_in_order() -> None:
    def work(number: int) -> int:
        if number % 3 == 0:
            threading.Event().wait(0.001)
        return number * 2

    assert await map_blocking(work, range(50)) == [number * 2 for number in range(50)]
    assert await map_blocking(work, iter([1])) == [2]
    assert await map_blocking(work, []) == []


async def test_map_makes_at_most_limit_calls_at_once() -> None:
    running: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        running.append(number)
        most.append(len(running))
        threading.Event().wait(0.0005)
        running.remove(number)

    await map_blocking(work, range(30), limit=3)
    assert max(most) <= 3


async def test_map_raises_the_first_error_when_the_calls_in_progress_have_been_told_and_have_ended() -> None:
    contexts: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    first = LookupError("first")
    both = threading.Barrier(2)
    log: list[str] = []

    def work(number: int) -> None:
        if number == 0:
            both.wait(60)
            raise first
        if number == 1:
            token = current_token()
            both.wait(60)
            assert token.blocking_wait(60)
            log.append("told")
            raise ArithmeticError("later")
        log.append("started after the error")

    with pytest.raises(LookupError) as caught:
        await map_blocking(work, range(10), limit=2)
    assert caught.value is first
    assert log == ["told"]
    assert [type(context["exception"]) for context in contexts] == [ArithmeticError]


async def test_a_map_whose_call_raises_a_cancellation_of_its_own_fails_and_is_not_cancelled() -> None:
    def cancel(_: object) -> None:
        raise asyncio.CancelledError

    with pytest.raises(JoinError, match="cancel was cancelled"):
        await map_blocking(cancel, [1])


async def test_the_calls_of_a_map_bear_the_name_of_the_function() -> None:
    go = threading.Event()

    def stubborn(_: object) -> None:
        go.wait()

    task = start_task(map_blocking(stubborn, [1]))
    await yield_now()
    names = _blocking.busy_calls(asyncio.get_running_loop())
    go.set()
    await task
    assert [name.rpartition(".")[2] for name in names] == ["stubborn"]


async def test_a_cancelled_map_starts_no_more_and_waits_for_the_calls_in_progress() -> None:
    running, told, go_on = threading.Event(), threading.Event(), threading.Event()
    log: list[str] = []

    def work(number: int) -> None:
        running.set()
        assert current_token().blocking_wait(60)
        told.set()
        go_on.wait(60)
        log.append(f"ended {number}")

    task = start_task(map_blocking(work, range(5), limit=1))
    await yield_now()
    while not running.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    while not told.is_set():
        await asyncio.sleep(0.001)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["ended 0"]


# errands: what a call has its loop do


class _Ask:
    """An errand that waits on the loop until it is cancelled."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ended = threading.Event()
        self.begun = False
        self.cancels = 0
        self.task: asyncio.Task[None] | None = None

    def wait(self) -> str:
        self._loop.call_soon_threadsafe(self._begin)
        assert self._ended.wait(60)
        return "done"

    def _begin(self) -> None:
        self.begun = True
        self.task = start_task(asyncio.sleep(0 if self.cancels else 3600))
        self.task.add_done_callback(lambda _: self._ended.set())

    def cancel(self) -> None:
        self.cancels += 1
        if self.task is not None:
            self.task.cancel()


async def test_an_errand_goes_to_the_loop_that_asked_for_the_call_and_has_ended_when_its_cancellation_goes_on() -> None:
    asked: list[_Ask] = []

    def ask(loop: asyncio.AbstractEventLoop) -> _Ask:
        assert loop is home
        asked.append(_Ask(loop))
        return asked[0]

    home = asyncio.get_running_loop()
    awaiting = start_task(spawn_blocking(run_errand, ask))
    while not (asked and asked[0].begun):
        await asyncio.sleep(0.001)
    await cancel_and_wait(awaiting)
    errand = asked[0]
    assert errand.cancels == 1
    assert errand.task is not None and errand.task.done()


async def test_a_call_that_nobody_wants_any_more_runs_no_errands() -> None:
    handle: JoinHandle[Any]
    inside, go = threading.Event(), threading.Event()

    def work() -> None:
        inside.set()
        assert go.wait(60)
        with pytest.raises(asyncio.CancelledError):
            run_errand(_Ask)

    handle = spawn_blocking(work)
    assert inside.wait(60)
    handle.abort()
    go.set()
    assert await handle is None


def test_where_no_loop_has_asked_for_the_call_an_errand_is_refused_with_advice(two_threads: BlockingPool) -> None:
    with pytest.raises(RuntimeError, match="does not know which loop"):
        run_errand(_Ask)
    with pytest.raises(RuntimeError, match="does not know which loop"):
        two_threads.spawn(run_errand, _Ask).result(60)


# the end of the program


def program(text: str, *, timeout: float = 60) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)], capture_output=True, text=True, timeout=timeout, check=True
    )
    return done.stdout + done.stderr


def test_the_end_of_the_program_waits_for_calls_that_have_been_asked_for() -> None:
    output = program(
        """
        import asyncio, time
        from yamanote.runtime import _blocking, spawn_blocking
        _blocking.shared_pool._size = 1

        async def main():
            for number in range(3):
                spawn_blocking(lambda number=number: (time.sleep(0.02), print("made", number, flush=True)))

        asyncio.run(main())
        """
    )
    assert output.split() == ["made", "0", "made", "1", "made", "2"]


def test_the_end_of_the_program_does_not_wait_for_ever_and_names_the_thread() -> None:
    output = program(
        """
        import asyncio, threading
        from yamanote.runtime import _pool, spawn_blocking
        _pool._EXIT_SECONDS = 0.05

        async def main():
            spawn_blocking(threading.Event().wait)

        asyncio.run(main())
        """
    )
    assert "yamanote-blocking-1" in output


@pytest.mark.parametrize("interrupts", [0, 2])
def test_the_end_of_the_program_does_not_wait_again_for_calls_that_a_runtime_has_left_behind(interrupts: int) -> None:
    output = program(
        f"""
        import asyncio, signal, threading
        from yamanote.runtime import _pool, run, spawn_blocking
        _pool._EXIT_SECONDS = 3600

        async def main():
            spawn_blocking(threading.Event().wait)
            for _ in range({interrupts}):
                asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
                try:
                    await asyncio.sleep(0.001)
                except asyncio.CancelledError:
                    pass

        try:
            run(main(), shutdown_timeout=0.01 if not {interrupts} else 3600)
        except KeyboardInterrupt:
            print("interrupted")
        """,
        timeout=30,
    )
    assert output.count("Event.wait() in yamanote-blocking-1") == 1  # the warning
    assert ("interrupted" in output) is (interrupts == 2)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_forked_child_has_a_pool_of_its_own() -> None:
    output = program(
        """
        import os, warnings
        from yamanote.runtime import run, spawn_blocking
        warnings.simplefilter("ignore")

        async def main():
            return await spawn_blocking(len, "abc")

        assert run(main()) == 3
        child = os.fork()
        if not child:
            print("child", run(main()), flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print("parent", run(main()))
        """
    )
    assert output.split() == ["child", "3", "parent", "3"]


def test_a_callable_that_cannot_be_shown_is_called_all_the_same():
    class Shy:
        def __call__(self):
            return "called"

        def __repr__(self):
            raise RuntimeError("not to be shown")

    async def main():
        handle = spawn_blocking(Shy())
        return await handle, handle.name

    result, name = run(main())
    assert result == "called"
    assert name.endswith("Shy")


async def test_errors_of_a_map_that_is_cancelled_are_freed_when_they_have_been_reported(
    two_threads: BlockingPool,
) -> None:
    class Lost(Exception):
        """To be referred to weakly."""

    two_threads._idle_seconds = 0.001  # without the GIL, what the thread has made is freed when it ends
    reported: list[weakref.ref[Any]] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: reported.append(weakref.ref(context["exception"]))
    )
    failing, gate = threading.Event(), threading.Event()

    def fail(_: int) -> None:
        failing.set()
        gate.wait(60)
        raise Lost

    gc.disable()
    try:
        mapping = start_task(map_blocking(fail, [1]))
        while not failing.is_set():
            await asyncio.sleep(0.001)
        mapping.cancel()
        await yield_now()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await mapping
        assert len(reported) == 1
        del mapping
        for _ in range(2000):  # there is no cycle
            if reported[0]() is None:
                break
            await asyncio.sleep(0.001)
        assert reported[0]() is None
    finally:
        gc.enable()


def test_errors_of_calls_that_nobody_waits_for_any_more_are_reported():
    reports = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context["exception"]))
        inside, go_on = threading.Event(), threading.Event()

        def fail(number):
            inside.set()
            go_on.wait(10)
            raise ValueError(number)

        mapping = asyncio.ensure_future(map_blocking(fail, [1], limit=1))
        while not inside.is_set():
            await asyncio.sleep(0)
        mapping.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await mapping

    run(main())
    assert [str(error) for error in reports] == ["1"]


@pytest.mark.parametrize("limit", [1.5, "2", True])
def test_a_limit_that_is_no_whole_number_is_refused(limit):
    async def main():
        with pytest.raises(TypeError, match="limit"):
            await map_blocking(len, ["a"], limit=limit)
        with pytest.raises(TypeError, match="limit"):
            TaskGroup(limit=limit)

    run(main())


async def test_a_call_that_ends_with_its_abort_tells_the_reason_of_the_first() -> None:
    class Asks:
        task = None

        def wait(self) -> None:
            raise AssertionError("it was aborted before")

        def cancel(self) -> None: ...

    begun, aborted = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert aborted.wait(20)
        run_errand(lambda _: Asks())

    handle = spawn_blocking(work)
    while not begun.is_set():
        await asyncio.sleep(0.001)
    handle.abort("user")
    handle.abort("again")
    aborted.set()
    with pytest.raises(JoinError, match="work was cancelled: user"):
        await handle
