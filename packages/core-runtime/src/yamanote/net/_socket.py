"""The socket: what the standard one does, and whatever may block is awaited.

Invariant: a call asks the system first and waits only when it would block; then it asks again. So a call that was
cancelled while it waited has done nothing, but for the two that take several steps, `connect` and `sendall`.
"""

from __future__ import annotations

import os
import socket as standard
import sys
from asyncio import sleep
from collections.abc import Iterable
from errno import EAGAIN
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, SupportsIndex, overload

from yamanote.net._names import Address, resolve
from yamanote.net._readiness import READING, WRITING, Readiness, Watch, describe

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["SocketType", "adopt", "socket"]

_AF_UNIX = getattr(standard, "AF_UNIX", None)
_BACKLOG_FULL = 0.001, 0.05
"""Seconds between two looks at the backlog of a Unix socket, the first and the longest. Nothing tells of room there."""


class socket:
    """A socket of the system, for tasks. The arguments are those of the standard `socket.socket`.

    Its methods are those of the standard class. What may block is a coroutine: it completes at once when the system is
    ready, and waits otherwise. It works on every event loop that watches descriptors: that of `run`, asyncio's selector
    loop, uvloop.

    One task at a time may wait for each direction; what a second one calls meanwhile raises RuntimeError and changes
    nothing. `close` ends the wait: it raises OSError, with the number EBADF as any call on a closed socket.

    **Cancel safety:** a call that is cancelled has received or sent nothing; see `connect` and `sendall`.

    **Threads:** a socket belongs to no loop; the two directions may be used on two. `close` may be called from any
    thread.

    Close it, or use it in a `with` or an `async with`. One that is dropped open emits ResourceWarning.

    >>> async def example():
    ...     ours, theirs = socket.socketpair()
    ...     with ours, theirs:
    ...         await ours.sendall(b"hello")
    ...         return await theirs.recv(100)
    >>> run(example())
    b'hello'
    """

    __slots__ = ("__weakref__", "_readiness", "_sent", "_socket")

    def __init__(
        self, family: int = -1, type: int = -1, proto: int = -1, fileno: SupportsIndex | bytes | None = None
    ) -> None:
        # The bytes are what `share` gives on Windows; typeshed does not know them.
        self._wrap(standard.socket(family, type, proto, fileno))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    def _wrap(self, inner: standard.socket) -> None:
        inner.setblocking(False)
        self._socket = inner
        self._readiness = Readiness(inner)
        self._sent = 0

    def __repr__(self) -> str:
        return describe(self._socket)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------ connections

    async def bind(self, address: Address, /) -> None:
        """Bind to a local address; a name in it is looked up in a thread.

        **Cancel safety:** it is bound, or not: `getsockname` tells.
        """
        self._socket.bind(await resolve(self._socket, address))

    def listen(self, backlog: int | None = None, /) -> None:
        """Begin to take connections; `backlog` is how many may wait for `accept`."""
        if backlog is None:
            self._socket.listen()
        else:
            self._socket.listen(backlog)

    async def accept(self) -> tuple[socket, Any]:
        """Return the next connection, and the address of its other end.

        Raises OSError when the process has no descriptor left (EMFILE); the connection stays in the backlog.

        **Cancel safety:** the connection goes to the next who accepts.
        """
        inner, address = await self._readiness.call(READING, self._socket.accept)
        return adopt(inner), address

    async def connect(self, address: Address, /) -> None:
        """Connect to an address; a name in it is looked up in a thread.

        Raises OSError (ConnectionRefusedError …) where the standard method does.

        **Cancel safety:** a cancelled call has not begun to connect, or has closed the socket: what has begun cannot
        be taken back.
        """
        address = await resolve(self._socket, address)
        await self._readiness.give_way()
        watch = self._readiness.claim(WRITING)
        try:
            shortest, longest = _BACKLOG_FULL
            while True:
                try:
                    self._socket.connect(address)
                    return
                except BlockingIOError as error:
                    if self._socket.family != _AF_UNIX or error.errno != EAGAIN:
                        break
                await sleep(shortest)
                shortest = min(2 * shortest, longest)
            await self._finish_connecting(watch, address)
        finally:
            self._readiness.release(watch)

    async def _finish_connecting(self, watch: Watch, address: Address) -> None:
        try:
            await self._readiness.ready(watch)
        except BaseException:
            self.close()
            raise
        number = self._socket.getsockopt(standard.SOL_SOCKET, standard.SO_ERROR)
        if number:
            raise OSError(number, f"{os.strerror(number)}: {address!r}")

    async def connect_ex(self, address: Address, /) -> int:
        """Like `connect`, but return the number of the error that the system has given, or 0."""
        try:
            await self.connect(address)
        except standard.gaierror:
            raise
        except OSError as error:
            if error.errno is None:
                raise
            return error.errno
        return 0

    def shutdown(self, how: int, /) -> None:
        """Shut down one half of the connection, or both: SHUT_RD, SHUT_WR, SHUT_RDWR."""
        self._socket.shutdown(how)

    def close(self) -> None:
        """Close the socket. A task that waits for it gets OSError (EBADF). Closing twice is fine.

        May be called from any thread. Where a task on another loop waits, that loop is told, and the descriptor goes
        back to the system as soon as it has let go of it.
        """
        self._readiness.close()

    def detach(self) -> int:
        """Close this object without closing the connection, and return its descriptor; -1 if it was closed.

        A task that waits gets OSError (EBADF). May be called from any thread. Where another event loop has still to let
        go of the descriptor, a duplicate is returned, so that nobody is mistaken for somebody else.
        """
        return self._readiness.detach()

    # ------------------------------------------------------------------ receiving

    async def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Return up to `bufsize` bytes; none at the end of the stream.

        **Cancel safety:** nothing is taken.
        """
        return await self._readiness.call(READING, self._socket.recv, bufsize, flags)

    async def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """Receive into `buffer`, at most `nbytes` or as much as it holds; return how many bytes.

        **Cancel safety:** nothing is taken.
        """
        return await self._readiness.call(READING, self._socket.recv_into, buffer, nbytes, flags)

    async def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """Return up to `bufsize` bytes and who sent them.

        **Cancel safety:** nothing is taken.
        """
        return await self._readiness.call(READING, self._socket.recvfrom, bufsize, flags)

    async def recvfrom_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """Like `recv_into`; return how many bytes and who sent them.

        **Cancel safety:** nothing is taken.
        """
        return await self._readiness.call(READING, self._socket.recvfrom_into, buffer, nbytes, flags)

    if sys.platform != "win32":

        async def recvmsg(
            self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
        ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
            """Return up to `bufsize` bytes, ancillary data, flags and who sent them.

            **Cancel safety:** nothing is taken.
            """
            return await self._readiness.call(READING, self._socket.recvmsg, bufsize, ancbufsize, flags)

        async def recvmsg_into(
            self, buffers: Iterable[WriteableBuffer], ancbufsize: int = 0, flags: int = 0, /
        ) -> tuple[int, list[tuple[int, int, bytes]], int, Any]:
            """Like `recvmsg`, into several buffers; return how many bytes, and the rest.

            **Cancel safety:** nothing is taken.
            """
            # A list: an iterator would be used up by the first of two attempts.
            return await self._readiness.call(READING, self._socket.recvmsg_into, list(buffers), ancbufsize, flags)

    # ------------------------------------------------------------------ sending

    async def send(self, data: ReadableBuffer, flags: int = 0, /) -> int:
        """Send as much as the system takes now; return how many bytes.

        **Cancel safety:** nothing is sent.
        """
        sent = await self._readiness.call(WRITING, self._socket.send, data, flags)
        self._sent += sent
        return sent

    async def sendall(self, data: ReadableBuffer, flags: int = 0, /) -> None:
        """Send all of `data`. No other task can send in between: it gets RuntimeError.

        **Cancel safety:** a cancelled call may have sent a part, as may one that fails; `sent` tells how much.
        """
        send = self._socket.send
        watch = self._readiness.claim(WRITING)
        try:
            with memoryview(data) as view, view.cast("B") as rest:
                done = 0
                while True:
                    await self._readiness.give_way()
                    try:
                        sent = send(rest[done:] if done else rest, flags)
                    except BlockingIOError:
                        await self._readiness.ready(watch)
                        continue
                    done += sent
                    self._sent += sent
                    if done == len(rest):
                        return
        finally:
            self._readiness.release(watch)

    @property
    def sent(self) -> int:
        """Bytes that `send` and `sendall` have passed to the system so far.

        >>> async def example():
        ...     ours, theirs = socket.socketpair()
        ...     with ours, theirs:
        ...         before, data = ours.sent, bytes(10_000_000)
        ...         sending = asyncio.create_task(ours.sendall(data))
        ...         await theirs.recv(1)
        ...         sending.cancel()
        ...         await asyncio.wait([sending])
        ...         rest = data[ours.sent - before :]
        ...         return 0 < len(rest) < len(data)
        >>> run(example())
        True
        """
        return self._sent

    @overload
    async def sendto(self, data: ReadableBuffer, address: Address, /) -> int: ...
    @overload
    async def sendto(self, data: ReadableBuffer, flags: int, address: Address, /) -> int: ...
    async def sendto(self, data: ReadableBuffer, flags: Any, address: Address | None = None, /) -> int:
        """Send a datagram to an address; a name in it is looked up in a thread. Returns how many bytes.

        **Cancel safety:** nothing is sent.
        """
        target: Any = address
        if address is None:
            flags, target = 0, flags
        target = await resolve(self._socket, target)
        return await self._readiness.call(WRITING, self._send_to, data, flags, target)

    def _send_to(self, data: ReadableBuffer, flags: int, address: Address) -> int:
        return self._socket.sendto(data, flags, address)

    if sys.platform != "win32":

        async def sendmsg(
            self,
            buffers: Iterable[ReadableBuffer],
            ancdata: Iterable[tuple[int, int, ReadableBuffer]] = (),
            flags: int = 0,
            address: Address | None = None,
            /,
        ) -> int:
            """Send several buffers as one, with ancillary data; return how many bytes.

            **Cancel safety:** nothing is sent.
            """
            target: Any = None if address is None else await resolve(self._socket, address)
            # Lists: an iterator would be used up by the first of two attempts.
            return await self._readiness.call(
                WRITING, self._socket.sendmsg, list(buffers), list(ancdata), flags, target
            )

    # ------------------------------------------------------------------ what never blocks

    @property
    def family(self) -> int:
        """The family of its addresses, such as AF_INET."""
        return self._socket.family

    @property
    def type(self) -> int:
        """SOCK_STREAM, SOCK_DGRAM …"""
        return self._socket.type

    @property
    def proto(self) -> int:
        """The protocol, mostly 0."""
        return self._socket.proto

    def fileno(self) -> int:
        """Return the descriptor, or -1 when it is closed."""
        return self._socket.fileno()

    def dup(self) -> socket:
        """Return another socket for the same connection, with a descriptor of its own."""
        return adopt(self._socket.dup())

    def getsockname(self) -> Any:
        """Return the address of this end."""
        return self._socket.getsockname()

    def getpeername(self) -> Any:
        """Return the address of the other end. Raises OSError when it is not connected."""
        return self._socket.getpeername()

    @overload
    def getsockopt(self, level: int, optname: int, /) -> int: ...
    @overload
    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...
    def getsockopt(self, level: int, optname: int, buflen: int = 0, /) -> int | bytes:
        """Return an option, as a number or as `buflen` bytes."""
        return self._socket.getsockopt(level, optname, buflen)

    @overload
    def setsockopt(self, level: int, optname: int, value: int | ReadableBuffer, /) -> None: ...
    @overload
    def setsockopt(self, level: int, optname: int, value: None, optlen: int, /) -> None: ...
    def setsockopt(self, level: int, optname: int, value: Any, *optlen: int) -> None:
        """Set an option."""
        self._socket.setsockopt(level, optname, value, *optlen)

    def get_inheritable(self) -> bool:
        """Return whether programs that this one starts get the descriptor."""
        return self._socket.get_inheritable()

    def set_inheritable(self, inheritable: bool, /) -> None:
        """Say whether programs that this one starts get the descriptor."""
        self._socket.set_inheritable(inheritable)

    if sys.platform == "win32":

        def ioctl(self, control: int, option: int | tuple[int, int, int] | bool, /) -> None:
            """Control the socket in ways that only Windows has."""
            self._socket.ioctl(control, option)

        def share(self, process_id: int, /) -> bytes:
            """Return what `fromshare` needs to make this socket in another process."""
            return self._socket.share(process_id)

    # ------------------------------------------------------------------ what is not for tasks

    def getblocking(self) -> bool:
        """Return False: no call stops the loop."""
        return False

    def gettimeout(self) -> float:
        """Return 0.0, as a socket does that never blocks."""
        return 0.0

    def setblocking(self, flag: bool, /) -> None:
        """Do nothing for false. Raises ValueError for true: a task waits without blocking."""
        if flag:
            raise ValueError("flag must be false: the methods of this socket wait without blocking the loop")

    def settimeout(self, value: float | None, /) -> None:
        """Do nothing for 0. Raises ValueError for anything else: a time limit goes around a call."""
        if value != 0:
            raise ValueError("value must be 0: put a time limit around the call, with asyncio.timeout or move_on_after")


def adopt(inner: standard.socket) -> socket:
    """A socket of ours around a standard one."""
    made = socket.__new__(socket)
    made._wrap(inner)
    return made


SocketType = socket
