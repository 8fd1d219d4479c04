"""Running: from a plain program into an event loop, and back with the result.

Invariant: when `run` returns or raises, nothing that it started is left: every task has ended, the asynchronous
generators are closed and so is the loop.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, overload

from yamanote.runtime._blocking import finish_blocking
from yamanote.runtime._cancel import wait_for_end
from yamanote.runtime._task import as_coroutine

__all__ = ["main", "run"]

T = TypeVar("T")
P = ParamSpec("P")

_logger = logging.getLogger("yamanote")


def run(
    main: Awaitable[T],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    debug: bool | None = None,
) -> T:
    """Run `main` to its end on a new event loop, and return what it returns.

    May be called again and again, and in any thread that runs no loop yet. Ctrl-C cancels `main`, whose `finally`
    blocks run, and raises KeyboardInterrupt at the end. Tasks that are left over when `main` ends are cancelled and
    awaited; a warning of the logger ``yamanote`` names them.

    `loop_factory` makes the loop (for instance ``uvloop.new_event_loop``); `debug` is asyncio's.

    Raises what `main` raises, TypeError for what cannot be awaited, RuntimeError where a loop is running.

    >>> from yamanote.runtime import run
    >>> async def answer():
    ...     return 42
    >>> run(answer())
    42
    """
    coroutine = as_coroutine(main, "run")
    if _get_running_loop() is not None:
        coroutine.close()
        raise RuntimeError(
            "run() starts a loop of its own, but one is running in this thread: await the coroutine, or `spawn` it"
        )
    try:
        with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
            return runner.run(_then_tidy(coroutine))
    finally:
        coroutine.close()  # in case the loop could not be made


_PATIENCE = 10.0
"""Seconds that tasks get to end when `run` ends, before they are cancelled once more."""
_NAMED = 10
"""How many tasks a warning names."""


async def _then_tidy(main: Coroutine[Any, Any, T]) -> T:
    try:
        return await main
    finally:
        left = asyncio.all_tasks()
        left.discard(asyncio.current_task())
        # Those that have been cancelled already are on their way out: to cancel them again would end their clean-up.
        if forgotten := [task for task in left if not task.cancelling()]:
            _logger.warning("run() ended before %d of its tasks, which are cancelled: %s", *_named(forgotten))
            for task in forgotten:
                task.cancel()
        if left:
            await asyncio.wait(left, timeout=_PATIENCE)
        if stubborn := [task for task in left if not task.done()]:
            _logger.warning("%d tasks were cancelled and went on; they are cancelled again: %s", *_named(stubborn))
            for task in stubborn:
                task.cancel()
            await wait_for_end(stubborn)
        await finish_blocking()


def _named(tasks: list[asyncio.Task[Any]]) -> tuple[int, str]:
    names = sorted(task.get_name() for task in tasks)
    return len(names), ", ".join([*names[:_NAMED], "..."] if len(names) > _NAMED else names)


@overload
def main(function: Callable[P, Coroutine[Any, Any, T]], /) -> Callable[P, T]: ...
@overload
def main(
    *, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None, debug: bool | None = None
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, T]]: ...
def main(
    function: Callable[P, Coroutine[Any, Any, T]] | None = None,
    /,
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    debug: bool | None = None,
) -> Callable[P, T] | Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, T]]:
    """Make a plain function, which runs to its end, of an async one: ``@main``, or ``@main(debug=True)``.

    The options are those of `run`. Arguments are passed on; the result is returned.

    Raises TypeError, where it is decorated, for what is not an async function.

    >>> from yamanote.runtime import main
    >>> @main
    ... async def greet(name):
    ...     return f"hello {name}"
    >>> greet("Yamanote")
    'hello Yamanote'
    """

    def decorate(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"@main needs an async function, not {function!r}")

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return run(function(*args, **kwargs), loop_factory=loop_factory, debug=debug)

        return call

    return decorate if function is None else decorate(function)
