"""`start_server`: what its programs do in front of real signals, real clients and real accidents."""

from __future__ import annotations

import asyncio
import errno
import io
import logging
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGUSR1, Signals
from typing import Any

import pytest

from yamanote.runtime import run
from yamanote.server import SupervisorError, WorkerError, main, server, start_server
from yamanote.server._signums import SAME_REQUEST_SECONDS

if sys.platform == "win32":
    pytest.skip("needs a POSIX system", allow_module_level=True)

HOST = "127.0.0.1"

BEGINNING = '''
import asyncio, contextlib, glob, logging, os, signal, socket, sys, time
from yamanote.server import main, serve, server, start_server

logging.basicConfig(level=logging.INFO, format="%(message)s")


def say(*words):
    # In one piece: two threads that print would get into each other's lines.
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())


def describe_signals():
    handlers = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    return handlers, signal.pthread_sigmask(signal.SIG_BLOCK, ())


def children():
    """Those that are not reaped, without the servants of multiprocessing that are there until the end."""
    from multiprocessing import forkserver, resource_tracker

    servants = {resource_tracker._resource_tracker._pid, forkserver._forkserver._forkserver_pid}
    found = []
    for status in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError), open(status) as file:
            pid, _, fields = file.read().partition(" (")
            if int(fields.rpartition(")")[2].split()[1]) == os.getpid() and int(pid) not in servants:
                found.append(int(pid))
    return found


'''


class Program:
    """A program of its own, in a session of its own, and what it says on both streams."""

    def __init__(self, folder: Path, text: str, *args: object, **options: Any) -> None:
        path = folder / "program.py"
        path.write_text(BEGINNING + text)
        command = [sys.executable, "-W", "always::ResourceWarning", str(path), *map(str, args)]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | options
        self.process = subprocess.Popen(command, text=True, start_new_session=True, **options)
        self.said: list[str] = []
        # A program that hangs is to fail its test and to show what it has said.
        self.hung = False
        self.watchdog = threading.Timer(50, self.bark)
        self.watchdog.daemon = True
        self.watchdog.start()

    def wait_for(self, pattern: str, count: int = 1) -> list[re.Match[str]]:
        """Read on until so many lines match."""
        found: list[re.Match[str]] = []
        assert self.process.stdout is not None
        while len(found) < count:
            line = self.process.stdout.readline()
            assert line, f"no {pattern!r} in: {self}"
            self.said.append(line.rstrip())
            if match := re.search(pattern, line):
                found.append(match)
        return found

    def send(self, signum: Signals) -> None:
        self.process.send_signal(signum)

    def send_to_all(self, signum: Signals) -> None:
        """As the terminal does: to the workers as well."""
        os.killpg(self.process.pid, signum)

    def bark(self) -> None:
        self.hung = True
        self.kill()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, SIGKILL)

    def end(self) -> int:
        """Read all the rest, which ends when the last process has ended, and return the exit status."""
        if self.process.stdout is not None:
            self.said += self.process.stdout.read().splitlines()
        status = self.process.wait()
        assert not self.hung, f"{self}"
        if status != -SIGINT:  # which means that there was no time to close anything
            assert "ResourceWarning" not in str(self), f"{self}"
        return status

    def count(self, text: str) -> int:
        return str(self).count(text)

    def __str__(self) -> str:
        return "\n".join(self.said)


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    programs: list[Program] = []

    def start(text: str, *args: object, **options: Any) -> Program:
        programs.append(Program(tmp_path, text, *args, **options))
        return programs[-1]

    yield start
    for each in programs:
        each.watchdog.cancel()
        with each.process:
            each.kill()  # what is left when the test has failed


@pytest.fixture
def port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        number: int = listener.getsockname()[1]
    return number


def ask(port: int) -> str:
    with socket.create_connection((HOST, port)) as client:
        client.sendall(b"hello")
        return client.makefile().read()


