"""The process behind a `Child`: how it is started, what it gets, and how it ends.

Invariant: a child says that it is ready once, after everything that it needs is imported and its signals are as in a
program that was just started, and right before it calls the function. Its exit status is the one which a program would
have that does nothing else than this call.

`multiprocessing` starts the process, prepares its main module and reaps it. The function and its arguments do not go
that way but over a socket, the channel: they may be larger than a pipe takes without a reader, and what fails while
they are unpickled fails in the child's own code. The same socket carries the byte that says "ready".
"""

from __future__ import annotations

import atexit
import errno
import inspect
import logging
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import process, reduction, resource_tracker
from multiprocessing.context import set_spawning_popen
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess, SpawnProcess

    class _Process(process.BaseProcess):
        """What both kinds of processes are, for type checkers."""

        _popen: Any

        def _bootstrap(self, parent_sentinel: int | None = None) -> int: ...

else:
    from multiprocessing.context import SpawnProcess

    _Process = object
    try:
        from multiprocessing.context import ForkServerProcess
    except ImportError:  # Windows, where `afork` refuses to work
        ForkServerProcess = SpawnProcess

__all__ = [
    "READY",
    "ChildProcess",
    "ForkServerChildProcess",
    "SpawnChildProcess",
    "pickle_call",
    "require_main",
    "require_picklable",
    "status_of",
]

READY = b"R"
"""What a child sends when it is about to call its function."""

_FORK_SERVER_MODULE = "yamanote.server._fork_server"

_FLUSH_FAILED = 120
"""The exit status of Python for a program that has succeeded, and whose output could not be written."""


class ChildProcess(_Process):
    """A process that calls what comes over the first of its `descriptors`, with the others for the sockets in it.

    The `blocked` signals are so from its first instruction on. The function has to unblock them.
    """

    is_forked_elsewhere: bool
    """Whether it is not this process that reaps it, but the fork server."""

    def __init__(self, name: str, descriptors: list[int], blocked: Sequence[int]) -> None:
        super().__init__(name=name)
        self._blocked = blocked
        self._descriptors = [_Descriptor(descriptor) for descriptor in descriptors]

    # ------------------------------------------------------------ in the parent, in a thread that may block

    def launch(self) -> None:
        """Start it. With the fork server, this may have to wait until that one has started, too."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            # It outlives every signal that is sent to the whole group: it is born with all of them blocked.
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            if self.is_forked_elsewhere:
                # The fork server must learn of the end of its children.
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
                _protect_fork_server()
            else:
                # Ctrl-C in the terminal reaches the child, too. It gets it when it has come so far as to handle it.
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *self._blocked})
            self.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    @property
    def is_lost(self) -> bool:
        """Whether it has ended, and nobody will ever know how, for the fork server had died before."""
        return bool(self._popen.is_lost)

    def forget(self, exitcode: int) -> None:
        """Have `multiprocessing` forget a process that has ended with `exitcode`, whether it knows that or not."""
        self._popen.returncode = exitcode
        self.close()

    # ------------------------------------------------------------ in the child

    def _bootstrap(self, parent_sentinel: int | None = None) -> int:
        self._status = 1
        self._interrupted = False
        if self.is_forked_elsewhere:  # 3.14 forgets the exit handlers of what the fork server has imported
            atexit.register(logging.shutdown)
        # Only what it writes out at its end can fail: all that `run` may raise is caught there.
        with suppress(OSError):
            super()._bootstrap(parent_sentinel)
        if self.is_forked_elsewhere:  # then nobody else does that
            atexit._run_exitfuncs()
        if not _flush():
            self._status = self._status or _FLUSH_FAILED
        if self._interrupted:
            _die_of_interrupt(at_once=self.is_forked_elsewhere)
        return self._status

    def run(self) -> None:
        try:
            function, args = self._receive()
            self._status = _as_status(function(*args))
        except SystemExit as error:
            self._status = status_of(error)
        except BaseException as error:
            self._interrupted = isinstance(error, KeyboardInterrupt)
            self._show(error)

    def _show(self, error: BaseException) -> None:
        if sys.excepthook is not sys.__excepthook__:
            sys.excepthook(type(error), error, error.__traceback__)
        elif sys.stderr is not None:
            # All at once, or children that fail at the same time would get into each other's lines.
            sys.stderr.write(f"{self.name} (process {self.pid}):\n{''.join(traceback.format_exception(error))}")

    def _receive(self) -> tuple[Callable[..., object], tuple[Any, ...]]:
        # As they were unpickled: the numbers that the descriptors have in this process.
        channel, *_Inherited.descriptors = self._descriptors
        with socket.socket(fileno=channel) as connection:  # type: ignore[arg-type]
            with connection.makefile("rb") as call:
                function, args = pickle.load(call)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, self._blocked)
            connection.sendall(READY)
        return function, args


class SpawnChildProcess(ChildProcess, SpawnProcess):
    """A new Python."""

    is_forked_elsewhere = False

    @staticmethod
    def _Popen(process_obj: process.BaseProcess) -> Any:
        from yamanote.server._popen import SpawnPopen  # which cannot be imported on Windows

        return SpawnPopen(process_obj)


class ForkServerChildProcess(ChildProcess, ForkServerProcess):
    """A copy of a Python that has done nothing yet but imports: the fork server makes it, and is its real parent."""

    is_forked_elsewhere = True

    @staticmethod
    def _Popen(process_obj: process.BaseProcess) -> Any:
        from yamanote.server._popen import ForkServerPopen

        return ForkServerPopen(process_obj)


# ---------------------------------------------------------------- what a child gets


def pickle_call(function: Callable[..., object], args: tuple[Any, ...]) -> tuple[bytes, list[int]]:
    """What to send to a child, and copies of the file descriptors in it: the caller has to close them.

    Raises TypeError that names what cannot be pickled, and OSError when there may be no more descriptors.
    """
    collector = _Collector()
    set_spawning_popen(collector)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    try:
        return bytes(reduction.ForkingPickler.dumps((function, args))), collector.descriptors
    except Exception as error:
        complaint = None if _is_shortage(error) else _find_culprit(function, args, error)
        for descriptor in collector.descriptors:
            os.close(descriptor)
        if complaint is None:
            raise
        raise complaint from error
    finally:
        set_spawning_popen(None)


def require_picklable(argument: str, thing: object) -> None:
    """Raise TypeError that names the argument if it cannot be sent to a child."""
    try:
        reduction.ForkingPickler.dumps(thing)
    except Exception as error:
        raise TypeError(f"{argument} must be something that can be pickled, not {thing!r}: {error}") from error


def _is_shortage(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def _find_culprit(function: Callable[..., object], args: tuple[Any, ...], error: Exception) -> TypeError:
    if not _can_be_pickled(function):
        return TypeError(f"function must be something that a child can import, not {function!r}: {error}")
    for index, arg in enumerate(args):
        if not _can_be_pickled(arg):
            return TypeError(f"args[{index}] must be something that can be pickled, not {arg!r}: {error}")
    return TypeError(f"function and args must be something that can be pickled: {error}")


def _can_be_pickled(thing: object) -> bool:
    try:
        reduction.ForkingPickler.dumps(thing)
    except Exception:
        return False
    return True


class _Collector:
    """Keeps the descriptors of what is pickled for a child that is not there yet, in the place of the real Popen."""

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def duplicate_for_child(self, descriptor: int) -> int:
        self.descriptors.append(os.dup(descriptor))  # its owner may close it before the child has started
        return len(self.descriptors) - 1

    def DupFd(self, index: int) -> _Inherited:
        return _Inherited(index)


class _Inherited:
    """In a pickled socket: which of the descriptors that the child has inherited is its own."""

    descriptors: list[Any]

    def __init__(self, index: int) -> None:
        self._index = index

    def detach(self) -> int:
        descriptor: int = _Inherited.descriptors[self._index]
        return descriptor


class _Descriptor:
    """A descriptor on its way to the child, where it is unpickled as the number that it has there."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __reduce__(self) -> tuple[Callable[[Any], int], tuple[Any]]:
        return _arrive, (reduction.DupFd(self._descriptor),)


