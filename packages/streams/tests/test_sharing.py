"""One source for several consumers."""

from __future__ import annotations

import asyncio
import gc
import inspect
import tracemalloc
import warnings
import weakref
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from yamanote import streams
from yamanote.channels import Lagged, channel
from yamanote.futures import join
from yamanote.runtime import move_on_after, remaining, run, yield_now
from yamanote.streams import Stream
from yamanote.time import Schedule, sleep

from . import test_every_operator as operators
from .test_every_operator import FALSY, Source, everything, plain, virtually


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


def shared_stream(stream: Stream[Any], wrap: object) -> Stream[Any]:
    return stream.share(2).subscribe()


def one_of_one(stream: Stream[Any], wrap: object) -> Stream[Any]:
    return stream.broadcast(1, 1)[0]


def one_of_two(stream: Stream[Any], wrap: object) -> Stream[Any]:
    first, other = stream.broadcast(2, 1)
    del other  # which is to be as if it had been closed
    return first


LAWS = [
    law
    for name, law in inspect.getmembers(operators, inspect.isfunction)
    if name.startswith("test_") and "row" in inspect.signature(law).parameters and "a_function" not in name
]


laws = pytest.mark.parametrize("law", LAWS, ids=[law.__name__.removeprefix("test_") for law in LAWS])


def keep(law: Callable[..., None], apply: Callable[[Stream[Any], object], Stream[Any]]) -> None:
    """Check a law of every operator, for one that changes no item."""
    wanted = inspect.signature(law).parameters
    for items in (list(range(6)), FALSY, []):
        for pace in (0, 1.0):
            every = {"row": operators.Row(apply, lambda items: items), "wrap": plain, "items": items, "pace": pace}
            law(**{name: every[name] for name in wanted})
        if "items" not in wanted:
            break


@laws
@pytest.mark.parametrize("apply", [shared_stream, one_of_one, one_of_two])
def test_each_of_the_streams_keeps_the_laws_of_every_operator(law: Any, apply: Any) -> None:
    keep(law, apply)


# broadcast


def test_the_traceback_of_an_error_does_not_grow_with_every_subscriber() -> None:
    async def main() -> None:
        shared = streams.iter(Source([], error=OSError())).share(1)
        lengths = []
        for _ in range(3):
            with pytest.raises(OSError) as raised:
                await anext(shared.subscribe())
            lengths.append(len(raised.traceback))
        assert lengths[0] == lengths[1] == lengths[2]

    virtually(main)


def test_every_stream_gives_every_item_and_the_source_is_pulled_once() -> None:
    async def main() -> None:
        source = Source(FALSY)
        first, second, third = streams.iter(source).broadcast(3, 2)
        assert await join(first.collect(), second.collect(), third.map(lambda item: item).collect()) == [FALSY] * 3
        assert source.pulls == len(FALSY) + 1 and source.closed == 1

    virtually(main)


@pytest.mark.parametrize("capacity", [1, 2, 5])
def test_the_fastest_waits_when_the_slowest_is_capacity_items_behind(capacity: int) -> None:
    async def main() -> None:
        source = Source(list(range(20)), pace=0)
        fast, slow = streams.iter(source).broadcast(2, capacity)
        for number in range(capacity):
            assert await anext(fast) == number
        pull = asyncio.create_task(anext(fast))
        await sleep(100)
        assert not pull.done() and source.pulls == capacity
        assert await anext(slow) == 0
        assert await pull == capacity
        assert source.pulls == capacity + 1
        await fast.aclose()
        assert [await anext(slow) for _ in range(5)] == [1, 2, 3, 4, 5]
        await slow.aclose()
        assert source.closed == 1

    virtually(main)


def test_who_is_closed_frees_the_others_and_the_source_is_closed_with_the_last() -> None:
    async def main() -> None:
        source = Source(list(range(10)))
        fast, slow = streams.iter(source).broadcast(2, 1)
        assert await anext(fast) == 0
        pull = asyncio.create_task(anext(fast))
        await sleep(100)
        assert not pull.done()
        await slow.aclose()
        assert await pull == 1
        assert not source.closed
        await fast.aclose()
        assert source.closed == 1

    virtually(main)


