"""Shutdown: the end of everything that runs on a loop, within a number of seconds.

Invariant: every task has been cancelled and has ended, the asynchronous generators are closed, the calls in threads
have been made; what would not end in time is named, with the lines where it is, and left behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from yamanote.runtime._blocking import finish_blocking, leave_blocking
from yamanote.runtime._dump import describe
from yamanote.runtime._handle import give_up_brought, refuse_from_now_on
from yamanote.runtime._task import start_task, tasks_of

__all__ = ["abandon", "end_tasks", "shut_down"]

_NAMED = 10
"""How many tasks a warning names."""
_TURNS = 10
"""How many turns of the loop a task gets that has to be cancelled twice."""

_logger = logging.getLogger("yamanote")


async def shut_down(timeout: float, before_threads: Callable[[], object]) -> None:
    """End everything on the running loop but the calling task, in at most `timeout` seconds.

    `before_threads` is called when no tasks are left: from there on time must not stand still while threads work.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    refuse_from_now_on(loop)
    await asyncio.sleep(0)  # what other threads have brought before is a task now
    await end_tasks(deadline)
    behind = set(_others())
    await _wait([start_task(loop.shutdown_asyncgens(), name="shutdown_asyncgens()")], deadline)
    await _cancel_again([task for task in _others() if task not in behind])
    before_threads()
    await _end_threads(deadline)
    give_up_brought(loop)
    # Threads that wait for something that has just ended are woken by callbacks of callbacks.
    for _ in range(3):
        await asyncio.sleep(0)


async def end_tasks(deadline: float) -> None:
    """Cancel all tasks of the running loop but the calling one, and those that they start, and wait for their end."""
    loop = asyncio.get_running_loop()
    left = _others()
    # Those that have been cancelled already are on their way out: to cancel them again would end their clean-up.
    if forgotten := [task for task in left if not task.cancelling()]:
        _logger.warning("the runtime ended before %d of its tasks, which are cancelled: %s", *_named(forgotten))
    while left:
        for task in left:
            if not task.cancelling():
                task.cancel()
        await _wait(left, deadline)
        left = _others()
        if loop.time() >= deadline:
            break
    await _cancel_again(left)


def abandon(loop: asyncio.AbstractEventLoop, ending: asyncio.Task[None] | None) -> None:
    """Name the tasks and calls that have not ended, and tell who waits for them. `loop` runs no more.

    `ending` is the task of `shut_down`, which may be among them. asyncio does not complain of them any more.
    """
    refuse_from_now_on(loop)
    give_up_brought(loop)
    # As if it were running: else asyncio asks the tasks of other threads too, and waits for those that compute (3.14t).
    running = asyncio._get_running_loop()
    asyncio._set_running_loop(loop)
    try:
        left = _unfinished(loop)
    finally:
        asyncio._set_running_loop(running)
    for task in left:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    if named := sorted(left - _joining - {ending}, key=asyncio.Task.get_name):
        text = "\n".join(map(describe, named[:_NAMED]))
        _logger.warning("tasks that have not ended, and are left behind (%d):\n%s", len(named), text)
    leave_blocking(loop)


async def _cancel_again(stubborn: list[asyncio.Task[Any]]) -> None:
    """Most of those that do not end have lost their cancellation somewhere: another one ends them soon, or never."""
    if not stubborn:
        return
    _logger.warning("tasks that have not ended in time, and are cancelled again (%d): %s", *_named(stubborn))
    for task in stubborn:
        task.cancel()
    for _ in range(_TURNS):
        if all(task.done() for task in stubborn):
            return
        await asyncio.sleep(0)


_joining: set[asyncio.Task[None]] = set()
"""Tasks that wait for the threads of an executor. To drop one would run its clean-up, which may wait as well."""


async def _end_threads(deadline: float) -> None:
    loop = asyncio.get_running_loop()
    joining = start_task(loop.shutdown_default_executor(), name="shutdown_default_executor()")
    await finish_blocking(max(0.0, deadline - loop.time()))
    await _wait([joining], deadline)
    if not joining.done():
        _joining.add(joining)
        executor = getattr(loop, "_default_executor", None)  # there is no public way to its threads
        threads = [thread.name for thread in getattr(executor, "_threads", ()) if thread.is_alive()]
        _logger.warning(
            "the runtime ended before calls in its default executor, which go on in their threads: %s",
            ", ".join(sorted(threads)) or "unknown",
        )


async def _wait(tasks: list[asyncio.Task[Any]], deadline: float) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=max(0.0, deadline - asyncio.get_running_loop().time()))


def _others() -> list[asyncio.Task[Any]]:
    """All tasks but the calling one, in an order that does not depend on where they lie in memory."""
    current = asyncio.current_task()
    tasks = _unfinished(asyncio.get_running_loop()) - {current}
    return sorted(tasks, key=asyncio.Task.get_name)


def _unfinished(loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
    """The tasks of `loop`, which runs here. Python 3.14 knows those only that were made in this thread."""
    ours = {task for task in tasks_of(loop) if isinstance(task, asyncio.Task) and not task.done()}
    return asyncio.all_tasks(loop) | ours


def _named(tasks: list[asyncio.Task[Any]]) -> tuple[int, str]:
    names = [task.get_name() for task in tasks]
    return len(names), ", ".join([*names[:_NAMED], "..."] if len(names) > _NAMED else names)
