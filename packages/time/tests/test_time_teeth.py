"""Wrong variants of this area, each of which its explored scenarios must catch."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from yamanote.runtime import CancelScope
from yamanote.testing import Counterexample, explore, explore_cancellations, replay
from yamanote.time import _sleep
from yamanote.time._ticker import Ticker
from yamanote.time._timeout import _Timeout

from .test_time_explored import scenarios

take_on_schedule = Ticker._take
leave_scope = CancelScope.__exit__


def wake_whoever_it_is(future: asyncio.Future[None]) -> None:
    future.set_result(None)


def keep_the_request(scope: CancelScope, kind: Any, error: BaseException | None, traceback: Any) -> bool:
    scope._task = None
    if scope._timer is not None:
        scope._timer.cancel()
    scope._caught = scope._delivered and isinstance(error, asyncio.CancelledError)
    return scope._caught


def swallow_every_request(scope: CancelScope, kind: Any, error: BaseException | None, traceback: Any) -> bool:
    task, called = scope._task, scope._called
    assert task is not None
    leave_scope(scope, kind, error, traceback)
    scope._caught = called and isinstance(error, asyncio.CancelledError)
    while scope._caught and task.cancelling():
        task.uncancel()
    return scope._caught


def leave_the_timer(scope: CancelScope, kind: Any, error: BaseException | None, traceback: Any) -> bool:
    scope._timer = scope._shared = None
    return leave_scope(scope, kind, error, traceback)


async def late_is_late(block: _Timeout, kind: Any, error: BaseException | None, traceback: Any) -> bool:
    swallowed = block._scope.__exit__(kind, error, traceback)
    if block._scope.cancel_called:
        raise TimeoutError
    return swallowed


def drift(ticker: Ticker, now: float) -> float | None:
    due = take_on_schedule(ticker, now)
    if due is not None:
        ticker._origin, ticker._count = now, 1
    return due


def keep_the_tick(ticker: Ticker, tick: Any) -> None:
    pass


def give_back_out_of_order(ticker: Ticker, tick: Any) -> None:
    _, _, (ticker._origin, ticker._count), _ = tick


def forget_to_disarm(ticker: Ticker) -> None:
    pass


teeth: dict[str, tuple[object, str, Callable[..., Any], str]] = {
    "a sleeper is woken twice": (_sleep, "_wake", wake_whoever_it_is, "sleep"),
    "cancelling() stays one up": (CancelScope, "__exit__", keep_the_request, "timeout, block, too short"),
    "a request from outside is swallowed": (
        CancelScope,
        "__exit__",
        swallow_every_request,
        "timeout, call, cancelled at the end",
    ),
    "a timer is left behind": (CancelScope, "__exit__", leave_the_timer, "timeout, block"),
    "finished work times out": (_Timeout, "__aexit__", late_is_late, "timeout, block"),
    "ticks drift": (Ticker, "_take", drift, "interval, a busy party"),
    "a cancelled party keeps its tick": (Ticker, "_give_back", keep_the_tick, "interval, burst"),
    "a tick comes twice": (Ticker, "_give_back", give_back_out_of_order, "interval, reset to the past, two parties"),
    "a timer runs for nobody": (Ticker, "_disarm", forget_to_disarm, "interval, burst"),
}


pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # what a broken scenario leaves behind


@pytest.fixture
def break_it(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Puts a wrong variant in place, and tells in which scenario that shows."""

    def break_it(tooth: str) -> str:
        owner, method, wrong, name = teeth[tooth]
        monkeypatch.setattr(owner, method, wrong)
        return name

    yield break_it
    gc.collect()


@pytest.mark.parametrize("tooth", teeth)
def test_some_cancellation_shows_it(tooth: str, break_it: Callable[[str], str]) -> None:
    name = break_it(tooth)
    with pytest.raises(Counterexample) as found:
        explore_cancellations(scenarios[name])
    with pytest.raises(Counterexample):
        replay(scenarios[name], found.value.token)


@pytest.mark.parametrize("tooth", ["a sleeper is woken twice", "ticks drift"])
def test_some_order_shows_it(tooth: str, break_it: Callable[[str], str]) -> None:
    name = break_it(tooth)
    with pytest.raises(Counterexample) as found:
        explore(scenarios[name])
    with pytest.raises(Counterexample):
        replay(scenarios[name], found.value.token)
