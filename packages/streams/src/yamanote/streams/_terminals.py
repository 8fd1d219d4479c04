"""The terminals: what consumes a stream, and closes it."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, overload

from yamanote.streams._arguments import is_async, refuse_coroutine, require_count, require_function
from yamanote.streams._buffered import Unordered
from yamanote.streams._handle import Handle
from yamanote.streams._pipeline import explained
from yamanote.streams._stages import Map

if TYPE_CHECKING:
    from yamanote.sinks import Sink
    from yamanote.streams._stream import Stream

__all__ = ["NOT_GIVEN", "Terminals"]

NOT_GIVEN: Final[Any] = object()
"""For an argument that may be anything, also None."""

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")
V = TypeVar("V")


class Terminals(Handle[T_co]):
    """To the end, or to where enough is known."""

    __slots__ = ()

    async def collect(self) -> list[T_co]:
        """All items, in a list. The loop gets its turn now and then, even if nothing ever waits.

        **Cancel safety**: none; what has been collected is gone, and the stream is closed.
        """
        async with self:
            return await self._pipeline.collect()

    @overload
    async def for_each(self, function: Callable[[T_co], Awaitable[object]], *, concurrency: int) -> None: ...
    @overload
    async def for_each(self, function: Callable[[T_co], object]) -> None: ...
    async def for_each(self, function: Callable[[T_co], Any], *, concurrency: int | None = None) -> None:
        """Call `function` with each item; await it before the next one is pulled, if it is async.

        With `concurrency` the calls are awaited up to so many at a time, each in a task of its own; the first error
        cancels the others, waits for them, and is raised. Raises TypeError or ValueError for a wrong `concurrency`, and
        TypeError if a plain function returns a coroutine for the first item, as a lambda around an async function does.

        **Cancel safety**: items whose calls were cancelled are gone, and the stream is closed.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> async def greet(name):
        ...     print(f"hello {name}")
        >>> run(streams.iter(["Ada", "Alan"]).for_each(greet, concurrency=10))
        hello Ada
        hello Alan
        """
        require_function("function", function)
        if concurrency is not None:
            require_count("concurrency", concurrency)
            pipeline = Unordered[object](self._owned.then(Map(function)), concurrency)
            await self._moved_into(pipeline).for_each(_ignore)
            return
        async with self:
            try:
                if is_async(function):
                    async for item in self:
                        await function(item)
                    return
                async for item in self:  # only the first: an async function is decided on once
                    refuse_coroutine(function, function(item))
                    break
                await self._pipeline.drain(function)
            except StopAsyncIteration as error:
                raise explained(error) from error

    @overload
    async def fold(self, initial: U, function: Callable[[U, T_co], Coroutine[Any, Any, U]]) -> U: ...
    @overload
    async def fold(self, initial: U, function: Callable[[U, T_co], U]) -> U: ...
    async def fold(self, initial: Any, function: Callable[[Any, T_co], Any]) -> Any:
        """`function` of a state and an item gives the next state, from `initial` on; the last one is returned.

        **Cancel safety**: none; the state is gone, and the stream is closed.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> run(streams.iter("abc").fold("", lambda word, letter: letter + word))
        'cba'
        """
        require_function("function", function)
        state = initial
        if is_async(function):

            async def step_later(item: Any) -> None:
                nonlocal state
                state = await function(state, item)

            await self.for_each(step_later)
            return state

        def step(item: Any) -> None:
            nonlocal state
            state = function(state, item)

        await self.for_each(step)
        return state

    @overload
    async def reduce(self: Handle[U], function: Callable[[U, U], Coroutine[Any, Any, U]]) -> U: ...
    @overload
    async def reduce(self: Handle[U], function: Callable[[U, U], U]) -> U: ...
    @overload
    async def reduce(self, function: Callable[[U, T_co], Coroutine[Any, Any, U]], initial: U) -> U: ...
    @overload
    async def reduce(self, function: Callable[[U, T_co], U], initial: U) -> U: ...
    async def reduce(self: Handle[Any], function: Callable[[Any, Any], Any], initial: Any = NOT_GIVEN) -> Any:
        """Like `fold`, from the first item on, or from `initial`: arguments as in `functools.reduce`.

        Raises TypeError when there is no item, and no `initial`. **Cancel safety**: as `fold`.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> run(streams.iter([3, 1, 2]).reduce(max))
        3
        """
        require_function("function", function)
        async with self:
            if initial is NOT_GIVEN:
                try:
                    initial = await anext(self)
                except StopAsyncIteration:
                    raise TypeError("reduce() of an empty stream, without an initial value") from None
            return await cast("Stream[Any]", self).fold(initial, function)

    async def count(self) -> int:
        """How many items there are. **Cancel safety**: none; the stream is closed."""
        numbers = itertools.count()

        def number(item: object) -> None:
            next(numbers)

        await self.for_each(number)
        return next(numbers)

    async def any(self, predicate: Callable[[T_co], object] = bool) -> bool:
        """Whether `predicate` gives something true for an item: the first one is enough. False for an empty stream.

        Nothing is pulled behind it, and the stream is closed. **Cancel safety**: none; the stream is closed.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> run(streams.repeat(1).any())
        True
        """
        return await self._meets(predicate, True)

    async def all(self, predicate: Callable[[T_co], object] = bool) -> bool:
        """Whether `predicate` gives something true for every item; else as `any`. True for an empty stream."""
        return not await self._meets(predicate, False)

    async def _meets(self, predicate: Callable[[T_co], Any], answer: bool) -> bool:
        """Whether there is an item to which `predicate` says `answer`."""
        require_function("predicate", predicate)
        ask: Callable[[T_co], object]
        if is_async(predicate):

            async def ask_later(item: Any) -> None:
                if bool(await predicate(item)) is answer:
                    raise _Met

            ask = ask_later
        else:

            def ask_now(item: Any) -> None:
                if bool(predicate(item)) is answer:
                    raise _Met

            ask = ask_now
        try:
            await self.for_each(ask)
        except _Met:
            return True
        return False

    @overload
    async def first(self) -> T_co: ...
    @overload
    async def first(self, default: U) -> T_co | U: ...
    async def first(self, default: Any = NOT_GIVEN) -> Any:
        """The first item. Nothing is pulled behind it, and the stream is closed; `anext` leaves it open.

        Raises LookupError when there is none, and no `default`. **Cancel safety**: as pulling it; the stream is closed.
        """
        async with self:
            async for item in self:
                return item
        return _instead("first", default)

    @overload
    async def last(self) -> T_co: ...
    @overload
    async def last(self, default: U) -> T_co | U: ...
    async def last(self, default: Any = NOT_GIVEN) -> Any:
        """The last item. Raises LookupError when there is none, and no `default`. **Cancel safety**: as `collect`."""
        newest: deque[Any] = deque(maxlen=1)
        await self.for_each(newest.append)
        return newest[0] if newest else _instead("last", default)

    async def unzip(self: Handle[tuple[U, V]]) -> tuple[list[U], list[V]]:
        """A list of what comes first in each pair, and one of what comes second. **Cancel safety**: as `collect`.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> run(streams.iter("ab").enumerate().unzip())
        ([0, 1], ['a', 'b'])
        """
        firsts: list[U] = []
        seconds: list[V] = []

        def part(pair: tuple[U, V]) -> None:
            first, second = pair
            firsts.append(first)
            seconds.append(second)

        await cast("Stream[tuple[U, V]]", self).for_each(part)
        return firsts, seconds

    async def forward(self, sink: Sink[T_co]) -> None:
        """Feed every item to `sink`, then flush and close it.

        The sink is closed in any case, so what it has accepted is written even if the stream fails or this call is
        cancelled. Only a file that was to be replaced stays as it was then. `Sink.send_all` leaves the sink open.

        Raises what the stream or the sink raises, and TypeError for what is no sink; then the stream stays usable.

        **Cancel safety**: an item that the sink has not accepted is gone, and the stream is closed.
        """
        from yamanote.sinks import Sink  # which is made of streams

        if not isinstance(sink, Sink):
            raise TypeError(f"sink must be a Sink, not {sink!r}")
        async with self, sink:
            async for item in self:
                await sink.feed(item)


class _Met(Exception):
    """The item that decides has come."""


def _instead(place: str, default: Any) -> Any:
    if default is NOT_GIVEN:
        raise LookupError(f"an empty stream has no {place} item: give a default")
    return default


def _ignore(result: object) -> None:
    pass
