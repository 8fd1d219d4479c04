"""Sinks in any order of their steps, and cancelled at each of their awaits; and wrong ones, which that must catch."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from yamanote import streams
from yamanote.channels import ChannelClosed, channel
from yamanote.runtime import start_task, yield_now
from yamanote.sinks import SenderSink, Sink, SinkClosed, drain, from_function
from yamanote.sinks._batch import Batch
from yamanote.sinks._buffer import Buffer
from yamanote.sinks._fanout import Fanout
from yamanote.sinks._relay import Relay
from yamanote.sinks._retry import Retry
from yamanote.sinks._sink import Guarded
from yamanote.sinks._with_flat_map import WithFlatMap
from yamanote.testing import Counterexample, explore, explore_cancellations, replay
from yamanote.time import Schedule, sleep

Scenario = Callable[[], Coroutine[Any, Any, None]]


async def ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Wait until `tasks` have ended; raise what went wrong in them."""
    tasks = list(tasks)
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


class Store(Sink[Any]):
    """Accepts one item at a time, slowly: a number, or a list of them."""

    def __init__(self, fails_at: int | None = None, shaky: bool = False) -> None:
        self.items: list[int] = []
        self.fails_at = fails_at
        self.shaky = shaky
        self.tried: list[int] = []
        self.busy = False
        self.closed = 0

    async def feed(self, item: Any) -> None:
        assert not self.busy and not self.closed
        self.busy = True
        try:
            items = item if isinstance(item, list) else [item]
            await sleep(items[0] % 2)
            if self.fails_at in items:
                raise OSError(f"{item} was too much")
            if self.shaky and items[0] % 2 and items[0] not in self.tried:
                self.tried.append(items[0])
                raise TimeoutError
            self.items += items
        finally:
            self.busy = False

    async def flush(self) -> None:
        await yield_now()

    async def close(self) -> None:
        try:
            await yield_now()
        finally:
            self.closed += 1


async def stores(make: Callable[[Store], Sink[int]], late: bool = True, shaky: bool = False) -> None:
    """What was accepted has arrived, in order, after a flush, and after closing; or a call said why not."""
    store = Store(shaky=shaky)
    sink = make(store)
    accepted: list[int] = []
    reported: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))

    async def feed(start: int) -> None:
        try:
            for number in range(start, start + 3):
                await sink.feed(number)
                accepted.append(number)
        except SinkClosed:
            pass
        except RuntimeError as error:
            reported.append(error)

    async def flush() -> None:
        await sleep(1)
        before = accepted.copy()
        try:
            await sink.flush()
        except SinkClosed:
            pass
        except RuntimeError as error:
            reported.append(error)
        else:
            assert {*before} <= {*store.items}

    async def close() -> None:
        if late:
            await ended(feeding)
        await sleep(1)
        await close_here()

    async def close_here() -> None:
        try:
            await sink.close()
        except RuntimeError as error:
            reported.append(error)

    feeding = [asyncio.create_task(feed(start)) for start in (0, 10)]
    await ended([*feeding, asyncio.create_task(flush()), asyncio.create_task(close())])
    await close_here()
    if not reported:  # by a task of the sink that was cancelled
        assert store.closed
        assert sorted(store.items) == sorted(accepted)
        for start in (0, 10):
            items = [item for item in store.items if start <= item < start + 3]
            assert items == sorted(items)
    assert len(store.items) == len({*store.items})


async def fans_out(fails_at: int | None) -> None:
    """Every sink gets the same items in the same order, those that were accepted and no others, whatever they do."""
    good, other = Store(), Store(fails_at)
    sink = other.fanout(good)
    accepted: list[int] = []
    errors: set[BaseException] = set()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.add(context["exception"]))

    async def feed(start: int) -> None:
        try:
            for number in range(start, start + 2):
                await sink.feed(number)
                accepted.append(number)
        except (OSError, RuntimeError) as error:
            errors.add(error)

    async def close() -> None:
        try:
            await sink.close()
        except (OSError, RuntimeError) as error:
            errors.add(error)

    await ended([asyncio.create_task(feed(start)) for start in (0, 10)])
    await ended([asyncio.create_task(close())])
    await close()
    failures = {error for error in errors if isinstance(error, OSError)}
    assert len(failures) <= 1
    if errors == failures:  # else a task of the fan-out was cancelled, which was told
        assert good.items == accepted
        assert other.items == [number for number in accepted if number != fails_at]
        assert good.closed and other.closed


