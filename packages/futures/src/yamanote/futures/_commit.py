"""Commit: one party at many branches, of which it gets exactly one.

Invariant: the party is registered on one branch after the other, with waiters that share one claim: one of them is
settled at most. After `commit` the others have been withdrawn and have lost nothing; after `give_back`, that one too.

That is all of a select but the waiting itself, which a task and a thread do each in its own way.
"""

from __future__ import annotations

import asyncio
from typing import Any

from yamanote.futures._branches import NOT_GIVEN, Alarm, Branches
from yamanote.futures._contenders import Contenders
from yamanote.futures._failed_branch import mark_branch
from yamanote.futures._ownership import result_of
from yamanote.futures._task_set import TaskSet
from yamanote.runtime import TaskWaiter, ThreadWaiter, Waiter

__all__ = ["commit", "enter", "give_back", "result_of_branch", "result_of_set"]


def enter(branches: Branches, party: TaskWaiter[Any] | ThreadWaiter[Any], waiters: list[Waiter[Any]]) -> bool:
    """Register `party` on one after the other, until one is ready; tell whether one was.

    What has been registered, or is about to be, is in `waiters`: also when this raises.
    """
    waiter: Waiter[Any] = party
    for name, operation in branches:
        if waiters:
            waiter = party.branch()
        waiters.append(waiter)
        try:
            operation.register(waiter)
        except Exception as error:
            if type(operation) is not Alarm and type(operation) is not Contenders:
                mark_branch(error, (name,))
            raise
        if waiter.settled:
            return True
    return False


def commit(branches: Branches, waiters: list[Waiter[Any]]) -> int:
    """Withdraw from all branches but the one that was settled; return its position."""
    winner = 0
    for index, waiter in enumerate(waiters):
        if waiter.settled:
            winner = index
        else:
            branches[index][1].withdraw(waiter)
    return winner


def give_back(branches: Branches, waiters: list[Waiter[Any]]) -> None:
    """Withdraw from all, also from the one that was settled: nobody will ever see what it handed over."""
    for (_, operation), waiter in zip(branches, waiters, strict=False):
        waiter.claim()
        operation.withdraw(waiter)


def result_of_branch(branch: tuple[str, Any], waiter: Waiter[Any]) -> tuple[str, Any]:
    """The name and the value of the branch that was committed; or its error, with the name on it."""
    name, operation = branch
    path: tuple[str, ...] = () if type(operation) is Alarm else (name,)
    try:
        value = waiter.result()
        if type(operation) is Contenders:
            path = value[:1]
            return value[0], result_of(value[1])
        if type(operation) is TaskSet:
            path = (name, value[0])
            return name, (value[0], result_of(operation._taken(value)[1]))
        return name, value
    except BaseException as error:
        if path:
            mark_branch(error, path)
        raise
    finally:
        value = None
        del branch, operation, waiter  # the error refers to this frame, and they to the error


def result_of_set(entry: tuple[str, asyncio.Task[Any]] | None, else_: Any) -> tuple[str, Any]:
    """The name and the value of the task that was taken from a set; `else_`, if there was none; or its error."""
    if entry is None:
        if else_ is NOT_GIVEN:
            raise ValueError("the task set is empty")
        return "else_", else_
    try:
        return entry[0], result_of(entry[1])
    except BaseException as error:
        mark_branch(error, (entry[0],))
        raise
    finally:
        del entry  # the error refers to this frame, and it to the error
