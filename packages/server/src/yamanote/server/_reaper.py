"""Reaper: one child process, from its start until nothing is left of it.

Invariant: `multiprocessing` alone reaps the process; this only watches. A signal is sent to the process itself and not
to its number, where the system can do that (pidfd), and never after it was reaped. When the exit status is known,
nothing is left: no entry in the process table, no file descriptor, no reader of the loop.

The kernel says when a process has ended: its pidfd becomes readable. The exit status of a child of the fork server
comes over a pipe from there, a moment later. Without pidfd that pipe is all there is; that of a spawned child closes
when its last copy does.

The loop refers to the reaper, and so to whoever waits; a handle that nobody refers to any more is collected.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading

from yamanote.server._child_process import ChildProcess
from yamanote.sync import SetOnce

__all__ = ["Reaper"]

_UNKNOWN = 255
"""The exit status of a child that somebody else has reaped, or whose fork server was killed."""

_REST = 0.01
"""Seconds until it asks again for the exit status of a process that has ended."""

_PATIENCE = 100
"""How often it asks until it takes the status for lost."""


class Reaper:
    """Watches a process that has started, on the running loop, and sets `ended` to its exit status."""

    __slots__ = ("_is_reaped", "_lock", "_loop", "_owner", "_pidfd", "_process", "_signs", "_tries", "ended", "is_lost")

    def __init__(self, process: ChildProcess, pid: int) -> None:
        self.ended = SetOnce[int]()
        self.is_lost = False
        """Whether it has ended, and the fork server had died before, which would have known how."""
        self._process = process
        self._owner = os.getpid()
        # The collector may come by while it is held, and want to `bury`.
        self._lock = threading.RLock()
        self._is_reaped = False
        self._tries = 0
        self._pidfd = _open_pidfd(pid)
        self._begin_to_watch()

    @property
    def is_elsewhere(self) -> bool:
        """Whether this is a process that somebody has forked off: the child is not its own."""
        return os.getpid() != self._owner

    def watch(self) -> None:
        """See to it that a loop notices the end: the running one, if that which did so before is closed."""
        with self._lock:
            if not self._is_reaped and self._loop.is_closed():
                self._begin_to_watch()

    def send_signal(self, signum: int) -> bool:
        """Send it a signal; tell whether it was still there to get it."""
        with self._lock:
            if self._is_reaped:
                return False
            try:
                if self._pidfd is not None:
                    signal.pidfd_send_signal(self._pidfd, signum)
                elif self._process.exitcode is not None:
                    return False
                else:
                    os.kill(self._process.pid or 0, signum)
            except ProcessLookupError:
                return False
            return True

    def bury(self) -> None:
        """Kill it, and reap it as soon as the loop comes to it; now, if that is closed. Any thread may call it."""
        self.send_signal(signal.SIGKILL)
        try:
            self._loop.call_soon_threadsafe(self._reap_killed)
        except RuntimeError:
            self._signs.clear()
            self._reap_killed()

    def _begin_to_watch(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._signs = [] if self._pidfd is None else [self._pidfd]
        if self._pidfd is None or self._process.is_forked_elsewhere:
            self._signs.append(self._process.sentinel)
        self._await_sign()

    def _await_sign(self) -> None:
        if self._signs:
            self._loop.add_reader(self._signs[0], self._see_sign)
        else:
            self._reap()

    def _see_sign(self) -> None:
        self._loop.remove_reader(self._signs.pop(0))
        self._await_sign()

    def _reap(self) -> None:
        with self._lock:
            if self._is_reaped:
                return
            exitcode = self._process.exitcode
            if exitcode is None and self._tries < _PATIENCE:
                # Another thread, which starts a process just now, has reaped it and will say so in a moment.
                self._tries += 1
                self._loop.call_later(_REST, self._reap)
                return
            self.is_lost = self._process.is_lost
            self._clear_away(_UNKNOWN if exitcode is None else exitcode)

    def _reap_killed(self) -> None:
        with self._lock:
            if self._is_reaped:
                return
            for sign in self._signs[:1]:
                self._loop.remove_reader(sign)
            self._process.join()  # its end is a moment away
            self._clear_away(-signal.SIGKILL)

    def _clear_away(self, exitcode: int) -> None:
        self._is_reaped = True  # first, so that nobody uses what is closed now
        self._process.forget(exitcode)
        if self._pidfd is not None:
            os.close(self._pidfd)
        self.ended.set(exitcode)


def _open_pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # another system, an old kernel, or the fork server has reaped it already
        return None
