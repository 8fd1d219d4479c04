"""Critical section: mutual exclusion that finalizers may ask for as well.

Invariant: work that is handed to `run` is done exactly once, inside the section, and never in the middle of other
work; `run` never blocks. What is put into `afterwards` is called exactly once, outside of the section.

A finalizer, or the clean-up of a coroutine that is thrown away, can begin at any bytecode of any thread: also while
that very thread is inside, half-way through something. To wait for the lock there would be a dead-lock, and to go on
would find things half done. So it leaves its work here, and whoever is inside does it on the way out. No work can be
left lying: either who brings it gets the lock, or its holder has yet to look.
"""

from __future__ import annotations

import sys
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable
from threading import RLock

__all__ = ["CriticalSection"]

_PATIENCE = 1.0
"""Seconds. What is done inside takes microseconds."""


class CriticalSection:
    """A context manager for what needs more than one atomic operation. Never held across an await.

    Work that must not begin in the middle of other work, but may be brought by a finalizer that did, goes through
    `run`; inside a `with` block, that means at its end.
    """

    __slots__ = ("_acquire", "_afterwards", "_calling", "_depth", "_release", "_work")

    def __init__(self) -> None:
        lock = RLock()
        self._acquire = lock.acquire
        self._release = lock.release
        self._depth = 0  # how often the thread that is inside has entered
        # Nearly always empty, and seldom more than one: a list takes a tenth of the room of a deque.
        self._work: list[Callable[[], object]] = []
        self._afterwards: deque[Callable[[], object]] | None = None
        self._calling = allocate_lock()

    @property
    def afterwards(self) -> deque[Callable[[], object]]:
        """Calls into foreign code (hooks, destructors of items), which must not run inside. Append to it inside."""
        if self._afterwards is None:
            self._afterwards = deque()
        return self._afterwards

    def run(self, work: Callable[[], object]) -> bool:
        """Do `work` inside, as soon as nobody else is: now, or when whoever is inside leaves. Never blocks.

        Tells whether this very call is known to have done it.
        """
        if self._work or not self._acquire(False):
            self._work.append(work)
            self._catch_up()
            return False
        # `try_enter` and `leave` once more, without the calls: each hand-over comes through here.
        if self._depth:
            self._work.append(work)  # this very thread is inside, and does it on the way out
            self._release()
            return False
        self._depth = 1
        try:
            work()
        except Exception as error:
            _report(error)
        finally:
            self._depth = 0
            self._release()
            if self._work or self._afterwards:
                self._catch_up()
        return True

    def do(self, work: Callable[[], object]) -> None:
        """`run`, but wait for other threads: when this returns `work` is done, unless this very thread is inside."""
        # Whoever is inside for so long waits for this thread, through finalizers that began in two sections at once.
        if not self.run(work) and self._acquire(True, _PATIENCE):
            self._depth += 1
            self.leave()

    def try_enter(self) -> bool:
        """Enter, if nobody is inside, this thread included: then `leave` must follow. Otherwise there is `run`."""
        if not self._acquire(False):
            return False
        if self._depth:
            self._release()
            return False
        self._depth = 1
        return True

    def leave(self) -> None:
        """The end of `try_enter`."""
        work = self._work
        try:
            while work and self._depth == 1:
                _call(work.pop(0))
        finally:
            self._depth -= 1
            outermost = not self._depth
            self._release()
            if outermost and (work or self._afterwards):
                self._catch_up()

    def __enter__(self) -> None:
        self._acquire()
        self._depth += 1

    def __exit__(self, *exc_info: object) -> None:
        self.leave()

    def _catch_up(self) -> None:
        while self._work and self.try_enter():
            self.leave()
        # One at a time, and in a loop: a call may come back here, and would nest ever deeper.
        if (calls := self._afterwards) and not self._depth and self._calling.acquire(False):
            try:
                while calls:
                    _call(calls.popleft())
            finally:
                self._calling.release()
                self._catch_up()  # for who found this at it, and went; also when an interruption has ended it


def _call(work: Callable[[], object]) -> None:
    """Whoever does this work on the way out has not brought it, and must not get its error."""
    try:
        work()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a CancelledError would look like a cancellation of whoever is here by chance
        _report(error)


def _report(error: BaseException) -> None:
    sys.excepthook(type(error), error, error.__traceback__)
