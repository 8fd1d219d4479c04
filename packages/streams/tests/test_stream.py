"""Handles: ownership, closing, what is refused, what is shown."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from yamanote import streams
from yamanote.channels import ChannelClosed, channel
from yamanote.sinks import drain
from yamanote.streams._operator import Operator


class Watched:
    """An async generator's worth of numbers that knows whether it has been closed, and by which task."""

    def __init__(self, length: int = 100) -> None:
        self.length = length
        self.closed = False
        self.tasks: set[asyncio.Task[Any] | None] = set()

    async def numbers(self) -> AsyncIterator[int]:
        try:
            for number in range(self.length):
                self.tasks.add(asyncio.current_task())
                yield number
        finally:
            await asyncio.sleep(0)  # clean-up that needs the loop
            self.tasks.add(asyncio.current_task())
            self.closed = True


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return number * 2


def fail(number: int) -> int:
    raise ValueError(number)


async def fail_later(number: int) -> int:
    await asyncio.sleep(0)
    raise ValueError(number)


Shape = Callable[[streams.Stream[int]], streams.Stream[Any]]
shapes: dict[str, Shape] = {
    "source": lambda s: s,
    "map": lambda s: s.map(lambda n: n),
    "async map": lambda s: s.map(double),
    "async filter": lambda s: s.filter(double),
    "async map, map": lambda s: s.map(double).map(str),
    "chunks": lambda s: s.chunks(2),
    "chunks_timeout": lambda s: s.chunks_timeout(2, 1000),
    "buffered": lambda s: s.map(double).buffered(3),
    "buffered_unordered": lambda s: s.map(double).buffered_unordered(3),
    "buffered, map": lambda s: s.map(double).buffered(3).map(str).map(double),
    "buffered twice": lambda s: s.map(double).buffered(3).map(double).buffered_unordered(2),
    "buffered, chunks_timeout": lambda s: s.map(double, concurrency=2).chunks_timeout(3, 1000),
}
every_shape = pytest.mark.parametrize("shape", shapes.values(), ids=shapes)


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


@every_shape
async def test_the_end_closes_the_source_and_leaves_no_task(shape: Shape) -> None:
    source = Watched(10)
    stream = shape(streams.iter(source.numbers()))
    async for _ in stream:
        pass
    assert source.closed
    assert not others()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@every_shape
async def test_take_closes_the_source_at_its_end(shape: Shape) -> None:
    source = Watched()
    taken = await shape(streams.iter(source.numbers())).take(2).collect()
    assert len(taken) == 2
    assert source.closed
    assert not others()


@every_shape
async def test_break_inside_async_with_closes_the_source_now(shape: Shape) -> None:
    source = Watched()
    async with shape(streams.iter(source.numbers())) as stream:
        async for _ in stream:
            break
    assert source.closed
    assert not others()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@every_shape
async def test_an_error_in_the_body_closes_the_source_now(shape: Shape) -> None:
    source = Watched()
    with pytest.raises(KeyError):
        async with shape(streams.iter(source.numbers())) as stream:
            async for _ in stream:
                raise KeyError
    assert source.closed
    assert not others()


@every_shape
async def test_aclose_may_be_called_before_the_start_and_again(shape: Shape) -> None:
    source = Watched()
    stream = shape(streams.iter(source.numbers()))
    await stream.aclose()
    await stream.aclose()
    assert not source.tasks
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert await stream.collect() == []


@every_shape
async def test_closing_the_stream_that_was_begun_with_closes_what_became_of_it(shape: Shape) -> None:
    source = Watched()
    async with streams.iter(source.numbers()) as first:
        last = shape(first)
        await anext(last)
    assert source.closed
    assert not others()
    with pytest.raises(StopAsyncIteration):
        await anext(last)


@every_shape
@pytest.mark.parametrize("failure", [fail, fail_later])
async def test_an_error_closes_the_source_and_is_raised_once(shape: Shape, failure: Callable[[int], Any]) -> None:
    source = Watched()
    stream = shape(streams.iter(source.numbers())).map(failure)
    with pytest.raises(ValueError):
        await anext(stream)
    assert source.closed
    assert not others()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@every_shape
async def test_an_error_of_the_source_comes_through_and_is_raised_once(shape: Shape) -> None:
    async def source() -> AsyncIterator[int]:
        yield 2
        await asyncio.sleep(0)
        yield 4
        raise KeyError("source")

    stream = shape(streams.iter(source()))
    with pytest.raises(KeyError, match="source"):
        async for _ in stream:
            pass
    assert not others()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@every_shape
