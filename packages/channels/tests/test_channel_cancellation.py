"""Nothing is lost, and nobody is overtaken, whenever a waiting call is cancelled.

Two hunts: one cancels each task of a small scenario at each loop turn, before and after whatever wakes up in that
turn; the other runs thousands of random worlds, from a seed that the failure names. Both look at the invariants after
each turn.
"""

import asyncio
import random

import pytest

from yamanote.channels import ChannelClosed, ChannelEmpty, ChannelFull, channel, channel_unbounded
from yamanote.runtime import yield_now


def alive(waiter) -> bool:
    """Whether this is a parked party that could be served."""
    return bool(waiter._claim) and hasattr(waiter, "future") and not waiter.future.done()


def check_nobody_waits_in_vain(core) -> None:
    """The invariant of `_handover`: both sides are never there at once."""
    assert not (core.items and any(map(alive, core.receivers))), "items lie there while a receiver waits"
    parked = [waiter for waiter in core.waiters if alive(waiter)]
    if parked and core.capacity is not None:
        assert core.free < parked[0].operation.need, "there is room while a sender waits"


def check_room_adds_up(core, permits: int) -> None:
    """At rest, free tokens and buffered items and permits make up the capacity, less what is owed."""
    if core.capacity is not None:
        owed = sum(type(waiter).__name__ == "_Debt" for waiter in core.waiters)
        assert core.free + len(core.items) + permits == core.capacity + owed


class Ledger:
    """Who sent what, and where it went."""

    def __init__(self) -> None:
        self.accepted = []
        self.perhaps = []  # cancelled while it was sent: it may have been accepted in that very turn
        self.refused = []
        self.received = []
        self.undelivered = []

    async def send(self, tx, item) -> None:
        try:
            await tx.send(item)
        except ChannelClosed as closed:
            assert closed.refused == (item,)
            self.refused.append(item)
        except asyncio.CancelledError:
            self.perhaps.append(item)
            raise
        else:
            self.accepted.append(item)

    def check(self, left) -> None:
        arrived = [*self.received, *self.undelivered, *left]
        assert len(set(arrived)) == len(arrived), "an item arrived twice"
        assert not set(self.accepted) - set(arrived), "an accepted item was lost"
        assert not set(arrived) - set(self.accepted) - set(self.perhaps), "a refused item arrived"


SCENARIOS = {
    "two senders, one receiver": (1, [("s", 3), ("s", 3), ("r", 6)]),
    "one sender, two receivers": (1, [("r", 3), ("r", 3), ("s", 6)]),
    "many parked receivers": (None, [("r", 1), ("r", 1), ("r", 1), ("s", 3)]),
    "permits": (2, [("p", 2), ("s", 2), ("r", 2), ("r", 2)]),
    "batches": (2, [("s", 5), ("b", 5)]),
}


async def run_scenario(name, victim=None, turn=-1, late=False) -> int:
    """Run a scenario, cancel task `victim` in turn `turn`; give the number of turns."""
    capacity, roles = SCENARIOS[name]
    ledger = Ledger()
    hook = {"undelivered": ledger.undelivered.append}
    tx, rx = channel_unbounded(**hook) if capacity is None else channel(capacity, **hook)
    core = tx._core

    async def sender(number, count):
        for index in range(count):
            await ledger.send(tx, (number, index))

    async def reserver(number, count):
        for permit in await tx.reserve_many(count):
            permit.send((number, id(permit)))
            ledger.accepted.append((number, id(permit)))

    async def receiver(number, count):
        for _ in range(count):
            ledger.received.append(await rx.recv())

    async def batcher(number, count):
        while count > 0:
            batch = await rx.recv_many(3)
            ledger.received += batch
            count -= len(batch)

    kinds = {"s": sender, "p": reserver, "r": receiver, "b": batcher}
    tasks = [asyncio.create_task(kinds[kind](number, count)) for number, (kind, count) in enumerate(roles)]
    turns = 0
    quiet = 0
    while not all(task.done() for task in tasks) and quiet < 3:
        if turns == turn:
            # Called now, the cancellation comes before what this turn wakes; through the loop, after it.
            if late:
                asyncio.get_running_loop().call_soon(tasks[victim].cancel)
            else:
                tasks[victim].cancel()
        before = (len(ledger.received), len(core.items), core.parked, core.parked_receivers)
        await yield_now()
        check_nobody_waits_in_vain(core)
        turns += 1
        quiet = (
            quiet + 1 if before == (len(ledger.received), len(core.items), core.parked, core.parked_receivers) else 0
        )
    check_room_adds_up(core, permits=0)
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(outcome is None or isinstance(outcome, asyncio.CancelledError) for outcome in outcomes), outcomes
    check_nobody_waits_in_vain(core)
    assert core.parked == core.parked_receivers == 0, "a waiter was left behind"
    left = list(core.items)
    tx.close()
    rx.close()
    assert ledger.undelivered == left
    ledger.check([])
    return turns


