"""Two threads on one broadcast channel, one stopped before any of its instructions while the other runs through."""

import asyncio
import gc
from itertools import count

import pytest

from yamanote.channels import (
    BroadcastReceiver,
    ChannelClosed,
    ChannelEmpty,
    ChannelFull,
    HandleClosed,
    Lagged,
    broadcast,
)
from yamanote.channels._broadcast_cursor import Cursor
from yamanote.channels._broadcast_log import BroadcastLog
from yamanote.testing import Counterexample, explore_preemptions, step


class Log:
    """Everything that was sent, in order: whoever holds the beginning can read it."""

    def __init__(self, tx):
        self.first = tx._log.end

    def items(self):
        place, items = self.first, []
        while place.next is not None:
            items.append(place.item)
            place = place.next
        return items


class Bench:
    """A channel, two receivers of it, and what was done to them by two threads."""

    def __init__(self, overflow, start):
        self.tx, self.rx = broadcast(1, overflow=overflow, replay=1)
        self.log = Log(self.tx)
        self.numbers = count()
        self.books = {self.rx: [0, []]}
        self.parked = []
        self.other = self.tx.subscribe()
        self.books[self.other] = [0, []]
        self.loop = None
        match start:
            case "full":
                self.send()
                self.receive_other()
            case "a receiver waits":
                self.park_receiver()
            case "a sender waits":
                self.send()
                self.park_sender()

    def in_loop(self, function):
        async def call():
            return function()

        self.loop = self.loop or asyncio.new_event_loop()
        return self.loop.run_until_complete(call())

    def park(self, coroutine, book):
        call = step(coroutine)
        outcome = self.in_loop(call.poll)
        if outcome is None:
            self.parked.append((call, book))
        elif book is not None and outcome.error is None:
            book.append(outcome.unwrap())

    def park_receiver(self):
        self.park(self.rx.recv(), self.books[self.rx][1])

    def park_sender(self):
        self.park(self.tx.send(next(self.numbers)), None)

    def send(self):
        try:
            self.tx.send_nowait(next(self.numbers))
        except (ChannelFull, ChannelClosed):
            pass

    def take(self, rx):
        book = self.books[rx][1]
        try:
            book.append(rx.recv_nowait())
        except Lagged as lagged:
            book += [None] * lagged.missed
        except (ChannelEmpty, ChannelClosed):
            return False
        return True

    def receive(self):
        self.take(self.rx)

    def receive_blocking(self):
        try:
            self.books[self.rx][1].append(self.rx.blocking_recv(timeout=0))
        except Lagged as lagged:
            self.books[self.rx][1].extend([None] * lagged.missed)
        except (TimeoutError, ChannelClosed):
            pass

    def receive_other(self):
        self.take(self.other)

    def clone(self):
        try:
            clone = self.rx.clone()
        except HandleClosed:
            return
        self.books[clone] = [clone._cursor.place.number - clone._cursor.missed, []]

    def subscribe(self):
        guest = self.tx.subscribe()
        self.books[guest] = [guest._cursor.place.number, []]

    def close_receiver(self):
        self.rx.close()

    def cancel(self):
        for call, _ in self.parked:
            call.close()
        self.parked.clear()

    def check(self):
        try:
            self.compare()
        finally:
            for call, _ in self.parked:
                call.close()
            for rx in self.books:
                rx.close()
            self.tx.close()
            if self.loop is not None:
                self.loop.close()

    def compare(self):
        if self.parked:
            self.in_loop(lambda: None)  # what was called from another thread arrives
        log = self.tx._log
        for cursor in log.cursors:
            live = any(waiter.is_waiting() for waiter in cursor.parked)
            assert not (live and (cursor.place.next is not None or cursor.returned)), "a receiver is stuck"
            assert live or cursor.returned or cursor.missed or cursor.watched or cursor.turn, "a turn was lost"
        if log.senders:
            assert log.end.number - log.floor() >= log.capacity, "a sender is stuck"
        for call, book in self.parked:
            if call.is_woken:
                outcome = self.in_loop(call.poll)
                if book is not None and outcome.error is None:
                    book.append(outcome.unwrap())
            else:
                self.in_loop(call.close)
        self.parked.clear()
        items = self.log.items()
        for rx, (start, book) in self.books.items():
            if rx.is_closed:
                continue
            while self.take(rx):
                pass
            got = [item for item in book if item is not None]
            assert len(set(got)) == len(got), "an item arrived twice"
            assert set(got) <= set(items[start:])
            assert len(book) == len(items) - start, "the books do not add up"


def at_once(overflow, start, *operations):
    """The scenario in which two operations meet on a channel that is in a certain state."""

    def scenario():
        bench = Bench(overflow, start)
        return *(getattr(bench, operation) for operation in operations), bench.check

    return scenario


ANY = ["send", "receive", "receive_blocking", "receive_other", "park_receiver", "clone", "subscribe", "close_receiver"]
STARTS = {
    "empty": ANY,
    "full": [*ANY, "park_sender"],
    "a receiver waits": [*ANY, "cancel"],
    "a sender waits": [*ANY, "cancel"],
}
SUSPENDING = ("suspend", "full", "receive", "park_sender")
SOME = [
    ("lag", "full", "receive", "receive"),
    SUSPENDING,
]
ALL = [
    (overflow, start, first, second)
    for overflow in ("lag", "suspend")
    for start, operations in STARTS.items()
    for index, first in enumerate(operations)
    for second in operations[index:]
    if not (overflow == "lag" and (start == "a sender waits" or "park_sender" in (first, second)))
    and (first, second) not in {(once, once) for once in ("cancel", "park_sender", "park_receiver")}
    and {first, second} != {"park_receiver", "park_sender"}
]


def pytest_generate_tests(metafunc):
    """All pairs take minutes: they are for who explores."""
    if "case" in metafunc.fixturenames:
        few = metafunc.config.getoption("explore_runs", None) is None
        metafunc.parametrize("case", SOME if few else ALL, ids=lambda case: f"{case}")


def test_two_operations_at_once_keep_the_books_wherever_one_of_them_is_preempted(case):
    explore_preemptions(at_once(*case), within="yamanote.channels")


def never_minds_who_wanted_the_turn(log, cursor):
    pass


def moves_without_the_turn(receiver, limit):
    cursor = receiver._cursor
    place = cursor.place
    if cursor.seized or place.next is None:
        return []
    cursor.place = place.next
    return [place.item]


def takes_the_turn_by_looking(cursor):
    cursor.seized = True
    cursor.turn.clear()
    return True


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # what runs that went wrong have dropped
@pytest.mark.parametrize(
    ("kind", "method", "wrong", "scenario", "within"),
    [
        (BroadcastLog, "attend", never_minds_who_wanted_the_turn, SUSPENDING, "yamanote.channels"),
        (Cursor, "seize", takes_the_turn_by_looking, SUSPENDING, "yamanote.channels"),
        (BroadcastReceiver, "_take_ready", moves_without_the_turn, ("lag", "full", "receive", "receive"), ""),
    ],
)
def test_a_channel_that_is_wrong_among_threads_is_caught(kind, method, wrong, scenario, within, monkeypatch):
    monkeypatch.setattr(kind, method, wrong)
    with pytest.raises(Counterexample) as caught:
        explore_preemptions(at_once(*scenario), within=within)
    del caught
    gc.collect()
