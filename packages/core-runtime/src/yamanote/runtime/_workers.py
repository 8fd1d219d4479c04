"""Workers: the loops of a multi-threaded runtime, and the threads that they run in.

Invariant: a worker that was told to end starts nothing more; what has not been started by then is closed, by the
worker, or by who comes with it after the worker has looked for the last time. The end of a thread that a call blocks is
not waited for beyond a budget, and it is named.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from asyncio import AbstractEventLoop
from collections import deque
from contextvars import Context

from yamanote.runtime._dump import calls_of_thread
from yamanote.runtime._interrupt import is_main_thread
from yamanote.runtime._placing import Starter
from yamanote.runtime._shutdown import abandon, shut_down
from yamanote.runtime._task import make_task, on_loop

__all__ = ["Worker", "Workers"]

_GRACE = 0.5
"""Seconds, beyond any budget, in which threads that are told to stop do so, unless a call blocks them."""

_logger = logging.getLogger("yamanote")


class Workers:
    """All workers of a runtime. The first one is the loop of the runtime itself, in the thread that runs that."""

    __slots__ = ("all", "in_main_thread")

    def __init__(self, loops: list[AbstractEventLoop]) -> None:
        self.in_main_thread = False  # whether the first one runs where signals arrive
        idle: deque[Starter] = deque()
        self.all = [Worker(self, loop, number, idle) for number, loop in enumerate(loops)]
        for number, worker in enumerate(self.all):
            worker.meet([*self.all[number + 1 :], *self.all[:number]])

    def start(self) -> None:
        """The first one is about to run in this thread: start those of the others, if they have not been started."""
        self.in_main_thread = is_main_thread()
        for worker in self.all[1:]:
            if worker.thread is None:
                worker.start_thread()

    def end(self, timeout: float) -> list[asyncio.Future[None]]:
        """End everything on all loops but this one, the first, in at most `timeout` seconds; return what is done then.

        What has not been started never is, and what is spawned from now on starts where it is spawned.
        """
        for worker in self.all:
            worker.ending = True
        loop = asyncio.get_running_loop()
        return [worker.end(timeout, loop.create_future()) for worker in self.all[1:] if worker.thread is not None]

    def stop(self) -> None:
        """Have the threads end, whatever they run, and name those that do not."""
        for worker in self.all:
            worker.ending = True
            worker.give_up_backlog()
        for worker in self.all[1:]:
            worker.stop()
        time = self.all[0].loop.time
        deadline = time() + _GRACE
        for worker in self.all[1:]:
            worker.join(max(0.0, deadline - time()))


class Worker(Starter):
    """One loop, and the thread that it runs in."""

    __slots__ = ("_ended", "number", "thread", "workers")

    def __init__(self, workers: Workers, loop: AbstractEventLoop, number: int, idle: deque[Starter]) -> None:
        super().__init__(loop, idle)
        self.workers = workers
        self.number = number
        self.thread: threading.Thread | None = None
        self._ended: asyncio.Task[None] | None = None
        loop._yamanote_worker = self  # type: ignore[attr-defined]

    def start_thread(self) -> None:
        """Run the loop in a thread of its own."""
        # In a context of its own: a free-threaded Python would give it that of the caller.
        self.thread = threading.Thread(
            target=Context().run, args=[self._run], name=f"yamanote-worker-{self.number}", daemon=True
        )
        self.thread.start()

    def _run(self) -> None:
        loop = self.loop
        try:
            self.wake()
            while not self._stopping:
                try:
                    loop.run_forever()
                except (KeyboardInterrupt, SystemExit) as error:  # as in the main thread, it ends the runtime
                    on_loop(self.workers.all[0].loop, _raise, error)
        finally:
            self.give_up_backlog()
            abandon(loop, self._ended)
            loop.close()

    def end(self, timeout: float, ended: asyncio.Future[None]) -> asyncio.Future[None]:
        """End everything on the loop; `ended`, which belongs to another one, is done then."""

        def begin() -> None:
            # Eagerly: one that is told to stop in the same turn must not have a coroutine that never ran.
            self._ended = make_task(shut_down(timeout, _nothing), self.loop, "the end of a worker", eager=True)
            self._ended.add_done_callback(lambda _: on_loop(ended.get_loop(), _settle, ended))

        self.loop.call_soon_threadsafe(begin)
        return ended

    def stop(self) -> None:
        """Have the thread end, whatever runs there."""
        if self.thread is None:
            self.loop.close()
        else:
            on_loop(self.loop, self._stop)

    def _stop(self) -> None:
        self._stopping = True
        self.loop.stop()

    def join(self, timeout: float) -> None:
        """Wait for the end of the thread; name it, and what it is doing, if it does not end in time."""
        thread = self.thread
        if thread is None:
            return
        thread.join(timeout)
        if thread.is_alive():
            lines = "\n".join(calls_of_thread(thread.ident or 0))
            _logger.warning("worker %d (%s) is stuck, and left behind:\n%s", self.number, thread.name, lines)


def _raise(error: BaseException) -> None:
    raise error


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _nothing() -> None: ...
