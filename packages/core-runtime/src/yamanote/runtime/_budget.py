"""The cooperative budget: ready is synchronous, but not for ever.

Invariant: an operation of ours that can complete at once completes without a loop turn, at most `BUDGET` times in a row
per handle; then the task yields once, *before* the operation, so that a cancellation which arrives there loses nothing.

The counter lives in the handle (a receiver, a lock), where it costs one attribute: a counter per task, as Tokio has it,
would cost a lookup of the running task in each operation. For loops without a handle there is one counter per event
loop. All tasks of the loop draw on it, so each of them yields after `BUDGET` calls at the latest, mostly sooner.
"""

from __future__ import annotations

import types
from asyncio import get_running_loop
from collections.abc import Generator

from yamanote.runtime._waiter import TaskWaiter

__all__ = ["BUDGET", "checkpoint", "cooperative", "yield_now"]

BUDGET = 128
"""How many operations that are ready a handle completes in a row before its task yields once. The number is Tokio's."""


@types.coroutine
def yield_now() -> Generator[None, None, None]:
    """Let every other task that is ready run once, then go on.

    Takes one loop turn, always. A cancellation that was requested before is raised here.

    >>> run(yield_now())
    """
    yield


async def cooperative() -> None:
    """Make a loop that never has to wait fair: await this once in each round.

    Up to 127 times in a row it returns at once, then it yields like `yield_now`. All tasks of an event loop share the
    count.

    **Cancel safety:** a cancellation is raised only where it yields.

    >>> async def count():
    ...     for number in range(1000):
    ...         await cooperative()
    ...     return number
    >>> run(count())
    999
    """
    loop = get_running_loop()
    # An attribute of the loop: only its own thread touches it, and it begins anew with each loop.
    left: int = getattr(loop, "_yamanote_budget", BUDGET) - 1
    if left:
        loop._yamanote_budget = left  # type: ignore[attr-defined]
        return
    loop._yamanote_budget = BUDGET  # type: ignore[attr-defined]
    await yield_now()


async def checkpoint() -> None:
    """Let everybody else run, and be cancelled here if there is a reason.

    A cancellation that was requested before is raised, like in `yield_now`, and also that of a deadline which has
    passed while nobody gave way: `yield_now` goes on once more before the loop looks at its clock. This one always
    waits, for one or two loop turns.

    >>> async def example():
    ...     with move_on_after(0):
    ...         while True:
    ...             await checkpoint()
    >>> run(example())
    """
    waiter: TaskWaiter[None] = TaskWaiter()
    loop = get_running_loop()
    # Timers fire in order: what was due before this one comes first, however the loop mixes them with the rest.
    timer = loop.call_at(loop.time(), waiter.hand, None)
    try:
        await waiter.future
    finally:
        timer.cancel()
