"""Every order of the steps, and every cancellation, around each kind of lock; and the mistakes that this must find."""

import asyncio
from dataclasses import dataclass
from itertools import count

import pytest

from yamanote.sync import BoundedSemaphore, KeyedLock, KeyLock, NestableLock, WouldBlock
from yamanote.sync import _nestable as nestable
from yamanote.testing import Counterexample, explore, explore_cancellations, replay


@dataclass(frozen=True)
class House:
    """A scenario: who comes to which rooms, each of which has a lock."""

    kind: str
    roles: str

    async def __call__(self) -> None:
        floor = Floor(self.kind)
        tasks = [asyncio.create_task(floor.perform(role), name=role) for role in self.roles.split()]
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()
        floor.check_that_it_is_as_before()


class Floor:
    """Two rooms, who is inside of each, and in which order parties have asked."""

    def __init__(self, kind):
        if kind == "keyed":
            self.keyed = KeyedLock()
            self.lock = self.keyed
        else:
            self.lock = {"nestable": NestableLock, "bounded": lambda: BoundedSemaphore(1)}[kind]()
        self.keyed = self.lock if kind == "keyed" else None
        self.inside = {"a": [], "b": []}
        self.pending = {"a": [], "b": []}
        self.tickets = count()

    def lock_of(self, room):
        return self.lock if self.keyed is None else self.keyed(room)

    def queue_of(self, room):
        return self.lock._pool.waiters if self.keyed is None else self.keyed._table[room][1]

    async def perform(self, role):
        cancelling = asyncio.current_task().cancelling()
        await getattr(self, role)()
        assert asyncio.current_task().cancelling() == cancelling

    async def enter(self, room, seconds=0, again=False):
        pending, inside = self.pending[room], self.inside[room]
        pending.append(ticket := next(self.tickets))
        try:
            async with self.lock_of(room):
                assert not inside, "two are inside"
                inside.append(ticket)
                pending.remove(ticket)
                waiting = sum(waiter.is_waiting() for waiter in self.queue_of(room))
                assert waiting <= sum(other > ticket for other in pending), "somebody was overtaken"
                try:
                    await asyncio.sleep(seconds)
                    if again:
                        async with self.lock_of(room):
                            await asyncio.sleep(0)
                        assert inside == [ticket], "the outer block has lost it"
                finally:
                    inside.remove(ticket)
        finally:
            if ticket in pending:
                pending.remove(ticket)

    def check_that_it_is_as_before(self):
        assert self.lock.statistics().waiting == 0, "somebody is still in the queue"
        if self.keyed is not None:
            assert self.keyed._table == {}, "an idle key has left something behind"
        else:
            assert self.lock.statistics().free == 1, "it was not given back, or twice"
            with self.lock.or_raise():
                pass

    # ---------------------------------------------------------------- roles

    async def enters(self):
        for _ in range(2):
            await self.enter("a")

    async def elsewhere(self):
        await self.enter("b" if self.keyed is not None else "a")

    async def sleeps(self):
        await self.enter("a", seconds=2)

    async def nests(self):
        await self.enter("a", again=True)

    async def hurries(self):
        try:
            async with asyncio.timeout(1):
                await self.enter("a")
        except TimeoutError:
            if self.inside["a"]:
                assert all(waiter.is_waiting() for waiter in self.queue_of("a")), "it is still in the queue"

    async def tries(self):
        for _ in range(3):
            waiting = self.lock.statistics().waiting if self.keyed is None else 0
            try:
                with self.lock_of("a").or_raise():
                    assert not self.inside["a"] and not waiting, "it was not to be had"
            except WouldBlock:
                pass
            await asyncio.sleep(0)


HOUSES = [
    House("keyed", "enters elsewhere enters tries elsewhere"),
    House("keyed", "sleeps hurries enters elsewhere"),
    House("nestable", "nests enters nests tries"),
    House("nestable", "sleeps hurries nests"),
    House("bounded", "enters enters tries"),
    House("bounded", "sleeps hurries enters"),
]
each_house = pytest.mark.parametrize("house", HOUSES, ids=lambda house: f"{house.kind}: {house.roles}")


@each_house
def test_in_every_order_of_the_steps(house):
    explore(house)


@each_house
def test_with_a_cancellation_anywhere(house):
    explore_cancellations(house)


# ------------------------------------------------------------------ teeth


def keeps_the_lock_that_a_cancelled_party_was_handed(self, waiter, spent):
    if not waiter.settled:
        self._locks._table[self._key][1].remove(waiter)


def leaves_a_cancelled_party_in_the_queue(self, waiter, spent):
    if waiter.settled:
        self._pass_on(spent)


def gives_it_to_the_last_first(self, spent):
    waiters = self._locks._table[self._key][1]
    while waiters:
        if waiters.pop().hand(None):
            return
    del self._locks._table[self._key]


def leaves_an_idle_key_in_the_table(self, spent):
    waiters = self._locks._table[self._key][1]
    while waiters:
        if waiters.popleft().hand(None):
            return


def forgets_who_waits(self, spent):
    del self._locks._table[self._key]


def ends_with_the_first_release(self):
    self._owner = None
    self._pool.give_back(1)


def belongs_to_everybody():
    return "everybody"


def is_nobodys_after_a_hand_over(self):
    self._lock._depth = 1


def gives_back_more_than_it_had(self, count=1):
    self._pool.give_back(count + 1)


@pytest.mark.parametrize(
    ("where", "method", "mistake", "explorer", "house"),
    [
        (KeyLock, "_forget", keeps_the_lock_that_a_cancelled_party_was_handed, explore_cancellations, HOUSES[0]),
        (KeyLock, "_forget", leaves_a_cancelled_party_in_the_queue, explore, HOUSES[1]),
        (KeyLock, "_pass_on", gives_it_to_the_last_first, explore, HOUSES[1]),
        (KeyLock, "_pass_on", leaves_an_idle_key_in_the_table, explore, HOUSES[0]),
        (KeyLock, "_pass_on", forgets_who_waits, explore, HOUSES[0]),
        (NestableLock, "release", ends_with_the_first_release, explore, HOUSES[2]),
        (nestable, "_party", belongs_to_everybody, explore, HOUSES[2]),
        (nestable._Turn, "grant", is_nobodys_after_a_hand_over, explore, HOUSES[2]),
        (BoundedSemaphore, "release", gives_back_more_than_it_had, explore, HOUSES[4]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_mistake_is_found(monkeypatch, where, method, mistake, explorer, house):
    monkeypatch.setattr(where, method, mistake)
    with pytest.raises(Counterexample) as found:
        explorer(house)
    with pytest.raises(Counterexample):
        replay(house, found.value.token)
