"""Listening on sockets that somebody else has opened, and may share with others.

Invariant: what is closed here are duplicates. The sockets themselves stay open, with all who wait in their backlogs,
for as long as whoever opened them wants. Their mode is part of what duplicates share: they do not block any more.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from yamanote.server._bound import Bound

__all__ = ["bind_given"]


def bind_given(given: Iterable[socket.socket], backlog: int) -> Bound:
    """Listen on duplicates of `given`. Those that only are bound begin to listen."""
    listeners: list[socket.socket] = []
    try:
        for sock in given:
            if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                sock.listen(backlog)
            sock.setblocking(False)  # of the object too: otherwise it would not tell what its descriptor does
            listener = sock.dup()
            listeners.append(listener)
            listener.setblocking(False)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return Bound(listeners, shared=True)
