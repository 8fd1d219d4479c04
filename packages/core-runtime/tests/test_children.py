"""What becomes of the errors of children: the three ways of `on_error`."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest

from yamanote.runtime import TaskGroup, is_thread_parked, run, start_task, yield_now


async def value_of(value: Any) -> Any:
    await yield_now()
    return value


async def failing(error: BaseException) -> None:
    await yield_now()
    raise error


def requests() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


Reports = list[dict[str, Any]]


@pytest.fixture
async def reports() -> Reports:
    """What the exception handler of the loop gets."""
    reports: Reports = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    return reports


async def test_collect_lets_the_others_go_on_and_raises_all_errors_at_the_end() -> None:
    log: list[str] = []

    async def sibling() -> None:
        for _ in range(5):
            await yield_now()
        log.append("sibling")

    first, second = LookupError("first"), ArithmeticError("second")
    with pytest.raises(ExceptionGroup, match=r"TaskGroup \(all\)") as caught:
        async with TaskGroup(on_error="collect", name="all") as group:
            group.spawn(sibling())
            group.spawn(failing(first))
            group.spawn(failing(second))
            for _ in range(3):
                await yield_now()
            log.append("body")
    assert log == ["body", "sibling"]
    assert caught.value.exceptions == (first, second)


async def test_collect_does_not_raise_what_somebody_has_got_by_awaiting_a_handle() -> None:
    async def asks(handle: Any) -> None:
        with pytest.raises(LookupError):
            await handle

    async with TaskGroup(on_error="collect") as group:
        group.spawn(asks(group.spawn(failing(LookupError()))))
        with pytest.raises(ArithmeticError):
            await group.spawn(failing(ArithmeticError()))


async def test_collect_raises_an_error_once_that_went_from_child_to_child_to_body() -> None:
    async def asks(handle: Any) -> None:
        await handle

    error = LookupError()
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(on_error="collect") as group:
            await group.spawn(asks(group.spawn(failing(error))))
    assert caught.value.exceptions == (error,)


async def test_the_error_of_the_body_ends_a_group_that_collects() -> None:
    error = LookupError("body")
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(on_error="collect") as group:
            group.spawn(failing(ArithmeticError()))
            handle = group.spawn(asyncio.sleep(3600))
            for _ in range(3):
                await yield_now()
            raise error
    assert [type(each) for each in caught.value.exceptions] == [ArithmeticError, LookupError]
    assert caught.value.exceptions[1] is error and handle.is_cancelled()


async def test_a_handler_gets_each_error_at_once_and_the_block_raises_none(reports: Reports) -> None:
    errors: list[Exception] = []
    error = LookupError()
    async with TaskGroup(on_error=errors.append) as group:
        group.spawn(failing(error))
        sibling = group.spawn(value_of(1))
        for _ in range(4):
            await yield_now()
        assert errors == [error]
    assert await sibling == 1
    gc.collect()
    assert reports == []


async def test_without_a_handler_errors_are_reported_by_the_loop_once(reports: Reports) -> None:
    error = LookupError()
    async with TaskGroup(on_error="report", name="workers") as group:
        group.spawn(failing(error), name="first")
        for _ in range(4):
            await yield_now()
        assert len(reports) == 1
    gc.collect()
    assert len(reports) == 1 and reports[0]["exception"] is error
    assert "'first', a child of <TaskGroup 'workers'" in reports[0]["message"]


@pytest.mark.parametrize("limit", [None, 1])
async def test_an_error_that_somebody_awaits_is_not_reported(limit: int | None) -> None:
    errors: list[Exception] = []
    async with TaskGroup(on_error=errors.append, limit=limit) as group:
        before = group.spawn(value_of(1))
        handle = group.spawn(failing(LookupError()))
        with pytest.raises(LookupError):
            await handle
        assert await before == 1
        asking: list[int] = []
        caught: list[BaseException | None] = []

        async def fail_when_asked() -> None:
            while not (asking and is_thread_parked(asking[0])):
                await asyncio.sleep(0)
            await asyncio.sleep(0)  # until the loop has heard of it
            raise LookupError

        thread_handle = group.spawn(fail_when_asked())

        def ask() -> None:
            asking.append(threading.get_ident())
            try:
                thread_handle.result()
            except LookupError as error:
                caught.append(error)

        await asyncio.to_thread(ask)
        again = group.spawn(failing(LookupError()))
        assert len(caught) == 1
    assert len(errors) == 1
    with pytest.raises(LookupError):  # whoever comes late gets it as well
        await again


async def test_an_error_is_reported_when_who_awaited_it_was_cancelled() -> None:
    errors: list[Exception] = []

    async def asks(handle: Any) -> None:
        await handle

    async with TaskGroup(on_error=errors.append) as group:
        handle = group.spawn(failing(LookupError()))
        asking = group.spawn(asks(handle))
        await yield_now()
        asking.abort()
    assert len(errors) == 1


async def test_the_error_of_the_body_comes_out_of_a_group_that_reports_as_it_is() -> None:
    error = TimeoutError("mine")
    with pytest.raises(TimeoutError) as caught:
        async with TaskGroup(on_error="report") as group:
            handle = group.spawn(asyncio.sleep(3600))
            raise error
    assert caught.value is error and handle.is_cancelled()
    assert requests() == 0


async def test_a_handler_may_be_async_and_the_block_waits_for_it() -> None:
    log: list[str] = []

    async def handler(error: Exception) -> None:
        for _ in range(5):
            await yield_now()
        log.append(str(error))

    async with TaskGroup(on_error=handler, limit=1) as group:
        group.spawn(failing(LookupError("first")))
        handle = group.spawn(value_of(1))
        await handle
        assert log == ["first"]  # it ran in the place of the child that failed
        group.spawn(failing(LookupError("second")))
    assert log == ["first", "second"]


async def test_what_a_handler_raises_is_reported_by_the_loop_with_the_error_that_it_got(reports: Reports) -> None:
    def handler(error: Exception) -> None:
        raise ArithmeticError

    async def async_handler(error: Exception) -> None:
        raise ArithmeticError

    error = LookupError()
    for each in (handler, async_handler):
        async with TaskGroup(on_error=each) as group:
            group.spawn(failing(error))
            sibling = group.spawn(value_of(1))
        assert await sibling == 1
    assert [type(report["exception"]) for report in reports] == [ArithmeticError] * 2
    assert [report["exception"].__context__ for report in reports] == [error] * 2


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
def test_a_handler_can_end_the_program(fatal: type[BaseException]) -> None:
    ended: list[str] = []

    def handler(error: Exception) -> None:
        raise fatal

    async def example() -> None:
        try:
            async with TaskGroup(on_error=handler) as group:
                group.spawn(failing(LookupError()))
        finally:
            ended.append("block")

    with pytest.raises(fatal):
        run(example())
    assert ended == ["block"]


async def test_an_error_whose_async_handler_was_cancelled_is_reported_by_the_loop(reports: Reports) -> None:
    async def handler(error: Exception) -> None:
        await asyncio.sleep(3600)

    async def in_clean_up(error: Exception) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise error

    first, second = LookupError("first"), LookupError("second")
    async with TaskGroup(on_error=handler) as group:
        group.spawn(failing(first))
        group.spawn(in_clean_up(second))
        for _ in range(5):
            await yield_now()
        group.cancel()
    assert [report["exception"] for report in reports] == [first, second]


async def test_a_failing_child_of_a_reporting_host_that_is_thrown_away_is_reported(reports: Reports) -> None:
    async def host() -> None:
        async with TaskGroup(on_error="report") as group:
            handles.append(group.spawn(failing(error)))
            await asyncio.get_running_loop().create_future()

    handles: list[Any] = []
    error = LookupError()
    coroutine = host()
    coroutine.send(None)
    await yield_now()
    await yield_now()
    await yield_now()
    coroutine.close()
    await yield_now()
    assert [report["exception"] for report in reports] == [error]


@pytest.mark.parametrize("on_error", ["cancel", "collect", "report"])
@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
def test_keyboard_interrupt_and_system_exit_end_a_group_of_any_kind(on_error: Any, fatal: type[BaseException]) -> None:
    ended: list[str] = []

    async def example() -> None:
        try:
            async with TaskGroup(on_error=on_error) as group:
                group.spawn(failing(fatal()))
                await asyncio.sleep(3600)
        except BaseException as error:
            ended.append(type(error).__name__)
            raise

    with pytest.raises(fatal):
        run(example())
    assert ended == [fatal.__name__]


@pytest.mark.parametrize("on_error", ["collect", "report"])
async def test_what_is_no_exception_is_neither_collected_nor_reported_but_ends_the_block(on_error: Any) -> None:
    class Fatal(BaseException):
        pass

    with pytest.raises(BaseExceptionGroup) as caught:
        async with TaskGroup(on_error=on_error) as group:
            group.spawn(failing(Fatal()))
            handle = group.spawn(asyncio.sleep(3600))
            await asyncio.sleep(3600)
    assert [type(error) for error in caught.value.exceptions] == [Fatal]
    assert handle.is_cancelled()


@pytest.mark.parametrize("on_error", ["cancel", "collect", "report"])
async def test_a_cancellation_from_outside_cancels_the_children_of_a_group_of_any_kind(on_error: Any) -> None:
    async def host() -> None:
        async with TaskGroup(on_error=on_error) as group:
            handles.append(group.spawn(asyncio.sleep(3600)))

    handles: list[Any] = []
    task = start_task(host())
    await yield_now()
    task.cancel("from outside")
    with pytest.raises(asyncio.CancelledError, match="from outside"):
        await task
    assert handles[0].is_cancelled()


@pytest.mark.parametrize("on_error", ["abort", None, 3])
def test_an_unknown_on_error_is_refused(on_error: Any) -> None:
    with pytest.raises(ValueError, match="on_error must be a function or one of"):
        TaskGroup(on_error=on_error)


async def test_ten_thousand_children_that_fail_are_raised_in_no_more_than_linear_time() -> None:
    class Counted(Exception):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Counted.compared += 1
            return self is other

        __hash__ = Exception.__hash__

    async def fails(number: int) -> None:
        raise Counted(number)

    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup(on_error="collect") as group:
            for number in range(10_000):
                group.spawn(fails(number))
    assert [error.args[0] for error in caught.value.exceptions] == list(range(10_000))
    assert Counted.compared == 0
