"""One watch channel, used at once by tasks of several loops and by plain threads."""

import asyncio
import gc
import sys
import threading
from itertools import combinations_with_replacement

import pytest

from yamanote.channels import ChannelClosed, HandleClosed, WatchReceiver, WatchSender, watch
from yamanote.channels._watched import State, Watched
from yamanote.runtime import Waiter
from yamanote.testing import Counterexample, explore_preemptions

# ------------------------------------------------------------------ one preemption


class Bench:
    """A channel with one sender and one receiver, which are used by two threads at once."""

    def __init__(self, parked):
        self.tx, self.rx = watch(0)
        self.core = self.tx._core
        self.own = self.tx.clone(), self.rx.clone()
        self.accepted = 0
        self.refused = 0
        self.got = [0]
        self.ended = False
        self.waiter = None
        if parked:
            self.park()

    def park(self):
        """Come to wait, without sleeping: `Waiter` itself is a party that nobody has to wake."""
        self.waiter = Waiter([None])
        self.rx.register(self.waiter)

    def cancel(self):
        self.waiter.claim()
        self.rx.withdraw(self.waiter)
        self.waiter = None

    def attempt(self, call, *args):
        try:
            call(*args)
        except ChannelClosed:
            self.refused += 1
        else:
            self.accepted += 1

    def send(self):
        self.attempt(self.tx.send_modify, lambda value: value + 1)

    def add_one_more(self):
        self.attempt(self.tx.send_if_modified, lambda value: value + 1)

    def look(self):
        try:
            self.got.append(self.rx.borrow_and_update())
        except HandleClosed:
            pass

    def clone_sender(self):
        try:
            clone = self.tx.clone()
        except HandleClosed:
            assert self.tx._closed
        else:
            ended = self.ended
            clone.close()
            assert not ended, "a sender was made for a channel that had ended"

    def clone_receiver(self):
        try:
            self.rx.clone().close()
        except HandleClosed:
            assert self.rx._closed

    def close_sender(self):
        self.tx.close()

    def close_all_senders(self):
        self.own[0].close()
        self.tx.close()
        self.ended = not self.core.senders

    def close_receiver(self):
        self.rx.close()

    def check(self):
        try:
            self.compare()
        finally:
            for end in (self.tx, self.rx, *self.own):
                end.close()

    def compare(self):
        core, waiter = self.core, self.waiter
        assert core.state == (self.accepted, self.accepted), "a change was lost"
        assert core.senders == (not self.tx._closed) + (not self.own[0]._closed)
        assert core.receivers == (not self.rx._closed) + (not self.own[1]._closed)
        if waiter is None:
            assert not core.waiters, "somebody is in the queue who does not wait"
        elif not waiter.settled:
            assert list(core.waiters) == [waiter], "a party was forgotten, or is there twice"
            assert not self.rx._is_due(), "a party was not woken"
        elif waiter.error is None:
            self.got.append(waiter.value)
        else:
            assert self.rx._closed or not core.senders, "a party was told of an end that was not there"
            assert self.rx._closed or not self.rx.has_changed(), "a party was told of the end before the last value"
        if not self.rx._closed:
            seen = self.accepted if not self.rx.has_changed() else self.rx._seen
            assert max(self.got) == seen, "a value was marked and not given, or given and not marked"


PAIRS = {
    False: ["park", "send", "look", "clone_sender", "clone_receiver", "close_all_senders", "close_receiver"],
    True: ["cancel", "send", "add_one_more", "close_sender", "close_all_senders", "close_receiver"],
}
ALL = [
    (parked, *pair)
    for parked, operations in PAIRS.items()
    for pair in combinations_with_replacement(operations, 2)
    if pair not in {("park", "park"), ("cancel", "cancel"), ("park", "look")}
]
QUICK = [
    (False, "park", "send"),
    (False, "park", "close_all_senders"),
    (False, "send", "look"),
    (False, "clone_sender", "close_all_senders"),
]


def at_once(parked, *operations):
    def scenario():
        bench = Bench(parked)
        return *(getattr(bench, operation) for operation in operations), bench.check

    return scenario


def pytest_generate_tests(metafunc):
    """All pairs take a while: they are for who explores."""
    if "each_pair" in metafunc.fixturenames:
        asked = metafunc.config.getoption("explore_runs", None) is not None
        metafunc.parametrize("each_pair", ALL if asked else QUICK, ids=lambda pair: ", ".join(map(str, pair)))


def test_two_calls_at_once_lose_nothing_wherever_one_of_them_is_preempted(each_pair):
    explore_preemptions(at_once(*each_pair), within="yamanote.channels")


def parks_without_looking_again(core, waiter, operation):
    waiter.operation = operation
    core.waiters.append(waiter)


def looks_before_it_parks(core, waiter, operation):
    waiter.operation = operation
    if operation._is_due():
        core.section.do(lambda: operation._tell(waiter))
    else:
        core.waiters.append(waiter)


def stores_outside_of_the_lock(sender, value, *, heard=False, version=None):
    core = sender._core
    replaced = core.state
    core.state = State(value, replaced.version + 1)
    core.section.do(core.serve)
    return [replaced]


