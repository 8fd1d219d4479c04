"""Take until: the end comes from outside.

Invariant: a pull waits for the source and for the end at once, in the task that pulls. It takes the one or the other:
what it does not take goes back where it came from. Between two pulls nobody waits for anything; only a coroutine that
is the end runs on, as a task that belongs to this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from inspect import CORO_CREATED, getcoroutinestate, isawaitable
from types import CoroutineType
from typing import Any, TypeGuard, TypeVar, cast

from yamanote.runtime import CancelScope, JoinHandle, Selectable, Waiter, cancel_and_wait, start_task
from yamanote.streams._arguments import is_async, name_of
from yamanote.streams._pipeline import Pipeline, explained
from yamanote.streams._sequential import Sequential

__all__ = ["TakeUntil", "close_unstarted", "require_stop"]

T_co = TypeVar("T_co", covariant=True)


class TakeUntil(Sequential[T_co]):
    """The items that come before `stop` is ready."""

    __slots__ = ("_ending", "_stop", "_task")

    def __init__(self, source: Pipeline[Any], stop: Selectable[Any] | Awaitable[Any]) -> None:
        super().__init__(source)
        self._stop = stop
        self._ending: Selectable[Any] | None = None
        """What a pull waits for besides the source. None before the first one."""
        self._task: asyncio.Task[Any] | None = None

    async def _next(self) -> T_co:
        if self._ending is None:
            self._ending = self._begin()
        scope = CancelScope()
        party = _Party(scope)
        ended = False
        self._ending.register(party)
        try:
            if not party.settled:
                with scope:
                    return await self._sources[0].pull()  # type: ignore[no-any-return]
            ended = True
            if party.error is not None and not self._over:  # else closing has cancelled it
                raise explained(party.error)
            raise StopAsyncIteration
        finally:
            if not ended:
                party.claim()
                self._ending.withdraw(party)
            del party  # an error that it was given refers to this frame

    def _begin(self) -> Selectable[Any]:
        stop = self._stop
        if _is_selectable(stop):
            return stop
        if asyncio.isfuture(stop):
            return JoinHandle(stop)
        self._task = start_task(cast("Awaitable[Any]", stop), eager=True)
        return JoinHandle(self._task)

    async def _close(self) -> None:
        self._over = True
        try:
            if self._task is not None:
                await cancel_and_wait(self._task)
            else:
                close_unstarted(self._stop)
        finally:
            await super()._close()

    @property
    def leftover(self) -> str | None:
        if self._task is not None and not self._task.done():
            return "1 task"
        return super().leftover

    def abandon(self) -> None:
        task = self._task
        if task is not None:
            try:
                task.get_loop().call_soon_threadsafe(JoinHandle(task).abort)
            except RuntimeError:  # the loop is closed, and the task with it
                pass
        super().abandon()

    def __str__(self) -> str:
        return f"{self._sources[0]}.take_until({name_of(self._stop)})"


class _Party(Waiter[Any]):
    """A pull, seen from what will end the stream: it is interrupted."""

    __slots__ = ("_scope",)

    def __init__(self, scope: CancelScope) -> None:
        super().__init__([None])
        self._scope = scope

    def _wake(self) -> None:
        self._scope.cancel()


def require_stop(stop: object) -> None:
    """Raise TypeError or ValueError unless one can wait for `stop`, which has not begun if it is a coroutine."""
    if not _is_selectable(stop) and not isawaitable(stop):
        wait = getattr(stop, "wait", None)
        advice = ": pass what its wait() gives, such as event.wait()" if callable(wait) and is_async(wait) else ""
        raise TypeError(f"stop must be something to wait for, not {stop!r}{advice}")
    if type(stop) is CoroutineType and getcoroutinestate(stop) != CORO_CREATED:
        raise ValueError(f"stop is a coroutine that has begun elsewhere, or was closed: {stop!r}")


def close_unstarted(stop: object) -> None:
    """Nobody will wait for `stop`: so that no warning says so, if it is a coroutine."""
    if isinstance(stop, Coroutine):
        stop.close()


def _is_selectable(stop: object) -> TypeGuard[Selectable[Any]]:
    return hasattr(stop, "withdraw") and not isinstance(stop, type)
