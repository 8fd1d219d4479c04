"""Shared: one run, one outcome for everybody, and an end when nobody wants it any more."""

from __future__ import annotations

import asyncio
import gc
import threading
import traceback
import weakref
from asyncio import CancelledError
from contextvars import ContextVar
from typing import Any

import pytest

from yamanote.futures import Shared, gather, lazy, pending, race, select, shared
from yamanote.runtime import (
    BUDGET,
    JoinError,
    ThreadWaiter,
    current_token,
    move_on_after,
    park_thread,
    spawn,
    spawn_blocking,
    start_task,
    yield_now,
)


class Work:
    """A coroutine function that ends when it is let go, and cleans up in two turns."""

    def __init__(self, outcome: Any = None) -> None:
        self.go = asyncio.Event()
        self.outcome = outcome
        self.begun = self.cleaned = 0

    async def __call__(self) -> Any:
        self.begun += 1
        try:
            await self.go.wait()
        except CancelledError:
            await turns(2)
            self.cleaned += 1
            raise
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


async def turns(count: int) -> None:
    for _ in range(count):
        await yield_now()


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


# ---------------------------------------------------------------- one run, one outcome


async def test_it_runs_once_for_all_who_await_it() -> None:
    work = Work("page")
    page = shared(work())
    tasks = [start_task(page) for _ in range(3)]
    await turns(3)
    assert work.begun == 1 and "running, 3 waiting" in repr(page)
    work.go.set()
    assert [await task for task in tasks] == ["page"] * 3
    assert await page == "page" and "finished" in repr(page)


async def test_it_begins_when_it_is_awaited_and_not_before() -> None:
    work = Work()
    page = shared(work())
    await turns(3)
    assert not work.begun and "not begun" in repr(page)
    work.go.set()
    await page
    assert work.begun == 1


def test_it_can_be_made_without_a_loop() -> None:
    async def one() -> int:
        return 1

    page = shared(one())

    async def main() -> int:
        return await page

    assert asyncio.run(main()) == 1


@pytest.mark.parametrize("value", [None, 0, "", False, ValueError("a value"), CancelledError("a value")], ids=repr)
async def test_any_result_is_an_ordinary_result_for_the_first_and_for_later_ones(value: object) -> None:
    async def give() -> object:
        await yield_now()
        return value

    page = shared(give())
    tasks = [start_task(page) for _ in range(2)]
    assert [await task for task in tasks] == [value] * 2
    assert await page is value


@pytest.mark.parametrize("before", [True, False], ids=["while it runs", "when it has ended"])
async def test_everybody_gets_the_very_error_and_its_traceback_does_not_grow(before: bool) -> None:
    work = Work(OSError("no answer"))
    page = shared(work())
    depths = []

    async def ask() -> None:
        try:
            await page
        except OSError as error:
            assert error is work.outcome
            depths.append(len(traceback.extract_tb(error.__traceback__)))

    if before:
        tasks = [start_task(ask()) for _ in range(5)]
        await turns(3)
        work.go.set()
        await asyncio.wait(tasks)
    else:
        work.go.set()
        await ask()
        depths.clear()
        for _ in range(5):
            await ask()
    # Asyncio shows the origin to the first only.
    assert len(depths) == 5 and max(depths) == depths[0] and len(set(depths[1:])) == 1


async def test_an_error_that_nobody_takes_is_reported_once() -> None:
    reports: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context["exception"]))
    for taken in (True, False):
        page = shared(fail(), keep=True)
        with move_on_after(0):
            await page
        await turns(3)
        if taken:
            with pytest.raises(LookupError):
                await page
        del page
        gc.collect()
        assert [type(error) for error in reports] == ([] if taken else [LookupError])


async def fail() -> None:
    await yield_now()
    raise LookupError


async def test_its_end_is_looked_at_without_a_turn_and_yields_once_in_a_budget() -> None:
    work = Work()
    work.go.set()
    page = shared(work())
    await page
    ticks = 0

    async def count() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await yield_now()

    counting = start_task(count())
    for _ in range(BUDGET):
        await page
    assert ticks == 0
    for _ in range(3 * BUDGET):
        await page
    assert ticks == 3
    counting.cancel()


async def test_a_run_that_failed_leaves_no_reference_cycle() -> None:
    async def ask() -> None:
        page = shared(fail())
        try:
            await page
        except LookupError:
            pass
        try:
            await page
        except LookupError:
            pass
        gone.append(weakref.ref(page))
        del page  # this frame is in the traceback of the error

    gone: list[weakref.ref[Any]] = []
    gc.collect()
    gc.disable()
    try:
        await ask()
        await turns(2)
        assert gone[0]() is None
    finally:
        gc.enable()


