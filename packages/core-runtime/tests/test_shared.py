"""What `yamanote.futures` makes `shared`, `lazy` and `single_flight` of; their tests look at it from all sides."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest

from yamanote.runtime import (
    JoinError,
    Shared,
    TaskWaiter,
    _shared,
    cancel_and_wait,
    lru_cache,
    move_on_after,
    remaining,
    start_task,
)


class Pages:
    """Makes a page when it is asked to; counts."""

    def __init__(self) -> None:
        self.made = 0

    async def __call__(self) -> str:
        self.made += 1
        for _ in range(9):
            await asyncio.sleep(0)
        return f"page {self.made}"


async def test_the_factory_is_called_when_somebody_asks_and_once() -> None:
    pages = Pages()
    page = Shared(pages, name="page")
    assert repr(page) == "<Shared page not begun>" and not page.is_finished()

    assert await asyncio.gather(page, page) == ["page 1", "page 1"]
    assert await page == "page 1"
    assert pages.made == 1 and page.is_finished()


@pytest.mark.parametrize("again", [False, True])
async def test_who_asks_after_all_were_cancelled_begins_another_run_only_if_it_may(again: bool) -> None:
    pages = Pages()
    page = Shared(pages, again=again)
    asking = start_task(page)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await cancel_and_wait(asking)

    assert page.is_finished() is not again
    if again:
        assert await page == "page 2"
    else:
        with pytest.raises(JoinError, match="nobody waited for it any more"):
            await page


async def test_with_keep_it_goes_on_without_anybody() -> None:
    pages = Pages()
    page = Shared(pages, keep=True)
    asking = start_task(page)
    await asyncio.sleep(0)
    await cancel_and_wait(asking)

    assert await page == "page 1"


async def test_a_future_that_the_factory_returns_is_only_observed() -> None:
    future = asyncio.get_running_loop().create_future()
    page = Shared(lambda: future)
    asking = start_task(page)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await cancel_and_wait(asking)

    assert page.join() is None and not future.done()


async def test_circles_are_seen_through_everything_that_is_made_of_it() -> None:
    page: Shared[str] = Shared(lambda: fetch())

    @lru_cache
    async def fetch() -> str:
        return await page

    for question in fetch, lambda: Shared(lambda: page), fetch:
        with pytest.raises(RuntimeError, match="would wait for its own end"):
            await question()


async def test_runs_that_begin_one_another_for_ever_do_not_pile_up() -> None:
    async def run(number: int) -> None:
        if number:
            following.append(start_task(Shared(lambda: run(number - 1))))
        for _ in range(4):
            await asyncio.sleep(0)
        depths.append(0)
        inside = _shared._innermost.get()
        while inside is not None:
            inside = inside._outer
            depths[-1] += 1

    following: list[asyncio.Task[None]] = []
    depths: list[int] = []
    await Shared(lambda: run(100))
    for task in following:  # grows meanwhile
        await task
    assert len(depths) == 101 and max(depths) < 8


async def test_closing_one_that_has_not_begun_closes_its_coroutine() -> None:
    coroutine = Pages()()
    page = Shared(lambda: coroutine)
    await page.aclose()

    assert coroutine.cr_frame is None
    with pytest.raises(RuntimeError, match="closed before it had begun"):
        await page


async def test_an_error_of_the_factory_itself_is_raised_to_who_asks_and_the_next_one_calls_it_again() -> None:
    answers: list[Any] = [OSError("no answer"), 1, Pages()]

    def fetch() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer() if isinstance(answer, Pages) else answer

    page: Shared[str] = Shared(fetch)
    with pytest.raises(OSError, match="no answer"):
        await page
    with pytest.raises(TypeError, match="awaitable"):
        await page
    assert await page == "page 1"
    assert await page == "page 1"


async def test_who_was_told_of_the_end_of_an_earlier_run_gives_no_error_of_a_later_one_back() -> None:
    reports: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reports.append(context["exception"]))
    begun: list[asyncio.Task[Any] | None] = []

    async def fetch() -> None:
        begun.append(asyncio.current_task())
        if len(begun) == 2:
            raise OSError("no answer")
        await loop.create_future()

    page = Shared(fetch, again=True)
    waiter: TaskWaiter[Any] = TaskWaiter()
    page.register(waiter)
    await asyncio.sleep(0)
    assert begun[0] is not None
    begun[0].cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert isinstance(waiter.error, JoinError)
    with pytest.raises(OSError, match="no answer"):
        await page
    page.withdraw(waiter)

    del page
    gc.collect()
    assert reports == []


async def test_who_has_joined_counts_before_it_awaits() -> None:
    pages = Pages()
    page = Shared(pages)
    asking = start_task(page)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    seat = page.join()
    assert seat is not None
    await cancel_and_wait(asking)
    assert await seat == "page 1" and pages.made == 1
    assert page.join() is None


async def test_one_that_was_abandoned_or_has_failed_cannot_be_joined_and_one_that_has_not_begun_begins() -> None:
    page = Shared(Pages())
    asking = start_task(page)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.sleep(0)
    assert not page.is_finished() and page.join() is None
    await asyncio.wait([asking])

    fresh = Shared(pages := Pages())
    seat = fresh.join()
    await asyncio.sleep(0)
    assert pages.made == 1 and seat is not None and await seat == "page 1"


def test_who_asks_in_the_moment_in_which_the_last_one_leaves_begins_another_run() -> None:
    pages = Pages()
    page = Shared(pages, again=True)
    loop = asyncio.new_event_loop()

    class Slow:
        """A task that is abandoned, and ends, while it is asked whether it has ended."""

        def __init__(self, task: asyncio.Task[Any], asking: asyncio.Task[Any]) -> None:
            self.task = task
            self.asking: asyncio.Task[Any] | None = asking

        def __getattr__(self, name: str) -> Any:
            return getattr(self.task, name)

        def done(self) -> bool:
            done, asking, self.asking = self.task.done(), self.asking, None
            if asking is not None:
                thread = threading.Thread(target=loop.run_until_complete, args=(cancel_and_wait(asking),))
                thread.start()
                thread.join()
            return done

    async def begin() -> None:
        asking = start_task(page)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert page._run is not None
        page._run.task = Slow(page._run.task, asking)  # type: ignore[assignment]

    async def ask() -> str:
        return await page

    loop.run_until_complete(begin())
    assert asyncio.run(ask()) == "page 2"
    loop.close()


async def test_the_limits_of_who_began_it_do_not_bind_it_and_its_own_do() -> None:
    seen: list[float | None] = []

    async def fetch() -> None:
        seen.append(remaining())
        with move_on_after(10):
            seen.append(remaining())

    with move_on_after(1):
        await Shared(fetch)
        await lru_cache(fetch)()
    assert seen[::2] == [None, None]
    assert [left is not None and 1 < left <= 10 for left in seen[1::2]] == [True, True]


@pytest.mark.parametrize("nonsense", [None, "page"])
def test_what_cannot_be_called_is_refused(nonsense: Any) -> None:
    with pytest.raises(TypeError, match="factory must be a function"):
        Shared(nonsense)


def test_a_coroutine_is_refused_and_closed() -> None:
    coroutine: Any = Pages()()
    with pytest.raises(TypeError, match="factory must be a function"):
        Shared(coroutine)
    assert coroutine.cr_frame is None
