"""The benchmarks: every workload does its work and would notice if it did not, and the figures mean what they say.

No peer need be installed, and no real figure is looked at: how fast something is says nothing about a busy machine.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
AREAS = sorted(path.stem for path in BENCHMARKS.glob("*.py") if "\ndef workloads(" in path.read_text("utf-8"))
LITTLE = 0.001

sys.path.insert(0, str(BENCHMARKS))
try:
    harness: Any = import_module("harness")
    report: Any = import_module("report")
    guard: Any = import_module("guard")
    memory: Any = import_module("memory")
    areas: dict[str, Any] = {area: import_module(area) for area in AREAS}
finally:
    sys.path.remove(str(BENCHMARKS))

WORKLOADS = {area: areas[area].workloads(LITTLE) for area in AREAS}
VERSIONS = {
    f"{area}: {workload.name}: {library}": version
    for area, workloads in WORKLOADS.items()
    for workload in workloads
    for library, version in workload.versions.items()
    if library.split(".")[0] in ("asyncio", "yamanote")
}


@pytest.fixture(scope="module", autouse=True)
def runtimes_end() -> Iterator[None]:
    yield
    areas["workers"].end_runtimes()


# ------------------------------------------------------------------------------------------------------- the workloads


@pytest.mark.parametrize("version", VERSIONS.values(), ids=list(VERSIONS))
def test_a_version_does_its_work_and_finds_its_own_result_right(version: Callable[[], Awaitable[object]]) -> None:
    assert harness.turns(version) >= 0


@pytest.mark.parametrize("area", AREAS)
def test_every_workload_of_an_area_has_a_name_of_its_own_a_bar_and_a_version_of_ours(area: str) -> None:
    workloads = WORKLOADS[area]

    assert len({workload.name for workload in workloads}) == len(workloads)
    assert [] == [workload.name for workload in workloads if workload.bar is None]
    assert [] == [workload.name for workload in workloads if not any("yamanote" in name for name in workload.versions)]


def test_every_area_of_which_there_are_figures_to_reach_has_its_benchmarks() -> None:
    assert ["channels", "loop", "streams", "sync", "tasks", "threads", "timers", "workers"] == AREAS


def faulty(change: dict[int, int]) -> Callable[..., Any]:
    """A queue that gives other items than it was sent."""

    def make(capacity: int | None) -> Any:
        queue: asyncio.Queue[int] = asyncio.Queue(capacity or 0)

        async def recv() -> int:
            item = await queue.get()
            return change.get(item, item)

        return areas["channels"].Queue(queue.put, recv, lambda: None)

    return make


LOST = {4: 3}
MIXED = {4: 5, 5: 6, 6: 4}


@pytest.mark.parametrize("change", [LOST, MIXED], ids=["lost", "mixed up"])
@pytest.mark.parametrize(
    ("workload", "shape"),
    [
        ("never_waits", {}),
        ("ping_pong", {}),
        ("through", {"capacity": 1}),
        ("through", {"capacity": None}),
        ("through", {"capacity": 100, "senders": 2}),
    ],
)
def test_a_queue_that_loses_or_mixes_up_items_is_caught(
    workload: str, shape: dict[str, int | None], change: dict[int, int]
) -> None:
    run = getattr(areas["channels"], workload)

    assert harness.turns(lambda: run(faulty({}), count=20, **shape)) >= 0
    with pytest.raises(harness.Wrong):
        harness.turns(lambda: run(faulty(change), count=20, **shape))


@pytest.mark.parametrize("shape", [{"senders": 2, "receivers": 2, "capacity": 1}, {"senders": 2, "capacity": 1}])
def test_a_queue_with_several_receivers_that_loses_items_is_caught(shape: dict[str, int]) -> None:
    with pytest.raises(harness.Wrong):
        harness.turns(lambda: areas["channels"].through(faulty(LOST), count=20, **shape))


def test_a_queue_that_gives_two_of_many_receivers_the_same_item_is_caught() -> None:
    with pytest.raises(harness.Wrong):
        harness.turns(lambda: areas["channels"].waiting_receivers(faulty(LOST), count=20))


class Nothing:
    """In place of a barrier, a lock for readers and writers, and a cell: it does not wait, exclude or remember."""

    async def wait(self) -> None: ...

    def read(self) -> nullcontext[None]:
        return nullcontext()

    write = read

    async def get_or_init(self, factory: Callable[[], Awaitable[int]]) -> int:
        return await factory()


@pytest.mark.parametrize(
    ("workload", "right", "shape"),
    [
        ("meet", lambda: asyncio.Barrier(3), (3, 2)),
        ("read_mostly", lambda: areas["sync"].Exclusive(), (10, 3)),
        ("get_again", lambda: areas["sync"].CheckedTwice(), (2,)),
    ],
)
def test_what_does_not_do_its_duty_between_tasks_is_caught(
    workload: str, right: Callable[[], Any], shape: tuple[int, ...]
) -> None:
    run = getattr(areas["sync"], workload)

    assert harness.turns(lambda: run(right, *shape)) >= 0
    found = []
    try:
        harness.turns(lambda: run(Nothing, *shape))
    except* harness.Wrong as wrong:
        found.append(wrong)
    assert found


@pytest.mark.parametrize("results", [[0, 1], [0, 2, 1], [0, 1, 2, 3], [0, 1, 1]])
def test_a_stream_with_wrong_results_is_caught(results: list[int]) -> None:
    async def collect(source: list[int]) -> list[int]:
        return source

    def version(results: list[int]) -> Callable[[], Awaitable[object]]:
        return lambda: areas["streams"].collected(collect, lambda: results, [0, 1, 2], True)

    assert 0 == harness.turns(version([0, 1, 2]))
    with pytest.raises(harness.Wrong):
        harness.turns(version(results))


# --------------------------------------------------------------------------------------------------------- the harness


class Clock:
    """In place of the clock of the process; it goes on when a version says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def takes(self, seconds: float) -> Callable[[], Awaitable[object]]:
        async def version() -> None:
            self.now += seconds

        return version


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(harness.time, "process_time", clock)
    return clock


