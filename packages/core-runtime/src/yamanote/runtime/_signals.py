"""Signals: as a stream, as something to wait for, and as the end of a block.

Invariant: every listener gets every arrival; one that is slow sees "at least once since I last looked" of each signal.
The first listener of a signal takes it, and what handled it before gets it back when the last one has gone.

It is taken with `signal.signal` and not through the loop: that exchanges two handlers in one step, so that there is no
moment in which the signal would end the process, and works with every loop and on every platform. A handler that
somebody has given to the loop stays there, and is called as well.
"""

from __future__ import annotations

import asyncio
import signal
import warnings
import weakref
from asyncio import _get_running_loop
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from signal import Signals
from types import FrameType, TracebackType
from typing import Any, final

from yamanote.runtime._ask import ask
from yamanote.runtime._critical import CriticalSection
from yamanote.runtime._interrupt import as_signals, give_back, is_main_thread
from yamanote.runtime._scope import CancelScope
from yamanote.runtime._task import no_loop, worker_of
from yamanote.runtime._waiter import Waiter, park
from yamanote.runtime._wakeup import wakeup_of

__all__ = ["SignalListener", "SignalScope", "handle_signal", "signals", "stop_listening", "wait_for_signal"]


def signals(*signums: int) -> SignalListener:
    """Listen for signals, from now on: ``with signals(SIGHUP) as arrived: async for signum in arrived: ...``.

    As long as anybody listens, the signal does nothing else: it ends no program, and Ctrl-C (SIGINT) cancels nothing.

    Raises ValueError and TypeError for what is no signal, or cannot be caught, and RuntimeError unless the running loop
    is that of the main thread, or of another worker of its runtime; then nothing has been changed. Another worker
    listens as soon as the loop of the main thread comes to it.

    >>> import signal
    >>> async def main():
    ...     with signals(signal.SIGINT) as arrived:
    ...         signal.raise_signal(signal.SIGINT)
    ...         async for signum in arrived:
    ...             return signum.name
    >>> run(main())
    'SIGINT'
    """
    return SignalListener(_require_signals("signals", signums), _require_loop("signals"))


async def wait_for_signal(*signums: int) -> Signals:
    """Wait until one of these signals arrives, and return which.

    Signals that come before the call, or after it, are handled as if it had never been made. Raises what `signals`
    raises. **Cancel safety:** a signal that arrives as the call is cancelled is lost, if nobody else listens: to miss
    none, keep a listener.
    """
    with SignalListener(_require_signals("wait_for_signal", signums), _require_loop("wait_for_signal")) as arrived:
        return await anext(arrived)


def handle_signal(*signums: int) -> SignalScope:
    """Cancel a block when one of these signals arrives: ``with handle_signal(SIGTERM) as scope: ...``.

    The CancelledError is swallowed at the end of the block, and ``scope.signal`` says which one it was. Until the block
    has ended, further signals do nothing.

    Raises ValueError and TypeError for what is no signal, or cannot be caught; entering the block raises RuntimeError
    unless the running loop is that of the main thread, or of another worker of its runtime.

    >>> import signal
    >>> async def main():
    ...     with handle_signal(signal.SIGINT) as scope:
    ...         signal.raise_signal(signal.SIGINT)
    ...         await asyncio.sleep(3600)
    ...     return scope.signal.name
    >>> run(main())
    'SIGINT'
    """
    return SignalScope(_require_signals("handle_signal", signums))


@final
class SignalListener:
    """The arrivals of some signals: an asynchronous iterator of `signal.Signals`, which ends when it is closed.

    Signals that arrive while nobody waits are kept, each once, in the order in which they came first. When several
    tasks wait, each arrival goes to one of them, first in, first out. It can be waited for with `park` and `select`,
    too. Close it: with `with`, `close` or `aclose`.

    **Cancel safety:** no arrival is lost when the call that waits is cancelled: it stays with the listener.

    **Threads:** `close` may be called from any thread.
    """

    __slots__ = ("__weakref__", "_arrived", "_closed", "_loop", "_section", "_signums", "_waiters")

    def __init__(self, signums: tuple[Signals, ...], loop: asyncio.AbstractEventLoop) -> None:
        self._closed = True
        self._loop = loop
        self._signums = signums
        self._arrived: dict[Signals, None] = {}
        self._waiters: deque[Waiter[Any]] = deque()
        self._section = CriticalSection()
        _listen(loop, signums, self)
        self._closed = False

    def close(self) -> None:
        """Stop listening; whoever waits is told that there is no more. Later calls do nothing."""
        if self._closed:
            return
        self._closed = True
        _leave(self._loop, self._signums, id(self))
        with self._section:
            while self._waiters:
                if (waiter := self._waiters.popleft()).claim():
                    waiter.fail(StopAsyncIteration())

    async def aclose(self) -> None:
        """`close`, for whoever closes what it iterates."""
        self.close()

    def __aiter__(self) -> SignalListener:
        return self

    async def __anext__(self) -> Signals:
        return await park(self)

    def __enter__(self) -> SignalListener:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> SignalListener:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    def register(self, waiter: Waiter[Any], /) -> None:
        with self._section:
            if self._arrived:
                signum = next(iter(self._arrived))
                if waiter.hand(signum):
                    del self._arrived[signum]
            elif not self._closed:
                self._waiters.append(waiter)
            elif waiter.claim():
                waiter.fail(StopAsyncIteration())

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        self._section.run(partial(self._forget, waiter))

    def _forget(self, waiter: Waiter[Any]) -> None:
        if not waiter.settled:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        elif waiter.error is None:
            others, self._arrived = self._arrived, {}
            self._hand(waiter.value)
            self._arrived |= others

    def _hand(self, signum: Signals) -> None:
        while self._waiters:
            if self._waiters.popleft().hand(signum):
                return
        self._arrived[signum] = None

    def _arrive(self, signum: Signals) -> None:
        with self._section:
            self._hand(signum)

    def __del__(self) -> None:
        if not self._closed:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=1, source=self)
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "listening"
        return f"<SignalListener {state} {', '.join(signum.name for signum in self._signums)}>"


