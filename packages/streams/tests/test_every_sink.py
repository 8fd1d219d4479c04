"""What every sink and every combinator promises."""

from __future__ import annotations

import asyncio
import gc
import traceback
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from yamanote import streams
from yamanote.sinks import FileSink, SenderSink, Sink, SinkClosed, drain, from_function
from yamanote.time import Schedule

NOTHING: Any = object()


class Store(Sink[Any]):
    """Takes one thing at a time, in a few loop turns; fails when it is told to, and then always."""

    def __init__(self, turns: int = 1, fails_at: Any = NOTHING, error: BaseException | None = None) -> None:
        self.turns = turns
        self.fails_at = fails_at
        self.error = error
        self.failed: BaseException | None = None
        self.items: list[Any] = []
        self.flushed = 0
        self.closed = False
        self.given_up = False
        self.busy = False

    async def step(self) -> None:
        assert not self.busy
        self.busy = True
        try:
            for _ in range(self.turns):
                await asyncio.sleep(0)
        finally:
            self.busy = False

    async def feed(self, item: Any) -> None:
        self.check()
        await self.step()
        self.check()
        for one in item if isinstance(item, list) else [item]:
            if one is self.fails_at:
                self.failed = self.error or KeyError(one)
                raise self.failed
            self.items.append(one)

    async def flush(self) -> None:
        self.check()
        await self.step()
        self.flushed = len(self.items)

    async def close(self) -> None:
        if not self.closed:
            await self.step()
            self.closed = True
        if self.failed is not None:
            raise self.failed

    async def _give_up(self) -> None:
        self.given_up = True
        await self.close()

    def check(self) -> None:
        if self.failed is not None:
            raise self.failed
        if self.closed:
            raise SinkClosed("the store was closed")


