"""The runtime in many orders of its steps, and cancelled wherever that is possible.

Each scenario makes what it needs, lets tasks work on it, and says what must hold when they have ended, in whatever
order they ran and whichever of them was cancelled. What the explorers see to in all of them: no dead-lock, no task left
over, no error that reached nobody.
"""

from __future__ import annotations

import asyncio
import gc
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from yamanote.runtime import (
    CancellationToken,
    CancelScope,
    JoinError,
    JoinHandle,
    TaskGroup,
    TaskWaiter,
    Waiter,
    cancel_and_wait,
    park,
    scope,
    spawn,
    start_task,
    yield_now,
)
from yamanote.runtime._shutdown import end_tasks
from yamanote.testing import explore, explore_cancellations

Scenario = Callable[[], Coroutine[Any, Any, None]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(*cases: Any) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], Any]:
    """Put a scenario under both explorers, once for each of the `cases`, which are its only argument."""

    def add(function: Callable[..., Coroutine[Any, Any, None]]) -> Any:
        for case in cases:
            SCENARIOS[f"{function.__name__}[{case}]"] = partial(function, case)
        if not cases:
            SCENARIOS[function.__name__] = function
        return function

    return add


def requests() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


alone: ContextVar[bool] = ContextVar("alone", default=False)
"""Whether nobody cancels from outside."""


async def left_alone(scenario: Scenario) -> None:
    alone.set(True)
    await scenario()


async def judged(*coroutines: Coroutine[Any, Any, Any]) -> None:
    """Run each in a task of its own: who is cancelled from outside ends cancelled, and nobody else does."""
    tasks = [start_task(coroutine) for coroutine in coroutines]
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()
        assert task.cancelled() == (task.cancelling() > 0), f"{task} has {task.cancelling()} requests"
        assert not (task.cancelled() and alone.get()), f"{task} was cancelled, and nobody has asked for it"


# ---------------------------------------------------------------- waiters


class Box:
    """The least that can be waited for: items, and who waits for them, first in, first out."""

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


async def first_of(*boxes: Box) -> int:
    """One item, of whichever box has one first: one party, registered with all of them."""
    waiter: TaskWaiter[int] = TaskWaiter()
    branches = [waiter.branch() for _ in boxes]
    taken = None
    try:
        for box, branch in zip(boxes, branches, strict=True):
            box.register(branch)
        await waiter.future
        (taken,) = (branch for branch in branches if branch.settled)
        return taken.result()
    finally:
        waiter.claim()
        for box, branch in zip(boxes, branches, strict=True):
            if branch is not taken:
                box.withdraw(branch)


