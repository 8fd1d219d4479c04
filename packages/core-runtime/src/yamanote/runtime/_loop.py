"""The event loop: asyncio's own for Unix and Windows, with another engine room.

Invariant: turns are those of asyncio. Each runs exactly what was ready when it began, in order, and what becomes ready
meanwhile belongs to the next one. Only the polls are fewer: the loop asks for events and for timers that are due when
nothing is ready, after a turn that has made a timer which was due already, and when `_BUDGET` seconds or `_MOST`
callbacks have gone by since the last time: for timers even in the middle of a turn, for events when it has ended.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import sys
from _thread import _count as count_threads
from asyncio import Handle
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import count
from socket import socket
from sys import getswitchinterval
from time import monotonic, sleep
from types import BuiltinMethodType
from typing import TYPE_CHECKING, Any, TypeVarTuple

from yamanote.runtime._ask import ask
from yamanote.runtime._join import _Join
from yamanote.runtime._loop_sockets import ReceivingLoop
from yamanote.runtime._loop_steps import STEP, WAKE_UP, Entry, Step, handle_of
from yamanote.runtime._task import Tasks, worker_of
from yamanote.runtime._wakeup import wakeup_of

if TYPE_CHECKING:  # its module needs a loop
    from yamanote.runtime._workers import Worker

__all__ = ["EventLoop", "LoopStatistics", "has_gil"]

Ts = TypeVarTuple("Ts")

has_gil: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
"""Python has that since 3.13. On a free-threaded build, an extension that is imported later may turn the lock on."""

_give_core_away: Callable[[], object] | None = getattr(os, "sched_yield", None)
"""Let another thread run on this core, if one can. Not on Windows."""

_BUDGET = 0.0005
"""Seconds until the next poll, when there is always something to run. A poll costs half a percent of that."""
_MOST = 1024
"""Callbacks until the next poll, and looks for an answer, where the clock stands still (a virtual one) or is coarse."""
_STRETCH = 16
"""Callbacks until the next look at the clock. After a stretch that has taken longer than the budget it is one, and
doubles again: who blocks the loop keeps it from polling sixteen times, and from then on once.
"""
_GIVE_WAY = 0.00005
"""Seconds in which a thread that waits for the interpreter lock can wake up and take it."""
_LINGER = 0.00005
"""Seconds for which a worker that expects another's answer stays awake."""
_SOON = 0.0002
"""Seconds. Who is woken by another worker within them expects the next answer as soon."""
_LONGEST_SLEEP = 24 * 3600.0
"""Seconds. Selectors do not take any number."""
_MANY_CANCELLED = 50
"""Cancelled timers that may stay where they are, even if they are more than those alive."""


@dataclass(frozen=True, slots=True)
class LoopStatistics:
    """What a loop has done since it was made, and what it has to do. All but the last two only ever grow.

    The counters are those of the last poll, which a busy loop makes about every half millisecond. In debug mode only
    turns and polls are counted.
    """

    turns: int
    """How often it ran all that was ready."""
    polls: int
    """How often it looked for events, and for timers that were due."""
    steps: int
    """Callbacks that it ran: steps of tasks, and all others."""
    busy: float
    """Seconds in which it did not sleep."""
    slow: int
    """Stretches of up to 16 callbacks that took longer than `loop.slow_callback_duration`."""
    ready: int
    """Callbacks that are to run."""
    timers: int
    """Timers that have not fired, and are not cancelled."""


