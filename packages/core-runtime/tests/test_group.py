from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import tracemalloc
import weakref
from typing import Any

import pytest

from yamanote.runtime import (
    CancelScope,
    JoinError,
    JoinHandle,
    TaskGroup,
    Waiter,
    cancel_and_wait,
    park,
    run,
    scope,
    start_task,
    yield_now,
)


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


async def test_the_block_ends_when_the_body_and_all_children_have_ended() -> None:
    log: list[str] = []

    async def child(name: str, turns: int) -> str:
        for _ in range(turns):
            await yield_now()
        log.append(name)
        return name

    async with TaskGroup() as group:
        handles = [group.spawn(child("slow", 5)), group.spawn(child("fast", 1))]
        log.append("body")
    log.append("after")
    assert log == ["body", "fast", "slow", "after"]
    assert [await handle for handle in handles] == ["slow", "fast"]


async def test_an_empty_group_takes_no_loop_turn() -> None:
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    async with TaskGroup():
        pass
    assert turns == []


async def test_children_have_tasks_with_names_and_contexts() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")

    async def child() -> tuple[str, str]:
        task = asyncio.current_task()
        assert task is not None
        return task.get_name(), variable.get()

    context = contextvars.copy_context()
    context.run(variable.set, "given")
    async with TaskGroup(limit=1) as group:
        first = group.spawn(child(), name="first", context=context)
        variable.set("when it was spawned")
        second = group.spawn(child(), name="second")
        third = group.spawn(child(), name="third", context=context)
        variable.set("later")
        assert [first.name, second.name] == ["first", "second"]
    assert await first == ("first", "given")
    assert await second == ("second", "when it was spawned")
    assert await third == ("third", "given")


async def test_children_can_spawn_siblings_while_the_block_waits() -> None:
    log: list[str] = []

    async def parent() -> None:
        await yield_now()
        group.spawn(child())

    async def child() -> None:
        await yield_now()
        log.append("grandchild")

    async with TaskGroup() as group:
        group.spawn(parent())
    assert log == ["grandchild"]


# failures


async def test_the_first_failure_cancels_the_others_and_the_body_and_all_errors_are_raised() -> None:
    log: list[str] = []

    async def sibling() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            log.append("sibling cancelled")
            raise ArithmeticError("in clean-up")

    with pytest.raises(ExceptionGroup, match="unhandled errors in a TaskGroup") as caught:
        async with TaskGroup() as group:
            group.spawn(sibling())
            group.spawn(failing(LookupError("first")))
            try:
                await asyncio.sleep(3600)
            finally:
                log.append("body cancelled")
    assert [type(error) for error in caught.value.exceptions] == [LookupError, ArithmeticError]
    assert sorted(log) == ["body cancelled", "sibling cancelled"]
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert requests() == 0


async def test_a_group_with_a_name_raises_errors_with_its_name() -> None:
    with pytest.raises(ExceptionGroup, match=r"\(downloads\)"):
        async with TaskGroup(name="downloads") as group:
            group.spawn(failing(LookupError()))


async def test_an_error_of_the_body_cancels_the_children_and_is_raised_with_theirs() -> None:
    handle = None
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup() as group:
            handle = group.spawn(asyncio.sleep(3600))
            raise LookupError
    assert [type(error) for error in caught.value.exceptions] == [LookupError]
    assert handle is not None and handle.is_finished()


async def test_a_child_that_is_cancelled_is_no_failure() -> None:
    async with TaskGroup() as group:
        handle = group.spawn(asyncio.sleep(3600))
        other = group.spawn(value_of(1))
        await yield_now()
        handle.abort("not needed")
    with pytest.raises(JoinError, match="not needed"):
        await handle
    assert await other == 1


async def test_a_failed_child_whose_handle_was_awaited_fails_the_group_all_the_same_and_once() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup() as group:
            handle = group.spawn(failing(LookupError()))
            await handle
    assert len(caught.value.exceptions) == 1
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup() as group:
            handle = group.spawn(failing(LookupError()))
            try:
                await handle
            except asyncio.CancelledError:
                await handle
    assert len(caught.value.exceptions) == 1
    assert requests() == 0


async def test_a_body_that_swallows_its_cancellation_loses_no_error() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup() as group:
            group.spawn(failing(LookupError()))
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass
            await yield_now()
    assert len(caught.value.exceptions) == 1
    assert requests() == 0


