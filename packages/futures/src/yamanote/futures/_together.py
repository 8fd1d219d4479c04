"""Together: run several things until all have ended, or until one of them has decided the matter.

Invariant: what has begun has ended when `run_together` returns or raises, whatever happens. After the decision nothing
begins, and the others are cancelled in the very turn in which it fell; the caller wakes up when the last has ended.
`join`, `gather` and `race` differ only in what decides, and in what they make of the ends.
"""

from __future__ import annotations

from asyncio import Task
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from yamanote.futures._completion import CompletionQueue
from yamanote.futures._ownership import close_rest
from yamanote.runtime import BUDGET, cooperative, yield_now

__all__ = ["run_together"]

T = TypeVar("T")


async def run_together(
    awaitables: Iterable[Awaitable[T]], until: Callable[[Task[Any]], bool] | None, limit: int | None = None
) -> tuple[list[Task[T]], Task[T] | None]:
    """Run `awaitables`, at most `limit` at a time, until all have ended, or `until` is true of one that has.

    Returns the tasks of those that have begun, in order, and the one that was decisive. What `awaitables` raises is
    raised when all have ended.
    """
    queue: CompletionQueue[None, T] = CompletionQueue(until=until)
    tasks: list[Task[T]] = []
    unstarted = iter(awaitables)
    try:
        # A loop around calls that are ready at once gives way, too.
        await cooperative()
        for awaitable in unstarted:
            tasks.append(queue.add(awaitable, None, eager=True))
            if len(tasks) % BUDGET == 0:
                await yield_now()
            while limit is not None and len(queue) >= limit and queue.decisive is None:
                if queue.pop_nowait() is None:
                    await queue.pop()
            if queue.decisive is not None:
                break
        await queue.wait()
    except BaseException as error:
        await queue.__aexit__(type(error), error, None)
        tasks.clear()  # this error refers to this frame, and what nobody takes is to be reported now
        raise
    finally:
        close_rest(awaitables, unstarted)
    return tasks, queue.decisive
