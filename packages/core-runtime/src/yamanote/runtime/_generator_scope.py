"""Scope: a task group for generators, which have no `async with`.

Invariant: no child outlives the generator that opened the scope. That waits for them where it yields ``s()``, else
where it ends. An error that leaves the block cancels them.

It is a `TaskGroup` whose end comes in two steps: the body ends with the block, and the waiting is done later.
"""

from __future__ import annotations

from asyncio import CancelledError, current_task
from collections.abc import Awaitable, Generator
from contextlib import suppress
from contextvars import Context
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar, Unpack, final

from yamanote.runtime._generators import Callers, Owed, callers_here, driven
from yamanote.runtime._group import TaskGroup
from yamanote.runtime._join import JoinHandle
from yamanote.runtime._scope import CancelScope

__all__ = ["Scope", "ChildOptions"]

T = TypeVar("T")


class ChildOptions(TypedDict, total=False):
    """The options of `TaskGroup.spawn`."""

    name: str | None
    context: Context | None
    eager: bool
    on: int | None


@final
class Scope(TaskGroup, Owed):
    """A `TaskGroup` for a `with` statement: ``with scope() as s: s.spawn(work())``, then ``yield s()``.

    As with ``async with scope()``, the first error of a child cancels the other children and the block, and `cancel`
    cancels them all; in the block that is raised at its next `yield`, and ends with it.

    ``yield s()`` waits until all have ended, and raises the errors of the children in an ExceptionGroup. Without it the
    end of the generator does that. When the generator ends with an error, that one is raised, as it is, when the
    children have been cancelled and have ended; errors of theirs go to the exception handler of the loop.

    Made by `scope`, and entered once, in a generator.
    """

    __slots__ = ("_callers", "_left")

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self._callers: Callers = []
        self._left = False

    def __enter__(self) -> Self:
        callers = callers_here()
        if callers is None:
            raise RuntimeError(
                "with scope() works in a generator that is run as a coroutine; in an async function, write "
                "`async with` and the `scope` of yamanote.runtime"
            )
        with suppress(StopIteration):
            self.__aenter__().send(None)  # it does not wait
        self._callers = callers
        callers.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._left = True
        swallowed = self._body.__exit__(kind, error, traceback)
        if error is not None and not swallowed:
            self._abort(None)
        return swallowed

    async def __call__(self) -> None:
        """Wait until all children have ended; raise their errors. The second time there is nothing to wait for.

        **Cancel safety:** when it is cancelled, so are the children; the cancellation goes on when they have ended.

        Raises RuntimeError in front of the block, inside of it, and in another task.
        """
        if not self._left:
            raise RuntimeError(f"{self!r} has to be waited for behind its block")
        if self._state != "open":
            return
        if current_task() is not self._host:
            raise RuntimeError(f"{self!r} can be waited for only in the task that has opened it")
        try:
            await self._wait()
        finally:
            # From the end: its generator may be the last of very many. What stays below one that is open goes later.
            callers = self._callers
            while callers and isinstance(last := callers[-1], Scope) and last._state != "open":
                callers.pop()

    async def settle(self, error: BaseException | None) -> None:
        """The generator has ended: `__call__`, in its place."""
        if self._state != "open":
            return
        if error is None:
            await self._wait()
            return
        self._abort(None)
        host = self._host
        try:
            await self._wait()
        except CancelledError:
            if not isinstance(error, CancelledError) and host is not None:
                self._body._raise_again(host)
        except BaseExceptionGroup as errors:
            for each in errors.exceptions:
                self._tell_loop(f"a child of {self!r} failed while another error was on its way", each)

    def close(self) -> None:
        """The generator is being closed: cancel the children, which cannot be waited for."""
        if self._state == "open":
            self._abandon()

    def spawn(self, coro: Awaitable[T] | Generator[Any, Any, T], /, **options: Unpack[ChildOptions]) -> JoinHandle[T]:
        """Start a child: `TaskGroup.spawn`, for generators as well."""
        return super().spawn(driven(coro), **options)

    async def _wait(self) -> None:
        # The body is over, with the block. What ends here is an empty one.
        self._cut_short = self._cut_short or self._body.cancelled_caught
        self._body = CancelScope()
        self._body.__enter__()
        await self.__aexit__(None, None, None)
