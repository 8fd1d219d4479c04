"""Joined streams in any order of their steps, and cancelled at each of their awaits; wrong ones are caught."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from yamanote import streams
from yamanote.channels import Receiver, channel
from yamanote.runtime import JoinError, yield_now
from yamanote.streams import Stream
from yamanote.streams._chain import Chain
from yamanote.streams._operator import Operator
from yamanote.streams._peekable import Peekable
from yamanote.streams._ready_chunks import ReadyChunks
from yamanote.streams._sequential import Sequential
from yamanote.streams._take_until import TakeUntil
from yamanote.streams._zip import Zip
from yamanote.testing import Counterexample, explore, explore_cancellations
from yamanote.time import sleep


def later(seconds: float, call: Callable[..., object], *args: object) -> None:
    """By a timer, so that there is no task which could be cancelled."""
    asyncio.get_running_loop().call_later(seconds, call, *args)


class Kept:
    """What comes from a receiver. That stays open when this is closed, so nothing in it is lost."""

    def __init__(self, receiver: Receiver[int]) -> None:
        self.receiver = receiver
        self.closed = False

    def __aiter__(self) -> Kept:
        return self

    async def __anext__(self) -> int:
        assert not self.closed
        return await anext(self.receiver)

    async def aclose(self) -> None:
        try:
            await yield_now()
        finally:
            self.closed = True


class Source(Kept):
    """So many numbers, some at a time, and then the end."""

    def __init__(self, count: int, burst: int = 2) -> None:
        sender, receiver = channel[int](count)
        super().__init__(receiver)

        def send(number: int) -> None:
            for each in range(number, min(number + burst, count)):
                sender.send_nowait(each)

        # Each in a moment of its own: what is due at the same moment comes in any order.
        for number in range(0, count, burst):
            later(number / 2, send, number)
        later(count, sender.close)

    async def left(self) -> list[int]:
        """What has not been pulled."""
        assert self.closed
        with self.receiver:
            return [number async for number in self.receiver]


def is_cancelled() -> bool:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling() > 0


async def in_a_task(call: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Call it in a task, which may be cancelled, and then here, where nobody is."""
    task = asyncio.create_task(call())
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    await call()


class Pulls:
    """Pulls a stream to its end."""

    def __init__(self, stream: Stream[Any]) -> None:
        self.stream = stream
        self.seen: list[Any] = []
        self.cut = False
        """Whether a task of the stream was cancelled, which is its end."""

    async def __call__(self) -> None:
        while True:
            try:
                self.seen.append(await anext(self.stream))
            except StopAsyncIteration:
                return
            except (asyncio.CancelledError, JoinError):
                if is_cancelled():
                    raise
                self.cut = True

    async def to_the_end(self) -> None:
        async with self.stream:
            await in_a_task(self)


async def chains() -> None:
    """All items of one source, then all of the next, which is asked when the first is closed."""
    first, second = Source(3), Source(4)

    def look(number: int) -> int:
        assert first.closed
        return number

    pulls = Pulls(streams.iter(first).chain(streams.iter(second).map(look)))
    await pulls.to_the_end()
    assert pulls.seen == [0, 1, 2, 0, 1, 2, 3]
    assert await first.left() == await second.left() == []


async def zips() -> None:
    """No round is torn by a cancellation, and one item of the first source belongs to no tuple."""
    first, second = Source(5), Source(3)
    pulls = Pulls(streams.iter(first).zip(second))
    await pulls.to_the_end()
    assert pulls.seen == [(0, 0), (1, 1), (2, 2)]
    assert await first.left() == [4]
    assert await second.left() == []


async def peeks() -> None:
    """What was seen is what is pulled, in order; who is cancelled takes nothing away."""
    source = Source(4)
    seen: list[int] = []

    async def look_and_take() -> None:
        while (number := await stream.peek(None)) is not None:
            seen.append(await anext(stream))
            assert seen[-1] == number

    async with streams.iter(source).peekable() as stream:
        await in_a_task(look_and_take)
    assert seen == [0, 1, 2, 3]
    assert await source.left() == []


async def takes_until(end_is_an_item: bool) -> None:
    """The items before the end came once, the others are there still; the work that is the end has ended."""
    source = Source(8)
    ends, end = channel[str](2)

    def send_both() -> None:
        with ends:
            ends.send_nowait("stop")
            ends.send_nowait("another")

    later(2, send_both)
    running: list[bool] = []

    async def work() -> None:
        running.append(True)
        try:
            await sleep(2)
        finally:
            try:
                await yield_now()
            finally:
                running.pop()

    stop: Receiver[str] | Coroutine[Any, Any, None] = end if end_is_an_item else work()
    pulls = Pulls(streams.iter(source).take_until(stop))
    await pulls.to_the_end()
    assert not running
    left = await source.left()
    assert pulls.seen + left == [*range(8)]
    assert pulls.cut or 4 <= len(pulls.seen) <= 6
    with end:
        if end_is_an_item:
            assert await end.recv() == "another"


