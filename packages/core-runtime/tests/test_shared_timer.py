"""Deadlines that do not come leave nothing behind, those that come are not missed, however many share a timer."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest

from yamanote.runtime import CancelScope, finish_within, move_on_after, yield_now
from yamanote.runtime._shared_timer import SharedTimer
from yamanote.testing import Counterexample, explore, explore_cancellations


def timers() -> list[asyncio.TimerHandle]:
    loop: Any = asyncio.get_running_loop()
    return [timer for timer in loop._scheduled if not timer.cancelled()]


def heap() -> int:
    loop: Any = asyncio.get_running_loop()
    return len(loop._scheduled)


async def ready() -> str:
    return "done"


async def test_ten_thousand_blocks_that_end_at_once_put_one_timer_into_the_heap() -> None:
    before = heap()
    for _ in range(10_000):
        with move_on_after(10):
            pass
        assert await finish_within(10, ready()) == "done"
    assert heap() <= before + 1


async def test_ten_thousand_blocks_that_wait_do_not_pile_up_in_the_heap() -> None:
    before = heap()
    for _ in range(1_000):
        with move_on_after(10):
            await asyncio.sleep(0)
    assert heap() <= before + 1

    async def wait() -> None:
        with move_on_after(10):
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for _ in range(10_000):
            group.create_task(wait())
    assert heap() <= before + 1


async def test_a_turn_after_the_last_block_has_ended_there_is_no_timer() -> None:
    with move_on_after(10):
        with move_on_after(20):
            await yield_now()
            assert len(timers()) == 1
    await yield_now()
    assert timers() == []
    with move_on_after(10):
        pass
    with move_on_after(10):  # the next comes before the turn is over
        await yield_now()
        await yield_now()
        assert len(timers()) == 1
    await yield_now()
    assert timers() == []


async def test_an_earlier_deadline_moves_the_timer_and_a_later_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    with move_on_after(100):
        with monkeypatch.context() as patch:
            patch.setattr(loop, "call_at", None)
            with move_on_after(200) as scope:
                scope.deadline = loop.time() + 300
                scope.deadline = None
                scope.deadline = loop.time() + 150
        with move_on_after(50) as earlier:
            assert [timer.when() for timer in timers()] == [earlier.deadline]


async def test_a_deadline_that_is_moved_into_the_past_leaves_the_others() -> None:
    with move_on_after(10) as scope:
        scope.deadline = asyncio.get_running_loop().time() - 1
    await yield_now()
    assert timers() == []
    with move_on_after(10) as scope:
        scope.deadline = asyncio.get_running_loop().time() - 1
        await asyncio.sleep(3600)
    assert scope.cancelled_caught
    await yield_now()
    assert timers() == []


class Stubborn(asyncio.Future[None]):
    def cancel(self, msg: Any = None) -> bool:
        raise RuntimeError("this cannot be cancelled")


async def test_what_refuses_to_be_cancelled_does_not_keep_the_others_from_it() -> None:
    reported: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    stubborn = Stubborn()
    deadline = loop.time() + 0.001

    async def wait(future: asyncio.Future[None]) -> bool:
        with CancelScope(deadline) as scope:
            await future
        return scope.cancelled_caught

    first = asyncio.create_task(wait(stubborn))
    others = [asyncio.create_task(wait(loop.create_future())) for _ in range(2)]
    assert await asyncio.gather(*others) == [True, True]
    stubborn.set_result(None)
    assert await first is False
    assert [str(error) for error in reported] == ["this cannot be cancelled"]


async def test_a_block_that_a_finalizer_ends_while_the_timer_is_due_ends_without_a_sound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    errors: list[Exception] = []

    async def block(deadline: float) -> None:
        with CancelScope(deadline):
            await asyncio.sleep(0)
            await loop.create_future()

    def call_at(*args: Any, **options: Any) -> asyncio.TimerHandle:  # for the survivor, where a collector may come
        while dropped:
            try:
                dropped.pop().close()
            except Exception as error:
                errors.append(error)
        return original(*args, **options)

    survivor = asyncio.create_task(block(start + 0.002))
    await yield_now()
    dropped = [block(start + 3600)]
    dropped[0].send(None)
    first = asyncio.create_task(block(start + 0.001))
    await yield_now()
    original = loop.call_at
    monkeypatch.setattr(loop, "call_at", call_at)
    await asyncio.gather(survivor, first)
    assert dropped == [] and errors == [] and timers() == []


@pytest.mark.parametrize("waits", [True, False])
def test_a_block_that_is_thrown_away_with_its_loop_ends_without_a_sound(
    waits: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    async def block() -> None:
        with move_on_after(10):
            if waits:
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(0)

    async def main() -> None:
        task = asyncio.ensure_future(finish_within(10, block()))
        await asyncio.sleep(0)
        kept.append(task.get_coro())
        task._log_destroy_pending = False  # type: ignore[attr-defined]

    kept: list[Any] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    coroutine = kept.pop()
    coroutine.close()
    del coroutine
    gc.collect()
    assert capsys.readouterr().err == ""


# ---------------------------------------------------------------- in any order, cancelled anywhere


async def everybody_at_their_time() -> None:
    """Blocks end at their own deadlines, or before; whoever is late for one deadline is not for the next."""
    loop = asyncio.get_running_loop()

    async def block(seconds: float, work: float, moved: float | None = None) -> None:
        start = loop.time()
        with move_on_after(seconds) as scope:
            if moved is not None:
                await asyncio.sleep(0.5)
                scope.deadline = start + moved
            await asyncio.sleep(work if moved is None else 60)
        limit = seconds if moved is None else moved
        took = loop.time() - start
        assert scope.cancelled_caught is scope.expired is (limit <= took)
        assert took == min(limit, work), (took, limit, work)

    outcomes = await asyncio.gather(
        block(3, 60),
        block(2, 1),
        block(1, 60),
        block(2, 60),
        block(4, 60, 2.5),
        block(1.5, 60, 5),
        block(1, 60),
        block(60, 4),
        return_exceptions=True,
    )
    for outcome in outcomes:
        if isinstance(outcome, Exception):  # not a cancellation
            raise outcome
    await asyncio.sleep(0.1)
    assert timers() == []


def test_each_block_ends_at_its_own_deadline_whoever_shared_its_timer() -> None:
    explore(everybody_at_their_time, runs=60)
    explore_cancellations(everybody_at_their_time, runs=60)


due = SharedTimer._due


def forget_the_survivors(timer: SharedTimer) -> None:
    when, scopes = timer.when, list(timer)
    due(timer)
    for scope in scopes:
        if scope._deadline is not None and scope._deadline > when and scope._timer is not None:
            scope._timer.cancel()


def expire_everybody(timer: SharedTimer) -> None:
    for scope in timer:
        scope._deadline = timer.when
    due(timer)


def keep_the_later(timer: SharedTimer, when: float) -> None:
    if timer._timer is None:
        move(timer, when)


def never_end(timer: SharedTimer) -> None:
    timer.is_ending = True


move = SharedTimer.move
teeth: dict[str, tuple[str, Any]] = {
    "survivors get no timer": ("_due", forget_the_survivors),
    "survivors are cut short": ("_due", expire_everybody),
    "an earlier deadline does not move the timer": ("move", keep_the_later),
    "the timer outlives the blocks": ("end_soon", never_end),
}


@pytest.fixture
def break_it(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    yield lambda tooth: monkeypatch.setattr(SharedTimer, *teeth[tooth])
    gc.collect()


async def shared() -> None:
    loop = asyncio.get_running_loop()

    async def block(seconds: float, work: float) -> None:
        start = loop.time()
        with move_on_after(seconds):
            await asyncio.sleep(work)
        assert loop.time() - start == min(seconds, work)

    await asyncio.gather(block(5, 1), block(2, 60), block(3, 60), block(60, 6))
    with move_on_after(10):
        await asyncio.sleep(0)
    await asyncio.sleep(0.1)
    assert timers() == []


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("tooth", teeth)
def test_a_wrong_variant_is_caught(tooth: str, break_it: Any) -> None:
    explore(shared, runs=5)
    break_it(tooth)
    with pytest.raises(Counterexample):
        explore(shared, runs=5)
