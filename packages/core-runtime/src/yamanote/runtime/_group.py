"""Task group: tasks that end before the block that started them does.

Invariant: no child outlives the block. An error of the body, `cancel`, the deadline, a cancellation of the host from
outside, and in a group that fails fast the first error of a child, cancel every child that has not ended, once, and the
body. What is raised is raised when all have ended; a cancellation from outside goes on. `task.cancelling()` of the host
is what it was.

The body runs in a `CancelScope`, which is closed first of all when the body ends. So whatever cancels the host while it
waits for its children comes from outside, and there is nothing to tell apart.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Awaitable, Coroutine
from math import inf
from types import CoroutineType, TracebackType
from typing import Any, Literal, Self, TypeVar

from yamanote.runtime._children import Children, ErrorHandler, was_taken
from yamanote.runtime._deadline import Block, living
from yamanote.runtime._join import JoinHandle
from yamanote.runtime._scope import DEADLINE_PASSED, CancelScope, require_number
from yamanote.runtime._task import as_coroutine, on_loop, tasks_of

__all__ = ["TaskGroup", "scope"]

T = TypeVar("T")
_State = Literal["new", "open", "abandoned", "ended"]


class TaskGroup(Children):
    """Runs tasks together: ``async with TaskGroup() as group: group.spawn(work())``.

    The block ends when its body and all its children have ended. `on_error` says what the error of a child does:

    * ``"cancel"``: it cancels the body and the other children. All errors are raised in an ExceptionGroup.
    * ``"collect"``: the others go on. At the end the errors that nobody has taken by awaiting a handle are raised in an
      ExceptionGroup.
    * a function, which may be async: the others go on, and the function is called with the error at once, unless
      somebody awaits the handle: then they get it. The block does not raise it.
    * ``"report"``: as if that function were the exception handler of the loop.

    In all of them an error of the body cancels the children; it is raised in the ExceptionGroup of theirs, or as it is
    where theirs are reported. A child that is cancelled is no failure. What is no Exception is never collected nor
    reported, but ends the block; KeyboardInterrupt and SystemExit are raised as they are.

    With a `limit`, at most so many children run at once; the others start in the order in which they were spawned.
    They have no task before that, so a long queue is cheap. When the `deadline`, a moment on the loop's clock, passes,
    that is a `cancel`. With `shield`, the scopes around the block cannot cancel it, nor its children, before it has
    ended; `task.cancel()` can.

    An async function as `on_error` runs in the place of the child that failed. What it raises, or an error that it did
    not deal with because it was cancelled with the group, goes to the exception handler of the loop.

    **Cancel safety:** when the host is cancelled, so are the children; its CancelledError goes on when they have ended.

    **Threads:** `cancel` may be called from any thread, and `spawn` by tasks on any worker of the runtime; everything
    else belongs to the loop of the block.

    Raises ValueError for a `limit` below 1 and for an `on_error` that is none of these.

    >>> from yamanote.runtime import TaskGroup, run
    >>> async def double(number):
    ...     return number * 2
    >>> async def example():
    ...     async with TaskGroup(limit=10) as group:
    ...         handles = [group.spawn(double(number)) for number in range(3)]
    ...     return [await handle for handle in handles]
    >>> run(example())
    [0, 2, 4]
    """

    __slots__ = ("_block", "_body", "_cancelled", "_deadline", "_errors", "_fatal", "_shield", "_state", "_timer")
    _policies = ("cancel", "collect", "report")

    def __init__(
        self,
        *,
        on_error: Literal["cancel", "collect", "report"] | ErrorHandler = "cancel",
        limit: int | None = None,
        deadline: float | None = None,
        shield: bool = False,
        name: str | None = None,
    ) -> None:
        if deadline is not None:
            require_number("deadline", deadline, "a moment on the loop's clock, or None for never")
        super().__init__(on_error, limit, name)
        self._deadline = deadline
        self._shield = CancelScope(shield=True) if shield else None
        self._body = CancelScope()
        self._block: Block | None = None  # for those who ask how much time is left: the body ends before the children
        self._timer: asyncio.TimerHandle | None = None
        self._state: _State = "new"
        self._cancelled = False
        # With its handle, an error that is raised only if nobody has taken it by then.
        self._errors: list[tuple[BaseException, JoinHandle[Any] | None]] = []
        self._fatal: BaseException | None = None

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise RuntimeError(f"{self!r} can be entered only once")
        if self._shield is not None:
            self._shield.__enter__()
        self._body.__enter__()
        self._host = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._state = "open"
        if self._deadline is not None:
            self._block = Block(self._deadline)
            self._block._task = self._host
            self._block._surround()
        if self._deadline is not None and self._deadline < inf:
            if self._deadline > self._loop.time():
                self._timer = self._loop.call_at(self._deadline, self._expire)
            else:
                self._expire()  # before the first await of the body
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        swallowed = self._body.__exit__(kind, error, traceback)
        outside: CancelledError | None = None
        assert self._loop is not None
        try:
            if error is not None and not swallowed:
                if isinstance(error, CancelledError):
                    outside = error
                    self._abort(None)
                elif isinstance(error, GeneratorExit):
                    self._abandon()
                    return False
                else:
                    self._failed(error)
            while self._active:
                self._idle = self._loop.create_future()
                try:
                    await self._idle
                except CancelledError as cancelled:
                    outside = outside or cancelled
                    self._abort(None)
                except GeneratorExit:
                    self._abandon()
                    raise
            self._state = "ended"
            if self._fatal is not None:
                if self._fatal is error:
                    return False
                raise self._fatal
            errors = self._unhandled() if self._errors else []
            if errors:
                if outside is not None and self._host is not None:
                    self._body._raise_again(self._host)
                if len(errors) == 1 and errors[0] is error and self._reports():
                    return False
                label = "" if self._name is None else f" ({self._name})"
                raise BaseExceptionGroup(f"unhandled errors in a {type(self).__name__}{label}", errors) from None
            if outside is not None:
                if outside is error:
                    return False
                raise outside
            return swallowed
        finally:
            if self._timer is not None:
                self._timer.cancel()
            if self._block is not None:
                self._block._task = None
                self._block._outer = living(self._block._outer)
            if self._shield is not None:
                self._shield.__exit__(None, None, None)
            if self._state == "ended":
                self._host = None
            # Errors refer to this frame, and it to them.
            del error, outside, traceback
            errors = []
            self._errors = []
            self._fatal = self._idle = None

    def cancel(self, reason: str | None = None) -> None:
        """End the group early: cancel its children and its body. This raises nothing out of the block.

        The block still waits until they have ended, and raises what they raise in their clean-up. May be called
        before the block is entered, again, and after it has ended.

        **Threads:** may be called from any thread.
        """
        loop = self._loop
        if loop is None:
            self._cancel(reason)
        else:
            on_loop(loop, self._cancel, reason)

    @property
    def cancelled_caught(self) -> bool:
        """Whether `cancel`, or the deadline, has ended the body or a child before they did by themselves."""
        return self._cancelled and (self._cut_short or self._body.cancelled_caught)

    def _cancel(self, reason: str | None) -> None:
        self._cancelled = self._cancelled or not self._aborting
        self._abort(reason)

    def _expire(self) -> None:
        self._cancel(DEADLINE_PASSED)

    def _admit(self, coro: Awaitable[T], method: str, loop: asyncio.AbstractEventLoop | None) -> Coroutine[Any, Any, T]:
        coroutine = coro if type(coro) is CoroutineType else as_coroutine(coro, method)
        if self._state == "open" and loop is self._loop:
            return coroutine
        coroutine.close()
        if self._state == "open":
            raise RuntimeError(f"{self!r} belongs to another event loop")
        raise RuntimeError(f"{self!r} takes no children: it is not open")

    def _is_abroad(self, loop: asyncio.AbstractEventLoop | None) -> bool:
        return self._state == "open" and self._is_colleague(loop)

    def _reports(self) -> bool:
        return self._on_error not in ("cancel", "collect")

    def _failed_with(self, error: BaseException, handle: JoinHandle[Any]) -> bool:
        if isinstance(error, Exception) and self._reports():
            return super()._failed_with(error, handle)
        if isinstance(error, Exception) and self._on_error == "collect" and self._state != "abandoned":
            self._errors.append((error, handle))
        else:
            handle._delivered()
            self._failed(error)
        return False

    def _failed(self, error: BaseException) -> None:
        if self._state == "abandoned":
            self._tell_loop(f"a child of {self!r}, whose host is gone, failed", error)
        elif isinstance(error, (KeyboardInterrupt, SystemExit)):
            self._fatal = self._fatal or error
        else:
            self._errors.append((error, None))
        self._abort(None)

    def _unhandled(self) -> list[BaseException]:
        """The errors to raise, each once: the body may raise what it got from a child, and so may another child."""
        unhandled: dict[int, BaseException] = {}
        for error, handle in self._errors:
            if handle is not None:
                if was_taken(handle):
                    continue
                handle._delivered()
            unhandled[id(error)] = error
        return list(unhandled.values())

    def _abort(self, reason: str | None) -> None:
        # The body first: where it waits for a child it is to hear of its own end, not of the child's.
        if not self._aborting:
            self._body.cancel(reason)
        super()._abort(reason)

    def _abandon(self) -> None:
        """The host is being thrown away, and then nothing can be awaited: tell the children, and let them end."""
        assert self._loop is not None
        self._state = "abandoned"
        for error in self._unhandled():
            self._failed(error)
        tasks = tasks_of(self._loop)
        for child in self._children:
            tasks.add(child)
            child.add_done_callback(tasks.discard)
        self._abort(None)

    def _describe(self) -> str:
        return "cancelled" if self._aborting and self._state == "open" else self._state


def scope(*, name: str | None = None) -> TaskGroup:
    """A block whose children end with it: ``async with scope() as s: s.spawn(work()); s.cancel()``.

    The name under which users of TonIO look for `TaskGroup`. The error of a child is never lost: it ends the block.

    >>> import asyncio
    >>> from yamanote.runtime import run, scope
    >>> async def example():
    ...     async with scope() as s:
    ...         handle = s.spawn(asyncio.sleep(3600))
    ...         s.cancel()
    ...     return handle.is_finished()
    >>> run(example())
    True
    """
    return TaskGroup(name=name)