@pytest.mark.parametrize("name", SCENARIOS)
async def test_nothing_is_lost_whichever_call_is_cancelled_whenever(name):
    turns = await run_scenario(name)
    for victim in range(len(SCENARIOS[name][1])):
        for turn in range(turns + 1):
            for late in (False, True):
                await run_scenario(name, victim, turn, late)


async def random_world(seed) -> None:
    chance = random.Random(seed)
    ledger = Ledger()
    capacity = chance.choice([None, 1, 1, 2, 3, 10])
    hook = {"undelivered": ledger.undelivered.append}
    tx, rx = channel_unbounded(**hook) if capacity is None else channel(capacity, **hook)
    core = tx._core
    fresh = iter(range(10**6))

    async def sender():
        with tx.clone() as mine:
            for _ in range(chance.randrange(8)):
                item = next(fresh)
                match chance.randrange(5):
                    case 0:
                        try:
                            mine.send_nowait(item)
                        except (ChannelFull, ChannelClosed) as refusal:
                            assert refusal.refused == (item,)
                        else:
                            ledger.accepted.append(item)
                    case 1:
                        try:
                            with await mine.reserve() as permit:
                                if chance.random() < 0.7:
                                    permit.send(item)
                                    ledger.accepted.append(item)
                        except ChannelClosed:
                            pass
                    case _:
                        await ledger.send(mine, item)
                if chance.random() < 0.3:
                    await yield_now()

    async def receiver():
        with rx.clone() as mine:
            for _ in range(chance.randrange(10)):
                try:
                    match chance.randrange(5):
                        case 0:
                            ledger.received.append(mine.recv_nowait())
                        case 1:
                            ledger.received += await mine.recv_many(chance.randrange(1, 4))
                        case _:
                            ledger.received.append(await mine.recv())
                except ChannelEmpty:
                    await yield_now()
                except ChannelClosed:
                    return

    tasks = [
        asyncio.create_task(sender() if chance.random() < 0.5 else receiver()) for _ in range(chance.randrange(2, 8))
    ]
    await yield_now()
    if chance.random() < 0.5:
        tx.close()
    if chance.random() < 0.3:
        rx.close()
    for _ in range(60):
        if chance.random() < 0.25:
            victim = chance.choice(tasks)
            if chance.random() < 0.5:
                victim.cancel()
            else:
                asyncio.get_running_loop().call_soon(victim.cancel)
        if chance.random() < 0.02:
            rx.shutdown()
        await yield_now()
        check_nobody_waits_in_vain(core)
        if all(task.done() for task in tasks):
            break
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(outcome is None or isinstance(outcome, asyncio.CancelledError) for outcome in outcomes), outcomes
    check_room_adds_up(core, permits=0)
    tx.close()
    rx.close()
    assert core.parked == core.parked_receivers == core.sender_handles == core.receiver_handles == 0
    ledger.check([])


def test_nothing_is_lost_in_thousands_of_random_worlds():
    async def explore(seeds):
        for seed in seeds:
            try:
                await random_world(seed)
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise

    asyncio.run(explore(range(4000)))


async def test_one_receiver_sees_each_sender_in_order_although_it_is_cancelled_again_and_again():
    for seed in range(200):
        chance = random.Random(seed)
        tx, rx = channel(chance.choice([1, 2, 5]))
        received = []

        async def send(name, tx=tx):
            for number in range(10):
                await tx.send((name, number))

        async def receive(rx=rx, received=received):
            while True:
                received.append(await rx.recv())

        senders = [asyncio.create_task(send(name)) for name in range(3)]
        while len(received) < 30:
            receiver = asyncio.create_task(receive())
            for _ in range(chance.randrange(4)):
                await yield_now()
            receiver.cancel()
            await asyncio.wait([receiver])
        for name in range(3):
            assert [number for sender, number in received if sender == name] == list(range(10)), f"seed {seed}"
        await asyncio.gather(*senders)
        tx.close()
        rx.close()