ECHO = """
async def echo(reader, writer):
    data = await reader.read(100)
    writer.write(data)
    await writer.drain()
    writer.close()


@server
async def worker(loop, index, args):
    listener = await asyncio.start_server(echo, "127.0.0.1", int(sys.argv[1]), reuse_port=True)
    say(f"[{index}] started")
    signum = yield  # wait until told to stop
    listener.close()
    await listener.wait_closed()
    say(f"[{index}] stopped by {signum.name}")


if __name__ == "__main__":
    start_server(worker, num_workers=2, workers=sys.argv[2], method=sys.argv[3])
    say("the end")
"""


@pytest.mark.parametrize(
    ("workers", "method", "signum"),
    [("processes", "spawn", SIGINT), ("processes", "forkserver", SIGTERM), ("threads", "spawn", SIGINT)],
)
def test_the_echo_example_serves_until_a_signal_which_its_yield_returns(
    program: Callable[..., Program], port: int, workers: str, method: str, signum: Signals
) -> None:
    echo = program(ECHO, port, workers, method)
    echo.wait_for(r"is ready", 2)

    assert {ask(port) for _ in range(8)} == {"hello"}
    echo.send_to_all(signum)

    assert echo.end() == 0
    assert {f"[{index}] stopped by {signum.name}" for index in range(2)} <= set(echo.said)
    assert "Traceback" not in str(echo)
    assert echo.said[-1] == "the end"


SHARED = """
async def answer(reader, writer):
    await reader.read(100)
    writer.write(f"{os.getpid()}".encode())
    writer.close()


@server
async def worker(loop, index, args):
    listener, word = args
    if os.path.exists("broken"):
        raise LookupError("the new version is broken")
    async with serve(answer, sock=listener):  # it drains, which that of asyncio does not before Python 3.12
        signum = yield
    say(f"[{index}] stopped by {signum.name} with {word}")


@main
def setup():
    before = describe_signals()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        say("port", listener.getsockname()[1])
        signum = yield listener
        say("torn down by", signum.name)


if __name__ == "__main__":
    before = describe_signals()
    start_server(worker, setup, num_workers=2, args=["a word"], method="forkserver")
    say("as before:", describe_signals() == before, children())
"""


def test_workers_are_replaced_when_killed_and_on_sighup_and_no_client_is_refused(
    program: Callable[..., Program], tmp_path: Path
) -> None:
    shared = program(SHARED, cwd=tmp_path)
    port = int(shared.wait_for(r"port (\d+)")[0][1])
    first = {int(match[1]) for match in shared.wait_for(r"process (\d+)\) is ready", 2)}
    answers: list[str] = []
    enough = threading.Event()

    def keep_asking() -> None:
        while not enough.wait(0.002):
            answers.append(ask(port))

    # A worker is killed: the other one serves on, and it is replaced.
    victim = first.pop()
    os.kill(victim, SIGKILL)
    assert int(ask(port)) in first
    shared.wait_for(rf"worker \d \(process {victim}\) was killed by SIGKILL, and is restarted")
    first.add(int(shared.wait_for(r"process (\d+)\) is ready")[0][1]))

    # All are replaced, one after the other.
    clients = threading.Thread(target=keep_asking)
    clients.start()
    shared.send_to_all(SIGHUP)
    second = [int(match[1]) for match in shared.wait_for(r"process (\d+)\) is ready", 2)]
    shared.wait_for(r"\[1\] stopped by SIGHUP")
    enough.set()
    clients.join()
    events = re.findall(r"worker \d .* is ready|\[\d\] stopped", str(shared).partition("SIGHUP: replacing")[2])
    assert [re.sub(r" \(.*\)", "", event) for event in events] == [
        *("worker 0 is ready", "[0] stopped"),
        *("worker 1 is ready", "[1] stopped"),
    ]
    assert set(map(int, answers)) <= {*first, *second}

    # The new version does not start: the old one serves on.
    (tmp_path / "broken").touch()
    shared.send(SIGHUP)
    shared.wait_for("LookupError: the new version is broken")
    shared.wait_for("before it was ready; the workers that are left to replace serve on")
    for pid in second:
        os.kill(pid, 0)  # it is there

    # One is told to stop from elsewhere: that is in order, and it is replaced.
    (tmp_path / "broken").unlink()
    os.kill(second[0], SIGTERM)
    shared.wait_for(rf"worker 0 \(process {second[0]}\) has ended, and is restarted")
    assert "[0] stopped by SIGTERM with a word" in shared.said
    shared.wait_for(r"worker 0 .* is ready")

    # Somebody kills the fork server: how the workers end is not known, but that they do is enough.
    _, fields = Path(f"/proc/{second[1]}/stat").read_text().rsplit(")", 1)
    fork_server = int(fields.split()[1])
    has_died = os.pidfd_open(fork_server)
    os.kill(fork_server, SIGKILL)
    select.select([has_died], [], [])
    os.close(has_died)

    shared.send(SIGTERM)
    assert shared.end() == 0
    assert shared.count("ended with an unknown status, as the fork server has died") == 2
    assert "SIGTERM: stopping 2 workers" in shared.said
    assert shared.said[-2:] == ["torn down by SIGTERM", "as before: True []"]


