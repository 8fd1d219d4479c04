"""Delay queues in any order of their steps, cancelled at each of their awaits, and broken on purpose."""

from __future__ import annotations

import asyncio
import gc
import heapq
from collections.abc import Callable, Coroutine, Hashable, Iterable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from yamanote.runtime import Waiter
from yamanote.testing import Counterexample, explore, explore_cancellations, replay
from yamanote.time import DelayQueue, sleep, time
from yamanote.time._timetable import Timetable

Scenario = Callable[[], Coroutine[Any, Any, None]]


async def ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Wait until `tasks` have ended; raise what went wrong in them."""
    tasks = list(tasks)
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


def armed_timers() -> int:
    loop: Any = asyncio.get_running_loop()
    return sum(not timer.cancelled() for timer in loop._scheduled)


async def comes_once(parties: int) -> None:
    """Every item comes once, in order, and not before its time, whoever gives up meanwhile."""
    queue: DelayQueue[int] = DelayQueue()
    came: list[tuple[int, float]] = []
    inserted: list[int] = []

    async def receive() -> None:
        async for item in queue:
            came.append((item, time()))

    async def insert() -> None:
        for number, seconds in enumerate((2, 2, 0, 1)):
            queue.insert(number, seconds)
            inserted.append(number)
            await sleep(1)

    closing = asyncio.get_running_loop().call_at(6, queue.close)
    receivers = [asyncio.create_task(receive()) for _ in range(parties)]
    await ended([*receivers, asyncio.create_task(insert())])
    closing.cancel()
    assert "0 waiting" in repr(queue)
    assert not armed_timers()
    queue.close()
    someone_was_there = not all(receiver.cancelled() for receiver in receivers)
    await receive()  # what those who gave up have left
    assert sorted(item for item, _ in came) == inserted
    due = {0: 2, 1: 3, 2: 2, 3: 4}
    assert all(when == due[item] if someone_was_there else when >= due[item] for item, when in came)
    if parties == 1:
        assert all(
            due[one] <= due[other] or time_of_one < due[other] for (one, time_of_one), (other, _) in pairwise(came)
        )
    assert "0 items, 0 waiting" in repr(queue)
    assert queue._heap == []


async def is_managed(parties: int) -> None:
    """An item that is put off comes at its last time; one that is removed in time never comes. Each ends up once."""
    queue: DelayQueue[str] = DelayQueue()
    outcome: dict[str, float] = {}

    async def receive() -> None:
        async for item in queue:
            assert item not in outcome
            outcome[item] = time()

    async def manage() -> None:
        await sleep(1)
        if "off" in queue:
            queue.reset("off", 3)
            put_off.append(time() + 3)
        await sleep(1)
        if "gone" in queue:
            outcome[queue.remove("gone")] = -1

    put_off: list[float] = []
    for seconds, key in [(2, "off"), (2, "gone"), (1, "other")]:
        queue.insert(key, seconds, key=key)
    closing = asyncio.get_running_loop().call_at(6, queue.close)
    await ended([*(asyncio.create_task(receive()) for _ in range(parties)), asyncio.create_task(manage())])
    closing.cancel()
    queue.close()
    await receive()
    assert sorted(outcome) == ["gone", "off", "other"]
    assert outcome["off"] >= (put_off[0] if put_off else 2)
    assert not armed_timers()
    assert len(queue) == 0


async def tells_the_end(parties: int) -> None:
    """When the last item has come, or was removed, everybody is told that nothing more will."""
    queue: DelayQueue[int] = DelayQueue()
    key = queue.insert(1, 1)
    last = queue.insert(2, 2)

    async def receive() -> None:
        async for _ in queue:
            pass
        assert time() == 1

    def finish() -> None:
        queue.close()
        for each in (key, last):
            try:
                queue.remove(each)
            except KeyError:
                pass  # it has been received

    asyncio.get_running_loop().call_at(1, finish)
    await ended([asyncio.create_task(receive()) for _ in range(parties)])
    await receive()
    assert not armed_timers()


scenarios: dict[str, Scenario] = {
    **{f"items, parties: {parties}": partial(comes_once, parties) for parties in (1, 2, 3)},
    **{f"keys, parties: {parties}": partial(is_managed, parties) for parties in (1, 2)},
    "the end": partial(tells_the_end, 3),
}


@pytest.mark.parametrize("name", scenarios)
def test_in_any_order(name: str) -> None:
    explore(scenarios[name], runs=40)


@pytest.mark.parametrize("name", scenarios)
def test_cancelled_anywhere(name: str) -> None:
    explore_cancellations(scenarios[name], runs=60)


def keep_the_item(queue: DelayQueue[Any], entry: Any) -> None:
    pass


def give_back_to_nobody(queue: DelayQueue[Any], waiter: Waiter[Any]) -> None:
    if waiter.settled:
        queue._give_back(waiter.operation)
    elif waiter in queue._waiters:
        queue._waiters.remove(waiter)


def forget_who_has_gone(queue: DelayQueue[Any], waiter: Waiter[Any]) -> None:
    if waiter.settled:
        queue._give_back(waiter.operation)
        queue._changed()


def leave_the_timer(queue: Timetable[Any]) -> None:
    pass


def remove_in_silence(queue: DelayQueue[Any], key: Hashable) -> Any:
    entry = queue._entries.pop(key)
    entry.is_filed = False
    return entry.item


def come_by_the_first_deadline(queue: DelayQueue[Any], entry: Any, deadline: float, turn: int) -> None:
    if not hasattr(entry, "turn") or not entry.is_filed:
        entry.is_filed = True
        entry.deadline = deadline
        entry.turn = turn
        heapq.heappush(queue._heap, (deadline, turn, entry))


def last_in_first_out(queue: DelayQueue[Any], entry: Any, deadline: float, turn: int) -> None:
    entry.is_filed = True
    entry.deadline = -1
    entry.turn = turn
    heapq.heappush(queue._heap, (deadline, turn, entry))


teeth: dict[str, tuple[type, str, Callable[..., Any], str]] = {
    "a cancelled party keeps its item": (DelayQueue, "_give_back", keep_the_item, "items, parties: 1"),
    "an item that came back waits for nobody": (DelayQueue, "withdraw", give_back_to_nobody, "items, parties: 2"),
    "a timer runs for nobody": (DelayQueue, "_disarm", leave_the_timer, "items, parties: 1"),
    "who has gone is still in the queue": (DelayQueue, "withdraw", forget_who_has_gone, "items, parties: 1"),
    "nobody is told the end": (DelayQueue, "remove", remove_in_silence, "the end"),
    "a reset changes nothing": (DelayQueue, "_file", come_by_the_first_deadline, "keys, parties: 1"),
    "items come too early": (DelayQueue, "_file", last_in_first_out, "items, parties: 1"),
}


@pytest.mark.parametrize("tooth", teeth)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_wrong_variant_is_caught(tooth: str, monkeypatch: pytest.MonkeyPatch, collected: None) -> None:
    owner, method, wrong, name = teeth[tooth]
    monkeypatch.setattr(owner, method, wrong)
    with pytest.raises(Counterexample) as found:
        explore_cancellations(scenarios[name])
    with pytest.raises(Counterexample):
        replay(scenarios[name], found.value.token)


@pytest.fixture
def collected() -> Iterator[None]:
    """What a broken scenario leaves behind goes before the next test."""
    yield
    gc.collect()
