"""A reader-writer lock: every order of the steps, every cancellation, a model of it, and mistakes that are found."""

import asyncio
from dataclasses import dataclass
from itertools import count

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from yamanote.runtime import park
from yamanote.sync import RwLock, _rwlock
from yamanote.testing import Counterexample, explore, explore_cancellations, replay

from .test_sync_explored import play
from .test_sync_model import Machine, Party, in_test_run

# ------------------------------------------------------------------ every order, every cancellation


@dataclass(frozen=True)
class Visits:
    """A scenario: who reads and who writes."""

    roles: str

    async def __call__(self) -> None:
        library = Library()
        await play(library, self.roles)
        library.check_that_it_is_as_before()


class Library:
    """A reader-writer lock, and who is inside."""

    def __init__(self):
        self.lock = RwLock()
        self.readers = 0
        self.writers = 0
        self.tickets = count()
        self.pending = []
        """The tickets of those who have asked, but are not inside yet: in the order in which they asked."""

    async def oversee(self, tasks):
        await asyncio.sleep(1.5)  # between the end of those who hurry and that of those who linger
        self.check()
        await asyncio.wait(tasks)

    def check_that_it_is_as_before(self):
        assert (self.readers, self.writers) == (0, 0)
        now = self.lock.statistics()
        assert (now.reading, now.writing, now.waiting) == (0, False, 0), "somebody is still inside, or in the queue"
        assert not self.lock._room.queue, "something dead is in the way"

    def check(self):
        assert self.writers == 0 or (self.writers, self.readers) == (1, 0), "a writer is not alone"
        now = self.lock.statistics()
        assert now.reading >= self.readers
        first = next(iter(self.lock._room.queue), None)
        if first is not None and first.is_waiting():
            assert first.operation.writes and now.reading, "a party waits for what is there"

    def enter(self, ticket):
        self.pending.remove(ticket)
        parked = sum(waiter.is_waiting() for waiter in self.lock._room.queue)
        assert parked <= sum(other > ticket for other in self.pending), "somebody was overtaken"

    async def use(self, side, stay):
        self.pending.append(ticket := next(self.tickets))
        try:
            async with side as held:
                self.enter(ticket)
                await stay(held)
        finally:
            if ticket in self.pending:
                self.pending.remove(ticket)

    async def stay_as_reader(self, _, seconds=0):
        self.readers += 1
        try:
            self.check()
            await asyncio.sleep(seconds)
        finally:
            self.readers -= 1

    async def stay_as_writer(self, _, seconds=0):
        self.writers += 1
        try:
            self.check()
            await asyncio.sleep(seconds)
        finally:
            self.writers -= 1

    async def downgrade(self, held):
        await self.stay_as_writer(held)
        held.downgrade()
        await self.stay_as_reader(held)

    # ---------------------------------------------------------------- roles

    async def reads(self):
        for _ in range(2):
            await self.use(self.lock.read(), self.stay_as_reader)

    async def lingers(self):
        await self.use(self.lock.read(), lambda held: self.stay_as_reader(held, 2))

    async def writes(self):
        await self.use(self.lock.write(), self.stay_as_writer)

    async def sleeps(self):
        await self.use(self.lock.write(), lambda held: self.stay_as_writer(held, 2))

    async def changes(self):
        await self.use(self.lock.write(), self.downgrade)

    async def hurries(self):
        try:
            async with asyncio.timeout(1):
                await self.writes()
        except TimeoutError:
            pass

    async def hurries_to_read(self):
        try:
            async with asyncio.timeout(1):
                await self.reads()
        except TimeoutError:
            pass

    async def tries(self):
        for side, stay in ((self.lock.read(), self.stay_as_reader), (self.lock.write(), self.stay_as_writer)):
            nobody_waits = not self.lock.statistics().waiting
            if side.try_acquire():
                assert nobody_waits, "a newcomer was faster than who waits"
                try:
                    await stay(side)
                finally:
                    side.release()

    async def selects(self):
        self.pending.append(ticket := next(self.tickets))
        try:
            turn = await park(self.lock.write())
        except asyncio.CancelledError:
            self.pending.remove(ticket)
            raise
        with turn as held:
            self.enter(ticket)
            await self.downgrade(held)


VISITS = {
    "both": Visits("reads writes reads"),
    "newcomers": Visits("writes tries reads tries"),
    "time": Visits("lingers hurries reads hurries_to_read"),
    "writers and time": Visits("sleeps hurries_to_read writes reads"),
    "downgrade": Visits("changes reads changes tries"),
    "select": Visits("reads selects writes"),
}

each_scenario = pytest.mark.parametrize("scenario", VISITS.values(), ids=VISITS)


@each_scenario
def test_in_every_order_of_the_steps(scenario):
    explore(scenario, runs=40)


@each_scenario
def test_whoever_is_cancelled_whenever(scenario):
    explore_cancellations(scenario, runs=50)


# ------------------------------------------------------------------ against a model


