"""The event loop: its order is asyncio's, its polls are fewer, nobody starves, and what others lean on is there."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import selectors
import signal
import socket
import sys
import threading
import time
import weakref
from asyncio import AbstractEventLoop, Handle
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yamanote.runtime import EventLoop, LoopStatistics, _loop, run, spawn, start_task
from yamanote.runtime._loop import _BUDGET, _MOST, _STRETCH
from yamanote.runtime._loop_steps import STEP, handle_of, task_of
from yamanote.time import DeadlockError, VirtualClock

Main = Callable[[], Coroutine[Any, Any, Any]]

EAGER = [None, *([asyncio.eager_task_factory] if sys.version_info >= (3, 12) else [])]
each_start = pytest.mark.parametrize("factory", EAGER, ids=["lazy", "eager"][: len(EAGER)])
unix = pytest.mark.skipif(sys.platform == "win32", reason="needs Unix")


class Selector(selectors.DefaultSelector):
    """Does not sleep, but lets the time pass that the loop wanted to sleep, and remembers how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.polls = 0

    def select(self, timeout: float | None = None) -> Any:
        self.polls += 1
        events = super().select(0)
        if not events:
            assert timeout is not None, "the loop would sleep for ever"
            self.now += timeout
        return events


@contextmanager
def in_slow_motion(kind: type[asyncio.SelectorEventLoop] = EventLoop) -> Iterator[tuple[Any, Selector]]:
    """A loop, and its selector, whose time is what `now` says."""
    selector = Selector()
    loop: Any = kind(selector)
    loop.time = lambda: selector.now
    loop._clock_resolution = 2.0**-30
    try:
        yield loop, selector
    finally:
        loop.close()


def run_here(main: Main) -> Any:
    return run(main(), loop_factory=EventLoop)


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


# ------------------------------------------------------------------------------------------- order

Script = list[tuple[str, Any]]


def scripts() -> st.SearchStrategy[Script]:
    index = st.integers(0, 2)
    plain = st.one_of(
        st.tuples(st.just("yield"), st.none()),
        st.tuples(st.just("sleep"), st.integers(0, 3)),
        st.tuples(st.sampled_from(["soon", "soon and cancel"]), st.none()),
        st.tuples(st.sampled_from(["later", "later and cancel"]), st.integers(-1, 3)),
        st.tuples(st.sampled_from(["wait", "wake", "chain"]), index),
        st.tuples(st.sampled_from(["join", "kill"]), index),
    )
    return st.recursive(
        st.lists(plain, max_size=4),
        lambda inner: st.lists(st.one_of(plain, st.tuples(st.just("spawn"), inner)), max_size=6),
        max_leaves=8,
    )


def trace_of(kind: type[asyncio.SelectorEventLoop], script: Script, factory: Any) -> list[str]:
    """What a program of tasks, futures, callbacks and timers does, in which order and at what time."""
    trace: list[str] = []
    moments: set[float] = set()
    tasks: list[asyncio.Task[None]] = []

    async def program(clock: VirtualClock) -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        futures = [loop.create_future() for _ in range(3)]

        def delay(steps: int) -> float:
            """Asyncio leaves open who is first of those with the same deadline: no two have it here."""
            moment = clock.virtual_time() + steps / 16
            while moment in moments:
                moment += 2**-16 if steps > 0 else -(2**-16)
            moments.add(moment)
            return moment - clock.virtual_time()

        def note(what: str) -> None:
            trace.append(f"{what} at {clock.virtual_time()}")

        async def play(name: str, script: Script) -> None:
            try:
                for number, (what, argument) in enumerate(script):
                    here = f"{name}.{number} {what}"
                    note(here)
                    if what == "yield":
                        await asyncio.sleep(0)
                    elif what == "sleep":
                        await asyncio.sleep(delay(argument))
                    elif what.startswith("soon"):
                        handle = loop.call_soon(note, here + " called")
                        if what != "soon":
                            handle.cancel()
                    elif what.startswith("later"):
                        handle = loop.call_later(delay(argument), note, here + " called")
                        if what != "later":
                            handle.cancel()
                    elif what == "wait":
                        await asyncio.wait([futures[argument]], timeout=delay(3))
                    elif what == "wake":
                        futures[argument].cancel()
                        futures[argument] = loop.create_future()
                    elif what == "chain":
                        futures[argument].add_done_callback(lambda _, here=here: note(here + " called"))
                    elif what == "spawn":
                        task = loop.create_task(play(f"{here}{len(tasks)}", argument))
                        tasks.append(task)
                    elif argument < len(tasks):
                        if what == "kill":
                            tasks[argument].cancel()
                        else:
                            await asyncio.wait([tasks[argument]], timeout=delay(3))
            finally:
                note(f"{name} ends")

        await play("main", script)

    loop = kind()
    with VirtualClock().patch_loop(loop) as clock:
        loop.run_until_complete(program(clock))
        trace.append("stopped")
        while left := [task for task in tasks if not task.done()]:
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.wait(left))
    loop.close()
    return trace


