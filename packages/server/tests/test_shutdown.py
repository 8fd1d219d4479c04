"""`Shutdown` and `Subsystem`: in which order a program ends, and what becomes of its errors."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

import pytest

from yamanote.runtime import JoinError, TaskGroup, run, spawn_blocking, yield_now
from yamanote.server import Shutdown, Subsystem, serve
from yamanote.server._signums import SAME_REQUEST_SECONDS
from yamanote.time import VirtualClock

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals of one's own")


@pytest.fixture(autouse=True)
def the_signals_are_given_back() -> Iterator[None]:
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before


def on_virtual_clock(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return run(main(), clock=VirtualClock())


def now() -> float:
    return asyncio.get_running_loop().time()


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await yield_now()


class Log(list[str]):
    """What the subsystems of a test have done, in order."""

    def part(self, name: str, ending: float = 0.0) -> Callable[[Subsystem], Awaitable[None]]:
        """A subsystem that needs so many seconds to stop."""

        async def work(subsystem: Subsystem) -> None:
            self.append(f"{name} starts")
            subsystem.started()
            try:
                await subsystem.stopping()
                self.append(f"{name} stops")
                await asyncio.sleep(ending)
                self.append(f"{name} ends")
            except asyncio.CancelledError:
                self.append(f"{name} is cancelled")
                raise

        work.__name__ = name
        return work


def fail(error: BaseException) -> Callable[[Subsystem], Awaitable[None]]:
    """A subsystem that fails."""

    async def failing(subsystem: Subsystem) -> None:
        raise error

    return failing


@pytest.fixture
def log() -> Log:
    return Log()


# ---------------------------------------------------------------- phases


def test_subsystems_stop_one_after_the_other_the_last_one_first(log: Log) -> None:
    async def main() -> float:
        async with Shutdown() as shutdown:
            await shutdown.start(log.part("database", 1))
            await shutdown.start(log.part("cache", 3))
            await shutdown.start(log.part("web", 2))
            begun = now()
            shutdown.begin("closing time")
        assert shutdown.reason == "closing time" and shutdown.signal is None and shutdown.cut_short == ()
        return now() - begun

    assert on_virtual_clock(main) == 6
    assert log[3:] == ["web stops", "web ends", "cache stops", "cache ends", "database stops", "database ends"]


async def test_everybody_sees_the_reason_but_each_token_is_cancelled_when_it_is_its_turn() -> None:
    release = asyncio.Event()

    async def web(subsystem: Subsystem) -> None:
        await subsystem.stopping()
        await release.wait()

    async def stopping() -> None:
        await shutdown.token.cancelled()
        await turns()
        seen.extend((token.is_cancelled(), token.reason) for token in tokens)
        release.set()

    seen: list[tuple[bool, str | None]] = []
    async with TaskGroup() as group, Shutdown() as shutdown:
        group.spawn(stopping())
        tokens = [shutdown.spawn(Log().part("database")).token, shutdown.spawn(web).token]
        await turns()
        shutdown.begin("enough")
    assert seen == [(False, None), (True, "enough")]
    assert [token.reason for token in tokens] == ["enough", "enough"]


async def test_the_block_ends_when_all_subsystems_have_ended_by_themselves() -> None:
    async def brief(subsystem: Subsystem) -> None:
        await turns()
        log.append(subsystem.name)

    log: list[str] = []
    async with Shutdown() as shutdown:
        shutdown.spawn(brief, name="first")
        shutdown.spawn(brief, name="second")
    assert log == ["first", "second"] and shutdown.reason is None
    async with Shutdown():
        pass


async def test_the_body_is_cancelled_and_has_ended_before_the_first_subsystem_is_told(log: Log) -> None:
    async with Shutdown() as shutdown:
        await shutdown.start(log.part("web"))
        shutdown.begin()
        try:
            await asyncio.Event().wait()
        finally:
            await turns()
            log.append("body ends")
    assert log == ["web starts", "body ends", "web stops", "web ends"]
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


async def test_to_cancel_the_token_in_another_thread_begins_the_shutdown(log: Log) -> None:
    async with Shutdown() as shutdown:
        shutdown.spawn(log.part("web"))
        await spawn_blocking(shutdown.token.cancel, "from a thread")
        await asyncio.Event().wait()
    assert shutdown.reason == "from a thread" and log[-1] == "web ends"
    async with Shutdown() as shutdown:
        shutdown.spawn(log.part("web"))
        threading.Timer(0.001, shutdown.begin, ["from a thread"]).start()
    assert shutdown.reason == "from a thread"


async def test_one_that_was_begun_before_its_block_cancels_the_body_at_its_first_wait(log: Log) -> None:
    shutdown = Shutdown()
    shutdown.begin("never mind")
    async with shutdown:
        shutdown.spawn(log.part("web"))
        await asyncio.Event().wait()
    assert log == ["web starts", "web stops", "web ends"]


async def test_what_is_spawned_during_the_stop_is_told_from_its_beginning(log: Log) -> None:
    async def supervisor(subsystem: Subsystem) -> None:
        for _ in range(2):  # the second one when the first has been told to stop
            await subsystem.spawn(log.part("child")).wait()
        subsystem.shutdown.spawn(log.part("late"))

    async with Shutdown() as shutdown:
        shutdown.spawn(supervisor)
        await turns()
        shutdown.begin()
    assert log[:-3] == 2 * ["child starts", "child stops", "child ends"]
    assert log[-3:] == ["late starts", "late stops", "late ends"]


# ---------------------------------------------------------------- starting


async def test_start_returns_the_subsystem_when_it_has_said_that_it_is_ready() -> None:
    async def database(subsystem: Subsystem, url: str) -> None:
        await turns()
        ready.append(url)
        subsystem.started()
        with pytest.raises(RuntimeError, match="only once"):
            subsystem.started()
        await subsystem.stopping()

    ready: list[str] = []
    async with Shutdown() as shutdown:
        subsystem = await shutdown.start(database, "db://here")
        assert ready == ["db://here"] and subsystem.running and subsystem.name == "database"
        assert repr(subsystem) == "<Subsystem 'database' running>"
        shutdown.begin()
    assert not subsystem.running and repr(subsystem) == "<Subsystem 'database' ended>"


async def test_an_error_before_that_is_raised_by_start_alone_when_all_that_is_nested_has_ended(log: Log) -> None:
    async def database(subsystem: Subsystem) -> None:
        await subsystem.start(log.part("pool"))
        raise OSError("no such host")

    async with Shutdown() as shutdown:
        with pytest.raises(OSError, match="no such host"):
            await shutdown.start(database)
        assert log == ["pool starts", "pool stops", "pool ends"]
        assert not shutdown.token.is_cancelled()


async def test_one_that_ends_without_it_or_is_cancelled_before_has_not_started() -> None:
    async def forgetful(subsystem: Subsystem) -> None:
        pass

    async def cancelled(subsystem: Subsystem) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel("by itself")
        await turns()

    async with Shutdown() as shutdown:
        with pytest.raises(RuntimeError, match="'forgetful' ended without having called started"):
            await shutdown.start(forgetful)
        with pytest.raises(JoinError, match=r"^cancelled was cancelled: by itself$"):
            await shutdown.start(cancelled)


async def test_a_shutdown_during_a_start_cancels_it_and_waits_for_it(log: Log) -> None:
    async def hanging(subsystem: Subsystem) -> None:
        subsystem.spawn(log.part("nested"))
        try:
            await asyncio.Event().wait()
        finally:
            await turns()
            log.append("clean")

    async with Shutdown() as shutdown:
        await shutdown.start(log.part("database"))
        asyncio.get_running_loop().call_soon(shutdown.begin)
        try:
            await shutdown.start(hanging)
        finally:
            log.append("body ends")
    assert log.index("clean") < log.index("body ends") < log.index("database stops")
    assert "nested is cancelled" in log


async def test_an_error_on_its_way_to_a_start_that_is_cancelled_is_not_lost() -> None:
    async def failing(subsystem: Subsystem) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("disk full")

    with pytest.raises(ExceptionGroup) as caught:
        async with Shutdown() as shutdown:
            asyncio.get_running_loop().call_soon(shutdown.begin)
            await shutdown.start(failing)
    assert [str(error) for error in caught.value.exceptions] == ["disk full"]


@pytest.mark.parametrize("later", [0, 1])  # before the error is on its way, and after that, before it arrives
async def test_an_error_that_meets_the_cancellation_of_its_start_is_not_lost(later: int) -> None:
    async def fails_now(subsystem: Subsystem) -> None:
        await turns(3)
        loop = asyncio.get_running_loop()
        if later:
            loop.call_soon(loop.call_soon, starting.cancel)
        else:
            loop.call_soon(starting.cancel)
        raise OSError("disk full")

    with pytest.raises(ExceptionGroup) as caught:
        async with Shutdown() as shutdown:
            starting = asyncio.ensure_future(shutdown.start(fails_now))
            await asyncio.wait([starting])
            assert starting.cancelled()
    assert [str(error) for error in caught.value.exceptions] == ["disk full"]


# ---------------------------------------------------------------- nesting


def test_what_is_nested_stops_before_its_parent_in_reverse_order(log: Log) -> None:
    async def parent(subsystem: Subsystem) -> None:
        await subsystem.start(log.part("first", 1))
        await subsystem.start(log.part("second", 1))
        subsystem.started()
        await subsystem.stopping()
        log.append("parent stops")

    async def main() -> None:
        async with Shutdown() as shutdown:
            await shutdown.start(parent)
            shutdown.begin()

    on_virtual_clock(main)
    assert log[2:] == ["second stops", "second ends", "first stops", "first ends", "parent stops"]


async def test_a_partial_shutdown_stops_one_part_with_all_that_is_nested_and_nothing_else(log: Log) -> None:
    async def parent(subsystem: Subsystem) -> None:
        await subsystem.start(log.part("nested"))
        subsystem.started()
        await subsystem.stopping()
        log.append("parent stops")

    async with Shutdown() as shutdown:
        await shutdown.start(log.part("other"))
        part = await shutdown.start(parent)
        await part.stop("maintenance")
        assert log == ["other starts", "nested starts", "nested stops", "nested ends", "parent stops"]
        assert part.token.reason == "maintenance" and not part.running
        await part.stop()
        await part.wait()
        with pytest.raises(RuntimeError, match="has ended"):
            part.spawn(log.part("late"))
        assert not shutdown.token.is_cancelled()
        shutdown.begin()
    assert log[-2:] == ["other stops", "other ends"]


async def test_a_stop_goes_on_when_who_waits_for_it_is_cancelled(log: Log) -> None:
    release = asyncio.Event()

    async def slow(subsystem: Subsystem) -> None:
        await subsystem.stopping()
        await release.wait()

    async with Shutdown() as shutdown:
        part = shutdown.spawn(slow)
        stopping = asyncio.ensure_future(part.stop())
        await turns()
        stopping.cancel()
        await asyncio.wait([stopping])
        assert part.running and part.token.is_cancelled()
        release.set()
        await part.wait()
        assert not part.running


async def test_a_parent_that_returns_has_ended_when_its_children_have(log: Log) -> None:
    release = asyncio.Event()

    async def child(subsystem: Subsystem) -> None:
        await release.wait()

    async def parent(subsystem: Subsystem) -> None:
        subsystem.spawn(child)

    async with Shutdown() as shutdown:
        part = shutdown.spawn(parent)
        await turns()
        assert part.running and not part.token.is_cancelled()
        release.set()
        await part.wait()


async def test_nobody_waits_for_his_own_end() -> None:
    async def child(subsystem: Subsystem, parent: Subsystem) -> None:
        for end in (subsystem.stop, subsystem.wait, parent.stop, parent.wait):
            with pytest.raises(RuntimeError, match="its own end"):
                await end()

    async def parent(subsystem: Subsystem) -> None:
        await subsystem.spawn(child, subsystem).wait()

    async with Shutdown() as shutdown:
        shutdown.spawn(parent)


async def test_the_tasks_of_its_tracker_belong_to_it(log: Log) -> None:
    async def request() -> None:
        await release.wait()
        log.append("request served")

    async def web(subsystem: Subsystem) -> None:
        subsystem.tracker.spawn(request())
        await subsystem.stopping()
        asyncio.get_running_loop().call_later(0.001, release.set)

    release = asyncio.Event()
    async with Shutdown() as shutdown:
        shutdown.spawn(log.part("database"))
        shutdown.spawn(web)
        await turns()
        shutdown.begin()
    assert log == ["database starts", "request served", "database stops", "database ends"]


async def test_a_server_drains_before_what_it_needs_stops(log: Log) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        log.append(f"answers {line.decode()}")
        writer.write(line)

    async def web(subsystem: Subsystem) -> None:
        async with serve(answer, "127.0.0.1", 0, stop=subsystem.token) as server:
            port.append(server.port)
            subsystem.started()
            await subsystem.stopping()

    port: list[int] = []
    async with Shutdown() as shutdown:
        await shutdown.start(log.part("database"))
        await shutdown.start(web)
        reader, writer = await asyncio.open_connection("127.0.0.1", port[0])
        writer.write(b"he")
        await turns()
        shutdown.begin()
        try:
            await asyncio.Event().wait()
        finally:
            writer.write(b"llo")
            writer.write_eof()
    assert await reader.read() == b"hello"
    writer.close()
    await writer.wait_closed()
    assert log == ["database starts", "answers hello", "database stops", "database ends"]


# ---------------------------------------------------------------- deadlines


def test_one_deadline_for_all_after_which_all_who_are_left_are_cancelled_and_named(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> float:
        begun = now()
        with pytest.raises(ExceptionGroup) as caught:
            async with Shutdown(timeout=10) as shutdown:
                await shutdown.start(log.part("database", 1))
                await shutdown.start(log.part("web", 60))
                await shutdown.start(log.part("queue", 4))
                shutdown.begin()
        (error,) = caught.value.exceptions
        assert isinstance(error, TimeoutError)
        message = "the shutdown did not end within 10 seconds: 'web'; and, before it was their turn, 'database'"
        assert str(error) == message and caplog.messages == [message]
        assert shutdown.cut_short == ("web", "database")
        return now() - begun

    with caplog.at_level(logging.WARNING, "yamanote"):
        assert on_virtual_clock(main) == 10
    assert sorted(log[-2:]) == ["database is cancelled", "web is cancelled"]


def test_a_subsystem_may_have_a_deadline_of_its_own_for_all_that_is_nested_in_it(log: Log) -> None:
    async def web(subsystem: Subsystem) -> None:
        await subsystem.start(log.part("sessions", 60))
        subsystem.started()
        await subsystem.stopping()
        log.append("web stops")

    async def main() -> float:
        begun = now()
        with pytest.raises(ExceptionGroup) as caught:
            async with Shutdown(timeout=10) as shutdown:
                await shutdown.start(log.part("database", 1))
                await shutdown.start(web, timeout=5)
                await shutdown.start(Log().part("quick", 0.1), timeout=0.2)  # in time, though not all of the others are
                shutdown.begin()
        (error,) = caught.value.exceptions
        assert isinstance(error, TimeoutError)
        late = "the subsystem 'web' did not end within 5 seconds: 'sessions'; and, before it was their turn, 'web'"
        assert str(error) == late
        assert shutdown.cut_short == ("sessions", "web")
        return now() - begun

    assert on_virtual_clock(main) == pytest.approx(6.1)
    assert log[:4] == ["database starts", "sessions starts", "sessions stops", "sessions is cancelled"]
    assert log[4:] == ["database stops", "database ends"]


def test_a_partial_stop_that_is_late_is_an_error_under_its_policy(log: Log) -> None:
    async def main() -> None:
        reported: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        async with Shutdown() as shutdown:
            part = await shutdown.start(log.part("web", 60), timeout=5, on_error="report")
            await part.stop()
            assert log[-1] == "web is cancelled" and not shutdown.token.is_cancelled()
        assert [type(context["exception"]) for context in reported] == [TimeoutError]
        assert "'web'" in reported[0]["message"]

    on_virtual_clock(main)


def test_a_body_that_does_not_end_is_late_too(log: Log) -> None:
    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with Shutdown(timeout=10) as shutdown:
                await shutdown.start(log.part("web"))
                shutdown.begin()
                try:
                    await asyncio.Event().wait()
                finally:
                    await asyncio.sleep(60)
        assert "10 seconds: 'the body'; and, before it was their turn, 'web'" in str(caught.value.exceptions[0])

    on_virtual_clock(main)
    assert log == ["web starts", "web is cancelled"]


@pytest.mark.parametrize("place", ["shutdown", "subsystem"])
def test_what_is_spawned_after_the_deadline_is_cancelled_at_once(place: str, log: Log) -> None:
    async def main() -> None:
        async def late(subsystem: Subsystem) -> None:
            await subsystem.stopping()
            try:
                await asyncio.sleep(3600)
            finally:
                (subsystem.shutdown if place == "shutdown" else subsystem).spawn(deaf)

        async def deaf(subsystem: Subsystem) -> None:
            await asyncio.sleep(3600)

        begun = now()
        with pytest.raises(ExceptionGroup):
            async with Shutdown(timeout=1, signals=()) as shutdown:
                shutdown.spawn(late)
                shutdown.begin()
        assert now() - begun == 1

    on_virtual_clock(main)


@pytest.mark.parametrize("own", [None, 0.5, 5])
def test_who_was_cut_short_is_named_once_and_not_late_as_well_after_a_second_cancellation(own: float | None) -> None:
    async def main() -> None:
        async def slow(subsystem: Subsystem) -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(10)

        async def program() -> None:
            async with Shutdown(timeout=2, signals=()) as shutdown:
                blocks.append(shutdown)
                shutdown.spawn(slow, timeout=own)
                await asyncio.sleep(3600)

        blocks: list[Shutdown] = []
        task = asyncio.ensure_future(program())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        assert blocks[0].cut_short == ("slow",)
        if own != 0.5:
            assert task.cancelled()
        else:
            error = task.exception()
            assert isinstance(error, ExceptionGroup) and ["'slow'" in str(each) for each in error.exceptions] == [True]

    on_virtual_clock(main)


def test_tasks_of_a_tracker_are_not_waited_for_after_the_deadline() -> None:
    async def web(subsystem: Subsystem) -> None:
        requests.append(asyncio.ensure_future(asyncio.sleep(60)))
        subsystem.tracker.track(requests[0])

    requests: list[asyncio.Future[None]] = []

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with Shutdown(timeout=10) as shutdown:
                shutdown.spawn(web)
                await turns()
                shutdown.begin()
        assert [str(error) for error in caught.value.exceptions] == [
            "the shutdown did not end within 10 seconds: 'web'"
        ]
        assert not requests[0].done()
        requests[0].cancel()

    on_virtual_clock(main)


def test_a_deadline_that_was_met_says_nothing_afterwards(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with Shutdown(timeout=10) as shutdown:
            await shutdown.start(log.part("web", 1), timeout=5)
            shutdown.begin()
        await asyncio.sleep(60)
        assert caplog.messages == [] and shutdown.cut_short == ()

    on_virtual_clock(main)


def test_no_deadline_waits_as_long_as_it_takes(log: Log) -> None:
    async def main() -> float:
        async with Shutdown(timeout=None) as shutdown:
            await shutdown.start(log.part("web", 1e6))
            begun = now()
            shutdown.begin()
        return now() - begun

    assert on_virtual_clock(main) == 1e6


# ---------------------------------------------------------------- errors


async def test_an_error_begins_the_shutdown_and_all_errors_are_raised_at_the_end(log: Log) -> None:
    async def fails_at_the_end(subsystem: Subsystem) -> None:
        await subsystem.stopping()
        raise ValueError("not saved")

    with pytest.raises(ExceptionGroup) as caught:
        async with Shutdown() as shutdown:
            shutdown.spawn(log.part("database"))
            shutdown.spawn(fails_at_the_end)
            shutdown.spawn(fail(OSError("gone")), name="web")
            await asyncio.Event().wait()
    assert [repr(error) for error in caught.value.exceptions] == ["OSError('gone')", "ValueError('not saved')"]
    assert caught.value.exceptions[0].__notes__ == ["in the subsystem 'web'"]
    assert shutdown.reason == "'web' failed" and log[-1] == "database ends"


@pytest.mark.parametrize("own", [False, True])
async def test_an_error_that_is_reported_stops_only_what_is_nested_in_it(own: bool, log: Log) -> None:
    async def failing(subsystem: Subsystem) -> None:
        await subsystem.start(log.part("nested"))
        raise OSError("gone")

    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    async with Shutdown(on_error="shutdown" if own else "report") as shutdown:
        await shutdown.start(log.part("database"))
        part = shutdown.spawn(failing, on_error="report" if own else None)
        await part.wait()
        assert not shutdown.token.is_cancelled()
        assert log == ["database starts", "nested starts", "nested stops", "nested ends"]
        shutdown.begin()
    ((context),) = reported
    assert context["message"] == "the subsystem 'failing' failed" and str(context["exception"]) == "gone"


async def test_what_is_nested_has_the_policy_of_its_parent() -> None:
    async def parent(subsystem: Subsystem) -> None:
        await subsystem.spawn(fail(OSError("gone"))).wait()

    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    async with Shutdown() as shutdown:
        shutdown.spawn(parent, on_error="report")
    assert len(reported) == 1


async def test_an_error_of_the_body_shuts_down_in_order_and_is_raised_with_the_others(log: Log) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with Shutdown() as shutdown:
            await shutdown.start(log.part("web"))
            raise ValueError("oh")
    assert [str(error) for error in caught.value.exceptions] == ["oh"]
    assert log == ["web starts", "web stops", "web ends"] and shutdown.reason == "the body failed"


async def test_a_function_that_is_not_async_has_failed() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with Shutdown() as shutdown:
            shutdown.spawn(lambda subsystem: None)  # type: ignore[arg-type, return-value]
    assert "must be async" in str(caught.value.exceptions[0])


@pytest.mark.parametrize("where", ["subsystem", "body"])
def test_an_exit_shuts_down_in_order_and_keeps_its_status(where: str, log: Log) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        async with Shutdown() as shutdown:
            await shutdown.start(log.part("database"))
            shutdown.spawn(fail(OSError("by the way")))
            if where == "body":
                sys.exit(3)
            shutdown.spawn(fail(SystemExit(3)))

    reported: list[dict[str, Any]] = []
    with pytest.raises(SystemExit) as caught:
        run(main())
    assert caught.value.code == 3
    assert log == ["database starts", "database stops", "database ends"]
    assert [str(context["exception"]) for context in reported] == ["by the way"]


async def test_errors_leave_no_cycles_behind() -> None:
    class Gone(Exception): ...

    async def failing(subsystem: Subsystem) -> None:
        error = Gone()
        errors.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    async def main() -> None:
        with suppress(ExceptionGroup):
            async with Shutdown(signals=()) as shutdown:
                with suppress(Gone):
                    await shutdown.start(failing)
                shutdown.spawn(failing)

    errors: list[weakref.ref[Gone]] = []
    gc.collect()
    gc.disable()
    try:
        await main()
        assert [error() for error in errors] == [None, None]
    finally:
        gc.enable()


# ---------------------------------------------------------------- cancelling the block


async def test_a_block_that_is_cancelled_shuts_down_in_order_and_the_cancellation_goes_on(log: Log) -> None:
    async def main(left: bool) -> None:
        async with Shutdown(signals=()) as shutdown:
            await shutdown.start(log.part("database"))
            await shutdown.start(log.part("web"))
            blocks.append(shutdown)
            if not left:
                await asyncio.Event().wait()

    blocks: list[Shutdown] = []
    for left in (False, True):
        log.clear()
        task = asyncio.ensure_future(main(left))
        await turns(10)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() and blocks[-1].reason == "the block was cancelled"
        assert log[2:] == ["web stops", "web ends", "database stops", "database ends"]


def test_a_second_cancellation_means_now(log: Log) -> None:
    async def main() -> None:
        async def program() -> None:
            async with Shutdown(signals=()) as shutdown:
                blocks.append(shutdown)
                await shutdown.start(log.part("database"))
                await shutdown.start(log.part("web", 5))

        blocks: list[Shutdown] = []
        begun = now()
        task = asyncio.ensure_future(program())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() and now() - begun == 2
        assert blocks[0].cut_short == ("web", "database")
        assert sorted(log[-2:]) == ["database is cancelled", "web is cancelled"]

    on_virtual_clock(main)


async def test_a_cancellation_with_errors_is_raised_at_the_next_await() -> None:
    async def main() -> None:
        with pytest.raises(ExceptionGroup):
            async with Shutdown(signals=()) as shutdown:
                shutdown.spawn(fails_at_the_end)
                await asyncio.Event().wait()
        assert task.cancelling() == 1
        log.append("caught")
        await asyncio.sleep(0)
        log.append("went on")

    async def fails_at_the_end(subsystem: Subsystem) -> None:
        await subsystem.stopping()
        raise ValueError("not saved")

    log: list[str] = []
    task = asyncio.ensure_future(main())
    await turns()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() and log == ["caught"]


async def test_a_cancellation_that_was_taken_back_is_not_raised_after_the_error_that_took_its_place() -> None:
    async def fails_at_the_end(subsystem: Subsystem) -> None:
        await subsystem.stopping()
        raise ValueError("not saved")

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await asyncio.Event().wait()
        finally:  # a clean-up, with a request that has been delivered
            with pytest.raises(ExceptionGroup):
                async with asyncio.timeout(0.001):
                    async with Shutdown(signals=()) as shutdown:
                        shutdown.spawn(fails_at_the_end)
                        await asyncio.Event().wait()
            assert task.cancelling() == 1
            await turns()
            log.append("went on")

    log: list[str] = []
    task = asyncio.ensure_future(main())
    await turns()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() and log == ["went on"]


@pytest.mark.parametrize("ends", ["in its body", "at its end"])
async def test_a_block_that_is_thrown_away_cancels_all_and_their_errors_are_reported(ends: str) -> None:
    async def fails(subsystem: Subsystem) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise LookupError("cancelled")

    async def host() -> None:
        async with Shutdown(signals=()) as shutdown:
            shutdown.spawn(fails)
            if ends == "in its body":
                await asyncio.Event().wait()
            shutdown.spawn(fail(ValueError("before")))

    reports: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(repr(report["exception"])))
    coroutine = host()
    coroutine.send(None)
    await turns()
    coroutine.close()
    await turns()
    assert reports == [*(["ValueError('before')"] if ends == "at its end" else []), "LookupError('cancelled')"]


async def test_a_start_that_is_thrown_away_cancels_what_it_has_started(log: Log) -> None:
    async def never(subsystem: Subsystem) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append("cancelled")

    async with Shutdown(signals=()) as shutdown:
        starting = shutdown.start(never)
        starting.send(None)
        await turns()
        starting.close()
    assert log == ["cancelled"]


async def test_one_that_is_cancelled_while_its_tracker_is_waited_for_stops_what_is_nested(log: Log) -> None:
    async def outer(subsystem: Subsystem) -> None:
        tasks.append(asyncio.current_task())
        subsystem.spawn(log.part("nested"))
        subsystem.tracker.track(never)

    tasks: list[Any] = []
    never = asyncio.ensure_future(asyncio.Event().wait())
    async with Shutdown(signals=()) as shutdown:
        shutdown.spawn(outer)
        await turns()
        tasks[0].cancel()
    never.cancel()
    assert log[1:] == ["nested stops", "nested ends"]


# ---------------------------------------------------------------- signals


@posix
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("runner", [run, asyncio.run])
def test_the_first_signal_shuts_down_in_order_and_the_block_ends_normally(
    signum: signal.Signals, runner: Callable[[Coroutine[Any, Any, str]], str], log: Log
) -> None:
    async def main() -> str:
        async with Shutdown() as shutdown:
            await shutdown.start(log.part("database"))
            await shutdown.start(log.part("web"))
            asyncio.get_running_loop().call_later(0.001, os.kill, os.getpid(), signum)
        assert shutdown.signal is signum and shutdown.reason == f"{signum.name} has arrived"
        return "done"

    assert runner(main()) == "done"
    assert log[2:] == ["web stops", "web ends", "database stops", "database ends"]


@posix
async def test_a_second_signal_means_now_and_gives_the_signals_back(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    before = signal.getsignal(signal.SIGTERM)

    async def stubborn(subsystem: Subsystem) -> None:
        await subsystem.stopping()
        await asyncio.sleep(SAME_REQUEST_SECONDS + 0.01)
        signal.raise_signal(signal.SIGTERM)
        try:
            await asyncio.Event().wait()
        finally:
            log.append("now" if signal.getsignal(signal.SIGTERM) is before else "too early")

    with caplog.at_level(logging.WARNING, "yamanote"):
        async with Shutdown(timeout=None) as shutdown:
            await shutdown.start(log.part("database"))
            shutdown.spawn(stubborn)
            await turns()
            signal.raise_signal(signal.SIGINT)
    assert shutdown.signal is signal.SIGINT and shutdown.cut_short == ("stubborn", "database")
    assert sorted(log[1:]) == ["database is cancelled", "now"]
    assert caplog.messages == ["SIGTERM has arrived: cancelled before they had ended: 'stubborn', 'database'"]


@posix
@pytest.mark.parametrize(("seconds", "cut"), [(0.04, ()), (0.06, ("saving",))])
def test_two_signals_at_nearly_the_same_time_are_one_request(seconds: float, cut: tuple[str, ...]) -> None:
    async def saving(subsystem: Subsystem) -> None:
        subsystem.started()
        await subsystem.stopping()
        await asyncio.sleep(seconds)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(1)

    async def main() -> Shutdown:
        async with Shutdown() as shutdown:
            await shutdown.start(saving)
            signal.raise_signal(signal.SIGTERM)
        return shutdown

    shutdown = on_virtual_clock(main)
    assert shutdown.signal is signal.SIGTERM and shutdown.cut_short == cut


@posix
async def test_a_signal_that_comes_as_the_block_ends_is_told_or_goes_to_whoever_has_it_next() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda signum, frame: heard.append(signum))
    try:
        for steps in range(6):
            heard.clear()
            async with Shutdown() as shutdown:
                asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGTERM)
                for _ in range(steps):
                    await asyncio.sleep(0)
            await turns()
            assert (shutdown.signal is signal.SIGTERM) == (heard == []), steps
    finally:
        signal.signal(signal.SIGTERM, before)


@posix
async def test_the_first_signal_after_the_beginning_cuts_nobody_short(log: Log) -> None:
    async def saving(subsystem: Subsystem) -> None:
        await subsystem.stopping()
        signal.raise_signal(signal.SIGTERM)
        await turns(20)
        log.append("saved")

    async with Shutdown() as shutdown:
        shutdown.spawn(saving)
        await turns()
        shutdown.begin("closing time")
    assert log == ["saved"] and shutdown.reason == "closing time" and shutdown.signal is signal.SIGTERM


@posix
@pytest.mark.parametrize("workers", [1, 2])
def test_on_the_workers_of_run_it_has_the_signals_as_well(workers: int, log: Log) -> None:
    async def main() -> None:
        async with Shutdown() as shutdown:
            await shutdown.start(log.part("web"))
            asyncio.get_running_loop().call_later(0.01, os.kill, os.getpid(), signal.SIGTERM)
        assert shutdown.signal is signal.SIGTERM

    run(main(), workers=workers, stop_signals={signal.SIGTERM})
    assert log == ["web starts", "web stops", "web ends"]


@posix
def test_it_works_on_uvloop(log: Log) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async with Shutdown() as shutdown:
            await shutdown.start(log.part("web"))
            asyncio.get_running_loop().call_later(0.001, os.kill, os.getpid(), signal.SIGTERM)
        assert shutdown.signal is signal.SIGTERM

    run(main(), loop_factory=uvloop.new_event_loop)
    assert log[-1] == "web ends"


def test_in_another_thread_it_works_without_signals(log: Log) -> None:
    async def main(*signums: int) -> None:
        async with Shutdown(signals=signums) as shutdown:
            await shutdown.start(log.part("web"))
            shutdown.begin()

    errors: list[BaseException] = []

    def program() -> None:
        asyncio.run(main())
        try:
            asyncio.run(main(signal.SIGTERM))
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=program)
    thread.start()
    thread.join()
    assert log == ["web starts", "web stops", "web ends"]
    assert "main thread" in str(errors[0])


PROGRAM = """
import asyncio, signal, sys
from yamanote.runtime import run
from yamanote.server import Shutdown

