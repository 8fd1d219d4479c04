"""Leaks: what a block leaves behind.

Invariant: reported is what began to leak inside the block and can still be reached at its end: tasks that have not
ended, waiters that nobody waits with any more, threads that go on, and whatever says of itself, through `__leak__`,
that it is not finished with. What was leaking when the block began is not its fault.

Cost: two looks at every object that the garbage collector knows, each a tenth of a microsecond or two; the collector
itself runs only when something looks like a leak. What is watched pays nothing.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import tracemalloc
import weakref
from collections import deque
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from itertools import compress
from types import FrameType
from typing import Any, Protocol, TypeGuard, runtime_checkable

from yamanote.runtime import TaskWaiter, ThreadWaiter, describe

__all__ = ["Inventory", "Leak", "LeakError", "no_leaks"]

_LOOKS = 100
_BETWEEN_LOOKS = 0.01
"""Seconds. A thread that was told to end, or has just made its call, gets a moment to do so."""

# Where the threads of the standard pool wait for work: they are kept on purpose. Ours tell it themselves.
_IDLE = ("concurrent.futures.thread", "_worker")


class LeakError(AssertionError):
    """Something was left behind."""

    leaks: tuple[str, ...]
    """Each in words: what it is, and where."""

    def __init__(self, *leaks: str) -> None:
        super().__init__(*leaks)
        self.leaks = leaks

    def __str__(self) -> str:
        return "left behind:\n" + "\n".join(f"- {leak}" for leak in self.leaks)


@runtime_checkable
class Leak(Protocol):
    """What `no_leaks` asks of any object, of any class, that has this method."""

    def __leak__(self) -> str | None:
        """What is left to do, in words, such as "<Connection to …> was not closed"; None when nothing is."""


@contextmanager
def no_leaks() -> Iterator[None]:
    """Raise `LeakError` when the block leaves something behind: ``with no_leaks(): ...``.

    That is tasks, on any loop, that have not ended; channel ends and ends of a `duplex` that have not been closed;
    permits that have not been used, locks and semaphores that are still held; waiters that are still registered though
    nobody waits with them; and threads, except for those of a pool that are idle. Classes of your own can take part:
    see `Leak`.

    What is leaking when the block begins is left out, and so is everything when the block raises. A task that was
    cancelled, but has not ended yet, is left behind: await it. What nobody refers to any more is not there to be found,
    but ends of channels say so themselves, with a ResourceWarning.

    Run Python with ``-X tracemalloc`` to be told where things were made.

    **Threads:** nothing else should be starting or ending things meanwhile.

    >>> async def main():
    ...     with no_leaks():
    ...         task = asyncio.create_task(asyncio.sleep(3600), name="forgotten")
    >>> try:
    ...     run(main())
    ... except LeakError as error:
    ...     assert "forgotten" in str(error)
    """
    before = Inventory()
    yield
    if leaks := before.new_leaks():
        raise LeakError(*leaks)


class Inventory:
    """What leaks now, for later comparison."""

    def __init__(self) -> None:
        self._things = {id(thing): _reference(thing) for thing in _leaking()}
        self._threads = _busy(())  # one of a pool that is idle now may be busy then

    def new_leaks(self) -> list[str]:
        """What leaks now and did not leak then, in words."""
        if not any(map(self._is_new, _leaking())) and not _busy(self._threads):
            return []
        gc.collect()  # what nobody can reach is not left behind
        for _ in range(_LOOKS):
            if not (busy := _busy(self._threads)):
                break
            busy[0].join(_BETWEEN_LOOKS)
        things = [thing for thing in filter(self._is_new, _leaking()) if _is_certain(thing)]
        return [*map(_describe, things), *map(_describe_thread, _busy(self._threads))]

    def _is_new(self, thing: object) -> bool:
        reference = self._things.get(id(thing))  # perhaps of another one, which stood in the same place of the memory
        return reference is None or reference() is not thing


def _leaking() -> list[Any]:
    """All that leaks now."""
    things = gc.get_objects()
    kinds = list(map(type, things))
    if any(meta.__hash__ is None for meta in set(map(type, kinds))):  # its classes cannot be put into a set
        things = [thing for thing in things if type(type(thing)).__hash__ is not None]
        kinds = list(map(type, things))
    watched = set(filter(_is_watched, set(kinds)))
    # There are very many things. This way, no line of Python is run for those that are not watched.
    return [thing for thing in compress(things, map(watched.__contains__, kinds)) if _leaks(thing)]


def _is_watched(kind: type) -> bool:
    if issubclass(kind, threading.Thread):  # these are looked at by themselves: they get a moment to end
        return False
    return issubclass(kind, _WATCHED) or any("__leak__" in vars(base) for base in kind.__mro__)


_WATCHED = (asyncio.Task, TaskWaiter, ThreadWaiter)


def _leaks(thing: Any) -> bool:
    if isinstance(thing, asyncio.Task):
        return not thing.done()
    if _is_waiter(thing):
        return _is_forsaken(thing)
    return thing.__leak__() is not None


def _is_waiter(thing: object) -> TypeGuard[TaskWaiter[Any] | ThreadWaiter[Any]]:
    return isinstance(thing, (TaskWaiter, ThreadWaiter))


def _is_forsaken(waiter: TaskWaiter[Any] | ThreadWaiter[Any]) -> bool:
    """Whether it was handed nothing, and nobody waits with it."""
    if getattr(waiter, "settled", True):  # or is just being made, in another thread
        return False
    if not waiter.is_waiting():
        return True
    # A party that is waiting shows as a task, or as a thread.
    if not isinstance(waiter, TaskWaiter):
        return False
    return waiter._future is None or not getattr(waiter._future, "_callbacks", True)


def _is_certain(thing: Any) -> bool:
    """A forsaken waiter may still be known to the frames of an error: it is left behind if it stands in a queue."""
    return not _is_waiter(thing) or any(isinstance(place, deque) for place in gc.get_referrers(thing))


def _busy(before: Container[threading.Thread]) -> list[threading.Thread]:
    """The threads that go on, except for those of a pool that are waiting for work."""
    frames = sys._current_frames()
    return [
        thread
        for thread in threading.enumerate()
        if thread not in before and not isinstance(thread, threading._DummyThread) and not _is_idle(thread, frames)
    ]


def _is_idle(thread: threading.Thread, frames: dict[int, FrameType]) -> bool:
    if isinstance(thread, Leak):
        return thread.__leak__() is None
    frame = frames.get(thread.ident or 0)
    return frame is not None and (frame.f_globals.get("__name__"), frame.f_code.co_name) == _IDLE


def _describe(thing: Any) -> str:
    if isinstance(thing, asyncio.Task):
        words = describe(thing)
    elif _is_waiter(thing):
        words = f"{thing!r} is still registered, though nobody waits with it"
    else:
        words = thing.__leak__()
    made = tracemalloc.get_object_traceback(thing)
    return words if made is None else f"{words}, made at {made[-1]}"


def _describe_thread(thread: threading.Thread) -> str:
    frames: list[str] = []
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_globals.get("__name__") != "threading":
            frames.append(f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}")
        frame = frame.f_back
    # The outermost frame is the function of the thread.
    return f"thread {thread.name!r} goes on{'' if not frames else ', in ' + frames[-1]}"


def _reference(thing: Any) -> Callable[[], object]:
    """Weak where that can be: a check keeps nothing alive that the block drops."""
    try:
        return weakref.ref(thing)
    except TypeError:
        return lambda: thing
