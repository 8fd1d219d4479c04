"""Timers on a virtual clock: when they call, what holds them up (nothing), and how they end."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import math
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from yamanote.runtime import TaskWaiter, cancel_and_wait, run, yield_now
from yamanote.time import MissedTickBehavior, Timer, TimerDelayPolicy, VirtualClock, create_timer, sleep, time

DEFAULT, CANCEL, SKIP = TimerDelayPolicy.DEFAULT, TimerDelayPolicy.CANCEL, TimerDelayPolicy.SKIP
Test = Callable[[VirtualClock], Coroutine[Any, Any, None]]


def virtual(test: Test) -> Callable[[], None]:
    def on_a_virtual_clock() -> None:
        clock = VirtualClock()
        run(test(clock), loop_factory=clock.loop_factory)

    on_a_virtual_clock.__name__ = test.__name__
    return on_a_virtual_clock


class Calls:
    """A function to be called, which takes so many seconds, and some more to clean up when it is cancelled."""

    def __init__(self, seconds: float = 0, clean_up: float = 0) -> None:
        self.seconds = seconds
        self.clean_up = clean_up
        self.begun: list[float] = []
        self.done: list[float] = []
        self.cancelled: list[float] = []
        self.running = 0
        self.most = 0

    async def __call__(self, interval: float) -> None:
        self.begun.append(time())
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await sleep(self.seconds)
            self.done.append(time())
        except asyncio.CancelledError:
            self.cancelled.append(time())
            await sleep(self.clean_up)
            raise
        finally:
            self.running -= 1


@pytest.fixture
def reports() -> list[dict[str, Any]]:
    return []


def report_to(reports: list[dict[str, Any]]) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context))


@virtual
async def test_the_first_call_is_at_once_and_the_others_an_interval_apart(clock: VirtualClock) -> None:
    await sleep(3)
    calls = Calls()
    async with create_timer(calls, 10):
        await sleep(35)
    assert calls.begun == [3, 13, 23, 33]


@virtual
async def test_the_function_gets_the_interval(clock: VirtualClock) -> None:
    seen: list[float] = []

    async def call(interval: float) -> None:
        seen.append(interval)

    async with create_timer(call, 2.5):
        await sleep(3)
    assert seen == [2.5, 2.5]


@virtual
async def test_calls_are_on_the_schedule_after_any_number_of_them(clock: VirtualClock) -> None:
    calls = Calls(0.03)
    async with create_timer(calls, 0.1):
        await sleep(1000)
    assert calls.begun[:10_000] == [number * 0.1 for number in range(10_000)]


@virtual
async def test_by_default_calls_that_take_long_overlap_and_are_all_cancelled_at_the_end(clock: VirtualClock) -> None:
    calls = Calls(100)
    timer = create_timer(calls, 1)
    await sleep(49.5)
    assert calls.most == 50
    timer.cancel()
    await timer
    assert calls.begun == list(range(50))
    assert calls.cancelled == [49.5] * 50
    assert calls.running == 0


@virtual
async def test_with_cancel_a_call_ends_the_one_before_and_is_not_held_up_by_its_clean_up(clock: VirtualClock) -> None:
    calls = Calls(100, clean_up=2.5)
    async with create_timer(calls, 1, CANCEL):
        await sleep(44.5)
    assert calls.begun == list(range(45))
    assert calls.cancelled[:44] == list(range(1, 45))  # each once: a second request would have cut the clean-up short
    assert calls.most == 4
    assert calls.running == 0


@virtual
async def test_with_cancel_a_call_that_is_done_in_time_is_left_alone(clock: VirtualClock) -> None:
    calls = Calls(0.5)
    async with create_timer(calls, 1, CANCEL):
        await sleep(4.7)
    assert calls.done == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert calls.cancelled == []


@virtual
async def test_with_skip_there_are_never_two_calls_at_once_and_the_schedule_stays(clock: VirtualClock) -> None:
    calls = Calls(2.5)
    async with create_timer(calls, 1, SKIP):
        await sleep(9.7)
    assert calls.begun == [0, 3, 6, 9]
    assert calls.done == [2.5, 5.5, 8.5]
    assert calls.most == 1


@pytest.mark.parametrize("policy", list(TimerDelayPolicy))
def test_a_call_that_fails_is_reported_once_and_the_timer_goes_on(
    policy: TimerDelayPolicy, reports: list[dict[str, Any]]
) -> None:
    @virtual
    async def main(clock: VirtualClock) -> None:
        report_to(reports)
        begun: list[float] = []

        async def fail(interval: float) -> None:
            begun.append(time())
            raise OSError(len(begun))

        async with create_timer(fail, 1, policy) as timer:
            await sleep(2.5)
            assert not timer.is_finished()
        assert begun == [0, 1, 2]

    main()
    assert [context["exception"].args for context in reports] == [(1,), (2,), (3,)]
    assert all("a call of <Timer 'timer of " in context["message"] for context in reports)


@virtual
async def test_a_call_that_is_reported_is_reported_when_it_fails_not_when_the_timer_ends(clock: VirtualClock) -> None:
    moments: list[float] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: moments.append(time()))

    async def fail(interval: float) -> None:
        await sleep(0.25)
        raise OSError

    async with create_timer(fail, 1):
        await sleep(2.5)
    assert moments == [0.25, 1.25, 2.25]


def test_what_is_no_async_function_is_reported_and_the_timer_goes_on(reports: list[dict[str, Any]]) -> None:
    @virtual
    async def main(clock: VirtualClock) -> None:
        report_to(reports)
        plain: Any = lambda interval: None  # noqa: E731
        async with create_timer(plain, 1):
            await sleep(1.5)

    main()
    assert [type(context["exception"]) for context in reports] == [TypeError, TypeError]


@pytest.mark.parametrize("policy", list(TimerDelayPolicy))
def test_a_call_that_refuses_to_be_cancelled_holds_up_nothing_but_the_end(policy: TimerDelayPolicy) -> None:
    @virtual
    async def main(clock: VirtualClock) -> None:
        begun: list[float] = []

        async def refuse(interval: float) -> None:
            begun.append(time())
            for _ in range(5):
                try:
                    await sleep(0.9)
                except asyncio.CancelledError:
                    pass

        async with create_timer(refuse, 1, policy) as timer:
            await sleep(12.5)
        assert time() >= 12.5
        assert timer.is_finished()
        assert begun == ([0, 5, 10] if policy is SKIP else list(range(13)))

    main()


def test_a_call_that_is_cancelled_by_others_is_no_error(reports: list[dict[str, Any]]) -> None:
    @virtual
    async def main(clock: VirtualClock) -> None:
        report_to(reports)
        begun: list[float] = []

        async def give_up(interval: float) -> None:
            begun.append(time())
            raise asyncio.CancelledError

        async with create_timer(give_up, 1):
            await sleep(2.5)
        assert begun == [0, 1, 2]

    main()
    assert reports == []


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        (None, [0, 35, 40, 50]),
        (MissedTickBehavior.SKIP, [0, 35, 40, 50]),
        (MissedTickBehavior.DELAY, [0, 35, 45, 55]),
        (MissedTickBehavior.BURST, [0, 35, 35, 35, 40, 50]),
    ],
)
def test_after_a_blocked_loop(missed: MissedTickBehavior | None, expected: list[float]) -> None:
    @virtual
    async def main(clock: VirtualClock) -> None:
        calls = Calls()
        async with create_timer(calls, 10) if missed is None else create_timer(calls, 10, missed=missed):
            await sleep(5)
            clock._now = 35  # as a computation does that blocks the loop
            await sleep(22)
        assert calls.begun == expected

    main()


@virtual
async def test_a_stopped_timer_is_awaited_in_silence(clock: VirtualClock) -> None:
    calls = Calls(100, clean_up=3)
    timer = create_timer(calls, 1)
    await sleep(0.5)
    timer.cancel()
    timer.cancel("again")
    await sleep(1)
    timer.cancel("and again, when it is ending")
    await sleep(1)
    assert not timer.is_finished()
    await timer
    assert time() == 3.5  # when the clean-up was over
    assert calls.running == 0
    assert timer.is_finished()
    assert not timer.is_cancelled()
    await timer
    await timer.aclose()
    assert timer.result() is None


@virtual
async def test_to_cancel_a_timer_and_await_it_stops_it_and_the_calls_that_run(clock: VirtualClock) -> None:
    i = 0

    async def mytick(interval: float) -> None:
        nonlocal i
        i += 1
        await sleep(100)

    for policy, running in ((DEFAULT, 4), (CANCEL, 1)):
        i = 0
        before = len(asyncio.all_tasks())
        t = create_timer(mytick, 1.0, policy)
        await sleep(3.5)
        assert i == 4
        assert len(asyncio.all_tasks()) == before + 1 + running
        t.cancel()
        await t
        assert len(asyncio.all_tasks()) == before
        await sleep(3.5)
        assert i == 4


@virtual
async def test_a_timer_that_is_stopped_at_once_makes_no_call(clock: VirtualClock) -> None:
    calls = Calls()
    timer = create_timer(calls, 1)
    timer.cancel()
    await timer
    await sleep(5)
    assert calls.begun == []


@virtual
async def test_every_way_to_stop_a_timer_waits_for_its_calls(clock: VirtualClock) -> None:
    calls = Calls(100, clean_up=1)
    for stop in (Timer.aclose, cancel_and_wait):
        timer = create_timer(calls, 10)
        await sleep(15)
        assert calls.running == 2
        await stop(timer)
        assert calls.running == 0


@virtual
async def test_cancelling_who_awaits_a_timer_is_not_swallowed_and_leaves_the_timer_alone(clock: VirtualClock) -> None:
    calls = Calls()
    timer = create_timer(calls, 1)

    async def wait() -> None:
        await timer

    waiting = asyncio.create_task(wait())
    await sleep(2.5)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    await sleep(2)
    assert calls.begun == [0, 1, 2, 3, 4]
    await timer.aclose()


@virtual
async def test_cancelling_aclose_still_waits_for_the_calls(clock: VirtualClock) -> None:
    calls = Calls(100, clean_up=5)
    timer = create_timer(calls, 1)
    await sleep(0.5)
    closing = asyncio.create_task(timer.aclose())
    await sleep(1)
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    assert timer.is_finished()
    assert (calls.running, time()) == (0, 5.5)


@virtual
async def test_an_error_of_the_block_goes_on_when_the_calls_have_ended(clock: VirtualClock) -> None:
    calls = Calls(100, clean_up=2)
    with pytest.raises(LookupError):
        async with create_timer(calls, 1):
            await sleep(0.5)
            raise LookupError
    assert calls.running == 0


@virtual
async def test_a_call_may_stop_its_timer_but_not_wait_for_it(clock: VirtualClock) -> None:
    errors: list[str] = []
    timers: list[Timer] = []

    async def stop(interval: float) -> None:
        try:
            await timers[0]
        except RuntimeError as error:
            errors.append(str(error))
        try:
            await timers[0].aclose()
        except RuntimeError as error:
            errors.append(str(error))
        timers[0].cancel()
        await sleep(100)

    timers.append(create_timer(stop, 1))
    await timers[0]
    assert len(errors) == 2
    assert time() == 0


@virtual
async def test_a_timer_can_be_waited_for_in_a_select(clock: VirtualClock) -> None:
    timer = create_timer(Calls(), 1)
    waiter: TaskWaiter[Any] = TaskWaiter()
    timer.register(waiter)
    asyncio.get_running_loop().call_later(5, timer.cancel)
    await waiter.future
    assert (time(), waiter.value) == (5, None)


@virtual
async def test_a_timer_that_nobody_refers_to_goes_on(clock: VirtualClock) -> None:
    calls = Calls()
    create_timer(calls, 1)
    await sleep(3.5)
    assert calls.begun == [0, 1, 2, 3]


def test_when_the_program_ends_the_calls_are_cancelled_and_clean_up() -> None:
    calls = Calls(100, clean_up=2)

    async def main() -> None:
        create_timer(calls, 1)
        await sleep(1.5)

    run(main(), loop_factory=VirtualClock().loop_factory)
    assert calls.begun == [0, 1]
    assert len(calls.cancelled) == 2
    assert calls.running == 0


@virtual
async def test_a_timer_can_be_stopped_from_another_thread(clock: VirtualClock) -> None:
    calls = Calls()
    timer = create_timer(calls, 1)
    await sleep(1.5)
    with clock.hold():
        thread = threading.Thread(target=timer.cancel)
        thread.start()
        await timer
    thread.join()
    assert calls.begun == [0, 1]


@virtual
async def test_calls_see_the_context_of_who_made_the_timer_and_not_each_others(clock: VirtualClock) -> None:
    variable = contextvars.ContextVar("variable", default=0)
    seen: list[int] = []

    async def call(interval: float) -> None:
        seen.append(variable.get())
        variable.set(99)

    variable.set(1)
    async with create_timer(call, 1):
        variable.set(2)
        await sleep(1.5)
    assert seen == [1, 1]


@virtual
async def test_tasks_are_named_after_the_function(clock: VirtualClock) -> None:
    async def beat(interval: float) -> None:
        await sleep(100)

    async with create_timer(beat, 1) as timer:
        await yield_now()
        names = {task.get_name() for task in asyncio.all_tasks()}
        name = "test_tasks_are_named_after_the_function.<locals>.beat"
        assert {name, f"timer of {name}"} <= names
        assert repr(timer) == f"<Timer 'timer of {name}' running>"


@virtual
async def test_nonsense_is_refused_by_name(clock: VirtualClock) -> None:
    nonsense: Any
    for nonsense in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="interval"):
            create_timer(Calls(), nonsense)
    with pytest.raises(TypeError, match="interval"):
        create_timer(Calls(), None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="callback"):
        create_timer(1, 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="delay_policy"):
        create_timer(Calls(), 1, 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="missed"):
        create_timer(Calls(), 1, missed="skip")  # type: ignore[arg-type]
    assert len(asyncio.all_tasks()) == 1


@virtual
async def test_a_coroutine_instead_of_a_function_is_refused_and_closed(clock: VirtualClock) -> None:
    coroutine: Any = Calls()(1)
    with pytest.raises(TypeError, match="callback must be an async function"):
        create_timer(coroutine, 1)
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


@pytest.mark.filterwarnings("error")
def test_a_timer_where_no_loop_runs_is_refused() -> None:
    with pytest.raises(RuntimeError, match="running event loop"):
        create_timer(Calls(), 1)
