"""`serve`: what a user of it is promised, over real sockets."""

from __future__ import annotations

import asyncio
import errno
import functools
import gc
import os
import shutil
import socket
import ssl
import subprocess
import sys
import weakref
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from contextvars import ContextVar
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from yamanote.runtime import CancellationToken, EventLoop, run, yield_now
from yamanote.server import Server, _bind, serve
from yamanote.server._bound import Bound
from yamanote.server._serving import Serving
from yamanote.server._wire import Wire

HOST = "127.0.0.1"
SOON = 0.02
"""A deadline that a test lets pass, in seconds: only what has happened when it is over is looked at."""

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "yamanote": EventLoop,
}
if find_spec("uvloop"):
    LOOPS["uvloop"] = import_module("uvloop").new_event_loop

on_each_loop = pytest.mark.parametrize("loop_factory", LOOPS.values(), ids=LOOPS)

who: ContextVar[str] = ContextVar("who", default="nobody")


async def echo(reader: StreamReader, writer: StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()


async def never(reader: StreamReader, writer: StreamWriter) -> None:
    await asyncio.Event().wait()


@asynccontextmanager
async def connected(server: Server, **options: Any) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, server.port, **options)
    try:
        yield reader, writer
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            pass


async def ask(server: Server, line: bytes) -> bytes:
    """What comes back for one line, until the server closes."""
    async with connected(server) as (reader, writer):
        writer.write(line)
        writer.write_eof()
        return await reader.read()


async def ends(reader: StreamReader) -> bytes:
    """What is left to read, a reset by the peer counting as an end."""
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await yield_now()


@contextmanager
def reports() -> Iterator[list[dict[str, Any]]]:
    """What reaches the loop's exception handler meanwhile."""
    loop = asyncio.get_running_loop()
    seen: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: seen.append(context))
    try:
        yield seen
    finally:
        loop.set_exception_handler(None)


@pytest.fixture(autouse=True)
async def nothing_left_over() -> AsyncIterator[None]:
    yield
    assert asyncio.all_tasks() == {asyncio.current_task()}
    gc.collect()  # what was not closed warns now, in the test that forgot it


# Serving


async def test_the_port_is_known_and_open_as_soon_as_the_block_is_entered() -> None:
    async with serve(echo, HOST, 0) as server:
        assert server.addresses == ((HOST, server.port),)
        assert server.port > 0
        assert await ask(server, b"hello\n") == b"hello\n"


async def test_many_connections_are_served_at_once() -> None:
    arrived = 0
    everybody = asyncio.Event()

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == 100:
            everybody.set()
        await everybody.wait()
        writer.write(b"done")

    async with serve(handler, HOST, 0) as server:
        assert await asyncio.gather(*(ask(server, b"") for _ in range(100))) == [b"done"] * 100
        await until(lambda: server.connections == 0)


async def test_what_was_written_is_sent_before_the_connection_is_closed() -> None:
    size = 8_000_000

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(bytes(size))

    async with serve(handler, HOST, 0) as server:
        assert len(await ask(server, b"")) == size


async def test_each_connection_is_a_task_of_its_own() -> None:
    tasks: list[asyncio.Task[Any] | None] = []

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        tasks.append(asyncio.current_task())
        async with asyncio.timeout(60):
            await reader.read()

    async with serve(handler, HOST, 0) as server:
        await asyncio.gather(ask(server, b"a"), ask(server, b"b"))
    assert len({*tasks, asyncio.current_task()}) == 3


async def test_a_connection_sees_the_variables_of_the_server_and_of_no_other_connection() -> None:
    seen: list[str] = []

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        seen.append(who.get())
        who.set("a connection")
        writer.write(bytes(8_000_000))  # so that it ends in a callback which comes from this write

    who.set("the server")
    async with serve(handler, HOST, 0, limit=1) as server:
        who.set("the body")
        for _ in range(3):
            await ask(server, b"")
    assert seen == ["the server"] * 3


async def test_a_connection_that_the_handler_closed_itself_ends_well() -> None:
    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"bye")
        writer.close()
        await writer.wait_closed()

    async with serve(handler, HOST, 0) as server:
        assert await ask(server, b"") == b"bye"


