"""Where streams come from, other than from what is there already."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from yamanote import streams
from yamanote.channels import channel
from yamanote.runtime import yield_now

FALSY = [0, None, "", [], ValueError("an item")]


def counter() -> Callable[[], int]:
    numbers = iter(range(1000))
    return lambda: next(numbers)


async def turns_during(stream: streams.Stream[Any]) -> int:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    async with stream:
        async for _ in stream:
            pass
    counting.cancel()
    await asyncio.wait([counting])
    return turns


async def test_once_gives_one_item_and_empty_none() -> None:
    assert await streams.empty().collect() == []
    for item in FALSY:
        assert await streams.once(item).collect() == [item]


async def test_repeat_gives_the_very_same_item_for_ever() -> None:
    for item in FALSY:
        assert all(each is item for each in await streams.repeat(item).take(300).collect())


async def test_repeat_with_calls_once_for_each_item_that_is_asked_for() -> None:
    calls: list[int] = []

    def call() -> int:
        calls.append(len(calls))
        return calls[-1]

    async def call_later() -> int:
        await yield_now()
        return call()

    for function in (call, call_later):
        calls.clear()
        async with streams.repeat_with(function) as stream:
            assert calls == []
            assert [await anext(stream), await anext(stream)] == [0, 1]
            assert calls == [0, 1]


async def test_unfold_hands_the_state_on_and_ends_with_none() -> None:
    def step(state: int) -> tuple[str, int] | None:
        return (str(state), state + 1) if state < 4 else None

    async def step_later(state: int) -> tuple[str, int] | None:
        await yield_now()
        return step(state)

    assert await streams.unfold(1, step).collect() == ["1", "2", "3"]
    assert await streams.unfold(1, step_later).collect() == ["1", "2", "3"]
    assert await streams.unfold(iter(FALSY), lambda rest: (next(rest), rest)).take(5).collect() == FALSY


@pytest.mark.parametrize("make", [streams.repeat_with, lambda f: streams.unfold(0, lambda _: f())], ids=["", "unfold"])
@pytest.mark.parametrize("kind", [OSError, StopIteration, StopAsyncIteration])
async def test_what_a_plain_function_raises_is_raised_once_and_never_ends_the_stream_silently(
    make: Callable[[Callable[[], Any]], streams.Stream[Any]], kind: type[Exception]
) -> None:
    error = kind()

    def fail() -> None:
        raise error

    stream = make(fail)
    with pytest.raises(OSError if kind is OSError else RuntimeError) as raised:
        await anext(stream)
    assert error in (raised.value, raised.value.__cause__)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@pytest.mark.parametrize("kind", [OSError, StopIteration, StopAsyncIteration])
async def test_what_an_async_function_raises_is_raised_once_and_never_ends_the_stream_silently(
    kind: type[Exception],
) -> None:
    error = kind()

    async def fail(*state: object) -> None:
        await yield_now()
        raise error

    for stream in (streams.repeat_with(fail), streams.unfold(0, fail)):
        for consume in (stream.collect(), anext(stream)):
            with pytest.raises((OSError, RuntimeError, StopAsyncIteration)) as raised:
                await consume
            if raised.type is StopAsyncIteration:
                assert raised.value is not error
            else:
                assert error in (raised.value, raised.value.__cause__)


async def test_what_unfold_cannot_take_apart_is_an_error_in_its_place() -> None:
    async def step(state: int) -> Any:
        return (state, 1) if state == 0 else 5

    def step_now(state: int) -> Any:
        return (state, 1) if state == 0 else 5

    for stream in (streams.unfold(0, step), streams.unfold(0, step_now)):
        assert await anext(stream) == 0
        with pytest.raises(TypeError):
            await anext(stream)


async def test_a_call_that_was_cancelled_is_made_again_with_the_same_state() -> None:
    calls: list[int] = []

    async def step(state: int) -> tuple[int, int] | None:
        calls.append(state)
        await asyncio.sleep(0)
        return (state, state + 1) if state < 3 else None

    stream = streams.unfold(0, step)
    given = []
    for cancelled in [True, False] * 4:
        pull = asyncio.ensure_future(anext(stream, None))
        await asyncio.sleep(0)
        if cancelled:
            pull.cancel()
        await asyncio.wait([pull])
        if not pull.cancelled():
            given.append(pull.result())
    assert given == [0, 1, 2, None]
    assert calls == [0, 0, 1, 1, 2, 2, 3, 3]


async def test_the_loop_gets_its_turns_from_sources_that_never_wait() -> None:
    async def same() -> int:
        return 1

    async def step(state: int) -> tuple[int, int] | None:
        return (state, state + 1) if state < 2000 else None

    makers = [
        streams.repeat(1).take(2000),
        streams.repeat_with(counter()).take(900),
        streams.repeat_with(same).take(2000),
        streams.unfold(0, step),
        streams.unfold(0, lambda state: (state, state + 1) if state < 2000 else None),
        streams.iter([]).chain(*(streams.once(1) for _ in range(2000))),
    ]
    for stream in makers:
        assert await turns_during(stream) >= 5


async def test_pending_waits_until_it_is_closed_and_is_then_at_its_end() -> None:
    stream = streams.pending()
    pull = asyncio.ensure_future(anext(stream, "the end"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not pull.done()
    with pytest.raises(RuntimeError, match="another task"):
        await anext(stream)
    await stream.aclose()
    assert await pull == "the end"
    assert await anext(stream, "the end") == "the end"


async def test_pending_can_be_pulled_again_after_a_cancellation() -> None:
    stream = streams.pending()
    for _ in range(2):
        pull = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        pull.cancel()
        await asyncio.wait([pull])
        assert pull.cancelled()


def test_sources_are_made_without_a_loop_and_start_nothing() -> None:
    async def step(state: int) -> tuple[int, int] | None:
        raise AssertionError("called")

    made = [
        (streams.empty(), "<Stream empty>"),
        (streams.once(1), "<Stream once>"),
        (streams.repeat(1), "<Stream repeat>"),
        (streams.repeat_with(counter()), "<Stream repeat_with>"),
        (streams.unfold(0, step), "<Stream unfold(step)>"),
        (streams.pending(), "<Stream pending>"),
    ]
    for stream, shown in made:
        assert repr(stream) == shown


def test_functions_are_checked_at_the_call() -> None:
    with pytest.raises(TypeError, match="function"):
        streams.repeat_with(1)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="function"):
        streams.unfold(1, None)  # type: ignore[call-overload]


async def test_ensure_aiter_gives_async_iterators_as_they_are_and_streams_of_the_rest() -> None:
    async def generate() -> AsyncIterator[int]:
        yield 1

    generator = generate()
    assert streams.ensure_aiter(generator) is generator
    await generator.aclose()  # type: ignore[attr-defined]
    stream = streams.iter([1])
    assert streams.ensure_aiter(stream) is stream
    sender, receiver = channel[int](1)
    with sender, receiver:
        assert streams.ensure_aiter(receiver) is receiver
    assert [item async for item in streams.ensure_aiter(range(3))] == [0, 1, 2]
    with pytest.raises(TypeError):
        streams.ensure_aiter(5)  # type: ignore[arg-type]


async def test_an_endless_iterable_leaves_the_loop_its_turns() -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 0

    seen = 0

    async def consume() -> None:
        nonlocal seen
        async for _ in streams.ensure_aiter(endless()):
            seen += 1

    task = asyncio.create_task(consume())
    for _ in range(10):
        await asyncio.sleep(0)
    assert seen > 0
    task.cancel()
    await asyncio.wait([task])
