"""Two threads on one channel, one of which is stopped before any of its instructions while the other runs through."""

import gc
from itertools import product

import pytest

from yamanote.channels import ChannelClosed, ChannelEmpty, ChannelFull, oneshot_channel, spsc_buffer
from yamanote.channels._bytes_handover import Reading, Sending
from yamanote.channels._oneshot import _Crowd
from yamanote.runtime import Waiter
from yamanote.testing import Counterexample, explore_preemptions


def at_once_on_a_oneshot(first, second, *, parked):
    def scenario():
        tx, rx = oneshot_channel()
        accepted, received, waiters = [], [], []

        def send():
            try:
                tx.send("value")
            except ChannelClosed as closed:
                assert closed.refused == ("value",)
            else:
                accepted.append("value")

        def receive():
            try:
                received.append(rx.recv_nowait())
            except (ChannelEmpty, ChannelClosed):
                pass

        def park():
            waiters.append(waiter := Waiter([None]))
            rx.register(waiter)

        def leave():
            if waiters and waiters[0].claim():
                rx.withdraw(waiters[0])
            elif waiters:
                rx.withdraw(waiters[0])
                waiters[0].settled = False

        if parked:
            park()
        operations = {"send": send, "receive": receive, "park": park, "leave": leave}
        operations |= {"close_sender": tx.close, "close_receiver": rx.close}

        def check():
            tx.close()
            receive()
            got = received + [waiter.value for waiter in waiters if waiter.settled and waiter.error is None]
            assert got == accepted, "a value was lost, or came twice"
            assert all(waiter.settled or not waiter.is_waiting() for waiter in waiters), "somebody is stuck"
            rx.close()

        return operations[first], operations[second], check

    return scenario


def at_once_on_a_buffer(first, second, *, start):
    def scenario():
        tx, rx = spsc_buffer(3)
        received, receivers, senders = [], [], []

        def send():
            try:
                tx.send_nowait(b"ab")
            except (ChannelFull, ChannelClosed, RuntimeError):
                pass

        def receive():
            try:
                received.append(rx.recv_nowait(2))
            except (ChannelEmpty, ChannelClosed, RuntimeError):
                pass

        def park_receiver():
            receivers.append(waiter := Waiter([None]))
            Reading(rx._core, 2, 2).register(waiter)

        def park_sender():
            senders.append(waiter := Waiter([None]))
            Sending(tx._core, b"ab").register(waiter)

        {"empty": lambda: None, "full": send, "a receiver waits": park_receiver}[start]()
        operations = {"send": send, "receive": receive, "park_receiver": park_receiver, "park_sender": park_sender}
        operations |= {"close_sender": tx.close, "close_receiver": rx.close}

        def check():
            core = tx._core
            available = sum(map(len, core.chunks))
            assert core.receiver is None or available < 2, "a receiver is stuck"
            assert core.sender is None or available + 2 > 3, "a sender is stuck"
            if "close_receiver" not in (first, second):
                tx.close()
                rest = []
                while core.receiver is None and core.chunks:
                    rest.append(rx.recv_nowait())
                handed = [waiter.value for waiter in receivers if waiter.settled and waiter.error is None]
                assert sum(map(len, [*received, *handed, *rest])) == tx.sent, "bytes were lost, or came twice"
            tx.close()
            assert core.ended
            assert all(waiter.settled for waiter in (*receivers, *senders)), "somebody was not told of the end"
            rx.close()

        return operations[first], operations[second], check

    return scenario


ONESHOT = [
    (first, second, parked)
    for first, second in product(["send", "receive", "park", "close_sender", "close_receiver"], repeat=2)
    for parked in (False, True)
    if "send" in (first, second) or "park" in (first, second)
]
ONESHOT += [("leave", "send", True), ("send", "leave", True)]
BYTES = [
    *product(["send"], ["park_receiver", "receive", "close_sender", "close_receiver"], ["empty"]),
    *product(["park_receiver"], ["send", "close_sender", "close_receiver"], ["empty"]),
    *product(["receive"], ["park_sender", "send", "close_sender"], ["full"]),
    *product(["park_sender"], ["receive", "close_sender", "close_receiver"], ["full"]),
    *product(["send"], ["close_sender", "close_receiver"], ["a receiver waits"]),
    *product(["close_sender", "close_receiver"], ["send"], ["empty", "a receiver waits"]),
]


SOME_ONESHOT = [("park", "send", False), ("send", "send", False), ("send", "close_receiver", False)]
SOME_BYTES = [("send", "park_receiver", "empty"), ("park_sender", "receive", "full"), ("send", "close_sender", "empty")]


def pytest_generate_tests(metafunc):
    """All pairs take a minute: they are for who explores."""
    for name, some, every in (("oneshot", SOME_ONESHOT, ONESHOT), ("buffer", SOME_BYTES, BYTES)):
        if name in metafunc.fixturenames:
            cases = some if metafunc.config.getoption("explore_runs", None) is None else every
            metafunc.parametrize(name, cases, ids=lambda case: f"{case}")


def test_two_operations_on_a_oneshot_at_once_lose_nothing_wherever_one_is_preempted(oneshot):
    first, second, parked = oneshot
    explore_preemptions(at_once_on_a_oneshot(first, second, parked=parked), within="yamanote")


@pytest.mark.parametrize("first", ["send", "close"])
def test_a_value_that_meets_the_close_of_its_receiver_goes_to_the_hook_or_is_refused(first):
    def scenario():
        undelivered, refused = [], []
        tx, rx = oneshot_channel(undelivered=undelivered.append)

        def send():
            try:
                tx.send("value")
            except ChannelClosed as closed:
                refused.extend(closed.refused)

        def check():
            assert undelivered + refused == ["value"]

        return *((send, rx.close) if first == "send" else (rx.close, send)), check

    explore_preemptions(scenario, within="yamanote")


def test_two_operations_on_a_buffer_at_once_lose_nothing_wherever_one_is_preempted(buffer):
    first, second, start = buffer
    explore_preemptions(at_once_on_a_buffer(first, second, start=start), within="yamanote")


def parks_without_looking_again(crowd, line):
    pass


def parks_for_bytes_without_looking_again(operation, waiter):
    core = operation._core
    waiter.operation = operation
    core.receiving.pop()
    core.receiver = waiter


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    ("kind", "method", "wrong", "scenario"),
    [
        (_Crowd, "look", parks_without_looking_again, at_once_on_a_oneshot("park", "send", parked=False)),
        (
            Reading,
            "register",
            parks_for_bytes_without_looking_again,
            at_once_on_a_buffer("park_receiver", "send", start="empty"),
        ),
    ],
)
def test_one_that_parks_without_looking_again_is_caught(kind, method, wrong, scenario, monkeypatch):
    monkeypatch.setattr(kind, method, wrong)
    with pytest.raises(Counterexample):
        explore_preemptions(scenario, within="yamanote")
    gc.collect()