async def test_a_handler_may_put_a_protocol_of_its_own_on_the_transport() -> None:
    class Other(asyncio.Protocol):
        pass

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        writer.transport.set_protocol(Other())

    async with serve(handler, HOST, 0, drain=None) as server:
        assert await ask(server, b"") == b""
    assert server.connections == 0


async def test_a_connection_that_has_ended_is_forgotten() -> None:
    seen: list[weakref.ref[StreamWriter]] = []

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        seen.append(weakref.ref(writer))

    async with serve(handler, HOST, 0) as server:
        await ask(server, b"")
        await until(lambda: server.connections == 0)
        await yield_now()
        gc.collect()
        assert seen[0]() is None


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the transports of asyncio refer to themselves")
async def test_connections_that_have_ended_are_freed_without_the_garbage_collection() -> None:
    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        seen.append(weakref.ref(writer))
        if await reader.readline() == b"fail\n":
            raise ValueError("ours")
        writer.write(bytes(8_000_000))  # so that a part of it is left to send

    seen: list[weakref.ref[StreamWriter]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)
    async with serve(handler, HOST, 0) as server:
        gc.collect()
        gc.disable()
        try:
            for line in (b"fine\n", b"fail\n"):
                await ask(server, line)
                await until(lambda: server.connections == 0)
                await yield_now()
            assert [writer() for writer in seen] == [None, None]
        finally:
            gc.enable()


