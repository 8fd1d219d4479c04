"""Races."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from yamanote.futures import race, race_ok
from yamanote.runtime import BUDGET, JoinError, spawn, spawn_blocking, start_task, yield_now


async def turns(count: int, value: Any = None) -> Any:
    for _ in range(count):
        await yield_now()
    return value


async def never() -> None:
    await asyncio.get_running_loop().create_future()


async def fail(error: BaseException, count: int = 0) -> None:
    await turns(count)
    raise error


BOTH = pytest.mark.parametrize("racing", [race, race_ok])
Racing = Callable[..., Coroutine[Any, Any, Any]]


def others() -> set[asyncio.Task[Any]]:
    current = asyncio.current_task()
    return {task for task in asyncio.all_tasks() if task is not current}


@BOTH
async def test_the_first_that_finishes_wins(racing: Racing) -> None:
    assert await racing(turns(5, "slow"), turns(2, "fast"), turns(3, "middle")) == "fast"
    assert others() == set()


@BOTH
@pytest.mark.parametrize("value", [None, 0, "", ValueError("a value"), asyncio.CancelledError("a value")])
@pytest.mark.parametrize("count", [0, 2])
async def test_every_value_wins(racing: Racing, value: Any, count: int) -> None:
    assert await racing(turns(count, value), never()) is value


@BOTH
async def test_a_tie_is_decided_by_the_order_of_completion(racing: Racing) -> None:
    for _ in range(20):
        assert await racing(*(turns(3, number) for number in range(10))) == 0


@BOTH
async def test_the_losers_have_ended_when_it_returns(racing: Racing) -> None:
    ended: list[int] = []

    async def lose(count: int) -> None:
        try:
            await never()
        finally:
            await turns(count)
            ended.append(count)

    assert await racing(lose(3), turns(1, "won"), lose(1), lose(2)) == "won"
    assert sorted(ended) == [1, 2, 3]
    assert others() == set()


@BOTH
async def test_what_need_not_begin_does_not_and_costs_no_turn(racing: Racing) -> None:
    began: list[str] = []

    async def begin(name: str) -> str:
        began.append(name)
        return name

    noted: list[str] = []
    asyncio.get_running_loop().call_soon(lambda: noted.append("a turn"))
    assert await racing(begin("first"), begin("second")) == "first"
    assert began == ["first"]
    assert noted == []


async def test_the_error_of_the_first_wins_too() -> None:
    error = OSError("no answer")
    with pytest.raises(OSError) as caught:
        await race(never(), fail(error), turns(5))
    assert caught.value is error
    assert others() == set()


async def test_whoever_failed_before_somebody_won_is_forgotten_and_reported_only_if_nobody_could() -> None:
    errors: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(str(context["exception"])))
    assert await race_ok(fail(OSError("forgotten")), turns(2, "won")) == "won"
    call = start_task(race_ok(fail(OSError("told nobody")), never()))
    await yield_now()
    call.cancel()
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await call
    gc.collect()
    loop.set_exception_handler(None)
    assert errors == ["told nobody"]
    del cancelled  # as soon as it is known, while the cancellation is still being looked at


@BOTH
async def test_an_error_of_a_loser_is_reported_and_hides_nothing(racing: Racing) -> None:
    async def lose() -> None:
        try:
            await never()
        finally:
            raise OSError("in the clean-up")

    errors: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    assert await racing(lose(), turns(2, "won")) == "won"
    await yield_now()
    gc.collect()
    loop.set_exception_handler(None)
    assert [str(error) for error in errors] == ["in the clean-up"]


async def test_a_contender_that_was_cancelled_cancels_nobody() -> None:
    async def cancel_itself() -> None:
        await yield_now()
        raise asyncio.CancelledError

    with pytest.raises(JoinError):
        await race(cancel_itself(), never())


@BOTH
@pytest.mark.parametrize("turn", range(1, 8))
async def test_a_cancelled_race_cancels_and_awaits_all(racing: Racing, turn: int) -> None:
    ended: list[str] = []

    async def run(name: str) -> None:
        try:
            await turns(2)
            await never()
        finally:
            await turns(2)
            ended.append(name)

    task = asyncio.create_task(racing(run("a"), run("b")))
    await turns(turn)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert others() == set()
    # On Python 3.11 they may not have begun in the first turn.
    assert sorted(ended) in ([["a", "b"]] if turn > 2 else [["a", "b"], []])


@BOTH
@pytest.mark.parametrize("turn", range(1, 12))
async def test_a_race_cancelled_while_its_losers_end_is_cancelled_when_they_have(racing: Racing, turn: int) -> None:
    ended: list[str] = []

    async def lose() -> None:
        try:
            await never()
        finally:
            await turns(4)
            ended.append("loser")

    task = asyncio.create_task(racing(turns(1, "won"), lose()))
    await turns(turn)
    finished = task.done()
    task.cancel()
    await asyncio.wait([task])
    assert ended == ["loser"] or turn == 1
    assert task.cancelled() != finished
    assert others() == set()


@BOTH
async def test_futures_tasks_and_handles_go_on_when_they_lose(racing: Racing) -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(turns(8, "task"))
    handle = spawn(turns(8, "handle"))
    assert await racing(future, task, handle, turns(2, "won")) == "won"
    assert not future.done()
    assert await task == "task"
    assert await handle == "handle"


@BOTH
async def test_futures_and_tasks_can_win(racing: Racing) -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    future.set_result("future")
    assert await racing(never(), future) == "future"
    assert await racing(asyncio.create_task(turns(1, "task")), never()) == "task"
    assert await racing(spawn(turns(1, "handle")), never()) == "handle"


@BOTH
async def test_nonsense_is_refused_and_nothing_begins(racing: Racing) -> None:
    async def begin() -> None:
        pytest.fail("began")

    with pytest.raises(ValueError):
        await racing()
    with pytest.raises(TypeError):
        await racing(begin(), 1, begin())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a function: call it"):
        await racing(begin)  # type: ignore[arg-type]
    assert others() == set()


async def test_a_blocking_call_that_loses_goes_on() -> None:
    go_on = threading.Event()
    handle = spawn_blocking(go_on.wait, 10)
    assert await race(handle, asyncio.sleep(0, "first")) == "first"
    go_on.set()
    assert await handle


@BOTH
async def test_a_loop_of_races_that_are_ready_lets_the_others_run(racing: Racing) -> None:
    races = 0
    noted: list[int] = []
    asyncio.get_running_loop().call_soon(lambda: noted.append(races))
    for _ in range(BUDGET * 2):
        await racing(turns(0), never())
        races += 1
    assert 0 < noted[0] <= BUDGET


@BOTH
async def test_one_iterable_of_contenders_is_the_same(racing: Racing) -> None:
    assert await racing([turns(5, "slow"), turns(2, "fast")]) == "fast"
    assert await racing(turns(count, count) for count in (3, 1, 2)) == 1
    with pytest.raises(ValueError):
        await racing([])


@BOTH
async def test_the_losers_are_cancelled_in_the_turn_of_the_win(racing: Racing) -> None:
    events: list[str] = []

    async def win() -> None:
        await turns(2)
        later(3)

    def later(turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(later, turns - 1)
        else:
            events.append("three turns later")

    async def lose() -> None:
        try:
            await never()
        finally:
            events.append("cancelled")

    await racing(win(), lose())
    assert events[0] == "cancelled"


async def test_an_error_is_free_as_soon_as_it_is_handled() -> None:
    class Failure(Exception):
        pass

    async def work() -> None:
        await turns(2)
        raise Failure

    gc.collect()
    gc.disable()
    try:
        try:
            await race(work(), never())
        except Failure as error:
            freed = weakref.ref(error)
        await yield_now()  # the loop refers to the last that ended until the caller waits, as for `await task`
        assert freed() is None
    finally:
        gc.enable()


async def test_who_fails_only_drops_out_when_success_is_asked_for() -> None:
    reported: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    victim = asyncio.create_task(never())
    loop.call_soon(victim.cancel)
    assert await race_ok(fail(OSError(), 1), fail(KeyError()), victim, turns(5, "won"), never()) == "won"
    gc.collect()
    loop.set_exception_handler(None)
    assert reported == []


async def test_when_all_fail_their_errors_come_together_in_the_order_of_the_arguments() -> None:
    async def cancel_itself() -> None:
        raise asyncio.CancelledError

    one, two = OSError("one"), KeyError("two")
    with pytest.raises(ExceptionGroup, match="3 of 3 failed") as caught:
        await race_ok(fail(one, 3), fail(two), cancel_itself())
    assert caught.value.exceptions[:2] == (one, two)
    assert isinstance(caught.value.exceptions[2], JoinError)
