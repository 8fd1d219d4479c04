"""Blocking pool: threads that make calls which would stop a loop.

Invariant: no call waits while a thread is idle or could be started. Who brings a call enters it *and then* looks for an
idle thread; a thread that goes idle says so *and then* looks for calls. A pool that is shut down takes no call; each
that it had taken is made, or dropped and said to be.

The threads serve all loops and plain threads, one after the other or at once. They are daemons, so a call that hangs
cannot hang the end of the program; an exit handler gives the others time to end.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
import threading
import weakref
from _thread import TIMEOUT_MAX, allocate_lock
from asyncio import CancelledError, _get_running_loop
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from dataclasses import dataclass
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar, final

from yamanote.runtime._call import (
    Call,
    CallHandle,
    current,
    current_token,
    forget_calls,
    inbox_of,
    name_of,
    require_function,
)
from yamanote.runtime._cancel import cancel_and_wait
from yamanote.runtime._join import JoinError, JoinHandle
from yamanote.runtime._waiter import refuse_loop_thread

__all__ = ["BlockingPool", "BlockingPoolStatistics", "PoolThread"]

T = TypeVar("T")
U = TypeVar("U")
P = ParamSpec("P")

_EXIT_SECONDS = 10.0

_logger = logging.getLogger("yamanote")


@dataclass(frozen=True)
class BlockingPoolStatistics:
    """What a `BlockingPool` was doing at one moment, and has done so far."""

    size: int
    """How many threads there may be."""
    threads: int
    """How many there are: those that are idle, and those that are busy."""
    idle: int
    busy: int
    abandoned: int
    """Those of the busy ones whose result nobody wants any more. They cannot be interrupted."""
    queued: int
    """Calls that wait for a thread. A cancelled one counts until a thread comes by."""
    completed: int
    """Calls that have been made so far, whatever came of them."""
    dropped: int
    """Calls that were cancelled before they began, as far as a thread has come by."""


@final
class BlockingPool:
    """Threads for calls that block, with a limit of their own: ``pool = BlockingPool(4, name="disk")``.

    `spawn_blocking` and `map_blocking` use one that all share, with 64 threads. A pool of your own keeps one kind of
    work from taking all of them, or limits how much of it is done at once.

    There are at most `size` threads. They are started as they are needed, and end when they have had nothing to do for
    `idle` seconds; they are called ``name-1``, ``name-2`` and so on. Calls beyond that wait their turn, first in, first
    out. The pool needs no loop to be made, and serves all.

    **Threads:** every method may be called from any thread.

    Raises ValueError for a `size` below 1 and for `idle` seconds below 0.

    >>> pool = BlockingPool(2, name="disk")
    >>> async def main():
    ...     return await pool.spawn(sum, [1, 2, 3]), await pool.map(len, ["a", "bc"])
    >>> run(main())
    (6, [1, 2])
    >>> pool.shutdown()
    []
    """

    __slots__ = (
        "__weakref__",
        "_calls",
        "_changing",
        "_closed",
        "_completed",
        "_dropped",
        "_ended",
        "_idle",
        "_idle_seconds",
        "_name",
        "_numbers",
        "_size",
        "_threads",
    )

    def __init__(self, size: int = 64, *, idle: float = 10.0, name: str = "yamanote-blocking") -> None:
        _check_count(size, "size")
        if not isinstance(idle, (int, float)):
            raise TypeError(f"idle must be a number of seconds, not {idle!r}")
        if not idle >= 0:
            raise ValueError(f"idle must be at least 0 seconds, not {idle!r}")
        self._size = size
        self._idle_seconds = min(idle, TIMEOUT_MAX)
        self._name = name
        self._numbers = count(1)
        self._closed = False
        self._completed = self._dropped = 0  # by threads that have ended
        self._begin()
        _pools.add(self)

    def _begin(self) -> None:
        """Without threads and calls: in the beginning, and in a forked child, which has none of the parent's."""
        self._calls: deque[Call[Any]] = deque()
        self._idle: list[PoolThread] = []
        self._threads: set[PoolThread] = set()
        self._changing = allocate_lock()  # only to start and to end threads
        self._ended = threading.Event()

    def spawn(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> JoinHandle[T]:
        """Call `function` in a thread of this pool, and return a handle at once; see `spawn_blocking`.

        It may be called where no loop runs, too: `JoinHandle.result` waits for the result in a plain thread.

        Raises TypeError for what cannot be called, RuntimeError when the pool has been shut down.
        """
        return self._submit(_get_running_loop(), function, args, kwargs)

    async def map(self, function: Callable[[T], U], items: Iterable[T], /, limit: int | None = None) -> list[U]:
        """Call `function` with each item in threads of this pool, and return the results in order; see `map_blocking`.

        At most `limit` calls are made at once; None means as many as the pool has threads.
        """
        require_function(function)
        if limit is not None:
            _check_count(limit, "limit")
        todo = deque(enumerate(items))
        results: list[Any] = [None] * len(todo)
        errors: list[BaseException] = []
        handles: list[JoinHandle[None]] = []
        context = copy_context()

        def work() -> None:
            # Each thread takes item after item: one thread to wake, and one result to wait for, for many calls.
            while True:
                try:
                    index, item = todo.popleft()
                except IndexError:
                    return
                try:
                    results[index] = context.copy().run(function, item)
                except BaseException as error:
                    if not isinstance(error, CancelledError):
                        errors.append(error)
                    elif not current_token().is_cancelled():  # else that is why: it was calling its loop
                        errors.append(JoinError(work.__qualname__))
                    todo.clear()
                    for handle in handles:
                        handle.abort()

        work.__qualname__ = name_of(function)  # for whoever has to tell of a call that does not end
        try:
            for _ in range(min(len(todo), self._size if limit is None else limit)):
                handles.append(self._submit(asyncio.get_running_loop(), work, (), {}))
            for handle in handles:
                await _end_of(handle)
        except BaseException:
            todo.clear()
            await cancel_and_wait(*handles)
            _report(errors)
            errors.clear()  # they refer to frames that refer to them
            raise
        if errors:
            _report(errors[1:])
            try:
                raise errors[0]
            finally:
                errors.clear()
        return results

    def shutdown(self, timeout: float | None = 10.0) -> list[str]:
        """Take no more calls, make those that have been asked for, and wait until all threads have ended.

        Blocks the calling thread for at most `timeout` seconds; None is for ever. What has not ended by then is left
        behind, named by a warning of the logger ``yamanote``, and returned, as ``"function() in thread"``: the token of
        a call in progress is cancelled, and a call that has not begun is dropped, so that who awaits it gets
        `JoinError`. May be called again.

        Raises RuntimeError in a thread that runs an event loop, which would stop (``await spawn_blocking(
        pool.shutdown)`` there), and in a thread of this pool.
        """
        refuse_loop_thread(timeout)
        if current.thread in self._threads:
            raise RuntimeError("a call of this pool cannot wait for the end of the pool")
        self._close()
        return self._end(timeout)

    def statistics(self) -> BlockingPoolStatistics:
        """What its threads are doing, and have done so far."""
        with self._changing:
            threads = list(self._threads)
            completed = self._completed + sum(thread.completed for thread in threads)
            dropped = self._dropped + sum(thread.dropped for thread in threads)
        calls = [call for thread in threads if (call := thread.call) is not None]
        return BlockingPoolStatistics(
            size=self._size,
            threads=len(threads),
            idle=len(threads) - len(calls),
            busy=len(calls),
            abandoned=sum(call.aborted for call in calls),
            queued=len(self._calls),
            completed=completed,
            dropped=dropped,
        )

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<BlockingPool {self._name!r} {state} threads={len(self._threads)} queued={len(self._calls)}>"

    def _submit(
        self,
        loop: asyncio.AbstractEventLoop | None,
        function: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> JoinHandle[T]:
        """`spawn` for `loop`, or for a plain thread, from any thread."""
        require_function(function)
        call = Call(function, args, kwargs, inbox_of(loop))
        unfinished = call.inbox.unfinished
        unfinished.add(call)  # first: from another thread than the loop's, it may have ended when `_enter` returns
        try:
            self._enter(call)
        except BaseException:
            call.claim()
            unfinished.discard(call)
            raise
        return CallHandle(call)

    def _enter(self, call: Call[Any]) -> None:
        """Queue `call`, and see to it that a thread takes it."""
        if self._closed:
            raise self._refusal()
        self._calls.append(call)
        try:
            thread = self._idle.pop()  # the one that was busy last: those that are not needed may end
        except IndexError:
            if len(self._threads) < self._size:
                self._start()
        else:
            thread.wake.put(None)

    def _work(self, thread: PoolThread) -> None:
        """What each thread does."""
        while True:
            try:
                call = self._calls.popleft()
            except IndexError:
                self._idle.append(thread)
            else:
                made = call.make(thread)
                if made:
                    thread.completed += 1
                else:
                    thread.dropped += 1
                rests = not self._calls
                if rests:
                    # Before anybody can know of the result: who waits for it often brings the next call at once, and
                    # shall find this thread, which is awake.
                    self._idle.append(thread)
                if made:
                    call.inbox.put(call)
                del call
                if not rests:
                    continue
            if not self._rest(thread):
                return

    def _close(self) -> None:
        """Take no more calls, and wake who sleeps: threads end when there is nothing left to do."""
        with self._changing:
            self._closed = True
            if not self._threads:
                self._ended.set()
        while self._idle:
            try:
                self._idle.pop().wake.put(None)
            except IndexError:  # it has just left of its own accord
                break

    def _end(self, timeout: float | None) -> list[str]:
        """Wait for the end of a pool that has been closed; name what is left behind."""
        threads = list(self._threads)
        if self._ended.wait(None if timeout is None else min(max(timeout, 0), TIMEOUT_MAX)):
            for thread in threads:
                thread.join()
            return []
        left = [call for thread in threads if (call := thread.call) is not None]
        while self._calls:
            try:
                left.append(self._calls.popleft())
            except IndexError:  # a thread was faster
                break
        names = sorted(call.where for call in left)
        for call in left:
            call.abort(f"the pool {self._name!r} has been shut down")
        if names:
            _logger.warning("%r was shut down, and leaves behind after %s seconds: %s", self, timeout, ", ".join(names))
        return names

    def _is_left_behind(self) -> bool:
        """Whether all that it still does was asked for by runtimes that have ended, and have waited and warned."""
        calls = [call for thread in list(self._threads) if (call := thread.call) is not None]
        calls += self._calls.copy()
        return bool(calls) and all(call.inbox.left_behind for call in calls)

    def _refusal(self) -> RuntimeError:
        return RuntimeError(f"the pool {self._name!r} has been shut down: it takes no more calls")

    def _start(self) -> None:
        with self._changing:
            if self._closed:
                raise self._refusal()
            if len(self._threads) >= self._size:
                return
            thread = PoolThread(self, f"{self._name}-{next(self._numbers)}")
            self._threads.add(thread)
        try:
            thread.start()
        except BaseException:
            with self._changing:
                self._threads.discard(thread)
                self._left(thread)
            if not self._threads:  # else one of the others will take the call
                raise

    def _rest(self, thread: PoolThread) -> bool:
        """Sleep until there may be work. False when `thread`, which is among the idle ones, is to end."""
        stay = bool(self._calls)
        if not stay and not self._closed:
            try:
                thread.wake.get(timeout=self._idle_seconds)
                return True
            except Empty:
                pass
        try:
            self._idle.remove(thread)
        except ValueError:  # it has been chosen meanwhile: its wake-up is on its way
            thread.wake.get()
            return True
        if stay:
            return True
        with self._changing:
            self._threads.discard(thread)
            # Whoever brought a call before this counted on this thread; whoever comes later can start another.
            if self._calls:
                self._threads.add(thread)
                return True
            self._left(thread)
        return False

    def _left(self, thread: PoolThread) -> None:
        """Keep the figures of a thread that is no longer the pool's; the last one tells who waits for the end."""
        self._completed += thread.completed
        self._dropped += thread.dropped
        if self._closed and not self._threads:
            self._ended.set()


@final
class PoolThread(threading.Thread):
    """One thread of a pool."""

    def __init__(self, pool: BlockingPool, name: str) -> None:
        # On 3.14 a thread may inherit the context of who starts it, and would keep it: each call brings its own.
        options: dict[str, Any] = {"context": Context()} if sys.version_info >= (3, 14) else {}
        super().__init__(name=name, daemon=True, **options)
        self._pool = pool
        # Not a lock: without the GIL, many that wait for theirs would spin beside those that work, see `ThreadWaiter`.
        self.wake: SimpleQueue[None] = SimpleQueue()
        self.call: Call[Any] | None = None
        """What it is doing."""
        self.completed = self.dropped = 0  # written by this thread only

    def run(self) -> None:
        current.thread = self
        self._pool._work(self)

    def __leak__(self) -> str | None:
        """Whether it has something to do, for `yamanote.testing.no_leaks`. A call counts before the thread has it."""
        return None if self in self._pool._idle else f"thread {self.name!r} goes on"


def _check_count(number: int, argument: str) -> None:
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{argument} must be a whole number, not {number!r}")
    if number < 1:
        raise ValueError(f"{argument} must be at least 1, not {number!r}")


async def _end_of(handle: JoinHandle[Any]) -> None:
    try:
        await handle
    except JoinError:
        pass


def _report(errors: list[BaseException]) -> None:
    loop = asyncio.get_running_loop()
    for error in errors:
        loop.call_exception_handler({"message": "a call of map_blocking() failed", "exception": error})


_pools: weakref.WeakSet[BlockingPool] = weakref.WeakSet()


def _end_all() -> None:
    """At the end of the program: let the threads finish what has been asked for, within reason."""
    pools = list(_pools)
    for pool in pools:
        pool._close()
    for pool in pools:
        if not pool._is_left_behind():
            pool._end(_EXIT_SECONDS)


def _forget_threads() -> None:
    # Only the thread that forked lives in the child.
    forget_calls()
    for pool in list(_pools):
        pool._begin()


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
