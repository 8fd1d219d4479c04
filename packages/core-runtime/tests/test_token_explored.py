"""Blocks under tokens, deadlines of both, and loops that give way, in many orders and cancelled wherever they wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from yamanote.runtime import (
    CancellationToken,
    _scope,
    _token,
    checkpoint,
    cooperative,
    move_on_after,
    use_scope,
    yield_now,
)
from yamanote.testing import Counterexample, explore, explore_cancellations, replay

from .test_runtime_explored import judged, left_alone, requests

Scenario = Callable[[], Coroutine[Any, Any, None]]


async def blocks_under_a_tree_of_tokens() -> None:
    loop = asyncio.get_running_loop()
    root, quiet = CancellationToken(), CancellationToken()
    child = root.child_token()

    async def work(token: CancellationToken, seconds: float, patience: float) -> None:
        with move_on_after(patience):
            with token.scope() as block:
                await asyncio.sleep(seconds)
                await yield_now()
            assert requests() == 0
            assert block.cancelled_caught or not block.cancel_called or loop.time() == seconds
            assert block.cancel_called <= token.is_cancelled()
            await asyncio.sleep(0.5)  # a request that leaked out of the block would be raised here
        assert requests() == 0
        assert loop.time() <= (2.5 if token is child else 3.5)
        await yield_now()

    async def cancel_late() -> None:
        await asyncio.sleep(3)
        root.cancel("by hand")

    for deadline in (4, 3):
        root.cancel_at(deadline)
    child.cancel_after(2)
    await judged(
        work(child, 1, 5), work(child, 9, 5), work(root, 9, 5), work(root, 2, 2), work(quiet, 1, 5), cancel_late()
    )
    await asyncio.sleep(5)
    assert root.is_cancelled() and child.is_cancelled()
    assert not root._waiters and not child._waiters and not quiet._waiters


async def loops_that_give_way() -> None:
    async def compute(give_way: Callable[[], Coroutine[Any, Any, None]], seconds: float) -> None:
        for _ in range(2):
            with move_on_after(seconds) as scope:
                while True:
                    await give_way()
            assert scope.cancelled_caught and requests() == 0
        with use_scope() as scope:
            scope.cancel()
        await yield_now()
        assert not scope.cancelled_caught and requests() == 0

    await judged(compute(cooperative, 0), compute(checkpoint, 0), compute(yield_now, 0))


SCENARIOS: list[Scenario] = [blocks_under_a_tree_of_tokens, loops_that_give_way]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_order_of_steps_does_not_matter(scenario: Scenario) -> None:
    explore(partial(left_alone, scenario), runs=60)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_is_left_when_a_task_is_cancelled(scenario: Scenario) -> None:
    explore_cancellations(scenario, runs=100)


# ---------------------------------------------------------------- teeth


def stays_with_the_token(self: Any, *error: Any) -> bool:
    return bool(self._scope.__exit__(*error))


def cancels_the_task_itself(self: Any, value: None) -> None:
    self.settled = True
    self._scope._task.cancel()


def never_rings(token: Any) -> None:
    pass


def cancels_a_second_later(loop: Any, callback: Callable[[], object]) -> None:
    loop.call_later(1, callback)


@pytest.mark.parametrize(
    ("owner", "name", "wrong", "scenario"),
    [
        (_token._TokenScope, "__exit__", stays_with_the_token, blocks_under_a_tree_of_tokens),
        (_token._TokenScope, "settle", cancels_the_task_itself, blocks_under_a_tree_of_tokens),
        (_token, "_ring", never_rings, blocks_under_a_tree_of_tokens),
        (_scope, "call_soon", cancels_a_second_later, blocks_under_a_tree_of_tokens),
    ],
)
def test_it_is_caught(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, wrong: Callable[..., Any], scenario: Scenario
) -> None:
    monkeypatch.setattr(owner, name, wrong)
    undisturbed = partial(left_alone, scenario)
    with pytest.raises(Counterexample) as caught:
        explore(undisturbed, runs=100)
        explore_cancellations(scenario, runs=200)
    with pytest.raises(Counterexample):
        replay(scenario if "@" in caught.value.token else undisturbed, caught.value.token)