def test_who_is_dropped_frees_the_others_and_says_so() -> None:
    async def main() -> None:
        source = Source(list(range(10)))
        fast, slow = streams.iter(source).broadcast(2, 1)
        assert await anext(fast) == 0
        pull = asyncio.create_task(anext(fast))
        await sleep(100)
        with pytest.warns(ResourceWarning, match=r"Source\.broadcast\(2, 1\)> was dropped with a subscription:"):
            del slow
        assert await pull == 1
        await fast.aclose()
        assert source.closed == 1

    virtually(main)


def test_when_the_last_is_dropped_the_source_is_closed() -> None:
    async def main() -> None:
        source = Source(list(range(10)))
        first, second = streams.iter(source).broadcast(2, 1)
        await anext(first)
        await second.aclose()
        with pytest.warns(ResourceWarning, match="1 task"):
            del first
        await sleep(1)
        assert source.closed == 1

    virtually(main)


def test_nothing_is_said_about_streams_that_were_never_asked_for_an_item() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = streams.iter([1]).broadcast(3, 1)
        shared = streams.iter([1]).share(1, replay=1)
        subscribed = shared.subscribe()
        del made, shared
        gc.collect()
        del subscribed
        gc.collect()


def test_an_error_comes_to_each_once_behind_all_items() -> None:
    async def main() -> None:
        error = OSError()
        source = Source([1, 2, 3], error=error)
        for stream in streams.iter(source).broadcast(2, 10):
            seen = []
            with pytest.raises(OSError) as raised:
                async for item in stream:
                    seen.append(item)
            assert raised.value is error and seen == [1, 2, 3]
            assert await everything(stream) == []
        assert source.closed == 1

    virtually(main)


def test_a_source_that_somebody_else_cancelled_has_not_ended() -> None:
    async def main() -> None:
        first, second = streams.iter(Source([1, 2])).broadcast(2, 1)
        await anext(first)
        for task in others():
            task.cancel()
        await yield_now()
        assert await anext(second) == 1
        for stream in (first, second):
            with pytest.raises(asyncio.CancelledError):
                await anext(stream)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)

    virtually(main)


def test_a_feeder_that_was_cancelled_before_its_first_step_leaves_nobody_waiting() -> None:
    async def main() -> None:
        source = Source([1])
        (stream,) = streams.iter(source).broadcast(1, 1)
        pull = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        for task in others() - {pull}:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pull
        assert source.closed == 1

    virtually(main)


def test_an_error_while_closing_with_the_last_goes_to_the_loop() -> None:
    class Stuck(Source):
        async def aclose(self) -> None:
            raise OSError("stuck")

    async def main() -> None:
        reported: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))
        (stream,) = streams.iter(Stuck([1, 2])).broadcast(1, 1)
        await anext(stream)
        await stream.aclose()
        assert [str(error) for error in reported] == ["stuck"]

    virtually(main)


def test_what_a_cancelled_source_raises_goes_to_the_loop() -> None:
    class Sulking(Source):
        async def __anext__(self) -> Any:
            try:
                return await super().__anext__()
            except asyncio.CancelledError:
                raise OSError("sulking") from None

    async def main() -> None:
        reported: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))
        (stream,) = streams.iter(Sulking([1, 2])).broadcast(1, 2)
        await anext(stream)
        await stream.aclose()
        assert [str(error) for error in reported] == ["sulking"]

    virtually(main)


def test_an_item_that_comes_when_the_last_has_just_been_dropped_is_no_error() -> None:
    async def main() -> None:
        reported: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
        sender, receiver = channel[int](1)
        (stream,) = streams.iter(receiver).broadcast(1, 2)
        sender.send_nowait(1)
        await anext(stream)
        await yield_now()
        sender.send_nowait(2)
        with pytest.warns(ResourceWarning, match="1 task"):
            del stream
        for _ in range(5):
            await yield_now()
        assert not reported and receiver.is_closed
        sender.close()

    virtually(main)


