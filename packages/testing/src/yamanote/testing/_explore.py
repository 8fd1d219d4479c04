"""Schedule explorer: run a scenario in many orders, and show the shortest way in which it fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from yamanote.testing._judge import Judge, refuse_running_loop
from yamanote.testing._settings import settings
from yamanote.testing._strategy import PCT, Exhaustive, RandomOrder, Script, Strategy
from yamanote.testing._token import Token

__all__ = ["Exploration", "explore", "number_of_runs", "replay", "seed_of_runs"]

T = TypeVar("T")

_RUNS = 200


@dataclass(frozen=True)
class Exploration:
    """What was tried without finding a failure."""

    runs: int
    choices: int
    """How many choices there were to make in the longest run."""
    exhausted: bool
    """Whether everything was tried that the bounds allow, and not only as much as there was time for."""


def explore(
    scenario: Callable[[], Awaitable[object]],
    *,
    strategies: Sequence[Strategy] = (Exhaustive(2), PCT(3), RandomOrder()),
    runs: int | None = None,
    seed: int | None = None,
) -> Exploration:
    """Run `scenario` again and again, each time in another order of its steps, until a run fails or all are made.

    The scenario is an async function without arguments that makes everything it needs, and raises when something is
    wrong. It also fails when it dead-locks, takes more than 10 000 steps, ends before its tasks, or leaves an error
    that nobody awaited. Time is virtual. Sockets, other threads, executors, signals and subprocesses are refused.

    The runs (200, or what ``--explore-runs`` says) are shared among the `strategies`; the same `seed` (0, or what
    ``--explore-seed`` says) makes the same runs. With ``--replay``, that one run is made instead.

    Raises `Counterexample` for the first run that fails, after looking for a shorter one that fails in the same way,
    and `NotRepeatable` when the scenario depends on more than the order of its steps. Raises RuntimeError where an
    event loop is running: call it from a plain function.

    >>> async def load_and_use():
    ...     settings = {}
    ...     async def load():
    ...         settings["port"] = 8080
    ...     async def use():
    ...         return settings["port"]
    ...     await asyncio.gather(load(), use())
    >>> try:
    ...     explore(load_and_use)
    ... except Counterexample as found:
    ...     print(found.token)
    0:1
    """
    refuse_running_loop("explore")
    runs = number_of_runs(runs, _RUNS)
    seed = seed_of_runs(seed)
    if settings.replay is not None:
        replay(scenario, settings.replay)
        return Exploration(1, 0, False)
    exhausted = False
    with Judge(scenario) as judge:
        judge.require_repeatable()
        for index, strategy in enumerate(strategies):
            schedules = strategy.schedules(seed)
            schedule = next(schedules)
            last = judge.runs + (runs - judge.runs) // (len(strategies) - index)
            while judge.runs < last:
                origin = f"run {judge.runs + 1} of {runs}, {type(strategy).__name__}, seed {seed}"
                trial = judge.run(schedule, origin=origin)
                try:
                    schedule = schedules.send(trial.choices)
                except StopIteration:
                    exhausted = True
                    break
            schedules.close()
            if exhausted and isinstance(strategy, Exhaustive) and judge.choices <= strategy.deviations:
                break  # that were all the schedules that there are
        judge.finish()
    return Exploration(judge.runs, judge.choices, exhausted)


def replay(scenario: Callable[[], Awaitable[T]], token: str, *, invariant: Callable[[T], object] | None = None) -> None:
    """Run `scenario` exactly as in the counterexample that printed `token`.

    Returns when it does not fail (any more), and raises `Counterexample` when it does. Give it the `invariant` that was
    given to `explore_cancellations`. Raises ValueError for what is no token, and RuntimeError where a loop is running.
    """
    refuse_running_loop("replay")
    parsed = Token.parse(token)
    with Judge(scenario, invariant) as judge:
        judge.run(Script(parsed.deviations), parsed.injections, origin="replayed")
        judge.finish()


def number_of_runs(asked: int | None, default: int) -> int:
    """How many runs to make: what the command line says, else what was asked for, else `default`."""
    runs = default if asked is None else asked
    if not isinstance(runs, int) or runs < 1:
        raise ValueError(f"runs must be a whole number, at least 1, not {runs!r}")
    return runs if settings.runs is None else settings.runs


def seed_of_runs(asked: int | None) -> int:
    """Where random choices begin: where the command line says, else where was asked for."""
    return next(seed for seed in (settings.seed, asked, 0) if seed is not None)
