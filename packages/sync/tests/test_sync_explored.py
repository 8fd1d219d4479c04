"""Every order of the steps, and every cancellation, of small crowds around each primitive and each engine.

A crowd is a scenario for both explorers: its roles run as tasks, any of which may be cancelled anywhere. Whatever
happens, nobody gets in who does not fit, nobody is overtaken, nobody waits for what is there, and in the end all is
given back.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import pytest

from yamanote.runtime import park
from yamanote.sync import Event, Lock, Mutex, PermitPool, Semaphore, SemaphoreClosed, VersionedCell
from yamanote.testing import explore, explore_cancellations


async def play(world, roles):
    """Run the roles as tasks, in this order, until all have ended; raise what went wrong in any of them."""

    async def perform(role):
        cancelling = asyncio.current_task().cancelling()
        await getattr(world, role)()
        assert asyncio.current_task().cancelling() == cancelling

    tasks = [asyncio.create_task(perform(role), name=role) for role in roles.split()]
    await world.oversee(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


# ------------------------------------------------------------------ locks and semaphores


@dataclass(frozen=True)
class Crowd:
    """A scenario: who wants permits of a semaphore, or a lock, or the contents of a mutex."""

    make: Callable[[], Lock | Semaphore | Mutex]
    roles: str
    weary: bool = False
    """Whether the budget of ready operations is used up when it begins."""

    async def __call__(self) -> None:
        room = Room(self.make())
        while self.weary and room.permits._left:
            async with room.permits:
                pass
        room.in_order = (
            not self.weary
        )  # who finds a free permit, but no budget, is not in the queue until it has yielded
        await play(room, self.roles)
        room.check_that_it_is_as_before()


class Room:
    """What permits let into, and who is inside."""

    def __init__(self, primitive):
        self.primitive = primitive
        self.permits = primitive._lock if isinstance(primitive, Mutex) else primitive
        self.total = self.permits.statistics().free
        self.inside = 0
        self.tickets = count()
        self.pending = []
        """The tickets of those who have asked, but are not inside yet: in the order in which they asked."""
        self.in_order = True
        self.closed = False

    async def oversee(self, tasks):
        await asyncio.wait(tasks)

    def ask(self):
        self.pending.append(ticket := next(self.tickets))
        return ticket

    def enter(self, ticket, need):
        self.pending.remove(ticket)
        self.inside += need
        assert self.inside <= self.total, "more are inside than there are permits"
        parked = sum(waiter.is_waiting() for waiter in self.permits._pool.waiters)
        later = sum(other > ticket for other in self.pending)
        assert parked <= later or not self.in_order, "somebody was overtaken"

    async def stay(self, need, seconds=0):
        try:
            await asyncio.sleep(seconds)
        finally:
            self.inside -= need

    def check_that_it_is_as_before(self):
        assert self.inside == 0
        assert self.permits.statistics().free == self.total, "permits were lost or made"
        assert self.permits.statistics().waiting == 0, "somebody is still in the queue"
        assert self.permits.try_acquire() is not self.closed

    async def use(self, manager, need=1, seconds=0):
        """Enter through a context manager, stay, and leave."""
        ticket = self.ask()
        try:
            async with manager:
                self.enter(ticket, need)
                await self.stay(need, seconds)
        except SemaphoreClosed:
            assert self.closed
        finally:
            if ticket in self.pending:
                self.pending.remove(ticket)

    # ---------------------------------------------------------------- roles

    async def enters(self):
        for _ in range(2):
            await self.use(self.primitive)

    async def sleeps(self):
        await self.use(self.primitive, seconds=2)

    async def acquires(self):
        ticket = self.ask()
        try:
            await self.primitive.acquire()
        except SemaphoreClosed:
            assert self.closed
            return
        finally:
            self.pending.remove(ticket)
        self.pending.append(ticket)
        try:
            self.enter(ticket, 1)
            await self.stay(1)
        finally:
            self.primitive.release()

    async def two(self):
        await self.use(self.primitive.acquire_many(2), need=2)

    async def three(self):
        await self.use(self.primitive.acquire_many(3), need=3)

    async def hurries(self):
        try:
            async with asyncio.timeout(1):
                await self.use(self.primitive)
        except TimeoutError:
            pass

    async def tries(self):
        for _ in range(3):
            nobody_waits = not self.permits.statistics().waiting
            if self.primitive.try_acquire():
                assert nobody_waits, "a newcomer was faster than who waits"
                self.enter(self.ask(), 1)
                try:
                    await self.stay(1)
                finally:
                    self.primitive.release()
            await asyncio.sleep(0)

    async def closes(self):
        await asyncio.sleep(0)
        self.closed = True
        self.primitive.close()
        assert not self.permits.statistics().waiting, "somebody was not told of the close"

    async def guards(self):
        ticket = self.ask()
        try:
            async with self.primitive.lock() as guard:
                self.enter(ticket, 1)
                before = guard.value
                try:
                    await self.stay(1)
                finally:
                    assert guard.value == before
                    guard.value = before + 1
        finally:
            if ticket in self.pending:
                self.pending.remove(ticket)
        with pytest.raises(RuntimeError, match="end of its block"):
            guard.value  # noqa: B018 - the look is the point


CROWDS = {
    "lock": Crowd(Lock, "enters acquires enters"),
    "lock and newcomers": Crowd(Lock, "acquires tries enters tries"),
    "lock and time": Crowd(Lock, "sleeps hurries enters"),
    "lock, weary": Crowd(Lock, "enters acquires tries", weary=True),
    "mutex": Crowd(lambda: Mutex(0), "guards guards guards"),
    "semaphore": Crowd(lambda: Semaphore(2), "enters acquires enters tries"),
    "weights": Crowd(lambda: Semaphore(3), "two three enters tries"),
    "weights, weary": Crowd(lambda: Semaphore(3), "two acquires three", weary=True),
    "weights and time": Crowd(lambda: Semaphore(3), "sleeps three hurries two"),
    "close": Crowd(lambda: Semaphore(2), "two enters closes tries acquires"),
}


# ------------------------------------------------------------------ permit pool


@dataclass(frozen=True)
class Pool:
    """A scenario: who takes permits out of a pool, and what the pool says to them."""

    permits: int
    roles: str

    async def __call__(self) -> None:
        ledger = Ledger(self.permits)
        await play(ledger, self.roles)
        ledger.check_account()


class Ledger:
    """A pool, and all that it granted, took back and refused."""

    def __init__(self, permits):
        self.pool = PermitPool(permits)
        self.asked = count()
        self.granted = []
        self.received = []
        self.revoked = []
        self.refused = []
        self.forgotten = 0

    async def oversee(self, tasks):
        await asyncio.wait(tasks)

    def look(self):
        """Whoever is first does not wait for what is there."""
        first = next(iter(self.pool.waiters), None)
        if first is not None and first.is_waiting() and isinstance(first.operation, _Want):
            assert first.operation.need > self.pool.free, "a party waits for what is there"

    def check_account(self):
        assert self.granted == sorted(self.granted), "somebody was overtaken"
        assert sorted(self.received + self.revoked) == self.granted, "what was granted is received or revoked, once"
        assert self.pool.free == self.pool.total - self.forgotten, "permits were lost or made"
        assert self.pool.parked == 0
        assert not self.refused or self.pool.closed

    async def take(self, need, seconds=0):
        want = _Want(self, need)
        pool = self.pool
        if need == 1 and pool.tokens and not pool.waiters:
            pool.tokens.pop()
            self.received.append(want.grant())
        else:
            try:
                self.received.append(await park(want))
            except ConnectionError:
                return
            finally:
                self.look()
        try:
            await asyncio.sleep(seconds)
        finally:
            pool.give_back(need)
            self.look()

    # ---------------------------------------------------------------- roles

    async def one(self):
        await self.take(1)

    async def two(self):
        await self.take(2)

    async def three(self):
        await self.take(3)

    async def sleeps(self):
        await self.take(1, seconds=2)

    async def hurries(self):
        try:
            async with asyncio.timeout(1):
                await self.take(2)
        except TimeoutError:
            pass

    async def forgets(self):
        self.forgotten += 1
        self.pool.section.do(lambda: self.pool.forget(1))

    async def closes(self):
        await asyncio.sleep(0)
        self.pool.section.do(self.pool.close)


class _Want:
    """One want of one party: it keeps the books."""

    def __init__(self, ledger, need):
        self.ledger = ledger
        self.need = need
        self.ticket = next(ledger.asked)

    def register(self, waiter):
        self.ledger.pool.enlist(waiter, self)

    def withdraw(self, waiter):
        self.ledger.pool.delist(waiter)

    def grant(self):
        assert not self.ledger.pool.closed, "a permit was granted after the end"
        self.ledger.granted.append(self.ticket)
        return self.ticket

    def revoke(self, granted):
        assert granted == self.ticket, "something else came back than was granted"
        self.ledger.revoked.append(granted)
        return self.need

    def refuse(self):
        self.ledger.refused.append(self.ticket)
        return ConnectionError()


POOLS = {
    "ones": Pool(1, "one one one one"),
    "weights": Pool(3, "two three one two"),
    "time": Pool(2, "sleeps hurries one two"),
    "debts": Pool(4, "two forgets one two forgets one"),
    "close": Pool(3, "two three closes one two"),
}


# ------------------------------------------------------------------ event


@dataclass(frozen=True)
class Signals:
    """A scenario: who waits for an event, and who sets and clears it."""

    roles: str

    async def __call__(self) -> None:
        await play(Platform(), self.roles)


class Platform:
    """An event, and who waited when it was set."""

    def __init__(self):
        self.event = Event()
        self.waiting = set()
        self.due = set()

    async def oversee(self, tasks):
        await asyncio.sleep(10)  # until everybody has come to rest
        assert not self.due & self.waiting, "the event was set, and who waited was not woken"
        assert self.event._cell.parked == len(self.waiting), "somebody is in the queue who does not wait"
        self.event.set()
        await asyncio.wait(tasks)

    async def waits(self):
        self.waiting.add(me := object())
        if self.event.is_set():
            self.due.add(me)
        try:
            assert await self.event.wait() is True
            assert me in self.due or self.event.is_set(), "woken without a reason"
        finally:
            self.waiting.discard(me)

    async def hurries(self):
        try:
            async with asyncio.timeout(1):
                await self.waits()
        except TimeoutError:
            pass

    async def sets(self):
        for _ in range(2):
            self.due |= self.waiting
            was_set = self.event.is_set()
            assert self.event.set() is not was_set
            await asyncio.sleep(0)

    async def pulses(self):
        self.due |= self.waiting
        self.event.set()
        assert self.event.clear()

    async def clears(self):
        await asyncio.sleep(0)
        was_set = self.event.is_set()
        assert self.event.clear() is was_set


EVENTS = {
    "set": Signals("waits waits sets waits hurries"),
    "pulse": Signals("waits hurries pulses waits"),
    "set and cleared": Signals("waits clears sets waits clears"),
}


# ------------------------------------------------------------------ versioned cell


@dataclass(frozen=True)
class Changes:
    """A scenario: who waits for what to become true of a cell, and who changes it."""

    roles: str

    async def __call__(self) -> None:
        board = Board()
        await play(board, self.roles)
        assert board.cell.version == len(board.values) - 1
        assert board.cell.value == board.values[-1]
        assert board.cell.parked == 0, "somebody is still in the queue"


class Board:
    """A cell, and every value that it has had."""

    def __init__(self):
        self.cell = VersionedCell(0)
        self.values = [0]
        self.waits = {}
        """For each party that waits: since which version, and for what."""

    async def oversee(self, tasks):
        await asyncio.sleep(10)  # until everybody has come to rest
        for since, suits in self.waits.values():
            assert not any(map(suits, self.values[since:])), "the value was there, and who waited was not woken"
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    def change(self, value):
        assert self.cell.set(value) == self.values[-1]
        self.values.append(value)

    async def see(self, suits):
        me = object()
        self.waits[me] = since, _ = len(self.values) - 1, suits
        try:
            seen = await park(self.cell.when(lambda cell: suits(cell.value)))
        finally:
            del self.waits[me]
        assert seen == next(filter(suits, self.values[since:])), "not the first value that suited"

    # ---------------------------------------------------------------- roles

    async def even(self):
        await self.see(lambda value: value > 0 and value % 2 == 0)

    async def big(self):
        await self.see(lambda value: value > 3)

    async def never(self):
        await self.see(lambda value: value < 0)

    async def any(self):
        await self.see(lambda value: True)

    async def counts(self):
        for _ in range(2):
            self.change(self.values[-1] + 1)
            self.change(self.values[-1] + 1)
            await asyncio.sleep(0)


CELLS = {
    "first that suits": Changes("even big counts even any big"),
    "some stay": Changes("never even counts never"),
}

SCENARIOS = {
    f"{kind}: {name}": scenario
    for kind, scenarios in {"permits": CROWDS, "pool": POOLS, "event": EVENTS, "cell": CELLS}.items()
    for name, scenario in scenarios.items()
}

each_scenario = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)


@each_scenario
def test_in_every_order_of_the_steps(scenario):
    explore(scenario, runs=40)


@each_scenario
def test_whoever_is_cancelled_whenever(scenario):
    explore_cancellations(scenario, runs=50)
