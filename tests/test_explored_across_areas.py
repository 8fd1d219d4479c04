"""Select and timeouts over channels and locks, in any order of the steps, and cancelled at each await."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

import pytest

from yamanote.channels import ChannelClosed, Receiver, Sender, channel, channel_unbounded
from yamanote.futures import failed_branch, select
from yamanote.runtime import CancellationToken, yield_now
from yamanote.sync import Event, Lock, Semaphore
from yamanote.testing import explore, explore_cancellations
from yamanote.time import interval_at, sleep, timeout

Scenario = Callable[[], Coroutine[Any, Any, None]]


async def ended(tasks: Iterable[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """Wait until `tasks` have ended; raise what went wrong in them, and return those that were cancelled."""
    tasks = list(tasks)
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()
    return [task for task in tasks if task.cancelled()]


class Lines:
    """Channels by name, a task that sends through each, and what was sent and seen."""

    def __init__(self, **capacities: int | None) -> None:
        self.receivers: dict[str, Receiver[int]] = {}
        self.sent: dict[str, list[int]] = {}
        self.seen: dict[str, list[int]] = {}
        self.sending: list[asyncio.Task[None]] = []
        for name, capacity in capacities.items():
            sender, receiver = channel_unbounded[int]() if capacity is None else channel[int](capacity)
            self.receivers[name] = receiver
            self.sent[name], self.seen[name] = [], []
            task = asyncio.create_task(self.send(name, sender))
            task.add_done_callback(lambda _, sender=sender: sender.close())  # it may be cancelled before it begins
            self.sending.append(task)

    async def send(self, name: str, sender: Sender[int]) -> None:
        for number in range(3):
            await sleep(number % 2)
            permit = await sender.reserve()  # unlike a `send` that is cancelled, it tells whether it has sent
            permit.send(number)
            self.sent[name].append(number)

    async def end(self) -> None:
        await ended(self.sending)
        for receiver in self.receivers.values():
            receiver.close()
        for name in self.sent:
            assert sorted(self.seen[name]) == self.sent[name]


async def selects_from(takers: int, **capacities: int | None) -> None:
    """Every item of every channel is taken once, in order; a closed channel is told apart from the others."""
    lines = Lines(**capacities)
    left = dict(lines.receivers)
    taken: list[dict[str, list[int]]] = []

    async def take() -> None:
        taken.append({name: [] for name in capacities})
        mine = taken[-1]
        while left:
            try:
                name, number = await select(left)
            except ChannelClosed as error:
                left.pop(*failed_branch(error), None)
            else:
                lines.seen[name].append(number)
                mine[name].append(number)

    cancelled = await ended([asyncio.create_task(take()) for _ in range(takers)])
    for name, receiver in lines.receivers.items():  # what came back after the others had been told of the end
        left[name] = receiver
    await take()
    await lines.end()
    if not cancelled:  # else what came back to the front may be taken after what was behind it
        assert all(numbers == sorted(numbers) for mine in taken for numbers in mine.values())
    if takers == 1:
        assert lines.seen == lines.sent


async def stops() -> None:
    """A token that stops the loop over a channel and a clock leaves every item and every tick where it was."""
    lines = Lines(job=1)
    (jobs,) = lines.receivers.values()
    token, ticks = CancellationToken(), interval_at(1, 1)
    seen: list[float] = []

    async def take() -> None:
        open_jobs: Receiver[int] | None = jobs
        while True:
            try:
                name, value = await select(stop=token, job=open_jobs, tick=ticks)
            except ChannelClosed:
                open_jobs = None
                continue
            if name == "stop":
                return
            (seen if name == "tick" else lines.seen["job"]).append(value)
            assert len(seen) < 9, "the stop never came"

    async def stop() -> None:
        await sleep(2)
        token.cancel()

    stopping = asyncio.create_task(stop())
    stopping.add_done_callback(lambda _: token.cancel())
    await ended([asyncio.create_task(take()), stopping])
    async for number in jobs:
        lines.seen["job"].append(number)
    seen.append(await ticks.tick())
    await lines.end()
    assert lines.seen == lines.sent
    assert seen == [1 + number for number in range(len(seen))]


async def shares(count: int) -> None:
    """Whoever gets one of two locks has it alone, whoever gets none takes none, and in the end both are free."""
    lock, semaphore, event = Lock(), Semaphore(2), Event()
    inside = {"lock": 0, "permit": 0, "both": 0}
    most = {"lock": 1, "permit": 2, "both": 1}
    release: dict[str, Callable[[], None]] = {
        "lock": lock.release,
        "permit": semaphore.release,
        "both": lambda: semaphore.release(2),
    }

    async def work() -> None:
        for _ in range(2):
            name, _ = await select(lock=lock, permit=semaphore, both=semaphore.acquire_many(2), never=event)
            try:
                inside[name] += 1
                assert inside[name] <= most[name]
                assert not inside["both"] or not inside["permit"]
                await yield_now()
            finally:
                inside[name] -= 1
                release[name]()

    await ended([asyncio.create_task(work()) for _ in range(count)])
    assert not lock.locked()
    assert semaphore.tokens() == 2
    assert lock.statistics().waiting == semaphore.statistics().waiting == event._cell.parked == 0


async def waits_in_vain(form: str) -> None:
    """An item that comes in the very moment in which the time is over is taken, or is still there."""
    lines = Lines(job=1)
    (jobs,) = lines.receivers.values()

    async def take() -> None:
        while True:
            try:
                if form == "select":
                    _, number = await select(job=jobs, timeout=1)
                elif form == "call":
                    number = await timeout(1, jobs.recv())
                else:
                    async with timeout(1):
                        number = await jobs.recv()
            except TimeoutError:
                continue
            except ChannelClosed:
                return
            lines.seen["job"].append(number)

    await ended([asyncio.create_task(take())])
    await take()
    await lines.end()
    assert lines.seen == lines.sent


scenarios: dict[str, Scenario] = {
    "two channels": partial(selects_from, 1, a=1, b=2),
    "two channels, one without bounds": partial(selects_from, 1, a=None, b=1),
    "two channels, two parties": partial(selects_from, 2, a=1, b=1),
    "a token, a channel and a clock": stops,
    "locks": partial(shares, 3),
    **{f"a channel and a time limit, {form}": partial(waits_in_vain, form) for form in ("select", "call", "block")},
}


@pytest.mark.parametrize("name", scenarios)
def test_in_any_order(name: str) -> None:
    explore(scenarios[name], runs=40)


@pytest.mark.parametrize("name", scenarios)
def test_cancelled_anywhere(name: str) -> None:
    explore_cancellations(scenarios[name], runs=60)
