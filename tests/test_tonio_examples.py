"""What people who come from TonIO have in their hands: each of its examples, in both syntaxes, with the names of ours.

The pairs do the same, and so they find the same. Where an example does not run as it stands there, a comment says what
was repaired. One repair is in many of them: what several tasks count, they count in lists, since they may be on several
workers, where ``+= 1`` is no single step. And all of them are told when to look, where there they sleep long enough.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from yamanote import time
from yamanote.channels import ChannelClosed, Receiver, Sender, channel, unbounded
from yamanote.net import socket
from yamanote.runtime import Runtime, generators, map_blocking, run, scope, spawn, spawn_blocking, yield_now
from yamanote.runtime import main as async_main
from yamanote.runtime import map as async_map
from yamanote.runtime.generators import coroutine
from yamanote.sync import Barrier, Event, Lock, Semaphore, WouldBlock
from yamanote.time import interval, interval_at, sleep, timeout

# The options of `run`: the examples hold whatever the runtime looks like.
with_each_runtime = pytest.mark.parametrize(
    "options", [{}, {"workers": 2}, {"workers": 4}], ids=["1 worker", "2 workers", "4 workers"]
)
Options = dict[str, Any]


def both(yields: Callable[[], Any], awaits: Callable[[], Any], options: Options) -> Any:
    """What the two programs find, which is the same."""
    found = generators.run(yields(), **options)
    assert run(awaits(), **options) == found
    return found


# ------------------------------------------------------------------------------------------------ running and spawning


@with_each_runtime
def test_in_a_nutshell(options: Options) -> None:
    def add_one(number: int) -> Any:
        yield sleep(0.001)
        return number + 1

    def yields() -> Any:
        four, five = yield generators.spawn(add_one(3), add_one(4))
        return four, five

    async def async_add_one(number: int) -> int:
        await sleep(0.001)
        return number + 1

    async def awaits() -> Any:
        four, five = await spawn(async_add_one(3), async_add_one(4))
        return four, five

    assert both(yields, awaits, options) == (4, 5)


@with_each_runtime
def test_the_entry_points(options: Options) -> None:
    said: list[str] = []

    def yields() -> Any:
        yield
        said.append("hello world")

    async def awaits() -> None:
        await yield_now()
        said.append("hello world")

    both(yields, awaits, options)
    generators.main(**options)(yields)()
    async_main(**options)(awaits)()
    generators.main(yields)()
    async_main(awaits)()
    assert said == ["hello world"] * 6  # "once per program" is no rule here


@with_each_runtime
def test_a_runtime_by_hand(options: Options) -> None:
    def first() -> Any:
        yield
        return 1

    async def second() -> int:
        return 2

    with generators.Runtime(**options) as runtime:
        assert [runtime.run_until_complete(first()), runtime.run_until_complete(second())] == [1, 2]
    with Runtime(**options) as runtime:
        assert [runtime.run_until_complete(coroutine(first())), runtime.run_until_complete(second())] == [1, 2]


@with_each_runtime
def test_an_event_that_another_task_sets(options: Options) -> None:
    def yields() -> Any:
        event = Event()
        before = event.is_set()

        def setter() -> Any:
            yield sleep(0.001)
            event.set()

        generators.spawn(setter())
        yield event.wait()
        after = event.is_set()
        event.clear()
        return before, after, (yield timeout(event.wait(), 0.001))  # the time limit of `wait`, which tells how it ended

    async def awaits() -> Any:
        event = Event()
        before = event.is_set()

        async def setter() -> None:
            await sleep(0.001)
            event.set()

        spawn(setter())
        await event.wait()
        after = event.is_set()
        event.clear()
        return before, after, await timeout(event.wait(), 0.001)

    assert both(yields, awaits, options) == (False, True, (None, False))


@with_each_runtime
def test_spawned_work_goes_on_beside_a_call(options: Options) -> None:
    def double(number: int) -> Any:
        yield
        return number * 2

    def yields() -> Any:
        parallel = generators.spawn(double(2), double(3))
        third = yield double(4)
        first, second = yield parallel
        return [first, second, third]

    async def async_double(number: int) -> int:
        await yield_now()
        return number * 2

    async def awaits() -> Any:
        parallel = spawn(async_double(2), async_double(3))
        third = await async_double(4)
        first, second = await parallel
        return [first, second, third]

    assert both(yields, awaits, options) == [4, 6, 8]


@with_each_runtime
def test_blocking_calls(options: Options, tmp_path: Path) -> None:
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for path in paths:
        path.write_text(path.name, "utf-8")

    def read_file(path: Path) -> str:  # there it opens a `file` that it does not know
        with open(path, encoding="utf-8") as file:
            return file.read()

    def yields() -> Any:
        one = yield generators.spawn_blocking(read_file, paths[0])
        return one, (yield generators.map_blocking(read_file, paths))

    async def awaits() -> Any:
        one = await spawn_blocking(read_file, paths[0])
        return one, await map_blocking(read_file, paths)

    assert both(yields, awaits, options) == ("a.txt", ["a.txt", "b.txt"])


@with_each_runtime
def test_one_call_per_item(options: Options) -> None:
    def yields() -> Any:
        collected: list[int] = []

        def work(number: int) -> Any:
            yield sleep(0.001)
            collected.append(number * 2)

        yield generators.map(work, range(4))
        return sorted(collected)

    async def awaits() -> Any:
        collected: list[int] = []

        async def work(number: int) -> None:
            await sleep(0.001)
            collected.append(number * 2)

        await async_map(work, range(4))
        return sorted(collected)

    assert both(yields, awaits, options) == [0, 2, 4, 6]


@with_each_runtime
def test_a_scope_cancels_what_is_left(options: Options) -> None:
    def yields() -> Any:
        values: list[bool] = []
        pushed = Event()

        def slow_push(seconds: float) -> Any:  # there it is spawned under another name
            yield sleep(seconds)
            values.append(True)
            pushed.set()

        with generators.scope() as s:
            s.spawn(slow_push(0.001))
            s.spawn(slow_push(3600))
            yield pushed.wait()
            s.cancel()
        yield s()
        return values

    async def awaits() -> Any:
        values: list[bool] = []
        pushed = Event()

        async def slow_push(seconds: float) -> None:
            await sleep(seconds)
            values.append(True)
            pushed.set()

        async with scope() as s:
            s.spawn(slow_push(0.001))
            s.spawn(slow_push(3600))
            await pushed.wait()
            s.cancel()
        return values

    assert both(yields, awaits, options) == [True]


@with_each_runtime
def test_a_scope_waits_for_what_was_spawned_in_it(options: Options) -> None:
    def yields() -> Any:
        values: list[int] = []

        def push(value: int) -> Any:
            yield
            values.append(value)

        with generators.scope() as s:
            for value in range(3):
                s.spawn(push(value))
        yield s()
        return sorted(values)

    async def awaits() -> Any:
        values: list[int] = []

        async def push(value: int) -> None:
            await yield_now()
            values.append(value)

        async with scope() as s:
            for value in range(3):
                s.spawn(push(value))
        return sorted(values)

    assert both(yields, awaits, options) == [0, 1, 2]


# ---------------------------------------------------------------------------------------------------------------- time


@with_each_runtime
def test_the_clock_and_time_limits(options: Options) -> None:
    def slow(seconds: float) -> Any:
        yield sleep(seconds)
        return "done"

    def yields() -> Any:
        before = time.time()
        yield sleep(0.002)
        slept = time.time() - before >= 0.002
        return slept, (yield timeout(coroutine(slow(0)), 60)), (yield timeout(coroutine(slow(3600)), 0.001))

    async def async_slow(seconds: float) -> str:
        await sleep(seconds)
        return "done"

    async def awaits() -> Any:
        before = time.time()
        await sleep(0.002)
        slept = time.time() - before >= 0.002
        return slept, await timeout(async_slow(0), 60), await timeout(async_slow(3600), 0.001)

    assert both(yields, awaits, options) == (True, ("done", True), (None, False))


@with_each_runtime
def test_work_on_a_schedule(options: Options) -> None:
    def yields() -> Any:
        sender, receiver = channel(3)

        def work() -> Any:
            yield sender.send("work")

        # There the entry point does nothing but spawn it: without a `yield` that is no generator, and it ends at once.
        def scheduler() -> Any:
            ticks = interval(0.001)
            while True:
                yield ticks.tick()
                generators.spawn(work())

        with sender, receiver:
            with generators.scope() as s:
                s.spawn(scheduler())
                found = []
                for _ in range(3):
                    found.append((yield receiver.recv()))
                s.cancel()
            yield s()
            return found

    async def awaits() -> Any:
        sender, receiver = channel(3)

        async def work() -> None:
            await sender.send("work")

        async def scheduler() -> None:
            ticks = interval(0.001)
            while True:
                await ticks.tick()
                spawn(work())

        with sender, receiver:
            async with scope() as s:
                s.spawn(scheduler())
                found = [await receiver.recv() for _ in range(3)]
                s.cancel()
            return found

    assert both(yields, awaits, options) == ["work"] * 3


@with_each_runtime
def test_a_schedule_that_begins_later(options: Options) -> None:
    def yields() -> Any:
        start = time.time() + 0.005  # there it is asked for the time before anything runs
        first = yield interval_at(start, 0.5).tick()
        return round(first - start, 6)

    async def awaits() -> Any:
        start = time.time() + 0.005
        first = await interval_at(start, 0.5).tick()
        return round(first - start, 6)

    assert both(yields, awaits, options) == 0


# ---------------------------------------------------------------------------------------------------- synchronization


@with_each_runtime
def test_a_lock_lets_one_in(options: Options) -> None:
    def yields() -> Any:
        lock, inside, most = Lock(), [], []

        def count() -> Any:
            with (yield lock()):
                inside.append(None)
                most.append(len(inside))
                yield
                inside.pop()

        yield generators.spawn(*[count() for _ in range(10)])
        return most

    async def awaits() -> Any:
        lock, inside, most = Lock(), [], []

        async def count() -> None:
            async with lock():  # there it cannot be called in this syntax; nor can the semaphore
                inside.append(None)
                most.append(len(inside))
                await yield_now()
                inside.pop()

        await spawn(*[count() for _ in range(10)])
        return most

    assert both(yields, awaits, options) == [1] * 10


@with_each_runtime
def test_a_semaphore_lets_several_in(options: Options) -> None:
    def yields() -> Any:
        semaphore, inside, most = Semaphore(2), [], []

        def count() -> Any:
            with (yield semaphore()):
                inside.append(None)
                most.append(len(inside))
                yield
                inside.pop()

        yield generators.spawn(*[count() for _ in range(10)])
        return len(most), max(most) <= 2, semaphore.tokens()

    async def awaits() -> Any:
        semaphore, inside, most = Semaphore(2), [], []

        async def count() -> None:
            async with semaphore():
                inside.append(None)
                most.append(len(inside))
                await yield_now()
                inside.pop()

        await spawn(*[count() for _ in range(10)])
        return len(most), max(most) <= 2, semaphore.tokens()

    assert both(yields, awaits, options) == (10, True, 2)


@with_each_runtime
@pytest.mark.parametrize("make", [Lock, lambda: Semaphore(1)], ids=["lock", "semaphore"])
def test_what_is_not_free_can_be_refused(options: Options, make: Callable[[], Any]) -> None:
    def yields() -> Any:
        lock = make()
        with lock.or_raise():
            yield
            with pytest.raises(WouldBlock):
                lock.or_raise()
        return lock.locked()

    async def awaits() -> Any:
        lock = make()
        with lock.or_raise():
            await yield_now()
            with pytest.raises(WouldBlock):
                lock.or_raise()
        return lock.locked()

    assert both(yields, awaits, options) is False


@with_each_runtime
def test_a_barrier_opens_when_all_are_there(options: Options) -> None:
    def yields() -> Any:
        barrier, here = Barrier(3), []

        def start_at_three() -> Any:
            here.append(None)
            position = yield barrier.wait()
            assert len(here) == 3
            return position

        positions = yield generators.spawn(*[start_at_three() for _ in range(3)])
        return sorted(positions), barrier.value()

    async def awaits() -> Any:
        barrier, here = Barrier(3), []

        async def start_at_three() -> int:
            here.append(None)
            position = await barrier.wait()
            assert len(here) == 3
            return position

        positions = await spawn(*[start_at_three() for _ in range(3)])
        return sorted(positions), barrier.value()

    assert both(yields, awaits, options) == ([0, 1, 2], 0)


# ------------------------------------------------------------------------------------------------------------ channels


@with_each_runtime
@pytest.mark.parametrize("make", [lambda: channel(2), unbounded], ids=["bounded", "unbounded"])
def test_several_producers_and_consumers(options: Options, make: Callable[[], Any]) -> None:
    # There each producer sends one and the same message all the time, and the consumers take any error for the end.

    def yields() -> Any:
        messages: list[int] = []

        def produce(sender: Sender[int], barrier: Barrier, offset: int) -> Any:
            for number in range(20):
                if make is unbounded:
                    sender.send_nowait(offset + number)
                else:
                    yield sender.send(offset + number)
            yield barrier.wait()

        def consume(receiver: Receiver[int]) -> Any:
            while True:
                try:
                    messages.append((yield receiver.recv()))
                except ChannelClosed:
                    break

        def close(sender: Sender[int], barrier: Barrier) -> Any:
            yield barrier.wait()
            sender.close()

        sender, receiver = make()
        barrier = Barrier(3)
        with receiver:
            yield generators.spawn(
                produce(sender, barrier, 100),
                produce(sender, barrier, 200),
                *[consume(receiver) for _ in range(4)],
                close(sender, barrier),
            )
        return sorted(messages)

    async def awaits() -> Any:
        messages: list[int] = []

        async def produce(sender: Sender[int], barrier: Barrier, offset: int) -> None:
            for number in range(20):
                if make is unbounded:
                    sender.send_nowait(offset + number)
                else:
                    await sender.send(offset + number)
            await barrier.wait()

        async def consume(receiver: Receiver[int]) -> None:
            while True:
                try:
                    messages.append(await receiver.recv())
                except ChannelClosed:
                    break

        async def close(sender: Sender[int], barrier: Barrier) -> None:
            await barrier.wait()
            sender.close()

        sender, receiver = make()
        barrier = Barrier(3)
        with receiver:
            await spawn(
                produce(sender, barrier, 100),
                produce(sender, barrier, 200),
                *[consume(receiver) for _ in range(4)],
                close(sender, barrier),
            )
        return sorted(messages)

    assert both(yields, awaits, options) == [*range(100, 120), *range(200, 220)]


# ------------------------------------------------------------------------------------------------------------- sockets


def new_uvloop() -> asyncio.AbstractEventLoop:
    if not find_spec("uvloop"):
        pytest.skip("uvloop is not installed")
    loop: asyncio.AbstractEventLoop = import_module("uvloop").new_event_loop()
    return loop


@with_each_runtime
@pytest.mark.parametrize(
    "loop",
    [{}, {"loop_factory": asyncio.SelectorEventLoop}, {"loop_factory": new_uvloop}],
    ids=["ours", "asyncio", "uvloop"],
)
def test_a_server_and_its_clients(loop: Options, options: Options) -> None:
    def yields() -> Any:
        bound, address = unbounded()
        received, messages = unbounded()

        def server() -> Any:
            sock = socket.socket()
            with sock:
                yield sock.bind(("127.0.0.1", 0))  # there it is 8000, which may be taken
                sock.listen()
                bound.send_nowait(sock.getsockname())

                while True:  # and so it is cancelled in the end
                    client, _ = yield sock.accept()
                    generators.spawn(server_handle(client))

        def server_handle(connection: socket.socket) -> Any:
            with connection:
                received.send_nowait((yield connection.recv(4096)))

        def client(address: Any) -> Any:
            sock = socket.socket()
            with sock:
                yield sock.connect(address)
                yield sock.send(b"message")  # there it is text, which no socket takes

        with bound, address, received, messages:
            with generators.scope() as s:
                s.spawn(server())
                to = yield address.recv()
                yield generators.spawn(*[client(to) for _ in range(3)])
                found = []
                for _ in range(3):
                    found.append((yield messages.recv()))
                s.cancel()
            yield s()
        return found

    async def awaits() -> Any:
        bound, address = unbounded()
        received, messages = unbounded()

        async def server() -> None:
            sock = socket.socket()
            with sock:
                await sock.bind(("127.0.0.1", 0))
                sock.listen()
                bound.send_nowait(sock.getsockname())

                while True:
                    client, _ = await sock.accept()
                    spawn(server_handle(client))

        async def server_handle(connection: socket.socket) -> None:
            with connection:
                received.send_nowait(await connection.recv(4096))

        async def client(address: Any) -> None:
            sock = socket.socket()
            with sock:
                await sock.connect(address)
                await sock.send(b"message")

        with bound, address, received, messages:
            async with scope() as s:
                s.spawn(server())
                to = await address.recv()
                await spawn(*[client(to) for _ in range(3)])
                found = [await messages.recv() for _ in range(3)]
                s.cancel()
        return found

    assert both(yields, awaits, loop | options) == [b"message"] * 3
