from __future__ import annotations

import asyncio
import gc
import math
import signal
import sys
import threading
import weakref

import pytest

from yamanote.runtime import CancelScope, move_on_after, run, start_task, use_scope, yield_now


def requests() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def test_a_scope_that_is_not_cancelled_does_nothing() -> None:
    with CancelScope() as scope:
        await yield_now()
    assert not scope.cancel_called and not scope.cancelled_caught and scope.reason is None
    assert requests() == 0


async def test_a_cancelled_scope_ends_its_block_and_says_so() -> None:
    with CancelScope() as scope:
        scope.cancel("enough")
        await asyncio.sleep(3600)
    assert scope.cancel_called and scope.cancelled_caught and scope.reason == "enough"
    assert requests() == 0


async def test_the_reason_is_the_message_of_the_cancellation_and_the_first_one_counts() -> None:
    with CancelScope() as scope:
        scope.cancel("first")
        scope.cancel("second")
        with pytest.raises(asyncio.CancelledError, match="first"):
            await asyncio.sleep(3600)
        await yield_now()  # delivered once
    assert scope.reason == "first"
    assert not scope.cancelled_caught
    assert requests() == 0


async def test_a_cancellation_that_was_not_delivered_does_not_leak_out_of_the_block() -> None:
    with CancelScope() as scope:
        scope.cancel()
    assert scope.cancel_called and not scope.cancelled_caught
    for _ in range(3):
        await yield_now()
    assert requests() == 0


async def test_a_block_that_swallows_its_cancellation_goes_on() -> None:
    with CancelScope() as scope:
        scope.cancel()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
        await yield_now()
        value = "went on"
    assert value == "went on" and not scope.cancelled_caught
    assert requests() == 0


async def test_an_error_raised_while_the_block_is_cancelled_goes_on() -> None:
    scope = CancelScope()
    with pytest.raises(LookupError):
        with scope:
            scope.cancel()
            try:
                await asyncio.sleep(3600)
            finally:
                raise LookupError
    assert not scope.cancelled_caught
    assert requests() == 0


async def test_a_block_that_takes_the_request_back_itself_leaves_the_count_as_it_was() -> None:
    async def work() -> int:
        task = asyncio.current_task()
        assert task is not None
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(3600)
        with CancelScope() as scope:
            scope.cancel()
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                task.uncancel()
        return task.cancelling()

    task = start_task(work())
    await yield_now()
    task.cancel()
    assert await task == 1


async def test_a_cancellation_that_is_on_its_way_twice_is_delivered_once() -> None:
    with CancelScope() as scope:
        scope.cancel()
        # What a thread does that cancels just when the block is entered.
        asyncio.get_running_loop().call_soon(scope._deliver)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(3600)
        await yield_now()
    assert requests() == 0


async def test_requests_that_were_absorbed_before_do_not_disturb_a_scope() -> None:
    async def work() -> int:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(3600)
        with CancelScope() as scope:
            scope.cancel()
            await asyncio.sleep(3600)
        assert scope.cancelled_caught
        return requests()

    task = start_task(work())
    await yield_now()
    task.cancel()
    assert await task == 1


async def test_a_foreign_cancelled_error_passes_through() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        with CancelScope():
            await future
    assert requests() == 0


async def test_a_request_from_outside_in_the_same_turn_wins() -> None:
    caught: list[bool] = []

    async def work() -> None:
        try:
            with CancelScope() as scope:
                loop.call_soon(scope.cancel)
                await asyncio.sleep(3600)
        finally:
            caught.append(scope.cancelled_caught)
            assert requests() == 1

    loop = asyncio.get_running_loop()
    task = start_task(work())
    await yield_now()
    await yield_now()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert caught == [False]


async def test_a_request_that_the_running_task_makes_of_itself_at_the_end_of_the_block_is_delivered_once() -> None:
    seen: list[str] = []

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        with CancelScope() as scope:
            scope.cancel()
            try:
                await asyncio.sleep(3600)
            finally:
                task.cancel()  # will be raised by the task itself, at its next await
        assert scope.cancelled_caught
        try:
            await yield_now()
        except asyncio.CancelledError:
            seen.append("once")
        await yield_now()
        seen.append("no more")

    await start_task(work())
    assert seen == ["once", "no more"]


