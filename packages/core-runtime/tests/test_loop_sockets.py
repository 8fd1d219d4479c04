"""Receiving on our event loop: what asyncio gives, and nothing is lost when the receiver is cancelled."""

from __future__ import annotations

import asyncio
import socket
import ssl
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from yamanote.runtime import EventLoop, run

Receive = Callable[[asyncio.AbstractEventLoop, socket.socket], Awaitable[object]]


async def into(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes:
    buffer = bytearray(10)
    return bytes(buffer[: await loop.sock_recv_into(sock, buffer)])


async def with_sender(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes:
    return (await loop.sock_recvfrom(sock, 10))[0]


async def into_with_sender(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes:
    buffer = bytearray(10)
    size, _ = await loop.sock_recvfrom_into(sock, buffer)
    return bytes(buffer[:size])


each_receive = pytest.mark.parametrize(
    "receive",
    [lambda loop, sock: loop.sock_recv(sock, 10), into, with_sender, into_with_sender],
    ids=["recv", "recv_into", "recvfrom", "recvfrom_into"],
)


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


def on_the_loop(main: Callable[[], Coroutine[Any, Any, None]], **options: Any) -> None:
    run(main(), loop_factory=EventLoop, **options)


@each_receive
def test_what_is_there_is_received_at_once_and_what_comes_later_when_it_comes(receive: Receive) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pair() as (ours, theirs):
            theirs.send(b"now")
            assert await receive(loop, ours) == b"now"
            receiving = asyncio.ensure_future(receive(loop, ours))
            await asyncio.sleep(0)
            theirs.send(b"later")
            assert await receiving == b"later"
            assert not loop.remove_reader(ours)

    on_the_loop(main)


@each_receive
def test_what_has_come_for_a_receiver_that_is_cancelled_meanwhile_goes_to_the_next(receive: Receive) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with pair() as (ours, theirs):
            for turns in range(6):
                receiving = loop.create_task(receive(loop, ours))
                await asyncio.sleep(0)
                theirs.send(b"hello")
                for _ in range(turns):
                    loop.call_later(0, int)  # so that the loop polls after this turn
                    await asyncio.sleep(0)
                receiving.cancel()
                try:
                    assert await receiving == b"hello"
                except CancelledError:
                    assert await receive(loop, ours) == b"hello"
                assert not loop.remove_reader(ours)

    on_the_loop(main)


def test_a_connection_for_an_acceptor_that_is_cancelled_meanwhile_goes_to_the_next() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            for turns in range(6):
                accepting = loop.create_task(loop.sock_accept(server))
                await asyncio.sleep(0)
                with socket.create_connection(server.getsockname()) as client:
                    for _ in range(turns):
                        loop.call_later(0, int)
                        await asyncio.sleep(0)
                    accepting.cancel()
                    try:
                        connection, address = await accepting
                    except CancelledError:
                        connection, address = await loop.sock_accept(server)
                    with connection:
                        assert address == client.getsockname()
                        assert connection.gettimeout() == 0

    on_the_loop(main)


@each_receive
def test_the_end_and_an_error_are_received(receive: Receive) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pair() as (ours, theirs):
            receiving = asyncio.ensure_future(receive(loop, ours))
            await asyncio.sleep(0)
            theirs.close()
            assert await receiving == b""
        with pytest.raises(OSError, match="Bad file descriptor"):
            await receive(loop, ours)

    on_the_loop(main)


def test_the_reader_of_somebody_who_came_later_is_left_alone() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pair() as (ours, _):
            receiving = loop.create_task(loop.sock_recv(ours, 10))
            await asyncio.sleep(0)
            loop.add_reader(ours, int)
            receiving.cancel()
            await asyncio.wait([receiving])
            assert loop.remove_reader(ours)

    on_the_loop(main)


@each_receive
def test_who_waits_for_writing_is_not_disturbed_by_who_receives(receive: Receive) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pair() as (ours, theirs):
            written = asyncio.Event()
            for first in ("writer", "reader"):
                if first == "writer":
                    loop.add_writer(ours, written.set)
                receiving = asyncio.ensure_future(receive(loop, ours))
                await asyncio.sleep(0)
                if first == "reader":
                    loop.add_writer(ours, written.set)
                await written.wait()
                theirs.send(b"hello")
                assert await receiving == b"hello"
                written.clear()
                await written.wait()
                assert loop.remove_writer(ours) and not loop.remove_reader(ours)
                written.clear()

    on_the_loop(main)


@each_receive
def test_a_socket_that_blocks_is_refused_in_debug_mode_and_one_of_tls_always(receive: Receive) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pair() as (ours, theirs):
            ours.setblocking(True)
            with pytest.raises(ValueError, match="must be non-blocking"):
                await receive(loop, ours)
            context = ssl.create_default_context()
            with context.wrap_socket(theirs, do_handshake_on_connect=False, server_hostname="here") as wrapped:
                with pytest.raises(TypeError, match="SSLSocket"):
                    await receive(loop, wrapped)

    on_the_loop(main, debug=True)


def test_many_conversations_at_once() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def echo(sock: socket.socket) -> None:
            while data := await loop.sock_recv(sock, 1024):
                await loop.sock_sendall(sock, data)

        async def talk(number: int) -> None:
            with pair() as (ours, theirs):
                echoing = loop.create_task(echo(theirs))
                for word in range(20):
                    message = b"%d says %d" % (number, word)
                    await loop.sock_sendall(ours, message)
                    assert await loop.sock_recv(ours, 1024) == message
                ours.shutdown(socket.SHUT_WR)
                await echoing

        await asyncio.gather(*map(talk, range(16)))

    on_the_loop(main)
