"""Rounds of several sources: together, complete, cancelled, ended, failed."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from yamanote import streams
from yamanote.channels import channel
from yamanote.runtime import run
from yamanote.time import VirtualClock, sleep, time


class Paced:
    """Counts up to `count`, and takes `seconds` for each. Loses nothing when a pull is cancelled."""

    def __init__(self, count: int, seconds: float = 1.0, error: Exception | None = None) -> None:
        self.count = count
        self.seconds = seconds
        self.error = error
        self.pulls = 0
        self.given = 0
        self.closed = 0

    def __aiter__(self) -> Paced:
        return self

    async def __anext__(self) -> int:
        self.pulls += 1
        await sleep(self.seconds)
        if self.given < self.count:
            self.given += 1
            return self.given - 1
        if self.error is not None:
            raise self.error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        await sleep(0)
        self.closed += 1


def test_a_round_takes_as_long_as_the_slowest_source() -> None:
    async def main() -> None:
        sources = [Paced(4, seconds) for seconds in (1, 3, 2)]
        began = time()
        got = await streams.zip_concurrently(*sources, "abcdef").collect()
        assert got == [(number, number, number, "abcdef"[number]) for number in range(4)]
        assert time() - began == 4 * 3 + 1  # the first one is the first to say that it has ended
        assert [source.closed for source in sources] == [1, 1, 1]

    run(main(), clock=VirtualClock())


def test_no_source_is_asked_for_more_than_its_part_of_the_round() -> None:
    async def main() -> None:
        sources = [Paced(9, 0), Paced(9, 5)]
        async with streams.zip_concurrently(*sources) as stream:
            for rounds in range(1, 4):
                await anext(stream)
                await sleep(10)
                assert [source.pulls for source in sources] == [rounds, rounds]

    run(main(), clock=VirtualClock())


@pytest.mark.parametrize("lengths", [(0, 3), (3, 0), (2, 5), (5, 2), (200, 300)])
async def test_it_ends_with_the_shortest(lengths: tuple[int, int]) -> None:
    async def numbers(count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number

    left, right = lengths
    wanted = list(zip(range(left), range(right), strict=False))
    assert await streams.zip_concurrently(range(left), range(right)).collect() == wanted
    assert await streams.zip_concurrently(numbers(left), range(right)).collect() == wanted
    assert await streams.zip_concurrently(range(left), numbers(right)).collect() == wanted
    stream = streams.zip_concurrently(numbers(left), numbers(right))
    assert [pair async for pair in stream] == wanted
    for _ in range(2):
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_source_that_is_there_and_has_ended_costs_the_others_nothing() -> None:
    sender, receiver = channel[str](5)
    sender.send_nowait("a")
    sender.send_nowait("b")
    assert await streams.zip_concurrently(receiver.clone(), [1]).collect() == [("a", 1)]
    assert receiver.recv_nowait() == "b"
    receiver.close()
    sender.close()


async def test_without_sources_it_is_empty_and_with_one_there_are_tuples_of_one() -> None:
    assert await streams.zip_concurrently().collect() == []
    assert await streams.zip_concurrently([1, 2]).collect() == [(1,), (2,)]


async def test_falsy_items_and_errors_are_items() -> None:
    items: list[Any] = [0, None, "", [], KeyError("an item")]
    sender, receiver = channel[Any](5)
    with sender:
        for item in items:
            sender.send_nowait(item)
    assert await streams.zip_concurrently(items, receiver).collect() == [(item, item) for item in items]


@pytest.mark.parametrize("fails_first", [False, True])
def test_an_error_is_raised_once_and_closes_the_others(fails_first: bool) -> None:
    async def main() -> None:
        error = KeyError("source")
        sources = [Paced(2, 1, error), Paced(9, 2)]
        stream = streams.zip_concurrently(*sources if fails_first else reversed(sources))
        assert [await anext(stream), await anext(stream)] == [(0, 0), (1, 1)]
        with pytest.raises(KeyError) as raised:
            await anext(stream)
        assert raised.value is error
        assert [source.closed for source in sources] == [1, 1]
        assert asyncio.all_tasks() == {asyncio.current_task()}
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    run(main(), clock=VirtualClock())


async def test_an_error_of_a_source_that_is_there_comes_in_its_place() -> None:
    def numbers() -> Any:
        yield 1
        raise KeyError("source")

    other = Paced(9, 0)
    stream = streams.zip_concurrently(other, numbers())
    assert await anext(stream) == (0, 1)
    with pytest.raises(KeyError):
        await anext(stream)
    assert other.closed == 1


def test_of_two_errors_in_a_round_the_first_is_raised_and_the_other_goes_to_the_handler() -> None:
    async def main() -> None:
        reported = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
        first, second = KeyError("first"), KeyError("second")
        with pytest.raises(KeyError) as raised:
            await streams.zip_concurrently(Paced(0, 1, first), Paced(0, 1, second)).collect()
        assert raised.value is first
        assert reported == [second]

    run(main(), clock=VirtualClock())


@pytest.mark.parametrize("patience", [0.0, 0.5, 1.5, 2.5])
def test_a_pull_that_is_cancelled_keeps_what_has_come_of_its_round(patience: float) -> None:
    async def main() -> None:
        sources = [Paced(3, seconds) for seconds in (0, 1, 2)]
        got = []
        async with streams.zip_concurrently(*sources, range(3)) as stream:
            while True:
                pull = asyncio.create_task(anext(stream, None))
                await sleep(patience)
                pull.cancel()
                try:
                    item = await pull
                except asyncio.CancelledError:
                    await sleep(0.25)
                    continue
                if item is None:
                    break
                got.append(item)
        assert got == [(number,) * 4 for number in range(3)]
        assert all(source.pulls <= 4 for source in sources)

    run(main(), clock=VirtualClock())


async def test_a_second_task_that_pulls_meanwhile_is_refused() -> None:
    async with streams.zip_concurrently(Paced(1, 0.01), [1]) as stream:
        pull = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await anext(stream)
        assert await pull == (0, 1)


async def test_a_task_of_it_that_somebody_cancels_is_no_end() -> None:
    stream = streams.zip_concurrently(Paced(1, 1000), Paced(1, 1000))
    pull = asyncio.create_task(anext(stream))
    for _ in range(3):
        await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {pull, asyncio.current_task()}:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(pull, 5)


@pytest.mark.parametrize("turns", range(5))
async def test_who_pulls_while_it_is_closed_sees_the_end(turns: int) -> None:
    sources = [Paced(1, 1000), Paced(1, 0)]
    stream = streams.zip_concurrently(*sources)
    pull = asyncio.create_task(anext(stream, "end"))
    for _ in range(turns):
        await asyncio.sleep(0)
    await stream.aclose()
    assert await asyncio.wait_for(pull, 5) == "end"
    assert [source.closed for source in sources] == [1, 1]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_what_it_owned_is_cancelled_when_it_is_dropped() -> None:
    sources = [Paced(1, 1000), Paced(1, 1000)]
    stream = streams.zip_concurrently(*sources)
    pull = asyncio.create_task(anext(stream))
    for _ in range(3):
        await asyncio.sleep(0)
    pull.cancel()
    await asyncio.wait([pull])
    with pytest.warns(ResourceWarning, match=r"zip_concurrently.*2 tasks"):
        del stream, pull
        gc.collect()
    for _ in range(5):
        await asyncio.sleep(0)
    assert [source.closed for source in sources] == [1, 1]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_task_that_is_cancelled_before_it_begins_is_no_end() -> None:
    stream = streams.zip_concurrently(Paced(1, 1000))
    pull = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {pull, asyncio.current_task()}:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(pull, 5)


async def test_what_cannot_be_iterated_over_is_refused_and_the_streams_stay_usable() -> None:
    stream = streams.iter([1])
    wrong: Any = 7
    with pytest.raises(TypeError, match=r"sources\[1\]"):
        streams.zip_concurrently(stream, wrong)
    with pytest.raises(ValueError, match=r"sources\[1\]"):
        streams.zip_concurrently(stream, stream)
    zipped = streams.zip_concurrently(stream, "ab")
    assert repr(zipped) == "<Stream zip_concurrently(list, str)>"
    with pytest.raises(RuntimeError, match="zip_concurrently"):
        await anext(stream)
    assert await zipped.collect() == [(1, "a")]
