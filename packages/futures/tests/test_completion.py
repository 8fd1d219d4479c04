"""The completion queue: order, ownership, cancellation, closing, threads."""

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from itertools import permutations
from typing import Any

import pytest

from yamanote.futures import CompletionQueue
from yamanote.runtime import BUDGET, TaskWaiter, park, park_thread, yield_now


async def turns(count: int, value: Any = None) -> Any:
    """Finish after so many loop turns."""
    for _ in range(count):
        await yield_now()
    return value


async def never() -> None:
    await asyncio.get_running_loop().create_future()


async def fail(error: BaseException) -> None:
    raise error


@asynccontextmanager
async def reported() -> AsyncIterator[list[BaseException]]:
    """The errors that the loop's exception handler gets."""
    errors: list[BaseException] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    try:
        yield errors
        gc.collect()
    finally:
        loop.set_exception_handler(None)


def others() -> set[asyncio.Task[Any]]:
    current = asyncio.current_task()
    return {task for task in asyncio.all_tasks() if task is not current}


async def test_first_finished_first() -> None:
    async with CompletionQueue[str, Any]() as queue:
        for key, count in [("d", 4), ("a", 1), ("c", 3), ("b", 2)]:
            queue.add(turns(count), key)
        assert [key async for key, _ in queue] == ["a", "b", "c", "d"]


async def test_tasks_that_finish_in_one_turn_come_in_the_order_of_their_completion() -> None:
    async with CompletionQueue[int, Any]() as queue:
        for key in range(5):
            queue.add(turns(3), key)
        assert [key async for key, _ in queue] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("value", [None, 0, "", [], ValueError("a value"), asyncio.CancelledError("a value")])
async def test_every_value_is_a_value(value: Any, eager: bool) -> None:
    async with CompletionQueue[None, Any]() as queue:
        queue.add(turns(0, value), None, eager=eager)
        key, task = await queue.pop()
        assert key is None
        assert task.result() is value


async def test_an_error_stays_in_its_task_and_is_nobody_elses() -> None:
    async with reported() as errors:
        async with CompletionQueue[str, Any]() as queue:
            queue.add(fail(OSError("no answer")), "bad")
            queue.add(turns(2, "value"), "good")
            key, task = await queue.pop()
            assert key == "bad"
            assert isinstance(task.exception(), OSError)
            key, task = await queue.pop()
            assert task.result() == "value"
            del task
    assert errors == []


async def test_a_cancelled_task_is_handed_over_like_any_other() -> None:
    async with CompletionQueue[str, Any]() as queue:
        queue.add(never(), "cancelled").cancel()
        key, task = await queue.pop()
        assert key == "cancelled"
        assert task.cancelled()


async def test_keys_need_be_neither_unique_nor_hashable() -> None:
    async with CompletionQueue[list[int], Any]() as queue:
        queue.add(turns(0), [1])
        queue.add(turns(0), [1])
        assert [key async for key, _ in queue] == [[1], [1]]


async def test_tasks_may_be_added_while_it_is_iterated() -> None:
    async with CompletionQueue[int, Any]() as queue:
        queue.add(turns(1), 0)
        seen = []
        async for key, _ in queue:
            seen.append(key)
            if key < 5:
                queue.add(turns(1), key + 1)
        assert seen == [0, 1, 2, 3, 4, 5]


async def test_eager_tasks_run_at_once() -> None:
    began: list[asyncio.Task[Any] | None] = []

    async def work() -> None:
        began.append(asyncio.current_task())

    async with CompletionQueue[str, Any]() as queue:
        task = queue.add(work(), "eager", eager=True)
        assert task.done()
        await queue.pop()
        assert began == [task]
        lazy = queue.add(work(), "lazy")
        assert not lazy.done()


async def test_len_counts_what_runs_and_what_waits() -> None:
    async with CompletionQueue[str, Any]() as queue:
        assert not queue
        queue.add(turns(0), "ready")
        queue.add(never(), "never")
        assert len(queue) == 2
        await turns(3)
        assert len(queue) == 2
        assert "1 running, 1 finished" in repr(queue)
        await queue.pop()
        assert len(queue) == 1


