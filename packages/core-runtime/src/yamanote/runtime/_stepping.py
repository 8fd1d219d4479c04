"""Stepping by hand: a coroutine that is begun here, and finished there.

Invariant: a coroutine is begun once, by `coro_start`, and what is left of it is taken once: `coro_continue` runs the
rest, `coro_as_future` takes what it ended with, `CoroState.close` throws it away. All of it runs in one context, a copy
of the one in which it was begun, and as a part of whichever task makes the steps.
"""

from __future__ import annotations

import asyncio
import inspect
import types
import warnings
from asyncio import CancelledError, _get_running_loop
from collections.abc import Awaitable, Coroutine, Generator, Iterator
from contextvars import Context, copy_context
from enum import Enum
from typing import Any, Generic, TypeVar, final

from yamanote.runtime._outcome import Outcome
from yamanote.runtime._task import as_coroutine, no_loop

__all__ = ["CoroState", "coro_as_future", "coro_continue", "coro_is_blocked", "coro_start"]

T = TypeVar("T")


def coro_start(coro: Awaitable[T]) -> CoroState[T]:
    """Run a coroutine up to its first wait, or to its end, within the call, and return what became of it.

    No task is made, and no loop is needed as long as the coroutine asks for none. What it raises is kept for whoever
    takes the end; KeyboardInterrupt and SystemExit come out of this call.

    It runs in the *caller's* task: an `asyncio.timeout`, a task group or a cancel scope that it enters before its first
    wait takes the caller for its own. For coroutines that may do that there is `eager`. Its context is a copy of the
    caller's, for the first part and for the rest.

    Raises TypeError for what cannot be awaited, RuntimeError for a coroutine that has been started before.

    >>> async def main():
    ...     state = coro_start(asyncio.sleep(0, "slept"))
    ...     return coro_is_blocked(state), await coro_continue(state)
    >>> run(main())
    (True, 'slept')
    """
    coroutine = as_coroutine(coro, "coro_start")
    if isinstance(coroutine, types.CoroutineType) and inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED:
        raise RuntimeError(f"coro_start() needs a coroutine that has not been started, and {coroutine!r} has")
    context = copy_context()
    state: CoroState[T] = CoroState(coroutine, context)
    try:
        state._wait(context.run(coroutine.send, None))
    except StopIteration as end:
        state._end(Outcome.ok(end.value))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        here = error.__traceback__  # this frame refers to the state, and the state to the error
        state._end(Outcome.failed(error.with_traceback(here and here.tb_next)))
    return state


def coro_is_blocked(state: CoroState[Any]) -> bool:
    """Whether the coroutine waits for something, and nobody has taken the rest of it."""
    return state._phase is _Phase.SUSPENDED


def coro_as_future(state: CoroState[T]) -> asyncio.Future[T]:
    """A finished future of the running loop, with what a coroutine that is not blocked has returned or raised.

    A coroutine that ended with a CancelledError gives a cancelled future.

    Raises RuntimeError when it is blocked, or has been taken or closed before; also where no loop runs.

    >>> async def answer():
    ...     return 42
    >>> async def main():
    ...     return coro_as_future(coro_start(answer())).result()
    >>> run(main())
    42
    """
    loop = _get_running_loop()
    if loop is None:
        raise no_loop("coro_as_future")
    state._take("coro_as_future", _Phase.ENDED)
    outcome = state._outcome
    future: asyncio.Future[T] = loop.create_future()
    if isinstance(outcome.error, CancelledError):
        future.cancel(*outcome.error.args[:1])
    elif outcome.error is not None:
        future.set_exception(outcome.error)
    else:
        future.set_result(outcome.unwrap())
    return future


def coro_continue(state: CoroState[T]) -> Coroutine[Any, Any, T]:
    """The rest of a coroutine as a coroutine of its own, to be awaited here or in a new task.

    It first waits for what the coroutine waits for already. One that has ended returns, or raises, at once.

    Raises RuntimeError, at the call, when it has been taken or closed before.

    **Cancel safety:** as that of the coroutine: a cancellation arrives where it waits.
    """
    state._take("coro_continue", _Phase.SUSPENDED, _Phase.ENDED)
    return _Rest(state)


