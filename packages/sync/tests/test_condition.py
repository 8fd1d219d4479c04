"""What a condition promises: who is notified, in which order, and that the lock is held again, always."""

import asyncio
import threading

import pytest

from yamanote.runtime import ThreadWaiter, yield_now
from yamanote.sync import Condition, ConditionStatistics, Lock, LockStatistics, WouldBlock
from yamanote.testing import no_leaks, step


async def settled() -> None:
    """Let every task run until it waits for somebody else."""
    for _ in range(20):
        await yield_now()


class Crowd:
    """Tasks that wait for a condition, and who of them was notified, in order."""

    def __init__(self, condition):
        self.condition = condition
        self.woken = []

    async def wait(self, name):
        async with self.condition:
            assert await self.condition.wait() is True
            assert self.condition.locked()
            self.woken.append(name)

    async def begin(self, *names):
        tasks = [asyncio.create_task(self.wait(name)) for name in names]
        await settled()
        return tasks


# ------------------------------------------------------------------ notifications


async def test_notifications_go_to_those_who_have_waited_longest():
    condition = Condition()
    crowd = Crowd(condition)
    tasks = await crowd.begin(0, 1, 2, 3)
    async with condition:
        condition.notify()
        assert crowd.woken == []
    await settled()
    assert crowd.woken == [0]
    async with condition:
        condition.notify(2)
    await settled()
    assert crowd.woken == [0, 1, 2]
    async with condition:
        condition.notify(10)
        condition.notify(0)
    await asyncio.gather(*tasks)
    assert crowd.woken == [0, 1, 2, 3]


async def test_notify_all_wakes_everybody_in_order_within_one_loop_turn():
    condition = Condition()
    crowd = Crowd(condition)
    tasks = await crowd.begin(*range(100))
    async with condition:
        condition.notify_all()
    await yield_now()
    assert crowd.woken == list(range(100))
    await asyncio.gather(*tasks)


async def test_a_notification_that_nobody_waits_for_is_gone():
    condition = Condition()
    async with condition:
        condition.notify_all()
    crowd = Crowd(condition)
    (task,) = await crowd.begin(0)
    assert not crowd.woken
    async with condition:
        condition.notify()
    await task


async def test_a_notification_of_a_waiter_that_was_cancelled_goes_to_the_next():
    condition = Condition()
    crowd = Crowd(condition)
    first, second, third = await crowd.begin(1, 2, 3)
    async with condition:
        condition.notify()
    first.cancel()
    await second
    await asyncio.wait([first])
    assert first.cancelled()
    await settled()
    assert crowd.woken == [2]
    assert condition.statistics().waiting == 1
    async with condition:
        condition.notify()
    await third


async def test_a_notification_of_a_waiter_cancelled_while_it_waits_for_the_lock_goes_to_the_next():
    condition = Condition()
    crowd = Crowd(condition)
    first, second = await crowd.begin(1, 2)
    async with condition:
        condition.notify()
        await settled()  # notified, and in the queue of the lock
        first.cancel()
        await settled()
        assert not first.done(), "it came out without the lock"
    await asyncio.wait_for(second, 5)
    await asyncio.wait([first])
    assert first.cancelled()
    assert crowd.woken == [2]
    assert not condition.locked()


async def test_a_cancelled_waiter_that_was_not_notified_takes_no_notification():
    condition = Condition()
    crowd = Crowd(condition)
    first, second, third = await crowd.begin(1, 2, 3)
    async with condition:
        first.cancel()
        condition.notify()
    await asyncio.wait([first, second])
    await settled()
    assert crowd.woken == [2]
    assert condition.statistics().waiting == 1
    third.cancel()
    await asyncio.wait([third])
    assert condition.statistics().waiting == 0


async def test_whoever_gets_the_lock_that_a_wait_lets_go_can_notify_it():
    condition = Condition()
    waiting = step(Crowd(condition).wait(0))
    waiting.assert_pending()
    assert condition.try_acquire()
    condition.notify()
    condition.release()
    waiting.assert_ready()


