"""Select for plain threads: the same engine, with a thread that waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, overload

from yamanote.futures._branches import NOT_GIVEN, branches_of
from yamanote.futures._commit import commit, enter, give_back, result_of_branch, result_of_set
from yamanote.futures._ownership import close_unstarted
from yamanote.futures._task_set import TaskSet
from yamanote.runtime import Selectable, ThreadWaiter, Waiter, park_thread, refuse_loop_thread

__all__ = ["blocking_select"]

E = TypeVar("E")
T = TypeVar("T")


@overload
def blocking_select(tasks: TaskSet[T], /, *, timeout: float | None = None) -> tuple[str, T]: ...
@overload
def blocking_select(tasks: TaskSet[T], /, *, timeout: float | None = None, else_: E) -> tuple[str, T | E]: ...
@overload
def blocking_select(
    branches: Mapping[str, Selectable[Any] | None],
    /,
    *,
    biased: bool = False,
    timeout: float | None = None,
    else_: Any = ...,
    **named: Selectable[Any] | None,
) -> tuple[str, Any]: ...
@overload
def blocking_select(
    *, biased: bool = False, timeout: float | None = None, else_: Any = ..., **branches: Selectable[Any] | None
) -> tuple[str, Any]: ...
def blocking_select(
    first: TaskSet[Any] | Mapping[str, Selectable[Any] | None] | None = None,
    /,
    *,
    biased: bool = False,
    timeout: float | None = None,
    else_: Any = NOT_GIVEN,
    **named: Selectable[Any] | None,
) -> tuple[str, Any]:
    """`select`, for plain threads: block until the first of several branches is ready; return its name and its value.

    A branch is anything `Selectable` that does without an event loop: a receiver, a lock, a token, a join handle, a
    task set of a loop in another thread, but no interval. Coroutines, and asyncio's futures and tasks, raise TypeError:
    bring them to a loop, and select their join handle.

    Otherwise as `select`: `biased`, `else_`, disabled branches, errors and their `failed_branch`. Raises TimeoutError
    when nothing was ready within `timeout` seconds, and RuntimeError in a thread that runs an event loop.

    **Cancel safety**: a call that KeyboardInterrupt ends has taken nothing. **Threads**: the branches may be served by
    any thread and loop, as far as they allow it themselves.

    >>> from threading import Timer
    >>> from yamanote.futures import blocking_select
    >>> from yamanote.runtime import CancellationToken
    >>> stop, pause = CancellationToken(), CancellationToken()
    >>> Timer(0.001, stop.cancel).start()
    >>> blocking_select(pause=pause, stop=stop, timeout=60)
    ('stop', None)
    """
    try:
        refuse_loop_thread(timeout)
    except BaseException:
        close_unstarted([*(first.values() if isinstance(first, Mapping) else (first,)), *named.values()])
        raise
    if isinstance(first, TaskSet) and not named:
        entry = first._pop_nowait()
        if entry is None and first:
            try:
                entry = first._taken(park_thread(first._until_empty(), timeout))
            except LookupError:  # another party has taken the last one
                pass
        return result_of_set(entry, else_)
    branches, _ = branches_of(first, named, biased=biased, else_=else_, in_thread=True)
    party: ThreadWaiter[Any] = ThreadWaiter()
    waiters: list[Waiter[Any]] = []
    try:
        enter(branches, party, waiters)
        if not party.sleep(timeout):
            if party.claim():
                raise TimeoutError(f"no branch was ready within {timeout!r} seconds")
            party.sleep()  # it was claimed at the last moment: the value is on its way
        winner = commit(branches, waiters)
    except BaseException:  # KeyboardInterrupt, too
        give_back(branches, waiters)
        raise
    try:
        return result_of_branch(branches[winner], waiters[winner])
    finally:
        del branches, party, waiters  # an error refers to this frame, and they to the error
