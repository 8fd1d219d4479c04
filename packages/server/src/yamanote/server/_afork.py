"""`afork`: call a function in a process of its own.

Invariant: either there is a child that has called its function, or is about to, or nothing is left of the attempt: no
process, no file descriptor, no thread that still starts one.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Literal, TypeVarTuple, Unpack

from yamanote.futures import select
from yamanote.runtime import BlockingPool, finish_within, require_function, shield_wait
from yamanote.server._child import Child, ChildStartError
from yamanote.server._child_process import READY, ForkServerChildProcess, SpawnChildProcess, pickle_call, require_main

__all__ = ["afork", "start_child"]

Ts = TypeVarTuple("Ts")

_KINDS = {"spawn": SpawnChildProcess, "forkserver": ForkServerChildProcess}

_FORK_SERVER_DIED = 255

_DYING = 10.0
"""Seconds for a child to end which has given up before it was ready."""

_starters = BlockingPool(16, name="yamanote-afork")
"""To start a process takes milliseconds, and the first one from the fork server as long as the program takes to import.
The signal mask with which it is started is that of the thread."""


async def afork(
    function: Callable[[Unpack[Ts]], int | None],
    /,
    *args: *Ts,
    name: str | None = None,
    method: Literal["spawn", "forkserver"] = "spawn",
) -> Child:
    """Call ``function(*args)`` in a new process. Returns when that has imported everything and is about to call it.

    The child imports the main module of the program, so what starts the program must stand under ``if __name__ ==
    "__main__":``. The function must be one that can be imported, and the arguments must be picklable; sockets are
    duplicated into the child, and so is everything that `multiprocessing` can pass on. With "spawn" the child is a new
    Python; with "forkserver" it is a copy of one that has done nothing but imports, which is much faster.

    The child ends as a program does that makes this one call: what the function returns is its exit status, 0 for None;
    after an error it is 1, after ``sys.exit(3)`` it is 3, and an unhandled Ctrl-C ends it by SIGINT. Threads are
    joined, exit handlers run, output is written. SIGINT and SIGTERM are handled as in a new program, and no signal is
    blocked; standard input is empty. It may have children of its own. It is not ended when its parent is; the sentinel
    of `multiprocessing.parent_process` tells that.

    Raises TypeError and ValueError, naming the argument, for what cannot be called or pickled, and RuntimeError where
    the main module cannot be imported by a child, or is just being imported by one; then nothing has been started.
    Raises ChildStartError when the child ended before it was ready, OSError when the system cannot start a process.

    Needs Linux, macOS or another POSIX system: NotImplementedError elsewhere.

    **Cancel safety:** the child is killed, and the cancellation is raised when it was reaped.

    >>> import math
    >>> from yamanote.runtime import run
    >>> async def main() -> int:
    ...     async with await afork(math.gcd, 12, 18) as child:
    ...         return await child.wait()
    >>> run(main())
    6
    """
    require_function(function)
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"function must be a plain function, such as one that calls `run`, not {function!r}")
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a string or None, not {name!r}")
    if method not in _KINDS:
        raise ValueError(f"method must be 'spawn' or 'forkserver', not {method!r}")
    if os.name != "posix":
        raise NotImplementedError("afork() needs a POSIX system")
    require_main(function)
    label = getattr(function, "__qualname__", type(function).__qualname__) if name is None else name
    return await start_child(function, args, name=label, method=method)


async def start_child(
    function: Callable[..., int | None],
    args: tuple[Any, ...],
    *,
    name: str,
    method: Literal["spawn", "forkserver"],
    blocked: Sequence[int] = (),
) -> Child:
    """`afork`, of what is known to be in order. The function is called with the `blocked` signals blocked.

    So none of them is lost, and none ends the child, before the function can handle it.
    """
    call, descriptors = pickle_call(function, args)
    with ExitStack() as ours:
        theirs = ours.enter_context(ExitStack())
        for descriptor in descriptors:
            theirs.callback(os.close, descriptor)
        channel, far_end = map(ours.enter_context, socket.socketpair())
        theirs.callback(far_end.close)
        process = _KINDS[method](name, [far_end.fileno(), *descriptors], blocked)
        try:
            await shield_wait(_starters.spawn(process.launch))
        except asyncio.CancelledError:
            if process.pid is not None:
                await Child(process)._end_now()
            raise
        except (EOFError, ConnectionError) as error:
            problem = f"the fork server ended before it could start {name!r}: see its standard error stream"
            raise ChildStartError(problem, _FORK_SERVER_DIED) from error
        finally:
            theirs.close()  # or there would never be an end of what the child has to say
        child = Child(process)
        try:
            if await _is_ready(child, channel, call):
                return child
            with suppress(TimeoutError):
                await finish_within(_DYING, child.wait())
        except BaseException:
            await child._end_now()
            raise
        exitcode = await child._end_now()
    problem = f"child {name!r} ended with {exitcode} before it called its function: see its standard error stream"
    raise ChildStartError(problem, exitcode)


async def _is_ready(child: Child, channel: socket.socket, call: bytes) -> bool:
    """Send the call to the child, and wait until it is ready, or has ended, or never will be ready."""
    loop = asyncio.get_running_loop()
    channel.setblocking(False)
    has_answered = asyncio.Event()

    async def hand_over() -> None:
        with suppress(ConnectionError):
            await loop.sock_sendall(channel, call)
            channel.shutdown(socket.SHUT_WR)
        await has_answered.wait()

    loop.add_reader(channel, has_answered.set)
    try:
        await select(handed_over=hand_over(), ended=child)
    finally:
        loop.remove_reader(channel)
    # Only now, and whoever was first: a child may have ended right after it was ready.
    with suppress(OSError):
        return channel.recv(1) == READY
    return False
