from __future__ import annotations

import asyncio
import gc
import math
import signal
import sys
import threading
import tracemalloc
import weakref
from typing import Any

import pytest

from yamanote.runtime import (
    BUDGET,
    CancellationToken,
    ThreadWaiter,
    cancel_and_wait,
    park,
    run,
    start_task,
    yield_now,
)


async def test_a_token_is_cancelled_once_and_keeps_its_first_reason() -> None:
    token = CancellationToken()
    assert not token.is_cancelled() and token.reason is None
    token.cancel("first")
    token.cancel("second")
    assert token.is_cancelled() and token.reason == "first"
    without = CancellationToken()
    without.cancel()
    without.cancel("late")
    assert without.is_cancelled() and without.reason is None


async def test_waiting_ends_with_the_cancellation_and_is_over_at_once_after_it() -> None:
    token = CancellationToken()
    waiters = [start_task(token.cancelled()) for _ in range(3)] + [start_task(park(token))]
    await yield_now()
    assert not any(waiter.done() for waiter in waiters)
    token.cancel()
    assert await asyncio.gather(*waiters) == [None] * 4
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    await token.cancelled()
    assert turns == []


async def test_who_gives_up_waiting_is_forgotten() -> None:
    token = CancellationToken()
    waiter = start_task(token.cancelled())
    await yield_now()
    await cancel_and_wait(waiter)
    assert not token._waiters
    token.cancel()


async def test_cancelling_goes_down_the_tree_and_not_up() -> None:
    root = CancellationToken()
    left, right = root.child_token(), root.child_token()
    grandchild = left.child_token()
    left.cancel("left")
    assert left.is_cancelled() and grandchild.is_cancelled() and grandchild.reason == "left"
    assert not root.is_cancelled() and not right.is_cancelled()
    root.cancel("root")
    assert right.reason == "root" and left.reason == "left"


async def test_a_child_of_a_cancelled_token_is_born_cancelled() -> None:
    root = CancellationToken()
    root.cancel("over")
    child = root.child_token().child_token()
    assert child.is_cancelled() and child.reason == "over"


async def test_a_deep_tree_is_no_problem() -> None:
    root = token = CancellationToken()
    for _ in range(5000):
        token = token.child_token()
    root.cancel()
    assert token.is_cancelled()


async def test_children_that_nobody_refers_to_are_forgotten() -> None:
    root = CancellationToken()
    gone = weakref.ref(root.child_token())
    assert gone() is None
    sizes: list[int] = []
    tracemalloc.start()
    try:
        for _ in range(3):
            for _ in range(2000):
                root.child_token().child_token()
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[2] - sizes[1] < 5000


async def test_a_token_in_the_middle_that_nobody_refers_to_still_passes_the_cancellation_on() -> None:
    root = CancellationToken()
    leaf = root.child_token().child_token().child_token()
    gc.collect()
    root.cancel("through")
    assert leaf.reason == "through"


# run_until_cancelled


async def test_what_completes_first_gives_its_value_or_its_error() -> None:
    token = CancellationToken()
    assert await token.run_until_cancelled(asyncio.sleep(0, "value")) == "value"

    async def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await token.run_until_cancelled(fail())
    assert not token._waiters


async def test_it_is_cancelled_when_the_token_is_and_gives_none() -> None:
    token = CancellationToken()
    log: list[str] = []

    async def work() -> str:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError as error:
            await yield_now()
            log.append(f"cleaned up: {error}")
            raise
        return "value"

    asyncio.get_running_loop().call_soon(token.cancel, "enough")
    assert await token.run_until_cancelled(work()) is None
    assert log == ["cleaned up: enough"]
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


async def test_it_runs_in_the_calling_task() -> None:
    async def which() -> Any:
        return asyncio.current_task()

    assert await CancellationToken().run_until_cancelled(which()) is asyncio.current_task()


async def test_under_a_cancelled_token_nothing_starts() -> None:
    token = CancellationToken()
    token.cancel()
    log: list[str] = []

    async def work() -> None:
        log.append("started")

    assert await token.run_until_cancelled(work()) is None
    assert log == []
    with pytest.raises(TypeError):
        await token.run_until_cancelled(3)  # type: ignore[arg-type]


async def test_what_completes_in_the_same_turn_wins() -> None:
    token = CancellationToken()
    loop = asyncio.get_running_loop()
    future: asyncio.Future[str] = loop.create_future()

    def both() -> None:
        future.set_result("value")
        token.cancel()

    async def work() -> str:
        return await future

    loop.call_soon(both)
    assert await token.run_until_cancelled(work()) == "value"


async def test_what_is_completed_in_spite_of_the_cancellation_goes_through() -> None:
    token = CancellationToken()

    async def work() -> str:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
        return "value"

    asyncio.get_running_loop().call_soon(token.cancel)
    assert await token.run_until_cancelled(work()) == "value"
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


