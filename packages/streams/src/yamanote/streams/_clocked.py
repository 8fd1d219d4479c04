"""Clocked: an operator whose feeder fills it, and which gives what it holds when its moment has come.

Invariant: what is held has a moment, noted when it came, and is due from then on; the clock decides that, not who runs
first. There is a timer only while somebody waits: one, for the moment of what is held or for an earlier one, when it
looks again. So what is put off all the time costs next to no timers, and none outlives a wait.
"""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod
from typing import Any, TypeVar

from yamanote.streams._fed import Fed
from yamanote.streams._pipeline import Pipeline

__all__ = ["Clocked"]

T_co = TypeVar("T_co", covariant=True)


class Clocked(Fed[T_co]):
    """Gives what is held at its moment."""

    __slots__ = ("_armed_for", "_reached", "_timer")

    def __init__(self, source: Pipeline[Any]) -> None:
        super().__init__(source)
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = math.inf
        self._reached = -math.inf
        """A moment of which the timer says that it has come: some loops call their timers a little early."""

    @abstractmethod
    def _hold(self, item: Any, now: float) -> None:
        """Keep `item`, which has come now."""

    @abstractmethod
    def _moment(self, now: float) -> float | None:
        """When there is, or was, something to give, as far as is known now; None if nothing is held."""

    def _now(self) -> float:
        return max(asyncio.get_running_loop().time(), self._reached)

    def _is_due(self) -> bool:
        now = self._now()
        moment = self._moment(now)
        return moment is not None and moment <= now

    def _is_drained(self) -> bool:
        return self._exhausted and self._moment(self._now()) is None

    def _accept(self, item: Any) -> bool:
        now = self._now()
        self._hold(item, now)
        if self._wanted:
            moment = self._moment(now)
            if moment is not None and moment <= now:
                self._wake()
            else:
                self._arm(moment)
        return self._has_room()

    async def _wait(self) -> None:
        self._arm(self._moment(self._now()))
        try:
            await super()._wait()
        finally:
            if self._waiting is None:  # else this was a second task, and has been refused
                self._disarm()

    def _arm(self, moment: float | None) -> None:
        if moment is not None and moment < self._armed_for:
            self._disarm()
            self._armed_for = moment
            self._timer = asyncio.get_running_loop().call_at(moment, self._ring, moment)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed_for = math.inf

    def _ring(self, moment: float) -> None:
        self._disarm()
        self._reached = moment
        self._wake()  # also when the moment has been put off: then the wait begins anew, with another timer

    async def _close(self) -> None:
        self._disarm()
        await super()._close()
