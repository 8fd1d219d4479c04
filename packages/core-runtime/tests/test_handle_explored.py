"""What is brought into a runtime that ends, in many orders: nobody waits for ever, and nothing is left over."""

from __future__ import annotations

import asyncio
import inspect
from asyncio import CancelledError
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from yamanote.runtime import _handle, _shutdown, start_task, yield_now
from yamanote.runtime._handle import _Brought
from yamanote.runtime._shutdown import shut_down
from yamanote.testing import Counterexample, explore, explore_cancellations

Scenario = Callable[[], Coroutine[Any, Any, None]]


class Bringer:
    """Another thread, as far as the loop can tell: callbacks that bring work, one in each turn."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, Any]], turns: int, abort: bool = False) -> None:
        self.loop = asyncio.get_running_loop()
        self.work = work
        self.turns = turns
        self.abort = abort
        self.accepted: list[_Brought[Any]] = []
        self.coroutines: list[Any] = []
        self.refused = 0
        self.tick()

    def tick(self) -> None:
        if not self.turns:
            return
        self.turns -= 1
        self.loop.call_soon(self.tick)
        brought: _Brought[Any] = _Brought(self.loop)
        self.coroutines.append(self.work())
        try:
            brought.bring(self.coroutines[-1], None, None)
        except RuntimeError:
            self.refused += 1
            return
        self.accepted.append(brought)
        if self.abort:
            brought.abort("enough")

    def judge(self) -> None:
        assert not self.turns
        assert [brought for brought in self.accepted if not brought.is_finished()] == []
        assert self.refused + len(self.accepted) == len(self.coroutines)
        for coroutine in self.coroutines:
            assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


async def wait_and_clean_up() -> None:
    try:
        await asyncio.sleep(5)
    finally:
        await yield_now()


async def never_end() -> None:
    for _ in range(3):  # of them: what is left over at the end of a scenario would be a failure
        try:
            await asyncio.sleep(3600)
        except CancelledError:
            pass


async def everything_that_is_brought_ends_or_is_refused() -> None:
    bringer = Bringer(wait_and_clean_up, 12)
    await yield_now()
    await shut_down(10, lambda: None)
    while bringer.turns:
        await yield_now()
    await yield_now()
    bringer.judge()


async def what_is_aborted_ends_whether_it_has_started_or_not() -> None:
    bringer = Bringer(wait_and_clean_up, 3, abort=True)
    while bringer.turns or any(not brought.is_finished() for brought in bringer.accepted):
        await asyncio.sleep(1)
    bringer.judge()
    assert all(brought._future.cancelled() for brought in bringer.accepted)


async def whoever_waits_for_what_is_left_behind_is_told() -> None:
    bringer = Bringer(never_end, 1)
    await yield_now()
    await yield_now()
    await shut_down(1, lambda: None)
    (brought,) = bringer.accepted
    assert brought.is_finished()
    while len(asyncio.all_tasks()) > 1:
        await asyncio.sleep(3600)


async def tasks_that_start_others_as_they_end() -> None:
    ended: list[int] = []

    async def work(depth: int) -> None:
        try:
            await asyncio.sleep(5)
        finally:
            if depth:
                start_task(work(depth - 1))
            await yield_now()
            ended.append(depth)

    for _ in range(2):
        start_task(work(2))
    await yield_now()
    await shut_down(10, lambda: None)
    assert len(asyncio.all_tasks()) == 1


SCENARIOS: list[Scenario] = [
    everything_that_is_brought_ends_or_is_refused,
    what_is_aborted_ends_whether_it_has_started_or_not,
    whoever_waits_for_what_is_left_behind_is_told,
    tasks_that_start_others_as_they_end,
]
each = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)


@each
def test_in_any_order(scenario: Scenario) -> None:
    explore(scenario, runs=100)


@each
def test_cancelled_anywhere(scenario: Scenario) -> None:
    explore_cancellations(scenario, runs=200)


# ---------------------------------------------------------------- teeth: each of these is caught


def tells_nobody(loop: object) -> None: ...


def never_looks_whether_it_ends(loop: object) -> bool:
    return False


def starts_what_was_taken_back(
    self: _Brought[Any], coroutine: Coroutine[Any, Any, Any], name: str | None, context: Any
) -> None:
    self._task = start_task(coroutine, name=name, context=context)
    self._task.add_done_callback(self._ended)


async def cancels_once_and_waits_for_ever(deadline: float) -> None:
    left = _shutdown._others()
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left)


@pytest.mark.parametrize(
    ("owner", "name", "wrong", "scenario"),
    [
        (_shutdown, "give_up_brought", tells_nobody, whoever_waits_for_what_is_left_behind_is_told),
        (_handle, "_is_ending", never_looks_whether_it_ends, everything_that_is_brought_ends_or_is_refused),
        (_Brought, "_start", starts_what_was_taken_back, everything_that_is_brought_ends_or_is_refused),
        (_shutdown, "end_tasks", cancels_once_and_waits_for_ever, tasks_that_start_others_as_they_end),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
@pytest.mark.filterwarnings("ignore")
def test_a_wrong_one_is_caught(
    owner: Any, name: str, wrong: Any, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, wrong)
    with pytest.raises(Counterexample):
        explore(scenario, runs=100)
        explore_cancellations(scenario, runs=500)
