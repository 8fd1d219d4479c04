"""Every order of the steps, and every cancellation, of small casts around a broadcast channel; and its teeth.

Each receiver keeps a book: where it began, what it received, what it was told that it missed. Together these must be
the log of the channel from there on, without a gap and without anything twice, whatever happens to the tasks; nothing
that was accepted is missing from the log; and nobody and nothing is left over.
"""

import asyncio
import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import pytest

from yamanote.channels import ChannelClosed, ChannelEmpty, ChannelFull, HandleClosed, Lagged, broadcast
from yamanote.channels._broadcast_cursor import Cursor
from yamanote.channels._broadcast_log import BroadcastLog
from yamanote.testing import Counterexample, explore, explore_cancellations, replay


@dataclass
class Book:
    """What one receiver has seen."""

    cursor: Cursor
    start: int
    items: list = field(default_factory=list)
    missed: int = 0
    shared: bool = False
    """Whether several tasks use it; then what was handed to a cancelled one comes later."""
    complete: bool = False
    """Whether it came to the end of the channel."""


@dataclass(frozen=True)
class Cast:
    """A scenario: who takes part in it, by the names of their roles in `World`."""

    overflow: str
    capacity: int
    senders: str
    receivers: str = ""
    shared: str = ""
    """Tasks that use one receiver between them; the judge receives what they leave behind."""
    bystanders: str = ""
    replay: int = 0
    drained: bool = True
    """Whether the judge has a receiver, too; otherwise the last one may leave before the senders have ended."""

    async def __call__(self) -> None:
        world = World(self)
        with world.open(world.rx.clone()) as drain:
            book = world.books[drain]
            book.shared = True
            receivers = [world.start(role, world.open(world.rx.clone())) for role in self.receivers.split()]
            shared = [world.start(role, drain, closes=False) for role in self.shared.split()]
            senders = [world.start(role, world.tx.clone()) for role in self.senders.split()]
            bystanders = [world.start(role, world.tx.clone()) for role in self.bystanders.split()]
            world.tx.close()
            world.rx.close()
            if shared:
                await asyncio.wait(shared)
            if self.drained:
                await world.play("receive", drain)
            else:
                drain.close()
                await asyncio.sleep(0)
                world.ends["receive_slowly"].close()
            tasks = [*receivers, *shared, *senders, *bystanders]
            await asyncio.wait(tasks)
            await world.play("receive", drain)  # what came back after the end had been told
        for task in tasks:
            if not task.cancelled():
                task.result()
        world.check()


