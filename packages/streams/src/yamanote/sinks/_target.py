"""Target: the file that a sink writes, or one beside it that takes its place at the end.

Invariant: a file that is replaced is the old one or the complete new one, at any moment, whatever fails. The calls
block; who owns the target makes them one after the other, from any thread.

It holds a descriptor and no file object: that would have a finalizer of its own, which may come before the one of the
sink that has still something to write.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from typing import Literal, TypeAlias

__all__ = ["Mode", "Target"]

Mode: TypeAlias = Literal["append", "replace", "create"]


class Target:
    """Opened by the first `write`; to be ended by `commit` or `leave`."""

    __slots__ = (
        "_beginning",
        "_descriptor",
        "_destination",
        "_fsync",
        "_mode",
        "_path",
        "_temporary",
        "failed",
        "replaces",
        "synced",
        "written",
    )

    def __init__(self, path: str, mode: Mode, beginning: bytes, fsync: bool) -> None:
        self._path = path
        self._mode: Mode = mode
        self._beginning = beginning
        """Of a file that is empty: the byte order mark of an encoding."""
        self._fsync = fsync
        self._descriptor: int | None = None
        self._destination = path
        self._temporary: str | None = None
        self.replaces = mode == "replace"
        """Whether nothing is in its place yet, and the old file is, or whatever is there."""
        self.written = 0
        """How many bytes the operating system has."""
        self.synced = 0
        """How many of them are on the disk."""
        self.failed = False

    @property
    def is_open(self) -> bool:
        return self._descriptor is not None

    def write(self, data: bytes, *, sync: bool = False) -> None:
        """Write all of `data`; with `sync`, return when everything is on the disk."""
        try:
            descriptor = self._open() if self._descriptor is None else self._descriptor
            self._write_all(descriptor, data)
            if sync:
                os.fsync(descriptor)
                self.synced = self.written
        except BaseException:
            self.failed = True
            raise

    def _write_all(self, descriptor: int, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            count = os.write(descriptor, rest)
            self.written += count
            rest = rest[count:]

    def commit(self) -> None:
        """Everything has been written: put it in its place."""
        descriptor = self._descriptor
        if descriptor is None:
            raise RuntimeError("nothing has been written")
        try:
            if self._fsync:
                os.fsync(descriptor)
                self.synced = self.written
            self._descriptor = None
            os.close(descriptor)
            if self._temporary is not None:
                os.replace(self._temporary, self._destination)
                self._temporary = None
                self.replaces = False
                self._sync_folder()
        except BaseException:
            self.failed = True
            self.leave()
            raise

    def leave(self) -> None:
        """Let go of what is open. What was to be replaced stays as it was."""
        descriptor, self._descriptor = self._descriptor, None
        temporary, self._temporary = self._temporary, None
        try:
            if descriptor is not None:
                os.close(descriptor)
        finally:
            if temporary is not None:
                with suppress(FileNotFoundError):
                    os.unlink(temporary)

    def _open(self) -> int:
        if self._mode == "replace":
            descriptor = self._open_to_replace()
        else:
            flags = os.O_APPEND | os.O_CREAT if self._mode == "append" else os.O_CREAT | os.O_EXCL
            descriptor = self._descriptor = _open_file(self._path, flags)
        if self._temporary is None:
            self._sync_folder()
        if self._beginning and not os.fstat(descriptor).st_size:
            self._write_all(descriptor, self._beginning)
            self.written = 0
        return descriptor

    def _open_to_replace(self) -> int:
        destination = os.path.realpath(self._path)  # a link stays a link
        try:
            status = os.stat(destination)
        except FileNotFoundError:
            status = None
        if status is not None and not stat.S_ISREG(status.st_mode):
            self.replaces = False  # a device or a pipe stays what it is
            descriptor = self._descriptor = _open_file(destination, os.O_TRUNC)
            return descriptor
        if status is not None and not os.access(destination, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), self._path)
        temporary = os.path.join(os.path.dirname(destination), f".yamanote-{secrets.token_hex(8)}")
        descriptor = self._descriptor = _open_file(temporary, os.O_CREAT | os.O_EXCL)
        self._destination, self._temporary = destination, temporary
        if status is not None:
            with suppress(PermissionError, AttributeError):  # the owner of a file is not always ours to choose
                os.chown(temporary, status.st_uid, status.st_gid)
            os.chmod(temporary, stat.S_IMODE(status.st_mode))
        return descriptor

    def _sync_folder(self) -> None:
        """Bring the name of the file to the disk, where that can be asked for."""
        if self._fsync and os.name != "nt":
            folder = os.open(os.path.dirname(self._destination) or ".", os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _open_file(path: str, flags: int) -> int:
    return os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0) | flags, 0o666)
