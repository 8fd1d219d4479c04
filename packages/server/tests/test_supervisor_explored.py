"""The supervisor in many orders of its steps, and with every task of it cancelled wherever that is possible."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from yamanote.runtime import JoinError, Started, start_task
from yamanote.server import SupervisedTask, Supervisor, SupervisorError
from yamanote.server._strategy import Strategy
from yamanote.testing import explore, explore_cancellations
from yamanote.time import Schedule, sleep


class Audit:
    """Watches children: one life at a time, in the order of the strategy, and each error told to one party."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self.running: list[str] = []
        self.raised: list[BaseException] = []
        self.received: list[BaseException] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, report: self.receive(report["exception"]))

    def receive(self, error: BaseException) -> None:
        if isinstance(error, SupervisorError):
            for each in error.exceptions:
                self.receive(each)
        elif isinstance(error, LookupError):  # the others tell that a child was cancelled
            self.received.append(error)

    async def life(self, name: str, seconds: float, fails: bool) -> None:
        assert name not in self.running, "two lives at once"
        self.running.append(name)
        try:
            await sleep(seconds)
            if fails:
                self.raised.append(LookupError(name))
                raise self.raised[-1]
            await sleep(100)
        except CancelledError:
            await sleep(0.5)
            raise
        finally:
            self.running.remove(name)

    async def starting(self, started: Started[None], name: str, seconds: float, fails: bool) -> None:
        if self.strategy != "one_for_one":
            assert not any(other >= name for other in self.running), "a later child was not stopped before"
        await sleep(0.5)
        started()
        await self.life(name, seconds, fails)

    def finish(self) -> None:
        assert not self.running, "a child has outlived the block"
        assert sorted(map(id, self.raised)) == sorted(map(id, self.received)), "an error was lost, or told twice"


async def ends_balanced(work: Coroutine[Any, Any, None]) -> None:
    """Who is cancelled from outside ends cancelled, and nobody else does."""
    task = start_task(work)
    await asyncio.wait([task])
    assert task.cancelled() == (task.cancelling() > 0)
    if not task.cancelled():
        task.result()


async def a_busy_supervisor(strategy: Strategy, announces: bool, backoff: Schedule | None) -> None:
    audit = Audit(strategy)

    async def host() -> None:
        try:
            async with Supervisor(strategy, max_restarts=4, period=100, backoff=backoff) as supervisor:
                children: list[SupervisedTask] = []
                for name, seconds, fails in [("a", 5, True), ("b", 1.5, True), ("c", 9, False)]:
                    try:
                        if announces:
                            child = await supervisor.start(audit.starting, name, seconds, fails, name=name)
                        else:
                            child = supervisor.spawn(audit.life, name, seconds, fails, name=name)
                        children.append(child)
                    except JoinError:  # it was cancelled
                        pass
                await sleep(4)
                for child in children[1:2]:
                    await child.stop()
                    assert child.name not in audit.running and not child.running
                await sleep(3)
                supervisor.stop()
                await sleep(100)
        except SupervisorError as error:
            audit.receive(error)
        await sleep(1)  # a cancellation whose place an error took is raised here

    await ends_balanced(host())
    audit.finish()


async def several_who_stop(strategy: Strategy) -> None:
    audit = Audit(strategy)

    async def host() -> None:
        try:
            async with Supervisor(strategy, max_restarts=9, period=100) as supervisor:
                first = supervisor.spawn(audit.life, "a", 1, True)
                second = supervisor.spawn(audit.life, "b", 1, True)

                async def stops(child: SupervisedTask) -> None:
                    await sleep(1)
                    await child.stop()

                async def waits() -> None:
                    await first.wait()
                    assert "a" not in audit.running

                for work in (partial(stops, first), partial(stops, second), partial(stops, first), waits):
                    supervisor.spawn(work, name="z", restart="temporary")
        except SupervisorError as error:
            audit.receive(error)
        await sleep(1)  # a cancellation whose place an error took is raised here

    await ends_balanced(host())
    audit.finish()


async def deaths_at_every_moment(strategy: Strategy) -> None:
    """All steps take the same time, so deaths, starts and a stop come together, in any order."""
    audit = Audit(strategy)
    lives: Counter[str] = Counter()

    async def child(started: Started[None], name: str) -> None:
        lives[name] += 1
        life = lives[name]
        await sleep(1)
        if life in (1, 4):
            started()
        if life in (1, 2, 3):
            audit.raised.append(LookupError(name, life))
            raise audit.raised[-1]
        await sleep(100)

    async def host() -> None:
        try:
            async with Supervisor(strategy, max_restarts=20, period=100) as supervisor:

                async def starts(name: str) -> None:
                    try:
                        handle = await supervisor.start(child, name, name=name)
                    except LookupError as error:
                        audit.receive(error)
                    except (JoinError, RuntimeError):
                        pass
                    else:
                        assert handle.name == name
                        await sleep(2)
                        if name == "c":
                            await handle.stop()

                for name in "abc":
                    start_task(starts(name))
                await sleep(9)
                supervisor.stop()
        except SupervisorError as error:
            audit.receive(error)
        await sleep(1)

    await ends_balanced(host())
    audit.finish()


SCENARIOS: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {}
for each in ("one_for_one", "one_for_all", "rest_for_one"):
    SCENARIOS[each] = partial(a_busy_supervisor, each, False, None)
    SCENARIOS[f"{each}, announced"] = partial(a_busy_supervisor, each, True, None)
    SCENARIOS[f"{each}, later"] = partial(a_busy_supervisor, each, True, Schedule(0.5, 1, 2, 2))
    SCENARIOS[f"{each}, together"] = partial(deaths_at_every_moment, each)
    SCENARIOS[f"{each}, stopped"] = partial(several_who_stop, each)
each_scenario = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)


@each_scenario
def test_the_order_of_steps_does_not_matter(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    explore(scenario, runs=30)


@each_scenario
def test_nothing_is_lost_when_a_task_is_cancelled(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    explore_cancellations(scenario, runs=100)


def test_a_death_right_after_the_start_is_seen_in_every_order() -> None:
    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, report: None)
        lives = 0

        async def child(started: Started[None]) -> None:
            nonlocal lives
            lives += 1
            started()
            if lives < 3:
                raise LookupError
            await sleep(100)

        async with Supervisor() as supervisor:
            handle = await supervisor.start(child)
            await sleep(1)
            assert handle.running and handle.restarts == 2
            supervisor.stop()

    explore(scenario, runs=30)
