"""Groups of all kinds in many orders of their steps, and cancelled wherever that is possible."""

from __future__ import annotations

import asyncio
import gc
from asyncio import CancelledError
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from yamanote.runtime import (
    CancelScope,
    JoinError,
    JoinHandle,
    PersistentTaskGroup,
    Started,
    TaskGroup,
    _children,
    _group,
    map,
    move_on_after,
)
from yamanote.testing import Counterexample, explore, explore_cancellations, replay

from .test_runtime_explored import alone, judged, left_alone, requests

Scenario = Callable[[], Coroutine[Any, Any, None]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(*cases: Any) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], Any]:
    def add(function: Callable[..., Coroutine[Any, Any, None]]) -> Any:
        for case in cases:
            SCENARIOS[f"{function.__name__}[{case}]"] = partial(function, case)
        if not cases:
            SCENARIOS[function.__name__] = function
        return function

    return add


@dataclass(frozen=True)
class Policy:
    on_error: str
    limit: int | None = None
    deadline: float | None = None
    asked: bool = True

    def __str__(self) -> str:
        asked = "" if self.asked else ", nobody asks"
        return f"{self.on_error}, limit={self.limit}, deadline={self.deadline}{asked}"


@scenario(
    Policy("collect"),
    Policy("collect", limit=2, deadline=2),
    Policy("report", asked=False),
    Policy("handler"),
    Policy("handler", limit=1),
    Policy("async handler"),
    Policy("async handler", limit=2, deadline=2),
    Policy("failing handler", deadline=2),
)
async def each_error_reaches_one_party(policy: Policy) -> None:
    loop = asyncio.get_running_loop()
    raised: list[Exception] = []
    received: Counter[int] = Counter()
    received_by: dict[int, set[str]] = {}
    active = 0

    def receive(error: BaseException | None, by: str) -> None:
        assert error is not None
        received[id(error)] += 1
        received_by.setdefault(id(error), set()).add(by)

    def loop_handler(_: object, context: dict[str, Any]) -> None:
        error = context["exception"]
        receive(error.__context__ if isinstance(error, ArithmeticError) else error, "loop")

    def handler(error: Exception) -> None:
        receive(error, "handler")

    async def async_handler(error: Exception) -> None:
        nonlocal active
        active += 1
        assert policy.limit is None or active <= policy.limit
        try:
            await asyncio.sleep(1)
        finally:
            active -= 1
        receive(error, "handler")

    def failing_handler(error: Exception) -> None:
        raise ArithmeticError

    async def child(seconds: float, fails: bool, clean_up: bool = False) -> None:
        nonlocal active
        active += 1
        assert policy.limit is None or active <= policy.limit
        before = requests()
        try:
            await asyncio.sleep(seconds)
        except CancelledError:
            if not clean_up:
                raise
            before = requests()
            await asyncio.sleep(1)
        finally:
            active -= 1
            assert requests() == before or not clean_up or not alone.get()
        if fails:
            raised.append(LookupError(len(raised)))
            raise raised[-1]

    async def asks(handle: JoinHandle[None]) -> None:
        try:
            await handle
        except JoinError:
            pass
        except LookupError as error:
            receive(error, "awaiter")

    handlers: dict[str, Any] = {
        "handler": handler,
        "async handler": async_handler,
        "failing handler": failing_handler,
    }

    async def host() -> None:
        group = TaskGroup(
            on_error=handlers.get(policy.on_error, policy.on_error), limit=policy.limit, deadline=policy.deadline
        )
        try:
            async with group:
                group.spawn(child(1, fails=True))
                handle = group.spawn(child(1, fails=True))
                group.spawn(child(3, fails=True, clean_up=True))
                group.spawn(child(2, fails=False))
                if policy.asked:
                    await asks(handle)
        except* LookupError as group_of_errors:
            for error in group_of_errors.exceptions:
                receive(error, "block")
        finally:
            assert active == 0 and not group._children and not group._queue
        await asyncio.sleep(1)  # when errors took the place of a cancellation, that is raised here
        assert requests() == 0

    loop.set_exception_handler(loop_handler)
    await judged(host())
    del host
    gc.collect()
    assert set(received) == {id(error) for error in raised}, "an error reached nobody"
    assert set(received.values()) <= {1}, received_by
    if alone.get() and policy.on_error != "async handler":
        others = {"collect": {"block"}, "handler": {"handler"}}.get(policy.on_error, {"loop"})
        assert all(parties <= others | {"awaiter"} for parties in received_by.values())


