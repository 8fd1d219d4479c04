"""Locks, semaphores, events and so on against asyncio's own. Run it: `python benchmarks/sync.py --help`.

Every library runs the same lines wherever it has the same names; what goes by other names there (aiologic's
`async_acquire`, kioto's guard) has a body of its own, line by line the same. What asyncio does not have at all is
compared with what a careful user makes of what it has.
"""

from __future__ import annotations

import asyncio
from asyncio import sleep
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from harness import Version, Workload, check, main
from peers import installed, load

from yamanote.sync import Barrier, Condition, Event, Lock, Mutex, Notify, OnceCell, RwLock, Semaphore

aiologic = load("aiologic")
anyio = load("anyio")
culsans = load("culsans")
kioto = load("kioto")

Make = Callable[[], Any]
Body = Callable[..., Coroutine[Any, Any, None]]


def workloads(scale: float = 1.0) -> list[Workload]:
    """All of them, with about `scale` times the ordinary number of operations."""
    times = max(10, int(10_000 * scale))
    crowd = max(12, int(100 * scale))
    rounds = max(2, int(100 * scale))
    strokes = max(10, int(2000 * scale))
    return [
        Workload(
            "lock, uncontended `async with`",
            times,
            each(LOCKS, in_block, times) | each(MUTEXES, in_guarded_block, times),
            bar=1.00,
        ),
        Workload(
            "lock, uncontended acquire()/release()",
            times,
            each(LOCKS, by_hand, times) | each({"aiologic": aiologic_lock}, by_hand_aiologic, times),
            bar=1.10,
        ),
        lock_contended(10, max(2, int(200 * scale))),
        lock_contended(1000, max(2, int(4 * scale))),
        Workload(
            "semaphore(10), uncontended",
            times,
            each(SEMAPHORES, in_block, times),
            bar=0.60,
            also="Tokio: sync_semaphore/uncontended",
        ),
        Workload(
            "semaphore(10), 100 tasks, sleep(0) inside",
            crowd * 100,
            each(SEMAPHORES, crowded, crowd, 100),
            bar=1.05,
            also="Tokio: sync_semaphore/contention",
        ),
        Workload(
            "event, wait on a set event",
            times,
            each(EVENTS, wait_when_set, times) | each({"aiologic": aiologic_event}, wait_when_set_aiologic, times),
            bar=1.10,
        ),
        Workload(
            "event, set wakes 1000 waiters",
            1000,
            each(EVENTS, wake_all, 1000) | each({"aiologic": aiologic_event}, wake_all_aiologic, 1000),
            bar=1.05,
            also="Tokio: sync_notify/notify_waiters",
        ),
        Workload(
            "event, 1000 waits begin and end",
            10_000,
            each(EVENTS, wait_again, 1000, 10) | each({"aiologic": aiologic_event}, wait_again_aiologic, 1000, 10),
            bar=1.05,
        ),
        Workload(
            "barrier of 10, per round",
            rounds,
            each(BARRIERS, meet, 10, rounds)
            | each({"aiologic": lambda: aiologic.Barrier(10)}, meet_aiologic, 10, rounds),
            bar=0.40,
        ),
        Workload(
            "condition, notify_all to 100 waiters",
            rounds,
            each(CONDITIONS, notify_all, 100, rounds)
            | each({"aiologic": aiologic_condition}, notify_all_aiologic, 100, rounds),
            bar=1.05,
        ),
        Workload(
            "condition, ping-pong",
            strokes,
            each(CONDITIONS, take_turns, strokes)
            | each({"aiologic": aiologic_condition}, take_turns_aiologic, strokes),
            bar=1.05,
        ),
        Workload(
            "notify, ping-pong",
            strokes,
            {"asyncio": partial(ping_pong_of_events, strokes), "yamanote": partial(ping_pong, strokes)},
            bar=1.05,
            also="Tokio: sync_notify/notify_one",
        ),
        Workload(
            "rwlock, uncontended read",
            times,
            each(READS, in_block, times),
            bar=1.05,
            also="Tokio: sync_rwlock/read_uncontended",
        ),
        Workload(
            "rwlock, 100 tasks, 90% reads, sleep(0) inside",
            crowd * 20,
            each(RWLOCKS, read_mostly, crowd, 20),
            bar=0.85,
            also="Tokio: sync_rwlock/read_concurrent",
        ),
        Workload("once cell, get after init", times, each(CELLS, get_again, times), bar=1.05),
    ]


def lock_contended(tasks: int, rounds: int) -> Workload:
    """Each of `tasks` locks `rounds` times."""
    return Workload(
        f"lock, {tasks} tasks, sleep(0) inside",
        tasks * rounds,
        each(LOCKS, contended, tasks, rounds) | each(MUTEXES, contended_guard, tasks, rounds),
        bar=1.05,
    )


