"""Blocking work: calls that would stop the loop, made in threads of our own.

Invariant: a call is taken once, by a thread or by its cancellation; what a thread has taken is made to its end, and
its outcome arrives on the loop that asked for it. No call waits while a thread is idle or could be started: who brings
a call enters it *and then* looks for an idle thread; a thread that goes idle says so *and then* looks for calls.

The threads belong to the process and are shared by all loops, one after the other or at once. They are daemons, so a
call that hangs cannot hang the end of the program; an exit handler gives the others time to end.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
import threading
from _thread import allocate_lock, get_ident
from asyncio import CancelledError, _get_running_loop
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextvars import Context, copy_context
from itertools import count
from typing import Any, Generic, ParamSpec, TypeVar, final

from yamanote.runtime._cancel import cancel_and_wait
from yamanote.runtime._join import JoinError, JoinHandle
from yamanote.runtime._scope import CancelScope
from yamanote.runtime._task import no_loop
from yamanote.runtime._token import CancellationToken
from yamanote.runtime._waiter import Waiter, is_thread_parked

__all__ = ["busy_calls", "current_token", "finish_blocking", "map_blocking", "spawn_blocking"]

T = TypeVar("T")
U = TypeVar("U")
P = ParamSpec("P")

_THREADS = 64  # They wait most of the time, so the number of processors is no measure.
_IDLE_SECONDS = 10.0
_EXIT_SECONDS = 10.0

_logger = logging.getLogger("yamanote")


def spawn_blocking(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> JoinHandle[T]:
    """Call `function` in a thread of the blocking pool, and return a handle at once; await it for the result.

    The call sees a copy of the caller's context variables. There are at most 64 threads; calls beyond that wait their
    turn, first in, first out. Calls are for waiting and for work that ends: a loop that never ends keeps its thread.

    Raises TypeError for what cannot be called, RuntimeError where no loop runs. Awaiting the handle raises what the
    call raises.

    **Cancel safety:** when nobody awaits the handle any more because the last who did was cancelled, the call is
    aborted, as by `JoinHandle.abort`: a call that has not started is dropped; one that runs cannot be interrupted,
    but it can look at its `current_token`. The cancelled task does not wait for it.

    >>> from yamanote.runtime import run, spawn_blocking
    >>> async def example():
    ...     return await spawn_blocking(sum, [1, 2, 3])
    >>> run(example())
    6
    """
    if not callable(function):
        raise TypeError(f"spawn_blocking() needs a function, not {function!r}")
    loop = _get_running_loop()
    if loop is None:
        raise no_loop("spawn_blocking")
    call = _Call(function, args, kwargs, _inbox_of(loop))
    try:
        _pool.submit(call)
    except BaseException:
        call.claim()
        raise
    call.inbox.unfinished.add(call)
    return _BlockingHandle(call)


async def map_blocking(function: Callable[[T], U], items: Iterable[T], /, limit: int | None = None) -> list[U]:
    """Call `function` with each item in threads of the blocking pool; return the results in the order of the items.

    At most `limit` calls are made at once; None means as many as the pool has threads. Each call sees a copy of the
    caller's context variables.

    The first error is raised when the calls in progress have ended; no other is started. Their `current_token` tells
    those in progress to stop. Errors that come after the first go to the exception handler of the loop.

    **Cancel safety:** the same; the cancellation goes on when the calls in progress have ended.

    Raises ValueError for a `limit` below 1.

    >>> from yamanote.runtime import map_blocking, run
    >>> run(map_blocking(len, ["a", "bc"]))
    [1, 2]
    """
    if not callable(function):
        raise TypeError(f"map_blocking() needs a function, not {function!r}")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
        raise TypeError(f"limit must be a whole number, or None, not {limit!r}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, or None, not {limit!r}")
    todo = deque(enumerate(items))
    results: list[Any] = [None] * len(todo)
    errors: list[BaseException] = []
    handles: list[JoinHandle[None]] = []
    context = copy_context()

    def work() -> None:
        # Each thread takes item after item: one thread to wake, and one result to wait for, for many calls.
        while True:
            try:
                index, item = todo.popleft()
            except IndexError:
                return
            try:
                results[index] = context.copy().run(function, item)
            except BaseException as error:
                errors.append(error)
                todo.clear()
                for handle in handles:
                    handle.abort()

    for _ in range(min(len(todo), _THREADS if limit is None else limit)):
        handles.append(spawn_blocking(work))
    try:
        for handle in handles:
            await _ended(handle)
    except BaseException:
        todo.clear()
        await cancel_and_wait(*handles)
        _report_failed(errors)
        raise
    if errors:
        _report_failed(errors[1:])
        try:
            raise errors[0]
        finally:
            errors.clear()
    return results


def _report_failed(errors: list[BaseException]) -> None:
    loop = asyncio.get_running_loop()
    for error in errors:
        loop.call_exception_handler({"message": "a call of map_blocking() failed", "exception": error})


def current_token() -> CancellationToken:
    """In a call made by `spawn_blocking` or `map_blocking`: the token that is cancelled when nobody wants its result.

    Raises RuntimeError anywhere else.
    """
    call: _Call[Any] | None = getattr(_current, "call", None)
    if call is None:
        raise RuntimeError("current_token() is for functions that spawn_blocking() or map_blocking() calls")
    return call.get_token()


def busy_calls(loop: asyncio.AbstractEventLoop) -> list[str]:
    """The names of the calls that threads have yet to make for `loop`, or are making, through `spawn_blocking`.

    A call counts until its result has arrived on the loop; it does not while its thread is parked (waits in one of our
    own blocking calls). For clocks, which must not run ahead of threads; in the thread of the loop.
    """
    calls = _inbox_of(loop).unfinished
    return [call.name for call in calls if call.thread is None or not is_thread_parked(call.thread)]


async def finish_blocking() -> None:
    """Wait until the calls that the running loop asked for have ended, but not for ever; name those that have not."""
    loop = asyncio.get_running_loop()
    inbox = _inbox_of(loop)
    if not inbox.unfinished:
        return
    with CancelScope(loop.time() + _EXIT_SECONDS) as patience:
        while inbox.unfinished:
            inbox.idle = loop.create_future()
            await inbox.idle
    if patience.cancelled_caught:
        _logger.warning("run() ended before %d blocking calls, which go on in their threads", len(inbox.unfinished))


_current = threading.local()


@final
class _Call(Generic[T]):
    """One call, on its way through a thread."""

    __slots__ = (
        "_claim",
        "aborted",
        "args",
        "context",
        "error",
        "function",
        "future",
        "inbox",
        "kwargs",
        "label",
        "thread",
        "token",
        "value",
    )

    def __init__(
        self, function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], inbox: _Inbox
    ) -> None:
        self.function: Callable[..., T] | None = function
        self.label = ""
        self.args = args
        self.kwargs = kwargs
        self.context = copy_context()
        self.inbox = inbox
        self.future: asyncio.Future[T] = inbox.loop.create_future()
        self.value: T | None = None
        self.error: BaseException | None = None
        self.thread: int | None = None
        self.token: CancellationToken | None = None
        self.aborted = False
        self._claim: list[None] = [None]

    def claim(self) -> bool:
        try:
            self._claim.pop()
        except IndexError:
            return False
        return True

    def make(self) -> bool:
        """Make the call, in a thread, unless it has been cancelled; tell whether it was made."""
        if not self.claim():
            return False
        _current.call = self
        self.thread = get_ident()
        try:
            self.value = self.context.run(self._called(), *self.args, **self.kwargs)
        except BaseException as error:
            self.error = error
        _current.call = None
        self.thread = None  # before it takes the next call, and parks there
        self._forget()
        del self  # an error refers to this frame, and the call to its error
        return True

    def _called(self) -> Callable[..., T]:
        if self.function is None:
            raise RuntimeError("this call has been made")
        return self.function

    def _forget(self) -> None:
        """Let go at once of what it was called with: a handle may be kept for long, and a thread be slow to rest."""
        self.label = self.name
        self.function = None
        del self.args, self.kwargs, self.context

    @property
    def name(self) -> str:
        if self.function is None:
            return self.label
        # Not its `repr`, which is foreign code, and may be long.
        return getattr(self.function, "__qualname__", None) or type(self.function).__qualname__

    def get_token(self) -> CancellationToken:
        """Its token, which is made when somebody asks. In its own thread."""
        token = self.token
        if token is None:
            self.token = token = CancellationToken()
            if self.aborted:  # see `abort`: one of the two sees what the other has set
                token.cancel()
        return token

    def abort(self, reason: str | None) -> None:
        """Drop it, or tell it. On its loop."""
        if self.claim():
            self._forget()
            self.inbox.unfinished.discard(self)
            self.future.cancel(reason)
            self.inbox.look()
            return
        self.aborted = True
        if self.token is not None:
            self.token.cancel(reason)


class _BlockingHandle(JoinHandle[T]):
    """The handle of a call in a thread."""

    __slots__ = ("_awaiting", "_call")

    def __init__(self, call: _Call[T]) -> None:
        super().__init__(call.future)
        self._call = call
        self._awaiting: list[None] = []  # one for each; a list, because they come from any thread

    def __await__(self) -> Generator[Any, None, T]:
        if self._future.done():
            return self._take()
        self._awaiting.append(None)
        try:
            return (yield from super().__await__())
        except (CancelledError, GeneratorExit):
            if len(self._awaiting) == 1:
                self.abort("nobody awaits it any more")
            raise
        finally:
            self._awaiting.pop()
            del self

    def register(self, waiter: Waiter[Any], /) -> None:
        self._awaiting.append(None)
        super().register(waiter)

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        self._awaiting.pop()
        super().withdraw(waiter)

    def abort(self, reason: str | None = None) -> None:
        loop = self._future.get_loop()
        if _get_running_loop() is loop:
            self._call.abort(reason)
        else:
            try:
                loop.call_soon_threadsafe(self._call.abort, reason)
            except RuntimeError:  # the loop is closed
                pass

    @property
    def name(self) -> str:
        return self._call.name


@final
class _Inbox:
    """The results for one loop. However many arrive in a burst, the loop is woken once."""

    __slots__ = ("_arrived", "_woken", "idle", "loop", "unfinished")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.unfinished: set[_Call[Any]] = set()
        self.idle: asyncio.Future[None] | None = None
        self._arrived: deque[_Call[Any]] = deque()
        self._woken = False

    def put(self, call: _Call[Any]) -> None:
        """Bring a call that has been made, from any thread."""
        # Not wrapped into anything: without the GIL, what this thread makes it must also free, which takes until it is
        # woken the next time.
        self._arrived.append(call)
        if not self._woken:
            self._woken = True
            try:
                self.loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop is closed: nobody waits any more
                pass

    def look(self) -> None:
        """Tell who waits for the end of all calls, if it has come."""
        if not self.unfinished and self.idle is not None and not self.idle.done():
            self.idle.set_result(None)

    def _deliver(self) -> None:
        self._woken = False  # before looking: what arrives from now on wakes the loop again
        while self._arrived:
            call = self._arrived.popleft()
            future, value, error = call.future, call.value, call.error
            call.value = call.error = None
            self.unfinished.discard(call)
            if future.done():
                continue
            if error is None:
                future.set_result(value)
            elif isinstance(error, CancelledError):
                future.cancel()
            elif isinstance(error, StopIteration):  # a future cannot raise that
                wrapped = RuntimeError("the call raised StopIteration")
                wrapped.__cause__ = error
                future.set_exception(wrapped)
            else:
                future.set_exception(error)
        self.look()


def _inbox_of(loop: asyncio.AbstractEventLoop) -> _Inbox:
    inbox: _Inbox | None = getattr(loop, "_yamanote_inbox", None)
    if inbox is None:
        inbox = _Inbox(loop)
        loop._yamanote_inbox = inbox  # type: ignore[attr-defined]
    return inbox


async def _ended(handle: JoinHandle[Any]) -> None:
    try:
        await handle
    except JoinError:
        pass


@final
class _Pool:
    """The threads, which share one queue."""

    def __init__(self) -> None:
        self._calls: deque[_Call[Any]] = deque()
        self._idle: list[_Thread] = []
        self._threads: set[_Thread] = set()
        self._changing = allocate_lock()  # only to start and to end threads
        self._ending = False
        self._ended = allocate_lock()

    def submit(self, call: _Call[Any]) -> None:
        """Queue `call`, and see to it that a thread takes it."""
        self._calls.append(call)
        try:
            thread = self._idle.pop()  # the one that was busy last: those that are not needed may end
        except IndexError:
            if len(self._threads) < _THREADS:
                self._start()
        else:
            thread.wake.release()

    def work(self, thread: _Thread) -> None:
        """What each thread does."""
        while True:
            try:
                call = self._calls.popleft()
            except IndexError:
                self._idle.append(thread)
            else:
                made = call.make()
                rests = not self._calls
                if rests:
                    # Before anybody can know of the result: who waits for it often brings the next call at once, and
                    # shall find this thread, which is awake.
                    self._idle.append(thread)
                if made:
                    call.inbox.put(call)
                del call
                if not rests:
                    continue
            if not self._rest(thread):
                return

    def end(self) -> None:
        """At the end of the program: let the threads finish what has been asked for, within reason."""
        with self._changing:
            self._ending = True
            threads = list(self._threads)
            self._ended.acquire()
        while self._idle:
            try:
                self._idle.pop().wake.release()
            except IndexError:  # it has just left of its own accord
                break
        if not threads:
            return
        if self._ended.acquire(timeout=_EXIT_SECONDS):
            for thread in threads:
                thread.join()
        else:
            stuck = ", ".join(sorted(thread.name for thread in list(self._threads)))
            _logger.warning("the program ends while blocking calls are still being made, in: %s", stuck)

    def _start(self) -> None:
        with self._changing:
            if self._ending:
                raise RuntimeError("the program is ending: no more blocking calls")
            if len(self._threads) >= _THREADS:
                return
            thread = _Thread(self)
            self._threads.add(thread)
        try:
            thread.start()
        except BaseException:
            with self._changing:
                self._threads.discard(thread)
            if not self._threads:  # else one of the others will take the call
                raise

    def _rest(self, thread: _Thread) -> bool:
        """Sleep until there may be work. False when `thread`, which is among the idle ones, is to end."""
        stay = bool(self._calls)
        if not stay and not self._ending and thread.wake.acquire(timeout=_IDLE_SECONDS):
            return True
        try:
            self._idle.remove(thread)
        except ValueError:  # it has been chosen meanwhile: its wake-up is on its way
            thread.wake.acquire()
            return True
        if stay:
            return True
        with self._changing:
            self._threads.discard(thread)
            # Whoever brought a call before this counted on this thread; whoever comes later can start another.
            if self._calls:
                self._threads.add(thread)
                return True
            if self._ending and not self._threads:
                self._ended.release()
        return False


@final
class _Thread(threading.Thread):
    _numbers = count(1)

    def __init__(self, pool: _Pool) -> None:
        # On 3.14 a thread may inherit the context of who starts it, and would keep it: each call brings its own.
        options: dict[str, Any] = {"context": Context()} if sys.version_info >= (3, 14) else {}
        super().__init__(name=f"yamanote-blocking-{next(self._numbers)}", daemon=True, **options)
        self._pool = pool
        self.wake = allocate_lock()
        self.wake.acquire()

    def run(self) -> None:
        self._pool.work(self)


_pool = _Pool()


def _forget_pool() -> None:
    # Only the thread that forked lives in the child.
    global _pool
    _pool = _Pool()


atexit.register(lambda: _pool.end())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