@scenario("shield", "shield and deadline", "no shield")
async def a_group_inside_of_a_scope(kind: str) -> None:
    loop = asyncio.get_running_loop()

    async def child() -> None:
        await asyncio.sleep(3)

    async def inner() -> None:
        with move_on_after(1) as scope:
            async with TaskGroup() as group:
                group.spawn(child())
                await asyncio.sleep(3)
        assert scope.cancelled_caught and requests() == 0

    async def host() -> None:
        undisturbed = False
        with move_on_after(1) as outer:
            deadline = loop.time() + 2 if "deadline" in kind else None
            try:
                async with TaskGroup(shield=kind != "no shield", deadline=deadline) as group:
                    handle = group.spawn(child())
                    await inner()
                    await asyncio.sleep(0.5)
                undisturbed = True
            finally:
                assert handle.is_finished()
            ends = {"shield": 3, "shield and deadline": 2}[kind]
            assert not alone.get() or (loop.time() == ends and group.cancelled_caught == (ends == 2))
            await asyncio.sleep(1)
        assert undisturbed == (kind != "no shield")
        assert outer.cancelled_caught and requests() == 0
        await asyncio.sleep(1)

    await judged(host())


@scenario(None, 1)
async def children_that_say_when_they_are_ready(limit: int | None) -> None:
    running: set[str] = set()
    raised: list[Exception] = []
    received: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: received.append(context.get("exception")))

    async def child(started: Started[str], name: str, fails: bool, seconds: float) -> None:
        running.add(name)
        try:
            await asyncio.sleep(1)
            if fails:
                raised.append(LookupError(name))
                raise raised[-1]
            if name != "silent":
                started(name)
            await asyncio.sleep(seconds)
        except CancelledError:
            await asyncio.sleep(0.5)
            raise
        finally:
            running.discard(name)

    async def starts(group: TaskGroup, name: str, fails: bool = False, patience: float = 90) -> None:
        before = requests()
        with move_on_after(patience):
            try:
                assert await group.start(child, name, fails, 1) == name
                return
            except LookupError as error:
                received.append(error)
            except RuntimeError:
                assert name == "silent"
            except JoinError:
                assert not alone.get()  # its child was cancelled
        assert name not in running
        assert requests() == before

    async with TaskGroup(limit=limit) as group:
        await judged(
            starts(group, "first"),
            starts(group, "failing", fails=True),
            starts(group, "impatient", patience=0.5),
            starts(group, "on the spot", patience=1),
            starts(group, "silent"),
        )
    assert not running and requests() == 0
    assert received == raised, "an error was lost, or was received twice"


@scenario()
async def a_group_that_is_shut_down() -> None:
    running = 0

    async def child(depth: int) -> None:
        nonlocal running
        running += 1
        try:
            await asyncio.sleep(1)
            if depth:
                try:
                    group.spawn(child(depth - 1))
                except RuntimeError:
                    pass
            await asyncio.sleep(1)
        finally:
            try:
                await asyncio.sleep(0.5)
            finally:
                running -= 1

    async def shuts_down(seconds: float) -> None:
        await asyncio.sleep(seconds)
        await group.shutdown()
        assert running == 0 and not group._active
        assert requests() == 0

    async def suicide() -> None:
        await asyncio.sleep(2)
        await group.shutdown()
        await asyncio.sleep(9)

    errors: list[Exception] = []
    group = PersistentTaskGroup(on_error=errors.append)
    for _ in range(2):
        group.spawn(child(1))
    group.spawn(suicide())
    await judged(shuts_down(2), shuts_down(2.5))
    await group.shutdown()
    assert running == 0 and not group._children and not errors