def workload(*, bar: float | None = 0.5, operations: int = 1, **versions: Callable[[], Awaitable[object]]) -> Any:
    return harness.Workload("work", operations, versions, bar)


def test_a_figure_is_the_median_of_the_ratios_to_asyncio_in_the_same_round(clock: Clock) -> None:
    mood = iter([1, 1, 1, 1, 5, 3, 1, 1, 1])  # two to warm up, then the rounds
    slow: list[float] = []

    async def ours() -> None:
        clock.now += next(mood)

    row = harness.measure(workload(asyncio=clock.takes(2.0), yamanote=ours), rounds=7, sample=0)
    slow = row.of("yamanote").ratios

    assert [0.5, 0.5, 2.5, 1.5, 0.5, 0.5, 0.5] == slow
    assert 0.5 == row.of("yamanote").ratio
    assert [1.0] * 7 == row.of("asyncio").ratios


def test_asyncio_is_measured_twice_in_every_round_and_the_second_against_the_first_is_the_noise(clock: Clock) -> None:
    times = iter([1.0, 1.0, 1.0, 1.0, 2.0, 3.0, 3.0, 2.0])  # two versions warm up twice; the order rotates

    async def moody() -> None:
        clock.now += next(times)

    row = harness.measure(workload(asyncio=moody), rounds=2, sample=0)

    assert [1.5, 1.5] == row.of("asyncio again").ratios
    assert 1.5 == row.noise


def test_the_order_of_the_versions_rotates_from_round_to_round(clock: Clock) -> None:
    order: list[str] = []

    def version(name: str) -> Callable[[], Awaitable[object]]:
        async def run() -> None:
            clock.now += 1
            order.append(name)

        return run

    harness.measure(workload(asyncio=version("a"), yamanote=version("y"), kioto=version("k")), rounds=3, sample=0)

    assert ["ayka", "ykaa", "kaay"] == ["".join(order[first : first + 4]) for first in (8, 12, 16)]


def test_only_the_await_is_timed_not_what_was_made_ready_before_nor_the_check_behind(clock: Clock) -> None:
    def prepared() -> Awaitable[object]:
        clock.now += 100

        async def run() -> Callable[[], None]:
            clock.now += 1
            return look

        return run()

    def look() -> None:
        clock.now += 1000

    row = harness.measure(workload(asyncio=clock.takes(2.0), yamanote=prepared), rounds=3, sample=5.0)

    assert [1.0] * 3 == row.of("yamanote").seconds


