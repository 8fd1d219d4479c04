"""What was measured, and how it is shown: a table for people, JSON for machines, bars for documents.

As a script, it makes the documents out of the JSON files of several runs: `python benchmarks/report.py 3.12.json
3.14.json` prints their tables in Markdown, one per area, with a column per library and a figure per file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import sysconfig
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from html import escape
from importlib.metadata import distributions
from math import log10
from pathlib import Path
from typing import Any

__all__ = ["AGAIN", "Report", "Row", "Series", "markdown", "show", "svg"]

BASELINE = "asyncio"
OURS = "yamanote"
AGAIN = " again"
"""Behind the name of the baseline: the same once more, to see the noise."""
QUIET = 0.05
"""How far asyncio may be from itself in a run that is worth something."""


@dataclass
class Series:
    """What one library did with one workload."""

    library: str
    seconds: list[float] = field(default_factory=list)
    """Of one run, by round."""
    ratios: list[float] = field(default_factory=list)
    """To asyncio's run in the same round."""
    turns: float | None = None
    """Turns of the event loop for each operation; exact."""
    failed: str = ""
    """Why there is no figure."""

    @property
    def ratio(self) -> float | None:
        """The median."""
        return statistics.median(self.ratios) if self.ratios and not self.failed else None

    @property
    def spread(self) -> float:
        """Half of the distance between the quartiles, as a part of the median."""
        if self.failed or len(self.ratios) < 2:
            return 0.0
        low, middle, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return (high - low) / 2 / middle


@dataclass
class Row:
    """One workload."""

    workload: str
    also: str
    operations: int
    clock: str
    bar: float | None
    series: list[Series]
    against: str = BASELINE
    """To which library the bar is the ratio."""

    def of(self, library: str) -> Series | None:
        return next((series for series in self.series if series.library == library), None)

    @property
    def libraries(self) -> list[Series]:
        """All but the control."""
        return [series for series in self.series if not series.library.endswith(AGAIN)]

    @property
    def noise(self) -> float | None:
        """asyncio to asyncio."""
        control = self.of(BASELINE + AGAIN)
        return control.ratio if control else None

    @property
    def spread(self) -> float:
        """The worst of the row."""
        return max(series.spread for series in self.series)

    @property
    def verdict(self) -> str:
        """Whether ours reaches the bar."""
        ours, other = self.of(OURS), self.of(self.against)
        if self.bar is None or ours is None or other is None or other.ratio is None:
            return ""
        if ours.ratio is None:
            return "failed"
        return "met" if ours.ratio / other.ratio <= self.bar else "missed"

    @property
    def bar_shown(self) -> str:
        """With the library to which it is the ratio, if that is not asyncio."""
        if self.bar is None:
            return "-"
        return f"{self.bar:.2f}" if self.against == BASELINE else f"{self.bar:.2f} of {self.against}"


@dataclass
class Report:
    """All workloads of an area, and where and when they ran."""

    area: str
    date: str
    python: str
    build: str
    gil: bool
    machine: str
    distributions: dict[str, str]
    """Versions of the libraries."""
    rows: list[Row]

    @classmethod
    def of(cls, area: str, rows: list[Row]) -> Report:
        """The report of a run that has just ended in this interpreter."""
        names = {series.library.split(".")[0] for row in rows for series in row.libraries} - {BASELINE}
        installed = {each.name: each.version for each in distributions()}
        versions = {name: each for name, each in installed.items() if name in names or name.startswith(f"{OURS}-")}
        return cls(
            area,
            datetime.now(UTC).isoformat(timespec="seconds"),
            f"{platform.python_implementation()} {platform.python_version()}",
            _build(),
            getattr(sys, "_is_gil_enabled", lambda: True)(),
            f"{_processor()}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}",
            dict(sorted(versions.items())),
            rows,
        )

    @classmethod
    def from_json(cls, text: str) -> Report:
        data = json.loads(text)
        for row in data["rows"]:
            row["series"] = [Series(**{key: series[key] for key in _SERIES}) for series in row["series"]]
        rows = [Row(**{key: row[key] for key in _ROW}) for row in data.pop("rows")]
        return cls(**data, rows=rows)

    def to_json(self) -> str:
        """Everything, and the figures that follow from it."""
        data = asdict(self)
        for row, shown in zip(self.rows, data["rows"], strict=True):
            shown |= {"verdict": row.verdict, "noise": row.noise}
            for series, figures in zip(row.series, shown["series"], strict=True):
                figures |= {"ratio": series.ratio, "spread": series.spread}
        return json.dumps(data, indent=1) + "\n"

    @property
    def interpreter(self) -> str:
        return self.python + ("" if self.gil else " without the GIL")


_SERIES = ("library", "seconds", "ratios", "turns", "failed")
_ROW = ("workload", "also", "operations", "clock", "bar", "series", "against")


