"""The virtual clock: when time moves, when it stands still, and what happens when neither helps."""

import asyncio
import gc
import logging
import math
import os
import socket
import subprocess
import sys
import threading
import time as real_time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from yamanote.runtime import EventLoop, run, spawn, spawn_blocking
from yamanote.time import DeadlockError, VirtualClock, interval, sleep, timeout

YEAR = 365 * 24 * 3600.0
Program = Callable[[VirtualClock], Coroutine[Any, Any, Any]]


def patched(program: Program, **options: Any) -> Any:
    """Run `program` with a clock that it puts on the running loop."""

    async def main() -> Any:
        with VirtualClock(**options).patch_loop() as clock:
            return await program(clock)

    return asyncio.run(main())


def made(program: Program, **options: Any) -> Any:
    """Run `program` on a loop of asyncio's that has the clock from the beginning."""
    clock = VirtualClock(**options)
    return run(program(clock), loop_factory=clock.loop_factory)


def given(program: Program, **options: Any) -> Any:
    """Run `program` with the clock, on our own loop."""
    clock = VirtualClock(**options)
    return run(program(clock), clock=clock)


each_way = pytest.mark.parametrize("virtually", [patched, made, given])


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other threads are given up soon; those of executors live as long as the tests do."""
    monkeypatch.setattr("yamanote.time._virtual_clock._PATIENCE", 0.005)


class Busy(Executor):
    """An executor of somebody else's: one thread for each call."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        threading.Thread(target=lambda: future.set_result(function(*args, **kwargs))).start()
        return future


# ---------------------------------------------------------------------- time moves


@each_way
def test_timers_of_the_same_moment_fire_in_the_order_in_which_they_were_made(
    virtually: Callable[[Program], Any],
) -> None:
    async def program(clock: VirtualClock) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(2):
            fired: list[tuple[int, int]] = []
            start = loop.time()
            for number in range(300):  # a heap does not keep the order of equals
                moment = number % 3
                if number % 2:
                    loop.call_at(start + moment, fired.append, (moment, number))
                else:
                    loop.call_later(moment, fired.append, (moment, number))
            await asyncio.sleep(2)
            assert fired == sorted(fired)
            assert len(fired) == 300

    virtually(program)


@each_way
def test_moments_that_differ_by_no_more_than_rounding_are_passed_one_by_one(
    virtually: Callable[[Program], Any],
) -> None:
    async def program(clock: VirtualClock) -> None:
        loop = asyncio.get_running_loop()
        moments = [0.1 + 0.2, 0.3, math.nextafter(0.3, 0), 1e9 + 0.1, math.nextafter(1e9 + 0.1, 0)]
        seen: list[tuple[float, float]] = []
        for moment in moments:
            loop.call_at(moment, lambda moment=moment: seen.append((moment, loop.time())))
        await sleep(2e9)
        assert seen == [(moment, moment) for moment in sorted(moments)]

    virtually(program)


@each_way
def test_what_the_loop_says_of_time_are_plain_numbers(virtually: Callable[[Program], Any]) -> None:
    async def program(clock: VirtualClock) -> None:
        await asyncio.sleep(1)
        assert type(asyncio.get_running_loop().time()) is float

    virtually(program)


def test_a_year_of_days_takes_as_many_turns_of_the_loop_as_it_has_days() -> None:
    async def program() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, EventLoop)
        before = loop.statistics()
        ticks = interval(24 * 3600)
        for _ in range(366):
            await ticks.tick()
        assert clock.virtual_time() == YEAR
        await sleep(0)
        after = loop.statistics()
        return after.turns - before.turns, after.polls - before.polls

    clock = VirtualClock()
    turns, polls = run(program(), clock=clock)

    assert turns <= 2 * 366 + 10  # of each day: the timer, and the task that it wakes
    assert polls <= 3 * 366 + 10


def test_ten_times_as_many_timers_take_ten_times_as_many_turns() -> None:
    def turns(timers: int) -> int:
        async def program() -> int:
            loop = asyncio.get_running_loop()
            for number in range(timers):
                loop.call_later(number * 7919 % timers, int)
            await sleep(timers)
            assert isinstance(loop, EventLoop)
            return loop.statistics().polls

        return run(program(), clock=VirtualClock())

    assert turns(10_000) <= 10 * turns(1000)