async def test_pop_nowait_takes_what_has_finished_and_nothing_else() -> None:
    async with CompletionQueue[str, Any]() as queue:
        assert queue.pop_nowait() is None
        queue.add(turns(0, "value"), "key")
        assert queue.pop_nowait() is None
        await turns(3)
        entry = queue.pop_nowait()
        assert entry is not None
        assert (entry[0], entry[1].result()) == ("key", "value")
        assert queue.pop_nowait() is None


async def test_pop_of_an_empty_queue_is_an_error_and_not_a_wait() -> None:
    async with CompletionQueue[str, Any]() as queue:
        with pytest.raises(LookupError):
            await queue.pop()


async def test_who_waits_for_the_last_task_that_another_takes_is_told() -> None:
    async with CompletionQueue[str, Any]() as queue:
        queue.add(turns(3), "last")
        first, second = asyncio.create_task(queue.pop()), asyncio.create_task(queue.pop())
        assert (await first)[0] == "last"
        with pytest.raises(LookupError):
            await second


async def test_two_consumers_take_each_task_once_and_both_end() -> None:
    async with CompletionQueue[int, Any]() as queue:
        for key in range(20):
            queue.add(turns(key % 4), key)

        async def consume() -> list[int]:
            return [key async for key, _ in queue]

        one, two = await asyncio.gather(consume(), consume())
        assert sorted(one + two) == list(range(20))


async def test_parked_consumers_are_served_first_in_first_out() -> None:
    async with CompletionQueue[int, Any]() as queue:
        served: list[tuple[str, int]] = []

        async def consume(name: str) -> None:
            key, _ = await queue.pop()
            served.append((name, key))

        for key in range(3):
            queue.add(turns(5 + key), key)
        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(consume(name))
        assert served == [("a", 0), ("b", 1), ("c", 2)]


async def test_a_branch_on_an_empty_queue_waits_for_a_task_to_be_added() -> None:
    async with CompletionQueue[str, Any]() as queue:
        waiting = asyncio.create_task(park(queue))
        await turns(3)
        assert not waiting.done()
        queue.add(turns(1), "late")
        key, _ = await waiting
        assert key == "late"


@pytest.mark.parametrize("turn", range(8))
async def test_a_cancelled_pop_takes_nothing(turn: int) -> None:
    """Before it parks, while it is parked, after it has been handed a task, after it has run."""
    async with CompletionQueue[int, Any]() as queue:
        for key in range(2):
            queue.add(turns(2), key)
        seen: list[int] = []

        async def consume() -> None:
            seen.append((await queue.pop())[0])

        task = asyncio.create_task(consume())
        await turns(turn)
        task.cancel()
        await asyncio.wait([task])
        seen += [key async for key, _ in queue]
        assert seen == [0, 1]


async def test_a_task_that_comes_back_goes_to_the_next_who_waits() -> None:
    async with CompletionQueue[str, Any]() as queue:
        queue.add(turns(2), "only")
        first, second = asyncio.create_task(park(queue)), asyncio.create_task(park(queue))
        while "0 running" not in repr(queue):
            await yield_now()
        first.cancel()  # it has been handed the task, and has not run since
        key, _ = await second
        assert key == "only"
        assert first.cancelled()


@pytest.mark.parametrize("order", list(permutations(range(4))), ids=str)
async def test_tasks_that_come_back_in_any_order_stand_in_the_order_of_their_completion(order: Sequence[int]) -> None:
    async with CompletionQueue[int, Any]() as queue:
        parties: list[TaskWaiter[Any]] = [TaskWaiter() for _ in range(4)]
        for party in parties:
            queue.register(party)
        for key in range(6):
            queue.add(turns(0), key, eager=True)
        for number in order:
            queue.withdraw(parties[number])
        assert [key async for key, _ in queue] == [0, 1, 2, 3, 4, 5]


