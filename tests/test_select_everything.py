"""Select over everything: what is promised of a branch holds for each kind of branch that there is."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from yamanote.channels import Lagged
from yamanote.futures import blocking_select, failed_branch, select, task_set
from yamanote.runtime import is_thread_parked, spawn_blocking, yield_now
from yamanote.sync import Button, Event

from .test_select_kinds import KINDS, Case, Kind, nothing, turns

pytestmark = pytest.mark.asyncio(loop_scope="module")


def each(which: Callable[[Kind], bool]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if which(kind)])


async def started(coroutine: Any) -> asyncio.Task[Any]:
    """The task that runs it, which has come to its first wait."""
    task = asyncio.ensure_future(coroutine)
    await turns()
    return task


async def stopped(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def assert_there_once(name: str, case: Case) -> None:
    """What was provided is there for who asks for it outside of a select, and does not wait; and only once."""
    if KINDS[name].ends:
        await case.wait()  # it has ended, already now
        return
    await case.settled()
    taken: list[Any] = []
    leave = Event()

    async def take() -> None:
        value = await case.wait()
        assert case.gives(value)
        taken.append(value)
        await leave.wait()
        case.release(value)

    takers = [await started(take()), await started(take())]
    assert len(taken) == (2 if KINDS[name].stays else 1)
    leave.set()
    await turns()
    for taker in takers:
        await stopped(taker)


@each(lambda kind: not kind.fades and not kind.ends)
async def test_a_branch_that_is_ready_is_taken_without_a_turn_and_once(name: str) -> None:
    async with KINDS[name].case() as case:
        case.provide()
        await case.settled()
        taken, value = await select(branch=case.branch(), timeout=0)
        assert taken == "branch"
        assert case.gives(value)
        other = await started(case.select(never=Event()))
        assert (other.done() and other.exception() is None) == KINDS[name].stays
        await stopped(other)
        case.release(value)


@each(lambda kind: True)
async def test_a_branch_that_becomes_ready_later_is_taken_then_and_costs_no_task(name: str) -> None:
    async with KINDS[name].case() as case:
        tasks = len(asyncio.all_tasks())
        selecting = await started(case.select(never=Event()))
        assert len(asyncio.all_tasks()) == tasks + (2 if KINDS[name].ends else 1)
        assert not selecting.done()
        case.provide()
        assert await selecting == "branch"


@each(lambda kind: True)
async def test_a_branch_that_loses_has_taken_nothing(name: str) -> None:
    async with KINDS[name].case() as case:
        stop = Event()
        selecting = await started(case.select(stop=stop))
        stop.set()
        case.provide()  # in the same turn, but second
        assert await selecting == "stop"
        if not KINDS[name].fades:
            await assert_there_once(name, case)


@each(lambda kind: not kind.fades and not kind.ends)
async def test_a_branch_that_was_ready_and_not_chosen_has_taken_nothing(name: str) -> None:
    async with KINDS[name].case() as case:
        stop = Event()
        stop.set()
        case.provide()
        await case.settled()
        assert await select(stop=stop, branch=case.branch(), biased=True) == ("stop", True)
        await assert_there_once(name, case)


@each(lambda kind: not kind.ends)
async def test_of_two_that_become_ready_in_one_turn_one_commits_and_the_other_is_still_there(name: str) -> None:
    for other, kind in KINDS.items():
        if kind.ends:
            continue
        async with KINDS[name].case() as first, kind.case() as second:

            async def one_of_both(first: Case = first, second: Case = second) -> str:
                winner, value = await select(first=first.branch(), second=second.branch())
                case = first if winner == "first" else second
                assert case.gives(value)
                case.release(value)
                return winner

            selecting = await started(one_of_both())
            first.provide()
            second.provide()
            winner = await selecting
            if not KINDS[name].later:
                assert winner == "first"
            loser, left = (other, second) if winner == "first" else (name, first)
            if not KINDS[loser].fades:
                await assert_there_once(loser, left)


@each(lambda kind: not kind.ends)
async def test_a_select_that_is_cancelled_in_the_turn_of_the_commit_gives_back(name: str) -> None:
    await assert_cancelled_waits_give_back(name, lambda case: case.select(never=Event()))


@each(lambda kind: not kind.ends)
async def test_its_own_wait_that_is_cancelled_in_the_turn_of_the_commit_gives_back_as_well(name: str) -> None:
    if name not in ("task", "future", "call_in_a_thread"):  # to cancel who awaits them cancels them
        await assert_cancelled_waits_give_back(name, Case.wait)


async def assert_cancelled_waits_give_back(name: str, wait: Callable[[Case], Awaitable[Any]]) -> None:
    for turn in range(5 if KINDS[name].later else 1):  # in one of them it is committed
        async with KINDS[name].case() as case:
            waiting = await started(wait(case))
            case.provide()
            await turns(turn)
            if waiting.done():
                await waiting
                continue
            await stopped(waiting)
            await assert_given_back(name, case)


async def assert_given_back(name: str, case: Case) -> None:
    if KINDS[name].final:
        case.release(None)  # it holds all the same
        case.provide()
    if not KINDS[name].fades:
        await assert_there_once(name, case)


@each(lambda kind: not kind.later)
async def test_a_select_that_is_thrown_away_gives_back(name: str) -> None:
    async with KINDS[name].case() as case:
        selecting = case.select(never=Event())
        selecting.send(None)
        case.provide()
        selecting.close()
        await assert_given_back(name, case)


@each(lambda kind: not kind.alone and not kind.ends)
async def test_the_same_thing_in_two_branches_is_taken_by_one(name: str) -> None:
    async with KINDS[name].case() as case:
        selecting = await started(case.select(again=case.branch()))
        case.provide()
        assert await selecting == "branch"


@each(lambda kind: kind.anywhere)
async def test_a_branch_is_served_from_another_thread(name: str) -> None:
    async with KINDS[name].case() as case:
        selecting = await started(case.select(never=Event()))
        thread = threading.Thread(target=case.provide)
        thread.start()
        assert await selecting == "branch"
        thread.join()


@each(lambda kind: kind.anywhere or kind.elsewhere)
async def test_a_branch_is_waited_for_on_another_loop(name: str) -> None:
    async with KINDS[name].case() as case:
        parked = threading.Event()

        async def elsewhere() -> str:
            selecting = await started(case.select(never=Event()))
            parked.set()
            return str(await selecting)

        selecting = spawn_blocking(asyncio.run, elsewhere())
        await spawn_blocking(parked.wait)
        case.provide()
        assert await selecting == "branch"


@each(lambda kind: kind.anywhere or kind.elsewhere)
async def test_a_branch_is_waited_for_in_a_plain_thread(name: str) -> None:
    if name in ("task", "future", "rate_limiter", "several_permits_of_a_rate_limiter"):  # only for tasks
        return
    async with KINDS[name].case() as case:
        threads: list[int] = []

        def wait() -> None:
            threads.append(threading.get_ident())
            assert case.has_taken(*blocking_select({"branch": case.branch()}, never=Event(), biased=True))

        waiting = spawn_blocking(wait)
        while not threads or not is_thread_parked(threads[0]):
            await yield_now()
        case.provide()
        await waiting


@each(lambda kind: not kind.ends)
async def test_rounds_that_lose_pile_up_nothing(name: str) -> None:
    async with KINDS[name].case() as case:
        stop, refresh = Event(), Button()
        stop.set()

        async def rounds(count: int) -> None:
            for _ in range(count):
                assert await select(branch=case.branch(), stop=stop, biased=True) == ("stop", True)
            for _ in range(count // 10):  # and some that wait
                asyncio.get_running_loop().call_soon(refresh.press)
                assert await select(branch=case.branch(), refresh=refresh) == ("refresh", None)

        await rounds(200)
        await turns()
        gc.collect()
        before = len(gc.get_objects())
        await rounds(1000)
        await turns()
        gc.collect()
        assert len(gc.get_objects()) - before < 300
        case.provide()
        await case.settled()
        if not KINDS[name].fades:
            await assert_there_once(name, case)


@each(lambda kind: not kind.ends)
async def test_what_comes_between_two_rounds_is_there_for_the_second_unless_it_fades(name: str) -> None:
    async with KINDS[name].case() as case:
        refresh = Button()
        selecting = await started(case.select(refresh=refresh))
        refresh.press()
        assert await selecting == "refresh"
        case.provide()
        await case.settled()
        if KINDS[name].fades:
            with pytest.raises(TimeoutError):
                await select(branch=case.branch(), timeout=0)
        else:
            assert await case.select() == "branch"


@each(lambda kind: kind.queues)
async def test_a_branch_stands_in_the_queue_for_one_round(name: str) -> None:
    async with KINDS[name].case() as case:
        selecting = await started(case.select(never=Event()))
        rival = await started(case.select(never=Event()))
        case.provide()
        assert await selecting == "branch"
        await stopped(rival)

    async with KINDS[name].case() as case:
        refresh = Button()
        selecting = await started(case.select(refresh=refresh))
        refresh.press()
        assert await selecting == "refresh"
        rival = await started(case.select(never=Event()))
        selecting = await started(case.select(refresh=refresh))
        case.provide()
        assert await rival == "branch"
        await stopped(selecting)


@each(lambda kind: kind.queues)
async def test_a_task_set_keeps_the_place_in_the_queue_from_round_to_round(name: str) -> None:
    refresh = Button()
    async with KINDS[name].case() as case, task_set(turn=case.select(never=Event())) as tasks:
        selecting = await started(select(tasks=tasks, refresh=refresh))
        refresh.press()
        assert await selecting == ("refresh", None)
        rival = await started(case.select(never=Event()))
        case.provide()
        assert await select(tasks=tasks, refresh=refresh) == ("tasks", ("turn", "branch"))
        await stopped(rival)


@each(lambda kind: True)
async def test_a_branch_that_fails_raises_its_error_with_its_name(name: str) -> None:
    async with KINDS[name].case() as case:
        if case.fail is nothing:
            return
        case.fail()
        await case.settled()
        with pytest.raises(case.error) as caught:
            await case.select(never=Event())
        assert failed_branch(caught.value) == case.path
        assert caught.value.__notes__ == [f"raised by the branch {' / '.join(map(repr, case.path))} of a select"]


@each(lambda kind: True)
async def test_a_branch_that_fails_while_it_is_waited_for_raises_its_error(name: str) -> None:
    async with KINDS[name].case() as case:
        if case.fail is nothing or case.error is Lagged:  # who waits does not lag behind
            return
        selecting = await started(case.select(never=Event()))
        case.fail()
        with pytest.raises(case.error) as caught:
            await selecting
        assert failed_branch(caught.value) == case.path
