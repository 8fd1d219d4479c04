"""What is shared, in any order of steps and cancelled wherever that is possible; wrong variants of it are caught."""

from __future__ import annotations

import asyncio
import sys
from asyncio import CancelledError
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

import pytest

from yamanote.futures import Shared, lazy, select, shared, single_flight
from yamanote.runtime import JoinError, start_task, yield_now
from yamanote.testing import Counterexample, explore, explore_cancellations
from yamanote.time import sleep


async def ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Wait until `tasks` have ended; raise what went wrong in them."""
    tasks = list(tasks)
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


class Runs:
    """Runs that take their time, also to clean up; the first may fail."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.begun = 0
        self.running: set[int] = set()
        self.values: list[int] = []

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        self.running.add(number)
        try:
            await sleep(1)
            if self.fails and number == 1:
                raise LookupError
            self.values.append(number)
            return number
        except CancelledError:
            await yield_now()
            raise
        finally:
            self.running.discard(number)


def requests() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def several_await(
    disturbed: bool, begin: Callable[[Runs], Shared[int]], *, fails: bool = False, keeps: bool = False
) -> None:
    """All get the one outcome; who is cancelled takes the run along only when nobody else wants it."""
    runs = Runs(fails)
    page = begin(runs)
    outcomes: list[object] = []

    async def ask(delay: float) -> None:
        await sleep(delay)
        try:
            outcomes.append(await page)
        except CancelledError:
            assert requests()  # nobody else's cancellation gets here
            if not keeps and all(task.done() for task in tasks if task is not asyncio.current_task()):
                assert not runs.running, "it was abandoned, and goes on"
            raise
        except LookupError:
            outcomes.append(LookupError)
        except JoinError:
            assert disturbed  # the run was cancelled, or all who waited were
            outcomes.append(JoinError)
        assert not requests()

    tasks = [start_task(ask(delay)) for delay in (0, 0, 0.5, 1, 2)]
    await ended(tasks)
    if keeps:
        await sleep(2)
    assert not runs.running and len(asyncio.all_tasks()) == 1
    assert len(set(outcomes) - {JoinError}) <= 1
    if not disturbed:
        assert runs.begun == 1 and outcomes == [LookupError if fails else 1] * 5


async def comes_back(disturbed: bool) -> None:
    """A lazy value is made again for who comes when all before were cancelled, and is then kept."""
    runs = Runs()
    value = lazy(runs)

    async def ask() -> int:
        return await value

    first = [start_task(ask()), start_task(ask())]
    await sleep(0.5)
    for task in first:
        task.cancel()
    await asyncio.wait(first)
    assert not runs.running, "it was abandoned, and goes on"
    second = start_task(ask())
    await asyncio.wait([second])
    assert runs.begun <= 2 and not runs.running
    if not disturbed:
        assert second.result() == await value == 2
    elif not second.cancelled():
        second.exception()  # JoinError, if the run was cancelled


async def some_select(disturbed: bool) -> None:
    """A select that loses, or is cancelled, leaves the run to the others; one that waits is a reason to go on."""
    runs = Runs()
    page = shared(runs())

    async def choose() -> None:
        while True:
            try:
                name, value = await select(page=page, tick=sleep(0.4))
            except JoinError:
                assert disturbed
                return
            if name == "page":
                assert value == 1
                return

    async def wait() -> None:
        try:
            assert await select(page=page) == ("page", 1)
        except JoinError:
            assert disturbed

    async def ask() -> None:
        try:
            assert await page == 1
        except JoinError:
            assert disturbed

    tasks = [start_task(choose()), start_task(ask()), start_task(wait())]
    await sleep(0.3)
    tasks[1].cancel()
    await ended(tasks)
    await page.aclose()
    assert not runs.running and len(asyncio.all_tasks()) == 1
    if not disturbed:
        assert not tasks[2].cancelled() and runs.values == [1]


async def closes(_: bool) -> None:
    """Whoever closes it, the run has ended then, and all who wait are let go."""
    runs = Runs()
    page = shared(runs(), keep=True)

    async def ask() -> None:
        try:
            await page
        except JoinError:
            pass

    async def close() -> None:
        await sleep(0.5)
        try:
            await page.aclose()
        finally:
            assert not runs.running

    await ended([start_task(ask()), start_task(ask()), start_task(close()), start_task(close())])
    await page.aclose()
    assert not runs.running and len(asyncio.all_tasks()) == 1