async def test_a_task_that_comes_back_twice_keeps_its_place_and_what_was_taken_meanwhile_is_forgotten() -> None:
    async with CompletionQueue[int, Any]() as queue:
        parties: list[TaskWaiter[Any]] = [TaskWaiter() for _ in range(4)]
        for party in parties[:3]:
            queue.register(party)
        for key in range(4):
            queue.add(turns(0), key, eager=True)
        queue.withdraw(parties[1])
        queue.register(parties[3])  # gets 1 again
        queue.withdraw(parties[0])
        assert (queue.pop_nowait() or ())[0] == 0
        queue.withdraw(parties[2])
        queue.withdraw(parties[3])
        assert [key async for key, _ in queue] == [1, 2, 3]
        del parties, party
        gc.collect()
        assert not queue._returned


async def test_pops_that_are_cancelled_in_the_turn_of_their_tasks_change_no_order() -> None:
    async with CompletionQueue[int, Any]() as queue:
        popping = [asyncio.create_task(queue.pop()) for _ in range(3)]
        for key in range(3):
            queue.add(turns(2), key)
        while "0 running" not in repr(queue):
            await yield_now()
        for task in popping:
            task.cancel()
        await asyncio.wait(popping)
        assert [key async for key, _ in queue] == [0, 1, 2]


async def test_what_was_claimed_elsewhere_is_skipped() -> None:
    async with CompletionQueue[str, Any]() as queue:
        party: TaskWaiter[Any] = TaskWaiter()
        branch = party.branch()
        queue.register(branch)
        assert party.claim()
        queue.add(turns(0), "key")
        await turns(3)
        assert (await queue.pop())[0] == "key"
        queue.withdraw(branch)
        assert not branch.settled


async def test_ready_pops_take_no_turn_up_to_the_budget() -> None:
    async with CompletionQueue[int, Any]() as queue:
        for key in range(2 * BUDGET):
            queue.add(turns(0), key)
        await turns(3)
        seen: list[int] = []
        noted: list[int] = []
        asyncio.get_running_loop().call_soon(lambda: noted.append(len(seen)))
        async for key, _ in queue:
            seen.append(key)
        assert noted == [BUDGET]
        assert len(seen) == 2 * BUDGET


async def test_a_cancellation_at_the_budgets_yield_takes_nothing() -> None:
    async with CompletionQueue[int, Any]() as queue:
        for key in range(BUDGET + 1):
            queue.add(turns(0), key)
        await turns(3)
        seen: list[int] = []

        async def consume() -> None:
            async for key, _ in queue:
                seen.append(key)

        task = asyncio.create_task(consume())
        asyncio.get_running_loop().call_soon(task.cancel)
        await asyncio.wait([task])
        assert task.cancelled()
        assert seen == list(range(BUDGET))
        assert (await queue.pop())[0] == BUDGET


def operations(count: int) -> int:
    """How many calls, of Python and of C, it takes to run and take so many tasks."""
    calls = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    async def main() -> None:
        async with CompletionQueue[int, Any]() as queue:
            for key in range(count):
                queue.add(turns(key % 3), key)
            sys.setprofile(profile)
            async for _ in queue:
                pass
            sys.setprofile(None)

    asyncio.run(main())
    return calls


def test_ten_times_the_tasks_are_ten_times_the_work() -> None:
    assert operations(10_000) < 11 * operations(1_000)


async def test_what_has_been_taken_is_not_kept() -> None:
    class Value:
        pass

    async with CompletionQueue[int, Any]() as queue:
        queue.add(never(), -1)

        async def make() -> Value:
            return Value()

        for key in range(3):
            queue.add(make(), key)
        kept = [weakref.ref((await queue.pop())[1].result()) for _ in range(3)]
        gc.collect()
        assert [ref() for ref in kept] == [None, None, None]


async def test_closing_cancels_and_awaits() -> None:
    ended: list[int] = []

    async def work(number: int) -> None:
        try:
            await never()
        finally:
            await turns(number)
            ended.append(number)

    queue: CompletionQueue[int, Any] = CompletionQueue()
    for number in range(5):
        queue.add(work(number), number)
    await yield_now()
    await queue.aclose()
    assert ended == [0, 1, 2, 3, 4]
    assert others() == set()
    assert len(queue) == 0
    await queue.aclose()


async def test_tasks_that_had_not_begun_when_it_was_closed_never_do() -> None:
    async def work() -> None:
        pytest.fail("began")

    queue: CompletionQueue[int, Any] = CompletionQueue()
    queue.add(work(), 0)
    await queue.aclose()
    assert others() == set()


