"""Join map: a join set whose tasks have keys.

Invariant: a key belongs to at most one task that runs or waits to be joined. A task that had to give its key away is
cancelled, is never joined, and still ends before the map does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Hashable, KeysView
from contextvars import Context
from typing import Generic, TypeVar, final

from yamanote.runtime._join import JoinHandle
from yamanote.runtime._join_set import JoinQueue
from yamanote.runtime._task import as_coroutine, start_anywhere

__all__ = ["JoinMap"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@final
class JoinMap(JoinQueue[tuple[K, JoinHandle[T]]], Generic[K, T]):
    """Tasks that are joined one by one, whichever ends first, with their keys.

    ``async for key, done in jobs: print(key, await done)``. All else is as in a `JoinSet`.

    >>> from yamanote.runtime import JoinMap, run
    >>> async def double(number):
    ...     return number * 2
    >>> async def example():
    ...     async with JoinMap() as jobs:
    ...         jobs.spawn("one", double(1))
    ...         jobs.spawn("two", double(2))
    ...         async for key, done in jobs:
    ...             print(key, await done)
    >>> run(example())
    one 2
    two 4
    """

    __slots__ = ("_handles",)

    def __init__(self) -> None:
        super().__init__()
        self._handles: dict[K, JoinHandle[T]] = {}

    def spawn(
        self,
        key: K,
        coro: Awaitable[T],
        /,
        *,
        name: str | None = None,
        context: Context | None = None,
        eager: bool = False,
    ) -> JoinHandle[T]:
        """Start a task under `key`, as `yamanote.runtime.spawn` does, and return its handle.

        A task that has the key already is aborted, and what becomes of it, or its result, is never joined.
        """
        try:
            hash(key)
        except TypeError:
            as_coroutine(coro, "spawn").close()
            raise
        task = start_anywhere(coro, name, context, eager, "spawn")
        handle = JoinHandle(task)
        with self._section:
            old = self._handles.pop(key, None)  # the new one goes to the end
            if old is not None:
                self._disown(key, old)
            self._handles[key] = handle
        self._add(task, (key, handle))
        return handle

    def abort(self, key: K, reason: str | None = None) -> bool:
        """Ask the task under `key` to stop; it is joined like any other. False when there is none that runs."""
        handle = self._handles.get(key)
        if handle is None or handle.is_finished():
            return False
        handle.abort(reason)
        return True

    async def join_all(self) -> dict[K, T]:
        """Wait for all tasks; return their values under their keys, in the order in which they ended.

        The first error is raised when the others, which are cancelled, have ended.

        **Cancel safety:** the same; the cancellation goes on when all have ended.
        """

        async def joined(entry: tuple[K, JoinHandle[T]]) -> tuple[K, T]:
            key, done = entry
            return key, await done

        return dict(await self._join_all(joined))

    def detach_all(self) -> None:
        super().detach_all()
        self._handles.clear()

    def keys(self) -> KeysView[K]:
        """The keys of the tasks that have not been joined, in the order in which they were spawned."""
        return self._handles.keys()

    def __contains__(self, key: object) -> bool:
        return key in self._handles

    def _disown(self, key: K, old: JoinHandle[T]) -> None:
        task = old._future
        if self._running.pop(task, None) is not None:
            self._disowned.add(task)
            old.abort("its key was given to another task")
        else:
            self._ended.remove((key, old))

    def _taken(self, entry: tuple[K, JoinHandle[T]]) -> None:
        del self._handles[entry[0]]

    def _given_back(self, entry: tuple[K, JoinHandle[T]]) -> bool:
        key, handle = entry
        return self._handles.setdefault(key, handle) is handle
