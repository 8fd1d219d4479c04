"""What `no_leaks` promises: it names what a block leaves behind, and nothing else."""

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from yamanote.runtime import TaskWaiter, Waiter, park, park_thread, spawn_blocking
from yamanote.testing import Leak, LeakError, no_leaks


class Post:
    """What one parks on; `forgetful`, it does not forget who gives up."""

    def __init__(self, forgetful: bool = False) -> None:
        self.waiters: deque[Waiter[Any]] = deque()
        self.forgetful = forgetful

    def register(self, waiter: Waiter[Any]) -> None:
        self.waiters.append(waiter)

    def withdraw(self, waiter: Waiter[Any]) -> None:
        if not self.forgetful:
            self.waiters.remove(waiter)


class Connection:
    """Takes part in the check."""

    def __init__(self) -> None:
        self.closed = False

    def __leak__(self) -> str | None:
        return None if self.closed else "<Connection to nowhere> was not closed"


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    """Set at the end, for the threads of a test."""
    event = threading.Event()
    yield event
    event.set()


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def test_a_block_that_leaves_nothing_passes() -> None:
    with no_leaks():
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        thread = threading.Thread(target=time.sleep, args=(0,))
        thread.start()
        thread.join()
        assert 3 == await spawn_blocking(sum, [1, 2])
        assert 3 == await asyncio.to_thread(sum, [1, 2])
        connection = Connection()
        connection.closed = True


async def test_a_task_that_has_not_ended_is_named_with_where_it_waits() -> None:
    with pytest.raises(LeakError) as caught, no_leaks():
        task = asyncio.create_task(asyncio.Event().wait(), name="forgotten")
        await asyncio.sleep(0)
    await cancel(task)

    (leak,) = caught.value.leaks
    assert leak.startswith("'forgotten' waits for ")
    assert "locks.py:" in leak
    assert str(caught.value) == f"left behind:\n- {leak}"


async def test_a_task_that_was_cancelled_but_not_awaited_is_left_behind() -> None:
    with pytest.raises(LeakError, match="'cancelled'"), no_leaks():
        task = asyncio.create_task(asyncio.sleep(3600), name="cancelled")
        await asyncio.sleep(0)
        task.cancel()
    await cancel(task)


async def test_what_was_there_before_is_not_the_fault_of_the_block() -> None:
    connection, waiting = Connection(), asyncio.create_task(park(Post()))
    await asyncio.sleep(0)
    with no_leaks():
        pass
    connection.closed = True
    await cancel(waiting)


async def test_what_was_there_before_and_leaks_only_now_is() -> None:
    connection = Connection()
    connection.closed = True
    with pytest.raises(LeakError, match="<Connection to nowhere> was not closed"), no_leaks():
        connection.closed = False
    connection.closed = True


async def test_a_task_from_before_may_wait_for_something_else_now() -> None:
    post = Post()

    async def work() -> None:
        while True:
            await park(post)

    worker = asyncio.create_task(work())
    await asyncio.sleep(0)
    with no_leaks():
        post.waiters.popleft().hand("parcel")
        await asyncio.sleep(0)
        assert post.waiters
    await cancel(worker)


async def test_what_nobody_can_reach_any_more_is_not_left_behind() -> None:
    with no_leaks():
        connection: Any = Connection()
        connection.itself = connection
        del connection


async def test_a_block_that_fails_is_not_checked() -> None:
    with pytest.raises(OSError), no_leaks():
        task = asyncio.create_task(asyncio.sleep(3600))
        raise OSError
    await cancel(task)


async def test_blocks_can_be_nested_and_each_answers_for_its_own() -> None:
    with no_leaks():
        outer = asyncio.create_task(asyncio.sleep(3600), name="outer")
        with pytest.raises(LeakError) as caught, no_leaks():
            inner = asyncio.create_task(asyncio.sleep(3600), name="inner")
        assert 1 == len(caught.value.leaks)
        await cancel(outer)
        await cancel(inner)


