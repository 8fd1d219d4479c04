"""The call form of a time limit: a `CancelScope` around one await.

Work that has a limit seldom needs it, and often need not even wait. Then all that happens is that the scope is made,
entered and left, and this is written here once more, without the calls: it halves the price.
"""

from __future__ import annotations

from asyncio import current_task
from collections.abc import Awaitable, Coroutine
from typing import TypeVar

from yamanote.runtime._deadline import innermost, living
from yamanote.runtime._scope import FAR, CancelScope, move_on_after, shields
from yamanote.runtime._shared_timer import shared_timer_of

__all__ = ["finish_within"]

T = TypeVar("T")


async def finish_within(seconds: float | None, awaitable: Awaitable[T]) -> T:
    """Await `awaitable`, in the running task; raise TimeoutError when it was cut short after so many seconds.

    None means for ever. For whoever builds combinators: `yamanote.time.timeout` is the friendlier face, and says more.

    Raises ValueError and TypeError for `seconds` that are no number of seconds, and closes the coroutine. **Cancel
    safety**: that of the work.

    >>> from yamanote.runtime import finish_within, run
    >>> run(finish_within(10, asyncio.sleep(0, "done")))
    'done'
    """
    task = current_task()
    if task is None or not isinstance(seconds, (int, float)) or not 0 < seconds < FAR or shields:
        try:
            scope = move_on_after(seconds)
            scope.__enter__()
        except BaseException:
            if isinstance(awaitable, Coroutine):
                awaitable.close()  # it will never run: no warning that it was never awaited
            raise
    else:
        # CancelScope.__init__
        scope = CancelScope.__new__(CancelScope)
        scope._shield = scope._called = scope._caught = scope._delivered = scope._expired = False
        scope._seconds = scope._reason = scope._timer = scope._around = scope._held = None
        # CancelScope.__enter__
        loop = task.get_loop()
        scope._deadline = deadline = loop.time() + seconds
        scope._task = task
        scope._cancelling = task.cancelling()
        # Block._surround
        outer = innermost.get()
        while outer is not None and outer._task is None:
            outer = outer._outer
        scope._outer = outer
        scope._travels = True
        innermost.set(scope)
        # CancelScope._arm
        try:
            shared = loop._yamanote_shared_timer  # type: ignore[attr-defined]
        except AttributeError:
            shared = shared_timer_of(loop)
        scope._shared = shared
        shared[scope] = None
        if deadline < shared.when:
            shared.move(deadline)
    try:
        value = await awaitable
    except BaseException as error:
        if scope.__exit__(type(error), error, error.__traceback__):
            raise TimeoutError(f"not finished within {seconds!r} seconds") from error
        raise
    sharing = scope._shared
    if sharing is None:
        scope.__exit__(None, None, None)
        return value
    # CancelScope.__exit__, of a scope that has not been cancelled: it would not share a timer any more
    scope._task = scope._shared = None
    if scope._outer is not None:
        scope._outer = living(scope._outer)
    del sharing[scope]
    if not sharing and not sharing.is_ending:
        sharing.end_soon()
    return value
