"""One accepted connection: its task, its streams and its end.

Invariant: a connection has ended, and says so once, when its task is done *and* its transport is lost. Both are learnt
from callbacks and neither is awaited, so no cancellation of the task can make anybody forget the transport.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
import ssl
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import Any

from yamanote.runtime import start_task

__all__ = ["Connection", "Handler"]

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, object]]

_LINGER = 30.0
"""Seconds in which a peer must take something of what is left to send when the handler has returned."""


class Connection:
    """An accepted socket, and the task which runs the handler on it."""

    __slots__ = (
        "_aborted",
        "_ended",
        "_handler",
        "_linger_timer",
        "_loop",
        "_lost",
        "_opening",
        "_peer",
        "_socket",
        "_started",
        "_streams",
        "_tls",
        "task",
    )

    def __init__(
        self,
        accepted: socket.socket,
        peer: object,
        handler: Handler,
        *,
        tls: ssl.SSLContext | None,
        context: Context,
        ended: Callable[[Connection], None],
    ) -> None:
        self._socket = accepted
        self._peer = peer
        self._handler = handler
        self._tls = tls
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._streams: _Streams | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._started = False
        self._opening = False
        self._aborted = False
        self._lost = False
        self.task = start_task(self._run(), name=f"connection from {peer}", context=context)
        self.task.add_done_callback(self._task_done)

    def abort(self) -> None:
        """End now: cancel the handler, and throw away what is left to send."""
        if self._aborted:
            return
        self._aborted = True
        if self._opening:
            # To cancel what opens a transport leaves uvloop's half open. So cut the wire beneath: a handshake fails at
            # once, and what opens all the same is closed before its handler starts.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            return
        self.task.cancel()
        # Not when the handler has ended: a clean-up that still writes would wait for a peer which does not read.
        if self._streams is not None:
            self._streams.writer.transport.abort()

    async def _run(self) -> None:
        loop = self._loop
        self._started = self._opening = True
        streams = _Streams(self, loop)
        await loop.connect_accepted_socket(lambda: streams, self._socket, ssl=self._tls)
        self._opening = False
        if not self._aborted:
            handling: Any = self._handler(streams.reader, streams.writer)
            if not inspect.isawaitable(handling):
                raise TypeError(f"the handler {self._handler!r} is not an async function: it returned {handling!r}")
            await handling

    def opened(self, streams: _Streams) -> None:
        """The transport is connected: called by the protocol, before anything else."""
        self._streams = streams
        if self.task.done():  # cancelled, by somebody else, while it opened
            streams.writer.transport.abort()

    def lost(self) -> None:
        """The transport is gone: called by the protocol."""
        self._lost = True
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        self._check()

    def _task_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._report(task.exception())
        transport = None if self._streams is None else self._streams.writer.transport
        if not self._started:
            self._socket.close()
        if self._opening or transport is None:  # the socket is closed, or its half-open transport will close it
            self._lost = True
        if transport is not None and not self._lost:
            if not transport.is_closing():  # closed twice, asyncio's TLS transport could no longer be aborted
                transport.close()
            self._linger(transport, None)
        self._check()

    def _linger(self, transport: asyncio.WriteTransport, before: int | None) -> None:
        try:
            protocol = transport.get_protocol()
            left = transport.get_write_buffer_size()
        except AttributeError:  # the handler did close it twice: TLS has a time-out of its own
            return
        if protocol is not self._streams:  # put there by the handler, and only that one learns of the end
            self._lost = True
        elif before is not None and left >= before:
            transport.abort()
        else:
            self._linger_timer = self._loop.call_later(_LINGER, self._linger, transport, left)

    def _check(self) -> None:
        if self._lost and self.task.done():
            self._ended(self)

    def _report(self, error: BaseException | None) -> None:
        # Not from within the task: the handler runs in the task's context, which must not be entered twice.
        if not isinstance(error, Exception):  # a KeyboardInterrupt, say, has gone through the loop already
            return
        if self._aborted and isinstance(error, OSError):  # its reads and writes fail: no news
            return
        what = "failed in its handler"
        if self._opening:
            # A handshake that fails is the peer's affair, and any port scanner can cause it.
            if isinstance(error, OSError) and not self._loop.get_debug():
                return
            what = "could not be opened"
        message = f"connection from {self._peer} {what}"
        self._loop.call_exception_handler({"message": message, "exception": error, "task": self.task})


class _Streams(asyncio.StreamReaderProtocol):
    """The protocol behind the two streams, which tells the connection when the transport is lost."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        # With a callback it takes itself for a server's protocol, as it must for `StreamWriter.start_tls`.
        super().__init__(asyncio.StreamReader(loop=loop), self._opened, loop=loop)
        self._served_connection = connection

    def _opened(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._served_connection.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._served_connection.lost()
