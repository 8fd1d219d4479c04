"""What every kind of lock promises: order, hand-over, its forms for tasks and threads, and nothing left behind."""

import asyncio
import sys
import threading

import pytest

from yamanote.runtime import BUDGET, generators, park, yield_now
from yamanote.sync import BoundedSemaphore, KeyedLock, Lock, NestableLock, Semaphore, SemaphoreClosed, WouldBlock
from yamanote.testing import LeakError, explore_preemptions, no_leaks

LOCKS = {
    "Lock": Lock,
    "Semaphore": lambda: Semaphore(1),
    "BoundedSemaphore": lambda: BoundedSemaphore(1),
    "acquire_many": lambda: Semaphore(2).acquire_many(2),
    "NestableLock": NestableLock,
    "KeyedLock": lambda: KeyedLock()("key"),
}
each_lock = pytest.mark.parametrize("make", LOCKS.values(), ids=LOCKS)


async def settled() -> None:
    """Let every task run until it waits for somebody else."""
    for _ in range(20):
        await yield_now()


class Crowd:
    """Parties that come to a lock, one after the other, and who has been let in."""

    def __init__(self, lock):
        self.lock = lock
        self.inside = []
        self.order = []

    async def enter(self, name, leave=None):
        async with self.lock:
            assert not self.inside, "two are inside"
            self.inside.append(name)
            self.order.append(name)
            try:
                await (yield_now() if leave is None else leave.wait())
            finally:
                self.inside.remove(name)

    def come(self, *names, leave=None):
        return [asyncio.create_task(self.enter(name, leave)) for name in names]


@each_lock
async def test_one_at_a_time_in_the_order_of_arrival(make):
    crowd = Crowd(make())
    await asyncio.gather(*crowd.come(*range(20)))
    assert crowd.order == list(range(20))
    assert not crowd.lock.locked()


@each_lock
@pytest.mark.parametrize("handed", [False, True], ids=["before it is handed over", "after it was handed over"])
async def test_who_is_cancelled_passes_it_on(make, handed):
    crowd = Crowd(make())
    async with crowd.lock:
        cancelled, last = crowd.come("cancelled", "last")
        await settled()
        if not handed:
            cancelled.cancel()
    cancelled.cancel()  # it has the lock by now, and has not run since
    await asyncio.wait([cancelled, last])
    assert crowd.order == ["last"]
    assert cancelled.cancelled()
    assert not crowd.lock.locked()


@each_lock
async def test_who_runs_out_of_time_leaves_nothing_behind(make):
    crowd = Crowd(make())
    leave = asyncio.Event()
    crowd.come("first", leave=leave)
    await settled()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await crowd.enter("late")
    leave.set()
    await settled()
    assert crowd.order == ["first"]
    assert not crowd.lock.locked()


@each_lock
async def test_with_and_without_parentheses(make):
    lock = make()
    async with lock:
        assert lock.locked()
    async with lock():
        assert lock.locked()
    assert not lock.locked()


@each_lock
async def test_a_lock_that_is_called_and_awaited_gives_what_to_enter(make):
    lock = make()
    taking = lock()
    assert not lock.locked() and "Acquiring" in repr(taking)
    with await taking:
        assert lock.locked()
    assert not lock.locked()


@each_lock
def test_a_lock_that_is_called_is_entered_by_plain_threads_as_it_is(make):
    lock = make()
    with lock():
        assert lock.locked()
    assert not lock.locked()


@each_lock
async def test_a_lock_that_is_called_can_be_selected_as_it_is(make):
    lock = make()
    await park(lock())
    assert lock.locked()
    waiting = asyncio.create_task(park(lock()))
    await settled()
    lock.release()
    waiting.cancel()  # it has the lock by now: that goes back
    await asyncio.wait([waiting])
    assert not lock.locked()


