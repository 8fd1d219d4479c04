"""A condition: every order of the steps, every cancellation, and mistakes that are found."""

import asyncio
from asyncio import CancelledError
from dataclasses import dataclass

import pytest

from yamanote.runtime import TaskWaiter, yield_now
from yamanote.sync import Condition, Lock
from yamanote.testing import Counterexample, explore, explore_cancellations, replay

from .test_sync_explored import play
from .test_sync_threads import _threads_switch_as_often_as_possible, at_the_same_time  # noqa: F401 - a fixture

# ------------------------------------------------------------------ every order, every cancellation


@dataclass(frozen=True)
class Kitchen:
    """A scenario: who waits for dishes, and who serves them."""

    roles: str

    async def __call__(self) -> None:
        counter = Counter()
        await play(counter, self.roles)
        counter.check_that_it_is_as_before()


class Counter:
    """Dishes: each that comes is one notification, and a party that is notified takes one."""

    def __init__(self):
        self.condition = Condition()
        self.notified = 0
        self.received = 0
        self.gone = 0
        """How many notifications nobody may have been there for."""
        self.owner = None
        self.waiting = []
        """The tasks that wait."""

    async def oversee(self, tasks):
        await asyncio.sleep(10)  # until everybody has come to rest
        assert self.condition.statistics().waiting == len(self.waiting), "somebody is in the queue who does not wait"
        assert self.notified - self.gone <= self.received <= self.notified, "a notification was lost, or made"
        async with self.condition:
            self.condition.notify_all()
            self.notified += len(self.waiting)
        await asyncio.wait(tasks)

    def check_that_it_is_as_before(self):
        assert not self.condition.locked()
        now = self.condition.statistics()
        assert (now.waiting, now.lock.free, now.lock.waiting) == (0, 1, 0)

    def parked(self):
        return sum(waiter.is_waiting() for waiter in self.condition._waiters)

    def own(self):
        assert self.owner is None, "two have the lock"
        assert self.condition.locked()
        self.owner = asyncio.current_task()

    def disown(self):
        assert self.owner is asyncio.current_task(), "somebody else has had the lock meanwhile"
        self.owner = None

    async def wait(self):
        """Wait once, with the lock. It is held again, however that ends."""
        self.waiting.append(asyncio.current_task())
        self.disown()
        try:
            assert await self.condition.wait() is True
            self.received += 1
        except CancelledError:
            self.gone += not self.parked()  # if it had been notified, there was nobody to pass it on to
            raise
        finally:
            self.waiting.remove(asyncio.current_task())
            self.own()

    # ---------------------------------------------------------------- roles

    async def waits(self):
        async with self.condition:
            self.own()
            try:
                await self.wait()
                await asyncio.sleep(0)
            finally:
                self.disown()

    async def hurries(self):
        try:
            async with asyncio.timeout(1):
                await self.waits()
        except TimeoutError:
            pass

    async def notify(self, n):
        async with self.condition:
            self.own()
            try:
                await asyncio.sleep(0)
                waiting = sum(not task.cancelling() for task in self.waiting)
                assert self.parked() + self.notified - self.received >= waiting, "a party waits, but not in the queue"
                self.notified += min(n, self.parked())
                self.condition.notify(n)
            finally:
                self.disown()

    async def notifies(self):
        for _ in range(2):
            await self.notify(1)

    async def notifies_two(self):
        await self.notify(2)

    async def is_late(self):
        await asyncio.sleep(1)
        await self.notify(1)


KITCHENS = {
    "one by one": Kitchen("waits waits notifies waits"),
    "two at once": Kitchen("waits waits waits notifies_two"),
    "time": Kitchen("hurries waits notifies hurries is_late"),
}

each_scenario = pytest.mark.parametrize("scenario", KITCHENS.values(), ids=KITCHENS)


@each_scenario
def test_in_every_order_of_the_steps(scenario):
    explore(scenario, runs=40)


@each_scenario
def test_whoever_is_cancelled_whenever(scenario):
    explore_cancellations(scenario, runs=80)


# ------------------------------------------------------------------ mistakes


async def keeps_a_notification_when_it_is_cancelled(self):
    waiter = TaskWaiter()
    self._let_go(waiter)
    try:
        await waiter.future
    finally:
        cancelled = None
        while True:
            try:
                await self._lock.acquire()
                break
            except CancelledError as error:
                cancelled = error
        if cancelled:
            raise cancelled
    return True


async def comes_out_without_the_lock(self):
    waiter = TaskWaiter()
    self._let_go(waiter)
    try:
        await waiter.future
        await self._lock.acquire()
    except CancelledError:
        if waiter.settled:
            self._notify(1)
        raise
    return True


async def lets_the_lock_go_before_it_stands_in_the_queue(self):
    self._lock.release()
    await yield_now()
    waiter = TaskWaiter()
    self._waiters.append(waiter)
    await waiter.future
    await self._lock.acquire()
    return True


def counts_the_dead(self, n):
    for _ in range(min(n, len(self._waiters))):
        self._waiters.popleft().hand(None)


@pytest.mark.parametrize(
    ("method", "mistake", "explorer", "scenario"),
    [
        ("wait", keeps_a_notification_when_it_is_cancelled, explore_cancellations, KITCHENS["one by one"]),
        ("wait", comes_out_without_the_lock, explore_cancellations, KITCHENS["one by one"]),
        ("wait", lets_the_lock_go_before_it_stands_in_the_queue, explore, KITCHENS["one by one"]),
        ("_notify", counts_the_dead, explore_cancellations, KITCHENS["one by one"]),
    ],
    ids=lambda value: getattr(value, "__name__", getattr(value, "roles", None)),
)
def test_a_mistake_is_found(monkeypatch, method, mistake, explorer, scenario):
    monkeypatch.setattr(Condition, method, mistake)
    with pytest.raises(Counterexample) as found:
        explorer(scenario)
    with pytest.raises(Counterexample):
        replay(scenario, found.value.token)


# ------------------------------------------------------------------ threads


@pytest.mark.usefixtures("_threads_switch_as_often_as_possible")
def test_tasks_of_several_loops_and_threads_pass_items_through_a_small_buffer():
    lock = Lock()
    filled, emptied = Condition(lock), Condition(lock)
    buffer, received, each = [], [], 120

    def room():
        return len(buffer) < 2

    def has_items():
        return bool(buffer)

    def thread_sends():
        for item in range(each):
            with emptied:
                emptied.blocking_wait_for(room)
                buffer.append(item)
                filled.notify()

    def thread_receives():
        for _ in range(each):
            with filled:
                while not filled.blocking_wait_for(has_items, timeout=0.0001):
                    pass
                received.append(buffer.pop(0))
                emptied.notify()

    async def sends():
        for item in range(each):
            async with emptied:
                await emptied.wait_for(room)
                buffer.append(item)
                filled.notify()

    async def receives():
        async def give_up():
            async with filled:
                await filled.wait()

        for _ in range(each):
            weary = asyncio.create_task(give_up())  # it may be notified, and be cancelled then
            async with filled:
                await filled.wait_for(has_items)
                weary.cancel()
                received.append(buffer.pop(0))
                emptied.notify()
            await asyncio.wait([weary])
            if not weary.cancelled():
                async with filled:
                    filled.notify()  # it has returned, and so it is up to it to go on

    at_the_same_time(thread_sends, thread_receives, lambda: asyncio.run(sends()), lambda: asyncio.run(receives()))
    assert sorted(received) == sorted([*range(each)] * 2)
    assert not buffer
    assert not lock.locked()
    assert filled.statistics().waiting == emptied.statistics().waiting == 0
