"""File sink: lines of text or bytes, written in the blocking pool.

Invariant: a piece is in the list, or with the one write that is in progress, or in the file, in order. A write cannot
be cancelled by who waits for it.
"""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, get_args, overload

from yamanote.runtime import cancel_and_wait, cooperative, spawn_blocking, start_task
from yamanote.sinks._sink import Guarded
from yamanote.sinks._target import Mode, Target

__all__ = ["FileSink"]

T_contra = TypeVar("T_contra", contravariant=True)
Ts = TypeVarTuple("Ts")

_ROOM = 1 << 18  # bytes that wait in memory at most


class FileSink(Guarded[T_contra]):
    """A sink that writes each item, as `str` gives it, as a line to the file at `path`; or bytes, as they are.

    The `encoding` None is for bytes: `feed` raises TypeError for other items. Text that cannot be encoded is refused
    by `feed` too. Lines end with a line feed on every system.

    `mode` "append" goes on behind what is in the file. "replace" replaces the file when the sink is closed: until then
    the new content is in a hidden file beside it. If anything fails, if the ``async with`` of this sink, or of a
    combinator before it, is left by an exception, or if the sink is dropped, the old file stays and the new one is
    removed. Permissions are kept, links stay links, and what is not a regular file is written directly. "create" raises
    FileExistsError if there is a file.

    The file is opened with the first write, or when the sink is closed. `feed` collects, and waits only while there is
    too much; `flush` hands everything to the operating system. With `fsync`, `flush` and `close` return when it is on
    the disk, and so is the name of the file. All that happens in the blocking pool.

    Raises ValueError for a wrong `mode` or `encoding`. An error of the file system is raised by the call that learns
    of it and by each later one; a note says how much of what was accepted is not in the file.

    **Cancel safety**: an item whose `feed` was cancelled has not been accepted. Writing and closing go on by
    themselves.

    >>> import pathlib, tempfile
    >>> from yamanote.runtime import run
    >>> from yamanote.sinks import FileSink
    >>> async def main(path):
    ...     async with FileSink(path, mode="replace") as sink:
    ...         await sink.send_all(["one", "two"])
    ...     return path.read_text()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run(main(pathlib.Path(folder) / "lines"))
    'one\\ntwo\\n'
    """

    __slots__ = ("_accepted", "_encoding", "_fsync", "_mark", "_path", "_pieces", "_target", "_writing")

    @overload
    def __init__(
        self: FileSink[object],
        path: str | os.PathLike[str],
        *,
        mode: Mode = "append",
        encoding: str = "utf-8",
        fsync: bool = False,
    ) -> None: ...
    @overload
    def __init__(
        self: FileSink[bytes | bytearray | memoryview],
        path: str | os.PathLike[str],
        *,
        mode: Mode = "append",
        encoding: None,
        fsync: bool = False,
    ) -> None: ...
    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mode: Mode = "append",
        encoding: str | None = "utf-8",
        fsync: bool = False,
    ) -> None:
        super().__init__()
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be 'append', 'replace' or 'create', not {mode!r}")
        try:
            mark = b"" if encoding is None else "".encode(encoding)
        except LookupError:
            raise ValueError(f"encoding must be known to Python, or None for bytes, not {encoding!r}") from None
        self._path = os.fsdecode(path)
        self._encoding = encoding
        self._mark = len(mark)
        self._fsync = fsync
        self._target = Target(self._path, mode, mark, fsync)
        self._pieces: list[bytes] = []
        self._accepted = 0
        """How many bytes, since the beginning."""
        self._writing: asyncio.Task[None] | None = None

    async def feed(self, item: T_contra) -> None:
        await cooperative()
        self._check()
        piece = self._encoded(item)
        while self._accepted - self._target.written >= _ROOM:
            await self._write()
            self._check()
        self._pieces.append(piece)
        self._accepted += len(piece)

    def _encoded(self, item: object) -> bytes:
        if self._encoding is not None:
            return f"{item}\n".encode(self._encoding)[self._mark :]
        if isinstance(item, bytes | bytearray | memoryview):
            return bytes(item)
        raise TypeError(f"{self!r} takes bytes, not {item!r}")

    async def flush(self) -> None:
        self._check()
        goal = self._accepted
        while self._error is None and self._arrived < goal:
            if self._closing is not None:
                await self.close()  # it writes what is left, alone
                return
            # One that is in progress may not contain the last piece; then the next one does.
            await self._write(sync=self._fsync)
        self._raise_error()

    @property
    def _arrived(self) -> int:
        return self._target.synced if self._fsync else self._target.written

    async def _write(self, *, sync: bool = False) -> None:
        """Wait for the write in progress, or else for a new one, unless the rest is written by `close`."""
        while True:
            if self._writing is None or self._writing.cancelled():  # before its first step: nothing has been done
                if self._closing is not None:
                    return
                self._writing = start_task(self._write_pieces(sync))
            writing = self._writing
            await asyncio.wait([writing])
            if not writing.cancelled():
                return

    async def _write_pieces(self, sync: bool) -> None:
        pieces, self._pieces = self._pieces, []
        try:
            await self._guard(self._in_thread, self._append, pieces, sync)
        finally:
            self._writing = None

    async def _finish(self) -> None:
        if self._writing is not None:
            writing = self._writing
            try:
                await asyncio.wait([writing])
            except asyncio.CancelledError:  # the loop ends, and nobody will come back
                try:
                    await cancel_and_wait(writing)
                finally:
                    self._append_and_close()
                raise
        await self._in_thread(self._append_and_close)

    async def _in_thread(self, function: Callable[[*Ts], None], *arguments: *Ts) -> None:
        """Call `function` in the blocking pool, to the end also when this is cancelled meanwhile.

        Until then the file belongs to the thread, and nobody else may write to it or close it.
        """
        call = spawn_blocking(function, *arguments)
        try:
            await call
        except asyncio.CancelledError:
            try:
                await cancel_and_wait(call)
            finally:
                if call.is_cancelled():  # no thread has taken it, and nobody will come back for it
                    function(*arguments)
            raise

    def _append(self, pieces: list[bytes], sync: bool) -> None:
        self._target.write(b"".join(pieces), sync=sync)

    def _append_and_close(self) -> None:
        pieces, self._pieces = self._pieces, []
        target = self._target
        if target.failed or (self._given_up and target.replaces):
            target.leave()
            return
        try:
            self._append(pieces, False)
        except BaseException:
            target.leave()
            raise
        target.commit()

    def _fail(self, error: BaseException) -> None:
        lost = self._accepted - (0 if self._target.replaces else self._target.written)
        if self._target.failed and lost:
            error.add_note(f"{lost} of the {self._accepted} bytes that {self!r} has accepted are not in the file")
        super()._fail(error)

    def __del__(self) -> None:
        target = getattr(self, "_target", None)  # none if an argument was refused
        if target is None or not (self._pieces or target.is_open):
            return
        self._given_up = True
        outcome = ": what it was to replace stays" if target.replaces else ""
        try:
            self._append_and_close()
        finally:
            warnings.warn(f"{self!r} was dropped and never closed{outcome}", ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        return f"<FileSink {self._path!r}, {self._state()}>"
