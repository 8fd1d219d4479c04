"""Many items of one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from yamanote import streams
from yamanote.sinks import Sink, drain, from_function


async def turn(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


def chars(word: str) -> Iterator[str]:
    yield from word


async def chars_later(word: str) -> AsyncIterator[str]:
    for char in word:
        await asyncio.sleep(0)
        yield char


async def list_later(word: str) -> list[str]:
    await asyncio.sleep(0)
    return list(word)


async def chars_after(word: str) -> AsyncIterator[str]:
    await asyncio.sleep(0)
    return chars_later(word)


@pytest.mark.parametrize(
    "function",
    [
        str,
        chars,
        chars_later,
        list_later,
        chars_after,
        streams.async_stream(chars_later),
        lambda word: streams.iter(word),
        list,
        tuple,
    ],
    ids=["str", "generator", "async generator", "async list", "async function", "stream", "lambda", "list", "tuple"],
)
async def test_everything_that_the_function_gives_is_fed_in_order(function: Any) -> None:
    got: list[str] = []
    async with from_function(got.append).with_flat_map(function) as sink:
        await sink.feed("ab")
        await sink.feed("")
        await sink.send("cd")
        assert got == ["a", "b", "c", "d"]


async def test_an_error_of_the_function_refuses_the_item_and_nothing_else() -> None:
    got: list[float] = []
    async with from_function(got.append).with_flat_map(lambda number: [1 / number]) as sink:
        with pytest.raises(ZeroDivisionError):
            await sink.feed(0)
        await sink.send(1)
    assert got == [1]


async def test_what_cannot_be_iterated_over_is_refused_with_its_item() -> None:
    async with drain().with_flat_map(lambda item: item) as sink:
        with pytest.raises(TypeError, match="iterate"):
            await sink.feed(5)
        await sink.send([5])


async def test_an_error_of_the_iterable_comes_after_what_it_gave_and_kills_the_sink() -> None:
    def broken(item: int) -> Iterator[int]:
        yield item
        raise KeyError(item)

    got: list[int] = []
    sink = from_function(got.append).with_flat_map(broken)
    for _ in range(2):
        with pytest.raises(KeyError):
            await sink.feed(1)
    with pytest.raises(KeyError):
        await sink.close()
    assert got == [1]


async def test_the_iterable_is_closed_when_the_sink_fails() -> None:
    closed = []

    async def two(item: int) -> AsyncIterator[int]:
        try:
            yield item
            yield item
        finally:
            await asyncio.sleep(0)
            closed.append(item)

    def fail(item: int) -> None:
        raise KeyError(item)

    sink = from_function(fail).with_flat_map(two)
    await sink.feed(1)
    with pytest.raises(KeyError):
        await sink.flush()
    assert closed == [1]
    with pytest.raises(KeyError):
        await sink.close()


@pytest.mark.parametrize("turns", range(12))
async def test_an_item_is_fed_whole_or_not_at_all_whenever_its_feed_is_cancelled(turns: int) -> None:
    async def slow(item: str) -> None:
        await asyncio.sleep(0)
        got.append(item)

    async def double(word: str) -> AsyncIterator[str]:
        await asyncio.sleep(0)
        return chars_later(word * 2)

    got: list[str] = []
    accepted = []
    async with from_function(slow).with_flat_map(double) as sink:
        for word in ("a", "b", "c"):
            feed = asyncio.create_task(sink.feed(word))
            await turn(turns)
            feed.cancel()
            await asyncio.wait([feed])
            if not feed.cancelled():
                accepted.append(word)
    assert "".join(got) == "".join(word * 2 for word in accepted)


class Quick(Sink[int]):
    """Never waits, and never thinks of the others."""

    async def feed(self, item: int) -> None:
        pass

    async def flush(self) -> None:
        pass

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("function", [range, lambda count: [1] * count], ids=["range", "list"])
async def test_the_loop_turns_although_nothing_waits(function: Any) -> None:
    async with Quick().with_flat_map(function) as sink:
        send = asyncio.create_task(sink.send(10_000))
        await turn(3)
        assert not send.done()
        await send


def test_what_is_no_function_is_refused() -> None:
    sink: Sink[Any] = drain()
    with pytest.raises(TypeError, match="function"):
        sink.with_flat_map(None)  # type: ignore[call-overload]
