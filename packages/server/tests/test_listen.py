"""`listen`: connections one by one, over real sockets."""

from __future__ import annotations

import asyncio
import errno
import gc
import shutil
import socket
import ssl
import subprocess
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from yamanote.runtime import BUDGET, EventLoop, TaskWaiter, park, run, yield_now
from yamanote.server import Connection, Listener, listen
from yamanote.server._acceptor import Acceptor

HOST = "127.0.0.1"

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "yamanote": EventLoop,
}
if find_spec("uvloop"):
    LOOPS["uvloop"] = import_module("uvloop").new_event_loop

on_each_loop = pytest.mark.parametrize("loop_factory", LOOPS.values(), ids=LOOPS)


@asynccontextmanager
async def connected(listener: Listener, **options: Any) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, listener.port, **options)
    try:
        yield reader, writer
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            pass


def client_of(listener: Listener) -> socket.socket:
    """A client that has connected when this returns, without a turn of the loop."""
    client = socket.create_connection((HOST, listener.port))
    client.setblocking(False)
    return client


async def received(client: socket.socket) -> bytes:
    """What comes next; nothing at the end, to which a reset counts."""
    try:
        async with asyncio.timeout(20):
            return await asyncio.get_running_loop().sock_recv(client, 1_000_000)
    except ConnectionError:
        return b""


def exhausted(listener: socket.socket) -> Any:
    raise OSError(errno.EMFILE, "Too many open files")


async def turns() -> None:
    for _ in range(10):
        await yield_now()


def is_from(connection: Connection, client: socket.socket) -> bool:
    return bool(connection.peer == client.getsockname())


# Accepting


async def test_connections_come_in_the_order_in_which_they_were_made() -> None:
    async with listen(HOST, 0) as listener:
        assert listener.addresses == ((HOST, listener.port),)
        assert listener.path is None
        clients = [client_of(listener) for _ in range(3)]
        for client in clients:
            async with await anext(listener) as connection:
                assert is_from(connection, client)
                connection.writer.write(b"welcome")
            assert await received(client) == b"welcome"
            assert await received(client) == b""
            client.close()


async def test_nothing_is_accepted_while_nobody_asks() -> None:
    with socket.create_server((HOST, 0)) as shared:
        async with listen(sock=shared) as listener:
            waiting = asyncio.create_task(anext(listener))
            await yield_now()
            waiting.cancel()
            await asyncio.wait([waiting])
            with client_of(listener) as client:
                await turns()
                accepted, peer = shared.accept()
                accepted.close()
                assert peer == client.getsockname()


async def test_who_waits_first_is_served_first() -> None:
    async with listen(HOST, 0) as listener:
        waiting = [asyncio.create_task(anext(listener)) for _ in range(3)]
        await yield_now()
        clients = [client_of(listener) for _ in range(3)]
        for task, client in zip(waiting, clients, strict=True):
            async with await task as connection:
                assert is_from(connection, client)
            client.close()


async def test_a_cancelled_wait_loses_no_connection_and_nobody_is_overtaken() -> None:
    async with listen(HOST, 0) as listener:
        waiting = asyncio.create_task(anext(listener))
        await yield_now()
        with client_of(listener) as first, client_of(listener) as second:
            assert listener._acceptor is not None
            listener._acceptor._accept(listener._acceptor._bound.sockets[0])  # it is handed over in this very turn
            waiting.cancel()
            await asyncio.wait([waiting])
            assert waiting.cancelled()
            for client in (first, second):
                async with await anext(listener) as connection:
                    assert is_from(connection, client)


async def test_a_connection_that_comes_back_goes_to_who_waits() -> None:
    async with listen(HOST, 0) as listener:
        waiting, other = asyncio.create_task(anext(listener)), asyncio.create_task(anext(listener))
        await yield_now()
        with client_of(listener) as client:
            assert listener._acceptor is not None
            listener._acceptor._accept(listener._acceptor._bound.sockets[0])
            waiting.cancel()
            await turns()
            assert other.done()
            async with other.result() as connection:
                assert is_from(connection, client)


