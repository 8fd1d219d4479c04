"""Where `serve` listens: at paths, on sockets that were given, on ports that are shared."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import sys
import tempfile
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from yamanote.runtime import yield_now
from yamanote.server import Server, listen, serve

HOST = "127.0.0.1"

unix = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no Unix sockets")
reuse_port = pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="a port cannot be shared")


async def echo(reader: StreamReader, writer: StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()


@asynccontextmanager
async def closed_after(streams: Any) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    reader, writer = await streams
    try:
        yield reader, writer
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            pass


async def begun(server: Server) -> None:
    """For servers that must not begin."""
    async with server:
        pass


async def ask(server: Server, line: bytes) -> bytes:
    """What comes back for one line."""
    if server.path is None:
        streams = asyncio.open_connection(HOST, server.port)
    else:
        streams = asyncio.open_unix_connection(server.path)
    async with closed_after(streams) as (reader, writer):
        writer.write(line)
        return await reader.readline()


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are too long for a socket
        yield Path(folder) / "socket"


# Unix sockets


@unix
async def test_a_path_is_served_and_its_file_is_removed_at_the_end(path: Path) -> None:
    async with serve(echo, path=path) as server:
        assert server.path == str(path)
        assert server.addresses == ()
        with pytest.raises(RuntimeError, match="no port"):
            _ = server.port
        assert await ask(server, b"hello\n") == b"hello\n"
    assert not path.exists()


@unix
async def test_the_file_is_removed_before_the_server_drains(path: Path) -> None:
    release = asyncio.Event()

    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        await release.wait()
        writer.write(b"done\n")

    async with serve(handler, path=path) as server:
        asking = asyncio.create_task(ask(server, b""))
        while server.connections == 0:
            await yield_now()
        server.close()
        async with serve(echo, path=path) as successor:
            assert await ask(successor, b"already\n") == b"already\n"
            release.set()
            assert await asking == b"done\n"
            await server.wait()
            assert path.exists()


@unix
async def test_nobody_can_connect_any_more_when_the_last_are_accepted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = socket.socket.accept
    there: list[bool] = []

    def looking(listener: socket.socket) -> Any:
        there.append(path.exists())
        return accept(listener)

    async with serve(echo, path=path) as server:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            monkeypatch.setattr(socket.socket, "accept", looking)
            server.close()
            assert server.connections == 1
    assert there == [False, False]


@unix
async def test_the_socket_of_a_dead_server_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.exists()
    async with serve(echo, path=str(path)) as server:
        assert await ask(server, b"hello\n") == b"hello\n"
    assert not path.exists()


@unix
async def test_the_socket_of_a_living_server_is_refused_and_left_alone(path: Path) -> None:
    async with serve(echo, path=path) as server:
        with pytest.raises(OSError, match=f"cannot listen at {path}: Address already in use") as refused:
            await begun(serve(echo, path=path))
        assert refused.value.errno == errno.EADDRINUSE
        assert await ask(server, b"hello\n") == b"hello\n"


@unix
async def test_a_server_whose_backlog_is_full_is_not_taken_for_dead(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with pytest.raises(OSError, match="cannot listen") as refused:
            await begun(serve(echo, path=path))
        assert refused.value.errno == errno.EADDRINUSE


@unix
async def test_another_file_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("precious")
    for occupied in (path, path.parent):
        with pytest.raises(OSError, match=f"cannot listen at {occupied}: it exists, and is no socket") as refused:
            await begun(serve(echo, path=occupied))
        assert refused.value.errno == errno.EADDRINUSE
    assert path.read_text() == "precious"


@unix
async def test_a_socket_that_somebody_else_has_put_there_is_left_alone(path: Path) -> None:
    async with serve(echo, path=path):
        path.unlink()
        other = socket.socket(socket.AF_UNIX)
        other.bind(str(path))
    with closing(other):
        assert path.exists()


@unix
async def test_a_file_that_is_gone_already_does_not_matter(path: Path) -> None:
    reports: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    async with serve(echo, path=path):
        path.unlink()
    assert reports == []


@unix
async def test_a_file_that_cannot_be_removed_is_reported_and_the_server_ends(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlink(path: str) -> None:  # a directory that nobody may write to does not stop the superuser
        raise PermissionError(errno.EACCES, "Permission denied", path)

    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    server = serve(echo, path=path)
    await server.__aenter__()
    with monkeypatch.context() as patching:
        patching.setattr(os, "unlink", unlink)
        await server.shutdown()
    assert [report["message"] for report in reports] == [f"cannot remove the socket at {path}"]
    assert isinstance(reports[0]["exception"], PermissionError)


@unix
async def test_the_file_is_found_again_from_another_directory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    async with serve(echo, path=path.name):
        assert path.exists()
        monkeypatch.chdir("/")
    assert not path.exists()


@unix
async def test_the_permissions_can_be_said(path: Path) -> None:
    async with serve(echo, path=path, mode=0o600) as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await ask(server, b"hello\n") == b"hello\n"


@unix
async def test_a_path_that_is_too_long_is_an_error_that_says_so(path: Path) -> None:
    with pytest.raises(OSError, match="longer than") as refused:
        await begun(serve(echo, path=path.parent / ("x" * 150)))
    assert refused.value.errno == errno.ENAMETOOLONG


@unix
async def test_a_directory_that_is_not_there_is_an_error_that_names_it(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        await begun(serve(echo, path=path.parent / "nowhere" / "socket"))


@unix
async def test_who_is_about_to_listen_in_a_directory_has_it_alone(path: Path) -> None:
    import fcntl

    directory = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    server = serve(echo, path=path)
    entering = asyncio.create_task(server.__aenter__())
    for _ in range(10):
        await yield_now()
    assert not path.exists()
    os.close(directory)
    await entering
    assert await ask(server, b"hello\n") == b"hello\n"
    await server.shutdown()


@unix
async def test_the_report_about_a_client_without_a_name_says_where_it_was(path: Path) -> None:
    async def handler(reader: StreamReader, writer: StreamWriter) -> None:
        raise ValueError

    reports: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context["message"]))
    async with serve(handler, path=path) as server:
        await ask(server, b"")
    assert reports == [f"connection at {path} failed in its handler"]


# Sockets that were given


async def test_a_socket_that_was_given_stays_open_and_who_waits_there_is_served_by_the_next_server() -> None:
    with socket.create_server((HOST, 0)) as given:
        async with serve(echo, sock=given) as server:
            assert server.addresses == (given.getsockname(),)
            assert await ask(server, b"first\n") == b"first\n"
        with socket.create_connection(given.getsockname()) as client:
            client.sendall(b"second\n")
            client.shutdown(socket.SHUT_WR)
            client.setblocking(False)
            async with serve(echo, sock=given):
                assert await asyncio.get_running_loop().sock_recv(client, 100) == b"second\n"


async def test_who_waits_on_a_shared_socket_when_a_server_stops_is_left_to_the_others() -> None:
    with socket.create_server((HOST, 0)) as given:
        async with serve(echo, sock=given, drain=0) as server, serve(echo, sock=given) as other:
            with socket.create_connection(given.getsockname()) as client:
                server.close()
                client.setblocking(False)
                client.send(b"hello\n")
                assert await asyncio.get_running_loop().sock_recv(client, 100) == b"hello\n"
                assert (server.connections, other.connections) == (0, 1)


async def test_servers_that_share_a_socket_share_its_connections() -> None:
    with socket.create_server((HOST, 0), backlog=100) as given:
        async with serve(echo, sock=given) as one, serve(echo, sock=given) as two:
            clients = [socket.create_connection(given.getsockname()) for _ in range(60)]
            while one.connections + two.connections < 60:
                await yield_now()
            assert abs(one.connections - two.connections) <= 2
            for client in clients:
                client.close()


async def test_a_socket_that_was_given_blocks_nobody_any_more() -> None:
    with socket.create_server((HOST, 0)) as given:
        assert given.gettimeout() is None
        async with serve(echo, sock=given):
            assert given.gettimeout() == 0
            with pytest.raises(BlockingIOError):
                given.accept()


async def test_a_socket_that_is_only_bound_begins_to_listen() -> None:
    with socket.socket() as given:
        given.bind((HOST, 0))
        async with serve(echo, sock=given) as server:
            assert await ask(server, b"hello\n") == b"hello\n"


async def test_a_server_does_not_mind_when_its_sockets_are_closed_by_their_owner() -> None:
    given = socket.create_server((HOST, 0))
    async with serve(echo, sock=given) as server:
        given.close()
        assert await ask(server, b"hello\n") == b"hello\n"


@unix
async def test_several_sockets_can_be_given_and_files_of_theirs_are_left_alone(path: Path) -> None:
    with socket.create_server((HOST, 0)) as tcp, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(path))
        local.listen()
        async with serve(echo, sock=[local, tcp]) as server:
            assert server.path == str(path)
            assert server.port == tcp.getsockname()[1]
            assert await ask(server, b"hello\n") == b"hello\n"
            async with closed_after(asyncio.open_connection(HOST, server.port)) as (reader, writer):
                writer.write(b"hello\n")
                assert await reader.readline() == b"hello\n"
        assert path.exists()


# Ports that are shared


@reuse_port
async def test_servers_can_share_a_port() -> None:
    async with serve(echo, HOST, 0, reuse_port=True) as one, serve(echo, HOST, one.port, reuse_port=True) as two:
        assert one.port == two.port
        with pytest.raises(OSError, match="cannot listen"):
            await begun(serve(echo, HOST, one.port))
        server = one
        for _ in range(2):
            assert await ask(server, b"hello\n") == b"hello\n"
            await one.shutdown()


async def test_who_has_connected_when_a_server_stops_is_served() -> None:
    async with serve(echo, HOST, 0) as server:
        with socket.create_connection((HOST, server.port)) as client:  # and no turn of the loop in between
            server.close()
            assert server.connections == 1
            client.sendall(b"just in time\n")
            client.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(client, 100) == b"just in time\n"


async def test_who_has_connected_when_a_server_is_aborted_is_cut() -> None:
    async with serve(echo, HOST, 0) as server:
        with socket.create_connection((HOST, server.port)) as client:
            server.abort()
            assert server.connections == 0
            with pytest.raises(ConnectionResetError):
                client.recv(1)


async def test_the_limit_holds_for_those_who_are_served_at_the_end() -> None:
    async with serve(echo, HOST, 0, limit=2) as server:
        clients = [socket.create_connection((HOST, server.port)) for _ in range(3)]
        server.close()
        assert server.connections == 2
        for client in clients:
            client.close()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems round it")
async def test_the_backlog_can_be_said() -> None:
    async with listen(HOST, 0, backlog=1) as listener:
        clients = [socket.socket() for _ in range(5)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex((HOST, listener.port))
        states = [client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] for client in clients]
        assert states.count(1) == 2  # established: one more than the backlog, on this system
        for client in clients:
            client.close()


async def test_a_server_shows_where_it_listens_and_how_it_does() -> None:
    server = serve(echo, HOST, 0)
    assert repr(server) == "<Server new>"
    async with server, closed_after(asyncio.open_connection(HOST, server.port)):
        while not server.connections:
            await yield_now()
        where = f"at {HOST} port {server.port}"
        assert repr(server) == f"<Server listening {where} connections=1>"
        server.close()
        assert repr(server) == f"<Server closing {where} connections=1>"
    assert repr(server) == f"<Server closed {where} connections=0>"


@unix
async def test_a_server_at_a_path_shows_it(path: Path) -> None:
    async with serve(echo, path=path) as server:
        assert repr(server) == f"<Server listening at {path} connections=0>"


# Nonsense


@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (TypeError, "host and port, or path, or sock", {}),
        (TypeError, "host and port, or path, or sock", {"host": HOST, "port": 0, "path": "x"}),
        (TypeError, "host and port, or path, or sock", {"port": 0, "sock": []}),
        (TypeError, "port must be", {"host": HOST}),
        (TypeError, "port must be", {"host": HOST, "port": "80"}),
        (ValueError, "host must be", {"host": "a" * 64, "port": 0}),
        (ValueError, "host must be", {"host": "a..b", "port": 0}),
        (TypeError, "path must be", {"path": 3}),
        (TypeError, "path must be", {"path": b"x"}),
        (ValueError, "path must be", {"path": ""}),
        (ValueError, "path must be", {"path": "\0abstract"}),
        (ValueError, "sock must be at least one", {"sock": []}),
        (TypeError, "sock must be", {"sock": 3}),
        (TypeError, "sock must be", {"sock": [None]}),
        (TypeError, "mode goes with path", {"host": HOST, "port": 0, "mode": 0o600}),
        (TypeError, "mode must be", {"path": "x", "mode": "600"}),
        (ValueError, "mode must be", {"path": "x", "mode": 0o1777}),
        (TypeError, "reuse_port goes with host", {"path": "x", "reuse_port": True}),
        (TypeError, "reuse_port must be", {"host": HOST, "port": 0, "reuse_port": 1}),
        (TypeError, "backlog must be", {"host": HOST, "port": 0, "backlog": "1"}),
        (ValueError, "backlog must be", {"host": HOST, "port": 0, "backlog": 0}),
        (ValueError, "backlog must be", {"host": HOST, "port": 0, "backlog": 2**31}),
    ],
)
@pytest.mark.parametrize("call", [lambda **arguments: serve(echo, **arguments), listen], ids=["serve", "listen"])
def test_nonsense_is_refused_at_the_call(
    call: Callable[..., Any], error: type[Exception], words: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(error, match=words):
        call(**arguments)


def test_a_socket_that_cannot_be_listened_on_is_refused_at_the_call() -> None:
    closed = socket.socket()
    closed.close()
    with socket.socket() as unbound, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        for sock, words in ((closed, "open"), (unbound, "bound"), (datagrams, "stream socket")):
            with pytest.raises(ValueError, match=f"sock must be .*{words}"):
                serve(echo, sock=sock)


async def test_a_socket_that_is_connected_is_an_error() -> None:
    with socket.create_server((HOST, 0)) as server, socket.create_connection(server.getsockname()) as client:
        with pytest.raises(OSError):
            await begun(serve(echo, sock=[server, client]))


async def test_an_unknown_host_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*args: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    with pytest.raises(socket.gaierror, match=r"cannot listen on 'nobody\.invalid'") as refused:
        await begun(serve(echo, "nobody.invalid", 0))
    assert refused.value.errno == socket.EAI_NONAME
