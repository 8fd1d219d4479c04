"""`to_thread` and `from_thread`: blocking code beside the loop, which can call back."""

from __future__ import annotations

import asyncio
import functools
import gc
import sys
import threading
import weakref
from asyncio import CancelledError
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextvars import ContextVar
from typing import Any

import pytest

from yamanote.runtime import (
    BlockingPool,
    JoinError,
    JoinHandle,
    busy_calls,
    map_blocking,
    metrics,
    run,
    spawn,
    spawn_blocking,
    yield_now,
)
from yamanote.threads import from_thread, run_in_thread_loop, to_thread

is_gil_enabled: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)

place: ContextVar[str] = ContextVar("place", default="nowhere")


@pytest.fixture(autouse=True)
async def nothing_left_over() -> AsyncIterator[None]:
    yield
    assert asyncio.all_tasks() == {asyncio.current_task()}
    gc.collect()


class Work:
    """A piece of work in a thread, which notes how it ended."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.function = function
        self.args = args
        self.started = threading.Event()
        self.ended = threading.Event()
        self.value: Any = None
        self.error: BaseException | None = None

    def __call__(self) -> Any:
        self.started.set()
        try:
            self.value = self.function(*self.args)
        except BaseException as error:
            self.error = error
            raise
        else:
            return self.value
        finally:
            self.ended.set()

    async def end(self) -> None:
        """Wait for the end of the work itself, which a cancelled `to_thread` leaves alone."""
        await spawn_blocking(self.ended.wait)


# To a thread


async def test_it_runs_in_another_thread_and_returns_the_value() -> None:
    assert await to_thread(threading.get_ident) != threading.get_ident()
    assert await to_thread(divmod, 7, 3) == (2, 1)
    assert await to_thread(sorted, [1, 2, 3], reverse=True) == [3, 2, 1]


@pytest.mark.parametrize("value", [None, 0, "", ValueError("a value, not an error")])
async def test_values_that_look_like_none_or_errors_are_values(value: object) -> None:
    assert await to_thread(lambda: value) is value
    assert await to_thread(from_thread, lambda: value) is value


async def test_an_error_comes_through_with_its_traceback() -> None:
    def fail() -> None:
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost") as caught:
        await to_thread(fail)
    assert "fail" in [entry.name for entry in caught.traceback]


def test_a_keyboard_interrupt_in_the_thread_comes_through() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(to_thread(interrupt))


async def test_a_thread_that_raises_a_cancellation_of_its_own_is_an_error_and_not_a_cancellation() -> None:
    def cancel() -> None:
        raise CancelledError

    with pytest.raises(JoinError):
        await to_thread(cancel)


async def test_context_variables_go_in_and_do_not_come_out() -> None:
    def visit() -> str:
        before = place.get()
        place.set("away")
        return before

    place.set("home")
    assert await to_thread(visit) == "home"
    assert place.get() == "home"


async def test_the_loop_goes_on_meanwhile() -> None:
    go = threading.Event()
    waiting = asyncio.create_task(to_thread(go.wait))
    await yield_now()
    assert not waiting.done()
    go.set()
    assert await waiting is True


async def test_a_cancellation_is_raised_at_once_and_the_thread_goes_on() -> None:
    started, go = threading.Event(), threading.Event()

    def work() -> str:
        started.set()
        go.wait()
        return "done all the same"

    work_ = Work(work)
    task = asyncio.create_task(to_thread(work_))
    await spawn_blocking(started.wait)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert not work_.ended.is_set()
    go.set()
    await work_.end()
    assert work_.value == "done all the same"


async def test_who_tells_of_threads_that_do_not_end_calls_them_by_the_name_of_the_function() -> None:
    go = threading.Event()

    def stubborn() -> None:
        go.wait()

    task = asyncio.create_task(to_thread(stubborn))
    await yield_now()
    names = busy_calls(asyncio.get_running_loop())
    go.set()
    await task
    assert [name.rpartition(".")[2] for name in names] == ["stubborn"]


def test_what_cannot_be_called_is_refused_at_the_call() -> None:
    with pytest.raises(TypeError, match="function"):
        _ = to_thread(42)  # type: ignore[arg-type]


# From a thread


async def test_an_async_function_runs_on_the_home_loop_in_a_task_of_its_own() -> None:
    seen: list[object] = []

    async def visit(word: str, *, loud: bool) -> str:
        seen.append(asyncio.get_running_loop())
        seen.append(asyncio.current_task())
        async with asyncio.timeout(60):
            await yield_now()
        return word.upper() if loud else word

    assert await to_thread(lambda: from_thread(visit, "hello", loud=True)) == "HELLO"
    loop, task = seen
    assert loop is asyncio.get_running_loop()
    assert task is not None and task is not asyncio.current_task()


async def test_a_plain_function_is_called_on_the_thread_of_the_loop() -> None:
    assert await to_thread(from_thread, threading.get_ident) == threading.get_ident()
    assert await to_thread(from_thread, divmod, 7, 3) == (2, 1)
    assert await to_thread(lambda: from_thread(sorted, [1, 2], reverse=True)) == [2, 1]


async def test_whatever_can_be_awaited_is_awaited() -> None:
    class Later:
        def __await__(self) -> Generator[Any, None, str]:
            yield from asyncio.sleep(0).__await__()
            return "later"

    async def greet(word: str) -> str:
        return word

    future = asyncio.get_running_loop().create_future()
    future.set_result("a future")
    assert await to_thread(from_thread, Later) == "later"
    assert await to_thread(from_thread, lambda: future) == "a future"
    assert await to_thread(from_thread, functools.partial(greet, "partial")) == "partial"


async def test_a_spawned_task_outlives_the_call_that_started_it() -> None:
    handles: list[JoinHandle[str]] = []
    go = asyncio.Event()

    async def background() -> str:
        await go.wait()
        return "done"

    def start() -> None:
        handles.append(spawn(background()))

    await to_thread(from_thread, start)
    go.set()
    assert await handles[0] == "done"


async def test_many_calls_in_a_row_are_made_in_order() -> None:
    calls: list[int] = []

    async def note(number: int) -> None:
        if number % 2:
            await yield_now()
        calls.append(number)

    def work() -> None:
        for number in range(200):
            from_thread(note, number)

    await to_thread(work)
    assert calls == list(range(200))


async def test_many_threads_call_at_once() -> None:
    calls: list[int] = []

    def work(number: int) -> None:
        for _ in range(50):
            from_thread(calls.append, number)

    await asyncio.gather(*(to_thread(work, number) for number in range(8)))
    assert sorted(calls) == sorted(list(range(8)) * 50)


async def test_context_variables_of_the_thread_go_along_and_do_not_come_back() -> None:
    async def visit() -> str:
        before = place.get()
        place.set("the loop")
        return before

    def visit_plainly() -> str:
        before = place.get()
        place.set("the loop")
        return before

    def work() -> list[str]:
        place.set("the thread")
        return [from_thread(visit), from_thread(visit_plainly), place.get()]

    place.set("home")
    assert await to_thread(work) == ["the thread"] * 3
    assert place.get() == "home"


async def test_an_error_on_the_loop_comes_through_with_its_traceback() -> None:
    async def fail() -> None:
        await yield_now()
        raise LookupError("lost")

    def fail_plainly() -> None:
        raise LookupError("lost plainly")

    for function in (fail, fail_plainly):
        work = Work(from_thread, function)
        with pytest.raises(LookupError, match="lost") as caught:
            await to_thread(work)
        assert function.__name__ in [entry.name for entry in caught.traceback]
        assert isinstance(work.error, LookupError)


async def test_a_stop_iteration_is_an_error_like_any_other() -> None:
    def work() -> str:
        with pytest.raises(StopIteration):
            from_thread(next, iter(()))
        return "went on"

    assert await to_thread(work) == "went on"


@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.parametrize("plain", [False, True])
def test_a_keyboard_interrupt_on_the_loop_ends_the_program_and_hangs_no_thread(plain: bool, turns: int) -> None:
    async def interrupt() -> None:
        for _ in range(turns):
            await yield_now()
        raise KeyboardInterrupt

    def interrupt_plainly() -> None:
        raise KeyboardInterrupt

    work = Work(from_thread, interrupt_plainly if plain else interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(to_thread(work))
    assert work.ended.wait(60)
    assert isinstance(work.error, (KeyboardInterrupt, CancelledError))


def test_a_keyboard_interrupt_on_the_loop_ends_the_program_even_if_the_thread_takes_no_notice() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    def take_no_notice() -> None:
        with pytest.raises(KeyboardInterrupt):
            from_thread(interrupt)

    with pytest.raises(KeyboardInterrupt):
        run(to_thread(take_no_notice))


@pytest.mark.skipif(not is_gil_enabled(), reason="without the GIL a thread frees what it made when it runs again")
@pytest.mark.parametrize("plain", [False, True])
async def test_an_error_on_the_loop_is_gone_when_nobody_refers_to_it_any_more(plain: bool) -> None:
    class Lost(Exception):
        pass

    async def fail() -> None:
        await yield_now()
        raise Lost

    def fail_plainly() -> None:
        raise Lost

    def work() -> weakref.ref[Lost]:
        try:
            from_thread(fail_plainly if plain else fail)
        except Lost as error:
            return weakref.ref(error)
        raise AssertionError("no error")

    gc.disable()
    try:
        error = await to_thread(work)
        await spawn_blocking(len, "")  # the thread has let go of its last call
        assert error() is None
    finally:
        gc.enable()


# The wrong place


async def test_on_a_thread_that_runs_a_loop_it_raises_with_advice() -> None:
    async def call() -> None:
        with pytest.raises(RuntimeError, match="awaited, directly"):
            from_thread(threading.get_ident)

    await call()
    await run_in_thread_loop(call())
    await to_thread(from_thread, call)
    await to_thread(lambda: run(call()))


async def test_in_a_foreign_thread_it_raises_with_advice() -> None:
    work = Work(from_thread, threading.get_ident)

    def quietly() -> None:
        try:
            work()
        except RuntimeError:
            pass

    def start() -> None:
        threading.Thread(target=quietly).start()

    for begin in (spawn_blocking, to_thread):  # neither is the thread's own
        work.ended.clear()
        await begin(start)
        await work.end()
        assert isinstance(work.error, RuntimeError)
        assert "to_thread() gave work to" in str(work.error)


async def test_a_thread_that_works_for_no_loop_says_so_even_if_it_did_before() -> None:
    pool = BlockingPool(1)

    def call() -> None:
        with pytest.raises(RuntimeError, match="to_thread"):
            from_thread(threading.get_ident)

    for _ in range(10):
        assert await pool.spawn(from_thread, threading.get_ident) == threading.get_ident()
        await spawn_blocking(lambda: pool.spawn(call).result())
    await spawn_blocking(pool.shutdown)


async def test_every_call_that_a_loop_asks_for_can_call_it_back() -> None:
    pool = BlockingPool(2)

    def visit(_: object = None) -> int:
        return from_thread(threading.get_ident)

    home = threading.get_ident()
    assert await spawn_blocking(visit) == home
    assert await pool.spawn(visit) == home
    assert await map_blocking(visit, range(3)) == await pool.map(visit, range(3)) == [home] * 3
    await spawn_blocking(pool.shutdown)


def test_with_several_workers_a_thread_calls_the_one_that_awaits_it_and_all_share_the_threads() -> None:
    loops: set[asyncio.AbstractEventLoop] = set()
    threads: set[object] = set()

    async def there() -> asyncio.AbstractEventLoop:
        await yield_now()
        return asyncio.get_running_loop()

    def visit() -> list[object]:
        return [from_thread(asyncio.get_running_loop), from_thread(there), threading.current_thread()]

    async def one() -> None:
        loop = asyncio.get_running_loop()
        loops.add(loop)
        for _ in range(20):
            *found, thread = await to_thread(visit)
            assert found == [loop, loop]
            threads.add(thread)

    async def main() -> None:
        before = metrics().pool.completed
        for handle in [spawn(one(), on=number) for number in range(3)]:
            await handle
        pool = metrics().pool
        assert pool.completed == before + 3 * 20
        assert len(threads) <= pool.threads <= pool.size

    run(main(), workers=3)
    assert len(loops) == 3


def test_there_and_back_again_and_again() -> None:
    trail: list[int] = []

    async def descend(depth: int) -> str:
        trail.append(threading.get_ident())
        return await to_thread(climb, depth) if depth else place.get()

    def climb(depth: int) -> str:
        trail.append(threading.get_ident())
        return from_thread(descend, depth - 1)

    async def elsewhere() -> str:
        place.set("home")
        return await run_in_thread_loop(descend(4), name="elsewhere")

    assert run(elsewhere()) == "home"
    on_loop, in_threads = trail[::2], trail[1::2]
    assert len(set(on_loop)) == 1
    assert len(set(in_threads)) == 4  # each waits for the next


async def test_a_loop_that_is_run_inside_the_work_changes_nothing_for_the_work() -> None:
    async def inside() -> bool:
        return await to_thread(from_thread, asyncio.get_running_loop) is asyncio.get_running_loop()

    def work() -> tuple[bool, object]:
        return run(inside()), from_thread(asyncio.get_running_loop)

    assert await to_thread(work) == (True, asyncio.get_running_loop())


def test_it_works_on_a_loop_that_is_not_ours() -> None:
    async def main() -> tuple[str, int]:
        return await to_thread(from_thread, asyncio.sleep, 0, "slept"), await to_thread(len, "abc")

    assert asyncio.run(main()) == ("slept", 3)


async def test_what_the_function_returns_is_returned_even_if_it_could_be_awaited() -> None:
    async def later() -> int:
        return 42

    def numbers() -> Generator[int, None, None]:
        yield 1

    assert await (await to_thread(later)) == 42
    assert list(await to_thread(numbers)) == list(await to_thread(from_thread, numbers)) == [1]


async def test_work_from_two_loops_finds_each_its_own() -> None:
    async def at_home() -> bool:
        return await to_thread(from_thread, asyncio.get_running_loop) is asyncio.get_running_loop()

    assert list(await asyncio.gather(at_home(), run_in_thread_loop(at_home()), at_home())) == [True] * 3


def test_what_cannot_be_called_back_is_refused_at_the_call() -> None:
    with pytest.raises(TypeError, match="function"):
        from_thread(42)  # type: ignore[call-overload]


# Cancellation


async def test_cancelling_who_awaits_cancels_the_call_in_progress_and_waits_for_its_clean_up() -> None:
    calling = asyncio.Event()
    steps: list[str] = []

    async def wait_for_ever() -> None:
        calling.set()
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(3):
                await yield_now()
            steps.append("cleaned up")

    work = Work(from_thread, wait_for_ever)
    task = asyncio.create_task(to_thread(work))
    await calling.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert steps == ["cleaned up"]
    await work.end()
    assert isinstance(work.error, CancelledError)


async def test_after_a_cancellation_no_call_is_made() -> None:
    started, go = threading.Event(), threading.Event()
    called: list[None] = []

    def work() -> None:
        started.set()
        go.wait()
        from_thread(called.append, None)

    work_ = Work(work)
    task = asyncio.create_task(to_thread(work_))
    await spawn_blocking(started.wait)
    task.cancel()
    await asyncio.wait([task])
    go.set()
    await work_.end()
    assert isinstance(work_.error, CancelledError)
    assert called == []


async def test_a_call_that_is_cancelled_on_its_way_to_the_loop_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    post = loop.call_soon_threadsafe
    posting, go = threading.Event(), threading.Event()
    called: list[None] = []

    def post_later(callback: Callable[..., object], *args: Any, **options: Any) -> Any:
        posting.set()
        go.wait()
        return post(callback, *args, **options)

    monkeypatch.setattr(loop, "call_soon_threadsafe", post_later)
    work = Work(from_thread, called.append, None)
    task = asyncio.create_task(to_thread(work))
    await yield_now()
    posting.wait()
    task.cancel()
    await asyncio.wait([task])
    go.set()
    await work.end()
    assert isinstance(work.error, CancelledError)
    assert called == []


async def test_a_call_that_survives_its_cancellation_keeps_its_value() -> None:
    calling = asyncio.Event()

    async def suppress() -> int:
        calling.set()
        try:
            await asyncio.Event().wait()
        except CancelledError:
            pass
        return 42

    work = Work(from_thread, suppress)
    task = asyncio.create_task(to_thread(work))
    await calling.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await work.end()
    assert work.value == 42


async def test_a_call_that_is_cancelled_by_another_is_an_error_in_the_thread_and_not_a_cancellation() -> None:
    async def cancel_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await yield_now()

    def cancel_plainly() -> None:
        raise CancelledError

    def work() -> list[str]:
        names = []
        for function in (cancel_itself, cancel_plainly):
            with pytest.raises(JoinError) as caught:
                from_thread(function)
            names.append(caught.value.name.rpartition(".")[2])
        return names

    assert await to_thread(work) == ["cancel_itself", "cancel_plainly"]


async def test_a_timeout_around_it_is_an_ordinary_timeout() -> None:
    work = Work(from_thread, asyncio.sleep, 3600)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await to_thread(work)
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0
    await work.end()
    assert isinstance(work.error, CancelledError)


async def test_the_call_in_progress_is_cancelled_exactly_once() -> None:
    calling = asyncio.Event()
    requests: list[int] = []

    async def wait_for_ever() -> None:
        task = asyncio.current_task()
        assert task is not None
        calling.set()
        try:
            await asyncio.Event().wait()
        except CancelledError:
            requests.append(task.cancelling())
            await yield_now()  # a second request would be raised here
            await yield_now()
            requests.append(task.cancelling())
            raise

    task = asyncio.create_task(to_thread(from_thread, wait_for_ever))
    await calling.wait()
    task.cancel()
    await asyncio.wait([task])
    assert requests == [1, 1]


async def test_who_is_cancelled_again_still_waits_for_the_clean_up() -> None:
    calling, cleaning, go = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def wait_for_ever() -> None:
        calling.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await go.wait()

    task = asyncio.create_task(to_thread(from_thread, wait_for_ever))
    await calling.wait()
    task.cancel()
    await cleaning.wait()
    task.cancel()
    for _ in range(3):
        await yield_now()
    assert not task.done()
    go.set()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_aborting_a_handle_cancels_the_call_in_progress_once_however_often_it_is_aborted() -> None:
    calling = asyncio.Event()
    requests: list[int] = []

    async def wait_for_ever() -> None:
        task = asyncio.current_task()
        assert task is not None
        calling.set()
        try:
            await asyncio.Event().wait()
        finally:
            requests.append(task.cancelling())

    work = Work(from_thread, wait_for_ever)
    handle = spawn_blocking(work)
    await calling.wait()
    handle.abort()
    handle.abort()
    with pytest.raises(JoinError):
        await handle
    assert isinstance(work.error, CancelledError)
    assert requests == [1]


async def test_a_call_that_waits_for_its_own_thread_can_be_cancelled() -> None:
    tasks: list[asyncio.Task[Any]] = []
    handles: list[JoinHandle[None]] = []
    waiting, go = asyncio.Event(), threading.Event()

    async def wait_for_the_thread() -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        waiting.set()
        await handles[0]

    def work() -> None:
        go.wait()
        from_thread(wait_for_the_thread)

    handles.append(spawn_blocking(work))
    go.set()
    await waiting.wait()
    tasks[0].cancel()
    await asyncio.wait(tasks)
    with pytest.raises(JoinError):
        await handles[0]


async def test_a_thread_that_is_interrupted_cancels_its_call_whose_error_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calling, failed = asyncio.Event(), asyncio.Event()
    errors: list[object] = []
    loop = asyncio.get_running_loop()

    def report(_: object, context: dict[str, Any]) -> None:
        errors.append(context["exception"])
        failed.set()

    loop.set_exception_handler(report)

    async def fail_to_clean_up() -> None:
        calling.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise LookupError("lost")

    def interrupt(waiter: object, timeout: float) -> bool:
        asyncio.run_coroutine_threadsafe(calling.wait(), loop).result()
        raise KeyboardInterrupt

    monkeypatch.setattr("yamanote.threads._call.ThreadWaiter.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        await to_thread(from_thread, fail_to_clean_up)
    await failed.wait()
    assert [str(error) for error in errors] == ["lost"]


@pytest.mark.parametrize("plain", [False, True])
async def test_a_call_that_aborts_its_own_thread_is_cancelled_where_it_waits_next(plain: bool) -> None:
    handles: list[JoinHandle[None]] = []

    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    async def abort_and_wait() -> None:
        handles[0].abort()
        await asyncio.Event().wait()

    def abort_and_return() -> Coroutine[Any, Any, None]:
        handles[0].abort()
        return wait_for_ever()

    go = threading.Event()

    def work() -> None:
        go.wait()
        from_thread(abort_and_return if plain else abort_and_wait)

    work_ = Work(work)
    handles.append(spawn_blocking(work_))
    go.set()
    with pytest.raises(JoinError):
        await handles[0]
    assert isinstance(work_.error, CancelledError)


async def test_a_coroutine_that_is_thrown_away_cancels_the_call_in_progress() -> None:
    calling, ended = asyncio.Event(), asyncio.Event()

    async def wait_for_ever() -> None:
        calling.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    work = Work(from_thread, wait_for_ever)
    coroutine = to_thread(work)
    coroutine.send(None)
    await calling.wait()
    coroutine.close()
    await ended.wait()
    await work.end()
    assert isinstance(work.error, CancelledError)


async def test_an_error_of_one_call_of_a_map_cancels_what_the_others_call_on_the_loop() -> None:
    calling = asyncio.Event()
    reports: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))

    async def wait_for_ever() -> None:
        calling.set()
        await asyncio.Event().wait()

    def work(number: int) -> None:
        if number:
            from_thread(wait_for_ever)
        from_thread(calling.wait)
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost"):
        await map_blocking(work, range(4), limit=2)
    assert reports == []


def test_cancellation_at_any_moment_leaves_no_thread_waiting(caplog: pytest.LogCaptureFixture) -> None:
    async def main(work: Work, turns: int) -> None:
        task = asyncio.create_task(to_thread(work))
        for _ in range(turns):
            await yield_now()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    for turns in range(30):
        work = Work(from_thread, asyncio.sleep, 3600)
        run(main(work, turns))  # waits for the threads, and logs those that do not end
        assert work.started.is_set() == work.ended.is_set()
    assert caplog.messages == []


def test_a_thread_that_waits_for_a_loop_that_is_closed_gets_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yamanote.threads._call._LOOK_AGAIN", 0.01)
    calling = threading.Event()

    async def wait_for_ever() -> None:
        calling.set()
        await asyncio.Event().wait()

    work = Work(from_thread, wait_for_ever)
    loop = asyncio.new_event_loop()
    task = loop.create_task(to_thread(work))
    while not calling.is_set():
        loop.run_until_complete(asyncio.sleep(0))
    tasks = asyncio.all_tasks(loop)
    loop.close()
    assert work.ended.wait(60)
    assert isinstance(work.error, RuntimeError)
    assert "has been closed" in str(work.error)
    for left in tasks:
        left._log_destroy_pending = False  # type: ignore[attr-defined]  # destroyed while they wait, on purpose
    del task


def test_a_call_to_a_loop_that_is_closed_is_an_error() -> None:
    started, go = threading.Event(), threading.Event()

    def call() -> None:
        started.set()
        go.wait()
        from_thread(threading.get_ident)

    work = Work(call)
    loop = asyncio.new_event_loop()
    task = loop.create_task(to_thread(work))
    while not started.is_set():
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    go.set()
    assert work.ended.wait(60)
    assert isinstance(work.error, RuntimeError)
    assert "has been closed" in str(work.error)
    task._log_destroy_pending = False  # type: ignore[attr-defined]