async def calls_share(disturbed: bool, *, fails: bool = False, forgets: bool = False) -> None:
    """Who asks for a key that is in flight joins it; nothing is left behind by a key."""
    runs = {"a": Runs(fails), "b": Runs()}

    @single_flight
    async def function(key: str) -> int:
        return await runs[key]()

    async def ask(key: str, delay: float) -> None:
        await sleep(delay)
        try:
            assert await function(key) in runs[key].values
        except CancelledError:
            assert requests()
            if all(task.done() for task in tasks if task is not asyncio.current_task()):
                assert not runs[key].running
            raise
        except LookupError:
            assert fails
        except JoinError:
            assert disturbed  # the run was cancelled
        assert not requests()

    pauses = [("a", 0), ("a", 0), ("b", 0.5), ("a", 0.9), ("a", 1), ("b", 2.5)]
    tasks = [start_task(ask(key, pause)) for key, pause in pauses]
    if forgets:
        await sleep(0.3)
        assert function.forget("a") or disturbed
    await ended(tasks)
    assert len(function._flights) == 0
    assert not runs["a"].running and not runs["b"].running and len(asyncio.all_tasks()) == 1
    if not disturbed:
        # The call at second 1 may come before the end of the first run, or behind it.
        assert runs["a"].begun <= (3 if forgets else 2) and runs["b"].begun == 2


def of_coroutine(runs: Runs) -> Shared[int]:
    return shared(runs())


def kept(runs: Runs) -> Shared[int]:
    return shared(runs(), keep=True)


scenarios: dict[str, Callable[[bool], Coroutine[Any, Any, None]]] = {
    "shared": partial(several_await, begin=of_coroutine),
    "shared, failing": partial(several_await, begin=of_coroutine, fails=True),
    "shared, kept": partial(several_await, begin=kept, keeps=True),
    "lazy": partial(several_await, begin=lazy),
    "lazy, failing": partial(several_await, begin=lazy, fails=True),
    "lazy, begun again": comes_back,
    "select": some_select,
    "close": closes,
    "single flight": calls_share,
    "single flight, failing": partial(calls_share, fails=True),
    "single flight, forgotten": partial(calls_share, forgets=True),
}
each = pytest.mark.parametrize("name", scenarios)


@each
def test_the_order_of_steps_does_not_matter(name: str) -> None:
    explore(partial(scenarios[name], False), runs=30)


@each
def test_nothing_is_left_when_a_task_is_cancelled(name: str) -> None:
    explore_cancellations(partial(scenarios[name], True), runs=60)


# ---------------------------------------------------------------- teeth


def leave_it_running(page: Shared[Any], run: Any, party: object) -> bool:
    run.parties.discard(party)
    return False


def cancel_with_the_first(page: Shared[Any], run: Any, party: object) -> bool:
    return party in run.parties


async def cancel_without_waiting(handle: Any, reason: str) -> None:
    handle.abort(reason)


def forget_who_selects(page: Shared[Any], waiter: Any) -> None:
    waiter.operation = None
    run = page._join(waiter)
    run.parties.discard(waiter)
    run.handle.register(waiter)


engine: Any = sys.modules[Shared.__module__]
wrong: dict[str, tuple[Any, str, Any, str]] = {
    "a run that goes on when nobody wants it": (Shared, "_leave", leave_it_running, "lazy, begun again"),
    "a run that ends with the first who leaves": (Shared, "_leave", cancel_with_the_first, "select"),
    "an end that is not waited for": (engine, "cancel_and_wait", cancel_without_waiting, "lazy, begun again"),
    "a select that does not count": (Shared, "register", forget_who_selects, "select"),
    "a lazy value that stays cancelled": (engine._Run, "is_lost", lambda run: False, "lazy, begun again"),
}


@pytest.mark.parametrize("name", wrong)
def test_a_wrong_variant_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, attribute, variant, scenario = wrong[name]
    monkeypatch.setattr(where, attribute, variant)
    with pytest.raises(Counterexample):
        explore(partial(scenarios[scenario], False), runs=100)
