"""Every order of the steps, and every cancellation, of small casts of senders and receivers.

A `Cast` is a scenario for both explorers. Whatever happens to its tasks, the account must come out even: everything
that was accepted was received or went to the hook, nothing twice; items come in the order in which they were sent, to
the calls in the order in which they were made; and nobody and nothing is left over.
"""

import asyncio
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from itertools import count

import pytest

from yamanote.channels import ChannelClosed, ChannelEmpty, ChannelFull, HandleClosed, channel, channel_unbounded
from yamanote.runtime import park
from yamanote.testing import explore, explore_cancellations

CAUSE = LookupError("nothing more to do")


@dataclass(frozen=True)
class Cast:
    """A scenario: who takes part in it, by the names of their roles in `World`."""

    capacity: int | None
    senders: str
    receivers: str
    bystanders: str = ""
    overflow: str = "suspend"
    drained: bool = True
    """Whether the judge receives what the others left behind; otherwise the hook gets it."""
    in_order: bool = True

    async def __call__(self) -> None:
        world = World(self.capacity, self.overflow)
        rx = world.rx.clone() if self.drained else None
        bystanders = [world.start(role, None) for role in self.bystanders.split()]
        receivers = [world.start(role, world.rx.clone()) for role in self.receivers.split()]
        senders = [world.start(role, world.tx.clone()) for role in self.senders.split()]
        world.tx.close()
        world.rx.close()
        if rx is not None:
            await asyncio.wait(receivers)
            await world.play("drain", rx)
        await asyncio.wait([*bystanders, *receivers, *senders])
        for task in (*bystanders, *receivers, *senders):
            if not task.cancelled():
                task.result()
        world.check_account()
        if self.in_order:
            world.check_order()
        world.check_that_nothing_is_left()