@pytest.mark.parametrize("turns", range(12))
async def test_a_cancelled_terminal_closes_the_source_before_it_returns(shape: Shape, turns: int) -> None:
    source = Watched(10**9)
    stream = shape(streams.iter(source.numbers()))
    task = asyncio.create_task(stream.for_each(lambda item: None))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.closed or not source.tasks
    assert not others()


@every_shape
async def test_one_task_pulls_and_closes_an_async_generator(shape: Shape) -> None:
    source = Watched(10)
    await shape(streams.iter(source.numbers())).collect()
    assert len(source.tasks) == 1
    source = Watched()
    async with shape(streams.iter(source.numbers())) as stream:
        await anext(stream)
    assert len(source.tasks) == 1


@pytest.mark.parametrize("name", sorted(set(shapes) - {"source"}))
async def test_a_dropped_stream_that_has_begun_warns_by_name_and_cancels(name: str) -> None:
    source = Watched()
    stream: streams.Stream[Any] | None = shapes[name](streams.iter(source.numbers()))
    assert stream is not None
    await anext(stream)
    label = repr(stream)
    with pytest.warns(ResourceWarning, match="was dropped") as caught:
        stream = None
        gc.collect()
    assert [label in str(warning.message) for warning in caught] == [True]
    caught.clear()  # a warning refers to the stream
    for _ in range(20):
        await asyncio.sleep(0)
    assert source.closed
    assert not others()


@every_shape
async def test_dropping_a_stream_that_has_not_begun_or_is_over_is_silent(shape: Shape) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shape(streams.iter(Watched().numbers()))
        shape(streams.iter([1, 2, 3]))
        stream: streams.Stream[Any] | None = shape(streams.iter(Watched(3).numbers()))
        assert stream is not None
        await stream.collect()
        stream = shape(streams.iter(Watched(3).numbers()))
        await anext(stream)
        await stream.aclose()
        stream = None
        gc.collect()


async def test_a_dropped_stream_over_a_list_is_silent() -> None:
    async for _ in streams.iter([1, 2, 3]).map(str):
        break
    gc.collect()


async def test_a_plain_generator_is_closed_with_its_stream() -> None:
    closed = []

    def numbers() -> Iterator[int]:
        try:
            yield from range(10)
        finally:
            closed.append(True)

    generator = numbers()
    async with streams.iter(generator).map(str) as stream:
        await anext(stream)
    assert closed == [True]

    generator = numbers()
    assert await streams.iter(generator).take(1).collect() == [0]
    assert closed == [True, True]


async def test_a_stream_of_a_receiver_owns_it() -> None:
    sender, receiver = channel(10)
    for number in range(5):
        await sender.send(number)
    assert await receiver.into_stream().take(2).collect() == [0, 1]
    with pytest.raises(ChannelClosed):
        await sender.send(5)
    sender.close()


async def test_a_receiver_loses_nothing_when_a_pull_is_cancelled() -> None:
    sender, receiver = channel(10)
    async with streams.iter(receiver).map(lambda n: n + 1) as stream:
        for turns in range(4):
            task = asyncio.create_task(anext(stream))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            sender.send_nowait(turns)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await anext(stream) == turns + 1
    sender.close()


async def test_the_call_of_an_item_that_was_cancelled_is_made_again() -> None:
    calls = []

    async def slow(number: int) -> int:
        calls.append(number)
        await asyncio.sleep(0)
        return number

    for stream in (streams.iter(range(3)).map(slow), streams.iter(range(1, 4)).filter(slow)):
        calls.clear()
        first = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        items = [item async for item in stream]
        assert calls == [items[0], *items]


async def test_an_operator_takes_the_stream_over() -> None:
    stream = streams.iter([1, 2, 3])
    mapped = stream.map(str)
    for use in (
        lambda: stream.map(str),
        lambda: stream.filter(str),
        lambda: stream.map(double),
        lambda: stream.filter(double),
        lambda: stream.enumerate(),
        lambda: stream.take(1),
        lambda: stream.chunks(1),
        lambda: stream.chunks_timeout(1, 1),
        lambda: stream.buffered(1),
        lambda: stream.buffered_unordered(1),
        lambda: streams.iter(stream),
    ):
        with pytest.raises(RuntimeError, match="taken over"):
            use()
    terminals: list[Callable[[], Awaitable[Any]]] = [lambda: anext(stream)]
    for terminal in terminals:
        with pytest.raises(RuntimeError, match="taken over"):
            await terminal()
    assert await mapped.collect() == ["1", "2", "3"]


async def test_iter_of_a_stream_is_that_stream() -> None:
    assert await streams.iter(streams.iter([1, 2]).map(str)).map(int).collect() == [1, 2]


async def test_a_second_terminal_finds_the_end() -> None:
    stream = streams.iter([1, 2])
    assert await stream.collect() == [1, 2]
    assert await stream.collect() == []


