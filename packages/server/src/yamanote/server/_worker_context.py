"""What `server` and `main` make of a generator: a context manager whose end is told by which signal it came.

Invariant: the generator is entered once and yields once. What is raised in the block is raised at its `yield`, as
`contextlib` does it; without an error the `yield` returns the signal.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from signal import SIGTERM, Signals
from types import TracebackType
from typing import Generic, ParamSpec, TypeVar, final

from yamanote.server._takes import require_takes

__all__ = ["MainContext", "WorkerContext", "main", "require_made_by", "server"]

T = TypeVar("T")
P = ParamSpec("P")


def server(function: Callable[P, AsyncGenerator[T, Signals]], /) -> Callable[P, WorkerContext[T]]:
    """Make a worker for `start_server`: ``@server`` over an async generator that sets up, yields once, and tears down.

    It is called with the loop, the index of the worker (from 0 on), and a list of arguments. When it comes to the
    `yield`, the worker is ready; the `yield` returns the signal (a `signal.Signals`) when the worker is to stop. When
    it is told to stop before, the set-up is cancelled. A task group that is open around the `yield` ends the worker
    when one of its tasks fails.

    Called by hand, the result is a context manager, which does all that without any process; see `WorkerContext`.

    Raises TypeError for what is not an async generator function, or cannot take those three.

    >>> from signal import SIGINT
    >>> @server
    ... async def worker(loop, index, args):
    ...     print(f"[{index}] started")
    ...     signum = yield
    ...     print(f"[{index}] stopped by {signum.name}")
    >>> async def example():
    ...     async with (context := worker(asyncio.get_running_loop(), 0, [])):
    ...         context.signal = SIGINT
    >>> run(example())
    [0] started
    [0] stopped by SIGINT
    """
    if not inspect.isasyncgenfunction(function):
        raise TypeError(f"@server needs an async generator function, one with a yield, not {function!r}")
    require_takes(function, (None, 0, []), "@server needs a function that can take a loop, an index, and a list")

    @functools.wraps(function)
    def make(*args: P.args, **kwargs: P.kwargs) -> WorkerContext[T]:
        return WorkerContext(function(*args, **kwargs))

    make._yamanote_made_by = "server"  # type: ignore[attr-defined]  # what the function is, for `require_made_by`
    return make


def main(function: Callable[P, Generator[T, Signals, object]], /) -> Callable[P, MainContext[T]]:
    """Make the frame of all workers for `start_server`: ``@main`` over a generator without arguments.

    It runs once, in the process that starts the workers: it sets up before the first of them starts, yields once, and
    tears down when the last has ended. What it yields comes first in the list of arguments of each worker: nothing for
    None, several for a tuple. The `yield` returns the signal by which they were stopped; when they failed, it raises
    that error.

    Not to be mixed up with `yamanote.runtime.main`, the decorator of a program's async main function.

    Raises TypeError for what is not a generator function, or needs arguments.

    >>> @main
    ... def setup():
    ...     print("before the workers")
    ...     signum = yield 8888
    ...     print("after them")
    >>> with setup() as port:
    ...     port
    before the workers
    8888
    after them
    """
    if not inspect.isgeneratorfunction(function):
        raise TypeError(f"@main needs a generator function, a plain one with a yield, not {function!r}")
    require_takes(function, (), "@main needs a function that can be called without arguments")

    @functools.wraps(function)
    def make(*args: P.args, **kwargs: P.kwargs) -> MainContext[T]:
        return MainContext(function(*args, **kwargs))

    make._yamanote_made_by = "main"  # type: ignore[attr-defined]  # as above
    return make


def require_made_by(decorator: str, function: object, argument: str) -> None:
    """Raise TypeError unless `function` is one that `decorator` has made."""
    if getattr(function, "_yamanote_made_by", None) != decorator:
        raise TypeError(f"{argument} must be a function decorated with @{decorator}, not {function!r}")


@final
class WorkerContext(Generic[T]):
    """What a worker gives when it is called: ``async with worker(loop, 0, args) as value``, of what it yields.

    `start_server` enters it in each worker; in a test, enter it yourself, in any loop. It can be entered once.

    Entering and leaving raise what the generator raises, and RuntimeError when it does not yield exactly once.
    """

    __slots__ = ("_entered", "_generator", "signal")

    signal: Signals
    """What the `yield` is going to return: by default SIGTERM."""

    def __init__(self, generator: AsyncGenerator[T, Signals]) -> None:
        self._generator = generator
        self._entered = False
        self.signal = SIGTERM

    async def __aenter__(self) -> T:
        if self._entered:
            raise RuntimeError("this context has been entered before: call the worker again")
        self._entered = True
        try:
            return await anext(self._generator)
        except StopAsyncIteration:
            raise RuntimeError(f"{self._name} must yield once, but it has ended without") from None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        generator = self._generator
        if error is not None:
            # The standard library knows every way in which an error comes back out of a generator.
            return await asynccontextmanager(lambda: generator)().__aexit__(kind, error, traceback)
        try:
            await generator.asend(self.signal)
        except StopAsyncIteration:
            return None
        await generator.aclose()
        raise RuntimeError(f"{self._name} must yield once, but it has yielded again")

    @property
    def _name(self) -> str:
        return getattr(self._generator, "__qualname__", "the worker")


@final
class MainContext(Generic[T]):
    """What a function of `main` gives when it is called: ``with setup() as value``, of what it yields.

    `start_server` enters it around all workers; in a test, enter it yourself. It can be entered once.

    Entering and leaving raise what the generator raises, and RuntimeError when it does not yield exactly once.
    """

    __slots__ = ("_entered", "_generator", "signal")

    signal: Signals
    """What the `yield` is going to return: by default SIGTERM."""

    def __init__(self, generator: Generator[T, Signals, object]) -> None:
        self._generator = generator
        self._entered = False
        self.signal = SIGTERM

    def __enter__(self) -> T:
        if self._entered:
            raise RuntimeError("this context has been entered before: call the function again")
        self._entered = True
        try:
            return next(self._generator)
        except StopIteration:
            raise RuntimeError(f"{self._name} must yield once, but it has ended without") from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        generator = self._generator
        if error is not None:
            return contextmanager(lambda: generator)().__exit__(kind, error, traceback)
        try:
            generator.send(self.signal)
        except StopIteration:
            return None
        generator.close()
        raise RuntimeError(f"{self._name} must yield once, but it has yielded again")

    @property
    def _name(self) -> str:
        return getattr(self._generator, "__qualname__", "the function")
