"""Streams that fail: what comes instead, and another attempt."""

from __future__ import annotations

import asyncio
import gc
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from yamanote import streams
from yamanote.runtime import move_on_after, run, yield_now
from yamanote.streams import Stream
from yamanote.time import Schedule, VirtualClock, sleep, time

from .test_every_operator import FALSY, Source, everything, plain, slow, virtually
from .test_feeder import without_collector
from .test_sharing import keep, laws

wraps = pytest.mark.parametrize("wrap", [plain, slow], ids=["plain", "async"])


class Feed:
    """Fails at each of `failures` attempts, after as many items as that attempt has a number; then gives `count`."""

    def __init__(self, failures: int, count: int = 3) -> None:
        self.failures = failures
        self.count = count
        self.attempts: list[float] = []
        self.open = 0

    def __aiter__(self) -> AsyncIterator[int]:
        return self.numbers()

    async def numbers(self) -> AsyncIterator[int]:
        assert not self.open, "begun anew before it was closed"
        self.open += 1
        self.attempts.append(time())
        attempt = len(self.attempts)
        try:
            await yield_now()
            for number in range(attempt - 1 if attempt <= self.failures else self.count):
                yield number
            if attempt <= self.failures:
                raise OSError(attempt)
        finally:
            await yield_now()
            self.open -= 1

    @property
    def delays(self) -> list[float]:
        return [round(later - earlier, 6) for earlier, later in zip(self.attempts, self.attempts[1:], strict=False)]


# catch


@wraps
def test_what_the_handler_gives_comes_in_place_of_the_error(wrap: Callable[..., Any]) -> None:
    async def main() -> None:
        error = OSError()
        for instead in (["a", None, 0], iter("ab"), streams.iter("ab").map(str.upper), Source([1, 2]), ""):
            seen: list[Exception] = []

            def handle(error: Exception, instead: Any = instead, seen: list[Exception] = seen) -> Any:
                seen.append(error)
                return instead

            wanted = {str: [], list: ["a", None, 0], Stream: ["A", "B"], Source: [1, 2]}.get(type(instead), ["a", "b"])
            source = Source(FALSY, error=error)
            assert await streams.iter(source).catch(wrap(handle)).collect() == [*FALSY, *wanted]
            assert seen == [error] and source.closed == 1

    virtually(main)


@wraps
def test_a_handler_that_gives_none_ends_the_stream_quietly(wrap: Callable[..., Any]) -> None:
    async def main() -> None:
        stream = streams.iter(Source([1], error=OSError())).catch(wrap(lambda error: None))
        assert await everything(stream) == [1]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    virtually(main)


def test_a_handler_may_be_a_generator_function_of_either_kind() -> None:
    def twice(error: Exception) -> Iterator[str]:
        yield from [str(error)] * 2

    async def thrice(error: Exception) -> AsyncIterator[str]:
        for _ in range(3):
            await yield_now()
            yield str(error)

    async def main() -> None:
        assert await streams.iter(Source([], error=OSError("x"))).catch(twice).collect() == ["x", "x"]
        assert await streams.iter(Source([], error=OSError("x"))).catch(thrice).collect() == ["x", "x", "x"]

    virtually(main)


def test_the_source_is_closed_before_the_handler_is_called() -> None:
    async def main() -> None:
        source = Source([1], error=OSError())
        closed: list[int] = []
        await streams.iter(source).chunks_timeout(2, 1).catch(lambda error: closed.append(source.closed)).collect()
        assert closed == [1]

    virtually(main)


@pytest.mark.parametrize(
    "on",
    [KeyError, (KeyError, IndexError), lambda error: not isinstance(error, OSError)],
    ids=["class", "tuple", "function"],
)
def test_only_errors_that_are_meant_are_caught_and_others_stay_as_they_are(on: Any) -> None:
    async def main() -> None:
        error = OSError()
        stream = streams.iter(Source([1], error=error)).catch(lambda error: [2], on=on)
        assert await anext(stream) == 1
        with pytest.raises(OSError) as raised:
            await anext(stream)
        assert raised.value is error
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert await streams.iter(Source([1], error=KeyError())).catch(lambda error: [2], on=on).collect() == [1, 2]

    virtually(main)