def test_a_jump_does_the_same_work_however_many_timers_there_are() -> None:
    def calls(timers: int) -> float:
        """How many functions written in Python a jump calls."""

        async def program() -> float:
            loop = asyncio.get_running_loop()
            for number in range(timers):
                loop.call_later(1000 + number, int)
            made = 0

            def count(frame: object, event: str, argument: object) -> None:
                nonlocal made
                made += event == "call" and "TimerHandle.__lt__" not in frame.f_code.co_qualname  # type: ignore[attr-defined]

            sys.setprofile(count)
            for _ in range(100):
                await asyncio.sleep(1)
            sys.setprofile(None)
            return made / 100

        return run(program(), clock=VirtualClock())

    assert calls(20_000) <= calls(10) + 1


@each_way
def test_a_thousand_sleepers_wake_in_the_order_of_their_time(virtually: Callable[[Program], Any]) -> None:
    async def program(clock: VirtualClock) -> list[int]:
        woken: list[int] = []

        async def sleeper(seconds: int) -> None:
            await asyncio.sleep(seconds)
            assert clock.virtual_time() == seconds
            woken.append(seconds)

        await asyncio.gather(*(sleeper(number * 7919 % 1000) for number in range(1000)))
        return woken

    assert virtually(program) == list(range(1000))


@each_way
def test_a_year_passes_and_is_a_year_to_the_last_digit(virtually: Callable[[Program], Any]) -> None:
    async def program(clock: VirtualClock) -> None:
        before = asyncio.get_running_loop().time()
        await sleep(YEAR)
        assert clock.virtual_time() == YEAR
        assert asyncio.get_running_loop().time() - before == YEAR

    virtually(program)


def test_a_loop_that_is_made_begins_at_zero() -> None:
    async def program(clock: VirtualClock) -> float:
        await sleep(0.1)
        return asyncio.get_running_loop().time()

    assert made(program) == 0.1


def test_everything_that_asks_the_loop_for_the_time_follows() -> None:
    async def program(clock: VirtualClock) -> None:
        loop = asyncio.get_running_loop()
        called = loop.create_future()
        loop.call_later(60, called.set_result, None)
        await called
        assert clock.virtual_time() == 60
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(40):
                await loop.create_future()
        assert clock.virtual_time() == 100
        with pytest.raises(TimeoutError):
            await timeout(50, loop.create_future())
        assert clock.virtual_time() == 150
        ticks = interval(86400)
        start = await ticks.tick()
        assert [await ticks.tick() - start for _ in range(3)] == [86400, 2 * 86400, 3 * 86400]

    patched(program)


def test_what_can_run_runs_before_time_moves() -> None:
    async def program(clock: VirtualClock) -> list[str]:
        log: list[str] = []
        asyncio.get_running_loop().call_later(0.001, log.append, "timer")
        for number in range(100):
            await asyncio.sleep(0)
            log.append(str(number))
        await asyncio.sleep(1)
        return log

    assert patched(program) == [*map(str, range(100)), "timer"]


def test_a_timer_fires_however_far_from_zero_the_time_is() -> None:
    async def program(clock: VirtualClock) -> None:
        for _ in range(3):
            await sleep(1e12)
        await sleep(1)
        await asyncio.sleep(0.3)

    patched(program)


def test_who_sleeps_for_ever_is_passed_over() -> None:
    async def program(clock: VirtualClock) -> float:
        forever = spawn(sleep(math.inf))
        await sleep(5)
        assert not forever.is_finished()
        forever.abort()
        return clock.virtual_time()

    assert patched(program) == 5


# ---------------------------------------------------------------------- on a loop, and off


def test_timers_from_before_fire_after_what_they_have_to_go() -> None:
    async def main() -> None:
        fired = asyncio.Event()
        asyncio.get_running_loop().call_later(3600, fired.set)
        with VirtualClock().patch_loop():
            await sleep(3599)
            assert not fired.is_set()
            await sleep(1)
            assert fired.is_set()

    asyncio.run(main())


def test_timers_that_are_left_fire_after_what_they_have_to_go() -> None:
    async def main() -> None:
        fired = asyncio.Event()
        with VirtualClock().patch_loop():
            await sleep(YEAR)
            asyncio.get_running_loop().call_later(0.02, fired.set)
        await asyncio.sleep(0)
        assert not fired.is_set()
        before = real_time.monotonic()
        await fired.wait()
        assert real_time.monotonic() - before > 0.01

    asyncio.run(main())


