"""A notify, a latch and a once cell against models that a child could check."""

import asyncio

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from yamanote.sync import AlreadySet, Latch, Notify, OnceCell, WouldBlock

from .test_sync_model import Machine, Party, in_test_run


class NotifyMachine(Machine):
    """One permit at most, and a queue whose ends are woken."""

    def __init__(self):
        super().__init__()
        self.subject = Notify()
        self.permit = False
        self.early = []
        """Made, but not waited for yet; and whether all were notified since."""

    def serve(self):
        """Nothing is left over: who is notified is so at once."""

    def take(self, party, outcome):
        assert outcome.unwrap() is None

    def put_back(self, party):
        if party.handed == "oldest":
            self.notify(0)
        elif party.handed == "newest":
            self.notify(-1)
        else:
            self.early.append((party.want, True))

    def notify(self, place):
        if self.queue:
            party = self.queue[place]
            self.queue.remove(party)
            party.handed = "newest" if place else "oldest"
            self.served.append(party)
        else:
            self.permit = True

    @rule()
    def asks(self):
        self.early.append((self.subject.notified(), False))

    @rule(data=st.data())
    @precondition(lambda self: self.early)
    def waits(self, data):
        index = data.draw(st.integers(0, len(self.early) - 1))
        notified, told = self.early.pop(index)
        outcome, work = self.call(notified)
        if told or self.permit:
            assert outcome.unwrap() is None
            self.permit = self.permit and told
        else:
            assert outcome is None
            self.queue.append(Party(work, notified))

    @rule()
    def notifies_one(self):
        self.do(self.subject.notify_one)
        self.notify(0)

    @rule()
    def notifies_the_last(self):
        self.do(self.subject.notify_last)
        self.notify(-1)

    @rule()
    def notifies_all(self):
        self.do(self.subject.notify_waiters)
        for party in self.queue:
            party.handed = "all"
        self.served += self.queue
        self.queue.clear()
        self.early = [(notified, True) for notified, _ in self.early]

    @invariant()
    def it_says_what_the_model_says(self):
        assert ("a permit" in repr(self.subject)) is self.permit
        assert self.subject.statistics().waiting == len(self.queue)


class LatchMachine(Machine):
    """Two states, and who waits for either of them or for the next."""

    def __init__(self):
        super().__init__()
        self.subject = Latch()
        self.is_set = False

    def serve(self):
        """A state can be seen by many."""

    def take(self, party, outcome):
        assert outcome.unwrap() is party.handed

    def put_back(self, party):
        """Nothing was taken."""

    @rule(state=st.sampled_from([True, False, None]))
    def waits(self, state):
        wait = {True: self.subject.wait_set, False: self.subject.wait_unset, None: self.subject.wait}[state]
        outcome, work = self.call(wait())
        if state is self.is_set:
            assert outcome.unwrap() is state
        else:
            assert outcome is None
            self.queue.append(Party(work, state))

    @rule(state=st.booleans(), by_name=st.booleans())
    def changes(self, state, by_name):
        changes = state is not self.is_set
        if by_name:
            assert self.do(self.subject.set if state else self.subject.unset) is changes
        else:
            assert self.do(self.subject.toggle, state) is changes
        self.is_set = state
        for party in [party for party in self.queue if changes and party.want is not (not state)]:
            self.queue.remove(party)
            party.handed = state
            self.served.append(party)

    @invariant()
    def it_says_what_the_model_says(self):
        assert self.subject.is_set() is self.is_set
        assert self.subject.statistics().waiting == len(self.queue)


class OnceCellMachine(Machine):
    """Nobody, or one party that makes the value, and those behind it."""

    def __init__(self):
        super().__init__()
        self.subject = OnceCell()
        self.value = None
        self.maker = None

    async def make(self):
        self.making = asyncio.get_running_loop().create_future()
        return await self.making

    def begin(self, party):
        """It makes the value from now on."""
        self.maker = party

    def serve(self):
        if self.value is not None:
            for party in self.queue:
                party.handed = self.value
            self.served += self.queue
            self.queue.clear()
        elif self.maker is None and not self.served and self.queue:
            self.served.append(self.queue.popleft())

    def take(self, party, outcome):
        if party.handed is not None:
            assert outcome.unwrap() == party.handed
        else:
            assert outcome is None, "it should make the value now"
            self.begin(party)

    def put_back(self, party):
        """The next one makes the value, or all get it."""

    @rule()
    def wants(self):
        outcome, work = self.call(self.subject.get_or_init(self.make))
        if self.value is not None:
            assert outcome.unwrap() == self.value
        else:
            assert outcome is None
            party = Party(work, None)
            if self.maker is None and not self.served:
                self.begin(party)
            else:
                self.queue.append(party)

    @rule(fails=st.booleans())
    @precondition(lambda self: self.maker is not None)
    def has_made(self, fails):
        party, self.maker = self.maker, None
        if fails:
            self.do(self.making.set_exception, ZeroDivisionError())
            with pytest.raises(ZeroDivisionError):
                self.poll(party.work).unwrap()
        else:
            self.value = "made"
            self.do(self.making.set_result, self.value)
            assert self.poll(party.work).unwrap() == self.value
        self.serve()

    @rule()
    @precondition(lambda self: self.maker is not None)
    def is_cancelled_while_it_makes(self):
        party, self.maker = self.maker, None
        assert isinstance(self.do(party.work.throw, asyncio.CancelledError()).error, asyncio.CancelledError)
        self.serve()

    @rule()
    def sets(self):
        if self.value is not None:
            with pytest.raises(AlreadySet):
                self.subject.set("set")
        elif self.maker is not None or self.served:
            with pytest.raises(WouldBlock):
                self.subject.set("set")
        else:
            self.do(self.subject.set, "set")
            self.value = "set"

    def teardown(self):
        if self.maker is not None:
            self.maker.work.close()
        super().teardown()

    @invariant()
    def it_says_what_the_model_says(self):
        assert self.subject.is_set() is (self.value is not None)
        assert self.subject.statistics().waiting == len(self.queue)


TestNotify = NotifyMachine.TestCase
TestLatch = LatchMachine.TestCase
TestOnceCell = OnceCellMachine.TestCase
TestNotify.settings = TestLatch.settings = TestOnceCell.settings = in_test_run