async def test_errors_are_reported_nowhere_else() -> None:
    contexts: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    with pytest.raises(ExceptionGroup):
        async with TaskGroup(limit=1) as group:
            group.spawn(value_of(1))
            group.spawn(failing(LookupError()))
    gc.collect()
    assert contexts == []


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
def test_keyboard_interrupt_and_system_exit_of_a_child_come_out_bare(fatal: type[BaseException]) -> None:
    ended: list[str] = []

    async def example() -> None:
        try:
            async with TaskGroup() as group:
                group.spawn(failing(fatal()))
                group.spawn(failing(LookupError()))
                await asyncio.sleep(3600)
        except BaseException as error:
            ended.append(type(error).__name__)
            raise

    with pytest.raises(fatal):
        run(example())
    assert ended == [fatal.__name__]


async def test_keyboard_interrupt_of_the_body_comes_out_bare() -> None:
    async def example() -> None:
        async with TaskGroup() as group:
            group.spawn(asyncio.sleep(3600))
            raise KeyboardInterrupt

    coroutine = example()
    # By hand: a task would stop the loop of the test.
    with pytest.raises(KeyboardInterrupt):
        await coroutine


# cancellation


async def test_cancel_ends_the_block_without_an_error() -> None:
    ended: list[str] = []

    async def child() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError as error:
            await yield_now()
            ended.append(str(error))
            raise

    async with TaskGroup() as group:
        handle = group.spawn(child())
        await yield_now()
        group.cancel("enough")
        group.cancel("again")
        await asyncio.sleep(3600)
        ended.append("never")
    assert ended == ["enough"] and handle.is_finished()
    assert requests() == 0
    group.cancel()
    await yield_now()
    assert requests() == 0


async def test_cancel_in_the_last_step_of_the_body_leaks_nothing() -> None:
    async with TaskGroup() as group:
        group.spawn(asyncio.sleep(3600))
        group.cancel()
    for _ in range(3):
        await yield_now()
    assert requests() == 0


async def test_cancel_before_the_block_is_entered_cancels_its_first_await() -> None:
    group = TaskGroup()
    group.cancel()
    log: list[str] = []

    async def child() -> None:
        log.append("started")

    async with group:
        handle = group.spawn(child())
        log.append("body")
        await asyncio.sleep(3600)
        log.append("never")
    assert log == ["body"] and handle.is_finished()


async def test_cancel_from_a_child_and_from_a_thread() -> None:
    async def child() -> str:
        group.cancel()
        return "value"

    async with TaskGroup() as group:
        handle = group.spawn(child())
        await asyncio.sleep(3600)
    assert await handle == "value"  # it ended before its next await
    async with TaskGroup() as group:
        group.spawn(asyncio.sleep(3600))
        thread = threading.Thread(target=group.cancel)
        thread.start()
        await asyncio.sleep(3600)
    thread.join()
    assert requests() == 0


async def test_a_child_of_a_cancelled_group_is_cancelled_before_its_first_instruction() -> None:
    log: list[str] = []

    async def child() -> None:
        log.append("started")

    for limit in (None, 1):
        async with TaskGroup(limit=limit) as group:
            group.cancel("enough")
            handles = [group.spawn(child(), eager=True), group.spawn(child())]
        assert log == []
        for handle in handles:
            with pytest.raises(JoinError):
                await handle


async def test_errors_in_clean_up_after_cancel_are_raised() -> None:
    async def child() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise LookupError

    with pytest.raises(ExceptionGroup):
        async with TaskGroup() as group:
            group.spawn(child())
            await yield_now()
            group.cancel()
    assert requests() == 0


async def test_a_cancellation_of_the_host_cancels_the_children_waits_for_them_and_goes_on() -> None:
    log: list[str] = []

    async def child() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await yield_now()
            log.append("cleaned up")

    async def in_the_body() -> None:
        async with TaskGroup() as group:
            group.spawn(child())
            await asyncio.sleep(3600)

    async def at_the_end() -> None:
        async with TaskGroup() as group:
            group.spawn(child())

    for host in (in_the_body, at_the_end):
        task = start_task(host())
        await yield_now()
        await yield_now()
        task.cancel("from outside")
        with pytest.raises(asyncio.CancelledError, match="from outside"):
            await task
    assert log == ["cleaned up"] * 2


