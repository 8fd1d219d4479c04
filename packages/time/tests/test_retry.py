"""Retrying: which errors, how often, when, and what is left in the end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from yamanote.runtime import CancelScope, move_on_after, run, spawn_blocking
from yamanote.testing import explore_cancellations
from yamanote.time import Schedule, VirtualClock, retry, sleep, time, timeout

T = TypeVar("T")

often = Schedule.fixed(1)


def virtual(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """The test on a loop whose virtual time begins at 0."""

    def in_no_time() -> None:
        run(test(), loop_factory=VirtualClock().loop_factory)

    in_no_time.__name__ = test.__name__
    return in_no_time


class Flaky:
    """Fails with the errors it was given, one after the other; then returns what it is called with."""

    def __init__(self, *errors: Exception, takes: float = 0) -> None:
        self.errors = list(errors)
        self.takes = takes
        self.times: list[float] = []

    def fail(self, value: T) -> T:
        if self.errors:
            raise self.errors.pop(0)
        return value

    async def ask(self, value: T) -> T:
        self.times.append(time())
        if self.takes:
            await sleep(self.takes)
        return self.fail(value)


@virtual
async def test_a_call_is_made_again_until_it_succeeds_after_the_delays() -> None:
    flaky = Flaky(OSError(), KeyError(), ValueError())
    assert await retry(Schedule.exponential(1))(flaky.ask)("answer") == "answer"
    assert flaky.times == [0, 1, 3, 7]


@virtual
async def test_a_call_that_succeeds_at_once_does_not_wait() -> None:
    call = retry(often)(Flaky().ask)(None)
    with pytest.raises(StopIteration) as ended:
        call.send(None)
    assert ended.value.value is None


@virtual
async def test_falsy_values_and_exception_instances_are_ordinary_results() -> None:
    for value in (None, 0, "", OSError("a value"), asyncio.CancelledError()):
        assert await retry(often)(Flaky(OSError()).ask)(value) is value


@virtual
async def test_when_the_schedule_has_ended_the_last_error_is_raised_as_it_is() -> None:
    last = OSError("third")
    flaky = Flaky(OSError("first"), OSError("second"), last, OSError("never"))
    with pytest.raises(OSError) as raised:
        await retry(often.retries(2))(flaky.ask)(1)
    assert raised.value is last
    assert last.__context__ is last.__cause__ is None  # the errors before it are no reason for it
    assert flaky.times == [0, 1, 2]


@virtual
async def test_the_total_includes_the_time_that_attempts_take() -> None:
    flaky = Flaky(*(OSError() for _ in range(9)), takes=3)
    with pytest.raises(OSError):
        await retry(often.total(10))(flaky.ask)(1)
    assert flaky.times == [0, 4, 8]
    assert time() == 11  # another one would begin at 12


@virtual
async def test_each_call_begins_the_schedule_anew() -> None:
    flaky = Flaky()
    ask = retry(Schedule(1, 5))(flaky.ask)
    for start in (0, 6):
        flaky.errors = [OSError(), OSError()]
        assert await ask(start) == start
    assert flaky.times == [0, 1, 6, 6, 7, 12]


@virtual
async def test_calls_at_the_same_time_do_not_share_a_run() -> None:
    one, another = Flaky(OSError(), OSError()), Flaky(OSError(), OSError())

    @retry(Schedule(1, 5))
    async def ask(flaky: Flaky) -> int:
        return await flaky.ask(1)

    assert await asyncio.gather(ask(one), ask(another)) == [1, 1]
    assert one.times == another.times == [0, 1, 6]


@pytest.mark.parametrize(
    "on",
    [OSError, (KeyError, OSError), lambda error: "busy" in str(error)],
    ids=["class", "tuple", "function"],
)
def test_only_errors_that_are_worth_it_are_retried(on: Any) -> None:
    async def main() -> None:
        ask = retry(often, on=on)(Flaky(OSError("busy"), ValueError("wrong")).ask)
        with pytest.raises(ValueError, match="wrong"):
            await ask(1)
        assert time() == 1

    run(main(), loop_factory=VirtualClock().loop_factory)


@virtual
async def test_an_error_of_the_condition_itself_is_raised() -> None:
    def broken(error: Exception) -> bool:
        raise LookupError("condition")

    with pytest.raises(LookupError, match="condition"):
        await retry(often, on=broken)(Flaky(OSError()).ask)(1)


@virtual
async def test_a_time_limit_inside_is_an_error_that_can_be_retried() -> None:
    durations = iter([5, 5, 1])

    @retry(often, on=TimeoutError)
    async def ask() -> str:
        await timeout(2, sleep(next(durations)))
        return "in time"

    assert await ask() == "in time"
    assert time() == 2 + 1 + 2 + 1 + 1


@virtual
async def test_a_time_limit_outside_ends_it_between_attempts_too() -> None:
    flaky = Flaky(*(OSError() for _ in range(9)))
    with move_on_after(2.5) as scope:
        await retry(often)(flaky.ask)(1)
    assert scope.cancelled_caught
    assert flaky.times == [0, 1, 2]


@virtual
async def test_when_the_time_outside_is_over_no_other_attempt_begins_though_the_cancellation_was_swallowed() -> None:
    async def ask() -> None:
        attempts.append(time())
        try:
            await sleep(10)
        except asyncio.CancelledError:
            raise OSError(f"attempt {len(attempts)}") from None

    def is_worth_it(error: Exception) -> bool:
        asked.append(error)
        return True

    attempts, asked = list[float](), list[Exception]()
    with pytest.raises(OSError, match="attempt 1"):
        async with timeout(3):
            await retry(often.retries(2), on=is_worth_it)(ask)()
    assert attempts == [0]
    assert asked == []  # it may spend a permit on its answer
    assert time() == 3


@virtual
async def test_when_the_time_outside_is_over_a_stream_is_not_begun_again() -> None:
    async def stream() -> AsyncIterator[int]:
        begun.append(time())
        try:
            yield 1
            await sleep(10)
        except asyncio.CancelledError:
            raise OSError(f"stream {len(begun)}") from None

    begun = list[float]()
    with pytest.raises(OSError, match="stream 1"):
        async with timeout(3):
            async for _ in retry(often.retries(2))(stream)():
                assert len(begun) == 1
    assert begun == [0]


@virtual
async def test_when_the_time_of_its_caller_is_over_a_plain_function_is_not_called_again() -> None:
    def call() -> None:
        with pytest.raises(OSError):
            retry(Schedule(0, 0))(flaky.fail)(1)

    flaky = Flaky(OSError(), OSError(), OSError())
    with CancelScope(time()):
        thread = threading.Thread(target=contextvars.copy_context().run, args=(call,))
        thread.start()
        thread.join()
    assert len(flaky.errors) == 2


@virtual
async def test_a_cancellation_is_no_failure() -> None:
    flaky = Flaky(takes=5)
    task = asyncio.create_task(retry(often, on=lambda error: True)(flaky.ask)(1))
    await sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert flaky.times == [0]


@virtual
async def test_a_cancellation_between_attempts_has_nothing_to_do_with_the_error() -> None:
    async def call() -> None:
        try:
            await retry(often)(Flaky(OSError()).ask)(1)
        except asyncio.CancelledError as error:
            assert error.__context__ is None
            raise

    task = asyncio.create_task(call())
    await sleep(0.5)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


def test_a_call_that_is_cancelled_anywhere_makes_no_other_attempt() -> None:
    async def scenario() -> None:
        flaky = Flaky(OSError(), OSError(), takes=1)

        async def call() -> None:
            try:
                await retry(often, on=OSError)(flaky.ask)(1)
            except asyncio.CancelledError:
                flaky.times.append(-1)
                raise

        task = asyncio.create_task(call())
        await asyncio.wait([task])
        await sleep(10)
        assert flaky.times == [0, 2, 4] or -1 not in flaky.times[:-1]

    explore_cancellations(scenario, runs=60)


@virtual
async def test_it_gives_way_between_attempts_without_a_delay() -> None:
    async def other() -> None:
        turns.append(len(flaky.times))

    turns: list[int] = []
    flaky = Flaky(OSError(), OSError())
    task = asyncio.create_task(other())
    await retry(Schedule(0, 0))(flaky.ask)(1)
    assert turns == [1]
    await task


# ------------------------------------------------------------------ functions of every kind


def test_what_is_decorated_looks_as_before() -> None:
    @retry(often)
    async def ask(url: str) -> int:
        """Ask."""
        return len(url)

    assert (ask.__name__, ask.__doc__) == ("ask", "Ask.")
    assert str(inspect.signature(ask)) == "(url: 'str') -> 'int'"
    assert inspect.iscoroutinefunction(ask)


@virtual
async def test_methods_partials_and_objects_can_be_retried() -> None:
    class Client:
        def __init__(self) -> None:
            self.flaky = Flaky(OSError())

        @retry(often)
        async def ask(self, value: int) -> int:
            return await self.flaky.ask(value)

        async def __call__(self, value: int) -> int:
            return await self.ask(value)

    assert await Client().ask(1) == 1
    assert await retry(often)(functools.partial(Flaky(OSError()).ask, 2))() == 2
    flaky = Flaky(OSError())

    class Asks:
        async def __call__(self) -> int:
            return await flaky.ask(3)

    asked: Awaitable[int] = retry(often)(Asks())()
    assert await asked == 3
    made = await spawn_blocking(retry(often)(Asks))  # the class itself is a plain function
    assert isinstance(made, Asks)


def test_a_plain_function_blocks_its_thread_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("yamanote.time._retry.sleep_in_thread", slept.append)
    assert retry(Schedule(1, 2, 4))(Flaky(OSError(), OSError()).fail)("answer") == "answer"
    assert slept == [1, 2]
    with pytest.raises(OSError, match="last"):
        retry(Schedule(3))(Flaky(OSError(), OSError("last")).fail)(1)
    assert slept == [1, 2, 3]
    with pytest.raises(OSError):
        retry(Schedule(1), on=KeyError)(Flaky(OSError()).fail)(1)
    assert slept == [1, 2, 3]


def test_the_total_of_a_plain_function_includes_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def pass_time(seconds: float) -> None:
        nonlocal now
        now += seconds

    def fail() -> None:
        pass_time(3)
        attempts.append(now)
        raise OSError

    attempts: list[float] = []
    monkeypatch.setattr("yamanote.time._retry.monotonic", lambda: now)
    monkeypatch.setattr("yamanote.time._retry.sleep_in_thread", pass_time)
    with pytest.raises(OSError):
        retry(often.total(10))(fail)()
    assert attempts == [3, 7, 11]


async def test_a_plain_function_is_refused_where_it_would_stop_the_loop() -> None:
    flaky = Flaky()
    with pytest.raises(RuntimeError, match=r"block the event loop.* write an async function around it"):
        retry(often)(flaky.fail)(1)


async def test_a_plain_function_can_be_retried_in_a_thread() -> None:
    threads: set[int] = set()

    @retry(Schedule(0, 0))
    def call(flaky: Flaky) -> int:
        threads.add(threading.get_ident())
        return flaky.fail(1)

    assert await spawn_blocking(call, Flaky(OSError(), OSError())) == 1
    assert len(threads) == 1 and threading.get_ident() not in threads


# ------------------------------------------------------------------ streams


class Feed:
    """Yields its numbers from where it is; breaks off with an error before some of them, once or more often."""

    def __init__(self, breaks: dict[int, int], end: int = 4, takes: float = 0) -> None:
        self.breaks = breaks
        self.end = end
        self.takes = takes
        self.position = 0
        self.begun: list[float] = []
        self.open = 0

    async def numbers(self, *, again: bool = False) -> AsyncGenerator[int, None]:
        self.begun.append(time())
        self.open += 1
        try:
            for number in range(0 if again else self.position, self.end):
                await sleep(self.takes)
                if self.breaks.get(number, 0):
                    self.breaks[number] -= 1
                    raise OSError(f"before {number}")
                yield number
                self.position = number + 1
        finally:
            self.open -= 1


@virtual
async def test_a_stream_that_fails_goes_on_with_what_another_call_yields() -> None:
    feed = Feed({0: 1, 2: 2})
    assert [number async for number in retry(often)(feed.numbers)()] == [0, 1, 2, 3]
    assert feed.begun == [0, 1, 2, 3]
    assert feed.open == 0


@virtual
async def test_a_stream_that_begins_from_the_start_yields_its_items_again() -> None:
    feed = Feed({2: 1})
    assert [number async for number in retry(often)(feed.numbers)(again=True)] == [0, 1, 0, 1, 2, 3]


@virtual
async def test_each_item_begins_the_schedule_anew_and_no_attempt_does() -> None:
    feed = Feed({0: 2, 1: 2, 3: 3}, takes=100)
    seen: list[int] = []
    with pytest.raises(OSError, match="before 3"):
        async for number in retry(Schedule(1, 5).total(306))(feed.numbers)():
            seen.append(number)
            await sleep(1000)  # the consumer's time is not the stream's
    assert seen == [0, 1, 2]
    pauses = [late - soon for soon, late in zip(feed.begun, feed.begun[1:], strict=False)]
    assert pauses == [101, 105, 1201, 105, 2301, 105]  # one item came before the third, two before the fifth
    assert feed.open == 0


@virtual
async def test_only_errors_of_a_stream_that_are_worth_it_are_retried() -> None:
    feed = Feed({1: 1})
    stream = retry(often, on=KeyError)(feed.numbers)()
    with pytest.raises(OSError, match="before 1") as raised:
        [number async for number in stream]
    assert raised.value.__context__ is None
    assert feed.begun == [0]


@virtual
async def test_an_error_of_who_uses_an_item_is_not_the_streams() -> None:
    feed = Feed({})

    @contextlib.asynccontextmanager
    @retry(often)
    async def connected() -> AsyncIterator[str]:
        async for number in feed.numbers():
            yield f"connection {number}"

    with pytest.raises(OSError, match="of the block"):
        async with connected() as connection:
            assert connection == "connection 0"
            raise OSError("of the block")
    assert feed.begun == [0]


@virtual
async def test_a_stream_that_is_left_early_is_closed_at_once() -> None:
    feed = Feed({0: 1})
    async with contextlib.aclosing(retry(often)(feed.numbers)()) as numbers:
        assert await anext(numbers) == 0
        assert feed.open == 1
    assert feed.open == 0


@virtual
async def test_a_stream_cleans_up_before_it_is_begun_again() -> None:
    events: list[str] = []

    @retry(Schedule(0))
    async def stream() -> AsyncIterator[int]:
        events.append("begun")
        try:
            if len(events) == 1:
                raise OSError
            yield 1
        finally:
            await sleep(1)
            events.append("cleaned up")

    assert [number async for number in stream()] == [1]
    assert events == ["begun", "cleaned up"] * 2


def test_a_stream_that_is_cancelled_anywhere_is_not_begun_again() -> None:
    async def scenario() -> None:
        feed = Feed({0: 1, 1: 1}, end=2, takes=1)

        async def iterate() -> None:
            try:
                async with contextlib.aclosing(retry(often)(feed.numbers)()) as numbers:
                    seen.extend([number async for number in numbers])
            except asyncio.CancelledError:
                feed.begun.append(-1)
                raise

        seen: list[int] = []
        task = asyncio.create_task(iterate())
        await asyncio.wait([task])
        await sleep(10)
        assert feed.open == 0
        assert seen == [0, 1] or -1 not in feed.begun[:-1]

    explore_cancellations(scenario, runs=60)


def test_a_retried_stream_is_a_stream() -> None:
    assert inspect.isasyncgenfunction(retry(often)(Feed({}).numbers))


# ------------------------------------------------------------------ nonsense


def numbers() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize("function", [numbers, 1, None], ids=["generator function", "number", "None"])
def test_what_cannot_fail_when_it_is_called_is_refused(function: Any) -> None:
    with pytest.raises(TypeError, match="needs a function"):
        retry(often)(function)


async def always(error: Exception) -> bool:
    return True


@pytest.mark.parametrize(
    "on",
    [asyncio.CancelledError, BaseException, (OSError, KeyboardInterrupt), 1, (1,), int, always],
    ids=["CancelledError", "BaseException", "with KeyboardInterrupt", "number", "of numbers", "int", "async function"],
)
def test_conditions_that_are_none_are_refused(on: Any) -> None:
    with pytest.raises(TypeError, match="on must be"):
        retry(often, on=on)


def test_a_coroutine_instead_of_a_function_or_a_schedule_is_refused_and_closed() -> None:
    for decorate in (retry(often), retry):
        coroutine: Any = always(OSError())
        with pytest.raises(TypeError, match="coroutine object always"):
            decorate(coroutine)
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


@pytest.mark.parametrize("schedule", [1, None, numbers], ids=["number", "None", "function"])
def test_the_schedule_must_be_one(schedule: Any) -> None:
    with pytest.raises(TypeError, match="schedule must be"):
        retry(schedule)
