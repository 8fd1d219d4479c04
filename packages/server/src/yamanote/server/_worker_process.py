"""A worker in a process of its own.

Invariant: orders and the word "ready" go over a pair of sockets, of which each process has one end and nobody else has
any; so the end of either process is the end of the line to the other. Stop signals that reach a worker directly do
nothing there: the terminal sends Ctrl-C to all processes alike, and the worker hears of it from its parent. They are
blocked until the worker can handle them. A worker does not outlive its parent for long, whatever its loop does.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from asyncio import AbstractEventLoop, CancelledError
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from contextlib import suppress
from multiprocessing import connection, parent_process
from signal import SIGKILL, SIGTERM, Signals
from types import FrameType
from typing import Literal, final

from yamanote.runtime import contextualize, run, signals
from yamanote.server._afork import start_child
from yamanote.server._child import Child, ChildStartError
from yamanote.server._worker import LAST_SECONDS, TERMINATED, Worker, WorkerError, ending
from yamanote.server._worker_life import WorkerFunction, WorkerLife

__all__ = ["ProcessWorker"]

_READY = b"r"
_LOST = "ended with an unknown status, as the fork server has died"
_TERMINATE = 0
"""An order in one byte. All others are the numbers of signals."""


@final
class ProcessWorker(Worker):
    """Started with `afork`."""

    def __init__(
        self,
        function: WorkerFunction,
        index: int,
        args: Sequence[object],
        *,
        loop_factory: Callable[[], AbstractEventLoop] | None,
        method: Literal["spawn", "forkserver"],
        ignored: Iterable[Signals],
        grace: float,
    ) -> None:
        super().__init__(index, grace)
        self._method: Literal["spawn", "forkserver"] = method
        self._ignored = tuple(ignored)
        self._args = (function, index, args, loop_factory, self._ignored, grace)
        self._child: Child
        self._line: socket.socket
        self._became_ready: asyncio.Future[bool]

    async def _open(self) -> None:
        line, theirs = socket.socketpair()
        line.setblocking(False)
        try:
            with theirs:
                name = f"worker {self.index}"
                self._child = await start_child(
                    _live,
                    (_Guard(self._grace), theirs, *self._args),
                    name=name,
                    method=self._method,
                    blocked=(SIGTERM, *self._ignored),
                )
        except BaseException as error:
            line.close()
            if not isinstance(error, ChildStartError):
                raise
            self._exitcode = error.exitcode
            raise self._error(f"{ending(error.exitcode)} before it could begin") from None
        self._label += f" (process {self._child.pid})"
        loop = asyncio.get_running_loop()
        self._line = line
        self._became_ready = loop.create_future()
        loop.add_reader(line, self._heard)

    async def _ready(self) -> bool:
        return await asyncio.shield(self._became_ready)

    async def _wait(self) -> int:
        exitcode = await self._child.wait()
        self._hang_up()
        return exitcode

    def farewell(self) -> WorkerError | None:
        if self._child._is_lost and not self._late:
            return None  # it has ended in time; whatever it has failed with, it has shown
        return super().farewell()

    def _ending_in_order(self) -> str:
        return _LOST if self._child._is_lost else super()._ending_in_order()

    def _ending(self) -> str:
        return _LOST if self._child._is_lost else super()._ending()

    def _heard(self) -> None:
        try:
            ready = self._line.recv(1) == _READY
        except BlockingIOError:
            return
        except ConnectionError:  # it has ended, and not read what it was told
            ready = False
        if ready and not self._became_ready.done():
            self._became_ready.set_result(True)
        if not ready:
            asyncio.get_running_loop().remove_reader(self._line)
            if not self._became_ready.done():
                self._became_ready.set_result(False)

    def _hang_up(self) -> None:
        if self._line.fileno() != -1:
            asyncio.get_running_loop().remove_reader(self._line)
            self._line.close()
        if not self._became_ready.done():
            self._became_ready.set_result(False)

    def _tell(self, signum: Signals) -> None:
        self._send(signum)

    def _terminate(self) -> None:
        self._send(_TERMINATE)
        self._child.terminate()

    def _kill(self) -> None:
        self._child.kill()

    def _send(self, order: int) -> None:
        with suppress(OSError):  # it has ended
            self._line.send(bytes([order]))


# ---------------------------------------------------------------- in the process of the worker


class _Guard:
    """Begins when it is unpickled in the worker, before anything else of it, which may block already."""

    def __init__(self, grace: float) -> None:
        self._grace = grace

    def __reduce__(self) -> tuple[Callable[[float], list[object]], tuple[float]]:
        return _end_with_parent, (self._grace,)


def _live(
    kept: list[object],
    line: socket.socket,
    function: WorkerFunction,
    index: int,
    args: Sequence[object],
    loop_factory: Callable[[], AbstractEventLoop] | None,
    ignored: Iterable[Signals],
    grace: float,
) -> int:
    for signum in ignored:
        # A function and not SIG_IGN, which the programs that the worker starts would inherit.
        signal.signal(signum, _do_nothing)
    life = WorkerLife(function, index, args)
    # A socket that it shares with others need not be closed by the worker: it is not collected as a forgotten one.
    kept.append(life)
    with line:
        try:
            run(_obeying(life, line, ignored, grace), loop_factory=loop_factory, shutdown_timeout=grace)
        except CancelledError:
            if not life.cancelled:
                raise
            return TERMINATED
    return 0


async def _obeying(life: WorkerLife, line: socket.socket, ignored: Iterable[Signals], grace: float) -> None:
    loop = asyncio.get_running_loop()
    line.setblocking(False)

    def ready() -> None:
        with suppress(OSError):  # the parent has died
            line.send(_READY)

    def heard() -> None:
        try:
            orders = line.recv(16)
        except BlockingIOError:
            return
        except ConnectionError:
            orders = b""
        for order in orders:
            if order == _TERMINATE:
                life.cancel()
            else:
                life.tell(Signals(order))
        if not orders:  # the parent has died
            loop.remove_reader(line)
            life.tell(SIGTERM)
            loop.call_later(grace, life.cancel)

    loop.add_reader(line, heard)
    try:
        with signals(SIGTERM) as terminations:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (SIGTERM, *ignored))
            async with contextualize(_tell_of(terminations, life)):
                await life.run(ready)
    finally:
        loop.remove_reader(line)


async def _tell_of(arrived: AsyncIterable[Signals], life: WorkerLife) -> None:
    """Stop in order when somebody sends the signal to this process alone, or to all at once."""
    async for signum in arrived:
        life.tell(signum)


def _end_with_parent(grace: float) -> list[object]:
    """See to it that this worker does not outlive its parent for long; return a list that lives as long as the worker.

    In a thread, as the main one may be what does not stop.
    """
    kept: list[object] = []
    threading.Thread(target=_wait_and_die, args=(grace, kept), name="parent of the worker", daemon=True).start()
    return kept


def _wait_and_die(grace: float, kept: list[object]) -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        time.sleep(grace + LAST_SECONDS)
        os.kill(os.getpid(), SIGKILL)


def _do_nothing(signum: int, frame: FrameType | None) -> None: ...
