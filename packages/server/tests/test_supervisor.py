"""`Supervisor`: who is started again, when, in which order, and what becomes of the errors. All on virtual time."""

from __future__ import annotations

import asyncio
import gc
import inspect
import weakref
from asyncio import CancelledError
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

import pytest

from yamanote.runtime import JoinError, Started, TaskGroup, cancel_and_wait, run, spawn, start_task, yield_now
from yamanote.server import Supervisor, SupervisorError
from yamanote.server._strategy import Restart, Strategy
from yamanote.testing import no_leaks
from yamanote.time import Schedule, VirtualClock, sleep, time


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The test on a loop whose virtual time begins at 0. It leaves no task behind."""

    async def alone(arguments: dict[str, Any]) -> None:
        with no_leaks():
            await test(**arguments)

    def in_no_time(**arguments: Any) -> None:
        run(alone(arguments), loop_factory=VirtualClock().loop_factory)

    in_no_time.__name__ = test.__name__
    in_no_time.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]  # where pytest finds the cases
    return in_no_time


class Stage:
    """Children that can be made to end, and what happens to them in the order in which it happens."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.reports: list[str] = []
        self.errors: list[BaseException] = []
        self.knives: dict[str, asyncio.Future[None]] = {}
        asyncio.get_running_loop().set_exception_handler(self._report)

    def _report(self, loop: asyncio.AbstractEventLoop, report: dict[str, Any]) -> None:
        self.reports.append(report["message"])
        self.errors.append(report["exception"])

    async def child(self, name: str) -> None:
        """Lives until it is told how to die; takes a second to end."""
        self.log.append(f"+{name}")
        self.knives[name] = asyncio.get_running_loop().create_future()
        try:
            await self.knives[name]
        except CancelledError:
            await sleep(1)
            self.log.append(f"-{name}")
            raise

    async def starting(self, started: Started[None], name: str) -> None:
        """The same, but it needs a second to start."""
        self.log.append(f"({name}")
        await sleep(1)
        started()
        await self.child(name)

    def fail(self, name: str, error: BaseException | None = None) -> None:
        self.log.append(f"!{name}")
        self.knives[name].set_exception(error or LookupError(name))

    def finish(self, name: str) -> None:
        self.log.append(f".{name}")
        self.knives[name].set_result(None)

    def taken(self) -> str:
        """What has happened since this was asked last."""
        log = " ".join(self.log)
        self.log.clear()
        return log


@pytest.mark.parametrize(
    ("strategy", "restarted"),
    [
        ("one_for_one", "!b +b"),
        ("one_for_all", "!b -d -c -a +a +b +c +d"),
        ("rest_for_one", "!b -d -c +b +c +d"),
    ],
)
@virtual
async def test_a_strategy_says_who_is_restarted_and_stops_them_in_reverse_order(
    strategy: Strategy, restarted: str
) -> None:
    stage = Stage()
    async with Supervisor(strategy) as supervisor:
        children = [supervisor.spawn(stage.child, name, name=name) for name in "abcd"]
        await sleep(1)
        assert stage.taken() == "+a +b +c +d"
        stage.fail("b")
        await sleep(10)
        assert stage.taken() == restarted
        assert [child.restarts for child in children] == [restarted.count(f"+{name}") for name in "abcd"]
        supervisor.stop()
    assert stage.taken() == "-d -c -b -a"
    assert len(stage.errors) == 1


@virtual
async def test_children_that_say_when_they_have_started_are_restarted_one_after_the_other() -> None:
    stage = Stage()
    async with Supervisor("one_for_all") as supervisor:
        for name in "abc":
            child = await supervisor.start(stage.starting, name, name=name)
            assert child.running
        assert stage.taken() == "(a +a (b +b (c +c"
        stage.fail("c")
        await sleep(10)
        assert stage.taken() == "!c -b -a (a +a (b +b (c +c"
        supervisor.stop()


# When


@pytest.mark.parametrize(
    ("restart", "end", "restarts", "reported"),
    [
        ("permanent", "returns", 1, None),
        ("permanent", "fails", 1, LookupError),
        ("permanent", "is cancelled", 1, JoinError),
        ("transient", "returns", 0, None),
        ("transient", "fails", 1, LookupError),
        ("transient", "is cancelled", 1, JoinError),
        ("temporary", "returns", 0, None),
        ("temporary", "fails", 0, LookupError),
        ("temporary", "is cancelled", 0, None),
    ],
)
@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
@virtual
async def test_a_child_says_when_its_end_is_a_death(
    strategy: Strategy, restart: Restart, end: str, restarts: int, reported: type[Exception] | None
) -> None:
    stage = Stage()
    tasks: list[asyncio.Task[Any] | None] = []

    async def child() -> None:
        tasks.append(asyncio.current_task())
        await stage.child("x")

    async with Supervisor(strategy) as supervisor:
        mortal = supervisor.spawn(child, restart=restart)
        neighbour = supervisor.spawn(stage.child, "neighbour")
        await sleep(1)
        if end == "returns":
            stage.finish("x")
        elif end == "fails":
            stage.fail("x")
        else:
            assert tasks[0] is not None
            tasks[0].cancel()
        await sleep(10)
        assert mortal.restarts == restarts
        assert mortal.running == (restarts > 0)
        assert neighbour.restarts == (restarts if strategy != "one_for_one" else 0)
        supervisor.stop()
    assert [type(error) for error in stage.errors] == ([] if reported is None else [reported])
    assert all("child" in report and "restarted" in report for report in stage.reports)