async def test_partial_and_callable_objects_are_handlers() -> None:
    class Handler:
        async def __call__(self, reader: StreamReader, writer: StreamWriter) -> None:
            writer.write(b"object")

    async def greet(word: bytes, reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(word)

    async with serve(Handler(), HOST, 0) as one, serve(functools.partial(greet, b"partial"), HOST, 0) as two:
        assert [await ask(one, b""), await ask(two, b"")] == [b"object", b"partial"]


# The limit


@pytest.mark.parametrize("limit", [1, 3])
async def test_never_more_than_the_limit_are_open_and_the_others_wait(limit: int) -> None:
    open_now: list[int] = []
    inside = 0
    full = asyncio.Event()

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        nonlocal inside
        inside += 1
        open_now.append(inside)
        if inside == limit:
            full.set()
        await full.wait()
        for _ in range(3):
            await yield_now()
        writer.write(b"served")
        inside -= 1

    async with serve(handler, HOST, 0, limit=limit) as server:
        clients = [asyncio.create_task(ask(server, b"")) for _ in range(20)]
        while not all(client.done() for client in clients):
            assert server.connections <= limit
            await yield_now()
        assert [client.result() for client in clients] == [b"served"] * 20
    assert max(open_now) == limit


async def test_a_connection_counts_until_it_is_closed_not_until_its_handler_returns() -> None:
    handled = asyncio.Event()

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(bytes(8_000_000))
        handled.set()

    async with serve(handler, HOST, 0, limit=1, drain=0) as server:
        async with connected(server) as (reader, _):
            await handled.wait()
            for _ in range(10):
                await yield_now()
            assert server.connections == 1
            await reader.read()
        await until(lambda: server.connections == 0)


async def test_at_the_limit_others_can_be_refused_instead() -> None:
    async with serve(echo, HOST, 0, limit=1, at_limit="refuse") as server:
        async with connected(server) as (reader, writer):
            writer.write(b"hello\n")
            assert await reader.readline() == b"hello\n"
            for _ in range(3):
                with socket.create_connection((HOST, server.port)) as refused:
                    refused.setblocking(False)
                    with pytest.raises(ConnectionResetError):
                        async with asyncio.timeout(20):
                            await asyncio.get_running_loop().sock_recv(refused, 1)
            assert server.connections == 1
        await until(lambda: server.connections == 0)
        assert await ask(server, b"room again\n") == b"room again\n"


async def test_small_answers_do_not_wait_for_each_other() -> None:
    delays: list[int] = []

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        accepted: socket.socket = writer.get_extra_info("socket")
        delays.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    with socket.create_server((HOST, 0)) as given:
        async with serve(handler, HOST, 0) as one, serve(handler, sock=given) as two:
            await ask(one, b"")
            await ask(two, b"")
    assert 0 not in delays
    assert len(delays) == 2


# Failing handlers


@pytest.mark.parametrize("failure", [ValueError("ours"), ConnectionResetError("of another connection")])
async def test_a_failing_handler_is_reported_once_and_ends_only_its_connection(failure: Exception) -> None:
    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        line = await reader.readline()
        if line == b"fail\n":
            writer.write(b"before")
            raise failure
        writer.write(line)

    with reports() as seen:
        async with serve(handler, HOST, 0) as server:
            async with connected(server) as (reader, writer):
                peer = writer.get_extra_info("sockname")
                writer.write(b"fail\n")
                assert await reader.read() == b"before"
            assert await ask(server, b"fine\n") == b"fine\n"
    assert [report["exception"] for report in seen] == [failure]
    assert str(peer) in seen[0]["message"]


async def test_an_error_is_reported_also_when_the_connection_is_lost_in_the_same_moment() -> None:
    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        writer.transport.abort()
        raise ValueError("ours")

    with reports() as seen:
        async with serve(handler, HOST, 0) as server:
            await ask(server, b"")
    assert [sorted(report) for report in seen] == [["exception", "message", "task"]]
    assert server.connections == 0


async def test_a_handler_that_cancels_itself_ends_only_its_connection() -> None:
    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        if await reader.readline() == b"cancel\n":
            raise asyncio.CancelledError
        writer.write(b"fine")

    with reports() as seen:
        async with serve(handler, HOST, 0) as server:
            async with connected(server) as (reader, writer):
                writer.write(b"cancel\n")
                assert await ends(reader) == b""
            assert await ask(server, b"\n") == b"fine"
    assert seen == []


def test_a_keyboard_interrupt_in_a_handler_ends_the_program() -> None:
    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        async with serve(handler, HOST, 0) as server:
            await ask(server, b"")

    with pytest.raises(KeyboardInterrupt):
        run(main())


async def test_want_of_descriptors_is_reported_and_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yamanote.server._acceptor._REST", 0)
    refusals = 3
    accept = socket.socket.accept

    def exhausted(listener: socket.socket) -> Any:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise OSError(24, "Too many open files")
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", exhausted)
    with reports() as seen:
        async with serve(echo, HOST, 0) as server:
            assert await ask(server, b"at last\n") == b"at last\n"
    assert [str(report["exception"]) for report in seen] == ["[Errno 24] Too many open files"] * 3


@pytest.mark.skipif(sys.platform == "win32", reason="the number of descriptors has no limit here")
async def test_the_end_of_a_connection_ends_the_rest_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr("yamanote.server._acceptor._REST", 3600)
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    with reports() as seen:
        async with serve(echo, HOST, 0) as server:
            async with connected(server) as (reader, writer):
                writer.write(b"first\n")
                await reader.readline()
                with socket.create_connection((HOST, server.port)) as client:
                    client.setblocking(False)
                    client.send(b"second\n")
                    lowest = os.dup(client.fileno())  # the number that the next descriptor would have
                    os.close(lowest)
                    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, old[1]))
                    try:
                        await until(lambda: bool(seen))
                        writer.close()
                        async with asyncio.timeout(20):
                            assert await asyncio.get_running_loop().sock_recv(client, 100) == b"second\n"
                    finally:
                        resource.setrlimit(resource.RLIMIT_NOFILE, old)
    assert [report["exception"].errno for report in seen] == [errno.EMFILE]


async def test_a_server_that_rests_after_a_refusal_can_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(listener: socket.socket) -> Any:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket.socket, "accept", exhausted)
    with reports() as seen:
        async with serve(echo, HOST, 0) as server:
            async with connected(server):
                await until(lambda: bool(seen))
                await server.shutdown()
    assert len(seen) == 1


# The end


async def test_shutdown_refuses_newcomers_and_lets_running_handlers_finish() -> None:
    started, go = asyncio.Event(), asyncio.Event()

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        started.set()
        await go.wait()
        writer.write(b"finished")

    async with serve(handler, HOST, 0, drain=60) as server:
        async with connected(server) as (reader, _):
            await started.wait()
            shutdown = asyncio.create_task(server.shutdown())
            await until(lambda: server.closing)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(HOST, server.port)
            assert not shutdown.done()
            go.set()
            assert await reader.read() == b"finished"
            await shutdown
    assert server.connections == 0


