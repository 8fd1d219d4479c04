"""What latches promise."""

import asyncio
import threading

import pytest

from yamanote.runtime import BUDGET, yield_now
from yamanote.sync import Latch


async def settled() -> None:
    """Let every task run until it waits for somebody else."""
    for _ in range(20):
        await yield_now()


async def test_both_states_are_waited_for():
    latch = Latch()
    assert await latch.wait_unset() is False
    waiting = asyncio.ensure_future(latch.wait_set())
    await settled()
    assert not waiting.done()
    assert latch.set()
    assert await waiting is True
    assert await latch.wait_set() is True
    waiting = asyncio.ensure_future(latch.wait_unset())
    await settled()
    assert latch.unset()
    assert await waiting is False
    assert not latch.is_set()


async def test_a_change_is_told_only_when_there_is_one():
    latch = Latch()
    assert [latch.unset(), latch.set(), latch.set(), latch.unset()] == [False, True, False, True]
    assert [latch.toggle(True), latch.toggle(True), latch.is_set(), latch.toggle(False)] == [True, False, True, True]


async def test_a_pulse_settles_every_wait_that_it_meets():
    latch = Latch()
    for_set, changed = asyncio.ensure_future(latch.wait_set()), asyncio.ensure_future(latch.wait())
    await settled()
    latch.set()
    latch.unset()
    assert await asyncio.wait_for(for_set, 5) is True
    assert await asyncio.wait_for(changed, 5) is True
    assert not latch.is_set()


async def test_the_next_change_counts_from_the_call():
    latch = Latch()
    latch.set()
    changed = latch.wait()
    later = asyncio.ensure_future(changed)
    await settled()
    assert not later.done()
    latch.set()  # no change
    await settled()
    assert not later.done()
    latch.unset()
    assert await later is False
    assert await changed is False  # it stays true


async def test_everybody_is_woken_first_come_first():
    latch = Latch()
    order = []

    async def wait(name):
        await latch.wait_set()
        order.append(name)

    tasks = [asyncio.create_task(wait(name)) for name in range(5)]
    await settled()
    latch.set()
    await asyncio.gather(*tasks)
    assert order == list(range(5))


async def test_waiting_for_what_is_so_already_yields_once_in_a_while():
    latch = Latch()
    other = asyncio.create_task(asyncio.sleep(0))
    for _ in range(3 * BUDGET):
        await latch.wait_unset()
    assert other.done()


async def test_a_cancelled_waiter_leaves_nothing_behind():
    latch = Latch()
    waiting = asyncio.ensure_future(latch.wait())
    await settled()
    assert "unset, 1 waiting" in repr(latch)
    waiting.cancel()
    await asyncio.wait([waiting])
    latch.set()
    assert "<Latch set, 0 waiting" in repr(latch)
    assert latch.statistics().waiting == 0


def test_threads_wait_for_both_states():
    latch, done = Latch(), Latch()

    def work():
        if latch.wait_set().blocking_wait(10) and latch.wait_unset().blocking_wait(10):
            done.set()

    thread = threading.Thread(target=work)
    changed = done.wait()
    thread.start()
    latch.set()
    latch.unset()  # before the thread has begun, perhaps: then it sees the set of the next line
    while not changed.blocking_wait(0.01):
        latch.toggle(not latch.is_set())
    thread.join()
    assert done.is_set()
    assert not done.wait().blocking_wait(0.001)


async def test_blocking_in_the_thread_of_a_loop_is_refused():
    for wait in (Latch().wait(), Latch().wait_set(), Latch().wait_unset()):
        with pytest.raises(RuntimeError, match="event loop"):
            wait.blocking_wait()
