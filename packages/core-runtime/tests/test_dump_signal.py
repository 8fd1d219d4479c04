"""Dumps of a process that hangs, on a signal: in real processes, with real signals."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from yamanote.runtime import dump_all, dump_on_signal, run

if sys.platform == "win32":
    pytest.skip("Windows has no signal that others can send", allow_module_level=True)


BEGIN = """
import asyncio, threading
from yamanote.runtime import dump_all, dump_on_signal, run, spawn

async def never():
    await asyncio.get_running_loop().create_future()

def hang():
    # Again and again: a wait does not notice a signal that came just as it began.
    print("hangs", flush=True)
    while not threading.Event().wait(0.01):
        pass
"""


@contextmanager
def program(text: str) -> Iterator[subprocess.Popen[str]]:
    """A program that hangs, and has said so. It is killed in the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN + textwrap.dedent(text)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "hangs\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def dumped(process: subprocess.Popen[str], last: str) -> str:
    """What the program says when the signal comes, up to a line that ends with `last`."""
    process.send_signal(signal.SIGUSR1)
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.rstrip().endswith(last):
            return "".join(lines)
    raise AssertionError("".join(lines))


def test_a_process_whose_tasks_hang_says_what_they_wait_for() -> None:
    with program(
        """
        async def main():
            dump_on_signal()
            spawn(never(), name="worker")
            asyncio.get_running_loop().call_soon(lambda: print("hangs", flush=True))  # when both wait
            await asyncio.Event().wait()

        run(main())
        """
    ) as process:
        for _ in range(2):  # and goes on hanging
            text = dumped(process, " in never")
            assert text.startswith("The loop in the thread 'MainThread':\n2 tasks have not ended")
            assert "waits for <asyncio.locks.Event" in text
            assert "'worker' waits for a future" in text


def test_a_process_whose_loop_is_blocked_says_where() -> None:
    with program(
        """
        def compute():
            print("hangs", flush=True)
            while True:
                pass

        async def main():
            compute()

        with dump_on_signal():
            run(main())
        """
    ) as process:
        text = dumped(process, " in compute")
        assert " is running\n" in text and " in main\n" in text


def test_every_loop_of_the_process_is_there() -> None:
    with program(
        """
        ready = threading.Barrier(3)

        async def first():
            ready.wait()
            await never()

        async def never_of_b():
            ready.wait()
            await asyncio.get_running_loop().create_future()

        dump_on_signal()
        for name, work in (("a", first), ("b", never_of_b)):
            threading.Thread(target=asyncio.run, args=(work(),), name=name).start()
        ready.wait()
        while dump_all().count("waits for a future") < 2:
            pass
        hang()
        """
    ) as process:
        text = dumped(process, " in never_of_b")
        assert "The loop in the thread 'a':" in text and "\n\nThe loop in the thread 'b':" in text


def test_a_process_without_a_loop_says_so() -> None:
    with program(
        """
        dump_on_signal()
        hang()
        """
    ) as process:
        assert dumped(process, ".") == "No event loop is running.\n"


# ---------------------------------------------------------------------- here


def test_the_handler_that_was_there_is_put_back() -> None:
    came: list[int] = []
    previous = signal.signal(signal.SIGUSR1, lambda signum, _: came.append(signum))
    try:
        with dump_on_signal(file=io.StringIO()):
            os.kill(os.getpid(), signal.SIGUSR1)
            assert came == []
        os.kill(os.getpid(), signal.SIGUSR1)
        assert came == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, previous)
    undo = dump_on_signal(signal.SIGUSR2)
    undo.close()
    undo.close()
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL


def test_it_writes_to_a_file_of_any_kind() -> None:
    file = io.StringIO()

    async def main() -> None:
        with dump_on_signal(file=file):
            os.kill(os.getpid(), signal.SIGUSR1)

    run(main())
    assert "1 task has not ended" in file.getvalue()
    assert file.getvalue().endswith(" in main\n") or file.getvalue().endswith(".main\n")  # not in the dump itself


def test_a_dump_that_fails_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise LookupError("no words")

    monkeypatch.setattr("yamanote.runtime._dump_signal.dump_all", fail)
    file = io.StringIO()
    with dump_on_signal(file=file):
        os.kill(os.getpid(), signal.SIGUSR1)
    assert file.getvalue() == "the dump failed: LookupError('no words')\n"


def test_a_file_that_cannot_be_written_does_no_harm() -> None:
    closed = io.StringIO()
    closed.close()
    reading, writing = os.pipe()
    os.close(reading)
    broken = open(writing, "w", encoding="utf-8")
    for file in (closed, broken):
        with dump_on_signal(file=file):
            os.kill(os.getpid(), signal.SIGUSR1)
    with contextlib.suppress(BrokenPipeError):
        broken.close()


def test_without_a_file_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)  # of a program without a console
    with dump_on_signal():
        os.kill(os.getpid(), signal.SIGUSR1)


def test_signals_that_cannot_be_handled_are_refused() -> None:
    for signum in (signal.SIGKILL, 12345):
        with pytest.raises(ValueError, match="signum"):
            dump_on_signal(signum)


def test_another_thread_than_the_main_one_is_refused() -> None:
    errors: list[str] = []

    def work() -> None:
        try:
            dump_on_signal()
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "main thread" in errors[0]


def test_all_is_nothing_where_no_loop_runs() -> None:
    assert dump_all() == "No event loop is running."
