"""The main example, as a user runs it: a process of its own, judged by its exit code, its output and its files."""

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

CENSUS = Path(__file__).resolve().parent.parent / "examples" / "census.py"
STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))

yamanote = find_spec("yamanote")
pytestmark = [
    pytest.mark.skipif(not CENSUS.exists(), reason="the examples are not here"),
    pytest.mark.skipif(yamanote is None or yamanote.origin is None, reason="the meta-package is not installed"),
]
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")

# What is known about it is in `test_the_numbers_are_exact`.
KNOWN = b'''\
"""A module."""
import asyncio

@staticmethod
def plain(): return lambda: 1

class Outer:
    class Inner:
        async def method(self):
            if self:
                def nested():
                    pass
            else:
                async def other(): ...
            match self:
                case 1:
                    def in_case(): ...

try:
    def one(): ...
except ImportError:
    def two(): ...
else:
    class Third: ...
finally:
    with open(0) as f:
        while f:
            def four(): ...
'''


class Result:
    """What a run has left."""

    def __init__(self, code: int, stdout: bytes, stderr: bytes, output: Path) -> None:
        self.code = code
        self.stdout = stdout.decode()
        self.stderr = stderr.decode()
        self.output = output

    @property
    def counts(self) -> dict[str, dict[str, Any]]:
        """The lines of the file, by path; each of them has to be valid, and there is one for each file."""
        text = (self.output / "census.jsonl").read_bytes()
        assert text.endswith(b"\n") or not text
        lines = [json.loads(line) for line in text.splitlines()]
        counts = {line["path"]: line for line in lines}
        assert len(lines) == len(counts)
        return counts

    @property
    def reported(self) -> int:
        """How many files there were, as it says at the end."""
        (files,) = re.findall(r"a line for each of the ([\d,]+) files", self.stdout)
        return int(files.replace(",", ""))

    def table(self, row: str) -> int:
        (number,) = re.findall(rf"^\S {row} +\S +([\d,]+)", self.stdout, re.MULTILINE)
        return int(number.replace(",", ""))


Census = Callable[..., Result]


def command(*arguments: object, before: str = "") -> list[str]:
    """How to run it; `before` is done first, with the module at hand as `census`."""
    program = (
        f"import sys; sys.path.insert(0, {str(CENSUS.parent)!r}); import census; {before}\nsys.exit(census.main())"
    )
    return [sys.executable, "-W", "always::ResourceWarning", "-c", program, *map(str, arguments)]