def each(makers: dict[str, Make], body: Body, *arguments: int) -> dict[str, Version]:
    """`body`, with what each library makes."""
    return {library: partial(body, make, *arguments) for library, make in installed(makers).items()}


# ------------------------------------------------------------------------------------------- what the libraries make


def aiologic_lock() -> Any:
    return aiologic.Lock()


def aiologic_event() -> Any:
    return aiologic.Event()


def aiologic_condition() -> Any:
    return aiologic.Condition(aiologic.Lock())


LOCKS: dict[str, Make] = {
    "asyncio": asyncio.Lock,
    "yamanote": Lock,
    "aiologic": aiologic_lock,
    "anyio": lambda: anyio.Lock(),
    "anyio.fast": lambda: anyio.Lock(fast_acquire=True),
}
MUTEXES: dict[str, Make] = {
    "yamanote.Mutex": lambda: Mutex(object),
    "kioto": lambda: kioto.sync.Mutex(object),
}
SEMAPHORES: dict[str, Make] = {
    "asyncio": lambda: asyncio.Semaphore(10),
    "yamanote": lambda: Semaphore(10),
    "aiologic": lambda: aiologic.Semaphore(10),
    "anyio": lambda: anyio.Semaphore(10),
    "anyio.fast": lambda: anyio.Semaphore(10, fast_acquire=True),
}
EVENTS: dict[str, Make] = {
    "asyncio": asyncio.Event,
    "yamanote": Event,
    "anyio": lambda: anyio.Event(),
}
BARRIERS: dict[str, Make] = {"asyncio": lambda: asyncio.Barrier(10), "yamanote": lambda: Barrier(10)}
CONDITIONS: dict[str, Make] = {
    "asyncio": asyncio.Condition,
    "yamanote": Condition,
    "anyio": lambda: anyio.Condition(),
}


class Exclusive:
    """Without a lock for readers, they exclude each other."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()

    def read(self) -> asyncio.Lock:
        return self.lock

    write = read


class CulsansRwLock:
    """Under the names of ours."""

    def __init__(self) -> None:
        self.lock = culsans.RWLock()

    def read(self) -> Any:
        return self.lock.reading

    def write(self) -> Any:
        return self.lock.writing


RWLOCKS: dict[str, Make] = {"asyncio": Exclusive, "yamanote": RwLock, "culsans": CulsansRwLock}
READS: dict[str, Make] = {
    "asyncio": asyncio.Lock,
    "yamanote": lambda: RwLock().read(),
    "culsans": lambda: culsans.RWLock().reading,
}


class CheckedTwice:
    """A value that is made once: looked for without the lock, and under it again."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.made: list[int] = []

    async def get_or_init(self, factory: Callable[[], Coroutine[Any, Any, int]]) -> int:
        if not self.made:
            async with self.lock:
                if not self.made:
                    self.made.append(await factory())
        return self.made[0]


CELLS: dict[str, Make] = {"asyncio": CheckedTwice, "yamanote": OnceCell}

# ------------------------------------------------------------------------------------------- nobody else wants it


async def in_block(make: Make, times: int) -> None:
    lock = make()
    entered = 0
    for _ in range(times):
        async with lock:
            entered += 1
    check(entered == times, f"entered {entered} times, not {times}")


async def in_guarded_block(make: Make, times: int) -> None:
    mutex = make()
    entered = 0
    for _ in range(times):
        async with mutex.lock():
            entered += 1
    check(entered == times, f"entered {entered} times, not {times}")


async def by_hand(make: Make, times: int) -> None:
    lock = make()
    acquired = 0
    for _ in range(times):
        await lock.acquire()
        acquired += 1
        lock.release()
    check(acquired == times, f"acquired {acquired} times, not {times}")


async def by_hand_aiologic(make: Make, times: int) -> None:
    lock = make()
    acquired = 0
    for _ in range(times):
        await lock.async_acquire()
        acquired += 1
        lock.async_release()
    check(acquired == times, f"acquired {acquired} times, not {times}")


# ------------------------------------------------------------------------------------------- everybody wants it

# A sum that is read before a turn of the loop and written after it counts right only under mutual exclusion, and the
# order in which tasks get in tells whether anybody was overtaken.


async def contended(make: Make, tasks: int, rounds: int) -> None:
    lock = make()
    total = 0
    order = []

    async def work(number: int) -> None:
        nonlocal total
        for _ in range(rounds):
            async with lock:
                order.append(number)
                before = total
                await sleep(0)
                total = before + 1

    async with asyncio.TaskGroup() as group:
        for number in range(tasks):
            group.create_task(work(number))
    check(total == tasks * rounds, f"{tasks * rounds - total} updates were lost")
    check(order == [*range(tasks)] * rounds, "somebody was overtaken")


