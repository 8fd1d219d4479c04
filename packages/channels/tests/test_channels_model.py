"""A channel does what a sequential model of it does, call by call.

The model is written from the promises alone: a list of items, two queues of calls, and some counters. The calls that
wait are driven by hand, so that one that was woken can be cancelled before it goes on.
"""

import asyncio
from types import SimpleNamespace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from yamanote.channels import ChannelClosed, ChannelEmpty, ChannelFull, HandleClosed, channel, channel_unbounded
from yamanote.runtime import Outcome, TaskWaiter, park, yield_now
from yamanote.testing import step


class Refused(Exception):
    """What the model answers instead of a value: the class of the error, the items in it, and its cause."""


class Model:
    """A channel without any concurrency. A call of it is anything with `handle`, `need`, `item` and `answer`."""

    def __init__(self, capacity, overflow="suspend"):
        self.capacity = capacity
        self.overflow = overflow
        self.dropped = 0
        self.items = []  # with their age: those that come back go where they were
        self.accepted = 0
        self.permits = 0
        self.senders = set()
        self.receivers = set()
        self.waiting_senders = []
        self.waiting_receivers = []
        self.watchers = []
        self.closed = False
        self.cause = None
        self.undelivered = []

    def room(self):
        if self.capacity == 0:
            return int(bool(self.waiting_receivers) and not self.items)
        return 99 if self.capacity is None else self.capacity - len(self.items) - self.permits

    def accept(self, item):
        self.items.append((self.accepted, item))
        self.accepted += 1

    def drop(self, item):
        self.undelivered.append(item)
        self.dropped += 1

    def take(self):
        """The oldest item, or None."""
        if not self.items and self.capacity == 0 and self.waiting_senders:
            self.grant(self.waiting_senders.pop(0))
        if not self.items:
            return None
        _, item = self.items.pop(0)
        self.settle()
        return item

    def settle(self):
        """Serve everybody who can be served, the first ones first."""
        while True:
            if self.items and self.waiting_receivers:
                call = self.waiting_receivers.pop(0)
                call.age, item = self.items.pop(0)
                call.answer = Outcome.ok(item)
            elif self.waiting_senders and self.room() >= self.waiting_senders[0].need:
                self.grant(self.waiting_senders.pop(0))
            else:
                break
        if self.closed and not self.items and not self.permits:
            self.refuse(self.waiting_receivers)

    def grant(self, call):
        call.answer = Outcome.ok(None)
        if call.reserves:
            self.permits += call.need
        else:
            self.accept(call.item)

    def refuse(self, calls, of=None):
        for call in [call for call in calls if of is None or call.handle is of]:
            calls.remove(call)
            call.answer = self.refusal(call.handle, *call.refusable)

    def refusal(self, handle, *items):
        if handle in self.senders | self.receivers:
            return Outcome.failed(Refused(ChannelClosed, items, self.cause))
        return Outcome.failed(Refused(HandleClosed, items, None))

    def is_refused(self, handle):
        return handle not in self.senders | self.receivers or (handle in self.senders and self.closed)

    # ---------------------------------------------------------------- calls

    def begin(self, call):
        if call.kind == "watch":
            queue = self.watchers
            if self.closed:
                call.answer = Outcome.ok(None)
                return
        else:
            queue = self.waiting_senders if call.need else self.waiting_receivers
            if self.is_refused(call.handle):
                call.answer = self.refusal(call.handle, *call.refusable)
                return
            if self.overflow != "suspend" and call.kind == "send":
                call.answer = self.send_nowait(call.handle, call.item)
                return
        queue.append(call)
        self.settle()

    def end(self, call):
        """The call goes on. Returns its outcome."""
        if call.kind == "recv_many" and call.answer.error is None:
            batch = [call.answer.unwrap()]
            while len(batch) < call.limit and call.handle in self.receivers and not self.waiting_receivers:
                item = self.take()
                if item is None:
                    break
                batch.append(item)
            return Outcome.ok(batch)
        return call.answer

    def withdraw(self, call):
        """The call was cancelled. What it had been handed comes back."""
        if call.answer is None:
            for queue in (self.waiting_senders, self.waiting_receivers, self.watchers):
                if call in queue:
                    queue.remove(call)
        elif call.answer.error is None and call.reserves:
            self.permits -= call.need
        elif call.answer.error is None and call.age is not None:
            if self.receivers:
                self.items.append((call.age, call.answer.unwrap()))
                self.items.sort(key=lambda entry: entry[0])
            else:
                self.undelivered.append(call.answer.unwrap())
        self.settle()

    def send_nowait(self, handle, item):
        if self.is_refused(handle):
            return self.refusal(handle, item)
        if not self.waiting_senders and self.room() >= 1:
            self.accept(item)
            self.settle()
        elif self.overflow == "drop_newest" or (self.overflow == "drop_oldest" and not self.items):
            self.drop(item)
        elif self.overflow == "drop_oldest":
            self.drop(self.items.pop(0)[1])
            self.accept(item)
        else:
            return Outcome.failed(Refused(ChannelFull, (item,), None))
        return Outcome.ok(None)

    def recv_nowait(self, handle):
        if self.is_refused(handle):
            return self.refusal(handle)
        if (item := self.take()) is not None:
            return Outcome.ok(item)
        if self.closed and not self.permits:
            return self.refusal(handle)
        return Outcome.failed(Refused(ChannelEmpty, (), None))

    def reserve_nowait(self, handle, count):
        if self.is_refused(handle):
            return self.refusal(handle)
        if self.waiting_senders or self.room() < count:
            return Outcome.failed(Refused(ChannelFull, (), None))
        self.permits += count
        return Outcome.ok(count)

    def send_permitted(self, item):
        self.permits -= 1
        if not self.receivers:
            return Outcome.failed(Refused(ChannelClosed, (item,), self.cause))
        self.accept(item)
        self.settle()
        return Outcome.ok(None)

    def release(self):
        self.permits -= 1
        self.settle()

    def shut(self, cause=None):
        self.cause = self.cause or cause
        if not self.closed:
            self.closed = True
            self.refuse(self.waiting_senders)
            for call in self.watchers:
                call.answer = Outcome.ok(None)
            self.watchers.clear()
        self.settle()

    def close_sender(self, handle, cause):
        if handle in self.senders:
            self.senders.remove(handle)
            self.refuse(self.waiting_senders, handle)
            self.cause = self.cause or cause
            if not self.senders:
                self.shut()
            self.settle()

    def close_receiver(self, handle):
        if handle in self.receivers:
            self.receivers.remove(handle)
            self.refuse(self.waiting_receivers, handle)
            if not self.receivers:
                self.undelivered += [item for _, item in self.items]
                self.items.clear()
                self.shut()


