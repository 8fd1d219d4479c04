"""Dumps of a whole process, also of one that hangs: what the tasks of all running loops are doing, when a signal comes.

Invariant: the signal handler needs nothing of any loop, so it works while one is blocked; and it cannot fail, so the
program goes on as if nothing had happened.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from types import FrameType
from typing import TextIO

from yamanote.runtime._dump import dump

__all__ = ["dump_all", "dump_on_signal"]


def dump_all() -> str:
    """The `dump` of every loop that is running in any thread of the process.

    A loop whose methods are not written in Python (uvloop) is found when `run` or `asyncio.run` has started it.

    **Threads:** may be called from any thread, in a signal handler too.

    >>> async def main():
    ...     return dump_all()
    >>> print(run(main()))
    The loop in the thread 'MainThread':
    1 task has not ended, at ... on the clock of their loop
    ...
    """
    dumps = [f"The loop in the thread {name!r}:\n{dump(loop)}" for name, loop in _running_loops()]
    return "\n\n".join(dumps) or "No event loop is running."


def dump_on_signal(signum: int | None = None, file: TextIO | None = None) -> ExitStack:
    """From now on, write `dump_all` to `file` whenever the signal comes: ``kill -USR1 <pid>`` shows why it hangs.

    `signum` is SIGUSR1 where there is such a signal, `file` is `sys.stderr`. It works at any moment, also while a task
    blocks its loop: Python runs signal handlers between any two instructions of the main thread. Only where that thread
    is stuck in C the dump waits until it comes back; for that there is `faulthandler.register`.

    Returns what takes it back: ``close()`` it, or use it in a ``with`` statement, and the old handler is restored.

    Raises ValueError for a signal that cannot be handled, and RuntimeError outside of the main thread.

    >>> with dump_on_signal():
    ...     pass  # run(main())
    """
    if signum is None:
        signum = getattr(signal, "SIGUSR1", None)
        if signum is None:
            raise ValueError("signum must be given: this system has no SIGUSR1")
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("dump_on_signal() must be called in the main thread: only there Python runs signal handlers")

    def handle(number: int, frame: FrameType | None) -> None:
        try:
            text = dump_all()
        except Exception as error:  # the program must not notice
            text = f"the dump failed: {error!r}"
        with suppress(Exception):  # a file that has been closed, a pipe that nobody reads
            _write(file or sys.stderr, text + "\n")

    try:
        previous = signal.signal(signum, handle)
    except (OSError, ValueError):
        raise ValueError(f"signum must be a signal that can be handled, not {signum!r}") from None
    undo = ExitStack()
    undo.callback(signal.signal, signum, signal.SIG_DFL if previous is None else previous)
    return undo


def _write(file: TextIO | None, text: str) -> None:
    """Around the buffers, if possible: the signal may have come while the program was writing to them."""
    try:
        left = text.encode(errors="backslashreplace")
        descriptor = file.fileno()  # type: ignore[union-attr]
        while left:
            left = left[os.write(descriptor, left) :]
    except (AttributeError, OSError, ValueError):  # no file of the system
        if file is not None:
            file.write(text)


def _running_loops() -> Iterator[tuple[str, asyncio.AbstractEventLoop]]:
    """The loops that are running, with the names of their threads, the oldest thread first."""
    frames = sys._current_frames()
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        while frame is not None:
            if frame.f_code.co_name in ("run", "run_forever"):
                runner = frame.f_locals.get("self")
                loop = runner.get_loop() if isinstance(runner, asyncio.Runner) else runner
                if isinstance(loop, asyncio.AbstractEventLoop):
                    yield thread.name, loop
                    break
            frame = frame.f_back
