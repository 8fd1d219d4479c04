"""Shared timer: a deadline that does not come costs the loop nothing.

Invariant: a scope that waits for its deadline has a timer of its own, or shares one with others, which is due no later
than the earliest deadline of them. When that is due, each of them that has not ended gets one of its own. One turn of
the loop after the last of them has left, there is no timer.

Deadlines are far, and blocks end soon: most come and go by an entry in a dictionary, however many in one turn, and
leave nothing in the heap of the loop. What lasts pays for a timer once, as it would without this.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import Context
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yamanote.runtime._scope import CancelScope

__all__ = ["SharedTimer", "shared_timer_of"]


class SharedTimer(dict["CancelScope", None]):
    """Those who share it, in the order in which they came. It belongs to the thread of the loop."""

    __slots__ = ("_context", "_loop", "_timer", "is_ending", "when")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._context = Context()  # not that of whoever comes first, which would live on here
        self.when = inf
        """When it is due; infinite when there is no timer."""
        self.is_ending = False

    def move(self, when: float) -> None:
        """Let it be due earlier: at `when`."""
        if self._timer is not None:
            self._timer.cancel()
        self.when = when
        self._timer = self._loop.call_at(when, self._due, context=self._context)

    def remove(self, scope: CancelScope) -> None:
        """A block has ended."""
        del self[scope]
        if not self and not self.is_ending:
            self.end_soon()

    def end_soon(self) -> None:
        """The last has left. Where blocks follow each other, the next one comes before the loop has made a turn."""
        try:
            self._loop.call_soon(self._end, context=self._context)
        except RuntimeError:
            return  # closed, and the coroutine is being thrown away
        self.is_ending = True

    def _end(self) -> None:
        self.is_ending = False
        if not self and self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.when = inf

    def _due(self) -> None:
        when, expired = self.when, deque["CancelScope"]()
        self.when = inf
        self._timer = None
        for scope in list(self):
            scope._shared = None  # a finalizer may end its block at any moment, and then has nothing to remove
            self.pop(scope, None)
            if scope._part(self._loop, when):
                expired.append(scope)
        self._expire(expired)

    def _expire(self, scopes: deque[CancelScope]) -> None:
        try:
            while scopes:
                scopes.popleft()._expire()
        finally:
            if scopes:  # to cancel what a task waits for is foreign code, and has failed
                self._loop.call_soon(self._expire, scopes, context=self._context)


def shared_timer_of(loop: asyncio.AbstractEventLoop) -> SharedTimer:
    """The one of `loop`: an attribute of it, so one thread only touches it, and it goes when the loop goes."""
    try:
        return loop._yamanote_shared_timer  # type: ignore[attr-defined,no-any-return]
    except AttributeError:
        timer = SharedTimer(loop)
        loop._yamanote_shared_timer = timer  # type: ignore[attr-defined]
        return timer