async def contended_guard(make: Make, tasks: int, rounds: int) -> None:
    mutex = make()
    total = 0
    order = []

    async def work(number: int) -> None:
        nonlocal total
        for _ in range(rounds):
            async with mutex.lock():
                order.append(number)
                before = total
                await sleep(0)
                total = before + 1

    async with asyncio.TaskGroup() as group:
        for number in range(tasks):
            group.create_task(work(number))
    check(total == tasks * rounds, f"{tasks * rounds - total} updates were lost")
    check(order == [*range(tasks)] * rounds, "somebody was overtaken")


async def crowded(make: Make, tasks: int, rounds: int) -> None:
    semaphore = make()
    inside = most = total = 0

    async def work() -> None:
        nonlocal inside, most, total
        for _ in range(rounds):
            async with semaphore:
                inside += 1
                if inside > most:
                    most = inside
                await sleep(0)
                inside -= 1
                total += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(work())
    check(total == tasks * rounds, f"{total} were inside, not {tasks * rounds}")
    check(most == 10, f"{most} were inside at once, not 10")


# ------------------------------------------------------------------------------------------- events


async def wait_when_set(make: Make, times: int) -> None:
    event = make()
    event.set()
    waited = 0
    for _ in range(times):
        await event.wait()
        waited += 1
    check(waited == times and event.is_set(), f"waited {waited} times, not {times}")


async def wait_when_set_aiologic(make: Make, times: int) -> None:
    event = make()
    event.set()
    waited = 0
    for _ in range(times):
        await event
        waited += 1
    check(waited == times and event.is_set(), f"waited {waited} times, not {times}")


async def turns(number: int) -> None:
    """More than it takes to begin to wait, so that those who only pass by are found out."""
    for _ in range(number):
        await sleep(0)


async def wake_all(make: Make, tasks: int) -> None:
    event = make()
    awake = []

    async def work(number: int) -> None:
        await event.wait()
        awake.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(tasks):
            group.create_task(work(number))
        await turns(3)
        check(not awake, f"{len(awake)} did not wait")
        event.set()
    check(awake == [*range(tasks)], f"{len(awake)} woke up, not {tasks} in order")


async def wake_all_aiologic(make: Make, tasks: int) -> None:
    event = make()
    awake = []

    async def work(number: int) -> None:
        await event
        awake.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(tasks):
            group.create_task(work(number))
        await turns(3)
        check(not awake, f"{len(awake)} did not wait")
        event.set()
    check(awake == [*range(tasks)], f"{len(awake)} woke up, not {tasks} in order")


# The same tasks wait for one event after the other: no task begins or ends meanwhile.


async def wait_again(make: Make, tasks: int, rounds: int) -> None:
    events = [make() for _ in range(rounds)]
    awake = 0

    async def work() -> None:
        nonlocal awake
        for event in events:
            await event.wait()
            awake += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(work())
        await turns(3)
        for number, event in enumerate(events):
            check(awake == tasks * number, f"{awake} woke up by event {number}, not {tasks * number}")
            event.set()
            await turns(2)
    check(awake == tasks * rounds, f"{awake} woke up, not {tasks * rounds}")


async def wait_again_aiologic(make: Make, tasks: int, rounds: int) -> None:
    events = [make() for _ in range(rounds)]
    awake = 0

    async def work() -> None:
        nonlocal awake
        for event in events:
            await event
            awake += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(work())
        await turns(3)
        for number, event in enumerate(events):
            check(awake == tasks * number, f"{awake} woke up by event {number}, not {tasks * number}")
            event.set()
            await turns(2)
    check(awake == tasks * rounds, f"{awake} woke up, not {tasks * rounds}")


# ------------------------------------------------------------------------------------------- barriers


async def meet(make: Make, parties: int, rounds: int) -> None:
    barrier = make()
    arrived = 0

    async def work() -> None:
        nonlocal arrived
        for number in range(rounds):
            arrived += 1
            await barrier.wait()
            check(arrived >= parties * (number + 1), f"somebody went on when only {arrived} had arrived")

    async with asyncio.TaskGroup() as group:
        for _ in range(parties):
            group.create_task(work())
    check(arrived == parties * rounds, f"{arrived} arrived, not {parties * rounds}")


async def meet_aiologic(make: Make, parties: int, rounds: int) -> None:
    barrier = make()
    arrived = 0

    async def work() -> None:
        nonlocal arrived
        for number in range(rounds):
            arrived += 1
            await barrier
            check(arrived >= parties * (number + 1), f"somebody went on when only {arrived} had arrived")

    async with asyncio.TaskGroup() as group:
        for _ in range(parties):
            group.create_task(work())
    check(arrived == parties * rounds, f"{arrived} arrived, not {parties * rounds}")


