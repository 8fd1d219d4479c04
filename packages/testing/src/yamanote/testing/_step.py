"""Step: a coroutine that is driven by hand, one wait at a time.

Invariant: the coroutine runs only inside `poll` and `throw`, from one wait to the next; a poll does not run it while
what it waits for is not done. No task is involved and no loop turn passes.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from functools import partial
from types import CoroutineType, TracebackType
from typing import Any, Generic, Self, TypeVar, final

from yamanote.runtime import Outcome

__all__ = ["Step", "step"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


def step(awaitable: Awaitable[T]) -> Step[T]:
    """Take a coroutine, or another awaitable, in hand: nothing of it runs before the first `Step.poll`.

    Raises TypeError for what cannot be awaited.

    >>> async def main():
    ...     event = asyncio.Event()
    ...     with step(event.wait()) as waiting:
    ...         waiting.assert_pending()
    ...         event.set()
    ...         assert waiting.is_woken
    ...         return waiting.assert_ready()
    >>> run(main())
    True
    """
    if not inspect.isawaitable(awaitable):
        raise TypeError(f"step() needs a coroutine or another awaitable, not {awaitable!r}")
    return Step(awaitable)


@final
class Step(Generic[T_co]):
    """A coroutine that is driven by hand. Made by `step`; leaving its ``with`` block closes it.

    What it awaits may be the futures of asyncio, and everything that is built on them: locks, channels, tasks. Most of
    that asks for the running loop, so poll it inside one. It runs in a copy of the context in which it was made, but
    not in a task of its own: `asyncio.current_task()` is whoever polls it. So what cancels its own task does not belong
    into it: `asyncio.timeout`, cancel scopes, task groups.

    **Threads:** for the thread that made it.
    """

    __slots__ = ("__weakref__", "_context", "_coroutine", "_outcome", "_waits_for", "_woken")

    def __init__(self, awaitable: Awaitable[T_co]) -> None:
        self._coroutine: Coroutine[Any, Any, T_co] = (
            awaitable if isinstance(awaitable, Coroutine) else _await(awaitable)
        )
        self._context = copy_context()
        self._outcome: Outcome[T_co] | None = None
        self._waits_for: Any = None
        self._woken = True

    @property
    def is_woken(self) -> bool:
        """Whether the next poll will run it: before the first one, and as soon as what it waits for is done."""
        if self._outcome is not None:
            return False
        return self._woken or _is_done(self._waits_for)

    def poll(self) -> Outcome[T_co] | None:
        """Run it to its next wait: None when it waits, its outcome when it has ended.

        While it waits for something that is not done, a poll changes nothing. Once it has ended, each poll returns the
        same outcome.
        """
        if not self.is_woken:
            return self._outcome
        return self._run(partial(self._coroutine.send, None))

    def throw(self, error: BaseException) -> Outcome[T_co] | None:
        """Raise `error` where it waits, and run it to its next wait; returns what `poll` returns.

        ``throw(asyncio.CancelledError())`` is how a cancellation reaches it. Raises RuntimeError when it has ended.
        """
        if not isinstance(error, BaseException):
            raise TypeError(f"error must be an exception, not {error!r}")
        if self._outcome is not None:
            raise RuntimeError(f"{self!r} has ended")
        return self._run(partial(self._coroutine.throw, error))

    def close(self) -> None:
        """Throw it away where it waits, as the garbage collector would: its clean-up runs, without any await."""
        if self._outcome is None:
            self._forget()
            self._outcome = Outcome.failed(GeneratorExit())
            self._context.run(self._coroutine.close)

    def assert_pending(self) -> None:
        """Poll it. Raises AssertionError when it has ended, with how."""
        outcome = self.poll()
        if outcome is not None:
            raise AssertionError(f"{self!r} should be waiting") from outcome.error

    def assert_ready(self) -> T_co:
        """Poll it; return its value, or raise its error. Raises AssertionError when it waits, with what for."""
        outcome = self.poll()
        if outcome is None:
            raise AssertionError(f"{self!r} should have ended")
        return outcome.unwrap()

    def _run(self, go_on: Callable[[], Any]) -> Outcome[T_co] | None:
        self._forget()
        try:
            waits_for = self._context.run(go_on)
        except StopIteration as end:
            self._outcome = Outcome.ok(end.value)
        except BaseException as error:
            # Without this frame, which refers to the step: an error that is kept would keep itself alive.
            here = error.__traceback__
            self._outcome = Outcome.failed(error.with_traceback(here and here.tb_next))
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
        else:
            self._wait(waits_for)
        return self._outcome

    def _wait(self, waits_for: Any) -> None:
        if waits_for is None:  # it only lets others run
            self._woken = True
            return
        if getattr(waits_for, "_asyncio_future_blocking", None) is None:
            raise TypeError(f"{self!r} awaits {waits_for!r}, which is no future of asyncio")
        waits_for._asyncio_future_blocking = False  # "somebody waits": asyncio's protocol between a future and a task
        self._waits_for = waits_for
        # Not for the news, which comes a loop turn late, but to be seen among those who wait for it.
        waits_for.add_done_callback(self._wake_up, context=self._context)

    def _wake_up(self, done: object) -> None:
        if done is self._waits_for:
            self._woken = True

    def _forget(self) -> None:
        """What it waited for is behind it."""
        waited_for, self._waits_for, self._woken = self._waits_for, None, False
        if waited_for is not None and hasattr(waited_for, "remove_done_callback"):
            waited_for.remove_done_callback(self._wake_up)

    def __leak__(self) -> str | None:
        return None if self._outcome is not None else f"{self!r} was neither finished nor closed"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        name = getattr(self._coroutine, "__qualname__", type(self._coroutine).__qualname__)
        if self._outcome is not None:
            state = "closed" if isinstance(self._outcome.error, GeneratorExit) else f"ended: {self._outcome!r}"
        elif self.is_woken:
            state = "ready to run"
        else:
            state = f"waiting{_place(self._coroutine)}"
        return f"<Step of {name}, {state}>"


def _place(coroutine: Any) -> str:
    """The innermost line at which a coroutine is suspended, as far as there are coroutines."""
    while isinstance(inner := getattr(coroutine, "cr_await", None), CoroutineType):
        coroutine = inner
    frame = getattr(coroutine, "cr_frame", None)
    return "" if frame is None else f" at {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"


def _is_done(awaited: Any) -> bool:
    return isinstance(awaited, asyncio.Future) and awaited.done()


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable
