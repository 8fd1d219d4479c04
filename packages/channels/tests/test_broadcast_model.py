"""A broadcast channel does what a sequential model of it does, call by call.

The model is written from the promises alone: the list of everything that was sent, and for each receiver the numbers of
what it has yet to receive.
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

from yamanote.channels import ChannelClosed, ChannelEmpty, ChannelFull, Lagged, broadcast
from yamanote.testing import step

choices = st.integers(0, 20)


def pick(things, choice):
    return things[choice % len(things)]


class BroadcastMachine(RuleBasedStateMachine):
    """Does everything to a broadcast channel and to its model, and compares."""

    @initialize(
        capacity=st.integers(1, 4),
        replay=st.integers(0, 2),
        overflow=st.sampled_from(["lag", "suspend", "drop_oldest", "drop_newest", "error"]),
    )
    def make(self, capacity, replay, overflow):
        self.loop = asyncio.new_event_loop()
        self.capacity, self.replay, self.overflow = capacity, min(replay, capacity), overflow
        self.tx, rx = broadcast(capacity, replay=self.replay, overflow=overflow)
        self.sent = []
        self.receivers = []
        self.join(rx, [])
        self.sends = []

    def in_loop(self, function, *args):
        async def call():
            return function(*args)

        return self.loop.run_until_complete(call())

    # ---------------------------------------------------------------- the model

    def has_room(self):
        return all(self.waiting_for(receiver) < self.capacity for receiver in self.receivers)

    def waiting_for(self, receiver):
        """How many items the channel keeps for a receiver, not counting what came back to it."""
        return len([number for number in receiver.queue if number not in receiver.returned])

    def accept(self, item):
        number = len(self.sent)
        self.sent.append(item)
        for receiver in self.receivers:
            receiver.queue.append(number)
            if self.overflow in ("lag", "drop_oldest") and self.waiting_for(receiver) > self.capacity:
                receiver.queue.remove(next(number for number in receiver.queue if number not in receiver.returned))
                receiver.missed += self.overflow == "lag"
            self.hand_over(receiver)

    def hand_over(self, receiver):
        for call in receiver.calls:
            if receiver.queue and call.number is None:
                call.number = receiver.queue.pop(0)
                receiver.returned.discard(call.number)

    def admit(self):
        while self.sends and self.has_room():
            call = self.sends.pop(0)
            self.accept(call.item)
            assert self.in_loop(call.step.poll).unwrap() == len(self.receivers)

    # ---------------------------------------------------------------- what is done to both

    @rule()
    def send(self):
        item = f"item {len(self.sent)}"
        call = SimpleNamespace(item=item, step=step(self.tx.send(item)))
        outcome = self.in_loop(call.step.poll)
        if not self.receivers and not self.replay:
            assert isinstance(outcome.error, ChannelClosed)
            assert outcome.error.refused == (item,)
        elif self.overflow in ("lag", "drop_oldest") or (not self.sends and self.has_room()):
            self.accept(item)
            assert outcome.unwrap() == len(self.receivers)
        elif self.overflow == "suspend":
            assert outcome is None
            self.sends.append(call)
        elif self.overflow == "drop_newest":
            assert outcome.unwrap() == 0
        else:
            assert isinstance(outcome.error, ChannelFull)

    @precondition(lambda self: self.sends)
    @rule(choice=choices)
    def give_up_a_send(self, choice):
        call = pick(self.sends, choice)
        self.sends.remove(call)
        self.in_loop(call.step.close)

    def waiting(self, receiver):
        return any(call.number is None for call in receiver.calls)

    @precondition(lambda self: self.receivers)
    @rule(choice=choices)
    def recv_nowait(self, choice):
        receiver = pick(self.receivers, choice)
        came_back = bool(receiver.queue) and receiver.queue[0] in receiver.returned
        try:
            item = self.in_loop(receiver.end.recv_nowait)
        except ChannelEmpty:
            assert not receiver.queue
            assert not receiver.missed
        except Lagged as lagged:
            assert not came_back
            assert lagged.missed == receiver.missed > 0
            receiver.missed = 0
        else:
            assert came_back or not receiver.missed
            number = receiver.queue.pop(0)
            receiver.returned.discard(number)
            assert item == self.sent[number]
        self.admit()

    @precondition(lambda self: self.receivers)
    @rule(choice=choices, limit=st.integers(1, 4))
    def recv_many(self, choice, limit):
        receiver = pick(self.receivers, choice)
        if receiver.missed or receiver.returned or receiver.calls or not receiver.queue:
            return
        batch = self.in_loop(step(receiver.end.recv_many(limit)).poll).unwrap()
        numbers = [receiver.queue.pop(0)]
        self.admit()  # the first one makes room, perhaps, and what comes in then belongs to the batch
        numbers += receiver.queue[: limit - 1]
        del receiver.queue[: limit - 1]
        assert batch == [self.sent[number] for number in numbers]
        self.admit()

    @precondition(lambda self: self.receivers)
    @rule(choice=choices)
    def recv(self, choice):
        receiver = pick(self.receivers, choice)
        if receiver.queue or receiver.missed:
            return
        call = SimpleNamespace(number=None, step=step(receiver.end.recv()))
        assert self.in_loop(call.step.poll) is None
        receiver.calls.append(call)

    @precondition(lambda self: any(receiver.calls for receiver in self.receivers))
    @rule(choice=choices, cancelled=st.booleans())
    def go_on(self, choice, cancelled):
        receiver = pick([receiver for receiver in self.receivers if receiver.calls], choice)
        call = pick(receiver.calls, choice)
        if cancelled:
            receiver.calls.remove(call)
            self.in_loop(call.step.close)
            if call.number is not None:
                receiver.returned.add(call.number)
                receiver.queue = sorted([*receiver.queue, call.number])
                self.hand_over(receiver)
        elif call.number is not None:
            receiver.calls.remove(call)
            assert self.in_loop(call.step.poll).unwrap() == self.sent[call.number]

    @rule()
    def subscribe(self):
        first = max(len(self.sent) - self.replay, 0)
        self.join(self.tx.subscribe(), list(range(first, len(self.sent))))

    @precondition(lambda self: self.receivers)
    @rule(choice=choices)
    def resubscribe(self, choice):
        self.join(pick(self.receivers, choice).end.resubscribe(), [])

    @precondition(lambda self: self.receivers)
    @rule(choice=choices)
    def clone(self, choice):
        receiver = pick(self.receivers, choice)
        self.join(receiver.end.clone(), list(receiver.queue), receiver.missed, receiver.returned)

    def join(self, end, queue, missed=0, returned=()):
        receiver = SimpleNamespace(end=end, queue=queue, missed=missed, calls=[], returned=set(returned))
        self.receivers.append(receiver)

    @precondition(lambda self: len(self.receivers) > 1)
    @rule(choice=choices)
    def close_receiver(self, choice):
        receiver = pick(self.receivers, choice)
        self.receivers.remove(receiver)
        self.in_loop(receiver.end.close)
        for call in receiver.calls:
            self.in_loop(call.step.close)
        self.admit()

    @invariant()
    def looks_the_same(self):
        if hasattr(self, "tx"):
            for receiver in self.receivers:
                assert len(receiver.end) == len(receiver.queue)
            statistics = self.tx.statistics()
            assert statistics.accepted == len(self.sent)
            assert statistics.receivers == len(self.receivers)
            assert statistics.waiting_senders == len(self.sends)

    def teardown(self):
        if hasattr(self, "tx"):
            for call in self.sends:
                call.step.close()
            for receiver in self.receivers:
                for call in receiver.calls:
                    call.step.close()
                receiver.end.close()
            self.tx.close()
            self.loop.close()


def test_a_broadcast_channel_does_what_its_model_does(pytestconfig):
    runs = pytestconfig.getoption("explore_runs", None)
    run_state_machine_as_test(
        BroadcastMachine,
        settings=settings(
            max_examples=runs or 60,
            derandomize=runs is None,
            database=None,
            deadline=None,
            stateful_step_count=30,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
