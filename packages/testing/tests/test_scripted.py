"""What the doubles promise: they do what the script says, in its order, and tell when it was not played to the end."""

import asyncio

import pytest

from yamanote.testing import ScriptedSink, ScriptedSource, step


async def take_all(source: ScriptedSource[int]) -> list[int]:
    return [item async for item in source]


async def test_a_source_gives_its_items_in_order_and_ends() -> None:
    with ScriptedSource(1, 2).items(3) as source:
        assert [1, 2, 3] == await take_all(source)
        assert [] == await take_all(source)


async def test_whatever_an_item_is_it_is_an_item() -> None:
    items = [None, 0, OSError("an item"), asyncio.Event()]
    source = ScriptedSource(*items)

    assert items == [item async for item in source]


async def test_a_source_waits_for_its_event_before_it_goes_on() -> None:
    gate = asyncio.Event()
    source = ScriptedSource(1).wait(gate).items(2)
    assert 1 == await anext(source)

    with step(anext(source)) as waiting:
        waiting.assert_pending()
        gate.set()
        assert 2 == waiting.assert_ready()


async def test_a_wait_in_seconds_is_on_the_clock_of_the_loop() -> None:
    source = ScriptedSource[int]().wait(0).wait(0.001).items(1)
    loop = asyncio.get_running_loop()
    start = loop.time()

    assert [1] == await take_all(source)
    assert loop.time() - start >= 0.001


async def test_a_source_that_is_cancelled_while_it_waits_loses_nothing() -> None:
    gate = asyncio.Event()
    source = ScriptedSource[int]().wait(gate).items(1)
    with step(anext(source)) as waiting:
        waiting.assert_pending()

    gate.set()
    assert [1] == await take_all(source)


async def test_an_error_is_raised_in_its_place_and_the_script_goes_on_behind_it() -> None:
    source = ScriptedSource(1).error(OSError("unplugged")).items(2)
    assert 1 == await anext(source)
    with pytest.raises(OSError, match="unplugged"):
        await anext(source)
    assert [2] == await take_all(source)


async def test_a_source_that_was_closed_gives_nothing_more() -> None:
    source = ScriptedSource(1)
    assert not source.is_closed
    await source.aclose()

    assert source.is_closed
    assert [] == await take_all(source)


def test_steps_that_are_left_over_fail_the_test() -> None:
    with pytest.raises(AssertionError, match="steps left: 2> is not at its end: next is item 1"):
        with ScriptedSource(1).error(OSError()):
            pass


def test_steps_that_are_left_over_do_not_hide_an_error() -> None:
    with pytest.raises(OSError, match="the real thing"), ScriptedSource(1):
        raise OSError("the real thing")


async def test_a_sink_keeps_what_it_accepts_and_accepts_everything_behind_its_script() -> None:
    with ScriptedSink[int]().accept(2) as sink:
        for number in range(4):
            await sink.feed(number)

    assert [0, 1, 2, 3] == sink.items


async def test_a_sink_blocks_until_its_event() -> None:
    gate = asyncio.Event()
    sink = ScriptedSink[str]().accept().wait(gate)
    await sink.feed("a")
    with step(sink.feed("b")) as feeding:
        feeding.assert_pending()
        assert ["a"] == sink.items
        gate.set()
        feeding.assert_ready()

    assert ["a", "b"] == sink.items


async def test_an_item_whose_feed_was_cancelled_was_not_accepted() -> None:
    gate = asyncio.Event()
    sink = ScriptedSink[str]().wait(gate)
    with step(sink.feed("a")) as feeding:
        feeding.assert_pending()
    gate.set()
    await sink.feed("b")

    assert ["b"] == sink.items


async def test_two_that_wait_at_one_step_take_it_once() -> None:
    gate = asyncio.Event()
    sink = ScriptedSink[str]().wait(gate).accept(2).error(OSError("full"))
    feeding = [asyncio.create_task(sink.feed(item)) for item in "ab"]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*feeding)

    assert ["a", "b"] == sink.items
    with pytest.raises(OSError, match="full"):
        await sink.feed("c")


async def test_a_sink_fails_at_its_item_and_is_dead_from_then_on() -> None:
    sink = ScriptedSink[int]().accept(2).error(OSError("disk full"))
    with pytest.raises(OSError, match="disk full"):
        for number in range(5):
            await sink.feed(number)

    assert [0, 1] == sink.items
    for call in (sink.feed(5), sink.flush(), sink.send(5), sink.close()):
        with pytest.raises(OSError, match="disk full"):
            await call
    assert sink.is_closed


async def test_a_sink_knows_what_was_flushed() -> None:
    sink = ScriptedSink[int]()
    await sink.feed(1)
    assert 0 == sink.flushed
    await sink.send(2)
    assert 2 == sink.flushed
    await sink.feed(3)
    await sink.close()
    assert 3 == sink.flushed


async def test_a_sink_that_was_closed_accepts_nothing_more() -> None:
    async with ScriptedSink[int]() as sink:
        pass
    await sink.close()

    assert sink.is_closed
    for call in (sink.feed(1), sink.flush()):
        with pytest.raises(RuntimeError, match="has been closed"):
            await call
    assert [] == sink.items


@pytest.mark.parametrize("what", ["1", None, True, object()])
def test_a_wait_for_what_is_no_time_and_no_event_is_refused(what: object) -> None:
    with pytest.raises(TypeError, match="what must be"):
        ScriptedSource().wait(what)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_a_wait_for_less_than_nothing_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="what must be at least 0 seconds"):
        ScriptedSource().wait(seconds)


def test_an_error_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match="error must be an exception"):
        ScriptedSink().error("disk full")  # type: ignore[arg-type]


@pytest.mark.parametrize(("count", "error"), [(0, ValueError), (-1, ValueError), ("1", TypeError), (True, TypeError)])
def test_a_count_that_is_none_is_refused(count: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="count must be"):
        ScriptedSink().accept(count)  # type: ignore[arg-type]
