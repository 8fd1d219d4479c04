"""The async cache in many orders of its steps, and cancelled wherever that is possible."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from yamanote.runtime import JoinError, Shared, _cache, _shared, lru_cache, start_task
from yamanote.testing import Counterexample, explore, explore_cancellations


async def several_ask(fails: bool) -> None:
    running: dict[str, int] = {"a": 0, "b": 0}
    values: dict[str, list[int]] = {"a": [], "b": []}
    number = 0

    @lru_cache(maxsize=1, expire_after=10)
    async def function(key: str) -> int:
        nonlocal number
        number += 1
        mine = number
        running[key] += 1
        try:
            await asyncio.sleep(1)
            if fails and mine == 1:
                raise LookupError
            values[key].append(mine)
            return mine
        finally:
            running[key] -= 1

    async def ask(key: str, pause: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        await asyncio.sleep(pause)
        try:
            value = await function(key)
        except CancelledError:
            assert task.cancelling() >= 1  # nobody else's cancellation gets here
            if alone(key):
                assert not running[key]  # the call was cancelled, and has ended
            raise
        except (LookupError, JoinError):
            value = 0
        else:
            assert value in values[key]
        assert task.cancelling() == 0

    def alone(key: str) -> bool:
        return sum(not task.done() and of == key for of, task in tasks) == 1

    pauses = [("a", 0), ("a", 0), ("b", 0.5), ("a", 1), ("b", 2.5)]
    tasks = [(key, start_task(ask(key, pause))) for key, pause in pauses]
    await asyncio.wait([task for _, task in tasks])
    for _, task in tasks:
        if not task.cancelled():
            task.result()
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1, "a call goes on that nobody waits for"
    assert not function._cache._calls
    assert function.cache_info().currsize <= 1
    assert running == {"a": 0, "b": 0}
    if not fails and not any(task.cancelled() for _, task in tasks):
        assert number <= 5


async def one_call_at_a_time() -> None:
    """Nobody is cancelled here but those who ask: the judge sees that calls do not overlap, and each value is one."""
    running = 0

    @lru_cache
    async def function() -> object:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(1)
        running -= 1
        return object()

    tasks = [start_task(function()) for _ in range(3)]
    await asyncio.sleep(0.5)
    tasks[0].cancel()
    await asyncio.wait(tasks)
    assert tasks[0].cancelled() and tasks[1].result() is tasks[2].result() is await function()


SCENARIOS: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
    "all is well": partial(several_ask, False),
    "the first call fails": partial(several_ask, True),
}
each_scenario = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)


@each_scenario
def test_the_order_of_steps_does_not_matter(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    explore(scenario, runs=50)


@each_scenario
def test_nothing_is_left_when_a_task_is_cancelled(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    explore_cancellations(scenario, runs=200)


def test_calls_for_one_key_never_overlap() -> None:
    explore(one_call_at_a_time, runs=100)


# ---------------------------------------------------------------- teeth


def caught() -> None:
    with pytest.raises(Counterexample):
        explore_cancellations(SCENARIOS["all is well"], runs=300)


def test_a_cache_that_lets_an_abandoned_call_run_on_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shared, "_leave", lambda call, run, party: False)
    caught()


def test_a_cache_that_cancels_the_call_with_the_first_who_waits_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shared, "_leave", lambda call, run, party: True)
    with pytest.raises(Counterexample):
        explore(one_call_at_a_time, runs=100)


def test_a_cache_that_does_not_wait_for_the_end_of_the_call_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_wait(handle: Any, reason: str) -> None:
        handle.abort(reason)

    monkeypatch.setattr(_shared, "cancel_and_wait", no_wait)
    caught()


def test_a_cache_that_remembers_calls_for_ever_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cache, "WeakValueDictionary", dict)
    caught()
