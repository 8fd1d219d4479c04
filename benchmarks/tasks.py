"""Spawning, joining, racing and selecting against asyncio's own. Run it: `python benchmarks/tasks.py --help`.

Tasks that begin on the next turn and tasks that run at once up to their first wait are different things, with a bar
each: the rows that end in "eager" compare only those who start eagerly, with the same asyncio as the rows above them.
Where a peer's call does not wait for the tasks that it gave up, the version waits for them, as asyncio's does.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import FIRST_COMPLETED, sleep
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import count
from typing import Any

from harness import Version, Workload, check, main
from peers import installed, load

from yamanote.futures import as_completed_safe, gather, join, race, select, task_set
from yamanote.runtime import TaskGroup, spawn

aiodrive = load("aiodrive")
aiojobs = load("aiojobs")
aiometer = load("aiometer")
aiotools = load("aiotools")
anyio = load("anyio")
asynkit = load("asynkit")
kioto = load("kioto")
quattro = load("quattro")

Work = Callable[[], Coroutine[Any, Any, object]]
Call = Callable[..., Coroutine[Any, Any, None]]


def workloads(scale: float = 1.0) -> list[Workload]:
    """All of them, with about `scale` times the ordinary number of operations."""
    many = max(3, int(100_000 * scale))
    some = max(3, int(1000 * scale))
    times = max(2, int(500 * scale))
    crowd = min(100, some)
    return [
        Workload(
            "spawn+join 100k no-op tasks",
            many,
            each(LATER, spawn_and_join, nothing, many),
            bar=1.05,
            also="Tokio: spawn_many_local",
        ),
        Workload("spawn+join 100k no-op tasks, eager", many, each(AT_ONCE, spawn_and_join, nothing, many), bar=0.20),
        Workload("spawn+join 1k no-op tasks", some, each(LATER, spawn_and_join, nothing, some), bar=1.05),
        Workload("spawn+join 1k no-op tasks, eager", some, each(AT_ONCE, spawn_and_join, nothing, some), bar=0.28),
        Workload("spawn+join 1k sleep(0) tasks", some, each(LATER, spawn_and_join, turn, some), bar=1.05),
        Workload("spawn+join 1k sleep(0) tasks, eager", some, each(AT_ONCE, spawn_and_join, turn, some), bar=0.93),
        Workload("group of 3 no-op tasks", times, each(LATER, spawn_and_join, nothing, 3, times), bar=1.05),
        Workload("group of 3 no-op tasks, eager", times, each(AT_ONCE, spawn_and_join, nothing, 3, times), bar=0.30),
        Workload("start one no-op task and await it", times, each(ONE, repeatedly, times), bar=0.25),
        Workload("race: ready against never", times, each(RACE, repeatedly, times, answer), bar=0.10),
        Workload("race: sleep(0) against never", times, each(RACE, repeatedly, times, answer_later), bar=0.65),
        Workload(
            "as_completed over 100 sleep(0) tasks", crowd * 10, each(AS_COMPLETED, repeatedly, 10, crowd), bar=0.95
        ),
        Workload(
            "select loop, 2 re-armed branches (per turn)",
            times * 2,
            each(SELECT, repeatedly, 1, times),
            bar=0.75,
            also="crossbeam: select_both",
        ),
        Workload("1k tasks, at most 10 at once, sleep(0)", some, each(LIMITED, repeatedly, 1, some), bar=0.25),
    ]


def each(calls: dict[str, Call], body: Call, *arguments: Any) -> dict[str, Version]:
    """`body`, with what each library calls."""
    versions: dict[str, Version] = {}
    for library, call in installed(calls).items():
        version = partial(body, call, *arguments)
        if library != "asyncio.eager":
            versions[library] = version
        elif sys.version_info >= (3, 12):
            versions[library] = partial(eagerly, version)
    return versions


async def eagerly(version: Version) -> None:
    """On a loop that starts all tasks eagerly."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    try:
        await version()
    finally:
        loop.set_task_factory(None)


async def repeatedly(call: Call, times: int, *arguments: Any) -> None:
    for _ in range(times):
        await call(*arguments)


# ------------------------------------------------------------------------------------------- what the tasks do

done = count(1).__next__
"""Each task calls it, which is how it is known that all have run."""


async def nothing() -> None:
    done()