async def test_it_runs_in_a_copy_of_the_context_of_who_began_it() -> None:
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")

    async def who() -> str:
        before = tenant.get()
        tenant.set("the run")
        return before

    tenant.set("me")
    assert await shared(who()) == "me" and tenant.get() == "me"


# ---------------------------------------------------------------- cancelling


async def test_cancelling_the_first_who_awaits_leaves_it_to_the_others() -> None:
    work = Work("page")
    page = shared(work())
    first, second = start_task(page), start_task(page)
    await turns(3)
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled() and not second.done() and not work.cleaned
    work.go.set()
    assert await second == "page"


async def test_with_the_last_who_awaits_it_is_cancelled_and_has_ended_when_that_is_raised() -> None:
    work = Work()
    page = shared(work())
    tasks = [start_task(page) for _ in range(3)]
    await turns(3)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks[:2])
    assert not work.cleaned
    await asyncio.wait(tasks)
    assert work.cleaned == 1 and not others()
    assert all(task.cancelled() and task.cancelling() == 1 for task in tasks)
    with pytest.raises(JoinError, match="nobody waited for it any more"):
        await page


async def test_who_comes_while_an_abandoned_run_ends_does_not_cancel_it_once_more() -> None:
    requests: list[int] = []

    async def run() -> None:
        try:
            await pending()
        finally:
            await turns(4)
            requests.append(asyncio.current_task().cancelling())  # type: ignore[union-attr]

    page = shared(run())
    first = start_task(page)
    await turns(2)
    first.cancel()
    await turns(1)
    late = start_task(page)
    await turns(1)
    late.cancel()
    await asyncio.wait([first, late])
    await turns(5)
    assert requests == [1]


async def test_what_is_kept_goes_on_without_anybody() -> None:
    work = Work("page")
    page = shared(work(), keep=True)
    with move_on_after(0) as scope:
        await page
    await turns(3)
    assert scope.cancelled_caught and not work.cleaned
    gc.collect()
    work.go.set()
    assert await page == "page"


async def test_what_is_kept_needs_no_reference() -> None:
    done: list[int] = []

    async def run() -> None:
        await turns(3)
        done.append(1)

    page = shared(run(), keep=True)
    with move_on_after(0):
        await page
    del page
    gc.collect()
    await turns(5)
    assert done


async def test_a_run_that_somebody_else_cancels_is_a_join_error_for_who_awaits_it() -> None:
    async def run() -> None:
        asyncio.current_task().cancel("by hand")  # type: ignore[union-attr]
        await pending()

    page = shared(run())
    tasks = [start_task(page) for _ in range(2)]
    for task in tasks:
        with pytest.raises(JoinError, match="run was cancelled: by hand"):
            await task
        assert task.cancelling() == 0
    with pytest.raises(JoinError, match="by hand"):
        await page
    assert "cancelled" in repr(page)


async def test_a_value_that_comes_with_the_cancellation_is_kept_for_who_asks_later() -> None:
    async def stubborn() -> str:
        try:
            await pending()
        except CancelledError:
            return "all the same"

    page = shared(stubborn())
    with move_on_after(0):
        await page
    assert await page == "all the same"


async def test_a_coroutine_that_is_cancelled_before_its_first_step_is_closed() -> None:
    work = Work()
    page = shared(work())
    task = start_task(page, eager=True)
    await page.aclose()
    with pytest.raises(JoinError):
        await task
    assert not work.begun and not others()
    gc.collect()  # and no warning says that it was never awaited


async def test_a_future_that_is_passed_in_is_only_observed() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    work = Work(2)
    handle = spawn(work())
    for page in (shared(future), shared(handle)):
        with move_on_after(0):
            await page
    assert not future.done() and not work.cleaned
    again, later = shared(future), shared(handle)
    future.set_result(1)
    work.go.set()
    assert [await again, await later] == [1, 2]


async def test_a_call_in_a_thread_that_is_passed_in_is_only_observed() -> None:
    go = threading.Event()

    def call() -> bool:
        go.wait(60)
        return current_token().is_cancelled()

    handle = spawn_blocking(call)
    with move_on_after(0):
        await shared(handle)
    go.set()
    assert await handle is False


async def test_a_loser_of_a_race_leaves_and_the_run_goes_on_for_the_others() -> None:
    work = Work("page")
    page = shared(work())
    other = start_task(page)
    await turns(2)
    assert await race(page, asyncio.sleep(0, "first")) == "first"
    assert not work.cleaned
    work.go.set()
    assert await other == "page"


