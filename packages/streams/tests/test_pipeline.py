"""Every path through a run of stages does what the interpreter's own iterators do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, dropwhile, groupby, islice, takewhile
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yamanote import streams
from yamanote.runtime import BUDGET

log: list[Any] = []
"""What was taken from the source, and every call of a function: what, and in which order."""


class Broken(Exception):
    pass


def digest(item: Any) -> int:
    return crc32(repr(item).encode())


ANSWERS: dict[str, Callable[..., Any]] = {
    "map": lambda item: [item],
    "then": lambda item: (item, None),
    "inspect": lambda item: item == 0,
    "filter": lambda item: digest(item) % 3,
    "filter_map": lambda item: (None, 0, [item])[digest(item) % 3],
    "take_while": lambda item: digest(item) % 5,
    "skip_while": lambda item: digest(item) % 3,
    "scan": lambda state, item: state + digest(item) % 3,
    "dedup": lambda item: digest(item) % 2,
}


@dataclass
class Function:
    """What `operator` is given; raises `error` at call number `fails_at`."""

    operator: str
    is_async: bool
    suspends: bool
    fails_at: int | None
    error: type[Exception]

    def call(self, *args: Any) -> Any:
        log.append((self.operator, args))
        self.calls += 1
        if self.calls - 1 == self.fails_at:
            raise self.error
        return ANSWERS[self.operator](*args)

    def plain(self) -> Callable[..., Any]:
        self.calls = 0

        def call(*args: Any) -> Any:
            try:
                return self.call(*args)
            except (StopIteration, StopAsyncIteration):
                raise RuntimeError from None

        return call

    def given(self) -> Callable[..., Any]:
        self.calls = 0

        async def call(*args: Any) -> Any:
            if self.suspends:
                await asyncio.sleep(0)
            return self.call(*args)

        return call if self.is_async or self.operator == "then" else self.call

    def of_iterator(self, items: Iterator[Any]) -> Iterator[Any]:
        function = self.plain()
        match self.operator:
            case "map" | "then":
                return (function(item) for item in items)
            case "inspect":
                return (item for item in items if [function(item)])
            case "filter":
                return (item for item in items if function(item))
            case "filter_map":
                return (result for item in items if (result := function(item)) is not None)
            case "scan":
                return islice(accumulate(items, function, initial=0), 1, None)
            case "dedup":
                return (next(group) for _, group in groupby(items, function))
            case _:
                return (takewhile if self.operator == "take_while" else dropwhile)(function, items)

    def of_stream(self, stream: streams.Stream[Any]) -> streams.Stream[Any]:
        initial = [0] if self.operator == "scan" else []
        result: streams.Stream[Any] = getattr(stream, self.operator)(*initial, self.given())
        return result


@dataclass
class Number:
    """What is needed by an operator without a function."""

    operator: str
    count: int

    def of_iterator(self, items: Iterator[Any]) -> Iterator[Any]:
        match self.operator:
            case "take":
                return islice(items, self.count)
            case "skip":
                return islice(items, self.count, None)
            case "enumerate":
                return enumerate(items, self.count)
            case "dedup":
                return (next(group) for _, group in groupby(items))
            case _:
                size = self.count + 1
                return iter(lambda: list(islice(items, size)), [])

    def of_stream(self, stream: streams.Stream[Any]) -> streams.Stream[Any]:
        match self.operator:
            case "dedup":
                return stream.dedup()
            case "chunks":
                return stream.chunks(self.count + 1)
            case _:
                result: streams.Stream[Any] = getattr(stream, self.operator)(self.count)
                return result


Operator = Function | Number

ITEMS = [0, None, "", "", (), Broken, ValueError("an item")]
"""The first ones; behind them come numbers."""


class Receiver:
    """Loses nothing when a pull is cancelled."""

    def __init__(self, items: Iterator[Any], suspends: bool) -> None:
        self.items = items
        self.suspends = suspends

    def __aiter__(self) -> Receiver:
        return self

    async def __anext__(self) -> Any:
        if self.suspends:
            await asyncio.sleep(0)
        try:
            return next(self.items)
        except StopIteration:
            raise StopAsyncIteration from None


@dataclass
class Source:
    length: int
    fails_at: int | None
    kind: str
    suspends: bool

    def items(self) -> Iterator[Any]:
        for number in range(self.length):
            if number == self.fails_at:
                raise Broken("source")
            log.append(number)
            yield ITEMS[number] if number < len(ITEMS) else number // 2
        log.append("end")

    async def async_items(self) -> AsyncIterator[Any]:
        for item in self.items():
            if self.suspends:
                await asyncio.sleep(0)
            yield item

    def given(self) -> Any:
        match self.kind:
            case "async generator":
                return self.async_items()
            case "receiver":
                return Receiver(self.items(), self.suspends)
            case _:
                return self.items()


def model(source: Source, operators: list[Operator], most: int | None = None) -> tuple[Any, ...]:
    log.clear()
    items = source.items()
    for operator in operators:
        items = operator.of_iterator(items)
    return *drive(islice(items, most)), [*log]


def drive(items: Iterator[Any]) -> tuple[list[Any], type[BaseException] | None]:
    results = []
    try:
        for item in items:
            results.append(item)
    except Exception as error:
        return results, type(error)
    return results, None


def build(source: Any, operators: list[Operator]) -> streams.Stream[Any]:
    log.clear()
    stream = streams.iter(source)
    for operator in operators:
        stream = operator.of_stream(stream)
    return stream


sources = st.builds(
    Source,
    length=st.one_of(st.integers(0, 12), st.sampled_from([BUDGET - 1, BUDGET, BUDGET + 1, 3 * BUDGET])),
    fails_at=st.one_of(st.none(), st.integers(0, 12)),
    kind=st.sampled_from(["generator", "async generator", "receiver"]),
    suspends=st.booleans(),
)
functions = st.builds(
    Function,
    operator=st.sampled_from(sorted(ANSWERS)),
    is_async=st.booleans(),
    suspends=st.booleans(),
    fails_at=st.one_of(st.none(), st.none(), st.integers(0, 12)),
    error=st.sampled_from([Broken, StopIteration, StopAsyncIteration]),
)
numbers = st.builds(
    Number,
    operator=st.sampled_from(["take", "skip", "enumerate", "chunks", "dedup"]),
    count=st.one_of(st.integers(0, 5), st.sampled_from([15, 40])),
)
pipelines = st.lists(st.one_of(functions, numbers), max_size=6)


@given(source=sources, operators=pipelines)
@settings(max_examples=300, deadline=None)
def test_async_for_gives_what_iterators_give(source: Source, operators: list[Operator]) -> None:
    expected = model(source, operators)

    async def main() -> tuple[Any, ...]:
        results: list[Any] = []
        ended_with: type[BaseException] | None = None
        stream = build(source.given(), operators)
        try:
            async for item in stream:
                results.append(item)
        except Exception as error:
            ended_with = type(error)
        done = [*log]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert log == done
        return results, ended_with, done

    assert asyncio.run(main()) == expected


@given(source=sources, operators=pipelines, most=st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_who_leaves_early_has_asked_for_nothing_beyond(source: Source, operators: list[Operator], most: int) -> None:
    expected = model(source, operators, most)

    async def main() -> tuple[Any, ...]:
        results: list[Any] = []
        async with build(source.given(), operators) as stream:
            try:
                for _ in range(most):
                    results.append(await anext(stream))
            except StopAsyncIteration:
                pass
            except Exception as error:
                return results, type(error), [*log]
        return results, None, [*log]

    assert asyncio.run(main()) == expected


@given(source=sources, operators=pipelines)
@settings(max_examples=200, deadline=None)
def test_for_each_sees_what_iterators_give(source: Source, operators: list[Operator]) -> None:
    expected = model(source, operators)

    async def main() -> tuple[Any, ...]:
        results: list[Any] = []
        ended_with: type[BaseException] | None = None
        try:
            await build(source.given(), operators).for_each(results.append)
        except Exception as error:
            ended_with = type(error)
        return results, ended_with, [*log]

    assert asyncio.run(main()) == expected


@given(source=sources, operators=pipelines, pulls=st.integers(0, 5))
@settings(max_examples=300, deadline=None)
def test_collect_gives_what_is_left_of_iterators(source: Source, operators: list[Operator], pulls: int) -> None:
    expected_items, expected_error, expected_log = model(source, operators)

    async def main() -> None:
        stream = build(source.given(), operators)
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
            assert log == expected_log
            return
        assert expected_error is None
        assert results == expected_items
        assert log == expected_log

    asyncio.run(main())


@given(
    source=sources.filter(lambda source: source.length <= BUDGET),
    operators=pipelines,
    patience=st.lists(st.integers(0, 4), max_size=30),
)
@settings(max_examples=300, deadline=None)
def test_pulls_that_are_cancelled_and_repeated_give_what_iterators_give(
    source: Source, operators: list[Operator], patience: list[int]
) -> None:
    if source.kind == "async generator":
        source.suspends = False  # one that is cancelled where it waits is finished
    expected = model(source, operators)

    async def main() -> tuple[Any, ...]:
        results: list[Any] = []
        stream = build(source.given(), operators)
        turns = iter(patience)
        while True:
            pull = asyncio.ensure_future(anext(stream))
            for _ in range(next(turns, 1000)):
                if pull.done():
                    break
                await asyncio.sleep(0)
            pull.cancel()
            try:
                results.append(await pull)
            except asyncio.CancelledError:
                continue
            except StopAsyncIteration:
                return results, None, [*log]
            except Exception as error:
                return results, type(error), [*log]

    assert asyncio.run(main()) == expected


@given(source=sources, operators=pipelines, more=pipelines, pulls=st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_operators_may_be_applied_after_the_first_items(
    source: Source, operators: list[Operator], more: list[Operator], pulls: int
) -> None:
    given_items, failure, _ = model(source, operators)
    if failure is not None or len(given_items) <= pulls:
        return
    expected_items = iter(given_items[pulls:])
    for operator in more:
        expected_items = operator.of_iterator(expected_items)
    expected, expected_error = drive(expected_items)

    async def main() -> None:
        stream = build(source.given(), operators)
        assert [await anext(stream) for _ in range(pulls)] == given_items[:pulls]
        results = []
        try:
            async for item in build(stream, more):
                results.append(item)
        except Exception as error:
            assert type(error) is expected_error
        else:
            assert expected_error is None
        assert results == expected

    asyncio.run(main())


@pytest.mark.parametrize("given", ["generator", "async generator", "receiver"])
async def test_a_plain_and_an_async_function_are_the_same_to_every_operator(given: str) -> None:
    for operator in ANSWERS:
        found = []
        for is_async in (False, True):
            for length in (0, 1, 30):
                source = Source(length, None, given, suspends=False)
                log.clear()
                function = Function(operator, is_async, suspends=True, fails_at=None, error=Broken)
                found.append((await function.of_stream(streams.iter(source.given())).collect(), [*log]))
        assert found[:3] == found[3:]


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


async def test_collect_begins_with_what_the_last_pull_has_left() -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"a\nb\nc\nd"
        yield b"e\n"

    lines = streams.iter(parts()).lines()
    assert await anext(lines) == "a"
    assert await lines.collect() == ["b", "c", "de"]
