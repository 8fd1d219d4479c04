from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

import pytest

from yamanote.runtime import (
    CoroState,
    blocked_tasks,
    coro_as_future,
    coro_continue,
    coro_is_blocked,
    coro_start,
    run,
    start_task,
    yield_now,
)

T = TypeVar("T")


async def value_of(value: T) -> T:
    return value


async def wait_and_return(value: T) -> T:
    await yield_now()
    return value


async def fail(error: BaseException) -> None:
    raise error


def eager_by_hand(coroutine: Any) -> asyncio.Future[Any]:
    """Out of the parts: a finished future, or a task for the rest."""
    state = coro_start(coroutine)
    if coro_is_blocked(state):
        return asyncio.create_task(coro_continue(state))
    return coro_as_future(state)


# beginning


async def test_a_coroutine_that_blocks_has_run_up_to_its_first_wait() -> None:
    log: list[int] = []

    async def work() -> str:
        log.append(1)
        await yield_now()
        log.append(2)
        return "done"

    state = coro_start(work())
    assert coro_is_blocked(state) and log == [1]
    assert await coro_continue(state) == "done"
    assert log == [1, 2] and not coro_is_blocked(state)


async def test_a_coroutine_that_does_not_block_gives_a_finished_future() -> None:
    state = coro_start(value_of(3))
    assert not coro_is_blocked(state)
    future = coro_as_future(state)
    assert future.done() and await future == 3


async def test_the_parts_make_an_eager_start() -> None:
    log: list[object] = []

    async def work() -> None:
        log.append(1)
        await yield_now()
        log.append(2)

    log.append("a")
    future = eager_by_hand(work())
    log.append("b")
    await future
    assert log == ["a", 1, "b", 2]
    assert not isinstance(eager_by_hand(value_of(0)), asyncio.Task)


def test_no_loop_is_needed_as_long_as_the_coroutine_asks_for_none() -> None:
    state = coro_start(value_of(3))
    with pytest.raises(RuntimeError, match=r"coro_as_future\(\) needs a running event loop"):
        coro_as_future(state)
    with pytest.raises(StopIteration) as end:  # it has not been taken by that
        coro_continue(state).send(None)
    assert end.value.value == 3


async def test_other_awaitables_are_welcome_and_nonsense_is_not() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    state = coro_start(future)
    future.set_result(3)
    assert await coro_continue(state) == 3
    with pytest.raises(TypeError, match=r"call it: coro_start\(sleep\(\)\)"):
        coro_start(asyncio.sleep)  # type: ignore[arg-type]


async def test_a_coroutine_that_was_started_before_is_refused_and_left_alone() -> None:
    coroutine = wait_and_return(3)
    state = coro_start(coroutine)
    with pytest.raises(RuntimeError, match="has not been started"):
        coro_start(coroutine)
    assert await coro_continue(state) == 3
    with pytest.raises(RuntimeError, match="has not been started"):
        coro_start(coroutine)


# what is left is taken once


def taken() -> CoroState[int]:
    state = coro_start(value_of(3))
    coro_as_future(state)
    return state


def continued() -> CoroState[int]:
    state = coro_start(wait_and_return(3))
    coro_continue(state).close()
    return state


def closed() -> CoroState[int]:
    state = coro_start(wait_and_return(3))
    state.close()
    return state


def closed_after_its_end() -> CoroState[int]:
    state = coro_start(value_of(3))
    state.close()
    return state


@pytest.mark.parametrize(
    ("make", "word"),
    [(taken, "taken"), (continued, "taken"), (closed, "closed"), (closed_after_its_end, "closed")],
)
async def test_what_is_taken_or_closed_cannot_be_taken_again(make: Callable[[], CoroState[int]], word: str) -> None:
    state = make()
    assert not coro_is_blocked(state)
    assert repr(state).endswith(f", {word}>")
    for take in (coro_as_future, coro_continue):
        with pytest.raises(RuntimeError, match=word):
            take(state)
    state.close()  # changes nothing
    assert repr(state).endswith(f", {word}>")


async def test_a_blocked_coroutine_has_no_future_yet() -> None:
    state = coro_start(wait_and_return(3))
    with pytest.raises(RuntimeError, match="blocked"):
        coro_as_future(state)
    assert await coro_continue(state) == 3


async def test_a_continuation_returns_at_once_what_did_not_block() -> None:
    noted: list[str] = []
    asyncio.get_running_loop().call_soon(noted.append, "a turn")
    assert await coro_continue(coro_start(value_of(None))) is None
    with pytest.raises(LookupError):
        await coro_continue(coro_start(fail(LookupError())))
    assert noted == []


# errors


async def test_an_error_is_kept_for_the_one_who_takes_the_end() -> None:
    future = coro_as_future(coro_start(fail(LookupError("kept"))))
    with pytest.raises(LookupError, match="kept"):
        await future


async def test_a_cancellation_gives_a_cancelled_future() -> None:
    future = coro_as_future(coro_start(fail(asyncio.CancelledError("by itself"))))
    assert future.cancelled()
    with pytest.raises(asyncio.CancelledError, match="by itself"):
        await future


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_comes_out_of_the_call(kind: type[BaseException]) -> None:
    with pytest.raises(kind):
        coro_start(fail(kind()))


async def test_an_error_keeps_nothing_of_ours_alive() -> None:
    gc.collect()
    gc.disable()
    try:
        state = coro_start(fail(LookupError()))
        future = coro_as_future(state)
        error = future.exception()
        assert error is not None
        frames = []
        traceback = error.__traceback__
        while traceback is not None:
            frames.append(traceback.tb_frame.f_code.co_name)
            traceback = traceback.tb_next
        assert frames == ["fail"]
    finally:
        gc.enable()