class StoreSender:
    """A sender of a kind that nobody has seen before."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def send(self, item: Any) -> None:
        await self.store.feed(item)

    def close(self) -> None:
        self.store.closed = True


def one(item: Any) -> Iterator[Any]:
    yield item


async def one_later(item: Any) -> AsyncIterator[Any]:
    await asyncio.sleep(0)
    yield item


async def same_later(item: Any) -> Any:
    await asyncio.sleep(0)
    return item


@dataclass
class Kind:
    make: Callable[[Store], Sink[Any]]
    owns: bool = True
    """Whether it has work of its own: it remembers errors, its close cannot be cancelled, and dropped it warns."""
    shape: Callable[[list[Any]], list[Any]] = list
    """What arrives when these items were accepted."""
    combines: bool = True
    """Whether it is made of a sink, which it tells when it is given up."""


kinds: dict[str, Kind] = {
    "by hand": Kind(lambda store: store, owns=False),
    "with_map": Kind(lambda store: store.with_map(lambda item: item), owns=False),
    "with_map, async": Kind(lambda store: store.with_map(same_later), owns=False),
    "with_flat_map": Kind(lambda store: store.with_flat_map(one)),
    "with_flat_map, async": Kind(lambda store: store.with_flat_map(one_later)),
    "with_flat_map, two": Kind(
        lambda store: store.with_flat_map(lambda item: (item, item)),
        shape=lambda items: [item for item in items for _ in range(2)],
    ),
    "fanout": Kind(lambda store: drain().fanout(store)),
    "fanout of fanouts": Kind(lambda store: drain().fanout(drain().fanout(store).with_map(same_later), drain())),
    "batch": Kind(lambda store: store.batch(2)),
    "batch of one": Kind(lambda store: store.batch(1)),
    "batch by age": Kind(lambda store: store.batch(3, 1000)),
    "buffer": Kind(lambda store: store.buffer(2)),
    "buffer of one": Kind(lambda store: store.buffer(1)),
    "buffer of a buffer": Kind(lambda store: store.buffer(1).buffer(1)),
    "buffer of batches": Kind(lambda store: store.batch(2).buffer(2)),
    "batch before a buffer": Kind(lambda store: store.buffer(2).batch(2)),
    "retry": Kind(lambda store: store.retry(Schedule())),
    "retry in a buffer": Kind(lambda store: store.retry(Schedule()).buffer(1)),
    "from_function": Kind(lambda store: from_function(store.feed, close=store.close), combines=False),
    "sender": Kind(lambda store: SenderSink(StoreSender(store)), owns=False, combines=False),
}
every_kind = pytest.mark.parametrize("name", kinds)
every_owner = pytest.mark.parametrize("name", [name for name, kind in kinds.items() if kind.owns])
every_combinator = pytest.mark.parametrize("name", [name for name, kind in kinds.items() if kind.combines])
ITEMS: list[Any] = [0, None, "", KeyError(1), (), 5, 6]


async def turn(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


def cancel_others() -> None:
    for task in others():
        task.cancel()


async def cancelled_after(turns: int, call: Any) -> bool:
    """Whether `call` was cancelled, after so many turns; else it was over before."""
    task = asyncio.create_task(call)
    await turn(turns)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return task.cancelled()


@every_kind
async def test_everything_has_arrived_in_order_when_flush_returns_and_when_close_returns(name: str) -> None:
    kind, store = kinds[name], Store()
    async with kind.make(store) as sink:
        for item in ITEMS[:5]:
            await sink.feed(item)
        await sink.flush()
        assert store.items == kind.shape(ITEMS[:5])
        for item in ITEMS[5:]:
            await sink.feed(item)
    assert store.items == kind.shape(ITEMS)
    assert store.closed
    assert not others()


@every_kind
def test_it_is_made_without_a_loop_and_starts_nothing_before_its_first_item(name: str) -> None:
    store = Store()
    sink = kinds[name].make(store)

    async def main() -> None:
        await turn(3)
        assert not others()
        await sink.close()
        assert not others()
        assert store.closed and not store.items

    asyncio.run(main())


@every_kind
async def test_a_closed_one_accepts_nothing_and_can_be_closed_again(name: str) -> None:
    sink = kinds[name].make(Store())
    await sink.feed(1)
    await sink.close()
    for _ in range(2):
        with pytest.raises(SinkClosed):
            await sink.feed(2)
        with pytest.raises(SinkClosed):
            await sink.flush()
        await sink.close()
    assert not others()


@every_kind
async def test_what_was_accepted_arrives_although_the_body_raises(name: str) -> None:
    kind, store = kinds[name], Store()
    with pytest.raises(LookupError):
        async with kind.make(store) as sink:
            for item in ITEMS:
                await sink.feed(item)
            raise LookupError
    assert store.items == kind.shape(ITEMS)
    assert store.closed


@every_combinator
async def test_one_that_is_left_by_an_exception_gives_up_and_one_that_is_closed_does_not(name: str) -> None:
    kind = kinds[name]
    for count in (0, 1, 7):
        store = Store()
        with pytest.raises(LookupError):
            async with kind.make(store) as sink:
                for item in ITEMS[:count]:
                    await sink.feed(item)
                raise LookupError
        assert store.given_up and store.closed
        assert store.items == kind.shape(ITEMS[:count])

        store = Store()
        with pytest.raises(LookupError):
            async with kind.make(store) as sink:
                for item in ITEMS[:count]:
                    await sink.feed(item)
                await sink.close()
                raise LookupError
        assert store.closed and not (kind.owns and store.given_up)  # the others have no memory
        assert not others()


@every_combinator
async def test_who_is_cancelled_while_it_closes_has_not_given_it_up(name: str) -> None:
    for turns in range(1, 10):
        store = Store(turns=2)
        used = asyncio.Event()

        async def use(store: Store = store, used: asyncio.Event = used) -> None:
            async with kinds[name].make(store) as sink:
                await sink.feed(1)
                used.set()

        task = asyncio.create_task(use())
        await used.wait()
        await turn(turns)
        task.cancel()
        await asyncio.wait([task])
        await turn(20)
        assert not store.given_up
        assert store.closed or not kinds[name].owns
        assert not others()


@every_combinator
async def test_one_whose_tasks_somebody_cancels_gives_up_unless_all_has_arrived(name: str, warned: list[str]) -> None:
    for turns in range(1, 12):
        kind, store = kinds[name], Store(turns=2)
        sink = kind.make(store)
        for item in ITEMS[:3]:
            await sink.feed(item)
        close = asyncio.create_task(sink.close())
        await turn(turns)
        cancel_others()
        await asyncio.wait([close])
        with suppress(RuntimeError):
            await sink.close()
        del sink, close
        await turn(20)
        gc.collect(1)
        await turn(20)
        assert store.given_up or store.items == kind.shape(ITEMS[:3])
        assert not others()


@every_combinator
async def test_one_whose_work_has_failed_gives_up_also_when_it_is_closed(name: str) -> None:
    if not kinds[name].owns or name == "retry":
        return  # who closes it knows of the error, and may have gone on after it
    store = Store(fails_at="bad")
    sink = kinds[name].make(store)
    with pytest.raises(KeyError):
        await sink.feed(1)
        await sink.feed("bad")
        await sink.flush()
    with pytest.raises(KeyError):
        await sink.close()
    assert store.given_up and store.closed


@every_combinator
@pytest.mark.parametrize("fault", ["the stream fails", "the caller is cancelled", "it is dropped"])
async def test_a_file_below_it_is_replaced_by_all_or_by_nothing(
    name: str, fault: str, tmp_path: Path, warned: list[str]
) -> None:
    async def items(count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number
            await asyncio.sleep(0)
        if fault == "the caller is cancelled":
            forward.cancel()
            await asyncio.sleep(0)
        raise LookupError

    path = tmp_path / "lines"
    path.write_text("old\n")
    sink: Any = kinds[name].make(FileSink(path, mode="replace"))  # type: ignore[arg-type]
    if fault == "it is dropped":
        for number in range(10):
            await sink.feed(number)
        sink = None
        gc.collect(1)
    else:
        forward = asyncio.create_task(streams.iter(items(10)).forward(sink))
        await asyncio.wait([forward])
        assert forward.cancelled() or isinstance(forward.exception(), LookupError)
    while others():
        await asyncio.wait(others())
        await turn(3)
    assert path.read_text() == "old\n"
    assert [other.name for other in tmp_path.iterdir()] == ["lines"]

    sink = kinds[name].make(FileSink(path, mode="replace"))  # type: ignore[arg-type]
    await streams.iter(range(10)).forward(sink)
    assert "9" in path.read_text()


@every_kind
async def test_an_item_whose_feed_was_cancelled_was_not_accepted_and_no_other_is_lost(name: str) -> None:
    for turns in range(8):
        kind, store = kinds[name], Store()
        accepted = []
        async with kind.make(store) as sink:
            for item in ITEMS:
                if not await cancelled_after(turns, sink.feed(item)):
                    accepted.append(item)
            await sink.feed("last")
        assert store.items == kind.shape([*accepted, "last"])
        assert not others()


@every_kind
async def test_a_flush_that_was_cancelled_can_be_repeated(name: str) -> None:
    for turns in range(8):
        kind, store = kinds[name], Store()
        async with kind.make(store) as sink:
            for item in ITEMS:
                await sink.feed(item)
            await cancelled_after(turns, sink.flush())
            await sink.flush()
            assert store.items == kind.shape(ITEMS)


@every_owner
async def test_a_close_that_was_cancelled_goes_on_and_another_one_waits_for_it(name: str) -> None:
    for turns in range(10):
        kind, store = kinds[name], Store(turns=2)
        sink = kind.make(store)
        for item in ITEMS:
            await sink.feed(item)
        await cancelled_after(turns, sink.close())
        if turns:
            with pytest.raises(SinkClosed):
                await sink.feed("late")
        await sink.close()
        assert store.items == kind.shape(ITEMS)
        assert store.closed
        assert not others()


@every_owner
async def test_a_flush_beside_a_close_waits_like_it(name: str) -> None:
    kind, store = kinds[name], Store(turns=3)
    sink = kind.make(store)
    for item in ITEMS[:3]:
        await sink.feed(item)
    flush = asyncio.create_task(sink.flush())
    await turn(1)
    await sink.close()
    await flush
    assert store.items == kind.shape(ITEMS[:3])


@every_kind
async def test_an_error_is_raised_by_a_later_call_and_what_came_before_has_arrived(name: str) -> None:
    kind, store = kinds[name], Store(fails_at="bad")
    sink = kind.make(store)
    await sink.send(1)
    with pytest.raises(KeyError) as caught:
        await sink.feed("bad")
        await sink.flush()
    assert store.items == kind.shape([1])
    for _ in range(3):
        with pytest.raises(KeyError) as again:
            await sink.feed(2)
        assert again.value is caught.value
    if name not in ("sender", "from_function"):  # whose flush has nothing to do
        with pytest.raises(KeyError):
            await sink.flush()
    if name != "sender":
        for _ in range(2):
            with pytest.raises(KeyError):
                await sink.close()
    else:
        await sink.close()
    assert store.closed
    assert not others()


@every_owner
async def test_an_error_that_nobody_has_seen_is_raised_by_close(name: str) -> None:
    store = Store(fails_at="bad")
    sink = kinds[name].make(store)
    with pytest.raises(KeyError):
        await sink.feed("bad")
        await sink.close()
    with pytest.raises(KeyError):
        await sink.close()
    assert store.closed


@every_owner
async def test_the_traceback_of_an_error_does_not_grow_with_each_call(name: str) -> None:
    sink = kinds[name].make(Store(fails_at="bad"))
    depths = []
    for _ in range(5):
        with pytest.raises(KeyError) as caught:
            await sink.send("bad")
        depths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    with pytest.raises(KeyError):
        await sink.close()
    if name not in ("from_function", "retry"):  # they pass on what the store raises, which is of the old kind
        assert depths[-1] <= depths[1]


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Who was dropped and warned of it, whatever the context in which the last reference goes."""
    messages: list[str] = []

    def warn(message: object, *rest: object, **more: object) -> None:
        if "was dropped and never closed" in str(message):
            messages.append(str(message))

    monkeypatch.setattr(warnings, "warn", warn)
    return messages


