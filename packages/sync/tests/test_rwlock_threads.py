"""What a reader-writer lock promises to threads: one preemption anywhere, and many of them at once."""

import asyncio
import random

import pytest

from yamanote.runtime import Waiter, yield_now
from yamanote.sync import RwLock, _rwlock
from yamanote.testing import Counterexample, explore_preemptions

from .test_sync_threads import _threads_switch_as_often_as_possible, at_the_same_time  # noqa: F401 - a fixture

# ------------------------------------------------------------------ one preemption


class Race:
    """A lock, two of whose calls are made at once, and who has what of it."""

    def __init__(self, held, parked):
        self.lock = RwLock()
        self.inside = []
        """How each party is inside that need not be woken."""
        self.waits = []
        for side in held:
            assert self.side(side).try_acquire()
            self.inside.append(side)
        for side in parked:
            self.park(side)

    def side(self, name):
        return getattr(self.lock, name)()

    def park(self, name):
        """Come to wait, without sleeping: `Waiter` itself is a party that nobody has to wake."""
        waiter = Waiter([None])
        self.waits.append((name, waiter))
        self.side(name).register(waiter)

    def park_read(self):
        self.park("read")

    def park_write(self):
        self.park("write")

    def enter_read(self):
        """What `async with` does when it need not wait."""
        try:
            self.lock.read().__aenter__().send(None)
        except StopIteration:
            self.inside.append("read")
        except RuntimeError:
            pass  # it would have had to wait, and there is no loop here

    def try_read(self):
        if self.lock.read().try_acquire():
            self.inside.append("read")

    def try_write(self):
        if self.lock.write().try_acquire():
            self.inside.append("write")

    def leave_read(self):
        self.inside.remove("read")
        self.lock.read().release()

    def leave_write(self):
        self.inside.remove("write")
        self.lock.write().release()

    def downgrade(self):
        self.inside[self.inside.index("write")] = "read"
        self.lock.write().downgrade()

    def cancel(self):
        name, waiter = self.waits.pop(0)
        waiter.claim()
        self.side(name).withdraw(waiter)

    def check(self):
        inside = self.inside + [name for name, waiter in self.waits if waiter.settled]
        waiting = [name for name, waiter in self.waits if not waiter.settled]
        now = self.lock.statistics()
        assert (now.reading, now.writing) == (inside.count("read"), "write" in inside), "not who is inside"
        assert "write" not in inside or inside == ["write"], "a writer is not alone"
        assert now.waiting == len(waiting), "a party was forgotten, or is there twice"
        queue = [waiter for waiter in self.lock._room.queue if waiter is not _rwlock._WRITING]
        if queue:
            assert inside, "a party waits for what is there"
            assert "write" in inside or queue[0].operation.writes, "a reader waits for nobody"


RACES = [
    ("", "", "enter_read", "park_write"),
    ("", "", "enter_read", "try_write"),
    ("", "", "try_write", "park_write"),
    ("read", "", "leave_read", "park_write"),
    ("read read", "write", "leave_read", "leave_read"),
    ("write", "", "leave_write", "park_read"),
]
"""Who is inside, who waits, and which two calls are made at once."""
MORE_RACES = [
    ("", "", "enter_read", "park_read"),
    ("read", "write read", "leave_read", "cancel"),
    ("read", "write read", "enter_read", "cancel"),
    ("write", "read write", "downgrade", "cancel"),
    ("write", "read write", "downgrade", "enter_read"),
    ("write", "write read", "leave_write", "cancel"),
    ("write", "", "leave_write", "try_write"),
]
"""Those that are made with ``--explore-runs`` only."""


def pytest_generate_tests(metafunc):
    if "held" in metafunc.fixturenames:
        thorough = metafunc.config.getoption("explore_runs", None) is not None
        metafunc.parametrize(("held", "parked", "first", "second"), RACES + MORE_RACES * thorough)


