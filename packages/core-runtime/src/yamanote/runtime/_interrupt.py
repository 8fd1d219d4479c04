"""Interrupts: Ctrl-C, and the signals that ask a program to stop, as long as a runtime has them.

Invariant: the first of them cancels the main task, and the call that ran it ends with it. Ctrl-C while that is under
way, or while the runtime shuts down, ends it at once: nothing is awaited any more. What handled the signals before
handles them afterwards.

The handlers are those of `signal.signal`, which run between two bytecodes of the main thread: those of the loop would
wait for a task that computes, and Ctrl-C is for that one above all.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from asyncio import CancelledError
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeAlias, final

from yamanote.runtime._wakeup import wakeup_of

__all__ = ["Interrupts", "as_signals", "give_back", "is_main_thread"]

Handler: TypeAlias = Any
"""What `signal.signal` takes and returns."""


@final
class Interrupts:
    """A context manager, which may be entered again inside: the signals are the runtime's in the outermost block.

    In the block they are exceptions, as Ctrl-C is in any program; with `cancelling` they cancel a task, and with
    `ending` only another Ctrl-C counts. In other threads than the main one, none of this does anything.
    """

    __slots__ = (
        "_calling",
        "_depth",
        "_ending",
        "_heard",
        "_loop",
        "_main",
        "_previous",
        "_received",
        "_stop_signals",
        "at_once",
    )

    at_once: bool
    """Whether nothing may be awaited any more."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stop_signals: Iterable[signal.Signals]) -> None:
        self._loop = loop
        self._stop_signals = frozenset(stop_signals)
        self._previous: dict[signal.Signals, Handler] = {}
        self._depth = 0
        self._main: asyncio.Future[Any] | None = None
        self._received: int | None = None
        self._ending = self._calling = self._heard = False
        self.at_once = False

    def __enter__(self) -> None:
        if not is_main_thread():
            return
        self._depth += 1
        if self._depth > 1:
            return
        # Whoever has a handler of his own for Ctrl-C keeps it; the others have been asked for.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._take(signal.SIGINT)
        for signum in self._stop_signals - set(self._previous):
            self._take(signum)
        if self._previous:
            wakeup_of(self._loop).hold(self)

    def __exit__(self, *exc_info: object) -> None:
        if not is_main_thread():
            return
        self._depth -= 1
        if not self._depth:
            self.let_loop_go()
            while self._previous:
                give_back(*self._previous.popitem(), self._arrived)

    @contextmanager
    def cancelling(self) -> Iterator[Callable[[asyncio.Future[Any]], None]]:
        """Enter it for a block that runs a main task, which the first signal cancels, and raise what that stands for.

        It gives what is to be called with that task. Nothing is raised in the middle of its making, or of its run.
        """
        self._received, self._heard = None, False
        self._calling = is_main_thread()
        self.__enter__()
        cancelled: CancelledError | None = None
        try:
            yield self._take_main
        except CancelledError as error:
            if self._received is None:
                raise
            cancelled = error
        except RuntimeError:  # "stopped before it was done": see `_arrived`
            if not self.at_once:
                raise
        finally:
            self.__exit__()
            self._calling = False  # from here on a signal is raised where it comes
            received, main = self._received, self._main
            self._main = self._received = None
            # Who has ended before he could hear of it has not refused it: then it must not be lost.
            if received is not None and (cancelled or not self._heard or not getattr(main, "heard", True)):
                interruption = self._exception(received)
                interruption.__context__ = cancelled  # which shows where it was
                raise interruption
        if self.at_once:
            raise KeyboardInterrupt

    @contextmanager
    def ending(self) -> Iterator[None]:
        """A block in which all tasks are ended: a signal that asks for that is nothing new, but Ctrl-C is."""
        self._ending = is_main_thread()
        try:
            yield
        finally:
            self._ending = False
        if self.at_once:
            raise KeyboardInterrupt

    def let_loop_go(self) -> None:
        """The loop is about to be closed."""
        if is_main_thread():
            wakeup_of(self._loop).release(self)

    def _take(self, signum: signal.Signals) -> None:
        try:
            self._previous[signum] = signal.signal(signum, self._arrived)
        except ValueError:  # an embedded interpreter has no signals
            if self._stop_signals:
                raise

    def _arrived(self, signum: int, frame: FrameType | None) -> None:
        if self._ending or (self._calling and self._received is not None):
            if signum == signal.SIGINT:
                # Whoever catches the exception here may not know what it is; then the loop stops after this turn.
                self.at_once = True
                self._loop.stop()
                raise KeyboardInterrupt
        elif not self._calling:
            raise self._exception(signum)
        else:
            self._received = signum
            if self._main is not None:
                self._heard = self._main.cancel()
                self._loop.call_soon_threadsafe(_nothing)  # it may sleep in its selector

    def _take_main(self, main: asyncio.Future[Any]) -> None:
        if self._calling:
            self._main = main
            if self._received is not None and not self._heard:
                self._heard = main.cancel()

    def _exception(self, signum: int) -> BaseException:
        """What a signal stands for: for a stop signal, an exit with the status that shells give to it."""
        return SystemExit(128 + signum) if signum in self._stop_signals else KeyboardInterrupt()


def _nothing() -> None: ...


def as_signals(signums: Iterable[int], argument: str) -> tuple[signal.Signals, ...]:
    """The signals that `argument` consists of, each once, or a TypeError or ValueError that says which is none."""
    if isinstance(signums, int):
        raise TypeError(f"{argument} must be several signals, such as {{signal.SIGTERM}}, not {signums!r}")
    found: dict[signal.Signals, None] = {}
    for signum in signums:
        if isinstance(signum, bool) or not isinstance(signum, int):
            raise TypeError(f"{argument} must be signals, such as signal.SIGTERM, but one is {signum!r}")
        try:
            known = signal.Signals(signum)
        except ValueError:
            raise ValueError(f"{argument} must be signals, but {signum} is none on this platform") from None
        if known.name in ("SIGKILL", "SIGSTOP"):
            raise ValueError(f"{argument} must be signals that can be caught, but {known.name} cannot")
        found[known] = None
    return tuple(found)


def is_main_thread() -> bool:
    """Whether this is the thread that may set the handlers of signals."""
    return threading.current_thread() is threading.main_thread()


def give_back(signum: signal.Signals, previous: Handler, handler: Handler) -> None:
    """Put `previous` in the place of `handler`, unless somebody else has taken that meanwhile."""
    if signal.getsignal(signum) == handler:
        # None: it was none of Python's, and Python cannot put it back.
        signal.signal(signum, signal.SIG_DFL if previous is None else previous)
