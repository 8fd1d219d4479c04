"""From function: a sink that gives each item to a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from yamanote.runtime import cooperative
from yamanote.sinks._serial import Serial
from yamanote.sinks._sink import Sink
from yamanote.streams._arguments import is_async, name_of, refuse_coroutine, require_function

__all__ = ["from_function"]

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


def from_function(function: Callable[[T], object], *, close: Callable[[], object] | None = None) -> Sink[T]:
    """A sink that calls `function` with each item, and at last `close`; both may be plain or async.

    They are called one at a time, in the order of the calls of `feed`. An item has arrived when `function` returns, so
    there is nothing to flush. What `function` raises is raised by `feed`; nothing else happens, and the next
    item may be fed. `close` is called once, also when it fails, and each `Sink.close` raises its error.

    **Cancel safety**: a `feed` that is cancelled cancels `function`, if it is async; the item counts as not accepted.

    Raises TypeError for what is no function. So does `feed` when a plain function returns a coroutine, as a lambda
    around an async function does: pass that one itself.

    >>> from yamanote.runtime import run
    >>> from yamanote.sinks import from_function
    >>> async def main():
    ...     async with from_function(print, close=lambda: print("bye")) as sink:
    ...         await sink.send_all(["hello", "world"])
    >>> run(main())
    hello
    world
    bye
    """
    return _FromFunction(function, close)


class _FromFunction(Serial[T_contra]):
    __slots__ = ("_close", "_closes_async", "_function", "_is_async")

    def __init__(self, function: Callable[[T_contra], Any], close: Callable[[], Any] | None) -> None:
        require_function("function", function)
        if close is not None:
            require_function("close", close)
        super().__init__()
        self._function = function
        self._is_async = is_async(function)
        self._close = close
        self._closes_async = close is not None and is_async(close)

    async def feed(self, item: T_contra) -> None:
        await cooperative()
        if self._is_async:
            async with self._turn:
                self._check()
                await self._function(item)
        else:
            self._check()
            refuse_coroutine(self._function, self._function(item))

    async def _flush(self) -> None:
        pass  # an item has arrived when the function has returned

    async def _finish(self) -> None:
        async with self._turn:
            if self._close is not None:
                result = self._close()
                if self._closes_async:
                    await result
                else:
                    refuse_coroutine(self._close, result)

    def __repr__(self) -> str:
        return f"<from_function({name_of(self._function)}), {self._state()}>"