def test_time_never_goes_back_while_a_timer_is_pending_however_often_clocks_are_put_on() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        pending = loop.call_later(YEAR, int)
        seen = [loop.time()]
        for _ in range(sys.getrecursionlimit()):  # nor do the clocks of the past pile up
            with VirtualClock().patch_loop():
                seen.append(loop.time())
                await asyncio.sleep(1)
                seen.append(loop.time())
            seen.append(loop.time())
        assert seen == sorted(seen)
        assert seen[-1] - seen[0] < sys.getrecursionlimit() + 60
        pending.cancel()

    asyncio.run(main())


async def test_on_a_running_loop_an_hour_takes_the_time_from_0_to_3600(capsys: pytest.CaptureFixture[str]) -> None:
    loop = asyncio.get_running_loop()
    vclock = VirtualClock()
    with vclock.patch_loop():
        print(loop.time())
        await asyncio.sleep(3600)
        print(loop.time())

    assert [float(line) for line in capsys.readouterr().out.split()] == [0, 3600]


def test_time_begins_at_zero_where_no_timer_is_pending_so_that_every_run_sees_the_same_numbers() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(60, int).cancel()  # is not pending any more
        for _ in range(2):
            with VirtualClock().patch_loop() as clock:
                assert loop.time() == clock.time() == 0
                await asyncio.sleep(0.1)
                assert loop.time() == clock.virtual_time() == 0.1
            left = loop.time()
            assert left >= 0.1  # on leaving it never goes back

    asyncio.run(main())


def test_time_on_the_loop_goes_on_after_the_clock_has_been_taken_off() -> None:
    async def main() -> None:
        with VirtualClock().patch_loop():
            await sleep(1)
        before = asyncio.get_running_loop().time()
        await asyncio.sleep(0.01)
        assert asyncio.get_running_loop().time() > before

    asyncio.run(main())


@pytest.mark.parametrize("limit", [timeout, asyncio.timeout], ids=["ours", "asyncio's"])
async def test_a_time_limit_around_the_block_has_as_long_to_go(limit: Callable[[float], Any]) -> None:
    with pytest.raises(TimeoutError):
        async with limit(3600):
            clock = VirtualClock()
            with clock.patch_loop():
                await sleep(3599)
                assert clock.virtual_time() == 3599
                await sleep(YEAR)
    assert 3599 <= clock.virtual_time() <= 3600


def test_in_debug_mode_timers_know_who_made_them() -> None:
    loop: Any = asyncio.SelectorEventLoop()
    loop.set_debug(True)
    with VirtualClock().patch_loop(loop):
        timers = [loop.call_later(1, int), loop.call_at(1, int)]
    loop.close()

    assert [__file__] * 2 == [timer._source_traceback[-1].filename for timer in timers]


def test_a_clock_can_be_put_on_a_loop_that_does_not_run_yet() -> None:
    with asyncio.Runner() as runner, VirtualClock().patch_loop(runner.get_loop()) as clock:
        runner.run(sleep(3600))
        assert clock.virtual_time() == 3600


def test_a_clock_serves_one_loop_after_the_other() -> None:
    clock = VirtualClock()
    for _ in range(2):
        run(sleep(7), loop_factory=clock.loop_factory)
        assert clock.virtual_time() == 7


def test_loops_of_other_threads_keep_their_own_time() -> None:
    async def program(clock: VirtualClock) -> None:
        await sleep(YEAR)
        theirs = await asyncio.to_thread(lambda: asyncio.run(their_time()))
        assert theirs < asyncio.get_running_loop().time() - YEAR / 2

    async def their_time() -> float:
        await asyncio.sleep(0.001)
        return asyncio.get_running_loop().time()

    patched(program)


# ---------------------------------------------------------------------- time stands still


@pytest.mark.parametrize(
    "call",
    [
        asyncio.to_thread,
        spawn_blocking,
        lambda function, *args: asyncio.get_running_loop().run_in_executor(Busy(), function, *args),
    ],
)
def test_time_stands_still_while_a_thread_works(call: Callable[..., Any]) -> None:
    def work() -> str:
        real_time.sleep(0.05)
        return "done"

    async def program(clock: VirtualClock) -> None:
        assert await asyncio.wait_for(call(work), 5) == "done"
        assert clock.virtual_time() == 0
        await sleep(1)  # and then it moves
        assert clock.virtual_time() == 1

    patched(program)