@final
class SignalScope:
    """The block of `handle_signal`."""

    __slots__ = ("__weakref__", "_loop", "_scope", "_signums", "signal")

    signal: Signals | None
    """Which one has arrived first, None if none did. The block may have ended of its own accord all the same."""

    def __init__(self, signums: tuple[Signals, ...]) -> None:
        self._signums = signums
        self._scope = CancelScope()
        self.signal = None

    def __enter__(self) -> SignalScope:
        self._loop = _require_loop("handle_signal")
        self._scope.__enter__()
        _listen(self._loop, self._signums, self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        _leave(self._loop, self._signums, id(self))
        return self._scope.__exit__(kind, error, traceback)

    def _arrive(self, signum: Signals) -> None:
        if self.signal is None:
            self.signal = signum
            self._scope.cancel(f"{signum.name} has arrived")


# ---------------------------------------------------------------- taking signals, and giving them back


class _Taken:
    """A signal that somebody listens for."""

    __slots__ = ("_loop", "_previous", "_signum", "_untold", "listeners")

    def __init__(self, loop: asyncio.AbstractEventLoop, signum: Signals) -> None:
        self._loop = loop
        self._signum = signum
        self._untold = False
        # By identity. Weak, so that a listener that was forgotten is collected, and closed.
        self.listeners: dict[int, weakref.ref[SignalListener | SignalScope]] = {}
        self._previous = signal.signal(signum, self._arrived)
        wakeup_of(loop).hold(self)

    def give_back(self) -> None:
        give_back(self._signum, self._previous, self._arrived)
        wakeup_of(self._loop).release(self)
        if self._untold:
            # It arrived when everybody was about to go: whoever has it now gets it.
            self._untold = False
            signal.raise_signal(self._signum)

    def _arrived(self, signum: int, frame: FrameType | None) -> None:
        self._untold = True
        try:
            self._loop.call_soon_threadsafe(self._tell)
        except RuntimeError:  # closed, and whoever closed it knew nothing of us
            self.give_back()

    def _tell(self) -> None:
        if not self._untold:  # told by another call, or given back
            return
        self._untold = False
        for reference in list(self.listeners.values()):
            listener = reference()
            if listener is not None:
                listener._arrive(self._signum)


def stop_listening(loop: asyncio.AbstractEventLoop) -> None:
    """Give all signals back. `loop` is about to be closed."""
    taken = _taken_by(loop)
    while taken:
        taken.popitem()[1].give_back()


def _taken_by(loop: asyncio.AbstractEventLoop) -> dict[Signals, _Taken]:
    taken: dict[Signals, _Taken] | None = getattr(loop, "_yamanote_signals", None)
    if taken is None:
        taken = loop._yamanote_signals = {}  # type: ignore[attr-defined]
    return taken


def _listen(
    loop: asyncio.AbstractEventLoop, signums: tuple[Signals, ...], listener: SignalListener | SignalScope
) -> None:
    if not is_main_thread():
        _ask_main_thread(loop, partial(_listen, loop, signums, listener))
        return
    taken = _taken_by(loop)
    for signum in signums:
        if signum not in taken:
            try:
                taken[signum] = _Taken(loop, signum)
            except (ValueError, OSError) as error:
                _leave(loop, signums, id(listener))
                problem = f"signums must be signals that can be caught, but {signum.name} cannot: {error}"
                raise ValueError(problem) from None
        taken[signum].listeners[id(listener)] = weakref.ref(listener)


def _leave(loop: asyncio.AbstractEventLoop, signums: Iterable[Signals], listener: int) -> None:
    if not is_main_thread():  # closed by another thread, or by the collector: handlers belong to the main thread
        try:
            _ask_main_thread(loop, partial(_leave, loop, signums, listener))
        except RuntimeError:  # closed: the signals have been given back, or will be when one arrives
            pass
        return
    taken = _taken_by(loop)
    for signum in signums:
        if (entry := taken.get(signum)) is not None:
            entry.listeners.pop(listener, None)
            if not entry.listeners:
                del taken[signum]
                entry.give_back()


def _ask_main_thread(loop: asyncio.AbstractEventLoop, question: Callable[[], None]) -> None:
    """Call it there: now, if its `loop` runs and has nothing else to do than to wait for us, or when it comes to it."""
    if worker_of(loop) is None and loop.is_running():
        with suppress(TimeoutError):  # it has just stopped
            ask(loop, question)
            return
    loop.call_soon_threadsafe(question)


def _require_signals(caller: str, signums: tuple[int, ...]) -> tuple[Signals, ...]:
    if not signums:
        raise ValueError(f"{caller}() needs at least one signal")
    return as_signals(signums, "signums")


def _require_loop(caller: str) -> asyncio.AbstractEventLoop:
    loop = _get_running_loop()
    if loop is None:
        raise no_loop(caller)
    if is_main_thread():
        return loop
    worker = worker_of(loop)
    if worker is not None and worker.workers.in_main_thread:
        return worker.workers.home
    raise RuntimeError(f"{caller}() needs the event loop of the main thread: signals arrive nowhere else")