async def test_an_item_handed_to_a_cancelled_receiver_goes_to_the_next_in_the_same_turn():
    tx, rx = channel_unbounded()
    with tx, rx:
        first, second = asyncio.create_task(rx.recv()), asyncio.create_task(rx.recv())
        await yield_now()
        tx.send_nowait("a")
        first.cancel()
        assert await second == "a"
        assert first.cancelled()


async def test_a_receiver_that_was_cancelled_before_gets_nothing():
    """It has not run since, but it waits no longer: the item goes straight to the next."""
    tx, rx = channel_unbounded()
    with tx, rx:
        first, second = asyncio.create_task(rx.recv()), asyncio.create_task(rx.recv())
        await yield_now()
        first.cancel()
        tx.send_nowait("a")
        await yield_now()
        assert second.done()
        assert await second == "a"


async def test_a_buffer_that_was_overfilled_by_a_returned_item_takes_no_more_until_it_has_shrunk():
    tx, rx = channel(1)
    with tx, rx:
        waiting = asyncio.create_task(rx.recv())
        await yield_now()
        tx.send_nowait("a")  # handed over: its room is free again
        tx.send_nowait("b")
        waiting.cancel()
        await asyncio.wait([waiting])
        assert len(rx) == 2
        with pytest.raises(ChannelFull):
            tx.send_nowait("c")
        assert rx.recv_nowait() == "a"
        with pytest.raises(ChannelFull):
            tx.send_nowait("c")
        assert rx.recv_nowait() == "b"
        tx.send_nowait("c")
        with pytest.raises(ChannelFull):
            tx.send_nowait("d")


async def test_an_item_that_comes_back_after_the_end_is_still_received():
    tx, rx = channel(1)
    waiting = asyncio.create_task(rx.recv())
    await yield_now()
    tx.send_nowait("a")
    tx.close()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert [item async for item in rx] == ["a"]
    rx.close()


async def test_who_stands_behind_a_cancelled_reservation_is_served():
    tx, rx = channel(2)
    with tx, rx:
        tx.send_nowait(1)
        big = asyncio.create_task(tx.reserve_many(2))
        await yield_now()
        small = asyncio.create_task(tx.send(2))
        await yield_now()
        big.cancel()
        await asyncio.wait([big])
        await asyncio.wait_for(small, 5)
        assert await rx.recv_many(2) == [1, 2]


async def test_a_timeout_loses_nothing():
    """A busy turn after which the timer and the item are both due."""
    tx, rx = channel_unbounded()
    with tx, rx:
        loop = asyncio.get_running_loop()

        async def receive():
            async with asyncio.timeout(0.001):
                return await rx.recv()

        waiting = asyncio.create_task(receive())
        await yield_now()
        loop.call_later(0.001, tx.send_nowait, "a")
        while loop.time() and not waiting.done():
            await asyncio.sleep(0.002)
        outcome = await asyncio.gather(waiting, return_exceptions=True)
        if isinstance(outcome[0], TimeoutError):
            assert await rx.recv() == "a"
        else:
            assert outcome == ["a"]


async def test_a_coroutine_that_is_thrown_away_gives_back_what_it_was_handed():
    tx, rx = channel_unbounded()
    with tx, rx:
        coroutine = rx.recv()
        coroutine.send(None)
        tx.send_nowait("a")
        coroutine.close()
        assert rx.recv_nowait() == "a"


def test_a_closed_loop_takes_nothing_with_it():
    tx, rx = channel_unbounded()
    loop = asyncio.new_event_loop()

    async def park():
        task = loop.create_task(rx.recv())
        await yield_now()
        return task

    task = loop.run_until_complete(park())
    loop.close()
    tx.send_nowait("a")
    assert rx.recv_nowait() == "a"
    task._log_destroy_pending = False
    tx.close()
    rx.close()
    del task


async def test_coroutines_thrown_away_inside_the_critical_section_of_their_channel_do_not_dead_lock():
    """The garbage collector runs anywhere: also while this very thread is half-way through matching."""
    tx, rx = channel(1)
    other, never = channel(1)

    async def use():
        with tx.clone():
            await never.recv()

    with tx, rx, other, never:
        tx.send_nowait("a")
        sending, using = tx.send("b"), use()
        sending.send(None)
        using.send(None)
        with tx._core.section:
            sending.close()
            using.close()
        assert tx.statistics().waiting_senders == 0
        assert tx.statistics().senders == 1
        assert rx.recv_nowait() == "a"
        receiving = rx.recv()
        receiving.send(None)
        with tx._core.section:
            tx.send_nowait("c")
            receiving.close()
        assert rx.recv_nowait() == "c"
