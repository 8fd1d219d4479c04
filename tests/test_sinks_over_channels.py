"""A sink sends as its channel does: from hand to hand, or by the policy for what overflows."""

import asyncio

from yamanote.channels import channel


async def test_a_sink_of_a_channel_that_drops_never_waits():
    tx, rx = channel(1, overflow="drop_oldest")
    with rx:
        async with tx.into_sink() as sink:
            for number in range(3):
                await sink.send(number)
        assert [item async for item in rx] == [2]


async def test_a_sink_of_a_rendezvous_waits_until_its_item_was_taken():
    tx, rx = channel(0)
    with rx:
        async with tx.into_sink() as sink:
            sending = asyncio.create_task(sink.send("a"))
            await asyncio.sleep(0)
            assert not sending.done()
            assert await rx.recv() == "a"
            await sending
        assert [item async for item in rx] == []
