"""Several workers: what is still there when the program ends is ended on all of them, and what is left is named."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest

from yamanote.runtime import JoinError, JoinHandle, JoinSet, Runtime, map, run, spawn, yield_now

PATIENCE = 20.0
"""Seconds after which a test gives up."""


async def thread_of(turns: int = 0) -> int:
    for _ in range(turns):
        await asyncio.sleep(0)
    return threading.get_ident()


def test_work_that_is_pending_on_every_worker_is_ended_in_order(caplog: pytest.LogCaptureFixture) -> None:
    cleaned: list[int] = []
    never_started: list[Any] = []

    async def work(number: int) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            # It can still start something, here.
            here = threading.get_ident()
            assert await spawn(thread_of(1)) == here
            assert await spawn(thread_of(), thread_of(1)) == [here] * 2
            assert await map(lambda _: thread_of(1), range(3), limit=2) == [here] * 3
            jobs: JoinSet[int] = JoinSet()
            jobs.spawn(thread_of(1))
            assert await jobs.join_all() == [here]
            with pytest.raises(JoinError, match="shut down"):
                await spawn(thread_of(), on=(number + 1) % 3)
            cleaned.append(number)

    async def program() -> None:
        for number in range(3):
            for _ in range(5):
                spawn(work(number), on=number)
        await asyncio.sleep(0)
        for number in range(3):
            await spawn(yield_now(), on=number)
        never_started.extend(work(100) for _ in range(100))
        for coroutine in never_started:
            spawn(coroutine)

    with caplog.at_level(logging.WARNING, "yamanote"), warnings.catch_warnings():
        warnings.simplefilter("error")
        run(program(), workers=3)
        gc.collect()
    assert {number: cleaned.count(number) for number in range(3)} == dict.fromkeys(range(3), 5)
    for coroutine in never_started:
        assert coroutine.cr_frame is None


def test_asynchronous_generators_of_every_worker_are_closed() -> None:
    closed: list[int] = []
    kept: list[AsyncIterator[int]] = []

    async def numbers(number: int) -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append(number)

    async def begin(number: int) -> None:
        kept.append(numbers(number))
        await anext(kept[-1])

    async def program() -> None:
        for number in range(3):
            await spawn(begin(number), on=number)

    run(program(), workers=3)
    assert sorted(closed) == [0, 1, 2]


def test_tasks_of_two_workers_that_need_each_other_in_their_clean_up_end() -> None:
    ended: list[int] = []

    async def program() -> None:
        released: dict[int, Any] = {}

        async def work(number: int) -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                released[number] = True
                while len(released) < 3:
                    await asyncio.sleep(0)
                ended.append(number)

        for number in range(3):
            spawn(work(number), on=number)
        for number in range(3):
            await spawn(yield_now(), on=number)

    run(program(), workers=3, shutdown_timeout=PATIENCE)
    assert sorted(ended) == [0, 1, 2]


def test_a_worker_that_is_stuck_is_named_with_where_it_is_and_left(
    blocked: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with blocked() as block:
        entered = threading.Event()

        async def stuck_in_here() -> None:
            entered.set()
            block()

        async def program() -> str:
            spawn(stuck_in_here(), on=1)
            entered.wait(PATIENCE)
            return "done"

        with caplog.at_level(logging.WARNING, "yamanote"):
            assert run(program(), workers=3, shutdown_timeout=0.01) == "done"
        (record,) = [record for record in caplog.records if "stuck, and left behind" in record.getMessage()]
        assert "worker 1" in record.getMessage()
        assert "in test_a_worker_that_is_stuck" in record.getMessage()
        assert "stuck_in_here" in record.getMessage()


def test_a_task_that_does_not_end_is_named_wherever_it_is(caplog: pytest.LogCaptureFixture) -> None:
    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass

    async def program() -> None:
        spawn(stubborn(), on=1, name="the stubborn one")
        await spawn(yield_now(), on=1)

    with caplog.at_level(logging.WARNING, "yamanote"):
        run(program(), workers=2, shutdown_timeout=0.02)
    assert any("left behind" in text and "the stubborn one" in text for text in caplog.messages)


def test_it_runs_again_and_again_and_in_another_thread() -> None:
    async def program() -> int:
        return len(await spawn(*[thread_of(1) for _ in range(20)]))

    for _ in range(5):
        assert run(program(), workers=3) == 20
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(run(program(), workers=2))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert results == [20, 20]


def test_by_hand_the_other_workers_go_on_between_the_calls() -> None:
    with Runtime(workers=2) as runtime:
        ended = threading.Event()

        async def finish() -> None:
            await asyncio.sleep(0.001)
            ended.set()

        async def begin() -> JoinHandle[None]:
            return spawn(finish(), on=1)

        handle = runtime.run_until_complete(begin())
        assert ended.wait(PATIENCE)
        runtime.run_until_complete(handle)
        assert runtime.run_until_complete(runtime.spawn(thread_of())) is not None
    runtime.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        runtime.handle.spawn(thread_of())


def test_a_runtime_that_never_ran_is_shut_down() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Runtime(workers=3).shutdown()
        gc.collect()
