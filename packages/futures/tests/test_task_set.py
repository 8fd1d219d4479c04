"""Task sets, and `select` over one."""

import asyncio
import gc
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from yamanote.futures import TaskSet, failed_branch, select, task_set
from yamanote.runtime import BUDGET, JoinError, yield_now


async def turns(count: int, value: Any = None) -> Any:
    """Finish after so many loop turns."""
    for _ in range(count):
        await yield_now()
    return value


async def never() -> None:
    await asyncio.get_running_loop().create_future()


async def fail(error: BaseException, count: int = 0) -> None:
    await turns(count)
    raise error


@pytest.fixture(autouse=True)
def nothing_is_left_over() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
        gc.collect()


def others() -> set[asyncio.Task[Any]]:
    current = asyncio.current_task()
    return {task for task in asyncio.all_tasks() if task is not current}


async def test_the_first_that_finishes_is_taken_first_with_its_name() -> None:
    async with task_set(slow=turns(3, 3), fast=turns(1, 1), middle=turns(2, 2)) as tasks:
        seen = []
        while tasks:
            match await select(tasks):
                case "fast", value:
                    seen.append(("fast", value))
                case name, value:
                    seen.append((name, value))
        assert seen == [("fast", 1), ("middle", 2), ("slow", 3)]


async def test_tasks_start_at_once_and_go_on_between_two_selects() -> None:
    progress: list[int] = []

    async def work() -> None:
        for number in range(5):
            progress.append(number)
            await yield_now()

    async with task_set(work=work()) as tasks:
        await turns(8)
        assert progress == [0, 1, 2, 3, 4]
        assert await select(tasks) == ("work", None)


async def test_a_name_can_be_used_again_as_soon_as_its_task_has_been_taken() -> None:
    async with task_set(a=turns(1, 0)) as tasks:
        for round_number in range(5):
            assert await select(tasks) == ("a", round_number)
            tasks.spawn("a", turns(1, round_number + 1))
        tasks.update("b", turns(0, "kioto"))
        assert tasks.names == ("a", "b")
        assert "b" in tasks
        assert list(tasks) == ["a", "b"]
        assert len(tasks) == 2


@pytest.mark.parametrize("finished", [False, True])
async def test_a_name_that_is_taken_is_refused_and_the_coroutine_closed(finished: bool) -> None:
    async with task_set(a=turns(0)) as tasks:
        if finished:
            await turns(3)
        with pytest.raises(ValueError, match="'a'"):
            tasks.spawn("a", turns(0))
        with pytest.raises(ValueError, match="'a'"):
            task_set({"a": never()}, a=never())
        await turns(2)
        assert tasks.names == ("a",)


async def test_names_that_are_no_identifiers_go_into_a_mapping() -> None:
    async with task_set({"a b": turns(1, 1), "self": turns(2, 2)}, c=turns(3, 3)) as tasks:
        assert [await select(tasks) for _ in range(3)] == [("a b", 1), ("self", 2), ("c", 3)]


async def test_tasks_are_named_after_their_branch() -> None:
    async def name_of_task() -> str:
        task = asyncio.current_task()
        assert task is not None
        return task.get_name()

    async with task_set(alice=name_of_task()) as tasks:
        assert await select(tasks) == ("alice", "alice")


@pytest.mark.parametrize("value", [None, 0, "", ValueError("a value"), asyncio.CancelledError("a value")])
async def test_every_value_is_a_value(value: Any) -> None:
    async with task_set(task=turns(1, value)) as tasks:
        assert await select(tasks) == ("task", value)


async def test_the_error_of_a_task_is_raised_once_and_its_name_is_known() -> None:
    error = OSError("no answer")
    async with task_set(good=turns(5, "value"), bad=fail(error)) as tasks:
        with pytest.raises(OSError) as caught:
            await select(tasks)
        assert caught.value is error
        assert failed_branch(error) == ("bad",)
        assert "'bad'" in error.__notes__[0]
        assert await select(tasks) == ("good", "value")
        assert not tasks


