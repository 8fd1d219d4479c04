"""Every path through a run of stages does what a chain of plain generators does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yamanote import streams
from yamanote.runtime import BUDGET


class Broken(Exception):
    pass


@dataclass
class Function:
    """Multiplies or tests its argument; raises `error` at call number `fails_at`."""

    kind: str
    is_async: bool
    suspends: bool
    fails_at: int | None
    error: type[Exception]
    calls: int = 0

    def call(self, item: Any) -> Any:
        self.calls += 1
        if self.calls - 1 == self.fails_at:
            raise self.error
        if self.kind == "map":
            return [item]
        return hash(repr(item)) % 3 != 0

    def plain(self) -> Callable[[Any], Any]:
        self.calls = 0
        return self.call

    def given(self) -> Callable[[Any], Any]:
        self.calls = 0
        if not self.is_async:
            return self.call

        async def call(item: Any) -> Any:
            if self.suspends:
                await asyncio.sleep(0)
            return self.call(item)

        return call


@dataclass
class Source:
    length: int
    fails_at: int | None
    is_async: bool
    suspends: bool
    pulled: int = field(default=0)

    def items(self) -> Iterator[int]:
        self.pulled = 0
        for number in range(self.length):
            if number == self.fails_at:
                raise Broken("source")
            self.pulled += 1
            yield number

    async def async_items(self) -> AsyncIterator[int]:
        for number in self.items():
            if self.suspends:
                await asyncio.sleep(0)
            yield number

    def given(self) -> Any:
        return self.async_items() if self.is_async else self.items()


def model_map(items: Iterator[Any], function: Callable[[Any], Any]) -> Iterator[Any]:
    for item in items:
        try:
            result = function(item)
        except (StopIteration, StopAsyncIteration):
            raise RuntimeError from None
        yield result


def model_filter(items: Iterator[Any], function: Callable[[Any], Any]) -> Iterator[Any]:
    for item in items:
        try:
            wanted = function(item)
        except (StopIteration, StopAsyncIteration):
            raise RuntimeError from None
        if wanted:
            yield item


def model_take(items: Iterator[Any], count: int) -> Iterator[Any]:
    if count:
        for number, item in enumerate(items, 1):
            yield item
            if number == count:
                return


def model_chunks(items: Iterator[Any], count: int) -> Iterator[Any]:
    chunk = []
    for item in items:
        chunk.append(item)
        if len(chunk) == count:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def model(source: Source, operators: list[Any]) -> tuple[list[Any], type[BaseException] | None, int]:
    items: Iterator[Any] = source.items()
    for operator in operators:
        if isinstance(operator, Function):
            items = (model_map if operator.kind == "map" else model_filter)(items, operator.plain())
        elif operator == "enumerate":
            items = enumerate(items)
        else:
            name, count = operator
            items = (model_take if name == "take" else model_chunks)(items, count)
    return *drive(items), source.pulled


def drive(items: Iterator[Any]) -> tuple[list[Any], type[BaseException] | None]:
    results = []
    try:
        for item in items:
            results.append(item)
    except Exception as error:
        return results, type(error)
    return results, None


def build(source: Source, operators: list[Any]) -> streams.Stream[Any]:
    stream: streams.Stream[Any] = streams.iter(source.given())
    for operator in operators:
        if isinstance(operator, Function):
            stream = stream.map(operator.given()) if operator.kind == "map" else stream.filter(operator.given())
        elif operator == "enumerate":
            stream = stream.enumerate()
        else:
            name, count = operator
            stream = stream.take(count) if name == "take" else stream.chunks(count)
    return stream


sources = st.builds(
    Source,
    length=st.one_of(st.integers(0, 12), st.sampled_from([BUDGET - 1, BUDGET, BUDGET + 1, 3 * BUDGET])),
    fails_at=st.one_of(st.none(), st.integers(0, 12)),
    is_async=st.booleans(),
    suspends=st.booleans(),
)
functions = st.builds(
    Function,
    kind=st.sampled_from(["map", "filter"]),
    is_async=st.booleans(),
    suspends=st.booleans(),
    fails_at=st.one_of(st.none(), st.none(), st.integers(0, 12)),
    error=st.sampled_from([Broken, StopIteration, StopAsyncIteration]),
)
operators = st.one_of(
    functions,
    st.just("enumerate"),
    st.tuples(st.just("take"), st.integers(0, 12)),
    st.tuples(st.just("chunks"), st.integers(1, 4)),
)
pipelines = st.lists(operators, max_size=6)


@given(source=sources, operators=pipelines)
@settings(max_examples=400, deadline=None)
def test_async_for_gives_what_plain_generators_give(source: Source, operators: list[Any]) -> None:
    expected = model(source, operators)

    async def main() -> tuple[list[Any], type[BaseException] | None, int]:
        results: list[Any] = []
        ended_with: type[BaseException] | None = None
        stream = build(source, operators)
        try:
            async for item in stream:
                results.append(item)
        except Exception as error:
            ended_with = type(error)
        pulled = source.pulled
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert source.pulled == pulled
        return results, ended_with, pulled

    assert asyncio.run(main()) == expected


@given(source=sources, operators=pipelines)
@settings(max_examples=400, deadline=None)
def test_for_each_sees_what_plain_generators_give(source: Source, operators: list[Any]) -> None:
    expected = model(source, operators)

    async def main() -> tuple[list[Any], type[BaseException] | None, int]:
        results: list[Any] = []
        ended_with: type[BaseException] | None = None
        try:
            await build(source, operators).for_each(results.append)
        except Exception as error:
            ended_with = type(error)
        return results, ended_with, source.pulled

    assert asyncio.run(main()) == expected


@given(source=sources, operators=pipelines, pulls=st.integers(0, 5))
@settings(max_examples=400, deadline=None)
def test_collect_gives_what_is_left_of_plain_generators(source: Source, operators: list[Any], pulls: int) -> None:
    expected_items, expected_error, expected_pulled = model(source, operators)

    async def main() -> None:
        stream = build(source, operators)
        results: list[Any] = []
        try:
            for _ in range(pulls):
                results.append(await anext(stream))
            results += await stream.collect()
        except StopAsyncIteration:
            assert len(expected_items) < pulls
        except Exception as error:
            assert type(error) is expected_error
            assert results == expected_items[: len(results)]
            assert source.pulled == expected_pulled
            return
        assert expected_error is None
        assert results == expected_items
        assert source.pulled == expected_pulled

    asyncio.run(main())


@given(source=sources, operators=pipelines, more=pipelines, pulls=st.integers(0, 5))
@settings(max_examples=300, deadline=None)
def test_operators_may_be_applied_after_the_first_items(
    source: Source, operators: list[Any], more: list[Any], pulls: int
) -> None:
    source_items, failure, _ = model(source, operators)
    if failure is not None or len(source_items) <= pulls:
        return
    rest = Source(length=0, fails_at=None, is_async=False, suspends=False)
    rest.items = lambda: iter(source_items[pulls:])  # type: ignore[method-assign]
    expected, expected_error, _ = model(rest, more)

    async def main() -> None:
        stream = build(source, operators)
        assert [await anext(stream) for _ in range(pulls)] == source_items[:pulls]
        relay = Source(length=0, fails_at=None, is_async=False, suspends=False)
        relay.given = lambda: stream  # type: ignore[method-assign]
        results = []
        try:
            async for item in build(relay, more):
                results.append(item)
        except Exception as error:
            assert type(error) is expected_error
        else:
            assert expected_error is None
        assert results == expected

    asyncio.run(main())


@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration])
@pytest.mark.parametrize("terminal", ["collect", "for_each", "async for"])
@pytest.mark.parametrize("is_async", [False, True])
async def test_an_end_that_a_function_raises_is_an_error(error: type[Exception], terminal: str, is_async: bool) -> None:
    def function(item: int) -> int:
        if item == 2:
            raise error
        return item

    async def numbers() -> AsyncIterator[int]:
        for number in range(5):
            yield number

    stream = streams.iter(numbers() if is_async else range(5)).map(function)
    with pytest.raises(RuntimeError, match=error.__name__):
        if terminal == "collect":
            await stream.collect()
        elif terminal == "for_each":
            await stream.for_each(lambda item: None)
        else:
            async for _ in stream:
                pass


@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration])
@pytest.mark.parametrize("source", ["plain", "async"])
async def test_an_end_that_the_consumer_raises_is_an_error(error: type[Exception], source: str) -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(5):
            yield number

    def fail(item: int) -> None:
        raise error

    async def fail_later(item: int) -> None:
        await asyncio.sleep(0)
        raise error

    for function in (fail, fail_later):
        with pytest.raises(RuntimeError, match=error.__name__):
            await streams.iter(range(5) if source == "plain" else numbers()).for_each(function)


async def test_nothing_is_pulled_before_it_is_asked_for() -> None:
    pulled = []
    stream = streams.iter(pulled.append(n) or n for n in range(1000)).map(lambda n: n).filter(lambda n: n % 2)
    assert pulled == []
    assert await anext(stream) == 1
    assert pulled == [0, 1]
    assert await anext(stream) == 3
    assert pulled == [0, 1, 2, 3]


@pytest.mark.parametrize("items", [[0, None, "", False, StopIteration(), ValueError("x"), NotImplemented]])
async def test_every_object_is_an_ordinary_item(items: list[Any]) -> None:
    async def source() -> AsyncIterator[Any]:
        for item in items:
            yield item

    async def same(item: Any) -> Any:
        return item

    assert await streams.iter(items).collect() == items
    assert await streams.iter(source()).map(lambda item: item).collect() == items
    assert [item async for item in streams.iter(source()).map(same)] == items
    assert await streams.iter(items).map(same).buffered(3).collect() == items
    assert await streams.iter(items).map(same).buffered_unordered(1).collect() == items
    assert await streams.iter(source()).map(same).buffered(3).collect() == items
    assert await streams.iter(items).chunks_timeout(100, 1000).collect() == [items]


async def count_turns_during(work: Any) -> int:
    """How many turns another task gets while `work` is awaited."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counter = asyncio.create_task(count())
    await asyncio.sleep(0)
    await work
    counter.cancel()
    return turns


