"""Sockets: what the standard ones do, without blocking, on every loop."""

from __future__ import annotations

import array
import asyncio
import errno
import os
import socket as standard
import struct
import sys
import tempfile
from asyncio import CancelledError
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from yamanote.net import socket
from yamanote.runtime import BUDGET, EventLoop, move_on_after

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "yamanote": EventLoop,
}
if find_spec("uvloop"):
    LOOPS["uvloop"] = import_module("uvloop").new_event_loop

Test = Callable[[], Coroutine[Any, Any, None]]

unix = pytest.mark.skipif(not hasattr(standard, "AF_UNIX"), reason="there are no Unix sockets")


def on_each_loop(test: Test) -> Callable[..., None]:
    @pytest.mark.parametrize("loop_factory", LOOPS.values(), ids=LOOPS)
    def on_it(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(test())

    on_it.__name__ = test.__name__
    return on_it


@asynccontextmanager
async def connected(family: int = socket.AF_INET) -> AsyncIterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection over the network of this machine."""
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    with await socket.create_server((host, 0), family=family) as server:
        with await socket.create_connection(server.getsockname()[:2]) as client:
            connection, address = await server.accept()
            with connection:
                assert address == client.getsockname()
                yield client, connection


async def parked(operation: Awaitable[Any]) -> asyncio.Future[Any]:
    """The task of an operation that waits."""
    task = asyncio.ensure_future(operation)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()
    return task


def fill(sock: socket.socket) -> int:
    """Send until the system takes no more."""
    with standard.socket(fileno=os.dup(sock.fileno())) as same:
        same.setblocking(False)
        total = 0
        try:
            while True:
                total += same.send(bytes(65536))
        except BlockingIOError:
            return total


async def receive_exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        data += await sock.recv(size - len(data))
    return bytes(data)


# ---------------------------------------------------------------------- every family


async def echo(connection: socket.socket) -> None:
    with connection:
        while data := await connection.recv(1000):
            await connection.sendall(data)


async def exchange(server: socket.socket, client: socket.socket) -> None:
    await client.connect(server.getsockname())
    connection, _ = await server.accept()
    echoing = asyncio.ensure_future(echo(connection))
    await client.sendall(b"hello")
    assert await receive_exactly(client, 5) == b"hello"
    client.shutdown(socket.SHUT_WR)  # half closed: the other direction goes on
    assert await client.recv(10) == b""
    await echoing


@on_each_loop
async def test_an_echo_over_tcp() -> None:
    with socket.socket() as server, socket.socket() as client:
        await server.bind(("127.0.0.1", 0))
        server.listen()
        await exchange(server, client)


@on_each_loop
async def test_an_echo_over_tcp_with_ipv6() -> None:
    async with connected(socket.AF_INET6) as (client, connection):
        assert client.family == connection.family == socket.AF_INET6
        await client.sendall(b"hello")
        assert await connection.recv(10) == b"hello"


@unix
@on_each_loop
async def test_an_echo_over_a_unix_socket() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        await server.bind(str(Path(folder) / "s"))
        server.listen(1)
        with socket.socket(socket.AF_UNIX) as client:
            await exchange(server, client)


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")
@on_each_loop
async def test_an_echo_over_an_abstract_name() -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        await server.bind(b"\0yamanote-%d" % id(server))
        server.listen()
        await exchange(server, client)


@on_each_loop
async def test_datagrams_over_udp_tell_who_sent_them() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as other:
        for end in (one, other):
            await end.bind(("localhost", 0))
        receiving = await parked(other.recvfrom(10))
        assert await one.sendto(b"hello", other.getsockname()) == 5
        assert await receiving == (b"hello", one.getsockname())
        assert await other.sendto(b"there", 0, ("localhost", one.getsockname()[1])) == 5
        buffer = bytearray(10)
        assert await one.recvfrom_into(buffer) == (5, other.getsockname())
        assert await one.sendmsg([b"a", b"b"], [], 0, other.getsockname()) == 2
        assert (await other.recvmsg(10))[::3] == (b"ab", one.getsockname())
        await one.connect(other.getsockname())
        assert await one.send(b"x") == 1
        assert await other.recv_into(buffer) == 1


@on_each_loop
async def test_names_are_looked_up_in_a_thread_whatever_they_and_the_socket_are_made_of() -> None:
    for host in ("localhost", b"localhost", bytearray(b"localhost")):
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            await (await parked(sock.bind((host, 0))))
            assert sock.getsockname()[0] == "127.0.0.1"
    try:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)  # knows no ports
    except PermissionError:
        return
    with raw:
        await raw.bind(("localhost", 0))
        assert raw.getsockname()[0] == "127.0.0.1"


@unix
@on_each_loop
async def test_datagrams_over_a_unix_socket() -> None:
    with tempfile.TemporaryDirectory() as folder:
        name = str(Path(folder) / "s")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
            await one.bind(name)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
                receiving = await parked(one.recv(10))
                await other.sendto(b"hello", name)
                assert await receiving == b"hello"


@unix
@on_each_loop
async def test_descriptors_travel_over_a_unix_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        receiving = await parked(socket.recv_fds(theirs, 10, 2))
        await socket.send_fds(ours, [b"two"], [ours.fileno(), ours.fileno()])
        data, fds, _, _ = await receiving
        assert data == b"two" and len(fds) == 2
        for fd in fds:
            with socket.socket(fileno=fd) as same:
                await same.sendall(b"x")
        assert await receive_exactly(theirs, 2) == b"xx"


@on_each_loop
async def test_messages_are_scattered_and_gathered_from_any_iterable() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        buffers = [bytearray(2), bytearray(10)]
        receiving = await parked(theirs.recvmsg_into(iter(buffers)))  # asks the system twice
        assert await ours.sendmsg(iter([b"he", b"llo"])) == 5
        assert (await receiving)[0] == 5
        assert buffers[0] + buffers[1][:3] == b"hello"
        fill(ours)
        sending = await parked(ours.sendmsg(iter([b"he", b"llo"])))
        while not sending.done():
            await theirs.recv(1_000_000)
        assert sending.result() == 5


# ---------------------------------------------------------------------- back-pressure, errors, the end


@on_each_loop
async def test_sendall_waits_for_the_reader_and_sends_everything_in_order() -> None:
    data = os.urandom(5_000_000)
    async with connected() as (client, connection):
        sending = await parked(client.sendall(memoryview(array.array("I", data))))
        assert client.sent < len(data)
        assert await receive_exactly(connection, len(data)) == data
        await sending
        assert client.sent == len(data)
        await client.sendall(b"")


@on_each_loop
async def test_a_reset_is_an_error_for_who_waits_in_either_direction() -> None:
    async with connected() as (client, connection):
        fill(client)
        receiving = await parked(client.recv(1))
        sending = await parked(client.sendall(b"x"))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        results = await asyncio.gather(receiving, sending, return_exceptions=True)
        assert {type(result) for result in results} <= {ConnectionResetError, BrokenPipeError, bytes}
        assert any(isinstance(result, ConnectionResetError) for result in results)


@on_each_loop
async def test_a_refused_connection_is_the_error_of_the_standard_method() -> None:
    with await socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    with socket.socket() as client, pytest.raises(ConnectionRefusedError) as caught:
        await client.connect(address)
    assert caught.value.errno == errno.ECONNREFUSED
    with socket.socket() as client:
        assert await client.connect_ex(address) == errno.ECONNREFUSED
    with pytest.raises(ConnectionRefusedError):
        await socket.create_connection(address)
    with pytest.raises(ExceptionGroup) as group:
        await socket.create_connection(address, all_errors=True)
    assert [type(error) for error in group.value.exceptions] == [ConnectionRefusedError]


@unix
@on_each_loop
async def test_connect_waits_for_room_in_the_backlog_of_a_unix_socket() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        await server.bind(name := str(Path(folder) / "s"))
        server.listen(0)
        with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
            await first.connect(name)
            connecting = asyncio.ensure_future(second.connect(name))
            await asyncio.sleep(0.01)
            if sys.platform == "linux":
                assert not connecting.done()
            (await server.accept())[0].close()
            await connecting
            connection, _ = await server.accept()
            with connection:
                await second.sendall(b"x")
                assert await connection.recv(1) == b"x"


@on_each_loop
async def test_a_connection_stays_in_the_backlog_while_there_are_no_descriptors() -> None:
    resource = pytest.importorskip("resource", reason="descriptors cannot be limited here")
    with await socket.create_server(("127.0.0.1", 0)) as server:
        with await socket.create_connection(server.getsockname()) as client:
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))  # all beyond the three standard ones are in use
            try:
                with pytest.raises(OSError) as caught:
                    await server.accept()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            assert caught.value.errno == errno.EMFILE
            connection, address = await server.accept()
            with connection:
                assert address == client.getsockname()


@on_each_loop
async def test_ready_calls_give_way_once_in_a_while() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        await ours.send(bytes(2 * BUDGET))
        for _ in range(2 * BUDGET):
            await theirs.recv(1)
        assert 1 <= turns <= 2
        for _ in range(2 * BUDGET):
            await ours.sendall(b"x")
        assert 2 <= turns <= 4
        counting.cancel()


# ---------------------------------------------------------------------- cancellation


async def turns(count: int) -> None:
    for _ in range(count):
        asyncio.get_running_loop().call_later(0, int)  # so that every loop polls after this turn
        await asyncio.sleep(0)


async def into(sock: socket.socket) -> bytes:
    buffer = bytearray(10)
    return bytes(buffer[: await sock.recv_into(buffer)])


async def with_sender(sock: socket.socket) -> bytes:
    return (await sock.recvfrom(10))[0]


async def message(sock: socket.socket) -> bytes:
    return (await sock.recvmsg(10))[0]


@on_each_loop
async def test_a_receiver_that_is_cancelled_at_any_moment_has_taken_nothing() -> None:
    for receive in (lambda sock: sock.recv(10), into, with_sender, message):
        for moment in range(6):
            ours, theirs = socket.socketpair()
            with ours, theirs:
                receiving = await parked(receive(ours))
                theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 10_000)
                await theirs.send(b"hello")
                await turns(moment)
                receiving.cancel()
                try:
                    assert await receiving == b"hello"
                except CancelledError:
                    with move_on_after(10):
                        assert await receive(ours) == b"hello"


@on_each_loop
async def test_an_accept_that_is_cancelled_at_any_moment_leaves_the_connection_to_the_next() -> None:
    with await socket.create_server(("127.0.0.1", 0)) as server:
        for moment in range(6):
            accepting = await parked(server.accept())
            with await socket.create_connection(server.getsockname()) as client:
                await turns(moment)
                accepting.cancel()
                try:
                    connection, address = await accepting
                except CancelledError:
                    connection, address = await server.accept()
                with connection:
                    assert address == client.getsockname()


@on_each_loop
async def test_a_sendall_that_is_cancelled_at_any_moment_tells_how_much_it_has_sent() -> None:
    data = os.urandom(1_000_000)
    for moment in range(6):
        async with connected() as (client, connection):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 10_000)
            await client.sendall(b"before")
            await receive_exactly(connection, 6)
            before = client.sent
            sending = await parked(client.sendall(data))
            got = await connection.recv(100_000)
            await turns(moment)
            sending.cancel()
            with pytest.raises(CancelledError):
                await sending
            client.shutdown(socket.SHUT_WR)
            while part := await connection.recv(100_000):
                got += part
            assert got == data[: client.sent - before] and len(got) < len(data)


@on_each_loop
async def test_a_send_that_is_cancelled_has_sent_nothing() -> None:
    for moment in range(6):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            full = fill(ours)
            sending = await parked(ours.send(b"x"))
            got = len(await theirs.recv(full))
            await turns(moment)
            sending.cancel()
            sent = 0
            try:
                sent = await sending
            except CancelledError:
                pass
            assert ours.sent == sent
            ours.shutdown(socket.SHUT_WR)
            while part := await theirs.recv(1_000_000):
                got += len(part)
            assert got == full + sent


@on_each_loop
async def test_a_connect_that_is_cancelled_before_it_begins_leaves_the_socket_as_it_was() -> None:
    with socket.socket() as client:
        connecting = await parked(client.connect(("localhost", 9)))  # looks up the name
        connecting.cancel()
        with pytest.raises(CancelledError):
            await connecting
        with await socket.create_server(("127.0.0.1", 0)) as server:
            await client.connect(server.getsockname())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, a backlog that is full refuses")
@on_each_loop
async def test_a_connect_that_is_cancelled_on_its_way_closes_the_socket() -> None:
    with await socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        with await socket.create_connection(server.getsockname()), socket.socket() as client:
            connecting = asyncio.ensure_future(client.connect(server.getsockname()))
            await turns(5)
            if connecting.done():
                pytest.skip("the backlog takes more than it was told")
            connecting.cancel()
            with pytest.raises(CancelledError):
                await connecting
            assert client.fileno() == -1


# ---------------------------------------------------------------------- the shape of the standard module


def test_everything_of_the_standard_module_is_there_but_what_makes_sockets_block() -> None:
    missing = {name for name in standard.__all__ if not hasattr(socket, name)}

    assert missing == {"getdefaulttimeout", "setdefaulttimeout"}
    assert set(standard.__all__) - missing | {"from_stdlib_socket"} == set(socket.__all__)
    assert socket.inet_aton is standard.inet_aton and socket.gaierror is standard.gaierror
    assert socket.SocketType is socket.socket


def test_every_method_of_the_standard_class_is_there_but_those_for_files() -> None:
    standard_ones = {name for name in dir(standard.socket) if not name.startswith("_")}

    assert (
        standard_ones - set(dir(socket.socket)) == {"makefile", "sendfile", "sendmsg_afalg", "timeout"} & standard_ones
    )


def test_blocking_is_refused_with_advice() -> None:
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.settimeout(0)
        with pytest.raises(ValueError, match="flag must be false"):
            sock.setblocking(True)
        for value in (None, 1.0):
            with pytest.raises(ValueError, match="value must be 0: put a time limit around"):
                sock.settimeout(value)
        assert not sock.getblocking() and sock.gettimeout() == 0


def test_what_never_blocks_is_the_same_as_in_the_standard_class() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        assert (ours.family, ours.type, ours.proto) == (socket.AF_UNIX, socket.SOCK_DGRAM, 0)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 4) == struct.pack("i", 1)
        ours.set_inheritable(True)
        assert ours.get_inheritable()
        assert ours.getpeername() == theirs.getsockname()
        with ours.dup() as same:
            assert same.fileno() not in (ours.fileno(), -1)
        assert f"<yamanote.net.socket.socket fd={ours.fileno()}, " in repr(ours)
    assert ours.fileno() == -1 and "[closed]" in repr(ours)
    ours.close()


@on_each_loop
async def test_sockets_come_from_standard_ones_and_from_descriptors() -> None:
    ours, theirs = standard.socketpair()
    with theirs, socket.from_stdlib_socket(ours) as one:
        async with socket.fromfd(one.fileno(), one.family, one.type) as other:
            receiving = await parked(other.recv(10))
            theirs.send(b"hello")
            assert await receiving == b"hello"
        receiving = await parked(one.recv(10))
        theirs.send(b"hello")
        assert await receiving == b"hello"


async def test_a_server_and_a_port_are_two_things() -> None:
    with pytest.raises(ValueError, match="too many values"):
        await socket.create_connection(("::1", 80, 0, 0))  # type: ignore[arg-type]


def test_a_pair_is_of_the_family_that_the_system_prefers(monkeypatch: pytest.MonkeyPatch) -> None:
    families = []

    def pair_of_windows(family: int = standard.AF_INET, type: int = 1, proto: int = 0) -> tuple[Any, Any]:
        if family != standard.AF_INET:
            raise ValueError("Only AF_INET and AF_INET6 socket address families are supported")
        families.append(family)
        return standard.socket(), standard.socket()

    monkeypatch.setattr(standard, "socketpair", pair_of_windows)
    for pair in (socket.socketpair(), socket.socketpair(socket.AF_INET)):
        for end in pair:
            end.close()
    assert families == [standard.AF_INET] * 2


def test_what_is_no_plain_socket_is_refused() -> None:
    class Another(standard.socket):
        pass

    with Another() as another, pytest.raises(TypeError, match=r"plain socket\.socket, not Another"):
        socket.from_stdlib_socket(another)


def test_a_socket_that_is_dropped_open_is_reported() -> None:
    with pytest.warns(ResourceWarning, match="unclosed"):
        socket.socket()
