"""The doubles of the test kit among real streams and sinks."""

import asyncio
import subprocess
import sys

import pytest

from yamanote import streams
from yamanote.sinks import Sink, SinkClosed, drain
from yamanote.testing import ScriptedSink, ScriptedSource


async def test_a_scripted_source_is_a_source_of_streams_which_close_it() -> None:
    with ScriptedSource(1, 2, 3) as source:
        assert [2, 4, 6] == await streams.iter(source).map(lambda number: number * 2).collect()
    assert source.is_closed


async def test_a_stream_raises_the_error_of_its_source_and_closes_it() -> None:
    source = ScriptedSource(1).error(OSError("unplugged"))
    with pytest.raises(OSError, match="unplugged"):
        await streams.iter(source).collect()
    assert source.is_closed


async def test_a_scripted_sink_can_be_forwarded_to_and_is_closed() -> None:
    with ScriptedSink[int]().accept().wait(0.001).accept() as double:
        await streams.iter([1, 2, 3]).forward(double.into_sink())

    assert [1, 2, 3] == double.items
    assert 3 == double.flushed
    assert double.is_closed


async def test_a_scripted_sink_has_the_combinators_of_sinks() -> None:
    left, right = ScriptedSink[str](), ScriptedSink[str]()
    sink = left.into_sink().fanout(right.into_sink()).with_map(str).buffer(2)
    assert isinstance(left.into_sink(), Sink)
    async with sink:
        await sink.send_all([1, 2, 3])

    assert ["1", "2", "3"] == left.items == right.items
    assert left.is_closed
    assert right.is_closed


async def test_a_fanout_feeds_the_others_when_a_scripted_sink_fails() -> None:
    failing, other = ScriptedSink[int]().accept().error(OSError("full")), ScriptedSink[int]()
    sink = failing.into_sink().fanout(other.into_sink(), drain())
    with pytest.raises(OSError, match="full"):
        await sink.send_all([1, 2, 3])
    with pytest.raises(OSError, match="full"):
        await sink.close()

    assert [1] == failing.items
    assert [1, 2] == other.items


async def test_a_scripted_sink_that_was_closed_refuses_as_sinks_do() -> None:
    sink = ScriptedSink[int]().into_sink()
    await sink.close()
    for call in (sink.feed(1), sink.flush()):
        with pytest.raises(SinkClosed):
            await call


async def test_a_scripted_sink_that_blocks_holds_up_who_feeds_it() -> None:
    gate = asyncio.Event()
    double = ScriptedSink[int]().accept(1).wait(gate)
    forwarding = asyncio.create_task(streams.iter([1, 2, 3]).forward(double.into_sink()))
    for _ in range(10):
        await asyncio.sleep(0)
    assert [1] == double.items
    gate.set()
    await forwarding
    assert [1, 2, 3] == double.items


def test_without_yamanote_streams_it_says_what_to_install() -> None:
    program = """
import sys
sys.modules["yamanote.sinks"] = None
from yamanote.testing import ScriptedSink
try:
    ScriptedSink().into_sink()
except ImportError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "into_sink() needs the distribution yamanote-streams" == result.stdout.strip()
