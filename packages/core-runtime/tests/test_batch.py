from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from yamanote.runtime import EventLoop, JoinError, JoinHandle, run, spawn, spawn_blocking
from yamanote.runtime._batch import Batch, Part
from yamanote.runtime._task import spawned_on
from yamanote.runtime._workers import Worker, Workers

PATIENCE = 20.0


async def value_of(value: int, turns: int = 0) -> int:
    for _ in range(turns):
        await asyncio.sleep(0)
    return value


async def fail(error: BaseException, turns: int = 0) -> int:
    for _ in range(turns):
        await asyncio.sleep(0)
    raise error


def test_the_values_come_in_the_order_of_the_coroutines_whoever_ends_first() -> None:
    async def main() -> None:
        handle = spawn(*[value_of(number, (number * 7) % 5) for number in range(200)])
        assert isinstance(handle, Batch)
        values = list(range(200))
        assert await handle == values
        assert await handle == values
        assert await spawn_blocking(handle.result, PATIENCE) == values
        assert await spawn() == []

    run(main(), workers=3)


def test_the_same_coroutine_twice_is_refused_because_two_workers_cannot_run_it() -> None:
    async def main() -> None:
        once, twice = value_of(1), value_of(2)
        with pytest.raises(ValueError, match="each coroutine once"):
            spawn(twice, once, twice)
        assert {inspect.getcoroutinestate(coroutine) for coroutine in (once, twice)} == {inspect.CORO_CLOSED}

    run(main(), workers=2)


def test_the_first_error_in_their_order_is_raised_and_the_others_are_reported_once() -> None:
    reports: list[BaseException] = []

    async def watch() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report["exception"]))

    async def main() -> None:
        for number in range(2):
            await spawn(watch(), on=number)
        with pytest.raises(LookupError):
            await spawn(value_of(1), fail(LookupError(), 3), fail(ValueError()), fail(KeyError(), 1))
        gc.collect()

    run(main(), workers=2)
    gc.collect()
    assert sorted(type(report).__name__ for report in reports) == ["KeyError", "ValueError"]


