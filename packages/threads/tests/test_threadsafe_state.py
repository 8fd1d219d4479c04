"""`ThreadsafeState`: a value that threads and tasks share, and wait on."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from yamanote.runtime import cancel_and_wait, run, spawn, yield_now
from yamanote.testing import explore, explore_cancellations
from yamanote.threads import ThreadsafeState, run_in_thread_loop, to_thread


@pytest.fixture
def many_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


async def parked(state: ThreadsafeState[Any], count: int) -> None:
    """Wait until so many parties wait."""
    while state.statistics().waiting != count:
        await asyncio.sleep(0)


# The value


def test_it_is_made_and_changed_without_a_loop() -> None:
    state = ThreadsafeState(1)
    state.set_value(2)

    assert state.value == 2
    assert state.update_value(lambda value: value * 10) == 20
    assert state.value == 20


def test_a_function_that_raises_changes_nothing_and_wakes_nobody() -> None:
    state = ThreadsafeState(1)
    change = state.wait()

    with pytest.raises(ZeroDivisionError):
        state.update_value(lambda value: value // 0)

    assert state.value == 1
    assert not change.blocking_wait(0)
    assert state.update_value(lambda value: value + 1) == 2


@pytest.mark.usefixtures("many_switches")
def test_no_update_is_lost_among_threads() -> None:
    state = ThreadsafeState(0)

    def count() -> None:
        for _ in range(300):
            state.update_value(lambda value: value + 1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert state.value == 1200


def test_a_function_is_called_again_when_somebody_else_was_faster() -> None:
    state = ThreadsafeState(1)
    seen: list[int] = []

    def add_one(value: int) -> int:
        if not seen:
            other = threading.Thread(target=state.set_value, args=(10,))
            other.start()
            other.join()
        seen.append(value)
        return value + 1

    assert state.update_value(add_one) == 11
    assert seen == [1, 10]


@pytest.mark.parametrize("change", ["set", "update"])
def test_a_function_that_changes_the_state_itself_is_refused_and_never_called_for_ever(change: str) -> None:
    state = ThreadsafeState(1)

    def confused(value: int) -> int:
        if change == "set":
            state.set_value(5)
        else:
            state.update_value(lambda _: 5)
        return value + 1

    with pytest.raises(RuntimeError, match="let it return the new value"):
        state.update_value(confused)
    assert state.value == 5


async def test_every_set_is_a_change_and_nobody_is_compared() -> None:
    class Incomparable:
        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared")

        __hash__ = object.__hash__

    value = Incomparable()
    state = ThreadsafeState(value)
    change = state.wait()
    state.set_value(value)

    assert await change is value


# Waiting


async def test_a_pulse_is_not_missed_by_who_waits_in_a_task_on_another_loop_or_in_a_thread() -> None:
    state = ThreadsafeState(False)
    waiting = [
        spawn(to_thread(state.blocking_wait_until, bool)),
        spawn(run_in_thread_loop(lambda: state.wait_until(bool))),
        spawn(to_thread(lambda: state.wait().blocking_wait())),
    ]

    async def here() -> list[bool]:
        until, change = state.wait_until(bool), state.wait()
        return list(await asyncio.gather(asyncio.ensure_future(until), asyncio.ensure_future(change)))

    both = spawn(here())
    await parked(state, 5)

    state.set_value(True)
    state.set_value(False)

    assert [await task for task in waiting] == [True, True, True]
    assert await both == [True, True]
    assert not state.value


async def test_what_wait_returned_knows_of_a_change_before_it_was_awaited() -> None:
    state = ThreadsafeState(0)
    change = state.wait()
    state.set_value(1)

    assert await change == 1
    assert await to_thread(change.blocking_wait, 0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await state.wait()


async def test_who_waits_for_what_is_true_already_does_not_wait() -> None:
    state = ThreadsafeState("ready")
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    assert await state.wait_until(lambda value: value == "ready") == "ready"
    assert not turns
    for _ in range(1000):  # but who asks for ever lets others have theirs
        await state.wait_until(bool)
    assert turns
    await cancel_and_wait(counting)


async def test_only_those_are_woken_whose_predicate_holds_first_in_first_out() -> None:
    state = ThreadsafeState(0)
    woken: list[str] = []

    async def wait(name: str, least: int) -> None:
        await state.wait_until(lambda value: value >= least)
        woken.append(name)

    tasks = [asyncio.create_task(wait(name, least)) for name, least in [("a", 2), ("b", 1), ("c", 2), ("d", 9)]]
    await yield_now()
    state.set_value(1)
    await parked(state, 3)
    state.set_value(2)
    await asyncio.gather(*tasks[:3])

    assert woken == ["b", "a", "c"]
    assert state.statistics().waiting == 1
    await cancel_and_wait(tasks[3])
    assert state.statistics().waiting == 0


async def test_an_error_of_a_predicate_goes_to_who_brought_it_and_to_nobody_else() -> None:
    state = ThreadsafeState(1)
    clumsy = asyncio.create_task(to_thread(state.blocking_wait_until, lambda value: 1 // value == 5))
    await parked(state, 1)
    other = asyncio.create_task(to_thread(state.blocking_wait_until, lambda value: value == 0))
    await parked(state, 2)

    state.set_value(0)

    assert await other == 0
    with pytest.raises(ZeroDivisionError):
        await clumsy
    assert state.statistics().waiting == 0

    with pytest.raises(ZeroDivisionError):
        await state.wait_until(lambda value: 1 // value == 5)  # at the first look


async def test_a_predicate_is_called_without_a_lock() -> None:
    state = ThreadsafeState(0)
    looking, go_on = threading.Event(), threading.Event()

    def look(value: int) -> bool:
        if value == 1:
            looking.set()
            assert go_on.wait(30)
        return value == 2

    waiting = asyncio.create_task(to_thread(state.blocking_wait_until, look))
    await parked(state, 1)
    changing = asyncio.create_task(to_thread(state.set_value, 1))
    await to_thread(looking.wait)

    state.set_value(2)  # while another thread is inside of the predicate

    assert state.value == 2
    go_on.set()
    await changing
    assert await waiting == 2


async def test_a_predicate_that_changes_the_state_does_not_dead_lock_and_its_waiter_gets_the_value_that_it_saw() -> (
    None
):
    state = ThreadsafeState(0)

    def look(value: int) -> bool:
        if value == 1:
            state.set_value(2)
        return value == 1

    waiting = asyncio.create_task(to_thread(state.blocking_wait_until, look))
    await parked(state, 1)
    state.set_value(1)

    assert await waiting == 1
    assert state.value == 2


async def test_a_change_before_somebody_waits_is_not_offered_to_them() -> None:
    state = ThreadsafeState(0)
    state.set_value(1)
    state.set_value(2)
    waiting = asyncio.ensure_future(state.wait_until(lambda value: value in (1, 3)))
    await parked(state, 1)

    assert not waiting.done()
    state.set_value(3)
    assert await waiting == 3


async def test_blocking_gives_up_after_the_timeout_and_is_forgotten() -> None:
    state = ThreadsafeState(0)

    with pytest.raises(TimeoutError):
        await to_thread(state.blocking_wait_until, bool, 0.01)
    assert state.statistics().waiting == 0
    state.set_value(1)
    assert await to_thread(state.blocking_wait_until, bool, 0) == 1


async def test_blocking_is_refused_in_the_thread_of_a_loop() -> None:
    state = ThreadsafeState(1)

    with pytest.raises(RuntimeError, match="would block the event loop"):
        state.blocking_wait_until(bool)
    with pytest.raises(RuntimeError, match="would block the event loop"):
        state.wait().blocking_wait()


def test_who_waited_on_a_loop_that_was_closed_is_forgotten_at_the_next_change() -> None:
    state = ThreadsafeState(0)
    loop = asyncio.new_event_loop()

    async def wait() -> None:
        await state.wait_until(bool)

    coroutine = wait()
    loop.call_soon(coroutine.send, None)  # no task: nothing cancels it
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert state.statistics().waiting == 1

    state.set_value(0)
    assert state.statistics().waiting == 0
    coroutine.close()


@pytest.mark.parametrize("name", ["update_value", "wait_until", "blocking_wait_until"])
def test_only_plain_functions_are_taken(name: str) -> None:
    async def answer(_: object) -> bool:
        return True

    state: Any = ThreadsafeState(0)
    for nonsense in (answer, 5, None):
        with pytest.raises(TypeError, match="must be a plain function"):
            getattr(state, name)(nonsense)


def test_it_says_what_it_holds() -> None:
    assert repr(ThreadsafeState("on")).startswith("<ThreadsafeState 'on', 0 waiting at 0x")


# Interleavings


async def pulses() -> None:
    state = ThreadsafeState(0)
    got: list[int] = []

    async def wait(wanted: int) -> None:
        got.append(await state.wait_until(lambda value: value == wanted))

    async def change() -> None:
        await asyncio.sleep(1)
        for value in (1, 0, 2, 0):
            state.set_value(value)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(wait(1)), asyncio.create_task(wait(2)), asyncio.create_task(change())]
    await asyncio.wait(tasks[2:])
    if not tasks[2].cancelled():
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks[:2]] == [value not in got for value in (1, 2)]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert state.statistics().waiting == 0


def test_no_order_of_the_steps_misses_a_pulse() -> None:
    explore(pulses)


def test_no_cancellation_leaves_anybody_behind() -> None:
    explore_cancellations(pulses)


@pytest.mark.usefixtures("many_switches")
async def test_loops_and_threads_that_wait_for_their_number_all_get_it() -> None:
    state = ThreadsafeState(0)
    got: list[int] = []
    last = 120

    async def wait_for_each(first: int) -> None:
        for number in range(first, last, 4):
            got.append(await state.wait_until(lambda value, number=number: value >= number))  # type: ignore[misc]

    def wait_in_a_thread(first: int) -> None:
        for number in range(first, last, 4):
            got.append(state.blocking_wait_until(lambda value, number=number: value >= number))  # type: ignore[misc]

    def count() -> None:
        for _ in range(last // 2):
            state.update_value(lambda value: value + 1)

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        tasks.create_task(run_in_thread_loop(wait_for_each(0)))
        tasks.create_task(run_in_thread_loop(wait_for_each(1)))
        tasks.create_task(to_thread(wait_in_a_thread, 2))
        tasks.create_task(to_thread(wait_in_a_thread, 3))
        for _ in "ab":
            tasks.create_task(to_thread(count))

    assert len(got) == last
    assert state.value == last
    assert state.statistics().waiting == 0


@pytest.mark.usefixtures("many_switches")
def test_ping_pong_between_a_thread_and_a_loop_never_stops() -> None:
    state = ThreadsafeState(0)

    def odd() -> None:
        for number in range(1, 200, 2):
            state.blocking_wait_until(lambda value, number=number: value == number, timeout=30)  # type: ignore[misc]
            state.set_value(number + 1)

    async def even() -> None:
        for number in range(0, 200, 2):
            await state.wait_until(lambda value, number=number: value == number)  # type: ignore[misc]
            state.set_value(number + 1)

    thread = threading.Thread(target=odd)
    thread.start()
    run(even())
    thread.join()

    assert state.value == 200
    gc.collect()
