"""Metrics: how much there is on a loop, and how much has been done, in figures.

Invariant: looking changes nothing, and fails on no loop. Counters only ever grow, so the difference of two looks is
what happened in between.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import final

from yamanote.runtime import _blocking
from yamanote.runtime._loop import EventLoop, LoopStatistics
from yamanote.runtime._pool import BlockingPoolStatistics
from yamanote.runtime._task import spawned_on

__all__ = ["RuntimeMetrics", "metrics", "runtime_metrics"]


@final
@dataclass(frozen=True)
class RuntimeMetrics:
    """A loop and the blocking pool at one moment. ``later - earlier`` is what has happened in between.

    In such a difference the counters are those of the time between; all other figures are those of the later moment.
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
    """Figures of `loop`, by default the running one, and of the blocking pool.

    It looks at each task, so ask once a second rather than once a request.

    Raises RuntimeError without a `loop` where none runs. **Threads**: may be called from any thread.

    >>> async def main():
    ...     before = metrics()
    ...     await spawn(asyncio.sleep(0), asyncio.sleep(0))
    ...     return (metrics() - before).spawned
    >>> run(main())
    2
    """
    loop = loop or asyncio.get_running_loop()
    return RuntimeMetrics(
        tasks=len(asyncio.all_tasks(loop)),
        spawned=spawned_on(loop),
        loop=loop.statistics() if isinstance(loop, EventLoop) else None,
        pool=_blocking.shared_pool.statistics(),
    )


runtime_metrics = metrics
"""For methods that are called `metrics` themselves."""
