"""Eager: coroutines that start where they are called.

Invariant: what is started eagerly has run up to its first wait, or to its end, when the call returns; all of it, from
its first instruction on, in one task of its own. It is always that task that the caller gets.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar, overload

from yamanote.runtime._task import start

__all__ = ["async_eager", "coro_eager", "eager", "prime", "primed"]

T = TypeVar("T")
P = ParamSpec("P")


@overload
def eager(target: Awaitable[T], /) -> asyncio.Task[T]: ...
@overload
def eager(target: Callable[P, Awaitable[T]], /) -> Callable[P, asyncio.Task[T]]: ...
def eager(
    target: Awaitable[Any] | Callable[..., Awaitable[Any]], /
) -> asyncio.Task[Any] | Callable[..., asyncio.Task[Any]]:
    """`coro_eager` for a coroutine, `async_eager` for a function: also as a decorator.

    Raises TypeError for anything else.

    >>> @eager
    ... async def fetch(log):
    ...     log.append("request")
    ...     await asyncio.sleep(0)
    ...     return "response"
    >>> async def main():
    ...     log = []
    ...     response = fetch(log)  # the request is on its way
    ...     log.append("other work")
    ...     return log, await response
    >>> run(main())
    (['request', 'other work'], 'response')
    """
    if inspect.isawaitable(target):
        return start(target, None, None, True, "eager")
    if callable(target):
        return _eagerly(target, "eager")
    raise TypeError(f"eager() needs a coroutine, or a function that returns one, not {target!r}")


def coro_eager(coro: Awaitable[T]) -> asyncio.Task[T]:
    """Run a coroutine at once up to its first wait, and return its task, which goes on, or has ended by then.

    It is a task like any other from its first instruction on, in a copy of the caller's context: `asyncio.timeout`,
    task groups and cancel scopes may be entered before the first wait and left after it. It lives until it ends,
    whether somebody refers to it or not. `spawn` with ``eager=True`` is the same for those who want a `JoinHandle`;
    `start_task` takes a name and a context.

    An error, also one before the first wait, is raised where the task is awaited; one that nobody asks for is reported
    by the exception handler of the loop. KeyboardInterrupt and SystemExit come out of this call as well.

    Raises TypeError for what cannot be awaited, RuntimeError where no loop runs: nothing of the coroutine has run then.

    **Cancel safety:** cancelling the caller leaves the task alone, unless the caller is awaiting it: whoever awaits one
    of asyncio's tasks passes its own cancellation on to it.

    >>> async def main():
    ...     return coro_eager(asyncio.sleep(0)).done(), coro_eager(asyncio.Event().wait()).cancel()
    >>> run(main())
    (False, True)
    """
    return start(coro, None, None, True, "coro_eager")


def async_eager(function: Callable[P, Awaitable[T]], /) -> Callable[P, asyncio.Task[T]]:
    """Make a function of which each call is started by `coro_eager`: ``@async_eager``.

    `function` may be anything that returns a coroutine when it is called: an async function or method, a partial.

    Raises TypeError for what cannot be called. The new function raises what `coro_eager` raises.

    >>> @async_eager
    ... async def double(number):
    ...     return number * 2
    >>> async def main():
    ...     return double(2).result()
    >>> run(main())
    4
    """
    return _eagerly(function, "async_eager")


prime = coro_eager
"""The same, for those who know it by this name."""
primed = async_eager
"""The same, for those who know it by this name."""


def _eagerly(function: Callable[P, Awaitable[T]], caller: str) -> Callable[P, asyncio.Task[T]]:
    if not callable(function):
        raise TypeError(f"{caller}() needs a function that returns a coroutine, not {function!r}")

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> asyncio.Task[T]:
        return start(function(*args, **kwargs), None, None, True, caller)

    return call