# ------------------------------------------------------------------------------------------- conditions


async def notify_all(make: Make, waiters: int, rounds: int) -> None:
    condition = make()
    waiting = awake = 0

    async def work() -> None:
        nonlocal waiting, awake
        async with condition:
            waiting += 1
            for _ in range(rounds):
                await condition.wait()
                awake += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(waiters):
            group.create_task(work())
        while waiting < waiters:
            await sleep(0)
        for number in range(rounds):
            async with condition:
                check(awake == waiters * number, f"{awake} woke up in {number} rounds, not {waiters * number}")
                condition.notify_all()
            while awake < waiters * (number + 1):
                await sleep(0)


async def notify_all_aiologic(make: Make, waiters: int, rounds: int) -> None:
    condition = make()
    waiting = awake = 0

    async def work() -> None:
        nonlocal waiting, awake
        async with condition:
            waiting += 1
            for _ in range(rounds):
                await condition
                awake += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(waiters):
            group.create_task(work())
        while waiting < waiters:
            await sleep(0)
        for number in range(rounds):
            async with condition:
                check(awake == waiters * number, f"{awake} woke up in {number} rounds, not {waiters * number}")
                condition.notify_all()
            while awake < waiters * (number + 1):
                await sleep(0)


async def take_turns(make: Make, strokes: int) -> None:
    condition = make()
    ball = 0

    async def play(side: int) -> None:
        nonlocal ball
        for stroke in range(side, strokes, 2):
            async with condition:
                while ball % 2 != side:
                    await condition.wait()
                check(ball == stroke, f"stroke {stroke} met ball {ball}")
                ball += 1
                condition.notify()

    async with asyncio.TaskGroup() as group:
        group.create_task(play(0))
        group.create_task(play(1))
    check(ball == strokes, f"{ball} strokes, not {strokes}")


async def take_turns_aiologic(make: Make, strokes: int) -> None:
    condition = make()
    ball = 0

    async def play(side: int) -> None:
        nonlocal ball
        for stroke in range(side, strokes, 2):
            async with condition:
                while ball % 2 != side:
                    await condition
                check(ball == stroke, f"stroke {stroke} met ball {ball}")
                ball += 1
                condition.notify()

    async with asyncio.TaskGroup() as group:
        group.create_task(play(0))
        group.create_task(play(1))
    check(ball == strokes, f"{ball} strokes, not {strokes}")


# ------------------------------------------------------------------------------------------- notifications


async def ping_pong(times: int) -> None:
    there, back = Notify(), Notify()
    echoed = 0

    async def echo() -> None:
        nonlocal echoed
        for _ in range(times):
            await there.notified()
            echoed += 1
            back.notify_one()

    echoing = asyncio.create_task(echo())
    for number in range(times):
        there.notify_one()
        await back.notified()
        check(echoed == number + 1, f"{echoed} came back, not {number + 1}")
    await echoing


async def ping_pong_of_events(times: int) -> None:
    there, back = asyncio.Event(), asyncio.Event()
    echoed = 0

    async def echo() -> None:
        nonlocal echoed
        for _ in range(times):
            await there.wait()
            there.clear()
            echoed += 1
            back.set()

    echoing = asyncio.create_task(echo())
    for number in range(times):
        there.set()
        await back.wait()
        back.clear()
        check(echoed == number + 1, f"{echoed} came back, not {number + 1}")
    await echoing


# ------------------------------------------------------------------------------------------- readers and writers


async def read_mostly(make: Make, tasks: int, rounds: int) -> None:
    lock = make()
    total = done = reading = 0

    async def work(number: int) -> None:
        nonlocal total, done, reading
        for turn in range(rounds):
            if (number + turn) % 10:
                async with lock.read():
                    reading += 1
                    before = total
                    await sleep(0)
                    check(total == before, "somebody wrote while another read")
                    reading -= 1
            else:
                async with lock.write():
                    check(not reading, f"{reading} read while somebody wrote")
                    before = total
                    await sleep(0)
                    total = before + 1
            done += 1

    async with asyncio.TaskGroup() as group:
        for number in range(tasks):
            group.create_task(work(number))
    check(done == tasks * rounds, f"{done} were inside, not {tasks * rounds}")
    check(total == sum(not (a + b) % 10 for a in range(tasks) for b in range(rounds)), "updates were lost")


# ------------------------------------------------------------------------------------------- made once


async def get_again(make: Make, times: int) -> None:
    cell = make()
    made = 0

    async def factory() -> int:
        nonlocal made
        made += 1
        return 42

    await cell.get_or_init(factory)
    got = 0
    for _ in range(times):
        got += await cell.get_or_init(factory)
    check(got == times * 42, "another value")
    check(made == 1, f"made {made} times")


if __name__ == "__main__":
    main("sync", workloads())
