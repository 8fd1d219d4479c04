"""What values that are set once promise."""

import asyncio
import threading

import pytest

from yamanote.runtime import BUDGET, yield_now
from yamanote.sync import AlreadySet, SetOnce


async def settled() -> None:
    """Let every task run until it waits for somebody else."""
    for _ in range(20):
        await yield_now()


@pytest.mark.parametrize("value", [1, None, 0, "", ValueError("an ordinary value")])
async def test_everybody_gets_the_value_whatever_it_is(value):
    once = SetOnce()
    waiting = [asyncio.create_task(once.wait()) for _ in range(3)]
    await settled()
    once.set(value)
    assert all([received is value for received in await asyncio.gather(*waiting)])
    assert await once.wait() is value
    assert once.get() is value


async def test_a_second_value_is_refused_and_the_first_stays():
    once = SetOnce()
    once.set(None)
    with pytest.raises(AlreadySet):
        once.set(1)
    assert once.get() is None


async def test_a_value_that_is_not_there_is_not_made_up():
    once = SetOnce()
    assert not once.is_set()
    assert "unset, 0 waiting" in repr(once)
    with pytest.raises(LookupError, match="no value yet"):
        once.get()
    once.set(None)
    assert once.is_set()
    assert "<SetOnce set" in repr(once)


async def test_a_cancelled_waiter_leaves_nothing_behind():
    once = SetOnce[int]()
    first, second = asyncio.create_task(once.wait()), asyncio.create_task(once.wait())
    await settled()
    first.cancel()
    await asyncio.wait([first])
    assert once.statistics().waiting == 1
    once.set(1)
    assert await second == 1


async def test_waiting_for_a_value_that_is_there_yields_once_in_a_while():
    once = SetOnce()
    once.set(1)
    other = asyncio.create_task(asyncio.sleep(0))
    for _ in range(3 * BUDGET):
        await once.wait()
    assert other.done()


def test_a_value_crosses_threads_both_ways():
    there, back = SetOnce(), SetOnce()

    async def answer():
        back.set(await there.wait() + 1)

    thread = threading.Thread(target=lambda: asyncio.run(answer()))
    thread.start()
    there.set(1)
    assert back.blocking_wait(10) == 2
    assert back.blocking_wait(0) == 2
    thread.join()
    with pytest.raises(TimeoutError):
        SetOnce().blocking_wait(0.001)


async def test_blocking_in_the_thread_of_a_loop_is_refused():
    once = SetOnce()
    once.set(1)
    with pytest.raises(RuntimeError, match="event loop"):
        once.blocking_wait()


def test_a_value_that_a_finalizer_sets_in_the_middle_of_another_call_is_set_after_that_one():
    once = SetOnce()
    once._cell._section.do(lambda: once.set(1))
    assert once.get() == 1
    refused = []

    def interrupted():
        with pytest.raises(AlreadySet):
            once.set(2)
        refused.append(2)

    once._cell._section.do(interrupted)
    assert refused == [2]
    assert once.get() == 1
