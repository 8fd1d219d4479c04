"""Every order of the steps, and every cancellation, of small casts around one watch channel; and its teeth.

The values are numbers that grow with each send. So whatever happens, what a receiver gets must grow, must end with the
last value unless the receiver was given up before, and what it has not got must still count as not seen.
"""

import asyncio
import gc
from dataclasses import dataclass

import pytest

from yamanote.channels import ChannelClosed, HandleClosed, WatchReceiver, watch
from yamanote.channels._watched import Watched
from yamanote.runtime import park
from yamanote.testing import Counterexample, explore, explore_cancellations, replay

CAUSE = LookupError("no more")


@dataclass(frozen=True)
class Cast:
    """A scenario: who takes part in it, by the names of their roles in `World`."""

    senders: str
    receivers: str
    bystanders: str = ""

    async def __call__(self) -> None:
        world = World()
        everybody = [
            *(world.start(role, world.rx.clone()) for role in self.receivers.split()),
            *(world.start(role, world.tx.clone()) for role in self.senders.split()),
            *(world.start(role, None) for role in self.bystanders.split()),
        ]
        world.rx.close()
        await asyncio.sleep(0)
        world.tx.close(CAUSE)
        await asyncio.wait(everybody)
        for task in everybody:
            if not task.cancelled():
                task.result()
        world.check_that_nothing_is_left()


class World:
    """One channel, and what its receivers got."""

    def __init__(self):
        self.tx, self.rx = watch(0)
        self.ends = {}
        self.tasks = {}
        self.got = {}
        """By receiver, the values that it was given."""
        self.sharing = []
        """Those who wait on one receiver, first come first."""

    def start(self, role, end):
        self.ends.setdefault(role, end)
        task = asyncio.create_task(self.play(role, end), name=role)
        self.tasks.setdefault(role, task)
        if end is not None:  # a task that is cancelled before its first step cannot close anything itself
            task.add_done_callback(lambda _: end.close())
        return task

    async def play(self, role, end):
        try:
            await getattr(self, role)(end)
        finally:
            self.look()
            if end is not None:
                end.close()
        assert asyncio.current_task().cancelling() == 0

    # ---------------------------------------------------------------- senders

    async def sends(self, tx):
        for _ in range(2):
            try:
                tx.send(tx.borrow() + 1)
            except ChannelClosed as closed:
                assert closed.refused == (tx.borrow() + 1,)
                assert not tx.receiver_count
            self.look()
            await asyncio.sleep(0)

    async def modifies(self, tx):
        before = tx.borrow()
        tx.send_modify(lambda value: value + 1)
        assert not tx.send_if_modified(lambda value: value)
        assert tx.send_if_modified(lambda value: value + 1)
        assert tx.borrow() == before + 2
        self.look()
        await asyncio.sleep(0)

    async def sends_and_cancels(self, tx):
        tx.send_replace(tx.borrow() + 1)
        for task in self.sharing[:1]:
            task.cancel()
            await asyncio.wait([task])
        self.look()
        await asyncio.sleep(0)

    async def sends_last(self, tx):
        """The value, and the end at once behind it."""
        await asyncio.sleep(0)
        tx.send_replace(tx.borrow() + 1)
        tx.close()

    async def sends_to_who_subscribes(self, tx):
        await asyncio.sleep(0)
        with tx.subscribe() as rx:
            value = tx.borrow() + 1
            tx.send(value)
            assert rx.has_changed()
            assert rx.borrow_and_update() == value

    # ---------------------------------------------------------------- receivers

    def get(self, rx, value):
        got = self.got.setdefault(rx, [0])
        assert value >= got[-1], "an older value after a newer one"
        assert value > got[-1], "a value was given twice"
        got.append(value)

    def left(self, rx):
        """What holds when a receiver is given up: it has missed nothing that it could not still get."""
        if not rx._closed:
            assert rx.has_changed() == (rx.borrow() != self.got.get(rx, [0])[-1]), "a value was marked, and not given"

    def ended(self, rx, closed):
        if isinstance(closed, HandleClosed):
            assert rx._closed
            return
        assert not rx.sender_count
        assert closed.__cause__ in (None, CAUSE)
        assert self.got.get(rx, [0])[-1] == self.tx._core.state.value, "the last value was missed"

    async def receive(self, rx, operation):
        try:
            while True:
                await operation(rx)
        except ChannelClosed as closed:
            self.ended(rx, closed)
        finally:
            self.left(rx)

    async def changes(self, rx):
        async def one(rx):
            await rx.changed()
            self.get(rx, rx.borrow_and_update())

        await self.receive(rx, one)

    async def selects(self, rx):
        async def one(rx):
            self.get(rx, await park(rx))

        await self.receive(rx, one)

    async def hurries(self, rx):
        async def one(rx):
            try:
                async with asyncio.timeout(1):
                    await rx.changed()
                    self.get(rx, rx.borrow_and_update())
            except TimeoutError:
                self.left(rx)

        await self.receive(rx, one)

    async def iterates(self, rx):
        self.got[rx] = [-1]  # it begins with the value that is there
        try:
            async for value in rx:
                self.get(rx, value)
        except ChannelClosed as closed:
            self.ended(rx, closed)

    async def waits_for_two(self, rx):
        try:
            assert await rx.wait_for(lambda value: value >= 2) >= 2
        except ChannelClosed as closed:
            assert rx.borrow() < 2 or isinstance(closed, HandleClosed)

    async def shares(self, rx):
        """Two wait on one receiver: whoever of them is cancelled, the other gets the value."""
        got = []

        async def one():
            got.append(await park(rx))

        self.sharing = tasks = [asyncio.create_task(one()) for _ in range(2)]
        for task in tasks:
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.wait(tasks)
        assert got or rx.borrow() == 0 or rx.has_changed(), "a value is lost"

    # ---------------------------------------------------------------- bystanders

    async def awaits_the_end(self, _):
        await self.tx.closed()
        assert not (self.tx.sender_count and self.tx.receiver_count) or self.tx._closed

    async def closes_a_receiver(self, _):
        """Nothing but that its handle was closed ends the call."""
        await asyncio.sleep(0)
        self.ends["changes"].close()
        await asyncio.wait([self.tasks["changes"]])

    # ---------------------------------------------------------------- what must hold

    def look(self):
        """What holds whenever a call has returned: nobody waits for what is there."""
        core = self.tx._core
        for waiter in core.waiters:
            if waiter.is_waiting():
                assert not waiter.operation._is_due(), "somebody is stuck"

    def check_that_nothing_is_left(self):
        core = self.tx._core
        assert (core.senders, core.receivers, len(core.waiters)) == (0, 0, 0)


