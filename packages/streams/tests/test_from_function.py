"""A function as a sink."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from yamanote.sinks import SinkClosed, from_function


async def test_each_item_is_given_to_the_function_whatever_it_is() -> None:
    got: list[Any] = []
    items = [0, None, "", [], ValueError()]
    async with from_function(got.append) as sink:
        await sink.send_all(items)
    assert got == items


async def test_async_functions_are_called_one_at_a_time_in_order() -> None:
    got: list[int] = []
    busy = 0

    async def take(number: int) -> None:
        nonlocal busy
        busy += 1
        assert busy == 1
        await asyncio.sleep(0)
        got.append(number)
        busy -= 1

    async def close() -> None:
        assert not busy
        got.append(-1)

    sink = from_function(take, close=close)
    feeds = [asyncio.create_task(sink.feed(number)) for number in range(4)]
    await asyncio.sleep(0)
    await sink.close()
    await sink.close()
    results = await asyncio.gather(*feeds, return_exceptions=True)
    assert got == [0, -1]  # the others had to wait, and came too late
    assert [type(result) for result in results[1:]] == [SinkClosed] * 3


async def test_an_error_of_the_function_refuses_the_item_and_the_next_may_be_fed() -> None:
    got: list[float] = []
    async with from_function(lambda number: got.append(1 / number)) as sink:
        with pytest.raises(ZeroDivisionError):
            await sink.feed(0)
        await sink.send(1)
    assert got == [1]


async def test_close_is_called_once_and_its_error_is_raised_each_time() -> None:
    calls = []

    def close() -> None:
        calls.append(True)
        raise KeyError

    sink = from_function(print, close=close)
    for _ in range(2):
        with pytest.raises(KeyError):
            await sink.close()
    assert calls == [True]


async def test_a_cancelled_feed_cancels_the_function() -> None:
    async def take(number: int) -> None:
        await asyncio.sleep(0)
        got.append(number)

    got: list[int] = []
    async with from_function(take) as sink:
        feed = asyncio.create_task(sink.feed(0))
        await asyncio.sleep(0)
        feed.cancel()
        await asyncio.wait([feed])
        await sink.feed(1)
    assert got == [1]


@pytest.mark.parametrize("is_async", [False, True])
async def test_others_run_although_it_never_waits(is_async: bool) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def ignore(number: int) -> None: ...

    task = asyncio.create_task(other())
    async with from_function(ignore if is_async else bool) as sink:
        for number in range(1000):
            await sink.feed(number)
        assert turns > 2
    task.cancel()


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(TypeError, match="function"):
        from_function(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="close"):
        from_function(print, close=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("place", ["from_function", "with_map", "with_flat_map"])
async def test_a_plain_function_that_returns_a_coroutine_is_told_to_be_the_async_one(place: str) -> None:
    async def work(item: object) -> list[object]:
        raise AssertionError("nobody awaits this")

    made: list[Any] = []

    def mistake(item: object) -> Any:
        made.append(work(item))
        return made[-1]

    got: list[object] = []
    end = from_function(got.append)
    sinks = {"from_function": from_function(mistake), "with_map": end.with_map(mistake)}
    sink: Any = sinks.get(place) or end.with_flat_map(mistake)
    async with sink:
        for item in range(2):
            with pytest.raises(TypeError, match=r"^mistake is no async function.*pass the async function itself"):
                await sink.feed(item)
    assert [inspect.getcoroutinestate(coroutine) for coroutine in made] == ["CORO_CLOSED"] * 2
    assert not got


async def test_a_plain_close_that_returns_a_coroutine_is_told_to_be_the_async_one() -> None:
    async def close() -> None: ...

    with pytest.raises(TypeError, match="pass the async function itself"):
        await from_function(print, close=lambda: close()).close()
