"""What the fork server of `multiprocessing` imports before it serves, and nobody else does.

Invariant: no signal that a program may handle ends the fork server. Its children find all signals as it found them,
but blocked until they are about to run: one that is to handle a signal does not die of it while it is imported.

A signal to the whole process group, as of a terminal that is closed, goes to the fork server as well. Without it,
nobody would learn any more how its children end.
"""

from __future__ import annotations

import os
import signal
from multiprocessing import process, util

from yamanote.server._child_process import ChildProcess

__all__: list[str] = []

# SIGINT it ignores of its own accord.
_IGNORED = (signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)

_before = {signum: signal.signal(signum, signal.SIG_IGN) for signum in _IGNORED}
"""Empty in a child, and so for those that it may fork off itself: they have the handlers that it has."""

_masks: list[set[signal.Signals | int]] = []


def _begin_child() -> None:
    if _before:
        _masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, *_IGNORED)))
    while _before:
        signal.signal(*_before.popitem())


def _unblock(_: object) -> None:
    """Called by each process of `multiprocessing`, of whatever kind, when it is about to run."""
    if _masks:
        mask = _masks.pop()
        if not isinstance(process.current_process(), ChildProcess):  # which does it when it has got its function
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


os.register_at_fork(after_in_child=_begin_child)
util.register_after_fork(_unblock, _unblock)