# whose task, which context


async def test_each_part_runs_in_the_task_that_steps_it() -> None:
    async def work() -> list[Any]:
        tasks = [asyncio.current_task()]
        await yield_now()
        return [*tasks, asyncio.current_task()]

    task = start_task(coro_continue(coro_start(work())))
    assert await task == [asyncio.current_task(), task]


@pytest.mark.parametrize("go_on", [lambda rest: rest, start_task])
async def test_both_parts_run_in_one_copy_of_the_context_of_the_start(go_on: Callable[[Any], Awaitable[str]]) -> None:
    variable = contextvars.ContextVar("variable", default="nothing")
    variable.set("outside")

    async def work() -> str:
        before = variable.get()
        token = variable.set("inside")
        await yield_now()
        assert variable.get() == "inside"
        variable.reset(token)
        return before

    state = coro_start(work())
    assert variable.get() == "outside"
    variable.set("later")
    assert await go_on(coro_continue(state)) == "outside"
    assert variable.get() == "later"


# what it waits for


async def test_it_goes_on_when_what_it_waits_for_has_happened_meanwhile() -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    state = coro_start(asyncio.wait_for(future, None))
    future.set_result("meanwhile")
    assert await coro_continue(state) == "meanwhile"


async def test_others_may_await_the_same_thing_in_between() -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def ask() -> str:
        return await future

    state = coro_start(ask())
    other = start_task(ask())
    await yield_now()
    rest = start_task(coro_continue(state))
    await yield_now()
    future.set_result("for all")
    assert [await other, await rest] == ["for all", "for all"]


async def test_several_waits_go_through_to_the_loop() -> None:
    async def work() -> int:
        total = 0
        for number in range(5):
            total += await wait_and_return(number)
            await asyncio.sleep(0)
        return total

    assert await coro_continue(coro_start(work())) == 10


async def test_a_cancellation_arrives_where_it_waits_and_may_be_handled() -> None:
    log: list[str] = []

    async def work() -> str:
        for _ in range(2):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                log.append("cancelled")
                await yield_now()
                log.append("cleaned up")
        return "done"

    task = start_task(coro_continue(coro_start(work())))
    for _ in range(2):
        await yield_now()
        task.cancel()
        await yield_now()
        await yield_now()
    assert await task == "done"
    assert log == ["cancelled", "cleaned up"] * 2


async def test_an_error_on_the_way_comes_out_of_the_continuation() -> None:
    async def work() -> None:
        await yield_now()
        raise LookupError("later")

    with pytest.raises(LookupError, match="later"):
        await coro_continue(coro_start(work()))


async def test_a_cancellation_before_the_first_step_arrives_where_it_waits_too() -> None:
    log: list[str] = []

    async def work() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await yield_now()
            log.append("cleaned up")
            raise
        raise AssertionError

    task = asyncio.create_task(coro_continue(coro_start(work())))
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() and log == ["cleaned up"]


@pytest.mark.parametrize("coroutine", [lambda: value_of(3), lambda: fail(LookupError())])
async def test_a_task_for_what_has_ended_can_be_cancelled_before_its_first_step(coroutine: Callable[[], Any]) -> None:
    task = asyncio.create_task(coro_continue(coro_start(coroutine())))
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task


async def test_a_task_for_the_rest_shows_where_the_coroutine_is() -> None:
    async def work() -> None:
        await asyncio.Event().wait()

    task = start_task(coro_continue(coro_start(work())))
    await yield_now()
    assert ".work() running at" in repr(task)
    assert [frame.f_code.co_name for frame in task.get_stack()] == ["work"]
    assert task in blocked_tasks()
    task.cancel()


async def test_a_rest_that_is_never_awaited_gives_a_warning() -> None:
    rest = coro_continue(coro_start(wait_and_return(3)))
    with pytest.warns(RuntimeWarning, match="the rest of .* was never awaited"):
        del rest
        gc.collect()


# closing


async def test_closing_runs_the_clean_up_in_the_same_context() -> None:
    log: list[str] = []
    variable = contextvars.ContextVar("variable", default="nothing")

    async def work() -> None:
        token = variable.set("inside")
        try:
            await yield_now()
        finally:
            log.append(variable.get())
            variable.reset(token)

    state = coro_start(work())
    state.close()
    assert log == ["inside"]


async def test_a_continuation_that_is_thrown_away_closes_the_coroutine() -> None:
    log: list[str] = []

    async def work() -> None:
        try:
            await yield_now()
        finally:
            log.append("closed")

    rest = coro_continue(coro_start(work()))
    rest.send(None)
    rest.close()
    assert log == ["closed"]


async def test_one_that_ignores_being_closed_is_an_error() -> None:
    async def work() -> None:
        try:
            await yield_now()
        finally:
            await yield_now()

    state = coro_start(work())
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        state.close()


async def test_a_state_that_is_dropped_gives_a_warning() -> None:
    for coroutine, words in ((wait_and_return(3), "blocked"), (fail(LookupError()), "ended: Outcome.failed")):
        state = coro_start(coroutine)
        with pytest.warns(ResourceWarning, match=rf"{words}.*neither taken nor closed"):
            del state
            gc.collect()
    coro_start(value_of(3))  # nothing is lost with a value


class Foreign:
    """A coroutine that is not of Python's making, such as Cython's."""

    def __await__(self) -> Generator[Any, Any, str]:
        yield
        return "foreign"


def test_a_foreign_awaitable_is_stepped_too() -> None:
    async def main() -> str:
        state: CoroState[str] = coro_start(Foreign())
        assert coro_is_blocked(state)
        return await coro_continue(state)

    assert run(main()) == "foreign"