@every_owner
async def test_a_dropped_one_warns_once_and_what_it_accepted_arrives(name: str, warned: list[str]) -> None:
    kind, store = kinds[name], Store()
    sink: Sink[Any] | None = kind.make(store)
    assert sink is not None
    for item in ITEMS:
        await sink.feed(item)
    sink = None
    await turn(60)
    gc.collect(1)
    await turn(60)
    assert len(warned) == 1
    assert store.items == kind.shape(ITEMS)
    assert store.closed
    assert not others()


@every_owner
async def test_one_whose_coroutine_is_thrown_away_counts_as_dropped(name: str, warned: list[str]) -> None:
    async def main() -> None:
        async with kind.make(store) as sink:
            await sink.feed(1)
            await asyncio.Event().wait()

    kind, store = kinds[name], Store(turns=0)
    coroutine = main()
    coroutine.send(None)
    coroutine.close()
    del coroutine
    await turn(60)
    gc.collect(1)
    await turn(60)
    assert len(warned) == 1
    assert store.items == kind.shape([1])
    assert store.closed


class Load:
    """Something that can be watched."""


@every_combinator
async def test_what_has_arrived_is_not_kept(name: str) -> None:
    async with kinds[name].make(drain()) as sink:  # type: ignore[arg-type]
        load = Load()
        watch = weakref.ref(load)
        await sink.feed(load)
        if "batch" in name:
            await sink.flush()
        del load
        await turn(5)
        gc.collect(1)
        assert watch() is None


