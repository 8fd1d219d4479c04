from __future__ import annotations

import asyncio
import inspect
import signal
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from yamanote.runtime import main, run, spawn, yield_now


async def value_of(value: Any) -> Any:
    await yield_now()
    return value


def test_it_returns_what_main_returns_again_and_again() -> None:
    for value in (1, None, ValueError("a value")):
        assert run(value_of(value)) is value


@pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit])
def test_it_raises_what_main_raises(error: type[BaseException]) -> None:
    async def fail() -> None:
        raise error

    with pytest.raises(error):
        run(fail())


def test_it_takes_any_awaitable() -> None:
    class Ready:
        def __await__(self) -> Any:
            yield from asyncio.sleep(0).__await__()
            return 4

    assert run(Ready()) == 4


def test_nonsense_is_refused_with_advice() -> None:
    async def work() -> None: ...

    with pytest.raises(TypeError, match=r"call it: run\(work\(\)\)"):
        run(work)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not 3"):
        run(3)  # type: ignore[arg-type]


def test_nested_use_is_refused_with_advice() -> None:
    async def outer() -> None:
        with pytest.raises(RuntimeError, match="await the coroutine, or `spawn` it"):
            run(value_of(1))

    run(outer())


def test_it_runs_in_any_thread() -> None:
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(run(value_of(1))))
    thread.start()
    thread.join()
    assert results == [1]


def test_the_loop_is_made_by_the_factory_and_closed_at_the_end() -> None:
    made: list[asyncio.AbstractEventLoop] = []

    def factory() -> asyncio.AbstractEventLoop:
        made.append(asyncio.SelectorEventLoop())
        return made[-1]

    async def which() -> Any:
        return asyncio.get_running_loop(), asyncio.get_running_loop().get_debug()

    assert run(which(), loop_factory=factory, debug=True) == (made[0], True)
    assert made[0].is_closed()


def test_a_factory_that_fails_leaves_no_coroutine_behind() -> None:
    def factory() -> asyncio.AbstractEventLoop:
        raise LookupError

    with pytest.raises(LookupError):
        run(value_of(1), loop_factory=factory)


def test_tasks_that_are_left_over_are_cancelled_awaited_and_named(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []

    async def background() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            for _ in range(5):
                await yield_now()  # it is cancelled once: a second time would end this
            log.append("cleaned up")

    async def forgetful() -> str:
        spawn(background(), name="forgotten")
        aborted = spawn(background(), name="aborted")
        await yield_now()
        aborted.abort()
        await yield_now()
        await yield_now()
        return "value"

    assert run(forgetful()) == "value"
    assert log == ["cleaned up"] * 2
    assert "1 of its tasks" in caplog.text and "forgotten" in caplog.text and "aborted" not in caplog.text


def test_nothing_is_reported_when_nothing_is_left(caplog: pytest.LogCaptureFixture) -> None:
    async def tidy() -> None:
        await spawn(value_of(1))

    run(tidy())
    assert caplog.text == ""


def test_asynchronous_generators_are_closed() -> None:
    log: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await yield_now()
            log.append("closed")

    kept = numbers()

    async def example() -> None:
        await anext(kept)

    run(example())
    assert log == ["closed"]


def test_ctrl_c_cancels_main_whose_finally_blocks_run() -> None:
    log: list[str] = []

    async def background() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            log.append("background")

    async def example() -> None:
        handle = spawn(background())
        try:
            await yield_now()
            signal.raise_signal(signal.SIGINT)
            await handle
        finally:
            await yield_now()
            log.append("main")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(example())
    assert log == ["main", "background"]
    assert signal.getsignal(signal.SIGINT) is before
    assert run(value_of(1)) == 1


def test_an_interrupt_that_a_task_raises_ends_everything() -> None:
    log: list[str] = []

    async def fatal() -> None:
        raise SystemExit(3)

    async def example() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # asyncio reports it as well, at collection
        spawn(fatal())
        try:
            await asyncio.sleep(3600)
        finally:
            log.append("main")

    with pytest.raises(SystemExit):
        run(example())
    assert log == ["main"]


# @main


def test_main_makes_a_plain_function_that_takes_arguments_and_returns_the_result() -> None:
    @main
    async def add(a: int, *, b: int = 1) -> int:
        """Adds."""
        return a + b

    assert add(1) == 2 and add(1, b=2) == 3
    assert add.__name__ == "add" and add.__doc__ == "Adds."
    assert not inspect.iscoroutinefunction(add)


def test_main_passes_its_options_on() -> None:
    @main(debug=True, loop_factory=asyncio.SelectorEventLoop)
    async def in_debug_mode() -> bool:
        loop = asyncio.get_running_loop()
        return loop.get_debug() and isinstance(loop, asyncio.SelectorEventLoop)

    assert in_debug_mode()


def test_main_refuses_what_is_no_async_function() -> None:
    with pytest.raises(TypeError, match="needs an async function"):

        @main  # type: ignore[arg-type]
        def plain() -> None: ...


def test_a_task_that_swallowed_its_cancellation_does_not_keep_the_program(monkeypatch, caplog):
    monkeypatch.setattr("yamanote.runtime._run._PATIENCE", 0.01)
    ended = []

    async def stubborn():
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(True)

    async def main():
        handle = spawn(stubborn(), name="stubborn")
        await yield_now()
        handle.abort()
        await yield_now()

    run(main())
    assert ended == [True]
    assert "cancelled again: stubborn" in caplog.text


def test_a_warning_names_a_few_tasks_not_all(caplog):
    async def main():
        for number in range(40):
            spawn(asyncio.sleep(3600), name=f"task-{number:02}")

    run(main())
    assert "before 40 of its tasks" in caplog.text
    assert "task-09, ..." in caplog.text
    assert "task-10" not in caplog.text
