"""What streams are made of that have no source: plain generators, and pipelines where something is awaited.

Invariant: the state that an item leaves behind is kept when its call has ended, so a call that is cancelled is made
again, with the same state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Never, TypeVar

from yamanote.streams._arguments import name_of
from yamanote.streams._operator import Operator
from yamanote.streams._pipeline import Pipeline, explained

__all__ = ["Pending", "RepeatWith", "Unfold", "empty", "once", "repeat", "repeat_with", "unfold"]

S = TypeVar("S")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


def empty() -> Iterator[Never]:
    yield from ()


def once(item: T) -> Iterator[T]:
    yield item


def repeat(item: T) -> Iterator[T]:
    while True:
        yield item


def repeat_with(function: Callable[[], T]) -> Iterator[T]:
    while True:
        yield function()


def unfold(state: S, function: Callable[[S], tuple[T, S] | None]) -> Iterator[T]:
    while (step := function(state)) is not None:
        item, state = step
        yield item


class _Calls(Pipeline[T_co]):
    """Inside of an `Awaited`, which gives the loop its turn and never asks again after the end."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Awaitable[Any]]) -> None:
        self._function = function
        self._error = None

    async def _close(self) -> None: ...

    @property
    def leftover(self) -> str | None:
        return None

    def __str__(self) -> str:
        return f"{self._label}({name_of(self._function)})"

    _label = ""


class RepeatWith(_Calls[T_co]):
    """What an async function gives, again and again."""

    __slots__ = ()

    _label = "repeat_with"

    async def pull(self) -> T_co:
        try:
            return await self._function()  # type: ignore[no-any-return]
        except StopAsyncIteration as error:
            raise explained(error) from error


class Unfold(_Calls[T_co]):
    """What an async function makes of a state, which it hands from one call to the next."""

    __slots__ = ("_state",)

    _label = "unfold"

    def __init__(self, state: Any, function: Callable[[Any], Awaitable[Any]]) -> None:
        super().__init__(function)
        self._state = state

    async def pull(self) -> T_co:
        try:
            step = await self._function(self._state)
        except StopAsyncIteration as error:
            raise explained(error) from error
        if step is None:
            raise StopAsyncIteration
        item, self._state = step
        return item  # type: ignore[no-any-return]


class Pending(Operator[Never]):
    """Waits until it is closed."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        super().__init__()
        self._waiting: asyncio.Future[None] | None = None

    async def pull(self) -> Never:
        if not self._over:
            if self._waiting is not None:
                raise RuntimeError(f"{self} is being pulled by another task already")
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        self.raise_end()

    async def _close(self) -> None:
        await super()._close()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def __str__(self) -> str:
        return "pending"