CASTS = {
    "changes": Cast("sends sends", "changes changes"),
    "modifications": Cast("modifies modifies", "changes selects"),
    "the last value": Cast("sends_last", "changes iterates waits_for_two"),
    "selects": Cast("sends sends_last", "selects selects"),
    "iterations": Cast("sends modifies", "iterates changes"),
    "values that suit": Cast("sends sends", "waits_for_two waits_for_two changes"),
    "time": Cast("sends sends", "hurries selects"),
    "one receiver for two": Cast("sends_and_cancels sends_last", "shares changes"),
    "a receiver is closed": Cast("sends", "changes selects", "closes_a_receiver awaits_the_end"),
    "receivers come and go": Cast("sends_to_who_subscribes sends", "waits_for_two", "awaits_the_end"),
}

each_cast = pytest.mark.parametrize("name", CASTS)


@each_cast
def test_nobody_misses_the_last_value_in_any_order_of_the_steps(name):
    explore(CASTS[name], runs=40)


@each_cast
def test_nobody_misses_the_last_value_whoever_is_cancelled_whenever(name):
    explore_cancellations(CASTS[name], runs=50)


def test_nobody_misses_the_last_value_when_every_other_call_lets_others_run_first(monkeypatch):
    monkeypatch.setattr("yamanote.channels._watch_receiver.BUDGET", 1)
    for name in ("changes", "iterations"):
        explore(CASTS[name], runs=40)
        explore_cancellations(CASTS[name], runs=50)


# ------------------------------------------------------------------ teeth


def keeps_the_mark_of_a_cancelled_call(receiver, waiter):
    if not waiter.settled:
        receiver._core.forget(waiter)


def takes_the_mark_back_and_wakes_nobody(receiver, waiter):
    if not waiter.settled:
        receiver._core.forget(waiter)
    elif waiter.error is None:
        receiver._seen = waiter.operation[0]


def leaves_a_cancelled_call_in_the_queue(receiver, waiter):
    pass


async def marks_before_it_waits(receiver):
    if receiver._core.state.version == receiver._seen:
        await park(receiver)
    receiver._seen = receiver._core.state.version
    await asyncio.sleep(0)


def wakes_one_only(core, only=None):
    for waiter in core.waiters.copy():
        if waiter.operation._is_due():
            core.forget(waiter)
            waiter.operation._tell(waiter)
            return


def tells_nobody_of_the_end(core, cause=None):
    core.senders -= 1


def tells_the_end_first(receiver, waiter):
    if not receiver._core.senders:
        if waiter.claim():
            waiter.fail(receiver._refusal())
    else:
        tell(receiver, waiter)


def parks_without_looking_again(core, waiter, operation):
    waiter.operation = operation
    core.waiters.append(waiter)


def leaves_its_parked_calls(receiver):
    if not receiver._closed:
        receiver._closed = True
        receiver._core.drop_receiver()


tell = WatchReceiver._tell

TEETH = [
    (WatchReceiver, "_take_back", keeps_the_mark_of_a_cancelled_call, explore_cancellations, "selects"),
    (WatchReceiver, "_take_back", takes_the_mark_back_and_wakes_nobody, explore, "one receiver for two"),
    (WatchReceiver, "_take_back", leaves_a_cancelled_call_in_the_queue, explore_cancellations, "changes"),
    (WatchReceiver, "changed", marks_before_it_waits, explore_cancellations, "changes"),
    (WatchReceiver, "_tell", tells_the_end_first, explore, "selects"),
    (WatchReceiver, "_close", leaves_its_parked_calls, explore, "a receiver is closed"),
    (Watched, "serve", wakes_one_only, explore, "changes"),
    (Watched, "drop_sender", tells_nobody_of_the_end, explore, "changes"),
    (Watched, "park", parks_without_looking_again, explore, "the last value"),
]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # what runs that went wrong have dropped
@pytest.mark.parametrize(
    ("kind", "method", "wrong", "explorer", "name"), TEETH, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_wrong_watch_channel_is_caught_and_can_be_shown_again(kind, method, wrong, explorer, name, monkeypatch):
    monkeypatch.setattr(kind, method, wrong)
    with pytest.raises(Counterexample) as caught:
        explorer(CASTS[name], runs=500)
    with pytest.raises(Counterexample):
        replay(CASTS[name], caught.value.token)
    del caught
    gc.collect()
