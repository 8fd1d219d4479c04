"""The ladder has teeth: each of these mistakes in the product is found, and found again from its token.

The scenarios are those of the ordinary tests. A mistake that is no longer caught means that they have become too weak.
"""

from itertools import repeat

import pytest

from yamanote.runtime import park
from yamanote.sync import Event, PermitPool, Semaphore, VersionedCell, _mutex
from yamanote.sync._pool import _CLOSED, discard
from yamanote.testing import Counterexample, explore, explore_cancellations, explore_preemptions, replay

from .test_sync_explored import CELLS, CROWDS, EVENTS, POOLS
from .test_sync_threads import calls_of_an_event, changes_of_a_cell, race

# ------------------------------------------------------------------ mistakes that one thread is enough for


def keeps_what_a_cancelled_party_was_granted(self, waiter):
    if not waiter.settled:
        discard(self.waiters, waiter)
        self.serve_locked()


def wakes_nobody_when_a_party_that_held_up_others_is_cancelled(self, waiter):
    if not waiter.settled:
        discard(self.waiters, waiter)
    elif waiter.error is None:
        self.give_back_locked(waiter.operation.revoke(waiter.value))


def gives_back_without_waking_anybody(self, count):
    self.tokens.extend(repeat(None, count))


def serves_the_last_first(self, waiter, want):
    waiter.operation = want
    self.waiters.appendleft(waiter)
    self.serve()


def lets_a_newcomer_try_first(self, count):
    with self.section:
        return self.take(count)


async def lets_a_newcomer_in_first(self):
    try:
        self._take()
    except IndexError:
        await self.acquire()


def gives_back_one_too_many(self, count):
    self.tokens.extend(repeat(None, count + 1))
    self.serve()


def takes_one_too_few(self, count):
    if len(self.tokens) < count - 1:
        return False
    for _ in range(count - 1):
        self.tokens.pop()
    return True


def forgets_no_more_than_is_free(self, count):
    self.take(min(count, self.free))


def tells_nobody_of_the_close(self):
    self.closed = True
    self.waiters.append(_CLOSED)


def wakes_one_only(self):
    for waiter in self._waiters.copy():
        if waiter.operation(self):
            self._forget(waiter)
            waiter.hand(self.value)
            break


def does_not_look_before_it_waits(self, waiter, predicate):
    waiter.operation = predicate
    with self._section:
        self._waiters.append(waiter)


def leaves_a_cancelled_party_in_the_queue(self, waiter):
    pass


async def looks_again_when_it_was_woken(self):
    while not self.is_set():
        await park(self)
    return True


def leaves_the_guard_alive(guard):
    pass


@pytest.mark.parametrize(
    ("where", "method", "mistake", "explorer", "scenario"),
    [
        (PermitPool, "_delist", keeps_what_a_cancelled_party_was_granted, explore_cancellations, CROWDS["lock"]),
        (PermitPool, "_delist", keeps_what_a_cancelled_party_was_granted, explore_cancellations, POOLS["weights"]),
        (
            PermitPool,
            "_delist",
            wakes_nobody_when_a_party_that_held_up_others_is_cancelled,
            explore,
            POOLS["time"],
        ),
        (PermitPool, "give_back_locked", gives_back_without_waking_anybody, explore_cancellations, CROWDS["lock"]),
        (PermitPool, "enlist", serves_the_last_first, explore, CROWDS["lock"]),
        (PermitPool, "enlist", serves_the_last_first, explore, POOLS["weights"]),
        (PermitPool, "try_take", lets_a_newcomer_try_first, explore, CROWDS["weights"]),
        (Semaphore, "__aenter__", lets_a_newcomer_in_first, explore, CROWDS["weights"]),
        (PermitPool, "give_back", gives_back_one_too_many, explore, CROWDS["weights"]),
        (PermitPool, "take", takes_one_too_few, explore, CROWDS["weights"]),
        (PermitPool, "forget", forgets_no_more_than_is_free, explore, POOLS["debts"]),
        (PermitPool, "close", tells_nobody_of_the_close, explore, CROWDS["close"]),
        (VersionedCell, "_wake_locked", wakes_one_only, explore, EVENTS["set"]),
        (VersionedCell, "_wake_locked", wakes_one_only, explore, CELLS["first that suits"]),
        (VersionedCell, "_register", does_not_look_before_it_waits, explore, CELLS["first that suits"]),
        (VersionedCell, "_withdraw", leaves_a_cancelled_party_in_the_queue, explore_cancellations, EVENTS["pulse"]),
        (Event, "wait", looks_again_when_it_was_woken, explore, EVENTS["pulse"]),
        (_mutex, "_end", leaves_the_guard_alive, explore, CROWDS["mutex"]),
    ],
    ids=lambda value: getattr(value, "__name__", getattr(value, "roles", None)),
)
def test_a_mistake_is_found(monkeypatch, where, method, mistake, explorer, scenario):
    monkeypatch.setattr(where, method, mistake)
    with pytest.raises(Counterexample) as found:
        explorer(scenario)
    with pytest.raises(Counterexample):
        replay(scenario, found.value.token)


# ------------------------------------------------------------------ mistakes between two threads


def parks_without_looking_again(self, waiter, want):
    waiter.operation = want
    self.waiters.append(waiter)


def looks_before_it_gives_back(self, count):
    anybody = bool(self.waiters)
    self.tokens.extend(repeat(None, count))
    if anybody:
        self.serve()


def tries_without_looking_who_came(self, count):
    with self.section:
        return not self.waiters and self.take(count)


def counts_then_takes(self, count):
    if len(self.tokens) < count:
        return False
    for _ in range(count):
        self.tokens.pop()
    return True


def says_what_was_before(self, value):
    changed = self.state[0] is not value
    self.set(value)
    return changed


def changes_outside_of_the_lock(self, value):
    replaced, version = self.state
    self.state = (value, version + 1)
    self._wake_locked()
    return replaced


def looks_outside_of_the_lock(self, waiter, predicate):
    waiter.operation = predicate
    if predicate(self):
        waiter.hand(self.value)
    else:
        self._waiters.append(waiter)


@pytest.mark.parametrize(
    ("where", "method", "mistake", "scenario"),
    [
        (PermitPool, "enlist", parks_without_looking_again, race(0, (), "park", "release")),
        (PermitPool, "give_back", looks_before_it_gives_back, race(0, (), "park", "release")),
        (PermitPool, "try_take", tries_without_looking_who_came, race(2, (), "try_two", "take_and_park")),
        (PermitPool, "take", counts_then_takes, race(2, (), "take", "try_two")),
        (VersionedCell, "change", says_what_was_before, calls_of_an_event(False, "set", "set")),
        (VersionedCell, "set", changes_outside_of_the_lock, changes_of_a_cell("one", "two")),
        (VersionedCell, "_register", looks_outside_of_the_lock, changes_of_a_cell("two", "wait")),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_mistake_between_two_threads_is_found(monkeypatch, where, method, mistake, scenario):
    monkeypatch.setattr(where, method, mistake)
    with pytest.raises(Counterexample) as found:
        explore_preemptions(scenario)
    with pytest.raises(Counterexample):
        explore_preemptions(scenario, token=found.value.token)
