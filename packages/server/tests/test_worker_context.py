"""`server` and `main`, and the contexts that they make: without any process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from signal import SIGINT, SIGTERM, Signals
from typing import Any

import pytest

from yamanote.server import MainContext, WorkerContext, main, server


@server
async def worker(loop: object, index: int, args: list[list[object]]) -> AsyncGenerator[str, Signals]:
    """What it does."""
    events = args[0]
    events.append("set up")
    try:
        events.append((yield "value"))
    except LookupError:
        events.append("failed")
        raise
    finally:
        events.append("torn down")


@main
def setup(events: list[object] | None = None) -> Generator[str, Signals]:
    assert events is not None
    events.append("set up")
    try:
        events.append((yield "value"))
    except LookupError:
        events.append("failed")
        raise
    finally:
        events.append("torn down")


async def test_a_worker_yields_a_value_to_the_block_and_gets_the_signal_at_its_end() -> None:
    events: list[object] = []
    context = worker(asyncio.get_running_loop(), 0, [events])
    async with context as value:
        events.append(value)
        context.signal = SIGINT

    assert events == ["set up", "value", SIGINT, "torn down"]
    assert worker.__doc__ == "What it does."


async def test_a_worker_gets_sigterm_if_nothing_is_said_and_the_error_of_the_block() -> None:
    events: list[object] = []
    async with worker(asyncio.get_running_loop(), 0, [events]):
        pass
    with pytest.raises(LookupError):
        async with worker(asyncio.get_running_loop(), 0, [events]):
            raise LookupError

    assert events == ["set up", SIGTERM, "torn down", "set up", "failed", "torn down"]


def test_main_gives_a_value_to_the_block_and_gets_the_signal_or_the_error_at_its_end() -> None:
    events: list[object] = []
    with (context := setup(events)) as value:
        events.append(value)
        context.signal = SIGINT
    with pytest.raises(LookupError), setup(events):
        raise LookupError

    assert events == ["set up", "value", SIGINT, "torn down", "set up", "failed", "torn down"]


async def test_a_context_is_entered_once() -> None:
    async with (context := worker(asyncio.get_running_loop(), 0, [[]])):
        with pytest.raises(RuntimeError, match="entered before"):
            await context.__aenter__()
    with (frame := setup([])):
        with pytest.raises(RuntimeError, match="entered before"):
            frame.__enter__()


async def test_a_worker_and_a_main_yield_exactly_once() -> None:
    closed: list[str] = []

    @server
    async def never(*args: object) -> AsyncGenerator[None, Signals]:
        if closed:
            yield

    @server
    async def twice(*args: object) -> AsyncGenerator[None, Signals]:
        yield
        try:
            yield
        finally:
            closed.append("worker")

    @main
    def never_main() -> Generator[None, Signals]:
        if closed:
            yield

    @main
    def twice_main() -> Generator[None, Signals]:
        yield
        try:
            yield
        finally:
            closed.append("main")

    with pytest.raises(RuntimeError, match=r"never must yield once, but it has ended without"):
        async with never():
            pass
    with pytest.raises(RuntimeError, match=r"never_main must yield once, but it has ended without"), never_main():
        pass
    with pytest.raises(RuntimeError, match=r"twice must yield once, but it has yielded again"):
        async with twice():
            pass
    with pytest.raises(RuntimeError, match=r"twice_main must yield once, but it has yielded again"), twice_main():
        pass
    assert closed == ["worker", "main"]


@pytest.mark.parametrize("wrong", [print, worker, setup, 1])
def test_only_generator_functions_can_be_decorated(wrong: Any) -> None:
    with pytest.raises(TypeError, match="@server needs an async generator function"):
        server(wrong)
    with pytest.raises(TypeError, match="@main needs a generator function"):
        main(wrong)


async def too_few(loop: object, index: int) -> AsyncGenerator[None, Signals]:
    yield


async def too_many(loop: object, index: int, args: object, more: object) -> AsyncGenerator[None, Signals]:
    yield


async def by_name(loop: object, index: int, *, args: object) -> AsyncGenerator[None, Signals]:
    yield


@pytest.mark.parametrize("wrong", [too_few, too_many, by_name])
def test_a_function_that_cannot_be_a_worker_is_refused_when_it_is_decorated(wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"can take a loop, an index, and a list, not <function {wrong.__name__} .*: "):
        server(wrong)


def test_a_function_that_needs_arguments_is_no_main() -> None:
    def needy(port: int) -> Generator[None, Signals]:
        yield

    with pytest.raises(
        TypeError, match=r"called without arguments, not .*needy.*: missing a required argument: 'port'"
    ):
        main(needy)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated when the function is made")
def test_what_annotations_mean_is_of_no_interest_to_the_decorators() -> None:
    names: dict[str, Any] = {}
    source = "async def worker(loop, index, args: Unknown):\n    yield\ndef setup() -> Unknown:\n    yield"
    exec(compile(source, "annotated", "exec", dont_inherit=True), names)

    assert server(names["worker"]) and main(names["setup"])


def test_the_two_decorators_are_not_mixed_up() -> None:
    wrapped: Callable[..., WorkerContext[str]] = worker
    framed: Callable[..., MainContext[str]] = setup
    with pytest.raises(TypeError):
        main(wrapped.__wrapped__)  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        server(framed.__wrapped__)  # type: ignore[attr-defined]