@pytest.fixture(autouse=True)
def no_wishes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where these tests run, somebody may have told every program to write in colour."""
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


@pytest.fixture
def census(tmp_path: Path, output: Path) -> Census:
    """Runs it, as a script unless something is to be done `before`."""

    def census(*arguments: object, before: str = "", **environment: str) -> Result:
        line = command(*arguments, "--output", output, before=before)
        if not before:
            line[3:5] = [str(CENSUS)]
        done = subprocess.run(line, cwd=tmp_path, env=os.environ | environment, capture_output=True, timeout=100)
        return Result(done.returncode, done.stdout, done.stderr, output)

    return census


def test_the_numbers_are_exact(census: Census, tree: Path) -> None:
    (tree / "known.py").write_bytes(KNOWN)
    (tree / "windows.py").write_bytes(b"def f():\r\n    pass\r\n\r\n# no line feed at the end")
    (tree / "empty.py").touch()
    (tree / "nothing.txt").write_text("def f(): ...")

    result = census(tree)

    assert 0 == result.code, result.stderr
    assert "" == result.stderr
    assert {"empty.py", "known.py", "windows.py"} == {Path(path).name for path in result.counts}
    assert {
        "path": str(tree / "known.py"),
        "bytes": len(KNOWN),
        "lines": 28,
        "functions": 6,
        "async_functions": 2,
        "classes": 3,
        "longest": 9,
        "longest_name": "method",
        "error": "",
    } == result.counts[str(tree / "known.py")]
    assert 4 == result.counts[str(tree / "windows.py")]["lines"]
    assert [3, 0, 32, 7, 2, 3, 9] == [
        result.table(row)
        for row in (
            "files",
            "of these not counted",
            "lines",
            "functions",
            "async functions",
            "classes",
            "lines of the longest function",
        )
    ]


@pytest.mark.parametrize("concurrency", ["1", "50"])
def test_a_plain_loop_counts_the_same_in_a_real_package(census: Census, concurrency: str) -> None:
    folders = [STANDARD_LIBRARY / "asyncio", STANDARD_LIBRARY / "json"]

    result = census(*folders, "--check", "--concurrency", concurrency)

    assert 0 == result.code, result.stderr
    assert "Every number of every file agrees" in result.stdout
    assert "" == result.stderr
    expected = {str(path) for folder in folders for path in folder.resolve().rglob("*.py")}
    assert expected == set(result.counts)
    assert len(expected) == result.reported == result.table("files")
    assert sum(count["lines"] for count in result.counts.values()) == result.table("lines")


def test_check_tells_what_differs_and_fails(census: Census, tree: Path) -> None:
    for number in range(3):
        (tree / f"m{number}.py").write_text("x = 1\n")
    before = (
        "plain = census.count_file; seen = set()\n"
        "def count_file(path):\n"
        "    again = path in seen or seen.add(path)\n"
        "    return plain(path)._replace(classes=7) if again and path.name == 'm1.py' else plain(path)\n"
        "census.count_file = count_file"
    )

    result = census(tree, "--check", before=before)

    assert 1 == result.code, result.stderr
    assert f"{tree / 'm1.py'}: classes 0, not 7\n1 differences from a plain loop over 3 files." in result.stdout
    assert "" == result.stderr


def test_files_that_cannot_be_counted_are_listed_and_stop_nothing(census: Census, tree: Path) -> None:
    (tree / "good.py").write_text("def f(): ...\n")
    (tree / "syntax.py").write_text("x = 1\nprint 'hello'\n")
    (tree / "encoding.py").write_bytes(b"# coding: klingon\n")
    (tree / "bytes.py").write_bytes(b"x = '\xff'\n")
    (tree / "null.py").write_bytes(b"x = 1\x00\n")
    (tree / "deep.py").write_text("(" * 5000 + ")" * 5000)
    (tree / "folder.py").mkdir()

    result = census(tree, "--check")

    assert 0 == result.code, result.stderr
    assert "" == result.stderr
    bad = {"syntax.py", "encoding.py", "bytes.py", "null.py", "deep.py"}
    listed = dict(re.findall(r"^  (\w+\.py): (\w.+)$", result.stdout, re.MULTILINE))
    assert bad == set(listed)
    assert "(syntax.py, line 2)" in listed["syntax.py"]
    assert "klingon" in listed["encoding.py"]
    assert bad == {Path(path).name for path, count in result.counts.items() if count["error"]}
    assert (6, 5, 1) == (result.reported, result.table("of these not counted"), result.table("functions"))


@posix
def test_what_is_no_readable_file_is_listed_and_not_waited_for(census: Census, tree: Path) -> None:
    os.mkfifo(tree / "pipe.py")
    (tree / "endless.py").symlink_to("/dev/zero")
    (tree / "nowhere.py").symlink_to("gone")
    (tree / "loop.py").symlink_to("loop.py")
    (tree / "circle").symlink_to(tree)

    result = census(tree)

    assert 0 == result.code, result.stderr
    errors = {Path(path).name: count["error"] for path, count in result.counts.items()}
    assert {"pipe.py", "endless.py", "nowhere.py", "loop.py"} == set(errors)
    assert "OSError: not a regular file" == errors["pipe.py"] == errors["endless.py"]
    assert errors["nowhere.py"].startswith("FileNotFoundError: ")


def test_a_folder_that_cannot_be_listed_is_named(census: Census, tree: Path) -> None:
    (tree / "closed").mkdir()
    (tree / "open.py").touch()
    before = (  # taking the right away would not do: root may list everything
        "import os; scandir = os.scandir\n"
        "def refuse(path):\n"
        "    if path.endswith('closed'): raise PermissionError(13, 'Permission denied', path)\n"
        "    return scandir(path)\n"
        "os.scandir = refuse"
    )

    result = census(tree, "--check", before=before)

    assert 0 == result.code, result.stderr
    assert "  closed: OSError: a folder that cannot be listed\n" in result.stdout
    assert (2, 1) == (result.reported, result.table("of these not counted"))


def test_what_the_compiler_says_about_a_file_is_not_shown(census: Census, tree: Path) -> None:
    (tree / "warned.py").write_text("assert (1, 'always true')\nx = '\\d'\n1 is 1\n")

    result = census(tree, "--check", PYTHONWARNINGS="error")

    assert 0 == result.code, result.stderr
    assert "" == result.stderr
    assert "Warning" not in result.stdout
    assert 0 == result.table("of these not counted")


@posix
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_odd_names_are_counted_and_can_be_printed(census: Census, tree: Path, encoding: str) -> None:
    names = [b"two\nlines.py", b"escape\x1b[31m.py", b"[bold]markup[red].py", "\u96ea \N{SNOWMAN}.py".encode(), b" .py"]
    try:
        (tree / os.fsdecode(b"\xff\xfe.py")).touch()
        names.append(b"\xff\xfe.py")
    except OSError:
        pass  # this file system has no such names
    for name in names:
        (tree / os.fsdecode(name)).write_text("print 'no'\n" * 3)

    result = census(tree, "--check", PYTHONIOENCODING=encoding)

    assert 0 == result.code, result.stderr
    assert "" == result.stderr
    assert set(map(os.fsdecode, names)) == {Path(path).name for path in result.counts}
    assert len(names) == len(re.findall("SyntaxError", result.stdout))
    assert "\x1b" not in result.stdout
    assert "  [bold]markup[red].py: " in result.stdout


def test_an_empty_folder_is_no_problem(census: Census, tree: Path) -> None:
    result = census(tree, "--check")

    assert 0 == result.code, result.stderr
    assert {} == result.counts
    assert 0 == result.reported == result.table("lines")
    ElementTree.parse(result.output / "census.svg")


def test_a_file_is_counted_once_however_often_its_folder_is_given(census: Census, tree: Path) -> None:
    (tree / "inner").mkdir()
    (tree / "inner" / "m.py").touch()

    result = census(tree, tree / "inner", f"{tree}/../tree", "--check")

    assert 0 == result.code, result.stderr
    assert 1 == result.reported


def test_the_standard_library_is_the_default_without_what_is_installed_in_it(census: Census, tree: Path) -> None:
    for folder in ("json", "site-packages", "dist-packages"):
        (tree / folder).mkdir()
        (tree / folder / "m.py").touch()
    before = f"census.sysconfig.get_path = {{'stdlib': {str(tree)!r}}}.__getitem__"

    assert {str(tree / "json" / "m.py")} == set(census(before=before).counts)
    assert 3 == census(tree).reported


def test_the_picture_is_well_formed_and_has_the_figures(census: Census, tmp_path: Path) -> None:
    tree = tmp_path / "<a> & 'b'"
    tree.mkdir()
    for number in range(20):
        (tree / f"m{number}.py").write_text("x = 1\n" * 2**number if number < 10 else "x = 1\n" * 5)

    result = census(tree)

    root = ElementTree.parse(result.output / "census.svg").getroot()
    texts = ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]
    hints = [node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}title")]
    assert f"Census of {tree}"[:79] == texts[0][:79]
    assert any(text.startswith("20 files, 1,073 lines, in ") for text in texts)
    assert {"Throughput", "files per second", "seconds since the start", "Sizes", "lines in a file"} <= set(texts)
    assert "11 files with 4 to 7 lines" in hints
    assert "1 files with 512 to 1,023 lines" in hints


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--concurrency", "0"], "argument --concurrency: '0' is not a whole number"),
        (["--concurrency", "-3"], "argument --concurrency: '-3' is not a whole number"),
        (["--concurrency", "many"], "argument --concurrency: 'many' is not a whole number"),
        (["--concurrency", "1.5"], "argument --concurrency: '1.5' is not a whole number"),
        (["--concurrency", ""], "argument --concurrency: '' is not a whole number"),
        (["--concurrency", "9" * 5000], "argument --concurrency: '999"),
        (["--concurrency"], "argument --concurrency: expected one argument"),
        (["not/there"], "argument folders: 'not/there' is not a folder"),
        ([""], "argument folders: '' is not a folder"),
        ([__file__], "is not a folder"),
        (["two\nlines"], "is not a folder"),
        (["--output", __file__], "argument --output: cannot write to"),
        (["--output", os.path.join(__file__, "inside")], "argument --output: cannot write to"),
        (["--output", ""], "argument --output: '' is not a folder"),
        (["--speed=9"], "unrecognized arguments: --speed=9"),
    ],
)
def test_nonsense_is_refused_in_one_line(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    line = [sys.executable, str(CENSUS), *arguments]

    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=100)

    assert (2, "") == (done.returncode, done.stdout)
    assert complaint in done.stderr
    assert done.stderr.startswith("census.py: ")
    assert 1 == done.stderr.count("\n")
    assert [] == list(tmp_path.iterdir())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_an_error_of_one_line(census: Census, tree: Path, output: Path) -> None:
    for number in range(3):
        (tree / f"m{number}.py").touch()
    output.mkdir()
    (output / "census.jsonl").symlink_to("/dev/full")

    result = census(tree)

    assert 2 == result.code
    assert "census.py: [Errno 28] No space left on device\n" == result.stderr


def test_help_says_what_there_is(census: Census) -> None:
    result = census("--help")

    assert 0 == result.code, result.stderr
    assert all(option in result.stdout for option in ("folders", "--concurrency", "--output", "--check"))


def wait_until(condition: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("concurrency", ["1", "100"])
def test_a_signal_ends_it_in_good_order(tmp_path: Path, output: Path, number: signal.Signals, concurrency: str) -> None:
    # A shell that runs this in the background has it ignore SIGINT.
    before = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    line = command("--concurrency", concurrency, "--check", "--output", output, before=before)
    file = output / "census.jsonl"

    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_until(lambda: file.exists() and file.stat().st_size, process)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=100)

    result = Result(process.returncode, stdout, stderr, output)
    assert (130, "") == (result.code, result.stderr)
    assert "Interrupted: this is what was counted until then." in result.stdout
    assert (
        0 < len(result.counts) == result.reported == result.table("files") < len(list(STANDARD_LIBRARY.rglob("*.py")))
    )
    assert sum(count["lines"] for count in result.counts.values()) == result.table("lines")
    ElementTree.parse(output / "census.svg")


@posix
def test_a_terminal_sees_a_progress_bar_and_anything_else_none(census: Census, tmp_path: Path, output: Path) -> None:
    folder = STANDARD_LIBRARY / "asyncio"
    terminal, its_end = os.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    line = [sys.executable, str(CENSUS), str(folder), "--output", str(output)]

    with subprocess.Popen(line, cwd=tmp_path, env=environment, stdout=its_end, stderr=its_end) as process:
        os.close(its_end)
        shown = b"".join(until_hung_up(terminal)).decode()
    os.close(terminal)

    files = len(list(folder.rglob("*.py")))
    assert 0 == process.returncode, shown
    assert f"{files} files, " in shown
    assert "files/s" in shown
    plain = census(folder)
    assert 0 == plain.code, plain.stderr
    assert [] == re.findall(r"[\x00-\x09\x0b-\x1f\x7f]", plain.stdout.replace(os.linesep, "\n"))
    coloured = census(folder, FORCE_COLOR="1")
    assert 0 == coloured.code, coloured.stderr
    assert {"m"} == set(re.findall(r"\x1b\[[\d;?]*(.)", coloured.stdout))  # colours, and the cursor stays where it is


def until_hung_up(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            shown = os.read(terminal, 65536)
        except OSError:  # how Linux says it
            return
        if not shown:
            return
        yield shown