async def test_a_cancellation_of_the_caller_goes_on() -> None:
    token = CancellationToken()
    task = start_task(token.run_until_cancelled(asyncio.sleep(3600)))
    await yield_now()
    token.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# scopes


async def test_a_block_is_cancelled_when_the_token_is() -> None:
    token = CancellationToken()
    with token.scope() as scope:
        asyncio.get_running_loop().call_soon(token.cancel, "enough")
        await asyncio.sleep(3600)
    assert scope.cancelled_caught and scope.reason == "enough"
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


async def test_under_a_cancelled_token_the_first_wait_of_a_block_is_cancelled() -> None:
    token = CancellationToken()
    token.cancel("over")
    begun = False
    with token.scope() as scope:
        begun = True
        await asyncio.sleep(3600)
    assert begun and scope.cancelled_caught and scope.reason == "over"


async def test_a_block_that_has_ended_has_nothing_to_do_with_the_token_any_more() -> None:
    token = CancellationToken()
    with token.scope() as scope:
        scope.cancel("by hand")
        await asyncio.sleep(3600)
    assert scope.cancelled_caught and not token.is_cancelled() and not token._waiters
    with pytest.raises(LookupError):
        with token.scope() as scope:
            raise LookupError
    token.cancel()
    await yield_now()
    assert not scope.cancel_called


async def test_a_block_that_a_thread_cancels_through_a_token_ends() -> None:
    token = CancellationToken()
    with token.child_token().scope() as scope:
        thread = threading.Thread(target=token.cancel, args=("thread",))
        thread.start()
        await asyncio.sleep(3600)
    thread.join()
    assert scope.cancelled_caught and scope.reason == "thread"


# deadlines


async def test_a_deadline_cancels_a_token_and_all_below_it() -> None:
    token = CancellationToken()
    child = token.child_token()
    child.cancel_after(3600)
    token.cancel_after(0.001)
    await child.cancelled()
    assert token.reason == child.reason == "deadline passed"
    assert not child._waiters


async def test_the_earliest_deadline_counts_and_a_child_leaves_its_parent_alone() -> None:
    loop = asyncio.get_running_loop()
    token = CancellationToken()
    token.cancel_at(loop.time() + 3600)
    child = token.child_token()
    child.cancel_after(3600)
    child.cancel_at(loop.time() + 0.001)
    await child.cancelled()
    assert child.reason == "deadline passed" and not token.is_cancelled()
    token.cancel("in time")
    assert token.reason == "in time" and not token._waiters


async def test_a_deadline_that_has_passed_cancels_at_once_and_one_that_never_comes_does_nothing() -> None:
    loop = asyncio.get_running_loop()
    tokens = [CancellationToken() for _ in range(4)]
    tokens[0].cancel_after(0)
    tokens[1].cancel_after(-math.inf)
    tokens[2].cancel_at(loop.time())
    assert [token.reason for token in tokens[:3]] == ["deadline passed"] * 3
    tokens[3].cancel_after(math.inf)
    tokens[3].cancel_at(math.inf)
    assert not tokens[3].is_cancelled() and not tokens[3]._waiters


async def test_a_deadline_does_not_keep_a_token_alive() -> None:
    token = CancellationToken()
    token.cancel_after(0.001)
    gone = weakref.ref(token)
    del token
    assert gone() is None
    await asyncio.sleep(0.002)  # nothing happens


async def test_cancelling_clears_the_timer_of_a_deadline_away_on_the_thread_of_its_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cleared: list[int] = []

    class Timer:
        def cancel(self) -> None:
            cleared.append(threading.get_ident())

    token, other = CancellationToken(), CancellationToken()
    with monkeypatch.context() as patch:
        patch.setattr(asyncio.get_running_loop(), "call_at", lambda *_: Timer())
        with token.guard():
            token.cancel_after(3600)
        other.cancel_after(3600)
    thread = threading.Thread(target=other.cancel)
    thread.start()
    thread.join()
    await yield_now()
    assert cleared == [threading.get_ident()] * 2
    monkeypatch.setattr(asyncio.get_running_loop(), "call_at", None)
    token.cancel_after(3600)  # it is cancelled already, and needs no timer


async def test_a_deadline_reaches_threads_and_other_loops() -> None:
    token = CancellationToken()
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(token.child_token().blocking_wait())),
        threading.Thread(target=lambda: results.append(run(token.run_until_cancelled(asyncio.sleep(3600))))),
    ]
    for thread in threads:
        thread.start()
    token.cancel_after(0.005)
    await token.cancelled()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert sorted(results, key=str) == [None, True]


def test_a_deadline_after_the_end_of_its_loop_never_comes() -> None:
    token = CancellationToken()

    async def main() -> None:
        token.cancel_after(0.1)

    run(main())
    assert token.blocking_wait(0.2) is False
    token.cancel()
    assert token.is_cancelled()