class _Phase(Enum):
    RUNNING = "running"
    SUSPENDED = "blocked"
    ENDED = "ended"
    TAKEN = "taken"
    CLOSED = "closed"


@final
class CoroState(Generic[T]):
    """A coroutine that has been begun by `coro_start`.

    Pass it to `coro_continue` or `coro_as_future`, once, or `close` it. One that is dropped while it is blocked, or
    with an error that nobody has taken, emits a ResourceWarning.

    **Threads:** for the thread that began it.
    """

    __slots__ = ("__weakref__", "_context", "_coroutine", "_outcome", "_phase", "_waits_for")

    _outcome: Outcome[T]
    """How it ended. Unset before."""
    _waits_for: Any
    """What it has yielded. Unset if it never waited."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], context: Context) -> None:
        self._coroutine = coroutine
        self._context = context
        self._phase = _Phase.RUNNING

    def close(self) -> None:
        """Throw the coroutine away where it waits: its clean-up runs, up to the first wait, which is an error.

        Drops what it has ended with, and does nothing when it has been taken or closed before.
        """
        if self._phase is _Phase.SUSPENDED:
            self._phase = _Phase.CLOSED
            self._context.run(self._coroutine.close)
        elif self._phase is _Phase.ENDED:
            self._phase = _Phase.CLOSED
            del self._outcome

    def _wait(self, waits_for: Any) -> None:
        if hasattr(waits_for, "_asyncio_future_blocking"):
            # The mark is meant for a task: with it, nobody else could await the same future before the rest does.
            waits_for._asyncio_future_blocking = False
        self._waits_for = waits_for
        self._phase = _Phase.SUSPENDED

    def _end(self, outcome: Outcome[T]) -> None:
        self._outcome = outcome
        self._phase = _Phase.ENDED

    def _take(self, caller: str, *phases: _Phase) -> None:
        if self._phase not in phases:
            wanted = " or ".join(phase.value for phase in phases)
            raise RuntimeError(f"{caller}() needs a coroutine that is {wanted}, not {self!r}")
        self._phase = _Phase.TAKEN

    def __del__(self) -> None:
        failed = self._phase is _Phase.ENDED and self._outcome.error is not None
        if failed or self._phase is _Phase.SUSPENDED:
            warnings.warn(f"{self!r} was neither taken nor closed", ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        name = getattr(self._coroutine, "__qualname__", type(self._coroutine).__qualname__)
        how = f": {self._outcome!r}" if self._phase is _Phase.ENDED else ""
        return f"<CoroState of {name}, {self._phase.value}{how}>"


class _Rest(Coroutine[Any, Any, T]):
    """What is left of a coroutine, as a coroutine. It takes every step in the context in which the first one was made.

    Not an `async def`, for what is thrown into one that has not started does not come to its first line: a task that is
    cancelled before its first step would leave the coroutine waiting.
    """

    def __init__(self, state: CoroState[T]) -> None:
        self._state = state
        self._has_begun = False

    def send(self, value: Any) -> Any:
        state = self._state
        if self._has_begun:
            return state._context.run(state._coroutine.send, value)
        self._has_begun = True
        if not hasattr(state, "_waits_for"):
            raise StopIteration(state._outcome.unwrap())
        if hasattr(state._waits_for, "_asyncio_future_blocking"):
            state._waits_for._asyncio_future_blocking = True  # "this was yielded to be waited for"
        return state._waits_for

    def throw(self, error: Any, *more: Any) -> Any:
        state = self._state
        self._has_begun = True
        if not hasattr(state, "_waits_for"):  # it has ended: there is nobody to tell
            raise error
        return state._context.run(state._coroutine.throw, error, *more)

    def close(self) -> None:
        self._has_begun = True
        self._state._context.run(self._state._coroutine.close)

    def __await__(self) -> Generator[Any, Any, T]:
        return self  # type: ignore[return-value]  # all that `await` asks for is an iterator with these methods

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def __getattr__(self, name: str) -> Any:
        # For those who look at coroutines: `cr_frame`, `cr_await`, `cr_running`, `__qualname__`.
        return getattr(self._state._coroutine, name)

    def __del__(self) -> None:
        if not self._has_begun:
            warnings.warn(f"the rest of {self._state!r} was never awaited", RuntimeWarning, stacklevel=2, source=self)
