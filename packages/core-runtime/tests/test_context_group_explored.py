"""Context groups, `contextualize` and `adefer` in many orders, and cancelled wherever that is possible."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import pytest

from yamanote.runtime import (
    AsyncContextGroup,
    AsyncDefer,
    CancelScope,
    TaskGroup,
    _concurrent_contexts,
    _errors,
    adefer,
    concurrent_contexts,
    contextualize,
    start_task,
)
from yamanote.testing import Counterexample, explore, explore_cancellations

Scenario = Callable[[], Coroutine[Any, Any, None]]
SCENARIOS: dict[str, Scenario] = {}


def requests() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def judged(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run it in a task of its own, which must end cancelled if, and only if, it was cancelled from outside."""
    task = start_task(coroutine)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    assert task.cancelled() == (task.cancelling() > 0)
    assert len(asyncio.all_tasks()) == 1


class Resources:
    """What is open, and who has failed."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.raised: list[Exception] = []

    def fail(self) -> None:
        self.raised.append(LookupError(len(self.raised)))
        raise self.raised[-1]

    @asynccontextmanager
    async def resource(self, name: str, fails: str = "", seconds: float = 1) -> AsyncIterator[str]:
        await asyncio.sleep(seconds)
        if fails == "enter":
            self.fail()
        self.opened.append(name)
        try:
            yield name
        finally:
            try:
                await asyncio.sleep(1)
            finally:
                self.closed.append(name)
            if fails == "exit":
                self.fail()

    @asynccontextmanager
    async def patient(self, name: str) -> AsyncIterator[str]:
        """A resource with a timeout of its own, for the first of two attempts."""
        try:
            async with asyncio.timeout(1):
                await asyncio.sleep(5)
        except TimeoutError:
            pass
        async with self.resource(name):
            yield name


def leaves(error: BaseException | None) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in leaves(each)]
    return [] if error is None else [error]


async def go_on(error: BaseException | None) -> None:
    """A cancellation from outside ends the task; also when errors have taken its place."""
    if isinstance(error, CancelledError) and requests():
        raise error
    await asyncio.sleep(1)
    assert requests() == 0


def managers_of(plan: str, resources: Resources) -> list[Any]:
    if plan == "timeout":
        return [asyncio.timeout(2.5), resources.resource("a"), resources.resource("b")]
    if plan == "scope":
        return [resources.resource("a"), CancelScope(2)]
    if plan == "task group":
        return [TaskGroup(), resources.resource("a"), resources.resource("b", "exit")]
    if plan == "standard task group":
        return [resources.resource("a"), asyncio.TaskGroup()]
    if plan == "timeouts inside":
        return [resources.patient("a"), resources.resource("b", seconds=2), resources.patient("c")]
    fails = {"b": plan, "c": "exit" if plan == "exit" else ""}
    return [resources.resource(name, fails.get(name, "")) for name in "abc"]


PLANS = ("quiet", "enter", "exit", "block", "timeout", "scope", "task group", "standard task group", "timeouts inside")


async def group_of_contexts(kind: str, plan: str) -> None:
    group: Callable[..., AbstractAsyncContextManager[Any]] = concurrent_contexts
    if kind == "sequential":
        group = lambda *managers: AsyncContextGroup(managers)  # noqa: E731
    resources = Resources()

    async def child() -> None:
        await asyncio.sleep(0.5)
        resources.fail()

    async def host() -> None:
        beyond = False
        error: BaseException | None = None
        managers = managers_of(plan, resources)
        try:
            async with group(*managers) as values:
                assert len(values) == len(managers)
                assert len(resources.opened) == sum(isinstance(value, str) for value in values)
                for value in values:
                    if isinstance(value, TaskGroup):
                        value.spawn(child())
                    elif isinstance(value, asyncio.TaskGroup):
                        value.create_task(child())
                if plan == "block":
                    resources.fail()
                await asyncio.sleep(2)
                beyond = True
        except (Exception, CancelledError) as raised:
            error = raised
        assert sorted(resources.opened) == sorted(resources.closed)
        assert resources.opened[::-1] == resources.closed or kind == "concurrent"
        if error is not None:
            told = leaves(error)
            stranger = kind == "concurrent" and isinstance(error, (CancelledError, RuntimeError)) and not requests()
            if not stranger:  # or the task of a manager was cancelled, which nobody but the explorer does
                assert all(type(each) in (LookupError, TimeoutError, CancelledError) for each in told)
                if not isinstance(error, CancelledError):
                    assert set(resources.raised) <= set(told)
                else:
                    assert requests() and not resources.raised
        else:
            assert not resources.raised and (beyond or plan == "scope")
        await go_on(error)

    await judged(host())


for kind in ("sequential", "concurrent"):
    for plan in PLANS:
        SCENARIOS[f"{kind}, {plan}"] = partial(group_of_contexts, kind, plan)


async def work_beside_a_block(end: str, beside: str) -> None:
    resources = Resources()

    async def work() -> None:
        async with resources.resource("beside", beside if beside == "exit" else ""):
            await asyncio.sleep({"ends": 0.5, "fails": 0.5}.get(beside, 50))
        if beside == "fails":
            resources.fail()

    async def host() -> None:
        error: BaseException | None = None
        try:
            async with contextualize(work()):
                await asyncio.sleep(5)
                if end == "fails":
                    resources.fail()
        except (Exception, CancelledError) as raised:
            error = raised
        assert resources.opened == resources.closed and len(asyncio.all_tasks()) == 2
        assert not resources.raised or set(leaves(error)) == set(resources.raised)
        await go_on(error)

    await judged(host())


for end in ("ends", "fails"):
    for beside in ("waits", "ends", "fails", "exit"):
        SCENARIOS[f"contextualize, {end}, {beside}"] = partial(work_beside_a_block, end, beside)


async def deferred_calls(fails: bool) -> None:
    resources = Resources()
    ran: list[str] = []

    async def clean_up(name: str) -> None:
        ran.append(name)
        await asyncio.sleep(1)
        if fails:
            resources.fail()

    @adefer
    async def work(defer: AsyncDefer) -> None:
        defer(clean_up, "c")
        defer(clean_up("b"))
        await asyncio.sleep(1)
        defer(clean_up, "a")
        if fails:
            resources.fail()

    async def host() -> None:
        error: BaseException | None = None
        try:
            await work()
        except (Exception, CancelledError) as raised:
            error = raised
        assert ran in (["a", "b", "c"], ["b", "c"])
        assert not resources.raised or leaves(error) == resources.raised
        await go_on(error)

    await judged(host())


SCENARIOS["adefer"] = partial(deferred_calls, False)
SCENARIOS["adefer, fails"] = partial(deferred_calls, True)


# ---------------------------------------------------------------- the tests


each_scenario = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)


@each_scenario
def test_the_order_of_steps_does_not_matter(scenario: Scenario) -> None:
    explore(scenario, runs=20)


@each_scenario
def test_nothing_is_lost_and_nothing_left_when_a_task_is_cancelled(scenario: Scenario) -> None:
    explore_cancellations(scenario, runs=60)


# ---------------------------------------------------------------- teeth


def caught(scenario: str) -> None:
    with pytest.raises(Counterexample):
        explore_cancellations(SCENARIOS[scenario], runs=200)


def test_a_group_that_forgets_what_it_has_entered_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    async def exit_nothing(self: AsyncContextGroup[Any], error: BaseException | None) -> bool:
        return False

    monkeypatch.setattr(AsyncContextGroup, "_exit", exit_nothing)
    caught("sequential, quiet")


def test_a_manager_that_does_not_pass_on_its_cancellation_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CancelScope, "cancel", lambda self, reason=None: None)
    caught("concurrent, timeout")


def test_a_group_that_does_not_wait_when_it_is_cancelled_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    async def leave(self: Any, error: BaseException | None) -> None:
        residents, self._residents = self._residents, []
        for resident in residents:
            resident.leave(error)
        await asyncio.wait([resident.task for resident in residents])

    monkeypatch.setattr(_concurrent_contexts._ConcurrentContexts, "_leave", leave)
    caught("concurrent, quiet")


def test_errors_that_swallow_a_cancellation_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_errors.Errors, "_cancel_again", lambda self: None)
    caught("sequential, exit")
    caught("adefer, fails")


def test_a_last_error_that_takes_the_place_of_all_others_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_errors, "_stands_for", lambda error, earlier: True)
    caught("sequential, exit")
    caught("adefer, fails")
