"""File sink: lines of text, written in the blocking pool.

Invariant: a line is in the list, or with the one write that is in progress, or in the file, in order. A write cannot be
cancelled by who waits for it.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import warnings
from collections.abc import Callable
from typing import Literal, TextIO, get_args

from yamanote.runtime import cancel_and_wait, spawn_blocking, start_task
from yamanote.sinks._sink import Guarded

__all__ = ["FileSink"]

_ROOM = 1 << 18  # characters that wait in memory at most

_Mode = Literal["append", "write"]


class FileSink(Guarded[object]):
    """A sink that writes each item, as `str` gives it, as a line to the file at `path`.

    `mode` "write" replaces what is in the file, "append" goes on behind it. Lines end with a line feed on every system.
    The file is opened with the first write, or when the sink is closed. `feed` collects lines, and waits only while
    there are too many of them; `flush` hands them to the operating system. All that happens in the blocking pool.

    Raises ValueError for a wrong `mode` or `encoding`. An error of the file system is raised by the call that learns
    of it and by each later one.

    **Cancel safety**: an item whose `feed` was cancelled has not been accepted. Writing and closing go on by
    themselves.

    >>> import pathlib, tempfile
    >>> from yamanote.runtime import run
    >>> from yamanote.sinks import FileSink
    >>> async def main(path):
    ...     async with FileSink(path, mode="write") as sink:
    ...         await sink.send_all(["one", "two"])
    ...     return path.read_text()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run(main(pathlib.Path(folder) / "lines"))
    'one\\ntwo\\n'
    """

    __slots__ = ("_encoding", "_file", "_lines", "_mode", "_path", "_size", "_writing")

    def __init__(self, path: str | os.PathLike[str], *, mode: _Mode = "append", encoding: str = "utf-8") -> None:
        super().__init__()
        if mode not in get_args(_Mode):
            raise ValueError(f"mode must be 'append' or 'write', not {mode!r}")
        try:
            codecs.lookup(encoding)
        except LookupError:
            raise ValueError(f"encoding must be known to Python, not {encoding!r}") from None
        self._path = os.fspath(path)
        self._mode = mode
        self._encoding = encoding
        self._file: TextIO | None = None
        self._lines: list[str] = []
        self._size = 0
        self._writing: asyncio.Task[None] | None = None

    async def feed(self, item: object) -> None:
        self._check()
        line = f"{item}\n"
        while self._size >= _ROOM:
            await self._write()
            self._check()
        self._lines.append(line)
        self._size += len(line)

    async def flush(self) -> None:
        self._check()
        if self._writing is not None:
            await self._write()  # this one may not contain the last line; if so, that is in the next one
        if self._closing is not None:
            await self.close()  # it writes what is left, alone
        elif self._lines or self._writing is not None:
            await self._write()
        if self._error is not None:
            raise self._error

    async def _write(self) -> None:
        """Wait for the write in progress, or else for a new one."""
        while True:
            if self._writing is None or self._writing.cancelled():  # before its first step: nothing has been done
                self._writing = start_task(self._write_lines())
            writing = self._writing
            await asyncio.wait([writing])
            if not writing.cancelled():
                break

    async def _write_lines(self) -> None:
        lines, self._lines, self._size = self._lines, [], 0
        try:
            await self._in_thread(self._append, lines)
        except (Exception, asyncio.CancelledError) as error:
            self._fail(error)
        finally:
            self._writing = None

    async def _finish(self) -> None:
        if self._writing is not None:
            await asyncio.wait([self._writing])
        await self._in_thread(self._append_and_close)

    async def _in_thread(self, function: Callable[..., None], *arguments: list[str]) -> None:
        """Call `function` in the blocking pool, to the end also when this is cancelled meanwhile.

        Until then the file belongs to the thread, and nobody else may write to it or close it.
        """
        call = spawn_blocking(function, *arguments)
        try:
            await call
        except asyncio.CancelledError:
            await cancel_and_wait(call)
            if call.is_cancelled():  # no thread has taken it, and nobody will come back for it
                function(*arguments)
            raise

    def _append(self, lines: list[str]) -> None:
        if self._file is None:
            mode: Literal["a", "w"] = "a" if self._mode == "append" else "w"
            self._file = open(self._path, mode, encoding=self._encoding, newline="\n")
        self._file.writelines(lines)
        self._file.flush()

    def _append_and_close(self) -> None:
        lines, self._lines = self._lines, []
        try:
            if self._error is None:
                self._append(lines)
        finally:
            if self._file is not None:
                self._close_file(self._file)

    def _close_file(self, file: TextIO) -> None:
        try:
            file.close()
        except OSError:  # it tried to write once more what could not be written
            if self._error is None:
                raise

    def __del__(self) -> None:
        if getattr(self, "_lines", None) or (getattr(self, "_file", None) is not None and self._closing is None):
            warnings.warn(f"{self!r} was dropped and never closed", ResourceWarning, stacklevel=2, source=self)
            self._append_and_close()

    def __repr__(self) -> str:
        return f"<FileSink {self._path!r}, {self._state()}>"
