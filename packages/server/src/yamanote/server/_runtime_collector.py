"""`RuntimeCollector`: `yamanote.runtime.metrics` for a registry of prometheus_client.

Invariant: nothing is kept from one scrape to the next. What only grows is a counter whose name ends in `_total`,
everything else a gauge; times are in seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, final

from yamanote.runtime import metrics

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

__all__ = ["RuntimeCollector"]


@final
class RuntimeCollector:
    """What the loops and the blocking pool do, for Prometheus: ``registry.register(RuntimeCollector())``.

    It gives the figures of `yamanote.runtime.metrics`. `loops` is the loop to look at, by default the running one; in a
    runtime with several workers it stands for all of them. Or it is a mapping from names to loops, as for workers in
    threads: then those figures carry the name as the label `worker`. The mapping is read anew for each scrape, so
    loops can come and go. The blocking pool is one for the whole process.

    Raises RuntimeError without `loops` where no loop runs, and ImportError where prometheus_client is not installed: it
    comes with `yamanote-server[metrics]`. **Threads:** may be collected in any thread.

    >>> from prometheus_client import CollectorRegistry
    >>> async def main() -> float | None:
    ...     registry = CollectorRegistry()
    ...     registry.register(RuntimeCollector())
    ...     return registry.get_sample_value("yamanote_tasks")
    >>> run(main())
    1.0
    """

    __slots__ = ("_loops",)

    def __init__(
        self, loops: asyncio.AbstractEventLoop | Mapping[str, asyncio.AbstractEventLoop] | None = None
    ) -> None:
        try:
            import prometheus_client  # noqa: F401  # here, and not first when somebody scrapes
        except ImportError as error:
            raise ImportError("RuntimeCollector needs prometheus_client: install yamanote-server[metrics]") from error
        if loops is None:
            loops = asyncio.get_running_loop()
        if not isinstance(loops, (asyncio.AbstractEventLoop, Mapping)):
            raise TypeError(f"loops must be an event loop, a mapping from names to loops, or None, not {loops!r}")
        if isinstance(loops, Mapping):
            for name, loop in dict(loops).items():
                if not isinstance(name, str) or not isinstance(loop, asyncio.AbstractEventLoop):
                    raise TypeError(f"loops must map names to event loops, not {name!r} to {loop!r}")
        self._loops = loops

    def collect(self) -> Iterator[Metric]:
        """The figures of this moment. Called by the registry."""
        loops = self._loops
        if isinstance(loops, Mapping):
            labels = ["worker"]
            looks = [([name], metrics(loop)) for name, loop in dict(loops).items()]  # a copy: others may change it
        else:
            labels = []
            looks = [([], metrics(loops))]
        for figure in _TASKS:
            yield figure.family(labels, [(values, look) for values, look in looks])
        for figure in _LOOP:
            yield figure.family(labels, [(values, look.loop) for values, look in looks if look.loop is not None])
        for figure in _POOL:
            yield figure.family([], [([], look.pool) for _, look in looks[:1]])

    def describe(self) -> Iterator[Metric]:
        """The names of all figures, without values: a registry looks here for names that are taken."""
        return (figure.family([], []) for figure in (*_TASKS, *_LOOP, *_POOL))


class _Figure(NamedTuple):
    name: str
    attribute: str
    help: str

    def family(self, labels: Sequence[str], samples: Sequence[tuple[Sequence[str], object]]) -> Metric:
        """The figure as Prometheus wants it, with a sample for each object that has it as its attribute."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        kind = CounterMetricFamily if self.name.endswith("_total") else GaugeMetricFamily
        unit = "seconds" if "_seconds" in self.name else ""
        family = kind(self.name, self.help, labels=labels, unit=unit)
        for values, figures in samples:
            family.add_metric(values, float(getattr(figures, self.attribute)))
        return family


_TASKS = [
    _Figure("yamanote_tasks", "tasks", "Tasks that have not ended."),
    _Figure("yamanote_tasks_spawned_total", "spawned", "Tasks that Yamanote has started."),
]

_LOOP = [
    _Figure("yamanote_loop_turns_total", "turns", "Turns of the event loop."),
    _Figure("yamanote_loop_polls_total", "polls", "How often the event loop looked for events."),
    _Figure("yamanote_loop_steps_total", "steps", "Callbacks that the event loop ran."),
    _Figure("yamanote_loop_busy_seconds_total", "busy", "Seconds in which the event loop did not sleep."),
    _Figure("yamanote_loop_slow_total", "slow", "Stretches of callbacks that took longer than slow_callback_duration."),
    _Figure("yamanote_loop_ready", "ready", "Callbacks that are to run."),
    _Figure("yamanote_loop_timers", "timers", "Timers that have not fired."),
]
"""Of a loop that is no `EventLoop` there are no samples."""

_POOL = [
    _Figure("yamanote_blocking_threads", "threads", "Threads of the blocking pool."),
    _Figure("yamanote_blocking_threads_limit", "size", "How many threads the blocking pool may have."),
    _Figure("yamanote_blocking_threads_busy", "busy", "Threads that are in a blocking call."),
    _Figure("yamanote_blocking_threads_abandoned", "abandoned", "Those in a call whose result nobody wants any more."),
    _Figure("yamanote_blocking_queued", "queued", "Blocking calls that wait for a thread."),
    _Figure("yamanote_blocking_completed_total", "completed", "Blocking calls that were made."),
    _Figure("yamanote_blocking_dropped_total", "dropped", "Blocking calls that were cancelled before they began."),
]
