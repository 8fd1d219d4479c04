"""What may be used from any thread, while other threads do the same.

Two operations at a time, one of them stopped before each of its instructions while the other runs through; and then
many at once, with the smallest switch interval.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest

from yamanote.runtime import (
    CancellationToken,
    CriticalSection,
    JoinError,
    JoinHandle,
    TaskWaiter,
    ThreadWaiter,
    Waiter,
    park_thread,
    run,
    spawn,
    start_task,
    yield_now,
)
from yamanote.testing import Call, History, explore_preemptions

Operation = Callable[[], object]
Scenario = Callable[[], tuple[Operation, Operation, Operation]]


class Box:
    """The least that can be waited for, from any thread."""

    def __init__(self) -> None:
        self.section = CriticalSection()
        self.items: list[int] = []
        self.waiters: list[Waiter[int]] = []

    def put(self, item: int) -> None:
        with self.section:
            self.items.append(item)
            self._match()

    def register(self, waiter: Waiter[Any], /) -> None:
        with self.section:
            self.waiters.append(waiter)
            self._match()

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        with self.section:
            if waiter in self.waiters:
                self.waiters.remove(waiter)
            elif waiter.settled:
                self.items.insert(0, waiter.value)
                self._match()

    def _match(self) -> None:
        while self.items and self.waiters:
            if self.waiters.pop(0).hand(self.items[0]):
                del self.items[0]


# ---------------------------------------------------------------- one preemption, everywhere


def two_hand_something_to_one_party() -> tuple[Operation, Operation, Operation]:
    waiter: ThreadWaiter[int] = ThreadWaiter()
    branches = [waiter.branch(), waiter.branch()]
    handed = []

    def check() -> None:
        assert sorted(handed) == [False, True]
        assert [branch.settled for branch in branches].count(True) == 1
        assert waiter.sleep(0) and not waiter.sleep(0)

    first, second = ((lambda b=branch: handed.append(b.hand(1))) for branch in branches)
    return first, second, check


def a_thread_gives_up_while_it_is_served() -> tuple[Operation, Operation, Operation]:
    box = Box()
    taken = []

    def take() -> None:
        try:
            taken.append(park_thread(box, 0))
        except TimeoutError:
            pass

    def check() -> None:
        assert taken + box.items == [1] and not box.waiters

    return take, lambda: box.put(1), check


def a_task_is_cancelled_while_it_is_served() -> tuple[Operation, Operation, Operation]:
    box = Box()
    loop = asyncio.new_event_loop()
    waiter: TaskWaiter[int] = loop.run_until_complete(_make(TaskWaiter))
    box.register(waiter)

    def give_up() -> None:
        waiter.future.cancel()
        waiter.claim()
        box.withdraw(waiter)

    def check() -> None:
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        assert box.items == [1] and not box.waiters

    return give_up, lambda: box.put(1), check


async def _make(kind: Callable[[], Any]) -> Any:
    return kind()


def work_is_brought_while_somebody_is_inside() -> tuple[Operation, Operation, Operation]:
    section = CriticalSection()
    inside: list[str] = []
    done: list[str] = []

    def work(name: str) -> None:
        assert not inside
        inside.append(name)
        done.append(name)
        inside.remove(name)

    def enter() -> None:
        with section:
            work("entered")
            section.run(lambda: work("brought from inside"))
            section.afterwards.append(lambda: done.append("afterwards"))

    def bring() -> None:
        section.run(lambda: work("brought"))
        if section.try_enter():
            work("tried")
            section.leave()

    def check() -> None:
        assert sorted(set(done) - {"tried"}) == ["afterwards", "brought", "brought from inside", "entered"]
        assert len(done) == len(set(done))

    return enter, bring, check


def a_token_is_cancelled_while_it_gets_a_waiter_and_a_child() -> tuple[Operation, Operation, Operation]:
    token = CancellationToken()
    waiter: ThreadWaiter[None] = ThreadWaiter()
    children = []

    def use() -> None:
        token.register(waiter)
        children.append(token.child_token())

    def check() -> None:
        assert waiter.sleep(0) and not token._waiters
        assert token.reason == children[0].reason == "enough"

    return use, lambda: token.cancel("enough"), check


def a_token_is_cancelled_twice() -> tuple[Operation, Operation, Operation]:
    token = CancellationToken()
    child = token.child_token()
    seen = []

    def cancel(reason: str) -> None:
        token.cancel(reason)
        seen.append((token.reason, child.reason))

    def check() -> None:
        assert len(set(seen)) == 1 and token.reason == child.reason

    return lambda: cancel("one"), lambda: cancel("the other"), check


def a_thread_waits_for_a_task_whose_loop_stops(close: bool = False) -> tuple[Operation, Operation, Operation]:
    loop = asyncio.new_event_loop()
    release = loop.create_future()
    handle: JoinHandle[str] = loop.run_until_complete(_make(lambda: spawn(_await(release))))
    values = []

    def wait() -> None:
        values.append(handle.result(60))

    def let_it_end() -> None:
        release.set_result("value")
        loop.run_until_complete(_await(handle))
        if close:
            loop.close()

    def check() -> None:
        loop.close()
        assert values == ["value"]

    return wait, let_it_end, check


def a_thread_waits_for_a_task_whose_loop_is_closed() -> tuple[Operation, Operation, Operation]:
    return a_thread_waits_for_a_task_whose_loop_stops(close=True)


async def _await(awaitable: Awaitable[str]) -> str:
    return await awaitable


@pytest.mark.parametrize(
    ("scenario", "within"),
    [
        (two_hand_something_to_one_party, "yamanote.runtime._waiter"),
        (a_thread_gives_up_while_it_is_served, "yamanote.runtime._waiter"),
        (a_task_is_cancelled_while_it_is_served, "yamanote.runtime._waiter"),
        (work_is_brought_while_somebody_is_inside, "yamanote.runtime._critical"),
        (a_token_is_cancelled_while_it_gets_a_waiter_and_a_child, "yamanote.runtime._token"),
        (a_token_is_cancelled_twice, "yamanote.runtime._token"),
        (a_thread_waits_for_a_task_whose_loop_stops, "yamanote.runtime._join"),
        (a_thread_waits_for_a_task_whose_loop_is_closed, "yamanote.runtime._join"),
    ],
)
def test_a_thread_may_be_preempted_anywhere(scenario: Scenario, within: str) -> None:
    explore_preemptions(scenario, within=within)


# ---------------------------------------------------------------- many at once


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def at_once(*operations: Operation) -> None:
    """Each in a thread of its own, all started together; raises what they raise."""
    start = threading.Barrier(len(operations))
    errors: list[BaseException] = []

    def body(operation: Operation) -> None:
        try:
            start.wait()
            operation()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(operation,), daemon=True) for operation in operations]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def test_a_token_is_linearizable(hasty: None) -> None:
    def model(reason: str | None, call: Call) -> Iterator[tuple[object, str | None]]:
        if call.name == "cancel":
            yield None, reason or str(call.arguments[0])
        else:
            yield reason, reason

    def use(token: CancellationToken, history: History, reason: str) -> None:
        for _ in range(2):
            with history.calling("reason") as call:
                call.result = token.reason
            history.call(token.cancel, reason)

    for _ in range(20):
        token = CancellationToken()
        history = History()
        at_once(*(partial(use, token, history, reason) for reason in "abcd"))
        history.assert_linearizable(model, None)


@pytest.mark.parametrize("end", ["value", "error", "abort"])
def test_a_task_is_awaited_and_aborted_from_everywhere(hasty: None, end: str) -> None:
    """By tasks of its own loop and of another, some of which give up, and by threads: all see the same end."""
    ready = threading.Barrier(4)
    handle: JoinHandle[str]
    ends: list[str] = []

    async def work() -> str:
        await asyncio.sleep(0.001)
        if end == "error":
            raise LookupError
        return "value"

    async def ask() -> None:
        try:
            ends.append(await handle)
        except (LookupError, JoinError) as error:
            ends.append(type(error).__name__)

    async def ask_often() -> None:
        ready.wait()
        asking = [start_task(ask()) for _ in range(10)]
        await yield_now()
        for task in asking[::3]:
            task.cancel()
        await asyncio.wait(asking)

    async def at_home() -> None:
        nonlocal handle
        handle = spawn(work())
        await ask_often()

    def in_a_thread() -> None:
        ready.wait()
        if end == "abort":
            handle.abort()
        try:
            ends.append(handle.result(60))
        except (LookupError, JoinError) as error:
            ends.append(type(error).__name__)

    for _ in range(3):
        ends.clear()
        at_once(lambda: run(at_home()), lambda: run(ask_often()), in_a_thread, in_a_thread)
        assert len(set(ends)) == 1 and len(ends) >= 2 + 2 * 6
