"""Future state: how a future stands, as a value that can be stored, pickled and sent elsewhere.

Invariant: it is pending, or it has the one outcome for ever. It never takes what is not its own: neither a request to
cancel the calling task, nor what is to end the program.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, InvalidStateError, _get_running_loop
from collections.abc import Awaitable, Callable
from concurrent import futures
from inspect import isawaitable
from types import TracebackType
from typing import Any, Generic, Literal, TypeVar, final, overload

from yamanote.runtime import Outcome

__all__ = ["FutureState"]

T = TypeVar("T")
U = TypeVar("U")


@final
class FutureState(Generic[T]):
    """A future at one moment: pending, or ended with a result, an exception or a cancellation.

    Made by the `new_...` and `absorb_...` methods. It can be pickled if what is inside can.

    >>> state = FutureState.absorb_lambda(lambda: 6 * 7)
    >>> state.status, state.apply()
    ('success', 42)
    """

    __slots__ = ("_outcome",)

    def __init__(self, outcome: Outcome[T] | None = None) -> None:
        self._outcome = outcome

    # ---------------------------------------------------------------- what it is

    @property
    def outcome(self) -> Outcome[T] | None:
        """How it ended; None while it is pending."""
        return self._outcome

    @property
    def status(self) -> Literal["pending", "success", "exception", "cancelled"]:
        outcome = self._outcome
        if outcome is None:
            return "pending"
        if outcome.error is None:
            return "success"
        return "cancelled" if outcome.cancelled else "exception"

    @property
    def result(self) -> T | None:
        """What it ended with, if its status is "success"; None otherwise."""
        return self._outcome.unwrap() if self._outcome is not None and self._outcome.error is None else None

    @property
    def exception(self) -> BaseException | None:
        """What it ended with, if its status is "exception" or "cancelled"; None otherwise."""
        return None if self._outcome is None else self._outcome.error

    def __repr__(self) -> str:
        return f"<FutureState {'pending' if self._outcome is None else self._outcome!r}>"

    # ---------------------------------------------------------------- what to do with it

    def apply(self) -> T:
        """Return the result, or raise the exception. Raises asyncio.InvalidStateError while it is pending."""
        return self._ended().unwrap()

    def transfer(self, future: asyncio.Future[T]) -> bool:
        """End `future` like this; False when it has ended already, which is no error. In the thread of its loop.

        Raises asyncio.InvalidStateError while this is pending.
        """
        outcome = self._ended()
        if future.done():
            return False
        error = outcome.error
        if error is None:
            future.set_result(outcome.unwrap())
        elif isinstance(error, CancelledError):
            future.cancel(*error.args[:1])
        elif isinstance(error, StopIteration):  # a future cannot raise that
            wrapped = RuntimeError("the absorbed call raised StopIteration")
            wrapped.__cause__ = error
            future.set_exception(wrapped)
        else:
            future.set_exception(error)
        return True

    def transfer_threadsafe(self, future: asyncio.Future[T]) -> None:
        """`transfer`, from any thread: it is done on the loop of `future`, soon.

        Raises RuntimeError when that loop is closed, asyncio.InvalidStateError while this is pending.
        """
        self._ended()
        future.get_loop().call_soon_threadsafe(self.transfer, future)

    def _ended(self) -> Outcome[T]:
        if self._outcome is None:
            raise InvalidStateError("this state is pending")
        return self._outcome

    # ---------------------------------------------------------------- how it is made

    @staticmethod
    def new_pending() -> FutureState[Any]:
        """One that has not ended."""
        return FutureState()

    @staticmethod
    def new_success(result: U) -> FutureState[U]:
        """One that ended with `result`."""
        return FutureState(Outcome.ok(result))

    @staticmethod
    def new_failed(exception: BaseException) -> FutureState[Any]:
        """One that ended with `exception`. Raises TypeError for what is no exception."""
        if not isinstance(exception, BaseException):
            raise TypeError(f"exception must be an exception, not {exception!r}")
        return FutureState(Outcome.failed(exception))

    @staticmethod
    def new_cancelled(*args: object) -> FutureState[Any]:
        """One that was cancelled; `args` are those of its CancelledError."""
        return FutureState(Outcome.failed(CancelledError(*args)))

    @staticmethod
    def absorb_future(future: asyncio.Future[U] | futures.Future[U]) -> FutureState[U]:
        """The state of `future` now. An exception in it counts as retrieved. Never waits."""
        return FutureState(Outcome.of(future)) if future.done() else FutureState()

    @staticmethod
    async def absorb_awaitable(awaitable: Awaitable[U]) -> FutureState[U]:
        """Await it, in the calling task, and return how it ended.

        **Cancel safety:** when the calling task is cancelled, `awaitable` is, as by a plain `await`, and that
        CancelledError is raised and not absorbed. KeyboardInterrupt and SystemExit are raised, too.
        """
        if not isawaitable(awaitable):
            raise TypeError(f"awaitable must be something to await, not {awaitable!r}")
        caller = _Caller()
        try:
            return FutureState(Outcome.ok(await awaitable))
        except (Exception, CancelledError) as error:
            if caller.is_meant_by(error):
                raise
            return FutureState(Outcome.failed(error))

    @staticmethod
    def absorb_lambda(function: Callable[[], U]) -> FutureState[U]:
        """Call `function` and return how that ended. KeyboardInterrupt and SystemExit are raised."""
        if not callable(function):
            raise TypeError(f"function must be callable, not {function!r}")
        try:
            return FutureState(Outcome.ok(function()))
        except (Exception, CancelledError) as error:
            return FutureState(Outcome.failed(error))

    @overload
    @staticmethod
    def absorb_context() -> _Absorbing[None]: ...
    @overload
    @staticmethod
    def absorb_context(result: U) -> _Absorbing[U]: ...
    @staticmethod
    def absorb_context(result: Any = None) -> _Absorbing[Any]:
        """Absorb how a block ends: `with FutureState.absorb_context("done") as state:`.

        The state is pending in the block, and ends with it: with `result`, or with what the block raised, which goes
        no further. A request to cancel the calling task, KeyboardInterrupt and SystemExit do; the state stays pending.
        """
        return _Absorbing(result)


@final
class _Absorbing(Generic[T]):
    """A block whose end is absorbed. Made by `FutureState.absorb_context`."""

    __slots__ = ("_caller", "_result", "_state")

    _state: FutureState[T]

    def __init__(self, result: T) -> None:
        self._result = result

    def __enter__(self) -> FutureState[T]:
        self._caller = _Caller()
        self._state = FutureState()  # each block has its own: a state that has ended stays as it is
        return self._state

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if error is None:
            self._state._outcome = Outcome.ok(self._result)
            return False
        if not isinstance(error, Exception | CancelledError) or self._caller.is_meant_by(error):
            return False
        self._state._outcome = Outcome.failed(error)
        return True


class _Caller:
    """The calling task, if there is one, and how many requests to cancel it have been delivered to it."""

    __slots__ = ("_delivered", "_task")

    def __init__(self) -> None:
        self._task = None if _get_running_loop() is None else asyncio.current_task()
        self._delivered = 0
        if self._task is not None:
            # One that came in this very step is counted, but is delivered at the next wait.
            self._delivered = self._task.cancelling() - getattr(self._task, "_must_cancel", False)

    def is_meant_by(self, error: BaseException) -> bool:
        """Whether `error` is a request to cancel the calling task, and not what became of something else."""
        if not isinstance(error, CancelledError) or self._task is None:
            return False
        return self._task.cancelling() > self._delivered