@virtual
async def test_a_temporary_child_is_stopped_for_the_sake_of_others_and_does_not_return() -> None:
    stage = Stage()
    async with Supervisor("one_for_all") as supervisor:
        supervisor.spawn(stage.child, "a")
        temporary = supervisor.spawn(stage.child, "b", restart="temporary")
        supervisor.spawn(stage.child, "c")
        await sleep(1)
        stage.fail("a")
        await temporary.wait()
        await sleep(10)
        assert stage.taken() == "+a +b +c !a -c -b +a +c"
        supervisor.stop()


@virtual
async def test_what_has_ended_for_good_does_not_return_with_its_siblings() -> None:
    stage = Stage()
    async with Supervisor("one_for_all") as supervisor:
        supervisor.spawn(stage.child, "a", restart="transient")
        supervisor.spawn(stage.child, "b")
        await sleep(1)
        stage.finish("a")
        await sleep(1)
        stage.fail("b")
        await sleep(1)
        assert stage.taken() == "+a +b .a !b +b"
        supervisor.stop()


@virtual
async def test_the_block_ends_when_its_body_and_all_children_have_ended_for_good() -> None:
    stage = Stage()
    async with Supervisor() as supervisor:
        supervisor.spawn(sleep, 2, restart="transient")
        flaky = iter([LookupError(), None])

        async def fails_once() -> None:
            await sleep(4)
            if error := next(flaky):
                raise error
            supervisor.spawn(sleep, 3, restart="temporary")

        supervisor.spawn(fails_once, restart="transient")
    assert time() == 11
    assert len(stage.errors) == 1


async def test_an_empty_supervisor_takes_no_loop_turn() -> None:
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    async with Supervisor():
        pass
    assert turns == []


@virtual
async def test_a_transient_child_that_returns_while_its_siblings_die_has_ended_for_good() -> None:
    stage = Stage()
    async with Supervisor("one_for_all") as supervisor:
        supervisor.spawn(stage.child, "a", restart="transient")
        supervisor.spawn(stage.child, "b")
        await sleep(1)
        stage.fail("b")
        stage.finish("a")  # in the same turn, of itself
        await sleep(5)
        assert stage.taken() == "+a +b !b .a +b"
        supervisor.stop()


@virtual
async def test_a_transient_child_that_returns_because_it_was_stopped_comes_back() -> None:
    stage = Stage()

    async def obliging() -> None:
        try:
            await stage.child("a")
        except CancelledError:
            return

    async with Supervisor("one_for_all") as supervisor:
        supervisor.spawn(obliging, restart="transient")
        supervisor.spawn(stage.child, "b")
        await sleep(1)
        stage.fail("b")
        await sleep(5)
        assert stage.taken() == "+a +b !b -a +a +b"
        supervisor.stop()


@virtual
async def test_a_child_that_fails_on_its_own_while_the_others_are_stopped_is_reported() -> None:
    stage = Stage()
    async with Supervisor() as supervisor:
        supervisor.spawn(stage.child, "a")
        supervisor.spawn(stage.child, "b")
        await sleep(1)
        supervisor.stop()
        asyncio.get_running_loop().call_later(0.5, stage.fail, "a")
    assert stage.taken() == "+a +b !a -b"
    assert [type(error) for error in stage.errors] == [LookupError]
    assert "while it was being stopped" in stage.reports[0]


# How often


@virtual
async def test_more_restarts_than_allowed_within_the_period_stop_everything() -> None:
    stage = Stage()
    last = LookupError("last")
    with pytest.raises(SupervisorError) as raised:
        async with Supervisor(max_restarts=2, period=5, name="stage") as supervisor:
            for name in "abc":
                supervisor.spawn(stage.child, name, name=name)
            for moment in (1, 2, 8, 9):  # the first two have been forgotten by then
                await sleep(moment - time())
                stage.fail("b")
            await sleep(13 - time())
            stage.taken()
            stage.fail("b", last)
            await asyncio.Event().wait()  # the body is cancelled
    assert stage.taken() == "!b -c -a"
    assert raised.value.exceptions == (last,)
    assert "'b'" in str(raised.value) and "2 restarts within 5 seconds" in str(raised.value)
    assert "'stage'" in str(raised.value)
    assert len(stage.errors) == 4 and last not in stage.errors