def _arrive(passed: Any) -> int:
    descriptor: int = passed.detach()
    os.set_inheritable(descriptor, False)
    return descriptor


# ---------------------------------------------------------------- the main module


def require_main(function: Callable[..., object]) -> None:
    """Raise RuntimeError where no child can be started, or where it could not import the main module.

    That is in a child which is just importing it, and in an interactive session.
    """
    if getattr(process.current_process(), "_inheriting", False):
        raise RuntimeError(
            "a child process imports the main module of its parent, and that starts child processes when it is "
            'imported: put what starts the program under `if __name__ == "__main__":`'
        )
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    path = getattr(main, "__file__", None)
    is_found = True
    if spec is not None:
        is_imported = spec.name != "__main__" and not spec.name.endswith(".__main__")
    else:
        is_imported = path is not None
        is_found = path is None or os.path.exists(os.path.join(process.ORIGINAL_DIR or "", path))  # type: ignore[attr-defined]
    if not is_found or (not is_imported and inspect.getmodule(function) is main):
        raise RuntimeError(
            f"a child process cannot import the main module {path or '(which is no file)'} again: put the program into "
            "a file of its own, or the function into a module"
        )


def _protect_fork_server() -> None:
    """Have the fork server, if it does not run yet, import what keeps it from dying of signals to the whole group."""
    from multiprocessing import forkserver

    modules: list[str] = forkserver._forkserver._preload_modules  # type: ignore[attr-defined]
    if _FORK_SERVER_MODULE not in modules:
        multiprocessing.get_context("forkserver").set_forkserver_preload([*modules, _FORK_SERVER_MODULE])


# ---------------------------------------------------------------- the end of a child


def _as_status(result: object) -> int:
    if result is None:
        return 0
    if not isinstance(result, int):
        raise TypeError(f"function must return an exit status or None, not {result!r}")
    if not 0 <= result <= 255:
        raise ValueError(f"function must return an exit status between 0 and 255, not {result}")
    return int(result)


def status_of(error: SystemExit) -> int:
    """The exit status that it asks for; what is no number is shown, and stands for 1."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def _flush() -> bool:
    """Write out what the standard streams have in their buffers; tell whether all could be written."""
    flushed = True
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except ValueError:
            pass  # closed
        except OSError:
            flushed = False
            with suppress(OSError):
                traceback.print_exc()
            # Python would try once more at its very end, and that would hide the exit status.
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
    return flushed


def _die_of_interrupt(*, at_once: bool) -> None:
    if at_once:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    # As Python itself does it, after everything else: whoever waits is to see of which signal it has died.
    sys.excepthook = lambda *_: None  # it has been shown
    raise KeyboardInterrupt