async def turn() -> None:
    await sleep(0)
    done()


async def answer() -> int:
    return 42


async def answer_later() -> int:
    await sleep(0)
    return 42


async def never() -> int:
    global losers
    losers += 1
    try:
        return await asyncio.get_running_loop().create_future()
    finally:
        losers -= 1


losers = 0
"""How many of those that have begun have not ended. None may be left behind by a race."""


# ------------------------------------------------------------------------------------------- start many, wait for all


async def spawn_and_join(call: Call, work: Work, number: int, times: int = 1) -> None:
    before = done()
    for _ in range(times):
        await call(work, number)
    after = done() - 1
    check(after - before == number * times, f"{after - before} tasks have run, not {number * times}")


async def asyncio_group(work: Work, number: int) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(number):
            group.create_task(work())


async def asyncio_gather(work: Work, number: int) -> None:
    await asyncio.gather(*(work() for _ in range(number)))


async def yamanote_group(work: Work, number: int) -> None:
    async with TaskGroup() as group:
        for _ in range(number):
            group.spawn(work())


async def yamanote_spawn(work: Work, number: int) -> None:
    await spawn(*(work() for _ in range(number)))


async def yamanote_eager_group(work: Work, number: int) -> None:
    async with TaskGroup() as group:
        for _ in range(number):
            group.spawn(work(), eager=True)


async def yamanote_join(work: Work, number: int) -> None:
    await join(*(work() for _ in range(number)))


async def aiodrive_gather(work: Work, number: int) -> None:
    await aiodrive.gather(work() for _ in range(number))


async def aiojobs_scheduler(work: Work, number: int) -> None:
    async with aiojobs.Scheduler(limit=None) as scheduler:
        for _ in range(number):
            await scheduler.spawn(work())


async def aiotools_group(work: Work, number: int) -> None:
    async with aiotools.TaskGroup() as group:
        for _ in range(number):
            group.create_task(work())


async def aiotools_persistent_group(work: Work, number: int) -> None:
    async with aiotools.PersistentTaskGroup() as group:
        for _ in range(number):
            group.create_task(work())


async def anyio_group(work: Work, number: int) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(number):
            group.start_soon(work)


async def asynkit_eager(work: Work, number: int) -> None:
    started = [asynkit.eager(work()) for _ in range(number)]
    for one in started:
        await one


async def kioto_try_join(work: Work, number: int) -> None:
    await kioto.futures.try_join(*(work() for _ in range(number)))


async def quattro_group(work: Work, number: int) -> None:
    async with quattro.TaskGroup() as group:
        for _ in range(number):
            group.create_task(work())


LATER: dict[str, Call] = {
    "asyncio": asyncio_group,
    "asyncio.gather": asyncio_gather,
    "yamanote": yamanote_group,
    "yamanote.spawn": yamanote_spawn,
    "aiodrive": aiodrive_gather,
    "aiojobs": aiojobs_scheduler,
    "aiotools": aiotools_group,
    "aiotools.PTG": aiotools_persistent_group,
    "anyio": anyio_group,
    "kioto": kioto_try_join,
    "quattro": quattro_group,
}
"""They begin on the next turn."""
AT_ONCE: dict[str, Call] = {
    "asyncio": asyncio_group,
    "asyncio.eager": asyncio_group,
    "yamanote": yamanote_eager_group,
    "yamanote.join": yamanote_join,
    "asynkit": asynkit_eager,
}
"""They run at once, up to their first wait; asyncio's own, the measure, do not."""


# ------------------------------------------------------------------------------------------- one


async def asyncio_one() -> None:
    check(await asyncio.create_task(answer()) == 42, "another value")


async def yamanote_one() -> None:
    check(await spawn(answer()) == 42, "another value")


async def yamanote_eager_one() -> None:
    check(await spawn(answer(), eager=True) == 42, "another value")


async def aiodrive_one() -> None:
    check(await aiodrive.prime(answer()) == 42, "another value")


async def asynkit_one() -> None:
    check(await asynkit.eager(answer()) == 42, "another value")


ONE: dict[str, Call] = {
    "asyncio": asyncio_one,
    "asyncio.eager": asyncio_one,
    "yamanote": yamanote_eager_one,
    "yamanote.lazy": yamanote_one,
    "aiodrive": aiodrive_one,
    "asynkit": asynkit_one,
}


