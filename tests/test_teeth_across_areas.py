"""Wrong variants of select, timeouts and what they wait for, each of which the scenarios across areas must catch."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from yamanote.channels import Receiver
from yamanote.futures import _select
from yamanote.runtime import CancellationToken, CancelScope, TaskWaiter, Waiter
from yamanote.sync import Event, Semaphore
from yamanote.testing import Counterexample, explore, explore_cancellations, replay
from yamanote.time import Interval

from .test_explored_across_areas import scenarios

leave_scope = CancelScope.__exit__
withdraw_from_channel = Receiver.withdraw
withdraw_from_semaphore = Semaphore.withdraw
withdraw_from_interval = Interval.withdraw


def keep_the_item(receiver: Receiver[Any], waiter: Waiter[Any]) -> None:
    if not waiter.settled:
        withdraw_from_channel(receiver, waiter)


def keep_the_permit(semaphore: Semaphore, waiter: Waiter[Any]) -> None:
    if not waiter.settled:
        withdraw_from_semaphore(semaphore, waiter)


def stay_in_the_queue(event: Event, waiter: Waiter[Any]) -> None:
    pass


def keep_the_tick(ticks: Interval, waiter: Waiter[Any]) -> None:
    if not waiter.settled:
        withdraw_from_interval(ticks, waiter)


def stop_nobody(token: CancellationToken) -> None:
    token._waiters.clear()


def hand_without_claiming(waiter: TaskWaiter[Any], value: Any) -> bool:
    waiter.settle(value)
    return True


def give_only_the_losers_back(branches: list[Any], waiters: list[Waiter[Any]]) -> None:
    for (_, operation), waiter in zip(branches, waiters, strict=False):
        if not waiter.settled:
            operation.withdraw(waiter)


async def recv_without_giving_back(receiver: Receiver[Any]) -> Any:
    waiter = TaskWaiter[Any]()
    receiver.register(waiter)
    await waiter.future
    return waiter.result()


def swallow_every_request(scope: CancelScope, kind: Any, error: BaseException | None, traceback: Any) -> bool:
    leave_scope(scope, kind, error, traceback)
    return isinstance(error, asyncio.CancelledError)


teeth: dict[str, tuple[Any, str, Callable[..., Any], str]] = {
    "a cancelled party keeps its item": (Receiver, "withdraw", keep_the_item, "two channels"),
    "a cancelled call keeps its item": (Receiver, "recv", recv_without_giving_back, "a channel and a time limit, call"),
    "a cancelled party keeps its permit": (Semaphore, "withdraw", keep_the_permit, "locks"),
    "a loser stays in the queue": (Event, "withdraw", stay_in_the_queue, "locks"),
    "a cancelled party keeps its tick": (Interval, "withdraw", keep_the_tick, "a token, a channel and a clock"),
    "a token wakes nobody": (CancellationToken, "_wake_waiters", stop_nobody, "a token, a channel and a clock"),
    "a select that two branches claim": (TaskWaiter, "hand", hand_without_claiming, "two channels"),
    "a select that gives nothing back": (_select, "give_back", give_only_the_losers_back, "two channels"),
}


pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # what a broken scenario leaves behind


@pytest.fixture
def break_it(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Puts a wrong variant in place, and tells in which scenario that shows."""

    def break_it(tooth: str) -> str:
        owner, method, wrong, name = teeth[tooth]
        monkeypatch.setattr(owner, method, wrong)
        return name

    yield break_it
    gc.collect()


@pytest.mark.parametrize("tooth", teeth)
def test_some_cancellation_shows_it(tooth: str, break_it: Callable[[str], str]) -> None:
    name = break_it(tooth)
    with pytest.raises(Counterexample) as found:
        explore_cancellations(scenarios[name])
    with pytest.raises(Counterexample):
        replay(scenarios[name], found.value.token)


@pytest.mark.parametrize("tooth", ["a cancelled call keeps its item", "a select that two branches claim"])
def test_some_order_shows_it(tooth: str, break_it: Callable[[str], str]) -> None:
    name = break_it(tooth)
    with pytest.raises(Counterexample) as found:
        explore(scenarios[name])
    with pytest.raises(Counterexample):
        replay(scenarios[name], found.value.token)
