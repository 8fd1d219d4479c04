"""Shields: to wait for something without passing one's own cancellation on to it.

Invariant: what is shielded runs in a task of its own, which lives until it ends; to cancel who waits for it never
cancels it. Whoever was cancelled meanwhile raises that, once, and `task.cancelling()` says so.
"""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop
from collections.abc import Awaitable
from typing import TypeVar

from yamanote.runtime._cancel import wait_for_end
from yamanote.runtime._join import JoinHandle
from yamanote.runtime._task import start, tasks_of

__all__ = ["shield", "shield_wait"]

T = TypeVar("T")


def shield(aw: Awaitable[T], /) -> JoinHandle[T]:
    """Protect `aw` from the cancellation of whoever awaits what this returns.

    A coroutine begins at once, in a task of its own, and goes on to its end; a task, a future or a handle is taken as
    it is. What comes back is a `JoinHandle`: it may be awaited again, from anywhere, and `abort` does cancel `aw`.
    Awaiting it raises `JoinError`, not CancelledError, when `aw` was cancelled.

    An error that nobody asks for is reported once, by the exception handler of the loop.

    Raises TypeError for what cannot be awaited, RuntimeError where no loop runs.

    >>> from yamanote.runtime import run, shield
    >>> async def example():
    ...     saved = shield(asyncio.sleep(0.001, "saved"))
    ...     with move_on_after(0):
    ...         await saved
    ...     return await saved
    >>> run(example())
    'saved'
    """
    if isinstance(aw, JoinHandle):
        return aw
    if not isinstance(aw, asyncio.Future):
        return JoinHandle(start(aw, None, None, True, "shield"))
    if isinstance(aw, asyncio.Task) and not aw.done() and aw.get_loop() is _get_running_loop():
        # Whoever is cancelled while it waits here may have been the last to refer to it.
        tasks = tasks_of(aw.get_loop())
        tasks.add(aw)
        aw.add_done_callback(tasks.discard)
    return JoinHandle(aw)


async def shield_wait(aw: Awaitable[T], /) -> T:
    """Wait until `aw` has ended, however often the caller is cancelled meanwhile; return its value.

    A caller that was cancelled gets its CancelledError then, in place of the value. To have that as well, pass a task
    or a handle, and ask it afterwards. An error of `aw` is reported by the exception handler of the loop in that case.

    Raises what `aw` raises, `JoinError` when it was cancelled itself, and RuntimeError for the calling task.

    **Cancel safety:** `aw` goes on to its end, and the cancellation is raised when it is there.

    >>> from yamanote.runtime import run, shield_wait
    >>> async def example():
    ...     with move_on_after(0) as scope:
    ...         await shield_wait(asyncio.sleep(0.001))
    ...     return scope.cancelled_caught
    >>> run(example())
    True
    """
    handle = shield(aw)
    if handle._includes(asyncio.current_task()):
        raise RuntimeError("a task cannot wait for its own end")
    await wait_for_end([handle._future])
    return await handle