FAILING_START = """
@server
async def worker(loop, index, args):
    if index == 1:
        match sys.argv[1]:
            case "exit":
                sys.exit(3)
            case "port":
                listener = await asyncio.start_server(print, "127.0.0.1", int(sys.argv[2]))
            case "hang":
                await asyncio.sleep(3600)
    yield
    say(f"[{index}] stopped")


@main
def setup():
    try:
        yield
    except BaseException as error:
        say("torn down by", type(error).__name__)
        raise


if __name__ == "__main__":
    before = describe_signals()
    try:
        start_server(worker, setup, num_workers=2, start_timeout=float(sys.argv[3]))
    finally:
        say("as before:", describe_signals() == before, children())
"""


@pytest.mark.parametrize(
    ("how", "timeout", "problem"),
    [
        ("exit", 60, "ended with exit status 3 before it was ready"),
        ("port", 60, "ended with exit status 1 before it was ready"),
        ("hang", 1, "was not ready within 1 second"),
    ],
)
def test_a_worker_that_does_not_start_is_the_end_of_all(
    program: Callable[..., Program], how: str, timeout: int, problem: str
) -> None:
    with socket.create_server((HOST, 0)) as used:
        failing = program(FAILING_START, how, used.getsockname()[1], timeout)

        assert failing.end() == 1
    assert re.search(rf"^yamanote.*WorkerError: worker \d .*{problem}$", failing.said[-1])
    assert failing.count("address already in use") == (how == "port")
    assert failing.count("was not ready within 1 second: stopping it") == (how == "hang")
    assert len([line for line in failing.said if line.endswith(f"{problem}; the start has failed")]) == 1
    assert failing.count("torn down by WorkerError") == 1
    assert failing.count("as before: True []") == 1
    assert failing.count("_fleet.py") == 0  # the traceback that counts is the worker's


STUBBORN = """
class Argument:
    def __reduce__(self):
        return unpickle, ()


def unpickle():
    from multiprocessing import current_process

    index = int(current_process().name.removeprefix("worker "))
    if sys.argv[1 + index] == "blocks while it is unpickled":
        say(f"[{index}] begins")
        time.sleep(3600)


@server
async def worker(loop, index, args):
    say(f"[{index}] begins, process {os.getpid()}")
    match sys.argv[1 + index]:
        case "slow to start":
            try:
                await asyncio.sleep(3600)
            finally:
                say(f"[{index}] does not start any more")
        case "blocks in its start":
            time.sleep(3600)
    signum = yield
    match sys.argv[1 + index]:
        case "fails":
            raise LookupError("no clean end")
        case "waits":
            try:
                await asyncio.sleep(3600)
            finally:
                say(f"[{index}] was cancelled")
        case "swallows":
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(3600)
        case "blocks":
            time.sleep(3600)
        case "blocks until SIGTERM":
            signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
            time.sleep(3600)


if __name__ == "__main__":
    *_, grace, workers, method = sys.argv
    count = len(sys.argv) - 4
    with socket.socket() as spare:
        try:
            args = [spare, Argument()]
            start_server(worker, num_workers=count, args=args, grace=float(grace), workers=workers, method=method)
        finally:
            say("children left:", children())
"""


