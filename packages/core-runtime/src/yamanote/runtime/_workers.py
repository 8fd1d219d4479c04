"""Workers: the loops of a multi-threaded runtime, and who starts what has been spawned.

Invariant: a coroutine that is placed is started once, by one worker, or closed; from its first instruction on it stays
on that worker's loop. A worker starts what was spawned on it, oldest first, and takes half of another's backlog, oldest
first, when it has none left; what stands for many coroutines is split by who has taken it out. Nobody sleeps beside a
backlog that its owner does not come to: who places the second, or begins one while others are left, wakes an idle
worker; and a worker that goes idle says so *and then* looks at all backlogs.

Placed coroutines stay in the backlog until a worker really comes to start them. So to wake one that turns out to be
busy costs nothing but the waking. What is shared by all workers is touched only when there is more to start than one
of them can.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Coroutine
from contextvars import Context, copy_context
from typing import Any, Protocol, TypeVar

from yamanote.runtime._dump import calls_of_thread
from yamanote.runtime._interrupt import is_main_thread
from yamanote.runtime._placed import Placed
from yamanote.runtime._shutdown import abandon, shut_down
from yamanote.runtime._task import make_task, on_loop

__all__ = ["Worker", "Workers"]

T = TypeVar("T")

_SLICE = 0.0001
"""Seconds in which a worker begins one coroutine after another, before what else is ready on its loop has its turn."""
_GRACE = 0.5
"""Seconds, beyond any budget, in which threads that are told to stop do so, unless a call blocks them."""

_logger = logging.getLogger("yamanote")


class Startable(Protocol):
    """Coroutines that were spawned, often just one."""

    @property
    def count(self) -> int:
        """How many they are."""
        ...

    @property
    def stretch(self) -> int:
        """How many to begin in one go, while others may have the rest."""
        ...

    def split(self, count: int, /) -> Startable | None:
        """Keep the first `count`, and return the others, if there are any."""

    def begin(self, loop: AbstractEventLoop, /) -> None:
        """Start them on `loop`, which is running here, unless they have been given up."""

    def give_up(self, reason: str | None, /) -> None:
        """They will not be started. From any thread."""


class Workers:
    """All workers of a runtime. The first one is the loop of the runtime itself, in the thread that runs that."""

    __slots__ = ("all", "in_main_thread")

    def __init__(self, loops: list[AbstractEventLoop]) -> None:
        self.in_main_thread = False  # whether the first one runs where signals arrive
        idle: deque[Worker] = deque()
        self.all = [Worker(self, loop, number, idle) for number, loop in enumerate(loops)]
        for number, worker in enumerate(self.all):
            worker.others = [*self.all[number + 1 :], *self.all[:number]]

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


class Worker:
    """One loop, and what has been spawned on it and not been started."""

    __slots__ = (
        "_beginning",
        "_context",
        "_ended",
        "_idle",
        "_stopping",
        "backlog",
        "ending",
        "loop",
        "number",
        "others",
        "pinned",
        "thread",
        "workers",
    )

    others: list[Worker]
    """In the order in which this one asks them for work."""

    def __init__(self, workers: Workers, loop: AbstractEventLoop, number: int, idle: deque[Worker]) -> None:
        self.workers = workers
        self.loop = loop
        self.number = number
        self.backlog: deque[Startable] = deque()
        self.pinned: deque[Startable] = deque()  # what nobody else may start
        self.ending = False
        self.thread: threading.Thread | None = None
        self._idle = idle  # of all workers: who has nothing to start, the last to become so at the end
        self._beginning = False  # whether `_begin_some` runs, or is to run
        self._context = Context()  # for callbacks, which look at no variable
        self._ended: asyncio.Task[None] | None = None
        self._stopping = False
        loop._yamanote_worker = self  # type: ignore[attr-defined]

    # ---------------------------------------------------------------- starting coroutines

    def place(self, coroutine: Coroutine[Any, Any, T], name: str | None, context: Context | None) -> Placed[T]:
        """Have `coroutine`, which is spawned here, started by whichever worker is free first."""
        placed = Placed(coroutine, self.loop, name, copy_context() if context is None else context)
        self.backlog.append(placed)
        if not self._beginning:
            self._beginning = True
            self.loop.call_soon(self._begin_some, context=self._context)
        elif self._idle:
            self._wake_another()
        return placed

    def place_all(self, several: Startable) -> None:
        """Have `several`, which are spawned here, started by whichever workers are free first."""
        self.backlog.append(several)
        if not self._beginning:
            self._beginning = True
            self.loop.call_soon(self._begin_some, context=self._context)
        if self._idle:
            self._wake_another()

    def place_on(
        self, worker: Worker, coroutine: Coroutine[Any, Any, T], name: str | None, context: Context | None
    ) -> Placed[T]:
        """Have `coroutine`, which is spawned here, started by `worker`."""
        placed = Placed(coroutine, self.loop, name, copy_context() if context is None else context)
        worker.pinned.append(placed)
        worker.wake()
        if worker._stopping:  # it may have looked before
            worker.give_up_backlog()
        return placed

    def wake(self) -> None:
        """Have it look for something to start. From any thread."""
        try:
            self.loop.call_soon_threadsafe(self._woken, context=self._context)
        except RuntimeError:  # closed
            self.give_up_backlog()

    def _woken(self) -> None:
        if not self._beginning:
            self._begin_some()

    def _begin_some(self) -> None:
        """Begin what there is, for a while. On the own loop, as a callback."""
        if self.ending:
            self._beginning = False
            self.give_up_backlog()
            return
        self._beginning = True
        backlog, pinned, idle, loop = self.backlog, self.pinned, self._idle, self.loop
        time = loop.time
        end = time() + _SLICE
        while True:
            try:
                startable = pinned.popleft() if pinned else backlog.popleft()
            except IndexError:
                if self._take_from_others() or not self._go_idle():
                    continue
                self._beginning = False
                return
            if startable.count > 1 and (rest := startable.split(startable.stretch)) is not None:
                backlog.appendleft(rest)
            if backlog and idle:
                self._wake_another()
            try:
                startable.begin(loop)
            except BaseException:  # what stops the loop
                loop.call_soon(self._begin_some, context=self._context)
                raise
            if time() >= end:
                loop.call_soon(self._begin_some, context=self._context)
                return

    def _take_from_others(self) -> bool:
        for other in self.others:
            theirs = other.backlog
            taken = []
            try:
                for _ in range((len(theirs) + 1) // 2):
                    taken.append(theirs.popleft())
            except IndexError:  # they are quicker
                pass
            if len(taken) == 1 and (rest := taken[0].split((taken[0].count + 1) // 2)) is not None:
                theirs.appendleft(rest)
            if taken:
                self.backlog.extend(taken)
                return True
        return False

    def _go_idle(self) -> bool:
        """Say that there is nothing to start here. False if there is something after all."""
        idle = self._idle
        if self not in idle:
            idle.append(self)
        return not (self.pinned or any(other.backlog for other in self.others))

    def _wake_another(self) -> None:
        """Wake an idle worker, and more of them until one has been asleep: others may be busy with what they run."""
        while True:
            try:
                other = self._idle.pop()
            except IndexError:
                return
            if other is self:
                continue
            asleep = not getattr(other.loop, "_is_awake", False)
            other.wake()
            if asleep:
                return

    def waiting(self) -> int:
        """How many coroutines have been spawned here, or for here, and not started. From any thread."""
        return sum(startable.count for entries in (self.pinned, self.backlog) for startable in entries.copy())

    def give_up_backlog(self) -> None:
        """Cancel what has not been started. From any thread."""
        for entries in (self.pinned, self.backlog):
            while True:
                try:
                    startable = entries.popleft()
                except IndexError:
                    break
                startable.give_up("the runtime was shut down before")

    # ---------------------------------------------------------------- the thread

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