@virtual
async def test_a_restart_at_the_very_end_of_the_period_counts_and_one_before_it_does_not() -> None:
    async def dies_at(*moments: float) -> float:
        stage = Stage()
        began = time()
        try:
            async with Supervisor(max_restarts=1, period=5) as supervisor:
                supervisor.spawn(stage.child, "a")
                for moment in moments:
                    await sleep(began + moment - time())
                    stage.fail("a")
                    await sleep(0.25)
                supervisor.stop()
        except SupervisorError:
            return time() - began
        return 0

    assert await dies_at(1, 6) == 6
    assert await dies_at(1, 6.5) == 0


@virtual
async def test_without_any_restart_the_first_death_is_the_end() -> None:
    with pytest.raises(SupervisorError) as raised:
        async with Supervisor(max_restarts=0) as supervisor:
            supervisor.spawn(sleep, 1)
    assert "returned" in str(raised.value) and "returned" in str(raised.value.exceptions[0])
    assert time() == 1


@virtual
async def test_the_error_of_the_body_joins_that_of_the_child() -> None:
    stage = Stage()
    with pytest.raises(SupervisorError) as raised:
        async with Supervisor(max_restarts=0) as supervisor:
            supervisor.spawn(stage.child, "a")
            await sleep(1)
            stage.fail("a")
            try:
                await asyncio.Event().wait()
            finally:
                raise KeyError("in the body")
    assert [type(error) for error in raised.value.exceptions] == [LookupError, KeyError]
    assert not stage.errors


@virtual
async def test_children_that_die_together_are_restarted_once() -> None:
    stage = Stage()
    async with Supervisor("one_for_all", max_restarts=1) as supervisor:
        for name in "abc":
            supervisor.spawn(stage.child, name)
        await sleep(1)
        stage.taken()
        stage.fail("b")
        stage.fail("a")
        await sleep(9)
        assert stage.taken() == "!b !a -c +a +b +c"
        assert len(stage.errors) == 2
        supervisor.stop()


@virtual
async def test_the_backoff_delays_each_restart_and_begins_anew_after_a_long_life() -> None:
    stage = Stage()
    lives: list[float] = []

    async def child() -> None:
        lives.append(time())
        await sleep(20 if len(lives) == 4 else 0.5)
        raise LookupError

    async with Supervisor(max_restarts=99, period=10, backoff=Schedule.exponential(1)) as supervisor:
        supervisor.spawn(child)
        await sleep(31)
        supervisor.stop()
    assert lives == [0, 0.5 + 1, 2 + 2, 4.5 + 4, 28.5 + 1]
    assert "is restarted in 4 seconds" in stage.reports[2]


@virtual
async def test_a_long_start_is_no_long_life() -> None:
    Stage()
    lives: list[float] = []

    async def child(started: Started[None]) -> None:
        lives.append(time())
        if len(lives) in (2, 3):
            await sleep(100)
            raise LookupError  # before it was up at all
        await sleep(20)
        started()
        await sleep(12 if len(lives) == 4 else 1)
        raise LookupError

    async with Supervisor(max_restarts=99, period=10, backoff=Schedule.exponential(1)) as supervisor:
        await supervisor.start(child)
        while len(lives) < 6:
            await sleep(1)
        supervisor.stop()
    pauses = [1, 2, 4, 1, 2]
    lengths = [21, 100, 100, 32, 21]
    assert lives == [sum(pauses[:life]) + sum(lengths[:life]) for life in range(6)]


@virtual
async def test_every_child_has_a_backoff_of_its_own() -> None:
    stage = Stage()
    async with Supervisor(max_restarts=99, backoff=Schedule(1, 10)) as supervisor:
        for name in "ab":
            supervisor.spawn(stage.child, name)
        await sleep(1)
        stage.fail("a")
        await sleep(2)
        stage.fail("a")
        await sleep(1)
        stage.fail("b")
        await sleep(1.5)
        assert stage.taken() == "+a +b !a +a !a !b +b"
        await sleep(10)
        assert stage.taken() == "+a"
        supervisor.stop()


@virtual
async def test_the_end_of_the_backoff_is_the_end() -> None:
    stage = Stage()
    with pytest.raises(SupervisorError, match="back-off had ended") as raised:
        async with Supervisor(max_restarts=99, backoff=Schedule.fixed(1).retries(2)) as supervisor:

            async def child() -> None:
                raise LookupError

            supervisor.spawn(child)
    assert time() == 2
    assert len(stage.errors) == 2 and len(raised.value.exceptions) == 1


@virtual
async def test_a_death_during_the_backoff_of_others_brings_back_all_whom_it_concerns() -> None:
    stage = Stage()
    async with Supervisor("rest_for_one", backoff=Schedule.fixed(10)) as supervisor:
        for name in "abcd":
            supervisor.spawn(stage.child, name)
        await sleep(1)
        stage.fail("c")
        await sleep(5)
        assert stage.taken() == "+a +b +c +d !c -d"
        stage.fail("b")
        await sleep(9)
        assert stage.taken() == "!b"
        await sleep(2)
        assert stage.taken() == "+b +c +d"
        supervisor.stop()