async def test_an_error_that_refuses_attributes_is_marked_all_the_same() -> None:
    class Frozen(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    async with task_set(bad=fail(Frozen())) as tasks:
        with pytest.raises(Frozen) as caught:
            await select(tasks)
        assert failed_branch(caught.value) == ("bad",)


async def test_an_error_that_makes_up_attributes_is_raised_and_marked_all_the_same() -> None:
    class Answers(Exception):
        def __getattr__(self, name: str) -> None:
            return None

    assert failed_branch(Answers()) == ()
    async with task_set(bad=fail(Answers())) as tasks:
        with pytest.raises(Answers) as caught:
            await select(tasks)
        assert failed_branch(caught.value) == ("bad",)


async def test_an_error_raised_twice_is_marked_with_its_latest_branch_only() -> None:
    error = OSError("shared")
    async with task_set(first=fail(error, 1), second=fail(error, 2)) as tasks:
        for name in ("first", "second"):
            with pytest.raises(OSError):
                await select(tasks)
            assert failed_branch(error) == (name,)
        assert len(error.__notes__) == 1


def test_an_error_of_nobody_has_no_branch() -> None:
    assert failed_branch(OSError()) == ()


@pytest.mark.parametrize("by", ["name", "all", "itself"])
async def test_a_cancelled_task_is_an_error_of_its_name_and_cancels_nobody(by: str) -> None:
    async def cancel_itself() -> None:
        raise asyncio.CancelledError

    async with task_set(task=cancel_itself() if by == "itself" else never()) as tasks:
        await yield_now()
        if by == "name":
            tasks.cancel("task")
        elif by == "all":
            tasks.cancel_all()
        with pytest.raises(JoinError) as caught:
            await select(tasks)
        assert caught.value.name == "task"
        assert failed_branch(caught.value) == ("task",)
        assert not tasks
        current = asyncio.current_task()
        assert current is not None
        assert current.cancelling() == 0


async def test_cancelling_a_name_that_is_not_there_is_an_error() -> None:
    async with task_set() as tasks:
        with pytest.raises(KeyError):
            tasks.cancel("nobody")


@pytest.mark.parametrize("turn", range(9))
async def test_a_cancelled_select_takes_nothing_and_stops_no_task(turn: int) -> None:
    async with task_set(a=turns(3, 1), b=turns(3, 2)) as tasks:
        seen: list[Any] = []

        async def take() -> None:
            while tasks:
                seen.append(await select(tasks))

        task = asyncio.create_task(take())
        await turns(turn)
        task.cancel()
        await asyncio.wait([task])
        while tasks:
            seen.append(await select(tasks))
        assert seen == [("a", 1), ("b", 2)]


async def test_an_empty_set_cannot_be_waited_for() -> None:
    with pytest.raises(ValueError, match="empty"):
        await select(task_set())
    tasks = task_set(a=turns(0))
    await select(tasks)
    with pytest.raises(ValueError, match="empty"):
        await select(tasks)


async def test_a_timeout_leaves_the_tasks_alone() -> None:
    gate = asyncio.Event()
    async with task_set(task=gate.wait()) as tasks:
        for timeout in (0, -1, 0.001):
            with pytest.raises(TimeoutError):
                await select(tasks, timeout=timeout)
        gate.set()
        assert await select(tasks, timeout=60) == ("task", True)
        with pytest.raises((TypeError, ValueError), match="timeout"):
            await select(tasks, timeout=float("nan"))


async def test_ready_tasks_take_no_turn_up_to_the_budget() -> None:
    async with task_set({str(number): turns(0) for number in range(BUDGET * 3)}) as tasks:
        await turns(3)
        await select(tasks, timeout=1)
        taken = 0
        noted: list[int] = []
        asyncio.get_running_loop().call_soon(lambda: noted.append(taken))
        while tasks:
            await select(tasks)
            taken += 1
        assert len(noted) == 1
        assert noted[0] <= BUDGET


async def test_the_block_cancels_and_awaits_what_still_runs() -> None:
    ended: list[str] = []

    async def work(name: str) -> None:
        try:
            await never()
        finally:
            await turns(3)
            ended.append(name)

    async with task_set(a=work("a"), b=work("b"), c=turns(0)) as tasks:
        assert await select(tasks) == ("c", None)
    assert ended == ["a", "b"]
    assert others() == set()
    assert not tasks
    assert tasks.names == ()
    with pytest.raises(RuntimeError):
        tasks.spawn("d", never())
    await tasks.aclose()


async def test_a_set_that_is_dropped_cancels_its_tasks_and_warns() -> None:
    tasks = task_set(task=never())
    await yield_now()
    (task,) = others()
    with pytest.warns(ResourceWarning, match="task"):
        del tasks
        gc.collect()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_set_that_is_dropped_when_it_is_done_does_not_warn() -> None:
    tasks = task_set(task=turns(0))
    await select(tasks)
    del tasks
    gc.collect()


def test_a_set_that_is_dropped_after_its_loop_is_closed_does_nothing() -> None:
    async def main() -> TaskSet[Any]:
        return task_set(task=never())

    tasks = asyncio.run(main())
    del tasks
    gc.collect()


def test_a_set_that_is_dropped_with_a_loop_that_died_before_it_only_warns() -> None:
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # asyncio complains about the task too

    async def main() -> TaskSet[Any]:
        tasks = task_set(task=never())
        await yield_now()
        return tasks

    tasks = loop.run_until_complete(main())
    loop.close()
    with pytest.warns(ResourceWarning):
        del tasks
        gc.collect()


async def test_a_set_closed_while_a_select_holds_its_task_frees_the_name() -> None:
    tasks = task_set(task=turns(1, "value"))
    waiting = asyncio.create_task(select(tasks))
    while "0 running, 0 finished" not in repr(tasks._queue):
        await yield_now()
    await tasks.aclose()
    assert await waiting == ("task", "value")


async def test_a_future_that_was_passed_in_is_only_observed() -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with task_set(future=future) as tasks:
        tasks.cancel("future")
        with pytest.raises(JoinError):
            await select(tasks)
    assert not future.cancelled()


async def test_nonsense_is_refused_and_nothing_begins() -> None:
    async def begin() -> None:
        pytest.fail("began")

    with pytest.raises(TypeError):
        task_set(a=begin(), b=1, c=begin())  # type: ignore[arg-type]
    await turns(3)
    assert others() == set()
    async with task_set(a=never()) as tasks:
        with pytest.raises(TypeError, match="name"):
            await select(tasks, b=turns(0))  # type: ignore[call-overload]


def test_without_a_loop_nothing_begins() -> None:
    with pytest.raises(RuntimeError, match="no event loop"):
        task_set(a=never(), b=never())


def calls(count: int) -> int:
    total = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal total
        total += event in ("call", "c_call")

    async def main() -> None:
        async with task_set({str(number): turns(number % 3) for number in range(count)}) as tasks:
            sys.setprofile(profile)
            while tasks:
                await select(tasks)
            sys.setprofile(None)

    asyncio.run(main())
    return total


def test_draining_ten_times_the_tasks_is_ten_times_the_work() -> None:
    assert calls(10_000) < 11 * calls(1_000)


async def test_it_shows_its_names() -> None:
    async with task_set(a=never(), b=never()) as tasks:
        assert repr(tasks) == "<TaskSet a, b>"


async def test_of_two_who_select_from_one_set_the_one_who_is_left_with_nothing_learns_it() -> None:
    go_on = asyncio.Event()

    async def work() -> str:
        await go_on.wait()
        return "done"

    async with task_set(work=work()) as tasks:
        workers = [asyncio.create_task(select(tasks)) for _ in range(2)]
        for _ in range(5):
            await asyncio.sleep(0)
        go_on.set()
        first, second = await asyncio.wait_for(asyncio.gather(*workers, return_exceptions=True), 5)
        assert first == ("work", "done")
        assert isinstance(second, ValueError)


async def test_iterating_takes_all_with_their_names_and_what_is_spawned_meanwhile() -> None:
    seen = []
    async with task_set(slow=turns(3, 3), fast=turns(1, 1)) as tasks:
        async for name, value in tasks:
            seen.append((name, value))
            if name == "fast":
                tasks.spawn("fast", turns(4, 4)) if value == 1 else None
    assert seen == [("fast", 1), ("slow", 3), ("fast", 4)]
    assert not tasks


async def test_an_error_does_not_end_the_set_and_its_name_is_known() -> None:
    async with task_set(bad=fail(OSError(), 1), good=turns(3, "value")) as tasks:
        with pytest.raises(OSError) as caught:
            async for _ in tasks:
                pass
        assert failed_branch(caught.value) == ("bad",)
        assert [pair async for pair in tasks] == [("good", "value")]


async def test_a_cancelled_task_is_a_join_error_of_the_iteration() -> None:
    async with task_set(task=never()) as tasks:
        tasks.cancel("task")
        with pytest.raises(JoinError):
            await anext(tasks)


@pytest.mark.parametrize("turn", range(6))
async def test_a_cancelled_iteration_takes_nothing(turn: int) -> None:
    seen: list[Any] = []
    async with task_set(a=turns(2, 1), b=turns(3, 2)) as tasks:

        async def take() -> None:
            async for name, _ in tasks:
                seen.append(name)

        task = asyncio.create_task(take())
        await turns(turn)
        task.cancel()
        await asyncio.wait([task])
        await take()
    assert seen == ["a", "b"]


async def test_a_set_whose_tasks_have_finished_is_dropped_silently_but_for_their_errors() -> None:
    errors: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    tasks = task_set(bad=fail(OSError("no answer")), good=turns(0))
    await turns(3)
    del tasks
    gc.collect()
    loop.set_exception_handler(None)
    assert [str(error) for error in errors] == ["no answer"]


async def test_tasks_run_at_once_up_to_their_first_wait() -> None:
    began = []

    async def work(name: str) -> None:
        began.append((name, asyncio.current_task()))
        await turns(1)

    async with task_set(a=work("a"), b=work("b")) as tasks:
        tasks.spawn("c", work("c"))
        assert [name for name, _ in began] == ["a", "b", "c"]
        assert len({task for _, task in began} | {asyncio.current_task()}) == 4


async def test_a_name_belongs_to_its_task_from_the_first_step_on() -> None:
    async def spawn_again() -> None:
        tasks.spawn("a", turns(0))

    async with task_set() as tasks:
        tasks.spawn("a", spawn_again())
        assert tasks.names == ("a",)
        with pytest.raises(ValueError, match="there is a task named 'a' already"):
            await select(tasks)
        assert tasks.names == ()


async def test_a_name_is_free_when_its_task_was_refused() -> None:
    async with task_set() as tasks:
        with pytest.raises(TypeError):
            tasks.spawn("a", 1)  # type: ignore[arg-type]
        assert "a" not in tasks


async def test_a_coroutine_under_a_name_that_is_none_is_refused_and_closed() -> None:
    async with task_set() as tasks:
        with pytest.raises(TypeError, match=r"name must be a string, not \[\]"):
            tasks.spawn([], never())  # type: ignore[arg-type]


@pytest.mark.parametrize("several", [list, tuple, next], ids=["list", "tuple", "coroutine"])
async def test_coroutines_without_a_name_are_refused_and_closed(several: Any) -> None:
    with pytest.raises(TypeError, match="a task needs a name"):
        task_set(several(iter([never()])), other=never())
    with pytest.raises(TypeError, match="a branch needs a name"):
        select(several(iter([never()])), other=never())  # type: ignore[call-overload]


async def test_a_closed_set_says_that_it_is_one() -> None:
    async with task_set() as tasks:
        pass
    with pytest.raises(RuntimeError, match="this task set has been closed"):
        tasks.spawn("late", never())


async def test_a_task_cannot_close_its_set_in_its_first_step() -> None:
    async def close() -> None:
        await tasks.aclose()

    async with task_set(other=never()) as tasks:
        tasks.spawn("close", close())
        with pytest.raises(RuntimeError, match="cannot close"):
            await select(tasks)


async def test_cancelling_a_task_that_has_ended_with_its_first_step_changes_nothing() -> None:
    async with task_set(a=turns(0, 1)) as tasks:
        tasks.cancel("a")
        assert await select(tasks) == ("a", 1)


async def test_when_a_first_step_stops_the_program_the_others_are_cancelled_or_closed() -> None:
    ended: list[str] = []

    async def begin() -> None:
        try:
            await never()
        finally:
            ended.append("cancelled")

    async def stop() -> None:
        raise SystemExit

    async def unbegun() -> None:
        pytest.fail("began")

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: None)  # asyncio tells of the error that it has raised as well
    with pytest.warns(ResourceWarning):
        try:
            task_set(a=begin(), b=stop(), c=unbegun())
        except SystemExit:
            ended.append("stopped")
        gc.collect()
    await turns(3)
    assert ended == ["stopped", "cancelled"]
    loop.set_exception_handler(None)
