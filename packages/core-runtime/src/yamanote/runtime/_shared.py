"""Shared: one run, and everybody who wants to know how it ends.

Invariant: a run begins when the first party asks, in a task of its own, and all get the one outcome. It is cancelled
when the last of those who await it is cancelled, unless it is to be kept, and that one waits for its end. What the run
itself has started is no reason to go on: it may wait for the run, but does not count.

`lru_cache` is a table of these; `shared`, `lazy` and `single_flight` of `yamanote.futures` are made of them, too.
"""

from __future__ import annotations

import asyncio
import weakref
from _thread import RLock
from asyncio import Task, _get_running_loop
from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar, copy_context
from inspect import iscoroutine
from types import TracebackType
from typing import Any, Generic, TypeVar, final

from yamanote.runtime._budget import BUDGET
from yamanote.runtime._cancel import cancel_and_wait
from yamanote.runtime._deadline import innermost as _innermost_deadline
from yamanote.runtime._join import JoinHandle
from yamanote.runtime._task import start_task
from yamanote.runtime._waiter import Waiter, park

__all__ = ["Shared"]

T = TypeVar("T")

_ABANDONED = "nobody waited for it any more"


@final
class Shared(Generic[T]):
    """One run of what `factory` returns, which any number of parties await, as often as they like.

    For people who build things; `lru_cache` here, and `shared`, `lazy` and `single_flight` of `yamanote.futures` are
    made of it. The run begins when somebody first awaits it, in a task of its own, with a copy of that one's context,
    but not bound by its deadlines. With `keep` it goes on to its end even if nobody waits for it any more. With `again`
    who asks after the run was cancelled, or lost with its loop, begins another. `factory` is called under a lock: it
    should only make what is to be awaited, as an async function does; when it raises an error itself, the next one to
    ask calls it again. A future, task or join handle that it returns is only observed.

    All get the same outcome: the value, or the very error that was raised, or JoinError when it was cancelled. An
    error that nobody ever asks for is reported once, by the exception handler of the loop. One that has ended is
    looked at without a loop turn, up to the cooperative budget.

    It is `Selectable`: a `select` begins it, and leaves it running when another branch wins. `async with` ends it with
    a block, for those who only select over it and for what is kept.

    Awaiting raises RuntimeError in the run itself, also by way of other shared runs that it awaits.

    **Cancel safety**: cancelling who awaits leaves the run to the others. With the last of them it is cancelled, unless
    it is kept, and their cancellation is raised when it has ended. Who asks from then on gets JoinError, or begins
    `again`: also while it is still cleaning up.

    **Threads**: it runs on the loop of the party that began it; others may wait for it from any loop or thread.

    Raises TypeError for a factory that cannot be called.

    >>> async def fetch():
    ...     print("fetch")
    ...     return "page"
    >>> async def main():
    ...     page = Shared(fetch)
    ...     return await asyncio.gather(page, page), await page
    >>> run(main())
    fetch
    (['page', 'page'], 'page')
    """

    __slots__ = ("__weakref__", "_again", "_budget", "_factory", "_keep", "_lock", "_name", "_run")

    def __init__(
        self, factory: Callable[[], Awaitable[T]], *, keep: bool = False, again: bool = False, name: str | None = None
    ) -> None:
        if not callable(factory):
            if iscoroutine(factory):
                factory.close()
            raise TypeError(f"factory must be a function without arguments, not {factory!r}")
        self._factory: Callable[[], Awaitable[T]] | None = factory
        self._keep = keep
        self._again = again
        self._name = name
        self._run: _Run[T] | None = None
        self._budget = BUDGET
        # Reentrant, because a coroutine that the garbage collector throws away leaves, wherever its thread is then.
        self._lock = RLock()

    def __await__(self) -> Generator[Any, None, T]:
        return self._wait(object())

    def join(self) -> Awaitable[T] | None:
        """Take part from now on, not only when it is awaited: for tables of runs. None when it is too late for that.

        Await at once what it returns. It is too late when the run has ended, all who waited for it were cancelled, or
        it was lost with its loop; one that has not begun begins.
        """
        party = object()
        with self._lock:
            run = self._run
            if run is not None and (run.task.done() or run.is_lost()):
                return None
            self._join(party)
        return _Seat(self, party)

    def _wait(self, party: object) -> Generator[Any, None, T]:
        run, caller = self._run, None
        try:
            # First whether it has ended, *then* whether it is lost: the last who waits may leave in between.
            if run is not None and run.task.done() and run is self._current():
                self._budget -= 1
                if self._budget < 0:
                    self._budget = BUDGET
                    yield
                return run.handle.result()
            caller = _run_of_this_task()
            run = self._join(party)
            if caller is not None and caller.closes_circle(run.inside):
                raise RuntimeError(f"{self!r} would wait for its own end")
            return (yield from run.handle.__await__())
        except BaseException as error:
            if run is not None and self._leave(run, party):
                if isinstance(error, GeneratorExit):  # thrown away: it cannot wait any more
                    run.handle.abort(_ABANDONED)
                else:
                    yield from cancel_and_wait(run.handle, reason=_ABANDONED).__await__()
            raise
        finally:
            if caller is not None:
                caller.awaits = None
            del self, run  # an error refers to this frame, and they to the error

    def is_finished(self) -> bool:
        """Whether it has ended; its clean-up too. False where the next one to ask would begin it `again`."""
        run = self._current()
        return run is not None and run.task.done()

    async def aclose(self) -> None:
        """Cancel the run, whoever waits for it, and wait until it has ended.

        The others get JoinError. The outcome of a run that has ended already stays what it was; one that has not begun
        never will, and to await it raises RuntimeError: then `factory` is called to close its coroutine, unless that
        could begin `again`. Raises RuntimeError in the run itself.

        **Cancel safety**: a cancelled call still waits for the run, then raises its own cancellation.
        """
        run = self._shut()
        if run is not None:
            await cancel_and_wait(run.handle, reason="it was closed")

    def _shut(self) -> _Run[T] | None:
        with self._lock:
            factory, self._factory = self._factory, None
            run = self._run
        if factory is not None and not self._again:
            unstarted = factory()  # made already, perhaps, and would warn that it was never awaited
            if iscoroutine(unstarted):
                unstarted.close()
        return run

    async def __aenter__(self) -> Shared[T]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not GeneratorExit:
            await self.aclose()
        elif (run := self._shut()) is not None:  # the coroutine is being thrown away, and cannot wait any more
            run.handle.abort("it was closed")

    def register(self, waiter: Waiter[Any], /) -> None:
        waiter.operation = None  # for `withdraw`, in case that it cannot begin
        self._join(waiter).handle.register(waiter)

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        # Still the one that it waited for: while somebody waits, none is replaced but one that was cancelled, and of
        # that there is nothing to give back.
        run = self._run
        if run is not None:
            run.parties.discard(waiter)
            run.handle.withdraw(waiter)

    def _current(self) -> _Run[T] | None:
        """The run, unless another is to begin."""
        run = self._run
        return None if run is not None and self._factory is not None and run.is_lost() else run

    def _join(self, party: object) -> _Run[T]:
        """Take part in the run, which begins if it has not."""
        with self._lock:
            run = self._current()
            if run is None:
                run = self._run = self._begin()
            if not run.includes_caller() and not run.task.done():
                run.parties.add(party)
            return run

    def _leave(self, run: _Run[T], party: object) -> bool:
        """Whether this was the last one, so that the run should end."""
        with self._lock:
            if party not in run.parties:
                return False
            run.parties.discard(party)  # it may end just now, on another thread
            if run.parties or run.abandoned or self._keep or run.task.done():
                return False
            run.abandoned = True
            return True

    def _begin(self) -> _Run[T]:
        factory = self._factory
        if factory is None:
            raise RuntimeError(f"{self!r} was closed before it had begun")
        if _get_running_loop() is None:
            raise RuntimeError(f"{self!r} begins on a running event loop, and none runs in this thread")
        awaitable = factory()
        # Awaiting a future passes a cancellation on to it. It belongs to somebody else: it is only parked on.
        if asyncio.isfuture(awaitable):
            awaitable = JoinHandle(awaitable)
        run = _Run(park(awaitable) if isinstance(awaitable, JoinHandle) else awaitable, self._name)
        if not self._again:
            self._factory = None
        return run

    def __repr__(self) -> str:
        run = self._run
        if run is None:
            state = "closed" if self._factory is None else "not begun"
        elif not run.task.done():
            state = f"running, {len(run.parties)} waiting"
        else:
            state = "cancelled" if run.task.cancelled() else "finished"
        return f"<Shared {self._name or hex(id(self))} {state}>"


