"""Select with `else_`, in any order and cancelled anywhere; and in threads, wherever one of them is stopped."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from yamanote.futures import CompletionQueue, blocking_select, failed_branch, select, task_set
from yamanote.futures import _blocking_select as in_threads
from yamanote.runtime import CriticalSection, JoinError, ThreadWaiter, Waiter
from yamanote.testing import Counterexample, explore, explore_cancellations, explore_preemptions, replay
from yamanote.time import sleep

# ---------------------------------------------------------------- else


async def takes_until_else(takers: int, alone: bool) -> None:
    """Every task of a set is taken once, and nobody is told that there are none while there is one to be taken."""
    seen: list[str] = []
    told: list[int] = []
    disturbed = False

    async def work(name: str, seconds: float) -> str:
        await sleep(seconds)
        return name

    async def take() -> None:
        while True:
            try:
                if alone:
                    name, value = await select(tasks, else_=None)
                else:
                    name, value = await select(tasks=tasks, paused=None, timeout=9, else_=None)
            except JoinError as error:
                seen.append(failed_branch(error)[-1])
            except TimeoutError:  # others took the last one while this one waited for it
                return
            else:
                if name == "else_":
                    told.append(len(tasks))
                    return
                seen.append(value if alone else value[0])

    async with task_set(a=work("a", 1), b=work("b", 1), c=work("c", 2)) as tasks:
        taking = [asyncio.create_task(take()) for _ in range(takers)]
        await asyncio.wait(taking)
        disturbed = any(task.cancelled() for task in taking)
        await take()
    assert sorted(seen) == ["a", "b", "c"]
    assert told and (disturbed or not any(told))


scenarios: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
    "a set, one party": partial(takes_until_else, 1, True),
    "a set, two parties": partial(takes_until_else, 2, True),
    "a branch": partial(takes_until_else, 1, False),
    "a branch, two parties": partial(takes_until_else, 2, False),
}


@pytest.mark.parametrize("name", scenarios)
def test_else_comes_after_the_last_in_any_order(name: str) -> None:
    explore(scenarios[name], runs=40)


@pytest.mark.parametrize("name", scenarios)
def test_else_comes_after_the_last_when_parties_are_cancelled(name: str) -> None:
    explore_cancellations(scenarios[name], runs=60)


def count_only_those_that_have_finished(queue: CompletionQueue[Any, Any]) -> int:
    return len(queue._finished)


@pytest.mark.parametrize("name", scenarios)
def test_an_else_that_comes_while_tasks_run_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CompletionQueue, "__len__", count_only_those_that_have_finished)
    with pytest.raises(Counterexample) as found:
        explore(scenarios[name])
    with pytest.raises(Counterexample):
        replay(scenarios[name], found.value.token)


# ---------------------------------------------------------------- threads


class Box:
    """The least that can be waited for, from any thread."""

    def __init__(self) -> None:
        self.section = CriticalSection()
        self.items: deque[int] = deque()
        self.waiters: list[Waiter[Any]] = []

    def put(self, item: int) -> None:
        with self.section:
            self.items.append(item)
            self._match()

    def register(self, waiter: Waiter[Any], /) -> None:
        with self.section:
            self.waiters.append(waiter)
            self._match()

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        with self.section:
            if waiter in self.waiters:
                self.waiters.remove(waiter)
            elif waiter.settled:
                self.items.appendleft(waiter.value)
                self._match()

    def _match(self) -> None:
        while self.items and self.waiters:
            if self.waiters.pop(0).hand(self.items[0]):
                self.items.popleft()


Operation = Callable[[], object]


def a_thread_selects_while_it_is_served(timeout: float | None) -> tuple[Operation, Operation, Operation]:
    boxes = [Box(), Box()]
    idle = Box()
    taken: list[int] = []

    def take() -> None:
        try:
            taken.append(blocking_select(idle=idle, one=boxes[0], two=boxes[1], biased=True, timeout=timeout)[1])
        except TimeoutError:
            pass

    def put() -> None:
        boxes[1].put(1)
        boxes[0].put(2)

    def check() -> None:
        assert sorted([*taken, *boxes[0].items, *boxes[1].items]) == [1, 2]
        assert timeout == 0 or taken
        assert not (idle.waiters or boxes[0].waiters or boxes[1].waiters)

    return take, put, check


def two_threads_select_what_there_is_once() -> tuple[Operation, Operation, Operation]:
    boxes = [Box(), Box()]
    boxes[0].put(1)
    taken: list[int] = []

    def take(*order: int) -> None:
        try:
            taken.append(blocking_select({str(n): boxes[n] for n in order}, biased=True, timeout=0)[1])
        except TimeoutError:
            pass

    def check() -> None:
        assert taken == [1]
        assert not (boxes[0].items or boxes[0].waiters or boxes[1].waiters)

    return partial(take, 0, 1), partial(take, 1, 0), check


threaded: dict[str, Callable[[], tuple[Operation, Operation, Operation]]] = {
    "for ever": partial(a_thread_selects_while_it_is_served, None),
    "without waiting": partial(a_thread_selects_while_it_is_served, 0),
    "two": two_threads_select_what_there_is_once,
}


@pytest.mark.parametrize("name", threaded)
def test_a_thread_that_selects_may_be_stopped_anywhere(name: str) -> None:
    explore_preemptions(threaded[name], within="yamanote.futures")


def forget_the_losers(branches: Any, waiters: list[Waiter[Any]]) -> int:
    return next(index for index, waiter in enumerate(waiters) if waiter.settled)


def branch_that_is_claimed_by_itself(party: ThreadWaiter[Any]) -> ThreadWaiter[Any]:
    twin: ThreadWaiter[Any] = ThreadWaiter()
    twin._sleep = party._sleep
    return twin


def claim_whatever_it_is(waiter: ThreadWaiter[Any]) -> bool:
    return True


teeth: dict[str, tuple[Any, str, Any, str]] = {
    "the losers are forgotten": (in_threads, "commit", forget_the_losers, "for ever"),
    "each branch has a claim of its own": (ThreadWaiter, "branch", branch_that_is_claimed_by_itself, "for ever"),
    "gives up without a claim": (ThreadWaiter, "claim", claim_whatever_it_is, "without waiting"),
}


@pytest.mark.parametrize("tooth", teeth)
def test_some_preemption_shows_it(tooth: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, wrong, scenario = teeth[tooth]
    monkeypatch.setattr(owner, name, wrong)
    with pytest.raises(Counterexample):
        explore_preemptions(threaded[scenario], within="yamanote.futures")
