"""Sockets that are made, bound, connected or passed on in one call."""

from __future__ import annotations

import socket as standard
import sys
from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, SupportsIndex

from yamanote.net._names import Address, getaddrinfo, resolve
from yamanote.net._socket import adopt, socket

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = [
    "create_connection",
    "create_server",
    "from_stdlib_socket",
    "fromfd",
    "socketpair",
]


def socketpair(family: int | None = None, type: int = standard.SOCK_STREAM, proto: int = 0) -> tuple[socket, socket]:
    """Return two sockets that are connected to each other: Unix sockets where there are such.

    >>> async def example():
    ...     ours, theirs = socket.socketpair()
    ...     with ours, theirs:
    ...         await ours.send(b"ping")
    ...         return await theirs.recv(10)
    >>> run(example())
    b'ping'
    """
    if family is None:  # which is not the default everywhere
        one, other = standard.socketpair(type=type, proto=proto)
    else:
        one, other = standard.socketpair(family, type, proto)
    return adopt(one), adopt(other)


def fromfd(fd: SupportsIndex, family: int, type: int, proto: int = 0) -> socket:
    """Return a socket for a duplicate of the descriptor `fd`. Changes the original to non-blocking as well."""
    return adopt(standard.fromfd(fd, family, type, proto))


def from_stdlib_socket(sock: standard.socket) -> socket:
    """Return a socket of ours for a standard one, which must not be used by itself from now on.

    Raises TypeError for what only looks like one, such as an `ssl.SSLSocket`.

    >>> import socket as standard
    >>> with socket.from_stdlib_socket(standard.socket()) as ours:
    ...     ours.getblocking()
    False
    """
    if type(sock) is not standard.socket:
        raise TypeError(f"sock must be a plain socket.socket, not {type(sock).__name__}")
    return adopt(sock)


async def create_connection(
    address: tuple[str | None, int], *, source_address: Address | None = None, all_errors: bool = False
) -> socket:
    """Return a TCP socket that is connected to `address`: a host and a port.

    The addresses of the host are tried one after the other. When all fail, raises the last error, or with `all_errors`
    a group of all. `source_address` is what to bind to before. For a time limit, put one around the call.

    **Cancel safety:** the socket is closed.

    >>> async def example():
    ...     async with await socket.create_server(("127.0.0.1", 0)) as server:
    ...         async with await socket.create_connection(server.getsockname()) as client:
    ...             connection, address = await server.accept()
    ...             with connection:
    ...                 return address == client.getsockname()
    >>> run(example())
    True
    """
    host, port = address
    errors: list[OSError] = []
    try:
        for family, type, proto, _, found in await getaddrinfo(host, port, type=standard.SOCK_STREAM):
            try:
                return await _connect(socket(family, type, proto), source_address, found)
            except OSError as error:
                errors.append(error)
        if not errors:
            raise OSError(f"no addresses were found for {address!r}")
        if all_errors:
            raise ExceptionGroup(f"no connection to {address!r}", errors)
        raise errors[-1]
    finally:
        errors.clear()  # their tracebacks refer to this frame


async def _connect(sock: socket, source_address: Address | None, address: Address) -> socket:
    try:
        if source_address is not None:
            await sock.bind(source_address)
        await sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


async def create_server(
    address: tuple[str, int],
    *,
    family: int = standard.AF_INET,
    backlog: int | None = None,
    reuse_port: bool = False,
    dualstack_ipv6: bool = False,
) -> socket:
    """Return a TCP socket that listens on `address`: a host and a port. The options are those of the standard function.

    **Cancel safety:** nothing is left open.

    >>> async def example():
    ...     with await socket.create_server(("127.0.0.1", 0)) as server:
    ...         return server.getsockname()[0]
    >>> run(example())
    '127.0.0.1'
    """
    with standard.socket(family) as asking:
        target: Any = await resolve(asking, address)
    return adopt(
        standard.create_server(
            target, family=family, backlog=backlog, reuse_port=reuse_port, dualstack_ipv6=dualstack_ipv6
        )
    )


if sys.platform == "win32":
    __all__ += ["fromshare"]

    def fromshare(info: bytes) -> socket:
        """Return the socket that another process has shared with `socket.share`."""
        return adopt(standard.fromshare(info))

else:
    __all__ += ["recv_fds", "send_fds"]

    async def send_fds(
        sock: socket,
        buffers: Iterable[ReadableBuffer],
        fds: Iterable[int],
        flags: int = 0,
        address: Address | None = None,
    ) -> int:
        """Send descriptors over a Unix socket, along with `buffers`; return how many bytes of those.

        **Cancel safety:** nothing is sent.

        >>> async def example():
        ...     ours, theirs = socket.socketpair()
        ...     with ours, theirs:
        ...         await socket.send_fds(ours, [b"yours"], [ours.fileno()])
        ...         data, fds, flags, address = await socket.recv_fds(theirs, 100, 1)
        ...         with socket.socket(fileno=fds[0]) as the_same:
        ...             await the_same.send(b"hello")
        ...         return data, await theirs.recv(100)
        >>> run(example())
        (b'yours', b'hello')
        """
        rights = (standard.SOL_SOCKET, standard.SCM_RIGHTS, array("i", fds))
        return await sock.sendmsg(buffers, [rights], flags, address)

    async def recv_fds(sock: socket, bufsize: int, maxfds: int, flags: int = 0) -> tuple[bytes, list[int], int, Any]:
        """Receive up to `bufsize` bytes and `maxfds` descriptors: return the bytes, the descriptors, flags and address.

        The descriptors are yours to close.

        **Cancel safety:** nothing is taken.
        """
        fds = array("i")
        space = standard.CMSG_LEN(maxfds * fds.itemsize)
        data, ancillary, flags, address = await sock.recvmsg(bufsize, space, flags)
        for level, kind, content in ancillary:
            if (level, kind) == (standard.SOL_SOCKET, standard.SCM_RIGHTS):
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        return data, list(fds), flags, address