class LockMachine(Machine):
    """How many read, whether one writes, and a queue in which nobody is overtaken."""

    def __init__(self):
        super().__init__()
        self.subject = RwLock()
        self.reading = 0
        self.writing = False
        self.held = []
        """How each party that has taken what it was handed is inside now."""

    def fits(self, want):
        return not self.writing and (want == "read" or not self.reading)

    def admit(self, want):
        self.writing = want == "write"
        self.reading += want == "read"

    def serve(self):
        while self.queue and self.fits(self.queue[0].want):
            self.admit(self.queue[0].want)
            self.served.append(self.queue.popleft())

    def take(self, party, outcome):
        outcome.unwrap()
        self.held.append(party.want)

    def put_back(self, party):
        self.leave(party.want)

    def leave(self, want):
        if want == "write":
            self.writing = False
        else:
            self.reading -= 1

    def side(self, want):
        return self.subject.read() if want == "read" else self.subject.write()

    @rule(want=st.sampled_from(["read", "write"]))
    def acquires(self, want):
        outcome, work = self.call(self.side(want).acquire())
        party = Party(work, want)
        if not self.queue and self.fits(want):
            self.admit(want)
            self.take(party, outcome)
        else:
            assert outcome is None
            self.queue.append(party)

    @rule(want=st.sampled_from(["read", "write"]))
    def tries(self, want):
        expected = not self.queue and self.fits(want)
        assert self.side(want).locked() is not expected
        assert self.side(want).try_acquire() is expected
        if expected:
            self.admit(want)
            self.held.append(want)

    @rule(data=st.data())
    @precondition(lambda self: self.held)
    def leaves(self, data):
        want = data.draw(st.sampled_from(self.held))
        self.held.remove(want)
        self.do(self.side(want).release)
        self.leave(want)
        self.serve()

    @rule()
    @precondition(lambda self: "write" in self.held)
    def downgrades(self):
        self.do(self.subject.write().downgrade)
        self.held = ["read"]
        self.writing, self.reading = False, 1
        self.serve()

    @rule()
    @precondition(lambda self: not self.writing)
    def is_downgraded_by_somebody_who_does_not_have_it(self):
        with pytest.raises(RuntimeError):
            self.do(self.subject.write().downgrade)

    @rule(want=st.sampled_from(["read", "write"]))
    @precondition(lambda self: not self.reading and not self.writing)
    def is_left_by_somebody_who_does_not_have_it(self, want):
        with pytest.raises(RuntimeError):
            self.do(self.side(want).release)

    @invariant()
    def it_says_what_the_model_says(self):
        now = self.subject.statistics()
        assert (now.reading, now.writing, now.waiting) == (self.reading, self.writing, len(self.queue))


TestLock = LockMachine.TestCase
TestLock.settings = in_test_run


# ------------------------------------------------------------------ mistakes


Room = _rwlock._Room


def keeps_what_a_cancelled_party_was_handed(self, waiter):
    if not waiter.settled:
        self.queue.remove(waiter)
        self.serve_locked()


def wakes_nobody_behind_a_cancelled_party(self, waiter):
    if not waiter.settled:
        self.queue.remove(waiter)
    elif waiter.operation.writes:
        self.end_writing()
        self.serve_locked()
    else:
        self.readers.pop()
        self.serve_locked()


def lets_in_the_last_first(self, waiter, side):
    waiter.operation = side
    if self.queue and self.queue[0] is _rwlock._WRITING:
        self.queue.insert(1, waiter)
    else:
        self.queue.appendleft(waiter)
    self.serve()


async def lets_a_reader_overtake_a_writer_that_waits(self):
    if self._queue and self._queue[0] is not _rwlock._WRITING:
        self._readers.append(None)
    else:
        await self.acquire()
    return self


def downgrades_through_an_open_door(self):
    self._room.end_writing()
    self._room.serve()
    self._readers.append(None)


@pytest.mark.parametrize(
    ("where", "method", "mistake", "explorer", "scenario"),
    [
        (Room, "_delist", keeps_what_a_cancelled_party_was_handed, explore_cancellations, VISITS["both"]),
        (Room, "_delist", wakes_nobody_behind_a_cancelled_party, explore, VISITS["time"]),
        (Room, "enlist", lets_in_the_last_first, explore, VISITS["both"]),
        (_rwlock.ReadLock, "__aenter__", lets_a_reader_overtake_a_writer_that_waits, explore, VISITS["both"]),
        (_rwlock.WriteLock, "downgrade", downgrades_through_an_open_door, explore, VISITS["downgrade"]),
    ],
    ids=lambda value: getattr(value, "__name__", getattr(value, "roles", None)),
)
def test_a_mistake_is_found(monkeypatch, where, method, mistake, explorer, scenario):
    monkeypatch.setattr(where, method, mistake)
    with pytest.raises(Counterexample) as found:
        explorer(scenario)
    with pytest.raises(Counterexample):
        replay(scenario, found.value.token)
