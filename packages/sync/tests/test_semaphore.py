"""What locks and semaphores promise: order, weights, closing, cancellation, threads."""

import asyncio
import threading

import pytest

from yamanote.runtime import BUDGET, CriticalSection, yield_now
from yamanote.sync import Lock, Semaphore, SemaphoreClosed


async def settled() -> None:
    """Let every task run until it waits for somebody else."""
    for _ in range(20):
        await yield_now()


async def count_turns(work) -> int:
    turns = 0
    done = False
    loop = asyncio.get_running_loop()

    def tick() -> None:
        nonlocal turns
        if not done:
            turns += 1
            loop.call_soon(tick)

    loop.call_soon(tick)
    await work
    done = True
    return turns


each_lock = pytest.mark.parametrize("make", [Lock, lambda: Semaphore(1)], ids=["Lock", "Semaphore(1)"])


@each_lock
async def test_a_newcomer_takes_nothing_that_a_parked_party_was_woken_for(make):
    lock = make()
    await lock.acquire()
    parked = asyncio.create_task(lock.acquire())
    await settled()
    lock.release()
    assert not lock.try_acquire()
    assert lock.locked()
    await parked
    lock.release()
    assert lock.try_acquire()
    lock.release()


@each_lock
async def test_uncontended_takes_no_lock(make, monkeypatch):
    lock = make()

    def refuse(*_):
        raise AssertionError("the ordinary path took the lock")

    for method in ("try_enter", "run", "do", "__enter__"):
        monkeypatch.setattr(CriticalSection, method, refuse)
    for _ in range(10):
        async with lock:
            pass
        await lock.acquire()
        lock.release()


def test_releasing_a_lock_that_nobody_has_is_an_error():
    lock = Lock()
    with pytest.raises(RuntimeError, match="nobody"):
        lock.release()


@pytest.mark.parametrize(
    ("permits", "error"), [(-1, ValueError), (1.5, TypeError), (True, TypeError), ("1", TypeError)]
)
def test_a_number_of_permits_that_makes_no_sense_is_refused(permits, error):
    with pytest.raises(error, match="permits"):
        Semaphore(permits)


@pytest.mark.parametrize("count", [0, -1])
def test_a_count_that_makes_no_sense_is_refused(count):
    semaphore = Semaphore(1)
    with pytest.raises(ValueError, match="count"):
        semaphore.acquire_many(count)
    with pytest.raises(ValueError, match="count"):
        semaphore.release(count)


async def test_a_small_want_does_not_overtake_a_big_one():
    semaphore = Semaphore(3)
    await semaphore.acquire_many(2)
    big = asyncio.create_task(semaphore.acquire_many(3).acquire())
    await settled()
    small = asyncio.create_task(semaphore.acquire())
    await settled()
    assert semaphore.tokens() == 1
    assert not small.done()
    assert not semaphore.try_acquire()
    semaphore.release(2)
    await big
    assert not small.done()
    semaphore.release(3)
    await small
    assert semaphore.tokens() == 2


async def test_who_stands_behind_a_cancelled_big_want_is_served():
    semaphore = Semaphore(1)
    big = asyncio.create_task(semaphore.acquire_many(5).acquire())
    await settled()
    small = asyncio.create_task(semaphore.acquire())
    await settled()
    big.cancel()
    await asyncio.wait_for(small, 5)


async def test_permits_beyond_the_first_number_can_be_added():
    semaphore = Semaphore(0)
    waiting = asyncio.create_task(semaphore.acquire_many(2).acquire())
    await settled()
    semaphore.release(3)
    await waiting
    assert semaphore.tokens() == 1


async def test_a_billion_permits_cost_nothing():
    semaphore = Semaphore(10**9)
    await semaphore.acquire_many(5000)
    assert semaphore.tokens() == 10**9 - 5000
    assert len(semaphore._pool.tokens) < 5000


async def test_closing_refuses_who_waits_and_who_comes():
    semaphore = Semaphore(1)
    await semaphore.acquire()
    waiting = [asyncio.create_task(semaphore.acquire()) for _ in range(3)]
    await settled()
    semaphore.close()
    semaphore.close()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [SemaphoreClosed] * 3
    semaphore.release()
    with pytest.raises(SemaphoreClosed):
        await semaphore.acquire()
    with pytest.raises(SemaphoreClosed):
        async with semaphore.acquire_many(1):
            pass
    assert not semaphore.try_acquire()
    assert semaphore.is_closed