async def test_closing_drops_results_and_reports_errors_that_nobody_took() -> None:
    error = OSError("nobody asked")
    late = OSError("in the clean-up")

    async def fail_late() -> None:
        try:
            await never()
        finally:
            raise late

    async with reported() as errors:
        queue: CompletionQueue[str, Any] = CompletionQueue()
        queue.add(turns(0, "dropped"), "value")
        queue.add(fail(error), "error")
        queue.add(fail_late(), "late")
        await turns(3)
        await queue.aclose()
        assert queue.pop_nowait() is None
        del queue
    assert errors == [error, late]


async def test_closing_drops_results_when_nothing_runs_any_more() -> None:
    queue: CompletionQueue[str, Any] = CompletionQueue()
    queue.add(turns(0, "dropped"), "value")
    await turns(3)
    await queue.aclose()
    assert not queue
    assert queue.pop_nowait() is None


async def test_closing_ends_all_waits() -> None:
    queue: CompletionQueue[str, Any] = CompletionQueue()
    queue.add(never(), "never")
    waiting = [asyncio.create_task(queue.pop()), asyncio.create_task(park(queue))]
    await turns(2)
    await queue.aclose()
    for task in waiting:
        with pytest.raises(LookupError):
            await task
    assert [key async for key, _ in queue] == []
    with pytest.raises(LookupError):
        await park(queue)


async def test_what_comes_back_after_it_was_closed_is_dropped() -> None:
    queue: CompletionQueue[str, Any] = CompletionQueue()
    waiter: TaskWaiter[Any] = TaskWaiter()
    queue.register(waiter)
    queue.add(turns(0), "key")
    await turns(3)
    assert waiter.settled
    await queue.aclose()
    queue.withdraw(waiter)
    assert not queue


async def test_a_closed_queue_refuses_tasks_and_closes_their_coroutines() -> None:
    queue: CompletionQueue[str, Any] = CompletionQueue()
    await queue.aclose()
    with pytest.raises(RuntimeError):
        queue.add(never(), "late")


async def test_several_may_close_it_and_all_wait_until_it_is_done() -> None:
    cleaned_up = False

    async def work() -> None:
        nonlocal cleaned_up
        try:
            await never()
        finally:
            await turns(8)
            cleaned_up = True

    queue: CompletionQueue[str, Any] = CompletionQueue()
    task = queue.add(work(), "work")
    await yield_now()

    async def close(turn: int) -> None:
        await turns(turn)
        await queue.aclose()
        assert task.done()

    await asyncio.gather(*(close(turn) for turn in range(5)))
    assert cleaned_up


@pytest.mark.parametrize("turn", range(1, 8))
async def test_a_cancelled_close_waits_for_the_tasks_and_is_cancelled_then(turn: int) -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await never()
        finally:
            await turns(4)
            ended.append("work")

    queue: CompletionQueue[str, Any] = CompletionQueue()
    queue.add(work(), "work")
    await yield_now()
    closing = asyncio.create_task(queue.aclose())
    await turns(turn)
    was_done = closing.done()
    closing.cancel()
    await asyncio.wait([closing])
    assert ended == ["work"]
    assert closing.cancelled() != was_done


async def test_a_task_cannot_close_the_queue_that_runs_it() -> None:
    queue: CompletionQueue[str, Any] = CompletionQueue()
    task = queue.add(queue.aclose(), "suicide")
    await queue.pop()
    with pytest.raises(RuntimeError):
        task.result()
    await queue.aclose()


async def test_leaving_the_block_by_an_error_or_a_cancellation_closes_it() -> None:
    with pytest.raises(OSError):
        async with CompletionQueue[str, Any]() as queue:
            queue.add(never(), "never")
            raise OSError("body")
    assert others() == set()

    async def body() -> None:
        async with CompletionQueue[str, Any]() as queue:
            queue.add(never(), "never")
            await queue.pop()

    task = asyncio.create_task(body())
    await turns(3)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert others() == set()