def test_a_short_run_is_repeated_until_a_sample_is_long_enough(clock: Clock) -> None:
    runs: list[None] = []

    async def ours() -> None:
        clock.now += 0.25
        runs.append(None)

    row = harness.measure(workload(asyncio=clock.takes(2.0), yamanote=ours), rounds=1, sample=1.0)

    assert 1 + 1 + 4 == len(runs)
    assert [0.25] == row.of("yamanote").seconds


async def three_turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_turns_are_counted_exactly_for_each_operation() -> None:
    row = harness.measure(workload(asyncio=three_turns, operations=2), rounds=1, sample=0)

    assert 1.5 == row.of("asyncio").turns


async def wrong() -> None:
    harness.check(False, "an item was lost")


def test_a_version_that_goes_wrong_has_a_reason_and_no_figure_and_the_others_have_theirs(clock: Clock) -> None:
    async def wrong_afterwards() -> Callable[[], None]:
        return lambda: harness.check(False, "two items were swapped")

    versions = {"asyncio": clock.takes(2.0), "yamanote": clock.takes(1.0), "kioto": wrong, "anyio": wrong_afterwards}
    row = harness.measure(workload(**versions), rounds=2, sample=0)

    assert "Wrong: an item was lost" == row.of("kioto").failed
    assert "Wrong: two items were swapped" == row.of("anyio").failed
    assert row.of("kioto").ratio is None
    assert 0.5 == row.of("yamanote").ratio


def test_the_only_error_of_a_group_is_the_reason() -> None:
    async def version() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(wrong())

    row = harness.measure(workload(asyncio=version), rounds=1, sample=0)

    assert "Wrong: an item was lost" == row.of("asyncio").failed


def test_a_version_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "PATIENCE", 0.01)
    row = harness.measure(workload(asyncio=three_turns, kioto=asyncio.Event().wait), rounds=1, sample=0)

    assert row.of("kioto").failed.startswith("TimeoutError: no result within")


@pytest.mark.parametrize(("bar", "verdict"), [(0.5, "met"), (0.49, "missed"), (None, "")])
def test_a_bar_is_met_by_a_ratio_that_is_no_higher(clock: Clock, bar: float | None, verdict: str) -> None:
    row = harness.measure(workload(asyncio=clock.takes(2.0), yamanote=clock.takes(1.0), bar=bar), rounds=1, sample=0)

    assert verdict == row.verdict


def test_a_workload_without_asyncio_is_refused() -> None:
    with pytest.raises(ValueError, match="asyncio"):
        workload(yamanote=three_turns)


def test_a_distribution_that_is_not_installed_is_not_available() -> None:
    assert harness.available("pytest") == pytest.__version__
    assert harness.available("no-such-distribution") is None


# --------------------------------------------------------------------------------------------------- the command line


def run_main(
    monkeypatch: pytest.MonkeyPatch, *arguments: str, **versions: Callable[[], Awaitable[object]]
) -> str | int | None:
    monkeypatch.setattr(sys, "argv", ["area.py", "--quick", *arguments])
    with pytest.raises(SystemExit) as ended:
        harness.main("area", [workload(**{"asyncio": three_turns, "yamanote": three_turns} | versions)])
    return ended.value.code


def test_all_is_well_if_nothing_failed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == run_main(monkeypatch)
    assert "work" in capsys.readouterr().out


@pytest.mark.parametrize(("library", "status"), [("asyncio", 1), ("yamanote", 1), ("kioto", 3)])
def test_what_failed_is_shown_and_the_status_tells(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], library: str, status: int
) -> None:
    assert status == run_main(monkeypatch, **{library: wrong})
    assert f"{library} failed: Wrong: an item was lost (work)" in capsys.readouterr().out


def test_only_the_libraries_that_were_asked_for_are_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    versions = {"kioto": wrong, "anyio.fast": three_turns}

    assert 0 == run_main(monkeypatch, "--libraries", "anyio", **versions)
    assert "anyio.fast" in (shown := capsys.readouterr().out)
    assert "kioto" not in shown
    assert "yamanote" not in shown


def test_a_text_that_is_in_no_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 2 == run_main(monkeypatch, "--only", "play")
    assert "no workload" in capsys.readouterr().err