@virtual
async def test_a_death_in_the_middle_of_a_restart_begins_it_anew() -> None:
    stage = Stage()
    async with Supervisor("one_for_all") as supervisor:
        for name in "abc":
            await supervisor.start(stage.starting, name)
        stage.taken()
        stage.fail("c")
        await sleep(3.5)  # two seconds to end, one for a to start: b is starting
        assert stage.taken() == "!c -b -a (a +a (b"
        stage.fail("a")
        await sleep(9)
        assert stage.taken() == "!a (a +a (b +b (c +c"
        supervisor.stop()
    assert len(stage.errors) == 2


@virtual
async def test_nobody_starts_again_beside_one_who_could_not() -> None:
    stage = Stage()
    lives = 0

    async def first(started: Started[None]) -> None:
        nonlocal lives
        lives += 1
        if lives == 2:
            raise LookupError
        await stage.starting(started, "a")

    async with Supervisor("one_for_all") as supervisor:
        await supervisor.start(first)
        await supervisor.start(stage.starting, "b")
        stage.taken()
        stage.fail("a")
        await sleep(9)
        assert stage.taken() == "!a -b (a +a (b +b"
        supervisor.stop()


@virtual
async def test_who_was_starting_when_the_restart_began_anew_is_waited_for_again() -> None:
    stage = Stage()
    async with Supervisor("rest_for_one") as supervisor:
        for name in "ab":
            await supervisor.start(stage.starting, name)
        stage.taken()
        stage.fail("a")
        await sleep(1.5)  # b has ended, and a is starting
        supervisor.spawn(stage.child, "c")
        await yield_now()
        stage.fail("c")
        await sleep(9)
        assert stage.taken() == "!a -b (a +c !c (a +a (b +b +c"
        supervisor.stop()


@virtual
async def test_a_child_that_is_added_during_a_restart_starts_at_once_and_has_no_part_in_it() -> None:
    stage = Stage()
    async with Supervisor("one_for_all", backoff=Schedule.fixed(10)) as supervisor:
        supervisor.spawn(stage.child, "a")
        supervisor.spawn(stage.child, "b")
        await sleep(1)
        stage.fail("a")
        await sleep(5)
        supervisor.spawn(stage.child, "c")
        await sleep(10)
        assert stage.taken() == "+a +b !a -b +c +a +b"
        stage.fail("b")
        await sleep(20)
        assert stage.taken() == "!b -c -a +a +b +c"
        supervisor.stop()


# Starting


@virtual
async def test_what_fails_before_it_has_started_is_raised_by_start_and_forgotten() -> None:
    stage = Stage()

    async def fails(started: Started[None]) -> None:
        await sleep(1)
        raise LookupError

    async def returns(started: Started[None]) -> None:
        await sleep(1)

    async def is_cancelled(started: Started[None]) -> None:
        raise CancelledError

    async with Supervisor("one_for_all", max_restarts=0) as supervisor:
        supervisor.spawn(stage.child, "a", restart="temporary")
        with pytest.raises(LookupError):
            await supervisor.start(fails)
        with pytest.raises(RuntimeError, match="'returns' ended without having called started"):
            await supervisor.start(returns)
        with pytest.raises(JoinError):
            await supervisor.start(is_cancelled)
        assert repr(supervisor) == "<Supervisor open children=1>"
        supervisor.stop()
    assert not stage.errors
    assert stage.taken() == "+a -a"


async def test_start_refuses_a_function_that_cannot_take_started_if_it_says_so() -> None:
    async def plain() -> None: ...

    async def port(started: Started[None], number: int) -> None: ...

    class Silent:
        __signature__ = 1

        async def __call__(self, started: Started[None]) -> None:
            started()

    problem = r"start\(\) needs a function that can take started, and the arguments, not <function .*"
    async with Supervisor() as supervisor:
        with pytest.raises(TypeError, match=f"{problem}plain.*: too many positional arguments"):
            await supervisor.start(plain)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=f"{problem}port.*: missing a required argument: 'number'"):
            await supervisor.start(port)  # type: ignore[arg-type]
        assert repr(supervisor) == "<Supervisor open children=0>"
        await supervisor.start(Silent(), restart="temporary")


@pytest.mark.parametrize("pause", [0, 1])
@virtual
async def test_what_fails_after_it_has_started_is_restarted_even_if_at_once(pause: int) -> None:
    stage = Stage()
    lives = 0

    async def child(started: Started[None]) -> None:
        nonlocal lives
        lives += 1
        started()
        if lives < 3:
            if pause:
                await sleep(pause)
            raise LookupError
        await stage.child("a")

    async with Supervisor() as supervisor:
        handle = await supervisor.start(child)
        await sleep(9)
        assert handle.restarts == 2 and handle.running
        supervisor.stop()
    assert len(stage.errors) == 2


