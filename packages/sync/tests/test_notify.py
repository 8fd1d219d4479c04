"""What notifications promise."""

import asyncio
import threading

import pytest

from yamanote.runtime import BUDGET, park, yield_now
from yamanote.sync import Notify


async def settled() -> None:
    """Let every task run until it waits for somebody else."""
    for _ in range(20):
        await yield_now()


class Crowd:
    """Tasks that wait for one notification each, and who has had it."""

    def __init__(self, notify):
        self.notify = notify
        self.woken = []
        self.tasks = []

    async def gather(self, *names):
        for name in names:
            self.tasks.append(asyncio.create_task(self._wait(name), name=name))
        await settled()

    async def _wait(self, name):
        await self.notify.notified()
        self.woken.append(name)

    async def leave(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_one_notification_wakes_who_has_waited_longest():
    crowd = Crowd(notify := Notify())
    await crowd.gather("a", "b", "c")
    notify.notify_one()
    await settled()
    assert crowd.woken == ["a"]
    notify.notify_one()
    notify.notify_one()
    await settled()
    assert crowd.woken == ["a", "b", "c"]


async def test_the_last_who_came_can_be_woken_first():
    crowd = Crowd(notify := Notify())
    await crowd.gather("a", "b", "c")
    notify.notify_last()
    notify.notify_last()
    await settled()
    assert crowd.woken == ["c", "b"]
    await crowd.leave()


@pytest.mark.parametrize("notify_somebody", [Notify.notify_one, Notify.notify_last])
async def test_when_nobody_waits_one_permit_is_stored_and_never_two(notify_somebody):
    crowd = Crowd(notify := Notify())
    notify_somebody(notify)
    notify_somebody(notify)
    assert "a permit" in repr(notify)
    await notify.notified()
    assert "no permit" in repr(notify)
    await crowd.gather("a")
    assert crowd.woken == []
    await crowd.leave()


async def test_all_are_woken_at_once_and_nothing_is_stored():
    crowd = Crowd(notify := Notify())
    await crowd.gather("a", "b", "c")
    notify.notify_waiters()
    await settled()
    assert crowd.woken == ["a", "b", "c"]
    await crowd.gather("late")
    assert crowd.woken == ["a", "b", "c"]
    assert "no permit, 1 waiting" in repr(notify)
    await crowd.leave()


async def test_who_asked_before_all_were_notified_need_not_wait_yet():
    notify = Notify()
    early, also_early = notify.notified(), notify.notified()
    notify.notify_waiters()
    late = asyncio.ensure_future(notify.notified())
    await early
    await park(also_early)
    await settled()
    assert not late.done()
    notify.notify_one()
    await late


async def test_who_is_notified_with_all_leaves_the_permit_to_others():
    notify = Notify()
    early = notify.notified()
    notify.notify_one()
    notify.notify_waiters()
    await early
    assert "a permit" in repr(notify)


async def test_one_that_has_come_waits_for_the_next_when_it_is_awaited_again():
    notify = Notify()
    notified = notify.notified()
    notify.notify_waiters()
    await notified
    again = asyncio.ensure_future(notified)
    await settled()
    assert not again.done()
    notify.notify_waiters()
    await again


async def test_a_notification_of_one_who_was_cancelled_goes_to_the_next():
    crowd = Crowd(notify := Notify())
    await crowd.gather("a", "b", "c")
    notify.notify_one()
    crowd.tasks[0].cancel()
    await settled()
    assert crowd.woken == ["b"]
    await crowd.leave()


async def test_a_notification_of_the_last_who_was_cancelled_goes_to_who_is_last_then():
    crowd = Crowd(notify := Notify())
    await crowd.gather("a", "b", "c")
    notify.notify_last()
    crowd.tasks[2].cancel()
    await settled()
    assert crowd.woken == ["b"]
    await crowd.leave()


@pytest.mark.parametrize("notify_somebody", [Notify.notify_one, Notify.notify_last])
async def test_a_notification_that_nobody_else_waits_for_is_stored_when_its_party_is_cancelled(notify_somebody):
    crowd = Crowd(notify := Notify())
    await crowd.gather("a")
    notify_somebody(notify)
    await crowd.leave()
    assert "a permit, 0 waiting" in repr(notify)
    await notify.notified()


async def test_what_comes_back_makes_no_second_permit():
    crowd = Crowd(notify := Notify())
    await crowd.gather("a")
    notify.notify_one()
    notify.notify_one()
    await crowd.leave()
    await notify.notified()
    assert "no permit" in repr(notify)


async def test_who_was_cancelled_when_all_were_notified_is_still_told_when_it_waits_again():
    notify = Notify()
    notified = notify.notified()
    waiting = asyncio.ensure_future(notified)
    await settled()
    notify.notify_waiters()
    waiting.cancel()
    await asyncio.wait([waiting])
    await notified
    assert "no permit, 0 waiting" in repr(notify)


async def test_one_who_was_cancelled_before_is_passed_over():
    crowd = Crowd(notify := Notify())
    await crowd.gather("a", "b")
    crowd.tasks[0].cancel()
    notify.notify_one()
    await settled()
    assert crowd.woken == ["b"]
    assert notify.statistics().waiting == 0


async def test_who_always_finds_a_permit_yields_once_in_a_while():
    notify = Notify()
    other = asyncio.create_task(asyncio.sleep(0))
    for _ in range(3 * BUDGET):
        notify.notify_one()
        await notify.notified()
    assert other.done()


def test_a_thread_and_a_loop_notify_each_other():
    there, back = Notify(), Notify()

    async def answer():
        await there.notified()
        back.notify_one()

    thread = threading.Thread(target=lambda: asyncio.run(answer()))
    thread.start()
    there.notify_one()
    assert back.notified().blocking_wait(timeout=10)
    thread.join()
    assert not back.notified().blocking_wait(timeout=0.001)
    assert back.statistics().waiting == 0


async def test_blocking_in_the_thread_of_a_loop_is_refused():
    with pytest.raises(RuntimeError, match="event loop"):
        Notify().notified().blocking_wait()
