"""Programs on a runtime with two workers, against the same on one asyncio loop, and on the runtimes of others.

Run it: `python benchmarks/workers.py --help`, on a free-threaded Python and a machine with two cores to spare. Figures
are time on the wall. `yamanote.one` is our runtime with one worker; TonIO has two threads, as ours has. trio and tinyio
have one, like asyncio. The bars are ratios to TonIO, and for the first row to `yamanote.one`.
"""

from __future__ import annotations

import asyncio
import atexit
import queue
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from functools import cache, partial
from typing import Any, NamedTuple

from harness import Version, Workload, check, main
from peers import installed, load

from yamanote.channels import channel
from yamanote.runtime import run, spawn, spawn_blocking, yield_now
from yamanote.sync import Lock
from yamanote.time import sleep

tinyio = load("tinyio")
tonio = load("tonio")
tonio_colored = load("tonio.colored")
tonio_sync = load("tonio.colored.sync")
tonio_time = load("tonio.colored.time")
trio = load("trio")

WORKERS = 2

Job = Callable[[], Coroutine[Any, Any, None]]
"""A program, or a part of one."""


class Ends(NamedTuple):
    """Of a channel."""

    send: Callable[[int], Awaitable[Any]]
    receive: Callable[[], Awaitable[int]]
    close: Callable[[], object] = lambda: None


class Kit(NamedTuple):
    """What the programs need of a library."""

    all_of: Callable[[list[Job]], Awaitable[Any]]
    """Each in a task of its own, until all have ended."""
    turn: Callable[[], Awaitable[Any]]
    """Let the others have theirs."""
    sleep: Callable[[float], Awaitable[Any]]
    lock: Callable[[], AbstractAsyncContextManager[Any]]
    channel: Callable[[int], Ends]


Program = Callable[..., Coroutine[Any, Any, None]]


def workloads(scale: float = 1.0) -> list[Workload]:
    """All of them, with about `scale` times the ordinary number of operations."""
    computing = max(4, int(200 * scale))
    tasks = max(4, int(1000 * scale))
    spawned = max(10, int(50_000 * scale))
    items = max(10, int(20_000 * scale))
    trips = max(5, int(2000 * scale))
    sleepers = max(5, int(10_000 * scale))
    turns = max(2, int(500 * scale))
    rows: list[tuple[str, int, Program, tuple[int, ...], float, str]] = [
        ("coroutines that compute", computing, compute, (computing,), 0.55, "yamanote.one"),
        ("coroutines that compute, beside TonIO", computing, compute, (computing,), 0.95, "tonio"),
        ("1000 tasks that yield 20 times", tasks * 20, take_turns, (tasks, 20), 0.55, "tonio"),
        ("bounded channel, 1 producer, 1 consumer", items, produce_and_consume, (items, 100), 0.90, "tonio"),
        ("ping-pong over channels, cap=1", trips, ping_pong, (trips,), 1.00, "tonio"),
        ("spawn+join 50k no-op tasks", spawned, do_nothing, (spawned,), 1.10, "tonio"),
        ("lock, 10 tasks, a turn inside", turns * 10, contend, (10, turns), 1.20, "tonio"),
        ("10k sleepers", sleepers, oversleep, (sleepers,), 1.00, "tonio"),
    ]
    return [
        Workload(name, operations, in_each(program, *arguments), bar, clock="wall", against=against, loops=ELSEWHERE)
        for name, operations, program, arguments, bar, against in rows
    ]


def in_each(program: Program, *arguments: int) -> dict[str, Version]:
    """`program` in each runtime; asyncio's is that of the harness."""
    versions: dict[str, Version] = {"asyncio": partial(program, ASYNCIO, *arguments)}
    for library, (kit, _) in installed(RUNTIMES).items():
        if program not in BEYOND.get(library, ()):
            versions[library] = partial(in_runtime, library, partial(program, kit, *arguments))
    return versions


# ------------------------------------------------------------------------------------------- programs


def fibonacci(number: int) -> int:
    return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)


