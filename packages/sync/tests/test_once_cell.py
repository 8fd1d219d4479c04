"""What cells whose value is made once promise."""

import asyncio
import threading

import pytest

from yamanote.runtime import yield_now
from yamanote.sync import AlreadySet, OnceCell, WouldBlock


async def settled() -> None:
    """Let every task run until it waits for somebody else."""
    for _ in range(20):
        await yield_now()


class Factory:
    """Makes values when it is told to, and counts how often it was called."""

    def __init__(self):
        self.calls = 0
        self.making = []

    async def __call__(self):
        self.calls += 1
        self.making.append(making := asyncio.get_running_loop().create_future())
        return await making


async def test_the_value_is_made_once_for_all_who_want_it():
    cell, factory = OnceCell(), Factory()
    wanting = [asyncio.create_task(cell.get_or_init(factory)) for _ in range(5)]
    await settled()
    assert "being made, 4 waiting" in repr(cell)
    factory.making[0].set_result("value")
    assert await asyncio.gather(*wanting) == ["value"] * 5
    assert await cell.get_or_init(factory) == "value"
    assert factory.calls == 1
    assert "set, 0 waiting" in repr(cell)


@pytest.mark.parametrize("value", [1, None, 0, "", ValueError("an ordinary value")])
async def test_any_value_counts_as_made(value):
    cell = OnceCell()
    calls = []

    def factory():
        calls.append(None)
        return value

    assert await cell.get_or_init(factory) is value
    assert await cell.get_or_init(factory) is value
    assert cell.get() is value
    assert len(calls) == 1


async def test_plain_functions_and_whatever_returns_an_awaitable_make_values():
    async def make(value):
        return value

    assert await OnceCell[int]().get_or_init(lambda: 1) == 1
    assert await OnceCell[int]().get_or_init(lambda: make(2)) == 2
    future = asyncio.get_running_loop().create_future()
    assert await OnceCell[object]().get_or_init(lambda: make(future)) is future
    future.cancel()


async def test_when_one_fails_it_hears_of_it_and_the_next_makes_the_value():
    cell, factory = OnceCell(), Factory()
    first, second, third = (asyncio.create_task(cell.get_or_init(factory)) for _ in range(3))
    await settled()
    factory.making[0].set_exception(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await first
    await settled()
    assert factory.calls == 2
    assert not cell.is_set()
    factory.making[1].set_result(2)
    assert await second == await third == 2


async def test_when_one_is_cancelled_so_is_its_factory_and_the_next_makes_the_value():
    cell, factory = OnceCell(), Factory()
    first, second, third = (asyncio.create_task(cell.get_or_init(factory)) for _ in range(3))
    await settled()
    second.cancel()  # it waits for the turn
    first.cancel()
    await asyncio.wait([first, second])
    assert factory.making[0].cancelled()
    await settled()
    assert factory.calls == 2
    factory.making[1].set_result(3)
    assert await third == 3


async def test_one_who_was_cancelled_when_its_turn_came_passes_it_on():
    cell, factory = OnceCell(), Factory()
    first, second, third = (asyncio.create_task(cell.get_or_init(factory)) for _ in range(3))
    await settled()
    factory.making[0].set_exception(ZeroDivisionError())
    await asyncio.wait([first])
    second.cancel()
    await settled()
    factory.making[-1].set_result(3)
    assert await third == 3
    with pytest.raises(ZeroDivisionError):
        first.result()


async def test_the_factory_runs_in_the_task_that_calls():
    async def factory():
        return asyncio.current_task()

    assert await OnceCell().get_or_init(factory) is asyncio.current_task()


async def test_a_value_that_is_set_reaches_everybody_once():
    cell = OnceCell()
    with pytest.raises(LookupError, match="no value yet"):
        cell.get()
    assert "<OnceCell unset, 0 waiting" in repr(cell)
    cell.set(None)
    with pytest.raises(AlreadySet):
        cell.set(1)
    assert cell.get() is await cell.get_or_init(lambda: 1) is None


async def test_setting_a_value_that_is_being_made_is_refused():
    cell, factory = OnceCell(), Factory()
    first, second = (asyncio.create_task(cell.get_or_init(factory)) for _ in range(2))
    await settled()
    with pytest.raises(WouldBlock):
        cell.set(1)
    assert cell.statistics().waiting == 1
    factory.making[0].set_result(2)
    assert await first == await second == 2


def test_a_thread_makes_the_value_for_a_loop_and_fails_for_one():
    cell = OnceCell()
    begun, finish = threading.Event(), threading.Event()

    def factory():
        begun.set()
        finish.wait()
        return "value"

    def fails():
        begun.set()
        finish.wait()
        raise ZeroDivisionError

    failures = []

    def fail():
        try:
            cell.blocking_get_or_init(fails)
        except ZeroDivisionError as error:
            failures.append(error)

    thread = threading.Thread(target=fail)
    thread.start()
    begun.wait()
    with pytest.raises(TimeoutError):
        cell.blocking_get_or_init(factory, timeout=0.001)

    async def want():
        wanting = asyncio.create_task(cell.get_or_init(lambda: "value"))
        await settled()
        assert not wanting.done()
        finish.set()
        return await wanting

    assert asyncio.run(want()) == "value"
    thread.join()
    assert len(failures) == 1
    assert cell.blocking_get_or_init(factory) == "value"


def test_a_thread_refuses_what_it_cannot_await():
    cell = OnceCell()

    async def factory():
        return 1

    with pytest.raises(TypeError, match="factory must return a value"):
        cell.blocking_get_or_init(factory)
    assert cell.blocking_get_or_init(lambda: 2) == 2


async def test_blocking_in_the_thread_of_a_loop_is_refused():
    cell = OnceCell()
    cell.set(1)
    with pytest.raises(RuntimeError, match="event loop"):
        cell.blocking_get_or_init(lambda: 2)


async def test_what_makes_no_value_is_refused_and_the_turn_is_free():
    cell = OnceCell()
    coroutine = asyncio.sleep(0)
    for wrong in (5, coroutine):
        with pytest.raises(TypeError, match="factory must be"):
            await cell.get_or_init(wrong)
    assert coroutine.cr_frame is None, "it was closed"
    with pytest.raises(TypeError, match="factory must be"):
        await asyncio.to_thread(cell.blocking_get_or_init, 5)
    assert await cell.get_or_init(lambda: 1) == 1
