"""The latest item only: `switch`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from yamanote import streams
from yamanote.channels import channel
from yamanote.runtime import run, yield_now
from yamanote.time import VirtualClock, sleep, time


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


async def at(*times: float, error: Exception | None = None) -> AsyncIterator[float]:
    for moment in times:
        await sleep(moment - time())
        yield moment
    if error is not None:
        raise error


class Calls:
    """Calls that take `seconds`, and as long again to stop; and what became of them."""

    def __init__(self, seconds: float, cleaning: float = 0) -> None:
        self.seconds = seconds
        self.cleaning = cleaning
        self.log: list[tuple[str, float]] = []
        self.running = 0

    async def __call__(self, item: float) -> str:
        assert not self.running, "the call before has not ended"
        self.running += 1
        self.log.append(("begun", item))
        try:
            await sleep(self.seconds)
            return f"result {item}"
        except asyncio.CancelledError:
            await sleep(self.cleaning)
            self.log.append(("cancelled", item))
            raise
        finally:
            self.running -= 1


def test_a_newer_item_cancels_the_call_and_the_last_call_goes_on_after_the_end() -> None:
    async def main() -> None:
        call = Calls(3)
        stream = streams.iter(at(0, 1, 2, 10, 11)).switch(call)
        assert [(item, round(time())) async for item in stream] == [("result 2", 5), ("result 11", 14)]
        assert call.log == [
            *(("begun", 0), ("cancelled", 0), ("begun", 1), ("cancelled", 1), ("begun", 2)),
            *(("begun", 10), ("cancelled", 10), ("begun", 11)),
        ]
        assert not others()

    run(main(), clock=VirtualClock())


def test_the_next_call_begins_when_the_cancelled_one_has_ended() -> None:
    async def main() -> None:
        call = Calls(5, cleaning=2)
        stream = streams.iter(at(0, 1)).switch(call)
        assert [(item, round(time())) async for item in stream] == [("result 1", 8)]

    run(main(), clock=VirtualClock())


def test_of_the_items_that_came_meanwhile_only_the_latest_gets_a_call() -> None:
    async def main() -> None:
        call = Calls(5, cleaning=3)
        sender, receiver = channel[float](10)

        async def send() -> None:
            with sender:
                async for moment in at(0, 1, 2, 3):
                    await sender.send(moment)

        sending = asyncio.create_task(send())
        assert await streams.iter(receiver).switch(call).collect() == ["result 3"]
        assert [item for what, item in call.log if what == "begun"] == [0, 3]
        await sending
        call = Calls(1)
        assert await streams.iter(range(1000)).switch(call).collect() == ["result 999"]
        assert call.log[-1] == ("begun", 999)

    run(main(), clock=VirtualClock())


def test_a_function_that_gives_a_stream_gives_its_items_until_there_is_a_newer_item() -> None:
    closed: list[float] = []

    async def follow(item: float) -> AsyncIterator[str]:
        try:
            for part in range(4):
                yield f"{item}.{part}"
                await sleep(1)
        finally:
            await yield_now()
            closed.append(item)

    async def main() -> None:
        got = await streams.iter(at(0, 1.5)).switch(follow).collect()
        assert got == ["0.0", "0.1", "1.5.0", "1.5.1", "1.5.2", "1.5.3"]
        assert closed == [0, 1.5] and not others()
        assert await streams.iter(at(9)).switch(lambda item: [item, item]).collect() == [9, 9]

    run(main(), clock=VirtualClock())


def test_a_result_that_nobody_has_taken_is_dropped_when_there_is_a_newer_item() -> None:
    async def main() -> None:
        call = Calls(2)
        async with streams.iter(at(0, 1)).switch(call) as stream:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await anext(stream)
            await sleep(5)  # the item 1 comes, and then the result for 0
            assert [item async for item in stream] == ["result 1"]
        assert call.log == [("begun", 0), ("begun", 1)]

    run(main(), clock=VirtualClock())


@pytest.mark.parametrize("where", ["source", "call", "function"])
def test_an_error_closes_everything_and_is_raised_once(where: str) -> None:
    async def main() -> None:
        error = OSError(where)
        call = Calls(3)

        async def failing(item: float) -> str:
            await sleep(1)
            raise error

        def broken(item: float) -> list[str]:
            raise error

        function: Any = {"source": call, "call": failing, "function": broken}[where]
        stream = streams.iter(at(0, 2, error=error if where == "source" else None)).switch(function)
        with pytest.raises(OSError) as raised:
            await anext(stream)
        assert raised.value is error and not call.running and not others()
        assert await anext(stream, "the end") == "the end"

    run(main(), clock=VirtualClock())


def test_an_error_of_a_call_that_was_cancelled_goes_to_the_handler_of_the_loop() -> None:
    async def main() -> None:
        reports: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context["exception"]))
        error = OSError("while it was stopped")

        async def call(item: float) -> float:
            try:
                await sleep(5)
            except asyncio.CancelledError:
                raise error from None
            return item

        assert await streams.iter(at(0, 1)).switch(call).collect() == [1]
        assert reports == [error]

    run(main(), clock=VirtualClock())


def test_a_pull_that_is_cancelled_cancels_no_call() -> None:
    async def main() -> None:
        async with streams.iter(at(0, 1)).switch(Calls(3, cleaning=2)) as stream:
            for _ in range(8):
                try:
                    async with asyncio.timeout(0.7):
                        assert await anext(stream) == "result 1"
                        break
                except TimeoutError:
                    pass
            assert round(time()) == 6

    run(main(), clock=VirtualClock())


async def test_leaving_early_cancels_the_call_and_closes_the_source() -> None:
    closed = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    call = Calls(1000)
    async with streams.iter(numbers()).switch(call) as stream:
        pull = asyncio.create_task(anext(stream, None))
        for _ in range(5):
            await yield_now()
        assert call.running
    assert not call.running and closed == [True]
    assert await pull is None and not others()


async def test_what_gives_neither_a_result_nor_a_stream_is_an_error() -> None:
    async def call(item: int) -> int:
        return item

    with pytest.raises(TypeError, match="not a coroutine"):
        await streams.iter([1]).switch(lambda item: call(item)).collect()  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="function"):
        streams.iter([1]).switch(5)  # type: ignore[call-overload]


def test_it_looks_as_it_was_written() -> None:
    assert repr(streams.iter("ab").switch(Calls(1))) == "<Stream str.switch(Calls)>"
