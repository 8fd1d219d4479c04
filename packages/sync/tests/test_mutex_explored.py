"""A mutex that may be poisoned: every order of the steps, every cancellation, threads, and mistakes that are found."""

import asyncio
from dataclasses import dataclass

import pytest

from yamanote.runtime import park
from yamanote.sync import Mutex, MutexPoisoned, WouldBlock, _mutex
from yamanote.testing import Counterexample, explore, explore_cancellations, explore_preemptions, replay

from .test_sync_explored import play
from .test_sync_threads import _threads_switch_as_often_as_possible, at_the_same_time  # noqa: F401 - a fixture


@dataclass(frozen=True)
class Accounts:
    """A scenario: who changes two numbers whose sum is always zero, and who fails in between."""

    roles: str

    async def __call__(self) -> None:
        office = Office()
        await play(office, self.roles)
        assert not office.mutex.locked()
        assert office.mutex.statistics().waiting == 0


class Half(Exception):
    """Something went wrong half-way through."""


class Office:
    """The two numbers, and whether somebody has left them half-changed."""

    def __init__(self):
        self.mutex = Mutex(lambda: [0, 0], poison=True)
        self.half = False

    async def oversee(self, tasks):
        await asyncio.wait(tasks)

    async def enters(self):
        try:
            async with self.mutex.lock() as guard:
                assert not self.half, "somebody was let in after a failure"
                assert guard[0] + guard[1] == 0
                guard[0] += 1
                guard[1] -= 1
                await asyncio.sleep(0)
        except MutexPoisoned:
            assert self.half, "somebody was turned away although all is well"

    async def selects(self):
        try:
            with await park(self.mutex.lock()) as guard:
                assert not self.half, "somebody was let in after a failure"
                guard[0] += 1
                guard[1] -= 1
                await asyncio.sleep(0)
        except MutexPoisoned:
            assert self.half, "somebody was turned away although all is well"

    async def fails(self):
        try:
            async with self.mutex.lock() as guard:
                await asyncio.sleep(0)
                guard[0] += 1
                self.half = True
                raise Half
        except Half:
            assert self.mutex.is_poisoned
        except MutexPoisoned:
            assert self.half

    async def mends(self):
        await asyncio.sleep(1)
        if self.half:
            self.half = False
            self.mutex.clear_poison()
            async with self.mutex.lock() as guard:
                guard.value = [0, 0]

    async def tries(self):
        try:
            with self.mutex.or_raise() as guard:
                assert guard[0] + guard[1] == 0
        except (WouldBlock, MutexPoisoned):
            pass


ACCOUNTS = {
    "failure": Accounts("enters fails enters"),
    "select": Accounts("selects fails selects tries"),
    "mended": Accounts("enters fails enters mends"),
}

each_scenario = pytest.mark.parametrize("scenario", ACCOUNTS.values(), ids=ACCOUNTS)


@each_scenario
def test_in_every_order_of_the_steps(scenario):
    explore(scenario, runs=40)


@each_scenario
def test_whoever_is_cancelled_whenever(scenario):
    explore_cancellations(scenario, runs=50)


# ------------------------------------------------------------------ mistakes


def does_not_look_after_it_has_waited(self):
    self._guard = guard = _mutex.Guard(self._mutex)
    return guard


def keeps_the_lock_when_it_is_poisoned(self):
    if self._mutex._poisoned:
        raise MutexPoisoned
    return does_not_look_after_it_has_waited(self)


def poisons_after_it_has_released(self, error):
    _mutex._end(self._guard)
    self._mutex._lock.release()
    asyncio.get_running_loop().call_later(0.1, setattr, self._mutex, "_poisoned", isinstance(error, Exception))


def poisons_when_it_is_cancelled(self, error):
    _mutex._end(self._guard)
    self._mutex._poisoned |= error is not None
    self._mutex._lock.release()


def keeps_a_turn_that_was_not_taken(self, waiter):
    pass


@pytest.mark.parametrize(
    ("method", "mistake", "explorer", "scenario"),
    [
        ("_enter", does_not_look_after_it_has_waited, explore, ACCOUNTS["failure"]),
        ("_enter", keeps_the_lock_when_it_is_poisoned, explore, ACCOUNTS["failure"]),
        ("_leave", poisons_after_it_has_released, explore, ACCOUNTS["failure"]),
        ("_leave", poisons_when_it_is_cancelled, explore_cancellations, ACCOUNTS["failure"]),
        ("withdraw", keeps_a_turn_that_was_not_taken, explore_cancellations, ACCOUNTS["select"]),
    ],
    ids=lambda value: getattr(value, "__name__", getattr(value, "roles", None)),
)
def test_a_mistake_is_found(monkeypatch, method, mistake, explorer, scenario):
    monkeypatch.setattr(_mutex.Locking, method, mistake)
    with pytest.raises(Counterexample) as found:
        explorer(scenario)
    with pytest.raises(Counterexample):
        replay(scenario, found.value.token)


# ------------------------------------------------------------------ threads


def test_no_preemption_lets_anybody_in_after_a_failure():
    def scenario():
        mutex = Mutex(lambda: [0, 0], poison=True)
        let_in = []
        turn = mutex.lock()
        guard = turn.__enter__()

        def fails():
            guard[0] += 1
            turn.__exit__(Half, Half(), None)

        def enters():
            try:
                with mutex.or_raise() as guard:
                    let_in.append(guard)
            except (WouldBlock, MutexPoisoned):
                pass

        def check():
            assert not let_in, "somebody was let in after a failure"
            assert mutex.is_poisoned
            assert not mutex.locked()

        return fails, enters, check

    explore_preemptions(scenario, within="yamanote.sync._mutex")


@pytest.mark.usefixtures("_threads_switch_as_often_as_possible")
def test_turns_that_are_taken_in_every_way_by_threads_and_tasks_add_up():
    mutex = Mutex(0)

    def thread():
        for _ in range(150):
            with mutex.blocking_lock(timeout=60) as guard:
                guard.value = guard.value + 1

    def impatient():
        done = 0
        while done < 150:
            try:
                with mutex.or_raise() as guard:
                    guard.value = guard.value + 1
                    done += 1
            except WouldBlock:
                with mutex.lock() as guard:
                    guard.value = guard.value + 1
                    done += 1

    async def tasks():
        for _ in range(150):
            with await park(mutex.lock()) as guard:
                before = guard.value
                await asyncio.sleep(0)
                guard.value = before + 1

    at_the_same_time(thread, impatient, lambda: asyncio.run(tasks()), lambda: asyncio.run(tasks()))
    with mutex.lock() as guard:
        assert guard == 600
