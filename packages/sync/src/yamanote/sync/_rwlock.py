"""Reader-writer lock: many may read at once, or one may write.

Invariant: whoever writes is alone. The queue is empty only while nobody writes and nobody waits, for the writer at work
stands first in it; and whoever stands first cannot be let in yet. So a newcomer that finds anybody in the queue waits
behind, a reader too, and nobody is overtaken.

A reader's ordinary path takes no lock: it signs in, *then* looks at the queue. A writer joins the queue, *then* looks
who has signed in. So of two that race at least one sees the other, and the reader steps back. What a writer has to do
does not depend on how many might read.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self, final

from yamanote.runtime import CriticalSection, Waiter
from yamanote.sync._acquirable import Acquirable, Held

__all__ = ["ReadLock", "RwLock", "RwLockStatistics", "WriteLock"]

_WRITING: Waiter[Any] = Waiter([])  # stands first in the queue for the writer at work; nobody can claim it


@dataclass(frozen=True, slots=True)
class RwLockStatistics:
    """A look at a reader-writer lock; exact only while no other thread uses it."""

    reading: int
    """Parties that read."""
    writing: bool
    """Whether a party writes."""
    waiting: int
    """Parties that wait, for reading or for writing."""


@final
class RwLock:
    """Many may read at once, or one may write; first in, first out, for tasks and for plain threads.

    `read()` and `write()` are two locks with the manners of `Lock`. A reader that comes while a writer waits queues
    behind it, so writers do not starve, and readers who stand together in the queue enter together.

    Not reentrant. Mind that a party which reads, and wants to read *again* before it has left, waits for ever when a
    writer came in between: the writer waits for the first read to end, and the second read waits for the writer.

    >>> async def main():
    ...     prices, lock = {"apple": 3}, RwLock()
    ...     async with lock.write() as held:
    ...         prices["apple"] = 4
    ...         held.downgrade()  # others may read now, and no writer comes between
    ...         return prices["apple"]
    >>> run(main())
    4
    """

    __slots__ = ("__weakref__", "_read", "_room", "_write")

    def __init__(self) -> None:
        self._room = room = _Room()
        self._read = ReadLock(room)
        self._write = WriteLock(room)

    def read(self) -> ReadLock:
        """The lock for reading: always the same one."""
        return self._read

    def write(self) -> WriteLock:
        """The lock for writing: always the same one."""
        return self._write

    def statistics(self) -> RwLockStatistics:
        """Look at it, for logs and debuggers."""
        return self._room.statistics()

    def __repr__(self) -> str:
        return repr(self._room)


class _Room:
    """Who is inside, and who wants to come in."""

    __slots__ = ("queue", "readers", "section")

    def __init__(self) -> None:
        self.readers: deque[None] = deque()
        """One entry for each reader inside, and, for a moment, for one that will step back."""
        self.queue: deque[Waiter[Any]] = deque()
        """The writer at work, then who waits, oldest first."""
        self.section: CriticalSection = CriticalSection()

    def statistics(self) -> RwLockStatistics:
        queue = self.queue.copy()
        writing = _WRITING in queue
        return RwLockStatistics(len(self.readers), writing, len(queue) - writing)

    def __leak__(self) -> str | None:
        """What was not given back, for `yamanote.testing.no_leaks`: here, as who holds it may have only a side."""
        now = self.statistics()
        return f"{self!r}: not given back" if now.reading or now.writing else None

    def __repr__(self) -> str:
        now = self.statistics()
        state = "writing" if now.writing else f"{now.reading} reading" if now.reading else "unlocked"
        return f"<RwLock {state}, {now.waiting} waiting at {id(self):#x}>"

    def end_reading(self) -> None:
        try:
            self.readers.pop()
        except IndexError:
            raise RuntimeError("release() of a lock that nobody has") from None
        # While others read on, only the last of them can make way for whoever stands first.
        if self.queue and not self.readers:
            self.serve()

    def end_writing(self) -> bool:
        """Take the writer at work out of the queue; tell whether there was one. Then `serve` must follow."""
        try:
            self.queue.remove(_WRITING)  # in one operation: of two who do this by mistake, one learns of it
        except ValueError:
            return False
        return True

    def enlist(self, waiter: Waiter[Any], side: _Side) -> None:
        waiter.operation = side
        self.queue.append(waiter)
        # In line, *then* looked: whoever stood first leaves the line, and then looks who stands there.
        try:
            first = self.queue[0]
        except IndexError:  # served meanwhile, by another thread
            return
        if first is waiter or not (first is _WRITING or first.is_waiting()):
            self.serve()

    def delist(self, waiter: Waiter[Any]) -> None:
        self.section.do(partial(self._delist, waiter))

    def _delist(self, waiter: Waiter[Any]) -> None:
        if not waiter.settled:
            try:
                self.queue.remove(waiter)
            except ValueError:
                pass  # whoever found it dead
        elif waiter.operation.writes:
            self.end_writing()
        else:
            self.readers.pop()
        self.serve_locked()

    def serve(self) -> None:
        self.section.run(self.serve_locked)

    def serve_locked(self) -> None:
        """Let in who stands first, and all readers behind a reader."""
        queue, readers = self.queue, self.readers
        while queue:
            try:
                waiter = queue[0]
            except IndexError:  # the writer at work left, in another thread
                return
            if waiter is _WRITING:
                return
            if not waiter.operation.writes:
                readers.append(None)
                queue.popleft()
                if waiter.claim():
                    waiter.settle(Held(waiter.operation))
                else:
                    readers.pop()
            elif readers:
                if waiter.is_waiting():
                    return
                queue.popleft()  # cancelled, or its loop was closed: it holds up no reader behind it
            elif waiter.claim():
                queue[0] = _WRITING  # in its place: were the queue empty for a moment, a newcomer would walk in
                waiter.settle(Held(waiter.operation))
            else:
                queue.popleft()  # nobody is there any more, and nobody else may wait for that


class _Side(Acquirable):
    """What the locks for reading and for writing have in common."""

    __slots__ = ("_queue", "_readers", "_room")

    writes: bool

    def __init__(self, room: _Room) -> None:
        super().__init__()
        self._room = room
        self._queue = room.queue
        self._readers = room.readers

    def register(self, waiter: Waiter[Any]) -> None:
        """Park `waiter` until it is let in; it is handed what to enter. See `yamanote.runtime.Selectable`."""
        self._room.enlist(waiter, self)

    def withdraw(self, waiter: Waiter[Any]) -> None:
        """Forget `waiter`; if it had been let in, the next comes."""
        self._room.delist(waiter)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._room!r}>"


@final
class ReadLock(_Side):
    """The lock for reading of an `RwLock`: many may have it at once."""

    __slots__ = ()

    writes = False

    def locked(self) -> bool:
        """Whether `acquire` would wait: somebody writes, or waits for it."""
        return bool(self._queue)

    def try_acquire(self) -> bool:
        """Take it if nobody writes and nobody waits for it; tell whether it worked. Any thread may call it."""
        if self._queue:
            return False
        self._readers.append(None)
        if not self._queue:
            return True
        self._room.end_reading()  # somebody came between
        return False

    def release(self) -> None:
        """Give it back; when nobody reads any more, the next in the queue comes. Never waits; any thread may call it.

        Raises RuntimeError when nobody has it.
        """
        self._room.end_reading()

    async def __aenter__(self) -> None:
        # `try_acquire` once more: a call would be a good part of what an uncontended read costs.
        if (left := self._left) and not self._queue:
            self._readers.append(None)
            if not self._queue:
                self._left = left - 1
                return
            self._room.end_reading()
        await self.acquire()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # `end_reading` once more, for the same reason.
        try:
            self._readers.pop()
        except IndexError:
            raise RuntimeError("release() of a lock that nobody has") from None
        if self._queue and not self._readers:
            self._room.serve()


@final
class WriteLock(_Side):
    """The lock for writing of an `RwLock`: one may have it, and only while nobody reads."""

    __slots__ = ()

    writes = True

    def locked(self) -> bool:
        """Whether `acquire` would wait: somebody reads or writes."""
        return bool(self._queue or self._readers)

    def try_acquire(self) -> bool:
        """Take it if nobody reads, writes or waits; tell whether it worked. Any thread may call it."""
        room = self._room
        queue, readers = self._queue, self._readers
        with room.section:
            if queue or readers:
                return False
            queue.append(_WRITING)
            if queue[0] is _WRITING and not readers:
                return True
            # Somebody came between. A reader who did may have looked before the mark was there, and stays.
            room.end_writing()
            room.section.run(room.serve_locked)
            return False

    def release(self) -> None:
        """Give it back, also after `downgrade`; the next in the queue comes. Never waits; any thread may call it.

        Raises RuntimeError when nobody has it.
        """
        if not self._room.end_writing():
            self._room.end_reading()
        elif self._queue:
            self._room.serve()

    def downgrade(self) -> None:
        """Go on as a reader, without letting go: no writer comes between. Only for who has it.

        Readers who stand first in the queue come in. The end of the block, or `release`, ends the reading.

        Raises RuntimeError when nobody writes.
        """
        self._readers.append(None)  # before the writer goes, so that no other one can come
        if not self._room.end_writing():
            self._room.end_reading()
            raise RuntimeError("downgrade() of a lock that nobody has for writing")
        if self._queue:
            self._room.serve()

    async def __aenter__(self) -> Self:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Itself, for `downgrade`."""
        if (left := self._left) and self.try_acquire():
            self._left = left - 1
        else:
            await self.acquire()
        return self

    def __enter__(self) -> Self:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """For plain threads; in a task, write `async with`."""
        self.blocking_acquire()
        return self