@every_owner
async def test_one_that_was_never_used_is_dropped_without_a_word(name: str) -> None:
    kinds[name].make(Store())


@every_owner
def test_one_that_outlives_its_loop_warns_and_no_more(name: str) -> None:
    async def main() -> Sink[Any]:
        sink = kinds[name].make(Store(turns=0))
        await sink.feed(1)
        await turn(3)
        return sink

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        asyncio.run(main())
        gc.collect(1)
        messages = [str(warning.message) for warning in warned]
        warned.clear()  # they keep what they are about
    assert messages
    assert all("was dropped and never closed" in message for message in messages)


@every_owner
def test_a_keyboard_interrupt_within_it_is_raised_and_reported_by_later_calls(name: str) -> None:
    store = Store(fails_at="bad", error=KeyboardInterrupt())
    sink = kinds[name].make(store)

    async def main() -> None:
        await sink.feed("bad")
        await sink.flush()

    async def again() -> None:
        if name not in ("from_function", "retry"):  # the item was not accepted
            with pytest.raises(RuntimeError, match="KeyboardInterrupt"):
                await sink.send(1)
                await sink.close()
            with pytest.raises(RuntimeError, match="KeyboardInterrupt"):
                await sink.close()
        else:
            await sink.close()

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)
    try:
        main_task = loop.create_task(main())
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(main_task)
        store.failed = None
        main_task.cancel()
        loop.run_until_complete(asyncio.wait([main_task]))
        loop.run_until_complete(again())
        del main_task
        gc.collect(1)
    finally:
        loop.close()


@every_kind
async def test_its_repr_names_it_and_what_is_below(name: str) -> None:
    sink = kinds[name].make(Store())
    assert "store" in repr(sink).lower() or "feed" in repr(sink)
    await sink.close()
    assert name == "by hand" or name.startswith("with_map") or name == "sender" or "closed" in repr(sink)