async def test_a_party_that_gave_up_and_is_still_registered_is_left_behind() -> None:
    post = Post(forgetful=True)
    with pytest.raises(LeakError, match=r"TaskWaiter .* is still registered, though nobody waits with it"), no_leaks():
        task = asyncio.create_task(park(post))
        await asyncio.sleep(0)
        await cancel(task)


async def test_a_party_that_was_registered_and_forgotten_is_left_behind() -> None:
    post = Post()
    with pytest.raises(LeakError, match="TaskWaiter"), no_leaks():
        post.register(TaskWaiter())
    post.waiters.clear()


async def test_a_thread_that_gave_up_and_is_still_registered_is_left_behind() -> None:
    post = Post(forgetful=True)

    def give_up() -> None:
        with pytest.raises(TimeoutError):
            park_thread(post, 0)

    with pytest.raises(LeakError, match="ThreadWaiter"), no_leaks():
        await asyncio.to_thread(give_up)


async def test_a_party_that_gave_up_is_nothing_when_only_an_error_remembers_it() -> None:
    with no_leaks(), pytest.raises(asyncio.CancelledError) as caught:
        task = asyncio.create_task(park(Post()))
        await asyncio.sleep(0)
        task.cancel()
        await task
    assert caught.value.__traceback__ is not None


def test_a_thread_that_goes_on_is_named_with_where_it_is(stop: threading.Event) -> None:
    def linger() -> None:
        stop.wait()

    with pytest.raises(LeakError) as caught, no_leaks():
        thread = threading.Thread(target=linger, name="lingering")
        thread.start()
    stop.set()
    thread.join()

    (leak,) = caught.value.leaks
    assert leak.startswith("thread 'lingering' goes on, in ")
    assert leak.endswith("linger")
    assert __file__ in leak


def test_a_thread_that_is_about_to_end_gets_a_moment_to_do_so() -> None:
    with no_leaks():
        threading.Thread(target=time.sleep, args=(0.3,)).start()


async def test_a_thread_of_a_pool_that_still_works_is_left_behind(stop: threading.Event) -> None:
    with pytest.raises(LeakError, match=r"thread 'yamanote-blocking-\d+' goes on"), no_leaks():
        handle = spawn_blocking(stop.wait)
        del handle
    stop.set()


async def test_a_thread_that_was_there_before_may_go_on(stop: threading.Event) -> None:
    thread = threading.Thread(target=stop.wait)
    thread.start()
    with no_leaks():
        pass
    stop.set()
    thread.join()


def test_tasks_of_other_loops_are_found_too() -> None:
    loop = asyncio.new_event_loop()
    with pytest.raises(LeakError, match="'elsewhere' has not started"), no_leaks():
        task = loop.create_task(asyncio.sleep(0), name="elsewhere")
    loop.run_until_complete(task)
    loop.close()


def test_any_class_can_take_part() -> None:
    assert isinstance(Connection(), Leak)
    with pytest.raises(LeakError, match="left behind:\n- <Connection to nowhere> was not closed"), no_leaks():
        connection = Connection()
    connection.closed = True


def test_a_class_that_cannot_be_hashed_is_no_obstacle() -> None:
    class Meta(type):
        def __eq__(self, other: object) -> bool:
            raise AssertionError("nobody compares classes")

    odd = Meta("Odd", (), {"attribute": []})()
    assert gc.is_tracked(odd)
    with pytest.raises(LeakError, match="Connection"), no_leaks():
        connection = Connection()
    connection.closed = True


def test_it_can_decorate_a_function() -> None:
    @no_leaks()
    def work() -> Connection:
        return Connection()

    with pytest.raises(LeakError, match="Connection"):
        work()


def test_with_tracemalloc_it_says_where_things_were_made() -> None:
    program = """
from yamanote.testing import LeakError, no_leaks
class Connection:
    __slots__ = ("peer",)  # 3.11 does not know where an object with a dictionary was made
    def __leak__(self):
        return "not closed"
try:
    with no_leaks():
        connection = Connection()
except LeakError as error:
    print(error)
"""
    command = [sys.executable, "-X", "tracemalloc=1", "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=True)

    assert "- not closed, made at <string>:9" in result.stdout
