"""Each primitive against a model that a child could check: numbers, and a queue of those who wait.

The waiting calls are polled by hand, so between any two steps the model knows who has been served and who has not.
"""

import asyncio
from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from yamanote.runtime import BUDGET, park
from yamanote.sync import Event, Mutex, Semaphore, SemaphoreClosed, VersionedCell
from yamanote.testing import step

in_test_run = settings(derandomize=True, max_examples=20, stateful_step_count=30, deadline=None)


class Party:
    """A call that waits or has been served, in the world and in the model."""

    def __init__(self, work, want):
        self.work = work
        self.want = want
        self.handed = None


class Machine(RuleBasedStateMachine):
    """A primitive, on a loop of its own that runs only while a call is polled."""

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.queue = deque()
        """Who waits, in order, according to the model."""
        self.served = []
        """Who was handed something that it has not taken yet."""

    def teardown(self):
        for party in [*self.queue, *self.served]:
            party.work.close()
        self.loop.close()

    def do(self, function, *args):
        """Call it on the loop: elsewhere, what it wakes would be woken a loop turn later."""

        async def on_the_loop():
            return function(*args)

        return self.loop.run_until_complete(on_the_loop())

    def poll(self, work):
        """Let it run to its next wait; a budget that is used up is no wait."""
        while work.is_woken:
            self.do(work.poll)
        return work.poll()

    def call(self, awaitable):
        """Begin it: the outcome, if there is one already, and the work that it is otherwise."""
        work = step(awaitable)
        return self.poll(work), work

    @invariant()
    def those_and_only_those_are_woken_who_are_served(self):
        assert all(party.work.is_woken for party in self.served)
        assert not any(party.work.is_woken for party in self.queue)

    @rule(data=st.data())
    @precondition(lambda self: self.served or self.queue)
    def goes_on_or_waits_on(self, data):
        party = data.draw(st.sampled_from([*self.served, *self.queue]))
        outcome = self.poll(party.work)
        if party in self.queue:
            assert outcome is None
        else:
            self.served.remove(party)
            self.take(party, outcome)

    @rule(data=st.data())
    @precondition(lambda self: self.served or self.queue)
    def is_cancelled(self, data):
        party = data.draw(st.sampled_from([*self.served, *self.queue]))
        outcome = self.do(party.work.throw, asyncio.CancelledError())
        assert isinstance(outcome.error, asyncio.CancelledError)
        if party in self.queue:
            self.queue.remove(party)
        else:
            self.served.remove(party)
            self.put_back(party)
        self.serve()

    def take(self, party, outcome):
        """It has what it was handed."""
        raise NotImplementedError

    def put_back(self, party):
        """What it was handed is there for others."""

    def serve(self):
        """Hand over what there is, in order."""
        raise NotImplementedError


class SemaphoreMachine(Machine):
    """Free permits, held ones, and a queue in which nobody is overtaken."""

    def __init__(self):
        super().__init__()
        self.subject = Semaphore(3)
        self.free = 3
        self.held = 0
        self.closed = False

    def serve(self):
        while self.queue and self.queue[0].want <= self.free:
            self.free -= self.queue[0].want
            self.served.append(self.queue.popleft())

    def take(self, party, outcome):
        if party.handed is SemaphoreClosed:
            with pytest.raises(SemaphoreClosed):
                outcome.unwrap()
        else:
            outcome.unwrap()
            self.held += party.want

    def put_back(self, party):
        if party.handed is not SemaphoreClosed:
            self.free += party.want

    @rule(need=st.integers(1, 4), many=st.booleans())
    def acquires(self, need, many):
        if not many:
            need = 1
        awaitable = self.wait_for(need) if many else self.subject.acquire()
        outcome, work = self.call(awaitable)
        if self.closed:
            with pytest.raises(SemaphoreClosed):
                outcome.unwrap()
        elif not self.queue and need <= self.free:
            outcome.unwrap()
            self.free -= need
            self.held += need
        else:
            assert outcome is None
            self.queue.append(Party(work, need))

    async def wait_for(self, need):
        await self.subject.acquire_many(need)

    @rule(need=st.integers(1, 4))
    def tries(self, need):
        expected = not self.closed and not self.queue and need <= self.free
        assert self.subject.try_acquire(need) is expected
        if expected:
            self.free -= need
            self.held += need

    @rule(data=st.data())
    @precondition(lambda self: self.held)
    def gives_back(self, data):
        count = data.draw(st.integers(1, self.held))
        self.do(self.subject.release, count)
        self.held -= count
        self.free += count
        self.serve()

    @rule()
    @precondition(lambda self: self.free and not self.queue and not self.closed)
    def uses_up_the_budget(self):
        for _ in range(BUDGET):
            self.call(self.subject.acquire())
            self.subject.release()

    @rule()
    @precondition(lambda self: self.held > 2)
    def closes(self):
        self.do(self.subject.close)
        self.closed = True
        for party in self.queue:
            party.handed = SemaphoreClosed
        self.served += self.queue
        self.queue.clear()

    @invariant()
    def it_says_what_the_model_says(self):
        assert self.subject.tokens() == self.free
        assert self.subject.statistics().waiting == len(self.queue)
        assert self.subject.is_closed is self.closed
        assert self.subject.locked() is bool(self.closed or self.queue or not self.free)