async def test_a_block_that_is_thrown_away_cancels_without_waiting() -> None:
    async def body() -> None:
        async with CompletionQueue[str, Any]() as queue:
            queue.add(never(), "never")
            await never()

    coroutine = body()
    coroutine.send(None)
    (task,) = others()
    coroutine.close()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_future_that_was_passed_in_is_not_cancelled() -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(turns(10, "task"))
    async with CompletionQueue[str, Any]() as queue:
        queue.add(future, "future")
        queue.add(task, "task")
        await turns(2)
    assert not future.done()
    assert await task == "task"

    async with CompletionQueue[str, Any]() as queue:
        queue.add(future, "future")
        queue.add(future, "again")
        await turns(2)
        future.set_result("value")
        assert [(key, task.result()) async for key, task in queue] == [("future", "value"), ("again", "value")]


@pytest.mark.parametrize("nonsense", [None, 1, never, "work"])
async def test_what_cannot_be_awaited_is_refused(nonsense: Any) -> None:
    async with CompletionQueue[str, Any]() as queue:
        with pytest.raises(TypeError):
            queue.add(nonsense, "key")
        assert not queue


def test_it_can_be_made_where_no_loop_runs_but_not_filled() -> None:
    queue: CompletionQueue[str, Any] = CompletionQueue()
    with pytest.raises(RuntimeError, match="no event loop"):
        queue.add(never(), "key")