@each_start
@given(script=scripts())
@settings(max_examples=300, deadline=None)
def test_whatever_runs_runs_in_the_order_of_asyncio(script: Script, factory: Any) -> None:
    assert trace_of(asyncio.SelectorEventLoop, script, factory) == trace_of(EventLoop, script, factory)


def test_timers_fire_in_the_order_of_their_deadlines_and_then_of_their_making() -> None:
    fired: list[int] = []
    with in_slow_motion() as (loop, selector):
        for number in range(50):
            loop.call_at(selector.now + 1 + number % 3, fired.append, number)
        loop.call_at(selector.now + 5, loop.stop)
        loop.run_forever()

    assert fired == sorted(range(50), key=lambda number: (number % 3, number))


def test_timers_that_were_cancelled_do_not_fire_and_do_not_pile_up() -> None:
    fired: list[int] = []
    with in_slow_motion() as (loop, _):
        numbers = list(range(1000))
        Random(1).shuffle(numbers)
        for number in numbers:
            timer = loop.call_later(1 + number / 100, fired.append, number)
            if number % 3:
                timer.cancel()
        loop.call_later(0, loop.stop)
        loop.run_forever()
        assert 334 == loop.statistics().timers == len(loop._scheduled)
        loop.call_later(20, loop.stop)
        loop.run_forever()

    assert fired == list(range(0, 1000, 3))


def test_a_timer_that_is_due_when_it_is_made_fires_on_the_turn_after_the_next() -> None:
    for kind in (asyncio.SelectorEventLoop, EventLoop):

        async def main() -> int:
            fired: list[None] = []
            asyncio.get_running_loop().call_later(0, fired.append, None)
            passed = 0
            while not fired:
                await asyncio.sleep(0)
                passed += 1
            return passed

        assert 2 == run(main(), loop_factory=kind)


def test_what_is_left_of_a_turn_runs_after_stop_and_nothing_else() -> None:
    for kind in (asyncio.SelectorEventLoop, EventLoop):
        ran: list[str] = []
        loop = kind()
        loop.call_soon(loop.call_soon, ran.append, "next turn")
        loop.call_soon(loop.stop)
        loop.call_soon(ran.append, "same turn")
        loop.run_forever()
        assert ran == ["same turn"]
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert ran == ["same turn", "next turn"]
        loop.close()


def test_after_stop_a_turn_is_run_to_its_end_however_long_that_takes() -> None:
    ran: list[int] = []
    with in_slow_motion() as (loop, _):
        loop.call_soon(loop.stop)
        for number in range(3 * _MOST):
            loop.call_soon(ran.append, number)
        loop.run_forever()

    assert 3 * _MOST == len(ran)


def test_a_poll_in_the_middle_of_a_turn_does_not_end_it() -> None:
    ran: list[str] = []
    with in_slow_motion() as (loop, _):
        loop.call_soon(loop.call_soon, ran.append, "next turn")
        for _ in range(2 * _MOST):
            loop.call_soon(int)
        loop.call_soon(loop.stop)
        loop.call_soon(ran.append, "same turn")
        loop.run_forever()
        assert loop.statistics().polls > 2

    assert ran == ["same turn"]


# ------------------------------------------------------------------------------------------- polls and fairness


def test_a_busy_loop_polls_by_the_time_and_not_every_turn() -> None:
    with in_slow_motion() as (loop, selector):

        def step(left: int) -> None:
            selector.now += _BUDGET / 100
            loop.call_soon(*(step, left - 1) if left else (loop.stop,))

        loop.call_soon(step, 10_000)
        loop.run_forever()

    assert 80 < selector.polls < 120


def test_a_busy_loop_polls_while_the_clock_stands_still() -> None:
    with in_slow_motion() as (loop, selector):

        def step(left: int) -> None:
            loop.call_soon(*(step, left - 1) if left else (loop.stop,))

        loop.call_soon(step, 10 * _MOST)
        loop.run_forever()

    assert 10 <= selector.polls <= 12


