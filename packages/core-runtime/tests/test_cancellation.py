"""The cancellation explorer: each scenario once per callback of its loop, with `task.cancel()` put right before it.

A cancellation from outside therefore meets every state: before a wake-up, between a wake-up and the step that it
causes, before and after a deadline, in the middle of clean-up. The clock is virtual, and a loop with nothing to do is
a dead-lock.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from yamanote.runtime import (
    CancellationToken,
    CancelScope,
    JoinError,
    TaskGroup,
    cancel_and_wait,
    scope,
    spawn,
    start_task,
    yield_now,
)


class DeadLock(BaseException):
    """Nothing is ready, and nothing ever will be."""


class VirtualSelector(selectors.SelectSelector):
    loop: ExplorerLoop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise DeadLock
        self.loop.now += max(timeout, 0)
        return []


class ExplorerLoop(asyncio.SelectorEventLoop):
    """Numbers its callbacks, and calls `inject` right before number `at`."""

    def __init__(self, at: int | None) -> None:
        self.now = 0.0
        self.at = at
        self.number = 0
        self.inject: Callable[[], object] = lambda: None
        selector = VirtualSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def _numbered(self, callback: Any, *args: Any) -> None:
        if self.number == self.at:
            self.inject()
        self.number += 1
        callback(*args)

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        return super().call_soon(self._numbered, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        return super().call_at(when, self._numbered, callback, *args, context=context)


class Run:
    """One run of a scenario."""

    def __init__(self, scenario: Callable[[Run], Coroutine[Any, Any, Any]], at: int | None, eager: bool) -> None:
        self.log: list[str] = []
        self.requests = 0
        self.accepted = False
        self.unhandled: list[dict[str, Any]] = []
        self.loop = loop = ExplorerLoop(at)
        loop.set_exception_handler(lambda _, context: self.unhandled.append(context))
        if eager:
            loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
        self.task: asyncio.Task[Any] | None = None
        loop.inject = self.cancel
        try:
            loop.run_until_complete(self.drive(scenario))
        finally:
            self.left = [task.get_name() for task in asyncio.all_tasks(loop)]
            loop.close()

    async def drive(self, scenario: Callable[[Run], Coroutine[Any, Any, Any]]) -> None:
        coroutine = scenario(self)
        self.task = asyncio.get_running_loop().create_task(coroutine)
        await asyncio.wait([self.task])
        self.unexpected = self.task.cancelled() is False and self.task.exception()
        # Whatever was still on its way is let through, so that it would be seen.
        for _ in range(5):
            await yield_now()

    def cancel(self) -> None:
        if self.task is not None and not self.task.done():
            self.requests += 1
            self.accepted = self.task.cancel("from outside")

    def balanced(self) -> None:
        """For the scenarios: nobody but the explorer has left a request behind."""
        task = asyncio.current_task()
        assert task is not None
        expected = self.requests if task is self.task else 0
        assert task.cancelling() == expected, f"cancelling() is {task.cancelling()}, not {expected}"


EAGER = [False, True] if sys.version_info >= (3, 12) else [False]


def explore(scenario: Callable[[Run], Coroutine[Any, Any, Any]]) -> None:
    for eager in EAGER:
        reference = Run(scenario, None, eager)
        assert not reference.unexpected, reference.unexpected
        assert reference.left == [] and reference.unhandled == []
        assert reference.loop.number > 3
        hits = 0
        for at in range(reference.loop.number + 1):
            run = Run(scenario, at, eager)
            where = f"{scenario.__name__}, eager={eager}, cancelled before callback {at}: {run.log}"
            assert run.task is not None
            assert run.left == [], where
            assert run.unhandled == [], where
            if run.accepted:
                hits += 1
                assert run.task.cancelled(), f"{where}: ended with {run.unexpected!r}"
            else:
                assert not run.unexpected, where
        assert hits > 0


# Scenarios. Each ends normally when nobody interferes, and ends cancelled whenever somebody does.
Scenario = Callable[[Run], Coroutine[Any, Any, None]]
SCENARIOS: list[Scenario] = []


def scenario(function: Scenario) -> Scenario:
    SCENARIOS.append(function)
    return function


@scenario
async def scope_with_a_deadline(run: Run) -> None:
    loop = asyncio.get_running_loop()
    try:
        with CancelScope(loop.time() + 1) as scope:
            await asyncio.sleep(5)
        run.balanced()
        assert scope.cancelled_caught
        await yield_now()
    finally:
        run.balanced()


@scenario
async def scope_that_ends_when_its_deadline_comes(run: Run) -> None:
    loop = asyncio.get_running_loop()
    try:
        with CancelScope(loop.time() + 1):
            await asyncio.sleep(1)
        run.balanced()
        await yield_now()
        await yield_now()
    finally:
        run.balanced()


@scenario
async def scope_with_a_deadline_in_the_past(run: Run) -> None:
    try:
        with CancelScope(asyncio.get_running_loop().time()) as scope:
            await yield_now()
            raise AssertionError("not cancelled")
        run.balanced()
        assert scope.cancelled_caught
        await yield_now()
    finally:
        run.balanced()


@scenario
async def scope_cancelled_in_its_own_last_step(run: Run) -> None:
    try:
        with CancelScope() as scope:
            await yield_now()
            scope.cancel()
        run.balanced()
        assert scope.cancel_called and not scope.cancelled_caught
        await yield_now()  # a cancellation that leaked would be raised here
        await yield_now()
    finally:
        run.balanced()


@scenario
async def scope_cancelled_by_a_callback_with_clean_up(run: Run) -> None:
    loop = asyncio.get_running_loop()
    try:
        with CancelScope() as scope:
            loop.call_later(1, scope.cancel)
            try:
                await asyncio.sleep(5)
            finally:
                await yield_now()
        run.balanced()
        assert scope.cancelled_caught
    finally:
        run.balanced()
    await yield_now()


@scenario
async def nested_scopes_with_the_same_deadline(run: Run) -> None:
    loop = asyncio.get_running_loop()
    try:
        with CancelScope(loop.time() + 1) as outer:
            try:
                with CancelScope(loop.time() + 1) as inner:
                    await asyncio.sleep(5)
            finally:
                task = asyncio.current_task()
                assert task is not None
                assert task.cancelling() in (run.requests, run.requests + 1)
            await asyncio.sleep(5)
        run.balanced()
        assert outer.cancelled_caught
        assert inner.cancel_called
        await yield_now()
    finally:
        run.balanced()


@scenario
async def inner_scope_ends_first(run: Run) -> None:
    loop = asyncio.get_running_loop()
    try:
        with CancelScope(loop.time() + 2) as outer:
            with CancelScope(loop.time() + 1) as inner:
                await asyncio.sleep(5)
            run.balanced()
            assert inner.cancelled_caught
            await asyncio.sleep(5)
        run.balanced()
        assert outer.cancelled_caught
    finally:
        run.balanced()


@scenario
async def shield_inside_a_cancelled_scope(run: Run) -> None:
    loop = asyncio.get_running_loop()
    reached = []
    try:
        with CancelScope(loop.time() + 1) as outer:
            with CancelScope(shield=True):
                await asyncio.sleep(2)
                reached.append("shielded work done")
            run.balanced()
            await yield_now()
            raise AssertionError("not cancelled")
        run.balanced()
        assert reached and outer.cancelled_caught
    finally:
        run.balanced()


@scenario
async def shields_in_shields(run: Run) -> None:
    loop = asyncio.get_running_loop()
    try:
        with CancelScope(loop.time() + 1) as outer:
            with CancelScope(shield=True):
                with CancelScope(loop.time() + 1) as middle:
                    with CancelScope(shield=True):
                        await asyncio.sleep(2)
                    run.balanced()
                    await asyncio.sleep(5)
                run.balanced()
                assert middle.cancelled_caught
                await asyncio.sleep(1)
            await asyncio.sleep(5)
        run.balanced()
        assert outer.cancelled_caught
    finally:
        run.balanced()


@scenario
async def group_of_workers(run: Run) -> None:
    ended = []

    async def work(number: int) -> int:
        try:
            await yield_now()
            await asyncio.sleep(number)
            return number
        finally:
            ended.append(number)

    spawned = 0
    try:
        async with TaskGroup() as group:
            handles = []
            for number in range(3):
                handles.append(group.spawn(work(number), eager=number == 2))
                spawned += 1
                await yield_now()
        run.balanced()
        assert [await handle for handle in handles] == [0, 1, 2]
    finally:
        run.balanced()


@scenario
async def group_with_a_limit(run: Run) -> None:
    running = 0

    async def work() -> None:
        nonlocal running
        running += 1
        assert running <= 2
        try:
            await asyncio.sleep(1)
        finally:
            running -= 1

    try:
        async with TaskGroup(limit=2) as group:
            handles = [group.spawn(work()) for _ in range(5)]
            await handles[0]
        assert running == 0
    finally:
        assert running == 0
        run.balanced()
    await yield_now()


@scenario
async def group_cancelled_by_hand(run: Run) -> None:
    try:
        async with TaskGroup() as group:
            handle = group.spawn(asyncio.sleep(50))
            await asyncio.sleep(1)
            group.cancel()
            await asyncio.sleep(50)
        run.balanced()
        assert handle.is_finished()
        await yield_now()
    finally:
        run.balanced()


@scenario
async def group_cancelled_by_a_child(run: Run) -> None:
    async def child(group: TaskGroup) -> None:
        await asyncio.sleep(1)
        group.cancel()

    try:
        async with scope() as s:
            s.spawn(asyncio.sleep(50))
            s.spawn(child(s))
            await asyncio.sleep(50)
        run.balanced()
        await yield_now()
    finally:
        run.balanced()


@scenario
async def group_in_a_group(run: Run) -> None:
    async def inner() -> None:
        async with TaskGroup() as group:
            group.spawn(asyncio.sleep(2))
            await yield_now()
        run.balanced()

    try:
        async with TaskGroup() as group:
            group.spawn(inner())
            group.spawn(asyncio.sleep(1))
            await yield_now()
        run.balanced()
    finally:
        run.balanced()
    await yield_now()


@scenario
async def group_in_a_scope_with_a_deadline(run: Run) -> None:
    loop = asyncio.get_running_loop()
    try:
        with CancelScope(loop.time() + 1) as scope:
            async with TaskGroup() as group:
                group.spawn(asyncio.sleep(50))
                with CancelScope(loop.time() + 1):
                    await yield_now()
        run.balanced()
        assert scope.cancelled_caught
        await yield_now()
    finally:
        run.balanced()


@scenario
async def standard_timeout_around_a_group(run: Run) -> None:
    try:
        try:
            async with asyncio.timeout(1):
                async with TaskGroup() as group:
                    group.spawn(asyncio.sleep(50))
        except TimeoutError:
            pass
        run.balanced()
        await yield_now()
    finally:
        run.balanced()


@scenario
async def awaiting_a_handle(run: Run) -> None:
    async def work() -> str:
        await asyncio.sleep(1)
        return "value"

    handle = spawn(work())
    try:
        assert await handle == "value"
        assert await handle == "value"
        await yield_now()
    finally:
        run.balanced()
        await handle  # it was left alone


@scenario
async def awaiting_a_failing_handle(run: Run) -> None:
    async def fail() -> None:
        await asyncio.sleep(1)
        raise LookupError("expected")

    handle = spawn(fail())
    try:
        with pytest.raises(LookupError):
            await handle
        await yield_now()
    finally:
        run.balanced()
        with pytest.raises(LookupError):  # whoever asks again gets it, so it is not reported
            await handle


@scenario
async def awaiting_an_aborted_handle(run: Run) -> None:
    handle = spawn(asyncio.sleep(50))
    try:
        await yield_now()
        handle.abort("enough")
        with pytest.raises(JoinError, match="enough"):
            await handle
        await yield_now()
    finally:
        handle.abort()
        run.balanced()
        with pytest.raises(JoinError):
            await handle


@scenario
async def awaiting_several(run: Run) -> None:
    handle = spawn(asyncio.sleep(1, "a"), asyncio.sleep(2, "b"))
    try:
        assert await handle == ["a", "b"]
        await yield_now()
    finally:
        run.balanced()
        await handle


@scenario
async def waiting_for_a_token(run: Run) -> None:
    token = CancellationToken()
    asyncio.get_running_loop().call_later(1, token.cancel)
    try:
        await token.child_token().cancelled()
        await yield_now()
    finally:
        run.balanced()


@scenario
async def running_until_cancelled(run: Run) -> None:
    token = CancellationToken()
    asyncio.get_running_loop().call_later(1, token.cancel)
    try:
        assert await token.run_until_cancelled(asyncio.sleep(5, "value")) is None
        run.balanced()
        await yield_now()
    finally:
        run.balanced()


@scenario
async def running_until_just_before_it_is_cancelled(run: Run) -> None:
    token = CancellationToken()
    try:
        asyncio.get_running_loop().call_later(1, token.cancel)
        await token.run_until_cancelled(asyncio.sleep(1, "value"))
        run.balanced()
        await yield_now()
        await yield_now()
    finally:
        run.balanced()


@scenario
async def cancelling_and_waiting(run: Run) -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(50)
        finally:
            await asyncio.sleep(1)
            run.log.append("cleaned up")

    tasks = [start_task(stubborn()), start_task(stubborn())]
    handle = spawn(asyncio.sleep(50))
    try:
        await yield_now()
        await cancel_and_wait(*tasks, handle, reason="enough")
        run.balanced()
        await yield_now()
    finally:
        for task in [*tasks]:
            if not task.cancelling():
                task.cancel()
        handle.abort()
        await asyncio.wait(tasks)
        run.balanced()
        await yield_now()


@scenario
async def group_with_a_failing_child(run: Run) -> None:
    async def fail() -> None:
        await asyncio.sleep(1)
        raise LookupError("expected")

    async def fail_in_clean_up() -> None:
        try:
            await asyncio.sleep(50)
        finally:
            raise ArithmeticError("expected")

    try:
        try:
            async with TaskGroup() as group:
                group.spawn(fail())
                group.spawn(fail_in_clean_up())
                group.spawn(asyncio.sleep(50))
                await asyncio.sleep(50)
        except* (LookupError, ArithmeticError):
            pass
        run.balanced()
        # When the errors took the place of a cancellation from outside, that one is raised here.
        await yield_now()
        await yield_now()
    finally:
        run.balanced()


@scenario
async def group_fails_in_a_scope_that_is_cancelled(run: Run) -> None:
    async def fail_in_clean_up() -> None:
        try:
            await asyncio.sleep(50)
        finally:
            raise ArithmeticError("expected")

    loop = asyncio.get_running_loop()
    try:
        with CancelScope(loop.time() + 1) as scope:
            try:
                async with TaskGroup() as group:
                    group.spawn(fail_in_clean_up())
                    await asyncio.sleep(50)
            except* ArithmeticError:
                pass
            await asyncio.sleep(50)  # the deadline still holds
        run.balanced()
        assert scope.cancelled_caught
        with CancelScope(loop.time() + 1) as scope:
            try:
                async with TaskGroup() as group:
                    group.spawn(fail_in_clean_up())
                    await asyncio.sleep(50)
            except* ArithmeticError:
                pass
        run.balanced()
        assert not scope.cancelled_caught
        await yield_now()  # nothing is raised behind the scope
        await yield_now()
    finally:
        run.balanced()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[function.__name__ for function in SCENARIOS])
def test_a_cancellation_from_outside_gets_through_at_every_point_and_leaves_nothing_behind(
    scenario: Scenario,
) -> None:
    explore(scenario)


# The explorer has teeth: it finds what is wrong in the scopes that one writes first.


class ForgetfulScope:
    """Never takes its request back."""

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.timer = asyncio.get_running_loop().call_later(1, task.cancel)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self.timer.cancel()
        return kind is asyncio.CancelledError


class GreedyScope(ForgetfulScope):
    """Takes its request back, but swallows every cancellation."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self.timer.cancel()
        task = asyncio.current_task()
        assert task is not None
        if kind is asyncio.CancelledError:
            task.uncancel()
            return True
        return False


@pytest.mark.parametrize("wrong", [ForgetfulScope, GreedyScope])
def test_the_explorer_finds_wrong_scopes(wrong: type[ForgetfulScope]) -> None:
    async def with_a_wrong_scope(run: Run) -> None:
        try:
            with wrong():
                await asyncio.sleep(5)
            await yield_now()
        finally:
            run.balanced()

    with pytest.raises(AssertionError):
        explore(with_a_wrong_scope)


def test_the_explorer_finds_a_dead_lock() -> None:
    async def waits_for_ever(run: Run) -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(DeadLock):
        explore(waits_for_ever)
