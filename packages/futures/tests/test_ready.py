"""The two simplest awaitables."""

from __future__ import annotations

import asyncio

import pytest

from yamanote.futures import pending, race, ready, select
from yamanote.runtime import BUDGET, move_on_after, start_task, yield_now


@pytest.mark.parametrize("value", [None, 0, ValueError("a value")], ids=repr)
async def test_ready_gives_its_value(value: object) -> None:
    assert await ready(value) is value
    assert await select(value=ready(value)) == ("value", value)


async def test_ready_takes_no_turn_but_one_in_a_budget() -> None:
    ticks = 0

    async def count() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await yield_now()

    counting = start_task(count())
    for _ in range(4 * BUDGET):
        await ready(None)
    assert ticks == 4
    counting.cancel()


async def test_pending_ends_when_it_is_cancelled_and_in_no_other_way() -> None:
    with move_on_after(0.001) as scope:
        await pending()
    assert scope.cancelled_caught
    assert await race(pending(), asyncio.sleep(0, "first")) == "first"