def _build() -> str:
    """The compiler, and how Python was configured; no paths, which are nobody's business."""
    arguments = shlex.split(sysconfig.get_config_var("CONFIG_ARGS") or "")
    return " ".join([platform.python_compiler(), *(each for each in arguments if "/" not in each)])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.machine())


# --------------------------------------------------------------------------------------------------------- for people


def figure(value: float) -> str:
    """The digits that mean something: 0.087, 0.87, 8.70, 87."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.2f}" if value >= 0.0995 else f"{value:.3f}"


def _columns(rows: list[Row]) -> list[str]:
    """Ours, asyncio, and then the others by name."""
    names = {series.library for row in rows for series in row.libraries}
    return sorted(names, key=lambda name: (not name.startswith(OURS), not name.startswith(BASELINE), name))


def show(report: Report) -> None:
    """Print the tables."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = _columns(report.rows)
    ratios, turns = Table(), Table()
    for table in (ratios, turns):
        table.add_column("workload", no_wrap=True)
        for name in columns:
            table.add_column(name, justify="right", style="bold" if name.startswith(OURS) else "")
    for heading in ("A/A", "spread", "bar", ""):
        ratios.add_column(heading, justify="right")

    for row in report.rows:
        series = [row.of(name) for name in columns]
        noise = row.noise
        ratios.add_row(
            Text(row.workload),
            *(Text(_ratio(each), "red" if each and each.failed else "") for each in series),
            Text("-" if noise is None else f"{noise:.2f}", "yellow" if noise and abs(noise - 1) > QUIET else ""),
            f"±{row.spread:.0%}",
            row.bar_shown,
            Text(row.verdict, "green" if row.verdict == "met" else "red"),
        )
        turns.add_row(Text(row.workload), *(Text(_turns(each)) for each in series))

    console = Console(width=None if sys.stdout.isatty() else 400)
    console.print(f"{report.area}: time as a ratio to asyncio, median")
    console.print(ratios)
    console.print(f"{report.area}: turns of the loop for each operation")
    console.print(turns)
    for failure, workloads in _failures(report).items():
        console.print(f"{failure} ({', '.join(workloads)})", style="red", markup=False, highlight=False)
    console.print(_provenance(report), markup=False, highlight=False)


def _ratio(series: Series | None) -> str:
    return "-" if series is None else "failed" if series.ratio is None else figure(series.ratio)


def _turns(series: Series | None) -> str:
    if series is None or series.turns is None:
        return "-"
    return f"{series.turns:.0f}" if series.turns >= 100 else f"{series.turns:.3g}"


def _failures(report: Report) -> dict[str, list[str]]:
    """What failed, and in which workloads."""
    failures: dict[str, list[str]] = {}
    for row in report.rows:
        for series in row.series:
            if series.failed:
                failures.setdefault(f"{series.library} failed: {series.failed}", []).append(row.workload)
    return failures


def _provenance(report: Report) -> str:
    peers = {name: version for name, version in report.distributions.items() if not name.startswith(f"{OURS}-")}
    versions = ", ".join(f"{name} {version}" for name, version in peers.items())
    return "; ".join(filter(None, [report.interpreter, report.machine, report.date, versions]))


# ------------------------------------------------------------------------------------------------------ for documents


def markdown(reports: list[Report]) -> str:
    """The tables of several runs, one per area: a cell has the ratio of each run, in the order of the runs."""
    parts = []
    for area in dict.fromkeys(report.area for report in reports):
        runs = [report for report in reports if report.area == area]
        columns = _columns([row for run in runs for row in run.rows])
        workloads = dict.fromkeys(row.workload for run in runs for row in run.rows)
        parts.append(f"**{area}**: {' / '.join(run.interpreter for run in runs)}\n\n")
        parts.append(f"| workload | {' | '.join(columns)} | A/A | bar |\n|---|{'---:|' * (len(columns) + 2)}\n")
        for workload in workloads:
            rows = [next((row for row in run.rows if row.workload == workload), None) for run in runs]
            cells = [_cell([row.of(name) if row else None for row in rows]) for name in columns]
            noise = _cell([row.of(BASELINE + AGAIN) if row else None for row in rows])
            bar = next((f"{row.bar:.2f}" for row in rows if row and row.bar is not None), "-")
            parts.append(f"| {workload} | {' | '.join(cells)} | {noise} | {bar} |\n")
        parts.append("\n" + "".join(f"{_provenance(run)}\n\n" for run in runs))
    return "".join(parts)


def _cell(series: list[Series | None]) -> str:
    figures = [_ratio(each) for each in series]
    return figures[0] if set(figures) in ({"-"}, {"failed"}) else "/".join(figures)


STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f; }
  .title { font-size: 15px; font-weight: 600; }
  .name { font-weight: 600; }
  .note, .tick { fill: #57606a; font-size: 11px; }
  .grid { stroke: #d0d7de; }
  .one { stroke: #24292f; stroke-width: 1.5; }
  .peer { fill: #8c959f; }
  .ours { fill: #1a7f37; }
  .bar { stroke: #cf222e; stroke-width: 2; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .note, .tick { fill: #9198a1; }
    .grid { stroke: #3d444d; }
    .one { stroke: #e6edf3; }
    .peer { fill: #6e7681; }
    .ours { fill: #3fb950; }
    .bar { stroke: #ff7b72; }
  }
"""
LEFT, PLOT, RIGHT = 150, 640, 60
LINE, BAR = 15, 10
TICKS = [one * ten for ten in (0.01, 0.1, 1, 10, 100) for one in (1, 2, 5)]


def svg(report: Report) -> str:
    """Bars that begin at asyncio: to the left what is faster, to the right what is slower, on a logarithmic scale."""
    figures = [each.ratio for row in report.rows for each in row.libraries if each.ratio]
    bars = [row.bar for row in report.rows if row.bar]
    low = max([tick for tick in TICKS if tick <= min([*figures, *bars, 0.5])], default=TICKS[0])
    high = min([tick for tick in TICKS if tick >= max([*figures, *bars, 2])], default=TICKS[-1])

    def across(ratio: float) -> float:
        share = (log10(min(max(ratio, low), high)) - log10(low)) / (log10(high) - log10(low))
        return round(LEFT + share * PLOT, 1)

    body: list[str] = []
    height = 58
    for row in report.rows:
        body.append(f'<text class="name" x="8" y="{height + 11}">{escape(row.workload)}</text>')
        height += LINE + 3
        top = height
        names = [name for name in _columns([row]) if name != BASELINE]
        for name in names:
            series = row.of(name)
            assert series is not None
            body.append(f'<text class="note" x="{LEFT - 8}" y="{height + 9}" text-anchor="end">{escape(name)}</text>')
            if series.ratio is None:
                body.append(f'<text class="note" x="{across(1) + 6}" y="{height + 9}">failed</text>')
            else:
                start, end = sorted((across(1), across(series.ratio)))
                kind = "ours" if name.startswith(OURS) else "peer"
                body.append(
                    f'<rect class="{kind}" x="{start}" y="{height}" width="{max(end - start, 1):.1f}" height="{BAR}">'
                    f"<title>{escape(name)} {series.ratio:.3f} ±{series.spread:.1%}</title></rect>"
                )
                if kind == "ours" and row.bar is not None:  # the figure stands clear of the mark
                    start, end = min(start, across(row.bar)), max(end, across(row.bar))
                anchor, at = ("end", start - 4) if series.ratio < 1 else ("start", end + 4)
                body.append(
                    f'<text class="tick" x="{at:.1f}" y="{height + 9}" text-anchor="{anchor}">'
                    f"{figure(series.ratio)}</text>"
                )
            height += LINE
        if row.bar is not None and row.of(OURS) is not None:
            body.append(
                f'<line class="bar" x1="{across(row.bar)}" x2="{across(row.bar)}" y1="{top - 2}" y2="{top + BAR + 2}">'
                f"<title>the bar: {row.bar:.2f}</title></line>"
            )
        height += 8

    axis: list[str] = []
    for tick in TICKS:
        if low <= tick <= high:
            kind = "one" if tick == 1 else "grid"
            label = f"{tick:g}" + (" = asyncio" if tick == 1 else "")
            axis.append(f'<line class="{kind}" x1="{across(tick)}" x2="{across(tick)}" y1="50" y2="{height}"/>')
            axis += [
                f'<text class="tick" x="{across(tick)}" y="{y}" text-anchor="middle">{label}</text>'
                for y in (44, height + 14)
            ]
    width = LEFT + PLOT + RIGHT
    heading = f"{report.area}: time as a ratio to asyncio (logarithmic; left is faster)"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height + 44}" role="img">',
            f"<title>{escape(heading)}</title><style>{STYLE}</style>",
            f'<text class="title" x="8" y="22">{escape(heading)}</text>',
            *axis,
            *body,
            f'<text class="note" x="8" y="{height + 34}">{escape(report.interpreter)}, {escape(report.machine)}, '
            f"{report.date[:10]}; red: the bar for {OURS}</text>",
            "</svg>\n",
        ]
    )


def _main() -> None:
    parser = argparse.ArgumentParser(description="Make the tables of the documentation.")
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="what --json wrote")
    files: Any = parser.parse_args().files
    print(markdown([Report.from_json(file.read_text("utf-8")) for file in files]), end="")


if __name__ == "__main__":
    _main()