def test_time_stands_still_until_the_queue_of_an_executor_is_empty() -> None:
    async def program(clock: VirtualClock) -> None:
        with ThreadPoolExecutor(1) as executor:
            loop = asyncio.get_running_loop()
            calls = [loop.run_in_executor(executor, real_time.sleep, 0.02) for _ in range(3)]
            await asyncio.wait_for(asyncio.gather(*calls), 0.001)
        assert clock.virtual_time() == 0

    patched(program)


@pytest.mark.parametrize("call", [asyncio.to_thread, spawn_blocking])
def test_a_thread_that_waits_for_the_loop_does_not_hold_the_time(call: Callable[..., Any]) -> None:
    async def program(clock: VirtualClock) -> None:
        task = spawn(asyncio.sleep(60, "slept"))
        assert await call(task.result) == "slept"
        assert clock.virtual_time() == 60

    patched(program)


def test_a_thread_that_has_been_woken_works_again() -> None:
    async def program(clock: VirtualClock) -> None:
        task = spawn(asyncio.sleep(60))

        def work() -> None:
            task.result()
            real_time.sleep(0.05)

        await asyncio.wait_for(spawn_blocking(work), 61)
        assert clock.virtual_time() == 60

    patched(program)


@pytest.mark.parametrize("call", [asyncio.to_thread, spawn_blocking])
def test_a_thread_whose_result_nobody_wants_any_more_still_works(call: Callable[..., Any]) -> None:
    async def program(clock: VirtualClock) -> None:
        started, ended = threading.Event(), threading.Event()

        def work() -> None:
            started.set()
            real_time.sleep(0.05)
            ended.set()

        task = asyncio.ensure_future(asyncio.wait_for(call(work), None))
        while not started.is_set():
            await asyncio.sleep(0)
        task.cancel()
        await sleep(3600)
        assert ended.is_set()

    patched(program)


def test_who_has_called_in_and_then_stopped_working_has_been_heard() -> None:
    # A thread that is done between the two looks of the clock must not fall through between them.
    async def program(clock: VirtualClock) -> None:
        loop = asyncio.get_running_loop()
        answer = loop.create_future()

        def at_work() -> list[str]:
            if not answer.done():
                loop.call_soon_threadsafe(lambda: answer.done() or answer.set_result("heard"))
            return []

        clock._outside.at_work = at_work  # type: ignore[method-assign]
        assert await asyncio.wait_for(answer, 5) == "heard"
        assert clock.virtual_time() == 0

    patched(program)


def test_time_stands_still_while_a_process_runs() -> None:
    async def program(clock: VirtualClock) -> None:
        script = "import time; time.sleep(0.1); print('hello')"
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=subprocess.PIPE)
        output, _ = await asyncio.wait_for(process.communicate(), 0.001)
        assert output.strip() == b"hello"
        process = await asyncio.create_subprocess_shell("exit 3")
        assert await asyncio.wait_for(process.wait(), 0.001) == 3
        assert clock.virtual_time() == 0
        await sleep(1)

    patched(program)


def test_time_stands_still_in_a_block_that_holds_it() -> None:
    async def program(clock: VirtualClock) -> None:
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        thread = threading.Timer(0.05, loop.call_soon_threadsafe, [answer.set_result, 42])
        thread.start()
        with clock.hold(), clock.hold():
            assert await asyncio.wait_for(answer, 0.001) == 42
        assert clock.virtual_time() == 0
        await sleep(1)
        thread.join()

    patched(program)


@pytest.mark.usefixtures("hasty")
def test_the_end_of_a_program_waits_for_the_threads_of_its_executor() -> None:
    # For which asyncio has a time limit, and a thread of its own that nobody has announced.
    async def program(clock: VirtualClock) -> None:
        executor = ThreadPoolExecutor()
        asyncio.get_running_loop().set_default_executor(executor)
        executor.submit(real_time.sleep, 0.2)

    made(program)


