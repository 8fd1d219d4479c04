"""One stream from several sources, and up to an end that comes from outside."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest

from yamanote import streams
from yamanote.channels import channel
from yamanote.runtime import CancellationToken, JoinError, run, spawn, spawn_blocking, yield_now
from yamanote.streams import Stream
from yamanote.time import VirtualClock, sleep, time

FALSY = [0, None, "", [], ValueError("an item")]


class Source:
    """Gives items at `pace` seconds, loses nothing when a pull is cancelled, and takes its time to close."""

    def __init__(
        self, *items: Any, error: Exception | None = None, pace: float = 0, log: list[str] | None = None
    ) -> None:
        self.items = list(items)
        self.error = error
        self.pace = pace
        self.closed = 0
        self.log = [] if log is None else log

    def __aiter__(self) -> Source:
        return self

    async def __anext__(self) -> Any:
        assert not self.closed
        self.log.append("pull")
        await sleep(self.pace)
        if self.items:
            return self.items.pop(0)
        if self.error is not None:
            raise self.error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        await yield_now()
        self.closed += 1
        self.log.append("closed")


def virtually(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def checked() -> None:
        await main()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(checked(), clock=VirtualClock())


async def everything(stream: Stream[Any]) -> list[Any]:
    return [item async for item in stream]


# chain


async def test_chain_gives_one_source_after_the_other_whatever_they_are() -> None:
    async def more() -> AsyncIterator[Any]:
        for item in FALSY:
            yield item

    def chained() -> Stream[Any]:
        return streams.iter([1]).chain([], more(), streams.iter("ab").map(str.upper), Source(*FALSY))

    expected = [1, *FALSY, "A", "B", *FALSY]
    assert await everything(chained()) == expected
    assert await chained().collect() == expected
    assert await chained().map(lambda item: item).collect() == expected
    assert await streams.iter([1]).chain().collect() == [1]


async def test_chain_closes_a_source_before_the_next_one_is_pulled() -> None:
    for consume in (everything, Stream.collect):
        log: list[str] = []
        await consume(streams.iter(Source(1, log=log)).chain(Source(2, log=log)))
        assert log == ["pull", "pull", "closed"] * 2


async def test_an_error_in_a_chain_closes_those_that_were_not_reached() -> None:
    sources = [Source(1), Source(error=OSError()), Source(2)]
    stream = streams.iter(sources[0]).chain(*sources[1:])
    assert await anext(stream) == 1
    with pytest.raises(OSError):
        await anext(stream)
    assert [source.closed for source in sources] == [1, 1, 1]
    assert await anext(stream, "the end") == "the end"


# zip


async def test_zip_pairs_items_until_the_first_source_ends_and_closes_all() -> None:
    sources = [Source(1, 2, 3), Source(*"ab"), Source(*FALSY)]
    stream = streams.iter(sources[0]).zip(*sources[1:])
    assert await everything(stream) == [(1, "a", 0), (2, "b", None)]
    assert [source.closed for source in sources] == [1, 1, 1]
    assert [len(source.items) for source in sources] == [0, 0, 3]  # the first was asked once more, the last was not
    assert await anext(stream, "the end") == "the end"


async def test_zip_of_one_gives_tuples_of_one() -> None:
    assert await streams.iter([1]).zip().collect() == [(1,)]


async def test_zip_keeps_what_it_has_pulled_of_a_round_when_it_is_cancelled() -> None:
    tx, rx = channel[str](2)
    stream = streams.iter(range(3)).zip(rx)
    for _ in range(3):
        pull = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        pull.cancel()
        await asyncio.wait([pull])
    for letter in "ab":
        tx.send_nowait(letter)
        assert await anext(stream) == ("ab".index(letter), letter)
    tx.close()
    assert await anext(stream, "the end") == "the end"


async def test_a_strict_zip_raises_when_one_is_shorter_or_longer_than_those_before() -> None:
    def strict(*lengths: int) -> Stream[Any]:
        first, *others = (streams.iter(Source(*range(length))) for length in lengths)
        return first.zip(*others, strict=True)

    assert await strict(2, 2, 2).collect() == [(0, 0, 0), (1, 1, 1)]
    assert await strict(0, 0).collect() == []
    for lengths, what in {(2, 1, 2): r"others\[0\] is shorter", (2, 2, 1): r"others\[1\] is shorter"}.items():
        with pytest.raises(ValueError, match=what):
            await strict(*lengths).collect()
    for lengths, what in {(1, 2, 1): r"others\[0\] is longer", (1, 1, 2): r"others\[1\] is longer"}.items():
        stream = strict(*lengths)
        assert await anext(stream) == (0, 0, 0)
        with pytest.raises(ValueError, match=what):
            await anext(stream)
        assert await anext(stream, "the end") == "the end"


one_task: dict[str, Callable[[Stream[Any]], Stream[Any]]] = {
    "chain": lambda s: s.chain([1]),
    "zip": lambda s: s.zip([1]),
    "cycle": lambda s: s.cycle(),
    "peekable": lambda s: s.peekable(),
    "take_until": lambda s: s.take_until(CancellationToken()),
    "ready_chunks": lambda s: s.ready_chunks(2),
}


@pytest.mark.parametrize("operator", one_task.values(), ids=one_task)
async def test_a_second_task_is_refused_where_one_is_parked_and_does_no_harm(
    operator: Callable[[Stream[Any]], Stream[Any]],
) -> None:
    tx, rx = channel[int](1)
    with tx:
        async with operator(rx.into_stream()) as stream:
            pull = asyncio.ensure_future(anext(stream))
            for _ in range(3):
                await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="another task"):
                await anext(stream)
            tx.send_nowait(7)
            assert await pull in (7, [7], (7, 1))


@pytest.mark.parametrize("operator", [Stream.chain, Stream.zip], ids=["chain", "zip"])
async def test_a_source_that_is_refused_leaves_all_of_them_usable(operator: Callable[..., Stream[Any]]) -> None:
    first, second, taken = (streams.iter([1]) for _ in range(3))
    owner = taken.map(str)
    for others, kind in [((second, 5), TypeError), ((second, second), ValueError), ((first,), ValueError)]:
        with pytest.raises(kind, match=r"others\[\d\]"):
            operator(first, *others)
    with pytest.raises(RuntimeError, match="taken over"):
        operator(first, second, taken)
    assert await operator(first, second).collect() in ([1, 1], [(1, 1)])
    await owner.aclose()


# cycle


async def test_cycle_asks_the_source_once_and_gives_its_items_again() -> None:
    source = Source(*FALSY)
    stream = streams.iter(source).cycle()
    assert [await anext(stream) for _ in range(17)] == [*FALSY, *FALSY, *FALSY, 0, None]
    assert source.closed == 1
    await stream.aclose()
    assert await anext(stream, "the end") == "the end"


async def test_cycle_of_nothing_ends_and_cycle_of_a_failure_is_over() -> None:
    assert await streams.empty().cycle().collect() == []
    stream = streams.iter(Source(1, error=OSError())).cycle()
    assert await anext(stream) == 1
    with pytest.raises(OSError):
        await anext(stream)
    assert await anext(stream, "the end") == "the end"


async def test_cycle_leaves_the_loop_its_turns() -> None:
    seen = 0

    def see(_: int) -> None:
        nonlocal seen
        seen += 1

    task = asyncio.ensure_future(streams.iter([1]).cycle().for_each(see))
    for _ in range(20):
        await asyncio.sleep(0)
    assert seen > 0
    task.cancel()
    await asyncio.wait([task])


# peekable


async def test_peek_shows_what_the_next_pull_gives_as_often_as_asked() -> None:
    for source in (FALSY, Source(*FALSY)):
        stream = streams.iter(source).peekable()
        for item in FALSY:
            assert await stream.peek() is item
            assert await stream.peek("default") is item
            assert await anext(stream) is item
        assert await stream.peek("default") == "default"
        with pytest.raises(StopAsyncIteration):
            await stream.peek()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_what_was_peeked_at_goes_into_the_operators_that_follow() -> None:
    stream = streams.iter(Source(1, 2)).peekable()
    await stream.peek()
    assert await stream.map(str).collect() == ["1", "2"]
    with pytest.raises(RuntimeError, match="taken over"):
        await stream.peek()


async def test_an_error_is_raised_once_by_whoever_looks_first() -> None:
    stream = streams.iter(Source(1, error=OSError())).peekable()
    assert await anext(stream) == 1
    with pytest.raises(OSError):
        await stream.peek()
    assert await stream.peek("the end") == "the end"
    assert await anext(stream, "the end") == "the end"


async def test_what_was_peeked_at_goes_when_the_stream_is_closed() -> None:
    source = Source(1, 2)
    stream = streams.iter(source).peekable()
    await stream.peek()
    await stream.aclose()
    assert source.closed == 1
    assert await stream.peek("the end") == "the end"
    assert await anext(stream, "the end") == "the end"


async def test_a_peek_that_was_cancelled_has_taken_nothing() -> None:
    tx, rx = channel[int](1)
    stream = rx.into_stream().peekable()
    peek = asyncio.ensure_future(stream.peek())
    await asyncio.sleep(0)
    tx.send_nowait(1)
    peek.cancel()
    await asyncio.wait([peek])
    assert await anext(stream) == 1
    tx.close()
    assert await stream.peek("the end") == "the end"


# take_until


def test_take_until_ends_as_soon_as_it_may_also_in_the_middle_of_a_pull() -> None:
    async def main() -> None:
        source = Source(*range(10), pace=1)
        assert await everything(streams.iter(source).take_until(sleep(3.5))) == [0, 1, 2]
        assert time() == pytest.approx(3.5)
        assert source.closed == 1

    virtually(main)


def test_take_until_takes_whatever_can_be_waited_for() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        tx, rx = channel[int](1)
        token = CancellationToken()
        future = loop.create_future()
        event = asyncio.Event()

        class Awaitable_:
            def __await__(self) -> Any:
                return event.wait().__await__()

        loop.call_later(2.5, token.cancel)
        loop.call_later(2.5, tx.send_nowait, 1)
        loop.call_later(2.5, future.set_result, None)
        loop.call_later(2.5, event.set)
        stops: list[Any] = [
            token, rx, future, event.wait(), Awaitable_(), asyncio.ensure_future(event.wait()), spawn(event.wait())
        ]  # fmt: skip
        taken = await asyncio.gather(
            *(streams.iter(Source(*range(9), pace=1)).take_until(stop).collect() for stop in stops)
        )
        tx.close()
        rx.close()
        assert taken == [[0, 1]] * len(stops)
        assert time() == pytest.approx(2.5)

    virtually(main)


async def test_take_until_of_what_is_ready_already_pulls_nothing() -> None:
    async def at_once() -> None: ...

    token = CancellationToken()
    token.cancel()
    future = asyncio.get_running_loop().create_future()
    future.set_result(None)
    for stop in (token, future, at_once()):
        source = Source(1)
        stream = streams.iter(source).take_until(stop)
        for _ in range(3):
            assert await anext(stream, "the end") == "the end"
        assert source.log == ["closed"]


async def test_between_two_items_that_are_ready_the_end_is_seen_at_once() -> None:
    token, future = CancellationToken(), asyncio.get_running_loop().create_future()
    for stop, end in ((token, token.cancel), (future, lambda: future.set_result(None))):
        stream = streams.repeat(1).take_until(stop)
        assert [await anext(stream), await anext(stream)] == [1, 1]
        end()
        assert await anext(stream, "the end") == "the end"


async def test_a_source_that_ends_first_leaves_the_end_alone_and_cancels_its_own_coroutine() -> None:
    ended: list[str] = []

    async def stop() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await yield_now()
            ended.append("stopped")

    task = asyncio.create_task(stop())
    future = asyncio.get_running_loop().create_future()
    tx, rx = channel[int](1)
    for given in (task, future, rx, CancellationToken()):
        assert await streams.iter(Source(1, 2)).take_until(given).collect() == [1, 2]
    assert not task.done() and not future.done()
    with tx, rx:
        tx.send_nowait(7)
        assert await rx.recv() == 7
    task.cancel()
    await asyncio.wait([task])
    ended.clear()
    assert await streams.iter(Source(1, 2)).take_until(stop()).collect() == [1, 2]
    assert ended == ["stopped"]


async def test_what_is_not_needed_any_more_goes_back_to_where_it_came_from() -> None:
    stops, stop = channel[str](1)
    tx, rx = channel[int](1)
    stream = rx.into_stream().take_until(stop)
    pull = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    tx.send_nowait(1)
    stops.send_nowait("stop")  # in the same turn, a moment later
    await asyncio.wait([pull])
    if pull.exception() is None:
        assert pull.result() == 1
        assert len(stop) == 1  # it ends the next pull
    else:
        assert len(rx) == 1
    assert [item async for item in stream] == []
    for end in (tx, stops, stop):
        end.close()


async def test_an_error_of_the_end_is_raised_in_its_place_once() -> None:
    error = OSError()

    async def fail() -> None:
        await yield_now()
        raise error

    for stop in (fail(), asyncio.ensure_future(fail()), spawn(fail())):
        stream = streams.pending().take_until(stop)
        with pytest.raises(OSError) as raised:
            await anext(stream)
        assert raised.value is error
        assert await anext(stream, "the end") == "the end"
    task = asyncio.ensure_future(fail())
    task.cancel()
    with pytest.raises(JoinError):
        await streams.pending().take_until(task).collect()


async def test_an_end_that_raises_the_end_of_an_iteration_does_not_end_the_stream_silently() -> None:
    async def fail() -> None:
        raise StopAsyncIteration

    with pytest.raises(RuntimeError, match="StopAsyncIteration"):
        await streams.pending().take_until(fail()).collect()


def test_a_coroutine_does_not_run_before_the_first_item_is_asked_for_and_is_closed_with_the_stream() -> None:
    ran: list[bool] = []

    async def stop() -> None:
        ran.append(True)

    coroutine = stop()
    stream = streams.iter([1]).take_until(coroutine)
    assert repr(stream) == "<Stream list.take_until(stop)>"
    asyncio.run(stream.aclose())
    assert not ran
    with pytest.raises(RuntimeError, match="cannot reuse"):
        coroutine.send(None)


async def test_what_cannot_end_a_stream_is_refused_and_the_stream_stays_usable() -> None:
    async def stop() -> None: ...

    begun = stop()
    begun.close()
    stream = streams.iter([1])
    with pytest.raises(TypeError, match="stop"):
        stream.take_until(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="stop"):
        stream.take_until(CancellationToken)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"something to wait for, .*: pass .* event\.wait\(\)"):
        stream.take_until(asyncio.Event())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="stop"):
        stream.take_until(begun)
    owner = stream.map(str)
    refused = stop()
    with pytest.raises(RuntimeError, match="taken over"):
        stream.take_until(refused)
    with pytest.raises(RuntimeError, match="cannot reuse"):
        refused.send(None)
    assert await owner.collect() == ["1"]


async def test_a_token_may_be_cancelled_in_another_thread() -> None:
    token = CancellationToken()
    stream = streams.pending().take_until(token)
    pull = asyncio.ensure_future(anext(stream, "the end"))
    await asyncio.sleep(0)
    await spawn_blocking(token.cancel)
    assert await pull == "the end"


async def test_the_pulls_of_take_until_leave_nothing_behind_in_a_long_lived_token() -> None:
    token = CancellationToken()
    stream = streams.iter(range(100)).take_until(token)
    assert await anext(stream) == 0
    assert not token._waiters
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del stream
        gc.collect()


async def test_what_take_until_waited_for_may_fail_as_the_stream_is_dropped_and_is_reported() -> None:
    reports: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report.get("exception")))
    failure = LookupError()

    async def fail_soon() -> None:
        await asyncio.sleep(0)
        raise failure

    async def drop() -> None:
        items = streams.iter(range(9)).take_until(fail_soon())
        await anext(items)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        await drop()
    for _ in range(2):
        await asyncio.sleep(0)
        gc.collect()
    assert reports == [failure]


async def test_take_until_leaves_the_task_as_it_was() -> None:
    task = asyncio.current_task()
    assert task is not None
    token = CancellationToken()
    async for _ in streams.iter(Source(*range(9))).take_until(token):
        token.cancel()
    await asyncio.sleep(0)
    assert task.cancelling() == 0


# ready_chunks


async def test_ready_chunks_waits_for_the_first_item_only() -> None:
    tx, rx = channel[Any](10)
    async with rx.into_stream().ready_chunks(3) as stream:
        await tx.send_many(FALSY)
        assert await anext(stream) == FALSY[:3]
        assert await anext(stream) == FALSY[3:]
        pull = asyncio.ensure_future(anext(stream))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not pull.done()
        tx.send_nowait(1)
        assert await pull == [1]
        tx.close()
        assert await anext(stream, "the end") == "the end"
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_source_that_never_waits_fills_every_chunk() -> None:
    assert await streams.iter(range(1000)).ready_chunks(300).map(len).collect() == [300, 300, 300, 100]
    assert await streams.empty().ready_chunks(3).collect() == []


def test_ready_chunks_never_pulls_more_than_the_limit_ahead() -> None:
    async def main() -> None:
        source = Source(*range(20), pace=1)
        async with streams.iter(source).ready_chunks(4) as stream:
            assert await anext(stream) == [0]
            await sleep(100)
            assert await anext(stream) == [1, 2, 3, 4]
            assert len(source.items) == 15

    virtually(main)


@pytest.mark.parametrize("ready", [True, False], ids=["list", "source"])
async def test_what_came_before_an_error_is_given_before_it(ready: bool) -> None:
    error = OSError()

    def fail(number: int) -> int:
        if number == 3:
            raise error
        return number

    stream = streams.iter(range(9) if ready else Source(*range(9))).map(fail).ready_chunks(2)
    given: list[int] = []
    with pytest.raises(OSError) as raised:
        async for chunk in stream:
            given += chunk
    assert given == [0, 1, 2]
    assert raised.value is error
    assert await anext(stream, "the end") == "the end"


async def test_ready_chunks_loses_nothing_when_it_is_cancelled_again_and_again() -> None:
    stream = streams.iter(Source(*range(30))).ready_chunks(3)
    given: list[int] = []
    turns = 0
    while True:
        pull: Awaitable[Any] = asyncio.ensure_future(anext(stream))
        for _ in range(turns % 4):
            await asyncio.sleep(0)
        turns += 1
        if turns % 3:
            pull.cancel()  # type: ignore[attr-defined]
        try:
            given += await pull
        except asyncio.CancelledError:
            continue
        except StopAsyncIteration:
            break
    assert given == [*range(30)]


async def test_a_limit_that_is_none_is_refused_and_the_stream_stays_usable() -> None:
    stream = streams.iter([1])
    for limit, kind in ((0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError), ("3", TypeError)):
        with pytest.raises(kind, match="limit"):
            stream.ready_chunks(limit)  # type: ignore[arg-type]
    assert await stream.collect() == [1]


def test_streams_show_how_they_were_written() -> None:
    made = {
        "list.chain(list, range.map(str))": streams.iter([]).chain([], streams.iter(range(3)).map(str)),
        "list.zip(list)": streams.iter([]).zip([]),
        "list.zip(str, strict=True)": streams.iter([]).zip("", strict=True),
        "list.cycle().take(3)": streams.iter([]).cycle().take(3),
        "list.peekable()": streams.iter([]).peekable(),
        "list.take_until(CancellationToken)": streams.iter([]).take_until(CancellationToken()),
        "list.ready_chunks(3)": streams.iter([]).ready_chunks(3),
        "pending.ready_chunks(3)": streams.pending().ready_chunks(3),
    }
    assert {repr(stream) for stream in made.values()} == {f"<Stream {shown}>" for shown in made}
