"""The picture that `census.py` draws: two bar charts in an SVG, for light and dark screens."""

from collections import Counter
from collections.abc import Sequence
from math import floor, log10
from xml.sax.saxutils import escape

PAGE = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 430" role="img" font-family="system-ui, sans-serif">
<style>
.paper {{ fill: #fcfcfa }} .bar {{ fill: #3a7d5d }} .grid {{ stroke: #dcdcd6 }} .axis {{ stroke: #777770 }}
text {{ fill: #55554f; font-size: 12px }} .title {{ fill: #22221e; font-size: 20px; font-weight: 600 }}
.heading {{ fill: #22221e; font-size: 14px; font-weight: 600 }}
@media (prefers-color-scheme: dark) {{
.paper {{ fill: #191b1a }} .bar {{ fill: #6fbf97 }} .grid {{ stroke: #333735 }} .axis {{ stroke: #8d928f }}
text {{ fill: #b4b9b6 }} .title, .heading {{ fill: #f0f2f1 }}
}}
</style>
<rect class="paper" width="960" height="430" rx="8"/>
<text class="title" x="30" y="42">{title}</text>
<text x="30" y="64">{subtitle}</text>
{charts}
</svg>
"""
TOP, BOTTOM, WIDTH = 130, 370, 370  # of a chart

Bars = Sequence[tuple[float, str]]  # how high, and what to say when the mouse is there
Ticks = Sequence[tuple[float, str]]  # where, in bars from the left, and the label


def draw(title: str, arrivals: Sequence[tuple[float, int]], lengths: Sequence[int]) -> str:
    """The SVG, from when how many files were counted (seconds, files), and how many lines each file has."""
    seconds = max((when for when, _ in arrivals), default=0.0)
    files = sum(count for _, count in arrivals)
    figures = f"{files:,} files, {sum(lengths):,} lines, in {seconds:.2f} s"
    figures += f" ({files / seconds:,.0f} files per second)" if seconds else ""
    heading = title if len(title) <= 80 else f"{title[:79]}\N{HORIZONTAL ELLIPSIS}"
    charts = throughput(arrivals, seconds or 1.0) + sizes(lengths)
    return PAGE.format(title=escape(heading), subtitle=figures, charts=charts)


def throughput(arrivals: Sequence[tuple[float, int]], seconds: float) -> str:
    slices = min(len(arrivals), 40) or 1
    files = Counter[int]()
    for when, count in arrivals:
        files[min(int(when / seconds * slices), slices - 1)] += count
    bars = [(files[i] * slices / seconds, f"{files[i]:,} files") for i in range(slices)]
    step = nice_step(seconds, 8)
    ticks = [(i * step / seconds * slices, f"{i * step:g}") for i in range(int(seconds / step) + 1)]
    return chart(80, "Throughput", "seconds since the start", "files per second", bars, ticks)


def sizes(lengths: Sequence[int]) -> str:
    # From each bar to the next the lines double: none, 1, 2-3, 4-7, ...; so the number of bits tells which bar it is.
    files = Counter(lines.bit_length() for lines in lengths)
    last = max(files, default=0)
    edges = [0, *(2**bits for bits in range(last + 1))]
    bars = [(files[i], f"{files[i]:,} files with {edges[i]:,} to {edges[i + 1] - 1:,} lines") for i in range(last + 1)]
    ticks = [(i, f"{edges[i]:,}") for i in range(0, last + 2, 2 if last > 8 else 1)]
    return chart(560, "Sizes", "lines in a file", "files", bars, ticks)


def chart(left: int, title: str, x_label: str, y_label: str, bars: Bars, ticks: Ticks) -> str:
    highest = max(height for height, _ in bars) or 1
    step = max(nice_step(highest, 5), 1)  # half a file does not exist
    scale, bar, right = (BOTTOM - TOP) / highest, WIDTH / len(bars), left + WIDTH
    parts = [
        f'<text class="heading" x="{left}" y="{TOP - 30}">{title}</text>',
        f'<text x="{left}" y="{TOP - 13}">{y_label}</text>',
        f'<text x="{left + WIDTH / 2}" y="{BOTTOM + 40}" text-anchor="middle">{x_label}</text>',
    ]
    for i in range(int(highest / step) + 1):
        y = BOTTOM - i * step * scale
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{i * step:,g}</text>')
    for i, (height, hint) in enumerate(bars):
        place = f'x="{left + i * bar + 0.5:.1f}" width="{bar - 1:.1f}" y="{BOTTOM - height * scale:.1f}"'
        parts.append(f'<rect class="bar" {place} height="{height * scale:.1f}"><title>{hint}</title></rect>')
    parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{BOTTOM}" y2="{BOTTOM}"/>')
    for position, label in ticks:
        x = left + position * bar
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{BOTTOM}" y2="{BOTTOM + 5}"/>')
        parts.append(f'<text x="{x:.1f}" y="{BOTTOM + 19}" text-anchor="middle">{label}</text>')
    return "\n".join(parts) + "\n"


def nice_step(span: float, most: int) -> float:
    """1, 2 or 5 times a power of ten, so that at most `most` steps make `span`."""
    power = 10.0 ** floor(log10(span / most))
    return next((power * factor for factor in (1, 2, 5) if power * factor * most >= span), power * 10)