def test_each_is_for_one_task_at_a_time() -> None:
    async def main() -> None:
        first, second = streams.iter(Source([1, 2])).broadcast(2, 1)
        pulls = [asyncio.create_task(anext(first)) for _ in range(2)]
        await yield_now()
        with pytest.raises(RuntimeError, match="pulled by another task"):
            await pulls[1]
        assert [await pulls[0], await anext(second)] == [1, 1]
        await join(first.aclose(), second.aclose())

    virtually(main)


@pytest.mark.parametrize(("count", "capacity"), [(0, 1), (1, 0), (True, 1), (1, 2.0), ("2", 1)])
def test_wrong_counts_are_refused_and_the_stream_stays_usable(count: Any, capacity: Any) -> None:
    async def main() -> None:
        stream = streams.iter([1])
        with pytest.raises((TypeError, ValueError), match=r"count|capacity"):
            stream.broadcast(count, capacity)
        assert await stream.collect() == [1]

    virtually(main)


# share


def test_subscribers_get_what_comes_after_they_have_come() -> None:
    async def main() -> None:
        source = Source(list(range(6)))
        shared = streams.iter(source).share(10)
        first = shared.subscribe()
        assert source.pulls == 0
        assert [await anext(first), await anext(first)] == [0, 1]
        second = shared.subscribe()
        assert await join(everything(first), everything(second)) == [[2, 3, 4, 5]] * 2
        assert source.pulls == 7 and source.closed == 1
        assert await everything(shared.subscribe()) == []

    virtually(main)


def test_who_iterates_over_it_is_a_subscriber() -> None:
    async def main() -> None:
        async def total() -> int:
            return sum([number async for number in shared])

        async with streams.iter(Source([1, 2, 3])).share(1) as shared:
            assert await join(total(), total(), streams.iter(shared).map(str).collect()) == [6, 6, ["1", "2", "3"]]

    virtually(main)


@pytest.mark.parametrize("overflow", ["suspend", "lag", "drop_oldest"])
@pytest.mark.parametrize("replay", [1, 2, 3])
def test_late_subscribers_get_the_latest_items_first(overflow: Any, replay: int) -> None:
    async def main() -> None:
        shared = streams.iter(Source(list(range(6)))).share(3, replay=replay, overflow=overflow)
        first = shared.subscribe()
        assert [await anext(first) for _ in range(4)] == [0, 1, 2, 3]
        pull = asyncio.create_task(anext(first))
        await yield_now()
        second = shared.subscribe()  # while an item is under way
        if overflow == "suspend" or replay < 3:
            assert [await anext(second) for _ in range(replay)] == [0, 1, 2, 3][-replay:]
            assert await pull == 4
            assert await join(everything(first), everything(second)) == [[5], [4, 5]]
        else:
            await pull
            await join(first.aclose(), second.aclose())

    virtually(main)


def test_who_comes_with_a_whole_replay_while_an_item_is_under_way_gets_both() -> None:
    async def main() -> None:
        shared = streams.iter(Source(list(range(6)))).share(3, replay=3)
        first = shared.subscribe()
        assert [await anext(first) for _ in range(4)] == [0, 1, 2, 3]
        second = shared.subscribe()
        pull = asyncio.create_task(anext(first))
        await sleep(100)
        assert await pull == 4
        assert await join(everything(first), everything(second)) == [[5], [1, 2, 3, 4, 5]]

    virtually(main)


@pytest.mark.parametrize("error", [None, OSError()], ids=["end", "error"])
def test_who_comes_after_the_end_gets_the_replay_and_then_the_end_or_the_error(error: Exception | None) -> None:
    async def main() -> None:
        def caught(stream: Stream[Any]) -> Stream[Any]:
            return stream.catch(lambda raised: [raised])

        end = [] if error is None else [error]
        shared = streams.iter(Source([1, 2, 3], error=error)).share(5, replay=2)
        assert await caught(shared.subscribe()).collect() == [1, 2, 3, *end]
        for _ in range(2):
            assert await caught(shared.subscribe()).collect() == [2, 3, *end]
        await shared.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            shared.subscribe()

    virtually(main)