async def test_closing_does_not_look_at_the_queue_once_for_each_party_in_it():
    class Shown(Semaphore):
        looks = 0

        def __repr__(self):
            Shown.looks += 1
            return super().__repr__()

    semaphore = Shown(0)
    waiting = [asyncio.create_task(semaphore.acquire()) for _ in range(3)]
    await settled()
    semaphore.close()
    for outcome in await asyncio.gather(*waiting, return_exceptions=True):
        assert str(outcome) == "this Shown is closed"
    assert not Shown.looks


async def test_they_show_their_state():
    lock, semaphore = Lock(), Semaphore(2)
    assert "unlocked, 0 waiting" in repr(lock)
    assert "2 free, 0 waiting" in repr(semaphore)
    async with lock, semaphore.acquire_many(2):
        waiting = [asyncio.create_task(lock.acquire()), asyncio.create_task(semaphore.acquire())]
        await settled()
        assert "Lock locked, 1 waiting" in repr(lock)
        assert (semaphore.statistics().free, semaphore.statistics().waiting) == (0, 1)
    await asyncio.gather(*waiting)
    semaphore.close()
    assert "closed" in repr(semaphore)


def test_a_waiter_of_a_closed_loop_is_passed_over():
    lock = Lock()
    loop = asyncio.new_event_loop()

    async def park():
        task = loop.create_task(lock.acquire())
        await yield_now()
        return task

    assert lock.try_acquire()
    task = loop.run_until_complete(park())
    loop.close()
    lock.release()
    assert lock.try_acquire()
    task._log_destroy_pending = False
    del task


async def test_a_dead_want_of_a_closed_loop_holds_nobody_up():
    semaphore = Semaphore(2)
    loop = asyncio.new_event_loop()

    async def park():
        task = loop.create_task(semaphore.acquire_many(3).acquire())
        await yield_now()
        return task

    task = await asyncio.to_thread(loop.run_until_complete, park())
    loop.close()
    await asyncio.wait_for(semaphore.acquire(), 5)
    task._log_destroy_pending = False
    del task


@pytest.mark.parametrize("nonsense", [1.5, "2", True, None])
def test_a_count_that_is_no_whole_number_is_refused_before_it_is_queued(nonsense):
    semaphore = Semaphore(2)
    for call in (semaphore.acquire_many, semaphore.try_acquire, semaphore.release):
        with pytest.raises(TypeError, match="count"):
            call(nonsense)
    for count in (0, -7):
        with pytest.raises(ValueError, match="count"):
            semaphore.try_acquire(count)


async def test_with_its_budget_used_up_a_contended_acquire_still_queues_at_once():
    lock = Lock()
    for _ in range(BUDGET - 1):
        async with lock:
            pass
    await lock.acquire()
    order = []

    async def work(name):
        async with lock:
            order.append(name)

    tasks = [asyncio.create_task(work(name)) for name in range(3)]
    await settled()
    lock.release()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2]


async def test_acquiring_many_at_once_yields_once_in_a_while():
    semaphore = Semaphore(3)

    async def work():
        for _ in range(5 * BUDGET):
            async with semaphore.acquire_many(2):
                pass

    assert 4 <= await count_turns(work()) <= 6


def test_who_parks_while_another_thread_had_some_of_the_permits_is_served():
    """`try_acquire` of several takes some, finds too few, and puts them back: who looked in between found none."""
    semaphore = Semaphore(3)
    pool = semaphore._pool
    served = []

    async def park():
        return await asyncio.wait_for(semaphore.acquire(), 10)

    class Tokens(type(pool.tokens)):
        pops = 0

        def pop(self):
            self.pops += 1
            if self.pops == 3:
                super().pop()  # for another thread, on the ordinary path
                thread = threading.Thread(target=lambda: served.append(asyncio.run(park())))
                thread.start()
                threads.append(thread)
                while not pool.waiters:
                    pass
            return super().pop()

    threads = []
    pool.tokens = Tokens(pool.tokens)
    semaphore._take = pool.tokens.pop
    semaphore._tokens = pool.tokens
    assert not semaphore.try_acquire(3)
    for thread in threads:
        thread.join()
    assert served == [True]
