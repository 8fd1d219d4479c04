from __future__ import annotations

import asyncio
import concurrent.futures
from typing import Any

import pytest

from yamanote.runtime import Outcome, start_task


@pytest.mark.parametrize("value", [None, 0, "", ValueError("a value"), [1]])
async def test_values_of_any_kind_are_values(value: Any) -> None:
    outcome = Outcome.ok(value)
    assert outcome.unwrap() is value
    assert await outcome is value
    assert outcome.error is None and not outcome.cancelled
    assert repr(outcome) == f"Outcome.ok({value!r})"


async def test_an_error_is_raised_and_can_be_looked_at() -> None:
    error = LookupError("no")
    outcome: Outcome[int] = Outcome.failed(error)
    assert outcome.error is error and not outcome.cancelled
    with pytest.raises(LookupError):
        outcome.unwrap()
    with pytest.raises(LookupError):
        await outcome
    assert repr(outcome) == "Outcome.failed(LookupError('no'))"


async def test_a_cancellation_is_told_apart() -> None:
    outcome: Outcome[int] = Outcome.failed(asyncio.CancelledError())
    assert outcome.cancelled
    with pytest.raises(asyncio.CancelledError):
        outcome.unwrap()


async def test_the_outcome_of_tasks_and_futures() -> None:
    async def fail() -> int:
        raise LookupError

    task = start_task(asyncio.sleep(0, "value"))
    failed = start_task(fail())
    cancelled = start_task(asyncio.sleep(3600))
    cancelled.cancel()
    await asyncio.wait([task, failed, cancelled])
    assert Outcome.of(task).unwrap() == "value"
    assert isinstance(Outcome.of(failed).error, LookupError)
    assert Outcome.of(cancelled).cancelled
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    future.set_result(1)
    assert Outcome.of(future).unwrap() == 1
