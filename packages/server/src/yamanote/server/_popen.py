"""What `multiprocessing` starts a child with, mended in two places. For POSIX systems only.

Invariant: to start a child writes nothing to the streams of the parent, and its exit status is read by one thread.

`multiprocessing` writes out first what the parent has in its buffers, which no child of these kinds could inherit: if
the disk is full, that fails. And whoever starts a process asks for the exit status of all that have ended: of two
threads that read it from the pipe of the fork server, one finds nothing there, and takes the child for lost.
"""

from __future__ import annotations

import os
import threading
from multiprocessing import forkserver, popen_fork, popen_forkserver, popen_spawn_posix
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

__all__ = ["ForkServerPopen", "SpawnPopen"]


class _Popen(popen_fork.Popen):
    is_lost = False
    """Whether the one has died who knew the exit status. It is 255 then."""

    def __init__(self, process_obj: BaseProcess) -> None:
        # All that the real one does, but for the flush.
        self._fds: list[int] = []
        self.returncode = None
        self.finalizer = None
        self._reading = threading.Lock()
        self._launch(process_obj)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


class SpawnPopen(_Popen, popen_spawn_posix.Popen):
    """For "spawn". Of two threads that reap at once, one is told that there is nothing to reap: it can ask again."""


class ForkServerPopen(_Popen, popen_forkserver.Popen):
    """For "forkserver"."""

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        if flag != os.WNOHANG:
            wait([self.sentinel])
        with self._reading:
            # As the real one, which does not tell what nobody knows from what was said.
            if self.returncode is None and wait([self.sentinel], 0):
                try:
                    self.returncode = forkserver.read_signed(self.sentinel)
                except (OSError, EOFError):
                    self.returncode = 255
                    self.is_lost = True
            return self.returncode
