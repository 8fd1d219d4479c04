"""Where to listen: a host and a port, a path, or sockets that are there already.

Invariant: what is wrong with the arguments is found when they are given; what is wrong with the machine, when it is
bound.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterable

from yamanote.server._bind import bind_tcp
from yamanote.server._bound import Bound
from yamanote.server._given import bind_given
from yamanote.server._unix import bind_unix

__all__ = ["BACKLOG", "Endpoint", "require_tls"]

BACKLOG = 1024
"""How many connections the kernel keeps until they are accepted; it takes less where its own limit is lower."""


class Endpoint:
    """One of the three, to be bound once, or again."""

    __slots__ = ("_backlog", "_host", "_mode", "_path", "_port", "_reuse_port", "_sockets")

    def __init__(
        self,
        host: str | None,
        port: int | None,
        path: str | os.PathLike[str] | None,
        sock: socket.socket | Iterable[socket.socket] | None,
        *,
        reuse_port: bool,
        mode: int | None,
        backlog: int,
    ) -> None:
        self._host = self._port = self._path = self._sockets = None
        places = [host is not None or port is not None, path is not None, sock is not None]
        if sum(places) != 1:
            raise TypeError("give one place to listen on: either host and port, or path, or sock")
        if path is not None:
            self._path = _require_path(path)
        elif sock is not None:
            self._sockets = _require_sockets(sock)
        else:
            self._host = _require_host(host)
            self._port = _require_port(port)
        if not isinstance(reuse_port, bool):
            raise TypeError(f"reuse_port must be true or false, not {reuse_port!r}")
        if reuse_port and self._port is None:
            raise TypeError("reuse_port goes with host and port only")
        if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
            raise ValueError("reuse_port is not supported by this system")
        if mode is not None and self._path is None:
            raise TypeError("mode goes with path only")
        if mode is not None and (isinstance(mode, bool) or not isinstance(mode, int)):
            raise TypeError(f"mode must be the permissions of a file as an integer, or None, not {mode!r}")
        if mode is not None and not 0 <= mode <= 0o777:
            raise ValueError(f"mode must be between 0 and 0o777, not {mode}")
        if isinstance(backlog, bool) or not isinstance(backlog, int):
            raise TypeError(f"backlog must be an integer, not {backlog!r}")
        if not 1 <= backlog <= 0x7FFFFFFF:
            raise ValueError(f"backlog must be at least 1, and an integer of the system, not {backlog}")
        self._reuse_port = reuse_port
        self._mode = mode
        self._backlog = backlog

    async def bind(self) -> Bound:
        """Listen. Raises OSError if that cannot be had; then nothing is left open."""
        if self._sockets is not None:
            return bind_given(self._sockets, self._backlog)
        if self._path is not None:
            return await bind_unix(self._path, self._mode, self._backlog)
        return await bind_tcp(self._host, self._port or 0, self._backlog, self._reuse_port)


def require_tls(tls: ssl.SSLContext | None) -> ssl.SSLContext | None:
    """Return what can be the TLS settings of a server."""
    if tls is not None and not isinstance(tls, ssl.SSLContext):
        raise TypeError(f"tls must be an ssl.SSLContext, not {tls!r}")
    if tls is not None and tls.protocol == ssl.PROTOCOL_TLS_CLIENT:
        raise ValueError("tls is a context for clients: make it with ssl.create_default_context(Purpose.CLIENT_AUTH)")
    return tls


def _require_host(host: str | None) -> str | None:
    if host is not None and not isinstance(host, str):
        raise TypeError(f"host must be a string or None, not {host!r}")
    if host == "":
        raise ValueError("host is empty: say None to listen on all interfaces")
    if host is not None:
        try:
            host.encode("idna")
        except UnicodeError as error:
            raise ValueError(f"host must be a name or an address, not {host!r}: {error}") from None
    return host


def _require_port(port: int | None) -> int:
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"port must be an integer, not {port!r}")
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be between 0 and 65535, not {port}")
    return port


def _require_path(path: str | os.PathLike[str]) -> str:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be a string or a path, not {path!r}")
    name = os.fspath(path)
    if not isinstance(name, str):
        raise TypeError(f"path must be a string or a path of strings, not {path!r}")
    if not name or "\0" in name:
        raise ValueError(f"path must be the name of a file, not {name!r}")
    return name


def _require_sockets(sock: socket.socket | Iterable[socket.socket]) -> tuple[socket.socket, ...]:
    if not isinstance(sock, Iterable):
        sock = (sock,)
    sockets = tuple(sock)
    if not sockets:
        raise ValueError("sock must be at least one socket, not an empty list")
    for each in sockets:
        if not isinstance(each, socket.socket) or isinstance(each, ssl.SSLSocket):
            raise TypeError(f"sock must be a plain socket.socket, or several, not {each!r}")
        if each.fileno() < 0:
            raise ValueError("sock must be open, but it is closed")
        if each.type != socket.SOCK_STREAM:
            raise ValueError(f"sock must be a stream socket, not {each!r}")
        name = each.getsockname()
        if not name or (isinstance(name, tuple) and name[1] == 0):
            raise ValueError(f"sock must be bound to an address, not {each!r}")
    return sockets
