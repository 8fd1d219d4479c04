"""Explorer loop: an event loop in which nothing happens by chance.

Invariant: what a run does follows from the scenario, the schedule and the injections alone. The loop runs one step at a
time; which one, among those that are ready, the schedule says. Time is virtual: it stands still while anything is
ready, and then jumps to the next timer. Nothing comes from outside: sockets, signals, executors and other threads are
refused.

The candidates of a step: every task that is ready, every timer that is due, and the oldest of all other callbacks. So
plain callbacks keep the order in which asyncio promises to run them, and everything else, for which real programs
cannot rely on an order either, may come in any.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context
from heapq import heappop
from typing import Any, NamedTuple, NoReturn, TypeVarTuple
from weakref import WeakKeyDictionary

from yamanote.runtime import busy_calls, describe, dump
from yamanote.testing._strategy import Choice, Schedule, Script
from yamanote.testing._token import Injection
from yamanote.time import DeadlockError

__all__ = ["ExplorerLoop", "Injected", "Point"]

Ts = TypeVarTuple("Ts")

_STEPS = 10_000
"""How many steps a run may take."""
_CALLBACKS = "callbacks"
_THREADS = "{}: what threads do cannot be repeated, so an explored scenario must do without them"


class Point(NamedTuple):
    """An await point: where a task was suspended."""

    task: int
    number: int
    yields: bool
    """Whether the task only let others run, and waited for nothing."""


class Injected(NamedTuple):
    """A cancellation that was injected."""

    injection: Injection
    points: int
    """How many await points had been recorded by then."""
    where: str
    """Task, await point, file and line, in words."""


class ExplorerLoop(asyncio.BaseEventLoop):
    """Runs one scenario, once. Everything that it learns is in its attributes."""

    # What BaseEventLoop keeps for its subclasses, the same since Python 3.4.
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _stopping: bool

    def __init__(
        self,
        schedule: Schedule,
        injections: Iterable[Injection] = (),
        *,
        recording: bool = False,
        describing: bool = False,
    ) -> None:
        super().__init__()
        self._schedule = schedule
        self._injections = set(injections)
        self._recording = recording
        self._describing = describing
        self._exploring = True
        self._steps_left = _STEPS
        self._now = 0.0
        self._thread = threading.get_ident()
        self._intrusion: RuntimeError | None = None
        self._indices: WeakKeyDictionary[asyncio.Task[Any], int] = WeakKeyDictionary()
        self._labels: list[str] = []  # of the tasks, by number
        self._suspensions: dict[int, int] = {}  # how often each task was suspended
        self._armed: list[tuple[asyncio.Task[Any], Injection]] = []
        self._timers_due = 0
        self._lazy: set[int] = set()  # the tasks, by number, that did not run yet when they were made
        self._timers: dict[int, int] = {}  # numbers of those that are ready, by identity
        self.choices: list[Choice] = []
        self.trace: list[str] = []
        """Who ran in each step."""
        self.points: list[Point] = []
        self.resumed: set[tuple[int, int]] = set()
        """The await points from which a task went on: the number of the task, and that of the point."""
        self.idles: dict[tuple[int, int], int] = {}
        """How often time passed while a task was there."""
        self.injected: list[Injected] = []

    # ---------------------------------------------------------------- time

    def time(self) -> float:
        return self._now

    def _let_time_pass(self) -> None:
        """Make the timers ready that are due next, if nobody is to be cancelled before."""
        for point in self._suspensions.items():
            if point not in self.resumed:
                self.idles[point] = self.idles.get(point, 0) + 1
        if self._inject_armed(idle=True):
            return
        if calls := busy_calls(self):
            raise RuntimeError(_THREADS.format(f"the scenario waits for {', '.join(calls)} in a thread"))
        scheduled = self._scheduled
        while scheduled and scheduled[0].cancelled():
            heappop(scheduled)
        if not scheduled:
            raise DeadlockError(dump(self))
        self._now = max(self._now, scheduled[0].when())
        while scheduled and scheduled[0].when() <= self._now:
            timer = heappop(scheduled)
            self._timers[id(timer)] = self._timers_due = self._timers_due + 1
            self._ready.append(timer)

    def stop_exploring(self) -> None:
        """The scenario has ended: what is left runs first in, first out, and counts no longer."""
        self._schedule = Script({})
        self._exploring = self._recording = False
        self._injections.clear()
        self._armed.clear()
        self._steps_left = _STEPS

    # ---------------------------------------------------------------- steps

    def _run_once(self) -> None:
        """One step: what BaseEventLoop calls again and again until the loop is stopped."""
        if self._intrusion is not None:
            intrusion, self._intrusion = self._intrusion, None
            raise intrusion
        if not self._steps_left:
            self._steps_left = _STEPS
            raise RuntimeError(f"the scenario has not ended after {_STEPS} steps")
        self._steps_left -= 1
        self._inject_armed(idle=False)
        candidates = self._candidates()
        if not candidates:
            if self._stopping:
                return
            self._let_time_pass()
            candidates = self._candidates()
        taken = 0
        if len(candidates) > 1:
            taken = self._schedule.choose(list(candidates))
            if self._exploring:
                self.choices.append(Choice(len(self.trace), taken, len(candidates), next(iter(candidates))))
        label = list(candidates)[taken]
        place = candidates[label]
        handle = self._ready[place]
        del self._ready[place]
        task = _task_of(handle)
        if not self._exploring:
            handle._run()
            return
        self.trace.append(label)
        if task is not None:
            index = self._indices[task]
            self.resumed.add((index, self._suspensions.get(index, 0)))
        handle._run()
        if task is not None and not task.done():
            self._suspended(task)
        self._notice_eager_tasks()
        del handle, task  # an error that was raised in this step refers to this frame, and would live on with it

    def _candidates(self) -> dict[str, int]:
        """Who may run next, and where in the ready queue that is."""
        candidates: dict[str, int] = {}
        for place, handle in enumerate(self._ready):
            if not handle.cancelled():
                candidates.setdefault(self._label(handle), place)
        if not candidates:
            self._ready.clear()
        return candidates

    def _label(self, handle: asyncio.Handle) -> str:
        task = _task_of(handle)
        if task is not None:
            return self.label(task)
        if isinstance(handle, asyncio.TimerHandle):
            return f"timer#{self._timers[id(handle)]}"
        return _CALLBACKS

    def label(self, task: asyncio.Task[Any]) -> str:
        """A name for `task` that is the same in each run."""
        index = self._indices[task]
        if not self._labels[index]:
            name = task.get_name()
            if name.startswith("Task-"):  # asyncio's own names count on from run to run
                coroutine: Any = task.get_coro()
                name = getattr(coroutine, "__qualname__", type(coroutine).__name__).rpartition(".")[2]
                task.set_name(f"{name}#{index}")
            self._labels[index] = f"{name}#{index}"
        return self._labels[index]

    # ---------------------------------------------------------------- tasks and their await points

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = super().call_soon(callback, *args, context=context)
        task = _task_of(handle)
        if task is not None and task not in self._indices:
            self._notice(task)
            index = self._indices[task]
            self._lazy.add(index)
            if self._recording:
                self.points.append(Point(index, 0, yields=True))
            if Injection(index, 0) in self._injections:
                self._armed.append((task, Injection(index, 0)))  # not now: it is still being made
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        # The first thing of a task that is started eagerly: this is how the order of such tasks is known.
        task = asyncio.current_task(self)
        if task is not None:
            self._notice(task)
        return super().create_future()

    def _notice(self, task: asyncio.Task[Any]) -> None:
        if task not in self._indices:
            self._indices[task] = len(self._labels)
            self._labels.append("")

    def _notice_eager_tasks(self) -> None:
        """Those that have begun when they were made, and stand at their first await point now."""
        # asyncio numbers its tasks: "Task-9" is older than "Task-10", in each run.
        for task in sorted(asyncio.all_tasks(self), key=lambda task: (len(task.get_name()), task.get_name())):
            self._notice(task)
            index = self._indices[task]
            if index not in self._suspensions and index not in self._lazy:
                self._suspended(task)

    def _suspended(self, task: asyncio.Task[Any]) -> None:
        index = self._indices[task]
        number = self._suspensions[index] = self._suspensions.get(index, 0) + 1
        if self._recording:
            self.points.append(Point(index, number, self._is_ready(task)))
        for injection in [i for i in self._injections if i[:2] == (index, number)]:
            if injection.idles or injection.woken:
                self._armed.append((task, injection))
            else:
                self._inject(task, injection)

    def anything_ready(self) -> bool:
        return any(not handle.cancelled() for handle in self._ready)

    def _is_ready(self, task: asyncio.Task[Any]) -> bool:
        return any(_task_of(handle) is task and not handle.cancelled() for handle in self._ready)

    def _inject_armed(self, *, idle: bool) -> bool:
        """Cancel who is to be cancelled when everybody waits, or when it is woken. Tell whether there was anybody."""
        found = False
        for task, injection in self._armed.copy():
            if task.done() or self._suspensions.get(injection.task, 0) != injection.point:
                self._armed.remove((task, injection))  # it has gone on
                continue
            if injection.idles:
                now = idle and injection.idles == self.idles[injection[:2]]
            else:
                now = not idle and self._is_ready(task)
            if now:
                self._armed.remove((task, injection))
                self._inject(task, injection)
                found = True
        return found

    def _inject(self, task: asyncio.Task[Any], injection: Injection) -> None:
        self._injections.discard(injection)
        # To look into a frame may keep its variables alive, and change what happens when: only if somebody asks.
        where = _words(injection, self.label(task), task) if self._describing else ""
        self.injected.append(Injected(injection, len(self.points), where))
        task.cancel()

    # ---------------------------------------------------------------- what does not belong here

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        if threading.get_ident() != self._thread:
            self._intrusion = RuntimeError(_THREADS.format("another thread called into the loop of the scenario"))
            raise self._intrusion
        return self.call_soon(callback, *args, context=context)

    def _write_to_self(self) -> None:
        """Nobody sleeps here who would have to be woken."""


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(self: ExplorerLoop, *args: object, **kwargs: object) -> NoReturn:
        raise RuntimeError(
            f"loop.{name}() reaches outside of the program, and what comes from there cannot be repeated: "
            "an explored scenario must do without it (a `duplex` stands in for a connection)"
        )

    return refuse


for _name in """
    add_reader add_signal_handler add_writer connect_accepted_socket connect_read_pipe connect_write_pipe
    create_connection create_datagram_endpoint create_server create_unix_connection create_unix_server getaddrinfo
    getnameinfo remove_reader remove_signal_handler remove_writer run_in_executor sendfile sock_accept sock_connect
    sock_recv sock_recv_into sock_recvfrom sock_recvfrom_into sock_sendall sock_sendfile sock_sendto start_tls
    subprocess_exec subprocess_shell
""".split():
    setattr(ExplorerLoop, _name, _refusal(_name))


def _task_of(handle: asyncio.Handle) -> asyncio.Task[Any] | None:
    """The task whose step this is."""
    owner = getattr(getattr(handle, "_callback", None), "__self__", None)
    return owner if isinstance(owner, asyncio.Task) else None


def _words(injection: Injection, label: str, task: asyncio.Task[Any]) -> str:
    """Where a cancellation is injected."""
    if injection.point == 0:
        return f"{label} cancelled before its first step"
    state = "as soon as it waits"
    if injection.woken:
        state = "woken, but not yet running again"
    elif injection.idles:
        state = f"while everybody waits (idle moment {injection.idles} there)"
    calls = "".join(f"\n  {line}" for line in describe(task).splitlines()[1:])
    return f"{label} cancelled at its await point {injection.point}, {state}:{calls}"
