from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from yamanote.runtime import (
    TaskWaiter,
    ThreadWaiter,
    Waiter,
    park,
    park_thread,
    refuse_loop_thread,
    run,
    start_task,
    yield_now,
)


class Box:
    """A selectable that hands out what is put into it, first in, first out. One mutex around everything."""

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.items: list[Any] = []
        self.waiters: list[Waiter[Any]] = []
        self.returned: list[Any] = []

    def put(self, item: Any) -> None:
        with self.mutex:
            self.items.append(item)
            self._match()

    def fail(self, error: BaseException) -> None:
        with self.mutex:
            while self.waiters:
                waiter = self.waiters.pop(0)
                if waiter.claim():
                    waiter.fail(error)

    def register(self, waiter: Waiter[Any], /) -> None:
        with self.mutex:
            self.waiters.append(waiter)
            self._match()

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        with self.mutex:
            if waiter in self.waiters:
                self.waiters.remove(waiter)
            elif waiter.settled and waiter.error is None:
                self.returned.append(waiter.value)
                self.items.insert(0, waiter.value)
                self._match()

    def _match(self) -> None:
        while self.items and self.waiters:
            waiter = self.waiters.pop(0)
            if waiter.claim():
                waiter.settle(self.items.pop(0))


# claiming


@pytest.mark.parametrize("kind", [TaskWaiter, ThreadWaiter])
async def test_a_waiter_is_claimed_once_over_all_its_branches(kind: type[Waiter[Any]]) -> None:
    waiter = kind()  # type: ignore[call-arg]
    branches = [waiter.branch(), waiter.branch()]
    assert branches[1].claim()
    assert not waiter.claim() and not branches[0].claim() and not branches[1].claim()
    branches[1].settle("value")
    assert branches[1].settled and not waiter.settled and not branches[0].settled