def test_a_deadline_needs_a_clock_and_a_number() -> None:
    token = CancellationToken()
    with pytest.raises(RuntimeError, match="cancel_after"):
        token.cancel_after(1)
    with pytest.raises(RuntimeError, match="cancel_at"):
        token.cancel_at(1)
    with pytest.raises(ValueError, match="seconds"):
        token.cancel_after(math.nan)
    with pytest.raises(TypeError, match="when"):
        token.cancel_at(None)  # type: ignore[arg-type]
    assert not token.is_cancelled()


# guards


async def test_a_guard_cancels_at_the_end_of_its_block_unless_it_is_disarmed() -> None:
    token = CancellationToken()
    with token.guard():
        assert not token.is_cancelled()
    assert token.is_cancelled()
    token = CancellationToken()
    with pytest.raises(LookupError):
        with token.guard():
            raise LookupError
    assert token.is_cancelled()
    token = CancellationToken()
    with token.guard() as guard:
        guard.disarm()
    assert not token.is_cancelled()


# threads


async def test_a_thread_waits_for_a_token() -> None:
    token = CancellationToken()
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(token.blocking_wait()))
    thread.start()
    while not token._waiters:
        await asyncio.sleep(0)
    token.cancel()
    thread.join()
    assert results == [True]


def test_a_thread_waits_for_a_while() -> None:
    token = CancellationToken()
    assert token.blocking_wait(0) is False
    assert token.blocking_wait(0.001) is False
    assert not token._waiters
    token.cancel()
    assert token.blocking_wait(0) is True


async def test_a_thread_with_a_loop_must_not_block() -> None:
    token = CancellationToken()
    with pytest.raises(RuntimeError, match="block the event loop"):
        token.blocking_wait()
    token.cancel()
    assert token.blocking_wait()


def test_one_thread_cancels_what_many_loops_and_threads_wait_for() -> None:
    token = CancellationToken()
    loops, tasks = 3, 20
    ready = threading.Barrier(2 * loops + 1)
    results: list[Any] = []

    async def wait_on_a_loop() -> None:
        child = token.child_token()
        waiting = [start_task(child.cancelled()) for _ in range(tasks)]
        waiting += [start_task(token.run_until_cancelled(asyncio.sleep(3600))) for _ in range(tasks)]
        await yield_now()
        ready.wait()
        results.extend(await asyncio.gather(*waiting))

    def wait_in_a_thread() -> None:
        ready.wait()
        results.append(token.child_token().blocking_wait())

    threads = [threading.Thread(target=run, args=(wait_on_a_loop(),)) for _ in range(loops)]
    threads += [threading.Thread(target=wait_in_a_thread) for _ in range(loops)]
    for thread in threads:
        thread.start()
    ready.wait()
    token.cancel()
    for thread in threads:
        thread.join()
    assert sorted(results, key=str) == [None] * (2 * loops * tasks) + [True] * loops


def test_cancel_racing_with_births_and_registrations_misses_nobody() -> None:
    for _ in range(200):
        root = CancellationToken()
        start = threading.Barrier(3)
        children: list[CancellationToken] = []
        waiters: list[ThreadWaiter[None]] = []

        def give_birth(root: CancellationToken = root, start: Any = start, children: Any = children) -> None:
            start.wait()
            for _ in range(5):
                children.append(root.child_token())

        def register(root: CancellationToken = root, start: Any = start, waiters: Any = waiters) -> None:
            start.wait()
            for _ in range(5):
                waiter: ThreadWaiter[None] = ThreadWaiter()
                waiters.append(waiter)
                root.register(waiter)

        threads = [threading.Thread(target=give_birth), threading.Thread(target=register)]
        for thread in threads:
            thread.start()
        start.wait()
        root.cancel("race")
        for thread in threads:
            thread.join()
        assert all(child.reason == "race" for child in children)
        assert all(waiter.sleep(60) for waiter in waiters)


async def test_it_shows_its_state() -> None:
    token = CancellationToken()
    assert repr(token) == "<CancellationToken>"
    token.cancel("enough")
    assert repr(token) == "<CancellationToken cancelled: enough>"


async def test_to_wait_for_a_cancelled_token_lets_others_run_after_the_budget() -> None:
    token = CancellationToken()
    token.cancel()
    rounds = 0

    async def never_waits() -> None:
        nonlocal rounds
        while True:
            await token.cancelled()
            rounds += 1

    task = start_task(never_waits())
    for turn in range(3):
        await yield_now()
        assert rounds == turn * BUDGET + BUDGET - 1
    await cancel_and_wait(task)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_a_signal_handler_wakes_the_loop_that_it_has_found_asleep() -> None:
    async def main() -> list[str]:
        log: list[str] = []
        token = CancellationToken()
        signal.signal(signal.SIGALRM, lambda *_: token.cancel("signal"))
        # On a loop that nothing else wakes, and in the end this, if the signal does not.
        asyncio.get_running_loop().call_later(5, log.append, "slept on")
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        await token.cancelled()
        return log

    before = signal.getsignal(signal.SIGALRM)
    try:
        assert run(main()) == []
    finally:
        signal.signal(signal.SIGALRM, before)
