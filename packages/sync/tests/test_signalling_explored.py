"""Every order of the steps, and every cancellation, of small crowds around what signals and what is made once.

Whatever happens, nobody who was meant sleeps on, nobody is woken who was not, work that was announced is done, a value
is made once and is the same for all, and in the end nobody is left in a queue.
"""

import asyncio
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from yamanote.sync import AlreadySet, Button, Cargo, FutureState, Latch, Notify, OnceCell, SetOnce, WouldBlock
from yamanote.testing import explore, explore_cancellations

from .test_sync_explored import play


@dataclass(frozen=True)
class Scene:
    """A scenario: a world, and who plays in it."""

    world: Callable[[], "World"]
    roles: str

    async def __call__(self) -> None:
        world = self.world()
        await play(world, self.roles)
        assert world.waiting_in_queue() == 0, "somebody is still in the queue"


class World:
    """Lets everybody come to rest, looks, and ends what still waits."""

    async def oversee(self, tasks):
        await asyncio.sleep(10)
        self.look()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


# ------------------------------------------------------------------ calls to all who wait


class Platform(World):
    """Somebody calls, and all who wait at that moment are meant: and nobody else."""

    def __init__(self):
        self.signal = self.make()
        self.calls = 0
        self.waiting = {}
        """For each party that waits: how many calls there had been when it began."""

    def look(self):
        assert not any(since < self.calls for since in self.waiting.values()), "it was meant, and was not woken"
        assert self.waiting_in_queue() == len(self.waiting), "somebody is in the queue who does not wait"

    def waiting_in_queue(self):
        return self.signal.statistics().waiting

    async def wait_for(self, awaitable, since):
        me = object()
        self.waiting[me] = since
        try:
            self.check(await awaitable, since)
        finally:
            del self.waiting[me]
        assert self.calls > since, "woken without a reason"

    def check(self, value, since):
        assert value is None

    # ---------------------------------------------------------------- roles

    async def waits(self):
        for _ in range(2):
            await self.wait_for(self.begin(), self.calls)

    async def comes_later(self):
        since, notified = self.calls, self.begin()
        await asyncio.sleep(0)
        await self.wait_for(notified, since)

    async def hurries(self):
        try:
            async with asyncio.timeout(1):
                await self.waits()
        except TimeoutError:
            pass

    async def calls_twice(self):
        for _ in range(2):
            self.calls += 1
            self.call()
            await asyncio.sleep(0)


class OfNotify(Platform):
    make = Notify

    def begin(self):
        return self.signal.notified()

    def call(self):
        self.signal.notify_waiters()


class OfButton(Platform):
    make = Button

    def begin(self):
        return self.signal

    def call(self):
        self.signal.press()


class OfCargo(Platform):
    make = Cargo

    def begin(self):
        return self.signal

    def call(self):
        self.signal.press(self.calls)

    def check(self, value, since):
        assert value == since + 1, "not what was handed over at the first press"


class OfLatch(Platform):
    make = Latch

    def begin(self):
        return self.signal.wait()

    def call(self):
        self.signal.toggle(not self.signal.is_set())

    def check(self, value, since):
        assert value is True or value is False


class OfPulses(OfLatch):
    """Each call brings the state that is waited for, and takes it back at once."""

    def begin(self):
        return self.signal.wait_set()

    def call(self):
        assert self.signal.set()
        assert self.signal.unset()


# ------------------------------------------------------------------ one notification, one party


class Works(World):
    """Work is announced by notifications of one party; who is woken does all that there is."""

    def __init__(self):
        self.notify = Notify()
        self.work = 0
        self.tickets = 0
        self.pending = []

    def look(self):
        assert not (self.work and self.pending), "there is work, and somebody waits for it"

    def waiting_in_queue(self):
        return self.notify.statistics().waiting

    async def notified(self):
        self.tickets += 1
        ticket = self.tickets
        self.pending.append(ticket)
        had_permit = "a permit" in repr(self.notify)
        try:
            await self.notify.notified()
        finally:
            self.pending.remove(ticket)
        parked = sum(waiter.is_waiting() for waiter in self.notify._pool.waiters)
        later = sum(other > ticket for other in self.pending)
        assert parked <= later or had_permit, "somebody was overtaken"

    # ---------------------------------------------------------------- roles

    async def works(self):
        for _ in range(3):
            self.work = 0
            await self.notified()

    async def hurries(self):
        try:
            async with asyncio.timeout(1):
                await self.works()
        except TimeoutError:
            pass

    async def announces(self):
        for _ in range(2):
            self.work += 1
            self.notify.notify_one()
            await asyncio.sleep(0)


class WorksLast(Works):
    """The same by notifications of who came last: nobody is in order, but nothing is forgotten."""

    async def notified(self):
        self.pending.append(None)
        try:
            await self.notify.notified()
        finally:
            self.pending.pop()

    async def announces(self):
        for _ in range(2):
            self.work += 1
            self.notify.notify_last()
            await asyncio.sleep(0)