# ------------------------------------------------------------------------------------------- race


def check_race(value: object) -> None:
    check(value == 42, f"the winner returned {value!r}, not 42")
    check(not losers, "a loser goes on")


async def asyncio_race(winner: Work) -> None:
    tasks = [asyncio.create_task(winner()), asyncio.create_task(never())]
    finished, pending = await asyncio.wait(tasks, return_when=FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    check_race(finished.pop().result())


async def yamanote_race(winner: Work) -> None:
    check_race(await race(winner(), never()))


async def aiodrive_race(winner: Work) -> None:
    _, value = await aiodrive.race(winner(), never())
    check_race(value)


async def aiotools_race(winner: Work) -> None:
    value, _ = await aiotools.race([winner(), never()])
    check_race(value)


async def anyio_race(winner: Work) -> None:
    values = []

    async def contend(work: Work) -> None:
        values.append(await work())
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(contend, winner)
        group.start_soon(contend, never)
    check_race(*values)


async def kioto_race(winner: Work) -> None:
    tasks = kioto.futures.task_set(winner=winner(), never=never())
    _, value = await kioto.futures.select(tasks)
    losers = list(tasks.get_tasks())
    tasks.cancel_all()
    await asyncio.gather(*losers, return_exceptions=True)
    check_race(value)


RACE: dict[str, Call] = {
    "asyncio": asyncio_race,
    "asyncio.eager": asyncio_race,
    "yamanote": yamanote_race,
    "aiodrive": aiodrive_race,
    "aiotools": aiotools_race,
    "anyio": anyio_race,
    "kioto": kioto_race,
}


# ------------------------------------------------------------------------------------------- as completed


async def numbered(number: int) -> int:
    await sleep(0)
    return number


async def asyncio_as_completed(tasks: int) -> None:
    total = 0
    for one in asyncio.as_completed([numbered(number) for number in range(tasks)]):
        total += await one
    check(total == sum(range(tasks)), "some value is missing")


async def yamanote_as_completed(tasks: int) -> None:
    total = 0
    async with as_completed_safe([numbered(number) for number in range(tasks)]) as results:
        async for result in results:
            total += await result
    check(total == sum(range(tasks)), "some value is missing")


async def aiodrive_as_completed(tasks: int) -> None:
    total = 0
    async for value in aiodrive.amass([numbered(number) for number in range(tasks)]):
        total += value
    check(total == sum(range(tasks)), "some value is missing")


async def aiotools_as_completed(tasks: int) -> None:
    total = 0
    async with aiotools.aclosing(aiotools.as_completed_safe([numbered(number) for number in range(tasks)])) as results:
        async for result in results:
            total += await result
    check(total == sum(range(tasks)), "some value is missing")


async def anyio_as_completed(tasks: int) -> None:
    total = 0
    async with anyio.as_completed(*[numbered(number) for number in range(tasks)]) as handles:
        async for handle in handles:
            total += handle.return_value
    check(total == sum(range(tasks)), "some value is missing")


async def kioto_as_completed(tasks: int) -> None:
    total = 0
    running = kioto.futures.task_set(**{str(number): numbered(number) for number in range(tasks)})
    while running:
        _, value = await kioto.futures.select(running)
        total += value
    check(total == sum(range(tasks)), "some value is missing")


AS_COMPLETED: dict[str, Call] = {
    "asyncio": asyncio_as_completed,
    "asyncio.eager": asyncio_as_completed,
    "yamanote": yamanote_as_completed,
    "aiodrive": aiodrive_as_completed,
    "aiotools": aiotools_as_completed,
    "anyio": anyio_as_completed,
    "kioto": kioto_as_completed,
}


# ------------------------------------------------------------------------------------------- select in a loop


# The second begins two turns behind the first and stays there, so that each round finds one of them ready.


async def two_turns_later() -> int:
    await sleep(0)
    await sleep(0)
    return await answer_later()


async def asyncio_select(times: int) -> None:
    counts = {"one": 0, "two": 0}
    pending = {
        asyncio.create_task(answer_later(), name="one"),
        asyncio.create_task(two_turns_later(), name="two"),
    }
    while pending:
        finished, pending = await asyncio.wait(pending, return_when=FIRST_COMPLETED)
        for task in finished:
            name = task.get_name()
            counts[name] += task.result() == 42
            if counts[name] < times:
                pending.add(asyncio.create_task(answer_later(), name=name))
    check(counts == {"one": times, "two": times}, f"unequal turns: {counts}")


async def yamanote_select(times: int) -> None:
    counts = {"one": 0, "two": 0}
    async with task_set(one=answer_later(), two=two_turns_later()) as tasks:
        while tasks:
            name, value = await select(tasks)
            counts[name] += value == 42
            if counts[name] < times:
                tasks.spawn(name, answer_later())
    check(counts == {"one": times, "two": times}, f"unequal turns: {counts}")


async def kioto_select(times: int) -> None:
    counts = {"one": 0, "two": 0}
    tasks = kioto.futures.task_set(one=answer_later(), two=two_turns_later())
    while tasks:
        name, value = await kioto.futures.select(tasks)
        counts[name] += value == 42
        if counts[name] < times:
            tasks.update(name, answer_later())
    check(counts == {"one": times, "two": times}, f"unequal turns: {counts}")


SELECT: dict[str, Call] = {
    "asyncio": asyncio_select,
    "asyncio.eager": asyncio_select,
    "yamanote": yamanote_select,
    "kioto": kioto_select,
}


# ------------------------------------------------------------------------------------------- so many at once


class Crowd:
    """Counts who is inside."""

    def __init__(self) -> None:
        self.inside = self.most = self.total = 0

    async def visit(self) -> None:
        self.inside += 1
        if self.inside > self.most:
            self.most = self.inside
        await sleep(0)
        self.inside -= 1
        self.total += 1

    def check(self, tasks: int) -> None:
        check(self.total == tasks, f"{self.total} tasks have run, not {tasks}")
        check(self.most <= 10, f"{self.most} ran at once, more than 10")


async def asyncio_limited(tasks: int) -> None:
    crowd, semaphore = Crowd(), asyncio.Semaphore(10)

    async def limited() -> None:
        async with semaphore:
            await crowd.visit()

    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(limited())
    crowd.check(tasks)


async def asyncio_gather_limited(tasks: int) -> None:
    crowd, semaphore = Crowd(), asyncio.Semaphore(10)

    async def limited() -> None:
        async with semaphore:
            await crowd.visit()

    await asyncio.gather(*(limited() for _ in range(tasks)))
    crowd.check(tasks)


async def yamanote_limited(tasks: int) -> None:
    crowd = Crowd()
    async with TaskGroup(limit=10) as group:
        for _ in range(tasks):
            group.spawn(crowd.visit())
    crowd.check(tasks)


async def yamanote_gather_limited(tasks: int) -> None:
    crowd = Crowd()
    await gather((crowd.visit() for _ in range(tasks)), limit=10)
    crowd.check(tasks)


async def aiojobs_limited(tasks: int) -> None:
    crowd = Crowd()
    async with aiojobs.Scheduler(limit=10) as scheduler:
        for _ in range(tasks):
            await scheduler.spawn(crowd.visit())
    crowd.check(tasks)


async def aiometer_limited(tasks: int) -> None:
    crowd = Crowd()
    await aiometer.run_all([crowd.visit] * tasks, max_at_once=10)
    crowd.check(tasks)


async def anyio_limited(tasks: int) -> None:
    crowd, limiter = Crowd(), anyio.CapacityLimiter(10)

    async def limited() -> None:
        async with limiter:
            await crowd.visit()

    async with anyio.create_task_group() as group:
        for _ in range(tasks):
            group.start_soon(limited)
    crowd.check(tasks)


async def quattro_limited(tasks: int) -> None:
    crowd = Crowd()
    async with quattro.TaskGroup(concurrency_limit=10) as group:
        for _ in range(tasks):
            group.create_task(crowd.visit())
    crowd.check(tasks)


LIMITED: dict[str, Call] = {
    "asyncio": asyncio_limited,
    "asyncio.eager": asyncio_limited,
    "asyncio.gather": asyncio_gather_limited,
    "yamanote": yamanote_limited,
    "yamanote.gather": yamanote_gather_limited,
    "aiojobs": aiojobs_limited,
    "aiometer": aiometer_limited,
    "anyio": anyio_limited,
    "quattro": quattro_limited,
}


if __name__ == "__main__":
    main("tasks", workloads())