# ------------------------------------------------------------------ the lock


async def test_a_cancelled_wait_ends_with_the_lock_and_with_the_count_of_its_requests():
    condition = Condition()
    seen = []

    async def wait():
        async with condition:
            try:
                await condition.wait()
            except asyncio.CancelledError as error:
                seen.append((error.args, condition.locked(), asyncio.current_task().cancelling()))
                raise

    task = asyncio.create_task(wait())
    await settled()
    async with condition:
        task.cancel("first")
        await settled()
        task.cancel("second")
        await settled()
        assert not seen, "it came out without the lock"
    await asyncio.wait([task])
    assert seen == [(("first",), True, 2)]
    assert not condition.locked()


async def test_a_time_limit_around_a_wait_ends_it_and_nothing_else():
    condition = Condition()
    async with condition:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await condition.wait()
        assert condition.locked()
        assert asyncio.current_task().cancelling() == 0
    assert condition.statistics() == ConditionStatistics(0, LockStatistics(free=1, waiting=0))


async def test_without_the_lock_nothing_can_be_done():
    condition = Condition()
    for call in (condition.notify, condition.notify_all, condition.release):
        with pytest.raises(RuntimeError, match="nobody has"):
            call()
    with pytest.raises(RuntimeError, match="nobody has"):
        await condition.wait()
    with pytest.raises(RuntimeError, match="nobody has"):
        await condition.wait_for(lambda: False)
    assert condition.statistics() == ConditionStatistics(0, LockStatistics(free=1, waiting=0))


async def test_a_wait_that_is_thrown_away_does_not_release_the_lock_of_somebody_else():
    condition = Condition()
    crowd = Crowd(condition)
    thrown_away, other = crowd.wait(0), crowd.wait(1)
    thrown_away.send(None)
    other.send(None)
    async with condition:
        condition.notify()
        thrown_away.close()  # notified, and others have the lock
        assert condition.locked()
    assert not condition.locked()
    with pytest.raises(StopIteration):
        other.send(None)
    assert crowd.woken == [1]
    assert not condition.locked()


@pytest.mark.parametrize("entered", ["lock", "other condition"])
async def test_a_wait_that_is_thrown_away_in_a_block_of_what_shares_the_lock_does_not_release_it(entered):
    lock = Lock()
    condition = Condition(lock)
    outer = lock if entered == "lock" else Condition(lock)

    async def wait():
        async with outer:
            await condition.wait()

    thrown_away = wait()
    thrown_away.send(None)
    async with lock:
        thrown_away.close()
        assert lock.locked()
    assert not lock.locked()
    held = wait()
    held.send(None)
    held.close()  # the lock is free again, and whoever is thrown away now gives it back
    assert not lock.locked()


async def test_a_wait_that_is_thrown_away_leaves_a_free_lock_free():
    condition = Condition()
    thrown_away = Crowd(condition).wait(0)
    thrown_away.send(None)
    thrown_away.close()
    assert condition.statistics() == ConditionStatistics(0, LockStatistics(free=1, waiting=0))


async def test_several_conditions_share_a_lock():
    lock = Lock()
    empty, full = Condition(lock), Condition(lock)
    items, received = [], []

    async def send():
        for item in range(10):
            async with full:
                await full.wait_for(lambda: not items)
                items.append(item)
                empty.notify()

    async def receive():
        for _ in range(10):
            async with empty:
                await empty.wait_for(lambda: items)
                received.append(items.pop())
                full.notify()

    await asyncio.gather(send(), receive())
    assert received == list(range(10))
    assert not lock.locked()


async def test_it_is_used_like_its_lock_too():
    condition = Condition()
    with no_leaks():
        assert await condition.acquire() is True
        assert not condition.try_acquire()
        assert repr(condition).startswith("<Condition locked, 0 waiting at")
        condition.release()
        assert condition.try_acquire()
        condition.release()
        with condition.or_raise():
            with pytest.raises(WouldBlock):
                condition.or_raise()
        assert repr(condition).startswith("<Condition unlocked, 0 waiting at")