async def test_a_deadline_around_a_group_ends_it() -> None:
    loop = asyncio.get_running_loop()
    with CancelScope(loop.time()) as scope:
        async with TaskGroup() as group:
            handle = group.spawn(asyncio.sleep(3600))
    assert scope.cancelled_caught and handle.is_finished()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            async with TaskGroup() as group:
                group.spawn(asyncio.sleep(3600))
    assert requests() == 0


async def test_an_inner_group_that_fails_ends_the_outer_one_only_through_its_error() -> None:
    async with TaskGroup() as outer:
        with pytest.raises(ExceptionGroup):
            async with TaskGroup() as inner:
                inner.spawn(failing(LookupError()))
                await asyncio.sleep(3600)
        handle = outer.spawn(value_of(1))
        await yield_now()
    assert await handle == 1
    assert requests() == 0


async def test_a_request_that_was_absorbed_before_does_not_kill_the_host_when_a_group_fails() -> None:
    async def host() -> str:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(3600)
        with pytest.raises(ExceptionGroup):
            async with TaskGroup() as group:
                group.spawn(failing(LookupError()))
        await yield_now()
        await yield_now()
        return "alive"

    task = start_task(host())
    await yield_now()
    task.cancel()
    assert await task == "alive"


async def test_a_host_that_is_thrown_away_has_its_children_cancelled_and_their_errors_reported() -> None:
    contexts: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    error = LookupError()

    async def child() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise error

    async def generator() -> Any:
        async with TaskGroup() as group:
            handles.append(group.spawn(child()))
            yield 1

    handles: list[Any] = []
    items = generator()
    await items.__anext__()
    await yield_now()
    with pytest.raises(GeneratorExit):
        await items.athrow(GeneratorExit)
    await cancel_and_wait(*handles)
    await yield_now()
    assert [context["exception"] for context in contexts] == [error]


@pytest.mark.parametrize("on_error", ["cancel", "collect"])
async def test_the_errors_that_a_host_that_is_thrown_away_had_collected_are_reported(on_error: Any) -> None:
    contexts: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    before, after = LookupError("before"), ArithmeticError("after")

    async def child() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            for _ in range(5):
                await yield_now()
            raise after

    async def host() -> None:
        async with TaskGroup(on_error=on_error) as group:
            group.spawn(child())
            group.spawn(failing(before))
            await asyncio.get_running_loop().create_future()

    coroutine = host()
    coroutine.send(None)
    for _ in range(3):
        await yield_now()
    coroutine.close()
    for _ in range(9):
        await yield_now()
    assert [context["exception"] for context in contexts] == [before, after]


async def test_the_children_of_a_host_that_is_thrown_away_live_until_they_end() -> None:
    futures: list[weakref.ref[asyncio.Future[None]]] = []
    log: list[str] = []

    async def child() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            futures.append(weakref.ref(future))
            await future
            log.append("cleaned up")

    async def host(in_the_body: bool) -> None:
        async with TaskGroup() as group:
            group.spawn(child())
            if in_the_body:
                await asyncio.get_running_loop().create_future()

    for in_the_body in (True, False):
        coroutine = host(in_the_body)
        coroutine.send(None)
        await yield_now()
        coroutine.close()
        del coroutine
        await yield_now()
        await yield_now()
        gc.collect()
        future = futures.pop()()
        assert future is not None
        future.set_result(None)
        del future
        await yield_now()
    assert log == ["cleaned up"] * 2


# limit


async def test_at_most_limit_children_run_at_once_and_they_start_in_order() -> None:
    started: list[int] = []
    running = 0

    async def child(number: int) -> int:
        nonlocal running
        started.append(number)
        running += 1
        assert running <= 2
        for _ in range(number % 3):
            await yield_now()
        running -= 1
        return number

    async with TaskGroup(limit=2) as group:
        handles = [group.spawn(child(number)) for number in range(9)]
        assert not handles[8].is_finished()
        assert await handles[8] == 8
    assert started == list(range(9))
    assert [await handle for handle in handles] == list(range(9))


async def test_try_spawn_refuses_what_would_have_to_wait() -> None:
    async with TaskGroup(limit=1) as group:
        handle = group.try_spawn(value_of(1))
        assert handle is not None
        assert group.try_spawn(value_of(2)) is None
        await handle
        await yield_now()
        again = group.try_spawn(value_of(3))
        assert again is not None
    assert await again == 3