async def test_functions_are_plain_or_async_by_how_they_were_defined() -> None:
    class Called:
        async def __call__(self, number: int) -> int:
            return number * 2

        async def method(self, number: int) -> int:
            return number * 2

    @functools.wraps(double)
    def decorated(number: int) -> Awaitable[int]:
        return double(number)

    for function in (double, functools.partial(double), Called(), Called().method, functools.partial(Called())):
        assert await streams.iter([1, 2]).map(function).collect() == [2, 4]
        assert await streams.iter([0, 1]).filter(function).collect() == [1]
        assert await streams.iter([1, 2]).map(function).buffered(2).collect() == [2, 4]
    coroutines = await streams.iter([1, 2]).map(decorated).collect()
    assert [await coroutine for coroutine in coroutines] == [2, 4]
    assert await streams.iter([1, 2]).map(decorated).buffered(2).collect() == [2, 4]


async def test_for_each_awaits_an_async_function_before_the_next_item() -> None:
    events: list[Any] = []

    async def work(number: int) -> None:
        events.append(number)
        await asyncio.sleep(0)
        events.append("done")

    def numbers() -> Iterator[int]:
        for number in range(2):
            events.append("pulled")
            yield number

    await streams.iter(numbers()).for_each(work)
    assert events == ["pulled", 0, "done", "pulled", 1, "done"]


async def test_async_stream_makes_streams_of_generator_functions() -> None:
    @streams.async_stream
    async def up_to(limit: int, *, step: int = 1) -> AsyncIterator[int]:
        """Count."""
        for number in range(0, limit, step):
            yield number

    @streams.async_stream
    def letters(text: str) -> Iterator[str]:
        yield from text

    assert isinstance(up_to(3), streams.Stream)
    assert up_to.__name__ == "up_to"
    assert up_to.__doc__ == "Count."
    assert await up_to(6, step=2).map(str).collect() == ["0", "2", "4"]
    assert await letters("abc").collect() == ["a", "b", "c"]


def test_async_stream_refuses_what_gives_no_items() -> None:
    with pytest.raises(TypeError, match="yield"):
        streams.async_stream(double)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="function"):
        streams.async_stream(3)  # type: ignore[call-overload]


@pytest.mark.parametrize("source", [3, None, double])
def test_what_cannot_be_iterated_over_is_refused(source: Any) -> None:
    with pytest.raises(TypeError, match="source"):
        streams.iter(source)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("count", lambda s, n: s.chunks(n)),
        ("count", lambda s, n: s.chunks_timeout(n, 1)),
        ("limit", lambda s, n: s.buffered(n)),
        ("limit", lambda s, n: s.buffered_unordered(n)),
        ("limit", lambda s, n: s.map(double).buffered(n)),
        ("limit", lambda s, n: s.map(double).buffered_unordered(n)),
        ("concurrency", lambda s, n: s.map(double, concurrency=n)),
    ],
)
@pytest.mark.parametrize(
    ("count", "error"), [(0, ValueError), (-1, ValueError), (True, TypeError), (1.0, TypeError), ("1", TypeError)]
)
async def test_wrong_counts_are_refused_at_the_call(
    name: str, call: Callable[[Any, Any], Any], count: Any, error: type[Exception]
) -> None:
    stream = streams.iter([1])
    with pytest.raises(error, match=name):
        call(stream, count)


