"""Virtual clock: time that stands still while anything happens, and jumps when nothing does.

Invariant: time moves only by jumps, each exactly to the moment of the next timer, and only when the loop has nothing to
run, nothing has arrived for it, and no thread or process that it gave work to is at it. Timers of the same moment fire
in the order in which they were made.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import threading
from asyncio import Future
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any, TypeVar, final

from yamanote.runtime import Clock, EventLoop, dump
from yamanote.time._clock import require_finite
from yamanote.time._outside import Outside, is_listening

__all__ = ["DeadlockError", "VirtualClock"]

T = TypeVar("T")

_GLANCE = 0.01
"""Real seconds until the clock looks again whether those who work have ended, or have begun to wait for the loop."""
_LONG = 10.0
"""Real seconds of standing still after which the log says whom the clock waits for."""
_PATIENCE = 1.0
"""Real seconds that threads get to call in before everybody else is declared dead-locked."""
_GRAIN = 2**20
"""Time starts at a whole number of these parts of a second: then whole seconds add up without rounding."""
_ROUNDING = 1e-9
"""Seconds by which a timer may be late for the end of an `advance`: three tenths are not always 0.3."""

_logger = logging.getLogger("yamanote")


class DeadlockError(RuntimeError):
    """Every task waits, and nothing will ever happen: nothing is due, no thread works, no connection is open.

    Its text says what each task waits for (`yamanote.runtime.dump`).
    """

    def __str__(self) -> str:
        return f"every task waits, and nothing is due:\n{super().__str__()}"


@final
class VirtualClock(Clock):
    """A clock for tests: a year passes in milliseconds, in the order in which it would have.

    ``run(main(), clock=VirtualClock())`` runs a program on it; ``with VirtualClock().patch_loop():`` puts it on the
    running loop. All that asks the loop for the time follows: `sleep`, `timeout` and `interval`, `asyncio.sleep` and
    `asyncio.timeout`, `loop.call_later`. `time.monotonic()`, other loops, and the `timeout=` of calls that block a
    plain thread do not.

    When the program has nothing to do, time jumps to the next timer. It stands still, and the clock waits for real,

    * while a thread works for the loop: `spawn_blocking`, `asyncio.to_thread`, `loop.run_in_executor`. A thread that
      waits in one of our own blocking calls does not work: it waits for the loop;
    * while a process runs that the loop has started;
    * in a block of `hold`, for whatever else goes on outside.

    Connections that are open may deliver at any moment: before each jump they get `silence` real seconds to do so.
    What they need to come from another process, or from afar, may need more; sockets that only listen get none.

    When every task waits, and nothing is due, and nobody works, and no file descriptor is watched, `DeadlockError` ends
    the program, out of `run` or `run_until_complete`, and cancels the task that has put the clock on. While other
    threads are alive they get a second to call in.

    With ``autojump=False`` time moves by `advance` alone. The attribute `autojump` may be changed at any time, in the
    thread of the loop.

    Raises ValueError and TypeError for a `silence` that is no number of seconds. A clock serves one loop at a time.

    >>> async def main():
    ...     with VirtualClock().patch_loop():
    ...         await sleep(365 * 24 * 3600)
    ...         return asyncio.get_running_loop().time()
    >>> run(main())
    31536000.0
    """

    autojump: bool
    """Whether time jumps when there is nothing to do, or moves by `advance` alone."""

    def __init__(self, *, autojump: bool = True, silence: float = 0.02) -> None:
        require_finite("silence", silence)
        if silence < 0:
            raise ValueError(f"silence must not be negative, but it is {silence!r}")
        self.autojump = autojump
        self._silence = silence
        self._holds: list[None] = []
        self._now = self._began = 0.0
        self._advance: tuple[float, Future[None]] | None = None
        # As long as it is on a loop:
        self._outside: Outside
        self._owner: asyncio.Task[Any] | None = None
        self._real_time: Callable[[], float]
        # While nothing happens:
        self._still_since: float | None = None
        self._collected = False

    def virtual_time(self) -> float:
        """Seconds that have passed on this clock since it was put on its loop."""
        return self._now - self._began

    async def advance(self, seconds: float) -> None:
        """Let so many seconds pass: everything that falls due in them happens, in order, and what follows from it.

        Returns when the time has come and nobody has anything left to do; with 0, when all who could run have done so.
        Threads, processes and connections are waited for, as ever.

        Raises ValueError for a negative number, nan and infinity, RuntimeError when another task is advancing, when the
        running loop is not on this clock, and when it is taken off meanwhile. **Cancel safety**: what has passed has
        passed.

        >>> async def main():
        ...     with VirtualClock(autojump=False).patch_loop() as clock:
        ...         fired = []
        ...         for delay in (3, 1, 2, 9):
        ...             asyncio.get_running_loop().call_later(delay, fired.append, delay)
        ...         await clock.advance(5)
        ...         return fired
        >>> run(main())
        [1, 2, 3]
        """
        require_finite("seconds", seconds)
        if seconds < 0:
            raise ValueError(f"seconds must not be negative, but it is {seconds!r}")
        loop = asyncio.get_running_loop()
        if loop is not self.loop:
            raise RuntimeError("this clock is not on the running loop: see patch_loop()")
        if self._advance is not None:
            raise RuntimeError("another task is advancing this clock")
        arrived: Future[None] = loop.create_future()
        self._advance = (self._now + seconds, arrived)
        try:
            await arrived
        finally:
            if self._advance is not None and self._advance[1] is arrived:
                self._advance = None

    @contextmanager
    def hold(self) -> Iterator[None]:
        """A block in which time stands still, for what the clock cannot know of: a loop in another thread, a device.

        From any thread; blocks may overlap.

        >>> import threading
        >>> async def main():
        ...     with VirtualClock().patch_loop() as clock:
        ...         loop = asyncio.get_running_loop()
        ...         answer = loop.create_future()
        ...         threading.Timer(0.01, loop.call_soon_threadsafe, [answer.set_result, 42]).start()
        ...         with clock.hold():
        ...             return await timeout(0.001, answer)
        >>> run(main())
        42
        """
        self._holds.append(None)
        try:
            yield
        finally:
            self._holds.pop()

    # ------------------------------------------------------------------ what the loop asks

    def start(self, moment: float) -> None:
        """It is being put on a loop."""
        loop: Any = self.loop
        self._real_time = loop.time
        self._owner = asyncio.current_task() if loop.is_running() else None
        self._outside = Outside(loop, self._holds)
        for name, method in self._outside.methods.items():
            self._replace(loop, name, method)
        if not isinstance(loop, EventLoop):  # whose timers are in order
            self._replace(loop, "call_at", partial(_call_at, loop.call_at, count()))
        self._advance = None
        self._now = self._began = math.ceil(moment * _GRAIN) / _GRAIN

    def stop(self) -> None:
        """It has been taken off."""
        self._owner = None
        if self._advance is not None and not self._advance[1].done():
            self._advance[1].set_exception(RuntimeError("the clock has been taken off the loop"))

    def time(self) -> float:
        """The present moment, as the loop sees it: what ``loop.time()`` says."""
        return self._now

    def wait(self, select: Callable[[float | None], list[T]], seconds: float | None) -> list[T]:
        """What has arrived. If the loop has nothing to do, see to the time."""
        if seconds is not None and seconds <= 0:
            self._collected = False
            return select(seconds)
        # In this order: who is not at work any more may have called in before.
        at_work = self._outside.at_work()
        events = select(0)
        if at_work and not events:
            self._stand_still(at_work)
            return select(_GLANCE)
        self._still_since = None
        if events:
            self._collected = False
            return events
        watched = self._outside.watched()
        if not all(map(is_listening, watched)) and (events := select(self._silence)):
            return events
        if self._let_time_pass():
            return []
        if watched or not asyncio.all_tasks(self.loop):
            return select(_PATIENCE)
        if not self._collected:
            # What was dropped without being closed, in a cycle, may still wake somebody.
            self._collected = True
            gc.collect()
            return []
        if threading.active_count() > 1 and (events := select(_PATIENCE)):
            return events
        raise self._dead_lock()

    def _let_time_pass(self) -> bool:
        """Jump to what comes next, if that may be."""
        loop: Any = self.loop
        timers: list[asyncio.TimerHandle] = loop._scheduled  # without those cancelled, as far as the first goes
        due = float(timers[0].when()) if timers else math.inf
        if self._advance is not None:
            moment, arrived = self._advance
            if due > moment + _ROUNDING:
                self._advance = None
                self._now = max(moment, self._now)
                if not arrived.done():
                    arrived.set_result(None)
                return True
        elif not self.autojump:
            return False
        if due == math.inf:
            return False
        self._now = due
        return True

    def _stand_still(self, at_work: list[str]) -> None:
        now = self._real_time()
        if self._still_since is None:
            self._still_since = now
        elif now - self._still_since >= _LONG:
            self._still_since = math.inf  # once is enough
            _logger.warning("the virtual clock has stood still for %g seconds, for %s", _LONG, ", ".join(at_work))

    def _dead_lock(self) -> DeadlockError:
        self._collected = False
        error = DeadlockError(dump(self.loop))
        if not self.autojump:
            error.add_note("The clock does not move by itself (autojump=False), and no task advances it.")
        # Raised in the loop, the error ends that, and no task. Where the loop is used again, for the next test, it
        # must not find this clock.
        if self._owner is not None:
            self._owner.cancel("dead-lock")
        return error


def _call_at(
    call_at: Callable[..., asyncio.TimerHandle], numbers: Iterator[int], when: float, *args: Any, **kwargs: Any
) -> asyncio.TimerHandle:
    timer: Any = call_at(_Moment(when, next(numbers)), *args, **kwargs)
    if timer._source_traceback:  # of debug mode: it is to end where we were called
        del timer._source_traceback[-1]
    return timer  # type: ignore[no-any-return]


class _Moment(float):
    """A moment that has its place among its equals: asyncio leaves the order of those open."""

    __slots__ = ("_number",)
    _number: int

    def __new__(cls, moment: float, number: int) -> _Moment:
        self = super().__new__(cls, moment)
        self._number = number
        return self

    def __lt__(self, other: float) -> bool:
        if isinstance(other, _Moment) and self == other:
            return self._number < other._number
        return super().__lt__(other)
