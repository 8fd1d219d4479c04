from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import pytest

from yamanote.runtime import EventLoop, TaskGroup, run, spawn
from yamanote.runtime._batch import Batch
from yamanote.runtime._placed import Placed
from yamanote.runtime._workers import Worker, Workers

PATIENCE = 20.0


@pytest.fixture
def two() -> Iterator[list[Worker]]:
    """Two workers that stand still."""
    workers = Workers([EventLoop(), EventLoop()])
    yield workers.all
    for worker in workers.all:
        worker.give_up_backlog()
        worker.loop.run_until_complete(asyncio.sleep(0))
        worker.loop.close()


async def value_of(value: int) -> int:
    return value


def test_a_worker_with_nothing_of_its_own_takes_half_of_anothers_backlog_oldest_first(two: list[Worker]) -> None:
    owner, thief = two
    placed = [owner.place(value_of(number), None, None) for number in range(5)]
    assert thief._take_from_others()
    assert [each for each in thief.backlog] == placed[:3]
    assert [each for each in owner.backlog] == placed[3:]
    assert not owner._take_from_others() or thief.backlog  # and back


def test_what_is_pinned_is_not_taken_by_others(two: list[Worker]) -> None:
    owner, thief = two
    thief.place_on(owner, value_of(1), None, None)
    assert not thief._take_from_others()
    assert len(owner.pinned) == 1


def test_what_is_pinned_to_a_worker_that_has_stopped_is_given_up(two: list[Worker]) -> None:
    """Its loop still takes a call, which nobody will make, and it has looked at its backlog for the last time."""
    stopped, other = two
    stopped._stopping = True
    coroutine = value_of(1)
    placed = other.place_on(stopped, coroutine, None, None)
    assert coroutine.cr_frame is None
    other.loop.run_until_complete(asyncio.sleep(0))
    assert placed.cancelled()


def test_what_is_pinned_to_a_worker_whose_loop_is_closed_is_given_up(two: list[Worker]) -> None:
    closed, other = Workers([EventLoop(), EventLoop()]).all[0], two[1]
    closed.workers.stop()
    closed.loop.close()
    placed = other.place_on(closed, value_of(1), None, None)
    other.loop.run_until_complete(asyncio.sleep(0))
    assert placed.cancelled()


def test_what_is_pinned_to_a_worker_in_its_last_turn_is_given_up() -> None:
    entered, release = threading.Event(), threading.Event()

    def keep_busy() -> None:
        entered.set()
        release.wait(PATIENCE)

    workers = Workers([EventLoop(), EventLoop()])
    other, stopping = workers.all
    stopping._beginning = True  # nobody else looks at what is pinned
    stopping.loop.call_soon(keep_busy)
    stopping.loop.call_soon(stopping._stop)
    stopping.start_thread()
    entered.wait(PATIENCE)
    coroutine = value_of(1)
    placed = other.place_on(stopping, coroutine, None, None)
    release.set()
    stopping.join(PATIENCE)
    other.loop.run_until_complete(asyncio.sleep(0))
    assert coroutine.cr_frame is None
    assert placed.cancelled()
    other.loop.close()


def test_one_alone_wakes_nobody_and_the_second_does(two: list[Worker], monkeypatch: pytest.MonkeyPatch) -> None:
    owner, other = two
    woken: list[Worker] = []
    monkeypatch.setattr(Worker, "wake", lambda self: woken.append(self))
    assert other._go_idle()
    owner.place(value_of(1), None, None)
    assert woken == []
    owner.place(value_of(2), None, None)
    assert woken == [other]


def test_whoever_wakes_wakes_another_than_itself_and_one_that_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers([EventLoop() for _ in range(4)])
    owner, sleeping, sleeping_too, busy = workers.all
    busy.loop._is_awake = True  # type: ignore[attr-defined]
    woken: list[Worker] = []
    monkeypatch.setattr(Worker, "wake", lambda self: woken.append(self))
    for worker in (sleeping_too, sleeping, busy, owner):
        assert worker._go_idle()
    coroutines = [value_of(number) for number in range(2)]
    for coroutine in coroutines:
        owner.place(coroutine, None, None)
    assert woken == [busy, sleeping]
    for worker in workers.all:
        worker.give_up_backlog()
        worker.loop.close()


def test_who_is_about_to_begin_something_is_not_the_only_one_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it begins may block it, before it comes to what it was woken for."""
    workers = Workers([EventLoop() for _ in range(3)])
    owner, sleeping, beginning = workers.all
    woken: list[Worker] = []
    monkeypatch.setattr(Worker, "wake", lambda self: woken.append(self))
    assert sleeping._go_idle()
    assert beginning._go_idle()
    beginning._beginning = True  # and its time was over, so its loop polls
    owner._wake_another()
    assert woken == [beginning, sleeping]
    for worker in workers.all:
        worker.loop.close()


def test_who_leaves_something_to_whom_it_takes_from_wakes_a_third(monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner may be blocked, and whoever has looked while it was on its way has gone to sleep."""
    workers = Workers([EventLoop() for _ in range(3)])
    owner, thief, third = workers.all
    woken: list[Worker] = []
    for number in range(3):
        owner.place(value_of(number), None, None)
    owner.place_all(Batch([value_of(3), value_of(4)], owner.loop, None).all())
    monkeypatch.setattr(Worker, "wake", lambda self: woken.append(self))
    owner._idle.append(third)
    assert thief._take_from_others()
    assert woken == [third]
    for worker in workers.all:
        worker.give_up_backlog()
        worker.loop.run_until_complete(asyncio.sleep(0))
        worker.loop.close()


