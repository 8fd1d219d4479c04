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
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

from yamanote.runtime._dump import calls_of_thread
from yamanote.runtime._handle import give_up_brought, refuse_from_now_on
from yamanote.runtime._interrupt import is_main_thread
from yamanote.runtime._placed import Placed
from yamanote.runtime._placing import Starter
from yamanote.runtime._shutdown import abandon, shut_down
from yamanote.runtime._task import make_task, on_loop

__all__ = ["GRACE", "Worker", "Workers"]

T = TypeVar("T")

GRACE = 0.5
"""Seconds, beyond any budget, in which threads that are told to stop do so, unless a call blocks them."""

_logger = logging.getLogger("yamanote")


class Workers:
    """All workers of a runtime, and `home`, the loop of its calls, in the thread that makes them.

    The first worker is on that loop. Not on free-threaded Python: there CPython's main thread and others slow each
    other down, as if they shared a core for half of their time, and new threads do not. So there all workers have
    threads of their own, and home waits for the end of the calls, and for signals.
    """

    __slots__ = ("all", "home", "in_main_thread", "in_threads")

    def __init__(self, loops: list[AbstractEventLoop], home: AbstractEventLoop | None = None) -> None:
        self.home = home = loops[0] if home is None else home
        self.in_main_thread = False  # whether home runs where signals arrive
        idle: deque[Starter] = deque()
        self.all = [Worker(self, loop, number, idle) for number, loop in enumerate(loops)]
        self.in_threads = [worker for worker in self.all if worker.loop is not home]
        for number, worker in enumerate(self.all):
            worker.meet([*self.all[number + 1 :], *self.all[:number]])

    def start(self) -> None:
        """Start the threads, if they have not been started. In that of home."""
        self.in_main_thread = is_main_thread()
        for worker in self.in_threads:
            if worker.thread is None:
                worker.start_thread()

    def make_main(self, coroutine: Coroutine[Any, Any, T], context: Context) -> asyncio.Task[T] | Placed[T]:
        """What runs `coroutine`, of a call, on the first worker; it belongs to home, which is about to run."""
        self.start()
        first = self.all[0]
        if first.loop is self.home:
            return make_task(coroutine, self.home, context=context)
        placed = Placed(coroutine, self.home, None, context)
        # When home runs, which may be asked for something. Not as one that is spawned: it is not for the balance, and
        # SystemExit in its first step is raised only.
        self.home.call_soon(on_loop, first.loop, placed.begin, first.loop, False)
        return placed

    def end(self, timeout: float) -> list[asyncio.Future[None]]:
        """End everything on all loops but home, in at most `timeout` seconds; return what is done then. On home.

        What has not been started never is, and what is spawned from now on starts where it is spawned.
        """
        for worker in self.all:
            worker.ending = True
        self.start()  # there may be something that was brought before the first call
        return [worker.end(timeout, self.home.create_future()) for worker in self.in_threads]

    def stop(self) -> None:
        """Have the threads end, whatever they run."""
        for worker in self.all:
            worker.ending = True
            worker.give_up_backlog()
        for worker in self.in_threads:
            worker.stop()

    def join(self) -> None:
        """Wait for their end, and name those that do not come to it."""
        time = self.home.time
        deadline = time() + GRACE
        for worker in self.in_threads:
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
        try:
            self.thread.start()
        except BaseException:  # there are too many, or Ctrl-C, which may also come a moment later
            if self.thread.ident is None:
                self.thread = None
            raise

    def _run(self) -> None:
        loop = self.loop
        try:
            self.wake()
            while not self._stopping:
                try:
                    loop.run_forever()
                except (KeyboardInterrupt, SystemExit) as error:  # as in the main thread, it ends the runtime
                    on_loop(self.workers.home, _raise, error)
        finally:
            self._close()

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
            self._close()
        else:
            on_loop(self.loop, self._stop)

    def _stop(self) -> None:
        self._stopping = True
        self.loop.stop()

    def _close(self) -> None:
        self.give_up_backlog()
        abandon(self.loop, self._ended)
        self.loop.close()

    def join(self, timeout: float) -> None:
        """Wait for the end of the thread; name it, and what it is doing, if it does not end in time."""
        thread = self.thread
        if thread is None:
            return
        thread.join(timeout)
        if thread.is_alive():
            refuse_from_now_on(self.loop)
            give_up_brought(self.loop)
            lines = "\n".join(calls_of_thread(thread.ident or 0))
            _logger.warning("worker %d (%s) is stuck, and left behind:\n%s", self.number, thread.name, lines)


def _raise(error: BaseException) -> None:
    raise error


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _nothing() -> None: ...