async def recv_in_two_steps(rx):
    """`recv` as a select may do it: it goes on with what it was handed in a later step than it was handed it."""
    waiter = TaskWaiter()
    try:
        rx.register(waiter)
        await yield_now()
        await waiter.future
    except BaseException:
        waiter.claim()
        rx.withdraw(waiter)
        raise
    return waiter.result()


choices = st.integers(0, 20)


class ChannelMachine(RuleBasedStateMachine):
    """Does everything to a channel and to its model, and compares."""

    @initialize(
        kind=st.sampled_from(
            [(capacity, "suspend") for capacity in (0, 1, 2, 3, None)]
            + [(capacity, overflow) for capacity in (1, 2) for overflow in ("drop_oldest", "drop_newest", "error")]
        )
    )
    def make(self, kind):
        capacity, overflow = kind
        self.loop = asyncio.new_event_loop()
        self.undelivered = []
        hook = {"undelivered": self.undelivered.append}
        tx, rx = channel_unbounded(**hook) if capacity is None else channel(capacity, overflow=overflow, **hook)
        self.model = Model(capacity, overflow)
        self.weak = tx.downgrade()
        self.senders, self.receivers = [tx], [rx]
        self.model.senders.add(tx)
        self.model.receivers.add(rx)
        self.calls = []
        self.permits = []
        self.sent = []

    def item(self):
        """A new one, which stays alive here: a channel tells apart by identity what has come back to it."""
        self.sent.append(f"item {len(self.sent)}")
        return self.sent[-1]

    def in_loop(self, function, *args, **kwargs):
        """Call a function where the loop runs; return its outcome, as the model would give it."""

        async def call():
            try:
                return Outcome.ok(function(*args, **kwargs))
            except Exception as error:
                return Outcome.failed(error)

        return self.loop.run_until_complete(call())

    def start(self, kind, handle, coroutine, *, need=0, item=None, limit=0):
        refusable = () if item is None else (item,)
        call = SimpleNamespace(kind=kind, handle=handle, need=need, item=item, refusable=refusable, limit=limit)
        call.reserves = kind == "reserve"
        call.answer = call.age = None
        call.begun = False
        call.pauses = kind == "recv_in_two_steps"
        call.step = step(coroutine)
        self.calls.append(call)
        self.go_on(call)

    def go_on(self, call):
        """Let a call do its next step, and compare what becomes of it."""
        tired = call.handle._left == 0
        outcome = self.in_loop(call.step.poll).unwrap()
        if not call.begun and not call.pauses and outcome is None and call.step.is_woken:
            assert tired  # it let others run first, and has done nothing yet
            return
        if not call.begun:
            call.begun = True
            self.model.begin(call)
            if call.pauses:
                return
        call.pauses = False
        if call.answer is None:
            assert outcome is None, f"{call.kind} should wait"
            return
        self.calls.remove(call)
        expected = self.model.end(call)
        assert outcome is not None, f"{call.kind} should have ended"
        if call.reserves and expected.error is None:
            self.permits += outcome.unwrap()
            assert len(outcome.unwrap()) == call.need
        else:
            compare(outcome, expected)

    # ---------------------------------------------------------------- senders

    @rule(choice=choices, selected=st.booleans())
    def send(self, choice, selected):
        tx, item = pick(self.senders, choice), self.item()
        self.start("send", tx, park(tx.sending(item)) if selected else tx.send(item), need=1, item=item)

    @precondition(lambda self: self.model.capacity != 0)
    @rule(choice=choices, count=st.integers(1, 3), selected=st.booleans())
    def reserve(self, choice, count, selected):
        async def by_select():
            return await park(tx.reserving(count))

        tx = pick(self.senders, choice)
        count = min(count, self.model.capacity or count)
        self.start("reserve", tx, by_select() if selected else tx.reserve_many(count), need=count)

    @rule(choice=choices)
    def send_nowait(self, choice):
        tx, item = pick(self.senders, choice), self.item()
        compare(self.in_loop(tx.send_nowait, item), self.model.send_nowait(tx, item))

    @rule(choice=choices)
    def blocking_send(self, choice):
        tx, item = pick(self.senders, choice), self.item()
        expected = self.model.send_nowait(tx, item)
        waits = self.model.overflow == "suspend"
        compare(attempt(tx.blocking_send, item, timeout=0), timed_out(expected) if waits else expected)

    @precondition(lambda self: self.model.capacity != 0)
    @rule(choice=choices, count=st.integers(1, 3))
    def reserve_nowait(self, choice, count):
        tx = pick(self.senders, choice)
        count = min(count, self.model.capacity or count)
        outcome, expected = self.in_loop(tx.reserve_nowait, count), self.model.reserve_nowait(tx, count)
        if expected.error is None:
            self.permits += outcome.unwrap()
            assert len(outcome.unwrap()) == count
        else:
            compare(outcome, expected)

    @precondition(lambda self: self.permits)
    @rule(choice=choices)
    def send_permitted(self, choice):
        permit, item = pick(self.permits, choice), self.item()
        self.permits.remove(permit)
        compare(self.in_loop(permit.send, item), self.model.send_permitted(item))

    @precondition(lambda self: self.permits)
    @rule(choice=choices)
    def release(self, choice):
        permit = pick(self.permits, choice)
        self.permits.remove(permit)
        self.in_loop(permit.release).unwrap()
        self.model.release()

    # ---------------------------------------------------------------- receivers

    @rule(choice=choices)
    def recv(self, choice):
        rx = pick(self.receivers, choice)
        self.start("recv", rx, rx.recv())

    @rule(choice=choices, limit=st.integers(1, 3))
    def recv_many(self, choice, limit):
        rx = pick(self.receivers, choice)
        self.start("recv_many", rx, rx.recv_many(limit), limit=limit)

    @rule(choice=choices)
    def recv_in_two_steps(self, choice):
        rx = pick(self.receivers, choice)
        self.start("recv_in_two_steps", rx, recv_in_two_steps(rx))

    @rule(choice=choices)
    def recv_nowait(self, choice):
        rx = pick(self.receivers, choice)
        compare(self.in_loop(rx.recv_nowait), self.model.recv_nowait(rx))

    @rule(choice=choices)
    def blocking_recv(self, choice):
        rx = pick(self.receivers, choice)
        compare(attempt(rx.blocking_recv, timeout=0), timed_out(self.model.recv_nowait(rx)))

    # ---------------------------------------------------------------- calls that wait

    @rule(choice=choices)
    def watch(self, choice):
        handle = pick(self.senders + self.receivers, choice)
        self.start("watch", handle, handle.closed())

    @precondition(lambda self: any(call.step.is_woken for call in self.calls))
    @rule(choice=choices)
    def let_one_go_on(self, choice):
        self.go_on(pick([call for call in self.calls if call.step.is_woken], choice))

    @precondition(lambda self: self.calls)
    @rule(choice=choices, closes=st.booleans())
    def cancel(self, choice, closes):
        call = pick(self.calls, choice)
        self.calls.remove(call)
        if closes:
            self.in_loop(call.step.close).unwrap()
        else:
            outcome = self.in_loop(call.step.throw, asyncio.CancelledError()).unwrap()
            assert isinstance(outcome.error, asyncio.CancelledError)
        if call.begun:
            self.model.withdraw(call)

    @rule(choice=choices)
    def use_up_the_budget(self, choice):
        pick(self.senders + self.receivers, choice)._left = 0

    # ---------------------------------------------------------------- handles

    @rule(choice=choices)
    def clone(self, choice):
        handle = pick(self.senders + self.receivers, choice)
        known = self.model.senders | self.model.receivers
        outcome = attempt(handle.clone)
        if handle not in known:
            compare(outcome, self.model.refusal(handle))
        elif handle in self.senders:
            self.senders.append(outcome.unwrap())
            self.model.senders.add(outcome.unwrap())
        else:
            self.receivers.append(outcome.unwrap())
            self.model.receivers.add(outcome.unwrap())

    @rule()
    def upgrade(self):
        tx = self.weak.upgrade()
        assert (tx is None) == self.model.closed
        if tx is not None:
            self.senders.append(tx)
            self.model.senders.add(tx)

    @rule(choice=choices, cause=st.sampled_from([None, None, LookupError("first"), LookupError("second")]))
    def close_sender(self, choice, cause):
        tx = pick(self.senders, choice)
        self.in_loop(tx.close, cause).unwrap()
        self.model.close_sender(tx, cause)

    @rule(choice=choices)
    def close_receiver(self, choice):
        rx = pick(self.receivers, choice)
        self.in_loop(rx.close).unwrap()
        self.model.close_receiver(rx)

    @rule(choice=choices, cause=st.sampled_from([None, LookupError("first"), LookupError("second")]))
    def shutdown(self, choice, cause):
        self.in_loop(pick(self.senders + self.receivers, choice).shutdown, cause).unwrap()
        self.model.shut(cause)

    # ---------------------------------------------------------------- what must hold

    @invariant()
    def the_same_calls_have_been_woken(self):
        self.in_loop(lambda: None)  # what was woken from outside of the loop is on its way through it
        for call in self.calls:
            if call.begun and not call.pauses:
                assert call.step.is_woken == (call.answer is not None), f"{call.kind} should have been woken, or not"

    @invariant()
    def the_state_is_the_same(self):
        model, statistics = self.model, self.senders[0].statistics()
        assert statistics.buffered == len(self.receivers[0]) == len(model.items)
        assert statistics.capacity == self.receivers[0].capacity == model.capacity
        assert (statistics.senders, statistics.receivers) == (len(model.senders), len(model.receivers))
        assert statistics.waiting_senders == len(model.waiting_senders)
        assert statistics.waiting_receivers == len(model.waiting_receivers)
        assert statistics.dropped == model.dropped
        assert self.undelivered == model.undelivered
        for handle in self.senders + self.receivers:
            assert handle.is_closed == (model.closed or handle not in model.senders | model.receivers)

    def teardown(self):
        """Whatever state it is in, it can be taken down, and all that it holds is accounted for."""
        for call in self.calls.copy():
            self.calls.remove(call)
            self.in_loop(call.step.close).unwrap()
            if call.begun:
                self.model.withdraw(call)
        for permit in self.permits:
            permit.release()
            self.model.release()
        for tx in self.senders:
            tx.close()
            self.model.close_sender(tx, None)
        for rx in self.receivers:
            rx.close()
            self.model.close_receiver(rx)
        self.the_state_is_the_same()
        core = self.senders[0]._core
        assert core.free == core.total
        self.loop.close()


def pick(candidates, choice):
    return candidates[choice % len(candidates)]


def attempt(function, *args, **kwargs):
    try:
        return Outcome.ok(function(*args, **kwargs))
    except Exception as error:
        return Outcome.failed(error)


def timed_out(expected):
    """What a call that blocks for no time at all answers where one that never waits says why it cannot."""
    if expected.error is not None and expected.error.args[0] in (ChannelFull, ChannelEmpty):
        return Outcome.failed(Refused(TimeoutError, (), None))
    return expected


def compare(outcome, expected):
    if expected.error is None:
        assert outcome.unwrap() == expected.unwrap()
        return
    kind, refused, cause = expected.error.args
    assert type(outcome.error) is kind
    assert getattr(outcome.error, "refused", ()) == refused
    assert outcome.error.__cause__ is cause


def test_a_channel_does_what_its_model_does(pytestconfig):
    runs = pytestconfig.getoption("explore_runs", None)
    run_state_machine_as_test(
        ChannelMachine,
        settings=settings(
            max_examples=runs or 90,
            derandomize=runs is None,
            database=None,
            deadline=None,
            stateful_step_count=30,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
