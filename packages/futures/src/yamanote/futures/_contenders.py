"""Contenders: awaitables of which one will win."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Iterable
from typing import Any, Generic, TypeVar, final

from yamanote.futures._completion import CompletionQueue
from yamanote.futures._ownership import close_unstarted
from yamanote.runtime import Waiter, park

__all__ = ["Contenders"]

K = TypeVar("K")
T = TypeVar("T")


@final
class Contenders(Generic[K, T]):
    """Runs awaitables, in order, until one of them has finished, and hands over ``(key, task)`` of the first.

    They begin when somebody registers, not before. One that finishes at once has won before those behind it have
    begun; those are closed.
    """

    __slots__ = ("_queue", "_unstarted")

    def __init__(self, awaitables: Iterable[tuple[K, Awaitable[T]]]) -> None:
        self._unstarted = deque(awaitables)
        self._queue: CompletionQueue[K, T] = CompletionQueue()

    def start(self) -> tuple[K, asyncio.Task[T]] | None:
        """Begin, and return the first that has finished at once, if any has."""
        queue, unstarted = self._queue, self._unstarted
        while unstarted:
            key, awaitable = unstarted.popleft()
            if queue.add(awaitable, key, eager=True).done():
                break
        return queue.pop_nowait()

    async def first(self) -> tuple[K, asyncio.Task[T]]:
        """Begin, if that has not happened, and wait for the first that finishes."""
        entry = self.start()
        if entry is not None:
            return entry
        parked: tuple[K, asyncio.Task[T]] = await park(self)
        return parked

    def register(self, waiter: Waiter[Any], /) -> None:
        entry = self.start()
        if entry is None:
            self._queue.register(waiter)
        else:
            waiter.operation = 0  # the first: where it goes when it comes back
            waiter.hand(entry)

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        self._queue.withdraw(waiter)

    async def aclose(self, error: BaseException | None = None) -> None:
        """Cancel and await those that run, close those that have not begun."""
        if self._unstarted:
            close_unstarted(awaitable for _, awaitable in self._unstarted)
            self._unstarted.clear()
        if self._queue:
            await self._queue.__aexit__(None if error is None else type(error), error, None)
