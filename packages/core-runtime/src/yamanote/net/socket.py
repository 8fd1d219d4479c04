"""The module `socket` of the standard library, with coroutines for what blocks.

Everything that the standard module has is here under its own name. Constants, errors and functions such as
`inet_aton` are the same objects; of our own are the class `socket`, what makes sockets, and what looks up names.
`setdefaulttimeout` is left out: no socket of ours blocks.

>>> async def echo(connection):
...     with connection:
...         while data := await connection.recv(4096):
...             await connection.sendall(data)
>>> async def example():
...     with await socket.create_server(("127.0.0.1", 0)) as server:
...         with await socket.create_connection(server.getsockname()) as client:
...             connection, _ = await server.accept()
...             echoing = asyncio.create_task(echo(connection))
...             await client.sendall(b"hello")
...             client.shutdown(socket.SHUT_WR)
...             await echoing
...             return await client.recv(100)
>>> run(example())
b'hello'
"""

from __future__ import annotations

import sys

import yamanote.net._standard as _standard
from yamanote.net._names import getaddrinfo as getaddrinfo
from yamanote.net._names import getfqdn as getfqdn
from yamanote.net._names import gethostbyaddr as gethostbyaddr
from yamanote.net._names import gethostbyname as gethostbyname
from yamanote.net._names import gethostbyname_ex as gethostbyname_ex
from yamanote.net._names import getnameinfo as getnameinfo
from yamanote.net._opening import create_connection as create_connection
from yamanote.net._opening import create_server as create_server
from yamanote.net._opening import from_stdlib_socket as from_stdlib_socket
from yamanote.net._opening import fromfd as fromfd
from yamanote.net._opening import socketpair as socketpair
from yamanote.net._socket import SocketType as SocketType
from yamanote.net._socket import socket as socket

if sys.platform == "win32":
    from yamanote.net._opening import fromshare as fromshare
else:
    from yamanote.net._opening import recv_fds as recv_fds
    from yamanote.net._opening import send_fds as send_fds

# Last, because mypy keeps what it has seen first.
from yamanote.net._standard import *  # type: ignore[assignment]  # noqa: F403

MYPY = False  # see _standard
if not MYPY:
    __all__ = [
        "SocketType",
        "create_connection",
        "create_server",
        "from_stdlib_socket",
        "fromfd",
        "getaddrinfo",
        "getfqdn",
        "gethostbyaddr",
        "gethostbyname",
        "gethostbyname_ex",
        "getnameinfo",
        "socket",
        "socketpair",
    ]
    __all__ += _standard.__all__
    if sys.platform == "win32":
        __all__ += ["fromshare"]
    else:
        __all__ += ["recv_fds", "send_fds"]
