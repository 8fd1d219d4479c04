"""Timeouts, sleeping and ticking against asyncio's own. Run it: `python benchmarks/timers.py --help`.

It is not named `time`, which would hide the module of the standard library. Figures are CPU time: what is spent while
everybody sleeps does not count.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from typing import Any

from harness import Version, Workload, check, main
from peers import installed, load

from yamanote.runtime import yield_now
from yamanote.time import Sleep, interval, interval_at, sleep, timeout

aiodrive = load("aiodrive")
aiotools = load("aiotools")
anyio = load("anyio")
kioto = load("kioto")
quattro = load("quattro")

Call = Callable[..., Coroutine[Any, Any, Any]]


def workloads(scale: float = 1.0) -> list[Workload]:
    """All of them, with about `scale` times the ordinary number of operations."""
    times = max(10, int(2000 * scale))
    tasks = max(10, int(1000 * scale))
    sleepers = max(50, int(10_000 * scale))
    ticks = max(5, int(50 * scale))
    return [
        Workload(
            "timeout around a ready coroutine",
            times,
            each(TIMEOUT, in_turn, times, answer),
            bar=0.30,
            also="Tokio: time_timeout, ready",
        ),
        Workload(
            "timeout around sleep(0)",
            times,
            each(TIMEOUT, in_turn, times, answer_later),
            bar=1.05,
            also="Tokio: time_timeout, pending",
        ),
        Workload("1000 tasks under a timeout, sleep(0)", tasks, each(TIMEOUT, at_once, tasks, answer_later), bar=1.05),
        Workload("yield to the loop once", times, each(YIELD, yielding, times), bar=1.05, also="Tokio: yield_many"),
        Workload("10k concurrent sleeps of 1..50 ms", sleepers, each(SLEEP, sleeping, sleepers), bar=1.05),
        Workload("interval, tick already due", times, each(OVERDUE, counted, times), bar=0.50),
        Workload("interval of 1 ms, CPU per tick", ticks, each(TICKS, in_time, ticks), bar=1.05),
        Workload("schedule and cancel a 10 s timer", times * 10, each(CANCEL, counted, times * 10), bar=0.17),
        Workload("1000 live timers, all reset once", tasks * 100, each(RESET, counted, 100, tasks), bar=0.15),
    ]


def each(calls: dict[str, Call], body: Call, *arguments: Any) -> dict[str, Version]:
    """`body`, with what each library calls."""
    return {library: partial(body, call, *arguments) for library, call in installed(calls).items()}


# ------------------------------------------------------------------------------------------- timeouts


async def answer() -> int:
    return 42


async def answer_later() -> int:
    await asyncio.sleep(0)
    return 42


async def in_turn(call: Call, times: int, work: Call) -> None:
    total = 0
    for _ in range(times):
        total += await call(work)
    check(total == times * 42, "some work was not done")


async def at_once(call: Call, tasks: int, work: Call) -> None:
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(call(work)) for _ in range(tasks)]
    check(sum(task.result() for task in running) == tasks * 42, "some work was not done")


async def asyncio_timeout(work: Call) -> Any:
    async with asyncio.timeout(10):
        return await work()


async def asyncio_wait_for(work: Call) -> Any:
    return await asyncio.wait_for(work(), 10)


async def yamanote_timeout(work: Call) -> Any:
    return await timeout(10, work())


async def yamanote_timeout_block(work: Call) -> Any:
    async with timeout(10):
        return await work()


async def aiotools_timeout(work: Call) -> Any:
    async with aiotools.timeout(10):
        return await work()


async def anyio_fail_after(work: Call) -> Any:
    with anyio.fail_after(10):
        return await work()


async def kioto_timeout(work: Call) -> Any:
    return await kioto.time.timeout(10, work())


async def quattro_fail_after(work: Call) -> Any:
    with quattro.fail_after(10):
        return await work()


TIMEOUT: dict[str, Call] = {
    "asyncio": asyncio_timeout,
    "asyncio.wait_for": asyncio_wait_for,
    "yamanote": yamanote_timeout,
    "yamanote.block": yamanote_timeout_block,
    "aiotools": aiotools_timeout,
    "anyio": anyio_fail_after,
    "kioto": kioto_timeout,
    "quattro": quattro_fail_after,
}


# ------------------------------------------------------------------------------------------- sleeping


async def yielding(call: Call, times: int) -> None:
    """The last one is watched; the table of turns tells of the others."""
    for _ in range(times - 1):
        await call()
    others: list[None] = []
    asyncio.get_running_loop().call_soon(others.append, None)
    await call()
    check(others, "nobody else could run")


YIELD: dict[str, Call] = {
    "asyncio": lambda: asyncio.sleep(0),
    "yamanote": yield_now,
    "yamanote.sleep": lambda: sleep(0),
    "aiodrive": lambda: aiodrive.suspend(),
    "anyio": lambda: anyio.sleep(0),
}


async def sleeping(call: Call, sleepers: int) -> None:
    loop = asyncio.get_running_loop()
    early = late = 0

    async def rest(seconds: float) -> None:
        nonlocal early, late
        start = loop.time()
        await call(seconds)
        # A loop may call a timer early by the resolution of its clock.
        if loop.time() - start < seconds - 1e-6:
            early += 1
        else:
            late += 1

    async with asyncio.TaskGroup() as group:
        for number in range(sleepers):
            group.create_task(rest((number % 50 + 1) / 1000))
    check(late == sleepers, f"{early} of {sleepers} woke up early")


SLEEP: dict[str, Call] = {
    "asyncio": asyncio.sleep,
    "yamanote": sleep,
    "anyio": lambda seconds: anyio.sleep(seconds),
}


# ------------------------------------------------------------------------------------------- ticks


async def counted(call: Call, *arguments: int) -> None:
    ticks = await call(*arguments)
    check(ticks == arguments[0], f"{ticks} ticks, not {arguments[0]}")


# Everything has been due for a second. The libraries differ in how often they let others run meanwhile: asyncio's
# `sleep` does each time, yamanote now and then, aiodrive and kioto never.


async def asyncio_overdue(times: int) -> int:
    loop = asyncio.get_running_loop()
    due = loop.time() - 1
    ticks = 0
    while ticks < times:
        await asyncio.sleep(max(0, due - loop.time()))
        due += 1e-6
        ticks += 1
    return ticks


async def yamanote_overdue(times: int) -> int:
    ticks = 0
    async for _ in interval_at(asyncio.get_running_loop().time() - 1, 1e-6):
        ticks += 1
        if ticks == times:
            break
    return ticks


async def aiodrive_overdue(times: int) -> int:
    ticks = 0
    async for _ in aiodrive.repeat_periodically(0):
        ticks += 1
        if ticks == times:
            break
    return ticks


async def kioto_overdue(times: int) -> int:
    due = kioto.time.interval_at(asyncio.get_running_loop().time() - 1, 1e-6)
    ticks = 0
    while ticks < times:
        await due.tick()
        ticks += 1
    return ticks


OVERDUE: dict[str, Call] = {
    "asyncio": asyncio_overdue,
    "yamanote": yamanote_overdue,
    "aiodrive": aiodrive_overdue,
    "kioto": kioto_overdue,
}


async def in_time(call: Call, ticks: int) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    await counted(call, ticks)
    # The first tick comes at once.
    least = (ticks - 1) * 0.001
    check(loop.time() - start > least - 1e-6, f"{ticks} ticks in {loop.time() - start:.4f} s, not {least:.3f} s")


async def asyncio_ticks(times: int) -> int:
    loop = asyncio.get_running_loop()
    due = loop.time()
    ticks = 0
    while ticks < times:
        await asyncio.sleep(max(0, due - loop.time()))
        due += 0.001
        ticks += 1
    return ticks


async def yamanote_ticks(times: int) -> int:
    ticks = 0
    async for _ in interval(0.001):
        ticks += 1
        if ticks == times:
            break
    return ticks


async def aiodrive_ticks(times: int) -> int:
    ticks = 0
    async for _ in aiodrive.repeat_periodically(0.001):
        ticks += 1
        if ticks == times:
            break
    return ticks


async def kioto_ticks(times: int) -> int:
    due = kioto.time.interval(0.001)
    ticks = 0
    while ticks < times:
        await due.tick()
        ticks += 1
    return ticks


TICKS: dict[str, Call] = {
    "asyncio": asyncio_ticks,
    "yamanote": yamanote_ticks,
    "aiodrive": aiodrive_ticks,
    "kioto": kioto_ticks,
}


# ------------------------------------------------------------------------------------------- timers that never fire

# A guard over one thing after the other, each of which ends in time, with a turn of the loop now and then. Where a
# timer can be moved one is enough; somebody waits for it all the time.

TURN = 100
"""After so many the loop gets to tidy up."""


def expire() -> None:
    raise AssertionError("the timer had been cancelled")


async def asyncio_call_later_cancel(times: int) -> int:
    loop = asyncio.get_running_loop()
    for number in range(times):
        handle = loop.call_later(10, expire)
        handle.cancel()
        if number % TURN == 0:
            await asyncio.sleep(0)
    return times


async def asyncio_reschedule_cancel(times: int) -> int:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as scope:
        for number in range(times):
            scope.reschedule(loop.time() + 10)
            scope.reschedule(None)
            if number % TURN == 0:
                await asyncio.sleep(0)
    return times


async def yamanote_stop(times: int) -> int:
    guard = Sleep(10)
    watchdog = asyncio.ensure_future(guard)
    for number in range(times):
        guard.reset()
        guard.stop()
        if number % TURN == 0:
            await asyncio.sleep(0)
    check(watchdog.cancel(), "the timer had been cancelled")
    return times


async def yamanote_deadline_cancel(times: int) -> int:
    loop = asyncio.get_running_loop()
    async with timeout(None) as scope:
        for number in range(times):
            scope.deadline = loop.time() + 10
            scope.deadline = None
            if number % TURN == 0:
                await asyncio.sleep(0)
    return times


async def anyio_deadline_cancel(times: int) -> int:
    loop = asyncio.get_running_loop()
    with anyio.fail_after(None) as scope:
        for number in range(times):
            scope.deadline = loop.time() + 10
            scope.deadline = math.inf
            if number % TURN == 0:
                await asyncio.sleep(0)
    return times


async def quattro_deadline_cancel(times: int) -> int:
    loop = asyncio.get_running_loop()
    with quattro.fail_after(None) as scope:
        for number in range(times):
            scope.deadline = loop.time() + 10
            scope.deadline = None
            if number % TURN == 0:
                await asyncio.sleep(0)
    return times


CANCEL: dict[str, Call] = {
    "asyncio": asyncio_call_later_cancel,
    "asyncio.timeout": asyncio_reschedule_cancel,
    "yamanote": yamanote_stop,
    "yamanote.block": yamanote_deadline_cancel,
    "anyio": anyio_deadline_cancel,
    "quattro": quattro_deadline_cancel,
}


# With one turn of the loop each time, as with connections that were idle for a while. To set up and to take down the
# timers is a part of it.


async def asyncio_call_later(times: int, timers: int) -> int:
    loop = asyncio.get_running_loop()
    handles = [loop.call_later(10, expire) for _ in range(timers)]
    resets = 0
    for _ in range(times):
        for number, handle in enumerate(handles):
            handle.cancel()
            handles[number] = loop.call_later(10, expire)
        resets += 1
        await asyncio.sleep(0)
    for handle in handles:
        handle.cancel()
    return resets


async def asyncio_reschedule(times: int, timers: int) -> int:
    loop = asyncio.get_running_loop()
    resets = 0
    async with AsyncExitStack() as stack:
        scopes = [await stack.enter_async_context(asyncio.timeout(10)) for _ in range(timers)]
        for _ in range(times):
            for scope in scopes:
                scope.reschedule(loop.time() + 10)
            resets += 1
            await asyncio.sleep(0)
    return resets


async def yamanote_reset(times: int, timers: int) -> int:
    naps = [Sleep(10) for _ in range(timers)]
    waiting = [asyncio.ensure_future(nap) for nap in naps]
    resets = 0
    for _ in range(times):
        for nap in naps:
            nap.reset()
        resets += 1
        await asyncio.sleep(0)
    check(all(wait.cancel() for wait in waiting), "a timer had been reset")
    return resets


async def yamanote_deadline(times: int, timers: int) -> int:
    loop = asyncio.get_running_loop()
    resets = 0
    async with AsyncExitStack() as stack:
        scopes = [await stack.enter_async_context(timeout(10)) for _ in range(timers)]
        for _ in range(times):
            for scope in scopes:
                scope.deadline = loop.time() + 10
            resets += 1
            await asyncio.sleep(0)
    return resets


async def anyio_deadline(times: int, timers: int) -> int:
    loop = asyncio.get_running_loop()
    resets = 0
    with ExitStack() as stack:
        scopes = [stack.enter_context(anyio.fail_after(10)) for _ in range(timers)]
        for _ in range(times):
            for scope in scopes:
                scope.deadline = loop.time() + 10
            resets += 1
            await asyncio.sleep(0)
    return resets


async def quattro_deadline(times: int, timers: int) -> int:
    loop = asyncio.get_running_loop()
    resets = 0
    with ExitStack() as stack:
        scopes = [stack.enter_context(quattro.fail_after(10)) for _ in range(timers)]
        for _ in range(times):
            for scope in scopes:
                scope.deadline = loop.time() + 10
            resets += 1
            await asyncio.sleep(0)
    return resets


RESET: dict[str, Call] = {
    "asyncio": asyncio_call_later,
    "asyncio.timeout": asyncio_reschedule,
    "yamanote": yamanote_reset,
    "yamanote.block": yamanote_deadline,
    "anyio": anyio_deadline,
    "quattro": quattro_deadline,
}


if __name__ == "__main__":
    main("time", workloads())