@pytest.mark.parametrize("end", ["fails", "returns", "is cancelled"])
@pytest.mark.parametrize("restart", ["permanent", "transient"])
@virtual
async def test_to_end_before_it_has_started_again_is_a_death_like_any_other(restart: Restart, end: str) -> None:
    stage = Stage()
    lives = 0

    async def child(started: Started[None]) -> None:
        nonlocal lives
        lives += 1
        if lives in (2, 3):
            await sleep(1)
            if end == "fails":
                raise LookupError
            if end == "is cancelled":
                raise CancelledError
            return
        started()
        await stage.child("a")

    async with Supervisor() as supervisor:
        handle = await supervisor.start(child, restart=restart)
        await sleep(1)
        stage.fail("a")
        await sleep(9)
        assert (handle.restarts, handle.running) == (3, True)
        supervisor.stop()
    expected = {"fails": LookupError, "returns": RuntimeError, "is cancelled": JoinError}[end]
    assert [type(error) for error in stage.errors] == [LookupError, expected, expected]


@virtual
async def test_to_cancel_start_is_to_end_the_child() -> None:
    stage = Stage()
    async with Supervisor() as supervisor:

        async def child(started: Started[None]) -> None:
            await stage.child("a")

        starting = start_task(supervisor.start(child))
        await sleep(1)
        await cancel_and_wait(starting)
        assert stage.taken() == "+a -a"
        assert starting.cancelled()
    assert not stage.errors


@virtual
async def test_start_is_told_when_the_supervisor_stops() -> None:
    async with Supervisor() as supervisor:

        async def child(started: Started[None]) -> None:
            await asyncio.Event().wait()

        starting = spawn(supervisor.start(child))
        await sleep(1)
        supervisor.stop()
    with pytest.raises(JoinError):
        await starting


@virtual
async def test_children_start_side_by_side() -> None:
    stage = Stage()
    async with Supervisor() as supervisor:
        starting = [start_task(supervisor.start(stage.starting, name)) for name in "abc"]
        await asyncio.wait(starting)
        assert time() == 1
        supervisor.stop()
    assert stage.taken() == "(a (b (c +a +b +c -c -b -a"


# Stopping


@pytest.mark.parametrize("by", ["the body", "a child", "a stranger", "an error", "a cancellation"])
@virtual
async def test_children_are_stopped_one_after_the_other_in_reverse_order(by: str) -> None:
    stage = Stage()
    ended: list[str] = []

    async def host() -> None:
        async with Supervisor() as supervisor:
            for name in "abc":
                supervisor.spawn(stage.child, name)

            async def stops() -> None:
                supervisor.stop()
                supervisor.stop()
                ended.append("stop returned at once")

            await sleep(1)
            if by == "the body":
                await stops()
            elif by == "a child":
                supervisor.spawn(stops, restart="temporary")
            elif by == "a stranger":
                spawn(stops())
            elif by == "an error":
                raise LookupError
            await asyncio.Event().wait()

    task = start_task(host())
    await sleep(2)
    if by == "a cancellation":
        task.cancel()
        await sleep(1.5)
        task.cancel()
        assert not task.done()
    await asyncio.wait([task])
    assert stage.taken() == "+a +b +c -c -b -a"
    assert task.cancelled() == (by == "a cancellation")
    if not task.cancelled():
        assert isinstance(task.exception(), LookupError) == (by == "an error")
    assert bool(ended) == (by in ("the body", "a child", "a stranger"))


@virtual
async def test_stopping_in_the_middle_of_a_restart_keeps_the_order() -> None:
    stage = Stage()
    for moment in (0.5, 1.5, 2.5, 3.5, 4.5, 5.5):
        async with Supervisor("one_for_all") as supervisor:
            for name in "abc":
                await supervisor.start(stage.starting, name)
            stage.fail("c")
            stage.taken()
            await sleep(moment)
            supervisor.stop()
        log = stage.taken().split()
        assert [entry for entry in log if entry.startswith("-")] == {
            0.5: ["-b", "-a"],
            1.5: ["-b", "-a"],
            2.5: ["-b", "-a"],
            3.5: ["-b", "-a", "-a"],
            4.5: ["-b", "-a", "-b", "-a"],
            5.5: ["-b", "-a", "-c", "-b", "-a"],
        }[moment]


@virtual
async def test_stopping_does_not_wait_for_a_backoff() -> None:
    stage = Stage()
    async with Supervisor(backoff=Schedule.fixed(1000)) as supervisor:
        child = supervisor.spawn(stage.child, "a")
        await sleep(1)
        stage.fail("a")
        await sleep(1)
        assert not child.running
        supervisor.stop()
    assert time() == 2


@virtual
async def test_a_child_that_swallows_its_cancellation_is_cancelled_once_and_waited_for() -> None:
    cancellations = 0

    async def stubborn() -> None:
        nonlocal cancellations
        while time() < 10:
            try:
                await sleep(10 - time())
            except CancelledError:
                cancellations += 1

    async with Supervisor() as supervisor:
        child = supervisor.spawn(stubborn)
        await sleep(1)
        stopping = [start_task(child.stop()) for _ in range(2)]
        await sleep(1)
        supervisor.stop()
    assert time() == 10 and cancellations == 1
    await asyncio.wait(stopping)