def test_the_log_says_for_whom_time_stands_still(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def dawdle() -> None:
        real_time.sleep(0.1)

    async def program(clock: VirtualClock) -> None:
        with clock.hold():
            await asyncio.gather(asyncio.to_thread(dawdle), spawn_blocking(dawdle))

    monkeypatch.setattr("yamanote.time._virtual_clock._LONG", 0.03)
    with caplog.at_level(logging.WARNING, "yamanote"):
        patched(program)

    (record,) = caplog.records  # once
    assert record.getMessage().count("dawdle in a thread") == 2
    assert "a block of hold()" in record.getMessage()


# ---------------------------------------------------------------------- connections


@contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        yield here, there


def test_a_connection_gets_real_time_to_deliver() -> None:
    async def program(clock: VirtualClock) -> None:
        with connection() as (here, there):
            thread = threading.Timer(0.05, there.send, [b"hello"])
            thread.start()
            loop = asyncio.get_running_loop()
            assert await asyncio.wait_for(loop.sock_recv(here, 100), 5) == b"hello"
            assert clock.virtual_time() == 0
            thread.join()

    patched(program, silence=30)


def test_what_is_on_its_way_within_the_program_needs_no_time_at_all() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    async def program(clock: VirtualClock) -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            host, port = server.sockets[0].getsockname()
            async with asyncio.timeout(0.001):
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(b"hello\n")
                assert await reader.read() == b"HELLO\n"
                writer.close()
                await writer.wait_closed()
        assert clock.virtual_time() == 0

    patched(program)


def test_time_moves_past_a_connection_that_is_silent() -> None:
    async def program(clock: VirtualClock) -> None:
        with connection() as (here, _):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.get_running_loop().sock_recv(here, 100), 3600)
        assert clock.virtual_time() == 3600

    patched(program, silence=0.001)


def test_a_socket_that_only_listens_gets_no_real_time() -> None:
    async def program(clock: VirtualClock) -> None:
        async with await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0):
            await sleep(3600)

    patched(program, silence=1e9)


@pytest.mark.usefixtures("hasty")
def test_a_connection_is_waited_for_when_nothing_else_is_left() -> None:
    async def program(clock: VirtualClock) -> None:
        with connection() as (here, there):
            thread = threading.Timer(0.1, there.send, [b"hello"])
            thread.start()
            assert await asyncio.get_running_loop().sock_recv(here, 100) == b"hello"
            thread.join()

    patched(program, silence=0)


# ---------------------------------------------------------------------- dead-locks


async def wait_for_nothing() -> None:
    await asyncio.Event().wait()


@pytest.mark.usefixtures("hasty")
@each_way
def test_a_dead_lock_ends_the_program_and_says_what_each_task_waits_for(virtually: Callable[[Program], Any]) -> None:
    ended: list[str] = []

    async def program(clock: VirtualClock) -> None:
        child = spawn(wait_for_nothing(), name="child")
        try:
            await child
        finally:
            await sleep(60)  # the clean-up has the virtual time, too
            ended.append("program")

    with pytest.raises(DeadlockError) as caught:
        virtually(program)

    text = str(caught.value)
    assert text.startswith("every task waits, and nothing is due")
    assert "'child' waits for <asyncio.locks.Event" in text
    assert "waits for the task 'child'" in text
    assert "in wait_for_nothing" in text
    assert ended == ["program"]


@pytest.mark.usefixtures("hasty")
def test_a_loop_on_which_a_dead_lock_was_found_can_be_used_again() -> None:
    async def locked() -> None:
        with VirtualClock().patch_loop():
            await wait_for_nothing()

    async def fine() -> None:
        with VirtualClock().patch_loop() as clock:
            await sleep(3600)
            assert clock.virtual_time() == 3600

    with asyncio.Runner() as runner:
        for _ in range(2):
            with pytest.raises(DeadlockError):
                runner.run(locked())
            runner.run(fine())


def test_a_time_limit_prevents_the_dead_lock() -> None:
    async def program(clock: VirtualClock) -> None:
        with pytest.raises(TimeoutError):
            await timeout(5, wait_for_nothing())

    patched(program)


@pytest.mark.usefixtures("hasty")
def test_sleeping_for_ever_is_a_dead_lock() -> None:
    with pytest.raises(DeadlockError, match="sleeps until inf"):
        patched(lambda clock: sleep(math.inf))


def test_other_threads_get_real_time_to_call_in_before_a_dead_lock_is_declared() -> None:
    async def program(clock: VirtualClock) -> int:
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        thread = threading.Timer(0.05, loop.call_soon_threadsafe, [answer.set_result, 42])
        thread.start()
        try:
            return await answer  # type: ignore[no-any-return]
        finally:
            thread.join()

    assert patched(program) == 42


