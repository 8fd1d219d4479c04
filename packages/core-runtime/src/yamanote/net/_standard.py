"""What the standard module has and tasks can use as it is: constants, errors, conversions."""

from __future__ import annotations

import socket as standard
import sys
from socket import *  # noqa: F403  # pyright: ignore[reportWildcardImportFromLibrary]

MYPY = False  # mypy takes it for true; it follows no list that is made of another, and sees everything instead
if not MYPY:
    # One by one: Pyright follows nothing else.
    __all__ = []
    __all__ += standard.__all__
    __all__.remove("SocketType")
    __all__.remove("create_connection")
    __all__.remove("create_server")
    __all__.remove("fromfd")
    __all__.remove("getaddrinfo")
    __all__.remove("getfqdn")
    __all__.remove("gethostbyaddr")
    __all__.remove("gethostbyname")
    __all__.remove("gethostbyname_ex")
    __all__.remove("getnameinfo")
    __all__.remove("socket")
    __all__.remove("socketpair")
    if sys.platform == "win32":
        __all__.remove("fromshare")
    else:
        __all__.remove("recv_fds")
        __all__.remove("send_fds")
    # They say how sockets block that are made later, and ours do not.
    __all__.remove("getdefaulttimeout")
    __all__.remove("setdefaulttimeout")