@virtual
async def test_errors_while_stopping_are_reported_once_and_not_raised() -> None:
    stage = Stage()

    async def child() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise LookupError

    async with Supervisor() as supervisor:
        stopped = supervisor.spawn(child)
        supervisor.spawn(child)
        await sleep(1)
        await stopped.stop()
        supervisor.stop()
    assert [type(error) for error in stage.errors] == [LookupError, LookupError]
    assert all("while it was being stopped" in report for report in stage.reports)


@virtual
async def test_a_cancellation_from_outside_is_not_lost_when_an_error_takes_its_place() -> None:
    stage = Stage()
    log: list[str] = []

    async def host() -> None:
        try:
            async with Supervisor(max_restarts=0) as supervisor:
                supervisor.spawn(stage.child, "a")
                supervisor.spawn(stage.child, "b")
                await sleep(1)
                stage.fail("a")
                await asyncio.Event().wait()
        except SupervisorError:
            log.append("error")
        await sleep(1)
        log.append("never")

    task = start_task(host())
    await sleep(1.5)
    task.cancel()
    await asyncio.wait([task])
    assert log == ["error"] and task.cancelled() and task.cancelling() == 1


@virtual
async def test_a_stranger_who_cancels_the_restart_itself_does_not_leave_a_child_down() -> None:
    stage = Stage()
    for strategy in ("one_for_one", "one_for_all"):
        async with Supervisor(strategy, backoff=Schedule.fixed(10), name=strategy) as supervisor:
            supervisor.spawn(stage.child, "a")
            await sleep(1)
            stage.fail("a")
            await sleep(1)
            (restart,) = [task for task in asyncio.all_tasks() if "restarting" in task.get_name()]
            restart.cancel()
            await sleep(10)
            assert stage.taken() == "+a !a +a"
            supervisor.stop()
        stage.taken()


@virtual
async def test_a_time_limit_around_the_block_leaves_no_request_behind() -> None:
    stage = Stage()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            async with Supervisor() as supervisor:
                supervisor.spawn(stage.child, "a")
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0
    assert stage.taken() == "+a -a"


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
def test_what_is_meant_to_end_the_program_stops_all_and_comes_out_bare(fatal: type[BaseException]) -> None:
    log: list[str] = []

    async def fails() -> None:
        await yield_now()
        raise fatal

    async def main() -> None:
        stage = Stage()
        try:
            async with Supervisor() as supervisor:
                supervisor.spawn(stage.child, "a")
                supervisor.spawn(fails)
                await asyncio.Event().wait()
        except BaseException as error:
            log.extend([stage.taken(), type(error).__name__])
            raise

    with pytest.raises(fatal):
        run(main(), loop_factory=VirtualClock().loop_factory)
    assert log == ["+a -a", fatal.__name__]


@virtual
async def test_an_error_that_is_no_exception_ends_the_block_as_it_is() -> None:
    class Unusual(BaseException):
        pass

    stage = Stage()

    async def fails() -> None:
        raise Unusual

    with pytest.raises(Unusual):
        async with Supervisor() as supervisor:
            supervisor.spawn(stage.child, "a")
            await sleep(1)
            supervisor.spawn(fails)
    assert stage.taken() == "+a -a" and not stage.errors


# One child


@virtual
async def test_a_child_can_be_taken_out_for_good() -> None:
    stage = Stage()
    async with Supervisor("one_for_all") as supervisor:
        first = supervisor.spawn(stage.child, "a")
        second = supervisor.spawn(stage.child, "b")
        await sleep(1)
        await first.stop()
        await first.stop()
        assert not first.running and second.running
        stage.fail("b")
        await sleep(1)
        assert stage.taken() == "+a +b -a !b +b"
        supervisor.stop()


@virtual
async def test_stopping_who_waits_for_its_restart_releases_those_who_wait_with_it() -> None:
    stage = Stage()
    async with Supervisor("one_for_all", backoff=Schedule.fixed(1000)) as supervisor:
        first = supervisor.spawn(stage.child, "a")
        supervisor.spawn(stage.child, "b")
        await sleep(1)
        stage.fail("a")
        await sleep(5)
        await first.stop()
        await sleep(1)
        assert stage.taken() == "+a +b !a -b +b"
        supervisor.stop()
    assert time() == 8


@virtual
async def test_taking_out_who_waits_for_its_restart_leaves_no_task() -> None:
    stage = Stage()
    async with Supervisor(backoff=Schedule.fixed(1000)) as supervisor:
        child = supervisor.spawn(stage.child, "a")
        supervisor.spawn(stage.child, "b")
        await sleep(1)
        stage.fail("a")
        await sleep(1)
        await child.stop()
        await yield_now()
        await yield_now()
        assert not [task for task in asyncio.all_tasks() if "restarting" in task.get_name()]
        supervisor.stop()


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all"])
@virtual
async def test_stopping_the_last_child_in_its_backoff_ends_the_block(strategy: Strategy) -> None:
    stage = Stage()
    async with Supervisor(strategy, backoff=Schedule.fixed(1000)) as supervisor:
        child = supervisor.spawn(stage.child, "a")
        await sleep(1)
        stage.fail("a")
        await sleep(1)
        await child.stop()
    assert time() == 2


