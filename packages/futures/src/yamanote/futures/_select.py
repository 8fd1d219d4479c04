"""Select: wait for several things at once, and take exactly one.

Invariant: one party is registered on all branches and claimed once, so exactly one branch commits; the others are
withdrawn and have lost nothing. Until the call returns, the committed branch can still be given back: a select that is
cancelled has taken nothing. No task is involved, unless a branch is a coroutine.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Coroutine, Mapping
from inspect import isawaitable
from typing import Any, TypeAlias, TypeVar, overload

from yamanote.futures._contenders import Contenders
from yamanote.futures._failed_branch import mark_branch
from yamanote.futures._ownership import close_unstarted, result_of
from yamanote.futures._task_set import TaskSet
from yamanote.runtime import BUDGET, JoinHandle, Selectable, TaskWaiter, Waiter, park, random_source, yield_now
from yamanote.time import timeout as limit

__all__ = ["select"]

T = TypeVar("T")

Branch: TypeAlias = Selectable[Any] | Awaitable[Any] | None


@overload
async def select(tasks: TaskSet[T], /, *, timeout: float | None = None) -> tuple[str, T]: ...
@overload
async def select(
    branches: Mapping[str, Branch], /, *, biased: bool = False, timeout: float | None = None, **named: Branch
) -> tuple[str, Any]: ...
@overload
async def select(*, biased: bool = False, timeout: float | None = None, **branches: Branch) -> tuple[str, Any]: ...
async def select(
    first: TaskSet[Any] | Mapping[str, Branch] | None = None,
    /,
    *,
    biased: bool = False,
    timeout: float | None = None,
    **named: Branch,
) -> tuple[str, Any]:
    """Wait until the first of several branches is ready; return its name and its value.

    ::

        match await select(job=jobs, tick=ticks, stop=token, page=fetch(url)):
            case "job", job: ...
            case "tick", scheduled: ...
            case "stop", _: ...
            case "page", page: ...

    A branch is anything `Selectable` (a receiver, an interval, a token, a join handle, a task set, ...), a future or
    a task, or a coroutine. Exactly one commits. The others lose nothing: no item is received, no tick is used up,
    futures and tasks go on. Coroutines are run as tasks of this call; those that lose are cancelled and awaited. To
    keep a coroutine from one round of a loop to the next, put it into a `task_set`. Pass a receiver, not its
    ``recv()``: of two coroutines that finish in one turn one loses, and with it what it has received.

    ``select(tasks)`` takes the task of a set that finished first. As a branch, a set gives ``(task's name, value)``;
    while it is empty it is never ready.

    Several are ready: a random one is taken (see `set_random_source`), with `biased` the first in the order of the
    arguments. Coroutines begin only when nothing else was ready; then one that finishes at once wins.

    A branch that is None is disabled: ``job=None if paused else jobs``. Names that are no identifiers, or that are
    options of this call, go into a mapping: ``select({"biased": rx})``.

    Ready branches take no loop turn, but after a budget of such rounds the call yields once.

    Raises what the branch raises (ChannelClosed of a closed receiver, JoinError of a cancelled task); `failed_branch`
    tells which it was, and so does a note on the error. Raises TimeoutError when nothing was ready within `timeout`
    seconds; with 0 it does not wait. Raises ValueError when every branch is disabled, or the set is empty, or
    becomes so while others take the rest.

    **Cancel safety**: a cancelled call takes nothing. **Threads**: branches may belong to other threads and loops, as
    far as they allow it themselves.

    >>> from yamanote.futures import select
    >>> from yamanote.runtime import CancellationToken, run
    >>> from yamanote.time import interval
    >>> async def main():
    ...     token, ticks = CancellationToken(), interval(0.001)
    ...     for _ in range(4):
    ...         match await select(stop=token, tick=ticks, biased=True):
    ...             case "tick", _:
    ...                 token.cancel()
    ...             case "stop", _:
    ...                 return "stopped"
    >>> run(main())
    'stopped'
    """
    if isinstance(first, TaskSet):
        if named:
            close_unstarted(named.values())
            raise TypeError("a task set among other branches needs a name: select(tasks=tasks, ...)")
        if timeout is not None:
            _require_timeout(timeout)
        ready = _rounds.ready
        if ready >= BUDGET:
            ready = 0
            await yield_now()
        entry = first._pop_nowait()
        if entry is not None:
            _rounds.ready = ready + 1
        elif not first:
            raise ValueError("the task set is empty")
        else:
            _rounds.ready = 0
            parked: Coroutine[Any, Any, tuple[str, asyncio.Task[Any]]] = park(first._until_empty())
            try:
                entry = first._taken(await (parked if timeout is None else limit(timeout, parked)))
            except LookupError:  # another party has taken the last one
                raise ValueError("the task set is empty") from None
        try:
            return entry[0], result_of(entry[1])
        except BaseException as error:
            mark_branch(error, (entry[0],))
            raise
    if first is not None and not isinstance(first, Mapping):
        close_unstarted([first, *named.values()])
        raise TypeError(f"a branch needs a name: select(name=...), not select({first!r})")
    branches = named if first is None else {**first, **named}
    operations: list[tuple[str, Selectable[Any]]] = []
    coroutines: list[tuple[str, Awaitable[Any]]] = []
    hopeful = False
    try:
        if first is not None and len(branches) < len(first) + len(named):
            raise ValueError("a branch is given twice, in the mapping and by name")
        for name, branch in branches.items():
            if branch is None:
                continue
            if hasattr(branch, "withdraw"):
                selectable: Any = branch
                operations.append((name, selectable))
                if not hopeful and (not isinstance(branch, TaskSet) or branch):
                    hopeful = True
            elif asyncio.isfuture(branch):
                operations.append((name, JoinHandle(branch)))
                hopeful = True
            elif isawaitable(branch):
                coroutines.append((name, branch))
                hopeful = True
            else:
                raise TypeError(f"branch {name!r} can neither be selected nor awaited: {branch!r}")
        if not hopeful:
            raise ValueError("every branch is disabled: this would wait for ever")
        if timeout is not None:
            _require_timeout(timeout)
    except BaseException:
        close_unstarted(branches.values())
        raise
    if not biased and len(operations) > 1:
        _rotate(operations)
    contenders: Contenders[str, Any] | None = None
    if coroutines:
        if not biased:
            _rotate(coroutines)
        contenders = Contenders(coroutines)
        operations.append(("", contenders))
    if timeout is not None:
        operations.append(("", _Alarm(timeout)))
    index, waiter = await _commit(operations, contenders)
    name, operation = operations[index]
    path: tuple[str, ...] = (name,)
    try:
        value = waiter.result()
        if operation is contenders:
            name, task = value
            path = (name,)
            return name, result_of(task)
        if isinstance(operation, TaskSet):
            path = (name, value[0])
            return name, (value[0], result_of(operation._taken(value)[1]))
        return name, value
    except BaseException as error:
        if name:
            mark_branch(error, path)
        raise


async def _commit(
    operations: list[tuple[str, Selectable[Any]]], contenders: Contenders[str, Any] | None
) -> tuple[int, Waiter[Any]]:
    """Wait for `operations`; return the position of the one that was committed, and its settled waiter.

    `contenders`, who are one of them, have ended when this returns.
    """
    party: TaskWaiter[Any] = TaskWaiter()
    waiter: Waiter[Any] = party
    waiters: list[Waiter[Any]] = []
    winner = 0
    decided = False
    try:
        ready = _rounds.ready
        if ready >= BUDGET:
            ready = 0
            await yield_now()
        for _, operation in operations:
            if waiters:
                waiter = party.branch()
            operation.register(waiter)
            waiters.append(waiter)
            if waiter.settled:
                _rounds.ready = ready + 1
                break
        else:
            _rounds.ready = 0
            await party.future
        decided = True
        for index, waiter in enumerate(waiters):
            if waiter.settled:
                winner = index
            else:
                operations[index][1].withdraw(waiter)
        if contenders is not None:
            await contenders.aclose()
    except BaseException as error:
        # What has been committed goes back as well: nobody will ever see it.
        party.claim()
        for (_, operation), waiter in zip(operations, waiters, strict=False):
            if waiter.settled or not decided:
                operation.withdraw(waiter)
        if contenders is not None:
            await contenders.aclose(error)
        raise
    return winner, waiters[winner]


class _Alarm:
    """Fails its party when the time is over."""

    __slots__ = ("_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None

    def register(self, waiter: Waiter[Any], /) -> None:
        if self._seconds <= 0:
            self._ring(waiter)
        else:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._ring, waiter)

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _ring(self, waiter: Waiter[Any]) -> None:
        if waiter.claim():
            waiter.fail(TimeoutError(f"no branch was ready within {self._seconds!r} seconds"))


class _Rounds(threading.local):
    """How many times in a row a select of this thread has found a branch ready.

    Per thread, not per task: looking up the running task would cost each call more, and between two calls of a task
    that never waits, no other task of its thread runs.
    """

    ready = 0


_rounds = _Rounds()


def _rotate(branches: list[Any]) -> None:
    """Begin anywhere: no branch that is always ready can starve the others."""
    start = int(random_source().random() * len(branches))
    branches[:] = branches[start:] + branches[:start]


def _require_timeout(timeout: float) -> None:
    if not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds, not {type(timeout).__name__}")
    if timeout != timeout:
        raise ValueError("timeout must be a number of seconds, not nan")
