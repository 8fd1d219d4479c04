"""Timetable: what falls due at some time, the parties that wait for it, and the one timer that wakes them.

Invariant: parties are served first in, first out, as soon as something is due and never before; while somebody is
parked and something is to come, one timer is armed, for that moment or an earlier one, when it looks again; what a
party gives back goes to who is next.

It is on one loop at a time: that of those who wait. While nobody does, any loop may use it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from asyncio import AbstractEventLoop, TimerHandle, _get_running_loop, get_running_loop
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import ref

from yamanote.runtime import Waiter

__all__ = ["Timetable"]

T = TypeVar("T")


class Timetable(ABC, Generic[T]):
    """What tickers, delay queues and sleeps have in common. Each says what is due when, and how it is handed over."""

    __slots__ = ("__weakref__", "_armed_for", "_loop", "_serving", "_timer", "_waiters")

    def __init__(self) -> None:
        self._waiters: deque[Waiter[T]] = deque()
        self._loop: AbstractEventLoop | None = None
        self._timer: TimerHandle | None = None
        self._armed_for = math.inf  # no timer
        self._serving = False

    @abstractmethod
    def _next_due(self, now: float) -> float:
        """When the next one is due; `math.inf` for never."""

    @abstractmethod
    def _take_due(self, now: float) -> Any:
        """Take what is due at `now`, for somebody who is still to be found; None when nothing is."""

    @abstractmethod
    def _hand_over(self, waiter: Waiter[T], taken: Any) -> None:
        """Settle `waiter`, who has been claimed, with what was taken."""

    @abstractmethod
    def _give_back(self, taken: Any) -> None:
        """Undo `_take_due`: there is nobody for it, or who was served will never look."""

    def register(self, waiter: Waiter[Any], /) -> None:
        """Queue for what is due next. Raises RuntimeError outside of a loop, or while tasks of another one wait."""
        loop = _get_running_loop()
        if loop is None:
            raise RuntimeError(f"no event loop runs here, and this {type(self).__name__} can be waited for on one only")
        if loop is not self._loop:
            self._require_loop()
            self._disarm()
            self._loop = loop
        self._waiters.append(waiter)
        if len(self._waiters) == 1:
            now = loop.time()
            if (due := self._next_due(now)) > now:
                self._arm(due)
            else:
                self._serve(now)

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        if waiter.settled:
            self._give_back(waiter.operation)
            self._changed()
        elif waiter in self._waiters:  # not skipped as dead in the meantime
            self._waiters.remove(waiter)
            if not self._waiters:
                self._rest()

    def _require_loop(self) -> None:
        """Refuse the callers of other loops while somebody waits: the timer can be touched on its own loop only."""
        if self._waiters and self._loop is not _get_running_loop() and not self._is_abandoned():
            raise RuntimeError(f"tasks of another event loop are waiting for this {type(self).__name__}")

    def _changed(self) -> None:
        """Something else is due next: look after those who wait for it."""
        if self._waiters and not self._is_abandoned():
            assert self._loop is not None
            self._serve(self._loop.time())

    def _serve(self, now: float) -> None:
        """Hand what is due at `now` to those who wait, then arm the timer for the others."""
        if self._serving:
            return  # called by a finalizer, in the middle of the loop below: that looks again
        waiters = self._waiters
        self._serving = True
        try:
            # Taken first, then somebody claimed for it: until it is taken, a finalizer may still take it away.
            while waiters and (taken := self._take_due(now)) is not None:
                while waiters:
                    waiter = waiters.popleft()
                    waiter.operation = taken
                    if waiter.claim():
                        self._hand_over(waiter, taken)
                        break
                else:
                    self._give_back(taken)
        finally:
            self._serving = False
        if waiters:
            self._arm(self._next_due(now))
        elif self._timer is not None:
            self._rest()

    def _arm(self, due: float) -> None:
        if due == math.inf:
            self._rest()
        elif due < self._armed_for:  # else it looks again when it fires: what is put off all the time costs no timers
            if self._timer is not None:
                self._disarm()
            assert self._loop is not None
            self._armed_for = due
            # The timer keeps alive who waits, and he what he waits for. What nobody waits for it must not keep alive.
            self._timer = self._loop.call_at(due, _fire, ref(self), self._waiters, due)

    def _rest(self) -> None:
        """Nobody waits, or nothing is to come: a loop that has nothing else to do must not seem to wait for it."""
        self._disarm()

    def _disarm(self) -> None:
        timer = self._timer
        if timer is None:
            return
        self._forget_timer()
        assert self._loop is not None
        if self._loop is _get_running_loop():
            timer.cancel()
            return
        try:
            self._loop.call_soon_threadsafe(timer.cancel)
        except RuntimeError:  # closed: it will never fire
            pass

    def _forget_timer(self) -> None:
        self._timer = None
        self._armed_for = math.inf

    def _is_abandoned(self) -> bool:
        """Whether the loop of those who wait has been closed: then they are forgotten, for they will never run."""
        if self._loop is not None and not self._loop.is_closed():
            return False
        self._waiters.clear()
        return True


def _fire(reference: Callable[[], Timetable[Any] | None], _kept: deque[Waiter[Any]], due: float) -> None:
    table = reference()
    loop = get_running_loop()
    if table is None or table._loop is not loop:  # it has gone, or gone to another loop
        return
    table._forget_timer()
    # A loop may call a timer early by the resolution of its clock; what is due is due all the same.
    table._serve(max(loop.time(), due))