def test_the_json_has_all_that_was_measured_and_can_be_read_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_main(monkeypatch, "--json", str(tmp_path / "out.json"), kioto=wrong)
    text = (tmp_path / "out.json").read_text("utf-8")
    data = json.loads(text)

    assert {"area", "date", "python", "build", "gil", "machine", "distributions", "rows"} == set(data)
    (row,) = data["rows"]
    assert {"workload", "also", "operations", "clock", "bar", "against", "series", "verdict", "noise"} == set(row)
    assert ["asyncio", "yamanote", "kioto", "asyncio again"] == [series["library"] for series in row["series"]]
    for series in row["series"]:
        assert {"library", "seconds", "ratios", "turns", "failed", "ratio", "spread"} == set(series)
    assert [3, 3, 0, 3] == [len(series["seconds"]) for series in row["series"]]
    assert text == report.Report.from_json(text).to_json()


def test_the_drawing_is_well_formed_and_has_every_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run_main(monkeypatch, "--svg", str(tmp_path / "out.svg"), kioto=wrong, anyio=three_turns)
    texts = [element.text for element in ElementTree.parse(tmp_path / "out.svg").iter()]

    assert {"work", "yamanote", "anyio", "kioto", "failed", "1 = asyncio"} <= set(texts)


def test_the_table_for_documents_has_a_figure_of_each_run(clock: Clock) -> None:
    fast = harness.measure(workload(asyncio=clock.takes(2.0), yamanote=clock.takes(1.0)), rounds=1, sample=0)
    slow = harness.measure(workload(asyncio=clock.takes(2.0), yamanote=clock.takes(24.0)), rounds=1, sample=0)
    text = report.markdown([report.Report.of("area", [fast]), report.Report.of("area", [slow])])

    assert "| work | 0.50/12 | 1.00/1.00 | 1.00/1.00 | 0.50 |" in text.splitlines()


# ----------------------------------------------------------------------------------------------------------- the guard


@pytest.mark.parametrize(
    ("found", "complaints"),
    [
        ((2.0, 100.0, 0.5), 0),
        ((2.0, 104.0, 0.7), 0),
        ((1.0, 50.0, 0.2), 0),
        ((2.001, 100.0, 0.5), 1),
        ((2.0, 106.0, 0.5), 1),
        ((2.0, 100.0, 0.8), 1),
        ((3.0, 200.0, 5.0), 3),
    ],
)
def test_the_guard_complains_about_a_turn_more_and_about_what_is_beyond_the_margins(
    found: tuple[float, float, float], complaints: int
) -> None:
    assert complaints == len(guard.complaints(guard.Cost(*found), guard.Cost(2.0, 100.0, 0.5)))


def test_the_guard_has_a_baseline_for_all_that_it_guards() -> None:
    baselines = json.loads(guard.BASELINE.read_text("utf-8"))
    guarded = set(guard.guarded())

    assert {"3.12", "3.14"} <= set(baselines)
    assert [] == [python for python, baseline in baselines.items() if set(baseline) != guarded]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with 3.12")
def test_the_guard_counts_the_same_in_every_run_and_sees_one_call_more() -> None:
    async def step() -> None: ...

    async def work(calls: int) -> None:
        for _ in range(calls):
            await step()
        await asyncio.sleep(0)

    once, again, more = (guard.count(lambda calls=calls: work(calls), 1) for calls in (10, 10, 11))

    assert once == again
    assert once[0] == more[0] == 1
    assert once[1] < more[1]


# -------------------------------------------------------------------------------------------------------------- memory


def test_the_size_of_a_thing_is_the_mean_of_what_each_one_holds() -> None:
    sizes = iter([1_000_000, 10_000, 20_000, 30_000, 40_000])  # what the first one makes is shared by all

    assert memory.size(lambda: bytearray(next(sizes)), 4) == pytest.approx(25_000, rel=0.02)
    assert memory.size(lambda: None, 4) < 500


def test_all_whose_memory_is_measured_can_be_made_and_leaves_nothing() -> None:
    async def measure() -> list[tuple[str, float, float]]:
        with ExitStack() as end:
            return [(row.name, memory.size(row.asyncio, 3), memory.size(row.yamanote, 3)) for row in memory.rows(end)]

    sizes = asyncio.run(measure())

    assert [] == [name for name, *both in sizes if min(both) <= 0]


def test_who_is_measured_as_waiting_waits() -> None:
    async def measure() -> None:
        with ExitStack() as end:
            lock = memory.held(asyncio.Lock(), end)
            waiting = memory.started(lock.acquire())
            assert lock._waiters
            waiting.close()
            assert not lock._waiters

    asyncio.run(measure())