async def test_a_deadline_cancels() -> None:
    loop = asyncio.get_running_loop()
    with CancelScope(loop.time() + 0.001) as scope:
        await loop.create_future()
    assert scope.cancelled_caught and scope.reason == "deadline passed"
    assert requests() == 0


async def test_a_deadline_in_the_past_cancels_the_next_wait() -> None:
    with CancelScope(asyncio.get_running_loop().time() - 1) as scope:
        reached = True
        await asyncio.sleep(3600)
        reached = False
    assert reached and scope.cancelled_caught


async def test_a_deadline_leaves_who_only_gives_way_one_turn() -> None:
    loop = asyncio.get_running_loop()
    with CancelScope(loop.time() - 1) as scope:
        await yield_now()
    assert not scope.cancel_called
    with CancelScope(loop.time() - 1) as scope:
        turns = 0
        while True:
            await yield_now()
            turns += 1
    assert turns == 1 and scope.cancelled_caught
    with CancelScope(loop.time() - 1) as scope:
        await yield_now()
        scope.deadline = None  # in that turn it can still be moved
        await yield_now()
        scope.deadline = loop.time() + 3600
        await yield_now()
    assert not scope.cancel_called
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


async def test_a_deadline_can_be_moved_and_removed_while_the_block_is_open() -> None:
    loop = asyncio.get_running_loop()
    with CancelScope(loop.time() + 3600) as scope:
        assert scope.deadline is not None
        scope.deadline = None
        scope.deadline = loop.time()
        await loop.create_future()
    assert scope.cancelled_caught
    with CancelScope(loop.time()) as scope:
        scope.deadline = None
        await yield_now()
        await yield_now()
    assert not scope.cancel_called and scope.deadline is None


async def test_a_closed_scope_leaves_no_timer_and_no_reference_behind() -> None:
    loop = asyncio.get_running_loop()
    scope = CancelScope(loop.time() + 3600)
    with scope:
        pass
    scope.deadline = loop.time()  # too late: nothing to cancel
    scope.cancel()
    await yield_now()
    assert requests() == 0

    async def shielded() -> None:
        with CancelScope(shield=True):
            pass

    gone = weakref.ref(start_task(shielded()))
    for _ in range(3):
        await yield_now()
    gc.collect()
    assert gone() is None


async def test_a_scope_that_was_cancelled_before_it_is_entered_cancels_the_first_await() -> None:
    scope = CancelScope()
    scope.cancel()
    with scope:
        await yield_now()
        raise AssertionError("not cancelled")
    assert scope.cancelled_caught


async def test_a_scope_is_cancelled_from_another_thread() -> None:
    with CancelScope() as scope:
        thread = threading.Thread(target=scope.cancel, args=("from a thread",))
        thread.start()
        await asyncio.sleep(3600)
    thread.join()
    assert scope.cancelled_caught and scope.reason == "from a thread"


def test_cancelling_after_the_loop_has_closed_does_nothing() -> None:
    async def abandoned() -> None:
        with scope:
            await asyncio.sleep(3600)

    scope = CancelScope()
    loop = asyncio.new_event_loop()
    task = loop.create_task(abandoned())
    loop.run_until_complete(asyncio.sleep(0))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
    scope.cancel()
    assert scope.cancel_called and not scope.cancelled_caught


async def test_a_shield_holds_the_cancellation_of_the_scopes_around_it_until_it_ends() -> None:
    log: list[str] = []
    with CancelScope() as outer:
        with CancelScope(shield=True) as shield:
            assert shield.shield and not outer.shield
            outer.cancel()
            await yield_now()
            await yield_now()
            log.append("shielded")
        log.append("between")
        await yield_now()
        log.append("never")
    assert outer.cancelled_caught and log == ["shielded", "between"]
    assert requests() == 0


async def test_a_shield_does_not_protect_from_itself_nor_the_scopes_inside() -> None:
    with CancelScope(shield=True) as shield:
        with CancelScope() as inner:
            inner.cancel()
            await asyncio.sleep(3600)
        assert inner.cancelled_caught
        shield.cancel()
        await asyncio.sleep(3600)
    assert shield.cancelled_caught
    assert requests() == 0


async def test_a_shield_of_another_task_protects_nothing_here() -> None:
    done = asyncio.Event()

    async def shielded() -> None:
        with CancelScope(shield=True):
            await done.wait()

    with CancelScope() as outer:
        other = start_task(shielded())
        await yield_now()
        outer.cancel()
        await asyncio.sleep(3600)
    assert outer.cancelled_caught
    done.set()
    await other