async def test_leaving_the_block_with_an_error_drains_as_well_and_raises_it() -> None:
    started, go = asyncio.Event(), asyncio.Event()
    finished = False

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        nonlocal finished
        started.set()
        await go.wait()
        finished = True

    clients: list[asyncio.Task[bytes]] = []
    with pytest.raises(LookupError):
        async with serve(handler, HOST, 0, drain=60) as server:
            clients.append(asyncio.create_task(ask(server, b"")))
            await started.wait()
            asyncio.get_running_loop().call_soon(go.set)
            raise LookupError
    assert finished
    await clients[0]


@pytest.mark.parametrize("drain", [0, SOON])
async def test_what_is_stuck_at_the_deadline_is_cancelled_and_cut(drain: float) -> None:
    ended: list[str] = []
    started = asyncio.Event()

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await yield_now()
            ended.append("cancelled")
            raise

    with reports() as seen:
        async with serve(handler, HOST, 0, drain=drain) as server:
            async with connected(server) as (reader, _):
                await started.wait()
                await server.shutdown()
                assert ended == ["cancelled"]
                assert await ends(reader) == b""
    assert seen == []


async def test_idle_connections_do_not_outlive_the_deadline() -> None:
    async with serve(echo, HOST, 0, drain=SOON) as server:
        async with connected(server) as (reader, writer), connected(server):
            writer.write(b"hello\n")
            await reader.readline()
            await until(lambda: server.connections == 2)
            await server.shutdown()
            assert server.connections == 0
            assert await ends(reader) == b""


async def test_a_peer_that_never_reads_does_not_outlive_the_deadline() -> None:
    writing = asyncio.Event()

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        try:
            writer.write(bytes(20_000_000))
            writing.set()
            await writer.drain()
        finally:
            await writer.drain()  # a clean-up that would wait for ever

    async with serve(handler, HOST, 0, drain=SOON) as server:
        async with connected(server):
            await writing.wait()
            await server.shutdown()
            assert server.connections == 0


async def test_a_peer_that_takes_nothing_after_the_handler_has_returned_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("yamanote.server._wire._LINGER", SOON)

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(bytes(20_000_000))

    async with serve(handler, HOST, 0, drain=None) as server:
        async with connected(server):
            await until(lambda: server.connections == 1)
            await until(lambda: server.connections == 0)


async def test_a_peer_that_takes_something_now_and_then_is_not_cut() -> None:
    class Loop:
        def call_later(self, delay: float, callback: Callable[..., None], *args: Any) -> None:
            later.append(functools.partial(callback, *args))

    class Transport:
        left = 3000

        def get_protocol(self) -> object:
            return None

        def get_write_buffer_size(self) -> int:
            return self.left

        def get_extra_info(self, name: str) -> None:
            return None

        def abort(self) -> None:
            self.left = -1

    later: list[Callable[[], None]] = []
    transport = Transport()
    wire: Any = object.__new__(Wire)
    wire._loop = Loop()
    wire._protocol = None  # as the transport says
    wire._linger(transport, None)
    for left in (2000, 1999):
        transport.left = left
        later.pop()()
    assert transport.left == 1999
    later.pop()()
    assert transport.left == -1
    assert later == []


@on_each_loop
@pytest.mark.parametrize("turns", range(6))
def test_what_is_aborted_at_any_moment_of_its_opening_is_closed(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], turns: int
) -> None:
    started_late: list[bool] = []
    serving: Serving

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        started_late.append(serving.closing)
        await reader.read()

    async def main() -> None:
        nonlocal serving
        listener = socket.create_server((HOST, 0))
        listener.setblocking(False)
        serving = Serving(Bound([listener]), handler, limit=None, refuse=False, drain=None, tls=None)
        with socket.create_connection(listener.getsockname()) as client:
            serving._acceptor._accept(listener)
            for _ in range(turns):
                await yield_now()
            assert len(serving.connections) == 1
            serving.abort()
            await serving.ended
            client.settimeout(10)
            with suppress(ConnectionResetError):
                assert client.recv(1) == b""

    run(main(), loop_factory=loop_factory)
    assert True not in started_late


