"""The cooperative budget: ready is synchronous, but not for ever.

Invariant: an operation of ours that can complete at once completes without a loop turn, at most `BUDGET` times in a row
per handle; then the task yields once, *before* the operation, so that a cancellation which arrives there loses nothing.

The counter lives in the handle (a receiver, a lock), where it costs one attribute: a counter per task, as Tokio has it,
would cost a lookup of the running task in each operation.
"""

from __future__ import annotations

import types
from collections.abc import Generator

__all__ = ["BUDGET", "yield_now"]

BUDGET = 128
"""How many operations that are ready a handle completes in a row before its task yields once. The number is Tokio's."""


@types.coroutine
def yield_now() -> Generator[None, None, None]:
    """Let every other task that is ready run once, then go on.

    Takes one loop turn, always. A cancellation that was requested before is raised here.

    >>> run(yield_now())
    """
    yield