# ---------------------------------------------------------------- waiting for oneself


async def test_a_run_that_awaits_itself_is_told_so() -> None:
    async def run() -> None:
        await page

    page = shared(run())
    with pytest.raises(RuntimeError, match="would wait for its own end"):
        await page


async def test_runs_that_await_each_other_are_told_so() -> None:
    async def run(other: int) -> int:
        await turns(2)
        return await runs[other]

    runs = [shared(run(1)), shared(run(2)), shared(run(0))]
    with pytest.raises(ExceptionGroup) as caught:
        await gather(*runs)
    assert all("would wait for its own end" in str(error) for error in caught.value.exceptions)


async def test_who_has_given_up_waiting_is_no_part_of_a_circle() -> None:
    async def first() -> str:
        with move_on_after(0):
            await runs[1]
        await turns(5)
        return "first"

    async def second() -> str:
        await turns(4)
        return await runs[0] + " and second"

    runs: list[Shared[str]] = [shared(first()), shared(second())]
    assert await gather(*runs) == ["first", "first and second"]


async def test_what_a_run_has_started_may_wait_for_it_but_does_not_keep_it_alive() -> None:
    heard: list[str] = []

    async def pump() -> None:
        heard.append(await page)

    async def connect() -> str:
        pumps.append(start_task(pump()))
        await work()
        return "connection"

    pumps: list[asyncio.Task[None]] = []
    work = Work()
    page = shared(connect())
    work.go.set()
    assert await page == "connection"
    await asyncio.wait(pumps)
    assert heard == ["connection"]

    work, page = Work(), shared(connect())
    task = start_task(page)
    await turns(3)
    task.cancel()
    await asyncio.wait([task])
    assert work.cleaned == 1
    with pytest.raises(JoinError):
        await pumps[-1]


async def test_a_run_that_waits_for_itself_in_other_tasks_can_be_cancelled() -> None:
    async def run() -> None:
        try:
            async with asyncio.timeout(0):
                await asyncio.gather(page)
        except TimeoutError:
            ended.append("inside")
        await asyncio.gather(page)

    ended: list[str] = []
    page = shared(run())
    task = start_task(page)
    await turns(10)
    task.cancel()
    await asyncio.wait([task])
    assert ended == ["inside"] and not others()


# ---------------------------------------------------------------- select


async def test_a_select_begins_it_and_leaves_it_running_when_it_loses() -> None:
    work = Work("page")
    page = shared(work())
    for _ in range(3):
        assert await select(page=page, tick=asyncio.sleep(0)) == ("tick", None)
        await turns(2)
    assert work.begun == 1 and not work.cleaned
    selecting = start_task(select(page=page))
    await turns(2)
    work.go.set()
    assert await selecting == await select(page=page) == ("page", "page")
    assert page._run is not None and not page._run.parties  # they keep nobody alive


async def test_a_select_that_has_lost_is_no_reason_to_go_on() -> None:
    work = Work()
    page = shared(work())
    assert await select(page=page, tick=asyncio.sleep(0)) == ("tick", None)
    with move_on_after(0):
        await page
    assert work.cleaned == 1


async def test_a_select_that_waits_is_a_reason_to_go_on() -> None:
    work = Work("page")
    page = shared(work())
    selecting = start_task(select(page=page))
    awaiting = start_task(page)
    await turns(3)
    awaiting.cancel()
    await asyncio.wait([awaiting])
    assert not work.cleaned
    work.go.set()
    assert await selecting == ("page", "page")


async def test_a_select_raises_its_error_and_one_that_is_cancelled_does_not_take_it() -> None:
    reports: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context["exception"]))
    page = shared(fail())
    with pytest.raises(LookupError):
        await select(page=page)
    page = shared(fail())
    selecting = start_task(select(page=page))
    while not page.is_finished():
        await yield_now()
    await yield_now()
    selecting.cancel()
    await asyncio.wait([selecting])
    taken = not selecting.cancelled()
    if taken:
        selecting.exception()
    del page, selecting
    gc.collect()
    assert len(reports) == (0 if taken else 1)


# ---------------------------------------------------------------- closing


async def test_closing_ends_the_run_whoever_waits_for_it() -> None:
    work = Work()
    async with shared(work(), keep=True) as page:
        assert await select(page=page, tick=asyncio.sleep(0)) == ("tick", None)
        task = start_task(page)
        await turns(2)
    assert work.cleaned == 1
    with pytest.raises(JoinError, match="it was closed"):
        await task
    with pytest.raises(JoinError, match="it was closed"):
        await page
    await page.aclose()


