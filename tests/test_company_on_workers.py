"""Libraries made for asyncio, in tasks that are spread over four workers: all busy at once, and cancelled now and then.

What a part has done is counted at both ends, and has to agree: requests, increments, rows, messages. Nothing may be
left behind, and nothing be complained of. Redis and PostgreSQL are the real servers, started here; a part whose library
or server is not installed is skipped. `YAMANOTE_STRESS` multiplies the seconds.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from asyncio import AbstractEventLoop, get_running_loop
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from itertools import count
from pathlib import Path
from time import sleep as sleep_in_thread
from typing import Any, TypeVar

import pytest

from yamanote.channels import channel, channel_unbounded
from yamanote.runtime import Started, TaskGroup, cancel_and_wait, move_on_after, run, spawn, spawn_blocking
from yamanote.sync import Event, Lock
from yamanote.time import sleep, timeout

T = TypeVar("T")

FACTOR = int(os.environ.get("YAMANOTE_STRESS", "1"))
WORKERS = 4
PATIENCE = 30.0 + FACTOR
"""Seconds after which a run is stuck."""


# ---------------------------------------------------------------- the servers


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """With a short path, for the sockets, and open to the user that PostgreSQL runs as."""
    with tempfile.TemporaryDirectory(prefix="company-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextmanager
def served(command: list[str | Path], log: Path, **options: Any) -> Iterator[None]:
    """Run a server, which ends with the block, or with this process, however that ends."""
    script = '"$@" & read _; kill $!; wait'  # what the shell reads from closes then
    shell = ["sh", "-c", script, "sh", *command]
    with (
        log.open("w") as said,
        subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=said, stderr=said, **options),
    ):
        for _ in range(1000):
            if "ready to accept connections" in log.read_text().lower():
                break
            sleep_in_thread(0.01)
        else:
            pytest.fail(log.read_text())
        yield


@pytest.fixture(scope="module")
def redis(folder: Path) -> Iterator[str | None]:
    """The socket of a Redis that keeps nothing; None where it is not installed."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    socket = str(folder / "redis")
    settings = {"port": "0", "unixsocket": socket, "save": "", "appendonly": "no", "dir": str(folder)}
    options = [word for name, value in settings.items() for word in (f"--{name}", value)]
    with served([program, *options], folder / "redis.log"):
        yield socket