class EventLoop(ReceivingLoop):
    """asyncio's selector loop, faster. ``asyncio.Runner(loop_factory=EventLoop)`` and `run` take it.

    Everything that asyncio offers works as it does on the stock loop of the platform: transports, TLS, subprocesses,
    `sock_*`, signals, executors, debug mode. The steps of tasks cost less, and the loop does not ask the system for
    events after every turn, but when nothing is ready, and after the turn in which half a millisecond has passed.

    **Order**: ready callbacks run first in, first out, in turns, as in asyncio; `asyncio.sleep(0)` is one turn. Timers
    fire in the order of their deadlines, and where these are equal, which asyncio leaves open, of their making. What
    differs is when the loop notices that a timer is due or that an event has arrived while others run: up to half a
    millisecond later than there, or, for a timer in a long turn, before its end. It goes behind what is ready then. A
    timer that is due when it is made is noticed after the turn, as in asyncio.

    **Fairness**: a task that never waits keeps timers, events and signals from running for half a millisecond, and for
    what it does between two yields. Of callbacks that each take longer, only one runs then between two looks for
    timers; of the first such after quicker ones, up to 16. Events wait for the end of the turn besides.

    **Cancel safety**: `sock_recv` and its like lose nothing that has come; those of asyncio may.

    **Threads**: as in asyncio, only `call_soon_threadsafe` may be called from other ones, and `statistics`.

    `selector` is one of the module `selectors`, by default the best of the platform.

    >>> async def main():
    ...     await asyncio.sleep(0.001)
    ...     return asyncio.get_running_loop().statistics().steps
    >>> run(main(), loop_factory=EventLoop) > 0
    True
    """

    _yamanote_worker: Worker | None = None
    """Who starts what is spawned here, in a runtime with several."""

    # What we share with asyncio's own code, and with those who extend it, is not in its public types.
    _ready: deque[Entry]
    _scheduled: list[TimerHandle]
    _timer_cancelled_count: int
    _ssock: socket
    _process_self_data: Callable[[bytes], None]
    _process_events: Callable[[list[tuple[selectors.SelectorKey, int]]], None]
    _clock_resolution: float
    _check_closed: Callable[[], None]
    _check_thread: Callable[[], None]
    _check_callback: Callable[[object, str], None]
    _debug: bool
    _closed: bool
    _stopping: bool

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        super().__init__(selector)
        self._turns = self._polls = self._steps = self._slow = 0
        self._busy = 0.0
        self._rest = 0  # what is left of a turn in whose middle we poll
        self._stretch = _STRETCH
        self._polled = self._looked = 0.0  # when we last polled, and last looked at the clock
        self._is_due = False  # a timer was due when it was made
        self._gave_way = 0.0  # when threads could last take the interpreter lock, in real time
        self._is_awake = False  # it will look at what is ready before it sleeps, or is about to be woken
        self._lingers = False  # another worker's answer came soon the last time
        self._timer_numbers = count()

    def statistics(self) -> LoopStatistics:
        """What the loop has done so far. From any thread, also of a closed loop."""
        return LoopStatistics(
            turns=self._turns,
            polls=self._polls,
            steps=self._steps,
            busy=self._busy,
            slow=self._slow,
            ready=len(self._ready),
            timers=len(self._scheduled) - self._timer_cancelled_count,
        )

    # ------------------------------------------------------------------ what is to be done

    def call_soon(self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> Handle:
        """As in asyncio."""
        if self._debug or self._closed:
            handle = super().call_soon(callback, *args, context=context)
            if handle._source_traceback:  # type: ignore[attr-defined]  # which ends where we were called
                del handle._source_traceback[-1]  # type: ignore[attr-defined]
            return handle
        kind: type = type(callback)
        if kind is STEP:
            self._ready.append((context, callback, None))  # type: ignore[arg-type]
            return None  # type: ignore[return-value]  # see _loop_steps: nobody looks at it
        if kind is _Join or (
            kind is BuiltinMethodType and (callback.__name__ == WAKE_UP or type(callback.__self__) is Tasks)  # type: ignore[attr-defined]
        ):
            self._ready.append((context, callback, args[0]))  # type: ignore[arg-type, misc]
            return None  # type: ignore[return-value]
        handle = Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> TimerHandle:
        """As in asyncio; of timers with the same deadline, the one that was made first fires first."""
        if when is None:
            raise TypeError("when cannot be None")
        self._check_closed()
        if self._debug:
            self._check_thread()
            self._check_callback(callback, "call_at")
        timer = TimerHandle(when, callback, args, self, context, next(self._timer_numbers))
        if timer._source_traceback:
            del timer._source_traceback[-2:]
        heappush(self._scheduled, timer)
        timer._scheduled = True
        if when < self.time() + self._clock_resolution:
            self._is_due = True
        return timer

    def _write_to_self(self) -> None:
        """Wake the loop for what another thread, or a signal handler, has made ready.

        It need not be woken while it runs callbacks: it looks at what is ready after it has ceased to be awake, and
        whoever calls this has added to it before. Nor by a second one before it has run: it counts as awake from the
        moment that somebody sets out to wake it.
        """
        if not self._is_awake:
            try:
                self._is_awake = True
                super()._write_to_self()  # type: ignore[misc]
            except BaseException:  # Ctrl-C, and somebody else may have left the waking to us
                super()._write_to_self()  # type: ignore[misc]
                raise

    def _read_from_self(self) -> None:
        """Once, where asyncio reads until there is nothing: mostly it is one byte, and what is left wakes us again."""
        with suppress(BlockingIOError, InterruptedError):
            self._process_self_data(self._ssock.recv(4096))

    def add_signal_handler(self, sig: int, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """As in asyncio; on a worker whose runtime waits in the main thread, that takes the signal for it."""
        if (home := self._home_in_main_thread()) is None:
            super().add_signal_handler(sig, callback, *args)
        else:
            self._check_callback(callback, "add_signal_handler")
            ask(home, partial(home.add_signal_handler, sig, self.call_soon_threadsafe, callback, *args))

    def remove_signal_handler(self, sig: int) -> bool:
        """As in asyncio."""
        if (home := self._home_in_main_thread()) is None:
            removed = super().remove_signal_handler(sig)
            if removed:
                wakeup_of(self).renew()  # with the last handler, asyncio has signals wake nobody any more
            return removed
        return ask(home, partial(home.remove_signal_handler, sig))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """As in asyncio, but that a task exits is nobody's to retrieve: it has come out of the loop already."""
        exits = isinstance(context.get("exception"), (SystemExit, KeyboardInterrupt))
        if not (exits and isinstance(context.get("future"), asyncio.Task)):
            super().call_exception_handler(context)

    def _home_in_main_thread(self) -> asyncio.AbstractEventLoop | None:
        """Of several workers, if it is none of them: see `Workers`."""
        worker = self._yamanote_worker
        if worker is None or not worker.workers.in_main_thread or worker_of(worker.workers.home) is not None:
            return None
        return worker.workers.home

    # ------------------------------------------------------------------ doing it

    def run_forever(self) -> None:
        """As in asyncio."""
        self._polled = self._looked = self.time()
        super().run_forever()

    def _run_once(self) -> None:
        """Poll, and then run what is ready, turn by turn, until it is time for the next poll."""
        if self._debug:
            self._run_once_in_debug_mode()
            return
        self._poll()
        time = self.time
        looked = self._polled
        deadline = looked + _BUDGET
        ready = self._ready
        popleft = ready.popleft
        turn = min(self._rest, len(ready)) or len(ready)  # callbacks that it has still to run
        stretch = left = self._stretch  # callbacks until the next look at the clock
        resumed = self._rest > 0
        self._rest = turns = steps = 0
        entry: Entry | None
        context: Context | None
        callback: Callable[..., object] | None
        future: asyncio.Future[Any] | None
        self._is_awake = True
        try:
            while True:
                while turn:
                    part = turn if turn < left else left
                    for _ in range(part):
                        try:
                            entry = popleft()
                        except IndexError:  # a callback has taken others away
                            turn = part
                            break
                        if isinstance(entry, tuple):
                            context, callback, future = entry
                            try:
                                if future is None:
                                    context.run(callback)
                                else:
                                    context.run(callback, future)
                            except (SystemExit, KeyboardInterrupt):
                                raise
                            except BaseException as error:
                                self._report(entry, error)
                        elif not entry._cancelled:
                            entry._run()
                    turn -= part
                    steps += part
                    left -= part
                    if not left:
                        now = time()
                        if (now >= deadline or steps >= _MOST) and not self._stopping:
                            self._rest = turn
                            return
                        looked = now
                        if stretch < _STRETCH:
                            stretch *= 2
                        left = stretch
                turns += 1
                if self._stopping or self._is_due or not ready or resumed:
                    return
                turn = len(ready)
        finally:
            self._is_awake = False
            # The traceback of an error may keep this frame, which must not keep the task that has failed with it.
            entry = context = callback = future = None
            self._looked = looked
            self._stretch = stretch
            self._turns += turns
            self._steps += steps

    def _poll(self) -> None:
        """Add what has arrived and what is due to what is ready. If nothing is, sleep until there is something."""
        self._forget_cancelled_timers()
        scheduled = self._scheduled
        if self._ready or self._stopping:
            # In the middle of a turn, the selector would once more find what the rest of that is about to see to.
            events = [] if self._rest else self._selector.select(0)
            self._let_threads_run()
            now = self.time()
            self._note(now)
        else:
            now = self.time()
            self._note(now)
            timeout = min(max(0, scheduled[0]._when - now), _LONGEST_SLEEP) if scheduled else None
            if self._lingers and (timeout is None or timeout > _LINGER) and self._linger(now + _LINGER):
                timeout = 0
            events = self._selector.select(timeout)
            asleep, now = now, self.time()
            if self._yamanote_worker is not None:
                self._lingers = bool(self._ready) and now - asleep < _SOON and not has_gil()
        self._polled = now
        self._polls += 1
        self._process_events(events)
        self._is_due = False
        end = now + self._clock_resolution
        while scheduled and scheduled[0]._when < end:
            timer = heappop(scheduled)
            timer._scheduled = False
            if timer._cancelled:
                self._timer_cancelled_count -= 1
            else:
                self._ready.append(timer)

    def _linger(self, deadline: float) -> bool:
        """Wait, without falling asleep, until another worker has made something ready; tell whether one has.

        To be woken takes many times as long as most of what workers answer each other. So who was woken soon the last
        time stays awake for a moment, and gives its core to any thread that can use it.
        """
        ready, time = self._ready, self.time
        self._is_awake = True
        try:
            for _ in range(_MOST):
                if ready or time() >= deadline or _give_core_away is None:
                    break
                _give_core_away()
        finally:
            self._is_awake = False
        return bool(ready)  # looked at after that, see `_write_to_self`

    def _let_threads_run(self) -> None:
        """Give the interpreter lock to who waits for it, as often as Python promises (`sys.setswitchinterval`).

        A thread that waits demands the lock when nobody has let go of it for that long. A poll lets go of it, too often
        for anybody to demand it, and too briefly for anybody to wake up and take it. asyncio polls so often that they
        get it by chance; we would starve them.
        """
        now = monotonic()
        if now - self._gave_way >= getswitchinterval():
            self._gave_way = now
            if count_threads() and has_gil():
                sleep(_GIVE_WAY)

    def _note(self, now: float) -> None:
        """Take down what the time since the last poll, and since the last look at the clock, was spent on."""
        if now > self._polled:  # or time has begun anew, on a clock
            self._busy += now - self._polled
        seconds = now - self._looked
        if seconds > _BUDGET:
            self._stretch = 1
            if seconds > self.slow_callback_duration:
                self._slow += 1

    def _forget_cancelled_timers(self) -> None:
        scheduled = self._scheduled
        cancelled = self._timer_cancelled_count
        if cancelled > _MANY_CANCELLED and cancelled > len(scheduled) / 2:
            for timer in scheduled:
                timer._scheduled = not timer._cancelled
            self._scheduled = [timer for timer in scheduled if timer._scheduled]
            heapify(self._scheduled)
            self._timer_cancelled_count = 0
        else:
            while scheduled and scheduled[0]._cancelled:
                heappop(scheduled)._scheduled = False
                self._timer_cancelled_count -= 1

    def _run_once_in_debug_mode(self) -> None:
        """asyncio's own turn, with all its checks, of what our poll has made ready.

        It knows nothing of steps that became ready before, and its own poll loses count of cancelled timers.
        """
        self._is_awake = False
        self._poll()
        ready = self._ready
        for index in range(len(ready)):  # no iterator, because other threads may add to it
            ready[index] = handle_of(ready[index], self)
        if ready:
            self._turns += 1
            super()._run_once()  # type: ignore[misc]
        self._polled = self._looked = self.time()

    def _report(self, step: Step, error: BaseException) -> None:
        """asyncio refused to run a step, for instance in the middle of another one. What a task raises is its own."""
        handle = handle_of(step, self)
        message = f"Exception in callback {handle!r}"
        self.call_exception_handler({"message": message, "exception": error, "handle": handle})


class TimerHandle(asyncio.TimerHandle):
    """A timer that has its place among those of the same deadline."""

    __slots__ = ("_number",)
    _when: float
    _scheduled: bool
    _source_traceback: list[object] | None

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: EventLoop,
        context: Context | None,
        number: int,
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self._number = number

    def __lt__(self, other: asyncio.TimerHandle) -> bool:
        if isinstance(other, TimerHandle) and self._when == other._when:
            return self._number < other._number
        return super().__lt__(other)
