"""The operators of time in any order of their steps, cancelled at each of their awaits; and wrong ones, to be caught.

Items and moments coincide all the time in these scenarios. Which of them wins must not be a matter of who runs first.
"""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from yamanote.streams import Stream
from yamanote.streams._clocked import Clocked
from yamanote.streams._fed import Fed
from yamanote.streams._newest import Debounce, Sample, _Newest
from yamanote.streams._spaced import Delay, Throttle
from yamanote.streams._timeout import Timeout
from yamanote.testing import Counterexample, explore, explore_cancellations, replay
from yamanote.time import sleep, time

from .test_streams_explored import Pull, Scenario, Works

COUNT = 6


class Seen(Pull):
    """Pulls a stream to its end; knows when each item was given."""

    def __init__(self, stream: Stream[int]) -> None:
        super().__init__(stream)
        self.times: dict[int, float] = {}

        def note(item: int) -> int:
            self.times[item] = time()
            return item

        self.stream = stream.map(note)


async def gives_all(apply: Callable[[Stream[int]], Stream[int]], check: Callable[[Works, Seen], None]) -> None:
    """Each item comes once, in order, when it may."""
    work = Works()
    seen = Seen(apply(work.source(COUNT, waits=True)))
    await seen.in_a_task_and_then_here()
    assert not work.open
    assert seen.seen == list(range(len(seen.seen)))
    assert seen.cut or len(seen.seen) == COUNT
    check(work, seen)


def far_enough_apart(seconds: float, work: Works, seen: Seen) -> None:
    assert all(later - earlier >= seconds for earlier, later in pairwise(seen.times.values()))


def not_before_its_time(seconds: float, work: Works, seen: Seen) -> None:
    assert all(moment >= work.came[item] + seconds for item, moment in seen.times.items())


def exactly(seconds: float, work: Works, seen: Seen) -> None:
    assert all(moment == work.came[item] + seconds for item, moment in seen.times.items())


async def gives_the_newest(
    apply: Callable[[Stream[int]], Stream[int]], due: Callable[[float], float], *, exact: bool
) -> None:
    """What is given is what was the newest at its moment, in order, and the last item of all is."""
    work = Works()
    seen = Seen(apply(work.source(COUNT, waits=True)))
    await seen.in_a_task_and_then_here()
    assert not work.open
    ends = max(work.came.values(), default=0.0)
    moments = {item: due(came) for item, came in work.came.items()}
    ripe = [item for item, moment in moments.items() if item == COUNT - 1 or moment <= work.came.get(item + 1, -1)]
    if exact:
        assert seen.seen == ripe
        assert all(moment == min(moments[item], ends) or item == COUNT - 1 for item, moment in seen.times.items())
    elif not seen.cut:
        assert set(seen.seen) <= set(ripe) and seen.seen == sorted(seen.seen) and seen.seen[-1] == COUNT - 1
        assert all(moment >= min(moments[item], ends) for item, moment in seen.times.items())


async def gives_up(seconds: float) -> None:
    """Either all items, or those before one that took longer, then the error; the source is closed by then."""
    work = Works()
    seen = Seen(work.source(COUNT, waits=True).timeout(seconds))
    late = False
    try:
        await seen.in_a_task_and_then_here()
    except TimeoutError:
        late = True
    assert not work.open
    assert seen.seen == list(range(len(seen.seen)))
    assert seen.cut or late or (len(seen.seen) == COUNT and seconds >= 2)  # the source takes 2 at most
    if late:
        assert time() >= (work.came[seen.seen[-1]] if seen.seen else 0) + seconds


async def leaves(apply: Callable[[Stream[int]], Stream[int]]) -> None:
    """Who leaves while others wait ends that wait, and leaves nothing behind: no task, no timer, no open source."""
    work = Works()
    stream = apply(work.source(9, waits=True))

    async def pull() -> None:
        async for _ in stream:
            pass

    async def leave() -> None:
        await sleep(2)
        await stream.aclose()

    tasks = [asyncio.create_task(pull()), asyncio.create_task(leave())]
    await asyncio.wait(tasks)
    await stream.aclose()
    assert not work.open
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert tasks[1].cancelled() or time() <= 3


def next_tick(moment: float) -> float:
    return moment // 2 * 2 + 2


