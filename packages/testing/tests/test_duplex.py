"""What `duplex` promises: asyncio's own streams, without a socket, with everything that can go wrong with one."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from yamanote.testing import LeakError, duplex, no_leaks, step
from yamanote.time import VirtualClock


async def close(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.close()
    for writer in writers:
        await writer.wait_closed()


async def test_both_ends_are_the_streams_of_asyncio() -> None:
    (reader, writer), (peer_reader, peer_writer) = duplex()
    assert isinstance(reader, asyncio.StreamReader)
    assert isinstance(writer, asyncio.StreamWriter)

    writer.write(b"ping")
    peer_writer.writelines([b"po", b"ng"])

    assert b"ping" == await peer_reader.readexactly(4)
    assert b"pong" == await reader.readexactly(4)
    await close(writer, peer_writer)


async def test_a_handler_for_a_server_runs_unchanged() -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for line in reader:
            writer.write(line.upper())
            await writer.drain()
        writer.close()

    (reader, writer), server = duplex()
    serving = asyncio.create_task(shout(*server))
    writer.write(b"mind\nthe gap\n")
    writer.write_eof()

    assert b"MIND\nTHE GAP\n" == await reader.read()
    await serving
    await close(writer, server[1])


async def test_bytes_that_are_there_are_read_without_a_loop_turn() -> None:
    (_, writer), (reader, peer) = duplex()
    writer.write(b"one\ntwo\nthree")
    for awaitable, expected in (
        (reader.readline(), b"one\n"),
        (reader.readuntil(b"o\n"), b"two\n"),
        (reader.read(2), b"th"),
        (reader.readexactly(3), b"ree"),
    ):
        assert expected == step(awaitable).assert_ready()
    await close(writer, peer)


async def test_drain_waits_while_more_than_the_buffer_is_on_its_way() -> None:
    (_, writer), (reader, peer) = duplex(max_buffer=10)
    writer.write(b"0123456789")
    step(writer.drain()).assert_ready()
    writer.write(b"X")
    with step(writer.drain()) as draining:
        draining.assert_pending()
        assert b"0" == await reader.read(1)
        draining.assert_ready()
    assert 10 == writer.transport.get_write_buffer_size()
    await close(writer, peer)


@pytest.mark.parametrize("max_buffer", [0, 1, 7, 100])
async def test_nothing_is_lost_or_torn_through_a_small_buffer(max_buffer: int) -> None:
    (_, writer), (reader, peer) = duplex(max_buffer)
    lines = [b"%d %s\n" % (number, b"x" * (number % 13)) for number in range(200)]
    deepest = 0

    async def write() -> None:
        nonlocal deepest
        for line in lines:
            writer.write(line)
            deepest = max(deepest, writer.transport.get_write_buffer_size())
            await writer.drain()
        writer.close()

    writing = asyncio.create_task(write())
    got: list[bytes] = []
    while not reader.at_eof():
        got.append(await reader.read(3))
        got.append(await reader.readline())
    await writing

    assert b"".join(lines) == b"".join(got)
    assert deepest <= max_buffer + max(map(len, lines))
    await close(writer, peer)


async def test_a_read_takes_more_than_the_buffer_holds() -> None:
    (_, writer), (reader, peer) = duplex(max_buffer=10)

    async def write() -> None:
        for _ in range(100):
            writer.write(b"0123456789")
            await writer.drain()
        writer.write(b"\n")

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        assert 995 == len(await reader.readexactly(995))
        assert b"56789\n" == await reader.readline()
    await close(writer, peer)


@pytest.mark.parametrize("read", ["read", "readline"])
async def test_who_writes_as_much_as_is_read_lets_others_run(read: str) -> None:
    (_, writer), (reader, peer) = duplex(max_buffer=10)
    turns = 0

    async def write() -> None:
        for _ in range(1000):
            writer.write(b"0123456789")
            await writer.drain()
        writer.close()

    reading = asyncio.create_task(getattr(reader, read)())
    await asyncio.sleep(0)
    writing = asyncio.create_task(write())
    while not writing.done():
        await asyncio.sleep(0)
        turns += 1

    assert 10_000 == len(await reading)
    assert turns >= 10_000 / (10 + 10)  # a turn carries what the buffer holds, and the write that overshoots
    await close(writer, peer)


async def test_a_read_that_is_cancelled_loses_nothing() -> None:
    (_, writer), (reader, peer) = duplex()
    writer.write(b"abc")
    reading = asyncio.create_task(reader.readexactly(5))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])
    writer.write(b"defgh")

    assert b"abcde" == await reader.readexactly(5)
    assert b"fgh" == await reader.read(10)
    await close(writer, peer)


async def test_a_read_that_was_cancelled_takes_nothing_off_the_way() -> None:
    (_, writer), (reader, peer) = duplex(max_buffer=0)
    with step(reader.read(100)) as reading:
        reading.assert_pending()
    writer.write(b"later")
    await asyncio.sleep(0)
    with step(writer.drain()) as draining:
        draining.assert_pending()
        assert b"later" == await reader.read(100)
        draining.assert_ready()
    await close(writer, peer)


async def test_an_end_that_was_paused_delivers_when_it_is_resumed() -> None:
    (_, writer), (reader, peer) = duplex()
    peer.transport.pause_reading()  # type: ignore[attr-defined]  # it is one to read from as well
    writer.write(b"later")
    with step(reader.read(100)) as reading:
        reading.assert_pending()
        peer.transport.resume_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        assert b"later" == reading.assert_ready()
    await close(writer, peer)


async def test_a_line_that_is_too_long_is_refused_as_by_a_socket() -> None:
    (_, writer), (reader, peer) = duplex(limit=4)
    writer.write(b"much too long\nok\n")
    with pytest.raises(ValueError, match="limit"):
        await reader.readline()
    await close(writer, peer)


async def test_the_end_of_the_stream_comes_after_all_bytes_and_the_other_direction_goes_on() -> None:
    (reader, writer), (peer_reader, peer) = duplex()
    assert writer.can_write_eof()
    writer.write(b"last")
    writer.write_eof()

    assert b"last" == await peer_reader.read(100)
    assert b"" == await peer_reader.read(100)
    assert peer_reader.at_eof()
    peer.write(b"reply")
    assert b"reply" == await reader.read(100)
    with pytest.raises(RuntimeError, match="write_eof"):
        writer.write(b"more")
    await close(writer, peer)


async def test_an_end_that_comes_too_early_is_told_with_what_there_is() -> None:
    (_, writer), (reader, peer) = duplex()
    writer.write(b"half")
    writer.close()
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        await reader.readexactly(8)

    assert b"half" == caught.value.partial
    await close(writer, peer)


async def test_what_was_written_before_a_close_is_read_after_it() -> None:
    (own_reader, writer), (reader, peer) = duplex()
    writer.write(b"goodbye")
    await close(writer)

    assert writer.is_closing()
    assert b"goodbye" == await reader.read()
    assert b"" == await own_reader.read()
    await close(peer)


async def test_writing_to_an_end_that_was_closed_is_a_reset() -> None:
    (_, writer), (_, peer) = duplex()
    await close(peer)
    writer.write(b"anybody there?")
    with pytest.raises(ConnectionResetError):
        await writer.drain()
    with pytest.raises(ConnectionResetError):
        await writer.wait_closed()


async def test_an_abort_is_a_reset_at_the_other_end_for_reading_and_for_writing() -> None:
    (_, writer), (reader, peer) = duplex(max_buffer=0)
    peer.write(b"unread")
    reading = asyncio.create_task(reader.read(1))
    draining = asyncio.create_task(peer.drain())
    await asyncio.sleep(0)
    writer.transport.abort()

    for waiting in (reading, draining):
        with pytest.raises(ConnectionResetError, match="aborted"):
            await waiting
    with pytest.raises(ConnectionResetError):
        await peer.wait_closed()
    await writer.wait_closed()


async def test_an_end_that_was_closed_twice_or_aborted_after_that_stays_closed() -> None:
    (_, writer), (reader, peer) = duplex()
    writer.write(b"kept")
    await close(writer, writer)
    writer.transport.abort()
    writer.write(b"dropped")

    assert b"kept" == await reader.read()
    await close(peer)


async def test_the_limits_of_the_buffer_can_be_changed() -> None:
    (_, writer), (reader, peer) = duplex()
    writer.transport.set_write_buffer_limits(high=4, low=1)
    assert (1, 4) == writer.transport.get_write_buffer_limits()
    writer.write(b"12345")
    with step(writer.drain()) as draining:
        draining.assert_pending()
        await reader.readexactly(3)
        draining.assert_pending()
        await reader.readexactly(1)
        draining.assert_ready()
    with pytest.raises(ValueError, match="low"):
        writer.transport.set_write_buffer_limits(high=1, low=2)
    await close(writer, peer)


async def test_each_end_has_a_name_and_knows_the_other() -> None:
    (_, left), (_, right) = duplex()

    assert left.get_extra_info("peername") == right.get_extra_info("sockname") != left.get_extra_info("sockname")
    assert right.get_extra_info("ssl_object", "none") == "none"
    await close(left, right)


async def test_an_end_that_was_not_closed_is_a_leak() -> None:
    with pytest.raises(LeakError, match="right end of a duplex, open"), no_leaks():
        (_, left), (_, right) = duplex()
        await close(left)
    await close(right)


async def test_it_works_in_virtual_time() -> None:
    async def ticks() -> AsyncIterator[bytes]:
        for number in range(3):
            await asyncio.sleep(3600)
            yield b"%d\n" % number

    loop = asyncio.get_running_loop()
    with VirtualClock().patch_loop():
        start = loop.time()
        (_, writer), (reader, peer) = duplex()

        async def write() -> None:
            async for tick in ticks():
                writer.write(tick)
            writer.close()

        writing = asyncio.create_task(write())
        assert b"0\n1\n2\n" == await reader.read()
        assert 3 * 3600 <= loop.time() - start < 3 * 3600 + 1
        await writing
        await close(writer, peer)


@pytest.mark.parametrize("max_buffer", ["1", 1.5, True, None])
async def test_a_buffer_that_is_none_is_refused(max_buffer: object) -> None:
    with pytest.raises(TypeError, match="max_buffer"):
        duplex(max_buffer)  # type: ignore[arg-type]


async def test_a_negative_buffer_is_refused() -> None:
    with pytest.raises(ValueError, match="max_buffer must be at least 0"):
        duplex(-1)


async def test_only_bytes_can_be_written() -> None:
    (_, writer), (_, peer) = duplex()
    with pytest.raises(TypeError, match="not str"):
        writer.write("text")  # type: ignore[arg-type]
    await close(writer, peer)


def test_it_needs_a_running_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        duplex()
