"""Wrong variants of this area, each of which its explored scenarios must catch."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from yamanote.futures import CompletionQueue, Completions
from yamanote.futures._contenders import Contenders
from yamanote.futures._together import _Together
from yamanote.runtime import TaskWaiter, Waiter
from yamanote.testing import Counterexample, explore, explore_cancellations, replay

from .test_futures_explored import disturbed, scenarios, undisturbed


def keep_what_a_cancelled_party_was_handed(queue: CompletionQueue[Any, Any], waiter: Waiter[Any]) -> None:
    if not waiter.settled and waiter in queue._waiters:
        queue._waiters.remove(waiter)


def last_in_first_out(queue: CompletionQueue[Any, Any], task: asyncio.Task[Any]) -> None:
    queue._finished.appendleft((queue._running.pop(task), task))
    queue._match()


def only_for_those_who_wait(queue: CompletionQueue[Any, Any], task: asyncio.Task[Any]) -> None:
    entry = (queue._running.pop(task), task)
    if queue._waiters:
        queue._finished.append(entry)
        queue._match()


def tell_nobody_of_the_end(queue: CompletionQueue[Any, Any]) -> None:
    for waiter in queue._waiters.copy():
        if waiter.operation == "until ended" and not queue._running:
            queue._waiters.remove(waiter)
            waiter.hand(None)


def give_back_to_nobody(queue: CompletionQueue[Any, Any], waiter: Waiter[Any]) -> None:
    if waiter in queue._waiters:
        queue._waiters.remove(waiter)
    elif waiter.settled and waiter.error is None:
        queue._finished.appendleft(waiter.value)  # and whoever is parked stays parked


def forget_to_withdraw(queue: CompletionQueue[Any, Any], waiter: Waiter[Any]) -> None:
    if waiter.settled and waiter.error is None:
        queue._finished.appendleft(waiter.value)
        queue._match()


def hand_over_twice(queue: CompletionQueue[Any, Any]) -> None:
    while queue._waiters and queue._finished:
        if queue._waiters.popleft().hand(queue._finished[0]) and not queue._waiters:
            queue._finished.popleft()
    if not (queue._running or queue._finished):
        queue._end_waits()


async def shut_without_waiting(queue: CompletionQueue[Any, Any]) -> None:
    queue._shut()


async def wait_for_nobody(together: _Together[Any], number: int) -> None:
    together.running = 0


async def wait_for_no_place(together: _Together[Any], number: int) -> None:
    if not number:
        await wait_until_running(together, number)


def tell_nobody_of_a_cancellation(together: _Together[Any], msg: str | None = None) -> bool:
    return True


def decide_for_the_last(together: _Together[Any], task: asyncio.Task[Any]) -> None:
    if not together.running:
        decide(together, task)


wait_until_running: Any = _Together.until_running
decide = _Together._decide


async def leave_the_losers_running(contenders: Contenders[Any, Any], error: BaseException | None = None) -> None:
    contenders._queue.cancel_all()


def hand_without_claiming(waiter: TaskWaiter[Any], value: Any) -> bool:
    waiter.settle(value)
    return True


def cancel_nobody(queue: CompletionQueue[Any, Any], task: asyncio.Task[Any]) -> None:
    queue.decisive = task


async def take_no_notice_of_the_rest(results: Completions[Any]) -> asyncio.Task[Any] | None:
    if results._unstarted is not None:
        results._queue.add(next(results._unstarted), None, eager=True)
    try:
        return (await results._queue.pop())[1]
    except LookupError:
        return None


def as_many_as_it_likes(queue: CompletionQueue[Any, Any]) -> int:
    return min(1, len(queue._running) + len(queue._finished))


teeth: dict[str, tuple[type, str, Callable[..., Any], str]] = {
    "a cancelled party keeps what it was handed": (
        CompletionQueue,
        "withdraw",
        keep_what_a_cancelled_party_was_handed,
        "task set, two parties",
    ),
    "what came back is offered to nobody": (CompletionQueue, "withdraw", give_back_to_nobody, "pop for ever"),
    "last in, first out": (CompletionQueue, "_finish", last_in_first_out, "pop, one party"),
    "a completion while nobody waits": (CompletionQueue, "_finish", only_for_those_who_wait, "pop, one party"),
    "a party that is never told of the end": (CompletionQueue, "_end_waits", tell_nobody_of_the_end, "close"),
    "a forgotten waiter": (CompletionQueue, "withdraw", forget_to_withdraw, "select"),
    "one completion for two": (CompletionQueue, "_match", hand_over_twice, "pop, more tasks"),
    "close does not wait": (CompletionQueue, "aclose", shut_without_waiting, "close"),
    "a race does not await its losers": (_Together, "until_running", wait_for_nobody, "race"),
    "a gather does not await what it runs": (_Together, "until_running", wait_for_nobody, "gather"),
    "a race that the first does not win": (_Together, "_decide", decide_for_the_last, "race"),
    "a join that cannot be cancelled": (_Together, "cancel", tell_nobody_of_a_cancellation, "join"),
    "a select does not await its losers": (Contenders, "aclose", leave_the_losers_running, "select, coroutines"),
    "a select that two branches claim": (TaskWaiter, "hand", hand_without_claiming, "select"),
    "more than the limit": (_Together, "until_running", wait_for_no_place, "gather"),
    "more than the limit, one by one": (CompletionQueue, "__len__", as_many_as_it_likes, "as completed, two parties"),
    "a decision that stops nobody": (CompletionQueue, "_judge", cancel_nobody, "errors of amass"),
    "who takes the last is the end": (
        Completions,
        "_next_task",
        take_no_notice_of_the_rest,
        "as completed, two parties",
    ),
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


@pytest.mark.parametrize("tooth", [tooth for tooth in teeth if teeth[tooth][3] in scenarios | disturbed])
def test_some_cancellation_shows_it(tooth: str, break_it: Callable[[str], str]) -> None:
    name = break_it(tooth)
    with pytest.raises(Counterexample) as found:
        explore_cancellations((scenarios | disturbed)[name])
    with pytest.raises(Counterexample):
        replay((scenarios | disturbed)[name], found.value.token)


@pytest.mark.parametrize(
    "tooth", ["a select that two branches claim", "one completion for two", "a decision that stops nobody"]
)
def test_some_order_shows_it(tooth: str, break_it: Callable[[str], str]) -> None:
    name = break_it(tooth)
    with pytest.raises(Counterexample) as found:
        explore((scenarios | undisturbed)[name])
    with pytest.raises(Counterexample):
        replay((scenarios | undisturbed)[name], found.value.token)
