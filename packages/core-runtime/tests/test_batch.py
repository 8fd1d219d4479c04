from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from typing import Any

import pytest

from yamanote.runtime import JoinError, JoinHandle, run, spawn, spawn_blocking
from yamanote.runtime._batch import Batch

PATIENCE = 20.0


async def value_of(value: int, turns: int = 0) -> int:
    for _ in range(turns):
        await asyncio.sleep(0)
    return value


async def fail(error: BaseException, turns: int = 0) -> int:
    for _ in range(turns):
        await asyncio.sleep(0)
    raise error


def test_the_values_come_in_the_order_of_the_coroutines_whoever_ends_first() -> None:
    async def main() -> None:
        handle = spawn(*[value_of(number, (number * 7) % 5) for number in range(200)])
        assert isinstance(handle, Batch)
        values = list(range(200))
        assert await handle == values
        assert await handle == values
        assert await spawn_blocking(handle.result, PATIENCE) == values
        assert await spawn() == []

    run(main(), workers=3)


def test_the_first_error_in_their_order_is_raised_and_the_others_are_reported_once() -> None:
    reports: list[BaseException] = []

    async def watch() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report["exception"]))

    async def main() -> None:
        for number in range(2):
            await spawn(watch(), on=number)
        with pytest.raises(LookupError):
            await spawn(value_of(1), fail(LookupError(), 3), fail(ValueError()), fail(KeyError(), 1))
        gc.collect()

    run(main(), workers=2)
    gc.collect()
    assert sorted(type(report).__name__ for report in reports) == ["KeyError", "ValueError"]


def test_one_that_is_cancelled_is_told_by_a_join_error() -> None:
    async def main() -> None:
        with pytest.raises(JoinError, match="each-1 was cancelled: of its own accord"):
            await spawn(value_of(0), fail(asyncio.CancelledError("of its own accord"), 1), name="each")

    run(main(), workers=2)


def test_abort_closes_what_has_not_started_and_cancels_what_runs_once() -> None:
    cancelled: list[str] = []
    begun: list[int] = []
    entered, release = threading.Barrier(3), threading.Event()

    async def keep_busy() -> None:
        entered.wait(PATIENCE)
        release.wait(PATIENCE)

    async def work() -> None:
        begun.append(1)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError as error:
            cancelled.append(error.args[0])
            await asyncio.sleep(0.001)  # a second one would arrive here
            raise

    async def main() -> None:
        coroutines = [value_of(number) for number in range(10)]
        for number in (1, 2):
            spawn(keep_busy(), on=number)
        entered.wait(PATIENCE)
        handle: JoinHandle[Any] = spawn(*coroutines)
        handle.abort("never mind")
        with pytest.raises(JoinError, match="never mind"):
            await handle
        release.set()
        for coroutine in coroutines:
            with pytest.raises(RuntimeError, match="cannot reuse"):
                await coroutine
        handle = spawn(*[work() for _ in range(10)])
        while len(begun) < 10:
            await asyncio.sleep(0)
        handle.abort("enough")
        with pytest.raises(JoinError, match="enough"):
            await handle
        assert cancelled == ["enough"] * 10

    run(main(), workers=3)


def test_abort_reaches_one_that_is_in_its_first_step_once() -> None:
    async def main() -> None:
        handles: list[JoinHandle[Any]] = []
        cancelled: list[str] = []

        known = threading.Event()

        async def work() -> None:
            known.wait(PATIENCE)
            handles[0].abort("from inside")
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError as error:
                cancelled.append(error.args[0])
                await asyncio.sleep(0.001)
                raise

        async def wait() -> None:
            await asyncio.sleep(3600)

        handles.append(spawn(work(), wait()))
        known.set()
        with pytest.raises(JoinError, match="from inside"):
            await handles[0]
        assert cancelled == ["from inside"]

    run(main(), workers=2)


def test_one_of_them_cannot_wait_for_all() -> None:
    async def main() -> None:
        handles: list[JoinHandle[Any]] = []

        known = threading.Event()

        async def wait_for_all() -> None:
            known.wait(PATIENCE)
            for _ in range(2):
                with pytest.raises(RuntimeError, match="its own end"):
                    await handles[0]
                await asyncio.sleep(0)

        handles.append(spawn(wait_for_all(), wait_for_all()))
        known.set()
        await handles[0]

    run(main(), workers=2)


def test_each_runs_in_its_own_copy_of_the_context_of_the_call() -> None:
    variable = contextvars.ContextVar("variable", default="before")

    async def look() -> tuple[str, str]:
        first = variable.get()
        variable.set("mine")
        await asyncio.sleep(0)
        return first, variable.get()

    async def main() -> None:
        variable.set("at the call")
        handle = spawn(*[look() for _ in range(20)])
        variable.set("later")
        assert set(await handle) == {("at the call", "mine")}

    run(main(), workers=3)


def test_a_worker_that_sleeps_takes_its_share_at_once() -> None:
    """Also of a batch that comes in one piece."""
    both = threading.Barrier(2)

    async def meet() -> int:
        both.wait(PATIENCE)
        return threading.get_ident()

    async def main() -> None:
        assert len(set(await spawn(meet(), meet()))) == 2

    run(main(), workers=2)