async def test_a_queued_child_that_is_aborted_never_starts_and_frees_its_place() -> None:
    log: list[int] = []

    async def child(number: int) -> None:
        log.append(number)
        await yield_now()

    async with TaskGroup(limit=1) as group:
        handles = [group.spawn(child(number)) for number in range(4)]
        handles[1].abort("changed my mind")
        thread = threading.Thread(target=handles[2].abort)
        thread.start()
        thread.join()
    assert log == [0, 3]
    with pytest.raises(JoinError, match="changed my mind"):
        await handles[1]
    assert handles[2].is_finished()


async def test_queued_children_of_a_group_that_ends_early_never_start() -> None:
    log: list[int] = []

    async def child(number: int) -> None:
        log.append(number)
        await asyncio.sleep(3600)

    async with TaskGroup(limit=2) as group:
        handles = [group.spawn(child(number)) for number in range(5)]
        await yield_now()
        group.cancel()
    assert log == [0, 1]
    for handle in handles:
        with pytest.raises(JoinError):
            await handle


async def test_a_queued_child_that_runs_can_be_aborted_and_can_fail() -> None:
    with pytest.raises(ExceptionGroup):
        async with TaskGroup(limit=1) as group:
            group.spawn(value_of(1))
            handle = group.spawn(asyncio.sleep(3600), name="queued")
            await yield_now()
            await yield_now()
            await yield_now()
            handle.abort("stop")
            with pytest.raises(JoinError, match="queued was cancelled: stop"):
                await handle
            group.spawn(value_of(1))
            failed = group.spawn(failing(LookupError()))
    with pytest.raises(LookupError):
        await failed


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="limit must be at least 1"):
        TaskGroup(limit=limit)


# deadline


async def test_when_the_deadline_passes_body_and_children_are_cancelled_and_nothing_is_raised() -> None:
    loop = asyncio.get_running_loop()
    async with TaskGroup(deadline=loop.time() + 0.001) as group:
        handle = group.spawn(asyncio.sleep(3600))
        await asyncio.sleep(3600)
    assert group.cancelled_caught and handle.is_cancelled()
    with pytest.raises(JoinError, match="deadline passed"):
        await handle
    async with TaskGroup(deadline=loop.time() + 0.001, limit=1) as group:
        handles = [group.spawn(asyncio.sleep(3600)) for _ in range(2)]
    assert group.cancelled_caught and all(handle.is_cancelled() for handle in handles)
    assert requests() == 0


async def test_a_deadline_that_has_passed_cancels_the_first_await_and_every_child() -> None:
    log: list[str] = []

    async def child() -> None:
        log.append("child")

    async with TaskGroup(deadline=asyncio.get_running_loop().time()) as group:
        group.spawn(child())
        log.append("body")
        await yield_now()
        log.append("never")
    assert log == ["body"] and group.cancelled_caught
    assert requests() == 0


async def test_a_group_that_ends_by_itself_before_its_deadline_or_its_cancellation_was_not_cut_short() -> None:
    loop = asyncio.get_running_loop()
    async with TaskGroup(deadline=loop.time() + 3600) as group:
        group.spawn(value_of(1))
    assert not group.cancelled_caught
    async with TaskGroup(deadline=float("inf")) as group:
        group.cancel()
    assert not group.cancelled_caught
    async with TaskGroup() as group:
        group.spawn(asyncio.sleep(3600)).abort()
    assert not group.cancelled_caught
    with pytest.raises(ExceptionGroup):
        async with TaskGroup() as group:
            group.spawn(failing(LookupError()))
            group.spawn(asyncio.sleep(3600))
    group.cancel()
    assert not group.cancelled_caught


async def test_a_group_that_is_cancelled_was_cut_short_when_one_child_has_not_begun() -> None:
    async def child() -> None:
        group.cancel()

    async with TaskGroup(limit=1) as group:
        first, second = group.spawn(child()), group.spawn(child())
    assert group.cancelled_caught and not first.is_cancelled() and second.is_cancelled()


async def test_a_deadline_that_never_comes_arms_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "call_at", None)
    async with TaskGroup(deadline=float("inf")) as group:
        group.spawn(value_of(1))


