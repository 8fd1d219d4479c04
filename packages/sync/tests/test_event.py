"""What events promise."""

import asyncio
import threading
from contextlib import suppress

import pytest

from yamanote.runtime import BUDGET, park, yield_now
from yamanote.sync import Event
from yamanote.testing import explore_preemptions


async def settled() -> None:
    """Let every task run until it waits for somebody else."""
    for _ in range(20):
        await yield_now()


async def test_setting_an_event_wakes_all_first_come_first():
    event = Event()
    order = []

    async def wait(name):
        await event.wait()
        order.append(name)

    tasks = [asyncio.create_task(wait(name)) for name in range(10)]
    await settled()
    assert event.set()
    assert not event.set()
    await asyncio.gather(*tasks)
    assert order == list(range(10))


async def test_who_waited_is_woken_even_when_the_event_is_cleared_at_once():
    event = Event()
    waiting = asyncio.create_task(event.wait())
    await settled()
    event.set()
    assert event.clear()
    assert not event.clear()
    await asyncio.wait_for(waiting, 5)
    assert not event.is_set()


async def test_waiting_for_a_set_event_yields_once_in_a_while():
    event = Event()
    event.set()
    turns = 0
    done = False
    loop = asyncio.get_running_loop()

    def tick():
        nonlocal turns
        if not done:
            turns += 1
            loop.call_soon(tick)

    loop.call_soon(tick)
    for _ in range(BUDGET - 1):
        await event.wait()
    assert turns == 0
    for _ in range(5 * BUDGET):
        await event.wait()
    done = True
    assert 4 <= turns <= 6


async def test_a_cancelled_waiter_leaves_nothing_behind():
    event = Event()
    first, second = asyncio.create_task(event.wait()), asyncio.create_task(event.wait())
    await settled()
    first.cancel()
    await asyncio.wait([first])
    assert "1 waiting" in repr(event)
    assert event.statistics().waiting == 1
    event.set()
    await second
    assert "set, 0 waiting" in repr(event)


def test_an_event_is_set_across_threads_both_ways():
    there, back = Event(), Event()

    async def loop():
        await there.wait()
        back.set()

    thread = threading.Thread(target=lambda: asyncio.run(loop()))
    thread.start()
    there.set()
    assert back.blocking_wait(timeout=10)
    thread.join()
    assert not Event().blocking_wait(timeout=0.001)


async def test_blocking_in_the_thread_of_a_loop_is_refused():
    with pytest.raises(RuntimeError, match="event loop"):
        Event().blocking_wait()


async def test_an_event_can_be_parked_on_like_anything_selectable():
    event = Event()
    waiting = asyncio.create_task(park(event))
    await settled()
    event.set()
    assert await waiting is True
    assert await park(event) is True


def test_waiting_in_a_thread_for_a_set_event_does_not_block():
    event = Event()
    event.set()
    assert event.blocking_wait(0)
    with pytest.raises(ValueError, match="timeout"):
        event.blocking_wait(float("nan"))


def test_who_waits_in_several_threads_gives_way_as_often_as_in_one(monkeypatch):
    monkeypatch.setattr("yamanote.sync._event.BUDGET", 1)

    def scenario():
        event = Event()
        event.set()

        def wait():
            with suppress(StopIteration):
                event.wait().send(None)

        def check():
            assert 0 <= event._left <= 1, "nobody gives way any more"

        return wait, wait, check

    explore_preemptions(scenario, within="yamanote")