async def forever_ready(length: int) -> AsyncIterator[int]:
    for number in range(length):
        yield number


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_terminal_lets_the_loop_turn_although_nothing_comes_out(is_async: bool) -> None:
    length = 20 * 8 * BUDGET
    source: Any = forever_ready(length) if is_async else range(length)
    turns = await count_turns_during(streams.iter(source).filter(lambda n: False).collect())
    assert turns >= 20


@pytest.mark.parametrize("is_async", [False, True])
async def test_pulling_lets_the_loop_turn_once_per_budget_of_the_source(is_async: bool) -> None:
    length = 20 * BUDGET

    async def pull() -> None:
        source: Any = forever_ready(length) if is_async else range(length)
        async for _ in streams.iter(source).filter(lambda n: n % (5 * BUDGET) == 0):
            pass

    turns = await count_turns_during(pull())
    assert 19 <= turns <= 22


async def test_slow_functions_keep_the_batches_small() -> None:
    loop = asyncio.get_running_loop()
    offset = 0.0
    real_time = loop.time
    loop.time = lambda: real_time() + offset  # type: ignore[method-assign]

    def work(number: int) -> int:
        nonlocal offset
        offset += 0.001
        return number

    try:
        turns = await count_turns_during(streams.iter(range(20 * BUDGET)).map(work).collect())
    finally:
        loop.time = real_time  # type: ignore[method-assign]
    assert turns >= 19


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_pull_that_is_cancelled_while_it_yields_loses_nothing(is_async: bool) -> None:
    length = 5 * BUDGET
    source: Any = forever_ready(length) if is_async else range(length)
    stream = streams.iter(source).map(lambda n: n)
    results, cancelled = [], 0
    while True:
        task = asyncio.create_task(anext(stream, None))
        await asyncio.sleep(0)
        if not task.done():
            task.cancel()
        try:
            item = await task
        except asyncio.CancelledError:
            cancelled += 1
            continue
        if item is None:
            break
        results.append(item)
    assert results == list(range(length))
    assert cancelled >= 4