async def test_a_connection_that_comes_back_is_in_front_of_those_that_came_later() -> None:
    async with listen(HOST, 0) as listener:
        with client_of(listener) as first, client_of(listener) as second:
            listener.close()
            waiter = TaskWaiter[Connection]()
            listener.register(waiter)
            assert waiter.settled
            listener.withdraw(waiter)
            for client in (first, second):
                async with await anext(listener) as connection:
                    assert is_from(connection, client)


async def test_who_asks_when_it_has_got_something_else_already_takes_no_connection_away() -> None:
    async with listen(HOST, 0) as listener:
        with client_of(listener) as client:
            listener.close()
            waiter = TaskWaiter[Connection]()
            assert waiter.claim()
            listener.register(waiter)
            async with await anext(listener) as connection:
                assert is_from(connection, client)


async def test_a_connection_that_comes_back_when_the_block_has_been_left_is_cut() -> None:
    async with listen(HOST, 0) as listener:
        waiting = asyncio.create_task(anext(listener))
        await yield_now()
        client = client_of(listener)
        assert listener._acceptor is not None
        listener._acceptor._accept(listener._acceptor._bound.sockets[0])
        waiting.cancel()
        await listener.aclose()
    await asyncio.wait([waiting])
    assert await received(client) == b""
    client.close()


async def test_who_has_connected_is_given_at_once_but_not_from_sockets_that_others_share() -> None:
    with socket.create_server((HOST, 0)) as shared:
        async with listen(HOST, 0) as alone, listen(sock=shared) as together:
            for listener in (alone, together):
                with client_of(listener):
                    waiter = TaskWaiter[Connection]()
                    listener.register(waiter)
                    assert waiter.settled is (listener is alone)
                    listener.withdraw(waiter)


async def test_a_rush_of_connections_lets_others_run_in_between() -> None:
    others_ran = asyncio.Event()
    async with listen(HOST, 0) as listener:
        clients = [client_of(listener) for _ in range(BUDGET)]
        asyncio.get_running_loop().call_soon(others_ran.set)
        for client in clients:
            (await anext(listener)).abort()
            client.close()
    assert others_ran.is_set()


async def test_it_can_be_waited_for_with_other_things() -> None:
    async with listen(HOST, 0) as listener:
        with client_of(listener) as client:
            async with await park(listener) as connection:
                assert is_from(connection, client)


async def test_tasks_of_other_loops_can_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    look = Acceptor.look
    threads: set[int] = set()

    def looking(acceptor: Acceptor) -> None:
        threads.add(threading.get_ident())
        look(acceptor)

    monkeypatch.setattr(Acceptor, "look", looking)

    async def elsewhere() -> bytes:
        async with await anext(listener) as connection:
            return await connection.reader.read()

    async with listen(HOST, 0) as listener:
        serving = asyncio.create_task(asyncio.to_thread(asyncio.run, elsewhere()))
        async with connected(listener) as (_, writer):
            writer.write(b"hello")
            writer.write_eof()
            assert await serving == b"hello"
    assert threads == {threading.get_ident()}  # what belongs to the loop is done there


async def test_the_end_of_a_connection_ends_the_rest_after_want_of_descriptors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with listen(HOST, 0) as listener:
        with client_of(listener) as first, client_of(listener) as second:
            connection = await anext(listener)
            assert is_from(connection, first)
            rested = asyncio.Event()
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: rested.set())
            with monkeypatch.context() as short:
                short.setattr("yamanote.server._acceptor._REST", 3600)
                short.setattr(socket.socket, "accept", exhausted)
                waiting = asyncio.create_task(anext(listener))
                await rested.wait()
            await connection.aclose()
            async with asyncio.timeout(20), await waiting as connection:
                assert is_from(connection, second)


async def test_a_listener_is_a_stream() -> None:
    pytest.importorskip("yamanote.streams")
    async with listen(HOST, 0) as listener:
        clients = [client_of(listener) for _ in range(2)]
        async with listener.into_stream() as stream:
            async for connection in stream:
                async with connection:
                    with clients.pop(0) as client:
                        assert is_from(connection, client)
                if not clients:
                    break
        with pytest.raises(ConnectionRefusedError):
            client_of(listener)


