"""The call form of a limit, for whoever builds on the runtime; what it does in time is told in `yamanote.time`."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest

from yamanote.runtime import finish_within


async def work() -> str:
    return "done"


@pytest.mark.parametrize("seconds", [None, 0, -1, 5, 0.5, 1e12, math.inf, -math.inf])
async def test_work_that_does_not_wait_is_in_time(seconds: float | None) -> None:
    assert await finish_within(seconds, work()) == "done"


@pytest.mark.parametrize(
    ("seconds", "error"),
    [("5", TypeError), (math.nan, ValueError), (10**400, ValueError), (-(10**400), ValueError)],
    ids=["text", "nan", "huge", "tiny"],
)
async def test_seconds_that_are_none_are_refused_by_name_and_the_coroutine_closed(
    seconds: Any, error: type[Exception]
) -> None:
    coroutine = work()
    with pytest.raises(error, match="seconds"):
        await finish_within(seconds, coroutine)
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
