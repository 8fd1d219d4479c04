"""Eager starts, stepping by hand and places in the queue, in many orders, and cancelled wherever that is possible.

At the end the teeth: each of these wrong variants is caught, by a scenario that the right one passes.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest

from yamanote.runtime import (
    CancelScope,
    TaskGroup,
    Waiter,
    _scheduling,
    _stepping,
    blocked_tasks,
    coro_as_future,
    coro_continue,
    coro_is_blocked,
    coro_start,
    create_task_descend,
    eager,
    park,
    runnable_tasks,
    sleep_insert,
    start_task,
    yield_now,
)
from yamanote.runtime._eager_start import start_now
from yamanote.testing import Counterexample, explore, explore_cancellations

Scenario = Callable[[], Coroutine[Any, Any, None]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(*cases: str) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], Any]:
    """Put a scenario under both explorers, once for each of the `cases`, which are its only argument."""

    def add(function: Callable[..., Coroutine[Any, Any, None]]) -> Any:
        for case in cases:
            SCENARIOS[f"{function.__name__}[{case}]"] = partial(function, case)
        if not cases:
            SCENARIOS[function.__name__] = function
        return function

    return add


alone: ContextVar[bool] = ContextVar("alone", default=False)
"""Whether nobody cancels from outside."""


async def left_alone(scenario: Scenario) -> None:
    alone.set(True)
    await scenario()


async def under_an_eager_task_factory(scenario: Scenario) -> None:
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    await left_alone(scenario)


async def judged(*coroutines: Coroutine[Any, Any, Any]) -> None:
    """Run each in a task of its own: who is cancelled from outside ends cancelled, and nobody else does."""
    tasks = [start_task(coroutine) for coroutine in coroutines]
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()
        assert task.cancelled() == (task.cancelling() > 0), f"{task} has {task.cancelling()} requests"
        assert not (task.cancelled() and alone.get()), f"{task} was cancelled, and nobody has asked for it"


def in_the_way_of_3_11(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return start_now(coroutine, asyncio.get_running_loop(), None, None)


def how(start: str) -> Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]:
    return eager if start == "eager" else in_the_way_of_3_11


# ---------------------------------------------------------------- eager


@scenario("eager", "3.11")
async def limits_entered_before_the_first_wait(start: str) -> None:
    async def limited() -> str:
        me = asyncio.current_task()
        assert me is not None
        before = me.cancelling()
        try:
            async with asyncio.timeout(1):
                with CancelScope(3):
                    await asyncio.sleep(9)
        except TimeoutError:
            assert asyncio.current_task() is me and me.cancelling() == before
            return "timed out"
        raise AssertionError("not timed out")

    async def work() -> None:
        task = how(start)(limited())
        try:
            await asyncio.sleep(4)
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() or task.result() == "timed out"
        assert not alone.get() or task.result() == "timed out"

    await judged(work(), work())


@scenario("eager", "3.11")
async def groups_entered_before_the_first_wait(start: str) -> None:
    async def fail() -> None:
        await asyncio.sleep(1)
        raise LookupError

    async def grouped(depth: int) -> None:
        try:
            async with TaskGroup() as group:
                group.spawn(fail())
                if depth:
                    task = how(start)(grouped(depth - 1))
                    try:
                        await asyncio.wait([task])
                    finally:
                        task.cancel()
                        await asyncio.wait([task])
                await asyncio.sleep(9)
        except* LookupError:
            pass
        await yield_now()  # a cancellation that came together with the errors

    await judged(grouped(2))


@scenario("eager", "3.11")
async def everybody_is_running_or_runnable_or_blocked(start: str) -> None:
    def look(*running: Any) -> None:
        runnable, blocked = runnable_tasks(), blocked_tasks()
        assert not runnable & blocked
        assert runnable | blocked == asyncio.all_tasks() - set(running)

    async def child(parent: Any) -> None:
        look(parent, asyncio.current_task())
        await yield_now()
        look(asyncio.current_task())

    async def work() -> None:
        me = asyncio.current_task()
        task = how(start)(child(me))
        look(me)
        await asyncio.wait([task])
        look(me)

    await judged(work(), work())


# ---------------------------------------------------------------- stepping


class Box:
    """Items, and who waits for them, first in, first out."""

    def __init__(self) -> None:
        self.items: list[int] = []
        self.waiters: list[Waiter[int]] = []

    def put(self, item: int) -> None:
        self.items.append(item)
        self._match()

    def register(self, waiter: Waiter[Any], /) -> None:
        self.waiters.append(waiter)
        self._match()

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        if waiter in self.waiters:
            self.waiters.remove(waiter)
        elif waiter.settled:
            self.items.insert(0, waiter.value)
            self._match()

    def _match(self) -> None:
        while self.items and self.waiters:
            if self.waiters.pop(0).hand(self.items[0]):
                del self.items[0]


@scenario("here", "in a task", "closed")
async def items_are_taken_by_a_coroutine_that_was_begun_by_hand(rest: str) -> None:
    box, taken = Box(), []

    async def take_two() -> None:
        for _ in range(2):
            taken.append(await park(box))
            await yield_now()

    async def work() -> None:
        state = coro_start(take_two())
        try:
            await asyncio.sleep(1)
            if rest == "in a task":
                task = start_task(coro_continue(state))
                try:
                    await asyncio.wait([task])
                finally:
                    task.cancel()
                    await asyncio.wait([task])
            elif rest == "here":
                await coro_continue(state)
        finally:
            state.close()

    loop = asyncio.get_running_loop()
    for item in range(4):
        loop.call_later(0.5 * item, box.put, item)
    await judged(work(), work())
    await asyncio.sleep(3)
    assert sorted(taken + box.items) == [0, 1, 2, 3] and not box.waiters
    assert not alone.get() or rest == "closed" or len(taken) == 4


@scenario("here", "in a task")
async def clean_up_after_a_wait_that_was_begun_by_hand(rest: str) -> None:
    begun = cleaned = 0

    async def work() -> None:
        nonlocal begun, cleaned
        begun += 1
        try:
            await asyncio.sleep(2)
        finally:
            try:
                await asyncio.sleep(1)
            finally:
                cleaned += 1

    async def begin() -> None:
        state = coro_start(work())
        if rest == "here":
            await coro_continue(state)
            return
        task = asyncio.create_task(coro_continue(state))
        try:
            await asyncio.wait([task])
        finally:
            await asyncio.wait([task])

    await judged(begin(), begin())
    assert begun == cleaned


@scenario()
async def two_states_and_a_task_await_the_same_future() -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def ask() -> str:
        try:
            return await future
        except CancelledError:
            return "yes"  # another one who waited for it was cancelled, and so was the future

    async def begin() -> None:
        assert await coro_continue(coro_start(ask())) == "yes"

    first, second = coro_start(ask()), coro_start(ask())
    task = start_task(ask())
    asyncio.get_running_loop().call_later(1, lambda: future.done() or future.set_result("yes"))
    rests = [start_task(coro_continue(state)) for state in (first, second)]
    await asyncio.wait([task, start_task(begin()), *rests])
    for asked in (task, *rests):
        assert asked.cancelled() or asked.result() == "yes"


# ---------------------------------------------------------------- places


@scenario()
async def sleepers_in_many_places() -> None:
    done = 0

    async def sleep() -> None:
        nonlocal done
        for pos in (0, 1, 99, -1):
            await sleep_insert(pos)
        done += 1

    await judged(sleep(), sleep(), sleep())
    assert not alone.get() or done == 3


@scenario("ends", "waits", "fails", "cancels")
async def descending(end: str) -> None:
    ended = 0

    async def child(depth: int, caller: Any) -> None:
        nonlocal ended
        try:
            if depth:
                await descend(depth - 1)
            if end == "waits":
                await asyncio.sleep(1)
            elif end == "fails":
                raise LookupError
            elif end == "cancels" and depth == 0:
                caller.cancel()
                await asyncio.Event().wait()
        finally:
            await yield_now()
            ended += 1

    async def descend(depth: int) -> None:
        task = await create_task_descend(child(depth, asyncio.current_task()))
        try:
            await task
        except LookupError:
            pass
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def work() -> None:
        try:
            await descend(1)
        except CancelledError:
            if end != "cancels":
                raise
            me = asyncio.current_task()
            assert me is not None
            while me.cancelling():
                me.uncancel()
        assert ended == 2 or not alone.get()

    if end == "fails":  # a child that fails while its caller, who does not have it yet, is cancelled
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    before = asyncio.all_tasks()
    tasks = [start_task(work())]
    await asyncio.wait(tasks)
    if not tasks[0].cancelled():
        tasks[0].result()
    assert asyncio.all_tasks() == before
    if end == "fails":
        assert all(type(error) is LookupError for error in told)


@pytest.mark.parametrize("name", SCENARIOS)
def test_in_any_order(name: str) -> None:
    explore(partial(left_alone, SCENARIOS[name]), runs=60)


@pytest.mark.parametrize("name", SCENARIOS)
def test_when_somebody_is_cancelled(name: str) -> None:
    explore_cancellations(SCENARIOS[name], runs=120)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager task factories came with Python 3.12")
@pytest.mark.parametrize("name", SCENARIOS)
def test_under_an_eager_task_factory(name: str) -> None:
    explore(partial(under_an_eager_task_factory, SCENARIOS[name]), runs=30)


# ---------------------------------------------------------------- teeth


def starts_as_a_part_of_its_caller(coroutine: Coroutine[Any, Any, Any]) -> Awaitable[Any]:
    state = coro_start(coroutine)
    return start_task(coro_continue(state)) if coro_is_blocked(state) else coro_as_future(state)


def keeps_the_mark(self: Any, waits_for: Any) -> None:
    self._waits_for = waits_for
    self._phase = _stepping._Phase.SUSPENDED


async def takes_no_cancellation_before_it_begins(state: Any) -> Any:
    return await right_rest(state)


right_rest = _stepping._Rest


def keeps_cancellations_to_itself(self: Any, error: BaseException) -> Any:
    raise error


def swallows_the_cancellation(self: Any, msg: str | None = None) -> bool:
    return True


async def leaves_the_task_alone(*_: object) -> None:
    pass


@pytest.mark.parametrize(
    ("owner", "name", "wrong", "scenario"),
    [
        (sys.modules[__name__], "eager", starts_as_a_part_of_its_caller, "limits_entered_before_the_first_wait[eager]"),
        (sys.modules[__name__], "eager", starts_as_a_part_of_its_caller, "groups_entered_before_the_first_wait[eager]"),
        (_stepping.CoroState, "_wait", keeps_the_mark, "two_states_and_a_task_await_the_same_future"),
        (
            _stepping,
            "_Rest",
            takes_no_cancellation_before_it_begins,
            "clean_up_after_a_wait_that_was_begun_by_hand[in a task]",
        ),
        (_stepping._Rest, "throw", keeps_cancellations_to_itself, "clean_up_after_a_wait_that_was_begun_by_hand[here]"),
        (_scheduling._Place, "cancel", swallows_the_cancellation, "sleepers_in_many_places"),
        (_scheduling, "cancel_and_wait", leaves_the_task_alone, "descending[cancels]"),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_it_is_caught(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, wrong: Callable[..., Any], scenario: str
) -> None:
    monkeypatch.setattr(owner, name, wrong)
    with pytest.raises(Counterexample):
        explore(partial(left_alone, SCENARIOS[scenario]), runs=100)
        explore_cancellations(SCENARIOS[scenario], runs=200)
    gc.collect()  # what a wrong variant has left, while its warnings are ignored
