"""Signals in many orders of the steps around them, and with whoever waits for them cancelled anywhere."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from yamanote.runtime import (
    CancelScope,
    SignalListener,
    Waiter,
    _signals,
    handle_signal,
    signals,
    start_task,
    wait_for_signal,
    yield_now,
)
from yamanote.testing import Counterexample, explore, explore_cancellations

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals of one's own")

if sys.platform != "win32":
    from signal import SIGUSR1, SIGUSR2, raise_signal

Scenario = Callable[[], Coroutine[Any, Any, None]]


class Fallback:
    """What has the signals when nobody listens: it counts."""

    def __init__(self) -> None:
        self.count = 0
        self._before = {signum: signal.signal(signum, self._arrived) for signum in (SIGUSR1, SIGUSR2)}

    def _arrived(self, signum: int, frame: object) -> None:
        self.count += 1

    def __enter__(self) -> Fallback:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        current = [signal.getsignal(signum) for signum in self._before]
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        assert kind is not None or current == [self._arrived] * 2, "the signals were not given back"


async def raise_signals(number: int) -> None:
    for _ in range(number):
        raise_signal(SIGUSR1)
        await yield_now()


async def an_arrival_is_received_or_still_there() -> None:
    with Fallback() as fallback, signals(SIGUSR1, SIGUSR2) as arrived:
        received: list[signal.Signals] = []

        async def receive() -> None:
            received.append(await anext(arrived))

        tasks = [start_task(receive()) for _ in range(3)]
        await yield_now()
        for _ in range(3):
            raise_signal(SIGUSR1)
            await asyncio.sleep(1)
        cancelled = sum(task.cancelled() for task in tasks)
        assert len(received) == 3 - cancelled
        assert list(arrived._arrived) == ([SIGUSR1] if cancelled else [])
        assert fallback.count == 0


async def every_listener_hears_of_it() -> None:
    with Fallback() as fallback:
        heard: list[int] = []

        async def listen(number: int) -> None:
            with signals(SIGUSR1) as arrived:
                async for signum in arrived:
                    assert signum is SIGUSR1
                    heard.append(number)
                    return

        tasks = [start_task(listen(number)) for number in range(2)]
        await asyncio.sleep(1)
        raise_signal(SIGUSR1)
        await asyncio.wait(tasks)
        assert sorted(heard) == [number for number, task in enumerate(tasks) if not task.cancelled()]
        assert not (heard and fallback.count)


async def an_arrival_reaches_whoever_listens_or_whoever_listened_before() -> None:
    with Fallback() as fallback:
        told: list[int] = []

        async def listen() -> None:
            with signals(SIGUSR1) as arrived:
                try:
                    await yield_now()
                finally:
                    told.append(len(arrived._arrived))

        async def tell() -> None:
            raise_signal(SIGUSR1)

        tasks = [start_task(listen()), start_task(tell()), start_task(listen())]
        await asyncio.wait(tasks)
        await yield_now()
        assert bool(sum(told)) + fallback.count == (not tasks[1].cancelled())


async def a_wait_for_a_signal_gives_it_back() -> None:
    with Fallback() as fallback:
        received: list[signal.Signals] = []

        async def wait() -> None:
            received.append(await wait_for_signal(SIGUSR1, SIGUSR2))

        waiting = [start_task(wait()) for _ in range(2)]
        await asyncio.sleep(1)
        await raise_signals(3)
        await asyncio.sleep(1)
        assert len(received) == sum(not task.cancelled() for task in waiting)
        assert received or fallback.count


async def a_block_is_cancelled_by_a_signal_and_by_nothing_of_its() -> None:
    with Fallback() as fallback:
        ends: list[signal.Signals | None] = []

        async def work() -> None:
            task = asyncio.current_task()
            assert task is not None
            before = task.cancelling()
            with CancelScope() as outer:
                with handle_signal(SIGUSR1) as scope:
                    try:
                        await asyncio.sleep(1)
                    finally:
                        await yield_now()
                ends.append(scope.signal)
            assert not outer.cancelled_caught
            assert task.cancelling() == before
            await yield_now()

        tasks = [start_task(work()) for _ in range(2)]
        await yield_now()
        await yield_now()
        await raise_signals(2)
        await asyncio.wait(tasks)
        for task in tasks:
            assert task.cancelled() == (task.cancelling() > 0), f"{task} has {task.cancelling()} requests"
            assert task.cancelled() or task.result() is None
        assert all(end in (None, SIGUSR1) for end in ends)
        assert fallback.count or SIGUSR1 in ends or len(ends) < 2


SCENARIOS: list[Scenario] = [
    an_arrival_is_received_or_still_there,
    every_listener_hears_of_it,
    an_arrival_reaches_whoever_listens_or_whoever_listened_before,
    a_wait_for_a_signal_gives_it_back,
    a_block_is_cancelled_by_a_signal_and_by_nothing_of_its,
]
each = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)


@each
def test_in_any_order(scenario: Scenario) -> None:
    explore(scenario, runs=100)


@each
def test_cancelled_anywhere(scenario: Scenario) -> None:
    explore_cancellations(scenario, runs=200)


# ---------------------------------------------------------------- teeth: each of these is caught


def keeps_nothing_of_what_was_given_back(self: SignalListener, waiter: Waiter[Any]) -> None:
    if waiter in self._waiters:
        self._waiters.remove(waiter)


def tells_only_one_listener(self: Any) -> None:
    self._untold = False
    for reference in list(self.listeners.values())[:1]:
        listener = reference()
        if listener is not None:
            listener._arrive(self._signum)


def forgets_what_nobody_was_told(self: Any) -> None:
    _signals.give_back(self._signum, self._previous, self._arrived)


def never_gives_back(self: Any) -> None: ...


@pytest.mark.parametrize(
    ("owner", "name", "wrong", "scenario"),
    [
        (SignalListener, "_forget", keeps_nothing_of_what_was_given_back, an_arrival_is_received_or_still_there),
        (_signals._Taken, "_tell", tells_only_one_listener, every_listener_hears_of_it),
        (
            _signals._Taken,
            "give_back",
            forgets_what_nobody_was_told,
            an_arrival_reaches_whoever_listens_or_whoever_listened_before,
        ),
        (_signals._Taken, "give_back", never_gives_back, a_wait_for_a_signal_gives_it_back),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_wrong_one_is_caught(
    owner: Any, name: str, wrong: Any, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, wrong)
    before = {signum: signal.getsignal(signum) for signum in (SIGUSR1, SIGUSR2)}
    try:
        with pytest.raises(Counterexample):
            explore(scenario, runs=100)
            explore_cancellations(scenario, runs=500)
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