# The end of listening


async def test_who_has_connected_before_the_close_can_still_be_asked_for_then_the_iteration_ends() -> None:
    async with listen(HOST, 0) as listener:
        clients = [client_of(listener) for _ in range(3)]
        listener.close()
        with pytest.raises(ConnectionRefusedError):
            client_of(listener)
        async for connection in listener:
            async with connection:
                with clients.pop(0) as client:
                    assert is_from(connection, client)
        assert clients == []
        listener.close()


async def test_who_waits_is_told_the_end() -> None:
    async def wait() -> str:
        async for _ in listener:
            pass
        return "ended"

    async with listen(HOST, 0) as listener:
        waiting = asyncio.create_task(wait())
        await yield_now()
        listener.close()
        assert await waiting == "ended"


async def test_who_has_connected_and_was_not_asked_for_is_cut_at_the_end_of_the_block() -> None:
    async with listen(HOST, 0) as listener:
        client = client_of(listener)
        listener.close()
    assert await received(client) == b""
    client.close()


async def test_who_has_not_been_asked_for_is_left_to_the_others_on_a_shared_socket() -> None:
    with socket.create_server((HOST, 0)) as shared:
        async with listen(sock=shared) as listener:
            client = client_of(listener)
        async with listen(sock=shared) as listener, await anext(listener) as connection:
            assert is_from(connection, client)
        client.close()


async def test_a_listener_that_does_not_listen_says_so() -> None:
    listener = listen(HOST, 0)
    for use in (lambda: listener.port, lambda: listener.addresses, lambda: listener.path, listener.close):
        with pytest.raises(RuntimeError, match="does not listen yet"):
            use()
    with pytest.raises(RuntimeError, match="does not listen yet"):
        await anext(listener)
    with pytest.raises(RuntimeError, match="does not listen yet"):
        listener.into_stream()


async def test_a_listener_listens_once() -> None:
    async with listen(HOST, 0) as listener:
        assert f"port {listener.port}" in repr(listener)
    with pytest.raises(RuntimeError, match="has been entered already"):
        async with listener:
            pass


async def test_of_two_who_enter_a_listener_at_once_one_has_it() -> None:
    listener = listen("localhost", 0)
    results = await asyncio.gather(listener.__aenter__(), listener.__aenter__(), return_exceptions=True)
    assert sorted(map(type, results), key=str) == [RuntimeError, Listener]
    await listener.aclose()


# A connection


async def test_a_connection_is_opened_by_its_block_once() -> None:
    async with listen(HOST, 0) as listener:
        with client_of(listener) as client:
            connection = await anext(listener)
            for use in (lambda: connection.reader, lambda: connection.writer):
                with pytest.raises(RuntimeError, match="not open"):
                    use()
            async with connection:
                with pytest.raises(RuntimeError, match="opened or closed already"):
                    await connection.__aenter__()
            assert str(client.getsockname()) in repr(connection)


@pytest.mark.parametrize("way", [Connection.abort, Connection.aclose])
async def test_a_connection_can_be_turned_away_without_opening_it(way: Callable[[Connection], Any]) -> None:
    async with listen(HOST, 0) as listener:
        with client_of(listener) as client:
            connection = await anext(listener)
            if (waiting := way(connection)) is not None:
                await waiting
            assert await received(client) == b""
            with pytest.raises(RuntimeError, match="opened or closed already"):
                async with connection:
                    pass