async def test_the_timer_of_a_deadline_goes_with_the_block() -> None:
    loop = asyncio.get_running_loop()
    group = TaskGroup(deadline=loop.time() + 3600)
    reference = weakref.ref(group)
    async with group:
        pass
    del group
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize(("deadline", "kind"), [("soon", TypeError), (float("nan"), ValueError)])
def test_a_deadline_that_is_no_moment_is_refused(deadline: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="deadline must be a moment"):
        TaskGroup(deadline=deadline)


# shield


async def test_a_shielded_group_ends_before_the_scopes_around_it_can_cancel_the_host() -> None:
    log: list[str] = []

    async def child() -> None:
        for _ in range(5):
            await yield_now()
        log.append("child")

    with CancelScope() as outer:
        async with TaskGroup(shield=True) as group:
            group.spawn(child())
            outer.cancel()
            await yield_now()
            await yield_now()
            log.append("body")
        log.append("after")
        await yield_now()
        log.append("never")
    assert log == ["body", "child", "after"] and outer.cancelled_caught
    assert requests() == 0


async def test_time_limits_scopes_and_groups_inside_a_shielded_group_work() -> None:
    async with TaskGroup(shield=True) as group:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.sleep(3600)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(3600), 0)
        with CancelScope() as inner:
            inner.cancel()
            await asyncio.sleep(3600)
        assert inner.cancelled_caught
        with pytest.raises(ExceptionGroup):
            async with TaskGroup() as inside:
                inside.spawn(failing(LookupError()))
                await asyncio.sleep(3600)
        assert requests() == 0
        group.cancel()
        await asyncio.sleep(3600)
    assert group.cancelled_caught and requests() == 0


async def test_a_failing_child_and_a_deadline_end_a_shielded_group() -> None:
    with pytest.raises(ExceptionGroup):
        async with TaskGroup(shield=True) as group:
            group.spawn(failing(LookupError()))
            await asyncio.sleep(3600)
    async with TaskGroup(shield=True, deadline=asyncio.get_running_loop().time() + 0.001) as group:
        await asyncio.sleep(3600)
    assert group.cancelled_caught and requests() == 0


async def test_the_cancellation_that_a_shield_held_back_arrives_once_and_clean_up_can_wait() -> None:
    log: list[str] = []
    with CancelScope() as outer:
        try:
            async with TaskGroup(shield=True):
                outer.cancel()
                await yield_now()
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            for _ in range(3):
                await yield_now()
            log.append("cleaned up")
            raise
    assert log == ["cleaned up"] and requests() == 0


# where children are refused


async def test_a_group_that_is_not_open_takes_no_children() -> None:
    group = TaskGroup()
    with pytest.raises(RuntimeError, match="not open"):
        group.spawn(value_of(1))
    async with group:
        with pytest.raises(RuntimeError, match="once"):
            await group.__aenter__()
    with pytest.raises(RuntimeError, match="not open"):
        group.spawn(value_of(1))
    with pytest.raises(RuntimeError, match="not open"):
        group.try_spawn(value_of(1))
    with pytest.raises(TypeError, match="not 3"):
        group.spawn(3)  # type: ignore[arg-type]


async def test_a_group_takes_no_children_from_another_loop() -> None:
    errors: list[BaseException] = []

    def elsewhere() -> None:
        async def spawn_here() -> None:
            group.spawn(value_of(1))

        try:
            run(spawn_here())
        except RuntimeError as error:
            errors.append(error)

    async with TaskGroup() as group:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert "another event loop" in str(errors[0])


# eager


async def test_eager_children_that_end_or_fail_at_once() -> None:
    async def ready() -> int:
        return 7

    async def broken() -> None:
        raise LookupError

    async with TaskGroup() as group:
        handle = group.spawn(ready(), eager=True)
        assert handle.is_finished()
    with pytest.raises(ExceptionGroup):
        async with TaskGroup() as group:
            group.spawn(broken(), eager=True)
            await asyncio.sleep(3600)
    assert requests() == 0


async def test_an_eager_child_can_cancel_the_group_in_its_first_step_and_is_cancelled_too() -> None:
    async def child() -> None:
        group.cancel()
        await asyncio.sleep(3600)

    async with TaskGroup() as group:
        group.spawn(child(), eager=True)
    assert requests() == 0


