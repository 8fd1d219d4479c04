"""What a barrier promises: nobody goes on before all are there, one leads, and each round stands alone."""

import asyncio
import threading

import pytest

from yamanote.runtime import BUDGET, Waiter, park, yield_now
from yamanote.sync import Barrier, BrokenBarrier
from yamanote.testing import step


async def settled() -> None:
    """Let every task run until it waits for somebody else."""
    for _ in range(20):
        await yield_now()


# ------------------------------------------------------------------ rounds


async def test_nobody_goes_on_before_all_are_there():
    barrier = Barrier(3)
    first, second = step(barrier.wait()), step(barrier.wait())
    first.assert_pending()
    second.assert_pending()
    assert barrier.value() == 2
    assert step(barrier.wait()).assert_ready() == 2, "the last one does not wait"
    assert first.assert_ready() == 0
    assert second.assert_ready() == 1
    assert barrier.value() == 0


async def test_each_round_has_one_leader_and_does_not_leak_into_the_next():
    barrier = Barrier(4)
    rounds = [[] for _ in range(50)]

    async def work():
        for positions in rounds:
            assert len(positions) < 4
            positions.append(await barrier.wait())

    await asyncio.gather(*(work() for _ in range(4)))
    assert all(sorted(positions) == [0, 1, 2, 3] for positions in rounds)
    assert barrier.value() == 0


async def test_a_round_takes_one_loop_turn():
    barrier = Barrier(10)
    done = []

    async def work():
        await barrier.wait()
        done.append(None)

    tasks = [asyncio.create_task(work()) for _ in range(9)]
    await settled()
    await barrier.wait()
    await yield_now()
    assert len(done) == 9
    await asyncio.gather(*tasks)


async def test_more_parties_than_a_round_has_make_the_next_round():
    barrier = Barrier(2)
    order = []

    async def work(name):
        order.append((name, await barrier.wait()))

    tasks = [asyncio.create_task(work(name)) for name in range(5)]
    await settled()
    assert sorted(order) == [(0, 0), (1, 1), (2, 0), (3, 1)]
    assert barrier.value() == 1
    await barrier.wait()
    await asyncio.gather(*tasks)


async def test_it_waits_in_front_of_a_block():
    barrier = Barrier(2)
    inside = []

    async def work():
        async with barrier as position:
            inside.append(position)

    first = asyncio.create_task(work())
    await settled()
    assert inside == []
    await work()
    await first
    assert sorted(inside) == [0, 1]


async def test_a_barrier_of_one_holds_up_nobody_but_not_for_ever():
    barrier = Barrier(1)
    turns = 0
    loop = asyncio.get_running_loop()

    def tick():
        nonlocal turns
        turns += 1
        timer[0] = loop.call_soon(tick)

    timer = [loop.call_soon(tick)]
    for _ in range(BUDGET - 1):
        assert await barrier.wait() == 0
    assert turns == 0
    for _ in range(5 * BUDGET):
        await barrier.wait()
    timer[0].cancel()
    assert 4 <= turns <= 6


async def test_it_can_be_waited_for_by_whoever_can_wait():
    barrier = Barrier(2)
    first = step(park(barrier))
    first.assert_pending()
    assert await park(barrier) == 1
    assert first.assert_ready() == 0


@pytest.mark.parametrize(("parties", "error"), [(0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError)])
def test_nonsense_is_refused(parties, error):
    with pytest.raises(error, match="parties must"):
        Barrier(parties)


# ------------------------------------------------------------------ who gives up


async def test_a_party_that_is_cancelled_has_not_been_there():
    barrier = Barrier(3)
    cancelled, second = asyncio.create_task(barrier.wait()), asyncio.create_task(barrier.wait())
    await settled()
    cancelled.cancel()
    third = step(barrier.wait())
    third.assert_pending()  # the cancelled one has not run since, but will not come
    await settled()
    assert barrier.value() == 2
    assert await barrier.wait() == 2
    assert await second == 0
    assert third.assert_ready() == 1
    assert cancelled.cancelled()


async def test_a_round_that_is_complete_stays_so_when_a_party_is_cancelled():
    barrier = Barrier(3)
    first, second = asyncio.create_task(barrier.wait()), asyncio.create_task(barrier.wait())
    await settled()
    assert await barrier.wait() == 2
    first.cancel()
    assert await second == 1
    await asyncio.wait([first])
    assert first.cancelled()
    assert barrier.value() == 0


# ------------------------------------------------------------------ broken


async def test_a_party_that_gives_up_while_the_round_is_completed_does_not_take_the_leader_along():
    class Leaving(Waiter[int]):
        def is_waiting(self) -> bool:
            return True  # it has given up right after that

    barrier = Barrier(3)
    barrier.register(Leaving([]))
    with step(barrier.wait()) as second:
        second.assert_pending()
        assert await barrier.wait() == 1
        assert second.assert_ready() == 0
    assert barrier.value() == 0


async def test_abort_refuses_those_who_wait_and_those_who_come_until_reset():
    barrier = Barrier(3)
    waiting = [asyncio.create_task(barrier.wait()) for _ in range(2)]
    await settled()
    barrier.abort()
    assert barrier.is_broken
    for error in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(error, BrokenBarrier)
        assert "aborted" in str(error)
    with pytest.raises(BrokenBarrier):
        await barrier.wait()
    with pytest.raises(BrokenBarrier):
        async with barrier:
            pass
    barrier.reset()
    assert not barrier.is_broken
    assert sorted(await asyncio.gather(*(barrier.wait() for _ in range(3)))) == [0, 1, 2]


async def test_reset_sends_away_those_who_wait_and_begins_anew():
    barrier = Barrier(2)
    waiting = asyncio.create_task(barrier.wait())
    await settled()
    barrier.reset()
    late = asyncio.create_task(barrier.wait())
    with pytest.raises(BrokenBarrier, match="reset"):
        await waiting
    assert await barrier.wait() == 1
    assert await late == 0


async def test_a_round_that_was_complete_is_not_broken_any_more():
    barrier = Barrier(2)
    waiting = asyncio.create_task(barrier.wait())
    await settled()
    assert await barrier.wait() == 1
    barrier.abort()
    assert await waiting == 0


def test_it_shows_its_state():
    barrier = Barrier(2)
    assert barrier.parties == 2
    assert repr(barrier).startswith("<Barrier 0 of 2 waiting at")
    barrier.abort()
    assert repr(barrier).startswith("<Barrier broken at")


# ------------------------------------------------------------------ threads


def test_a_thread_that_gives_up_has_not_been_there():
    barrier = Barrier(2)
    with pytest.raises(TimeoutError):
        barrier.blocking_wait(timeout=0.001)
    assert barrier.value() == 0
    assert not barrier.is_broken
    positions = []
    other = threading.Thread(target=lambda: positions.append(barrier.blocking_wait()))
    other.start()
    with barrier as position:
        positions.append(position)
    other.join()
    assert sorted(positions) == [0, 1]


async def test_blocking_in_the_thread_of_a_loop_is_refused():
    barrier = Barrier(1)
    with pytest.raises(RuntimeError, match="event loop"):
        barrier.blocking_wait()
    with pytest.raises(RuntimeError, match="event loop"):
        with barrier:
            pass
