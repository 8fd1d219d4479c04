"""The laws that every operator keeps, and one row for each operator."""

from __future__ import annotations

import asyncio
import gc
import inspect
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

from yamanote import streams
from yamanote.runtime import run, yield_now
from yamanote.streams import DelimiterCodec, Stream
from yamanote.time import VirtualClock, sleep

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True)
class Row:
    """An operator: how it is applied, and what it makes of any list of items."""

    apply: Callable[[Stream[Any], Wrap], Stream[Any]]
    expect: Callable[[list[Any]], list[Any]]
    functions: bool = False
    """Whether it takes a function, plain or async: `wrap` makes it the one or the other."""
    short: bool = False
    """Whether it may end before its source."""
    unordered: bool = False
    errors: bool = True
    """Whether an error of the source is an error of the stream, behind everything that came before."""
    waits: bool = False
    """Whether it waits between two items, so that the loop has its turns anyway."""
    superseding: bool = False
    """Whether a later item may take the place of an earlier one, if the earlier one has not been taken."""


def second(item: Any) -> tuple[Any, ...]:
    return (item, item)


def odd_one_out(item: Any) -> bool:
    return item is not FALSY[1] and item != 2


async def later(item: Any) -> Any:
    await yield_now()
    return item


def chunked(items: list[Any], count: int) -> list[Any]:
    return [items[start : start + count] for start in range(0, len(items), count)]


def states(items: list[Any]) -> list[Any]:
    return [tuple(items[: end + 1]) for end in range(len(items))]


def after_the_first(items: list[Any]) -> list[Any]:
    return items[1:]


def written(s: Stream[Any]) -> tuple[Stream[bytes], Callable[[Any], Any]]:
    """The items as lines of bytes, and what reads such a line."""
    kept: list[Any] = []

    def write(item: Any) -> bytes:
        kept.append(item)
        return b"%d\n" % (len(kept) - 1)

    return s.map(write), lambda line: kept[int(line)]


def through_lines(s: Stream[Any]) -> Stream[Any]:
    lines, read = written(s)
    return lines.lines().map(read)


def through_frames(s: Stream[Any]) -> Stream[Any]:
    lines, read = written(s)
    return lines.decode(DelimiterCodec(b"\n")).map(read)


FALSY = [0, None, "", [], ValueError("an item")]

