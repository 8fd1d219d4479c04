"""What the primitives promise to threads: one preemption anywhere, small histories, and many of them at once."""

import asyncio
import random
import sys
import threading
from functools import partial
from itertools import combinations_with_replacement

import pytest

from yamanote.runtime import Waiter, park, park_thread, yield_now
from yamanote.sync import Event, Lock, Mutex, Semaphore, VersionedCell
from yamanote.testing import History, explore_preemptions

# ------------------------------------------------------------------ one preemption: permits


class Race:
    """A semaphore, two of whose calls are made at once, and who has what of it."""

    def __init__(self, free, parked):
        self.semaphore = Semaphore(free + 1)
        assert self.semaphore.try_acquire()
        self.total = free + 1
        self.held = 1
        self.wants = []
        for need in parked:
            self.park(need)

    def park(self, need=1):
        """Come to wait, without sleeping: `Waiter` itself is a party that nobody has to wake."""
        want = self.semaphore.acquire_many(need)
        waiter = Waiter([None])
        self.wants.append((want, waiter))
        want.register(waiter)

    def park_two(self):
        self.park(2)

    def take(self):
        """What `acquire` does when it need not wait."""
        try:
            self.semaphore.acquire().send(None)
        except StopIteration:
            self.wants.append((self.semaphore.acquire_many(1), None))
        except RuntimeError:
            pass  # it would have had to wait, and there is no loop here

    def take_and_park(self):
        self.take()
        self.park()

    def try_one(self, count=1):
        if self.semaphore.try_acquire(count):
            self.wants.append((self.semaphore.acquire_many(count), None))

    def try_two(self):
        self.try_one(2)

    def release(self):
        self.held -= 1
        self.semaphore.release()

    def cancel(self):
        want, waiter = self.wants.pop(0)
        waiter.claim()
        want.withdraw(waiter)

    def close(self):
        self.semaphore.close()

    def check(self):
        pool = self.semaphore._pool
        has = [want.need for want, waiter in self.wants if waiter is None or (waiter.settled and not waiter.error)]
        assert pool.free + self.held + sum(has) == self.total, "permits were lost or made"
        waiting = [waiter for _, waiter in self.wants if waiter is not None and not waiter.settled]
        assert pool.parked == len(waiting), "a party was forgotten, or is there twice"
        if pool.closed:
            assert not waiting, "a party was not told of the end"
        elif waiting:
            assert pool.waiters[0].operation.need > pool.free, "a party waits for what is there"


RACES = {
    "none is free": (0, (), "park park_two take release"),
    "one is free": (1, (), "park park_two take try_one try_two release"),
    "two are free": (2, (), "park_two take_and_park try_two"),
    "a party waits": (0, (1, 2), "park try_one release cancel"),
    "a big want holds up a small one": (1, (3, 1), "release cancel close"),
}
"""How many permits are free, who waits, and which calls are made at once, any two of them."""
QUICK = {
    "none is free: park, release",
    "one is free: park_two, release",
    "two are free: take_and_park, try_two",
    "a party waits: release, cancel",
}
"""Those that are made without being asked for, with ``--explore-runs``."""


def pytest_generate_tests(metafunc):
    if "race" in metafunc.fixturenames:
        races = {
            f"{name}: {first}, {second}": race(free, parked, first, second)
            for name, (free, parked, calls) in RACES.items()
            for first, second in combinations_with_replacement(calls.split(), 2)
        }
        if metafunc.config.getoption("explore_runs", None) is None:
            races = {name: race for name, race in races.items() if name in QUICK}
        metafunc.parametrize("race", races.values(), ids=races)


def test_no_preemption_loses_a_permit_or_a_wake_up(race):
    explore_preemptions(race, within="yamanote.sync")


def race(free, parked, first, second):
    def scenario():
        race = Race(free, parked)
        return getattr(race, first), getattr(race, second), race.check

    return scenario


def test_no_preemption_lets_two_threads_reach_the_contents_of_a_mutex():
    def scenario():
        mutex = Mutex(0)

        def work():
            with mutex.lock() as guard:
                before = guard.value
                guard.value = before + 1

        def check():
            with mutex.lock() as guard:
                assert guard.value == 2

        return work, work, check

    explore_preemptions(scenario, within="yamanote.sync._mutex")


