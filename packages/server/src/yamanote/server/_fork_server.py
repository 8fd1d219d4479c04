"""What the fork server of `multiprocessing` imports before it serves, and nobody else does.

Invariant: no signal that a program may handle ends the fork server; its children find all signals as it found them.

A signal to the whole process group, as of a terminal that is closed, goes to the fork server as well. Without it,
nobody would learn any more how its children end.
"""

from __future__ import annotations

import os
import signal

__all__: list[str] = []

# SIGINT it ignores of its own accord.
_IGNORED = (signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)

_before = {signum: signal.signal(signum, signal.SIG_IGN) for signum in _IGNORED}


def _begin_child() -> None:
    for signum, handler in _before.items():
        signal.signal(signum, handler)


os.register_at_fork(after_in_child=_begin_child)
