"""Race: the first to finish wins."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from yamanote.futures._contenders import Contenders
from yamanote.futures._ownership import require_awaitables, result_of

__all__ = ["race"]

T = TypeVar("T")


async def race(*awaitables: Awaitable[T]) -> T:
    """Run all at once; return the value, or raise the error, of the one that finishes first.

    The losers are cancelled and have ended when this returns; their errors are reported by the loop's exception
    handler. Those that have not begun by then never do. A tie is decided by the order of completion, and the value of
    the second is dropped: to take from one of several channels, `select` on them. Futures, tasks and join handles that
    are passed in are not ours: they go on when they lose.

    Raises JoinError when the winner was cancelled by somebody else, ValueError for nothing to run, TypeError for what
    cannot be awaited. **Cancel safety**: a cancelled call cancels all that it runs, and waits for them.

    >>> from yamanote.futures import race
    >>> from yamanote.runtime import run
    >>> from yamanote.time import sleep
    >>> async def after(seconds, value):
    ...     await sleep(seconds)
    ...     return value
    >>> run(race(after(60, "slow"), after(0, "fast")))
    'fast'
    """
    if not awaitables:
        raise ValueError("a race needs somebody to run")
    require_awaitables(awaitables)
    contenders = Contenders(enumerate(awaitables))
    try:
        _, winner = await contenders.first()
        await contenders.aclose()
    except BaseException as error:
        await contenders.aclose(error)
        raise
    return result_of(winner)
