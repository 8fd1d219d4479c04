"""A worker, as the one sees it who starts and stops it: a process or a thread.

Invariant: `launch` returns when the worker is ready, or raises when nothing of it is left. Its end is known to whoever
waits for it, however it came. A stop begins once, whoever asks for it, and has three steps with a deadline each: told,
terminated, killed; when it is over, so is the worker.
"""

from __future__ import annotations

import asyncio
import signal
from abc import ABC, abstractmethod
from asyncio import CancelledError
from logging import getLogger
from signal import SIGTERM, Signals
from typing import ClassVar

from yamanote.runtime import shield_wait, start_task
from yamanote.server._counted import counted

__all__ = ["LAST_SECONDS", "TERMINATED", "Worker", "WorkerError", "ending", "log"]

log = getLogger("yamanote")

LAST_SECONDS = 1.0
"""What is left to a worker that did not stop within its grace, between being terminated and being killed."""

TERMINATED = 128 + SIGTERM
"""The exit status of a worker that ended because it was terminated."""


class WorkerError(RuntimeError):
    """A worker of `start_server` could not start, or died, or did not stop in order.

    The message says which and how. What the worker itself raised has been printed where it was raised: on the standard
    error of its process, or by its thread.
    """

    index: int
    """Which worker it was, from 0 on."""
    exitcode: int | None
    """Its exit status, as of a process (also for a thread): -N when signal N ended it, None for a thread that was left
    behind.
    """

    def __init__(self, message: str, index: int, exitcode: int | None) -> None:
        super().__init__(message)
        self.index = index
        self.exitcode = exitcode

    def __reduce__(self) -> tuple[type[WorkerError], tuple[str, int, int | None]]:
        return WorkerError, (str(self), self.index, self.exitcode)


class Worker(ABC):
    """One attempt at a worker; the next one is another object."""

    terminating: ClassVar[tuple[str, str]] = "terminating", "terminated"
    """What is done to one that is late, in words: doing so, and done."""
    killing: ClassVar[str] = "killing {}"
    """What is done to whom in the end."""

    def __init__(self, index: int, grace: float) -> None:
        self.index = index
        self._label = f"worker {index}"
        self._grace = grace
        self._stopping: asyncio.Task[None] | None = None
        self._told: Signals | None = None
        self._late = False
        self._exitcode: int | None = None
        self.open = False
        """Whether there is something that can be told, and has not ended."""

    async def launch(self, timeout: float | None) -> None:
        """Start it, and return when it is ready. Raises WorkerError when it ends before, or needs longer.

        **Cancel safety:** it is stopped, and has ended when the cancellation is raised.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._open()
                self.open = True
                if await self._ready():
                    return
                await self.wait()
        except TimeoutError:
            assert timeout is not None
            late = f"was not ready within {counted(timeout, 'second')}"
            log.warning("%s %s: stopping it", self, late)
            await self.stop(SIGTERM)
            raise self._error(late) from None
        except CancelledError:
            await self.stop(SIGTERM)
            raise
        raise self._error(f"{self._ending()} before it was ready")

    async def wait(self) -> None:
        """Wait until it has ended, also when that was not in order. **Cancel safety:** does nothing to the worker."""
        self._exitcode = await self._wait()
        self.open = False

    def death(self) -> WorkerError | None:
        """Why a worker has ended which nobody has told to, unless that was in order."""
        return None if self._exitcode == 0 else self._error(self._ending())

    def farewell(self) -> WorkerError | None:
        """What was wrong with the end of a worker that was told to stop."""
        if self._late:
            return self._error(f"did not stop within {counted(self._grace, 'second')}, and {self._ending()}")
        # A signal to the whole process group may have been quicker than we were.
        if self._exitcode in (0, -(self._told or SIGTERM), -SIGTERM):
            return None
        return self._error(f"{self._ending()} when it was to stop")

    def begin_to_stop(self, signum: Signals) -> None:
        """Tell it to stop, and see to it that it does. Later calls do nothing."""
        if self._stopping is None and self.open:
            self._told = signum
            self._stopping = start_task(self._stop(signum), name=f"stop of {self}")

    async def stop(self, signum: Signals) -> None:
        """`begin_to_stop`, and wait until it has ended.

        **Cancel safety:** a cancellation changes nothing, as a stop has deadlines; it is raised when that is over.
        """
        self.begin_to_stop(signum)
        if self._stopping is not None:
            await shield_wait(self._stopping)

    def kill(self) -> None:
        """End it now. Somebody has to wait for it all the same."""
        if self.open:
            self._kill()

    async def _stop(self, signum: Signals) -> None:
        self._tell(signum)
        if await self._ends_within(self._grace):
            if self.farewell() is None:
                log.info("%s %s", self, self._ending_in_order())
            return
        self._late = True
        doing, done = self.terminating
        log.warning("%s did not stop within %s: %s it", self, counted(self._grace, "second"), doing)
        self._terminate()
        if await self._ends_within(LAST_SECONDS):
            return
        log.error("%s did not stop when it was %s: %s", self, done, self.killing.format("it"))
        self.kill()
        await self.wait()

    async def _ends_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.wait()
        except TimeoutError:
            return False
        return True

    def _ending(self) -> str:
        return ending(self._exitcode)

    def _ending_in_order(self) -> str:
        return "has ended"

    def _error(self, what: str) -> WorkerError:
        return WorkerError(f"{self} {what}", self.index, self._exitcode)

    @abstractmethod
    async def _open(self) -> None:
        """Make it. When that raises or is cancelled, nothing is left of it."""

    @abstractmethod
    async def _ready(self) -> bool:
        """Whether it has become ready, or False when it cannot any more."""

    @abstractmethod
    async def _wait(self) -> int | None:
        """Its exit code, when it has ended."""

    @abstractmethod
    def _tell(self, signum: Signals) -> None: ...

    @abstractmethod
    def _terminate(self) -> None: ...

    @abstractmethod
    def _kill(self) -> None: ...

    def __str__(self) -> str:
        return self._label


def ending(exitcode: int | None) -> str:
    """The end of a sentence about who has ended like that."""
    if exitcode is None:
        return "was left behind"
    if exitcode >= 0:
        return f"ended with exit status {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:  # one of the real-time signals
        name = f"signal {-exitcode}"
    return f"was killed by {name}"
