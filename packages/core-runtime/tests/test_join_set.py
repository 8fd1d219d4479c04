from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
import weakref
from typing import Any

import pytest

from yamanote.runtime import (
    BUDGET,
    CancelScope,
    JoinError,
    JoinHandle,
    JoinSet,
    park,
    run,
    spawn,
    start_task,
    yield_now,
)

Reports = list[dict[str, Any]]


@pytest.fixture
async def reports() -> Reports:
    """What the exception handler of the loop gets."""
    reports: Reports = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    return reports


async def after(turns: int, value: Any = None) -> Any:
    for _ in range(turns):
        await yield_now()
    if isinstance(value, Exception):
        raise value
    return value


async def clean_up(log: list[str]) -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        await yield_now()
        log.append("cleaned up")


async def test_tasks_are_joined_in_the_order_in_which_they_end() -> None:
    async with JoinSet[int]() as jobs:
        handles = [jobs.spawn(after(turns, turns), name=str(turns)) for turns in (5, 1, 3)]
        joined = [done async for done in jobs]
        assert [await done for done in joined] == [1, 3, 5]
        assert [done.name for done in joined] == ["1", "3", "5"]
        assert joined == [handles[1], handles[2], handles[0]]
        assert len(jobs) == 0 and await jobs.join_next() is None


async def test_tasks_can_be_spawned_while_others_are_joined() -> None:
    async with JoinSet[int]() as jobs:
        jobs.spawn(after(1, 3))
        values = []
        async for done in jobs:
            values.append(await done)
            if values[-1]:
                jobs.spawn(after(1, values[-1] - 1))
    assert values == [3, 2, 1, 0]


async def test_a_handle_that_was_joined_gives_value_error_or_cancellation() -> None:
    error = LookupError()
    async with JoinSet[Any]() as jobs:
        for value in (None, error, 0):
            jobs.spawn(after(1, value))
        jobs.spawn(asyncio.sleep(3600), name="sleeper").abort("not needed")
        outcomes: list[Any] = []
        async for done in jobs:
            try:
                outcomes.append(await done)
            except (LookupError, JoinError) as raised:
                outcomes.append(raised)
    assert sorted(map(str, outcomes)) == sorted(["None", "0", "", "sleeper was cancelled: not needed"])
    assert error in outcomes


async def test_what_has_ended_is_joined_without_a_turn_within_the_budget() -> None:
    async with JoinSet[int]() as jobs:
        for number in range(BUDGET + 1):
            jobs.spawn(after(0, number))
        await yield_now()
        await yield_now()
        turns: list[int] = []
        asyncio.get_running_loop().call_soon(turns.append, 1)
        for _ in range(BUDGET):
            assert await jobs.join_next() is not None
        assert turns == []
        assert await jobs.join_next() is not None
        assert turns == [1]


async def test_try_join_next_takes_only_what_has_ended() -> None:
    async with JoinSet[int]() as jobs:
        assert jobs.try_join_next() is None
        jobs.spawn(after(1, 1))
        assert jobs.try_join_next() is None and len(jobs) == 1
        for _ in range(3):
            await yield_now()
        done = jobs.try_join_next()
        assert done is not None and await done == 1 and len(jobs) == 0


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks start eagerly from 3.12 on")
async def test_a_task_that_ends_eagerly_can_be_joined_at_once() -> None:
    async with JoinSet[int]() as jobs:
        waiting: JoinHandle[Any] = spawn(park(jobs))
        await yield_now()
        handle = jobs.spawn(after(0, 1), eager=True)
        assert await waiting is handle
        again = jobs.spawn(after(0, 2), eager=True)
        assert jobs.try_join_next() is again


async def test_callers_are_served_in_order_and_the_last_ones_are_told_that_nothing_is_left() -> None:
    jobs: JoinSet[int] = JoinSet()
    for turns in (3, 4):
        jobs.spawn(after(turns, turns))
    waiting = [spawn(jobs.join_next()) for _ in range(3)]
    first, second, third = [await handle for handle in waiting]
    assert first is not None and second is not None and third is None
    assert [await first, await second] == [3, 4]


async def test_a_cancelled_join_takes_nothing() -> None:
    jobs: JoinSet[int] = JoinSet()
    handle = jobs.spawn(after(2, 1))
    later = jobs.spawn(after(9, 2))
    first, second = start_task(jobs.join_next()), start_task(jobs.join_next())
    while len(jobs) > 1:
        await yield_now()
    first.cancel()  # it has been handed the task, and has not run since
    assert await second is handle  # it was the next
    assert first.cancelled() and await jobs.join_next() is later


async def test_a_task_that_is_given_back_comes_before_those_that_ended_after_it() -> None:
    jobs: JoinSet[int] = JoinSet()
    handles = [jobs.spawn(after(2, number)) for number in range(2)]
    waiting = start_task(jobs.join_next())
    while len(jobs) > 1:
        await yield_now()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert [done async for done in jobs] == handles


async def test_as_a_branch_it_waits_while_it_is_empty() -> None:
    jobs: JoinSet[int] = JoinSet()
    waiting: JoinHandle[Any] = spawn(park(jobs))
    await yield_now()
    await yield_now()
    assert not waiting.is_finished()
    handle = jobs.spawn(after(1, 1))
    assert await waiting is handle


async def test_join_all_gives_the_values_in_the_order_in_which_they_came() -> None:
    jobs: JoinSet[int] = JoinSet()
    for turns in (3, 1, 2):
        jobs.spawn(after(turns, turns))
    assert await jobs.join_all() == [1, 2, 3]
    assert await jobs.join_all() == []


