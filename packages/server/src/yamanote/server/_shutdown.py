"""Shutdown: the end of a program, in order and within a number of seconds.

Invariant: once the shutdown has begun, by whatever cause, the body ends first, then the subsystems one after the other,
the youngest first; the block ends when all have ended. After the deadline, or when the shutdown is asked for a second
time, all who are left are cancelled at once. No error keeps the others from their turns, and each is raised, or
reported, once. While the block is open the signals are its own; afterwards, and after the second one, they are whose
they were before.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import CancelledError
from collections.abc import Iterable
from contextlib import suppress
from signal import SIGINT, SIGTERM, Signals
from types import TracebackType
from typing import Any, final

from yamanote.runtime import CancellationToken, CancelScope, SignalListener, Waiter, request_again, signals
from yamanote.server._counted import counted
from yamanote.server._seconds import require_seconds
from yamanote.server._signums import SAME_REQUEST_SECONDS, require_signals
from yamanote.server._subsystem import ErrorPolicy, Parent, require_policy

__all__ = ["Shutdown"]

DEADLINE_PASSED = "deadline passed"

_logger = logging.getLogger("yamanote")


@final
class Shutdown(Parent):
    """Runs the subsystems of a program, and ends them in order: ``async with Shutdown() as shutdown: ...``.

    The body starts the subsystems, by `spawn` and `start`. The block ends when the body and all of them have ended, or
    when the shutdown has begun and is over. It begins with the first of the `signals`, with `begin`, with an error, or
    when the block is cancelled. Then

    1. `token` is cancelled, and the body, if it has not ended; its CancelledError is swallowed.
    2. The subsystems are told to stop, one after the other: the one that was started last first. Each is waited for
       before the next one is told.
    3. After `timeout` seconds all who are left are cancelled, and waited for. None means as long as they take.

    A second signal, or a second cancellation of the block, means now: all who are left are cancelled at once. From then
    on signals are as they were before the block, so that another one ends a program that is stuck. Which signals the
    two are makes no difference. One that comes within 0.05 seconds of the first belongs to the same request, and does
    nothing.

    `on_error` says what the error of a subsystem does, unless that has its own: ``"shutdown"`` begins the shutdown, and
    the error is raised at the end; with ``"report"`` it goes to the exception handler of the loop, and the others go
    on. To be late is an error too, a TimeoutError with the names of all who were.

    After a signal the block just ends: `signal` tells which it was.

    Raises an ExceptionGroup of the errors when all have ended. SystemExit is raised as it is; so ``sys.exit(3)`` in a
    subsystem shuts down in order, and ends the program with status 3. Raises TypeError and ValueError for arguments
    that make no sense. Entering it raises what `yamanote.runtime.signals` raises outside of the main thread, unless
    `signals` is empty.

    **Cancel safety:** when the block is cancelled, the shutdown begins; the cancellation goes on when it is over.

    **Threads:** `begin` may be called from any thread, and the properties read; all else belongs to the loop of the
    block.

    >>> async def greeter(subsystem: Subsystem) -> None:
    ...     subsystem.started()
    ...     await subsystem.stopping()
    ...     print("bye:", subsystem.token.reason)
    >>> async def main() -> None:
    ...     async with Shutdown(timeout=5) as shutdown:
    ...         await shutdown.start(greeter)
    ...         signal.raise_signal(signal.SIGTERM)
    >>> import signal
    >>> run(main())
    bye: SIGTERM has arrived
    """

    __slots__ = (
        "_begun",
        "_body",
        "_body_open",
        "_cancellations",
        "_deadline",
        "_errors",
        "_exit",
        "_host",
        "_idle",
        "_requests",
        "_signals",
        "_signums",
        "_state",
        "_timeout",
        "_signalled_at",
        "_watcher",
        "cut_short",
        "signal",
        "token",
    )

    token: CancellationToken
    """Cancelled when the shutdown begins. To cancel it begins the shutdown."""
    signal: Signals | None
    """Which signal has come first, None if none has."""
    cut_short: tuple[str, ...]
    """The names of those who were cancelled because the deadline had passed, or a second signal come."""

    def __init__(
        self,
        *,
        timeout: float | None = 10.0,
        signals: Iterable[int] = (SIGINT, SIGTERM),
        on_error: ErrorPolicy = "shutdown",
    ) -> None:
        require_seconds("timeout", timeout, none="no deadline")
        require_policy(on_error)
        super().__init__(on_error)
        self._root = self
        self._timeout = timeout
        self._signums = require_signals("signals", signals)
        self._state = "new"
        self._begun = False
        self._body = CancelScope()
        self._body_open = False
        self._cancellations = 0
        self._errors: list[BaseException] = []
        self._exit: BaseException | None = None
        self._idle: asyncio.Future[None] | None = None
        self._signals: SignalListener | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._signalled_at = 0.0
        self._watcher = _Watcher(self)
        self.token = CancellationToken()
        self.signal = None
        self.cut_short = ()

    @property
    def reason(self) -> str | None:
        """Why it began: what `begin` was given, or which signal or subsystem it was. None before."""
        return self.token.reason

    def begin(self, reason: str | None = None) -> None:
        """Begin the shutdown, and return at once. Later calls do nothing, nor does one after the block has ended."""
        self.token.cancel(reason)

    async def __aenter__(self) -> Shutdown:
        if self._state != "new":
            raise RuntimeError("a Shutdown can be entered only once")
        listener = signals(*self._signums) if self._signums else None
        self._loop = asyncio.get_running_loop()
        self._host = asyncio.current_task()
        self._requests = 0 if self._host is None else self._host.cancelling()
        self._state = "open"
        self._body_open = True
        self._body.__enter__()
        self.token.register(self._watcher)
        if listener is not None:
            self._signals = listener
            listener.register(_Ear(self))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        swallowed = self._body.__exit__(kind, error, traceback)
        self._body_open = False
        outside: CancelledError | None = None
        try:
            if isinstance(error, GeneratorExit):
                self._abandon()
                return False
            if isinstance(error, CancelledError) and not swallowed:
                outside = error
                self._cancelled()
            elif isinstance(error, (KeyboardInterrupt, SystemExit)):
                self._exit = self._exit or error
                self.begin("the body failed")
            elif error is not None and not swallowed:
                self._errors.append(error)
                self.begin("the body failed")
            if self.token.is_cancelled():
                self._told()
            while self._children:
                self._idle = asyncio.get_running_loop().create_future()
                try:
                    await self._idle
                except CancelledError as cancelled:
                    outside = outside or cancelled
                    self._cancelled()
                except GeneratorExit:
                    self._abandon()
                    raise
            return self._result(error, outside) or swallowed
        finally:
            self._close()
            del error, outside, traceback  # errors refer to this frame, and it to them

    def _abandon(self) -> None:
        """The host is being thrown away, and then nothing can be awaited: cancel all, and let them end."""
        errors, self._errors = self._errors, []
        for error in errors:
            self._tell_loop("a subsystem failed, and its block was thrown away", error)
        self._cut("the block was thrown away")

    def _result(self, error: BaseException | None, outside: CancelledError | None) -> bool:
        """Raise what has to be raised, unless that is `error`, which goes on by itself."""
        errors, self._errors = self._errors, []
        fatal, self._exit = self._exit, None
        try:
            if fatal is not None:
                for other in errors:
                    self._tell_loop("a subsystem failed, and the program exits", other)
                if fatal is error:
                    return False
                raise fatal
            if errors:
                if outside is not None and self._host is not None:
                    request_again(self._host, self._requests)
                raise BaseExceptionGroup("unhandled errors in a Shutdown", errors) from None
            if outside is not None and outside is not error:
                raise outside
            return False
        finally:
            del error, outside, errors, fatal

    def _close(self) -> None:
        self._state = "ended"
        self.token.withdraw(self._watcher)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._signals is not None:
            self._signals.close()
        self._idle = None

    # ---------------------------------------------------------------- what begins it, and what ends it

    def _soon(self, callback: Any, *args: Any) -> None:
        """Have the loop call it, from whatever thread."""
        with suppress(RuntimeError):  # closed under the block: nothing will ever run there again
            self._loop.call_soon_threadsafe(callback, *args)

    def _told(self) -> None:
        """The token is cancelled."""
        if self._state != "open":
            return
        if not self._begun:
            self._begun = True
            if self._timeout is not None:
                self._deadline = self._loop.call_later(self._timeout, self._expire, self._timeout)
        if not self._body_open:
            self._stop_children(self.reason)

    def _heard(self, signum: Signals, first: bool) -> None:
        """A signal has arrived."""
        if self._state != "open" or self._signals is None:
            return
        if first:
            self._signalled_at = self._loop.time()
            self.begin(f"{signum.name} has arrived")
            self._signals.register(_Ear(self))
        elif self._loop.time() < self._signalled_at + SAME_REQUEST_SECONDS:
            self._signals.register(_Ear(self))
        else:
            self._signals.close()
            self._now(f"{signum.name} has arrived again" if signum is self.signal else f"{signum.name} has arrived")

    def _cancelled(self) -> None:
        """The block has been cancelled from outside."""
        self._cancellations += 1
        if self._cancellations == 1:
            self.begin("the block was cancelled")
        else:
            self._now("the block was cancelled again")

    def _now(self, reason: str) -> None:
        told, waiting = self._unfinished()
        if told or waiting:
            self._record_as_cut(told + waiting)
            _logger.warning("%s: cancelled before they had ended: %s", reason, in_words(told + waiting))
        self._cut(reason)

    def _expire(self, timeout: float) -> None:
        self._errors.append(self._late("the shutdown", timeout, self))

    def _cut(self, reason: str | None) -> None:
        if self._deadline is not None:  # nobody can be late any more
            self._deadline.cancel()
        self.token.cancel(reason)
        self._body.cancel(reason)
        super()._cut(reason)

    def _children_stopped(self) -> None:
        pass

    def _check(self) -> None:
        if not self._children and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _unfinished(self) -> tuple[list[Parent], list[Parent]]:
        told, waiting = super()._unfinished()
        if self._body_open:
            told.insert(0, self)
        return told, waiting

    def _record_as_cut(self, parts: list[Parent]) -> None:
        self.cut_short += tuple(part._called for part in parts if not part._is_cut)

    @property
    def _called(self) -> str:
        return "the body"

    # ---------------------------------------------------------------- errors

    def _failed(self, error: BaseException, name: str, policy: ErrorPolicy) -> None:
        if self._state == "ended":
            self._tell_loop(f"the subsystem {name!r} failed, and its block was thrown away", error)
        elif isinstance(error, SystemExit):
            self._exit = self._exit or error
            self.begin(f"{name!r} exits")
        elif policy == "report":
            self._tell_loop(f"the subsystem {name!r} failed", error)
        else:
            error.add_note(f"in the subsystem {name!r}")
            self._errors.append(error)
            self.begin(f"{name!r} failed")

    def _late(self, what: str, timeout: float, parent: Parent) -> TimeoutError:
        """The deadline of `parent` has passed: cancel what is left of it, and return the error that says so."""
        told, waiting = parent._unfinished()
        self._record_as_cut(told + waiting)
        message = f"{what} did not end within {counted(timeout, 'second')}: {in_words(told)}"
        if waiting:
            message += f"; and, before it was their turn, {in_words(waiting)}"
        _logger.warning("%s", message)
        parent._cut(DEADLINE_PASSED)
        return TimeoutError(message)

    def _tell_loop(self, message: str, error: BaseException) -> None:
        self._loop.call_exception_handler({"message": message, "exception": error})

    def _require_open(self) -> None:
        if self._state == "new":
            raise RuntimeError("a Shutdown takes subsystems only in its block: use `async with`")
        super()._require_open()
        if self._state == "ended":
            raise RuntimeError("this Shutdown has ended, and takes no subsystems")

    def __repr__(self) -> str:
        state = "shutting down" if self._state == "open" and self.token.is_cancelled() else self._state
        return f"<Shutdown {state} subsystems={len(self._children)}>"


def in_words(parts: list[Parent]) -> str:
    return ", ".join(repr(part._called) for part in parts)


@final
class _Watcher(Waiter[None]):
    """Waits for the token of a shutdown, in whose body something else is going on."""

    __slots__ = ("_shutdown",)

    def __init__(self, shutdown: Shutdown) -> None:
        super().__init__([None])
        self._shutdown = shutdown

    def settle(self, value: None) -> None:
        self.settled = True
        self._shutdown._body.cancel(self._shutdown.reason)
        self._shutdown._soon(self._shutdown._told)


@final
class _Ear(Waiter[Signals]):
    """Waits for one signal."""

    __slots__ = ("_shutdown",)

    def __init__(self, shutdown: Shutdown) -> None:
        super().__init__([None])
        self._shutdown = shutdown

    def settle(self, value: Signals) -> None:
        self.settled = True
        first = self._shutdown.signal is None
        if first:
            self._shutdown.signal = value  # now: the block may end before anybody could hear of it
        self._shutdown._soon(self._shutdown._heard, value, first)
