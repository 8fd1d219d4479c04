"""Wrong variants of streams, each of which their explored scenarios must catch."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from yamanote.runtime import cancel_and_wait, start_task, yield_now
from yamanote.streams._buffered import _Buffered
from yamanote.streams._calls import _Calls
from yamanote.streams._chunks_timeout import ChunksTimeout
from yamanote.streams._fed import Fed
from yamanote.streams._feeder import Feeder
from yamanote.streams._prefetch import Prefetch
from yamanote.streams._zip_concurrently import ZipConcurrently
from yamanote.testing import Counterexample, explore, explore_cancellations, replay

from .test_streams_explored import scenarios


def one_more_than_the_limit(buffer: Any, item: Any) -> bool:
    buffer._start(item)
    return bool(buffer._occupied <= buffer._limit)


def end_without_a_word(buffer: Any, task: asyncio.Task[Any]) -> None:
    del buffer._running[task]
    if not buffer.in_order:
        buffer._results.append(task)


def wake_for_the_last_one(buffer: Any, task: asyncio.Task[Any]) -> None:
    del buffer._running[task]
    if buffer._results and buffer._results[-1] is task:
        buffer._wake()


def in_the_order_of_their_ends(buffer: Any) -> asyncio.Task[Any] | None:
    for task in buffer._results:
        if task.done():
            buffer._occupied -= 1
            buffer._results.remove(task)
            return task
    return None


async def leave_the_tasks_running(buffer: Any) -> None:
    buffer._cancel()
    await buffer._source.close()


async def leave_the_source_open(buffer: Any) -> None:
    buffer._over = True
    await cancel_and_wait(*buffer._running)


async def take_and_then_wait(prefetch: Prefetch[Any]) -> Any:
    item = await Fed.pull(prefetch)
    await yield_now()
    return item


def one_more_ahead(prefetch: Prefetch[Any], item: Any) -> bool:
    prefetch._ahead.append(item)
    prefetch._wake()
    return len(prefetch._ahead) <= (prefetch._limit or 0)


async def begin_the_round_anew(zipped: ZipConcurrently[Any]) -> None:
    zipped._waiting = asyncio.get_running_loop().create_future()
    try:
        await zipped._waiting
    except asyncio.CancelledError:
        zipped._round.clear()
        raise
    finally:
        zipped._waiting = None


def ask_for_the_next_round(zipped: ZipConcurrently[Any], number: int, item: Any) -> bool:
    zipped._round.setdefault(number, item)
    if len(zipped._round) == len(zipped._sources):
        zipped._wake()
    return True


async def call_with_an_item_in_the_hand(calls: Any) -> tuple[Any, Any]:
    item = await calls.source.pull()
    return item, await calls.function(item)


async def hear_nothing_of_a_task_that_never_began(operator: Fed[Any]) -> None:
    operator._waiting = asyncio.get_running_loop().create_future()
    try:
        if operator._task is None:
            operator._task = start_task(operator._feeder.run())
        else:
            operator._feeder.want()
        await operator._waiting
    finally:
        operator._waiting = None


def drop_what_nobody_waits_for(chunks: ChunksTimeout, item: Any) -> bool:
    if chunks._wanted:
        chunks._age_limit = chunks._now()
        chunks._partial.append(item)
        chunks._wake()
    return True


async def run_without_a_failure(feeder: Feeder) -> None:
    try:
        while True:
            if not feeder._accept(await feeder._source.pull()):
                feeder._wanted = asyncio.get_running_loop().create_future()
                await feeder._wanted
    except (StopAsyncIteration, asyncio.CancelledError):
        feeder._ended(None)


teeth: dict[str, tuple[type, str, Callable[..., Any], str]] = {
    "one more than the limit": (_Buffered, "_accept", one_more_than_the_limit, "buffered, a feeder"),
    "a completion is forgotten": (_Buffered, "_leave", end_without_a_word, "buffered_unordered"),
    "a wake-up for another one": (_Buffered, "_leave", wake_for_the_last_one, "buffered"),
    "results out of order": (_Buffered, "_take", in_the_order_of_their_ends, "buffered"),
    "close does not wait for the tasks": (_Buffered, "_close", leave_the_tasks_running, "left early: buffered"),
    "a source stays open": (_Buffered, "_close", leave_the_source_open, "left early: buffered"),
    "a cut source passes for its end": (Feeder, "run", run_without_a_failure, "buffered, a feeder"),
    "a call outlives the stream": (_Buffered, "_close", leave_the_tasks_running, "for_each"),
    "an item is lost behind its prefetch": (Prefetch, "pull", take_and_then_wait, "prefetch"),
    "one more ahead than the limit": (Prefetch, "_accept", one_more_ahead, "prefetch, more"),
    "a round is lost": (ZipConcurrently, "_wait", begin_the_round_anew, "zip_concurrently"),
    "a round too early": (ZipConcurrently, "_accept", ask_for_the_next_round, "zip_concurrently"),
    "an item is lost with its call": (_Calls, "pull", call_with_an_item_in_the_hand, "one by one"),
    "a feeder that never began": (Fed, "_wait", hear_nothing_of_a_task_that_never_began, "chunks_timeout"),
    "an item that nobody waits for": (ChunksTimeout, "_accept", drop_what_nobody_waits_for, "chunks_timeout"),
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


@pytest.mark.parametrize("tooth", ["an item that nobody waits for"])
def test_some_order_shows_it(tooth: str, break_it: Callable[[str], str]) -> None:
    name = break_it(tooth)
    with pytest.raises(Counterexample) as found:
        explore(scenarios[name])
    with pytest.raises(Counterexample):
        replay(scenarios[name], found.value.token)