@virtual
async def test_stopping_who_is_starting_again_lets_the_others_start() -> None:
    stage = Stage()
    async with Supervisor("one_for_all") as supervisor:
        first, _ = [await supervisor.start(stage.starting, name) for name in "ab"]
        stage.taken()
        stage.fail("b")
        await sleep(1.5)  # a has ended, and is starting
        await first.stop()
        await sleep(2)
        assert stage.taken() == "!b -a (a (b +b"
        supervisor.stop()


@virtual
async def test_a_child_cannot_wait_for_its_own_end() -> None:
    async with Supervisor() as supervisor:
        refused: list[str] = []

        async def child() -> None:
            for call in (handle.stop, handle.wait):
                try:
                    await call()
                except RuntimeError as error:
                    refused.append(str(error))

        handle = supervisor.spawn(child, name="me", restart="temporary")
    assert refused == ["'me' cannot wait for its own end"] * 2


@virtual
async def test_a_task_that_a_child_has_started_can_stop_it() -> None:
    stage = Stage()

    async def child() -> None:
        async with TaskGroup() as group:
            group.spawn(handle.stop())
            await stage.child("a")

    async with Supervisor() as supervisor:
        handle = supervisor.spawn(child)
    assert stage.taken() == "+a -a" and not stage.errors


@virtual
async def test_who_waits_for_a_child_waits_for_its_last_end_and_may_be_cancelled() -> None:
    stage = Stage()
    async with Supervisor() as supervisor:
        child = supervisor.spawn(stage.child, "a", restart="transient")
        waiting = [start_task(child.wait()) for _ in range(3)]
        await sleep(1)
        stage.fail("a")
        await cancel_and_wait(waiting[0])
        await sleep(1)
        assert child.running and not waiting[1].done()
        stage.finish("a")
        await asyncio.gather(*waiting[1:])
        await child.wait()
        assert not child.running


@virtual
async def test_to_cancel_a_stop_changes_nothing_for_the_child() -> None:
    stage = Stage()
    async with Supervisor() as supervisor:
        child = supervisor.spawn(stage.child, "a")
        await sleep(1)
        stopping = start_task(child.stop())
        await yield_now()
        await cancel_and_wait(stopping)
        assert stopping.cancelled() and stage.taken() == "+a -a"


@pytest.mark.parametrize("turns", range(8))
@virtual
async def test_a_child_that_is_taken_while_the_block_ends_is_not_cut_short(turns: int) -> None:
    stage = Stage()
    log: list[str] = []

    async def child() -> None:
        await sleep(1)
        log.append("done")

    async def takes_its_place() -> None:
        await sleep(2)
        await last.stop()
        for _ in range(turns):
            await yield_now()
        try:
            supervisor.spawn(child, restart="temporary")
        except RuntimeError:
            log.append("refused")

    taking = start_task(takes_its_place())
    async with Supervisor("one_for_all", backoff=Schedule.fixed(1000)) as supervisor:
        last = supervisor.spawn(stage.child, "a")
        await sleep(1)
        stage.fail("a")
    await taking
    assert log in (["done"], ["refused"])


# Children and their surroundings

variable: ContextVar[str] = ContextVar("variable", default="outside")


@virtual
async def test_each_life_has_a_task_a_name_and_the_context_of_the_spawn() -> None:
    seen: list[tuple[str, str, bool]] = []

    def called() -> Coroutine[Any, Any, None]:
        task = asyncio.current_task()
        assert task is not None
        seen.append((task.get_name(), variable.get(), task is spawner))
        variable.set("of this life")
        return sleep(1)

    spawner = asyncio.current_task()
    async with Supervisor(name="stage") as supervisor:
        variable.set("of the spawn")
        child = supervisor.spawn(called, name="actor")
        variable.set("later")
        await sleep(1.5)
        supervisor.stop()
    assert child.name == "actor" and child.restarts == 1
    assert seen == [("supervisor stage/actor", "of the spawn", False)] * 2


@virtual
async def test_a_child_is_called_as_its_function_by_default() -> None:
    async with Supervisor() as supervisor:
        assert supervisor.spawn(sleep, 1, restart="temporary").name == "sleep"


@virtual
async def test_supervisors_can_be_nested() -> None:
    stage = Stage()

    async def inner() -> None:
        async with Supervisor(max_restarts=1, name="inner") as supervisor:
            supervisor.spawn(stage.child, "a")

    async with Supervisor(name="outer") as supervisor:
        child = supervisor.spawn(inner)
        for _ in range(2):
            await sleep(1)
            stage.fail("a")
        await sleep(1)
        assert child.restarts == 1
        assert stage.taken() == "+a !a +a !a +a"
        supervisor.stop()
    assert [type(error) for error in stage.errors] == [LookupError, SupervisorError]