async def maps_flat() -> None:
    """An item is fed whole or not at all, and its iterable is closed."""
    store = Store()
    opened = 0
    accepted: list[int] = []
    reported: list[BaseException] = []

    async def two(number: int) -> AsyncIterator[int]:
        nonlocal opened
        opened += 1
        try:
            yield number
            await yield_now()
            yield number + 1
        finally:
            opened -= 1

    async def call(number: int) -> AsyncIterator[int]:
        await yield_now()
        return two(number)

    async def feed(start: int) -> None:
        try:
            for number in (start, start + 2):
                await sink.feed(number)
                accepted.append(number)
        except RuntimeError as error:
            reported.append(error)

    sink = store.with_flat_map(call)
    await ended([asyncio.create_task(feed(start)) for start in (0, 10)])
    try:
        await sink.close()
    except RuntimeError as error:
        reported.append(error)
    assert store.closed and not opened
    if not reported:
        assert store.items == [item for number in accepted for item in (number, number + 1)]


async def sends() -> None:
    """What `feed` has accepted is received, once and in order; what it has not accepted was not sent."""
    sender, receiver = channel[int](1)
    sink = SenderSink(sender)
    accepted: list[int] = []
    seen: list[int] = []

    async def feed(start: int) -> None:
        for number in range(start, start + 3):
            await sink.feed(number)
            accepted.append(number)

    async def receive() -> None:
        async for number in receiver:
            seen.append(number)

    feeding = [asyncio.create_task(feed(start)) for start in (0, 10)]
    for task in feeding:
        task.add_done_callback(lambda _: all(task.done() for task in feeding) and sender.close())
    await ended([asyncio.create_task(receive())])
    await receive()
    await ended(feeding)
    await sink.close()
    receiver.close()
    assert seen == accepted


async def forwards() -> None:
    """However it ends, the source is closed then, and the sink is being closed; what it accepted arrives, in order."""
    store = Store()
    opened = 0

    async def source() -> AsyncIterator[int]:
        nonlocal opened
        opened += 1
        try:
            for number in range(4):
                await sleep(number % 3)
                yield number
        finally:
            try:
                await yield_now()
            finally:
                opened -= 1

    async def double(number: int) -> int:
        await yield_now()
        return 2 * number

    async def forward() -> None:
        try:
            await streams.iter(source()).forward(sink)
        finally:
            assert not opened
        assert store.items == [0, 2, 4, 6] and store.closed

    sink = store.buffer(1).with_map(double)
    forwarding = asyncio.create_task(forward())
    with suppress(RuntimeError):  # the task of the buffer was cancelled
        await ended([forwarding])
    with suppress(RuntimeError):
        await sink.close()
    assert store.closed
    assert store.items == [0, 2, 4, 6][: len(store.items)]


def again(store: Store) -> Sink[int]:
    return store.retry(Schedule(1, 1), on=TimeoutError)


scenarios: dict[str, Scenario] = {
    "buffer": partial(stores, lambda store: store.buffer(1)),
    "buffer, closed early": partial(stores, lambda store: store.buffer(2), False),
    "two buffers": partial(stores, lambda store: store.buffer(1).buffer(1)),
    "batch": partial(stores, lambda store: store.batch(2)),
    "batch by age": partial(stores, lambda store: store.batch(3, 0.5)),
    "batch, closed early": partial(stores, lambda store: store.batch(2, 1), False),
    "retry": partial(stores, again, True, True),
    "retry, closed early": partial(stores, again, False, True),
    "from_function": partial(stores, lambda store: from_function(store.feed, close=store.close)),
    "fanout, closed early": partial(stores, lambda store: drain().fanout(store), False),
    "fanout": partial(fans_out, None),
    "fanout, an error": partial(fans_out, 1),
    "with_flat_map": maps_flat,
    "sender": sends,
    "forward": forwards,
}


@pytest.mark.parametrize("name", scenarios)
def test_in_any_order(name: str) -> None:
    explore(scenarios[name], runs=20)


@pytest.mark.parametrize("name", scenarios)
def test_cancelled_anywhere(name: str) -> None:
    explore_cancellations(scenarios[name], runs=50)


