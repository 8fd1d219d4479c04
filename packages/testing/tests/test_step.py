"""What `step` promises: a coroutine runs from one wait to the next, when it is polled, and only then."""

import asyncio
import contextvars

import pytest

from yamanote.runtime import TaskWaiter, park, spawn, yield_now
from yamanote.testing import LeakError, no_leaks, step


class Box:
    """The smallest thing to park on."""

    def __init__(self) -> None:
        self.waiter: TaskWaiter[str] | None = None
        self.withdrawn = 0

    def register(self, waiter: TaskWaiter[str]) -> None:
        self.waiter = waiter

    def withdraw(self, waiter: TaskWaiter[str]) -> None:
        self.withdrawn += 1


async def test_nothing_runs_before_the_first_poll() -> None:
    ran = []

    async def work() -> None:
        ran.append("work")

    with step(work()) as work_step:
        assert work_step.is_woken
        assert [] == ran
        work_step.assert_ready()

    assert ["work"] == ran


async def test_it_runs_to_its_next_wait_and_no_further() -> None:
    gate = asyncio.Event()
    seen = []

    async def work() -> str:
        seen.append("before")
        await gate.wait()
        seen.append("after")
        return "done"

    with step(work()) as work_step:
        work_step.assert_pending()
        assert ["before"] == seen
        gate.set()
        outcome = work_step.poll()

    assert outcome is not None
    assert "done" == outcome.unwrap()
    assert ["before", "after"] == seen


async def test_it_is_woken_as_soon_as_what_it_waits_for_is_done_without_a_loop_turn() -> None:
    box = Box()
    with step(park(box)) as waiting:
        waiting.assert_pending()
        assert not waiting.is_woken
        assert box.waiter is not None
        box.waiter.hand("parcel")
        assert waiting.is_woken
        assert "parcel" == waiting.assert_ready()
        assert not waiting.is_woken


async def test_a_poll_that_comes_too_early_changes_nothing() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work() -> int:
        return await future

    with step(work()) as work_step:
        for _ in range(3):
            assert work_step.poll() is None
        future.set_result(1)
        assert 1 == work_step.assert_ready()


async def test_a_bare_yield_wakes_it_again_at_once() -> None:
    with step(yield_now()) as yielding:
        yielding.assert_pending()
        assert yielding.is_woken
        yielding.assert_ready()


async def test_the_end_of_a_task_wakes_it_whichever_way_it_is_awaited() -> None:
    handle = spawn(asyncio.sleep(0, "slept"))

    async def join() -> str:
        return await handle

    with step(join()) as joining:
        joining.assert_pending()
        while not joining.is_woken:
            await asyncio.sleep(0)
        assert "slept" == joining.assert_ready()


async def test_the_error_of_what_it_waits_for_is_raised_where_it_waits() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def work() -> str:
        try:
            await future
        except OSError as error:
            return str(error)
        return "nothing"

    with step(work()) as work_step:
        work_step.assert_pending()
        future.set_exception(OSError("unplugged"))
        assert "unplugged" == work_step.assert_ready()


async def test_a_cancellation_is_thrown_in_and_what_it_was_handed_goes_back() -> None:
    box = Box()
    waiting = step(park(box))
    waiting.assert_pending()
    assert box.waiter is not None
    box.waiter.hand("parcel")

    outcome = waiting.throw(asyncio.CancelledError())

    assert outcome is not None
    assert outcome.cancelled
    assert 1 == box.withdrawn


async def test_what_it_waited_for_forgets_it_when_something_is_thrown_in() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        try:
            await future
        except ValueError:
            await asyncio.Event().wait()

    with step(work()) as work_step:
        work_step.assert_pending()
        work_step.throw(ValueError())
        future.set_result(None)
        await asyncio.sleep(0)
        assert not work_step.is_woken


async def test_the_news_of_what_it_waited_for_before_does_not_wake_it() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        await future
        await asyncio.Event().wait()

    with step(work()) as work_step:
        work_step.assert_pending()
        future.set_result(None)
        work_step.assert_pending()
        await asyncio.sleep(0)
        assert not work_step.is_woken


async def test_closing_runs_its_clean_up_and_then_it_cannot_go_on() -> None:
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append("up")

    work_step = step(work())
    work_step.assert_pending()
    work_step.close()
    work_step.close()

    assert ["up"] == cleaned
    with pytest.raises(RuntimeError, match="has ended"):
        work_step.throw(ValueError())
    with pytest.raises(AssertionError, match="closed"):
        work_step.assert_pending()


async def test_it_has_ended_for_good() -> None:
    async def work() -> None:
        raise OSError("unplugged")

    work_step = step(work())
    first = work_step.poll()

    assert first is not None
    assert first is work_step.poll()
    with pytest.raises(OSError, match="unplugged"):
        work_step.assert_ready()


async def test_assertions_say_how_it_ended_and_where_it_waits() -> None:
    async def quick() -> int:
        return 5

    async def slow() -> None:
        await asyncio.Event().wait()

    with pytest.raises(AssertionError, match=r"quick.*ended: Outcome.ok\(5\)"):
        step(quick()).assert_pending()
    with step(slow()) as slow_step, pytest.raises(AssertionError, match=r"slow.* waiting at .*locks\.py:\d+ in Event"):
        slow_step.assert_ready()


async def test_it_has_a_context_of_its_own() -> None:
    variable = contextvars.ContextVar("variable", default="unset")

    async def work() -> str:
        variable.set("inside")
        await asyncio.sleep(0)
        return variable.get()

    with step(work()) as work_step:
        work_step.assert_pending()
        assert "unset" == variable.get()
        assert "inside" == work_step.assert_ready()


async def test_an_interrupt_goes_through() -> None:
    async def work() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        step(work()).poll()


async def test_an_error_that_is_kept_does_not_keep_the_step() -> None:
    async def work() -> None:
        raise OSError

    outcome = step(work()).poll()
    assert outcome is not None
    assert outcome.error is not None
    trace = outcome.error.__traceback__
    assert trace is not None
    assert "work" == trace.tb_frame.f_code.co_name


async def test_whatever_can_be_awaited_can_be_stepped() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    with step(future) as waiting:
        waiting.assert_pending()
        future.set_result(3)
        assert 3 == waiting.assert_ready()


def test_what_cannot_be_awaited_is_refused() -> None:
    with pytest.raises(TypeError, match="not 3"):
        step(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be an exception"), step(asyncio.sleep(0)) as sleeping:
        sleeping.throw("cancel")  # type: ignore[arg-type]


async def test_one_that_is_neither_finished_nor_closed_is_a_leak() -> None:
    with pytest.raises(LeakError, match="sleep, ready to run> was neither finished nor closed"), no_leaks():
        forgotten = step(asyncio.sleep(0))
    forgotten.close()
