"""`listen`, and the listener that it returns.

Invariant: a connection is accepted only while somebody waits for it. It goes to the one who has waited longest; one
that comes back, because its waiter was cancelled in that very moment, goes to the next, before any newcomer.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from asyncio import _get_running_loop
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, final, overload

from yamanote.runtime import CriticalSection, Waiter, cooperative, park
from yamanote.server._acceptor import Acceptor
from yamanote.server._connection import Connection
from yamanote.server._endpoint import BACKLOG, Endpoint, require_tls

if TYPE_CHECKING:
    from yamanote.streams import Stream

__all__ = ["Listener", "listen"]

_ENTERED_ALREADY = "this listener has been entered already: call `listen` again"


@overload
def listen(
    host: str | None,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    reuse_port: bool = False,
    backlog: int = BACKLOG,
) -> Listener: ...
@overload
def listen(
    *,
    path: str | os.PathLike[str],
    mode: int | None = None,
    tls: ssl.SSLContext | None = None,
    backlog: int = BACKLOG,
) -> Listener: ...
@overload
def listen(
    *,
    sock: socket.socket | Iterable[socket.socket],
    tls: ssl.SSLContext | None = None,
    backlog: int = BACKLOG,
) -> Listener: ...
def listen(
    host: str | None = None,
    port: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    mode: int | None = None,
    sock: socket.socket | Iterable[socket.socket] | None = None,
    tls: ssl.SSLContext | None = None,
    reuse_port: bool = False,
    backlog: int = BACKLOG,
) -> Listener:
    """Listen for connections, which come one by one: `serve` for who wants to have the loop in hand.

    ``async with listen(...) as listener`` listens when the block is entered, and ``async for connection in listener``
    accepts. The arguments are those of `serve`. Who connects while nobody asks waits in the backlog of the system.

    Raises ValueError or TypeError for nonsense, at the call; OSError, when it is entered, if it cannot listen.

    >>> async def main() -> bytes:
    ...     async with listen("127.0.0.1", 0) as listener:
    ...         reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    ...         writer.write(b"hello")
    ...         writer.write_eof()
    ...         async for connection in listener:
    ...             async with connection:
    ...                 connection.writer.write((await connection.reader.read()).upper())
    ...             break
    ...         answer = await reader.read()
    ...         writer.close()
    ...         return answer
    >>> run(main())
    b'HELLO'
    """
    endpoint = Endpoint(host, port, path, sock, reuse_port=reuse_port, mode=mode, backlog=backlog)
    return Listener(endpoint, require_tls(tls))


@final
class Listener:
    """What `listen` returns: an asynchronous iterator of `Connection`, which ends when it is closed. It listens once.

    When several tasks wait, each connection goes to one of them, first in, first out; tasks of other loops can wait,
    too. It can be waited for with `park` and `select`. It needs a loop with `add_reader`; all calls but those that wait
    are for the loop on which it was entered.

    **Cancel safety:** no connection is lost when the call that waits is cancelled: the next one gets it.
    """

    __slots__ = (
        "_acceptor",
        "_addresses",
        "_arrived",
        "_closed",
        "_endpoint",
        "_left",
        "_loop",
        "_path",
        "_section",
        "_tls",
        "_waiters",
    )

    def __init__(self, endpoint: Endpoint, tls: ssl.SSLContext | None) -> None:
        self._endpoint = endpoint
        self._tls = tls
        self._acceptor: Acceptor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._addresses: tuple[tuple[str, int], ...] = ()
        self._path: str | None = None
        self._section = CriticalSection()
        self._waiters: deque[Waiter[Any]] = deque()
        self._arrived: deque[Connection] = deque()
        self._closed = False
        self._left = False

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Host and port of each TCP socket that it listens on."""
        self._started()
        return self._addresses

    @property
    def port(self) -> int:
        """The port of the first address. Raises RuntimeError if it listens on Unix sockets only."""
        if not self.addresses:
            raise RuntimeError(f"there is no port: it listens at {self._path}")
        return self._addresses[0][1]

    @property
    def path(self) -> str | None:
        """Where its Unix socket is, None if it has none."""
        self._started()
        return self._path

    def close(self) -> None:
        """Stop listening: who connects now is refused, or waits for others if the sockets were given.

        Who has connected before can still be asked for, or is waiting to be given; then the iteration ends.
        """
        acceptor = self._started()
        if not self._closed:
            acceptor.close(BACKLOG)
            with self._section:
                self._closed = True
                while self._waiters:
                    if (waiter := self._waiters.popleft()).claim():
                        waiter.fail(StopAsyncIteration())

    async def aclose(self) -> None:
        """`close`, and cut the connections that nobody has asked for. The end of the block does the same."""
        self._leave()

    async def __aenter__(self) -> Listener:
        if self._loop is not None:
            raise RuntimeError(_ENTERED_ALREADY)
        bound = await self._endpoint.bind()
        if self._loop is not None:  # by somebody else meanwhile
            bound.close()
            raise RuntimeError(_ENTERED_ALREADY)
        self._loop = asyncio.get_running_loop()
        self._addresses = bound.addresses
        self._path = bound.path
        self._acceptor = Acceptor(bound, ready=self._ready, take=self._take)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> Connection:
        await cooperative()
        return await park(self)

    def into_stream(self) -> Stream[Connection]:
        """A stream of the connections, in place of this listener, which is closed with it.

        Needs the distribution `yamanote-streams`.
        """
        self._started()
        try:
            from yamanote import streams
        except ImportError as error:
            raise ImportError("into_stream() needs the distribution yamanote-streams") from error
        return streams.iter(self)

    def register(self, waiter: Waiter[Any], /) -> None:
        acceptor = self._started()
        with self._section:
            if self._arrived:
                if waiter.hand(self._arrived[0]):
                    self._arrived.popleft()
            elif not self._closed:
                self._waiters.append(waiter)
            elif waiter.claim():
                waiter.fail(StopAsyncIteration())
        self._tell(acceptor.look_now)

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        # Who has gone is found gone when somebody connects: nothing else has to be done about the sockets.
        self._section.run(partial(self._forget, waiter))

    def _forget(self, waiter: Waiter[Any]) -> None:
        if not waiter.settled:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        elif waiter.error is None and not self._give(waiter.value):
            self._arrived.appendleft(waiter.value)
            if self._left:
                self._section.afterwards.append(self._cut)

    def _give(self, connection: Connection) -> bool:
        while self._waiters:
            if self._waiters.popleft().hand(connection):
                return True
        return False

    def _ready(self) -> bool:
        return bool(self._waiters)

    def _take(self, accepted: socket.socket, peer: object) -> None:
        connection = Connection(accepted, peer, tls=self._tls, ended=self._connection_ended)
        with self._section:
            if not self._give(connection):
                self._arrived.append(connection)

    def _connection_ended(self) -> None:
        self._tell(self._started().wake)

    def _tell(self, acceptor: Callable[[], None]) -> None:
        """Call what is the acceptor's on its loop."""
        if _get_running_loop() is self._loop:
            acceptor()
        elif self._loop is not None:
            with suppress(RuntimeError):  # closed: nobody will be served any more
                self._loop.call_soon_threadsafe(acceptor)

    def _leave(self) -> None:
        self.close()
        self._left = True
        self._cut()

    def _cut(self) -> None:
        with self._section:
            arrived, self._arrived = self._arrived, deque()
        for connection in arrived:
            connection.abort()

    def _started(self) -> Acceptor:
        if self._acceptor is None:
            raise RuntimeError("this listener does not listen yet: enter it with `async with`")
        return self._acceptor

    def __repr__(self) -> str:
        state = "new" if self._acceptor is None else "closed" if self._closed else "listening"
        where = self._path or ", ".join(f"{host} port {port}" for host, port in self._addresses)
        return f"<Listener {state}{where and ' at '}{where}>"
