"""Terminals as functions, for anything that can be iterated over."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from typing import Any, TypeVar, overload

from yamanote.streams._arguments import require_function
from yamanote.streams._stream import Stream
from yamanote.streams._terminals import NOT_GIVEN

__all__ = ["collect", "reduce"]

T = TypeVar("T")
U = TypeVar("U")


async def collect(source: AsyncIterable[T] | Iterable[T]) -> list[T]:
    """All items of `source`, in a list: ``iter(source).collect()``. The source is closed.

    Raises TypeError for what cannot be iterated over. **Cancel safety**: none; what has been collected is gone.

    >>> from yamanote.runtime import run
    >>> from yamanote.streams import collect
    >>> async def numbers():
    ...     yield 1
    ...     yield 2
    >>> run(collect(numbers()))
    [1, 2]
    """
    return await Stream(source).collect()


@overload
async def reduce(
    function: Callable[[T, T], Coroutine[Any, Any, T]], source: AsyncIterable[T] | Iterable[T], /
) -> T: ...
@overload
async def reduce(function: Callable[[T, T], T], source: AsyncIterable[T] | Iterable[T], /) -> T: ...
@overload
async def reduce(
    function: Callable[[U, T], Coroutine[Any, Any, U]], source: AsyncIterable[T] | Iterable[T], /, initial: U
) -> U: ...
@overload
async def reduce(function: Callable[[U, T], U], source: AsyncIterable[T] | Iterable[T], /, initial: U) -> U: ...
async def reduce(
    function: Callable[[Any, Any], Any],
    source: AsyncIterable[Any] | Iterable[Any],
    /,
    initial: Any = NOT_GIVEN,
) -> Any:
    """`function` of what there is so far and the next item, from the first item on, or from `initial`.

    As `functools.reduce`, and ``iter(source).reduce(function)``: `function` may be plain or async. The source is
    closed. Raises TypeError when there is no item, and no `initial`. **Cancel safety**: none; what there is, is gone.

    >>> from yamanote.runtime import run
    >>> from yamanote.streams import reduce
    >>> run(reduce(lambda total, number: total + number, range(5)))
    10
    """
    require_function("function", function)
    return await Stream(source).reduce(function, initial)
