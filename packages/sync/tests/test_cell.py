"""What the versioned cell promises: the engine of events, latches, buttons and values that are set once."""

import asyncio

import pytest

from yamanote.runtime import Waiter, park, yield_now
from yamanote.sync import VersionedCell


async def settled() -> None:
    """Let every task run until it waits for somebody else."""
    for _ in range(20):
        await yield_now()


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


async def test_a_predicate_is_asked_once_for_all_who_wait_for_the_same():
    cell = VersionedCell(0)
    asked = []

    def suits(cell):
        asked.append(cell.value)
        return cell.value == 2

    tasks = [asyncio.create_task(park(cell.when(suits))) for _ in range(5)]
    await settled()
    asked.clear()
    cell.set(1)
    cell.set(2)
    assert asked == [1, 2]
    assert await asyncio.gather(*tasks) == [2] * 5


async def test_what_is_waited_for_can_be_awaited_and_stays_true():
    cell = VersionedCell("a")
    changed = cell.when_changed(cell.version)
    waiting = asyncio.ensure_future(changed)
    await settled()
    assert not waiting.done()
    cell.set("b")
    assert await waiting == "b"
    cell.set("c")
    assert await changed == "c"


def test_a_change_that_depends_on_the_value_is_made_unless_somebody_was_faster():
    cell = VersionedCell(1)
    value, version = cell.state
    assert cell.set_if(version, value + 1)
    assert not cell.set_if(version, value + 1)
    assert cell.state == (2, 1)


def test_a_change_that_depends_on_the_value_is_not_tried_inside_of_another():
    cell = VersionedCell(0)

    def predicate(cell):
        if cell.version:
            with pytest.raises(RuntimeError, match="inside of another change"):
                cell.set_if(cell.version, "inside")  # as a finalizer may do
        return False

    waiting = cell.when(predicate)
    assert waiting.blocking_wait(0) is False
    waiting.register(Waiter([None]))
    cell.set(1)
    assert cell.state == (1, 1)


def test_a_change_to_what_is_so_already_is_none():
    cell = VersionedCell(False)
    assert [cell.change(False), cell.change(True), cell.change(True)] == [False, True, False]
    assert cell.state == (True, 1)
