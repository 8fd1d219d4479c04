"""Join handles: waiting for a task, and taking what it ended with.

Invariant: how a task ended reaches whoever awaits its handle, from any loop or thread, as often as it is asked for; an
error that nobody asked for reaches the exception handler of its loop, once. Cancelling who waits never touches what is
waited for.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, _get_running_loop
from collections.abc import Callable, Generator
from contextvars import Context
from functools import partial
from typing import Any, Generic, TypeVar

from yamanote.runtime._awaited_by import add_awaiter, discard_awaiter
from yamanote.runtime._placed import Placed
from yamanote.runtime._site import site_of
from yamanote.runtime._task import on_loop, request_cancel
from yamanote.runtime._waiter import Waiter, park, park_thread

__all__ = ["JoinError", "JoinHandle"]

T_co = TypeVar("T_co", covariant=True)


class JoinError(Exception):
    """What was awaited through a handle has been cancelled, so there is no value.

    Not a CancelledError: whoever awaits the handle has not been cancelled.
    """

    name: str
    """Of the task that was cancelled."""
    reason: str | None
    """What its cancellation said."""

    def __init__(self, name: str, reason: str | None = None) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name} was cancelled" + (f": {self.reason}" if self.reason is not None else "")


class JoinHandle(Generic[T_co]):
    """A spawned task, for whoever wants its result, or wants it to stop.

    Await it for the value, or the error, of the task: as often as needed, from any task of any loop. `result` is the
    blocking form, for threads. An error that nobody ever asks for is reported once, by the exception handler of the
    loop. Handles may be dropped: the task goes on.

    Awaiting raises `JoinError` when the task was cancelled.

    **Cancel safety:** cancelling who awaits leaves the task alone; `abort` cancels the task.

    **Threads:** every method may be called from any thread.
    """

    __slots__ = ("__weakref__", "_delivery", "_future", "_reason")

    _future: asyncio.Future[T_co]
    _delivery: _Delivery | None

    def __init__(self, future: asyncio.Future[T_co]) -> None:
        self._future = future
        self._delivery = None
        self._reason: str | None = None

    def __await__(self) -> Generator[Any, None, T_co]:
        future = self._future
        if not future.done():
            task = asyncio.current_task()
            if self._includes(task):
                raise RuntimeError("a task cannot wait for its own end")
            if future.get_loop() is not _get_running_loop():
                del task
                return (yield from park(self).__await__())
            join = _Join(future)
            if add_awaiter is not None:
                add_awaiter(future, task)
            try:
                yield join
            finally:
                if discard_awaiter is not None:
                    discard_awaiter(future, task)
                del join, task  # a cancellation refers to this frame, and they to the cancellation
        if not future.cancelled() and future.exception() is None:
            return future.result()
        try:
            return self._take()
        finally:
            # An error refers to this frame, and through what it knows would refer to itself.
            del self, future

    def result(self, timeout: float | None = None) -> T_co:
        """Block the calling thread until the task has ended; return its value.

        Raises what the task raised, JoinError when it was cancelled, TimeoutError after `timeout` seconds, and
        RuntimeError in a thread that runs an event loop, unless the task has ended already.
        """
        try:
            return self._take() if self._future.done() else park_thread(self, timeout)
        finally:
            del self  # an error refers to this frame

    def abort(self, reason: str | None = None) -> None:
        """Ask the task to stop: CancelledError is raised where it waits. Does not wait until it has.

        Nothing happens when it has ended already; its value and its error stay what they were.
        """
        future = self._future
        if not future.done():
            request_cancel(future, reason)

    def is_finished(self) -> bool:
        """Whether the task has ended; its clean-up too."""
        return self._future.done()

    def is_cancelled(self) -> bool:
        """Whether the task ended by a cancellation. A call that was cancelled before its thread began was not made."""
        return self._future.cancelled()

    @property
    def id(self) -> int:
        """A number that no other handle has as long as this one lives."""
        return id(self._future)

    @property
    def name(self) -> str:
        """The name of the task."""
        future = self._future
        name: Callable[[], str] | None = getattr(future, "get_name", None)
        return f"{type(self).__name__}-{id(future)}" if name is None else name()

    @property
    def spawned_at(self) -> str | None:
        """Where it was spawned: ``"file.py:12 in main"``, outside of Yamanote.

        None unless `record_spawn_sites` is on, or asyncio's debug mode.
        """
        return site_of(self._future)

    def register(self, waiter: Waiter[Any], /) -> None:
        waiter.operation = callback = partial(self._settle, waiter, [])
        if not when_done(self._future, callback) and waiter.claim():
            waiter.fail(JoinError(self.name, "its event loop has been closed"))

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        callback = waiter.operation
        if not waiter.settled and callback is not None:
            # It may have been claimed, in the thread of the task, and not been settled yet. Leave a word *and then*
            # look again; who settles does so *and then* looks for the word. Whoever takes it gives the error back.
            _, withdrawn = callback.args
            withdrawn.append(None)
            if not waiter.settled:
                not_when_done(self._future, waiter)
                return
            if not _taken(withdrawn):
                return
        self._give_back(waiter)

    def _settle(self, waiter: Waiter[Any], withdrawn: list[None], future: asyncio.Future[Any]) -> None:
        if waiter.claim():
            if future.cancelled():
                waiter.fail(self._join_error())
            elif (error := future.exception()) is not None:
                waiter.fail(error.with_traceback(self._delivered().traceback))
            else:
                waiter.settle(future.result())
            if _taken(withdrawn):
                self._give_back(waiter)
        waiter.operation = None  # it refers to the waiter

    def _give_back(self, waiter: Waiter[Any]) -> None:
        # Not when it got a JoinError, or from another: a `Shared` passes on to the run that it has now.
        if self._delivery is not None and waiter.error is self._future.exception():
            self._delivery.count -= 1

    def _take(self) -> T_co:
        future = self._future
        try:
            if future.cancelled():
                raise self._join_error()
            error = future.exception()
            if error is not None:
                raise error.with_traceback(self._delivered().traceback)
            return future.result()
        finally:
            error = None
            del self, future

    def _includes(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether this is the handle of `task`."""
        return self._future is task or (isinstance(self._future, Placed) and self._future.is_of(task))

    def _delivered(self) -> _Delivery:
        delivery = self._delivery
        if delivery is None:
            self._delivery = delivery = _Delivery(self._future)
        else:
            delivery.count += 1
        return delivery

    def _join_error(self) -> JoinError:
        if self._reason is None:
            try:
                self._future.result()
            except CancelledError as error:  # only the first one says why
                self._reason = error.args[0] if error.args else None
        return JoinError(self.name, self._reason)

    def __repr__(self) -> str:
        future = self._future
        if not future.done():
            state = "running"
        elif future.cancelled():
            state = "cancelled"
        else:
            state = "finished"
        return f"<{type(self).__name__} {self.name!r} {state}>"


