"""Doubles: a source and a sink that do, step by step, what a script says.

Invariant: steps are taken in the order in which they were written, each once; a step that was cancelled while it waited
has not been taken.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from itertools import repeat
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, final

if TYPE_CHECKING:
    from yamanote.sinks import Sink

__all__ = ["Script", "ScriptedSink", "ScriptedSource", "Waitable"]

T = TypeVar("T")


class Waitable(Protocol):
    """What a double can wait for: an event, or anything else with an async `wait()`."""

    def wait(self) -> Awaitable[object]: ...


class Script:
    """What both doubles have in common: steps, to be written in a chain.

    Leaving a ``with`` block raises AssertionError when steps are left over, unless an error is on its way already.
    """

    def __init__(self) -> None:
        self._steps: deque[_Step] = deque()

    def wait(self, what: float | Waitable) -> Self:
        """Then wait: for so many seconds, or for an event.

        Raises TypeError and ValueError for what is neither.
        """
        if isinstance(what, bool) or not (isinstance(what, (int, float)) or hasattr(what, "wait")):
            raise TypeError(f"what must be a number of seconds or an event, not {what!r}")
        if isinstance(what, (int, float)) and not what >= 0:
            raise ValueError(f"what must be at least 0 seconds, not {what}")
        self._steps.append(_Wait(what))
        return self

    def error(self, error: BaseException) -> Self:
        """Then raise `error`. Raises TypeError for what is no exception."""
        if not isinstance(error, BaseException):
            raise TypeError(f"error must be an exception, not {error!r}")
        self._steps.append(_Error(error))
        return self

    def assert_finished(self) -> None:
        """Raise AssertionError when steps are left over."""
        if self._steps:
            raise AssertionError(f"{self!r} is not at its end: next is {self._steps[0]!r}")

    async def _next_step(self) -> _Step | None:
        """Take the next step that is no wait; None at the end."""
        steps = self._steps
        while steps:
            step = steps[0]
            if isinstance(step, _Wait):
                await step.wait()
                if not steps or steps[0] is not step:
                    continue  # two callers have waited for it
            steps.popleft()
            if not isinstance(step, _Wait):
                return step
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.assert_finished()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, steps left: {len(self._steps)}>"


@final
class ScriptedSource(Script, Generic[T]):
    """An async iterator that gives `items`, and then goes on with the steps that are added to it.

    At the end of the script it is at its end; write ``.wait(event)`` for one that hangs. `is_closed` tells whether
    somebody called `aclose`.

    **Cancel safety**: an item whose `__anext__` was cancelled is the next one again; a wait begins anew.

    >>> async def main():
    ...     with ScriptedSource(1, 2).wait(0.01).items(3).error(OSError("unplugged")) as source:
    ...         try:
    ...             async for item in source:
    ...                 print(item)
    ...         except OSError as error:
    ...             print(error)
    >>> run(main())
    1
    2
    3
    unplugged
    """

    is_closed: bool

    def __init__(self, *items: T) -> None:
        super().__init__()
        self.is_closed = False
        self.items(*items)

    def items(self, *items: T) -> Self:
        """Then give these."""
        self._steps.extend(map(_Item, items))
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        step = None if self.is_closed else await self._next_step()
        if isinstance(step, _Error):
            raise step.error
        if not isinstance(step, _Item):
            raise StopAsyncIteration
        item: T = step.item
        return item

    async def aclose(self) -> None:
        """Close it: it gives nothing more. What is left of the script stays left over."""
        self.is_closed = True


@final
class ScriptedSink(Script, Generic[T]):
    """A sink that keeps what it is fed in `items`, and accepts it, or not, as the script says; in the end, everything.

    It has the methods of `yamanote.sinks.Sink`, and its promises: after an `error` it is dead, and each later call
    raises that error; an item whose `feed` was cancelled has not been accepted; ``async with`` closes it. `into_sink`
    makes a real one of it.

    >>> async def main():
    ...     with ScriptedSink().accept(1).error(OSError("disk full")) as sink:
    ...         try:
    ...             for item in ("a", "b"):
    ...                 await sink.feed(item)
    ...         except OSError as error:
    ...             print(error, sink.items)
    >>> run(main())
    disk full ['a']
    """

    items: list[T]
    """What was accepted, in order."""
    flushed: int
    """How many of them had been accepted when it was last flushed."""
    is_closed: bool

    def __init__(self) -> None:
        super().__init__()
        self.items = []
        self.flushed = 0
        self.is_closed = False
        self._error: BaseException | None = None

    def accept(self, count: int = 1) -> Self:
        """Then accept `count` items. Raises TypeError or ValueError unless that is a whole number, at least 1."""
        if isinstance(count, bool) or not isinstance(count, int):
            raise TypeError(f"count must be a whole number, not {count!r}")
        if count < 1:
            raise ValueError(f"count must be at least 1, not {count}")
        self._steps.extend(repeat(_Accept(), count))
        return self

    async def feed(self, item: T) -> None:
        """Accept `item`, after the waits that come before it in the script.

        Raises RuntimeError when it has been closed.
        """
        self._check()
        step = await self._next_step()
        if isinstance(step, _Error):
            self._error = step.error
        self._check()
        self.items.append(item)

    async def flush(self) -> None:
        """Note in `flushed` how many items there are. Raises like `feed`."""
        self._check()
        self.flushed = len(self.items)

    async def close(self) -> None:
        """Flush, and accept nothing more. Closing again does nothing more. Raises the error that it died of."""
        if not self.is_closed:
            self.is_closed = True
            self.flushed = len(self.items)
        if self._error is not None:
            raise self._error

    async def send(self, item: T) -> None:
        """`feed`, then `flush`."""
        await self.feed(item)
        await self.flush()

    def into_sink(self) -> Sink[T]:
        """The same as a `yamanote.sinks.Sink`, with its combinators. Needs the distribution `yamanote-streams`."""
        try:
            from yamanote.sinks import Sink, SinkClosed
        except ImportError as error:
            raise ImportError("into_sink() needs the distribution yamanote-streams") from error
        double: ScriptedSink[Any] = self

        class Double(Sink[Any]):
            __slots__ = ()

            async def feed(self, item: Any) -> None:
                self._check()
                await double.feed(item)

            async def flush(self) -> None:
                self._check()
                await double.flush()

            async def close(self) -> None:
                await double.close()

            def _check(self) -> None:
                if double.is_closed and double._error is None:
                    raise SinkClosed(f"{double!r} has been closed")

            def __repr__(self) -> str:
                return repr(double)

        return Double()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self.is_closed:
            raise RuntimeError(f"{self!r} has been closed")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


class _Item:
    """Give this."""

    def __init__(self, item: Any) -> None:
        self.item = item

    def __repr__(self) -> str:
        return f"item {self.item!r}"


class _Accept:
    """Accept what comes."""

    def __repr__(self) -> str:
        return "accept"


class _Wait:
    """Wait for some time, or for an event."""

    def __init__(self, what: float | Waitable) -> None:
        self._what = what

    async def wait(self) -> None:
        if isinstance(self._what, (int, float)):
            await asyncio.sleep(self._what)
        else:
            await self._what.wait()

    def __repr__(self) -> str:
        return f"wait for {self._what!r}"


class _Error:
    """Raise this."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __repr__(self) -> str:
        return f"error {self.error!r}"


_Step = _Item | _Accept | _Wait | _Error
