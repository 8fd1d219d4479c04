"""What a task leaves in the ready queue of our loop: a tuple in the place of a Handle.

Invariant: an entry of the queue is a Handle, or a `Step` that stands for one which nobody has in hand. Only the C code
of asyncio schedules the steps and the wake-ups of its tasks, and it throws away what `call_soon` returns: nobody could
cancel them. So it is with two callbacks of ours, which only ever go to `add_done_callback`: those of a wait for a
handle, and of the set that keeps tasks alive. Whatever else is scheduled gets its Handle.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, Handle
from collections.abc import Callable
from contextvars import Context
from types import MethodType
from typing import Any, TypeAlias

__all__ = ["STEP", "WAKE_UP", "Entry", "Step", "handle_of", "task_of"]

Step: TypeAlias = tuple[Context, Callable[..., object], "asyncio.Future[Any] | None"]
"""Where to run, what to run, and for a wake-up the future that it comes from: its one argument.

A plain tuple takes a sixth of the time of a Handle to make, and a third to run.
"""
Entry: TypeAlias = Handle | Step

WAKE_UP = "task_wakeup"
"""The name of the built-in method by which a future wakes a C task. Were it to change, wake-ups would get Handles."""


def _type_of_steps() -> type:
    """The type of what a C task schedules as its next step. It is not public, so it is read off such a task."""

    class Loop:
        callback: object = None

        def call_soon(self, callback: object, *, context: Context) -> None:
            self.callback = callback

        def get_debug(self) -> bool:
            return False

    async def nothing() -> None:
        pass

    loop: Any = Loop()
    coroutine = nothing()
    task: Any = asyncio.Task(coroutine, loop=loop, name="nothing")  # named, so as not to use up the name Task-1
    task._log_destroy_pending = False
    coroutine.close()
    step, loop.callback = type(loop.callback), None
    # Tasks in Python schedule an ordinary method, which could be anybody's: those keep their Handles.
    return Loop if step is MethodType else step


STEP = _type_of_steps()


_STEPS = ("__step", "__wakeup", WAKE_UP)
"""The names of the methods by which a task is stepped or woken: those of tasks in Python, and of those in C."""


def task_of(entry: Any) -> Any:
    """The task that takes a step when `entry` of a ready queue, ours or another, runs; None if it is something else."""
    callback: Any = entry[1] if type(entry) is tuple else getattr(entry, "_callback", None)
    # Not any method of a task will do: `task.cancel` is a callback like others.
    if type(callback) is STEP or getattr(callback, "__name__", None) in _STEPS:
        return getattr(callback, "__self__", None)
    return None


def handle_of(entry: Entry, loop: AbstractEventLoop) -> Handle:
    """An entry of the ready queue as asyncio knows it."""
    if not isinstance(entry, tuple):
        return entry
    context, callback, future = entry
    return Handle(callback, () if future is None else (future,), loop, context)
