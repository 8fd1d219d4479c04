"""Task groups that take children from any thread.

Invariant: a child that a thread could spawn runs on the group's own loop, and the block ends after it; or it has been
refused, at the call or through its handle. Nobody waits for ever for a child that came too late.

Threads send their children to the loop under a lock, and the group is over under the same lock, while its loop still
runs: so whatever has been sent arrives.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from contextvars import Context
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from yamanote.runtime import JoinHandle, TaskGroup
from yamanote.threads._thread_block import ThreadBlock, not_entered

__all__ = ["PortalTaskGroup", "ThreadTaskGroup"]

T = TypeVar("T")


class PortalTaskGroup(TaskGroup):
    """A `TaskGroup` whose `spawn` may be called from any thread."""

    __slots__ = ("_over", "_process", "_sending")

    def __init__(
        self, *, on_error: Literal["cancel", "collect"] = "cancel", limit: int | None = None, name: str | None = None
    ) -> None:
        super().__init__(on_error=on_error, limit=limit, name=name)
        self._sending = threading.RLock()  # a finalizer may spawn in the middle of that
        self._over = False
        self._process = 0

    @property
    def open_on(self) -> asyncio.AbstractEventLoop | None:
        """The loop on which it takes children; None when it takes none, and in a forked child, which has no loop."""
        return self._loop if self._state == "open" and os.getpid() == self._process else None

    async def __aenter__(self) -> Self:
        self._process = os.getpid()
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, GeneratorExit):
            # Those that have been sent arrive within a turn of the loop, and for that long this one keeps it open.
            self.spawn(_nothing(), name="the last to come")
        try:
            return await super().__aexit__(kind, error, traceback)
        finally:
            with self._sending:
                self._over = True
            del error, traceback  # it refers to this frame

    def _is_abroad(self, loop: object) -> bool:
        return self.open_on is not None

    def _send(
        self, coroutine: Coroutine[Any, Any, T], name: str | None, context: Context | None, on: int | None
    ) -> JoinHandle[T]:
        with self._sending:
            if not self._over:
                return super()._send(coroutine, name, context, on)
        coroutine.close()
        raise RuntimeError(f"{self!r} takes no children: it is not open")


async def _nothing() -> None: ...


class ThreadTaskGroup(PortalTaskGroup):
    """A `TaskGroup` whose children run on one loop in one other thread: ``async with``, or ``with`` in a plain thread.

    The body stays where it is. `spawn` gives a handle, which can be awaited here as everywhere, and `result` is its
    form for threads. Children see the context variables of who spawns them. With a `limit`, at most so many run at
    once; `name` is that of the group and of its thread. `on` says nothing here: there is no worker but 0.

    The block ends when its body, all children and the thread have ended. The first error of a child cancels the others,
    and the body of an ``async with``; that of a ``with`` cannot be interrupted, and goes on. An error of the body
    cancels the children. All errors are raised in an ExceptionGroup at the end. These are the rules of
    `yamanote.runtime.TaskGroup`, which it is, on the other loop.

    **Cancel safety:** when the caller is cancelled, so are the children; its CancelledError goes on when they have
    ended.

    **Threads:** `spawn` and `cancel` may be called from any thread; `with` raises RuntimeError in one that runs a loop.

    >>> from yamanote.threads import ThreadTaskGroup
    >>> async def double(number: int) -> int:
    ...     return number * 2
    >>> with ThreadTaskGroup() as group:
    ...     handles = [group.spawn(double(number)) for number in range(3)]
    >>> sum(handle.result() for handle in handles)
    6
    """

    __slots__ = ("_thread_block",)

    def __init__(self, *, limit: int | None = None, name: str | None = None) -> None:
        super().__init__(limit=limit, name=name)
        self._thread_block: ThreadBlock | None = None

    def _new_block(self) -> ThreadBlock:
        if self._thread_block is not None:
            raise RuntimeError(f"{self!r} can be entered only once")
        name = self._name or "loop of a ThreadTaskGroup"
        self._thread_block = ThreadBlock(super().__aenter__, super().__aexit__, name)
        return self._thread_block

    async def __aenter__(self) -> Self:
        await self._new_block().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if self._thread_block is None:
            raise not_entered(self)
        return await self._thread_block.__aexit__(kind, error, traceback)

    def __enter__(self) -> Self:
        self._new_block().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if self._thread_block is None:
            raise not_entered(self)
        return self._thread_block.__exit__(kind, error, traceback)