async def part(subsystem, name, status):
    subsystem.started()
    await subsystem.stopping()
    print(name, flush=True)
    if status == "late":
        await asyncio.sleep(3600)
    elif status == "stuck":
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                print("no", flush=True)
    elif status:
        sys.exit(int(status))

async def main():
    async with Shutdown(timeout={timeout}) as shutdown:
        await shutdown.start(part, "database", "", name="database")
        await shutdown.start(part, "web", sys.argv[1], name="web")
        print("ready", flush=True)

run(main(){options})
"""


@posix
@pytest.mark.parametrize(
    ("status", "timeout", "options", "expected"),
    [("", 10, "", 0), ("3", 10, "", 3), ("3", 10, ", workers=2", 3), ("late", 0.05, "", 1)],
)
def test_the_exit_status_of_a_program_tells_how_it_ended(
    status: str, timeout: float, options: str, expected: int
) -> None:
    program = PROGRAM.replace("{timeout}", str(timeout)).replace("{options}", options)
    with subprocess.Popen(
        [sys.executable, "-c", program, status], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=30)
        assert process.returncode == expected, errors
    assert output.splitlines() == (["web"] if status == "late" else ["web", "database"])
    assert ("TimeoutError: the shutdown did not end within 0.05 seconds: 'web'; and, " in errors) == (status == "late")
    assert status == "late" or not errors


@posix
def test_a_third_signal_ends_a_program_that_does_not_even_let_itself_be_cancelled() -> None:
    program = PROGRAM.replace("{timeout}", "None").replace("{options}", "")
    with subprocess.Popen(
        [sys.executable, "-c", program, "stuck"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in ("ready\n", "web\n", "no\n"):
            assert process.stdout.readline() == line
            time.sleep(SAME_REQUEST_SECONDS + 0.01)
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGTERM


# ---------------------------------------------------------------- what is refused


async def test_nonsense_is_refused_by_name_at_the_call() -> None:
    for timeout, kind in (("1", TypeError), (True, TypeError), (-1, ValueError), (float("nan"), ValueError)):
        with pytest.raises(kind, match="timeout must be"):
            Shutdown(timeout=timeout)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="on_error must be"):
        Shutdown(on_error="ignore")  # type: ignore[arg-type]
    for signums, kind in ((15, TypeError), (["x"], TypeError), ([12345], ValueError)):
        with pytest.raises(kind, match="signals must be"):
            Shutdown(signals=signums)  # type: ignore[arg-type]
    async with Shutdown() as shutdown:
        for options, kind in (
            ({"name": 1}, TypeError),
            ({"timeout": -1}, ValueError),
            ({"on_error": "ignore"}, ValueError),
        ):
            with pytest.raises(kind, match=f"{next(iter(options))} must be"):
                shutdown.spawn(fail(OSError()), **options)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="function must be callable"):
            shutdown.spawn(Log().part("web")(None))  # type: ignore[arg-type]


async def test_it_is_entered_once_and_takes_subsystems_only_in_its_block_and_on_its_loop(log: Log) -> None:
    shutdown = Shutdown(signals=())
    with pytest.raises(RuntimeError, match="only in its block"):
        shutdown.spawn(log.part("web"))
    async with shutdown:
        assert repr(shutdown) == "<Shutdown open subsystems=0>"

        async def elsewhere() -> None:
            with pytest.raises(RuntimeError, match="another event loop"):
                shutdown.spawn(log.part("web"))

        await spawn_blocking(asyncio.run, elsewhere())
    with pytest.raises(RuntimeError, match="has ended"):
        shutdown.spawn(log.part("web"))
    with pytest.raises(RuntimeError, match="only once"):
        await shutdown.__aenter__()
    assert log == []
