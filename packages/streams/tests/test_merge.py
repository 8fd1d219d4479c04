"""Several sources at a time: `merge` and `select`."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import pytest

from yamanote import streams
from yamanote.channels import channel
from yamanote.runtime import BUDGET, run, yield_now
from yamanote.time import VirtualClock, sleep, time


def virtually(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `main` in virtual time. No task may be left."""

    async def checked() -> None:
        await main()
        assert not others()

    run(checked(), clock=VirtualClock())


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


class Source:
    """Gives `items`, each after so many seconds, and takes its time to close."""

    def __init__(self, *items: Any, every: float = 0, error: BaseException | None = None) -> None:
        self.items = [*items]
        self.every = every
        self.error = error
        self.given = 0
        self.closed = 0

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            for item in self.items:
                if self.every:
                    await sleep(self.every)
                self.given += 1
                yield item
            if self.error is not None:
                raise self.error
        finally:
            await yield_now()
            self.closed += 1


async def turn(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


def test_items_come_when_they_are_there_in_the_order_of_their_sources() -> None:
    async def main() -> None:
        stream = streams.merge(Source(1, 2, 3, every=2), Source("a", "b", every=5))
        assert [(item, round(time())) async for item in stream] == [(1, 2), (2, 4), ("a", 5), (3, 6), ("b", 10)]

    virtually(main)


@pytest.mark.parametrize("kind", [list, lambda items: Source(*items)], ids=["plain", "async"])
def test_sources_that_are_ready_take_turns(kind: Callable[[list[Any]], Any]) -> None:
    async def main() -> None:
        got = await streams.merge(kind([0] * 500), kind([1] * 500), kind([2] * 500)).collect()
        for end in range(0, 1400, 7):
            counts = [got[:end].count(number) for number in range(3)]
            assert max(counts) - min(counts) <= BUDGET  # each of them lets the loop turn now and then

    virtually(main)


async def test_a_source_that_is_always_ready_starves_nobody() -> None:
    async def yields() -> AsyncIterator[str]:
        for _ in range(3):
            await asyncio.sleep(0)
            yield "yields"

    async with streams.merge(streams.repeat("ready"), yields()) as stream:
        seen = [await anext(stream) for _ in range(2000)]
    assert seen.count("yields") == 3
    assert not others()


async def test_the_loop_turns_although_every_source_is_ready() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    await streams.merge(range(1000), Source(*range(1000))).collect()
    assert turns >= 10
    counting.cancel()


async def test_what_is_ready_is_pulled_only_when_it_is_asked_for_and_costs_no_turn_of_the_loop() -> None:
    sources = [Source(*range(10)) for _ in range(3)]
    async with streams.merge(*sources) as stream:
        for count in range(1, 7):
            pull = anext(stream)
            with pytest.raises(StopIteration):
                pull.send(None)  # type: ignore[attr-defined]
            assert sum(source.given for source in sources) == count
    assert [source.closed for source in sources] == [1, 1, 1]


def test_a_source_that_takes_time_is_at_most_two_items_ahead() -> None:
    async def main() -> None:
        sources = [Source(*range(100), every=1), Source(*range(100), every=1)]
        taken = 0
        async with streams.merge(*sources) as stream:
            async for _ in stream:
                taken += 1
                assert sum(source.given for source in sources) <= taken + 4
                if taken == 20:
                    break
                await sleep(taken % 7)
                assert sum(source.given for source in sources) <= taken + 4

    virtually(main)


async def test_a_source_that_is_ready_after_a_wait_is_at_most_two_items_ahead() -> None:
    given = 0

    async def numbers() -> AsyncIterator[int]:
        nonlocal given
        for number in range(1000):
            if number % 100 == 0:
                await asyncio.sleep(0)
            given += 1
            yield number

    async with streams.merge(numbers()) as stream:
        for taken in range(1, 300):
            await anext(stream)
            assert given <= taken + 2
            await turn(3)
            assert given <= taken + 2


def test_nothing_is_pulled_before_the_first_item_is_asked_for() -> None:
    sources = [Source(1), Source(2)]
    stream = streams.select(a=sources[0], b=sources[1])  # no loop runs
    assert repr(stream) == "<Stream select(a=Source, b=Source)>"

    async def main() -> None:
        await turn(3)
        assert not others()
        await stream.aclose()
        assert [source.given for source in sources] == [0, 0]

    virtually(main)


async def test_a_merge_of_nothing_is_empty() -> None:
    assert await streams.merge().collect() == []
    assert await streams.select().collect() == []


async def test_a_merge_of_what_never_waits_needs_no_task() -> None:
    stream = streams.iter([1, 2]).merge("ab", (x for x in range(2)))
    assert await anext(stream) == 1
    assert not others()
    assert [item async for item in stream] == ["a", 0, 2, "b", 1]


def test_select_gives_the_names_and_ends_when_all_have_ended() -> None:
    async def main() -> None:
        stream = streams.select(late=Source(1, 2, every=2), early=Source("x", every=1), none=[])
        assert await stream.collect() == [("early", "x"), ("late", 1), ("late", 2)]

    virtually(main)


@pytest.mark.parametrize("make", [streams.merge, lambda *s: streams.select(a=s[0], b=s[1])], ids=["merge", "select"])
def test_an_error_comes_behind_the_items_of_its_source_and_the_others_are_closed_before_it_is_raised(
    make: Callable[..., streams.Stream[Any]],
) -> None:
    async def main() -> None:
        failing, other = Source(1, 2, every=1, error=OSError("away")), Source(*range(9), every=10)
        stream = make(failing, other)
        assert [await anext(stream), await anext(stream)] in ([1, 2], [("a", 1), ("a", 2)])
        with pytest.raises(OSError, match="away") as raised:
            await anext(stream)
        assert raised.value is failing.error
        assert other.closed == failing.closed == 1 and not others()
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(stream)

    virtually(main)


async def test_the_error_of_a_select_tells_the_name_of_its_source() -> None:
    with pytest.raises(OSError) as raised:
        await streams.select(good=[1], bad=Source(error=OSError())).collect()
    assert raised.value.__notes__ == ["raised by the source 'bad' of a select"]


async def test_exceptions_and_nothing_are_ordinary_items() -> None:
    items = [None, 0, "", ValueError(), StopIteration(), asyncio.CancelledError()]
    assert await streams.merge(Source(*items)).collect() == items
    assert await streams.merge(items).collect() == items


async def test_a_source_whose_task_is_cancelled_by_somebody_else_has_not_ended() -> None:
    tasks: list[Any] = []

    async def numbers() -> AsyncIterator[int]:
        tasks.append(asyncio.current_task())
        yield 1
        await asyncio.Event().wait()

    stream = streams.merge(numbers(), [2])
    assert [await anext(stream), await anext(stream)] == [1, 2]
    pull = asyncio.create_task(anext(stream, None))
    await turn(5)
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


def test_a_pull_that_is_cancelled_loses_nothing() -> None:
    async def main() -> None:
        async with streams.merge(Source(*range(5), every=1), Source(*range(5, 10), every=2)) as stream:
            seen = []
            while len(seen) < 10:
                try:
                    async with asyncio.timeout(0.7):
                        seen.append(await anext(stream))
                except TimeoutError:
                    pass
            assert [item for item in seen if item < 5] == [0, 1, 2, 3, 4]
            assert [item for item in seen if item >= 5] == [5, 6, 7, 8, 9]

    virtually(main)


async def test_every_pull_and_the_closing_of_a_source_are_made_by_the_same_task_in_one_context() -> None:
    variable: ContextVar[int] = ContextVar("variable", default=0)
    seen: list[Any] = []

    async def numbers(waits: bool) -> AsyncIterator[int]:
        seen.append(asyncio.current_task())
        try:
            async with asyncio.timeout(60):
                for number in range(6):
                    if waits and number % 2:
                        await asyncio.sleep(0)
                    seen.append(asyncio.current_task())
                    assert variable.get() == number
                    variable.set(number + 1)
                    yield number
        finally:
            await asyncio.sleep(0)
            seen.append(asyncio.current_task())

    for waits in (False, True):
        for count in (3, 7):
            seen.clear()
            async with streams.merge(numbers(waits), ["more"]) as stream:
                for _ in range(count):
                    await anext(stream)
                    assert asyncio.current_task() not in seen
            assert len({*seen}) == 1
    assert variable.get() == 0
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_a_time_limit_within_a_source_cuts_that_source_alone() -> None:
    async def impatient() -> AsyncIterator[str]:
        try:
            async with asyncio.timeout(0.001):
                yield "begun"
                await asyncio.Event().wait()
        except TimeoutError:
            yield "timed out"

    assert await streams.merge(impatient(), [1]).collect() == ["begun", 1, "timed out"]


async def test_a_future_that_two_sources_wait_for_wakes_both() -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def wait() -> AsyncIterator[str]:
        yield await future

    asyncio.get_running_loop().call_later(0.001, future.set_result, "there")
    assert await streams.merge(wait(), wait(), wait()).collect() == ["there"] * 3


@pytest.mark.parametrize("turns", range(6))
async def test_a_pull_that_began_in_place_is_cancelled_where_it_waits(turns: int) -> None:
    ended: list[str] = []

    async def numbers(wait: Callable[[], Awaitable[Any]]) -> AsyncIterator[int]:
        try:
            await wait()
            yield 1
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            ended.append("cancelled")
            raise
        finally:
            await asyncio.sleep(0)
            ended.append("closed")

    stream = streams.merge(numbers(asyncio.Event().wait), numbers(lambda: asyncio.sleep(60)))
    pull = asyncio.create_task(anext(stream, None))
    await turn(turns)
    pull.cancel()
    await stream.aclose()
    await asyncio.wait([pull])
    assert ended == (["cancelled", "cancelled", "closed", "closed"] if turns else [])
    assert not others()


@pytest.mark.parametrize("turns", range(3))
async def test_what_a_source_waits_for_is_cancelled_with_it_from_the_first_step_on(turns: int) -> None:
    inner: list[asyncio.Task[None]] = []

    async def waits() -> AsyncIterator[int]:
        inner.append(asyncio.create_task(asyncio.sleep(60)))
        await inner[0]
        yield 1

    async with streams.merge(waits(), [1]) as stream:
        await anext(stream)
        await turn(turns)
    assert inner[0].cancelled()
    assert not others()


async def test_a_time_limit_that_is_over_at_once_cancels_what_it_limits() -> None:
    inner: list[asyncio.Task[None]] = []

    async def impatient() -> AsyncIterator[int]:
        try:
            async with asyncio.timeout(0):
                inner.append(asyncio.create_task(asyncio.sleep(60)))
                await inner[0]
        except TimeoutError:
            yield asyncio.current_task().cancelling()  # type: ignore[union-attr]

    assert await streams.merge(impatient()).collect() == [0]
    assert inner[0].cancelled()


async def test_a_source_that_closes_the_stream_while_it_is_pulled_in_place_ends_it() -> None:
    async def closes() -> AsyncIterator[int]:
        with pytest.raises(RuntimeError, match="already running"):
            await stream.aclose()
        await yield_now()
        yield 1

    stream = streams.merge(closes(), [2])
    async with asyncio.timeout(10):
        assert await stream.collect() == []
    assert not others()


async def test_an_error_that_was_raised_is_kept_by_nobody() -> None:
    class Failure(Exception):
        pass

    error = Failure()
    kept = weakref.ref(error)
    stream = streams.merge(Source(1, error=error), [2])
    del error
    with suppress(Failure):
        await stream.collect()
    await turn(1)  # the loop knows the task that has ended
    gc.collect()
    assert kept() is None
    assert await anext(stream, None) is None


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "async"])
async def test_an_interrupt_of_a_source_is_raised_at_once_and_leaves_nobody_waiting(plain: bool) -> None:
    class Interrupt(BaseException):
        """Like KeyboardInterrupt, which would end the loop."""

    def numbers() -> Iterator[int]:
        yield 1
        raise Interrupt

    async def asynchronous() -> AsyncIterator[int]:
        yield 1
        raise Interrupt

    async with streams.merge(numbers() if plain else asynchronous(), [2, 3]) as stream:
        assert [await anext(stream), await anext(stream)] == [1, 2]
        with pytest.raises(Interrupt):
            await anext(stream)
        async with asyncio.timeout(10):
            assert await stream.collect() == [3]