async def test_closing_leaves_an_outcome_as_it_is_and_what_has_not_begun_never_begins() -> None:
    work = Work("page")
    work.go.set()
    page = shared(work())
    assert await page == "page"
    await page.aclose()
    assert await page == "page"
    page = shared(work())
    await page.aclose()
    assert "closed" in repr(page)
    with pytest.raises(RuntimeError, match="closed before it had begun"):
        await page
    with pytest.raises(RuntimeError, match="closed before it had begun"):
        await select(page=page)


async def test_closing_waits_for_the_end_even_when_it_is_cancelled() -> None:
    work = Work()
    page = shared(work(), keep=True)
    with move_on_after(0):
        await page
    await turns(1)
    task = start_task(page.aclose())
    await turns(1)
    task.cancel()
    await asyncio.wait([task])
    assert work.cleaned == 1 and task.cancelled()


async def test_the_run_cannot_close_itself() -> None:
    async def run() -> None:
        await page.aclose()

    page = shared(run())
    with pytest.raises(RuntimeError, match="its own end"):
        await page


# ---------------------------------------------------------------- nonsense


@pytest.mark.parametrize("nonsense", [None, 1, fail, [fail]], ids=["None", "a number", "a function", "a list"])
def test_what_cannot_be_awaited_is_refused(nonsense: Any) -> None:
    with pytest.raises(TypeError, match="awaitable"):
        shared(nonsense)


def test_what_has_not_begun_cannot_begin_in_a_thread_without_a_loop() -> None:
    page = lazy(fail)
    with pytest.raises(RuntimeError, match="begins on a running event loop"):
        park_thread(page)

    async def begins_meanwhile() -> None:
        waiter: ThreadWaiter[None] = ThreadWaiter()
        with pytest.raises(RuntimeError, match="begins on a running event loop"):
            await spawn_blocking(page.register, waiter)
        with pytest.raises(LookupError):
            await page
        page.withdraw(waiter)

    asyncio.run(begins_meanwhile())


# ---------------------------------------------------------------- loops and threads


async def test_other_loops_and_threads_get_the_same_value() -> None:
    work = Work(value := object())
    page = shared(work())
    task = start_task(page)
    await turns(2)

    def in_a_loop() -> object:
        async def main() -> object:
            return await page

        return asyncio.run(main())

    parties = [spawn_blocking(in_a_loop), spawn_blocking(in_a_loop), spawn_blocking(park_thread, page)]
    while "4 waiting" not in repr(page):
        await asyncio.sleep(0.001)
    work.go.set()
    assert [await task, *[await party for party in parties]] == [value] * 4
    assert await spawn_blocking(in_a_loop) is value


async def test_the_last_who_leaves_may_be_on_another_loop() -> None:
    work = Work()
    page = shared(work())
    task = start_task(page)
    await turns(2)

    def in_a_loop() -> int:
        async def main() -> int:
            with move_on_after(60) as scope:
                scopes.append((asyncio.get_running_loop(), scope))
                await page
            return work.cleaned

        return asyncio.run(main())

    scopes: list[Any] = []
    party = spawn_blocking(in_a_loop)
    while "2 waiting" not in repr(page):
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    assert not work.cleaned
    ((loop, scope),) = scopes
    loop.call_soon_threadsafe(scope.cancel)
    assert await party == 1


def test_threads_that_come_and_go_begin_one_run_at_a_time_and_lose_none() -> None:
    running = most = begun = 0
    lock = threading.Lock()

    async def run() -> int:
        nonlocal running, most, begun
        with lock:
            running += 1
            begun += 1
            most = max(most, running)
        await turns(3)
        with lock:
            running -= 1
        return begun

    def visit() -> None:
        async def main() -> None:
            async def ask() -> None:
                values.append(await page)

            tasks = [asyncio.create_task(ask()) for _ in range(5)]
            await asyncio.wait(tasks)

        asyncio.run(main())

    for _ in range(20):
        page = shared(run())
        values: list[int] = []
        begun = 0
        threads = [threading.Thread(target=visit) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert begun == 1
        assert values == [1] * len(values)
    assert most == 1


def test_who_waits_can_be_thrown_away_when_the_loop_is_closed() -> None:
    page = shared(Work()(), keep=False)
    loop = asyncio.new_event_loop()

    async def wait() -> None:
        await page

    coroutine = wait()
    loop.run_until_complete(step(coroutine))
    loop.close()
    coroutine.close()
    gc.collect()
    assert "0 waiting" in repr(page)


async def step(coroutine: Any) -> None:
    """Begin a coroutine by hand, and leave it where it waits."""
    coroutine.send(None)
