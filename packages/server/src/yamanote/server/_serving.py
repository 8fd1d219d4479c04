"""A server while it runs: listening sockets in, connections out, an end with a deadline.

Invariant: what was accepted is a connection with a task at once, or was refused; no more than the limit are open; and
`ended` is done when it is closed and none is left.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Any

from yamanote.server._acceptor import Acceptor
from yamanote.server._bound import Bound
from yamanote.server._endpoint import BACKLOG
from yamanote.server._served import Handler, Served

__all__ = ["Serving"]

_RESET = struct.pack("ii", 1, 0)
"""What SO_LINGER takes: linger, for no time."""

_inside: ContextVar[tuple[Serving, ...]] = ContextVar("yamanote_inside", default=())
"""The servers in one of whose handlers this is, or in something that it has started."""


class Serving:
    """Accepts on the sockets of `bound`, from now on and until `close`, and owns what it accepted."""

    def __init__(
        self,
        bound: Bound,
        handler: Handler,
        *,
        limit: int | None,
        refuse: bool,
        drain: float | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        self.closing = False
        self.connections: set[Served] = set()
        self._loop = asyncio.get_running_loop()
        # Callbacks run in the context of whoever caused them. A connection must not get another connection's variables.
        self._context = copy_context()
        self._context.run(_inside.set, (*_inside.get(), self))
        self._handler = handler
        self._limit = limit
        self._refuse = refuse
        self._drain = drain
        self._tls = tls
        self._deadline: asyncio.TimerHandle | None = None
        self._acceptor = Acceptor(bound, ready=self._ready, take=self._take)
        self._acceptor.look()

    def owns(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether `task` is the one of an open connection."""
        return any(connection.task is task for connection in self.connections)

    def encloses(self) -> bool:
        """Whether who asks runs in one of its handlers, or was started there."""
        return self in _inside.get()

    def close(self) -> None:
        """Stop accepting, and give what is open until the deadline. Who has connected already counts as open."""
        self._close(BACKLOG)

    def abort(self) -> None:
        """Stop accepting, and end what is open now."""
        self._close(0)
        for connection in self.connections.copy():
            connection.abort()

    def _close(self, last: int) -> None:
        if self.closing:
            return
        self.closing = True
        self._acceptor.close(last)
        if self._drain is not None and self.connections:
            self._deadline = self._loop.call_later(self._drain, self.abort)
        self._check()

    def _full(self) -> bool:
        return self._limit is not None and len(self.connections) >= self._limit

    def _ready(self) -> bool:
        return self._refuse or not self._full()

    def _take(self, accepted: socket.socket, peer: object) -> None:
        if self._full():
            with suppress(OSError):  # a reset tells the peer at once, and leaves nothing behind in the system
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            accepted.close()
            return
        connection = Served(
            accepted, peer, self._handler, tls=self._tls, context=self._context.copy(), ended=self._connection_ended
        )
        self.connections.add(connection)

    def _connection_ended(self, connection: Served) -> None:
        self.connections.discard(connection)
        self._acceptor.wake()
        self._check()

    def _check(self) -> None:
        if self.closing and not self.connections and not self.ended.done():
            if self._deadline is not None:
                self._deadline.cancel()
            self.ended.set_result(None)
