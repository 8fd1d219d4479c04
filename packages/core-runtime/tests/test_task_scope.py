from __future__ import annotations

import asyncio
from typing import Any

import pytest

from yamanote.runtime import CancelScope, Supervisor, TaskGroup, TaskScope, start_task, volatile_task_group, yield_now


async def failing(error: BaseException) -> None:
    await yield_now()
    raise error


def requests() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def test_siblings_of_a_supervisor_survive_and_no_error_is_silent_or_raised() -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    errors: list[Exception] = []
    error = LookupError()
    async with Supervisor() as supervisor:
        supervisor.create_task(failing(error))
        sibling = supervisor.create_task(asyncio.sleep(0, "sibling"), name="sibling")
        assert sibling.name == "sibling"
    assert await sibling == "sibling"
    assert [report["exception"] for report in reports] == [error]
    async with Supervisor(on_error=errors.append) as supervisor:
        supervisor.create_task(failing(error))
    assert errors == [error] and len(reports) == 1


async def test_the_time_limit_of_a_scope_cancels_body_and_children_and_raises() -> None:
    for in_the_body in (True, False):
        with pytest.raises(TimeoutError, match=r"not done within 0\.001 seconds"):
            async with TaskScope(timeout=0.001) as scope:
                handle = scope.create_task(asyncio.sleep(3600))
                if in_the_body:
                    await asyncio.sleep(3600)
        assert handle.is_cancelled()
        assert requests() == 0
    with pytest.raises(ExceptionGroup):  # no phantom request is left for others to find
        async with asyncio.TaskGroup() as group:
            group.create_task(failing(LookupError()))
    await yield_now()


async def test_a_shielded_scope_keeps_its_own_time_limit() -> None:
    with CancelScope() as outer:
        with pytest.raises(TimeoutError):
            async with TaskScope(timeout=0.001, shield=True) as scope:
                outer.cancel()
                scope.create_task(asyncio.sleep(3600))
                await asyncio.sleep(3600)
        await asyncio.sleep(3600)
    assert outer.cancelled_caught and requests() == 0


async def test_a_scope_that_ends_in_time_or_by_cancel_does_not_raise() -> None:
    async with TaskScope(timeout=3600) as scope:
        scope.create_task(asyncio.sleep(0))
    async with TaskScope(timeout=3600) as scope:
        scope.create_task(asyncio.sleep(3600))
        scope.cancel()
    assert scope.cancelled_caught


async def test_an_error_of_the_body_and_a_cancellation_from_outside_come_before_the_time_limit() -> None:
    error = TimeoutError("mine")

    async def child() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.002)

    with pytest.raises(TimeoutError) as caught:
        async with TaskScope(timeout=0.001) as scope:
            scope.create_task(child())
            await yield_now()
            raise error
    assert caught.value is error

    with pytest.raises(LookupError):
        async with TaskScope(timeout=0.001) as scope:
            scope.create_task(asyncio.sleep(3600))
            try:
                await asyncio.sleep(3600)
            finally:
                raise LookupError

    async def host() -> None:
        async with TaskScope(timeout=0.001) as scope:
            scope.create_task(child())
            await asyncio.sleep(3600)

    task = start_task(host())
    await yield_now()
    await yield_now()
    task.cancel("from outside")
    with pytest.raises(asyncio.CancelledError, match="from outside"):
        await task


async def test_a_time_limit_that_passes_during_a_clean_up_or_cuts_nothing_short_does_not_raise() -> None:
    async def slow() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.005)

    async def goes_on() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

    async with TaskScope(timeout=0.001) as scope:
        scope.create_task(slow())
        await yield_now()
        scope.cancel()
    async with TaskScope(timeout=0.001) as scope:
        scope.create_task(goes_on())
    assert not scope.cancelled_caught and requests() == 0


@pytest.mark.parametrize(("timeout", "kind"), [("soon", TypeError), (float("nan"), ValueError)])
def test_a_timeout_that_is_no_number_of_seconds_is_refused(timeout: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="timeout must be a number of seconds"):
        TaskScope(timeout=timeout)


async def test_the_children_of_a_volatile_group_end_with_the_body_and_their_errors_are_raised() -> None:
    async with volatile_task_group(name="helpers") as group:
        assert isinstance(group, TaskGroup)
        handle = group.spawn(asyncio.sleep(3600))
        await yield_now()
    assert handle.is_cancelled() and requests() == 0
    with pytest.raises(ExceptionGroup, match="helpers"):
        async with volatile_task_group(name="helpers") as group:
            group.spawn(failing(LookupError()))
            await asyncio.sleep(3600)


async def test_an_error_of_the_body_of_a_volatile_group_and_a_cancellation_of_its_host_go_through() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with volatile_task_group() as group:
            group.spawn(asyncio.sleep(3600))
            raise LookupError
    assert len(caught.value.exceptions) == 1

    async def host() -> None:
        async with volatile_task_group() as group:
            handles.append(group.spawn(asyncio.sleep(3600)))
            await asyncio.sleep(3600)

    handles: list[Any] = []
    task = start_task(host())
    await yield_now()
    task.cancel("from outside")
    with pytest.raises(asyncio.CancelledError, match="from outside"):
        await task
    assert handles[0].is_cancelled()
