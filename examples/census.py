"""A census of a code base: how many files, lines, functions and classes it has, and how long they are.

    python examples/census.py                     the standard library of this Python
    python examples/census.py src tests --check   these folders; then count again, plainly, and compare

A thread walks the tree and sends each path down a channel; a stream takes them, has several files at a time read and
parsed in threads, and gives what was counted, in batches, to a file and to the summary on the screen: see
`take_census`. Ctrl-C ends it early: the file and the report are about what was counted until then.

Needs `yamanote` and `rich`.
"""

import argparse
import gc
import io
import json
import os
import signal
import sys
import sysconfig
import time
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from counting import FileCount, count_file, differences, find_files
from picture import draw
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from yamanote import ChannelClosed, FileSink, Sender, channel, drain, run, spawn_blocking

PATHS = 10_000  # that may wait in the channel: the walk is far ahead of the count, so the remaining time can be told
BATCH = 100  # files, or what there is after
BATCH_SECONDS = 0.05
INSTALLED = ("site-packages", "dist-packages")  # not part of the standard library, though they may be inside


class Summary:
    """What was counted so far, and when; the progress bar shows it."""

    def __init__(self, progress: Progress) -> None:
        self.files: list[FileCount] = []
        self.arrivals: list[tuple[float, int]] = []  # seconds since the start, and how many files came
        self._lines = 0
        self._progress = progress
        self._bar = progress.add_task("", total=None, lines=0, rate=0)
        self._start = time.perf_counter()

    def found(self, total: int) -> None:
        self._progress.update(self._bar, total=total)

    def add(self, batch: list[FileCount]) -> None:
        now = time.perf_counter() - self._start
        self.files += batch
        self.arrivals.append((now, len(batch)))
        self._lines += sum(count.lines for count in batch)
        self._progress.update(self._bar, completed=len(self.files), lines=self._lines, rate=len(self.files) / now)


def send_all(paths: Iterable[Path], sender: Sender[Path], summary: Summary) -> None:
    """Send every path, then say how many there were. In a thread of its own."""
    total = 0
    with sender, suppress(ChannelClosed):  # which means that nobody counts any more
        for path in paths:
            sender.blocking_send(path)
            total += 1
        summary.found(total)


def as_lines(batch: list[FileCount]) -> str:
    return "\n".join(json.dumps(count._asdict()) for count in batch)


async def take_census(paths: Iterable[Path], output: Path, concurrency: int, summary: Summary) -> None:
    """Count the files, up to `concurrency` at a time. When this is cancelled, `output` and `summary` still agree."""
    if callable(on_interrupt := signal.getsignal(signal.SIGINT)):
        signal.signal(signal.SIGTERM, on_interrupt)  # being told to end is the same as Ctrl-C
    sender, receiver = channel[Path](PATHS)
    walk = spawn_blocking(send_all, paths, sender, summary)
    batches = (
        receiver.into_stream()
        .map(lambda path: spawn_blocking(count_file, path))
        .buffered_unordered(concurrency)
        .chunks_timeout(BATCH, BATCH_SECONDS)
    )
    output.write_bytes(b"")  # and not mode="replace", which would wait for the end
    async with FileSink(output).with_map(as_lines).fanout(drain().with_map(summary.add)) as sink:
        await batches.for_each(sink.send)  # not only fed: a batch is in the file before the next one is asked for
    await walk


# What comes out, and whether it is right.


