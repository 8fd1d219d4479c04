"""Recovery: what a stream goes on with when its source has failed.

Invariant: a failure is kept until there is another source; so a pull that is cancelled on the way there is repeated
from the failure on, and neither the failure nor its delay is counted twice. A source that has failed has been closed.
Who closes this asks a pull that is on that way to leave, and waits for it.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from typing import Any, TypeAlias, TypeVar

from yamanote.runtime import remaining
from yamanote.streams._arguments import is_async, name_of
from yamanote.streams._handle import require_sources, take_over
from yamanote.streams._operator import Operator
from yamanote.streams._pipeline import Pipeline
from yamanote.streams._visit import Visit
from yamanote.time import Schedule, sleep_until

__all__ = ["Answer", "Catch", "Condition", "Retry"]

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")

Answer: TypeAlias = AsyncIterable[U] | Iterable[U] | None
"""What a handler gives: what comes instead, or nothing."""
Condition: TypeAlias = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]
"""Which errors are meant."""


class _Recovery(Operator[T_co]):
    """Gives what its source gives, until that fails."""

    __slots__ = ("_applies", "_failure", "_on", "_pulling", "_source", "_visit", "_written")

    def __init__(self, source: Pipeline[Any], on: Condition) -> None:
        super().__init__(source)
        self._source = self._written = source
        self._on = on
        self._applies = _condition(on)
        self._failure: Any = None
        """The error of the source, until there is another one. In no local variable: it refers to our frames."""
        self._pulling = False
        self._visit = Visit()
        """Of the pull that is on the way to another source."""

    async def pull(self) -> T_co:
        if self._pulling:  # what the source says to a second task is no failure
            raise RuntimeError(f"{self} is being pulled by another task already")
        self._pulling = True
        try:
            while not self._over:
                if self._failure is not None:
                    try:
                        await self._recover()
                    except Exception as error:
                        self._failure = None
                        await self._end(error)
                    continue
                try:
                    return await self._source.pull()  # type: ignore[no-any-return]
                except StopAsyncIteration:
                    await self._end()
                except Exception as error:
                    if self._over:  # it has been closed meanwhile
                        await self._end(error)
                    self._failure = error
            await self._finish()
        finally:
            self._pulling = False

    async def _recover(self) -> None:
        self._visit.begin(self)
        try:
            await self._replace_source()
        except asyncio.CancelledError:
            if not self._visit.take_back():
                raise
        finally:
            self._visit.end()

    @abstractmethod
    async def _replace_source(self) -> None:
        """Go on with another source, or raise. If this is cancelled, it is called again with the same failure."""

    def _go_on_with(self, source: Pipeline[Any]) -> None:
        self._failure = None
        self._source = source
        self._sources = (source,)  # to be closed, also if this is over by now

    async def _close(self) -> None:
        self._over = True
        self._failure = None
        await self._visit.wait_for_others()
        await super()._close()

    @property
    def _condition_text(self) -> str:
        if self._on is Exception:
            return ""
        if isinstance(self._on, tuple):
            return f", on=({', '.join(map(name_of, self._on))}{',' * (len(self._on) == 1)})"
        return f", on={name_of(self._on)}"


class Catch(_Recovery[T_co]):
    """In place of an error, what a function gives for it."""

    __slots__ = ("_handler", "_is_async", "_recovered")

    def __init__(self, source: Pipeline[Any], handler: Callable[[Any], Any], on: Condition) -> None:
        super().__init__(source, on)
        self._handler = handler
        self._is_async = is_async(handler)
        self._recovered = False

    async def _replace_source(self) -> None:
        if self._recovered or not self._applies(self._failure):
            raise self._failure
        answer = self._handler(self._failure)
        if self._is_async:
            answer = await answer
        elif isinstance(answer, Coroutine):
            answer.close()
            raise TypeError(
                "what the handler returns must be something to iterate over, not a coroutine: "
                "pass the async function itself"
            )
        if answer is None:
            answer = ()
        require_sources(**{"what the handler returns": answer})
        self._recovered = True
        self._go_on_with(take_over(answer))

    def __str__(self) -> str:
        return f"{self._written}.catch({name_of(self._handler)}{self._condition_text})"


class Retry(_Recovery[T_co]):
    """The same source once more, after the delays of a schedule."""

    __slots__ = ("_again", "_due", "_run", "_schedule", "_since")

    def __init__(
        self,
        source: Pipeline[Any],
        again: Callable[[], AsyncIterable[Any] | Iterable[Any]],
        schedule: Schedule,
        on: Condition,
    ) -> None:
        super().__init__(source, on)
        self._again = again
        self._schedule = schedule
        self._since: float | None = None
        """When the next item was first asked for."""
        self._run: Callable[[float], float | None] | None = None
        """The run of the schedule, since the last item."""
        self._due: float | None = None

    async def pull(self) -> T_co:
        if self._since is None:
            self._since = asyncio.get_running_loop().time()
        item = await super().pull()
        self._since = self._run = None
        return item

    async def _replace_source(self) -> None:
        if self._due is None:
            self._due = self._next_attempt()
        await sleep_until(self._due)
        self._due = None
        try:
            again = self._again()
            require_sources(source=again)
            source = take_over(again)
        except Exception as error:
            self._failure = error  # that attempt has failed as well
        else:
            self._go_on_with(source)

    def _next_attempt(self) -> float:
        """When it is due. Raises the failure if there is to be none."""
        now = asyncio.get_running_loop().time()
        # Who still fails when the time is over may have swallowed the cancellation: nothing would stop another attempt.
        if remaining() != 0 and self._applies(self._failure):
            if self._run is None:
                self._run = self._schedule.begin()
            delay = self._run(now - (now if self._since is None else self._since))
            if delay is not None:
                return now + delay
        raise self._failure

    def __str__(self) -> str:
        return f"{self._written}.retry({self._schedule!r}{self._condition_text})"


def _condition(on: Condition) -> Callable[[Exception], bool]:
    """Whether an error is meant by `on`, which is what `yamanote.time.retry` accepts."""
    kinds = on if isinstance(on, tuple) else (on,)
    if all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
        return lambda error: isinstance(error, kinds)  # type: ignore[arg-type]
    if isinstance(on, type | tuple) or not callable(on) or is_async(on):
        raise TypeError(f"on must be a subclass of Exception, a tuple of them, or a plain function, not {on!r}")
    return on
