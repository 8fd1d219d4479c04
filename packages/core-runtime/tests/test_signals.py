from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from yamanote.runtime import (
    CancelScope,
    SignalListener,
    handle_signal,
    run,
    signals,
    spawn,
    spawn_blocking,
    wait_for_signal,
    yield_now,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals of one's own")

if sys.platform != "win32":
    from signal import SIGHUP, SIGINT, SIGKILL, SIGSTOP, SIGTERM, SIGUSR1, SIGUSR2, raise_signal


@pytest.fixture(autouse=True)
def everything_is_given_back() -> Iterator[None]:
    before = {signum: signal.getsignal(signum) for signum in (SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2)}
    yield
    assert {signum: signal.getsignal(signum) for signum in before} == before


async def turns(number: int = 3) -> None:
    for _ in range(number):
        await yield_now()


# ---------------------------------------------------------------- listeners


async def test_each_arrival_is_yielded_as_the_signal_that_it_is() -> None:
    with signals(SIGUSR1, SIGUSR2) as arrived:
        for signum in (SIGUSR2, SIGUSR1):
            raise_signal(signum)
            received = await anext(arrived)
            assert received is signum and type(received) is signal.Signals


def test_real_signals_wake_the_loop_of_run_from_its_sleep() -> None:
    async def main() -> None:
        with signals(SIGUSR1) as arrived:
            for _ in range(3):
                asyncio.get_running_loop().call_later(0.001, os.kill, os.getpid(), SIGUSR1)
                assert await anext(arrived) is SIGUSR1

    run(main())


async def test_it_listens_from_the_call_on() -> None:
    arrived = signals(SIGUSR1)
    raise_signal(SIGUSR1)
    await turns()
    assert await anext(arrived) is SIGUSR1
    arrived.close()


async def test_a_slow_listener_sees_each_signal_once_in_the_order_of_their_first_arrivals() -> None:
    with signals(SIGUSR1, SIGUSR2) as arrived:
        for signum in (SIGUSR2, SIGUSR1, SIGUSR2, SIGUSR2, SIGUSR1):
            raise_signal(signum)
            await turns()
        assert [await anext(arrived), await anext(arrived)] == [SIGUSR2, SIGUSR1]
        waiting = spawn(anext(arrived))
        await turns()
        assert not waiting.is_finished()
        raise_signal(SIGUSR2)
        assert await waiting is SIGUSR2


async def test_every_listener_gets_every_arrival() -> None:
    with signals(SIGUSR1) as one, signals(SIGUSR1, SIGUSR2) as two:
        raise_signal(SIGUSR1)
        assert [await anext(one), await anext(two)] == [SIGUSR1, SIGUSR1]
        raise_signal(SIGUSR2)
        assert await anext(two) is SIGUSR2
        raise_signal(SIGUSR1)
        assert [await anext(two), await anext(one)] == [SIGUSR1, SIGUSR1]


async def test_of_several_tasks_that_wait_each_gets_one_arrival_first_in_first_out() -> None:
    with signals(SIGUSR1) as arrived:
        first, second = spawn(anext(arrived)), spawn(anext(arrived))
        await turns()
        raise_signal(SIGUSR1)
        assert await first is SIGUSR1
        await turns()
        assert not second.is_finished()
        raise_signal(SIGUSR1)
        assert await second is SIGUSR1


async def test_what_was_handed_to_a_call_that_is_cancelled_comes_first_again() -> None:
    with signals(SIGUSR1, SIGUSR2) as arrived:
        task = asyncio.ensure_future(anext(arrived))
        await turns()
        for signum in (SIGUSR1, SIGUSR2):
            raise_signal(signum)
        asyncio.get_running_loop().call_soon(task.cancel)  # when it has been handed the first, and has not run yet
        await asyncio.wait([task])
        assert task.cancelled()
        assert [await anext(arrived), await anext(arrived)] == [SIGUSR1, SIGUSR2]


async def test_the_last_listener_gives_the_signal_back_to_whoever_had_it() -> None:
    log: list[int] = []
    before = signal.signal(SIGUSR1, lambda signum, _: log.append(signum))
    try:
        one, two = signals(SIGUSR1), signals(SIGUSR1)
        one.close()
        raise_signal(SIGUSR1)
        assert await anext(two) is SIGUSR1 and log == []
        await two.aclose()
        raise_signal(SIGUSR1)
        assert log == [SIGUSR1]
    finally:
        signal.signal(SIGUSR1, before)


async def test_a_handler_of_the_loop_goes_on_and_is_there_afterwards() -> None:
    log: list[int] = []
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(SIGUSR1, log.append, 1)
    try:
        with signals(SIGUSR1) as arrived:
            os.kill(os.getpid(), SIGUSR1)
            assert await anext(arrived) is SIGUSR1
            await asyncio.sleep(0.001)
            assert log == [1]
        os.kill(os.getpid(), SIGUSR1)
        await asyncio.sleep(0.001)
        assert log == [1, 1]
    finally:
        loop.remove_signal_handler(SIGUSR1)


async def test_a_handler_that_somebody_sets_meanwhile_stays() -> None:
    def newer(*_: object) -> None: ...

    before = signal.getsignal(SIGUSR1)
    try:
        with signals(SIGUSR1):
            signal.signal(SIGUSR1, newer)
        assert signal.getsignal(SIGUSR1) is newer
    finally:
        signal.signal(SIGUSR1, before)


async def test_what_arrives_when_the_last_listener_leaves_goes_to_whoever_has_the_signal_then() -> None:
    log: list[int] = []
    before = signal.signal(SIGUSR1, lambda signum, _: log.append(signum))
    try:
        with signals(SIGUSR1):
            raise_signal(SIGUSR1)  # on its way, when the block ends
        assert log == [SIGUSR1]
        await turns()
        assert log == [SIGUSR1]
    finally:
        signal.signal(SIGUSR1, before)


async def test_closing_ends_the_iteration_for_all_who_wait_and_may_be_repeated() -> None:
    arrived = signals(SIGUSR1)

    async def listen() -> list[signal.Signals]:
        return [signum async for signum in arrived]

    waiting = spawn(listen()), spawn(listen())
    await turns()
    raise_signal(SIGUSR1)
    await turns()
    arrived.close()
    arrived.close()
    await arrived.aclose()
    assert sorted([await task for task in waiting]) == [[], [SIGUSR1]]
    with pytest.raises(StopAsyncIteration):
        await anext(arrived)
    assert "closed SIGUSR1" in repr(arrived)


async def test_it_is_an_asynchronous_context_manager_too() -> None:
    async with signals(SIGUSR1) as arrived:
        assert "listening SIGUSR1" in repr(arrived)


async def test_a_listener_that_was_forgotten_is_closed_with_a_warning() -> None:
    with pytest.warns(ResourceWarning, match="SignalListener listening SIGUSR1> was never closed"):
        signals(SIGUSR1)
        gc.collect()


async def test_another_thread_may_close_it() -> None:
    arrived = signals(SIGUSR1)
    waiting = spawn(anext(arrived))
    await turns()
    await spawn_blocking(arrived.close)
    with pytest.raises(StopAsyncIteration):
        await waiting
    await turns()


async def test_what_is_no_signal_is_refused_by_name_and_nothing_is_taken() -> None:
    before = signal.getsignal(SIGUSR1)
    for call in (signals, handle_signal):
        for wrong, message in (
            ((SIGUSR1, SIGKILL), "signums.*SIGKILL cannot"),
            ((SIGUSR1, SIGSTOP), "signums.*SIGSTOP cannot"),
            ((SIGUSR1, 12345), "signums.*12345"),
            ((), "at least one signal"),
        ):
            with pytest.raises(ValueError, match=message):
                call(*wrong)
        for nonsense in ("SIGUSR1", True, None):
            with pytest.raises(TypeError, match="signums"):
                call(SIGUSR1, nonsense)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one signal"):
        await wait_for_signal()
    assert signal.getsignal(SIGUSR1) is before


async def test_when_one_signal_cannot_be_taken_the_others_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    take = signal.signal

    def refuse(signum: int, handler: Any) -> Any:
        if signum == SIGUSR2:
            raise OSError(22, "Invalid argument")
        return take(signum, handler)

    monkeypatch.setattr(signal, "signal", refuse)
    for enter in (lambda: signals(SIGUSR1, SIGUSR2), lambda: handle_signal(SIGUSR1, SIGUSR2).__enter__()):
        with pytest.raises(ValueError, match="SIGUSR2 cannot"):
            enter()
        assert signal.getsignal(SIGUSR1) is signal.SIG_DFL


async def test_other_threads_and_places_without_a_loop_are_refused() -> None:
    async def in_another() -> None:
        with pytest.raises(RuntimeError, match="main thread"):
            signals(SIGUSR1)
        with pytest.raises(RuntimeError, match="main thread"):
            await wait_for_signal(SIGUSR1)
        with pytest.raises(RuntimeError, match="main thread"):
            with handle_signal(SIGUSR1):
                pass

    def without() -> None:
        with pytest.raises(RuntimeError, match="needs a running event loop"):
            signals(SIGUSR1)

    await spawn_blocking(run, in_another())
    await spawn_blocking(without)


# ---------------------------------------------------------------- wait_for_signal


async def test_waiting_for_a_signal_tells_which() -> None:
    waiting = spawn(wait_for_signal(SIGUSR1, SIGUSR2))
    await turns()
    raise_signal(SIGUSR2)
    assert await waiting is SIGUSR2


async def test_a_wait_that_is_cancelled_gives_the_signal_back() -> None:
    task = asyncio.ensure_future(wait_for_signal(SIGUSR1))
    await turns()
    assert signal.getsignal(SIGUSR1) is not signal.SIG_DFL
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert signal.getsignal(SIGUSR1) is signal.SIG_DFL


# ---------------------------------------------------------------- handle_signal


async def test_a_signal_cancels_the_block_and_the_scope_says_which() -> None:
    log: list[str] = []
    task = asyncio.current_task()
    assert task is not None
    with handle_signal(SIGUSR1, SIGUSR2) as scope:
        try:
            raise_signal(SIGUSR2)
            await asyncio.sleep(3600)
        finally:
            await yield_now()
            log.append("cleaned up")
    assert scope.signal is SIGUSR2 and log == ["cleaned up"]
    assert task.cancelling() == 0


async def test_a_block_without_a_signal_just_ends() -> None:
    with handle_signal(SIGUSR1) as scope:
        await yield_now()
    assert scope.signal is None


async def test_further_signals_do_nothing_until_the_block_has_ended() -> None:
    with handle_signal(SIGUSR1, SIGUSR2) as scope:
        try:
            raise_signal(SIGUSR1)
            await asyncio.sleep(3600)
        finally:
            for signum in (SIGUSR1, SIGUSR2):
                raise_signal(signum)
                await turns()
    assert scope.signal is SIGUSR1


async def test_errors_and_other_cancellations_go_through_the_block() -> None:
    with pytest.raises(LookupError):
        with handle_signal(SIGUSR1):
            raise LookupError
    with CancelScope() as outer:
        with handle_signal(SIGUSR1) as inner:
            outer.cancel()
            await asyncio.sleep(3600)
    assert outer.cancelled_caught and inner.signal is None


async def test_a_signal_that_comes_with_the_end_of_the_block_is_not_lost() -> None:
    log: list[int] = []
    before = signal.signal(SIGUSR1, lambda signum, _: log.append(signum))
    try:
        with handle_signal(SIGUSR1) as scope:
            raise_signal(SIGUSR1)
        assert scope.signal is None and log == [SIGUSR1]
    finally:
        signal.signal(SIGUSR1, before)
    await turns()


async def test_a_scope_is_entered_once() -> None:
    scope = handle_signal(SIGUSR1)
    with scope:
        pass
    with pytest.raises(RuntimeError, match="only once"):
        with scope:
            pass


# ---------------------------------------------------------------- with run


def test_a_listener_takes_ctrl_c_over_and_run_has_it_back_afterwards() -> None:
    async def main() -> None:
        with signals(SIGINT) as arrived:
            for _ in range(3):
                raise_signal(SIGINT)
                assert await anext(arrived) is SIGINT
        raise_signal(SIGINT)
        await asyncio.sleep(3600)

    with pytest.raises(KeyboardInterrupt):
        run(main())


def test_a_listener_takes_a_stop_signal_over() -> None:
    async def main() -> str:
        raise_signal(SIGTERM)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(3600)
        with handle_signal(SIGTERM) as scope:
            raise_signal(SIGTERM)
            await asyncio.sleep(3600)
        assert scope.signal is SIGTERM
        return "value"

    assert run(main(), stop_signals=[SIGTERM]) == "value"


def test_a_listener_that_outlives_its_loop_gives_the_signal_back() -> None:
    listeners: list[SignalListener] = []

    async def main() -> None:
        listeners.append(signals(SIGUSR1))

    run(main())
    assert signal.getsignal(SIGUSR1) is signal.SIG_DFL
    listeners.pop().close()
    with pytest.warns(ResourceWarning):
        run(main())
        listeners.clear()
        gc.collect()


def test_a_signal_for_a_loop_that_somebody_else_has_closed_goes_to_whoever_had_it_before() -> None:
    log: list[int] = []
    listeners: list[SignalListener] = []

    async def main() -> None:
        listeners.append(signals(SIGUSR1))

    before = signal.signal(SIGUSR1, lambda signum, _: log.append(signum))
    try:
        asyncio.run(main())
        raise_signal(SIGUSR1)
        assert log == [SIGUSR1]
        raise_signal(SIGUSR1)
        assert log == [SIGUSR1, SIGUSR1]
        listeners.pop().close()
    finally:
        signal.signal(SIGUSR1, before)


def test_it_works_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        with signals(SIGUSR1) as arrived:
            for _ in range(3):
                asyncio.get_running_loop().call_later(0.001, os.kill, os.getpid(), SIGUSR1)
                assert await anext(arrived) is SIGUSR1
        with handle_signal(SIGTERM) as scope:
            os.kill(os.getpid(), SIGTERM)
            await asyncio.sleep(3600)
        assert scope.signal is SIGTERM

    run(main(), loop_factory=uvloop.new_event_loop)


def test_a_program_serves_until_it_is_told_to_stop() -> None:
    program = """
import asyncio, signal
from yamanote.runtime import handle_signal, run, signals, spawn

async def reload():
    with signals(signal.SIGHUP) as arrived:
        print("ready", flush=True)
        async for signum in arrived:
            print(signum.name, flush=True)

async def main():
    with handle_signal(signal.SIGTERM, signal.SIGINT) as scope:
        reloading = spawn(reload())
        await asyncio.sleep(3600)
    reloading.abort()
    print(scope.signal.name, flush=True)

run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            for _ in range(2):
                process.send_signal(SIGHUP)
                assert process.stdout.readline() == "SIGHUP\n"
            process.send_signal(SIGTERM)
            assert process.stdout.readline() == "SIGTERM\n"
            assert process.wait(10) == 0
        finally:
            process.kill()
