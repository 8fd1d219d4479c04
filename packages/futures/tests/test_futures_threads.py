"""The completion queue between threads: every history is that of a plain queue, and nothing gets lost."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from yamanote.futures import CompletionQueue, select
from yamanote.runtime import ThreadWaiter, park_thread, yield_now
from yamanote.testing import Call, History, explore_preemptions


@pytest.fixture(autouse=True)
def impatient_threads() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


async def turns(count: int) -> None:
    for _ in range(count):
        await yield_now()


class Threads:
    """Threads that start at once; what one of them raises is raised here."""

    def __init__(self, *functions: Callable[[], object]) -> None:
        self.errors: list[BaseException] = []
        self.barrier = threading.Barrier(len(functions))
        self.threads = [threading.Thread(target=self.run, args=[function]) for function in functions]
        for thread in self.threads:
            thread.start()

    def run(self, function: Callable[[], object]) -> None:
        try:
            self.barrier.wait()
            function()
        except BaseException as error:
            self.errors.append(error)

    def join(self) -> None:
        for thread in self.threads:
            thread.join()
        for error in self.errors:
            raise error


def plain_queue(finished: tuple[int, ...], call: Call) -> Iterator[tuple[object, tuple[int, ...]]]:
    """What a completion queue is to those who do one thing after the other."""
    match call.name, *call.arguments:
        case "finish", int(key):
            yield None, (*finished, key)
        case ("pop",) if finished:
            yield finished[0], finished[1:]
        case ("pop_nowait",):
            yield (finished[0], finished[1:]) if finished else (None, finished)


@pytest.mark.parametrize("seed", range(10))
def test_histories_are_those_of_a_plain_queue(seed: int) -> None:
    source = random.Random(seed)
    history = History()
    queue = CompletionQueue[int, Any]()
    made = threading.Event()

    def finish() -> None:
        async def main() -> None:
            gates: list[asyncio.Future[None]] = [asyncio.get_running_loop().create_future() for _ in range(20)]
            for key, gate in enumerate(gates):
                queue.add(asyncio.wait([gate]), key)
            await turns(3)
            made.set()
            for key, gate in enumerate(gates):
                await turns(source.randrange(4))
                with history.calling("finish", key):
                    gate.set_result(None)
                    await turns(6)

        asyncio.run(main())

    def park() -> None:
        made.wait()
        for _ in range(6):
            with history.calling("pop") as call:
                call.result, _ = park_thread(queue, timeout=60)

    def look() -> None:
        made.wait()
        for _ in range(8):  # those who park need the others
            with history.calling("pop_nowait") as call:
                entry = queue.pop_nowait()
                call.result = None if entry is None else entry[0]

    Threads(finish, park, park, look).join()
    while queue:
        look()
    history.assert_linearizable(plain_queue, ())


def finish_one(queue: CompletionQueue[int, None], loop: asyncio.AbstractEventLoop, taken: list[int]) -> None:
    loop.run_until_complete(turns(3))


def park_for_one(queue: CompletionQueue[int, None], loop: asyncio.AbstractEventLoop, taken: list[int]) -> None:
    taken.append(park_thread(queue)[0])


def give_up(queue: CompletionQueue[int, None], loop: asyncio.AbstractEventLoop, taken: list[int]) -> None:
    waiter: ThreadWaiter[Any] = ThreadWaiter()
    queue.register(waiter)
    waiter.claim()
    queue.withdraw(waiter)


def pop_one(queue: CompletionQueue[int, None], loop: asyncio.AbstractEventLoop, taken: list[int]) -> None:
    entry = queue.pop_nowait()
    if entry is not None:
        taken.append(entry[0])


Play = Callable[[CompletionQueue[int, None], asyncio.AbstractEventLoop, list[int]], None]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (finish_one, park_for_one),
        (finish_one, give_up),
        (finish_one, pop_one),
        (park_for_one, pop_one),
        (give_up, pop_one),
    ],
)
def test_two_threads_lose_nothing_wherever_one_is_interrupted(first: Play, second: Play) -> None:
    def scenario() -> tuple[Callable[[], None], Callable[[], None], Callable[[], None]]:
        loop = asyncio.new_event_loop()
        queue = CompletionQueue[int, None]()
        taken: list[int] = []
        count = 1 if first is finish_one else 2

        async def make() -> None:
            for key in range(count):
                queue.add(turns(1), key)
            if first is not finish_one:
                await turns(4)

        def check() -> None:
            loop.run_until_complete(turns(4))
            while entry := queue.pop_nowait():
                taken.append(entry[0])
            loop.close()
            assert sorted(taken) == list(range(count))
            assert not queue._waiters

        loop.run_until_complete(make())
        return partial(first, queue, loop, taken), partial(second, queue, loop, taken), check

    explore_preemptions(scenario, within="yamanote.futures._completion")


def test_threads_and_loops_that_change_their_mind_take_each_task_once() -> None:
    count = 2000
    queue = CompletionQueue[int, None]()
    taken: list[int] = []
    made, over = threading.Event(), threading.Event()

    def finish() -> None:
        async def main() -> None:
            source = random.Random(1)
            for key in range(count):
                queue.add(turns(source.randrange(5)), key)
                if not key % 20:
                    await turns(3)
                    made.set()
            while len(taken) < count:
                await asyncio.sleep(0.001)
            over.set()
            await queue.aclose()  # for those who are parked

        asyncio.run(main())

    def park() -> None:
        made.wait()
        while not over.is_set():
            try:
                taken.append(park_thread(queue, timeout=0.0001)[0])
            except (TimeoutError, LookupError):
                pass

    def change_mind() -> None:
        async def take(other: asyncio.Future[None]) -> None:
            name, value = await select(job=queue, other=other)
            assert name == "job"
            taken.append(value[0])

        async def main() -> None:
            source = random.Random(2)
            never = asyncio.get_running_loop().create_future()
            while not over.is_set():
                task: asyncio.Task[Any] = asyncio.create_task(take(never))
                await turns(source.randrange(6))
                task.cancel()
                await asyncio.wait([task])
                if not task.cancelled() and not isinstance(task.exception(), LookupError):
                    task.result()

        made.wait()
        asyncio.run(main())

    Threads(finish, park, change_mind, change_mind).join()
    assert sorted(taken) == list(range(count))
    assert not queue._waiters
