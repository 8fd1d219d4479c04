"""`ThreadsafeLock` and `ThreadsafeCondition`: the ones of `yamanote.sync`."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator

import pytest

from yamanote import sync
from yamanote.runtime import cancel_and_wait, run, spawn, yield_now
from yamanote.threads import ThreadsafeCondition, ThreadsafeLock, run_in_thread_loop, to_thread


@pytest.fixture
def many_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_they_are_the_classes_of_sync() -> None:
    assert ThreadsafeLock is sync.Lock
    assert ThreadsafeCondition is sync.Condition


async def test_a_lock_that_was_handed_to_a_task_which_is_cancelled_then_is_not_lost() -> None:
    lock = ThreadsafeLock()
    await lock.acquire()
    waiting = spawn(lock.acquire())
    await yield_now()

    lock.release()  # it is handed over, and the task has not run since
    await cancel_and_wait(waiting)

    assert lock.try_acquire()


@pytest.mark.usefixtures("many_switches")
def test_two_loops_and_two_threads_exclude_each_other() -> None:
    lock = ThreadsafeLock()
    inside = 0
    total = 0

    def work() -> None:
        nonlocal inside, total
        assert not inside
        inside += 1
        total += 1
        inside -= 1

    async def from_tasks() -> None:
        for _ in range(200):
            async with lock:
                work()

    def from_a_thread() -> None:
        for _ in range(200):
            with lock:
                work()

    threads = [threading.Thread(target=target) for target in (lambda: run(from_tasks()), from_a_thread) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert total == 800


@pytest.mark.usefixtures("many_switches")
async def test_no_notification_of_another_thread_is_lost() -> None:
    changed = ThreadsafeCondition()
    items: list[int] = []
    taken: list[int] = []

    async def take() -> None:
        async with changed:
            await changed.wait_for(lambda: items)
            taken.append(items.pop())

    def take_ten_in_a_thread() -> None:
        for _ in range(10):
            with changed:
                changed.blocking_wait_for(lambda: items)
                taken.append(items.pop())

    def give() -> None:
        for item in range(150):
            with changed:
                items.append(item)
                changed.notify()

    async def take_fifty() -> None:
        await asyncio.gather(*(take() for _ in range(50)))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(take_fifty())
        tasks.create_task(run_in_thread_loop(take_fifty()))
        for _ in range(5):
            tasks.create_task(to_thread(take_ten_in_a_thread))
        tasks.create_task(to_thread(give))

    assert sorted(taken) == list(range(150))