def test_what_the_garbage_collector_would_wake_is_not_dead_locked() -> None:
    class Waker:
        """Wakes somebody when it is collected, and refers to itself."""

        def __init__(self, future: asyncio.Future[None]) -> None:
            self.future = future
            self.me = self

        def __del__(self) -> None:
            self.future.set_result(None)

    async def program(clock: VirtualClock) -> None:
        future = asyncio.get_running_loop().create_future()
        Waker(future)
        await future

    gc.disable()
    try:
        patched(program)
    finally:
        gc.enable()


@pytest.mark.usefixtures("hasty")
def test_a_loop_without_tasks_waits_to_be_given_one() -> None:
    loop = VirtualClock().loop_factory()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    real_time.sleep(0.1)
    try:
        assert asyncio.run_coroutine_threadsafe(asyncio.sleep(3600, "slept"), loop).result(60) == "slept"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_pytest_shows_a_dead_lock_as_the_failure_of_its_test(tmp_path: Path) -> None:
    (tmp_path / "test_sample.py").write_text(
        """
import asyncio
from yamanote.time import VirtualClock

async def test_locked():
    with VirtualClock().patch_loop():
        await asyncio.Queue().get()

async def test_fine():
    with VirtualClock().patch_loop():
        await asyncio.sleep(3600)
""",
        "utf-8",
    )
    # One loop for all tests: the hardest case, for what the first test leaves behind is still there in the second.
    settings = ["asyncio_mode=auto", *(f"asyncio_default_{what}_loop_scope=session" for what in ("fixture", "test"))]
    (tmp_path / "pytest.ini").write_text("\n".join(["[pytest]", *settings]), "utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider", "-W", "error"]
    lean = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=lean)

    assert "1 failed, 1 passed" in result.stdout, result.stdout
    assert "DeadlockError: every task waits" in result.stdout
    assert "<Queue at" in result.stdout


# ---------------------------------------------------------------------- by hand


def test_a_clock_can_be_stopped_and_let_go_while_the_program_runs() -> None:
    async def program(clock: VirtualClock) -> None:
        await sleep(60)
        clock.autojump = False
        sleeper = spawn(sleep(5))
        await clock.advance(4)
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        thread = threading.Timer(0.01, loop.call_soon_threadsafe, [answer.set_result, None])
        thread.start()
        await answer  # when nobody has anything to do, and somebody sleeps
        thread.join()
        assert not sleeper.is_finished()
        assert clock.virtual_time() == 64
        clock.autojump = True
        await sleeper
        assert clock.virtual_time() == 65

    patched(program)


def test_by_hand_time_moves_only_when_it_is_told_to() -> None:
    async def program(clock: VirtualClock) -> None:
        sleeper = spawn(sleep(5))
        for _ in range(10):
            await asyncio.sleep(0)
        await clock.advance(4.5)
        assert clock.virtual_time() == 4.5
        assert not sleeper.is_finished()
        await clock.advance(0.5)
        assert clock.virtual_time() == 5
        assert sleeper.is_finished()

    patched(program, autojump=False)


def test_tenths_of_a_second_add_up_when_time_is_advanced() -> None:
    async def program(clock: VirtualClock) -> None:
        sleeper = spawn(sleep(1))
        for _ in range(10):
            await clock.advance(0.1)
        assert clock.virtual_time() == 1
        assert sleeper.is_finished()

    made(program, autojump=False)


def test_a_timer_does_not_fire_before_its_time() -> None:
    async def program(clock: VirtualClock) -> None:
        for number in range(100):
            asyncio.get_running_loop().call_later(number * 1e-9, seen.append, number)
            asyncio.get_running_loop().call_later(number * 1e-9, lambda: turns.append(clock.virtual_time()))
        await sleep(1)

    seen: list[int] = []
    turns: list[float] = []
    made(program)

    assert seen == list(range(100))
    assert turns == [number * 1e-9 for number in range(100)]


@pytest.mark.parametrize("autojump", [False, True])
def test_what_falls_due_while_time_is_advanced_happens_in_order_and_completely(autojump: bool) -> None:
    async def program(clock: VirtualClock) -> list[float]:
        log: list[float] = []

        async def tick(period: float) -> None:
            while True:
                await asyncio.sleep(period)
                for _ in range(10):  # what follows from it
                    await asyncio.sleep(0)
                log.append(clock.virtual_time())

        tasks = [spawn(tick(2)), spawn(tick(3))]
        await clock.advance(6)
        for task in tasks:
            task.abort()
        return log

    assert patched(program, autojump=autojump) == [2, 3, 4, 6, 6]