ROWS = {
    "map": Row(lambda s, wrap: s.map(wrap(second)), lambda items: [(i, i) for i in items], functions=True),
    "map concurrently": Row(lambda s, wrap: s.map(later, concurrency=2), lambda items: items),
    "map concurrently, unordered": Row(
        lambda s, wrap: s.map(later, concurrency=2, ordered=False), lambda items: items, unordered=True
    ),
    "then": Row(lambda s, wrap: s.then(later), lambda items: items),
    "filter": Row(
        lambda s, wrap: s.filter(wrap(odd_one_out)), lambda items: [i for i in items if odd_one_out(i)], functions=True
    ),
    "filter_map": Row(
        lambda s, wrap: s.filter_map(wrap(lambda item: (item,) if odd_one_out(item) else None)),
        lambda items: [(i,) for i in items if odd_one_out(i)],
        functions=True,
    ),
    "enumerate": Row(lambda s, wrap: s.enumerate(), lambda items: list(enumerate(items))),
    "scan": Row(lambda s, wrap: s.scan((), wrap(lambda state, item: (*state, item))), states, functions=True),
    "inspect": Row(lambda s, wrap: s.inspect(wrap(second)), lambda items: items, functions=True),
    "take": Row(lambda s, wrap: s.take(3), lambda items: items[:3], short=True),
    "take_while": Row(
        lambda s, wrap: s.take_while(wrap(lambda item: item != 4 and item != [])),
        lambda items: items[: items.index([]) if [] in items else 4],
        functions=True,
        short=True,
    ),
    "skip": Row(lambda s, wrap: s.skip(2), lambda items: items[2:]),
    "skip_while": Row(lambda s, wrap: s.skip_while(wrap(lambda item: item == 0)), after_the_first, functions=True),
    "chunks": Row(lambda s, wrap: s.chunks(2), lambda items: chunked(items, 2), errors=False),
    "dedup": Row(lambda s, wrap: s.map(second).flat_map(lambda pair: pair).dedup(), lambda items: items),
    "flatten": Row(lambda s, wrap: s.map(lambda item: [item]).flatten(), lambda items: items),
    "flat_map": Row(
        lambda s, wrap: s.flat_map(wrap(second)),
        lambda items: [i for item in items for i in (item, item)],
        functions=True,
    ),
    "flat_map concurrently": Row(
        lambda s, wrap: s.flat_map(wrap(second), concurrency=2),
        lambda items: [i for item in items for i in (item, item)],
        functions=True,
        unordered=True,
    ),
    "chain": Row(lambda s, wrap: s.chain(["more"]), lambda items: [*items, "more"]),
    "zip": Row(lambda s, wrap: s.zip(streams.repeat(7)), lambda items: [(i, 7) for i in items]),
    "cycle": Row(lambda s, wrap: s.cycle().take(12), lambda items: (items * 12)[:12], short=True),
    "peekable": Row(lambda s, wrap: s.peekable(), lambda items: items),
    "take_until": Row(lambda s, wrap: s.take_until(sleep(1000)), lambda items: items),
    "ready_chunks": Row(lambda s, wrap: s.ready_chunks(3).flatten(), lambda items: items),
    "switch": Row(lambda s, wrap: s.switch(later), lambda items: items, superseding=True),
    "lines": Row(lambda s, wrap: through_lines(s), lambda items: items),
    "decode": Row(lambda s, wrap: through_frames(s), lambda items: items),
    "merge": Row(lambda s, wrap: s.merge(["more"]), lambda items: [*items, "more"], unordered=True),
    "buffered": Row(lambda s, wrap: s.map(later).buffered(2), lambda items: items),
    "buffered_unordered": Row(lambda s, wrap: s.map(later).buffered_unordered(2), lambda items: items, unordered=True),
    "prefetch": Row(lambda s, wrap: s.prefetch(2), lambda items: items),
    "timeout": Row(lambda s, wrap: s.timeout(1000), lambda items: items),
    "throttle": Row(lambda s, wrap: s.throttle(0.1), lambda items: items, waits=True),
    "debounce": Row(lambda s, wrap: s.debounce(0.1), lambda items: items, superseding=True),
    "sample": Row(lambda s, wrap: s.sample(0.1), lambda items: items, superseding=True),
    "delay": Row(lambda s, wrap: s.delay(0.1), lambda items: items, waits=True),
    "chunks_timeout": Row(lambda s, wrap: s.chunks_timeout(2, 1000), lambda items: chunked(items, 2)),
    "catch": Row(
        lambda s, wrap: s.catch(wrap(lambda error: [error])), lambda items: items, functions=True, errors=False
    ),
    "zip_concurrently": Row(
        lambda s, wrap: streams.zip_concurrently(s, streams.repeat(7)), lambda items: [(i, 7) for i in items]
    ),
    "map_concurrently": Row(lambda s, wrap: streams.map_concurrently(later, s, concurrency=2), lambda items: items),
    "buffer_aiter": Row(lambda s, wrap: streams.buffer_aiter(s, size=2), lambda items: items),
    "select": Row(lambda s, wrap: streams.select(name=s), lambda items: [("name", i) for i in items]),
}

# Applied to a stream, these do not give one stream.
OTHERS = {
    "broadcast": "gives several: test_sharing",
    "share": "gives an object that streams are taken from: test_sharing",
    "retry": "needs a stream that can be begun anew: test_recovering",
}
TERMINALS = {"all", "any", "collect", "count", "first", "fold", "for_each", "forward", "last", "reduce", "unzip"}


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def slow(function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any) -> Any:
        await yield_now()
        result = function(*args)
        await yield_now()
        return result

    return call


class Source:
    """Gives items at `pace` seconds, loses nothing when a pull is cancelled, and takes its time to close."""

    def __init__(self, items: list[Any], *, error: Exception | None = None, pace: float = 1.0) -> None:
        self.items = list(items)
        self.error = error
        self.pace = pace
        self.pulls = 0
        self.closed = 0

    def __aiter__(self) -> Source:
        return self

    async def __anext__(self) -> Any:
        assert not self.closed, "pulled after it was closed"
        self.pulls += 1
        await sleep(self.pace)
        if self.items:
            return self.items.pop(0)
        if self.error is not None:
            raise self.error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        await yield_now()
        self.closed += 1