def test_a_loop_that_has_nothing_to_run_polls_as_often_as_asyncio() -> None:
    def polls(kind: type[asyncio.SelectorEventLoop]) -> int:
        with in_slow_motion(kind) as (loop, selector):

            def tick(left: int) -> None:
                loop.call_later(1, *(tick, left - 1) if left else (loop.stop,))

            tick(100)
            loop.run_forever()
            return selector.polls

    assert polls(asyncio.SelectorEventLoop) == polls(EventLoop)


def test_slow_callbacks_are_looked_between_for_timers() -> None:
    ran: list[int] = []
    with in_slow_motion() as (loop, selector):

        def slow() -> None:
            selector.now += 0.03
            ran.append(loop.statistics().polls)

        for _ in range(100):
            loop.call_soon(slow)
        loop.call_soon(loop.stop)
        loop.run_forever()

    assert _STRETCH == ran.count(ran[0])  # the first of them come unexpectedly
    assert all(1 == ran.count(poll) for poll in ran[_STRETCH:])


def test_an_event_is_seen_once_however_long_the_turn_is_that_sees_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system reports a socket until somebody reads it. In the middle of a turn, that may still be to come."""
    monkeypatch.setattr(_loop, "_BUDGET", 0.0)
    called: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        pairs = [socket.socketpair() for _ in range(100)]

        def read(number: int) -> None:
            called.append(number)
            with suppress(BlockingIOError):
                pairs[number][1].recv(1)

        for number, (theirs, ours) in enumerate(pairs):
            ours.setblocking(False)
            loop.add_reader(ours, read, number)
            theirs.send(b"x")
        while len(called) < 100:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        for theirs, ours in pairs:
            loop.remove_reader(ours)
            theirs.close()
            ours.close()

    run_here(main)
    assert sorted(called) == list(range(100))


def test_sockets_are_served_though_every_turn_is_longer_than_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    arrived: list[bytes] = []

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        now = loop.time()
        # Time stands still, so none is taken for slow; and the budget is used up at each look, in the middle of turns.
        loop.time = lambda: now
        monkeypatch.setattr(_loop, "_BUDGET", 0.0)
        others = [asyncio.create_task(turns(1_000_000)) for _ in range(50)]
        theirs, ours = socket.socketpair()
        with theirs, ours:
            loop.add_reader(ours, lambda: arrived.append(ours.recv(1)))
            await turns(_MOST // 50 + 2)  # until the polls of that time begin
            for _ in range(8):
                theirs.send(b"x")
                await turns(2)
            assert len(arrived) >= 7
            loop.remove_reader(ours)
        for other in others:
            other.cancel()
        del loop.time

    run_here(main)


def test_a_loop_looks_at_the_clock_rarely_again_after_a_slow_callback() -> None:
    looks: list[float] = []
    with in_slow_motion() as (loop, selector):
        loop.time = lambda: looks.append(selector.now) or selector.now

        def slow() -> None:
            selector.now += 0.03

        for callback in (*[slow] * 20, *[lambda: None] * 1000, loop.stop):
            loop.call_soon(callback)
        loop.run_forever()

    assert len(looks) < 20 * 2 + 1000 / _STRETCH + 10


async def yields_until(happened: Callable[[], object]) -> bool:
    """Yield, and never wait, until it has happened; for some seconds at most."""
    for _ in range(5_000_000):
        if happened():
            return True
        await asyncio.sleep(0)
    return False


def test_a_task_that_never_waits_does_not_keep_a_timer_from_firing() -> None:
    async def main() -> bool:
        fired: list[None] = []
        asyncio.get_running_loop().call_later(0.002, fired.append, None)
        return await yields_until(lambda: fired)

    assert run_here(main)


def test_a_task_that_never_waits_does_not_keep_a_socket_from_being_read() -> None:
    async def main() -> bool:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            reading = start_task(loop.sock_recv(ours, 10))
            await asyncio.sleep(0)
            theirs.send(b"hello")
            return await yields_until(reading.done) and await reading == b"hello"

    assert run_here(main)


@unix
def test_a_task_that_never_waits_does_not_keep_a_signal_from_being_handled() -> None:
    async def main() -> bool:
        handled: list[None] = []
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, handled.append, None)
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
            return await yields_until(lambda: handled)
        finally:
            loop.remove_signal_handler(signal.SIGUSR1)

    assert run_here(main)


def test_a_task_that_never_waits_does_not_keep_a_call_from_a_thread_waiting() -> None:
    async def main() -> bool:
        called: list[None] = []
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(called.append, None))
        thread.start()
        try:
            return await yields_until(lambda: called)
        finally:
            thread.join()

    assert run_here(main)


def test_a_call_from_a_thread_wakes_a_loop_that_sleeps() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(20):
            future = loop.create_future()
            threading.Timer(0.001, loop.call_soon_threadsafe, [future.set_result, None]).start()
            await future

    run_here(main)


def test_a_call_that_comes_when_the_loop_is_about_to_sleep_wakes_it() -> None:
    class Late(Selector):
        def select(self, timeout: float | None = None) -> Any:
            if timeout is None:  # nothing is ready, and no timer due: the loop has made up its mind
                thread = threading.Thread(target=loop.call_soon_threadsafe, args=(loop.stop,))
                thread.start()
                thread.join()
            return super().select(timeout)

    loop = EventLoop(Late())
    loop.run_forever()
    loop.close()


def test_calls_from_threads_write_to_the_loop_only_when_it_may_sleep() -> None:
    written: list[None] = []

    class Counted:
        def send(self, _: bytes) -> None:
            written.append(None)

        def close(self) -> None:
            own.close()

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        for _ in range(100):
            loop.call_soon_threadsafe(int)

    loop: Any = EventLoop()
    own, loop._csock = loop._csock, Counted()
    loop.run_until_complete(main())
    assert written == []
    loop.call_soon_threadsafe(int)
    assert written == [None]
    loop.close()


def test_who_is_interrupted_while_it_wakes_the_loop_wakes_it_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    wake = asyncio.SelectorEventLoop._write_to_self  # type: ignore[attr-defined]
    interrupted: list[bool] = []

    def interrupt(loop: Any) -> None:
        if not interrupted:
            interrupted.append(True)
            loop.call_soon_threadsafe(loop.stop)  # another thread, which sees that somebody is about to wake it
            raise KeyboardInterrupt
        wake(loop)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "_write_to_self", interrupt)
    loop: Any = EventLoop()
    with pytest.raises(KeyboardInterrupt):
        loop.call_soon_threadsafe(int)
    assert loop._ssock.recv(1)
    loop.run_forever()
    loop.close()


def test_a_cancelled_timer_that_falls_due_behind_another_is_not_counted_twice() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        loop.call_later(0.001, int)
        for _ in range(3):
            loop.call_later(0.002, int).cancel()
        time.sleep(0.005)
        await asyncio.sleep(0.001)
        return loop.statistics().timers  # type: ignore[attr-defined, no-any-return]

    assert run_here(main) == 0


@pytest.mark.parametrize("bytes_written", [1, 5000])
def test_what_wakes_the_loop_is_read_until_nothing_is_left(bytes_written: int) -> None:
    loop: Any = EventLoop()
    loop._csock.send(bytes(bytes_written))
    for _ in range(3):
        loop.run_until_complete(asyncio.sleep(0))

    with pytest.raises(BlockingIOError):
        loop._ssock.recv(1)
    loop.close()


# ------------------------------------------------------------------------------------------- the loop of a worker


@pytest.fixture
def loop_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Of several, on a free-threaded Python, as far as it can tell."""
    monkeypatch.setattr(_loop, "has_gil", lambda: False)
    loop: Any = EventLoop()
    monkeypatch.setattr(loop, "_yamanote_worker", object())
    yield loop
    loop.close()


