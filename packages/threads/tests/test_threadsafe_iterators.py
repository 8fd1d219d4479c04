"""`threadsafe_aiter` and `threadsafe_agen`: what one loop produces, consumed wherever somebody asks."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import warnings
from asyncio import CancelledError
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextvars import ContextVar
from time import sleep
from typing import Any

import pytest

from yamanote.runtime import JoinError, Runtime, cancel_and_wait, run, spawn, yield_now
from yamanote.testing import explore, explore_cancellations
from yamanote.threads import (
    ThreadsafeGenerator,
    ThreadsafeIterator,
    run_in_thread_loop,
    threadsafe_agen,
    threadsafe_aiter,
    to_thread,
)

place: ContextVar[str] = ContextVar("place", default="nowhere")


@pytest.fixture
def many_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(autouse=True)
async def nothing_left_over() -> AsyncIterator[None]:
    yield
    assert asyncio.all_tasks() == {asyncio.current_task()}
    gc.collect()


async def count(end: int) -> AsyncGenerator[int, None]:
    for number in range(end):
        yield number
        await asyncio.sleep(0)


async def collect(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


class Source:
    """An iterator that notes who calls it, gives what is put into it, and takes one call at a time."""

    def __init__(self, *items: Any) -> None:
        self.items = list(items)
        self.thread = threading.current_thread()
        self.filled = asyncio.Event()
        self.asked = 0
        self.closed = 0
        self.cancelled = 0
        self.busy = False
        self.cleaned_up = True
        self.before_cancelled: Callable[[], Any] | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        assert threading.current_thread() is self.thread
        assert not self.busy
        self.busy = True
        self.asked += 1
        try:
            while not self.items:
                self.filled.clear()
                try:
                    await self.filled.wait()
                except CancelledError:
                    self.cancelled += 1
                    self.cleaned_up = False
                    await asyncio.sleep(0.01)
                    self.cleaned_up = True
                    if self.before_cancelled is not None:
                        return self.before_cancelled()
                    raise
            item = self.items.pop(0)
            if isinstance(item, BaseException):
                raise item
            return item
        finally:
            self.busy = False

    def put(self, *items: Any) -> None:
        self.items += items
        self.filled.set()

    async def aclose(self) -> None:
        assert threading.current_thread() is self.thread
        assert not self.busy
        await asyncio.sleep(0)
        self.closed += 1

    async def until_asked(self, times: int = 1) -> None:
        while self.asked < times or (self.asked == times and not self.busy):
            await asyncio.sleep(0)


def on_this_loop(consumer: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
    return consumer


each_loop = pytest.mark.parametrize("elsewhere", [run_in_thread_loop, on_this_loop], ids=["other loop", "own loop"])
Elsewhere = Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, Any]]


# What comes across


@each_loop
async def test_a_loop_consumes_it(elsewhere: Elsewhere) -> None:
    assert await elsewhere(collect(threadsafe_aiter(count(5)))) == [0, 1, 2, 3, 4]


async def test_a_plain_thread_consumes_it() -> None:
    assert await to_thread(list, threadsafe_aiter(count(5))) == [0, 1, 2, 3, 4]


@each_loop
async def test_items_are_any_values_exceptions_among_them(elsewhere: Elsewhere) -> None:
    items = [None, 0, "", StopIteration(), StopAsyncIteration()]

    async def give() -> AsyncIterator[object]:
        for item in items:
            yield item

    assert await elsewhere(collect(threadsafe_aiter(give()))) == items


async def test_the_source_runs_on_its_own_loop_and_is_asked_only_when_somebody_asks() -> None:
    source = Source("a", "b", "c")
    items = threadsafe_aiter(source)
    assert source.asked == 0

    assert await to_thread(next, items) == "a"
    assert await run_in_thread_loop(lambda: anext(items)) == "b"
    assert await anext(items) == "c"
    assert source.asked == 3


async def test_on_its_own_loop_an_item_that_is_there_takes_no_turn() -> None:
    items = threadsafe_aiter(Source("a"))
    turns: list[None] = []
    asyncio.get_running_loop().call_soon(turns.append, None)

    assert await anext(items) == "a"
    assert not turns


async def test_the_source_sees_the_variables_of_who_asks_and_finds_its_own_again() -> None:
    async def look() -> AsyncIterator[str]:
        yield place.get()
        token = place.set("in the source")
        yield place.get()
        yield place.get()
        place.reset(token)
        yield place.get()

    async def consume() -> tuple[list[str], str]:
        place.set("elsewhere")
        return await collect(threadsafe_items), place.get()

    threadsafe_items = threadsafe_aiter(look())
    expected = ["elsewhere", "in the source", "in the source", "elsewhere"]
    assert await run_in_thread_loop(consume()) == (expected, "elsewhere")


async def test_several_who_ask_are_served_in_the_order_in_which_they_ask() -> None:
    source = Source()
    items = threadsafe_aiter(source)
    asking = [spawn(run_in_thread_loop(lambda: anext(items)))]
    await source.until_asked()
    asking += [spawn(_next(items)) for _ in range(3)]
    await yield_now()
    asking.append(spawn(to_thread(next, items)))
    while items._turn.statistics().waiting < 4:
        await asyncio.sleep(0)

    source.put(*"abcde")

    assert [await handle for handle in asking] == list("abcde")


async def _next(items: AsyncIterator[Any]) -> Any:
    return await anext(items)


async def test_it_works_from_the_workers_of_a_runtime() -> None:
    def program() -> list[int]:
        async def main() -> list[int]:
            items = threadsafe_aiter(Source(*range(40), StopAsyncIteration()))
            parts = await asyncio.gather(*(spawn(collect(items)) for _ in range(4)))
            return sorted(item for part in parts for item in part)

        return run(main(), workers=2)

    assert await to_thread(program) == list(range(40))


# Cancelling


@each_loop
async def test_a_cancellation_has_ended_the_request_when_it_is_raised_and_the_next_item_comes(
    elsewhere: Elsewhere,
) -> None:
    source = Source()
    items = threadsafe_aiter(source)
    looks: list[bool] = []

    async def consume() -> Any:
        try:
            return await anext(items)
        except CancelledError:
            looks.append(source.busy)
            raise

    handle = spawn(elsewhere(consume()))
    await source.until_asked()
    await cancel_and_wait(handle)

    assert handle.is_cancelled()
    assert looks == [False]
    assert source.cancelled == 1
    source.put("a")
    assert await elsewhere(collect_one(items)) == "a"


async def collect_one(items: AsyncIterator[Any]) -> Any:
    return await anext(items)


async def test_an_item_that_came_in_spite_of_the_cancellation_goes_to_who_asks_next() -> None:
    source = Source()
    source.before_cancelled = lambda: "late"
    items = threadsafe_aiter(source)

    async def consume() -> list[Any]:
        task = asyncio.create_task(_next(items))
        behind = asyncio.create_task(_next(items))
        await asyncio.sleep(0)
        while not source.busy:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        return [await behind, await anext(items)]

    source_of_next = asyncio.create_task(_put_when_asked_again(source))
    assert await run_in_thread_loop(consume()) == ["late", "b"]
    await source_of_next


async def _put_when_asked_again(source: Source) -> None:
    await source.until_asked(2)
    source.put("b")


async def test_an_error_that_came_in_spite_of_the_cancellation_is_raised_for_who_asks_next() -> None:
    source = Source()

    def fail() -> None:
        raise LookupError("late")

    source.before_cancelled = fail
    items = threadsafe_aiter(source)
    handle = spawn(run_in_thread_loop(lambda: anext(items)))
    await source.until_asked()
    await cancel_and_wait(handle)

    with pytest.raises(LookupError, match="late"):
        await anext(items)
    with pytest.raises(StopAsyncIteration):
        await anext(items)


async def test_a_request_that_was_thrown_away_ends_before_the_next_one_begins() -> None:
    source = Source()
    items = threadsafe_aiter(source)

    async def throw_away() -> None:
        coroutine = items.__anext__()
        coroutine.send(None)  # it waits for the other side
        while not source.busy:
            await asyncio.sleep(0)
        coroutine.close()

    await run_in_thread_loop(throw_away())
    asking = spawn(to_thread(next, items))
    await source.until_asked(2)
    assert source.cancelled == 1
    source.put("a")
    assert await asking == "a"


def test_ctrl_c_in_a_thread_cancels_the_request_and_the_iterator_goes_on() -> None:
    made: list[tuple[Source, ThreadsafeIterator[Any]]] = []
    ready, done = threading.Event(), threading.Event()

    class Interrupting(Source):
        async def __anext__(self) -> Any:
            if not self.asked:
                asyncio.get_running_loop().call_later(0.02, os.kill, os.getpid(), signal.SIGINT)
            return await super().__anext__()

    async def produce() -> None:
        source = Interrupting()
        made.append((source, threadsafe_aiter(source)))
        ready.set()
        await to_thread(done.wait)

    thread = threading.Thread(target=lambda: run(produce()))
    thread.start()
    try:
        ready.wait()
        source, items = made[0]
        with pytest.raises(KeyboardInterrupt):
            next(items)
        assert source.cancelled == 1
        assert source.cleaned_up
        source.items.append("a")
        assert next(items) == "a"
    finally:
        done.set()
        thread.join()


# Errors and the end


@pytest.mark.parametrize("consume", ["other loop", "own loop", "thread"])
async def test_an_error_is_raised_once_and_then_there_is_the_end(consume: str) -> None:
    source = Source("a", LookupError("lost"), "never")
    items = threadsafe_aiter(source)

    async def consume_in_a_loop() -> list[Any]:
        got = [await anext(items)]
        with pytest.raises(LookupError, match="lost"):
            await anext(items)
        return got + await collect(items) + await collect(items)

    def consume_in_a_thread() -> list[Any]:
        got = [next(items)]
        with pytest.raises(LookupError, match="lost"):
            next(items)
        return got + list(items) + list(items)

    match consume:
        case "other loop":
            got = await run_in_thread_loop(consume_in_a_loop())
        case "own loop":
            got = await consume_in_a_loop()
        case _:
            got = await to_thread(consume_in_a_thread)

    assert got == ["a"]
    assert source.asked == 2
    assert source.items == ["never"]


async def test_a_cancellation_on_the_side_of_the_source_is_no_cancellation_of_who_asks() -> None:
    source = Source(CancelledError())
    items = threadsafe_aiter(source)

    async def consume() -> int:
        with pytest.raises(JoinError):
            await anext(items)
        assert await collect(items) == []
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert await run_in_thread_loop(consume()) == 0


async def test_a_loop_that_was_closed_is_a_clear_error_and_nothing_to_close() -> None:
    async def make() -> ThreadsafeIterator[int]:
        return threadsafe_aiter(count(3))

    items = await run_in_thread_loop(make())

    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"the event loop of count has been closed"):
            await anext(items)
    with pytest.raises(RuntimeError, match=r"the event loop of count has been closed"):
        await to_thread(next, items)
    await items.aclose()
    await to_thread(items.close)


async def test_the_end_of_the_runtime_of_the_source_ends_a_request() -> None:
    made, asked = threading.Event(), threading.Event()
    iterators: list[ThreadsafeIterator[Any]] = []

    async def wait() -> AsyncIterator[Any]:
        asked.set()
        await asyncio.Event().wait()
        yield

    async def produce() -> None:
        iterators.append(threadsafe_aiter(wait()))
        made.set()
        await to_thread(asked.wait)

    def consume() -> None:
        made.wait()
        with pytest.raises(JoinError):
            next(iterators[0])

    consuming = spawn(to_thread(consume))
    await run_in_thread_loop(produce())
    await consuming


async def test_a_plain_for_in_the_thread_of_a_loop_is_refused_with_advice() -> None:
    items = threadsafe_aiter(count(3))
    calls: list[Callable[[], object]] = [items.__iter__, items.__next__, items.close, items.__enter__]
    for call in calls:
        with pytest.raises(RuntimeError, match="use the form for tasks"):
            call()


async def test_nonsense_is_refused_by_name() -> None:
    aiter_of: Any = threadsafe_aiter
    agen_of: Any = threadsafe_agen
    for nonsense in (5, [1], None, collect(count(1))):
        with pytest.raises(TypeError, match="source must be an async iterable, not"):
            aiter_of(nonsense)
    with pytest.raises(TypeError, match="generator must be an async generator, not"):
        agen_of(Source())
    with pytest.raises(TypeError, match="call it"):
        agen_of(count)


def test_it_is_made_where_a_loop_runs() -> None:
    with pytest.raises(RuntimeError, match=r"threadsafe_aiter\(\) needs a running event loop"):
        threadsafe_aiter(count(1))


# Closing


@pytest.mark.parametrize("close", ["other loop", "own loop", "thread", "with", "async with"])
async def test_closing_closes_the_source_on_its_own_loop_once(close: str) -> None:
    source = Source("a", "b")
    items = threadsafe_aiter(source)

    async def leave() -> None:
        async with items:
            await anext(items)

    def leave_in_a_thread() -> None:
        with items:
            next(items)

    for _ in "12":
        match close:
            case "other loop":
                await run_in_thread_loop(items.aclose())
            case "own loop":
                await items.aclose()
            case "thread":
                await to_thread(items.close)
            case "with" if not source.closed:
                await to_thread(leave_in_a_thread)
            case "async with" if not source.closed:
                await run_in_thread_loop(leave())

    assert source.closed == 1
    assert await collect(items) == []


@each_loop
async def test_who_waits_for_an_item_is_told_the_end_when_it_is_closed(elsewhere: Elsewhere) -> None:
    source = Source()
    items = threadsafe_aiter(source)

    async def consume() -> tuple[list[Any], int]:
        rest = await collect(items)
        task = asyncio.current_task()
        assert task is not None
        return rest, task.cancelling()

    consuming = [spawn(elsewhere(consume())) for _ in range(2)]
    await source.until_asked()
    await to_thread(items.close)

    assert [await handle for handle in consuming] == [([], 0), ([], 0)]
    assert source.cancelled == 1
    assert source.closed == 1


async def test_a_block_that_is_thrown_away_lets_the_other_side_close_the_source() -> None:
    source = Source()
    items = threadsafe_aiter(source)

    async def consume() -> None:
        async with items:
            await anext(items)

    async def throw_away() -> None:
        coroutine = consume()
        coroutine.send(None)
        while not source.busy:
            await asyncio.sleep(0)
        coroutine.close()

    await run_in_thread_loop(throw_away())
    async with asyncio.timeout(30):
        while not source.closed:
            await asyncio.sleep(0)
    assert source.cancelled == 1


async def test_a_request_that_has_not_arrived_when_it_is_closed_is_told_the_end() -> None:
    source = Source()
    items = threadsafe_aiter(source)
    got: list[list[Any]] = []
    asking = threading.Thread(target=lambda: got.append(list(items)))
    asking.start()
    while items._request is None:  # this thread is the one of the loop: the request cannot begin
        sleep(0)

    await items.aclose()

    await to_thread(asking.join)
    assert got == [[]]
    assert source.asked == 0


async def test_a_source_that_fails_to_close_says_so_once() -> None:
    class Stubborn(Source):
        async def aclose(self) -> None:
            await super().aclose()
            raise OSError("stuck")

    items = threadsafe_aiter(Stubborn())
    with pytest.raises(OSError, match="stuck"):
        await to_thread(items.close)
    await items.aclose()


async def test_a_close_that_was_cancelled_can_be_repeated() -> None:
    class Slow(Source):
        async def aclose(self) -> None:
            if not self.asked:
                self.asked = 1
                await asyncio.sleep(60)
            await super().aclose()

    source = Slow()
    items = threadsafe_aiter(source)
    closing = spawn(run_in_thread_loop(items.aclose()))
    while not source.asked:
        await asyncio.sleep(0)
    await cancel_and_wait(closing)
    assert source.closed == 0

    await to_thread(items.close)
    assert source.closed == 1


async def test_a_source_with_a_plain_close_or_with_none_is_closed_as_well() -> None:
    class Plain:
        closed_in: threading.Thread | None = None

        def __aiter__(self) -> AsyncIterator[int]:
            return self

        async def __anext__(self) -> int:
            return 1

        def close(self) -> None:
            self.closed_in = threading.current_thread()

    source = Plain()
    await to_thread(threadsafe_aiter(source).close)
    assert source.closed_in is threading.current_thread()

    async def give() -> None:
        class Bare:
            def __aiter__(self) -> AsyncIterator[int]:
                return self

            async def __anext__(self) -> int:
                return 1

        async with threadsafe_aiter(Bare()) as items:
            assert await anext(items) == 1
        assert await collect(items) == []

    await give()


async def test_one_that_is_dropped_in_the_middle_of_a_generator_warns_and_is_closed() -> None:
    closed: list[bool] = []

    async def give() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            closed.append(True)

    items: Any = threadsafe_aiter(give())
    await to_thread(next, items)
    with pytest.warns(ResourceWarning, match="was dropped in the middle"):
        del items
        gc.collect()
    await asyncio.sleep(0.01)
    assert closed


async def test_one_that_was_not_begun_or_has_ended_or_was_closed_is_dropped_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        not_begun, ended, closed = (threadsafe_aiter(count(2)) for _ in range(3))
        await to_thread(list, ended)
        await anext(closed)
        await to_thread(closed.close)
        del not_begun, ended, closed
        gc.collect()


async def test_it_says_whose_items_it_gives() -> None:
    items = threadsafe_aiter(count(0))
    assert repr(items).startswith("<ThreadsafeIterator of count at 0x")
    await collect(items)
    assert repr(items).startswith("<ThreadsafeIterator of count, at its end at 0x")


# Generators


async def echo() -> AsyncGenerator[str, str | None]:
    answer: str | None = "ready"
    while True:
        try:
            answer = yield f"{answer}!"
        except LookupError as error:
            answer = f"caught {error}"


@each_loop
async def test_a_generator_is_sent_to_and_thrown_into_across(elsewhere: Elsewhere) -> None:
    generator = threadsafe_agen(echo())

    async def talk() -> list[str]:
        async with generator:
            return [
                await anext(generator),
                await generator.asend("hello"),
                await generator.athrow(LookupError("that")),
                await generator.asend(None),
            ]

    assert await elsewhere(talk()) == ["ready!", "hello!", "caught that!", "None!"]
    with pytest.raises(StopAsyncIteration):
        await generator.asend("anybody?")


@each_loop
async def test_an_error_that_a_generator_does_not_catch_comes_back(elsewhere: Elsewhere) -> None:
    generator = threadsafe_agen(echo())

    async def talk() -> None:
        await anext(generator)
        with pytest.raises(ZeroDivisionError, match="mine"):
            await generator.athrow(ZeroDivisionError("mine"))
        with pytest.raises(StopAsyncIteration):
            await anext(generator)

    await elsewhere(talk())


async def test_a_generator_is_an_async_generator_for_who_asks() -> None:
    generator = threadsafe_agen(count(2))

    assert isinstance(generator, AsyncGenerator)
    assert isinstance(generator, ThreadsafeGenerator)
    assert await to_thread(list, generator) == [0, 1]


async def test_what_is_sent_is_never_swapped_for_an_item_that_nobody_got() -> None:
    async def reluctant() -> AsyncGenerator[str, str | None]:
        answer: str | None = ""
        while True:
            try:
                await asyncio.sleep(0 if answer else 60)
            except CancelledError:
                answer = "late"
            answer = yield f"{answer}"

    generator = threadsafe_agen(reluctant())
    handle = spawn(run_in_thread_loop(lambda: anext(generator)))
    while not generator._begun:
        await asyncio.sleep(0)
    await yield_now()
    await cancel_and_wait(handle)

    async with generator:
        assert await generator.asend("hello") == "hello"


# Interleavings


async def consumers_of_one_source() -> None:
    source = Source(1, 2)
    items = threadsafe_aiter(source)
    got: list[int] = []

    async def consume() -> None:
        async for item in items:
            got.append(item)
            await asyncio.sleep(0)

    async def put() -> None:
        await asyncio.sleep(1)
        source.put(3, 4)

    tasks = [asyncio.create_task(consume()), asyncio.create_task(consume()), asyncio.create_task(put())]
    await asyncio.wait(tasks[2:])
    await asyncio.sleep(1)
    await items.aclose()
    await asyncio.wait(tasks)
    assert source.closed == 1
    assert all(task.cancelled() or not task.exception() for task in tasks)
    assert sorted(got + source.items) == [1, 2] + ([] if tasks[2].cancelled() else [3, 4])


def test_no_order_of_the_steps_loses_an_item() -> None:
    explore(consumers_of_one_source)


def test_no_cancellation_loses_an_item_or_the_turn() -> None:
    explore_cancellations(consumers_of_one_source)


@pytest.mark.usefixtures("many_switches")
async def test_loops_and_threads_that_come_and_are_cancelled_get_each_item_once() -> None:
    last = 400
    source = Source()
    items = threadsafe_aiter(source)
    got: list[int] = []

    async def impatient() -> None:
        while True:
            task = asyncio.create_task(_next(items))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if task.cancelled():
                continue
            if isinstance(task.exception(), StopAsyncIteration):
                return
            got.append(task.result())

    async def patient() -> None:
        async for item in items:
            got.append(item)

    def in_a_thread() -> None:
        for item in items:
            got.append(item)

    async def put() -> None:
        for first in range(0, last, 10):
            source.put(*range(first, first + 10))
            await asyncio.sleep(0.001)
        while source.items or len(got) < last:
            await asyncio.sleep(0.001)
        await items.aclose()

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        tasks.create_task(put())
        tasks.create_task(patient())
        tasks.create_task(run_in_thread_loop(impatient()))
        tasks.create_task(run_in_thread_loop(patient()))
        tasks.create_task(to_thread(in_a_thread))
        tasks.create_task(to_thread(in_a_thread))

    assert sorted(got) == list(range(last))


def test_it_ends_with_a_runtime_that_is_made_by_hand() -> None:
    async def make() -> ThreadsafeIterator[int]:
        return threadsafe_aiter(count(3))

    with Runtime() as runtime:
        items = runtime.run_until_complete(make())
    with pytest.raises(RuntimeError):
        next(items)


async def test_an_error_that_is_no_exception_is_raised_once_too() -> None:
    class Fatal(BaseException):
        pass

    class Source:
        def __aiter__(self) -> AsyncIterator[int]:
            return self

        async def __anext__(self) -> int:
            raise Fatal

        async def aclose(self) -> None:
            raise Fatal

    async def consume() -> None:
        with pytest.raises(Fatal):
            await anext(items)
        with pytest.raises(StopAsyncIteration):
            await anext(items)
        with pytest.raises(Fatal):
            await items.aclose()
        await items.aclose()

    items = threadsafe_aiter(Source())
    await run_in_thread_loop(consume())
    items = threadsafe_aiter(Source())
    await consume()
