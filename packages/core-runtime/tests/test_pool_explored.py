"""Calls and pools, stopped at each of their instructions while another thread runs through there; and wrong ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from yamanote.runtime import BlockingPool, CancellationToken, JoinError
from yamanote.runtime._call import Call, CallHandle, Inbox, inbox_of
from yamanote.runtime._pool import PoolThread
from yamanote.testing import Counterexample, explore_preemptions

Operation = Callable[[], object]
Scenario = Callable[[], tuple[Operation, Operation, Operation]]


class Crew:
    """A pool, and a thread of it whose work the explorer does."""

    def __init__(self) -> None:
        self.pool = BlockingPool(1, idle=0)
        self.thread = PoolThread(self.pool, "explored")
        self.made: list[int] = []

    def call(self, number: int = 1) -> Call[Any]:
        call = Call(self.made.append, (number,), {}, inbox_of(None))
        call.inbox.unfinished.add(call)
        return call

    def make(self, call: Call[Any]) -> None:
        if call.make(self.thread):
            call.inbox.put(call)

    def work(self) -> None:
        """The whole life of the thread."""
        self.pool._work(self.thread)


def a_call_is_made_or_dropped() -> tuple[Operation, Operation, Operation]:
    crew = Crew()
    call = crew.call()

    def check() -> None:
        assert call.future.done()
        assert crew.made == ([] if call.future.cancelled() else [1])
        assert call not in call.inbox.unfinished

    return lambda: crew.make(call), lambda: call.abort("enough"), check


def a_call_in_progress_is_told() -> tuple[Operation, Operation, Operation]:
    crew = Crew()
    tokens: list[CancellationToken] = []
    call: Call[None] = Call(lambda: tokens.append(call.get_token()), (), {}, inbox_of(None))

    def check() -> None:
        assert call.future.cancelled() or tokens[0].is_cancelled() or call.future.result() is None
        if tokens and call.aborted:
            assert tokens[0].is_cancelled()

    return lambda: crew.make(call), lambda: call.abort("enough"), check


def two_results_arrive() -> tuple[Operation, Operation, Operation]:
    crew = Crew()
    calls = [crew.call(number) for number in range(2)]

    def check() -> None:
        assert all(call.future.done() for call in calls)

    return lambda: crew.make(calls[0]), lambda: crew.make(calls[1]), check


def a_call_comes_as_the_thread_leaves() -> tuple[Operation, Operation, Operation]:
    crew = Crew()
    crew.pool._threads.add(crew.thread)
    call = crew.call()

    def check() -> None:
        CallHandle(call).result(0.5)
        assert crew.made == [1]

    return lambda: crew.pool._enter(call), crew.work, check


def a_call_comes_as_the_pool_is_closed() -> tuple[Operation, Operation, Operation]:
    crew = Crew()
    call = crew.call()

    def enter() -> None:
        try:
            crew.pool._enter(call)
        except RuntimeError:
            call.abort("refused")

    def check() -> None:
        try:
            CallHandle(call).result(0.5)
        except JoinError:
            assert crew.made == []
        else:
            assert crew.made == [1]
        assert crew.pool._end(5) == []

    return enter, crew.pool._close, check


def a_thread_leaves_while_somebody_counts() -> tuple[Operation, Operation, Operation]:
    crew = Crew()
    crew.pool._threads.add(crew.thread)
    crew.thread.completed = 3
    counted: list[int] = []

    def check() -> None:
        assert counted == [3] and crew.pool.statistics().completed == 3

    return lambda: counted.append(crew.pool.statistics().completed), crew.work, check


def two_threads_ask_for_one_loop() -> tuple[Operation, Operation, Operation]:
    loop = asyncio.new_event_loop()
    found: list[Inbox] = []

    def ask() -> None:
        found.append(inbox_of(loop))

    def check() -> None:
        loop.close()
        assert found[0] is found[1]

    return ask, ask, check


@pytest.mark.parametrize(
    ("scenario", "within"),
    [
        (a_call_is_made_or_dropped, "yamanote.runtime._call"),
        (a_call_in_progress_is_told, "yamanote.runtime._call"),
        (two_results_arrive, "yamanote.runtime._call"),
        (a_call_comes_as_the_thread_leaves, "yamanote.runtime._pool"),
        (a_call_comes_as_the_pool_is_closed, "yamanote.runtime._pool"),
        (a_thread_leaves_while_somebody_counts, "yamanote.runtime._pool"),
        (two_threads_ask_for_one_loop, "yamanote.runtime._call"),
    ],
)
def test_a_thread_may_be_preempted_anywhere(scenario: Scenario, within: str) -> None:
    explore_preemptions(scenario, within=within)


# ---------------------------------------------------------------------- teeth


def claims_without_asking(self: Call[Any]) -> bool:
    return True


def forgets_to_look_again(self: Call[Any]) -> CancellationToken:
    if self.token is None:
        self.token = CancellationToken()
    return self.token


def wakes_before_it_says_so(self: Inbox, call: Call[Any]) -> None:
    if not self._woken:
        self._woken = True
        self.loop.call_soon_threadsafe(self._deliver)
    self._arrived.append(call)


def looks_before_it_leaves(self: BlockingPool, thread: PoolThread) -> bool:
    self._idle.remove(thread)
    with self._changing:
        if self._calls:
            return True
        self._threads.discard(thread)
        self._left(thread)
    return False


def takes_a_call_and_starts_no_thread(self: BlockingPool, call: Call[Any]) -> None:
    self._calls.append(call)
    if self._idle:
        self._idle.pop().wake.put(None)


def counts_without_the_lock(self: BlockingPool) -> Any:
    class Figures:
        completed = self._completed + sum(thread.completed for thread in list(self._threads))

    return Figures


@pytest.mark.parametrize(
    ("owner", "name", "wrong", "scenario"),
    [
        (Call, "claim", claims_without_asking, a_call_is_made_or_dropped),
        (Call, "get_token", forgets_to_look_again, a_call_in_progress_is_told),
        (Inbox, "put", wakes_before_it_says_so, two_results_arrive),
        (BlockingPool, "_rest", looks_before_it_leaves, a_call_comes_as_the_thread_leaves),
        (BlockingPool, "_enter", takes_a_call_and_starts_no_thread, a_call_comes_as_the_pool_is_closed),
        (BlockingPool, "statistics", counts_without_the_lock, a_thread_leaves_while_somebody_counts),
    ],
)
def test_a_wrong_one_is_caught(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, wrong: Any, scenario: Scenario
) -> None:
    monkeypatch.setattr(owner, name, wrong)
    with pytest.raises(Counterexample):
        explore_preemptions(scenario, within=f"{__package__}.test_pool_explored")
