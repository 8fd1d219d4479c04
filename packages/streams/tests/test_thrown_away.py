"""`async with` left by GeneratorExit, in an async generator that is closed and in a coroutine that is thrown away."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from yamanote import streams
from yamanote.sinks import Sink, from_function


class Work:
    """What a stream does for its items: calls that take a few turns to begin, and to end when they are cancelled."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0

    async def __call__(self, item: int) -> int:
        self.begun += 1
        try:
            if item:
                await asyncio.get_running_loop().create_future()
            return item
        finally:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.ended += 1


def tasks() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


def as_stream(work: Work) -> Any:
    return streams.iter(range(9)).map(work, concurrency=3)


def as_shared_stream(work: Work) -> Any:
    return as_stream(work).share(4)


def as_stream_map(work: Work) -> Any:
    made: streams.StreamMap[str, int] = streams.StreamMap()
    made.insert("a", as_stream(work))
    return made


kinds: list[Callable[[Work], Any]] = [as_stream, as_shared_stream, as_stream_map]


async def straight(owner: Any) -> AsyncGenerator[object]:
    items = aiter(owner)
    async with owner:
        async for item in items:
            yield item


async def through_a_stack(owner: Any) -> AsyncGenerator[object]:
    items = aiter(owner)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(owner)
        async for item in items:
            yield item


async def two_deep(owner: Any) -> AsyncGenerator[object]:
    async with streams.iter(straight(owner)) as items:
        async for item in items:
            yield item


@asynccontextmanager
async def managed(owner: Any) -> AsyncIterator[Any]:
    items = aiter(owner)
    async with owner:
        yield items


async def through_a_context_manager(owner: Any) -> AsyncGenerator[object]:
    async with managed(owner) as items:
        async for item in items:
            yield item


ways: list[Callable[[Any], AsyncGenerator[object]]] = [straight, through_a_stack, two_deep, through_a_context_manager]


@pytest.mark.parametrize("way", ways)
@pytest.mark.parametrize("kind", kinds)
async def test_an_async_generator_that_is_closed_waits_for_what_it_owns(
    kind: Callable[[Work], Any], way: Callable[[Any], AsyncGenerator[object]]
) -> None:
    work = Work()
    items = way(kind(work))
    await anext(items)
    await items.aclose()
    assert work.begun == work.ended > 1
    assert not tasks()


@pytest.mark.parametrize("kind", kinds)
async def test_a_stream_of_an_async_function_that_is_left_early_leaves_nothing_behind(
    kind: Callable[[Work], Any],
) -> None:
    work = Work()

    @streams.async_stream
    async def items() -> AsyncIterator[object]:
        async with kind(work) as owner:
            items = aiter(owner)
            async for item in items:
                yield item

    assert len(await items().take(1).collect()) == 1
    assert work.begun == work.ended > 1
    assert not tasks()


async def leave(owner: Any) -> None:
    """To be thrown away at its first step."""
    async with owner:
        await asyncio.sleep(0)


async def leave_through_a_stack(owner: Any) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(owner)
        await asyncio.get_running_loop().create_future()


async def leave_through_a_context_manager(owner: Any) -> None:
    async with managed(owner):
        await leave(streams.iter([]))


def close(coroutines: list[Coroutine[Any, Any, None]]) -> None:
    coroutines.pop().close()  # which raises if anything is awaited


def drop(coroutines: list[Coroutine[Any, Any, None]]) -> None:
    coroutines.clear()
    gc.collect()


@pytest.mark.parametrize("inside", ["a coroutine", "an async generator"])
@pytest.mark.parametrize("throw_away", [close, drop])
@pytest.mark.parametrize("left", [leave, leave_through_a_stack, leave_through_a_context_manager])
@pytest.mark.parametrize("kind", kinds)
async def test_a_coroutine_that_is_thrown_away_does_not_wait(
    kind: Callable[[Work], Any],
    left: Callable[[Any], Coroutine[Any, Any, None]],
    throw_away: Callable[[list[Coroutine[Any, Any, None]]], None],
    inside: str,
) -> None:
    async def throw_away_there() -> AsyncIterator[None]:
        throw_away(coroutines)
        yield

    work = Work()
    owner = kind(work)
    items = aiter(owner)
    await anext(items)
    coroutines = [left(owner)]
    coroutines[0].send(None)
    if inside == "a coroutine":
        throw_away(coroutines)
    else:
        assert [step async for step in throw_away_there()] == [None]
    assert work.ended == 1
    while tasks():
        await asyncio.wait(tasks())
    assert work.begun == work.ended > 1


async def test_where_waiting_is_refused_after_all_nothing_is_left_either() -> None:
    """An async generator that waits itself, for a coroutine that is thrown away, cannot wait."""
    work = Work()
    items = as_stream(work).zip(as_stream(work))  # which are closed one after the other
    await anext(items)
    caught: list[GeneratorExit] = []

    async def generate() -> AsyncGenerator[None]:
        try:
            yield
        except GeneratorExit as error:
            caught.append(error)

    generator = generate()
    await anext(generator)
    await generator.aclose()
    leaving = items.__aexit__(GeneratorExit, caught[0], caught[0].__traceback__)
    leaving.send(None)
    leaving.close()
    for _ in range(10):
        await asyncio.sleep(0)
    assert work.begun > 2
    assert not tasks()


class Log(Sink[object]):
    def __init__(self) -> None:
        self.calls: list[object] = []

    async def feed(self, item: object) -> None:
        self.calls.append(item)

    async def flush(self) -> None: ...

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.calls.append("close")

    async def _give_up(self) -> None:
        await asyncio.sleep(0)
        self.calls.append("give up")


def by_hand(log: Log) -> Sink[object]:
    return log


def buffered(log: Log) -> Sink[object]:
    return log.buffer(3)


def mapped(log: Log) -> Sink[object]:
    return log.with_map(lambda item: item)


@pytest.mark.parametrize("make", [by_hand, buffered, mapped])
async def test_a_sink_in_an_async_generator_that_is_closed_is_given_up(make: Callable[[Log], Sink[object]]) -> None:
    async def echo() -> AsyncGenerator[int]:
        async with make(log) as sink:
            for number in range(9):
                await sink.feed(number)
                yield number

    log = Log()
    items = echo()
    assert [await anext(items), await anext(items)] == [0, 1]
    await items.aclose()
    assert log.calls == [0, 1, "give up"]
    assert not tasks()


async def test_a_sink_in_a_coroutine_that_is_thrown_away_is_not_waited_for() -> None:
    async def leave() -> None:
        async with from_function(closed.append, close=lambda: closed.append("close")):
            await asyncio.sleep(0)

    closed: list[object] = []
    coroutine = leave()
    coroutine.send(None)
    coroutine.close()
    assert not tasks()
    assert not closed