@pytest.mark.parametrize("kind", [TaskWaiter, ThreadWaiter])
async def test_of_many_threads_one_claims(kind: type[Waiter[Any]]) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(50):
            waiter = kind()  # type: ignore[call-arg]
            start = threading.Barrier(4)
            claims: list[bool] = []

            def claim(waiter: Any = waiter, start: Any = start, claims: Any = claims) -> None:
                branch = waiter.branch()
                start.wait()
                claims.append(branch.claim())

            threads = [threading.Thread(target=claim) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(claims) == [False, False, False, True]
    finally:
        sys.setswitchinterval(interval)


async def test_a_task_that_has_been_cancelled_cannot_be_claimed_any_more() -> None:
    box = Box()
    first, second = start_task(park(box)), start_task(park(box))
    await yield_now()
    first.cancel()
    box.put("item")  # before `first` has run: the item goes to the one that still waits
    assert await second == "item"
    assert first.cancelled() and box.returned == []


async def test_a_task_that_has_been_cancelled_can_be_handed_nothing() -> None:
    box = Box()
    task = start_task(park(box))
    await yield_now()
    (waiter,) = box.waiters
    task.cancel()
    assert not waiter.hand("item") and not waiter.settled
    assert Waiter.claim(waiter), "it was claimed, though nothing was handed over"
    with pytest.raises(asyncio.CancelledError):
        await task
    assert box.returned == []


def test_a_task_on_a_closed_loop_cannot_be_claimed() -> None:
    box = Box()
    loop = asyncio.new_event_loop()

    async def wait() -> TaskWaiter[Any]:
        waiter: TaskWaiter[Any] = TaskWaiter()
        box.register(waiter)
        return waiter

    waiter = loop.run_until_complete(wait())
    loop.close()
    assert not waiter.claim()
    box.put("item")
    assert box.items == ["item"]


def test_settling_after_the_loop_was_closed_raises_nothing() -> None:
    async def make() -> TaskWaiter[Any]:
        return TaskWaiter()

    loop = asyncio.new_event_loop()
    waiters = [loop.run_until_complete(make()) for _ in range(2)]
    assert waiters[0].claim() and waiters[1].claim()
    loop.close()
    waiters[0].settle("value")
    waiters[1].fail(LookupError())


# going to sleep


@pytest.mark.parametrize("served", range(4))
async def test_the_future_of_a_party_is_done_whichever_branch_was_settled_before_it_was_made(served: int) -> None:
    party: TaskWaiter[Any] = TaskWaiter()
    waiters = [party, party.branch(), party.branch()]
    if served < 3:
        assert waiters[served].hand("item")
    assert party.future.done() == (served < 3)
    assert party.future is party.branch().future
    if served == 3:
        assert party.branch().hand("item")
        assert party.future.done()


async def test_who_finds_what_it_waits_for_makes_no_future(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr("yamanote.runtime._waiter.Future", made.append)
    box = Box()
    box.put("item")
    assert await park(box) == "item"
    assert made == []


def test_a_party_that_another_thread_has_served_before_it_sleeps_wakes_up() -> None:
    loop = asyncio.new_event_loop()

    async def wait() -> None:
        party: TaskWaiter[Any] = TaskWaiter()
        waiters = [party.branch(), party.branch()]
        thread = threading.Thread(target=waiters[0].hand, args=["item"])
        thread.start()
        thread.join()
        await party.future
        assert waiters[0].result() == "item"

    loop.run_until_complete(wait())
    loop.close()


# parking tasks


async def test_a_parked_task_gets_what_is_handed_over_in_order() -> None:
    box = Box()
    tasks = [start_task(park(box)) for _ in range(3)]
    await yield_now()
    for item in (None, "", LookupError("an item")):
        box.put(item)
    results = [await task for task in tasks]
    assert results[:2] == [None, ""] and isinstance(results[2], LookupError)


async def test_what_is_ready_needs_no_loop_turn() -> None:
    box = Box()
    box.put("item")
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    assert await park(box) == "item"
    assert turns == []


async def test_parking_takes_one_turn_after_the_wake_up() -> None:
    box = Box()
    log: list[str] = []

    async def wait() -> None:
        log.append(await park(box))

    task = start_task(wait())
    await yield_now()
    box.put("item")
    assert log == []
    await yield_now()
    assert log == ["item"]
    await task


async def test_an_error_that_is_handed_over_is_raised() -> None:
    box = Box()
    task = start_task(park(box))
    await yield_now()
    box.fail(LookupError("handed over"))
    with pytest.raises(LookupError, match="handed over"):
        await task


async def test_who_is_cancelled_while_parked_is_forgotten() -> None:
    box = Box()
    task = start_task(park(box))
    await yield_now()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert box.waiters == [] and box.returned == []


async def test_who_is_cancelled_after_the_hand_over_gives_it_back_to_the_next() -> None:
    box = Box()
    first, second = start_task(park(box)), start_task(park(box))
    await yield_now()
    box.put("item")
    first.cancel()  # it has been settled, and has not run since
    with pytest.raises(asyncio.CancelledError):
        await first
    assert box.returned == ["item"]
    assert await second == "item"


async def test_a_coroutine_that_is_thrown_away_gives_back_too() -> None:
    box = Box()
    coroutine = park(box)
    coroutine.send(None)
    box.put("item")
    coroutine.close()
    assert box.returned == ["item"] and box.items == ["item"]


# other loops and threads


def test_a_task_is_woken_from_another_loop_and_from_a_plain_thread() -> None:
    box, ready = Box(), threading.Event()
    results: list[Any] = []

    async def wait() -> None:
        task = start_task(park(box))
        await yield_now()
        ready.set()
        results.append(await task)

    async def put_on_another_loop() -> None:
        box.put("from a loop")

    for put in (lambda: run(put_on_another_loop()), lambda: box.put("from a thread")):
        ready.clear()
        thread = threading.Thread(target=run, args=(wait(),))
        thread.start()
        ready.wait()
        put()
        thread.join()
    assert results == ["from a loop", "from a thread"]


def test_a_cancellation_that_races_with_a_thread_loses_nothing() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    async def race() -> None:
        for number in range(200):
            box = Box()
            task = start_task(park(box))
            await yield_now()
            thread = threading.Thread(target=box.put, args=(number,))
            thread.start()
            for _ in range(number % 4):
                await yield_now()
            task.cancel()
            received: list[int] = []
            try:
                received.append(await task)
            except asyncio.CancelledError:
                pass
            thread.join()
            await yield_now()
            assert received + box.items == [number]

    try:
        run(race())
    finally:
        sys.setswitchinterval(interval)


def test_a_thread_parks_until_it_is_served() -> None:
    box = Box()
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(park_thread(box, 60))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(3):
        box.put(number)
    for thread in threads:
        thread.join()
    assert sorted(results) == [0, 1, 2]


def test_a_thread_raises_the_error_that_it_is_handed() -> None:
    box = Box()
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            park_thread(box)
        except LookupError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not box.waiters:
        pass
    box.fail(LookupError())
    thread.join()
    assert len(errors) == 1


@pytest.mark.parametrize("timeout", [0, -1, 0.001])
def test_a_thread_gives_up_after_its_time(timeout: float) -> None:
    box = Box()
    with pytest.raises(TimeoutError):
        park_thread(box, timeout)
    assert box.waiters == []
    box.put("item")
    assert park_thread(box, timeout) == "item"


def test_a_thread_that_gives_up_while_it_is_served_loses_nothing() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(200):
            box = Box()
            thread = threading.Thread(target=box.put, args=(number,))
            thread.start()
            received: list[int] = []
            try:
                received.append(park_thread(box, 0.00001 * (number % 8)))
            except TimeoutError:
                pass
            thread.join()
            assert received + box.items == [number]
    finally:
        sys.setswitchinterval(interval)


def test_a_thread_that_is_interrupted_gives_back(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box()

    def interrupted(self: ThreadWaiter[Any], timeout: float | None = None) -> bool:
        box.put("item")
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadWaiter, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        park_thread(box)
    assert box.returned == ["item"] and box.items == ["item"]


def test_a_thread_that_is_interrupted_when_it_was_claimed_at_the_last_moment_gives_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    box = Box()

    def interrupted(self: ThreadWaiter[Any], timeout: float | None = None) -> bool:
        if timeout is None:
            raise KeyboardInterrupt
        box.put("item")
        return False  # too late to be woken in time

    monkeypatch.setattr(ThreadWaiter, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        park_thread(box, 0.01)
    assert box.returned == ["item"] and box.items == ["item"]


@pytest.mark.parametrize("blocking", [refuse_loop_thread, lambda: park_thread(Box())])
async def test_a_thread_that_runs_a_loop_must_not_block(blocking: Callable[[], Any]) -> None:
    with pytest.raises(RuntimeError, match="would block the event loop"):
        blocking()


def test_without_a_loop_a_thread_may_block() -> None:
    refuse_loop_thread()
