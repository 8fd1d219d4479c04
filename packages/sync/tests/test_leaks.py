"""What locks and semaphores tell a leak check."""

import asyncio

import pytest

from yamanote.sync import Lock, Mutex, Semaphore
from yamanote.testing import LeakError, no_leaks


async def test_what_was_given_back_is_no_leak() -> None:
    lock, mutex, semaphore = Lock(), Mutex(0), Semaphore(3)
    with no_leaks():
        async with lock, mutex.lock(), semaphore, semaphore.acquire_many(2):
            pass
        semaphore.release()  # more than there were


async def test_a_lock_that_is_still_held_is_a_leak() -> None:
    lock = Lock()
    with pytest.raises(LeakError, match=r"<Lock locked, .*: not given back, 1 of 1"), no_leaks():
        await lock.acquire()


async def test_permits_that_were_not_given_back_are_a_leak() -> None:
    semaphore = Semaphore(3)
    with pytest.raises(LeakError, match=r"<Semaphore 1 free, .*: not given back, 2 of 3"), no_leaks():
        await semaphore.acquire_many(2)


async def test_a_permit_that_a_cancelled_party_was_handed_is_no_leak() -> None:
    lock = Lock()
    with no_leaks():
        await lock.acquire()
        waiting = asyncio.create_task(lock.acquire())
        await asyncio.sleep(0)
        lock.release()
        waiting.cancel()
        await asyncio.wait([waiting])
        assert not lock.locked()


async def test_a_semaphore_that_was_closed_has_nothing_to_get_back() -> None:
    semaphore = Semaphore(3)
    with no_leaks():
        await semaphore.acquire()
        semaphore.close()


def test_one_that_was_refused_in_the_making_is_no_leak() -> None:
    with no_leaks(), pytest.raises(ValueError) as caught:
        Semaphore(-1)
    assert caught.value.__traceback__ is not None  # it refers to the semaphore