class Permits(World):
    """However often it is notified while nobody waits, one party goes on."""

    def __init__(self):
        self.notify = Notify()
        self.notify.notify_one()
        self.notify.notify_last()
        self.came = 0

    def look(self):
        assert self.came <= 1, "more than one permit was stored"
        assert not self.waiting_in_queue() or "no permit" in repr(self.notify)

    def waiting_in_queue(self):
        return self.notify.statistics().waiting

    async def comes(self):
        await self.notify.notified()
        self.came += 1


# ------------------------------------------------------------------ once


class Making(World):
    """Everybody wants the value of a cell, and makes it if nobody else does."""

    def __init__(self):
        self.cell = OnceCell()
        self.made = []
        self.making = 0
        self.wanting = 0

    def look(self):
        assert not self.wanting, "somebody waits for a value that nobody makes"

    def waiting_in_queue(self):
        assert len(self.made) <= 1, "the value was made twice"
        assert self.making == 0
        return self.cell.statistics().waiting

    async def want(self, factory):
        self.wanting += 1
        try:
            value = await self.cell.get_or_init(factory)
        finally:
            self.wanting -= 1
        assert value is self.made[0] is self.cell.get()

    async def make(self, seconds=0):
        assert not self.cell.is_set(), "made once more"
        assert not self.making, "made by two at once"
        self.making += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self.making -= 1
        self.made.append(value := object())
        return value

    # ---------------------------------------------------------------- roles

    async def wants(self):
        await self.want(self.make)

    async def hurries(self):
        try:
            async with asyncio.timeout(1):
                await self.want(lambda: self.make(2))
        except TimeoutError:
            pass

    async def fails(self):
        async def fail():
            assert not self.making
            await asyncio.sleep(0)
            raise ZeroDivisionError

        try:
            await self.want(fail)
        except ZeroDivisionError:
            pass

    async def sets(self):
        await asyncio.sleep(0)
        value = object()
        try:
            self.cell.set(value)
        except AlreadySet:
            assert self.made
        except WouldBlock:
            assert not self.made
        else:
            self.made.append(value)


class Setting(World):
    """One of several values is set, and all see that one."""

    def __init__(self):
        self.once = SetOnce()
        self.values = []
        self.waiting = 0

    def look(self):
        assert not (self.waiting and self.values), "the value is there, and somebody waits for it"

    def waiting_in_queue(self):
        assert len(self.values) <= 1, "it was set twice"
        return self.once.statistics().waiting

    async def waits(self):
        self.waiting += 1
        try:
            assert await self.once.wait() is self.values[0]
        finally:
            self.waiting -= 1

    async def sets(self):
        await asyncio.sleep(0)
        value = object()
        try:
            self.once.set(value)
        except AlreadySet:
            assert self.values
        else:
            self.values.append(value)


# ------------------------------------------------------------------ absorbed


class Absorbing(World):
    """How another task ends is absorbed; a request to end oneself never is."""

    def look(self):
        """There is nothing to be seen from outside."""

    def waiting_in_queue(self):
        return 0

    async def other(self):
        await asyncio.sleep(1)

    async def absorbs(self):
        other = asyncio.create_task(self.other())
        with self.only_if_asked():
            self.judge(await FutureState.absorb_awaitable(other), other)

    async def absorbs_a_block(self):
        other = asyncio.create_task(self.other())
        with self.only_if_asked():
            with FutureState.absorb_context() as state:
                await other
            self.judge(state, other)

    @contextmanager
    def only_if_asked(self):
        try:
            yield
        except asyncio.CancelledError:
            assert asyncio.current_task().cancelling(), "what became of another was not absorbed"
            raise

    def judge(self, state, other):
        assert other.done()
        assert state.status == ("cancelled" if other.cancelled() else "success")
        assert not asyncio.current_task().cancelling(), "it goes on although it was cancelled"


SCENES = {
    "notify all": Scene(OfNotify, "waits waits calls_twice comes_later hurries"),
    "notify one": Scene(Works, "works works announces works announces"),
    "notify one, and time": Scene(Works, "hurries works announces hurries"),
    "notify last": Scene(WorksLast, "works works announces works announces"),
    "permits": Scene(Permits, "comes comes comes"),
    "button": Scene(OfButton, "waits waits calls_twice hurries"),
    "cargo": Scene(OfCargo, "waits calls_twice waits hurries"),
    "latch": Scene(OfLatch, "waits calls_twice comes_later hurries"),
    "pulses": Scene(OfPulses, "waits waits calls_twice hurries"),
    "once cell": Scene(Making, "wants fails wants wants"),
    "once cell, time": Scene(Making, "hurries wants fails hurries"),
    "once cell, set": Scene(Making, "fails sets wants sets"),
    "set once": Scene(Setting, "waits sets waits sets waits"),
    "absorbed": Scene(Absorbing, "absorbs absorbs_a_block"),
}

each_scene = pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)


@each_scene
def test_in_every_order_of_the_steps(scene):
    explore(scene, runs=40)


@each_scene
def test_whoever_is_cancelled_whenever(scene):
    explore_cancellations(scene, runs=50)
