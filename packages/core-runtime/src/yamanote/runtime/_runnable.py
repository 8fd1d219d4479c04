"""Who could run, and who waits: the tasks of a loop by what they are doing.

Invariant: each unfinished task is running, runnable or blocked. Whoever is on the stack is running, also a task that is
just starting another one eagerly. It is the tasks themselves that are asked, so the loop may be anybody's.
"""

from __future__ import annotations

import asyncio
from typing import Any

from yamanote.runtime._join import _Join

__all__ = ["blocked_tasks", "runnable_tasks"]


def runnable_tasks(loop: asyncio.AbstractEventLoop | None = None) -> set[asyncio.Task[Any]]:
    """The tasks of `loop`, by default the running one, that will take a step as soon as it is their turn.

    They are new, or were woken or cancelled, or let the others run (`yield_now`). Who is running is not among them.

    Raises RuntimeError without a `loop` where none runs. **Threads:** it may be called from another thread than that of
    the loop, and gets then what it can see while the loop goes on.

    >>> async def main():
    ...     spawn(asyncio.sleep(0), name="new")
    ...     return [task.get_name() for task in runnable_tasks()]
    >>> run(main())
    ['new']
    """
    return {task for task in _suspended(loop) if not _is_blocked(task)}


def blocked_tasks(loop: asyncio.AbstractEventLoop | None = None) -> set[asyncio.Task[Any]]:
    """The tasks of `loop`, by default the running one, that wait for something that has not happened yet.

    Raises RuntimeError without a `loop` where none runs. **Threads:** as `runnable_tasks`.

    >>> async def main():
    ...     spawn(asyncio.Event().wait(), name="waits")
    ...     await yield_now()
    ...     return [task.get_name() for task in blocked_tasks()]
    >>> run(main())
    ['waits']
    """
    return {task for task in _suspended(loop) if _is_blocked(task)}


def _suspended(loop: asyncio.AbstractEventLoop | None) -> set[asyncio.Task[Any]]:
    tasks = asyncio.all_tasks(loop or asyncio.get_running_loop())
    return {task for task in tasks if not getattr(task.get_coro(), "cr_running", False)}


def _is_blocked(task: asyncio.Task[Any]) -> bool:
    # What the task has yielded, and is woken by; None for one that needs nothing. There is no public way to ask for it.
    awaited: Any = getattr(task, "_fut_waiter", None)
    if isinstance(awaited, _Join):
        return awaited._cancelled is None and not awaited._future.done()
    return awaited is not None and not awaited.done()
