"""Every order of the steps, and every cancellation, around one oneshot channel; and wrong ones that are caught."""

import asyncio
import gc

import pytest

from yamanote.channels import ChannelClosed, ChannelEmpty, HandleClosed, oneshot_channel
from yamanote.channels._oneshot import GONE, OPEN, TAKEN, _Crowd, _OneshotEnd
from yamanote.testing import Counterexample, explore, explore_cancellations

WAITING = ("receive", "receive_in_time", "watch")


class World:
    """One channel, and the account of what its tasks did."""

    def __init__(self, hook):
        self.undelivered, self.accepted, self.refused, self.received, self.told = [], [], [], [], []
        self.tx, self.rx = oneshot_channel(undelivered=self.undelivered.append if hook else None)

    async def send(self):
        await asyncio.sleep(0)
        try:
            self.tx.send("value")
            self.accepted.append("value")
        except ChannelClosed as closed:
            self.refused.extend(closed.refused)

    async def receive(self):
        try:
            self.received.append(await self.rx)
        except ChannelClosed as closed:
            self.told.append(type(closed))

    async def receive_in_time(self):
        try:
            async with asyncio.timeout(0):
                await self.receive()
        except TimeoutError:
            await self.receive()

    async def try_to_receive(self):
        for _ in range(2):
            try:
                self.received.append(self.rx.recv_nowait())
            except ChannelEmpty:
                await asyncio.sleep(0)
            except ChannelClosed:
                return

    async def close_sender(self):
        await asyncio.sleep(0)
        self.tx.close()

    async def close_receiver(self):
        await asyncio.sleep(0)
        self.rx.close()

    async def watch(self):
        await self.tx.closed()
        assert self.tx.is_closed

    def judge(self):
        left = []
        try:
            left.append(self.rx.recv_nowait())
        except (ChannelEmpty, HandleClosed, ChannelClosed):
            pass
        arrived = [*self.received, *self.undelivered, *left]
        assert sorted(arrived) == sorted(self.accepted), "a value was lost, or came twice"
        assert len(self.accepted) <= 1, "two values were accepted"
        for entry in self.tx._line:
            if isinstance(entry, _Crowd):
                assert not entry.receivers, "a receiver is stuck"
                assert not entry.watchers, "a watcher is stuck"


def cast(*roles, hook=False):
    async def scenario():
        world = World(hook)
        tasks = [asyncio.create_task(getattr(world, role)(), name=role) for role in roles]
        await asyncio.wait([task for role, task in zip(roles, tasks, strict=True) if role not in WAITING])
        world.tx.close()  # whoever waits still is told the end now
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()
        world.judge()
        world.rx.close()

    return scenario


CASTS = {
    "one of each": cast("send", "receive"),
    "two receive": cast("send", "receive", "receive"),
    "two send": cast("send", "send", "receive", "watch"),
    "timeout": cast("send", "receive_in_time"),
    "nobody waits": cast("send", "try_to_receive", "receive"),
    "the sender leaves": cast("close_sender", "receive", "receive", "watch"),
    "both leave": cast("close_sender", "close_receiver", "receive"),
    "the receiver leaves": cast("send", "close_receiver", "receive", "watch"),
    "the receiver leaves, with a hook": cast("send", "close_receiver", "receive", "watch", hook=True),
}

each_cast = pytest.mark.parametrize("name", CASTS)


@each_cast
def test_nothing_is_lost_and_nobody_is_stuck_in_any_order_of_the_steps(name):
    explore(CASTS[name], runs=60)


@each_cast
def test_nothing_is_lost_and_nobody_is_stuck_whoever_is_cancelled_whenever(name):
    explore_cancellations(CASTS[name], runs=60)


def keeps_what_was_handed_over(crowd, waiter, line):
    if not waiter.settled and waiter in crowd.receivers:
        crowd.receivers.remove(waiter)


def accepts_everything(sender, value):
    if OPEN in sender._line:
        sender._line.remove(OPEN)
    sender._line.append((value,))
    sender._settle()


def forgets_the_watchers(crowd, line):
    watchers, crowd.watchers = crowd.watchers, type(crowd.watchers)()
    serve(crowd, line)
    crowd.watchers = watchers


def tells_nobody(end, fate):
    if OPEN in end._line:
        end._line.remove(OPEN)
        end._line.append(fate)


def drops_the_value_at_the_close(receiver):
    receiver._line[:] = [entry for entry in receiver._line if type(entry) is not tuple and entry is not OPEN]
    receiver._line.extend([GONE, TAKEN])
    receiver._settle()


serve = _Crowd.serve

TEETH = [
    (_Crowd, "give_up", keeps_what_was_handed_over, explore_cancellations, "two receive"),
    ("sender", "send", accepts_everything, explore, "two send"),
    (_Crowd, "serve", forgets_the_watchers, explore, "the receiver leaves"),
    (_OneshotEnd, "_decide", tells_nobody, explore, "the sender leaves"),
    ("receiver", "_drop", drops_the_value_at_the_close, explore, "the receiver leaves"),
]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(("kind", "method", "wrong", "explorer", "name"), TEETH)
def test_a_wrong_channel_is_caught(kind, method, wrong, explorer, name, monkeypatch):
    tx, rx = oneshot_channel()
    tx.close()
    kind = {"sender": type(tx), "receiver": type(rx)}.get(kind, kind)
    monkeypatch.setattr(kind, method, wrong)
    with pytest.raises(Counterexample):
        explorer(CASTS[name], runs=300)
    gc.collect()
