"""Select over both ends of channels: one branch commits, and the others have neither sent nor received anything."""

import asyncio

import pytest

from yamanote.channels import channel
from yamanote.futures import select


async def test_of_a_send_a_receive_and_a_reservation_the_one_that_can_go_on_is_taken():
    (jobs, work), (results, done) = channel[int](1), channel[int](1)
    with jobs, work, results, done:
        jobs.send_nowait(1)
        name, permits = await select(sent=jobs.sending(2), received=done, room=results.reserving(), biased=True)
        assert name == "room"
        for permit in permits:
            permit.send(3)
        assert await select(sent=jobs.sending(2), received=done) == ("received", 3)
        assert await work.recv_many(9) == [1]
        assert await select(sent=jobs.sending(4), received=done) == ("sent", None)
        assert await work.recv_many(9) == [4]


async def test_a_send_that_loses_was_not_sent_and_serves_who_stands_behind_it():
    (tx, rx), (stop, stopped) = channel[int](1), channel[str](1)
    with tx, rx, stop, stopped:
        tx.send_nowait(1)
        selecting = asyncio.create_task(select(sent=tx.sending(2), stopped=stopped))
        await asyncio.sleep(0)
        sending = asyncio.create_task(tx.send(3))
        await asyncio.sleep(0)
        stop.send_nowait("now")
        assert await selecting == ("stopped", "now")
        assert await rx.recv_many(9) == [1, 3]
        await sending


async def test_a_select_meets_the_other_side_of_a_rendezvous():
    tx, rx = channel[str](0)
    with tx, rx:
        sending = asyncio.create_task(tx.send("a"))
        await asyncio.sleep(0)
        assert await select(rx=rx, timeout=0) == ("rx", "a")
        await sending
        with pytest.raises(TimeoutError):
            await select(tx=tx.sending("b"), timeout=0)
        receiving = asyncio.create_task(rx.recv())
        await asyncio.sleep(0)
        assert await select(tx=tx.sending("c"), timeout=0) == ("tx", None)
        assert await receiving == "c"


async def test_two_selects_meet():
    tx, rx = channel[str](0)
    with tx, rx:
        selecting = asyncio.create_task(select(rx=rx, timeout=5))
        assert await select(tx=tx.sending("a"), timeout=5) == ("tx", None)
        assert await selecting == ("rx", "a")
