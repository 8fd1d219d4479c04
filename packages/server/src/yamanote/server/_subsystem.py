"""Subsystem: a part of a program that is told to stop when it is its turn, and what it is started in.

Invariant: a parent is told to stop when every child that it had when its turn came has ended, and the children are told
one after the other, the youngest first. A subsystem has ended when its function has, the tasks that its tracker counts
have, and its children have; then, and only then, comes the turn of the next. After a deadline nobody has a turn any
more: all who are left are cancelled at once, and waited for.

All of this happens in callbacks of one loop, and no step waits for another: no cancellation of anybody who waits for a
stop can keep it from going on.
"""

from __future__ import annotations

import asyncio
import inspect
from abc import ABC, abstractmethod
from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVarTuple, Unpack, final

from yamanote.runtime import CancellationToken, JoinError, TaskTracker, require_function, shield_wait, start_task
from yamanote.server._seconds import require_seconds

if TYPE_CHECKING:  # its module needs this one
    from yamanote.server._shutdown import Shutdown

__all__ = ["ErrorPolicy", "Parent", "Subsystem", "require_policy"]

Ts = TypeVarTuple("Ts")

ErrorPolicy: TypeAlias = Literal["shutdown", "report"]


class Parent(ABC):
    """What subsystems are started in: a `Shutdown`, or another `Subsystem`."""

    __slots__ = ("__weakref__", "_children", "_is_cut", "_loop", "_on_error", "_order", "_reason", "_root")

    _loop: asyncio.AbstractEventLoop
    _root: Shutdown

    def __init__(self, on_error: ErrorPolicy) -> None:
        self._on_error: ErrorPolicy = on_error
        self._children: dict[Subsystem, None] = {}  # those that have not ended, in the order in which they were started
        self._order: list[Subsystem] | None = None  # those whose turns are to come; None until it is ours
        self._reason: str | None = None
        self._is_cut = False  # all in here were cancelled, and so is whoever comes yet

    def spawn(
        self,
        function: Callable[[Subsystem, Unpack[Ts]], Awaitable[object]],
        /,
        *args: *Ts,
        name: str | None = None,
        timeout: float | None = None,
        on_error: ErrorPolicy | None = None,
    ) -> Subsystem:
        """Start ``function(subsystem, *args)`` as a subsystem in this one, in a task of this loop; return it at once.

        Its `name` is that of the function if nothing is said. `timeout` is how many seconds it may take to stop, with
        all that is nested in it, from its turn on; None for as long as the whole shutdown has. `on_error` is that of
        its parent, unless it is given.

        Where the stop has begun already, it is told to stop from its beginning; where all have been cancelled, after
        the deadline, so is it.

        Raises TypeError and ValueError for arguments that make no sense, RuntimeError when the parent has ended, or
        belongs to another loop.
        """
        return self._begin(function, args, name, timeout, on_error, None)

    async def start(
        self,
        function: Callable[[Subsystem, Unpack[Ts]], Awaitable[object]],
        /,
        *args: *Ts,
        name: str | None = None,
        timeout: float | None = None,
        on_error: ErrorPolicy | None = None,
    ) -> Subsystem:
        """`spawn`, and wait until the function has called ``subsystem.started()``.

        What it raises before is raised here, when everything that it has started in itself has ended, and nowhere else.

        Raises RuntimeError when it ends without having called it, JoinError when it is cancelled before, and what
        `spawn` raises.

        **Cancel safety:** when the call is cancelled, so is the subsystem, even if it has just become ready; the
        cancellation goes on when it has ended.
        """
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        subsystem = self._begin(function, args, name, timeout, on_error, ready)
        try:
            await ready
            return subsystem
        except CancelledError:
            failure = None if ready.cancelled() else ready.exception()
            if failure is not None:  # it was on its way here
                subsystem._report(failure)
            subsystem._cut("its start was cancelled")
            await shield_wait(subsystem._ended)
            raise
        except GeneratorExit:  # thrown away, and cannot wait any more
            subsystem._cut("its start was cancelled")
            raise
        finally:
            failure = None
            del ready  # an error refers to this frame, and would refer to itself through it

    def _begin(
        self,
        function: Callable[..., Awaitable[object]],
        args: tuple[Any, ...],
        name: str | None,
        timeout: float | None,
        on_error: ErrorPolicy | None,
        ready: asyncio.Future[None] | None,
    ) -> Subsystem:
        require_function(function)
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a string or None, not {name!r}")
        require_seconds("timeout", timeout, none="no deadline")
        if on_error is not None:
            require_policy(on_error)
        self._require_open()
        name = _name_of(function) if name is None else name
        subsystem = Subsystem(self, function, args, name, timeout, on_error or self._on_error, ready)
        self._children[subsystem] = None
        if self._is_cut:
            subsystem._cut(self._reason)
        elif self._order is not None:
            subsystem._begin_stop(self._reason)
        return subsystem

    def _require_open(self) -> None:
        """Raise RuntimeError unless this takes children, and from here."""
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError(f"{self!r} belongs to another event loop")

    # ---------------------------------------------------------------- stopping, child after child

    def _stop_children(self, reason: str | None) -> None:
        if self._order is None:
            self._reason = reason
            self._order = list(self._children)
            self._go_on()

    def _go_on(self) -> None:
        order = self._order
        if order is None:
            return
        while order and order[-1] not in self._children:  # it has ended
            order.pop()
        if order:
            order[-1]._begin_stop(self._reason)
        else:
            self._children_stopped()

    @abstractmethod
    def _children_stopped(self) -> None:
        """Those that were there when the turn came have ended."""

    def _child_ended(self, child: Subsystem) -> None:
        del self._children[child]
        self._go_on()
        self._check()

    @abstractmethod
    def _check(self) -> None:
        """Something has ended: look whether that was the last."""

    def _cut(self, reason: str | None) -> None:
        """Cancel all that is left."""
        self._is_cut = True
        self._reason = reason
        self._order = []
        for child in reversed(list(self._children)):
            child._cut(reason)

    def _unfinished(self) -> tuple[list[Parent], list[Parent]]:
        """Those who are at work in it: who have been told, and whose turn has not come."""
        told: list[Parent] = []
        waiting: list[Parent] = []
        for child in reversed(self._children):
            for parts, more in zip((told, waiting), child._unfinished(), strict=True):
                parts += more
        return told, waiting

    @property
    @abstractmethod
    def _called(self) -> str:
        """How it is called in messages."""


