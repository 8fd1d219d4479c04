"""Listening sockets that somebody has opened, until they are closed.

Invariant: a file that stands for them is gone before they are closed, so that whoever finds one can tell by trying it
whether it is in use.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

__all__ = ["Bound"]


class Bound:
    """Sockets that listen and do not block, and what is known about them."""

    __slots__ = ("_remove", "shared", "sockets")

    sockets: Sequence[socket.socket]
    shared: bool
    """Whether others may accept on them too, and will when these are closed."""

    def __init__(
        self, sockets: Sequence[socket.socket], *, shared: bool = False, remove: Callable[[], None] | None = None
    ) -> None:
        self.sockets = sockets
        self.shared = shared
        self._remove = remove

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Host and port of each socket that has them."""
        internet = (socket.AF_INET, socket.AF_INET6)
        return tuple(listener.getsockname()[:2] for listener in self.sockets if listener.family in internet)

    @property
    def path(self) -> str | None:
        """Where the first Unix socket is, if there is one."""
        names = (listener.getsockname() for listener in self.sockets)
        return next((name for name in names if isinstance(name, str)), None)

    def withdraw(self) -> None:
        """Let nobody else in, as far as that can be had without closing."""
        if self._remove is not None:
            self._remove()
            self._remove = None

    def close(self) -> None:
        self.withdraw()
        for listener in self.sockets:
            listener.close()