@on_each_loop
def test_what_was_written_is_sent_before_the_end_of_the_block(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    size = 8_000_000

    async def give(listener: Listener) -> None:
        async with await anext(listener) as connection:
            connection.writer.write(bytes(size))

    async def main() -> int:
        async with listen(HOST, 0) as listener:
            giving = asyncio.create_task(give(listener))
            async with connected(listener) as (reader, _):
                length = len(await reader.read())
                await giving
                return length

    assert run(main(), loop_factory=loop_factory) == size


async def test_an_error_leaves_the_block_when_what_was_written_has_been_sent() -> None:
    async with listen(HOST, 0) as listener:
        with client_of(listener) as client:
            with pytest.raises(ValueError, match="ours"):
                async with await anext(listener) as connection:
                    connection.writer.write(b"before")
                    raise ValueError("ours")
            assert await received(client) == b"before"
            assert await received(client) == b""


async def test_closing_a_connection_again_only_waits() -> None:
    async with listen(HOST, 0) as listener:
        with client_of(listener) as client:
            async with await anext(listener) as connection:
                connection.writer.write(b"bye")
                await connection.aclose()
                await connection.aclose()
                connection.abort()
            assert await received(client) == b"bye"


async def stuck_in_the_block(connection: Connection) -> None:
    async with connection:
        connection.writer.write(bytes(20_000_000))
        await asyncio.Event().wait()


async def stuck_at_the_end(connection: Connection) -> None:
    async with connection:
        connection.writer.write(bytes(20_000_000))


@on_each_loop
@pytest.mark.parametrize("work", [stuck_in_the_block, stuck_at_the_end])
def test_a_cancellation_cuts_the_connection_of_a_peer_that_never_reads(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], work: Callable[[Connection], Any]
) -> None:
    async def main() -> None:
        async with listen(HOST, 0) as listener:
            with client_of(listener) as client:
                connection = await anext(listener)
                working = asyncio.create_task(work(connection))
                while "open" not in repr(connection):
                    await yield_now()
                await turns()
                working.cancel()
                await asyncio.wait([working])
                assert working.cancelled()
                assert "closed" in repr(connection)
                while await received(client):
                    pass

    run(main(), loop_factory=loop_factory)


async def test_a_block_that_is_thrown_away_cuts_its_connection() -> None:
    async with listen(HOST, 0) as listener:
        with client_of(listener) as client:
            holding = stuck_in_the_block(await anext(listener))
            opening: Any = holding.send(None)
            opening._asyncio_future_blocking = False
            await opening
            holding.send(None)
            holding.close()
            while await received(client):
                pass


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


@on_each_loop
def test_a_slow_handshake_holds_up_nobody_else(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], certificate: tuple[Path, Path], server_tls: ssl.SSLContext
) -> None:
    async def greet(listener: Listener) -> None:
        async with await anext(listener) as connection:
            connection.writer.write(b"hello")

    reports: list[str] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context["message"]))
        client_tls = ssl.create_default_context(cafile=str(certificate[1]))
        async with listen(HOST, 0, tls=server_tls) as listener:
            with client_of(listener) as slow:
                greeting, serving = asyncio.create_task(greet(listener)), asyncio.create_task(greet(listener))
                async with connected(listener, ssl=client_tls) as (reader, _):
                    assert await reader.read() == b"hello"
                await serving
                assert not greeting.done()
                greeting.cancel()
                await asyncio.wait([greeting])
                assert greeting.cancelled()
                assert await received(slow) == b""
            del greeting
            gc.collect()
            assert reports == []  # such as that nobody has asked how the handshake ended

    run(main(), loop_factory=loop_factory)


async def test_a_connection_can_be_closed_by_another_task_while_it_opens(server_tls: ssl.SSLContext) -> None:
    async with listen(HOST, 0, tls=server_tls) as listener:
        with client_of(listener) as client:
            connection = await anext(listener)
            opening = asyncio.create_task(connection.__aenter__())
            await turns()
            await connection.aclose()
            assert await received(client) == b""
            await asyncio.wait([opening])
            assert isinstance(opening.exception(), OSError)


async def test_a_failed_handshake_is_an_error_of_the_block_and_closes_the_connection(
    server_tls: ssl.SSLContext,
) -> None:
    async with listen(HOST, 0, tls=server_tls) as listener:
        with client_of(listener) as client:
            client.send(b"this is not TLS\n")
            connection = await anext(listener)
            with pytest.raises(ssl.SSLError):
                async with connection:
                    pytest.fail("the block must not be entered")
            while await received(client):
                pass
            assert "closed" in repr(connection)


def test_settings_of_a_client_are_refused() -> None:
    with pytest.raises(ValueError, match="tls is a context for clients"):
        listen(HOST, 0, tls=ssl.create_default_context())
