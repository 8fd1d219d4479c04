"""Readiness: waiting until a call on a socket would not block.

Invariant: at most one task at a time has a claim on a direction of a socket, and only it waits. The descriptor goes
back to the system only when no loop watches it any more: so whoever gets its number next is never taken for the socket
that had it before.

A loop on which a task has waited for reading goes on watching until something comes that nobody waits for: to begin
and to end that costs more than all the rest of a wait. Who begins writes down that the loop watches *and then* looks
whether the socket is open; who closes takes the descriptor away *and then* looks who watches. One sees the other,
whichever threads they are in.
"""

from __future__ import annotations

import os
import socket as standard
from asyncio import AbstractEventLoop, Future, _get_running_loop, get_running_loop
from collections.abc import Callable
from errno import EBADF
from threading import RLock
from typing import Literal, TypeAlias, TypeVar, TypeVarTuple

from yamanote.runtime import BUDGET, yield_now

__all__ = ["READING", "WRITING", "Readiness", "Watch", "describe"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Direction: TypeAlias = Literal["reading", "writing"]
READING: Literal["reading"] = "reading"
WRITING: Literal["writing"] = "writing"

_forks = 0
"""Between this process and the first one. Parent and child share what the parent's loops watch: the child leaves it
alone. A small number, because two threads that read the same object hinder each other, all others.
"""


_taking = RLock()  # a signal handler or a finalizer may close another one meanwhile
"""Held while a descriptor is taken away. On free-threaded builds `detach` is not atomic: of two threads that close a
socket at once, both would get the number, and the second would close whose it is by then.
"""


class Readiness:
    """The two directions of one socket, which must not block."""

    __slots__ = ("_claims", "_left", "_socket", "_watches")

    def __init__(self, socket: standard.socket) -> None:
        self._socket = socket
        self._claims: dict[Direction, Watch] = {}
        self._watches: dict[tuple[Direction, AbstractEventLoop], Watch] = {}
        self._left = BUDGET  # how many ready calls in a row until the next yield

    async def call(self, direction: Direction, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call `function` as soon as it does not block. Who is cancelled has got nothing done by it."""
        if left := self._left:
            self._left = left - 1
        else:
            await self.give_way()
        if direction in self._claims:
            self._refuse(direction)
        try:
            return function(*args)
        except BlockingIOError:
            pass
        watch = self.claim(direction)
        try:
            while True:
                await watch.begin(self._socket)
                try:
                    return function(*args)
                except BlockingIOError:
                    pass
        finally:
            self.release(watch)

    async def give_way(self) -> None:
        """Yield, if it is time to."""
        if left := self._left:
            self._left = left - 1
        else:
            self._left = BUDGET
            await yield_now()

    def claim(self, direction: Direction) -> Watch:
        """Take a direction for the running task, until `release`. Raises RuntimeError if it is taken."""
        if direction in self._claims:
            self._refuse(direction)
        loop = get_running_loop()
        watch = self._watches.get((direction, loop))
        if watch is None or watch.forks != _forks:
            watch = Watch(direction, loop, self._watches)
        # `setdefault` is atomic on every build of CPython: of two threads, one finds the watch of the other.
        while self._claims.setdefault(direction, watch) is not watch:
            self._refuse(direction)
        return watch

    def _refuse(self, direction: Direction) -> None:
        """Raise RuntimeError, if a task that can still go on has the direction."""
        watch = self._claims.get(direction)
        if watch is None:
            return
        if watch.is_alive():
            raise RuntimeError(f"another task is {direction} already: {describe(self._socket)}")
        self.release(watch)

    def release(self, watch: Watch) -> None:
        """Let others have the direction."""
        watch.pause()
        if self._claims.get(watch.direction) is watch:  # one that is not alive may have lost it to somebody else
            del self._claims[watch.direction]

    async def ready(self, watch: Watch) -> None:
        """Wait until the direction is ready, or may be: only the next call tells. For the task that has the claim."""
        try:
            await watch.begin(self._socket)
        finally:
            watch.pause()

    def close(self) -> None:
        """Close the socket; whoever waits for it gets an error. From any thread."""
        name = describe(self._socket) if self._claims else ""
        with _taking:
            descriptor = self._socket.detach()
        if descriptor < 0:
            return
        if self._watches:
            _let_go([*self._watches.copy().values()], _Held(descriptor), name)
        else:
            standard.close(descriptor)

    def detach(self) -> int:
        """Give the descriptor away, open; whoever waits for it gets an error. From any thread."""
        name = describe(self._socket) if self._claims else ""
        with _taking:
            descriptor = self._socket.detach()
        watches = [*self._watches.copy().values()]
        if descriptor < 0 or all(watch.is_here() for watch in watches):
            _let_go(watches, None, name)
            return descriptor
        held = _Held(descriptor)
        try:
            return standard.dup(descriptor)
        finally:
            _let_go(watches, held, name)

    def __del__(self) -> None:
        # Dropped: the loops let go of it first, and then the standard socket closes itself, with a warning.
        if self._watches:
            _let_go([*self._watches.values()], self._socket, "")


class Watch:
    """One direction of a socket on one loop. It does not keep the socket alive: the loop keeps it."""

    __slots__ = ("_descriptor", "_future", "_loop", "_watches", "direction", "forks")

    def __init__(
        self,
        direction: Direction,
        loop: AbstractEventLoop,
        watches: dict[tuple[Direction, AbstractEventLoop], Watch],
    ) -> None:
        self.forks = _forks
        self.direction: Direction = direction
        self._loop = loop
        self._watches = watches
        self._future: Future[None] | None = None  # while a task waits
        self._descriptor = -1  # while the loop watches it

    def begin(self, socket: standard.socket) -> Future[None]:
        """Return a future that is done when the direction may be ready, and fails when the socket is closed."""
        if self._descriptor < 0:
            self._watch(socket)
        future: Future[None] = Future(loop=self._loop)
        self._future = future
        return future

    def pause(self) -> None:
        """Nobody waits for now."""
        self._future = None
        if self._descriptor >= 0 and self.direction == WRITING:  # nearly always possible: it would be told at once
            self._unwatch()

    def end(self, name: str) -> None:
        """Have the loop let go of the descriptor, and tell the task that waits that the socket is closed."""
        self._unwatch()
        future = self._future
        if future is not None and self.is_alive() and not future.done():
            future.set_exception(_closed(name))

    def is_alive(self) -> bool:
        """Whether a task can still wait: not where the loop is closed, or was the parent's before a fork."""
        return self.forks == _forks and not self._loop.is_closed()

    def is_here(self) -> bool:
        """Whether it can be ended at once."""
        return self._loop is _get_running_loop() or not self.is_alive()

    def call_there(self, function: Callable[[*Ts], None], *args: *Ts) -> bool:
        """Call `function` in the thread of the loop; false if the loop is closed."""
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            return False
        return True

    def _watch(self, socket: standard.socket) -> None:
        watches = self._watches
        for key, watch in watches.copy().items():
            if watch._loop.is_closed():
                watches.pop(key, None)  # nor need it be kept
        watches[self.direction, self._loop] = self
        descriptor = socket.fileno()
        try:
            if descriptor < 0:
                raise _closed(describe(socket))
            if self.direction == READING:
                self._loop.add_reader(descriptor, self._wake)
            else:
                self._loop.add_writer(descriptor, self._wake)
        except BaseException as error:
            watches.pop((self.direction, self._loop), None)
            if isinstance(error, NotImplementedError) and not error.args:
                advice = "it needs one that watches descriptors, such as asyncio.SelectorEventLoop"
                raise RuntimeError(f"a socket cannot wait on {self._loop!r}: {advice}") from None
            raise
        self._descriptor = descriptor

    def _unwatch(self) -> None:
        descriptor = self._descriptor
        if descriptor < 0:
            return
        self._descriptor = -1
        self._watches.pop((self.direction, self._loop), None)
        if not self.is_alive():
            return
        if self.direction == READING:
            self._loop.remove_reader(descriptor)
        else:
            self._loop.remove_writer(descriptor)

    def _wake(self) -> None:
        future = self._future
        if future is None:
            self._unwatch()
        elif not future.done():
            future.set_result(None)


class _Held:
    """The descriptor of a socket that was closed. If the loop ends before it has let go, dropping this closes it."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            standard.close(descriptor)

    __del__ = close


def _let_go(watches: list[Watch], held: _Held | standard.socket | None, name: str) -> None:
    """End the watches, each in the thread of its loop, one after the other; then close what was held, or drop it."""
    while watches:
        watch = watches[-1]
        if watch.is_here():
            watch.end(name)
        elif watch.call_there(_let_go, watches, held, name):
            return
        watches.pop()
    if isinstance(held, _Held):
        held.close()


def _closed(name: str) -> OSError:
    return OSError(EBADF, f"closed while a task waited for it: {name or 'a socket'}")


def describe(socket: standard.socket) -> str:
    """What a socket of ours looks like; `socket` is the one within."""
    return repr(socket).replace("<socket.", "<yamanote.net.socket.", 1)


def _forget_parent() -> None:
    global _forks, _taking
    _forks += 1
    _taking = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
