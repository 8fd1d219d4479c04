"""`to_thread` and `from_thread`: blocking code beside the loop, which can call back.

Invariant: a call in a thread that a loop has asked for can call that loop until nobody wants its result any more. Then
a call back in progress is cancelled, and every later one refused; for who awaits the call, it has ended before the
cancellation goes on.
"""

from __future__ import annotations

from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, overload

from yamanote.runtime import require_function, run_errand, spawn_blocking
from yamanote.threads._call import LoopCall

__all__ = ["from_thread", "to_thread"]

P = ParamSpec("P")
T = TypeVar("T")


def to_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
    """Call `function` in a worker thread, and return what it returns: for what would block the loop.

    It is `await spawn_blocking(...)`, for who needs no handle: the call begins when it is awaited. The function can
    call the loop through `from_thread`. It sees the context variables of the caller; what it sets stays there.

    Raises what the function raises; TypeError, at the call, for what cannot be called.

    **Cancel safety:** nobody can stop a thread. A cancellation is raised here while the function runs on, in vain; if
    it is in the middle of `from_thread`, or calls it later, that raises CancelledError in the thread. What it was
    calling has ended by then. A function that never calls back can look at its `yamanote.runtime.current_token`.

    >>> from yamanote.runtime import run
    >>> from yamanote.threads import to_thread
    >>> async def main() -> int:
    ...     return await to_thread(sum, [1, 2, 3])
    >>> run(main())
    6
    """
    require_function(function)
    return _to_thread(function, args, kwargs)


async def _to_thread(function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    return await spawn_blocking(function, *args, **kwargs)


@overload
def from_thread(function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
@overload
def from_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
def from_thread(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call `function` on the loop that this thread works for, and block until it has ended.

    For functions which `to_thread`, `spawn_blocking`, `map_blocking` or a `BlockingPool` calls for a loop. An async
    function runs in a task of its own; of any other the result is returned as it is, unless it can be awaited: then it
    is awaited, in a task of its own. It sees the context variables of the thread; what it sets stays there.

    Raises what the function raises; CancelledError when nobody wants the result of the thread any more, because the
    task that awaited it has been cancelled, or its handle aborted, be it before or meanwhile; JoinError when the call
    has been cancelled by anybody else; RuntimeError in a thread that runs an event loop, in a thread that works for no
    loop, and when the loop has been closed.

    >>> import asyncio
    >>> from yamanote.runtime import run
    >>> from yamanote.threads import from_thread, to_thread
    >>> def work() -> str:
    ...     return from_thread(asyncio.sleep, 0, "slept on the loop")
    >>> async def main() -> str:
    ...     return await to_thread(work)
    >>> run(main())
    'slept on the loop'
    """
    require_function(function)
    if _get_running_loop() is not None:
        raise RuntimeError(
            "from_thread() would block the event loop of this thread, and wait for it for ever: "
            "here the function can be called, and awaited, directly"
        )
    return run_errand(lambda loop: LoopCall[Any](loop, function, args, kwargs))
