"""Races."""

import asyncio
import gc
import threading
from typing import Any

import pytest

from yamanote.futures import race
from yamanote.runtime import JoinError, spawn, spawn_blocking, yield_now


async def turns(count: int, value: Any = None) -> Any:
    for _ in range(count):
        await yield_now()
    return value


async def never() -> None:
    await asyncio.get_running_loop().create_future()


async def fail(error: BaseException) -> None:
    raise error


def others() -> set[asyncio.Task[Any]]:
    current = asyncio.current_task()
    return {task for task in asyncio.all_tasks() if task is not current}


async def test_the_first_that_finishes_wins() -> None:
    assert await race(turns(5, "slow"), turns(2, "fast"), turns(3, "middle")) == "fast"
    assert others() == set()


@pytest.mark.parametrize("value", [None, 0, "", ValueError("a value"), asyncio.CancelledError("a value")])
@pytest.mark.parametrize("count", [0, 2])
async def test_every_value_wins(value: Any, count: int) -> None:
    assert await race(turns(count, value), never()) is value


async def test_a_tie_is_decided_by_the_order_of_completion() -> None:
    for _ in range(20):
        assert await race(*(turns(3, number) for number in range(10))) == 0


async def test_the_losers_have_ended_when_it_returns() -> None:
    ended: list[int] = []

    async def lose(count: int) -> None:
        try:
            await never()
        finally:
            await turns(count)
            ended.append(count)

    assert await race(lose(3), turns(1, "won"), lose(1), lose(2)) == "won"
    assert sorted(ended) == [1, 2, 3]
    assert others() == set()


async def test_what_need_not_begin_does_not_and_costs_no_turn() -> None:
    began: list[str] = []

    async def begin(name: str) -> str:
        began.append(name)
        return name

    noted: list[str] = []
    asyncio.get_running_loop().call_soon(lambda: noted.append("a turn"))
    assert await race(begin("first"), begin("second")) == "first"
    assert began == ["first"]
    assert noted == []


async def test_the_error_of_the_first_wins_too() -> None:
    error = OSError("no answer")
    with pytest.raises(OSError) as caught:
        await race(never(), fail(error), turns(5))
    assert caught.value is error
    assert others() == set()


async def test_an_error_of_a_loser_is_reported_and_hides_nothing() -> None:
    async def lose() -> None:
        try:
            await never()
        finally:
            raise OSError("in the clean-up")

    errors: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    assert await race(lose(), turns(2, "won")) == "won"
    gc.collect()
    loop.set_exception_handler(None)
    assert [str(error) for error in errors] == ["in the clean-up"]


async def test_a_contender_that_was_cancelled_cancels_nobody() -> None:
    async def cancel_itself() -> None:
        await yield_now()
        raise asyncio.CancelledError

    with pytest.raises(JoinError):
        await race(cancel_itself(), never())


@pytest.mark.parametrize("turn", range(1, 8))
async def test_a_cancelled_race_cancels_and_awaits_all(turn: int) -> None:
    ended: list[str] = []

    async def run(name: str) -> None:
        try:
            await turns(2)
            await never()
        finally:
            await turns(2)
            ended.append(name)

    task = asyncio.create_task(race(run("a"), run("b")))
    await turns(turn)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert others() == set()
    # On Python 3.11 they may not have begun in the first turn.
    assert sorted(ended) in ([["a", "b"]] if turn > 2 else [["a", "b"], []])


@pytest.mark.parametrize("turn", range(1, 12))
async def test_a_race_cancelled_while_its_losers_end_is_cancelled_when_they_have(turn: int) -> None:
    ended: list[str] = []

    async def lose() -> None:
        try:
            await never()
        finally:
            await turns(4)
            ended.append("loser")

    task = asyncio.create_task(race(turns(1, "won"), lose()))
    await turns(turn)
    finished = task.done()
    task.cancel()
    await asyncio.wait([task])
    assert ended == ["loser"] or turn == 1
    assert task.cancelled() != finished
    assert others() == set()


async def test_futures_tasks_and_handles_go_on_when_they_lose() -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(turns(8, "task"))
    handle = spawn(turns(8, "handle"))
    assert await race(future, task, handle, turns(2, "won")) == "won"
    assert not future.done()
    assert await task == "task"
    assert await handle == "handle"


async def test_futures_and_tasks_can_win() -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    future.set_result("future")
    assert await race(never(), future) == "future"
    assert await race(asyncio.create_task(turns(1, "task")), never()) == "task"
    assert await race(spawn(turns(1, "handle")), never()) == "handle"


async def test_nonsense_is_refused_and_nothing_begins() -> None:
    async def begin() -> None:
        pytest.fail("began")

    with pytest.raises(ValueError):
        await race()
    with pytest.raises(TypeError):
        await race(begin(), 1, begin())  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        await race(begin)  # type: ignore[arg-type]
    assert others() == set()


async def test_a_blocking_call_that_loses_goes_on() -> None:
    go_on = threading.Event()
    handle = spawn_blocking(go_on.wait, 10)
    assert await race(handle, asyncio.sleep(0, "first")) == "first"
    go_on.set()
    assert await handle