def in_thread(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    return thread, results


async def test_a_plain_thread_may_wait_for_it() -> None:
    async with CompletionQueue[str, Any]() as queue:
        gate = asyncio.Event()
        queue.add(gate.wait(), "gate")
        thread, results = in_thread(lambda: park_thread(queue)[0])
        while not queue._waiters:
            await asyncio.sleep(0)
        gate.set()
        await asyncio.to_thread(thread.join)
        assert results == ["gate"]


async def test_a_task_of_another_loop_may_wait_for_it() -> None:
    async with CompletionQueue[str, Any]() as queue:
        gate = asyncio.Event()
        queue.add(gate.wait(), "gate")

        async def wait() -> str:
            return (await queue.pop())[0]

        thread, results = in_thread(lambda: asyncio.run(wait()))
        while not queue._waiters:
            await asyncio.sleep(0)
        gate.set()
        await asyncio.to_thread(thread.join)
        assert results == ["gate"]


async def test_a_thread_that_gives_up_while_it_is_being_served_gives_back() -> None:
    """It has been claimed, and is not settled yet: to withdraw it must wait until it is."""
    async with CompletionQueue[str, Any]() as queue:
        threads: list[threading.Thread] = []
        withdrawn = threading.Event()

        class Hesitant(TaskWaiter[Any]):
            def hand(self, value: Any) -> bool:
                claimed = self.claim()
                threads.append(in_thread(lambda: (queue.withdraw(self), withdrawn.set()))[0])
                withdrawn.wait(0.1)
                self.settle(value)
                return claimed

        queue.register(Hesitant())
        queue.add(turns(0), "key")
        await turns(3)
        await asyncio.to_thread(threads[0].join)
        assert (await queue.pop())[0] == "key"


def test_threads_and_tasks_together_take_each_task_once() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        asyncio.run(share(600, 3))
    finally:
        sys.setswitchinterval(interval)


async def share(count: int, threads: int) -> None:
    taken: list[int] = []

    def consume(queue: CompletionQueue[int, Any]) -> None:
        while True:
            try:
                taken.append(park_thread(queue)[0])
            except LookupError:
                return

    async with CompletionQueue[int, Any]() as queue:
        running = [in_thread(lambda: consume(queue))[0] for _ in range(threads)]
        for key in range(count):
            queue.add(turns(key % 3), key)
            await yield_now()
        while len(queue):
            await asyncio.sleep(0)
    for thread in running:
        await asyncio.to_thread(thread.join)
    assert sorted(taken) == list(range(count))


def run_until_closed(coroutine: Coroutine[Any, Any, Any]) -> None:
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(coroutine)
    finally:
        loop.close()


def test_a_party_of_a_closed_loop_is_skipped() -> None:
    async def main() -> None:
        async with CompletionQueue[str, Any]() as queue:

            async def park_and_leave() -> None:
                queue.register(TaskWaiter())

            await asyncio.to_thread(run_until_closed, park_and_leave())
            queue.add(turns(0), "key")
            assert (await queue.pop())[0] == "key"

    asyncio.run(main())


async def test_a_task_that_has_just_finished_is_never_out_of_sight_of_another_thread() -> None:
    """Running, or finished: whoever looks in between would take the queue for empty."""
    queue: CompletionQueue[str, int] = CompletionQueue()
    lengths: list[int] = []

    class Finished(type(queue._finished)):  # type: ignore[misc]
        def append(self, entry: Any) -> None:
            lengths.append(len(queue))
            super().append(entry)
            lengths.append(len(queue))

    queue._finished = Finished()
    async with queue:
        queue.add(asyncio.sleep(0, 1), "one")
        assert (await queue.pop())[1].result() == 1
    assert all(lengths)
    assert len(lengths) == 2


async def test_wait_ends_with_the_last_task_and_takes_nothing() -> None:
    async with CompletionQueue[int, Any]() as queue:
        await queue.wait()
        for key in range(3):
            queue.add(turns(3 - key), key)
        waiting = [asyncio.create_task(queue.wait()) for _ in range(2)]
        await turns(3)
        assert not any(task.done() for task in waiting)
        await asyncio.gather(*waiting)
        assert len(queue) == 3
        assert [key async for key, _ in queue] == [2, 1, 0]


async def test_who_waits_for_the_end_is_not_served_before_who_waits_for_a_task() -> None:
    async with CompletionQueue[int, Any]() as queue:
        queue.add(turns(5), 1)
        waiting = asyncio.create_task(queue.wait())
        await turns(2)
        popping = asyncio.create_task(queue.pop())
        assert (await popping)[0] == 1
        await waiting
        assert not queue


@pytest.mark.parametrize("turn", range(9))
async def test_a_cancelled_wait_leaves_the_tasks_alone(turn: int) -> None:
    async with CompletionQueue[int, Any]() as queue:
        task = queue.add(turns(5, "value"), 1)
        waiting = asyncio.create_task(queue.wait())
        await turns(turn)
        waiting.cancel()
        await asyncio.wait([waiting])
        await queue.wait()
        assert task.result() == "value"
        assert [entry async for entry in queue] == [(1, task)]


async def test_a_task_cannot_wait_for_the_end_of_its_queue() -> None:
    async with CompletionQueue[int, Any]() as queue:
        task = queue.add(queue.wait(), 1)
        await queue.pop()
        assert isinstance(task.exception(), RuntimeError)


def is_five(task: asyncio.Task[Any]) -> bool:
    return not task.cancelled() and task.result() == 5


@pytest.mark.parametrize("eager", [False, True])
async def test_the_decisive_task_cancels_the_others_in_its_turn(eager: bool) -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await never()
        finally:
            await turns(2)
            ended.append("work")

    async with CompletionQueue[str, Any](until=is_five) as queue:
        queue.add(work(), "work", eager=eager)
        queue.add(turns(1, 4), "four", eager=eager)
        assert queue.decisive is None
        five = queue.add(turns(0 if eager else 3, 5), "five", eager=eager)
        await queue.wait()
        assert ended == ["work"]
        assert queue.decisive is five
        keys = [key async for key, _ in queue]
        assert sorted(keys) == ["five", "four", "work"]
        assert keys[-1] == "work"
        assert queue.decisive is five
        with pytest.raises(RuntimeError, match="decided"):
            queue.add(never(), "late")


async def test_of_two_that_could_decide_the_first_one_does() -> None:
    asked: list[Any] = []

    def first(task: asyncio.Task[Any]) -> bool:
        asked.append(task.result())
        return bool(asked[-1])

    async with CompletionQueue[None, Any](until=first) as queue:
        for value in (0, 1, 2):
            queue.add(turns(1, value), None)
        await queue.wait()
        assert asked == [0, 1]
        assert queue.decisive is not None and queue.decisive.result() == 1


@pytest.mark.parametrize("until", [3, "text", ()])
def test_what_cannot_decide_is_refused_by_name(until: Any) -> None:
    with pytest.raises(TypeError, match="until must be a function"):
        CompletionQueue(until=until)


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("error", [OSError, asyncio.CancelledError])
async def test_an_error_of_who_decides_is_reported_and_the_task_handed_over_undecided(
    eager: bool, error: type[BaseException]
) -> None:
    def decide(task: asyncio.Task[Any]) -> bool:
        if task.result() == "bad":
            raise error
        return True

    async with reported() as errors, CompletionQueue[str, Any](until=decide) as queue:
        popping = asyncio.create_task(queue.pop())
        other = queue.add(never(), "other")
        await yield_now()
        queue.add(turns(0 if eager else 3, "bad"), "bad", eager=eager)
        assert (await asyncio.wait_for(popping, 10))[0] == "bad"
        assert [type(one) for one in errors] == [error]
        assert queue.decisive is None
        queue.add(turns(1, "good"), "good")
        assert (await queue.pop())[0] == "good"
        assert queue.decisive is not None
        await asyncio.wait([other])
        assert other.cancelled()


async def test_closing_does_not_ask_those_again_whom_the_decision_has_cancelled() -> None:
    cleaned: list[str] = []

    async def work() -> None:
        try:
            await never()
        finally:
            await turns(4)
            cleaned.append("up")

    async with CompletionQueue[None, Any](until=lambda _: True) as queue:
        queue.add(work(), None)
        queue.add(turns(1), None)
        await queue.pop()
    assert cleaned == ["up"]


async def test_a_party_that_a_finalizer_withdraws_while_the_others_are_told_of_the_end_hurts_nobody() -> None:
    class Reentrant(TaskWaiter[Any]):
        __slots__ = ()

        def claim(self) -> bool:
            second.claim()
            wait.withdraw(second)  # as the garbage collector may do at any moment
            return super().claim()

    async with CompletionQueue[int, Any]() as queue:
        queue.add(never(), 1)
        wait = queue.until_empty()
        first, second, third = Reentrant(), TaskWaiter[Any](), TaskWaiter[Any]()
        for waiter in (first, second, third):
            wait.register(waiter)
        await queue.aclose()
        assert isinstance(first.error, LookupError)
        assert second.error is None
        assert isinstance(third.error, LookupError)
        assert not queue._waiters


async def test_another_loop_may_wait_for_the_end() -> None:
    go_on = threading.Event()

    async def wait() -> int:
        go_on.set()
        await queue.wait()
        return len(queue)

    async with CompletionQueue[int, Any]() as queue:
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.add(gate, 1)
        thread = asyncio.get_running_loop().run_in_executor(None, asyncio.run, wait())
        await asyncio.to_thread(go_on.wait, 10)
        gate.set_result(None)
        assert await asyncio.wait_for(thread, 10) == 1


async def test_a_task_cannot_close_or_wait_for_its_queue_in_its_first_step_either() -> None:
    async def own_end(wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with pytest.raises(RuntimeError, match="the queue that runs it"):
            await wait()

    async with CompletionQueue[str, Any]() as queue:
        queue.add(turns(3), "other")
        queue.add(own_end(queue.aclose), "close", eager=True).result()
        queue.add(own_end(queue.wait), "wait", eager=True).result()


async def test_a_task_whose_first_step_has_the_queue_closed_is_cancelled_like_the_others() -> None:
    async def have_it_closed() -> None:
        queue._shut()  # what another does who closes it
        await never()

    queue = CompletionQueue[str, Any]()
    task = queue.add(have_it_closed(), "first", eager=True)
    await queue.aclose()
    assert task.cancelled()
    assert len(queue) == 0


async def test_a_task_whose_first_step_ends_after_the_queue_was_closed_is_dropped() -> None:
    async def shut() -> None:
        queue._shut()

    queue = CompletionQueue[str, Any]()
    assert queue.add(shut(), "first", eager=True).done()
    assert len(queue) == 0


async def test_a_decision_in_the_first_step_of_another_cancels_that_one_too() -> None:
    async def begin_another() -> None:
        queue.add(turns(0, "decides"), "inner", eager=True)
        await never()

    queue = CompletionQueue[str, Any](until=lambda task: True)
    outer = queue.add(begin_another(), "outer", eager=True)
    assert queue.decisive is not None
    await queue.wait()
    assert outer.cancelled()