def test_one_that_is_cancelled_is_told_by_a_join_error() -> None:
    async def main() -> None:
        with pytest.raises(JoinError, match="each-1 was cancelled: of its own accord"):
            await spawn(value_of(0), fail(asyncio.CancelledError("of its own accord"), 1), name="each")

    run(main(), workers=2)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cancellation_that_nobody_asks_for_is_not_reported(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        for turns in range(3):
            handle = spawn(value_of(0), asyncio.sleep(3600))
            for _ in range(turns):
                await asyncio.sleep(0)
            handle.abort()
            while not handle.is_finished():
                await asyncio.sleep(0)
            del handle
        gc.collect()

    run(main(), workers=workers)
    gc.collect()
    assert caplog.messages == []


def test_abort_closes_what_has_not_started_and_cancels_what_runs_once() -> None:
    cancelled: list[str] = []
    begun: list[int] = []
    entered, release = threading.Barrier(3), threading.Event()

    async def keep_busy() -> None:
        entered.wait(PATIENCE)
        release.wait(PATIENCE)

    async def work() -> None:
        begun.append(1)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError as error:
            cancelled.append(error.args[0])
            await asyncio.sleep(0.001)  # a second one would arrive here
            raise

    async def main() -> None:
        coroutines = [value_of(number) for number in range(10)]
        for number in (1, 2):
            spawn(keep_busy(), on=number)
        entered.wait(PATIENCE)
        handle: JoinHandle[Any] = spawn(*coroutines)
        handle.abort("never mind")
        with pytest.raises(JoinError, match="never mind"):
            await handle
        release.set()
        for coroutine in coroutines:
            with pytest.raises(RuntimeError, match="cannot reuse"):
                await coroutine
        handle = spawn(*[work() for _ in range(10)])
        while len(begun) < 10:
            await asyncio.sleep(0)
        handle.abort("enough")
        with pytest.raises(JoinError, match="enough"):
            await handle
        assert cancelled == ["enough"] * 10

    run(main(), workers=3)


def test_abort_reaches_one_that_is_in_its_first_step_once() -> None:
    async def main() -> None:
        handles: list[JoinHandle[Any]] = []
        cancelled: list[str] = []

        known = threading.Event()

        async def work() -> None:
            known.wait(PATIENCE)
            handles[0].abort("from inside")
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError as error:
                cancelled.append(error.args[0])
                await asyncio.sleep(0.001)
                raise

        async def wait() -> None:
            await asyncio.sleep(3600)

        handles.append(spawn(work(), wait()))
        known.set()
        with pytest.raises(JoinError, match="from inside"):
            await handles[0]
        assert cancelled == ["from inside"]

    run(main(), workers=2)


def test_one_of_them_cannot_wait_for_all() -> None:
    async def main() -> None:
        handles: list[JoinHandle[Any]] = []

        known = threading.Event()

        async def wait_for_all() -> None:
            known.wait(PATIENCE)
            for _ in range(2):
                with pytest.raises(RuntimeError, match="its own end"):
                    await handles[0]
                await asyncio.sleep(0)

        handles.append(spawn(wait_for_all(), wait_for_all()))
        known.set()
        await handles[0]

    run(main(), workers=2)


def test_each_runs_in_its_own_copy_of_the_context_of_the_call() -> None:
    variable = contextvars.ContextVar("variable", default="before")

    async def look() -> tuple[str, str]:
        first = variable.get()
        variable.set("mine")
        await asyncio.sleep(0)
        return first, variable.get()

    async def main() -> None:
        variable.set("at the call")
        handle = spawn(*[look() for _ in range(20)])
        variable.set("later")
        assert set(await handle) == {("at the call", "mine")}

    run(main(), workers=3)


def test_a_worker_that_sleeps_takes_its_share_at_once() -> None:
    """Also of a batch that comes in one piece."""
    both = threading.Barrier(2)

    async def meet() -> int:
        both.wait(PATIENCE)
        return threading.get_ident()

    async def main() -> None:
        assert len(set(await spawn(meet(), meet()))) == 2

    run(main(), workers=2)


# ------------------------------------------------------------------------------------------- in parts


@pytest.fixture
def workers() -> Iterator[Workers]:
    """Two that stand still."""
    workers = Workers([EventLoop(), EventLoop()])
    yield workers
    for worker in workers.all:
        worker.give_up_backlog()
        worker.loop.run_until_complete(asyncio.sleep(0))
        worker.loop.close()


def placed(worker: Worker, *coroutines: Coroutine[Any, Any, Any]) -> Batch:
    batch = Batch(list(coroutines), worker.loop, None)
    worker.place_all(batch.all())
    return batch


def held(worker: Worker) -> list[range]:
    """The indices in its backlog, by part."""
    return [range(part.first, part.first + part.count) for part in worker.backlog if isinstance(part, Part)]


async def begin_some(worker: Worker) -> None:
    """As the loop does, which runs here."""
    worker._begin_some()


def test_a_worker_with_nothing_to_do_takes_the_first_half_of_a_part(workers: Workers) -> None:
    owner, thief = workers.all
    placed(owner, *[value_of(number) for number in range(5)])

    assert thief._take_from_others()
    assert (held(thief), held(owner)) == ([range(3)], [range(3, 5)])
    assert owner.waiting() == 2
    owner.give_up_backlog()
    assert owner._take_from_others()
    assert (held(owner), held(thief)) == ([range(2)], [range(2, 3)])


def test_while_a_worker_begins_a_stretch_at_least_as_many_can_be_taken(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, _ = workers.all
    monkeypatch.setattr(owner.loop, "time", lambda: 0.0)
    left: list[list[range]] = []

    async def look() -> None:
        left.append(held(owner))

    batch = placed(owner, *[look() for _ in range(9)])
    batch.stretch = 64
    owner.loop.run_until_complete(begin_some(owner))

    assert left == [[range(4, 9)]] * 4 + [[range(6, 9)]] * 2 + [[range(7, 9)], [range(8, 9)], []]


def test_a_batch_is_begun_before_what_was_spawned_after_it_and_each_of_its_tasks_is_counted(workers: Workers) -> None:
    owner, _ = workers.all
    begun: list[int] = []

    async def work(index: int) -> None:
        begun.append(index)

    placed(owner, *[work(index) for index in range(9)])
    owner.place(work(9), None, None)
    before = spawned_on(owner.loop)
    owner.loop.run_until_complete(begin_some(owner))
    owner.loop.run_until_complete(asyncio.sleep(0))

    assert begun == list(range(10))
    assert spawned_on(owner.loop) - before == 10


def test_a_stretch_doubles_until_one_has_taken_long(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, _ = workers.all
    stretches: list[int] = []
    now = 0.0
    monkeypatch.setattr(owner.loop, "time", lambda: now)

    async def work(index: int) -> None:
        nonlocal now
        stretches.append(batch.stretch)
        now += 0.001 if index == 20 else 0.0

    batch = placed(owner, *[work(index) for index in range(100)])
    owner.loop.run_until_complete(begin_some(owner))
    owner.loop.run_until_complete(asyncio.sleep(0))

    assert stretches[:31] == [1] + [2] * 2 + [4] * 4 + [8] * 8 + [16] * 16
    assert stretches[31:38] == [1] + [2] * 2 + [4] * 4


def test_what_stops_the_loop_leaves_the_rest_of_its_stretch_to_be_started(workers: Workers) -> None:
    owner, _ = workers.all

    async def stop() -> None:
        raise SystemExit(3)

    batch = placed(owner, value_of(0), value_of(1), stop(), *[value_of(number) for number in range(3, 12)])
    batch.stretch = 64
    with pytest.raises(SystemExit):
        owner.loop.run_until_complete(begin_some(owner))
    assert held(owner) == [range(3, 6), range(6, 12)]

    async def join() -> None:
        with pytest.raises(SystemExit):
            await batch

    owner.loop.run_until_complete(join())
    assert owner.waiting() == 0


def test_an_abort_in_the_middle_of_a_stretch_closes_the_rest_of_it() -> None:
    begun: list[int] = []

    async def main() -> None:
        handles: list[Batch] = []

        async def work(index: int) -> None:
            begun.append(index)
            if index == 3:
                handles[0].abort("enough")

        handle = spawn(*[work(index) for index in range(40)], eager=False)
        assert isinstance(handle, Batch)
        handles.append(handle)
        handle.stretch = 16
        with pytest.raises(JoinError, match="enough"):
            await handle

    with_one_free = threading.Event()

    async def busy() -> None:
        with_one_free.wait(PATIENCE)

    async def alone() -> None:
        other = spawn(busy(), on=1)
        await main()
        with_one_free.set()
        await other

    run(alone(), workers=2)
    assert begun == [0, 1, 2, 3]