async def compute(kit: Kit, tasks: int) -> None:
    numbers: list[int] = []

    async def work() -> None:
        numbers.append(fibonacci(18))

    await kit.all_of([work] * tasks)
    check(numbers == [2584] * tasks, "another number")


async def take_turns(kit: Kit, tasks: int, turns: int) -> None:
    done: list[None] = []

    async def work() -> None:
        for _ in range(turns):
            await kit.turn()
        done.append(None)

    await kit.all_of([work] * tasks)
    check(len(done) == tasks, f"{len(done)} tasks have ended")


async def produce_and_consume(kit: Kit, items: int, capacity: int) -> None:
    ends = kit.channel(capacity)
    received = []

    async def produce() -> None:
        for item in range(items):
            await ends.send(item)

    async def consume() -> None:
        for _ in range(items):
            received.append(await ends.receive())

    await kit.all_of([produce, consume])
    ends.close()
    check(received == list(range(items)), "items were lost or mixed up")


async def ping_pong(kit: Kit, trips: int) -> None:
    there, back = kit.channel(1), kit.channel(1)
    answers = []

    async def ask() -> None:
        for number in range(trips):
            await there.send(number)
            answers.append(await back.receive())

    async def reply() -> None:
        for _ in range(trips):
            await back.send(await there.receive() + 1)

    await kit.all_of([ask, reply])
    there.close()
    back.close()
    check(answers == list(range(1, trips + 1)), "another answer")


async def do_nothing(kit: Kit, tasks: int) -> None:
    done: list[None] = []

    async def work() -> None:
        done.append(None)

    async def nothing() -> None: ...

    await kit.all_of([*[nothing] * (tasks - 1), work])
    check(len(done) == 1, "a task has not run")


async def contend(kit: Kit, tasks: int, times: int) -> None:
    lock = kit.lock()
    entered = 0

    async def work() -> None:
        nonlocal entered
        for _ in range(times):
            async with lock:
                before = entered
                await kit.turn()
                entered = before + 1

    await kit.all_of([work] * tasks)
    check(entered == tasks * times, f"{entered} times alone")


async def oversleep(kit: Kit, sleepers: int) -> None:
    awake: list[None] = []

    async def work() -> None:
        await kit.sleep(0.05)
        awake.append(None)

    await kit.all_of([work] * sleepers)
    check(len(awake) == sleepers, f"{len(awake)} are awake")


# ------------------------------------------------------------------------------------------- libraries


async def asyncio_all_of(jobs: list[Job]) -> None:
    await asyncio.gather(*[job() for job in jobs])


def asyncio_channel(capacity: int) -> Ends:
    items: asyncio.Queue[int] = asyncio.Queue(capacity)
    return Ends(items.put, items.get)


async def yamanote_all_of(jobs: list[Job]) -> None:
    await spawn(*[job() for job in jobs])


def yamanote_channel(capacity: int) -> Ends:
    sender, receiver = channel[int](capacity)
    return Ends(sender.send, receiver.recv, lambda: (sender.close(), receiver.close()))


async def tonio_all_of(jobs: list[Job]) -> None:
    await tonio_colored.spawn(*[job() for job in jobs])


def tonio_channel(capacity: int) -> Ends:
    sender, receiver = tonio_sync.channel.channel(capacity)
    return Ends(sender.send, receiver.receive)


async def trio_all_of(jobs: list[Job]) -> None:
    async with trio.open_nursery() as nursery:
        for job in jobs:
            nursery.start_soon(job)


def trio_channel(capacity: int) -> Ends:
    sender, receiver = trio.open_memory_channel(capacity)
    return Ends(sender.send, receiver.receive, lambda: (sender.close(), receiver.close()))


