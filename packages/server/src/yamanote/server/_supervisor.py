"""Supervisor: tasks that are started again when they die.

Invariant: no child outlives the block. A child whose death asks for a restart is down until it is started again, or
until everything stops; the siblings that its death concerns are ended first, in the reverse order of their start, and
all come back in the order of their start. Every restart is counted, once, at the death that asks for it. Whatever ends
the supervisor ends the body first, and then the children one after the other, in the reverse order of their start.

The host of the block does the stopping, and tasks of the supervisor's own do the restarting: one for each dead child
where children stand alone; else one in all, and a further death cancels it and begins anew with those that are down.
"""

from __future__ import annotations

import asyncio
import inspect
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVarTuple, Unpack, final

from yamanote.runtime import CancelScope, JoinError, Started, cancel_and_wait, request_again, shield_wait, start_task
from yamanote.server._counted import counted
from yamanote.server._strategy import Intensity, Restart, Strategy, concerned, require_restart, require_strategy
from yamanote.server._supervised_task import SupervisedTask
from yamanote.server._takes import require_takes
from yamanote.time import Schedule, sleep_until

__all__ = ["Supervisor", "SupervisorError", "what_is_done"]

Ts = TypeVarTuple("Ts")

_FAILED = ", failed"


class SupervisorError(ExceptionGroup[Exception]):
    """Children have died too often. In it is what the last of them died of, which no restart has mended."""

    def derive(self, errors: Sequence[Exception], /) -> SupervisorError:  # type: ignore[override]
        """A part of this group, for `split` and ``except*``."""
        return SupervisorError(self.message, errors)


