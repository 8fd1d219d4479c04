"""Listening on a host and a port.

Invariant: either every address of the host that this machine has is bound and listening, all on one port, or nothing
is left open.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Any

from yamanote.server._bound import Bound

__all__ = ["bind_tcp"]

_ATTEMPTS = 10
"""How many ports that the system chooses are tried."""


async def bind_tcp(host: str | None, port: int, backlog: int, reuse_port: bool) -> Bound:
    """Listen on every address of `host`, on all interfaces when it is None.

    With port 0 the system chooses one, the same for all addresses. Raises OSError when that cannot be had.
    """
    addresses = await _resolve(host, port)
    attempts = 1 if port else _ATTEMPTS
    while True:
        attempts -= 1
        try:
            return Bound(_listen_on_all(host, addresses, backlog, reuse_port))
        except OSError as error:
            # The system chose the port for the first address, and somebody may have it on another.
            if error.errno != errno.EADDRINUSE or not attempts:
                raise


def _listen_on_all(
    host: str | None, addresses: list[tuple[int, Any]], backlog: int, reuse_port: bool
) -> list[socket.socket]:
    listeners: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, address in addresses:
            if listeners:
                address = (address[0], listeners[0].getsockname()[1], *address[2:])
            try:
                listeners.append(_listen(family, address, backlog, reuse_port))
            except OSError as error:
                # A name may have addresses that this machine lacks, as `localhost` has ::1 where IPv6 is switched off.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                absent = error
        if not listeners:
            raise absent or OSError(errno.EADDRNOTAVAIL, f"{host!r} has no address to listen on")
        return listeners
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    finally:
        del absent  # no reference cycle with the traceback


async def _resolve(host: str | None, port: int) -> list[tuple[int, Any]]:
    passive = socket.AI_PASSIVE
    try:
        # An address in digits needs neither a name server nor a thread.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=passive | socket.AI_NUMERICHOST)
    except socket.gaierror:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=passive)
        except socket.gaierror as error:
            raise socket.gaierror(error.errno, f"cannot listen on {host!r}: {error.strerror}") from None
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _listen(family: int, address: Any, backlog: int, reuse_port: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would let two servers have one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            listener.bind(address)
            listener.listen(backlog)  # on some systems it is this that finds the port in use
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {address[0]} port {address[1]}: {error.strerror}") from None
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
