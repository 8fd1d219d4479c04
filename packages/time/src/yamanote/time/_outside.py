"""Outside: who does something for a loop where the loop cannot see it, and who may have something for it.

Invariant: a call in a thread, or a process, counts from when the loop starts it until its end has arrived on the loop:
between its last act and the effect of that there is no moment at which nobody seems to be at work.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from asyncio import Future
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from yamanote.runtime import busy_calls, is_thread_parked

__all__ = ["Outside", "is_listening"]


class Outside:
    """The surroundings of one selector loop, for a clock that must not run ahead of them.

    It sees what is started through `methods`, which stand in for those of the loop, and what is brought to
    `spawn_blocking`. `holds` has an element for each party that wants to be counted without being seen.
    """

    def __init__(self, loop: Any, holds: list[None]) -> None:
        self._loop = loop
        self._holds = holds
        self._calls: list[_Call] = []
        self._processes: list[asyncio.SubprocessTransport] = []
        self.methods: dict[str, Callable[..., Any]] = {
            "run_in_executor": partial(self._run_in_executor, loop.run_in_executor),
            # A thread of its own waits there for the others to end; on 3.12 and later with a timeout.
            "shutdown_default_executor": partial(self._held, loop.shutdown_default_executor),
            "subprocess_exec": partial(self._start_process, loop.subprocess_exec),
            "subprocess_shell": partial(self._start_process, loop.subprocess_shell),
        }

    def at_work(self) -> list[str]:
        """All who are doing something, in words."""
        # Asked before every jump, when mostly there is nobody.
        busy = [f"the call of {name} in a thread" for name in busy_calls(self._loop)]
        if self._calls:
            self._calls = [call for call in self._calls if not call.is_over()]
            busy += [f"the call of {call.name} in a thread" for call in self._calls if call.is_busy()]
        if self._processes:
            self._processes = [process for process in self._processes if process.get_returncode() is None]
            busy += [f"the process {process.get_pid()}" for process in self._processes]
        return busy + ["a block of hold()"] * len(self._holds)

    def watched(self) -> list[int]:
        """The file descriptors that the loop watches, for the program."""
        own = self._loop._ssock.fileno()  # through which it is woken
        return [key.fd for key in self._loop._selector.get_map().values() if key.fd != own]

    def _run_in_executor(
        self, run_in_executor: Callable[..., Future[Any]], executor: Any, function: Callable[..., Any], *args: Any
    ) -> Future[Any]:
        call = _Call(function)
        # Other executors may have to pickle it; then nobody knows which thread makes the call, if any does.
        if executor is None or type(executor) is ThreadPoolExecutor:
            function = call
        call.future = run_in_executor(executor, function, *args)
        self._calls.append(call)
        return call.future

    async def _start_process(
        self, start: Callable[..., Coroutine[Any, Any, tuple[Any, Any]]], *args: Any, **kwargs: Any
    ) -> tuple[Any, Any]:
        transport, protocol = await start(*args, **kwargs)
        self._processes.append(transport)
        return transport, protocol

    async def _held(self, function: Callable[..., Awaitable[None]], *args: Any, **kwargs: Any) -> None:
        self._holds.append(None)
        try:
            await function(*args, **kwargs)
        finally:
            self._holds.pop()


class _Call:
    """A call that an executor makes."""

    __slots__ = ("_function", "_thread", "future")

    future: Future[Any]
    """For its result."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._thread: int | None = None

    def __call__(self, *args: Any) -> Any:
        self._thread = threading.get_ident()
        try:
            return self._function(*args)
        finally:
            self._thread = None  # before it takes the next call, and parks there

    @property
    def name(self) -> str:
        function = self._function
        if isinstance(function, partial) and function.args:  # of asyncio.to_thread: Context.run(function, ...)
            function = function.args[0]
        return getattr(function, "__qualname__", None) or type(function).__qualname__

    def is_busy(self) -> bool:
        """Whether it has to be waited for: a thread that is parked waits for the loop itself."""
        thread = self._thread
        return thread is None or not is_thread_parked(thread)

    def is_over(self) -> bool:
        """Whether its result has arrived; or, when nobody wants it any more, whether the thread is done."""
        return self._thread is None and self.future.done()


def is_listening(descriptor: int) -> bool:
    """Whether this is a socket at which others may knock, and through which nothing else arrives."""
    try:
        probe = socket.socket(fileno=descriptor)
    except OSError:  # no socket
        return False
    try:
        return bool(probe.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:  # of a kind that never listens
        return False
    finally:
        probe.detach()
