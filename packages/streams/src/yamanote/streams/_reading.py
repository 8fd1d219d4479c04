"""Bytes from connections and from files, in pieces.

Invariant: a piece that has been read is given. A thread that reads a file goes on when the pull that waits for it is
cancelled, and the next pull has what it read; until it is done, nobody else touches the file.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from io import FileIO
from typing import Protocol, Self

from yamanote.runtime import cancel_and_wait, spawn_blocking, start_task
from yamanote.streams._arguments import name_of, require_count
from yamanote.streams._stream import Stream

__all__ = ["read_chunks", "read_file"]


class _Reader(Protocol):
    """Gives some bytes, up to `size`, as soon as there are any, and none at the end: an `asyncio.StreamReader`."""

    def read(self, size: int, /) -> Awaitable[bytes]: ...


def read_chunks(reader: _Reader, size: int = 1 << 16) -> Stream[bytes]:
    """What `reader` has, in pieces of up to `size` bytes, as it comes.

    The reader, such as an `asyncio.StreamReader`, stays yours: the stream does not close the connection. Raises what
    `reader.read` raises, and TypeError or ValueError unless `size` is a whole number, at least 1.

    **Cancel safety**: that of `reader.read`. An `asyncio.StreamReader` loses nothing.

    >>> from yamanote import streams
    >>> from yamanote.runtime import run
    >>> async def main():
    ...     reader = asyncio.StreamReader()
    ...     reader.feed_data(b"one\\ntwo\\n")
    ...     reader.feed_eof()
    ...     return await streams.read_chunks(reader).lines().collect()
    >>> run(main())
    ['one', 'two']
    """
    if not callable(getattr(reader, "read", None)):
        raise TypeError(f"reader must have a read() that can be awaited, not {reader!r}")
    require_count("size", size)
    return Stream(_Chunks(reader, size))


def read_file(path: str | os.PathLike[str], size: int = 1 << 18) -> Stream[bytes]:
    """What is in the file at `path`, in pieces of up to `size` bytes, read in the blocking pool.

    The file is opened when the first piece is asked for, and closed with the stream, once the read in progress is done.
    Raises OSError in its place, and TypeError or ValueError unless `size` is a whole number, at least 1.

    **Cancel safety**: nothing is lost; the next pull has what has been read meanwhile.

    >>> import pathlib, tempfile
    >>> from yamanote import streams
    >>> from yamanote.runtime import run
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "lines"
    ...     _ = path.write_text("one\\ntwo\\n")
    ...     run(streams.read_file(path).lines().collect())
    ['one', 'two']
    """
    require_count("size", size)
    return Stream(_File(os.fspath(path), size))


class _Chunks:
    def __init__(self, reader: _Reader, size: int) -> None:
        self.__name__ = f"read_chunks({name_of(reader)})"
        self._read = reader.read
        self._size = size

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        data = await self._read(self._size)
        if not data:
            raise StopAsyncIteration
        return data


class _File:
    def __init__(self, path: str, size: int) -> None:
        self.__name__ = f"read_file({path!r})"
        self._path = path
        self._size = size
        self._file: FileIO | None = None
        self._read_ahead: list[bytes] = []
        """At most one piece, which nobody has been given."""
        self._reading: asyncio.Task[None] | None = None
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._read_ahead:
            if self._closed:
                raise StopAsyncIteration
            await self._wait()
        data = self._read_ahead.pop()
        if not data:
            raise StopAsyncIteration
        return data

    async def _wait(self) -> None:
        """Wait for the read in progress, or else for a new one."""
        if self._reading is None:
            self._reading = start_task(self._read_in_thread())
        reading = self._reading
        await asyncio.wait([reading])
        self._reading = None  # not before: the pull after one that is cancelled here is told what this one has not been
        if not reading.cancelled():  # by somebody: what was read is there, or can still be read
            reading.result()

    async def _read_in_thread(self) -> None:
        call = spawn_blocking(self._read)
        try:
            await call
        except asyncio.CancelledError:
            await cancel_and_wait(call)
            raise

    def _read(self) -> None:
        if self._file is None:
            self._file = FileIO(self._path)
        self._read_ahead.append(self._file.read(self._size))

    async def aclose(self) -> None:
        self._closed = True
        try:
            if self._reading is not None:
                await cancel_and_wait(self._reading)
        finally:  # also when this is cancelled: the thread is done now
            if self._file is not None:
                self._file.close()
            self._read_ahead.clear()