orders: dict[str, Scenario] = {
    "throttle": partial(gives_all, lambda s: s.throttle(1), partial(far_enough_apart, 1)),
    "delay": partial(gives_all, lambda s: s.delay(1), partial(exactly, 1)),
    "delay, one at a time": partial(gives_all, lambda s: s.delay(1, limit=1), partial(not_before_its_time, 1)),
    "debounce": partial(gives_the_newest, lambda s: s.debounce(1), lambda moment: moment + 1, exact=True),
    "sample": partial(gives_the_newest, lambda s: s.sample(2), next_tick, exact=True),
    "timeout": partial(gives_up, 1.5),
    "timeout, at the same time": partial(gives_up, 2),
}
cancellations: dict[str, Scenario] = {
    "throttle": orders["throttle"],
    "delay": partial(gives_all, lambda s: s.delay(1), partial(not_before_its_time, 1)),
    "delay, one at a time": orders["delay, one at a time"],
    "debounce": partial(gives_the_newest, lambda s: s.debounce(1), lambda moment: moment + 1, exact=False),
    "sample": partial(gives_the_newest, lambda s: s.sample(2), next_tick, exact=False),
    "timeout": orders["timeout"],
    "timeout, at the same time": orders["timeout, at the same time"],
}
left: dict[str, Scenario] = {
    name: partial(leaves, apply)
    for name, apply in {
        "throttle": lambda s: s.throttle(3),
        "delay": lambda s: s.delay(100),
        "debounce": lambda s: s.debounce(3),
        "sample": lambda s: s.sample(3),
        "timeout": lambda s: s.timeout(5),
        "chunks_timeout": lambda s: s.chunks_timeout(9, 100),
    }.items()
}


@pytest.mark.parametrize("name", orders)
def test_in_any_order(name: str) -> None:
    explore(orders[name], runs=40)


@pytest.mark.parametrize("name", cancellations)
def test_cancelled_anywhere(name: str) -> None:
    explore_cancellations(cancellations[name], runs=60)


@pytest.mark.parametrize("name", left)
def test_left_at_any_moment(name: str) -> None:
    explore(left[name], runs=20)
    explore_cancellations(left[name], runs=40)


def hold_one_more(operator: Throttle[Any]) -> bool:
    return True


def hold_what_somebody_waits_for(operator: Clocked[Any], item: Any) -> bool:
    if operator._wanted:
        operator._hold(item, operator._now())
        operator._wake()
    return operator._has_room()


def supersede_what_is_due(operator: _Newest[Any], item: Any, now: float) -> None:
    operator._newest = [item]
    operator._newest_due = operator._due_after(now)


def count_from_the_item(sample: Sample[Any], now: float) -> float:
    return now + sample._seconds


def count_from_the_item_before(throttle: Throttle[Any]) -> Any:
    throttle._earliest = max(throttle._earliest, 0.0) + throttle._seconds
    return throttle._item.pop()


def wait_in_the_order_of_the_looks(delay: Delay[Any]) -> Any:
    if delay._items:
        item = delay._items.popleft()[1]
        delay._items = deque((delay._now() + delay._seconds, item) for _, item in delay._items)
        delay._feeder.want()
        return item
    delay.raise_end()


async def close_and_let_them_wait(operator: Fed[Any]) -> None:
    operator._exhausted = True
    if operator._task is not None:
        operator._task.cancel()
    operator._over = True


def forget_the_time(timeout: Timeout[Any]) -> None:
    timeout._expired = True


teeth: dict[str, tuple[type, str, Callable[..., Any], Scenario]] = {
    "one more than there is room for": (Throttle, "_has_room", hold_one_more, cancellations["throttle"]),
    "an item that nobody waits for": (Clocked, "_accept", hold_what_somebody_waits_for, cancellations["delay"]),
    "a close that does not wait": (Fed, "_close", close_and_let_them_wait, left["delay"]),
    "a timeout that wakes nobody": (Timeout, "_expire", forget_the_time, cancellations["timeout"]),
}
teeth_of_order: dict[str, tuple[type, str, Callable[..., Any], Scenario]] = {
    "the newer one wins": (Debounce, "_hold", supersede_what_is_due, orders["debounce"]),
    "ticks that drift": (Sample, "_due_after", count_from_the_item, orders["sample"]),
    "too close": (Throttle, "_take", count_from_the_item_before, orders["throttle"]),
    "too late": (Delay, "_take", wait_in_the_order_of_the_looks, orders["delay"]),
}

broken = pytest.mark.filterwarnings("ignore::ResourceWarning")  # what a broken scenario leaves behind


@pytest.fixture
def break_it(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Scenario]]:
    """Puts a wrong variant in place, and gives the scenario in which that shows."""

    def break_it(owner: type, method: str, wrong: Callable[..., Any], scenario: Scenario) -> Scenario:
        assert method in dir(owner)
        monkeypatch.setattr(owner, method, wrong)
        return scenario

    yield break_it
    gc.collect()


@broken
@pytest.mark.parametrize("tooth", teeth)
def test_some_cancellation_shows_it(tooth: str, break_it: Callable[..., Scenario]) -> None:
    scenario = break_it(*teeth[tooth])
    with pytest.raises(Counterexample) as found:
        explore_cancellations(scenario)
    with pytest.raises(Counterexample):
        replay(scenario, found.value.token)


@broken
@pytest.mark.parametrize("tooth", teeth_of_order)
def test_some_order_shows_it(tooth: str, break_it: Callable[..., Scenario]) -> None:
    scenario = break_it(*teeth_of_order[tooth])
    with pytest.raises(Counterexample) as found:
        explore(scenario)
    with pytest.raises(Counterexample):
        replay(scenario, found.value.token)
