"""`Child`: the handle of a process that `afork` has started.

Invariant: a child is stopped by who has its handle, or, when nobody has it any more, by the collector, which warns.
"""

from __future__ import annotations

import asyncio
import signal
import warnings
from contextlib import suppress
from types import TracebackType
from typing import Any, final

from yamanote.runtime import Waiter, finish_within, shield_wait
from yamanote.server._child_process import ChildProcess
from yamanote.server._reaper import Reaper
from yamanote.server._seconds import require_seconds

__all__ = ["Child", "ChildStartError"]


class ChildStartError(RuntimeError):
    """A child process ended before it called its function. What went wrong there is on the standard error stream."""

    exitcode: int
    """How it ended, as in `Child.exitcode`; 255 if it was the fork server that ended."""

    def __init__(self, message: str, exitcode: int) -> None:
        super().__init__(message, exitcode)
        self.exitcode = exitcode

    def __str__(self) -> str:
        return str(self.args[0])


@final
class Child:
    """A process that `afork` has started. ``async with child:`` stops it at the end of the block.

    It can be waited for with `park` and `select`, too, and gives its exit status. A child that nobody refers to any
    more is killed and reaped, with a ResourceWarning. One whose loop is closed while it runs goes on: its end is
    noticed when another loop waits for it, and Python waits for it when the program ends.

    **Threads:** all methods may be called from any thread, and on any loop.
    """

    __slots__ = ("__weakref__", "_reaper", "name", "pid")

    pid: int
    """The number of the process. When it has ended, another one may get it."""

    name: str
    """What `afork` was told, or the name of the function."""

    def __init__(self, process: ChildProcess) -> None:
        if process.pid is None:
            raise RuntimeError("this process has not started: call `afork`")
        self.pid = process.pid
        self.name = process.name
        self._reaper = Reaper(process, process.pid)

    @property
    def exitcode(self) -> int | None:
        """The exit status; -N when signal N has ended it; None as long as it runs.

        255 if it cannot be known: somebody else has reaped the process, or its fork server was killed.
        """
        ended = self._reaper.ended
        return ended.get() if ended.is_set() else None

    @property
    def _is_lost(self) -> bool:
        return self._reaper.is_lost

    def send_signal(self, signum: int) -> bool:
        """Send it a signal; False if it was known to have ended, and nothing was sent.

        Raises ValueError and TypeError for what is no signal.
        """
        if isinstance(signum, bool) or not isinstance(signum, int):
            raise TypeError(f"signum must be a signal, such as signal.SIGTERM, not {signum!r}")
        if signum not in signal.valid_signals():
            raise ValueError(f"signum must be a signal, not {signum}, which is none on this platform")
        return self._reaper.send_signal(signum)

    def terminate(self) -> bool:
        """Send it SIGTERM; False if it was known to have ended, and nothing was sent."""
        return self.send_signal(signal.SIGTERM)

    def kill(self) -> bool:
        """Send it SIGKILL; False if it was known to have ended, and nothing was sent."""
        return self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        """Wait until it has ended; return its `exitcode`.

        **Cancel safety:** nothing to lose; the child goes on.
        """
        self._reaper.watch()
        return await self._reaper.ended.wait()

    async def stop(self, grace: float | None = 10.0) -> int:
        """End it: send SIGTERM, after `grace` seconds SIGKILL; return its `exitcode` when it was reaped.

        None for `grace` gives it all the time that it takes. Returns at once when it has ended already.

        Raises ValueError and TypeError for a `grace` that is no number of seconds.

        **Cancel safety:** it is killed now, and the cancellation is raised when it was reaped.
        """
        require_seconds("grace", grace, none="no end")
        self.terminate()
        try:
            with suppress(TimeoutError):
                return await finish_within(grace, self.wait())
        except asyncio.CancelledError:
            await self._end_now()
            raise
        return await self._end_now()

    async def _end_now(self) -> int:
        """Kill it, and wait until it was reaped, however often this call is cancelled meanwhile."""
        self.kill()
        return await shield_wait(self.wait())

    def register(self, waiter: Waiter[Any], /) -> None:
        """Park `waiter` until it has ended. See `yamanote.runtime.Selectable`."""
        self._reaper.watch()
        self._reaper.ended.register(waiter)

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        """Forget `waiter`."""
        self._reaper.ended.withdraw(waiter)

    async def __aenter__(self) -> Child:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def __del__(self) -> None:
        if self.exitcode is None and not self._reaper.is_elsewhere:
            problem = f"{self!r} was not waited for: it is killed"
            self._reaper.bury()  # first, for a warning may be an error
            warnings.warn(problem, ResourceWarning, stacklevel=1, source=self)

    def __repr__(self) -> str:
        state = "running" if self.exitcode is None else f"ended with {self.exitcode}"
        return f"<Child {self.name!r} pid={self.pid} {state}>"