def test_when_the_last_leaves_the_source_is_closed_and_nobody_can_come_any_more() -> None:
    async def main() -> None:
        source = Source(list(range(9)))
        shared = streams.iter(source).share(1)
        first, second = shared.subscribe(), shared.subscribe()
        await join(anext(first), anext(second))
        await first.aclose()
        assert not source.closed
        third = shared.subscribe()
        await second.aclose()
        assert await anext(third) == 1
        await third.aclose()
        assert source.closed == 1
        with pytest.raises(RuntimeError, match=r"Source\.share\(1\).*its last subscriber has left"):
            shared.subscribe()
        await third.aclose()

    virtually(main)


def test_a_slow_subscriber_lags_and_others_do_not_wait_for_it() -> None:
    async def main() -> None:
        shared = streams.iter(Source(list(range(10)), pace=0)).share(3, overflow="lag")
        fast, slow = shared.subscribe(), shared.subscribe()
        assert await anext(slow) == 0
        assert await everything(fast) == list(range(10))
        with pytest.raises(Lagged) as lagged:
            await anext(slow)
        assert lagged.value.missed == 6
        assert await everything(slow) == []
        await shared.aclose()

    virtually(main)


def test_a_slow_subscriber_may_lose_its_oldest_items_without_a_word() -> None:
    async def main() -> None:
        shared = streams.iter(Source(list(range(10)), pace=0)).share(3, overflow="drop_oldest")
        fast, slow = shared.subscribe(), shared.subscribe()
        assert await anext(slow) == 0
        assert await everything(fast) == list(range(10))
        assert await everything(slow) == [7, 8, 9]

    virtually(main)


def test_who_has_lagged_can_subscribe_again() -> None:
    async def main() -> None:
        shared = streams.iter(Source(list(range(10)))).share(2, replay=2, overflow="lag")
        fast = shared.subscribe()
        slow = streams.iter(shared).retry(Schedule(0), on=Lagged)
        assert await anext(slow) == 0
        assert await everything(fast) == list(range(10))
        assert await everything(slow) == [8, 9]

    virtually(main)


def test_who_has_lagged_can_subscribe_again_as_long_as_somebody_has_stayed() -> None:
    async def main() -> None:
        for somebody in (True, False):
            shared = streams.iter(Source(list(range(10)))).share(2, overflow="lag")
            stays, fast = shared.subscribe(), shared.subscribe()
            slow = streams.iter(shared).retry(Schedule(0), on=Lagged)
            for _ in range(5):
                await anext(fast)
            await fast.aclose()
            if somebody:
                assert await everything(slow) == [5, 6, 7, 8, 9]
                await stays.aclose()
            else:
                await stays.aclose()
                with pytest.raises(RuntimeError, match="its last subscriber has left"):
                    await anext(slow)

    virtually(main)


def test_closing_the_shared_stream_ends_its_subscribers_behind_what_has_come() -> None:
    async def main() -> None:
        source = Source(list(range(9)))
        async with streams.iter(source).share(5) as shared:
            first, second = shared.subscribe(), shared.subscribe()
            await anext(first)
            pull = asyncio.create_task(anext(first))
            await yield_now()
        assert source.closed == 1 and not others() - {pull}
        with pytest.raises(StopAsyncIteration):
            await pull
        assert await everything(second) == [0]
        with pytest.raises(RuntimeError, match="closed"):
            shared.subscribe()

    virtually(main)


def test_a_shared_stream_outlives_the_object_while_there_are_subscribers() -> None:
    async def main() -> None:
        source = Source([1, 2, 3])
        shared = streams.iter(source).share(1)
        stream = shared.subscribe()
        await anext(stream)
        there = weakref.ref(shared)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del shared
            gc.collect()
        assert there() is None
        assert await everything(stream) == [2, 3]
        assert source.closed == 1

    virtually(main)


def test_a_shared_stream_that_is_dropped_with_a_source_that_had_begun_says_so() -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    async def main() -> None:
        stream = streams.iter(numbers())
        await anext(stream)
        shared = stream.share(1)
        del stream
        with pytest.warns(
            ResourceWarning, match=r"<SharedStream numbers\.share\(1\)> was dropped with numbers\(\) not"
        ):
            del shared

    virtually(main)