@each_lock
def test_a_generator_holds_a_lock_in_a_block(make):
    def work(lock, log, name):
        with (yield lock()):
            log.append(f"{name} in")
            yield
            log.append(f"{name} out")

    def program():
        lock, log = make(), []
        yield generators.spawn(work(lock, log, "a"), work(lock, log, "b"))
        assert not lock.locked()
        return log

    assert generators.run(program()) == ["a in", "a out", "b in", "b out"]


@each_lock
async def test_awaiting_a_called_lock_loses_nothing_when_it_is_cancelled(make):
    lock = make()
    with await lock():
        waiting = asyncio.ensure_future(lock())
        await settled()
        waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled() and not lock.locked()


@each_lock
async def test_an_error_in_the_block_passes_and_releases(make):
    lock = make()
    with pytest.raises(ZeroDivisionError):
        async with lock:
            1 / 0  # noqa: B018 - raising is its use
    with pytest.raises(ZeroDivisionError), lock.or_raise():
        1 / 0  # noqa: B018 - raising is its use
    assert not lock.locked()


@each_lock
async def test_or_raise_takes_it_now_or_says_that_it_would_block(make):
    crowd = Crowd(make())
    lock = crowd.lock
    with lock.or_raise():  # a plain `with`, on the thread of a loop
        assert lock.locked()
    async with lock.or_raise() as held:
        assert held is lock
    async with lock:
        tasks = crowd.come("waits", "waits as well")
        await settled()
    with pytest.raises(WouldBlock):  # it belongs to who waited, although that one has not run yet
        lock.or_raise()
    assert not lock.try_acquire()
    await asyncio.gather(*tasks)
    assert lock.try_acquire()
    with pytest.raises(WouldBlock):
        await asyncio.to_thread(lock.or_raise)
    lock.release()


