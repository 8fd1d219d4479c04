"""`Portal`: an event loop that other threads can call."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from yamanote.runtime import JoinError, JoinHandle, run, yield_now
from yamanote.testing import explore, explore_cancellations
from yamanote.threads import Portal, ThreadTaskGroup, from_thread, run_in_thread_loop, to_thread

pytestmark = pytest.mark.usefixtures("nothing_left_over")

place: ContextVar[str] = ContextVar("place", default="nowhere")


async def double(number: int) -> int:
    await yield_now()
    return number * 2


async def fail() -> None:
    await yield_now()
    raise LookupError("lost")


async def for_ever() -> None:
    await asyncio.Event().wait()


# ---------------------------------------------------------------- calling


async def test_a_thread_calls_async_and_plain_functions_on_the_running_loop() -> None:
    async def where() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async with Portal() as portal:
        assert await to_thread(portal.call, double, 2) == 4
        assert await to_thread(portal.call, where) is asyncio.get_running_loop()
        assert await to_thread(portal.call, asyncio.get_running_loop) is asyncio.get_running_loop()
        assert await to_thread(lambda: portal.call(int, "11", base=2)) == 3


def test_a_plain_program_starts_a_loop_in_a_thread_of_its_own() -> None:
    async def where() -> str:
        return threading.current_thread().name

    with Portal(name="aside") as portal:
        assert portal.call(where) == "aside"
        assert portal.call(double, 2) == 4
        first, second = portal.call(asyncio.get_running_loop), portal.call(asyncio.get_running_loop)
    assert first is second
    assert first.is_closed()


@pytest.mark.parametrize("value", [None, 0, "", ValueError("a value, not an error")])
def test_values_that_look_like_none_or_errors_are_values(value: object) -> None:
    async def give() -> object:
        await yield_now()
        return value

    with Portal() as portal:
        assert portal.call(give) is value
        assert portal.call(lambda: value) is value


def test_a_call_raises_what_the_function_raises_and_the_portal_stays_open() -> None:
    def fail_at_once() -> None:
        raise LookupError("at once")

    async def fail_in_its_first_step() -> None:
        raise LookupError("in its first step")

    with Portal() as portal:
        for function in (fail, fail_at_once, fail_in_its_first_step):
            with pytest.raises(LookupError):
                portal.call(function)
        assert portal.call(double, 1) == 2


def test_a_call_that_is_cancelled_by_itself_is_a_join_error() -> None:
    async def cancel_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await yield_now()

    with Portal() as portal:
        with pytest.raises(JoinError, match="cancel_itself"):
            portal.call(cancel_itself)


def test_calls_see_the_variables_of_the_calling_thread() -> None:
    async def visit() -> str:
        before = place.get()
        place.set("away")
        return before

    with Portal() as portal:
        place.set("home")
        assert portal.call(visit) == "home"
        assert portal.call(place.get) == "home"
        assert portal.spawn(visit()).result() == "home"
        assert place.get() == "home"


@pytest.mark.usefixtures("switching_often")
def test_many_threads_at_once_get_their_own_results() -> None:
    results: dict[int, list[int]] = {}

    def work(portal: Portal, number: int) -> None:
        results[number] = [portal.call(double, number + each) for each in range(20)]

    with Portal() as portal:
        threads = [threading.Thread(target=work, args=(portal, 1000 * number)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {1000 * n: [2 * (1000 * n + each) for each in range(20)] for n in range(6)}


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals that wake a thread")
def test_a_keyboard_interrupt_cancels_the_call(stage: Any) -> None:
    main = threading.get_ident()

    def interrupt() -> None:
        stage.running.wait()
        signal.pthread_kill(main, signal.SIGINT)

    with Portal() as portal:
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            portal.call(stage.run)
        thread.join()
    assert stage.ended


# ---------------------------------------------------------------- spawning


async def test_what_is_spawned_has_a_handle_for_threads_and_loops() -> None:
    async def elsewhere(portal: Portal) -> int:
        return await portal.spawn(double(3))

    async with Portal() as portal:
        handle = await to_thread(portal.spawn, double(1))
        assert isinstance(handle, JoinHandle)
        assert await to_thread(handle.result) == 2
        assert await portal.spawn(lambda: double(2), name="here") == 4
        assert await run_in_thread_loop(elsewhere(portal)) == 6


async def test_what_is_spawned_stays_on_the_loop_of_the_portal() -> None:
    async def where() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def main() -> set[bool]:
        loop = asyncio.get_running_loop()
        async with Portal() as portal:
            here = [portal.spawn(where()) for _ in range(10)]
            there = [await to_thread(portal.spawn, where()) for _ in range(10)]
            return {await handle is loop for handle in here + there}

    assert await asyncio.to_thread(lambda: run(main(), workers=2)) == {True}


def test_an_error_that_is_taken_from_the_handle_is_not_raised_again() -> None:
    with Portal() as portal:
        handle = portal.spawn(fail())
        with pytest.raises(LookupError):
            handle.result()
        assert portal.call(double, 1) == 2


def test_an_error_that_nobody_takes_is_raised_at_the_end(stage: Any) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        with Portal() as portal:
            portal.spawn(fail())
            other = portal.spawn(double(1))
            assert other.result() == 2
    assert [repr(error) for error in raised.value.exceptions] == ["LookupError('lost')"]
    assert not stage.running.is_set()


# ---------------------------------------------------------------- the end


def test_the_end_of_the_block_waits_for_what_was_begun() -> None:
    ended: list[int] = []

    async def work(number: int) -> None:
        for _ in range(10):
            await yield_now()
        ended.append(number)

    with Portal() as portal:
        for number in range(5):
            portal.spawn(work(number))
    assert ended == [0, 1, 2, 3, 4]


async def test_what_a_thread_has_begun_counts_even_if_the_loop_has_not_run_since() -> None:
    ended: list[None] = []

    async def work() -> None:
        ended.append(None)

    async with Portal() as portal:
        thread = threading.Thread(target=lambda: portal.spawn(work()))
        thread.start()
        thread.join()  # blocks the loop, on purpose
    assert ended == [None]


async def test_the_end_of_the_block_waits_for_calls_of_other_threads() -> None:
    go = asyncio.Event()
    running = asyncio.Event()

    async def work() -> str:
        running.set()
        await go.wait()
        return "done"

    calling = None
    async with Portal() as portal:
        calling = asyncio.create_task(to_thread(portal.call, work))
        await running.wait()
        asyncio.get_running_loop().call_soon(go.set)
    assert await calling == "done"


async def test_an_error_of_a_call_goes_to_its_thread_only_also_at_the_end_of_the_block() -> None:
    go = asyncio.Event()
    running = asyncio.Event()

    async def work() -> None:
        running.set()
        await go.wait()
        raise LookupError("lost")

    async with Portal() as portal:
        calling = asyncio.create_task(to_thread(portal.call, work))
        await running.wait()
        asyncio.get_running_loop().call_soon(go.set)
    with pytest.raises(LookupError, match="lost"):
        await calling


@pytest.mark.parametrize("error", [ValueError("body"), KeyboardInterrupt(), StopIteration()], ids=repr)
def test_an_error_of_the_body_cancels_what_was_begun_and_is_raised_as_it_is(error: BaseException, stage: Any) -> None:
    with pytest.raises(type(error)) as raised:
        with Portal() as portal:
            handle = portal.spawn(stage.run())
            stage.running.wait()
            raise error
    assert raised.value is error
    assert stage.ended
    assert handle.is_cancelled()


async def test_an_error_of_the_body_ends_the_calls_of_other_threads(stage: Any) -> None:
    with pytest.raises(ValueError, match="body"):
        async with Portal() as portal:
            calling = asyncio.create_task(to_thread(portal.call, stage.run))
            await asyncio.to_thread(stage.running.wait)
            raise ValueError("body")
    assert stage.ended
    with pytest.raises(JoinError):
        await calling


async def test_a_cancellation_of_the_body_goes_on_when_what_was_begun_has_ended(stage: Any) -> None:
    async def host() -> None:
        async with Portal() as portal:
            portal.spawn(stage.run())
            await for_ever()

    task = asyncio.create_task(host())
    await asyncio.to_thread(stage.running.wait)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert stage.ended
    assert task.cancelling() == 1


# ---------------------------------------------------------------- from the wrong side


async def test_a_call_from_the_own_thread_is_refused_with_advice() -> None:
    async with Portal() as portal:
        with pytest.raises(RuntimeError, match="directly"):
            portal.call(double, 1)

    def call_within() -> None:
        inner.call(double, 1)

    def both() -> None:
        nonlocal inner
        with Portal() as inner:
            with pytest.raises(RuntimeError, match="directly"):
                inner.call(call_within)

    inner = portal
    await asyncio.to_thread(both)


async def test_a_call_from_another_loop_is_refused_with_advice() -> None:
    async def elsewhere(portal: Portal) -> None:
        portal.call(double, 1)

    async with Portal() as portal:
        with pytest.raises(RuntimeError, match="spawn"):
            await run_in_thread_loop(elsewhere(portal))


def _call(portal: Portal) -> None:
    portal.call(double, 1)


def _spawn(portal: Portal) -> None:
    portal.spawn(lambda: double(1))


@pytest.mark.parametrize("use", [_call, _spawn])
def test_a_portal_that_is_not_open_says_so(use: Callable[[Portal], None]) -> None:
    portal = Portal(name="aside")
    with pytest.raises(RuntimeError, match="'aside' closed> is not open"):
        use(portal)
    with portal:
        use(portal)
    with pytest.raises(RuntimeError, match="is not open"):
        use(portal)


def test_a_coroutine_that_is_refused_is_closed() -> None:
    refused = double(1)
    with pytest.raises(RuntimeError, match="is not open"):
        Portal().spawn(refused)
    with pytest.raises(RuntimeError, match="cannot reuse"):
        refused.send(None)


def test_it_can_be_entered_only_once() -> None:
    with Portal() as portal:
        with pytest.raises(RuntimeError, match="only once"):
            with portal:
                pass
        assert portal.call(double, 1) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_in_a_forked_child_it_is_not_open_instead_of_waiting_for_ever() -> None:
    uses: list[Callable[[], object]] = [
        lambda: portal.call(double, 1),
        lambda: portal.spawn(double(1)),
        lambda: group.spawn(double(1)),
    ]
    with Portal() as portal, ThreadTaskGroup() as group:
        child = os.fork()
        if not child:
            refused = 0
            try:
                signal.alarm(10)
                for use in uses:
                    try:
                        use()
                    except RuntimeError:
                        refused += 1
            finally:
                os._exit(refused)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == len(uses)
        assert portal.call(double, 1) == 2
        assert group.spawn(double(1)).result() == 2


def test_a_portal_that_was_made_before_a_fork_can_be_entered_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    portal = Portal()
    monkeypatch.setattr("os.getpid", lambda: -1)
    with portal:
        assert portal.call(double, 1) == 2


async def test_the_form_for_threads_is_refused_where_a_loop_runs() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        with Portal():
            pass


@pytest.mark.parametrize("take", [Portal().call, from_thread, to_thread])
def test_a_coroutine_instead_of_a_function_is_closed_and_refused_with_advice(take: Callable[[Any], object]) -> None:
    coroutine = double(1)
    with pytest.raises(TypeError, match="give the function and its arguments"):
        take(coroutine)
    with pytest.raises(RuntimeError, match="already awaited"):
        coroutine.send(None)


def test_nonsense_is_refused_at_the_call() -> None:
    nonsense: Any = 42
    with Portal() as portal:
        with pytest.raises(TypeError, match="function must be callable"):
            portal.call(nonsense)
        with pytest.raises(TypeError, match="spawn"):
            portal.spawn(nonsense)


@pytest.mark.usefixtures("switching_often")
def test_a_portal_that_closes_while_threads_call_it_answers_each_of_them() -> None:
    for _ in range(15):
        answers: list[object] = []

        def call(portal: Portal, answers: list[object] = answers) -> None:
            while True:
                try:
                    answers.append(portal.call(double, 1))
                except (RuntimeError, JoinError) as refusal:
                    answers.append(refusal)
                    return

        with Portal() as portal:
            threads = [threading.Thread(target=call, args=(portal,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            while len(answers) < 5:
                pass
        for thread in threads:
            thread.join(timeout=30)
            assert not thread.is_alive()
        assert sum(isinstance(answer, Exception) for answer in answers) == 3


# ---------------------------------------------------------------- every order, every await


async def two_begun_things_end_before_the_portal() -> None:
    ended: list[str] = []

    async def work(name: str) -> None:
        try:
            await asyncio.sleep(1)
        finally:
            try:
                await asyncio.sleep(0)
            finally:
                ended.append(name)

    async def host(started: list[str]) -> None:
        async with Portal() as portal:
            for name in "ab":
                portal.spawn(_noting(work, name, started))
            await asyncio.sleep(1)

    started: list[str] = []
    task = asyncio.create_task(host(started))
    await asyncio.wait([task])
    assert sorted(ended) == sorted(started)


async def _noting(work: Callable[[str], Awaitable[None]], name: str, started: list[str]) -> None:
    started.append(name)
    await work(name)


def test_in_every_order_what_was_begun_ends_before_the_portal() -> None:
    explore(two_begun_things_end_before_the_portal)


def test_a_cancellation_at_every_await_leaves_nothing_behind() -> None:
    explore_cancellations(two_begun_things_end_before_the_portal)
