"""Sink: the contract of everything that items go into, and the combinators.

Invariant: what `feed` has accepted reaches its destination by the next `flush` or `close` that returns, or that call
raises why not. What a `feed` that raised was given, CancelledError included, has not been accepted. After an error of
its own work a sink is dead: each later call raises that error. `close` goes on by itself when it is cancelled.
"""

from __future__ import annotations

import asyncio
import warnings
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, TypeVarTuple, overload

from yamanote.runtime import start_task
from yamanote.streams import Stream
from yamanote.streams._thrown_away import is_thrown_away
from yamanote.time import Schedule

if TYPE_CHECKING:
    from yamanote.streams import Encoder

__all__ = ["Guarded", "Sink", "SinkClosed", "report"]

T = TypeVar("T")
U = TypeVar("U")
T_contra = TypeVar("T_contra", contravariant=True)
Ts = TypeVarTuple("Ts")


class SinkClosed(RuntimeError):
    """The sink has been closed: it accepts nothing more."""


class Sink(ABC, Generic[T_contra]):
    """Where items go: `feed` them, then `flush` or `close`; or `send` one and know that it has arrived.

    To write one, implement `feed`, `flush` and `close`. To use one, enter it: ``async with`` closes it at the end; when
    it is left by an exception, by `_give_up`.

    A combinator takes over the sinks that it is made of, and closes them with itself. From then on only the outermost
    one is to be used: what is fed to another overtakes what waits before it, and closing it makes it refuse the rest.
    """

    __slots__ = ("__weakref__",)

    @abstractmethod
    async def feed(self, item: T_contra) -> None:
        """Accept `item`, waiting while there is no room for it. It need not have arrived before a flush.

        Raises SinkClosed after `close`, and what has gone wrong with earlier items. **Cancel safety**: an item whose
        `feed` was cancelled has not been accepted.
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

    async def _give_up(self) -> None:
        """Close, where not everything has been accepted that was to be: what is all or nothing is to be nothing.

        That is what a sink is told that is left by an exception, and by a combinator all sinks below it, also when it
        is dead or dropped. By default this is `close`. **Cancel safety**: that of `close`.
        """
        await self.close()

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

    def encode(self: Sink[bytes], encoder: Encoder[U]) -> Sink[U]:
        """A sink of frames, whose bytes go to this one: a `LengthCodec`, `LinesCodec`, `DelimiterCodec` or your own.

        A frame that the encoder refuses is refused by `feed`, which raises what the encoder raises; nothing else
        happens.

        >>> from yamanote.runtime import run
        >>> from yamanote.sinks import drain
        >>> from yamanote.streams import LengthCodec
        >>> async def main():
        ...     async with drain().with_map(print).encode(LengthCodec(1)) as sink:
        ...         await sink.send(b"hello")
        >>> run(main())
        b'\\x05hello'
        """
        if isinstance(encoder, type | str) or not hasattr(encoder, "encode"):
            raise TypeError(f"encoder must be a codec, or have an encode(), not {encoder!r}")
        return self.with_map(encoder.encode)

    @overload
    def with_flat_map(self, function: Callable[[U], Awaitable[AsyncIterable[T_contra]]]) -> Sink[U]: ...
    @overload
    def with_flat_map(self, function: Callable[[U], Awaitable[Iterable[T_contra]]]) -> Sink[U]: ...
    @overload
    def with_flat_map(self, function: Callable[[U], AsyncIterable[T_contra]]) -> Sink[U]: ...
    @overload
    def with_flat_map(self, function: Callable[[U], Iterable[T_contra]]) -> Sink[U]: ...
    def with_flat_map(self, function: Callable[[U], Any]) -> Sink[U]:
        """A sink that feeds everything in `function` of each item to this one: `function` gives an iterable.

        The function may be plain or async, and so may the iterable, which is closed in the end. An error of the
        function is raised by `feed`, which has not accepted the item then; nothing else happens. What the iterable or
        this sink raises comes too late for that: the sink is dead, and each later call raises it.

        >>> from yamanote.runtime import run
        >>> from yamanote.sinks import from_function
        >>> async def main():
        ...     async with from_function(print).with_flat_map(str.split) as words:
        ...         await words.send("hello world")
        >>> run(main())
        hello
        world
        """
        from yamanote.sinks._with_flat_map import WithFlatMap

        return WithFlatMap(self, function)

    def fanout(self: Sink[T], *others: Sink[T]) -> Sink[T]:
        """A sink that feeds each item to this sink and then to all `others`.

        The next item is accepted when all have got this one: put a `buffer` before a slow sink if the others should not
        wait for it. When one of them fails, the others get the item nevertheless; then the fan-out is dead, and each
        later call raises the error. Further errors go to the exception handler of the loop. Flushing and closing are
        done on all sinks at once.
        """
        from yamanote.sinks._fanout import Fanout

        return Fanout(self, *others)

    def batch(self: Sink[list[T]], count: int, seconds: float | None = None) -> Sink[T]:
        """A sink that gathers items, and feeds this one lists of `count` of them.

        A batch that is not full goes on its way when its first item has waited `seconds`, if they are given, and with
        `flush` and `close`. While one batch is under way the next is gathered; when that is full as well, `feed` waits.
        An error of this sink is raised by each later call.

        Raises TypeError or ValueError unless `count` is a whole number, at least 1, and `seconds` is more than 0.

        >>> from yamanote.runtime import run
        >>> from yamanote.sinks import from_function
        >>> async def main():
        ...     batches = []
        ...     async with from_function(batches.append).batch(2) as sink:
        ...         await sink.send_all("abc")
        ...     return batches
        >>> run(main())
        [['a', 'b'], ['c']]
        """
        from yamanote.sinks._batch import Batch

        return Batch(self, count, seconds)

    def buffer(self, capacity: int) -> Sink[T_contra]:
        """A sink that accepts up to `capacity` items while this one is busy, and feeds them in order.

        The work is done by a task, which starts with the first item and ends with `close`. An error of this sink is
        raised by each later call. Callers that wait for room are served first in, first out.

        Raises TypeError or ValueError unless `capacity` is a whole number, at least 1.
        """
        from yamanote.sinks._buffer import Buffer

        return Buffer(self, capacity)

    def retry(
        self,
        schedule: Schedule,
        *,
        on: type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool] = Exception,
    ) -> Sink[T_contra]:
        """A sink that repeats each call of this one that fails, after the delays of `schedule`, as `time.retry` does.

        `on` says which errors are worth it. Others are raised at once, and the last one when the schedule has ended;
        the item was not accepted then, and the next one begins the schedule anew. The calls are made one at a time, so
        the order stays.

        For a sink that can go on after an error: one of `from_function`, or written by hand. The others of this area
        are dead after their first one, so put this before them: ``from_function(post).retry(schedule).buffer(100)``.

        Raises TypeError for what is no schedule, and no condition.

        >>> from yamanote.runtime import run
        >>> from yamanote.sinks import from_function
        >>> from yamanote.time import Schedule
        >>> answers = [OSError("busy"), None]
        >>> def post(item):
        ...     if answer := answers.pop(0):
        ...         raise answer
        ...     print(item)
        >>> async def main():
        ...     async with from_function(post).retry(Schedule.fixed(0.001).retries(3), on=OSError) as sink:
        ...         await sink.send("hello")
        >>> run(main())
        hello
        """
        from yamanote.sinks._retry import Retry

        return Retry(self, schedule, on)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            await self.close()
        elif kind is not GeneratorExit or not is_thrown_away(traceback):
            await self._give_up()


class Guarded(Sink[T_contra]):
    """A sink that remembers its first error, and closes in a task of its own, which no caller can cancel.

    One that was used, and is dropped before it was closed, closes itself, with a ResourceWarning.
    """

    __slots__ = ("_closing", "_error", "_given_up", "_loop", "_told", "_traceback")

    def __init__(self) -> None:
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._told = False
        """Whether a call has raised the error."""
        self._closing: asyncio.Task[None] | None = None
        self._given_up = False
        self._loop: asyncio.AbstractEventLoop | None = None
        """Known from the first use on."""

    def _check(self) -> None:
        """Raise what each call has to raise first."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._raise_error()
        if self._closing is not None:
            raise SinkClosed(f"{self!r} has been closed")

    def _raise_error(self) -> None:
        if self._error is not None:
            self._told = True
            raise self._error.with_traceback(self._traceback)  # else it would grow with each call

    def _fail(self, error: BaseException) -> None:
        """Remember `error` for all later calls. One that comes second has nobody who would get it but the loop."""
        if not isinstance(error, Exception):
            # A task of the sink's own was ended by somebody; those who call it were not.
            if self._error is not None and isinstance(self._error.__cause__, type(error)):
                return  # this is of the same kind, and says nothing new
            ended = "cancelled" if isinstance(error, asyncio.CancelledError) else f"ended by {error!r}"
            cause, error = error, RuntimeError(f"a task of {self!r} was {ended}")
            error.__cause__ = cause
        if self._error is None:
            self._error, self._traceback = error, error.__traceback__
        elif error is not self._error:
            report(f"a further error in {self!r}", error)

    async def close(self) -> None:
        while self._closing is None or not self._closing.done() or self._closing.cancelled():
            if self._closing is None or self._closing.cancelled():  # before its first step: nothing has been done
                self._closing = self._begin_closing()
            await asyncio.wait([self._closing])
        self._raise_error()

    async def _give_up(self) -> None:
        if self._closing is None:  # else everything had been accepted
            self._given_up = True
        await self.close()

    async def _end(self, sink: Sink[Any]) -> None:
        """Close `sink`, which this one owns, in the way in which this one ends."""
        if self._given_up or self._error is not None:
            await sink._give_up()
        else:
            await sink.close()

    def _begin_closing(self) -> asyncio.Task[None]:
        return start_task(self._guard(self._finish))

    async def _guard(self, work: Callable[[*Ts], Awaitable[None]], *arguments: *Ts) -> None:
        """Do `work`, for a task of the sink's own: what it raises is the error of the sink."""
        try:
            await work(*arguments)
        except (Exception, asyncio.CancelledError) as error:
            self._fail(error)
        except (KeyboardInterrupt, SystemExit) as error:  # it ends the loop
            self._fail(error)
            raise

    @abstractmethod
    async def _finish(self) -> None:
        """Bring what was accepted to its destination, and let go of everything, also after an error."""

    def __del__(self) -> None:
        loop = getattr(self, "_loop", None)
        if loop is not None and (self._closing is None or self._closing.cancelled()):
            self._given_up = True
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._begin_closing_after_all)  # this lives until then
            warnings.warn(f"{self!r} was dropped and never closed", ResourceWarning, stacklevel=2, source=self)

    def _begin_closing_after_all(self) -> None:
        start_task(self._close_after_all(self._told))

    async def _close_after_all(self, told: bool) -> None:
        try:
            await self.close()
        except Exception as error:
            if not told:
                report(f"{self!r} was dropped and never closed", error)

    def _state(self) -> str:
        if self._error is not None:
            return "dead"
        return "open" if self._closing is None else "closed"


def report(message: str, error: BaseException) -> None:
    """Tell the loop of an error that no caller will get."""
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