@each_lock
async def test_uncontended_takes_no_turn_but_yields_once_in_a_while(make):
    lock = make()
    turns = 0

    def tick():
        nonlocal turns
        turns += 1
        asyncio.get_running_loop().call_soon(tick)

    asyncio.get_running_loop().call_soon(tick)
    for _ in range(BUDGET // 2):
        async with lock:
            pass
    assert turns == 0
    for _ in range(4 * BUDGET):
        async with lock:
            pass
    assert 3 <= turns <= 6


@each_lock
async def test_it_can_be_waited_for_like_anything_else(make):
    lock = make()
    await park(lock)
    assert lock.locked()
    lock.release()


@each_lock
async def test_a_block_that_ends_without_it_is_an_error(make):
    lock = make()
    if type(lock) is Semaphore or getattr(lock, "need", 1) > 1:
        return  # permits can be added
    with pytest.raises((RuntimeError, ValueError)):
        async with lock:
            lock.release()
    assert not lock.locked()


@each_lock
def test_a_lock_that_is_still_held_is_a_leak(make):
    lock = make()
    with no_leaks():
        lock.blocking_acquire()
        lock.release()
    with pytest.raises(LeakError, match="not given back"), no_leaks():
        lock.blocking_acquire()
    lock.release()


@each_lock
def test_a_thread_that_waits_too_long_gives_up_and_leaves_nothing_behind(make):
    lock = make()
    errors = []

    def wait():
        try:
            lock.blocking_acquire(timeout=0.001)
        except TimeoutError as error:
            errors.append(error)

    with lock:
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
    assert len(errors) == 1
    assert not lock.locked()


@each_lock
async def test_blocking_in_the_thread_of_a_loop_is_refused(make):
    lock = make()
    for block in (lock.__enter__, lock.blocking_acquire):
        with pytest.raises(RuntimeError, match="event loop"):
            block()
    assert not lock.locked()


@each_lock
def test_tasks_of_several_loops_and_threads_stand_in_one_queue(make):
    lock = make()
    order = []
    parties = []

    def thread(name):
        with lock:
            order.append(name)

    async def task(name):
        async with lock:
            order.append(name)

    with lock:
        for name in range(6):
            work = (lambda name=name: asyncio.run(task(name))) if name % 2 else (lambda name=name: thread(name))
            parties.append(threading.Thread(target=work))
            parties[-1].start()
            while waiting(lock) <= name:
                pass
    for party in parties:
        party.join()
    assert order == list(range(6))


def waiting(lock):
    subject = getattr(lock, "_semaphore", None) or getattr(lock, "_locks", None) or lock
    return subject.statistics().waiting


@each_lock
def test_threads_and_tasks_at_once_are_never_two_inside(make):
    lock = make()
    inside = []
    total = 0

    def enter():
        nonlocal total
        inside.append(None)
        assert len(inside) == 1, "two are inside"
        total += 1
        inside.pop()

    def threads():
        for _ in range(150):
            with lock:
                enter()

    def impatient():
        for _ in range(150):
            try:
                lock.blocking_acquire(timeout=0)
            except TimeoutError:
                continue
            enter()
            lock.release()

    async def work(times):
        for _ in range(times):
            async with lock:
                enter()
                await yield_now()

    async def tasks():
        running = [asyncio.create_task(work(30)) for _ in range(5)]
        for turn in range(100):
            await yield_now()
            if turn % 10 == 9:
                running[turn // 10 % 5].cancel()
        await asyncio.wait(running)
        for task in running:
            if not task.cancelled():
                task.result()

    at_the_same_time(threads, threads, impatient, lambda: asyncio.run(tasks()), lambda: asyncio.run(tasks()))
    assert total >= 300
    assert not lock.locked()
    assert waiting(lock) == 0


def at_the_same_time(*works):
    """Run them in threads of their own that switch as often as possible; raise what went wrong in any of them."""
    errors = []

    def perform(work):
        try:
            work()
        except BaseException as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=perform, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    if errors:
        raise errors[0]


# ------------------------------------------------------------------ more given back than there was


def releases(lock, errors):
    try:
        lock.release()
    except (RuntimeError, ValueError) as error:
        errors.append(error)


@pytest.mark.parametrize("make", [Lock, lambda: BoundedSemaphore(1)], ids=["Lock", "BoundedSemaphore"])
def test_two_threads_that_release_at_once_do_not_make_a_second_permit(make):
    def scenario():
        lock = make()
        assert lock.try_acquire()
        errors = []

        def check():
            assert lock.statistics().free == 1, "a permit was made, or lost"
            assert len(errors) == 1 or (isinstance(lock, Lock) and not errors)

        return lambda: releases(lock, errors), lambda: releases(lock, errors), check

    explore_preemptions(scenario, within="yamanote.sync")


def test_two_threads_that_release_several_at_once_are_told_apart():
    def scenario():
        semaphore = BoundedSemaphore(3)
        assert semaphore.try_acquire(2)
        told = []

        def release():
            try:
                semaphore.release(2)
            except ValueError:
                told.append(False)
            else:
                told.append(True)

        def check():
            assert sorted(told) == [False, True]
            assert semaphore.tokens() == 3

        return release, release, check

    explore_preemptions(scenario, within="yamanote.sync")


def test_a_bounded_semaphore_takes_nothing_back_that_it_never_gave():
    semaphore = BoundedSemaphore(3)
    assert semaphore.try_acquire(2)
    for count in (3, 4, 10**9):
        with pytest.raises(ValueError, match=f"{count} more than the 3"):
            semaphore.release(count)
    assert semaphore.tokens() == 1, "a part of it was given back"
    semaphore.release(2)
    with pytest.raises(ValueError, match="release"):
        semaphore.release()
    assert "BoundedSemaphore 3 free" in repr(semaphore)


async def test_a_bounded_semaphore_hands_what_comes_back_to_who_waits():
    semaphore = BoundedSemaphore(2)
    await semaphore.acquire_many(2)
    waiting = asyncio.create_task(semaphore.acquire())
    await settled()
    semaphore.release(2)
    assert await waiting
    assert semaphore.tokens() == 1


def test_more_than_a_bounded_semaphore_ever_has_is_refused():
    semaphore = BoundedSemaphore(2)
    with pytest.raises(ValueError, match="count"):
        semaphore.acquire_many(3)
    assert not semaphore.try_acquire(3)


# ------------------------------------------------------------------ semaphores


def test_or_raise_tells_closed_from_taken():
    semaphore = Semaphore(1)
    with semaphore.or_raise(), pytest.raises(WouldBlock):
        semaphore.or_raise()
    with pytest.raises(WouldBlock):
        semaphore.acquire_many(2).or_raise()
    semaphore.close()
    for closed in (semaphore, semaphore.acquire_many(1)):
        with pytest.raises(SemaphoreClosed):
            closed.or_raise()


def test_several_permits_have_all_the_forms_of_a_lock():
    semaphore = Semaphore(3)
    two = semaphore.acquire_many(2)
    assert "Acquire 2 of <Semaphore 3 free" in repr(two)
    two.blocking_acquire(timeout=0)
    assert two.locked() and not two.try_acquire()
    with pytest.raises(TimeoutError):
        two.blocking_acquire(timeout=0)
    two.release()
    with two, semaphore:
        assert semaphore.tokens() == 0
    assert not two.locked()


# ------------------------------------------------------------------ nestable lock


async def test_its_owner_may_enter_again_and_others_wait_for_the_last_end():
    lock = NestableLock()
    order = []

    async def other():
        async with lock:
            order.append("other")

    async with lock:
        task = asyncio.create_task(other())
        async with lock():
            await settled()
        with lock.or_raise():
            assert "2 deep, 1 waiting" in repr(lock)
        await settled()
        order.append("owner")
    await task
    assert order == ["owner", "other"]
    assert lock.statistics().free == 1
    assert "unlocked, 0 waiting" in repr(lock)


async def test_child_tasks_do_not_inherit_a_nestable_lock():
    lock = NestableLock()

    async def child():
        assert not lock.try_acquire()
        with pytest.raises(WouldBlock):
            lock.or_raise()
        with pytest.raises(RuntimeError, match="does not have it"):
            lock.release()
        async with lock:
            return "later"

    async with lock:
        task = asyncio.create_task(child())
        await settled()
        assert not task.done()
        assert not await asyncio.to_thread(lock.try_acquire)
    assert await task == "later"


async def test_a_nestable_lock_is_given_up_by_its_owner_only():
    lock = NestableLock()
    with pytest.raises(RuntimeError, match="does not have it"):
        lock.release()
    async with lock:
        with pytest.raises(RuntimeError, match="does not have it"):
            await asyncio.to_thread(lock.release)
        assert lock.locked()


def test_a_thread_may_enter_again_and_other_threads_may_not():
    lock = NestableLock()
    tries = []
    with lock, lock:
        thread = threading.Thread(target=lambda: tries.append(lock.try_acquire()))
        thread.start()
        thread.join()
        lock.blocking_acquire(timeout=0)
        lock.release()
    assert tries == [False]
    assert not lock.locked()


async def test_a_nestable_lock_cannot_belong_to_a_callback():
    lock = NestableLock()
    errors = []

    def callback():
        try:
            lock.try_acquire()
        except RuntimeError as error:
            errors.append(error)

    asyncio.get_running_loop().call_soon(callback)
    await settled()
    assert "belongs to a task" in str(errors[0])
    assert not lock.locked()


async def test_who_has_a_nestable_lock_need_not_wait_for_it():
    lock = NestableLock()
    async with lock:
        await park(lock)
        assert "2 deep" in repr(lock)
        lock.release()
    assert not lock.locked()


async def test_the_owner_that_enters_again_and_again_yields_once_in_a_while():
    lock = NestableLock()
    turns = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    async with lock:
        for _ in range(BUDGET):
            async with lock:
                pass
    assert turns


@pytest.mark.parametrize("make", [NestableLock, lambda: Semaphore(2).acquire_many(2)])
async def test_tasks_of_two_loops_that_take_the_last_of_the_budget_at_once_still_yield(make, monkeypatch):
    lock = make()
    counter = getattr(lock, "_semaphore", lock)
    taken = type(lock).try_acquire

    def try_acquire(self):
        if counter._left == 1:
            counter._left = 0  # by a task of another loop, which has looked as well
        return taken(self)

    monkeypatch.setattr(type(lock), "try_acquire", try_acquire)
    turns = []
    for _ in range(BUDGET):
        async with lock:
            pass
    asyncio.get_running_loop().call_soon(turns.append, 1)
    async with lock:
        pass
    assert turns


@pytest.mark.parametrize("make", [Lock, lambda: Semaphore(1)])
async def test_who_yields_for_the_budget_does_so_once_whatever_others_do_meanwhile(make):
    lock = make()

    async def greedy():
        for _ in range(10):
            for _ in range(BUDGET):
                async with lock:
                    pass
            await yield_now()

    others = asyncio.create_task(greedy())
    for _ in range(BUDGET):
        async with lock:
            pass
    await lock.acquire()
    assert not others.done()
    lock.release()
    await others


# ------------------------------------------------------------------ keyed lock


async def test_each_key_has_a_lock_of_its_own():
    locks = KeyedLock()
    async with locks("a"), locks("b"), locks(("a", 1)):
        assert len(locks) == 3
        assert locks.locked("a") and not locks.locked("c")
        with pytest.raises(WouldBlock):
            locks("a").or_raise()
        with locks("c").or_raise():
            assert locks.statistics().keys == 4
    assert len(locks) == 0
    assert locks, "it is no container"


async def test_an_idle_key_leaves_nothing_behind():
    locks = KeyedLock()

    async def use(key):
        async with locks(key):
            await yield_now()
            raise LookupError

    tasks = [asyncio.create_task(use(number % 7)) for number in range(70)]
    await settled()
    for task in tasks[::3]:
        task.cancel()
    await asyncio.wait(tasks)
    with locks("held").or_raise():
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await locks("held").acquire()
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(locks("held").blocking_acquire, 0)
    assert (len(locks), locks.statistics().waiting) == (0, 0)
    assert locks._table == {}


def test_an_idle_key_leaves_nothing_behind_in_threads():
    locks = KeyedLock()
    counts = dict.fromkeys(range(3), 0)

    def work():
        for number in range(200):
            with locks(number % 3):
                counts[number % 3] += 1
            if locks(number % 3).try_acquire():
                locks(number % 3).release()

    at_the_same_time(work, work, work)
    assert list(counts.values()) == [201, 201, 198]
    assert locks._table == {}


async def test_equal_keys_are_the_same_lock_and_the_key_itself_is_let_go():
    class Key(tuple):
        __slots__ = ()
        alive = 0

        def __new__(cls, *parts):
            cls.alive += 1
            return super().__new__(cls, parts)

        def __del__(self):
            Key.alive -= 1
            assert locks._section.try_enter(), "a destructor ran inside"
            locks._section.leave()

    locks = KeyedLock()
    async with locks(Key(1)):
        assert not locks(Key(1)).try_acquire()
        assert locks(Key(2)).try_acquire()
    locks(Key(2)).release()
    assert Key.alive == 0


def test_a_key_that_cannot_be_hashed_is_refused_at_once():
    with pytest.raises(TypeError, match="unhashable"):
        KeyedLock()([])


def test_releasing_the_lock_of_a_key_that_nobody_has_is_an_error():
    with pytest.raises(RuntimeError, match="'a', which nobody has"):
        KeyedLock()("a").release()


async def test_a_keyed_lock_shows_its_state():
    locks = KeyedLock()
    async with locks("a"):
        task = asyncio.create_task(locks("a").acquire())
        await settled()
        assert "1 in use, 1 waiting" in repr(locks)
        assert "KeyLock of 'a', locked" in repr(locks("a"))
    await task
    locks("a").release()
