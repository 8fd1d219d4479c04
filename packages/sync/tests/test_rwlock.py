"""What a reader-writer lock promises: who may be inside together, who comes next, and what a downgrade lets in."""

import asyncio
import threading

import pytest

from yamanote.runtime import BUDGET, park, yield_now
from yamanote.sync import RwLock, RwLockStatistics, WouldBlock
from yamanote.testing import LeakError, no_leaks, step


async def settled() -> None:
    """Let every task run until it waits for somebody else."""
    for _ in range(20):
        await yield_now()


def counts(lock: RwLock) -> tuple[int, bool, int]:
    now = lock.statistics()
    return now.reading, now.writing, now.waiting


# ------------------------------------------------------------------ who may be inside together


async def test_many_read_at_once_and_a_writer_is_alone():
    lock = RwLock()
    async with lock.read(), lock.read():
        assert counts(lock) == (2, False, 0)
        assert not lock.write().try_acquire()
        assert lock.read().try_acquire()
        lock.read().release()
    async with lock.write():
        assert counts(lock) == (0, True, 0)
        assert not lock.write().try_acquire()
        assert not lock.read().try_acquire()
    assert counts(lock) == (0, False, 0)


async def test_a_writer_waits_until_the_last_reader_has_left():
    lock = RwLock()
    async with lock.read():
        async with lock.read():
            writer = step(lock.write().acquire())
            writer.assert_pending()
        writer.assert_pending()
    assert writer.assert_ready() is True
    lock.write().release()


async def test_it_is_free_after_an_error_in_a_block():
    lock = RwLock()
    for side in (lock.read(), lock.write()):
        with pytest.raises(ZeroDivisionError):
            async with side:
                1 / 0  # noqa: B018 - raising is its use
        assert counts(lock) == (0, False, 0)


@pytest.mark.parametrize("side", ["read", "write"])
def test_it_refuses_a_release_that_nobody_is_owed(side):
    lock = RwLock()
    with pytest.raises(RuntimeError, match="nobody has"):
        getattr(lock, side)().release()
    assert counts(lock) == (0, False, 0)


@pytest.mark.parametrize("side", ["read", "write"])
async def test_a_block_that_was_released_inside_says_so_at_its_end(side):
    lock = RwLock()
    with pytest.raises(RuntimeError, match="nobody has"):
        async with getattr(lock, side)():
            getattr(lock, side)().release()
    assert counts(lock) == (0, False, 0)


def test_each_side_says_whether_it_would_wait():
    lock = RwLock()
    assert not lock.read().locked()
    assert not lock.write().locked()
    with lock.read():
        assert not lock.read().locked()
        assert lock.write().locked()
    with lock.write():
        assert lock.read().locked()
        assert "ReadLock of <RwLock writing" in repr(lock.read())


async def test_it_shows_its_state():
    lock = RwLock()
    assert repr(lock).startswith("<RwLock unlocked, 0 waiting at")
    async with lock.read(), lock.read():
        with step(lock.write().acquire()) as writer:
            writer.assert_pending()
            assert repr(lock).startswith("<RwLock 2 reading, 1 waiting at")
    async with lock.write():
        assert repr(lock).startswith("<RwLock writing, 0 waiting at")
        assert lock.statistics() == RwLockStatistics(reading=0, writing=True, waiting=0)


# ------------------------------------------------------------------ who comes next


async def test_a_reader_queues_behind_a_waiting_writer():
    lock = RwLock()
    order = []

    async def use(side, name):
        async with side:
            order.append(name)
            await yield_now()

    async with lock.read():
        tasks = [asyncio.create_task(use(lock.write(), "writer"))]
        await settled()
        tasks.append(asyncio.create_task(use(lock.read(), "reader")))
        await settled()
        assert not lock.read().try_acquire()
        assert order == []
    await asyncio.gather(*tasks)
    assert order == ["writer", "reader"]


