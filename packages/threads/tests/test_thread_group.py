"""`ThreadTaskGroup`: a task group whose children run on a loop in another thread."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from yamanote.runtime import JoinError, JoinHandle, Started, TaskGroup, run, yield_now
from yamanote.sync import Event
from yamanote.threads import ThreadTaskGroup, run_in_thread_loop

pytestmark = pytest.mark.usefixtures("nothing_left_over")

place: ContextVar[str] = ContextVar("place", default="nowhere")


async def double(number: int) -> int:
    await yield_now()
    return number * 2


async def fail() -> None:
    raise LookupError("lost")


async def for_ever() -> None:
    await asyncio.Event().wait()


def requests() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def test_children_run_on_one_loop_in_one_thread_that_ends_with_the_group() -> None:
    async def where() -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
        return asyncio.get_running_loop(), threading.current_thread()

    async with ThreadTaskGroup(name="aside") as group:
        handles = [group.spawn(where()) for _ in range(3)]
    places = {await handle for handle in handles}
    ((loop, thread),) = places
    assert loop is not asyncio.get_running_loop()
    assert loop.is_closed()
    assert thread.name == "aside"
    assert not thread.is_alive()


async def test_it_is_a_task_group() -> None:
    assert isinstance(ThreadTaskGroup(), TaskGroup)


async def test_the_body_can_await_its_children_and_the_block_ends_after_them() -> None:
    ended: list[int] = []

    async def work(number: int) -> int:
        value = await double(number)
        ended.append(value)
        return value

    async with ThreadTaskGroup() as group:
        assert await group.spawn(work(1)) == 2
        handle = group.spawn(work(2), name="second")
        assert isinstance(handle, JoinHandle)
    assert ended == [2, 4]
    assert (await handle, handle.name) == (4, "second")


def test_a_plain_thread_has_it_too() -> None:
    with ThreadTaskGroup() as group:
        assert group.spawn(double(1)).result() == 2
        handle = group.spawn(double(2))
    assert handle.result() == 4


def test_children_can_spawn_children_and_so_can_other_threads() -> None:
    async def family(group: ThreadTaskGroup) -> int:
        inner = group.spawn(double(1))
        other = await asyncio.to_thread(group.spawn, double(2))
        third = await run_in_thread_loop(from_another_loop(group))
        return await inner + await other + await third

    async def from_another_loop(group: ThreadTaskGroup) -> JoinHandle[int]:
        return group.spawn(double(3))

    with ThreadTaskGroup() as group:
        handle = group.spawn(family(group))
    assert handle.result() == 12


async def test_children_see_the_variables_of_who_spawns_them() -> None:
    async def visit() -> str:
        before = place.get()
        place.set("away")
        return before

    async with ThreadTaskGroup() as group:
        place.set("body")
        assert await group.spawn(visit()) == "body"
    assert place.get() == "body"


async def test_with_a_limit_at_most_so_many_run_at_once_in_order() -> None:
    running, most, order = 0, 0, []
    all_spawned = Event()

    async def work(number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        order.append(number)
        await all_spawned.wait()
        await yield_now()
        running -= 1

    async with ThreadTaskGroup(limit=2) as group:
        for number in range(8):
            group.spawn(work(number))
        all_spawned.set()
    assert most == 2
    assert order == list(range(8))


async def test_start_waits_until_a_child_over_there_is_ready() -> None:
    async def serve(started: Started[int]) -> None:
        started(8080)
        await for_ever()

    async with ThreadTaskGroup() as group:
        assert await group.start(serve) == 8080
        group.cancel()


# ---------------------------------------------------------------- errors


async def test_the_first_error_cancels_the_other_children_and_the_body(stage: Any) -> None:
    with pytest.raises(ExceptionGroup, match=r"ThreadTaskGroup \(aside\)") as raised:
        async with ThreadTaskGroup(name="aside") as group:
            group.spawn(stage.run())
            await stage.reached()
            group.spawn(fail())
            await for_ever()
    assert [repr(error) for error in raised.value.exceptions] == ["LookupError('lost')"]
    assert stage.ended
    assert requests() == 0


async def test_an_error_of_the_body_cancels_the_children_and_is_raised_with_theirs(stages: Any) -> None:
    async def fail_in_clean_up(child: Any) -> None:
        try:
            await child.run()
        finally:
            raise KeyError

    child, other, _ = stages
    error = ValueError("body")
    with pytest.raises(ExceptionGroup) as raised:
        async with ThreadTaskGroup() as group:
            group.spawn(child.run())
            group.spawn(fail_in_clean_up(other))
            await child.reached()
            await other.reached()
            raise error
    assert child.ended
    assert other.ended
    assert sorted(type(each).__name__ for each in raised.value.exceptions) == ["KeyError", "ValueError"]
    assert error in raised.value.exceptions


def test_errors_of_a_plain_block_are_raised_at_its_end(stage: Any) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        with ThreadTaskGroup() as group:
            group.spawn(stage.run())
            handle = group.spawn(fail())
            with pytest.raises(LookupError):
                handle.result()
            raise ValueError("body")
    assert sorted(type(each).__name__ for each in raised.value.exceptions) == ["LookupError", "ValueError"]
    assert not stage.running.is_set() or stage.ended


async def test_an_error_that_the_body_raises_again_is_raised_once() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        async with ThreadTaskGroup() as group:
            await group.spawn(fail())
    assert len(raised.value.exceptions) == 1


def _raise_in_a_child(kind: type[BaseException]) -> None:
    async def end() -> None:
        raise kind

    with ThreadTaskGroup() as group:
        group.spawn(for_ever())
        group.spawn(end())


def _raise_in_a_plain_body(kind: type[BaseException]) -> None:
    with ThreadTaskGroup() as group:
        group.spawn(for_ever())
        raise kind


def _raise_in_a_child_of_a_task(kind: type[BaseException]) -> None:
    async def end() -> None:
        raise kind

    async def main() -> None:
        async with ThreadTaskGroup() as group:
            group.spawn(end())
            await for_ever()

    run(main())


@pytest.mark.parametrize("use", [_raise_in_a_child, _raise_in_a_plain_body, _raise_in_a_child_of_a_task])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_programs_is_raised_as_it_is(
    use: Callable[[type[BaseException]], None], kind: type[BaseException]
) -> None:
    with pytest.raises(kind):
        use(kind)


# ---------------------------------------------------------------- cancellation


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_a_child_ends_the_program_with_is_raised_and_not_reported_as_well(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def end() -> None:
        raise kind

    with pytest.raises(kind), ThreadTaskGroup() as group:
        group.spawn(end())
    gc.collect()
    assert caplog.records == []


async def test_cancel_ends_children_and_body_and_raises_nothing(stage: Any) -> None:
    async with ThreadTaskGroup() as group:
        handle = group.spawn(stage.run())
        await stage.reached()
        group.cancel("enough")
        await for_ever()
    assert stage.ended
    with pytest.raises(JoinError, match="enough"):
        await handle
    assert group.cancelled_caught
    assert requests() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals that wake a thread")
def test_a_keyboard_interrupt_at_the_end_of_a_plain_block_cancels_the_children_and_waits(stage: Any) -> None:
    main = threading.get_ident()

    def interrupt() -> None:
        stage.running.wait()
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    with pytest.raises(KeyboardInterrupt):
        with ThreadTaskGroup() as group:
            group.spawn(stage.run())
            thread.start()
    thread.join()
    assert stage.ended


def test_a_plain_block_can_be_cancelled_from_inside_and_goes_on_to_its_end() -> None:
    steps = []
    with ThreadTaskGroup() as group:
        group.spawn(for_ever())
        group.cancel()
        steps.append("goes on")
    assert steps == ["goes on"]


async def test_a_cancellation_of_the_body_goes_to_all_children_and_on_when_they_have_ended(stages: Any) -> None:
    async def host() -> None:
        async with ThreadTaskGroup() as group:
            for stage in stages:
                group.spawn(stage.run())
            await for_ever()

    task = asyncio.create_task(host())
    for stage in stages:
        await stage.reached()
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task
    assert all(stage.ended for stage in stages)
    assert task.cancelling() == 1


async def test_a_cancellation_while_the_block_waits_for_its_children_goes_to_them_too(stage: Any) -> None:
    async def host() -> None:
        async with ThreadTaskGroup() as group:
            group.spawn(stage.run())

    task = asyncio.create_task(host())
    await stage.reached()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert stage.ended


async def test_a_handle_that_is_aborted_cancels_its_child_only(stage: Any) -> None:
    async with ThreadTaskGroup() as group:
        handle = group.spawn(stage.run())
        other = group.spawn(double(1))
        handle.abort()
    assert handle.is_cancelled()
    assert await other == 2


async def test_a_cancellation_at_any_moment_leaves_nothing() -> None:
    for turns in range(40):
        counts = [0, 0]

        async def work(counts: list[int] = counts) -> None:
            counts[0] += 1
            try:
                await asyncio.Event().wait()
            finally:
                counts[1] += 1

        async def host() -> None:
            async with ThreadTaskGroup() as group:
                group.spawn(work())
                await for_ever()

        task = asyncio.create_task(host())
        await yield_now()
        for _ in range(turns):
            await yield_now()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert counts[0] == counts[1]


# ---------------------------------------------------------------- from the wrong side


async def test_a_group_that_is_not_open_takes_no_children_and_closes_them() -> None:
    group = ThreadTaskGroup()
    for _ in range(2):
        refused = double(1)
        with pytest.raises(RuntimeError, match="not open"):
            group.spawn(refused)
        with pytest.raises(RuntimeError, match="cannot reuse"):
            await refused
        if group._thread_block is None:
            async with group:
                pass


async def test_it_can_be_entered_only_once_even_while_it_is_open() -> None:
    async with ThreadTaskGroup() as group:
        with pytest.raises(RuntimeError, match="only once"):
            async with group:
                pass
        assert await group.spawn(double(1)) == 2


async def test_the_form_for_threads_is_refused_where_a_loop_runs() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        with ThreadTaskGroup():
            pass


async def test_what_cannot_be_awaited_is_refused_at_the_call() -> None:
    async with ThreadTaskGroup() as group:
        with pytest.raises(TypeError, match="spawn"):
            group.spawn(42)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="limit"):
        ThreadTaskGroup(limit=0)


@pytest.mark.usefixtures("switching_often")
def test_what_other_threads_could_spawn_has_run_and_what_came_too_late_is_refused() -> None:
    for _ in range(15):
        ran: list[int] = []
        ended: list[int] = []

        async def work(number: int, ran: list[int] = ran) -> int:
            ran.append(number)
            return number

        def spawn_until_refused(group: ThreadTaskGroup, number: int, ended: list[int] = ended) -> None:
            while True:
                coroutine = work(number)
                try:
                    ended.append(group.spawn(coroutine).result(timeout=30))
                except RuntimeError:  # by the call, or through the handle
                    assert coroutine.cr_frame is None
                    return
                number += 1

        with ThreadTaskGroup() as group:
            threads = [threading.Thread(target=spawn_until_refused, args=(group, base)) for base in (0, 10**6)]
            for thread in threads:
                thread.start()
            while len(ended) < 10:
                pass
        for thread in threads:
            thread.join(timeout=30)
            assert not thread.is_alive()
        assert sorted(ended) == sorted(ran)
