"""Started: how a child says that it is ready, to who has started it.

Invariant: whoever waits gets one of three: the value that the child is ready with; the error that it failed with
before; or that it ended in another way. An error that it fails with when nobody waits any more is the child's own, and
one that is already on its way to somebody who is cancelled goes to the exception handler of the loop.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar, TypeVarTuple, Unpack, final, overload

from yamanote.runtime._join import JoinHandle

__all__ = ["Started"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@final
class Started(Generic[T]):
    """The first argument of a function that is started with `TaskGroup.start`. To be called once, when it is ready."""

    __slots__ = ("_called", "_failure", "_ready")

    def __init__(self) -> None:
        self._called = False
        self._failure: Exception | None = None
        # None when nobody waits any more.
        self._ready: asyncio.Future[T] | None = asyncio.get_running_loop().create_future()

    @overload
    def __call__(self: Started[None]) -> None: ...
    @overload
    def __call__(self, value: T) -> None: ...
    def __call__(self, value: Any = None) -> None:
        """I am ready: `start` returns `value`. Raises RuntimeError when it has been called before."""
        if self._called:
            raise RuntimeError("started() can be called only once")
        self._called = True
        if self._ready is not None and not self._ready.done():  # else the child is about to be cancelled
            self._ready.set_result(value)

    async def follow(self, function: Callable[[Started[T], Unpack[Ts]], Awaitable[object]], args: tuple[*Ts]) -> None:
        """What the child runs."""
        try:
            await function(self, *args)
        except Exception as error:
            if self._ready is None or self._ready.done():
                raise
            self._failure = error
            self._ready.set_exception(error)
        finally:
            del self, function, args  # the error refers to this frame, and they to the error

    async def wait_for(self, handle: JoinHandle[None]) -> T:
        """Wait in `start` until the child of `handle` is ready."""
        ready = self._ready
        assert ready is not None
        handle._future.add_done_callback(self._ended)
        try:
            return await ready
        except CancelledError:
            if self._failure is not None:  # it was on its way here
                ready.get_loop().call_exception_handler(
                    {"message": "a child failed, and who has started it was cancelled", "exception": self._failure}
                )
            raise
        finally:
            self._ready = self._failure = None
            del self, ready  # as above

    def _ended(self, child: asyncio.Future[None]) -> None:
        if self._ready is None or self._ready.done():
            return
        if child.cancelled():
            error: Exception = JoinHandle(child)._join_error()
        else:
            error = RuntimeError("the child ended without having called started()")
        self._ready.set_exception(error)
