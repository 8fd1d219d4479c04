"""Scheduling: who runs next, by places in the ready queue of a loop.

Invariant: place 0 is what runs next. Nothing here adds an entry to the queue without a task or a callback behind it, or
takes one out for good: entries change places, all of them within one call.

The queue is a deque that asyncio's loops, and ours, keep in `_ready`. Loops that are not written in Python show none.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, get_running_loop
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar, overload

from yamanote.runtime._cancel import cancel_and_wait
from yamanote.runtime._loop_steps import task_of
from yamanote.runtime._task import start_task

__all__ = ["create_task_descend", "move", "sleep_insert", "task_reinsert", "whole_number"]

T = TypeVar("T")


async def sleep_insert(pos: int) -> None:
    """Let others run, like `asyncio.sleep` with 0, but go on at place `pos` of the ready queue and not at its end.

    So as many callbacks run before, each step of a task being one. 0 means at once; a number beyond the end means the
    end; negative ones count from there, as they do for lists.

    **Order:** who calls it overtakes others. A task that does nothing else keeps those behind it from running for ever.

    Raises TypeError unless `pos` is a whole number, RuntimeError on loops without a ready queue (see `task_reinsert`).

    **Cancel safety:** nothing to lose. A cancellation meanwhile is raised when it goes on.

    >>> log = []
    >>> async def note(word):
    ...     log.append(word)
    >>> async def main():
    ...     spawn(note("one"), note("two"), note("three"))
    ...     await sleep_insert(2)
    ...     return list(log)
    >>> run(main())
    ['one', 'two']
    """
    loop = get_running_loop()
    ready = ready_queue(loop, "sleep_insert")
    await _Place(loop, ready, whole_number(pos, "pos"))


@overload
def task_reinsert(task: asyncio.Task[Any], pos: int, /) -> None: ...
@overload
def task_reinsert(pos: int, /) -> None: ...
def task_reinsert(first: asyncio.Task[Any] | int, second: int | None = None, /) -> None:
    """Move a task that is ready to run to place `pos` of the ready queue; 0 means next.

    ``task_reinsert(task, pos)`` moves that task; ``task_reinsert(pos)`` the last one in the queue, such as the one that
    was just made. Positions are those of `list.insert`. It looks for the task from the end.

    Works on asyncio's loops and on ours. Raises RuntimeError where no loop runs, and on loops that do not show their
    ready queue, such as uvloop's; ValueError if the task is not ready: it waits, is running or has ended, or belongs to
    another loop; TypeError for a `pos` that is no whole number.

    **Threads:** for the thread of the loop, in tasks and in callbacks.

    >>> log = []
    >>> async def note(word):
    ...     log.append(word)
    >>> async def main():
    ...     first, second = start_task(note("first")), start_task(note("second"))
    ...     task_reinsert(second, 0)
    ...     await first
    ...     return log
    >>> run(main())
    ['second', 'first']
    """
    ready = ready_queue(get_running_loop(), "task_reinsert")
    if second is None:
        pos = whole_number(first, "pos")
        if not move(ready, lambda entry: task_of(entry) is not None, pos):
            raise ValueError("no task is ready to run")
        return
    pos = whole_number(second, "pos")
    if not asyncio.isfuture(first):
        raise TypeError(f"task must be a task, not {first!r}")
    if not move(ready, lambda entry: task_of(entry) is first, pos):
        raise ValueError(f"task must be ready to run on the running loop, and this one is not: {first!r}")


async def create_task_descend(coro: Awaitable[T], *, name: str | None = None) -> asyncio.Task[T]:
    """Start a task and let it run before the caller, up to its first wait; then the caller goes on, before all others.

    Depth first: what the new task starts in this way runs before it goes on itself. `eager` does so within the call,
    without a turn of the loop and on every loop.

    Raises TypeError for what cannot be awaited, RuntimeError on loops without a ready queue (see `task_reinsert`).

    **Cancel safety:** when the caller is cancelled before it has the task, the task is cancelled too, and waited for.

    >>> log = []
    >>> async def child():
    ...     log.append("child")
    ...     await asyncio.sleep(0)
    >>> async def main():
    ...     asyncio.get_running_loop().call_soon(log.append, "others")
    ...     task = await create_task_descend(child())
    ...     log.append("caller")
    ...     await task
    ...     return log
    >>> run(main())
    ['child', 'caller', 'others']
    """
    try:
        ready_queue(get_running_loop(), "create_task_descend")
    except RuntimeError:
        if isinstance(coro, Coroutine):
            coro.close()
        raise
    task = start_task(coro, name=name)
    task_reinsert(task, 0)
    try:
        await sleep_insert(1)
    except CancelledError:
        await cancel_and_wait(task)
        raise
    return task


def ready_queue(loop: asyncio.AbstractEventLoop, caller: str) -> deque[Any]:
    """The ready queue of `loop`, for `caller`, whom the error names if there is none."""
    ready = getattr(loop, "_ready", None)
    if isinstance(ready, deque):
        return ready
    raise RuntimeError(f"{caller}() needs an event loop that shows its ready queue, as asyncio's own do, not {loop!r}")


def move(ready: deque[Any], is_meant: Callable[[Any], bool], pos: int) -> bool:
    """Move the last entry that is meant to `pos`; tell whether there was one."""
    # By places counted from the head, because other threads may append meanwhile.
    for place in range(len(ready) - 1, -1, -1):
        entry = ready[place]
        if is_meant(entry):
            del ready[place]
            ready.insert(pos, entry)
            return True
    return False


def whole_number(value: object, argument: str) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{argument} must be a whole number, not {value!r}")
    return value


class _Place:
    """What a task yields to be ready at once, at a place of its choice: for asyncio a future that is done."""

    __slots__ = ("_asyncio_future_blocking", "_loop", "_pos", "_ready")

    def __init__(self, loop: asyncio.AbstractEventLoop, ready: deque[Any], pos: int) -> None:
        self._loop = loop
        self._ready = ready
        self._pos = pos

    def __await__(self) -> Generator[Any, None, None]:
        self._asyncio_future_blocking = True  # "this was yielded to be waited for": the protocol of asyncio's futures
        yield self

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(self, wake_up: Callable[[_Place], object], *, context: Context) -> None:
        self._loop.call_soon(wake_up, self, context=context)
        task = asyncio.current_task(self._loop)
        move(self._ready, lambda entry: task_of(entry) is task, self._pos)

    def cancel(self, msg: str | None = None) -> bool:
        return False  # about to wake the task, which sees to it itself

    def done(self) -> bool:
        return True

    def result(self) -> None:
        return None