def test_who_goes_idle_sees_what_has_been_put_back_into_its_own_backlog(two: list[Worker]) -> None:
    owner, other = two
    owner.place_all(Batch([value_of(0), value_of(1)], owner.loop, None).all())
    assert other._take_from_others()
    other.give_up_backlog()
    assert not owner._go_idle()


def test_who_goes_idle_while_there_is_a_backlog_does_not(two: list[Worker]) -> None:
    owner, other = two
    assert other._go_idle()
    owner.place(value_of(1), None, None)
    assert not other._go_idle()


def test_it_is_started_once_however_many_try() -> None:
    started: list[int] = []

    async def work() -> None:
        started.append(1)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        placed = Placed(work(), loop, None, copy_context())
        placed.begin(loop)
        placed.begin(loop)
        await placed

    run(main())
    assert started == [1]


def test_a_cancellation_before_the_start_closes_the_coroutine() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        coroutine = value_of(1)
        placed = Placed(coroutine, loop, "name", copy_context())
        assert placed.get_name() == "name"
        assert placed.cancel("never mind")
        assert placed.cancelled()
        assert not placed.cancel()
        placed.begin(loop)
        assert coroutine.cr_frame is None

    run(main())


def test_a_cancellation_that_comes_while_it_is_being_started_reaches_the_task_once() -> None:
    cancelled: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def work() -> None:
            placed.cancel("while it starts")
            placed.cancel("again")
            for _ in range(3):
                try:
                    await asyncio.sleep(0.001)
                except asyncio.CancelledError as error:
                    cancelled.append(error.args[0])

        placed: Placed[None] = Placed(work(), loop, None, copy_context())
        placed.begin(loop)
        await placed

    run(main())
    assert len(cancelled) == 1


def test_a_task_that_cancels_itself_and_ends_keeps_its_value() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def work() -> str:
            await asyncio.sleep(0)
            placed.cancel()
            return "done"

        placed: Placed[str] = Placed(work(), loop, None, copy_context())
        placed.begin(loop)
        assert await placed == "done"

    run(main())


def test_a_race_between_the_start_and_a_cancellation_has_one_winner() -> None:
    """On another loop than its own, in the moment in which it is cancelled at home."""
    ran: list[int] = []

    async def work(number: int) -> None:
        ran.append(number)
        await asyncio.sleep(3600)

    async def main() -> None:
        aim = threading.Barrier(2)

        async def starter(placed: list[Placed[None]]) -> None:
            loop = asyncio.get_running_loop()
            for each in placed:
                aim.wait(PATIENCE)
                each.begin(loop)

        home = asyncio.get_running_loop()
        placed = [Placed(work(number), home, None, copy_context()) for number in range(20)]
        handle = spawn(starter(placed), on=1)
        for each in placed:
            aim.wait(PATIENCE)
            each.cancel()
        await handle
        ends = await asyncio.gather(*placed, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends)

    run(main(), workers=2)
    assert len(set(ran)) == len(ran)


def test_an_end_that_comes_after_its_own_loop_was_closed_is_reported_if_it_is_an_error() -> None:
    reports: list[dict[str, Any]] = []
    home = EventLoop()

    async def fail() -> None:
        raise LookupError

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, report: reports.append(report))
        Placed(value_of(1), home, None, copy_context()).begin(loop)
        Placed(fail(), home, None, copy_context()).begin(loop)

    home.close()
    run(main())
    assert [type(report["exception"]) for report in reports] == [LookupError]


def test_a_future_that_is_spawned_stays_on_the_loop_that_it_belongs_to() -> None:
    async def program() -> None:
        async def there() -> asyncio.Future[int]:
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            loop.call_later(0.005, future.set_result, 3)
            return future

        abroad = await spawn(there(), on=1)
        assert await spawn(abroad) == 3
        for _ in range(20):
            assert await spawn(await there()) == 3
            assert await spawn(await there(), asyncio.sleep(0, 4), asyncio.ensure_future(asyncio.sleep(0, 5))) == [
                3,
                4,
                5,
            ]
            async with TaskGroup(limit=2) as group:
                handles = [group.spawn(await there()) for _ in range(3)]
            assert [await handle for handle in handles] == [3, 3, 3]

    run(program(), workers=3)


def test_an_error_that_nobody_asks_for_is_reported_as_that_of_a_task(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        raise LookupError("lost")

    async def program(turns: int) -> None:
        spawn(fail(turns), name="orphan")
        await asyncio.sleep(0.01)
        gc.collect()

    for turns in (0, 3):
        run(program(turns), workers=2)
        (record,) = caplog.records
        assert record.getMessage().startswith(
            "Task exception was never retrieved\nfuture: <Task finished name='orphan' "
        )
        if turns:  # one that ends in its first step may have let go of its coroutine
            assert "fail() done" in record.getMessage()
        caplog.clear()


async def test_what_has_not_ended_says_its_name() -> None:
    placed = Placed(asyncio.sleep(0), asyncio.get_running_loop(), "sleeper", copy_context())
    assert repr(placed) == "<Task pending name='sleeper'>"
    placed.cancel()
    assert repr(placed) == "<Task cancelled name='sleeper'>"