def test_a_stop_waits_for_the_grace_period_then_terminates_then_kills_and_reaps(
    program: Callable[..., Program],
) -> None:
    ways = ("in order", "fails", "waits", "swallows", "blocks", "blocks until SIGTERM")
    stubborn = program(STUBBORN, *ways, 0.3, "processes", "forkserver")
    stubborn.wait_for("is ready", 6)

    stubborn.send(SIGTERM)

    assert stubborn.end() == 1
    said = str(stubborn)
    assert "ExceptionGroup: 5 of 6 workers have failed" in said
    assert re.search(r"worker 1 .* ended with exit status 1 when it was to stop", said)
    assert "[2] was cancelled" in said
    assert re.search(r"WorkerError: worker 2 .* not stop within 0.3 seconds, and ended with exit status 143", said)
    assert re.search(r"WorkerError: worker 3 .* not stop within 0.3 seconds, and was killed by SIGKILL", said)
    assert re.search(r"WorkerError: worker 4 .* not stop within 0.3 seconds, and was killed by SIGKILL", said)
    assert re.search(r"WorkerError: worker 5 .* not stop within 0.3 seconds, and ended with exit status 7", said)
    assert "children left: []" in said


def test_a_stop_interrupts_a_worker_that_has_not_started(program: Callable[..., Program]) -> None:
    starting = program(STUBBORN, "slow to start", "in order", 60, "processes", "spawn")
    starting.wait_for(r"begins", 2)

    starting.send(SIGINT)

    assert starting.end() == 0
    assert starting.count("[0] does not start any more") == 1
    assert starting.count("Traceback") == 0


def test_a_second_signal_kills_all_at_once(program: Callable[..., Program]) -> None:
    stubborn = program(STUBBORN, "waits", "blocks in its start", 3600, "processes", "spawn")
    stubborn.wait_for(r"begins", 2)

    stubborn.send(SIGTERM)
    stubborn.wait_for("SIGTERM: stopping")
    time.sleep(SAME_REQUEST_SECONDS + 0.01)
    stubborn.send(SIGINT)

    assert stubborn.end() == 128 + SIGINT
    assert re.search(r"a second signal, SIGINT: killing .*worker \d \(process \d+\)", str(stubborn))
    assert stubborn.count("children left: []") == 1


INTERRUPTED = """
@server
async def worker(loop, index, args):
    yield
    say("is told")
    await asyncio.sleep(3600)


if __name__ == "__main__":
    _, workers, method = sys.argv
    start_server(worker, num_workers=2, workers=workers, method=method, stop_signals=[signal.SIGTERM], grace=3600)
"""


@pytest.mark.parametrize(("workers", "method"), [("processes", "forkserver"), ("threads", "spawn")])
def test_ctrl_c_twice_ends_all_at_once_also_when_it_is_no_stop_signal(
    program: Callable[..., Program], workers: str, method: str
) -> None:
    interrupted = program(INTERRUPTED, workers, method)
    interrupted.wait_for("is ready", 2)

    interrupted.send(SIGINT)
    interrupted.wait_for("is told")
    interrupted.send(SIGINT)

    assert interrupted.end() == -SIGINT
    assert "KeyboardInterrupt" in interrupted.said


def test_workers_of_a_parent_that_was_killed_end_in_order_or_else_are_killed(program: Callable[..., Program]) -> None:
    ways = ("in order", "waits", "swallows", "blocks in its start", "blocks while it is unpickled")
    stubborn = program(STUBBORN, *ways, 0.2, "processes", "forkserver")
    stubborn.wait_for("is ready|begins", 3 + 5)

    stubborn.send(SIGKILL)

    assert stubborn.end() == -SIGKILL  # and all have closed what they write to
    assert stubborn.count("[1] was cancelled") == 1


def test_a_thread_that_does_not_end_is_shown_and_left_behind(program: Callable[..., Program]) -> None:
    stubborn = program(STUBBORN, "in order", "waits", "blocks", 0.3, "threads", "spawn")
    stubborn.wait_for("is ready", 3)

    stubborn.send(SIGTERM)

    assert stubborn.end() == 1
    said = str(stubborn)
    assert re.search(r"worker 2 \(thread\) is left behind: (.|\n)*program.py:\d+ in worker", said)
    assert "worker 1 (thread) did not stop within 0.3 seconds: cancelling it" in said
    assert "worker 2 (thread) did not stop when it was cancelled: leaving it behind" in said
    assert not re.search("terminat|kill", said)
    assert "WorkerError: worker 1 (thread) did not stop within 0.3 seconds, and ended with exit status 143" in said
    assert "WorkerError: worker 2 (thread) did not stop within 0.3 seconds, and was left behind" in said
    assert "worker 0" not in said.partition("ExceptionGroup")[2]


