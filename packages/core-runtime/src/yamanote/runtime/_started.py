"""Started: how a child says that it is ready, to who has started it.

Invariant: whoever waits gets one of three: the value that the child is ready with; the error that it failed with
before; or that it ended in another way. An error that it fails with when nobody waits any more is the child's own, and
one that is already on its way to somebody who is cancelled goes to the exception handler of the loop.
"""

from __future__ import annotations

import asyncio
from _thread import allocate_lock
from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar, TypeVarTuple, Unpack, final, overload

from yamanote.runtime._join import JoinHandle, when_done
from yamanote.runtime._waiter import TaskWaiter

__all__ = ["Started"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@final
class Started(Generic[T]):
    """The first argument of a function that is started with `TaskGroup.start`. To be called once, when it is ready."""

    __slots__ = ("_calls", "_failure", "_section", "_waiter")

    def __init__(self) -> None:
        self._calls = [None]  # one element for the one call: the child may run in another thread, as may whom it asks
        self._failure: Exception | None = None
        self._section = allocate_lock()
        # None when nobody waits any more.
        self._waiter: TaskWaiter[T] | None = TaskWaiter()

    @overload
    def __call__(self: Started[None]) -> None: ...
    @overload
    def __call__(self, value: T) -> None: ...
    def __call__(self, value: Any = None) -> None:
        """I am ready: `start` returns `value`. Raises RuntimeError when it has been called before.

        **Threads:** may be called from any thread.
        """
        try:
            self._calls.pop()
        except IndexError:
            raise RuntimeError("started() can be called only once") from None
        waiter = self._waiter
        if waiter is not None:  # else the child is about to be cancelled
            waiter.hand(value)

    async def follow(self, function: Callable[[Started[T], Unpack[Ts]], Awaitable[object]], args: tuple[*Ts]) -> None:
        """What the child runs."""
        try:
            await function(self, *args)
        except Exception as error:
            with self._section:  # who waits must not go away in the middle of that
                waiter = self._waiter
                if waiter is None or not waiter.claim():
                    raise
                self._failure = error
            waiter.fail(error)
        finally:
            waiter = None
            del self, function, args  # the error refers to this frame, and they to the error

    async def wait_for(self, handle: JoinHandle[None]) -> T:
        """Wait in `start` until the child of `handle` is ready."""
        waiter = self._waiter
        assert waiter is not None
        if not when_done(handle._future, self._ended):
            self._ended(handle._future)
        try:
            await waiter.future
            return waiter.result()
        except CancelledError:
            with self._section:
                failure = self._failure
                self._waiter = None
            if failure is not None:  # it was on its way here
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "a child failed, and who has started it was cancelled", "exception": failure}
                )
            raise
        finally:
            self._waiter = self._failure = failure = None
            del self, waiter, handle  # as above

    def _ended(self, child: asyncio.Future[None]) -> None:
        waiter = self._waiter
        if waiter is None or not waiter.claim():
            return
        if child.cancelled():
            waiter.fail(JoinHandle(child)._join_error())
        elif child.done():
            waiter.fail(RuntimeError("the child ended without having called started()"))
        else:
            waiter.fail(RuntimeError("the loop of the child was closed before it was ready"))