@virtual
async def test_thousands_of_restarts_leave_nothing() -> None:
    refs: list[weakref.ref[object]] = []

    class Token:
        pass

    stage = Stage()
    stage._report = lambda *_: None  # type: ignore[method-assign]
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)

    async def child() -> None:
        token = Token()
        refs.append(weakref.ref(token))
        await yield_now()
        raise LookupError(token)

    async with Supervisor(max_restarts=10**9, period=0.001) as supervisor:
        handle = supervisor.spawn(child)
        while handle.restarts < 2000:
            await yield_now()
        assert len(asyncio.all_tasks()) <= 3
        gc.collect()
        assert sum(ref() is not None for ref in refs) <= 2
        supervisor.stop()


@virtual
async def test_errors_are_freed_without_the_garbage_collector() -> None:
    class Mine(Exception):
        pass

    refs: list[weakref.ref[Mine]] = []

    async def fails(started: Started[None] | None = None) -> None:
        error = Mine()
        refs.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(SupervisorError):
            async with Supervisor(max_restarts=0) as supervisor:
                with pytest.raises(Mine):
                    await supervisor.start(fails)
                supervisor.spawn(fails)
        await sleep(1)
        assert [ref() for ref in refs] == [None, None]
    finally:
        gc.enable()


# Refusals


@virtual
async def test_children_are_taken_only_while_the_block_is_open() -> None:
    supervisor = Supervisor(name="stage")
    with pytest.raises(RuntimeError, match="it is not open"):
        supervisor.spawn(sleep, 1)
    with pytest.raises(RuntimeError, match="has not been entered"):
        supervisor.stop()
    stage = Stage()
    refused: list[str] = []

    async def late() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            with pytest.raises(RuntimeError, match="it is being stopped"):
                supervisor.spawn(stage.child, "a")
            with pytest.raises(RuntimeError, match="it is being stopped"):
                await supervisor.start(stage.starting, "a")
            refused.append("both")

    async with supervisor:
        supervisor.spawn(late)
        await sleep(1)
        with pytest.raises(RuntimeError, match="can be entered only once"):
            await supervisor.__aenter__()
        supervisor.stop()
    assert refused == ["both"] and not stage.log
    with pytest.raises(RuntimeError, match="it is not open"):
        supervisor.spawn(sleep, 1)
    supervisor.stop()


async def test_children_come_from_the_loop_of_the_block() -> None:
    async with Supervisor() as supervisor:

        async def spawns() -> None:
            supervisor.spawn(sleep, 1)

        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(run, spawns())


@virtual
async def test_nonsense_is_refused_at_the_call() -> None:
    for arguments, error, message in [
        ({"strategy": "all"}, ValueError, "strategy must be one of 'one_for_one', .*, not 'all'"),
        ({"max_restarts": -1}, ValueError, "max_restarts"),
        ({"max_restarts": 1.5}, TypeError, "max_restarts"),
        ({"max_restarts": True}, TypeError, "max_restarts"),
        ({"period": 0}, ValueError, "period"),
        ({"period": float("nan")}, ValueError, "period"),
        ({"period": "5"}, TypeError, "period"),
        ({"backoff": 1.0}, TypeError, "backoff must be a Schedule"),
    ]:
        with pytest.raises(error, match=message):
            Supervisor(**arguments)  # type: ignore[arg-type]
    async with Supervisor() as supervisor:
        with pytest.raises(ValueError, match=r"restart must be one of 'permanent', .*, not 'never'"):
            supervisor.spawn(sleep, 1, restart="never")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"spawn\(\) needs an async function"):
            supervisor.spawn(sleep(1))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"start\(\) needs an async function"):
            await supervisor.start(None)  # type: ignore[arg-type]


@virtual
async def test_a_function_that_is_not_async_is_an_error_of_the_child() -> None:
    with pytest.raises(SupervisorError) as raised:
        async with Supervisor(max_restarts=0) as supervisor:
            supervisor.spawn(lambda: 1)  # type: ignore[arg-type, return-value]
    assert "must be async" in str(raised.value.exceptions[0])


@virtual
async def test_a_host_that_is_thrown_away_tells_its_children() -> None:
    stage = Stage()

    async def host() -> None:
        async with Supervisor() as supervisor:
            for name in "ab":
                supervisor.spawn(stage.child, name)
            await sleep(1)

    coroutine = host()
    future = coroutine.send(None)
    assert future is not None
    await sleep(0.5)
    coroutine.close()
    await sleep(2)
    assert stage.taken() == "+a +b -b -a"


async def test_the_error_of_a_supervisor_whose_host_is_thrown_away_is_reported() -> None:
    async def host() -> None:
        async with Supervisor(max_restarts=0) as supervisor:
            supervisor.spawn(asyncio.sleep, 0)

    reports: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report["exception"]))
    coroutine = host()
    assert coroutine.send(None) is not None
    for _ in range(5):
        await yield_now()
    coroutine.close()
    assert [type(report) for report in reports] == [SupervisorError]


def test_parts_of_a_supervisor_error_are_supervisor_errors() -> None:
    error = SupervisorError("too often", [LookupError(), KeyError()])
    part, rest = error.split(KeyError)
    assert type(part) is SupervisorError and type(rest) is SupervisorError
    assert part.message == "too often"
