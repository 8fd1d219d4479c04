"""Lazy: made when it is first wanted, once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial
from typing import Any, TypeVar

import pytest

from yamanote.futures import gather_safe, lazy, pending
from yamanote.runtime import JoinError, move_on_after, start_task, yield_now

T = TypeVar("T")


class Factory:
    """Counts its calls."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = outcomes
        self.calls = 0

    async def __call__(self) -> Any:
        self.calls += 1
        await yield_now()
        outcome = self.outcomes[self.calls - 1]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


async def test_the_factory_is_called_when_the_value_is_first_awaited_and_never_again() -> None:
    factory = Factory(None)
    value = lazy(factory)
    await yield_now()
    assert not factory.calls
    assert await asyncio.gather(value, value) == [None, None]
    assert await value is None and factory.calls == 1


async def test_a_factory_that_nobody_asks_is_never_called() -> None:
    factory = Factory()
    value = lazy(factory)
    await value.aclose()
    assert not factory.calls
    with pytest.raises(RuntimeError, match="closed before it had begun"):
        await value


async def test_a_plain_function_gives_the_value_itself() -> None:
    assert await lazy(lambda: 1) == 1
    assert await lazy(dict[str, int]) == {}
    assert await lazy(partial(int, "7")) == 7


async def test_an_error_is_kept_and_the_factory_is_not_called_again() -> None:
    factory = Factory(OSError("no answer"), "too late")
    value = lazy(factory)
    for _ in range(3):
        with pytest.raises(OSError, match="no answer"):
            await value
    assert factory.calls == 1


async def test_the_factory_is_called_again_when_all_who_waited_were_cancelled() -> None:
    calls: list[str] = []

    async def load() -> str:
        calls.append("begun")
        if len(calls) == 1:
            try:
                await pending()
            finally:
                await yield_now()
                calls.append("cleaned up")
        return "loaded"

    value = lazy(load)
    with move_on_after(0) as scope:
        await value
    assert scope.cancelled_caught and calls == ["begun", "cleaned up"]
    assert await value == "loaded" and calls == ["begun", "cleaned up", "begun"]


async def test_who_asks_while_an_abandoned_run_ends_does_not_wait_for_its_end() -> None:
    go = asyncio.Event()
    calls = 0

    async def load() -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            try:
                await pending()
            finally:
                await go.wait()
        return calls

    value = lazy(load)
    first = start_task(value)
    await yield_now()
    await yield_now()
    first.cancel()
    await yield_now()
    assert await value == 2
    assert not first.done()
    go.set()
    await asyncio.wait([first])
    assert first.cancelled() and await value == 2


async def test_a_value_is_kept_although_the_last_who_waited_was_thrown_away_in_that_moment() -> None:
    go = asyncio.Event()
    calls = 0

    async def load() -> int:
        nonlocal calls
        calls += 1
        await go.wait()
        return calls

    async def ask() -> int:
        return await value

    value = lazy(load)
    asking: Any = ask()
    asking.send(None)
    await yield_now()
    await yield_now()
    go.set()
    # Behind the last step of the run, and before those who wait for it hear of its end.
    asyncio.get_running_loop().call_soon(asking.close)
    await yield_now()
    assert await value == 1


async def test_with_keep_it_is_called_once_whoever_is_cancelled() -> None:
    factory = Factory("loaded")
    value = lazy(factory, keep=True)
    with move_on_after(0):
        await value
    assert await value == "loaded" and factory.calls == 1


async def test_a_run_that_somebody_else_cancelled_is_an_error_for_who_waits_and_the_next_one_begins_again() -> None:
    calls = 0

    async def load() -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            asyncio.current_task().cancel()  # type: ignore[union-attr]
        await yield_now()
        return calls

    value = lazy(load)
    for outcome in await gather_safe(value, value):
        assert isinstance(outcome, JoinError) and "load was cancelled" in str(outcome)
    assert not value.is_finished()
    assert await value == await value == 2


@pytest.mark.parametrize("cancelled", [True, False], ids=["its tasks cancelled", "left as it was"])
def test_what_was_lost_with_its_loop_is_made_on_the_next_one(cancelled: bool) -> None:
    async def load() -> str:
        if not go:
            await pending()
        return "loaded"

    async def begin() -> None:
        with move_on_after(0):
            await value

    go: list[bool] = []
    value = lazy(load, keep=True)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, context: None)  # the task that is destroyed
    loop.run_until_complete(begin())
    if cancelled:
        for task in asyncio.all_tasks(loop):
            task.cancel()
            loop.run_until_complete(asyncio.wait([task]))
    loop.close()
    go.append(True)
    assert asyncio.run(value_of(value)) == "loaded"


async def value_of(awaitable: Awaitable[T]) -> T:
    return await awaitable


async def test_what_was_closed_stays_closed() -> None:
    value = lazy(pending)
    asking = start_task(value)
    await yield_now()
    await yield_now()
    await value.aclose()
    for asker in asking, value:
        with pytest.raises(JoinError, match="it was closed"):
            await asker


@pytest.mark.parametrize("nonsense", [None, 1, "load"], ids=repr)
def test_what_cannot_be_called_is_refused(nonsense: Any) -> None:
    with pytest.raises(TypeError, match="needs a function"):
        lazy(nonsense)


def test_a_coroutine_is_refused_with_advice_and_closed() -> None:
    coroutine: Any = Factory()()
    with pytest.raises(TypeError, match=r"shared\(\)"):
        lazy(coroutine)
    assert coroutine.cr_frame is None
