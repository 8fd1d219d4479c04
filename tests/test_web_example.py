"""The web example as its users run it: three well-known web servers in workers, under load, replaced and killed.

The three run at once wherever a test waits for something: most of it is taking leave.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from asyncio import IncompleteReadError, StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path
from typing import Any, NamedTuple

import pytest

from yamanote.runtime import TaskGroup

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "web.py"
HOST = "127.0.0.1"
WEB_SERVERS = [name for name in ("aiohttp", "hypercorn", "uvicorn") if find_spec(name)]

pytestmark = [
    pytest.mark.skipif(not EXAMPLE.exists(), reason="the examples are not here"),
    pytest.mark.skipif(os.name != "posix", reason="needs POSIX"),
    pytest.mark.skipif(not WEB_SERVERS, reason="no web server is installed"),
]


class Program(NamedTuple):
    """An example that runs."""

    process: subprocess.Popen[str]
    port: int


@contextmanager
def running(*options: str) -> Iterator[list[Program]]:
    """The example with each web server; killed at the end, unless it has ended."""
    programs: list[Program] = []
    processes: list[subprocess.Popen[str]] = []
    try:
        for name in WEB_SERVERS:
            command = [sys.executable, str(EXAMPLE), name, "--port", "0", *options]
            processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        for process in processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(rf"http://{HOST}:(\d+) in process {process.pid}\n", line)
            assert found, (line, process.communicate(timeout=60))
            programs.append(Program(process, int(found[1])))
        yield programs
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()  # its workers notice, and end too


@pytest.fixture(scope="module")
def programs() -> Iterator[list[Program]]:
    """For all tests but those of threads, as starting is most of the work. The last test ends them."""
    with running("--leave", "0.5") as programs:
        yield programs


async def with_each(programs: list[Program], check: Callable[[Program], Awaitable[None]]) -> None:
    """Check all programs at once."""
    async with TaskGroup() as group:
        for program in programs:
            group.spawn(check(program))


Answer = dict[str, Any]


async def ask(
    reader: StreamReader, writer: StreamWriter, path: str = "/", *, close: bool = False
) -> tuple[Answer, bool]:
    """The answer, and whether one may ask again on this connection."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {HOST}", *(["Connection: close"] if close else [])]
    writer.write("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = re.search(r"\r\ncontent-length: (\d+)\r\n", head)
    assert head.startswith("http/1.1 200 ") and length, head
    body = await reader.readexactly(int(length[1]))
    return json.loads(body), "\r\nconnection: close\r\n" not in head


async def ask_once(port: int, path: str = "/") -> Answer:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        answer, _ = await ask(reader, writer, path, close=True)
        return answer
    finally:
        writer.close()


class Load:
    """Clients that ask all the time: half of them on one connection, half on a new one for each request."""

    def __init__(self, port: int) -> None:
        self.answered: list[int] = []  # the process, for each answer
        self.lost: list[str] = []  # asked on a new connection, or answered in part
        self.left: list[int] = []  # the process that closed a connection on which it has answered before, unasked
        self._port = port
        self._ended = False

    async def seen(self, condition: Callable[[set[int]], object]) -> None:
        """Wait until `condition` holds for the processes that have answered from now on."""
        before = len(self.answered)
        while not condition(set(self.answered[before:])):
            await asyncio.sleep(0.01)

    async def ask_without_end(self, *, close: bool) -> None:
        while not self._ended:
            reader, writer = await asyncio.open_connection(HOST, self._port)
            owner: int | None = None
            try:
                may_ask = True
                while may_ask and not self._ended:
                    answer, may_ask = await ask(reader, writer, close=close)
                    owner = answer["pid"]
                    self.answered.append(owner)
                    await asyncio.sleep(0.05)
            except (ConnectionError, IncompleteReadError) as error:
                if owner is None or getattr(error, "partial", b""):
                    self.lost.append(repr(error))
                else:
                    self.left.append(owner)
            finally:
                writer.close()

    def end(self) -> None:
        self._ended = True


CLIENTS = 2
"""Of each kind."""


@asynccontextmanager
async def load_on(port: int) -> AsyncIterator[Load]:
    load = Load(port)
    async with TaskGroup() as group:
        for _ in range(CLIENTS):
            group.spawn(load.ask_without_end(close=True))
            group.spawn(load.ask_without_end(close=False))
        yield load
        load.end()


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_rolling_restart_under_load_loses_no_request(programs: list[Program]) -> None:
    async def check(program: Program) -> None:
        async with load_on(program.port) as load:
            await load.seen(lambda pids: len(pids) == 2)
            before = set(load.answered)
            program.process.send_signal(signal.SIGHUP)
            while any(is_there(pid) for pid in before):
                await asyncio.sleep(0.05)
            await load.seen(lambda pids: len(pids) == 2 and not pids & before)
        assert load.lost == []
        # Those that stay on one connection were told to leave it; but a client may always have been too slow for that,
        # and then asks again.
        assert set(load.left) <= before

    await with_each(programs, check)


async def test_kill_9_loses_only_what_that_worker_was_answering(programs: list[Program]) -> None:
    async def check(program: Program) -> None:
        async with load_on(program.port) as load:
            await load.seen(lambda pids: len(pids) == 2)
            before = set(load.answered)
            killed = load.answered[-1]
            os.kill(killed, signal.SIGKILL)
            await load.seen(lambda pids: pids - before)
        assert set(load.left) <= {killed} and len(load.left) <= CLIENTS
        assert len(load.lost) <= 2 * CLIENTS  # each asked for one thing at a time
        assert len(set(load.answered) - before) == 1

    await with_each(programs, check)


def test_the_listening_socket_neither_blocks_a_worker_nor_delays_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["web.py", "aiohttp", "--port", "0"])
    with run_path(str(EXAMPLE))["listening"]() as listener:
        assert not os.get_blocking(listener.fileno())
        with socket.create_connection(listener.getsockname()), closing(listener.accept()[0]) as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def end(programs: list[Program], *, threads: bool) -> None:
    async def check(program: Program) -> None:
        assert ((await ask_once(program.port))["pid"] == program.process.pid) is threads
        reader, writer = await asyncio.open_connection(HOST, program.port)
        await ask(reader, writer)
        async with TaskGroup() as group:
            asked = group.spawn(ask(reader, writer, "/slow"))
            await asyncio.sleep(0.3)  # the page takes a second
            program.process.send_signal(signal.SIGTERM)
        _, may_ask = await asked
        writer.close()
        assert not may_ask
        _, errors = await asyncio.to_thread(program.process.communicate, timeout=60)
        assert program.process.returncode == 0
        # Processes may have told of the kill -9 that has been tested on them.
        assert [line for line in errors.splitlines() if threads or "SIGKILL" not in line] == []

    await with_each(programs, check)


async def test_what_has_been_asked_is_answered_before_the_end_of_threads() -> None:
    with running("--threads", "--leave", "0.5") as programs:
        await end(programs, threads=True)


async def test_what_has_been_asked_is_answered_before_the_end(programs: list[Program]) -> None:
    if any(program.process.poll() is not None for program in programs):
        pytest.fail("a program has ended before it was told to")
    await end(programs, threads=False)