async def test_two_tasks_cannot_wait_at_the_same_time() -> None:
    sender, receiver = channel[int](1)
    async with sender, streams.merge(receiver) as stream:
        pull = asyncio.create_task(anext(stream))
        await turn(2)
        with pytest.raises(RuntimeError, match="another task"):
            await anext(stream)
        await sender.send(1)
        assert await pull == 1


async def test_closing_ends_the_wait_of_who_pulls_and_closes_every_source() -> None:
    sender, receiver = channel[int](1)
    async with sender:
        stream = streams.merge(receiver, Source(error=None, every=60), [])
        pull = asyncio.create_task(anext(stream, "the end"))
        await turn(3)
        await stream.aclose()
        await stream.aclose()
        assert receiver.is_closed
        assert await pull == "the end"
    assert not others()


async def test_who_closes_one_of_the_sources_means_the_whole() -> None:
    first, second = streams.iter(Source(1, 2)), streams.iter(Source(3, 4))
    stream = streams.merge(first, second)
    await anext(stream)
    with pytest.raises(RuntimeError, match="taken over"):
        await anext(second)
    await second.aclose()
    assert await anext(stream, None) is None
    assert not others()


async def test_a_source_that_fails_while_it_is_closed_early_is_reported_once() -> None:
    reports: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context.get("exception")))
    error = OSError("cannot be closed")

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            raise error

    async with streams.merge(numbers(), [2, 3]) as stream:
        for _ in range(3):
            await anext(stream)
        await turn(2)
    assert reports == [error]


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_of_two_errors_at_a_time_the_first_is_raised_and_the_other_one_reported_once(kind: str) -> None:
    reports: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context.get("exception")))
    errors = [OSError("first"), OSError("second")]

    async def fail(error: Exception) -> AsyncIterator[int]:
        await asyncio.sleep(0)
        raise error
        yield 0

    def fail_now(error: Exception) -> Iterator[int]:
        raise error
        yield 0

    stream = streams.merge(*map(fail if kind == "async" else fail_now, errors))
    with pytest.raises(OSError) as raised:
        await stream.collect()
    await stream.aclose()
    assert raised.value is errors[0]
    assert reports == ([errors[1]] if kind == "async" else [])  # the other plain one was not asked