@final
class Subsystem(Parent):
    """A part of a program, for its function, and for whoever has started it. Made by `spawn` and `start` only.

    Its function does its work until `token` is cancelled, cleans up, and returns. What it spawns in here is nested:
    that stops before it does. One that returns early has just ended, when all that is nested in it has. One that fails,
    or is cancelled, stops what is nested in it.

    All methods are for the loop of the `Shutdown`; `token` and `tracker` are for all threads.

    >>> async def worker(subsystem: Subsystem, name: str) -> None:
    ...     await subsystem.stopping()
    ...     print(name, "stops")
    >>> async def main() -> None:
    ...     async with Shutdown() as shutdown:
    ...         database = shutdown.spawn(worker, "database")
    ...         shutdown.spawn(worker, "web")
    ...         shutdown.begin("closing time")
    >>> run(main())
    web stops
    database stops
    """

    __slots__ = (
        "_cancelled",
        "_ended",
        "_failure",
        "_parent",
        "_ready",
        "_started",
        "_task",
        "_timeout",
        "_timer",
        "name",
        "token",
        "tracker",
    )

    name: str
    token: CancellationToken
    """Cancelled when it is its turn to stop."""
    tracker: TaskTracker
    """What it counts is waited for, until the subsystem is cancelled. It owns nothing: then its tasks go on."""

    def __init__(
        self,
        parent: Parent,
        function: Callable[..., Awaitable[object]],
        args: tuple[Any, ...],
        name: str,
        timeout: float | None,
        on_error: ErrorPolicy,
        ready: asyncio.Future[None] | None,
    ) -> None:
        super().__init__(on_error)
        self.name = name
        self.token = CancellationToken()
        self.tracker = TaskTracker()
        self._loop = parent._loop
        self._root = parent._root
        self._parent = parent
        self._timeout = timeout
        self._timer: asyncio.TimerHandle | None = None
        self._ready = ready  # for whoever waits in `start`
        self._started = False
        self._failure: BaseException | None = None
        self._cancelled = False
        self._ended: asyncio.Future[None] = parent._loop.create_future()
        self._task = start_task(self._follow(function, args), name=name)
        self._task.add_done_callback(self._task_done)

    @property
    def shutdown(self) -> Shutdown:
        """What it belongs to: ``subsystem.shutdown.begin("reason")`` stops the whole program."""
        return self._root

    @property
    def running(self) -> bool:
        """Whether it has not ended, with all that is nested in it and the tasks of its tracker."""
        return not self._ended.done()

    def started(self) -> None:
        """I am ready: `start` returns. For one that was spawned it says nothing.

        Raises RuntimeError when it has been called before.
        """
        if self._started:
            raise RuntimeError("started() can be called only once")
        self._started = True
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    async def stopping(self) -> None:
        """Wait until it is time to stop. The same as ``token.cancelled()``."""
        await self.token.cancelled()

    async def stop(self, reason: str | None = None) -> None:
        """Stop this one and all that is nested in it, and nothing else; wait until it has ended. It may be repeated.

        Raises RuntimeError in the subsystem itself, and in what is nested in it: these would wait for themselves.

        **Cancel safety:** when the call is cancelled, the stop goes on.
        """
        self._require_outside("stop")
        self._begin_stop(reason)
        await asyncio.shield(self._ended)

    async def wait(self) -> None:
        """Wait until it has ended, with all that is nested in it. How it ended is not told: errors go elsewhere.

        Raises RuntimeError where `stop` does.

        **Cancel safety:** cancelling this call does nothing to the subsystem.
        """
        self._require_outside("wait")
        await asyncio.shield(self._ended)

    # ---------------------------------------------------------------- its function

    async def _follow(self, function: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        try:
            work: Any = function(self, *args)
            if not inspect.isawaitable(work):
                raise TypeError(f"function must be async, but {_name_of(function)} returned {work!r}")
            await work
        except CancelledError as error:
            self._cancelled = True
            self._begin_stop(str(error) or f"{self.name!r} was cancelled")
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._failed(error)
        finally:
            del function, args
            self.tracker.close()
        if not self._cancelled:
            try:
                await self.tracker.wait()
            except CancelledError as error:
                self._begin_stop(str(error) or f"{self.name!r} was cancelled")

    def _failed(self, error: BaseException) -> None:
        if self._ready is not None and not self._ready.done():
            self._failure = error  # for `start`, when all has ended
        else:
            self._report(error)
        self._begin_stop(f"{self.name!r} failed")

    def _report(self, error: BaseException) -> None:
        self._root._failed(error, self.name, self._on_error)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self.tracker.close()  # it may have been cancelled before its first instruction
        if not task.cancelled():
            task.exception()  # a KeyboardInterrupt, which has left the loop already
        self._check()

    # ---------------------------------------------------------------- its end

    def _begin_stop(self, reason: str | None) -> None:
        """Its turn has come."""
        if self._order is not None or self._ended.done():
            return
        if self._timeout is not None:
            self._timer = self._loop.call_later(self._timeout, self._expire, self._timeout)
        self._stop_children(reason)

    def _children_stopped(self) -> None:
        self.token.cancel(self._reason)

    def _check(self) -> None:
        if self._children or not self._task.done() or self._ended.done():
            return
        if self._timer is not None:
            self._timer.cancel()
        self._ended.set_result(None)
        self._settle()
        self._parent._child_ended(self)

    def _settle(self) -> None:
        """Tell `start` that there is nothing to wait for any more."""
        ready, self._ready = self._ready, None
        failure, self._failure = self._failure, None
        if ready is None or ready.done():
            if failure is not None:  # whoever waited has been cancelled meanwhile
                self._report(failure)
        elif failure is not None:
            ready.set_exception(failure)
        elif self._cancelled or self._task.cancelled():
            ready.set_exception(JoinError(self.name, self._reason))
        else:
            ready.set_exception(RuntimeError(f"{self.name!r} ended without having called started()"))

    def _expire(self, timeout: float) -> None:
        self._report(self._root._late(f"the subsystem {self.name!r}", timeout, self))

    def _cut(self, reason: str | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super()._cut(reason)
        self._cancelled = True
        self.token.cancel(reason)
        self._task.cancel(reason)

    def _unfinished(self) -> tuple[list[Parent], list[Parent]]:
        told, waiting = super()._unfinished()
        if not self._task.done():
            (told if self.token.is_cancelled() else waiting).append(self)
        return told, waiting

    @property
    def _called(self) -> str:
        return self.name

    def _require_open(self) -> None:
        super()._require_open()
        if self._ended.done():
            raise RuntimeError(f"{self!r} takes no subsystems: it has ended")

    def _require_outside(self, caller: str) -> None:
        if self._encloses(asyncio.current_task()):
            raise RuntimeError(f"a subsystem cannot wait for its own end: {caller}() is for others, and it may return")

    def _encloses(self, task: asyncio.Task[Any] | None) -> bool:
        return self._task is task or any(child._encloses(task) for child in self._children)

    def __repr__(self) -> str:
        if self._ended.done():
            state = "ended"
        elif self._order is not None:
            state = "stopping"
        else:
            state = "running"
        return f"<Subsystem {self.name!r} {state}>"


def require_policy(on_error: str) -> None:
    if on_error not in ("shutdown", "report"):
        raise ValueError(f'on_error must be "shutdown" or "report", not {on_error!r}')


def _name_of(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", None) or type(function).__name__
