"""A party goes to sleep in the very moment in which it is served: wherever that comes in between, it wakes up."""

from __future__ import annotations

import asyncio
import sys
import threading
from asyncio import Future
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from yamanote.runtime import Selectable, TaskWaiter, Waiter, _waiter, park
from yamanote.testing import Counterexample, explore_preemptions

Operation = Callable[[], object]
Scenario = tuple[Operation, Operation, Operation]


class Place:
    """What one party waits for."""

    def __init__(self, waiter: Waiter[str] | None = None) -> None:
        self.waiters = [] if waiter is None else [waiter]
        self.item: str | None = None

    def put(self) -> None:
        self.item = "item"
        self.serve()

    def serve(self) -> None:
        if self.item is not None and self.waiters and self.waiters[0].claim():
            self.waiters[0].settle(self.item)

    def register(self, waiter: Waiter[Any], /) -> None:
        self.waiters.append(waiter)
        self.serve()

    def withdraw(self, waiter: Waiter[Any], /) -> None: ...


@contextmanager
def on(loop: asyncio.AbstractEventLoop, at_home: bool) -> Iterator[None]:
    """Run what follows as a finalizer or a signal handler of the loop's own thread would; or as another thread does."""
    asyncio._set_running_loop(loop if at_home else None)
    try:
        yield
    finally:
        asyncio._set_running_loop(None)


def turns(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def a_parked_task(at_home: bool) -> Scenario:
    loop, place, coroutine = asyncio.new_event_loop(), Place(), park(Place())
    coroutine.close()
    ends: list[Any] = []

    def wait() -> None:
        nonlocal coroutine
        with on(loop, True):
            coroutine = park(place)
            try:
                ends.append(coroutine.send(None))
            except StopIteration as end:
                ends.append(end.value)

    def serve() -> None:
        with on(loop, at_home):
            place.put()

    def check() -> None:
        turns(loop)
        if ends != ["item"]:
            assert ends[0].done(), "it sleeps for ever"
            with pytest.raises(StopIteration, match="item"):
                coroutine.send(None)

    return wait, serve, check


def a_party_of_branches(at_home: bool, served: int) -> Scenario:
    """What a select does, before it sleeps, and whoever serves one of its branches."""
    loop = asyncio.new_event_loop()
    with on(loop, True):
        party: TaskWaiter[Any] = TaskWaiter()
    waiters = [party, party.branch(), party.branch()]
    place = Place(waiters[served])

    def sleep() -> None:
        with on(loop, True):
            party.future  # noqa: B018

    def serve() -> None:
        with on(loop, at_home):
            place.put()

    def check() -> None:
        turns(loop)
        assert [waiter.settled for waiter in waiters] == [number == served for number in range(3)]
        assert party.future.done(), "it sleeps for ever"
        assert not party.is_waiting()

    return sleep, serve, check


scenarios: dict[str, Callable[[], Scenario]] = {
    "parked, by a finalizer": partial(a_parked_task, True),
    "parked, by a thread": partial(a_parked_task, False),
    **{
        f"branch {served}, by a {who}": partial(a_party_of_branches, who == "finalizer", served)
        for served in range(3)
        for who in ("finalizer", "thread")
    },
}


@pytest.mark.parametrize("name", scenarios)
def test_who_goes_to_sleep_while_it_is_served_wakes_up(name: str) -> None:
    explore_preemptions(scenarios[name], within="yamanote.runtime._waiter")


def test_threads_wake_who_is_just_going_to_sleep() -> None:
    """Many times: what threads without a common lock see of each other, and when, no explorer can order."""
    rounds = 300
    places = [Place() for _ in range(rounds)]
    interval = sys.getswitchinterval()

    def serve() -> None:
        for place in places:
            while not place.waiters:
                pass
            place.put()

    async def wait() -> None:
        thread = threading.Thread(target=serve)
        thread.start()
        for place in places:
            assert await park(place) == "item"
        thread.join()

    sys.setswitchinterval(1e-6)
    try:
        asyncio.run(wait())
    finally:
        sys.setswitchinterval(interval)


# ---------------------------------------------------------------- teeth


def looks_before_it_has_a_future(party: TaskWaiter[Any]) -> Future[None]:
    if party._future is None:
        settled, twin = party.settled, party._twin
        while twin is not None:
            settled = settled or twin.settled
            twin = twin._twin
        party._future = Future(loop=party._loop)
        twin = party._twin
        while twin is not None:
            twin._future = party._future
            twin = twin._twin
        if settled:
            party._rouse()
    return party._future


def leaves_its_branches_awake(party: TaskWaiter[Any]) -> Future[None]:
    if party._future is None:
        party._future = Future(loop=party._loop)
        if party.settled:
            party._rouse()
    return party._future


async def parks_without_a_second_look(operation: Selectable[Any]) -> Any:
    waiter: TaskWaiter[Any] = TaskWaiter()
    operation.register(waiter)
    if not waiter.settled:
        waiter._future = Future(loop=waiter._loop)
        await waiter._future
    return waiter.result()


teeth: list[tuple[Any, str, Any, str]] = [
    (TaskWaiter, "future", property(looks_before_it_has_a_future), "branch 0, by a finalizer"),
    (TaskWaiter, "future", property(looks_before_it_has_a_future), "branch 1, by a finalizer"),
    (TaskWaiter, "future", property(leaves_its_branches_awake), "branch 2, by a finalizer"),
]


@pytest.mark.parametrize("number", range(len(teeth)))
def test_some_preemption_shows_it(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, wrong, scenario = teeth[number]
    monkeypatch.setattr(owner, name, wrong)
    with pytest.raises(Counterexample, match="for ever"):
        explore_preemptions(scenarios[scenario])


def test_a_park_that_looks_only_once_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "park", parks_without_a_second_look)
    with pytest.raises(Counterexample, match="for ever"):
        explore_preemptions(scenarios["parked, by a finalizer"])
    assert park is not _waiter.park