async def test_wait_for_gives_what_the_predicate_gave_and_does_not_wait_for_what_is_so():
    condition = Condition()
    values = []

    async def main():
        async with condition:
            return await condition.wait_for(lambda: sum(values))

    waiting = asyncio.create_task(main())
    for value in (0, 5):
        await settled()
        assert not waiting.done()
        async with condition:
            values.append(value)
            condition.notify()
    assert await waiting == 5
    assert step(main()).assert_ready() == 5


@pytest.mark.parametrize(("n", "error"), [(-1, ValueError), (1.0, TypeError), ("1", TypeError)])
async def test_nonsense_is_refused(n, error):
    condition = Condition()
    async with condition:
        with pytest.raises(error, match="n must"):
            condition.notify(n)
    with pytest.raises(TypeError, match="lock must be"):
        Condition(asyncio.Lock())


# ------------------------------------------------------------------ threads


def test_a_thread_waits_for_so_long_and_holds_the_lock_again():
    condition = Condition()
    with condition:
        assert condition.blocking_wait(timeout=0.001) is False
        assert condition.locked()
        assert condition.blocking_wait_for(lambda: 0, timeout=0.001) == 0
        assert condition.blocking_wait_for(lambda: 7, timeout=0) == 7
    assert condition.statistics() == ConditionStatistics(0, LockStatistics(free=1, waiting=0))
    with pytest.raises(RuntimeError, match="nobody has"):
        condition.blocking_wait()
    condition.blocking_acquire(timeout=1)
    condition.release()


async def test_blocking_in_the_thread_of_a_loop_is_refused_and_the_lock_stays():
    condition = Condition()
    async with condition:
        for call in (condition.blocking_wait, condition.blocking_acquire):
            with pytest.raises(RuntimeError, match="event loop"):
                call()
        with pytest.raises(RuntimeError, match="event loop"):
            condition.blocking_wait_for(lambda: True)
        assert condition.locked()
        assert condition.statistics().waiting == 0


@pytest.mark.parametrize("notified", [False, True])
def test_a_signal_that_interrupts_a_waiting_thread_finds_it_with_the_lock(monkeypatch, notified):
    condition = Condition()
    next_one = ThreadWaiter()

    def interrupted(waiter, timeout=None):
        monkeypatch.undo()
        with condition:
            condition._waiters.append(next_one)
            condition.notify(notified)
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadWaiter, "sleep", interrupted)
    with condition:
        with pytest.raises(KeyboardInterrupt):
            condition.blocking_wait()
        assert condition.locked()
    assert next_one.settled is notified, "the notification goes to the next"
    assert condition.statistics() == ConditionStatistics(not notified, LockStatistics(free=1, waiting=0))


def test_threads_and_tasks_are_notified_in_one_order():
    condition = Condition()
    woken = []
    threads = []

    def thread(name):
        with condition:
            assert condition.blocking_wait(timeout=30) is True
            woken.append(name)

    async def task(name):
        async with condition:
            await condition.wait()
            woken.append(name)

    async def main():
        tasks = []
        for waiting, work in enumerate((thread, task, thread, task)):
            if work is task:
                tasks.append(asyncio.create_task(task(waiting)))
            else:
                threads.append(threading.Thread(target=thread, args=(waiting,)))
                threads[-1].start()
            while condition.statistics().waiting == waiting:
                await yield_now()
        for waiting in range(4):
            async with condition:
                condition.notify()
            while len(woken) == waiting:
                await yield_now()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    for thread_ in threads:
        thread_.join()
    assert woken == [0, 1, 2, 3]


async def test_an_async_predicate_is_refused_for_it_would_always_count_as_true() -> None:
    condition = Condition()

    async def ready() -> bool:
        return False

    async with condition:
        with pytest.raises(TypeError, match="predicate"):
            await condition.wait_for(ready)
    with pytest.raises(TypeError, match="predicate"):
        await asyncio.to_thread(condition.blocking_wait_for, ready)