Callback = Callable[[asyncio.Future[Any]], object]


def when_done(future: asyncio.Future[Any], callback: Callback) -> bool:
    """Call `callback` as soon as `future` is done, now if it is; from another thread perhaps twice.

    False when its loop was closed before that.
    """
    if not future.done():
        loop = future.get_loop()
        if _get_running_loop() is loop:
            future.add_done_callback(callback)
            return True
        try:
            # If it is done by the time that this runs, the callback comes a turn later.
            loop.call_soon_threadsafe(future.add_done_callback, callback)
            closed = False
        except RuntimeError:
            closed = True
        # Look again: it may have been done since, and then its loop may have ended without coming to that.
        if not future.done():
            return not closed
    callback(future)
    return True


def _taken(withdrawn: list[None]) -> bool:
    try:
        withdrawn.pop()
    except IndexError:
        return False
    return True


def not_when_done(future: asyncio.Future[Any], waiter: Waiter[Any]) -> None:
    """Take back the callback that `waiter` has for its operation."""
    callback, waiter.operation = waiter.operation, None  # it refers to the waiter
    if not future.done():
        on_loop(future.get_loop(), future.remove_done_callback, callback)


class _Join:
    """What a task yields to wait for `future`: like the future itself, but cancelling it only ends the waiting.

    That is one loop turn less than a future of the waiter's own. And the waiter is woken without the outcome, so an
    error counts as delivered only when it takes it, not when a cancellation comes first.
    """

    __slots__ = ("_asyncio_future_blocking", "_cancelled", "_context", "_future", "_wake_up")

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self._future = future
        self._cancelled: CancelledError | None = None
        self._asyncio_future_blocking = True  # "this was yielded to be waited for": the protocol of asyncio's futures

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._future.get_loop()

    def add_done_callback(self, wake_up: Callable[[_Join], object], *, context: Context) -> None:
        self._wake_up = wake_up
        self._context = context
        self._future.add_done_callback(self, context=context)

    def cancel(self, msg: str | None = None) -> bool:
        if not self._future.remove_done_callback(self):
            return False  # done, and about to wake the task, which sees to it itself
        self._cancelled = CancelledError() if msg is None else CancelledError(msg)
        self._future.get_loop().call_soon(self._wake_up, self, context=self._context)
        return True

    def result(self) -> None:
        if self._cancelled is None:
            return
        try:
            raise self._cancelled
        finally:
            del self  # the error refers to this frame, and what it waited with to the error and to the task

    def __call__(self, _: asyncio.Future[Any]) -> None:
        """The callback of `future`: as an object of this type, so that our loop knows it, see `_loop_steps`."""
        self._wake_up(self)


class _Delivery:
    """To how many the error of a task has been delivered. When it was given back by all, it is reported."""

    __slots__ = ("_future", "count", "traceback")

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self._future = future
        self.count = 1  # from the start: another thread may put one of its own in the place of this
        # As it comes from the task, for each delivery to begin with: raising an error adds to the traceback it has.
        error = future.exception()
        self.traceback = None if error is None else error.__traceback__

    def __del__(self) -> None:
        if not self.count:
            self._future.get_loop().call_exception_handler(
                {
                    "message": "Task exception was never retrieved",
                    "exception": self._future.exception(),
                    "future": self._future,
                }
            )
