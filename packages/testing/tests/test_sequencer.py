"""What a sequencer promises: blocks run in the order of their numbers, and nobody waits for a turn that cannot come."""

import asyncio

import pytest

from yamanote.testing import BrokenSequencer, Sequencer, step


async def test_blocks_run_in_the_order_of_their_numbers() -> None:
    order = Sequencer()
    seen = []

    async def visit(number: int) -> None:
        async with order(number):
            seen.append(f"enter {number}")
            await asyncio.sleep(0)
            seen.append(f"leave {number}")

    await asyncio.gather(*map(visit, (3, 1, 2, 0)))

    assert [f"{what} {number}" for number in range(4) for what in ("enter", "leave")] == seen


async def test_a_block_that_fails_has_been_left_all_the_same() -> None:
    order = Sequencer()
    with pytest.raises(OSError):
        async with order(0):
            raise OSError
    async with order(1):
        pass


async def test_the_turn_is_free_of_loop_turns_when_it_has_come() -> None:
    order = Sequencer()
    with step(order(0).__aenter__()) as entering:
        entering.assert_ready()


async def test_a_number_is_used_once() -> None:
    order = Sequencer()
    async with order(0):
        with pytest.raises(ValueError, match="0 has been used before"):
            await order(0).__aenter__()
    with pytest.raises(ValueError, match="0 has been used before"):
        await order(0).__aenter__()


@pytest.mark.parametrize("number", ["1", 1.0, True, None])
def test_a_number_that_is_none_is_refused(number: object) -> None:
    with pytest.raises(TypeError, match="number"):
        Sequencer()(number)  # type: ignore[arg-type]


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 0, not -1"):
        Sequencer()(-1)


async def test_a_block_that_is_cancelled_before_its_turn_breaks_the_sequence_for_all() -> None:
    order = Sequencer()

    async def visit(number: int) -> None:
        async with order(number):
            pass

    first, second = (asyncio.create_task(visit(number)) for number in (1, 2))
    await asyncio.sleep(0)
    first.cancel()

    with pytest.raises(BrokenSequencer, match="block 2 has no turn: block 1 was cancelled"):
        await second
    with pytest.raises(asyncio.CancelledError):
        await first
    with pytest.raises(BrokenSequencer):
        await order(0).__aenter__()
    assert "<Sequencer broken by 1, waiting: []>" == repr(order)


async def test_a_cancellation_that_comes_together_with_the_turn_breaks_it_too() -> None:
    order = Sequencer()
    with step(order(1).__aenter__()) as waiting, step(order(2).__aenter__()) as behind:
        waiting.assert_pending()
        behind.assert_pending()
        async with order(0):
            pass
        assert waiting.is_woken
        waiting.throw(asyncio.CancelledError())
        with pytest.raises(BrokenSequencer):
            behind.assert_ready()


async def test_it_shows_where_it_is() -> None:
    order = Sequencer()
    with step(order(2).__aenter__()) as waiting:
        waiting.assert_pending()
        async with order(0):
            pass
        assert "<Sequencer at 1, waiting: [2]>" == repr(order)
