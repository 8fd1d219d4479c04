"""`run_in_thread_loop`: an awaitable on a loop of its own, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Generator
from contextvars import ContextVar
from typing import Any

import pytest

from yamanote.runtime import JoinError, run, yield_now
from yamanote.threads import run_in_thread_loop

pytestmark = pytest.mark.usefixtures("nothing_left_over")

place: ContextVar[str] = ContextVar("place", default="nowhere")


async def answer() -> int:
    return 42


async def test_it_runs_in_another_thread_on_another_loop_and_returns_the_value() -> None:
    async def where() -> tuple[asyncio.AbstractEventLoop, str]:
        return asyncio.get_running_loop(), threading.current_thread().name

    loop, thread = await run_in_thread_loop(where(), name="aside")
    assert loop is not asyncio.get_running_loop()
    assert loop.is_closed()
    assert thread == "aside"


async def test_without_a_name_the_thread_is_named_after_what_it_runs() -> None:
    async def where() -> str:
        return threading.current_thread().name

    assert (await run_in_thread_loop(where())).endswith("where")


async def test_a_function_is_called_in_the_new_thread() -> None:
    called_in: list[threading.Thread] = []

    def make() -> Coroutine[Any, Any, int]:
        called_in.append(threading.current_thread())
        return answer()

    assert await run_in_thread_loop(make) == 42
    assert called_in != [threading.current_thread()]


async def test_any_awaitable_will_do() -> None:
    class Later:
        def __await__(self) -> Generator[Any, None, str]:
            yield from asyncio.sleep(0).__await__()
            return "later"

    assert await run_in_thread_loop(Later()) == "later"


@pytest.mark.parametrize("value", [None, 0, "", ValueError("a value, not an error")])
async def test_values_that_look_like_none_or_errors_are_values(value: object) -> None:
    async def give() -> object:
        return value

    assert await run_in_thread_loop(give()) is value


async def test_many_at_once() -> None:
    async def square(number: int) -> int:
        await yield_now()
        return number * number

    results = await asyncio.gather(*(run_in_thread_loop(square(number)) for number in range(20)))
    assert results == [number * number for number in range(20)]


async def test_one_inside_the_other() -> None:
    assert await run_in_thread_loop(run_in_thread_loop(answer())) == 42


async def test_the_home_loop_goes_on_meanwhile(stage: Any) -> None:
    go = threading.Event()

    async def wait() -> None:
        stage.running.set()
        await asyncio.to_thread(go.wait)

    waiting = asyncio.create_task(run_in_thread_loop(wait()))
    await stage.reached()
    assert not waiting.done()
    go.set()
    await waiting


async def test_context_variables_go_in_and_do_not_come_out() -> None:
    async def visit() -> str:
        before = place.get()
        place.set("away")
        return before

    place.set("home")
    assert await run_in_thread_loop(visit()) == "home"
    assert place.get() == "home"


async def test_an_error_comes_through_with_its_traceback() -> None:
    async def fail() -> None:
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost") as caught:
        await run_in_thread_loop(fail())
    assert "fail" in [entry.name for entry in caught.traceback]


def test_a_keyboard_interrupt_comes_through() -> None:
    async def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(run_in_thread_loop(fail()))


async def test_a_function_that_fails_or_returns_no_awaitable() -> None:
    def fail() -> Coroutine[Any, Any, None]:
        raise LookupError

    def none() -> Any:
        return None

    with pytest.raises(LookupError):
        await run_in_thread_loop(fail)
    with pytest.raises(TypeError):
        await run_in_thread_loop(none)


async def test_tasks_left_over_there_are_cancelled_and_awaited(stage: Any) -> None:
    left: list[asyncio.Task[None]] = []

    async def leave() -> None:
        left.append(asyncio.create_task(stage.run()))
        await yield_now()

    await run_in_thread_loop(leave())
    assert left[0].cancelled()
    assert stage.ended


# Cancellation


async def test_a_cancellation_is_raised_when_the_clean_up_there_has_ended(stage: Any) -> None:
    task = asyncio.create_task(run_in_thread_loop(stage.run()))
    await stage.reached()
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stage.ended
    assert task.cancelling() == 1


async def test_a_cancellation_carries_its_message() -> None:
    heard: list[object] = []
    waiting = threading.Event()

    async def listen() -> None:
        waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            heard.extend(error.args)
            raise

    task = asyncio.create_task(run_in_thread_loop(listen()))
    await asyncio.to_thread(waiting.wait)
    task.cancel("enough")
    await asyncio.wait([task])
    assert heard == ["enough"]


async def test_a_second_cancellation_reaches_the_clean_up_and_is_awaited_too() -> None:
    waiting, cleaning = threading.Event(), threading.Event()
    steps: list[str] = []

    async def stubborn() -> None:
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            try:
                await asyncio.Event().wait()
            finally:
                steps.append("interrupted")

    task = asyncio.create_task(run_in_thread_loop(stubborn()))
    await asyncio.to_thread(waiting.wait)
    task.cancel()
    await asyncio.to_thread(cleaning.wait)
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert steps == ["interrupted"]


async def test_a_cancellation_at_any_moment_ends_in_a_cancellation_and_leaves_nothing() -> None:
    # After so many turns the thread is anywhere between not started and ended.
    for turns in range(40):
        started: list[None] = []

        async def forever(started: list[None] = started) -> None:
            started.append(None)
            await asyncio.Event().wait()

        task = asyncio.create_task(run_in_thread_loop(forever()))
        await yield_now()
        for _ in range(turns):
            await yield_now()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


async def test_what_was_cancelled_before_it_started_never_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[None] = []
    held = threading.Event()

    async def never() -> None:
        started.append(None)

    def late(main: Coroutine[Any, Any, Any]) -> Any:
        held.wait()
        return run(main)

    monkeypatch.setattr("yamanote.threads._loop_thread.run", late)
    task = asyncio.create_task(run_in_thread_loop(never()))
    await yield_now()
    task.cancel()
    await yield_now()
    assert not task.done()
    held.set()
    await asyncio.wait([task])
    assert task.cancelled()
    assert started == []


async def test_a_value_in_spite_of_a_cancellation_does_not_hide_the_cancellation() -> None:
    waiting = threading.Event()

    async def suppress() -> int:
        waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        return 42

    task = asyncio.create_task(run_in_thread_loop(suppress()))
    await asyncio.to_thread(waiting.wait)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_an_error_of_the_clean_up_is_raised_instead_of_the_cancellation() -> None:
    waiting = threading.Event()

    async def fail() -> None:
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise LookupError("in the clean-up")

    task = asyncio.create_task(run_in_thread_loop(fail()))
    await asyncio.to_thread(waiting.wait)
    task.cancel()
    with pytest.raises(LookupError, match="in the clean-up"):
        await task


async def test_what_cancels_itself_there_is_an_error_here_and_not_a_cancellation() -> None:
    async def cancel_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await yield_now()

    with pytest.raises(JoinError, match="cancel_itself"):
        await run_in_thread_loop(cancel_itself())


async def test_a_timeout_around_it_is_an_ordinary_timeout(stage: Any) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await run_in_thread_loop(stage.run())
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


# Nonsense


@pytest.mark.parametrize("target", [None, 42, "name"])
async def test_what_cannot_be_awaited_is_refused_at_the_call(target: Any) -> None:
    with pytest.raises(TypeError, match="target"):
        _ = run_in_thread_loop(target)


async def test_what_belongs_to_a_loop_already_is_refused_at_the_call() -> None:
    future = asyncio.get_running_loop().create_future()
    with pytest.raises(ValueError, match="target belongs to an event loop"):
        _ = run_in_thread_loop(future)
    started = answer()
    with pytest.raises(StopIteration):
        started.send(None)
    with pytest.raises(ValueError, match="target has been awaited"):
        _ = run_in_thread_loop(started)


async def test_a_thread_that_cannot_be_started_is_an_error_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        await run_in_thread_loop(answer())


def test_a_home_loop_that_is_closed_meanwhile_harms_nobody() -> None:
    waiting, go = threading.Event(), threading.Event()
    seen: list[threading.Thread] = []

    async def wait() -> None:
        seen.append(threading.current_thread())
        waiting.set()
        await asyncio.to_thread(go.wait)

    loop = asyncio.new_event_loop()
    task = loop.create_task(run_in_thread_loop(wait()))
    while not waiting.is_set():
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    go.set()
    seen[0].join()
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is destroyed while it waits, on purpose
