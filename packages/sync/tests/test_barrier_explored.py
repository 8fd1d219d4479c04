"""A barrier: every order of the steps, every cancellation, threads, and mistakes that are found."""

import asyncio
from dataclasses import dataclass

import pytest

from yamanote.runtime import Waiter
from yamanote.sync import Barrier, BrokenBarrier
from yamanote.testing import Counterexample, explore, explore_cancellations, explore_preemptions, replay

from .test_sync_explored import play
from .test_sync_threads import _threads_switch_as_often_as_possible, at_the_same_time  # noqa: F401 - a fixture

# ------------------------------------------------------------------ every order, every cancellation


@dataclass(frozen=True)
class Meetings:
    """A scenario: who comes to meetings of three."""

    roles: str

    async def __call__(self) -> None:
        await play(Platform(), self.roles)


class Platform:
    """A barrier, and who went on with which position."""

    def __init__(self):
        self.barrier = Barrier(3)
        self.waiting = set()
        self.gone_on = []
        self.gave_up = 0
        self.aborted = False

    async def oversee(self, tasks):
        await asyncio.sleep(10)  # until everybody has come to rest
        assert self.barrier.value() == len(self.waiting), "somebody is in the queue who does not wait"
        assert self.barrier.is_broken or len(self.waiting) < 3, "all are there, and nobody goes on"
        rounds = [self.gone_on.count(position) for position in range(3)]
        # Who was cancelled when its round was complete has been there, but does not say so.
        assert sum(max(rounds) - count for count in rounds) <= self.gave_up, (
            "a round without a party, or with one twice"
        )
        self.aborted = True
        self.barrier.abort()
        assert not self.barrier.value()
        await asyncio.wait(tasks)

    async def come(self):
        self.waiting.add(me := object())
        try:
            self.gone_on.append(await self.barrier.wait())
        except BrokenBarrier:
            assert self.aborted
        except asyncio.CancelledError:
            self.gave_up += 1
            raise
        finally:
            self.waiting.discard(me)

    # ---------------------------------------------------------------- roles

    async def comes(self):
        await self.come()

    async def comes_twice(self):
        await self.come()
        await self.come()

    async def hurries(self):
        try:
            async with asyncio.timeout(1):
                await self.come()
        except TimeoutError:
            pass

    async def is_late(self):
        await asyncio.sleep(1)
        await self.come()

    async def aborts(self):
        self.aborted = True
        self.barrier.abort()
        assert not self.barrier.value(), "somebody was not told"

    async def resets(self):
        self.aborted = True
        self.barrier.reset()


MEETINGS = {
    "rounds": Meetings("comes_twice comes_twice comes_twice"),
    "many": Meetings("comes comes comes comes comes_twice comes"),
    "time": Meetings("comes hurries is_late is_late"),
    "abort": Meetings("comes comes aborts comes"),
    "reset": Meetings("comes comes resets comes comes"),
}

each_scenario = pytest.mark.parametrize("scenario", MEETINGS.values(), ids=MEETINGS)


@each_scenario
def test_in_every_order_of_the_steps(scenario):
    explore(scenario, runs=40)


@each_scenario
def test_whoever_is_cancelled_whenever(scenario):
    explore_cancellations(scenario, runs=60)


# ------------------------------------------------------------------ mistakes


def leaves_a_cancelled_party_in_the_queue(self, waiter):
    pass


def opens_for_one_too_few(self, waiter):
    self._waiters.append(waiter)
    if len(self._waiters) >= self._parties - 1:
        for position in range(len(self._waiters)):
            self._waiters.popleft().hand(position)


def gives_everybody_the_same_position(self):
    while len(self._waiters) >= self._parties:
        for _ in range(self._parties):
            self._waiters.popleft().hand(0)


def tells_nobody_of_the_end(self, broken):
    self._broken = broken


@pytest.mark.parametrize(
    ("method", "mistake", "explorer", "scenario"),
    [
        ("_forget", leaves_a_cancelled_party_in_the_queue, explore_cancellations, MEETINGS["rounds"]),
        ("register", opens_for_one_too_few, explore, MEETINGS["many"]),
        ("_look", gives_everybody_the_same_position, explore, MEETINGS["rounds"]),
        ("_break", tells_nobody_of_the_end, explore, MEETINGS["abort"]),
    ],
    ids=lambda value: getattr(value, "__name__", getattr(value, "roles", None)),
)
def test_a_mistake_is_found(monkeypatch, method, mistake, explorer, scenario):
    monkeypatch.setattr(Barrier, method, mistake)
    with pytest.raises(Counterexample) as found:
        explorer(scenario)
    with pytest.raises(Counterexample):
        replay(scenario, found.value.token)


# ------------------------------------------------------------------ threads


class Race:
    """A barrier of three, one party that waits, and two calls that are made at once."""

    def __init__(self):
        self.barrier = Barrier(3)
        self.waiters = []
        self.come()

    def come(self):
        # `Waiter` itself is a party that nobody has to wake.
        self.waiters.append(waiter := Waiter([None]))
        self.barrier.register(waiter)

    def leave(self):
        waiter = self.waiters[0]
        waiter.claim()
        self.barrier.withdraw(waiter)

    def abort(self):
        self.barrier.abort()

    def check(self):
        positions = sorted(waiter.value for waiter in self.waiters if waiter.settled and waiter.error is None)
        refused = [waiter for waiter in self.waiters if waiter.error is not None]
        waiting = [waiter for waiter in self.waiters if waiter.is_waiting()]
        assert positions in ([], [0, 1, 2], [1, 2]), "not one full round"
        assert not (self.barrier.is_broken and waiting), "a party was not told of the end"
        assert self.barrier.value() == len(waiting), "a party was forgotten, or is there twice"
        assert len(positions) or refused or len(waiting) < 3, "all are there, and nobody goes on"


def race(first, second):
    def scenario():
        race = Race()
        return getattr(race, first), getattr(race, second), race.check

    return scenario


@pytest.mark.parametrize(("first", "second"), [("come", "come"), ("come", "abort"), ("come", "leave")])
def test_no_preemption_forgets_a_party(first, second):
    explore_preemptions(race(first, second), within="yamanote.sync._barrier")


def counts_before_it_comes(self, waiter):
    complete = len(self._waiters) + 1 >= self._parties
    self._waiters.append(waiter)
    if complete or self._broken:
        self._section.run(self._look)


@pytest.mark.parametrize("calls", [("come", "come")])
def test_a_mistake_between_two_threads_is_found(monkeypatch, calls):
    monkeypatch.setattr(Barrier, "register", counts_before_it_comes)
    with pytest.raises(Counterexample):
        explore_preemptions(race(*calls))


@pytest.mark.usefixtures("_threads_switch_as_often_as_possible")
def test_tasks_of_several_loops_and_threads_go_round_together():
    barrier = Barrier(6)
    rounds = [[] for _ in range(100)]

    def thread():
        for positions in rounds:
            positions.append(barrier.blocking_wait())

    async def tasks():
        async def work():
            for positions in rounds:
                positions.append(await barrier.wait())

        await asyncio.gather(work(), work())

    at_the_same_time(thread, thread, lambda: asyncio.run(tasks()), lambda: asyncio.run(tasks()))
    assert all(sorted(positions) == [0, 1, 2, 3, 4, 5] for positions in rounds)
    assert barrier.value() == 0
