"""Measures ratios to asyncio that can be trusted on a machine that is busy with other things.

Invariant: a figure is the median, over at least seven rounds, of *time of a version / time of asyncio's version in the
same round*. Every round runs each version once, in an order that rotates, and asyncio's twice: what the second asks for
against the first is the noise, and stands in the table as A/A. A version that gives a wrong result has no figure.

An area is a script with a function `workloads(scale: float = 1.0) -> list[Workload]`: the number of operations is the
ordinary one times `scale`, so that tests can run them all with little ones. It ends with `main("channels",
workloads())`, if it is what was started.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import math
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from selectors import DefaultSelector
from typing import Any, Literal, TypeVar

import report

__all__ = ["OURS", "Polls", "Version", "Workload", "Wrong", "available", "check", "main", "measure", "turns"]

T = TypeVar("T")

BASELINE = "asyncio"
OURS = "yamanote"
ROUNDS = 7
SAMPLE = 0.02
"""Seconds: a sample repeats a run that is shorter, because a clock and a switch of the machine cost as much."""
PATIENCE = 60.0
"""Seconds that a sample may take before it counts as hung."""
PEERS_FAILED = 3

Version = Callable[[], Awaitable[object]]
"""One whole run of a workload, on the running loop. Only the await is timed, not the call: a plain function can make
ready what should be there before, and return a coroutine. What that gives, if it can be called, is called after the
clock has stopped: it may check the result at length.
"""


class Wrong(AssertionError):
    """A version did not do what it was asked to do."""


def check(condition: object, message: str) -> None:
    """Raise Wrong with `message` unless `condition` holds."""
    if not condition:
        raise Wrong(message)


def available(distribution: str) -> str | None:
    """The version of a distribution that is installed, None if it is not."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Workload:
    """The same work, done by several libraries."""

    name: str
    operations: int
    """Items, acquisitions, ticks… done by one run."""
    versions: dict[str, Version]
    """By library. Each raises Wrong if its own result is wrong. `anyio.fast` is another way to use anyio."""
    bar: float | None
    """The ratio that ours must reach, to the version `against`."""
    also: str = ""
    """What Tokio, crossbeam or Go call this workload."""
    clock: Literal["cpu", "wall"] = "cpu"
    """CPU time of the process; the time on the wall where threads wait for each other."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = field(default_factory=dict)
    """By library: on which loop its version runs, if not on asyncio's. Of those no turns are counted."""
    against: str = BASELINE

    def __post_init__(self) -> None:
        if BASELINE not in self.versions:
            raise ValueError(f"versions of {self.name!r} must contain {BASELINE!r}, not only {sorted(self.versions)}")
        if self.operations < 1:
            raise ValueError(f"operations of {self.name!r} must be at least 1, not {self.operations}")


# -------------------------------------------------------------------------------------------------------- one version


class Polls(DefaultSelector):
    """Counts the turns of a loop: each one asks its selector once."""

    count = 0

    def select(self, timeout: float | None = None) -> Any:
        self.count += 1
        return super().select(timeout)


def _run(awaitable: Awaitable[T], loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> T:
    """Await on a fresh loop, for as long as there is patience."""
    hung = False

    async def main() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def give_up() -> None:
            nonlocal hung
            hung = True
            task.cancel()  # type: ignore[union-attr]

        # Not a timer of the loop: a loop that has one does a little more in each turn.
        watchdog = threading.Timer(PATIENCE, loop.call_soon_threadsafe, [give_up])
        watchdog.daemon = True
        watchdog.start()
        try:
            return await awaitable
        except asyncio.CancelledError:
            if hung:
                raise TimeoutError(f"no result within {PATIENCE:.0f} seconds") from None
            raise
        finally:
            watchdog.cancel()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main())


async def _timed(version: Version, repeats: int, clock: Callable[[], float]) -> float:
    runs = [version() for _ in range(repeats)]
    results = []
    try:
        start = clock()
        for run in runs:
            results.append(await run)
        seconds = clock() - start
    finally:
        for run in runs:
            if isinstance(run, Coroutine):
                run.close()  # those behind one that failed
    for result in results:
        if callable(result):
            result()
    return seconds / repeats


def turns(version: Version) -> int:
    """Run a version once on a fresh loop, let it check its result, and return how many turns the loop took."""
    polls = Polls()

    async def once() -> int:
        run = version()
        before = polls.count
        result = await run
        taken = polls.count - before
        if callable(result):
            result()
        return taken

    return _run(once(), lambda: asyncio.SelectorEventLoop(polls))


