"""Task tracker: how many are still at work, for a graceful end.

Invariant: whoever waits is woken at the first moment when the tracker is closed *and* empty, and stays woken whatever
happens after that. Nothing is kept of what has ended but that there is one less.
"""

from __future__ import annotations

import asyncio
import warnings
from collections import deque
from collections.abc import Awaitable
from contextvars import Context
from functools import partial
from types import TracebackType
from typing import Any, TypeVar, final

from yamanote.runtime._critical import CriticalSection
from yamanote.runtime._join import JoinHandle, when_done
from yamanote.runtime._spawn import spawn
from yamanote.runtime._waiter import Waiter, park, park_thread

__all__ = ["TaskTracker", "TaskTrackerToken"]

T = TypeVar("T")
TaskT = TypeVar("TaskT", bound="asyncio.Future[Any] | JoinHandle[Any]")


@final
class TaskTracker:
    """Counts tasks, and lets one wait until all have ended: ``tracker.close(); await tracker.wait()``.

    It owns nothing: it cancels no task, keeps no result, and takes no error from anybody. Closing it does not forbid to
    spawn: it says that from now on a count of zero is the end.

    **Threads:** every method may be called from any thread, and the tasks may run on any loops; `spawn` needs one.

    >>> from yamanote.runtime import TaskTracker, run
    >>> async def example():
    ...     tracker = TaskTracker()
    ...     for number in range(3):
    ...         tracker.spawn(asyncio.sleep(0))
    ...     tracker.close()
    ...     await tracker.wait()
    ...     return len(tracker)
    >>> run(example())
    0
    """

    __slots__ = ("_closed", "_count", "_section", "_waiters")

    def __init__(self) -> None:
        self._count = 0
        self._closed = False
        self._waiters: deque[Waiter[Any]] = deque()
        self._section = CriticalSection()  # finalizers withdraw waiters and release tokens

    def spawn(
        self, coro: Awaitable[T], /, *, name: str | None = None, context: Context | None = None, eager: bool = False
    ) -> JoinHandle[T]:
        """Start a task as `yamanote.runtime.spawn` does, and count it until it has ended."""
        with self.token():  # an eager one is counted from its first instruction on
            return self.track(spawn(coro, name=name, context=context, eager=eager))

    def track(self, task: TaskT, /) -> TaskT:
        """Count a task, future or handle, of any loop, until it has ended; return it."""
        if not isinstance(task, (asyncio.Future, JoinHandle)):
            raise TypeError(f"track() needs a task, a future or a JoinHandle, not {task!r}; start it first")
        future = task._future if isinstance(task, JoinHandle) else task
        leave = partial(self._leave, self._enter())
        if not when_done(future, leave):
            leave()  # its loop has been closed: it will never get any further
        return task

    def token(self) -> TaskTrackerToken:
        """Count what is no task, until the token is released: ``with tracker.token(): ...``."""
        return TaskTrackerToken(self)

    def close(self) -> None:
        """From now on a count of zero is the end. Closing again does nothing."""
        with self._section:
            self._closed = True
            self._wake_at_the_end()

    def reopen(self) -> None:
        """Take `close` back. Who was woken meanwhile stays so."""
        with self._section:
            self._closed = False

    def is_closed(self) -> bool:
        """Whether `close` was called, and not taken back."""
        return self._closed

    async def wait(self) -> None:
        """Wait until the tracker is closed and empty; at once, if it is.

        **Cancel safety:** nothing is lost. The tracker itself can take part in a `select`.
        """
        await park(self)

    def blocking_wait(self, timeout: float | None = None) -> bool:
        """Block the calling thread until the tracker is closed and empty, for at most `timeout` seconds; tell if it is.

        Raises RuntimeError in a thread that runs an event loop, unless it need not wait.
        """
        if self._count or not self._closed:
            try:
                park_thread(self, timeout)
            except TimeoutError:
                return False
        return True

    def __len__(self) -> int:
        """How many have not ended."""
        return self._count

    def register(self, waiter: Waiter[Any], /) -> None:
        with self._section:
            self._waiters.append(waiter)
            self._wake_at_the_end()

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        self._section.run(partial(self._withdraw, waiter))

    def _withdraw(self, waiter: Waiter[Any]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def _enter(self) -> list[None]:
        """Count one more. Who has the list may `_leave` once."""
        with self._section:
            self._count += 1
        return [None]

    def _leave(self, entry: list[None], _: object = None) -> None:
        try:
            entry.pop()
        except IndexError:  # it has left before
            return
        self._section.run(self._count_down)

    def _count_down(self) -> None:
        self._count -= 1
        self._wake_at_the_end()

    def _wake_at_the_end(self) -> None:
        if self._closed and not self._count:
            while self._waiters:
                self._waiters.popleft().hand(None)

    def __repr__(self) -> str:
        return f"<TaskTracker {'closed' if self._closed else 'open'} running={self._count}>"


@final
class TaskTrackerToken:
    """One more for a tracker to wait for, until the end of its ``with`` block, or until it is released."""

    __slots__ = ("_entry", "_tracker")

    def __init__(self, tracker: TaskTracker) -> None:
        self._tracker = tracker
        self._entry = tracker._enter()

    def release(self) -> None:
        """Count no more. Doing so again does nothing. **Threads:** may be called from any thread."""
        self._tracker._leave(self._entry)

    def __enter__(self) -> TaskTrackerToken:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def __del__(self) -> None:
        if self._entry:
            self.release()
            warnings.warn("a TaskTrackerToken was dropped, not released", ResourceWarning, stacklevel=1, source=self)
