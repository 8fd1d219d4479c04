"""Two threads on one channel, one of which is stopped before any of its instructions while the other runs through.

Each run is recorded as a history, which must be what a channel that does one thing after the other could have done.
"""

import asyncio
from contextlib import ExitStack
from itertools import combinations_with_replacement, count
from typing import NamedTuple

from yamanote.channels import ChannelClosed, ChannelEmpty, ChannelFull, channel, channel_unbounded
from yamanote.runtime import ThreadWaiter
from yamanote.testing import History, explore_preemptions, step


class State(NamedTuple):
    """A channel at rest."""

    capacity: float
    items: tuple = ()
    permits: int = 0
    senders: int = 1
    receivers: int = 1
    shut: bool = False
    undelivered: tuple = ()
    crowded: bool = False
    """Whether calls are under way that have done half of what they do: taken the room for an item that is not there
    yet, parked in front of an item that is there, closed the channel and not announced the end. Then a call that does
    not wait may say that there is nothing for it, where one after the other there would have been."""


def sequential(state, call):
    """What `call` may do to a channel in `state`: the result, and the state after it."""
    items, permits = state.items, state.permits
    room = state.capacity - len(items) - permits
    closed = state.shut or not state.senders or not state.receivers
    match call.name, *call.arguments:
        case ("send_nowait" | "send") as name, item:
            if closed:
                yield ChannelClosed, state
            elif room >= 1:
                yield None, state._replace(items=(*items, item))
                yield asyncio.CancelledError, state._replace(items=(*items, item))
            if not closed and name == "send_nowait" and (room < 1 or state.crowded):
                yield ChannelFull, state
            yield asyncio.CancelledError, state
        case ("recv_nowait" | "recv") as name, *_:
            if items:
                yield items[0], state._replace(items=items[1:])
            elif closed and not (permits and state.receivers):
                yield ChannelClosed, state
            if name == "recv_nowait" and (
                state.crowded or (not items and (not closed or (permits and state.receivers)))
            ):
                yield ChannelEmpty, state
            yield asyncio.CancelledError, state
        case "reserve", *_:
            if closed:
                yield ChannelClosed, state
            elif room >= 1:
                yield None, state._replace(permits=permits + 1)
            else:
                yield ChannelFull, state
        case "send_permitted", item:
            if state.receivers:
                yield None, state._replace(permits=permits - 1, items=(*items, item))
            else:
                yield ChannelClosed, state._replace(permits=permits - 1)
        case "release", *_:
            yield None, state._replace(permits=permits - 1)
        case "shutdown", *_:
            yield None, state._replace(shut=True)
        case "clone_and_close", *_:
            yield None, state
            if not state.senders or not state.receivers:
                yield ChannelClosed, state
        case "close_sender", *_:
            yield None, state._replace(senders=0)
        case "close_receiver", *_:
            yield None, state._replace(receivers=0, items=(), undelivered=state.undelivered + items)
        case "look", *_:
            yield state.undelivered, state


