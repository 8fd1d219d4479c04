"""Awaitables, several at a time: the limit, the order, errors, cancelling, closing."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yamanote import streams
from yamanote.runtime import run, spawn
from yamanote.streams import _buffered
from yamanote.time import VirtualClock, sleep

Buffer = Callable[[streams.Stream[Any], int], streams.Stream[Any]]
buffers: dict[str, Buffer] = {
    "buffered": lambda s, n: s.buffered(n),
    "buffered_unordered": lambda s, n: s.buffered_unordered(n),
}
both = pytest.mark.parametrize("buffer", buffers.values(), ids=buffers)


async def turn(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


class Work:
    """Coroutines that end when they are told to, and what has become of them."""

    def __init__(self) -> None:
        self.pulled: list[int] = []
        self.running: set[int] = set()
        self.most = 0
        self.cancelled: set[int] = set()
        self.gates: dict[int, asyncio.Event] = {}

    async def __call__(self, number: int) -> int:
        self.running.add(number)
        self.most = max(self.most, len(self.running))
        try:
            await self.gates[number].wait()
            return number
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            self.cancelled.add(number)
            raise
        finally:
            self.running.discard(number)

    def source(self, length: int, *, is_async: bool) -> Any:
        self.gates = {number: asyncio.Event() for number in range(length)}

        def calls() -> Iterator[Any]:
            for number in range(length):
                self.pulled.append(number)
                yield self(number)

        async def async_calls() -> AsyncIterator[Any]:
            for call in calls():
                yield call

        return streams.iter(async_calls() if is_async else calls())

    def open(self, *numbers: int) -> None:
        for number in numbers:
            self.gates[number].set()


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


@both
@pytest.mark.parametrize("is_async", [False, True])
async def test_at_most_limit_run_and_the_source_is_pulled_only_when_there_is_room(
    buffer: Buffer, is_async: bool
) -> None:
    work = Work()
    async with buffer(work.source(10, is_async=is_async), 3) as stream:
        assert work.pulled == []
        pull = asyncio.create_task(anext(stream))
        await turn(5)
        assert work.pulled == [0, 1, 2]
        assert work.running == {0, 1, 2}
        work.open(0)
        assert await pull == 0
        await turn(5)
        assert work.pulled == [0, 1, 2]  # nobody has asked for more
        pull = asyncio.create_task(anext(stream))
        await turn(5)
        assert work.running == {1, 2, 3}
        work.open(*range(10))
        assert await pull == 1
        assert sorted([item async for item in stream]) == [*range(2, 10)]
    assert work.most == 3


@both
@pytest.mark.parametrize("is_async", [False, True])
async def test_results_that_nobody_takes_hold_the_source_back(buffer: Buffer, is_async: bool) -> None:
    work = Work()
    async with buffer(work.source(10, is_async=is_async), 3) as stream:
        work.open(*range(10))
        assert await anext(stream) == 0
        await turn(20)
        assert len(work.pulled) <= 4
        assert await anext(stream) == 1
        await turn(20)
        assert len(work.pulled) <= 5


@pytest.mark.parametrize("is_async", [False, True])
async def test_buffered_keeps_the_order_of_the_source(is_async: bool) -> None:
    work = Work()
    async with work.source(4, is_async=is_async).buffered(4) as stream:
        pull = asyncio.create_task(anext(stream))
        await turn(5)
        work.open(3, 2, 1)
        await turn(5)
        assert not pull.done()
        work.open(0)
        assert [await pull, *[item async for item in stream]] == [0, 1, 2, 3]


@pytest.mark.parametrize("is_async", [False, True])
async def test_buffered_unordered_gives_what_is_ready_first(is_async: bool) -> None:
    work = Work()
    async with work.source(4, is_async=is_async).buffered_unordered(3) as stream:
        results = []
        for number in (2, 0, 3, 1):
            pull = asyncio.create_task(anext(stream))
            await turn(5)
            assert not pull.done()
            work.open(number)
            results.append(await pull)
        assert results == [2, 0, 3, 1]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


@both
@pytest.mark.parametrize("is_async", [False, True])
async def test_an_error_cancels_and_awaits_the_others_and_is_raised_once(buffer: Buffer, is_async: bool) -> None:
    work = Work()
    calls = work.source(10, is_async=is_async)

    async def guarded(call: Any) -> Any:
        if await call == 0:
            raise KeyError("zero")

    stream = buffer(calls.map(lambda call: guarded(call)), 3)
    pull = asyncio.create_task(anext(stream))
    await turn(5)
    work.open(0)
    with pytest.raises(KeyError, match="zero"):
        await pull
    assert work.cancelled == {1, 2}
    assert work.pulled == [0, 1, 2]
    assert not others()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@both
@pytest.mark.parametrize("is_async", [False, True])
async def test_an_error_of_the_source_comes_behind_the_results_before_it(buffer: Buffer, is_async: bool) -> None:
    async def later(number: int) -> int:
        await turn(10)
        return number

    def calls() -> Iterator[Any]:
        yield later(0)
        yield later(1)
        raise KeyError("source")

    async def async_calls() -> AsyncIterator[Any]:
        for call in calls():
            yield call

    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    stream = buffer(streams.iter(async_calls() if is_async else calls()), 5)
    assert await anext(stream) == 0
    assert await anext(stream) == 1
    with pytest.raises(KeyError, match="source"):
        await anext(stream)
    assert not reported
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert not others()


@both
@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration])
@pytest.mark.parametrize("limit", [1, 3])
async def test_an_end_that_an_item_raises_is_an_error(buffer: Buffer, error: type[Exception], limit: int) -> None:
    async def work(number: int) -> int:
        if number == 1:
            raise error
        return number

    stream = buffer(streams.iter(range(5)).map(work), limit)
    with pytest.raises(RuntimeError, match=error.__name__):
        async for _ in stream:
            pass


@both
async def test_an_item_that_was_cancelled_ends_the_stream_and_not_its_consumer(buffer: Buffer) -> None:
    async def work(number: int) -> int:
        if number == 1:
            raise asyncio.CancelledError
        return number

    task = asyncio.current_task()
    assert task is not None
    stream = buffer(streams.iter(range(3)).map(lambda n: work(n)), 1)
    assert await anext(stream) == 0
    with pytest.raises(asyncio.CancelledError):
        await anext(stream)
    assert task.cancelling() == 0
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@both
@pytest.mark.parametrize("is_async", [False, True])
async def test_items_that_cannot_be_awaited_are_named(buffer: Buffer, is_async: bool) -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 41

    stream: Any = streams.iter(numbers() if is_async else [41])
    with pytest.raises(TypeError, match=r"buffered.*41"):
        await buffer(stream, 2).collect()
    assert not others()


@both
async def test_futures_and_other_awaitables_are_awaited_too(buffer: Buffer) -> None:
    class Ready:
        def __await__(self) -> Any:
            yield from asyncio.sleep(0).__await__()
            return "ready"

    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    future.set_result("future")
    assert Counter(await buffer(streams.iter([future, Ready()]), 2).collect()) == Counter(["future", "ready"])


@both
@pytest.mark.parametrize("is_async", [False, True])
async def test_each_item_runs_in_a_task_of_its_own(buffer: Buffer, is_async: bool) -> None:
    tasks = []

    async def work(number: int) -> int:
        async with asyncio.timeout(1000):
            tasks.append(asyncio.current_task())
        return number

    async def numbers() -> AsyncIterator[int]:
        for number in range(5):
            yield number

    await buffer(streams.iter(numbers() if is_async else range(5)).map(work), 2).collect()
    assert len(set(tasks)) == 5
    assert asyncio.current_task() not in tasks


@both
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 5])
@pytest.mark.parametrize("patience", range(6))
async def test_cancelling_pulls_at_every_point_loses_nothing(
    buffer: Buffer, is_async: bool, limit: int, patience: int
) -> None:
    starts: Counter[int] = Counter()

    async def work(number: int) -> int:
        starts[number] += 1
        await turn(number % 4)
        return number

    sent = 0

    class Numbers:
        """A source that loses nothing when it is cancelled."""

        def __aiter__(self) -> Numbers:
            return self

        async def __anext__(self) -> int:
            nonlocal sent
            if sent == 12:
                raise StopAsyncIteration
            await asyncio.sleep(0)
            sent += 1
            return sent - 1

    results = []
    async with buffer(streams.iter(Numbers() if is_async else range(12)).map(work), limit) as stream:
        attempts = 0
        while True:
            attempts += 1
            pull = asyncio.create_task(anext(stream, None))
            # Sometimes before its first step, sometimes with the result on its way.
            await turn(patience if attempts % 3 else 50)
            pull.cancel()
            try:
                item = await pull
            except asyncio.CancelledError:
                continue
            if item is None:
                break
            results.append(item)
    assert sorted(results) == list(range(12))
    assert set(starts.values()) == {1}
    if buffer is buffers["buffered"]:
        assert results == list(range(12))
    assert not others()


@both
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("turns", range(8))
async def test_closing_while_a_pull_waits_leaves_no_task(buffer: Buffer, is_async: bool, turns: int) -> None:
    work = Work()
    stream = buffer(work.source(10, is_async=is_async), 3)
    pull = asyncio.create_task(anext(stream))
    await turn(turns)
    pull.cancel()
    await stream.aclose()
    with pytest.raises(asyncio.CancelledError):
        await pull
    assert not others()
    assert not work.running


@both
async def test_a_cancelled_close_waits_for_the_tasks_and_goes_on(buffer: Buffer) -> None:
    released = asyncio.Event()
    ended = []

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await released.wait()
            ended.append(True)

    stream = buffer(streams.iter([stubborn(), stubborn()]), 2)
    pull = asyncio.create_task(anext(stream))
    await turn(3)
    pull.cancel()
    await turn(3)
    close = asyncio.create_task(stream.aclose())
    await turn(3)
    close.cancel()
    await turn(3)
    assert not close.done()
    released.set()
    with pytest.raises(asyncio.CancelledError):
        await close
    assert ended == [True, True]
    await stream.aclose()
    assert not others()


@both
async def test_a_second_task_that_pulls_at_the_same_time_is_refused(buffer: Buffer) -> None:
    work = Work()
    async with buffer(work.source(3, is_async=False), 1) as stream:
        pull = asyncio.create_task(anext(stream))
        await turn(3)
        with pytest.raises(RuntimeError, match="another task"):
            await anext(stream)
        work.open(0)
        assert await pull == 0


@both
async def test_a_feeder_that_somebody_cancels_does_not_pass_for_the_end(buffer: Buffer) -> None:
    async def calls() -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield asyncio.sleep(0)

    pull = asyncio.create_task(anext(buffer(streams.iter(calls()), 2)))
    await turn(3)
    for task in others() - {pull}:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull


@both
async def test_what_never_waits_lets_the_loop_turn(buffer: Buffer) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def ready(number: int) -> int:
        return number

    counter = asyncio.create_task(count())
    await buffer(streams.iter(range(3000)).map(ready), 1000).collect()
    counter.cancel()
    assert turns >= 3000 // 128 - 1  # it was not there in the first one


@both
@pytest.mark.parametrize("how", ["pull", "drain"])
async def test_results_that_are_all_there_let_the_loop_turn(buffer: Buffer, how: str) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def later(number: int) -> int:
        await asyncio.sleep(0)
        return number

    stream = buffer(streams.iter(range(3000)).map(later), 3000)
    await anext(stream)
    counter = asyncio.create_task(count())
    if how == "drain":
        assert len(await stream.collect()) == 2999
    else:
        assert len([item async for item in stream]) == 2999
    counter.cancel()
    assert turns >= 3000 // 128 - 1


@both
async def test_memory_stays_flat(buffer: Buffer) -> None:
    async def ready(number: int) -> int:
        return number

    stream = buffer(streams.iter(range(10**9)).map(ready), 10)
    async with stream:
        for _ in range(1000):
            await anext(stream)
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(3000):
            await anext(stream)
        gc.collect()
        assert len(gc.get_objects()) - before < 100


@both
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("limit", [1, 3, 10])
def test_the_limit_is_reached_and_never_passed_however_long_each_takes(
    buffer: Buffer, is_async: bool, limit: int
) -> None:
    random = Random(limit)
    running: list[int] = []
    seen = []

    async def work(number: int) -> int:
        running.append(number)
        seen.append(len(running))
        await sleep(random.choice([0.1, 1, 5]))
        running.remove(number)
        return number

    async def numbers() -> AsyncIterator[int]:
        for number in range(60):
            await sleep(random.choice([0, 0.001]))
            yield number

    async def main() -> None:
        got = await buffer(streams.iter(numbers() if is_async else range(60)).map(work), limit).collect()
        assert sorted(got) == list(range(60))

    run(main(), clock=VirtualClock())
    assert max(seen) == limit


@both
@pytest.mark.parametrize("is_async", [False, True])
def test_a_slow_consumer_holds_the_source_back(buffer: Buffer, is_async: bool) -> None:
    work = Work()

    async def main() -> None:
        async with buffer(work.source(20, is_async=is_async), 4) as stream:
            work.open(*range(20))
            taken = 0
            async for _ in stream:
                taken += 1
                await sleep(1)
                assert len(work.pulled) <= taken + 4

    run(main(), clock=VirtualClock())


@both
async def test_a_future_that_is_not_awaited_any_more_goes_on(buffer: Buffer) -> None:
    async def work() -> None:
        await asyncio.Event().wait()

    task, other = asyncio.create_task(work()), spawn(work())
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    stream = buffer(streams.iter([task, other, future]), 3)
    pull = asyncio.create_task(anext(stream))
    await turn(3)
    pull.cancel()
    await stream.aclose()
    assert not task.done() and not other.is_finished() and not future.cancelled()
    task.cancel()
    other.abort()
    await asyncio.wait([task])


@both
async def test_the_first_steps_of_all_items_see_their_own_context(buffer: Buffer) -> None:
    variable: ContextVar[int] = ContextVar("variable", default=-1)

    async def work(number: int) -> tuple[int, int]:
        before = variable.get()
        variable.set(number)
        await asyncio.sleep(0)
        return before, variable.get()

    got = await buffer(streams.iter(range(4)).map(work), 2).collect()
    assert sorted(got) == [(-1, number) for number in range(4)]
    assert variable.get() == -1


@both
async def test_an_error_of_the_source_that_nobody_gets_any_more_goes_to_the_handler(buffer: Buffer) -> None:
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    lost, first = KeyError("source"), KeyError("first")

    async def work() -> None:
        await turn(2)
        raise first

    async def calls() -> AsyncIterator[Any]:
        yield work()
        raise lost

    with pytest.raises(KeyError) as raised:
        await buffer(streams.iter(calls()), 3).collect()
    assert raised.value is first
    assert reported == [lost]


@both
async def test_a_source_that_takes_no_notice_of_its_cancellation_is_closed_all_the_same(buffer: Buffer) -> None:
    calls: list[Any] = []

    class Deaf:
        closed = False

        def __aiter__(self) -> Deaf:
            return self

        async def __anext__(self) -> Any:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass
            calls.append(asyncio.sleep(0))
            return calls[-1]

        async def aclose(self) -> None:
            self.closed = True

    source = Deaf()
    stream = buffer(streams.iter(source), 2)
    pull = asyncio.create_task(anext(stream, "end"))
    await turn(3)
    await asyncio.wait_for(stream.aclose(), 5)
    assert source.closed
    assert await pull == "end"
    assert not others()
    assert [inspect.getcoroutinestate(call) for call in calls] == [inspect.CORO_CLOSED]


@both
@pytest.mark.parametrize("turns", [0, 1])
async def test_an_item_cannot_close_the_stream_that_runs_it(buffer: Buffer, turns: int) -> None:
    async def close() -> None:
        await turn(turns)
        await stream.aclose()

    stream = buffer(streams.iter([close()]), 2)
    with pytest.raises(RuntimeError, match="cannot close it"):
        await stream.collect()
    assert not others()


@both
async def test_a_task_that_is_cancelled_before_it_begins_ends_the_stream(
    buffer: Buffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start_later(coroutine: Any, loop: Any = None, eager: bool = False) -> Any:
        return asyncio.Task(coroutine, loop=asyncio.get_running_loop())

    async def calls() -> AsyncIterator[Any]:
        yield asyncio.sleep(0)

    # As on a loop that cannot start tasks at once.
    monkeypatch.setattr(_buffered, "make_task", start_later)
    monkeypatch.setattr(_buffered, "start_task", start_later)
    for source in ([asyncio.sleep(0)], calls()):
        stream = buffer(streams.iter(source), 2)
        pull = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        for task in others() - {pull}:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(pull, 5)
    assert await buffer(streams.iter([0] * 5).map(asyncio.sleep), 2).take(3).collect() == [None] * 3


@both
@pytest.mark.parametrize("turns", [0, 1])
async def test_a_call_that_pulls_the_stream_that_made_it_is_an_error(buffer: Buffer, turns: int) -> None:
    async def pulls(number: int) -> int:
        await turn(turns)
        return await anext(stream)

    async with buffer(streams.iter([1, 2, 3]).map(pulls), 2) as stream:
        with pytest.raises(RuntimeError, match="being pulled by another task already"):
            await anext(stream)
    gc.collect()  # the error of another call, which came too late to be raised
    assert not others()


@both
async def test_what_runs_is_cancelled_when_the_stream_is_dropped(buffer: Buffer) -> None:
    work = Work()
    stream = buffer(work.source(9, is_async=False), 3)
    pull = asyncio.create_task(anext(stream))
    await turn(3)
    pull.cancel()
    await turn(1)
    with pytest.warns(ResourceWarning, match="3 tasks"):
        del stream, pull
        gc.collect()
    await turn(5)
    assert work.cancelled == {0, 1, 2}
    assert not others()


async def test_map_with_concurrency_is_buffered() -> None:
    work = Work()
    work.source(3, is_async=False)
    async with streams.iter(range(3)).map(work, concurrency=3, ordered=False) as stream:
        work.open(2)
        assert await anext(stream) == 2
        work.open(0, 1)
        assert await stream.collect() == [0, 1]
    assert await streams.iter(range(3)).map(work, concurrency=2).collect() == [0, 1, 2]


async def test_a_call_that_waits_to_be_repeated_is_not_buffered() -> None:
    stream = streams.iter([1]).map(lambda n: n).map(asyncio.sleep)
    pull = asyncio.create_task(anext(stream))
    await turn(2)
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull
    with pytest.raises(RuntimeError, match="before the first item"):
        stream.buffered(2)
    await stream.aclose()


@given(
    delays=st.lists(st.integers(0, 5), max_size=20),
    limit=st.integers(1, 6),
    is_async=st.booleans(),
    fails_at=st.one_of(st.none(), st.integers(0, 20)),
    ordered=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_results_are_those_of_a_plain_loop(
    delays: list[int], limit: int, is_async: bool, fails_at: int | None, ordered: bool
) -> None:
    running = most = 0

    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await turn(delays[number])
            if number == fails_at:
                raise KeyError(number)
            return number
        finally:
            running -= 1

    async def numbers() -> AsyncIterator[int]:
        for number in range(len(delays)):
            await asyncio.sleep(0)
            yield number

    async def main() -> None:
        source: Any = numbers() if is_async else range(len(delays))
        results = []
        try:
            async for item in streams.iter(source).map(work, concurrency=limit, ordered=ordered):
                results.append(item)
        except KeyError as error:
            assert error.args == (fails_at,)
            if ordered:
                assert results == list(range(fails_at or 0))
        else:
            assert fails_at is None or fails_at >= len(delays)
            assert (results if ordered else sorted(results)) == list(range(len(delays)))
        assert not others()
        assert running == 0
        assert most <= limit

    asyncio.run(main())


@pytest.mark.parametrize("ordered", [True, False])
def test_a_stream_that_has_begun_on_one_loop_is_refused_on_another_and_goes_on(ordered: bool) -> None:
    async def later(number: int) -> int:
        await asyncio.sleep(0)
        return number

    async def pull() -> int:
        return await anext(stream)

    stream = streams.iter(range(10)).map(later, concurrency=3, ordered=ordered)
    with asyncio.Runner() as home, asyncio.Runner() as other:
        first = home.run(pull())
        with pytest.raises(RuntimeError, match="another event loop"):
            other.run(pull())
        assert sorted([first, *home.run(stream.collect())]) == list(range(10))
