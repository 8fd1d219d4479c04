"""Shields, and waiting for who was cancelled, in many orders, with cancellations wherever there can be one.

The explorer cancels every task, those that are shielded too: then they end with a JoinError for who waits.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

import pytest

from yamanote.runtime import (
    CancelScope,
    JoinError,
    _cancel,
    _join,
    _shield,
    cancel_and_wait,
    move_on_after,
    shield,
    shield_wait,
    start_task,
    yield_now,
)
from yamanote.testing import Counterexample, explore, explore_cancellations, replay

from .test_runtime_explored import alone, judged, left_alone, requests

Scenario = Callable[[], Coroutine[Any, Any, None]]


class Work:
    """What is shielded: whether it came to its end, and if not, whether it was cancelled itself."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Any] | None = None
        self.done = False

    async def run(self) -> str:
        self.task = asyncio.current_task()
        await asyncio.sleep(2)
        await yield_now()
        self.done = True
        return "value"

    def check(self) -> None:
        """It has not been cut short, unless the explorer did that."""
        assert self.done or not alone.get()


async def shielded_from_who_gives_up() -> None:
    async def wait(patience: float) -> None:
        work = Work()
        works.append(work)
        with move_on_after(patience) as scope:
            try:
                assert await shield(work.run()) == "value"
            except JoinError:
                assert not alone.get()
        assert requests() == 0 and scope.cancelled_caught >= (patience < 2 and alone.get())

    works: list[Work] = []
    await judged(wait(1), wait(2), wait(3))
    await asyncio.sleep(3)
    for work in works:
        work.check()


async def waited_for_to_the_end() -> None:
    async def wait(*patience: float) -> None:
        work = Work()
        try:
            if patience:
                with move_on_after(patience[0]) as scope:
                    await wait_within(work, *patience[1:])
                assert work.done or not alone.get()
                assert scope.cancelled_caught or not scope.cancel_called
            else:
                await wait_within(work)
        finally:
            assert work.task is None or work.task.done()
        assert requests() == 0
        await asyncio.sleep(1)
        assert requests() == 0

    async def wait_within(work: Work, *patience: float) -> None:
        with CancelScope(*patience):
            try:
                assert await shield_wait(work.run()) == "value"
            except JoinError:
                assert not alone.get()

    await judged(wait(), wait(1), wait(1, 1), wait(0.5, 1))


async def a_third_party_cancels_as_well() -> None:
    async def end_late(swallow: bool) -> None:
        try:
            await asyncio.sleep(50)
        except CancelledError:
            await asyncio.sleep(2)
            if not swallow:
                raise

    async def cancel(target: asyncio.Task[None], patience: float) -> None:
        with CancelScope(patience) as scope:
            try:
                await cancel_and_wait(target)
            finally:
                assert target.done()
        assert scope.cancelled_caught == scope.cancel_called and requests() == 0
        await yield_now()

    async def third_party() -> None:
        for target in targets:
            target.cancel("third party")

    targets = [start_task(end_late(swallow)) for swallow in (True, False)]
    await yield_now()
    await judged(*[cancel(target, patience) for target in targets for patience in (1, 5)], third_party())
    await asyncio.sleep(5)


SCENARIOS: list[Scenario] = [shielded_from_who_gives_up, waited_for_to_the_end, a_third_party_cancels_as_well]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_order_of_steps_does_not_matter(scenario: Scenario) -> None:
    explore(partial(left_alone, scenario), runs=60)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_is_lost_when_a_task_is_cancelled(scenario: Scenario) -> None:
    explore_cancellations(scenario, runs=150)


# ---------------------------------------------------------------- teeth


def cancels_what_it_waits_for(self: Any, msg: str | None = None) -> bool:
    return bool(self._future.cancel())


async def gives_up_when_it_is_cancelled(futures: Iterable[asyncio.Future[Any]]) -> None:
    await asyncio.wait(futures)


async def forgets_that_it_was_cancelled(futures: Iterable[asyncio.Future[Any]]) -> None:
    for future in futures:
        while not future.done():
            try:
                await asyncio.wait([future])
            except CancelledError:
                pass


async def stands_one_cancellation_only(futures: Iterable[asyncio.Future[Any]]) -> None:
    try:
        await asyncio.wait(futures)
    except CancelledError:
        await asyncio.wait(futures)
        raise


async def judges_by_the_count_of_the_target(futures: Iterable[asyncio.Future[Any]]) -> None:
    for future in futures:
        try:
            await future
        except CancelledError:
            if isinstance(future, asyncio.Task) and future.cancelling() > 1:
                raise


@pytest.mark.parametrize(
    ("owner", "name", "wrong", "scenario"),
    [
        (_join._Join, "cancel", cancels_what_it_waits_for, shielded_from_who_gives_up),
        (_shield, "wait_for_end", gives_up_when_it_is_cancelled, waited_for_to_the_end),
        (_shield, "wait_for_end", forgets_that_it_was_cancelled, waited_for_to_the_end),
        (_shield, "wait_for_end", stands_one_cancellation_only, waited_for_to_the_end),
        (_cancel, "wait_for_end", forgets_that_it_was_cancelled, a_third_party_cancels_as_well),
        (_cancel, "wait_for_end", judges_by_the_count_of_the_target, a_third_party_cancels_as_well),
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
