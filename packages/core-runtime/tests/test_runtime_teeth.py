"""The ladder has teeth: each of these wrong runtimes is caught, by a scenario that the right one passes."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest

from yamanote.runtime import (
    CancellationToken,
    CancelScope,
    CriticalSection,
    JoinHandle,
    TaskGroup,
    TaskWaiter,
    Waiter,
    _cancel,
    _join,
)
from yamanote.testing import Counterexample, explore, explore_cancellations, explore_preemptions, replay

from . import test_runtime_explored as explored
from . import test_runtime_threads as threaded

TEETH: list[Any] = []


def tooth(owner: Any, name: str, *scenarios: str) -> Callable[[Callable[..., Any]], Any]:
    """Put this wrong function in the place of the right one: it must be caught by each of these scenarios."""

    def add(wrong: Callable[..., Any]) -> Any:
        for scenario in scenarios:
            TEETH.append(pytest.param(owner, name, wrong, scenario, id=f"{wrong.__name__}: {scenario}"))
        return wrong

    return add


# ---------------------------------------------------------------- waiters


@tooth(TaskWaiter, "hand", "tasks_parked_at_two_boxes")
def hands_over_to_everybody_who_asks(self: TaskWaiter[Any], value: object) -> bool:
    self.value, self.settled = value, True
    if not self.future.done():
        self.future.set_result(None)
    return True


@tooth(explored, "park", "tasks_parked_at_two_boxes")
async def is_not_withdrawn_when_it_is_cancelled(operation: Any) -> Any:
    waiter: TaskWaiter[Any] = TaskWaiter()
    operation.register(waiter)
    await waiter.future
    return waiter.result()


@tooth(explored.Box, "withdraw", "tasks_parked_at_two_boxes")
def gives_nothing_back(self: explored.Box, waiter: Waiter[Any]) -> None:
    if waiter in self.waiters:
        self.waiters.remove(waiter)


# ---------------------------------------------------------------- handles


@tooth(_join._Join, "cancel", "several_await_one_handle[value]")
def cancels_what_it_waits_for(self: Any, msg: str | None = None) -> bool:
    return bool(self._future.cancel())


@tooth(JoinHandle, "withdraw", "several_await_one_handle[error, parked]")
def keeps_an_error_that_was_given_back(self: JoinHandle[Any], waiter: Waiter[Any]) -> None:
    if not waiter.settled:
        _join.not_when_done(self._future, waiter)


@tooth(JoinHandle, "_delivered", "several_await_one_handle[error]", "several_await_one_handle[error, parked]")
def reports_what_is_delivered(self: JoinHandle[Any]) -> None:
    future = self._future
    future.get_loop().call_exception_handler({"message": "never retrieved", "exception": future.exception()})


@tooth(_cancel, "wait_for_end", "cancelled_and_waited_for")
async def does_not_wait_when_it_is_cancelled_itself(futures: Iterable[asyncio.Future[Any]]) -> None:
    await asyncio.wait(futures)


# ---------------------------------------------------------------- scopes


def leave(scope: CancelScope) -> asyncio.Task[Any]:
    task = scope._task
    assert task is not None
    scope._delivered = False
    scope.__right_exit__(None, None, None)  # type: ignore[attr-defined]
    return task


@tooth(CancelScope, "__exit__", "nested_scopes[1/1]", "one_scope[cancel_from_inside]")
def leaves_its_request_behind(self: CancelScope, kind: type[BaseException] | None, *_: object) -> bool:
    delivered = self._delivered
    leave(self)
    self._caught = delivered and kind is CancelledError
    return self._caught


@tooth(CancelScope, "__exit__", "nested_scopes[2/5, 1/2]", "scopes_among_standard_timeouts")
def swallows_the_cancellations_of_others(self: CancelScope, kind: type[BaseException] | None, *_: object) -> bool:
    delivered = self._delivered
    task = leave(self)
    if delivered:
        task.uncancel()
    self._caught = kind is CancelledError
    return self._caught


@tooth(CancelScope, "__exit__", "nested_scopes[1/1]")
def is_cancelled_by_its_deadline_when_it_has_ended(self: CancelScope, *error: Any) -> bool:
    task = self._task
    swallowed = bool(self.__right_exit__(*error))  # type: ignore[attr-defined]
    if self._deadline is not None and not self._called:
        asyncio.get_running_loop().call_at(self._deadline, task.cancel)  # type: ignore[union-attr]
    return swallowed


@tooth(CancelScope, "_deliver", "nested_scopes[1/5, shield 2/2]")
def ignores_shields(self: CancelScope) -> None:
    if self._task is not None and not self._delivered:
        self._delivered = self._task.cancel()


@tooth(CancelScope, "_deliver", "one_scope[cancel_from_another_task]")
def cancels_again_who_goes_on(self: CancelScope) -> None:
    if self._task is not None:
        self._delivered = self._task.cancel()
        asyncio.get_running_loop().call_later(1, self._deliver)


# ---------------------------------------------------------------- groups


CALM = "task_group[ends, ends, ends; ends, limit=1, deadline=None]"
FAILING = "task_group[fails, fails in clean-up, spawns; waits, limit=None, deadline=None]"


@tooth(TaskGroup, "__aexit__", CALM, FAILING)
async def does_not_wait_for_its_children(self: TaskGroup, *error: Any) -> bool:
    self._active = 0
    return bool(await self.__right_aexit__(*error))  # type: ignore[attr-defined]


@tooth(TaskGroup, "_failed", FAILING)
def knows_one_error_only(self: TaskGroup, error: BaseException) -> None:
    self._errors = self._errors or [error]
    self._abort(None)


@tooth(TaskGroup, "_abort", FAILING)
def cancels_its_body_alone(self: TaskGroup, reason: str | None) -> None:
    self._aborting = True
    self._body.cancel(reason)


@tooth(CancelScope, "_raise_again", "task_group[fails in clean-up, waits; fails, limit=None, deadline=1]")
def forgets_the_cancellation_that_errors_took_the_place_of(self: CancelScope, task: object) -> None:
    pass


@tooth(TaskGroup, "_enqueue", CALM)
def lets_the_last_one_start_first(self: TaskGroup, *arguments: Any) -> Any:
    handle = self.__right_enqueue__(*arguments)  # type: ignore[attr-defined]
    self._queue.rotate(1)
    return handle


@tooth(TaskGroup, "spawn", CALM)
def has_room_for_one_more(self: TaskGroup, coro: Any, **options: Any) -> Any:
    self._active -= 1
    try:
        return self.__right_spawn__(coro, **options)  # type: ignore[attr-defined]
    finally:
        self._active += 1


# ---------------------------------------------------------------- tokens


@tooth(CancellationToken, "withdraw", "token_tree[leaf]")
def remembers_who_gave_up(self: CancellationToken, waiter: Waiter[Any]) -> None:
    pass


@tooth(CancellationToken, "_wake_waiters", "token_tree[leaf]")
def wakes_the_first_one_only(self: CancellationToken) -> None:
    for waiter in list(self._waiters)[:1]:
        self._waiters.pop(waiter)
        waiter.hand(None)


@tooth(CancellationToken, "child_token", "token_tree[root]")
def forgets_its_children(self: CancellationToken) -> CancellationToken:
    return CancellationToken()


@pytest.mark.parametrize(("owner", "name", "wrong", "scenario"), TEETH)
def test_it_is_caught(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, wrong: Callable[..., Any], scenario: str
) -> None:
    monkeypatch.setattr(owner, f"__right_{name.strip('_')}__", getattr(owner, name, None), raising=False)
    monkeypatch.setattr(owner, name, wrong)
    function = explored.SCENARIOS[scenario]
    undisturbed = partial(explored.left_alone, function)
    with pytest.raises(Counterexample) as caught:
        explore(undisturbed, runs=200)
        explore_cancellations(function, runs=200)
    with pytest.raises(Counterexample):
        replay(function if "@" in caught.value.token else undisturbed, caught.value.token)


# ---------------------------------------------------------------- between threads


def looks_before_it_claims(self: Waiter[Any]) -> bool:
    if not self._claim:
        return False
    self._claim.clear()
    return True


def looks_before_it_enters_itself(self: CancellationToken, waiter: Waiter[Any]) -> None:
    if self._reasons:
        waiter.hand(None)
    else:
        self._waiters[waiter] = None


def does_not_look_again_for_work(self: CriticalSection) -> None:
    while self._work and self._depth == 1:
        self._work.pop(0)()
    self._depth -= 1
    self._release()


def does_not_look_again_for_the_end(future: asyncio.Future[Any], callback: Callable[..., object]) -> bool:
    if future.done():
        callback(future)
        return True
    try:
        future.get_loop().call_soon_threadsafe(future.add_done_callback, callback)
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize(
    ("owner", "name", "wrong", "scenario"),
    [
        (Waiter, "claim", looks_before_it_claims, threaded.two_hand_something_to_one_party),
        (
            CancellationToken,
            "register",
            looks_before_it_enters_itself,
            threaded.a_token_is_cancelled_while_it_gets_a_waiter_and_a_child,
        ),
        (
            CriticalSection,
            "leave",
            does_not_look_again_for_work,
            threaded.work_is_brought_while_somebody_is_inside,
        ),
        (
            _join,
            "when_done",
            does_not_look_again_for_the_end,
            threaded.a_thread_waits_for_a_task_whose_loop_is_closed,
        ),
    ],
)
def test_it_is_caught_between_threads(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, wrong: Callable[..., Any], scenario: Any
) -> None:
    monkeypatch.setattr(owner, name, wrong)
    with pytest.raises(Counterexample) as caught:
        explore_preemptions(scenario)
    with pytest.raises(Counterexample):
        explore_preemptions(scenario, token=caught.value.token)
