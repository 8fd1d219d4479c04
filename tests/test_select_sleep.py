"""A resettable sleep as a branch of a select: what ends a loop in which nothing has happened for so long."""

import asyncio
from typing import Any

from yamanote.channels import channel
from yamanote.futures import select
from yamanote.runtime import run, spawn
from yamanote.testing import explore, explore_cancellations
from yamanote.time import Sleep, VirtualClock, sleep, time


def test_an_idle_loop_ends_so_many_seconds_after_the_last_message() -> None:
    async def main() -> None:
        start = time()
        tx, rx = channel(8)
        received = []

        async def send() -> None:
            for number in range(100):
                await sleep(29)
                await tx.send(number)

        async def receive() -> float:
            idle = Sleep(30)
            while True:
                match await select(message=rx, idle=idle):
                    case "message", number:
                        received.append(number)
                        idle.reset()
                    case _, value:
                        assert value is None
                        return time() - start

        with tx, rx:
            sending = spawn(send())
            assert await receive() == 100 * 29 + 30
            await sending
        assert received == list(range(100))

    run(main(), clock=VirtualClock())


def test_a_loop_that_selects_it_again_and_again_costs_one_timer() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        made = []
        call_at = loop.call_at

        def counted(when: float, *arguments: Any, **keywords: Any) -> asyncio.TimerHandle:
            made.append(when)
            return call_at(when, *arguments, **keywords)

        loop.call_at = counted  # type: ignore[method-assign]
        tx, rx = channel(1)

        async def send() -> None:
            for number in range(1000):
                await tx.send(number)

        with tx, rx:
            sending = spawn(send())
            idle = Sleep(30)
            for number in range(1000):
                assert await select(idle=idle, message=rx) == ("message", number)
                idle.reset_after(30)
                await asyncio.sleep(0)  # the work that a message makes
            await sending
        assert made == [30]
        assert "0 waiting" in repr(idle)

    run(main(), loop_factory=VirtualClock().loop_factory)


async def one_of_two_sleeps() -> None:
    """Of two sleeps the one that comes first is taken, whatever moves meanwhile, and the other goes on."""
    short, long = Sleep(1), Sleep(2)
    won: list[tuple[str, float]] = []

    async def wait() -> None:
        name, _ = await select(short=short, long=long)
        won.append((name, time()))

    async def move() -> None:
        await sleep(0.5)
        short.reset_at(3)

    tasks = [asyncio.create_task(wait()), asyncio.create_task(wait()), asyncio.create_task(move())]
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()
    assert set(won) <= ({("short", 1.0)} if tasks[2].cancelled() else {("long", 2.0)})
    assert "0 waiting" in repr(short) and "0 waiting" in repr(long)
    await short
    await long
    assert time() == short.deadline or time() == long.deadline


def test_two_sleeps_in_any_order() -> None:
    explore(one_of_two_sleeps, runs=40)


def test_two_sleeps_cancelled_anywhere() -> None:
    explore_cancellations(one_of_two_sleeps, runs=60)
