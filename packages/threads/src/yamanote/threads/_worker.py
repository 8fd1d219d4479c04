"""`to_thread` and `from_thread`: blocking code beside the loop, which can call back.

Invariant: a thread that `to_thread` gave work to can call its home loop for exactly as long as the work is awaited
there. When the awaiting task is cancelled, a call in progress is cancelled and has ended before the cancellation is
raised, and every later one is refused.
"""

from __future__ import annotations

import asyncio
import threading
from asyncio import CancelledError, _get_running_loop
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, overload

from yamanote.runtime import spawn_blocking
from yamanote.threads._call import LoopCall

__all__ = ["from_thread", "to_thread"]

P = ParamSpec("P")
T = TypeVar("T")


def to_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
    """Call `function` in a worker thread, and return what it returns: for what would block the loop.

    It is `spawn_blocking`, with a way back: `from_thread` works in that thread. The function sees the context variables
    of the caller; what it sets stays there.

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
    if not callable(function):
        raise TypeError(f"function must be callable, not {function!r}")
    return _to_thread(function, args, kwargs)


async def _to_thread(function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    home = _Home(asyncio.get_running_loop())
    try:
        return await spawn_blocking(home.run, function, args, kwargs)
    except BaseException as error:
        call = home.leave()
        if call is not None and isinstance(error, CancelledError):
            await call.cancel_and_wait()
        raise


@overload
def from_thread(function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
@overload
def from_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
def from_thread(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call `function` on the loop that this thread works for, and block until it has ended.

    For threads which `to_thread` gave work to. An async function runs in a task of its own; of any other the result is
    returned as it is, unless it can be awaited: then it is awaited, in a task of its own. It sees the context variables
    of the thread; what it sets stays there.

    Raises what the function raises; CancelledError when the task that awaits `to_thread` has been cancelled, be it
    before or meanwhile; JoinError when the call has been cancelled by anybody else; RuntimeError in a thread that runs
    an event loop, in a thread that `to_thread` did not give work to, and when the home loop has been closed.

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
    if not callable(function):
        raise TypeError(f"function must be callable, not {function!r}")
    if _get_running_loop() is not None:
        raise RuntimeError(
            "from_thread() would block the event loop of this thread, and wait for it for ever: "
            "here the function can be called, and awaited, directly"
        )
    home: _Home | None = getattr(_worker, "home", None)
    if home is None:
        raise RuntimeError(
            "from_thread() does not know which loop to call: it works in threads which to_thread() gave work to, "
            "and this is not one of them"
        )
    return home.call(function, args, kwargs)


class _Worker(threading.local):
    """What a thread knows of itself."""

    home: _Home | None = None
    """Where the work comes from that it does at the moment."""


_worker = _Worker()


class _Home:
    """One piece of work, and the loop where it is awaited."""

    __slots__ = ("_call", "_left", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._call: LoopCall[Any] | None = None
        self._left = False

    def run(self, function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        """Do the work, in the thread."""
        _worker.home = self
        try:
            return function(*args, **kwargs)
        finally:
            _worker.home = None

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the loop, from the thread."""
        # Published, then looked: `leave` says so, then looks whether there is a call. One of the two sees the other.
        self._call = call = LoopCall[Any](self._loop, function, args, kwargs)
        try:
            if self._left:
                raise CancelledError("the task that awaits this thread has been cancelled")
            return call.wait()
        finally:
            self._call = None

    def leave(self) -> LoopCall[Any] | None:
        """Allow no call any more; return the one in progress. For the loop, when nobody waits for the work."""
        self._left = True
        return self._call
