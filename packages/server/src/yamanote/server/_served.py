"""One connection of a server: the task which runs the handler on it.

Invariant: it has ended, and says so once, when its task is done *and* its wire is lost. Both are learnt from callbacks
and neither is awaited.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
import ssl
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from yamanote.runtime import start_task
from yamanote.server._wire import Wire

__all__ = ["Handler", "Served"]

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, object]]


class Served:
    """An accepted socket, and the task which runs the handler on it."""

    __slots__ = ("_aborted", "_ended", "_handled", "_handler", "_loop", "_wire", "task")

    def __init__(
        self,
        accepted: socket.socket,
        peer: object,
        handler: Handler,
        *,
        tls: ssl.SSLContext | None,
        context: Context,
        ended: Callable[[Served], None],
    ) -> None:
        self._handler = handler
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._aborted = False
        self._handled = False
        self._wire = Wire(accepted, peer, tls=tls, gone=self._wire_lost)
        self.task = start_task(self._run(), name=self._wire.name, context=context)
        self.task.add_done_callback(self._task_done)

    def abort(self) -> None:
        """End now: cancel the handler, and throw away what is left to send."""
        if self._aborted:
            return
        self._aborted = True
        if not self._wire.opening:
            self.task.cancel()
        # Not when the handler has ended: a clean-up that still writes would wait for a peer which does not read.
        self._wire.abort()

    async def _run(self) -> None:
        wire = self._wire
        await wire.open()
        streams = wire.streams
        if not self._aborted and streams is not None:
            handling: Any = self._handler(*streams)
            if not inspect.isawaitable(handling):
                raise TypeError(f"the handler {self._handler!r} is not an async function: it returned {handling!r}")
            await handling

    def _task_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._report(task.exception())
        self._handled = True
        if self._wire.lost:
            self._end()
        else:
            self._wire.close()

    def _wire_lost(self) -> None:
        if self._handled:  # a task that is done may not have told it yet
            self._end()

    def _end(self) -> None:
        self._ended(self)
        del self.task  # the traceback of its error refers to this object

    def _report(self, error: BaseException | None) -> None:
        # Not from within the task: the handler runs in the task's context, which must not be entered twice.
        if not isinstance(error, Exception):  # a KeyboardInterrupt, say, has gone through the loop already
            return
        if self._aborted and isinstance(error, OSError):  # its reads and writes fail: no news
            return
        what = "failed in its handler"
        if self._wire.opening:
            # A handshake that fails is the peer's affair, and any port scanner can cause it.
            if isinstance(error, OSError) and not self._loop.get_debug():
                return
            what = "could not be opened"
        message = f"{self._wire.name} {what}"
        self._loop.call_exception_handler({"message": message, "exception": error, "task": self.task})
