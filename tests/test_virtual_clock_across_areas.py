"""The virtual clock and threads that wait for the loop, in the ways of several areas."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from yamanote.channels import channel
from yamanote.runtime import spawn_blocking
from yamanote.sync import Event
from yamanote.threads import from_thread, to_thread
from yamanote.time import VirtualClock, sleep

HOUR = 3600.0


async def test_a_thread_that_calls_back_waits_in_virtual_time() -> None:
    with VirtualClock().patch_loop() as clock:
        async with asyncio.timeout(2 * HOUR):
            await to_thread(from_thread, asyncio.sleep, HOUR)
        assert clock.virtual_time() == HOUR


@pytest.mark.parametrize("call", [asyncio.to_thread, spawn_blocking])
async def test_a_thread_that_waits_for_an_item_gets_it_in_virtual_time(call: Callable[..., Any]) -> None:
    sender, receiver = channel[str](1)
    with VirtualClock().patch_loop() as clock, sender, receiver:
        waiting = asyncio.ensure_future(asyncio.wait_for(call(receiver.blocking_recv), 2 * HOUR))
        await sleep(HOUR)
        assert not waiting.done()
        await sender.send("item")
        assert await waiting == "item"
        assert clock.virtual_time() == HOUR


async def test_a_thread_that_waits_for_an_event_gets_it_in_virtual_time() -> None:
    event = Event()
    with VirtualClock().patch_loop() as clock:
        asyncio.get_running_loop().call_later(HOUR, event.set)
        await to_thread(event.blocking_wait)
        assert clock.virtual_time() == HOUR


async def test_the_time_limit_of_a_thread_is_real_and_virtual_time_does_not_wait_for_it() -> None:
    sender, receiver = channel[str](1)
    with VirtualClock().patch_loop() as clock, sender, receiver:
        with pytest.raises(TimeoutError):
            await to_thread(receiver.blocking_recv, timeout=0.001)
        assert clock.virtual_time() == 0
        waiting = asyncio.ensure_future(to_thread(receiver.blocking_recv, timeout=HOUR))
        await sleep(2 * HOUR)
        assert not waiting.done()
        await sender.send("item")
        assert await waiting == "item"


async def test_everybody_who_waits_for_an_hour_is_served_in_order() -> None:
    sender, receiver = channel[int](1)
    served: list[int] = []

    async def customer(number: int) -> None:
        await sleep(HOUR)
        await sender.send(number)

    with VirtualClock().patch_loop() as clock, sender, receiver:
        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(customer(number))
            for _ in range(100):
                served.append(await receiver.recv())
        assert served == list(range(100))
        assert clock.virtual_time() == HOUR