def printable(text: str) -> str:
    """`text` with escapes for what terminals and XML stumble over: control characters, undecodable bytes."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def say(console: Console, line: str, style: str | None = None) -> None:
    """Print one line, whatever is in it."""
    console.print(printable(line), style=style, markup=False, highlight=False, soft_wrap=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[str | int]]) -> Table:
    result = Table(*headings)
    result.columns[0].overflow = "fold"
    for column in result.columns[1:]:
        column.justify = "right"
    for row in rows:
        result.add_row(*(f"{cell:,}" if isinstance(cell, int) else escape(printable(cell)) for cell in row))
    return result


def report(console: Console, folders: Sequence[Path], files: Sequence[FileCount]) -> None:
    """Print what was counted, what was not, and why."""
    one_drive = len({folder.anchor for folder in folders}) == 1
    inside = f"{os.path.commonpath(folders)}{os.sep}" if one_drive else ""
    files = sorted(count._replace(path=count.path.removeprefix(inside)) for count in files)
    counted = [count for count in files if not count.error]
    failed = [count for count in files if count.error]
    longest = max(counted, key=lambda count: count.longest, default=FileCount(""))
    biggest = sorted(counted, key=lambda count: count.lines, reverse=True)[:5]
    sums = [
        ("files", len(files)),
        ("of these not counted", len(failed)),
        ("lines", sum(count.lines for count in counted)),
        ("functions", sum(count.functions for count in counted)),
        ("async functions", sum(count.async_functions for count in counted)),
        ("classes", sum(count.classes for count in counted)),
        ("lines of the longest function", longest.longest),
    ]
    console.print(table(("", "total"), sums))
    if longest.longest:
        say(console, f"The longest function is {longest.longest_name}, in {longest.path}.")
    rows = [(file.path, file.lines, file.bytes // 1000, file.functions + file.async_functions) for file in biggest]
    console.print(table(("biggest files", "lines", "kB", "functions"), rows))
    if failed:
        say(console, "Not counted:", style="bold")
    for count in failed:
        say(console, f"  {count.path}: {count.error}")


def check(console: Console, paths: Iterable[Path], output: Path, summary: Summary) -> bool:
    """Count again in a plain loop, and print where the file or the summary differ from that."""
    expected = [count_file(path) for path in paths]
    written = [FileCount(**json.loads(line)) for line in output.read_text("utf-8").splitlines()]
    wrong = dict.fromkeys([*differences(written, expected), *differences(summary.files, expected)])
    for difference in wrong:
        say(console, difference)
    verdict = f"{len(wrong):,} differences from" if wrong else "Every number of every file agrees with"
    say(console, f"{verdict} a plain loop over {len(expected):,} files.", style="red" if wrong else "green")
    return not wrong


# The command line.


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {printable(message)}\n")  # one line, without the usage


def folder(text: str) -> Path:
    if not text or not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not a folder")
    return Path(text).resolve()


def new_folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("'' is not a folder")
    return Path(text)


def concurrency(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of files, at least 1")
    return number


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="census.py", description="Counts what is in Python files, and draws a picture of it.")
    parser.add_argument("folders", nargs="*", type=folder, help="where to look (default: the standard library)")
    help = "how many files to work on at a time (default: %(default)s)"
    parser.add_argument("--concurrency", metavar="N", type=concurrency, default=2 * (os.cpu_count() or 1), help=help)
    help = "where to put census.jsonl, a line for each file, and census.svg (default: %(default)s)"
    parser.add_argument("--output", metavar="FOLDER", type=new_folder, default="build/census", help=help)
    parser.add_argument("--check", action="store_true", help="count again, one file after the other, and compare")
    options = parser.parse_args(arguments)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        for name in ("census.jsonl", "census.svg"):
            (options.output / name).open("a").close()
    except OSError as error:
        parser.error(f"argument --output: cannot write to {str(options.output)!r}: {error.strerror}")
    return options


def census(options: argparse.Namespace, console: Console) -> int:
    """Count, report and check; return the exit code."""
    # A folder inside another one is left out, or its files would be counted twice.
    given = set(options.folders or [Path(sysconfig.get_path("stdlib"))])
    folders = sorted(path for path in given if given.isdisjoint(path.parents))
    without = () if options.folders else INSTALLED
    output, picture = options.output / "census.jsonl", options.output / "census.svg"
    title = f"Census of {', '.join(map(str, folders))}"
    progress = Progress(
        TextColumn("{task.completed:,} files, {task.fields[lines]:,} lines"),
        BarColumn(),
        TextColumn("{task.fields[rate]:,.0f} files/s"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not sys.stdout.isatty(),
    )
    summary = Summary(progress)
    interrupted = False
    try:
        with progress:
            run(take_census(find_files(folders, without), output, options.concurrency, summary))
    except KeyboardInterrupt:
        interrupted = True
    say(console, title, style="bold")
    report(console, folders, summary.files)
    lengths = [count.lines for count in summary.files if not count.error]
    picture.write_text(draw(printable(title), summary.arrivals, lengths), "utf-8")
    say(console, f"{output} has a line for each of the {len(summary.files):,} files, {picture} is the picture.")
    if interrupted:
        say(console, "Interrupted: this is what was counted until then.", style="red")
        return 130
    if options.check and not check(console, find_files(folders, without), output, summary):
        return 1
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # it may not be able to show every name
    gc.disable()  # there are no cycles in syntax trees, and looking for some takes a quarter of the time
    for category in (SyntaxWarning, DeprecationWarning):  # of the compiler, about the files
        warnings.filterwarnings("ignore", category=category)
    try:
        return census(options, Console())
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        print(f"census.py: {printable(str(error))}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
