"""Clocks: where an event loop takes the time from, and how it waits.

Invariant: a loop asks two things of the world: what time it is (`loop.time`), and what has arrived within so many
seconds (`selector.select`, which is also how it sleeps). As long as it is on a clock, that answers both, and nobody
else: whoever wants to know the time asks the loop. For timers that are pending when a clock is put on, and for
everybody when it is taken off, time goes on from where it is.

Both answers are attributes of that one loop and that one selector; other loops, and the classes, are left alone.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from asyncio import AbstractEventLoop, SelectorEventLoop
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, Self, TypeVar

from yamanote.runtime._shared_timer import shared_timer_of

__all__ = ["Clock"]

T = TypeVar("T")


class Clock(ABC):
    """A time for event loops in the place of their own: for `run`, for `Runtime`, and for the block of `patch_loop`.

    A clock says when it is (`start`, `time`), and may say how to wait until it is later (`wait`). All that asks the
    loop for the time follows it: `asyncio.sleep` and `asyncio.timeout`, `loop.call_later`, and everything of Yamanote.
    `time.monotonic()`, other loops and the time limits of plain threads do not. `yamanote.time.VirtualClock` is one,
    for tests.

    It serves one loop at a time, which has to be a selector loop of asyncio, such as `EventLoop`. Its methods are
    called in the thread of that.

    >>> import time
    >>> class Faster(Clock):
    ...     def start(self, moment):
    ...         self.moment, self.real = moment, time.monotonic()
    ...     def time(self):
    ...         return self.moment + 1000 * (time.monotonic() - self.real)
    ...     def wait(self, select, seconds):
    ...         return select(seconds and seconds / 1000)
    >>> run(asyncio.sleep(5, "after five milliseconds"), clock=Faster())
    'after five milliseconds'
    """

    loop: AbstractEventLoop | None = None
    """The loop that it is on. In `start` and in `stop` that has its own time."""
    _own_time: Callable[[], float]
    _undo: ExitStack

    @abstractmethod
    def start(self, moment: float) -> None:
        """Called when it is put on a loop: from now on `time` goes on from `moment`."""

    @abstractmethod
    def time(self) -> float:
        """The present moment, in seconds. It must never go back."""

    def wait(self, select: Callable[[float | None], list[T]], seconds: float | None) -> list[T]:
        """Return ``select(real_seconds)``: what has arrived, at the latest after so many seconds of the real world.

        `seconds` is what the loop would like to wait, on this clock; None is for ever, 0 not at all. To return earlier,
        with nothing, does no harm. By default both are the same.
        """
        return select(seconds)

    def stop(self) -> None:  # noqa: B027  # to be overridden by those who have something to do
        """Called when it is taken off its loop."""

    def patch_loop(self, loop: AbstractEventLoop | None = None) -> AbstractContextManager[Self]:
        """A context manager that puts this clock on `loop`, by default the running one, for the time of the block.

        Time begins at 0 where no timer is pending. Otherwise it goes on from where it is, and so it does on leaving:
        timers that were there before, or are left behind, fire after as many seconds as they have to go.

        Raises TypeError for a loop whose selector cannot be replaced, such as uvloop's; RuntimeError for a loop that
        has a clock already, or runs in another thread, for a clock that is on a loop, and where none runs.
        """
        loop = loop or asyncio.get_running_loop()
        self._require_free(loop)
        if loop.is_running() and asyncio._get_running_loop() is not loop:
            raise RuntimeError("this loop runs in another thread: the clock has to be put on in there")
        return self._patched(loop)

    def loop_factory(self) -> SelectorEventLoop:
        """A new loop of asyncio's that stays on this clock until it is closed, and whose time begins at 0.

        For other runners: ``asyncio.Runner(loop_factory=clock.loop_factory)``; `run` takes the clock itself, and makes
        an `EventLoop`. Raises RuntimeError when this clock is on another loop that has not been closed.
        """
        loop = SelectorEventLoop()
        try:
            self._require_free(loop)
            self._attach(loop)
        except BaseException:
            loop.close()
            raise
        return loop

    def _require_free(self, loop: AbstractEventLoop) -> None:
        if not isinstance(loop, SelectorEventLoop):
            raise TypeError(
                f"a clock needs one of asyncio's selector loops, and {type(loop).__module__}.{type(loop).__qualname__} "
                "is none: take the loop that run(clock=...) makes, or loop_factory=clock.loop_factory"
            )
        if isinstance(getattr(vars(loop).get("time"), "__self__", None), Clock):
            raise RuntimeError("this loop has a clock already")
        if loop.is_closed():
            raise RuntimeError("this loop has been closed")
        if self.loop is not None and not self.loop.is_closed():
            raise RuntimeError("this clock is on a loop already: each loop needs one of its own")

    @contextmanager
    def _patched(self, loop: AbstractEventLoop) -> Iterator[Self]:
        self._require_free(loop)
        self._attach(loop)
        try:
            yield self
        finally:
            self._detach()

    def _attach(self, loop: Any) -> None:
        shared_timer_of(loop)._end()  # it stays a turn longer than the last block that had a deadline
        is_pending = any(not timer.cancelled() for timer in loop._scheduled)
        with ExitStack() as undo:
            self._undo, self._own_time, self.loop = undo, loop.time, loop
            undo.callback(setattr, self, "loop", None)
            self._replace(loop, "_clock_resolution", loop._clock_resolution)
            self.start(loop.time() if is_pending else 0.0)
            undo.callback(self.stop)
            self._replace(loop, "time", self.time)
            self._replace(loop._selector, "select", partial(self._wait, loop._selector.select))
            self._set_resolution()
            self._undo = undo.pop_all()

    def _detach(self) -> None:
        loop, now, own_time = self.loop, self.time(), self._own_time
        if isinstance(own_time, _Continued):  # it has been on a clock before
            own_time = own_time.own_time
        try:
            self._undo.close()
        finally:
            vars(loop)["time"] = _Continued(own_time, now - own_time())

    def _wait(self, select: Callable[[float | None], list[T]], seconds: float | None) -> list[T]:
        try:
            return self.wait(select, seconds)
        finally:
            self._set_resolution()

    def _set_resolution(self) -> None:
        # A timer fires when it is due within the resolution of the clock. That must be no less than the distance to
        # the next float, or one that is due exactly now would never fire, and no more, or others would fire too early.
        self.loop._clock_resolution = math.ulp(self.time())  # type: ignore[union-attr]

    def _replace(self, owner: object, name: str, substitute: object) -> None:
        """Have an attribute of an object be something else until this clock is taken off."""
        attributes = vars(owner)
        if name in attributes:
            self._undo.callback(attributes.__setitem__, name, attributes[name])
        else:
            self._undo.callback(attributes.pop, name)
        attributes[name] = substitute


class _Continued:
    """The own time of a loop that has been on a clock."""

    __slots__ = ("_ahead", "own_time")

    def __init__(self, own_time: Callable[[], float], ahead: float) -> None:
        self.own_time = own_time
        self._ahead = ahead

    def __call__(self) -> float:
        return self.own_time() + self._ahead
