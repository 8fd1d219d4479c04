"""The dump: what every task is doing."""

import asyncio
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from yamanote.runtime import (
    BlockingPool,
    CancelScope,
    JoinHandle,
    TaskGroup,
    TaskWaiter,
    describe,
    dump,
    park,
    record_spawn_sites,
    run,
    spawn,
    spawn_blocking,
    start_task,
)


async def settle() -> None:
    """Let everybody come to where they wait."""
    for _ in range(10):
        await asyncio.sleep(0)


async def wait_for_nothing() -> None:
    await asyncio.get_running_loop().create_future()


def first_line(task: asyncio.Task[Any]) -> str:
    return describe(task).splitlines()[0]


def functions(task: asyncio.Task[Any]) -> list[str]:
    """The calls of a task, from the outside in, without those that are local to a test's."""
    return [line.rpartition(" in ")[2].rpartition("<locals>.")[2] for line in describe(task).splitlines()[1:]]


async def waiting(coroutine: Any, name: str) -> asyncio.Task[Any]:
    task = asyncio.ensure_future(coroutine)
    task.set_name(name)
    await settle()
    return task


async def ended(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


# ---------------------------------------------------------------------- what a task does


async def test_a_task_that_has_not_started_says_so() -> None:
    task = asyncio.create_task(asyncio.sleep(0), name="late")

    assert first_line(task) == "'late' has not started"
    await task
    assert describe(task) == "'late' has ended"


async def test_the_running_task_says_so() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.set_name("me")

    assert first_line(task) == "'me' is running"


async def test_a_running_task_is_shown_down_to_what_it_calls() -> None:
    def plain() -> str:
        return dump()

    async def inner() -> str:
        return plain()

    async def outer() -> str:
        return await inner()

    text = await asyncio.create_task(outer(), name="busy")
    _, _, block = text.partition("'busy' is running\n")
    calls = [line.rpartition("<locals>.")[2] for line in block.splitlines()[:3]]
    assert calls == ["outer", "inner", "plain"]
    assert "in dump" not in text


def test_a_task_that_blocks_its_loop_is_seen_from_another_thread() -> None:
    started, gate = threading.Event(), threading.Event()
    loop = asyncio.new_event_loop()

    def block() -> None:
        started.set()
        gate.wait()

    async def main() -> None:
        block()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    started.wait()
    text = dump(loop)
    gate.set()
    thread.join()
    loop.close()

    assert " is running" in text
    assert "<locals>.block" in text


async def test_a_task_that_lets_others_run_is_ready() -> None:
    task = asyncio.create_task(asyncio.sleep(0), name="polite")
    await asyncio.sleep(0)

    assert first_line(task) == "'polite' is ready to run"
    await task


async def test_a_task_whose_future_is_done_is_ready() -> None:
    future = asyncio.get_running_loop().create_future()

    async def wait() -> None:
        await future

    task = await waiting(wait(), "woken")
    assert first_line(task) == "'woken' waits for a future"
    future.set_result(None)
    assert first_line(task) == "'woken' is ready to run"
    await task


async def test_a_task_whose_join_is_over_is_ready() -> None:
    future = asyncio.get_running_loop().create_future()

    async def wait() -> None:
        await future

    async def join() -> None:
        await handle

    handle = spawn(wait(), name="joined")
    task = await waiting(join(), "joiner")
    assert first_line(task) == "'joiner' waits for the task 'joined'"
    future.set_result(None)
    await asyncio.sleep(0)
    assert handle.is_finished()
    assert first_line(task) == "'joiner' is ready to run"
    await task


async def test_a_sleeper_says_until_when() -> None:
    loop = asyncio.get_running_loop()
    task = await waiting(asyncio.sleep(1000), "sleeper")

    (moment,) = [timer.when() for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
    assert first_line(task) == f"'sleeper' sleeps until {moment:.3f}"
    await ended(task)


@pytest.mark.parametrize("join", [lambda task: task, JoinHandle, asyncio.shield, asyncio.gather])
async def test_who_waits_for_a_task_names_it(join: Callable[[Any], Any]) -> None:
    async def wait() -> None:
        await join(target)

    target = await waiting(wait_for_nothing(), "target")
    task = await waiting(wait(), "waiter")

    expected = "a future" if join is asyncio.shield else "the task 'target'"
    assert first_line(task) == f"'waiter' waits for {expected}"
    await ended(target, task)


async def test_who_gathers_names_those_that_are_missing() -> None:
    async def wait() -> None:
        await asyncio.gather(first, asyncio.sleep(0), asyncio.gather(second))

    first = await waiting(wait_for_nothing(), "first")
    second = await waiting(wait_for_nothing(), "second")
    task = await waiting(wait(), "waiter")

    assert first_line(task) == "'waiter' waits for the task 'first', the task 'second'"
    await ended(first, second, task)


class Bell:
    """A primitive: what its waiters wait for is the bell."""

    def register(self, waiter: Any, /) -> None:
        """Nobody ever rings."""

    def withdraw(self, waiter: Any, /) -> None:
        """Nobody ever did."""

    def __repr__(self) -> str:
        return "<Bell>"


async def test_who_is_parked_names_the_primitive() -> None:
    task = await waiting(park(Bell()), "listener")

    assert first_line(task) == "'listener' waits for <Bell>"
    await ended(task)


async def test_who_waits_in_something_of_asyncio_names_the_object_and_the_call() -> None:
    queue: asyncio.Queue[None] = asyncio.Queue()
    task = await waiting(queue.get(), "getter")

    assert first_line(task) == f"'getter' waits for {queue!r}, in Queue.get()"
    await ended(task)


async def test_who_waits_for_a_call_in_a_thread_names_the_function() -> None:
    gate = threading.Event()

    def work() -> None:
        gate.wait()

    async def wait() -> None:
        await spawn_blocking(work)

    task = await waiting(wait(), "waiter")
    assert ".work' running>, in JoinHandle.__await__()" in first_line(task)
    gate.set()
    await task


class Broken:
    async def wait(self) -> None:
        await wait_for_nothing_in(self)

    def __repr__(self) -> str:
        raise RuntimeError("I have no words")


class Endless:
    def __repr__(self) -> str:
        return "x" * 10_000


async def wait_for_nothing_in(self: object) -> None:
    await asyncio.get_running_loop().create_future()


async def test_a_representation_that_fails_or_never_ends_does_no_harm() -> None:
    broken = await waiting(Broken().wait(), "broken")
    endless = await waiting(wait_for_nothing_in(Endless()), "endless")

    assert "Broken object at" in first_line(broken)
    assert len(first_line(endless)) < 200
    await ended(broken, endless)


# ---------------------------------------------------------------------- where it is


async def test_the_calls_are_shown_from_the_outside_in_with_their_lines() -> None:
    async def outer() -> None:
        await inner()

    async def inner() -> None:
        await wait_for_nothing()

    task = await waiting(outer(), "caller")
    lines = describe(task).splitlines()[1:]

    assert functions(task) == ["outer", "inner", "wait_for_nothing"]
    first = outer.__code__.co_firstlineno
    assert lines[0] == f"    {__file__}:{first + 1} in {outer.__code__.co_qualname}"
    assert lines[1] == f"    {__file__}:{first + 4} in {inner.__code__.co_qualname}"
    await ended(task)


class Awaitable:
    def __await__(self) -> Generator[Any, None, None]:
        yield from wait_for_nothing().__await__()


class ByHand:
    def __await__(self) -> Generator[Any, None, None]:
        steps = wait_for_nothing()
        sent: Any = None
        while True:
            try:
                sent = yield steps.send(sent)
            except BaseException:
                steps.close()
                raise


async def numbers() -> AsyncIterator[int]:
    yield 1
    await wait_for_nothing()


async def more_numbers() -> AsyncIterator[int]:
    async for number in numbers():
        yield number


@asynccontextmanager
async def context() -> AsyncIterator[None]:
    await wait_for_nothing()
    yield


async def awaits_an_object() -> None:
    await Awaitable()


async def awaits_by_hand() -> None:
    await ByHand()


async def iterates() -> None:
    async for _ in more_numbers():
        pass


async def takes_the_next() -> None:
    iterator = more_numbers()
    await anext(iterator)
    await anext(iterator, None)


async def throws() -> None:
    async def stubborn() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await wait_for_nothing()

    iterator: Any = stubborn()
    await anext(iterator)
    await iterator.athrow(ValueError())


async def enters() -> None:
    async with context():
        pass


@pytest.mark.parametrize(
    ("program", "chain"),
    [
        (awaits_an_object, ["awaits_an_object", "Awaitable.__await__"]),
        (awaits_by_hand, ["awaits_by_hand", "ByHand.__await__"]),
        (iterates, ["iterates", "more_numbers", "numbers"]),
        (takes_the_next, ["takes_the_next", "more_numbers", "numbers"]),
        (throws, ["throws", "stubborn"]),
        (enters, ["enters", "_AsyncGeneratorContextManager.__aenter__", "context"]),
    ],
)
async def test_the_chain_goes_through(program: Callable[[], Any], chain: list[str]) -> None:
    task = await waiting(program(), "caller")

    assert functions(task) == [*chain, "wait_for_nothing"]
    await ended(task)


async def test_the_chain_goes_through_what_is_awaited_from_here() -> None:
    async def body() -> None:
        async with TaskGroup() as group:
            group.spawn(wait_for_nothing(), name="child")

    task = await waiting(body(), "parent")

    assert functions(task) == ["body", "TaskGroup.__aexit__"]
    assert first_line(task).endswith("in TaskGroup.__aexit__()")
    await ended(task)


async def test_a_very_deep_task_is_shown_as_far_as_is_sensible() -> None:
    async def descend(depth: int) -> None:
        if depth:
            await descend(depth - 1)
        else:
            await wait_for_nothing()

    task = await waiting(descend(400), "deep")

    assert len(describe(task).splitlines()) == 201
    await ended(task)


# ---------------------------------------------------------------------- all of them


async def test_every_unfinished_task_is_there_in_the_order_of_its_name() -> None:
    tasks = [asyncio.create_task(wait_for_nothing(), name=f"Task-{number}-of-12") for number in range(1, 13)]
    over = asyncio.create_task(asyncio.sleep(0), name="over")
    await over
    lines = dump().splitlines()
    names = [line.split("'")[1] for line in lines[1:] if not line.startswith(" ")]

    assert lines[0].startswith("13 tasks have not ended, at ")
    assert [name for name in names if name.endswith("-of-12")] == [task.get_name() for task in tasks]
    assert "over" not in names
    await ended(*tasks)


def test_a_loop_is_named_and_asked_for_the_time() -> None:
    class Stopped(asyncio.SelectorEventLoop):
        def time(self) -> float:
            return 12.5

    with asyncio.Runner(loop_factory=Stopped) as runner:
        loop = runner.get_loop()
        assert dump(loop) == "0 tasks have not ended, at 12.500 on the clock of their loop"
        task = loop.create_task(wait_for_nothing(), name="only")
        assert dump(loop).splitlines()[:2] == [
            "1 task has not ended, at 12.500 on the clock of their loop",
            "'only' has not started",
        ]
        runner.run(ended(task))


def test_without_a_loop_it_is_refused() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        dump()


async def test_another_thread_may_look() -> None:
    task = await waiting(wait_for_nothing(), "seen from afar")

    text = await asyncio.to_thread(dump, asyncio.get_running_loop())

    assert "'seen from afar' waits for a future" in text
    assert "in wait_for_nothing" in text
    await ended(task)


async def test_another_thread_may_look_while_tasks_come_and_go() -> None:
    loop = asyncio.get_running_loop()
    looking = spawn_blocking(lambda: [dump(loop) for _ in range(50)])

    while not looking.is_finished():
        await asyncio.gather(*(asyncio.sleep(0) for _ in range(10)))

    assert all("not ended" in text for text in await looking)


def test_a_loop_that_is_busy_in_another_thread_may_be_looked_at() -> None:
    # Without the interpreter lock, to look into a coroutine that runs crashes the interpreter.
    loops: list[asyncio.AbstractEventLoop] = []
    stop: list[None] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        while not stop:
            await asyncio.sleep(0)

    thread = threading.Thread(target=run, args=(main(),))
    thread.start()
    while not loops:
        pass
    texts = [dump(loops[0]) for _ in range(500)]
    stop.append(None)
    thread.join()
    assert all("1 task has not ended" in text for text in texts)


async def test_looking_changes_nothing() -> None:
    async def wait() -> str:
        async for _ in more_numbers():
            try:
                await park(Bell())
            except asyncio.CancelledError:
                return "cancelled once"
        return "never"

    task = await waiting(wait(), "watched")
    assert describe(task) == describe(task)
    dump()
    task.cancel()
    assert await task == "cancelled once"


def test_it_works_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")

    async def main() -> None:
        sleeper = await waiting(asyncio.sleep(1000), "sleeper")
        listener = await waiting(park(Bell()), "listener")
        text = dump()
        assert "'sleeper' sleeps until " in text
        assert "'listener' waits for <Bell>" in text
        await ended(sleeper, listener)

    run(main(), loop_factory=uvloop.new_event_loop)


async def test_a_waiter_that_is_awaited_by_hand_is_a_future() -> None:
    async def wait() -> None:
        await TaskWaiter[None]().future

    task = await waiting(wait(), "waiter")

    assert first_line(task) == "'waiter' waits for a future"
    await ended(task)


# ---------------------------------------------------------------------- cancellation, rings, threads, spawn sites


async def test_a_task_that_has_been_cancelled_and_goes_on_says_so() -> None:
    async def stubborn() -> None:
        try:
            await wait_for_nothing()
        finally:
            await wait_for_nothing()

    task = await waiting(stubborn(), "stubborn")
    assert "cancelled" not in first_line(task)
    task.cancel()
    await settle()
    assert first_line(task).endswith("; it has been cancelled")
    await ended(task)


async def test_the_reason_of_a_cancellation_is_told_if_it_can_be_found() -> None:
    scopes: list[CancelScope] = []

    async def in_a_scope() -> None:
        with CancelScope() as scope:
            scopes.append(scope)
            try:
                await wait_for_nothing()
            finally:
                await wait_for_nothing()

    scoped = await waiting(in_a_scope(), "scoped")
    scopes[0].cancel("closing time")
    await settle()
    assert first_line(scoped).endswith("; it has been cancelled: closing time")
    late = asyncio.create_task(asyncio.sleep(0), name="late")
    late.cancel("changed my mind")
    assert first_line(late) == "'late' has not started; it has been cancelled: changed my mind"
    await ended(scoped, late)


async def test_tasks_that_wait_for_each_other_are_named_as_a_ring() -> None:
    tasks: dict[str, asyncio.Task[None]] = {}

    async def wait_for(name: str) -> None:
        await (tasks[name] if name != "b" else JoinHandle(tasks[name]))

    for name, other in (("a", "b"), ("b", "c"), ("c", "a"), ("outside", "a")):
        tasks[name] = asyncio.create_task(wait_for(other), name=name)
    await settle()
    lines = dump().splitlines()
    assert lines[1] == "a dead-lock, unless one of them is cancelled: 'a' waits for 'b' waits for 'c' waits for 'a'"
    assert "dead-lock" not in "".join(lines[2:])
    for task in tasks.values():
        task.cancel()
    await asyncio.wait(tasks.values())
    assert "dead-lock" not in dump()


async def test_calls_in_threads_are_shown_with_what_they_are_in() -> None:
    pool = BlockingPool(1, name="disk")
    inside, gate = threading.Event(), threading.Event()

    def work() -> None:
        inside.set()
        gate.wait(60)

    running, queued = pool.spawn(work), pool.spawn(len, "")
    assert await asyncio.to_thread(inside.wait, 60)
    text = dump()
    before, _, ours = text.partition(f"{work.__qualname__!r} runs in the thread 'disk-1'\n")
    assert "'len' waits for a thread" in before
    assert f"{__file__}:" in ours.splitlines()[0] and ours.splitlines()[0].endswith(".work")
    assert "_call.py" not in ours  # only what was called
    running.abort()
    assert "runs in the thread 'disk-1'; it has been cancelled" in dump()
    gate.set()
    await running
    await queued
    assert "disk" not in dump()
    await asyncio.to_thread(pool.shutdown)


def here(line: int = 0) -> str:
    frame = sys._getframe(1)
    return f"{frame.f_code.co_filename}:{frame.f_lineno + line} in {frame.f_code.co_qualname}"


@pytest.fixture
def sites() -> Iterator[None]:
    record_spawn_sites()
    yield
    record_spawn_sites(False)


async def test_nothing_is_kept_of_where_a_task_was_spawned_unless_it_is_asked_for() -> None:
    handle = spawn(wait_for_nothing())
    assert handle.spawned_at is None and "spawned at" not in dump()
    handle.abort()


async def test_a_handle_knows_where_it_was_spawned(sites: None) -> None:
    handles = {
        "spawn": (spawn(wait_for_nothing()), here()),
        "eager": (spawn(wait_for_nothing(), eager=True), here()),
        "several": (spawn(wait_for_nothing(), wait_for_nothing()), here()),
        "thread": (spawn_blocking(len, ""), here()),
    }
    async with TaskGroup() as group:
        handles["group"] = (group.spawn(wait_for_nothing()), here())
        for handle, site in handles.values():
            assert handle.spawned_at == site
            handle.abort()
    for handle, site in handles.values():
        assert handle.spawned_at == site  # when it has ended, too


async def test_the_site_of_a_task_is_outside_of_yamanote(sites: None) -> None:
    tasks: set[asyncio.Task[Any]] = set()

    async def child() -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]

    async def caller() -> None:
        await ours(child)

    names: dict[str, Any] = {"__name__": "yamanote.futures._map", "start_task": start_task}
    exec("async def ours(function):\n    await start_task(function())", names)
    ours = names["ours"]
    await caller()
    (task,) = tasks
    site = JoinHandle(task).spawned_at
    assert site is not None and site.endswith(" in test_the_site_of_a_task_is_outside_of_yamanote.<locals>.caller")


async def test_the_site_keeps_nothing_alive(sites: None) -> None:
    class Thing:
        pass

    def start() -> tuple[JoinHandle[None], weakref.ref[Thing]]:
        thing = Thing()
        return spawn(wait_for_nothing()), weakref.ref(thing)

    handle, thing = start()
    assert thing() is None
    handle.abort()


async def test_the_dump_shows_where_each_task_was_spawned(sites: None) -> None:
    handle = spawn(wait_for_nothing(), name="worker")
    site = here(-1)
    await settle()
    lines = dump().splitlines()
    assert lines[lines.index("'worker' waits for a future") + 1] == f"    spawned at {site}"
    handle.abort()


def test_in_debug_mode_asyncio_keeps_the_sites() -> None:
    async def main() -> None:
        handle, site = spawn(asyncio.sleep(0)), here()
        assert handle.spawned_at is not None
        assert site.startswith(handle.spawned_at.partition(" in ")[0])
        await handle

    run(main(), debug=True)