def test_a_shared_stream_that_is_dropped_stops_what_had_begun() -> None:
    async def main() -> None:
        source = Source(list(range(9)))
        stream = streams.iter(source).chunks_timeout(2, 10)
        await anext(stream)
        shared = stream.share(1)
        with pytest.warns(ResourceWarning, match="1 task"):
            del shared
        del stream
        await sleep(1)
        assert source.closed == 1

    virtually(main)


def test_who_began_with_the_stream_closes_all_that_has_become_of_it() -> None:
    async def main() -> None:
        source = Source([1, 2, 3])
        first = streams.iter(source)
        shared = first.share(1)
        assert repr(first) == "<Stream Source.share(1)>" and repr(shared) == "<SharedStream Source.share(1)>"
        with pytest.raises(RuntimeError, match=r"taken over by <Source\.share\(1\)>"):
            first.map(str)
        await anext(stream := shared.subscribe())
        await first.aclose()
        assert source.closed == 1
        assert await everything(stream) == []

    virtually(main)


def test_a_shared_stream_shows_what_was_written() -> None:
    assert repr(streams.iter([1]).share(2, replay=1)) == "<SharedStream list.share(2, replay=1)>"
    assert repr(streams.iter([1]).share(2, overflow="lag")) == "<SharedStream list.share(2, overflow='lag')>"
    both = streams.iter([1]).share(2, replay=1, overflow="drop_oldest").subscribe()
    assert repr(both) == "<Stream list.share(2, replay=1, overflow='drop_oldest')>"


def test_a_pull_that_is_cancelled_loses_nothing_for_anybody() -> None:
    async def main() -> None:
        sender, receiver = channel[int](10)
        shared = streams.iter(receiver).share(2)
        first, second = shared.subscribe(), shared.subscribe()
        seen: list[int] = []
        for number in range(6):
            for _ in range(2):
                with move_on_after(0.5):
                    await anext(first)
            sender.send_nowait(number)
            seen.append(await anext(first))
            assert await anext(second) == number
        assert seen == list(range(6))
        await join(first.aclose(), second.aclose())
        assert receiver.is_closed
        sender.close()

    virtually(main)


@pytest.mark.parametrize(
    "arguments",
    [{"capacity": 0}, {"capacity": True}, {"capacity": 2, "replay": 3}, {"capacity": 2, "replay": -1}],
    ids=["no capacity", "no number", "more replay", "less replay"],
)
def test_wrong_capacities_are_refused_and_the_stream_stays_usable(arguments: Any) -> None:
    async def main() -> None:
        stream = streams.iter([1])
        with pytest.raises((TypeError, ValueError), match=r"capacity|replay"):
            stream.share(**arguments)
        with pytest.raises(ValueError, match="overflow must be one of 'suspend', 'lag', 'drop_oldest', not 'error'"):
            stream.share(1, overflow="error")  # type: ignore[arg-type]
        assert await stream.collect() == [1]

    virtually(main)


def test_what_everybody_has_taken_is_kept_no_longer() -> None:
    async def main() -> int:
        async def last(stream: Stream[bytes]) -> bytes:
            async for item in stream:
                latest = item
            return latest

        first, second = streams.iter(bytes(1000) for _ in range(3000)).broadcast(2, 4)
        tracemalloc.start()
        try:
            await join(last(first), last(second))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert run(main()) < 300_000


def test_the_source_runs_in_the_context_of_who_shares_it_whoever_comes_first() -> None:
    async def main() -> None:
        user: ContextVar[str] = ContextVar("user")
        seen: list[tuple[str, float | None]] = []

        async def numbers() -> AsyncIterator[int]:
            seen.append((user.get(), remaining()))
            yield 1

        user.set("owner")
        shared = streams.iter(numbers()).share(1)
        user.set("subscriber")
        with move_on_after(1):
            assert await shared.subscribe().collect() == [1]
        assert seen == [("owner", None)]

    virtually(main)