async def test_dropping_it_warns_and_cancels_what_it_owns() -> None:
    source = Source(1, 2)
    stream = streams.merge(source, [3])
    assert await anext(stream) == 1
    with pytest.warns(ResourceWarning, match=r"merge\(Source, list\).* with 1 task"):
        del stream
        gc.collect()
    await turn(6)
    assert source.closed == 1 and not others()


async def test_dropping_it_before_it_has_begun_or_with_plain_sources_is_nothing() -> None:
    streams.merge(Source(1), [2])
    stream = streams.merge([1], [2])
    await anext(stream)
    del stream
    gc.collect()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda good: streams.merge(good, 5), r"sources\[1\]"),
        (lambda good: streams.select(a=good, b=5), "b must"),
        (lambda good: streams.iter([1]).merge(good, 5), r"others\[1\]"),
    ],
    ids=["merge", "select", "method"],
)
async def test_what_is_no_source_is_refused_by_name_and_the_others_stay_usable(
    make: Callable[[Any], Any], name: str
) -> None:
    good = streams.iter([1])
    with pytest.raises(TypeError, match=name):
        make(good)
    with pytest.raises(ValueError, match="among the sources already"):
        streams.merge(good, good)
    assert await good.collect() == [1]


async def test_merges_can_be_merged() -> None:
    inner = streams.merge(Source(1, 2, every=0), "ab")
    assert sorted(await streams.merge(inner, Source(3), [4]).map(str).collect()) == ["1", "2", "3", "4", "a", "b"]
    assert not others()


async def test_a_burst_of_a_channel_stays_in_the_channel() -> None:
    sender, receiver = channel[int](10)
    with sender, receiver.clone() as rest:
        await sender.send_many(range(10))
        async with streams.merge(receiver) as stream:
            assert [await anext(stream) for _ in range(3)] == [0, 1, 2]
        assert rest.recv_nowait() == 3