CRASHING = """
@server
async def worker(loop, index, args):
    async with asyncio.TaskGroup() as group:
        group.create_task(crash())
        yield


async def crash():
    raise LookupError("out of luck")


if __name__ == "__main__":
    _, workers, restart = sys.argv
    start_server(worker, workers=workers, method="forkserver", restart=restart, max_restarts=2, period=60)
"""


@pytest.mark.parametrize("workers", ["processes", "threads"])
def test_too_many_restarts_are_the_end_and_the_last_lines_say_so(program: Callable[..., Program], workers: str) -> None:
    crashing = program(CRASHING, workers, "transient")

    assert crashing.end() == 1
    assert crashing.count("ended with exit status 1, and is restarted") == 2
    assert crashing.count("ended with exit status 1; no restart is left: stopping all workers") == 1
    assert crashing.count("LookupError: out of luck") == 3
    assert "SupervisorError: 'worker 0'" in str(crashing)
    assert "failed after 2 restarts within 60 seconds" in str(crashing)
    assert re.search(r"WorkerError: worker 0 .* ended with exit status 1$", str(crashing), re.MULTILINE)
    assert crashing.count("_fleet.py") == 0


def test_a_full_disk_hides_no_exit_status(program: Callable[..., Program]) -> None:
    with open("/dev/full", "w") as full:
        crashing = program(CRASHING, "processes", "temporary", stdout=full, stderr=full)

        assert crashing.end() == 1


UNGUARDED = """
@server
async def worker(loop, index, args):
    yield


start_server(worker)
"""


def test_a_program_without_a_guard_is_told_that_it_needs_one(program: Callable[..., Program]) -> None:
    unguarded = program(UNGUARDED)

    assert unguarded.end() == 1
    assert 'put what starts the program under `if __name__ == "__main__":`' in str(unguarded)
    assert unguarded.said[-1].startswith("yamanote.server._worker.WorkerError: worker 0 ")