def race(held, parked, first, second):
    def scenario():
        race = Race(held.split(), parked.split())
        return getattr(race, first), getattr(race, second), race.check

    return scenario


def test_no_preemption_lets_in_two_who_do_not_fit_or_forgets_anybody(held, parked, first, second):
    explore_preemptions(race(held, parked, first, second), within="yamanote.sync._rwlock")


def test_of_two_who_release_what_one_has_one_learns_of_it():
    def scenario():
        lock = RwLock()
        assert lock.write().try_acquire()
        errors = []

        def leave():
            try:
                lock.write().release()
            except RuntimeError as error:
                errors.append(error)

        def check():
            assert len(errors) == 1
            assert lock.write().try_acquire()

        return leave, leave, check

    explore_preemptions(scenario, within="yamanote.sync._rwlock")


async def signs_in_without_looking_again(self):
    if self._queue:
        raise RuntimeError
    self._readers.append(None)
    return self


def parks_without_looking_again(self, waiter, side):
    waiter.operation = side
    if self.readers or self.queue:
        self.queue.append(waiter)
    else:
        self.queue.append(waiter)
        self.serve()


def looks_before_it_leaves(self):
    alone = len(self.readers) == 1 and bool(self.queue)
    self.readers.pop()
    if alone:
        self.serve()


@pytest.mark.parametrize(
    ("where", "method", "mistake", "scenario"),
    [
        (_rwlock.ReadLock, "__aenter__", signs_in_without_looking_again, race("", "", "enter_read", "park_write")),
        (_rwlock._Room, "enlist", parks_without_looking_again, race("read", "", "leave_read", "park_write")),
        (_rwlock._Room, "end_reading", looks_before_it_leaves, race("read read", "write", "leave_read", "leave_read")),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_mistake_between_two_threads_is_found(monkeypatch, where, method, mistake, scenario):
    monkeypatch.setattr(where, method, mistake)
    with pytest.raises(Counterexample):
        explore_preemptions(scenario)


# ------------------------------------------------------------------ many at once


@pytest.mark.usefixtures("_threads_switch_as_often_as_possible")
def test_tasks_of_several_loops_and_threads_read_together_and_write_alone():
    lock = RwLock()
    value = [0]
    readers, wrong = [], []

    def write():
        if readers:
            wrong.append("a writer met a reader")
        before = value[0]
        value[0] = -1
        value[0] = before + 1

    def read():
        readers.append(None)
        if value[0] < 0:
            wrong.append("a reader saw a write half done")
        readers.pop()

    def thread(seed):
        chance = random.Random(seed)
        for _ in range(200):
            if chance.random() < 0.3:
                with lock.write() as held:
                    write()
                    if chance.random() < 0.5:
                        held.downgrade()
                        read()
            else:
                with lock.read():
                    read()

    def impatient():
        for _ in range(200):
            try:
                lock.write().blocking_acquire(timeout=0)
            except TimeoutError:
                if lock.read().try_acquire():
                    read()
                    lock.read().release()
            else:
                lock.write().release()

    async def tasks(seed):
        chance = random.Random(seed)

        async def work():
            for _ in range(40):
                async with lock.read():
                    read()
                    if chance.random() < 0.5:
                        await yield_now()
                async with lock.write():
                    if chance.random() < 0.5:
                        await yield_now()
                    write()

        running = [asyncio.create_task(work()) for _ in range(5)]
        while not all(task.done() for task in running):
            for _ in range(chance.randrange(20)):
                await yield_now()
            if chance.random() < 0.2:
                chance.choice(running).cancel()
        await asyncio.gather(*running, return_exceptions=True)

    at_the_same_time(
        lambda: thread(1),
        lambda: thread(2),
        impatient,
        lambda: asyncio.run(tasks(3)),
        lambda: asyncio.run(tasks(4)),
    )
    assert not wrong
    now = lock.statistics()
    assert (now.reading, now.writing, now.waiting) == (0, False, 0)
