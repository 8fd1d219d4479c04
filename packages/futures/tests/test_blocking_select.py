"""Select in plain threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from yamanote.futures import blocking_select, failed_branch, select, task_set
from yamanote.runtime import CancellationToken, JoinError, ThreadWaiter, Waiter, run, spawn, spawn_blocking, yield_now
from yamanote.time import interval


class Box:
    """A queue of items and of parked parties."""

    def __init__(self, *items: Any) -> None:
        self.mutex = threading.RLock()
        self.items = list(items)
        self.waiters: list[Waiter[Any]] = []

    def put(self, item: Any) -> None:
        with self.mutex:
            self.items.append(item)
            self._serve()

    def register(self, waiter: Waiter[Any], /) -> None:
        with self.mutex:
            self.waiters.append(waiter)
            self._serve()

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        with self.mutex:
            if waiter in self.waiters:
                self.waiters.remove(waiter)
            elif waiter.settled:
                self.items.insert(0, waiter.value)
                self._serve()

    def _serve(self) -> None:
        while self.items and self.waiters:
            if self.waiters.pop(0).hand(self.items[0]):
                del self.items[0]


class Broken:
    def register(self, waiter: Waiter[Any], /) -> None:
        if waiter.claim():
            waiter.fail(OSError("broken"))

    def withdraw(self, waiter: Waiter[Any], /) -> None: ...


@pytest.fixture
def in_thread() -> Iterator[Callable[..., threading.Thread]]:
    """Calls a function in a thread, which has ended when the test has."""
    threads: list[threading.Thread] = []

    def start(function: Callable[..., object], *args: Any) -> threading.Thread:
        threads.append(threading.Thread(target=function, args=args))
        threads[-1].start()
        return threads[-1]

    yield start
    for thread in threads:
        thread.join()


def test_it_takes_what_is_ready_and_the_others_lose_nothing() -> None:
    idle, one, two = Box(), Box(1), Box(2)
    assert blocking_select(idle=idle, one=one, two=two, biased=True) == ("one", 1)
    assert blocking_select({"idle": idle, "one": one}, two=two) == ("two", 2)
    assert (idle.waiters, one.waiters, two.waiters) == ([], [], [])


def test_it_blocks_until_something_is_ready(in_thread: Callable[..., threading.Thread]) -> None:
    boxes = {name: Box() for name in "abc"}
    ends: list[Any] = []
    thread = in_thread(lambda: ends.append(blocking_select(boxes)))
    while not all(box.waiters for box in boxes.values()):
        pass
    assert ends == []
    boxes["b"].put(None)
    boxes["c"].put("later")
    thread.join()
    assert ends == [("b", None)]
    assert [box.waiters for box in boxes.values()] == [[], [], []]
    assert boxes["c"].items == ["later"]


@pytest.mark.parametrize("value", [None, 0, ValueError("a value")])
def test_else_is_what_one_gets_when_every_branch_is_disabled(value: Any) -> None:
    assert blocking_select(off=None, else_=value) == blocking_select({}, else_=value) == ("else_", value)
    assert blocking_select(task_set(), else_=value) == blocking_select(t=task_set(), else_=value) == ("else_", value)
    for call in (lambda: blocking_select(off=None), lambda: blocking_select(task_set())):
        with pytest.raises(ValueError, match=r"disabled|empty"):
            call()


@pytest.mark.parametrize("seconds", [0, -1, 0.001])
def test_a_timeout_takes_nothing(seconds: float) -> None:
    box = Box()
    with pytest.raises(TimeoutError) as caught:
        blocking_select(box=box, other=Box(), timeout=seconds)
    assert failed_branch(caught.value) == ()
    assert box.waiters == []
    assert blocking_select(box=Box("item"), timeout=seconds) == ("box", "item")


@pytest.mark.parametrize("timeout", ["1", float("nan")])
def test_a_timeout_that_is_none_is_refused(timeout: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="timeout"):
        blocking_select(box=Box(1), timeout=timeout)
    with pytest.raises((TypeError, ValueError), match="timeout"):
        blocking_select(task_set(), timeout=timeout)


def test_the_error_of_a_branch_is_raised_with_its_name() -> None:
    with pytest.raises(OSError) as caught:
        blocking_select(good=Box(), bad=Broken(), biased=True)
    assert failed_branch(caught.value) == ("bad",)


async def nothing() -> None:
    pytest.fail("began")


def test_what_needs_a_loop_is_refused_by_name_and_closed() -> None:
    box = Box("item")
    loop = asyncio.new_event_loop()
    for branch in (nothing(), loop.create_future()):
        with pytest.raises(TypeError, match="'bad' needs an event loop"):
            blocking_select(box=box, bad=branch, more=nothing())  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="needs a name"):
        blocking_select(nothing())  # type: ignore[call-overload]
    with pytest.raises(RuntimeError, match="loop"):
        blocking_select(box=Box(), ticks=interval(1), biased=True)
    loop.close()
    assert box.items == ["item"]


@pytest.mark.parametrize("branch", [3, "text", object(), nothing], ids=["number", "text", "object", "function"])
def test_what_no_loop_could_select_either_is_refused_as_by_select(branch: Any) -> None:
    with pytest.raises(TypeError, match="branch 'bad' can neither be selected nor awaited"):
        blocking_select(box=Box(), bad=branch)


async def test_a_thread_that_runs_a_loop_must_not_block() -> None:
    with pytest.raises(RuntimeError, match="would block the event loop"):
        blocking_select(box=Box("item"), work=nothing())  # type: ignore[call-overload]
    with pytest.raises(RuntimeError, match="would block the event loop"):
        blocking_select({"work": nothing()})  # type: ignore[dict-item]
    with pytest.raises(RuntimeError, match="would block the event loop"):
        blocking_select(nothing())  # type: ignore[call-overload]


@pytest.mark.parametrize("timeout", [None, 0.001])
def test_a_thread_that_is_interrupted_has_taken_nothing(monkeypatch: pytest.MonkeyPatch, timeout: float | None) -> None:
    one, two = Box(), Box()

    def interrupted(self: ThreadWaiter[Any], seconds: float | None = None) -> bool:
        if seconds is not None:
            one.put("item")
            return False  # too late to be woken in time
        if not one.items:
            one.put("item")
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadWaiter, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        blocking_select(one=one, two=two, timeout=timeout)
    assert one.items[0] == "item"
    assert (one.waiters, two.waiters) == ([], [])


def test_what_is_handed_over_at_the_last_moment_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box()
    sleep = ThreadWaiter.sleep

    def oversleep(self: ThreadWaiter[Any], seconds: float | None = None) -> bool:
        if seconds is None:
            return sleep(self)
        box.put("item")
        return False

    monkeypatch.setattr(ThreadWaiter, "sleep", oversleep)
    assert blocking_select(box=box, other=Box(), timeout=0.001) == ("box", "item")


def test_threads_and_tasks_select_from_each_other() -> None:
    """A task serves threads, and they serve it: each item is taken once, by whoever waited first."""
    count = 200
    jobs, urgent, results, stop = Box(), Box(), Box(), CancellationToken()

    def work() -> int:
        done = 0
        while True:
            match blocking_select(urgent=urgent, jobs=jobs, stop=stop, biased=True):
                case "stop", _:
                    return done
                case _, number:
                    results.put(number)
                    done += 1

    async def main() -> list[int]:
        workers = [spawn_blocking(work) for _ in range(2)]
        seen = []
        for number in range(count):
            (urgent if number % 5 == 0 else jobs).put(number)
        while len(seen) < count:
            seen.append((await select(result=results, failed=workers[0], timeout=60))[1])
        stop.cancel()
        assert sum([await worker for worker in workers]) == count
        return seen

    assert sorted(run(main())) == list(range(count))


def test_a_thread_takes_the_tasks_of_a_loop_as_they_end() -> None:
    async def double(number: int) -> int:
        await yield_now()
        return number * 2

    async def fail() -> None:
        raise OSError

    async def main() -> None:
        handle = spawn(double(1))
        assert await spawn_blocking(lambda: blocking_select(box=Box(), handle=handle)) == ("handle", 2)
        async with task_set(one=double(1)) as tasks:
            assert await spawn_blocking(lambda: blocking_select(tasks)) == ("one", 2)
            tasks.spawn("two", double(2))
            assert await spawn_blocking(lambda: blocking_select(box=Box(), tasks=tasks)) == ("tasks", ("two", 4))
            tasks.spawn("bad", fail())
            tasks.spawn("cancelled", double(3))
            tasks.cancel("cancelled")
            for name, error in (("bad", OSError), ("cancelled", JoinError)):
                with pytest.raises(error) as caught:
                    await spawn_blocking(lambda: blocking_select(tasks, timeout=60))
                assert failed_branch(caught.value) == (name,)
            assert not tasks.names

    run(main())


def test_who_comes_too_late_for_the_last_task_of_a_set_learns_it() -> None:
    async def main() -> None:
        go = asyncio.Event()
        async with task_set(only=go.wait()) as tasks:
            both = [spawn_blocking(lambda: blocking_select(tasks, else_=None)) for _ in range(2)]
            while len(tasks._queue._waiters) < 2:
                await yield_now()
            go.set()
            assert sorted([await handle for handle in both]) == [("else_", None), ("only", True)]

    run(main())
