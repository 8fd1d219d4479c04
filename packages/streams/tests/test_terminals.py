"""What consumes a stream."""

from __future__ import annotations

import asyncio
import operator
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from yamanote import streams
from yamanote.runtime import yield_now
from yamanote.streams import Stream

FALSY = [0, None, "", [], ValueError("an item")]
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


def slow(function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any) -> Any:
        await yield_now()
        result = function(*args)
        await yield_now()
        return result

    return call


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


plain_and_async = pytest.mark.parametrize("wrap", [plain, slow], ids=["plain", "async"])


class Source:
    """An async source that counts, and takes its time."""

    def __init__(self, *items: Any, error: Exception | None = None) -> None:
        self.items = list(items)
        self.error = error
        self.pulls = 0
        self.closed = 0

    def __aiter__(self) -> Source:
        return self

    async def __anext__(self) -> Any:
        self.pulls += 1
        await yield_now()
        if self.items:
            return self.items.pop(0)
        if self.error is not None:
            raise self.error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        await yield_now()
        self.closed += 1


terminals: dict[str, Callable[[Stream[Any], Wrap], Awaitable[Any]]] = {
    "collect": lambda s, wrap: s.collect(),
    "for_each": lambda s, wrap: s.for_each(wrap(str)),
    "fold": lambda s, wrap: s.fold(0, wrap(lambda state, item: state)),
    "reduce": lambda s, wrap: s.reduce(wrap(lambda state, item: state)),
    "reduce from": lambda s, wrap: s.reduce(wrap(lambda state, item: state), 0),
    "count": lambda s, wrap: s.count(),
    "any": lambda s, wrap: s.any(wrap(lambda item: False)),
    "all": lambda s, wrap: s.all(wrap(lambda item: True)),
    "last": lambda s, wrap: s.last(),
    "unzip": lambda s, wrap: s.map(lambda item: (item, item)).unzip(),
}
every_terminal = pytest.mark.parametrize("terminal", terminals.values(), ids=terminals)
with_function = pytest.mark.parametrize("name", ["for_each", "fold", "reduce", "reduce from", "any", "all"])


@plain_and_async
async def test_fold_goes_from_the_initial_state_with_the_state_first(wrap: Wrap) -> None:
    def add(state: tuple[Any, ...], item: Any) -> tuple[Any, ...]:
        return (*state, item)

    for items in ([], [1, 2, 3], FALSY):
        assert await streams.iter(items).fold((), wrap(add)) == tuple(items)
        assert await streams.iter(Source(*items)).fold((), wrap(add)) == tuple(items)


@plain_and_async
async def test_reduce_begins_with_the_first_item_or_with_initial_even_if_that_is_none(wrap: Wrap) -> None:
    assert await streams.iter([5, 2, 1]).reduce(wrap(operator.sub)) == 2
    assert await streams.iter([5]).reduce(wrap(operator.sub)) == 5
    assert await streams.iter([1, 2]).reduce(wrap(lambda state, item: (state, item)), None) == ((None, 1), 2)
    assert await streams.iter([]).reduce(wrap(operator.sub), None) is None
    assert await streams.iter(Source(None, 1)).reduce(wrap(lambda state, item: (state, item))) == (None, 1)


async def test_reduce_of_nothing_is_a_type_error_that_gives_advice() -> None:
    source = Source()
    with pytest.raises(TypeError, match="initial"):
        await streams.iter(source).reduce(operator.add)
    assert source.closed == 1


async def test_count_counts_every_item_whatever_it_is() -> None:
    assert await streams.iter(FALSY).count() == 5
    assert await streams.iter(Source(*FALSY)).count() == 5
    assert await streams.empty().count() == 0


@plain_and_async
async def test_any_and_all_stop_at_the_item_that_decides_and_close_the_source(wrap: Wrap) -> None:
    for make in (lambda s: s, lambda s: s.map(int), lambda s: s.chain([9, 9]), lambda s: s.map(slow(int))):
        source = Source(0, 0, 3, 0, 7)
        assert await make(streams.iter(source)).any(wrap(lambda item: item > 2)) is True
        assert source.items == [0, 7] and source.closed == 1
        source = Source(1, 1, 0, 1)
        assert await make(streams.iter(source)).all(wrap(bool)) is False
        assert source.items == [1] and source.closed == 1


async def test_any_and_all_take_nothing_more_from_an_iterator_either() -> None:
    numbers = iter(range(100))
    assert await streams.iter(numbers).map(str).filter(str.isdigit).any(lambda text: text == "3")
    assert next(numbers) == 4
    assert not await streams.iter(numbers).all(lambda number: number < 10)
    assert next(numbers) == 11


async def test_any_and_all_agree_with_those_of_python() -> None:
    for items in ([], FALSY, [1], [0, 1], [1, 0]):
        assert await streams.iter(items).any() is any(items)
        assert await streams.iter(items).all() is all(items)
        assert await streams.iter(Source(*items)).any() is any(items)
        assert await streams.iter(Source(*items)).all() is all(items)


async def test_first_closes_the_source_behind_the_first_item() -> None:
    for item in FALSY:
        source = Source(item, 2)
        assert await streams.iter(source).first() is item
        assert source.items == [2] and source.closed == 1