class World:
    """One channel, what the tasks of a cast do with it, and the account of that."""

    def __init__(self, capacity, overflow="suspend"):
        self.undelivered = []
        self.overflow = overflow
        hook = {"undelivered": self.undelivered.append}
        bounded = {"overflow": overflow, **hook}
        self.tx, self.rx = channel_unbounded(**hook) if capacity is None else channel(capacity, **bounded)
        self.weak = self.tx.downgrade()
        self.tasks = {}
        self.ends = {}
        self.numbers = count()
        self.accepted = []
        self.perhaps = []
        """What was cancelled while it was sent: it may have been accepted in that very turn."""
        self.received = {}
        """By the place of the call among all calls that receive."""
        self.calls = 0
        self.given_up = []
        """The calls that receive and were cancelled, by how many there had been by then: each may put one item back."""
        self.closed_by_shutdown = False

    def start(self, role, end):
        self.ends.setdefault(role, end)
        task = asyncio.create_task(self.play(role, end), name=role)
        self.tasks.setdefault(role, []).append(task)
        if end is not None:  # a task that is cancelled before its first step cannot close anything itself
            task.add_done_callback(lambda _: end.close())
        return task

    async def play(self, role, end):
        try:
            await getattr(self, role)(end)
        except HandleClosed:
            assert end.is_closed
        except ChannelClosed as closed:
            assert closed.__cause__ in ([CAUSE] if self.closed_by_shutdown else [None, CAUSE])
        finally:
            if end is not None:
                end.close()
            self.look()
        assert asyncio.current_task().cancelling() == 0

    # ---------------------------------------------------------------- senders

    async def deliver(self, operation, kind, *args):
        """Have one item sent, and write it down."""
        item = (kind, next(self.numbers))
        try:
            await operation(item)
        except ChannelClosed as closed:
            assert closed.refused == (item,)
            assert kind == "sent" or not self.tx.statistics().receivers, "a permit was refused"
            raise
        except asyncio.CancelledError:
            self.perhaps.append(item)
            raise
        self.accepted.append(item)
        self.look()

    async def send(self, tx):
        for _ in range(2):
            await self.deliver(tx.send, "sent")

    async def send_or_not(self, tx):
        for _ in range(3):
            try:
                await self.deliver(tx.send, "sent")
            except ChannelFull:
                await asyncio.sleep(0)

    async def send_selected(self, tx):
        """As a select does it that has one branch."""

        async def commit(item):
            await park(tx.sending(item))

        for _ in range(2):
            await self.deliver(commit, "sent")

    async def slow_send(self, tx):
        for _ in range(2):
            await asyncio.sleep(1)
            await self.deliver(tx.send, "sent")

    async def send_many(self, tx):
        def items():
            for _ in range(3):
                self.perhaps.append(item := ("sent", next(self.numbers)))
                yield item

        try:
            await tx.send_many(items())
        except ChannelClosed as closed:
            assert (self.perhaps.pop(),) == closed.refused

    async def try_send(self, tx):
        async def attempt(item):
            tx.send_nowait(item)

        for _ in range(3):
            try:
                await self.deliver(attempt, "sent")
            except ChannelFull:
                await asyncio.sleep(0)

    async def send_permitted(self, tx):
        async def use(item):
            permit.send(item)

        for _ in range(2):
            with await tx.reserve() as permit:
                await asyncio.sleep(0)
                await self.deliver(use, "permitted")

    async def reserve_two(self, tx):
        async def use(item):
            used.send(item)

        used, unused = await park(tx.reserving(2))
        with used, unused:
            await asyncio.sleep(0)
            await self.deliver(use, "permitted")

    async def send_and_cancel(self, tx):
        """What two receivers were handed comes back, and from the one who gets it next, it comes back again."""
        await self.send(tx)
        for receiver in self.tasks["receive"]:
            receiver.cancel()
            await asyncio.sleep(0)

    async def send_on_clones(self, tx):
        with tx.clone() as other:
            tx.close()
            await self.deliver(other.send, "sent")
        if (upgraded := self.weak.upgrade()) is not None:
            with upgraded:
                await self.deliver(upgraded.send, "sent")

    # ---------------------------------------------------------------- receivers

    def call(self):
        """The place of a call that receives."""
        self.calls += 1
        return self.calls

    async def take(self, operation):
        """Have something received, and write down what."""
        place = self.call()
        try:
            self.received[place] = await operation()
        except asyncio.CancelledError:
            self.given_up.append(self.calls)
            raise
        self.look()

    async def receive(self, rx):
        while True:
            await self.take(rx.recv)

    async def receive_once(self, rx):
        await self.take(rx.recv)

    async def receive_late(self, rx):
        await asyncio.wait(self.tasks["close_the_sender"])
        await self.receive(rx)

    async def receive_on_clone(self, rx):
        with rx.clone() as other:
            rx.close()
            await self.receive(other)

    async def receive_many(self, rx):
        async def batch():
            first, *rest = await rx.recv_many(2)
            for item in rest:  # these were taken just now, not when the call was made
                self.received[self.call()] = item
            return first

        while True:
            await self.take(batch)

    async def try_receive(self, rx):
        async def attempt():
            return rx.recv_nowait()

        for _ in range(3):
            try:
                await self.take(attempt)
            except ChannelEmpty:
                await asyncio.sleep(0)

    async def receive_in_time(self, rx):
        while True:
            try:
                async with asyncio.timeout(1):
                    await self.take(rx.recv)
            except TimeoutError:
                assert asyncio.current_task().cancelling() == 0

    async def drain(self, rx):
        await self.receive(rx)

    # ---------------------------------------------------------------- bystanders

    async def watch(self, _):
        await self.tx.closed()
        assert self.tx._core.closed

    async def shut(self, _):
        await asyncio.sleep(0)
        self.closed_by_shutdown = not self.tx._core.closed
        self.rx.shutdown(CAUSE)

    async def close_the_sender(self, _):
        """There is no room: nothing but that its handle was closed ends the call."""
        await asyncio.sleep(0)
        self.ends["send"].close()
        await asyncio.wait(self.tasks["send"])

    async def close_the_receiver(self, _):
        """The channel stays open: nothing but that its handle was closed ends the call."""
        if (tx := self.weak.upgrade()) is not None:
            with tx:
                await asyncio.sleep(0)
                self.ends["receive"].close()
                await asyncio.wait(self.tasks["receive"])

    # ---------------------------------------------------------------- what must hold

    def look(self):
        """What holds whenever a call has returned."""
        core = self.tx._core
        assert not (core.items and any(waiter.is_waiting() for waiter in core.receivers)), "a receiver is stuck"
        if core.capacity is not None:
            assert len(core.items) <= core.capacity + len(self.given_up), (
                "there is more in the channel than it may hold"
            )
            if core.waiters and (first := core.waiters[0]).is_waiting():
                assert first.operation.need > core.free, "a sender is stuck"
                assert core.capacity or not any(waiter.is_waiting() for waiter in core.receivers), "two do not meet"

    def check_account(self):
        arrived = Counter([*self.received.values(), *self.undelivered])
        accepted, perhaps = Counter(self.accepted), Counter(self.perhaps)
        assert max(arrived.values(), default=1) == 1, "an item arrived twice"
        assert accepted <= arrived, "an item that was accepted is lost"
        assert arrived <= accepted + perhaps, "an item arrived that was refused"

    def check_order(self):
        """Those who send get through in the order of their calls, and those who receive, in the order of theirs.

        Each call that was cancelled may have put one item back, which then follows others that had been behind it. But
        no call that begins later gets them in the wrong order.
        """
        for kind in ("sent", "permitted"):
            received = [(place, number) for place, (sort, number) in sorted(self.received.items()) if sort == kind]
            for index, calls in enumerate([0, *self.given_up]):
                numbers = [number for place, number in received if place > calls]
                allowed = len(self.given_up) - index
                assert longest_increasing(numbers) >= len(numbers) - allowed, f"out of order: {numbers}"
            numbers = [number for sort, number in self.undelivered if sort == kind]
            if self.overflow == "suspend":  # otherwise they were dropped while others were received
                numbers = [number for _, number in received] + numbers
            assert longest_increasing(numbers) >= len(numbers) - len(self.given_up), f"out of order: {numbers}"

    def check_that_nothing_is_left(self):
        core = self.tx._core
        state = core.sender_handles, core.receiver_handles, core.parked, core.parked_receivers, len(core.items)
        assert state == (0, 0, 0, 0, 0)
        assert not core.watchers, "somebody still waits for the channel to close"
        assert not core.late, "an item was left for a sender that never came for it"
        assert core.closed
        assert core.ended
        assert core.free == core.total, "room was lost, or made up"
        assert not core.under_way()


