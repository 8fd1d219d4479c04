"""Select over what signals: events, notifications, latches, buttons, cargoes and values that are set once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from yamanote.futures import select
from yamanote.runtime import yield_now
from yamanote.sync import Button, Cargo, Event, Latch, Notify, SetOnce
from yamanote.testing import explore, explore_cancellations

Signal = tuple[Any, Callable[[], object], object]


def signals() -> dict[str, Signal]:
    """For each: what to select over, how to bring it about, and what it gives."""
    event, notify, latch, button = Event(), Notify(), Latch(), Button()
    cargo, once = Cargo[int](), SetOnce[int]()
    changing = Latch()
    return {
        "event": (event, event.set, True),
        "one": (notify.notified(), notify.notify_one, None),
        "all": (notify.notified(), notify.notify_waiters, None),
        "set": (latch.wait_set(), latch.set, True),
        "changed": (changing.wait(), changing.set, True),
        "button": (button, button.press, None),
        "cargo": (cargo, lambda: cargo.press(7), 7),
        "once": (once, lambda: once.set(8), 8),
    }


@pytest.mark.parametrize("name", signals())
async def test_each_is_a_branch_and_no_task_is_started_for_it(name: str) -> None:
    branch, bring_about, value = signals()[name]
    selecting = asyncio.create_task(select({name: branch}, other=Event()))
    await yield_now()
    await yield_now()
    assert len(asyncio.all_tasks()) == 2
    bring_about()
    assert await selecting == (name, value)


async def test_a_branch_that_is_not_chosen_leaves_nothing_behind() -> None:
    event, notify, button = Event(), Notify(), Button()
    selecting = asyncio.create_task(select(event=event, notified=notify.notified(), button=button))
    await yield_now()
    await yield_now()
    button.press()
    assert await selecting == ("button", None)
    assert event.statistics().waiting == notify.statistics().waiting == button.statistics().waiting == 0


async def work_that_is_announced_is_done_by_somebody() -> None:
    notify, stop = Notify(), Event()
    work = 0
    waiting = 0

    async def wait(branch: Callable[[], Awaitable[object]]) -> None:
        nonlocal waiting
        waiting += 1
        try:
            await branch()
        finally:
            waiting -= 1

    async def selects() -> None:
        nonlocal work
        while not stop.is_set():
            work = 0
            await wait(lambda: select(stop=stop, notified=notify.notified()))

    async def works() -> None:
        nonlocal work
        while not stop.is_set():
            work = 0
            await wait(notify.notified)

    async def announces() -> None:
        nonlocal work
        for _ in range(2):
            work += 1
            notify.notify_one()
            await asyncio.sleep(0)

    async def stops() -> None:
        await asyncio.sleep(0)
        stop.set()

    parts = [asyncio.create_task(part()) for part in (selects, works, announces, stops)]
    await asyncio.sleep(10)
    assert stop.is_set() or not (work and waiting), "there is work, and somebody waits for it"
    stop.set()
    notify.notify_waiters()
    for part in parts:
        part.cancel()
    await asyncio.wait(parts)
    assert notify.statistics().waiting == 0


def test_no_order_of_the_steps_loses_a_notification_in_a_select() -> None:
    explore(work_that_is_announced_is_done_by_somebody, runs=60)


def test_no_cancellation_loses_a_notification_in_a_select() -> None:
    explore_cancellations(work_that_is_announced_is_done_by_somebody, runs=80)
