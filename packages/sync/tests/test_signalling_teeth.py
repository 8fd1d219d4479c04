"""The ladder has teeth: each of these mistakes in what signals is found, and found again from its token."""

import asyncio
from functools import partial

import pytest

from yamanote.runtime import park
from yamanote.sync import Latch, Notified, Notify, OnceCell, SetOnce, VersionedCell, _future_state
from yamanote.sync._button import _Presses
from yamanote.testing import Counterexample, explore, explore_cancellations, explore_preemptions, replay

from .test_signalling_explored import SCENES
from .test_signalling_threads import of_notify, of_once_cell, of_presses

# ------------------------------------------------------------------ mistakes that one thread is enough for


def keeps_what_a_cancelled_party_was_handed(self, granted):
    return 0


def wakes_the_last_first(self):
    waiters = self._pool.waiters
    while waiters:
        if waiters.pop().hand(None):
            return
    self._store()


def stores_a_permit_for_each(self):
    self._pool.tokens.append(None)


def stores_nothing(self):
    pass


def stores_a_permit_for_all(self):
    self._calls += 1
    for waiter in self._pool.waiters.copy():
        waiter.operation._tell(waiter)
    self._store()


def counts_only_who_is_parked(self):
    for waiter in self._pool.waiters.copy():
        waiter.operation._tell(waiter)


def leaves_a_cancelled_party_in_the_queue(self, waiter):
    pass


def waits_for_any_change(self, waiter):
    self._cell.when(lambda cell: cell.version > 0).register(waiter)


def waits_for_a_change_since_the_last_but_one(self):
    return self._cell.when_changed(self._cell.version - 1)


async def makes_it_without_a_turn(self, factory):
    if not self._value:
        self._put(await factory())
    return self._value[0]


def keeps_its_turn_when_it_fails(self, factory):
    return _keeps_its_turn(self, factory)


async def _keeps_its_turn(self, factory):
    if not self._value:
        try:
            await self._turn.acquire()
        except Exception:
            return self._value[0]
        self._put(await factory())
    return self._value[0]


def tells_nobody_that_it_is_made(self, value):
    self._value.append(value)
    self._turn.release()


def takes_every_value(self, value):
    self._cell.set(value)


async def looks_at_the_value_of_its_first_step(self):
    before = self._cell.version
    await park(self)
    return self._cell.value if before else None


def takes_a_cancellation_for_somebody_elses(self, error):
    return False


def takes_every_cancellation_for_its_own(self, error):
    return isinstance(error, asyncio.CancelledError)


@pytest.mark.parametrize(
    ("where", "method", "mistake", "explorer", "scene"),
    [
        (Notified, "revoke", keeps_what_a_cancelled_party_was_handed, explore_cancellations, "notify one"),
        (Notified, "withdraw", leaves_a_cancelled_party_in_the_queue, explore_cancellations, "notify all"),
        (Notify, "_notify_one", wakes_the_last_first, explore, "notify one"),
        (Notify, "_store", stores_a_permit_for_each, explore, "permits"),
        (Notify, "_store", stores_nothing, explore, "notify last"),
        (Notify, "_notify_waiters", stores_a_permit_for_all, explore, "notify all"),
        (Notify, "_notify_waiters", counts_only_who_is_parked, explore, "notify all"),
        (_Presses, "register", waits_for_any_change, explore, "button"),
        (_Presses, "register", waits_for_any_change, explore, "cargo"),
        (_Presses, "withdraw", leaves_a_cancelled_party_in_the_queue, explore_cancellations, "button"),
        (Latch, "wait", waits_for_a_change_since_the_last_but_one, explore, "latch"),
        (OnceCell, "get_or_init", makes_it_without_a_turn, explore, "once cell, time"),
        (OnceCell, "get_or_init", keeps_its_turn_when_it_fails, explore, "once cell"),
        (OnceCell, "_put", tells_nobody_that_it_is_made, explore, "once cell"),
        (SetOnce, "set", takes_every_value, explore, "set once"),
        (SetOnce, "wait", looks_at_the_value_of_its_first_step, explore, "set once"),
        (
            _future_state._Caller,
            "is_meant_by",
            takes_a_cancellation_for_somebody_elses,
            explore_cancellations,
            "absorbed",
        ),
        (
            _future_state._Caller,
            "is_meant_by",
            takes_every_cancellation_for_its_own,
            explore_cancellations,
            "absorbed",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_mistake_is_found(monkeypatch, where, method, mistake, explorer, scene):
    monkeypatch.setattr(where, method, mistake)
    with pytest.raises(Counterexample) as found:
        explorer(SCENES[scene])
    with pytest.raises(Counterexample):
        replay(SCENES[scene], found.value.token)


# ------------------------------------------------------------------ mistakes between two threads


def stores_without_looking_again(self):
    if not self._pool.tokens:
        self._pool.tokens.append(None)


def looks_before_it_parks(self, waiter):
    notify = self._notify
    if self._calls != notify._calls:
        notify._pool.section.do(partial(self._tell, waiter))
    else:
        notify._pool.enlist(waiter, self)


def notifies_outside_of_the_lock(self):
    self._notify_one()


def looks_then_sets(self, value):
    if self._value:
        raise ValueError("set already")
    self._value.append(value)


def changes_value_and_version_one_after_the_other(self, value, replaced):
    before, version = self.state
    replaced.append(before)
    self.state = (value, version)
    self.state = (value, version + 1)
    self._wake_locked()


def changes_also_what_is_so_already(self, value):
    return self.state[0] is not value and self.set(value) is not value


@pytest.mark.parametrize(
    ("where", "method", "mistake", "scenario"),
    [
        (Notify, "_store", stores_without_looking_again, of_notify((), "park", "notify_one")),
        (Notified, "register", looks_before_it_parks, of_notify((), "park", "notify_waiters")),
        (Notify, "notify_one", notifies_outside_of_the_lock, of_notify(("park",), "notify_one", "cancel")),
        (OnceCell, "set", looks_then_sets, of_once_cell("set", "set")),
        (VersionedCell, "change", changes_also_what_is_so_already, of_presses("press", "press_and_park")),
        (VersionedCell, "_change", changes_value_and_version_one_after_the_other, of_presses("press", "look_and_park")),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_mistake_between_two_threads_is_found(monkeypatch, where, method, mistake, scenario):
    monkeypatch.setattr(where, method, mistake)
    with pytest.raises(Counterexample) as found:
        explore_preemptions(scenario)
    with pytest.raises(Counterexample):
        explore_preemptions(scenario, token=found.value.token)