@final
class _Run(Generic[T]):
    """A run, and who waits for it. Begins as soon as it is made."""

    __slots__ = ("abandoned", "handle", "inside", "parties", "task")

    def __init__(self, awaitable: Awaitable[T], name: str | None) -> None:
        self.inside = _Inside(_innermost.get())
        self.parties: set[object] = set()
        self.abandoned = False
        context = copy_context()
        context.run(_innermost.set, self.inside)
        context.run(_innermost_deadline.set, None)  # it goes on for others, who may have more time
        self.task: Task[T] = start_task(awaitable, name=name, context=context)
        self.task.add_done_callback(self._ended)
        self.handle = JoinHandle(self.task)
        self.inside.task = weakref.ref(self.task)

    def _ended(self, _: Task[T]) -> None:
        self.parties.clear()  # a waiter that was settled never leaves

    def is_lost(self) -> bool:
        """Whether there will be no outcome."""
        task = self.task
        return self.abandoned or (task.cancelled() if task.done() else task.get_loop().is_closed())

    def includes_caller(self) -> bool:
        """Whether the calling task was started by this run, or by what it has started."""
        inside = _innermost.get()
        while inside is not None and inside is not self.inside:
            inside = inside.outer
        return inside is not None


@final
class _Seat(Generic[T]):
    """What one party awaits that takes part already."""

    __slots__ = ("_party", "_shared")

    def __init__(self, shared: Shared[T], party: object) -> None:
        self._shared = shared
        self._party = party

    def __await__(self) -> Generator[Any, None, T]:
        return self._shared._wait(self._party)


@final
class _Inside:
    """Stands in the context of a run, and so of all that it starts; keeps neither the run alive nor its value."""

    __slots__ = ("_outer", "awaits", "task")

    task: weakref.ref[Task[Any]]

    def __init__(self, outer: _Inside | None) -> None:
        self._outer = outer
        self.awaits: _Inside | None = None
        """The run that its task awaits now."""

    @property
    def outer(self) -> _Inside | None:
        """The run that has started this one, unless that has ended: then the one around it."""
        while (outer := self._outer) is not None and ((task := outer.task()) is None or task.done()):
            self._outer = outer._outer
        return self._outer

    def closes_circle(self, run: _Inside) -> bool:
        """Note that the task awaits `run`. Whether that waits, by way of others, for this task."""
        self.awaits = run  # noted, *then* looked: of two threads that close a circle one sees it
        link: _Inside | None = run
        while link is not None and link is not self:
            link = link.awaits
        return link is not None


_innermost: ContextVar[_Inside | None] = ContextVar("_innermost", default=None)


def _run_of_this_task() -> _Inside | None:
    """The run whose own task this is. What it has started in other tasks need not hold it up."""
    inside = _innermost.get()
    return inside if inside is not None and inside.task() is asyncio.current_task() else None
