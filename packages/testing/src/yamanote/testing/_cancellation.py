"""Cancellation explorer: cancel every task at every one of its await points, and see what is lost.

Invariant: each await point that a task of the scenario comes to is tried with a cancellation that comes at once, with
one that comes as late as possible while it still waits, and with one that finds the task woken, but not running again
yet; and so is every task that has not begun.

The last kind is the one that loses things: what a waiter was handed belongs to it already, and nobody will look for it.
The second forgets others: those who have queued up behind the waiter meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from yamanote.testing._explore import number_of_runs, replay, seed_of_runs
from yamanote.testing._judge import Judge, refuse_running_loop
from yamanote.testing._settings import settings
from yamanote.testing._strategy import RandomOrder, Schedule, Script
from yamanote.testing._token import Injection
from yamanote.testing._trial import Trial

__all__ = ["CancellationExploration", "explore_cancellations"]

T = TypeVar("T")

_RUNS = 500


@dataclass(frozen=True)
class CancellationExploration:
    """What was tried without finding a failure."""

    runs: int
    points: int
    """How many cancellations there are to inject in one run, at most."""
    exhausted: bool
    """Whether every one of them, and every pair, was tried."""


def explore_cancellations(
    scenario: Callable[[], Awaitable[T]],
    invariant: Callable[[T], object] | None = None,
    *,
    runs: int | None = None,
    seed: int | None = None,
) -> CancellationExploration:
    """Run `scenario` once for each point at which a task of it can be cancelled, and cancel it there.

    The task that runs the scenario itself is the judge and is never cancelled; all that it starts is. So let it start
    what is to be tested, wait until that has ended, and raise when something was lost; or return what it found out, and
    let `invariant` raise. Like with `explore`, it also fails when it dead-locks, ends before its tasks, or leaves an
    error that nobody awaited.

    Tries first each point by itself, then pairs of them (the second may come in the clean-up after the first), then
    points in random orders of the steps, until `runs` runs (500, or what ``--explore-runs`` says) are made.

    Raises `Counterexample`, whose message names task, await point, file and line, with a token for `replay`; and
    `NotRepeatable` and RuntimeError like `explore`.

    >>> async def two_take_turns():
    ...     lock = asyncio.Lock()
    ...     async def work():
    ...         await lock.acquire()
    ...         await asyncio.sleep(1)
    ...         lock.release()  # not in a `finally`
    ...     await asyncio.wait([asyncio.create_task(work()) for _ in range(2)])
    >>> try:
    ...     explore_cancellations(two_take_turns)
    ... except Counterexample as found:
    ...     print(found.token)
    1@1
    """
    refuse_running_loop("explore_cancellations")
    runs = number_of_runs(runs, _RUNS)
    if settings.replay is not None:
        replay(scenario, settings.replay, invariant=invariant)
        return CancellationExploration(1, 0, False)
    seed = seed_of_runs(seed)
    points, exhausted = 0, False
    with Judge(scenario, invariant) as judge:
        judge.require_repeatable()
        for schedule, depth in _schedules(seed):
            origin = f"cancellations, seed {seed}"
            trial = judge.run(schedule, origin=origin, recording=True)
            order = trial.token.deviations
            plans: deque[tuple[Injection, ...]] = deque((injection,) for injection in _next_injections(trial))
            points = max(points, len(plans))
            while plans and judge.runs < runs:
                plan = plans.popleft()
                trial = judge.run(Script(order), plan, origin=origin, recording=len(plan) < depth)
                if len(plan) < depth:
                    plans.extend((*plan, injection) for injection in _next_injections(trial))
            exhausted = exhausted or not plans
            if judge.runs >= runs or not points:
                break
        judge.finish()
    return CancellationExploration(judge.runs, points, exhausted)


def _schedules(seed: int) -> Iterator[tuple[Schedule, int]]:
    """The orders of the steps to cancel in, and how many cancellations to inject at most."""
    yield Script({}), 2
    random_order = RandomOrder().schedules(seed)
    schedule = next(random_order)
    while True:
        yield schedule, 1
        schedule = random_order.send(())


def _next_injections(trial: Trial[T]) -> Iterator[Injection]:
    """The cancellations that can come after those of `trial`, in the order of its await points."""
    seen = trial.injected[-1].points if trial.injected else 0
    for task, number, yields in trial.points[seen:]:
        if task == 0:
            continue
        yield Injection(task, number)
        if idles := trial.idles.get((task, number), 0):
            yield Injection(task, number, idles=idles)
        if not yields and (task, number) in trial.resumed:
            yield Injection(task, number, woken=True)
