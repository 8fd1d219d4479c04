"""Everything at once on four workers: channels, locks, sleeps, spawns, threads, errors, and cancellations of all that.

A round begins its scenes together, and its tasks are aborted at random, by tasks on every worker and by plain threads.
When it is over, all has been accounted for: each coroutine was begun once and has ended, or was closed; each error has
come to one party; items and permits are conserved; no task is left. A round that does not get any further is stuck:
then each worker says what its tasks are doing. `YAMANOTE_STRESS` multiplies the rounds; about twenty take a second.
"""

from __future__ import annotations

import _thread
import asyncio
import gc
import itertools
import os
import random
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import pytest

from yamanote.channels import (
    BroadcastReceiver,
    ChannelClosed,
    OneshotSender,
    Receiver,
    Sender,
    UnboundedSender,
    broadcast,
    channel,
    channel_unbounded,
    oneshot_channel,
    watch,
)
from yamanote.futures import race, select
from yamanote.runtime import (
    CancellationToken,
    Handle,
    JoinError,
    JoinHandle,
    JoinMap,
    JoinSet,
    PersistentTaskGroup,
    TaskGroup,
    TaskTracker,
    dump,
    map,
    metrics,
    run,
    scope,
    spawn,
    spawn_blocking,
    yield_now,
)
from yamanote.sync import Barrier, Condition, Event, Lock, Notify, RwLock, Semaphore
from yamanote.time import sleep, timeout

FACTOR = int(os.environ.get("YAMANOTE_STRESS", "1"))
WORKERS = 4
PATIENCE = 60.0
"""Seconds after which a round that does not get any further is stuck."""
DEPTH = 3
"""Of the trees of tasks that spawn tasks."""

T = TypeVar("T")
Item = tuple[int, int]


class Oops(Exception):
    """What some tasks raise."""


