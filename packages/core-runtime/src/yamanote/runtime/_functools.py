"""Function tools: what `functools` and `iter` do for plain functions, for async ones."""

from __future__ import annotations

import builtins
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial, update_wrapper
from typing import Any, Generic, TypeVar, overload

__all__ = ["aiter", "apartial"]

T = TypeVar("T")


def apartial(
    function: Callable[..., Coroutine[Any, Any, T]], /, *args: Any, **kwargs: Any
) -> partial[Coroutine[Any, Any, T]]:
    """`functools.partial` for an async function: the name, the docstring and the module of `function` are kept.

    `inspect.iscoroutinefunction` says yes to it, and `inspect.signature` shows what is left to be given.

    Raises TypeError for what is no async function.

    >>> import inspect
    >>> async def power(base, exponent):
    ...     "Raise to a power."
    ...     return base**exponent
    >>> square = apartial(power, exponent=2)
    >>> square.__name__, square.__doc__, inspect.iscoroutinefunction(square)
    ('power', 'Raise to a power.', True)
    >>> run(square(3))
    9
    """
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"apartial() needs an async function, not {function!r}")
    bound = partial(function, *args, **kwargs)
    update_wrapper(bound, function)
    del bound.__wrapped__  # type: ignore[attr-defined]  # by which `inspect.signature` would find all parameters
    return bound


@overload
def aiter(aiterable: AsyncIterable[T], /) -> AsyncIterator[T]: ...
@overload
def aiter(function: Callable[[], Awaitable[T]], sentinel: object, /) -> _Calls[T]: ...
def aiter(source: Any, /, *sentinel: object) -> Any:
    """The built-in `aiter`, with the second form of `iter`: call an async function until it returns `sentinel`.

    ``aiter(read, b"")`` gives an async iterator over what ``await read()`` returns, up to the first value that is equal
    to the sentinel. It has `aclose`, after which it has ended; nobody else is closed. An error of the function is
    raised, and the next step calls it again.

    **Cancel safety:** that of the function.

    Raises TypeError for what is neither.

    >>> lines = iter(["one", "two", ""])
    >>> async def read():
    ...     return next(lines)
    >>> async def main():
    ...     return [line async for line in aiter(read, "")]
    >>> run(main())
    ['one', 'two']
    """
    if not sentinel:
        return builtins.aiter(source)
    if len(sentinel) > 1:
        raise TypeError(f"aiter() takes at most 2 arguments, not {1 + len(sentinel)}")
    return _Calls(source, *sentinel)


class _Calls(AsyncIterator[T], Generic[T]):
    """What an async function returns, call by call."""

    __slots__ = ("_function", "_sentinel")

    def __init__(self, function: Callable[[], Awaitable[T]], sentinel: object) -> None:
        if not callable(function):
            raise TypeError(f"aiter() needs an async function before a sentinel, not {function!r}")
        self._function: Callable[[], Awaitable[T]] | None = function
        self._sentinel = sentinel

    def __aiter__(self) -> _Calls[T]:
        return self

    async def __anext__(self) -> T:
        if self._function is None:
            raise StopAsyncIteration
        value = await self._function()
        if value is self._sentinel or value == self._sentinel:
            await self.aclose()
            raise StopAsyncIteration
        return value

    async def aclose(self) -> None:
        """End here."""
        self._function = self._sentinel = None
