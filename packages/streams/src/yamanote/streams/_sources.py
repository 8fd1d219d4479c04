"""Where streams come from: what is there already, and generators."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterable, Callable, Iterable
from typing import ParamSpec, TypeVar, overload

from yamanote.streams._arguments import name_of, require_function
from yamanote.streams._stream import Stream

__all__ = ["async_stream", "iter"]

P = ParamSpec("P")
T = TypeVar("T")


@overload
def iter(source: AsyncIterable[T]) -> Stream[T]: ...
@overload
def iter(source: Iterable[T]) -> Stream[T]: ...
def iter(source: AsyncIterable[T] | Iterable[T]) -> Stream[T]:
    """A stream of what `source` gives: any iterable, or any async iterable (preferred if it is both).

    The stream owns the iterator from now on: a generator is closed with it, and so is an async iterator that has an
    `aclose` or `close` method (an async generator, a stream, a receiver).

    Raises TypeError for what cannot be iterated over.

    >>> from yamanote import streams
    >>> from yamanote.runtime import run
    >>> run(streams.iter("abc").enumerate().collect())
    [(0, 'a'), (1, 'b'), (2, 'c')]
    """
    return Stream(source)


@overload
def async_stream(function: Callable[P, AsyncIterable[T]]) -> Callable[P, Stream[T]]: ...
@overload
def async_stream(function: Callable[P, Iterable[T]]) -> Callable[P, Stream[T]]: ...
def async_stream(function: Callable[P, AsyncIterable[T] | Iterable[T]]) -> Callable[P, Stream[T]]:
    """Make a generator function, async or plain, return a `Stream`.

    Nothing of the function runs before the first item is asked for. Raises TypeError for an ``async def`` without
    ``yield``.

    >>> from yamanote import streams
    >>> from yamanote.runtime import run
    >>> @streams.async_stream
    ... async def countdown(start):
    ...     while start:
    ...         yield start
    ...         start -= 1
    >>> run(countdown(3).collect())
    [3, 2, 1]
    """
    require_function("function", function)
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"{name_of(function)} gives a coroutine, not items: it needs a `yield`")

    @functools.wraps(function)
    def stream(*args: P.args, **kwargs: P.kwargs) -> Stream[T]:
        return Stream(function(*args, **kwargs))

    return stream
