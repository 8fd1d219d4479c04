"""Select: wait for several things at once, and take exactly one.

Invariant: exactly one branch commits; the others have lost nothing. Until the call returns, the committed branch can
still be given back: a select that is cancelled has taken nothing. No task is involved, unless a branch is a coroutine,
and no future, unless it has to wait.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar, overload

from yamanote.futures._branches import NOT_GIVEN, Branch, Branches, branches_of, require_timeout
from yamanote.futures._commit import commit, enter, give_back, result_of_branch, result_of_set
from yamanote.futures._contenders import Contenders
from yamanote.futures._task_set import TaskSet
from yamanote.runtime import BUDGET, TaskWaiter, Waiter, park, yield_now
from yamanote.time import timeout as limit

__all__ = ["select"]

E = TypeVar("E")
T = TypeVar("T")


@overload
def select(tasks: TaskSet[T], /, *, timeout: float | None = None) -> Coroutine[Any, Any, tuple[str, T]]: ...
@overload
def select(
    tasks: TaskSet[T], /, *, timeout: float | None = None, else_: E
) -> Coroutine[Any, Any, tuple[str, T | E]]: ...
@overload
def select(
    branches: Mapping[str, Branch],
    /,
    *,
    biased: bool = False,
    timeout: float | None = None,
    else_: Any = ...,
    **named: Branch,
) -> Coroutine[Any, Any, tuple[str, Any]]: ...
@overload
def select(
    *, biased: bool = False, timeout: float | None = None, else_: Any = ..., **branches: Branch
) -> Coroutine[Any, Any, tuple[str, Any]]: ...
def select(
    first: TaskSet[Any] | Mapping[str, Branch] | None = None,
    /,
    *,
    biased: bool = False,
    timeout: float | None = None,
    else_: Any = NOT_GIVEN,
    **named: Branch,
) -> Coroutine[Any, Any, tuple[str, Any]]:
    """Wait until the first of several branches is ready; return its name and its value.

    ::

        match await select(job=jobs, tick=ticks, stop=token, page=fetch(url)):
            case "job", job: ...
            case "tick", scheduled: ...
            case "stop", _: ...
            case "page", page: ...

    A branch is anything `Selectable` (a receiver, an interval, a token, a join handle, a task set, ...), a future or
    a task, or a coroutine. Exactly one commits. The others lose nothing: no item is received, no tick is used up,
    futures and tasks go on. Coroutines are run as tasks of this call; those that lose are cancelled and awaited, and
    what they raise meanwhile is reported by the exception handler of the loop. To keep a coroutine from one round of a
    loop to the next, put it into a `task_set`. Pass a receiver, not its ``recv()``: of two coroutines that finish in
    one turn one loses, and with it what it has received.

    ``select(tasks)`` takes the task of a set that finished first. As a branch, a set gives ``(task's name, value)``;
    while it is empty it is never ready.

    Several are ready: a random one is taken (see `set_random_source`), with `biased` the first in the order of the
    arguments. Coroutines begin only when nothing else was ready; then one that finishes at once wins.

    A branch that is None is disabled: ``job=None if paused else jobs``. When all are, or are empty task sets, the call
    returns ``("else_", else_)`` at once, if `else_` is given, whatever it is. Names that are no identifiers, or that
    are options of this call, go into a mapping: ``select({"biased": rx})``.

    What is ready takes no loop turn, but after a budget of such rounds the call yields once.

    Raises what the branch raises (ChannelClosed of a closed receiver, JoinError of a cancelled task); `failed_branch`
    tells which it was, and so does a note on the error. Raises TimeoutError when nothing was ready within `timeout`
    seconds; with 0 it does not wait. Without `else_`, raises ValueError when every branch is disabled, or the set is
    empty, or becomes so while others take the rest; also for a coroutine that has begun already.

    **Cancel safety**: a cancelled call takes nothing. **Threads**: branches may belong to other threads and loops, as
    far as they allow it themselves; in a plain thread, there is `blocking_select`.

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
    if isinstance(first, TaskSet) and not named:
        if timeout is not None:
            require_timeout(timeout)
        return _first_of_set(first, timeout, else_)
    branches, contenders = branches_of(first, named, biased=biased, else_=else_, timeout=timeout)
    return _first_of(branches, contenders)


async def _first_of(branches: Branches, contenders: Contenders[str, Any] | None) -> tuple[str, Any]:
    """Commit to one of `branches`; `contenders`, who may be one of them, have ended when this returns."""
    waiters: list[Waiter[Any]] = []
    try:
        ready = _rounds.ready
        if ready >= BUDGET:
            ready = 0
            await yield_now()
        party: TaskWaiter[Any] = TaskWaiter()
        if enter(branches, party, waiters):
            _rounds.ready = ready + 1
        else:
            _rounds.ready = 0
            await party.future
        winner = commit(branches, waiters)
        branch, waiter = branches[winner], waiters[winner]
        if contenders is not None:
            branches, waiters = [branch], [waiter]  # the others are out
            await contenders.aclose()
    except BaseException as error:
        give_back(branches, waiters)
        if contenders is not None:
            await contenders.aclose(error)
        raise
    kind = type(branch[1])
    if waiter.error is None and kind is not TaskSet and kind is not Contenders:
        return branch[0], waiter.value
    try:
        return result_of_branch(branch, waiter)
    finally:
        del branches, contenders, waiters, party, branch, waiter  # an error refers to this frame, and they to the error


async def _first_of_set(tasks: TaskSet[Any], timeout: float | None, else_: Any) -> tuple[str, Any]:
    ready = _rounds.ready
    if ready >= BUDGET:
        ready = 0
        await yield_now()
    entry = tasks._pop_nowait()
    if entry is not None or not tasks:
        _rounds.ready = ready + 1
    else:
        _rounds.ready = 0
        parked: Coroutine[Any, Any, tuple[str, asyncio.Task[Any]]] = park(tasks._until_empty())
        try:
            entry = tasks._taken(await (parked if timeout is None else limit(timeout, parked)))
        except LookupError:  # another party has taken the last one
            pass
    try:
        return result_of_set(entry, else_)
    finally:
        del entry  # an error refers to this frame, and it to the error


# A forgotten await is reported by this name.
for _inner in _first_of, _first_of_set:
    _inner.__name__ = _inner.__qualname__ = "select"


class _Rounds(threading.local):
    """How many times in a row a select of this thread has found a branch ready.

    Per thread, not per task: looking up the running task would cost each call more, and between two calls of a task
    that never waits, no other task of its thread runs.
    """

    ready = 0


_rounds = _Rounds()