async def test_take_of_nothing_is_empty_and_of_less_is_refused() -> None:
    source = Watched()
    assert await streams.iter(source.numbers()).take(0).collect() == []
    assert not source.tasks
    with pytest.raises(ValueError, match="count"):
        streams.iter([1]).take(-1)
    with pytest.raises(TypeError, match="count"):
        streams.iter([1]).take(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("function", [None, 3, "len"])
async def test_what_is_no_function_is_refused(function: Any) -> None:
    with pytest.raises(TypeError, match="function"):
        streams.iter([1]).map(function)
    with pytest.raises(TypeError, match="predicate"):
        streams.iter([1]).filter(function)
    with pytest.raises(TypeError, match="function"):
        await streams.iter([1]).for_each(function)


async def test_enumerate_counts_from_start() -> None:
    assert await streams.iter("ab").enumerate(7).collect() == [(7, "a"), (8, "b")]
    with pytest.raises(TypeError, match="start"):
        streams.iter("ab").enumerate("a")  # type: ignore[arg-type]


def test_a_stream_shows_its_stages() -> None:
    stream = streams.iter([1]).map(str).filter(bool).enumerate().take(3).chunks(2)
    assert repr(stream) == "<Stream list.map(str).filter(bool).enumerate().take(3).chunks(2)>"
    concurrent = streams.iter(Watched().numbers()).map(double).buffered(3).chunks_timeout(4, 0.5)
    assert repr(concurrent) == "<Stream numbers.map(double).buffered(3).chunks_timeout(4, 0.5)>"
    calls = streams.iter([1]).filter(double).map(double).map(double, concurrency=2, ordered=False)
    assert repr(calls) == "<Stream list.filter(double).map(double).map(double).buffered_unordered(2)>"


async def test_forward_feeds_everything_and_closes_the_sink() -> None:
    items: list[str] = []
    sink = drain().with_map(items.append)
    await streams.iter([1, 2]).map(str).forward(sink)
    assert items == ["1", "2"]
    with pytest.raises(RuntimeError, match="closed"):
        await sink.feed("3")


async def test_forward_closes_both_ends_when_one_fails() -> None:
    source = Watched()
    sink = drain()
    with pytest.raises(ValueError):
        await streams.iter(source.numbers()).map(fail).forward(sink)
    assert source.closed
    with pytest.raises(RuntimeError, match="closed"):
        await sink.feed(1)

    source = Watched()
    with pytest.raises(ValueError):
        await streams.iter(source.numbers()).forward(drain().with_map(fail))
    assert source.closed


@every_shape
async def test_a_terminal_that_is_thrown_away_cancels_without_waiting(shape: Shape) -> None:
    class Numbers:
        def __aiter__(self) -> Numbers:
            return self

        async def __anext__(self) -> int:
            await asyncio.sleep(0)
            return 1

    collecting = shape(streams.iter(Numbers())).collect()
    collecting.send(None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        collecting.close()
        del collecting
        gc.collect()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not others()


@every_shape
async def test_an_error_in_closing_is_raised_unless_there_is_another(shape: Shape) -> None:
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))

    class Numbers:
        def __init__(self, error: Exception) -> None:
            self.error = error

        def __aiter__(self) -> Numbers:
            return self

        async def __anext__(self) -> int:
            raise self.error

        async def aclose(self) -> None:
            raise KeyError("closing")

    with pytest.raises(KeyError, match="closing"):
        await anext(shape(streams.iter(Numbers(StopAsyncIteration()))))
    assert reported == []
    stream = shape(streams.iter(Numbers(ValueError("first"))))
    with pytest.raises(ValueError, match="first"):
        await anext(stream)
    assert {type(error) for error in reported} <= {KeyError}
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@pytest.mark.filterwarnings("error")
async def test_a_coroutine_that_is_refused_as_a_source_is_closed_with_advice() -> None:
    async def numbers() -> list[int]:
        return [1]

    stream = streams.iter([0])
    for apply in (streams.iter, stream.chain, stream.zip):
        coroutine = numbers()
        with pytest.raises(TypeError, match="await it first"):
            apply(coroutine)  # type: ignore[call-overload]
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
    assert await stream.collect() == [0]


async def test_then_says_so_when_a_function_gives_nothing_to_await() -> None:
    with pytest.raises(TypeError, match=r"then\(str\).*use `map`"):
        await streams.iter([1]).then(str).collect()  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="use `map`"):
        await streams.iter([1]).then(lambda item: None).collect()  # type: ignore[arg-type,return-value]


@pytest.mark.filterwarnings("error")
async def test_for_each_refuses_a_plain_function_that_gives_a_coroutine() -> None:
    async def insert(item: int) -> None:
        raise AssertionError(item)

    coroutines = []

    def call(item: int) -> object:
        coroutines.append(insert(item))
        return coroutines[-1]

    with pytest.raises(TypeError, match="pass the async function itself"):
        await streams.iter([1, 2]).for_each(call)
    (coroutine,) = coroutines
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
    await streams.iter([1, 2]).for_each(lambda item: item)  # anything else that it returns is of no interest


async def test_a_stream_that_only_its_pull_holds_warns_when_the_pull_has_left_something_behind() -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(10):
            await asyncio.sleep(0)
            yield number

    before = asyncio.all_tasks()
    with pytest.warns(ResourceWarning, match=r"timeout\(5\).* was dropped"):
        assert await anext(streams.iter(numbers()).timeout(5)) == 0
        gc.collect()
    for _ in range(10):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_the_end_closes_each_of_many_nested_operators_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    closings = 0
    close = Operator._close

    async def counted(self: Operator[object]) -> None:
        nonlocal closings
        closings += 1
        await close(self)

    monkeypatch.setattr(Operator, "_close", counted)
    stream = streams.iter([1, 2])
    for _ in range(50):
        stream = stream.peekable()
    assert await stream.collect() == [1, 2]
    assert closings <= 3 * 50
