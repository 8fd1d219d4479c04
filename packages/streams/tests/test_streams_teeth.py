"""Wrong variants of streams and sinks, each of which their explored scenarios must catch."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from yamanote.channels import ChannelClosed
from yamanote.runtime import start_task
from yamanote.sinks import SenderSink
from yamanote.sinks._buffer import Buffer
from yamanote.sinks._fanout import Fanout
from yamanote.sinks._sink import Guarded
from yamanote.streams._buffered import Ordered, Unordered, _Buffered
from yamanote.streams._calls import _Calls
from yamanote.streams._chunks_timeout import ChunksTimeout
from yamanote.streams._feeder import Feeder
from yamanote.testing import Counterexample, explore, explore_cancellations, replay

from .test_streams_explored import scenarios


def one_more_than_the_limit(buffer: Any, item: Any) -> bool:
    buffer._start(item)
    return bool(buffer._occupied <= buffer._limit)


def forget_what_was_waited_for(buffer: Unordered[Any], entry: Any) -> None:
    pass


def in_the_order_of_their_ends(buffer: Ordered[Any]) -> asyncio.Task[Any] | None:
    for task in buffer._window:
        if task.done():
            buffer._queue.pop_nowait()
            buffer._window.remove(task)
            return task
    return None


async def leave_the_tasks_running(buffer: Any) -> None:
    buffer._over = True
    buffer._queue.cancel_all()
    await buffer._source.close()


async def leave_the_source_open(buffer: Any) -> None:
    buffer._over = True
    await buffer._queue.aclose()


async def call_with_an_item_in_the_hand(calls: Any) -> tuple[Any, Any]:
    if calls._over:
        calls.raise_end()
    item = await calls._source.pull()
    return item, await calls._function(item)


async def hear_nothing_of_a_task_that_never_began(chunks: ChunksTimeout) -> None:
    chunks._waiting = asyncio.get_running_loop().create_future()
    try:
        if chunks._task is None:
            chunks._task = start_task(chunks._feeder.run())
        else:
            chunks._feeder.want()
        await chunks._waiting
    finally:
        chunks._waiting = None


def drop_what_nobody_waits_for(chunks: ChunksTimeout, item: Any) -> bool:
    if chunks._waiting is not None and not chunks._waiting.done():
        chunks._partial.append(item)
        chunks._expire()
    return True


async def run_without_a_failure(feeder: Feeder) -> None:
    try:
        while True:
            if not feeder._accept(await feeder._source.pull()):
                feeder._wanted = asyncio.get_running_loop().create_future()
                await feeder._wanted
    except (StopAsyncIteration, asyncio.CancelledError):
        feeder._ended(None)


async def stop_at_once(buffer: Buffer[Any]) -> None:
    buffer._closed = True
    if buffer._task is not None:
        buffer._items.close()
        buffer._task.cancel()
        await asyncio.wait([buffer._task])
    await buffer._work.sink.close()


async def send_and_maybe_be_cancelled(buffer: Buffer[Any], item: Any) -> None:
    try:
        await buffer._items.send(item)
    except ChannelClosed:
        buffer._check()
        raise


async def send_without_a_permit(sink: SenderSink[Any], item: Any) -> None:
    await sink._sender.send(item)


async def give_up_at_the_first_error(fanout: Fanout[Any]) -> None:
    while fanout._missing:
        try:
            await fanout._missing[0].feed(fanout._item)
        except Exception as error:
            fanout._fail(error)
            fanout._missing.clear()
        else:
            fanout._missing.popleft()


async def count_as_fed_before(fanout: Fanout[Any]) -> None:
    while fanout._missing:
        try:
            await fanout._missing.popleft().feed(fanout._item)
        except Exception as error:
            fanout._fail(error)


async def close_once(sink: Guarded[Any]) -> None:
    if sink._closing is None:
        sink._closing = start_task(sink._finish_guarded())
    await asyncio.wait([sink._closing])
    if sink._error is not None:
        raise sink._error


teeth: dict[str, tuple[type, str, Callable[..., Any], str]] = {
    "one more than the limit": (_Buffered, "_accept", one_more_than_the_limit, "buffered, a feeder"),
    "a completion is forgotten": (Unordered, "_note", forget_what_was_waited_for, "buffered_unordered"),
    "results out of order": (Ordered, "_take", in_the_order_of_their_ends, "buffered"),
    "close does not wait for the tasks": (_Buffered, "_close", leave_the_tasks_running, "left early: buffered"),
    "a source stays open": (_Buffered, "_close", leave_the_source_open, "left early: buffered"),
    "a cut source passes for its end": (Feeder, "run", run_without_a_failure, "buffered, a feeder"),
    "an item is lost with its call": (_Calls, "_call", call_with_an_item_in_the_hand, "one by one"),
    "a feeder that never began": (ChunksTimeout, "_wait", hear_nothing_of_a_task_that_never_began, "chunks_timeout"),
    "an item that nobody waits for": (ChunksTimeout, "_accept", drop_what_nobody_waits_for, "chunks_timeout"),
    "a buffer drops on close": (Buffer, "close", stop_at_once, "buffer, closed early"),
    "a buffer takes what was cancelled": (Buffer, "_put", send_and_maybe_be_cancelled, "buffer"),
    "a sender sends what was cancelled": (SenderSink, "feed", send_without_a_permit, "sender"),
    "a fan-out skips after an error": (Fanout, "_deliver", give_up_at_the_first_error, "fanout, an error"),
    "a fan-out loses an item for one sink": (Fanout, "_deliver", count_as_fed_before, "fanout"),
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


@pytest.mark.parametrize("tooth", ["a buffer takes what was cancelled", "an item that nobody waits for"])
def test_some_order_shows_it(tooth: str, break_it: Callable[[str], str]) -> None:
    name = break_it(tooth)
    with pytest.raises(Counterexample) as found:
        explore(scenarios[name])
    with pytest.raises(Counterexample):
        replay(scenarios[name], found.value.token)