async def test_readers_who_stand_together_enter_together_and_in_order():
    lock = RwLock()
    order = []
    most = []

    async def read(name):
        async with lock.read():
            order.append(name)
            most.append(lock.statistics().reading)
            await settled()

    async def write():
        async with lock.write():
            order.append("writer")

    async with lock.write():
        tasks = []
        for name in (1, 2, 3, "writer", 4):
            tasks.append(asyncio.create_task(write() if name == "writer" else read(name)))
            await settled()
    await asyncio.gather(*tasks)
    assert order == [1, 2, 3, "writer", 4]
    assert most == [3, 3, 3, 1]


async def test_a_second_read_behind_a_waiting_writer_waits_for_ever():
    lock = RwLock()
    async with lock.read():
        with step(lock.write().acquire()) as writer, step(lock.read().acquire()) as again:
            writer.assert_pending()
            again.assert_pending()
            await settled()
            again.assert_pending()


async def test_when_the_writer_in_front_gives_up_the_readers_behind_it_come_in():
    lock = RwLock()
    async with lock.read():
        writer = asyncio.create_task(lock.write().acquire())
        await settled()
        readers = [asyncio.create_task(lock.read().acquire()) for _ in range(2)]
        await settled()
        assert counts(lock) == (1, False, 3)
        writer.cancel()
        await asyncio.gather(*readers)
        assert counts(lock) == (3, False, 0)
        for _ in readers:
            lock.read().release()


@pytest.mark.parametrize("side", ["read", "write"])
async def test_a_cancelled_party_that_was_let_in_already_leaves_again(side):
    lock = RwLock()
    async with lock.write():
        first = asyncio.create_task(getattr(lock, side)().acquire())
        await settled()
        second = asyncio.create_task(lock.write().acquire())
        await settled()
    first.cancel()
    assert await second is True
    assert counts(lock) == (0, True, 0)
    lock.write().release()


@pytest.mark.parametrize("side", ["read", "write"])
async def test_what_is_free_is_taken_at_once_but_not_for_ever(side):
    lock = RwLock()
    turns = 0
    loop = asyncio.get_running_loop()

    def tick():
        nonlocal turns
        turns += 1
        timer[0] = loop.call_soon(tick)

    timer = [loop.call_soon(tick)]
    for _ in range(BUDGET - 1):
        async with getattr(lock, side)():
            pass
    assert turns == 0
    for _ in range(5 * BUDGET):
        await getattr(lock, side)().acquire()
        getattr(lock, side)().release()
    timer[0].cancel()
    assert 4 <= turns <= 6


def test_a_writer_of_a_closed_loop_holds_no_reader_up():
    lock = RwLock()
    loop = asyncio.new_event_loop()

    async def come():
        task = loop.create_task(lock.write().acquire())
        await yield_now()
        return task

    assert lock.read().try_acquire()
    task = loop.run_until_complete(come())
    loop.close()
    lock.read().blocking_acquire(timeout=10)
    assert counts(lock) == (2, False, 0)
    task._log_destroy_pending = False
    del task
    assert counts(lock) == (2, False, 0)


# ------------------------------------------------------------------ downgrade


async def test_a_downgrade_lets_readers_in_and_no_writer_between():
    lock = RwLock()
    async with lock.write() as held:
        readers = [asyncio.create_task(lock.read().acquire()) for _ in range(2)]
        await settled()
        writer = asyncio.create_task(lock.write().acquire())
        await settled()
        late = asyncio.create_task(lock.read().acquire())
        await settled()
        held.downgrade()
        await asyncio.gather(*readers)
        await settled()
        assert counts(lock) == (3, False, 2)
    await settled()
    assert counts(lock) == (2, False, 2)
    for _ in readers:
        lock.read().release()
    await writer
    assert counts(lock) == (0, True, 1)
    lock.write().release()
    await late
    lock.read().release()
    assert counts(lock) == (0, False, 0)


