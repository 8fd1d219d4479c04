"""Concurrent contexts: many context managers as one, entered at the same time and exited at the same time.

Invariant: each manager lives in a task of its own, which enters it, waits for the block to end, and exits it. Nobody
gets past the block, into it or out of it, while one of them is still on its way there. When such a task is cancelled
while it waits, as by a timeout that it has entered, so is the block, and its CancelledError goes into the exit.

One task from the beginning to the end is what makes managers that belong to their task effective here: what cancels
that task means the block. To step all of them in the task of the caller, in turns, cannot work: a timeout inside one
manager would cancel the others, for nobody can say for whom a `task.cancel()` was meant.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, TypeVar, final, overload

from yamanote.runtime._context_group import AnyManager, as_async, details
from yamanote.runtime._errors import Errors
from yamanote.runtime._scope import CancelScope
from yamanote.runtime._task import start_task

__all__ = ["concurrent_contexts"]

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")


@overload
def concurrent_contexts(manager: AnyManager[T1], /) -> AbstractAsyncContextManager[tuple[T1]]: ...
@overload
def concurrent_contexts(
    manager1: AnyManager[T1], manager2: AnyManager[T2], /
) -> AbstractAsyncContextManager[tuple[T1, T2]]: ...
@overload
def concurrent_contexts(
    manager1: AnyManager[T1], manager2: AnyManager[T2], manager3: AnyManager[T3], /
) -> AbstractAsyncContextManager[tuple[T1, T2, T3]]: ...
@overload
def concurrent_contexts(*managers: AnyManager[T]) -> AbstractAsyncContextManager[tuple[T, ...]]: ...
def concurrent_contexts(*managers: AnyManager[Any]) -> AbstractAsyncContextManager[tuple[Any, ...]]:
    """Enter many context managers at once: ``async with concurrent_contexts(database(), cache()) as (d, c): ...``.

    The block begins when all have been entered. When one fails to, or the caller is cancelled, those that are still
    being entered are cancelled, those that have been are exited, and when all that has ended, it is raised. The exits
    run concurrently too, and begin with the last one. Each sees the error of the block; it is enough that one
    suppresses it. The errors of managers are raised in an ExceptionGroup, with that of the block if there is one.

    Each manager is entered and exited in a task of its own. A timeout or a task group among them cancels the block, as
    it should, but none of them surrounds another one, and a context variable that one of them sets is set for that task
    only. For such managers there is `AsyncContextGroup`.

    **Cancel safety:** what was entered is exited. A cancellation during the exits cancels those that still run. An
    error takes the place of a cancellation, which is then raised again at the next await.

    Raises TypeError for what is no context manager; RuntimeError when one of them cancels the block before it begins,
    and then says that all is well: the block cannot be skipped.

    >>> from contextlib import asynccontextmanager
    >>> @asynccontextmanager
    ... async def connected(host):
    ...     await asyncio.sleep(0.001)  # both at the same time
    ...     yield f"connection to {host}"
    >>> async def main():
    ...     async with concurrent_contexts(connected("a"), connected("b")) as (first, second):
    ...         return first, second
    >>> run(main())
    ('connection to a', 'connection to b')
    """
    return _ConcurrentContexts([as_async(manager, "concurrent_contexts") for manager in managers])


@final
class _ConcurrentContexts(AbstractAsyncContextManager[tuple[Any, ...]]):
    __slots__ = ("_block", "_errors", "_managers", "_residents")

    def __init__(self, managers: list[AbstractAsyncContextManager[Any]]) -> None:
        self._managers = managers
        self._residents: list[_Resident] = []
        self._errors: Errors | None = None
        self._block = CancelScope()

    async def __aenter__(self) -> tuple[Any, ...]:
        if self._errors is not None:
            raise RuntimeError("concurrent contexts can be entered only once")
        self._errors = errors = Errors("errors in concurrent contexts", always_group=True)
        self._block.__enter__()
        self._residents = [_Resident(manager, self._block) for manager in self._managers]
        try:
            for resident in self._residents:
                await resident.entered
            return tuple(resident.value for resident in self._residents)
        except BaseException as error:
            await self._leave(error)
            errors.raise_pending()
            raise RuntimeError("a manager cancelled the block before it could begin") from error

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        errors = self._errors
        if errors is None:
            raise RuntimeError("these concurrent contexts have not been entered")
        await self._leave(error)
        return errors.settle(error)

    async def _leave(self, error: BaseException | None) -> None:
        """End all residents, after a block that raised `error`, and note how they ended."""
        errors, residents = self._errors, self._residents
        assert errors is not None
        # First of all: from here on whatever cancels the caller comes from outside.
        self._block.__exit__(*details(error))
        errors.start_with(error)
        self._residents = []
        for resident in reversed(residents):
            resident.leave(error)
        tasks = [resident.task for resident in residents]
        cancelled: CancelledError | None = None
        while running := [task for task in tasks if not task.done()]:
            try:
                await asyncio.wait(running)
            except CancelledError as request:
                cancelled = request
                for task in running:
                    task.cancel()
        ended = [task for task in tasks if not task.cancelled()]
        suppressed = any([task.exception() is None and task.result() for task in ended])
        # A manager knows of its own task only: it may take a cancellation of the caller for one that is its own.
        if suppressed and not (isinstance(error, CancelledError) and errors.is_cancelled()):
            errors.suppress()
        for failure in filter(None, [task.exception() for task in ended]):
            errors.add(failure)
        if cancelled is not None:
            errors.add(cancelled)
        for resident in residents:
            del resident.task  # its error refers to the frame, and so to the resident, that has raised it


class _Resident:
    """One manager, and the task that it lives in."""

    __slots__ = ("_block", "_end", "_error", "_inside", "_leaving", "_manager", "entered", "task", "value")

    entered: asyncio.Future[None]
    """Done when the manager has been entered; never, when that fails."""
    value: Any

    def __init__(self, manager: AbstractAsyncContextManager[Any], block: CancelScope) -> None:
        self._manager = manager
        self._block = block
        self._error: BaseException | None = None
        self._inside = self._leaving = False
        self._end: asyncio.Future[None] | None = None
        self.entered = asyncio.get_running_loop().create_future()
        self.task = start_task(self._live(), name=type(manager).__name__)
        # There is no block without this one. Once the block has ended this does nothing.
        self.task.add_done_callback(lambda _: block.cancel())

    def leave(self, error: BaseException | None) -> None:
        """Exit the manager, which sees `error`; or give up entering it."""
        self._leaving = True
        self._error = error
        if not self._inside:
            self.task.cancel()
        elif self._end is not None and not self._end.done():
            self._end.set_result(None)

    async def _live(self) -> bool | None:
        """Return whether the manager has suppressed the error of the block."""
        self.value = await self._manager.__aenter__()
        self._inside = True
        if not self.entered.done():  # the caller may have been cancelled where he waits for it
            self.entered.set_result(None)
        cancelled: CancelledError | None = None
        while not self._leaving:
            self._end = asyncio.get_running_loop().create_future()
            try:
                await self._end
            except CancelledError as error:
                cancelled = error
                self._block.cancel()
        if cancelled is not None and isinstance(self._error, CancelledError):
            self._error = cancelled  # some managers know their own one when they see it
        try:
            return await self._manager.__aexit__(*details(self._error))
        finally:
            self._error = cancelled = None
