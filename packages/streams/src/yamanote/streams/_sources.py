"""Where streams come from: what is there already, generators, values and functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable
from typing import Any, Never, ParamSpec, TypeVar, overload

from yamanote.streams import _generated
from yamanote.streams._arguments import is_async, name_of, require_function
from yamanote.streams._generated import Pending, RepeatWith, Unfold
from yamanote.streams._pipeline import Awaited
from yamanote.streams._stream import Stream, stream_of

__all__ = ["async_stream", "empty", "ensure_aiter", "iter", "once", "pending", "repeat", "repeat_with", "unfold"]

P = ParamSpec("P")
S = TypeVar("S")
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

    Nothing of a generator runs before the first item is asked for. A plain function that returns something to iterate
    over, such as a stream, runs at the call, and its errors are raised there. Raises TypeError for an ``async def``
    without ``yield``.

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
        made = Stream(function(*args, **kwargs))
        made._again = functools.partial(function, *args, **kwargs)
        return made

    return stream


def ensure_aiter(source: AsyncIterable[T] | Iterable[T]) -> AsyncIterator[T]:
    """The async iterator of `source`, as `aiter` gives it; for a plain iterable, a stream of it.

    An async iterator stays what it is, and whoever has it closes it. Raises TypeError for what cannot be iterated over.

    >>> from yamanote.runtime import run
    >>> from yamanote.streams import ensure_aiter
    >>> async def main():
    ...     return [letter async for letter in ensure_aiter("abc")]
    >>> run(main())
    ['a', 'b', 'c']
    """
    return aiter(source) if isinstance(source, AsyncIterable) else Stream(source)


def empty() -> Stream[Never]:
    """A stream that is at its end."""
    return Stream(_generated.empty())


def once(item: T) -> Stream[T]:
    """A stream of one item."""
    return Stream(_generated.once(item))


def repeat(item: T) -> Stream[T]:
    """The same item for ever."""
    return Stream(_generated.repeat(item))


@overload
def repeat_with(function: Callable[[], Coroutine[Any, Any, T]]) -> Stream[T]: ...
@overload
def repeat_with(function: Callable[[], T]) -> Stream[T]: ...
def repeat_with(function: Callable[[], Any]) -> Stream[Any]:
    """What `function` gives, plain or async, called once for each item, for ever.

    Raises TypeError for what cannot be called. **Cancel safety**: a call that was cancelled is made again.

    >>> from yamanote import streams
    >>> from yamanote.runtime import run
    >>> lines = ["one", "two", ""]
    >>> run(streams.repeat_with(lambda: lines.pop(0)).take(2).collect())
    ['one', 'two']
    """
    require_function("function", function)
    if is_async(function):
        return stream_of(Awaited(RepeatWith(function)))
    return Stream(_generated.repeat_with(function))


@overload
def unfold(state: S, function: Callable[[S], Coroutine[Any, Any, tuple[T, S] | None]]) -> Stream[T]: ...
@overload
def unfold(state: S, function: Callable[[S], tuple[T, S] | None]) -> Stream[T]: ...
def unfold(state: Any, function: Callable[[Any], Any]) -> Stream[Any]:
    """Items from a state: `function`, plain or async, makes of it an item and the next state, or None to end.

    Raises TypeError for what cannot be called. **Cancel safety**: a call that was cancelled is made again, with the
    same state.

    >>> from yamanote import streams
    >>> from yamanote.runtime import run
    >>> run(streams.unfold(1, lambda n: (n, n * 2) if n < 100 else None).collect())
    [1, 2, 4, 8, 16, 32, 64]
    """
    require_function("function", function)
    if is_async(function):
        return stream_of(Awaited(Unfold(state, function)))
    return Stream(_generated.unfold(state, function))


def pending() -> Stream[Never]:
    """A stream that never gives anything: a pull waits until the stream is closed, and then is told the end."""
    return stream_of(Pending())
