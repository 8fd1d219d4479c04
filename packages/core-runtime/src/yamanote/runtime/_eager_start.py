"""Eager start where Python has none, on 3.11.

Invariant: as on later versions, the coroutine runs at once up to its first wait, in its own context and its own task,
which is the current one meanwhile. Then the caller's task is the current one again, however that step has ended.

A new task asks its loop for its first step by `call_soon`, like anybody else. We take that request and run the step
ourselves. So it works on every loop, whatever its ready queue is like.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

__all__ = ["start_now"]

T = TypeVar("T")


def start_now(
    coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop, name: str | None, context: Context | None
) -> asyncio.Task[T]:
    """A task on `loop`, which runs in this thread, that has come to its first wait or to its end."""
    try:
        attributes = vars(loop)
    except TypeError:  # it does not let itself be listened to
        return asyncio.Task(coroutine, loop=loop, name=name, context=context)
    before = attributes.get("call_soon")
    call_soon = loop.call_soon
    first_steps: list[tuple[Context, Callable[[], object]]] = []

    def take_first_step(
        callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle | None:
        # A finalizer or a signal handler may schedule something while the task is being made: that goes on to the loop.
        task = getattr(callback, "__self__", None)
        if context is None or not isinstance(task, asyncio.Task) or task.get_coro() is not coroutine:
            return call_soon(callback, *args, context=context)
        first_steps.append((context, callback))
        return None

    attributes["call_soon"] = take_first_step
    try:
        task = asyncio.Task(coroutine, loop=loop, name=name, context=context)
    finally:
        if before is None:
            del attributes["call_soon"]
        else:
            attributes["call_soon"] = before
    for own_context, step in first_steps:
        _run_as_current(own_context, step, loop)
    return task


def _run_as_current(context: Context, step: Callable[[], object], loop: asyncio.AbstractEventLoop) -> None:
    """Run a step, which enters and leaves its own task, in the middle of a step of the caller's."""
    caller = asyncio.current_task(loop)
    if caller is None:  # in a callback
        context.run(step)
        return
    _leave_task(loop, caller)
    try:
        context.run(step)
    finally:
        _enter_task(loop, caller)
