"""Judge: runs the trials of one exploration, and makes a counterexample of one that fails.

Invariant: a counterexample has been seen twice: its token was run again, and failed in the same way, before it was
raised. A scenario that does not repeat itself is told so.
"""

from __future__ import annotations

import gc
import textwrap
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, NoReturn, Self, TypeVar

from yamanote.testing._strategy import Schedule, Script
from yamanote.testing._token import Injection, Token
from yamanote.testing._trial import Trial, Unhandled, perform

__all__ = ["Counterexample", "Judge", "NotRepeatable", "refuse_running_loop"]

T = TypeVar("T")

_SHRINKING_STEPS = 200_000
"""How many steps the search for a shorter counterexample may take."""
_COLLECT_EVERY = 100
"""Runs. An error that nobody awaited shows when its task is collected."""
_SHOWN = 30
"""How many steps, and how many deviations, a message shows."""


class Counterexample(AssertionError):
    """A run that failed. Its message tells what happened in which order, and how to see it again.

    The failure itself is the `__cause__`.
    """

    token: str
    """For `replay`."""
    trace: tuple[str, ...]
    """Who ran in each step."""

    def __init__(self, message: str, token: str, trace: Sequence[str]) -> None:
        super().__init__(message, token, trace)
        self.token = token
        self.trace = tuple(trace)

    def __str__(self) -> str:
        return str(self.args[0])


class NotRepeatable(RuntimeError):
    """The scenario did two different things under one schedule, so nothing can be said about it.

    It depends on something that the explorer has no hold of: the order of a set, the time of day, files, its own memory
    of earlier runs.
    """


class Judge(Generic[T]):
    """The trials of one scenario, judged by one invariant."""

    def __init__(self, scenario: Callable[[], Awaitable[T]], invariant: Callable[[T], object] | None = None) -> None:
        if not callable(scenario):
            raise TypeError(f"scenario must be an async function without arguments, not {scenario!r}")
        self._scenario = scenario
        self._invariant = invariant
        self._recent: list[tuple[Trial[T], str]] = []
        self.runs = 0
        self.choices = 0
        """How many choices the longest run made."""

    def run(
        self, schedule: Schedule, injections: Iterable[Injection] = (), *, origin: str, recording: bool = False
    ) -> Trial[T]:
        """Run the scenario once. Raises `Counterexample` when it fails; `origin` says there how it came to this run."""
        __tracebackhide__ = True  # for pytest: the message tells more than these lines
        trial = perform(self._scenario, schedule, injections, invariant=self._invariant, recording=recording)
        self.runs += 1
        self.choices = max(self.choices, len(trial.choices))
        if trial.failure is not None:
            self._report(trial, origin)
        self._recent.append((trial, origin))
        if len(self._recent) == _COLLECT_EVERY:
            self.finish()
        return trial

    def __enter__(self) -> Self:
        # What was there before is none of the exploration's garbage: to leave it out halves the time of a collection.
        gc.freeze()
        return self

    def __exit__(self, *exc_info: object) -> None:
        gc.unfreeze()

    def finish(self) -> None:
        """Look for errors in earlier runs that nobody has awaited."""
        gc.collect()
        recent, self._recent = self._recent, []
        for trial, origin in recent:
            if trial.unhandled:
                trial.failure = trial.unhandled[0]
                self._report(trial, origin)

    def require_repeatable(self) -> None:
        """Run the scenario twice in the same order, first in, first out. Raises `NotRepeatable` when that differs."""
        first, second = (self.run(Script({}), origin="first in, first out") for _ in range(2))
        if first.trace != second.trace:
            raise NotRepeatable(_difference(first.trace, second.trace))

    def _again(self, token: Token, like: Trial[T], *, describing: bool = False) -> Trial[T]:
        """The run of `token`, to be compared with one that failed."""
        schedule = Script(token.deviations)
        trial = perform(self._scenario, schedule, token.injections, invariant=self._invariant, describing=describing)
        if trial.failure is None and isinstance(like.failure, Unhandled):
            gc.collect()
            trial.failure = next(iter(trial.unhandled), None)
        return trial

    def _report(self, trial: Trial[T], origin: str) -> NoReturn:
        __tracebackhide__ = True
        again = self._again(trial.token, trial)
        if again.trace != trial.trace:
            raise NotRepeatable(_difference(trial.trace, again.trace)) from trial.failure
        if _kind(again) != _kind(trial):
            raise NotRepeatable(
                f"the same schedule ended with {trial.failure!r}, and when it was repeated with {again.failure!r}"
            ) from trial.failure
        shortest = self._shrink(again)
        if shortest.injected:
            described = self._again(shortest.token, shortest, describing=True)
            if _kind(described) == _kind(shortest):
                shortest = described
        raise Counterexample(_message(shortest, origin), str(shortest.token), shortest.trace) from shortest.failure

    def _shrink(self, trial: Trial[T]) -> Trial[T]:
        """Look for a run that fails in the same way with fewer deviations: leave out ever smaller pieces."""
        left = _SHRINKING_STEPS
        piece = len(trial.token.deviations)
        while piece:
            start = 0
            while start < len(deviations := sorted(trial.token.deviations.items())) and left > 0:
                fewer = dict(deviations[:start] + deviations[start + piece :])
                shorter = self._again(Token(fewer, trial.token.injections), trial)
                left -= len(shorter.trace)
                if _kind(shorter) == _kind(trial) and len(shorter.token.deviations) < len(deviations):
                    trial = shorter
                else:
                    start += piece
            piece //= 2
        return trial