async def test_a_shield_does_not_protect_from_a_native_cancellation() -> None:
    async def shielded() -> None:
        with CancelScope(shield=True):
            await asyncio.sleep(3600)

    task = start_task(shielded())
    await yield_now()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_scope_can_be_entered_once_and_only_in_a_task() -> None:
    scope = CancelScope()
    with scope:
        with pytest.raises(RuntimeError, match="once"):
            scope.__enter__()
    with pytest.raises(RuntimeError, match="once"):
        scope.__enter__()
    with pytest.raises(RuntimeError, match="not open"):
        scope.__exit__(None, None, None)
    failed: list[BaseException] = []

    def in_a_callback() -> None:
        try:
            CancelScope().__enter__()
        except RuntimeError as error:
            failed.append(error)

    asyncio.get_running_loop().call_soon(in_a_callback)
    await yield_now()
    assert "in a task" in str(failed[0])


async def test_it_shows_its_state() -> None:
    scope = CancelScope(shield=True)
    assert "new" in repr(scope)
    with scope:
        assert "open" in repr(scope) and "shield" in repr(scope)
        scope.cancel()
    assert "closed, cancelled" in repr(scope)


async def test_to_move_a_deadline_back_arms_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    with CancelScope(deadline=loop.time() + 100) as scope:
        with monkeypatch.context() as patch:
            patch.setattr(loop, "call_at", None)
            for seconds in range(100, 200):
                scope.deadline = loop.time() + seconds
    assert not scope.cancel_called


async def test_a_deadline_that_was_moved_back_is_the_one_that_counts() -> None:
    loop = asyncio.get_running_loop()
    with CancelScope(deadline=loop.time() + 0.001) as scope:
        moved = scope.deadline = loop.time() + 0.005
        await asyncio.sleep(3600)
    assert scope.cancelled_caught
    assert loop.time() >= moved - 1e-6


async def test_a_deadline_that_never_comes_needs_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "call_at", None)
    with CancelScope(deadline=math.inf) as scope:
        assert scope.deadline == math.inf
        scope.deadline = math.inf
    assert not scope.cancel_called
    with CancelScope(deadline=-math.inf) as scope:
        await loop.create_future()
    assert scope.cancelled_caught


async def test_a_deadline_that_is_none_is_refused_at_the_call() -> None:
    with pytest.raises(ValueError, match="deadline"):
        CancelScope(deadline=math.nan)
    with pytest.raises(TypeError, match="deadline"):
        CancelScope(deadline="soon")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="deadline"):
        CancelScope(deadline=10**400)
    with CancelScope() as scope:
        with pytest.raises(ValueError, match="deadline"):
            scope.deadline = math.nan
        with pytest.raises(TypeError, match="deadline"):
            scope.deadline = "soon"  # type: ignore[assignment]
        assert scope.deadline is None
        await yield_now()


# move_on_after, use_scope


async def test_moving_on_ends_the_block_without_an_error_and_says_so() -> None:
    with move_on_after(0.001) as scope:
        await asyncio.sleep(3600)
    assert scope.cancelled_caught and scope.reason == "deadline passed"
    with move_on_after(3600) as scope:
        await yield_now()
    assert not scope.cancel_called
    assert requests() == 0


async def test_the_time_to_move_on_begins_when_the_block_is_entered() -> None:
    loop = asyncio.get_running_loop()
    scope = move_on_after(3600)
    assert scope.deadline is None
    await asyncio.sleep(0.002)
    before = loop.time()
    with scope:
        assert scope.deadline is not None and scope.deadline >= before + 3600
    scope = move_on_after(3600)
    scope.deadline = loop.time()  # in place of the seconds
    with scope:
        await asyncio.sleep(3600)
    assert scope.cancelled_caught


async def test_no_time_cancels_the_first_wait_and_none_never_does() -> None:
    for seconds in (0, -1, -math.inf):
        reached = False
        with move_on_after(seconds) as scope:
            reached = True
            await asyncio.sleep(3600)
            reached = False
        assert reached and scope.cancelled_caught
    for never in (None, math.inf):
        with move_on_after(never) as scope:
            await yield_now()
            assert scope.deadline == never
        assert not scope.cancel_called