class LockMachine(Machine):
    """Who has it, and who comes next; the same for a mutex, whose contents count who has had it."""

    def __init__(self):
        super().__init__()
        self.subject = Mutex(0)
        self.lock = self.subject._lock
        self.is_free = True
        self.holder = None
        self.uses = 0

    def serve(self):
        if self.is_free and self.queue:
            self.is_free = False
            self.served.append(self.queue.popleft())

    def take(self, party, outcome):
        self.guard = outcome.unwrap()
        self.holder = party.want

    def put_back(self, party):
        self.is_free = True

    @rule()
    def acquires(self):
        locking = self.subject.lock()
        outcome, work = self.call(locking.__aenter__())
        if self.is_free:
            self.is_free = False
            self.take(Party(work, locking), outcome)
        else:
            assert outcome is None
            self.queue.append(Party(work, locking))

    @rule()
    def tries(self):
        assert self.lock.try_acquire() is self.is_free
        if self.is_free:
            self.lock.release()

    @rule()
    @precondition(lambda self: self.holder is not None)
    def gives_it_up(self):
        guard, holder = self.guard, self.holder
        assert guard.value == self.uses
        guard.value = self.uses = self.uses + 1
        self.call(holder.__aexit__(None, None, None))
        with pytest.raises(RuntimeError):
            guard.value  # noqa: B018 - the look is the point
        self.holder = None
        self.is_free = True
        self.serve()

    @rule()
    @precondition(lambda self: self.is_free)
    def is_given_up_by_somebody_who_does_not_have_it(self):
        with pytest.raises(RuntimeError):
            self.lock.release()

    @invariant()
    def it_says_what_the_model_says(self):
        assert self.subject.locked() is not self.is_free
        assert self.lock.statistics().waiting == len(self.queue)


class CellMachine(Machine):
    """A value, and who waits for one that suits; an event is the same with two values."""

    def __init__(self):
        super().__init__()
        self.subject = VersionedCell(0)
        self.event = Event()
        self.value = 0
        self.version = 0
        self.is_set = False

    def serve(self):
        """Nothing that is handed over here is used up."""

    def wake(self, value):
        for party in [party for party in self.queue if party.want(value)]:
            self.queue.remove(party)
            party.handed = value
            self.served.append(party)

    def take(self, party, outcome):
        assert outcome.unwrap() == party.handed

    def wait(self, awaitable, suits, value):
        outcome, work = self.call(awaitable)
        if suits(value):
            assert outcome.unwrap() == value
        else:
            assert outcome is None
            self.queue.append(Party(work, suits))

    @rule(least=st.integers(0, 5), rest=st.integers(0, 1))
    def waits_for_a_number(self, least, rest):
        def suits(value):
            return type(value) is int and value >= least and value % 2 == rest

        self.wait(park(self.subject.when(lambda cell: suits(cell.value))), suits, self.value)

    @rule(value=st.integers(0, 7))
    def changes(self, value):
        assert self.do(self.subject.set, value) == self.value
        self.value = value
        self.version += 1
        self.wake(value)

    @rule()
    def waits_for_the_event(self):
        self.wait(self.event.wait(), lambda value: value is True, self.is_set)

    @rule(value=st.booleans())
    def sets_or_clears_the_event(self, value):
        assert self.do(self.event.set if value else self.event.clear) is (value is not self.is_set)
        self.is_set = value
        self.wake(value)

    @invariant()
    def it_says_what_the_model_says(self):
        assert self.subject.value == self.value
        assert self.subject.version == self.version
        assert self.event.is_set() is self.is_set
        assert self.subject.parked + self.event._cell.parked == len(self.queue)


TestSemaphore = SemaphoreMachine.TestCase
TestLock = LockMachine.TestCase
TestCell = CellMachine.TestCase
TestSemaphore.settings = TestLock.settings = TestCell.settings = in_test_run
