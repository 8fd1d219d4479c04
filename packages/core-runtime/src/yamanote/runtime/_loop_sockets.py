"""Receiving from sockets without losing what has come.

Invariant: what is taken from a socket is returned to the caller. asyncio's loop reads as soon as something is there,
and wakes the task with it; if that is cancelled meanwhile, it is lost. Here a task is woken to read for itself.
"""

from __future__ import annotations

import asyncio
from asyncio import Future, Handle
from asyncio.base_events import _check_ssl_socket  # type: ignore[attr-defined]
from collections.abc import Callable
from selectors import EVENT_READ, BaseSelector
from socket import socket
from typing import TYPE_CHECKING, Any, TypeVar

__all__ = ["ReceivingLoop"]

T = TypeVar("T")

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class ReceivingLoop(asyncio.SelectorEventLoop):
    """The part of our event loop that receives from sockets."""

    # These are asyncio's, and not in its public types.
    _debug: bool
    _selector: BaseSelector
    _ensure_fd_no_transport: Callable[[int], None]
    _add_reader: Callable[..., Handle]
    _remove_reader: Callable[[int], bool]

    async def sock_recv(self, sock: socket, n: int) -> bytes:
        """As in asyncio. **Cancel safety**: nothing is lost."""
        return await self._receive(sock, sock.recv, n)

    async def sock_recv_into(self, sock: socket, buf: WriteableBuffer) -> int:
        """As in asyncio. **Cancel safety**: nothing is lost."""
        return await self._receive(sock, sock.recv_into, buf)

    async def sock_recvfrom(self, sock: socket, bufsize: int) -> tuple[bytes, Any]:
        """As in asyncio. **Cancel safety**: nothing is lost."""
        return await self._receive(sock, sock.recvfrom, bufsize)

    async def sock_recvfrom_into(self, sock: socket, buf: WriteableBuffer, nbytes: int = 0) -> tuple[int, Any]:
        """As in asyncio. **Cancel safety**: nothing is lost."""
        return await self._receive(sock, sock.recvfrom_into, buf, nbytes)

    async def sock_accept(self, sock: socket) -> tuple[socket, Any]:
        """As in asyncio. **Cancel safety**: the connection goes to the next who accepts."""
        connection, address = await self._receive(sock, sock.accept)
        connection.setblocking(False)
        return connection, address

    async def _receive(self, sock: socket, receive: Callable[..., T], *args: Any) -> T:
        _check_ssl_socket(sock)
        if self._debug and sock.gettimeout() != 0:
            raise ValueError("the socket must be non-blocking")
        while True:
            try:
                return receive(*args)
            except (BlockingIOError, InterruptedError):
                pass
            await self._readable(sock.fileno())

    async def _readable(self, fd: int) -> None:
        """Wait until there is something to read."""
        self._ensure_fd_no_transport(fd)
        ready: Future[None] = Future(loop=self)
        handle = Handle(_wake, (ready,), self)
        try:
            self._selector.register(fd, EVENT_READ, (handle, None))  # asyncio looks first, which takes longer
        except KeyError:  # watched for writing already, or for somebody who came before
            handle = self._add_reader(fd, _wake, ready)
        try:
            await ready
        finally:
            if not handle.cancelled():  # or somebody else has it by now
                self._remove_reader(fd)


def _wake(ready: Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
