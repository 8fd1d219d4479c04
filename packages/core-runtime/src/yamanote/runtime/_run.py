"""Running: from a plain program into an event loop, and back with the result.

Invariant: when `run` returns or raises, nothing that it started is left, except for what the log names because it would
not end within the budget, or because Ctrl-C came twice.
"""

from __future__ import annotations

import functools
import inspect
from asyncio import AbstractEventLoop, _get_running_loop
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, ParamSpec, TypeVar, overload

from yamanote.runtime._clock import Clock
from yamanote.runtime._runtime import Runtime
from yamanote.runtime._task import as_coroutine

__all__ = ["main", "run"]

T = TypeVar("T")
P = ParamSpec("P")


def run(
    main: Awaitable[T],
    *,
    workers: int = 1,
    loop_factory: Callable[[], AbstractEventLoop] | None = None,
    debug: bool | None = None,
    clock: Clock | None = None,
    stop_signals: Iterable[int] = (),
    shutdown_timeout: float = 10.0,
) -> T:
    """Run `main` to its end on a new event loop, and return what it returns.

    May be called again and again, and in any thread that runs no loop yet. At the end, tasks that are left over are
    cancelled and awaited, asynchronous generators closed, and blocking calls waited for, all that in at most
    `shutdown_timeout` seconds. A warning of the logger ``yamanote`` names what was left, and what would not end in
    time: that is left behind.

    The first Ctrl-C cancels `main`, whose `finally` blocks run, and KeyboardInterrupt is raised at the end. A second
    one ends everything at once. Each of the `stop_signals`, such as ``{signal.SIGTERM}``, does what the first Ctrl-C
    does, and SystemExit is raised at the end, with the exit status ``128 + signum``. When `main` does not let the
    cancellation through, what it returns or raises counts instead.

    With several `workers`, each is a loop in a thread of its own. `main` runs on the first, in the calling thread; but
    on free-threaded Python, where they compute at the same time, the calling thread only waits. What is spawned starts
    on whichever is free, and stays there. A worker that does not end within `shutdown_timeout`, because a call blocks
    it, is named with where it is, and left behind. KeyboardInterrupt and SystemExit out of a task end the run,
    whichever worker it is on.

    `loop_factory` makes the loop (for instance ``uvloop.new_event_loop``), by default an `EventLoop`, or on Windows
    asyncio's proactor loop; `debug` is asyncio's. `clock` gives the loop another time, from 0 on (for instance
    ``yamanote.time.VirtualClock()``); that takes an `EventLoop`, or another selector loop of asyncio, and one worker.

    Raises what `main` raises, TypeError for what cannot be awaited and for a loop that cannot have a `clock`,
    RuntimeError where a loop is running, ValueError for `workers` below 1, `stop_signals` outside of the main thread.

    >>> from yamanote.runtime import run
    >>> async def answer():
    ...     return 42
    >>> run(answer())
    42
    """
    coroutine = as_coroutine(main, "run")
    try:
        if _get_running_loop() is not None:
            raise RuntimeError(
                "run() starts a loop of its own, but one is running in this thread: await the coroutine, or `spawn` it"
            )
        runtime = Runtime(
            workers=workers,
            loop_factory=loop_factory,
            debug=debug,
            clock=clock,
            stop_signals=stop_signals,
            shutdown_timeout=shutdown_timeout,
        )
    except BaseException:
        coroutine.close()
        raise
    with runtime:
        return runtime.run_until_complete(coroutine)


@overload
def main(function: Callable[P, Coroutine[Any, Any, T]], /) -> Callable[P, T]: ...
@overload
def main(
    *,
    workers: int = 1,
    loop_factory: Callable[[], AbstractEventLoop] | None = None,
    debug: bool | None = None,
    clock: Clock | None = None,
    stop_signals: Iterable[int] = (),
    shutdown_timeout: float = 10.0,
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, T]]: ...
def main(
    function: Callable[P, Coroutine[Any, Any, T]] | None = None, /, **options: Any
) -> Callable[P, T] | Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, T]]:
    """Make a plain function, which runs to its end, of an async one: ``@main``, or ``@main(debug=True)``.

    The options are those of `run`. Arguments are passed on; the result is returned.

    Raises TypeError, where it is decorated, for what is not an async function and for options that `run` does not have.

    >>> from yamanote.runtime import main
    >>> @main
    ... async def greet(name):
    ...     return f"hello {name}"
    >>> greet("Yamanote")
    'hello Yamanote'
    """
    inspect.signature(run).bind(None, **options)

    def decorate(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"@main needs an async function, not {function!r}")

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return run(function(*args, **kwargs), **options)

        return call

    return decorate if function is None else decorate(function)
