"""Bytes to a connection, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from yamanote.sinks import SinkClosed, WriterSink

CHUNK = b"x" * 65536


@asynccontextmanager
async def connection() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, socket.socket]]:
    """One end as streams, the other as a plain socket that reads nothing by itself."""
    here, there = socket.socketpair()
    for end in (here, there):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    reader, writer = await asyncio.open_connection(sock=here)
    try:
        yield reader, writer, there
    finally:
        there.close()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def read_all(there: socket.socket) -> int:
    loop, count = asyncio.get_running_loop(), 0
    while data := await loop.sock_recv(there, 1 << 20):
        count += len(data)
    return count


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


async def until_it_waits(sink: WriterSink) -> tuple[int, asyncio.Task[None]]:
    """Feed chunks until a `feed` waits: how many were accepted, and the one that waits."""
    accepted = 0
    while True:
        feed = asyncio.create_task(sink.feed(CHUNK))
        for _ in range(5):
            await asyncio.sleep(0)
        if not feed.done():
            return accepted, feed
        feed.result()
        accepted += 1


async def test_what_is_sent_arrives_in_order_and_closing_ends_it() -> None:
    async with connection() as (_, writer, there):
        async with WriterSink(writer) as sink:
            await sink.send(b"one ")
            await sink.send_all([bytearray(b"two "), memoryview(b"three")])
        loop = asyncio.get_running_loop()
        assert await loop.sock_recv(there, 100) == b"one two three"
        assert await loop.sock_recv(there, 100) == b""
        for call in (sink.feed(b"x"), sink.flush()):
            with pytest.raises(SinkClosed, match="WriterSink"):
                await call
        await sink.close()


async def test_a_slow_reader_holds_the_writer_back_and_nothing_is_lost() -> None:
    async with connection() as (_, writer, there):
        sink = WriterSink(writer)
        accepted, feed = await until_it_waits(sink)
        _low, high = writer.transport.get_write_buffer_limits()
        assert writer.transport.get_write_buffer_size() <= high + len(CHUNK)
        reading = asyncio.create_task(read_all(there))
        await feed
        for _ in range(50):
            await sink.feed(CHUNK)
            assert writer.transport.get_write_buffer_size() <= high + len(CHUNK)
        await sink.close()
        assert await reading == (accepted + 51) * len(CHUNK)


async def test_a_feed_that_was_cancelled_has_not_accepted_its_item() -> None:
    async with connection() as (_, writer, there):
        async with WriterSink(writer) as sink:
            accepted, feed = await until_it_waits(sink)
            feed.cancel()
            await asyncio.wait([feed])
            assert feed.cancelled()
            reading = asyncio.create_task(read_all(there))
        assert await reading == accepted * len(CHUNK)


async def test_flush_waits_until_the_system_has_everything_and_keeps_the_limits() -> None:
    async with connection() as (_, writer, there):
        writer.transport.set_write_buffer_limits(high=200_000, low=100_000)
        async with WriterSink(writer) as sink:
            _, feed = await until_it_waits(sink)
            flush = asyncio.create_task(sink.flush())
            again = asyncio.create_task(sink.flush())
            for _ in range(5):
                await asyncio.sleep(0)
            assert not flush.done()
            reading = asyncio.create_task(read_all(there))
            await flush
            await again
            await feed
            await sink.flush()
            assert writer.transport.get_write_buffer_size() == 0
            assert writer.transport.get_write_buffer_limits() == (100_000, 200_000)
            await sink.flush()
        await reading


async def test_a_cancelled_flush_keeps_the_limits_and_can_be_repeated() -> None:
    async with connection() as (_, writer, there):
        async with WriterSink(writer) as sink:
            limits = writer.transport.get_write_buffer_limits()
            _, feed = await until_it_waits(sink)
            flush = asyncio.create_task(sink.flush())
            for _ in range(5):
                await asyncio.sleep(0)
            for task in (flush, feed):
                task.cancel()
                await asyncio.wait([task])
            assert writer.transport.get_write_buffer_limits() == limits
            reading = asyncio.create_task(read_all(there))
            await sink.flush()
            assert writer.transport.get_write_buffer_size() == 0
        await reading


async def test_a_cancelled_close_goes_on_and_another_one_waits_for_it() -> None:
    async with connection() as (_, writer, there):
        sink = WriterSink(writer)
        accepted, feed = await until_it_waits(sink)
        close = asyncio.create_task(sink.close())
        for _ in range(5):
            await asyncio.sleep(0)
        close.cancel()
        await asyncio.wait([close])
        reading = asyncio.create_task(read_all(there))
        await sink.close()
        with pytest.raises(SinkClosed):
            await feed
        assert await reading == accepted * len(CHUNK)
    assert not others()


async def test_a_reset_by_the_other_side_is_raised_by_each_later_call() -> None:
    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(writer)

    peers: list[asyncio.StreamWriter] = []
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
    server = await asyncio.start_server(ignore, "127.0.0.1", 0)
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        sink = WriterSink(writer)
        _, feed = await until_it_waits(sink)
        there = peers[0].get_extra_info("socket")
        there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peers[0].transport.abort()  # a reset, and not an end
        with pytest.raises(ConnectionError):
            await feed
            await sink.flush()
        for call in (sink.feed(b"x"), sink.flush(), sink.close(), sink.close()):
            with pytest.raises(ConnectionError):
                await call
    assert not reported


@pytest.mark.parametrize("closing", [False, True])
async def test_an_abort_loses_nothing_silently(closing: bool) -> None:
    async with connection() as (_, writer, _there):
        sink = WriterSink(writer)
        _, feed = await until_it_waits(sink)
        feed.cancel()
        await asyncio.wait([feed])
        close = asyncio.create_task(sink.close())
        if closing:
            for _ in range(5):
                await asyncio.sleep(0)
            assert not close.done()
        writer.transport.abort()
        with pytest.raises(ConnectionError):
            await close


async def test_with_half_close_the_answer_can_still_be_read() -> None:
    async with connection() as (reader, writer, there):
        async with WriterSink(writer, half_close=True) as sink:
            accepted, feed = await until_it_waits(sink)
            reading = asyncio.create_task(read_all(there))
            await feed
        count = await reading
        assert count == (accepted + 1) * len(CHUNK)
        await asyncio.get_running_loop().sock_sendall(there, b"thanks")
        assert await reader.readexactly(6) == b"thanks"
        assert not writer.is_closing()


async def test_a_copy_is_written_of_what_can_change() -> None:
    async with connection() as (_, writer, there):
        async with WriterSink(writer) as sink:
            accepted, feed = await until_it_waits(sink)
            feed.cancel()
            await asyncio.wait([feed])
            writer.transport.set_write_buffer_limits(high=1 << 30)
            reading = asyncio.create_task(collect(there, accepted * len(CHUNK)))
            data = bytearray(b"before")
            await sink.feed(data)
            data[:] = b"behind"
        assert await reading == b"before"


async def collect(there: socket.socket, skipped: int) -> bytes:
    loop, got = asyncio.get_running_loop(), bytearray()
    while data := await loop.sock_recv(there, 1 << 20):
        got += data
    return bytes(got[skipped:])


async def test_what_is_not_bytes_is_refused_and_nothing_else_happens() -> None:
    async with connection() as (_, writer, there):
        with pytest.raises(TypeError, match="writer"):
            WriterSink(there)  # type: ignore[arg-type]
        async with WriterSink(writer) as sink:
            for item in ("text", 5, None):
                with pytest.raises(TypeError, match="bytes"):
                    await sink.feed(item)  # type: ignore[arg-type]
            await sink.send(b"")
            await sink.send(b"x")
        assert await read_all(there) == 1


async def test_others_run_although_it_never_waits() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with connection() as (_, writer, _there):
        task = asyncio.create_task(other())
        async with WriterSink(writer) as sink:
            for _ in range(1000):
                await sink.feed(b"")
            assert turns > 2
        task.cancel()


async def test_many_who_wait_are_let_in_one_by_one_in_order() -> None:
    async with connection() as (_, writer, there):
        async with WriterSink(writer) as sink:
            accepted, feed = await until_it_waits(sink)
            _low, high = writer.transport.get_write_buffer_limits()
            most, names = 0, bytes(range(65, 75))

            async def watch(data: bytes) -> None:
                nonlocal most
                await sink.feed(data)
                most = max(most, writer.transport.get_write_buffer_size())

            feeds = [asyncio.create_task(watch(bytes([name]) * len(CHUNK))) for name in names]
            await asyncio.sleep(0)
            reading = asyncio.create_task(collect(there, (accepted + 1) * len(CHUNK)))
            await asyncio.gather(feed, *feeds)
            assert most <= high + len(CHUNK)
        assert await reading == b"".join(bytes([name]) * len(CHUNK) for name in names)


@pytest.mark.parametrize("known", [False, True], ids=["closing", "before"])
async def test_a_lost_connection_is_told_once(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a call has told of it already, or closing finds out: what closing the writer raises then is the same."""
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))

    async def lost() -> None:
        raise BrokenPipeError

    async with connection() as (_, writer, _there):
        sink = WriterSink(writer)
        _, feed = await until_it_waits(sink)
        if not known:
            feed.cancel()
            await asyncio.wait([feed])
        with monkeypatch.context() as patch:
            patch.setattr(writer, "wait_closed", lost)
            writer.transport.abort()
            if known:
                with pytest.raises(ConnectionResetError):
                    await feed
                    await sink.flush()
            for _ in range(2):
                with pytest.raises(ConnectionResetError):
                    await sink.close()
    assert not reported


async def test_a_connection_that_is_lost_only_while_it_closes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost() -> None:
        raise BrokenPipeError

    async with connection() as (_, writer, _there):
        sink = WriterSink(writer)
        with monkeypatch.context() as patch:
            patch.setattr(writer, "wait_closed", lost)
            with pytest.raises(BrokenPipeError):
                await sink.close()
