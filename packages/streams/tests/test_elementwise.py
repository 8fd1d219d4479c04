"""The operators that work on one item after another."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from yamanote import streams
from yamanote.streams import Stream


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def later(function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any) -> Any:
        await asyncio.sleep(0)
        return function(*args)

    return call


kinds = pytest.mark.parametrize("kind", [plain, later], ids=["plain", "async"])


class Source:
    """Counts what is asked of it; infinite without `items`."""

    def __init__(self, items: list[Any] | None = None) -> None:
        self.items: Iterator[Any] = itertools.count() if items is None else iter(items)
        self.pulled = 0
        self.closed = 0

    def __aiter__(self) -> Source:
        return self

    async def __anext__(self) -> Any:
        await asyncio.sleep(0)
        for item in self.items:
            self.pulled += 1
            return item
        raise StopAsyncIteration

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.closed += 1


async def generated(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


def numbers(kind: str, count: int = 10) -> Stream[int]:
    return streams.iter(generated(count) if kind == "awaited" else range(count))


sources = pytest.mark.parametrize("source", ["immediate", "awaited"])


# What they give


@sources
async def test_then_awaits_whatever_a_function_returns_and_map_keeps_it(source: str) -> None:
    def promise(number: int) -> Awaitable[int]:
        future = asyncio.get_running_loop().create_future()
        future.set_result(number * 2)
        return future

    assert await numbers(source, 3).then(promise).collect() == [0, 2, 4]
    assert [await future for future in await numbers(source, 3).map(promise).collect()] == [0, 2, 4]
    assert await numbers(source, 3).then(later(promise)).then(lambda future: future).collect() == [0, 2, 4]
    assert await numbers(source, 3).map(promise).buffered(2).collect() == [0, 2, 4]


async def test_then_gives_results_so_a_buffer_behind_it_has_nothing_to_await() -> None:
    with pytest.raises(TypeError, match="await"):
        await numbers("immediate").then(later(str)).buffered(2).collect()
    with pytest.raises(TypeError, match="await"):
        await numbers("immediate").then(str).collect()  # type: ignore[arg-type]


@kinds
@sources
async def test_filter_map_skips_none_and_nothing_else(source: str, kind: Any) -> None:
    answers = [0, None, "", [], False, None, ValueError("an answer")]
    found = await numbers(source, len(answers)).filter_map(kind(answers.__getitem__)).collect()
    assert found == [answer for answer in answers if answer is not None]


@kinds
@sources
async def test_scan_gives_each_state_and_takes_its_arguments_as_fold_does(source: str, kind: Any) -> None:
    def write(state: str, number: int) -> str:
        return f"({state} {number})"

    assert await numbers(source, 3).scan("-", kind(write)).collect() == ["(- 0)", "((- 0) 1)", "(((- 0) 1) 2)"]
    assert await numbers(source, 3).fold("-", kind(write)) == "(((- 0) 1) 2)"
    assert await numbers(source, 0).scan("-", kind(write)).collect() == []


@kinds
@sources
async def test_inspect_shows_each_item_before_it_is_given_and_changes_nothing(source: str, kind: Any) -> None:
    seen: list[int] = []
    async for number in numbers(source).inspect(kind(seen.append)):
        assert seen == list(range(number + 1))
    assert len(seen) == 10


@kinds
@sources
async def test_take_while_ends_at_the_first_no(source: str, kind: Any) -> None:
    asked: list[int] = []

    def small(number: int) -> bool:
        asked.append(number)
        return number % 4 < 3

    assert await numbers(source).take_while(kind(small)).collect() == [0, 1, 2]
    assert asked == [0, 1, 2, 3]
    assert await numbers(source).take_while(kind(lambda number: number)).collect() == []
    assert await numbers(source).take_while(kind(lambda number: True)).collect() == list(range(10))


@kinds
@sources
async def test_skip_while_does_not_ask_again_after_the_first_no(source: str, kind: Any) -> None:
    asked: list[int] = []

    def small(number: int) -> bool:
        asked.append(number)
        return number % 4 < 3

    assert await numbers(source).skip_while(kind(small)).collect() == list(range(3, 10))
    assert asked == [0, 1, 2, 3]
    assert await numbers(source).skip_while(kind(lambda number: True)).collect() == []


@sources
@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 1000])
async def test_skip_and_take_share_out_the_items(source: str, count: int) -> None:
    assert await numbers(source).skip(count).collect() == list(range(10))[count:]
    assert await numbers(source).take(count).collect() == list(range(10))[:count]
    assert [number async for number in numbers(source).skip(count)] == list(range(10))[count:]
    assert [number async for number in numbers(source).take(count)] == list(range(10))[:count]


@kinds
async def test_dedup_compares_neighbours_only_by_their_key(kind: Any) -> None:
    assert await streams.iter("aabbbac").dedup().collect() == [*"abac"]
    assert await streams.iter("aAbBba").dedup(kind(str.lower)).collect() == [*"aba"]
    assert await streams.iter([1, 1.0, True, None, None, 0, False, "", ""]).dedup().collect() == [1, None, 0, ""]
    assert await streams.iter([3, 1, 5, 2]).dedup(kind(lambda number: number % 2)).collect() == [3, 2]


@sources
async def test_a_comparison_that_fails_is_an_error_in_its_place(source: str) -> None:
    class Touchy:
        __hash__ = object.__hash__

        def __eq__(self, other: object) -> bool:
            raise KeyError("touched")

    items = [1, 2, Touchy(), 3]
    stream = numbers(source, 4).map(items.__getitem__).dedup()
    assert [await anext(stream), await anext(stream)] == [1, 2]
    with pytest.raises(KeyError, match="touched"):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@sources
async def test_what_is_equal_decides_dedup_not_what_is_the_same(source: str) -> None:
    strange = float("nan")  # not equal to itself
    assert len(await numbers(source, 3).map(lambda number: strange).dedup().collect()) == 3


@kinds
@sources
async def test_what_was_gathered_is_given_at_an_early_end(source: str, kind: Any) -> None:
    assert await numbers(source).take_while(kind(lambda number: number < 3)).chunks(2).collect() == [[0, 1], [2]]
    assert await numbers(source).take(3).map(kind(int)).chunks(2).collect() == [[0, 1], [2]]
    ended = [chunk async for chunk in numbers(source).take_while(kind(lambda number: number < 3)).chunks(2)]
    assert ended == [[0, 1], [2]]


@pytest.mark.parametrize("count", [15, 16, 17, 100, 128, 1000, 5000])
async def test_chunks_are_whole_however_they_fall_into_batches(count: int) -> None:
    length = 4000
    expected = [list(range(length))[start : start + count] for start in range(0, length, count)]
    given: list[Any] = [range(length), generated(length), streams.iter(range(length)).then(later(int))]
    for source in given:
        assert await streams.iter(source).chunks(count).collect() == expected
    for source in (range(length), generated(length)):
        stream = streams.iter(source).chunks(count)
        assert [await anext(stream), *await stream.collect()] == expected


FALSY = [0, None, "", [], False, (), ValueError("an item"), StopAsyncIteration(), NotImplemented]

EVERYTHING: dict[str, Callable[[Stream[Any], Any], Stream[Any]]] = {
    "map": lambda s, kind: s.map(kind(lambda item: item)),
    "then": lambda s, kind: s.then(later(lambda item: item)),
    "filter": lambda s, kind: s.filter(kind(lambda item: True)),
    "filter_map": lambda s, kind: s.filter_map(kind(lambda item: (item,))).map(lambda one: one[0]),
    "enumerate": lambda s, kind: s.enumerate().map(lambda numbered: numbered[1]),
    "scan": lambda s, kind: s.scan(None, kind(lambda state, item: item)),
    "inspect": lambda s, kind: s.inspect(kind(lambda item: None)),
    "take": lambda s, kind: s.take(100),
    "take_while": lambda s, kind: s.take_while(kind(lambda item: [item])),
    "skip": lambda s, kind: s.skip(0),
    "skip_while": lambda s, kind: s.skip_while(kind(lambda item: item)),
    "chunks": lambda s, kind: s.chunks(100).map(lambda chunk: chunk[0]).take(1),
    "dedup": lambda s, kind: s.dedup(kind(id)),
}
everything = pytest.mark.parametrize("name", EVERYTHING)


@everything
@kinds
async def test_falsy_items_and_exceptions_are_ordinary_items(name: str, kind: Any) -> None:
    expected = FALSY[:1] if name == "chunks" else FALSY
    for source in (FALSY, Source(FALSY)):
        assert await EVERYTHING[name](streams.iter(source), kind).collect() == expected
    for source in (FALSY, Source(FALSY)):
        found = [item async for item in EVERYTHING[name](streams.iter(source), kind)]
        assert all(item is wanted for item, wanted in zip(found, expected, strict=True))


# When they stop


@kinds
async def test_who_has_enough_of_an_infinite_source_closes_it_and_pulls_no_more(kind: Any) -> None:
    rows: list[tuple[Callable[[Stream[Any]], Stream[Any]], int]] = [
        (lambda s: s.take(3), 3),
        (lambda s: s.take(0), 0),
        (lambda s: s.take_while(kind(lambda number: number < 3)), 4),
        (lambda s: s.take_while(kind(lambda number: False)), 1),
        (lambda s: s.skip(2).take(2).chunks(4), 4),
        (lambda s: s.skip_while(kind(lambda number: number < 5)).take(1), 6),
        (lambda s: s.chunks(2).take(2).map(kind(str)), 4),
        (lambda s: s.chunks(20).take(2), 40),
        (lambda s: s.map(kind(str)).take(3).filter(kind(bool)), 3),
    ]
    for apply, pulled in rows:
        source = Source()
        await apply(streams.iter(source)).collect()
        assert (source.pulled, source.closed) == (pulled, 1)
        source = Source()
        async for _ in apply(streams.iter(source)):
            pass
        assert (source.pulled, source.closed) == (pulled, 1)
        left = itertools.count()
        await apply(streams.iter(left)).collect()
        assert next(left) == pulled


@pytest.mark.parametrize("consume", ["collect", "for_each", "async for"])
async def test_an_endless_source_of_which_nothing_is_wanted_can_be_cancelled(consume: str) -> None:
    async def work() -> None:
        stream = streams.iter(itertools.repeat(0)).skip_while(lambda item: item == 0).dedup()
        if consume == "collect":
            await stream.collect()
        elif consume == "for_each":
            await stream.for_each(print)
        else:
            async for _ in stream:
                pass

    task = asyncio.create_task(work())
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancelled_pull_takes_no_place_and_counts_nothing_twice() -> None:
    rows: list[tuple[Callable[[Stream[Any]], Stream[Any]], list[Any]]] = [
        (lambda s: s.take(3), [0, 1, 2]),
        (lambda s: s.skip(3).take(3), [3, 4, 5]),
        (lambda s: s.enumerate().skip(1).take(2), [(1, 1), (2, 2)]),
        (lambda s: s.chunks(3).take(2), [[0, 1, 2], [3, 4, 5]]),
        (lambda s: s.scan(0, later(lambda state, item: state + item)).take(4), [0, 1, 3, 6]),
    ]
    for apply, expected in rows:
        source = Source()
        stream = apply(streams.iter(source))
        found = []
        for turns in itertools.chain(range(4), range(4), itertools.repeat(100)):
            pull = asyncio.ensure_future(anext(stream))
            for _ in range(turns):
                await asyncio.sleep(0)
            pull.cancel()
            try:
                found.append(await pull)
            except asyncio.CancelledError:
                pass
            except StopAsyncIteration:
                break
        assert found == expected
        assert source.closed == 1


async def test_an_end_that_was_cancelled_while_it_closed_the_source_is_repeated() -> None:
    source = Source([1])
    stream = streams.iter(source).map(str)
    assert await anext(stream) == "1"
    pull = asyncio.ensure_future(anext(stream))
    for _ in range(2):
        await asyncio.sleep(0)
    assert source.closed == 0
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert source.closed == 1


@pytest.mark.parametrize("consume", ["anext", "collect"])
async def test_a_second_task_that_pulls_is_refused_and_the_first_goes_on(consume: str) -> None:
    for apply in (
        lambda s: s.map(str),
        lambda s: s.map(later(str)),
        lambda s: s.chunks(2).map(lambda two: str(two[0])),
    ):
        async with apply(streams.iter(Source())) as stream:
            first = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="pulled by another task"):
                await stream._pipeline.drain(print) if consume == "collect" else await anext(stream)
            assert await first == "0"


async def test_a_source_that_has_ended_is_never_asked_again() -> None:
    for collect in (False, True):
        source = Source([1, 2])
        stream = streams.iter(source).map(str)
        assert (await stream._pipeline.collect() if collect else [item async for item in stream]) == ["1", "2"]
        source.items = iter([3])
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert await stream.collect() == []
        assert source.pulled == 2


@kinds
@pytest.mark.parametrize("end", [asyncio.CancelledError, KeyError])
async def test_whatever_a_plain_function_raises_ends_the_stream(kind: Any, end: type[BaseException]) -> None:
    error = end("of the function")

    def fail(item: int) -> None:
        raise error

    source = Source()
    stream = streams.iter(source).map(kind(lambda item: item)).map(fail)
    with pytest.raises(end) as raised:
        await anext(stream)
    assert raised.value is error
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert (source.pulled, source.closed) == (1, 1)


# Arguments


class AsyncCall:
    def __init__(self, item: int = 0) -> None:
        self.item = item

    async def __call__(self, item: int) -> str:
        return str(item)


async def test_a_class_is_a_plain_function_even_if_its_objects_are_async_ones() -> None:
    assert [made.item for made in await numbers("immediate", 2).map(AsyncCall).collect()] == [0, 1]
    assert await numbers("immediate", 2).map(AsyncCall()).collect() == ["0", "1"]


@pytest.mark.parametrize(
    "name", ["map", "then", "filter", "filter_map", "inspect", "take_while", "skip_while", "dedup"]
)
async def test_what_is_no_function_is_refused_by_name_and_the_stream_stays(name: str) -> None:
    stream = numbers("immediate", 2)
    with pytest.raises(TypeError, match=r"^(function|predicate|key) must be a function, not 5$"):
        getattr(stream, name)(5)
    with pytest.raises(TypeError, match=r"^function must be a function, not 5$"):
        stream.scan(0, 5)  # type: ignore[call-overload]
    assert await stream.collect() == [0, 1]


@pytest.mark.parametrize("name", ["take", "skip", "chunks"])
@pytest.mark.parametrize("count", [-1, 1.0, True, None, "1"])
async def test_what_is_no_count_is_refused_by_name_and_the_stream_stays(name: str, count: Any) -> None:
    stream = numbers("immediate", 2)
    with pytest.raises(ValueError if count == -1 else TypeError, match=r"^count must be "):
        getattr(stream, name)(count)
    assert await stream.collect() == [0, 1]


@kinds
def test_a_stream_shows_what_was_written(kind: Any) -> None:
    def add(state: int, item: int) -> int:
        return state + item

    function = later(add) if kind is later else add
    name = function.__name__
    stream = numbers("immediate").map(function).filter(function).skip(1).filter_map(function).scan([0], function)
    assert repr(stream) == (f"<Stream range.map({name}).filter({name}).skip(1).filter_map({name}).scan([0], {name})>")
    stream = stream.inspect(function).take_while(function).skip_while(function).dedup().dedup(function).then(function)
    assert repr(stream).endswith(
        f".inspect({name}).take_while({name}).skip_while({name}).dedup().dedup({name}).then({name})>"
    )