def test_to_advance_by_nothing_lets_all_run_who_can() -> None:
    async def program(clock: VirtualClock) -> None:
        log: list[int] = []

        async def work() -> None:
            for number in range(10):
                await asyncio.sleep(0)
                log.append(number)

        spawn(work())
        await clock.advance(0)
        assert log == list(range(10))
        assert clock.virtual_time() == 0

    patched(program, autojump=False)


def test_to_advance_waits_for_threads() -> None:
    async def program(clock: VirtualClock) -> None:
        call = spawn_blocking(real_time.sleep, 0.05)
        await clock.advance(1)
        assert call.is_finished()

    patched(program, autojump=False)


@pytest.mark.usefixtures("hasty")
def test_by_hand_it_is_a_dead_lock_when_nobody_advances() -> None:
    with pytest.raises(DeadlockError) as caught:
        patched(lambda clock: sleep(5), autojump=False)

    assert "sleeps until" in str(caught.value)
    assert "autojump=False" in caught.value.__notes__[0]


def test_a_cancelled_advance_makes_room_for_another() -> None:
    async def program(clock: VirtualClock) -> None:
        asyncio.get_running_loop().call_later(3, asyncio.current_task().cancel)  # type: ignore[union-attr]
        with pytest.raises(asyncio.CancelledError):
            await clock.advance(5)
        assert clock.virtual_time() == 3
        await clock.advance(5)
        assert clock.virtual_time() == 8

    patched(program, autojump=False)


def test_advance_refuses_nonsense() -> None:
    async def program(clock: VirtualClock) -> None:
        for seconds in (-1, math.nan, math.inf):
            with pytest.raises(ValueError, match="seconds must"):
                await clock.advance(seconds)
        with pytest.raises(TypeError, match="seconds must"):
            await clock.advance("1")  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="not on the running loop"):
            await VirtualClock().advance(1)
        first = spawn(clock.advance(1))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task is advancing"):
            await clock.advance(1)
        await first

    patched(program)


def test_a_clock_can_be_advanced_after_a_loop_that_was_closed_while_it_was() -> None:
    clock = VirtualClock(autojump=False)
    loop = clock.loop_factory()
    advancing = loop.create_task(clock.advance(5))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    run(clock.advance(5), clock=clock)
    assert clock.virtual_time() == 5
    advancing._log_destroy_pending = False  # type: ignore[attr-defined]


def test_who_advances_a_clock_that_is_taken_off_is_told() -> None:
    async def main() -> None:
        clock = VirtualClock(autojump=False)
        with clock.patch_loop():
            advancing = spawn(clock.advance(5))
            await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="taken off"):
            await advancing
        with clock.patch_loop():
            await clock.advance(1)

    asyncio.run(main())


# ---------------------------------------------------------------------- refusals


def test_a_silence_that_is_no_number_of_seconds_is_refused() -> None:
    for silence in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match="silence must"):
            VirtualClock(silence=silence)
    with pytest.raises(TypeError, match="silence must"):
        VirtualClock(silence="long")  # type: ignore[arg-type]


def test_two_clocks_on_a_loop_and_two_loops_on_a_clock_are_refused() -> None:
    async def program(clock: VirtualClock) -> None:
        with pytest.raises(RuntimeError, match="has a clock already"):
            VirtualClock().patch_loop()
        with pytest.raises(RuntimeError, match="has a clock already"):
            clock.patch_loop()
        with pytest.raises(RuntimeError, match="on a loop already"):
            clock.loop_factory()
        await sleep(3600)

    patched(program)


def test_a_clock_without_a_loop_is_refused() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        VirtualClock().patch_loop()


def test_a_loop_that_runs_in_another_thread_is_refused() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(RuntimeError, match="runs in another thread"):
            await asyncio.to_thread(lambda: VirtualClock().patch_loop(loop))

    asyncio.run(main())


def test_a_loop_without_a_selector_is_refused_with_advice() -> None:
    loop = asyncio.BaseEventLoop()
    with pytest.raises(TypeError, match=r"asyncio\.base_events\.BaseEventLoop is none: .*loop_factory"):
        VirtualClock().patch_loop(loop)
    loop.close()


def test_uvloop_is_refused_with_advice() -> None:
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")

    async def main() -> None:
        with pytest.raises(TypeError, match=r"uvloop\.Loop is none: .*loop_factory"):
            VirtualClock().patch_loop()

    run(main(), loop_factory=uvloop.new_event_loop)