async def test_a_timeout_error_of_the_block_is_no_reason_to_move_on() -> None:
    with pytest.raises(TimeoutError, match="of the block"):
        with move_on_after(0.001) as scope:
            try:
                await asyncio.sleep(3600)
            finally:
                raise TimeoutError("of the block")
    assert scope.cancel_called and not scope.cancelled_caught and requests() == 0
    with pytest.raises(TimeoutError):
        with move_on_after(3600):
            async with asyncio.timeout(0):
                await asyncio.sleep(3600)


async def test_moving_on_again_and_again_leaves_no_request_that_a_standard_group_would_find() -> None:
    for _ in range(3):
        with move_on_after(0):
            await asyncio.sleep(3600)
    assert requests() == 0

    async def fail() -> None:
        raise LookupError

    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
    await yield_now()  # from 3.13 on a group cancels once more for each request that it finds


async def test_moving_on_can_be_shielded_from_the_scopes_around() -> None:
    with CancelScope() as outer:
        outer.cancel()
        with move_on_after(0.001, shield=True) as scope:
            await asyncio.sleep(3600)
        assert scope.cancelled_caught and scope.shield
        await yield_now()
    assert outer.cancelled_caught and requests() == 0


def test_a_time_to_move_on_that_is_none_is_refused_at_the_call() -> None:
    with pytest.raises(ValueError, match="seconds"):
        move_on_after(math.nan)
    with pytest.raises(TypeError, match="seconds"):
        move_on_after("5")  # type: ignore[arg-type]
    for too_much in (10**400, -(10**400)):
        with pytest.raises(ValueError, match="seconds"):
            move_on_after(too_much)


async def test_a_scope_that_is_used_is_cancelled_by_hand() -> None:
    with use_scope() as scope:
        scope.cancel("enough")
        await asyncio.sleep(3600)
    assert scope.cancelled_caught and scope.reason == "enough" and requests() == 0


# shields around what asyncio itself cancels


async def test_standard_timeouts_and_groups_work_inside_of_a_shield() -> None:
    async def fail() -> None:
        raise LookupError

    with CancelScope(shield=True):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.sleep(3600)
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                await asyncio.sleep(3600)


async def test_a_standard_timeout_around_a_shield_leaks_nothing() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            with CancelScope(shield=True):
                await asyncio.sleep(3600)
    await yield_now()
    assert requests() == 0


async def test_one_request_from_outside_is_delivered_once_through_a_shield() -> None:
    async def work() -> str:
        task = asyncio.current_task()
        assert task is not None
        try:
            with CancelScope() as outer, CancelScope(shield=True):
                outer.cancel()
                await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await yield_now()  # the clean-up is not cancelled again
            assert task.uncancel() == 0
        return "cleaned up"

    task = start_task(work())
    await yield_now()
    task.cancel()
    assert await task == "cleaned up"


# signals


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_a_signal_handler_wakes_the_loop_that_it_has_found_asleep() -> None:
    async def main() -> list[str]:
        log: list[str] = []
        with CancelScope() as scope:
            signal.signal(signal.SIGALRM, lambda *_: scope.cancel("signal"))
            # On a loop that nothing else wakes, and in the end this, if the signal does not.
            asyncio.get_running_loop().call_later(5, log.append, "slept on")
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            await asyncio.get_running_loop().create_future()
        assert scope.cancelled_caught
        return log

    before = signal.getsignal(signal.SIGALRM)
    try:
        assert run(main()) == []
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python has eager tasks from 3.12 on")
async def test_blocks_may_begin_in_the_part_of_a_task_that_runs_eagerly() -> None:
    log: list[str] = []

    async def work() -> int:
        with move_on_after(0) as moved:
            log.append("eager")
            await asyncio.sleep(3600)
        with use_scope() as scope:
            scope.cancel()
            await asyncio.sleep(3600)
        assert moved.cancelled_caught and scope.cancelled_caught
        return requests()

    async def cancelled_in_its_first_step() -> int:
        with use_scope() as scope:
            scope.cancel()
            await asyncio.sleep(3600)
        return requests()

    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    tasks = [asyncio.create_task(work()), asyncio.create_task(cancelled_in_its_first_step())]
    assert log == ["eager"]
    assert await asyncio.gather(*tasks) == [0, 0]