async def test_after_a_downgrade_a_writer_that_waits_comes_when_the_block_ends():
    lock = RwLock()
    async with lock.write() as held:
        writer = step(lock.write().acquire())
        writer.assert_pending()
        held.downgrade()
        writer.assert_pending()
    writer.assert_ready()
    lock.write().release()
    assert counts(lock) == (0, False, 0)


async def test_only_who_writes_can_downgrade():
    lock = RwLock()
    with pytest.raises(RuntimeError, match="nobody has for writing"):
        lock.write().downgrade()
    async with lock.write() as held:
        held.downgrade()
        with pytest.raises(RuntimeError, match="nobody has for writing"):
            held.downgrade()
        assert counts(lock) == (1, False, 0)
    assert counts(lock) == (0, False, 0)


# ------------------------------------------------------------------ now or not at all, and in a select


async def test_or_raise_takes_it_now_or_not_at_all():
    lock = RwLock()
    with lock.read().or_raise(), lock.read().or_raise():
        with pytest.raises(WouldBlock):
            lock.write().or_raise()
    async with lock.write().or_raise() as held:
        with pytest.raises(WouldBlock):
            lock.read().or_raise()
        held.downgrade()
        with lock.read().or_raise():
            pass
    assert counts(lock) == (0, False, 0)


async def test_what_a_wait_gives_is_held_and_is_entered_without_waiting():
    lock = RwLock()
    with await park(lock.read()):
        async with await park(lock.read()):
            assert counts(lock) == (2, False, 0)
    with await park(lock.write()) as held:
        held.downgrade()
        assert counts(lock) == (1, False, 0)
    assert counts(lock) == (0, False, 0)


async def test_what_is_still_held_is_a_leak():
    lock = RwLock()
    for side in (lock.read(), lock.write()):
        with no_leaks():
            async with side:
                pass
        with pytest.raises(LeakError, match="not given back"), no_leaks():
            await side.acquire()
        side.release()


# ------------------------------------------------------------------ threads


def test_a_thread_waits_for_so_long_and_no_longer():
    lock = RwLock()
    with lock.read():
        lock.read().blocking_acquire(timeout=10)
        with pytest.raises(TimeoutError):
            lock.write().blocking_acquire(timeout=0.001)
        lock.read().blocking_acquire(timeout=0)  # nobody is in the queue any more
    for _ in range(2):
        lock.read().release()
    with lock.write() as held:
        with pytest.raises(TimeoutError):
            lock.read().blocking_acquire(timeout=0.001)
        held.downgrade()
        lock.read().blocking_acquire(timeout=0)
    lock.read().release()
    assert counts(lock) == (0, False, 0)


async def test_blocking_in_the_thread_of_a_loop_is_refused():
    lock = RwLock()
    for side in (lock.read(), lock.write()):
        with pytest.raises(RuntimeError, match="event loop"):
            side.blocking_acquire()
        with pytest.raises(RuntimeError, match="event loop"):
            with side:
                pass
    assert counts(lock) == (0, False, 0)


def test_threads_and_tasks_stand_in_one_queue():
    lock = RwLock()
    order = []
    threads = []

    def write(name):
        with lock.write():
            order.append(name)

    def read(name):
        with lock.read():
            order.append(name)

    async def task(side, name):
        async with side:
            order.append(name)

    async def main():
        tasks = []
        async with lock.write():
            for waiting, work in enumerate((write, task, read, task)):
                if work is task:
                    tasks.append(asyncio.create_task(task(lock.write(), waiting)))
                else:
                    threads.append(threading.Thread(target=work, args=(waiting,)))
                    threads[-1].start()
                while lock.statistics().waiting == waiting:
                    await yield_now()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3]
    assert counts(lock) == (0, False, 0)


async def test_a_side_that_is_held_says_so_and_is_a_leak_when_only_the_side_is_kept() -> None:
    with pytest.raises(LeakError, match=r"RwLock 1 reading, 0 waiting.* not given back"), no_leaks():
        side = RwLock().read()
        await side.acquire()
    assert "1 reading" in repr(side)
    side.release()
    assert "unlocked" in repr(side)
