"""Iterators across threads: each request goes to the loop that the source belongs to.

Invariant: one request at a time is under way at the source, for the one party that has the turn; the next party has it
when that request has ended, cancelled or not. What a request ended with is given to somebody once, to the next party if
its own has gone. After the end or the first error there is nothing but the end.

Everything that touches the source runs on its loop. All that crosses is a task for each request (`Handle.spawn`), whose
outcome comes back as a value: an end or an error that a task had raised could be reported by anybody.
"""

from __future__ import annotations

import asyncio
import inspect
import warnings
from asyncio import CancelledError, _get_running_loop
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from yamanote.runtime import CancelScope, Handle, JoinError, JoinHandle, Outcome, cancel_and_wait, refuse_loop_thread
from yamanote.sync import Lock

__all__ = ["ThreadsafeIterator", "anything", "not_a", "threadsafe_aiter"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


def threadsafe_aiter(source: AsyncIterable[T], /) -> ThreadsafeIterator[T]:
    """An iterator over `source` for every thread: `async for` on any loop, `for` in a plain thread.

    Call it on the loop that `source` belongs to: there its code runs, whoever asks. Each item goes to one of those who
    ask, in the order in which they ask. Nothing is asked for in advance.

    `source` belongs to the iterator from now on; see `ThreadsafeIterator` for closing, cancelling and errors. Raises
    TypeError for what is no async iterable, RuntimeError where no loop runs.

    >>> async def count():
    ...     for number in range(3):
    ...         yield number
    >>> async def main():
    ...     return await to_thread(list, threadsafe_aiter(count()))
    >>> run(main())
    [0, 1, 2]
    """
    if not isinstance(source, AsyncIterable):
        raise not_a(source, "an async iterable")
    if _get_running_loop() is None:
        raise RuntimeError(
            "threadsafe_aiter() needs a running event loop: call it on the loop that the source belongs to"
        )
    return ThreadsafeIterator(source)


class ThreadsafeIterator(AsyncIterator[T_co], Generic[T_co]):
    """Items of a source that lives on one loop, for all threads: `threadsafe_aiter` makes it.

    On the source's own loop, an item is pulled directly. From elsewhere each pull is one request: a task on that loop,
    in a copy of the context of whoever asked first; what the source sets there, it finds again at the next item.

    **Closing:** `aclose` or ``async with`` in tasks, `close` or ``with`` in plain threads; the source is closed on its
    own loop. Use one of them if you may leave a ``for`` early. An iterator that is merely dropped in the middle of an
    async generator emits a ResourceWarning.

    **Errors** of the source are raised once, for the one who asked; after that the iterator is at its end. Raises
    JoinError when the request was cancelled on the side of the source, as by the end of a runtime, and RuntimeError
    when the loop of the source has been closed. A plain ``for`` on a thread that runs a loop raises RuntimeError.

    **Cancel safety:** a cancellation is passed on to the source, and raised when the request has ended there. An item
    that came all the same goes to the next who asks. So nothing is lost as long as the source loses nothing: an async
    generator that is cancelled while it waits is finished.
    """

    __slots__ = (
        "__weakref__",
        "_begun",
        "_close",
        "_context",
        "_home",
        "_label",
        "_loop",
        "_over",
        "_request",
        "_scope",
        "_source",
        "_turn",
    )

    def __init__(self, source: AsyncIterable[T_co]) -> None:
        self._begun = False
        self._over = False
        """Whether there is nothing but the end, and perhaps an outcome that nobody has got yet."""
        self._home = Handle.current()
        self._loop = asyncio.get_running_loop()
        self._source = aiter(source)
        self._label = str(getattr(source, "__qualname__", type(source).__qualname__))
        self._close: Callable[[], object] | None = getattr(self._source, "aclose", getattr(self._source, "close", None))
        """None when the source has been closed, or cannot be."""
        self._turn = Lock()
        self._request: JoinHandle[Outcome[Any]] | None = None
        """The one that is under way; or one that has ended, and whose party had gone."""
        self._scope: CancelScope | None = None
        """Around what runs at the source now."""
        self._context: Context | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T_co:
        return await self._ask(partial(self._pull, self._source.__anext__), anything)

    def __iter__(self) -> Self:
        """For plain threads. Raises RuntimeError in a thread that runs an event loop."""
        refuse_loop_thread()
        return self

    def __next__(self) -> T_co:
        try:
            return self._blocking_ask(partial(self._pull, self._source.__anext__), anything)
        except StopAsyncIteration:
            raise StopIteration from None

    async def aclose(self) -> None:
        """Close the source on its loop, and wait until that is done. Closing again does nothing.

        Whoever waits for an item is told the end; what they wait for is cancelled. An item that nobody has got is
        dropped. When the loop of the source has been closed, nothing is left to close.

        **Cancel safety:** as for an item. Repeat it.
        """
        if self._end():
            await self._ask(self._close_source, nothing)

    def close(self) -> None:
        """`aclose`, for plain threads. Raises RuntimeError in a thread that runs an event loop."""
        refuse_loop_thread()
        if self._end():
            self._blocking_ask(self._close_source, nothing)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not GeneratorExit:
            await self.aclose()
        elif self._end():  # thrown away, and cannot wait: the other side closes it
            with suppress(RuntimeError):  # which is ending just now
                self._home.spawn(self.aclose())

    def __enter__(self) -> Self:
        """For plain threads; in a task, write `async with`."""
        refuse_loop_thread()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._begun and getattr(self._source, "ag_frame", None) is not None:  # its loop will close it
            warnings.warn(
                f"{self!r} was dropped in the middle: use `async with` or `with`, or close it",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._label}{', at its end' if self._over else ''} at {id(self):#x}>"

    # ---------------------------------------------------------------- who asks, wherever that is

    async def _ask(self, step: _Step[T], takes: _Takes) -> T:
        """Let `step` run at the source, or take what a request before has ended with, if this `takes` it."""
        async with self._turn:
            while True:
                request = self._request
                own = request is None
                if request is None:
                    if self._over and takes is not nothing:
                        raise StopAsyncIteration
                    if _get_running_loop() is self._loop:
                        return (await step()).unwrap()
                    request = self._begin(step)
                try:
                    outcome: Outcome[T] = await request
                except JoinError as error:
                    self._was_cancelled(own, error)
                    continue
                except CancelledError:
                    await cancel_and_wait(request)  # how it ends is for who comes next
                    raise
                except GeneratorExit:  # thrown away, and cannot wait: who comes next does
                    request.abort()
                    raise
                self._request = None
                if own or takes(outcome):
                    try:
                        return outcome.unwrap()
                    finally:
                        del outcome, request  # an error refers to this frame

    def _blocking_ask(self, step: _Step[T], takes: _Takes) -> T:
        with self._turn:
            while True:
                request = self._request
                own = request is None
                if request is None:
                    if self._over and takes is not nothing:
                        raise StopAsyncIteration
                    request = self._begin(step)
                try:
                    outcome: Outcome[T] = request.result()
                except JoinError as error:
                    self._was_cancelled(own, error)
                    continue
                except BaseException:  # KeyboardInterrupt; a second one is not made to wait
                    request.abort()
                    with suppress(JoinError):
                        request.result()
                    raise
                self._request = None
                if own or takes(outcome):
                    try:
                        return outcome.unwrap()
                    finally:
                        del outcome, request

    def _begin(self, step: _Step[T]) -> JoinHandle[Outcome[T]]:
        if self._loop.is_closed():
            raise RuntimeError(f"the event loop of {self._label} has been closed: nothing more can come from there")
        if self._context is None:
            self._context = copy_context()
        # A task that is given its context stays on this loop, also in a runtime that has several.
        self._request = request = self._home.spawn(step(), name=self._label, context=self._context)
        return request

    def _was_cancelled(self, own: bool, error: JoinError) -> None:
        self._request = None
        if own:  # and not by us: that is an error like others
            self._over = True
            try:
                raise error
            finally:
                del error

    def _end(self) -> bool:
        """Let there be nothing but the end; tell whether there is something to close."""
        self._over = True  # published, *then* looked; `_pull` does it the other way round
        if (scope := self._scope) is not None:
            scope.cancel()
        return self._close is not None and not self._loop.is_closed()

    # ---------------------------------------------------------------- at the source, on its loop

    async def _pull(self, ask: Callable[[], Awaitable[T]]) -> Outcome[T]:
        self._begun = True
        with CancelScope() as scope:
            self._scope = scope
            try:
                if not self._over:
                    return Outcome.ok(await ask())
            except _FOR_THE_TASK:
                raise
            except BaseException as error:
                self._over = True
                return Outcome.failed(error)
            finally:
                self._scope = None
        return Outcome.failed(StopAsyncIteration())

    async def _close_source(self) -> Outcome[None]:
        try:
            if self._close is not None and inspect.isawaitable(closing := self._close()):
                await closing
        except _FOR_THE_TASK:
            raise
        except BaseException as error:
            self._close = None  # once is enough for what cannot be closed
            return Outcome.failed(error)
        self._close = None
        return Outcome.ok(None)


_FOR_THE_TASK = (CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)
"""What ends a request, or the program, and is no answer of the source."""

_Step = Callable[[], Coroutine[Any, Any, Outcome[T]]]
_Takes = Callable[[Outcome[Any]], bool]


def anything(outcome: Outcome[Any]) -> bool:
    return True


def nothing(outcome: Outcome[Any]) -> bool:
    return False


def not_a(source: object, what: str, name: str = "source") -> TypeError:
    """The error for an argument that is none; a coroutine among them is closed."""
    if inspect.iscoroutine(source):
        source.close()
    advice = "; call it" if inspect.isasyncgenfunction(source) else ""
    return TypeError(f"{name} must be {what}, not {source!r}{advice}")
