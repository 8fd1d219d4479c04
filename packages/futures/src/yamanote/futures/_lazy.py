"""Lazy: a value that is made when it is first wanted, once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from inspect import isawaitable, iscoroutine
from typing import Any, TypeVar, overload

from yamanote.futures._shared import Shared

__all__ = ["lazy"]

T = TypeVar("T")


@overload
def lazy(factory: Callable[[], Awaitable[T]], *, keep: bool = False) -> Shared[T]: ...
@overload
def lazy(factory: Callable[[], T], *, keep: bool = False) -> Shared[T]: ...
def lazy(factory: Callable[[], Any], *, keep: bool = False) -> Shared[Any]:
    """Call `factory` when its value is first awaited; keep the value for everybody who awaits it later.

    What `factory` returns is the value, and is awaited first if it can be. It runs in a task of its own, with a copy of
    the context of who asked first, and is never called where nobody asks.

    How it ended is kept, an error too: where the next one is to try again after an error, use
    `yamanote.sync.OnceCell`. Only when it was cancelled, because all who waited were, or with its loop, it is called
    again for who asks next. With `keep` it goes on to its end although all who waited were cancelled.

    Raises TypeError for what cannot be called.

    >>> async def load():
    ...     print("load")
    ...     return {"debug": True}
    >>> async def main():
    ...     settings = lazy(load)
    ...     print("begin")
    ...     return (await settings)["debug"], (await settings)["debug"]
    >>> run(main())
    begin
    load
    (True, True)
    """
    require_function(factory, "lazy() needs a function without arguments, not {!r}: for a coroutine use shared()")
    return made_by(factory, keep=keep, again=True)


def require_function(factory: object, message: str) -> None:
    """Refuse what cannot be called, with a TypeError; close it if it is a coroutine."""
    if not callable(factory):
        if iscoroutine(factory):
            factory.close()
        raise TypeError(message.format(factory))


def made_by(factory: Callable[[], Awaitable[T] | T], *, keep: bool = False, again: bool = False) -> Shared[T]:
    """One run of a function of either kind."""
    name = getattr(getattr(factory, "func", factory), "__name__", None)  # a partial has none of its own
    return Shared(partial(_make, factory), keep=keep, again=again, name=name)


async def _make(factory: Callable[[], Awaitable[T] | T]) -> T:
    made: Any = factory()
    if isawaitable(made):
        made = await made
    return made  # type: ignore[no-any-return]
