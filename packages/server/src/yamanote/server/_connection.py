"""A connection that is given to whoever asks for the next one."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import final

from yamanote.runtime import start_task
from yamanote.server._wire import Wire

__all__ = ["Connection"]


@final
class Connection:
    """A connection that `listen` has accepted: ``async with connection: ...`` opens it, and closes it at the end.

    Opening it takes a turn of the loop, and with TLS the handshake, which a peer may draw out: let the task do it that
    serves this connection, not the one that waits for the next. It raises OSError when the handshake fails. Then, and
    when it is cancelled, the connection is closed.

    The end of the block closes it as `aclose` does, also after an error; a cancellation, as `abort`.

    All of it is for one loop, the one on which it is opened: it need not be that of the listener.
    """

    __slots__ = ("__weakref__", "_ended", "_entered", "_gone", "_wire", "peer")

    peer: object
    """The address of the other side: a host and a port, and two numbers more with IPv6; empty for a Unix socket."""

    def __init__(
        self, accepted: socket.socket, peer: object, *, tls: ssl.SSLContext | None, ended: Callable[[], None]
    ) -> None:
        self.peer = peer
        self._ended = ended
        self._entered = False
        self._gone: asyncio.Future[None] | None = None
        self._wire = Wire(accepted, peer, tls=tls, gone=self._wire_lost)

    @property
    def reader(self) -> asyncio.StreamReader:
        """What the peer sends. Raises RuntimeError before the connection is opened."""
        return self._streams()[0]

    @property
    def writer(self) -> asyncio.StreamWriter:
        """What the peer gets. Raises RuntimeError before the connection is opened."""
        return self._streams()[1]

    async def aclose(self) -> None:
        """Close it, and wait until what was written has been sent, for as long as the peer takes something of it.

        Later calls only wait. A peer that takes nothing for 30 seconds is cut off.

        **Cancel safety:** a cancellation cuts the connection, and is raised when it is closed.
        """
        self._wire.close()
        await self._until(self._gone)

    def abort(self) -> None:
        """Cut the connection, and throw away what is left to send. Returns at once."""
        if self._entered:
            self._wire.abort()
        else:
            self._wire.close()

    async def __aenter__(self) -> Connection:
        if self._entered or self._wire.closed:
            raise RuntimeError("this connection has been opened or closed already")
        self._entered = True
        self._gone = asyncio.get_running_loop().create_future()
        opening = start_task(self._wire.open(), name=f"opening of the {self._wire.name}")
        try:
            await self._until(opening)
            opening.result()
        except BaseException:
            self._wire.abort()
            self._wire.close()
            if not opening.cancelled():
                opening.exception()  # seen
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, Exception):
            self._wire.abort()
        self._wire.close()
        if kind is not GeneratorExit:  # the task is thrown away, and waits for nothing
            await self._until(self._gone)

    async def _until(self, done: asyncio.Future[None] | None) -> None:
        """Wait for `done`, whatever comes; a cancellation aborts the connection, and is raised then."""
        cancelled: asyncio.CancelledError | None = None
        while done is not None and not done.done():
            try:
                await asyncio.wait([done])
            except asyncio.CancelledError as error:
                cancelled = error
                self._wire.abort()
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                del cancelled  # no reference cycle with the traceback

    def _wire_lost(self) -> None:
        if self._gone is not None:
            self._gone.set_result(None)
        self._ended()

    def _streams(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        streams = self._wire.streams
        if streams is None:
            raise RuntimeError("this connection is not open: enter it with `async with`")
        return streams

    def __repr__(self) -> str:
        state = "accepted" if not self._entered else "closed" if self._wire.lost else "open"
        return f"<Connection {state}, {self._wire.name}>"