class World:
    """One channel, what the tasks of a cast do with it, and the books."""

    def __init__(self, cast):
        self.cast = cast
        self.tx, self.rx = broadcast(cast.capacity, overflow=cast.overflow, replay=cast.replay)
        self.log = self.tx._log
        self.first = self.log.end  # whoever holds the beginning can read everything
        self.books = {}
        self.ends = {}
        self.numbers = count()
        self.accepted = []
        self.refused = []

    def open(self, rx):
        self.books[rx] = Book(rx._cursor, rx._cursor.place.number)
        return rx

    def start(self, role, end, *, closes=True):
        task = asyncio.create_task(self.play(role, end), name=role)
        self.ends.setdefault(role, end)
        if closes:  # a task that is cancelled before its first step cannot close anything itself
            task.add_done_callback(lambda _: end.close())
        return task

    async def play(self, role, end):
        try:
            await getattr(self, role)(end)
        except HandleClosed:
            assert end.is_closed
        except ChannelClosed:
            pass
        finally:
            self.look()
        assert asyncio.current_task().cancelling() == 0

    # ---------------------------------------------------------------- senders

    async def deliver(self, operation):
        item = f"item {next(self.numbers)}"
        try:
            receivers = await operation(item)
        except (ChannelClosed, ChannelFull) as error:
            assert error.refused == (item,)
            self.refused.append(item)
            raise
        (self.accepted if receivers or self.cast.overflow != "drop_newest" else self.refused).append(item)
        self.look()

    async def send(self, tx):
        for _ in range(3):
            await self.deliver(tx.send)

    async def send_slowly(self, tx):
        for _ in range(3):
            await asyncio.sleep(0)
            await self.deliver(tx.send)

    async def try_send(self, tx):
        async def attempt(item):
            return tx.send_nowait(item)

        for _ in range(3):
            try:
                await self.deliver(attempt)
            except ChannelFull:
                await asyncio.sleep(0)

    async def send_and_close(self, tx):
        with tx.clone() as other:
            tx.close()
            await self.deliver(other.send)

    # ---------------------------------------------------------------- receivers

    async def take(self, rx, operation):
        try:
            self.books[rx].items += await operation()
        except Lagged as lagged:
            self.books[rx].missed += lagged.missed
        except ChannelClosed as closed:
            self.books[rx].complete = not isinstance(closed, HandleClosed)
            raise
        self.look()

    async def receive(self, rx):
        async def one():
            return [await rx.recv()]

        while True:
            await self.take(rx, one)

    async def receive_many(self, rx):
        while True:
            await self.take(rx, lambda: rx.recv_many(2))

    async def receive_slowly(self, rx):
        async def one():
            return [await rx.recv()]

        while True:
            await asyncio.sleep(0)
            await self.take(rx, one)

    async def receive_once(self, rx):
        async def one():
            return [await rx.recv()]

        await self.take(rx, one)

    async def try_receive(self, rx):
        async def attempt():
            return [rx.recv_nowait()]

        for _ in range(4):
            try:
                await self.take(rx, attempt)
            except ChannelEmpty:
                await asyncio.sleep(0)

    async def receive_in_time(self, rx):
        async def one():
            async with asyncio.timeout(1):
                return [await rx.recv()]

        while True:
            try:
                await self.take(rx, one)
            except TimeoutError:
                assert asyncio.current_task().cancelling() == 0

    # ---------------------------------------------------------------- bystanders

    async def watch(self, tx):
        await tx.closed()
        assert tx.is_closed

    async def come_late(self, tx):
        await asyncio.sleep(0)
        rx = self.open(tx.subscribe())
        tx.close()
        with rx:
            await self.receive(rx)

    async def clone_in_between(self, tx):
        tx.close()
        await asyncio.sleep(0)
        original = self.ends["receive_slowly"]
        with self.open(original.clone()) as rx:
            came_back = [number for number, _, _ in rx._cursor.returned]
            self.books[rx].start = min(came_back, default=rx._cursor.place.number - rx._cursor.missed)
            await self.receive(rx)

    # ---------------------------------------------------------------- what must hold

    def look(self):
        """What holds whenever a call has returned."""
        log = self.log
        for cursor in log.cursors:
            live = any(waiter.is_waiting() for waiter in cursor.parked)
            assert not (live and (cursor.place.next is not None or cursor.returned)), "a receiver is stuck"
        behind = log.end.number - log.floor()
        if log.senders and log.senders[0].is_waiting():
            assert behind >= log.capacity, "a sender is stuck"
        if not log.drops:
            assert behind <= log.capacity, "a receiver is further behind than it may be"

    def check(self):
        place, items = self.first, []
        while place.next is not None:
            items.append(place.item)
            place = place.next
        assert len(set(items)) == len(items)
        assert set(self.accepted) <= set(items), "an item that was accepted is lost"
        assert not set(self.refused) & set(items), "an item that was refused was sent"
        for book in self.books.values():
            self.check_book(book, items[book.start :])
        log = self.log
        assert not (log.cursors or log.waiting or log.senders or log.watchers), "somebody was left behind"
        assert log.sender_handles == 0

    def check_book(self, book, items):
        assert self.cast.overflow == "lag" or not book.missed
        if book.shared:
            assert len(set(book.items)) == len(book.items), "an item arrived twice"
            assert set(book.items) <= set(items)
        else:
            # In the order of the log, with gaps only where items are missing that it was told of, or knows to be lost.
            positions = [items.index(item) for item in book.items]
            assert positions == sorted(set(positions)), "out of order"
            last = len(items) if book.complete else positions[-1] + 1 if positions else 0
            if self.cast.overflow != "drop_oldest":
                assert len(positions) + book.missed >= last, "a gap was not told"
        if book.complete and self.cast.overflow != "drop_oldest":
            assert len(book.items) + book.missed == len(items), "the books do not add up"


CASTS = {
    "lag": Cast("lag", 1, "send send_slowly", "receive receive_slowly"),
    "lag, in batches": Cast("lag", 2, "send send send_slowly", "receive_many receive_slowly"),
    "lag, shared": Cast("lag", 2, "send send_slowly", shared="receive_once receive_once receive_slowly"),
    "drop the oldest": Cast("drop_oldest", 1, "send try_send", "receive receive_slowly receive_many"),
    "suspend": Cast("suspend", 1, "send send", "receive receive_slowly"),
    "suspend, two places": Cast("suspend", 2, "send send_slowly try_send", "receive_many receive_slowly try_receive"),
    "suspend, shared": Cast("suspend", 1, "send send", "receive", shared="receive_once receive_once receive_in_time"),
    "drop the newest": Cast("drop_newest", 1, "send send_slowly", "receive receive_slowly"),
    "error": Cast("error", 2, "try_send try_send", "receive receive_slowly"),
    "they come late": Cast(
        "suspend", 2, "send send_slowly", "receive_once", bystanders="come_late come_late", replay=1
    ),
    "they come late, and lag": Cast("lag", 2, "send send_slowly", bystanders="come_late come_late", replay=2),
    "clones": Cast("suspend", 1, "send_and_close send", "receive_slowly", bystanders="clone_in_between"),
    "clones that lag": Cast("lag", 1, "send send", "receive_slowly", bystanders="clone_in_between"),
    "receivers leave": Cast(
        "suspend", 1, "send send", "receive_once receive_slowly", bystanders="watch", drained=False
    ),
}

