"""`start_server`: workers from the start to the end of a program."""

from __future__ import annotations

import os
import signal
from asyncio import AbstractEventLoop, _get_running_loop
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from signal import SIGINT, SIGTERM, Signals
from threading import current_thread, main_thread
from typing import Any, Literal

from yamanote.runtime import Runtime
from yamanote.server._child_process import pickle_call, require_main, require_picklable
from yamanote.server._fleet import Fleet
from yamanote.server._seconds import require_seconds
from yamanote.server._signums import require_signals
from yamanote.server._strategy import require_restart
from yamanote.server._supervisor import Supervisor
from yamanote.server._worker import Worker, WorkerError
from yamanote.server._worker_context import MainContext, require_made_by
from yamanote.server._worker_life import WorkerFunction
from yamanote.server._worker_process import ProcessWorker
from yamanote.server._worker_thread import ThreadWorker
from yamanote.time import Schedule

__all__ = ["start_server"]

_RELOAD_SIGNALS = () if os.name != "posix" else (signal.SIGHUP,)


def start_server(
    worker: WorkerFunction,
    main: Callable[[], MainContext[Any]] | None = None,
    *,
    num_workers: int = 1,
    args: Sequence[object] = (),
    workers: Literal["processes", "threads"] = "processes",
    method: Literal["spawn", "forkserver"] = "spawn",
    stop_signals: Iterable[int] = (SIGINT, SIGTERM),
    reload_signals: Iterable[int] = _RELOAD_SIGNALS,
    strategy: Literal["one_for_one", "one_for_all", "rest_for_one"] = "one_for_one",
    restart: Literal["permanent", "transient", "temporary"] = "permanent",
    max_restarts: int | None = None,
    period: float = 5.0,
    backoff: Schedule | None = None,
    start_timeout: float | None = 60.0,
    grace: float = 10.0,
    loop_factory: Callable[[], AbstractEventLoop] | None = None,
) -> None:
    """Run `num_workers` workers until a signal stops them, and restart those that die.

    `worker` is made with `server`; it is called with the loop, its index, and a list: what `main` yields, and `args`.
    `main`, made with `main`, is set up before all workers and torn down after them.

    The workers are processes, started by `method` as `afork` does it, or threads, with a loop each. They start all at
    once. When one fails to start, or is not ready within `start_timeout` seconds, the others are stopped, and that is
    the end.

    A worker that ends later is restarted as by `Supervisor`, which explains `strategy`, `restart`, `max_restarts`,
    `period` and `backoff`. Too many restarts are the end. They are counted for all workers together; so
    `max_restarts` is by default 3, or `num_workers` if that is more.

    The first of the `stop_signals` is told to all workers; it comes back from their `yield`. A worker that has not
    ended in `grace` seconds is cancelled, and gets SIGTERM; a second later it is killed. A second stop signal kills all
    at once; one that comes within 0.05 seconds of the first belongs to the same request, and does nothing. A thread
    cannot be killed: it is cancelled, and then left behind, with a line in the log that shows where it is. The
    `reload_signals` replace the workers one after the other: the next is told to stop when its successor is ready. All
    signals are for the process that has called this; in the workers they do nothing.

    `loop_factory` makes the loops of the workers, by default those of `run`.

    Returns when the workers were stopped, or when all have ended and none is to be restarted. Raises WorkerError when
    one does not start; SupervisorError after too many restarts; ExceptionGroup of WorkerErrors when some have not
    stopped in order, or have failed and are not restarted; SystemExit with the status ``128 + signum`` after a second
    signal; and what `main` raises. Whatever it does, no worker is left but threads that would not end, and signals are
    handled as before.

    Raises TypeError and ValueError for nonsense, naming the argument; RuntimeError where a loop is running, in another
    thread than the main one, and when the main module calls it while a worker imports it: call it under ``if __name__
    == "__main__":``. Needs a POSIX system: NotImplementedError elsewhere.

    The logger ``yamanote`` tells what happens to the workers.

    >>> from signal import SIGTERM, raise_signal
    >>> @server
    ... async def worker(loop, index, args):
    ...     print("ready to", *args)
    ...     loop.call_soon_threadsafe(raise_signal, SIGTERM)
    ...     signum = yield
    ...     print("stopped by", signum.name)
    >>> start_server(worker, args=["serve"], workers="threads")
    ready to serve
    stopped by SIGTERM
    """
    if os.name != "posix":
        raise NotImplementedError("start_server() needs a POSIX system")
    require_made_by("server", worker, "worker")
    if main is not None:
        require_made_by("main", main, "main")
    if isinstance(num_workers, bool) or not isinstance(num_workers, int):
        raise TypeError(f"num_workers must be a whole number, not {num_workers!r}")
    if num_workers < 1:
        raise ValueError(f"num_workers must be at least 1, not {num_workers}")
    if isinstance(args, (str, bytes)) or not isinstance(args, Sequence):
        raise TypeError(f"args must be a list or a tuple, not {args!r}")
    if workers not in ("processes", "threads"):
        raise ValueError(f"workers must be 'processes' or 'threads', not {workers!r}")
    if method not in ("spawn", "forkserver"):
        raise ValueError(f"method must be 'spawn' or 'forkserver', not {method!r}")
    if loop_factory is not None and not callable(loop_factory):
        raise TypeError(f"loop_factory must be a function that makes an event loop, or None, not {loop_factory!r}")
    require_seconds("start_timeout", start_timeout, none="no deadline")
    require_seconds("grace", grace)
    stopping = require_signals("stop_signals", stop_signals)
    reloading = require_signals("reload_signals", reload_signals)
    if not stopping:
        raise ValueError("stop_signals must be at least one signal, or nothing would stop the workers")
    if twice := set(stopping) & set(reloading):
        raise ValueError(f"reload_signals must be others than the stop_signals, but both have {min(twice).name}")
    require_restart(restart)
    if max_restarts is None:
        max_restarts = max(3, num_workers)
    supervisor = Supervisor(strategy, max_restarts=max_restarts, period=period, backoff=backoff, name="workers")
    if _get_running_loop() is not None:
        raise RuntimeError("start_server() starts loops of its own, but one is running in this thread")
    if current_thread() is not main_thread():
        raise RuntimeError("start_server() needs the main thread: signals arrive nowhere else")
    if workers == "processes":
        require_main(worker)
        require_picklable("loop_factory", loop_factory)

    def make_worker(index: int) -> Worker:
        if workers == "threads":
            return ThreadWorker(worker, index, arguments, loop_factory=loop_factory, grace=grace)
        return ProcessWorker(
            worker,
            index,
            arguments,
            loop_factory=loop_factory,
            method=method,
            ignored={SIGINT, *stopping, *reloading},
            grace=grace,
        )

    fleet = Fleet(
        make_worker,
        num_workers,
        supervisor,
        restart=restart,
        start_timeout=start_timeout,
        stop_signals=stopping,
        reload_signals=reloading,
    )
    # In the runtime's block a stop signal raises SystemExit; while the loop runs the fleet has it.
    with _ignoring(reloading), Runtime(stop_signals=stopping) as runtime:
        frame = None if main is None else main()
        with nullcontext() if frame is None else frame as value:
            first = () if value is None else value if isinstance(value, tuple) else (value,)
            arguments = [*first, *args]
            if workers == "processes":
                _require_picklable(worker, arguments)
            try:
                runtime.run_until_complete(fleet.run())
            except (WorkerError, ExceptionGroup) as error:
                raise _without_frames(error) from None
            finally:
                fleet.kill()
            if frame is not None and fleet.stop_signal is not None:
                frame.signal = fleet.stop_signal
    if fleet.last_signal is not None:
        raise SystemExit(128 + fleet.last_signal)


def _require_picklable(worker: WorkerFunction, arguments: Sequence[object]) -> None:
    """Raise TypeError that names the argument, where it would otherwise be one among ours."""
    _, descriptors = pickle_call(worker, tuple(arguments))
    for descriptor in descriptors:
        os.close(descriptor)


def _without_frames(error: Exception) -> Exception:
    """Where it was raised here says nothing about the worker, which has shown its own traceback."""
    if isinstance(error, ExceptionGroup):
        for each in error.exceptions:
            _without_frames(each)
    elif not isinstance(error, WorkerError):
        return error
    return error.with_traceback(None)


@contextmanager
def _ignoring(signums: Iterable[Signals]) -> Iterator[None]:
    """What comes before there are workers, or after them, has nothing to replace, and must not end the program."""
    before = {signum: signal.signal(signum, _do_nothing) for signum in signums}
    try:
        yield
    finally:
        for signum, handler in before.items():
            # None: it was none of Python's, and Python cannot put it back.
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)


def _do_nothing(signum: int, frame: object) -> None: ...