def virtually(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `main` in virtual time. No task may be left."""

    async def checked() -> None:
        await main()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(checked(), clock=VirtualClock())


def same(row: Row, got: list[Any], wanted: list[Any]) -> bool:
    if row.unordered:
        return sorted(map(repr, got)) == sorted(map(repr, wanted))
    return got == wanted


async def everything(stream: Stream[Any]) -> list[Any]:
    return [item async for item in stream]


def rows(condition: Callable[[Row], bool] = lambda row: True) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", [pytest.param(row, id=name) for name, row in ROWS.items() if condition(row)])


def wraps() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("wrap", [plain, slow], ids=["plain", "async"])


@rows()
@wraps()
@pytest.mark.parametrize("items", [list(range(6)), FALSY, []], ids=["numbers", "falsy", "none"])
@pytest.mark.parametrize("pace", [0, 1.0], ids=["ready", "slow"])
def test_what_comes_is_what_the_operator_promises(row: Row, wrap: Wrap, items: list[Any], pace: float) -> None:
    if row.superseding and not pace:
        pytest.skip("what is superseded is a question of time")

    async def main() -> None:
        source = Source(items, pace=pace)
        got = await row.apply(streams.iter(source), wrap).collect()
        assert same(row, got, row.expect(items))
        assert source.closed == 1

    virtually(main)


@rows(lambda row: not row.superseding)
@wraps()
def test_a_source_that_never_waits_gives_the_same(row: Row, wrap: Wrap) -> None:
    async def main() -> None:
        for items in (list(range(6)), FALSY, []):
            assert same(row, await row.apply(streams.iter(items), wrap).collect(), row.expect(items))
            assert same(row, await everything(row.apply(streams.iter(items), wrap)), row.expect(items))

    virtually(main)


@rows()
def test_nothing_happens_before_the_first_item_is_asked_for(row: Row) -> None:
    source = Source([1])
    stream = row.apply(streams.iter(source), slow)  # no loop runs
    assert source.pulls == 0
    repr(stream)

    async def main() -> None:
        await yield_now()
        assert source.pulls == 0 and len(asyncio.all_tasks()) == 1
        await stream.aclose()
        assert source.pulls == 0 and source.closed == 1

    virtually(main)


@rows()
def test_after_its_end_a_stream_stays_at_its_end(row: Row) -> None:
    async def main() -> None:
        source = Source(list(range(6)))
        stream = row.apply(streams.iter(source), slow)
        await everything(stream)
        assert source.closed == 1
        for _ in range(3):
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        await stream.aclose()
        assert source.closed == 1

    virtually(main)


@rows(lambda row: not row.short)
@wraps()
@pytest.mark.parametrize("pace", [0, 1.0], ids=["ready", "slow"])
def test_an_error_of_the_source_comes_once_in_its_place_and_everything_is_closed(
    row: Row, wrap: Wrap, pace: float
) -> None:
    if row.superseding and not pace:
        pytest.skip("what is superseded is a question of time")

    async def main() -> None:
        error = OSError("of the source")
        source = Source(list(range(5)), error=error, pace=pace)
        stream = row.apply(streams.iter(source), wrap)
        got = []
        try:
            async for item in stream:
                got.append(item)
        except OSError as raised:
            assert raised is error
            assert row.errors or row is ROWS["chunks"]
        else:
            assert not row.errors
            assert got[-1] is error
        if row.errors:
            assert same(row, [i for i in got if i != "more"], [i for i in row.expect(list(range(5))) if i != "more"])
        assert source.closed == 1
        for _ in range(3):
            with pytest.raises(StopAsyncIteration):
                await anext(stream)

    virtually(main)


@rows(lambda row: row.functions)
@wraps()
@pytest.mark.parametrize("kind", [OSError, StopIteration, StopAsyncIteration])
@pytest.mark.parametrize("pace", [None, 0, 1.0], ids=["immediate", "ready", "slow"])
def test_an_error_of_a_function_is_raised_and_never_taken_for_the_end(
    row: Row, wrap: Wrap, kind: type[Exception], pace: float | None
) -> None:
    error = kind("of the function")

    def failing(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            raise error

        return wrap(call)

    async def main() -> None:
        source = Source([1, 2, 3], error=KeyError(), pace=pace or 0)
        stream = row.apply(streams.iter([1, 2, 3] if pace is None and row is not ROWS["catch"] else source), failing)
        with pytest.raises(OSError if kind is OSError else RuntimeError) as raised:
            await everything(stream)
        assert error in (raised.value, raised.value.__cause__, getattr(raised.value.__cause__, "__cause__", None))
        assert source.closed == (source.pulls > 0)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    virtually(main)


@rows()
@wraps()
def test_a_stream_that_is_left_early_closes_its_source_at_once(row: Row, wrap: Wrap) -> None:
    async def main() -> None:
        source = Source(list(range(50)))
        async with row.apply(streams.iter(source), wrap) as stream:
            if row.superseding:
                pull = asyncio.create_task(anext(stream))
                await sleep(1.5)
                pull.cancel()
                await asyncio.wait([pull])
            else:
                await anext(stream)
        assert source.closed == 1
        assert asyncio.all_tasks() == {asyncio.current_task()}
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    virtually(main)


class Stuck(Source):
    """Waits for ever behind its items."""

    async def __anext__(self) -> Any:
        if self.items:
            return await super().__anext__()
        await sleep(float("inf"))


async def stuck(source: Source) -> AsyncIterator[Any]:
    """A generator that belongs to the task that runs it, and takes its time to close."""
    async with asyncio.timeout(None), asyncio.TaskGroup() as group:
        group.create_task(sleep(float("inf")))
        try:
            async for item in source:
                yield item
        finally:
            await source.aclose()


async def for_ever(*args: Any) -> Any:
    await sleep(float("inf"))


async def close_while_it_is_pulled(stream: Stream[Any], pulled: Callable[[], bool]) -> None:
    async def consume() -> tuple[list[Any], int]:
        got = [item async for item in stream]
        await yield_now()  # nothing is left of what has ended the pull
        return got, asyncio.current_task().cancelling()  # type: ignore[union-attr]

    consumer = asyncio.create_task(consume())
    while not pulled():
        await sleep(1)
    await sleep(10)
    await asyncio.gather(stream.aclose(), stream.aclose())
    _, cancelling = await asyncio.wait_for(consumer, 1)
    assert cancelling == 0
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await stream.aclose()


@rows(lambda row: not row.short)
def test_closing_from_another_task_ends_the_pull_and_closes_the_source(row: Row) -> None:
    async def main() -> None:
        for count in (0, 1, 3):
            for in_task in (False, True):
                source = Stuck(list(range(count)))
                stream = row.apply(streams.iter(stuck(source) if in_task else source), plain)
                await close_while_it_is_pulled(stream, lambda source=source: not source.items)  # type: ignore[misc]
                assert source.closed == 1

    virtually(main)


@rows(lambda row: row.functions)
@pytest.mark.parametrize("pace", [None, 1.0], ids=["immediate", "slow"])
def test_closing_from_another_task_ends_the_call_of_a_function(row: Row, pace: float | None) -> None:
    async def main() -> None:
        source = Source([1, 2, 3], error=KeyError(), pace=pace or 0)
        stream = row.apply(
            streams.iter(source if pace or row is ROWS["catch"] else [1, 2, 3]), lambda function: for_ever
        )
        await close_while_it_is_pulled(stream, lambda: not pace or source.pulls > 0)
        assert source.closed == (source.pulls > 0)

    virtually(main)


@rows(lambda row: not row.superseding)
def test_closing_from_another_task_ends_a_terminal(row: Row) -> None:
    async def main() -> None:
        source = Stuck(list(range(2)))
        stream = row.apply(streams.iter(stuck(source)), plain)
        consumer = asyncio.create_task(stream.collect())
        await sleep(10)
        await stream.aclose()
        await asyncio.wait_for(consumer, 1)
        assert source.closed == 1

    virtually(main)


@rows(lambda row: not row.short and not row.superseding)
def test_a_consumer_that_is_cancelled_while_somebody_closes_is_cancelled_and_the_source_is_closed(row: Row) -> None:
    async def main() -> None:
        for first in ("cancel", "close"):
            source = Stuck([])
            stream = row.apply(streams.iter(stuck(source)), plain)
            consumer = asyncio.create_task(everything(stream))
            await sleep(1)
            closer = asyncio.ensure_future(stream.aclose())
            if first == "close":
                await yield_now()
                assert not consumer.done()
            consumer.cancel()
            await closer
            await asyncio.wait([consumer])
            assert consumer.cancelled() or first == "close"
            await stream.aclose()
            assert source.closed == 1

    virtually(main)


@rows(lambda row: not row.short and not row.superseding)
def test_closing_that_is_cancelled_can_be_repeated(row: Row) -> None:
    async def main() -> None:
        for parked in (False, True):
            for patience in range(8):
                source = Stuck([1, 2, 3])
                stream = row.apply(streams.iter(source), plain)
                consumer = asyncio.create_task(everything(stream) if parked else anext(stream))  # type: ignore[arg-type]
                await sleep(20)
                closer = asyncio.create_task(stream.aclose())
                for _ in range(patience):
                    await yield_now()
                closer.cancel()
                await asyncio.wait([closer])
                await stream.aclose()
                assert source.closed
                await asyncio.wait_for(consumer, 1)

    virtually(main)


@rows(lambda row: not row.superseding)
@wraps()
def test_a_pull_that_is_cancelled_loses_nothing(row: Row, wrap: Wrap) -> None:
    async def main() -> None:
        items = list(range(6))
        for patience in range(1, 8):
            for pace in (0, 1.0):
                source = Source(items, pace=pace)
                got: list[Any] = []
                stream = row.apply(streams.iter(source), wrap)
                cancelled = 0
                while True:
                    pull = asyncio.ensure_future(anext(stream))
                    if cancelled < 60:
                        for _ in range(patience + cancelled // 20):
                            await yield_now()
                        if pace and cancelled % 3:
                            await sleep(pace * 0.7)
                        if pull.cancel():
                            cancelled += 1
                    try:
                        got.append(await pull)
                    except asyncio.CancelledError:
                        continue
                    except StopAsyncIteration:
                        break
                assert same(row, got, row.expect(items))
                assert source.closed == 1

    virtually(main)


@rows()
def test_a_cancelled_consumer_is_told_once_and_what_it_owned_has_ended(row: Row) -> None:
    async def main() -> None:
        source = Source(list(range(50)))

        async def consume() -> None:
            await row.apply(streams.iter(source), slow).collect()

        task = asyncio.create_task(consume())
        await sleep(2.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert source.closed == 1

    virtually(main)


@rows()
def test_a_stream_that_is_dropped_says_so_and_leaves_no_task(row: Row) -> None:
    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(50):
                await sleep(0.01 if row.superseding else 1)
                yield number
        finally:
            ended.append(True)

    ended: list[bool] = []

    async def main() -> None:
        stream = row.apply(streams.iter(numbers()), slow)
        if row.superseding:
            pull = asyncio.create_task(anext(stream))
            await sleep(0.025)
            pull.cancel()
            await asyncio.wait([pull])
            del pull
        else:
            await anext(stream)
        with pytest.warns(ResourceWarning, match="dropped with"):
            del stream
            gc.collect(1)
        await sleep(1)
        gc.collect(1)
        for _ in range(5):
            await yield_now()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert ended == [True]

    virtually(main)


@rows()
def test_who_was_taken_over_refuses_and_closes_what_became_of_it(row: Row) -> None:
    async def main() -> None:
        source = Source([1, 2, 3])
        first = streams.iter(source)
        stream = row.apply(first, plain)
        with pytest.raises(RuntimeError, match="taken over"):
            await anext(first)
        with pytest.raises(RuntimeError, match="taken over"):
            first.map(second)
        await first.aclose()
        assert source.closed == 1
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        del first, stream
        with warnings.catch_warnings(record=True) as caught:
            gc.collect(1)
        assert not caught

    virtually(main)


@rows(lambda row: not row.short and not row.waits)
def test_the_loop_gets_its_turns_however_much_is_ready(row: Row) -> None:
    async def main() -> None:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count())
        async with row.apply(streams.iter(range(2000)), plain) as stream:
            async for _ in stream:
                pass
        counting.cancel()
        await asyncio.wait([counting])
        assert turns >= 10

    virtually(main)


@rows(lambda row: row.functions)
def test_a_function_that_cannot_be_called_is_refused_and_the_stream_stays_usable(row: Row) -> None:
    async def main() -> None:
        stream = streams.iter(range(3))
        with pytest.raises(TypeError, match=r"function|predicate|handler"):
            row.apply(stream, lambda function: "no function")  # type: ignore[arg-type, return-value]
        assert await stream.collect() == [0, 1, 2]

    virtually(main)


def test_every_operator_has_a_row() -> None:
    operators = {name for name, _ in inspect.getmembers(Stream, inspect.isfunction) if not name.startswith("_")}
    rows_of = {name.split()[0] for name in ROWS}
    assert operators - rows_of - OTHERS.keys() - TERMINALS - {"aclose"} == set()
    assert OTHERS.keys() | TERMINALS <= operators
