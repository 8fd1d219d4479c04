"""Deadlines that travel: what code can know of how much time is left, wherever it was called from."""

from __future__ import annotations

import asyncio
import gc
import math
import sys
import weakref
from collections.abc import AsyncIterator, Coroutine
from contextvars import copy_context
from typing import Any

import pytest

from yamanote.runtime import (
    CancellationToken,
    CancelScope,
    TaskGroup,
    TaskScope,
    current_deadline,
    finish_within,
    move_on_after,
    remaining,
    spawn,
    spawn_blocking,
    use_scope,
    yield_now,
)
from yamanote.runtime._deadline import innermost


def now() -> float:
    return asyncio.get_running_loop().time()


async def deadline_here() -> float | None:
    return current_deadline()


async def test_without_a_block_there_is_no_deadline() -> None:
    assert current_deadline() is None
    assert remaining() is None
    with use_scope() as scope:
        assert current_deadline() is None and remaining() is None
        scope.cancel()  # that is no matter of time
        assert remaining() is None
    with move_on_after(None), CancelScope(math.inf):
        assert current_deadline() is None and remaining() is None


def test_where_no_loop_runs_there_is_none_either() -> None:
    assert current_deadline() is None
    assert remaining() is None


async def test_the_earliest_of_all_blocks_around_counts() -> None:
    with move_on_after(100) as outer:
        assert current_deadline() == outer.deadline
        with move_on_after(200):
            assert current_deadline() == outer.deadline
            with use_scope(), CancelScope(now() + 50) as inner:
                assert current_deadline() == inner.deadline
                left = remaining()
                assert left is not None and 0 < left <= 50
        assert current_deadline() == outer.deadline
    assert current_deadline() is None


async def test_a_deadline_that_has_passed_leaves_no_time() -> None:
    with CancelScope(now() - 1) as scope:
        assert remaining() == 0
        assert current_deadline() == scope.deadline
    with CancelScope(-math.inf):
        assert remaining() == 0


async def test_in_the_clean_up_that_the_deadline_asks_for_there_is_no_time_but_behind_a_shield() -> None:
    seen: list[float | None] = []
    with move_on_after(0):
        try:
            await asyncio.sleep(3600)
        finally:
            seen.append(remaining())
            with move_on_after(5, shield=True):
                seen.append(remaining())
    assert seen[0] == 0
    assert seen[1] is not None and 4 < seen[1] <= 5


async def test_a_deadline_that_is_moved_is_followed() -> None:
    with move_on_after(100) as scope:
        task = asyncio.create_task(deadline_here())
        scope.deadline = now() + 10
        assert current_deadline() == scope.deadline
        assert await task == scope.deadline
        scope.deadline = None
        assert current_deadline() is None


async def test_a_deadline_that_is_given_later_counts_from_then() -> None:
    with use_scope() as scope:
        scope.deadline = now() + 10
        assert current_deadline() == scope.deadline
        assert await spawn(deadline_here()) == scope.deadline
    with use_scope() as scope, CancelScope(shield=True):
        scope.deadline = now() + 10
        assert current_deadline() is None


async def test_the_first_step_of_work_and_what_it_starts_know_the_deadline() -> None:
    async def work() -> list[float | None]:
        here = current_deadline()
        async with asyncio.TaskGroup() as group:
            child = group.create_task(deadline_here())
        return [here, child.result()]

    before = now()
    first, second = await finish_within(50, work())
    assert first == second and first is not None and first >= before + 50
    assert current_deadline() is None


@pytest.mark.parametrize("start", ["asyncio", "spawn", "eager", "group"])
async def test_tasks_that_are_started_in_a_block_know_its_deadline(start: str) -> None:
    with move_on_after(100) as scope:
        task: Any
        if start == "asyncio":
            task = asyncio.create_task(deadline_here())
        elif start == "spawn":
            task = spawn(deadline_here())
        elif start == "eager":
            task = spawn(deadline_here(), eager=True)
        else:
            async with TaskGroup() as group:
                task = group.spawn(deadline_here())
        assert await task == scope.deadline


async def test_threads_that_are_called_in_a_block_know_its_deadline() -> None:
    with move_on_after(100) as scope:
        assert await spawn_blocking(current_deadline) == scope.deadline
        assert await asyncio.to_thread(current_deadline) == scope.deadline
        left = await spawn_blocking(remaining)
        assert left is not None and 0 < left <= 100


async def test_a_block_that_has_ended_counts_no_longer_for_what_it_has_left_behind() -> None:
    seen: list[float | None] = []

    async def child() -> None:
        seen.append(current_deadline())
        await go_on.wait()
        seen.append(current_deadline())
        await end.wait()
        seen.append(current_deadline())

    go_on, end = asyncio.Event(), asyncio.Event()
    with move_on_after(100) as outer:
        with move_on_after(50) as inner:
            task = asyncio.create_task(child())
            await yield_now()
        go_on.set()
        await yield_now()
        await yield_now()
    end.set()
    await task
    assert seen == [inner.deadline, outer.deadline, None]


