"""What events and mutexes promise, and the versioned cell below the events."""

import asyncio
import threading

import pytest

from yamanote.runtime import BUDGET, park, yield_now
from yamanote.sync import Event, Mutex, VersionedCell


async def settled() -> None:
    """Let every task run until it waits for somebody else."""
    for _ in range(20):
        await yield_now()


# ------------------------------------------------------------------ event


async def test_setting_an_event_wakes_all_first_come_first():
    event = Event()
    order = []

    async def wait(name):
        await event.wait()
        order.append(name)

    tasks = [asyncio.create_task(wait(name)) for name in range(10)]
    await settled()
    assert event.set()
    assert not event.set()
    await asyncio.gather(*tasks)
    assert order == list(range(10))


async def test_who_waited_is_woken_even_when_the_event_is_cleared_at_once():
    event = Event()
    waiting = asyncio.create_task(event.wait())
    await settled()
    event.set()
    assert event.clear()
    assert not event.clear()
    await asyncio.wait_for(waiting, 5)
    assert not event.is_set()


async def test_waiting_for_a_set_event_yields_once_in_a_while():
    event = Event()
    event.set()
    turns = 0
    done = False
    loop = asyncio.get_running_loop()

    def tick():
        nonlocal turns
        if not done:
            turns += 1
            loop.call_soon(tick)

    loop.call_soon(tick)
    for _ in range(BUDGET - 1):
        await event.wait()
    assert turns == 0
    for _ in range(5 * BUDGET):
        await event.wait()
    done = True
    assert 4 <= turns <= 6


async def test_a_cancelled_waiter_leaves_nothing_behind():
    event = Event()
    first, second = asyncio.create_task(event.wait()), asyncio.create_task(event.wait())
    await settled()
    first.cancel()
    await asyncio.wait([first])
    assert "1 waiting" in repr(event)
    event.set()
    await second
    assert "set, 0 waiting" in repr(event)


def test_an_event_is_set_across_threads_both_ways():
    there, back = Event(), Event()

    async def loop():
        await there.wait()
        back.set()

    thread = threading.Thread(target=lambda: asyncio.run(loop()))
    thread.start()
    there.set()
    assert back.blocking_wait(timeout=10)
    thread.join()
    assert not Event().blocking_wait(timeout=0.001)


async def test_blocking_in_the_thread_of_a_loop_is_refused():
    with pytest.raises(RuntimeError, match="event loop"):
        Event().blocking_wait()


# ------------------------------------------------------------------ cell


async def test_a_cell_wakes_each_waiter_at_the_first_change_that_suits_it():
    cell = VersionedCell(0)
    even = asyncio.create_task(park(cell.when(lambda cell: cell.version and cell.value % 2 == 0)))
    big = asyncio.create_task(park(cell.when(lambda cell: cell.value > 10)))
    await settled()
    cell.set(1)
    await settled()
    assert not even.done()
    cell.set(4)
    cell.set(5)
    assert await even == 4
    cell.set(11)
    cell.set(0)
    assert await big == 11
    assert cell.version == 5
    assert cell.parked == 0


async def test_a_predicate_that_holds_already_does_not_wait():
    cell = VersionedCell("x")
    assert await park(cell.when(lambda cell: True)) == "x"


async def test_who_is_not_woken_keeps_its_place():
    cell = VersionedCell(0)
    order = []

    async def wait(name):
        await park(cell.when(lambda cell: cell.value == 2))
        order.append(name)

    tasks = [asyncio.create_task(wait(name)) for name in range(5)]
    await settled()
    cell.set(1)
    cell.set(2)
    await asyncio.gather(*tasks)
    assert order == list(range(5))


# ------------------------------------------------------------------ mutex


class Counter:
    def __init__(self):
        self.count = 0


async def test_a_mutex_makes_its_contents_or_takes_them():
    for mutex in (Mutex(Counter), Mutex(Counter())):
        async with mutex.lock() as guard:
            guard.count += 1
            assert isinstance(guard.value, Counter)
            assert guard.value.count == 1


async def test_contents_are_replaced_and_used_through_the_guard():
    async with (mutex := Mutex({"a": 1})).lock() as guard:
        guard["b"] = 2
        assert guard["a"] == 1
        assert len(guard) == 2
        assert "b" in guard
        del guard["a"]
        assert list(guard.keys()) == ["b"]
        guard.value = {}
        assert not guard
    async with mutex.lock() as guard:
        assert guard.value == {}


async def test_attributes_are_set_and_deleted_through_the_guard():
    async with Mutex(Counter).lock() as guard:
        guard.name = "n"
        assert guard.value.name == "n"
        del guard.name
        with pytest.raises(AttributeError):
            guard.name  # noqa: B018 - the look-up is the point


async def test_a_guard_is_dead_after_its_block():
    async with Mutex([1]).lock() as guard:
        pass
    for use in (
        lambda: guard.value,
        lambda: guard[0],
        lambda: guard.append(1),
        lambda: len(guard),
        lambda: bool(guard),
        lambda: 1 in guard,
        lambda: setattr(guard, "value", 1),
        lambda: setattr(guard, "other", 1),
        lambda: guard.__setitem__(0, 1),
        lambda: guard.__delitem__(0),
        lambda: delattr(guard, "value"),
    ):
        with pytest.raises(RuntimeError, match="end of its block"):
            use()
    assert "ended" in repr(guard)


async def test_an_error_in_the_block_passes_through_and_frees_the_mutex():
    mutex = Mutex(0)
    with pytest.raises(ZeroDivisionError):
        async with mutex.lock() as guard:
            guard.value = 5
            1 / 0  # noqa: B018 - raising is its use
    assert not mutex.locked()
    async with mutex.lock() as guard:
        assert guard.value == 5


async def test_a_cancelled_lock_passes_it_on():
    mutex = Mutex("x")

    async def use():
        async with mutex.lock() as guard:
            return guard.value

    async with mutex.lock():
        first, second = asyncio.create_task(use()), asyncio.create_task(use())
        await settled()
    first.cancel()
    assert await second == "x"
    assert not mutex.locked()


async def test_a_value_is_let_go_of_outside_of_the_lock():
    cell = VersionedCell(None)

    class Old:
        def __del__(self):
            cell.set(0)

    cell.set(Old())
    waiting = asyncio.create_task(park(cell.when(lambda cell: cell.value == 1)))
    await settled()
    cell.set(1)
    assert await asyncio.wait_for(waiting, 5) == 1
    assert cell.value == 0


async def test_a_change_inside_of_a_change_comes_after_it():
    cell = VersionedCell(0)
    seen = []

    def predicate(cell):
        if cell.value == 1 and not seen:
            seen.append("inside")
            cell.set(2)  # as a finalizer may do
        return cell.value == 1

    waiting = asyncio.create_task(park(cell.when(predicate)))
    await settled()
    cell.set(1)
    assert await asyncio.wait_for(waiting, 5) == 1
    assert cell.value == 2


async def test_the_contents_of_a_guard_are_iterated_over():
    async with Mutex({"a": 1}).lock() as guard:
        assert list(guard) == ["a"]
