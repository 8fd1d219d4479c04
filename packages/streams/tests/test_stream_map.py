"""Sources that come and go: `StreamMap`."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from yamanote import streams
from yamanote.channels import channel
from yamanote.runtime import run, yield_now
from yamanote.streams import StreamMap
from yamanote.time import VirtualClock, sleep


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


async def turn(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


class Source:
    def __init__(self, *items: Any, every: float = 1, error: Exception | None = None) -> None:
        self.items = items
        self.every = every
        self.error = error
        self.closed = 0

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            for item in self.items:
                await sleep(self.every)
                yield item
            if self.error is not None:
                raise self.error
        finally:
            await yield_now()
            self.closed += 1


def test_sources_come_while_somebody_waits_and_it_ends_when_it_is_empty() -> None:
    async def main() -> None:
        rooms: StreamMap[str, int] = StreamMap()
        assert [pair async for pair in rooms] == []
        rooms.insert("slow", Source(1, 2, every=3))

        async def insert() -> None:
            await sleep(1)
            rooms.insert("quick", Source(10, 11))
            await sleep(0.5)
            rooms.insert("ready", [20, 21])

        inserting = asyncio.create_task(insert())
        pairs = [pair async for pair in rooms]
        assert pairs == [("ready", 20), ("ready", 21), ("quick", 10), *pairs[3:]]
        assert sorted(pairs[3:]) == [("quick", 11), ("slow", 1), ("slow", 2)]
        assert len(rooms) == 0
        rooms.insert("again", [30])
        assert [pair async for pair in rooms] == [("again", 30)]
        await inserting
        assert not others()

    run(main(), clock=VirtualClock())


async def test_it_tells_what_is_in_it() -> None:
    async with StreamMap[str, int]() as rooms:
        assert repr(rooms) == "<StreamMap empty>"
        rooms.insert("a", [1])
        rooms.insert("b", [2])
        assert len(rooms) == 2 and "a" in rooms and "c" not in rooms
        assert list(rooms.keys()) == ["a", "b"]
        assert repr(rooms) == "<StreamMap a, b>"


def test_it_can_be_filled_before_a_loop_runs() -> None:
    rooms: StreamMap[str, int] = StreamMap()
    first = Source(1)
    rooms.insert("a", first)
    rooms.insert("a", [2])
    assert rooms.remove("a") is not None
    rooms.insert("b", [3])

    async def main() -> list[Any]:
        async with rooms:
            return [pair async for pair in rooms]

    assert run(main()) == [("b", 3)]


async def test_sources_that_are_ready_take_turns() -> None:
    async with StreamMap[int, str]() as rooms:
        for key in range(3):
            rooms.insert(key, "abcd")
        keys = [key async for key, _ in rooms]
    assert keys == [0, 1, 2] * 4


def test_a_source_that_is_removed_goes_on_as_a_stream_and_nothing_is_lost() -> None:
    async def main() -> None:
        for moment in (0.5, 1.5, 2.5, 4.5, 6.5):
            source = Source(1, 2, 3, 4, 5, every=1)
            rooms: StreamMap[str, int] = StreamMap()
            rooms.insert("a", source)
            rooms.insert("b", Source("x", every=3))
            seen: list[int] = []

            async def consume(rooms: StreamMap[str, int] = rooms, seen: list[int] = seen) -> None:
                async for key, item in rooms:
                    if key == "a":
                        seen.append(item)
                    await sleep(1.1)

            consuming = asyncio.create_task(consume())
            await sleep(moment)
            stream = rooms.remove("a")
            assert "a" not in rooms and rooms.remove("a") is None
            if stream is not None:
                seen_by_then = list(seen)
                rest = await stream.collect()
                assert seen_by_then + rest == [1, 2, 3, 4, 5]
            await consuming
            assert source.closed == 1 and not others()

    run(main(), clock=VirtualClock())


async def test_removing_the_last_source_ends_the_wait_of_who_iterates() -> None:
    sender, receiver = channel[int](1)
    with sender:
        rooms: StreamMap[str, int] = StreamMap()
        rooms.insert("a", receiver)
        pull = asyncio.create_task(anext(rooms, "the end"))
        await turn(2)
        stream = rooms.remove("a")
        assert await pull == "the end"
        await sender.send(1)
        assert stream is not None
        async with stream:
            assert repr(stream) == "<Stream Receiver>"
            assert await anext(stream) == 1


@pytest.mark.parametrize("pulled", [False, True], ids=["new", "pulled"])
async def test_a_source_whose_key_is_given_to_another_is_closed_and_gives_nothing_more(pulled: bool) -> None:
    old = Source(1, 2, every=0)
    async with StreamMap[str, int]() as rooms:
        rooms.insert("a", old)
        if pulled:
            assert await anext(rooms) == ("a", 1)
        rooms.insert("a", [3])
        assert [pair async for pair in rooms] == [("a", 3)]
        assert old.closed == pulled
        assert not others()


async def test_what_is_replaced_while_it_stops_does_not_keep_the_others_waiting() -> None:
    stopped = asyncio.Event()

    async def stubborn() -> AsyncIterator[int]:
        try:
            await asyncio.Event().wait()
            yield 0
        finally:
            await stopped.wait()

    async with StreamMap[str, int]() as rooms:
        rooms.insert("a", stubborn())
        pull = asyncio.create_task(anext(rooms))
        await turn(3)
        rooms.insert("a", [1, 2])
        assert await pull == ("a", 1)
        assert await anext(rooms) == ("a", 2)
        end = asyncio.create_task(anext(rooms, "the end"))
        await turn(5)
        assert not end.done()  # no task outlives the iteration
        stopped.set()
        assert await end == "the end"
        assert not others()


@pytest.mark.parametrize("last", [True, False], ids=["its last step", "an item follows"])
@pytest.mark.parametrize("waits", [True, False], ids=["after a wait", "in place"])
async def test_a_source_may_replace_itself(last: bool, waits: bool) -> None:
    async def reconnecting() -> AsyncIterator[int]:
        yield 1
        if waits:
            await yield_now()
        rooms.insert("a", [2, 3])
        if not last:
            yield 0

    async with StreamMap[str, int]() as rooms:
        rooms.insert("a", reconnecting())
        rooms.insert("b", [10])
        assert [item async for _, item in rooms if item != 10] == [1, 2, 3]
        assert not rooms
    assert not others()


@pytest.mark.parametrize("waits", [True, False], ids=["after a wait", "in place"])
async def test_a_source_that_removes_itself_loses_nothing(waits: bool) -> None:
    async def leaving() -> AsyncIterator[int]:
        yield 1
        if waits:
            await yield_now()
        removed.append(rooms.remove("a"))
        yield 2
        await yield_now()
        yield 3

    removed: list[streams.Stream[int] | None] = []
    async with StreamMap[str, int]() as rooms:
        rooms.insert("a", leaving())
        rooms.insert("b", [10, 11, 12])
        async with asyncio.timeout(10):
            assert [item async for _, item in rooms if item < 10] == [1]
            (stream,) = removed
            assert stream is not None
            assert await stream.collect() == [2, 3]
    assert not others()


async def test_clear_closes_all_sources_and_the_map_can_be_used_again() -> None:
    sources = [Source(*range(9), every=0) for _ in range(3)]
    async with StreamMap[int, int]() as rooms:
        for key, source in enumerate(sources):
            rooms.insert(key, source)
        for _ in range(5):
            await anext(rooms)
        rooms.clear()
        assert len(rooms) == 0
        assert await anext(rooms, None) is None
        assert [source.closed for source in sources] == [1, 1, 1]
        rooms.insert(0, [1])
        assert await anext(rooms) == (0, 1)


async def test_an_error_leaves_the_other_sources_and_tells_its_key() -> None:
    error = OSError("away")
    async with StreamMap[str, Any]() as rooms:
        rooms.insert("bad", Source(1, error=error, every=0))
        rooms.insert("good", Source(*range(5), every=0))
        seen: list[Any] = []
        with pytest.raises(OSError) as raised:
            async for pair in rooms:
                seen.append(pair)
        assert raised.value is error and rooms.failed_key == "bad"
        assert error.__notes__ == ["raised by the source 'bad' of a StreamMap"]
        assert ("bad", 1) in seen
        assert list(rooms.keys()) == ["good"]
        seen.extend([pair async for pair in rooms])
        assert [item for key, item in seen if key == "good"] == [0, 1, 2, 3, 4]


async def test_closing_closes_all_and_nothing_can_be_inserted_any_more() -> None:
    sources = [Source(1, 2, every=0) for _ in range(2)]
    rooms: StreamMap[int, int] = StreamMap()
    rooms.insert(0, sources[0])
    rooms.insert(1, sources[1])
    await anext(rooms)
    rooms.insert(0, [5])
    pull = asyncio.create_task(anext(rooms, "the end"))
    await rooms.aclose()
    await rooms.aclose()
    assert await pull in ((0, 5), "the end")
    assert [source.closed for source in sources] == [1, 1] and not others()
    assert await anext(rooms, "the end") == "the end"
    assert len(rooms) == 0
    mine = streams.iter([1])
    with pytest.raises(RuntimeError, match="closed"):
        rooms.insert(2, mine)
    assert await mine.collect() == [1]


async def test_what_is_no_source_or_no_key_is_refused_and_the_source_stays_usable() -> None:
    async with StreamMap[Any, int]() as rooms:
        mine = streams.iter([1])
        with pytest.raises(TypeError, match="unhashable"):
            rooms.insert([], mine)
        with pytest.raises(TypeError, match="source must"):
            rooms.insert("a", 5)  # type: ignore[arg-type]
        assert await mine.collect() == [1]
        assert not rooms


async def test_with_iter_it_has_the_operators_and_sources_still_come_and_go() -> None:
    async with StreamMap[str, int]() as rooms:
        rooms.insert("a", [1, 2])
        stream = streams.iter(rooms).map(lambda pair: pair[1])
        assert await anext(stream) == 1
        rooms.insert("b", [3])
        assert sorted(await stream.collect()) == [2, 3]
        with pytest.raises(RuntimeError, match="closed"):
            rooms.insert("c", [4])


async def test_dropping_it_warns_and_cancels_what_it_owns() -> None:
    source = Source(1, 2, every=0)
    rooms: StreamMap[str, int] = StreamMap()
    rooms.insert("a", source)
    await anext(rooms)
    with pytest.warns(ResourceWarning, match=r"<StreamMap a> was dropped with 1 task"):
        del rooms
        gc.collect()
    await turn(5)
    assert source.closed == 1 and not others()


async def test_two_tasks_cannot_wait_at_the_same_time() -> None:
    sender, receiver = channel[int](1)
    async with sender, StreamMap[str, int]() as rooms:
        rooms.insert("a", receiver)
        pull = asyncio.create_task(anext(rooms))
        await turn(2)
        with pytest.raises(RuntimeError, match="another task"):
            await anext(rooms)
        await sender.send(1)
        assert await pull == ("a", 1)
