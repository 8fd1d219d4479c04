"""Coroutines without `async` and `await`: functions that `yield` what they wait for.

`yield` alone lets the others run. ``x = yield thing`` waits for anything that can be awaited, and calls another
generator, as deep as memory goes. An error is raised at the `yield` that waits for it; so is a cancellation. Anything
else that is yielded raises a TypeError there.

The functions in here are those of `yamanote.runtime`, and take generators as well. All others of the library take what
`coroutine` makes of a generator.
"""

from __future__ import annotations

import functools
import inspect
import sys
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from contextvars import Context
from typing import Any, ParamSpec, TypeAlias, TypedDict, TypeVar, Unpack, overload

import yamanote.runtime as _runtime
from yamanote.runtime._blocking import map_blocking as map_blocking
from yamanote.runtime._blocking import spawn_blocking as spawn_blocking
from yamanote.runtime._budget import yield_now as yield_now
from yamanote.runtime._clock import Clock
from yamanote.runtime._generator_scope import ChildOptions
from yamanote.runtime._generator_scope import Scope as Scope
from yamanote.runtime._generators import driven
from yamanote.runtime._join import JoinHandle

__all__ = [
    "Runtime",
    "Scope",
    "coroutine",
    "main",
    "map",
    "map_blocking",
    "run",
    "scope",
    "spawn",
    "spawn_blocking",
    "yield_now",
]

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
U = TypeVar("U")
P = ParamSpec("P")

_Work: TypeAlias = Awaitable[T] | Generator[Any, Any, T]
_Function: TypeAlias = Callable[P, Coroutine[Any, Any, T]] | Callable[P, Generator[Any, Any, T]]


class _RunOptions(TypedDict, total=False):
    """Those of `yamanote.runtime.run`."""

    workers: int
    loop_factory: Callable[[], AbstractEventLoop] | None
    debug: bool | None
    clock: Clock | None
    stop_signals: Iterable[int]
    shutdown_timeout: float


class _SpawnOptions(ChildOptions, total=False):
    """Those of `yamanote.runtime.spawn`."""

    on: int | None


@overload
def coroutine(generator: Generator[Any, Any, T], /) -> Coroutine[Any, Any, T]: ...
@overload
def coroutine(function: Callable[P, Generator[Any, Any, T]], /) -> Callable[P, Coroutine[Any, Any, T]]: ...
def coroutine(thing: Any, /) -> Any:
    """The coroutine that runs a generator, for whatever takes coroutines: ``yield timeout(1, coroutine(work()))``.

    Or, as a decorator, the function that makes such coroutines: for those who call it from `async` functions.

    Raises TypeError for anything but a generator, or a function with a `yield` in it. A generator runs once: the
    coroutine raises RuntimeError for one that runs already, or has ended.

    >>> from yamanote.runtime.generators import coroutine
    >>> @coroutine
    ... def double(number):
    ...     yield
    ...     return number * 2
    >>> async def example():
    ...     return await double(21)
    >>> run(example())
    42
    """
    if inspect.isgeneratorfunction(thing):

        @functools.wraps(thing)
        def call(*args: Any, **kwargs: Any) -> Any:
            return driven(thing(*args, **kwargs))

        if sys.version_info >= (3, 12):  # before, only `async def` could pass for an async function
            inspect.markcoroutinefunction(call)
        return call
    if (made := driven(thing)) is thing:
        raise TypeError(f"coroutine() needs a generator, or a function with a `yield` in it, not {thing!r}")
    return made


def run(main: _Work[T], **options: Unpack[_RunOptions]) -> T:
    """Run a generator, or an awaitable, to its end on a new event loop: `yamanote.runtime.run`, with its options.

    >>> from yamanote.runtime.generators import run
    >>> def double(number):
    ...     yield
    ...     return number * 2
    >>> def program():
    ...     two = yield double(1)
    ...     return (yield double(two))
    >>> run(program())
    4
    """
    return _runtime.run(driven(main), **options)


@overload
def main(function: _Function[P, T], /) -> Callable[P, T]: ...
@overload
def main(**options: Unpack[_RunOptions]) -> Callable[[_Function[P, T]], Callable[P, T]]: ...
def main(function: Any = None, /, **options: Any) -> Any:
    """Make a plain function, which runs to its end, of one that yields: ``@main``, or ``@main(debug=True)``.

    `yamanote.runtime.main`, for both kinds of functions. Raises TypeError, where it is decorated, for a function that
    neither yields nor is async.

    >>> from yamanote.runtime.generators import main
    >>> @main
    ... def greet(name):
    ...     yield
    ...     return f"hello {name}"
    >>> greet("Yamanote")
    'hello Yamanote'
    """
    inspect.signature(_runtime.run).bind(None, **options)

    def decorate(function: Any) -> Any:
        if not (inspect.isgeneratorfunction(inspect.unwrap(function)) or inspect.iscoroutinefunction(function)):
            raise TypeError(f"@main needs a function with a `yield` in it, or an async one, not {function!r}")

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return run(function(*args, **kwargs), **options)

        return call

    return decorate if function is None else decorate(function)


class Runtime(_runtime.Runtime):
    """An event loop, by hand: `yamanote.runtime.Runtime`, for generators as well.

    Its `handle`, the way in from other threads, takes what `coroutine` makes.

    >>> from yamanote.runtime.generators import Runtime
    >>> def double(number):
    ...     yield
    ...     return number * 2
    >>> with Runtime() as runtime:
    ...     runtime.run_until_complete(double(1)), runtime.run_until_complete(double(2))
    (2, 4)
    """

    __slots__ = ()

    def run_until_complete(self, main: _Work[T], /) -> T:
        """Run `main` until it has ended, and everything else meanwhile; return its value."""
        return super().run_until_complete(driven(main))

    def spawn(self, coro: _Work[T], /, *, name: str | None = None, context: Context | None = None) -> JoinHandle[T]:
        """Start a task that runs whenever the loop does, and return its handle at once."""
        return super().spawn(driven(coro), name=name, context=context)


@overload
def spawn(  # pyright: ignore[reportOverlappingOverload]  # `spawn(*coros)` is the last one, for any length
    coro: _Work[T], /, **options: Unpack[_SpawnOptions]
) -> JoinHandle[T]: ...
@overload
def spawn(coro1: _Work[T1], coro2: _Work[T2], /, **options: Unpack[_SpawnOptions]) -> JoinHandle[list[T1 | T2]]: ...
@overload
def spawn(
    coro1: _Work[T1], coro2: _Work[T2], coro3: _Work[T3], /, **options: Unpack[_SpawnOptions]
) -> JoinHandle[list[T1 | T2 | T3]]: ...
@overload
def spawn(*coros: _Work[T], **options: Unpack[_SpawnOptions]) -> JoinHandle[list[T]]: ...
def spawn(*coros: Any, **options: Any) -> JoinHandle[Any]:
    """Start generators or coroutines, each in a task of its own, and return a handle at once: `yamanote.runtime.spawn`.

    >>> from yamanote.runtime.generators import run, spawn
    >>> def double(number):
    ...     yield
    ...     return number * 2
    >>> def example():
    ...     one = spawn(double(1))
    ...     several = yield spawn(double(2), double(3))
    ...     return [(yield one), *several]
    >>> run(example())
    [2, 4, 6]
    """
    return _runtime.spawn(*[driven(coro) for coro in coros], **options)


def map(
    function: Callable[[T], _Work[U]], items: Iterable[T], /, limit: int | None = None
) -> Coroutine[Any, Any, list[U]]:
    """Wait for ``function(item)`` for each item, all at once; the results in order: `yamanote.runtime.map`.

    >>> from yamanote.runtime.generators import map, run
    >>> def double(number):
    ...     yield
    ...     return number * 2
    >>> run(map(double, [1, 2, 3], limit=2))
    [2, 4, 6]
    """
    if not callable(function):
        raise TypeError(f"map() needs a function with a `yield` in it, or an async one, not {function!r}")

    def call(item: T) -> Awaitable[U]:
        return driven(function(item))

    return _runtime.map(call, items, limit)


def scope(*, name: str | None = None) -> Scope:
    """A block whose children end with it: ``with scope() as s: s.spawn(work())``, and behind it ``yield s()``.

    Children may be generators. For `async` functions there is `yamanote.runtime.scope`.

    >>> from yamanote.runtime.generators import run, scope
    >>> def work(log, entry):
    ...     yield
    ...     log.append(entry)
    >>> def example():
    ...     log = []
    ...     with scope() as s:
    ...         s.spawn(work(log, "a"))
    ...         s.spawn(work(log, "b"))
    ...     yield s()
    ...     return log
    >>> run(example())
    ['a', 'b']
    """
    return Scope(name=name)