async def test_eager_children_count_against_the_limit_from_their_first_instruction() -> None:
    async def nested(depth: int) -> None:
        if depth:
            group.spawn(nested(depth - 1), eager=True)
        most.append(group._active)

    most: list[int] = []
    async with TaskGroup(limit=2) as group:
        group.spawn(nested(5), eager=True)
    assert max(most) <= 2 and len(most) == 6


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager task factories came with Python 3.12")
def test_groups_work_under_an_eager_task_factory() -> None:
    async def example() -> list[Any]:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]

        async def host() -> list[Any]:
            async with TaskGroup(limit=2) as group:
                handles = [group.spawn(value_of(number)) for number in range(4)]
            with pytest.raises(ExceptionGroup):
                async with TaskGroup() as group:
                    group.spawn(failing(LookupError()))
                    await asyncio.sleep(3600)
            assert requests() == 0
            return [await handle for handle in handles]

        return await asyncio.create_task(host())

    assert run(example()) == [0, 1, 2, 3]


# long-lived groups


@pytest.mark.parametrize("on_error", ["cancel", "collect", "report"])
async def test_memory_of_a_long_lived_group_stays_flat(on_error: Any) -> None:
    async def child(number: int) -> bytes:
        if number % 3 == 0 and on_error == "report":
            raise LookupError
        return bytes(1000)

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with TaskGroup(on_error=on_error, limit=60) as group:
        sizes: list[int] = []
        tracemalloc.start()
        try:
            for _ in range(3):
                for _ in range(20):
                    for number in range(100):
                        group.spawn(child(number))
                    while group._active:
                        await yield_now()
                await yield_now()
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
    assert sizes[2] - sizes[1] < 10_000  # of 2 000 children


async def test_it_shows_its_state() -> None:
    group = TaskGroup(limit=1, name="workers")
    assert repr(group) == "<TaskGroup 'workers' new running=0>"
    async with group:
        group.spawn(value_of(1))
        group.spawn(value_of(1))
        assert repr(group) == "<TaskGroup 'workers' open running=1 queued=1>"
        group.cancel()
        assert "cancelled" in repr(group)
    assert "ended" in repr(group)


async def test_a_scope_waits_for_its_children_and_loses_no_error() -> None:
    async with scope() as s:
        handle = s.spawn(value_of(1))
    assert handle.is_finished()
    with pytest.raises(ExceptionGroup):
        async with scope(name="a scope") as s:
            s.spawn(failing(LookupError()))
    async with scope() as s:
        handle = s.spawn(asyncio.sleep(3600))
        s.cancel()
    assert handle.is_finished()


# errors that were handed over, and given back


class ErrorOnItsWay:
    """What waits for a handle, and is cancelled when it has been given the error, and before it runs again."""

    def __init__(self, handle: JoinHandle[Any]) -> None:
        self._handle = handle

    def register(self, waiter: Waiter[Any], /) -> None:
        self._handle.register(waiter)
        task = asyncio.current_task()
        assert task is not None
        self._handle._future.add_done_callback(lambda _: task.cancel())

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        self._handle.withdraw(waiter)


@pytest.mark.parametrize("on_error", ["cancel", "collect", "report", "function"])
async def test_an_error_that_the_group_raises_or_reports_is_not_reported_once_more(on_error: Any) -> None:
    told: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    error = LookupError()
    raised = ()
    try:
        async with TaskGroup(on_error=told.append if on_error == "function" else on_error) as group:
            failed = group.spawn(failing(error))
            waiting = group.spawn(park(ErrorOnItsWay(failed)))
    except* LookupError as errors:
        raised = errors.exceptions
    assert waiting.is_cancelled()
    del failed, waiting, group
    gc.collect()
    await yield_now()
    assert [*raised, *told] == [error]


async def test_an_error_that_the_body_was_about_to_get_is_raised_by_the_group_only() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    with pytest.raises(ExceptionGroup):
        async with TaskGroup() as group:
            failed = group.spawn(failing(LookupError()))
            await park(failed)
    del failed, group
    gc.collect()
    await yield_now()
    assert not told and requests() == 0


# queued children, once more


async def test_nothing_is_kept_of_queued_children_that_are_aborted() -> None:
    async with TaskGroup(limit=1) as group:
        group.spawn(asyncio.sleep(3600))
        for _ in range(100):
            group.spawn(value_of(1)).abort()
        kept = group.spawn(value_of(1))
        assert "queued=1>" in repr(group) and list(group._queue) == [kept]
        group.cancel()