@pytest.mark.parametrize("turns", range(4))
async def test_what_somebody_else_cancels_while_it_opens_has_ended_once(turns: int) -> None:
    ended: list[None] = []
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    wire = Wire(ours, "a peer", tls=None, gone=lambda: ended.append(None))
    opening = asyncio.create_task(wire.open())
    for _ in range(turns):
        await yield_now()
    opening.cancel()
    await asyncio.wait([opening])
    wire.close()
    for _ in range(5):
        await yield_now()
    with theirs:
        assert theirs.recv(1) == b""
    assert ended == [None]


async def test_a_handler_that_refuses_to_be_cancelled_is_awaited_all_the_same() -> None:
    started, go = asyncio.Event(), asyncio.Event()

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await go.wait()

    async with serve(handler, HOST, 0, drain=0) as server:
        async with connected(server):
            await started.wait()
            shutdown = asyncio.create_task(server.shutdown())
            for _ in range(10):
                await yield_now()
            assert not shutdown.done()
            go.set()
            await shutdown


async def test_an_error_of_the_cut_connection_itself_is_not_reported() -> None:
    started = asyncio.Event()

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await yield_now()
            raise ConnectionResetError("connection lost") from None

    with reports() as seen:
        async with serve(handler, HOST, 0, drain=0) as server:
            async with connected(server):
                await started.wait()
                await server.shutdown()
    assert seen == []


async def test_a_handler_closes_its_server_but_cannot_wait_for_it() -> None:
    server: Server

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        for wait in (server.wait, server.shutdown):
            with pytest.raises(RuntimeError, match="its own server"):
                await wait()
        server.close()
        writer.write(b"the last")

    with reports() as seen:
        async with serve(handler, HOST, 0, drain=None) as server:
            assert await ask(server, b"") == b"the last"
            await server.wait()
    assert seen == []


async def test_shutdown_may_be_called_by_several_and_again() -> None:
    async with serve(never, HOST, 0, drain=SOON) as server:
        async with connected(server):
            await until(lambda: server.connections == 1)
            await asyncio.gather(server.shutdown(), server.shutdown(), server.wait())
            await server.shutdown()
            server.close()
            server.abort()
            await server.wait()


async def test_cancelling_wait_does_nothing_to_the_server() -> None:
    async with serve(echo, HOST, 0) as server:
        waiting = asyncio.create_task(server.wait())
        await yield_now()
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert await ask(server, b"still here\n") == b"still here\n"


async def test_a_cancelled_shutdown_ends_everything_now_and_raises_when_it_has() -> None:
    ended: list[str] = []

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await yield_now()
            ended.append("handler")

    async with serve(handler, HOST, 0, drain=None) as server:
        async with connected(server):
            await until(lambda: server.connections == 1)
            shutdown = asyncio.create_task(server.shutdown())
            await until(lambda: server.closing)
            assert server.connections == 1
            shutdown.cancel()
            await asyncio.wait([shutdown])
            assert shutdown.cancelled()
            assert ended == ["handler"]
            assert server.connections == 0


async def test_abort_ends_everything_without_a_deadline() -> None:
    async with serve(never, HOST, 0, drain=None) as server:
        async with connected(server) as (reader, _):
            await until(lambda: server.connections == 1)
            server.abort()
            await server.wait()
            assert await ends(reader) == b""


# Awaiting a server


async def test_an_awaited_server_serves_until_it_is_cancelled_then_drains_then_raises() -> None:
    started, go = asyncio.Event(), asyncio.Event()
    counts: list[int] = []

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        started.set()
        await go.wait()
        writer.write(b"finished")

    server = serve(handler, HOST, 0, drain=60)

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await server
        finally:
            counts.append(task.cancelling())

    serving = asyncio.create_task(main())
    await yield_now()
    async with connected(server) as (reader, _):
        await started.wait()
        serving.cancel()
        await until(lambda: server.closing)
        assert not serving.done()
        go.set()
        assert await reader.read() == b"finished"
        await asyncio.wait([serving])
    assert serving.cancelled()
    assert counts == [1]


async def test_a_second_cancellation_ends_the_draining() -> None:
    server = serve(never, HOST, 0, drain=None)

    async def main() -> None:
        await server

    serving = asyncio.create_task(main())
    await yield_now()
    async with connected(server) as (reader, _):
        await until(lambda: server.connections == 1)
        serving.cancel()
        await until(lambda: server.closing)
        serving.cancel()
        await asyncio.wait([serving])
        assert serving.cancelled()
        assert await ends(reader) == b""
    assert server.connections == 0


