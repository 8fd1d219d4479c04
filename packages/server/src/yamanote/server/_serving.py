"""A server while it runs: listening sockets in, connections out, an end with a deadline.

Invariant: the sockets are watched if and only if the server is open, is not resting after a failed accept, and has room
below its limit; a connection is accepted only while they are watched, in the very callback that finds it. Nothing is
awaited between the accept and the connection's task, so no cancellation can lose what was accepted.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextvars import ContextVar, copy_context
from typing import Any

from yamanote.server._connection import Connection, Handler

__all__ = ["Serving"]

_BATCH = 64
"""How many connections are accepted in one loop turn before those that are open have theirs."""

_REST = 1.0
"""Seconds without accepting after the system refused to, mostly for want of file descriptors."""


_inside: ContextVar[tuple[Serving, ...]] = ContextVar("yamanote_inside", default=())
"""The servers in one of whose handlers this is, or in something that it has started."""


class Serving:
    """Accepts on `listeners`, from now on and until `close`, and owns what it accepted until `ended` is done."""

    def __init__(
        self,
        listeners: list[socket.socket],
        handler: Handler,
        *,
        limit: int | None,
        drain: float | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        self.closing = False
        self.connections: set[Connection] = set()
        self._loop = asyncio.get_running_loop()
        # Callbacks run in the context of whoever caused them. A connection must not get another connection's variables.
        self._context = copy_context()
        self._context.run(_inside.set, (*_inside.get(), self))
        self._listeners = listeners
        self._handler = handler
        self._limit = limit
        self._drain = drain
        self._tls = tls
        self._watching = False
        self._resting: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._watch()

    def owns(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether `task` is the one of an open connection."""
        return any(connection.task is task for connection in self.connections)

    def encloses(self) -> bool:
        """Whether who asks runs in one of its handlers, or was started there."""
        return self in _inside.get()

    def close(self) -> None:
        """Stop accepting, and give what is open until the deadline."""
        if self.closing:
            return
        self.closing = True
        self._watch()
        for listener in self._listeners:
            listener.close()
        if self._resting is not None:
            self._resting.cancel()
        if self._drain is not None and self.connections:
            self._deadline = self._loop.call_later(self._drain, self.abort)
        self._check()

    def abort(self) -> None:
        """Stop accepting, and end what is open now."""
        self.close()
        for connection in self.connections.copy():
            connection.abort()

    def _watch(self) -> None:
        full = self._limit is not None and len(self.connections) >= self._limit
        wanted = not self.closing and self._resting is None and not full
        if wanted == self._watching:
            return
        self._watching = wanted
        for listener in self._listeners:
            if wanted:
                self._loop.add_reader(listener, self._accept, listener)
            else:
                self._loop.remove_reader(listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_BATCH):
            if not self._watching:
                return
            try:
                accepted, peer = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._resting = self._loop.call_later(_REST, self._rested)
                self._watch()
                message = f"cannot accept connections, trying again in {_REST} seconds"
                self._loop.call_exception_handler({"message": message, "exception": error, "socket": listener})
                return
            accepted.setblocking(False)
            connection = Connection(
                accepted, peer, self._handler, tls=self._tls, context=self._context.copy(), ended=self._connection_ended
            )
            self.connections.add(connection)
            self._watch()

    def _rested(self) -> None:
        self._resting = None
        self._watch()

    def _connection_ended(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self._watch()
        self._check()

    def _check(self) -> None:
        if self.closing and not self.connections and not self.ended.done():
            if self._deadline is not None:
                self._deadline.cancel()
            self.ended.set_result(None)