class Bench:
    """A channel, with everything that is done to it on record."""

    def __init__(self, capacity, start, *, crowded=False):
        self.history = History()
        self.items = count()
        self.undelivered = []
        hook = {"undelivered": self.undelivered.append}
        self.tx, self.rx = channel_unbounded(**hook) if capacity is None else channel(capacity, **hook)
        self.initially = State(float("inf") if capacity is None else capacity, crowded=crowded)
        self.permits = []
        self.parked = None
        match start:
            case "full":
                self.send_nowait()
            case "a sender waits":
                self.send_nowait()
                self.park_sender()
            case "a receiver waits":
                self.park_receiver()
            case "permits are out":
                self.reserve()
                self.reserve()

    def park(self, coroutine, *call):
        async def poll():
            return self.parked.poll()

        self.loop = asyncio.new_event_loop()
        self.parked = step(coroutine)
        self.parked_call = ExitStack()
        self.parked_record = self.parked_call.enter_context(self.history.calling(*call))
        outcome = self.loop.run_until_complete(poll())
        if outcome is not None:
            self.end(outcome.unwrap)

    def park_receiver(self):
        self.park(self.rx.recv(), "recv")

    def park_sender(self):
        item = next(self.items)
        self.park(self.tx.send(item), "send", item)

    def record(self, name, function, *args, **kwargs):
        with self.history.calling(name, *args) as call:
            try:
                call.result = function(*args, **kwargs)
            except ChannelClosed:
                raise ChannelClosed("it or its handle") from None  # which of the two makes no difference here

    def send_nowait(self):
        self.record("send_nowait", self.tx.send_nowait, next(self.items))

    def blocking_send(self):
        def send(item):
            try:
                self.tx.blocking_send(item, timeout=0)
            except TimeoutError:
                raise ChannelFull("all the while") from None

        self.record("send_nowait", send, next(self.items))

    def recv_nowait(self):
        self.record("recv_nowait", self.rx.recv_nowait)

    def blocking_recv(self):
        def recv():
            try:
                return self.rx.blocking_recv(timeout=0)
            except TimeoutError:
                raise ChannelEmpty("all the while") from None

        self.record("recv_nowait", recv)

    def reserve(self):
        self.record("reserve", lambda: self.permits.extend(self.tx.reserve_nowait()))

    def send_permitted(self):
        self.record("send_permitted", self.permits.pop().send, next(self.items))

    def release(self):
        self.record("release", self.permits.pop().release)

    def clone_and_close(self):
        self.record("clone_and_close", lambda: (self.tx.clone().close(), self.rx.clone().close())[0])

    def shutdown(self):
        self.record("shutdown", self.rx.shutdown)

    def close_sender(self):
        self.record("close_sender", self.tx.close)

    def close_receiver(self):
        self.record("close_receiver", self.rx.close)

    def use_and_close(self):
        """One item goes through, and the sender is closed in the middle of that; a permit keeps the end away."""
        self.release()
        self.send_nowait()
        self.close_sender()
        self.recv_nowait()

    def cancel(self):
        def close():
            self.parked.close()
            raise asyncio.CancelledError

        self.end(close)

    def end(self, function):
        """Record the end of the parked call."""
        try:
            with self.parked_call:
                try:
                    self.parked_record.result = function()
                except ChannelClosed:
                    raise ChannelClosed("it or its handle") from None
        except asyncio.CancelledError:
            pass

    def check(self):
        """Nobody waits in vain, and what happened can be explained by one call after the other."""
        try:
            self.compare()
        finally:
            for permit in self.permits:
                permit.release()
            self.tx.close()
            self.rx.close()
            if self.parked is not None:
                self.parked.close()
                self.loop.close()

    def compare(self):
        if self.parked is not None and not self.parked_record.ended:
            self.loop.run_until_complete(asyncio.sleep(0))
            if self.parked.is_woken:
                self.end(self.parked.assert_ready)
        core, now = self.tx._core, self.tx.statistics()
        assert not (now.buffered and now.waiting_receivers), "a receiver is stuck"
        assert not (now.waiting_senders and core.free), "a sender is stuck"
        if core.capacity is not None:
            assert core.free + now.buffered + len(self.permits) == core.capacity, "room was lost, or made up"
        if self.parked is not None and not self.parked_record.ended:
            assert not core.closed or self.permits, "nobody told it that the channel is closed"
            self.cancel()
        while len(self.rx):
            self.recv_nowait()
        self.record("look", lambda: tuple(self.undelivered))
        self.history.assert_linearizable(sequential, self.initially)


def at_once(capacity, start, *operations):
    """The scenario in which two operations meet on a channel that is in a certain state."""

    def scenario():
        # Between two calls of the same thread, the other one may be half-way through its own.
        bench = Bench(capacity, start, crowded="use_and_close" in operations)
        return *(getattr(bench, operation) for operation in operations), bench.check

    return scenario