@scenario()
async def tasks_parked_at_two_boxes() -> None:
    boxes = [Box(), Box()]
    taken = []

    async def take(operation: Callable[[], Awaitable[int]]) -> None:
        taken.append(await operation())

    for item in range(6):
        asyncio.get_running_loop().call_later(item // 4, boxes[item % 2].put, item)
    takers: list[Callable[[], Awaitable[int]]] = [
        partial(park, boxes[0]),
        partial(first_of, *boxes),
        partial(park, boxes[1]),
        partial(first_of, *reversed(boxes)),
    ]
    await judged(*map(take, takers))
    await asyncio.sleep(2)
    assert sorted(taken + boxes[0].items + boxes[1].items) == [0, 1, 2, 3, 4, 5]
    assert not boxes[0].waiters and not boxes[1].waiters


# ---------------------------------------------------------------- tasks and their handles


class Reports:
    """What the exception handler of the loop is told: in scenarios where that is the right place for it."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.errors.append(context["exception"]))


@scenario("value", "error", "error, parked", "abort")
async def several_await_one_handle(end: str) -> None:
    end, _, parked = end.partition(", ")
    reports = Reports()
    ends: list[str] = []

    async def work() -> str:
        await asyncio.sleep(1)
        if end == "error":
            raise LookupError
        return "value"

    async def ask(operation: Callable[[], Awaitable[str]], patience: float) -> None:
        with CancelScope(patience):
            try:
                ends.append(await operation())
            except (LookupError, JoinError) as error:
                ends.append("error" if isinstance(error, LookupError) else "abort")

    async def await_(handle: JoinHandle[str]) -> str:
        return await handle

    async def abort(handle: JoinHandle[str]) -> None:
        await asyncio.sleep(1)
        handle.abort()

    handle = spawn(work())
    asking = [ask(partial(park, handle), 1)]  # it may be too late for it
    if not parked:
        asking.append(ask(partial(await_, handle), 1))
    if end == "value":
        asking.append(ask(partial(await_, handle), 2))
    if end == "abort":
        asking.append(abort(handle))
    await judged(*asking)
    await asyncio.sleep(2)
    assert handle.is_finished()  # whoever gave up has left it alone
    assert len(set(ends)) <= 1
    if alone.get() and end != "abort":
        assert set(ends) <= {end} and len(ends) >= (end == "value")
    failed = end == "error" and not handle._future.cancelled()
    del asking, handle
    if failed and not ends and not reports.errors:
        gc.collect()
    # To all who asked; or, when they were all cancelled before they got it, to the loop, once.
    assert len(reports.errors) == (failed and not ends)


@scenario()
async def one_handle_for_two_tasks() -> None:
    async def work(number: int) -> int:
        await asyncio.sleep(number)
        return number

    async def ask() -> None:
        try:
            assert await handle == [1, 1]
            assert await handle == [1, 1]
        except JoinError:
            assert any(task.cancelled() for task in tasks)
        assert requests() == 0

    handle = spawn(work(1), work(1))
    tasks = handle._tasks  # type: ignore[attr-defined]
    await judged(ask(), ask())
    await asyncio.wait(tasks)


@scenario()
async def cancelled_and_waited_for() -> None:
    cleaned = 0

    async def clean_up_slowly() -> None:
        nonlocal cleaned
        try:
            await asyncio.sleep(5)
        finally:
            await asyncio.sleep(1)
            cleaned += 1

    async def fail_in_clean_up() -> None:
        try:
            await asyncio.sleep(5)
        except CancelledError:
            raise LookupError from None

    async def cancel() -> None:
        try:
            await cancel_and_wait(slow, spawn(fail_in_clean_up()), spawn(clean_up_slowly(), asyncio.sleep(5)), failing)
        finally:
            assert slow.done() and failing.done()
            assert len(asyncio.all_tasks()) == 2  # this one, and the judge
        assert requests() == 0
        await yield_now()

    Reports()
    slow, failing = start_task(clean_up_slowly()), start_task(fail_in_clean_up())
    await yield_now()
    await judged(cancel())
    while len(asyncio.all_tasks()) > 1:  # it was cancelled before it could begin
        await asyncio.sleep(5)


@scenario("cleans up", "goes on")
async def run_ends_before_its_task(end: str) -> None:
    async def work() -> None:
        try:
            await asyncio.sleep(50)
        except CancelledError:
            await asyncio.sleep(50 if end == "goes on" else 1)

    async def main() -> str:
        start_task(work())
        return "value"

    assert await main() == "value"
    await end_tasks(asyncio.get_running_loop().time() + 10)
    assert len(asyncio.all_tasks()) == 1


# ---------------------------------------------------------------- cancel scopes


@dataclass(frozen=True)
class Block:
    """A scope in which the next inner one is opened, and then something slept for."""

    deadline: float | None = None
    sleeps: float = 0
    shield: bool = False

    def __str__(self) -> str:
        return f"{'shield ' * self.shield}{self.deadline}/{self.sleeps}"


class Nest(tuple[Block, ...]):
    """Blocks, from the outermost to the innermost."""

    def __str__(self) -> str:
        return ", ".join(map(str, self))


@scenario(
    Nest([Block(1, 1)]),
    Nest([Block(0, 5)]),
    Nest([Block(1, 5), Block(1, 5)]),
    Nest([Block(2, 5), Block(1, 2)]),
    Nest([Block(1, 5), Block(2, 5)]),
    Nest([Block(1, 5), Block(2, 2, shield=True)]),
    Nest([Block(1, 5), Block(1, 1, shield=True), Block(1, 5), Block(None, 2, shield=True)]),
    Nest([Block(3, 5), Block(1, 0, shield=True), Block(2, 2), Block(2, 2)]),
)
async def nested_scopes(nest: Nest) -> None:
    loop = asyncio.get_running_loop()
    shielded_until = 0.0

    async def enter(block: Block, *inner: Block) -> None:
        nonlocal shielded_until
        before = requests()
        finished = False
        try:
            with CancelScope(block.deadline, shield=block.shield) as scope:
                if inner:
                    await enter(*inner)
                await asyncio.sleep(block.sleeps)
                finished = True
        finally:
            if block.shield:
                shielded_until = loop.time()
                assert finished or scope.cancel_called or not alone.get()
        assert requests() == before
        assert finished != scope.cancelled_caught
        if block.deadline is None:
            assert not scope.cancel_called
        else:
            assert loop.time() <= max(block.deadline, shielded_until)
            assert not scope.cancel_called or loop.time() >= block.deadline

    async def work() -> None:
        await enter(*nest)
        await asyncio.sleep(1)  # a request that leaked out of a block would be raised here
        assert requests() == 0

    await judged(work())


async def cancel_from_inside(scope: CancelScope) -> None:
    scope.cancel()


async def cancel_twice_from_callbacks(scope: CancelScope) -> None:
    asyncio.get_running_loop().call_soon(scope.cancel)
    asyncio.get_running_loop().call_later(1, scope.cancel)


async def cancel_from_another_task(scope: CancelScope) -> None:
    start_task(cancel_from_inside(scope))


async def cancel_by_moving_the_deadline(scope: CancelScope) -> None:
    scope.deadline = 5
    scope.deadline = 1


async def cancel_in_a_handler(scope: CancelScope) -> None:
    with CancelScope(1):
        try:
            await asyncio.sleep(5)
        except CancelledError:
            scope.cancel()
            await asyncio.sleep(5)


WAYS = {
    way.__name__: way
    for way in (
        cancel_from_inside,
        cancel_twice_from_callbacks,
        cancel_from_another_task,
        cancel_by_moving_the_deadline,
        cancel_in_a_handler,
    )
}


@scenario(*WAYS)
async def one_scope(way: str) -> None:
    async def let_it_end() -> None:
        with CancelScope() as scope:
            await WAYS[way](scope)
            try:
                await asyncio.sleep(2)
            finally:
                await asyncio.sleep(0)
        assert scope.cancelled_caught or not scope.cancel_called or asyncio.get_running_loop().time() >= 2
        assert requests() == 0

    async def go_on() -> None:
        delivered = 0
        with CancelScope() as scope:
            for wait in (partial(WAYS[way], scope), *[partial(asyncio.sleep, 1)] * 3):
                try:
                    await wait()
                except CancelledError:
                    delivered += 1
        assert not scope.cancelled_caught
        if requests():  # from outside; and one may have been raised together with that of the scope
            assert delivered <= requests() + scope.cancel_called
            raise CancelledError
        assert delivered == scope.cancel_called

    async def end_at_once() -> None:
        with CancelScope() as scope:
            scope.cancel()
        await asyncio.sleep(1)
        assert scope.cancel_called and not scope.cancelled_caught and requests() == 0

    await judged(let_it_end(), go_on(), end_at_once())


@scenario()
async def scopes_among_standard_timeouts() -> None:
    async def work() -> None:
        try:
            async with asyncio.timeout(1):
                with CancelScope(1) as scope:
                    async with asyncio.timeout(1):
                        await asyncio.sleep(1)
                    assert not scope.cancelled_caught and requests() == 0
        except TimeoutError:
            pass
        assert requests() == 0
        await asyncio.sleep(1)

    async def work_together() -> None:
        try:
            async with asyncio.timeout(1), TaskGroup() as group:
                group.spawn(asyncio.sleep(1))
                group.spawn(asyncio.sleep(50))
        except TimeoutError:
            pass
        assert requests() == 0
        await asyncio.sleep(1)

    await judged(work(), work_together())


# ---------------------------------------------------------------- task groups


@dataclass(frozen=True)
class Family:
    """A task group: how its children and its body end, after a second each."""

    children: tuple[str, ...]
    body: str = "ends"
    limit: int | None = None
    deadline: float | None = None

    def __str__(self) -> str:
        return f"{', '.join(self.children)}; {self.body}, limit={self.limit}, deadline={self.deadline}"


@scenario(
    Family(("ends", "waits", "ends"), "asks"),
    Family(("ends", "ends", "ends"), limit=1),
    Family(("ends", "aborts the last", "ends", "ends", "waits"), "asks", limit=2),
    Family(("fails", "fails", "waits"), "asks"),
    Family(("fails", "fails in clean-up", "spawns"), "waits"),
    Family(("cancels", "waits", "fails in clean-up"), "waits"),
    Family(("ends", "fails", "waits"), "cancels", limit=1),
    Family(("fails in clean-up", "waits"), "fails", deadline=1),
    Family(("cancels", "spawns"), "waits", limit=1, deadline=1),
)
async def task_group(family: Family) -> None:
    loop = asyncio.get_running_loop()
    started: list[int] = []
    running: set[int] = set()
    handles: list[JoinHandle[int]] = []
    raised: list[BaseException] = []
    end_asked_for = float("inf")

    def ask_for_the_end() -> None:
        nonlocal end_asked_for
        end_asked_for = min(end_asked_for, loop.time())

    def fail() -> None:
        ask_for_the_end()
        raised.append(LookupError(len(raised)))
        raise raised[-1]

    async def act(group: TaskGroup, end: str) -> None:
        await asyncio.sleep(50 if end in ("waits", "fails in clean-up") else 1)
        if end == "fails":
            fail()
        elif end == "cancels":
            ask_for_the_end()
            group.cancel()
        elif end == "spawns":
            handles.append(group.spawn(child(group, len(handles), "ends")))
        elif end == "aborts the last":
            handles[-1].abort()
        elif end == "asks":
            for handle in handles:
                try:
                    await handle
                except JoinError:
                    pass

    async def child(group: TaskGroup, number: int, end: str) -> int:
        started.append(number)
        running.add(number)
        assert family.limit is None or len(running) <= family.limit
        assert family.limit != 1 or started == sorted(started)
        try:
            await act(group, end)
            return number
        except CancelledError:
            before = requests()
            await asyncio.sleep(1)  # the group cancels once, and then it waits
            assert requests() == before
            if end == "fails in clean-up":
                fail()
            raise
        finally:
            running.remove(number)

    async def host() -> None:
        errors: tuple[BaseException, ...] = ()
        with CancelScope(family.deadline) as around:
            try:
                async with TaskGroup(limit=family.limit) as group:
                    for number, end in enumerate(family.children):
                        handles.append(group.spawn(child(group, number, end), eager=number == 1))
                    await act(group, family.body)
            except BaseExceptionGroup as group_of_errors:
                errors = group_of_errors.exceptions
            finally:
                assert not running and all(handle.is_finished() for handle in handles)
            assert sorted(map(id, errors)) == sorted(map(id, raised))
            assert loop.time() <= end_asked_for + 1
            await asyncio.sleep(1)  # when errors took the place of a cancellation, that is raised here
        assert requests() == 0
        assert around.cancelled_caught or not around.cancel_called or loop.time() == family.deadline
        for number, handle in enumerate(handles):
            try:
                assert await handle == number
            except (JoinError, LookupError):
                pass
        await asyncio.sleep(1)
        assert requests() == 0

    await judged(host())


@scenario()
async def groups_in_groups() -> None:
    async def inner() -> None:
        async with scope() as s:
            s.spawn(asyncio.sleep(2))
            s.spawn(inner_most(s))
        assert requests() == 0

    async def inner_most(outer: TaskGroup) -> None:
        async with TaskGroup(limit=1) as group:
            group.spawn(asyncio.sleep(1))
            group.spawn(asyncio.sleep(1))
            with CancelScope(shield=True):
                await asyncio.sleep(1)
            outer.cancel()
            group.spawn(asyncio.sleep(1))

    async def host() -> None:
        async with TaskGroup() as group:
            group.spawn(inner())
            group.spawn(inner())
        assert requests() == 0
        assert len(asyncio.all_tasks()) == 2

    await judged(host())


# ---------------------------------------------------------------- cancellation tokens


@scenario("root", "middle", "leaf")
async def token_tree(cancelled: str) -> None:
    root = CancellationToken()
    middle = root.child_token()
    tree = {"root": root, "middle": middle, "leaf": middle.child_token(), "sibling": root.child_token()}
    reached = {"root": tree.keys(), "middle": {"middle", "leaf"}, "leaf": {"leaf"}}[cancelled]

    async def wait(name: str) -> None:
        with CancelScope(2) as scope:
            await tree[name].cancelled()
            await tree[name].child_token().cancelled()
        assert scope.cancelled_caught == (name not in reached)

    async def work(name: str) -> None:
        value = await tree[name].run_until_cancelled(asyncio.sleep(1, "value"))
        assert value == "value" or name in reached
        assert requests() == 0

    async def cancel(reason: str) -> None:
        tree[cancelled].cancel(reason)
        assert all(tree[name].is_cancelled() for name in reached)

    asyncio.get_running_loop().call_later(1, tree[cancelled].cancel, "timer")
    cancelling = [cancel("task"), cancel("another task")] if cancelled == "root" else []
    await judged(*map(wait, tree), *map(work, tree), *map(wait, tree), *cancelling)
    await asyncio.sleep(1)
    assert {name for name, token in tree.items() if token.is_cancelled()} == set(reached)
    assert len({tree[name].reason for name in reached}) == 1
    assert not any(token._waiters for token in tree.values())


# ---------------------------------------------------------------- the tests


each_scenario = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)


@each_scenario
def test_the_order_of_steps_does_not_matter(scenario: Scenario) -> None:
    explore(partial(left_alone, scenario), runs=30)


@each_scenario
def test_nothing_is_lost_and_nothing_left_when_a_task_is_cancelled(scenario: Scenario) -> None:
    explore_cancellations(scenario, runs=60)
