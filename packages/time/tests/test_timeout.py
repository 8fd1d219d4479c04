"""Timeouts: call form and context form, cancellation from both sides."""

import asyncio
import inspect
import math
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import pytest

from yamanote.runtime import BUDGET, CancelScope, cooperative, current_deadline, remaining, start_task, yield_now
from yamanote.time import VirtualClock, sleep, time, timeout, timeout_at


def virtual(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        with asyncio.Runner(loop_factory=VirtualClock().loop_factory) as runner:
            runner.run(balanced(test()))

    run.__name__ = test.__name__
    return run


async def balanced(test: Coroutine[Any, Any, None]) -> None:
    """Fail when the test leaves a timer, a task, or a request to cancel behind."""
    await test
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert asyncio.all_tasks() == {task}
    loop = asyncio.get_running_loop()
    await yield_now()  # a cancellation that was left behind would arrive here
    assert [timer for timer in loop._scheduled if not timer.cancelled()] == []  # type: ignore[attr-defined]


async def ready(value: Any = "done") -> Any:
    return value


async def after(seconds: float, value: Any = "done") -> Any:
    await sleep(seconds)
    return value


async def call_form(seconds: float | None, work: Awaitable[Any]) -> Any:
    return await timeout(seconds, work)


async def call_form_at(seconds: float | None, work: Awaitable[Any]) -> Any:
    return await timeout_at(None if seconds is None else time() + seconds, work)


async def context_form(seconds: float | None, work: Awaitable[Any]) -> Any:
    async with timeout(seconds):
        return await work


async def context_form_at(seconds: float | None, work: Awaitable[Any]) -> Any:
    async with timeout_at(None if seconds is None else time() + seconds):
        return await work


async def pair_form(seconds: float | None, work: Awaitable[Any]) -> Any:
    return as_call_form(await timeout(work, seconds), seconds)


async def pair_form_at(seconds: float | None, work: Awaitable[Any]) -> Any:
    return as_call_form(await timeout_at(work, None if seconds is None else time() + seconds), seconds)


def as_call_form(pair: tuple[Any, bool], seconds: float | None) -> Any:
    value, ok = pair
    if ok:
        assert ok is True
        return value
    assert pair == (None, False)
    raise TimeoutError(f"{seconds}") from asyncio.CancelledError()


FORMS = pytest.mark.parametrize(
    "limited", [call_form, call_form_at, context_form, context_form_at, pair_form, pair_form_at]
)
Form = Callable[[float | None, Awaitable[Any]], Coroutine[Any, Any, Any]]


@FORMS
@pytest.mark.parametrize("value", [None, 0, "", ValueError("a value"), StopIteration(3)])
@pytest.mark.parametrize("work", [ready, lambda value: after(0, value), lambda value: after(1, value)])
def test_the_value_of_work_that_is_in_time_is_returned(limited: Form, value: Any, work: Any) -> None:
    @virtual
    async def main() -> None:
        assert await limited(2, work(value)) is value

    main()


@FORMS
def test_work_that_is_late_is_cancelled_and_the_call_raises_when_it_has_ended(limited: Form) -> None:
    @virtual
    async def main() -> None:
        ended: list[float] = []

        async def work() -> None:
            try:
                await sleep(60)
            finally:
                await sleep(3)
                ended.append(time())

        with pytest.raises(TimeoutError) as caught:
            await limited(2, work())
        assert ended == [5]
        assert time() == 5
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert "2" in str(caught.value)

    main()


@FORMS
def test_none_is_for_ever(limited: Form) -> None:
    @virtual
    async def main() -> None:
        assert await limited(None, after(1e5)) == "done"

    main()


@FORMS
@pytest.mark.parametrize("seconds", [0, -1, -math.inf])
def test_work_that_waits_has_no_time_at_all(limited: Form, seconds: float) -> None:
    @virtual
    async def main() -> None:
        with pytest.raises(TimeoutError):
            await limited(seconds, after(0.001))
        with pytest.raises(TimeoutError):
            await limited(seconds, asyncio.get_running_loop().create_future())
        assert time() == 0

    main()


@FORMS
@pytest.mark.parametrize("seconds", [0, -1, -math.inf])
def test_finished_work_never_times_out(limited: Form, seconds: float) -> None:
    @virtual
    async def main() -> None:
        assert await limited(seconds, ready()) == "done"
        for _ in range(2 * BUDGET + 1):  # also when it is the turn of others
            await limited(seconds, cooperative())
        assert await limited(seconds, after(0)) == "done"

    main()


@FORMS
def test_work_that_gives_way_again_and_again_has_no_more_time_than_other_work(limited: Form) -> None:
    @virtual
    async def main() -> None:
        async def busy() -> None:
            while True:
                await yield_now()

        for seconds in (0, -1):
            with pytest.raises(TimeoutError):
                await limited(seconds, busy())

    main()


@FORMS
def test_limits_that_are_not_needed_leave_nothing_in_the_heap(limited: Form) -> None:
    @virtual
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        for _ in range(1000):
            assert await limited(10, ready()) == "done"
            assert await limited(10 + time(), ready()) == "done"
        assert len(loop._scheduled) <= 1
        for _ in range(100):
            assert await limited(10, after(0)) == "done"
        assert len(loop._scheduled) <= 1

    main()


@FORMS
def test_work_that_finishes_although_it_was_cancelled_has_not_timed_out(limited: Form) -> None:
    @virtual
    async def main() -> None:
        async def stubborn() -> str:
            try:
                await sleep(60)
            except asyncio.CancelledError:
                return "finished"
            return "never"

        assert await limited(2, stubborn()) == "finished"

        async def more_stubborn() -> str:
            try:
                await sleep(60)
            except asyncio.CancelledError:
                await sleep(5)
                return "finished"
            return "never"

        assert await limited(2, more_stubborn()) == "finished"

    main()


@FORMS
@pytest.mark.parametrize("wait", [0, 1])
def test_the_error_of_the_work_comes_through(limited: Form, wait: float) -> None:
    @virtual
    async def main() -> None:
        async def fail() -> None:
            if wait:
                await sleep(wait)
            raise error

        error = OSError("no answer")
        with pytest.raises(OSError) as caught:
            await limited(2, fail())
        assert caught.value is error

        async def fail_late() -> None:
            try:
                await sleep(60)
            finally:
                raise error

        with pytest.raises(OSError):
            await limited(2, fail_late())

        async def own_timeout() -> None:
            raise TimeoutError("mine")

        with pytest.raises(TimeoutError, match="mine"):
            await limited(2, own_timeout())

    main()


@FORMS
@pytest.mark.parametrize("turns", range(1, 7))
@pytest.mark.parametrize("stubborn", [False, True])
def test_a_cancellation_from_outside_is_never_swallowed(limited: Form, turns: int, stubborn: bool) -> None:
    """At each turn: in the first wait of the work, and in the second."""

    @virtual
    async def main() -> None:
        async def work() -> None:
            await yield_now()
            try:
                await sleep(60)
            finally:
                await yield_now()
                if stubborn:
                    await sleep(1)

        task = asyncio.create_task(limited(30, work()))
        for _ in range(turns):
            await yield_now()
        task.cancel("from outside")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time() < 30

    main()


@FORMS
@pytest.mark.parametrize("first", ["timer", "outside"])
def test_deadline_and_cancellation_in_one_turn_are_a_cancellation(limited: Form, first: str) -> None:
    @virtual
    async def main() -> None:
        loop = asyncio.get_running_loop()
        if first == "outside":
            loop.call_at(2, lambda: task.cancel())
        task = asyncio.create_task(limited(2, sleep(60)))
        await yield_now()
        if first == "timer":
            loop.call_at(2, lambda: task.cancel())
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time() == 2

    main()


@FORMS
def test_the_inner_of_two_timeouts_is_the_one_that_raises(limited: Form) -> None:
    @virtual
    async def main() -> None:
        async def inner() -> str:
            with pytest.raises(TimeoutError):
                await limited(1, sleep(60))
            await sleep(1)
            return "went on"

        assert await limited(5, inner()) == "went on"
        assert time() == 2

    main()


@FORMS
def test_the_outer_of_two_timeouts_is_no_error_of_the_inner(limited: Form) -> None:
    @virtual
    async def main() -> None:
        errors: list[str] = []

        async def inner() -> None:
            try:
                await limited(5, sleep(60))
            except BaseException as error:
                errors.append(type(error).__name__)
                raise

        with pytest.raises(TimeoutError):
            await limited(1, inner())
        assert errors == ["CancelledError"]
        assert time() == 1

    main()


@FORMS
def test_a_limit_in_clean_up_after_a_cancellation_works_as_ever_and_that_goes_on(limited: Form) -> None:
    ends: list[str] = []

    @virtual
    async def main() -> None:
        async def work() -> None:
            try:
                await sleep(60)
            finally:
                assert await limited(5, after(1)) == "done"
                with pytest.raises(TimeoutError):
                    await limited(1, sleep(60))
                ends.append("cleaned up")

        task = asyncio.create_task(work())
        await sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1
        assert time() == 3

    main()
    assert ends == ["cleaned up"]


@FORMS
def test_of_two_limits_that_are_over_at_the_same_moment_the_outer_one_is_told(limited: Form) -> None:
    @virtual
    async def main() -> None:
        inside: list[str] = []

        async def inner() -> None:
            try:
                await limited(2, sleep(60))
            except BaseException as error:
                inside.append(type(error).__name__)
                raise

        with pytest.raises(TimeoutError):
            await limited(2, inner())
        assert inside == ["CancelledError"]
        assert time() == 2

    main()


@FORMS
@pytest.mark.parametrize("late", [False, True])
def test_a_cancellation_that_the_work_has_absorbed_is_still_one_afterwards(limited: Form, late: bool) -> None:
    """As with `asyncio.timeout`: who asked for it has not taken it back."""

    @virtual
    async def main() -> None:
        async def work() -> str:
            with pytest.raises(asyncio.CancelledError):
                await sleep(60)
            await sleep(60 if late else 0.5)
            return "done"

        async def call() -> int:
            if late:
                with pytest.raises(asyncio.CancelledError):
                    await limited(2, work())
            else:
                assert await limited(2, work()) == "done"
            task = asyncio.current_task()
            assert task is not None
            return task.cancelling()

        task = asyncio.create_task(call())
        await sleep(1)
        task.cancel()
        assert await task == 1

    main()


@FORMS
def test_a_limit_inside_of_a_shield_counts_there(limited: Form) -> None:
    @virtual
    async def main() -> None:
        with CancelScope() as around:
            with CancelScope(shield=True):
                around.cancel()
                with pytest.raises(TimeoutError):
                    await limited(2, sleep(60))
            assert time() == 2
            await sleep(60)
        assert around.cancelled_caught
        assert time() == 2

    main()


@FORMS
def test_it_works_from_the_first_step_of_an_eager_task_on(limited: Form) -> None:
    @virtual
    async def main() -> None:
        async def call() -> str:
            with pytest.raises(TimeoutError):
                await limited(2, sleep(60))
            return "late"

        assert await start_task(limited(2, ready()), eager=True) == "done"
        assert await start_task(call(), eager=True) == "late"
        assert time() == 2

    main()


@FORMS
def test_a_call_that_is_cancelled_before_it_begins_does_not_begin(limited: Form) -> None:
    @virtual
    async def main() -> None:
        work = after(1)
        task = asyncio.create_task(limited(2, work))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert inspect.getcoroutinestate(work) == inspect.CORO_CREATED
        work.close()

    main()


@FORMS
def test_the_deadline_can_be_asked_for_in_the_work_and_in_what_that_starts(limited: Form) -> None:
    @virtual
    async def main() -> None:
        async def ask() -> tuple[float | None, float | None]:
            return current_deadline(), remaining()

        async def work() -> None:
            assert await ask() == (10, 10)
            child = asyncio.create_task(ask())
            assert await child == (10, 10)
            await sleep(4)
            assert await limited(3, ask()) == (7, 3)
            assert await limited(30, ask()) == (10, 6)
            assert await limited(None, ask()) == (10, 6)
            assert await asyncio.create_task(ask()) == (10, 6)

        await limited(10, work())
        assert await ask() == (None, None)

    main()


@virtual
async def test_the_tools_of_asyncio_work_inside_the_call_form() -> None:
    async def work() -> str:
        caller.append(asyncio.current_task())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await sleep(60)
        async with asyncio.TaskGroup() as group:
            group.create_task(sleep(1))
        return "done"

    caller: list[Any] = []
    assert await timeout(10, work()) == "done"
    assert caller == [asyncio.current_task()]


@virtual
async def test_the_deadline_can_be_moved_while_the_block_runs() -> None:
    async with timeout(1) as scope:
        assert scope.deadline == 1
        scope.deadline = time() + 100
        await sleep(50)
    async with timeout(100) as scope:
        scope.deadline = None
        await sleep(200)
    with pytest.raises(TimeoutError):
        async with timeout(100) as scope:
            scope.deadline = time() + 1
            await sleep(50)
    assert time() == 251


@virtual
async def test_a_block_cancelled_by_hand_ends_without_an_error() -> None:
    async with timeout(10) as scope:
        scope.cancel()
        await sleep(60)
    assert isinstance(scope, CancelScope)
    assert scope.cancelled_caught
    assert time() == 0


@virtual
async def test_a_block_is_cancelled_by_hand_whatever_reason_is_given() -> None:
    async with timeout(10) as scope:
        scope.cancel("deadline passed")
        await sleep(60)
    assert scope.cancelled_caught and not scope.expired


@virtual
async def test_the_pair_tells_a_late_none_from_one_that_is_a_result() -> None:
    async def nothing() -> None:
        await sleep(1)

    assert await timeout(nothing(), 2) == (None, True)
    assert await timeout(nothing(), 0.5) == (None, False)
    assert await timeout(ready(), 0) == ("done", True)
    assert await timeout(asyncio.create_task(after(1)), 2) == ("done", True)
    assert await timeout_at(nothing(), time() + 2) == (None, True)
    assert await timeout_at(nothing(), time()) == (None, False)


async def test_a_timeout_is_used_once() -> None:
    once = timeout(1)
    async with once:
        pass
    with pytest.raises(RuntimeError):
        async with once:
            pass


@virtual
async def test_any_awaitable_can_be_given_a_limit() -> None:
    class Custom:
        def __await__(self) -> Generator[Any, Any, str]:
            yield from sleep(1).__await__()
            return "custom"

    @types.coroutine
    def generator_based() -> Generator[Any, Any, str]:
        yield from sleep(1)
        return "generator"

    future = asyncio.get_running_loop().create_future()
    future.set_result("future")
    assert await timeout(2, Custom()) == "custom"
    assert await timeout(2, generator_based()) == "generator"
    assert await timeout(2, future) == "future"
    assert await timeout(2, asyncio.create_task(after(1))) == "done"
    assert await asyncio.create_task(timeout(2, after(1))) == "done"


async def test_the_call_form_can_be_thrown_away_at_its_first_wait() -> None:
    closed: list[str] = []

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            closed.append("work")

    coroutine = work()  # kept, so that nothing but `close` can end it
    limited = timeout(60, coroutine)
    limited.send(None)
    limited.close()
    assert closed == ["work"]


async def test_an_error_thrown_into_the_first_wait_reaches_the_work() -> None:
    async def work() -> str:
        try:
            await asyncio.get_running_loop().create_future()
        except KeyError:
            await yield_now()
        return "recovered"

    limited = timeout(60, work())
    limited.send(None)
    limited.throw(KeyError("thrown"))
    with pytest.raises(StopIteration) as finished:
        limited.send(None)
    assert finished.value.value == "recovered"


@pytest.mark.parametrize("nonsense", [math.nan, "1", 1j])
def test_nonsense_is_refused_at_the_call_and_its_coroutine_closed(nonsense: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="seconds"):
        timeout(nonsense, ready())
    with pytest.raises((TypeError, ValueError), match="seconds"):
        timeout(nonsense)
    with pytest.raises((TypeError, ValueError), match="when"):
        timeout_at(nonsense, ready())
    with pytest.raises((TypeError, ValueError), match="when"):
        timeout_at(nonsense)
    with pytest.raises((TypeError, ValueError), match="seconds"):
        timeout(ready(), nonsense)
    with pytest.raises((TypeError, ValueError), match="when"):
        timeout_at(ready(), nonsense)


def test_what_cannot_be_awaited_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="awaitable"):
        timeout(1, "work")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="awaitable"):
        timeout(1, ready)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="awaitable"):
        timeout(1, None)  # type: ignore[call-overload]


