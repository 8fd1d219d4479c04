"""Fails when ours has become slower, on any machine and in any mood of it.

A handful of the workloads is measured in three ways, and compared with what stands in `guard.json` for this Python:

* *turns* of the event loop for each operation: exact, so one more is a failure;
* *instructions*: how many bytecodes the interpreter executes for each operation, in our code and in asyncio's. The
  count is the same in every run: the loop's clock stands still, the random source has a seed, and the garbage collector
  sleeps. An extra call on a hot path shows; 5 % are left for other releases of the same Python;
* *ratio* to asyncio, for what happens inside of one bytecode (a search through a deque, say). It is a time, and so
  may be half as much again before it fails.

`--update` writes what is found into `guard.json`: after a change that makes something faster, or that is worth its
price. A price is explained in the commit that pays it. Needs Python 3.12, where `sys.monitoring` came.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import sys
import sysconfig
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from harness import OURS, Polls, Version, Workload, Wrong, measure

from yamanote.runtime import set_random_source

__all__ = ["Cost", "complaints", "count", "guarded"]

BASELINE = Path(__file__).with_suffix(".json")
SCALE = 0.1
INSTRUCTIONS_MARGIN = 1.05
RATIO_MARGIN = 1.50
GUARDED = {
    "channels": [
        "send+recv, never waits",
        "send_nowait+recv_nowait",
        "spsc cap=1",
        "spsc cap=100",
        "mpmc 10:10 cap=100",
        "async for until closed, cap=100",
        "recv_many(100), per item",
        "select over 2 channels, task-free, per turn",
        "reserve + send",
        "oneshot: make, send, await",
        "watch: 1 send wakes 100 receivers",
        "broadcast 1:10 cap=100, per item",
    ],
    "streams": [
        "map+filter, 100k from an async generator",
        "buffered(10) of sleep(0) coroutines, 10k",
        "buffer_unordered(10) of sleep(0) coroutines, 10k",
    ],
    "sync": [
        "lock, uncontended `async with`",
        "lock, 10 tasks, sleep(0) inside",
        "semaphore(10), 100 tasks, sleep(0) inside",
        "event, wait on a set event",
        "barrier of 10, per round",
        "condition, notify_all to 100 waiters",
        "condition, ping-pong",
        "notify, ping-pong",
        "rwlock, uncontended read",
        "rwlock, 100 tasks, 90% reads, sleep(0) inside",
        "once cell, get after init",
    ],
    "tasks": ["spawn+join 1k no-op tasks", "race: sleep(0) against never"],
    "timers": ["timeout around a ready coroutine", "timeout around sleep(0)"],
}


@dataclass(frozen=True)
class Cost:
    """Of one operation."""

    turns: float
    instructions: float
    ratio: float


class _StillLoop(asyncio.SelectorEventLoop):
    """Its time does not pass, so what asks for it always gets the same answer."""

    def time(self) -> float:
        return 0.0


class _Instructions:
    """Counts the bytecodes that are executed in its block."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> _Instructions:
        monitoring = sys.monitoring
        monitoring.use_tool_id(monitoring.PROFILER_ID, "guard")
        monitoring.register_callback(monitoring.PROFILER_ID, monitoring.events.INSTRUCTION, self._executed)
        monitoring.set_events(monitoring.PROFILER_ID, monitoring.events.INSTRUCTION)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.monitoring.set_events(sys.monitoring.PROFILER_ID, 0)
        sys.monitoring.free_tool_id(sys.monitoring.PROFILER_ID)

    def _executed(self, code: object, offset: int) -> None:
        self.count += 1


def count(version: Version, operations: int) -> tuple[float, float]:
    """The turns and the instructions that one operation takes."""

    async def run() -> tuple[int, int]:
        await version()  # what is made only once is made here
        prepared = version()
        before = polls.count
        with _Instructions() as instructions:
            await prepared
        return polls.count - before, instructions.count

    polls = Polls()
    before = set_random_source(random.Random(0))
    gc.collect()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=lambda: _StillLoop(polls)) as runner:
            turns, instructions = runner.run(run())
    finally:
        gc.enable()
        set_random_source(before)
    return round(turns / operations, 6), round(instructions / operations, 2)


def guarded() -> dict[str, Workload]:
    """The workloads, by the names that they have in the baseline."""
    found: dict[str, Workload] = {}
    for area, names in GUARDED.items():
        workloads = {workload.name: workload for workload in import_module(area).workloads(SCALE)}
        found |= {f"{area}: {name}": workloads[name] for name in names}
    return found


def cost(workload: Workload) -> Cost:
    turns, instructions = count(workload.versions[OURS], workload.operations)
    ours = measure(workload, libraries=[OURS]).of(OURS)
    if ours is None or ours.ratio is None:
        raise Wrong(f"{workload.name}: {ours.failed if ours else 'there is no version of ours'}")
    return Cost(turns, instructions, round(ours.ratio, 2))


def complaints(found: Cost, expected: Cost) -> list[str]:
    """In which ways what was found is worse than what was expected."""
    worse = []
    if found.turns > expected.turns:
        worse.append(f"{found.turns} turns, not {expected.turns}")
    if found.instructions > expected.instructions * INSTRUCTIONS_MARGIN:
        worse.append(f"{found.instructions} instructions, not {expected.instructions}")
    if found.ratio > expected.ratio * RATIO_MARGIN:
        worse.append(f"{found.ratio:.2f} of asyncio's time, not {expected.ratio:.2f}")
    return worse


def main() -> int:
    parser = argparse.ArgumentParser(description="Fail if ours has become slower.")
    parser.add_argument("--only", metavar="TEXT", default="", help="the workloads that have this in their name")
    parser.add_argument("--update", action="store_true", help=f"write what is found into {BASELINE.name}")
    options = parser.parse_args()
    if sys.version_info < (3, 12):
        parser.error("needs Python 3.12")

    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        python += "t"
    baselines = json.loads(BASELINE.read_text("utf-8")) if BASELINE.exists() else {}
    baseline = baselines.setdefault(python, {})
    worse = 0
    for name, workload in guarded().items():
        if options.only not in name:
            continue
        found = cost(workload)
        if options.update:
            baseline[name] = asdict(found)
        if name not in baseline:
            parser.error(f"{BASELINE.name} has nothing about {name!r} on {python}: --update")
        problems = complaints(found, Cost(**baseline[name]))
        worse += bool(problems)
        print(f"{'WORSE' if problems else 'ok':6}{name}: {'; '.join(problems) or found}", flush=True)
    if options.update:
        BASELINE.write_text(json.dumps(baselines, indent=1, sort_keys=True) + "\n", "utf-8")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