@scenario(None, 2)
async def a_map(limit: int | None) -> None:
    running = 0

    async def call(number: int) -> int:
        nonlocal running
        running += 1
        assert limit is None or running <= limit
        try:
            await asyncio.sleep(number % 2)
            if number == 5:
                raise LookupError
            return number
        finally:
            try:
                await asyncio.sleep(0.5)
            finally:
                running -= 1

    async def maps(count: int) -> None:
        nonlocal running
        running = 0
        try:
            assert await map(call, range(count), limit=limit) == list(range(count))
            assert count < 6
        except LookupError:
            assert count >= 6
        except JoinError:  # of a call that was cancelled from outside
            assert not alone.get()
        finally:
            assert running == 0
        await asyncio.sleep(1)  # when an error took the place of a cancellation, that is raised here
        assert requests() == 0

    await judged(maps(4))
    await judged(maps(7))


each_scenario = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)


@each_scenario
def test_the_order_of_steps_does_not_matter(scenario: Scenario) -> None:
    explore(partial(left_alone, scenario), runs=30)


@each_scenario
def test_nothing_is_lost_and_nothing_left_when_a_task_is_cancelled(scenario: Scenario) -> None:
    explore_cancellations(scenario, runs=60)


# ---------------------------------------------------------------- teeth


def tells_the_handler_too(handle: JoinHandle[Any]) -> bool:
    return False


def tells_nobody(handle: JoinHandle[Any]) -> bool:
    return True


def forgets_what_a_cancelled_handler_was_given(self: Any, error: Exception, task: asyncio.Task[Any]) -> None:
    del self._children[task]
    self._leave()


def handles_beside_the_limit(self: Any) -> None:
    self._active -= 1
    if self._idle is not None and not self._idle.done() and not self._active:
        self._idle.set_result(None)
    while self._queue:
        queued, _ = self._queue.popitem(last=False)
        self._start(queued.coroutine, queued.label, queued.context, False, queued)


def without_shield(deadline: float | None = None, *, shield: bool = False) -> CancelScope:
    return CancelScope(deadline)


async def does_not_wait_for_the_child(handle: JoinHandle[Any]) -> None:
    handle.abort()


async def loses_an_error_that_is_on_its_way(self: Any, handle: Any) -> Any:
    handle._future.add_done_callback(self._ended)
    return await self._ready


async def fails_the_group_as_well(self: Any, function: Any, args: Any) -> None:
    await function(self, *args)


def does_not_wait_for_the_children(self: Any, reason: str | None) -> None:
    self._closed = True
    self._abort(reason)


@pytest.mark.parametrize(
    ("owner", "name", "wrong", "scenario"),
    [
        (_children, "was_taken", tells_the_handler_too, f"each_error_reaches_one_party[{Policy('handler')}]"),
        (_group, "was_taken", tells_the_handler_too, f"each_error_reaches_one_party[{Policy('collect')}]"),
        (_children, "was_taken", tells_nobody, f"each_error_reaches_one_party[{Policy('report', asked=False)}]"),
        (
            TaskGroup,
            "_handled",
            forgets_what_a_cancelled_handler_was_given,
            f"each_error_reaches_one_party[{Policy('async handler', limit=2, deadline=2)}]",
        ),
        (
            TaskGroup,
            "_leave",
            handles_beside_the_limit,
            f"each_error_reaches_one_party[{Policy('async handler', limit=2, deadline=2)}]",
        ),
        (_group, "CancelScope", without_shield, "a_group_inside_of_a_scope[shield]"),
        (_children, "cancel_and_wait", does_not_wait_for_the_child, "children_that_say_when_they_are_ready[None]"),
        (Started, "wait_for", loses_an_error_that_is_on_its_way, "children_that_say_when_they_are_ready[None]"),
        (Started, "follow", fails_the_group_as_well, "children_that_say_when_they_are_ready[None]"),
        (PersistentTaskGroup, "_close", does_not_wait_for_the_children, "a_group_that_is_shut_down"),
    ],
)
def test_it_is_caught(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, wrong: Callable[..., Any], scenario: str
) -> None:
    monkeypatch.setattr(owner, f"__right_{name.strip('_')}__", getattr(owner, name), raising=False)
    monkeypatch.setattr(owner, name, wrong)
    function = SCENARIOS[scenario]
    undisturbed = partial(left_alone, function)
    with pytest.raises(Counterexample) as caught:
        explore(undisturbed, runs=100)
        explore_cancellations(function, runs=200)
    with pytest.raises(Counterexample):
        replay(function if "@" in caught.value.token else undisturbed, caught.value.token)
