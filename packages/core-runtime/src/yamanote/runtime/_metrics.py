"""Metrics: how much there is on a loop, and how much has been done, in figures.

Invariant: looking changes nothing, and fails on no loop. Counters only ever grow, so the difference of two looks is
what happened in between.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import final

from yamanote.runtime import _blocking
from yamanote.runtime._loop import EventLoop, LoopStatistics, has_gil
from yamanote.runtime._pool import BlockingPoolStatistics
from yamanote.runtime._task import spawned_on, tasks_of, worker_of

__all__ = ["RuntimeMetrics", "metrics", "runtime_metrics"]


@final
@dataclass(frozen=True)
class RuntimeMetrics:
    """The loop, or loops, of a runtime and the blocking pool at one moment.

    ``later - earlier`` is what has happened in between: its counters are those of that time; all other figures are
    those of the later moment.
    """

    tasks: int
    """Tasks on the loop that have not ended, whoever has started them."""
    spawned: int
    """Counter: tasks that `spawn`, task groups and everything else of Yamanote has started on the loop."""
    loop: LoopStatistics | None
    """Figures of the loop itself: turns, steps, busy seconds and so on. None for a loop that is not our `EventLoop`."""
    pool: BlockingPoolStatistics
    """Figures of the threads of `spawn_blocking`, which all loops of the process share."""

    def __sub__(self, earlier: RuntimeMetrics) -> RuntimeMetrics:
        if not isinstance(earlier, RuntimeMetrics):
            return NotImplemented
        loop, pool, before = self.loop, self.pool, earlier.loop
        if loop is not None and before is not None:
            loop = replace(
                loop,
                turns=loop.turns - before.turns,
                polls=loop.polls - before.polls,
                steps=loop.steps - before.steps,
                busy=loop.busy - before.busy,
                slow=loop.slow - before.slow,
            )
        pool = replace(
            pool, completed=pool.completed - earlier.pool.completed, dropped=pool.dropped - earlier.pool.dropped
        )
        return RuntimeMetrics(tasks=self.tasks, spawned=self.spawned - earlier.spawned, loop=loop, pool=pool)


def metrics(loop: asyncio.AbstractEventLoop | None = None) -> RuntimeMetrics:
    """Figures of `loop`, by default the running one, and of the blocking pool. Of several workers, the sums.

    It looks at each task, so ask once a second rather than once a request. On free-threaded Python, those that asyncio
    has started on other workers are not counted.

    Raises RuntimeError without a `loop` where none runs. **Threads**: may be called from any thread.

    >>> async def main():
    ...     before = metrics()
    ...     await spawn(asyncio.sleep(0), asyncio.sleep(0))
    ...     return (metrics() - before).spawned
    >>> run(main())
    2
    """
    loop = loop or asyncio.get_running_loop()
    worker = worker_of(loop)
    loops = [loop] if worker is None else [each.loop for each in worker.workers.all]
    return RuntimeMetrics(
        tasks=sum(map(_count_tasks, loops)),
        spawned=sum(map(spawned_on, loops)),
        loop=_together([each.statistics() for each in loops if isinstance(each, EventLoop)]),
        pool=_blocking.shared_pool.statistics(),
    )


def _count_tasks(loop: asyncio.AbstractEventLoop) -> int:
    if has_gil() or worker_of(loop) is None or not loop.is_running() or asyncio._get_running_loop() is loop:
        return len(asyncio.all_tasks(loop))
    return len(tasks_of(loop))  # to ask the tasks would wait for the end of the step that one of them takes


def _together(loops: list[LoopStatistics]) -> LoopStatistics | None:
    if len(loops) < 2:
        return loops[0] if loops else None
    return LoopStatistics(
        turns=sum(loop.turns for loop in loops),
        polls=sum(loop.polls for loop in loops),
        steps=sum(loop.steps for loop in loops),
        busy=sum(loop.busy for loop in loops),
        slow=sum(loop.slow for loop in loops),
        ready=sum(loop.ready for loop in loops),
        timers=sum(loop.timers for loop in loops),
    )


runtime_metrics = metrics
"""For methods that are called `metrics` themselves."""