@pytest.fixture(scope="module")
def postgres(folder: Path) -> Iterator[str | None]:
    """The folder of the socket of an empty PostgreSQL; None where it is not installed."""
    programs = find_postgres()
    if programs is None:
        yield None
        return
    home = folder / "postgres"
    home.mkdir()
    options: dict[str, Any] = {"cwd": home}
    if os.geteuid() == 0:  # it refuses to run as root
        from pwd import getpwnam  # not on Windows

        account = getpwnam("nobody")
        options |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        folder.chmod(0o711)
        os.chown(home, account.pw_uid, account.pw_gid)
    data = home / "data"
    settings = ["--username=company", "--auth=trust", "--no-sync", "--encoding=UTF8", "--no-locale"]
    made = subprocess.run(
        [programs / "initdb", "-D", data, *settings],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
    assert made.returncode == 0, made.stdout
    quickly = ["-c", "listen_addresses=", "-c", "fsync=off", "-c", "autovacuum=off"]
    with served([programs / "postgres", "-D", data, "-k", home, *quickly], folder / "postgres.log", **options):
        yield str(home)


def find_postgres() -> Path | None:
    """The folder of its programs, which Debian keeps off PATH."""
    if sys.platform == "win32":  # no Unix sockets
        return None
    on_path = shutil.which("postgres")
    if on_path is not None:
        return Path(on_path).resolve().parent
    return max((path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")), default=None)


# ---------------------------------------------------------------- the load


@asynccontextmanager
async def one_per_worker(
    open: Callable[[], AbstractAsyncContextManager[T]],
) -> AsyncIterator[dict[AbstractEventLoop, T]]:
    """What `open` opens, once on each worker, by loop. At the end it is closed there. As in docs/guide/workers.md."""
    opened: dict[AbstractEventLoop, T] = {}
    done = Event()

    async def keep(started: Started[None]) -> None:
        async with open() as opened[get_running_loop()]:
            started()
            await done.wait()

    async with TaskGroup() as group:
        for number in range(WORKERS):
            await group.start(keep, on=number)
        yield opened
        done.set()


class Load:
    """Keeps all workers busy until the time is over."""

    def __init__(self, seconds: float, addresses: dict[str, str | None]) -> None:
        self.chance = random.Random(8)
        self.seconds = seconds
        self.addresses = addresses

    async def carry(self, work: Callable[[int], Awaitable[None]]) -> tuple[set[int], set[int]]:
        """Run `work` with one number after another. Returns the numbers that succeeded, and all that were begun.

        Only work with an even number is cancelled. What has succeeded says so over a channel, from its worker to this.
        """
        end = get_running_loop().time() + self.seconds
        begun: set[int] = set()
        succeeded: set[int] = set()
        loops: set[AbstractEventLoop] = set()
        tx, rx = channel[int](2)

        async def one(number: int) -> None:
            loops.add(get_running_loop())
            begun.add(number)
            await work(number)
            await tx.send(number)

        async def lane(first: int) -> None:
            for number in count(first, 4 * WORKERS):
                async with TaskGroup() as group:
                    victim = group.spawn(one(number))  # on whichever worker
                    if self.chance.random() < 0.3:
                        get_running_loop().call_later(self.chance.uniform(0, 0.01), victim.abort)
                    await one(number + 1)
                if get_running_loop().time() >= end:
                    return

        async def pinned(number: int) -> None:
            handle = spawn(lane(2 * number), on=number % WORKERS)
            try:
                await handle
            finally:
                await cancel_and_wait(handle)

        async def collect() -> None:
            async for number in rx:
                assert number not in succeeded
                succeeded.add(number)

        with rx:
            async with TaskGroup() as collecting:
                collecting.spawn(collect())
                with tx:
                    async with TaskGroup() as lanes:
                        for number in range(2 * WORKERS):
                            lanes.spawn(pinned(number))
        assert {number for number in begun if number % 2} <= succeeded <= begun
        assert len(loops) == WORKERS
        return succeeded, begun


Part = Callable[[Load], Awaitable[None]]


# ---------------------------------------------------------------- aiohttp and httpx


@asynccontextmanager
async def served_by_aiohttp() -> AsyncIterator[tuple[list[str], Counter[int]]]:
    """A server on each worker, which hands part of its work to the others; and how often each number was asked for."""
    from aiohttp import web

    lock = Lock()
    asked: Counter[int] = Counter()

    async def answer(request: web.Request) -> web.Response:
        number = int(await request.read())
        async with lock:
            before = asked[number]
            await asyncio.sleep(0)
            asked[number] = before + 1
        elsewhere, in_thread = spawn(asyncio.sleep(0, number)), spawn_blocking(str, number)
        return web.Response(text=f"{await elsewhere} {await in_thread}")

    async def stall(request: web.Request) -> web.Response:
        await asyncio.sleep(3600)
        return web.Response()

    async def shout(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        with suppress(ConnectionResetError):  # who has asked may be gone
            await socket.prepare(request)
            async for message in socket:
                await socket.send_str(message.data.upper())
        return socket

    @asynccontextmanager
    async def serve() -> AsyncIterator[str]:
        app = web.Application()
        app.add_routes([web.post("/answer", answer), web.get("/stall", stall), web.get("/shout", shout)])
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async with one_per_worker(serve) as urls:
        yield list(urls.values()), asked


async def aiohttp_asks(load: Load) -> None:
    import aiohttp

    async def ask(number: int) -> None:
        url, session = load.chance.choice(urls), sessions[get_running_loop()]
        async with session.post(f"{url}/answer", data=str(number)) as response:
            assert await response.text() == f"{number} {number}"
        match number // 2 % 7:
            case 0:
                async with session.ws_connect(f"{url}/shout") as socket:
                    await socket.send_str(f"number {number}")
                    assert (await socket.receive()).data == f"NUMBER {number}"
            case 1:
                with pytest.raises(TimeoutError):
                    async with timeout(0.005):
                        await session.get(f"{url}/stall")
            case 2:
                with pytest.raises(asyncio.TimeoutError):
                    await session.get(f"{url}/stall", timeout=aiohttp.ClientTimeout(total=0.005))
            case 3:
                with move_on_after(0.005) as scope:
                    await session.get(f"{url}/stall")
                assert scope.cancelled_caught

    async with served_by_aiohttp() as (urls, asked), one_per_worker(aiohttp.ClientSession) as sessions:
        succeeded, begun = await load.carry(ask)
    assert succeeded <= asked.keys() <= begun
    assert set(asked.values()) == {1}


async def httpx_asks(load: Load) -> None:
    import httpx

    def connect() -> httpx.AsyncClient:
        # Connections that expire together are closed by the next request; if that is cancelled there, some stay open.
        return httpx.AsyncClient(limits=httpx.Limits(keepalive_expiry=None))

    async def ask(number: int) -> None:
        url, client = load.chance.choice(urls), clients[get_running_loop()]
        response = await client.post(f"{url}/answer", content=str(number))
        assert response.text == f"{number} {number}"
        match number // 2 % 7:
            case 0:
                with pytest.raises(httpx.TimeoutException):  # to connect may take as long
                    await client.get(f"{url}/stall", timeout=0.005)
            case 1:
                with pytest.raises(TimeoutError):
                    async with timeout(0.005):
                        await client.get(f"{url}/stall")

    async with served_by_aiohttp() as (urls, asked), one_per_worker(connect) as clients:
        succeeded, begun = await load.carry(ask)
    assert succeeded <= asked.keys() <= begun
    assert set(asked.values()) == {1}


# ---------------------------------------------------------------- anyio


async def anyio_nests(load: Load) -> None:
    import anyio
    import anyio.from_thread
    import anyio.to_thread

    lock = Lock()
    inside = 0

    async def nest(number: int) -> None:
        nonlocal inside
        received: list[int] = []
        send, receive = anyio.create_memory_object_stream[int](1)

        async def produce() -> None:
            async with send:
                for item in range(3):
                    await send.send(item)

        async def consume() -> None:
            nonlocal inside
            async with receive:
                async for item in receive:
                    async with lock:  # ours, which all workers share
                        inside += 1
                        try:
                            assert inside == 1
                            await anyio.sleep(0)
                        finally:
                            inside -= 1
                    received.append(item)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(produce)
            tasks.start_soon(consume)
            with anyio.move_on_after(0.001) as scope:
                async with TaskGroup() as group:  # its children are on whichever worker
                    group.spawn(anyio.sleep(3600))
                    group.spawn(asyncio.sleep(3600))
            assert scope.cancelled_caught
        assert received == [0, 1, 2]
        with pytest.raises(TimeoutError):
            async with timeout(0.001), anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep, 3600)
        if number // 2 % 3 == 0:
            assert await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(back, number)) == number
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    async def back(number: int) -> int:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0)
        return number

    await load.carry(nest)


# ---------------------------------------------------------------- Redis


async def redis_keeps(load: Load) -> None:
    from redis.asyncio import Redis

    popped: list[int] = []
    heard: list[list[int]] = []
    silence = Event()

    def connect() -> Redis:
        # Without a socket_timeout: for that it calls asyncio.wait_for(), which loses cancellations on Python 3.11.
        return Redis(unix_socket_path=load.addresses["redis"], decode_responses=True, socket_timeout=None)

    async def use(number: int) -> None:
        client = clients[get_running_loop()]
        await client.set(f"key {number}", number)
        assert await client.get(f"key {number}") == str(number)
        async with client.pipeline(transaction=True) as pipeline:
            assert await pipeline.delete(f"key {number}").exists(f"key {number}").execute() == [1, 0]
        if number // 2 % 3 == 0:
            with move_on_after(0.005) as scope:
                await client.blpop([f"never {number}"], 0)
            assert scope.cancelled_caught
        assert await client.blpop([f"never {number}"], 0.001) is None
        await client.lpush("list", number)
        await client.publish("news", number)
        await client.incr("odd" if number % 2 else "even")

    async def pop() -> None:
        client = clients[get_running_loop()]
        while True:
            item = await client.brpop(["list"], 0.02)
            if item is not None:
                popped.append(int(item[1]))
            elif silence.is_set():
                return

    async def listen() -> None:
        own: list[int] = []
        heard.append(own)
        async with clients[get_running_loop()].pubsub() as news:
            await news.subscribe("news")
            while not (silence.is_set() and own[-1:] == [-1]):
                message = await news.get_message(ignore_subscribe_messages=True, timeout=None)
                if message is not None:
                    own.append(int(message["data"]))

    async with one_per_worker(connect) as clients:
        client = clients[get_running_loop()]
        await client.flushall()
        helpers = [spawn(each(), on=number) for number in range(WORKERS) for each in (pop, listen)]
        while (await client.pubsub_numsub("news"))[0][1] < WORKERS:
            await sleep(0.001)
        succeeded, begun = await load.carry(use)
        silence.set()
        await client.publish("news", -1)
        for helper in helpers:
            await helper
        odd, even = (int(value or 0) for value in await client.mget("odd", "even"))
        left = await client.dbsize()
    assert odd == sum(number % 2 for number in succeeded)
    assert len(succeeded) - odd <= even <= len(begun) - odd
    assert succeeded <= set(popped) <= begun
    assert len(set(popped)) == len(popped)
    for own in heard:
        assert own.pop() == -1
        assert succeeded <= set(own) <= set(popped)
        assert own == heard[0]  # in one order
    assert left <= 2 + len(begun - succeeded)


# ---------------------------------------------------------------- PostgreSQL


async def postgres_commits(load: Load) -> None:
    import asyncpg

    tx, rx = channel_unbounded[int]()

    def connect() -> AbstractAsyncContextManager[asyncpg.Pool]:
        server = {"host": load.addresses["postgres"], "user": "company", "database": "postgres"}
        return asyncpg.create_pool(**server, min_size=1, max_size=3)

    async def insert(number: int) -> None:
        pool = pools[get_running_loop()]
        async with pool.acquire() as connection:
            async with connection.transaction():
                await connection.execute("INSERT INTO company VALUES ($1, 1)", number)
                await asyncio.sleep(0)
                await connection.execute("INSERT INTO company VALUES ($1, 2)", number)
                await connection.execute("SELECT pg_notify('company', $1)", str(number))
        match number // 2 % 7:
            case 0:
                with pytest.raises(TimeoutError):
                    async with timeout(0.005), pool.acquire() as connection:
                        await connection.execute("SELECT pg_sleep(1)")
            case 1:
                with pytest.raises(asyncio.TimeoutError):
                    async with pool.acquire() as connection:
                        await connection.execute("SELECT pg_sleep(1)", timeout=0.005)
            case 2:
                with pytest.raises(asyncpg.DivisionByZeroError):
                    async with pool.acquire() as connection, connection.transaction():
                        await connection.execute("INSERT INTO company VALUES ($1, 3)", number)
                        await connection.execute("SELECT 1 / 0")
        assert await pool.fetchval("SELECT sum(half) FROM company WHERE number = $1", number) == 3

    @asynccontextmanager
    async def listen() -> AsyncIterator[Event]:
        end = Event()

        def hear(connection: object, process: int, name: str, payload: str) -> None:
            if payload == "end":
                end.set()
            else:
                tx.send_nowait(int(payload))

        async with pools[get_running_loop()].acquire() as connection:
            await connection.add_listener("company", hear)
            yield end
            await connection.remove_listener("company", hear)

    async with one_per_worker(connect) as pools:
        pool = pools[get_running_loop()]
        await pool.execute("DROP TABLE IF EXISTS company")
        await pool.execute("CREATE TABLE company (number int, half int)")
        with rx:
            with tx:
                async with one_per_worker(listen) as ends:
                    succeeded, begun = await load.carry(insert)
                    await pool.execute("NOTIFY company, 'end'")
                    for end in ends.values():
                        await end.wait()
            heard = Counter([number async for number in rx])
        rows = Counter(tuple(row) for row in await pool.fetch("SELECT number, half FROM company"))
    committed = {number for number, _ in rows}
    assert succeeded <= committed <= begun
    assert rows == Counter((number, half) for number in committed for half in (1, 2))
    assert heard == Counter({number: WORKERS for number in committed})  # each told once to each


# ---------------------------------------------------------------- all of it


PARTS: dict[str, tuple[Part, tuple[str, ...]]] = {
    "aiohttp": (aiohttp_asks, ("aiohttp",)),
    "httpx": (httpx_asks, ("aiohttp", "httpx")),
    "anyio": (anyio_nests, ("anyio",)),
    "redis": (redis_keeps, ("redis",)),
    "postgres": (postgres_commits, ("asyncpg",)),
}


@pytest.fixture(scope="module")
def addresses(redis: str | None, postgres: str | None) -> dict[str, str | None]:
    return {"redis": redis, "postgres": postgres}


def missing(part: str, addresses: dict[str, str | None]) -> str | None:
    """Why a part cannot run here, if it cannot."""
    for module in PARTS[part][1]:
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed"
    return f"there is no server of {part}" if addresses.get(part, "") is None else None


def run_parts(parts: list[str], seconds: float, addresses: dict[str, str | None]) -> None:
    async def program() -> None:
        async with asyncio.timeout(PATIENCE):
            load = Load(seconds, addresses)
            async with TaskGroup() as group:
                for part in parts:
                    group.spawn(PARTS[part][0](load))

    run(program(), workers=WORKERS)


@pytest.fixture(autouse=True)
def nothing_is_left(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No thread, except for those of the blocking pool, no descriptor, and nothing in the log."""
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    descriptors, threads = open_descriptors(), set(threading.enumerate())
    try:
        yield
    finally:
        sys.setswitchinterval(switching)
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    for thread in set(threading.enumerate()) - threads:
        if not thread.name.startswith("yamanote-blocking"):
            thread.join(10)  # anyio tells its threads to end, and does not wait for that
            assert not thread.is_alive(), thread.name
    assert open_descriptors() == descriptors


def open_descriptors() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


@pytest.mark.parametrize("part", PARTS)
def test_a_library_works_on_four_workers(part: str, addresses: dict[str, str | None]) -> None:
    if (reason := missing(part, addresses)) is not None:
        pytest.skip(reason)
    run_parts([part], 0.2, addresses)


def test_all_libraries_work_at_once_on_four_workers(addresses: dict[str, str | None]) -> None:
    parts = [part for part in PARTS if missing(part, addresses) is None]
    if not parts:
        pytest.skip("none of them is installed")
    run_parts(parts, 1.0 * FACTOR, addresses)