def test_a_worker_that_lingers_sees_what_comes_without_being_woken(
    loop_of_a_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, written = loop_of_a_worker, []
    monkeypatch.setattr(asyncio.SelectorEventLoop, "_write_to_self", lambda self: written.append(self))
    monkeypatch.setattr(_loop, "_give_core_away", lambda: loop.call_soon_threadsafe(int))

    assert loop._linger(loop.time() + 3600)
    assert written == []
    loop.call_soon_threadsafe(int)
    assert written == [loop]  # from then on it may sleep


def test_who_lingers_goes_to_sleep_when_its_time_is_over_also_on_a_clock_that_stands_still(
    loop_of_a_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, looks = loop_of_a_worker, []
    monkeypatch.setattr(_loop, "_give_core_away", lambda: looks.append(None))

    assert not loop._linger(loop.time())
    assert looks == []
    monkeypatch.setattr(loop, "time", lambda: 0.0)
    assert not loop._linger(1.0)
    assert len(looks) == _MOST


def test_an_interruption_of_who_lingers_leaves_it_to_be_woken(
    loop_of_a_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_loop, "_give_core_away", interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop_of_a_worker._linger(loop_of_a_worker.time() + 3600)
    assert not loop_of_a_worker._is_awake


@pytest.mark.parametrize("seconds", [0.0001, 0.01], ids=["soon", "late"])
def test_only_who_was_woken_soon_by_another_worker_lingers_the_next_time(
    loop_of_a_worker: Any, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    loop = loop_of_a_worker
    now = 0.0

    def select(timeout: float | None) -> list[Any]:
        nonlocal now
        now += seconds
        if timeout is None:
            loop.call_soon_threadsafe(int)
        return []

    monkeypatch.setattr(loop, "time", lambda: now)
    monkeypatch.setattr(loop._selector, "select", select)
    loop._poll()
    assert loop._lingers == (seconds < 0.0002)
    loop._ready.clear()
    loop.call_later(1, int)
    loop._poll()
    assert not loop._lingers  # nobody has woken it


def test_two_workers_that_answer_each_other_lose_no_wake_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they linger or sleep, and in between."""
    monkeypatch.setattr(_loop, "has_gil", lambda: False)
    monkeypatch.setattr(_loop, "_LINGER", 0.00001)
    monkeypatch.setattr(_loop, "_SOON", 1.0)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    rounds: list[int] = []

    async def main() -> None:
        (to_first, at_first), (to_second, at_second) = channel(), channel()

        async def answer(mine: Any, other: Any) -> None:
            for _ in range(300):
                await mine()
                other()

        first = spawn(answer(at_first, to_second), on=0)
        second = spawn(answer(at_second, to_first), on=1)
        to_first()
        await first
        await second
        rounds.append(1)

    def channel() -> tuple[Any, Any]:
        waiting: list[Any] = []
        lock = threading.Lock()
        sent: list[None] = []

        def send() -> None:
            with lock:
                if not waiting:
                    sent.append(None)
                    return
                future = waiting.pop()
            future.get_loop().call_soon_threadsafe(future.set_result, None)

        async def receive() -> None:
            future = asyncio.get_running_loop().create_future()
            with lock:
                if sent:
                    sent.pop()
                    return
                waiting.append(future)
            await future

        return send, receive

    try:
        run(main(), workers=2)
    finally:
        sys.setswitchinterval(before)
    assert rounds == [1]


def test_a_task_that_never_waits_does_not_keep_threads_from_running() -> None:
    async def main() -> bool:
        def work() -> None:
            for _ in range(100):
                time.sleep(0)  # lets go of the interpreter lock, and has to get it back

        thread = threading.Thread(target=work)
        thread.start()
        try:
            return await yields_until(lambda: not thread.is_alive())
        finally:
            thread.join()

    assert run_here(main)


def test_calls_from_threads_run_once_each_and_in_order() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        called: list[tuple[int, int]] = []

        def call(caller: int) -> None:
            for number in range(1000):
                loop.call_soon_threadsafe(called.append, (caller, number))

        threads = [threading.Thread(target=call, args=(caller,)) for caller in range(3)]
        for thread in threads:
            thread.start()
        assert await yields_until(lambda: len(called) == 3000)
        for thread in threads:
            thread.join()
        for caller in range(3):
            assert list(range(1000)) == [number for name, number in called if name == caller]

    run_here(main)


# ------------------------------------------------------------------------------------------- handles


def test_a_callback_that_was_cancelled_does_not_run() -> None:
    ran: list[str] = []
    reports: list[object] = []
    loop = EventLoop()
    loop.set_exception_handler(lambda _, report: reports.append(report))
    handles = [loop.call_soon(ran.append, "soon"), loop.call_soon_threadsafe(ran.append, "threadsafe")]
    handles.append(loop.call_later(0, ran.append, "later"))
    context = contextvars.copy_context()
    handles.append(loop.call_soon(ran.append, "in a context", context=context))
    kept = {"kept"}
    handles.append(loop.call_soon(kept.discard, "kept"))
    for handle in handles:
        assert isinstance(handle, Handle)
        handle.cancel()
        assert handle.cancelled()
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()

    assert ran == reports == []
    assert kept == {"kept"}


def test_a_built_in_method_of_a_task_can_be_cancelled_too() -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel, context=contextvars.copy_context()).cancel()
        asyncio.get_running_loop().call_soon(task.set_name, "other", context=contextvars.copy_context()).cancel()
        await turns(3)
        assert task.get_name() != "other"

    run_here(main)


@each_start
def test_steps_and_wake_ups_of_tasks_take_no_handle(factory: Any) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        future = loop.create_future()

        async def wait() -> None:
            await future

        yielding, waiting = loop.create_task(turns(2)), loop.create_task(wait())
        await asyncio.sleep(0)
        future.set_result(None)
        loop.call_soon(print)
        assert [yielding, waiting] == [task_of(entry) for entry in loop._ready if isinstance(entry, tuple)]
        handles = [handle_of(entry, loop) for entry in loop._ready]
        assert [yielding, waiting, None] == [task_of(handle) for handle in handles]
        assert [(), (future,), ()] == [handle._args for handle in handles]
        loop._ready.pop()

    run_here(main)


def test_spawning_and_joining_take_no_handle() -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()

        async def join() -> int:
            return await working

        working = spawn(asyncio.sleep(0, 42))
        joining = spawn(join())
        entries = list(loop._ready)
        while not joining.is_finished():
            await asyncio.sleep(0)
            entries += loop._ready
        assert 42 == await joining
        assert [] == [entry for entry in entries if isinstance(entry, Handle)]

    run_here(main)


def test_a_step_runs_in_the_context_of_its_task() -> None:
    number: contextvars.ContextVar[int] = contextvars.ContextVar("number")

    async def main() -> None:
        async def work(value: int) -> None:
            number.set(value)
            await asyncio.sleep(0)
            assert number.get() == value
            await asyncio.get_running_loop().run_in_executor(None, int)
            assert number.get() == value

        number.set(-1)
        await asyncio.gather(*map(work, range(5)))
        assert number.get() == -1

    run_here(main)


@pytest.mark.skipif(STEP.__name__ != "TaskStepMethWrapper", reason="asyncio has no C tasks here")
def test_tasks_in_python_work_and_keep_their_handles() -> None:
    async def main() -> int:
        loop: Any = asyncio.get_running_loop()

        async def work() -> int:
            await asyncio.sleep(0)
            await asyncio.sleep(0.0001)
            return 42

        task = asyncio.tasks._PyTask(work(), loop=loop)
        assert all(isinstance(entry, Handle) for entry in loop._ready)
        assert task_of(loop._ready[-1]) is None or task_of(loop._ready[-1]) is task
        return await task

    assert 42 == run_here(main)


def test_a_step_that_asyncio_refuses_is_reported_and_the_others_run() -> None:
    async def main() -> list[dict[str, Any]]:
        loop: Any = asyncio.get_running_loop()
        reports: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, report: reports.append(report))
        task = loop.create_task(turns(1))
        step = loop._ready[-1]
        step[0].run(loop.call_soon, *step[1:2], context=step[0])  # the same step once more: it is over when it comes
        loop.call_soon(loop.call_soon, int)
        await asyncio.wait([task])
        await turns(3)
        return reports

    (report,) = run_here(main)
    assert "Exception in callback" in report["message"]
    assert isinstance(report["exception"], asyncio.InvalidStateError)
    assert isinstance(report["handle"], Handle)


def test_the_error_of_a_task_is_no_reference_cycle() -> None:
    class Error(Exception):
        pass

    async def fail() -> None:
        await asyncio.sleep(0)
        raise Error

    async def main() -> None:
        task = asyncio.ensure_future(fail())
        with pytest.raises(Error):
            await task
        error = weakref.ref(task.exception())
        del task
        await asyncio.sleep(0.0001)
        assert error() is None

    gc.collect()
    gc.disable()
    try:
        run_here(main)
    finally:
        gc.enable()


def test_callbacks_may_take_others_out_of_the_queue() -> None:
    loop: Any = EventLoop()
    ran: list[str] = []

    def empty() -> None:
        loop._ready.clear()
        loop.call_later(0.0001, loop.stop)

    loop.call_soon(empty)
    loop.call_soon(ran.append, "never")
    loop.run_forever()
    loop.close()

    assert ran == []


# ------------------------------------------------------------------------------------------- all that asyncio offers


def test_a_closed_loop_refuses_callbacks_timers_and_tasks() -> None:
    loop = EventLoop()
    loop.close()
    loop.close()
    work = turns(1)
    for call in (lambda: loop.call_soon(int), lambda: loop.call_later(1, int), lambda: loop.create_task(work)):
        with pytest.raises(RuntimeError, match="closed"):
            call()
    work.close()
    assert loop.statistics().ready == 0


def test_a_timer_needs_a_time() -> None:
    loop = EventLoop()
    for call in (loop.call_at, loop.call_later):
        with pytest.raises(TypeError, match="None"):
            call(None, int)  # type: ignore[arg-type]
    loop.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_comes_out_of_callbacks_and_of_tasks(error: type[BaseException]) -> None:
    def fail() -> None:
        raise error

    async def main() -> None:
        fail()

    ran: list[int] = []
    loop = EventLoop()
    loop.call_soon(fail)
    loop.call_soon(ran.append, 1)
    with pytest.raises(error):
        loop.run_forever()
    assert ran == []
    with pytest.raises(error):
        loop.run_until_complete(main())
    assert ran == [1]
    assert 42 == loop.run_until_complete(asyncio.sleep(0, 42))
    loop.close()


def test_an_error_in_a_callback_goes_to_the_handler_of_the_loop_and_the_others_run() -> None:
    async def main() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        reports: list[object] = []
        ran: list[None] = []
        loop.set_exception_handler(lambda _, report: reports.append(report))
        loop.call_soon(lambda: 1 // 0)
        loop.call_soon(ran.append, None)
        await asyncio.sleep(0)
        return len(reports), len(ran)

    assert (1, 1) == run_here(main)


def test_debug_mode_warns_of_slow_callbacks_and_of_calls_from_other_threads(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 0
        await asyncio.sleep(0)
        loop.slow_callback_duration = 10
        with pytest.raises(RuntimeError, match="Non-thread-safe"):
            await loop.run_in_executor(None, loop.call_soon, int)
        with pytest.raises(RuntimeError, match="Non-thread-safe"):
            await loop.run_in_executor(None, loop.call_later, 1, int)
        with pytest.raises(TypeError, match="coroutines cannot be used"):
            loop.call_later(1, turns, 1)

    run(main(), loop_factory=EventLoop, debug=True)

    assert any(record.message.startswith("Executing <Task") for record in caplog.records)


def test_in_debug_mode_handles_and_timers_know_who_made_them() -> None:
    loop: Any = EventLoop()
    loop.set_debug(True)
    handles = [loop.call_soon(int), loop.call_later(1, int), loop.call_at(1, int), loop.call_soon_threadsafe(int)]
    loop.close()

    assert [__name__.split(".")[-1] in handle._source_traceback[-1].filename for handle in handles] == [True] * 4


@each_start
def test_debug_mode_can_be_switched_on_and_off_while_the_loop_runs(factory: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        order: list[int] = []

        async def work(number: int) -> None:
            for _ in range(10):
                order.append(number)
                await asyncio.sleep(0)

        tasks = [loop.create_task(work(number)) for number in range(3)]
        for number in range(6):
            loop.set_debug(number % 2 == 0)
            loop.call_later(0, int)  # so that it polls after this turn, and takes the other path
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2] * 10

    run_here(main)


@pytest.mark.parametrize("debug", [False, True])
def test_timers_that_are_cancelled_when_they_fall_due_are_counted_once(debug: bool) -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, EventLoop)
        for _ in range(10):
            # Those that stand behind one that is due are taken out with it, not as ones that were cancelled.
            timers = [loop.call_later(5, int) for _ in range(10)]
            for timer in timers[1:]:
                timer.cancel()
            await asyncio.sleep(5)
        loop.call_later(3600, int)
        return loop.statistics().timers

    assert run(main(), clock=VirtualClock(), debug=debug) == 1


def test_streams_subprocesses_executors_and_generators_work() -> None:
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.readline()).upper())
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello\n")
            assert await reader.read() == b"HELLO\n"
            writer.close()
            await writer.wait_closed()

        if sys.platform != "win32":  # asyncio's selector loop has no subprocesses there
            command = [sys.executable, "-c", "print(input()[::-1])"]
            process = await asyncio.create_subprocess_exec(*command, stdin=-1, stdout=-1)
            assert (await process.communicate(b"abc\n"))[0].strip() == b"cba"
        assert await asyncio.to_thread(sum, (1, 2)) == 3

        async def numbers() -> Any:
            try:
                yield 1
            finally:
                closed.append(None)

        generator = numbers()
        assert await anext(generator) == 1
        left.append(generator)

    closed: list[None] = []
    left: list[object] = []
    run_here(main)
    assert closed == [None]


def test_the_loop_of_a_runner_and_of_a_thread() -> None:
    with asyncio.Runner(loop_factory=EventLoop) as runner:
        assert isinstance(runner.get_loop(), EventLoop)
        assert runner.run(asyncio.sleep(0, 1)) == runner.run(asyncio.sleep(0.0001, 1)) == 1

    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(run_here(lambda: asyncio.sleep(0.0001, 2))))
    thread.start()
    thread.join()
    assert results == [2]


def test_spawned_tasks_run_on_it() -> None:
    async def main() -> list[int]:
        return await spawn(*(asyncio.sleep(0, number) for number in range(3)))

    assert [0, 1, 2] == run_here(main)


# ------------------------------------------------------------------------------------------- a virtual clock


def on_virtual_clock(main: Callable[[VirtualClock], Coroutine[Any, Any, Any]], **options: Any) -> Any:
    loop = EventLoop()
    with VirtualClock(**options).patch_loop(loop) as clock:
        return run(main(clock), loop_factory=lambda: loop)


def test_a_virtual_clock_jumps_to_the_next_timer() -> None:
    async def main(clock: VirtualClock) -> float:
        await asyncio.gather(*(asyncio.sleep(3600 * hours) for hours in range(24)))
        return clock.virtual_time()

    assert on_virtual_clock(main) == 23 * 3600


def test_a_virtual_clock_stands_still_while_a_thread_works() -> None:
    async def main(clock: VirtualClock) -> float:
        async with asyncio.timeout(0.001):
            await asyncio.to_thread(time.sleep, 0.02)
        return clock.virtual_time()

    assert on_virtual_clock(main) == 0


def test_a_virtual_clock_can_be_advanced_by_hand() -> None:
    async def main(clock: VirtualClock) -> None:
        fired: list[int] = []
        for delay in (3, 1, 2, 9):
            asyncio.get_running_loop().call_later(delay, fired.append, delay)
        await clock.advance(5)
        assert fired == [1, 2, 3]

    on_virtual_clock(main, autojump=False)


def test_a_virtual_clock_finds_a_dead_lock() -> None:
    async def main(clock: VirtualClock) -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(DeadlockError):
        on_virtual_clock(main)


def test_a_virtual_clock_can_be_put_on_and_taken_off_while_the_loop_runs() -> None:
    async def main() -> None:
        for _ in range(2):
            with VirtualClock().patch_loop() as clock:
                await asyncio.sleep(3600)
                assert clock.virtual_time() == 3600
        await asyncio.sleep(0.0001)

    run_here(main)


def test_an_open_connection_delivers_although_a_task_yields_and_the_clock_stands_still() -> None:
    async def main(clock: VirtualClock) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            reading = start_task(asyncio.get_running_loop().sock_recv(ours, 10))
            await asyncio.sleep(0)
            theirs.send(b"hello")
            for _ in range(3 * _MOST):
                await asyncio.sleep(0)
            assert reading.done()

    on_virtual_clock(main)


# ------------------------------------------------------------------------------------------- statistics


def test_the_statistics_count_turns_polls_and_steps() -> None:
    with in_slow_motion() as (loop, selector):
        for _ in range(5):
            loop.call_soon(loop.call_soon, int)
        loop.call_later(1, loop.stop)
        loop.call_later(2, int).cancel()
        loop.call_later(3, int)
        loop.run_forever()
        loop.call_soon(int)
        statistics = loop.statistics()

    assert statistics == LoopStatistics(
        turns=3, polls=selector.polls, steps=11, busy=0.0, slow=0, ready=1, timers=2 - 1
    )


def test_the_statistics_tell_busy_from_idle_and_who_was_slow() -> None:
    with in_slow_motion() as (loop, selector):

        def work(seconds: float) -> None:
            selector.now += seconds

        for start, seconds in ((1, 0.5), (10, 0.0625), (20, 0.25)):
            loop.call_later(start, work, seconds)
        for _ in range(32):
            loop.call_soon(work, 2.0**-17)
        loop.call_later(30, loop.stop)
        loop.run_forever()
        selector.now += 100  # the loop does not run now
        loop.call_soon(loop.stop)
        loop.run_forever()
        statistics = loop.statistics()

    assert statistics.busy == 0.8125 + 2.0**-12
    assert statistics.slow == 2


def test_the_statistics_can_be_read_from_a_thread_while_the_loop_runs() -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        before = loop.statistics()
        reading = loop.run_in_executor(None, loop.statistics)
        await turns(5000)
        assert before.steps <= (await reading).steps <= loop.statistics().steps
        assert loop.statistics().polls > before.polls

    run_here(main)


def test_the_loop_is_a_selector_loop_of_the_platform() -> None:
    loop: AbstractEventLoop = EventLoop(selectors.SelectSelector())
    assert isinstance(loop, asyncio.SelectorEventLoop)
    assert "EventLoop" in repr(loop)
    assert not loop.is_running()
    loop.close()
    assert loop.is_closed()
