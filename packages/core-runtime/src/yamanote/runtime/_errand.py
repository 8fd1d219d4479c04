"""Errands: what a call in a thread has the loop do that asked for the call.

Invariant: there are errands for as long as somebody may want the result of the call. When nobody does, the one in
progress is cancelled, and has ended before the cancellation goes on of who awaited the call; none begins after that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from yamanote.runtime._call import current, inbox_of

__all__ = ["Errand", "run_errand"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Errand(Protocol[T_co]):
    """Something that a call in a thread has its loop do, see `run_errand`."""

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """What does it, as soon as it has to wait for something."""

    def wait(self) -> T_co:
        """Have it done, and block until it has ended. For the thread, once."""
        ...

    def cancel(self) -> None:
        """Ask it to end; when it has not begun, it never does. In the thread of the loop, more than once perhaps."""


def run_errand(make: Callable[[asyncio.AbstractEventLoop], Errand[T]]) -> T:
    """In a call made by `spawn_blocking`, or by a `BlockingPool`: have the loop that asked for it do something.

    `make` is given the loop. Blocks until the errand has ended, and returns what it returns. For whoever builds on it:
    `yamanote.threads.from_thread` is the friendlier face.

    Raises what the errand raises, CancelledError when nobody wants the result of the call any more, and RuntimeError
    anywhere but in a call that a loop has asked for.

    >>> from concurrent.futures import Future
    >>> from yamanote.runtime import run, run_errand, spawn_blocking
    >>> class ReadClock:
    ...     task = None  # it waits for nothing
    ...     def __init__(self, loop):
    ...         self.loop, self.answer = loop, Future()
    ...     def wait(self):
    ...         self.loop.call_soon_threadsafe(lambda: self.answer.set_result(self.loop.time()))
    ...         return self.answer.result()
    ...     def cancel(self): ...  # it has no end to wait for
    >>> async def example():
    ...     return await spawn_blocking(run_errand, ReadClock) <= asyncio.get_running_loop().time()
    >>> run(example())
    True
    """
    call = None if current.thread is None else current.thread.call
    if call is None or call.inbox is inbox_of(None):
        raise RuntimeError(
            "this thread does not know which loop to call: it has to be one which to_thread() gave work to, or "
            "spawn_blocking(), map_blocking() or a BlockingPool for a loop; from others, use a `Handle` of the runtime"
        )
    try:
        return call.run(make(call.inbox.loop))
    finally:
        del call  # an error refers to this frame, and the call to its error