async def test_join_all_raises_the_first_error_when_the_others_have_ended() -> None:
    log: list[str] = []
    jobs: JoinSet[None] = JoinSet()
    jobs.spawn(clean_up(log))
    jobs.spawn(after(1, LookupError()))
    with pytest.raises(LookupError):
        await jobs.join_all()
    assert log == ["cleaned up"] and len(jobs) == 0


async def test_join_all_that_is_cancelled_ends_the_tasks() -> None:
    log: list[str] = []
    jobs: JoinSet[None] = JoinSet()
    jobs.spawn(clean_up(log))
    joining = start_task(jobs.join_all())
    await yield_now()
    await yield_now()
    joining.cancel()
    await asyncio.wait([joining])
    assert joining.cancelled() and log == ["cleaned up"]


async def test_aborted_tasks_are_joined_like_any_other() -> None:
    async with JoinSet[Any]() as jobs:
        handles = [jobs.spawn(asyncio.sleep(3600)) for _ in range(2)]
        jobs.abort_all("enough")
        assert len(jobs) == 2
        joined = [done async for done in jobs]
    assert joined == handles and all(done.is_cancelled() for done in joined)
    with pytest.raises(JoinError, match="enough"):
        await joined[0]


async def test_leaving_the_block_cancels_awaits_and_reports_errors_that_nobody_took(reports: Reports) -> None:
    log: list[str] = []
    error, missed = ArithmeticError(), LookupError()

    async def block() -> None:
        async with JoinSet[None]() as jobs:
            jobs.spawn(clean_up(log))
            jobs.spawn(after(0, missed))
            await yield_now()
            await yield_now()
            raise error

    with pytest.raises(ArithmeticError) as caught:
        await block()
    assert caught.value is error and log == ["cleaned up"]
    gc.collect()
    assert [report["exception"] for report in reports] == [missed]


async def test_shutdown_waits_for_tasks_that_the_clean_up_of_others_spawned_and_for_its_own_cancellation() -> None:
    log: list[str] = []
    jobs: JoinSet[None] = JoinSet()

    async def respawns() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            jobs.spawn(clean_up(log), eager=False)
            await yield_now()
            await yield_now()

    jobs.spawn(respawns())
    await yield_now()
    with CancelScope() as scope:
        asyncio.get_running_loop().call_soon(scope.cancel)
        await jobs.shutdown()
    assert scope.cancelled_caught and log == ["cleaned up"] and len(jobs) == 0
    handle = jobs.spawn(after(1, None))  # it can be used again
    assert await jobs.join_next() is handle


async def test_a_task_that_shuts_its_own_set_down_does_not_wait_for_itself() -> None:
    async def task() -> None:
        await jobs.shutdown()
        await asyncio.sleep(3600)

    async with JoinSet[None]() as jobs:
        handle = jobs.spawn(task())
        assert await jobs.join_next() is handle
    assert handle.is_cancelled()


async def test_detached_tasks_go_on_and_live_until_they_end() -> None:
    futures: list[weakref.ref[asyncio.Future[None]]] = []
    log: list[str] = []

    async def task() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        futures.append(weakref.ref(future))
        await future
        log.append("ended")

    async with JoinSet[None]() as jobs:
        jobs.spawn(task())
        waiting = spawn(jobs.join_next())
        await yield_now()
        jobs.detach_all()
        assert len(jobs) == 0 and await waiting is None
    gc.collect()
    future = futures[0]()
    assert future is not None
    future.set_result(None)
    del future
    await yield_now()
    assert log == ["ended"]


async def test_a_block_that_is_thrown_away_cancels_its_tasks() -> None:
    handles: list[JoinHandle[None]] = []

    async def block() -> None:
        async with JoinSet[None]() as jobs:
            handles.append(jobs.spawn(asyncio.sleep(3600)))
            await asyncio.get_running_loop().create_future()

    coroutine = block()
    coroutine.send(None)
    coroutine.close()
    await yield_now()
    await yield_now()
    assert handles[0].is_cancelled()


async def test_results_are_freed_as_they_are_joined() -> None:
    class Result:
        pass

    async def task() -> Result:
        return Result()

    async with JoinSet[Result]() as jobs:
        for _ in range(3):
            jobs.spawn(task())
        references = []
        async for done in jobs:
            references.append(weakref.ref(await done))
            del done
            await yield_now()
            gc.collect()
            assert references[-1]() is None


async def test_memory_of_a_long_lived_set_stays_flat() -> None:
    async with JoinSet[bytes]() as jobs:
        sizes: list[int] = []
        tracemalloc.start()
        try:
            for _ in range(2):
                for _ in range(50):
                    for _ in range(100):
                        jobs.spawn(after(1, bytes(1000)))
                    async for done in jobs:
                        del done
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
    assert sizes[1] - sizes[0] < 10_000  # of 5 000 tasks


def test_a_set_works_under_an_eager_task_factory() -> None:
    async def example() -> list[int]:
        if sys.version_info >= (3, 12):
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)

        async def host() -> list[int]:
            async with JoinSet[int]() as jobs:
                for turns in (2, 0, 1):
                    jobs.spawn(after(turns, turns))
                return [await done async for done in jobs]

        return await asyncio.create_task(host())

    assert run(example()) == [0, 1, 2]


async def test_it_shows_its_state_and_refuses_what_is_no_awaitable() -> None:
    async with JoinSet[Any]() as jobs:
        jobs.spawn(asyncio.sleep(3600))
        jobs.spawn(after(0))
        await yield_now()
        await yield_now()
        assert repr(jobs) == "<JoinSet running=1 ended=1>"
        with pytest.raises(TypeError, match="not 3"):
            jobs.spawn(3)  # type: ignore[arg-type]
