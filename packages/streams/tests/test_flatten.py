"""Streams of streams: `flatten` and `flat_map`, one after the other and side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from yamanote import streams
from yamanote.runtime import run, yield_now
from yamanote.time import VirtualClock, sleep, time

several = pytest.mark.parametrize("concurrency", [None, 1, 3], ids=["one", "up to 1", "up to 3"])


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


class Inner:
    """Inner streams, and how many are open at a time."""

    def __init__(self) -> None:
        self.open = 0
        self.most = 0
        self.begun: list[Any] = []

    async def __call__(self, number: int) -> AsyncIterator[int]:
        self.begun.append(number)
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            for part in range(3):
                await sleep(1)
                yield number * 10 + part
        finally:
            await yield_now()
            self.open -= 1


def test_one_after_the_other_each_is_closed_before_the_next_one_is_asked_for() -> None:
    async def main() -> None:
        inner = Inner()

        def numbers() -> Iterator[int]:
            for number in range(3):
                assert not inner.open
                yield number

        assert await streams.iter(numbers()).flat_map(inner).collect() == [0, 1, 2, 10, 11, 12, 20, 21, 22]
        assert inner.most == 1 and round(time()) == 9 and not others()

    run(main(), clock=VirtualClock())


@pytest.mark.parametrize("waits", [False, True], ids=["ready", "slow"])
def test_up_to_so_many_at_a_time_and_the_outer_stream_is_pulled_only_when_there_is_room(waits: bool) -> None:
    async def main() -> None:
        inner = Inner()

        def numbers() -> Iterator[int]:
            for number in range(6):
                assert inner.open < 2 or len(inner.begun) < 2
                yield number

        async def slow_numbers() -> AsyncIterator[int]:
            for number in numbers():
                await yield_now()
                yield number

        outer: Any = slow_numbers() if waits else numbers()
        got = await streams.iter(outer).flat_map(inner, concurrency=2).collect()
        assert sorted(got) == sorted(number * 10 + part for number in range(6) for part in range(3))
        assert inner.most == 2 and round(time()) == 9 and not others()

    run(main(), clock=VirtualClock())


@several
async def test_inner_streams_may_be_anything_to_iterate_over(concurrency: int | None) -> None:
    items: list[Any] = [[1, 2], (), "ab", streams.iter([4]).map(str), {5: "five"}]
    got = await streams.iter(items).flatten(concurrency).collect()
    assert sorted(map(str, got)) == ["1", "2", "4", "5", "a", "b"]


@several
async def test_a_function_may_be_plain_or_async(concurrency: int | None) -> None:
    async def twice(item: int) -> list[int]:
        await asyncio.sleep(0)
        return [item, item]

    assert await streams.iter(range(3)).flat_map(twice, concurrency=concurrency).count() == 6
    assert await streams.iter(range(3)).flat_map(lambda n: [n] * n, concurrency=concurrency).count() == 3


@several
@pytest.mark.parametrize("strange", ["coroutine", "number", "none"])
async def test_what_cannot_be_iterated_over_is_an_error_in_its_place(concurrency: int | None, strange: str) -> None:
    async def coroutine() -> None: ...

    item = {"coroutine": coroutine, "number": lambda: 5, "none": lambda: None}[strange]()
    stream = streams.iter([["first"], item, ["never"]]).flatten(concurrency)
    seen = []
    with pytest.raises(TypeError, match="item must be something to iterate over"):
        async for part in stream:
            seen.append(part)
    assert seen == ["first"][: len(seen)] and (seen or concurrency == 3)
    assert await anext(stream, None) is None


@several
async def test_an_error_of_an_inner_stream_closes_all_the_others_and_the_outer_one(concurrency: int | None) -> None:
    inner, closed = Inner(), []
    error = OSError("inner")

    async def fail(number: int) -> AsyncIterator[int]:
        await yield_now()
        yield number
        raise error

    async def outer() -> AsyncIterator[AsyncIterator[int]]:
        try:
            yield fail(1)
            yield inner(2)
            yield inner(3)
            yield inner(4)
        finally:
            closed.append(True)

    with pytest.raises(OSError) as raised:
        await streams.iter(outer()).flatten(concurrency).collect()
    assert raised.value is error
    assert closed == [True] and not inner.open and not others()


@several
async def test_leaving_early_closes_the_inner_streams_and_the_outer_one(concurrency: int | None) -> None:
    inner, closed = Inner(), []

    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(9):
                yield number
        finally:
            closed.append(True)

    async with streams.iter(numbers()).flat_map(inner, concurrency=concurrency) as stream:
        pull = asyncio.create_task(anext(stream))
        for _ in range(5):
            await yield_now()
        assert inner.open == (concurrency or 1)
        pull.cancel()
        await asyncio.wait([pull])
    assert closed == [True] and not inner.open and not others()


@several
async def test_leaving_between_two_items_closes_what_is_open(concurrency: int | None) -> None:
    inner = Inner()

    async def parts(number: int) -> AsyncIterator[int]:
        inner.open += 1
        try:
            yield number
            yield number
        finally:
            await yield_now()
            inner.open -= 1

    async with streams.iter(range(9)).flat_map(parts, concurrency=concurrency) as stream:
        assert await anext(stream) == 0
        assert inner.open
    assert not inner.open and not others()


@pytest.mark.parametrize("empty", [[], iter(())], ids=["list", "iterator"])
@several
async def test_the_loop_turns_although_nothing_ever_waits(empty: Any, concurrency: int | None) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    assert await streams.iter([empty] * 2000).flatten(concurrency).collect() == []
    assert turns >= 10
    turns = 0
    assert await streams.iter([range(100)] * 20).flatten(concurrency).count() == 2000
    assert turns >= 10
    counting.cancel()


def test_it_looks_as_it_was_written() -> None:
    assert repr(streams.iter([]).flatten()) == "<Stream list.flatten()>"
    assert repr(streams.iter([]).flatten(3)) == "<Stream list.flatten(3)>"
    assert repr(streams.iter("a").flat_map(str.split).map(len)) == "<Stream str.flat_map(split).map(len)>"
    assert repr(streams.iter("a").flat_map(Inner(), concurrency=2)) == "<Stream str.flat_map(Inner, concurrency=2)>"


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), ("2", TypeError), (True, TypeError)])
@pytest.mark.parametrize(
    "apply", [lambda s, n: s.flatten(n), lambda s, n: s.flat_map(str, concurrency=n)], ids=["flatten", "flat_map"]
)
async def test_a_wrong_concurrency_is_refused_and_the_stream_stays_usable(
    apply: Callable[[Any, Any], Any], value: Any, error: type[Exception]
) -> None:
    stream = streams.iter([[1]])
    with pytest.raises(error, match="concurrency"):
        apply(stream, value)
    with pytest.raises(TypeError, match="function"):
        stream.flat_map(5)  # type: ignore[call-overload]
    assert await stream.collect() == [[1]]
