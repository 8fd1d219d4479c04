"""Duplex: two connected byte streams in memory, with the very classes that asyncio has for sockets.

Invariant: what was written before an end was closed is read at the other, in order and once, and then the end of the
stream comes. Except for what the last `write` overshoots, at most `max_buffer` bytes are on their way to either end.

Bytes stay on their way until a read asks for them, as in the buffer of a socket; only so many are handed to the
`StreamReader` as the read that is running can take. That keeps the count exact, whatever asyncio buffers by itself.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, final

__all__ = ["duplex"]

_Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def duplex(max_buffer: int = 64 * 1024, *, limit: int = 64 * 1024) -> tuple[_Streams, _Streams]:
    """Two ends, each a reader and a writer like those of `asyncio.open_connection`: what one writes, the other reads.

    `drain` waits while more than `max_buffer` bytes are on their way to the other end. `limit` is that of
    `asyncio.open_connection`: the longest line that a reader returns. No socket is involved, so it works on every loop.

    Close the writer of each end. The other end then reads what is on its way, and the end of the stream; if it writes
    any more, it is reset, and so it is by an abort (`writer.transport.abort()`): its calls raise ConnectionResetError,
    and what it had not read is gone.

    Raises TypeError or ValueError for a `max_buffer` or a `limit` that is none, RuntimeError where no loop runs.

    **Threads:** both ends belong to the running loop.

    >>> async def main():
    ...     (_, client), (reader, server) = duplex()
    ...     client.write(b"mind the gap\\n")
    ...     print(await reader.readline())
    ...     for writer in (client, server):
    ...         writer.close()
    ...         await writer.wait_closed()
    >>> run(main())
    b'mind the gap\\n'
    """
    if isinstance(max_buffer, bool) or not isinstance(max_buffer, int):
        raise TypeError(f"max_buffer must be a whole number of bytes, not {max_buffer!r}")
    if max_buffer < 0:
        raise ValueError(f"max_buffer must be at least 0, not {max_buffer}")
    loop = asyncio.get_running_loop()
    left, right = _End("left", "right", max_buffer, loop), _End("right", "left", max_buffer, loop)
    return left.connect(right, limit), right.connect(left, limit)


@final
class _Reader(asyncio.StreamReader):
    """Asks for bytes only while somebody reads. All other ways to read are made of these."""

    def __init__(self, end: _End, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=limit, loop=loop)
        self._end = end

    async def read(self, n: int = -1) -> bytes:
        with self._end.reading(sys.maxsize if n < 0 else n):
            return await super().read(n)

    async def readexactly(self, n: int) -> bytes:
        with self._end.reading(max(n, 0)):
            return await super().readexactly(n)

    async def readuntil(self, separator: Any = b"\n") -> bytes:
        with self._end.reading(sys.maxsize):
            return await super().readuntil(separator)


@final
class _End(asyncio.Transport):
    """One end: the transport of its writer, and the bytes that are on their way to its reader."""

    def __init__(self, name: str, peer: str, max_buffer: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__({"sockname": ("duplex", name), "peername": ("duplex", peer)})
        self._name = name
        self._loop = loop
        self._low = self._high = max_buffer
        self._arriving = bytearray()
        self._wanted = 0  # how many bytes the read that is running can still take
        self._delivering = False
        self._reading_paused = False
        self._writing_paused = False
        self._eof_written = False
        self._eof_arriving = False
        self._closing = False

    def connect(self, other: _End, limit: int) -> _Streams:
        """The reader and the writer; nothing here refers to them, so that asyncio notices when they are dropped."""
        self._other = other
        reader = _Reader(self, limit, self._loop)
        self._protocol = asyncio.StreamReaderProtocol(reader, loop=self._loop)
        self._protocol.connection_made(self)
        return reader, asyncio.StreamWriter(self, self._protocol, reader, self._loop)

    # ---------------------------------------------------------------- reading

    @contextmanager
    def reading(self, count: int) -> Iterator[None]:
        """A read that can take up to `count` bytes is running."""
        outer, self._wanted = self._wanted, count
        try:
            self._deliver()
            yield
        finally:
            self._wanted = outer

    def is_reading(self) -> bool:
        return not self._reading_paused and not self._closing

    def pause_reading(self) -> None:
        self._reading_paused = True

    def resume_reading(self) -> None:
        self._reading_paused = False
        self._deliver_soon()

    def _deliver_soon(self) -> None:
        # Not at once: what a writer may do within one turn is bounded by the room, not by the appetite of a reader.
        if not self._delivering:
            self._delivering = True
            self._loop.call_soon(self._deliver_now)

    def _deliver_now(self) -> None:
        self._delivering = False
        self._deliver()

    def _deliver(self) -> None:
        """Hand to the reader what it can take."""
        if not self.is_reading():
            return
        if self._wanted and self._arriving:
            data = bytes(self._arriving[: self._wanted])
            del self._arriving[: self._wanted]
            self._wanted -= len(data)
            self._protocol.data_received(data)
            self._other._mind_the_room()
        if self._eof_arriving and not self._arriving:
            self._eof_arriving = False
            self._protocol.eof_received()

    def _end_of_stream(self) -> None:
        self._eof_arriving = True
        self._deliver_soon()

    # ---------------------------------------------------------------- writing

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data must be bytes, a bytearray or a memoryview, not {type(data).__name__}")
        if self._closing or not data:
            return
        if self._eof_written:
            raise RuntimeError("write() after write_eof()")
        other = self._other
        if other._closing:
            self._lose(ConnectionResetError("the other end has been closed"))
            return
        other._arriving += data
        if other._wanted:
            other._deliver_soon()
        self._mind_the_room()

    def write_eof(self) -> None:
        if not self._eof_written and not self._closing:
            self._eof_written = True
            self._other._end_of_stream()

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return len(self._other._arriving)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = 64 * 1024 if low is None else 4 * low
        if low is None:
            low = high // 4
        if not 0 <= low <= high:
            raise ValueError(f"low must be between 0 and high ({high}), not {low}")
        self._low, self._high = low, high
        self._mind_the_room()

    def _mind_the_room(self) -> None:
        if self._closing:
            return  # the protocol hears of that, and tells who waits for room
        size = self.get_write_buffer_size()
        if not self._writing_paused and size > self._high:
            self._writing_paused = True
            self._protocol.pause_writing()
        elif self._writing_paused and size <= self._low:
            self._writing_paused = False
            self._protocol.resume_writing()

    # ---------------------------------------------------------------- the end

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self.write_eof()
            self._lose(None)

    def abort(self) -> None:
        if not self._closing:
            self._other._lose(ConnectionResetError("the other end was aborted"))
            self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        if not self._closing:
            self._closing = True
            self._arriving.clear()
            self._loop.call_soon(self._protocol.connection_lost, error)
            self._other._mind_the_room()

    def __leak__(self) -> str | None:
        return None if self._closing else f"{self!r} was not closed"

    def __repr__(self) -> str:
        state = "closed" if self._closing else "open"
        return f"<{self._name} end of a duplex, {state}, {len(self._arriving)} bytes on their way to it>"