class _Subject:
    """A version under measurement."""

    def __init__(self, library: str, workload: Workload) -> None:
        self.series = report.Series(library)
        self._version = workload.versions[library.removesuffix(report.AGAIN)]
        self._loop = workload.loops.get(library)
        self._operations = workload.operations
        self._clock = time.process_time if workload.clock == "cpu" else time.perf_counter
        self._repeats = 1

    def warm_up(self, least: float) -> None:
        """Run it untimed, count its turns, and find out how often a sample must repeat it to take `least` seconds."""
        if self._loop is None:
            taken = self._attempt(lambda: turns(self._version))
            if taken is not None:
                self.series.turns = taken / self._operations
        if not self.series.failed:
            seconds = self.sample()
            if seconds is not None and seconds < least:
                self._repeats = math.ceil(least / max(seconds, 1e-6))

    def sample(self) -> float | None:
        """The seconds of one run, None if it failed."""
        gc.collect()
        gc.disable()
        try:
            return self._attempt(
                lambda: _run(_timed(self._version, self._repeats, self._clock), self._loop or asyncio.new_event_loop)
            )
        finally:
            gc.enable()

    def _attempt(self, run: Callable[[], T]) -> T | None:
        if self.series.failed:
            return None
        try:
            return run()
        except (Exception, asyncio.CancelledError) as error:
            self.series.failed = _reason(error)
            return None


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


# -------------------------------------------------------------------------------------------------------------- rounds


def measure(
    workload: Workload, *, rounds: int = ROUNDS, sample: float = SAMPLE, libraries: Sequence[str] = ()
) -> report.Row:
    """Run a workload, and give a row of the report: each library, and asyncio once more.

    `libraries` limits it to those; asyncio is always among them.
    """
    names = [name for name in workload.versions if name == BASELINE or _wanted(name, libraries)]
    subjects = [_Subject(name, workload) for name in (*names, BASELINE + report.AGAIN)]
    for subject in subjects:
        subject.warm_up(sample)
    baseline = next(subject for subject in subjects if subject.series.library == BASELINE)
    for number in range(rounds):
        shift = number % len(subjects)
        seconds = {subject: subject.sample() for subject in subjects[shift:] + subjects[:shift]}
        for subject, taken in seconds.items():
            if taken is not None:
                subject.series.seconds.append(taken)
                if (unit := seconds[baseline]) is not None:
                    subject.series.ratios.append(taken / unit)
    return report.Row(
        workload.name,
        workload.also,
        workload.operations,
        workload.clock,
        workload.bar,
        [subject.series for subject in subjects],
        workload.against,
    )


def _wanted(name: str, libraries: Sequence[str]) -> bool:
    return not libraries or name in libraries or name.split(".")[0] in libraries


def main(area: str, workloads: list[Workload]) -> None:
    """The command line of an area. Ends the process with a status: 1 if a version of asyncio or ours failed, 3 if one
    of a peer did.
    """
    parser = argparse.ArgumentParser(description=f"Time of {area} as a ratio to that of asyncio: less is better.")
    parser.add_argument("--only", metavar="TEXT", default="", help="the workloads that have this in their name")
    parser.add_argument("--libraries", metavar="A,B", default="", help="these libraries only; asyncio is always there")
    parser.add_argument("--rounds", metavar="N", type=int, default=ROUNDS, help=f"how many (default: {ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="three short rounds: a look, not a figure")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write everything that was measured")
    parser.add_argument("--svg", metavar="FILE", type=Path, help="draw it")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    chosen = [workload for workload in workloads if options.only in workload.name]
    if not chosen:
        parser.error(f"no workload has {options.only!r} in its name")
    libraries = [name for name in options.libraries.split(",") if name]
    rounds, sample = (3, 0.0) if options.quick else (options.rounds, SAMPLE)

    rows = []
    for number, workload in enumerate(chosen, 1):
        if sys.stderr.isatty():
            print(f"{number}/{len(chosen)} {workload.name}", end="\033[K\r", file=sys.stderr, flush=True)
        rows.append(measure(workload, rounds=rounds, sample=sample, libraries=libraries))
    if sys.stderr.isatty():
        print(end="\033[K", file=sys.stderr)

    result = report.Report.of(area, rows)
    report.show(result)
    if options.json:
        options.json.write_text(result.to_json(), "utf-8")
    if options.svg:
        options.svg.write_text(report.svg(result), "utf-8")
    sys.exit(_status(result))


def _status(result: report.Report) -> int:
    failed = {series.library.split(".")[0] for row in result.rows for series in row.series if series.failed}
    if failed & {BASELINE, BASELINE + report.AGAIN, OURS}:
        return 1
    return PEERS_FAILED if failed else 0