# ------------------------------------------------------------------ one preemption: events and cells


def event(is_set, call):
    match call.name:
        case "set":
            yield not is_set, True
        case "clear":
            yield is_set, False
        case "is_set":
            yield is_set, is_set
        case "blocking_wait" if is_set:
            yield True, is_set


@pytest.mark.parametrize(
    ("was_set", "first", "second"),
    [
        (False, "set", "set"),
        (False, "set", "blocking_wait"),
        (False, "set", "is_set"),
        (True, "set", "clear"),
        (True, "clear", "clear"),
    ],
)
def test_no_preemption_changes_what_calls_of_an_event_say(was_set, first, second):
    explore_preemptions(calls_of_an_event(was_set, first, second), within="yamanote.sync")


def calls_of_an_event(was_set, first, second):
    def scenario():
        subject = Event()
        if was_set:
            subject.set()
        history = History()
        calls = [lambda name=name: history.call(getattr(subject, name)) for name in (first, second)]

        return *calls, lambda: history.assert_linearizable(event, was_set)

    return scenario


class Meeting:
    """A cell, a party that waits for an even number, and one that is about to."""

    def __init__(self):
        self.cell = VersionedCell(0)
        self.when = self.cell.when(lambda cell: cell.value > 0 and cell.value % 2 == 0)
        self.waiter = Waiter([None])
        self.newcomer = Waiter([None])
        self.when.register(self.waiter)

    def one(self):
        self.cell.set(1)

    def two(self):
        self.cell.set(2)

    def wait(self):
        self.when.register(self.newcomer)

    def cancel(self):
        self.waiter.claim()
        self.when.withdraw(self.waiter)

    def check(self):
        assert self.waiter.settled or not self.waiter.is_waiting(), "it was forgotten"
        assert self.newcomer.settled == (self.cell.value == 2), "it missed the value, or saw one that is gone"
        assert self.cell.parked == 0


@pytest.mark.parametrize(("first", "second"), [("two", "wait"), ("two", "cancel"), ("one", "two")])
def test_no_preemption_makes_a_cell_forget_anybody(first, second):
    explore_preemptions(changes_of_a_cell(first, second), within="yamanote.sync")


def changes_of_a_cell(first, second):
    def scenario():
        meeting = Meeting()

        def check():
            assert meeting.cell.version == sum(call in ("one", "two") for call in (first, second))
            if "wait" not in (first, second):
                meeting.wait()
            if meeting.cell.value != 2:
                assert not meeting.newcomer.settled
                meeting.two()
            meeting.check()

        return getattr(meeting, first), getattr(meeting, second), check

    return scenario


# ------------------------------------------------------------------ small histories


def permits(free, call):
    match call.name, *call.arguments:
        case ("try_acquire",) | ("blocking_acquire",) if free:
            yield True if call.name == "try_acquire" else None, free - 1
        case ("try_acquire",):
            yield False, free
        case ("release",):
            yield None, free + 1


@pytest.fixture
def _threads_switch_as_often_as_possible():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_the_same_time(*works):
    """Run them in threads of their own; raise what went wrong in any of them."""
    errors = []
    together = threading.Barrier(len(works))

    def perform(work):
        together.wait()
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=perform, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.usefixtures("_threads_switch_as_often_as_possible")
@pytest.mark.parametrize("free", [1, 2])
def test_what_threads_get_of_a_semaphore_can_be_explained_by_one_call_after_the_other(free):
    def work(semaphore, history, chance):
        for _ in range(4):
            if chance.random() < 0.5:
                history.call(semaphore.blocking_acquire)
            elif not history.call(semaphore.try_acquire):
                continue
            history.call(semaphore.release)

    for seed in range(25):
        semaphore = Lock() if free == 1 else Semaphore(free)
        history = History()
        at_the_same_time(*(partial(work, semaphore, history, random.Random(seed + half)) for half in (0, 0.25, 0.5)))
        history.assert_linearizable(permits, free)


