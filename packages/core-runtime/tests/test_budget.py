from __future__ import annotations

import asyncio

import pytest

from yamanote.runtime import BUDGET, start_task, yield_now


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
