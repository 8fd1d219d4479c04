"""Deadlines that travel: code inside of a block can ask how much time is left, wherever it was called from.

Invariant: what counts is the earliest deadline of the blocks around the caller that have not ended, from the innermost
outwards, up to and including the first shield. Around it are also the blocks in which its task was started, and those
that have called it in a thread.

A context variable holds the innermost block that has a deadline or is a shield, and each block the one around it. It
is set when a block begins, and not set back when that ends: nobody could do so in the copies that others have got. So
whoever reads passes over blocks that have ended, and each block forgets those when it begins, and again when it ends:
else tasks that start each other in their blocks would remember all before them.
"""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop
from contextvars import ContextVar
from math import inf
from typing import Any

__all__ = ["Block", "current_deadline", "innermost", "remaining"]


class Block:
    """A block of code that may have a deadline, as the code inside sees it."""

    __slots__ = ("_deadline", "_outer", "_shield", "_task", "_travels")

    def __init__(self, deadline: float | None) -> None:
        self._deadline = deadline  # on the clock of the task's loop; it may be moved
        self._shield = False
        self._task: asyncio.Task[Any] | None = None  # whose block it is; None when it has ended
        self._outer: Block | None = None
        self._travels = False  # whether the code inside knows of it

    def _surround(self) -> None:
        """Let the code that comes now, in the running task, know of this block."""
        if self._travels:
            return
        self._travels = True
        outer = innermost.get()
        while outer is not None and outer._task is None:  # `living`, without the call
            outer = outer._outer
        self._outer = outer
        innermost.set(self)


def living(block: Block | None) -> Block | None:
    """That block, or else the first around it that has not ended."""
    while block is not None and block._task is None:
        block = block._outer
    return block


innermost: ContextVar[Block | None] = ContextVar("yamanote.runtime.innermost", default=None)


def current_deadline() -> float | None:
    """When the running code is going to be cancelled, on the clock of the running loop; None for never.

    It is the earliest deadline of all blocks of ours around the caller: `CancelScope`, `move_on_after`, `timeout`,
    `TaskGroup`. They are also around the tasks that are started in them (`spawn`, `asyncio.create_task`), and around
    the threads that are called (`spawn_blocking`, `asyncio.to_thread`), until they end. A deadline that is moved is
    followed; those outside of a shield do not count inside.

    A deadline of another loop is told by the clock of the running one; in a thread without, by that of its own.

    >>> from yamanote.runtime import current_deadline, move_on_after, run
    >>> async def example():
    ...     with move_on_after(10) as scope:
    ...         return current_deadline() == scope.deadline
    >>> run(example())
    True
    """
    return _earliest()[0]


def remaining() -> float | None:
    """How many seconds are left until `current_deadline`; 0 when it has passed, None when there is none.

    For calls that take a number: ``connect(host, timeout=remaining())``. Some libraries read 0 as no limit at all, and
    work inside of `yamanote.time.timeout` needs no number.

    **Threads:** it can be asked in every thread that carries the context variables of its caller.

    >>> from yamanote.runtime import move_on_after, remaining, run
    >>> async def example():
    ...     with move_on_after(10):
    ...         return remaining() <= 10
    >>> run(example())
    True
    """
    deadline, loop = _earliest()
    if deadline is None or loop is None:
        return None
    return max(0.0, deadline - loop.time())


def _earliest() -> tuple[float | None, asyncio.AbstractEventLoop | None]:
    """The deadline, and the loop by whose clock it is told."""
    clock = _get_running_loop()
    earliest = inf
    block = innermost.get()
    while block is not None:
        task = block._task
        if task is not None:
            deadline = block._deadline
            if deadline is not None:
                loop = task.get_loop()
                if clock is None:
                    clock = loop
                elif clock is not loop:
                    deadline += clock.time() - loop.time()
                earliest = min(earliest, deadline)
            if block._shield:
                break
        block = block._outer
    return (None if earliest == inf else earliest), clock
