"""Element-wise operators cancelled at each of their awaits and in any order of steps, and wrong variants of them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from yamanote import streams
from yamanote.runtime import yield_now
from yamanote.streams import Stream, _elementwise
from yamanote.streams._arguments import is_async
from yamanote.streams._calls import _Calls
from yamanote.streams._pipeline import Awaited
from yamanote.streams._visit import Visit
from yamanote.testing import Counterexample, explore, explore_cancellations, replay

Scenario = Callable[[], Coroutine[Any, Any, None]]

COUNT = 6


class Source:
    """Loses nothing when a pull is cancelled, and takes a while to close."""

    def __init__(self) -> None:
        self.given = 0
        self.pulled = False
        self.told = 0
        self.closed = 0

    def __aiter__(self) -> Source:
        return self

    async def __anext__(self) -> int:
        assert not self.pulled, "pulled by two tasks"
        assert not self.closed, "pulled after it was closed"
        self.pulled = True
        try:
            await yield_now()
        finally:
            self.pulled = False
        if self.given == COUNT:
            raise StopAsyncIteration
        self.given += 1
        return self.given - 1

    async def aclose(self) -> None:
        self.told += 1
        await yield_now()
        self.closed += 1


async def add(state: int, number: int) -> int:
    await yield_now()
    state += number
    await yield_now()
    return state


async def is_even(number: int) -> bool:
    await yield_now()
    return number % 2 == 0


async def is_small(number: int) -> bool:
    await yield_now()
    return number < 4


SHAPES: dict[str, tuple[Callable[[Stream[int]], Stream[Any]], list[Any]]] = {
    "scan": (lambda s: s.scan(0, add), [0, 1, 3, 6, 10, 15]),
    "filter": (lambda s: s.filter(is_even), [0, 2, 4]),
    "skip and take": (lambda s: s.skip(1).take(3), [1, 2, 3]),
    "skip_while": (lambda s: s.skip_while(is_small), [4, 5]),
    "take_while": (lambda s: s.take_while(is_small), [0, 1, 2, 3]),
    "dedup": (lambda s: s.dedup(is_small), [0, 4]),
    "chunks": (lambda s: s.map(is_even).enumerate().chunks(2).take(2), [[(0, 1), (1, 0)], [(2, 1), (3, 0)]]),
}


def is_repeated(name: str) -> Scenario:
    """What a task has pulled until it is cancelled, and what is pulled after that, is everything, once and in order."""
    apply, expected = SHAPES[name]

    async def scenario() -> None:
        source = Source()
        stream = apply(streams.iter(source))
        seen: list[Any] = []

        async def pull() -> None:
            async for item in stream:
                seen.append(item)

        pulling = asyncio.create_task(pull())
        with suppress(asyncio.CancelledError):
            await pulling
        await pull()
        assert seen == expected
        assert source.closed == 1
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    return scenario


async def is_pulled_by_two() -> None:
    """Of two tasks that pull at a time one may be refused, and every item is given to somebody, in order."""
    source = Source()
    stream = streams.iter(source).scan(0, add)
    seen: list[int] = []

    async def pull() -> None:
        while True:
            try:
                seen.append(await anext(stream))
            except RuntimeError:
                await yield_now()
            except StopAsyncIteration:
                return

    tasks = [asyncio.create_task(pull()) for _ in range(2)]
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()
    await pull()
    assert seen == [0, 1, 3, 6, 10, 15]
    await stream.aclose()


async def is_collected() -> None:
    """A terminal that is cancelled has told the source to close."""
    source = Source()
    work = asyncio.create_task(streams.iter(source).filter(is_even).chunks(2).collect())
    with suppress(asyncio.CancelledError):
        assert await work == [[0, 2], [4]]
    assert source.told or not source.given


scenarios: dict[str, Scenario] = {
    **{name: is_repeated(name) for name in SHAPES},
    "two pull": is_pulled_by_two,
    "collect": is_collected,
}


@pytest.mark.parametrize("name", scenarios)
def test_no_cancellation_breaks_it(name: str) -> None:
    explore_cancellations(scenarios[name])


@pytest.mark.parametrize("name", scenarios)
def test_no_order_of_steps_breaks_it(name: str) -> None:
    explore(scenarios[name])


# Teeth


async def call_with_the_item_in_the_hand(calls: Any) -> tuple[Any, Any]:
    item = await calls.source.pull()
    return item, await calls.function(item)


async def keep_the_item_for_ever(calls: Any) -> tuple[Any, Any]:
    if not calls.held:
        calls.held.append(await calls.source.pull())
    item = calls.held[0]
    answer = await calls.function(item)
    calls.held[:] = [item] if item == COUNT - 2 and len(calls.held) == 1 else []
    return item, answer


def accumulating_before_the_answer(state: Any, function: Any) -> Any:
    async def step(item: Any) -> Any:
        nonlocal state
        coroutine = function(state, item)
        state += item
        return await coroutine

    return step


def skipping_that_begins_before_the_answer(predicate: Any) -> Any:
    begun = False

    async def is_wanted(item: Any) -> bool:
        nonlocal begun
        if begun:
            return True
        begun = True
        begun = not await predicate(item)
        return begun

    assert is_async(is_wanted)
    return is_wanted


def let_two_pull(visit: Any, source: Any) -> None:
    pass


async def end_without_closing(pipeline: Any, error: BaseException | None = None) -> None:
    pipeline._error = error
    if not pipeline._over:
        pipeline._over = True
        await pipeline._close()


teeth: dict[str, tuple[Any, str, Any, str]] = {
    "an item is lost with its call": (_Calls, "pull", call_with_the_item_in_the_hand, "filter"),
    "an item is given twice": (_Calls, "pull", keep_the_item_for_ever, "filter"),
    "a state before its call": (_elementwise, "accumulating", accumulating_before_the_answer, "scan"),
    "a beginning before its call": (_elementwise, "skipping", skipping_that_begins_before_the_answer, "skip_while"),
    "two pull": (Visit, "refuse", let_two_pull, "two pull"),
    "a closing is not repeated": (Awaited, "_end", end_without_closing, "skip and take"),
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # what a broken scenario leaves behind
@pytest.mark.parametrize("tooth", teeth)
def test_some_cancellation_shows_it(tooth: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, function, wrong, name = teeth[tooth]
    monkeypatch.setattr(owner, function, wrong)
    with pytest.raises(Counterexample) as found:
        explore_cancellations(scenarios[name])
    with pytest.raises(Counterexample):
        replay(scenarios[name], found.value.token)
    gc.collect()
