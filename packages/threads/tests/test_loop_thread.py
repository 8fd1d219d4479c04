"""Thread loops: `launch_in_thread_loop`, `run_in_thread_loop_contextualized`, and what all that stand on them share."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from yamanote.runtime import JoinError, JoinHandle, TaskGroup, cancel_and_wait, run, spawn, yield_now
from yamanote.threads import (
    Portal,
    ThreadTaskGroup,
    launch_in_thread_loop,
    run_in_thread_loop,
    run_in_thread_loop_contextualized,
)

pytestmark = pytest.mark.usefixtures("nothing_left_over")

place: ContextVar[str] = ContextVar("place", default="nowhere")


async def answer() -> int:
    return 42


async def fail() -> None:
    raise LookupError("lost")


async def for_ever() -> None:
    await asyncio.Event().wait()


def requests() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


# ---------------------------------------------------------------- launch_in_thread_loop


async def test_a_launched_target_has_made_its_first_step_when_its_handle_is_there() -> None:
    steps: list[str] = []
    go = threading.Event()

    async def work() -> str:
        steps.append(threading.current_thread().name)
        await asyncio.to_thread(go.wait)
        return "done"

    for _ in range(20):
        steps.clear()
        go.clear()
        handle = await launch_in_thread_loop(work(), name="aside")
        assert steps == ["aside"]
        assert isinstance(handle, JoinHandle)
        assert (handle.name, handle.is_finished()) == ("aside", False)
        go.set()
        assert [await handle, await handle] == ["done", "done"]


async def test_an_error_in_the_first_step_belongs_to_the_handle() -> None:
    handle = await launch_in_thread_loop(fail)
    with pytest.raises(LookupError, match="lost"):
        await handle


async def test_a_handle_is_finished_when_its_thread_has_ended() -> None:
    threads: list[threading.Thread] = []

    async def work() -> None:
        threads.append(threading.current_thread())

    await (await launch_in_thread_loop(work()))
    assert not threads[0].is_alive()


async def test_aborting_the_handle_cancels_the_target_which_ends_before_the_handle(stage: Any) -> None:
    handle = await launch_in_thread_loop(stage.run())
    handle.abort("enough")
    with pytest.raises(JoinError, match="enough"):
        await handle
    assert stage.ended
    assert handle.is_cancelled()


async def test_cancelling_who_awaits_the_handle_leaves_the_target_alone(stage: Any) -> None:
    handle = await launch_in_thread_loop(stage.run())
    waiting = asyncio.ensure_future(handle)
    await yield_now()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert not handle.is_finished()
    await cancel_and_wait(handle)


async def test_a_target_that_cancels_itself_is_a_cancelled_task_like_any_other() -> None:
    async def cancel_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await yield_now()

    handle = await launch_in_thread_loop(cancel_itself())
    with pytest.raises(JoinError):
        await handle
    assert handle.is_cancelled()


async def test_a_handle_can_be_awaited_from_other_loops_and_threads() -> None:
    go = threading.Event()

    async def work() -> int:
        await asyncio.to_thread(go.wait)
        return 42

    handle = await launch_in_thread_loop(work())

    async def elsewhere() -> int:
        return await handle

    others = [spawn(run_in_thread_loop(elsewhere())), spawn(asyncio.to_thread(handle.result))]
    go.set()
    assert [await other for other in others] == [42, 42]


async def test_an_error_that_nobody_asks_for_is_reported_once() -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    go = threading.Event()

    async def late() -> None:
        await asyncio.to_thread(go.wait)
        raise LookupError("lost")

    handle = await launch_in_thread_loop(late())
    go.set()
    while not handle.is_finished():
        await asyncio.sleep(0.001)
    del handle
    await yield_now()
    assert [repr(report["exception"]) for report in reports] == ["LookupError('lost')"]


async def test_a_launch_that_is_cancelled_while_the_target_starts_ends_it_first() -> None:
    for turns in range(30):
        ended: list[None] = []
        begun: list[None] = []

        async def work(begun: list[None] = begun, ended: list[None] = ended) -> None:
            begun.append(None)
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(None)

        launching = asyncio.create_task(launch_in_thread_loop(work()))
        await yield_now()
        for _ in range(turns):
            await yield_now()
        if launching.cancel():
            await asyncio.wait([launching])
        if launching.cancelled():
            assert begun == ended
        else:
            await cancel_and_wait(launching.result())


def test_what_was_launched_is_cancelled_and_awaited_when_the_runtime_ends(stage: Any) -> None:
    async def main() -> None:
        await launch_in_thread_loop(stage.run())

    run(main())
    assert stage.ended


# ---------------------------------------------------------------- run_in_thread_loop_contextualized


async def test_the_target_runs_beside_the_block_and_has_ended_after_it(stage: Any) -> None:
    async with run_in_thread_loop_contextualized(stage.run(), name="aside"):
        assert stage.running.is_set()
        assert "aside" in [thread.name for thread in threading.enumerate()]
    assert stage.ended


def test_in_a_plain_thread_too(stage: Any) -> None:
    with run_in_thread_loop_contextualized(stage.run):
        assert stage.running.is_set()
    assert stage.ended


async def test_a_target_that_returns_early_leaves_the_block_alone() -> None:
    async with run_in_thread_loop_contextualized(answer()):
        await asyncio.sleep(0.001)


async def test_an_error_of_the_target_cancels_the_block_and_is_raised_as_it_is() -> None:
    with pytest.raises(LookupError, match="lost"):
        async with run_in_thread_loop_contextualized(fail()):
            await for_ever()
    assert requests() == 0


def test_an_error_of_the_target_is_raised_at_the_end_of_a_plain_block() -> None:
    steps = []
    with pytest.raises(LookupError, match="lost"):
        with run_in_thread_loop_contextualized(fail()):
            steps.append("the block goes on")
    assert steps == ["the block goes on"]


def _plain(target: Callable[[], Awaitable[object]], error: BaseException | None) -> None:
    with run_in_thread_loop_contextualized(target):
        if error is not None:
            raise error


def _in_a_loop(target: Callable[[], Awaitable[object]], error: BaseException | None) -> None:
    async def main() -> None:
        async with run_in_thread_loop_contextualized(target):
            if error is not None:
                raise error

    run(main())


@pytest.mark.parametrize("block", [_plain, _in_a_loop])
@pytest.mark.parametrize("error", [ValueError("body"), StopAsyncIteration(), ExceptionGroup("mine", [ValueError()])])
def test_an_error_of_the_block_is_raised_as_it_is_when_the_target_has_ended(
    block: Callable[..., None], error: Exception, stage: Any
) -> None:
    cause = error.__cause__ = KeyError()
    with pytest.raises(type(error)) as raised:
        block(stage.run, error)
    assert raised.value is error
    assert error.__cause__ is cause
    assert stage.ended


def test_a_stop_iteration_of_a_plain_block_is_an_error_like_any_other() -> None:
    with pytest.raises(StopIteration):
        _plain(for_ever, StopIteration())


@pytest.mark.parametrize("block", [_plain, _in_a_loop])
def test_errors_of_both_are_raised_in_a_group(block: Callable[..., None], stage: Any) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        block(stage.run_and_fail, LookupError())
    assert sorted(type(error).__name__ for error in raised.value.exceptions) == ["KeyError", "LookupError"]


@pytest.mark.parametrize("block", [_plain, _in_a_loop])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_programs_goes_through_from_both_sides(block: Callable[..., None], kind: type[BaseException]) -> None:
    async def end() -> None:
        raise kind

    with pytest.raises(kind):
        block(end, None)
    with pytest.raises(kind):
        block(for_ever, kind())


async def test_a_cancellation_goes_on_when_the_target_has_ended(stage: Any) -> None:
    async def host() -> None:
        async with run_in_thread_loop_contextualized(stage.run()):
            await for_ever()

    task = asyncio.create_task(host())
    await stage.reached()
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task
    assert stage.ended
    assert task.cancelling() == 1


async def test_a_cancellation_at_any_moment_leaves_nothing() -> None:
    for turns in range(40):
        counts = [0, 0]

        async def work(counts: list[int] = counts) -> None:
            counts[0] += 1
            try:
                await asyncio.Event().wait()
            finally:
                counts[1] += 1

        async def host(work: Callable[[], Coroutine[Any, Any, None]] = work) -> None:
            async with run_in_thread_loop_contextualized(work):
                await for_ever()

        task = asyncio.create_task(host())
        await yield_now()
        for _ in range(turns):
            await yield_now()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert counts[0] == counts[1]


async def test_a_cancellation_that_an_error_has_replaced_is_raised_at_the_next_await(stage: Any) -> None:
    steps: list[str] = []

    async def host() -> None:
        try:
            async with run_in_thread_loop_contextualized(stage.run_and_fail()):
                await for_ever()
        except KeyError:
            steps.append("the error")
        await for_ever()

    task = asyncio.create_task(host())
    await stage.reached()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert steps == ["the error"]
    assert task.cancelling() == 1


async def test_an_error_that_has_replaced_a_cancellation_and_ended_the_task_is_reported(stage: Any) -> None:
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context.get("exception")))

    async def block() -> None:
        async with run_in_thread_loop_contextualized(stage.run_and_fail):
            await for_ever()

    task = asyncio.create_task(block())
    await stage.reached()
    task.cancel()
    await asyncio.wait([task])
    for _ in range(3):
        await yield_now()
    del task
    gc.collect()
    assert [type(error) for error in told] == [KeyError]


async def test_a_timeout_around_the_block_is_an_ordinary_timeout() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            async with run_in_thread_loop_contextualized(for_ever()):
                await for_ever()
    assert requests() == 0


async def test_what_waits_for_a_thread_loop_and_is_thrown_away_cancels_it(stage: Any) -> None:
    threads: list[threading.Thread] = []

    async def work() -> None:
        threads.append(threading.current_thread())
        await stage.run()

    running = run_in_thread_loop(work())
    running.send(None)
    await stage.reached()
    running.close()
    await asyncio.to_thread(threads[0].join)
    assert stage.ended


async def test_a_block_that_is_thrown_away_takes_the_target_with_it(stage: Any) -> None:
    threads: list[threading.Thread] = []

    async def work() -> None:
        threads.append(threading.current_thread())
        await stage.run()

    async def host() -> AsyncIterator[None]:
        async with run_in_thread_loop_contextualized(work()):
            yield

    coroutine = host().__aiter__()
    await coroutine.__anext__()
    closing = coroutine.aclose()  # type: ignore[attr-defined]
    with pytest.raises(StopIteration):
        closing.send(None)
    await asyncio.to_thread(threads[0].join)
    assert stage.ended


def test_a_generator_that_is_thrown_away_waits_for_the_target(stage: Any) -> None:
    def host() -> Iterator[None]:
        with run_in_thread_loop_contextualized(stage.run()):
            yield

    generator = host()
    next(generator)
    generator.close()  # type: ignore[attr-defined]
    assert stage.ended


async def test_the_form_for_threads_is_refused_where_a_loop_runs_with_advice() -> None:
    refused = run_in_thread_loop_contextualized(answer())
    with pytest.raises(RuntimeError, match="async with"):
        with refused:
            pass


async def test_a_block_can_be_entered_only_once() -> None:
    block = run_in_thread_loop_contextualized(for_ever())
    async with block:
        with pytest.raises(RuntimeError, match="only once"):
            async with block:
                pass


# ---------------------------------------------------------------- nonsense, for all that take a target

Taker = Callable[[Any], object]
TAKERS: list[Taker] = [run_in_thread_loop, launch_in_thread_loop, run_in_thread_loop_contextualized]


@pytest.mark.parametrize("take", TAKERS)
async def test_nonsense_is_refused_at_the_call(take: Taker) -> None:
    with pytest.raises(TypeError, match="target"):
        take(42)
    with pytest.raises(ValueError, match="target belongs to an event loop"):
        take(asyncio.get_running_loop().create_future())
    begun = answer()
    with pytest.raises(StopIteration):
        begun.send(None)
    with pytest.raises(ValueError, match="target has been awaited"):
        take(begun)


async def _contextualized(target: Coroutine[Any, Any, object]) -> None:
    async with run_in_thread_loop_contextualized(target):
        pass


@pytest.mark.parametrize("use", [run_in_thread_loop, launch_in_thread_loop, _contextualized])
async def test_a_thread_that_cannot_be_started_is_an_error_and_closes_the_target(
    use: Callable[[Any], Coroutine[Any, Any, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    target = answer()
    with pytest.raises(RuntimeError, match="can't start"):
        await use(target)
    with pytest.raises(RuntimeError, match="cannot reuse"):
        await target


@pytest.mark.parametrize("use", [run_in_thread_loop, launch_in_thread_loop, _contextualized])
async def test_a_loop_that_cannot_be_made_is_an_error_and_closes_the_target(
    use: Callable[[Any], Coroutine[Any, Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(main: Coroutine[Any, Any, object]) -> None:
        main.close()
        raise OSError("too many open files")

    monkeypatch.setattr("yamanote.threads._loop_thread.run", refuse)
    target = answer()
    with pytest.raises(OSError, match="too many"):
        result = await use(target)
        await result  # of a launch it is the handle's
    with pytest.raises(RuntimeError, match="cannot reuse"):
        await target


# ---------------------------------------------------------------- for all


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors through /proc")
@pytest.mark.usefixtures("switching_often")
def test_hundreds_of_loops_leave_no_thread_and_no_descriptor() -> None:
    async def main() -> None:
        for _ in range(30):
            async with TaskGroup() as group:
                group.spawn(run_in_thread_loop(answer()))
                group.spawn(_contextualized(answer()))
                handle = await launch_in_thread_loop(answer())
                async with ThreadTaskGroup() as threads:
                    threads.spawn(answer())
                assert await handle == 42

    run(answer())
    before, threads_before = _descriptors(), threading.active_count()
    run(main())
    for _ in range(30):
        with ThreadTaskGroup() as group:
            group.spawn(answer())
        with Portal() as portal:
            portal.call(answer)
        with run_in_thread_loop_contextualized(answer):
            pass
    assert _descriptors() == before
    assert threading.active_count() <= threads_before  # idle ones of a pool may have ended meanwhile


@pytest.mark.usefixtures("switching_often")
def test_quick_blocks_in_a_plain_thread_never_hang() -> None:
    # In a library before this one the twelfth waited for ever for a stage that the thread had passed already.
    for _ in range(100):
        with run_in_thread_loop_contextualized(answer):
            pass


async def test_context_variables_go_in_and_do_not_come_out() -> None:
    seen: list[str] = []

    async def visit() -> None:
        seen.append(place.get())
        place.set("away")

    place.set("home")
    await (await launch_in_thread_loop(visit()))
    async with run_in_thread_loop_contextualized(visit()):
        pass
    async with ThreadTaskGroup() as group:
        place.set("in the body")
        await group.spawn(visit())
    assert seen == ["home", "home", "in the body"]
    assert place.get() == "in the body"


# ---------------------------------------------------------------- the end of the program


def end_of(program: str) -> list[str]:
    """What a program prints, and logs, until its end."""
    command = [sys.executable, "-c", textwrap.dedent(program)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 0
    return (ended.stdout + ended.stderr).splitlines()


def test_a_thread_that_is_stuck_does_not_keep_the_program_from_ending_and_is_named_with_its_line() -> None:
    lines = end_of("""
        import threading
        from yamanote.runtime import run, yield_now
        from yamanote.threads import launch_in_thread_loop

        hanging = threading.Event()

        def hang():
            hanging.set()
            threading.Event().wait()

        async def target():
            await yield_now()
            hang()

        async def main():
            await launch_in_thread_loop(target(), name="aside")
            hanging.wait()

        run(main(), shutdown_timeout=0.01)
    """)
    named = lines.index("the thread 'aside' has not ended, and is left behind:")
    assert any(line.endswith("in hang") for line in lines[named:])


@pytest.mark.parametrize("make", ["Portal()", "ThreadTaskGroup()"])
def test_a_block_that_is_never_left_is_cancelled_and_named_at_the_end_of_the_program(make: str) -> None:
    lines = end_of(f"""
        import asyncio
        import threading
        from yamanote.threads import Portal, ThreadTaskGroup

        begun = threading.Event()

        async def child():
            try:
                begun.set()
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                print("cleaned up")

        block = {make}.__enter__()
        block.spawn(child())
        begun.wait()
    """)
    name = make.removesuffix("()")
    assert lines == ["cleaned up", f"the program ended before the thread 'loop of a {name}', whose loop is cancelled"]


@pytest.mark.parametrize("make", [Portal, ThreadTaskGroup, lambda: run_in_thread_loop_contextualized(answer)])
def test_a_block_that_was_not_entered_cannot_be_left(make: Callable[[], Any]) -> None:
    with pytest.raises(RuntimeError, match="has not been entered"):
        make().__exit__(None, None, None)


async def test_a_block_for_tasks_that_was_not_entered_cannot_be_left() -> None:
    for block in ThreadTaskGroup(), run_in_thread_loop_contextualized(answer):
        with pytest.raises(RuntimeError, match="has not been entered"):
            await block.__aexit__(None, None, None)


def three() -> Any:
    return 3


async def launched() -> object:
    return await (await launch_in_thread_loop(three))


def beside() -> None:
    with run_in_thread_loop_contextualized(three):
        pass


def spawned() -> None:
    with Portal() as portal:
        portal.spawn(three).result()


@pytest.mark.parametrize(
    "use", [lambda: run(run_in_thread_loop(three)), lambda: run(launched()), beside, spawned], ids=range(4)
)
def test_a_function_that_returns_no_awaitable_is_named_with_what_it_returned(use: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match=r"^three\(\) must return an awaitable, not 3$"):
        use()
