"""One child of a supervisor, through all its lives.

Invariant: a child has at most one task, and that has been cancelled at most once. It is in one of these phases:

* ``starting``: it runs for the first time, and somebody waits in `Supervisor.start` until it says that it is started.
* ``up``: it runs, and when it dies the supervisor decides.
* ``doomed``: it runs, is about to be ended because a sibling has died, and will be started again.
* ``down``: it does not run, and will be started again.
* ``leaving``: it runs, and has been told to end for good.
* ``gone``: it has ended for good, and the supervisor has forgotten it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Literal, final

from yamanote.runtime import JoinHandle, Started, shield_wait, start_task

if TYPE_CHECKING:
    from yamanote.server._strategy import Restart
    from yamanote.server._supervisor import Supervisor

__all__ = ["SupervisedTask"]

_inside: ContextVar[tuple[SupervisedTask, ...]] = ContextVar("yamanote_supervised", default=())
"""The children in one of whose lives this is, or in something that was started there."""

Phase = Literal["starting", "up", "doomed", "down", "leaving", "gone"]


@final
class SupervisedTask:
    """A child of a `Supervisor`: what `spawn` and `start` return. It stays the same one over all restarts.

    **Threads:** it belongs to the loop of its supervisor.

    >>> from yamanote.server import Supervisor
    >>> async def example():
    ...     async with Supervisor() as supervisor:
    ...         child = supervisor.spawn(asyncio.sleep, 3600, name="sleeper")
    ...         before = child.running
    ...         await child.stop()
    ...     return child.name, before, child.running
    >>> run(example())
    ('sleeper', True, False)
    """

    __slots__ = (
        "_announces",
        "_args",
        "_context",
        "_delays",
        "_delays_since",
        "_down",
        "_function",
        "_not_before",
        "_over",
        "_phase",
        "_restart",
        "_started",
        "_supervisor",
        "_task",
        "_told",
        "_unsettled",
        "_up_since",
        "name",
        "restarts",
    )

    name: str
    """What it was called, by default as its function."""
    restarts: int
    """How often it has been started again, the restarts for the sake of others included."""

    def __init__(
        self,
        supervisor: Supervisor,
        function: Callable[..., object],
        args: tuple[object, ...],
        *,
        name: str,
        restart: Restart,
        announces: bool,
    ) -> None:
        self.name = name
        self.restarts = 0
        self._supervisor = supervisor
        self._function = function
        self._args = args
        self._restart = restart
        self._announces = announces
        self._context = copy_context()
        self._context.run(_inside.set, (*_inside.get(), self))
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self._told = False  # to end, this task
        self._started: Started[None] | None = None  # while somebody waits until this life has begun
        self._unsettled: asyncio.Task[None] | None = None  # has ended, and they have not dealt with that yet
        self._up_since: float | None = None
        self._delays: Callable[[float], float | None] | None = None
        self._delays_since = self._not_before = 0.0
        self._phase: Phase = "starting" if announces else "up"

    @property
    def running(self) -> bool:
        """Whether it runs now: not between its death and its restart, nor when it has ended for good."""
        return self._task is not None

    async def stop(self) -> None:
        """Cancel it, wait until it has ended, and never start it again. Nothing happens when it has ended for good.

        What it raises in its clean-up is reported to the exception handler of the loop. It is no death: no sibling is
        restarted. A child that swallows the cancellation is waited for.

        Raises RuntimeError in this very child, which would wait for itself.

        **Cancel safety:** the child is stopped all the same; the cancellation is raised when it has ended. In a task
        that the child has started it is raised at once.
        """
        self._refuse_itself()
        self._supervisor._dismiss(self)
        if self in _inside.get():
            await asyncio.shield(self._over)  # the child may be waiting for this very call to end
        else:
            await shield_wait(self._over)

    async def wait(self) -> None:
        """Wait until it has ended for good, in whatever way. Its error has been reported, and is not raised here.

        Raises RuntimeError in this very child, which would wait for itself.

        **Cancel safety:** cancelling this call does nothing to the child.
        """
        self._refuse_itself()
        await asyncio.shield(self._over)

    def _begin(self, loop: asyncio.AbstractEventLoop, label: str) -> None:
        """Start its next life."""
        self._down: asyncio.Future[None] = loop.create_future()  # this life has ended, and been dealt with
        self._told = False
        args = self._args
        if self._announces:
            self._up_since = None
            self._started = Started()
            args = (self._started, *args)
        else:
            self._up_since = loop.time()
        life = _call(self._function, args)
        # Each life begins with the variables of whoever spawned it, not with those that the last one left.
        self._task = start_task(life, name=f"{label}/{self.name}", context=self._context.copy())
        self._task.add_done_callback(self._ended)

    async def _has_started(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Wait until this life says that it has started. Tell whether it did; else it has ended before."""
        assert self._started is not None
        try:
            await self._started.wait_for(JoinHandle(self._down))
        except RuntimeError:
            return False
        finally:
            self._started = None
        self._up_since = loop.time()
        return True

    def _cancel(self) -> None:
        if self._task is not None and not self._told:
            self._told = self._task.cancel()

    async def _end(self) -> None:
        """Cancel this life, and wait until it has ended."""
        self._cancel()
        if self._task is not None:
            await shield_wait(self._down)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self._supervisor._life_ended(self, task)
        self._down.set_result(None)

    def _refuse_itself(self) -> None:
        if self._task is not None and asyncio.current_task() is self._task:
            raise RuntimeError(f"{self.name!r} cannot wait for its own end")

    def __repr__(self) -> str:
        return f"<SupervisedTask {self.name!r} {self._phase} restarts={self.restarts}>"


async def _call(function: Callable[..., object], args: tuple[object, ...]) -> None:
    result = function(*args)
    if not inspect.isawaitable(result):
        raise TypeError(f"the function of a child must be async, not {function!r}, which returned {result!r}")
    await result