class Round:
    """What all scenes of a round share, and the account of it. From any thread."""

    def __init__(self, seed: int, workers: int) -> None:
        self.chance = random.Random(seed)
        self.workers = workers
        self.numbers = itertools.count()
        self.coroutines: list[Any] = []
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.raised: list[int] = []
        self.delivered: list[int] = []
        self.victims: deque[JoinHandle[Any]] = deque()  # who takes one out may abort it
        self.parked: deque[JoinHandle[Any]] = deque()  # for ever, if nobody does
        self.lock = Lock()
        self.never = Event()
        self.over = threading.Event()

    def job(self, work: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> Coroutine[Any, Any, T]:
        """A coroutine that is accounted for."""
        number = next(self.numbers)

        async def accounted() -> T:
            self.begun.append(number)
            try:
                return await work(*args)
            finally:
                self.ended.append(number)

        coroutine = accounted()
        self.coroutines.append(coroutine)
        return coroutine

    def victim(self, work: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> JoinHandle[T]:
        """A task, somewhere, that may be aborted at any moment."""
        job = self.job(work, *args)
        handle = spawn(job) if self.chance.random() < 0.5 else spawn(job, on=self.chance.randrange(self.workers))
        self.victims.append(handle)
        return handle

    def while_lucky(self) -> float:
        """Seconds for something that would come, if one had the patience."""
        return self.chance.choice((3600, 3600, 0.001, 0.0))

    def fail(self) -> None:
        number = next(self.numbers)
        self.raised.append(number)
        raise Oops(number)

    def deliver(self, error: BaseException) -> None:
        if isinstance(error, BaseExceptionGroup):
            for each in error.exceptions:
                self.deliver(each)
        elif isinstance(error, Oops):
            self.delivered.append(error.args[0])
        else:
            raise error

    async def take(self, handle: JoinHandle[Any]) -> None:
        """Join it, whatever becomes of it."""
        try:
            await handle
        except Oops as error:
            self.deliver(error)
        except JoinError:
            pass

    def check(self) -> None:
        assert all(coroutine.cr_frame is None for coroutine in self.coroutines)
        assert max(Counter(self.begun).values()) == 1
        assert Counter(self.begun) == Counter(self.ended)
        assert Counter(self.raised) == Counter(self.delivered)
        assert not self.lock.locked()


# ---------------------------------------------------------------- scenes


async def items_are_conserved(
    it: Round, tx: Sender[Item] | UnboundedSender[Item], rx: Receiver[Item], with_permits: bool
) -> None:
    offered: list[Item] = []
    accepted: list[Item] = []
    received: list[Item] = []

    async def produce(number: int) -> None:
        with tx.clone() as own:
            for item in range(12):
                with suppress(TimeoutError):
                    async with timeout(it.while_lucky()):
                        if with_permits:
                            with await own.reserve() as permit:
                                permit.send((number, item))
                        else:  # when this is cancelled, the item may have been accepted
                            offered.append((number, item))
                            await own.send((number, item))
                        accepted.append((number, item))

    async def consume() -> None:
        with rx.clone() as own, suppress(ChannelClosed):
            while True:
                with suppress(TimeoutError):
                    async with timeout(it.while_lucky()):
                        received.append(await own.recv())

    async def choose() -> None:
        with rx.clone() as own, suppress(ChannelClosed):
            while True:
                match await select(item=own, late=sleep(it.chance.choice((0.0, 0.001)))):
                    case "item", item:
                        received.append(item)

    def produce_in_thread() -> None:
        with tx.clone() as own:
            for item in range(12):
                own.blocking_send((100, item))
                accepted.append((100, item))

    def consume_in_thread() -> None:
        with rx.clone() as own, suppress(ChannelClosed):
            while True:
                received.append(own.blocking_recv())

    with rx:
        async with TaskGroup() as consumers:
            by_thread = spawn_blocking(consume_in_thread)
            victims = [it.victim(consume), it.victim(choose)]
            consumers.spawn(it.job(consume))
            with tx:
                async with TaskGroup() as producers:
                    producers.spawn(it.job(produce, 0))
                    producers.spawn(it.job(produce, 1))
                    await it.take(it.victim(produce, 2))
                    await spawn_blocking(produce_in_thread)
        for victim in victims:
            await it.take(victim)
        await by_thread
        with suppress(ChannelClosed):  # who was aborted with the last item in hand has given it back
            while True:
                received.append(rx.recv_nowait())
    assert max(Counter(received).values()) == 1
    assert set(accepted) <= set(received) <= set(accepted + offered)


async def everybody_hears(it: Round) -> None:
    """Broadcast, watch and one-shot channels."""
    tx, rx = broadcast[int](100)
    state, seen = watch(0)

    async def hear(receiver: BroadcastReceiver[int]) -> list[int]:
        with receiver:
            return [await receiver.recv() for _ in range(30)]

    async def see() -> int:
        with seen.clone() as own:
            return await own.wait_for(lambda value: value == 30)

    async def answer(reply: OneshotSender[int], number: int) -> None:
        await yield_now()
        reply.send(number)

    async def ask(number: int) -> int:
        reply, answered = oneshot_channel[int]()
        spawn(it.job(answer, reply, number))
        return await answered

    with tx, rx, state, seen:
        hearing = [spawn(it.job(hear, tx.subscribe())) for _ in range(3)]
        seeing = spawn(*[it.job(see) for _ in range(3)])
        victims = [it.victim(see) for _ in range(3)]
        for number in range(30):
            await tx.send(number)
            state.send(number + 1)
        for handle in hearing:
            assert await handle == list(range(30))
        assert await seeing == [30] * 3
        for victim in victims:
            await it.take(victim)
    assert await map(lambda number: it.job(ask, number), range(10)) == list(range(10))


async def permits_are_conserved(it: Round) -> None:
    lock, rwlock, semaphore = Lock(), RwLock(), Semaphore(3)
    inside: Counter[str] = Counter()

    mutex = threading.Lock()

    @contextmanager
    def within(kind: str, weight: int = 1) -> Iterator[None]:
        enter(kind, weight)
        try:
            yield
        finally:
            enter(kind, -weight)

    def enter(kind: str, weight: int) -> None:
        with mutex:
            inside[kind] += weight
            assert inside["lock"] <= 1
            assert inside["permits"] <= 3
            assert inside["write"] + bool(inside["read"]) <= 1

    async def contend() -> None:
        for _ in range(5):
            with suppress(TimeoutError):
                async with timeout(it.while_lucky()), lock:
                    with within("lock"):
                        await yield_now()
            with suppress(TimeoutError):
                async with timeout(it.while_lucky()), rwlock.write():
                    with within("write"):
                        await sleep(0)
            with suppress(TimeoutError):
                async with timeout(it.while_lucky()), rwlock.read():
                    with within("read"):
                        await yield_now()
            with suppress(TimeoutError):
                count = it.chance.randrange(1, 4)
                async with timeout(it.while_lucky()), semaphore.acquire_many(count):
                    with within("permits", count):
                        await yield_now()

    def contend_in_thread() -> None:
        for _ in range(5):
            lock.blocking_acquire()
            with within("lock"):
                pass
            lock.release()

    victims = [it.victim(contend) for _ in range(3)]
    await spawn(*[it.job(contend) for _ in range(4)])
    await spawn_blocking(contend_in_thread)
    for victim in victims:
        await it.take(victim)
    assert not +inside
    assert lock.try_acquire()
    assert rwlock.write().try_acquire()
    assert [bool(semaphore.try_acquire()) for _ in range(4)] == [True, True, True, False]


async def everybody_is_notified(it: Round) -> None:
    """Notify, Event, Barrier and Condition; who is aborted passes on what had woken it."""
    notify, event, barrier, condition = Notify(), Event(), Barrier(4), Condition()
    basket: list[int] = []
    taken: list[int] = []

    async def pass_on() -> None:
        await notify.notified()
        notify.notify_one()
        await event.wait()

    async def meet() -> None:
        for _ in range(5):
            await barrier.wait()

    def meet_in_thread() -> None:
        for _ in range(5):
            barrier.blocking_wait()

    async def take() -> None:
        async with condition:
            await condition.wait_for(lambda: basket)
            taken.append(basket.pop())

    async def fill() -> None:
        for number in range(12):
            async with condition:
                basket.append(number)
                condition.notify()
            await sleep(0)

    async with TaskGroup() as group:
        victims = [it.victim(take) for _ in range(4)] + [it.victim(pass_on) for _ in range(4)]
        waiting = [group.spawn(it.job(pass_on)) for _ in range(4)]
        for _ in range(8):
            group.spawn(it.job(take))
        for _ in range(3):
            group.spawn(it.job(meet))
        notify.notify_one()
        group.spawn(it.job(fill))
        await spawn_blocking(meet_in_thread)
        event.set()
        for each in waiting:
            await each
        for victim in victims:
            await it.take(victim)
    assert sorted(taken + basket) == list(range(12))


async def tree(it: Round, depth: int) -> int:
    """A task that spawns others, in one of all the ways there are."""
    if not depth:
        return await leaf(it)
    count = it.chance.randrange(1, 4)
    jobs = [it.job(tree, it, depth - 1) for _ in range(count)]
    way = it.chance.randrange(11)
    if way == 0:
        handles = [spawn(job) for job in jobs]
        it.victims.append(handles[0])
        for handle in handles:
            await it.take(handle)
    elif way == 1:
        await it.take(spawn(*jobs))
    elif way == 2:
        handles = [spawn(job, on=it.chance.randrange(it.workers), name="pinned") for job in jobs]
        it.victims.append(handles[0])
        for handle in handles:
            await it.take(handle)
    elif way == 3:
        handles = [spawn(job, eager=True) for job in jobs]
        for handle in handles:
            await it.take(handle)
    elif way == 4:
        try:
            async with TaskGroup(limit=it.chance.choice((None, 1, 2))) as group:
                handles = [group.spawn(job) for job in jobs]
                it.victims.append(handles[-1])
        except* Oops as errors:
            it.deliver(errors)
    elif way == 5:
        try:
            async with TaskGroup(on_error="collect") as group:
                for job in jobs:
                    group.spawn(job)
                await it.take(group.spawn(it.job(bring, it, group, leaf)))
        except* Oops as errors:
            it.deliver(errors)
    elif way == 6:
        async with JoinSet[int]() as joined:
            for job in jobs:
                joined.spawn(job)
            async for done in joined:
                await it.take(done)
    elif way == 7:
        by_name: JoinMap[int, int] = JoinMap()
        for number, job in enumerate(jobs):
            by_name.spawn(number, job)
        by_name.abort(0)
        async for _, done in by_name:
            await it.take(done)
    elif way == 8:
        tracker = TaskTracker()
        for job in jobs:  # their errors are reported
            tracker.spawn(job)
        tracker.close()
        await tracker.wait()
    elif way == 9:
        async with PersistentTaskGroup(on_error=it.deliver, limit=2) as persistent:
            for job in jobs:
                persistent.spawn(job)
            await it.take(spawn(it.job(bring, it, persistent, forgiving_leaf)))
    else:
        try:
            await race(*jobs, sleep(3600))
        except Oops as error:
            it.deliver(error)
    return depth


async def bring(
    it: Round, group: TaskGroup | PersistentTaskGroup, work: Callable[[Round], Coroutine[Any, Any, int]]
) -> int:
    """A child, from whichever worker this is on. The group may have been ended meanwhile."""
    try:
        await it.take(group.spawn(it.job(work, it)))
    except RuntimeError as refusal:
        assert "takes no children" in str(refusal)
    return 0


async def forgiving_leaf(it: Round) -> int:
    """For a group that reports an error at once: perhaps before another worker has begun to await the handle."""
    try:
        return await leaf(it)
    except Oops as error:
        it.deliver(error)
        return 0


async def leaf(it: Round) -> int:
    way = it.chance.randrange(10)
    if way == 0:
        it.fail()
    elif way == 1:
        await sleep(it.chance.choice((0, 0.0001, 0.002)))
        it.fail()
    elif way == 2:
        await spawn_blocking(sum, range(100))
    elif way == 3:
        with suppress(TimeoutError):
            async with timeout(0.0005):
                await it.never.wait()
    elif way == 4:
        it.parked.append(spawn(it.job(park_for_ever, it)))
    elif way == 5:
        async with it.lock:
            await yield_now()
    elif way == 6:
        async with scope() as inner:
            inner.spawn(it.job(park_for_ever, it))
            await yield_now()
            inner.cancel()
    elif way == 7:
        token = CancellationToken()
        spawn(token.run_until_cancelled(it.never.wait()))
        token.cancel()
    elif way == 8:
        for _ in range(3):
            await sleep(it.chance.choice((0, 0.0001, 0.002)))
    return 0


async def park_for_ever(it: Round) -> None:
    way = it.chance.randrange(4)
    if way == 0:
        await it.never.wait()
    elif way == 1:
        await sleep(3600)
    elif way == 2:
        await asyncio.get_running_loop().create_future()
    else:
        tx, rx = channel[None](1)
        with tx, rx:
            await rx.recv()


async def forest(it: Round) -> None:
    victims = [it.victim(tree, it, DEPTH) for _ in range(8)]
    await it.take(spawn(*[it.job(tree, it, DEPTH) for _ in range(8)]))
    for victim in victims:
        await it.take(victim)


async def threads_bring_work(it: Round) -> None:
    runtime = Handle.current()

    def bring() -> None:
        for number in range(6):
            handle = runtime.spawn(it.job(tree, it, 1))
            if number % 2:
                handle.abort()
            with suppress(JoinError, Oops):
                runtime.block_on(it.job(yield_now))
            try:
                handle.result()
            except Oops as error:
                it.deliver(error)
            except JoinError:
                pass

    threads = [threading.Thread(target=bring, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await spawn_blocking(thread.join)


async def abort_somebody(it: Round) -> None:
    while not it.over.is_set():
        await sleep(it.chance.choice((0, 0.0005, 0.002)))
        with suppress(IndexError):
            it.victims.popleft().abort("of its turn")


def abort_somebody_from_a_thread(it: Round) -> None:
    while not it.over.wait(0.001):
        with suppress(IndexError):
            it.victims.pop().abort("from a thread")


# ---------------------------------------------------------------- all of them


async def play(it: Round) -> None:
    executioner = threading.Thread(target=abort_somebody_from_a_thread, args=[it], daemon=True)
    executioner.start()
    executioners = [spawn(abort_somebody(it), on=number) for number in range(it.workers)]
    parked = [spawn(it.job(park_for_ever, it), on=number % it.workers) for number in range(8)]
    try:
        async with TaskGroup() as scenes:
            scenes.spawn(items_are_conserved(it, *channel[Item](3), with_permits=True))
            scenes.spawn(items_are_conserved(it, *channel[Item](0), with_permits=False))
            scenes.spawn(items_are_conserved(it, *channel_unbounded[Item](), with_permits=True))
            scenes.spawn(everybody_hears(it))
            scenes.spawn(permits_are_conserved(it))
            scenes.spawn(everybody_is_notified(it))
            scenes.spawn(forest(it))
            scenes.spawn(threads_bring_work(it))
    finally:
        it.over.set()
    for each in executioners:
        await each
    await spawn_blocking(executioner.join)
    it.parked.extend(parked)
    while metrics().tasks > 1:  # what has been aborted may have left others, which go on, and park more
        while it.parked:
            it.parked.popleft().abort()
        await sleep(0.001)
    for number in range(3 * it.workers):  # the end of a task is on its way home, where it is told to others
        await spawn(yield_now(), on=number % it.workers)
    it.victims.clear()  # their errors are nobody's now


async def rounds(count: int, played: list[int], loops: list[asyncio.AbstractEventLoop]) -> tuple[Counter[str], ...]:
    """Play them, and return what there was after the warm-up, and at the end."""
    current: list[Round] = []

    async def listen() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, report: current[0].deliver(report["exception"]))
        loops.append(loop)

    for number in range(WORKERS):
        await spawn(listen(), on=number)
    size: Counter[str] = Counter()
    for seed in range(count):
        current[:] = [Round(seed, WORKERS)]
        await play(current[0])
        gc.collect()  # errors that nobody has asked for
        current[0].check()
        played.append(seed)
        if seed == count // 5:
            size = sizes()
    current.clear()
    gc.collect()
    return size, sizes()


def sizes() -> Counter[str]:
    size = Counter(objects=len(gc.get_objects()), threads=threading.active_count())
    with suppress(FileNotFoundError):
        size["files"] = len(os.listdir("/proc/self/fd"))
    return size


@contextmanager
def watched(played: list[int], loops: list[asyncio.AbstractEventLoop]) -> Iterator[None]:
    """Interrupt the main thread when there is no progress, and say what everybody is doing."""
    over = threading.Event()
    dumps: list[str] = []

    def look() -> None:
        before = -1
        while not over.wait(PATIENCE):
            if len(played) == before:
                dumps.extend(dump(loop) for loop in loops)
                _thread.interrupt_main()
                return
            before = len(played)

    watchdog = threading.Thread(target=look, daemon=True)
    watchdog.start()
    try:
        yield
    except KeyboardInterrupt:
        pytest.fail(f"stuck after {len(played)} rounds:\n" + "\n".join(dumps))
    finally:
        over.set()
        watchdog.join()


@pytest.mark.parametrize(
    ("make", "debug", "count"),
    [
        (None, False, 15 * FACTOR),
        (None, True, 2 * FACTOR),
        (asyncio.SelectorEventLoop, False, 5 * FACTOR),
        ("uvloop", False, 5 * FACTOR),
    ],
    ids=["ours", "debug", "asyncio", "uvloop"],
)
def test_everything_at_once(make: Any, debug: bool, count: int, caplog: pytest.LogCaptureFixture) -> None:
    if make == "uvloop":
        make = pytest.importorskip("uvloop").new_event_loop
    played: list[int] = []
    loops: list[asyncio.AbstractEventLoop] = []
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with watched(played, loops):
            early, late = run(rounds(count, played, loops), workers=WORKERS, loop_factory=make, debug=debug)
    finally:
        sys.setswitchinterval(before)
    assert [text for text in caplog.messages if not text.startswith("Executing ")] == []  # of slow callbacks, in debug
    assert late["files"] <= early["files"]
    assert late["threads"] <= early["threads"] + 16  # of the blocking pool, and of nobody else
    assert late["objects"] <= early["objects"] + 5000  # however many rounds
