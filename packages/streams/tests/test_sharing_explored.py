"""Recovering and sharing, in any order of their steps, and cancelled at each of their awaits."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from yamanote import streams
from yamanote.channels import Lagged
from yamanote.runtime import yield_now
from yamanote.streams._feeder import Feeder
from yamanote.streams._handle import take_over
from yamanote.streams._recovery import Catch, Retry
from yamanote.streams._shared import Hub, Subscription
from yamanote.testing import Counterexample, explore, explore_cancellations, replay
from yamanote.time import Schedule, sleep

from .test_streams_explored import Pull, Scenario, ended


class Attempts:
    """What can be begun anew; fails at each of the first `failures` attempts, after one item more each time."""

    def __init__(self, failures: int, count: int, pace: float = 1) -> None:
        self.failures = failures
        self.count = count
        self.pace = pace
        self.made = 0
        self.open = 0
        self.pulled = 0

    def __aiter__(self) -> Attempt:
        assert not self.open, "begun anew before it was closed"
        self.made += 1
        self.open += 1
        return Attempt(self, self.made)


class Attempt:
    """Loses nothing when a pull is cancelled, and takes its time, also to close."""

    def __init__(self, all: Attempts, number: int) -> None:
        self.all = all
        self.fails = number <= all.failures
        self.left = list(range(number if self.fails else all.count))
        self.closed = False

    def __aiter__(self) -> Attempt:
        return self

    async def __anext__(self) -> int:
        assert not self.closed
        await sleep(self.all.pace)
        if self.left:
            self.all.pulled += 1
            return self.left.pop(0)
        raise OSError if self.fails else StopAsyncIteration

    async def aclose(self) -> None:
        await sleep(1)
        if not self.closed:
            self.closed = True
            self.all.open -= 1


async def retries() -> None:
    """However often pulls are cancelled, each attempt is made once, one after the other, by the schedule."""
    attempts = Attempts(failures=2, count=3)
    pull = Pull(streams.iter(attempts).retry(Schedule(1, 1), on=OSError))
    await pull.in_a_task_and_then_here()
    assert pull.seen == [0, 0, 1, 0, 1, 2]
    assert attempts.made == 3 and not attempts.open


async def gives_up() -> None:
    """As often as the schedule says, also if pulls are cancelled in between."""
    attempts = Attempts(failures=9, count=0)
    attempts.made = -2  # two that fail before their first item
    stream = streams.iter(attempts).retry(Schedule(1))

    async def pull() -> None:
        try:
            await anext(stream)
        except OSError:
            failed.append(True)

    failed: list[bool] = []
    async with stream:
        await ended([asyncio.create_task(pull())])
        if not failed:
            await pull()
    assert failed and attempts.made == 0 and not attempts.open


async def catches() -> None:
    """However often pulls are cancelled, what comes instead comes once, behind everything else."""
    attempts, instead = Attempts(failures=0, count=3), Attempts(failures=0, count=2)

    async def check(number: int) -> int:
        await sleep(1)
        return 1 // (1 - number) - 1  # which fails for the second

    async def handle(error: Exception) -> Attempts:
        assert not attempts.open
        await sleep(1)
        return instead

    pull = Pull(streams.iter(attempts).map(check).catch(handle))
    await pull.in_a_task_and_then_here()
    assert pull.seen == [0, 0, 1]
    assert (attempts.made, instead.made) == (1, 1) and not instead.open


async def broadcasts(count: int) -> None:
    """Each gets every item, in order; who is cancelled loses nothing; a source that was cut is cut for all."""
    source = Attempts(failures=0, count=4, pace=0)
    pulls = [Pull(stream) for stream in streams.iter(source).broadcast(count, 9)]

    await ended([asyncio.create_task(pull()) for pull in pulls])
    for pull in pulls:
        await pull()
        await pull.stream.aclose()
        assert pull.seen == pulls[0].seen == [0, 1, 2, 3][: len(pull.seen)]
        assert pull.cut <= 1 and (pull.cut or len(pull.seen) == 4)
    assert not source.open


async def keeps_pace(capacity: int) -> None:
    """The source is never more than `capacity` items ahead of the slowest; who leaves holds up nobody."""
    source = Attempts(failures=0, count=5, pace=0)
    fast, slow = streams.iter(source).broadcast(2, capacity)
    seen: list[int] = []
    taken = 0

    async def race() -> None:
        pull = Pull(fast)
        pull.seen = seen
        await pull()

    def race_again(task: asyncio.Task[None]) -> None:
        if task.cancelled():
            racing.append(asyncio.create_task(race()))
            racing[-1].add_done_callback(race_again)

    async def dawdle() -> None:
        nonlocal taken
        with suppress(StopAsyncIteration):
            while taken < 2:
                await sleep(1)
                assert await anext(slow) == taken
                taken += 1
                assert source.pulled <= taken + capacity
            await slow.aclose()

    racing = [asyncio.create_task(race())]
    racing[0].add_done_callback(race_again)
    dawdling = asyncio.create_task(dawdle())
    await asyncio.wait([dawdling])
    assert source.pulled <= max(taken + capacity, 5 * (taken == 2))
    await slow.aclose()
    while not racing[-1].done():
        await asyncio.wait(racing)
    await fast.aclose()
    assert seen == [0, 1, 2, 3, 4][: len(seen)]
    assert not source.open
    racing[-1].result()
    if not dawdling.cancelled():
        dawdling.result()


async def shares(overflow: Any) -> None:
    """Whoever comes and goes: a subscriber gets what follows on one another; with the last one the source is closed."""
    source = Attempts(failures=0, count=5)
    shared = streams.iter(source).share(1, overflow=overflow)

    async def subscribe(delay: float, count: int) -> list[int]:
        await sleep(delay)
        seen: list[int] = []
        try:
            async with shared.subscribe() as stream:
                async for item in stream:
                    seen.append(item)
                    await sleep(delay)
                    if len(seen) == count:
                        break
        except Lagged:
            assert overflow == "lag"
        except RuntimeError as error:
            assert "its last subscriber has left" in str(error)
        if overflow != "drop_oldest":
            assert seen == list(range(seen[0], seen[0] + len(seen))) if seen else True
        return seen

    tasks = [asyncio.create_task(subscribe(delay, count)) for delay, count in ((0, 9), (1, 2), (2.5, 9))]
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            with suppress(asyncio.CancelledError):  # the feeder was
                task.result()
    assert not source.open or not source.pulled
    await shared.aclose()
    assert not source.open


scenarios: dict[str, Scenario] = {
    "retry": retries,
    "retry, to the end of the schedule": gives_up,
    "catch": catches,
    "broadcast": partial(broadcasts, 2),
    "broadcast, a pace": partial(keeps_pace, 1),
    "share": partial(shares, "suspend"),
    "share, lagging": partial(shares, "lag"),
    "share, dropping": partial(shares, "drop_oldest"),
}


@pytest.mark.parametrize("name", scenarios)
def test_in_any_order(name: str) -> None:
    explore(scenarios[name], runs=30)


@pytest.mark.parametrize("name", scenarios)
def test_cancelled_anywhere(name: str) -> None:
    explore_cancellations(scenarios[name], runs=80)


# Teeth: each wrong variant must show in its scenario.


async def count_a_failure_again(retry: Any, failure: Exception) -> None:
    retry._due = None
    await recover_by_the_book(retry, failure)


recover_by_the_book = Retry._recover


async def call_the_handler_once(catch: Any, failure: Exception) -> None:
    if catch._recovered:
        raise failure
    catch._recovered = True
    catch._go_on_with(take_over(await catch._handler(failure)))


async def hold_an_item_in_the_hand(subscription: Any) -> Any:
    item = await pull_by_the_book(subscription)
    await yield_now()
    return item


pull_by_the_book = Subscription.pull


def pull_whatever_the_slowest_has(hub: Any) -> None:
    hub._limit = None
    demand_by_the_book(hub)


demand_by_the_book = Hub.demand


def see_no_room(hub: Any, behind: int) -> None:
    pass


async def close_nothing(hub: Any) -> None:
    if hub.starved:
        hub.demand()


async def leave_the_others_waiting(hub: Any) -> None:
    if hub.is_deserted:
        await hub.close()


def take_a_cut_for_the_end(hub: Any, failure: BaseException | None) -> None:
    exhaust_by_the_book(hub, failure if isinstance(failure, Exception) else None)


exhaust_by_the_book = Hub._exhaust


def hear_nothing_of_a_task_that_never_began(feeder: Any, task: object) -> None:
    pass


teeth: dict[str, tuple[type, str, Any, str]] = {
    "a delay is counted twice": (Retry, "_recover", count_a_failure_again, "retry, to the end of the schedule"),
    "a handler is called once": (Catch, "_recover", call_the_handler_once, "catch"),
    "an item is lost": (Subscription, "pull", hold_an_item_in_the_hand, "broadcast"),
    "the slowest is overrun": (Hub, "demand", pull_whatever_the_slowest_has, "broadcast, a pace"),
    "nobody sees that there is room": (Hub, "attend", see_no_room, "broadcast, a pace"),
    "who leaves holds up the others": (Hub, "leave", leave_the_others_waiting, "broadcast, a pace"),
    "the last leaves the source open": (Hub, "leave", close_nothing, "share"),
    "a cut source passes for its end": (Hub, "_exhaust", take_a_cut_for_the_end, "broadcast"),
    "a feeder that never began": (Feeder, "_check", hear_nothing_of_a_task_that_never_began, "broadcast"),
}


@pytest.fixture
def break_it(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Puts a wrong variant in place, and tells in which scenario that shows."""

    def break_it(tooth: str) -> str:
        owner, method, wrong, name = teeth[tooth]
        monkeypatch.setattr(owner, method, wrong)
        return name

    yield break_it
    gc.collect()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # what a broken scenario leaves behind
@pytest.mark.parametrize("tooth", teeth)
def test_some_cancellation_shows_it(tooth: str, break_it: Callable[[str], str]) -> None:
    name = break_it(tooth)
    with pytest.raises(Counterexample) as found:
        explore_cancellations(scenarios[name])
    with pytest.raises(Counterexample):
        replay(scenarios[name], found.value.token)