each_cast = pytest.mark.parametrize("name", CASTS)


@each_cast
def test_the_books_add_up_in_every_order_of_the_steps(name):
    explore(CASTS[name], runs=40)


@each_cast
def test_the_books_add_up_whoever_is_cancelled_whenever(name):
    explore_cancellations(CASTS[name], runs=60)


@pytest.mark.parametrize("name", ["lag, shared", "suspend, shared", "suspend, two places"])
def test_the_books_add_up_when_every_other_operation_lets_others_run_first(name, monkeypatch):
    for module in ("_broadcast_sender", "_broadcast_receiver"):
        monkeypatch.setattr(f"yamanote.channels.{module}.BUDGET", 1)
    explore(CASTS[name], runs=40)
    explore_cancellations(CASTS[name], runs=60)


# -------------------------------------------------------------------- teeth: each of these wrong channels is caught


def keeps_what_was_handed_over(log, cursor, waiter):
    if waiter in cursor.parked:
        cursor.parked.remove(waiter)
    log.serve_locked(cursor)


def puts_back_and_wakes_nobody(log, cursor, waiter):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BroadcastLog, "serve_locked", lambda log, cursor: None)
        take_back(log, cursor, waiter)


def lets_everybody_in(log, moved=None):
    while log.senders:
        waiter = log.senders.popleft()
        if waiter.claim():
            waiter.settle(log._append_locked(waiter.operation.item))


def never_watches_anybody(log, moved=None):
    if log._watched is None and not log.senders:
        return
    if log.end.number < log.floor() + log.capacity:
        admit(log, moved)


def counts_one_too_many(log, cursor, place):
    skip(log, cursor, place)
    cursor.missed += 1


def forgets_the_gap(log, cursor, place):
    skip(log, cursor, place)
    cursor.missed = 0


def serves_one_receiver_only(log, item):
    waiting, log.waiting = log.waiting, dict(list(log.waiting.items())[:1])
    try:
        return append(log, item)
    finally:
        log.waiting = {**waiting, **log.waiting}


def tells_nobody_the_end(log, cause=None):
    log.sender_handles -= 1


def leaves_without_a_word(log, cursor):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BroadcastLog, "admit_locked", lambda log, moved=None: None)
        leave(log, cursor)


take_back = BroadcastLog.take_back_locked
admit = BroadcastLog.admit_locked
skip = BroadcastLog._skip_locked
append = BroadcastLog._append_locked
leave = BroadcastLog.leave_locked


@dataclass(frozen=True)
class Tooth:
    """A method that is replaced by a wrong one, and the scenario that must notice."""

    method: str
    wrong: Callable[..., object]
    explorer: Callable[..., object]
    cast: Cast


TEETH = [
    Tooth("take_back_locked", keeps_what_was_handed_over, explore_cancellations, CASTS["suspend, shared"]),
    Tooth("take_back_locked", puts_back_and_wakes_nobody, explore_cancellations, CASTS["lag, shared"]),
    Tooth("admit_locked", lets_everybody_in, explore, CASTS["suspend"]),
    Tooth("admit_locked", never_watches_anybody, explore, CASTS["suspend"]),
    Tooth("_skip_locked", counts_one_too_many, explore, CASTS["lag"]),
    Tooth("_skip_locked", forgets_the_gap, explore, CASTS["lag"]),
    Tooth("_append_locked", serves_one_receiver_only, explore, CASTS["lag"]),
    Tooth("drop_sender_locked", tells_nobody_the_end, explore, CASTS["suspend"]),
    Tooth("leave_locked", leaves_without_a_word, explore, CASTS["receivers leave"]),
]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # what runs that went wrong have dropped
@pytest.mark.parametrize("tooth", TEETH, ids=lambda tooth: tooth.wrong.__name__)
def test_a_wrong_channel_is_caught_and_can_be_shown_again(tooth, monkeypatch):
    monkeypatch.setattr(BroadcastLog, tooth.method, tooth.wrong)
    with pytest.raises(Counterexample) as caught:
        tooth.explorer(tooth.cast, runs=600)
    with pytest.raises(Counterexample):
        replay(tooth.cast, caught.value.token)
    del caught
    gc.collect()