SLOW_TO_UNPICKLE = """
def unpickle():
    say("unpickles", os.getpid())
    while not os.path.exists("go"):
        time.sleep(0.01)


class Slow:
    def __reduce__(self):
        return unpickle, ()


@server
async def worker(loop, index, args):
    await asyncio.sleep(3600)
    yield


if __name__ == "__main__":
    start_server(worker, method=sys.argv[1], args=[Slow()], stop_signals=[signal.SIGINT])
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_signals_that_come_while_a_worker_is_unpickled_do_not_kill_it_and_are_not_lost(
    program: Callable[..., Program], tmp_path: Path, method: str
) -> None:
    slow = program(SLOW_TO_UNPICKLE, method, cwd=tmp_path)
    worker = int(slow.wait_for(r"unpickles (\d+)")[0][1])

    slow.send_to_all(SIGHUP)
    os.kill(worker, SIGTERM)  # from elsewhere, and to it alone
    (tmp_path / "go").touch()

    assert slow.end() == 1
    assert slow.said[-1].endswith("ended with exit status 0 before it was ready")


# ---------------------------------------------------------------- threads, in this process


def stop(signum: Signals = SIGTERM) -> None:
    """As if somebody had sent it to the program."""
    os.kill(os.getpid(), signum)


def test_main_is_around_all_workers_and_what_it_yields_comes_before_the_arguments() -> None:
    events: list[object] = []

    @server
    async def worker(loop: asyncio.AbstractEventLoop, index: int, args: list[Any]) -> AsyncGenerator[None, Signals]:
        assert loop is asyncio.get_running_loop()
        events.append((index, *args))
        stop(SIGUSR1)
        events.append((yield))

    @main
    def setup() -> Generator[tuple[str, int], Signals]:
        events.append("set up")
        events.append((yield "first", 2))

    start_server(worker, setup, args=[3], workers="threads", stop_signals=[SIGUSR1])

    assert events == ["set up", (0, "first", 2, 3), SIGUSR1, SIGUSR1]


@pytest.mark.parametrize(("value", "first"), [(None, []), (0, [0]), ((), []), ([1, 2], [[1, 2]])])
def test_main_may_yield_nothing_one_thing_or_a_tuple(value: object, first: list[object]) -> None:
    got: list[object] = []

    @server
    async def worker(loop: asyncio.AbstractEventLoop, index: int, args: list[Any]) -> AsyncGenerator[None, Signals]:
        got.extend(args)
        stop()
        yield

    @main
    def setup() -> Generator[object, Signals]:
        yield value

    start_server(worker, setup, workers="threads")

    assert got == first


def test_each_thread_has_a_socket_of_its_own_so_that_one_may_close_it() -> None:
    ports: list[tuple[int, int]] = []

    @server
    async def worker(loop: asyncio.AbstractEventLoop, index: int, args: list[Any]) -> AsyncGenerator[None, Signals]:
        with args[0] as listener:
            ports.append(listener.getsockname()[1])
            if len(ports) == 3:
                stop()
            yield

    with socket.create_server((HOST, 0)) as listener:
        start_server(worker, args=[listener], num_workers=3, workers="threads")

        assert ports == [listener.getsockname()[1]] * 3


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_a_new_thread_leaves_the_sockets_of_the_others_as_non_blocking_as_they_are(timeout: float | None) -> None:
    blocking: list[bool] = []

    @server
    async def worker(loop: asyncio.AbstractEventLoop, index: int, args: list[Any]) -> AsyncGenerator[None, Signals]:
        (listener,) = args
        assert listener.gettimeout() == timeout
        blocking.append(os.get_blocking(listener.fileno()))
        listener.setblocking(False)
        stop(SIGHUP if len(blocking) == 1 else SIGTERM)
        yield

    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(timeout)
        start_server(worker, args=[listener], workers="threads")

    assert blocking == [timeout is None, False]


def test_a_thread_that_the_system_does_not_start_keeps_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("worker"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with socket.create_server((HOST, 0)) as listener:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            start_server(idle, args=[listener], workers="threads")
        address = listener.getsockname()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


@pytest.mark.parametrize(("restart", "lives"), [("permanent", 3), ("transient", 1), ("temporary", 1)])
def test_a_worker_that_has_ended_by_itself_is_restarted_only_when_it_is_permanent(restart: Any, lives: int) -> None:
    started = 0

    @server
    async def worker(loop: asyncio.AbstractEventLoop, index: int, args: list[Any]) -> AsyncGenerator[None, Signals]:
        nonlocal started
        started += 1
        if started == 3:
            stop()
        else:
            task = asyncio.current_task()
            assert task is not None
            loop.call_soon(task.cancel)
        with suppress(asyncio.CancelledError):
            yield

    start_server(worker, workers="threads", restart=restart)

    assert started == lives


@pytest.mark.parametrize(
    ("num_workers", "deaths", "enough"), [(1, 3, True), (1, 4, False), (4, 4, True), (4, 5, False)]
)
def test_by_default_three_restarts_are_allowed_or_one_for_each_worker(
    num_workers: int, deaths: int, enough: bool
) -> None:
    lives: list[int] = []

    @server
    async def worker(loop: asyncio.AbstractEventLoop, index: int, args: list[Any]) -> AsyncGenerator[None, Signals]:
        task = asyncio.current_task()
        assert task is not None
        lives.append(index)
        if lives.count(0) <= deaths and index == 0:
            loop.call_soon(task.cancel)
        elif index == 0:
            stop()
        with suppress(asyncio.CancelledError):
            yield

    with nullcontext() if enough else pytest.raises(SupervisorError):
        start_server(worker, num_workers=num_workers, workers="threads", period=60)

    assert lives.count(0) == (deaths + 1 if enough else deaths)


@pytest.mark.parametrize("error", [SystemExit(3), SystemExit("a reason"), LookupError("a bug")])
def test_the_exit_code_of_a_thread_is_that_of_a_process(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: shown.append(args.exc_value))

    @server
    async def worker(loop: asyncio.AbstractEventLoop, index: int, args: list[Any]) -> AsyncGenerator[None, Signals]:
        raise error
        yield

    with pytest.raises(WorkerError) as raised:
        start_server(worker, workers="threads")

    assert raised.value.exitcode == (3 if error.args == (3,) else 1)
    assert raised.value.index == 0
    assert shown == ([error] if isinstance(error, LookupError) else [])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", [SystemExit("a reason"), LookupError("a bug")])
def test_the_end_of_a_thread_is_noticed_also_when_it_cannot_be_shown(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    def show(args: object) -> None:
        if threading.current_thread().name.startswith("worker"):
            raise OSError(errno.ENOSPC, "No space left on device")

    @server
    async def worker(loop: asyncio.AbstractEventLoop, index: int, args: list[Any]) -> AsyncGenerator[None, Signals]:
        monkeypatch.setattr(threading, "excepthook", show)
        monkeypatch.setattr(sys, "stderr", Full())
        raise error
        yield

    with pytest.raises(WorkerError, match="ended with exit status 1 before it was ready"):
        start_server(worker, workers="threads", start_timeout=1, grace=0.1)


def test_the_signals_are_as_they_were_whatever_happens() -> None:
    def handler(signum: int, frame: object) -> None: ...

    @server
    async def worker(loop: asyncio.AbstractEventLoop, index: int, args: list[Any]) -> AsyncGenerator[None, Signals]:
        sys.exit(3)
        yield

    @main
    def broken() -> Generator[None, Signals]:
        raise LookupError("no luck")
        yield

    signums = (SIGINT, SIGTERM, SIGHUP)
    previous = [signal.signal(signum, handler) for signum in signums]
    try:
        with pytest.raises(WorkerError):
            start_server(worker, workers="threads")
        with pytest.raises(LookupError):
            start_server(worker, broken, workers="threads")
        assert [signal.getsignal(signum) for signum in signums] == [handler] * 3
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        for signum, before in zip(signums, previous, strict=True):
            signal.signal(signum, before)


def test_a_stop_signal_interrupts_the_set_up_of_main() -> None:
    events: list[str] = []

    @server
    async def worker(loop: asyncio.AbstractEventLoop, index: int, args: list[Any]) -> AsyncGenerator[None, Signals]:
        events.append("started")
        yield

    @main
    def setup() -> Generator[None, Signals]:
        try:
            stop(SIGTERM)
            yield
        finally:
            events.append("torn down")

    with pytest.raises(SystemExit) as raised:
        start_server(worker, setup, workers="threads")

    assert raised.value.code == 128 + SIGTERM
    assert events == ["torn down"]


def test_a_reload_for_which_the_system_has_no_room_leaves_the_workers_as_they_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    events: list[object] = []

    class Log(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "serve on" in record.getMessage():
                stop()

    @server
    async def worker(loop: asyncio.AbstractEventLoop, index: int, args: list[Any]) -> AsyncGenerator[None, Signals]:
        listener.close()  # so that there is nothing to duplicate for the next worker
        stop(SIGHUP)
        events.append((yield))

    logger = logging.getLogger("yamanote")
    logger.addHandler(handler := Log())
    try:
        with socket.create_server((HOST, 0)) as listener:
            start_server(worker, args=[listener], workers="threads")
    finally:
        logger.removeHandler(handler)

    assert events == [SIGTERM]
    assert "Bad file descriptor; the workers that are left to replace serve on" in caplog.text


def test_a_set_up_that_does_not_let_itself_be_interrupted_comes_to_its_yield_and_is_not_cancelled_any_more() -> None:
    events: list[object] = []

    @server
    async def worker(loop: asyncio.AbstractEventLoop, index: int, args: list[Any]) -> AsyncGenerator[None, Signals]:
        task = asyncio.current_task()
        assert task is not None
        with suppress(asyncio.CancelledError):
            stop()
            await asyncio.sleep(3600)
        events.append((yield))
        await asyncio.sleep(0)
        events.append(task.cancelling())

    start_server(worker, workers="threads")

    assert events == [SIGTERM, 0]


def test_the_loops_of_the_workers_can_be_chosen() -> None:
    class Loop(asyncio.SelectorEventLoop): ...

    loops: list[object] = []

    @server
    async def worker(loop: asyncio.AbstractEventLoop, index: int, args: list[Any]) -> AsyncGenerator[None, Signals]:
        loops.append(type(loop))
        stop()
        yield

    start_server(worker, workers="threads", loop_factory=Loop)

    assert loops == [Loop]


# ---------------------------------------------------------------- nonsense


@server
async def idle(loop: asyncio.AbstractEventLoop, index: int, args: list[Any]) -> AsyncGenerator[None, Signals]:
    yield


NAMELESS = getattr(signal, "SIGRTMIN", 0) + 1


@main
def frame() -> Generator[None, Signals]:
    pytest.fail("nothing begins")
    yield


@pytest.mark.parametrize(
    ("kind", "problem", "arguments"),
    [
        (TypeError, "worker must be a function decorated with @server", {"worker": print}),
        (TypeError, "worker must be a function decorated with @server", {"worker": frame}),
        (TypeError, "main must be a function decorated with @main", {"main": idle}),
        (TypeError, "num_workers must be a whole number", {"num_workers": 1.5}),
        (TypeError, "num_workers must be a whole number", {"num_workers": True}),
        (ValueError, "num_workers must be at least 1", {"num_workers": 0}),
        (TypeError, "args must be a list or a tuple", {"args": "text"}),
        (TypeError, "args must be a list or a tuple", {"args": {1}}),
        (ValueError, "workers must be", {"workers": "fibres"}),
        (ValueError, "method must be", {"method": "fork"}),
        (TypeError, "stop_signals must be several", {"stop_signals": SIGTERM}),
        (TypeError, "stop_signals must be signals", {"stop_signals": ["SIGTERM"]}),
        (ValueError, "stop_signals must be signals", {"stop_signals": [0]}),
        (ValueError, "stop_signals must be signals that can be caught", {"stop_signals": [SIGKILL]}),
        pytest.param(
            *(ValueError, "stop_signals must be signals with a name", {"stop_signals": [NAMELESS]}),
            marks=pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="all signals have names"),
        ),
        (ValueError, "stop_signals must be at least one", {"stop_signals": []}),
        (ValueError, "reload_signals must be others", {"reload_signals": [SIGTERM]}),
        (ValueError, "strategy must be", {"strategy": "all"}),
        (ValueError, "restart must be", {"restart": "always"}),
        (ValueError, "max_restarts must", {"max_restarts": -1}),
        (ValueError, "period must", {"period": 0}),
        (TypeError, "backoff must", {"backoff": 1}),
        (TypeError, "start_timeout must be", {"start_timeout": "1"}),
        (ValueError, "start_timeout must be", {"start_timeout": -1}),
        (TypeError, "grace must be", {"grace": None}),
        (ValueError, "grace must be", {"grace": float("inf")}),
        (TypeError, "loop_factory must be", {"loop_factory": 1}),
    ],
)
def test_nonsense_is_refused_before_anything_begins(
    kind: type[Exception], problem: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(kind, match=problem):
        start_server(**{"worker": idle, "main": frame, "workers": "threads", **arguments})


def test_it_is_refused_where_a_loop_runs_and_outside_of_the_main_thread() -> None:
    async def inside() -> None:
        start_server(idle, frame)

    problems: list[str] = []

    def elsewhere() -> None:
        try:
            start_server(idle, frame)
        except RuntimeError as error:
            problems.append(str(error))

    with pytest.raises(RuntimeError, match="one is running in this thread"):
        run(inside())
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert problems == ["start_server() needs the main thread: signals arrive nowhere else"]


def test_what_cannot_be_pickled_is_named() -> None:
    with pytest.raises(TypeError, match=r"args\[1\] must be something that can be pickled"):
        start_server(idle, args=[1, threading.Lock()])
    with pytest.raises(TypeError, match=r"loop_factory must be something that can be pickled, not <function .*lambda"):
        start_server(idle, frame, loop_factory=lambda: asyncio.SelectorEventLoop())