def test_an_awaitable_without_a_limit_is_refused_and_closed() -> None:
    with pytest.raises(TypeError, match="seconds is missing"):
        timeout(ready())  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="when is missing"):
        timeout_at(ready())  # type: ignore[call-overload]


def test_two_awaitables_and_no_limit_are_refused_and_both_closed() -> None:
    for limit in (timeout, timeout_at):
        first, second = ready(), ready()
        with pytest.raises(TypeError, match="must be a number of seconds, not coroutine"):
            limit(first, second)  # type: ignore[call-overload]
        assert inspect.getcoroutinestate(first) == inspect.getcoroutinestate(second) == inspect.CORO_CLOSED


async def test_awaiting_a_limit_that_has_no_work_is_refused_with_advice() -> None:
    for limit in (timeout(1), timeout_at(1)):
        with pytest.raises(TypeError, match="use `async with`, or add an awaitable"):
            await limit  # type: ignore[misc]


def test_a_call_that_is_never_awaited_goes_by_the_name_of_the_function_that_was_called() -> None:
    work = ready()
    for limited, name in ((timeout(work, 1), "timeout"), (timeout_at(1, work), "timeout_at")):
        assert (limited.__name__, limited.__qualname__) == (name, name)  # type: ignore[union-attr]
        limited.close()
    work.close()


@virtual
async def test_work_that_has_swallowed_its_cancellation_has_no_time_left_for_the_next_call() -> None:
    async with timeout(1):
        with pytest.raises(asyncio.CancelledError):
            await sleep(5)
        with pytest.raises(TimeoutError):
            await timeout(remaining(), sleep(5))
        assert time() == 1


async def test_the_call_form_respects_a_shield_that_is_entered_in_the_first_step() -> None:
    ended: list[bool] = []

    async def work() -> None:
        with CancelScope(shield=True):
            await asyncio.sleep(0.02)
            ended.append(True)
        await asyncio.sleep(3600)

    with pytest.raises(TimeoutError):
        await timeout(0.001, work())
    assert ended == [True]