async def test_a_token_stops_an_awaited_server_which_then_returns() -> None:
    stop = CancellationToken()
    server = serve(echo, HOST, 0, stop=stop)

    async def main() -> None:
        await server

    serving = asyncio.create_task(main())
    await yield_now()
    assert await ask(server, b"hello\n") == b"hello\n"
    stop.cancel()
    await serving
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(HOST, server.port)


async def test_a_token_drains_a_server_whose_block_is_still_open() -> None:
    stop = CancellationToken()
    async with serve(echo, HOST, 0, stop=stop) as server:
        stop.cancel()
        await server.wait()
        assert server.closing


async def test_a_token_that_is_never_cancelled_keeps_nothing() -> None:
    async with serve(echo, HOST, 0, stop=CancellationToken()):
        await yield_now()


async def test_the_token_may_have_been_cancelled_before() -> None:
    stop = CancellationToken()
    stop.cancel()
    await serve(echo, HOST, 0, stop=stop)


def test_a_server_runs_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> list[bytes]:
        with socket.create_server((HOST, 0)) as given:
            async with serve(echo, HOST, 0) as one, serve(echo, sock=given, drain=0) as two:
                async with connected(two) as (reader, writer):
                    writer.write(b"two\n")
                    return [await ask(one, b"one\n"), await reader.readline()]

    assert run(main(), loop_factory=uvloop.new_event_loop) == [b"one\n", b"two\n"]


def test_connections_stay_on_the_loop_of_their_server_in_a_program_with_several_workers() -> None:
    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        loops.add(asyncio.get_running_loop())

    async def main() -> asyncio.AbstractEventLoop:
        async with serve(handler, HOST, 0) as server:
            await asyncio.gather(*(ask(server, b"") for _ in range(20)))
        return asyncio.get_running_loop()

    loops: set[asyncio.AbstractEventLoop] = set()
    home = run(main(), workers=2)
    assert loops == {home}


def test_run_takes_a_server() -> None:
    stop = CancellationToken()
    stop.cancel()
    run(serve(echo, HOST, 0, stop=stop))


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the openssl program, which makes the certificate, is not here")
    folder = tmp_path_factory.mktemp("tls")
    key, chain = folder / "key.pem", folder / "chain.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(chain)], check=True, capture_output=True)
    return key, chain


@pytest.fixture
def server_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate[1], certificate[0])
    return context


@pytest.fixture
def client_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate[1]))


async def test_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async with serve(echo, HOST, 0, tls=server_tls) as server:
        async with connected(server, ssl=client_tls) as (reader, writer):
            writer.write(b"secret\n")
            assert await reader.readline() == b"secret\n"