@pytest.mark.usefixtures("_threads_switch_as_often_as_possible")
def test_what_threads_see_of_an_event_can_be_explained_by_one_call_after_the_other():
    def change(subject, history, chance):
        for _ in range(3):
            history.call(chance.choice([subject.set, subject.clear, subject.is_set]))
        history.call(subject.set)

    for seed in range(25):
        subject = Event()
        history = History()
        changes = [partial(change, subject, history, random.Random(seed + half)) for half in (0, 0.5)]
        at_the_same_time(*changes, partial(history.call, subject.blocking_wait))
        history.assert_linearizable(event, False)


# ------------------------------------------------------------------ many at once


@pytest.mark.usefixtures("_threads_switch_as_often_as_possible")
@pytest.mark.parametrize("make", [Lock, lambda: Semaphore(1), lambda: Semaphore(3)], ids=["Lock", "one", "three"])
def test_tasks_of_several_loops_and_threads_share_one_queue(make):
    semaphore = make()
    permits = semaphore.statistics().free
    inside, most = [], []

    def enter(count=1):
        inside.extend([None] * count)
        most.append(len(inside))
        del inside[:count]

    def thread():
        for _ in range(400):
            with semaphore:
                enter()

    def impatient():
        for _ in range(400):
            try:
                semaphore.blocking_acquire(timeout=0)
            except TimeoutError:
                continue
            enter()
            semaphore.release()

    def weighted():
        for _ in range(400):
            with semaphore.acquire_many(permits):
                enter(permits)

    async def tasks(seed):
        chance = random.Random(seed)

        async def work():
            for _ in range(100):
                async with semaphore:
                    enter()
                    if chance.random() < 0.5:
                        await yield_now()

        running = [asyncio.create_task(work()) for _ in range(5)]
        while not all(task.done() for task in running):
            for _ in range(chance.randrange(20)):
                await yield_now()
            if chance.random() < 0.2:
                chance.choice(running).cancel()
        await asyncio.gather(*running, return_exceptions=True)

    at_the_same_time(
        thread,
        impatient,
        thread if isinstance(semaphore, Lock) else weighted,
        lambda: asyncio.run(tasks(1)),
        lambda: asyncio.run(tasks(2)),
    )
    assert max(most) <= permits
    assert semaphore.statistics().free == permits
    assert semaphore.statistics().waiting == 0


@pytest.mark.usefixtures("_threads_switch_as_often_as_possible")
def test_tasks_of_several_loops_and_threads_count_in_one_mutex():
    mutex = Mutex(0)

    def thread():
        for _ in range(400):
            with mutex.lock() as guard:
                guard.value = guard.value + 1

    async def tasks():
        async def work():
            for _ in range(80):
                async with mutex.lock() as guard:
                    before = guard.value
                    await yield_now()
                    guard.value = before + 1

        await asyncio.gather(*(work() for _ in range(5)))

    at_the_same_time(thread, thread, lambda: asyncio.run(tasks()), lambda: asyncio.run(tasks()))
    with mutex.lock() as guard:
        assert guard.value == 1600


@pytest.mark.usefixtures("_threads_switch_as_often_as_possible")
def test_every_party_on_every_loop_and_thread_sees_its_value_of_a_cell():
    cell = VersionedCell(0)
    event = Event()
    last = 500

    def values():
        for value in range(1, last + 1):
            cell.set(value)
        event.set()

    def reached(value):
        return cell.when(lambda cell: cell.value >= value)

    def thread():
        value = 0
        while value < last:
            seen = park_thread(reached(value + 1))
            assert seen > value
            value = seen
        assert event.blocking_wait()

    async def tasks():
        async def follow():
            value = 0
            while value < last:
                seen = await park(reached(value + 1))
                assert seen > value
                value = seen
            await event.wait()

        async def give_up():
            while not event.is_set():
                waiting = asyncio.create_task(park(reached(last + 1)))
                await yield_now()
                waiting.cancel()
                await asyncio.wait([waiting])

        await asyncio.gather(follow(), follow(), give_up())

    at_the_same_time(values, thread, thread, lambda: asyncio.run(tasks()), lambda: asyncio.run(tasks()))
    assert cell.version == last
    assert cell.parked == 0
