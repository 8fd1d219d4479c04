"""Listening at a path.

Invariant: whoever puts a socket at a path holds the lock of its directory, until the socket listens. So who has the
lock and finds a socket on which nobody listens has found what a dead server left.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import sys
from functools import partial

from yamanote.server._bound import Bound

__all__ = ["bind_unix"]

_PAUSE = 0.01
"""Seconds between two attempts to get the lock, which others hold for microseconds."""


async def bind_unix(path: str, mode: int | None, backlog: int) -> Bound:
    """Listen at `path`, in the place of a socket that a dead server has left there.

    Raises OSError when that cannot be had: with `errno.EADDRINUSE`, if there is a living server, or another file. A
    socket that cannot be removed at the end is told to the exception handler of the loop.
    """
    if sys.platform == "win32":
        raise OSError(errno.EAFNOSUPPORT, f"cannot listen at {path}: there are no Unix sockets here")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        directory = os.open(os.path.dirname(path) or os.curdir, os.O_RDONLY | os.O_DIRECTORY)
        try:
            await _lock(directory)
            remove = _listen(listener, path, mode, backlog)
        finally:
            os.close(directory)  # and the lock with it
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return Bound([listener], remove=remove)


if sys.platform != "win32":
    from collections.abc import Callable
    from fcntl import LOCK_EX, LOCK_NB, flock

    async def _lock(directory: int) -> None:
        while True:
            try:
                return flock(directory, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                await asyncio.sleep(_PAUSE)

    def _listen(listener: socket.socket, path: str, mode: int | None, backlog: int) -> Callable[[], None]:
        try:
            if _is_left_over(path):
                os.unlink(path)
            listener.bind(path)
        except OSError as error:
            # Without a number: it is Python which finds the path too long.
            number = error.errno or errno.ENAMETOOLONG
            reason = error.strerror or "the path is longer than that of a Unix socket can be"
            if number == errno.EADDRINUSE and not _is_socket(path):
                reason = "it exists, and is no socket"
            raise OSError(number, f"cannot listen at {path}: {reason}") from None
        # Absolute: it is to be found again even if the program has gone to another directory.
        remove = partial(_remove, os.path.abspath(path), _identity(path), asyncio.get_running_loop())
        try:
            if mode is not None:
                os.chmod(path, mode)  # before it listens: nobody gets in who may not
            listener.listen(backlog)
        except BaseException:
            remove()
            raise
        return remove

    def _is_left_over(path: str) -> bool:
        """Whether there is a socket on which nobody listens."""
        if not _is_socket(path):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.setblocking(False)  # a living server may be too busy to let anybody in
            return asking.connect_ex(path) == errno.ECONNREFUSED

    def _is_socket(path: str) -> bool:
        try:
            return stat.S_ISSOCK(os.stat(path).st_mode)
        except FileNotFoundError:
            return False

    def _remove(path: str, identity: tuple[int, int], loop: asyncio.AbstractEventLoop) -> None:
        try:
            if _identity(path) == identity:  # else somebody has put another one there
                os.unlink(path)
        except FileNotFoundError:
            pass  # somebody was faster
        except OSError as error:
            loop.call_exception_handler({"message": f"cannot remove the socket at {path}", "exception": error})

    def _identity(path: str) -> tuple[int, int]:
        status = os.lstat(path)
        return status.st_dev, status.st_ino
