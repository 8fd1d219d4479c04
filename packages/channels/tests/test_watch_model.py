"""A watch channel does what a sequential model of it does, call by call.

The calls that wait are driven by hand, so that one that was woken can be cancelled before it goes on.
"""

import asyncio
from types import SimpleNamespace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from yamanote.channels import ChannelClosed, HandleClosed, watch
from yamanote.testing import step

choices = st.integers(0, 99)


class Model:
    """A watch channel without any concurrency: a value, a mark for each receiver, and one queue of calls."""

    def __init__(self):
        self.value = 0
        self.number = 0
        self.senders = set()
        self.marks = {}
        """Of each open receiver, the number of the value that it has seen."""
        self.calls = []

    def store(self, value):
        self.value, self.number = value, self.number + 1
        self.settle()

    def settle(self):
        """Tell everybody who has to be told something, the first ones first."""
        for call in self.calls.copy():
            if (answer := self.answer(call.rx)) is not None:
                self.calls.remove(call)
                call.answer = answer
                if answer == "changed":
                    call.before, call.handed = self.marks[call.rx], self.number
                    self.marks[call.rx] = self.number

    def answer(self, rx):
        if rx not in self.marks:
            return HandleClosed
        if self.marks[rx] != self.number:
            return "changed"
        return None if self.senders else ChannelClosed

    def cancel(self, call):
        if call.answer is None:
            self.calls.remove(call)
        elif call.answer == "changed" and self.marks.get(call.rx) == call.handed:
            self.marks[call.rx] = call.before
            self.settle()

    def go_on(self, call):
        if call.answer == "changed" and call.rx in self.marks:
            self.marks[call.rx] = self.number


class WatchMachine(RuleBasedStateMachine):
    """Does the same to both."""

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.model = Model()
        tx, rx = watch(0)
        self.senders, self.receivers, self.calls = [tx], [rx], []
        self.model.senders.add(tx)
        self.model.marks[rx] = 0

    def in_loop(self, function, *args):
        async def call():
            return function(*args)

        return self.loop.run_until_complete(call())

    # ---------------------------------------------------------------- senders

    @rule(choice=choices, value=st.integers(0, 2), method=st.sampled_from(["send", "send_replace", "add", "change"]))
    def send(self, choice, value, method):
        tx, model = pick(self.senders, choice), self.model
        call = {
            "send": lambda: tx.send(value),
            "send_replace": lambda: tx.send_replace(value),
            "add": lambda: tx.send_modify(lambda old: old + value),
            "change": lambda: tx.send_if_modified(lambda _: value),
        }[method]
        if tx not in model.senders:
            expected = HandleClosed
        elif method == "send" and not model.marks:
            expected = ChannelClosed
        else:
            expected = {"send_replace": model.value, "change": value != model.value}.get(method)
            if expected is not False or method == "send_replace":
                model.store(model.value + value if method == "add" else value)
        assert self.in_loop(attempt, call) == expected

    @rule(choice=choices)
    def subscribe(self, choice):
        tx = pick(self.senders, choice)
        rx = attempt(tx.subscribe)
        if tx in self.model.senders:
            self.receivers.append(rx)
            self.model.marks[rx] = self.model.number
        else:
            assert rx is HandleClosed

    @rule(choice=choices)
    def clone_sender(self, choice):
        tx = pick(self.senders, choice)
        clone = attempt(tx.clone)
        if tx in self.model.senders:
            self.senders.append(clone)
            self.model.senders.add(clone)
        else:
            assert clone is HandleClosed

    @rule(choice=choices)
    def close_sender(self, choice):
        tx = pick(self.senders, choice)
        self.in_loop(tx.close)
        self.model.senders.discard(tx)
        self.model.settle()

    # ---------------------------------------------------------------- receivers

    @rule(choice=choices)
    def changed(self, choice):
        rx, model = pick(self.receivers, choice), self.model
        call = SimpleNamespace(rx=rx, step=step(rx.changed()), answer=model.answer(rx))
        outcome = self.in_loop(call.step.poll)
        if call.answer is None:
            assert outcome is None
            model.calls.append(call)
            self.calls.append(call)
        else:
            model.go_on(call)
            assert attempt(outcome.unwrap) == (None if call.answer == "changed" else call.answer)

    @precondition(lambda self: any(call.step.is_woken for call in self.calls))
    @rule(choice=choices)
    def let_one_go_on(self, choice):
        call = pick([call for call in self.calls if call.step.is_woken], choice)
        self.calls.remove(call)
        self.model.go_on(call)
        outcome = self.in_loop(call.step.poll)
        assert attempt(outcome.unwrap) == (None if call.answer == "changed" else call.answer)

    @precondition(lambda self: self.calls)
    @rule(choice=choices)
    def cancel(self, choice):
        call = pick(self.calls, choice)
        self.calls.remove(call)
        self.in_loop(call.step.throw, asyncio.CancelledError())
        self.model.cancel(call)

    @rule(choice=choices, method=st.sampled_from(["borrow", "borrow_and_update", "mark_changed", "mark_unchanged"]))
    def look(self, choice, method):
        rx, model = pick(self.receivers, choice), self.model
        result = self.in_loop(attempt, getattr(rx, method))
        if rx in model.marks:
            if method != "borrow":
                model.marks[rx] = -1 if method == "mark_changed" else model.number
                model.settle()
            assert result == (None if method.startswith("mark") else model.value)
        elif not method.startswith("mark"):
            assert result is HandleClosed

    @rule(choice=choices)
    def clone_receiver(self, choice):
        rx = pick(self.receivers, choice)
        clone = attempt(rx.clone)
        if rx in self.model.marks:
            self.receivers.append(clone)
            self.model.marks[clone] = self.model.marks[rx]
        else:
            assert clone is HandleClosed

    @rule(choice=choices)
    def close_receiver(self, choice):
        rx = pick(self.receivers, choice)
        self.in_loop(rx.close)
        self.model.marks.pop(rx, None)
        self.model.settle()

    # ---------------------------------------------------------------- what must hold

    @invariant()
    def the_state_is_the_same(self):
        self.in_loop(lambda: None)  # what was woken from outside of the loop is on its way through it
        model, core = self.model, self.senders[0]._core
        assert core.state == (model.value, model.number)
        assert self.senders[0].sender_count == len(model.senders)
        assert self.senders[0].receiver_count == len(model.marks)
        assert [waiter.operation for waiter in core.waiters] == [call.rx for call in model.calls]
        for call in self.calls:
            assert call.step.is_woken == (call.answer is not None)
        for rx, mark in model.marks.items():
            assert rx.has_changed() == (mark != model.number)

    def teardown(self):
        for call in self.calls:
            self.in_loop(call.step.close)
            self.model.cancel(call)
        for end in self.senders + self.receivers:
            end.close()
        assert not self.senders[0]._core.waiters
        self.loop.close()


def pick(candidates, choice):
    return candidates[choice % len(candidates)]


def attempt(function):
    """What it returns, or the class of the error."""
    try:
        return function()
    except ChannelClosed as closed:
        return type(closed)


def test_a_watch_channel_does_what_its_model_does():
    run_state_machine_as_test(
        WatchMachine,
        settings=settings(
            max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