async def test_blocks_of_the_one_who_started_a_task_that_begin_later_do_not_count_in_it() -> None:
    async def child() -> float | None:
        await yield_now()
        await yield_now()
        return current_deadline()

    task = asyncio.create_task(child())
    with move_on_after(1):
        assert await task is None


async def test_deadlines_outside_of_a_shield_do_not_count_inside() -> None:
    with move_on_after(10) as outer:
        with CancelScope(shield=True):
            assert current_deadline() is None
            assert await asyncio.create_task(deadline_here()) is None
            with move_on_after(50) as inner:
                assert current_deadline() == inner.deadline
        with move_on_after(20, shield=True) as shield:
            assert current_deadline() == shield.deadline
        assert current_deadline() == outer.deadline
        async with TaskGroup(shield=True) as group:
            assert current_deadline() is None
            assert await group.spawn(deadline_here()) is None
        assert current_deadline() == outer.deadline


async def test_the_deadline_of_a_group_counts_until_its_last_child_has_ended() -> None:
    seen: list[float | None] = []

    async def child() -> None:
        for _ in range(5):
            await yield_now()
            seen.append(current_deadline())

    deadline = now() + 100
    async with TaskGroup(deadline=deadline) as group:
        group.spawn(child())
        assert current_deadline() == deadline
    assert seen == [deadline] * 5
    assert current_deadline() is None
    async with TaskScope(timeout=100, shield=True):
        left = remaining()
        assert left is not None and 0 < left <= 100
    assert remaining() is None


async def test_the_deadline_of_a_token_is_a_matter_of_those_who_hold_it() -> None:
    token = CancellationToken()
    token.cancel_after(100)
    with token.scope():
        assert remaining() is None
    token.cancel()


async def test_blocks_may_end_in_another_order_than_that_in_which_they_began() -> None:
    async def stream() -> AsyncIterator[None]:
        with move_on_after(10):
            yield

    with move_on_after(100) as outer:
        async for _ in (items := stream()):
            with move_on_after(50) as inner:
                await items.aclose()  # type: ignore[attr-defined]
                assert current_deadline() == inner.deadline
            assert current_deadline() == outer.deadline
        assert current_deadline() == outer.deadline
    assert current_deadline() is None


@pytest.mark.parametrize("turns", [0, 1, 5])
async def test_a_chain_of_tasks_that_start_each_other_remembers_no_blocks_that_have_ended(turns: int) -> None:
    """Also when each goes on for a while, so that at every moment there is a block that has not ended."""
    loop = asyncio.get_running_loop()

    def known() -> int:
        count, block = 0, innermost.get()
        while block is not None:
            count, block = count + 1, block._outer
        return count

    async def link(number: int, end: asyncio.Future[int], form: int) -> None:
        async def follow() -> None:
            if number:
                following = asyncio.create_task(link(number - 1, end, form))
                running.add(following)
                following.add_done_callback(running.discard)
            else:
                end.set_result(known())
            for _ in range(turns):
                await yield_now()

        if form == 0:
            with move_on_after(100):
                await follow()
        elif form == 1:
            await finish_within(100, follow())
        else:
            async with TaskGroup(deadline=now() + 100):
                await follow()

    running: set[asyncio.Task[None]] = set()
    for form in range(3):
        end = loop.create_future()
        await link(50, end, form)
        assert await end <= turns + 2
        await asyncio.gather(*running)


async def test_a_block_that_has_ended_does_not_keep_its_loop() -> None:
    async def with_blocks() -> None:
        with move_on_after(10):
            pass
        await finish_within(10, asyncio.sleep(0))

    def call() -> weakref.ref[asyncio.AbstractEventLoop]:
        with asyncio.Runner() as runner:
            runner.run(with_blocks(), context=context)
            return weakref.ref(runner.get_loop())

    context = copy_context()
    loop = await asyncio.to_thread(call)
    gc.collect()
    assert loop() is None
    assert context[innermost] is not None


class Ahead(asyncio.SelectorEventLoop):
    """Its clock is a thousand seconds ahead."""

    def time(self) -> float:
        return super().time() + 1000


async def test_a_deadline_of_another_loop_is_told_by_the_clock_of_the_running_one() -> None:
    async def there() -> tuple[float | None, float | None, float | None, float]:
        with move_on_after(10):
            inner = remaining()
        return remaining(), current_deadline(), inner, now()

    def call(work: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=Ahead) as runner:
            return runner.run(work)

    with move_on_after(100):
        left, deadline, inner, its_time = await spawn_blocking(call, there())
    assert left is not None and 90 < left <= 100
    assert deadline is not None and abs(deadline - its_time - left) < 1
    assert inner is not None and 9 < inner <= 10


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python has eager tasks from 3.12 on")
async def test_an_eager_task_knows_the_deadline_in_its_first_step() -> None:
    with move_on_after(100) as scope:
        loop: Any = asyncio.get_running_loop()
        factory: Any = vars(asyncio)["eager_task_factory"]
        task = factory(loop, deadline_here())
        assert task.done() and task.result() == scope.deadline
