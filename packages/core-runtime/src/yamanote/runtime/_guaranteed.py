"""Guaranteed task: one that begins, whatever happens to it before.

Invariant: every coroutine that is given to it runs up to its first wait at least. A request to cancel the task that
comes before is delivered there, once, and `task.cancelling()` counts it once.

A task that is cancelled before its first step throws the cancellation into a coroutine that has not begun, and none of
its code runs. So this one gets a coroutine that has begun, and waits to be stepped: there it can be caught.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, Task, _get_running_loop
from collections.abc import Awaitable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

from yamanote.runtime._budget import yield_now
from yamanote.runtime._task import as_coroutine, no_loop, start

__all__ = ["GuaranteedTask"]

T = TypeVar("T")


def GuaranteedTask(awaitable: Awaitable[T], *, name: str | None = None, context: Context | None = None) -> Task[T]:
    """Start an `asyncio.Task` whose coroutine begins even if the task is cancelled before its first step.

    Then the CancelledError is raised at its first wait: its `finally` blocks run, and who handles it can go on. A
    coroutine that need not wait ends with its value.

    It starts on the next turn of the running loop, and lives until it ends, whether somebody refers to it or not. Where
    the coroutine may as well begin at once, ``start_task(..., eager=True)`` gives the same guarantee.

    Raises TypeError for what cannot be awaited, RuntimeError where no loop runs.

    >>> from yamanote.runtime import GuaranteedTask, run
    >>> async def work():
    ...     try:
    ...         await asyncio.sleep(3600)
    ...     finally:
    ...         print("cleaned up")
    >>> async def example():
    ...     task = GuaranteedTask(work())
    ...     task.cancel()
    ...     await asyncio.wait([task])
    >>> run(example())
    cleaned up
    """
    coroutine = as_coroutine(awaitable, "GuaranteedTask")
    if _get_running_loop() is None:
        coroutine.close()
        raise no_loop("GuaranteedTask")
    return start(_begun(coroutine), name, context, False, "GuaranteedTask")


def _begun(coroutine: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    run: Any = _run(coroutine)
    # What the task, its repr and the debugger call it.
    run.__name__ = getattr(coroutine, "__name__", run.__name__)
    run.__qualname__ = getattr(coroutine, "__qualname__", run.__qualname__)
    run.send(None)
    return run  # type: ignore[no-any-return]


async def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    try:
        await yield_now()
    except CancelledError as cancelled:
        task = asyncio.current_task()
        assert task is not None
        # Now, so that it is called before anything that the coroutine may wait for can happen.
        task.get_loop().call_soon(_cancel_again, task, *cancelled.args)
    return await coroutine


def _cancel_again(task: Task[Any], message: object = None) -> None:
    # Unless it has ended, or whoever made the request has taken it back.
    if task.cancelling() and task.cancel(message):
        task.uncancel()  # it had been counted
