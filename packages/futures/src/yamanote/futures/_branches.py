"""Branches: what a select was given, as one list of named things that a party can be registered on.

Invariant: here, nothing is registered, started or taken yet. When something is refused, the coroutines are closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Mapping
from inspect import CORO_CREATED, getcoroutinestate, isawaitable
from types import CoroutineType
from typing import Any, Final, TypeAlias, final

from yamanote.futures._contenders import Contenders
from yamanote.futures._ownership import advice_about, close_unstarted
from yamanote.futures._task_set import TaskSet
from yamanote.runtime import JoinHandle, Selectable, Waiter, random_source

__all__ = ["NOT_GIVEN", "Alarm", "Branch", "Branches", "branches_of", "require_timeout"]

Branch: TypeAlias = Selectable[Any] | Awaitable[Any] | None
Branches: TypeAlias = list[tuple[str, Selectable[Any]]]

NOT_GIVEN: Final[Any] = object()
"""For `else_`, which may be anything, also None."""


def branches_of(
    first: Mapping[str, Branch] | TaskSet[Any] | None,
    named: dict[str, Any],
    *,
    biased: bool,
    else_: Any,
    timeout: float | None = None,
    in_thread: bool = False,
) -> tuple[Branches, Contenders[str, Any] | None]:
    """The branches in the order in which they are looked at: then the coroutines, all in one, and the time limit.

    Raises TypeError for what is no branch, ValueError for what cannot be one any more, and when none is left.
    """
    if first is not None and not isinstance(first, Mapping):
        close_unstarted([*(first if isinstance(first, Collection) else [first]), *named.values()])
        if isinstance(first, TaskSet):
            raise TypeError("a task set among other branches needs a name: select(tasks=tasks, ...)")
        raise TypeError(f"a branch needs a name: select(name=...), not select({first!r})")
    given: dict[str, Any] = named if first is None else {**first, **named}
    coroutines: dict[str, Awaitable[Any]] = {}
    try:
        if first is not None and len(given) < len(first) + len(named):
            raise ValueError("a branch is given twice, in the mapping and by name")
        # Of the type, because a class has the methods of its instances.
        for name in [name for name, branch in given.items() if not hasattr(type(branch), "withdraw")]:
            branch = given[name]
            if branch is None:
                del given[name]
            elif hasattr(branch, "withdraw") and not isinstance(branch, type):
                continue
            elif in_thread and isawaitable(branch):
                raise TypeError(f"branch {name!r} needs an event loop, and cannot be selected in a thread: {branch!r}")
            elif asyncio.isfuture(branch):
                given[name] = JoinHandle(branch)
            else:
                _require_unstarted(name, branch, coroutines)
                coroutines[name] = given.pop(name)
        branches: Branches = [*given.items()]
        for _, operation in branches:
            if type(operation) is not TaskSet or operation:
                break
        else:  # nothing, or empty sets
            if not coroutines:
                if else_ is NOT_GIVEN:
                    raise ValueError("every branch is disabled: this would wait for ever")
                branches = [("else_", _Ready(else_))]
        if timeout is not None:
            require_timeout(timeout)
    except BaseException:
        close_unstarted([*given.values(), *coroutines.values(), *(first or {}).values()])
        raise
    if not biased and len(branches) > 1:
        branches = _from_anywhere(branches)
    contenders: Contenders[str, Any] | None = None
    if coroutines:
        unstarted = [*coroutines.items()]
        contenders = Contenders(unstarted if biased else _from_anywhere(unstarted))
        branches.append(("", contenders))
    if timeout is not None:
        branches.append(("", Alarm(timeout)))
    return branches, contenders


def _require_unstarted(name: str, branch: Any, others: dict[str, Awaitable[Any]]) -> None:
    if not isawaitable(branch):
        advice = " (to send: `tx.sending(item)`)" if hasattr(branch, "sending") else advice_about(branch)
        raise TypeError(f"branch {name!r} can neither be selected nor awaited{advice}: {branch!r}")
    if type(branch) is CoroutineType and getcoroutinestate(branch) != CORO_CREATED:
        raise ValueError(
            f"branch {name!r} is a coroutine that has begun or was closed already: make a new one for each round, or "
            "keep it from one round to the next in a task_set"
        )
    for other, awaitable in others.items():
        if awaitable is branch:
            raise ValueError(f"the branches {other!r} and {name!r} are one and the same coroutine")


def _from_anywhere(branches: list[Any]) -> list[Any]:
    """The same from another one on: no branch that is always ready can starve the others."""
    start = int(random_source().random() * len(branches))
    return branches[start:] + branches[:start] if start else branches


@final
class _Ready:
    """Hands over its value to whoever asks, at once."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def register(self, waiter: Waiter[Any], /) -> None:
        waiter.hand(self._value)

    def withdraw(self, waiter: Waiter[Any], /) -> None: ...


@final
class Alarm:
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


def require_timeout(timeout: float) -> None:
    if not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds, not {type(timeout).__name__}")
    if timeout != timeout:
        raise ValueError("timeout must be a number of seconds, not nan")
