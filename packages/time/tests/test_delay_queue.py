"""Delay queues on a virtual clock: order, keys, cancellation, the end."""

from __future__ import annotations

import asyncio
import gc
import math
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from yamanote.runtime import BUDGET, CancelScope, TaskWaiter, park_thread, run, yield_now
from yamanote.time import DelayQueue, DelayQueueClosed, VirtualClock, sleep, time, timeout


def virtual(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def on_a_virtual_clock() -> None:
        run(test(), loop_factory=VirtualClock().loop_factory)

    on_a_virtual_clock.__name__ = test.__name__
    return on_a_virtual_clock


async def received(queue: DelayQueue[Any]) -> list[tuple[float, Any]]:
    return [(time(), item) async for item in queue]


def live_timers() -> list[asyncio.TimerHandle]:
    loop: Any = asyncio.get_running_loop()
    return [timer for timer in loop._scheduled if not timer.cancelled()]


@virtual
async def test_items_come_in_the_order_of_their_deadlines_each_at_its_time() -> None:
    queue: DelayQueue[str] = DelayQueue()
    for seconds, item in [(3, "c"), (1, "a"), (365 * 24 * 3600, "z"), (2, "b")]:
        queue.insert(item, seconds)
    queue.close()
    assert await received(queue) == [(1, "a"), (2, "b"), (3, "c"), (365 * 24 * 3600, "z")]


@virtual
async def test_items_with_one_deadline_come_in_the_order_in_which_it_was_set() -> None:
    queue: DelayQueue[int] = DelayQueue()
    keys = [queue.insert(number, 5) for number in range(6)]
    queue.reset(keys[1], 5)
    queue.reset(keys[0], 5)
    queue.close()
    assert [item async for item in queue] == [2, 3, 4, 5, 1, 0]


@virtual
async def test_what_is_overdue_comes_at_once_without_a_loop_turn_oldest_deadline_first() -> None:
    queue: DelayQueue[str] = DelayQueue()
    queue.insert("due now", 0)
    queue.insert("overdue", -5)
    queue.insert_at("for ever", -math.inf)
    turns: list[None] = []
    asyncio.get_running_loop().call_soon(turns.append, None)
    assert [await queue.recv() for _ in range(3)] == ["for ever", "overdue", "due now"]
    assert not turns


@virtual
async def test_none_falsy_items_and_errors_are_ordinary_items() -> None:
    queue: DelayQueue[Any] = DelayQueue()
    items = [None, 0, "", StopAsyncIteration(), DelayQueueClosed(), False]
    for item in items:
        queue.insert(item, 1)
    queue.close()
    assert [item async for item in queue] == items


@virtual
async def test_an_item_that_becomes_the_first_while_somebody_waits_comes_first() -> None:
    queue: DelayQueue[str] = DelayQueue()
    queue.insert("late", 10)
    waiting = asyncio.create_task(queue.recv())
    await sleep(1)
    queue.insert("early", 1)
    assert (await waiting, time()) == ("early", 2)
    assert (await queue.recv(), time()) == ("late", 10)


@virtual
async def test_an_item_that_is_due_at_once_goes_to_who_waits_on_an_empty_queue() -> None:
    queue: DelayQueue[str] = DelayQueue()
    waiting = asyncio.create_task(queue.recv())
    await yield_now()
    queue.insert("now", 0)
    assert len(queue) == 0
    assert await waiting == "now"


@pytest.mark.parametrize("to", [1, 4, 7, 30])
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("parked", [False, True])
def test_a_reset_item_comes_at_its_new_time_only(to: int, absolute: bool, parked: bool) -> None:
    @virtual
    async def main() -> None:
        queue: DelayQueue[str] = DelayQueue()
        key = queue.insert("moved", 5)
        queue.insert("other", 6)
        queue.close()
        receiving = asyncio.create_task(received(queue))
        if parked:
            await yield_now()
        if absolute:
            queue.reset_at(key, to)
        else:
            queue.reset(key, to)
        assert await receiving == sorted([(to, "moved"), (6, "other")])

    main()


@virtual
async def test_an_item_that_was_put_off_again_and_again_comes_once() -> None:
    queue: DelayQueue[str] = DelayQueue()
    queue.insert("session", 10, key=7)
    queue.close()
    receiving = asyncio.create_task(received(queue))
    for _ in range(1000):
        await sleep(5)
        queue.reset(7, 10)
    assert await receiving == [(5010, "session")]


@virtual
async def test_an_overdue_item_that_nobody_has_received_can_be_put_off() -> None:
    queue: DelayQueue[str] = DelayQueue()
    key = queue.insert("item", 1)
    await sleep(2)
    queue.reset(key, 3)
    assert (await queue.recv(), time()) == ("item", 5)


@virtual
async def test_a_removed_item_is_returned_and_never_comes() -> None:
    queue: DelayQueue[str] = DelayQueue()
    first, _ = queue.insert("first", 1), queue.insert("second", 2)
    receiving = asyncio.create_task(received(queue))
    await yield_now()
    assert queue.remove(first) == "first"
    queue.close()
    assert await receiving == [(2, "second")]


@virtual
async def test_keys_of_ones_own_are_free_again_when_the_item_is_gone() -> None:
    queue: DelayQueue[str] = DelayQueue()
    assert queue.insert("one", 1, key="k") == "k"
    assert "k" in queue
    with pytest.raises(ValueError, match="key is in the queue already: 'k'"):
        queue.insert("two", 1, key="k")
    assert queue.remove("k") == "one"
    assert "k" not in queue
    queue.insert("three", 1, key="k")
    assert await queue.recv() == "three"
    queue.insert("four", 1, key="k")
    assert await queue.recv() == "four"


@virtual
async def test_falsy_keys_are_ordinary_keys() -> None:
    queue: DelayQueue[str] = DelayQueue()
    assert queue.insert("zero", 2, key=0) == 0
    assert queue.insert("empty", 1, key="") == ""
    assert queue.remove(0) == "zero"
    assert await queue.recv() == "empty"


@virtual
async def test_a_key_whose_item_is_gone_is_unknown() -> None:
    queue: DelayQueue[str] = DelayQueue()
    key = queue.insert("item", 0)
    await queue.recv()
    for call in (queue.remove, lambda key: queue.reset(key, 1), lambda key: queue.reset_at(key, 1)):
        with pytest.raises(KeyError):
            call(key)
    assert len(queue) == 0


@virtual
async def test_peek_and_len_look_without_taking() -> None:
    queue: DelayQueue[str | None] = DelayQueue()
    assert queue.peek() is None
    assert len(queue) == 0
    queue.insert("later", 9)
    key = queue.insert(None, 4)
    seen = queue.peek()
    assert seen == (key, None, 4)
    assert seen is not None and (seen.key, seen.item, seen.deadline) == (key, None, 4)
    assert len(queue) == 2
    queue.remove(key)
    seen = queue.peek()
    assert seen is not None and (seen.item, seen.deadline) == ("later", 9)
    await sleep(10)
    assert queue.peek() == seen
    await queue.recv()
    assert queue.peek() is None


@virtual
async def test_an_empty_queue_waits_until_it_is_filled_again() -> None:
    queue: DelayQueue[int] = DelayQueue()
    receiving = asyncio.create_task(received(queue))
    for number in range(3):
        queue.insert(number, 1)
        await sleep(10)
    assert not receiving.done()
    queue.close()
    assert await receiving == [(1, 0), (11, 1), (21, 2)]


@virtual
async def test_after_close_what_is_there_still_comes_and_everybody_who_waits_is_told_the_end() -> None:
    queue: DelayQueue[str] = DelayQueue()
    queue.insert("last", 5)
    parties = [asyncio.create_task(received(queue)) for _ in range(3)]
    await yield_now()
    queue.close()
    queue.close()
    with pytest.raises(DelayQueueClosed):
        queue.insert("more", 1)
    with pytest.raises(DelayQueueClosed):
        queue.insert_at("more", 1)
    assert await asyncio.gather(*parties) == [[(5, "last")], [], []]
    with pytest.raises(DelayQueueClosed):
        await queue.recv()
    assert "closed, 0 items, 0 waiting" in repr(queue)


@virtual
async def test_who_is_cancelled_in_the_turn_in_which_it_is_told_the_end_leaves_nothing_behind() -> None:
    queue: DelayQueue[str] = DelayQueue()
    waiting = asyncio.create_task(queue.recv())
    await yield_now()
    queue.close()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert "closed, 0 items, 0 waiting" in repr(queue)


@pytest.mark.parametrize("how", ["close", "remove"])
def test_who_waits_when_nothing_can_come_any_more_is_told_at_once(how: str) -> None:
    @virtual
    async def main() -> None:
        queue: DelayQueue[str] = DelayQueue()
        key = queue.insert("item", math.inf)
        if how == "close":
            queue.remove(key)
        else:
            queue.close()
        waiting = asyncio.create_task(queue.recv())
        await yield_now()
        if how == "close":
            queue.close()
        else:
            queue.remove(key)
        with pytest.raises(DelayQueueClosed):
            await waiting

    main()


@virtual
async def test_a_closed_queue_is_still_managed_by_its_keys() -> None:
    queue: DelayQueue[str] = DelayQueue()
    queue.insert("a", 5, key="a")
    queue.insert("b", 6, key="b")
    queue.close()
    queue.reset("a", 8)
    assert queue.remove("b") == "b"
    assert await received(queue) == [(8, "a")]


@virtual
async def test_receivers_are_served_first_in_first_out_one_item_each() -> None:
    queue: DelayQueue[int] = DelayQueue()
    served: list[tuple[str, int]] = []

    async def receive(name: str) -> None:
        served.append((name, await queue.recv()))

    async with asyncio.TaskGroup() as group:
        for name in "abc":
            group.create_task(receive(name))
        await yield_now()
        for number in range(3):
            queue.insert(number, 1 + number // 2)
    assert served == [("a", 0), ("b", 1), ("c", 2)]


def test_a_newcomer_does_not_overtake_who_waits() -> None:
    clock = VirtualClock()

    async def main() -> None:
        queue: DelayQueue[int] = DelayQueue()
        queue.insert(1, 1)
        queue.insert(2, 1)
        parked = asyncio.create_task(queue.recv())
        await yield_now()
        clock._now = 5  # both are due, but the timer has not been called yet
        assert await queue.recv() == 2
        assert await parked == 1

    run(main(), loop_factory=clock.loop_factory)


@virtual
async def test_an_item_handed_to_who_is_cancelled_before_it_runs_is_back_in_its_place() -> None:
    queue: DelayQueue[str] = DelayQueue()
    key = queue.insert("first", 1)
    queue.insert("second", 1)
    task = asyncio.create_task(queue.recv())
    await yield_now()
    asyncio.get_running_loop().call_at(1, task.cancel)
    await asyncio.wait([task])
    assert task.cancelled()
    assert len(queue) == 2
    assert key in queue
    assert [await queue.recv() for _ in range(2)] == ["first", "second"]


@virtual
async def test_an_item_that_came_back_goes_to_the_next_who_waits() -> None:
    queue: DelayQueue[str] = DelayQueue()
    queue.insert("only", 1)
    first, second = (asyncio.create_task(queue.recv()) for _ in range(2))
    await yield_now()
    asyncio.get_running_loop().call_at(1, first.cancel)
    await asyncio.wait([first, second])
    assert first.cancelled()
    assert (second.result(), time()) == ("only", 1)


@virtual
async def test_an_item_that_came_back_after_its_key_was_used_again_is_not_lost() -> None:
    queue: DelayQueue[str] = DelayQueue()
    waiter: TaskWaiter[Any] = TaskWaiter()
    queue.insert("old", 0, key="k")
    queue.register(waiter)
    assert waiter.value == "old"
    queue.insert("new", 0, key="k")
    queue.withdraw(waiter)
    assert len(queue) == 2
    assert queue.remove("k") == "new"
    assert await queue.recv() == "old"


@virtual
async def test_an_item_that_comes_back_in_the_middle_of_a_hand_over_is_the_next() -> None:
    class Disturbed(TaskWaiter[Any]):
        """While it is being served, a finalizer throws another party away."""

        def claim(self) -> bool:
            queue.withdraw(gone)
            return super().claim()

    queue: DelayQueue[str] = DelayQueue()
    gone: TaskWaiter[Any] = TaskWaiter()
    queue.insert("first", 0)
    queue.register(gone)
    assert gone.value == "first"
    waiters: list[TaskWaiter[Any]] = [Disturbed(), TaskWaiter()]
    for waiter in waiters:
        queue.register(waiter)
    queue.insert("second", 0)
    assert [waiter.value for waiter in waiters] == ["second", "first"]


@virtual
async def test_an_item_that_is_removed_in_the_middle_of_a_hand_over_is_received_or_removed_and_nobody_is_lost() -> None:
    class Disturbed(TaskWaiter[Any]):
        """While it is being served, a finalizer removes what there is."""

        def claim(self) -> bool:
            for key in ("first", "second"):
                try:
                    removed.append(queue.remove(key))
                except KeyError:
                    pass
            return super().claim()

    queue: DelayQueue[int] = DelayQueue()
    removed: list[int] = []
    waiters: list[TaskWaiter[Any]] = [Disturbed(), TaskWaiter()]
    for waiter in waiters:
        queue.register(waiter)
    queue.insert(0, 10, key="second")
    queue.insert(1, 0, key="first")
    assert (waiters[0].value, removed) == (1, [0])
    queue.insert(2, 0)
    assert waiters[1].value == 2


@virtual
async def test_what_falls_due_for_parties_that_are_all_gone_stays_in_its_place() -> None:
    queue: DelayQueue[str] = DelayQueue()
    for _ in range(2):
        waiter: TaskWaiter[Any] = TaskWaiter()
        queue.register(waiter)
        waiter.claim()  # by another branch
    queue.insert("first", 0, key=1)
    queue.insert("second", 0, key=2)
    assert len(queue) == 2 and 1 in queue
    queue.close()
    assert [item async for item in queue] == ["first", "second"]


@virtual
async def test_an_item_can_come_back_however_often_and_comes_once() -> None:
    queue: DelayQueue[int] = DelayQueue()
    for number in range(3):
        queue.insert(number, 0)
    for _ in range(5):
        waiters: list[TaskWaiter[Any]] = [TaskWaiter() for _ in range(3)]
        for waiter in waiters:
            queue.register(waiter)
        assert [waiter.value for waiter in waiters] == [0, 1, 2]
        for waiter in reversed(waiters):
            queue.withdraw(waiter)
    queue.close()
    assert [item async for item in queue] == [0, 1, 2]
    assert queue._heap == []


@virtual
async def test_a_time_limit_takes_nothing() -> None:
    queue: DelayQueue[str] = DelayQueue()
    queue.insert("item", 5)
    for _ in range(4):
        with pytest.raises(TimeoutError):
            await timeout(1, queue.recv())
    assert (await queue.recv(), time()) == ("item", 5)


@virtual
async def test_a_branch_that_another_one_has_beaten_loses_nothing() -> None:
    fast: DelayQueue[str] = DelayQueue()
    slow: DelayQueue[str] = DelayQueue()
    fast.insert("fast", 5)
    slow.insert("slow", 5)
    party: TaskWaiter[Any] = TaskWaiter()
    branch = party.branch()
    fast.register(party)
    slow.register(branch)
    await party.future
    assert (party.value, branch.settled) == ("fast", False)
    slow.withdraw(branch)
    assert await slow.recv() == "slow"


@virtual
async def test_a_long_row_of_due_items_yields_after_the_budget_and_a_cancellation_there_takes_nothing() -> None:
    queue: DelayQueue[int] = DelayQueue()
    for number in range(2 * BUDGET):
        queue.insert(number, 0)
    seen: list[int] = []
    others: list[int] = []

    async def receive() -> None:
        async for number in queue:
            seen.append(number)

    task = asyncio.create_task(receive())
    asyncio.get_running_loop().call_soon(lambda: others.append(len(seen)))
    await yield_now()
    assert others == [BUDGET]
    task.cancel()
    await asyncio.wait([task])
    assert len(seen) + len(queue) == 2 * BUDGET
    assert await queue.recv() == len(seen)


@virtual
async def test_cancelling_is_as_before_when_a_scope_ends_the_wait() -> None:
    queue: DelayQueue[str] = DelayQueue()
    task = asyncio.current_task()
    assert task is not None
    with CancelScope(deadline=time() + 1) as scope:
        await queue.recv()
    assert scope.cancelled_caught
    assert task.cancelling() == 0
    assert "open, 0 items, 0 waiting" in repr(queue)


@virtual
async def test_one_timer_however_many_items_and_none_when_nobody_waits_or_nothing_will_come() -> None:
    queue: DelayQueue[int] = DelayQueue()
    for number in range(100):
        queue.insert(number, 10 + number)
    assert live_timers() == []
    tasks = [asyncio.create_task(queue.recv()) for _ in range(3)]
    await yield_now()
    assert len(live_timers()) == 1
    queue.insert(-1, 5)
    assert [timer.when() for timer in live_timers()] == [5]
    while (first := queue.peek()) is not None:
        queue.remove(first.key)
    assert live_timers() == []
    queue.insert(1, math.inf, key="never")
    assert live_timers() == []
    queue.reset("never", 1)
    assert len(live_timers()) == 1
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert live_timers() == []


@virtual
async def test_what_is_put_off_all_the_time_arms_no_timers_and_piles_nothing_up() -> None:
    queue: DelayQueue[int] = DelayQueue()
    queue.insert(-1, 50)
    keys = [queue.insert(number, 60) for number in range(100)]
    waiting = asyncio.create_task(queue.recv())
    await yield_now()
    loop: Any = asyncio.get_running_loop()
    armed = list(loop._scheduled)
    for _ in range(100):
        for key in keys:
            queue.reset(key, 60)
    assert loop._scheduled == armed
    assert len(queue._heap) < 300
    assert len(queue) == 101
    waiting.cancel()


@virtual
async def test_a_removed_item_and_a_received_one_are_kept_by_nobody() -> None:
    class Item:
        pass

    queue: DelayQueue[Item] = DelayQueue()
    queue.insert(Item(), 1)
    behind = queue.insert(Item(), 2)
    removed = weakref.ref(queue.remove(behind))
    gc.collect()
    assert removed() is None
    received = weakref.ref(await queue.recv())
    gc.collect()
    assert received() is None


@virtual
async def test_a_hundred_thousand_items_of_which_most_are_put_off_or_removed() -> None:
    queue: DelayQueue[int] = DelayQueue()
    count = 100_000
    for number in range(count):
        queue.insert(number, -(number * 7919 % count), key=number)  # each at a moment of its own, all overdue
    for number in range(count):
        if number % 4:
            queue.remove(number)
        elif number % 8:
            queue.reset(number, -count - number)
    assert len(queue) == count / 4
    assert len(queue._heap) < 3 * len(queue)
    kept = [number for number in range(count) if number % 8 == 4][::-1]
    kept += sorted(range(0, count, 8), key=lambda number: -(number * 7919 % count))
    queue.close()
    assert [item async for item in queue] == kept
    assert queue._heap == [] and queue._entries == {}


def test_the_work_for_an_item_hardly_grows_with_the_queue() -> None:
    def work(count: int) -> int:
        calls = 0

        def called(frame: object, event: str, argument: object) -> None:
            nonlocal calls
            calls += event == "call" or event == "c_call"

        async def main() -> None:
            queue: DelayQueue[int] = DelayQueue()
            sys.setprofile(called)
            try:
                for number in range(count):
                    queue.insert(number, -(number * 7919 % count), key=number)
                for number in range(0, count, 2):
                    queue.remove(number)
                queue.close()
                async for _ in queue:
                    pass
            finally:
                sys.setprofile(None)

        run(main(), loop_factory=VirtualClock().loop_factory)
        return calls

    assert work(8000) < 8.5 * work(1000)


def test_a_queue_can_be_made_and_filled_where_no_loop_runs() -> None:
    queue: DelayQueue[str] = DelayQueue()
    key = queue.insert_at("later", 5)
    queue.insert_at("soon", 9)
    queue.reset_at(key, 20)
    with pytest.raises(RuntimeError, match="no running event loop"):
        queue.insert("item", 1)
    queue.close()

    @virtual
    async def main() -> None:
        assert await received(queue) == [(9, "soon"), (20, "later")]

    main()


async def test_another_loop_is_refused_while_tasks_wait_and_welcome_after_them() -> None:
    queue: DelayQueue[str] = DelayQueue()
    key = queue.insert("item", 60)
    waiting = asyncio.create_task(queue.recv())
    await yield_now()

    async def use() -> str:
        errors = 0
        for call in (
            lambda: queue.insert("other", 0),
            lambda: queue.reset(key, 0),
            lambda: queue.remove(key),
            lambda: queue.close(),
            lambda: queue.register(TaskWaiter()),
        ):
            try:
                call()
            except RuntimeError as error:
                errors += "another event loop" in str(error)
        return f"{errors} refused"

    assert await asyncio.to_thread(asyncio.run, use()) == "5 refused"
    assert len(queue) == 1
    waiting.cancel()
    await asyncio.wait([waiting])
    assert await asyncio.to_thread(asyncio.run, use()) == "0 refused"


def test_a_loop_that_was_closed_is_in_nobodys_way() -> None:
    queue: DelayQueue[str] = DelayQueue()
    loop = asyncio.new_event_loop()
    left: list[asyncio.Task[str]] = []

    async def leave_behind() -> None:
        queue.insert("item", 60, key="k")
        left.append(loop.create_task(queue.recv()))
        await yield_now()

    loop.run_until_complete(leave_behind())
    loop.close()

    async def main() -> str:
        queue.reset("k", 0)
        return await queue.recv()

    assert asyncio.run(main()) == "item"
    left[0]._log_destroy_pending = False  # type: ignore[attr-defined]


def test_a_plain_thread_cannot_wait_for_a_delay_queue() -> None:
    errors: list[str] = []

    def wait() -> None:
        try:
            park_thread(DelayQueue())
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    assert len(errors) == 1


@virtual
async def test_nonsense_is_refused_by_name_and_changes_nothing() -> None:
    queue: DelayQueue[str] = DelayQueue()
    key = queue.insert("item", 1)
    calls: list[tuple[str, Callable[[Any], object]]] = [
        ("seconds", lambda seconds: queue.insert("x", seconds)),
        ("when", lambda when: queue.insert_at("x", when)),
        ("seconds", lambda seconds: queue.reset(key, seconds)),
        ("when", lambda when: queue.reset_at(key, when)),
    ]
    for argument, call in calls:
        for nonsense, error in [(math.nan, ValueError), ("1", TypeError), (None, TypeError)]:
            with pytest.raises(error, match=argument):
                call(nonsense)
    unhashable: Any = []
    with pytest.raises(TypeError, match="key must be hashable, not list"):
        queue.insert("x", 1, key=unhashable)
    with pytest.raises(KeyError):
        queue.remove("unknown")
    assert queue.peek() == (key, "item", 1)
    assert len(queue) == 1
