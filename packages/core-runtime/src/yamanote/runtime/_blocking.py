"""Blocking work: calls that would stop the loop, made in the threads of a pool that all share.

Invariant: no call goes on unnoticed when its loop ends: `finish_blocking` waits for each, and `leave_blocking`
names those that have not ended.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import _get_running_loop
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

from yamanote.runtime._call import calls_of, inbox_of
from yamanote.runtime._join import JoinHandle
from yamanote.runtime._pool import BlockingPool
from yamanote.runtime._scope import CancelScope
from yamanote.runtime._task import no_loop
from yamanote.runtime._waiter import is_thread_parked

__all__ = ["busy_calls", "finish_blocking", "leave_blocking", "map_blocking", "shared_pool", "spawn_blocking"]

T = TypeVar("T")
U = TypeVar("U")
P = ParamSpec("P")

_logger = logging.getLogger("yamanote")

shared_pool = BlockingPool()
"""Its threads wait most of the time, so their number has nothing to do with that of the processors."""


def spawn_blocking(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> JoinHandle[T]:
    """Call `function` in a thread of the blocking pool, and return a handle at once; await it for the result.

    The call sees a copy of the caller's context variables. There are at most 64 threads; calls beyond that wait their
    turn, first in, first out. Calls are for waiting and for work that ends: a loop that never ends keeps its thread,
    and is better off in a `BlockingPool` of its own.

    Raises TypeError for what cannot be called, RuntimeError where no loop runs. Awaiting the handle raises what the
    call raises.

    **Cancel safety:** when nobody awaits the handle any more because the last who did was cancelled, the call is
    aborted, as by `JoinHandle.abort`: a call that has not started is dropped; one that runs cannot be interrupted,
    but it can look at its `current_token`. The cancelled task does not wait for it, only for what it has the loop do
    just then (`from_thread`); `cancel_and_wait` does, and then `JoinHandle.is_cancelled` tells whether the call was
    dropped.

    >>> from yamanote.runtime import run, spawn_blocking
    >>> async def example():
    ...     return await spawn_blocking(sum, [1, 2, 3])
    >>> run(example())
    6
    """
    loop = _get_running_loop()
    if loop is None:
        raise no_loop("spawn_blocking")
    return shared_pool._submit(loop, function, args, kwargs)


async def map_blocking(function: Callable[[T], U], items: Iterable[T], /, limit: int | None = None) -> list[U]:
    """Call `function` with each item in threads of the blocking pool; return the results in the order of the items.

    At most `limit` calls are made at once; None means as many as the pool has threads. Each call sees a copy of the
    caller's context variables. All items are taken from `items` at the beginning.

    The first error is raised when the calls in progress have ended; no other is started. Their `current_token` tells
    those in progress to stop. Errors that come after the first go to the exception handler of the loop.

    **Cancel safety:** the same; the cancellation goes on when the calls in progress have ended.

    Raises ValueError for a `limit` below 1. JoinError when a call raises CancelledError, for there is no result.

    >>> from yamanote.runtime import map_blocking, run
    >>> run(map_blocking(len, ["a", "bc"]))
    [1, 2]
    """
    return await shared_pool.map(function, items, limit)


def busy_calls(loop: asyncio.AbstractEventLoop) -> list[str]:
    """The names of the calls that threads have yet to make for `loop`, or are making, in any `BlockingPool`.

    A call counts until its result has arrived on the loop; it does not while its thread is parked (waits in one of our
    own blocking calls). For clocks, which must not run ahead of threads; in the thread of the loop.
    """
    busy = []
    for call in calls_of(loop):
        thread = call.thread
        if thread is None or not is_thread_parked(thread.ident or 0):
            busy.append(call.name)
    return busy


async def finish_blocking(timeout: float) -> None:
    """Wait until the calls that the running loop asked for have ended, for at most `timeout` seconds of its clock.

    What has not ended by then is left behind.
    """
    loop = asyncio.get_running_loop()
    inbox = inbox_of(loop)
    if not inbox.unfinished:
        return
    with CancelScope(loop.time() + timeout) as patience:
        while inbox.unfinished:
            inbox.idle = loop.create_future()
            await inbox.idle
    if patience.cancelled_caught:
        leave_blocking(loop)


def leave_blocking(loop: asyncio.AbstractEventLoop) -> None:
    """Name the calls of `loop` that have not ended, with their threads, and abort them: nobody can take the results.

    The end of the program will not wait for them either. In the thread of the loop; does nothing the second time.
    """
    left = calls_of(loop)
    if not left or left[0].inbox.left_behind:
        return
    left[0].inbox.left_behind = True
    names = ", ".join(sorted(call.where for call in left))
    _logger.warning("blocking calls that have not ended, and are left behind (%d): %s", len(left), names)
    for call in left:
        call.abort("the loop has ended")
