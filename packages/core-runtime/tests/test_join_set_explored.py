"""Join sets, join maps and trackers in many orders of their steps, and cancelled wherever that is possible."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from yamanote.runtime import (
    JoinError,
    JoinHandle,
    JoinMap,
    JoinSet,
    TaskTracker,
    Waiter,
    move_on_after,
    park,
)
from yamanote.testing import Counterexample, explore, explore_cancellations, replay

from .test_runtime_explored import alone, judged, left_alone, requests

Scenario = Callable[[], Coroutine[Any, Any, None]]


async def tasks_are_spawned_and_joined_by_several() -> None:
    jobs: JoinSet[int] = JoinSet()
    spawned: list[JoinHandle[int]] = []
    joined: list[JoinHandle[int]] = []

    async def work(number: int) -> int:
        await asyncio.sleep(number % 2)
        if number == 3:
            raise LookupError
        return number

    async def spawns(first: int) -> None:
        for number in range(first, first + 2):
            spawned.append(jobs.spawn(work(number), eager=number == 1))
            await asyncio.sleep(0.5)

    async def joins(patience: float) -> None:
        with move_on_after(patience):
            while True:
                done = await (jobs.join_next() if patience > 2 else park(jobs))
                if done is None:
                    break
                assert done.is_finished()
                joined.append(done)
        assert requests() == 0

    async def watches() -> None:
        for _ in range(20):
            assert not (jobs._ended and jobs._waiters), "somebody waits for what is there"
            await asyncio.sleep(0.1)

    await judged(spawns(0), spawns(2), joins(9), joins(9), joins(1), joins(1.5), watches())
    async for done in jobs:
        joined.append(done)
    assert Counter(map(id, joined)) == Counter(map(id, spawned)), "a task was joined twice, or never"
    for number, done in enumerate(sorted(joined, key=lambda each: each.name)):
        try:
            assert await done in range(4), number
        except (LookupError, JoinError):
            pass
    assert not jobs._running and not jobs._waiters and len(jobs) == 0
    assert not alone.get() or [done for done in joined if not done.is_cancelled()] == joined


async def sets_end_with_their_blocks() -> None:
    running = 0

    async def work(number: int) -> None:
        nonlocal running
        running += 1
        try:
            await asyncio.sleep(number)
        finally:
            try:
                await asyncio.sleep(0.5)
            finally:
                running -= 1

    async def fails() -> None:
        await asyncio.sleep(1)
        raise TimeoutError

    async def block(leaves: str) -> None:
        nonlocal running
        running = 0
        try:
            async with JoinSet[None]() as jobs:
                for number in (1, 2, 9):
                    jobs.spawn(work(number))
                if leaves == "fails":
                    jobs.spawn(fails())
                    await jobs.join_all()
                if leaves == "with an error":
                    await jobs.join_next()
                    raise LookupError
                await jobs.join_next()
        except (LookupError, TimeoutError, JoinError):
            assert leaves != "early" or not alone.get()
        finally:
            assert running == 0 and len(jobs) == 0
        await asyncio.sleep(1)
        assert requests() == 0

    if not alone.get():  # then nobody may be left to take the error of a task
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    for leaves in ("early", "fails", "with an error"):
        await judged(block(leaves))


async def keys_are_given_to_others() -> None:
    jobs: JoinMap[str, str] = JoinMap()
    owner: dict[str, JoinHandle[str]] = {}
    replaced: set[JoinHandle[str]] = set()
    joined: list[JoinHandle[str]] = []

    async def work(value: str, seconds: float) -> str:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
            raise
        return value

    async def spawns(values: str, key: str) -> None:
        for value in values:
            if key in jobs:
                replaced.add(owner[key])
            owner[key] = jobs.spawn(key, work(value, 1))
            await asyncio.sleep(1)

    async def joins(patience: float) -> None:
        with move_on_after(patience):
            while True:
                entry: tuple[str, JoinHandle[str]] = await park(jobs)
                key, done = entry
                joined.append(done)
                assert done not in replaced
                assert not alone.get() or not done.is_cancelled(), key
        assert requests() == 0

    await judged(spawns("abc", "key"), spawns("de", "other"), joins(9), joins(1), joins(2))
    async for _key, done in jobs:
        joined.append(done)
    assert len(set(joined)) == len(joined) and not replaced & set(joined)
    assert not list(jobs.keys()) and not jobs._waiters
    await jobs.shutdown()
    assert all(handle.is_finished() for handle in replaced)


async def a_tracker_is_closed_and_opened() -> None:
    tracker = TaskTracker()
    moments: list[float] = []
    loop = asyncio.get_running_loop()

    def now() -> None:
        if tracker.is_closed() and not len(tracker):
            moments.append(loop.time())

    async def work(seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def waits(patience: float) -> None:
        with move_on_after(patience) as scope:
            await tracker.wait()
            assert moments
        assert scope.cancelled_caught or moments
        assert requests() == 0

    async def opens() -> None:
        with tracker.token():
            await asyncio.sleep(1.5)
            tracker.close()
        now()
        tracker.reopen()
        tracker.spawn(work(9))

    handles = [tracker.spawn(work(1)) for _ in range(2)]
    await judged(waits(9), waits(9), waits(1.5), opens())
    assert all(handle.is_finished() for handle in handles)
    if not moments:  # who opens was cancelled
        assert not alone.get()
    assert not alone.get() or (moments == [1.5] and loop.time() == 1.5)
    assert not tracker._waiters
    tracker.close()
    await tracker.wait()


SCENARIOS: list[Scenario] = [
    tasks_are_spawned_and_joined_by_several,
    sets_end_with_their_blocks,
    keys_are_given_to_others,
    a_tracker_is_closed_and_opened,
]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_order_of_steps_does_not_matter(scenario: Scenario) -> None:
    explore(partial(left_alone, scenario), runs=60)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_is_lost_and_nothing_left_when_a_task_is_cancelled(scenario: Scenario) -> None:
    explore_cancellations(scenario, runs=100)


# ---------------------------------------------------------------- teeth


def gives_nothing_back(self: Any, waiter: Waiter[Any]) -> None:
    if not waiter.settled and waiter in self._waiters:
        self._waiters.remove(waiter)


def gives_back_and_tells_nobody(self: Any, waiter: Waiter[Any]) -> None:
    gives_nothing_back(self, waiter)
    if waiter.settled and waiter.value is not None:
        self._ended.append(waiter.value)


def remembers_who_gave_up(self: Any, waiter: Waiter[Any]) -> None:
    if waiter.settled:
        self.__right_withdraw__(waiter)


async def does_not_wait(self: Any) -> None:
    self.abort_all()
    self.detach_all()


def delivers_the_old_as_the_new(self: Any, key: Any, old: Any) -> None:
    old.abort()


def gives_back_what_was_replaced(self: Any, entry: Any) -> bool:
    self._handles[entry[0]] = entry[1]
    return True


def looks_when_they_run(self: Any) -> None:
    if self._closed and not self._count:
        asyncio.get_running_loop().call_soon(self.__right_wake_at_the_end__)


@pytest.mark.parametrize(
    ("owner", "name", "wrong", "scenario"),
    [
        (JoinSet, "_withdraw", gives_nothing_back, tasks_are_spawned_and_joined_by_several),
        (JoinSet, "_withdraw", gives_back_and_tells_nobody, tasks_are_spawned_and_joined_by_several),
        (JoinSet, "_withdraw", remembers_who_gave_up, tasks_are_spawned_and_joined_by_several),
        (JoinSet, "shutdown", does_not_wait, sets_end_with_their_blocks),
        (JoinMap, "_disown", delivers_the_old_as_the_new, keys_are_given_to_others),
        (JoinMap, "_given_back", gives_back_what_was_replaced, keys_are_given_to_others),
        (TaskTracker, "_wake_at_the_end", looks_when_they_run, a_tracker_is_closed_and_opened),
        (TaskTracker, "_withdraw", remembers_who_gave_up, a_tracker_is_closed_and_opened),
    ],
)
def test_it_is_caught(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, wrong: Callable[..., Any], scenario: Scenario
) -> None:
    monkeypatch.setattr(owner, f"__right_{name.strip('_')}__", getattr(owner, name), raising=False)
    monkeypatch.setattr(owner, name, wrong)
    undisturbed = partial(left_alone, scenario)
    with pytest.raises(Counterexample) as caught:
        explore(undisturbed, runs=120)
        explore_cancellations(scenario, runs=300)
    with pytest.raises(Counterexample):
        replay(scenario if "@" in caught.value.token else undisturbed, caught.value.token)
