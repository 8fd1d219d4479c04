"""Deferred calls."""

from __future__ import annotations

import asyncio
import inspect
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from yamanote.runtime import AsyncDefer, Defer, adefer, defer, start_task


def fail(error: BaseException) -> None:
    raise error


async def afail(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


# ---------------------------------------------------------------- defer


def test_deferred_calls_are_made_after_the_function_the_last_one_first() -> None:
    log: list[object] = []

    @defer
    def work(defer: Defer, *, end: str) -> str:
        defer(log.append, "a")
        defer(lambda **options: log.append(options), key="b")
        log.append("work")
        return end

    assert work(end="done") == "done"
    assert log == ["work", {"key": "b"}, "a"]


def test_they_are_made_when_the_function_raises_too_and_its_error_stays_what_it_is() -> None:
    log: list[str] = []
    error = LookupError()

    @defer
    def work(defer: Defer) -> None:
        defer(log.append, "a")
        raise error from KeyError()

    with pytest.raises(LookupError) as raised:
        work()
    assert raised.value is error and isinstance(error.__cause__, KeyError)
    assert log == ["a"]


def test_all_are_made_whatever_the_others_raise() -> None:
    log: list[str] = []
    errors = [LookupError(), KeyError(), OSError()]

    @defer
    def work(defer: Defer, fails: bool) -> None:
        defer(log.append, "a")
        defer(fail, errors[2])
        defer(log.append, "b")
        if fails:
            defer(fail, errors[1])
            raise errors[0]

    with pytest.raises(ExceptionGroup) as raised:
        work(True)
    assert list(raised.value.exceptions) == errors
    assert log == ["b", "a"]
    with pytest.raises(OSError) as alone:
        work(False)
    assert alone.value is errors[2]


def test_an_error_that_was_raised_from_that_of_the_function_takes_its_place() -> None:
    @defer
    def work(defer: Defer) -> None:
        error = LookupError()

        def translate() -> None:
            raise OSError from error

        defer(translate)
        raise error

    with pytest.raises(OSError):
        work()


def test_an_interrupt_is_raised_as_it_is() -> None:
    @defer
    def work(defer: Defer) -> None:
        defer(fail, OSError())
        defer(fail, KeyboardInterrupt())
        raise LookupError

    with pytest.raises(KeyboardInterrupt):
        work()


def test_a_deferred_call_may_defer_another_one_and_after_the_end_nobody_may() -> None:
    log: list[str] = []
    kept: list[Defer] = []

    @defer
    def work(defer: Defer) -> None:
        kept.append(defer)
        defer(log.append, "a")
        defer(lambda: defer(log.append, "b"))

    work()
    assert log == ["b", "a"]
    with pytest.raises(RuntimeError, match="the function has ended"):
        kept[0](print)


def test_a_deferred_call_that_would_have_to_be_awaited_is_an_error_not_a_silence() -> None:
    log: list[str] = []

    async def never_runs() -> None:
        log.append("ran")

    @defer
    def work(defer: Defer) -> None:
        defer(log.append, "a")
        defer(lambda: never_runs())

    with pytest.raises(TypeError, match="nobody would await"):
        work()
    assert log == ["a"]


@pytest.mark.parametrize(
    "target", [lambda: afail, lambda: afail(OSError()), lambda: 5], ids=["async", "coroutine", "5"]
)
def test_what_cannot_be_called_or_would_have_to_be_awaited_is_refused_at_once(target: Callable[[], Any]) -> None:
    @defer
    def work(defer: Defer) -> None:
        with pytest.raises(TypeError):
            defer(target())

    work()


def test_methods_recursion_and_signatures_work() -> None:
    log: list[str] = []

    class Worker:
        @defer
        def work(defer: Defer, self: Worker, depth: int = 1) -> Worker:
            """Work."""
            defer(log.append, f"end {depth}")
            return self.work(depth - 1) if depth else self

    worker = Worker()
    assert worker.work(2) is worker
    assert log == ["end 0", "end 1", "end 2"]
    assert Worker.work.__doc__ == "Work."
    assert list(inspect.signature(worker.work).parameters) == ["depth"]


async def no_arguments() -> None: ...


def generator(defer: Defer) -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    "function", [no_arguments, generator, lambda: None, lambda *defer: None, lambda *, defer: None]
)
def test_defer_refuses_what_it_cannot_decorate(function: Any) -> None:
    with pytest.raises(TypeError, match=r"defer\(\) needs a"):
        defer(function)


# ---------------------------------------------------------------- adefer