@final
class Supervisor:
    """Runs tasks and starts them again when they die: ``async with Supervisor() as supervisor: ...``.

    `strategy` says who is started again when a child has died:

    * ``"one_for_one"``: only that child.
    * ``"one_for_all"``: all children. The others are stopped first.
    * ``"rest_for_one"``: that child and those which were started after it. These are stopped first.

    They are stopped one after the other, in the reverse order of their start, and started in the order of their start.

    Each child says when its end is a death that asks for a restart:

    * ``"permanent"``: always, also when it returns.
    * ``"transient"``: when it fails, or is cancelled by a stranger. When it returns it has ended for good.
    * ``"temporary"``: never. Nor does its end concern its siblings; it is stopped for their sake, and does not return.

    More than `max_restarts` within `period` seconds are too many: all children are stopped, and the block raises
    SupervisorError. So does a death when the `backoff` has ended. That is a `Schedule` of delays before the restarts of
    one child, none if nothing is said; it begins anew when a child has stayed up for `period` seconds.

    The error of a child is reported to the exception handler of the loop, with what is done about it, unless it is
    raised by `start` or by the block. KeyboardInterrupt, SystemExit, and what else is no Exception, stop everything,
    and come out of the block as they are.

    The block ends when its body and all children have ended. When the body fails, or is cancelled, and on `stop`, all
    children are stopped in the reverse order of their start: each is cancelled and waited for before the next one is.
    A child that swallows the cancellation is waited for.

    Supervisors can be nested: a SupervisorError that comes out of a child is the death of that child.

    **Cancel safety:** when the host is cancelled, the children are stopped; the cancellation goes on when all have
    ended.

    **Threads:** everything belongs to the loop of the block.

    Raises ValueError for a `strategy` that is none of these, a negative `max_restarts`, or a `period` that is not
    positive, and TypeError for what is no number, or no Schedule.

    >>> from yamanote.server import Supervisor
    >>> answers = iter([OSError("the line is dead"), OSError("still dead"), "hello"])
    >>> async def talk():
    ...     answer = next(answers)
    ...     if isinstance(answer, OSError):
    ...         raise answer
    ...     print(answer)
    >>> async def example():
    ...     asyncio.get_running_loop().set_exception_handler(lambda loop, report: print(report["exception"]))
    ...     async with Supervisor(max_restarts=5) as supervisor:
    ...         child = supervisor.spawn(talk, restart="transient")
    ...     return child.restarts
    >>> run(example())
    the line is dead
    still dead
    hello
    2
    """

    __slots__ = (
        "__weakref__",
        "_backoff",
        "_body",
        "_children",
        "_error",
        "_fatal",
        "_host",
        "_intensity",
        "_limits",
        "_loop",
        "_name",
        "_period",
        "_requests",
        "_restarts",
        "_state",
        "_strategy",
        "_wake",
    )

    def __init__(
        self,
        strategy: Strategy = "one_for_one",
        *,
        max_restarts: int = 3,
        period: float = 5.0,
        backoff: Schedule | None = None,
        name: str | None = None,
    ) -> None:
        require_strategy(strategy)
        if backoff is not None and not isinstance(backoff, Schedule):
            raise TypeError(f"backoff must be a Schedule, or None for no delay, not {backoff!r}")
        self._strategy: Strategy = strategy
        self._intensity = Intensity(max_restarts, period)
        self._limits = f"{counted(max_restarts, 'restart')} within {counted(period, 'second')}"
        self._period = period
        self._backoff = backoff
        self._name = name
        self._state: Literal["new", "open", "stopping", "abandoned", "ended"] = "new"
        self._body = CancelScope()
        self._host: asyncio.Task[Any] | None = None
        self._requests = 0
        # In the order of their start; none that has ended for good.
        self._children: dict[SupervisedTask, None] = {}
        # Each with the child that it is about, or None for whoever is down.
        self._restarts: dict[asyncio.Task[None], SupervisedTask | None] = {}
        self._error: SupervisorError | None = None
        self._fatal: BaseException | None = None
        self._wake: asyncio.Future[None] | None = None

    def spawn(
        self,
        function: Callable[[Unpack[Ts]], Awaitable[object]],
        /,
        *args: *Ts,
        name: str | None = None,
        restart: Restart = "permanent",
    ) -> SupervisedTask:
        """Start a child, which runs ``await function(*args)``, in every one of its lives anew.

        The function is called in the task of the child, never here. Each life begins in a copy of the present context.
        While others are being restarted, a new child starts at once, and has no part in that.

        Raises TypeError for what is no function, ValueError for a `restart` that is none of the three, and RuntimeError
        when the supervisor is not open, or belongs to another loop.
        """
        child = self._admit(function, args, name, restart, "spawn")
        child._begin(self._loop, self._label)
        return child

    async def start(
        self,
        function: Callable[[Started[None], Unpack[Ts]], Awaitable[object]],
        /,
        *args: *Ts,
        name: str | None = None,
        restart: Restart = "permanent",
    ) -> SupervisedTask:
        """Start a child, which runs ``await function(started, *args)``, and wait until it calls ``started()``.

        What it raises before that is raised here, and the child is forgotten. Until then it has no part in the restarts
        of others. When it is restarted, the next one is not started before it has called ``started()`` again; to fail
        before is then a death like any other.

        Raises TypeError for a function that cannot take `started` and the arguments, as far as its signature tells,
        RuntimeError when the child ends without having called it, JoinError when it is cancelled before, as it
        is when the supervisor stops, and what `spawn` raises.

        **Cancel safety:** when the call is cancelled, so is this child, even if it has just started; the cancellation
        goes on when it has ended.

        >>> from yamanote.server import Supervisor
        >>> async def serve(started, port):
        ...     print("listening on", port)
        ...     started()
        ...     await asyncio.sleep(3600)
        >>> async def example():
        ...     async with Supervisor() as supervisor:
        ...         child = await supervisor.start(serve, 8080)
        ...         print(child.name, "is ready")
        ...         supervisor.stop()
        >>> run(example())
        listening on 8080
        serve is ready
        """
        child = self._admit(function, args, name, restart, "start")
        child._begin(self._loop, self._label)
        try:
            has_started = await child._has_started(self._loop)
        except CancelledError:
            self._dismiss(child)
            await shield_wait(child._over)
            raise
        except GeneratorExit:  # thrown away, and cannot wait any more
            self._dismiss(child)
            raise
        ended = child._unsettled
        if not has_started:
            if ended is None or ended.cancelled():
                self._dismiss(child)
                raise JoinError(child.name)
            self._forget(child)
            try:
                raise ended.exception() or _unannounced(child)
            finally:
                del self, child, ended  # the error refers to this frame, and they to the error
        if child._phase == "starting":
            child._phase = "up"
            if ended is not None:  # since then
                self._died(child, ended)
        return child

    def stop(self) -> None:
        """Begin to stop, and return at once: the body is cancelled, then the children, and the block ends.

        This raises nothing out of the block. May be called by a child, again, and after the end. Raises RuntimeError
        when the block has not been entered.
        """
        if self._state == "new":
            raise RuntimeError(f"{self!r} has not been entered: there is nothing to stop")
        self._begin_to_stop()

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise RuntimeError(f"{self!r} can be entered only once")
        self._body.__enter__()
        self._loop = asyncio.get_running_loop()
        self._host = asyncio.current_task()
        assert self._host is not None
        self._requests = self._host.cancelling()
        self._state = "open"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        swallowed = self._body.__exit__(kind, error, traceback)
        outside: CancelledError | None = None
        try:
            if swallowed:
                error = None
            if isinstance(error, GeneratorExit):
                self._abandon()
                return False
            if isinstance(error, CancelledError):
                outside = error
            if error is not None:
                self._begin_to_stop()
            while self._children or self._restarts:
                try:
                    await self._wait_for_children()
                except CancelledError as cancelled:
                    outside = outside or cancelled
                    self._begin_to_stop()
                except GeneratorExit:
                    self._abandon()
                    raise
            self._state = "ended"
            if (raised := self._choose(error, outside)) is None:
                return swallowed
            if outside is not None and raised is not outside:
                assert self._host is not None
                request_again(self._host, self._requests)
            if raised is error:
                return False
            raise raised
        finally:
            self._wake = None
            self._error = self._fatal = None
            del error, outside, traceback  # errors refer to this frame, and it to them
            raised = None

    async def _wait_for_children(self) -> None:
        if self._state == "open" and self._children:
            self._wake = self._loop.create_future()
            await self._wake
            return
        restarts = tuple(self._restarts)
        await cancel_and_wait(*restarts)
        for restart in restarts:  # which may have ended, and not have said so yet
            self._restarts.pop(restart, None)
        while self._children and self._state != "open":
            child = next(reversed(self._children))
            self._dismiss(child)
            await shield_wait(child._over)

    def _choose(self, error: BaseException | None, outside: CancelledError | None) -> BaseException | None:
        """What the block raises: `error` is that of the body, `outside` a cancellation of the host."""
        if isinstance(error, CancelledError):
            error = None
        first = self._fatal
        if first is None and error is not None and not isinstance(error, Exception):
            first = error
        if first is not None:
            if self._error is not None:
                self._report(f"{self!r} has given up, and is ended by another error", self._error)
            return first
        if self._error is not None and isinstance(error, Exception):
            return SupervisorError(self._error.message, [*self._error.exceptions, error])
        return self._error or error or outside

    def _begin_to_stop(self) -> None:
        if self._state == "open":
            self._state = "stopping"
            self._body.cancel()
            self._wake_host()

    def _wake_host(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _abandon(self) -> None:
        """The host is being thrown away, and then nothing can be awaited: tell the children, and let them end."""
        self._state = "abandoned"
        if self._error is not None:
            self._report(f"{self!r} has given up, and its block was thrown away", self._error)
        for restart in self._restarts:
            restart.cancel()
        for child in list(reversed(self._children)):
            self._dismiss(child)

    # ---------------------------------------------------------------- children

    def _admit(
        self, function: Callable[..., object], args: tuple[object, ...], name: str | None, restart: Restart, method: str
    ) -> SupervisedTask:
        if not callable(function):
            if inspect.iscoroutine(function):
                function.close()  # it will never run: no warning that it was never awaited
            raise TypeError(f"{method}() needs an async function, which it can call again, not {function!r}")
        require_restart(restart)
        if method == "start":
            require_takes(function, (None, *args), "start() needs a function that can take started, and the arguments")
        if self._state != "open":
            reason = "it is being stopped" if self._state == "stopping" else "it is not open"
            raise RuntimeError(f"{self!r} takes no children: {reason}")
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(f"{self!r} belongs to another event loop")
        if name is None:
            name = str(getattr(function, "__name__", type(function).__name__))
        child = SupervisedTask(self, function, args, name=name, restart=restart, announces=method == "start")
        self._children[child] = None
        return child

    def _dismiss(self, child: SupervisedTask) -> None:
        """End `child` for good. Who wants to know when waits for its `_over`."""
        if child._phase == "gone":
            return
        if child._task is not None:
            child._phase = "leaving"
            child._cancel()
            return
        was_down = child._phase == "down"
        self._settle(child)
        self._forget(child)
        if was_down and self._state == "open" and self._strategy != "one_for_one":
            self._restart(None)  # those who are down with it need not wait for its moment

    def _forget(self, child: SupervisedTask) -> None:
        child._phase = "gone"
        child._unsettled = None
        del self._children[child]
        child._over.set_result(None)
        for restart, about in self._restarts.items():
            if about is child and restart is not asyncio.current_task():
                restart.cancel()
        if not self._children:
            self._wake_host()

    def _life_ended(self, child: SupervisedTask, task: asyncio.Task[None]) -> None:
        """The task of a child has ended; it has none now."""
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, Exception):
            if self._state == "abandoned":
                self._report(f"a child of {self!r}, whose host is gone, failed", error)
            self._fatal = self._fatal or error
            self._begin_to_stop()
            self._forget(child)
        elif child._phase == "leaving":
            self._report_clean_up(child, task)
            self._forget(child)
        elif child._phase == "doomed":
            self._report_clean_up(child, task)
            returned = error is None and not task.cancelled() and not child._told
            if child._restart == "temporary" or (child._restart == "transient" and returned):
                self._forget(child)
            else:
                child._phase = "down"
        elif child._started is not None:  # who waits for that decides
            child._unsettled = task
        else:
            self._died(child, task)

    def _settle(self, child: SupervisedTask) -> None:
        """Who was to deal with the end of a child's life will not."""
        if child._unsettled is not None:
            self._report_clean_up(child, child._unsettled)
            child._unsettled = None

    def _report_clean_up(self, child: SupervisedTask, ended: asyncio.Task[None]) -> None:
        if not ended.cancelled() and (error := ended.exception()) is not None:
            self._report(f"{self._describe(child)}{_FAILED} while it was being stopped", error)

    # ---------------------------------------------------------------- restarts

    def _died(self, child: SupervisedTask, ended: asyncio.Task[None], *, has_started: bool = True) -> None:
        """A child has ended, and nobody had told it to."""
        child._unsettled = None
        if self._state != "open":
            self._report_clean_up(child, ended)
            self._forget(child)
            return
        error = JoinError(ended.get_name()) if ended.cancelled() else ended.exception()
        if error is None and not has_started:
            error = _unannounced(child)
        assert error is None or isinstance(error, Exception)
        label = f"{self._describe(child)}{_FAILED}"
        if child._restart == "temporary" or (child._restart == "transient" and error is None):
            if error is not None and not ended.cancelled():
                self._report(f"{label}, and is not restarted: it is temporary", error)
            self._forget(child)
            return
        now = self._loop.time()
        if not self._intensity.allows(now):
            self._give_up(child, error, f"after {self._limits}")
            return
        delay = self._next_delay(child, now)
        if delay is None:
            self._give_up(child, error, "when its back-off had ended")
            return
        if error is not None:
            self._report(f"{label}, and is restarted" + _in_seconds(delay), error)
        child._phase = "down"
        child._not_before = now + delay
        for other in concerned(self._strategy, self._children, child):
            self._doom(other)
        self._restart(child if self._strategy == "one_for_one" else None)

    def _doom(self, child: SupervisedTask) -> None:
        """Have a child that is up restarted."""
        if child._phase != "up":
            return
        if child._task is not None:
            child._phase = "doomed"
        else:
            self._settle(child)
            child._phase = "down"

    def _restart(self, alone: SupervisedTask | None) -> None:
        """Begin to bring back those who are down: `alone`, or all, and then in the place of who is at it."""
        previous = () if alone is not None else tuple(self._restarts)
        restart = start_task(self._bring_back(alone, previous), name=f"{self._label} (restarting)")
        self._restarts[restart] = alone
        restart.add_done_callback(self._restart_ended)

    def _restart_ended(self, restart: asyncio.Task[None]) -> None:
        if restart not in self._restarts:
            return
        alone = self._restarts.pop(restart)
        if restart.cancelled() and self._state == "open" and alone not in self._restarts.values():
            members = self._children if alone is None else [alone]
            if any(child._phase in ("doomed", "down") for child in members):
                self._restart(alone)  # a stranger has cancelled it: nobody else would bring them back

    def _next_delay(self, child: SupervisedTask, now: float) -> float | None:
        """Seconds until the restart of a child that died `now`; None when there is to be no other."""
        if self._backoff is None:
            return 0.0
        stayed_up = child._up_since is not None and now - child._up_since >= self._period
        if child._delays is None or stayed_up:
            child._delays = self._backoff.begin()
            child._delays_since = now
        return child._delays(now - child._delays_since)

    def _give_up(self, child: SupervisedTask, error: Exception | None, when: str) -> None:
        how = "returned" if error is None else "failed"
        message = f"{self._describe(child)}, {how} {when}"
        self._error = SupervisorError(message, [error or RuntimeError(f"{child.name!r} has returned")])
        self._begin_to_stop()
        self._forget(child)

    async def _bring_back(self, alone: SupervisedTask | None, previous: tuple[asyncio.Task[None], ...]) -> None:
        """End who is doomed, and start who is down: one child, or all; in the place of `previous` restarts."""
        await cancel_and_wait(*previous)
        members = list(self._children) if alone is None else [alone]
        for child in reversed(members):
            if child._phase == "doomed":
                await child._end()
        moment = max((child._not_before for child in members if child._phase == "down"), default=0.0)
        if moment > self._loop.time():
            await sleep_until(moment)
        for child in members:
            if child._phase == "down" and not await self._start_again(child):
                return  # that was a death, and a restart of its own

    async def _start_again(self, child: SupervisedTask) -> bool:
        """Start a child that is down, and wait until it has started. Tell whether to go on with the next."""
        child.restarts += 1
        child._phase = "up"
        child._begin(self._loop, self._label)
        if not child._announces:
            return True
        try:
            has_started = await child._has_started(self._loop)
        except CancelledError:  # whoever takes over waits for it anew
            self._doom(child)
            raise
        if child._unsettled is not None:
            self._died(child, child._unsettled, has_started=has_started)
            return False
        return child._phase not in ("doomed", "down")

    def _report(self, message: str, error: BaseException) -> None:
        self._loop.call_exception_handler({"message": message, "exception": error})

    def _describe(self, child: SupervisedTask) -> str:
        return f"{child.name!r}, a child of {self!r}"

    @property
    def _label(self) -> str:
        return "supervisor" if self._name is None else f"supervisor {self._name}"

    def __repr__(self) -> str:
        label = "" if self._name is None else f" {self._name!r}"
        return f"<Supervisor{label} {self._state} children={len(self._children)}>"


def what_is_done(report: str) -> str:
    """The end of a report about a child, for whoever has better words for who has failed: ", and is restarted"."""
    return report.partition(_FAILED)[2]


def _in_seconds(delay: float) -> str:
    return f" in {counted(float(f'{delay:.3g}'), 'second')}" if delay else ""


def _unannounced(child: SupervisedTask) -> RuntimeError:
    return RuntimeError(f"{child.name!r} ended without having called started()")