# --- Teeth: wrong variants, each of which a scenario must catch. ---


async def stop_at_once(buffer: Buffer[Any]) -> None:
    if buffer._task is not None:
        buffer._items.close()
        buffer._task.cancel()
        await asyncio.wait([buffer._task])
    buffer._closing = start_task(buffer._sink.close())
    await asyncio.wait([buffer._closing])


async def send_and_maybe_be_cancelled(buffer: Buffer[Any], item: Any) -> None:
    try:
        await buffer._items.send(item)
    except ChannelClosed:
        buffer._check()
        raise


async def send_without_a_permit(sink: SenderSink[Any], item: Any) -> None:
    await sink._sender.send(item)


async def give_up_at_the_first_error(fanout: Fanout[Any], item: Any) -> None:
    for sink in fanout._sinks:
        await sink.feed(item)


async def deliver_in_the_hands_of_the_caller(fanout: Fanout[Any], item: Any) -> None:
    async with fanout._turn:
        fanout._check()
        await fanout._feed_all(item)
        fanout._raise_error()


async def iterate_in_the_hands_of_the_caller(sink: WithFlatMap[Any], item: Any) -> None:
    async with sink._turn:
        sink._check()
        await sink._feed_each(streams.iter(await sink._function(item)))
        sink._raise_error()


async def close_without_the_rest(relay: Relay[Any]) -> None:
    await relay._on_all(lambda sink: sink.close())


async def gather_although_it_is_full(batch: Batch[Any], item: Any) -> None:
    batch._check()
    batch._items.append(item)
    if len(batch._items) >= batch._count and not batch._is_delivering:
        await batch._sink.feed(batch._items)
        batch._items = []


async def try_again_beside_the_others(sink: Retry[Any], item: Any) -> None:
    sink._check()
    await sink._again(sink._sink.feed, item)


async def close_once(sink: Guarded[Any]) -> None:
    if sink._closing is None:
        sink._closing = sink._begin_closing()
    await asyncio.wait([sink._closing])
    sink._raise_error()


teeth: dict[str, tuple[type, str, Callable[..., Any], str]] = {
    "a buffer drops on close": (Buffer, "close", stop_at_once, "buffer, closed early"),
    "a buffer takes what was cancelled": (Buffer, "_put", send_and_maybe_be_cancelled, "buffer"),
    "a sender sends what was cancelled": (SenderSink, "feed", send_without_a_permit, "sender"),
    "a fan-out skips after an error": (Fanout, "_feed_all", give_up_at_the_first_error, "fanout, an error"),
    "a fan-out gives a part of the sinks": (Fanout, "feed", deliver_in_the_hands_of_the_caller, "fanout"),
    "a flat map feeds a part": (WithFlatMap, "feed", iterate_in_the_hands_of_the_caller, "with_flat_map"),
    "a relay closes without the rest": (Relay, "_finish", close_without_the_rest, "batch"),
    "a batch feeds in the hands of the caller": (Batch, "feed", gather_although_it_is_full, "batch"),
    "a retry lets others overtake": (Retry, "feed", try_again_beside_the_others, "retry"),
    "a closing that never began": (Guarded, "close", close_once, "fanout"),
}


pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # what a broken scenario leaves behind


@pytest.fixture
def break_it(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Puts a wrong variant in place, and tells in which scenario that shows."""

    def break_it(tooth: str) -> str:
        owner, method, wrong, name = teeth[tooth]
        monkeypatch.setattr(owner, method, wrong)
        return name

    yield break_it
    gc.collect()


@pytest.mark.parametrize("tooth", teeth)
def test_some_cancellation_shows_it(tooth: str, break_it: Callable[[str], str]) -> None:
    name = break_it(tooth)
    with pytest.raises(Counterexample) as found:
        explore_cancellations(scenarios[name])
    with pytest.raises(Counterexample):
        replay(scenarios[name], found.value.token)


@pytest.mark.parametrize("tooth", ["a retry lets others overtake"])
def test_some_order_shows_it(tooth: str, break_it: Callable[[str], str]) -> None:
    name = break_it(tooth)
    with pytest.raises(Counterexample) as found:
        explore(scenarios[name])
    with pytest.raises(Counterexample):
        replay(scenarios[name], found.value.token)