def _kind(trial: Trial[T]) -> tuple[type[object], ...]:
    """What makes two failures the same."""
    failure = trial.failure
    return type(failure), type(None if failure is None else failure.__cause__)


def _difference(first: Sequence[str], second: Sequence[str]) -> str:
    step = next((step for step, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
    if step is None:
        step = min(len(first), len(second))
    ran = [repr(trace[step]) if step < len(trace) else "nothing" for trace in (first, second)]
    return (
        f"the scenario does not repeat itself: under the same schedule, step {step} ran {ran[0]} once and {ran[1]} the "
        "next time. It depends on more than the order of its steps: on the order of a set, on the time of day, on a "
        "file, or on what an earlier run has left behind"
    )


def _message(trial: Trial[T], origin: str) -> str:
    token = trial.token
    failure = trial.failure
    lines = [f"{type(failure).__name__}: {failure}", "", f"  found: {origin}"]
    lines += [f"  {injected.where}" for injected in trial.injected]
    deviations = [choice for choice in trial.choices if choice.taken]
    if deviations:
        lines.append("  out of turn (everything else first in, first out):")
        lines += [f"    step {c.step}: {trial.trace[c.step]} before {c.first}" for c in deviations[:_SHOWN]]
        lines += [f"    and {len(deviations) - _SHOWN} more"] * (len(deviations) > _SHOWN)
    out_of_turn = {choice.step for choice in deviations}
    steps = [f"{label}*" if step in out_of_turn else label for step, label in enumerate(trial.trace)]
    earlier = max(0, len(steps) - _SHOWN)
    lines.append(f"  steps{f' (after {earlier} earlier ones)' if earlier else ''}:")
    lines += textwrap.wrap(" ".join(steps[earlier:]), 100, initial_indent="    ", subsequent_indent="    ")
    lines.append(f"  see it again: pytest --replay={token}, or replay(scenario, {str(token)!r})")
    return "\n".join(lines)


def refuse_running_loop(function: str) -> None:
    """RuntimeError, with advice, where an event loop runs."""
    if _get_running_loop() is not None:
        raise RuntimeError(f"{function}() runs event loops of its own: call it from a plain function, `def test_...()`")
