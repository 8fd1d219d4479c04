"""Guaranteed tasks that are cancelled before their first step, and later, in many orders."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from yamanote.runtime import GuaranteedTask, _guaranteed, move_on_after, start_task
from yamanote.testing import Counterexample, explore, explore_cancellations, replay

from .test_runtime_explored import alone, left_alone, requests


class Work:
    """A guaranteed task, and what happens to it."""

    def __init__(self, wait: Callable[[], Coroutine[Any, Any, object]]) -> None:
        self.wait = wait
        self.begun = False
        self.waits = self.delivered = 0
        self.asked_early = False
        self.task = GuaranteedTask(self.run())

    async def run(self) -> None:
        self.begun = True
        try:
            for _ in range(3):
                await self.wait()
                self.waits += 1
        except CancelledError:
            self.delivered += 1
            before = requests()
            with move_on_after(0) as scope:  # in the clean-up too, counts are balanced
                await asyncio.sleep(1)
            assert scope.cancelled_caught and requests() == before
            raise

    async def cancel(self) -> None:
        self.asked_early = not self.begun
        self.task.cancel()

    def check(self) -> None:
        assert self.begun
        assert self.task.cancelled() == (self.task.cancelling() > 0)
        if not self.task.cancelled():
            self.task.result()
        elif alone.get():
            assert self.delivered == self.task.cancelling() == 1
            assert not (self.asked_early and self.waits)


async def cancelled_at_any_moment() -> None:
    async def wait_for_another() -> None:
        await asyncio.wait([start_task(asyncio.sleep(1))])

    # A bare `yield_now` is not among them: the explorer lets a task go on before callbacks that came earlier.
    works = [Work(wait) for wait in (partial(asyncio.sleep, 1), wait_for_another, wait_for_another)]
    cancelling = [start_task(work.cancel()) for work in works]
    await asyncio.wait([*cancelling, *[work.task for work in works]])
    for work in works:
        work.check()
    assert asyncio.get_running_loop().time() == 0 or not alone.get()
    await asyncio.sleep(2)


def test_it_begins_and_is_cancelled_once_in_any_order() -> None:
    explore(partial(left_alone, cancelled_at_any_moment), runs=100)


def test_it_begins_also_when_it_is_cancelled_by_several() -> None:
    explore_cancellations(cancelled_at_any_moment, runs=200)


# ---------------------------------------------------------------- teeth


def does_not_begin(coroutine: Any) -> Any:
    return coroutine


def forgets_the_request(task: asyncio.Task[Any], message: object = None) -> None:
    pass


def counts_the_request_twice(task: asyncio.Task[Any], message: object = None) -> None:
    task.cancel(message)


def is_late(task: asyncio.Task[Any], message: object = None) -> None:
    asyncio.get_running_loop().call_later(0.5, right_cancel_again, task, message)


right_cancel_again = _guaranteed._cancel_again


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("_begun", does_not_begin),
        ("_cancel_again", forgets_the_request),
        ("_cancel_again", counts_the_request_twice),
        ("_cancel_again", is_late),
    ],
)
def test_it_is_caught(monkeypatch: pytest.MonkeyPatch, name: str, wrong: Callable[..., Any]) -> None:
    monkeypatch.setattr(_guaranteed, name, wrong)
    undisturbed = partial(left_alone, cancelled_at_any_moment)
    with pytest.raises(Counterexample) as caught:
        explore(undisturbed, runs=200)
        explore_cancellations(cancelled_at_any_moment, runs=200)
    with pytest.raises(Counterexample):
        replay(cancelled_at_any_moment if "@" in caught.value.token else undisturbed, caught.value.token)