class Yielded:
    """What a tinyio coroutine yields, for an async function."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self._value)


def tinyio_coroutine(coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    return (yield from coroutine.__await__())


class TinyioLock:
    def __init__(self) -> None:
        self._lock = tinyio.Lock()

    async def __aenter__(self) -> None:
        self._held = await Yielded(self._lock())
        self._held.__enter__()

    async def __aexit__(self, *error: object) -> None:
        self._held.__exit__(*error)


async def tinyio_all_of(jobs: list[Job]) -> None:
    await Yielded([tinyio_coroutine(job()) for job in jobs])


ASYNCIO = Kit(asyncio_all_of, partial(asyncio.sleep, 0), asyncio.sleep, asyncio.Lock, asyncio_channel)
YAMANOTE = Kit(yamanote_all_of, yield_now, sleep, Lock, yamanote_channel)
TONIO = Kit(
    tonio_all_of,
    lambda: tonio_colored.yield_now(),
    lambda seconds: tonio_time.sleep(seconds),
    lambda: tonio_sync.Lock(),
    tonio_channel,
)
TRIO = Kit(
    trio_all_of,
    lambda: trio.lowlevel.checkpoint(),
    lambda seconds: trio.sleep(seconds),
    lambda: trio.Lock(),
    trio_channel,
)
TINYIO = Kit(
    tinyio_all_of,
    lambda: Yielded(None),
    lambda seconds: Yielded(tinyio.sleep(seconds)),
    TinyioLock,
    asyncio_channel,  # it has none, and does not get the programs that need one
)
BEYOND: dict[str, tuple[Program, ...]] = {"tinyio": (produce_and_consume, ping_pong, do_nothing, oversleep)}
"""It has no channels, and waits for many tasks in a time that grows with the square of their number."""


# ------------------------------------------------------------------------------------------- runtimes


Jobs = queue.SimpleQueue[tuple[Job, Callable[[BaseException | None], None]] | None]
Get = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Call a function that blocks, in a thread."""


async def serve(jobs: Jobs, get: Get) -> None:
    """Run one program after the other, in a runtime."""
    while (job := await get(jobs.get)) is not None:
        program, settle = job
        try:
            await program()
        except BaseException as error:
            settle(error)
        else:
            settle(None)


async def in_runtime(library: str, program: Job) -> None:
    """Run `program` in the runtime of that library, which runs in a thread, and goes on when it has ended."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        loop.call_soon_threadsafe(settle_here, error)

    def settle_here(error: BaseException | None) -> None:
        if not ended.done():
            ended.set_result(None) if error is None else ended.set_exception(error)

    jobs_of(library).put((program, settle))
    await ended


@cache
def jobs_of(library: str) -> Jobs:
    """What the runtime of that library is to run. It begins here, and ends with `end_runtimes`."""
    jobs: Jobs = queue.SimpleQueue()
    thread = threading.Thread(target=RUNTIMES[library][1], args=[jobs], name=library, daemon=True)
    thread.start()
    running.append((thread, jobs))
    return jobs


running: list[tuple[threading.Thread, Jobs]] = []


@atexit.register
def end_runtimes() -> None:
    jobs_of.cache_clear()
    while running:
        thread, jobs = running.pop()
        jobs.put(None)
        thread.join(10.0)


def tinyio_main(jobs: Jobs) -> None:
    tinyio.Loop().run(tinyio_coroutine(serve(jobs, lambda call: Yielded(tinyio.run_in_thread(call)))))


RUNTIMES: dict[str, tuple[Kit, Callable[[Jobs], object]]] = {
    "yamanote": (YAMANOTE, lambda jobs: run(serve(jobs, spawn_blocking), workers=WORKERS)),
    "yamanote.one": (YAMANOTE, lambda jobs: run(serve(jobs, spawn_blocking))),
    "tonio": (TONIO, lambda jobs: tonio.run(serve(jobs, tonio_colored.spawn_blocking), threads=WORKERS)),
    "trio": (TRIO, lambda jobs: trio.run(serve, jobs, lambda call: trio.to_thread.run_sync(call))),
    "tinyio": (TINYIO, tinyio_main),
}


ELSEWHERE = dict.fromkeys(RUNTIMES, asyncio.new_event_loop)
"""The turns of the loop that waits for them say nothing."""


if __name__ == "__main__":
    main("workers", workloads())