async def ends_before_its_end() -> None:
    """Work that is not needed any more has ended when the stream has."""
    source = Source(3)
    running: list[bool] = []

    async def work() -> None:
        running.append(True)
        try:
            await sleep(1000)
        finally:
            running.pop()

    pulls = Pulls(streams.iter(source).take_until(work()))
    await pulls.to_the_end()
    assert not running
    assert pulls.seen + await source.left() == [0, 1, 2]


async def gives_an_end_back() -> None:
    """An end that is handed to a pull which is cancelled, or has its item, ends the next pull."""
    ends, end = channel[int](3)
    sender, receiver = channel[int](3)
    later(1, ends.send_nowait, 1)
    later(1, sender.send_nowait, 2)
    stream = streams.iter(Kept(receiver)).take_until(end)

    async def pull() -> int | None:
        return await anext(stream, None)

    with end, ends, receiver, sender:
        pulling = asyncio.create_task(pull())
        await sleep(2)
        taken = None if pulling.cancelled() else pulling.result()
        assert (taken, len(receiver), len(end)) in [(2, 0, 1), (None, 1, 0), (None, 1, 1)]
        await stream.aclose()


async def gathers_what_is_ready(limit: int) -> None:
    """Each item comes once, in order, in a chunk that is neither empty nor too long; none is lost."""
    source = Source(7, burst=5)
    pulls = Pulls(streams.iter(source).ready_chunks(limit))
    await pulls.to_the_end()
    assert all(1 <= len(chunk) <= limit for chunk in pulls.seen)
    items = [item for chunk in pulls.seen for item in chunk]
    left = await source.left()
    assert items + left == [*range(7)]
    assert pulls.cut or not left


Scenario = Callable[[], Coroutine[Any, Any, None]]
scenarios: dict[str, Scenario] = {
    "chain": chains,
    "zip": zips,
    "peekable": peeks,
    "take_until an item": partial(takes_until, True),
    "take_until work": partial(takes_until, False),
    "take_until, the source first": ends_before_its_end,
    "take_until, both at once": gives_an_end_back,
    "ready_chunks(1)": partial(gathers_what_is_ready, 1),
    "ready_chunks(3)": partial(gathers_what_is_ready, 3),
}


@pytest.mark.parametrize("name", scenarios)
def test_in_any_order(name: str) -> None:
    explore(scenarios[name], runs=100)


@pytest.mark.parametrize("name", scenarios)
def test_cancelled_at_any_await(name: str) -> None:
    explore_cancellations(scenarios[name], runs=150)


async def forget_the_round(zipped: Zip) -> tuple[Any, ...]:
    return tuple([await source.pull() for source in zipped._sources])


async def leave_before_the_end(chain: Chain[Any]) -> Any:
    while chain._rest:
        try:
            return await chain._rest.popleft().pull()
        except StopAsyncIteration:
            pass
    raise StopAsyncIteration


async def take_and_then_keep(peekable: Peekable[Any]) -> Any:
    if not peekable._seen:
        item = await Sequential.pull(peekable)
        await yield_now()
        peekable._seen.append(item)
    return peekable._seen[0]


async def leave_the_work_running(taken: TakeUntil[Any]) -> None:
    await Operator._close(taken)


def drop_what_nobody_waits_for(chunks: ReadyChunks, item: Any) -> bool:
    if chunks._wanted or not chunks._ready:
        chunks._ready.append(item)
        chunks._wake()
    return len(chunks._ready) < chunks._limit


def one_too_many(chunks: ReadyChunks, item: Any) -> bool:
    chunks._ready.append(item)
    chunks._wake()
    return len(chunks._ready) <= chunks._limit


def forget_what_was_handed_over(receiver: Receiver[Any], waiter: Any) -> None: ...


@pytest.mark.parametrize(
    ("name", "place", "wrong"),
    [
        pytest.param("zip", (Zip, "_next"), forget_the_round, id="a zip that forgets the round"),
        pytest.param("chain", (Chain, "_next"), leave_before_the_end, id="a chain that leaves a source too early"),
        pytest.param("peekable", (Peekable, "peek"), take_and_then_keep, id="a peek that takes, and then keeps"),
        pytest.param(
            "take_until, the source first",
            (TakeUntil, "_close"),
            leave_the_work_running,
            id="work that is left running",
        ),
        pytest.param(
            "take_until, both at once", (Receiver, "withdraw"), forget_what_was_handed_over, id="an end that is lost"
        ),
        pytest.param(
            "ready_chunks(3)", (ReadyChunks, "_accept"), drop_what_nobody_waits_for, id="chunks that drop an item"
        ),
        pytest.param("ready_chunks(3)", (ReadyChunks, "_accept"), one_too_many, id="chunks that are too long"),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # what a broken scenario leaves behind
def test_a_wrong_variant_is_caught(
    name: str, place: tuple[type, str], wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*place, wrong)
    with pytest.raises(Counterexample):
        explore(scenarios[name], runs=100)
        explore_cancellations(scenarios[name], runs=300)
    gc.collect()
