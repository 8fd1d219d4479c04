"""An accepted socket: its transport, its streams and its end.

Invariant: the wire is lost once, and says so once, from a callback which nobody awaits: no cancellation can make
anybody forget the transport. It is lost when the transport is; at once, when there is none. From then on nothing of it
refers to itself: it is freed when its user lets go of it, and no garbage collection has to find it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

__all__ = ["Wire"]

_LINGER = 30.0
"""Seconds in which a peer must take something of what is left to send when the connection is closed."""


class Wire:
    """Opened at most once, closed or aborted by whoever owns it. All calls are for the loop that it is opened on."""

    __slots__ = (
        "_gone",
        "_linger_timer",
        "_loop",
        "_protocol",
        "_socket",
        "_started",
        "_tls",
        "closed",
        "lost",
        "name",
        "opening",
        "streams",
    )

    _loop: asyncio.AbstractEventLoop
    opening: bool
    """Whether it is being opened, or has failed to."""
    closed: bool
    """Whether its owner has left it: what opens after that is aborted."""
    lost: bool
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None
    """What its user reads and writes, as soon as it is open."""

    def __init__(
        self, accepted: socket.socket, peer: object, *, tls: ssl.SSLContext | None, gone: Callable[[], None]
    ) -> None:
        self._socket = accepted
        self._tls = tls
        self._gone = gone
        self._linger_timer: asyncio.TimerHandle | None = None
        self._protocol: _Protocol | None = None
        self._started = False
        # The clients of Unix sockets have no names.
        self.name = f"connection from {peer}" if peer else f"connection at {accepted.getsockname()}"
        self.opening = False
        self.closed = False
        self.lost = False
        self.streams = None

    async def open(self) -> None:
        """Make the transport, after a handshake if there is TLS. Raises OSError when that fails.

        Do not cancel it, which would leave uvloop's transport half open: `abort` ends it at once.
        """
        self._loop = asyncio.get_running_loop()
        self._started = self.opening = True
        self._protocol = protocol = _Protocol(self, self._loop)
        await self._loop.connect_accepted_socket(lambda: protocol, self._socket, ssl=self._tls)
        self.opening = False

    def close(self) -> None:
        """Close it when what was written has been sent."""
        if self.closed:
            return
        self.closed = True
        if not self._started:
            self._socket.close()
        if self.opening:
            self.abort()
        if self.opening or self.streams is None:  # the socket is closed, or its half-open transport will close it
            self._lose()
            return
        if not self.lost:
            transport = self.streams[1].transport
            if not transport.is_closing():  # closed twice, asyncio's TLS transport could no longer be aborted
                transport.close()
            self._linger(transport, None)

    def abort(self) -> None:
        """End it now, and throw away what is left to send."""
        if self.opening:
            # Cut beneath: a handshake fails at once, and what opens all the same is closed by who waits for that.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        elif self.streams is not None:
            self.streams[1].transport.abort()

    def opened(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The transport is connected: called by the protocol, before anything else."""
        self.streams = (reader, writer)
        if self.closed:
            writer.transport.abort()

    def connection_lost(self) -> None:
        """The transport is gone: called by the protocol."""
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        self._lose()

    def _linger(self, transport: asyncio.WriteTransport, before: int | None) -> None:
        try:
            protocol = transport.get_protocol()
            left = transport.get_write_buffer_size()
        except AttributeError:  # its user did close it twice: TLS has a time-out of its own
            return
        if protocol is not self._protocol:  # put there by its user, and only that one learns of the end
            self._lose()
        elif before is not None and left >= before:
            transport.abort()
        # With nothing to send and no good-bye of TLS to wait for, it is lost in a moment.
        elif left or transport.get_extra_info("sslcontext"):
            self._linger_timer = self._loop.call_later(_LINGER, self._linger, transport, left)

    def _lose(self) -> None:
        if not self.lost:
            self.lost = True
            gone = self._gone
            del self._gone, self._protocol
            gone()


class _Protocol(asyncio.StreamReaderProtocol):
    """The protocol behind the two streams, which tells the wire what becomes of the transport."""

    wire: Wire | None

    def __init__(self, wire: Wire, loop: asyncio.AbstractEventLoop) -> None:
        # With a callback it takes itself for a server's protocol, as it must for `StreamWriter.start_tls`.
        super().__init__(asyncio.StreamReader(loop=loop), _opened, loop=loop)
        self.wire = wire

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.wire is not None:
            self.wire.connection_lost()
            self.wire = None


def _opened(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # No method of the protocol, which would refer to itself for ever.
    protocol: Any = writer.transport.get_protocol()
    protocol.wire.opened(reader, writer)
