"""Accepting on listening sockets.

Invariant: the sockets are watched only while somebody is ready for a connection, and no rest after a failed accept is
under way; a connection is accepted in the very callback that finds it, and taken there. Nothing is awaited in between,
so no cancellation can lose what was accepted.

Whoever shares its sockets with others takes one connection in a turn of its loop, so that the others get their part:
a whole backlog is there at once after a moment of work, and the first to look would have it all.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

from yamanote.server._bound import Bound

__all__ = ["Acceptor"]

_BATCH = 64
"""How many connections are accepted in one loop turn before those that are open have theirs."""

_REST = 1.0
"""Seconds without accepting after the system refused to, mostly for want of file descriptors."""


class Acceptor:
    """Accepts on the sockets of `bound`, which are its own from now on, whenever `ready()` says so.

    `take` is called with each accepted socket and the address of its peer.
    """

    __slots__ = ("_batch", "_bound", "_closed", "_loop", "_ready", "_resting", "_take", "_watching")

    def __init__(
        self, bound: Bound, *, ready: Callable[[], bool], take: Callable[[socket.socket, object], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._bound = bound
        self._batch = 1 if bound.shared else _BATCH
        self._ready = ready
        self._take = take
        self._closed = False
        self._watching = False
        self._resting: asyncio.TimerHandle | None = None

    def look(self) -> None:
        """Watch the sockets, or leave them, whichever is due: call it when there may be an answer anew to `ready`."""
        wanted = not self._closed and self._resting is None and self._ready()
        if wanted == self._watching:
            return
        self._watching = wanted
        for listener in self._bound.sockets:
            if wanted:
                self._loop.add_reader(listener, self._accept, listener)
            else:
                self._loop.remove_reader(listener)

    def look_now(self) -> None:
        """Take one connection if there is one already, for whoever has just become ready; then `look`."""
        # Not from shared sockets: whoever asks again and again would leave nothing to the others.
        if not self._closed and self._resting is None and not self._bound.shared:
            for listener in self._bound.sockets:
                if self._ready():
                    with suppress(OSError):  # it is met again by who watches
                        self._accept_one(listener)
        self.look()

    def wake(self) -> None:
        """`look`, and rest no longer: something that the system may have lacked is free."""
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        self.look()

    def close(self, last: int) -> None:
        """Stop, and close the sockets.

        Up to `last` of those who have connected already are taken before, as their connections would be cut. On sockets
        that are shared they stay for the others.
        """
        self._closed = True
        self.wake()
        self._bound.withdraw()
        if not self._bound.shared:
            for listener in self._bound.sockets:
                with suppress(OSError):
                    while last > 0 and self._accept_one(listener):
                        last -= 1
        self._bound.close()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(self._batch):
            self.look()
            if not self._watching:
                return
            try:
                if not self._accept_one(listener):
                    return
            except OSError as error:
                self._rest(listener, error)
                return
        self.look()

    def _accept_one(self, listener: socket.socket) -> bool:
        """Whether there was one to accept. Raises OSError when the system refused to."""
        try:
            accepted, peer = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        if isinstance(peer, tuple):  # else it is the name of a Unix socket
            # asyncio does it only where the number of the protocol says that this is TCP, and that is mostly 0.
            with suppress(OSError):  # it has been reset already, which reading will tell
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._take(accepted, peer)
        return True

    def _rest(self, listener: socket.socket, error: OSError) -> None:
        self._resting = self._loop.call_later(_REST, self.wake)
        self.look()
        message = f"cannot accept connections, trying again in {_REST} seconds"
        self._loop.call_exception_handler({"message": message, "exception": error, "socket": listener})