def longest_increasing(numbers):
    """The length of the longest increasing subsequence."""
    tails = []
    for number in numbers:
        place = bisect_left(tails, number)
        tails[place : place + 1] = [number]
    return len(tails)


CASTS = {
    "one place": Cast(1, "send send", "receive receive"),
    "two places": Cast(2, "send send send", "receive receive"),
    "any number": Cast(None, "send send", "receive receive receive"),
    "nobody waits": Cast(2, "try_send try_send", "try_receive receive"),
    "permits": Cast(2, "send_permitted reserve_two send", "receive"),
    "permits without end": Cast(None, "send_permitted reserve_two", "receive receive"),
    "batches": Cast(2, "send_many send_many", "receive_many receive_many"),
    "batches without end": Cast(None, "send_many", "receive_many receive"),
    "receivers leave": Cast(2, "send send", "receive_once receive_once", "watch", drained=False),
    "receivers leave permits": Cast(2, "send_permitted send_many", "receive_once", "watch", drained=False),
    "receivers leave, any number": Cast(None, "send send", "receive_once receive_once", "watch", drained=False),
    "clones": Cast(1, "send_on_clones send", "receive_on_clone receive", drained=False),
    "shutdown": Cast(1, "send send_permitted", "receive receive", "shut watch"),
    "shutdown, any number": Cast(None, "send send_permitted", "receive receive_many", "shut watch"),
    "a sender is closed": Cast(1, "send send_permitted", "receive_late", "close_the_sender"),
    "a receiver is closed": Cast(2, "send_many", "receive receive_once", "close_the_receiver"),
    "receivers are cancelled": Cast(None, "send_and_cancel", "receive receive receive"),
    "hand to hand": Cast(0, "send send send", "receive receive"),
    "hand to hand, nobody waits": Cast(0, "try_send send", "try_receive receive"),
    "hand to hand, in batches": Cast(0, "send_many send", "receive_many receive_many"),
    "hand to hand, selected": Cast(0, "send_selected send", "receive receive_once"),
    "hand to hand, receivers leave": Cast(0, "send send", "receive_once receive_once", "watch", drained=False),
    "hand to hand, shutdown": Cast(0, "send send", "receive receive", "shut watch"),
    "hand to hand, a sender is closed": Cast(0, "send", "receive_late", "close_the_sender"),
    "hand to hand, timeouts": Cast(0, "slow_send slow_send", "receive_in_time receive_in_time"),
    "selected": Cast(2, "send_selected send_selected reserve_two", "receive receive"),
    "the oldest are dropped": Cast(1, "send send_permitted", "receive receive_once", overflow="drop_oldest"),
    "the newest are dropped": Cast(2, "send send_many", "receive receive_many", overflow="drop_newest"),
    "dropped and left": Cast(1, "send send", "receive_once", "watch", overflow="drop_oldest", drained=False),
    "none are dropped": Cast(1, "send_or_not send_or_not", "receive receive_in_time", overflow="error"),
    "timeouts": Cast(1, "slow_send slow_send", "receive_in_time receive_in_time"),
}

each_cast = pytest.mark.parametrize("name", CASTS)


@each_cast
def test_the_account_comes_out_even_in_every_order_of_the_steps(name):
    explore(CASTS[name], runs=40)


@each_cast
def test_the_account_comes_out_even_whoever_is_cancelled_whenever(name):
    explore_cancellations(CASTS[name], runs=50)


@pytest.mark.parametrize("capacity", [0, 1, None])
def test_the_account_comes_out_even_when_every_other_operation_lets_others_run_first(capacity, monkeypatch):
    for module in ("_sender", "_receiver", "_handle", "_rendezvous", "_unbounded"):
        monkeypatch.setattr(f"yamanote.channels.{module}.BUDGET", 1)
    cast = Cast(capacity, "send send_many", "receive receive_many", in_order=False)
    explore(cast, runs=40)
    explore_cancellations(cast, runs=50)