async def test_whatever_can_be_called_or_awaited_can_be_deferred() -> None:
    log: list[str] = []

    async def note(what: str) -> None:
        await asyncio.sleep(0)
        log.append(what)

    future = asyncio.get_running_loop().create_future()

    class Awaitable:
        def __await__(self) -> Any:
            log.append("awaitable")
            return asyncio.sleep(0).__await__()

    @adefer
    async def work(defer: AsyncDefer, value: int) -> int:
        defer(note, "async function")
        defer(note(what="coroutine"))
        defer(asyncio.ensure_future(asyncio.sleep(0)))
        defer(future)
        defer(Awaitable())
        defer(log.append, "function")
        defer(lambda: note("function that returns an awaitable"))
        defer(future.set_result, None)
        return value

    assert await work(5) == 5
    assert log == [
        "function that returns an awaitable",
        "function",
        "awaitable",
        "coroutine",
        "async function",
    ]
    assert future.done()


async def test_all_deferred_calls_run_whatever_the_others_raise() -> None:
    log: list[str] = []
    errors = [LookupError(), KeyError(), OSError()]

    @adefer
    async def work(defer: AsyncDefer, fails: bool) -> None:
        defer(log.append, "a")
        defer(afail, errors[2])
        defer(log.append, "b")
        if fails:
            defer(afail(errors[1]))
            await afail(errors[0])

    with pytest.raises(ExceptionGroup) as raised:
        await work(True)
    assert list(raised.value.exceptions) == errors
    assert log == ["b", "a"]
    with pytest.raises(OSError):
        await work(False)


async def test_a_cancellation_ends_the_deferred_call_that_it_meets_and_the_others_run() -> None:
    log: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append("cancelled")

    async def note() -> None:
        await asyncio.sleep(0)
        log.append("ran")

    @adefer
    async def work(defer: AsyncDefer) -> None:
        defer(note)
        defer(wait)
        defer(note)

    task = start_task(work())
    await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert log == ["ran", "cancelled", "ran"]


async def test_a_cancellation_whose_place_an_error_takes_is_raised_again() -> None:
    log: list[str] = []

    @adefer
    async def work(defer: AsyncDefer) -> None:
        defer(afail, OSError())
        await asyncio.Event().wait()

    async def host() -> None:
        try:
            await work()
        except OSError:
            log.append("error")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        log.append("went on")

    task = start_task(host())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() and task.cancelling() == 1 and log == ["error"]


async def test_one_that_was_taken_back_is_not_raised_again() -> None:
    @adefer
    async def work(defer: AsyncDefer) -> None:
        defer(afail, OSError())
        await asyncio.Event().wait()

    with pytest.raises(OSError):
        async with asyncio.timeout(0.001):
            await work()
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_misuse_is_a_type_error_and_closes_what_it_was_given() -> None:
    kept: list[AsyncDefer] = []
    coroutines = [afail(OSError()) for _ in range(2)]

    @adefer
    async def work(defer: AsyncDefer) -> None:
        kept.append(defer)
        with pytest.raises(TypeError, match="only a call can be deferred, not 5"):
            defer(5)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="takes no arguments"):
            defer(coroutines[0], 5)  # type: ignore[call-overload]

    await work()
    with pytest.raises(RuntimeError, match="the function has ended"):
        kept[0](coroutines[1])
    assert [inspect.getcoroutinestate(coroutine) for coroutine in coroutines] == [inspect.CORO_CLOSED] * 2


def test_an_async_function_stays_one_and_shows_what_its_callers_give() -> None:
    @adefer
    async def work(defer: AsyncDefer, value: int, /, *, key: str = "") -> None:
        """Work."""

    assert inspect.iscoroutinefunction(work) and work.__doc__ == "Work."
    assert list(inspect.signature(work).parameters) == ["value", "key"]


@pytest.mark.parametrize("function", [lambda defer: None, no_arguments])
def test_adefer_refuses_what_it_cannot_decorate(function: Any) -> None:
    with pytest.raises(TypeError, match=r"adefer\(\) needs a"):
        adefer(function)


async def test_it_needs_no_task_and_no_loop() -> None:
    log: list[str] = []

    @adefer
    async def work(defer: AsyncDefer) -> None:
        defer(log.append, "a")

    def step() -> None:
        with pytest.raises(StopIteration):
            work().send(None)

    await asyncio.to_thread(step)
    assert log == ["a"]


async def test_the_end_of_something_else_that_was_cancelled_is_raised_where_it_is_deferred() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()

    @adefer
    async def work(defer: AsyncDefer) -> None:
        defer(future)

    with pytest.raises(CancelledError):
        await work()


async def test_a_cancellation_that_the_function_has_turned_into_an_error_is_not_raised_again() -> None:
    @adefer
    async def turned(defer: AsyncDefer) -> None:
        defer(asyncio.sleep, 0)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise LookupError from None

    async def caller() -> str:
        with pytest.raises(LookupError):
            await turned()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "went on"

    task = asyncio.create_task(caller())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "went on"
