"""Delay queue: items that wait, each for its time.

Invariant: an item that was inserted is handed to one party, not before its deadline, in the order of the deadlines,
equal ones in the order in which they were set; or it is removed; or it is still in the queue. What had been handed to a
party that gives up is back in its place.

A heap of places, of which those that no entry refers to any more are skipped. They never outnumber the others by much,
so that removing and resetting cost no more than inserting.
"""

from __future__ import annotations

import math
from asyncio import get_running_loop
from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, NamedTuple, TypeVar, final, overload

from yamanote.runtime import BUDGET, Waiter, park, yield_now
from yamanote.time._clock import require_seconds
from yamanote.time._timetable import Timetable

__all__ = ["DelayQueue", "DelayQueueClosed", "Delayed"]

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

_SPARE = 64
"""How many dead places are not worth a clean-up."""


class DelayQueueClosed(Exception):
    """The delay queue was closed: it takes no more items, or it has given out the last."""


class Delayed(NamedTuple, Generic[T]):
    """An item in a delay queue, as `DelayQueue.peek` sees it."""

    key: Hashable
    item: T
    deadline: float
    """When it falls due, on the loop's clock."""


@final
class DelayQueue(Timetable[T]):
    """A queue whose items come out when their time has come: expiring sessions, retries, reminders.

    `insert` puts an item in, and returns the key with which it can be put off (`reset`) or taken out (`remove`) as
    long as nobody has received it. `recv`, and ``async for``, wait for the next that falls due; items that are overdue
    come at once, oldest deadline first. A `select` takes the queue as a branch. An empty queue waits for items, until
    it is closed.

    Several tasks may receive: each item goes to one of them, first in, first out. However many items there are, the
    loop has one timer for them. A queue needs no running loop to be made; it belongs to the loop of those who wait, and
    raises RuntimeError for others meanwhile.

    >>> from yamanote.runtime import run
    >>> async def main():
    ...     queue = DelayQueue()
    ...     queue.insert("tea", 0.002)
    ...     queue.insert("egg", 0.001)
    ...     queue.insert("cake", 3600, key="oven")
    ...     queue.remove("oven")
    ...     queue.close()
    ...     return [item async for item in queue]
    >>> run(main())
    ['egg', 'tea']
    """

    __slots__ = ("_budget", "_closed", "_entries", "_heap", "_turns")

    def __init__(self) -> None:
        super().__init__()
        self._entries: dict[Hashable, _Entry[T]] = {}
        self._heap: list[tuple[float, int, _Entry[T]]] = []
        self._turns = count()
        self._closed = False
        self._budget = BUDGET

    @overload
    def insert(self, item: T, seconds: float) -> Hashable: ...
    @overload
    def insert(self, item: T, seconds: float, *, key: K) -> K: ...
    def insert(self, item: T, seconds: float, *, key: Hashable = None) -> Hashable:
        """Put `item` in for so many seconds; zero or less is due now, `math.inf` never. Returns its key.

        The key is `key`, if given, or a new one. Raises ValueError when it is in the queue already, DelayQueueClosed
        after `close`, RuntimeError where no loop runs.
        """
        require_seconds("seconds", seconds)
        return self._insert(item, get_running_loop().time() + seconds, key)

    @overload
    def insert_at(self, item: T, when: float) -> Hashable: ...
    @overload
    def insert_at(self, item: T, when: float, *, key: K) -> K: ...
    def insert_at(self, item: T, when: float, *, key: Hashable = None) -> Hashable:
        """Like `insert`, until the loop's clock shows `when`."""
        require_seconds("when", when)
        return self._insert(item, when, key)

    def reset(self, key: Hashable, seconds: float) -> None:
        """Let the item fall due so many seconds from now instead. Raises KeyError when it is not in the queue."""
        require_seconds("seconds", seconds)
        self._reset(key, get_running_loop().time() + seconds)

    def reset_at(self, key: Hashable, when: float) -> None:
        """Like `reset`, to when the loop's clock shows `when`."""
        require_seconds("when", when)
        self._reset(key, when)

    def remove(self, key: Hashable) -> T:
        """Take an item out before somebody receives it, and return it. Raises KeyError when it is not in the queue."""
        self._require_loop()
        entry = self._entries.pop(key)
        entry.is_filed = False
        item = entry.item
        del entry.item  # its place stays behind
        self._tidy()
        self._changed()
        return item

    def peek(self) -> Delayed[T] | None:
        """The item that falls due next, or has done so already; None when the queue is empty."""
        entry = self._first()
        return None if entry is None else Delayed(entry.key, entry.item, entry.deadline)

    async def recv(self) -> T:
        """Wait until an item is due, and take it out.

        One that is due already comes without a loop turn, up to the cooperative budget. Raises DelayQueueClosed when
        the queue is closed and empty, RuntimeError while tasks of another loop wait. **Cancel safety**: a cancelled
        call takes nothing.
        """
        if self._budget == 0:
            self._budget = BUDGET
            await yield_now()
        if not self._waiters:  # a newcomer overtakes nobody
            entry = self._first()
            if entry is not None and entry.deadline <= get_running_loop().time():
                self._budget -= 1
                self._take(entry)
                return entry.item
        self._budget = BUDGET
        return await park(self)

    def close(self) -> None:
        """Take no more items. Those in the queue still come, each at its time; then `async for` ends."""
        self._require_loop()
        self._closed = True
        self._changed()

    def __aiter__(self) -> DelayQueue[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.recv()
        except DelayQueueClosed:
            raise StopAsyncIteration from None

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<DelayQueue {state}, {len(self._entries)} items, {len(self._waiters)} waiting>"

    def _insert(self, item: T, when: float, key: Hashable) -> Hashable:
        self._require_loop()
        if self._closed:
            raise DelayQueueClosed("the delay queue is closed")
        if key is None:
            key = object()
        elif not isinstance(key, Hashable):
            raise TypeError(f"key must be hashable, not {type(key).__name__}")
        elif key in self._entries:
            raise ValueError(f"key is in the queue already: {key!r}")
        entry = self._entries[key] = _Entry(key, item)
        self._file(entry, when, next(self._turns))
        self._changed()
        return key

    def _reset(self, key: Hashable, when: float) -> None:
        self._require_loop()
        self._file(self._entries[key], when, next(self._turns))
        self._tidy()
        self._changed()

    def _file(self, entry: _Entry[T], deadline: float, turn: int) -> None:
        entry.is_filed = True
        entry.deadline = deadline
        entry.turn = turn
        heappush(self._heap, (deadline, turn, entry))

    def _first(self) -> _Entry[T] | None:
        heap = self._heap
        while heap:
            _, turn, entry = heap[0]
            if entry.is_filed and entry.turn == turn:
                return entry
            heappop(heap)
        return None

    def _tidy(self) -> None:
        if len(self._heap) > 2 * len(self._entries) + _SPARE:
            # In this order: what a finalizer gives back meanwhile is added to the new heap.
            places, self._heap = self._heap, []
            self._heap += (place for place in places if place[2].is_filed and place[2].turn == place[1])
            heapify(self._heap)

    def _take(self, entry: _Entry[T]) -> None:
        entry.is_filed = False
        del self._entries[entry.key]
        self._first()  # drops its place; a finalizer may have put another one in front of it

    def _next_due(self, now: float) -> float:
        if not self._entries and self._closed:
            return -math.inf  # the end is due
        entry = self._first()
        return math.inf if entry is None else entry.deadline

    def _take_due(self, now: float) -> _Entry[T] | DelayQueueClosed | None:
        entry = self._first()
        if entry is None:
            return DelayQueueClosed("the delay queue is closed, and empty") if self._closed else None
        if entry.deadline > now:
            return None
        self._take(entry)
        return entry

    def _hand_over(self, waiter: Waiter[T], taken: _Entry[T] | DelayQueueClosed) -> None:
        if isinstance(taken, DelayQueueClosed):
            waiter.fail(taken)
        else:
            waiter.settle(taken.item)

    def _give_back(self, taken: _Entry[T] | DelayQueueClosed) -> None:
        if isinstance(taken, DelayQueueClosed):
            return
        if taken.key in self._entries:  # put in once more since
            taken.key = object()
        self._entries[taken.key] = taken
        self._file(taken, taken.deadline, taken.turn)


class _Entry(Generic[T]):
    """An item, and where it is filed: its place is the one with its turn, while it is filed at all."""

    __slots__ = ("deadline", "is_filed", "item", "key", "turn")

    deadline: float
    turn: int
    is_filed: bool

    def __init__(self, key: Hashable, item: T) -> None:
        self.key = key
        self.item = item
