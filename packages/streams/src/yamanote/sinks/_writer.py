"""Writer sink: bytes to an `asyncio.StreamWriter`.

Invariant: what was accepted is with the transport, in order. Nothing is accepted while the transport holds more than
its limit, so that much and one item is all that is ever in memory.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from yamanote.runtime import cooperative
from yamanote.sinks._serial import Serial

if TYPE_CHECKING:
    from typing_extensions import Buffer  # checkers know it without an installation

__all__ = ["WriterSink"]


class WriterSink(Serial["Buffer"]):
    """A sink that writes bytes to `writer`, which it owns: closing the sink closes the connection.

    `feed` waits while the transport holds more than its limit (`writer.transport.set_write_buffer_limits`), because the
    other side reads too slowly. `flush` waits until the operating system has taken everything. That is all a sink can
    know: what the other side has received, only its answer can tell. With `half_close`, closing the sink only ends
    what is written: the answer can still be read, and the writer is yours to close.

    A lost connection is raised by each later call as the OSError that it is, by `close` too if anything was still to be
    written. Closing waits for the other side to read: ``writer.transport.abort()`` ends that.

    Data is `bytes`, or what has bytes in it; of that, a copy is written. Raises TypeError for anything else, and
    ValueError for `half_close` on a connection that cannot, such as TLS.

    >>> from yamanote.runtime import run
    >>> from yamanote.sinks import WriterSink
    >>> async def answer(reader, writer):
    ...     writer.write((await reader.read()).upper())
    ...     writer.close()
    >>> async def main():
    ...     server = await asyncio.start_server(answer, "127.0.0.1", 0)
    ...     async with server:
    ...         reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    ...         async with WriterSink(writer, half_close=True) as sink:
    ...             await sink.send_all([b"hello ", b"world"])
    ...         print(await reader.read())
    ...         writer.close()
    >>> run(main())
    b'HELLO WORLD'
    """

    __slots__ = ("_half_close", "_holds", "_writer")

    def __init__(self, writer: asyncio.StreamWriter, *, half_close: bool = False) -> None:
        if not isinstance(writer, asyncio.StreamWriter):
            raise TypeError(f"writer must be an asyncio.StreamWriter, not {writer!r}")
        if half_close and not writer.can_write_eof():
            raise ValueError("half_close needs a connection of which one direction can be closed alone")
        super().__init__()
        self._writer = writer
        self._half_close = half_close
        self._holds = False
        """Whether the transport may still hold some of what was accepted."""

    async def feed(self, item: Buffer) -> None:
        data = item if type(item) is bytes else memoryview(item).tobytes()  # the transport might not copy it
        await cooperative()
        async with self._turn:
            self._check()
            await self._drain()  # first: an item whose `feed` is cancelled here has not been accepted
            self._check()
            self._writer.write(data)
            transport = self._writer.transport
            self._holds = transport.get_write_buffer_size() > 0 or transport.is_closing()

    async def _drain(self) -> None:
        try:
            await self._writer.drain()
        except Exception as error:
            if self._error is None:
                self._fail(error)
            self._raise_error()

    async def _flush(self) -> None:
        """Wait until the transport holds nothing any more: for that long, its limit is zero."""
        transport = self._writer.transport
        if transport.get_write_buffer_size():
            low, high = transport.get_write_buffer_limits()
            transport.set_write_buffer_limits(0)
            try:
                await self._drain()
            finally:
                if not transport.is_closing():
                    transport.set_write_buffer_limits(high, low)
        await self._drain()  # an abort has emptied it as well, and shows only now
        self._holds = False

    async def _finish(self) -> None:
        async with self._turn:
            try:
                if self._holds and self._error is None:
                    await self._flush()
            finally:
                if not self._half_close:
                    await self._hang_up()
            if self._half_close and self._error is None:
                self._writer.write_eof()

    async def _hang_up(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            if self._error is None:  # else this is the same loss of the connection once more
                raise

    def __repr__(self) -> str:
        return f"<WriterSink of {self._writer!r}, {self._state()}>"