async def test_the_deadline_cuts_tls_connections(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async with serve(echo, HOST, 0, tls=server_tls, drain=SOON) as server:
        async with connected(server, ssl=client_tls) as (reader, writer):
            writer.write(b"secret\n")
            await reader.readline()
            await server.shutdown()
            assert server.connections == 0
            assert await ends(reader) == b""


async def test_the_deadline_cuts_a_tls_connection_whose_peer_does_not_say_good_bye(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    closed = asyncio.Event()

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readline()
        writer.close()
        closed.set()

    async with serve(handler, HOST, 0, tls=server_tls, drain=SOON) as server:
        async with connected(server, ssl=client_tls) as (_, writer):
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(b"go\n")
            await closed.wait()
            async with asyncio.timeout(20):  # TLS itself would give up after 30 seconds
                await server.shutdown()
            writer.transport.resume_reading()  # type: ignore[attr-defined]


async def test_a_tls_peer_that_does_not_say_good_bye_is_cut_in_time(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yamanote.server._wire._LINGER", SOON)

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readline()

    async with serve(handler, HOST, 0, tls=server_tls, drain=None) as server:
        async with connected(server, ssl=client_tls) as (_, writer):
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(b"go\n")
            await until(lambda: server.connections == 0)
            writer.transport.resume_reading()  # type: ignore[attr-defined]


async def test_a_failed_handshake_ends_only_its_connection(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with reports() as seen:
        async with serve(echo, HOST, 0, tls=server_tls) as server:
            async with connected(server) as (reader, writer):
                writer.write(b"this is not TLS\n")
                await ends(reader)
            async with connected(server, ssl=client_tls) as (reader, writer):
                writer.write(b"secret\n")
                assert await reader.readline() == b"secret\n"
    assert seen == []


async def test_a_handshake_that_never_comes_does_not_outlive_the_deadline(server_tls: ssl.SSLContext) -> None:
    async with serve(echo, HOST, 0, tls=server_tls, drain=SOON) as server:
        async with connected(server) as (reader, _):
            await until(lambda: server.connections == 1)
            await server.shutdown()
            assert await ends(reader) == b""


async def test_a_handler_can_change_to_tls_later(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readline()
        writer.write(b"go\n")
        await writer.start_tls(server_tls)
        writer.write((await reader.readline()).upper())

    async with serve(handler, HOST, 0, drain=60) as server:
        async with connected(server) as (reader, writer):
            writer.write(b"starttls\n")
            await reader.readline()
            await writer.start_tls(client_tls, server_hostname=HOST)
            writer.write(b"secret\n")
            assert await reader.readline() == b"SECRET\n"
    assert server.connections == 0


async def test_a_tls_connection_that_the_handler_closes_twice_ends_well(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"bye")
        writer.close()
        writer.close()

    with reports() as seen:
        async with serve(handler, HOST, 0, tls=server_tls, drain=60) as server:
            async with connected(server, ssl=client_tls) as (reader, _):
                assert await reader.read() == b"bye"
    assert seen == []


# Addresses


async def test_all_addresses_of_a_name_share_one_port() -> None:
    async with serve(echo, "localhost", 0) as server:
        assert len({port for _, port in server.addresses}) == 1
        for host, port in server.addresses:
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"hello\n")
            assert await reader.readline() == b"hello\n"
            writer.close()
            await writer.wait_closed()


def resolved(*addresses: str) -> Callable[..., Any]:
    async def getaddrinfo(host: str, port: int, **options: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    return getaddrinfo


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the loop-back interface has one address only")
async def test_several_addresses_share_the_port_that_the_system_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolved(HOST, "127.0.0.2"))
    async with serve(echo, "two-addresses.invalid", 0) as server:
        assert server.addresses == ((HOST, server.port), ("127.0.0.2", server.port))


async def test_an_address_that_this_machine_lacks_does_not_matter_if_it_has_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolved("192.0.2.1", HOST))
    async with serve(echo, "two-addresses.invalid", 0) as server:
        assert server.addresses == ((HOST, server.port),)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the loop-back interface has one address only")
async def test_a_port_that_the_system_chose_and_another_address_has_in_use_is_chosen_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listen_on = _bind._listen
    choices = 0

    def choose(family: int, address: Any, *options: Any) -> socket.socket:
        nonlocal choices
        if address[1] == 0:
            choices += 1
            if choices == 1:
                address = (address[0], taken.getsockname()[1])
        return listen_on(family, address, *options)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolved(HOST, "127.0.0.2"))
    monkeypatch.setattr(_bind, "_listen", choose)
    with closing(socket.create_server(("127.0.0.2", 0))) as taken:
        async with serve(echo, "two-addresses.invalid", 0) as server:
            assert server.addresses == ((HOST, server.port), ("127.0.0.2", server.port))
    assert choices == 2


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the loop-back interface has one address only")
async def test_if_one_address_is_in_use_none_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolved("127.0.0.2", HOST))
    with closing(socket.create_server((HOST, 0))) as taken:
        with pytest.raises(OSError, match="cannot listen"):
            await serve(echo, "two-addresses.invalid", taken.getsockname()[1])


async def test_no_host_means_all_interfaces() -> None:
    async with serve(echo, None, 0) as server:
        assert await ask(server, b"hello\n") == b"hello\n"


async def test_a_port_in_use_is_an_error_that_names_it() -> None:
    with closing(socket.create_server((HOST, 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}"):
            await serve(echo, HOST, port)


async def test_an_address_of_another_machine_is_an_error() -> None:
    with pytest.raises(OSError, match="cannot listen on 192"):
        await serve(echo, "192.0.2.1", 0)


async def test_a_port_can_be_used_again_at_once() -> None:
    async with serve(echo, HOST, 0) as first:
        await ask(first, b"hello\n")
    async with serve(echo, HOST, first.port) as second:
        assert await ask(second, b"hello\n") == b"hello\n"


async def test_a_cancelled_start_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()

    async def lookup(*args: Any, **kwargs: Any) -> Any:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)

    async def main() -> None:
        await serve(echo, "a-name.invalid", 0)

    serving = asyncio.create_task(main())
    await asked.wait()
    serving.cancel()
    await asyncio.wait([serving])
    assert serving.cancelled()


# Nonsense


@pytest.mark.parametrize(
    ("error", "changed"),
    [
        (TypeError, {"handler": None}),
        (TypeError, {"port": True}),
        (TypeError, {"limit": "3"}),
        (TypeError, {"limit": 1.5}),
        (TypeError, {"drain": "x"}),
        (TypeError, {"host": 80}),
        (ValueError, {"host": ""}),
        (TypeError, {"port": "80"}),
        (ValueError, {"port": -1}),
        (ValueError, {"port": 65536}),
        (ValueError, {"limit": 0}),
        (ValueError, {"limit": -1}),
        (ValueError, {"drain": -1}),
        (ValueError, {"drain": float("nan")}),
        (ValueError, {"drain": float("inf")}),
        (TypeError, {"tls": True}),
        (ValueError, {"tls": ssl.create_default_context()}),
        (ValueError, {"at_limit": "panic"}),
        (TypeError, {"stop": True}),
    ],
)
def test_nonsense_is_refused_at_the_call_by_name(error: type[Exception], changed: dict[str, Any]) -> None:
    (name,) = changed
    arguments: dict[str, Any] = {"handler": echo, "host": HOST, "port": 0, **changed}
    with pytest.raises(error, match=name):
        serve(**arguments)


def test_no_loop_is_needed_to_make_a_server() -> None:
    serve(echo, HOST, 0)


async def test_a_server_that_does_not_run_says_so() -> None:
    server = serve(echo, HOST, 0)
    for use in (lambda: server.port, lambda: server.addresses, lambda: server.connections, server.close, server.abort):
        with pytest.raises(RuntimeError, match="does not run yet"):
            use()
    with pytest.raises(RuntimeError, match="does not run yet"):
        await server.wait()


async def test_a_server_runs_once() -> None:
    async with serve(echo, HOST, 0) as server:
        with pytest.raises(RuntimeError, match="has run already"):
            await server
    with pytest.raises(RuntimeError, match="has run already"):
        async with server:
            pass


async def test_of_two_who_enter_a_server_at_once_one_has_it() -> None:
    server = serve(echo, "localhost", 0)
    results = await asyncio.gather(server.__aenter__(), server.__aenter__(), return_exceptions=True)
    assert sorted(map(type, results), key=str) == [RuntimeError, Server]
    await server.shutdown()


@pytest.mark.parametrize("stop", [None, CancellationToken()])
async def test_a_block_that_is_thrown_away_ends_the_connections(stop: CancellationToken | None) -> None:
    async def block() -> None:
        async with server:
            await asyncio.Event().wait()

    server = serve(never, HOST, 0, stop=stop)
    holding = block()
    holding.send(None)
    async with connected(server) as (reader, _):
        await until(lambda: server.connections == 1)
        holding.close()
        assert await ends(reader) == b""
        await server.wait()


async def test_a_handler_may_wait_for_a_task_that_shuts_its_server_down() -> None:
    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(server.shutdown())

    async with asyncio.timeout(10):
        async with serve(handler, HOST, 0, drain=0.01) as server:
            reader, writer = await asyncio.open_connection(HOST, server.port)
            await reader.read()
            writer.close()


async def test_a_plain_function_that_returns_a_coroutine_is_a_handler() -> None:
    async with serve(lambda reader, writer: echo(reader, writer), HOST, 0) as server:
        reader, writer = await asyncio.open_connection(HOST, server.port)
        writer.write(b"hello\n")
        writer.write_eof()
        assert await reader.read() == b"hello\n"
        writer.close()


async def test_a_handler_that_is_not_async_is_reported_by_name() -> None:
    reports: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context["exception"]))
    async with serve(lambda reader, writer: None, HOST, 0) as server:  # type: ignore[arg-type,return-value]
        reader, writer = await asyncio.open_connection(HOST, server.port)
        assert await reader.read() == b""
        writer.close()
    assert "not an async function" in str(reports[0])
