"""Sink: the contract of everything that items go into, and the combinators.

Invariant: what `feed` has accepted reaches its destination by the next `flush` or `close` that returns, or that call
raises why not. After an error a sink is dead: each later call raises that error. Calls that are cancelled take nothing
back, and `close` goes on by itself.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload

from yamanote.runtime import start_task
from yamanote.streams import Stream

__all__ = ["Guarded", "Sink", "SinkClosed"]

T = TypeVar("T")
U = TypeVar("U")
T_contra = TypeVar("T_contra", contravariant=True)


class SinkClosed(RuntimeError):
    """The sink has been closed: it accepts nothing more."""


class Sink(ABC, Generic[T_contra]):
    """Where items go: `feed` them, then `flush` or `close`; or `send` one and know that it has arrived.

    To write one, implement `feed`, `flush` and `close`. To use one, enter it: ``async with`` closes it at the end.

    A combinator takes over the sinks that it is made of, and closes them with itself.
    """

    __slots__ = ("__weakref__",)

    @abstractmethod
    async def feed(self, item: T_contra) -> None:
        """Accept `item`, waiting while there is no room for it. It need not have arrived before a flush.

        Raises SinkClosed after `close`, and what has gone wrong with earlier items.
        """

    @abstractmethod
    async def flush(self) -> None:
        """Wait until everything that was accepted has arrived.

        Raises like `feed`. **Cancel safety**: nothing is lost; call it again.
        """

    @abstractmethod
    async def close(self) -> None:
        """Flush, then let go of everything. Closing again does nothing more.

        Raises what has gone wrong, each time. **Cancel safety**: nothing that was accepted is lost; closing goes on,
        and another `close` waits for it.
        """

    async def send(self, item: T_contra) -> None:
        """`feed`, then `flush`."""
        await self.feed(item)
        await self.flush()

    async def send_all(self, source: AsyncIterable[T_contra] | Iterable[T_contra]) -> None:
        """Feed everything that `source` gives, then flush. The source is closed in any case, the sink stays open.

        Raises what the source or the sink raises; what was accepted before stays accepted. **Cancel safety**: an item
        that was pulled, but not accepted, is gone.
        """
        async with Stream(source) as items:
            async for item in items:
                await self.feed(item)
        await self.flush()

    @overload
    def with_map(self, function: Callable[[U], Awaitable[T_contra]]) -> Sink[U]: ...
    @overload
    def with_map(self, function: Callable[[U], T_contra]) -> Sink[U]: ...
    def with_map(self, function: Callable[[U], Any]) -> Sink[U]:
        """A sink that feeds `function` of each item, plain or async, to this one.

        An error of the function is raised by `feed`, which has not accepted the item then; nothing else happens.

        >>> from yamanote.runtime import run
        >>> from yamanote.sinks import drain
        >>> async def main():
        ...     async with drain().with_map(print) as sink:
        ...         await sink.send("hello")
        >>> run(main())
        hello
        """
        from yamanote.sinks._with_map import WithMap

        return WithMap(self, function)

    def fanout(self: Sink[T], *others: Sink[T]) -> Sink[T]:
        """A sink that feeds each item to this sink and then to all `others`, and waits for all.

        When one of them fails, the others get the item nevertheless; then the error is raised, and the fan-out is dead.
        Further errors of the same call go to the exception handler of the loop. Flushing and closing are done on all
        sinks at once. Put a `buffer` before a slow sink if the others should not wait for it.

        **Cancel safety**: an item whose `feed` was cancelled counts as accepted: the next call, whichever it is, gives
        it first to the sinks that have not got it.
        """
        from yamanote.sinks._fanout import Fanout

        return Fanout(self, *others)

    def buffer(self, capacity: int) -> Sink[T_contra]:
        """A sink that accepts up to `capacity` items while this one is busy, and feeds them in order.

        The work is done by a task, which starts with the first item and ends with `close`. An error of this sink is
        raised by each later call. Callers that wait for room are served first in, first out.

        Raises TypeError or ValueError unless `capacity` is a whole number, at least 1. **Cancel safety**: an item whose
        `feed` was cancelled has not been accepted.
        """
        from yamanote.sinks._buffer import Buffer

        return Buffer(self, capacity)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not GeneratorExit:  # a coroutine that is being thrown away cannot wait any more
            await self.close()


class Guarded(Sink[T_contra]):
    """A sink that remembers its first error, and closes in a task of its own, which no caller can cancel."""

    __slots__ = ("_closing", "_error")

    def __init__(self) -> None:
        self._error: BaseException | None = None
        self._closing: asyncio.Task[None] | None = None

    def _check(self) -> None:
        """Raise what each call has to raise first."""
        if self._error is not None:
            raise self._error
        if self._closing is not None:
            raise SinkClosed(f"{self!r} has been closed")

    def _fail(self, error: BaseException) -> None:
        """Remember `error` for all later calls. One that comes second has nobody who would get it but the loop."""
        if isinstance(error, asyncio.CancelledError):
            # A task of the sink's own was cancelled by somebody; those who call it were not.
            cancelled, error = error, RuntimeError(f"a task of {self!r} was cancelled")
            error.__cause__ = cancelled
        if self._error is None:
            self._error = error
        elif error is not self._error:
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"a further error in {self!r}", "exception": error}
            )

    async def close(self) -> None:
        while self._closing is None or not self._closing.done() or self._closing.cancelled():
            if self._closing is None or self._closing.cancelled():  # before its first step: nothing has been done
                self._closing = start_task(self._finish_guarded())
            await asyncio.wait([self._closing])
        if self._error is not None:
            raise self._error

    async def _finish_guarded(self) -> None:
        try:
            await self._finish()
        except (Exception, asyncio.CancelledError) as error:
            self._fail(error)

    @abstractmethod
    async def _finish(self) -> None:
        """Bring what was accepted to its destination, and let go of everything, also after an error."""

    def _state(self) -> str:
        if self._error is not None:
            return "dead"
        return "open" if self._closing is None else "closed"
