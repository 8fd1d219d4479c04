"""Sleeping: one timer on the loop's clock, and nothing that outlives the call."""

from __future__ import annotations

from asyncio import Future, get_running_loop

from yamanote.runtime import yield_now
from yamanote.time._clock import require_seconds

__all__ = ["sleep", "sleep_until"]


async def sleep(seconds: float) -> None:
    """Wait for so many seconds. Zero or less lets the other tasks run once; `math.inf` waits until it is cancelled.

    Raises ValueError for nan. Cancel safe.

    >>> from yamanote.runtime import run
    >>> run(sleep(0))
    """
    if seconds == 0:
        await yield_now()
        return
    require_seconds("seconds", seconds)
    loop = get_running_loop()
    if seconds > 0:
        future: Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _wake, future)
        try:
            await future
        finally:
            timer.cancel()
    else:
        await yield_now()


async def sleep_until(when: float) -> None:
    """Wait until the loop's clock shows `when`. If it does already, let the other tasks run once.

    Raises ValueError for nan. Cancel safe.

    >>> from yamanote.runtime import run
    >>> async def main():
    ...     await sleep_until(instant() + 0.001)
    >>> run(main())
    """
    require_seconds("when", when)
    loop = get_running_loop()
    if when <= loop.time():
        await yield_now()
        return
    future: Future[None] = loop.create_future()
    timer = loop.call_at(when, _wake, future)
    try:
        await future
    finally:
        timer.cancel()


def _wake(future: Future[None]) -> None:
    # The sleeper may have been cancelled in the very turn in which its timer fell due.
    if not future.done():
        future.set_result(None)
