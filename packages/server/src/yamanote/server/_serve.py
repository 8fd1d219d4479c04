"""`serve`, and the handle that it returns."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Generator, Iterable
from types import TracebackType
from typing import Literal, final, overload

from yamanote.runtime import CancellationToken, cancel_and_wait, start_task
from yamanote.server._endpoint import BACKLOG, Endpoint, require_tls
from yamanote.server._seconds import require_seconds
from yamanote.server._served import Handler
from yamanote.server._serving import Serving

__all__ = ["Server", "serve"]

_RUN_ALREADY = "this server has run already: call `serve` again"


@overload
def serve(
    handler: Handler,
    host: str | None,
    port: int,
    *,
    limit: int | None = None,
    at_limit: Literal["wait", "refuse"] = "wait",
    drain: float | None = 10.0,
    tls: ssl.SSLContext | None = None,
    stop: CancellationToken | None = None,
    reuse_port: bool = False,
    backlog: int = BACKLOG,
) -> Server: ...
@overload
def serve(
    handler: Handler,
    *,
    path: str | os.PathLike[str],
    mode: int | None = None,
    limit: int | None = None,
    at_limit: Literal["wait", "refuse"] = "wait",
    drain: float | None = 10.0,
    tls: ssl.SSLContext | None = None,
    stop: CancellationToken | None = None,
    backlog: int = BACKLOG,
) -> Server: ...
@overload
def serve(
    handler: Handler,
    *,
    sock: socket.socket | Iterable[socket.socket],
    limit: int | None = None,
    at_limit: Literal["wait", "refuse"] = "wait",
    drain: float | None = 10.0,
    tls: ssl.SSLContext | None = None,
    stop: CancellationToken | None = None,
    backlog: int = BACKLOG,
) -> Server: ...
def serve(
    handler: Handler,
    host: str | None = None,
    port: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    mode: int | None = None,
    sock: socket.socket | Iterable[socket.socket] | None = None,
    limit: int | None = None,
    at_limit: Literal["wait", "refuse"] = "wait",
    drain: float | None = 10.0,
    tls: ssl.SSLContext | None = None,
    stop: CancellationToken | None = None,
    reuse_port: bool = False,
    backlog: int = BACKLOG,
) -> Server:
    """Serve `handler(reader, writer)` over TCP or Unix sockets: one task per connection.

    Either ``await serve(...)``, which serves until it is cancelled or `stop` is; or
    ``async with serve(...) as server``, which listens when the block is entered and shuts down when it is left.

    Where to listen is one of three:

    * `host` and `port`: a name or an address, None for all interfaces; port 0 lets the system choose (see
      `Server.port`). With `reuse_port` several servers can have one port, and the system spreads connections over them.
    * `path`, of a Unix socket, with `mode` as its permissions if it is given. What a dead server has left there is
      replaced, and the file is removed at the end, unless somebody else has put another there. When that fails, the
      loop's exception handler is told.
    * `sock`, a bound socket or several, such as one that a parent process has handed on. They are yours: the server
      works on duplicates, and leaves what nobody has accepted to whoever else has them. They no longer block.

    At most `limit` connections are open at once. The others wait, unaccepted, in the system's `backlog`; or, with
    `at_limit` "refuse", are reset at once. `drain` is how many seconds running handlers get to finish when the server
    stops, None for as long as they take.

    A connection is closed when its handler returns, after what was written has been sent. (A peer that goes on sending
    what nobody reads may lose the end of it: TCP answers such data with a reset.) A handler that raises ends its own
    connection and nothing else: the error goes to the loop's exception handler.

    Raises ValueError or TypeError for nonsense, at the call; OSError, when it starts, if it cannot listen.

    **Cancel safety:** cancelling ``await serve(...)`` stops accepting, drains, and then raises the cancellation; a
    second cancellation ends the draining. All handlers have ended when it is raised.

    >>> from asyncio import StreamReader, StreamWriter, open_connection
    >>> from yamanote.runtime import run
    >>> async def shout(reader: StreamReader, writer: StreamWriter) -> None:
    ...     writer.write((await reader.readline()).upper())
    >>> async def main() -> bytes:
    ...     async with serve(shout, "127.0.0.1", 0) as server:
    ...         reader, writer = await open_connection("127.0.0.1", server.port)
    ...         writer.write(b"hello\\n")
    ...         answer = await reader.read()
    ...         writer.close()
    ...         return answer
    >>> run(main())
    b'HELLO\\n'
    """
    if not callable(handler):
        raise TypeError(f"handler must be an async function of a reader and a writer, not {handler!r}")
    endpoint = Endpoint(host, port, path, sock, reuse_port=reuse_port, mode=mode, backlog=backlog)
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
        raise TypeError(f"limit must be an integer or None, not {limit!r}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")
    if at_limit not in ("wait", "refuse"):
        raise ValueError(f"at_limit must be 'wait' or 'refuse', not {at_limit!r}")
    require_seconds("drain", drain, none="no deadline")
    if stop is not None and not isinstance(stop, CancellationToken):
        raise TypeError(f"stop must be a CancellationToken, not {stop!r}")
    tls = require_tls(tls)
    return Server(handler, endpoint, limit=limit, refuse=at_limit == "refuse", drain=drain, tls=tls, stop=stop)


@final
class Server:
    """What `serve` returns: await it, or enter it with ``async with``. It runs once.

    It needs a loop with `add_reader`, as every selector loop and uvloop are. All methods are for the loop that it runs
    on; to stop it from elsewhere, give `serve` a token.
    """

    __slots__ = (
        "_addresses",
        "_drain",
        "_endpoint",
        "_handler",
        "_limit",
        "_path",
        "_refuse",
        "_serving",
        "_stop",
        "_stopper",
        "_tls",
    )

    def __init__(
        self,
        handler: Handler,
        endpoint: Endpoint,
        *,
        limit: int | None,
        refuse: bool,
        drain: float | None,
        tls: ssl.SSLContext | None,
        stop: CancellationToken | None,
    ) -> None:
        self._handler = handler
        self._endpoint = endpoint
        self._limit = limit
        self._refuse = refuse
        self._drain = drain
        self._tls = tls
        self._stop = stop
        self._stopper: asyncio.Task[None] | None = None
        self._serving: Serving | None = None
        self._addresses: tuple[tuple[str, int], ...] = ()
        self._path: str | None = None

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Host and port of each TCP socket that it listens on."""
        self._started()
        return self._addresses

    @property
    def port(self) -> int:
        """The port of the first address: of a host, it is the same on all. RuntimeError without a TCP socket."""
        if not self.addresses:
            raise RuntimeError(f"there is no port: it listens at {self._path}")
        return self._addresses[0][1]

    @property
    def path(self) -> str | None:
        """Where its Unix socket is, None if it has none."""
        self._started()
        return self._path

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._started().connections)

    @property
    def closing(self) -> bool:
        """Whether it has stopped accepting: a handler that keeps its connection for long can look here."""
        return self._started().closing

    def close(self) -> None:
        """Stop accepting, and begin to drain. Returns at once; `wait` tells the end."""
        self._started().close()

    def abort(self) -> None:
        """Stop accepting, cancel the handlers and cut the connections. Returns at once; `wait` tells the end."""
        self._started().abort()

    async def wait(self) -> None:
        """Wait until it is closed, by anybody, and all its connections have ended.

        Raises RuntimeError in a handler of this server, which would wait for itself.

        **Cancel safety:** cancelling this call does nothing to the server.
        """
        await asyncio.shield(self._outside().ended)

    async def shutdown(self) -> None:
        """Stop accepting, wait for the handlers until the drain deadline, then cancel them and cut their connections.

        Returns when all have ended. May be called again, and by several tasks. Raises RuntimeError in a handler of this
        server, which would wait for itself.

        **Cancel safety:** a cancellation brings the deadline forward to now; it is raised when all have ended.
        """
        serving = self._outside()
        serving.close()
        cancelled: asyncio.CancelledError | None = None
        while not serving.ended.done():
            try:
                await asyncio.shield(serving.ended)
            except asyncio.CancelledError as error:
                cancelled = error
                serving.abort()
                if serving.encloses():  # its handler may be waiting for this very call
                    break
        if self._stopper is not None:
            await cancel_and_wait(self._stopper)
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                del cancelled  # no reference cycle with the traceback

    async def __aenter__(self) -> Server:
        if self._serving is not None:
            raise RuntimeError(_RUN_ALREADY)
        bound = await self._endpoint.bind()
        if self._serving is not None:  # somebody else has entered it meanwhile
            bound.close()
            raise RuntimeError(_RUN_ALREADY)
        self._addresses = bound.addresses
        self._path = bound.path
        self._serving = Serving(
            bound, self._handler, limit=self._limit, refuse=self._refuse, drain=self._drain, tls=self._tls
        )
        if self._stop is not None:
            self._stopper = start_task(self._close_with(self._stop), name="stop of a server")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not GeneratorExit:
            await self.shutdown()
            return
        self.abort()  # the task is thrown away, and waits for nothing
        if self._stopper is not None:
            self._stopper.cancel()

    def __await__(self) -> Generator[object, None, None]:
        return self._run().__await__()

    async def _run(self) -> None:
        async with self:
            await self.wait()

    async def _close_with(self, stop: CancellationToken) -> None:
        await stop.cancelled()
        self.close()

    def _outside(self) -> Serving:
        serving = self._started()
        if serving.owns(asyncio.current_task()):
            raise RuntimeError("a handler cannot wait for the end of its own server: call `close`, and return")
        return serving

    def _started(self) -> Serving:
        if self._serving is None:
            raise RuntimeError("this server does not run yet: await it, or enter it with `async with`")
        return self._serving

    def __repr__(self) -> str:
        if self._serving is None:
            return "<Server new>"
        state = "closed" if self._serving.ended.done() else "closing" if self._serving.closing else "listening"
        where = self._path or ", ".join(f"{host} port {port}" for host, port in self._addresses)
        return f"<Server {state} at {where} connections={self.connections}>"
