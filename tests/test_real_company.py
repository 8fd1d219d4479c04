"""Libraries made for asyncio, on our loop and among our tasks. What is not installed is skipped."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from io import BytesIO

import pytest

from yamanote.runtime import (
    EventLoop,
    TaskGroup,
    map,
    move_on_after,
    run,
    shield_wait,
    spawn,
    spawn_blocking,
)
from yamanote.time import timeout

LONG = b"x" * 2_000_000  # more than any buffer on the way takes
ECHO = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"


@asynccontextmanager
async def aiohttp_server() -> AsyncIterator[str]:
    web = pytest.importorskip("aiohttp.web")

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/slow":
            await asyncio.sleep(3600)
        body = await request.read()
        return web.Response(text=str(await spawn_blocking(len, body)))

    async def shout(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data.upper())
        return socket

    app = web.Application(client_max_size=2 * len(LONG))
    app.router.add_get("/shout", shout)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def test_aiohttp_serves_and_asks() -> None:
    aiohttp = pytest.importorskip("aiohttp")

    async def main() -> None:
        async with aiohttp_server() as url, aiohttp.ClientSession() as session:

            async def ask(number: int) -> str:
                async with session.post(url, data=BytesIO(LONG[:number])) as response:
                    return await response.text()

            async with TaskGroup(limit=20) as group:
                handles = [group.spawn(ask(number)) for number in range(100)]
            assert [await handle for handle in handles] == [str(number) for number in range(100)]
            assert await ask(len(LONG)) == str(len(LONG))
            async with session.ws_connect(f"{url}/shout") as socket:
                for _ in range(10):
                    await socket.send_str("abc")
                    assert (await socket.receive()).data == "ABC"

            with move_on_after(0.01) as scope:
                await session.get(f"{url}/slow")
            assert scope.cancelled_caught
            with pytest.raises(TimeoutError):
                async with timeout(0.01):
                    await session.get(f"{url}/slow")
            with pytest.raises(asyncio.TimeoutError):
                await session.get(f"{url}/slow", timeout=aiohttp.ClientTimeout(total=0.01))

    run(main())


def test_httpx_asks_and_is_cancelled() -> None:
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("aiohttp")

    async def main() -> None:
        async with aiohttp_server() as url, httpx.AsyncClient() as client:

            async def ask(number: int) -> int:
                return int((await client.post(url, content=LONG[:number])).text)

            assert await map(ask, range(30), limit=10) == list(range(30))
            assert await ask(len(LONG)) == len(LONG)
            with move_on_after(0.01) as scope:
                await client.get(f"{url}/slow", timeout=None)
            assert scope.cancelled_caught
            with pytest.raises(httpx.ReadTimeout):
                await client.get(f"{url}/slow", timeout=0.01)
            assert await ask(3) == 3

    run(main())


def test_scopes_and_groups_of_anyio_and_ours_nest_in_either_order() -> None:
    anyio = pytest.importorskip("anyio")

    async def main() -> None:
        with anyio.move_on_after(0.01) as theirs:
            async with TaskGroup() as group:
                group.spawn(anyio.sleep(3600))
                await asyncio.sleep(3600)
        assert theirs.cancelled_caught

        with move_on_after(0.01) as ours:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep, 3600)
        assert ours.cancelled_caught

        for outer in (move_on_after(0.01), anyio.move_on_after(0.01)):
            saving = spawn(anyio.sleep(0.02))
            with outer:
                await shield_wait(saving)
            assert saving.is_finished() and not saving.is_cancelled() and outer.cancelled_caught

        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0

    run(main())


def test_anyio_has_its_threads_processes_and_sockets_on_our_loop() -> None:
    anyio = pytest.importorskip("anyio")
    from_thread, to_thread = import_module("anyio.from_thread"), import_module("anyio.to_thread")

    async def main() -> None:
        def in_a_thread() -> tuple[str, int]:
            from_thread.run(asyncio.sleep, 0)
            return from_thread.run(echoed), from_thread.run_sync(len, "abc")

        async def echoed() -> str:
            done = await anyio.run_process([sys.executable, "-c", ECHO], input=LONG)
            return "same" if done.stdout == LONG else "different"

        assert await to_thread.run_sync(in_a_thread) == ("same", 3)
        gate = threading.Event()
        with pytest.raises(TimeoutError), anyio.fail_after(0.01):
            await spawn_blocking(gate.wait)
        gate.set()

        async def twice(stream: anyio.abc.SocketStream) -> None:
            async with stream:
                await stream.send(2 * await stream.receive())

        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, twice)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            async with await anyio.connect_tcp("127.0.0.1", port) as client:
                await client.send(b"ab")
                assert await client.receive() == b"abab"
            tasks.cancel_scope.cancel()

    run(main())


def test_anyio_runs_on_our_loop() -> None:
    anyio = pytest.importorskip("anyio")

    async def main() -> int:
        assert isinstance(asyncio.get_running_loop(), EventLoop)
        return await spawn(asyncio.sleep(0, 42))

    assert anyio.run(main, backend_options={"loop_factory": EventLoop}) == 42