async def test_a_body_that_cancels_the_group_and_awaits_a_queued_child_raises_nothing() -> None:
    async with TaskGroup(limit=1) as group:
        group.spawn(asyncio.sleep(3600))
        handle = group.spawn(asyncio.sleep(3600))
        group.cancel("enough")
        await handle
    assert group.cancelled_caught and handle.is_cancelled()
    with pytest.raises(JoinError, match="enough"):
        await handle

    group = TaskGroup(limit=1)
    group.cancel()
    async with group:
        group.spawn(asyncio.sleep(3600))
        handle = group.spawn(asyncio.sleep(3600))
        await handle
    assert group.cancelled_caught and handle.is_cancelled()
    assert requests() == 0


async def test_a_queued_child_begins_in_the_turn_in_which_a_place_becomes_free() -> None:
    turn = 0

    def count() -> None:
        nonlocal turn
        turn += 1
        loop.call_soon(count)

    loop = asyncio.get_running_loop()
    loop.call_soon(count)
    async with TaskGroup(limit=1) as group:
        for _ in range(10):
            group.spawn(yield_now())
    assert turn <= 2 * 10 + 2  # the second step, and the end that the group hears of


async def test_many_queued_children_that_are_ready_let_the_others_run() -> None:
    ran = 0

    async def child() -> None:
        nonlocal ran
        ran += 1

    seen = []
    async with TaskGroup(limit=1) as group:
        for _ in range(1000):
            group.spawn(child())
        await yield_now()
        while ran < 1000:
            seen.append(ran)
            await yield_now()
    assert len(seen) > 100


async def test_a_queued_child_in_its_first_step_has_a_handle_that_knows_it() -> None:
    async def child(log: list[Any]) -> None:
        log.append(asyncio.current_task())
        try:
            await handle
        except RuntimeError as error:
            log.append(str(error))
        handle.abort("enough")
        await asyncio.sleep(3600)

    log: list[Any] = []
    async with TaskGroup(limit=1) as group:
        group.spawn(yield_now())
        handle = group.spawn(child(log))
    assert log[1] == "a task cannot wait for its own end"
    with pytest.raises(JoinError, match="enough"):
        await handle


async def test_a_queued_child_that_cancels_its_group_in_its_first_step_is_cancelled() -> None:
    async def child() -> None:
        group.cancel()
        await asyncio.sleep(3600)

    async with TaskGroup(limit=1) as group:
        group.spawn(yield_now())
        handles = [group.spawn(child()), group.spawn(value_of(1))]
    assert [handle.is_cancelled() for handle in handles] == [True, True]
    assert group.cancelled_caught


async def test_a_queued_child_starts_in_the_context_in_which_it_was_spawned() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    async def child() -> str:
        value = variable.get()
        variable.set("of another child")
        return value

    async with TaskGroup(limit=1) as group:
        handles = []
        for value in "abc":
            variable.set(value)
            handles.append(group.spawn(child()))
    assert [await handle for handle in handles] == ["a", "b", "c"]


@pytest.mark.parametrize("stop", [SystemExit, KeyboardInterrupt])
def test_a_queued_child_that_stops_the_program_in_its_first_step_ends_the_group(stop: type[BaseException]) -> None:
    handles: list[JoinHandle[Any]] = []
    ended: list[str] = []

    async def stops() -> None:
        raise stop

    async def main() -> None:
        try:
            async with TaskGroup(limit=1) as group:
                handles.append(group.spawn(yield_now()))
                handles.append(group.spawn(stops()))
                handles.append(group.spawn(asyncio.sleep(3600)))
        except stop:
            ended.append("group")
            raise

    with pytest.raises(stop):
        asyncio.run(main())
    assert ended == ["group"]
    assert [handle.is_finished() for handle in handles] == [True, True, True]
    with pytest.raises(stop):
        handles[1].result()


async def test_a_group_whose_eager_children_need_not_wait_takes_no_loop_turn() -> None:
    async def child() -> None:
        pass

    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    async with TaskGroup(limit=2) as group:
        for _ in range(5):
            group.spawn(child(), eager=True)
    assert turns == []


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_spawned_after_the_cancellation_hears_its_reason(workers: int) -> None:
    async def program() -> None:
        async with TaskGroup(limit=1) as group:
            group.cancel("enough")
            handles = [group.spawn(asyncio.sleep(3600)) for _ in range(2)]  # one of them has to wait
        for handle in handles:
            with pytest.raises(JoinError, match="enough"):
                await handle

    run(program(), workers=workers)