def test_errors_of_what_comes_instead_are_not_caught_again_but_by_the_next() -> None:
    async def main() -> None:
        first, second = OSError("first"), OSError("second")
        instead = Source([2], error=second)
        stream = streams.iter(Source([1], error=first)).catch(lambda error: instead)
        assert [await anext(stream), await anext(stream)] == [1, 2]
        with pytest.raises(OSError, match="second"):
            await anext(stream)
        assert instead.closed == 1
        twice = streams.iter(Source([1], error=first)).catch(lambda error: Source([2], error=second))
        assert await twice.catch(lambda error: [error]).collect() == [1, 2, second]

    virtually(main)


def test_errors_behind_it_are_not_its_business() -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await streams.iter([1, 0]).catch(lambda error: [7]).map(lambda n: 1 // n).collect()
        assert await streams.iter([1, 0]).map(lambda n: 1 // n).catch(lambda error: [7]).collect() == [1, 7]

    virtually(main)


@wraps
def test_what_the_handler_raises_is_raised_in_its_place(wrap: Callable[..., Any]) -> None:
    async def main() -> None:
        error = OSError()

        def again(error: Exception) -> list[int]:
            raise error

        def other(error: Exception) -> list[int]:
            raise LookupError from error

        with pytest.raises(OSError) as raised:
            await streams.iter(Source([1], error=error)).catch(wrap(again)).collect()
        assert raised.value is error
        with pytest.raises(LookupError) as renamed:
            await streams.iter(Source([1], error=error)).catch(wrap(other)).collect()
        assert renamed.value.__cause__ is error

    virtually(main)


@wraps
@pytest.mark.parametrize("answer", [5, object()], ids=["number", "object"])
def test_what_cannot_be_iterated_over_is_an_error_that_says_so(wrap: Callable[..., Any], answer: object) -> None:
    async def main() -> None:
        stream: Stream[Any] = streams.iter(Source([1], error=OSError())).catch(wrap(lambda error: answer))
        assert await anext(stream) == 1
        with pytest.raises(TypeError, match="what the handler returns must be something to iterate over"):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    virtually(main)


def test_a_cancellation_is_never_caught() -> None:
    async def cancelled(number: int) -> int:
        raise asyncio.CancelledError

    async def main() -> None:
        stream = streams.iter([1]).map(cancelled).buffered(1).catch(lambda error: [error])
        with pytest.raises(asyncio.CancelledError):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    virtually(main)


def test_a_handler_that_was_cancelled_is_called_again_with_the_same_error() -> None:
    async def main() -> None:
        seen: list[Exception] = []

        async def handle(error: Exception) -> list[Exception]:
            seen.append(error)
            await sleep(10)
            return [error]

        stream = streams.iter(Source([], error=OSError())).catch(handle)
        for _ in range(3):
            with move_on_after(5):
                await anext(stream)
        item = await anext(stream)
        assert seen == [item] * 4
        await stream.aclose()

    virtually(main)


def test_a_second_task_is_refused_and_that_is_no_failure_of_the_source() -> None:
    async def main() -> None:
        seen: list[Exception] = []
        stream = streams.iter(Source([1, 2])).catch(seen.append)
        pulls = [asyncio.create_task(anext(stream)) for _ in range(2)]
        await asyncio.wait(pulls)
        with pytest.raises(RuntimeError, match="pulled by another task"):
            await pulls[1]
        assert [await pulls[0], await anext(stream)] == [1, 2] and not seen
        await stream.aclose()

    virtually(main)


def test_closing_while_the_handler_runs_closes_what_it_gives() -> None:
    async def main() -> None:
        instead = Source([1, 2])

        async def handle(error: Exception) -> Source:
            try:
                await sleep(10)
            except asyncio.CancelledError:
                await sleep(1)
            return instead

        stream = streams.iter(Source([], error=OSError())).catch(handle)
        pull = asyncio.create_task(anext(stream))
        await sleep(5)
        await stream.aclose()
        assert (instead.pulls, instead.closed) == (0, 1)
        with pytest.raises(StopAsyncIteration):
            await pull
        assert time() == 6  # the handler was asked to end, and waited for

    virtually(main)


def test_who_closes_waits_until_the_handler_has_ended() -> None:
    async def main() -> None:
        ended: list[float] = []

        async def handle(error: Exception) -> None:
            try:
                await sleep(1000)
            finally:
                await sleep(1)
                ended.append(time())

        stream = streams.iter(Source([], error=OSError())).catch(handle)
        pull = asyncio.create_task(anext(stream))
        await sleep(5)
        await asyncio.gather(stream.aclose(), stream.aclose())
        assert ended == [6]
        with pytest.raises(StopAsyncIteration):
            await pull
        assert not pull.cancelling()

    virtually(main)


def test_a_handler_may_close_its_own_stream() -> None:
    async def main() -> None:
        async def handle(error: Exception) -> list[int]:
            await stream.aclose()
            return [1]

        source = Source([], error=OSError())
        stream: Stream[Any] = streams.iter(source).catch(handle)
        assert await everything(stream) == []
        assert source.closed == 1

    virtually(main)


async def slow_handler(error: Exception) -> None:
    await sleep(1000)


@pytest.mark.parametrize("first", ["cancel", "close"])
@pytest.mark.parametrize(
    "recovering",
    [lambda stream: stream.catch(slow_handler), lambda stream: stream.retry(Schedule.fixed(1000))],
    ids=["catch", "retry"],
)
def test_somebody_elses_cancellation_on_the_way_to_another_source_goes_on(recovering: Any, first: str) -> None:
    async def main() -> None:
        stream = recovering(streams.iter(Feed(failures=5)))
        pull = asyncio.create_task(anext(stream))
        await sleep(5)
        if first == "cancel":
            pull.cancel()
        closer = asyncio.ensure_future(stream.aclose())
        if first == "close":
            await yield_now()
            pull.cancel()
        await closer
        await asyncio.wait([pull])
        assert pull.cancelled()

    virtually(main)


def test_a_coroutine_from_a_plain_handler_is_refused_and_closed() -> None:
    async def main() -> None:
        async def answer() -> list[int]:
            return [1]

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(TypeError, match=r"what the handler returns must be .*: pass the async function itself"):
                await streams.iter(Source([], error=OSError())).catch(lambda error: answer()).collect()
            gc.collect()

    virtually(main)


@pytest.mark.parametrize("on", [BaseException, asyncio.CancelledError, "OSError", (OSError, None), slow(bool)])
def test_a_condition_that_is_none_is_refused_and_the_stream_stays_usable(on: Any) -> None:
    async def main() -> None:
        stream = streams.iter([1])
        with pytest.raises(TypeError, match="on must be"):
            stream.catch(lambda error: None, on=on)
        with pytest.raises(TypeError, match="on must be"):
            stream.retry(Schedule(1), on=on)
        assert await stream.collect() == [1]

    virtually(main)


def test_a_function_that_cannot_say_is_an_error_of_the_stream() -> None:
    def broken(error: Exception) -> bool:
        raise LookupError

    async def main() -> None:
        for stream in (
            streams.iter(Source([], error=OSError())).catch(lambda error: [1], on=broken),
            streams.iter(Feed(3)).retry(Schedule(0), on=broken),
        ):
            with pytest.raises(LookupError):
                await anext(stream)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)

    virtually(main)


# retry


@laws
def test_a_stream_that_does_not_fail_keeps_the_laws_of_every_operator(law: Any) -> None:
    keep(law, lambda stream, wrap: streams.async_stream(lambda: stream)().retry(Schedule.fixed(1), on=KeyError))


def test_the_source_is_begun_anew_after_the_delays_of_the_schedule() -> None:
    async def main() -> None:
        feed = Feed(failures=2)
        assert await streams.iter(feed).retry(Schedule.exponential(1).retries(5)).collect() == [0, 0, 1, 2]
        assert feed.delays == [1, 1]  # the item in between has begun the schedule anew
        assert not feed.open

    virtually(main)


def test_without_items_in_between_the_schedule_goes_on() -> None:
    async def main() -> None:
        attempts: list[float] = []

        @streams.async_stream
        async def numbers(count: int) -> AsyncIterator[int]:
            attempts.append(time())
            if len(attempts) < 5:
                raise OSError
            for number in range(count):
                yield number

        start = time()
        assert await numbers(3).retry(Schedule.exponential(1).retries(4)).collect() == [0, 1, 2]
        assert [attempt - start for attempt in attempts] == [0, 1, 3, 7, 15]
        attempts.clear()
        with pytest.raises(OSError):
            await numbers(3).retry(Schedule.exponential(1).retries(3)).collect()
        assert len(attempts) == 4

    virtually(main)


def test_when_the_schedule_has_ended_the_last_error_is_raised_and_the_stream_is_over() -> None:
    async def main() -> None:
        feed = Feed(failures=10)
        stream = streams.iter(feed).retry(Schedule())
        with pytest.raises(OSError, match="1"):
            await anext(stream)
        for _ in range(3):
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        assert len(feed.attempts) == 1 and not feed.open

    virtually(main)


def test_the_time_of_the_schedule_counts_from_when_the_item_was_asked_for() -> None:
    async def main() -> None:
        attempts: list[float] = []

        @streams.async_stream
        async def fails_slowly() -> AsyncIterator[int]:
            attempts.append(time())
            await sleep(4)
            raise OSError
            yield 1

        with pytest.raises(OSError):
            await fails_slowly().retry(Schedule.fixed(1).total(11)).collect()
        assert len(attempts) == 3  # they end after 4, 9 and 14 seconds

    virtually(main)


def test_only_errors_that_are_meant_are_retried() -> None:
    async def main() -> None:
        feed = Feed(failures=1)
        with pytest.raises(OSError, match="1"):
            await streams.iter(feed).retry(Schedule.fixed(1), on=KeyError).collect()
        assert len(feed.attempts) == 1
        feed = Feed(failures=3)
        stream = streams.iter(feed).retry(Schedule.fixed(1), on=lambda error: error.args[0] < 2)
        assert await anext(stream) == 0
        with pytest.raises(OSError, match="2"):
            await anext(stream)

    virtually(main)


def test_when_the_time_of_the_caller_is_over_there_is_no_other_attempt() -> None:
    async def main() -> None:
        attempts: list[float] = []

        @streams.async_stream
        async def swallows() -> AsyncIterator[int]:
            attempts.append(time())
            try:
                await sleep(10)
            except asyncio.CancelledError:
                raise OSError from None
            yield 1

        with move_on_after(5), pytest.raises(OSError):
            await anext(swallows().retry(Schedule.fixed(1)))
        assert len(attempts) == 1

    virtually(main)


def test_a_function_is_called_again_with_the_same_arguments_and_may_return_a_stream() -> None:
    async def main() -> None:
        calls: list[tuple[int, int]] = []

        @streams.async_stream
        def doubled(count: int, *, start: int) -> Stream[int]:
            calls.append((count, start))
            return streams.iter(range(start, start + count)).map(lambda n: 2 * n // (len(calls) - 1))

        assert await doubled(2, start=1).retry(Schedule(0), on=ZeroDivisionError).collect() == [2, 4]
        assert calls == [(2, 1)] * 2

    virtually(main)


def test_a_function_that_raises_has_failed_as_well() -> None:
    async def main() -> None:
        calls = 0

        @streams.async_stream
        def connect() -> Source:
            nonlocal calls
            calls += 1
            if calls in (2, 3):
                raise OSError(calls)
            return Source([7], error=None) if calls > 3 else Source([], error=OSError(calls))

        assert await connect().retry(Schedule(1, 1, 1)).collect() == [7]
        calls = 0
        with pytest.raises(OSError, match="3"):
            await connect().retry(Schedule(1, 1)).collect()

    virtually(main)


def test_what_cannot_be_begun_anew_is_refused_with_advice_and_stays_usable() -> None:
    async def main() -> None:
        generator = (number for number in range(3))
        for stream in (
            streams.iter(generator),
            streams.iter(streams.iter([0, 1, 2])),
            streams.iter(Source([0, 1, 2])),
            streams.iter([0, 1, 2]).map(int),
        ):
            with pytest.raises(TypeError, match=r"cannot be begun anew.*async_stream"):
                stream.retry(Schedule(1))
            assert await stream.collect() == [0, 1, 2]
        with pytest.raises(TypeError, match="schedule must be a Schedule"):
            streams.iter([1]).retry(3)  # type: ignore[arg-type]

    virtually(main)


def test_what_was_taken_already_is_given_again() -> None:
    async def main() -> None:
        feed = Feed(failures=3)
        feed.attempts.append(0)
        stream = streams.iter(feed)
        assert await anext(stream) == 0
        assert await stream.retry(Schedule(0)).collect() == [0, 1, 0, 1, 2]

    virtually(main)


def test_a_pull_that_is_cancelled_shortens_no_delay_and_counts_no_attempt_twice() -> None:
    async def main() -> None:
        feed = Feed(failures=1)
        stream = streams.iter(feed).retry(Schedule(10))
        start = time()
        for _ in range(3):
            with move_on_after(3):
                await anext(stream)
        assert await anext(stream) == 0
        assert time() - start == pytest.approx(10)
        assert len(feed.attempts) == 2
        await stream.aclose()

    virtually(main)


def test_closing_between_two_attempts_makes_no_other() -> None:
    async def main() -> None:
        calls: list[int] = []

        @streams.async_stream
        def fails() -> Source:
            calls.append(1)
            return Source([], error=OSError())

        stream = fails().retry(Schedule.fixed(10))
        pull = asyncio.create_task(anext(stream))
        await sleep(5)
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await pull
        assert time() == 5  # who waited is told at once
        assert len(calls) == 1

    virtually(main)


@pytest.mark.parametrize(
    "recovering",
    [lambda stream: stream.catch(lambda error: [1]), lambda stream: stream.retry(Schedule.fixed(1))],
    ids=["catch", "retry"],
)
def test_an_error_that_comes_when_the_stream_has_been_closed_is_told_to_who_pulls(recovering: Any) -> None:
    class Connection:
        def __aiter__(self) -> AsyncIterator[int]:
            return Pulled()

    class Pulled:
        def __aiter__(self) -> Pulled:
            return self

        async def __anext__(self) -> int:
            try:
                return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]
            except asyncio.CancelledError:
                raise OSError("lost") from None

    async def main() -> None:
        stream = recovering(streams.iter(Connection()))
        pull = asyncio.create_task(anext(stream))
        await yield_now()
        await stream.aclose()
        with pytest.raises(OSError, match="lost"):
            await pull
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    virtually(main)


@pytest.mark.parametrize(
    "recovering",
    [
        lambda stream: stream.catch(lambda error: [], on=OSError),
        lambda stream: stream.retry(Schedule.fixed(1).retries(1)),
    ],
    ids=["catch", "retry"],
)
def test_an_error_that_was_raised_is_kept_alive_by_nobody(recovering: Any) -> None:
    class Failure(Exception):
        pass

    @streams.async_stream
    async def fails() -> AsyncIterator[int]:
        failure = Failure()
        failures.append(weakref.ref(failure))
        try:
            raise failure
        finally:
            del failure
        yield 0

    failures: list[weakref.ref[Failure]] = []

    async def main() -> None:
        stream = recovering(fails())
        with pytest.raises(Failure):
            await anext(stream)
        await yield_now()
        assert [failure() for failure in failures] == [None] * len(failures)

    without_collector(main)


def test_attempts_that_fail_at_once_let_the_loop_turn() -> None:
    async def main() -> None:
        calls = 0

        @streams.async_stream
        def fails() -> Iterator[int]:
            nonlocal calls
            calls += 1
            raise OSError
            yield 1

        pull = asyncio.create_task(anext(fails().retry(Schedule.fixed(0))))
        for _ in range(100):
            await yield_now()
        assert 10 < calls <= 200
        pull.cancel()
        await asyncio.wait([pull])

    run(main())


def test_a_stream_that_is_dropped_between_two_attempts_says_nothing() -> None:
    async def main() -> None:
        stream = streams.iter(Feed(failures=5)).retry(Schedule.fixed(10))
        with move_on_after(5):
            await anext(stream)
        with warnings.catch_warnings(record=True) as caught:
            del stream
            gc.collect()
        assert not caught

    virtually(main)


def test_both_show_which_errors_are_meant() -> None:
    def meant(error: Exception) -> bool:
        return True

    def nothing(error: Exception) -> None: ...

    for on, text in (
        (OSError, "OSError"),
        ((OSError,), "(OSError,)"),
        ((OSError, KeyError), "(OSError, KeyError)"),
        (meant, "meant"),
    ):
        caught: Stream[int] = streams.iter([1]).retry(Schedule(1), on=on).catch(nothing, on=on)
        assert repr(caught) == f"<Stream list.retry(Schedule(1), on={text}).catch(nothing, on={text})>"


def test_both_show_the_pipeline_as_it_was_written() -> None:
    async def main() -> None:
        def nothing(error: Exception) -> None: ...

        @streams.async_stream
        async def feed() -> AsyncIterator[int]:
            raise OSError
            yield 1

        stream = feed().retry(Schedule(1)).catch(nothing)
        assert repr(stream) == "<Stream feed.retry(Schedule(1)).catch(nothing)>"
        await stream.collect()
        assert repr(stream) == "<Stream feed.retry(Schedule(1)).catch(nothing)>"

    run(main(), clock=VirtualClock())
