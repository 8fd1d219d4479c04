"""Names: looking them up without stopping the loop.

Invariant: what needs no file and no network is answered at once; everything else is asked in a thread.
"""

from __future__ import annotations

import socket as standard
from socket import AF_INET, AF_INET6, SOCK_DGRAM, AddressFamily, SocketKind
from typing import TYPE_CHECKING, Any, TypeAlias

from yamanote.runtime import spawn_blocking

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = [
    "Address",
    "getaddrinfo",
    "getfqdn",
    "gethostbyaddr",
    "gethostbyname",
    "gethostbyname_ex",
    "getnameinfo",
    "resolve",
]

Address: TypeAlias = "tuple[Any, ...] | str | ReadableBuffer"
"""What an address looks like depends on the family."""
_Found: TypeAlias = (
    "tuple[AddressFamily, SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]"
)

_NUMERIC = standard.AI_NUMERICHOST | standard.AI_NUMERICSERV


async def getaddrinfo(
    host: bytes | str | None,
    port: bytes | str | int | None,
    family: int = 0,
    type: int = 0,
    proto: int = 0,
    flags: int = 0,
) -> list[_Found]:
    """Return the addresses that `host` and `port` stand for, as `socket.getaddrinfo` does.

    Numbers are answered at once; names are looked up in a thread of the blocking pool. Raises `gaierror` if there are
    none.

    **Cancel safety:** nothing to lose; the thread goes on until it has its answer.

    >>> async def example():
    ...     return [found[4] for found in await socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)]
    >>> run(example())
    [('127.0.0.1', 80)]
    """
    if flags & _NUMERIC != _NUMERIC:
        try:
            return list(standard.getaddrinfo(host, port, family, type, proto, flags | _NUMERIC))
        except standard.gaierror:
            pass  # a name, or nonsense: the error of the real question is the one to raise
    found = await spawn_blocking(standard.getaddrinfo, host, port, family, type, proto, flags)
    return list(found)


async def getnameinfo(
    sockaddr: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes], flags: int
) -> tuple[str, str]:
    """Return the names of a host and a port, as `socket.getnameinfo` does, looked up in a thread.

    >>> run(socket.getnameinfo(("127.0.0.1", 9), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV))
    ('127.0.0.1', '9')
    """
    return await spawn_blocking(standard.getnameinfo, sockaddr, flags)


async def gethostbyname(hostname: str) -> str:
    """Return the IPv4 address of a host, as `socket.gethostbyname` does, looked up in a thread.

    >>> run(socket.gethostbyname("127.0.0.1"))
    '127.0.0.1'
    """
    return await spawn_blocking(standard.gethostbyname, hostname)


async def gethostbyname_ex(hostname: str) -> tuple[str, list[str], list[str]]:
    """Return name, aliases and IPv4 addresses of a host, as `socket.gethostbyname_ex` does, looked up in a thread.

    >>> run(socket.gethostbyname_ex("127.0.0.1"))
    ('127.0.0.1', [], ['127.0.0.1'])
    """
    return await spawn_blocking(standard.gethostbyname_ex, hostname)


async def gethostbyaddr(ip_address: str) -> tuple[str, list[str], list[str]]:
    """Return name, aliases and addresses of a host, as `socket.gethostbyaddr` does, looked up in a thread."""
    return await spawn_blocking(standard.gethostbyaddr, ip_address)


async def getfqdn(name: str = "") -> str:
    """Return the fully qualified name of a host, by default of this one, as `socket.getfqdn` does; in a thread."""
    return await spawn_blocking(standard.getfqdn, name)


async def resolve(socket: standard.socket, address: Address) -> Address:
    """Return `address` with a number in place of a host's name, which the system would look up itself, and block.

    What is no such address is returned as it is: the system knows better what is wrong with it.
    """
    if not isinstance(address, tuple) or len(address) < 2:
        return address
    host, port, *rest = address
    if isinstance(host, bytes | bytearray):
        host = host.decode("ascii", "replace")
    if not isinstance(host, str) or not isinstance(port, int) or _is_plain(host):
        return address
    family = socket.family
    if family not in (AF_INET, AF_INET6):
        return address
    # Of any type: what is asked for is a host, and there are sockets whose types know no ports.
    found = (await getaddrinfo(host, port, family, SOCK_DGRAM))[0][4]
    # An IPv6 address ends with a flow and a scope. Its host may name the scope, too: "fe80::1%eth0".
    return (*found[:2], *rest[:1], *(rest[1:] or found[3:])) if rest else found


def _is_plain(host: str) -> bool:
    """Whether there is nothing to look up."""
    if host in ("", "<broadcast>"):
        return True
    try:
        standard.inet_pton(AF_INET6 if ":" in host else AF_INET, host)
    except (OSError, ValueError):
        return False
    return True
