"""A worker in a thread of its own.

Invariant: everything that the thread runs is in its own loop and an empty context, and what it tells goes through the
loop of whoever has started it. Nobody can end a thread from outside: one that does not end when it is cancelled is
shown in the log, and left behind.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from asyncio import AbstractEventLoop, CancelledError
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from contextvars import Context
from signal import Signals
from typing import Any, ClassVar, final

from yamanote.runtime import dump, run
from yamanote.server._child_process import status_of
from yamanote.server._worker import TERMINATED, Worker, log
from yamanote.server._worker_life import WorkerFunction, WorkerLife

__all__ = ["ThreadWorker"]


@final
class ThreadWorker(Worker):
    """A daemon thread, so that one which is left behind does not keep the program from ending."""

    terminating: ClassVar[tuple[str, str]] = "cancelling", "cancelled"
    killing: ClassVar[str] = "leaving {} behind"

    def __init__(
        self,
        function: WorkerFunction,
        index: int,
        args: Sequence[object],
        *,
        loop_factory: Callable[[], AbstractEventLoop] | None,
        grace: float,
    ) -> None:
        super().__init__(index, grace)
        self._label += " (thread)"
        self._function = function
        self._args = args
        self._loop_factory = loop_factory

    async def _open(self) -> None:
        self._home = asyncio.get_running_loop()
        self._ended: asyncio.Future[int | None] = self._home.create_future()
        self._started: asyncio.Future[bool] = self._home.create_future()
        with ExitStack() as sockets:
            # As a process has its own sockets: closing those of one worker must not close those of the others.
            args = [sockets.enter_context(_duplicate(a)) if isinstance(a, socket.socket) else a for a in self._args]
            self._life = WorkerLife(self._function, self.index, args)
            self._sockets = sockets.pop_all()
        # On free-threaded Python a thread would have the context of its starter.
        self._thread = threading.Thread(
            target=Context().run, args=(self._live,), name=f"worker {self.index}", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError:  # the system has no room for another one
            self._sockets.close()
            raise

    async def _ready(self) -> bool:
        return await asyncio.shield(self._started)

    async def _wait(self) -> int | None:
        return await asyncio.shield(self._ended)

    def _tell(self, signum: Signals) -> None:
        self._life.tell(signum)

    def _terminate(self) -> None:
        self._life.cancel()

    def _kill(self) -> None:
        self._life.cancel()
        if not self._ended.done():
            if self._life.loop is not None:
                log.error("%s is left behind: %s", self, dump(self._life.loop))
            if not self._home.is_closed():  # or nobody waits any more
                self._settle(None)

    # ---------------------------------------------------------------- in the thread of the worker

    def _live(self) -> None:
        exitcode = 1
        try:
            with self._sockets:
                run(
                    self._life.run(lambda: self._report(self._set_ready)),
                    loop_factory=self._loop_factory,
                    shutdown_timeout=self._grace,
                )
            exitcode = 0
        except SystemExit as error:
            exitcode = status_of(error)
        except BaseException as error:
            if isinstance(error, CancelledError) and self._life.cancelled:
                exitcode = TERMINATED
            else:
                # Now, and not when it comes out of the thread: it is to be seen before what is made of it.
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), self._thread)))
        finally:  # also when there is no room left to show anything
            self._report(self._end, exitcode)

    def _report(self, callback: Callable[..., object], *args: Any) -> None:
        with suppress(RuntimeError):  # it has been left behind, and nobody listens any more
            self._home.call_soon_threadsafe(callback, *args)

    def _set_ready(self) -> None:
        if not self._started.done():
            self._started.set_result(True)

    def _end(self, exitcode: int) -> None:
        self._thread.join()  # this was the last that it had to do
        self._settle(exitcode)

    def _settle(self, exitcode: int | None) -> None:
        if not self._ended.done():
            self._ended.set_result(exitcode)
        if not self._started.done():
            self._started.set_result(False)


def _duplicate(original: socket.socket) -> socket.socket:
    """One more descriptor of it. `socket.dup` would make it block again, and with it those that serve already."""
    duplicate = type(original)(original.family, original.type, original.proto, fileno=os.dup(original.fileno()))
    if original.gettimeout() is not None:
        duplicate.settimeout(original.gettimeout())
    return duplicate