ENDS = ["shutdown", "close_sender", "close_receiver"]
OPERATIONS = {
    "empty": ["send_nowait", "recv_nowait", "blocking_recv", "park_receiver", "reserve", "clone_and_close", *ENDS],
    "full": ["send_nowait", "recv_nowait", "blocking_send", "park_sender", "reserve", *ENDS],
    "a receiver waits": ["send_nowait", "recv_nowait", "cancel", *ENDS],
    "a sender waits": ["send_nowait", "recv_nowait", "cancel", "reserve", *ENDS],
    "permits are out": ["send_nowait", "recv_nowait", "send_permitted", "release", "use_and_close", *ENDS],
}
CAPACITIES = {"full": [1], "a sender waits": [1], "permits are out": [2, None]}

SOME = [
    (None, "empty", "send_nowait", "park_receiver"),
    (1, "empty", "send_nowait", "park_receiver"),
    (1, "full", "recv_nowait", "park_sender"),
    (None, "empty", "send_nowait", "close_sender"),
]
ALL = [
    (capacity, start, *pair)
    for start, operations in OPERATIONS.items()
    for pair in combinations_with_replacement(operations, 2)
    for capacity in CAPACITIES.get(start, [1, None])
    if pair not in {(once, once) for once in ("cancel", "park_sender", "park_receiver")}
]


def pytest_generate_tests(metafunc):
    """All pairs take minutes: they are for who explores."""
    if "case" in metafunc.fixturenames:
        cases = SOME if metafunc.config.getoption("explore_runs", None) is None else ALL
        metafunc.parametrize("case", cases, ids=lambda case: f"{case}")


def test_two_operations_at_once_are_one_after_the_other_wherever_one_of_them_is_preempted(case):
    explore_preemptions(at_once(*case), within="yamanote")


def test_a_send_that_began_before_the_close_is_not_accepted_after_it_in_room_that_there_was_not_before():
    scenario = at_once(2, "permits are out", "send_nowait", "use_and_close")
    explore_preemptions(scenario, within="yamanote.channels._sender")


def a_branch_loses_in_the_very_moment():
    """A party of two branches finds an item at the second while it is served by another thread at the first."""
    (tx, served), (closed, found) = channel(1), channel(1)
    closed.send_nowait("found")
    closed.close()
    other = found.clone()
    taken, told_the_end = [], []

    def select():
        party = ThreadWaiter()
        waiters = [party, party.branch()]
        for rx, waiter in zip((served, found), waiters, strict=True):
            rx.register(waiter)
        assert party.sleep()
        for rx, waiter in zip((served, found), waiters, strict=True):
            if waiter.settled:
                taken.append(waiter.value)
            else:
                rx.withdraw(waiter)

    def serve_and_receive():
        tx.send_nowait("served")
        try:
            taken.append(other.recv_nowait())
        except ChannelEmpty:
            pass
        except ChannelClosed:
            told_the_end.append(True)

    def check():
        left = [*served._items, *found._items]
        assert sorted(taken + left) == ["found", "served"]
        assert not (told_the_end and "found" in left)
        assert (tx._core.free, closed._core.free) == (1 - len(served), 1 - len(found))
        assert not (tx._core.parked_receivers or closed._core.parked_receivers)
        for end in (tx, served, found, other):
            end.close()

    return select, serve_and_receive, check


def test_a_branch_that_loses_in_the_very_moment_loses_nothing_wherever_it_is_preempted():
    explore_preemptions(a_branch_loses_in_the_very_moment, within="yamanote.channels._receiver")


def an_item_comes_back_while_the_one_before_it_is_received():
    tx, rx = channel(2)
    parties = [ThreadWaiter(), ThreadWaiter()]
    for party in parties:
        rx.register(party)
    tx.send_nowait("first")
    tx.send_nowait("second")
    rx.withdraw(parties[0])
    received = []

    def give_back():
        rx.withdraw(parties[1])

    def receive():
        received.append(rx.recv_nowait())

    def check():
        assert [*received, *rx._items] == ["first", "second"]
        assert tx._core.free == len(received)
        tx.close()
        rx.close()

    return give_back, receive, check


def test_an_item_that_comes_back_while_the_one_before_it_is_received_is_not_lost():
    explore_preemptions(an_item_comes_back_while_the_one_before_it_is_received, within="yamanote.channels")
