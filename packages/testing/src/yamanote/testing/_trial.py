"""Trial: one run of a scenario under one schedule, with what it did and how it failed.

Invariant: a trial leaves nothing behind, whatever the scenario did: its tasks have ended, its loop is closed, and
random numbers are as they were before.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from yamanote.runtime import set_random_source
from yamanote.testing._loop import ExplorerLoop, Injected, Point
from yamanote.testing._strategy import Choice, Schedule
from yamanote.testing._token import Injection, Token

__all__ = ["LeftBehind", "Trial", "Unhandled", "perform"]

T = TypeVar("T")

_ROUNDS = 3
"""How often what is left is cancelled."""


class LeftBehind(AssertionError):
    """The scenario ended before tasks that it had started."""


class Unhandled(AssertionError):
    """An error reached nobody but the exception handler of the loop."""


@dataclass
class Trial(Generic[T]):
    """One run."""

    choices: list[Choice]
    trace: list[str]
    points: list[Point]
    resumed: set[tuple[int, int]]
    idles: dict[tuple[int, int], int]
    injected: list[Injected]
    failure: BaseException | None = None
    result: T | None = None
    unhandled: list[BaseException] = field(default_factory=list)

    @property
    def token(self) -> Token:
        """What repeats this run."""
        deviations = {number: choice.taken for number, choice in enumerate(self.choices) if choice.taken}
        return Token(deviations, tuple(injected.injection for injected in self.injected))


def perform(
    scenario: Callable[[], Awaitable[T]],
    schedule: Schedule,
    injections: Iterable[Injection] = (),
    *,
    invariant: Callable[[T], object] | None = None,
    recording: bool = False,
    describing: bool = False,
) -> Trial[T]:
    """Run `scenario` once. Its failure is in the trial; only KeyboardInterrupt and SystemExit are raised."""
    loop = ExplorerLoop(schedule, injections, recording=recording, describing=describing)
    trial: Trial[T] = Trial(loop.choices, loop.trace, loop.points, loop.resumed, loop.idles, loop.injected)
    loop.set_exception_handler(lambda _, context: trial.unhandled.append(_unhandled(context)))
    state = random.getstate()
    random.seed(0)
    source = set_random_source(random.Random(0))
    try:
        contextvars.copy_context().run(_run, loop, scenario, invariant, trial)
    finally:
        set_random_source(source)
        random.setstate(state)
    return trial


def _run(
    loop: ExplorerLoop,
    scenario: Callable[[], Awaitable[T]],
    invariant: Callable[[T], object] | None,
    trial: Trial[T],
) -> None:
    try:
        main = _as_coroutine(scenario)
        try:
            result = trial.result = loop.run_until_complete(main)
            loop.stop_exploring()
            loop.run_until_complete(_let_the_ready_end(loop))
            if left := asyncio.all_tasks(loop):
                raise LeftBehind(f"the scenario ended before {', '.join(sorted(map(loop.label, left)))}")
            if invariant is not None:
                invariant(result)
            if trial.unhandled:
                raise trial.unhandled[0]
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            trial.failure = error
    finally:
        loop.stop_exploring()
        _end_all_tasks(loop)
        loop.close()


def _as_coroutine(scenario: Callable[[], Awaitable[T]]) -> Coroutine[Any, Any, T]:
    awaitable = scenario()
    if inspect.iscoroutine(awaitable):
        return awaitable
    if not inspect.isawaitable(awaitable):
        raise TypeError(f"scenario must be an async function without arguments, not {scenario!r}")

    async def main() -> T:
        return await awaitable

    return main()


async def _let_the_ready_end(loop: ExplorerLoop) -> None:
    """Let tasks end that have nothing more to wait for: that the scenario was faster is no fault."""
    while loop.anything_ready():
        await asyncio.sleep(0)


def _end_all_tasks(loop: ExplorerLoop) -> None:
    """Cancel what is left until it has ended. What still refuses to end is abandoned: its failure has been told."""
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: None)
    for _ in range(_ROUNDS):
        left = asyncio.all_tasks(loop)
        if not left:
            break
        for task in left:
            task.cancel()
        try:
            loop.run_until_complete(asyncio.wait(left))
        except Exception:
            continue  # dead-locked again, or without end
    try:
        loop.run_until_complete(loop.shutdown_asyncgens())
    except Exception:
        pass  # the same
    loop.set_exception_handler(handler)  # for what the garbage collector brings up later


def _unhandled(context: dict[str, Any]) -> Unhandled:
    error = Unhandled(context["message"])
    error.__cause__ = context.get("exception")
    return error
