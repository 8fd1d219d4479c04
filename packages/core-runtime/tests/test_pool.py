"""Pools of blocking calls that somebody makes for himself."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextvars import Context, ContextVar
from typing import Any

import pytest

from yamanote.runtime import (
    BlockingPool,
    JoinError,
    JoinHandle,
    cancel_and_wait,
    current_token,
    run,
    spawn_blocking,
)


@pytest.fixture
def pool() -> Iterator[BlockingPool]:
    pool = BlockingPool(2, name="disk")
    yield pool
    pool.shutdown()


class Gate:
    """Calls that are in progress until it is opened."""

    def __init__(self, parties: int) -> None:
        self.all_inside = threading.Barrier(parties + 1)
        self.opened = threading.Event()

    def work(self) -> str:
        self.all_inside.wait(60)
        self.opened.wait(60)
        return "done"


# ---------------------------------------------------------------------- what it is made of


def test_its_threads_bear_its_name_and_are_no_more_than_its_size(pool: BlockingPool) -> None:
    gate = Gate(2)
    handles = [pool.spawn(gate.work) for _ in range(5)]
    gate.all_inside.wait(60)
    assert {thread.name for thread in threading.enumerate()} >= {"disk-1", "disk-2"}
    assert pool.statistics().threads == 2
    gate.all_inside = threading.Barrier(1)
    gate.opened.set()
    assert [handle.result(60) for handle in handles] == ["done"] * 5
    assert "disk-3" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_below_one_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="size"):
        BlockingPool(size)


@pytest.mark.parametrize("size", [1.5, True, "2", None])
def test_a_size_that_is_no_whole_number_is_refused(size: Any) -> None:
    with pytest.raises(TypeError, match="size"):
        BlockingPool(size)


def test_nonsense_for_the_idle_seconds_is_refused() -> None:
    for idle in (-1, math.nan):
        with pytest.raises(ValueError, match="idle"):
            BlockingPool(idle=idle)
    with pytest.raises(TypeError, match="idle"):
        BlockingPool(idle="1")  # type: ignore[arg-type]


@pytest.mark.parametrize("idle", [0, 0.001])
def test_an_idle_thread_ends_after_its_time(idle: float) -> None:
    pool = BlockingPool(idle=idle)
    thread = pool.spawn(threading.current_thread).result(60)
    thread.join(60)
    assert not thread.is_alive() and pool.statistics().threads == 0
    assert pool.shutdown() == []


def test_threads_that_never_end_of_themselves_end_with_the_pool() -> None:
    pool = BlockingPool(idle=math.inf)
    thread = pool.spawn(threading.current_thread).result(60)
    assert pool.shutdown() == []
    assert not thread.is_alive()


def test_it_says_what_it_is_doing(pool: BlockingPool) -> None:
    gate = Gate(2)
    handles = [pool.spawn(gate.work) for _ in range(2)]
    gate.all_inside.wait(60)
    handles.append(pool.spawn(str))
    assert repr(pool) == "<BlockingPool 'disk' open threads=2 queued=1>"
    gate.opened.set()
    for handle in handles:
        handle.result(60)


# ---------------------------------------------------------------------- whom it serves


def test_it_serves_several_loops_and_plain_threads(pool: BlockingPool) -> None:
    values: list[int] = []

    async def ask() -> int:
        return await pool.spawn(len, "ab") + sum(await pool.map(len, ["abc", "abcd"]))

    def work() -> None:
        values.append(run(ask()))
        values.append(pool.spawn(len, "abcde").result(60))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values.count(9) == 4 and values.count(5) == 4
    assert pool.statistics().threads <= 2


def test_a_plain_thread_gets_errors_and_cancellations(pool: BlockingPool) -> None:
    error = LookupError("x")

    def fail() -> None:
        raise error

    failing = pool.spawn(fail)
    for _ in range(2):
        with pytest.raises(LookupError) as caught:
            failing.result(60)
        assert caught.value is error

    gate = Gate(2)
    held = [pool.spawn(gate.work) for _ in range(2)]
    gate.all_inside.wait(60)
    with pytest.raises(TimeoutError):
        held[0].result(0)
    dropped = pool.spawn(len, "abc")
    dropped.abort("too late")
    with pytest.raises(JoinError, match="too late"):
        dropped.result(60)
    gate.opened.set()
    assert held[0].result(60) == "done"


def test_a_call_of_a_plain_thread_can_be_awaited_on_a_loop(pool: BlockingPool) -> None:
    gate = Gate(1)
    handle = pool.spawn(gate.work)
    gate.all_inside.wait(60)

    async def wait() -> str:
        asyncio.get_running_loop().call_later(0.001, gate.opened.set)
        return await handle

    assert run(wait()) == "done"
    assert run(wait()) == "done"


def test_an_error_that_no_plain_thread_asks_for_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    pool = BlockingPool(1)

    def fail() -> None:
        raise LookupError("lost")

    pool.spawn(fail)
    assert pool.shutdown() == []
    assert caplog.text.count("LookupError: lost") == 1


def test_many_plain_threads_at_once_lose_nothing(pool: BlockingPool) -> None:
    values: list[int] = []

    def ask(base: int) -> None:
        handles = [pool.spawn(abs, -base - number) for number in range(200)]
        values.extend(handle.result(60) for handle in handles)

    threads = [threading.Thread(target=ask, args=(base * 200,)) for base in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(values) == list(range(800))
    assert pool.statistics().completed == 800


async def test_calls_of_one_pool_do_not_wait_for_those_of_another(pool: BlockingPool) -> None:
    gate = Gate(2)
    held = [pool.spawn(gate.work) for _ in range(2)]
    await spawn_blocking(gate.all_inside.wait, 60)
    assert await spawn_blocking(len, "abc") == 3
    gate.opened.set()
    assert [await handle for handle in held] == ["done"] * 2


async def test_run_waits_for_the_calls_of_every_pool(pool: BlockingPool) -> None:
    made: list[int] = []

    async def forgetful() -> None:
        pool.spawn(lambda: (time.sleep(0.01), made.append(1)))

    await asyncio.to_thread(run, forgetful())
    assert made == [1]


async def test_a_map_of_its_own_makes_no_more_calls_at_once_than_it_has_threads(pool: BlockingPool) -> None:
    lock = threading.Lock()
    running = most = 0

    def work(_: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.0001)
        with lock:
            running -= 1

    await pool.map(work, range(20))
    assert 1 <= most <= 2


def test_an_idle_thread_keeps_nothing_of_who_started_it() -> None:
    class Thing:
        pass

    variable: ContextVar[object] = ContextVar("variable")
    pool = BlockingPool(1, idle=math.inf)

    def ask() -> weakref.ref[Thing]:
        thing = Thing()
        variable.set(thing)
        pool.spawn(len, "").result(60)
        return weakref.ref(thing)

    thing = Context().run(ask)
    gc.collect()
    assert pool.statistics().threads == 1
    assert thing() is None
    pool.shutdown()


# ---------------------------------------------------------------------- statistics


async def test_it_counts_its_threads_and_calls(pool: BlockingPool) -> None:
    nothing = pool.statistics()
    assert (nothing.size, nothing.threads, nothing.queued, nothing.completed) == (2, 0, 0, 0)

    gate = Gate(2)
    held = [pool.spawn(gate.work) for _ in range(2)]
    dropped = pool.spawn(len, "")
    await asyncio.to_thread(gate.all_inside.wait, 60)
    dropped.abort()
    held[0].abort()
    busy = pool.statistics()
    assert (busy.threads, busy.busy, busy.idle, busy.abandoned, busy.queued) == (2, 2, 0, 1, 1)
    assert (busy.completed, busy.dropped) == (0, 0)

    gate.opened.set()
    for handle in held:
        await handle
    await pool.spawn(len, "")
    later = pool.statistics()
    assert later.queued == 0 and later.abandoned == 0
    assert (later.completed, later.dropped) == (3, 1)


def test_what_threads_that_have_ended_did_still_counts() -> None:
    pool = BlockingPool(idle=0)
    for _ in range(3):
        pool.spawn(threading.current_thread).result(60).join(60)
    statistics = pool.statistics()
    assert statistics.threads == 0 and statistics.completed == 3
    pool.shutdown()


# ---------------------------------------------------------------------- shutdown


def test_shutdown_makes_what_was_asked_for_and_takes_no_more() -> None:
    pool = BlockingPool(1)
    made: list[int] = []
    handles = [pool.spawn(made.append, number) for number in range(100)]
    assert pool.shutdown() == []
    assert made == list(range(100)) and all(handle.is_finished() for handle in handles)
    assert pool.statistics().threads == 0
    with pytest.raises(RuntimeError, match="'yamanote-blocking' has been shut down"):
        pool.spawn(len, "")
    assert pool.shutdown(0) == []


def test_a_pool_that_was_never_used_shuts_down_at_once() -> None:
    pool = BlockingPool()
    assert pool.shutdown(0) == []


async def test_a_closed_pool_refuses_a_map() -> None:
    pool = BlockingPool()
    await spawn_blocking(pool.shutdown)
    with pytest.raises(RuntimeError, match="shut down"):
        await pool.map(len, ["a"])


def test_shutdown_names_what_is_stuck_tells_it_and_leaves_it_behind(caplog: pytest.LogCaptureFixture) -> None:
    pool = BlockingPool(1, name="disk")
    inside, gate = threading.Event(), threading.Event()
    told: list[bool] = []

    def stuck() -> None:
        inside.set()
        gate.wait(60)
        told.append(current_token().is_cancelled())

    running = pool.spawn(stuck)
    waiting = pool.spawn(len, "abc")
    inside.wait(60)
    here = "test_shutdown_names_what_is_stuck_tells_it_and_leaves_it_behind.<locals>."
    left = [f"{here}stuck() in disk-1", "len(), which no thread has begun"]
    assert sorted(pool.shutdown(0.001)) == sorted(left)
    assert all(name in caplog.text for name in left)
    with pytest.raises(JoinError, match="shut down"):
        waiting.result(60)
    with pytest.raises(RuntimeError, match="shut down"):
        pool.spawn(len, "")
    gate.set()
    running.result(60)
    assert told == [True]
    assert pool.shutdown() == []


async def test_shutdown_would_block_a_loop_and_says_so(pool: BlockingPool) -> None:
    with pytest.raises(RuntimeError, match="spawn_blocking"):
        pool.shutdown()
    assert await pool.spawn(len, "") == 0


def test_a_call_cannot_wait_for_the_end_of_its_own_pool(pool: BlockingPool) -> None:
    with pytest.raises(RuntimeError, match="cannot wait"):
        pool.spawn(pool.shutdown).result(60)
    assert pool.spawn(len, "").result(60) == 0


def test_calls_that_come_while_it_shuts_down_are_made_or_refused() -> None:
    for _ in range(20):
        pool = BlockingPool(2)
        handles: list[JoinHandle[int]] = []
        refused = threading.Event()

        def ask(pool: BlockingPool = pool, handles: Any = handles, refused: threading.Event = refused) -> None:
            try:
                while True:
                    handles.append(pool.spawn(len, "abc"))
            except RuntimeError:
                refused.set()

        asking = threading.Thread(target=ask)
        asking.start()
        assert pool.shutdown() == []
        asking.join(60)
        assert refused.is_set()
        # What was taken at the last moment was taken by a thread, or said to be dropped.
        assert [handle.result(60) for handle in handles] == [3] * len(handles)


def test_a_pool_that_nobody_refers_to_any_more_goes_when_its_threads_have_gone() -> None:
    pool = BlockingPool(idle=0)
    thread = pool.spawn(threading.current_thread).result(60)
    thread.join(60)
    gone = weakref.ref(pool)
    del pool, thread
    gc.collect()
    assert gone() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_may_use_it_too(pool: BlockingPool) -> None:
    assert pool.spawn(len, "abc").result(60) == 3
    child = os.fork()
    if not child:
        logging.disable()
        os._exit(0 if pool.spawn(len, "abcd").result(60) == 4 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert pool.spawn(len, "abcde").result(60) == 5


async def test_a_cancelled_owner_can_wait_until_a_call_is_over(pool: BlockingPool) -> None:
    gate = Gate(1)

    async def own() -> None:
        call = pool.spawn(gate.work)
        try:
            await call
        finally:
            await cancel_and_wait(call)
            assert call.is_finished() and not call.is_cancelled()

    owner = asyncio.ensure_future(own())
    while not gate.all_inside.n_waiting:
        await asyncio.sleep(0.001)
    gate.all_inside.wait(60)
    owner.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not owner.done()
    gate.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await owner
