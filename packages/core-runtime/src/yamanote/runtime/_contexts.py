"""Context managers: small tools around a block.

What a block raises goes on as it is, unless a tool here says that it takes it.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, _get_running_loop
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextlib import aclosing as aclosing
from types import TracebackType
from typing import Any, final

from yamanote.runtime._group import TaskGroup
from yamanote.runtime._task import as_coroutine

__all__ = ["aclosing", "actxmgr", "contextualize", "suppress"]

actxmgr = asynccontextmanager
"""`contextlib.asynccontextmanager`, under the name that users of aiotools look for."""


def contextualize(awaitable: Awaitable[object], /) -> AbstractAsyncContextManager[None]:
    """Run `awaitable` beside a block, in a task of its own: ``async with contextualize(heartbeat()): ...``.

    It starts at the first await of the block. When the block ends it is cancelled, and awaited; when it ends earlier,
    nothing happens. When it fails, the block is cancelled, and its error raised. When both fail, both errors are raised
    in an ExceptionGroup.

    **Cancel safety:** when the caller is cancelled, so is the awaitable; the cancellation goes on when it has ended.

    Raises TypeError for what cannot be awaited.

    >>> async def heartbeat():
    ...     while True:
    ...         print("still here")
    ...         await asyncio.sleep(60)
    >>> async def main():
    ...     async with contextualize(heartbeat()):
    ...         await asyncio.sleep(0.001)
    >>> run(main())
    still here
    """
    return _contextualized(as_coroutine(awaitable, "contextualize"))


@asynccontextmanager
async def _contextualized(coroutine: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    failure: BaseException | None = None
    try:
        async with TaskGroup(name="contextualize") as group:
            group.spawn(coroutine)
            yield
            group.cancel()
    except BaseExceptionGroup as errors:
        failure, *others = errors.exceptions
        if others:
            failure = errors
    if failure is not None:
        try:
            raise failure
        finally:
            del failure  # it refers to this frame


@final
class suppress:
    """End a block quietly when it raises one of `errors`: ``with suppress(FileNotFoundError): ...``.

    In an ExceptionGroup they are suppressed too, at any depth; the rest of the group goes on. So does a CancelledError
    of a task that somebody has cancelled, whatever `errors` are: suppressing that would make the task go on. With
    `strict` the block must raise one of them.

    One object can be used any number of times, in any thread.

    Raises TypeError for what is no exception class; with `strict`, RuntimeError when the block raised nothing.

    >>> with suppress(ValueError, strict=True):
    ...     int("four")
    """

    __slots__ = ("_errors", "_strict")

    def __init__(self, *errors: type[BaseException], strict: bool = False) -> None:
        for error in errors:
            if not (isinstance(error, type) and issubclass(error, BaseException)):
                raise TypeError(f"errors must be exception classes, not {error!r}")
        self._errors = errors
        self._strict = strict

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if error is None:
            if self._strict:
                names = ", ".join(kind.__name__ for kind in self._errors)
                raise RuntimeError(f"the block should have raised one of: {names}")
            return False
        cancelled = _is_cancelled()
        if not isinstance(error, BaseExceptionGroup):
            return self._suppresses(error, cancelled)
        suppressed, rest = error.split(lambda each: self._suppresses(each, cancelled))
        if suppressed is None or rest is None:
            return rest is None
        try:
            raise rest
        finally:
            rest.__context__ = error.__context__  # not `error`: it is about what is suppressed, too
            del rest, suppressed, error

    def _suppresses(self, error: BaseException, cancelled: bool) -> bool:
        if not isinstance(error, self._errors):
            return False
        if not cancelled:
            return True
        if isinstance(error, BaseExceptionGroup):
            return error.subgroup(CancelledError) is None
        return not isinstance(error, CancelledError)


def _is_cancelled() -> bool:
    """Whether this runs in a task that somebody has cancelled."""
    task = None if _get_running_loop() is None else asyncio.current_task()
    return task is not None and task.cancelling() > 0
