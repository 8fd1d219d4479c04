"""Persistent task group: tasks that belong together, and to no block.

Invariant: the group refers to its children, and their loop to the group as long as it has any; nobody else needs to.
Once `shutdown` was called there are no new ones, and it returns when there are no old ones left.
"""

from __future__ import annotations

import asyncio
from _thread import allocate_lock
from asyncio import _get_running_loop
from collections.abc import Awaitable, Coroutine
from contextvars import Context
from types import TracebackType
from typing import Any, Literal, TypeVar, final

from yamanote.runtime._cancel import wait_for_end
from yamanote.runtime._children import Children, ErrorHandler
from yamanote.runtime._join import JoinHandle
from yamanote.runtime._task import as_coroutine, no_loop, tasks_of

__all__ = ["PersistentTaskGroup"]

T = TypeVar("T")

_settling = allocate_lock()
"""For whoever settles on which loop a group belongs to."""


@final
class PersistentTaskGroup(Children):
    """A group that lives as long as a server does: ``group = PersistentTaskGroup()``, ``await group.shutdown()``.

    It can be made anywhere, also where no loop runs, and any task of its loop, the one on which it has children, may
    spawn; in a runtime with several workers any task of these. Children do not end each other: errors are reported at
    once, as in a `TaskGroup`, to `on_error`, or with ``"report"`` to the exception handler of the loop. Nothing is kept
    of a child that has ended.

    As an ``async with`` block it is shut down at the end.

    >>> from yamanote.runtime import PersistentTaskGroup, run, yield_now
    >>> async def handle_request(number):
    ...     return 1 / number
    >>> errors = []
    >>> async def example():
    ...     async with PersistentTaskGroup(on_error=errors.append) as group:
    ...         group.spawn(handle_request(0))
    ...         return await group.spawn(handle_request(2))
    >>> run(example())
    0.5
    >>> errors
    [ZeroDivisionError('division by zero')]
    """

    __slots__ = ("_closed",)

    def __init__(
        self,
        *,
        on_error: Literal["report"] | ErrorHandler = "report",
        limit: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(on_error, limit, name)
        self._closed = False

    def create_task(
        self, coro: Awaitable[T], /, *, name: str | None = None, context: Context | None = None
    ) -> JoinHandle[T]:
        """The name under which users of aiotools look for `spawn`."""
        return self.spawn(coro, name=name, context=context)

    async def shutdown(self, reason: str | None = None) -> None:
        """Cancel all children, and wait until they have ended. There will be no others. Never raises what they raise.

        Called by a child it does not wait, because that would be for its own end.

        **Cancel safety:** the children go on ending; call it again to wait for them.
        """
        idle = self._close(reason)
        if idle is not None:
            await JoinHandle(idle)  # others may wait for it too

    async def __aenter__(self) -> PersistentTaskGroup:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        idle = self._close(None)
        if idle is not None and kind is not GeneratorExit:  # thrown away, it cannot wait
            await wait_for_end([idle])

    def _close(self, reason: str | None) -> asyncio.Future[None] | None:
        """Cancel the children; return what is done when they have ended. None when there are none, and for a child."""
        loop = _get_running_loop()
        if loop is not self._loop and self._is_colleague(loop):
            assert self._loop is not None
            ended: asyncio.Future[None] = asyncio.Future(loop=self._loop)
            self._loop.call_soon_threadsafe(self._close_for, ended, reason, asyncio.current_task())
            return ended
        if self._active and loop is not self._loop:
            raise RuntimeError(f"{self!r} belongs to another event loop")
        return self._close_here(reason, asyncio.current_task())

    def _close_for(self, ended: asyncio.Future[None], reason: str | None, caller: asyncio.Task[Any] | None) -> None:
        """`_close`, for a task on another worker."""
        idle = self._close_here(reason, caller)
        if idle is None:
            ended.set_result(None)
        else:
            idle.add_done_callback(lambda _: ended.set_result(None))

    def _close_here(self, reason: str | None, caller: asyncio.Task[Any] | None) -> asyncio.Future[None] | None:
        self._closed = True
        self._abort(reason)
        if not self._active or any(handle._includes(caller) for handle in self._children.values()):
            return None
        if self._idle is None:
            assert self._loop is not None
            self._idle = self._loop.create_future()
        return self._idle

    def _admit(self, coro: Awaitable[T], method: str, loop: asyncio.AbstractEventLoop | None) -> Coroutine[Any, Any, T]:
        coroutine = as_coroutine(coro, method)
        if loop is None:
            refusal = no_loop(method)
        elif self._closed:
            refusal = RuntimeError(f"{self!r} takes no children: it has been shut down")
        elif loop is not self._loop and (self._active or self._is_colleague(loop)):
            refusal = RuntimeError(f"{self!r} belongs to another event loop")
        else:
            self._loop = loop
            tasks_of(loop).add(self)
            return coroutine
        coroutine.close()
        raise refusal

    def _is_abroad(self, loop: asyncio.AbstractEventLoop | None) -> bool:
        if self._loop is None:
            with _settling:  # several workers may bring its first children
                if self._loop is None:
                    self._loop = loop
        return not self._closed and loop is not self._loop and self._is_colleague(loop)

    def _leave(self) -> None:
        super()._leave()
        if not self._active:
            assert self._loop is not None
            tasks_of(self._loop).discard(self)

    def _describe(self) -> str:
        return "closed" if self._closed else "open"
