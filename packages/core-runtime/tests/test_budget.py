from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest

from yamanote.runtime import (
    BUDGET,
    CancelScope,
    cancel_and_wait,
    checkpoint,
    cooperative,
    move_on_after,
    run,
    start_task,
    yield_now,
)


async def test_yielding_takes_exactly_one_turn() -> None:
    log: list[str] = []

    async def other() -> None:
        for number in range(3):
            log.append(f"other {number}")
            await yield_now()

    task = start_task(other())
    for number in range(3):
        log.append(f"this {number}")
        await yield_now()
    await task
    assert log == ["this 0", "other 0", "this 1", "other 1", "this 2", "other 2"]


async def test_a_cancellation_that_was_requested_before_is_raised() -> None:
    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await yield_now()

    task = start_task(work())
    with pytest.raises(asyncio.CancelledError):
        await task


def test_the_budget_is_that_of_tokio() -> None:
    assert BUDGET == 128


# cooperative


async def test_a_cooperative_loop_lets_others_run_after_the_budget() -> None:
    rounds = 0

    async def count() -> None:
        nonlocal rounds
        while True:
            await cooperative()
            rounds += 1

    task = start_task(count())
    for turn in range(3):
        await yield_now()
        assert rounds == turn * BUDGET + BUDGET - 1
    await cancel_and_wait(task)


async def test_several_cooperative_loops_share_the_budget_of_each_turn() -> None:
    turn = 0
    rounds: Counter[tuple[str, int]] = Counter()

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await yield_now()

    async def count(name: str) -> None:
        for number in range(1000):
            await cooperative()
            rounds[name, turn] += 1
            if name == "b" and number % 100 == 0:
                await yield_now()  # it has other waits as well

    ticking = start_task(count_turns())
    await asyncio.gather(*map(count, "abc"))
    await cancel_and_wait(ticking)
    assert rounds.total() == 3000
    assert max(rounds.values()) <= BUDGET


def test_cooperative_loops_in_several_threads_do_not_disturb_each_other() -> None:
    turns: list[int] = []

    async def count() -> None:
        others = 0

        async def other() -> None:
            nonlocal others
            while True:
                others += 1
                await yield_now()

        task = start_task(other())
        await yield_now()
        for _ in range(BUDGET * 50 + BUDGET // 2):
            await cooperative()
        turns.append(others)
        await cancel_and_wait(task)

    threads = [threading.Thread(target=run, args=(count(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert turns == [51] * 4


async def test_a_cancellation_is_raised_where_a_cooperative_loop_yields() -> None:
    rounds = 0
    with CancelScope() as scope:
        scope.cancel()
        while True:
            await cooperative()
            rounds += 1
    assert scope.cancelled_caught and rounds < BUDGET


# checkpoint


async def test_a_checkpoint_lets_others_run() -> None:
    log: list[str] = []
    asyncio.get_running_loop().call_soon(log.append, "others")
    await checkpoint()
    assert log == ["others"]


async def test_a_checkpoint_raises_what_has_been_requested_before() -> None:
    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await checkpoint()

    task = start_task(work())
    await asyncio.wait([task])
    assert task.cancelled()
    with CancelScope() as scope:
        scope.cancel()
        await checkpoint()
        raise AssertionError("not cancelled")
    assert scope.cancelled_caught


async def test_a_checkpoint_raises_the_cancellation_of_a_deadline_that_passed_while_nobody_gave_way() -> None:
    loop = asyncio.get_running_loop()
    for _ in range(10):
        with move_on_after(0.0005) as scope:
            assert scope.deadline is not None
            while loop.time() <= scope.deadline:
                pass
            await checkpoint()
            raise AssertionError("not cancelled")
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.0005) as timeout:
                while loop.time() <= (timeout.when() or 0):
                    pass
                await checkpoint()
                raise AssertionError("not cancelled")


async def test_a_checkpoint_that_has_nothing_to_raise_goes_on() -> None:
    with move_on_after(3600):
        for _ in range(3):
            await checkpoint()
    task = start_task(checkpoint())
    await yield_now()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await yield_now()
