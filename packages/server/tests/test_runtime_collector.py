"""`RuntimeCollector`: figures of loops for Prometheus."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from contextlib import closing
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from yamanote.runtime import EventLoop, metrics, run, spawn, spawn_blocking
from yamanote.server import RuntimeCollector


def families_of(collector: RuntimeCollector) -> dict[str, Metric]:
    """What comes through the text format, by name."""
    registry = CollectorRegistry()
    registry.register(collector)
    return {family.name: family for family in text_string_to_metric_families(generate_latest(registry).decode())}


def values_of(collector: RuntimeCollector) -> dict[str, float]:
    return {sample.name: sample.value for family in families_of(collector).values() for sample in family.samples}


def test_it_has_the_figures_of_the_loop_and_of_the_pool() -> None:
    async def main() -> None:
        collector = RuntimeCollector()
        await spawn(asyncio.sleep(0.001))
        await spawn_blocking(len, "abc")
        sleepers = [spawn(asyncio.sleep(60)) for _ in range(3)]
        await asyncio.sleep(0.001)
        look, values = metrics(), values_of(collector)
        assert look.loop is not None
        assert values["yamanote_tasks"] == look.tasks >= 4
        assert values["yamanote_tasks_spawned_total"] == look.spawned >= 4
        assert values["yamanote_loop_turns_total"] == look.loop.turns > 0
        assert values["yamanote_loop_polls_total"] == look.loop.polls > 0
        assert values["yamanote_loop_steps_total"] == look.loop.steps > 0
        assert values["yamanote_loop_busy_seconds_total"] == look.loop.busy > 0
        assert values["yamanote_loop_slow_total"] == look.loop.slow
        assert values["yamanote_loop_ready"] == look.loop.ready
        assert values["yamanote_loop_timers"] == look.loop.timers >= 3
        assert values["yamanote_blocking_threads"] == look.pool.threads > 0
        assert values["yamanote_blocking_threads_limit"] == look.pool.size
        assert values["yamanote_blocking_threads_busy"] == look.pool.busy
        assert values["yamanote_blocking_threads_abandoned"] == look.pool.abandoned
        assert values["yamanote_blocking_queued"] == look.pool.queued
        assert values["yamanote_blocking_completed_total"] == look.pool.completed > 0
        assert values["yamanote_blocking_dropped_total"] == look.pool.dropped
        for sleeper in sleepers:
            sleeper.abort()

    run(main(), loop_factory=EventLoop)


async def test_what_only_grows_is_a_counter_and_everything_has_a_help_text() -> None:
    collector = RuntimeCollector()
    for metric in collector.collect():
        assert metric.documentation.endswith(".")
        assert metric.name.startswith("yamanote_")
        if metric.type != "counter":
            assert metric.type == "gauge"
            assert not metric.name.endswith("_total")
    counters = {metric.name for metric in collector.collect() if metric.type == "counter"}
    assert counters == {
        "yamanote_tasks_spawned",
        *(f"yamanote_loop_{name}" for name in ("turns", "polls", "steps", "busy_seconds", "slow")),
        "yamanote_blocking_completed",
        "yamanote_blocking_dropped",
    }
    assert {metric.name: metric.unit for metric in collector.collect() if metric.unit} == {
        "yamanote_loop_busy_seconds": "seconds"
    }


def test_of_a_loop_that_counts_nothing_there_are_the_tasks_and_the_pool() -> None:
    async def main() -> None:
        values = values_of(RuntimeCollector())
        assert values["yamanote_tasks"] == 1
        assert "yamanote_blocking_threads" in values
        assert not [name for name in values if name.startswith("yamanote_loop_")]

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())


def test_the_workers_of_a_runtime_are_one() -> None:
    async def main() -> None:
        sleepers = [spawn(asyncio.sleep(60)) for _ in range(8)]
        await asyncio.sleep(0.01)
        assert values_of(RuntimeCollector())["yamanote_tasks"] == metrics().tasks >= 9
        for sleeper in sleepers:
            sleeper.abort()

    run(main(), workers=2)


def test_loops_with_names_are_told_apart_and_can_come_and_go() -> None:
    loops: dict[str, asyncio.AbstractEventLoop] = {}
    collector = RuntimeCollector(loops)
    assert not values_of(collector)
    together, looked = threading.Barrier(3), threading.Event()

    def work(name: str, tasks: int) -> None:
        async def main() -> None:
            loops[name] = asyncio.get_running_loop()
            sleepers = [spawn(asyncio.sleep(60)) for _ in range(tasks)]
            await asyncio.to_thread(together.wait, 60)
            await asyncio.to_thread(looked.wait, 60)
            del loops[name]
            for sleeper in sleepers:
                sleeper.abort()

        run(main(), loop_factory=EventLoop)

    threads = [threading.Thread(target=work, args=(name, tasks)) for name, tasks in (("0", 2), ("1", 5))]
    for thread in threads:
        thread.start()
    together.wait(60)
    try:
        families = families_of(collector)
        tasks = {sample.labels["worker"]: sample.value for sample in families["yamanote_tasks"].samples}
        assert tasks["1"] - tasks["0"] == 3
        for name in ("yamanote_loop_turns", "yamanote_tasks_spawned"):
            assert {sample.labels["worker"] for sample in families[name].samples} == {"0", "1"}
        assert [sample.labels for sample in families["yamanote_blocking_threads"].samples] == [{}]
    finally:
        looked.set()
        for thread in threads:
            thread.join()
    assert not values_of(collector)


async def test_a_registry_refuses_a_second_one_at_once() -> None:
    registry = CollectorRegistry()
    registry.register(RuntimeCollector())
    with pytest.raises(ValueError, match="yamanote_tasks"):
        registry.register(RuntimeCollector())


def test_nonsense_is_refused() -> None:
    nonsense: Any = "loop"
    with pytest.raises(TypeError, match="loops must be an event loop, a mapping from names to loops, or None, not "):
        RuntimeCollector(nonsense)
    with closing(asyncio.new_event_loop()) as loop:
        mappings: list[Any] = [{"a": 3}, {3: loop}, {"a": loop, "b": None}]
        for mapping in mappings:
            with pytest.raises(TypeError, match="loops must map names to event loops, not "):
                RuntimeCollector(mapping)
    with pytest.raises(RuntimeError, match="no running event loop"):
        RuntimeCollector()


def test_without_prometheus_client_the_area_works_and_the_collector_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "import yamanote.server\n"
        "try: yamanote.server.RuntimeCollector()\n"
        "except ImportError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "RuntimeCollector needs prometheus_client: install yamanote-server[metrics]\n"
