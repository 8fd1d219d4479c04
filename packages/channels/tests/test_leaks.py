"""What channels tell a leak check."""

import pytest

from yamanote.channels import channel, channel_unbounded
from yamanote.testing import LeakError, no_leaks


async def test_ends_that_were_closed_are_no_leak_though_the_channel_holds_items() -> None:
    with no_leaks():
        tx, rx = channel(2)
        clone = tx.clone()
        await tx.send("left")
        (permit,) = tx.reserve_nowait()
        permit.release()
        for end in (tx, clone, rx):
            end.close()


async def test_each_end_that_is_open_is_a_leak() -> None:
    with pytest.raises(LeakError) as caught, no_leaks():
        tx, rx = channel(2)
        clone = tx.clone()
        tx.close()
    clone.close()
    rx.close()

    assert 2 == len(caught.value.leaks)
    assert "<Sender open, 0 of 2" in str(caught.value)
    assert "<Receiver open, 0 of 2" in str(caught.value)
    assert all(leak.endswith(" was not closed") for leak in caught.value.leaks)


async def test_an_end_of_an_unbounded_channel_is_a_leak_too() -> None:
    tx, rx = channel_unbounded()
    rx.close()
    tx.close()
    with pytest.raises(LeakError, match="UnboundedSender of a closed channel"), no_leaks():
        tx, rx = channel_unbounded()
        rx.close()
    tx.close()


async def test_a_permit_that_is_out_is_a_leak() -> None:
    tx, rx = channel(2)
    with tx, rx:
        with (
            pytest.raises(LeakError, match=r"<Permit for one item of .*> was neither sent with nor released"),
            no_leaks(),
        ):
            permit = await tx.reserve()
        permit.release()


async def test_a_channel_in_use_from_before_is_no_leak() -> None:
    tx, rx = channel(2)
    with tx, rx, no_leaks():
        await tx.send(1)
        await tx.send(2)
        assert 1 == await rx.recv()
