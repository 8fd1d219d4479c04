"""Wake-up: a loop that is about to sleep in its selector, or sleeps in another thread, notices a signal.

Invariant: as long as anybody holds a wake-up, the interpreter writes to the pipe of its loop when a signal arrives, or
to whatever else somebody has named for that, who keeps it. When nobody does any more, it is as if we had never been
there. Only the main thread may ask for that.

The handlers of `signal.signal` run between two bytecodes of the main thread. One that is due when the last of these has
been run before the loop sleeps has to wait until something else wakes it. Therefore `loop.add_signal_handler` names
the pipe of its loop as well, and uvloop sees to it by itself.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import final

__all__ = ["Wakeup", "wakeup_of"]


@final
class Wakeup:
    """That signals wake a loop, for as many as want it."""

    __slots__ = ("_descriptor", "_holders", "_loop", "_reader")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._descriptor = self._reader = -1
        self._holders: set[object] = set()

    def hold(self, holder: object) -> None:
        """Have signals wake the loop until `holder` lets it go."""
        self._holders.add(holder)
        if self._descriptor == -1 and (pipe := getattr(self._loop, "_csock", None)) is not None:
            # Descriptors of our own: a loop that is closed under us would leave us the numbers of strangers, and the
            # interpreter complains of a pipe that nobody can read.
            self._descriptor = pipe.dup().detach()
            self._reader = self._loop._ssock.dup().detach()  # type: ignore[attr-defined]
        self.renew()

    def release(self, holder: object) -> None:
        """`holder` needs it no longer. To say so again does nothing."""
        self._holders.discard(holder)
        if self._holders or self._descriptor == -1:
            return
        # A signal that comes between the two still finds a pipe of the loop, for those who have it written there.
        before = signal.set_wakeup_fd(self._descriptor, warn_on_full_buffer=False)
        signal.set_wakeup_fd(-1 if before == self._descriptor else before)
        socket.close(self._descriptor)
        socket.close(self._reader)
        self._descriptor = self._reader = -1

    def renew(self) -> None:
        """Take it again, if somebody had it, and has given it away."""
        if self._descriptor != -1:
            before = signal.set_wakeup_fd(self._descriptor, warn_on_full_buffer=False)
            if before not in (-1, self._descriptor):
                signal.set_wakeup_fd(before)


def wakeup_of(loop: asyncio.AbstractEventLoop) -> Wakeup:
    """The one of `loop`."""
    wakeup: Wakeup | None = getattr(loop, "_yamanote_wakeup", None)
    if wakeup is None:
        wakeup = loop._yamanote_wakeup = Wakeup(loop)  # type: ignore[attr-defined]
    return wakeup
