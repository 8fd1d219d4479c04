"""What signals promise to threads: one preemption anywhere, and many parties at once."""

import asyncio
import random
import sys
import threading
from collections import deque
from itertools import combinations_with_replacement

import pytest

from yamanote.runtime import Waiter, yield_now
from yamanote.sync import AlreadySet, Button, Cargo, Latch, Notify, OnceCell, SetOnce, WouldBlock
from yamanote.testing import explore_preemptions

from .test_sync_threads import at_the_same_time

# ------------------------------------------------------------------ one preemption


class Station:
    """A `Notify`, two of whose calls are made at once, and who has been told what."""

    def __init__(self):
        self.notify = Notify()
        self.early = self.notify.notified()
        self.waiting = []
        self.notified = 0
        self.all_notified = False

    def park(self):
        notified, self.early = self.early or self.notify.notified(), None
        waiter = Waiter([None])
        self.waiting.append((notified, waiter))
        notified.register(waiter)

    def cancel(self):
        notified, waiter = self.waiting.pop(0)
        waiter.claim()
        notified.withdraw(waiter)

    def notify_one(self):
        self.notified += 1
        self.notify.notify_one()

    def notify_last(self):
        self.notified += 1
        self.notify.notify_last()

    def notify_waiters(self):
        self.all_notified = True
        self.notify.notify_waiters()

    def check(self):
        permits = len(self.notify._pool.tokens)
        asleep = [waiter for _, waiter in self.waiting if not waiter.settled]
        assert self.notify._pool.parked == len(asleep), "a party was forgotten, or is there twice"
        assert not (permits and asleep), "a party waits for what is there"
        assert permits <= 1, "more than one permit is stored"
        told = len(self.waiting) - len(asleep)
        if self.all_notified:
            assert not asleep, "it had asked, and was not told"
        else:
            assert told + permits == min(self.notified, len(self.waiting) + 1), "a notification was lost, or made"


NOTIFICATIONS = {
    "nobody waits": ((), "park notify_one notify_last notify_waiters"),
    "two wait": (("park", "park"), "notify_one notify_last notify_waiters cancel"),
}
"""Who waits, and which calls are made at once, any two of them."""
QUICK = {
    "nobody waits: park, notify_one",
    "nobody waits: park, notify_last",
    "nobody waits: park, notify_waiters",
    "nobody waits: notify_one, notify_one",
    "two wait: notify_one, notify_last",
    "two wait: notify_one, cancel",
}
"""Those that are made without being asked for, with ``--explore-runs``."""


def pytest_generate_tests(metafunc):
    if "notification" in metafunc.fixturenames:
        notifications = {
            f"{name}: {first}, {second}": of_notify(before, first, second)
            for name, (before, calls) in NOTIFICATIONS.items()
            for first, second in combinations_with_replacement(calls.split(), 2)
        }
        if metafunc.config.getoption("explore_runs", None) is None:
            notifications = {name: calls for name, calls in notifications.items() if name in QUICK}
        metafunc.parametrize("notification", notifications.values(), ids=notifications)


def of_notify(before, first, second):
    def scenario():
        station = Station()
        for call in before:
            getattr(station, call)()
        return getattr(station, first), getattr(station, second), station.check

    return scenario


def test_no_preemption_loses_a_notification_or_makes_one(notification):
    explore_preemptions(notification, within="yamanote.sync")


class Once:
    """A cell, and who has made, set or got its value."""

    def __init__(self):
        self.cell = OnceCell()
        self.made = []
        self.got = []
        self.refused = 0

    def get(self):
        self.got.append(self.cell.blocking_get_or_init(self.make))

    def make(self):
        self.made.append(value := object())
        return value

    def set(self):
        value = object()
        try:
            self.cell.set(value)
        except (AlreadySet, WouldBlock):
            self.refused += 1
        else:
            self.made.append(value)

    def check(self):
        assert len(self.made) == 1, "it was made twice"
        assert all(value is self.made[0] for value in [*self.got, self.cell.get()])


def of_once_cell(first, second):
    def scenario():
        once = Once()
        return getattr(once, first), getattr(once, second), once.check

    return scenario


@pytest.mark.parametrize(("first", "second"), [("set", "set"), ("set", "get"), ("get", "get")])
def test_no_preemption_makes_a_value_twice(first, second):
    explore_preemptions(of_once_cell(first, second), within="yamanote.sync._once_cell")


def test_no_preemption_sets_a_value_twice():
    def scenario():
        once = SetOnce()
        refused = []

        def set_it(value):
            try:
                once.set(value)
            except AlreadySet:
                refused.append(value)

        def check():
            assert sorted([once.get(), *refused]) == [1, 2]

        return lambda: set_it(1), lambda: set_it(2), check

    explore_preemptions(scenario, within="yamanote.sync._cell")


class Presses:
    """A latch, and a party that waits for its next change after the one that it has seen."""

    def __init__(self):
        self.latch = Latch()
        self.waiter = Waiter([None])
        self.seen = None

    def press(self):
        self.latch.set()

    def press_and_park(self):
        self.latch.set()
        self.look_and_park()

    def look_and_park(self):
        self.seen = self.latch.is_set()
        self.latch.wait().register(self.waiter)

    def check(self):
        if self.seen:
            assert not self.waiter.settled, "it was told of what it had seen"
        self.latch.unset()
        assert self.waiter.settled
        assert self.latch.statistics().waiting == 0