def looks_at_value_and_version_apart(receiver):
    receiver._require_open()
    value = receiver._core.state.value
    receiver._seen = receiver._core.state.version
    return value


def counts_a_sender_on_a_channel_that_has_ended(core):
    core.senders += 1


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    ("kind", "method", "wrong", "pair"),
    [
        (Watched, "park", parks_without_looking_again, (False, "park", "send")),
        (Watched, "park", looks_before_it_parks, (False, "park", "send")),
        (WatchSender, "_store", stores_outside_of_the_lock, (False, "send", "send")),
        (WatchReceiver, "borrow_and_update", looks_at_value_and_version_apart, (False, "look", "send")),
        (
            Watched,
            "add_sender",
            counts_a_sender_on_a_channel_that_has_ended,
            (False, "clone_sender", "close_all_senders"),
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_watch_channel_that_is_wrong_among_threads_is_caught(kind, method, wrong, pair, monkeypatch):
    monkeypatch.setattr(kind, method, wrong)
    with pytest.raises(Counterexample) as caught:
        explore_preemptions(at_once(*pair))
    with pytest.raises(Counterexample):
        explore_preemptions(at_once(*pair), token=caught.value.token)
    del caught
    gc.collect()


# ------------------------------------------------------------------ many at once


@pytest.fixture
def _switch_threads_as_often_as_possible():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def work_at_once(works):
    """Start each work in a thread of its own, all together; raise their errors."""
    start = threading.Barrier(len(works))
    errors = []

    def body(work):
        try:
            start.wait()
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise ExceptionGroup("at work", errors)


@pytest.mark.usefixtures("_switch_threads_as_often_as_possible")
def test_no_change_is_lost_and_each_receiver_sees_them_grow_up_to_the_last():
    tx, rx = watch(0)
    seen = []
    senders, changes = 3, 60

    def sends(mine):
        with mine:
            for number in range(changes):
                if number % 2:
                    mine.send_modify(lambda value: value + 1)
                else:
                    assert mine.send_if_modified(lambda value: value + 1)

    def changed(mine, got):
        with mine:
            try:
                while True:
                    mine.blocking_changed()
                    got.append(mine.borrow_and_update())
            except ChannelClosed:
                pass

    def iterates(mine, got):
        with mine:
            got.extend(value for value in mine if value)

    async def changed_in_task(mine, got):
        with mine:
            try:
                while True:
                    await mine.changed()
                    got.append(mine.borrow_and_update())
            except ChannelClosed:
                pass

    async def cancelled_again_and_again(mine, got):
        with mine:
            try:
                while True:
                    task = asyncio.create_task(mine.changed())
                    await asyncio.sleep(0)
                    task.cancel()
                    try:
                        await task
                    except asyncio.CancelledError:
                        continue
                    got.append(mine.borrow_and_update())
            except ChannelClosed:
                pass

    async def waits_for_the_last(mine, got):
        with mine:
            got.append(await mine.wait_for(lambda value: value == senders * changes))

    def in_a_loop(coroutine_function, count):
        mines = [(rx.clone(), results()) for _ in range(count)]

        async def main():
            await asyncio.gather(*(coroutine_function(*mine) for mine in mines))

        return lambda: asyncio.run(main())

    def results():
        seen.append([])
        return seen[-1]

    def in_a_thread(function):
        mine = rx.clone(), results()
        return lambda: function(*mine)

    def sending():
        mine = tx.clone()
        return lambda: sends(mine)

    works = [sending() for _ in range(senders)]
    works += [in_a_thread(changed), in_a_thread(iterates)]
    works += [in_a_loop(changed_in_task, 3), in_a_loop(cancelled_again_and_again, 2), in_a_loop(waits_for_the_last, 2)]
    tx.close()
    rx.close()
    work_at_once(works)
    for got in seen:
        assert got == sorted(set(got)), "an older value after a newer one, or one twice"
        assert got[-1] == senders * changes, "the last value was missed"
    core = tx._core
    assert (core.senders, core.receivers, len(core.waiters)) == (0, 0, 0)


@pytest.mark.usefixtures("_switch_threads_as_often_as_possible")
def test_whoever_waits_is_told_of_the_end_whenever_it_comes():
    for _ in range(30):
        tx, rx = watch(0)

        def waits(mine):
            with mine, pytest.raises(ChannelClosed):
                mine.blocking_wait_for(lambda value: False)

        async def waits_in_task(mine):
            with mine, pytest.raises(ChannelClosed):
                await mine.wait_for(lambda value: False)

        def ends(mine):
            with mine:
                mine.send_replace(1)

        receivers = [rx.clone() for _ in range(3)]
        other = tx.clone()
        tx.close()
        rx.close()
        work_at_once(
            [
                lambda mine=receivers[0]: waits(mine),
                lambda mine=receivers[1]: waits(mine),
                lambda mine=receivers[2]: asyncio.run(waits_in_task(mine)),
                lambda mine=other: ends(mine),
            ]
        )
        assert not tx._core.waiters