async def test_first_and_last_of_nothing_are_the_default_or_a_lookup_error() -> None:
    assert await streams.empty().first(None) is None
    assert await streams.empty().last(default=None) is None
    for terminal in (Stream.first, Stream.last):
        with pytest.raises(LookupError, match="default"):
            await terminal(streams.empty())


async def test_last_gives_the_last_item_whatever_it_is() -> None:
    for item in FALSY:
        assert await streams.iter([1, item]).last("default") is item
        assert await streams.iter(Source(1, item)).last() is item


async def test_unzip_takes_pairs_apart() -> None:
    assert await streams.iter("ab").enumerate().unzip() == ([0, 1], ["a", "b"])
    empty: Stream[tuple[int, int]] = streams.iter([])
    assert await empty.unzip() == ([], [])
    with pytest.raises(ValueError, match="unpack"):
        await streams.iter([(1, 2), (1, 2, 3)]).unzip()  # type: ignore[misc]


@every_terminal
@plain_and_async
async def test_a_terminal_closes_the_source_and_leaves_the_stream_at_its_end(terminal: Any, wrap: Wrap) -> None:
    source = Source(1, 2, 3)
    stream = streams.iter(source).map(lambda item: item)
    await terminal(stream, wrap)
    assert source.closed == 1


@every_terminal
@plain_and_async
async def test_an_error_of_the_source_is_raised_as_it_is_and_the_source_closed(terminal: Any, wrap: Wrap) -> None:
    error = OSError()
    source = Source(1, 2, error=error)
    with pytest.raises(OSError) as raised:
        await terminal(streams.iter(source), wrap)
    assert raised.value is error
    assert source.closed == 1


@every_terminal
async def test_a_terminal_that_is_cancelled_closes_the_source(terminal: Any) -> None:
    source = Source(*range(100))
    task = asyncio.ensure_future(terminal(streams.iter(source), slow))
    for _ in range(12):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert source.closed == 1
    assert source.items


@with_function
@plain_and_async
@pytest.mark.parametrize("kind", [OSError, StopIteration, StopAsyncIteration])
@pytest.mark.parametrize("shape", ["list", "source", "operator"])
async def test_an_error_of_a_function_is_raised_and_closes_the_source(
    name: str, wrap: Wrap, kind: type[Exception], shape: str
) -> None:
    error = kind()

    def fail(*args: Any) -> Any:
        raise error

    def failing(_: Callable[..., Any]) -> Callable[..., Any]:
        return wrap(fail)

    source = Source(1, 2, 3)
    stream = streams.iter([1, 2, 3] if shape == "list" else source)
    with pytest.raises(OSError if kind is OSError else RuntimeError) as raised:
        await terminals[name](stream.peekable() if shape == "operator" else stream, failing)
    assert error in (raised.value, raised.value.__cause__)
    assert source.closed == (shape != "list")


@with_function
async def test_what_cannot_be_called_is_refused_and_the_stream_stays_usable(name: str) -> None:
    stream = streams.iter([1, 2, 3])
    with pytest.raises(TypeError, match=r"function|predicate"):
        await terminals[name](stream, lambda _: 5)  # type: ignore[arg-type, return-value]
    assert await stream.collect() == [1, 2, 3]


async def test_collect_and_reduce_take_anything_that_can_be_iterated_over() -> None:
    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(4):
                yield number
        finally:
            closed.append(True)

    async def add(total: int, number: int) -> int:
        await yield_now()
        return total + number

    closed: list[bool] = []
    assert await streams.collect(numbers()) == [0, 1, 2, 3]
    assert await streams.collect("ab") == ["a", "b"]
    assert await streams.collect(streams.iter("ab").map(str.upper)) == ["A", "B"]
    assert await streams.reduce(operator.add, numbers()) == 6
    assert await streams.reduce(add, numbers(), initial=10) == 16
    assert await streams.reduce(add, [], None) is None  # type: ignore[arg-type]
    assert closed == [True] * 3
    with pytest.raises(TypeError, match="initial"):
        await streams.reduce(operator.add, [])
    with pytest.raises(TypeError, match="function"):
        await streams.reduce(5, [1])  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="source"):
        await streams.collect(5)  # type: ignore[arg-type]


async def test_memory_stays_flat_however_many_items_pass() -> None:
    async def numbers(count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number

    def pipelines(count: int) -> list[Awaitable[Any]]:
        def items() -> Stream[int]:
            return streams.iter(range(count))

        return [
            items().map(lambda n: n + 1).filter(lambda n: n % 2).count(),
            items().zip(streams.iter(range(count)).map(str)).last(),
            items().chain(range(count)).peekable().fold(0, lambda total, number: total + number),
            streams.iter(numbers(count)).chunks(7).for_each(len),
            streams.iter(numbers(count)).ready_chunks(7).all(),
            streams.iter([1, 2]).cycle().take(count).count(),
            streams.unfold(0, lambda state: (state, state + 1)).take(count).count(),
        ]

    async def peak(count: int) -> int:
        highest = 0
        for pipeline in pipelines(count):
            tracemalloc.clear_traces()
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            await pipeline
            highest = max(highest, tracemalloc.get_traced_memory()[1] - before)
        return highest

    tracemalloc.start()
    try:
        await peak(100)
        few, many = await peak(2000), await peak(10_000)
    finally:
        tracemalloc.stop()
    assert many < few + 20_000
