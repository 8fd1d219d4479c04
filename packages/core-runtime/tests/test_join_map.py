from __future__ import annotations

import asyncio
import gc
import sys
from typing import Any

import pytest

from yamanote.runtime import JoinError, JoinHandle, JoinMap, park, spawn, start_task, yield_now


async def after(turns: int, value: Any = None) -> Any:
    for _ in range(turns):
        await yield_now()
    if isinstance(value, Exception):
        raise value
    return value


async def clean_up(log: list[str], turns: int = 1) -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        await after(turns)
        log.append("cleaned up")


async def test_tasks_are_joined_with_their_keys_the_failed_ones_too() -> None:
    async with JoinMap[str, int]() as jobs:
        jobs.spawn("slow", after(3, 3))
        jobs.spawn("bad", after(1, LookupError()))
        assert list(jobs.keys()) == ["slow", "bad"] and "slow" in jobs and "other" not in jobs
        entry = await jobs.join_next()
        assert entry is not None and entry[0] == "bad"
        with pytest.raises(LookupError):
            await entry[1]
        assert [(key, await done) async for key, done in jobs] == [("slow", 3)]
        assert len(jobs) == 0 and list(jobs.keys()) == [] and jobs.try_join_next() is None


async def test_a_key_stays_until_its_task_is_joined() -> None:
    async with JoinMap[int, int]() as jobs:
        jobs.spawn(1, after(0, 1))
        await yield_now()
        await yield_now()
        assert 1 in jobs and len(jobs) == 1 and not jobs.abort(1)
        assert jobs.try_join_next() is not None
        assert 1 not in jobs


async def test_a_used_key_aborts_the_old_task_which_is_never_joined_but_ends_before_the_map() -> None:
    log: list[str] = []
    async with JoinMap[str, Any]() as jobs:
        old = jobs.spawn("key", clean_up(log))
        await yield_now()
        new = jobs.spawn("key", after(5, "new"))
        assert len(jobs) == 1
        assert [(key, done) async for key, done in jobs] == [("key", new)]
        with pytest.raises(JoinError, match="its key was given to another task"):
            await old
        jobs.spawn("key", clean_up(log, turns=50))
        await yield_now()
        jobs.spawn("key", after(0, "newer"))
        del log[:]
    assert log == ["cleaned up"]


async def test_a_used_key_drops_a_result_that_was_not_joined() -> None:
    async with JoinMap[str, str]() as jobs:
        jobs.spawn("other", after(0, "other"))
        jobs.spawn("key", after(0, "old"))
        for _ in range(3):
            await yield_now()
        jobs.spawn("key", after(0, "new"))
        assert [(key, await done) async for key, done in jobs] == [("other", "other"), ("key", "new")]


async def test_the_error_of_a_result_that_was_dropped_is_reported_by_the_loop() -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    error = LookupError()
    async with JoinMap[str, str]() as jobs:
        jobs.spawn("key", after(0, error))
        for _ in range(3):
            await yield_now()
        jobs.spawn("key", after(0, "new"))
        async for _key, _done in jobs:
            pass
    gc.collect()
    assert [report["exception"] for report in reports] == [error]


async def test_one_key_can_be_aborted() -> None:
    async with JoinMap[str, Any]() as jobs:
        jobs.spawn("one", asyncio.sleep(3600), name="first")
        jobs.spawn("two", after(3, 2))
        assert jobs.abort("one", "not needed") and not jobs.abort("three")
        key, done = await jobs.join_next() or ("", None)
        assert key == "one" and done is not None
        with pytest.raises(JoinError, match="first was cancelled: not needed"):
            await done
        assert [(key, await done) async for key, done in jobs] == [("two", 2)]
        assert not jobs.abort("two")


async def test_a_task_that_is_given_back_has_its_key_again_unless_another_has_it() -> None:
    for reuse in (False, True):
        jobs: JoinMap[str, str] = JoinMap()
        jobs.spawn("key", after(2, "old"))
        waiting: asyncio.Task[Any] = start_task(park(jobs))
        while "key" in jobs:
            await yield_now()
        waiting.cancel()  # it has been handed the task, and has not run since
        if reuse:
            jobs.spawn("key", after(2, "new"))
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert await jobs.join_all() == {"key": "new" if reuse else "old"}


async def test_join_all_gives_the_values_under_their_keys() -> None:
    jobs: JoinMap[str, int] = JoinMap()
    jobs.spawn("two", after(2, 2))
    jobs.spawn("one", after(1, 1))
    assert list((await jobs.join_all()).items()) == [("one", 1), ("two", 2)]
    jobs.spawn("bad", after(1, LookupError()))
    other = jobs.spawn("other", after(1000))
    with pytest.raises(LookupError):
        await jobs.join_all()
    assert other.is_cancelled() and len(jobs) == 0 and list(jobs.keys()) == []


async def test_shutdown_and_detach_all_free_the_keys() -> None:
    jobs: JoinMap[str, Any] = JoinMap()
    jobs.spawn("key", asyncio.sleep(3600))
    await jobs.shutdown()
    assert "key" not in jobs
    handle = jobs.spawn("key", asyncio.sleep(3600))
    jobs.detach_all()
    assert "key" not in jobs and not handle.is_finished()
    log: list[str] = []
    old = jobs.spawn("key", clean_up(log, turns=50))
    await yield_now()
    jobs.spawn("key", asyncio.sleep(3600)).abort()
    jobs.detach_all()
    await jobs.shutdown()
    assert not old.is_finished()
    handle.abort()
    await jobs.spawn("last", after(60))


async def test_a_task_can_spawn_its_successor_under_its_own_key() -> None:
    async def task(number: int) -> int:
        if number:
            jobs.spawn("key", task(number - 1))
            await asyncio.sleep(3600)
        return number

    async with JoinMap[str, int]() as jobs:
        jobs.spawn("key", task(3))
        assert [(key, await done) async for key, done in jobs] == [("key", 0)]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks start eagerly from 3.12 on")
async def test_a_task_that_ends_eagerly_is_joined_by_who_waits() -> None:
    async with JoinMap[str, int]() as jobs:
        waiting: JoinHandle[Any] = spawn(park(jobs))
        await yield_now()
        handle = jobs.spawn("key", after(0, 1), eager=True)
        assert await waiting == ("key", handle) and "key" not in jobs


async def test_what_cannot_be_a_key_is_refused_and_the_coroutine_closed() -> None:
    jobs: JoinMap[Any, Any] = JoinMap()
    coroutine: Any = after(0)
    with pytest.raises(TypeError, match="unhashable"):
        jobs.spawn([], coroutine)
    assert coroutine.cr_frame is None
    with pytest.raises(TypeError, match="not 3"):
        jobs.spawn("key", 3)  # type: ignore[arg-type]
    assert "key" not in jobs


async def test_keys_are_in_the_order_in_which_their_tasks_were_spawned() -> None:
    async with JoinMap[str, None]() as jobs:
        for key in "aba":
            jobs.spawn(key, asyncio.sleep(3600))
        assert list(jobs.keys()) == ["b", "a"]
