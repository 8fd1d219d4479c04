"""A select over mutexes, reader-writer locks and barriers: what it gives is entered; what loses has taken nothing."""

import asyncio

from yamanote.futures import select
from yamanote.runtime import yield_now
from yamanote.sync import Barrier, Event, Mutex, RwLock


async def test_a_mutex_that_wins_is_entered_and_one_that_loses_is_free() -> None:
    busy, free = Mutex("busy"), Mutex("free")
    async with busy.lock():
        name, turn = await select(busy=busy.lock(), free=free.lock())
        assert name == "free"
        with turn as guard:
            assert guard == "free"
    assert not busy.locked()
    assert not free.locked()


async def test_a_mutex_is_handed_to_the_select_that_waits_for_it() -> None:
    mutex, stop = Mutex([1]), Event()
    async with mutex.lock():
        waiting = [asyncio.create_task(select(turn=mutex.lock(), stop=stop)) for _ in range(2)]
        await yield_now()
        await yield_now()
    name, turn = await waiting[0]
    assert name == "turn"
    async with turn as guard:
        stop.set()
        assert guard == [1]
    assert await waiting[1] == ("stop", True)
    assert not mutex.locked()


async def test_a_side_of_a_reader_writer_lock_wins_or_takes_nothing() -> None:
    busy, free = RwLock(), RwLock()
    async with busy.read():
        name, held = await select(busy=busy.write(), free=free.write())
        assert name == "free"
        with held as side:
            side.downgrade()
        name, held = await select(read=busy.read())
        with held:
            assert busy.statistics().reading == 2
    for lock in (busy, free):
        now = lock.statistics()
        assert (now.reading, now.writing, now.waiting) == (0, False, 0)


async def test_a_barrier_that_loses_has_not_been_met() -> None:
    barrier, stop = Barrier(2), Event()
    stop.set()
    assert (await select(barrier=barrier, stop=stop))[0] == "stop"
    assert barrier.value() == 0
    waiting = asyncio.create_task(select(barrier=barrier, stop=Event()))
    await yield_now()
    await yield_now()
    assert await barrier.wait() == 1
    assert await waiting == ("barrier", 0)
