"""Timer: a function that is called again and again, each call in a task of its own.

Invariant: calls begin on the schedule of an interval, whatever becomes of the calls before them: nothing drifts, and
none that fails, hangs or refuses to be cancelled holds up the next. The timer owns its calls: it has ended when it has
been cancelled, and the last of them has ended.
"""

from __future__ import annotations

import asyncio
import enum
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, final

from yamanote.runtime import JoinHandle, cancel_and_wait, start_task, yield_now
from yamanote.time._interval import Interval, require_behavior, require_period
from yamanote.time._ticker import MissedTickBehavior

__all__ = ["Timer", "TimerDelayPolicy", "create_timer"]


class TimerDelayPolicy(enum.Enum):
    """What a timer does when it is time for a call and earlier ones are still running."""

    DEFAULT = "default"
    """Begin it beside them. There is no limit: calls that take ever longer pile up."""
    CANCEL = "cancel"
    """Cancel them, each once, and begin it. Their clean-up is not waited for."""
    SKIP = "skip"
    """Leave it out: never are there two at once."""


def create_timer(
    callback: Callable[[float], Awaitable[object]],
    interval: float,
    delay_policy: TimerDelayPolicy = TimerDelayPolicy.DEFAULT,
    *,
    missed: MissedTickBehavior = MissedTickBehavior.SKIP,
) -> Timer:
    """Call ``callback(interval)``, an async function, every `interval` seconds; the first time at once.

    Each call is a task, in a copy of the caller's context. One that raises is reported to the exception handler of the
    loop, and the timer goes on. `delay_policy` says what happens when calls take longer than the interval, `missed`
    when the loop was blocked for longer. To do one thing after the other, or to stop at the first error, use
    ``async for _ in interval(seconds)``.

    Raises TypeError and ValueError for what is no function, no positive number of seconds or no policy, RuntimeError
    where no loop runs.

    >>> from yamanote.runtime import run
    >>> async def main():
    ...     calls = []
    ...     async def beat(interval):
    ...         calls.append(interval)
    ...     async with create_timer(beat, 0.001):
    ...         await sleep(0.01)
    ...     return set(calls)
    >>> run(main())
    {0.001}
    """
    if not callable(callback):
        if isinstance(callback, Coroutine):
            callback.close()  # it will never run: no warning that it was never awaited
        raise TypeError(f"callback must be an async function, not {callback!r}")
    require_period("interval", interval)
    if not isinstance(delay_policy, TimerDelayPolicy):
        raise TypeError(f"delay_policy must be a TimerDelayPolicy, not {type(delay_policy).__name__}")
    require_behavior(missed)
    return Timer(callback, Interval(None, interval, missed), delay_policy)


@final
class Timer(JoinHandle[None]):
    """What `create_timer` returns: a handle of the timer, for whoever wants it to stop. It may be dropped.

    Stop it with `cancel` (then ``await timer`` waits until the calls that were running have ended), with `aclose`,
    which does both, or by using it as an ``async with`` block. To be stopped is how a timer ends: awaiting it then
    returns None.

    **Cancel safety:** cancelling who awaits leaves the timer alone.
    """

    __slots__ = ("_callback", "_calls", "_name", "_policy")

    def __init__(
        self, callback: Callable[[float], Awaitable[object]], ticks: Interval, policy: TimerDelayPolicy
    ) -> None:
        self._callback = callback
        self._policy = policy
        self._calls: dict[asyncio.Task[None], None] = {}  # those that run, in the order in which they are cancelled
        self._name: str = getattr(callback, "__qualname__", type(callback).__qualname__)
        # Eager: a task that is cancelled before its first step would not end in the way of a timer.
        super().__init__(start_task(self._keep_calling(ticks), name=f"timer of {self._name}", eager=True))

    def cancel(self, reason: str | None = None) -> None:
        """Make no more calls, and cancel those that are running, the caller too if it is one. Does not wait.

        Another name of `abort`.

        **Threads:** may be called from any thread.
        """
        self.abort(reason)

    async def aclose(self) -> None:
        """Cancel, and wait until all calls have ended. Raises RuntimeError in one of the calls.

        **Cancel safety:** waits all the same, then raises the cancellation.
        """
        await cancel_and_wait(self)

    async def __aenter__(self) -> Timer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _keep_calling(self, ticks: Interval) -> None:
        latest: asyncio.Task[None] | None = None
        try:
            await yield_now()  # a timer that is stopped at once makes no call
            async for _ in ticks:
                if latest is not None and not latest.done():
                    if self._policy is TimerDelayPolicy.SKIP:
                        continue
                    if self._policy is TimerDelayPolicy.CANCEL:
                        latest.cancel()  # those before it have been
                latest = start_task(self._call(ticks.period), name=self._name)
                self._calls[latest] = None
                latest.add_done_callback(self._ended)
        except CancelledError:
            # Not passed on, and nobody is deceived: this task is ours, and who awaits its handle is not cancelled.
            with suppress(CancelledError):  # stopped once more: it waits all the same
                await cancel_and_wait(*self._calls)

    async def _call(self, interval: float) -> None:
        await self._callback(interval)

    def _ended(self, call: asyncio.Task[None]) -> None:
        del self._calls[call]
        # KeyboardInterrupt and SystemExit have come out of the loop themselves.
        if not call.cancelled() and isinstance(error := call.exception(), Exception):
            call.get_loop().call_exception_handler({"message": f"a call of {self!r} failed", "exception": error})

    def _includes(self, task: asyncio.Task[Any] | None) -> bool:
        return task in self._calls or super()._includes(task)
