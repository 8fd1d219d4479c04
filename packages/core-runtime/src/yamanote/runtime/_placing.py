"""Placing: who starts what is spawned, in a runtime with several workers.

Invariant: a coroutine that is placed is started once, by one worker, or closed; from its first instruction on it stays
on that worker's loop. A worker starts what was spawned on it, oldest first, and takes half of another's backlog, oldest
first, when it has none left; what stands for many coroutines is split by who has taken it out. Nobody sleeps beside a
backlog that its owner does not come to: who places the second, or begins one while others are left, wakes an idle
worker; a worker that goes idle says so *and then* looks at all backlogs; and an idle one sees to a single coroutine.

What waits stays where it has begun, and to begin it takes no time. So a worker on which some have stayed gives of its
backlog to one that has clearly fewer tasks. What is given is not in a backlog, else the giver had it back before the
other has woken up; it is taken away only from one that does not come to it.

Placed coroutines stay where they are until a worker really comes to start them. So to wake one that turns out to be
busy costs nothing but the waking. What is shared by all workers is touched only when there is more to start than one
of them can. What workers read of each other's figures may be stale: nothing but the balance depends on it.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Coroutine, Iterator
from contextvars import Context, copy_context
from itertools import cycle
from typing import Any, Protocol, TypeVar

from yamanote.runtime._placed import Placed
from yamanote.runtime._task import on_loop, tasks_of

__all__ = ["Startable", "Starter"]

T = TypeVar("T")

_SLICE = 0.0001
"""Seconds in which a worker begins one coroutine after another, before what else is ready on its loop has its turn."""
_WHILE = 0.01
"""Seconds after which others see to what a worker has not come to."""


class Startable(Protocol):
    """Coroutines that were spawned, often just one."""

    @property
    def count(self) -> int:
        """How many they are."""
        ...

    @property
    def stretch(self) -> int:
        """How many to begin in one go, while others may have the rest."""
        ...

    def split(self, count: int, /) -> Startable | None:
        """Keep the first `count`, and return the others, if there are any."""

    def begin(self, loop: AbstractEventLoop, /) -> None:
        """Start them on `loop`, which is running here, unless they have been given up."""

    def give_up(self, reason: str | None, /) -> None:
        """They will not be started. From any thread."""


class Starter:
    """What a worker has to start, on its loop."""

    __slots__ = (
        "_beginning",
        "_context",
        "_gifts",
        "_idle",
        "_late",
        "_next_others",
        "_stopping",
        "_tasks",
        "_visits",
        "_watched",
        "_watching",
        "backlog",
        "ending",
        "given",
        "loop",
        "others",
        "pinned",
    )

    others: list[Starter]
    """In the order in which this one asks them for work."""
    _next_others: Iterator[Starter]

    def __init__(self, loop: AbstractEventLoop, idle: deque[Starter]) -> None:
        self.loop = loop
        self.backlog: deque[Startable] = deque()
        self.given: deque[Startable] = deque()  # by others
        self.pinned: deque[Startable] = deque()  # what nobody else may start
        self.ending = False
        self._idle = idle  # of all workers: who has nothing to start, the last to become so at the end
        self._beginning = False  # whether `_begin_some` runs, or is to run
        self._context = Context()  # for callbacks, which look at no variable
        self._stopping = False
        self._tasks = tasks_of(loop)  # those that have begun here, and not ended
        self._gifts = 0  # how many it may give, until another one stays here
        self._visits = 0  # how often it has come to begin something
        self._late = -1  # as many as its visits, if it does not come to what it was given
        self._watched = False  # whether somebody looks, in a while, at what is first in line here
        self._watching = False  # whether it is the one

    def meet(self, others: list[Starter]) -> None:
        """These are the other ones."""
        self.others = others
        self._next_others = cycle(others)

    # ---------------------------------------------------------------- placing, on the own loop

    def place(self, coroutine: Coroutine[Any, Any, T], name: str | None, context: Context | None) -> Placed[T]:
        """Have `coroutine`, which is spawned here, started by whichever worker is free first."""
        placed = Placed(coroutine, self.loop, name, copy_context() if context is None else context)
        self.backlog.append(placed)
        if not self._beginning:
            self._beginning = True
            self.loop.call_soon(self._begin_some, context=self._context)
            if not self._watched and self._idle:
                self._have_watched()
        elif self._idle:
            self._wake_another()
        return placed

    def place_all(self, several: Startable) -> None:
        """Have `several`, which are spawned here, started by whichever workers are free first."""
        self.backlog.append(several)
        if not self._beginning:
            self._beginning = True
            self.loop.call_soon(self._begin_some, context=self._context)
        if self._idle:
            self._wake_another()

    def place_on(
        self, worker: Starter, coroutine: Coroutine[Any, Any, T], name: str | None, context: Context | None
    ) -> Placed[T]:
        """Have `coroutine`, which is spawned here, started by `worker`."""
        placed = Placed(coroutine, self.loop, name, copy_context() if context is None else context)
        worker.pinned.append(placed)
        worker.wake()
        return placed

    # ---------------------------------------------------------------- beginning

    def wake(self) -> None:
        """Have it look for something to start. From any thread."""
        try:
            self.loop.call_soon_threadsafe(self._woken, context=self._context)
        except RuntimeError:  # closed
            self.give_up_backlog()
        if self._stopping:  # it may have looked for the last time
            self.give_up_backlog()

    def _woken(self) -> None:
        if not self._beginning:
            self._begin_some()

    def _begin_some(self) -> None:
        """Begin what there is, for a while. On the own loop, as a callback."""
        if self.ending:
            self._beginning = False
            self.give_up_backlog()
            return
        self._beginning = True
        self._visits += 1
        pinned, given, backlog = self.pinned, self.given, self.backlog
        idle, loop, tasks = self._idle, self.loop, self._tasks
        time = loop.time
        end = time() + _SLICE
        stayed = len(tasks)
        while True:
            if self._gifts and backlog:
                self._give()
            line = pinned or given or backlog
            try:
                startable = line.popleft()
            except IndexError:
                if self._take_from_others() or not self._go_idle():
                    continue
                self._beginning = False
                return
            if startable.count > 1 and (rest := startable.split(startable.stretch)) is not None:
                line.appendleft(rest)
            if backlog and idle:
                self._wake_another()
            try:
                startable.begin(loop)
            except BaseException:  # what stops the loop
                loop.call_soon(self._begin_some, context=self._context)
                raise
            if len(tasks) > stayed:
                stayed = len(tasks)
                self._gifts = 4 + stayed // 4
            if time() >= end:
                loop.call_soon(self._begin_some, context=self._context)
                return

    def _take_from_others(self) -> bool:
        for other in self.others:
            if other.backlog and _move_half(other.backlog, self.backlog):
                if other.backlog and self._idle:  # its owner may have looked while we held all of it
                    self._wake_another()
                return True
        return False

    def _go_idle(self) -> bool:
        """Say that there is nothing to start here. False if there is something after all."""
        idle = self._idle
        if self not in idle:
            idle.append(self)
        if self.pinned or self.given or self.backlog:  # what was given may have been taken back meanwhile
            return False
        for other in self.others:
            if other.backlog:
                return False
            if other.given:
                self._watch()
        return True

    def _wake_another(self) -> None:
        """Wake an idle worker, and more of them until one has been asleep: others may be busy with what they run."""
        while True:
            try:
                other = self._idle.pop()
            except IndexError:
                return
            if other is self:
                continue
            asleep = _is_asleep(other)
            other.wake()
            if asleep:
                return

    # ---------------------------------------------------------------- the balance of what stays

    def _load(self) -> int:
        return len(self._tasks) + _count(self.backlog) + _count(self.given)

    def _give(self) -> None:
        """Give of the backlog to the next of the others, if that has clearly less.

        How much is paid for by what has stayed here: a program whose coroutines end at once does not pay for journeys.
        """
        other = next(self._next_others)
        mine, theirs = self._load(), other._load()
        if other._late == other._visits or 4 * mine <= 5 * theirs + 16:
            self._gifts = 0
            return
        self._gifts -= _move(self.backlog, other.given, min(self._gifts, (mine - theirs) // 2))
        other.wake()
        if not self._watched:
            self._have_watched(other)

    # ---------------------------------------------------------------- what its owner does not come to

    def _have_watched(self, receiver: Starter | None = None) -> None:
        """Have an idle worker look, in a while, whether this one, and `receiver`, have come to what they have."""
        idle = [other for other in self._idle.copy() if other is not self and other is not receiver]
        watcher = max(idle, key=_is_asleep, default=self)
        self._watched = watcher is not self  # it may not come to that itself; who goes idle from now on sees it
        on_loop(watcher.loop, watcher._watch)

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            self.loop.call_later(_WHILE, self._look, self._waited_for(), context=self._context)

    def _look(self, before: dict[Starter, int]) -> None:
        """Take from those that had something to begin when this one began to watch, and have not come to it."""
        self._watching = False
        for worker in (self, *self.others):
            worker._watched = False
        now = self._waited_for()  # looked at after that: who still read that it was watched has placed before
        if self.ending or not now:
            return
        self._watch()
        for other, visits in now.items():
            if before.get(other) == visits:
                if _move(other.given, self.backlog, other.waiting()):
                    other._late = visits
                _move_half(other.backlog, self.backlog)
        if self.backlog:
            self._woken()

    def _waited_for(self) -> dict[Starter, int]:
        """The others that have something to begin, and how often each has come."""
        return {other: other._visits for other in self.others if other.given or other.backlog}

    # ---------------------------------------------------------------- from any thread

    def waiting(self) -> int:
        """How many coroutines have been spawned here, or for here, and not started."""
        return sum(startable.count for line in self._lines() for startable in line.copy())

    def give_up_backlog(self) -> None:
        """Cancel what has not been started."""
        for line in self._lines():
            while (startable := _pop(line)) is not None:
                startable.give_up("the runtime was shut down before")

    def _lines(self) -> tuple[deque[Startable], ...]:
        return self.pinned, self.given, self.backlog


def _pop(line: deque[Startable]) -> Startable | None:
    try:
        return line.popleft()
    except IndexError:  # others are quicker
        return None


def _count(line: deque[Startable]) -> int:
    """How many coroutines there are: at least so many, for only the first one is asked."""
    try:
        return line[0].count + len(line) - 1
    except IndexError:
        return 0


def _move(source: deque[Startable], target: deque[Startable], count: int) -> int:
    """Move the first `count` coroutines, or as many as there are; tell how many."""
    left = count
    while left > 0 and (startable := _pop(source)) is not None:
        if (rest := startable.split(left)) is not None:
            source.appendleft(rest)
        left -= startable.count
        target.append(startable)
    return count - left


def _move_half(source: deque[Startable], target: deque[Startable]) -> int:
    return _move(source, target, (_count(source) + 1) // 2)


def _is_asleep(worker: Starter) -> bool:
    return not (worker._beginning or getattr(worker.loop, "_is_awake", False))
