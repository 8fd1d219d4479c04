"""Task scope: groups under the names by which users of other libraries look for them.

Each is a `TaskGroup` with other options; what it does is what these do.
"""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from contextvars import Context
from types import TracebackType
from typing import Literal, Self, TypeVar, final

from yamanote.runtime._children import ErrorHandler
from yamanote.runtime._group import TaskGroup
from yamanote.runtime._join import JoinHandle
from yamanote.runtime._scope import require_number

__all__ = ["Supervisor", "TaskScope", "volatile_task_group"]

T = TypeVar("T")


@final
class TaskScope(TaskGroup):
    """A `TaskGroup` whose children do not end each other, with a time limit that raises. Also known as `Supervisor`.

    ``async with TaskScope(timeout=5) as scope: scope.create_task(work())``. Errors of children are reported at once, to
    `on_error` or, with ``"report"``, to the exception handler of the loop; never silently dropped.

    Raises TimeoutError at the end of the block when `timeout` seconds, counted from its beginning, were not enough;
    body and children have been cancelled then. None means no limit. What the body raises itself comes first.

    >>> from yamanote.runtime import TaskScope, run
    >>> async def example():
    ...     async with TaskScope(timeout=0.001) as scope:
    ...         scope.create_task(asyncio.sleep(3600))
    >>> run(example())
    Traceback (most recent call last):
    TimeoutError: not done within 0.001 seconds
    """

    __slots__ = ("_timed_out", "_timeout")

    def __init__(
        self,
        *,
        timeout: float | None = None,
        shield: bool = False,
        on_error: Literal["report"] | ErrorHandler = "report",
        name: str | None = None,
    ) -> None:
        if timeout is not None:
            require_number("timeout", timeout, "a number of seconds, or None for no limit")
        super().__init__(on_error=on_error, shield=shield, name=name)
        self._timeout = timeout
        self._timed_out = False

    def create_task(
        self, coro: Awaitable[T], /, *, name: str | None = None, context: Context | None = None
    ) -> JoinHandle[T]:
        """The name under which users of aiotools look for `spawn`."""
        return self.spawn(coro, name=name, context=context)

    async def __aenter__(self) -> Self:
        if self._timeout is not None:
            self._deadline = get_running_loop().time() + self._timeout
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        swallowed = await super().__aexit__(kind, error, traceback)
        if self._timed_out and self.cancelled_caught and (error is None or swallowed):
            raise TimeoutError(f"not done within {self._timeout} seconds") from None
        return swallowed

    def _expire(self) -> None:
        self._timed_out = not self._aborting
        super()._expire()


Supervisor = TaskScope
"""The name for a `TaskScope` without a time limit: children do not end each other, and no error is dropped."""


@asynccontextmanager
async def volatile_task_group(*, name: str | None = None) -> AsyncIterator[TaskGroup]:
    """A `TaskGroup` whose children are cancelled when the body of the block ends. For helpers that serve the body.

    >>> import asyncio
    >>> from yamanote.runtime import run, volatile_task_group
    >>> async def example():
    ...     async with volatile_task_group() as group:
    ...         handle = group.spawn(asyncio.sleep(3600))
    ...     return handle.is_cancelled()
    >>> run(example())
    True
    """
    async with TaskGroup(name=name) as group:
        yield group
        group.cancel()