def of_presses(first, second):
    def scenario():
        presses = Presses()
        return getattr(presses, first), getattr(presses, second), presses.check

    return scenario


@pytest.mark.parametrize("second", ["look_and_park", "press_and_park"])
def test_no_preemption_tells_anybody_of_a_change_that_it_has_seen(second):
    explore_preemptions(of_presses("press", second), within="yamanote.sync")


# ------------------------------------------------------------------ many at once


@pytest.fixture
def _threads_switch_as_often_as_possible():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_threads_switch_as_often_as_possible")
def test_work_that_is_announced_by_any_thread_is_done_by_somebody():
    notify = Notify()
    work, done = deque(), deque()
    rounds, announcers = 300, 2
    closing = threading.Event()

    def announce(seed):
        chance = random.Random(seed)
        for item in range(rounds):
            work.append((seed, item))
            chance.choice([notify.notify_one, notify.notify_one, notify.notify_last])()

    def take_all():
        while work:
            try:
                done.append(work.popleft())
            except IndexError:
                break
        if len(done) == rounds * announcers:
            closing.set()
            notify.notify_waiters()
            notify.notify_one()

    def thread():
        while not closing.is_set():
            notified = notify.notified()
            take_all()
            if not closing.is_set():
                notified.blocking_wait()

    async def tasks(seed):
        chance = random.Random(seed)

        async def follow():
            while not closing.is_set():
                notified = notify.notified()
                take_all()
                if not closing.is_set():
                    await notified

        async def give_up():
            while not closing.is_set():
                waiting = asyncio.ensure_future(notify.notified())
                for _ in range(chance.randrange(4)):
                    await yield_now()
                if not waiting.cancel():
                    take_all()
                else:
                    await asyncio.wait([waiting])

        await asyncio.gather(follow(), follow(), give_up())

    at_the_same_time(
        lambda: announce(0),
        lambda: announce(1),
        thread,
        lambda: asyncio.run(tasks(1)),
        lambda: asyncio.run(tasks(2)),
    )
    assert sorted(done) == [(seed, item) for seed in range(announcers) for item in range(rounds)]
    assert notify.statistics().waiting == 0


@pytest.mark.usefixtures("_threads_switch_as_often_as_possible")
@pytest.mark.parametrize("seed", range(10))
def test_tasks_of_several_loops_and_threads_make_one_value(seed):
    cell = OnceCell()
    made, got = [], []

    def make(chance):
        if chance.random() < 0.6:
            raise ZeroDivisionError
        made.append(value := object())
        return value

    def thread():
        chance = random.Random(seed)
        while not cell.is_set():
            try:
                got.append(cell.blocking_get_or_init(lambda: make(chance)))
            except ZeroDivisionError:
                pass

    async def tasks():
        chance = random.Random(seed + 1)

        async def slowly():
            await yield_now()
            return make(chance)

        async def want():
            while not cell.is_set():
                try:
                    got.append(await cell.get_or_init(slowly))
                except ZeroDivisionError:
                    pass

        wanting = [asyncio.create_task(want()) for _ in range(4)]
        await yield_now()
        wanting[seed % 4].cancel()
        await asyncio.wait(wanting)

    at_the_same_time(thread, thread, lambda: asyncio.run(tasks()), lambda: asyncio.run(tasks()))
    assert len(made) == 1
    assert all(value is made[0] for value in got)
    assert cell.statistics().waiting == 0


@pytest.mark.usefixtures("_threads_switch_as_often_as_possible")
def test_presses_of_any_thread_reach_tasks_of_several_loops_and_threads_in_order():
    cargo, over = Cargo(), SetOnce()

    def press():
        number = 0
        while not over.is_set():
            number += 1
            cargo.press(number)

    finished = deque()

    def finish():
        finished.append(None)
        if len(finished) == 4:
            over.set(None)

    def thread():
        last = 0
        for _ in range(50):
            last, before = cargo.blocking_wait(), last
            assert last > before
        finish()

    async def tasks():
        async def follow():
            last = 0
            for _ in range(50):
                last, before = await cargo, last
                assert last > before

        await asyncio.gather(follow(), follow())
        finish()

    at_the_same_time(press, thread, thread, lambda: asyncio.run(tasks()), lambda: asyncio.run(tasks()))
    assert cargo.statistics().waiting == 0


@pytest.mark.usefixtures("_threads_switch_as_often_as_possible")
def test_both_edges_of_a_latch_reach_tasks_and_threads():
    latch, button = Latch(), Button()
    rounds = 200

    def thread():
        for _ in range(rounds):
            assert latch.wait_set().blocking_wait(30)
            latch.unset()

    async def tasks():
        for _ in range(rounds):
            await latch.wait_unset()
            latch.set()
        await latch.wait_unset()
        button.press()

    at_the_same_time(thread, lambda: asyncio.run(tasks()))
    assert not latch.is_set()
    assert "pressed 1 times" in repr(button)
