"""The pair form, and limits within limits, in any order of their steps, and cancelled at each of their awaits."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

import pytest

from yamanote.runtime import CancelScope, remaining
from yamanote.testing import Counterexample, explore, explore_cancellations, replay
from yamanote.time import sleep, time, timeout

Scenario = Callable[[], Coroutine[Any, Any, None]]


def requests() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


def armed_timers() -> int:
    loop: Any = asyncio.get_running_loop()
    return sum(not timer.cancelled() for timer in loop._scheduled)


async def ended(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    await sleep(100)  # nothing comes late
    assert not armed_timers()


async def pair(seconds: float, clean_up: float, cancelled_at: float = 20) -> None:
    """``(None, False)`` only when the time was over; a request from outside always goes on."""
    asked: list[float] = []
    how: list[str] = []

    async def work() -> None:
        try:
            await sleep(2)
            how.append("done")
        except asyncio.CancelledError:
            await sleep(clean_up)
            how.append("cleaned up")
            raise

    async def call() -> None:
        try:
            value, ok = await timeout(work(), seconds)
        except asyncio.CancelledError:
            assert requests()
            raise
        assert not requests() and not asked
        assert value is None
        assert how == (["done"] if ok else ["cleaned up"])
        assert ok or seconds <= 2
        await sleep(30)

    def cancel() -> None:
        if not task.done():
            asked.append(time())
            task.cancel()

    task = asyncio.create_task(call())
    asyncio.get_running_loop().call_at(cancelled_at, cancel)
    await ended(task)
    assert task.cancelled() or not asked


async def pairs_within_pairs(outer: float, inner: float) -> None:
    """Each answers for its own time; who asks is told the earliest deadline, and less from step to step."""

    async def innermost() -> None:
        left = remaining()
        assert left is not None and left <= min(outer, inner)
        await sleep(1)
        later = remaining()
        assert later is not None and later <= left - 1

    async def middle() -> bool:
        _, ok = await timeout(innermost(), inner)
        await sleep(0.25)
        return ok

    async def call() -> None:
        try:
            inside, ok = await timeout(middle(), outer)
        except asyncio.CancelledError:
            assert requests()
            raise
        assert not requests()
        half_way = min(inner, 1) + 0.25
        if outer != half_way:
            assert ok is (half_way < outer)
        if ok and inner != 1:
            assert inside is (inner > 1)
        assert remaining() is None

    await ended(asyncio.create_task(call()))


scenarios: dict[str, Scenario] = {
    "in time": partial(pair, 3, 0),
    "late": partial(pair, 1, 1),
    "at the last moment": partial(pair, 2, 1),
    "late, cancelled at that moment": partial(pair, 1, 1, 1),
    "late, cancelled in the clean-up": partial(pair, 1, 1, 1.5),
    "nested, at once": partial(pairs_within_pairs, 0.5, 0.5),
    "nested, inner first": partial(pairs_within_pairs, 2, 0.5),
    "nested, outer first": partial(pairs_within_pairs, 0.5, 2),
    "nested, in time": partial(pairs_within_pairs, 3, 2),
}


@pytest.mark.parametrize("name", scenarios)
def test_in_any_order(name: str) -> None:
    explore(scenarios[name], runs=40)


@pytest.mark.parametrize("name", scenarios)
def test_cancelled_anywhere(name: str) -> None:
    explore_cancellations(scenarios[name], runs=60)


leave_scope = CancelScope.__exit__


def swallow_every_request(scope: CancelScope, kind: Any, error: BaseException | None, traceback: Any) -> bool:
    task, called = scope._task, scope._called
    assert task is not None
    leave_scope(scope, kind, error, traceback)
    if called and isinstance(error, asyncio.CancelledError):
        while task.cancelling():
            task.uncancel()
        return True
    return False


def swallow_without_being_asked(scope: CancelScope, kind: Any, error: BaseException | None, traceback: Any) -> bool:
    leave_scope(scope, kind, error, traceback)
    return isinstance(error, asyncio.CancelledError)


def keep_counting(scope: CancelScope, kind: Any, error: BaseException | None, traceback: Any) -> bool:
    task = scope._task
    swallowed = leave_scope(scope, kind, error, traceback)
    scope._task = task
    return swallowed


teeth: dict[str, tuple[Any, str]] = {
    "a request from outside is swallowed with the limit's own": (
        swallow_every_request,
        "late, cancelled at that moment",
    ),
    "a request from outside is swallowed": (swallow_without_being_asked, "in time"),
    "a block that has ended still counts": (keep_counting, "nested, in time"),
}


@pytest.fixture
def break_it(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    def break_it(tooth: str) -> str:
        wrong, name = teeth[tooth]
        monkeypatch.setattr(CancelScope, "__exit__", wrong)
        return name

    yield break_it
    gc.collect()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # what a broken scenario leaves behind
@pytest.mark.parametrize("tooth", teeth)
def test_some_cancellation_shows_a_wrong_variant(tooth: str, break_it: Callable[[str], str]) -> None:
    name = break_it(tooth)
    with pytest.raises(Counterexample) as found:
        explore_cancellations(scenarios[name])
    with pytest.raises(Counterexample):
        replay(scenarios[name], found.value.token)
