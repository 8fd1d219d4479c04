"""What buttons and cargoes promise."""

import asyncio
import threading

import pytest

from yamanote.runtime import yield_now
from yamanote.sync import Button, Cargo


async def settled() -> None:
    """Let every task run until it waits for somebody else."""
    for _ in range(20):
        await yield_now()


async def test_a_press_wakes_all_who_wait_first_come_first():
    button = Button()
    order = []

    async def wait(name):
        await button
        order.append(name)

    tasks = [asyncio.create_task(wait(name)) for name in range(5)]
    await settled()
    button.press()
    await asyncio.gather(*tasks)
    assert order == list(range(5))


async def test_who_comes_after_a_press_waits_for_the_next():
    button = Button()
    button.press()
    waiting = asyncio.create_task(button.wait())
    await settled()
    assert not waiting.done()
    button.press()
    await waiting
    assert "pressed 2 times, 0 waiting" in repr(button)


async def test_a_task_that_waits_again_at_once_sees_every_press_that_comes_then():
    button = Button()
    presses = 0

    async def count():
        nonlocal presses
        while True:
            await button
            presses += 1

    counting = asyncio.create_task(count())
    for _ in range(3):
        await settled()
        button.press()
    await settled()
    assert presses == 3
    counting.cancel()
    await asyncio.wait([counting])
    assert button.statistics().waiting == 0


@pytest.mark.parametrize("value", [1, None, 0, "", ValueError("an ordinary value")])
async def test_a_cargo_brings_its_value_to_all_who_wait(value):
    cargo = Cargo()
    for press in (cargo.press, cargo):
        tasks = [asyncio.ensure_future(cargo), asyncio.create_task(cargo.wait())]
        await settled()
        press(value)
        press("for nobody")
        assert all([received is value for received in await asyncio.gather(*tasks)])


async def test_one_who_was_cancelled_leaves_nothing_behind():
    cargo = Cargo[int]()
    first, second = asyncio.create_task(cargo.wait()), asyncio.create_task(cargo.wait())
    await settled()
    cargo.press(1)
    first.cancel()
    assert await second == 1
    assert "pressed 1 times, 0 waiting" in repr(cargo)


def test_presses_cross_threads_both_ways():
    there, back = Cargo(), Button()

    async def answer():
        assert await there == "value"
        back.press()

    thread = threading.Thread(target=lambda: asyncio.run(answer()))
    thread.start()
    while not there.statistics().waiting:
        assert not back.blocking_wait(0.001)
    pressing = threading.Timer(0, there, ["value"])
    pressing.start()
    while "pressed 0 times" in repr(back):
        back.blocking_wait(0.001)
    thread.join()
    pressing.join()


def test_a_thread_waits_for_a_cargo():
    cargo = Cargo()
    received = []
    thread = threading.Thread(target=lambda: received.append(cargo.blocking_wait(10)))
    thread.start()
    while not cargo.statistics().waiting:
        with pytest.raises(TimeoutError):
            cargo.blocking_wait(0.001)
    cargo(None)
    thread.join()
    assert received == [None]


async def test_blocking_in_the_thread_of_a_loop_is_refused():
    for signal in (Button(), Cargo()):
        with pytest.raises(RuntimeError, match="event loop"):
            signal.blocking_wait()
