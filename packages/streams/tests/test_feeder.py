"""What all operators with a feeder have in common: how its task begins, fails, and is stopped."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest

from yamanote import streams
from yamanote.runtime import yield_now
from yamanote.streams import Stream
from yamanote.time import sleep, time

from .test_every_operator import virtually

Operator = Callable[[Stream[Any]], Stream[Any]]

OPERATORS: dict[str, Operator] = {
    "prefetch": lambda stream: stream.prefetch(1),
    "ready_chunks": lambda stream: stream.ready_chunks(1),
    "timeout": lambda stream: stream.timeout(1000),
    "throttle": lambda stream: stream.throttle(1),
    "debounce": lambda stream: stream.debounce(1),
    "sample": lambda stream: stream.sample(1),
    "delay": lambda stream: stream.delay(1),
    "chunks_timeout": lambda stream: stream.chunks_timeout(1, 1),
    "share": lambda stream: stream.share(1).subscribe(),
    "broadcast": lambda stream: stream.broadcast(1, 1)[0],
}

each = pytest.mark.parametrize("apply", OPERATORS.values(), ids=OPERATORS)


def without_collector(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    gc.collect()
    gc.disable()
    try:
        virtually(main)
    finally:
        gc.enable()


class Thorough:
    """Gives an item at once and no other, and takes ten seconds to close."""

    def __init__(self) -> None:
        self.given = False
        self.closed = ""

    async def items(self) -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            try:
                await sleep(10)
                self.closed = "in peace"
            except asyncio.CancelledError:
                self.closed = "in a hurry"
                raise


@each
@pytest.mark.parametrize("impatience", [0, 1, 3])
def test_who_closes_again_waits_for_the_source_and_does_not_disturb_it(apply: Operator, impatience: int) -> None:
    async def main() -> None:
        source = Thorough()
        stream = apply(streams.iter(source.items()))
        await anext(stream)
        start = time()
        closing = asyncio.create_task(stream.aclose())
        for _ in range(impatience):
            await sleep(1)
            closing.cancel()
        await yield_now()
        await stream.aclose()
        assert source.closed == "in peace" and time() == start + 10
        await asyncio.wait([closing])
        assert closing.cancelled() == bool(impatience)

    virtually(main)


@each
def test_who_closes_what_was_abandoned_waits_as_well(apply: Operator) -> None:
    async def main() -> None:
        async def use() -> None:
            async with stream:
                await asyncio.Event().wait()

        source = Thorough()
        stream = apply(streams.iter(source.items()))
        await anext(stream)
        thrown_away = use()
        thrown_away.send(None)
        thrown_away.close()
        await sleep(1)
        await stream.aclose()
        assert source.closed == "in peace"

    virtually(main)


@each
@pytest.mark.parametrize("turns", range(5))
def test_a_pull_that_is_parked_while_the_stream_is_closed_disturbs_nobody(apply: Operator, turns: int) -> None:
    async def main() -> None:
        source = Thorough()
        stream = apply(streams.iter(source.items()))
        pull = asyncio.create_task(anext(stream, None))
        for _ in range(turns):
            await asyncio.sleep(0)
        await stream.aclose()
        await pull
        assert source.closed in ("in peace", "")  # "" if it was not begun

    virtually(main)


@each
def test_what_is_no_exception_is_raised_as_it_is_and_the_source_is_closed(apply: Operator) -> None:
    class Outcome(BaseException):
        pass

    outcome = Outcome()
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            await yield_now()
            raise outcome
            yield 0
        finally:
            closed.append(True)

    async def main() -> None:
        stream = apply(streams.iter(items()))
        with pytest.raises(Outcome) as raised:
            await anext(stream)
        assert raised.value is outcome and closed
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    virtually(main)


@each
def test_what_is_no_exception_goes_to_the_loop_when_the_stream_is_being_closed(apply: Operator) -> None:
    class Outcome(BaseException):
        pass

    async def items() -> AsyncIterator[int]:
        yield 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise Outcome from None

    async def main() -> None:
        reported: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))
        stream = apply(streams.iter(items()))
        await anext(stream)
        pull = asyncio.create_task(anext(stream, None))
        await sleep(1)
        await stream.aclose()
        assert await pull is None
        assert [type(outcome) for outcome in reported] == [Outcome]

    virtually(main)


@each
def test_a_source_whose_feeder_was_cancelled_before_its_first_step_is_closed(apply: Operator) -> None:
    async def main() -> None:
        source = Thorough()
        stream = streams.iter(source.items())
        assert await anext(stream) == 1
        stream = apply(stream)
        before = asyncio.all_tasks()
        pull = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        (feeder,) = asyncio.all_tasks() - before - {pull}
        feeder.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pull
        assert source.closed == "in peace"

    virtually(main)


@each
def test_a_source_that_tries_to_close_what_it_feeds_is_refused_and_can_still_be_closed(apply: Operator) -> None:
    async def main() -> None:
        async def items() -> AsyncIterator[int]:
            await yield_now()
            with pytest.raises(RuntimeError):
                await stream.aclose()
            refused.append(True)
            await asyncio.Event().wait()
            yield 1

        refused: list[bool] = []
        stream = apply(streams.iter(items()))
        pull = asyncio.create_task(anext(stream, None))
        await sleep(1)
        assert refused
        await stream.aclose()
        await pull

    virtually(main)


@each
def test_what_was_never_begun_is_freed_when_it_is_dropped(apply: Operator) -> None:
    class Source:
        def __iter__(self) -> Iterator[int]:
            return self

        def __next__(self) -> int:
            return 1

    async def main() -> None:
        source = Source()
        freed = weakref.ref(source)
        stream = apply(streams.iter(source))
        del source, stream
        assert freed() is None

    without_collector(main)


@each
def test_what_is_closed_holds_nothing_that_it_was_given(apply: Operator) -> None:
    class Item:
        pass

    given: list[weakref.ref[Item]] = []

    class Source:
        def __aiter__(self) -> Source:
            return self

        async def __anext__(self) -> Item:
            await sleep(0.4)
            item = Item()
            given.append(weakref.ref(item))
            return item

    async def main() -> None:
        stream = apply(streams.iter(Source()))
        pull = asyncio.create_task(anext(stream))
        await sleep(0.9)
        pull.cancel()
        await asyncio.wait([pull])
        del pull
        await stream.aclose()
        await yield_now()
        assert given and not any(item() for item in given)

    without_collector(main)


@pytest.mark.parametrize(
    "name", [name for name in OPERATORS if name not in ("share", "broadcast")]
)  # which keep it for who comes later
def test_an_error_that_was_raised_is_kept_alive_by_nobody(name: str) -> None:
    class Failure(Exception):
        pass

    failures: list[weakref.ref[Failure]] = []

    async def items() -> AsyncIterator[int]:
        failure = Failure()
        failures.append(weakref.ref(failure))
        try:
            raise failure
        finally:
            del failure
        yield 0

    async def main() -> None:
        stream = OPERATORS[name](streams.iter(items()))
        with pytest.raises(Failure):
            await anext(stream)
        await yield_now()
        assert failures[0]() is None

    without_collector(main)
