"""Event loops whose ready queue can be edited.

Invariant: an element of the ready queue is handed out as it is and goes back as it was; where it stands in the queue is
the only thing that changes. Taking some out in the middle of a turn ends the turn earlier, no more.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import Handle
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Any, NoReturn, TypeVarTuple

from yamanote.runtime._scheduling import move, whole_number

__all__ = [
    "SchedulingEventLoopPolicy",
    "SchedulingMixin",
    "SchedulingProactorEventLoop",
    "SchedulingSelectorEventLoop",
    "event_loop_policy",
]

Ts = TypeVarTuple("Ts")


class SchedulingMixin(asyncio.AbstractEventLoop):
    """Control over the ready queue, for loops of asyncio's making: ``class Loop(SchedulingMixin, EventLoop)``.

    The queue holds what is ready to run, steps of tasks and callbacks, in order: place 0 runs next. Who is running is
    not in it. Places are those of lists, negative ones count from the end.

    An element that is taken out and not put back never runs: a task would wait for ever.

    **Threads:** for the thread of the loop, in tasks and in callbacks.

    >>> async def main():
    ...     loop, log = asyncio.get_running_loop(), []
    ...     loop.call_soon(log.append, "first")
    ...     loop.call_insert(0, log.append, "before it")
    ...     await asyncio.sleep(0)
    ...     return log
    >>> run(main(), loop_factory=SchedulingSelectorEventLoop)
    ['before it', 'first']
    """

    _ready: deque[Any]

    def ready_len(self) -> int:
        """How many elements the ready queue has."""
        return len(self._ready)

    def ready_pop(self, pos: int = -1) -> object:
        """Take an element out of the ready queue, by default the last. Raises IndexError if there is none."""
        element: object = self._ready[pos]
        del self._ready[pos]
        return element

    def ready_insert(self, pos: int, element: object) -> None:
        """Put an element from `ready_pop` back, at place `pos`. Raises TypeError for anything else."""
        if not isinstance(element, (Handle, tuple)):
            raise TypeError(f"element must come from ready_pop(), which never returns {element!r}")
        self._ready.insert(pos, element)

    def ready_rotate(self, n: int) -> None:
        """Move the last `n` elements to the front; with a negative number the first ones to the end."""
        self._ready.rotate(n)

    def call_insert(
        self, pos: int, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> Handle:
        """`call_soon` at place `pos` of the ready queue."""
        pos = whole_number(pos, "pos")
        handle = self.call_soon(callback, *args, context=context)
        move(self._ready, lambda entry: entry is handle, pos)
        return handle

    def _run_once(self) -> None:
        try:
            super()._run_once()  # type: ignore[misc]
        except IndexError:
            # asyncio has counted what is ready, and then a callback took some of it out. What callbacks raise does not
            # come here.
            if self._ready:
                raise


class SchedulingSelectorEventLoop(SchedulingMixin, asyncio.SelectorEventLoop):
    """asyncio's selector loop with control over its ready queue; for `loop_factory`."""


if sys.platform == "win32":

    class SchedulingProactorEventLoop(SchedulingMixin, asyncio.ProactorEventLoop):
        """asyncio's proactor loop, of Windows, with control over its ready queue. Elsewhere it cannot be made."""

else:

    class SchedulingProactorEventLoop:
        """asyncio's proactor loop, of Windows, with control over its ready queue. Elsewhere it cannot be made."""

        def __init__(self) -> NoReturn:
            raise RuntimeError("SchedulingProactorEventLoop needs Windows: use SchedulingSelectorEventLoop here")


if sys.version_info < (3, 14):

    class SchedulingEventLoopPolicy(asyncio.DefaultEventLoopPolicy):
        """A policy that makes scheduling loops: ``asyncio.set_event_loop_policy(SchedulingEventLoopPolicy())``.

        Python 3.14 deprecates policies, so from there on it cannot be made: `loop_factory` works everywhere.
        """

        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            """A proactor loop on Windows, a selector loop elsewhere."""
            if sys.platform == "win32":
                return SchedulingProactorEventLoop()
            return SchedulingSelectorEventLoop()

    @contextmanager
    def event_loop_policy(policy: asyncio.AbstractEventLoopPolicy | None = None) -> Iterator[None]:
        """Have `policy`, by default a `SchedulingEventLoopPolicy`, within the block, and then the one from before.

        Raises RuntimeError from Python 3.14 on, which deprecates policies: `loop_factory` works everywhere.
        """
        before = asyncio.get_event_loop_policy()
        asyncio.set_event_loop_policy(SchedulingEventLoopPolicy() if policy is None else policy)
        try:
            yield
        finally:
            asyncio.set_event_loop_policy(before)

else:
    _NO_POLICY = "Python deprecates event loop policies: run(..., loop_factory=SchedulingSelectorEventLoop)"

    class SchedulingEventLoopPolicy:
        """A policy that makes scheduling loops, up to Python 3.13: `loop_factory` works everywhere."""

        def __init__(self) -> NoReturn:
            raise RuntimeError(_NO_POLICY)

    def event_loop_policy(policy: object = None) -> NoReturn:
        """A block with another event loop policy, up to Python 3.13: `loop_factory` works everywhere."""
        raise RuntimeError(_NO_POLICY)
